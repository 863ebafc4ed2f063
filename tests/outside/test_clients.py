"""Clients of other services against ours, unchanged. Run in an environment of their own."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("langchain_openai")
from huggingface_hub import InferenceClient
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

from m3connect.serving.access import Access
from m3connect.serving.app import create_app
from m3connect.serving.service import Service
from m3connect.testing.fakes import HashEncoder
from tests.asgi import running

KEY = "a-key-of-the-service"
TEXTS = ["keys are rotated", "backups run at two", "keys are rotated\nyearly"]


@pytest.fixture(scope="module")
def address():
    """Where a service with a key listens, in a thread of this process."""
    service = Service(HashEncoder(), {}, access=Access.of({KEY: None}))
    with running(create_app(service)) as address:
        yield address.rstrip("/")


@pytest.fixture(scope="module")
def expected():
    """The encoder's dense vectors."""
    return HashEncoder().encode(TEXTS).dense


def test_llama_index_clients_of_tei(address, expected):
    """Texts and a query, sync and async, with the key."""
    client = TextEmbeddingsInference(model_name="any", base_url=address, auth_token=KEY)
    np.testing.assert_allclose(client.get_text_embedding_batch(TEXTS), expected, rtol=1e-5)
    np.testing.assert_allclose(client.get_query_embedding(TEXTS[1]), expected[1], rtol=1e-5)
    vectors = asyncio.run(client.aget_text_embedding_batch(TEXTS))
    np.testing.assert_allclose(vectors, expected, rtol=1e-5)


def test_hugging_faces_client_of_tei(address, expected):
    """It knows the address alone and asks at its root."""
    client = InferenceClient(base_url=address, api_key=KEY)
    np.testing.assert_allclose(client.feature_extraction(TEXTS[0])[0], expected[0], rtol=1e-5)


def test_langchains_client_of_openai(address, expected):
    """With the one option that the service's error names, where texts would be sent as token ids."""
    options = {"base_url": f"{address}/v1", "api_key": KEY, "model": "any", "max_retries": 0}
    client = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    np.testing.assert_allclose(client.embed_documents(TEXTS), expected, rtol=1e-5)
    np.testing.assert_allclose(asyncio.run(client.aembed_query(TEXTS[2])), expected[2], rtol=1e-5)
