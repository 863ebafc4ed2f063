"""What reaches the terminal: no secret, nothing alive, no traceback, JSON errors."""

import base64
import contextlib
import io
import json
import logging
import os
import random
import subprocess
import sys
from urllib.parse import quote

import pytest

from m3connect import cli
from m3connect.cli import console
from m3connect.cli.running import Services
from m3connect.contract import CollectionSchema
from m3connect.errors import InputError, PermanentError, TransientError, without_secrets
from m3connect.ingestion import ingest
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document, RecordBatch

SECRET = "hunter2-" + "x9"


def test_equal_warnings_become_one_counted_line():
    """Once a minute, and the rest at the end; other lines are as they were."""
    out, now = io.StringIO(), [0.0]
    handler = console.Counting(out, lambda: now[0])
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def warn(message, *values, level=logging.WARNING):
        handler.handle(logging.LogRecord("x", level, "", 0, message, values, None))

    for at in range(5):
        warn("away: %s", "host")
        warn("read %d", at, level=logging.INFO)
        warn("other %d", at)
    now[0] = 61.0
    warn("away: %s", "host")
    warn("away: %s", "host")
    warn("other 0")
    lines = [f"INFO read {at}\nWARNING other {at}\n" for at in range(5)]
    before = "WARNING away: host\n" + "".join(lines)
    assert out.getvalue() == f"{before}WARNING (4 times more) away: host\nWARNING other 0\n"
    handler.close()
    assert out.getvalue().endswith("WARNING other 0\nWARNING (once more) away: host\n")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command line with a fake encoder and connector; exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, connect=None):
        services = Services(connect or _broken(RuntimeError("none")), _load)
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments], services)
        return exit_.value.code, *capsys.readouterr()

    return call


def _load(*_, **__):
    return HashEncoder()


def _broken(error):
    def connect(*_, **__):
        raise error

    return connect


def _holding(*texts):
    """Opens a collection with these texts."""

    def connect(*_, collection, **__):
        encoder = HashEncoder()
        connector = MemoryConnector(collection=collection)
        connector.ensure(CollectionSchema(16, True, 16, fingerprint=encoder.info.fingerprint))
        payloads = [{"text": text, "lang": "en"} for text in texts]
        ids = [f"{text[:9]}{n}" for n, text in enumerate(texts)]
        connector.upsert(RecordBatch(ids, payloads, encoder.encode(list(texts))))
        return connector

    return connect


# -------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "option",
    [
        f"http://bob:{SECRET}@127.0.0.1:99999",
        f"http://bob:{SECRET}@[::1",
        f"http:/bob:{SECRET}@host",
        f"bob:{SECRET}@host:9200",
        f"http://bob:a/{SECRET}@host",
        f"http://bob:a@{SECRET}@host",
        f"http://{SECRET}@host",
        f"http://host:1/?api_key={SECRET}",
        f"http://host:1/?x=1&password={SECRET}",
        f"nonsense://bob:{SECRET}@host",
    ],
)
@pytest.mark.parametrize("echo", ["plain", "quoted", "header", "percent"])
def test_no_form_of_an_address_shows_its_secret(run, option, echo):
    """Whatever a driver or a server echoes of it, in messages, JSON and logs."""
    said = {
        "plain": f"cannot connect to {option}",
        "quoted": repr({"url": option, "password": SECRET}),
        "header": "401: " + base64.b64encode(f"bob:{SECRET}".encode()).decode(),
        "percent": quote(option, safe=""),
    }[echo]
    error = PermanentError(said, connector="qdrant", operation="search")
    error.__cause__ = RuntimeError(said)
    hidden = (SECRET, quote(SECRET), base64.b64encode(f"bob:{SECRET}".encode()).decode())
    for more in ([], ["--json"]):
        arguments = ["-v", "search", "x", "--url", option, *more]
        code, out, err = run(*arguments, connect=_broken(error))
        assert code == 1
        assert "***" in err or echo == "header"
        assert not [form for form in hidden if form in out + err and f"bob:{SECRET}@" in option]
        assert SECRET not in out + err


@pytest.mark.parametrize("name", ["password", "token", "secret_key"])
def test_an_options_secret_is_not_echoed(run, name):
    """Neither of ``--target-option``, well-formed or not, nor of ``--api-key``."""
    error = RuntimeError(f"bad login {SECRET}")
    for arguments in (
        ["--target-option", f"{name}={SECRET}"],
        [f"--target-option={name}={SECRET}"],
        ["--api-key", SECRET],
        [f"--api-key={SECRET}"],
    ):
        code, out, err = run("search", "x", *arguments, connect=_broken(error))
        assert (code, "bad login ***" in err) == (1, True)
        assert SECRET not in out + err


def test_the_name_of_a_file_with_keys_is_no_secret(run):
    """It is told, or nobody could tell what is wrong with it."""
    _, out, err = run("serve", "--key-file", "mislaid.txt")
    assert "mislaid.txt" in out + err


def test_errors_from_python_hold_no_secret():
    """The message of every error of ours is masked by its form."""
    assert SECRET not in str(InputError(f"no file at s3://key:{SECRET}@bucket/x"))


@pytest.mark.parametrize(
    "text",
    [
        "the pair a:b is no filter",
        "docs/a.md:12: not UTF-8",
        "--api-key, M3CONNECT_API_KEY",
        "it takes (url: 'str | None' = None, api_key: 'str | None' = None)",
        "write to me@example.org",
        "http://127.0.0.1:6333/collections: refused",
    ],
)
def test_what_is_no_secret_stays(text):
    """Messages are not eaten."""
    assert without_secrets(text) == text


@pytest.mark.parametrize("target", ["qdrant", "milvus", "elasticsearch"])
@pytest.mark.parametrize(
    "url",
    [
        "http://b:{}@h:99999",
        "http://b:{}@[::1",
        "http://",
        "http://b:{} @h",
        "b:{}@h:6333",
        "ftp://b:{}@h",
        "foo:bar",
        "h:9x",
        "./col",
        "~/col",
    ],
)
def test_an_address_that_no_driver_parses_is_bad_usage(run, target, url):
    """Exit code 2 and one line, whatever the driver would raise."""
    from m3connect.connecting.registry import connect

    given = url.format(SECRET)
    code, out, err = run("search", "x", "--target", target, "--url", given, connect=connect)
    assert (code, out, "is no address of a server" in err) == (2, "", True)
    assert SECRET not in err


def test_what_was_tried_is_said(run):
    """A server that is not there is named, without its password."""
    gone = TransientError("connection refused", connector="qdrant", operation="search")
    where = ("search", "x", "--url", f"http://bob:{SECRET}@127.0.0.1:9")
    code, _, err = run(*where, connect=_broken(gone))
    assert (code, err) == (
        5,
        "Error: qdrant search: connection refused; tried http://***@127.0.0.1:9\n",
    )


@pytest.mark.parametrize("place", ["a.txt/x.jsonl", "."])
def test_dead_letters_that_cannot_be_written_are_found_before_the_run(run, tmp_path, place):
    """Nothing is read or written."""
    (tmp_path / "a.txt").write_text("one")
    connector = MemoryConnector(collection="documents")
    arguments = ("ingest", "a.txt", "--dead-letters", place)
    code, _, err = run(*arguments, connect=lambda *_, **__: connector)
    assert (code, "--dead-letters" in err) == (2, True)


# ----------------------------------------------------------------------------- control characters

ALIVE = "safe \x1b[31mred\x1b]0;title\x07 \x9b2J \x00 \u202eback \u2066 \x7f \r over"


@pytest.mark.parametrize("more", [[], ["--explain"], ["--compare"], ["--json"]])
def test_a_documents_control_characters_are_shown(run, more):
    """They are written out, on a pipe as on a terminal; JSON keeps their meaning."""
    code, out, err = run("search", "safe", *more, connect=_holding(ALIVE))
    assert (code, err) == (0, "")
    assert not [each for each in ALIVE if each != " " and not each.isprintable() and each in out]
    if more == ["--json"]:
        assert json.loads(out)["text"] == ALIVE
    else:
        assert "\\x1b[31m" in out or "\\x1b" in out


def test_an_errors_control_characters_are_shown(run):
    """A message may quote a document."""
    code, _, err = run("search", "x", connect=_broken(InputError("id '\x1b[2J'")))
    assert (code, "\x1b[2J" in err, "\\x1b[2J" in err) == (2, False, True)


PRINTS = r"""
import typer
from m3connect.cli.console import guarded, json_line, masker
text = "\u4e2d caf\u00e9 \U0001f600"
with guarded(masker([])):
    typer.echo(text)
    typer.echo(json_line({"t": text}))
    typer.echo(text, err=True)
"""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "cp437"])
def test_no_encoding_ends_the_output(encoding):
    """A console that cannot show a character gets it written out, and JSON stays JSON."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", PRINTS], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[1]
    assert json.loads(line.decode(encoding))["t"] == "\u4e2d caf\u00e9 \U0001f600"


# ------------------------------------------------------------------------------- nothing is found


def test_no_hits_come_with_their_reason(run):
    """How many passages the filter leaves, and which field nobody has; on stderr with JSON."""
    where = ("search", "two", "--filter", 'lnag == "de"')
    code, out, err = run(*where, connect=_holding("one", "two"))
    assert (code, out) == (0, "no hits: the filter leaves none of 2 passages\n")
    assert "no passage has the field 'lnag'" in err
    _, out, err = run(*where, "--json", connect=_holding("one", "two"))
    assert (out, "no hits: the filter leaves none" in err) == ("", True)


def test_a_least_score_that_none_reaches_is_the_reason(run):
    """Not that none were like the query."""
    where = ("search", "two", "--min-score", "dense=1.5")
    _, out, _ = run(*where, connect=_holding("one", "two"))
    assert out == "no hits: none that was found reaches dense=1.5 (--min-score)\n"


def test_modes_that_a_collection_serves_are_compared(run):
    """Those that it cannot are named, and no reason to show none."""

    def connect(*_, collection, **__):
        encoder = HashEncoder()
        connector = MemoryConnector(collection=collection)
        ingest([Document("keys", "rotate keys")], encoder, connector, legs=("dense", "sparse"))
        return connector

    code, out, err = run("search", "keys", "--compare", connect=connect)
    assert (code, "keys#0" in out, "hybrid" in out, "multivector" in out) == (0, True, True, False)
    assert "the collection stores dense, sparse: without multivector, all" in err


def test_compared_hits_name_their_mode_also_where_one_is_served(run):
    """Who reads the JSON finds the same keys, whatever the collection stores."""

    def connect(*_, collection, **__):
        encoder = HashEncoder()
        connector = MemoryConnector(collection=collection)
        ingest([Document("keys", "rotate keys")], encoder, connector, legs=("dense",))
        return connector

    _, out, _ = run("search", "keys", "--compare", "--json", connect=connect)
    assert json.loads(out)["mode"] == "dense"


def test_a_misspelt_field_is_noted_with_hits_too(run):
    """What is unlike matches everything when the field's name is wrong."""
    where = ("search", "two", "--filter", 'lnag != "de"')
    code, out, err = run(*where, connect=_holding("one", "two"))
    assert (code, "two" in out, "no passage has the field 'lnag'" in err) == (0, True, True)
    assert run("search", "two", "--filter", 'lang == "en"', connect=_holding("two"))[2] == ""


def test_a_blank_query_is_refused(run):
    """Exit code 2, before anything is opened."""
    assert run("search", " ")[0] == 2


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RecursionError("deep"), 1),
        (ValueError("odd"), 1),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), 1),
        (PermissionError(13, "Permission denied", "x.jsonl"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_nothing_ends_in_a_traceback(run, error, code):
    """What nobody foresaw is one message; the details are in the log of ``-v``."""
    found, out, err = run("search", "x", connect=_broken(error))
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert err.startswith("Error: ")


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["search", "x", "--json", "--mode", "fuzzy"], 2, None),
        (["search", "x", "--json", "--filter", "lang ="], 2, "InputError"),
        (["search", "x", "--json", "--weights", "1,nan,2"], 2, "ConfigError"),
        (["search", "x", "--json", "--nonsense"], 2, None),
        (["ingest", "nowhere", "--json"], 2, "ConfigError"),
        (["report", "nowhere", "--json"], 2, None),
    ],
)
def test_with_json_errors_are_json(run, arguments, code, kind):
    """One object on stderr, nothing on stdout."""
    found, out, err = run(*arguments, connect=_holding("text"))
    error = json.loads(err)["error"]
    assert (found, out, error["exit_code"]) == (code, "", code)
    assert error["message"]
    assert kind in {None, error["type"]}


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_is_respected(tmp_path, variables, coloured):
    """On a terminal an error is red, unless ``NO_COLOR`` is set."""
    leader, follower = os.openpty()
    code = "from m3connect.cli import main; main(['search'])"
    environment = {**os.environ, "TERM": "xterm", **variables}
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=tmp_path,
            stderr=follower,
            check=False,
        )
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal without a writer ends
            while part := terminal.read(4096):
                shown += part
    assert b"queries" in shown
    assert (b"\x1b[3" in shown) == coloured


# ------------------------------------------------------------------------------------ seeded fuzz


def _odd_values(drawn):
    """Texts that arguments, files and answers never have in examples."""
    pool = [
        "", " ", "-", "--", "\x00", "\x1b[2J", "\ud800", "9" * 400, "-1", "0", "1e999", "nan",
        "[" * 200, '{"a":', "a=b", "=", ",", ",,,", "/", "..", "/dev/null", "/proc/self/mem",
        "http://", "http://[", "s3://", "file::memory:", "mailto:x", "zip://a::b", "'; drop", "%00",
        "\u202e", "none", "all", "dense", "1,2,3", "1,2", "lang ==", 'lang == "de"', "x" * 5000,
    ]  # fmt: skip
    return drawn.choice(pool)


@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 12))]
)
def test_odd_arguments_end_in_one_message(run, tmp_path, seed):
    """Exit code and message for whatever stands in flags and files; never a traceback."""
    drawn = random.Random(seed)
    flags = {
        "search": ["--filter", "--weights", "--limit", "--depth", "--queries", "--mode", "--url",
                   "--target-option", "--rrf-k", "--collection"],
        "ingest": ["--legs", "--index-field", "--metadata-field", "--chunk-tokens", "--id-field"],
        "report": ["--base", "--modes", "--metrics"],
        "score": ["--output", "--weights"],
        "merge": ["--weights", "--output"],
        "eval": ["--dataset", "--modes", "--baseline", "--storage", "--weights", "--metrics"],
        "copy": ["--from", "--to", "--from-option"],
    }  # fmt: skip
    for _ in range(12):
        command = drawn.choice(sorted(flags))
        arguments = [command, _odd_values(drawn)]
        for flag in drawn.sample(flags[command], k=2):
            arguments += [flag, _odd_values(drawn)]
        if drawn.random() < 0.3:
            content = drawn.choice(
                ['{"a": 1}', "\xff\xfe", "", "a,b\n1,2", '{"_id": 1, "text": 2}']
            )
            (tmp_path / "file.jsonl").write_bytes(content.encode("latin-1"))
            arguments += ["--queries", "file.jsonl"] if command == "search" else []
        code, _, err = run(*arguments, connect=_holding("one", "two"))
        assert code in {0, 1, 2, 4}, (arguments, err)
        assert "Traceback" not in err, (arguments, err)
        assert "fault of m3connect" not in err, (arguments, err)
        assert "\x1b[2J" not in err, arguments


def test_visible_keeps_what_people_write():
    """Joined emoji, accents and scripts stay as they are."""
    text = "naïve \u05d0\u05d1 \U0001f468\u200d\U0001f469 e\u0301\ttab\n"
    assert console.visible(text) == text
