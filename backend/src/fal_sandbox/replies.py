"""What goes back over the wire: an answer as data, and the shapes fal gives to refusals.

Not aiohttp's responses, which a fault could not change: it drops, halves or mangles an answer after the handler has
made it, and cuts streams after so many events. Sending them is delivery's business.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fal_sandbox.wire_types import Json

Body = bytes | tuple[bytes, ...] | AsyncGenerator[bytes, None]
"""Whole, in chunks, or made while it is sent (a stream of events)."""

JSON = "application/json"
EVENTS = "text/event-stream"
FIELD_ERRORS = "https://docs.fal.ai/errors/#"

# What fal says for a status when nothing more is known (https://fal.ai/docs/documentation/model-apis/request-errors).
_INFRASTRUCTURE: dict[int, tuple[str, str]] = {
    400: ("Bad request", "bad_request"),
    499: ("Request was cancelled by the client", "client_cancelled"),
    500: ("Internal server error", "internal_error"),
    502: ("Runner sent an incomplete response", "runner_incomplete_response"),
    503: ("Runner disconnected", "runner_disconnected"),
    504: ("Request timed out", "request_timeout"),
}
_PLAIN: dict[int, str] = {
    401: "invalid key credentials",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request timeout",
    409: "Conflict",
    410: "Gone",
    413: "Request body too large",
}
STATUS_OF_ERROR: dict[str, int] = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_disconnected": 503,
    "runner_connection_refused": 503,
    "runner_connection_error": 503,
    "runner_incomplete_response": 502,
    "runner_server_error": 500,
    "internal_error": 500,
    "client_disconnected": 499,
    "client_cancelled": 499,
    "bad_request": 400,
}


@dataclass(slots=True)
class Reply:
    """One answer, ready to be sent."""

    status: int = 200
    body: Body = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    request_id: str | None = None
    """The id in `x-fal-request-id`; a fresh one is made when this is None."""
    length: int | None = None
    """Content-Length of a body that is made while it is sent, when it is known."""


class Refusal(Exception):
    """Ends a handler early with the answer it carries."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def encode(data: Json) -> bytes:
    """JSON as fal sends it: UTF-8, letters not escaped."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def json_reply(data: Json, status: int = 200, *, request_id: str | None = None) -> Reply:
    """An answer whose body is JSON."""
    return Reply(status, encode(data), request_id=request_id)


def detail(status: int, text: Json, error_type: str | None = None) -> Reply:
    """A refusal: `{"detail": …}`, with `error_type` in body and header when there is one."""
    if error_type is None:
        return json_reply({"detail": text}, status)
    answer = json_reply({"detail": text, "error_type": error_type}, status)
    answer.headers["X-Fal-Error-Type"] = error_type
    return answer


def usual(status: int) -> Reply:
    """What fal usually says with this status."""
    if status in _INFRASTRUCTURE:
        return detail(status, *_INFRASTRUCTURE[status])
    if status == 422:
        return detail(422, [field_error("content_policy_violation", "body", "Refusal by a sandbox fault")])
    if status == 429:
        answer = detail(429, "Concurrent requests limit reached", "concurrent_requests_limit")
        answer.headers["X-Fal-Needs-Retry"] = "1"
        return answer
    return detail(status, _PLAIN.get(status, f"Sandbox fault, status {status}"))


def not_served(what: str) -> Reply:
    """Something of fal's that the sandbox does without, and says so."""
    return detail(501, f"The sandbox does not serve {what}. Use the queue, a direct call or a stream.")


def not_found() -> Reply:
    """Unknown or expired request id."""
    return json_reply({"status": "NOT_FOUND"}, 404)


def field_error(kind: str, name: str, message: str, given: Json = None) -> dict[str, Any]:
    """One entry of fal's model-level `detail` list."""
    loc = ["body"] if name == "body" else ["body", name]
    return {"loc": loc, "msg": message, "type": kind, "url": FIELD_ERRORS + kind, "input": given}


def event(data: Json, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + encode(data) + b"\n\n"
