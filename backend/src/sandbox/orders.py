"""From a request to an accepted job: the checks fal makes before it takes one in.

The input itself is checked when the job runs, as on a runner; only a body that is no JSON is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from sandbox.answers import Answer, Refused, detail, usual
from sandbox.call import Call
from sandbox.endpoints import ANYTHING, APPS, ENDPOINTS, Endpoint, app_of
from sandbox.jobs import Job
from sandbox.keys import check_key
from sandbox.runner import no_path
from sandbox.wire_types import Json

if TYPE_CHECKING:
    from sandbox.state import State


def place(call: Call, kind: Literal["queue", "direct", "stream"]) -> Job:
    """The accepted job, or Refused. Only the queue takes a path that the application does not have."""
    check_key(call)
    state, endpoint = call.state, call.params["endpoint"]
    row = _row(state, endpoint)
    if row is None and kind != "queue":
        raise Refused(no_path(endpoint))
    if kind == "stream" and (row is None or not row.streams):
        raise Refused(no_path(endpoint + "/stream"))
    if kind == "queue":
        _check_room(call, app_of(endpoint))
    job = Job(
        request_id=state.new_id(),
        endpoint=endpoint,
        kind=kind,
        given=_input(call),
        row=row,
        size=sum(map(len, call.chunks)),
        start_within_s=_start_within_s(call.headers),
        webhook_url=(call.query.get("fal_webhook") or None) if kind == "queue" else None,
    )
    state.runner.accept(job)
    return job


def _row(state: State, endpoint: str) -> Endpoint | None:
    """What runs the endpoint; None when its application exists but has no such path."""
    for entry in state.settings.gone:
        name, _, how = entry.partition("=")
        if name == endpoint:
            raise Refused(_gone(endpoint, how))
    if (row := ENDPOINTS.get(endpoint)) is not None:
        return row
    if state.settings.any_endpoint:
        return ANYTHING
    if app_of(endpoint) in APPS:
        return None
    raise Refused(_no_application(endpoint))


def _no_application(endpoint: str) -> Answer:
    return detail(404, f'Application "{app_of(endpoint).rpartition("/")[2]}" not found')


def _gone(endpoint: str, how: str) -> Answer:
    if how == "410":
        return detail(410, f"{endpoint} is gone")
    if how == "deprecated":
        return detail(422, f"{endpoint} is deprecated and no longer supported")
    return _no_application(endpoint)


def _check_room(call: Call, app: str) -> None:
    longest = call.query.get("fal_max_queue_length", "")
    if longest.isdigit() and call.state.jobs.waiting(app) > int(longest):
        refusal = usual(429)
        refusal.body = detail(429, "Queue is longer than fal_max_queue_length").body
        raise Refused(refusal)


def _input(call: Call) -> Json:
    if not call.body:
        return None
    try:
        return call.json_body()
    except ValueError as error:
        wrong = {"loc": ["body", 0], "msg": "JSON decode error", "type": "json_invalid", "input": {}}
        refusal = detail(422, [{**wrong, "ctx": {"error": str(error)}}])
        refusal.headers["x-fal-billable-units"] = "0"
        raise Refused(refusal) from None


def _start_within_s(headers: Mapping[str, str]) -> float:
    """The caller's start deadline; the newer header wins, nonsense counts as none."""
    given = headers.get("X-Fal-Request-Start-Timeout", headers.get("X-Fal-Request-Timeout"))
    try:
        seconds = math.inf if given is None else float(given)
    except ValueError:
        return math.inf
    return seconds if seconds > 0 else math.inf
