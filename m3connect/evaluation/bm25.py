"""The lexical baseline: BM25 (bm25s, Lucene's variant) over words or over the model's own tokens.

Parameters are Anserini's, k1 0.9 and b 0.4.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from m3connect.datasets.beir import TextQuery
from m3connect.progress import Progress, silent
from m3connect.types import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Analyser = Callable[[str, str], list[str]]
"""The terms of a text, given its language."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TERM = rf"(?V1)([{_UNSPACED}][{_UNSPACED}\p{{M}}ー]*)|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]+"
_STEMMERS = {
    "ar": "arabic",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "eo": "esperanto",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}


def words(text: str, language: str) -> list[str]:
    """Lower-case words, stemmed where Snowball knows the language; no stop words are removed.

    Scripts that are written without spaces, and Hangul, give overlapping pairs of characters, as
    Lucene's CJK analyser does.

    >>> words("The runners' 3 shoes", "en")
    ['the', 'runner', '3', 'shoe']
    >>> words("東京タワー Tower", "ja")
    ['東京', '京タ', 'タワ', 'ワー', 'tower']
    """
    import regex

    stem = _stemmer(language.replace("_", "-").split("-")[0].lower())
    terms: list[str] = []
    for match in regex.finditer(_TERM, unicodedata.normalize("NFKC", text).casefold()):
        run = match[0]
        if match[1]:
            terms += [run[start : start + 2] for start in range(max(1, len(run) - 1))]
        else:
            terms.append(stem(run))
    return terms


def tokens(tokenizer: Tokenizer) -> Analyser:
    """Terms are the tokens of a model, as in the paper's BM25 row; the language does not matter."""

    def analyse(text: str, language: str) -> list[str]:
        del language
        encoded = tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False)
        return [str(token) for token in encoded.ids]

    return analyse


class Bm25:
    """An index of a corpus in memory.

    Args:
        documents: the corpus; ``metadata["lang"]`` chooses the stemmer.
        total: how many documents there are.
        analyse: makes terms of texts.
        progress: told of every document.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        total: int,
        analyse: Analyser = words,
        *,
        progress: Progress = silent,
    ) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for DEBUG on import
        self.analyse = analyse
        self.ids: list[str] = []
        self.vocabulary: dict[str, int] = {}
        corpus: list[list[int]] = []
        for document in documents:
            terms = analyse(document.text, str(document.metadata.get("lang") or ""))
            corpus.append([self.vocabulary.setdefault(t, len(self.vocabulary)) for t in terms])
            self.ids.append(document.id)
            progress("indexing for BM25", len(self.ids), total)
        self.index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
        if self.vocabulary:  # without a word there is nothing to index, and no query knows one
            self.index.index((corpus, self.vocabulary), show_progress=False)

    def run(
        self, queries: Iterable[TextQuery], limit: int, *, progress: Progress = silent
    ) -> Iterator[dict[str, float]]:
        """The best ``limit`` documents of every query; only those that share a term."""
        depth = min(limit, len(self.ids))
        for done, query in enumerate(queries, start=1):
            terms = self.analyse(query.text, query.language)
            known = [self.vocabulary[term] for term in terms if term in self.vocabulary]
            yield self._best(known, depth) if known else {}
            progress("BM25 answers", done, done)

    def _best(self, terms: list[int], depth: int) -> dict[str, float]:
        rows, scores = self.index.retrieve([terms], k=depth, show_progress=False)
        pairs = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return {self.ids[row]: score for row, score in pairs if score > 0}


@cache
def _stemmer(language: str) -> Callable[[str], str]:
    if language not in _STEMMERS:
        return str
    import Stemmer

    stemmer: Any = Stemmer.Stemmer(_STEMMERS[language])
    return lambda word: str(stemmer.stemWord(word))
