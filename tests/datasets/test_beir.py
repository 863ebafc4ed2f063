"""Reading test collections: every layout, every way a file can be wrong."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from m3connect.datasets import beir
from m3connect.errors import InputError

CORPUS = [
    {"_id": "d1", "title": "Sky", "text": "is blue", "lang": "en"},
    {"_id": "d2", "text": "Gras ist grün", "lang": "de"},
    {"_id": "d3", "text": ""},
]
QUERIES: list[dict[str, Any]] = [
    {"_id": "q1", "text": "what colour is the sky", "lang": "en", "answers": ["blue"]},
    {"_id": "q2", "text": "Farbe von Gras", "lang": "de"},
    {"_id": "q3", "text": "never judged"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\n"


def write(folder: Path, corpus=CORPUS, queries=QUERIES, qrels=QRELS, name="qrels.tsv") -> Path:
    for stem, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{stem}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(qrels)
    return folder


def test_a_mark_of_the_encoding_is_no_part_of_the_first_line(tmp_path):
    """As Notepad saves it: a table without a header kept its first judgement from view."""
    folder = write(tmp_path, qrels="\ufeffq1\td1\t2\nq2\td2\t1\n")
    assert beir.load(folder).qrels == {"q1": {"d1": 2}, "q2": {"d2": 1}}


def test_reads_the_beir_layout(tmp_path):
    """Titles join texts, languages and answers are kept, unjudged queries are left out."""
    dataset = beir.load(write(tmp_path, name="qrels/test.tsv"))
    assert dataset.ids == ("d1", "d2", "d3")
    assert [document.text for document in dataset.documents()] == [
        "Sky is blue",
        CORPUS[1]["text"],
        "",
    ]
    assert dataset.queries == (
        beir.TextQuery("q1", "what colour is the sky", "en", ("blue",)),
        beir.TextQuery("q2", "Farbe von Gras", "de"),
    )
    assert dataset.qrels == {"q1": {"d1": 2}, "q2": {"d2": 1}}
    assert dataset.warnings == ("1 documents without text", "1 queries without judgements left out")


@pytest.mark.parametrize(
    ("given", "read"), [("a dog", ("a dog",)), (["a", 5], ("a", "5")), (None, ()), ([], ())]
)
def test_answers_are_strings_or_one(tmp_path, given, read):
    """A single answer is one, not its letters."""
    queries = [{**QUERIES[0], "answers": given}, *QUERIES[1:]]
    assert beir.load(write(tmp_path, queries=queries)).queries[0].answers == read


@pytest.mark.parametrize(
    "given", [True, {"a": 1}, [["a"]], [None], [""], "", " ", ["a", "\u200b\n"]]
)
def test_answers_of_another_kind_are_refused(tmp_path, given):
    """The line is named; nothing is turned into text that nobody wrote."""
    queries = [{**QUERIES[0], "answers": given}, *QUERIES[1:]]
    with pytest.raises(InputError, match=r"queries.jsonl:1: 'answers' must hold strings"):
        beir.load(write(tmp_path, queries=queries))


def test_reads_gzip_and_plain_ids(tmp_path):
    """Gzipped files and ``id`` instead of ``_id`` give the same collection."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "gz").mkdir()
    plain = beir.load(write(tmp_path / "plain"))
    renamed = [{("id" if k == "_id" else k): v for k, v in row.items()} for row in CORPUS]
    for path in write(tmp_path / "gz", corpus=renamed).iterdir():
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    zipped = beir.load(tmp_path / "gz")
    assert (zipped.ids, zipped.queries, zipped.qrels, zipped.content) == (
        plain.ids,
        plain.queries,
        plain.qrels,
        plain.content,
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qrels.tsv", "q1\td1\t2\nq2\td2\t1\n"),
        ("qrels.txt", "q1 0 d1 2\nq2 0 d2 1\n"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2.0\nq2\td2\t1\n"),
        (
            "qrels.jsonl",
            (
                '{"qid": "q1", "docid": "d1", "relevance": 2}\n'
                '{"query-id": "q2", "corpus-id": "d2", "score": 1}\n'
            ),
        ),
    ],
)
def test_reads_every_form_of_judgements(tmp_path, name, text):
    """Three columns with and without header, TREC's four, and JSON lines mean the same."""
    assert beir.load(write(tmp_path, name=name, qrels=text)).qrels == {
        "q1": {"d1": 2},
        "q2": {"d2": 1},
    }


def test_chooses_judgements_by_name(tmp_path):
    """``qrels="mono"`` reads qrels.mono.tsv, and the name of the dataset says so."""
    write(tmp_path)
    (tmp_path / "qrels.mono.tsv").write_text("q1\td1\t1\n")
    mono = beir.load(tmp_path, qrels="mono")
    assert mono.qrels == {"q1": {"d1": 1}}
    assert mono.name.endswith("/mono")
    with pytest.raises(InputError, match=r"no judgements named 'dev'.*qrels\.mono\.tsv"):
        beir.load(tmp_path, qrels="dev")


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(tmp_path, missing):
    """A file that is not there is an error that names it."""
    (write(tmp_path) / missing).unlink()
    with pytest.raises(InputError, match=re.escape(missing)):
        beir.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": [CORPUS[0]] * 2}, r"corpus\.jsonl:2: document id 'd1' occurs twice"),
        ({"corpus": [CORPUS[0] | {"lang": ["en"]}]}, r"corpus\.jsonl:1: 'lang' must hold a string"),
        ({"queries": [QUERIES[0] | {"lang": 5}]}, r"queries\.jsonl:1: 'lang' must hold a string"),
        ({"queries": [*QUERIES, QUERIES[0]]}, r"queries\.jsonl:4: query id 'q1' occurs twice"),
        ({"corpus": [{"_id": "d1"}]}, r"corpus\.jsonl:1: 'text' must hold a string"),
        ({"corpus": [{"text": "x"}]}, r"corpus\.jsonl:1: no id"),
        ({"corpus": [["d1", "x"]]}, r"corpus\.jsonl:1: expected an object"),
        ({"corpus": []}, "no documents"),
        ({"qrels": "q1\td1\n"}, r"qrels\.tsv:1: expected query, document, relevance"),
        ({"qrels": "q1\td1\tmuch\n"}, r"qrels\.tsv:1: relevance 'much' is not a number"),
        ({"qrels": "q1\td1\t0.5\n"}, "not a whole number"),
        ({"qrels": "q1\td1\t1e11\n"}, r"qrels\.tsv:1: relevance '1e11' is more than 1000000"),
        ({"corpus": [{"_id": "d\udc80", "text": "x"}]}, r"corpus\.jsonl:1: the id 'd\\udc80'"),
        ({"qrels": "q1\td1\t1\nq1\td1\t2\n"}, r"qrels\.tsv:2: 'd1' has relevance 2"),
        ({"qrels": "x\td1\t1\n"}, "no query has a judgement"),
    ],
)
def test_what_cannot_be_right_is_an_error(tmp_path, change, message):
    """Malformed lines and contradictions name file, line and cause."""
    with pytest.raises(InputError, match=message):
        beir.load(write(tmp_path, **change))


def test_a_line_that_is_not_json_is_named(tmp_path):
    """Broken JSON is an error with file and line."""
    write(tmp_path)
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "x"}\n{oops\n')
    with pytest.raises(InputError, match=r"corpus\.jsonl:2: not JSON"):
        beir.load(tmp_path)


def test_what_is_odd_is_counted(tmp_path):
    """Unknown ids, repeated and worthless judgements are warnings with counts."""
    qrels = "q1\td1\t1\nq1\td1\t1\nq1\tgone\t1\nghost\td1\t1\nghost\td2\t1\nq2\td2\t0\n"
    dataset = beir.load(write(tmp_path, corpus=CORPUS[:2], qrels=qrels))
    assert set(dataset.warnings) == {
        "1 queries without judgements left out",
        "2 judgements of unknown queries left out",
        "1 judgements of unknown documents (kept: they count as never found)",
        "1 judgements given twice",
        "1 queries without a relevant document (kept: they score 0)",
    }
    assert dataset.qrels["q1"] == {"d1": 1, "gone": 1}


def test_queries_that_find_themselves_are_counted(tmp_path):
    """As in ArguAna: a document that is asked for its like, whatever title stands before it."""
    corpus = [
        {"_id": "1", "title": "Sky", "text": "The sky is blue because of the air."},
        {"_id": "2", "text": "Why is grass green?"},
        {"_id": "3", "text": "A long text on the colours that grass has, which only ends in grass"},
    ]
    queries = [
        {"_id": "1", "text": "The sky is blue because of the air. "},
        {"_id": "2", "text": "Why is grass green?"},
        {"_id": "3", "text": "grass"},
    ]
    folder = write(tmp_path, corpus, queries, "1\t2\t1\n2\t3\t1\n3\t1\t1\n")
    (warning,) = beir.load(folder).warnings
    assert warning.startswith("2 queries that are documents of the corpus (kept: each finds itself")


def test_a_sample_is_reproducible_and_says_so(tmp_path):
    """The same seed draws the same queries; a sample as large as the whole is the whole."""
    queries = [{"_id": f"q{n}", "text": "x"} for n in range(50)]
    qrels = "".join(f"q{n}\td1\t1\n" for n in range(50))
    dataset = beir.load(write(tmp_path, queries=queries, qrels=qrels))
    sample = dataset.sample(10, seed=1)
    assert sample == dataset.sample(10, seed=1)
    assert sample.queries != dataset.sample(10, seed=2).queries
    assert len(sample.queries) == len(sample.qrels) == 10
    assert sample.warnings[-1] == "10 of 50 queries, drawn with seed 1"
    assert dataset.sample(50) is dataset
