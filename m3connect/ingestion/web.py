"""The web as a file system: what of it may be read, and each page as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, ClassVar


@dataclass(frozen=True, slots=True)
class Web:
    """How pages are fetched; to listing it is a file system, in which every URL is a file.

    Args:
        private: whether addresses that are not public are asked, too: those of this machine, of its
            networks, of a cloud's metadata service. Without it such a page fails, whether it is named,
            listed, or what another page redirects to.
        pages: the most that one run reads from lists and sitemaps.
        page_bytes: the most of one page.
    """

    private: bool = False
    pages: int = 10_000
    page_bytes: int = 50_000_000

    protocol: ClassVar = ("http", "https")

    def open(self, url: str, mode: str = "rb") -> IO[bytes]:
        """What a URL answers, whole, in a file that can seek.

        Raises:
            ConfigError: the extra is missing.
            InputError: it answers an error, too much, or at an address that is not asked.
        """
        assert mode == "rb", "the web is read"
        from m3connect.ingestion.fetching import fetch

        return fetch(url, private=self.private, page_bytes=self.page_bytes)


PUBLIC = Web()
"""Public addresses alone, within the usual limits."""
