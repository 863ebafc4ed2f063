"""Imports ``qdrant_client`` in half the time: each of its models is built when it is first used.

Its import builds the validators of 700 pydantic models, of which a search needs a dozen. pydantic can
put that off (``defer_build``), but the client asks for it again with ``model_rebuild``. A model that
was put off builds itself, so nothing else changes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

_CLIENT = "qdrant_client"


@contextmanager
def _models_put_off() -> Iterator[None]:
    config = BaseModel.model_config
    rebuild = vars(BaseModel)["model_rebuild"]

    def put_off(cls: type[BaseModel], /, **options: Any) -> bool | None:
        built: bool | None = None
        if not cls.__module__.startswith(_CLIENT):  # another thread's model
            built = rebuild.__get__(None, cls)(**options)
        return built

    BaseModel.model_config = {**config, "defer_build": True}
    BaseModel.model_rebuild = classmethod(put_off)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        BaseModel.model_config = config
        BaseModel.model_rebuild = rebuild  # type: ignore[method-assign]


if _CLIENT not in sys.modules:
    with _models_put_off():
        import qdrant_client  # noqa: F401
