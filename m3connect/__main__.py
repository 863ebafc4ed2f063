"""``python -m m3connect``."""

from m3connect.cli import main

main()
