"""fal.run over HTTP: the answer on the same connection, and streams of text (wire.md, sections 2 and 3).

A caller who hangs up changes nothing: the job goes on and is charged, as there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from sandbox.answers import EVENTS, Answer, event
from sandbox.call import Call
from sandbox.jobs import Job
from sandbox.orders import place

PIECES = 8


async def run(call: Call) -> Answer:
    job = place(call, "direct")
    await job.end()
    return _result(job)


async def stream(call: Call) -> Answer:
    """Events with the text so far; an error that comes before the first one is a plain answer."""
    job = place(call, "stream")
    while job.draft is None and not job.ended:
        await job.bell.wait()
    if job.draft is None:
        return _result(job)
    return Answer(200, _events(job, call.state.settings.latency), EVENTS, request_id=job.request_id)


def _result(job: Job) -> Answer:
    assert job.result is not None
    if job.result.status in (502, 503, 504):
        job.result.headers["X-Fal-Needs-Retry"] = "1"
    return job.result


async def _events(job: Job, latency_s: float) -> AsyncGenerator[bytes, None]:
    draft = job.draft or {}
    text = str(draft.get("output") or "")
    pieces = max(1, min(PIECES, len(text)))
    for number in range(1, pieces + 1):
        await _until(job, job.started_at + latency_s * number / pieces)
        shown = text[: len(text) * number // pieces]
        yield event({"output": shown, "partial": True, "error": None}, "event")
    await job.end()
    if job.outcome == "ok" or draft.get("error"):
        yield event({**draft, "partial": False, "error": draft.get("error")}, "event")


async def _until(job: Job, moment: float) -> None:
    remaining_s = moment - time.monotonic()
    if remaining_s > 0 and not job.ended:
        await asyncio.sleep(remaining_s)
