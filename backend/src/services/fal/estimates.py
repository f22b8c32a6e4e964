"""What jobs are expected to cost before they are sent, and what they did cost when they are over.

A plan is the list of jobs that a method submits when all goes well. Its estimate is told (`FalClient.estimate`), and is
set aside in the purse of a call that has a limit. Each job takes its own part before its submit; when it is over, what
it cost is noted, and takes the place of what was expected. What one unit costs is known to `prices.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.call import Call
from services.fal.costs import total_usd
from services.fal.endpoints import ROLES, Endpoint, Endpoints
from services.fal.errors import (
    AmbiguousSubmit,
    BudgetExceeded,
    Cancelled,
    DeadlineExceeded,
    FalError,
    FalUnavailable,
    JobFailed,
)
from services.fal.hosts import is_fal_host, parse
from services.fal.journal import JobKey
from services.fal.prices import USD, Price, Prices
from services.fal.responses import as_amount

if TYPE_CHECKING:
    from services.fal.arguments import PictureOptions
    from services.fal.results import Estimate

LANGUAGE_ROLES = ("text", "enterprise", "vision")
"""Roles whose cost is known only when the answer is there."""
READ_S = 10.0
"""How long a call that may not begin without prices waits for them."""
NOT_SENT = "Nothing was sent for it. Leave max_usd out to go on without a limit."


_PHOTO = {"image": "https://example.com/photo.jpg"}
_CATEGORIES = {"categories": {"main_product_type": "Product"}}
_PROMPT = {"prompt": "-"}
STAND_INS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(
        ("any_llm_complete", "any_llm_enterprise", "iter_any_llm", "any_llm_stream", "any_llm_submit", "submit_job"),
        _PROMPT,
    ),
    "background_replace": {**_PHOTO, **_PROMPT},
    "remove_background": _PHOTO,
    "analyze_product_image": _PHOTO,
    "generate_background_prompt": {**_CATEGORIES, "style_type": "-"},
    "generate_multiple_backgrounds": {**_PHOTO, **_CATEGORIES},
    "product_workflow": _PHOTO,
}
"""The methods that cost money, and what stands for arguments that do not change the price."""


def stand_ins(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `method` needs beside `options` for an estimate."""
    given = {"image" if name == "image_url" else "prompt" if name == "ref_image_url" else name for name in options}
    return {name: value for name, value in STAND_INS[method].items() if name not in given}


class Planned(NamedTuple):
    """Jobs that are alike."""

    role: str
    endpoint: Endpoint
    jobs: int = 1
    pictures: float = 1.0
    """How many pictures of the usual size each of them is billed as."""


class Estimates:
    """What the jobs of one client are to cost, and have cost."""

    def __init__(self, prices: Prices, endpoints: Endpoints) -> None:
        self._prices = prices
        self._endpoints = endpoints

    # Plans

    def plan(self, jobs: Mapping[str, int], options: PictureOptions | None = None, prompts: int = 1) -> list[Planned]:
        """So many jobs of each role, and, with `options`, the pictures of so many prompts."""
        plan = [Planned(role, self._endpoints.current(role), count) for role, count in jobs.items() if count]
        return plan if options is None else [*plan, self._pictures(options, prompts)]

    def _pictures(self, options: PictureOptions, prompts: int) -> Planned:
        endpoint = self._endpoints.current("photokit")
        each = endpoint.pictures_billed(endpoint.option_inputs(options.others))
        if endpoint.makes_one:
            return Planned("photokit", endpoint, options.num_images * prompts, each)
        return Planned("photokit", endpoint, prompts, options.num_images * each)

    def in_use(self) -> dict[str, str]:
        """The endpoints that jobs go to now, apart from a URL of the user's own, each with its role."""
        rows = {role: self._endpoints.current(role) for role in reversed(ROLES)}
        return {row.path: role for role, row in reversed(rows.items()) if not row.is_own_url}

    def of(self, call: Call, plan: Sequence[Planned]) -> Estimate:
        """The estimate of a plan, its prices read within `call`. Raises FalError when they cannot be."""
        pictures = [one for one in plan if one.role not in LANGUAGE_ROLES and _is_priced(one.endpoint)]
        prices = self._prices.read(call, [one.endpoint.path for one in pictures])
        rows = [self._row(one, prices.get(one.endpoint.path)) for one in plan]
        unknown = [reason for row in rows if (reason := row.pop("unknown")) is not None]
        return {
            "cost_usd": total_usd([row["cost_usd"] for row in rows]),
            "about": any(row["about"] for row in rows),
            "endpoints": rows,  # type: ignore[typeddict-item]
            "unknown": " ".join(unknown) or None,
        }

    def _row(self, one: Planned, price: Price | None) -> dict[str, Any]:
        each, unknown = self._job_usd(one, price)
        return {
            "endpoint": one.endpoint.path,
            "role": one.role,
            "calls": one.jobs,
            "unit_price": None if price is None else price.amount,
            "unit": None if price is None else price.unit,
            "currency": None if price is None else price.currency,
            "cost_usd": None if each is None else round(each * one.jobs, 9),
            "about": one.role in LANGUAGE_ROLES,
            "unknown": unknown,
        }

    def _job_usd(self, one: Planned, price: Price | None) -> tuple[float | None, str | None]:
        """What one of these jobs is expected to cost; None, with the reason, when that cannot be known."""
        path = one.endpoint.path
        if _is_free(one.endpoint):
            return 0.0, None
        if one.role in LANGUAGE_ROLES:
            return self._prices.question_usd(path, looks=one.role == "vision"), None
        if price is None:
            return None, f"fal tells no price of {path}."
        if price.usd is None:
            return None, f"fal tells the price of {path} in {price.currency}, not in {USD}."
        if price.of_picture_usd is None:
            return None, f"How many {price.unit} a job of {path} takes is known only when it is over."
        return one.pictures * price.of_picture_usd, None

    def set_aside(self, call: Call, plan: Sequence[Planned]) -> None:
        """Set aside what a call is expected to cost, if it or its client has a limit. Raises BudgetExceeded."""
        if call.costs.purse.is_limited:
            call.costs.purse.set_aside(self._sure_usd(call, plan))

    def _sure_usd(self, call: Call, plan: Sequence[Planned]) -> float:
        """The cost of a plan. Raises BudgetExceeded when it is not known: nothing is spent on a guess."""
        within = Call(READ_S, parent=call)
        try:
            estimate = self.of(within, plan)
        except FalError as error:
            call.check()
            if error.status_code == 401:
                raise  # no job would get further with this key
            raise BudgetExceeded(
                f"The cost is unknown since fal's prices cannot be read, so max_usd cannot be kept: {error.args[0]}",
                status_code=error.status_code,
                retryable=error.retryable,
                hint=f"{error.hint} {NOT_SENT}" if error.hint else NOT_SENT,
            ) from error
        if estimate["cost_usd"] is None:
            raise BudgetExceeded(
                f"The cost is unknown, so max_usd cannot be kept: {estimate['unknown']}",
                hint=NOT_SENT,
            )
        return estimate["cost_usd"]

    # Jobs

    def of_job(self, call: Call, role: str, endpoint: Endpoint, inputs: Mapping[str, Any]) -> float:
        """What one job is expected to cost. Raises BudgetExceeded when that is not known."""
        return self._sure_usd(call, [Planned(role, endpoint, 1, endpoint.pictures_billed(inputs))])

    @contextlib.contextmanager
    def job(
        self, call: Call, role: str, endpoint: Endpoint, inputs: Mapping[str, Any], key: JobKey | None = None
    ) -> Iterator[Bill]:
        """One job: its part of the budget is taken before the block, and what it cost is noted when it is over.

        It is noted by its key, else by its role. Raises BudgetExceeded when its part is not left.
        """
        taken_usd = 0.0
        if call.costs.purse.is_limited:
            taken_usd = self.of_job(call, role, endpoint, inputs)
            call.costs.purse.take(taken_usd)
        if _is_priced(endpoint):
            pictures = [self._endpoints.current(role) for role in ("photokit", "cutout")]
            self._prices.begin([row.path for row in (endpoint, *pictures) if _is_priced(row)])
        bill = Bill(call, key or JobKey(role), endpoint, self._prices, taken_usd)
        try:
            yield bill
        except FalError as error:
            bill.close_failed(error)
            raise
        except BaseException:
            bill.close(None)
            raise

    def earlier(
        self, call: Call, role: str, endpoint: Endpoint, output: Mapping[str, Any], units: float | None
    ) -> None:
        """Note the cost of a job that was submitted earlier; what it took of a budget was taken then."""
        if _is_priced(endpoint):
            self._prices.begin([endpoint.path])
        bill = Bill(call, JobKey(role), endpoint, self._prices, 0.0)
        bill.note(bill.cost_of(output, units))


class Bill:
    """What one job costs."""

    def __init__(self, call: Call, key: JobKey, endpoint: Endpoint, prices: Prices, taken_usd: float) -> None:
        self._call = call
        self._key = key
        self._endpoint = endpoint
        self._prices = prices
        self._taken_usd = taken_usd
        self._is_closed = False
        self.is_accepted = False
        """Whether fal took the job, as far as it is known."""

    def settled(self, output: Mapping[str, Any], units: float | None) -> float | None:
        """The cost of the job, which is over, by its output and by fal's count of units; noted."""
        cost_usd = self.cost_of(output, units)
        self.close(cost_usd)
        return cost_usd

    def cost_of(self, output: Mapping[str, Any], units: float | None) -> float | None:
        usage = output.get("usage")
        told = as_amount(usage.get("cost")) if isinstance(usage, dict) else None
        if told is not None:
            # A refusal that costs nothing tells nothing of the next answer.
            self._prices.note_answer(self._endpoint.path, told)
            return told
        if units == 0 or _is_free(self._endpoint):
            return 0.0
        if units is None or not _is_priced(self._endpoint):
            return None
        price = self._prices.wait(self._call, self._endpoint.path)
        usd = None if price is None else price.usd
        return None if usd is None else round(units * usd, 9)

    def close_failed(self, error: FalError) -> None:
        """The end of a job that failed: nothing, when fal did not take it, or says that it bills nothing."""
        stopped = isinstance(error, Cancelled | DeadlineExceeded) and error.status_code is None
        accepted = self.is_accepted or (stopped and error.request_id is not None)
        if not accepted and not isinstance(error, AmbiguousSubmit):
            self._call.costs.purse.settle(self._taken_usd, 0.0)
        else:
            self.close(self.cost_of_failure(error))

    def cost_of_failure(self, error: FalError) -> float | None:
        """Of a job that fal took; None when nobody knows."""
        return 0.0 if _is_unbilled(error) or _is_free(self._endpoint) else None

    def close(self, cost_usd: float | None) -> None:
        """None: nobody knows it, and what was taken for it counts as spent."""
        if self._is_closed:
            return
        self._is_closed = True
        if cost_usd is not None:
            self._call.costs.purse.settle(self._taken_usd, cost_usd)
        self.note(cost_usd)

    def note(self, cost_usd: float | None) -> None:
        self._call.costs.note(self._key.step, self._key.style, self._endpoint.path, cost_usd)


def _is_unbilled(error: FalError) -> bool:
    """Whether fal bills nothing for a job that it took: it counts no units, or the failure is fal's own
    (https://fal.ai/docs/documentation/model-apis/pricing)."""
    if error.billable_units is not None:
        return error.billable_units == 0
    own = isinstance(error, FalUnavailable) or (isinstance(error, JobFailed) and error.retryable)
    return own and not isinstance(error, AmbiguousSubmit)


def _is_free(endpoint: Endpoint) -> bool:
    """Whether it is a service of the user's own: fal bills nothing for it."""
    return endpoint.is_own_url and not is_fal_host(parse(endpoint.path).host)


def _is_priced(endpoint: Endpoint) -> bool:
    """Whether what it costs follows from its unit price."""
    return not (endpoint.tells_cost or endpoint.is_own_url)
