"""Where an option comes from: flag > environment ``M3CONNECT_*`` > ``m3connect.toml`` > default.

The command line's own options are the schema; this file adds the environment and the file to them.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3connect.errors import ConfigError

FILE_NAME = "m3connect.toml"
FILE_VARIABLE = "M3CONNECT_CONFIG"


def environment_variable(option: str) -> str:
    """The variable that sets an option in every command that has it.

    >>> environment_variable("chunk_tokens")
    'M3CONNECT_CHUNK_TOKENS'
    """
    return f"M3CONNECT_{option.upper()}"


def read_file() -> tuple[Path, dict[str, Any]]:
    """The settings file of this directory, or the one that ``M3CONNECT_CONFIG`` names.

    Returns:
        Its path and its content; empty when there is none.

    Raises:
        ConfigError: a named file is missing, or the file is not TOML.
    """
    named = os.environ.get(FILE_VARIABLE)
    path = Path(named or FILE_NAME)
    if not path.exists():
        if named:
            raise ConfigError(f"{FILE_VARIABLE} names {path}, which does not exist")
        return path, {}
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def defaults(
    path: Path, content: Mapping[str, Any], commands: Mapping[str, set[str]]
) -> dict[str, dict[str, Any]]:
    """The options that a settings file sets, by command.

    Keys at the top apply to every command that has the option; a table named like a command
    applies to that one and wins.

    Args:
        path: of the file, for messages.
        content: of the file.
        commands: option names (with underscores) by command.

    Raises:
        ConfigError: a key is no option; names the nearest one.

    >>> commands = {"search": {"target", "limit"}, "ingest": {"target"}}
    >>> defaults(Path("m3connect.toml"), {"target": "qdrant", "search": {"limit": 5}}, commands)
    {'search': {'target': 'qdrant', 'limit': 5}, 'ingest': {'target': 'qdrant'}}
    """
    found: dict[str, dict[str, Any]] = {command: {} for command in commands}
    everywhere = {key: value for key, value in content.items() if key not in commands}
    known = set().union(*commands.values()) if commands else set()
    for key, value in everywhere.items():
        _check_key(path, key, known | set(commands))
        for command, options in commands.items():
            if key in options:
                found[command][key] = value
    for command, options in commands.items():
        table = content.get(command, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {command!r} is a command; write a table [{command}]")
        for key, value in table.items():
            _check_key(path, key, options, f"[{command}] ")
            found[command][key] = value
    return found


def _check_key(path: Path, key: str, known: set[str], where: str = "") -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
        raise ConfigError(f"{path}: {where}unknown key {key!r}{hint}")
