"""What documents lose though they do not fail: one line each, and the sums agree."""

import json
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from m3connect.errors import ConfigError
from m3connect.ingestion import (
    LOSSES,
    DocumentSource,
    Loss,
    LossReport,
    Selection,
    ingest,
    open_source,
)
from m3connect.ingestion.chunking import Chunker
from m3connect.ingestion.listing import find
from m3connect.ingestion.pipeline import ingest_part
from m3connect.ingestion.report import DeadLetters
from m3connect.ingestion.selection import Remarks
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Document

IMAGE = "![dot](data:image/png;base64," + "iVBORw0KGgo" * 9 + ")"


class LossyEncoder(HashEncoder):
    """Texts with "long" are truncated, texts with "mute" have no lexical weights."""

    def encode(self, texts, *, kind="passage", legs=LEGS):
        made = super().encode(texts, kind=kind, legs=legs)
        return replace(made, truncated=np.array(["long" in text for text in texts]))

    def _weights(self, words):
        return {} if "mute" in words else super()._weights(words)


DOCUMENTS = [
    Document("whole", "nothing is lost"),
    Document("both", "long. " + "here. " * 400 + "mute. " + "here. " * 400 + "long mute."),
    Document("none", " "),
    Document("mute", "mute"),
]
LOST = {
    Loss("both", "truncated", 2),
    Loss("both", "no_lexical", 2),
    Loss("none", "empty"),
    Loss("mute", "no_lexical"),
}


@pytest.fixture
def encoder():
    return LossyEncoder()


def test_each_document_is_told_once_and_the_sums_agree(encoder, connector, monkeypatch):
    """Also where the passages of a document are encoded in several groups."""
    monkeypatch.setattr("m3connect.ingestion.steps.GROUP_PASSAGES", 1)
    losses: list[Loss] = []
    report = ingest(DOCUMENTS, encoder, connector, lost=losses.append)
    assert len(losses) == len(LOST)
    assert set(losses) == LOST
    sums = Counter[str]()
    for loss in losses:
        sums[loss.loss] += loss.count
    assert sums == {name: getattr(report, name) for name in sums}
    assert sums.keys() == {"truncated", "no_lexical", "empty"}


def test_what_workers_lose_is_told_too(encoder, connector):
    """Each part carries its losses, and the sums."""
    alone = ingest(DOCUMENTS, encoder, MemoryConnector(collection="docs"))
    whole, *sources = (
        DocumentSource(documents, encoder, Chunker(encoder))
        for documents in [DOCUMENTS, *([document] for document in DOCUMENTS)]
    )
    parts = (
        ingest_part(source, connector, LEGS, [], take_over=False, tenant_field=None)
        for source in sources
    )
    losses: list[Loss] = []
    report = ingest(replace(whole, parts=parts), None, connector, lost=losses.append)
    assert set(losses) == LOST
    assert replace(report, seconds=0) == replace(alone, seconds=0)


def test_without_lexical_weights_nothing_lexical_is_lost(encoder, connector):
    """Where they are not stored."""
    report = ingest(DOCUMENTS, encoder, connector, legs=["dense"])
    assert (report.no_lexical, report.truncated) == (0, 2)


def test_images_and_files_that_nobody_asked_to_leave_out(encoder, connector, tmp_path):
    """What is hidden, ignored or excluded is no loss."""
    (tmp_path / "a.md").write_text(f"# A\n\n{IMAGE} and {IMAGE}")
    (tmp_path / "b.jsonl").write_text(json.dumps({"id": "b", "text": f"see {IMAGE}"}))
    for name in ("x.png", ".hidden.md", "c.md", "d.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".gitignore").write_text("d.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    losses: list[Loss] = []
    remarks = Remarks(lost=losses.append)
    files = find([tmp_path], Selection(exclude=["c.md"]), remarks)
    ingest(open_source(files, encoder, remarks=remarks), None, connector, lost=losses.append)
    assert set(losses) == {
        Loss("a.md", "images", 2),
        Loss("b", "images"),
        Loss("x.png", "left_out"),
        Loss("gone.md", "left_out"),
    }
    assert (remarks.images, remarks.unread) == (3, 2)
    assert remarks.left_out.total() == 6

    losses.clear()
    ingest([tmp_path / "a.md", tmp_path / "b.jsonl"], encoder, connector, lost=losses.append)
    assert {loss.loss for loss in losses} == {"images"}


def test_the_file_is_of_this_run_and_replaces_no_other_file(tmp_path):
    """A report of an earlier run goes; whatever else has the name stays."""
    path = tmp_path / "new" / "report.jsonl"
    with LossReport(path) as report:
        report.add(Loss("\ud800", "truncated", 2))
    assert path.read_text() == '{"id": "\\ud800", "loss": "truncated", "count": 2}\n'
    with LossReport(path):
        assert path.read_text() == ""
    path.write_text('{"reason": "no", "where": null, "id": "a"}\n')
    with pytest.raises(ConfigError, match=r"--report .* is no report of losses"):
        LossReport(path)
    with LossReport(None) as nowhere:
        nowhere.add(Loss("a", "empty"))


@pytest.mark.parametrize("kind", [LossReport, DeadLetters])
def test_a_place_that_may_not_be_looked_at_is_refused_by_name(tmp_path, monkeypatch, kind):
    """Simulated, since nothing is forbidden to who runs the tests as root."""
    stat, access = os.stat, os.access
    locked = tmp_path / "locked"
    locked.mkdir()

    def guarded(path, *arguments, **options):
        if str(path).startswith(f"{locked}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    def guarded_access(path, mode):
        if str(path).startswith(str(locked)):
            return path == locked and mode == os.F_OK
        return access(path, mode)

    monkeypatch.setattr(os, "stat", guarded)
    monkeypatch.setattr(os, "access", guarded_access)
    with pytest.raises(ConfigError, match="locked cannot be written"):
        kind(locked / "runs" / "list.jsonl")


def test_every_kind_is_documented():
    """In the docstring that the reference points to."""
    assert all(f"``{kind}``" in (Loss.__doc__ or "") for kind in LOSSES)
