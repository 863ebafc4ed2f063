"""``m3connect models``: the checkpoints that are bundled or cached on this machine."""
