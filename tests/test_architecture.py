"""The import rules of the house, checked on the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "m3connect"
CONNECTORS = sorted(path for path in (ROOT / "connectors").glob("*/m3connect_*") if path.is_dir())

# What each part of the core may import from the core; "" is the package's own __init__.
VALUES = {"errors", "filters", "types"}
CONTRACT = VALUES | {"contract", "connecting"}
ENGINE = CONTRACT | {"disk", "stores", "searching"}
ALLOWED = {
    "errors": set(),
    "filters": {"errors"},
    "types": {"errors", "filters"},
    "disk": {"errors"},
    "charts": {"errors"},
    "pages": {"errors"},
    "contract": VALUES,
    "connecting": VALUES | {"contract"},
    "searching": CONTRACT,
    "stores": CONTRACT | {"disk", "searching"},
    "transfer": ENGINE,
    "testing": ENGINE,
    "ingestion": ENGINE,
    "datasets": VALUES | {"disk"},
    "model": CONTRACT | {"disk"},
    "inference": CONTRACT | {"model", "searching"},
    "evaluation": ENGINE | {"charts", "datasets", "pages"},
    "training_data": ENGINE | {"datasets", "evaluation", "pages"},
    # Training measures with a callable that it is given: it knows neither encoders nor evaluation.
    "training": CONTRACT | {"charts", "datasets", "disk", "model", "pages", "searching"},
    # The one place where training meets what measures it.
    "trainer": CONTRACT | {"datasets", "evaluation", "inference", "searching", "training"},
}
TORCH_HOMES = {"model", "training", "inference/torch_backend.py"}
CONNECTOR_MAY_IMPORT = {"types", "errors", "filters", "contract", "connecting", "searching"}
DRIVERS = {"qdrant_client", "qdrant_edge", "pymilvus", "milvus_lite", "elasticsearch"}


def imports(path):
    """Every module that a file imports at run time, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def core_parts(path):
    """The parts of the core that a file imports: the second name of ``m3connect.x.y``."""
    names = (name.split(".") for name in imports(path))
    found = {parts[1] for parts in names if parts[0] == "m3connect" and len(parts) > 1}
    known = {item.stem for item in PACKAGE.iterdir()}
    return found & known


def part_of(path):
    """The part of the core that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_core_imports_in_one_direction(path):
    """A module imports only what lies below it; the command line and the front may import all."""
    part = part_of(path)
    if part in {"cli", "__init__", "integrations"} or path.name == "__main__.py":
        return
    assert part in ALLOWED, f"{part} has no place in the import rules yet"
    assert core_parts(path) <= ALLOWED[part] | {part}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_only_model_training_and_the_torch_backend_import_torch(path):
    """Torch stays out of everything that the quick start runs."""
    where = path.relative_to(PACKAGE)
    if {where.parts[0], where.as_posix()} & TORCH_HOMES or where.as_posix() == "cli/doctor.py":
        return
    assert not {name.split(".")[0] for name in imports(path)} & {"torch", "transformers"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_core_imports_no_driver(path):
    """Database drivers belong to the connectors."""
    assert not {name.split(".")[0] for name in imports(path)} & DRIVERS


@pytest.mark.parametrize(
    "path",
    [path for folder in CONNECTORS for path in sorted(folder.rglob("*.py"))],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_a_connector_imports_only_the_contract(path):
    """A connector knows the contract, what it speaks of and what connectors are built of, and nothing else."""
    assert core_parts(path) <= CONNECTOR_MAY_IMPORT


def test_connectors_is_no_package():
    """An ``__init__.py`` in connectors/ would shadow the real drivers' names."""
    assert not list((ROOT / "connectors").glob("__init__.py"))
    assert not list((ROOT / "connectors").glob("*/__init__.py"))


@pytest.mark.parametrize("module", ["m3connect", "m3connect.cli"])
def test_import_is_cheap(module):
    """Importing the package or its command line loads no numpy, torch, pyarrow or driver."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "torch", "transformers", "pyarrow", "onnxruntime", "tokenizers"} | DRIVERS
    assert not heavy & set(loaded.stdout.split())
