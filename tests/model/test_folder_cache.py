"""What is made of a model's files is kept, and goes again."""

import os
import time

import pytest

from m3connect import disk
from m3connect.model import folder_cache


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """A function that keeps something made of a model's file, by the model's name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(name, make=lambda folder: (folder / "made").write_text("made")):
        source = tmp_path / name / "weights"
        source.parent.mkdir(exist_ok=True)
        if not source.exists():
            source.touch()
        return folder_cache.cached_folder(name, [source], "1", make, lambda folder: folder)

    return call


def age(folder, days):
    """Set when it was used last."""
    then = time.time() - days * 24 * 3600
    os.utime(folder / "made_of.txt", (then, then))


def names():
    return sorted(path.name.split("-")[0] for path in (disk.cache_folder() / "models").iterdir())


def test_what_was_not_used_for_a_month_is_removed(keep):
    """When something is added; to be opened is to be used."""
    old, used = keep("old"), keep("used")
    age(old, 31)
    age(used, 31)
    assert keep("used", make=None) == used
    assert names() == ["old", "used"]
    keep("new")
    assert names() == ["new", "used"]


def test_too_much_costs_what_was_used_longest_ago(keep, monkeypatch):
    """What was just made stays, however large it is."""
    age(keep("first"), 2)
    age(keep("second"), 1)
    monkeypatch.setattr(
        folder_cache, "MOST_BYTES", 2 * sum(p.stat().st_size for p in keep("third").iterdir())
    )
    assert names() == ["first", "second", "third"]
    age(keep("third"), 0.5)
    keep("fourth")
    assert names() == ["fourth", "third"]
    monkeypatch.setattr(folder_cache, "MOST_BYTES", 0)
    keep("fifth")
    assert names() == ["fifth"]
