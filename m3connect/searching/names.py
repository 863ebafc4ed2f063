"""The names of the modes, written once: what a command or a schema offers. Loads nothing."""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["dense", "sparse", "multivector", "hybrid", "all"]
MODES: tuple[Mode, ...] = get_args(Mode)
ModeName = Literal[Mode, "dense+sparse"]
"""A mode as people write it; ``dense+sparse`` is ``hybrid``."""
ALIASES: dict[str, Mode] = {"dense+sparse": "hybrid"}
FusedMode = Literal["multivector", "hybrid", "all"]
"""The modes of several legs."""
TunedMode = Literal["hybrid", "all"]
"""The modes whose fusion can be chosen."""
TUNED: tuple[TunedMode, ...] = get_args(TunedMode)
TunedModeName = Literal[TunedMode, "dense+sparse"]
"""Such a mode as people write it."""
