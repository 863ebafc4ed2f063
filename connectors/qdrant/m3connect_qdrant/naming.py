"""What Qdrant takes as a collection's name."""

from __future__ import annotations

import re

from m3connect.errors import ConfigError

_NAME = re.compile(r'[^<>:"/\\|?*\x00-\x1f]+')


def check_name(collection: str, longest: int) -> None:
    """Refuse what cannot be the name of a collection, or of its folder.

    Args:
        collection: the name.
        longest: bytes that it may have.

    Raises:
        ConfigError: says what a name is.

    >>> check_name("größe 2", 215)
    """
    fits = 0 < len(collection.encode(errors="replace")) <= longest
    if not (fits and _NAME.fullmatch(collection) and collection.strip(".")):
        raise ConfigError(
            f"{collection!r} is no collection name: 1 to {longest} bytes of UTF-8, none of "
            '< > : " / \\ | ? * and no control character'
        )
