"""The tools, through the protocol's own client in memory."""

import asyncio

import pytest

from m3connect.filters import parse
from m3connect.serving.service import Service


@pytest.fixture
def tools(encoder, collection):
    """A function that calls a tool of a server with the given options."""
    mcp = pytest.importorskip("mcp")  # a second, which only these tests spend
    from m3connect.serving.mcp import create_server

    services = []

    def call(name=None, arguments=None, *, scope=None, **options):
        service = Service(encoder, {"notes": lambda: collection}, **options)
        services.append(service)

        async def ask():
            async with mcp.Client(create_server(service, scope=scope)) as client:
                if name is None:
                    return {tool.name for tool in (await client.list_tools()).tools}
                return await client.call_tool(name, arguments or {})

        return asyncio.run(ask())

    yield call
    for service in services:
        service.encoder.close()


def test_reading_tools_are_there_and_writing_ones_only_when_asked_for(tools):
    """Nothing can be changed by default, nor within a scope."""
    reading = {"search", "explain", "fetch_document", "neighbours", "list_collections", "count"}
    assert tools() == reading
    assert tools(writable=True) == reading | {"store", "delete"}
    assert tools(writable=True, scope=parse('tenant == "a"')) == reading


def test_search_answers_with_hits(tools):
    """A tool's answer is the route's."""
    answer = tools("search", {"query": "rotated keys", "limit": 2})
    assert not answer.is_error
    assert answer.structured_content["hits"][0]["document_id"] == "keys"


def test_hits_are_grouped_and_reranked(tools):
    """As over HTTP; without a cross-encoder the agent is told."""
    documents = [{"id": "keys", "text": "Keys are rotated. " * 200}]
    tools("store", {"documents": documents}, writable=True)
    asked = {"query": "keys rotated", "limit": 3}
    hits = tools("search", asked | {"group_by_document": True}).structured_content["hits"]
    assert sorted(hit["document_id"] for hit in hits) == ["backups", "holidays", "keys"]

    def holidays(query, passages):
        return ["portal" in passage for passage in passages]

    hits = tools("search", asked | {"rerank": True}, reranker=holidays).structured_content["hits"]
    assert hits[0]["document_id"] == "holidays"
    assert "no cross-encoder" in tools("search", asked | {"rerank": True}).content[0].text


@pytest.mark.parametrize(
    ("tool", "arguments"), [("list_collections", {}), ("count", {}), ("search", {"query": "keys"})]
)
def test_within_a_scope_nothing_is_said_of_other_collections(tools, collection, tool, arguments):
    """Where the collection is gone, as over HTTP."""
    collection.beside("other").ensure(collection.describe().schema)
    collection.drop()
    assert "'other'" in tools(tool, arguments).content[0].text
    within = tools(tool, arguments, scope=parse('tenant == "a"')).content[0].text
    assert "there is no such collection" in within
    assert "'other'" not in within


def test_a_scope_holds_for_every_tool(tools):
    """No tool shows what the scope excludes."""
    scope = parse('tenant == "a"')
    hits = tools("search", {"query": "holidays portal", "mode": "dense"}, scope=scope)
    assert {hit["metadata"]["tenant"] for hit in hits.structured_content["hits"]} == {"a"}
    assert (
        tools("fetch_document", {"document_id": "holidays"}, scope=scope).structured_content[
            "result"
        ]
        == []
    )
    assert tools("count", {}, scope=scope).structured_content["result"] == 2
    assert tools("list_collections", scope=scope).structured_content["result"][0]["records"] == 2


def test_documents_can_be_stored_and_deleted(tools):
    """With writing on, a stored document is found and a deleted one is gone."""
    new = {"documents": [{"id": "zebra", "text": "A zebra in the garden."}]}
    assert tools("store", new, writable=True).structured_content["written"] == 1
    around = tools("neighbours", {"document_id": "zebra", "position": 0}).structured_content[
        "result"
    ]
    assert [passage["text"] for passage in around] == ["A zebra in the garden."]
    gone = tools("delete", {"document_ids": ["zebra"]}, writable=True)
    assert gone.structured_content == {"deleted": 1}
    assert tools("count").structured_content["result"] == 3


def test_a_bad_filter_is_an_error_that_says_where(tools):
    """The agent reads what is wrong."""
    answer = tools("search", {"query": "x", "filter": "year >"})
    assert answer.is_error
    assert "character" in answer.content[0].text


def test_a_bad_argument_is_told(tools):
    """The agent reads which one, and why."""
    for name, argument in (("search", "query"), ("fetch_document", "document_id")):
        answer = tools(name, {argument: ""})
        assert answer.is_error
        assert argument in answer.content[0].text
        assert "at least 1 character" in answer.content[0].text
    told = tools("delete", {"document_ids": []}, writable=True).content[0].text
    assert "at least 1 item" in told
