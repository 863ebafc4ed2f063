"""The example application, fresh for each test, and its chat model."""

import pytest

pytest.importorskip("fastapi")
from examples.rag_app.endpoint import Endpoint
from tests.rag_app.application import App, Scripted


@pytest.fixture
def app(tmp_path):
    """The application, fresh."""
    app = App(tmp_path)
    yield app
    app.service.close()


@pytest.fixture
def model():
    """The scripted chat model."""
    server = Scripted()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def chatting(app, model):
    """The application with that model."""
    app.assistant.endpoint = Endpoint(model.url, "tiny", "secret")
    return app
