"""Hashes that stand for ids and values of any length, since Milvus limits its keys by bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b

CHARACTERS = 32


def digest(*texts: str) -> str:
    """128 bits of hash in hexadecimal.

    >>> digest("handbook#0")
    '1bf85d54ed6ca74312d31618aa68b9f8'
    """
    hashed = blake2b(digest_size=CHARACTERS // 2)
    for text in texts:
        hashed.update(text.encode(errors="surrogatepass") + b"\0")
    return hashed.hexdigest()


def one_of(field: str, keys: Iterable[str]) -> str:
    """An expression on keys; they are hexadecimal, so nothing in them needs quoting.

    >>> one_of("id", ["0a", "0b"])
    'id in ["0a", "0b"]'
    """
    return f"{field} in {json.dumps(list(keys))}"
