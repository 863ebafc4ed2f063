"""Ray, Spark, Daft and dlt for real, in an environment of their own; Spark needs Java."""

import shutil

import pytest

from tests.outside.environment import environment, run_suite

OURS = (".[ray,spark,daft,dlt]", "models/m3-mini")
NEEDS = ("pytest>=8.3",)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("java") is None, reason="Spark needs Java (apt: default-jre-headless)"
)
def test_every_engine_makes_the_collection_of_one_process(tmp_path):
    """With workers that are killed, in local mode, on two cores; nothing is skipped."""
    python = environment("pipelines", OURS, NEEDS)
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "true"}
    quiet |= {"RUNTIME__DLTHUB_TELEMETRY": "false"}
    said = run_suite(python, "pipelines", tmp_path, quiet)
    assert " skipped" not in said, said[-500:]
