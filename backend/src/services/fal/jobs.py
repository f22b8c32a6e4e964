"""The life of one job at fal: submit once, wait, fetch the result; cancel it whenever its call ends early.

Waiting listens to the status stream, and polls when that is not to be had. Which endpoint a job goes to comes
from the chain of `endpoints.py`; what its output means is known to `language.py` and `pictures.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from services.fal.answers import REQUEST_ID, job_error
from services.fal.call import Slots, ctrl_c_waits_for_submit, current_call
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
from services.fal.progress import Progress
from services.fal.redaction import shown
from services.fal.stderr_log import logger, outline
from services.fal.wire import POLL_ATTEMPTS, Wire, own_url

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


class Jobs:
    """Runs jobs for one client, at most `max_concurrency` at a time."""

    def __init__(self, wire: Wire, endpoints: Endpoints, max_concurrency: int) -> None:
        self._wire = wire
        self._endpoints = endpoints
        self._slots = Slots(max_concurrency)

    def run(
        self, kind: str, arguments: Callable[[Endpoint], Mapping[str, Any]], watch: Progress | None = None
    ) -> Result:
        """One job of `kind` to its end, on the first endpoint of its chain that fal still offers."""
        return self.on_chain(kind, lambda endpoint: self.run_on(endpoint, arguments(endpoint), watch))

    def on_chain(self, kind: str, action: Callable[[Endpoint], T]) -> T:
        """`action` on the endpoint in use for `kind`; when fal says it is gone, on the next one."""
        endpoint = self._endpoints.current(kind)
        while True:
            try:
                return action(endpoint)
            except EndpointGone as gone:
                endpoint = self._endpoints.move_on(kind, endpoint, gone)

    def run_on(self, endpoint: Endpoint, arguments: Mapping[str, Any], watch: Progress | None = None) -> Result:
        """One job on `endpoint`, submitted once: once it has an id, whatever happens to it is told and not repeated."""
        with self.slot():
            job = self.submit(endpoint, arguments)
            try:
                return self._finish(job, watch)
            except FalError as error:
                error.request_id = job.request_id
                raise

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """One of the client's places for a running model call."""
        with self._slots.one():
            yield

    def _finish(self, job: Job, watch: Progress | None) -> Result:
        ended = False
        try:
            status = self._wait(job, watch)
            ended = _is_of(status, job)
            return self._fetch_when_there(job, status if ended else {"status": "COMPLETED"})
        except BaseException as error:
            if not ended or _stopped(error):
                self._abandon_after(error, job, ended=ended)
            raise

    def _fetch_when_there(self, job: Job, status: Status) -> Result:
        """The parts of fal do not agree at once: a result may be "in progress" though its status says COMPLETED."""
        call = current_call()
        for pause in _poll_pauses():
            try:
                return self._fetch_finished(job, status)
            except NotReady as error:
                logger.info("asking again for the result of %s: %s", job.request_id, error)
            call.sleep(pause)
        raise AssertionError("unreachable")

    def submit(
        self,
        endpoint: Endpoint,
        arguments: Mapping[str, Any],
        webhook_url: str | None = None,
        *,
        wait: bool = True,
    ) -> Job:
        """Submit once. Without `wait` nobody waits for the job, so no deadline for its start is sent."""
        with ctrl_c_waits_for_submit():
            return self._submit(endpoint, arguments, webhook_url, wait)

    def _submit(self, endpoint: Endpoint, arguments: Mapping[str, Any], webhook_url: str | None, wait: bool) -> Job:
        start_within_s = current_call().remaining() if wait else None
        handle = self._wire.submit(endpoint.path, arguments, webhook_url=webhook_url, start_within_s=start_within_s)
        built = self.job(endpoint, handle.request_id)
        job = Job(
            handle.request_id,
            endpoint,
            own_url(handle.status_url, built.status_url),
            own_url(handle.response_url, built.result_url),
            own_url(handle.cancel_url, built.cancel_url),
        )
        try:
            current_call().check()
        except (Cancelled, DeadlineExceeded) as over:
            over.request_id = job.request_id
            self._abandon_after(over, job)
            raise
        return job

    def job(self, endpoint: Endpoint, request_id: str) -> Job:
        """A job that was submitted earlier."""
        handle = self._wire.handle(endpoint.path, request_id)
        return Job(request_id, endpoint, handle.status_url, handle.response_url, handle.cancel_url)

    def find(self, kind: str, request_id: str, action: Callable[[Job], T]) -> T:
        """`action` on an earlier job, looked for on every endpoint that it may have gone to."""
        if not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id):
            raise InvalidInput("request_id must be the id that any-llm-submit returned (letters, digits, dashes).")
        missing: NotFound | None = None
        for endpoint in self._endpoints.candidates(kind):
            try:
                return action(self.job(endpoint, request_id))
            except NotFound as error:
                missing = error
            except FalError as error:
                error.request_id = request_id
                raise
        assert missing is not None
        missing.request_id = request_id
        raise missing

    def cancel_found(self, kind: str, request_id: str) -> str:
        """`cancel` for a job that was submitted earlier, wherever it went."""

        def cancel(job: Job) -> str:
            outcome = self.cancel(job)
            if outcome == "not_found":
                raise NotFound("fal does not know this request.")
            return outcome

        try:
            return str(self.find(kind, request_id, cancel))
        except NotFound:
            return "not_found"

    def status(self, job: Job, *, with_logs: bool) -> Status:
        url = f"{job.status_url}?logs={int(with_logs)}"
        return _checked(self._wire.ask("GET", url, "status").json())

    def result(self, job: Job) -> Result:
        """The output of a finished job; raises NotReady while it runs."""
        try:
            return self._fetch(job, None, inference_s=None, attempts=1)
        except (BadOutput, FalUnavailable, RateLimited, Unreachable) as error:
            # An outage, or the stored answer of a job that failed: its status tells which.
            logger.info("asking for the status of %s, since its result failed: %s", job.request_id, outline(error))
            return self._fetch_finished(job, self.status(job, with_logs=False))

    def cancel(self, job: Job) -> str:
        """Ask fal to stop a job: "cancelled", "requested", "too_late" or "not_found"."""
        return self._wire.cancel(job.cancel_url)

    def _abandon_after(self, error: BaseException, job: Job, *, ended: bool = False) -> None:
        """Cancel a job whose call ends with `error`, which says so when the job may go on, or had `ended` already."""
        outcome = self._wire.abandon(job.request_id, job.cancel_url)
        if not isinstance(error, FalError):
            return
        if outcome is None:
            error.retryable, error.hint = False, _MAY_RUN_HINT
        elif ended and outcome == "too_late":
            error.retryable, error.hint = False, _HAS_RUN_HINT

    def _wait(self, job: Job, watch: Progress | None) -> Status:
        status = self._follow(job, watch)
        return status if status is not None else self._poll(job, watch)

    def _follow(self, job: Job, watch: Progress | None) -> Status | None:
        """The final status from the stream, or None when there is no stream to be had, or it ended early."""
        url = f"{job.status_url}/stream?logs={int(_wants_logs(watch))}"
        final: Status | None = None
        try:
            with self._wire.events("GET", url, "status") as (_, events):
                for event in events:
                    _tell(watch, job, _checked(event))
                    if event["status"] == "COMPLETED":
                        final = event
                        break
        except (Cancelled, DeadlineExceeded):
            raise
        except FalError as error:
            logger.info("polling %s, since its status stream failed: %s", job.request_id, outline(error))
        return final

    def _poll(self, job: Job, watch: Progress | None) -> Status:
        call = current_call()
        for pause in _poll_pauses():
            status = self._readable_status(job, with_logs=_wants_logs(watch))
            _tell(watch, job, status)
            if status["status"] == "COMPLETED":
                return status
            call.sleep(pause)
        raise AssertionError("unreachable")

    def _readable_status(self, job: Job, with_logs: bool) -> Status:
        call = current_call()
        for _ in range(POLL_BAD_ANSWERS - 1):
            try:
                return self.status(job, with_logs=with_logs)
            except BadOutput as error:
                logger.info("asking again for the status of %s: %s", job.request_id, outline(error))
                call.sleep(POLL_FIRST_S)
        return self.status(job, with_logs=with_logs)

    def _fetch_finished(self, job: Job, status: Status) -> Result:
        metrics = status.get("metrics")
        inference_s = metrics.get("inference_time") if isinstance(metrics, dict) else None
        if not status.get("error"):
            return self._fetch(job, None, inference_s=inference_s)
        failure = job_error(status, job.request_id)
        if isinstance(failure, JobFailed):
            # The stored answer says more than the status: the model's own list of what was wrong.
            self._fetch(job, failure, inference_s=inference_s, attempts=1)
        raise failure

    def _fetch(
        self, job: Job, failure: JobFailed | None, inference_s: float | None, attempts: int = POLL_ATTEMPTS
    ) -> Result:
        try:
            answer = self._wire.ask("GET", job.result_url, "result", attempts=attempts)
        except FalError as error:
            if failure is not None and _says_less(error):
                failure.said = f"{failure.said}. {error.said}"
                raise failure from error
            raise
        if failure is not None:
            raise failure
        return Result(job.request_id, answer.json(), answer.billable_units, inference_s)


_MAY_RUN_HINT = (
    "Its job could not be cancelled: fal may be running and billing it. Look at https://fal.ai/dashboard/requests "
    "before you repeat the call."
)
_HAS_RUN_HINT = (
    "Its job had ended by then, and fal bills it: its result may still be found at https://fal.ai/dashboard/requests."
)


def _is_of(status: Status, job: Job) -> bool:
    """Whether a status speaks of this job; what is said of another one does not end it."""
    named = status.get("request_id")
    return not isinstance(named, str) or named == job.request_id


def _stopped(error: BaseException) -> bool:
    """Whether it is the call that ends, by its deadline or from outside, and not the job."""
    past_deadline = isinstance(error, DeadlineExceeded) and error.status_code is None
    return past_deadline or not isinstance(error, FalError) or current_call().cancelled


def _says_less(error: FalError) -> bool:
    """Whether a failed job's stored answer tells less than its status did."""
    return isinstance(error, NotFound | NotReady | FalUnavailable | BadOutput | Unreachable)


def _checked(status: Status) -> Status:
    if status.get("status") not in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
        raise BadOutput(f"fal gave a status that is not known: {shown(status.get('status'), 100)!r}.")
    return status


def _poll_pauses() -> Iterator[float]:
    pause = POLL_FIRST_S
    while True:
        yield pause
        pause = min(pause * POLL_GROWTH, POLL_MAX_S)


def _wants_logs(watch: Progress | None) -> bool:
    return watch is not None and watch.with_logs


def _tell(watch: Progress | None, job: Job, status: Status) -> None:
    if watch is not None:
        watch.status(job.request_id, status)
