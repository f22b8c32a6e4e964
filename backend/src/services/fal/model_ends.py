"""When the default models end, as announced by their providers; `doctor` warns of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from services.fal.endpoints import MODEL_CHAINS, MODEL_LIST

if TYPE_CHECKING:
    from datetime import date

MODEL_ENDS: Mapping[str, str] = {
    "anthropic/claude-3.5-sonnet": "2025-10-28",
    "google/gemini-2.5-flash": "2026-12-01",
    "google/gemini-2.5-pro": "2026-12-01",
    "openai/gpt-5-mini": "2026-12-11",
    "openai/gpt-4o": "2027-01-14",
    "openai/gpt-4o-mini": "2027-01-14",
}
"""The day from which a model is no longer offered, as its provider announced it. Others have no date that is known."""
WARNING_DAYS = 30
"""How long before that day it is warned of."""


def ends_on(model: str) -> date | None:
    """The day from which `model` is no longer offered, when it is known."""
    from datetime import date  # slow to import, and only the doctor needs it

    return date.fromisoformat(MODEL_ENDS[model]) if model in MODEL_ENDS else None


def endings(by_hand: Mapping[str, tuple[str, ...]], today: date) -> list[dict[str, Any]]:
    """The default models that end, the next one first, each with the jobs that ask it and the model after it."""
    chains = {**MODEL_CHAINS, **by_hand}
    found = []
    for model in dict.fromkeys(model for chain in chains.values() for model in chain):
        if (ends := ends_on(model)) is not None:
            jobs = [job for job, chain in chains.items() if model in chain]
            then = {job: _after(model, chains[job]) for job in jobs}
            days = (ends - today).days
            found.append({"model": model, "ends_on": ends.isoformat(), "days_left": days, "then": then})
    return sorted(found, key=lambda row: row["ends_on"])


def warning_of(ending: Mapping[str, Any]) -> str | None:
    """What is said of a row of `endings` from 30 days before its day."""
    days: int = ending["days_left"]
    if days > WARNING_DAYS:
        return None
    left = "1 day" if days == 1 else f"{days} days"
    when = f"ends on {ending['ends_on']}, in {left}" if days > 0 else f"ended on {ending['ends_on']}"
    without = [job for job, model in ending["then"].items() if model is None]
    told = f"The default model {ending['model']} of {', '.join(ending['then'])} {when}"
    if without:
        names = " and ".join(f"FAL_{job.upper()}_MODEL" for job in without)
        return f"{told}, and no model stands after it: set {names} to another model of {MODEL_LIST}."
    return f"{told}. When fal refuses it, {' or '.join(dict.fromkeys(ending['then'].values()))} is asked in its place."


def _after(model: str, chain: tuple[str, ...]) -> str | None:
    following = chain.index(model) + 1
    return chain[following] if following < len(chain) else None
