"""The settings file and its place between flag, environment and default."""

from pathlib import Path

import pytest

from m3connect.cli import settings
from m3connect.errors import ConfigError

COMMANDS = {"ingest": {"target", "chunk_tokens"}, "search": {"target", "limit"}}
PATH = Path("m3connect.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"targt": "qdrant"}, "unknown key 'targt'; did you mean 'target'"),
        ({"search": {"chunk_tokens": 1}}, r"\[search\] unknown key 'chunk_tokens'"),
        ({"search": 5}, r"write a table \[search\]"),
    ],
)
def test_unknown_keys_are_errors(content, message):
    """A misspelt key is named, with the nearest known one."""
    with pytest.raises(ConfigError, match=message):
        settings.defaults(PATH, content, COMMANDS)


def test_a_command_table_wins_over_the_top():
    """The more specific place counts."""
    found = settings.defaults(PATH, {"target": "a", "search": {"target": "b"}}, COMMANDS)
    assert found == {"ingest": {"target": "a"}, "search": {"target": "b"}}


def test_no_file_is_fine(tmp_path, monkeypatch):
    """Without a file there are no settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("M3CONNECT_CONFIG", raising=False)
    assert settings.read_file() == (Path("m3connect.toml"), {})


def test_a_named_file_must_exist_and_be_toml(tmp_path, monkeypatch):
    """A broken or missing file is an error that names it."""
    monkeypatch.setenv("M3CONNECT_CONFIG", str(tmp_path / "no.toml"))
    with pytest.raises(ConfigError, match="does not exist"):
        settings.read_file()
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = 1")
    monkeypatch.setenv("M3CONNECT_CONFIG", str(broken))
    with pytest.raises(ConfigError, match="not valid TOML"):
        settings.read_file()
