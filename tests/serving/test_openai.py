"""OpenAI's own client against the service."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def openai():
    """The library: half a second to import, which only these tests spend."""
    return pytest.importorskip("openai")


@pytest.fixture
def api(client, openai):
    """The real client, over the test's transport."""
    with openai.OpenAI(
        base_url="http://localhost/v1", api_key="unused", http_client=client, max_retries=0
    ) as api:
        yield api


def test_the_client_reads_the_vectors(api, encoder):
    """Base64 (its default) and floats give the encoder's dense vectors."""
    expected = encoder.encode(["one two", "three"]).dense
    for options in ({}, {"encoding_format": "float"}):
        answer = api.embeddings.create(model="any", input=["one two", "three"], **options)
        np.testing.assert_allclose([entry.embedding for entry in answer.data], expected, rtol=1e-6)
        assert answer.usage.total_tokens > 0


def test_fewer_dimensions_are_normalised_again(api, openai):
    """Shortened vectors have length 1."""
    answer = api.embeddings.create(model="any", input="one two", dimensions=4)
    assert np.linalg.norm(answer.data[0].embedding) == pytest.approx(1)
    with pytest.raises(openai.BadRequestError, match="have 16"):
        api.embeddings.create(model="any", input="one", dimensions=17)


def test_token_ids_are_refused_with_the_way_out(api, openai):
    """Ids of another tokenizer would be embedded as garbage."""
    for ids in ([1, 2, 3], [[1, 2], [3]]):
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            api.embeddings.create(model="any", input=ids)


def test_models_are_listed(api, encoder):
    """The one model."""
    assert [model.id for model in api.models.list()] == [encoder.info.name]
