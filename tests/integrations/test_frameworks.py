"""The frameworks' own suites and clients, in an environment of their own: their requirements are not ours."""

import pytest

from tests.outside.environment import environment, run_suite

SUITES = ("langchain", "haystack", "llama_index", "clients")
NEEDS = (
    "langchain-tests>=1.1,<2", "pytest-asyncio", "langchain", "pytest-socket",
    "langchain-openai>=1,<2", "llama-index-embeddings-text-embeddings-inference>=0.6,<0.7",
)  # fmt: skip
OURS = (
    ".[langchain,haystack,llama-index,serve]",
    "connectors/qdrant", "connectors/milvus", "connectors/elasticsearch",
)  # fmt: skip


@pytest.fixture(scope="session")
def python():
    """The environment's interpreter."""
    return environment("outside", OURS, NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_the_suite_of_a_framework_passes(python, suite, tmp_path):
    """Its own tests and ours for it pass, on memory, embedded Qdrant and Milvus Lite."""
    quiet = {"HAYSTACK_TELEMETRY_ENABLED": "False"}
    said = run_suite(python, suite, tmp_path, quiet, "asyncio_mode = auto")
    assert " skipped" not in said or suite == "haystack", said[-500:]


@pytest.mark.live
def test_langchains_suites_pass_on_elasticsearch(python, node, tmp_path):
    """The same suites, on a node with a basic licence."""
    server = {"SUITE_ELASTICSEARCH": node.url}
    said = run_suite(python, "langchain", tmp_path, server, "asyncio_mode = auto")
    assert " skipped" not in said, said[-500:]
