"""Files that a library converts, in a child process that can be stopped, by time and by memory.

A parser may run for ever, fill the memory or crash on a file made so. In a child it costs that file:
the child is ended and the next file gets a new one. It is started by the first file that needs it.

One line of JSON and then the file's bytes go to the child; one line of JSON comes back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import IO, Any, Literal, Self

from m3connect.errors import InputError

MEMORY = 4 << 30
"""Bytes that the child may have, where the system can limit it."""
RECURSION = 5000  # pages are nested deeper than Python's default of 1,000 allows for

_CODE = "import sys; from m3connect.conversion.converter import serve; serve(float(sys.argv[1]))"

NEEDS_EXTRA = frozenset({".pdf", ".docx", ".pptx", ".xlsx", ".epub", ".ipynb", ".odt", ".xml"})
CONVERTED = NEEDS_EXTRA | {".html", ".htm", ".xhtml", ".eml"}


@dataclass(frozen=True, slots=True)
class Page:
    """A whole file as one text.

    Args:
        text: all of it.
        title: if it has one.
        format: how the text is marked up.
        metadata: what the file says of itself, as JSON values.
        guessed: its encoding, if that had to be guessed.
    """

    text: str
    title: str | None = None
    format: Literal["text", "markdown"] = "text"
    metadata: dict[str, Any] = field(default_factory=dict)
    guessed: str | None = None


def convert(content: bytes, suffix: str, encoding: str | None, limit: int) -> Page:
    """Convert in this process; arguments as :meth:`Converter.convert` takes them."""
    from m3connect.conversion import html, office

    if suffix == ".eml":
        text, title, metadata = office.mail_to_text(content)
        return Page(text, title, "markdown", metadata)
    if suffix == ".xml":
        return Page(*office.xml_to_text(content))
    if suffix == ".odt":
        return Page(*office.odt_to_markdown(content, limit), "markdown")
    if suffix in NEEDS_EXTRA:
        return Page(*office.office_to_markdown(content, suffix, limit), "markdown")
    return Page(*html.html_to_markdown(content, encoding), "markdown")


class Converter:
    """The child process.

    Args:
        seconds: that one file may take.
        limit: bytes that one file may unpack to.
    """

    def __init__(self, seconds: float, limit: int) -> None:
        self.seconds = seconds
        self.limit = limit
        self._child: subprocess.Popen[bytes] | None = None

    def convert(self, content: bytes, suffix: str, encoding: str | None) -> Page:
        """A file's text.

        Args:
            content: the file.
            suffix: its format, one of ``CONVERTED``.
            encoding: of HTML; None tells it.

        Raises:
            InputError: it cannot be converted, or not within the limits.
        """
        child = self._child = self._child or _start(self.seconds)
        assert child.stdin is not None
        assert child.stdout is not None
        request = {"suffix": suffix, "encoding": encoding, "limit": self.limit}
        expired = threading.Event()

        def give_up() -> None:
            expired.set()
            child.kill()

        watch = threading.Timer(self.seconds, give_up)
        watch.daemon = True
        watch.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps({**request, "size": len(content)}).encode() + b"\n")
                child.stdin.write(content)
                child.stdin.flush()
            answer = child.stdout.readline()
        except BaseException:
            self.close()  # an answer that nobody waits for must not be taken for the next one's
            raise
        finally:
            watch.cancel()
        if not answer.endswith(b"\n"):
            code = child.wait()
            self.close()
            if expired.is_set():
                raise InputError(f"converting it took more than {self.seconds:g} s")
            raise InputError(f"the converter died of it (exit {code})")
        reply = json.loads(answer)
        if "error" in reply:
            raise InputError(reply["error"])
        return Page(**reply)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with contextlib.suppress(BrokenPipeError), child:  # closes the pipes and waits
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _start(seconds: float) -> subprocess.Popen[bytes]:
    # -P: nothing is imported from the current folder, which may be the one that is read. A session
    # of its own: Ctrl-C goes to the parent alone.
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(  # noqa: S603 - this very interpreter
        [sys.executable, "-P", "-c", _CODE, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    )


def serve(seconds: float) -> None:
    """Answer requests until the parent closes the pipe: what the child runs."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print do not break the protocol
    _limit_memory()
    sys.setrecursionlimit(RECURSION)
    while header := sys.stdin.buffer.readline():
        # Ends the child by itself, should the parent be gone and a library run on.
        faulthandler.dump_traceback_later(seconds + 5, exit=True)
        reply = _answer(json.loads(header), sys.stdin.buffer)
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(reply).encode() + b"\n")
        answers.flush()


def _answer(request: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    content = stream.read(request["size"])
    page: Callable[[], Page] = lambda: convert(  # noqa: E731
        content, request["suffix"], request["encoding"], request["limit"]
    )
    try:
        return asdict(page())
    except Exception as error:  # noqa: BLE001 - whatever a library raises is this file's fault
        return {"error": explain(error)}


def explain(error: Exception) -> str:
    """An exception of a library, for people.

    >>> explain(KeyError("xl/workbook.xml"))
    "KeyError: 'xl/workbook.xml'"
    """
    match error:
        case InputError():
            return str(error)
        case RecursionError():
            return "nested too deeply"
        case MemoryError():
            return "it takes more memory than there is"
        case _:
            text = " ".join(str(error).split())[:500]
            return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    # Data, not address space: libraries reserve far more of that than they use.
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY if most == resource.RLIM_INFINITY else min(MEMORY, most)
    with contextlib.suppress(ValueError, OSError):  # macOS does not know it
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
