"""The scripts beside the bundled model, which are in no package."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "models" / "m3-mini"


def load(name):
    """One of them as a module."""
    spec = importlib.util.spec_from_file_location(f"m3_mini_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module
