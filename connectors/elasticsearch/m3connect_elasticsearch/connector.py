"""One collection in Elasticsearch; see :class:`m3connect.contract.Connector`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

from m3connect.connecting import retry
from m3connect.connecting.checks import check_ids, check_query, check_records, ids_or_filter
from m3connect.connecting.collection import Stored
from m3connect.connecting.naming import connector_repr
from m3connect.connecting.reading import selected_legs
from m3connect.connecting.tenants import check_unmoved, named, scoped, tenants_of, with_tenants
from m3connect.contract import (
    Capabilities,
    CollectionInfo,
    CollectionSchema,
    LegSelection,
    Limits,
    fusion_kind,
)
from m3connect.errors import (
    CollectionNotFound,
    CollectionOutdated,
    InputError,
    PermanentError,
    Unsupported,
)
from m3connect.filters import AnyFilter, Filter, as_filter
from m3connect.types import Hit, Leg, Query, RecordBatch
from m3connect_elasticsearch import mapping
from m3connect_elasticsearch.errors import NAME, check_items, understood
from m3connect_elasticsearch.filters import compile_filter
from m3connect_elasticsearch.index import Index
from m3connect_elasticsearch.mapping import Body, Layout
from m3connect_elasticsearch.naming import check_name
from m3connect_elasticsearch.queries import RESULTS, Dialect, read_hits, search_body, wider

LIMITS = Limits(
    # A half more as JSON. A node of version 9 with 512 MB of heap still takes it: see errors.py.
    request_bytes=6 * 1024 * 1024,
    id_bytes=32_766,  # the longest term of Lucene
    payload_bytes=32 * 1024 * 1024,
    results=RESULTS,
    results_by="index.max_result_window, and the largest k",
)
_WIDEST = 4096
_DEFAULT_DENSE_INDEX = "int8_hnsw"
_KEYS_PER_REQUEST = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """How a collection is made and searched; :func:`m3connect_elasticsearch.opening` explains."""

    dense_index: str | None = None
    candidates: int = 1000
    shards: int = 1
    replicas: int | None = None
    server_fusion: bool = False
    rank_vectors: bool = False
    tenant_field: str | None = None


class ElasticsearchConnector:
    """One collection, which is one index.

    Args:
        index: the index.
        options: how it is made and searched.
    """

    name = NAME

    def __init__(self, index: Index, options: Options) -> None:
        self.collection = index.name
        self._by_name = index
        self._index = index  # that the name stands for, once it was looked up
        self._looked_up = False
        self._server = index.server
        self._options = options
        self._known: Layout | None = None

    @cached_property
    def capabilities(self) -> Capabilities:
        """What this server does itself, with its licence."""
        options = self._options
        legs: set[Leg] = {"dense", "sparse"}
        # Nobody asks a cluster for its licence where nothing paid is wanted.
        wanted = options.rank_vectors or options.server_fusion
        licence = self._server.licence if wanted else "basic"
        if options.rank_vectors and self._server.is_paid:
            legs.add("multivector")
        fuses = options.server_fusion and self._server.is_paid
        return Capabilities(
            engine=f"elasticsearch {self._server.number}",
            embedded=False,
            legs=frozenset(legs),
            fusions=frozenset({"rrf"}) if fuses else frozenset(),
            scores_within=frozenset(legs),
            exact=options.dense_index == "flat",
            aliases=True,
            limits=LIMITS,
            licence=licence,
        )

    # -------------------------------------------------------------------------------- collection

    def ensure(self, schema: CollectionSchema) -> None:
        """Create the collection, or verify that it fits."""
        schema = with_tenants(schema, self._options.tenant_field)
        self._check_possible(schema)
        try:
            stored = self._stored("ensure")
        except CollectionNotFound:
            stored = self._create(schema)
        stored.require(schema, self._index.place, self._wanted())
        merged = stored.merged(schema)
        if merged != stored:
            self._index.describe_as(merged, "ensure")

    def annotate(self, notes: Mapping[str, Any]) -> None:
        """Merge notes into the index's ``_meta``; None removes a key."""
        self._index.describe_as(self._stored("annotate").annotated(notes), "annotate")

    def describe(self) -> CollectionInfo:
        """Schema, fingerprint and notes."""
        stored = self._find("describe")
        return stored.info(self._by_name.place, self.capabilities.engine, self._index.name)

    def collections(self) -> list[str]:
        """The names of the indices that m3connect made, of those that the user may see."""
        return self._by_name.names("collections")

    def beside(self, collection: str) -> ElasticsearchConnector:
        """Another collection on the same server."""
        check_name(collection)
        return ElasticsearchConnector(Index(self._server.shared(), collection), self._options)

    def switch(self, collection: str) -> None:
        """Set the alias, or note it in the index of this name."""
        own = self._by_name

        def annotate(notes: Mapping[str, Any]) -> None:
            own.describe_as(own.stored("switch").annotated(notes), "switch")

        set_alias = partial(own.set_alias, operation="switch")
        own.place.switch(collection, own.names("switch"), annotate=annotate, set_alias=set_alias)

    def size(self) -> int | None:
        """Bytes of all shards, replicas included."""
        self._stored("size")
        return self._index.size("size")

    def drop(self) -> None:
        """Delete the index."""
        with suppress(CollectionOutdated):  # whose name stands for no other
            self._find("drop")
            self._by_name.place.require_own(self._index.name)
        self._by_name.drop("drop")
        self._known, self._looked_up = None, False

    def _check_possible(self, schema: CollectionSchema) -> None:
        if schema.dense_width is not None and schema.dense_width > _WIDEST:
            raise self._unsupported(
                f"dense vectors are at most {_WIDEST} wide, not {schema.dense_width}", "ensure"
            )
        if self._options.rank_vectors and not self._server.is_paid:
            raise self._unsupported(
                f"rank_vectors needs an Enterprise licence and this cluster's is "
                f"{self._server.licence}; without it the client does the same scoring",
                "ensure",
            )

    def _create(self, schema: CollectionSchema) -> Stored:
        options = self._options
        layout = Layout(schema, options.dense_index or _DEFAULT_DENSE_INDEX, options.rank_vectors)
        try:
            self._index.create(layout, shards=options.shards, replicas=options.replicas)
        except PermanentError as error:
            try:
                return self._stored("ensure")  # Someone else made it at the same moment.
            except CollectionNotFound:
                raise error from None
        return self._stored("ensure")

    def _wanted(self) -> dict[str, Any]:
        """What is wanted of the layout of a collection that exists."""
        wanted: dict[str, Any] = {}
        if self._options.dense_index is not None:
            wanted["dense_index"] = self._options.dense_index
        if self._options.rank_vectors:
            wanted["rank_vectors"] = True
        return wanted

    def _stored(self, operation: str) -> Stored:
        """What the collection says of itself now; which one that is is looked up once."""
        if not self._looked_up:
            return self._find(operation)
        stored = self._index.stored(operation)
        stored.require_tenants(self._options.tenant_field, self._by_name.place, operation)
        self._known = Layout.of(stored)
        return stored

    def _find(self, operation: str) -> Stored:
        """Look up which index the name stands for, and what that says of itself."""
        self._known, self._looked_up = None, False
        try:
            name, stored = self._by_name.lookup(operation)
        except CollectionNotFound:
            self._index = self._by_name
            raise
        if name == self.collection and (noted := stored.stands_for) is not None:
            try:
                name, stored = Index(self._server, noted).lookup(operation)
            except CollectionNotFound as error:
                raise self._by_name.place.gone(noted, operation) from error
        stored.require_tenants(self._options.tenant_field, self._by_name.place, operation)
        if name != self._index.name:
            own = name == self.collection
            self._index = self._by_name if own else Index(self._server, name)
        self._known, self._looked_up = Layout.of(stored), True
        return stored

    def _schema(self, operation: str) -> CollectionSchema:
        return self._layout(operation).schema

    def _layout(self, operation: str) -> Layout:
        """The layout as last read; a read of an index that is gone fails by itself."""
        return self._known or Layout.of(self._stored(operation))

    # ------------------------------------------------------------------------------------ writes

    def upsert(self, batch: RecordBatch) -> None:
        """Write records; each request is on disk when the server acknowledges it."""
        # Read anew: a bulk request would make a missing index, with a guessed mapping, and who made it
        # anew meanwhile may keep tenants apart in it.
        layout = Layout.of(self._stored("upsert"))
        check_records(batch, layout.schema, LIMITS)
        self._check_unmoved(tenants_of(batch, layout.schema))
        retry.deliver(batch, lambda part: self._send(part, layout), LIMITS, self._server.policy)

    def _check_unmoved(self, whose: Mapping[str, str]) -> None:
        if not whose:
            return
        # A record that another process wrote for another tenant a moment ago would be overwritten.
        self._index.distrust()
        ids = [*whose]
        routes = {id_: mapping.route(tenant) for id_, tenant in whose.items()}
        for start in range(0, len(ids), _KEYS_PER_REQUEST):
            body = mapping.named(ids[start : start + _KEYS_PER_REQUEST])
            answer = self._index.search("upsert", body | mapping.small("id", mapping.TENANT))
            with understood("upsert"):
                hits = answer["hits"]["hits"]
                held = dict(map(mapping.whose, hits))
            check_unmoved(routes, held)

    def _send(self, part: RecordBatch, layout: Layout) -> None:
        lines: list[Body] = []
        documents = mapping.documents(part, layout, packed=self._server.packs_vectors)
        for id_, document in zip(part.ids, documents, strict=True):
            place = {"_id": mapping.key(id_)}
            if mapping.TENANT in document:
                place["routing"] = document[mapping.TENANT]
            lines += [{"index": place}, document]
        check_items("upsert", self._index.bulk("upsert", lines), part.ids)

    def delete(self, where: Sequence[str] | AnyFilter) -> int:
        """Delete by ids, or what matches and does not change meanwhile."""
        schema = self._stored("delete").schema  # anew, as upsert
        chosen = ids_or_filter(where)
        if isinstance(chosen, Filter):
            query, routing = _matching(chosen, schema)
            body = {"query": query, "_source": False, "seq_no_primary_term": True}
            pages = self._index.pages("delete", body, _KEYS_PER_REQUEST, routing)
            with understood("delete"):
                return sum(self._delete([_unchanged(hit) for hit in hits]) for hits in pages)
        starts = range(0, len(chosen), _KEYS_PER_REQUEST)
        parts = [chosen[start : start + _KEYS_PER_REQUEST] for start in starts]
        return sum(self._delete(self._keys(part, schema)) for part in parts)

    def _keys(self, ids: Sequence[str], schema: CollectionSchema) -> list[Body]:
        """What bulk deletes by; where records are routed, those that exist, with their routes."""
        if schema.tenant_field is None:
            return [{"_id": mapping.key(id_)} for id_ in ids]
        answer = self._index.search("delete", mapping.named(ids) | {"_source": False})
        with understood("delete"):
            return [_place(hit) for hit in answer["hits"]["hits"]]

    def _delete(self, keys: Sequence[Body]) -> int:
        lines = [{"delete": key} for key in keys]
        gone: set[str] = set()

        def send() -> None:
            answer = self._index.bulk("delete", lines)
            # Collected before the check, so that what went in a failed attempt is counted too.
            with understood("delete"):
                deletions = [item["delete"] for item in answer["items"]]
                gone.update(item["_id"] for item in deletions if item.get("result") == "deleted")
            check_items("delete", answer, [key["_id"] for key in keys])

        retry.call(send, self._server.policy)
        return len(gone)

    def flush(self) -> None:
        """Make all that was acknowledged findable."""
        self._schema("flush")
        self._index.refresh("flush")

    # ------------------------------------------------------------------------------------- reads

    def fetch(self, ids: Sequence[str], *, vectors: LegSelection = True) -> RecordBatch:
        """The records with these ids, in the order asked."""
        schema = self._schema("fetch")
        check_ids(ids)
        legs = selected_legs(vectors, schema)
        unique = list(dict.fromkeys(ids))
        size = mapping.page_size(schema, legs)
        read = self._with_multivectors if "multivector" in legs else self._named
        hits: list[Body] = []
        for start in range(0, len(unique), size):
            hits += read("fetch", unique[start : start + size], legs)
        with understood("fetch"):
            rows = {mapping.id_of(hit): row for row, hit in enumerate(hits)}
            order = [rows[id_] for id_ in ids if id_ in rows]
            return mapping.records([hits[row] for row in order], schema, legs)

    def scan(
        self,
        where: AnyFilter | None = None,
        *,
        vectors: LegSelection = False,
        batch_size: int = 256,
    ) -> Iterator[RecordBatch]:
        """All matching records, as they are when the scan begins.

        With multi-vectors, which are read page by page, as they are when their page is read.
        """
        schema = self._schema("scan")
        legs = selected_legs(vectors, schema)
        matching, routing = _matching(where, schema)
        query = {"query": matching}
        size = mapping.page_size(schema, legs)
        if "multivector" not in legs:
            body = query | mapping.returned(legs)
            for hits in self._index.pages("scan", body, min(batch_size, size), routing):
                with understood("scan"):
                    batch = mapping.records(hits, schema, legs)
                yield batch
            return
        for outline in self._index.pages("scan", query | mapping.OUTLINE, size, routing):
            with understood("scan"):
                parts = list(mapping.readable(outline, batch_size))
            for part in parts:
                with understood("scan"):
                    hits = self._named("scan", part, legs)
                    batch = mapping.records(hits, schema, legs)
                if hits:
                    yield batch

    def _named(self, operation: str, ids: Sequence[str], legs: Sequence[Leg]) -> list[Body]:
        """The hits of the records with these ids that exist, in no particular order."""
        body = mapping.named(ids) | mapping.returned(legs)
        answer = self._index.search(operation, body)
        with understood(operation):
            return list(answer["hits"]["hits"])

    def _with_multivectors(
        self, operation: str, ids: Sequence[str], legs: Sequence[Leg]
    ) -> list[Body]:
        """As :meth:`_named`: small ones in one request, in parts that the server reads side by side."""
        *light, heavy = self._index.search_many(operation, mapping.by_weight(ids, legs))
        with understood(operation):
            hits = [hit for answer in light for hit in answer["hits"]["hits"]]
            parts = list(mapping.readable(heavy["hits"]["hits"], len(ids)))
        for part in parts:
            hits += self._named(operation, part, legs)
        return hits

    def count(self, where: AnyFilter | None = None) -> int:
        """How many records match."""
        query, routing = _matching(where, self._schema("count"))
        body = {"query": query, "size": 0, "track_total_hits": True}
        answer = self._index.search("count", body, routing)
        with understood("count"):
            return int(answer["hits"]["total"]["value"])

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Answer single legs, and RRF where :attr:`capabilities` has it, in one ``_msearch``."""
        layout = self._layout("search")
        queries = [check_query(query, layout.schema) for query in queries]
        for query in queries:
            self._check_native(query)
        dialect = Dialect(
            self._options.candidates,
            layout.dense_index.startswith("bbq"),
            self._server.packs_queries,
            self._server.weighs_rrf,
        )
        bodies = [search_body(query, dialect) for query in queries]
        return self._answers(list(zip(queries, bodies, strict=True)))

    def _answers(self, searches: Sequence[tuple[Query, Body]]) -> list[list[Hit]]:
        """The hits of searches; those that were too narrow are asked again, together."""
        field = self._schema("search").tenant_field
        routings = [_routing(query.filter, field) for query, _ in searches]
        answers = self._index.search_many("search", [body for _, body in searches], routings)
        hits, again = [], {}
        for row, ((query, body), answer) in enumerate(zip(searches, answers, strict=True)):
            with understood("search"):
                returned = answer["hits"]["hits"]
                hits.append(read_hits(query, returned))
                more = wider(query, body, returned, hits[row])
            if more:
                again[row] = (query, more)
        if again:
            for row, better in zip(again, self._answers(list(again.values())), strict=True):
                hits[row] = better
        return hits

    def _check_native(self, query: Query) -> None:
        able = self.capabilities
        if query.limit > RESULTS:
            raise InputError(
                f"limit is {query.limit:,}, and a search of {able.engine} returns at most {RESULTS:,} "
                f"({LIMITS.results_by})"
            )
        if len(query.legs) == 1 and query.legs[0] in able.legs:
            return
        fusion = query.fusion and fusion_kind(query.fusion)
        if query.legs == ("dense", "sparse") and fusion in able.fusions:
            return
        raise self._unsupported(
            f"{' + '.join(query.legs)} is not one search here; m3connect.searching.planner composes it",
            "search",
        )

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    __repr__ = connector_repr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _unsupported(self, message: str, operation: str) -> Unsupported:
        return Unsupported(message, connector=NAME, operation=operation)


def _matching(where: AnyFilter | None, schema: CollectionSchema) -> tuple[Body, str | None]:
    """The query of a filter, and where it is routed to."""
    condition = scoped(where, schema)
    if condition is None:
        return {"match_all": {}}, None
    query = {"bool": {"filter": [compile_filter(condition)]}}
    return query, _routing(condition, schema.tenant_field)


def _routing(where: AnyFilter | None, field: str | None) -> str | None:
    """To the shards of the tenants that a filter keeps to; None is to all."""
    tenants = None if field is None else named(as_filter(where), field)
    return ",".join(map(mapping.route, tenants)) if tenants else None


def _place(hit: Body) -> Body:
    """Where a document lies."""
    place = {"_id": hit["_id"]}
    return place | {"routing": hit["_routing"]} if "_routing" in hit else place


def _unchanged(hit: Body) -> Body:
    """The same, good only while the document is the one that was found."""
    return _place(hit) | {"if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}
