"""How fal behaves, as its documents and its clients' source say: one row for each fact that a live run looks at.

`documented` is a shape (see `shapes.py`); what of it has no "?" is what this library relies on. Where the documents
leave a choice, `sandbox` says what the sandbox does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from services.live.shapes import Difference, Shape, differences, fal_headers, outline


class Fact(NamedTuple):
    """One kind of answer."""

    name: str
    statuses: tuple[int, ...]
    documented: Shape
    headers: tuple[str, ...] = ()
    """Those that the library relies on, and with "*" those that are documented though it does without them."""
    events: bool = False
    """Whether the answer is a stream of events, each of that shape."""
    source: str = ""
    sandbox: str = "same"
    """What the sandbox answers, where the documents leave a choice."""

    @property
    def outline(self) -> str:
        statuses = " or ".join(map(str, self.statuses))
        headers = "".join(f" {name}" for name in self.headers)
        kind = " events" if self.events else ""
        return f"{statuses}{headers}{kind} {outline(self.documented)}"

    def differences(self, status: int, headers: Mapping[str, str], value: object) -> list[Difference]:
        """What of an answer is not as it is documented."""
        if status not in self.statuses:
            wanted = " or ".join(map(str, self.statuses))
            return [Difference(f"status {status}, not {wanted}", True)]
        absent = [name for name in self.headers if name.rstrip("*") not in headers]
        found = [Difference(f"no header {name.rstrip('*')}", not name.endswith("*")) for name in absent]
        more = [name for name in fal_headers(headers) if name not in KNOWN_HEADERS]
        found += [Difference(f"header {name}", False, is_new=True) for name in more]
        if self.events and not headers.get("content-type", "").startswith("text/event-stream"):
            return [*found, Difference("not a stream of events", True)]
        if self.events and not value:
            return [*found, Difference("a stream without events", True)]
        return [*found, *differences([self.documented] if self.events else self.documented, value)]


QUEUE = "https://fal.ai/docs/documentation/model-apis/inference/queue"
ERRORS = "https://fal.ai/docs/documentation/model-apis/errors"
CDN = "https://fal.ai/docs/documentation/model-apis/fal-cdn"
STREAM = "https://fal.ai/docs/documentation/model-apis/inference/streaming"
MODELS = "https://fal.ai/models"
ROUTER = f"{MODELS}/openrouter/router/llms.txt"
AUTH = "https://fal.ai/docs/authentication/key-based"
PLATFORM = "https://fal.ai/docs/api-reference/platform-apis"
ID, UNITS = "x-fal-request-id", "x-fal-billable-units"
KNOWN_HEADERS = frozenset(
    {
        ID,
        UNITS,
        "x-fal-error-type",
        "x-fal-needs-retry",
        "x-fal-request-timeout-type",
        "x-fal-retryable",
        "x-fal-runner-hints",
        "x-fal-served-from",
    }
)
"""fal's own, as its documents and its clients name them."""
NAMED = (f"{ID}*",)
CHARGED = (f"{ID}*", f"{UNITS}*")
URLS = {"response_url": "string", "status_url": "string", "cancel_url": "string"}
LOGS = [{"message": "string", "timestamp?": "string", "level?": "string", "source?": "string"}]
METRICS = {"inference_time?": "number|null"}
STATUS = {
    "request_id*": "string",
    "queue_position?": "integer|null",
    "logs?": ("null", LOGS),
    **{f"{name}*": kind for name, kind in URLS.items()},
}
FAILED = {"error?": "string|null", "error_type?": "string|null"}
ENDED = {**STATUS, "metrics*": METRICS, **FAILED}
USAGE = {
    "prompt_tokens?": "integer",
    "completion_tokens?": "integer",
    "total_tokens?": "integer",
    "cost?": "number",
}
TEXT = {
    "output": "string",
    "reasoning?": "string|null",
    "partial?": "boolean",
    "error?": "string|null",
    "usage?": ("null", USAGE),
}
LIKE_TEXT = {"reasoning?": "string|null", "partial?": "boolean", "error?": "string|null"}
MORE_OF_ERROR = {"url?": "string", "input?": "any", "ctx?": "object"}
PAGE = {"next_cursor?": "string|null", "has_more?": "boolean"}
MODEL = {"endpoint_id": "string", "metadata*": "object", "openapi": "object"}
IMAGE = {
    "url": "string",
    "content_type?": "string|null",
    "file_name?": "string|null",
    "file_size?": "integer|null",
    "width?": "integer|null",
    "height?": "integer|null",
}
PRICE = {"endpoint_id": "string", "unit_price": "number", "unit": "string", "currency": "string"}

FACTS: Mapping[str, Fact] = {
    fact.name: fact
    for fact in (
        Fact("catalogue", (200,), {"models": [MODEL], **PAGE}, source=PLATFORM),
        Fact("prices", (200,), {"prices": [PRICE], **PAGE}, source=PLATFORM),
        Fact("wrong key", (401,), {"detail": "string"}, source=AUTH),
        Fact(
            "upload token",
            (200,),
            {"token": "string", "token_type": "string", "base_url": "string", "expires_at": "string"},
            source=CDN,
        ),
        Fact("upload", (200,), {"access_url": "string"}, source=CDN),
        Fact("download", (200,), "any", ("content-type",), source=CDN),
        Fact(
            "submit",
            (200,),
            {
                "request_id": "string",
                **URLS,
                "queue_position*": "integer|null",
                "status?": "=IN_QUEUE|IN_PROGRESS",
                "gateway_request_id?": "string",
            },
            (ID,),
            source=QUEUE,
        ),
        Fact("status while it runs", (202,), {"status": "=IN_QUEUE|IN_PROGRESS", **STATUS}, NAMED, source=QUEUE),
        Fact("early result", (400,), {"detail": "~in progress"}, NAMED, source=QUEUE),
        Fact(
            "cancel in queue",
            (200, 202),
            {"status*": "=OK|CANCELLATION_REQUESTED"},
            NAMED,
            source=QUEUE,
            sandbox="200 {status}",
        ),
        Fact(
            "cancelled result", (499,), {"detail*": "string", "error_type*": "=client_cancelled"}, NAMED, source=QUEUE
        ),
        Fact(
            "status stream",
            (200,),
            {"status": "=IN_QUEUE|IN_PROGRESS|COMPLETED", **STATUS, "metrics?": METRICS, **FAILED},
            NAMED,
            events=True,
            source=QUEUE,
        ),
        Fact("status when it is over", (200,), {"status": "=COMPLETED", **ENDED}, NAMED, source=QUEUE),
        Fact("text", (200,), TEXT, CHARGED, source=ROUTER),
        Fact("cancel late", (400,), {"status": "=ALREADY_COMPLETED"}, NAMED, source=QUEUE),
        Fact("stream", (200,), TEXT, (ID,), events=True, source=STREAM),
        Fact("vision", (200,), {"output": "string", "usage*": USAGE, **LIKE_TEXT}, CHARGED, source=ROUTER),
        Fact("cut-out", (200,), {"image": IMAGE}, CHARGED, source=f"{MODELS}/fal-ai/bria/background/remove/api"),
        Fact(
            "background",
            (200,),
            ({"image": IMAGE, "images?": "array|null", "seed?": "integer|null"}, {"images": [IMAGE]}),
            CHARGED,
            source=f"{MODELS}/bria/replace-background/api",
        ),
        Fact("unknown id", (404,), {"status*": "=NOT_FOUND"}, NAMED, source=QUEUE),
        Fact(
            "refused input",
            (422,),
            {"detail": [{"loc": "array", "msg": "string", "type": "string", **MORE_OF_ERROR}]},
            NAMED,
            source=ERRORS,
        ),
        Fact(
            "model that does not exist",
            (200, 400, 404, 422, 500),
            ({"detail": "any", "error_type?": "string"}, {**TEXT, "error": "any"}),
            NAMED,
            source=ROUTER,
            sandbox="404 {detail}",
        ),
    )
}
