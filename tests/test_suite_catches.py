"""The conformance suite catches what real connectors get wrong."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import numpy as np
import pytest

from m3connect import filters
from m3connect.connecting.collection import STANDS_FOR, Stored
from m3connect.contract import Connector, Limits
from m3connect.errors import ConnectorError, InputError
from m3connect.filters import And, Eq, Exists, Filter, Not, Or, Range
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.conformance import ConnectorConformance
from m3connect.testing.conformance.searching import PLANNED
from m3connect.types import Hit, MultiVectors, Query, RecordBatch, Rrf, Weighted

BASE = MemoryConnector.capabilities


# ---------------------------------------------------------------------------------- what is kept


class KeepsTheFirst(MemoryConnector):
    """Equal ids: the first wins."""

    def upsert(self, batch):
        rows = [row for row, id_ in enumerate(batch.ids) if id_ not in batch.ids[:row]]
        super().upsert(batch.take(np.array(rows, np.intp)))


class Merges(MemoryConnector):
    """Overwriting merges payloads."""

    def upsert(self, batch):
        old = {id_: dict(record.payload) for id_, record in self._records.items()}
        merged = [old.get(i, {}) | p for i, p in zip(batch.ids, batch.payloads, strict=True)]
        super().upsert(replace(batch, payloads=merged))


class CutsTokens(MemoryConnector):
    """Only 512 token vectors fit, silently."""

    def upsert(self, batch):
        multi = batch.embeddings.multivector
        if multi is not None:
            rows = [multi[row][:512] for row in range(len(multi))]
            multi = MultiVectors.from_rows(rows, width=multi.width)
        super().upsert(replace(batch, embeddings=replace(batch.embeddings, multivector=multi)))


class RoundsDense(MemoryConnector):
    """Dense vectors are stored in half precision."""

    def upsert(self, batch):
        dense = batch.embeddings.dense
        dense = None if dense is None else dense.astype(np.float16).astype(np.float32)
        super().upsert(replace(batch, embeddings=replace(batch.embeddings, dense=dense)))


class ReturnsFloat32(MemoryConnector):
    """Token vectors come back in another dtype."""

    def fetch(self, ids, *, vectors=True):
        batch = super().fetch(ids, vectors=vectors)
        multi = batch.embeddings.multivector
        if multi is not None:
            multi = MultiVectors(multi.offsets, multi.vectors.astype(np.float32))
        return replace(batch, embeddings=replace(batch.embeddings, multivector=multi))


class ForgetsTheDtypeOfNothing(MemoryConnector):
    """No rows come back as float32 token vectors, whatever is stored."""

    def fetch(self, ids, *, vectors=True):
        batch = super().fetch(ids, vectors=vectors)
        multi = batch.embeddings.multivector
        if multi is None or len(batch):
            return batch
        multi = MultiVectors(multi.offsets, multi.vectors.astype(np.float32))
        return replace(batch, embeddings=replace(batch.embeddings, multivector=multi))


class BringsEveryLeg(MemoryConnector):
    """Legs asked for by name are taken for all of them."""

    def fetch(self, ids, *, vectors=True):
        return super().fetch(ids, vectors=bool(vectors))


class TakesAnythingForAFilter(MemoryConnector):
    """A node that it does not know matches everything."""

    def count(self, where=None):
        try:
            return super().count(where)
        except InputError:
            return super().count()


class TakesTextForAnId(MemoryConnector):
    """A filter's text is one id, of no record."""

    def delete(self, where):
        return super().delete([where] if isinstance(where, str) else where)


class JsonOfFloats(MemoryConnector):
    """All numbers are doubles."""

    def upsert(self, batch):
        super().upsert(replace(batch, payloads=[_floats(payload) for payload in batch.payloads]))


class SwallowsNulls(MemoryConnector):
    """Null fields are dropped."""

    def upsert(self, batch):
        payloads = [{k: v for k, v in p.items() if v is not None} for p in batch.payloads]
        super().upsert(replace(batch, payloads=payloads))


class NormalisesIds(MemoryConnector):
    """Ids are brought to composed form."""

    def upsert(self, batch):
        ids = [unicodedata.normalize("NFC", id_) for id_ in batch.ids]
        super().upsert(replace(batch, ids=ids))


class ShortIds(MemoryConnector):
    """Ids are cut, as a column of limited width would."""

    def upsert(self, batch):
        super().upsert(replace(batch, ids=[id_[:255] for id_ in batch.ids]))


class WritesIntoTheInput(MemoryConnector):
    """The id is put into the caller's payload."""

    def upsert(self, batch):
        super().upsert(batch)
        for id_, payload in zip(batch.ids, batch.payloads, strict=True):
            payload["id"] = id_


class LendsItsState(MemoryConnector):
    """Fetched payloads are the stored ones."""

    def fetch(self, ids, *, vectors=True):
        batch = super().fetch(ids, vectors=vectors)
        return replace(batch, payloads=[self._records[id_].payload for id_ in batch.ids])


class TakesAStringForIds(MemoryConnector):
    """The ids of ``"ab"`` are a and b."""

    def delete(self, where):
        return super().delete(list(where) if isinstance(where, str) else where)


class FetchesInStoredOrder(MemoryConnector):
    """The order asked for is ignored."""

    def fetch(self, ids, *, vectors=True):
        asked = set(ids)
        return super().fetch([id_ for id_ in self._records if id_ in asked], vectors=vectors)


class ScansWithGaps(MemoryConnector):
    """The last, short page of a scan is lost."""

    def scan(self, where=None, *, vectors=False, batch_size=256):
        for batch in super().scan(where, vectors=vectors, batch_size=batch_size):
            if len(batch) == batch_size or batch_size > 500:
                yield batch


class ScansTwice(MemoryConnector):
    """Page boundaries overlap by one record."""

    def scan(self, where=None, *, vectors=False, batch_size=256):
        last = None
        for batch in super().scan(where, vectors=vectors, batch_size=batch_size):
            yield batch if last is None or batch_size == 1 else _prepend(last, batch)[:batch_size]
            last = batch[-1:]


class CountsToALimit(MemoryConnector):
    """Counting stops at a thousand, and says nothing."""

    def count(self, where=None):
        return min(super().count(where), 1000)


class CountsWhatWasAsked(MemoryConnector):
    """Delete returns how many ids were given."""

    def delete(self, where):
        found = super().delete(where)
        return found if isinstance(where, Filter) else len(where)


class ReadsLate(MemoryConnector):
    """Count sees writes only after flush."""

    visible = 0

    def flush(self):
        super().flush()
        self.visible = len(self._records)

    def count(self, where=None):
        return min(super().count(where), self.visible)


# ------------------------------------------------------------------------------ what is promised


class Recreates(MemoryConnector):
    """Ensure drops what is there."""

    def ensure(self, schema):
        super().ensure(schema)
        self._records.clear()


class TakesAnySchema(MemoryConnector):
    """Ensure does not compare schemas."""

    def ensure(self, schema):
        self._open("ensure")
        self._stored = self._stored or Stored(schema)


class MakesCollectionsUp(MemoryConnector):
    """Reading a collection that does not exist gives nothing instead of an error."""

    def count(self, where=None):
        return super().count(where) if self._stored else 0


class DropsTheRecordsAlone(MemoryConnector):
    """What the collection says of itself outlives it."""

    def drop(self):
        self._require("drop")
        self._records.clear()


class ListsWhatIsNotThere(MemoryConnector):
    """A name that is opened counts as a collection."""

    def collections(self):
        self._open("collections")
        return [self.collection]


class ReplacesTheFingerprint(MemoryConnector):
    """Ensure stores the newest fingerprint."""

    def ensure(self, schema):
        super().ensure(schema)
        stored = replace(self._stored.schema, fingerprint=schema.fingerprint)
        self._stored = replace(self._stored, schema=stored)


class ReplacesNotes(MemoryConnector):
    """Annotate forgets the other notes."""

    def annotate(self, notes):
        self._stored = replace(self._require("annotate"), notes={})
        super().annotate(notes)


class FollowsAtOnce(MemoryConnector):
    """Each operation asks anew what the name stands for."""

    def _find(self, operation):
        self._found = None
        super()._find(operation)


class StaysWhereItIs(MemoryConnector):
    """What the name stands for is looked up once for all."""

    def describe(self):
        info = super().describe()
        self.first = getattr(self, "first", info.stands_for)
        self._found = self.first
        return replace(info, stands_for=self.first)


class KnowsNoEveryTenant(MemoryConnector):
    """What says that all tenants are meant is taken for a condition, of a kind that it does not know."""

    def search(self, queries):
        if any("EveryTenant" in repr(query.filter) for query in queries):
            raise InputError("EveryTenant() is no filter")
        return super().search(queries)


class RemembersTheSchema(MemoryConnector):
    """What the collection says of itself is read by ensure and describe alone."""

    remembered: Stored | None = None

    def ensure(self, schema):
        super().ensure(schema)
        self.remembered = self._stored

    def _require(self, operation, *, anew=False):
        if anew or self.remembered is None:
            self.remembered = super()._require(operation, anew=anew)
        return self.remembered


class FallsBack(MemoryConnector):
    """Serves the old records where the new ones are gone."""

    def _find(self, operation):
        with suppress(ConnectorError):
            super()._find(operation)


class SwitchesToAnything(MemoryConnector):
    """A name may stand for nothing."""

    def switch(self, collection):
        noted = None if collection == self.collection else collection
        self._stored = self._require("switch").annotated({STANDS_FOR: noted})


class WorksWhenClosed(MemoryConnector):
    """Close does nothing."""

    def close(self):
        pass


class OneThread(MemoryConnector):
    """Tied to the thread that made it, as sqlite is by default."""

    def __init__(self, *, collection):
        super().__init__(collection=collection)
        self.owner = threading.get_ident()

    def upsert(self, batch):
        if threading.get_ident() != self.owner:
            raise ConnectorError("used from another thread", connector="x", operation="upsert")
        super().upsert(batch)


class WritesTheGoodPart(MemoryConnector):
    """Of a batch with a bad record, the others are written."""

    def upsert(self, batch):
        try:
            super().upsert(batch)
        except InputError:
            for one in batch:
                with suppress(InputError):
                    super().upsert(one)
            raise


class TakesNaN(MemoryConnector):
    """Dense vectors are not looked at."""

    def upsert(self, batch):
        dense = batch.embeddings.dense
        clean = None if dense is None else np.nan_to_num(dense, posinf=0, neginf=0)
        super().upsert(replace(batch, embeddings=replace(batch.embeddings, dense=clean)))


class AnswersBadQueries(MemoryConnector):
    """A limit of 0 gives no hits instead of an error."""

    def search(self, queries):
        return super().search([replace(query, limit=max(1, query.limit)) for query in queries])


class SmallPayloads(MemoryConnector):
    """Takes only 64 KB of payload and declares it: honest, but the suite wants a megabyte."""

    capabilities = replace(BASE, limits=Limits(payload_bytes=65_536))


# ---------------------------------------------------------------------------------- what filters


@dataclass(frozen=True)
class Meaning:
    """Another meaning of filters, for connectors that get one node wrong."""

    node: type[Filter]
    wrong: Callable[[Any, Mapping[str, Any]], bool]

    def matches(self, condition: Filter, payload: Mapping[str, Any]) -> bool:
        if isinstance(condition, self.node):
            return self.wrong(condition, payload)
        match condition:
            case Not(part):
                return not self.matches(part, payload)
            case And(parts):
                return all(self.matches(part, payload) for part in parts)
            case Or(parts):
                return any(self.matches(part, payload) for part in parts)
        return filters.matches(condition, payload)


class Misunderstands(MemoryConnector):
    """Filters by another meaning."""

    meaning: Meaning

    def _matching(self, where):
        if where is None:
            return list(self._records)
        return [i for i, r in self._records.items() if self.meaning.matches(where, r.payload)]


def _found(condition: Any, payload: Mapping[str, Any]) -> list[Any]:
    return list(filters.values_at(payload, condition.field))


class LooseTypes(Misunderstands):
    """Values are compared as text."""

    meaning = Meaning(Eq, lambda c, p: any(str(c.value) == str(v) for v in _found(c, p)))


class PythonTypes(Misunderstands):
    """True equals 1."""

    meaning = Meaning(Eq, lambda c, p: any(c.value == v for v in _found(c, p)))


class FullText(Misunderstands):
    """Equality of strings is containment of words."""

    meaning = Meaning(
        Eq,
        lambda c, p: any(
            str(c.value) in str(v).split() if isinstance(v, str) else c.value is v
            for v in _found(c, p)
        ),
    )


class SqlNull(Misunderstands):
    """A record without the field does not match a negation."""

    meaning = Meaning(
        Not,
        lambda c, p: (
            not filters.matches(c.part, p)
            and (not isinstance(c.part, Eq) or bool(_found(c.part, p)))
        ),
    )


class EmptyListsExist(Misunderstands):
    """An empty list counts as a value."""

    meaning = Meaning(Exists, lambda c, p: filters.matches(c, p) or p.get(c.field) == [])


class DatesAsText(Misunderstands):
    """Dates are compared as strings."""

    meaning = Meaning(
        Range,
        lambda c, p: (
            any(
                all(
                    {"gt": v > b, "gte": v >= b, "lt": v < b, "lte": v <= b}[name]
                    for name, b in ((n, b.isoformat()) for n, b in c.instants.items())
                )
                for v in _found(c, p)
                if isinstance(v, str)
            )
            if c.is_date
            else filters.matches(c, p)
        ),
    )


class FiltersLate(MemoryConnector):
    """The filter is applied to the best hits, instead of before."""

    def search(self, queries):
        answers = super().search([replace(query, filter=None, payload=True) for query in queries])
        kept = [
            [h for h in hits if q.filter is None or filters.matches(q.filter, h.payload)]
            for q, hits in zip(queries, answers, strict=True)
        ]
        return [[replace(hit, rank=r) for r, hit in enumerate(hits, 1)] for hits in kept]


# --------------------------------------------------------------------------------- what is found


class Answers(MemoryConnector):
    """Changes the hits of its searches."""

    def search(self, queries):
        answers = super().search(queries)
        return [self.change(q, hits) for q, hits in zip(queries, answers, strict=True)]

    def change(self, query: Query, hits: list[Hit]) -> list[Hit]:
        raise NotImplementedError


class SumsMaxSim(Answers):
    """MaxSim is not divided by the number of query tokens."""

    def change(self, query, hits):
        n = len(query.multivector) if query.legs == ("multivector",) else 1
        return [replace(hit, score=hit.score * n) for hit in hits]


class Distances(Answers):
    """Scores are distances: lower is better."""

    def change(self, query, hits):
        return [replace(hit, score=-hit.score) for hit in hits]


class TiesAsTheyCome(Answers):
    """Equal scores come in any order."""

    def change(self, query, hits):
        turned = sorted(sorted(hits, key=lambda h: h.id, reverse=True), key=lambda h: -h.score)
        return [replace(hit, rank=rank) for rank, hit in enumerate(turned, 1)]


class RanksFromZero(Answers):
    """Ranks start at 0."""

    def change(self, query, hits):
        return [replace(hit, rank=hit.rank - 1) for hit in hits]


class NoPayload(Answers):
    """Hits carry a payload whether it was asked for or not."""

    def change(self, query, hits):
        return [replace(hit, payload=self._records[hit.id].payload) for hit in hits]


class Rescored(MemoryConnector):
    """``rescore=False`` is ignored."""

    def search(self, queries):
        return super().search([self._rescored(query) for query in queries])

    def _rescored(self, query):
        if isinstance(query.fusion, Weighted):
            return replace(query, fusion=replace(query.fusion, rescore=True))
        return query


class DividesRanks(MemoryConnector):
    """Weighted rank fusion means something else: ranks are divided by the weights."""

    def search(self, queries):
        plain = [
            replace(q, fusion=Rrf(k=q.fusion.k)) if isinstance(q.fusion, Rrf) else q
            for q in queries
        ]
        return super().search(plain)


class LimitIsDepth(MemoryConnector):
    """Legs are searched to the limit, not to their depths."""

    def search(self, queries):
        return super().search(
            [replace(q, dense_depth=q.limit, sparse_depth=q.limit) for q in queries]
        )


class AllAreCandidates(Answers):
    """A sparse search fills up with records that share no term."""

    def change(self, query, hits):
        if query.legs != ("sparse",):
            return hits
        rest = sorted(set(self._matching(query.filter)) - {hit.id for hit in hits})
        room = query.limit - len(hits)
        return hits + [Hit(id_, 0.0, len(hits) + i, {}) for i, id_ in enumerate(rest[:room], 1)]


class EmptySparseEmptiesAll(Answers):
    """A hybrid query without sparse hits finds nothing."""

    def change(self, query, hits):
        alone = Query(sparse=query.sparse) if query.sparse is not None else None
        return hits if alone is None or MemoryConnector.search(self, [alone])[0] else []


class TiesBeyondTheDepth(Answers):
    """Where a weight of 0 makes all tie, any record is found, not the candidates alone."""

    def change(self, query, hits):
        if not isinstance(query.fusion, Weighted) or query.fusion.dense or len(hits) < query.limit:
            return hits
        return [Hit(id_, 0.0, rank) for rank, id_ in enumerate(sorted(self._records)[:5], 1)]


class Approximate(Answers):
    """An approximate index that misses every eighth record."""

    capabilities = replace(BASE, exact=False)

    def change(self, query, hits):
        (full,) = MemoryConnector.search(self, [replace(query, limit=2 * query.limit)])
        kept = [hit for hit in full if hash_of(hit.id) % 8][: query.limit]
        return [replace(hit, rank=rank) for rank, hit in enumerate(kept, 1)]


class DeclaresTooLittle(MemoryConnector):
    """Answers fusions that it does not declare."""

    capabilities = replace(BASE, fusions=frozenset({"rrf"}))


class DeclaresTooMuch(Answers):
    """Declares MaxSim beside other legs, and leaves the multi-vector out."""

    def search(self, queries):
        plain = [
            replace(q, multivector=None, rerank=None) if len(q.legs) > 2 and q.rerank is None else q
            for q in queries
        ]
        return MemoryConnector.search(self, plain)


class RoundsWeights(MemoryConnector):
    """Sparse weights keep 4 significant bits, undeclared."""

    def search(self, queries):
        real = dict(self._records)
        for id_, record in real.items():
            mantissa, exponent = np.frexp(record.sparse.values)
            rounded = np.ldexp(np.round(mantissa * 16) / 16, exponent).astype(np.float32)
            sparse = replace(record.sparse, values=rounded)
            self._records[id_] = replace(record, sparse=sparse)
        answers = super().search(queries)
        self._records = real
        return answers


def hash_of(id_: str) -> int:
    """A number that is the same in every run."""
    return int.from_bytes(id_.encode()[-2:], "big")


def _floats(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _prepend(first: RecordBatch, rest: RecordBatch) -> RecordBatch:
    return RecordBatch.concat([first, rest])


# -------------------------------------------------------------------------------------- catching


@dataclass(frozen=True)
class Catch:
    """Which test of the suite catches a broken connector, and how it says so."""

    broken: type[MemoryConnector]
    test: str
    says: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


CATCHES = [
    Catch(KeepsTheFirst, "test_the_last_of_equal_ids_wins", "came back as"),
    Catch(Merges, "test_overwriting_leaves_nothing_behind", "came back as"),
    Catch(CutsTokens, "test_a_long_passage_keeps_all_tokens", "came back as"),
    Catch(RoundsDense, "test_records_come_back_exactly", "came back as"),
    Catch(ReturnsFloat32, "test_records_come_back_exactly", "came back as float32"),
    Catch(JsonOfFloats, "test_payloads_of_every_shape_come_back", "'one': 1"),
    Catch(SwallowsNulls, "test_payloads_of_every_shape_come_back", "'null': None"),
    Catch(NormalisesIds, "test_any_string_is_an_id", "wanted the ids"),
    Catch(ShortIds, "test_any_string_is_an_id", "wanted the ids"),
    Catch(WritesIntoTheInput, "test_nothing_given_is_changed", ""),
    Catch(LendsItsState, "test_what_is_returned_is_the_callers", "came back as"),
    Catch(FetchesInStoredOrder, "test_fetch_keeps_the_order_asked", "wanted the ids"),
    Catch(ScansWithGaps, "test_scan_gives_each_record_once", "wanted the ids", {"where": None}),
    Catch(ScansTwice, "test_scan_gives_each_record_once", "wanted the ids", {"where": None}),
    Catch(CountsToALimit, "test_ten_thousand_records_stream_through", ""),
    Catch(CountsWhatWasAsked, "test_delete_counts_what_went", ""),
    Catch(ReadsLate, "test_writes_are_read_at_once", ""),
    Catch(Recreates, "test_ensure_keeps_what_is_there", "wanted the ids"),
    Catch(
        TakesAnySchema,
        "test_ensure_refuses_another_schema",
        "DID NOT RAISE",
        {"change": {"dense_width": 17}},
    ),
    Catch(MakesCollectionsUp, "test_an_unknown_collection_is_reported", "count: no"),
    Catch(DropsTheRecordsAlone, "test_a_collection_is_listed_and_dropped", ""),
    Catch(ListsWhatIsNotThere, "test_a_collection_is_listed_and_dropped", ""),
    Catch(ReplacesTheFingerprint, "test_the_fingerprint_is_never_replaced", ""),
    Catch(ReplacesNotes, "test_notes_are_merged", ""),
    Catch(FollowsAtOnce, "test_what_began_on_one_collection_is_not_finished_on_another", ""),
    Catch(StaysWhereItIs, "test_a_switched_name_brings_the_other_collection", ""),
    Catch(RemembersTheSchema, "test_what_another_connector_dropped_is_missed", "no CollectionNotF"),
    Catch(
        RemembersTheSchema,
        "test_who_knew_the_collection_without_tenants_keeps_to_them",
        "no InputError",
    ),
    Catch(
        KnowsNoEveryTenant,
        "test_a_question_finds_the_records_of_the_tenants_it_names",
        "EveryTenant() is no filter",
    ),
    Catch(FallsBack, "test_what_a_name_stands_for_is_missed", "no CollectionGone"),
    Catch(SwitchesToAnything, "test_a_name_stands_for_what_there_is", "unknown: no Coll"),
    Catch(WorksWhenClosed, "test_a_closed_connector_refuses_everything", "ensure: no"),
    Catch(OneThread, "test_any_thread_may_use_it", "another thread"),
    Catch(WritesTheGoodPart, "test_bad_records_are_refused", "a part of the batch was written"),
    Catch(TakesNaN, "test_bad_records_are_refused", "dense NaN: no InputError"),
    Catch(AnswersBadQueries, "test_bad_queries_are_refused", "limit 0: no InputError"),
    Catch(
        TakesAStringForIds, "test_one_string_is_no_list_of_ids", "delete a string: no InputError"
    ),
    Catch(ForgetsTheDtypeOfNothing, "test_nothing_is_a_batch_too", "came back as float32"),
    Catch(BringsEveryLeg, "test_only_the_wanted_legs_come", "wanted the legs"),
    Catch(TakesAnythingForAFilter, "test_what_is_no_filter_is_refused", "no InputError"),
    Catch(TakesTextForAnId, "test_a_filter_may_be_text", "delete: no InputError"),
    Catch(SmallPayloads, "test_a_payload_of_a_megabyte_comes_back", "the limit is"),
    Catch(LooseTypes, "test_a_table_of_treacherous_filters", "scan by Eq"),
    Catch(PythonTypes, "test_a_table_of_treacherous_filters", "scan by Eq"),
    Catch(FullText, "test_a_table_of_treacherous_filters", "scan by Eq"),
    Catch(SqlNull, "test_a_table_of_treacherous_filters", "scan by Not"),
    Catch(EmptyListsExist, "test_a_table_of_treacherous_filters", "scan by Exists"),
    Catch(DatesAsText, "test_a_table_of_treacherous_filters", "scan by Range"),
    Catch(LooseTypes, "test_random_filters_on_random_payloads", "scan by"),
    Catch(SqlNull, "test_an_index_never_changes_a_filter", "scan by"),
    Catch(SqlNull, "test_delete_by_filter_takes_exactly_the_matching", ""),
    Catch(FiltersLate, "test_searches_obey_filters", "hits wanted"),
    Catch(SumsMaxSim, "test_scores_are_the_papers", "multivector", {"path": PLANNED}),
    Catch(Distances, "test_planned_answers_equal_the_oracles", "scores -", {"seed": 61}),
    Catch(TiesAsTheyCome, "test_ties_are_ordered_by_id", "not sorted"),
    Catch(RanksFromZero, "test_planned_answers_equal_the_oracles", "ranks", {"seed": 61}),
    Catch(NoPayload, "test_planned_answers_equal_the_oracles", "has the payload", {"seed": 61}),
    Catch(Rescored, "test_native_is_what_is_declared", "rescore=False", {"seed": 81}),
    Catch(DividesRanks, "test_native_is_what_is_declared", "Rrf", {"seed": 81}),
    Catch(LimitIsDepth, "test_native_is_what_is_declared", "depths", {"seed": 81}),
    Catch(AllAreCandidates, "test_sparse_finds_only_shared_terms", ""),
    Catch(AllAreCandidates, "test_composed_answers_equal_the_oracles", "", {"seed": 61}),
    Catch(EmptySparseEmptiesAll, "test_a_leg_that_finds_nothing_leaves_the_others", "hits wanted"),
    Catch(TiesBeyondTheDepth, "test_a_leg_that_finds_nothing_leaves_the_others", "should not be"),
    Catch(Approximate, "test_ten_thousand_records_stream_through", "recall@10 is"),
    Catch(Approximate, "test_planned_answers_equal_the_oracles", "is missed", {"seed": 61}),
    Catch(DeclaresTooLittle, "test_native_is_what_is_declared", "no Unsupported", {"seed": 81}),
    Catch(DeclaresTooMuch, "test_native_is_what_is_declared", "not", {"seed": 81}),
    Catch(RoundsWeights, "test_sparse_scores_of_any_weight", ""),
]


def run(catch: Catch, connector: Connector) -> None:
    """Call one test of the suite as pytest would."""
    test = getattr(ConnectorConformance(), catch.test)
    given = {"connector": connector, "reopen": None, **catch.parameters}
    test(**{name: given[name] for name in signature(test).parameters})


def named(catch: Catch) -> str:
    return f"{catch.broken.__name__}-{catch.test.removeprefix('test_')}"


@pytest.mark.parametrize("catch", CATCHES, ids=named)
def test_a_broken_connector_is_caught(catch: Catch) -> None:
    """The suite fails a connector with this defect, and says what is wrong."""
    failures = (AssertionError, pytest.fail.Exception, ConnectorError, InputError)
    with pytest.raises(failures) as caught:
        run(catch, catch.broken(collection="broken"))
    assert catch.says in str(caught.value)


TESTS = {f"{catch.test}{catch.parameters}": catch for catch in CATCHES}


@pytest.mark.slow  # the conformance of the in-memory connector once more
@pytest.mark.parametrize("catch", TESTS.values(), ids=lambda catch: catch.test)
def test_a_sound_connector_is_not(catch: Catch) -> None:
    """The same test passes the in-memory connector, so that it was the defect that failed."""
    run(catch, MemoryConnector(collection="sound"))


def test_what_is_not_durable_is_caught() -> None:
    """A connector that keeps writes in a buffer until flush loses them in the suite."""
    disk: dict[str, Any] = {}

    class Buffers(MemoryConnector):
        """Writes reach the disk in flush."""

        def ensure(self, schema):
            super().ensure(schema)
            disk["stored"] = self._stored

        def flush(self):
            super().flush()
            disk["records"] = dict(self._records)

    def reopen() -> Connector:
        again = Buffers(collection="broken")
        again._stored, again._records = disk["stored"], disk.get("records", {})
        return again

    suite = ConnectorConformance()
    with pytest.raises(AssertionError):
        suite.test_what_was_acknowledged_survives(Buffers(collection="broken"), reopen)
