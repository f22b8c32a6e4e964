"""What the command `batch` prints, and the lines of results.jsonl."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from services.fal.results import EstimatedCalls, Failed, Kept


class BatchLine(TypedDict):
    """One line of results.jsonl: what came of one product."""

    key: str
    """What names the product, and its folder."""
    line: int
    """Where it stands in the manifest, from 1."""
    status: Literal["done", "failed", "ambiguous"]
    """How it ended; ambiguous: nobody knows whether fal runs, and bills, a job."""
    result: dict[str, Any] | None
    """The document of the command, as far as it is."""
    error: str | None
    """What went wrong, and what to do next."""
    error_type: str | None
    """Stable name of this kind of failure."""
    hint: str | None
    """What to do next."""
    attempts: int
    """How often it was begun."""
    seconds: float
    """Of the last attempt."""
    cost_usd: float | None
    """Of all its jobs in all attempts; null when a part is not known, as while a job of it runs or is in doubt."""


class ProductCounts(TypedDict):
    waiting: int
    """Not begun."""
    running: int
    """Begun, and not ended."""
    done: int
    """Made."""
    failed: int
    """Failed."""
    ambiguous: int
    """Products with a job of which nobody knows whether fal runs and bills it."""


class LeftOut(TypedDict):
    line: int
    """Where it stands in the manifest, from 1."""
    error: str
    """Why."""


class SettledJobs(TypedDict):
    adopted: int
    """Found at fal: they are picked up by their ids."""
    dropped: int
    """Surely not at fal: they may be submitted."""
    open: int
    """Still in doubt."""
    why_open: str | None
    """Why these are not settled, and what to do."""


class BatchDocument(TypedDict):
    """Of `batch`."""

    output: Kept[str]
    """The folder with results.jsonl and a folder of each product's pictures."""
    products: Kept[ProductCounts]
    """How many there are, by state."""
    jobs: Kept[dict[str, int]]
    """By their state: sent, done, failed, ambiguous."""
    cost_usd: Kept[float]
    """US dollars over all runs: the sum of what is known. The jobs of `unknown_costs` are not in it."""
    unknown_costs: Kept[int]
    """How many jobs ended, done or failed, at a cost that nobody knows, or were in doubt and submitted again."""
    committed_usd: Kept[float]
    """With `max_usd`, also what was expected of jobs that run, are in doubt, or whose cost is not known."""
    max_usd: Kept[float | None]
    """What the batch may cost at most."""
    seconds: Kept[float]
    """Of this run."""
    left_out: Kept[list[LeftOut]]
    """Lines of the manifest that cannot be used."""
    ignored_columns: Kept[list[str]]
    """Columns of the manifest that are not options of the command."""
    settled: Kept[SettledJobs | None]
    """With --settle."""
    planned: Kept[list[EstimatedCalls] | None]
    """With --dry_run: the calls of each endpoint; then `cost_usd` is what they would cost."""
    worked_on: Kept[bool | None]
    """With --status and --pause: whether a process works on the batch now."""
    how_to_resume: Kept[str | None]
    """With these, if products wait and no process works on the batch."""
    error: Failed[str] | None
    """Set when a product failed, or was not made."""
