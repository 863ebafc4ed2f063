"""``m3connect ingest``: options, output for people and machines, exit codes."""

import json
from contextlib import contextmanager

import pytest

from m3connect import cli
from m3connect.cli.options import Services
from m3connect.errors import TransientError
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder

KEYS = [
    "read", "unchanged", "chunks", "written", "deleted", "pruned", "failed", "tokens", "truncated", "seconds",
]  # fmt: skip


@pytest.fixture
def collection():
    """A collection that outlives the command."""
    return MemoryConnector(collection="documents")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, collection):
    """Run ``ingest`` in an empty folder with a fake encoder; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    loaded = []

    @contextmanager
    def connect(*_, **__):
        yield collection

    def load(model, **choices):
        loaded.append({"model": model, **choices})
        return HashEncoder(seed=len(model))

    def call(*arguments, encoder=None):
        services = Services(connect, load if encoder is None else lambda *_, **__: encoder)
        with pytest.raises(SystemExit) as exit_:
            cli.main(["ingest", *arguments], services)
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    call.loaded = loaded
    return call


@pytest.fixture
def corpus(tmp_path):
    """Three documents in a file."""
    path = tmp_path / "corpus.jsonl"
    lines = [{"id": f"d{at}", "text": f"text {at}", "lang": "en", "junk": 1} for at in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_json_has_every_count_and_they_add_up(run, corpus):
    """On stdout alone."""
    code, out, _ = run("corpus.jsonl", "--json")
    report = json.loads(out)
    assert code == 0
    assert list(report) == KEYS
    assert report["read"] == report["unchanged"] + report["written"] + report["failed"] == 3


def test_people_read_what_happened_the_second_time_too(run, corpus):
    """What is unchanged is said."""
    code, out, _ = run("corpus.jsonl")
    assert (code, out.startswith("3 documents read: 3 written to 'documents'")) == (0, True)
    code, out, _ = run("corpus.jsonl")
    assert (code, "3 documents read, all unchanged in 'documents'" in out) == (0, True)


def test_options_reach_reading_cutting_and_the_schema(run, collection, tmp_path):
    """Each does what its help says."""
    (tmp_path / "rows.csv").write_text("key,body,lang,junk\na,one two three,en,x\n")
    code, _, _ = run(
        "rows.csv", "--id-field", "key", "--text-field", "body", "--metadata-field", "lang",
        "--chunk-tokens", "2", "--chunk-overlap", "1", "--legs", "sparse,dense",
        "--index-field", "lang:keyword", "--batch-tokens", "99",
        "--model", "x", "--backend", "torch", "--device", "cuda:1", "--dtype", "float16",
    )  # fmt: skip
    assert code == 0
    assert run.loaded == [
        {
            "model": "x", "backend": "torch", "device": "cuda:1", "dtype": "float16",
            "max_length": None, "batch_tokens": 99,
        }
    ]  # fmt: skip
    schema = collection.describe().schema
    assert (schema.legs, schema.payload_fields) == (("dense", "sparse"), {"lang": "keyword"})
    assert schema.fingerprint.chunker == "semantic 2, 2 tokens, overlap 1, context title+headings"
    (payload,) = collection.fetch(["a#1"]).payloads
    assert payload["text"] == "two three"
    assert (payload["lang"], "junk" in payload) == ("en", False)


def test_failed_documents_become_dead_letters_and_exit_code_4(run, collection, tmp_path):
    """The others are in."""
    (tmp_path / "x.jsonl").write_text('{"id": "a", "text": "t"}\nnot json\n{"id": "b"}\n')
    code, out, err = run("x.jsonl", "--dead-letters", "bad.jsonl", "--json")
    assert (code, json.loads(out)["failed"], collection.count()) == (4, 2, 1)
    assert "bad.jsonl says why" in err
    letters = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [letter["where"] for letter in letters] == ["x.jsonl:2", "x.jsonl:3"]


def test_a_dry_run_writes_nothing(run, corpus, collection):
    """It counts and estimates, for people and machines."""
    code, out, _ = run("corpus.jsonl", "--dry-run")
    assert (code, "3 passages to encode" in out, "Nothing was written" in out) == (0, True, True)
    code, out, _ = run("corpus.jsonl", "--dry-run", "--json")
    guess = json.loads(out)
    expected = "read unchanged pruned failed chunks tokens seconds bytes"
    assert list(guess) == expected.split()
    assert (guess["read"], guess["chunks"], guess["tokens"]) == (3, 3, 12)
    assert collection._records == {}


def test_embeddings_need_no_model(run, tmp_path, collection):
    """None is loaded for a Parquet file that holds vectors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = HashEncoder().encode(["one", "two"]).to_arrow().add_column(0, "id", pa.array(["a", "b"]))
    pq.write_table(made, tmp_path / "made.parquet")
    code, _, _ = run("made.parquet")
    assert (code, run.loaded, collection.count()) == (0, [], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["corpus.jsonl", "--legs", "dense,colbert"], "got colbert"),
        (["corpus.jsonl", "--index-field", "lang"], "NAME:KIND"),
        (["corpus.jsonl", "--index-field", "lang:text"], "keyword, integer"),
        (["corpus.jsonl", "--chunk-tokens", "100000"], "--chunk-tokens must be between"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage_is_exit_code_2(run, corpus, collection, arguments, message):
    """With a message on stderr, and nothing written."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert collection._stored is None


def test_another_model_is_exit_code_3(run, corpus):
    """The collection is kept from becoming a mixture."""
    run("corpus.jsonl", "--model", "one")
    code, _, err = run("corpus.jsonl", "--model", "another")
    assert (code, "--collection NAME" in err) == (3, True)


def test_an_unreachable_target_is_exit_code_5(run, corpus, collection, monkeypatch):
    """After the retries that the connector makes."""

    def gone(batch):
        raise TransientError("no answer", connector="memory", operation="upsert")

    monkeypatch.setattr(collection, "upsert", gone)
    code, _, err = run("corpus.jsonl")
    assert (code, "no answer" in err) == (5, True)


def test_an_interrupt_is_exit_code_130(run, corpus, collection, monkeypatch):
    """What was acknowledged is kept and flushed."""
    flushed = []

    def interrupt(texts, **options):
        if texts != [""]:
            raise KeyboardInterrupt
        return HashEncoder().encode(texts)

    encoder = HashEncoder()
    monkeypatch.setattr(encoder, "encode", interrupt)
    monkeypatch.setattr(collection, "flush", lambda: flushed.append(True))
    code, _, err = run("corpus.jsonl", encoder=encoder)
    assert (code, "Interrupted" in err, flushed) == (130, True, [True])


def test_prune_follows_the_source(run, corpus):
    """A document that left the source is deleted and said to be; a dry run tells it before."""
    run("corpus.jsonl")
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    corpus.write_text("".join(lines[1:]), encoding="utf-8")
    assert "1 would be pruned" in run("corpus.jsonl", "--prune", "--dry-run")[1]
    code, out, _ = run("corpus.jsonl", "--prune")
    assert code == 0
    assert "1 documents pruned" in out
