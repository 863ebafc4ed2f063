"""Which Milvus answers, and what it can do."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Engine:
    """Which Milvus answers.

    Args:
        name: for people, such as ``milvus 2.6.4``.
        lite: whether it is Milvus Lite.
        version: empty when the server does not tell.
    """

    name: str
    lite: bool
    version: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Engine:
        """From what the server calls its version.

        >>> Engine.parse("milvus_lite-3.2.2")
        Engine(name='milvus-lite 3.2.2', lite=True, version=(3, 2, 2))
        >>> Engine.parse("v2.6.4-dev").version
        (2, 6, 4)
        >>> Engine.parse("").name
        'milvus of unknown version'
        """
        lite = text.startswith("milvus_lite")
        name = "milvus-lite" if lite else "milvus"
        match = re.search(r"\d+(\.\d+)+", text)
        if match is None:
            return cls(f"{name} of unknown version", lite, ())
        return cls(f"{name} {match[0]}", lite, tuple(map(int, match[0].split("."))))

    def before(self, *version: int) -> bool:
        """Whether it is a server known to be older."""
        return not self.lite and bool(self.version) and self.version < version

    @property
    def sparse_vectors(self) -> bool:
        """Whether it has sparse vectors, and more than one vector a record."""
        return not self.before(2, 4)

    @property
    def raw_weighted(self) -> bool:
        """Whether its weighted ranker can leave scores as they are (``norm_score``).

        Older engines ignore the parameter and squash the scores, so it is used only where it is
        known to be there: it was added in 2025 to 2.6 and late 2.5 versions.
        """
        return self.lite or self.version >= (2, 6)

    @property
    def struct_arrays(self) -> bool:
        """Whether it can search multi-vectors (arrays of structs with MAX_SIM)."""
        return not self.lite and self.version >= (2, 6, 4)
