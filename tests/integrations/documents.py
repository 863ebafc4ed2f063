"""The documents that pipelines ingest, here and in tests/outside, and how they are cut."""

from typing import Any

OPTIONS: dict[str, Any] = {"chunk_tokens": 6, "context": ["title"]}


def documents(count: int) -> list[dict[str, Any]]:
    """Of one to five passages each, in three titles."""
    return [
        {
            "id": f"d{at}",
            "text": " ".join(f"w{at}.{n} x y." for n in range(at % 5 + 1)),
            "n": at,
            "title": f"t{at % 3}",
        }
        for at in range(count)
    ]
