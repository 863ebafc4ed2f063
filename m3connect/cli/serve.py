"""``m3connect serve`` and ``m3connect mcp``: the encoder and collections for applications and agents."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from m3connect.cli.lists import names
from m3connect.cli.options import CompressedModel, Mark, Output, Target, open_connector
from m3connect.cli.refining import RerankerName, load_reranker
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.serving.access import Access
    from m3connect.serving.service import Service

KEY = "M3CONNECT_SERVE_KEY"

Writable = Annotated[
    bool,
    typer.Option("--writable", help="Let callers add and delete documents."),
    Mark.FLAG_ONLY,
]
Scope = Annotated[
    str | None,
    typer.Option(help="A filter that every request obeys and can only narrow.", show_default=False),
    Mark.FLAG_ONLY,
]


def serve(
    *,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; other than loopback needs a key."),
        Mark.FLAG_ONLY,
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.", min=0, max=65535)] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help=f"Keys, one a line, each with a filter after it if it has a scope. Or {KEY}.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
        Mark.FLAG_ONLY,
    ] = None,
    scope: Scope = None,
    writable: Writable = False,
    page: Annotated[bool, typer.Option(help="Serve the search page at /.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.", min=0.1)] = 60.0,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Encoder processes on the CPU: --device cpu:N. Devices are named there.",
            min=1,
            show_default=False,
        ),
    ] = None,
    reranker: RerankerName = None,
    where: Target,
    model: CompressedModel,
    printed: Output,
) -> None:
    """Serve the encoder and collections over HTTP, with a search page.

    `--collection a,b` offers several collections; the first is the default. Routes: /v1/search,
    /v1/explain, /v1/m3/embeddings, OpenAI's /v1/embeddings, text-embeddings-inference's /embed,
    /embed_sparse, /embed_all, /rerank, and more at /openapi.json.

    - `m3connect serve` and open http://127.0.0.1:8000
    - `m3connect serve --collection handbook,tickets --port 9000`
    - `M3CONNECT_SERVE_KEY=... m3connect serve --host 0.0.0.0 --scope 'public == true'`
    """
    try:
        import uvicorn

        from m3connect.serving.access import require_keys
        from m3connect.serving.app import create_app
    except ImportError as error:
        raise ConfigError(f'{error}: pip install "m3connect[serve]"') from error

    access = _access(key_file, scope)
    require_keys(host, access)
    if workers is not None:
        if model.device not in ("auto", "cpu"):
            raise ConfigError("--workers is --device cpu:N; give one of the two")
        model = replace(model, device=f"cpu:{workers}")
    with (
        _listening(host, port) as listening,
        _service(
            where, model, access=access, writable=writable, timeout=timeout, reranker=reranker
        ) as service,
    ):
        app = create_app(service, host=host, page=page)
        named = f"[{host}]" if ":" in host else host
        url = f"http://{named}:{listening.getsockname()[1]}/"
        said = {"url": url, "collections": service.names}
        text = f"m3connect serves {', '.join(service.names)} at {url}"
        typer.echo(json.dumps(said) if printed.as_json else text, err=True)
        config = uvicorn.Config(
            app,
            http="h11",  # of its parsers the one that bounds headers
            timeout_graceful_shutdown=max(1, round(timeout)),
            log_level="warning",
            access_log=False,
        )
        with suppress(KeyboardInterrupt):  # which it raises again once all is answered
            uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that callers reach from now on; they wait until the model is loaded.

    Raises:
        ConfigError: the address is not this machine's, or another program has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # The system's own words, to which Python adds the address; the resolver's have a number below 0.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or error
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {reason}. Another port: --port, 0 for a free one"
        ) from error


def mcp(
    *,
    transport: Annotated[
        Literal["stdio", "http"], typer.Option(help="How the agent speaks to it.")
    ] = "stdio",
    port: Annotated[
        int, typer.Option(help="With http: port on 127.0.0.1.", min=1, max=65535)
    ] = 8001,
    scope: Scope = None,
    writable: Writable = False,
    reranker: RerankerName = None,
    where: Target,
    model: CompressedModel,
    printed: Output,
) -> None:
    """Offer collections to an agent as tools of the Model Context Protocol.

    - `m3connect mcp --collection handbook`
    - `m3connect mcp --collection a,b --transport http --port 9001`
    """
    try:
        from m3connect.serving.mcp import create_server
    except ImportError as error:
        raise ConfigError(f'{error}: pip install "m3connect[mcp]"') from error

    del printed  # stdout belongs to the protocol; --json is for errors
    with _service(where, model, writable=writable, reranker=reranker) as service:
        server = create_server(service, scope=scope)
        if transport == "stdio":
            server.run("stdio")
        else:
            server.run("streamable-http", host="127.0.0.1", port=port)


@contextmanager
def _service(
    where: Target,
    model: CompressedModel,
    *,
    access: Access | None = None,
    writable: bool = False,
    timeout: float = 60.0,
    reranker: str | None = None,
) -> Iterator[Service]:
    from m3connect.serving.service import Limits, Service

    collections = {
        name: partial(
            open_connector,
            where.target,
            name,
            url=where.url,
            path=where.path,
            api_key=where.api_key,
            tenant_field=where.tenant_field,
            further=where.target_option or (),
        )
        for name in names(where.collection)
    }
    service = Service(
        model.load(),
        collections,
        access=access,
        writable=writable,
        limits=Limits(seconds=timeout),
        reranker=load_reranker(reranker, model.device),
    )
    try:
        yield service
    finally:
        service.close()


def _access(file: Path | None, scope: str | None) -> Access:
    """Keys of the file and the environment; ``scope`` binds all, a key's own filter narrows it further.

    Raises:
        ConfigError: a scope or a file without a key, a key that is too weak, or one that stands twice.
    """
    from m3connect.serving.access import Access

    given: list[tuple[str, str | None]] = []
    if file is not None:
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            key, _, bound = line.strip().partition(" ")
            if key and not key.startswith("#"):
                given.append((key, bound.strip() or None))
        if not given:  # who meant it to be guarded must not find it open
            raise ConfigError(f"{file} holds no key: one a line")
    if os.environ.get(KEY):
        given.append((os.environ[KEY], None))
    if scope is not None and not given:
        raise ConfigError(f"--scope binds keys: set {KEY} or give --key-file FILE")
    keys = dict(given)
    if len(keys) < len(given):  # one of them might be bound to less than the other
        raise ConfigError(f"a key stands twice in {file} or there and in {KEY}: leave one of them")
    return Access.of(keys, scope)
