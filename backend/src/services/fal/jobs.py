"""The life of one job at fal: submit once, wait, fetch the result; cancel it whenever its call ends early.

Waiting listens to the status stream, and polls when that is not to be had. Which endpoint a job goes to comes
from the chain of `endpoints.py`; what its output means is known to `language.py` and `pictures.py`.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from services.fal.answers import job_error, says_deprecated
from services.fal.call import cleanup, current_call
from services.fal.endpoints import Endpoint, Endpoints
from services.fal.errors import (
    AmbiguousSubmit,
    BadOutput,
    Cancelled,
    DeadlineExceeded,
    EndpointGone,
    FalError,
    FalUnavailable,
    InvalidInput,
    JobFailed,
    NotFound,
    RateLimited,
    ServiceError,
    Unreachable,
)
from services.fal.redaction import shown
from services.fal.stderr_log import Watcher, logger
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
        self._slots = threading.Semaphore(max_concurrency)

    def run(
        self, kind: str, arguments: Callable[[Endpoint], Mapping[str, Any]], watch: Watcher | None = None
    ) -> Result:
        """One job of `kind` to its end, on the first endpoint of its chain that fal still offers."""
        return self.on_chain(kind, lambda endpoint: self._run_on(endpoint, arguments(endpoint), watch))

    def on_chain(self, kind: str, action: Callable[[Endpoint], T]) -> T:
        """`action` on the endpoint in use for `kind`; when fal says it is gone, on the next one."""
        endpoint = self._endpoints.current(kind)
        while True:
            try:
                return action(endpoint)
            except EndpointGone as gone:
                endpoint = self._endpoints.move_on(kind, endpoint, gone)

    def _run_on(self, endpoint: Endpoint, arguments: Mapping[str, Any], watch: Watcher | None) -> Result:
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
        current_call().acquire(self._slots)
        try:
            yield
        finally:
            self._slots.release()

    def _finish(self, job: Job, watch: Watcher | None) -> Result:
        try:
            status = self._wait(job, watch)
        except BaseException as error:
            self._abandon_after(error, job)
            raise
        return self._fetch_finished(job, status)

    def submit(
        self,
        endpoint: Endpoint,
        arguments: Mapping[str, Any],
        webhook_url: str | None = None,
        *,
        wait: bool = True,
    ) -> Job:
        """Submit once. Without `wait` nobody waits for the job, so no deadline for its start is sent."""
        start_within_s = current_call().remaining() if wait else None
        try:
            handle = self._wire.submit(endpoint.path, arguments, webhook_url=webhook_url, start_within_s=start_within_s)
        except AmbiguousSubmit as error:
            if error.request_id and _REQUEST_ID.fullmatch(error.request_id):
                self._abandon(self.job(endpoint, error.request_id))
            raise
        if not isinstance(handle.request_id, str) or not _REQUEST_ID.fullmatch(handle.request_id):
            raise AmbiguousSubmit("fal's answer to the submit has no usable request id.")
        built = self.job(endpoint, handle.request_id)
        job = Job(
            handle.request_id,
            endpoint,
            own_url(handle.status_url, built.status_url),
            own_url(handle.response_url, built.result_url),
            own_url(handle.cancel_url, built.cancel_url),
        )
        if current_call().cancelled:
            stopped = Cancelled("The call was cancelled.", request_id=job.request_id)
            self._abandon_after(stopped, job)
            raise stopped
        return job

    def job(self, endpoint: Endpoint, request_id: str) -> Job:
        """A job that was submitted earlier."""
        handle = self._wire.handle(endpoint.path, request_id)
        return Job(request_id, endpoint, handle.status_url, handle.response_url, handle.cancel_url)

    def find(self, kind: str, request_id: str, action: Callable[[Job], T]) -> T:
        """`action` on an earlier job, looked for on every endpoint that it may have gone to."""
        if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
            raise InvalidInput("request_id must be the id that any-llm-submit returned (letters, digits, dashes).")
        missing: NotFound | EndpointGone | None = None
        for endpoint in self._endpoints.candidates(kind):
            try:
                return action(self.job(endpoint, request_id))
            except (NotFound, EndpointGone) as error:
                missing = error if missing is None or isinstance(error, NotFound) else missing
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
            logger.info("asking for the status of %s, since its result failed: %s", job.request_id, error)
            return self._fetch_finished(job, self.status(job, with_logs=False))

    def cancel(self, job: Job) -> str:
        """Ask fal to stop a job: "cancelled", "requested", "too_late" or "not_found"."""
        try:
            answer = self._wire.ask("PUT", job.cancel_url, "cancel")
        except NotFound:
            return "not_found"
        except ServiceError as error:
            if error.status_code == 400 and "ALREADY_COMPLETED" in str(error):
                return "too_late"
            raise
        return "requested" if answer.status == 202 else "cancelled"

    def _abandon_after(self, error: BaseException, job: Job) -> None:
        """`_abandon`, for a call that ends with `error`: it says so when the job may go on."""
        if not self._abandon(job) and isinstance(error, FalError):
            error.retryable, error.hint = False, _MAY_RUN_HINT

    def _abandon(self, job: Job) -> bool:
        """Cancel a job whose call is over, as well as the moment allows; whether fal was told."""
        try:
            with cleanup():
                logger.info("cancelling %s: %s", job.request_id, self.cancel(job))
            return True
        except FalError as error:
            logger.warning("request %s could not be cancelled and may be billed: %s", job.request_id, error)
            return False

    def _wait(self, job: Job, watch: Watcher | None) -> Status:
        status = self._follow(job, watch)
        return status if status is not None else self._poll(job, watch)

    def _follow(self, job: Job, watch: Watcher | None) -> Status | None:
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
            logger.info("polling %s, since its status stream failed: %s", job.request_id, error)
        return final

    def _poll(self, job: Job, watch: Watcher | None) -> Status:
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
                logger.info("asking again for the status of %s: %s", job.request_id, error)
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
                raise failure from error
            raise
        if failure is not None:
            raise failure
        output = answer.json()
        if isinstance(said := output.get("error"), str) and said and says_deprecated(said):
            raise EndpointGone(f"fal no longer offers this endpoint: {said}.", request_id=job.request_id)
        return Result(job.request_id, output, answer.billable_units, inference_s)


_MAY_RUN_HINT = (
    "Its job could not be cancelled: fal may be running and billing it. Look at https://fal.ai/dashboard/requests "
    "before you repeat the call."
)
_REQUEST_ID = re.compile(r"[\w-]{1,128}", re.ASCII)


def _says_less(error: FalError) -> bool:
    """Whether a failed job's stored answer tells less than its status did."""
    return isinstance(error, NotFound | FalUnavailable | BadOutput | Unreachable)


def _checked(status: Status) -> Status:
    if status.get("status") not in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
        raise BadOutput(f"fal gave a status that is not known: {shown(status.get('status'), 100)!r}.")
    return status


def _poll_pauses() -> Iterator[float]:
    pause = POLL_FIRST_S
    while True:
        yield pause
        pause = min(pause * POLL_GROWTH, POLL_MAX_S)


def _wants_logs(watch: Watcher | None) -> bool:
    return watch is not None and watch.with_logs


def _tell(watch: Watcher | None, job: Job, status: Status) -> None:
    if watch is not None:
        watch(job.request_id, status)
