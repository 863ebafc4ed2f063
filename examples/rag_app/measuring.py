"""The table of citations, from questions whose documents are known.

They are a test collection without a corpus, as `m3connect eval --live` takes it: a query's ``answers`` are
strings of which an answer holds one, and a query of two lines is a question that leans on the one before.
"""

from typing import Any

import numpy as np

from m3connect import Dataset
from m3connect.evaluation.answers import contains
from m3connect.reporting.pages import Table

from .answering import Assistant

_COLUMNS = "questions|number|answered|a right citation|right of the citations|holds the answer"


async def measure(assistant: Assistant, asked: Dataset) -> str:
    """The table: what was answered and how right its citations are, by kind of question."""
    rows: dict[str, tuple[list[Any], ...]] = {}
    failed: list[str] = []
    for query in asked.queries:
        *before, question = query.text.splitlines()
        events = [event async for event in assistant.answer(question, before)]
        failed += [f"{question}: {e['text']}" for e in events if e["type"] == "notice"]
        passages = next(e["passages"] for e in events if e["type"] == "passages")
        written = "".join(e["text"] for e in events if e["type"] == "text")
        cited = [passages[number - 1]["document_id"] for number in events[-1]["cited"]]
        right = [asked.qrels[query.id].get(id_, 0) > 0 for id_ in cited]
        answerable = max(asked.qrels[query.id].values()) > 0
        kind = "follow-up" if before else "answerable" if answerable else "no answer"
        columns = rows.setdefault(kind, ([], [], [], []))
        columns[0].append(events[-1]["answered"])
        if answerable:
            columns[1].append(any(right))
            columns[2].extend([np.mean(right)] if right else [])
            columns[3].append(contains(written, query.answers))
    lines = [
        [kind, str(len(columns[0])), *(f"{np.mean(each):.2f}" if each else "" for each in columns)]
        for kind, columns in rows.items()
    ]
    table = Table.of(_COLUMNS.split("|"), lines).markdown()
    return "\n".join([table, *(["", "The chat model failed:", *failed] if failed else [])])
