"""``m3connect ingest``: options, output for people and machines, exit codes."""

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest

from m3connect import cli
from m3connect.cli.running import Services
from m3connect.connecting.registry import connect
from m3connect.contract import CollectionSchema, Limits
from m3connect.datasets.beir import read_corpus
from m3connect.errors import TransientError
from m3connect.stores.memory import MemoryConnector
from m3connect.stores.parquet import RecordWriter
from m3connect.testing.fakes import HashEncoder
from m3connect.types import LEGS, Compression, RecordBatch

KEYS = [
    "read", "unchanged", "taken_over", "chunks", "written", "metadata_only", "deleted", "pruned",
    "left_over", "empty", "failed", "tokens", "truncated", "no_lexical", "seconds",
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

    def call(*arguments, encoder=None, command="ingest"):
        services = Services(connect, load if encoder is None else lambda *_, **__: encoder)
        with pytest.raises(SystemExit) as exit_:
            cli.main([command, *arguments], services)
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    call.loaded = loaded  # type: ignore[attr-defined]
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
    assert (
        report["read"]
        == report["unchanged"] + report["written"] + report["failed"] + report["empty"]
        == 3
    )


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
            "max_length": None, "long_mode": "truncate", "identifiers": False, "batch_tokens": 99,
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


def test_retry_says_what_became_of_dead_letters(run, collection, tmp_path):
    """With the options of the run, which the settings of ``ingest`` give it, too; exit code 4 if some stay."""
    (tmp_path / "m3connect.toml").write_text('[ingest]\ntext_field = "body"\nchunk_tokens = 2\n')
    (tmp_path / "x.jsonl").write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c", "body": "t"}\n')
    _, _, err = run("x.jsonl", "--dead-letters", "bad.jsonl")
    assert "m3connect retry bad.jsonl" in err
    (tmp_path / "x.jsonl").write_text('{"id": "a", "body": "one two three"}\n{"id": "b"}\n')
    code, out, _ = run("bad.jsonl", command="retry")
    assert (code, "held 2: 1 written" in out, "1 left in it" in out) == (4, True, True)
    assert "delete its line from the file" in out
    assert "  1: field 'body' is no text: None" in out
    assert collection.count() == 3  # two passages of two tokens each
    (tmp_path / "x.jsonl").write_text('{"id": "b", "body": "t"}\n')
    code, out, _ = run("bad.jsonl", "--json", command="retry")
    counts = json.loads(out)
    assert (code, counts["letters"], counts["written"], counts["left"]) == (0, 1, 1, 0)
    code, out, _ = run("bad.jsonl", command="retry")
    assert (code, "nothing to do" in out) == (0, True)
    code, _, err = run("x.jsonl", command="retry")
    assert (code, "no list of dead letters" in err) == (2, True)


def test_the_report_has_a_line_for_what_each_document_lost(run, tmp_path):
    """Sums on the screen; the file is this run's, never a source, and no trial's."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "none.txt").write_text(" ")
    (tmp_path / "docs" / "signs.txt").write_text("?! ... !!!")
    (tmp_path / "docs" / "x.png").write_text("")
    every_time = {("none.txt", "empty", 1), ("x.png", "left_out", 1)}
    for once in ({("signs.txt", "no_lexical", 1)}, set()):
        code, _, err = run("docs", "--report", "docs/lost.jsonl")
        lines = map(json.loads, (tmp_path / "docs/lost.jsonl").read_text().splitlines())
        assert {(line["id"], line["loss"], line["count"]) for line in lines} == every_time | once
        assert (code, "1 document without text" in err) == (0, True)
        assert ("1 passage without lexical weights" in err) == bool(once)
    assert "1 own output" in err
    code, _, err = run("docs")  # where it lies beside the documents, and is not said to be ours
    assert (code, "1 reports of losses" in err) == (0, True)
    code, _, err = run("docs", "--report", "x.jsonl", "--dead-letters", "x.jsonl")
    assert (code, "name the same file" in err) == (2, True)


def test_fail_on_names_the_losses_that_count(run, tmp_path):
    """Exit code 4 with everything written; other losses pass, and a wrong name ends it before."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "none.txt").write_text(" ")
    (tmp_path / "docs" / "image.txt").write_text("see data:image/png;base64," + "iVBORw0KGgo" * 9)
    (tmp_path / "docs" / "x.png").write_text("")
    code, _, err = run("docs", "--fail-on", "lexical")
    assert (code, "--fail-on takes truncated, empty" in err, run.loaded) == (2, True, [])
    code, _, err = run("docs", "--fail-on", "truncated,no_lexical")
    assert (code, "--fail-on" in err) == (0, False)
    for kind in ("empty", "images", "left_out"):
        code, out, err = run("docs", "--fail-on", f"truncated,{kind}")
        assert (code, f"--fail-on: 1 {kind}\n" in err, "2 documents read" in out) == (4, True, True)
    (tmp_path / "docs" / "signs.txt").write_text("?!")
    assert run("docs", "--fail-on", "no_lexical")[0] == 4


def test_own_dead_letters_are_never_a_source(run, collection, tmp_path):
    """Neither beside the state, where they go by default, nor in the folder that is read."""
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "t"}\n{"id": "b"}\n')
    for _ in range(2):
        code, out, err = run(".", "--json")
        assert (code, json.loads(out)["read"]) == (4, 2)
    assert (tmp_path / ".m3connect/dead-letters/qdrant-documents.jsonl").exists()
    assert ".m3connect/dead-letters/qdrant-documents.jsonl says why" in err
    names = {
        ("--path", "./x/y"): "qdrant-x%2Fy-documents.jsonl",
        ("--url", "http://bob:secret@host:6333/"): "qdrant-host%3A6333-documents.jsonl",
    }
    for place, name in names.items():
        assert f".m3connect/dead-letters/{name} says why" in run(".", *place)[2]
    assert run(".", "--path", "x" * 300)[0] == 4
    for _ in range(3):
        code, out, err = run(".", "--dead-letters", "bad.jsonl", "--json")
        assert (code, json.loads(out)["read"]) == (4, 2)
    assert "1 own output" in err
    code, _, err = run("bad.jsonl", "--dead-letters", "bad.jsonl")
    assert (code, "both to be read and to be written" in err) == (2, True)
    code, _, err = run("a.jsonl", "--dead-letters", "a.jsonl")
    assert (code, (tmp_path / "a.jsonl").read_text().count("text")) == (2, 1)


def test_reading_options_reach_the_files(run, collection, tmp_path):
    """Patterns, encoding, types, limits, prefix, context."""
    for name, text in {"a.txt": "Gr\u00f6\u00dfe", "b.txt": "x" * 99, "drafts/c.txt": "c"}.items():
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_bytes(text.encode("cp437"))
    (tmp_path / "docs" / "d.csv").write_text("id,text,n\n1,t,5\n")
    code, out, err = run(
        "docs", "--include", "*.txt,*.csv", "--exclude", "drafts/", "--encoding", "cp437",
        "--csv-types", "string", "--max-file-bytes", "50", "--max-seconds", "5",
        "--id-prefix", "docs/", "--context", "none", "--no-gitignore", "--json",
    )  # fmt: skip
    assert (code, json.loads(out)["failed"]) == (4, 1)
    assert "left out: 1 excluded" in err
    batch = collection.fetch(["docs/a.txt#0", "docs/1#0"])
    assert [payload["text"] for payload in batch.payloads] == ["Gr\u00f6\u00dfe", "t"]
    assert batch.payloads[1]["n"] == "5"
    assert collection.describe().schema.fingerprint.chunker.endswith("context none")


@pytest.mark.parametrize(
    "arguments",
    [["--encoding", "klingon"], ["--context", "author"], ["--max-seconds", "0"]],
)
def test_reading_options_that_cannot_be_are_refused(run, corpus, collection, arguments):
    """Before anything is read."""
    code, _, err = run("corpus.jsonl", *arguments)
    assert (code, arguments[0] in err) == (2, True)


def test_a_folder_with_nothing_to_read_is_an_error(run, tmp_path):
    """It says what lies there; where it is to prune the collection, that is what is refused."""
    (tmp_path / "a.png").write_bytes(b"x")
    code, out, err = run(".")
    assert (code, out) == (2, "")
    assert "left out: 1 .png" in " ".join(err.split())
    for command in ("ingest", "plan"):
        code, _, err = run(".", "--prune", command=command)
        assert (code, "nothing is deleted: there is nothing to read in" in err) == (6, True)


def test_empty_documents_are_counted(run, tmp_path, collection):
    """They are no failure, and do not forbid to prune."""
    (tmp_path / "a.md").write_text("text")
    run(".")
    (tmp_path / "a.md").write_text("")
    code, _, err = run(".", "--prune")
    assert (code, collection.count()) == (0, 0)
    assert "1 document without text" in err


def test_titles_are_encoded_as_test_collections_encode_them(run, tmp_path, collection):
    """What a live evaluation searches is what the offline one encodes."""
    lines = [{"_id": "d1", "title": "Rotating keys", "text": "It is done in the console."}]
    (tmp_path / "corpus.jsonl").write_text(json.dumps(lines[0]) + "\n")
    (document,) = read_corpus(tmp_path / "corpus.jsonl")
    assert run("corpus.jsonl", "--model", "x")[0] == 0
    stored = collection.fetch(["d1#0"])
    assert stored.payloads[0]["text"] == "It is done in the console."
    expected = HashEncoder(seed=1).encode([document.text])
    assert np.array_equal(stored.embeddings.dense, expected.dense)


def test_a_plan_says_what_would_be_done(run, corpus, collection, monkeypatch):
    """It counts and estimates, for people and machines, and writes nothing."""
    with corpus.open("a") as lines:
        lines.write("no json\n")
    code, out, _ = run("corpus.jsonl", command="plan")
    assert (code, out.endswith("Nothing was written.\n")) == (0, True)
    assert "4 documents: 3 to write, 0 unchanged, 0 empty, 1 would fail\n" in out
    assert "  1 would fail: not JSON" in out
    assert "3 passages to write, 0 to delete; 3 to encode: 12 tokens" in out
    assert "numpy stores dense, sparse, multivector\n" in out
    lesser = replace(
        MemoryConnector.capabilities,
        legs=frozenset({"dense", "sparse"}),
        fusions=frozenset(),
        limits=Limits(id_bytes=2000, payload_bytes=50),
        licence="basic",
    )
    with monkeypatch.context() as patch:
        patch.setattr(MemoryConnector, "capabilities", lesser)
        out = run("corpus.jsonl", command="plan")[1]
    assert (
        "numpy (licence: basic) stores dense, sparse, multivector and leaves the search by " in out
    )
    assert "by multivector and the fusion of legs to m3connect\n" in out
    assert "it takes at most 2,000 bytes of an id, 50 bytes of a payload\n" in out
    assert "3 passages would be refused: more than 50 bytes of a payload\n" in out
    code, out, _ = run("corpus.jsonl", "--json", "--legs", "dense", command="plan")
    found = json.loads(out)
    assert (found["read"], found["chunks"], found["tokens"]) == (4, 3, 12)
    assert set(found["bytes"]) == {"payload", "dense"}
    assert (found["engine"], found["legs"]) == ("numpy", ["dense"])
    assert collection._records == {}


def test_a_plan_leaves_no_trace_in_an_embedded_engine(corpus, monkeypatch, tmp_path, capsys):
    """Neither a folder of its state nor dead letters."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["plan", "corpus.jsonl"], Services(connect, lambda *_, **__: HashEncoder()))
    assert (exit_.value.code, "3 to write" in capsys.readouterr().out) == (0, True)
    assert [each.name for each in tmp_path.iterdir()] == ["corpus.jsonl"]


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
    code, _, err = run("corpus.jsonl", "--patience", "0")
    assert (code, "no answer" in err) == (5, True)


WAITING = """
import signal, time
from m3connect.cli.running import interruptible
signal.signal(signal.SIGINT, signal.default_int_handler)  # of a runner that ignores it
with interruptible():
    try:
        print("reading", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("writing", flush=True)
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass
"""


def test_a_second_interrupt_waits_for_nothing():
    """Not for what is being written, to whatever does not answer; the first one says so."""
    command = [sys.executable, "-c", WAITING]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for doing in ("reading", "writing"):
            assert process.stdout.readline().strip() == doing
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert "Ctrl-C again stops at once" in err


def test_an_interrupt_is_exit_code_130(run, corpus, collection, monkeypatch):
    """What was acknowledged is kept and flushed; a database that is away then does not hide it."""
    flushed = []

    def interrupt(texts, **options):
        if texts != [""]:
            raise KeyboardInterrupt
        return HashEncoder().encode(texts)

    encoder = HashEncoder()
    monkeypatch.setattr(encoder, "encode", interrupt)
    monkeypatch.setattr(collection, "flush", lambda: flushed.append(True))
    code, _, err = run("corpus.jsonl", encoder=encoder)
    assert (code, "Run it again to go on" in err, flushed) == (130, True, [True])

    def gone():
        raise TransientError("no answer", connector="memory", operation="flush")

    monkeypatch.setattr(collection, "flush", gone)
    code, _, err = run("corpus.jsonl", encoder=encoder)
    assert (code, "Run it again to go on" in err) == (130, True)


def test_prune_follows_the_source(run, corpus):
    """A document that left the source is deleted and said to be; a plan tells it before."""
    run("corpus.jsonl")
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    corpus.write_text("".join(lines[1:]), encoding="utf-8")
    assert "still holds 1 document of this source" in run("corpus.jsonl")[2]
    with corpus.open("a", encoding="utf-8") as more:
        more.write('{"id": "new", "text": "new"}\n')
    code, out, err = run("corpus.jsonl", "--prune")
    assert (code, "3 documents read: 1 written" in out) == (
        6,
        True,
    )  # what was done is said all the same
    code, out, _ = run("corpus.jsonl", "--prune", "--json")
    assert (code, json.loads(out)["unchanged"]) == (6, 3)
    assert "--max-delete-ratio 0.26" in err
    allowed = ("--prune", "--max-delete-ratio", "0.34")
    assert "1 in the collection to prune" in run("corpus.jsonl", *allowed, command="plan")[1]
    code, out, _ = run("corpus.jsonl", *allowed)
    assert code == 0
    assert "1 document pruned" in out


def test_equal_names_of_two_folders_are_told_apart(run, tmp_path, collection):
    """Exit code 6 names the id; --id-prefix keeps both, --take-over and --source replace."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"words of {name}\n")
    assert run("a")[0] == 0
    code, _, err = run("b")
    assert code == 6
    assert "'README.md'" in err
    assert "--id-prefix" in err
    assert run("b", command="plan")[0] == 6
    assert collection.count() == 1
    assert run("b", "--id-prefix", "b/")[0] == 0
    assert collection.count() == 2
    (tmp_path / "b" / "README.md").write_text("words of a\n")
    planned = run("b", "--take-over", command="plan")[1]
    assert "1 unchanged (1 to take over)" in planned
    assert "0 passages to write" in planned
    (tmp_path / "b" / "odd.md").write_bytes(b"\x00")
    assert (
        "0 written to 'documents' as 0 passages, 1 unchanged, 1 failed"
        in run("b", "--take-over")[1]
    )
    (tmp_path / "b" / "odd.md").unlink()
    assert run("a", "--take-over")[0] == 0
    (tmp_path / "b" / "README.md").write_text("words of a\n")
    code, out, _ = run("b", "--take-over")
    assert (code, "nothing to do" in out, "1 of the unchanged are this source's" in out) == (
        0,
        False,
        True,
    )
    assert "nothing to do" in run("b")[1]
    assert run("a", "--source", f"{tmp_path}/b/")[0] == 0
    assert collection.fetch(["README.md#0"]).payloads[0]["text"] == "words of a"


def test_what_is_kept_is_told_to_the_encoder(run, corpus):
    """As one object, and only where something is left out."""
    run("corpus.jsonl")
    run("corpus.jsonl", "--dense-width", "8", "--multivector-pool", "2")
    first, second = run.loaded
    assert "compression" not in first
    assert second["compression"] == Compression(dense_width=8, multivector_pool=2)


def test_embeddings_are_stored_as_they_are(run, tmp_path):
    """What would be left out of them is said to belong to another command."""
    encoder = HashEncoder()
    with RecordWriter(
        tmp_path / "a.parquet", CollectionSchema.of(encoder.info.fingerprint, LEGS)
    ) as file:
        file.write(RecordBatch(["a"], [{"text": "some words"}], encoder.encode(["some words"])))
    code, _, err = run("a.parquet", "--sparse-top", "1")
    assert code == 2
    assert "give sparse_top 1 to m3connect encode" in err


def test_a_run_tells_monitoring_how_much_it_did(run, corpus, tmp_path, monkeypatch):
    """Counters in a file, spans to the collector that the environment names; not one text."""
    spans = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            spans.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            """Silence."""

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        code, _, err = run("corpus.jsonl", "--metrics", "run.prom", "--trace")
        collector.shutdown()
        thread.join()
    assert code == 0, err
    counters = (tmp_path / "run.prom").read_text()
    assert 'm3connect_documents_total{outcome="written"} 3.0' in counters
    assert 'm3connect_records_total{operation="upsert"} 3.0' in counters
    ((path, sent),) = spans
    assert path == "/v1/traces"
    assert b"m3connect.ingest" in sent
    assert b"m3connect.upsert" in sent
    for line in corpus.read_text().splitlines():
        assert json.loads(line)["text"].encode() not in sent
