"""What fal charges for one unit of an endpoint, read from fal's pricing service and kept for the process.

Source: https://fal.ai/docs/api-reference/platform-apis. A job's cost is its billable units, which fal counts, times
the unit price. What a picture is in units is known for some units only (`ONE_PICTURE`); what a question to a language
model costs is told by its answer (`usage.cost`), and before that only about (`QUESTION_USD`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote

from services.fal.call import LOOK_S, Call, Task
from services.fal.errors import FalError, NotFound
from services.fal.log import logger, outline
from services.fal.redaction import shown
from services.fal.responses import as_amount

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi

API = "https://api.fal.ai/v1"
MOST_IDS = 50
"""Endpoints that one request may name."""
USD = "USD"
ONE_PICTURE = ("image", "generation", "request", "call", "output", "result", "unit")
"""Units of which a picture is one."""
QUESTION_USD = 0.005
"""More than a question costs whose answer is short, at the prices of the dearest default model."""
LOOK_USD = 0.01
"""The same for a question about a picture."""
READ_S = 10.0
"""How long reading prices may take."""
WAIT_S = 2.0
"""How long a job that is over waits for its price."""
RETRY_S = 60.0
"""How long after a failure prices are not asked for again beside a job."""


class Price(NamedTuple):
    """What one unit of an endpoint costs."""

    amount: float
    unit: str
    currency: str = USD

    @property
    def usd(self) -> float | None:
        """In US dollars, unless it is in another currency."""
        return self.amount if self.currency == USD else None

    @property
    def of_picture_usd(self) -> float | None:
        """What one picture costs, when that can be told before it is made."""
        words = self.unit.lower().split()
        return self.usd if words and words[-1].rstrip("s") in ONE_PICTURE else None


def prices_url(endpoints: Iterable[str]) -> str:
    return f"{API}/models/pricing?endpoint_id={','.join(map(quote, endpoints))}"


def prices_in(value: Any) -> dict[str, Price]:
    """The prices that an answer tells."""
    rows = value.get("prices") if isinstance(value, dict) else None
    found: dict[str, Price] = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        endpoint, amount = row.get("endpoint_id"), as_amount(row.get("unit_price"))
        if isinstance(endpoint, str) and amount is not None:
            found[endpoint] = Price(amount, shown(row.get("unit"), 100), shown(row.get("currency"), 20))
    return found


class Prices:
    """The prices of one account, by one way to fal."""

    _known: ClassVar[dict[tuple[int, str], Price | None]] = {}
    """What was read lasts for the process; None for an endpoint that has no price."""
    _dearest: ClassVar[dict[tuple[int, str], float]] = {}
    """What the dearest answer of a language endpoint has cost so far."""
    _failed_at: ClassVar[dict[int, float]] = {}

    def __init__(self, api: FalApi, account: int) -> None:
        self._api = api
        self._account = account
        self._lock = threading.Lock()
        self._task: Task[None] | None = None
        self._reading: Call | None = None

    def known(self, endpoint: str) -> Price | None:
        """The price, when it was read and there is one."""
        return self._known.get((self._account, endpoint))

    def read(self, call: Call, endpoints: Sequence[str]) -> dict[str, Price | None]:
        """The prices of these endpoints, within `call`; None for one that fal names no price of. Raises FalError."""
        missing = [name for name in dict.fromkeys(endpoints) if (self._account, name) not in self._known]
        for place in range(0, len(missing), MOST_IDS):
            self._read(call, missing[place : place + MOST_IDS])
        return {name: self.known(name) for name in endpoints}

    def _read(self, call: Call, endpoints: Sequence[str]) -> None:
        try:
            found = self._asked(call, endpoints)
        except NotFound:
            # One that fal does not know spoils the answer for all of them.
            found = {}
            for name in endpoints if len(endpoints) > 1 else ():
                self._read(call, [name])
            endpoints = endpoints if len(endpoints) == 1 else ()
        for name in endpoints:
            self._known[self._account, name] = found.get(name)

    def _asked(self, call: Call, endpoints: Sequence[str]) -> dict[str, Price]:
        return prices_in(self._api.ask(call, "GET", prices_url(endpoints), "prices", attempts=2).json())

    # Beside a job

    def begin(self, endpoints: Sequence[str]) -> None:
        """Have the prices read beside what is done next, unless they are known or could not be read a moment ago."""
        with self._lock:
            failed_at = self._failed_at.get(self._account)
            waits = failed_at is not None and time.monotonic() < failed_at + RETRY_S
            missing = [name for name in dict.fromkeys(endpoints) if (self._account, name) not in self._known]
            if waits or not missing or (self._task is not None and not self._task.wait(0)):
                return
            # A call of its own: the prices are for the jobs to come too.
            self._reading = Call(READ_S)
            self._task = Task(partial(self._fetch, self._reading, missing), name="fal-prices")

    def _fetch(self, call: Call, endpoints: Sequence[str]) -> None:
        try:
            self.read(call, endpoints)
        except FalError as error:
            self._failed_at[self._account] = time.monotonic()
            logger.info("what jobs cost is not known, since no prices can be read: %s", outline(error))
        finally:
            with self._lock:
                self._task = self._reading = None

    def wait(self, call: Call, endpoint: str) -> Price | None:
        """The price of a job that is over, if it comes within a moment; raises nothing: the job is paid for."""
        task, until = self._task, time.monotonic() + WAIT_S
        while task is not None and (self._account, endpoint) not in self._known:
            left = min(until - time.monotonic(), call.remaining())
            if task.wait(max(0.0, min(LOOK_S, left))):
                break
            if until <= time.monotonic():
                # It would only hold up the next job as well.
                self._stop()
            if call.cancelled or left <= 0:
                break
        return self.known(endpoint)

    def _stop(self) -> None:
        with self._lock:
            reading = self._reading
        if reading is not None:
            reading.cancel()

    # Language models

    def note_answer(self, endpoint: str, cost_usd: float) -> None:
        """Remember what an answer has cost: the next one may cost as much."""
        with self._lock:
            key = (self._account, endpoint)
            self._dearest[key] = max(cost_usd, self._dearest.get(key, 0.0))

    def question_usd(self, endpoint: str, *, looks: bool) -> float:
        """About what a question costs: as much as the dearest one so far, else the figure of the table."""
        return self._dearest.get((self._account, endpoint), LOOK_USD if looks else QUESTION_USD)


def as_rows(roles: Mapping[str, str | None], prices: Mapping[str, Price | None]) -> list[dict[str, Any]]:
    """The prices of endpoints, each with the role that it serves."""
    rows = []
    for endpoint, role in roles.items():
        price = prices[endpoint]
        rows.append(
            {
                "endpoint": endpoint,
                "role": role,
                "unit_price": None if price is None else price.amount,
                "unit": None if price is None else price.unit,
                "currency": None if price is None else price.currency,
            }
        )
    return rows
