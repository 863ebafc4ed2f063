"""Hypothesis: the same examples in every run, and nothing is timed."""

from hypothesis import settings

settings.register_profile("m3connect", derandomize=True, deadline=None)
settings.load_profile("m3connect")
