"""The commands: serve, eval."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from m3connect import Encoder, M3Encoder, connect, load_dataset
from m3connect.serving.service import Limits, Service

from .answering import MODE, Assistant
from .endpoint import Endpoint
from .library import Added, Library
from .measuring import measure

HERE = Path(__file__).parent
HOME = Path(".m3connect/rag_app")
app = typer.Typer(help=__doc__, no_args_is_help=True)
Folder = Annotated[Path, typer.Option(help="The documents.")]
Model = Annotated[str, typer.Option(help="The encoder.")]


@app.command()
def serve(folder: Folder = HOME / "documents", model: Model = "m3-mini", port: int = 8000) -> None:
    """Answer at http://127.0.0.1:8000; a folder that does not exist begins with the sample."""
    import uvicorn

    from . import web

    if not folder.exists():
        shutil.copytree(HERE / "sample", folder)
    with _opened(folder, model, "qdrant", path=str(HOME / "qdrant")) as (library, assistant):
        typer.echo(f"open http://127.0.0.1:{port}/ (Ctrl-C ends it)")
        uvicorn.run(web.create(library, assistant, HOME), port=port, log_level="warning")


@app.command("eval")
def evaluate(
    folder: Folder = HERE / "sample",
    questions: Annotated[Path, typer.Option(help="Queries and judgements.")] = HERE / "questions",
    qrels: Annotated[str | None, typer.Option(help="Which judgements.")] = None,
    model: Model = "m3-mini",
) -> None:
    """Measure the answers' citations; by the chat model if one is set."""
    asked = load_dataset(questions, qrels=qrels, bare=True)
    with _opened(folder, model, "memory") as (_, assistant):
        typer.echo(asyncio.run(measure(assistant, asked)))


@contextmanager
def _opened(
    folder: Path, model: str, target: str, **options: str
) -> Iterator[tuple[Library, Assistant]]:
    encoder = M3Encoder.load(model)
    collections = {"documents": lambda: connect(target, collection="documents", **options)}
    service = Service(encoder, collections, limits=Limits(body_bytes=64 << 20))
    try:
        library = Library(folder, service)
        library.sync(_tell)
        yield library, Assistant(service, _threshold(encoder), Endpoint.from_environment())
    finally:
        service.close()


def _threshold(encoder: Encoder) -> float:
    """What `m3connect eval` found here, else on the sample; of another model it says nothing."""
    own = HOME / "calibrated/results.json"
    measured = json.loads((own if own.exists() else HERE / "calibrated.json").read_text("utf-8"))[0]
    if measured["settings"]["model"]["weights"] != encoder.info.fingerprint.weights:
        typer.echo("no threshold of this model: every question is answered (README)", err=True)
        return 0.0
    return float(measured["rows"][MODE]["threshold"]["score"])


def _tell(added: Added) -> None:
    typer.echo("\n".join([f"{added.file}: {added.documents}", *added.problems]), err=True)


if __name__ == "__main__":
    app()
