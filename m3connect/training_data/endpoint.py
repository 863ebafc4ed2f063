"""A chat model behind any OpenAI-compatible endpoint: rate-limited, retried, one question a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m3connect.connecting import retry
from m3connect.connecting.failures import of_status
from m3connect.connecting.retry import DEFAULT_POLICY, RetryPolicy
from m3connect.errors import AuthError, PermanentError, TransientError

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how to ask.

    Args:
        base_url: up to and without ``/chat/completions``.
        model: the endpoint's name of the model.
        api_key: sent as a bearer token when there is one; never shown.
        temperature: of the model.
        max_tokens: of an answer.
        per_minute: requests at most.
        timeout: seconds a request may take.
    """

    base_url: str
    model: str
    api_key: str = ""
    temperature: float = 0.7
    max_tokens: int = 128
    per_minute: float = 60.0
    timeout: float = 60.0

    def __repr__(self) -> str:
        return f"Settings(base_url={self.base_url!r}, model={self.model!r}, api_key=***)"


class Endpoint:
    """Asks one question at a time.

    Args:
        settings: where and how.
        client: that sends; default: a new one.
        clock, sleep: time, for tests.
        policy: how often a transient failure is retried.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        policy: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        if client is None:
            import httpx

            client = httpx.Client(timeout=settings.timeout)
        self.settings = settings
        self.client = client
        self.clock = clock
        self.sleep = sleep
        self.policy = policy
        self._next = clock()

    def ask(self, prompt: str, *, seed: int = 0) -> str:
        """The model's answer to a prompt, without white space around it.

        Raises:
            AuthError: the key is missing or wrong.
            TransientError: the endpoint kept failing.
            PermanentError: it refused the request, or answered in another form.
        """
        return retry.call(lambda: self._once(prompt, seed), self.policy)

    def _once(self, prompt: str, seed: int) -> str:
        import httpx

        self._wait()
        key = self.settings.api_key
        try:
            response = self.client.post(
                f"{self.settings.base_url.rstrip('/')}/chat/completions",
                headers={"Authorization": f"Bearer {key}"} if key else {},
                json={
                    "model": self.settings.model,
                    "messages": [{"role": "user", "content": prompt}],
                    "temperature": self.settings.temperature,
                    "max_tokens": self.settings.max_tokens,
                    "seed": seed,
                },
            )
        except httpx.TransportError as error:
            raise TransientError(
                f"{type(error).__name__}: {error}", connector="endpoint", operation="chat"
            ) from error
        _check(response)
        try:
            content: Any = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise PermanentError(
                f"unexpected answer {response.text[:200]!r}", connector="endpoint", operation="chat"
            ) from error
        return str(content or "").strip()

    def _wait(self) -> None:
        """Keep to the rate: requests start at equal distances."""
        now = self.clock()
        if now < self._next:
            self.sleep(self._next - now)
        self._next = max(now, self._next) + 60 / self.settings.per_minute


def _check(response: httpx.Response) -> None:
    status = response.status_code
    told = f"HTTP {status}: {response.text[:200]}"
    if status in {401, 403}:
        raise AuthError(f"{told}; set OPENAI_API_KEY", connector="endpoint", operation="chat")
    if status == 409 or of_status(status) is TransientError:
        after = response.headers.get("retry-after", "")
        seconds = float(after) if after.replace(".", "", 1).isdecimal() else None
        raise TransientError(told, retry_after=seconds, connector="endpoint", operation="chat")
    if status >= 400:
        raise PermanentError(told, connector="endpoint", operation="chat")
