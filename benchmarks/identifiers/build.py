"""Builds the identifier sets beside it out of documentation that installed packages bring along.

    python benchmarks/identifiers/build.py

Who looks for ``SIM108``, ``--no-deps`` or ``numpy.argpartition`` wants the page of that name and no other. Sources are
split: what ``dev`` is made of is not in ``test``. README.md lists them with versions and licences.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from m3connect.datasets.write import write_collection

LENGTH = 600
"""Characters of a page, cut after a line."""
EACH = {"code": 80, "function": 80, "option": 80, "version": 30, "standard": 40, "path": 40}
"""Queries of each type and split, where there are so many."""
HOLDERS = 5
"""A version, standard or path that more pages hold names none of them."""

FORMS = {
    "code": ["{}", "{}", "what does {} mean", "{} how to fix"],
    "function": ["{}", "{}", "{} example", "parameters of {}"],
    "option": ["{}", "{}", "what does {} do", "when should I use {}"],
    "version": ["new in {}", "since version {}", "{}"],
    "standard": ["{}", "{} support", "which part follows {}"],
    "path": ["{}", "{}", "what is in {}"],
}
STANDARD = re.compile(r"\b(?:PEP|RFC|ISO|IEEE|CWE|CVE|TR|BPO)[ -]?\d[\d:-]*\d\b")
VERSION = re.compile(
    r"version(?:added|changed|deprecated)::\s*(\d+(?:\.\d+)+)|deprecated::\s*(\d+(?:\.\d+)+)"
)
FILE = re.compile(r"(?<![\w/.:])(?:[\w.~-]+/){1,8}[\w.-]+\.\w{1,5}\b")


@dataclass(slots=True)
class Page:
    """A page, and the identifiers that it is the page of."""

    id: str
    text: str
    names: dict[str, list[str]] = field(default_factory=dict)  # by type


def ruff_rules() -> Iterator[Page]:
    """A page for each rule of ruff."""
    for rule in _ruff("rule", "--all"):
        if not rule["code"]:
            continue
        since = str(
            rule["status"].get("Stable", rule["status"].get("Preview", {})).get("since", "")
        )
        text = (
            f"{rule['name']} ({rule['code']})\n\n{rule['summary']}\n\n{_cut(rule['explanation'])}\n\n"
            f"Derived from {rule['linter']}. Added in ruff {since}. {rule['fix']} "
            f"Source: {rule['source_location']['file']}"
        )
        yield Page(f"ruff:{rule['code']}", text, {"code": [rule["code"]]})


def ruff_settings() -> Iterator[Page]:
    """A page for each setting of ruff."""
    for name, setting in _ruff("config").items():
        text = (
            f"{name}\n\n{_cut(setting['doc'])}\n\nDefault: {setting['default']}\n"
            f"Type: {setting['value_type']}\nExample: {setting['example']}"
        )
        yield Page(f"ruff-config:{name}", text, {"option": _telling(name)})


def _ruff(*arguments: str) -> Any:
    return json.loads(
        _printed([sys.executable, "-m", "ruff", *arguments, "--output-format", "json"])
    )


def _printed(command: list[str]) -> str:
    wide = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=wide).stdout


def docstrings(package: str, modules: list[str]) -> Iterator[Page]:
    """A page for each public function and class, as pydoc shows it."""
    seen = set()
    for name in modules:
        module = importlib.import_module(name)
        for public in sorted(getattr(module, "__all__", None) or vars(module)):
            item = getattr(module, public, None)
            text = inspect.getdoc(item) if callable(item) and not public.startswith("_") else None
            if not text or len(text) < 80 or id(item) in seen:
                continue
            seen.add(id(item))
            home = getattr(item, "__module__", None) or name
            if home.partition(".")[0].lstrip("_") != package and package != "python":
                continue
            try:
                signature = str(inspect.signature(item))[:200]
            except (TypeError, ValueError):
                signature = "(...)"
            whole = f"{name}.{public}"
            yield Page(
                f"{package}:{whole}",
                f"{whole}{signature}\n\n{_cut(text)}",
                {"function": _telling(whole)},
            )


def module_pages(names: list[str]) -> Iterator[Page]:
    """A page for each module, with its file, as pydoc shows it."""
    for name in names:
        module = importlib.import_module(name)
        text = inspect.getdoc(module)
        if text and len(text) > 60:
            path = name.replace(".", "/") + (
                "/__init__.py" if hasattr(module, "__path__") else ".py"
            )
            yield Page(f"python:{name}", f"Module {name}\n\n{_cut(text)}\n\nFile: Lib/{path}")


def help_pages(program: str, command: list[str]) -> Iterator[Page]:
    """A page for each option that a program's help explains."""
    shown = _printed([sys.executable, "-m", *command])
    entry = re.compile(
        r"^ {2,4}(-[^\n]*?)(?: {2,}|\n {6,})(\S[^\n]*(?:\n {6,}\S[^\n]*)*)", re.MULTILINE
    )
    for flags, text in entry.findall(shown):
        names = re.findall(r"--[\w-]{4,}", flags)
        if names:
            said = " ".join(text.split())
            yield Page(
                f"{program}:{names[0]}", f"{program} {flags}\n\n{said}", {"option": names[:1]}
            )


def mypy_codes() -> Iterator[Page]:
    """A page for each error code of mypy."""
    from mypy.errorcodes import error_codes

    for code in error_codes.values():
        text = f"mypy error code [{code.code}], category {code.category}\n\n{code.description}"
        yield Page(f"mypy:{code.code}", text, {"code": [code.code] if "-" in code.code else []})


def http_statuses() -> Iterator[Page]:
    """A page for each status of HTTP."""
    for status in HTTPStatus:
        text = f"http.HTTPStatus.{status.name} = {status.value}\n\n{status.phrase}. {status.description}"
        yield Page(f"http:{status.value}", text, {"code": [f"HTTP {status.value}", status.name]})


def object_identifiers() -> Iterator[Page]:
    """A page for each object identifier that cryptography names."""
    from cryptography.x509 import oid

    for group in sorted(name for name in vars(oid) if name.endswith("OID")):
        for name, value in sorted(vars(getattr(oid, group)).items()):
            number = getattr(value, "dotted_string", None)
            if number:
                text = f"cryptography.x509.oid.{group}.{name}\n\nObject identifier {number}"
                yield Page(f"oid:{group}.{name}", text, {"standard": [number]})


def _telling(name: str) -> list[str]:
    """A dotted name, and its last part if that alone is no common word."""
    last = name.rpartition(".")[2]
    return [name, last] if re.search(r"[_\d-]|[a-z][A-Z]", last) else [name]


def _cut(text: str) -> str:
    if len(text) <= LENGTH:
        return text
    return text[: text.rfind("\n", 0, LENGTH)]


# -------------------------------------------------------------------------------- sets of pages


def dev() -> Iterator[Page]:
    """Pages of the development set."""
    yield from ruff_rules()
    yield from ruff_settings()
    yield from docstrings(
        "numpy", ["numpy", "numpy.linalg", "numpy.fft", "numpy.polynomial", "numpy.testing"]
    )


def test() -> Iterator[Page]:
    """Pages of the test set."""
    parts = "os os.path shutil subprocess socket ssl asyncio itertools functools collections re json logging random "
    parts += "statistics datetime decimal fractions tempfile threading urllib.parse inspect textwrap string heapq "
    parts += "bisect difflib zipfile tarfile csv configparser argparse base64 hashlib hmac struct unicodedata codecs"
    yield from docstrings("python", parts.split())
    yield from docstrings(
        "scipy", ["scipy.stats", "scipy.sparse", "scipy.signal", "scipy.optimize"]
    )
    import encodings

    codecs = [f"encodings.{each.name}" for each in pkgutil.iter_modules(encodings.__path__)]
    known = sorted(
        set(sys.stdlib_module_names) - {"antigravity", "this", "idlelib", "lib2to3", "turtledemo"}
    )
    yield from module_pages([name for name in codecs if not name.endswith(("mbcs", "oem"))])
    yield from module_pages(
        [name for name in known if not name.startswith("_") and _is_there(name)]
    )
    for command in ("install", "download", "wheel", "list", "freeze", "index"):
        yield from help_pages(f"pip {command}", ["pip", command, "--help"])
    yield from help_pages("mypy", ["mypy", "--help"])
    yield from mypy_codes()
    yield from http_statuses()
    yield from object_identifiers()


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


# ------------------------------------------------------------------------------------- queries


def queries(pages: list[Page], rng: np.random.Generator) -> Iterator[tuple[str, str, list[str]]]:
    """Type, text and relevant pages of each query."""
    own: dict[str, dict[str, list[str]]] = {kind: {} for kind in EACH}
    for page in pages:
        for kind, names in page.names.items():
            for name in dict.fromkeys(names):
                own[kind].setdefault(name, []).append(page.id)
        for kind, pattern in (("standard", STANDARD), ("version", VERSION), ("path", FILE)):
            for match in dict.fromkeys(pattern.findall(page.text)):
                name = match if isinstance(match, str) else "".join(match)
                own[kind].setdefault(name, []).append(page.id)
    for kind, by_name in own.items():
        most = HOLDERS if kind in ("standard", "version", "path") else 1
        known = [name for name, ids in by_name.items() if len(ids) <= most and len(name) > 3]
        for at in rng.permutation(len(known))[: EACH[kind]].tolist():
            form = FORMS[kind][int(rng.integers(len(FORMS[kind])))]
            yield kind, form.format(known[at]), by_name[known[at]]


def write(name: str, make: Callable[[], Iterator[Page]]) -> None:
    """Write one set beside this file, and say what is in it."""
    pages = list({page.id: page for page in make()}.values())
    asked = list(queries(pages, np.random.default_rng(0)))
    write_collection(
        Path(__file__).parent / name,
        ({"_id": page.id, "text": page.text} for page in pages),
        ({"_id": f"{kind}-{n}", "text": text} for n, (kind, text, _) in enumerate(asked)),
        ((f"{kind}-{n}", id_, 1) for n, (kind, _, ids) in enumerate(asked) for id_ in ids),
        gzipped=True,
    )
    counts = {kind: sum(each[0] == kind for each in asked) for kind in EACH}
    print(f"{name}: {len(pages)} pages, {len(asked)} queries {counts}")


if __name__ == "__main__":
    write("dev", dev)
    write("test", test)
