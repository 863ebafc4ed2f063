"""Reading examples: every layout, nothing held in memory, bad lines named."""

import gzip
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from m3connect.errors import InputError
from m3connect.training.examples import Example, open_source
from m3connect.training.sampling import draw, generator, segments_shuffled

RECORDS: list[dict[str, Any]] = [
    {"query": "one", "pos": ["a", "b"], "neg": ["x", "a", "y"], "neg_scores": [0.1, 0.2, 0.3]},
    {"query": "two", "pos": ["c"], "prompt": "Find: ", "lang": "en"},
]


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def write_jsonl(folder):
    (folder / "pairs.jsonl").write_text(lines(RECORDS) + "\n")
    return folder / "pairs.jsonl"


def write_gzip(folder):
    with gzip.open(folder / "pairs.jsonl.gz", "wt") as target:
        target.write(lines(RECORDS))
    return folder / "pairs.jsonl.gz"


def write_parquet(folder):
    keys = {key for record in RECORDS for key in record}
    columns = {key: [record.get(key) for record in RECORDS] for key in sorted(keys)}
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    return folder / "pairs.parquet"


@pytest.mark.parametrize("write", [write_jsonl, write_gzip, write_parquet])
def test_a_file_gives_its_examples_in_any_order(tmp_path, write):
    """JSON lines, gzipped ones and Parquet hold the same examples; a positive is no negative."""
    source = open_source(write(tmp_path))
    assert source.name == "pairs"
    assert len(source) == 2
    assert source[1] == Example("Find: two", ("c",), language="en")
    assert source[0] == Example("one", ("a", "b"), ("x", "y"), None, (0.1, 0.3))
    assert source[1] == Example("Find: two", ("c",), language="en")


def test_a_missing_prompt_is_nothing(tmp_path):
    """Neither an absent prompt nor a null one puts a word before the query."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        lines([{"query": "q", "pos": ["p"]}, {"query": "q", "pos": ["p"], "prompt": None}])
    )
    source = open_source(path)
    assert [source[0].query, source[1].query] == ["q", "q"]


def write_folder(folder, qrels="qrels.tsv"):
    corpus = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "text": "two"}]
    (folder / "corpus.jsonl").write_text(lines(corpus))
    queries = [{"_id": f"q{number}", "text": f"text {number}", "lang": "de"} for number in range(3)]
    (folder / "queries.jsonl").write_text(lines(queries))
    (folder / qrels).parent.mkdir(exist_ok=True)
    rows = "query-id\tcorpus-id\tscore\nq0\td2\t1\nq2\td1\t1\nq2\td2\t2\nq1\td1\t0\n"
    (folder / qrels).write_text(rows)


@pytest.mark.parametrize("qrels", ["qrels.tsv", "qrels/train.tsv"])
def test_a_folder_gives_one_example_a_query_with_a_relevant_document(tmp_path, qrels):
    """Judgements above 0 are positives; a query without any makes no example."""
    write_folder(tmp_path, qrels)
    source = open_source(tmp_path)
    assert [source[row] for row in range(len(source))] == [
        Example("text 0", ("two",), language="de"),
        Example("text 2", ("T one", "two"), language="de"),
    ]


def test_fields_of_ones_own_are_taken(tmp_path):
    """Where a line came from, how it was made: what training does not read does not disturb it."""
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "q", "pos": ["p"], "source": "wiki", "score_of_miner": 0.4}\n')
    assert open_source(path)[0] == Example("q", ("p",))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "pairs.jsonl:2: not JSON"),
        ("[1]", "pairs.jsonl:2: expected an object"),
        ('{"query": "q"}', "pairs.jsonl:2: 'pos' holds no text"),
        ('{"query": 1, "pos": ["p"]}', "pairs.jsonl:2: 'query' must hold a string"),
        ('{"query": "q", "pos": "p"}', "pairs.jsonl:2: 'pos' must hold a list"),
        ('{"query": "q", "pos": ["p"], "pos_scores": [1, 2]}', "pairs.jsonl:2: 'pos_scores' must"),
        ('{"query": "q", "pos": ["p"], "pos_scores": 0.5}', "pairs.jsonl:2: 'pos_scores' must"),
        ('{"query": "q", "pos": ["p"], "pos_scores": 0}', "pairs.jsonl:2: 'pos_scores' must"),
        ('{"query": "q", "pos": ["p"], "prompt": 7}', "pairs.jsonl:2: 'prompt' must hold a string"),
        (
            '{"query": "q", "pos": ["p"], "lang": ["en"]}',
            "pairs.jsonl:2: 'lang' must hold a string",
        ),
        ('{"query": "q", "positive": ["p"]}', "pairs.jsonl:2: 'pos' holds no text"),
        ('{"query": " ", "pos": ["p"]}', "pairs.jsonl:2: 'query' is blank"),
        ('{"query": "q", "pos": ["p", ""]}', "pairs.jsonl:2: 'pos' holds a blank text"),
        ('{"query": "q", "pos": ["p"], "neg": ["\\n"]}', "pairs.jsonl:2: 'neg' holds a blank text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    """What is wrong is said with file, line and field."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines(RECORDS[:1]) + line + "\n")
    source = open_source(path)
    with pytest.raises(InputError, match=message):
        source[1]


def test_missing_and_empty_data_are_errors(tmp_path):
    """A path that is not there and a file without examples are refused."""
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no examples"):
        open_source(tmp_path / "empty.jsonl")


def test_drawing_is_stateless():
    """The same place draws the same, in whatever order one asks; another epoch draws anew."""
    example = Example("q", tuple("abcdefgh"), tuple("stuvwxyz"))
    first = [draw(example, generator(0, 0, 0, row), negatives=4) for row in range(20)]
    again = [draw(example, generator(0, 0, 0, row), negatives=4) for row in reversed(range(20))]
    assert first == again[::-1]
    assert first != [draw(example, generator(0, 1, 0, row), negatives=4) for row in range(20)]
    assert all(len(set(drawn.passages[1:])) == 4 for drawn in first)


def test_too_few_negatives_are_drawn_again():
    """A group is filled up from what there is; with none at all the remedy is named."""
    example = Example("q", ("a",), ("x", "y"))
    passages = draw(example, generator(1), negatives=5).passages
    assert len(passages) == 6
    assert set(passages[1:]) == {"x", "y"}
    with pytest.raises(InputError, match="m3connect mine"):
        draw(Example("q", ("a",)), generator(1), negatives=1)


def test_a_teacher_follows_its_passages():
    """Each passage keeps its own score."""
    example = Example("q", ("a", "b"), ("x", "y", "z"), (1.0, 2.0), (0.1, 0.2, 0.3))
    scores = {"a": 1.0, "b": 2.0, "x": 0.1, "y": 0.2, "z": 0.3}
    for row in range(10):
        drawn = draw(example, generator(row), negatives=2, teacher=True)
        assert drawn.teacher == tuple(scores[text] for text in drawn.passages)
    with pytest.raises(InputError, match="m3connect score"):
        draw(Example("q", ("a",), ("x",)), generator(0), negatives=1, teacher=True)


def test_segments_change_places_and_nothing_is_lost():
    """A long text's thirds are permuted; a short text stays."""
    text = "".join(chr(ord("a") + at % 26) for at in range(200))
    shuffled = {segments_shuffled(text, generator(seed)) for seed in range(20)}
    thirds = {text[:67], text[67:134], text[134:]}
    assert all(set(found.split(" ")) == thirds for found in shuffled)
    assert len(shuffled) > 1
    assert segments_shuffled("short", generator(0)) == "short"
