"""The costs of a call's jobs, and limits on them.

`Costs` is part of a call, as `Progress` is: a job that ends is noted in its own call and in those around it. A `Purse`
is a sum that may be spent: of one call (`Call(max_usd=…)`) or of a client's whole life (`FalClient(max_usd=…)`). A call
sets aside what it is expected to cost before anything is sent, each job takes its part of that before its submit, and
what a job did cost takes the place of what was expected. Prices are not known here: see `prices.py`, `estimates.py`.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from services.fal.errors import BudgetExceeded, InvalidInput

ROUNDING_USD = 1e-9
MAX_USD = 1_000_000.0


def check_max_usd(value: object, name: str = "max_usd") -> float:
    """`value` as US dollars, when it is a number above 0."""
    try:
        usd = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        usd = -1.0
    if isinstance(value, bool) or not 0 < usd <= MAX_USD:
        raise InvalidInput(f"{name} must be US dollars above 0 and at most {MAX_USD:,.0f}, not {value!r}.")
    return usd


_lock = threading.Lock()
"""Of all purses: a sum is taken from a line of them, all or nothing."""


def _forget_parent_process() -> None:
    """In the child of a fork the lock may be held by a thread that exists in the parent alone."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent_process)


class Purse:
    """A sum of US dollars that may be spent, or, without `max_usd`, only a place for what was set aside."""

    def __init__(self, max_usd: float | None = None, *, above: tuple[Purse, ...] = ()) -> None:
        """What is taken here is taken from all the purses `above` too."""
        self.max_usd = max_usd
        self.line: tuple[Purse, ...] = (self, *above)
        self._used = 0.0
        """Spent, taken by jobs that are not over, or set aside."""
        self._aside = 0.0
        """Of that, what was set aside for jobs to come."""
        self._holds = False
        """Whether it is a call's that has set something aside, and gives it back at its end."""

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit here or above: without one no price needs to be known ahead."""
        return any(purse.max_usd is not None for purse in self.line)

    def take(self, usd: float) -> None:
        """Take so much for one job. Raises BudgetExceeded, and takes nothing, when it is not left."""
        with _lock:
            self._take(usd)

    def set_aside(self, usd: float) -> None:
        """Keep so much for the jobs of this call. Raises BudgetExceeded, and keeps nothing, when it is not left."""
        with _lock:
            before, self._aside = self._aside, 0.0
            try:
                self._take(usd)
                self._aside = usd
            finally:
                self._aside += before
            self._holds = True

    def settle(self, taken_usd: float, cost_usd: float) -> None:
        """Put what a job did cost in place of what was taken for it."""
        with _lock:
            if cost_usd <= taken_usd:
                self._give_back(taken_usd - cost_usd)
            else:
                self._take(cost_usd - taken_usd, is_spent=True)

    def close(self) -> None:
        """Give back what was set aside and not used."""
        with _lock:
            usd, self._aside, self._holds = self._aside, 0.0, False
            self._give_back(usd)

    def _take(self, usd: float, *, is_spent: bool = False) -> None:
        shares: list[tuple[Purse, float, float]] = []
        rest = usd
        for purse in self.line:
            # What a purse has set aside is taken already, here and from all above it.
            aside = min(purse._aside, rest)
            rest -= aside
            shares.append((purse, aside, rest))
            if not is_spent and purse.max_usd is not None and purse._used + rest > purse.max_usd + ROUNDING_USD:
                raise _exceeded(usd, purse.max_usd, purse.max_usd - purse._used + usd - rest)
        for purse, aside, more in shares:
            purse._aside -= aside
            purse._used += more

    def _give_back(self, usd: float) -> None:
        for purse in self.line:
            if purse._holds:
                purse._aside += usd
                return
            purse._used -= usd


def _exceeded(usd: float, max_usd: float, left_usd: float) -> BudgetExceeded:
    return BudgetExceeded(
        f"This would cost ${shown_usd(usd)}, but only ${shown_usd(max(0.0, left_usd))} of max_usd {max_usd:g} is left.",
        hint=f"Raise max_usd (--max_usd, FAL_MAX_USD) by at least ${shown_usd(usd - left_usd)}, or ask for less.",
    )


def shown_usd(usd: float) -> str:
    """A sum with as many digits as it takes, so that no price is shown as 0.00."""
    return f"{usd:.2f}" if abs(round(usd, 2) - usd) < ROUNDING_USD else f"{usd:.6f}".rstrip("0").rstrip(".")


class Costs:
    """What the jobs of one call have cost, in the order in which they ended."""

    def __init__(self, parent: Costs | None = None, *, max_usd: float | None = None, life: Purse | None = None) -> None:
        """`max_usd` limits this call, `life` the client that makes it."""
        self._parent = parent
        above: tuple[Purse, ...] = () if parent is None else parent.purse.line
        self.purse: Purse = Purse(max_usd, above=above if life is None or life in above else (*above, life))
        self._jobs: list[dict[str, Any]] = []

    def note(self, step: str, style: str | None, endpoint: str, cost_usd: float | None) -> None:
        """Tell of a job that is over; None for one whose cost nobody knows."""
        # Appending is atomic, and nothing else is done to the list.
        self._jobs.append({"step": step, "style": style, "endpoint": endpoint, "cost_usd": cost_usd})
        if self._parent is not None:
            self._parent.note(step, style, endpoint, cost_usd)

    @property
    def has_jobs(self) -> bool:
        """Whether any job is over."""
        return bool(self._jobs)

    def total(self) -> float | None:
        """The sum, in US dollars; None when one of them is not known."""
        return total_usd([job["cost_usd"] for job in self._jobs])

    def told(self) -> dict[str, Any]:
        """The sum and its parts, for a result of several jobs."""
        jobs = [dict(job) for job in self._jobs]
        return {"cost_usd": total_usd([job["cost_usd"] for job in jobs]), "costs": jobs}


def total_usd(costs: list[float | None]) -> float | None:
    """The sum of costs in US dollars; None when one of them is not known."""
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 9) if len(known) == len(costs) else None
