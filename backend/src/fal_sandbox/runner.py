"""The rules of a job's life: accepted, IN_QUEUE, IN_PROGRESS, COMPLETED; cancelled, failed, timed out.

A direct call and a stream are jobs too; they only skip the queue.

A job is billable when it ran to the end: with success, or refused by the model after it had started to work. It
is not when its input failed the checks, when it was cancelled, and on any 5xx.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

from fal_sandbox import model_outputs, openai_models, replies
from fal_sandbox.endpoint_ids import app_of
from fal_sandbox.endpoint_table import Endpoint
from fal_sandbox.faults import Failure
from fal_sandbox.input_models import Invalid, check
from fal_sandbox.inputs import Unusable
from fal_sandbox.job_store import Job, Outcome
from fal_sandbox.memory import Memory
from fal_sandbox.refusals import ModelRefusal, refusal_of
from fal_sandbox.webhooks import Webhooks

log = logging.getLogger(__name__)


class Runner:
    """Takes jobs in and brings them to their end."""

    def __init__(self, state: Memory, webhooks: Webhooks) -> None:
        self._state = state
        self._webhooks = webhooks

    def accept(self, job: Job, row: Endpoint | None) -> None:
        """Takes a job in and starts its life. `row` runs it; None when the application has no such path."""
        job.plan = self._state.faults.take("job", job.endpoint)
        self._state.jobs.add(job)
        self._state.ledger.count_accepted()
        job.life = asyncio.create_task(self._live(job, row))
        self._state.changed.ring()

    def cancel_all(self) -> None:
        """Ends what still runs."""
        for job in list(self._state.jobs):
            if not job.ended:
                self._cancel(job)

    def cancel(self, job: Job) -> tuple[int, str]:
        """Status code and word of a cancel request."""
        job.cancel_requests += 1
        self._state.changed.ring()
        if job.ended:
            return 400, "ALREADY_COMPLETED"
        was_waiting = job.state == "IN_QUEUE"
        # fal only sends a signal: an application without a handler for it finishes as if nothing was.
        if was_waiting or job.plan is None or not job.plan.ignores_cancel:
            self._cancel(job)
        return (200, "OK") if was_waiting else (202, "CANCELLATION_REQUESTED")

    def _cancel(self, job: Job) -> None:
        if job.life is not None:
            job.life.cancel()
        job.error, job.error_type = "Request was cancelled by the client", "client_cancelled"
        self._finish(job, "cancelled", replies.usual(499))

    async def _live(self, job: Job, row: Endpoint | None) -> None:
        try:
            if not await self._leaves_queue(job):
                return
            self._start(job)
            await self._compute(job, row)
        except Invalid as invalid:
            if row is not None and row.openai:
                self._refuse_openai(job, invalid.errors)
            else:
                self._refuse(job, invalid.errors)
        except Unusable as unusable:
            self._refuse(job, unusable.detail, billable=True)
        except Exception:
            log.exception("the sandbox failed on job %s (%s)", job.request_id, job.endpoint)
            job.error = "Internal Server Error"
            self._finish(job, "error", replies.detail(500, "Internal Server Error"))

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
        self._state.jobs.leave_queue(job)
        self._changed(job)

    async def _compute(self, job: Job, row: Endpoint | None) -> None:
        plan, latency_s = job.plan, self._state.settings.latency
        if plan is not None and plan.delay:
            latency_s = plan.delay
        if plan is not None and plan.stuck == "IN_PROGRESS":
            latency_s = math.inf
        if plan is not None and plan.fail is not None:
            await _sleep(latency_s)
            self._fail_as_planned(job, plan.fail)
            return
        draft = await self._output(job, row)
        if draft is None:
            return
        job.draft = draft
        self._changed(job)
        await _sleep(latency_s - (time.monotonic() - job.started_at))
        self._succeed(job, job.draft)

    async def _output(self, job: Job, row: Endpoint | None) -> dict[str, Any] | None:
        """The model's output; None when it does not run, which ends the job."""
        if job.plan is not None and job.plan.output is not None:
            return job.plan.output
        if row is None:
            job.error = "Invalid status code: 404"
            self._finish(job, "error", no_path(job.endpoint))
            return None
        fields = check(row.input, job.given)
        settings, streamed = self._state.settings, job.kind == "stream"
        refusal = refusal_of(settings.gone_models, settings.must_reason, fields, streamed=streamed)
        if refusal is not None:
            self._turn_down(job, refusal)
            return None
        output = await row.runs(model_outputs.Work(self._state, job.endpoint, fields))
        return {**output, "sandbox": True}

    def _succeed(self, job: Job, output: dict[str, Any]) -> None:
        job.billable, job.units = True, max(1, len(output.get("images") or ()))
        self._finish(job, "ok", replies.json_reply(output), units=job.units)

    def _turn_down(self, job: Job, refusal: ModelRefusal) -> None:
        """The model was refused before it ran, which costs nothing."""
        job.error, job.draft = refusal.error, refusal.draft
        self._finish(job, "error", refusal.reply, units=0)

    def _refuse(self, job: Job, detail: list[dict[str, Any]], *, billable: bool = False) -> None:
        """A 422 from the model. Only a schema error says that it costs nothing."""
        job.error, job.billable, job.units = "Invalid status code: 422", billable, int(billable)
        self._finish(job, "error", replies.detail(422, detail), units=None if billable else 0)

    def _refuse_openai(self, job: Job, errors: list[dict[str, Any]]) -> None:
        job.error = "Invalid status code: 400"
        self._finish(job, "error", replies.json_reply(openai_models.refusal(errors), 400), units=0)

    def _time_out(self, job: Job) -> None:
        job.error, job.error_type = "Request timed out before it was started", "request_timeout"
        answer = replies.detail(504, job.error, job.error_type)
        answer.headers["X-Fal-Request-Timeout-Type"] = "user"
        self._finish(job, "error", answer)

    def _fail_as_planned(self, job: Job, fail: Failure) -> None:
        job.error, job.error_type = fail.error, fail.error_type
        status = fail.status or replies.STATUS_OF_ERROR.get(job.error_type or "", 500)
        if fail.body is None:
            answer = replies.detail(status, job.error, job.error_type)
        else:
            answer = replies.json_reply(fail.body, status)
        job.billable = status < 400 or status == 422
        job.units = int(job.billable)
        self._finish(job, "error", answer)

    def _finish(self, job: Job, outcome: Outcome, answer: replies.Reply, *, units: int | None = None) -> None:
        self._state.jobs.leave_queue(job)
        answer.request_id = job.request_id
        if units is not None:
            answer.headers["x-fal-billable-units"] = str(units)
        if job.started_at:
            job.inference_s = round(time.monotonic() - job.started_at, 6)
        job.state, job.outcome, job.result = "COMPLETED", outcome, answer
        job.log_lines.append((time.time(), f"sandbox: {job.endpoint} ended ({outcome})"))
        self._state.ledger.count_end(job)
        self._state.jobs.note_end(job)
        self._changed(job)
        if job.webhook_url is not None:
            self._webhooks.send(job)

    def _changed(self, job: Job) -> None:
        job.bell.ring()
        self._state.changed.ring()


def no_path(endpoint: str) -> replies.Reply:
    """What an application says about a path it does not have."""
    path = endpoint[len(app_of(endpoint)) :]
    answer = replies.detail(404, f"Path {path or '/'} not found")
    answer.headers["x-fal-billable-units"] = "0"
    return answer


async def _sleep(seconds: float) -> None:
    """Sleeps; for ever when the time is endless, not at all when there is none left."""
    if seconds == math.inf:
        await asyncio.get_running_loop().create_future()
    elif seconds > 0:
        await asyncio.sleep(seconds)
