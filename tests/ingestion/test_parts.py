"""A run whose documents other processes write counts, prunes and fails as one process does."""

import json
from dataclasses import replace

import pytest

from m3connect import ingest, transfer
from m3connect.errors import InputError
from m3connect.ingestion import DocumentSource, open_source
from m3connect.ingestion.pipeline import ingest_part
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Document

ENCODER = HashEncoder()
DOCUMENTS = [Document(f"d{at}", f"w{at} x. " * (at % 4), {"n": at}) for at in range(20)]
BAD = Document("bad", "x", {"n": float("nan")})


@pytest.fixture
def connector():
    return MemoryConnector(collection="docs")


def opened(documents) -> DocumentSource:
    source = open_source(documents, ENCODER)
    assert isinstance(source, DocumentSource)
    return source


def in_parts(documents, connector, size=6):
    """A source whose documents are written in parts, by others."""
    groups = [documents[start : start + size] for start in range(0, len(documents), size)]
    sources = (opened(group) for group in groups)
    parts = (
        ingest_part(source, connector, LEGS, [], take_over=False, tenant_field=None)
        for source in sources
    )
    return replace(opened(documents), parts=parts)


def test_the_report_and_the_collection_are_those_of_one_process(connector, tmp_path):
    """Failures, empty documents and pruned ones among them."""
    alone = MemoryConnector(collection="docs")
    letters = tmp_path / "letters"
    retitled = [*DOCUMENTS[:19], replace(DOCUMENTS[19], metadata={"n": -1})]
    for documents, prune in (([*DOCUMENTS, BAD, Document("old", "z")], False), (retitled, True)):
        expected = ingest(documents, ENCODER, alone, prune=prune)
        source = in_parts(documents, connector)
        report = ingest(source, None, connector, prune=prune, dead_letters=letters)
        assert replace(report, seconds=0) == replace(expected, seconds=0)
    assert (report.pruned, report.empty, report.unchanged, report.metadata_only) == (1, 5, 14, 1)
    assert transfer.verify(alone, connector, samples=5).equal
    assert [json.loads(line)["id"] for line in letters.read_text().splitlines()] == ["bad"]


def test_an_id_that_two_parts_give_is_a_failure(connector):
    """As in one process; which of the two is kept is told by nobody."""
    twice = [*DOCUMENTS[1:4], replace(DOCUMENTS[1], text="other")]
    report = ingest(in_parts(twice, connector, size=3), None, connector)
    assert (report.read, report.written, report.failed) == (4, 3, 1)


@pytest.mark.parametrize("text", ["", "one"], ids=["empty", "metadata"])
def test_an_id_twice_never_makes_a_count_negative(connector, text):
    """Whatever became of the second one: all are counted, none twice."""
    if text:
        ingest([Document("a", text)], ENCODER, connector)
    twice = [Document("a", text, {"n": 1}), Document("a", text, {"n": 2})]
    report = ingest(in_parts(twice, connector, size=1), None, connector)
    assert (report.read, report.failed, report.unchanged) == (2, 1, 0)
    assert (report.empty, report.written, report.metadata_only) == ((1, 0, 0), (0, 1, 1))[
        bool(text)
    ]


def test_a_run_of_failures_alone_is_an_error(connector):
    """It names the first."""
    with pytest.raises(InputError, match="all 2 documents failed; the first: bad"):
        ingest(in_parts([BAD, replace(BAD, id="worse")], connector, size=1), None, connector)
