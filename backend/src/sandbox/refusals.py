"""Models that are refused before they run: gone ones, and ones that must reason.

How fal wraps what OpenRouter says of them is not documented (wire.md, section 12.1), so every way can be played.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox import answers

if TYPE_CHECKING:
    from sandbox.state import Settings

HOW = ("404", "400", "422", "completed", "error")
"""The result's status; `completed`: only the COMPLETED status says it; `error`: in a 200, or an event of a stream."""
REASONING_TOKENS = 64
"""What a model that must reason uses up before it writes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a job ends whose model did not run."""

    error: str | None
    """What its status says; None when it looks like a success."""
    answer: answers.Answer
    draft: dict[str, Any] | None = None
    """What a stream shows, when the refusal is one of its events."""


def gone(entry: str) -> tuple[str, str]:
    """Model and way of a setting `M` or `M=HOW`; a ValueError names a way that there is none."""
    model, _, how = entry.partition("=")
    if not model or (how or "404") not in HOW:
        raise ValueError(f"a model that is gone is M or M=HOW, HOW one of {', '.join(HOW)}; not {entry!r}")
    return model, how or "404"


def refusal_of(settings: Settings, fields: dict[str, Any], *, streamed: bool) -> Refusal | None:
    """Why the model that these fields name does not run, if it does not."""
    model = fields.get("model")
    how = next((how for name, how in map(gone, settings.gone_models) if name == model), None)
    if how is not None:
        return _gone(str(model), how, streamed=streamed)
    if model in settings.must_reason and not fields["reasoning"]:
        why = "Reasoning is mandatory for this endpoint and cannot be disabled."
        return Refusal("Invalid status code: 400", answers.detail(400, why))
    return None


def _gone(model: str, how: str, *, streamed: bool) -> Refusal:
    no_endpoints = f"No endpoints found for {model}."
    if how == "error" or (how == "completed" and streamed):
        said = {"output": "", "reasoning": None, "partial": False, "error": no_endpoints}
        return Refusal(None, answers.json_answer(said), said)
    if how == "completed":
        return Refusal(no_endpoints, answers.detail(500, "Internal Server Error"))
    why = {
        "404": no_endpoints,
        "400": f"{model} is no longer available. Please use another model.",
        "422": [answers.field_error("value_error", "model", f"{model} is not a valid model ID", model)],
    }[how]
    return Refusal(f"Invalid status code: {how}", answers.detail(int(how), why))
