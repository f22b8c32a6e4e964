"""The journal of one product while it is made: connects the core's hooks with the batch's store.

It also remembers what the product's state will be: whether a job of it is in doubt, and whether one was held back.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.batch.brake import Brake, Held
from services.batch.journal import JobRow, JournalError, OwnerMayLive, PictureRow, Store, as_text, step_of
from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
    BudgetExceeded,
    FalError,
    FalUnavailable,
    InvalidInput,
    RateLimited,
    Unreachable,
)
from services.fal.journal import Accepted, JobKey, Later, Result
from services.fal.log import logger

PASSING = (RateLimited, FalUnavailable, Unreachable)
"""Why fal did not take a job, when that passes."""
MOST_ASKED = 6


class ProductJournal:
    """Implements `services.fal.journal.Journal` for one attempt at one product."""

    def __init__(self, store: Store, product: int, brake: Brake, *, has_limit: bool, retry_ambiguous: bool) -> None:
        """`has_limit`: whether the batch has a `max_usd`, so that jobs must be estimated."""
        self._store = store
        self._product = product
        self._brake = brake
        self._has_limit = has_limit
        self._retry_ambiguous = retry_ambiguous
        self._lock = threading.Lock()
        self._begun: set[str] = set()
        """The jobs of this attempt that were not refused and have not failed."""
        self._asked: Counter[str] = Counter()
        """How often a job was refused for something that passes."""
        self.held = False
        """Whether a job was not submitted because the run ends: the product is not over."""
        self.later_s: float | None = None
        """After how long the product may be tried again, when another machine may still work on it."""
        self.in_doubt_steps: list[str] = []
        """Jobs that fal may be running, and that nobody can pick up."""

    @property
    def cost_usd(self) -> float | None:
        """All that the jobs of this product have cost, over all attempts; None when a part is not known."""
        return self._store.cost(self._product)

    # What the core asks and tells

    def begin(
        self, key: JobKey, endpoint: str, arguments: Mapping[str, Any], expected_usd: Callable[[], float]
    ) -> Result | Accepted | Later | None:
        step = step_of(key)
        try:
            self._brake.check()
            if pause_s := self._brake.pause_s():
                return Later(pause_s)
            with self._lock:
                if step in self._begun:
                    why = f"Two jobs of one product are called {step}."
                    raise InvalidInput(why, hint="Give each style a name of its own.")
                self._begun.add(step)
            return self._begin(step, endpoint, input_hash(arguments), expected_usd)
        except Held:
            self.held = True
            raise

    def _begin(
        self, step: str, endpoint: str, args_hash: str, expected_usd: Callable[[], float]
    ) -> Result | Accepted | Later | None:
        try:
            estimate = expected_usd() if self._has_limit else 0.0
            row = self._store.begin(
                self._product, step, endpoint, args_hash, estimate, retry_ambiguous=self._retry_ambiguous
            )
        except OwnerMayLive as error:
            self.later_s = error.wait_s
            raise Held(str(error)) from error
        except (BudgetExceeded, JournalError) as error:
            self._brake.stop(error)
            raise Held(str(error)) from error
        if isinstance(row, Later):
            self._forget(step)
            return row
        return None if row is None else self._known(row, args_hash)

    def _known(self, row: JobRow, args_hash: str) -> Result | Accepted:
        if row.state == "ambiguous":
            self._doubt(row.step)
            raise in_doubt(row)
        if row.args_hash != args_hash:
            logger.info("%s goes on with the job %s, which was asked something else", row.step, row.request_id)
        if row.state == "sent":
            return Accepted(row.endpoint, str(row.request_id))
        assert row.result is not None
        return Result(**row.result)

    def sent(self, key: JobKey, request_id: str) -> None:
        self._brake.accepted()
        with self._fatal(f" The job {request_id} runs at fal."):
            self._store.sent(self._product, step_of(key), request_id)

    def refused(self, key: JobKey, error: FalError) -> bool:
        with self._fatal():
            self._store.refused(self._product, step_of(key))
        self._forget(step_of(key))
        if isinstance(error, AuthError):
            self._brake.stop(error)
            self.held = True
        if not isinstance(error, PASSING):
            return False
        self._brake.trouble(error)
        with self._lock:
            self._asked[step_of(key)] += 1
            return self._asked[step_of(key)] < MOST_ASKED

    def in_doubt(self, key: JobKey, error: AmbiguousSubmit) -> None:
        self._doubt(step_of(key))
        with self._fatal():
            self._store.in_doubt(self._product, step_of(key), error.request_id)

    def done(self, key: JobKey, result: Result) -> None:
        with self._fatal():
            self._store.done(self._product, step_of(key), result._asdict(), result.cost_usd)

    def failed(self, key: JobKey, error: FalError, cost_usd: float | None) -> None:
        with self._fatal():
            self._store.failed(self._product, step_of(key), cost_usd)
        self._forget(step_of(key))  # the next model may be asked the same

    # Pictures

    def saved_picture(self, url: str, folder: Path, name: str) -> Path | None:
        row = self._store.picture(self._product, name)
        if row is None or row.url != url:
            return None
        path = folder / row.path
        try:
            return path if path.stat().st_size == row.bytes else None
        except OSError:
            return None

    def picture_saved(self, url: str, path: Path, name: str) -> None:
        with self._fatal():
            self._store.saved(self._product, PictureRow(name, url, path.name, path.stat().st_size))

    def _forget(self, step: str) -> None:
        with self._lock:
            self._begun.discard(step)

    def _doubt(self, step: str) -> None:
        with self._lock:
            self.in_doubt_steps.append(step)

    def _fatal(self, more: str = "") -> _Fatal:
        return _Fatal(self, self._brake, more)


class _Fatal:
    """A journal that cannot be written ends the run: what cannot be put on record must not be paid for."""

    def __init__(self, journal: ProductJournal, brake: Brake, more: str) -> None:
        self._journal = journal
        self._brake = brake
        self._more = more

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, JournalError):
            told = JournalError(f"{error.args[0]}{self._more}", hint=error.hint)
            self._brake.stop(told)
            self._journal.held = True
            raise Held(str(told)) from error


def in_doubt(row: JobRow) -> AmbiguousSubmit:
    """The error for a job that may be running at fal, and is not submitted again."""
    return AmbiguousSubmit(
        f"Whether fal took the job {row.step} on {row.endpoint} is not known. It was not submitted again.",
        request_id=row.request_id,
        hint="Resume with --settle to ask fal for it, or with --retry_ambiguous to pay for it once more.",
    )


def input_hash(arguments: Mapping[str, Any]) -> str:
    """What a job was given, in short, to find it among fal's past requests and to notice that it is asked otherwise."""
    text = as_text(json.loads(json.dumps(arguments, default=list)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
