"""``torchrun -m m3connect.training RECIPE.toml``: the command ``m3connect train``, in every process."""

import sys

from m3connect.cli import main

main(["train", *sys.argv[1:]])
