"""How a query is answered: in one native request, or as legs that the client puts together.

Both ways give the oracle's result. The choice is made from the declared capabilities alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from m3connect.connecting.checks import check_query
from m3connect.contract import Capabilities, CollectionSchema, Connector, fusion_kind
from m3connect.errors import InputError
from m3connect.searching.composing import (
    compose,
    depth_of,
    rescored_legs,
    scan_and_score,
    searched_legs,
    with_leg_scores,
)
from m3connect.types import Hit, Query


@dataclass(frozen=True, slots=True)
class Plan:
    """How one query will be answered.

    Args:
        native: one request to the engine answers it.
        exhaustive: every record is read and scored on the client.
        reason: why it is not native; empty when it is.
        steps: what happens, in order, for people.
    """

    native: bool
    exhaustive: bool
    reason: str
    steps: tuple[str, ...]


class Hits(list[Hit]):
    """The hits of one query, best first, with the query and how it was answered.

    Args:
        hits: best first.
        query: that was asked.
        plan: how.
    """

    def __init__(self, hits: Iterable[Hit], query: Query, plan: Plan) -> None:
        super().__init__(hits)
        self.query = query
        self.plan = plan


def plan(query: Query, capabilities: Capabilities, *, native: bool = True) -> Plan:
    """Choose how to answer a query.

    Args:
        query: a checked query.
        capabilities: of the connector.
        native: False forbids native fusion and reranking, to compare the two ways.

    Raises:
        InputError: a leg is to bring more results than the backend returns.
    """
    missing_legs = [leg for leg in searched_legs(query) if leg not in capabilities.legs]
    if missing_legs:
        return _exhaustive(f"the engine cannot search {missing_legs}")
    _check_results(query, capabilities)
    reason = _why_composed(query, capabilities)
    if len(query.legs) > 1 and not reason and not native:
        reason = "native fusion was switched off"
    if not reason:
        names = " + ".join(query.legs)
        return Plan(True, False, "", (f"one request: {names}, {_fusion_text(query)}",))
    steps = [f"{leg} search, {depth_of(query, leg)} candidates" for leg in searched_legs(query)]
    rescored = rescored_legs(query)
    if legs := " and ".join(leg for leg in rescored if leg in capabilities.scores_within):
        steps.append(f"the candidates' {legs} scores asked of the engine by id")
    if legs := " and ".join(leg for leg in rescored if leg not in capabilities.scores_within):
        steps.append(f"the candidates' {legs} vectors fetched and scored on the client")
    return Plan(False, False, reason, (*steps, f"{_fusion_text(query)} on the client"))


def run(
    connector: Connector,
    queries: Sequence[Query],
    *,
    native: bool = True,
    schema: CollectionSchema | None = None,
    offset: int = 0,
) -> list[Hits]:
    """Answer queries, natively where possible and otherwise composed.

    Args:
        connector: an existing collection.
        queries: any mix of queries.
        native: False forbids native fusion and reranking, to compare the two ways.
        schema: of the collection, where the caller has just read it; saves a request.
        offset: how many of the best hits to leave out; ranks keep counting from the best.

    Returns:
        One list of hits a query, with its plan.

    Raises:
        InputError: a bad query.
        ConnectorError: whatever the connector raises.
    """
    known = schema or connector.describe().schema
    capabilities = connector.capabilities
    plans = [plan(query, capabilities, native=native) for query in queries]
    for query, chosen in zip(queries, plans, strict=True):
        if not chosen.native:  # the others the connector checks itself
            check_query(query, known)
    answers: list[Sequence[Hit]] = [[] for _ in queries]
    direct = [row for row, chosen in enumerate(plans) if chosen.native]
    if direct:
        results = connector.search([queries[row] for row in direct])
        for row, hits in zip(direct, results, strict=True):
            answers[row] = hits
    composed = [row for row, chosen in enumerate(plans) if not (chosen.native or chosen.exhaustive)]
    if composed:
        results = compose(connector, [queries[row] for row in composed])
        for row, hits in zip(composed, results, strict=True):
            answers[row] = hits
    for row, chosen in enumerate(plans):
        if chosen.exhaustive:
            answers[row] = scan_and_score(connector, queries[row])
    return [
        Hits(_scored(connector, query, hits[offset:]), query, chosen)
        for query, hits, chosen in zip(queries, answers, plans, strict=True)
    ]


def _scored(connector: Connector, query: Query, hits: Sequence[Hit]) -> list[Hit]:
    """Hits with the leg scores that the query asks for: all of them, or none."""
    if query.leg_scores:
        return with_leg_scores(connector, query, hits)
    return [hit if hit.scores is None else replace(hit, scores=None) for hit in hits]


# ------------------------------------------------------------------------------------- choosing


def _why_composed(query: Query, capabilities: Capabilities) -> str:
    if len(query.legs) == 1:
        return ""
    if query.multivector is not None and not capabilities.maxsim:
        return "the engine has no MaxSim over candidates"
    limits = capabilities.limits
    together = sum(depth_of(query, leg) for leg in searched_legs(query))
    if limits.candidates is not None and together > limits.candidates:
        return f"the engine fuses at most {limits.candidates} candidates, not {together}"
    if limits.results is not None and query.limit > limits.results:
        return f"the engine returns at most {limits.results} hits, not {query.limit}"
    if limits.results is not None and (query.rerank or 0) > limits.results:
        return f"the engine reranks at most {limits.results} candidates, not {query.rerank}"
    fused = len(query.legs) if query.rerank is None else len(searched_legs(query))
    if fused > 1 and query.fusion is not None:
        kind = fusion_kind(query.fusion)
        if kind not in capabilities.fusions:
            return f"the engine has no {kind} fusion that gives the defined result"
    return ""


def _exhaustive(reason: str) -> Plan:
    return Plan(False, True, reason, ("every record read and scored on the client",))


def _check_results(query: Query, capabilities: Capabilities) -> None:
    most = capabilities.limits.results
    for leg in searched_legs(query):
        depth = depth_of(query, leg)
        if most is not None and depth > most:
            # Candidates are as many as hits at least: with a limit beyond, that is what was asked.
            is_limit = len(query.legs) == 1 or query.limit > most
            name, size = ("limit", query.limit) if is_limit else (f"{leg}_depth", depth)
            by = capabilities.limits.results_by
            raise InputError(
                f"{name} is {size:,}, and a search of {capabilities.engine} returns at most {most:,}"
                + (f" ({by})" if by else "")
            )


def _fusion_text(query: Query) -> str:
    if query.rerank is not None:
        return f"best {query.rerank} ordered by MaxSim"
    if len(query.legs) == 1:
        return "no fusion"
    return f"fused by {query.fusion}"
