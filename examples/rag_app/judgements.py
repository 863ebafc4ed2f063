"""What users say of passages, kept as files that `m3connect eval` and `m3connect train` read."""

import hashlib
import json
from pathlib import Path

from m3connect import InputError
from m3connect.datasets.write import write_collection

from .library import Library


class Judgements:
    """``feedback.jsonl`` has every click; ``judgements/`` is the test collection that they make.

    Args:
        home: the folder of both.
        library: gives the passages.
    """

    def __init__(self, home: Path, library: Library) -> None:
        self._clicks = home / "feedback.jsonl"
        self.folder = home / "judgements"
        self._library = library

    def add(self, question: str, passage: str, *, relevant: bool) -> None:
        """Note whether a passage answers a question, and write the collection anew.

        Its corpus is every passage, and those judged earlier that are gone since; the last click counts.
        """
        texts = {id_: payload["text"] for id_, payload in self._library.passages()}
        if passage not in texts:
            raise InputError(f"there is no passage {passage!r}")
        click = {"question": question, "passage": passage, "relevant": relevant}
        with self._clicks.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**click, "text": texts[passage]}, ensure_ascii=False) + "\n")
        clicks = [json.loads(line) for line in self._clicks.read_text("utf-8").splitlines()]
        texts = {each["passage"]: each["text"] for each in clicks} | texts
        names = {each["question"]: _name(each["question"]) for each in clicks}
        judged = {(names[c["question"]], c["passage"]): int(c["relevant"]) for c in clicks}
        write_collection(
            self.folder,
            ({"_id": id_, "text": text} for id_, text in texts.items()),
            ({"_id": name, "text": text} for text, name in names.items()),
            ((*pair, relevance) for pair, relevance in judged.items()),
        )


def _name(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:12]
