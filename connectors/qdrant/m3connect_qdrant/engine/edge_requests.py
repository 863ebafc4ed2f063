"""Qdrant's request models as the embedded engine's own classes.

Only what this connector asks for: filters on facts, nearest-neighbour, rank and formula queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

INDEXES = {
    models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
    models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
    models.PayloadSchemaType.DATETIME: edge.PayloadSchemaType.Datetime,
}


def config(
    vectors: Mapping[str, models.VectorParams], sparse: Mapping[str, models.SparseVectorParams]
) -> edge.EdgeConfig:
    """The configuration of a new shard."""
    return edge.EdgeConfig(
        vectors={name: _vector_params(params) for name, params in vectors.items()},
        sparse_vectors={name: edge.EdgeSparseVectorParams() for name in sparse},
    )


def query(request: models.QueryRequest) -> edge.QueryRequest:
    """A query."""
    return edge.QueryRequest(with_payload=payload(request.with_payload), **_stage(request))


def payload(selector: Any) -> edge.PayloadSelector:
    """What of the payload to return."""
    match selector:
        case models.PayloadSelectorInclude(include=keys):
            return edge.PayloadSelector.Include(keys)
        case models.PayloadSelectorExclude(exclude=keys):
            return edge.PayloadSelector.Exclude(keys)
    raise TypeError(f"no payload selector of the embedded engine for {selector!r}")


def condition(given: models.Filter | None) -> edge.Filter:
    """A filter; none is one without conditions, which everything meets."""
    if given is None:
        return edge.Filter()
    return edge.Filter(
        must=_conditions(given.must),
        should=_conditions(given.should),
        must_not=_conditions(given.must_not),
    )


def _vector_params(params: models.VectorParams) -> edge.EdgeVectorParams:
    if params.multivector_config is None or params.datatype is None:
        return edge.EdgeVectorParams(size=params.size, distance=edge.Distance.Dot)
    return edge.EdgeVectorParams(
        size=params.size,
        distance=edge.Distance.Dot,
        datatype=getattr(edge.VectorStorageDatatype, params.datatype.value.capitalize()),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        # Without a graph (m = 0) the two other numbers mean nothing, but must be given.
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
    )


def _stage(given: Any) -> dict[str, Any]:
    """What a query and a prefetch have in common."""
    return {
        "limit": given.limit,
        "query": _query(given.query, given.using),
        "prefetches": [edge.Prefetch(**_stage(inner)) for inner in given.prefetch or []],
        "filter": condition(given.filter),
        "params": None if given.params is None else edge.SearchParams(exact=given.params.exact),
    }


def _query(given: Any, using: str | None) -> Any:
    match given:
        case models.NearestQuery(nearest=models.SparseVector(indices=indices, values=values)):
            return edge.Query.Nearest(edge.SparseVector(indices, values), using=using)
        case models.NearestQuery(nearest=list() as vector):
            return edge.Query.Nearest(vector, using=using)
        case models.RrfQuery(rrf=models.Rrf(k=int() as k)):
            return edge.Fusion.Rrf(k=k)
        case models.FormulaQuery(formula=formula, defaults=defaults):
            return edge.Formula(_expression(formula), defaults)
    raise TypeError(f"no query of the embedded engine for {given!r}")


def _expression(given: Any) -> edge.Expression:
    match given:
        case str():
            return edge.Expression.Variable(given)
        case float():
            return edge.Expression.Constant(given)
        case models.SumExpression(sum=terms):
            return edge.Expression.Sum([_expression(term) for term in terms])
        case models.MultExpression(mult=factors):
            return edge.Expression.Mult([_expression(factor) for factor in factors])
        case models.DivExpression(div=models.DivParams(left=left, right=right)):
            return edge.Expression.Div(_expression(left), _expression(right), None)
    raise TypeError(f"no expression of the embedded engine for {given!r}")


def _conditions(given: Any) -> list[Any] | None:
    return None if given is None else [_condition(each) for each in given]


def _condition(given: Any) -> Any:
    match given:
        case models.Filter():
            return condition(given)
        case models.HasIdCondition(has_id=ids):
            return edge.HasIdCondition(set(ids))
        case models.IsEmptyCondition(is_empty=models.PayloadField(key=key)):
            return edge.IsEmptyCondition(key)
        case models.NestedCondition(nested=models.Nested(key=key, filter=inner)):
            return edge.NestedCondition(key, condition(inner))
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            return edge.FieldCondition(key, match=edge.MatchAny(values))
        case models.FieldCondition(key=key, range=models.DatetimeRange() as dates):
            bounds = {name: moment.isoformat() for name, moment in dates if moment is not None}
            return edge.FieldCondition(key, range=edge.RangeDateTime(**bounds))
        case models.FieldCondition(key=key, range=models.Range() as numbers):
            return edge.FieldCondition(key, range=edge.RangeFloat(**dict(numbers)))
    raise TypeError(f"no condition of the embedded engine for {given!r}")
