"""What is sent, how failures are answered, and that nothing paid is sent uninvited."""

import base64
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from m3connect.errors import (
    AuthError,
    CollectionNotFound,
    ConnectorError,
    PermanentError,
    RequestTooLarge,
    SchemaMismatch,
    TransientError,
    Unsupported,
)
from m3connect.filters import F
from m3connect.searching import planner
from m3connect.testing import corpus
from m3connect.types import Rrf, SparseVectors
from m3connect_elasticsearch.mapping import Layout, key, pack_sparse

BULK = ("PUT", "/test/_bulk")
SEARCH = ("POST", "/test/_search")
MSEARCH = ("POST", "/test/_msearch")
BATCH = corpus.records(1, 8)
QUERY = corpus.query(1, "dense", "sparse", fusion=Rrf(k=60), limit=5)
NO_HITS = {"hits": {"hits": []}}
WRITTEN = {"status": 201}


def items(*results, action="index"):
    return {"items": [{action: {"_id": str(n), **result}} for n, result in enumerate(results)]}


def refused(type_):
    return {"error": {"type": type_, "reason": "why"}}


def failed(status, type_):
    return {"status": status, **refused(type_)}


def test_an_upsert_is_one_bulk_request(fake, to_fake):
    """Action and document alternate, under keys made of the ids; nothing else is asked for."""
    fake.says(*BULK, (200, items(*[WRITTEN] * 8)))
    to_fake().upsert(BATCH)
    (lines,) = fake.bodies(*BULK)
    assert [line["index"]["_id"] for line in lines[::2]] == [key(id_) for id_ in BATCH.ids]
    assert [line["id"] for line in lines[1::2]] == list(BATCH.ids)
    assert [path for _, path, _ in fake.asked] == ["/test/_mapping", "/", "/test/_bulk"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_server_is_asked_again(fake, to_fake, status):
    """The same bulk request goes out until it is taken."""
    fake.says(*BULK, *[(status, refused("busy"))] * 2, (200, items(*[WRITTEN] * 8)))
    to_fake().upsert(BATCH)
    first, *again = fake.bodies(*BULK)
    assert again == [first, first]


def test_an_overloaded_item_is_sent_again(fake, to_fake):
    """One item of a bulk answer that says 429 repeats the request: writing twice changes nothing."""
    busy = items(*[WRITTEN] * 7, failed(429, "es_rejected_execution_exception"))
    fake.says(*BULK, (200, busy), (200, items(*[WRITTEN] * 8)))
    to_fake().upsert(BATCH)
    assert len(fake.bodies(*BULK)) == 2


def test_patience_ends(fake, to_fake):
    """A server that stays busy is a TransientError after the policy's attempts."""
    fake.says(*BULK, (503, "<html>busy</html>"))
    with pytest.raises(TransientError, match="503"):
        to_fake().upsert(BATCH)
    assert len(fake.bodies(*BULK)) == 4


@pytest.mark.parametrize("status", [403, 429])
def test_a_full_disk_is_not_asked_again(fake, to_fake, status):
    """A blocked index refuses for good, though its status may say 429."""
    fake.says(*BULK, (200, items(failed(status, "cluster_block_exception"), *[WRITTEN] * 7)))
    with pytest.raises(PermanentError, match="free space"):
        to_fake().upsert(BATCH)
    assert len(fake.bodies(*BULK)) == 1


def test_a_bad_item_names_its_record(fake, to_fake):
    """The record that the server refuses is in the message, and is not sent again."""
    bad = failed(400, "document_parsing_exception")
    fake.says(*BULK, (200, items(*[WRITTEN] * 3, bad, *[WRITTEN] * 4)))
    with pytest.raises(PermanentError, match=f"record '{BATCH.ids[3]}'"):
        to_fake().upsert(BATCH)
    assert len(fake.bodies(*BULK)) == 1


def test_a_request_that_is_too_large_is_halved(fake, to_fake):
    """413 splits the batch until it fits."""
    fake.says(
        *BULK,
        (413, ""),
        (413, ""),
        (200, items(*[WRITTEN] * 2)),
        (200, items(*[WRITTEN] * 2)),
        (200, items(*[WRITTEN] * 4)),
    )
    to_fake().upsert(BATCH)
    sizes = [len(lines) // 2 for lines in fake.bodies(*BULK)]
    assert sizes == [8, 4, 2, 2, 4]


def test_a_record_that_is_too_large_is_named(fake, to_fake):
    """When halving comes to one record, it is a RequestTooLarge with its id."""
    fake.says(*BULK, (413, ""))
    with pytest.raises(RequestTooLarge, match=f"record '{BATCH.ids[0]}' alone"):
        to_fake().upsert(BATCH)


def test_dense_vectors_go_as_lists_to_older_servers(fake, to_fake):
    """Base64 is for servers from 9.3 on."""
    fake.says(*BULK, (200, items(*[WRITTEN] * 8)))
    fake.says("GET", "/", (200, {"version": {"number": "9.2.4"}}))
    to_fake().upsert(BATCH)
    (lines,) = fake.bodies(*BULK)
    assert lines[1]["dense"] == pytest.approx(BATCH.embeddings.dense[0].tolist())


def test_a_server_that_is_too_old_is_named(fake, to_fake):
    """Its version and the oldest that works are in the message."""
    fake.says("GET", "/", (200, {"version": {"number": "8.18.2"}}))
    with pytest.raises(Unsupported, match=r"8\.18\.2; 8\.19 is the oldest"):
        _ = to_fake().capabilities


# ------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((401, refused("security_exception")), AuthError),
        ((401, "<html>sign in</html>"), AuthError),
        ((403, refused("security_exception")), AuthError),
        ((404, refused("index_not_found_exception")), CollectionNotFound),
        ((404, "<html>no such page</html>"), PermanentError),
        ((200, "<html>welcome</html>"), PermanentError),
        ((200, ""), TransientError),
        ((200, {}, {"X-Elastic-Product": "Other"}), PermanentError),
        ((200, "{cut", {"Content-Type": "application/json"}), TransientError),
        ((400, refused("media_type_header_exception")), Unsupported),
    ],
)
def test_what_a_proxy_or_a_stranger_answers(fake, to_fake, answer, expected):
    """Sign-in pages, cut answers and other products are errors of ours, never data."""
    fake.says("GET", "/test/_mapping", answer)
    with pytest.raises(expected):
        to_fake().describe()


def test_an_index_of_another_project_is_left_alone(fake, to_fake):
    """An index that has no _meta of ours is neither written nor read."""
    fake.says("GET", "/test/_mapping", (200, {"test": {"mappings": {"dynamic": "strict"}}}))
    for verb in (
        lambda connector: connector.ensure(corpus.SCHEMA),
        lambda connector: connector.upsert(BATCH),
        lambda connector: connector.delete(["a"]),
    ):
        with pytest.raises(SchemaMismatch, match="another name"):
            verb(to_fake())
    assert {method for method, _, _ in fake.asked} == {"GET"}


def test_an_alias_of_several_indices_is_no_collection(fake, to_fake):
    """Writing to one of several indices would be a guess."""
    _, body = fake.answers["GET", "/test/_mapping"][0]
    fake.says("GET", "/test/_mapping", (200, {"one": body["test"], "two": body["test"]}))
    with pytest.raises(SchemaMismatch):
        to_fake().describe()


def test_a_failed_search_of_many_is_the_error_of_all(fake, to_fake):
    """One answer of an _msearch that failed is not taken for an empty one."""
    lost = {"status": 503, **refused("search_phase_execution_exception")}
    fake.says(*MSEARCH, (200, {"responses": [NO_HITS, lost]}), (200, {"responses": [NO_HITS] * 2}))
    queries = [replace(QUERY, sparse=None), replace(QUERY, dense=None)]
    assert to_fake().search(queries) == [[], []]
    assert len(fake.bodies(*MSEARCH)) == 2


def test_parts_of_an_answer_are_not_asked_for(fake, to_fake):
    """A search that misses a shard must fail, so every search forbids partial results."""
    fake.says(*MSEARCH, (200, {"responses": [NO_HITS]}))
    to_fake().search([replace(QUERY, sparse=None)])
    ((header, _),) = fake.bodies(*MSEARCH)
    assert header == {"allow_partial_search_results": False}


def test_batches_are_cut_by_searches_and_by_hits(fake, to_fake):
    """No request asks more than 64 searches or 10,000 hits, one more for each search than it wants."""
    dense = replace(QUERY, sparse=None)
    fake.says(*MSEARCH, *[(200, {"responses": [NO_HITS] * n}) for n in (64, 2, 2, 1, 1)])
    assert to_fake().search([dense] * 66) == [[]] * 66
    large = [replace(dense, limit=limit) for limit in (3999, 5999, 1, 10_000)]
    assert to_fake().search(large) == [[]] * 4
    assert [len(lines) // 2 for lines in fake.bodies(*MSEARCH)] == [64, 2, 2, 1, 1]


def test_a_lexical_search_that_was_too_narrow_is_asked_again(fake, to_fake):
    """Records that tie with the last one found may be better by id; the other search is not repeated."""
    ties = [stored(f"{row:02}", sparse=True) for row in range(40, 0, -1)]
    answers = [{"hits": {"hits": ties[:17]}}, NO_HITS]
    fake.says(
        *MSEARCH, (200, {"responses": answers}), (200, {"responses": [{"hits": {"hits": ties}}]})
    )
    sparse = replace(QUERY, dense=None, limit=1, payload=False)
    found, none = to_fake().search([sparse, replace(QUERY, sparse=None)])
    assert ([hit.id for hit in found], none) == (["01"], [])
    sizes = [[body["size"] for body in lines[1::2]] for lines in fake.bodies(*MSEARCH)]
    assert sizes == [[17, 6], [136]]


def stored(id_, *, sparse=False, tokens=None):
    """A hit as the server gives it, with what is asked for of it."""
    weights = SparseVectors(np.array([0, 1]), QUERY.sparse.indices[:1], np.ones(1, np.float32))
    fields = {"id": [id_], "payload": ["e30="], "n_tokens": [1], "truncated": [False]}
    if sparse:
        fields["exact.sparse"] = [pack_sparse(weights[0])]
    if tokens is None:
        return {"_score": 1.0, "fields": fields}
    text = base64.b64encode(tokens.astype("<f2").tobytes()).decode()
    fields["multivector_bytes"] = [len(text)]
    return {"fields": fields, "_source": {"exact": {"multivector": text}}}


def test_small_multivectors_come_at_once(fake, to_fake):
    """In parts that are searched side by side; of the others the sizes, and then by pages."""
    tokens = corpus.records(1, 1).embeddings.multivector[0]
    ids = [f"{row:03}" for row in range(70)]
    parts = [[stored(id_, tokens=tokens) for id_ in part] for part in (ids[:64], ids[64:69])]
    heavy = [stored(ids[69], tokens=tokens)]
    answers = [{"hits": {"hits": hits}} for hits in (*parts, heavy)]
    fake.says(*MSEARCH, (200, {"responses": answers}))
    fake.says(*SEARCH, (200, {"hits": {"hits": heavy}}))
    found = to_fake().fetch(ids, vectors=["multivector"])
    assert found.ids == ids
    assert np.array_equal(found.embeddings.multivector[69], tokens.astype(np.float16))
    ((*_, outline),), (page,) = fake.bodies(*MSEARCH), fake.bodies(*SEARCH)
    assert outline["_source"] is False
    assert page["query"] == {"ids": {"values": [key(ids[69])]}}


def test_deletions_of_a_failed_attempt_are_counted(fake, to_fake):
    """What went before the node was too busy is counted, though the request is repeated."""
    went, left = {"status": 200, "result": "deleted"}, {"status": 404, "result": "not_found"}
    busy = failed(503, "unavailable_shards_exception")
    fake.says(
        *BULK,
        (200, items(went, busy, action="delete")),
        (200, items(left, went, action="delete")),
    )
    assert to_fake().delete(["a", "b"]) == 2


# ---------------------------------------------------------------------------------- visibility


REFRESH = ("POST", "/test/_refresh")
COUNT = (200, {"hits": {"hits": [], "total": {"value": 8}}})


def test_reads_refresh_at_first_and_after_own_writes(fake, to_fake):
    """A refresh costs the server work, so it comes before the first read and follows a write."""
    fake.says(*BULK, (200, items(*[WRITTEN] * 8)))
    fake.says(*SEARCH, COUNT)
    connector = to_fake()
    connector.count()
    connector.count()
    assert len(fake.bodies(*REFRESH)) == 1
    connector.upsert(BATCH)
    connector.count()
    connector.fetch(["a"], vectors=False)
    assert len(fake.bodies(*REFRESH)) == 2
    connector.flush()
    assert len(fake.bodies(*REFRESH)) == 3


def test_whose_an_id_is_is_asked_of_what_others_just_wrote(fake, to_fake):
    """Before each write to a collection of tenants: a record that is not seen yet would be overwritten."""
    fake.holds(
        Layout(replace(corpus.SCHEMA, tenant_field="tenant"), "int8_hnsw", rank_vectors=False)
    )
    fake.says(*BULK, (200, items(*[WRITTEN] * 8)))
    fake.says(*SEARCH, COUNT)
    connector = to_fake()
    payloads = [{**payload, "tenant": "a"} for payload in BATCH.payloads]
    connector.count('tenant == "a"')
    assert len(fake.bodies(*REFRESH)) == 1
    connector.upsert(replace(BATCH, payloads=payloads))
    order = [(method, path) for method, path, _ in fake.asked if method != "GET"]
    assert order[-3:] == [REFRESH, SEARCH, BULK]


def test_a_failed_refresh_is_tried_again_by_the_next_read(fake, to_fake):
    """Writes do not stay unseen because one refresh failed."""
    fake.says(*SEARCH, COUNT)
    fake.says(*REFRESH, (400, refused("illegal_argument_exception")), (200, {}))
    connector = to_fake()
    with pytest.raises(PermanentError):
        connector.count()
    assert connector.count() == 8
    assert len(fake.bodies(*REFRESH)) == 2


def test_a_reader_without_the_privilege_to_refresh_may_read(fake, to_fake):
    """A key that may only read reads; flush, which is a refresh, tells that it may not."""
    fake.says(*SEARCH, COUNT)
    fake.says(*REFRESH, (403, refused("security_exception")))
    connector = to_fake()
    assert connector.count() == 8
    with pytest.raises(AuthError):
        connector.flush()


# ------------------------------------------------------------------------------------- licences

PAID_WORDS = ("rrf", "linear", "rank_vectors", "script", "retriever")


def everything_asked(fake):
    return str([(path, body) for _, path, body in fake.asked])


@pytest.mark.parametrize(
    ("type_", "status"), [("basic", "active"), ("platinum", "active"), ("enterprise", "expired")]
)
def test_nothing_paid_is_sent_without_its_licence(fake, to_fake, type_, status):
    """Even where server fusion is wanted, a lesser licence gets legs, and the client fuses."""
    fake.licensed(type_, status)
    fake.says(*MSEARCH, (200, {"responses": [NO_HITS] * 2}))
    connector = to_fake(server_fusion=True)
    assert connector.capabilities.fusions == frozenset()
    assert connector.capabilities.licence == (type_ if status == "active" else "basic")
    planner.run(connector, [QUERY])
    assert not any(word in everything_asked(fake) for word in PAID_WORDS)


def test_hybrid_is_one_msearch(fake, to_fake):
    """By default both legs travel in one request, and the licence is not even asked for."""
    fake.says(*MSEARCH, (200, {"responses": [NO_HITS] * 2}))
    connector = to_fake()
    planner.run(connector, [QUERY])
    (lines,) = fake.bodies(*MSEARCH)
    assert [next(iter(body["query"])) for body in lines[1::2]] == ["knn", "sparse_vector"]
    assert connector.capabilities.licence == "basic"
    assert ("GET", "/_license", None) not in fake.asked
    assert fake.bodies(*SEARCH) == []


def test_a_licensed_server_fuses_when_asked_to(fake, to_fake):
    """With server_fusion and an Enterprise licence, RRF is one retriever; other fusions are not."""
    fake.licensed("enterprise")
    hit = {"_score": 0.5, "fields": {"id": ["a"], "payload": ["e30="]}}
    fake.says(*MSEARCH, (200, {"responses": [{"hits": {"hits": [hit]}}]}))
    connector = to_fake(server_fusion=True)
    assert connector.capabilities.fusions == {"rrf"}
    ((found,),) = planner.run(connector, [QUERY])
    assert (found.id, found.score, found.rank) == ("a", 0.5, 1)
    ((_, body),) = fake.bodies(*MSEARCH)
    assert set(body["retriever"]) == {"rrf"}


def test_a_server_that_hides_its_licence_counts_as_basic(fake, to_fake):
    """Without the privilege to read the licence nothing paid is used."""
    fake.says("GET", "/_license", (403, refused("security_exception")))
    assert to_fake(server_fusion=True).capabilities.fusions == frozenset()


def test_rank_vectors_need_a_licence(fake, to_fake):
    """Asked for without one, the collection is not made, and the message says what happens."""
    with pytest.raises(Unsupported, match="Enterprise licence"):
        to_fake(rank_vectors=True).ensure(corpus.SCHEMA)
    assert {method for method, _, _ in fake.asked} == {"GET"}


def test_rank_vectors_with_a_licence(fake, to_fake):
    """The mapping has them, records are written to them, and a multi-vector is searched by script."""
    fake.licensed("trial")
    layout = Layout(corpus.SCHEMA, "int8_hnsw", rank_vectors=True)
    missing = (404, refused("index_not_found_exception"))
    fake.holds(layout)
    present = fake.answers["GET", "/test/_mapping"][0]
    fake.says("GET", "/test/_mapping", missing, present)
    fake.says("PUT", "/test", (200, {"acknowledged": True}))
    fake.says(*BULK, (200, items(*[WRITTEN] * 8)))
    hit = {"_score": 0.5, "fields": {"id": ["a"], "payload": ["e30="]}}
    fake.says(*MSEARCH, (200, {"responses": [{"hits": {"hits": [hit]}}]}))
    connector = to_fake(rank_vectors=True)
    connector.ensure(corpus.SCHEMA)
    (made,) = fake.bodies("PUT", "/test")
    assert made["mappings"]["properties"]["tokens"] == {"type": "rank_vectors", "dims": 8}
    connector.upsert(BATCH)
    (lines,) = fake.bodies(*BULK)
    assert np.array(lines[1]["tokens"]).shape == BATCH.embeddings.multivector[0].shape
    assert "multivector" in connector.capabilities.legs
    ((found,),) = connector.search([corpus.query(1, "multivector", filter=F("lang") == "de")])
    assert found.score == -1.0
    ((_, body),) = fake.bodies(*MSEARCH)
    assert "maxSimDotProduct" in body["query"]["script_score"]["script"]["source"]


def test_a_collection_without_rank_vectors_does_not_gain_them(fake, to_fake):
    """The option on an existing collection is a SchemaMismatch, as is another dense index."""
    fake.licensed("enterprise")
    with pytest.raises(SchemaMismatch, match="rank_vectors"):
        to_fake(rank_vectors=True).ensure(corpus.SCHEMA)
    with pytest.raises(SchemaMismatch, match="dense_index: collection 'int8_hnsw', wanted 'flat'"):
        to_fake(dense_index="flat").ensure(corpus.SCHEMA)


def test_vectors_wider_than_a_field_are_refused(to_fake):
    """4,096 is the widest dense field."""
    with pytest.raises(Unsupported, match="4096"):
        to_fake().ensure(replace(corpus.SCHEMA, dense_width=4097))


@pytest.mark.parametrize("name", ["count", "flush", "describe"])
def test_a_closed_connector_sends_nothing(fake, to_fake, name):
    """After close the refusal comes from here."""
    connector = to_fake()
    connector.close()
    with pytest.raises(PermanentError, match="closed"):
        partial(getattr(connector, name))()
    assert fake.asked == []


ODD: list[object] = [
    {},
    [],
    None,
    5,
    "<html>gone</html>",
    {"version": 5},
    {"version": {"number": "new"}},
    {"test": None},
    {"test": {"mappings": {"_meta": {"m3connect": 5}}}},
    {"test": {"mappings": []}},
    {"hits": 5},
    {"hits": {"hits": "x", "total": {}}},
    {"hits": {"hits": [{}], "total": None}, "pit_id": 5},
    {"hits": {"hits": [{"fields": {"id": []}, "sort": []}]}, "pit_id": ""},
    {"hits": {"hits": [{"_score": "x", "sort": [], "fields": {"id": ["a"], "payload": ["?"]}}]}},
    {"responses": 5},
    {"responses": [5]},
    {"responses": []},
    {"responses": [{"hits": {"hits": [{"fields": None}]}}]},
    {"responses": [{"error": 5, "status": "x"}]},
    {"responses": [{"error": {"type": ["x"]}, "status": 400}]},
    {"items": {}},
    {"items": [5]},
    {"items": [{"index": {"error": 5, "status": 400}}]},
    {"items": [{"index": {"error": {}}}]},
    {"id": [], "_all": {"total": 5}},
]


MORE_REQUESTS = [
    ("GET /", lambda one: one.capabilities.engine),
    ("GET /test/_mapping", lambda one: one.describe()),
    ("GET /test/_mapping", lambda one: one.annotate({"a": 1})),
    ("POST /test/_refresh", lambda one: one.count()),
    ("POST /test/_search", lambda one: one.count(F("lang") == "de")),
    ("POST /test/_search", lambda one: one.fetch(["a"], vectors=False)),
    ("POST /test/_msearch", lambda one: one.fetch(["a"])),
    ("POST /test/_pit", lambda one: list(one.scan())),
    ("POST /_search", lambda one: list(one.scan(vectors=True))),
    ("POST /_search", lambda one: one.delete(F("lang") == "de")),
    ("PUT /test/_bulk", lambda one: one.upsert(corpus.records(0, 2))),
    ("PUT /test/_bulk", lambda one: one.delete(["a"])),
    ("GET /test/_stats/store", lambda one: one.size()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("route", "ask"),
    [
        ("POST /test/_msearch", lambda one: one.search([corpus.query(0, "dense")] * 2)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE_REQUESTS),
    ],
)  # fmt: skip
def test_no_body_of_a_server_is_a_fault_of_ours(fake, to_fake, route, ask):
    """What has another form than it should have is said to have one; some forms mean nothing there."""
    fake.says("POST", "/test/_pit", (200, {"id": "p"}))
    fake.says("DELETE", "/_pit", (200, {}))
    told, connector = 0, to_fake()
    for body in ODD:
        fake.says(*route.split(), (200, body))
        if route == "GET /":  # whose answer is kept
            connector = to_fake()
        try:
            ask(connector)
        except ConnectorError:
            told += 1
    assert told >= (3 if "_refresh" in route else 12)
