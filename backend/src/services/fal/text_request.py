"""One question to a language or vision model, and the input that an endpoint takes for it.

Light to import: it is made before anything is sent. Asking is `language.py`'s.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from services.fal.endpoints import Endpoint

_IMAGE_LINE = re.compile(r"image url:\s*<?((?:https?://|data:image/)[^\s<>\"']+)", re.IGNORECASE)


class TextRequest(NamedTuple):
    """One question to a model."""

    prompt: str
    model: str | None = None
    """None until one is chosen from the chain of default models; see `models.py`."""
    system_prompt: str | None = None
    temperature: float = 0.7
    max_tokens: int | None = None
    priority: str | None = None
    image_urls: tuple[str, ...] = ()
    reasoning: bool | None = None

    def arguments(self, endpoint: Endpoint) -> dict[str, Any]:
        """The input as `endpoint` takes it."""
        arguments: dict[str, Any] = {
            "prompt": self.prompt,
            "model": self.model,
            "temperature": self.temperature,
            "system_prompt": self.system_prompt,
            "max_tokens": self.max_tokens,
            "reasoning": self.reasoning,
        }
        if endpoint.takes_priority:
            arguments["priority"] = self.priority
        if self.image_urls:
            arguments.update(endpoint.image_input(list(self.image_urls)))
        return {name: value for name, value in arguments.items() if value is not None}


def image_urls_in(prompt: str) -> list[str]:
    """The URLs of lines `Image URL: <url>` in a prompt."""
    return [found.rstrip(".,;:!?)]") for found in _IMAGE_LINE.findall(prompt)]
