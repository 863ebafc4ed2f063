"""A Postgres of Debian's package for one test: its own data, a UNIX socket, no network.

    with Server() as server:
        server.run("create table articles (id text primary key)")
        server.url          # for SQLAlchemy and psycopg

Postgres refuses to run as root; then it runs as the package's user ``postgres``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


class Server:
    """One server."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="m3connect-pg-", dir="/tmp"))
        self._bin = PROGRAMS[-1].parent
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.url = f"postgresql://postgres@/postgres?host={self._home}"

    def run(self, statements: str) -> None:
        """Run SQL statements; the first that fails is an error."""
        where = ["-h", str(self._home), "-U", "postgres"]
        self._call(self._bin / "psql", "-qv", "ON_ERROR_STOP=1", *where, "-c", statements)

    def __enter__(self) -> Self:
        if self._as:
            shutil.chown(self._home, "postgres")
        data = self._home / "data"
        self._call(self._bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N")
        options = f"-k {self._home} -c listen_addresses='' -c fsync=off"
        self._call(
            *(self._bin / "pg_ctl", "start", "-w", "-D", data),
            *("-o", options, "-l", self._home / "log"),
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._call(self._bin / "pg_ctl", "stop", "-m", "immediate", "-D", self._home / "data")
        shutil.rmtree(self._home)

    def _call(self, *command: str | Path) -> None:
        done = subprocess.run(
            [*self._as, *map(str, command)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server would keep a pipe open
            stderr=subprocess.PIPE if "psql" in str(command[0]) else subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr or command
