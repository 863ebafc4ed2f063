"""Where an option comes from: flag > environment ``M3CONNECT_*`` > ``m3connect.toml`` > default.

The command line's own options are the schema. One that several commands share by declaration is
``M3CONNECT_URL`` or a key at the top of the file; one of a single command is
``M3CONNECT_SEARCH_LIMIT`` or a key in the table ``[search]``.

A file that merely lies in the current folder may be somebody else's. What it decides about the target
is shown, no key from elsewhere is sent to an address of it, and it names no paths outside its folder.
Naming it with ``M3CONNECT_CONFIG`` confirms it.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3connect.errors import ConfigError, Refused

if TYPE_CHECKING:
    from m3connect.cli.groups import Declared

FILE_NAME = "m3connect.toml"
FILE_VARIABLE = "M3CONNECT_CONFIG"
SERVICE_KEYS = {"model": "M3CONNECT_ENCODER_KEY", "reranker": "M3CONNECT_RERANKER_KEY"}
"""The variables with the keys of services, which no option has, by the option with the address."""
_PREFIX = "M3CONNECT_"

Commands = Mapping[str, Mapping[str, "Declared"]]
"""The options of every command by their keys: ``--json`` has the key ``json``."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A settings file.

    Args:
        path: where it is.
        content: empty when there is no file.
        confirmed: the user named it; it does not merely lie in the current folder.
    """

    path: Path
    content: Mapping[str, Any] = field(default_factory=dict)
    confirmed: bool = True


LIKE = {"retry": "ingest", "plan": "ingest"}
"""Commands that do over again, or foresee, what another does: its options are theirs."""


def variable(command: str, key: str, *, shared: bool) -> str:
    """The environment variable of an option.

    >>> variable("search", "url", shared=True)
    'M3CONNECT_URL'
    >>> variable("search", "limit", shared=False)
    'M3CONNECT_SEARCH_LIMIT'
    """
    return _PREFIX + (key if shared else f"{command}_{key}").upper().replace("-", "_")


def read_file() -> SettingsFile:
    """The settings file of this directory, or the one that ``M3CONNECT_CONFIG`` names.

    Raises:
        ConfigError: a named file is missing, or the file is no readable TOML.
    """
    named = os.environ.get(FILE_VARIABLE)
    path = Path(named or FILE_NAME)
    try:
        if not path.exists():
            if named:
                raise ConfigError(f"{FILE_VARIABLE} names {path}, which does not exist")
            return SettingsFile(path)
        if not path.is_file():
            raise ConfigError(f"{path} is no file: settings are read from a regular file")
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return SettingsFile(path, content, confirmed=bool(named))


def defaults(file: SettingsFile, commands: Commands) -> dict[str, dict[str, Any]]:
    """The options that a settings file sets, by command and key.

    Keys at the top reach the options that commands share by declaration. A table named like a
    command sets any option of that one and wins; one of a command in ``LIKE`` stands in for it.

    Raises:
        ConfigError: a key is no option, or none that a file may set; or a value is a table.
    """
    shared = {
        key for options in commands.values() for key, option in options.items() if option.shared
    }
    top = {key: value for key, value in file.content.items() if key not in commands}
    for key, value in top.items():
        if key not in shared:
            raise ConfigError(f"{file.path}: {_unknown_top(key, shared, commands)}")
        _check_value(file.path, key, value)
    by_command: dict[str, dict[str, Any]] = {}
    for command, options in commands.items():
        by_command[command] = {
            key: value for key, value in top.items() if key in options and options[key].shared
        }
        table = file.content.get(command, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{file.path}: {command!r} is a command; write a table [{command}]")
        for key, value in table.items():
            if key not in options:
                raise ConfigError(
                    f"{file.path}: [{command}] unknown key {key!r}{_hint(key, options)}"
                )
            if options[key].flag_only:
                raise ConfigError(
                    f"{file.path}: [{command}] {key} is asked for on the command line only"
                )
            _check_value(file.path, key, value)
            by_command[command][key] = value
    for command in LIKE.keys() & by_command.keys():
        options, like = commands[command], file.content.get(LIKE[command], {})
        inherited = {key: value for key, value in like.items() if key in options}
        by_command[command] |= inherited | file.content.get(command, {})
    return by_command


def _unknown_top(key: str, shared: set[str], commands: Commands) -> str:
    tables = [f"[{command}]" for command, options in commands.items() if key in options]
    if tables:
        return f"{key!r} is not shared by all commands; write it under {' or '.join(tables)}"
    return f"unknown key {key!r}{_hint(key, shared | set(commands))}"


def _hint(key: str, known: Sequence[str] | set[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"


def _check_value(path: Path, key: str, value: object) -> None:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float | bool) for item in items):
        raise ConfigError(f"{path}: {key} takes a text, a number, true or false, or a list of them")


def stray_variables(environment: Mapping[str, str], commands: Commands) -> list[str]:
    """What to say of variables that look like an option of one command, and set nothing."""
    lines = []
    for name in sorted(environment):
        key = name.removeprefix(_PREFIX).lower()
        owners = [command for command, options in commands.items() if key in options]
        if name.startswith(_PREFIX) and owners and not commands[owners[0]][key].shared:
            right = " or ".join(
                variable(command, key, shared=False)
                for command in owners
                if not commands[command][key].flag_only
            )
            lines.append(f"{name} sets nothing" + (f"; write {right}" if right else ""))
    return lines


# --------------------------------------------------------------------- files nobody confirmed


def shown(file: SettingsFile, options: Sequence[Declared], values: Mapping[str, Any]) -> str | None:
    """The line that says what an unconfirmed file decides about the target; None if nothing.

    Args:
        file: the settings file.
        options: those of the running command that the file set.
        values: of all options by name.
    """
    told = [option for option in options if option.decides_target or _is_service(option, values)]
    if file.confirmed or not told:
        return None
    parts = [
        f"{option.name} (not shown)" if option.secret else f"{option.name} = {values[option.name]}"
        for option in told
    ]
    return f"{file.path} in this folder sets {', '.join(parts)}"


def guard(
    file: SettingsFile,
    options: Sequence[Declared],
    elsewhere: Sequence[Declared],
    values: Mapping[str, Any],
) -> None:
    """Refuse what a file that nobody confirmed must not do.

    Args:
        file: the settings file.
        options: those of the running command that the file set.
        elsewhere: those that flags or the environment set.
        values: of all options by name.

    Raises:
        Refused: a key of other origin would be sent to an address of the file, or the file names
            a path to write outside its folder.
    """
    if file.confirmed:
        return
    confirm = f"if the file is yours, confirm it: {FILE_VARIABLE}={file.path}"
    addresses = [option.name for option in options if option.address]
    keys = [option.name for option in elsewhere if option.secret]
    services = [option.name for option in options if _is_service(option, values)]
    if sent := [name for name in services if os.environ.get(SERVICE_KEYS[name])]:
        addresses, keys = sent, [SERVICE_KEYS[name] for name in sent]
    if addresses and keys:
        raise Refused(
            f"{file.path} in this folder sets {', '.join(addresses)}, and {', '.join(keys)} comes "
            f"from elsewhere: it is not sent to that address; {confirm}"
        )
    home = file.path.absolute().parent.resolve()
    for option in options:
        if not option.writes:
            continue
        if not (home / str(values[option.name])).resolve().is_relative_to(home):
            raise Refused(
                f"{file.path} in this folder sets {option.name} to a place outside it; {confirm}"
            )


def _is_service(option: Declared, values: Mapping[str, Any]) -> bool:
    """Whether it names the service of an encoder or a reranker by its address."""
    return option.service and "://" in str(values[option.name])
