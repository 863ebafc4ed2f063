"""What a collection says of itself: read back, merged, checked, with messages that help."""

import json
from dataclasses import replace

import pytest

from m3connect.connecting.collection import Place, Stored
from m3connect.contract import CollectionSchema
from m3connect.errors import AuthError, CollectionNotFound, SchemaMismatch

PLACE = Place("qdrant", "docs")
SCHEMA = CollectionSchema(16, sparse=True, multivector_width=8, payload_fields={"a": "keyword"})
STORED = Stored(SCHEMA, {"k": 20, "größe": {"x": None}}, {"dense_index": "flat"})


def test_it_reads_back_as_it_was_written():
    """Schema, notes and layout survive JSON."""
    assert Stored.from_text(STORED.to_text(), PLACE, "describe") == STORED


@pytest.mark.parametrize("format_", [None, 1, 99])
def test_what_another_version_stored_is_refused(format_):
    """A collection of another format holds other facts: it is named, not misread."""
    values = json.loads(STORED.to_text()) | {"format": format_}
    with pytest.raises(SchemaMismatch, match=r"'docs'.*ingest into a new collection"):
        Stored.from_json(values, PLACE, "describe")


def test_only_payload_fields_are_merged():
    """Of another schema the payload fields are added; the fingerprint is not taken over."""
    other = replace(SCHEMA, dense_width=3, payload_fields={"b": "float"})
    merged = STORED.merged(other)
    assert merged.schema == replace(SCHEMA, payload_fields={"a": "keyword", "b": "float"})
    assert (merged.notes, merged.layout) == (STORED.notes, STORED.layout)
    assert dict(SCHEMA.payload_fields) == {"a": "keyword"}


def test_a_missing_collection_is_said_to_whom_no_list_is_given():
    """A token for one collection may list none: that hides nothing; long lists are cut."""

    def refused():
        raise AuthError("403 Forbidden", connector="qdrant", operation="collections")

    assert "no collection 'docs', m3connect ingest makes it" in str(
        PLACE.not_found("count", refused)
    )
    many = str(PLACE.not_found("count", lambda: [f"c{n}" for n in range(25)]))
    assert "'c9' and 15 more" in many


def test_what_differs_is_named_with_a_way_out():
    """Schema and layout are compared where something is wanted, and the message says what to do."""
    STORED.require(SCHEMA, PLACE)
    STORED.require(SCHEMA, PLACE, {"dense_index": "flat"})
    with pytest.raises(
        SchemaMismatch, match=r"sparse: collection True.*flat.*--collection"
    ) as caught:
        STORED.require(replace(SCHEMA, sparse=False), PLACE, {"dense_index": "hnsw"})
    assert (caught.value.connector, caught.value.operation) == ("qdrant", "ensure")


def test_the_messages_name_the_collection():
    """Who reads one knows which collection is meant, and what to do."""
    assert isinstance(PLACE.not_found("count"), CollectionNotFound)
    for error in (PLACE.not_found("count"), PLACE.foreign("count")):
        assert "'docs'" in str(error)
        assert "ingest" in str(error) or "--collection" in str(error)
