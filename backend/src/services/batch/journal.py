"""The journal of a batch: the interface that every store implements, and its promises.

`sqlite_journal.py` keeps it on one machine, `postgres_journal.py` on several.

The truth about money is one row per job, and one number per batch:

    batch    id, version, recipe, max_jobs, max_usd, committed, paused, intents
    product  id, key (unique), line, input, state, attempts, result, result_bytes, owner, ended_at
    job      product, step, state, endpoint, args_hash, request_id, result, estimate, cost, unknown, intent_at,
             number, told, over_by, owner
             PRIMARY KEY (product, step)
    picture  product, name, url, path, bytes
             PRIMARY KEY (product, name)

    product.state: waiting -> running -> done | failed | ambiguous
    job.state:     intent -> sent -> done | failed, or ambiguous

A job is submitted as often as its product is retried, and its row holds what all of that cost: `cost` is the sum of
what is known, `unknown` how many of its submits are over at a cost that nobody knows. A row with either is kept.

`batch.committed` is what the batch may have spent: the actual cost of jobs that ended, and the estimate of those that
run, are in doubt, or whose cost is not known. No job begins that would take it above `max_usd`.

What was first is told without a clock, which may be set: `batch.intents` counts the intents, `job.number` is the count
with the job's own, and `job.told` was the count when its submit was over, accepted or in doubt. A job whose `told` is
below the `number` of another was over before that other one was sent.

A method is one transaction, which is on disk when it returns. All of them may be called from several threads at once.
They wait for the database, never for fal.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from services.fal.costs import shown_usd
from services.fal.errors import BudgetExceeded, FalError
from services.fal.journal import JobKey, Later
from services.fal.redaction import shown

DEFAULT_JOBS = 10
VERSION = 2
"""Of the tables. A journal of another version is refused."""
OWNER_GONE_S = 60.0
"""An intent that is older than this is not its owner's any more, where owners are on several machines."""

ProductState = Literal["waiting", "running", "done", "failed", "ambiguous"]
COUNTED: tuple[ProductState, ...] = ("waiting", "running", "done", "failed", "ambiguous")
JobState = Literal["intent", "sent", "done", "failed", "ambiguous"]
MOST_NEIGHBOURS = 3
"""Jobs on each side of one in doubt that settling looks at."""
OPEN_JOBS = "('intent', 'sent', 'ambiguous')"
"""States of a job that may yet cost something, as SQL."""


class JournalError(FalError):
    """The journal cannot be read or written, or is in use, or is another batch's."""

    error_type = "journal"


class BatchIncomplete(FalError):
    """Not every product of the batch is done."""

    error_type = "batch_incomplete"


class OwnerMayLive(Exception):
    """The intent is younger than OWNER_GONE_S and another owner's: put the product back with a delay."""

    wait_s: float = OWNER_GONE_S
    """After how long it is its owner's no more."""


def over_budget(batch: BatchRow, estimate: float) -> BudgetExceeded:
    """The error for a job that `max_usd` does not cover."""
    return BudgetExceeded(
        f"The next job may cost ${shown_usd(estimate)}, but of the ${batch.max_usd:.2f} that the batch may spend, "
        f"${shown_usd(batch.committed)} is already spent or reserved.",
        hint="Resume with a higher --max_usd.",
    )


class BatchRow(NamedTuple):
    """The batch itself."""

    recipe: Mapping[str, Any]
    """What makes its products: the command, its options, the models. A batch is resumed with the same one only."""
    max_jobs: int
    """How many jobs run at fal at once, over all machines."""
    max_usd: float | None
    committed: float
    """US dollars that may have been spent so far."""
    paused: bool


class NewProduct(NamedTuple):
    """One line of the manifest."""

    key: str
    line: int
    """Where it stands in the manifest, from 1."""
    input: Mapping[str, Any]
    """The options of the command."""


class Product(NamedTuple):
    """One product that is to be made now."""

    id: int
    key: str
    line: int
    input: Mapping[str, Any]
    attempts: int
    """How often it was begun, this time included."""


class Counts(NamedTuple):
    """How many products are in which state, and what is known of the jobs."""

    waiting: int
    running: int
    done: int
    failed: int
    ambiguous: int
    jobs: Mapping[JobState, int]
    cost_usd: float
    """The sum of what is known: without the jobs of `unknown_costs`, and those that run or are in doubt."""
    unknown_costs: int
    """How many jobs are over, done or not, at a cost that nobody knows. A job that was submitted again counts again."""


class JobRow(NamedTuple):
    """One job as the journal knows it."""

    product: int
    step: str
    """Its key, by `step_of`."""
    state: JobState
    endpoint: str
    args_hash: str
    request_id: str | None
    result: Mapping[str, Any] | None
    """By `results_row`; None until it is done."""
    estimate: float
    intent_at: float
    """Unix time, by a clock that may have been wrong."""
    number: int
    """Its place among the intents of the batch, from 1."""
    told: int | None
    """How many intents there were when its submit was over; None before that."""
    over_by: float | None
    """A moment at which its submit was surely over: Unix time by fal's clock, the earliest that is known."""


class Neighbours(NamedTuple):
    """Jobs on the same endpoint as one that is in doubt, which fal knows by their ids."""

    before: Sequence[JobRow]
    """Accepted before that one was recorded, the last first."""
    after: Sequence[JobRow]
    """Recorded after the submit of that one was over, the first first."""


class PictureRow(NamedTuple):
    """A picture that was saved whole."""

    name: str
    """Of its file, without the extension."""
    url: str
    path: str
    bytes: int


class Store(ABC):
    """What keeps the journal of one batch."""

    # The batch

    @abstractmethod
    def is_there(self) -> bool:
        """Whether the batch was begun before. Opens nothing that is not closed again."""

    @abstractmethod
    def open(self, recipe: Mapping[str, Any] | None, max_jobs: int | None, max_usd: float | None) -> BatchRow:
        """Begin a new batch with `recipe`, or take up the one that is there; then what is not None is set anew.

        Raises JournalError: another process has it (one machine only), it is of another version, is damaged, has
        another recipe (the error names what differs), or there is none and no recipe is given.
        """

    @abstractmethod
    def look(self) -> None:
        """Open it beside whoever works on it, for `batch`, `counts` and `set_paused`. Raises JournalError."""

    @abstractmethod
    def is_worked_on(self) -> bool:
        """Whether a process works on its products now."""

    @abstractmethod
    def batch(self) -> BatchRow:
        """The batch as it is now. Called often, `paused` is read from it."""

    @abstractmethod
    def set_paused(self, paused: bool) -> None:
        """Whether jobs may be submitted, on every machine."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it. Products that this process had claimed are claimed by the next."""

    # Products

    @abstractmethod
    def add(self, products: Iterable[NewProduct]) -> int:
        """Add those whose key is new, all or none; how many were.

        A known product whose input differs gets the new one and waits again, if no job of it was ever submitted; else
        JournalError names it.
        """

    @abstractmethod
    def has_products(self) -> bool:
        """Whether any was ever added."""

    @abstractmethod
    def claim(self, limit: int) -> Sequence[Product]:
        """At most `limit` products that wait, now running and this process's own. None: none waits now."""

    @abstractmethod
    def unfinished(self) -> bool:
        """Whether `claim` may give more later, though it gave none now: products wait out their delay, or are another
        machine's, which may die. Always False where one process has the journal."""

    @abstractmethod
    def put_back(self, product: int, delay_s: float) -> None:
        """A claimed product waits again, and is not claimed before the delay is over. The attempt does not count."""

    @abstractmethod
    def finish(self, product: int, state: ProductState, line: bytes) -> None:
        """A claimed product has ended as `state`; `line` is its line of results.jsonl, without the newline."""

    @abstractmethod
    def again(self, states: Sequence[ProductState]) -> int:
        """Products that ended in one of `states` wait again, without a result; how many."""

    @abstractmethod
    def counts(self) -> Counts:
        """For the progress bar and the summary; called once a second."""

    @abstractmethod
    def results(self) -> Iterator[bytes]:
        """The lines of the products that have ended, in the order in which they did, without holding them all."""

    @abstractmethod
    def result_bytes(self) -> int:
        """The length of all those lines with their newlines: of results.jsonl, when it is whole."""

    # Jobs

    @abstractmethod
    def begin(
        self, product: int, step: str, endpoint: str, args_hash: str, estimate: float, *, retry_ambiguous: bool
    ) -> JobRow | Later | None:
        """Reserve `estimate` and record the intent, in one transaction: None. Or the row that stands in its way.

        Later: `max_jobs` are at fal already. A store that one process uses leaves that limit to the client's places.

        - none there, or one that failed: reserve and record
        - sent, done: the row
        - ambiguous: the row; with `retry_ambiguous` reserve and record (the old estimate stays committed, and its cost
          is one more that nobody knows)
        - intent, of an owner that is gone: it becomes ambiguous, then as that
        - intent, of one that may live: raises OwnerMayLive

        Raises BudgetExceeded (`over_budget`) when the reserve would exceed `max_usd`.
        """

    @abstractmethod
    def sent(self, product: int, step: str, request_id: str) -> None:
        """intent -> sent."""

    @abstractmethod
    def refused(self, product: int, step: str) -> None:
        """The intent is deleted, and its estimate given back. Where the key was submitted before, it has failed."""

    @abstractmethod
    def in_doubt(self, product: int, step: str, request_id: str | None) -> None:
        """intent -> ambiguous; the id, when one was seen, is kept for settling. The estimate stays committed."""

    @abstractmethod
    def done(self, product: int, step: str, result: Mapping[str, Any], cost: float | None) -> None:
        """sent -> done. The cost takes the estimate's place in `committed`. None: the estimate stays, and the cost is
        one more that nobody knows."""

    @abstractmethod
    def failed(self, product: int, step: str, cost: float | None) -> None:
        """sent -> failed; money as for `done`."""

    @abstractmethod
    def unusable(self, product: int, request_ids: Sequence[str]) -> None:
        """done -> failed, for results that could not be used: a retry of the product submits them anew. They stay
        paid for."""

    @abstractmethod
    def cost(self, product: int) -> float | None:
        """US dollars for all jobs of a product, over all of its attempts. None when a part of that is not known: what a
        job that is over did cost, or what one that runs or is in doubt will."""

    # Settling what is in doubt

    @abstractmethod
    def in_doubt_rows(self) -> Sequence[JobRow]:
        """The jobs that are ambiguous, oldest first."""

    @abstractmethod
    def neighbours(self, row: JobRow) -> Neighbours:
        """The MOST_NEIGHBOURS nearest to a job that is ambiguous, on each side."""

    @abstractmethod
    def over_by(self, product: int, step: str, moment: float) -> None:
        """Note for a job that is ambiguous that its submit was over at that moment of fal's clock."""

    @abstractmethod
    def adopt(self, product: int, step: str, request_id: str) -> None:
        """ambiguous -> sent: fal knows the job by this id. A product that ended as ambiguous waits again."""

    @abstractmethod
    def drop(self, product: int, step: str) -> None:
        """ambiguous -> as `refused`: fal surely never had it. The product waits again."""

    @abstractmethod
    def knows(self, request_id: str) -> bool:
        """Whether a job has this id."""

    # Pictures

    @abstractmethod
    def picture(self, product: int, name: str) -> PictureRow | None:
        """What was saved under that name for the product."""

    @abstractmethod
    def saved(self, product: int, picture: PictureRow) -> None:
        """A picture is there whole."""


def step_of(key: JobKey) -> str:
    """The key of a job as one text: `analysis`, `analysis#1`, `picture:Studio`, `picture:Studio#2`."""
    style = "" if key.style is None else f":{key.style}"
    return f"{key.step}{style}{f'#{key.ordinal}' if key.ordinal else ''}"


def as_text(value: Mapping[str, Any]) -> str:
    """JSON that is the same for the same value, so that it can be compared."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def check_version(found: object) -> None:
    """Raises JournalError for a journal whose tables are others."""
    if found != VERSION:
        raise JournalError(
            f"The journal is of version {found}, and this library reads version {VERSION}.",
            hint="Finish the batch with the version of the library that began it.",
        )


def check_recipe(before: Mapping[str, Any], now: Mapping[str, Any] | None) -> None:
    """Raises JournalError when a batch is to go on with something else than it began with."""
    if now is None or as_text(before) == as_text(now):
        return
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    said = "; ".join(f"{name} was {_shown(before.get(name))}, and is {_shown(now.get(name))}" for name in names)
    raise JournalError(
        f"The batch was begun with other settings: {said}.",
        hint="Resume with --output alone, or begin a new batch in another folder.",
    )


def other_input(product: NewProduct, before: Mapping[str, Any]) -> JournalError:
    """The error for a known key that has other options now."""
    names = [name for name in sorted({*before, *product.input}) if before.get(name) != product.input.get(name)]
    return JournalError(
        f"Line {product.line}: the product {product.key!r} was begun with another {', '.join(names)}.",
        hint="Give it another key to make it anew, or begin a new batch in another folder.",
    )


def _shown(value: object) -> str:
    return shown(json.dumps(value, ensure_ascii=False), 200)
