"""``m3connect serve`` as a user starts it."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from m3connect.cli import main
from m3connect.cli.serve import KEY
from m3connect.errors import ConfigError

httpx = pytest.importorskip("httpx")


@pytest.mark.slow
def test_it_serves_until_it_is_interrupted(tmp_path):
    """Ingested documents are found over HTTP, by two workers; Ctrl-C ends it without a traceback.

    The port is a free one, and told; a second service does not get it.
    """
    (tmp_path / "keys.md").write_text("# Keys\n\nKeys are rotated every ninety days.\n")
    target = ["--path", str(tmp_path / "data")]
    main_module = [sys.executable, "-m", "m3connect"]
    subprocess.run([*main_module, "ingest", "keys.md", *target], cwd=tmp_path, check=True)
    command = [*main_module, "serve", "--json", "--port", "0", "--workers", "2", *target]
    service = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        told = next(line for line in service.stderr if line.startswith("{"))
        address = json.loads(told)["url"].removesuffix("/")
        port = int(address.rpartition(":")[2])
        answer = httpx.post(
            f"{address}/v1/search", json={"query": "rotate keys"}, timeout=60
        ).json()
        assert answer["hits"][0]["text"].endswith("ninety days.")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            # Little more than is taken: what the service left unread would reset the connection.
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 66_000)
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        service.send_signal(signal.SIGINT)
        _, said = service.communicate(timeout=60)
    finally:
        service.kill()
        service.communicate()
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "needs a key"),
        (["--scope", 'a == "b"'], "binds keys"),
        (["--scope", ""], "binds keys"),
        (["--workers", "2", "--device", "cuda:0"], "give one of the two"),
        (["--key-file", "keys"], "keys holds no key"),
    ],
)
def test_unsafe_options_are_refused(capsys, monkeypatch, tmp_path, options, words):
    """Nothing listens where a key is missing."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(SystemExit) as ended:
        main(["serve", *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(capsys):
    """With the option that takes another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["serve", "--port", str(port), "--model", "./missing"])
    assert ended.value.code == 2
    assert f"port {port}: Address already in use. Another port: --port" in capsys.readouterr().err


def test_a_host_that_is_not_found_is_told(capsys, monkeypatch):
    """In the resolver's words, whose numbers are not those of the system's errors."""

    def nowhere(*_, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_server", nowhere)
    with pytest.raises(SystemExit):
        main(["serve", "--host", "localhost", "--model", "./missing"])
    assert "on localhost, port 8000: Name or service not known" in capsys.readouterr().err


def test_keys_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    """A line is a key and, if it has one, its filter; --scope binds every key besides."""
    from m3connect.cli.serve import _access
    from m3connect.filters import And, parse

    monkeypatch.setitem(os.environ, KEY, "e" * 20)
    file = tmp_path / "keys"
    file.write_text(f'# keys\n{"a" * 20} tenant == "a"\n{"b" * 20}\n')
    scopes = _access(file, "public == true").scopes
    assert scopes["a" * 20] == And((parse("public == true"), parse('tenant == "a"')))
    assert scopes["b" * 20] == scopes["e" * 20] == parse("public == true")
    file.write_text(f'{"a" * 20} tenant == "a"\n{"a" * 20}\n')
    with pytest.raises(ConfigError, match="stands twice"):
        _access(file, None)
