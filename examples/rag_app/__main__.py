"""The commands: serve, calibrate, eval."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from m3connect import M3Encoder, connect
from m3connect.serving.service import Limits, Service

from .answering import Assistant
from .endpoint import Endpoint
from .library import Added, Library
from .measuring import calibrate as choose_threshold
from .measuring import measure, read_questions

HERE = Path(__file__).parent
HOME = Path(".m3connect/rag_app")
app = typer.Typer(help=__doc__, no_args_is_help=True)
Folder = Annotated[Path, typer.Option(help="The documents.")]
Model = Annotated[str, typer.Option(help="The encoder.")]
Questions = Annotated[Path, typer.Option(help="Whose documents are known, as JSON lines.")]


@app.command()
def serve(folder: Folder = HOME / "documents", model: Model = "m3-mini", port: int = 8000) -> None:
    """Answer at http://127.0.0.1:8000; a folder that does not exist begins with the sample."""
    import uvicorn

    from . import web

    if not folder.exists():
        shutil.copytree(HERE / "sample", folder)
    with _opened(folder, model, "qdrant", path=str(HOME / "qdrant")) as (service, library):
        library.sync(_tell)
        assistant = Assistant(service, _threshold(model), Endpoint.from_environment())
        typer.echo(f"open http://127.0.0.1:{port}/ (Ctrl-C ends it)")
        uvicorn.run(web.create(service, library, assistant, HOME), port=port, log_level="warning")


@app.command()
def calibrate(
    folder: Folder = HERE / "sample",
    questions: Questions = HERE / "questions.jsonl",
    model: Model = "m3-mini",
    output: Path = HOME / "threshold.json",
) -> None:
    """Choose the score below which the documents hold no answer, by questions of split "calibrate"."""
    with _opened(folder, model, "memory") as (service, library):
        library.sync(_tell)
        asked = read_questions(questions, "calibrate")
        chosen = {"model": model, **choose_threshold(Assistant(service, 0.0, None), asked)}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(chosen) + "\n", "utf-8")
    typer.echo(f"{output}: {chosen}")


@app.command("eval")
def evaluate(
    folder: Folder = HERE / "sample",
    questions: Questions = HERE / "questions.jsonl",
    model: Model = "m3-mini",
) -> None:
    """Measure the answers' citations by questions of split "report"; by the chat model if one is set."""
    with _opened(folder, model, "memory") as (service, library):
        library.sync(_tell)
        assistant = Assistant(service, _threshold(model), Endpoint.from_environment())
        typer.echo(asyncio.run(measure(assistant, read_questions(questions, "report"))))


@contextmanager
def _opened(
    folder: Path, model: str, target: str, **options: str
) -> Iterator[tuple[Service, Library]]:
    limits = Limits(body_bytes=64 << 20)
    collections = {"documents": lambda: connect(target, collection="documents", **options)}
    service = Service(M3Encoder.load(model), collections, limits=limits)
    try:
        yield service, Library(folder, service)
    finally:
        service.close()


def _threshold(model: str) -> float:
    """The one that was calibrated here, else the sample's; it is of one model alone."""
    own = HOME / "threshold.json"
    chosen = json.loads((own if own.exists() else HERE / "threshold.json").read_text("utf-8"))
    if chosen["model"] != model:
        raise typer.BadParameter(f"calibrated for {chosen['model']}: run calibrate --model {model}")
    return float(chosen["threshold"])


def _tell(added: Added) -> None:
    for line in (f"{added.file}: {added.documents}", *added.failures, *added.losses):
        typer.echo(line, err=True)


if __name__ == "__main__":
    app()
