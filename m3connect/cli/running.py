"""The running command: what opens its collections and models, where its options came from, how it stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import typer


@dataclass(frozen=True, slots=True)
class Services:
    """What opens collections and models. A test passes its own as the context's object.

    Args:
        connect: of the signature of :func:`m3connect.connecting.registry.connect`.
        load_encoder: of the signature of :meth:`m3connect.inference.M3Encoder.load`.
    """

    connect: Callable[..., Any]
    load_encoder: Callable[..., Any]


running: ContextVar[typer.Context | None] = ContextVar("running", default=None)


def services() -> Services:
    """Those of the running command; the real ones when nobody gave others."""
    context = running.get()
    if context is not None and isinstance(context.obj, Services):
        return context.obj
    from m3connect.connecting.registry import connect
    from m3connect.inference import M3Encoder

    return Services(connect, M3Encoder.load)


def given_as_flags() -> frozenset[str]:
    """The parameters of the running command that the command line gave."""
    context = running.get()
    if context is None:
        return frozenset()
    return frozenset(name for name in context.params if source_of(context, name) == "COMMANDLINE")


def source_of(context: typer.Context, name: str) -> str:
    """Where a parameter came from: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP (a file) or DEFAULT."""
    source = context.get_parameter_source(name)
    return "DEFAULT" if source is None else source.name


@contextmanager
def interruptible() -> Iterator[None]:
    """The first Ctrl-C raises KeyboardInterrupt, so that what is encoded is written; a second one ends the process.

    Even where it waits for a database that does not answer. Where Ctrl-C does something else already,
    as in a process that was told to ignore it, that stays.
    """

    def first(signal_number: int, frame: object) -> None:
        del frame
        signal.signal(signal_number, signal.SIG_DFL)
        # Not by a stream: this may be in the middle of writing to it.
        os.write(2, b"\nWriting what is encoded; Ctrl-C again stops at once.\n")
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
