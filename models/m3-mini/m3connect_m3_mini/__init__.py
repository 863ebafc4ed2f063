"""The files of m3-mini; m3connect finds them through the entry point ``m3connect.models``."""

from pathlib import Path

PATH = Path(__file__).parent
