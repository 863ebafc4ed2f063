"""``m3connect reembed``: a collection anew with another model, and the name switched to it; or back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from m3connect.cli import lists
from m3connect.cli.console import counted
from m3connect.cli.options import CompressedModel, Mark, Output, Target
from m3connect.cli.progress import progress_bar
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.reembedding import ReembedReport, RollbackReport


def reembed(
    *,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the new collection. Default: the old one's with the next number.",
            rich_help_panel="Target",
            show_default=False,
        ),
        Mark.FLAG_ONLY,
    ] = None,
    legs: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Representations to store. Default: those of the old collection.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    no_switch: Annotated[
        bool,
        typer.Option(
            "--no-switch", help="Stop when all is verified; the same command without it switches."
        ),
        Mark.FLAG_ONLY,
    ] = False,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard",
            help="After a rollback: what was ingested into the new collection alone is deleted from it.",
        ),
        Mark.FLAG_ONLY,
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option(
            "--rollback",
            help="Let the name stand for the old collection again; nothing is encoded.",
        ),
        Mark.FLAG_ONLY,
    ] = False,
    where: Target,
    model: CompressedModel,
    printed: Output,
) -> None:
    """Encode a collection anew from the text it holds, and switch its name to the result.

    The old collection serves until all passages of the new one are there and verified; then the name
    stands for the new one, in one step. Run it again after an interruption: what is there is kept, and
    what was ingested meanwhile is caught up. `docs/reembedding.md` says what happens when.

    - `m3connect reembed --collection handbook --model BAAI/bge-m3`
    - `m3connect reembed --collection handbook --model BAAI/bge-m3 --no-switch`
    - `m3connect reembed --collection handbook --legs dense,sparse`
    - `m3connect reembed --collection handbook --multivector-dtype int8`
    - `m3connect reembed --collection handbook --rollback`
    """
    from m3connect import reembedding

    if rollback:
        if into is not None or legs is not None or no_switch or discard:
            raise ConfigError(
                "--rollback goes with neither --into, --legs, --no-switch nor --discard"
            )
        with where.open() as connector:
            back = reembedding.rollback(connector)
        printed.show(back.to_json(), _gone_back(back))
        return
    chosen = lists.legs(legs) if legs is not None else None
    with where.open() as connector, progress_bar() as progress:
        connector.describe()  # that there is none is said before the model is loaded
        done = reembedding.reembed(
            connector,
            model.load(),
            into=into,
            legs=chosen,
            switch=not no_switch,
            discard=discard,
            progress=progress,
        )
    if done.truncated:
        typer.echo(f"{done.truncated} passages were longer than the model takes", err=True)
    printed.show(done.to_json(), _told(done))


def _told(done: ReembedReport) -> str:
    if not done.encoded:
        what = f"{done.new!r} holds all {done.passages:,} passages, by this model"
    else:
        what = (
            f"{done.encoded:,} of {done.passages:,} passages encoded into {done.new!r} and verified "
            f"({done.tokens:,} tokens, {done.seconds:.1f} s)"
        )
    if done.deleted:
        what += f"; {counted(done.deleted, 'passage')} deleted from it, which {done.old!r} lacks"
    if not done.switched or done.old == done.new:
        return f"{what}; {done.name!r} stands for {done.old!r} as before"
    late = f", {done.late} of them after the switch" if done.late else ""
    return (
        f"{what}{late}; {done.name!r} stands for {done.new!r} now. {done.old!r} is kept: "
        f"m3connect reembed --collection {done.name} --rollback goes back to it"
    )


def _gone_back(back: RollbackReport) -> str:
    message = f"{back.name!r} stands for {back.back!r} again"
    if not back.differing:
        return f"{message}; {back.left!r} is kept"
    return f"{message}; {counted(back.differing)} differ from {back.left!r}, which is kept"
