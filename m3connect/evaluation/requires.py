"""The packages that evaluation needs beyond the core."""

from __future__ import annotations

from importlib.util import find_spec

from m3connect.errors import ConfigError

_MODULES = ("pytrec_eval", "scipy", "bm25s", "Stemmer", "regex", "matplotlib", "jinja2", "httpx")


def check() -> None:
    """See that the extra is installed.

    Raises:
        ConfigError: it is not; prints the pip line.
    """
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise ConfigError(f'evaluation needs {", ".join(missing)}: pip install "m3connect[eval]"')
