"""The settings file and the environment: what they may set, where, and what they must not."""

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from m3connect import cli
from m3connect.cli import settings
from m3connect.cli.groups import Declared
from m3connect.cli.options import Database, Mark
from m3connect.cli.running import Services
from m3connect.cli.settings import SettingsFile
from m3connect.contract import CollectionSchema
from m3connect.errors import ConfigError
from m3connect.inference import remote, reranking
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import RecordBatch

SHARED_TARGET = Declared("target", Database, frozenset())
COMMANDS = {
    "ingest": {
        "target": SHARED_TARGET,
        "chunk_tokens": Declared("chunk_tokens", None, frozenset()),
        "prune": Declared("prune", None, frozenset({Mark.FLAG_ONLY})),
    },
    "search": {"target": SHARED_TARGET, "limit": Declared("limit", None, frozenset())},
}
PATH = Path("m3connect.toml")


@pytest.fixture(autouse=True)
def no_outer_settings(monkeypatch, tmp_path):
    """An empty folder, and nothing in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("M3CONNECT_CONFIG", "M3CONNECT_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def write(text, path=PATH):
    """A settings file."""
    path.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------- keys and places


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"targt": "qdrant"}, "unknown key 'targt'; did you mean 'target'"),
        ({"limit": 5}, r"'limit' is not shared by all commands; write it under \[search\]"),
        ({"search": {"chunk_tokens": 1}}, r"\[search\] unknown key 'chunk_tokens'"),
        ({"search": 5}, r"write a table \[search\]"),
        ({"ingest": {"prune": True}}, r"\[ingest\] prune is asked for on the command line only"),
        ({"target": {"a": 1}}, "target takes a text, a number"),
        ({"search": {"limit": [[1]]}}, "limit takes a text, a number"),
    ],
)
def test_wrong_keys_and_values_are_errors(content, message):
    """What a file cannot set is named, with the nearest key or the right place."""
    with pytest.raises(ConfigError, match=message):
        settings.defaults(SettingsFile(PATH, content), COMMANDS)


def test_a_command_table_wins_over_the_top():
    """The more specific place counts."""
    content = {"target": "a", "search": {"target": "b", "limit": 3}}
    found = settings.defaults(SettingsFile(PATH, content), COMMANDS)
    assert found == {"ingest": {"target": "a"}, "search": {"target": "b", "limit": 3}}


def test_no_file_is_fine():
    """Without a file there are no settings."""
    assert settings.read_file() == SettingsFile(PATH)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("a = = 1"),
        lambda path: path.write_bytes(b"a = '\xff'"),
        lambda path: path.write_text("a = " + "9" * 5000),
        lambda path: path.write_text("a = " + "[" * 100_000),
        lambda path: path.mkdir(),
    ],
    ids=["syntax", "encoding", "integer", "nesting", "folder"],
)
def test_a_file_that_cannot_be_read_is_one_message(make, capsys):
    """Whatever is wrong with it: its name, and exit code 2."""
    make(PATH)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["models"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("Error: m3connect.toml is n")


def test_a_named_file_must_exist(monkeypatch):
    """A missing file is an error that names it."""
    monkeypatch.setenv("M3CONNECT_CONFIG", "no.toml")
    with pytest.raises(ConfigError, match="does not exist"):
        settings.read_file()
    monkeypatch.setenv("M3CONNECT_CONFIG", "x" * 5000)  # no system can even look for it
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        settings.read_file()


def test_a_variable_that_sets_nothing_is_said(run):
    """The variable of one command's option carries the command's name."""
    _, _, err = run("models", environment={"M3CONNECT_LIMIT": "2"})
    assert "M3CONNECT_LIMIT sets nothing; write M3CONNECT_SEARCH_LIMIT" in err


# ---------------------------------------------- what a setting for one command does to another


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command line with a fake encoder and connector; exit code, stdout and stderr."""

    def call(*arguments, connect=None, environment=None):
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        services = Services(connect or _no_database, lambda *_, **__: HashEncoder())
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments], services)
        return exit_.value.code, *capsys.readouterr()

    return call


def _no_database(*_, **__):
    raise AssertionError("a harmless command opened a database")


@pytest.fixture
def dataset(tmp_path):
    """A test collection of forty queries, in the BEIR layout."""
    folder = tmp_path / "dev"
    folder.mkdir()
    rows: dict[str, list[dict[str, Any]]] = {
        "corpus.jsonl": [{"_id": f"d{n}", "text": f"topic{n} word"} for n in range(40)],
        "queries.jsonl": [{"_id": f"q{n}", "text": f"topic{n}"} for n in range(40)],
        "qrels.jsonl": [{"qid": f"q{n}", "docid": f"d{n}", "score": 1} for n in range(40)],
    }
    for name, values in rows.items():
        (folder / name).write_text("\n".join(map(json.dumps, values)))
    return folder


def test_a_list_is_taken_where_the_option_is_one(run, dataset):
    """By the options that are repeated, and by those with commas."""
    write('[eval]\nmodes = ["dense", "sparse"]\nmetrics = ["ndcg@10"]\n')
    code, out, _ = run("eval", "--dataset", str(dataset), "--json")
    assert (code, list(json.loads(out)["dev"])) == (0, ["dense", "sparse"])


@pytest.mark.parametrize("place", ["file", "environment"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", "--modes", "dense"),
        ("tune", "--mode", "dense+sparse"),
        ("mine", "--output", "out.jsonl", "--first", "1", "--negatives", "1", "--max-share", "2"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_default_target_turns_no_command_live(run, dataset, place, arguments):
    """With a target in the settings, measuring, tuning and mining stay offline."""
    environment = {}
    if place == "file":
        write('target = "memory"\nurl = "http://127.0.0.1:9"\n')
    else:
        environment = {"M3CONNECT_TARGET": "memory"}
    code, _, err = run(*arguments, "--dataset", dataset, "--cache", "c", environment=environment)
    assert code == 0, err


def test_live_is_asked_for_by_its_flag(run, dataset):
    """``--live`` opens the collection that the settings name."""
    encoder = HashEncoder()
    seen = {}

    def connect(target, *, collection, **_):
        seen.update(target=target, collection=collection)
        connector = MemoryConnector(collection=collection)
        connector.ensure(CollectionSchema(16, True, 16, fingerprint=encoder.info.fingerprint))
        texts = [f"topic{n} word" for n in range(40)]
        ids = [f"d{n}" for n in range(40)]
        connector.upsert(RecordBatch(ids, [{} for _ in ids], encoder.encode(texts)))
        return connector

    write('target = "memory"\ncollection = "mine"\n')
    arguments = ("eval", "--dataset", dataset, "--modes", "dense", "--cache", "c", "--live")
    assert run(*arguments, connect=connect)[0] == 0
    assert seen == {"target": "memory", "collection": "mine"}


@pytest.mark.parametrize("command", ["eval", "tune", "mine"])
def test_neither_file_nor_environment_asks_for_live(run, dataset, command):
    """Only the flag does."""
    output = ("--output", "out.jsonl") if command == "mine" else ()
    write(f"[{command}]\nlive = true\n")
    code, _, err = run(command, "--dataset", dataset, *output)
    assert (code, "on the command line only" in err) == (2, True)
    PATH.unlink()
    variables = {"M3CONNECT_LIVE": "1", f"M3CONNECT_{command.upper()}_LIVE": "1"}
    arguments = (command, "--dataset", dataset, *output, "--cache", "c")
    code, _, err = run(*arguments, environment=variables)
    assert code == 0, err


def test_a_target_without_live_is_no_silent_offline_run(run, dataset):
    """A flag that would do nothing is refused, and names the one that is missing."""
    code, _, err = run("eval", "--dataset", dataset, "--target", "memory")
    assert (code, "give --live" in err) == (2, True)


def test_pruning_is_asked_for_by_its_flag(run):
    """A settings file cannot make an ingestion delete."""
    write("[ingest]\nprune = true\n")
    code, _, err = run("ingest", "docs")
    assert (code, "on the command line only" in err) == (2, True)


class Listener(http.server.BaseHTTPRequestHandler):
    """Keeps the headers and bodies of what it is asked, and answers as a language model does."""

    def do_POST(self):
        """Answer with one query."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append((str(self.headers), body))  # type: ignore[attr-defined]
        answer = json.dumps({"choices": [{"message": {"content": "what is this"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def listener():
    """A server on this machine; ``seen`` has what it was sent."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_databases_key_reaches_no_language_model(run, dataset, listener):
    """Nor do the limit of hits and the database's address mean anything to ``synthesize``."""
    write('api_key = "DB-SECRET"\nurl = "http://127.0.0.1:9"\n[search]\nlimit = 1\n')
    code, out, err = run(
        "synthesize", dataset, "--output", "made", "--llm", "any", "--documents", "2",
        "--llm-base-url", f"http://127.0.0.1:{listener.server_port}/v1",
        "--per-minute", "1e9", "--found-within", "0", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert len(listener.seen) == 2
    assert "DB-SECRET" not in str(listener.seen) + out + err


# --------------------------------------------------------------- a file that nobody confirmed


def test_a_folders_file_is_shown_when_it_decides_the_target(run):
    """One line on stderr: what it sets; nothing for a file that was named, or harmless."""
    write('target = "memory"\nurl = "http://127.0.0.1:9"\napi_key = "SECRET"\n')

    def connect(*_, **__):
        return MemoryConnector(collection="x")

    _, _, err = run("search", "x", connect=connect)
    assert err.splitlines()[0] == (
        "m3connect.toml in this folder sets target = memory, url = http://127.0.0.1:9, "
        "api_key (not shown)"
    )
    write('\ufefftarget = "memory"\npath = "\\u001b[31m"\n')  # as Notepad saves it; and odd
    _, _, err = run("search", "x", connect=connect)
    assert err.splitlines()[0].endswith("path = \\x1b[31m")
    _, _, err = run("search", "x", connect=connect, environment={"M3CONNECT_CONFIG": str(PATH)})
    assert "in this folder" not in err


@pytest.mark.parametrize("flag", [True, False])
def test_a_key_from_elsewhere_does_not_go_to_a_folders_address(run, flag):
    """Exit code 6 before anything is opened; naming the file confirms it."""
    write('url = "http://127.0.0.1:9"\n')
    given = ("--api-key", "SECRET") if flag else ()
    environment = {} if flag else {"M3CONNECT_API_KEY": "SECRET"}
    code, out, err = run("search", "x", *given, environment=environment)
    assert code == 6
    assert "SECRET" not in out + err
    assert "M3CONNECT_CONFIG=m3connect.toml" in err
    seen = {}

    def connect(*_, collection, **options):
        seen.update(options)
        return MemoryConnector(collection=collection)

    run("search", "x", *given, connect=connect, environment={"M3CONNECT_CONFIG": str(PATH)})
    assert seen == {"url": "http://127.0.0.1:9", "api_key": "SECRET"}


def test_a_language_models_key_stays_with_its_address(run, dataset, listener):
    """The endpoint of a folder's file gets no OPENAI_API_KEY."""
    write(f'[synthesize]\nllm_base_url = "http://127.0.0.1:{listener.server_port}/v1"\n')
    arguments = ("synthesize", dataset, "--output", "made", "--llm", "any")
    assert run(*arguments, environment={"OPENAI_API_KEY": "SECRET"})[0] == 6
    assert listener.seen == []


def test_an_encoders_key_stays_with_its_address(run):
    """A service of a folder's file is shown, and gets no key; a model's name is neither."""
    assert settings.SERVICE_KEYS == {"model": remote.KEY, "reranker": reranking.KEY}

    def connect(*_, **__):
        return MemoryConnector(collection="x")

    service = 'model = "http://127.0.0.1:9"\n'
    write(service)
    assert "in this folder sets model = http://127.0.0.1:9" in run("doctor", connect=connect)[2]
    write('model = "m3-mini"\n')
    code, _, err = run("doctor", connect=connect, environment={remote.KEY: "SECRET"})
    assert (code, "in this folder" in err) == (0, False)
    write(service)
    code, _, err = run("doctor", connect=connect)
    assert (code, "M3CONNECT_ENCODER_KEY comes from elsewhere" in err) == (6, True)


def test_a_rerankers_key_stays_with_its_address(run):
    """Neither passages nor a key go to a reranker of a folder's file; a model's name is no address."""
    key = {reranking.KEY: "SECRET"}
    write('[search]\nreranker = "http://127.0.0.1:9"\n')
    code, _, err = run("search", "x", environment=key)
    assert (code, "M3CONNECT_RERANKER_KEY comes from elsewhere" in err) == (6, True)
    write('model = "http://127.0.0.1:9"\n')  # which gets the encoder's key alone
    assert run("doctor", environment=key)[0] != 6


@pytest.mark.parametrize("place", ["/elsewhere/x", "../x", "a/../../x"])
def test_a_folders_file_names_no_places_outside(run, place):
    """What is written lies under the folder, until the file is confirmed."""
    write(f'[ingest]\ndead_letters = "{place}"\n')
    code, _, err = run("ingest", "docs")
    assert (code, "to a place outside it" in err) == (6, True)


def test_help_needs_no_settings(run):
    """A broken file does not keep anybody from reading the help."""
    write("a = = 1")
    code, out, _ = run("search", "--help")
    assert (code, "--mode" in out) == (0, True)
