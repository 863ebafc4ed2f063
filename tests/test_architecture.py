"""The source is laid out, and imports, as ``docs/architecture.md`` says: the page's tables are the rules."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "m3connect"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

# "| `stores/` | what it holds | `errors`, `types` |" -> {"stores/": {"errors", "types"}}
ROWS = {
    place: set(re.findall(r"`(\w+)`", may_import))
    for place, may_import in re.findall(r"^\| `([\w./]+)` \|[^|]+\|([^|]+)\|$", PAGE, re.MULTILINE)
}
ALLOWED = {place.removesuffix("/").removesuffix(".py"): parts for place, parts in ROWS.items()}
FACES = {"__init__", "__main__", "cli", "integrations", "serving"}  # may import every part
OUTSIDE = re.findall(r"^\| `(\w+)/` \|[^|]+\|$", PAGE, re.MULTILINE)
TORCH_HOMES = {"model", "training", "inference/torch_backend.py", "doctor.py"}
CONNECTOR_MAY_IMPORT = set(
    re.findall(r"`(\w+)`", re.search(r"A connector imports (.+) of the core", PAGE)[1])
)
DRIVERS = {"qdrant_client", "qdrant_edge", "pymilvus", "milvus_lite", "elasticsearch"}


def imports(path):
    """What a file imports at run time, wherever in it: ``m3connect.disk.write`` is a name of a module."""
    waiting = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def core():
    """What each file of the core imports."""
    return {path: set(imports(path)) for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.fixture(scope="module")
def connectors():
    """What each file of a connector imports."""
    files = sorted((ROOT / "connectors").glob("*/m3connect_*/**/*.py"))
    return {path: set(imports(path)) for path in files}


def module(path):
    """The name under which a file of the core is imported."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def part(path):
    """The part of the core that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def core_parts(names):
    """The parts of the core among imported names: the second word of ``m3connect.x.y``."""
    known = {part(path) for path in PACKAGE.iterdir()}
    words = (name.split(".") for name in names)
    return {word[1] for word in words if word[0] == "m3connect" and len(word) > 1} & known


def libraries(names):
    """The first words of imported names."""
    return {name.split(".")[0] for name in names}


def test_the_page_lists_what_is_there():
    """Each part and each folder around the core has its row, and each row its file or folder."""
    there = {
        path.name + "/" * path.is_dir()
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {place for place in there if part(PACKAGE / place) not in FACES} == set(ROWS)
    assert len(OUTSIDE) == 6
    assert all((ROOT / folder).is_dir() for folder in OUTSIDE)


def test_a_folders_init_is_its_table_of_contents():
    """Its docstring names every file and folder; the command line's imports its commands besides."""
    inits = [
        *PACKAGE.glob("*/**/__init__.py"),
        *ROOT.glob("connectors/*/m3connect_*/**/__init__.py"),
    ]
    missing = []
    for init in inits:
        source = init.read_text(encoding="utf-8")
        told = source if init.parent == PACKAGE / "cli" else ast.get_docstring(ast.parse(source))
        for path in init.parent.iterdir():
            folder = path.is_dir() and (path / "__init__.py").exists()
            if (path.suffix == ".py" and not path.name.startswith("__")) or folder:
                names = (f"{path.stem}/",) if folder else (path.name, f"cli.{path.stem} import")
                missing += [] if any(name in told for name in names) else [str(path)]
    assert len(inits) > 20
    assert not missing


def test_the_core_imports_in_one_direction(core):
    """A part imports itself and what its row allows."""
    wrong = {
        module(path): sorted(core_parts(names) - ALLOWED[part(path)] - {part(path)})
        for path, names in core.items()
        if part(path) not in FACES and path.name != "__main__.py"
    }
    assert not {name: parts for name, parts in wrong.items() if parts}


def test_the_rules_allow_no_circle():
    """The parts have an order in which each imports only what comes before it."""
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert set(order) == set(ALLOWED), "a row allows a part that has no row"


def test_no_file_imports_itself_through_others(core):
    """Neither inside a part nor between parts is there a circle, imports in functions included."""
    known = {module(path) for path in core}
    graph = defaultdict(set)
    for path, names in core.items():
        files = {name if name in known else name.rpartition(".")[0] for name in names}
        graph[module(path)] = files & known - {module(path)}
    TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_only_model_training_and_the_torch_backend_import_torch(core):
    """Torch stays out of everything that the quick start runs."""
    wrong = [
        where.as_posix()
        for path, names in core.items()
        if libraries(names) & {"torch", "transformers"}
        for where in [path.relative_to(PACKAGE)]
        if not {where.parts[0], where.as_posix()} & TORCH_HOMES
    ]
    assert not wrong


def test_the_core_imports_no_driver(core):
    """Database drivers belong to the connectors."""
    assert not [module(path) for path, names in core.items() if libraries(names) & DRIVERS]


def test_a_connector_imports_only_the_contract(connectors):
    """A connector knows the contract, what it speaks of and what connectors are built of, and nothing else."""
    assert len({path.parts[-2] for path in connectors}) >= 3
    wrong = {
        str(path.relative_to(ROOT)): sorted(core_parts(names) - CONNECTOR_MAY_IMPORT)
        for path, names in connectors.items()
    }
    assert not {name: parts for name, parts in wrong.items() if parts}


def test_connectors_is_no_package():
    """An ``__init__.py`` in connectors/ would shadow the real drivers' names."""
    assert not list((ROOT / "connectors").glob("__init__.py"))
    assert not list((ROOT / "connectors").glob("*/__init__.py"))


@pytest.mark.parametrize("module", ["m3connect.cli", "m3connect.conversion.converter"])
def test_import_is_cheap(module):
    """The command line and the child that converts files load no numpy, torch, pyarrow or driver."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"numpy", "torch", "transformers", "pyarrow", "onnxruntime", "tokenizers"} | DRIVERS
    assert not heavy & set(loaded.stdout.split())


def test_the_guesses_of_contributing_are_right():
    """What "Where do I change" names is there: each file in the folder of its row, with the names."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| an? [\w ]+ \| `([\w/]+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for folder, text, tests in rows:
        places = [ROOT, *(ROOT.glob(folder.replace("NAME", "*")))]
        named = re.findall(r"`([\w/]+\.py)`", text)
        found = [path for name in named for place in places for path in place.glob(name)]
        assert len(found) == len(named), (folder, named)
        sources = "".join(path.read_text(encoding="utf-8") for path in found)
        assert all(name in sources for name in re.findall(r"`(_?[A-Z]\w+)`", text))
        for name in re.findall(r"`([\w/.]+)`", tests):
            assert any((place / name).exists() for place in places)
