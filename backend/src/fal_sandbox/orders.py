"""From a request to an accepted job: the checks that fal makes before it accepts one.

The input itself is checked when the job runs, as on a runner; only a body that is no JSON is refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Literal

from fal_sandbox.endpoint_ids import app_of
from fal_sandbox.endpoint_table import ANYTHING, APPS, ENDPOINTS, OPENAI, Endpoint, makes_no_picture
from fal_sandbox.job_store import Job
from fal_sandbox.keys import check_key
from fal_sandbox.memory import Memory
from fal_sandbox.replies import Refusal, Reply, detail, usual
from fal_sandbox.runner import no_path
from fal_sandbox.wire_request import WireRequest
from fal_sandbox.wire_types import Json

TREATMENT = ("x-fal-store-io", "x-fal-object-lifecycle-preference", "x-fal-queue-priority")
"""Headers that change nothing here; the ledger keeps them, so that a caller can see that they were sent."""


def place(call: WireRequest, kind: Literal["queue", "direct", "stream"]) -> Job:
    """The accepted job, or Refusal. Only the queue takes a path that the application does not have."""
    check_key(call)
    state, endpoint = call.state, call.params["endpoint"]
    row = _row(state, endpoint)
    if row is None and kind != "queue":
        raise Refusal(no_path(endpoint))
    if kind == "stream" and (row is None or not row.streams):
        raise Refusal(no_path(endpoint + "/stream"))
    if kind == "queue":
        _check_room(call, app_of(endpoint))
    job = Job(
        request_id=state.new_id(),
        endpoint=endpoint,
        kind=kind,
        given=_input(call),
        headers=_treatment(call.headers),
        size=sum(map(len, call.chunks)),
        start_within_s=_start_within_s(call.headers),
        webhook_url=(call.query.get("fal_webhook") or None) if kind == "queue" else None,
    )
    state.runner.accept(job, row)
    return job


def _row(state: Memory, endpoint: str) -> Endpoint | None:
    """What runs the endpoint; None when its application exists but has no such path."""
    for entry in state.settings.gone:
        name, _, how = entry.partition("=")
        if name == endpoint:
            raise Refusal(_gone(endpoint, how))
    if (row := ENDPOINTS.get(endpoint)) is not None:
        return row
    if state.settings.any_endpoint and not endpoint.startswith(OPENAI):
        if makes_no_picture(endpoint):
            raise Refusal(detail(404, f"The sandbox makes no audio, video or speech: {endpoint} is not served"))
        return ANYTHING
    if app_of(endpoint) in APPS:
        return None
    raise Refusal(_no_application(endpoint))


def _no_application(endpoint: str) -> Reply:
    return detail(404, f'Application "{app_of(endpoint).rpartition("/")[2]}" not found')


def _gone(endpoint: str, how: str) -> Reply:
    if how == "410":
        return detail(410, f"{endpoint} is gone")
    if how == "deprecated":
        return detail(422, f"{endpoint} is deprecated and no longer supported")
    return _no_application(endpoint)


def _check_room(call: WireRequest, app: str) -> None:
    longest = call.query.get("fal_max_queue_length", "")
    if longest.isdigit() and call.state.jobs.waiting(app) > int(longest):
        refusal = usual(429)
        refusal.body = detail(429, "Queue is longer than fal_max_queue_length").body
        raise Refusal(refusal)


def _input(call: WireRequest) -> Json:
    if not call.body:
        return None
    try:
        return call.json_body()
    except ValueError as error:
        position, why = (error.pos, error.msg) if isinstance(error, json.JSONDecodeError) else (0, str(error))
        wrong = {"type": "json_invalid", "loc": ["body", position], "msg": "JSON decode error", "input": {}}
        refusal = detail(422, [{**wrong, "ctx": {"error": why}}])
        refusal.headers["x-fal-billable-units"] = "0"
        raise Refusal(refusal) from None


def _treatment(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name in TREATMENT if (value := headers.get(name)) is not None}


def _start_within_s(headers: Mapping[str, str]) -> float:
    """The caller's start deadline; the newer header wins, nonsense counts as none."""
    given = headers.get("X-Fal-Request-Start-Timeout", headers.get("X-Fal-Request-Timeout"))
    try:
        seconds = math.inf if given is None else float(given)
    except ValueError:
        return math.inf
    return seconds if seconds > 0 else math.inf
