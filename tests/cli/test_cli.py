"""The command line: options from every place, exit codes, output for people and machines."""

import io
import json
import sys
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest

from m3connect import cli
from m3connect.cli.options import open_connector
from m3connect.cli.running import Services
from m3connect.connecting.registry import connect
from m3connect.contract import CollectionSchema
from m3connect.errors import TransientError
from m3connect.inference import M3Encoder, reranking
from m3connect.searching import search as search_module
from m3connect.stores.memory import MemoryConnector
from m3connect.stores.parquet import ParquetConnector
from m3connect.types import RecordBatch

TEXTS = {
    "en": "To extract a tar archive, use tar -xf archive.tar.",
    "de": "Die Katze schläft in der Sonne auf dem Fensterbrett.",
    "fr": "Le marché ouvre à huit heures tous les samedis.",
}


@pytest.fixture(scope="module")
def load():
    """Loads each model once: a third of a second that every command would spend."""
    return cache(M3Encoder.load)


@pytest.fixture(scope="module")
def collection(load, tmp_path_factory):
    """Three passages encoded by m3-mini in a Parquet collection; its path."""
    path = str(tmp_path_factory.mktemp("cli") / "passages.parquet")
    encoder = load("m3-mini")
    mark = encoder.info.fingerprint
    schema = CollectionSchema(mark.dense_width, True, mark.multivector_width, fingerprint=mark)
    with ParquetConnector(collection="documents", path=path) as file:
        file.ensure(schema)
        payloads = [
            {"text": text, "document_id": f"doc-{lang}", "position": 0, "lang": lang}
            for lang, text in TEXTS.items()
        ]
        embeddings = encoder.encode(list(TEXTS.values()))
        file.upsert(RecordBatch([f"doc-{lang}#0" for lang in TEXTS], payloads, embeddings))
    return path


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, load):
    """Run the command line in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            cli.main(list(arguments), Services(connect, load))
        out, err = capsys.readouterr()
        return exit_.value.code, out, err

    return call


def test_version_and_help(run):
    """Both print to stdout and succeed."""
    code, out, _ = run("--version")
    assert (code, out.startswith("m3connect 0.")) == (0, True)
    code, out, _ = run("search", "--help")
    assert code == 0
    assert "--mode" in out


def test_a_sweep_is_found_below_eval(run):
    """Under either name it is the same command."""
    assert run("eval", "sweep", "--help") == run("sweep", "--help")


@pytest.mark.parametrize("mode", ["dense", "sparse", "multivector", "hybrid", "all"])
def test_search_prints_one_json_object_a_hit(run, collection, mode):
    """Every field of the contract is there, and the right passage comes first."""
    code, out, _ = run(
        "search", "unpack a tar archive", "--target", "parquet", "--path", collection,
        "--mode", mode, "--json",
    )  # fmt: skip
    assert code == 0
    first = json.loads(out.splitlines()[0])
    assert list(first) == [
        "query_id", "rank", "id", "document_id", "score", "scores", "text", "metadata",
    ]  # fmt: skip
    assert (first["rank"], first["id"], first["document_id"]) == (1, "doc-en#0", "doc-en")
    assert set(first["scores"]) == {"dense", "sparse", "multivector"}
    assert first["metadata"] == {"lang": "en"}
    assert first["text"] == TEXTS["en"]


def test_a_query_file_and_a_filter(run, collection, tmp_path):
    """Query ids come back, and the filter applies to each query."""
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"id": "a", "text": "cat"}\n\n{"id": "b", "text": "market"}\n')
    code, out, _ = run(
        "search", "--queries", str(queries), "--target", "parquet", "--path", collection,
        "--filter", 'lang in ["de", "fr"]', "--limit", "1", "--json",
    )  # fmt: skip
    assert code == 0
    hits = [json.loads(line) for line in out.splitlines()]
    assert [(hit["query_id"], hit["id"]) for hit in hits] == [("a", "doc-de#0"), ("b", "doc-fr#0")]


def test_pages_follow_each_other(run, collection):
    """An offset leaves the best out, ranks keep counting, and a page too far says so."""
    place = ["--target", "parquet", "--path", collection, "--mode", "dense"]
    whole = [json.loads(line) for line in run("search", "cat", *place, "--json")[1].splitlines()]
    code, out, _ = run("search", "cat", *place, "--json", "--offset", "1", "-n", "1")
    assert (code, json.loads(out)) == (0, whole[1])
    assert whole[1]["rank"] == 2
    assert run("search", "cat", *place, "--offset", "3")[1] == "no hits after the first 3\n"
    assert run("search", "cat", *place, "--offset", "-1")[0] == 2


def test_explain_adds_up_in_json(run, collection):
    """Parts sum to the score and terms to the sparse score."""
    _, out, _ = run(
        "search", "tar archive", "--target", "parquet", "--path", collection,
        "--mode", "all", "--explain", "--json", "-n", "1",
    )  # fmt: skip
    hit = json.loads(out)
    explained = hit["explain"]
    assert sum(explained["parts"].values()) == pytest.approx(hit["score"], abs=1e-4)
    assert sum(part for _, part in explained["terms"]) == pytest.approx(
        hit["scores"]["sparse"], abs=1e-4
    )
    assert sum(part for *_, part in explained["tokens"]) == pytest.approx(
        hit["scores"]["multivector"], abs=1e-3
    )
    assert explained["plan"]["native"] is False


def test_output_for_people(run, collection):
    """Plain, explained and compared output name the passage and the legs."""
    place = ["--target", "parquet", "--path", collection]
    for extra in (["--explain", "--mode", "all"], ["--compare"], []):
        code, out, err = run("search", "tar archive", *place, *extra)
        assert code == 0
        assert "doc-en#0" in out
        assert err == ""


def test_hits_come_with_what_an_answer_needs(run, collection, monkeypatch):
    """Contexts, marked sentences, a reranker's order, least scores: each by its option."""
    place = ["--target", "parquet", "--path", collection]
    more = ["--group-by", "document", "--expand", "neighbours", "--highlight", "1"]
    code, out, _ = run("search", "tar archive", *place, *more, "--json", "-n", "1")
    hit = json.loads(out)
    assert (code, hit["context"]) == (0, TEXTS["en"])
    assert [mark["text"] for mark in hit["highlights"]] == [TEXTS["en"]]
    assert f"**{TEXTS['en']}**" in run("search", "tar archive", *place, *more)[1]

    loaded = []
    monkeypatch.setattr(
        reranking,
        "load_reranker",
        lambda *given, **more: (
            loaded.append((given, more)) or (lambda _, texts: ["marché" in each for each in texts])
        ),
    )
    code, out, _ = run("search", "tar", *place, "--reranker", "any", "--device", "cpu", "--json")
    first = json.loads(out.splitlines()[0])
    assert (first["id"], first["score"]) == ("doc-fr#0", 1.0)
    assert loaded == [(("any",), {"device": "cpu"})]

    out = run("search", "tar archive", *place, "--min-score", "sparse=0.01", "--json")[1]
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["doc-en#0"]


def test_fewer_documents_than_asked_for_are_told(run, load, tmp_path):
    """Where the passages looked at are all used up, and more would be other documents."""
    encoder = load("m3-mini")
    mark, path = encoder.info.fingerprint, str(tmp_path / "one.parquet")
    owners = ["a", "a", "b"]
    payloads = [
        {"text": "a cat", "document_id": owner, "position": n} for n, owner in enumerate(owners)
    ]
    with ParquetConnector(collection="documents", path=path) as file:
        file.ensure(
            CollectionSchema(mark.dense_width, True, mark.multivector_width, fingerprint=mark)
        )
        ids = [f"{owner}#{n}" for n, owner in enumerate(owners)]
        file.upsert(RecordBatch(ids, payloads, encoder.encode(["a cat"] * 3)))
    asked = ["search", "cat", "--target", "parquet", "--path", path, "--group-by", "document"]
    for pool, told in (
        ("2", True),
        ("3", True),
        ("4", False),
    ):  # of 3 nobody knows that they are all
        _, _, err = run(*asked, "-n", "2" if pool == "2" else "3", "--pool", pool)
        assert ("fewer documents than --limit; raise --pool" in err) == told


def test_many_queries_of_one_session(run, collection, monkeypatch):
    """Lines of a pipe are queries under their numbers; blank ones are none; an error ends it."""
    place = ["--target", "parquet", "--path", collection, "--repl", "-n", "1"]
    monkeypatch.setattr("sys.stdin", io.StringIO("tar archive\n\nKatze\n"))
    code, out, _ = run("search", *place, "--json")
    found = [(json.loads(line)["query_id"], json.loads(line)["id"]) for line in out.splitlines()]
    assert (code, found) == (0, [("1", "doc-en#0"), ("3", "doc-de#0")])
    monkeypatch.setattr("sys.stdin", io.StringIO("tar archive\n"))
    code, _, err = run("search", *place, "--min-score", "multivector=1")
    assert (code, "min_scores names multivector" in err) == (2, True)


def test_a_session_at_the_keyboard_goes_on_after_an_error(run, collection, monkeypatch):
    """Ctrl-D ends it; what fails is said, and the next line is read."""

    class Keyboard(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Keyboard("tar\nKatze\n"))
    away = TransientError("away", connector="parquet", operation="search")
    failing = iter([away, None])
    search_many = search_module.search_many

    def fail_once(*args, **options):
        if error := next(failing):
            raise error
        return search_many(*args, **options)

    monkeypatch.setattr(search_module, "search_many", fail_once)
    code, out, err = run("search", "--target", "parquet", "--path", collection, "--repl")
    assert (code, "doc-de#0" in out, "parquet search: away" in err) == (0, True, True)


def test_flag_beats_environment_beats_file_beats_default(run, collection, tmp_path, monkeypatch):
    """The four places of an option in their order."""
    config = f'target = "parquet"\npath = "{collection}"\njson = true\n[search]\nlimit = 3\n'
    (tmp_path / "m3connect.toml").write_text(config)
    monkeypatch.setenv("M3CONNECT_CONFIG", "m3connect.toml")

    def hits(*flags):
        code, out, _ = run("search", "cat", *flags)
        assert code == 0
        return len(out.splitlines())

    assert hits() == 3
    monkeypatch.setenv("M3CONNECT_SEARCH_LIMIT", "2")
    assert hits() == 2
    assert hits("--limit", "1") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search"], 2, "one of a text, --queries FILE and --repl"),
        (["search", "x", "--repl"], 2, "one of a text, --queries FILE and --repl"),
        (["search", "x", "--min-score", "dense"], 2, "--min-score takes"),
        (["search", "x", "--min-score", "dense=nan"], 2, "--min-score takes"),
        (["search", "x", "--target", "nowhere"], 2, "there is no connector 'nowhere'"),
        (["search", "x", "--target", "memory"], 1, "no collection"),
        (
            ["search", "x", "--target", "memory", "--url", "y"],
            2,
            "memory: there is no option url; it takes tenant_field",
        ),
        (["search", "x", "--target", "memory", "--filter", "lang ="], 2, "character 6"),
        (["search", "x", "--weights", "1,2"], 2, "--weights takes"),
        (["search", "x", "--model", "no-such-model"], 2, "no model"),
        (["search", "x", "--mode", "fuzzy"], 2, "fuzzy"),
        (["search", "x", "--target-option", "y"], 2, "NAME=VALUE"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_have_a_message_and_an_exit_code(run, arguments, code, message):
    """What went wrong is on stderr, nothing on stdout."""
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert message in " ".join(err.replace("│", " ").split())


def test_an_unknown_key_in_the_file_is_an_error(run, tmp_path):
    """The nearest known key is offered."""
    (tmp_path / "m3connect.toml").write_text('targt = "qdrant"')
    code, _, err = run("models")
    assert code == 2
    assert "did you mean 'target'" in err


def test_models_lists_the_bundled_one(run):
    """m3-mini is there, with its widths."""
    code, out, _ = run("models", "--json")
    assert code == 0
    listed = {model["name"]: model for model in json.loads(out)}
    assert listed["m3-mini"]["where"] == "bundled"
    assert listed["m3-mini"]["dense_width"] == 384


def test_a_broken_checkpoint_hides_no_other(run, monkeypatch, tmp_path):
    """Half a download is listed with what it lacks."""
    (tmp_path / "sparse_linear.pt").write_bytes(b"")
    monkeypatch.setattr("m3connect.model.inventory._cached", lambda: [("half/m3", tmp_path)])
    code, out, _ = run("models", "--json")
    listed = {model["name"]: model for model in json.loads(out)}
    assert (code, listed["m3-mini"]["problem"]) == (0, "")
    assert listed["half/m3"]["problem"]
    code, out, err = run("models")
    assert (code, "half/m3: " in err) == (0, True)
    assert "m3-mini" in out


def test_a_torch_that_cannot_be_imported_is_a_problem(run, monkeypatch):
    """And no traceback."""
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = run("doctor", "--target", "memory")
    assert code == 1
    assert "PROBLEM torch" in out


def test_doctor_reports_each_part(run, collection, tmp_path):
    """A good setup passes; a broken model is a problem with an exit code."""
    code, out, _ = run("doctor", "--target", "parquet", "--path", collection, "--json")
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert code == 0
    assert "3 passages" in found["collection"]["detail"]
    code, out, _ = run("doctor", "--target", "memory", "--model", "no-such-model")
    assert code == 1
    assert "PROBLEM model" in out


def test_what_a_database_cannot_store_is_said(run, tmp_path, monkeypatch, caplog):
    """By doctor, and by an ingestion that leaves it out."""
    can = replace(MemoryConnector.capabilities, engine="old 1.0", stores=frozenset({"dense"}))
    monkeypatch.setattr(MemoryConnector, "capabilities", can)
    _, out, _ = run("doctor", "--target", "memory")
    assert "old 1.0 cannot store sparse, multivector vectors" in out
    (tmp_path / "a.txt").write_text("one")
    assert run("ingest", str(tmp_path / "a.txt"), "--target", "memory")[0] == 0
    assert "cannot store sparse, multivector vectors; they are left out" in caplog.text


def test_an_option_that_takes_text_is_no_number(monkeypatch):
    """A password of digits stays one."""
    seen = {}

    def factory(*, collection: "str", password: "str | None" = None, timeout: "float" = 1.0):
        seen.update(password=password, timeout=timeout)

    point = SimpleNamespace(load=lambda: factory)
    monkeypatch.setattr("m3connect.connecting.registry.available", lambda: {"fake": point})
    open_connector("fake", "c", further=["password=70", "timeout=7"])
    assert seen == {"password": "70", "timeout": 7}


def test_copy_and_verify(run, collection, tmp_path):
    """A copy is equal to its source; a different one is exit code 1."""
    copy = str(tmp_path / "copy.parquet")
    ends = ["--from", "parquet", "--from-path", collection, "--to", "parquet", "--to-path", copy]
    code, out, _ = run("copy", *ends, "--json")
    assert (code, json.loads(out)["written"]) == (0, 3)
    code, out, _ = run("verify", *ends)
    assert code == 0
    assert out.endswith("equal\n")
    code, out, _ = run("verify", *ends, "--json")
    assert json.loads(out)["equal"] is True
