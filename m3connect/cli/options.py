"""Options that several commands share, as objects, and what they open. Heavy imports are inside.

A command takes a group as one parameter, ``where: Target``; ``groups.expanded`` writes the group's
fields out as options of the command. A field belongs to the class that declares it: that owner, and
not the name alone, says which commands a key at the top of the settings file reaches.
"""

from __future__ import annotations

import json
from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from m3connect.cli.console import json_line, visible
from m3connect.cli.lists import leg_weights
from m3connect.cli.running import given_as_flags, services
from m3connect.errors import ConfigError

if TYPE_CHECKING:
    from m3connect.contract import Connector
    from m3connect.inference import M3Encoder
    from m3connect.inference.remote import RemoteEncoder
    from m3connect.types import Compression

BackendName = Literal["auto", "onnx", "torch"]
DtypeName = Literal["auto", "float32", "float16", "bfloat16", "int8", "int8-7bit"]
LongModeName = Literal["truncate", "chunk", "mcls"]
FusionName = Literal["rrf", "weighted"]
TokenDtypeName = Literal["float32", "float16", "int8", "binary"]

_SMALLER = "Smaller representations"


class Mark(Enum):
    """What the settings must know of an option."""

    FLAG_ONLY = "flag only"
    """Writes, deletes or goes live: given on the command line, never by a file or the environment."""
    TARGET = "target"
    """Decides which database is used: shown when a file decides it."""
    ADDRESS = "address"
    """Decides who receives documents and keys: shown, and kept away from keys of other origin."""
    SERVICE = "service"
    """May be the address of an encoder or a reranker: then as ADDRESS, its key in ``SERVICE_KEYS``."""
    SECRET = "secret"
    """May hold a password or key: never shown."""
    WRITES = "writes"
    """Names a file or folder that is written."""


@dataclass(frozen=True, kw_only=True)  # of two bases with slots no class can be made
class CollectionChoice:
    """The name of a collection."""

    collection: Annotated[
        str, typer.Option(help="Collection to use.", rich_help_panel="Target")
    ] = "documents"


@dataclass(frozen=True, kw_only=True)  # as above
class TenantChoice:
    """What keeps the tenants of a collection apart."""

    tenant_field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Metadata field that keeps tenants apart in a new collection; searches and filters must "
            "then say whose records they mean. What exists must have been made so.",
            rich_help_panel="Target",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database, whichever of its collections."""

    target: Annotated[
        str,
        typer.Option(help="Database: qdrant, milvus, elasticsearch.", rich_help_panel="Target"),
        Mark.TARGET,
    ] = "qdrant"
    url: Annotated[
        str | None,
        typer.Option(
            help="Server address. Without one the embedded engine is used.",
            rich_help_panel="Target",
        ),
        Mark.ADDRESS,
    ] = None
    path: Annotated[
        str | None,
        typer.Option(help="Where the embedded engine keeps its data.", rich_help_panel="Target"),
        Mark.TARGET,
        Mark.WRITES,
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Key or token for the server; better set as M3CONNECT_API_KEY.",
            rich_help_panel="Target",
            show_default=False,
        ),
        Mark.SECRET,
    ] = None
    target_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Further option of the connector; repeatable.",
            rich_help_panel="Target",
        ),
        Mark.ADDRESS,
        Mark.SECRET,
    ] = None

    def open_as(self, collection: str, *, tenant_field: str | None = None) -> Connector:
        """A connector to one of its collections; nothing is sent yet.

        Raises:
            ConfigError: an unknown target or option.
        """
        return open_connector(
            self.target,
            collection,
            url=self.url,
            path=self.path,
            api_key=self.api_key,
            tenant_field=tenant_field,
            further=self.target_option or (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Database, CollectionChoice, TenantChoice):
    """A collection in a database."""

    def open(self) -> Connector:
        """The connector; nothing is sent yet.

        Raises:
            ConfigError: an unknown target or option.
        """
        return self.open_as(self.collection, tenant_field=self.tenant_field)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A checkpoint and how it is run."""

    model: Annotated[
        str,
        typer.Option(
            help="Checkpoint: a name such as BAAI/bge-m3, a folder, or m3-mini (bundled); or the address "
            "of a service that encodes.",
            rich_help_panel="Model",
        ),
        Mark.SERVICE,
    ] = "m3-mini"
    backend: Annotated[
        BackendName, typer.Option(help="ONNX Runtime or torch.", rich_help_panel="Model")
    ] = "auto"
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:1, mps; a process each for cpu:4 or cuda:0,cuda:1.",
            rich_help_panel="Model",
        ),
    ] = "auto"
    dtype: Annotated[DtypeName, typer.Option(help="Precision.", rich_help_panel="Model")] = "auto"
    max_length: Annotated[
        int | None,
        typer.Option(
            help="Tokens after which a text is cut. Default: the model's limit.",
            rich_help_panel="Model",
            min=1,
            show_default=False,
        ),
    ] = None
    long_mode: Annotated[
        LongModeName,
        typer.Option(
            help="Longer texts: cut, in windows, or cut with a CLS every 256 tokens (MCLS).",
            rich_help_panel="Model",
        ),
    ] = "truncate"
    identifiers: Annotated[
        bool,
        typer.Option(
            "--identifiers",
            help="Terms for whole error codes, options, versions and paths, too.",
            rich_help_panel="Model",
        ),
    ] = False
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens encoded in one pass. Default: what suits the device.",
            rich_help_panel="Model",
            min=1,
            show_default=False,
        ),
    ] = None

    def load(self) -> M3Encoder | RemoteEncoder:
        """The encoder.

        Raises:
            CheckpointError: there is no such checkpoint, or it is broken.
            ConfigError: an extra is missing.
        """
        encoder: M3Encoder | RemoteEncoder = services().load_encoder(self.model, **self.how())
        return encoder

    def how(self) -> dict[str, Any]:
        """How it is run: the options of :meth:`m3connect.M3Encoder.load`."""
        return {
            "backend": self.backend,
            "device": self.device,
            "dtype": self.dtype,
            "max_length": self.max_length,
            "long_mode": self.long_mode,
            "identifiers": self.identifiers,
            "batch_tokens": self.batch_tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedModel(ModelChoice):
    """A checkpoint, and what is kept of the representations that it makes."""

    dense_width: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Keep the first N values of dense vectors, for models trained for it (Matryoshka).",
            rich_help_panel=_SMALLER,
            min=1,
            show_default=False,
        ),
    ] = None
    sparse_top: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Keep the N heaviest terms of a passage.",
            rich_help_panel=_SMALLER,
            min=1,
            show_default=False,
        ),
    ] = None
    multivector_width: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Keep the first N values of token vectors.",
            rich_help_panel=_SMALLER,
            min=1,
            show_default=False,
        ),
    ] = None
    multivector_pool: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Make one token vector of N that are alike, in passages.",
            rich_help_panel=_SMALLER,
            min=2,
            show_default=False,
        ),
    ] = None

    multivector_dtype: Annotated[
        TokenDtypeName | None,
        typer.Option(
            help="How token values are stored. Default: float16.",
            rich_help_panel=_SMALLER,
            show_default=False,
        ),
    ] = None

    def how(self) -> dict[str, Any]:
        """With the compression, if there is any."""
        kept = self.compression()
        # Without arguments super() does not know a class that was made anew for its slots.
        return ModelChoice.how(self) | ({"compression": kept} if kept else {})

    def compression(self) -> Compression:
        """What is kept."""
        from m3connect.types import Compression

        return Compression(
            dense_width=self.dense_width,
            sparse_top=self.sparse_top,
            multivector_width=self.multivector_width,
            multivector_pool=self.multivector_pool,
            multivector_dtype=self.multivector_dtype,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionChoice:
    """How the legs' scores become one."""

    fusion: Annotated[
        FusionName | None,
        typer.Option(
            help="How legs become one score. Default: the collection's or preset's, else weighted.",
            show_default=False,
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="D,S,M",
            help="Fusion weights of dense, sparse, multivector. Default: the checkpoint's.",
            show_default=False,
        ),
    ] = None
    rrf_k: Annotated[float, typer.Option(help="k of reciprocal rank fusion.")] = 60.0

    def check(self) -> None:
        """Before anything is opened.

        Raises:
            ConfigError: the weights are not three numbers, or ``--rrf-k`` would do nothing.
        """
        self.parsed_weights()
        if "rrf_k" in given_as_flags() and self.fusion != "rrf":
            raise ConfigError(
                "--rrf-k is of reciprocal rank fusion: add --fusion rrf, or leave it out"
            )

    def parsed_weights(self) -> tuple[float, float, float] | None:
        """The three weights, if they were given.

        Raises:
            ConfigError: they are not three numbers.
        """
        return leg_weights(self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How the result is printed."""

    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for machines, errors included.")
    ] = False

    def show(self, data: object, text: str) -> None:
        """Print the result: ``data`` for machines, ``text`` for people."""
        typer.echo(json_line(data) if self.as_json else visible(text))


# The groups whose options mean the same in every command that has them: keys at the top of the
# settings file, and M3CONNECT_NAME in the environment, reach these alone.
SHARED: tuple[type, ...] = (
    CollectionChoice,
    TenantChoice,
    Database,
    ModelChoice,
    FusionChoice,
    Output,
)

Live = Annotated[
    bool,
    typer.Option(
        "--live",
        help="Use the vectors of a collection in a database instead of exact search; --dataset needs no "
        "corpus then.",
        rich_help_panel="Target",
    ),
    Mark.FLAG_ONLY,
]


def open_connector(
    target: str,
    collection: str,
    *,
    url: str | None = None,
    path: str | None = None,
    api_key: str | None = None,
    tenant_field: str | None = None,
    further: Sequence[str] = (),
) -> Connector:
    """The connector that options name; nothing is sent yet.

    Args:
        target: the connector's name.
        collection: the collection's name.
        url, path, api_key, tenant_field: passed on when they are given.
        further: ``NAME=VALUE`` options of the connector.

    Raises:
        ConfigError: an unknown target or option.
    """
    from m3connect.connecting.registry import text_options

    given = {"url": url, "path": path, "api_key": api_key, "tenant_field": tenant_field}
    known = {name: value for name, value in given.items() if value is not None}
    pairs = _pairs(further, text_options(target))
    if twice := sorted(known.keys() & pairs.keys()):
        raise ConfigError(f"{twice[0]} is given twice: as an option and as --target-option")
    connector: Connector = services().connect(target, collection=collection, **known, **pairs)
    return connector


def _pairs(options: Sequence[str], texts: abc.Container[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that reads as JSON is taken as such, but for ``texts``.

    >>> _pairs(["timeout=30", "consistency_level=Strong", "password=30"], {"password"})
    {'timeout': 30, 'consistency_level': 'Strong', 'password': '30'}
    """
    pairs: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise ConfigError("--target-option takes NAME=VALUE, got an option without a '='")
        pairs[name] = value if name in texts else _json_or_text(value)
    return pairs


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # integers of thousands of digits, deep nesting
        return value
