"""Requests to a service that computes elsewhere: its key, retries, and errors in words."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from m3connect.connecting import deadline, retry
from m3connect.errors import (
    ConfigError,
    FingerprintMismatch,
    InputError,
    PermanentError,
    RequestTooLarge,
    TransientError,
)
from m3connect.model.tokenize import whole_characters

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_AGAIN = {429, 502, 503, 504}


class NoRoute(ConfigError):
    """The address is of something else, which has no such route."""


class Wire:
    """The way to a service.

    Args:
        url: of the service.
        what: it is, for messages.
        key: the environment variable with its key.
        api_key: its key, if not the environment's.
        timeout: seconds for one request.
        policy: how patiently a service that is away or full is asked again.
        client: in place of one for ``url``.

    Raises:
        ConfigError: httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        what: str,
        key: str,
        api_key: str | None,
        timeout: float,
        policy: retry.RetryPolicy,
        client: httpx.Client | None,
    ) -> None:
        self.url = url.rstrip("/")
        self.what = what
        self._key = key
        self._policy = policy
        self._timeout = timeout
        self._client = client or _client(self.url, api_key or os.environ.get(key), timeout)

    def known_as(self, what: str) -> Self:
        """The same way, to what turned out to be another kind of service."""
        other = copy.copy(self)
        other.what = what
        return other

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """One request, retried while the service is away or full.

        Raises:
            TransientError: it still is.
            ConfigError: a wrong key or address; NoRoute where there is no such path.
            RequestTooLarge: it takes less at once.
            PermanentError: it cannot compute this.
            InputError: it refuses the texts.
        """
        return retry.call(lambda: self._once(method, path, body, headers), self._policy)

    def json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The same, and what the answer says.

        Raises:
            ConfigError: it is no JSON, besides what :meth:`request` raises.
        """
        answer = self.request(method, path, body)
        try:
            return answer.json()
        except ValueError as error:  # neither JSON nor text
            raise ConfigError(f"{self.url} is no {self.what}: {path} is no JSON") from error

    def _once(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str] | None,
    ) -> httpx.Response:
        import httpx

        def transient(message: str, wait: float | None = None) -> TransientError:
            return TransientError(message, connector=self.what, operation=path, retry_after=wait)

        given = {"Content-Type": "application/json"} if body is not None else {}
        try:
            answer = deadline.within(
                self._timeout,
                self._client.request,
                method,
                path,
                content=_content(body),
                headers=given | (headers or {}),
            )
        except (httpx.TransportError, TimeoutError) as error:
            raise transient(f"{self.url} does not answer ({error})") from error
        status = answer.status_code
        if status in _AGAIN:
            wait = answer.headers.get("retry-after", "")
            raise transient(_message(answer), float(wait) if wait.isdigit() else None)
        if status in {401, 403}:
            raise ConfigError(f"{self.url} refuses the key; set {self._key}")
        if status == 404:
            raise NoRoute(f"{self.url} is no {self.what}: it has no {path}")
        if status == 413:
            raise RequestTooLarge(_message(answer), connector=self.what, operation=path)
        if status == 424 or status >= 500:  # 424: text-embeddings-inference's model cannot do it
            raise PermanentError(_message(answer), connector=self.what, operation=path)
        if not answer.is_success:
            raise InputError(f"{self.url}{path}: {_message(answer)}")
        return answer


def another_model(url: str, name: str) -> FingerprintMismatch:
    """The service was restarted with another model than the one of this name."""
    return FingerprintMismatch(
        f"the service at {url} now runs another model than {name!r}: load the encoder again, and use "
        "a collection of that model"
    )


def in_portions(
    ask: Callable[[Sequence[str]], T], texts: Sequence[str], start: int = 0
) -> Iterator[T]:
    """What a service makes of texts: at once, or of each half where that is too much for it.

    Args:
        ask: one request.
        texts: at least one.
        start: number of the first, for the message.

    Raises:
        InputError: a single text is too much; says which.
    """
    try:
        made = ask(texts)
    except RequestTooLarge as error:
        if len(texts) == 1:
            raise InputError(f"text {start} is too much for the service ({error})") from error
    else:
        yield made
        return
    half = len(texts) // 2
    yield from in_portions(ask, texts[:half], start)
    yield from in_portions(ask, texts[half:], start + half)


def _content(body: dict[str, Any] | None) -> bytes | None:
    """As JSON; halves of surrogate pairs, which UTF-8 cannot hold, count as a model here counts them."""
    if body is None:
        return None
    return whole_characters(json.dumps(body, ensure_ascii=False)).encode()


def _message(answer: httpx.Response) -> str:
    """What the service says, in the shapes of OpenAI, text-embeddings-inference and Cohere, or its status."""
    try:
        values = answer.json()
        said = values.get("error", values.get("message"))
        text = said["message"] if isinstance(said, dict) else said
    except (ValueError, KeyError, AttributeError):
        text = None
    return text if isinstance(text, str) else f"status {answer.status_code}"


def _client(url: str, api_key: str | None, timeout: float) -> httpx.Client:
    try:
        import httpx
    except ImportError as error:
        raise ConfigError(
            'a service at a URL needs httpx: pip install "m3connect[remote]"'
        ) from error
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=timeout)
