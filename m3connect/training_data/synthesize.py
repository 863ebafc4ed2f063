"""Queries for a corpus that has none, written by a language model and checked by round trip.

The folder that comes out is a test collection: the corpus, one query a document, and the judgement
that the document answers it. Every answer of the model is on disk before the next is asked for.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from m3connect.contract import Encoder
from m3connect.datasets import beir, lines
from m3connect.datasets.write import write_qrels
from m3connect.errors import InputError
from m3connect.evaluation import run
from m3connect.progress import Progress, silent
from m3connect.searching.modes import preset_for
from m3connect.types import Document

PROMPTS = {
    # The M3 paper's for MLDR (appendix A.2), word for word.
    "mldr": (
        "You are a curious AI assistant, please generate one specific and valuable question based "
        "on the following text. The generated question should revolve around the core content of "
        'this text, and avoid using pronouns (e.g., "this"). Note that you should generate only '
        "one question, without including additional content:\n{text}"
    ),
    "search": (
        "Write one query that a person would type into a search engine to find the following text. "
        "Use the language of the text, do not copy whole phrases from it, and answer with the "
        "query alone:\n{text}"
    ),
}
ANSWERS = "answers.jsonl"
_SHORTEST = 200
"""Characters from which on a paragraph says enough to be asked about."""

Ask = Callable[[str, int], str]
"""Prompt and seed to answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will ask for.

    Args:
        requests: still to be made.
        done: answers that an earlier run left.
        tokens_in, tokens_out: of the requests to be made, estimated.
    """

    requests: int
    done: int
    tokens_in: int
    tokens_out: int

    def cost(self, price_in: float, price_out: float) -> float:
        """In the currency of the prices, which are for a million tokens.

        >>> Plan(10, 0, 2_000_000, 1_000_000).cost(0.5, 2.0)
        3.0
        """
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6


@dataclass(frozen=True, slots=True)
class Collection:
    """The test collection that came out.

    Args:
        folder: where it is.
        queries: how many it has.
        dropped: queries that were left out, by reason.
    """

    folder: Path
    queries: int
    dropped: Mapping[str, int]


def synthesize(
    corpus: Path,
    documents: Sequence[Document],
    folder: Path,
    encoder: Encoder,
    ask: Ask,
    *,
    cache: Path,
    template: str = PROMPTS["mldr"],
    model: str = "",
    found_within: int = 20,
    seed: int = 0,
    progress: Progress = silent,
) -> Collection:
    """Make a test collection of a corpus: ask, clean, and keep the queries that find their document.

    A run that was stopped is run again: what was answered is not asked for again, as long as text,
    prompt, seed and language model are the same. The collection is written at the end.

    Args:
        corpus: ``corpus.jsonl`` or ``corpus.jsonl.gz``.
        documents: those of it to ask about, as :func:`sample` draws them.
        folder: where the collection goes.
        encoder: searches for each query's document.
        ask: the language model, as :meth:`Endpoint.ask` is one.
        cache: folder that keeps embeddings between runs.
        template: of the prompt, with ``{text}`` in it.
        model: name of the language model; without one, answers of any are taken.
        found_within: keep a query if its document is among so many hits; 0 keeps all.
        seed: of the paragraphs asked about, and of the language model.
        progress: told what goes on.

    Raises:
        InputError: the folder is the corpus' own or holds a collection that was not made here, or the
            template has no place for the text.
        EndpointError: the language model does not answer.
    """
    if folder.resolve() == corpus.parent.resolve():
        raise InputError(f"{folder} holds the corpus itself: name another folder to write to")
    _require_own(folder)
    dropped: Counter[str] = Counter()
    answers = write(documents, folder, template, ask, model=model, seed=seed, progress=progress)
    queries = clean(answers, dropped)
    languages = {each.id: str(each.metadata.get("lang") or "") for each in documents}
    with TemporaryDirectory(prefix=".unfinished-", dir=folder) as scratch:
        unfinished = Path(scratch)
        shutil.copyfile(corpus, unfinished / corpus.name)
        save(queries, languages, unfinished)
        if found_within and queries:
            hits = search(unfinished, encoder, found_within, cache, progress=progress)
            queries = round_trip(queries, hits, dropped)
            save(queries, languages, unfinished)
        for path in sorted(unfinished.iterdir()):
            path.replace(folder / path.name)
    return Collection(folder, len(queries), dict(dropped))


def _require_own(folder: Path) -> None:
    """A collection without the answers that it was made of is somebody's work, and not replaced."""
    names = ("corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "queries.jsonl.gz")
    others = [name for name in (*names, "qrels.tsv", "qrels") if (folder / name).exists()]
    if others and not (folder / ANSWERS).exists():
        raise InputError(
            f"{folder} holds {others[0]} that no language model wrote: name another folder to write to"
        )


def sample(documents: Iterable[Document], size: int | None, seed: int) -> list[Document]:
    """At most so many documents with text, drawn at random, in their order."""
    worth = [document for document in documents if document.text.strip()]
    if size is None or size >= len(worth):
        return worth
    rows = np.random.default_rng(seed).choice(len(worth), size, replace=False)
    return [worth[row] for row in np.sort(rows)]


def prompt_for(document: Document, template: str, seed: int) -> str:
    """The template with one paragraph of the document, drawn at random among the long ones.

    Raises:
        InputError: the template has no place for the text.
    """
    if "{text}" not in template:
        raise InputError("a prompt needs {text} where the passage goes")
    paragraphs = [paragraph.strip() for paragraph in re.split(r"\n\s*\n", document.text)]
    long = [paragraph for paragraph in paragraphs if len(paragraph) >= _SHORTEST]
    text = document.text.strip()
    if len(long) > 1:
        rng = np.random.default_rng([seed, _number(document.id)])
        text = long[int(rng.integers(len(long)))]
    return template.replace("{text}", text)


def plan(
    documents: Sequence[Document],
    folder: Path,
    template: str,
    count: Callable[[str], int],
    *,
    answer_tokens: int = 30,
    model: str = "",
    seed: int = 0,
) -> Plan:
    """What :func:`write` would ask, without asking.

    Args:
        documents: to ask about.
        folder: where an earlier run may have left answers.
        template: of the prompt.
        count: tokens of a text.
        answer_tokens: a guess for one answer.
        model: name of the language model; without one, answers of any are taken.
        seed: of the paragraphs.
    """
    done = read_answers(folder, model)
    prompts = ((each.id, prompt_for(each, template, seed)) for each in documents)
    left = [prompt for id_, prompt in prompts if _key(id_, prompt, seed) not in done]
    tokens = sum(map(count, left))
    return Plan(len(left), len(documents) - len(left), tokens, answer_tokens * len(left))


def write(
    documents: Sequence[Document],
    folder: Path,
    template: str,
    ask: Ask,
    *,
    model: str = "",
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, str]:
    """Ask for a query for every document; what an earlier run asked likewise is not asked for again.

    Returns:
        Each document's answer, in the order of the documents.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = read_answers(folder, model)
    answers: dict[str, str] = {}
    with (folder / ANSWERS).open("a", encoding="utf-8") as file:
        for number, document in enumerate(documents, start=1):
            prompt = prompt_for(document, template, seed)
            key = _key(document.id, prompt, seed)
            if key not in known:
                known[key] = ask(prompt, seed)
                line = {"id": document.id, "query": known[key], "asked": key, "model": model}
                file.write(json.dumps(line) + "\n")
                file.flush()
            answers[document.id] = known[key]
            progress("asking for queries", number, len(documents))
    return answers


def _key(id_: str, prompt: str, seed: int) -> str:
    """What tells a question to the language model from all others, but the model."""
    return blake2b(json.dumps([id_, prompt, seed]).encode(), digest_size=12).hexdigest()


def read_answers(folder: Path, model: str = "") -> dict[str, str]:
    """What earlier runs left, by what was asked; a last line that a stop cut short is asked for again.

    Args:
        folder: where they left it.
        model: whose answers are meant; without one, any model's.
    """
    path = folder / ANSWERS
    if not path.exists():
        return {}
    whole = path.read_text(encoding="utf-8")
    kept = whole[: whole.rfind("\n") + 1]
    if kept != whole:
        path.write_text(kept, encoding="utf-8")
    answers = [lines.parse(line, str(path)) for line in kept.split("\n") if line]
    return {
        str(each["asked"]): str(each["query"])
        for each in answers
        if "asked" in each and model in {"", each.get("model")}
    }


def clean(answers: dict[str, str], dropped: Counter[str]) -> dict[str, str]:
    """Queries without empty and repeated ones, and without quotes, labels and introductions.

    >>> clean({"a": '"What is M3?"', "b": "Query: what is m3?", "c": " "}, Counter())
    {'a': 'What is M3?'}
    >>> clean({"a": "Sure! Here is the question:\\n\\nWhat is M3?"}, Counter())
    {'a': 'What is M3?'}
    """
    kept: dict[str, str] = {}
    seen: set[str] = set()
    for id_, answer in answers.items():
        written = [line.strip() for line in answer.splitlines() if line.strip()]
        first = next((line for line in written if not line.endswith((":", "\uff1a"))), "")
        query = re.sub(r"^(query|question)\s*:\s*", "", first, flags=re.IGNORECASE)
        query = query.strip().strip("\"'“”„«»").strip()
        plain = " ".join(query.casefold().split())
        if not plain:
            dropped["empty or cut off"] += 1
        elif plain in seen:
            dropped["same as another"] += 1
        else:
            seen.add(plain)
            kept[id_] = query
    return kept


def search(
    folder: Path, encoder: Encoder, depth: int, cache: Path, *, progress: Progress = silent
) -> list[list[str]]:
    """The documents that each query of a collection finds, with dense and sparse together.

    Args:
        folder: the collection.
        encoder: the model that searches.
        depth: hits a query.
        cache: where embeddings are kept.
        progress: called while encoding and searching.
    """
    dataset = beir.load(folder)
    offline = run.exact_search(
        dataset,
        encoder,
        ("dense", "sparse"),
        preset_for(encoder.info),
        cache,
        documents=depth,
        progress=progress,
    )
    return [list(hits) for hits in offline.run("hybrid")]


def round_trip(
    queries: dict[str, str], answers: Iterable[Sequence[str]], dropped: Counter[str]
) -> dict[str, str]:
    """The queries that find their own document.

    Args:
        queries: by document id.
        answers: documents found for each, in the same order.
        dropped: counts the others.
    """
    kept = {}
    for (id_, query), hits in zip(queries.items(), answers, strict=True):
        if id_ in hits:
            kept[id_] = query
        else:
            dropped["does not find its own document"] += 1
    return kept


def save(queries: dict[str, str], languages: dict[str, str], folder: Path) -> None:
    """Write ``queries.jsonl`` and ``qrels.tsv``."""
    lines.write(
        folder / "queries.jsonl",
        (
            {"_id": _query_id(id_), "text": query, "lang": languages.get(id_, "")}
            for id_, query in queries.items()
        ),
    )
    write_qrels(folder / "qrels.tsv", ((_query_id(id_), id_, 1) for id_ in queries))


def _query_id(document_id: str) -> str:
    return f"q-{document_id}"


def _number(id_: str) -> int:
    return zlib.crc32(id_.encode(errors="replace"))
