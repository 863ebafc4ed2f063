"""``m3connect encode``: texts in, one Parquet file of embeddings out."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from m3connect import cli
from m3connect.contract import Kind
from m3connect.inference import M3Encoder
from m3connect.ingestion import encode_to_parquet
from m3connect.stores.parquet import ParquetConnector
from m3connect.types import Document, Embeddings
from m3connect.types.records import stored_text

ROWS = [{"id": f"doc-{number}", "text": "river " * number} for number in range(40)]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, tiny_m3):
    """Run ``m3connect encode`` on the tiny model; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["encode", "--output", "out.parquet", "--model", str(tiny_m3), *arguments])
        return exit_.value.code, *capsys.readouterr()

    return call


def write_jsonl(path, rows):
    """One object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_file_holds_the_embeddings_in_order(run, tmp_path, tiny_m3):
    """Columns and types are the documented ones; values are the encoder's; ids keep their order."""
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    code, out, _ = run("in.jsonl", "--json")
    summary = json.loads(out)
    assert code == 0
    assert (summary["read"], summary["encoded"], summary["failed"]) == (40, 40, 0)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.remove_metadata() == pa.schema(
        {
            "id": pa.string(),
            "text": pa.string(),
            "payload": pa.string(),
            "dense": pa.list_(pa.float32(), 32),
            "sparse_indices": pa.list_(pa.uint32()),
            "sparse_values": pa.list_(pa.float32()),
            "multivector": pa.list_(pa.list_(pa.float16(), 16)),
            "n_tokens": pa.int32(),
            "truncated": pa.bool_(),
        }
    )
    assert table["id"].to_pylist() == [row["id"] for row in ROWS]
    encoder = M3Encoder.load(tiny_m3)
    expected = encoder.encode([row["text"] for row in ROWS])
    found = Embeddings.from_arrow(table)
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-6)
    np.testing.assert_array_equal(found.sparse.indices, expected.sparse.indices)
    np.testing.assert_array_equal(found.truncated, expected.truncated)
    assert summary["tokens"] == expected.n_tokens.sum()
    assert summary["truncated"] == expected.truncated.sum()


def test_a_title_is_read_before_the_text(run, tmp_path, tiny_m3):
    """As in ingestion and evaluation; a query has none. The rows say so: reembed reads them again."""
    write_jsonl(tmp_path / "in.jsonl", [{"id": "a", "text": "river", "title": "lake \n sea"}])
    encoder = M3Encoder.load(tiny_m3)
    read: dict[Kind, str] = {"passage": "lake sea river", "query": "river"}
    for kind, text in read.items():
        run("in.jsonl", "--as", kind)
        table = pq.read_table(tmp_path / "out.parquet")
        expected = encoder.encode([text], kind=kind)
        np.testing.assert_allclose(Embeddings.from_arrow(table).dense, expected.dense, atol=1e-6)
        (payload,) = map(json.loads, table["payload"].to_pylist())
        assert stored_text(payload | {"text": table["text"][0].as_py()}) == text
        assert payload["title"] == "lake \n sea"


def test_the_file_says_which_model_made_it(run, tmp_path, tiny_m3):
    """Its metadata is the fingerprint, with the representations that are in the file."""
    write_jsonl(tmp_path / "in.jsonl", ROWS[:3])
    run("in.jsonl", "--legs", "sparse,dense", "--max-length", "50")
    schema = pq.read_schema(tmp_path / "out.parquet")
    file = ParquetConnector(collection="c", path=str(tmp_path / "out.parquet"))
    stored = file.describe().schema.fingerprint
    expected = M3Encoder.load(tiny_m3, max_length=50).info.fingerprint
    assert stored.legs == ("dense", "sparse")
    assert (stored.weights, stored.tokenizer) == (expected.weights, expected.tokenizer)
    assert stored.max_length == 50
    assert "multivector" not in schema.names


def test_metadata_are_kept(run, tmp_path):
    """All other fields of a record lie beside its text, and the file is a collection to read."""
    rows = [{"id": "a", "text": "the river", "lang": "en", "n": {"x": [1, None]}}]
    write_jsonl(tmp_path / "in.jsonl", [*rows, {"id": "b", "text": "the sea"}])
    assert run("in.jsonl")[0] == 0
    with ParquetConnector(collection="c", path=str(tmp_path / "out.parquet")) as file:
        assert file.fetch(["b", "a"]).payloads == [
            {"text": "the sea"},
            {"text": "the river", "lang": "en", "n": {"x": [1, None]}},
        ]


def test_an_id_is_written_once(run, tmp_path):
    """The second record of the same id is named, and so is a field that would hide the text."""
    rows = [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}, {"id": "b", "text": "z", "_m3": 1}]
    write_jsonl(tmp_path / "in.jsonl", rows)
    code, _, err = run("in.jsonl")
    assert code == 4
    assert "'a': another document of this run has the same id" in err
    assert "'b': metadata field '_m3' is reserved" in err
    assert pq.read_table(tmp_path / "out.parquet")["text"].to_pylist() == ["x"]


@pytest.mark.parametrize("name", ["in.csv", "in.parquet", "in.txt"])
def test_other_formats(run, tmp_path, name):
    """A row of a table is a text, and so is a line of a text file that is not blank."""
    rows = [{"id": "a", "text": "the river"}, {"id": "b", "text": "the sea"}]
    table = pa.Table.from_pylist(rows)
    if name == "in.csv":
        pyarrow.csv.write_csv(table, tmp_path / name)
    elif name == "in.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        (tmp_path / name).write_text("the river\n\n  the sea \n")
    assert run(name)[0] == 0
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["text"].to_pylist() == ["the river", "the sea"]
    ids = ["in.txt:1", "in.txt:3"] if name == "in.txt" else ["a", "b"]
    assert found["id"].to_pylist() == ids


def test_a_txt_is_a_text_a_line_among_others_too(run, tmp_path):
    """In the order of the files; ``--id-prefix`` stands before each id."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n\ntwo\n")
    write_jsonl(folder / "b.jsonl", ROWS[1:2])
    (folder / "c.txt").write_text("three\n")
    assert run("in", "--id-prefix", "x/", "--legs", "dense")[0] == 0
    table = pq.read_table(tmp_path / "out.parquet")
    ids = ["x/a.txt:1", "x/a.txt:3", "x/doc-1", "x/c.txt:1"]
    assert (table["id"].to_pylist(), table["text"].to_pylist()[::3]) == (ids, ["one", "three"])


def test_what_cannot_be_read_is_named_and_the_rest_is_written(run, tmp_path):
    """A row without text, or with half a character, is told on stderr; the exit code is 4."""
    bad = [{"id": "none"}, {"id": "half", "text": "a \ud800"}]
    write_jsonl(tmp_path / "in.jsonl", [ROWS[1], *bad, ROWS[2]])
    code, out, err = run("in.jsonl", "--json")
    summary = json.loads(out)
    assert code == 4
    assert (summary["read"], summary["encoded"], summary["failed"]) == (4, 2, 2)
    assert "in.jsonl:2" in err
    assert "'half': not valid unicode" in err
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == ["doc-1", "doc-2"]


def test_queries_are_encoded_as_queries(run, tmp_path, vary):
    """``--as query`` takes the query's prefix."""
    folder = vary(query_prefix="river: ")
    (tmp_path / "in.txt").write_text("sea\n")
    run("in.txt", "--as", "query", "--model", str(folder))
    found = Embeddings.from_arrow(pq.read_table(tmp_path / "out.parquet"))
    expected = M3Encoder.load(folder).encode(["sea"], kind="query")
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-6)


def test_no_texts_give_an_empty_file(run, tmp_path):
    """The columns are there, so that whoever reads it needs no special case."""
    (tmp_path / "in.jsonl").write_text("")
    assert run("in.jsonl")[0] == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert len(table) == 0
    assert len(Embeddings.from_arrow(table)) == 0


def test_what_is_refused(run, tmp_path):
    """A missing input, an unknown mode and embeddings are usage errors, and nothing is written."""
    (tmp_path / "in.txt").write_text("x\n")
    assert run("nowhere.jsonl")[0] == 2
    code, _, err = run("in.txt", "--legs", "colbert")
    assert code == 2
    assert "multivector" in err
    assert not list(tmp_path.glob("out.parquet*"))
    assert run("in.txt")[0] == 0
    (tmp_path / "out.parquet").rename(tmp_path / "made.parquet")
    for given in (["made.parquet"], ["made.parquet", "in.txt"]):
        code, _, err = run(*given)
        assert (code, "embeddings" in err) == (2, True)
        assert not list(tmp_path.glob("out.parquet*"))


def test_an_interruption_leaves_no_half_file(tmp_path, tiny_m3):
    """The file has its name only when it is complete; an older one stays until then."""
    target = tmp_path / "out.parquet"
    target.write_bytes(b"older")

    def documents():
        for number in range(400):
            yield Document(str(number), "river " * 20)
        raise KeyboardInterrupt

    encoder = M3Encoder.load(tiny_m3, batch_tokens=100)
    with pytest.raises(KeyboardInterrupt):
        encode_to_parquet(
            documents(),
            encoder,
            target,
            kind="passage",
            legs=["dense"],
        )
    assert target.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def test_rows_are_written_as_they_come(tmp_path, tiny_m3):
    """Memory stays bounded: no more documents are read ahead than one window of the encoder holds."""
    seen, written = 0, []

    def documents():
        nonlocal seen
        for number in range(2000):
            seen += 1
            yield Document(str(number), "river " * 20)

    encoder = M3Encoder.load(tiny_m3, batch_tokens=100)
    report = encode_to_parquet(
        documents(),
        encoder,
        tmp_path / "out.parquet",
        kind="passage",
        legs=["dense"],
        progress=lambda stage, done, total: written.append((seen, done)),
    )
    assert report.encoded == 2000
    assert len(written) > 10
    assert max(read - encoded for read, encoded in written) <= 64
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == len(written)
