"""A real Elasticsearch node, from Maven artifacts, for tests.

    with live_node("9.5.3") as node:
        node.url       # http://127.0.0.1:<a free port>
        node.kill()    # SIGKILL: what a crash is
        node.start()   # the same data on the same port

The jars come from Maven Central and are kept in ``.build`` beside this file; the classes in
``java`` make a node of them. What is real: the server, its HTTP layer, its storage, its basic
licence. What is missing: the modules that no public Maven repository carries, among them
scripting, ``delete_by_query`` and the paid retrievers. What is a stand-in: ``GET /``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

HERE = Path(__file__).parent
BUILD = HERE / ".build"
NEWEST, OLDER = "9.5.3", "8.19.21"
_JDK = {"9": 21, "8": 17}
SMALL = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Options of Java for tests: little memory, and a compiler that is done soon."""
_PATIENCE = 180.0


class NodeUnavailable(RuntimeError):
    """This machine lacks what a node needs, or the node did not start; says which."""


class Node:
    """One node with a data directory of its own, on a free port of 127.0.0.1.

    Args:
        version: an exact release, such as :data:`NEWEST`.
        settings: further node settings, such as ``{"http.max_content_length": "1mb"}``.
        java: options of Java.

    Raises:
        NodeUnavailable: on :meth:`start`.
    """

    def __init__(
        self,
        version: str = NEWEST,
        settings: Mapping[str, str] | None = None,
        java: Sequence[str] = SMALL,
    ) -> None:
        self.version = version
        self._java = java
        self._settings = dict(settings or {})
        self._home = Path(tempfile.mkdtemp(prefix="m3connect-es-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers; the same after a restart."""
        return f"http://127.0.0.1:{self._settings['http.port']}"

    def start(self) -> None:
        """Build it if need be, start it and wait until its shards answer."""
        home = _jdk(self.version)
        classes = _build(self.version, home)
        written = self._home / "port"
        written.unlink(missing_ok=True)
        command = [
            str(home / "bin" / "java"),
            *self._java,
            *_native(),
            *("-cp", f"{classes}:{HERE / 'resources'}:{classes.parent / 'lib'}/*"),
            "org.elasticsearch.node.JarNode",
            str(self._home),
            *(f"{name}={value}" for name, value in self._settings.items()),
        ]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _PATIENCE
        while not written.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NodeUnavailable(
                    f"Elasticsearch {self.version} did not start:\n{self._tail()}"
                )
            time.sleep(0.05)
        self._settings["http.port"] = written.read_text()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=_PATIENCE)
            if process.stdin is not None:
                process.stdin.close()

    def close(self) -> None:
        """End it and delete its data."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _tail(self) -> str:
        return (self._home / "log").read_text(errors="replace")[-2000:]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def live_node(version: str = NEWEST, settings: Mapping[str, str] | None = None) -> Iterator[Node]:
    """A running node for a test; where there can be none it is skipped, and in CI it fails."""
    try:
        with Node(version, settings) as node:
            yield node
    except NodeUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def _jdk(version: str) -> Path:
    """The home of the first installed JDK that is new enough."""
    wanted = _JDK[version.split(".", maxsplit=1)[0]]
    for home in _homes():
        if (home / "bin" / "javac").exists() and _release(home) >= wanted:
            return home
    raise NodeUnavailable(
        f"Elasticsearch {version} needs a JDK {wanted} or later; none in JAVA_HOME or /usr/lib/jvm"
    )


def _homes() -> list[Path]:
    """Where a JDK may be."""
    return [Path(os.environ.get("JAVA_HOME", "/nowhere")), *sorted(Path("/usr/lib/jvm").glob("*"))]


def _release(home: Path) -> int:
    """The feature release of a JDK, 0 when it does not say."""
    try:
        lines = (home / "release").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split('"')[1] for line in lines if line.startswith("JAVA_VERSION=")]
    return int(found[0].split(".")[0].split("-")[0]) if found else 0


def _build(version: str, home: Path) -> Path:
    """The compiled classes; the jars lie beside them in ``lib``. Made once, under a lock."""
    place = BUILD / version
    place.mkdir(parents=True, exist_ok=True)
    classes = place / "classes"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = sorted((HERE / "java" / "common").rglob("*.java"))
        sources += sorted((HERE / "java" / f"v{version[0]}").rglob("*.java"))
        made = place / "made"
        newest = max(path.stat().st_mtime for path in [*sources, HERE / "pom.xml"])
        if not made.exists() or made.stat().st_mtime < newest:
            _fetch(version, place / "lib", home)
            _compile(sources, classes, place / "lib", home, _JDK[version[0]])
            made.touch()
    return classes


def _fetch(version: str, lib: Path, home: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NodeUnavailable("Elasticsearch's jars are fetched by Maven: there is no mvn")
    shutil.rmtree(lib, ignore_errors=True)
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={lib}")
    pom = ("-f", str(HERE / "pom.xml"), f"-Delasticsearch.version={version}")
    _run([maven, "-q", "-B", *pom, *goal], home)


def _compile(sources: list[Path], classes: Path, lib: Path, home: Path, release: int) -> None:
    shutil.rmtree(classes, ignore_errors=True)
    javac = (str(home / "bin" / "javac"), "-proc:none", "-nowarn", "--release", str(release))
    _run([*javac, "-d", str(classes), "-cp", f"{lib}/*", *map(str, sources)], home)


def _run(command: list[str], home: Path) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, "JAVA_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output = (done.stdout + done.stderr)[-2000:]
        raise NodeUnavailable(f"{Path(command[0]).name} failed:\n{output}")


def _native() -> list[str]:
    """The system's zstd stands in for the distribution's; its vector library is not published."""
    place = BUILD / "native"
    place.mkdir(parents=True, exist_ok=True)
    found = [
        path
        for folder in ("/usr/lib", "/lib", "/usr/lib64")
        for path in Path(folder).glob("*/libzstd.so.1")
    ]
    link = place / "libzstd.so"
    if found and not link.exists():
        link.symlink_to(found[0])
    return [
        f"-Des.nativelibs.path={place}",
        "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
    ]
