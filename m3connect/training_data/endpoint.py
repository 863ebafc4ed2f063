"""A chat model behind any OpenAI-compatible endpoint: rate-limited, retried, one question a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from m3connect.errors import EndpointError

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how to ask.

    Args:
        base_url: up to and without ``/chat/completions``.
        model: the endpoint's name of the model.
        api_key: sent as a bearer token (``none`` without one); never shown.
        temperature: of the model.
        max_tokens: of an answer.
        per_minute: questions at most.
        timeout: seconds a request may take.
        retries: of a question, after a lost connection, a rate limit or a server's error.
    """

    base_url: str
    model: str
    api_key: str = ""
    temperature: float = 0.7
    max_tokens: int = 128
    per_minute: float = 60.0
    timeout: float = 60.0
    retries: int = 5

    def __repr__(self) -> str:
        return f"Settings(base_url={self.base_url!r}, model={self.model!r}, api_key=***)"


class Endpoint:
    """Asks one question at a time.

    Args:
        settings: where and how.
        client: that sends; default: a new one.
        clock, sleep: time between questions, for tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        client: httpx2.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from openai import OpenAI

        self.settings = settings
        self.client = OpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key or "none",
            timeout=settings.timeout,
            max_retries=settings.retries,
            http_client=client,
        )
        self.clock = clock
        self.sleep = sleep
        self._next = clock()

    def ask(self, prompt: str, seed: int = 0) -> str:
        """The model's answer to a prompt, without white space around it.

        Of an answer that was cut off, ``max_tokens`` being used up, its whole lines.

        Raises:
            EndpointError: it refused, kept failing, or answered in another form.
        """
        import openai

        self._wait()
        sent = prompt.encode(errors="replace").decode()  # half a surrogate pair fits no request
        try:
            answer = self.client.chat.completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": sent}],
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
                seed=seed,
            )
            choice = answer.choices[0]
            content = str(choice.message.content or "").strip()
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._failed(f"{error}; set OPENAI_API_KEY") from error
        except openai.OpenAIError as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise self._failed("its answer is no chat completion") from error
        cut_off = getattr(choice, "finish_reason", None) == "length"  # which some leave out
        return content.rpartition("\n")[0].strip() if cut_off else content

    def _failed(self, why: str) -> EndpointError:
        return EndpointError(f"{self.settings.model} at {self.settings.base_url}: {why}")

    def _wait(self) -> None:
        """Keep to the rate: questions start at equal distances."""
        now = self.clock()
        if now < self._next:
            self.sleep(self._next - now)
        self._next = max(now, self._next) + 60 / self.settings.per_minute
