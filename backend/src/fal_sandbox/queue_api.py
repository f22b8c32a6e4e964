"""queue.fal.run over HTTP: submit, status, status stream, result, cancel.

As documented at https://fal.ai/docs/documentation/model-apis/inference/queue and
https://fal.ai/docs/api-reference/inference-api; the headers at
https://fal.ai/docs/documentation/model-apis/common-parameters.
The rules of a job's life are in jobs; here is only what is said about them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime, timezone
from typing import Any

from fal_sandbox.job_store import Job
from fal_sandbox.keys import check_key
from fal_sandbox.orders import place
from fal_sandbox.replies import EVENTS, Refusal, Reply, event, json_reply, not_found
from fal_sandbox.wire_request import WireRequest

KEEP_ALIVE_S = 15.0
"""A stream that has nothing to say sends a comment this often."""


async def submit(call: WireRequest) -> Reply:
    job = place(call, "queue")
    reply = {
        "status": "IN_QUEUE",
        "request_id": job.request_id,
        "gateway_request_id": job.request_id,
        "queue_position": call.state.jobs.position(job),
        **_urls(call, job),
    }
    return json_reply(reply, request_id=job.request_id)


async def status(call: WireRequest) -> Reply:
    job = _job(call)
    return json_reply(_status(call, job), 200 if job.ended else 202, request_id=job.request_id)


async def status_stream(call: WireRequest) -> Reply:
    job = _job(call)
    return Reply(200, _changes(call, job), EVENTS, request_id=job.request_id)


async def result(call: WireRequest) -> Reply:
    job = _job(call)
    if job.result is None:
        return json_reply({"detail": "Request is still in progress"}, 400, request_id=job.request_id)
    if job.plan is not None and job.plan.expired:
        return not_found()
    return job.result


async def cancel(call: WireRequest) -> Reply:
    job = _job(call)
    code, word = call.state.runner.cancel(job)
    return json_reply({"status": word}, code, request_id=job.request_id)


def _job(call: WireRequest) -> Job:
    """The job a URL names, by the short form or with the endpoint's whole path."""
    check_key(call, required=False)
    job = call.state.jobs.find(call.params["id"])
    if job is None or job.kind != "queue" or call.params["endpoint"] not in (job.app, job.endpoint):
        raise Refusal(not_found())
    return job


def _urls(call: WireRequest, job: Job) -> dict[str, str]:
    base = f"https://{call.host}/{job.app}/requests/{job.request_id}"
    return {"response_url": base, "status_url": base + "/status", "cancel_url": base + "/cancel"}


def _status(call: WireRequest, job: Job) -> dict[str, Any]:
    said: dict[str, Any] = {"status": job.state, "request_id": job.request_id}
    if job.state == "IN_QUEUE":
        said["queue_position"] = call.state.jobs.position(job)
    # The Python client needs the key whether logs were asked for or not.
    said["logs"] = _logs(job) if call.query.get("logs", "0").lower() in ("1", "true") else None
    if job.ended:
        said["metrics"] = {} if job.inference_s is None else {"inference_time": job.inference_s}
    if job.error is not None:
        said["error"] = job.error
    if job.error_type is not None:
        said["error_type"] = job.error_type
    return {**said, **_urls(call, job)}


def _logs(job: Job) -> list[dict[str, str]]:
    return [
        {
            "message": message,
            "level": "INFO",
            "source": "USER",
            "timestamp": datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        for at, message in job.log_lines
    ]


async def _changes(call: WireRequest, job: Job) -> AsyncGenerator[bytes, None]:
    last, told = None, 0
    while True:
        now = _status(call, job)
        if now != last:
            last = now
            lines = now["logs"]
            # Only the lines that are new: fal's clients append those of each event to what they have.
            yield event(now if lines is None else {**now, "logs": lines[told:]})
            told = 0 if lines is None else len(lines)
        if now["status"] == "COMPLETED":
            return
        if not job.ended and not await job.bell.wait(KEEP_ALIVE_S):
            yield b": keep-alive\n\n"
