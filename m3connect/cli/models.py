"""``m3connect models``: the checkpoints that are bundled or cached on this machine."""


def models() -> None:
    """List checkpoints."""
