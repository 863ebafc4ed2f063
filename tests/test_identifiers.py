"""Identifiers as terms: the same name has the same term wherever it stands, and is found by it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3connect import Document, M3Encoder, connect, ingest, search
from m3connect.errors import FingerprintMismatch
from m3connect.types.identifiers import FIRST, identifier_term, identifiers, with_identifiers

NAMES = st.from_regex(r"[A-Za-z]{1,4}[-_./:]?[0-9]{1,3}", fullmatch=True)


def cut(text, sizes):
    """A text in pieces as SentencePiece has them, of these sizes in turn."""
    marked, pieces, start = text.replace(" ", "▁"), [], 0
    for number in range(len(marked)):
        size = sizes[number % len(sizes)]
        pieces += [marked[start : start + size]] if start < len(marked) else []
        start += size
    return pieces


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rule SIM108 (SIM108), see `SIM108`.", ["SIM108"] * 3),
        ("pip --no-build-isolation", ["no-build-isolation"]),
        ("std::vector, a.b.c and /etc/hosts; C3PO", ["std::vector", "a.b.c", "etc/hosts", "C3PO"]),
        ("camelCase, __init__ but no plain Words.", ["camelCase", "__init__"]),
        ("使用SIM108规则", ["SIM108"]),
        ("Größe2 und naïve-3", []),
        ("x" * 200 + "1", []),
        ("", []),
    ],
)
def test_what_is_an_identifier(text, names):
    """Digits, joints or a change of case within Latin letters make one; a part of a word is none."""
    assert [name for name, _ in identifiers(list(text.replace(" ", "▁")))] == names


@given(NAMES, st.lists(st.integers(1, 4), min_size=1), st.lists(st.integers(1, 4), min_size=1))
def test_it_is_the_same_name_however_it_is_cut(name, one, two):
    """Whatever pieces two texts are cut into: one term, unless a piece is the whole name."""
    for sizes in (one, two):
        for found, pieces in identifiers(cut(f"see ({name}) or", sizes)):
            assert found == name
            assert name in "".join(pieces)
            assert FIRST <= identifier_term(found) < 2**31


@pytest.fixture(scope="module")
def encoders(tiny_m3):
    return [M3Encoder.load(tiny_m3, identifiers=wanted) for wanted in (False, True)]


def test_only_terms_are_added(encoders):
    """Dense and token vectors are what they were, and so are the terms of the vocabulary."""
    texts = ["rule SIM108 (SIM108)", "plain words", ""]
    plain, more = (encoder.encode(texts) for encoder in encoders)
    assert np.array_equal(plain.dense, more.dense)
    assert plain.multivector == more.multivector
    for row in range(len(texts)):
        below = more.sparse[row].indices < FIRST
        assert np.array_equal(more.sparse[row].indices[below], plain.sparse[row].indices)
        assert np.array_equal(more.sparse[row].values[below], plain.sparse[row].values)
        assert (~below).sum() == (row == 0)
    pieces = [encoders[0].tokens(text) for text in texts]
    assert with_identifiers(plain.sparse, pieces, encoders[0].term) == more.sparse


def test_the_fingerprint_knows_it(encoders):
    """Passages with and without do not mix, queries of either are answered; older notes have none."""
    plain, more = (encoder.info.fingerprint for encoder in encoders)
    plain.require(more, collection="c", writing=False)
    with pytest.raises(FingerprintMismatch, match="Pass --identifiers, or"):
        plain.require(more, collection="c", writing=True)
    with pytest.raises(FingerprintMismatch, match="Leave out --identifiers, or"):
        more.require(plain, collection="c", writing=True)
    older = plain.to_json()
    del older["identifiers"]
    assert type(plain).from_json(older) == plain


def test_a_query_follows_the_collection(encoders):
    """Whether the query's encoder has the option or not, the answer is the same, and is explained by name."""
    with connect("memory", collection="codes") as connector:
        ingest([Document("a", "It is (M108).")], encoders[1], connector)
        answers = [
            search(connector, encoder, "what is M108", mode="sparse") for encoder in encoders
        ]
        assert [hit.score for hit in answers[0]] == [hit.score for hit in answers[1]]
        (explanation,) = answers[0].explain()
        assert "M108" in {match.term for match in explanation.terms}
        total = sum(match.contribution for match in explanation.terms)
        assert total == pytest.approx(answers[0][0].score, rel=1e-5)
