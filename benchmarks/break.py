"""Break it: seeded malformed lines, damaged files, filters and credentials, and what went wrong.

    python benchmarks/break.py --lines 3000 --files 100 --filters 5000 --credentials 60

Prints, for each kind, how many inputs there were, how many ended in an error that is not ours
(a traceback), how many took longer than ``--seconds`` (a hang), and how many were lost: good records
beside a bad one that did not arrive, bad ones that left neither a document nor a dead letter, or
secrets that were shown. All but the first column should be 0. Line by line it can be repeated with
``--seed``.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from m3connect import ingestion
from m3connect.cli import console
from m3connect.errors import M3ConnectError
from m3connect.filters import parse
from m3connect.ingestion.report import Failure

GOOD = '{"id": "first", "text": "a good line"}', '{"id": "last", "text": "another one"}'
TABLE = "id,text,n\nfirst,a good line,1\n", "last,another one,3\n"
ODD = ['"', "{", "}", "[", "\\", "\\ud800", "\x00", "\x1b[31m", "9" * 5000, "null", "NaN", "é", ","]
PAGES = {
    ".md": "# Title\n\nText of a page with `code`.\n",
    ".html": "<html><body><p>Text of a page<table><tr><td>cell</body>",
    ".eml": "Subject: hello\nContent-Type: text/plain\n\nText of a mail.\n",
    ".jsonl": '{"id": "a", "text": "one"}\n',
    ".json": '[{"id": "a", "text": "one"}]',
    ".csv": "id,text\na,one\n",
    ".tsv": "id\ttext\na\tone\n",
}
FILTERS = [
    "lang",
    "==",
    '"de"',
    "and",
    "or",
    "not",
    "(",
    ")",
    "in",
    "[1, 2]",
    "<",
    "2020",
    "exists",
]


@dataclass(slots=True)
class Tally:
    """What one kind of input did."""

    inputs: int = 0
    tracebacks: int = 0
    hangs: int = 0
    lost: int = 0

    def add(self, seconds: float, check: Callable[[], bool]) -> str | None:
        """Try one input; ``check`` says whether something was lost. Returns what was raised."""
        self.inputs += 1
        started, raised = time.perf_counter(), None
        try:
            self.lost += check()
        except M3ConnectError:
            pass  # an error of ours is an answer
        except Exception as error:  # noqa: BLE001 - this is what is counted
            self.tracebacks += 1
            raised = repr(error)[:200]
        self.hangs += time.perf_counter() - started > seconds
        return raised


def mangled(text: str, dice: random.Random) -> str:
    """A text with one to four changes: a piece cut, doubled, or replaced by something odd."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(text) + 1)
        stop = min(len(text), start + dice.randrange(12))
        put = dice.choice(["", text[start:stop] * 2, dice.choice(ODD), chr(dice.randrange(0xD800))])
        text = text[:start] + put + text[stop:]
    return text


def lines(folder: Path, dice: random.Random) -> Callable[[], bool]:
    """A bad line between two good ones, of JSON or CSV."""
    if dice.random() < 0.5:
        middle = mangled('{"id": "b", "text": "bad", "n": {"a": [1, 2.5, null]}}', dice)
        path, text = folder / "a.jsonl", "\n".join([GOOD[0], middle.replace("\n", " "), GOOD[1]])
        needed = {"first", "last"}
    else:  # a quote may swallow what follows, but then it must be said
        path, text = folder / "a.csv", TABLE[0] + mangled('b,"bad, one",2', dice) + "\n" + TABLE[1]
        needed = {"first"}
    path.write_text(text, encoding="utf-8", errors="surrogatepass")

    def check() -> bool:
        read = list(ingestion.read([path]))
        ids = {each.id for each in read}
        failed = any(isinstance(each, Failure) for each in read)
        return not needed <= ids or not ("last" in ids or failed)

    return check


def files(folder: Path, dice: random.Random) -> Callable[[], bool]:
    """A damaged file beside a good one."""
    suffix = dice.choice(sorted(PAGES))
    data = bytearray(PAGES[suffix].encode(dice.choice(["utf-8", "utf-16", "utf-32"])) * 3)
    pack = dice.choice(["", ".gz", ".xz"])
    packers: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
    }
    data = bytearray(packers[pack](bytes(data)))
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    if dice.random() < 0.3:
        del data[dice.randrange(len(data)) :]
    bad, good = folder / f"bad{suffix}{pack}", folder / "good.md"
    bad.write_bytes(data)
    good.write_text("# Good\n\nThis one is fine.\n")

    def check() -> bool:
        return "good.md" not in {each.id for each in ingestion.read([folder])}

    return check


def filters(_: Path, dice: random.Random) -> Callable[[], bool]:
    """Words of the filter language in any order, some mangled."""
    text = " ".join(dice.choices(FILTERS, k=dice.randint(1, 12)))
    if dice.random() < 0.5:
        text = mangled(text, dice)
    if dice.random() < 0.01:
        text = "(" * 5000 + text

    def check() -> bool:
        parse(text)
        return False

    return check


def credentials(_: Path, dice: random.Random) -> Callable[[], bool]:
    """A secret in an address or an option, echoed by an error."""
    secret = "s3" + "".join(dice.choices("abcdefghijkXYZ019-_.", k=12)) + "q"
    form = dice.choice(
        [
            "--url http://bob:{}@host:6333",
            "--url http://bob:{}@[::1",
            "--url http://:{}@host",
            "--url bob:{}@host:99999",
            "--url https://host/?api_key={}",
            "--url https://host/a?sig={}&x=1",
            "--api-key {}",
            "--api-key=root:{}",
            "--target-option password={}",
            "--target-option token={}",
        ]
    )
    arguments = form.format(secret).split()
    value = arguments[-1].partition("=")[2] if "=" in arguments[-1] else arguments[-1]
    echo = dice.choice(["refused: {}", "ValueError('{}')", "{}: no such host", 'url="{}", port 1'])
    mask = console.masker(console.secrets(arguments, {}, {}))
    return lambda: any(secret in mask(echo.format(each)) for each in (arguments[-1], value, secret))


KINDS = {"lines": lines, "files": files, "filters": filters, "credentials": credentials}


def seeds(kind: str, seed: int, count: int) -> Iterator[random.Random]:
    """Dice for each input, so that one can be thrown again without the others."""
    return (random.Random(f"{kind} {seed} {number}") for number in range(count))


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for kind, count in {"lines": 300, "files": 100, "filters": 5000, "credentials": 60}.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="more than this is a hang")
    asked = parser.parse_args()
    raised: set[str] = set()
    print("| | inputs | tracebacks | hangs | lost or shown |\n|---|---|---|---|---|")
    for kind, make in KINDS.items():
        tally = Tally()
        for dice in seeds(kind, asked.seed, getattr(asked, kind)):
            with tempfile.TemporaryDirectory() as folder:
                raised.add(tally.add(asked.seconds, make(Path(folder), dice)) or "")
        print(f"| {kind} | {tally.inputs} | {tally.tracebacks} | {tally.hangs} | {tally.lost} |")
    for each in sorted(raised - {""})[:20]:
        print(each)


if __name__ == "__main__":
    main()
