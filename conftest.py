"""Every test: settled examples, one thread a process, and servers started once for all."""

import gc
import os
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and nothing is timed. The fast loop draws fewer; a test that
# wants more takes a multiple: ``settings(max_examples=4 * settings().max_examples)``.
settings.register_profile(
    "full", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fast", settings.get_profile("full"), max_examples=15)
# Others, by number: pytest --hypothesis-profile=seeded --hypothesis-seed=7. Of the two above the
# examples are the same whatever the seed.
settings.register_profile("seeded", settings.get_profile("full"), derandomize=False, database=None)
settings.load_profile("full")

# Tests are small and run side by side: more threads would wait for each other. Read by torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between runs of the program is not kept between runs of the tests.

    Workers of one run share it, as a user's processes do.
    """
    run = tmp_path_factory.getbasetemp()
    run = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(run / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[None]:
    """What never changes is read once a process, not once a test.

    A tokenizer file (m3-mini's takes a second), and the installed packages' entry points (a
    hundredth, thrice a command).
    """
    from tokenizers import Tokenizer

    from m3connect.connecting import registry
    from m3connect.inference import m3_service
    from m3connect.model import checkpoint, hub

    once = SimpleNamespace(from_buffer=cache(Tokenizer.from_buffer))
    served = SimpleNamespace(from_str=cache(Tokenizer.from_str))
    installed = cache(entry_points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "Tokenizer", once)
        patch.setattr(m3_service, "Tokenizer", served)
        patch.setattr(registry, "entry_points", installed)
        patch.setattr(hub, "entry_points", installed)
        yield


@pytest.fixture(scope="session")
def node() -> Iterator[SimpleNamespace]:
    """The one Elasticsearch node of a run, for every test that does it no harm.

    ``M3CONNECT_TEST_ELASTICSEARCH`` names another version, or one that runs: ``VERSION@URL``.
    """
    from tests.servers.elasticsearch.node import NEWEST, live_node

    version, _, url = os.environ.get("M3CONNECT_TEST_ELASTICSEARCH", NEWEST).partition("@")
    if url:
        yield SimpleNamespace(version=version, url=url)
        return
    with live_node(version) as running:
        yield SimpleNamespace(version=version, url=running.url)


FURTHER_SEEDS = ("oracles[62]", "oracles[63]", "is_what_is_declared[82]")
AT_LENGTH = (
    "ten_thousand_records",
    "limits_can_be_reached",
    "random_filters_on_random_payloads",
    "index_never_changes_a_filter",
)
LONGEST = ("test_pipelines.py", "test_frameworks.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the conformance suite repeats at length is slow: it runs for a dozen connectors.

    Slow tests are run without coverage, whose tracing doubles what they take. The longest files
    come first: begun last, one of them would keep a worker busy while the others have nothing left.
    """
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if any(name in item.name for name in AT_LENGTH) or item.name.endswith(FURTHER_SEEDS):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")


def pytest_collection_finish() -> None:
    """What was collected and imported stays: Python need not look through it for garbage."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """A module without an example has no doctest.

    It would be imported to find that out, with its libraries, once in every worker: seconds.
    """
    if collection_path.suffix != ".py" or collection_path.name.startswith("test_"):
        return None
    return ">>>" not in collection_path.read_text(encoding="utf-8") or None


# Their doctests need the frameworks, which have an environment of their own (tests/outside).
_FRAMEWORKS = {
    "langchain": "langchain_core",
    "haystack": "haystack",
    "llama_index": "llama_index",
    "ray": "ray",
    "ray_files": "ray",
    "spark": "pyspark",
    "daft": "daft",
    "dlt": "dlt",
}
collect_ignore = [
    f"m3connect/integrations/{name}.py"
    for name, module in _FRAMEWORKS.items()
    if find_spec(module) is None
]
