"""The threshold and the table of citations, from questions whose documents are known.

A line of questions.jsonl has ``question``, ``files`` that answer it (none: the documents do not), ``answers``
(an answer holds one of them), ``after`` (the question before it, if it leans on one) and ``split``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from m3connect import F

from .answering import Assistant
from .conversation import by_rule

Question = dict[str, Any]


def read_questions(path: Path, split: str) -> list[Question]:
    """The questions of a split; those without one are of every split."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row for row in rows if row.get("split", split) == split]


def calibrate(assistant: Assistant, questions: Sequence[Question]) -> dict[str, float]:
    """The threshold that best tells questions with an answer from those without.

    Without an answer are those of no file, and each of the others once more with its files left out. What
    is best is the mean of the parts answered and refused rightly, halfway between two scores.
    """
    answered: list[float] = []
    refused: list[float] = []
    for each in questions:
        alone = by_rule(each["question"], _before(each))
        (answered if each["files"] else refused).append(assistant.find(alone).score)
        if each["files"]:
            refused.append(assistant.find(alone, ~F("file").isin(each["files"])).score)
    scores = np.unique([*answered, *refused])
    middles = (scores[1:] + scores[:-1]) / 2
    right = [(np.mean(np.array(answered) >= at), np.mean(np.array(refused) < at)) for at in middles]
    best = int(np.argmax([sum(parts) for parts in right]))
    return {
        "threshold": round(float(middles[best]), 4),
        "answered": round(float(right[best][0]), 3),
        "refused": round(float(right[best][1]), 3),
    }


async def measure(assistant: Assistant, questions: Sequence[Question]) -> str:
    """The table: what was answered and how right its citations are, by kind of question."""
    rows: dict[str, list[list[float]]] = {}
    failed: list[str] = []
    for each in questions:
        events = [e async for e in assistant.answer(each["question"], _before(each))]
        failed += [f"{each['question']}: {e['text']}" for e in events if e["type"] == "notice"]
        passages = next(e["passages"] for e in events if e["type"] == "passages")
        written = "".join(e["text"] for e in events if e["type"] == "text")
        cited = [passages[number - 1]["file"] for number in events[-1]["cited"]]
        right = [file in each["files"] for file in cited]
        holds = any(_plain(answer) in _plain(written) for answer in each["answers"])
        kind = "follow-up" if each.get("after") else "answerable" if each["files"] else "no answer"
        figures = [events[-1]["answered"], any(right), np.mean(right) if right else np.nan, holds]
        if not each["files"]:
            figures[1:] = [np.nan] * 3
        rows.setdefault(kind, []).append(figures)
    lines = [
        "| questions | number | answered | a right citation | right of the citations | holds the answer |",
        "|---|---|---|---|---|---|",
    ]
    for kind, figures in rows.items():
        columns = [column[~np.isnan(column)] for column in np.array(figures, float).T]
        cells = [f"{column.mean():.2f}" if len(column) else "" for column in columns]
        lines.append(f"| {kind} | {len(figures)} | {' | '.join(cells)} |")
    return "\n".join([*lines, *(["", "The chat model failed:", *failed] if failed else [])])


def _before(question: Question) -> list[str]:
    return [question["after"]] if question.get("after") else []


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
