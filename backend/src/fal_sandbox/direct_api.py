"""fal.run over HTTP: the answer on the same connection, and streams of text.

As documented at https://fal.ai/docs/documentation/model-apis/inference/synchronous and
https://fal.ai/docs/documentation/model-apis/inference/streaming.
A caller who hangs up changes nothing: the job goes on and is charged, as there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from fal_sandbox import openai_models
from fal_sandbox.endpoint_table import ENDPOINTS
from fal_sandbox.job_store import Job
from fal_sandbox.orders import place
from fal_sandbox.replies import EVENTS, Reply, event, not_served
from fal_sandbox.runner import no_path
from fal_sandbox.wire_request import WireRequest
from fal_sandbox.wire_types import Json

PIECES = 8


async def run(call: WireRequest) -> Reply:
    job = place(call, "direct")
    if _streams_as_openai(job):
        return await _begun(job, _openai_events(job, call.state.settings.latency))
    await job.end()
    return _result(job)


async def no_such_path(call: WireRequest) -> Reply:
    """OpenAI's clients ask for lists of models and files with GET; fal passes on three routes only."""
    return no_path(call.params["endpoint"].rstrip("/"))


async def realtime(call: WireRequest) -> Reply:
    """A WebSocket would come here."""
    return not_served("realtime")


async def stream(call: WireRequest) -> Reply:
    """Events with the text so far; an error that comes before the first one is a plain answer."""
    job = place(call, "stream")
    return await _begun(job, _events(job, call.state.settings.latency))


async def _begun(job: Job, events: AsyncGenerator[bytes, None]) -> Reply:
    """The stream of a job as soon as there is something to show, else the job's plain answer."""
    while job.draft is None and not job.ended:
        await job.bell.wait()
    if job.draft is None:
        return _result(job)
    return Reply(200, events, EVENTS, request_id=job.request_id)


def _streams_as_openai(job: Job) -> bool:
    row = ENDPOINTS.get(job.endpoint)
    return row is not None and row.openai and isinstance(job.given, dict) and job.given.get("stream") is True


def _result(job: Job) -> Reply:
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


async def _openai_events(job: Job, latency_s: float) -> AsyncGenerator[bytes, None]:
    """OpenAI's own events: a chat ends with `[DONE]`, a response with `response.completed`."""
    draft, told = job.draft or {}, list[tuple[str | None, Json]]()
    options = job.given.get("stream_options")
    with_usage = not (isinstance(options, dict) and options.get("include_usage") is False)
    if "error" not in draft or draft["error"] is None:
        told = list(openai_models.events(job.endpoint, draft, with_usage))
    for number, (name, data) in enumerate(told, 1):
        await _until(job, job.started_at + latency_s * number / len(told))
        yield event(data, name)
    await job.end()
    if job.outcome == "ok" and not job.endpoint.endswith("/responses"):
        yield b"data: [DONE]\n\n"


async def _until(job: Job, moment: float) -> None:
    remaining_s = moment - time.monotonic()
    if remaining_s > 0 and not job.ended:
        await asyncio.sleep(remaining_s)
