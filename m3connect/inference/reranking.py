"""Rerankers: a cross-encoder on this machine, or a service that runs one.

rerank = load_reranker("BAAI/bge-reranker-v2-m3")
rerank = load_reranker("http://reranker:8080")                # text-embeddings-inference
rerank = load_reranker("https://api.cohere.com/v2/rerank?model=rerank-v3.5")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from m3connect.connecting import retry
from m3connect.contract import Reranker
from m3connect.errors import ConfigError, InputError
from m3connect.inference.wire import Wire, in_portions
from m3connect.model import hub

if TYPE_CHECKING:
    import httpx

KEY = "M3CONNECT_RERANKER_KEY"
"""The environment variable with the service's key."""
_BATCH = 32  # texts of one request: what text-embeddings-inference takes by default


def load_reranker(name: str, *, device: str = "auto", api_key: str | None = None) -> Reranker:
    """What orders passages by reading each together with the query.

    Args:
        name: a cross-encoder on the hub or in a folder, or the address of a service: of
            text-embeddings-inference, or of a route in Cohere's form (``.../v1/rerank?model=NAME``)
            as Cohere, Jina, vLLM and ``m3connect serve`` have it.
        device: of a cross-encoder, such as ``cuda``; ``auto`` for the best there is.
        api_key: of a service; default: the environment's ``M3CONNECT_RERANKER_KEY``.

    Raises:
        ConfigError: an extra is not installed, or the model cannot be loaded.
        CheckpointError: it is on the hub, which cannot be reached.
    """
    if "://" in name:
        return RerankService(name, api_key=api_key)
    return CrossEncoder(name, device=device)


class CrossEncoder:
    """A cross-encoder that sentence-transformers or transformers can load.

    Args:
        name: on the hub, or a folder.
        device: such as ``cuda``; ``auto`` for the best there is.

    Raises:
        ConfigError: sentence-transformers is not installed, or there is no such model.
        CheckpointError: it is on the hub, which cannot be reached.
    """

    def __init__(self, name: str, *, device: str = "auto") -> None:
        hub.require(name)
        try:
            import sentence_transformers
        except ImportError as error:
            raise ConfigError(
                f"a cross-encoder needs sentence-transformers ({error}): "
                'pip install "m3connect[rerank]"'
            ) from error
        self._one_at_a_time = threading.Lock()  # tokenizers that pad are not for two threads
        try:
            self._model = sentence_transformers.CrossEncoder(
                name, device=None if device == "auto" else device
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"no cross-encoder {name!r}: {error}") from error

    def __call__(self, query: str, passages: Sequence[str]) -> list[float]:
        """See :class:`m3connect.contract.Reranker`."""
        return self.score([(query, passage) for passage in passages])

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """A score for each (query, passage), as the model is meant to give it: mostly from 0 to 1."""
        return self._predicted(pairs, None)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The same before what makes numbers from 0 to 1 of them, which no softmax tells apart."""
        return self._predicted(pairs, _as_they_are)

    def _predicted(
        self, pairs: Sequence[tuple[str, str]], activation: Callable[[Any], Any] | None
    ) -> list[float]:
        """Scores with this activation, or the model's own."""
        with self._one_at_a_time:
            scores = self._model.predict(
                list(pairs), show_progress_bar=False, activation_fn=activation
            )
        return [float(score) for score in scores]


def _as_they_are(scores: Any) -> Any:
    return scores


class RerankService:
    """A service with a ``/rerank`` route.

    A route that ends in ``/v1/rerank`` or ``/v2/rerank`` is asked in Cohere's form, any other
    address in that of text-embeddings-inference, at its ``/rerank``.

    Args:
        url: of the service; ``?model=`` names the model where the service wants one.
        api_key: its key; default: the environment's ``M3CONNECT_RERANKER_KEY``.
        timeout: seconds for one request.
        policy: how patiently a service that is away or full is asked again.
        client: in place of one of its own.

    Raises:
        ConfigError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        policy: retry.RetryPolicy = retry.DEFAULT_POLICY,
        client: httpx.Client | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._model = dict(parse_qsl(parts.query)).get("model")
        path = parts.path.rstrip("/").removesuffix("/rerank")
        self._cohere = path.endswith(("/v1", "/v2"))
        self._wire = Wire(
            urlunsplit((parts.scheme, parts.netloc, path, "", "")),
            what="reranker",
            key=KEY,
            api_key=api_key,
            timeout=timeout,
            policy=policy,
            client=client,
        )

    def __call__(self, query: str, passages: Sequence[str]) -> list[float]:
        """See :class:`m3connect.contract.Reranker`.

        Raises:
            TransientError: the service did not answer within the retries.
            PermanentError: its model does not rerank.
            ConfigError: a wrong key or address.
            InputError: it refuses the texts, or its answer is none.
        """
        scores: list[float] = []
        for start in range(0, len(passages), _BATCH):
            some = passages[start : start + _BATCH]
            scores += chain.from_iterable(in_portions(partial(self._scores, query), some, start))
        return scores

    def _scores(self, query: str, texts: Sequence[str]) -> list[float]:
        if self._cohere:
            body: dict[str, Any] = {"query": query, "documents": list(texts), "top_n": len(texts)}
            if self._model is not None:
                body["model"] = self._model
        else:
            body = {"query": query, "texts": list(texts), "truncate": True}
        answer = self._wire.request("POST", "/rerank", body)
        field = "relevance_score" if self._cohere else "score"
        try:
            given = answer.json()
            entries = given["results"] if self._cohere else given
            by_row = {int(each["index"]): float(each[field]) for each in entries}
            return [by_row[row] for row in range(len(texts))]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self._wire.url} is no reranker: it gives no index and {field} of each text"
            ) from error
