"""Whose a document is: each belongs to one source, and no run replaces another source's unasked.

A source has a name, which the ledger keeps with each document. The name of what is read from files
is the absolute path, or the URL, that was given: of a folder with a slash at its end, of a file of
records without; a page (a file that is one document) belongs to its folder. Whatever comes from
Python or standard input belongs to :data:`UNNAMED` unless it is given a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from posixpath import commonprefix

from m3connect.errors import Refused

UNNAMED = "unnamed"
"""The source of documents that come without one: they replace each other by their ids."""

_NAMED = 3  # ids in a message


def may_replace(source: str, owner: str | None) -> bool:
    """Whether a run over ``source`` may replace a document of ``owner``.

    That is so for its own, for those of an older version that kept no owners, for those of what lies
    inside its folder, and for those of the folder that its file of records lies in. A folder inside
    of another is another source: the same id stands for another file in it.

    >>> may_replace("/docs/", "/docs/"), may_replace("/docs/", "/docs/old/a.jsonl")
    (True, True)
    >>> may_replace("/docs/a.jsonl", "/docs/"), may_replace("/docs/sub/", "/docs/")
    (True, False)
    """
    if owner is None or owner == source or _within(owner, source):
        return True
    return _within(source, owner) and not source.endswith("/")


def covers(source: str, owner: str | None) -> bool:
    """Whether a document of ``owner`` is one of ``source``'s: its own, or of what lies inside.

    >>> covers("/docs/", "/docs/sub/"), covers("/docs/a.jsonl", "/docs/"), covers("/docs/", None)
    (True, False, False)
    """
    return owner is not None and (owner == source or _within(owner, source))


def around(sources: Sequence[str]) -> str:
    """The source that all of these lie in, the only one if there is one.

    >>> around(["/data/a.parquet", "/data/old/b.parquet"])
    '/data/'
    """
    first, *others = dict.fromkeys(sources)
    return first if not others else commonprefix([first, *others]).rpartition("/")[0] + "/"


def _within(inner: str, outer: str) -> bool:
    return outer.endswith("/") and inner.startswith(outer)


def refused(source: str, others: Iterable[tuple[str, str]]) -> Refused:
    """The error that ends a run before it replaces documents of another source.

    Args:
        source: whose run it is.
        others: ids of documents, each with its owner.
    """
    listed = list(others)
    owner = listed[0][1]
    ids = ", ".join(repr(id_) for id_, _ in listed[:_NAMED])
    ids += f" and {len(listed) - _NAMED} more" * (len(listed) > _NAMED)
    count = "a document" if len(listed) == 1 else f"{len(listed)} documents"
    return Refused(
        f"{count} of {source!r} would replace what the collection holds of another source, "
        f"{owner!r}: {ids}. Nothing of them was written. To keep both: --id-prefix NAME/. If it is "
        f"the same source elsewhere: --source {owner!r}. To make them this source's: --take-over."
    )
