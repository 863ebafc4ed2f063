"""What is public is documented."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for folder in (ROOT / "m3connect", *(ROOT / "connectors").glob("*/m3connect_*"))
    for path in sorted(folder.rglob("*.py"))
    if path.read_text(encoding="utf-8").strip()
]


def _is_overload(node):
    """Whether it only adds a signature to the function that follows."""
    return any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list)


def definitions(tree):
    """Public functions, classes and methods as (qualified name, node)."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            if _is_overload(node):
                continue
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                        yield f"{node.name}.{method.name}", method


@pytest.fixture(scope="session")
def trees():
    """Every source file, parsed."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


@pytest.fixture(scope="session")
def documented_methods(trees):
    """Names of methods that some class documents, such as a protocol for those who follow it."""
    return {
        name.split(".")[1]
        for tree in trees.values()
        for name, node in definitions(tree)
        if "." in name and ast.get_docstring(node)
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_has_a_docstring(path, trees, documented_methods):
    """Modules, public classes, functions and methods say what they are."""
    tree = trees[path]
    assert ast.get_docstring(tree)
    missing = [name for name, node in definitions(tree) if not ast.get_docstring(node)]
    assert not [name for name in missing if name.split(".")[-1] not in documented_methods]
