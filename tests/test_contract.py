"""Fingerprints and schemas."""

from dataclasses import replace
from typing import Any

import pytest

from m3connect.contract import CollectionSchema
from m3connect.errors import FingerprintMismatch, InputError
from m3connect.types import Compression, Fingerprint

PRINT = Fingerprint("m", "w1", "t1", ("dense", "sparse", "multivector"), 2, 3, 512, "cls", "c1")
SCHEMA = CollectionSchema(2, sparse=True, multivector_width=3, fingerprint=PRINT)


def test_json_round_trips():
    """Schema and fingerprint come back equal from their JSON form."""
    assert CollectionSchema.from_json(SCHEMA.to_json()) == SCHEMA
    assert Fingerprint.from_json(PRINT.to_json()) == PRINT
    with pytest.raises(InputError, match="keys"):
        Fingerprint.from_json(PRINT.to_json() | {"extra": 1})


@pytest.mark.parametrize(
    ("changes", "reading", "writing"),
    [
        ({}, True, True),
        ({"model": "renamed"}, True, True),
        ({"chunker": "c2"}, True, False),
        ({"max_length": 8192}, True, False),
        ({"weights": "w2"}, False, False),
        ({"tokenizer": "t2"}, False, False),
        ({"pooling": "mean"}, False, False),
        ({"multivector_width": 64}, False, False),
    ],
)
def test_a_fingerprint_says_what_it_can_be_used_with(changes, reading, writing):
    """Reading needs the same vectors; writing also the same way of cutting texts."""
    other = replace(PRINT, **changes)
    for allowed, mode in ((reading, False), (writing, True)):
        if allowed:
            other.require(PRINT, collection="c", writing=mode)
        else:
            with pytest.raises(FingerprintMismatch, match=r"made by 'm'.*--collection"):
                other.require(PRINT, collection="c", writing=mode)


def test_a_shared_name_is_no_advice():
    """What was trained from a model keeps its name: the name alone does not lead back."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": "other", "weights": "w2"}, "(--model m)"),
        ({"weights": "w2"}, "Use --model with the folder"),
        ({"chunker": "another"}, "Cut documents alike"),
    ]
    for changes, way in cases:
        with pytest.raises(FingerprintMismatch) as caught:
            replace(PRINT, **changes).require(PRINT, collection="c", writing=True)
        assert way in str(caught.value)


def test_other_settings_are_answered_with_what_to_pass():
    """The options that make the collection's settings are named, the model is not blamed."""
    now = replace(PRINT, max_length=128, chunker="another")
    with pytest.raises(FingerprintMismatch) as caught:
        now.require(PRINT, collection="c", writing=True, cut_alike="--chunk-tokens 64")
    assert "with other settings" in str(caught.value)
    assert "Pass --max-length 512 --chunk-tokens 64, or" in str(caught.value)


def test_a_compressed_collection_is_asked_by_the_whole_model_and_by_one_as_narrow():
    """Queries can be made narrower, never wider; writing needs the same compression."""
    narrow = PRINT.compressed(Compression(dense_width=1, multivector_pool=2))
    assert (narrow.dense_width, narrow.multivector_width) == (1, 3)
    assert Fingerprint.from_json(narrow.to_json()) == narrow
    for now in (PRINT, narrow, PRINT.compressed(Compression(dense_width=1))):
        now.require(narrow, collection="c", writing=False)
    with pytest.raises(FingerprintMismatch, match="dense_width: collection 2, now 1"):
        narrow.require(PRINT, collection="c", writing=False)
    narrow.require(narrow, collection="c", writing=True)


@pytest.mark.parametrize(
    ("now", "way"),
    [
        (Compression(), "Pass --dense-width 1 --multivector-pool 2, or"),
        (Compression(dense_width=2, multivector_pool=2), "Pass --dense-width 1, or"),
        (
            Compression(multivector_pool=2, sparse_top=9),
            "Pass --dense-width 1 and leave out --sparse-top",
        ),
        (
            Compression(dense_width=1, multivector_pool=2, multivector_width=2),
            "Leave out --multivector-width, or",
        ),
    ],
)
def test_another_compression_is_answered_with_what_to_pass(now, way):
    """Records of a collection are all compressed alike, and the options for that are named."""
    stored = PRINT.compressed(Compression(dense_width=1, multivector_pool=2))
    with pytest.raises(
        FingerprintMismatch, match="compression: collection dense_width 1, "
    ) as caught:
        PRINT.compressed(now).require(stored, collection="c", writing=True)
    assert way in str(caught.value)


def test_schema_differences_are_listed():
    """Width and precision matter; indexes and fingerprint do not."""
    other = replace(SCHEMA, dense_width=4, payload_fields={"a": "keyword"}, fingerprint=None)
    assert other.differences(SCHEMA) == ["dense_width: collection 2, wanted 4"]
