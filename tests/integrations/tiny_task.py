"""A retrieval task of mteb that is made here instead of downloaded; importing it takes seconds."""

from typing import Any

import mteb
from datasets import Dataset as Rows
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

WORDS = [
    "river",
    "engine",
    "violin",
    "harvest",
    "planet",
    "castle",
    "lantern",
    "meadow",
    "copper",
    "winter",
]
DOCUMENTS = [
    {"id": f"d{n:02}", "title": WORDS[n % 10], "text": f"{WORDS[n % 7]} and {WORDS[n % 9]} item{n}"}
    for n in range(40)
]
QUERIES = [{"id": f"q{n:02}", "text": f"{WORDS[n % 7]} item{n}"} for n in range(12)]
QRELS = {f"q{n:02}": {f"d{n:02}": 1, f"d{n + 7:02}": 1} for n in range(12)}


class TinyRetrieval(AbsTaskRetrieval):
    """Forty documents and twelve queries, made here instead of downloaded."""

    metadata = TaskMetadata(
        name="TinyRetrieval",
        description="Made by a test.",
        reference=None,
        dataset={"path": "none", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2025-01-01", "2025-01-02"),
        domains=["Written"],
        task_subtypes=[],
        license="mit",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )
    top_ranked = None

    def load_data(self, num_proc=None, **kwargs):
        """Fill the data set with the rows above."""
        split: Any = {
            "corpus": Rows.from_list(DOCUMENTS),
            "queries": Rows.from_list(QUERIES),
            "relevant_docs": QRELS,
            "top_ranked": self.top_ranked,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def score(model, task=TinyRetrieval, metric="ndcg_at_10"):
    found = mteb.evaluate(model, [task()], cache=None, show_progress_bar=False, co2_tracker=False)
    return found.task_results[0].scores["test"][0][metric]
