"""The command line: wires the commands, the environment, the settings file and the exit codes.

Results go to stdout, progress and logs to stderr. One file a command; each imports what is heavy
inside the command, so that ``--help`` stays quick.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from m3connect.cli.copy import copy, verify
from m3connect.cli.doctor import doctor
from m3connect.cli.encode import encode
from m3connect.cli.eval import evaluate
from m3connect.cli.export import export
from m3connect.cli.ingest import ingest
from m3connect.cli.merge import merge
from m3connect.cli.mine import mine
from m3connect.cli.models import models
from m3connect.cli.report import report
from m3connect.cli.score import score
from m3connect.cli.search import search
from m3connect.cli.synthesize import synthesize
from m3connect.cli.train import train
from m3connect.cli.tune import tune
from m3connect.errors import (
    ConfigError,
    FingerprintMismatch,
    InputError,
    M3ConnectError,
    SchemaMismatch,
    TransientError,
)

OK, FATAL, USAGE, CONFLICT, PARTIAL, UNAVAILABLE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130
_EXIT_CODES: tuple[tuple[type[M3ConnectError], int], ...] = (
    (FingerprintMismatch, CONFLICT),
    (SchemaMismatch, CONFLICT),
    (TransientError, UNAVAILABLE),
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
    "Documents to search": {"ingest": ingest, "search": search, "encode": encode},
    "Collections": {"copy": copy, "verify": verify},
    "Measure and train": {
        "eval": evaluate,
        "report": report,
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
for _panel, _commands in _COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)


@app.callback(invoke_without_command=True)
def root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    """Text through one M3 encoder into Qdrant, Milvus or Elasticsearch, and back.

    Every option can also be set as M3CONNECT_NAME in the environment or as a key of
    m3connect.toml: flag > environment > file > default.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"m3connect {installed('m3connect')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits the process with one of the codes above."""
    # OpenMP threads that spin at barriers make a query many times slower on a busy machine. It has
    # to be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    group: Any = get_command(app)
    for command in group.commands.values():
        _add_environment(command)
        command.callback = _with_exit_codes(command.callback)
    try:
        defaults = _file_defaults(group)
    except ConfigError as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(USAGE)
    group.main(args=arguments, prog_name="m3connect", default_map=defaults)


def _options(command: Any) -> dict[str, Any]:
    """A command's options under the names of their flags: ``--json`` is ``json``."""
    return {
        parameter.opts[0].lstrip("-").replace("-", "_"): parameter
        for parameter in command.params
        if parameter.param_type_name == "option"
    }


def _add_environment(command: Any) -> None:
    from m3connect.cli.settings import environment_variable

    for name, parameter in _options(command).items():
        parameter.envvar = parameter.envvar or environment_variable(name)


def _file_defaults(group: Any) -> dict[str, dict[str, Any]]:
    """What the settings file sets, under the names that the commands' functions use."""
    from m3connect.cli.settings import defaults, read_file

    options = {name: _options(command) for name, command in group.commands.items()}
    path, content = read_file()
    found = defaults(path, content, {name: set(known) for name, known in options.items()})
    return {
        command: {options[command][key].name: value for key, value in values.items()}
        for command, values in found.items()
    }


def _with_exit_codes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn our errors and Ctrl-C into a message on stderr and an exit code."""

    @functools.wraps(command)
    def guarded(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except KeyboardInterrupt:
            typer.secho("Interrupted; what was acknowledged is kept.", fg="yellow", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except M3ConnectError as error:
            logging.getLogger(__name__).info("details", exc_info=True)
            typer.secho(f"Error: {error}", fg="red", err=True)
            code = next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
            raise typer.Exit(code) from error

    return guarded
