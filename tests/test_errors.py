"""Errors go from process to process as they are: Ray, Spark and process pools pickle them."""

import ast
import copy
import importlib
import inspect
import pickle
from pathlib import Path

import pytest

import m3connect
from m3connect.errors import ConnectorError, M3ConnectError, TransientError
from m3connect.ingestion.report import IngestReport

CONNECTORS = ("m3connect_qdrant", "m3connect_milvus", "m3connect_elasticsearch")


def tree(root=M3ConnectError):
    """A class and all below it, once each."""
    return {root}.union(*(tree(kind) for kind in root.__subclasses__()))


def load_errors_of(package):
    """Import the modules of a package that define errors, which are then in the tree."""
    known = {kind.__name__ for kind in tree()}
    folder = Path(package.__path__[0])
    for path in folder.rglob("*.py"):
        classes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
        ]
        if known & {ast.unparse(base) for node in classes for base in node.bases}:
            parts = path.relative_to(folder.parent).with_suffix("").parts
            importlib.import_module(".".join(parts))


def example(kind):
    """One of the class, made as its constructor wants it."""
    values = {
        "message": "it failed at http://me:secret@host/",
        "connector": "qdrant",
        "operation": "upsert",
        "retry_after": 2.5,
        "report": IngestReport(written=3),
    }
    return kind(**{name: values[name] for name in inspect.signature(kind).parameters})


def test_every_error_survives_pickling():
    """Class, message, attributes and notes; copies are alike."""
    for package in (m3connect, *map(pytest.importorskip, CONNECTORS)):
        load_errors_of(package)
    kinds = tree()
    assert {"Busy", "NotEnabled", "CollectionExists", "Refused"} <= {
        kind.__name__ for kind in kinds
    }
    for kind in kinds:
        error = example(kind)
        error.add_note("while reading d7")
        for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(same) is kind
            assert str(same) == str(error)
            assert same.args == error.args
            assert vars(same) == vars(error)
    assert pickle.loads(pickle.dumps(example(TransientError))).retry_after == 2.5
    assert str(pickle.loads(pickle.dumps(example(ConnectorError)))) == (
        "qdrant upsert: it failed at http://***@host/"
    )
