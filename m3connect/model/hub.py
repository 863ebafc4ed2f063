"""From a model's name to a folder: bundled with an installed package, on disk, or on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from m3connect.errors import CheckpointError, ConfigError

ENTRY_POINTS = "m3connect.models"
"""Group of the packages that carry a model; an entry's value is the folder."""

_SMALL_FILES = (
    "*.json",
    "tokenizer.json.gz",
    "graph.onnx",
    "graph.int8.onnx",
    "int8.safetensors",
    "sparse_linear.pt",
    "colbert_linear.pt",
)
_SAFETENSORS = ("model*.safetensors", "base.safetensors", "trained.safetensors")
_PICKLES = ("pytorch_model*.bin",)


def bundled() -> Mapping[str, Path]:
    """The models that installed packages carry, by name."""
    return {entry.name: Path(entry.load()) for entry in entry_points(group=ENTRY_POINTS)}


def resolve(name: str, *, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder of a model.

    Args:
        name: a bundled model's name, a folder, or a repository on the hub such as ``BAAI/bge-m3``.
        revision: branch, tag or commit of the repository.
        cache_dir: where downloads are kept, instead of the hub's default (``HF_HOME``).

    Raises:
        ConfigError: the name is none of the three.
        CheckpointError: the repository cannot be had, or holds no weights.
    """
    return _local(name) or _download(name, revision, cache_dir)


def resolve_tokenizer(name: str, *, revision: str | None = None) -> Path:
    """The folder of a model's tokenizer, without its weights.

    Args:
        name: as :func:`resolve` takes it.
        revision: branch, tag or commit of the repository.

    Raises:
        ConfigError: the name is none of the three.
        CheckpointError: the repository cannot be had.
    """
    return _local(name) or _fetch(name, revision, None, ["tokenizer.json"])


def require(name: str) -> None:
    """See that there is a model of this name, before a library looks for it that takes minutes to give up.

    Args:
        name: as :func:`resolve` takes it.

    Raises:
        ConfigError: the name is none of the three.
        CheckpointError: the repository cannot be had.
    """
    if _local(name) is None:
        _fetch(name, None, None, ["config.json"])


def _local(name: str) -> Path | None:
    """A bundled model's folder, or one on disk; None where the hub may have it."""
    models = bundled()
    if name in models:
        return models[name]
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ConfigError(
            f"no model {name!r}: it is neither bundled ({', '.join(sorted(models)) or 'none is'}; "
            "pip install m3connect-m3-mini brings m3-mini), nor a folder, nor a hub name such as "
            "BAAI/bge-m3"
        )
    return None


def _download(name: str, revision: str | None, cache_dir: Path | None) -> Path:
    """Fetch the files that are needed, and pickled weights only where there are no others."""
    for weights in (_SAFETENSORS, _PICKLES):
        folder = _fetch(name, revision, cache_dir, [*_SMALL_FILES, *weights])
        if any(match for pattern in weights for match in folder.glob(pattern)):
            return folder
    raise CheckpointError(f"{name} ({folder}) holds neither safetensors nor pytorch_model.bin")


def _fetch(
    name: str, revision: str | None, cache_dir: Path | None, patterns: Sequence[str]
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                allow_patterns=list(patterns),
                ignore_patterns=["*/*"],
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{name} cannot be downloaded and is not in the cache: {error}"
        ) from error
