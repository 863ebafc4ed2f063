"""Ray, Spark, Daft and dlt for real, in an environment of their own."""

import os
import shutil

import pytest

from tests.outside.environment import environment, run_suite
from tests.servers.postgres import PROGRAMS

OURS = (".[ray,spark,daft,dlt]", "connectors/qdrant", "models/m3-mini")
NEEDS = ("pytest>=8.3", "sqlalchemy>=2", "psycopg[binary]>=3")
CI = "CI" in os.environ  # what is missing there is a failure
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default workers get what other programs leave
    "DO_NOT_TRACK": "true",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}


@pytest.fixture(scope="session")
def python():
    """The environment's interpreter."""
    return environment("pipelines", OURS, NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite",
    [
        pytest.param(
            "pipelines",
            marks=pytest.mark.skipif(
                not CI and shutil.which("java") is None,
                reason="Spark needs Java (apt: default-jre-headless)",
            ),
        ),
        pytest.param(
            "postgres",
            marks=pytest.mark.skipif(not PROGRAMS, reason="needs Postgres (apt: postgresql)"),
        ),
    ],
)
def test_every_engine_makes_the_collection_of_one_process(python, suite, tmp_path):
    """With workers that are killed, in local mode, on two cores; nothing in it is skipped."""
    said = run_suite(python, suite, tmp_path, QUIET)
    assert " skipped" not in said, said[-500:]
