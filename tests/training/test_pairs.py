"""The training sets that are made from documentation."""

import json

import pytest

from m3connect.training.examples import open_source
from tests.model import scripts

MODULE = '''
def area(width, height):
    """Return the area of a rectangle in square metres.

    Both sides are metres.
    """
    return width * height


def short():
    """Too short."""
    return 1


def silent(width):
    return width
'''


@pytest.fixture
def pairs():
    """The script as a module."""
    return scripts.load("pairs")


def test_a_function_without_its_docstring_answers_the_first_sentence(pairs, tmp_path):
    """Only functions that say something; neither tests nor what is installed beside the library."""
    (tmp_path / "geometry.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def broken(:")
    for folder in ("test", "site-packages"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "more.py").write_text(MODULE)
    assert list(pairs.code(tmp_path)) == [
        (
            "Return the area of a rectangle in square metres.",
            "def area(width, height):\n    return width * height",
        )
    ]


def test_a_command_answers_what_it_does(pairs):
    """Each example of a page, without the marks of its letters."""
    page = "tar\n- E[x]tract a [f]ile:\ntar xf archive.tar\n- Without a command:\n- List:\ntar tf a.tar"
    assert list(pairs.commands(iter([page]))) == [
        ("Extract a file", "tar xf archive.tar"),
        ("List", "tar tf a.tar"),
    ]


def test_each_text_occurs_once(pairs, tmp_path):
    """A second pair with a known query or passage is left out; training reads what is written."""
    given = [("one", "a"), ("one", "b"), ("two", "a"), ("three", "c")]
    assert pairs.write(tmp_path / "made", iter(given)) == 2
    source = open_source(tmp_path / "made")
    found = [(source[row].query, *source[row].positives) for row in range(len(source))]
    assert found == [("one", "a"), ("three", "c")]
    first = json.loads((tmp_path / "made/queries.jsonl").read_text().splitlines()[0])
    assert first["lang"] == "en"
