"""Collections written: whole ones, and judgement by judgement."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from m3connect.datasets import beir
from m3connect.datasets.write import add_judgement, write_collection
from m3connect.errors import ConfigError, InputError

CORPUS = {f"d{n}": f"text {n}" for n in range(8)}


def test_judgements_are_added_to_a_collection_that_others_made(tmp_path):
    """Its queries keep their ids, a new one takes none of them, and what is gone stays judged."""
    folder = tmp_path / "judged"
    write_collection(
        folder,
        [{"_id": "old", "text": "gone"}, {"_id": "never", "text": "judged"}],
        [{"_id": "q2", "text": "first"}],
        [("q2", "old", 2)],
    )
    add_judgement(folder, "second", "d1", 0, CORPUS)
    add_judgement(folder, "first", "d2", 1, CORPUS)
    dataset = beir.load(folder)
    assert {query.id: query.text for query in dataset.queries} == {"q2": "first", "q3": "second"}
    assert dataset.qrels == {"q2": {"old": 2, "d2": 1}, "q3": {"d1": 0}}
    assert set(dataset.ids) == {"old", *CORPUS}


def test_a_folder_of_other_files_is_no_collection(tmp_path):
    """What it holds would be lost: nothing is written."""
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigError, match=r"other files .*'thesis\.txt'"):
        write_collection(tmp_path, [], [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_no_judgement_is_lost_between_threads(tmp_path):
    """Clicks at once are all kept."""
    folder = tmp_path / "judged"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda id_: add_judgement(folder, "q", id_, 1, CORPUS), CORPUS))
    assert beir.load(folder).qrels == {"q1": dict.fromkeys(CORPUS, 1)}


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\rb"])
def test_an_id_that_no_line_holds_is_refused(tmp_path, name):
    """What is there stays as it was."""
    folder = tmp_path / "judged"
    add_judgement(folder, "q", "d1", 1, CORPUS)
    with pytest.raises(InputError, match=r"qrels.tsv cannot hold"):
        add_judgement(folder, "q", name, 1, {name: "text"})
    assert beir.load(folder).qrels == {"q1": {"d1": 1}}
