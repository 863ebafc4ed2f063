"""A source is listed once and each of its files is opened once: object storage asks for every call."""

from collections import Counter
from contextlib import nullcontext
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from m3connect import cli
from m3connect.cli.running import Services
from m3connect.ingestion import ingest
from m3connect.testing.fakes import HashEncoder

CALLS = Counter()


class Counting(MemoryFileSystem):
    """Counts what a remote file system would be asked."""

    protocol = "s3"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("s3://", "memory://"))

    def find(self, path, **options):
        CALLS["find"] += 1
        return super().find(path, **options)

    def open(self, path, *arguments, **options):
        CALLS[path] += 1
        return super().open(path, *arguments, **options)


@pytest.fixture
def bucket():
    """A folder of four files in two formats."""
    fsspec.register_implementation("s3", Counting, clobber=True)
    system = fsspec.filesystem("s3")
    for at in range(4):
        name = f"/bucket/{at}.{'txt' if at % 2 else 'jsonl'}"
        system.pipe(name, b'{"id": "a%d", "text": "words"}\n' % at if at % 2 == 0 else b"words\n")
    CALLS.clear()
    yield "s3://bucket"
    Counting.store.clear()
    fsspec.register_implementation("s3", "s3fs.S3FileSystem", clobber=True)


def test_the_library_asks_once(bucket, encoder, connector):
    """One listing, and one opening a file."""
    assert ingest(bucket, encoder, connector).written == 4
    assert CALLS.pop("find") == 1
    assert sorted(CALLS.values()) == [1, 1, 1, 1]


def test_the_command_asks_once(bucket, connector, capsys):
    """Its bar needs no second look."""
    services = Services(lambda *_, **__: nullcontext(connector), lambda *_, **__: HashEncoder())
    with pytest.raises(SystemExit) as exit_:
        cli.main(["ingest", bucket], services)
    assert (exit_.value.code, connector.count()) == (0, 4), capsys.readouterr().err
    assert CALLS.pop("find") == 1
    assert sorted(CALLS.values()) == [1, 1, 1, 1]
