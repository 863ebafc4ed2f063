"""Requests to a service that computes elsewhere: its key, retries, and errors in words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from m3connect.connecting import retry
from m3connect.errors import ConfigError, InputError, TransientError

if TYPE_CHECKING:
    import httpx

_AGAIN = {429, 502, 503, 504}


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
        self._what = what
        self._key = key
        self._policy = policy
        self._client = client or _client(self.url, api_key or os.environ.get(key), timeout)

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
            ConfigError: a wrong key or address.
            InputError: it refuses the texts.
        """
        return retry.call(lambda: self._once(method, path, body, headers), self._policy)

    def _once(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str] | None,
    ) -> httpx.Response:
        import httpx

        def transient(message: str, wait: float | None = None) -> TransientError:
            return TransientError(message, connector=self._what, operation=path, retry_after=wait)

        try:
            answer = self._client.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise transient(f"{self.url} does not answer ({error})") from error
        if answer.status_code in _AGAIN:
            wait = answer.headers.get("retry-after", "")
            raise transient(_message(answer), float(wait) if wait.isdigit() else None)
        if answer.status_code in {401, 403}:
            raise ConfigError(f"{self.url} refuses the key; set {self._key}")
        if answer.status_code == 404:
            raise ConfigError(f"{self.url} is no {self._what}: it has no {path}")
        if not answer.is_success:
            raise InputError(f"{self.url}{path}: {_message(answer)}")
        return answer


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
