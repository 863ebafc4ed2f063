"""The command line's surface is frozen: ``docs/commands.md`` lists every command and flag.

After a change on purpose: ``python tests/cli/test_listing.py > docs/commands.md``.
"""

from pathlib import Path

from typer.main import get_command

from m3connect import cli
from m3connect.cli.settings import variable

LISTING = Path(__file__).parents[2] / "docs" / "commands.md"
HEAD = """# Commands and options

What `m3connect COMMAND --help` says, in one place. An option without a variable is given on the command line only.
An option whose variable does not name the command is shared: its key stands at the top of `m3connect.toml`, others in
the table of their command.
"""


def listing():
    """Every command with its arguments and options, as Markdown."""
    lines = [HEAD]
    for name, command in sorted(get_command(cli.app).commands.items()):  # type: ignore[attr-defined]
        lines += [f"## {name}", "", command.help.split("\n\n")[0].replace("\n", " "), ""]
        lines += ["| option | | variable | default |", "|---|---|---|---|"]
        for parameter in command.params:
            if parameter.name not in cli._DECLARED[name]:
                continue
            option = cli._DECLARED[name][parameter.name]
            flag = parameter.opts[0]
            key = flag.lstrip("-").replace("-", "_")
            own = parameter.envvar or variable(name, key, shared=option.shared)
            is_argument = parameter.param_type_name == "argument"
            flags = " ".join([*parameter.opts, *parameter.secondary_opts])
            text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
            default = "required" if parameter.required else _default(parameter.default)
            place = "" if is_argument or option.flag_only else f"`{own}`"
            lines.append(
                f"| `{parameter.name.upper() if is_argument else flags}` | {text} | {place} | {default} |"
            )
        lines.append("")
    return "\n".join(lines)


def _default(value):
    empty = value is None or value is False or value == "" or value == []
    return "" if empty or callable(value) else f"`{value}`"


def test_commands_and_flags_are_the_documented_ones():
    """A flag that comes, goes or changes its default is a change of the listing, too."""
    assert listing() == LISTING.read_text(encoding="utf-8")


def test_options_with_one_name_are_one_option():
    """A shared option's key is no command's own option elsewhere: one key has one meaning."""
    own = {
        key for options in cli._DECLARED.values() for key, option in options.items()
        if not option.shared
    }  # fmt: skip
    shared = {
        key for options in cli._DECLARED.values() for key, option in options.items()
        if option.shared
    }  # fmt: skip
    assert own & shared == {"dtype", "model", "target", "weights"}


def test_every_command_prints_json():
    """``--json`` is there for all."""
    for name, options in cli._DECLARED.items():
        assert "as_json" in options, name


def test_every_command_with_a_model_takes_its_limits():
    """Wherever ``--model`` is, so are ``--max-length`` and ``--batch-tokens``."""
    for name, options in cli._DECLARED.items():
        if "backend" in options:
            assert {"max_length", "batch_tokens", "dtype", "device"} <= set(options), name


if __name__ == "__main__":
    print(listing(), end="")  # noqa: T201 - the listing's text
