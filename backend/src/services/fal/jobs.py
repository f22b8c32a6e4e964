"""The life of one job at fal: submit once, wait, fetch the result; cancel it whenever its call ends early.

Waiting listens to the status stream, and polls when that is not to be had
(https://fal.ai/docs/documentation/model-apis/inference/queue). Which endpoint a job goes to comes from the chains of
`endpoints.py`; what its output means is known to `text_models.py` and `picture_models.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from services.fal.call import Call, Slots, ctrl_c_waits_for_submit
from services.fal.endpoints import Endpoint, Endpoints
from services.fal.errors import (
    BadOutput,
    Cancelled,
    DeadlineExceeded,
    EndpointGone,
    FalError,
    FalUnavailable,
    InvalidInput,
    JobFailed,
    NotFound,
    NotReady,
    RateLimited,
    Unreachable,
)
from services.fal.estimates import Estimates
from services.fal.hosts import is_run_host, parse
from services.fal.log import logger, outline
from services.fal.redaction import shown
from services.fal.responses import job_error, usable_id

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi

POLL_FIRST_S = 0.05
POLL_GROWTH = 1.5
POLL_MAX_S = 1.0
POLL_BAD_ANSWERS = 5
"""Unreadable status answers in a row after which a job is given up."""

Status = dict[str, Any]
T = TypeVar("T")


class Job(NamedTuple):
    """A job that fal has accepted."""

    request_id: str
    endpoint: Endpoint
    status_url: str
    result_url: str
    cancel_url: str


class Result(NamedTuple):
    """What a finished job left."""

    request_id: str | None
    output: dict[str, Any]
    billable_units: float | None = None
    """fal's own count of what is billed, when it says so."""
    inference_s: float | None = None
    """fal's own figure for the model's run."""
    cost_usd: float | None = None
    """US dollars, when they are known."""


class Jobs:
    """Runs jobs for one client, at most `max_concurrency` at a time."""

    def __init__(self, api: FalApi, endpoints: Endpoints, estimates: Estimates, max_concurrency: int) -> None:
        self._api = api
        self._endpoints = endpoints
        self.estimates = estimates
        """Knows what jobs may cost, and notes what they did."""
        self.slots = Slots(max_concurrency)
        """The client's places for running model calls."""

    def run(self, call: Call, role: str, arguments: Callable[[Endpoint], Mapping[str, Any]]) -> Result:
        """One job for `role` to its end, on the first endpoint of its chain that fal still offers."""
        return self.on_chain(role, lambda endpoint: self.run_on(call, role, endpoint, arguments(endpoint)))

    def on_chain(self, role: str, action: Callable[[Endpoint], T]) -> T:
        """`action` on the endpoint in use for `role`; when fal says it is gone, on the next one."""
        endpoint = self._endpoints.current(role)
        while True:
            try:
                return action(endpoint)
            except EndpointGone as gone:
                endpoint = self._endpoints.move_on(role, endpoint, gone)

    def run_on(self, call: Call, role: str, endpoint: Endpoint, arguments: Mapping[str, Any]) -> Result:
        """One job on `endpoint`, submitted once: once it has an id, whatever happens to it is told and not repeated."""
        with self.estimates.job(call, role, endpoint, arguments) as bill:
            with self.slots.one(call):
                job = self.submit(call, endpoint, arguments)
                bill.is_accepted = True
                result = self._finish(call, job)
            return result._replace(cost_usd=bill.settled(result.output, result.billable_units))

    def _finish(self, call: Call, job: Job) -> Result:
        ended = False
        try:
            status = self._wait(call, job)
            ended = _is_of(status, job)
            return self._fetch_when_there(call, job, status if ended else {"status": "COMPLETED"})
        except FalError as error:
            if ended and not _stopped(call, error):
                raise error.but(request_id=job.request_id) from error
            raise self._abandoned(error, job, ended=ended) from error
        except BaseException:  # Ctrl-C: the job goes on at fal, and is billed, unless it is told to stop
            self._api.abandon(job.request_id, job.cancel_url)
            raise

    def _fetch_when_there(self, call: Call, job: Job, status: Status) -> Result:
        """The parts of fal do not agree at once: a result may be "in progress" though its status says COMPLETED."""
        for pause in _poll_pauses():
            try:
                return self._fetch_finished(call, job, status)
            except NotReady as error:
                logger.info("asking again for the result of %s: %s", job.request_id, error)
            call.sleep(pause)
        raise AssertionError("unreachable")

    def submit(
        self,
        call: Call,
        endpoint: Endpoint,
        arguments: Mapping[str, Any],
        webhook_url: str | None = None,
        *,
        wait: bool = True,
    ) -> Job:
        """Submit once. Without `wait` nobody waits for the job, so no deadline for its start is sent."""
        start_within_s = call.remaining() if wait else None
        # Until its id is known, a job can be neither waited for nor cancelled.
        with ctrl_c_waits_for_submit(call):
            handle = self._api.submit(
                call, endpoint.path, arguments, webhook_url=webhook_url, start_within_s=start_within_s
            )
            built = self.job(call, endpoint, handle.request_id)
            job = Job(
                handle.request_id,
                endpoint,
                own_url(handle.status_url, built.status_url),
                own_url(handle.response_url, built.result_url),
                own_url(handle.cancel_url, built.cancel_url),
            )
            try:
                call.check()
            except (Cancelled, DeadlineExceeded) as over:
                raise self._abandoned(over, job, ended=False) from over
        return job

    def job(self, call: Call, endpoint: Endpoint, request_id: str) -> Job:
        """A job that was submitted earlier."""
        handle = self._api.handle(call, endpoint.path, request_id)
        return Job(request_id, endpoint, handle.status_url, handle.response_url, handle.cancel_url)

    def find(self, call: Call, role: str, request_id: str, action: Callable[[Job], T]) -> T:
        """`action` on an earlier job, looked for on every endpoint that it may have gone to."""
        if usable_id(request_id) is None:
            raise InvalidInput("request_id must be the id that any-llm-submit returned (letters, digits, dashes).")
        missing: NotFound | None = None
        for endpoint in self._endpoints.candidates(role):
            try:
                return action(self.job(call, endpoint, request_id))
            except NotFound as error:
                missing = error
            except FalError as error:
                raise error.but(request_id=request_id) from error
        assert missing is not None
        raise missing.but(request_id=request_id) from missing

    def cancel_found(self, call: Call, role: str, request_id: str) -> str:
        """`cancel` for a job that was submitted earlier, wherever it went."""

        def cancel(job: Job) -> str:
            outcome = self._api.cancel(call, job.cancel_url)
            if outcome == "not_found":
                raise NotFound("fal does not know this request.")
            return outcome

        try:
            return self.find(call, role, request_id, cancel)
        except NotFound:
            return "not_found"

    def status(self, call: Call, job: Job, *, with_logs: bool) -> Status:
        url = f"{job.status_url}?logs={int(with_logs)}"
        return _checked(self._api.ask(call, "GET", url, "status").json())

    def result(self, call: Call, job: Job) -> Result:
        """The output of a finished job; raises NotReady while it runs."""
        try:
            return self._fetch(call, job, inference_s=None, attempts=1)
        except (BadOutput, FalUnavailable, RateLimited, Unreachable) as error:
            # An outage, or the stored answer of a job that failed: its status tells which.
            logger.info("asking for the status of %s, since its result failed: %s", job.request_id, outline(error))
            return self._fetch_finished(call, job, self.status(call, job, with_logs=False))

    def _abandoned(self, error: FalError, job: Job, *, ended: bool) -> FalError:
        """`error` after its job was cancelled: it says so when the job may go on, or had `ended` already."""
        outcome = self._api.abandon(job.request_id, job.cancel_url)
        if outcome is None:
            return error.but(request_id=job.request_id, retryable=False, hint=_MAY_RUN_HINT)
        if ended and outcome == "too_late":
            return error.but(request_id=job.request_id, retryable=False, hint=_HAS_RUN_HINT)
        return error.but(request_id=job.request_id)

    def _wait(self, call: Call, job: Job) -> Status:
        status = self._follow(call, job)
        return status if status is not None else self._poll(call, job)

    def _follow(self, call: Call, job: Job) -> Status | None:
        """The final status from the stream, or None when there is no stream to be had, or it ended early."""
        url = f"{job.status_url}/stream?logs={int(call.progress.with_logs)}"
        final: Status | None = None
        try:
            with self._api.events(call, "GET", url, "status") as (_, events):
                for event in events:
                    call.progress.status(job.request_id, _checked(event))
                    if event["status"] == "COMPLETED":
                        final = event
                        break
        except (Cancelled, DeadlineExceeded):
            raise
        except FalError as error:
            logger.info("polling %s, since its status stream failed: %s", job.request_id, outline(error))
        return final

    def _poll(self, call: Call, job: Job) -> Status:
        for pause in _poll_pauses():
            status = self._readable_status(call, job)
            call.progress.status(job.request_id, status)
            if status["status"] == "COMPLETED":
                return status
            call.sleep(pause)
        raise AssertionError("unreachable")

    def _readable_status(self, call: Call, job: Job) -> Status:
        with_logs = call.progress.with_logs
        for _ in range(POLL_BAD_ANSWERS - 1):
            try:
                return self.status(call, job, with_logs=with_logs)
            except BadOutput as error:
                logger.info("asking again for the status of %s: %s", job.request_id, outline(error))
                call.sleep(POLL_FIRST_S)
        return self.status(call, job, with_logs=with_logs)

    def _fetch_finished(self, call: Call, job: Job, status: Status) -> Result:
        metrics = status.get("metrics")
        inference_s = metrics.get("inference_time") if isinstance(metrics, dict) else None
        if not status.get("error"):
            return self._fetch(call, job, inference_s=inference_s)
        failure = job_error(status, job.request_id)
        if not isinstance(failure, JobFailed):
            raise failure
        # The stored answer says more than the status: the model's own list of what was wrong.
        try:
            self._fetch(call, job, inference_s=inference_s, attempts=1)
        except FalError as error:
            if not _says_less(error):
                raise
            said = f"{failure.said}. {error.said}"
            raise failure.but(said=said, billable_units=error.billable_units) from error
        raise failure

    def _fetch(self, call: Call, job: Job, inference_s: float | None, attempts: int | None = None) -> Result:
        answer = self._api.ask(call, "GET", job.result_url, "result", attempts=attempts)
        return Result(job.request_id, answer.json(), answer.billable_units, inference_s)


_MAY_RUN_HINT = (
    "Its job could not be cancelled: fal may be running and billing it. Look at https://fal.ai/dashboard/requests "
    "before you repeat the call."
)
_HAS_RUN_HINT = (
    "Its job had ended by then, and fal bills it: its result may still be found at https://fal.ai/dashboard/requests."
)


def own_url(named: object, built: str) -> str:
    """The URL that fal's answer names for a job, or the one we build when it leads away from fal or is none."""
    if named == built or not isinstance(named, str):
        return built
    try:
        url = parse(named)
    except ValueError:
        return built
    return url.whole if url.is_plain_https and is_run_host(url.host) else built


def _is_of(status: Status, job: Job) -> bool:
    """Whether a status speaks of this job; what is said of another one does not end it."""
    named = status.get("request_id")
    return not isinstance(named, str) or named == job.request_id


def _stopped(call: Call, error: FalError) -> bool:
    """Whether it is the call that ends, by its deadline or from outside, and not the job."""
    past_deadline = isinstance(error, DeadlineExceeded) and error.status_code is None
    return past_deadline or call.cancelled


def _says_less(error: FalError) -> bool:
    """Whether a failed job's stored answer tells less than its status did."""
    return isinstance(error, NotFound | NotReady | FalUnavailable | BadOutput | Unreachable)


def _checked(status: Status) -> Status:
    if status.get("status") not in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
        raise BadOutput(f"fal returned an unknown status: {shown(status.get('status'), 100)!r}.")
    return status


def _poll_pauses() -> Iterator[float]:
    pause = POLL_FIRST_S
    while True:
        yield pause
        pause = min(pause * POLL_GROWTH, POLL_MAX_S)
