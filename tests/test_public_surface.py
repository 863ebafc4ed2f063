"""What ``import m3connect`` offers is frozen: a name comes or goes on purpose."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

import m3connect

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "AuthError",
    "CheckpointError",
    "CollectionInfo",
    "CollectionNotFound",
    "CollectionSchema",
    "Compression",
    "ConfigError",
    "Connector",
    "ConnectorError",
    "Dataset",
    "Document",
    "Embeddings",
    "Encoder",
    "Explanation",
    "F",
    "Filter",
    "Fingerprint",
    "FingerprintMismatch",
    "Hit",
    "InputError",
    "InvalidFilter",
    "M3ConnectError",
    "M3Encoder",
    "MODES",
    "Mode",
    "PermanentError",
    "Query",
    "RecordBatch",
    "RequestTooLarge",
    "Result",
    "Rrf",
    "SchemaMismatch",
    "TextHits",
    "TransientError",
    "Unsupported",
    "Weighted",
    "connect",
    "copy",
    "evaluate",
    "evaluate_live",
    "explain",
    "ingest",
    "load_dataset",
    "load_reranker",
    "parse",
    "read_results",
    "reembed",
    "rollback",
    "search",
    "search_async",
    "search_many",
    "search_many_async",
    "train",
    "verify",
    "write_results",
]


def test_the_surface_is_frozen():
    """Exactly these names."""
    assert sorted(m3connect.__all__) == sorted(PUBLIC)
    assert dir(m3connect) == sorted(m3connect.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there(name):
    """Each is found, at home in this package, and says what it is."""
    value = getattr(m3connect, name)
    if name not in {"MODES", "Mode", "Fusion"}:
        assert value.__module__.startswith("m3connect.")
        assert value.__doc__


def test_no_submodule_hides_a_name():
    """Importing ``m3connect.search`` as a module would put it where the function is."""
    modules = {module.name for module in pkgutil.iter_modules(m3connect.__path__)}
    assert modules.isdisjoint(PUBLIC)


def test_an_unknown_name_is_refused():
    """As any module does."""
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        m3connect.serach  # noqa: B018


def test_the_typing_imports_are_the_runtime_ones():
    """What a type checker reads and what runs lead to the same places."""
    tree = ast.parse(Path(m3connect.__file__).read_text(encoding="utf-8"))
    read = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("m3connect.")
        for alias in node.names
    }
    assert read == m3connect._HOMES


def test_the_documents_use_what_is_public():
    """Whatever a page imports from the package itself is in its surface."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in re.findall(
            r"^ *from m3connect import (.+)$", page.read_text("utf-8"), re.MULTILINE
        ):
            assert {name.strip() for name in line.split(",")} <= set(PUBLIC), page.name
