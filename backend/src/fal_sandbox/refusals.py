"""Models that are refused before they run: gone ones, and ones that must reason.

How fal wraps what OpenRouter says of them is not documented, so every way can be played.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fal_sandbox import replies

HOW = ("404", "400", "422", "completed", "error")
"""The result's status; `completed`: only the COMPLETED status says it; `error`: in a 200, or an event of a stream."""
NO_SUCH = "no-such-"
"""Every model exists, but for those whose name begins so, behind the provider's."""
REASONING_TOKENS = 64
"""What a model that must reason uses up before it writes."""


@dataclass(frozen=True, slots=True)
class ModelRefusal:
    """How a job ends whose model did not run."""

    error: str | None
    """What its status says; None when it looks like a success."""
    reply: replies.Reply
    draft: dict[str, Any] | None = None
    """What a stream shows, when the refusal is one of its events."""


def gone(entry: str) -> tuple[str, str]:
    """Model and way of a setting `M` or `M=HOW`; a ValueError names a way that there is none."""
    model, _, how = entry.partition("=")
    if not model or (how or "404") not in HOW:
        raise ValueError(f"a model that is gone is M or M=HOW, HOW one of {', '.join(HOW)}; not {entry!r}")
    return model, how or "404"


def is_gone_model(entry: str) -> str:
    """The entry as it is; a ValueError when it names no way to be gone."""
    gone(entry)
    return entry


def refusal_of(
    gone_models: Sequence[str], must_reason: Collection[str], fields: dict[str, Any], *, streamed: bool
) -> ModelRefusal | None:
    """Why the model that these fields name does not run, if it does not."""
    model = fields.get("model")
    if isinstance(model, str) and model.rpartition("/")[2].startswith(NO_SUCH):
        return _gone(model, "404", streamed=streamed)
    how = next((how for name, how in map(gone, gone_models) if name == model), None)
    if how is not None:
        return _gone(str(model), how, streamed=streamed)
    if model in must_reason and not fields.get("reasoning"):
        why = "Reasoning is mandatory for this endpoint and cannot be disabled."
        return ModelRefusal("Invalid status code: 400", replies.detail(400, why))
    return None


def _gone(model: str, how: str, *, streamed: bool) -> ModelRefusal:
    no_endpoints = f"No endpoints found for {model}."
    if how == "error" or (how == "completed" and streamed):
        said = {"output": "", "reasoning": None, "partial": False, "error": no_endpoints}
        return ModelRefusal(None, replies.json_reply(said), said)
    if how == "completed":
        return ModelRefusal(no_endpoints, replies.detail(500, "Internal Server Error"))
    why = {
        "404": no_endpoints,
        "400": f"{model} is no longer available. Please use another model.",
        "422": [replies.field_error("value_error", "model", f"{model} is not a valid model ID", model)],
    }[how]
    return ModelRefusal(f"Invalid status code: {how}", replies.detail(int(how), why))
