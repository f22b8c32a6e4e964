"""The rules of a job's life: accepted, IN_QUEUE, IN_PROGRESS, COMPLETED; cancelled, failed, timed out.

A direct call and a stream are jobs too; they only skip the queue. What is said about a job over HTTP is
queue_api's and direct_api's business.

A job is billable when it ran to the end: with success, or refused by the model after it had started to work.
It is not when its input failed the checks, when it was cancelled, and on any 5xx.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sandbox import answers, models
from sandbox.bell import Bell
from sandbox.checks import Invalid, check
from sandbox.endpoints import Endpoint, app_of
from sandbox.inputs import Unusable

if TYPE_CHECKING:
    from sandbox.faults import Fault
    from sandbox.state import State

KEPT_JOBS = 10_000
KEPT_BYTES = 1024 * 1024 * 1024
"""Of inputs and results together: both may hold pictures as data URIs."""

Phase = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
Outcome = Literal["ok", "error", "cancelled"]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    """One accepted request."""

    request_id: str
    endpoint: str
    kind: Literal["queue", "direct", "stream"]
    given: Any
    """The input as it came."""
    row: Endpoint | None
    """What runs it; None when the application has no such path."""
    size: int = 0
    """Bytes of the input as it came, later of the result too."""
    start_within_s: float = math.inf
    webhook_url: str | None = None
    plan: Fault | None = None
    state: Phase = "IN_QUEUE"
    outcome: Outcome | None = None
    billable: bool = False
    units: int = 0
    cancel_requests: int = 0
    webhook: str | None = None
    """How the delivery stands: pending, delivered, failed, dropped."""
    draft: dict[str, Any] | None = None
    """The output as soon as it is computed; a stream shows it before the job has ended."""
    result: answers.Answer | None = None
    error: str | None = None
    error_type: str | None = None
    started_at: float = 0.0
    inference_s: float | None = None
    log_lines: list[tuple[float, str]] = field(default_factory=list)
    bell: Bell = field(default_factory=Bell)
    """Rings on every change."""
    life: asyncio.Task[None] | None = None

    @property
    def app(self) -> str:
        return app_of(self.endpoint)

    @property
    def ended(self) -> bool:
        return self.state == "COMPLETED"

    async def end(self) -> None:
        """Waits until the job has ended."""
        while not self.ended:
            await self.bell.wait()


class Jobs:
    """Every job that is still kept, oldest first."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept: OrderedDict[str, Job] = OrderedDict()
        self._ended: deque[str] = deque()
        self._waiting: dict[str, dict[str, Job]] = {}
        self._bytes = 0

    def __iter__(self) -> Iterator[Job]:
        return iter(self._kept.values())

    def find(self, request_id: str) -> Job | None:
        return self._kept.get(request_id)

    def clear(self) -> None:
        """Ends what still runs and forgets everything."""
        for job in self._kept.values():
            if not job.ended:
                self._cancel(job)
        self._kept.clear()
        self._ended.clear()
        self._waiting.clear()
        self._bytes = 0

    def accept(self, job: Job) -> None:
        """Takes a job in and starts its life."""
        job.plan = self._state.faults.take("job", job.endpoint)
        self._kept[job.request_id] = job
        self._bytes += job.size
        if job.kind == "queue":
            self._waiting.setdefault(job.app, {})[job.request_id] = job
        self._state.ledger.accepted += 1
        job.life = asyncio.create_task(self._live(job))
        self._state.changed.ring()

    def waiting(self, app: str) -> int:
        """How many jobs of an application are in the queue."""
        return len(self._waiting.get(app, ()))

    def position(self, job: Job) -> int:
        """How many jobs of the same application wait before this one."""
        for position, request_id in enumerate(self._waiting.get(job.app, ())):
            if request_id == job.request_id:
                return position
        return 0

    def cancel(self, job: Job) -> tuple[int, str]:
        """Status code and word of a cancel request."""
        job.cancel_requests += 1
        self._state.changed.ring()
        if job.ended:
            return 400, "ALREADY_COMPLETED"
        was_waiting = job.state == "IN_QUEUE"
        self._cancel(job)
        return (200, "OK") if was_waiting else (202, "CANCELLATION_REQUESTED")

    def _cancel(self, job: Job) -> None:
        if job.life is not None:
            job.life.cancel()
        job.error, job.error_type = "Request was cancelled by the client", "client_cancelled"
        self._finish(job, "cancelled", answers.usual(499))

    async def _live(self, job: Job) -> None:
        try:
            if not await self._leaves_queue(job):
                return
            self._start(job)
            await self._compute(job)
        except Invalid as invalid:
            self._refuse(job, invalid.errors)
        except Unusable as unusable:
            self._refuse(job, unusable.detail, billable=True)
        except Exception:
            log.exception("the sandbox failed on job %s (%s)", job.request_id, job.endpoint)
            job.error = "Internal Server Error"
            self._finish(job, "error", answers.detail(500, "Internal Server Error"))

    async def _leaves_queue(self, job: Job) -> bool:
        """False when the caller's start deadline passed first."""
        wait_s = self._state.settings.queue if job.kind == "queue" else 0.0
        if job.plan is not None and job.plan.stuck == "IN_QUEUE":
            wait_s = math.inf
        if job.start_within_s < wait_s:
            await asyncio.sleep(job.start_within_s)
            self._time_out(job)
            return False
        await _sleep(wait_s)
        return True

    def _start(self, job: Job) -> None:
        job.state = "IN_PROGRESS"
        job.started_at = time.monotonic()
        job.log_lines.append((time.time(), f"sandbox: {job.endpoint} started"))
        self._leave_queue(job)
        self._changed(job)

    async def _compute(self, job: Job) -> None:
        plan, latency_s = job.plan, self._state.settings.latency
        if plan is not None and plan.delay:
            latency_s = plan.delay
        if plan is not None and plan.stuck == "IN_PROGRESS":
            latency_s = math.inf
        if plan is not None and plan.fail is not None:
            await _sleep(latency_s)
            self._fail_as_planned(job, plan.fail)
            return
        job.draft = await self._output(job)
        if job.draft is None:
            return
        self._changed(job)
        await _sleep(latency_s - (time.monotonic() - job.started_at))
        self._succeed(job, job.draft)

    async def _output(self, job: Job) -> dict[str, Any] | None:
        """The model's output; None when the application has no such path, which ends the job."""
        if job.plan is not None and job.plan.output is not None:
            return job.plan.output
        if job.row is None:
            job.error = "Invalid status code: 404"
            self._finish(job, "error", no_path(job.endpoint))
            return None
        fields = check(job.row.fields, job.given)
        output = await job.row.runs(models.Work(self._state, job.endpoint, fields))
        return {**output, "sandbox": True}

    def _succeed(self, job: Job, output: dict[str, Any]) -> None:
        job.billable, job.units = True, max(1, len(output.get("images") or ()))
        self._finish(job, "ok", answers.json_answer(output), units=job.units)

    def _refuse(self, job: Job, detail: list[dict[str, Any]], *, billable: bool = False) -> None:
        """A 422 from the model. Only a schema error says that it costs nothing."""
        job.error, job.billable, job.units = "Invalid status code: 422", billable, int(billable)
        self._finish(job, "error", answers.detail(422, detail), units=None if billable else 0)

    def _time_out(self, job: Job) -> None:
        job.error, job.error_type = "Request timed out before it was started", "request_timeout"
        answer = answers.detail(504, job.error, job.error_type)
        answer.headers["X-Fal-Request-Timeout-Type"] = "user"
        self._finish(job, "error", answer)

    def _fail_as_planned(self, job: Job, fail: dict[str, Any]) -> None:
        job.error = fail.get("error", "Runner disconnected")
        job.error_type = fail.get("error_type")
        status = fail.get("status") or answers.STATUS_OF_ERROR.get(job.error_type or "", 500)
        if (body := fail.get("body")) is None:
            answer = answers.detail(status, job.error, job.error_type)
        else:
            answer = answers.json_answer(body, status)
        job.billable = status < 500 and status != 499
        job.units = int(job.billable)
        self._finish(job, "error", answer)

    def _finish(self, job: Job, outcome: Outcome, answer: answers.Answer, *, units: int | None = None) -> None:
        self._leave_queue(job)
        answer.request_id = job.request_id
        if units is not None:
            answer.headers["x-fal-billable-units"] = str(units)
        if job.started_at:
            job.inference_s = round(time.monotonic() - job.started_at, 6)
        job.state, job.outcome, job.result = "COMPLETED", outcome, answer
        self._add_bytes(job, answer)
        job.log_lines.append((time.time(), f"sandbox: {job.endpoint} ended ({outcome})"))
        self._state.ledger.count_end(job)
        self._forget_old(job)
        self._changed(job)
        if job.webhook_url is not None:
            self._state.webhooks.send(job)

    def _leave_queue(self, job: Job) -> None:
        queue = self._waiting.get(job.app, {})
        if queue.pop(job.request_id, None) is not None:
            for behind in queue.values():
                behind.bell.ring()

    def _add_bytes(self, job: Job, answer: answers.Answer) -> None:
        size = len(answer.body) if isinstance(answer.body, bytes) else 0
        job.size += size
        self._bytes += size

    def _forget_old(self, job: Job) -> None:
        self._ended.append(job.request_id)
        while self._ended and (len(self._kept) > KEPT_JOBS or self._bytes > KEPT_BYTES):
            self._bytes -= self._kept.pop(self._ended.popleft()).size

    def _changed(self, job: Job) -> None:
        job.bell.ring()
        self._state.changed.ring()


def no_path(endpoint: str) -> answers.Answer:
    """What an application says about a path it does not have."""
    path = endpoint[len(app_of(endpoint)) :]
    answer = answers.detail(404, f"Path {path or '/'} not found")
    answer.headers["x-fal-billable-units"] = "0"
    return answer


async def _sleep(seconds: float) -> None:
    """Sleeps; for ever when the time is endless, not at all when there is none left."""
    if seconds == math.inf:
        await asyncio.get_running_loop().create_future()
    elif seconds > 0:
        await asyncio.sleep(seconds)
