"""Make two of the training sets from documentation. Users never run this.

    python pairs.py DATA [--into DATA]

``stdlib_code``: from a sentence to a function, out of the sources of the Python that runs this
(PSF licence). ``tldr_commands``: from what a command does to the command, out of ``tldr_pages`` in
DATA (CC BY 4.0). Both in the BEIR layout.
"""

from __future__ import annotations

import argparse
import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from m3connect.datasets.beir import corpus_file, read_corpus
from m3connect.datasets.write import write_collection

LONGEST = 1500
"""Characters of a function, about what the recipe reads of it."""

Pair = tuple[str, str]
_KEY = re.compile(r"\[(\w+)\]")
"""The letters of an option in what it does: ``[n]ame``."""


def code(library: Path) -> Iterator[Pair]:
    """First sentence of a docstring, and its function without the docstring."""
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).parts
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings with unknown escapes
            try:
                tree = ast.parse(file.read_text("utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            summary = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            node.body = node.body[1:]
            if 20 <= len(summary) <= 200 and node.body:
                yield summary, ast.unparse(node)[:LONGEST]


def commands(texts: Iterator[str]) -> Iterator[Pair]:
    """What a command does, and the command, of each example on a page."""
    for text in texts:
        lines = text.splitlines()
        for line, command in pairwise(lines):
            if line.startswith("- ") and line.endswith(":") and not command.startswith("- "):
                yield _KEY.sub(r"\1", line[2:-1]), command


def write(folder: Path, pairs: Iterator[Pair]) -> int:
    """A folder in the BEIR layout. Returns how many pairs; each query and passage occurs once."""
    queries: dict[str, str] = {}
    passages: set[str] = set()
    for query, passage in pairs:
        if query not in queries and passage not in passages:
            queries[query] = passage
            passages.add(passage)
    write_collection(
        folder,
        ({"_id": f"d{n}", "text": text, "lang": "code"} for n, text in enumerate(queries.values())),
        ({"_id": f"q{n}", "text": text, "lang": "en"} for n, text in enumerate(queries)),
        ((f"q{n}", f"d{n}", 1) for n in range(len(queries))),
    )
    return len(queries)


def main() -> None:
    """Write both sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with tldr_pages")
    parser.add_argument("--into", type=Path, help="default: the same folder")
    arguments = parser.parse_args()
    into = arguments.into or arguments.data
    pages = read_corpus(corpus_file(arguments.data / "tldr_pages"))
    examples = commands(page.text for page in pages if page.metadata["lang"] == "en")
    library = Path(sysconfig.get_path("stdlib"))
    for name, pairs in (("stdlib_code", code(library)), ("tldr_commands", examples)):
        print(name, write(into / name, pairs))  # noqa: T201


if __name__ == "__main__":
    main()
