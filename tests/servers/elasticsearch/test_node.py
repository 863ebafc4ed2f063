"""The launcher: what it starts is Elasticsearch, and when it ends nothing is left."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.servers.elasticsearch import node as launcher
from tests.servers.elasticsearch.node import NEWEST, Node, NodeUnavailable, live_node

ROOT = Path(__file__).parents[3]


def ask(url, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def gone(pid):
    """Whether a process has ended, waiting a little for it."""
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.live
def test_a_node_starts_stops_and_leaves_nothing():
    """It answers with its version, keeps its data and port through stop and kill, and goes."""
    with live_node() as node:
        url, home, pid = node.url, node._home, node._process.pid
        assert ask(url)["version"]["number"] == NEWEST
        ask(f"{url}/notes/_doc/1", {"text": "kept"}, "PUT")
        node.kill()
        assert gone(pid)
        node.start()
        assert node.url == url
        assert ask(f"{url}/notes/_doc/1")["_source"] == {"text": "kept"}
        assert ask(f"{url}/_license")["license"]["type"] == "basic"
        node.stop()
        with pytest.raises(OSError):
            ask(url)
    assert not home.exists()


@pytest.mark.live
def test_a_node_ends_with_the_process_that_started_it():
    """A test run that is killed leaves no server behind."""
    code = (
        "import time\nfrom tests.servers.elasticsearch.node import Node\n"
        "node = Node()\nnode.start()\nprint(node._process.pid, node._home, flush=True)\n"
        "time.sleep(60)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with run:
        line = run.stdout.readline().split()
        run.send_signal(signal.SIGKILL)
    assert line, "it did not start, though the test before this one could"
    shutil.rmtree(line[1], ignore_errors=True)
    assert gone(line[0])


def test_a_machine_without_java_says_so(monkeypatch, tmp_path):
    """What is missing is in the message, and no folder is left."""
    monkeypatch.setattr(launcher, "_homes", lambda: [tmp_path])
    node = Node()
    with pytest.raises(NodeUnavailable, match="JDK 21"), node:
        pass
    assert not node._home.exists()


def test_a_machine_without_maven_says_so(monkeypatch, tmp_path):
    """Without mvn the jars cannot be fetched."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NodeUnavailable, match="mvn"):
        launcher._fetch(NEWEST, tmp_path / "lib", tmp_path)


def test_the_release_of_a_jdk_is_read(tmp_path):
    """Old and new forms of the version, and a folder that is no JDK."""
    (tmp_path / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="25.0.1"\n')
    assert launcher._release(tmp_path) == 25
    (tmp_path / "release").write_text('JAVA_VERSION="26-ea"\n')
    assert launcher._release(tmp_path) == 26
    assert launcher._release(tmp_path / "nothing") == 0
