"""No hit without a reason."""

import pytest

from m3connect.contract import CollectionSchema
from m3connect.filters import F, parse
from m3connect.searching.absence import unknown_fields, why_no_hits
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Leg, RecordBatch


@pytest.fixture
def notes():
    """Three passages, two of them German."""
    connector = MemoryConnector(collection="notes")
    connector.ensure(CollectionSchema(16, True, 16))
    payloads = [{"lang": lang, "author": {"name": "x"}} for lang in ("de", "de", "en")]
    connector.upsert(RecordBatch(["a", "b", "c"], payloads, HashEncoder().encode(["1", "2", "3"])))
    return connector


def test_the_reason_counts_what_the_filter_leaves(notes):
    """All, some or none."""
    assert why_no_hits(notes) == "no hits: none of 3 passages shares anything with the query"
    assert "the filter leaves 2 of 3 passages" in why_no_hits(notes, F("lang") == "de")
    assert why_no_hits(notes, offset=3) == "no hits after the first 3"
    assert why_no_hits(notes, F("lang") == "fr") == "no hits: the filter leaves none of 3 passages"
    least: dict[Leg, float] = {"dense": 0.999, "sparse": 3.0}
    reason = "no hits: none that was found reaches dense=0.999 and sparse=3 (--min-score)"
    assert why_no_hits(notes, min_scores=least) == reason
    assert "2 of 3 passages, none of them reaches dense=" in why_no_hits(
        notes, F("lang") == "de", min_scores=least
    )
    assert "leaves none of 3" in why_no_hits(notes, F("lang") == "fr", min_scores=least)


def test_fields_that_nobody_has_are_found_in_every_node(notes):
    """Each once, in the order of the filter."""
    condition = parse(
        'not (lnag == "de" or author.name in ["x"]) and year > 3 and zip exists and lnag == "x"'
    )
    assert unknown_fields(notes, condition) == ("lnag", "year", "zip")
