"""A process killed while it ingests into a real engine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from m3connect import Document, connect, ingest
from m3connect.ingestion import steps
from m3connect.ingestion.ledger import FIELD
from m3connect.testing.fakes import HashEncoder

pytest.importorskip("m3connect_qdrant", reason='needs pip install "m3connect[qdrant]"')


def source(version):
    """Forty documents of one to seven passages."""
    return [
        Document(f"d{at}", " ".join(f"v{version} w{word} x y." for word in range(at % 7 + 1)))
        for at in range(40)
    ]


def run(version, path, dies_after=None):
    """Ingest a version; with ``dies_after``, until so many writes were acknowledged."""
    steps.GROUP_PASSAGES = 20
    with connect("qdrant", collection="c", path=path) as collection:
        upsert, left = collection.upsert, dies_after

        def mortal(batch):
            nonlocal left
            upsert(batch)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        if dies_after is not None:
            collection.upsert = mortal  # type: ignore[method-assign]
        return ingest(source(version), HashEncoder(width=4), collection, chunk_tokens=5)


def content(path):
    """All records, without their mark."""
    records = {}
    with connect("qdrant", collection="c", path=path) as collection:
        for batch in collection.scan(vectors=True):
            for row, payload in enumerate(batch.payloads):
                plain = {key: value for key, value in payload.items() if key != FIELD}
                records[batch.ids[row]] = (plain, batch.embeddings[row].dense.tobytes())
    return records


@pytest.mark.slow
@pytest.mark.parametrize("dies_after", [1, 8])
def test_a_killed_process_is_completed_by_the_next(tmp_path, monkeypatch, dies_after):
    """What embedded Qdrant then holds is what an undisturbed run gives."""
    monkeypatch.setattr(steps, "GROUP_PASSAGES", 20)
    broken, whole = str(tmp_path / "broken"), str(tmp_path / "whole")
    run(0, broken)
    child = subprocess.run([sys.executable, Path(__file__), broken, str(dies_after)], check=False)
    assert child.returncode == -signal.SIGKILL
    report = run(2, broken)
    assert report.read == report.written + report.unchanged == 40
    run(2, whole)
    assert content(broken) == content(whole)
    assert run(2, broken).unchanged == 40


if __name__ == "__main__":
    run(1, sys.argv[1], int(sys.argv[2]))
