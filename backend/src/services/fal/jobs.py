"""The life of one job at fal: submit once, wait, fetch the result; cancel it whenever its call ends early.

Waiting listens to the status stream, and polls when that is not to be had
(https://fal.ai/docs/documentation/model-apis/inference/queue). Which endpoint a job goes to comes from the chains of
`endpoints.py`; what its output means is known to `text_models.py` and `picture_models.py`.

A call may carry a *journal*, which remembers its jobs beyond this process. It is asked before every submit, may answer
in place of fal, and is told what became of the job. A job that a journal knows is not cancelled when its call ends: it
is picked up by its id the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from services.fal.call import Call, Slots, ctrl_c_waits_for_submit
from services.fal.endpoints import Endpoint, Endpoints
from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
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
from services.fal.estimates import Bill, Estimates
from services.fal.hosts import is_run_host, parse
from services.fal.journal import Accepted, JobKey, Journal, Later, Result
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


class Jobs:
    """Runs jobs for one client, at most `max_concurrency` at a time."""

    def __init__(self, api: FalApi, endpoints: Endpoints, estimates: Estimates, max_concurrency: int) -> None:
        self._api = api
        self._endpoints = endpoints
        self.estimates = estimates
        """Knows what jobs may cost, and notes what they did."""
        self.slots = Slots(max_concurrency)
        """The client's places for running model calls."""

    def run(self, call: Call, role: str, arguments: Callable[[Endpoint], Mapping[str, Any]], key: JobKey) -> Result:
        """One job for `role` to its end, on the first endpoint of its chain that fal still offers."""
        return self.on_chain(role, lambda endpoint: self.run_on(call, role, endpoint, arguments(endpoint), key))

    def on_chain(self, role: str, action: Callable[[Endpoint], T]) -> T:
        """`action` on the endpoint in use for `role`; when fal says it is gone, on the next one."""
        endpoint = self._endpoints.current(role)
        while True:
            try:
                return action(endpoint)
            except EndpointGone as gone:
                endpoint = self._endpoints.move_on(role, endpoint, gone)

    def run_on(self, call: Call, role: str, endpoint: Endpoint, arguments: Mapping[str, Any], key: JobKey) -> Result:
        """One job on `endpoint`, submitted once: once it has an id, whatever happens to it is told and not repeated.

        `key` is what the call's journal, if it has one, knows the job by.
        """
        with self.estimates.job(call, role, endpoint, arguments, key) as bill:
            if call.journal is not None:
                expected_usd = partial(self.estimates.of_job, call, role, endpoint, arguments)
                return _OnRecord(self, call, call.journal, call.key_of(key), bill).run(
                    endpoint, arguments, expected_usd
                )
            with self.slots.one(call):
                if endpoint.is_own_url:
                    result = self.post_to_own(call, endpoint, arguments)
                else:
                    job = self.submit(call, endpoint, arguments)
                    bill.is_accepted = True
                    result = self._finish(call, job)
            return result._replace(cost_usd=bill.settled(result.output, result.billable_units))

    def post_to_own(self, call: Call, endpoint: Endpoint, arguments: Mapping[str, Any]) -> Result:
        """Send one request to the user's own service. Raises AmbiguousSubmit when it was sent and not answered."""
        answer = self._api.post_once(call, parse(endpoint.path), arguments, "photokit")
        try:
            output = answer.json()
        except BadOutput as error:
            # It has made, and may bill, the picture: the same once more could cost twice.
            raise error.but(retryable=False, hint=None) from error
        return Result(answer.request_id, output, answer.billable_units)

    def submit_once(self, call: Call, endpoint: Endpoint, arguments: Mapping[str, Any]) -> str:
        """The request id of a job that is not cancelled when its call ends, and may start at any time."""
        handle = self._api.submit(call, endpoint.path, arguments, webhook_url=None, start_within_s=None)
        return handle.request_id

    def outcome(self, call: Call, job: Job) -> Result:
        """Wait for a job to end, and fetch its result."""
        status = self._wait(call, job)
        return self._fetch_when_there(call, job, status if _is_of(status, job) else {"status": "COMPLETED"})

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
            built = self.job(endpoint, handle.request_id)
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

    def job(self, endpoint: Endpoint, request_id: str) -> Job:
        """A job that was submitted earlier."""
        handle = self._api.handle(endpoint.path, request_id)
        return Job(request_id, endpoint, handle.status_url, handle.response_url, handle.cancel_url)

    def find(self, call: Call, role: str, request_id: str, action: Callable[[Job], T]) -> T:
        """`action` on an earlier job, looked for on every endpoint that it may have gone to."""
        if usable_id(request_id) is None:
            raise InvalidInput("request_id must be the id that any-llm-submit returned (letters, digits, dashes).")
        missing: NotFound | None = None
        for endpoint in self._endpoints.candidates(role):
            try:
                return action(self.job(endpoint, request_id))
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


class _OnRecord:
    """One job that a journal knows: its result comes from there, or from fal, where it may have been submitted before.

    When its call ends before the job does, the job goes on at fal.
    """

    def __init__(self, jobs: Jobs, call: Call, journal: Journal, key: JobKey, bill: Bill) -> None:
        self._jobs = jobs
        self._call = call
        self._journal = journal
        self._key = key
        self._bill = bill

    def run(self, endpoint: Endpoint, arguments: Mapping[str, Any], expected_usd: Callable[[], float]) -> Result:
        while True:
            self._call.check()
            with self._jobs.slots.one(self._call):
                known = self._journal.begin(self._key, endpoint.path, arguments, expected_usd)
                if known is None:
                    known = self._start(endpoint, arguments)
                elif isinstance(known, Result):
                    self._bill.close(known.cost_usd)
                if isinstance(known, Accepted):
                    known = self._collect(known)
            if isinstance(known, Result):
                return known
            # Without the place: a job that was submitted earlier, and is waited for, may need it.
            self._call.sleep(known.seconds)

    def _start(self, endpoint: Endpoint, arguments: Mapping[str, Any]) -> Result | Accepted | Later:
        """Submit the job, whose intent is on record, and put on record what became of that."""
        made: Result | str
        try:
            if endpoint.is_own_url:
                made = self._jobs.post_to_own(self._call, endpoint, arguments)
            else:
                made = self._jobs.submit_once(self._call, endpoint, arguments)
        except AmbiguousSubmit as error:
            self._journal.in_doubt(self._key, error)
            raise
        except BadOutput as error:  # of a service of the user's own: it has run
            self._journal.failed(self._key, error, self._bill.cost_of_failure(error))
            raise
        except FalError as error:
            if self._journal.refused(self._key, error):
                return Later(0.0)
            raise
        self._bill.is_accepted = True
        if isinstance(made, Result):
            return self._done(made)
        self._journal.sent(self._key, made)
        return Accepted(endpoint.path, made)

    def _collect(self, accepted: Accepted) -> Result:
        self._bill.is_accepted = True
        job = self._jobs.job(Endpoint(accepted.endpoint), accepted.request_id)
        try:
            result = self._jobs.outcome(self._call, job)
        except FalError as error:
            if not (_stopped(self._call, error) or isinstance(error, _NO_END)):
                self._journal.failed(self._key, error, self._bill.cost_of_failure(error))
            raise error.but(request_id=job.request_id) from error
        return self._done(result)

    def _done(self, result: Result) -> Result:
        result = result._replace(cost_usd=self._bill.settled(result.output, result.billable_units))
        if result.output.get("error"):
            # Whoever reads it raises that. On record it is a failure, since the next model may be asked the same.
            error = JobFailed("The model failed.", request_id=result.request_id)
            self._journal.failed(self._key, error, result.cost_usd)
        else:
            self._journal.done(self._key, result)
        return result


_NO_END = (AuthError, FalUnavailable, NotReady, RateLimited, Unreachable)
"""Errors of asking for a job, which say nothing of the job itself."""
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
