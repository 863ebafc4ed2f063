"""One index on a server, as the few requests that a collection needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from elasticsearch import Elasticsearch

from m3connect.connecting import retry
from m3connect.connecting.collection import Place, Stored
from m3connect.connecting.portions import portions
from m3connect.errors import AuthError, CollectionNotFound, ConnectorError, Unsupported
from m3connect_elasticsearch.errors import NAME, from_answer, understood
from m3connect_elasticsearch.mapping import META, Body, Layout, mappings, meta
from m3connect_elasticsearch.server import Answer, Server

_KEEP_ALIVE = "10m"
_SEARCHES_PER_REQUEST, _HITS_PER_REQUEST = 64, 10_000


class Index:
    """An index by its name, or by an alias of it.

    Args:
        server: where it lives.
        name: how it is called.
    """

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.place = Place(NAME, name)
        # Another connection may have written, and closed, before this one was made.
        self._may_be_behind = True

    def ask(self, operation: str, request: Callable[[Elasticsearch], Any]) -> Answer:
        """As :meth:`Server.ask`; where the index is missing and not about to be made, says which are."""
        try:
            return self.server.ask(operation, request)
        except CollectionNotFound as error:
            if operation == "ensure":
                raise
            raise self.place.not_found(operation, partial(self.names, operation)) from error

    # ----------------------------------------------------------------------------------- mapping

    def create(self, layout: Layout, *, shards: int, replicas: int | None) -> None:
        """Make the index."""
        settings: Body = {
            "number_of_shards": shards,
            "translog.durability": "request",  # acknowledged means on disk
        }
        if replicas is None:
            settings["auto_expand_replicas"] = "0-1"
        else:
            settings["number_of_replicas"] = replicas
        made = mappings(layout)
        self.ask(
            "ensure",
            lambda client: client.indices.create(index=self.name, settings=settings, mappings=made),
        )

    def stored(self, operation: str) -> Stored:
        """What the index says of itself now.

        Raises:
            CollectionNotFound: there is no index.
            SchemaMismatch: this project did not make it, or another version of it did.
        """
        return self.lookup(operation)[1]

    def lookup(self, operation: str) -> tuple[str, Stored]:
        """The index's own name, whether or not it was called by an alias, and what it says of itself.

        Raises:
            as :meth:`stored`.
        """
        name, about = self._meta(operation)
        return name, Stored.from_json(about, self.place, operation)

    def _meta(self, operation: str) -> tuple[str, Body]:
        answer = self.ask(operation, lambda client: client.indices.get_mapping(index=self.name))
        with understood(operation):
            metas = {
                name: mapping["mappings"].get("_meta", {}).get(META)
                for name, mapping in answer.items()
            }
            if len(metas) != 1 or None in metas.values():
                raise self.place.foreign(operation)
            ((name, about),) = metas.items()
            return name, dict(about)

    def set_alias(self, collection: str, operation: str) -> None:
        """Make the name, which no index has, an alias of one index alone; in one step.

        Raises:
            SchemaMismatch: it is an alias of what this project did not make.
        """
        actions: list[Body] = [{"add": {"index": collection, "alias": self.name}}]
        try:
            held, _ = self._meta("ensure")  # which is told at once where there is nothing
        except CollectionNotFound:
            pass
        else:
            if held != collection:
                actions.append({"remove": {"index": held, "alias": self.name}})
        self.ask(operation, lambda client: client.indices.update_aliases(actions=actions))

    def names(self, operation: str) -> list[str]:
        """The indices that this project made."""
        only = f"*.mappings._meta.{META}.format"
        answer = self.server.ask(
            operation, lambda client: client.indices.get_mapping(index="*", filter_path=only)
        )
        return sorted(answer)

    def size(self, operation: str) -> int | None:
        """Bytes of all shards, replicas included; None for who may not know."""
        try:
            answer = self.ask(
                operation, lambda client: client.indices.stats(index=self.name, metric="store")
            )
        except (AuthError, Unsupported):
            return None
        with understood(operation):
            return int(answer["_all"]["total"]["store"]["size_in_bytes"])

    def drop(self, operation: str) -> None:
        """Remove the index, if it is one of ours.

        Raises:
            CollectionNotFound: there is no index.
            SchemaMismatch: this project did not make it.
        """
        self._meta(operation)
        self.ask(operation, lambda client: client.indices.delete(index=self.name))

    def describe_as(self, stored: Stored, operation: str) -> None:
        """Replace what the index says of itself."""
        made = meta(stored)
        self.ask(operation, lambda client: client.indices.put_mapping(index=self.name, meta=made))

    # ------------------------------------------------------------------------------------ writes

    def bulk(self, operation: str, lines: Sequence[Body]) -> Answer:
        """One bulk request, not retried.

        Args:
            operation: what it is for.
            lines: actions, each followed by its document if it has one.
        """
        try:
            return self.server.ask_once(
                operation, lambda client: client.bulk(index=self.name, operations=lines)
            )
        finally:
            self._may_be_behind = True

    def refresh(self, operation: str) -> None:
        """Make all that was acknowledged findable."""
        self._may_be_behind = False
        try:
            self.ask(operation, lambda client: client.indices.refresh(index=self.name))
        except ConnectorError:
            self._may_be_behind = True
            raise

    def distrust(self) -> None:
        """Let the next read refresh: what others have just written counts, too."""
        self._may_be_behind = True

    def _catch_up(self, operation: str) -> None:
        """Refresh before a read, the first time and whenever this object has written since."""
        if self._may_be_behind:
            try:
                self.refresh(operation)
            except AuthError:
                # Who may not refresh sees what the server shows by itself within a second or so.
                self._may_be_behind = False

    # ------------------------------------------------------------------------------------- reads

    def search(self, operation: str, body: Body, routing: str | None = None) -> Answer:
        """The answer to one search of all shards, or of those that some values are routed to."""
        self._catch_up(operation)
        return self.ask(operation, partial(_search, index=self.name, body=body, routing=routing))

    def search_many(
        self, operation: str, bodies: Sequence[Body], routings: Sequence[str | None] | None = None
    ) -> Iterator[Answer]:
        """The answers to many searches, each of all shards or routed, in few requests."""
        self._catch_up(operation)
        headers = [_header(each) for each in routings or [None] * len(bodies)]
        hits = (body["size"] for body in bodies)
        for part in portions(hits, count=_SEARCHES_PER_REQUEST, weight=_HITS_PER_REQUEST):
            ask = partial(self._msearch, operation, headers[part], bodies[part])
            yield from retry.call(ask, self.server.policy)

    def _msearch(
        self, operation: str, headers: Sequence[Body], bodies: Sequence[Body]
    ) -> list[Answer]:
        lines = [line for both in zip(headers, bodies, strict=True) for line in both]
        answer = self.server.ask_once(
            operation, lambda client: client.msearch(index=self.name, searches=lines)
        )
        with understood(operation):
            for response in answer["responses"]:
                if "error" in response:
                    raise from_answer(response["status"], response, operation)
            if len(answer["responses"]) != len(bodies):
                raise ValueError(f"{len(answer['responses'])} answers to {len(bodies)} searches")
            return list(answer["responses"])

    def pages(
        self, operation: str, body: Body, size: int, routing: str | None = None
    ) -> Iterator[list[Body]]:
        """Every hit of a search once, in pages, of the index as it is now."""
        self._catch_up(operation)
        opened = self.ask(
            operation,
            lambda client: client.open_point_in_time(
                index=self.name, keep_alive=_KEEP_ALIVE, routing=routing
            ),
        )
        with understood(operation):
            pit = opened["id"]
        page = body | {"sort": ["_shard_doc"], "size": size, "track_total_hits": False}
        try:
            hits = None
            while hits is None or len(hits) == size:
                page |= {"pit": {"id": pit, "keep_alive": _KEEP_ALIVE}}
                answer = self.ask(operation, partial(_search, body=page))
                with understood(operation):
                    pit, hits = answer["pit_id"], answer["hits"]["hits"]
                    last = hits[-1]["sort"] if hits else None
                if hits:
                    yield hits
                    page["search_after"] = last
        finally:
            # It ends by itself: that it could not be ended now is no failure of the scan.
            with contextlib.suppress(ConnectorError):
                self.server.ask_once(operation, lambda client: client.close_point_in_time(id=pit))


def _search(
    client: Elasticsearch, body: Body, index: str | None = None, routing: str | None = None
) -> Any:
    """A search of all shards that are meant: a part of an answer is no answer."""
    return client.search(
        index=index, body=body, routing=routing, allow_partial_search_results=False
    )


def _header(routing: str | None) -> Body:
    """The line before a search among many, which says as much."""
    header: Body = {"allow_partial_search_results": False}
    return header if routing is None else header | {"routing": routing}
