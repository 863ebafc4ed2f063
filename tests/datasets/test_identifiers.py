"""The identifier sets in ``benchmarks/``: whole, apart by source, and each query names what its pages hold."""

from pathlib import Path

import pytest

from m3connect.datasets import beir

HOME = Path(__file__).parents[2] / "benchmarks" / "identifiers"


@pytest.fixture(scope="module", params=["dev", "test"])
def identifiers(request):
    """One of the two sets."""
    return beir.load(HOME / request.param)


def test_every_query_names_its_pages(identifiers):
    """Some word of the query stands in each relevant page as it is written, and nothing is odd."""
    texts = {document.id: document.text for document in identifiers.documents()}
    assert identifiers.warnings == ()
    for query in identifiers.queries:
        for id_ in identifiers.qrels[query.id]:
            words = [query.text, *query.text.split()]
            longest = max((word for word in words if word in texts[id_]), key=len, default="")
            assert len(longest) > 2, (query, id_)


def test_all_types_are_there():
    """At least 400 queries in all, of every type in each set, and no page is in both."""
    sets = [beir.load(HOME / name) for name in ("dev", "test")]
    assert sum(len(each.queries) for each in sets) >= 400
    assert not set(sets[0].ids) & set(sets[1].ids)
    for each in sets:
        kinds = {query.id.partition("-")[0] for query in each.queries}
        assert kinds == {"code", "function", "option", "version", "standard", "path"}
    sources = [{id_.partition(":")[0] for id_ in each.ids} for each in sets]
    assert not sources[0] & sources[1]
