"""Who may call, and what they may see.

A service on the loopback address needs no key. On any other address it needs one. A key can be
bound to a filter (its scope): every search of that key obeys it, and a request can only narrow it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from m3connect.errors import CollectionGone, CollectionNotFound, ConfigError, M3ConnectError
from m3connect.filters import And, Filter, parse


@dataclass(frozen=True, slots=True)
class Access:
    """The keys of a service.

    Args:
        scopes: what each key may see; None for everything. No keys: no key is asked for.
    """

    scopes: Mapping[str, Filter | None] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, keys: Mapping[str, str | None], scope: str | None = None) -> Access:
        """From keys and the text forms of their filters.

        Args:
            keys: each with its own filter, or None.
            scope: a filter that holds for all of them besides.

        Raises:
            ConfigError: a key is shorter than 16 characters or holds other than visible ASCII.
            InputError: a filter does not parse; a blank one is none that would bind a key.
        """
        for key in keys:
            if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
                raise ConfigError("a key has at least 16 characters, visible ASCII without blanks")
        of_all = None if scope is None else parse(scope)
        return cls(
            {
                key: narrowed(of_all, None if own is None else parse(own))
                for key, own in keys.items()
            }
        )

    def scope(self, authorization: str | None) -> tuple[bool, Filter | None]:
        """Whether a request with this ``Authorization`` header may pass, and its filter."""
        if not self.scopes:
            return True, None
        kind, _, key = (authorization or "").partition(" ")
        given = (key if kind.lower() == "bearer" else "").strip().encode(errors="replace")
        passed, scope = False, None
        for known, bound in self.scopes.items():  # every key is compared: time tells nothing
            if hmac.compare_digest(known.encode(), given):
                passed, scope = True, bound
        return passed, scope


def narrowed(scope: Filter | None, asked: Filter | None) -> Filter | None:
    """The scope and the request's own filter, both.

    >>> narrowed(parse('tenant == "a"'), parse('tenant == "b"'))
    And(parts=(Eq(field='tenant', value='a'), Eq(field='tenant', value='b')))
    """
    if scope is None or asked is None:
        return scope if asked is None else asked
    return And((scope, asked))


def told(error: M3ConnectError, scope: Filter | None) -> str:
    """What a caller reads of an error: who is bound to a part, not which other collections there are."""
    if scope is not None and isinstance(error, CollectionNotFound | CollectionGone):
        return "there is no such collection"
    return str(error)


def require_keys(host: str, access: Access) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises:
        ConfigError: says how to set one.
    """
    if not access.scopes and not is_loopback(host):
        raise ConfigError(
            f"a service on {host} can be reached by others and needs a key: set "
            "M3CONNECT_SERVE_KEY, or give --key-file FILE; without one listen on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
