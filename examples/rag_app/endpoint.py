"""A chat model behind any OpenAI-compatible endpoint, its answer as it comes."""

import os
from collections.abc import AsyncIterator
from typing import Any

from m3connect.errors import ConfigError, EndpointError


class Endpoint:
    """Streams answers. The model is offered no tools, and nothing of its answer is read but the text.

    Args:
        base_url: up to and without ``/chat/completions``.
        model: the endpoint's name of the model.
        api_key: sent as a bearer token; never shown.
    """

    def __init__(self, base_url: str, model: str, api_key: str = "") -> None:
        self.model = model
        self._base_url = base_url
        self._api_key = api_key or "none"

    @classmethod
    def from_environment(cls) -> "Endpoint | None":
        """By OPENAI_BASE_URL, OPENAI_MODEL and OPENAI_API_KEY; None where no address is set."""
        address, model = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_MODEL")
        if not address:
            return None
        if not model:
            raise ConfigError("OPENAI_BASE_URL is set: set OPENAI_MODEL to the model's name, too")
        return cls(address, model, os.environ.get("OPENAI_API_KEY", ""))

    async def stream(self, system: str, user: str, *, max_tokens: int = 800) -> AsyncIterator[str]:
        """The pieces of an answer; raises EndpointError if it is refused or breaks off.

        The connection ends with the answer, also with one that nobody waits for any more.
        """
        import openai

        said: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        client = openai.AsyncOpenAI(base_url=self._base_url, api_key=self._api_key, timeout=60)
        asked = client.chat.completions.create(
            model=self.model, messages=said, stream=True, temperature=0, max_tokens=max_tokens
        )
        try:
            async with client, await asked as chunks:
                async for chunk in chunks:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content
        except (openai.OpenAIError, ValueError, AttributeError) as error:
            raise EndpointError(f"{self.model} at {self._base_url}: {error!r}") from error
