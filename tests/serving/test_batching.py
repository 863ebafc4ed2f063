"""Many callers, few passes."""

import socket
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from m3connect.errors import TransientError
from m3connect.ingestion import ingest
from m3connect.serving.app import create_app
from m3connect.serving.batching import BatchingEncoder, Busy, Threads
from m3connect.serving.service import Limits, Service
from m3connect.stores.memory import MemoryConnector
from m3connect.testing.fakes import HashEncoder
from m3connect.types import Document
from tests.asgi import running


class Held(HashEncoder):
    """Waits in its first pass until it is released; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.started, self.release = threading.Event(), threading.Event()
        self.batches = []

    def encode(self, texts, **options):
        self.batches.append(list(texts))
        self.started.set()
        assert self.release.wait(10)
        if "explode" in texts:
            raise ValueError("this text explodes")
        return super().encode(texts, **options)


@pytest.fixture
def held():
    """An encoder that can be held back."""
    return Held()


def test_sixty_four_requests_are_a_few_passes(held):
    """What arrives while a pass runs shares the next one, and everyone gets their own rows."""
    texts = [f"text number {number}" for number in range(64)]
    with BatchingEncoder(held) as batching, ThreadPoolExecutor(64) as pool:
        first = pool.submit(batching.encode, ["first"])
        assert held.started.wait(10)
        answers = [batching.submit([text]) for text in texts]
        held.release.set()
        first.result()
        for text, answer in zip(texts, answers, strict=True):
            assert answer.result() == HashEncoder().encode([text])
    assert batching.passes == len(held.batches) == 2


def test_who_is_alone_does_not_wait_for_company(held):
    """The window opens after a pass of several callers, and closes after one of a single caller."""
    with BatchingEncoder(held, window=60) as batching:
        first = batching.submit(["first"])
        assert held.started.wait(10)
        crowd = [batching.submit([text]) for text in ("second", "third")]
        held.release.set()
        for job in (first, *crowd):
            job.result(timeout=10)
        late = batching.submit(["after a crowd"])
        with pytest.raises(TimeoutError):
            late.result(timeout=0.05)
    assert late.done()  # closing ends every wait
    assert held.batches == [["first"], ["second", "third"], ["after a crowd"]]


def test_each_gets_the_legs_it_asked_for(held):
    """A pass makes the union of the legs; nobody sees more than they asked for."""
    held.release.set()
    with BatchingEncoder(held) as batching:
        dense = batching.submit(["one"], legs=("dense",))
        sparse = batching.submit(["two"], legs=("sparse",))
        assert dense.result().legs == ("dense",)
        assert sparse.result().legs == ("sparse",)


def test_only_the_guilty_fail(held):
    """A text that cannot be encoded fails its own request alone."""
    with BatchingEncoder(held) as batching:
        blocker = batching.submit(["first"])
        assert held.started.wait(10)
        good, bad = batching.submit(["good"]), batching.submit(["explode"])
        held.release.set()
        blocker.result()
        assert good.result() == HashEncoder().encode(["good"])
        with pytest.raises(ValueError, match="explodes"):
            bad.result()


def test_a_full_queue_refuses(held):
    """Beyond its bound the queue says when to come back; a lone large request is still taken."""
    with BatchingEncoder(held, queue_tokens=20) as batching:
        blocker = batching.submit(["first"])
        assert held.started.wait(10)
        large = batching.submit(["word " * 100])
        with pytest.raises(Busy, match="try again in") as caught:
            batching.submit(["one more"])
        assert caught.value.retry_after > 0
        held.release.set()
        assert len(large.result()) == len(blocker.result()) == 1


def test_many_texts_are_encoded_in_turns_with_others(held):
    """What one request has more than a pass takes waits behind who came meanwhile."""
    texts = [f"text {number} " * 40 for number in range(9)]
    with BatchingEncoder(held, batch_tokens=290) as batching, ThreadPoolExecutor(1) as pool:
        many = pool.submit(batching.encode, texts)
        assert held.started.wait(10)
        one = batching.submit(["one more"])
        held.release.set()
        assert one.result(10) == HashEncoder().encode(["one more"])
        assert many.result(10) == HashEncoder().encode(texts)
    assert held.batches == [texts[:4], ["one more"], texts[4:8], texts[8:]]


def test_of_many_texts_that_are_given_up_the_rest_is_not_encoded(held):
    """A request whose time is over holds up nobody for longer than the pass that it is in."""
    service = Service(held, {}, limits=Limits(seconds=1))  # in which the first pass has begun
    service.encoder.batch_tokens = 290
    texts = [f"text {number} " * 40 for number in range(9)]
    with TestClient(create_app(service), base_url="http://localhost") as client:
        assert client.post("/v1/embeddings", json={"input": texts}).status_code == 504
        held.release.set()
    assert held.batches == [texts[:4]]


def test_what_was_given_up_is_not_computed(held):
    """A cancelled request never reaches the encoder."""
    with BatchingEncoder(held) as batching:
        blocker = batching.submit(["first"])
        assert held.started.wait(10)
        gone, kept = batching.submit(["gone"]), batching.submit(["kept"])
        assert gone.cancel()
        held.release.set()
        blocker.result()
        kept.result()
        with pytest.raises(CancelledError):
            gone.result()
    assert held.batches == [["first"], ["kept"]]


def test_the_tokenizer_is_there_before_the_first_text():
    """It is loaded as the service starts; one that cannot be had now hinders nobody."""
    order = []

    class Away(HashEncoder):
        @property
        def tokenizer(self):
            order.append("tokenizer")
            raise TransientError("away", connector="service", operation="tokenizer")

        def encode(self, texts, **options):
            order.append("text")
            return super().encode(texts, **options)

    with BatchingEncoder(Away()) as batching:
        batching.encode(["x"])
    assert order == ["tokenizer", "text"]


def test_closing_finishes_what_waits(held):
    """Close waits for the queue, then refuses."""
    batching = BatchingEncoder(held)
    jobs = [batching.submit([f"text {number}"]) for number in range(5)]
    held.release.set()
    batching.close()
    assert all(job.done() for job in jobs)
    with pytest.raises(Busy):
        batching.submit(["late"])


def test_queries_and_passages_are_encoded_apart(held):
    """A kind of text never shares a pass with the other."""
    kinds = []
    plain = held.encode
    held.encode = lambda texts, kind="passage", **rest: (
        kinds.append(kind) or plain(texts, kind=kind, **rest)
    )
    held.release.set()
    with BatchingEncoder(held, window=0.2) as batching:
        jobs = [batching.submit(["a"], kind="query"), batching.submit(["b"], kind="passage")]
        for job in jobs:
            job.result()
    assert sorted(kinds) == ["passage", "query"]


def wait_for(condition):
    """Until it holds, at most ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def waiting(service):
    """How many requests wait for the encoder."""
    return len(service.encoder._jobs)


def test_searches_at_once_share_a_pass(held):
    """A query is encoded before its search's turn: sixteen searches of one collection are two passes."""
    connector = MemoryConnector(collection="notes")
    ingest([Document("keys", "Keys are rotated.")], HashEncoder(), connector)
    service = Service(held, {"notes": lambda: connector})
    with TestClient(create_app(service), base_url="http://localhost") as client:

        def search(number):
            return client.post("/v1/search", json={"query": f"keys {number}"}).json()["hits"]

        with ThreadPoolExecutor(16) as pool:
            first = pool.submit(search, 0)
            assert held.started.wait(10)
            others = [pool.submit(search, number) for number in range(1, 16)]
            wait_for(lambda: waiting(service) == 15)
            held.release.set()
            for answer in (first, *others):
                assert [hit["document_id"] for hit in answer.result()] == ["keys"]
    assert len(held.batches) == 2


def test_what_takes_too_long_is_not_computed(held):
    """A request whose time is over is answered so, and leaves the queue."""
    service = Service(held, {}, limits=Limits(seconds=0.1))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        service.encoder.submit(["first"])  # what is late waits behind it
        assert held.started.wait(10)
        for text in ("late", "gone"):
            answer = client.post("/v1/embeddings", json={"input": text})
            assert answer.status_code == 504
            assert "within 0.1 seconds" in answer.json()["error"]["message"]
        held.release.set()
    assert held.batches == [["first"]]


def test_a_client_that_left_is_not_computed_for(held):
    """Over a real connection, for embeddings and for searches."""
    service = Service(held, {"notes": lambda: MemoryConnector(collection="notes")})
    with running(create_app(service)) as address:
        place = (urlsplit(address).hostname, urlsplit(address).port)

        def ask(path, body):
            client = socket.create_connection(place)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            return client

        clients = [ask("/v1/embeddings", '{"input": "first"}')]
        assert held.started.wait(10)
        clients.append(ask("/v1/embeddings", '{"input": "gone"}'))
        clients.append(ask("/v1/search", '{"query": "gone"}'))
        wait_for(lambda: waiting(service) == 2)
        for client in clients:
            client.close()
        wait_for(lambda: all(job.embeddings.cancelled() for job in service.encoder._jobs))
        held.release.set()
    assert held.batches == [["first"]]


def test_an_encoder_without_a_tokenizer_encodes_all_the_same():
    """Whatever reading it raised: who asks for the tokenizer is told, who waits for vectors is served."""

    class Broken(HashEncoder):
        @property
        def tokenizer(self):
            raise OSError("the file is gone")

    with BatchingEncoder(Broken()) as encoder:
        assert len(encoder.submit(["text"]).result(10)) == 1


def test_threads_are_bounded():
    """Beyond their bound calls are refused; one that was cancelled makes room and is not made."""
    threads, release, made = Threads(threads=1, waiting=1), threading.Event(), []
    running_one = threads.submit(release.wait, 10)
    waits = threads.submit(made.append, "cancelled")
    with pytest.raises(Busy):
        threads.submit(made.append, "refused")
    assert waits.cancel()
    last = threads.submit(made.append, "made")
    release.set()
    assert running_one.result(10)
    last.result(10)
    threads.close()
    assert made == ["made"]
