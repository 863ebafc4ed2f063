"""Requests as the embedded engine's own classes.

Only what this connector asks for: filters on facts, nearest-neighbour, rank and formula queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qdrant_edge as edge

from m3connect_qdrant.filters import Json

INDEXES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "float": edge.PayloadSchemaType.Float,
    "datetime": edge.PayloadSchemaType.Datetime,
}


def config(vectors: Mapping[str, Json], sparse: Mapping[str, Json]) -> edge.EdgeConfig:
    """The configuration of a new shard."""
    return edge.EdgeConfig(
        vectors={name: _vector_params(params) for name, params in vectors.items()},
        sparse_vectors={name: edge.EdgeSparseVectorParams() for name in sparse},
    )


def query(request: Json) -> edge.QueryRequest:
    """A query."""
    return edge.QueryRequest(with_payload=payload(request["with_payload"]), **_stage(request))


def payload(selector: Any) -> edge.PayloadSelector:
    """What of the payload to return."""
    match selector:
        case {"include": keys}:
            return edge.PayloadSelector.Include(keys)
        case {"exclude": keys}:
            return edge.PayloadSelector.Exclude(keys)
    raise TypeError(f"no payload selector of the embedded engine for {selector!r}")


def condition(body: Json | None) -> edge.Filter:
    """A filter; none is one without conditions, which everything meets."""
    if body is None:
        return edge.Filter()
    return edge.Filter(
        must=_conditions(body.get("must")),
        should=_conditions(body.get("should")),
        must_not=_conditions(body.get("must_not")),
    )


def _vector_params(params: Json) -> edge.EdgeVectorParams:
    if "multivector_config" not in params:
        return edge.EdgeVectorParams(size=params["size"], distance=edge.Distance.Dot)
    return edge.EdgeVectorParams(
        size=params["size"],
        distance=edge.Distance.Dot,
        datatype=getattr(edge.VectorStorageDatatype, params["datatype"].capitalize()),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        # Without a graph (m = 0) the two other numbers mean nothing, but must be given.
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
    )


def _stage(body: Json) -> dict[str, Any]:
    """What a query and a prefetch have in common."""
    return {
        "limit": body["limit"],
        "query": _query(body["query"], body.get("using")),
        "prefetches": [edge.Prefetch(**_stage(inner)) for inner in body.get("prefetch", [])],
        # One without conditions would mean the same, and double the time of a search for terms.
        "filter": condition(body["filter"]) if "filter" in body else None,
        "params": edge.SearchParams(**body["params"]) if "params" in body else None,
    }


def _query(body: Any, using: str | None) -> Any:
    match body:
        case {"nearest": {"indices": indices, "values": values}}:
            return edge.Query.Nearest(edge.SparseVector(indices, values), using=using)
        case {"nearest": list() as vector}:
            return edge.Query.Nearest(vector, using=using)
        case {"rrf": {"k": int() as k}}:
            return edge.Fusion.Rrf(k=k)
        case {"formula": formula, "defaults": defaults}:
            return edge.Formula(_expression(formula), defaults)
    raise TypeError(f"no query of the embedded engine for {body!r}")


def _expression(body: Any) -> edge.Expression:
    match body:
        case str():
            return edge.Expression.Variable(body)
        case int() | float():
            return edge.Expression.Constant(body)
        case {"sum": terms}:
            return edge.Expression.Sum([_expression(term) for term in terms])
        case {"mult": factors}:
            return edge.Expression.Mult([_expression(factor) for factor in factors])
        case {"div": {"left": left, "right": right}}:
            return edge.Expression.Div(_expression(left), _expression(right), None)
    raise TypeError(f"no expression of the embedded engine for {body!r}")


def _conditions(bodies: Any) -> list[Any] | None:
    return None if bodies is None else [_condition(each) for each in bodies]


def _condition(body: Any) -> Any:
    match body:
        case {"must": _} | {"should": _} | {"must_not": _}:
            return condition(body)
        case {"has_id": ids}:
            return edge.HasIdCondition(set(ids))
        case {"is_empty": {"key": key}}:
            return edge.IsEmptyCondition(key)
        case {"nested": {"key": key, "filter": inner}}:
            return edge.NestedCondition(key, condition(inner))
        case {"key": key, "match": {"any": values}}:
            return edge.FieldCondition(key, match=edge.MatchAny(values))
        case {"key": key, "range": bounds}:
            dates = any(isinstance(bound, str) for bound in bounds.values())
            kind = edge.RangeDateTime if dates else edge.RangeFloat
            return edge.FieldCondition(key, range=kind(**bounds))
    raise TypeError(f"no condition of the embedded engine for {body!r}")
