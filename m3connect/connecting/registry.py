"""Connectors by name, found through entry points in the group ``m3connect.connectors``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from m3connect.connecting.options import check_options
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.contract import Connector

GROUP = "m3connect.connectors"
_EXTRAS = ("qdrant", "milvus", "elasticsearch")
_SCHEMES = {"", "http", "https", "tcp", "unix"}  # of these, each driver says what it speaks


def available() -> dict[str, EntryPoint]:
    """The installed connectors' entry points by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def connect(target: str, *, collection: str, **options: Any) -> Connector:
    """Open one collection in one database; nothing is sent or created yet.

    Args:
        target: the connector's name: ``qdrant``, ``milvus``, ``elasticsearch`` or ``memory``.
        collection: the collection's name.
        **options: the connector's own, such as ``url`` or ``path``; see its documentation.

    Raises:
        ConfigError: no such connector is installed (prints the pip line), it has no such option, or
            takes another type of value for it.

    >>> with connect("memory", collection="notes") as notes:
    ...     notes.name
    'memory'
    """
    points = available()
    if target not in points:
        raise ConfigError(_missing(target, sorted(points)))
    factory = points[target].load()
    try:
        signature(factory).bind(collection=collection, **options)
    except TypeError as error:
        known = signature(factory).parameters
        unknown = ", ".join(name for name in options if name not in known)
        taken = ", ".join(name for name in known if name != "collection")
        wrong = f"there is no option {unknown}" if unknown else str(error)
        raise ConfigError(f"{target}: {wrong}; it takes {taken or 'none'}") from error
    check_options(target, factory, {"collection": collection, **options})
    if isinstance(url := options.get("url"), str):
        _check_url(target, url)
    connector: Connector = factory(collection=collection, **options)
    return connector


def _check_url(target: str, url: str) -> None:
    """Refuse what no driver can parse, before one of them fails in its own way.

    >>> _check_url("qdrant", "http://127.0.0.1:6333")
    """
    # The message holds no part of an address with blanks: masking finds no end of a password in it.
    shown = repr(url) if url.isprintable() and " " not in url else "the url"
    wrong = f"{target}: {shown} is no address of a server, such as http://host:port"
    try:
        # Without a scheme, "user:password@host" would be taken for one.
        parts = urlsplit(url if "://" in url else f"//{url}")
        complete = parts.scheme in _SCHEMES and parts.port != 0
        complete = complete and bool(parts.hostname or parts.scheme == "unix")
        complete = complete and ("://" in url or "@" not in url)
        complete = complete and (parts.hostname or "") not in {".", "..", "~"}  # a path
    except ValueError as error:
        raise ConfigError(wrong) from error
    if not complete or shown == "the url":
        raise ConfigError(wrong)


def text_options(target: str) -> frozenset[str]:
    """The options of a connector that take text as it stands, be it ``007`` or ``true``."""
    points = available()
    if target not in points:
        return frozenset()
    return taking_text(points[target].load())


def taking_text(function: Callable[..., Any]) -> frozenset[str]:
    """The parameters of a function, or of a class, that a text may be as it stands."""
    parameters = signature(function).parameters.values()
    return frozenset(p.name for p in parameters if "str" in str(p.annotation).split(" | "))


def _missing(target: str, installed: list[str]) -> str:
    have = f"installed: {', '.join(installed)}"
    if target in _EXTRAS:
        return (
            f'the connector {target!r} is not installed: pip install "m3connect[{target}]"; {have}'
        )
    return f"there is no connector {target!r}; {have}"
