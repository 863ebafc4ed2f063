"""Tenants: a collection that keeps records apart by a string in their payload, such as a customer's name.

Each record has exactly one there. Whoever asks such a collection by a query or a filter says whose records
are meant: ``tenant == "a"``, ``tenant in ["a", "b"]``, or all on purpose, ``tenant exists``. Engines look
at nothing else then. An id names one record, whosever it is, so what is asked by ids needs no tenant, and
an id that one tenant has is no other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from m3connect.errors import InputError
from m3connect.filters import (
    And,
    AnyFilter,
    Eq,
    EveryTenant,
    Exists,
    Filter,
    In,
    Or,
    as_filter,
    values_at,
)
from m3connect.types import RecordBatch

if TYPE_CHECKING:
    from m3connect.contract import CollectionSchema
    from m3connect.types import Payload


def with_tenants(schema: CollectionSchema, field: str | None) -> CollectionSchema:
    """The schema of a collection that is opened with this tenant field; None leaves it as it is."""
    return schema if field is None else replace(schema, tenant_field=field)


def scoped(
    where: AnyFilter | None, schema: CollectionSchema, *, by_ids: bool = False
) -> Filter | None:
    """The condition of a question, once it says whose records it is about; None if all are meant.

    Args:
        where: a filter, or none.
        schema: of the collection.
        by_ids: whether the records are named, too: then no tenant needs to be.

    Raises:
        InputError: the collection keeps tenants apart and the filter leaves open which is meant.

    >>> from m3connect.contract import CollectionSchema
    >>> tenants = CollectionSchema(8, sparse=False, multivector_width=None, tenant_field="tenant")
    >>> scoped('tenant == "a"', tenants)
    Eq(field='tenant', value='a')
    >>> scoped("year < 2020", tenants)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    m3connect.errors.InputError: this collection keeps tenants apart by 'tenant': say whose records...
    """
    condition = as_filter(where)
    parts = [] if condition is None else [*_parts(condition)]
    left = [part for part in parts if not isinstance(part, EveryTenant)]
    every_tenant = len(left) < len(parts)
    field = None if by_ids else schema.tenant_field
    if field is not None and not every_tenant and not _decides(condition, field):
        raise InputError(
            f"this collection keeps tenants apart by {field!r}: say whose records are meant in the "
            f'filter, as {field} == "a" (--filter), or all of them, {field} exists'
        )
    if not every_tenant:
        return condition
    return None if not left else left[0] if len(left) == 1 else And(tuple(left))


def _parts(condition: Filter) -> Iterator[Filter]:
    """What all must match."""
    if isinstance(condition, And):
        for part in condition.parts:
            yield from _parts(part)
    else:
        yield condition


def _decides(condition: Filter | None, field: str) -> bool:
    """Whether a filter says whose records are meant, be it all of them."""
    match condition:
        case Exists(name):
            return name == field
        case And(parts):
            return any(_decides(part, field) for part in parts)
        case Or(parts):
            return bool(parts) and all(_decides(part, field) for part in parts)
    return named(condition, field) is not None


def named(condition: Filter | None, field: str | None) -> tuple[str, ...] | None:
    """The tenants that a filter keeps to, each once; None where it does not keep to some.

    >>> named(And((Exists("year"), Or((Eq("t", "a"), In("t", ("b", "a")))))), "t")
    ('a', 'b')
    >>> named(Or((Eq("t", "a"), Exists("year"))), "t") is None
    True
    """
    match condition:
        case Eq(name, value) if name == field:
            return _texts([value])
        case In(name, values) if name == field:
            return _texts(values)
        case And(parts):
            return next((kept for p in parts if (kept := named(p, field)) is not None), None)
        case Or(parts) if parts:
            named_by = [named(part, field) for part in parts]
            texts = [one for one in named_by if one is not None]
            return _texts(t for one in texts for t in one) if len(texts) == len(named_by) else None
    return None


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if isinstance(value, str)))


def tenant_of(id_: str, payload: Payload, field: str) -> str:
    """Whose a record is.

    Raises:
        InputError: there is not exactly one string in the field, or an empty one; names the record.

    >>> tenant_of("r7", {"tenant": "a"}, "tenant")
    'a'
    """
    match [*values_at(payload, field)]:
        case [str() as tenant] if tenant:
            return tenant
        case found:
            raise InputError(
                f"record {id_!r}: it says whose it is by one string in {field!r} (the tenant field), "
                f"and has {', '.join(map(repr, found)) or 'none'}"
            )


def tenants_of(
    records: RecordBatch | Iterable[tuple[str, Payload]], schema: CollectionSchema
) -> dict[str, str]:
    """Whose each record is, by id; empty where the collection has no tenants.

    Args:
        records: or ids with payloads.
        schema: of the collection.

    Raises:
        InputError: see :func:`tenant_of`, or one id comes with two tenants.
    """
    found: dict[str, str] = {}
    if schema.tenant_field is not None:
        if isinstance(records, RecordBatch):
            records = zip(records.ids, records.payloads, strict=True)
        for id_, payload in records:
            tenant = tenant_of(id_, payload, schema.tenant_field)
            check_unmoved({id_: tenant}, {id_: found.setdefault(id_, tenant)})
    return found


def check_unmoved(wanted: Mapping[str, str], held: Mapping[str, str]) -> None:
    """Refuse records under ids that another tenant has.

    Args:
        wanted: whose each record is that is to be written, by id.
        held: whose those are that the collection has under these ids, in the same form.

    Raises:
        InputError: names the record.
    """
    for id_, tenant in held.items():
        if wanted.get(id_, tenant) != tenant:
            raise InputError(
                f"record {id_!r}: another tenant has this id, and an id belongs to one. Give each tenant's "
                "documents ids of their own (--id-prefix NAME/); if it is to change hands, delete it first"
            )
