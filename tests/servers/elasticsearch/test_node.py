"""The launcher: what it starts is Elasticsearch, and when it ends nothing is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.servers.elasticsearch import node as launcher
from tests.servers.elasticsearch.node import NEWEST, Node, NodeUnavailable

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
def test_a_node_answers_and_ends_with_the_process_that_started_it():
    """It is the version that was asked for, with a basic licence; a killed run leaves no server behind.

    (That it keeps data and port when it is killed is what the tests of crashes rely on.)
    """
    code = (
        "import time\nfrom tests.servers.elasticsearch.node import Node\n"
        "node = Node()\nnode.start()\nprint(node._process.pid, node._home, node.url, flush=True)\n"
        "time.sleep(60)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with run:
        if not (line := run.stdout.readline().split()):
            unavailable()
        pid, home, url = line
        assert ask(url)["version"]["number"] == NEWEST
        assert ask(f"{url}/_license")["license"]["type"] == "basic"
        run.send_signal(signal.SIGKILL)
    shutil.rmtree(home, ignore_errors=True)
    assert gone(pid)
    with pytest.raises(OSError):
        ask(url)


def unavailable():
    """Where no node can be started at all the test is skipped, and in CI it fails."""
    message = "no node of Elasticsearch started here"
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


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
