"""The blocks of the documentation are run, each page in an empty folder of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def run_shell(example):
    """Run a bash block with this environment's m3connect on the path."""
    place = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", str(example.parsed)],
        env=os.environ | place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{example.parsed}\n{done.stdout}\n{done.stderr}"
    assert "Warning" not in done.stderr


PARSERS: list[Any] = [
    PythonCodeBlockParser(),
    CodeBlockParser(language="bash", evaluator=run_shell),
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    """Every python and bash block of the page runs, in order."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()  # the README's example ingests a folder of that name
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nRotate the key every ninety days.\n")
    examples = list(Sybil(PARSERS).parse(page))
    for example in examples:
        example.evaluate()


@pytest.mark.slow
def test_the_readmes_example_prints_hits(tmp_path, monkeypatch, capsys):
    """What the README shows finds something in a folder of plain files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nRotate the key every ninety days.\n")
    for example in Sybil([PythonCodeBlockParser()]).parse(ROOT / "README.md"):
        example.evaluate()
    assert "every ninety days" in capsys.readouterr().out


def test_links_between_pages_hold():
    """Every relative link of the documentation leads to a file."""
    import re

    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
