"""A real Milvus 2.3.5 for tests: the last that PyPI has for Linux on x86_64.

    with Server() as server:
        server.url       # unix:<a socket>
        server.freeze()  # it stops answering; thaw() ends that
        server.kill()    # SIGKILL: what a crash is
        server.start()   # the same data at the same address

It has one dense vector field a collection, and no sparse vectors. It asks for a login, see
:data:`TOKEN`. The package is kept in ``.build`` beside this file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

PACKAGE = "milvus==2.3.5"
TOKEN = "root:Milvus"
HERE = Path(__file__).parent
_ISOLATED = ("unshare", "--net", "--pid", "--fork", "--kill-child")


class ServerUnavailable(RuntimeError):
    """This machine lacks what the server needs, or it did not start; says which."""


class Server:
    """One server with data of its own in a network of its own.

    Raises:
        ServerUnavailable: on entering.
    """

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="m3connect-milvus-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix:{self._home / 'socket'}"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerUnavailable: it cannot run here, or did not start.
        """
        package = _package()
        command = [*_ISOLATED, sys.executable, str(HERE / "launcher.py"), str(self._home)]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(package)},
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"READY\n":
            said = (self._home / "log").read_text(errors="replace")[-2000:]
            raise ServerUnavailable(f"{PACKAGE} did not start: {said}")

    def kill(self) -> None:
        """End it at once, as a crash would; its data stays."""
        if self._process is not None:
            # The launcher is the first process of its namespace: the server ends before it.
            self._signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def freeze(self) -> None:
        """Let connections stand and answer nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the launcher, through which all traffic goes."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for child in children.read_text().split() if children.exists() else []:
            os.kill(int(child), number)


def _package() -> Path:
    """The folder with the package; fetched the first time."""
    if shutil.which("unshare") is None:
        raise ServerUnavailable("unshare (util-linux) is missing")
    allowed = subprocess.run([*_ISOLATED, "true"], capture_output=True, check=False)
    if allowed.returncode:
        raise ServerUnavailable(f"no private network: {allowed.stderr.decode(errors='replace')}")
    folder = HERE / ".build" / PACKAGE
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", PACKAGE]
        fresh = folder.with_suffix(".part")
        done = subprocess.run([*pip, "--target", str(fresh)], capture_output=True, check=False)
        if done.returncode:
            raise ServerUnavailable(
                f"{PACKAGE} cannot be installed: {done.stderr.decode(errors='replace')[-500:]}"
            )
        fresh.rename(folder)
    return folder
