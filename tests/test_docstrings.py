"""What is public is documented."""

import ast
from pathlib import Path

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


def test_every_public_name_has_a_docstring():
    """Modules, public classes, functions and methods say what they are.

    A method is documented, too, if some class documents it, such as a protocol for those who follow it.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    public = [
        (path, name, node) for path, tree in trees.items() for name, node in definitions(tree)
    ]
    methods = {
        name.split(".")[1] for _, name, node in public if "." in name and ast.get_docstring(node)
    }
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name, node in public
        if not ast.get_docstring(node) and name.split(".")[-1] not in methods
    ]
    missing += [str(path) for path, tree in trees.items() if not ast.get_docstring(tree)]
    assert not missing
