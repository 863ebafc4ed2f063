"""The command line: wires the commands, the environment, the settings file and the exit codes.

Results go to stdout, progress and logs to stderr. One file a command; each imports what is heavy
inside the command, so that ``--help`` stays quick. What they share:

options.py groups.py   options as objects, and how they become a command's; reading.py eval_options.py more of them
lists.py queries.py    values between commas; queries from files and stdin; refining.py: what search does with its hits
settings.py running.py the settings file; the running command and where its options came from
console.py hits.py progress.py   what is printed: masked texts and tables, hits, bars
observing.py           what monitoring is told
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from m3connect.cli import console, settings
from m3connect.cli.collections import collections, drop, info
from m3connect.cli.copy import copy, verify
from m3connect.cli.doctor import doctor
from m3connect.cli.encode import encode
from m3connect.cli.eval import evaluate
from m3connect.cli.export import export
from m3connect.cli.groups import Declared, declared, expanded
from m3connect.cli.ingest import ingest
from m3connect.cli.merge import merge
from m3connect.cli.mine import mine
from m3connect.cli.models import models
from m3connect.cli.plan import plan
from m3connect.cli.records import delete, fetch
from m3connect.cli.reembed import reembed
from m3connect.cli.report import report
from m3connect.cli.retry import retry
from m3connect.cli.running import Services, source_of
from m3connect.cli.score import score
from m3connect.cli.search import search
from m3connect.cli.serve import mcp, serve
from m3connect.cli.settings import SettingsFile
from m3connect.cli.sweep import sweep
from m3connect.cli.synthesize import synthesize
from m3connect.cli.train import train
from m3connect.cli.tune import tune
from m3connect.errors import (
    ConfigError,
    FingerprintMismatch,
    InputError,
    M3ConnectError,
    Refused,
    SchemaMismatch,
    TransientError,
)

FATAL, USAGE, CONFLICT, UNAVAILABLE, REFUSED, INTERRUPTED = 1, 2, 3, 5, 6, 130
_EXIT_CODES: tuple[tuple[type[M3ConnectError], int], ...] = (
    (FingerprintMismatch, CONFLICT),
    (SchemaMismatch, CONFLICT),
    (TransientError, UNAVAILABLE),
    (Refused, REFUSED),
    (ConfigError, USAGE),
    (InputError, USAGE),
    (M3ConnectError, FATAL),
)

app = typer.Typer(
    name="m3connect",
    help="Text through one M3 encoder into Qdrant, Milvus or Elasticsearch, and back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Documents to search": {
        "plan": plan,
        "ingest": ingest,
        "retry": retry,
        "search": search,
        "encode": encode,
    },
    "Collections": {
        "collections": collections,
        "info": info,
        "fetch": fetch,
        "delete": delete,
        "drop": drop,
        "reembed": reembed,
        "copy": copy,
        "verify": verify,
    },
    "Applications": {"serve": serve, "mcp": mcp},
    "Measure and train": {
        "eval": evaluate,
        "report": report,
        "sweep": sweep,
        "tune": tune,
        "mine": mine,
        "score": score,
        "synthesize": synthesize,
        "train": train,
    },
    "Models and machine": {
        "models": models,
        "export": export,
        "merge": merge,
        "doctor": doctor,
    },
}
_DECLARED: dict[str, dict[str, Declared]] = {}
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        _DECLARED[_name] = declared(_command)
        app.command(_name, rich_help_panel=_panel)(expanded(_command))


@app.callback(invoke_without_command=True)
def root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    """Text through one M3 encoder into Qdrant, Milvus or Elasticsearch, and back.

    Options can also be set in the environment, under the names that --help shows, or in
    m3connect.toml: flag > environment > file > default.
    """
    logging.basicConfig(
        handlers=[console.Counting(sys.stderr)],
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"m3connect {installed('m3connect')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None, services: Services | None = None) -> None:
    """Run the command line; exits the process with one of the codes above.

    Args:
        arguments: in place of the process's own.
        services: what opens collections and models, in place of the real ones.
    """
    # OpenMP threads that spin at barriers make a query many times slower on a busy machine. It has
    # to be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # What a command imports stays: looking through it for garbage is a fifth of a short command.
    gc.set_threshold(100_000)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == ["eval", "sweep"]:  # where some look for it
        del given[0]
    if not faulthandler.is_enabled() and sys.__stderr__ is not None:
        with suppress(OSError, ValueError):  # no real stream
            faulthandler.enable(sys.__stderr__)  # a driver that crashes says where
    group, keyed = _built()
    as_json = "--json" in given
    file, defaults = SettingsFile(Path(settings.FILE_NAME)), {}
    mask = console.masker(console.secrets(given, os.environ, {}))
    with console.guarded(mask):
        if not {"--help", "--version"} & set(given):
            try:
                file = settings.read_file()
                set_by_file = settings.defaults(file, keyed)
            except ConfigError as error:
                console.show_error(error, str(error), USAGE, as_json=as_json)
                sys.exit(USAGE)
            defaults = {
                name: _by_parameter(group.commands[name], values)
                for name, values in set_by_file.items()
            }
            for line in settings.stray_variables(os.environ, keyed):
                typer.secho(line, fg="yellow", err=True)
    for name, command in group.commands.items():
        invoke = type(command).invoke.__get__(command)
        command.invoke = _with_exit_codes(invoke, file, _DECLARED[name])
    mask = console.masker(console.secrets(given, os.environ, file.content))
    with console.guarded(mask):
        color = False if os.environ.get("NO_COLOR") else None
        how = {"default_map": defaults, "obj": services, "color": color}
        if not as_json:
            group.main(args=given, prog_name="m3connect", **how)
        try:
            code = group.main(args=given, prog_name="m3connect", standalone_mode=False, **how)
            sys.exit(code or 0)
        except typer.TyperException as error:
            console.show_error(error, error.format_message(), error.exit_code, as_json=True)
            sys.exit(error.exit_code)


@cache
def _built() -> tuple[Any, Mapping[str, Mapping[str, Declared]]]:
    """The group of all commands, and what each declares under the names of its flags; built once."""
    group: Any = get_command(app)
    keyed = {
        name: {key: _DECLARED[name][parameter.name] for key, parameter in _options(command).items()}
        for name, command in group.commands.items()
    }
    for name, command in group.commands.items():
        _add_environment(name, command, keyed[name])
    return group, keyed


def _options(command: Any) -> dict[str, Any]:
    """A command's options under the names of their flags: ``--json`` is ``json``."""
    return {
        parameter.opts[0].lstrip("-").replace("-", "_"): parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name in _DECLARED[command.name]
    }


def _add_environment(name: str, command: Any, keyed: Mapping[str, Declared]) -> None:
    from m3connect.cli.settings import variable

    for key, parameter in _options(command).items():
        if not keyed[key].flag_only:
            own = variable(name, key, shared=keyed[key].shared)
            parameter.envvar = parameter.envvar or own


def _by_parameter(command: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the file sets, under the names that the command's function uses.

    An option that may be repeated takes a single text, too, and one whose text is a list a list.
    """
    options = _options(command)

    def fitting(multiple: bool, value: Any) -> Any:
        if multiple:
            return [value] if isinstance(value, str) else value
        return ",".join(map(str, value)) if isinstance(value, list) else value

    return {
        options[key].name: fitting(options[key].multiple, value) for key, value in values.items()
    }


def _with_exit_codes(
    invoke: Callable[[typer.Context], Any], file: SettingsFile, options: Mapping[str, Declared]
) -> Callable[[typer.Context], Any]:
    """Turn errors and Ctrl-C into a message on stderr and an exit code."""

    def guarded(context: typer.Context) -> Any:
        as_json = bool(context.params.get("as_json"))
        failure: Exception
        try:
            _check_settings(file, options, context)
            return invoke(context)
        except KeyboardInterrupt:
            said = "Interrupted; what was acknowledged is kept. Run it again to go on."
            typer.secho(said, fg="yellow", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (typer.TyperException, typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except M3ConnectError as error:
            code = next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
            failure, message = error, str(error)
            url = context.params.get("url")
            if isinstance(error, TransientError) and url and url not in message:
                message += f"; tried {url}"
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            code, failure, message = FATAL, error, f"{where}{error.strerror or error}"
        except Exception as error:  # noqa: BLE001 - the edge: what nobody foresaw is told, not thrown
            code, failure = FATAL, error
            message = f"this is a fault of m3connect, please report it: {error!r}; m3connect -v ... shows where"
        logging.getLogger(__name__).info("details", exc_info=failure)
        console.show_error(failure, message, code, as_json=as_json)
        raise typer.Exit(code) from failure

    return guarded


def _check_settings(
    file: SettingsFile, options: Mapping[str, Declared], context: typer.Context
) -> None:
    """Show and check what a settings file decides for the running command."""
    sources = {name: source_of(context, name) for name in options}
    by_file = [each for name, each in options.items() if sources[name] == "DEFAULT_MAP"]
    given = {"COMMANDLINE", "ENVIRONMENT"}
    elsewhere = [each for name, each in options.items() if sources[name] in given]
    if line := settings.shown(file, by_file, context.params):
        typer.secho(console.visible(line), fg="yellow", err=True)
    settings.guard(file, by_file, elsewhere, context.params)
