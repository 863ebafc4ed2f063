"""The driver's models are built when they are used, and pydantic is left as it was."""

import subprocess
import sys

PROGRAM = """
import inspect
import m3connect_qdrant
from pydantic import BaseModel
from qdrant_client import models

classes = [kind for _, kind in inspect.getmembers(models, inspect.isclass)]
kinds = [kind for kind in classes if issubclass(kind, BaseModel) and kind is not BaseModel]
assert len(kinds) > 300, len(kinds)
built = [kind.__name__ for kind in kinds if kind.__pydantic_complete__]
assert len(built) < len(kinds) / 10, built

condition = {"must": [{"key": "lang", "match": {"value": "de"}}], "min_should": None}
found = models.Filter(**condition)
assert isinstance(found.must[0], models.FieldCondition)
assert models.Filter.model_validate_json(found.model_dump_json()) == found


class Own(BaseModel):
    number: int


assert Own.__pydantic_complete__ and "defer_build" not in BaseModel.model_config
assert Own.model_rebuild(force=True) is True
"""


def test_only_what_is_used_is_built():
    """In a process of its own: here everything is imported already."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
