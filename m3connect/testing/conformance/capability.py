"""What a connector declares is what it does: no less, and no more."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import pytest

from m3connect.contract import Connector, FusionKind
from m3connect.errors import InputError, Unsupported
from m3connect.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.testing.conformance.compare import check_hits, check_records, decided, refusal
from m3connect.testing.conformance.lifecycle import schema_of
from m3connect.testing.conformance.searching import about, filled, forms
from m3connect.types import LEGS, MultiVectors

NODES: dict[str, Filter] = {
    "Eq": Eq("lang", "de"),
    "In": In("lang", ("de", 1)),
    "Range": Range("year", gte=1),
    "Exists": Exists("lang"),
    "And": And(()),
    "Or": Or(()),
    "Not": Not(Exists("lang")),
}


class CapabilityTests:
    """Part of :class:`m3connect.testing.conformance.ConnectorConformance`."""

    def test_capabilities_are_well_formed(self, connector: Connector) -> None:
        """Capabilities name known things, stay the same, and store what they search."""
        connector.ensure(schema_of(("dense",)))
        declared = connector.capabilities
        assert connector.capabilities == declared
        assert connector.name
        assert declared.engine
        assert declared.scores_within <= declared.legs <= declared.stores <= set(LEGS)
        assert declared.fusions <= set(get_args(FusionKind))

    def test_what_cannot_be_stored_is_refused(self, connector: Connector) -> None:
        """A collection with a representation that the engine cannot store is not made."""
        for leg in set(LEGS) - connector.capabilities.stores:
            with pytest.raises(Unsupported):
                connector.ensure(schema_of((leg,)))

    @pytest.mark.parametrize("seed", [81, 82])
    def test_native_is_what_is_declared(self, connector: Connector, seed: int) -> None:
        """Every declared form of query is answered like the oracle, every other is refused."""
        memory = filled(connector, corpus.records(seed, 90))
        for asked in forms(seed):
            query = replace(asked, leg_scores=False)
            if not planner.plan(query, connector.capabilities).native:
                refusal(Unsupported, partial(connector.search, [query]), about(seed, query))
            elif decided(memory, query):
                check_hits(memory, query, connector.search([query])[0], about(seed, query))

    def test_searches_and_counts_take_every_filter_node(self, connector: Connector) -> None:
        """A search and a count take each node of a filter, and mean the same by it."""
        memory = filled(connector, corpus.records(83, 60))
        for name, where in NODES.items():
            query = corpus.query(83, "dense", filter=where, limit=60)
            assert connector.count(where) == memory.count(where), name
            if planner.plan(query, connector.capabilities).native:
                check_hits(memory, query, connector.search([query])[0], name)
            check_hits(memory, query, planner.run(connector, [query])[0], name)

    def test_limits_can_be_reached(self, connector: Connector) -> None:
        """A record exactly at the declared limits is stored, and as many results are given."""
        limits = connector.capabilities.limits
        batch = corpus.records(84, 3)
        ids, payloads = list(batch.ids), list(batch.payloads)
        multi = batch.embeddings.multivector
        assert multi is not None
        tokens = [multi[row] for row in range(3)]
        if limits.id_bytes is not None:
            ids[0] = "i" * limits.id_bytes
        if limits.payload_bytes is not None and limits.payload_bytes <= 2**22:
            payloads[1] = {"text": "x" * (limits.payload_bytes - len('{"text": ""}'))}
        if limits.multivector_floats is not None:
            tokens[2] = np.ones(((limits.multivector_floats - 1) // 8, 8), np.float16)
        embeddings = replace(batch.embeddings, multivector=MultiVectors.from_rows(tokens))
        batch = replace(batch, ids=ids, payloads=payloads, embeddings=embeddings)
        memory = filled(connector, batch)
        check_records(batch, connector.fetch(ids), corpus.SCHEMA)
        if limits.results is not None:
            query = corpus.query(84, "dense", limit=limits.results)
            check_hits(memory, query, connector.search([query])[0], "as many as there may be")
            with pytest.raises(InputError):
                planner.run(connector, [replace(query, limit=limits.results + 1)])
