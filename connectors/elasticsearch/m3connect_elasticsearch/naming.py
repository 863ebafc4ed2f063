"""What Elasticsearch takes as a collection's name."""

from __future__ import annotations

import re

from m3connect.errors import ConfigError

_NAME = re.compile(r"(?![-_+.])[^A-Z\\/*?\"<>|\s,#:]+")
_LONGEST = 255


def check_name(collection: str) -> None:
    """Refuse what cannot be the name of an index, or of an alias.

    Raises:
        ConfigError: says what a name is.

    >>> check_name("handbook_2")
    """
    if not _NAME.fullmatch(collection) or len(collection.encode()) > _LONGEST:
        raise ConfigError(
            f"collection {collection!r} cannot be an Elasticsearch index: at most {_LONGEST} "
            'bytes, no upper case, none of \\ / * ? " < > | , # : or space, and not starting with '
            "- _ + or a dot"
        )
