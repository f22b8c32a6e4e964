"""Reads fal's HTTP answers: bodies, fields, errors, and when to retry.

Nothing here sends. fal documents the shapes only in part (https://fal.ai/docs/documentation/model-apis/errors):
`detail` is a text, a list of field errors, or missing; errors of a request carry `error_type`; a request that is not
known is `{"status": "NOT_FOUND"}`. So each field is passed on when it is of the kind that fal's documents promise,
else as unknown, and what a caller gets is always of the shapes in `results.py`. Whether to send again is decided in
`transport.py`.
"""

from __future__ import annotations

import email.utils
import json
import re
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
    BadOutput,
    BalanceExhausted,
    Cancelled,
    DeadlineExceeded,
    EndpointGone,
    FalError,
    FalUnavailable,
    JobFailed,
    ModelRejected,
    NotFound,
    NotReady,
    RateLimited,
)
from services.fal.redaction import shown

if TYPE_CHECKING:
    from services.fal.results import Usage

REQUEST_ID = r"[A-Za-z0-9_-]{1,128}"
"""What a request id may be made of, to stand in a URL; fal's are UUIDs."""
_RETIRED = r"\b(?:deprecated|retired|discontinued|removed|gone|no longer \w+)\b"
_OTHER_INPUT = r"\b(?:parameter|field|argument|option|input)s?\b"
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""An answer in JSON; it may hold a picture as a data URI."""
MAX_FILE_BYTES = 50 * 1024 * 1024
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""One event of a stream; those of a text hold all of it so far."""
_PIECE_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_NOT_PACKED = ("", "identity", "none", "aws-chunked")
"""What a `Content-Encoding` says of a body that is as it is: stores keep the last one of how a file was uploaded."""
MAX_AMOUNT = 1e9
"""Of units or US dollars in one answer: more is no bill."""
MAX_DEPTH = 64
"""How deep an answer's lists and objects may be nested; fal's are three or four deep. Python's own reader overflows
at a
thousand, and other programs much earlier."""
_TRANSIENT_4XX = (408, 409)
_JOB_STAGES = ("status", "result", "cancel")
_OPENING_STAGES = ("submit", "stream")
"""What starts a job at fal: only the answer to that can say that an endpoint is gone."""
_BILLED_HINT = (
    "It was not sent again, since fal may be running and billing it: look at https://fal.ai/dashboard/requests "
    "before you repeat the call."
)
_UNKNOWN = "The outcome of the submit is unknown."
_CANCELLED_HINT = "fal was told to cancel its job. "
_RETRY_HINT = "Try again in a moment; https://status.fal.ai tells about outages."


def json_of(data: bytes | str) -> Any:
    """JSON of a depth that every program can read and write. Raises ValueError for everything else."""
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        if not (level := [item for one in level for item in _items_of(one)]):
            return value
    raise ValueError("it is nested too deeply")


def _items_of(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


class Answer(NamedTuple):
    """One HTTP answer, whichever library brought it."""

    status: int
    headers: Mapping[str, str]
    """Header names in lower case."""
    body: bytes
    stage: str
    """What was asked: submit, status, result, cancel, stream, storage, photokit or download."""
    endpoint: str = ""
    """The endpoint that was to start a job."""

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-fal-request-id")

    @property
    def billable_units(self) -> float | None:
        try:
            return as_amount(float(self.headers["x-fal-billable-units"]))
        except (KeyError, ValueError):
            return None

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; raises BadOutput when it is none."""
        try:
            value = json_of(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise BadOutput(
                f"fal answered the {self.stage} request with something that is not a JSON object.",
                status_code=self.status,
                request_id=self.request_id,
                hint=_RETRY_HINT,
            )
        return value


def usable_id(request_id: object) -> str | None:
    """A request id that can stand in a URL."""
    return request_id if isinstance(request_id, str) and re.fullmatch(REQUEST_ID, request_id) else None


def error_of(answer: Answer) -> FalError:
    """The error that an answer of status 300 or more stands for."""
    body = _body_object(answer)
    detail = body.get("detail")
    text = _text(answer, body)
    common: dict[str, Any] = {
        "status_code": answer.status,
        "request_id": as_text(body.get("request_id")) or answer.request_id,
        "detail": detail if isinstance(detail, list | dict) else None,
        "said": text,
        "billable_units": answer.billable_units,
    }
    if 300 <= answer.status < 400:
        return FalUnavailable(
            f"fal answered the {answer.stage} request with a redirect, which is not followed: it could carry "
            "the key elsewhere.",
            retryable=False,
            **common,
        )
    if answer.status in _KNOWN:
        return _KNOWN[answer.status](answer, text, common)
    if answer.status >= 500 or answer.status in _TRANSIENT_4XX:
        return FalUnavailable(f"fal is not available: {text}.", hint=_RETRY_HINT, **common)
    return _refused(answer, text, common)


def _refused(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    if common["detail"] is None and _says_retired(text, answer):
        return _gone(answer, text, common)
    return ModelRejected(f"fal refused the request: {text}.", hint="Correct the input named there.", **common)


def _unauthorized(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    return AuthError(
        f"fal did not accept the key: {text}.",
        hint="Check FAL_KEY against https://fal.ai/dashboard/keys.",
        **common,
    )


def _forbidden(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    if re.search(r"balance|top up|billing", text, re.IGNORECASE):
        return BalanceExhausted(
            f"The fal account has no balance left: {text}.",
            hint="Top up at https://fal.ai/dashboard/billing.",
            **common,
        )
    return AuthError(
        f"fal did not allow this: {text}.",
        hint="The key needs the API scope; make one at https://fal.ai/dashboard/keys.",
        **common,
    )


def _not_found(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    if answer.stage in _OPENING_STAGES:
        return _gone(answer, text, common)
    if answer.stage in _JOB_STAGES:
        return NotFound(
            "fal does not know this request, or its result has expired.",
            hint="Check the request id; fal keeps results for a limited time only.",
            **common,
        )
    return NotFound(f"Not found: {text}.", **common)


def _gone(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    if answer.stage in _JOB_STAGES:
        return NotFound("fal no longer knows this request, or its result has expired.", **common)
    if answer.stage not in _OPENING_STAGES:
        return NotFound(f"No longer there: {text}.", **common)
    return EndpointGone(f"fal no longer offers this endpoint: {text}.", **common)


def _bad_request(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    if answer.stage == "result" and "in progress" in text.lower():
        return NotReady("The job is not finished yet.", hint="Ask again later, or wait for its webhook.", **common)
    return _refused(answer, text, common)


def _rate_limited(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    return RateLimited(
        f"fal is limiting the rate: {text}.",
        hint="Send fewer requests at once (FAL_MAX_CONCURRENCY) or try again later.",
        **common,
    )


def _client_closed(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    return Cancelled(f"The job was cancelled at fal: {text}.", **common)


def _gateway_timeout(answer: Answer, text: str, common: dict[str, Any]) -> FalError:
    if answer.headers.get("x-fal-request-timeout-type") == "user":
        return DeadlineExceeded(
            "fal could not start the job before the call's deadline.",
            hint="Raise --timeout or FAL_TIMEOUT_S when fal needs longer.",
            **common,
        )
    return FalUnavailable(f"fal is not available: {text}.", hint=_RETRY_HINT, **common)


_KNOWN = {
    400: _bad_request,
    401: _unauthorized,
    403: _forbidden,
    404: _not_found,
    410: _gone,
    429: _rate_limited,
    499: _client_closed,
    504: _gateway_timeout,
}


def job_error(status: Mapping[str, Any], request_id: str) -> FalError:
    """The error of a job whose COMPLETED status carries `error`."""
    text, kind = str(status.get("error")), str(status.get("error_type") or "")
    if kind == "client_cancelled":
        return Cancelled("The job was cancelled at fal.", request_id=request_id)
    return JobFailed(
        f"The job failed at fal: {text}{f' ({kind})' if kind else ''}.",
        request_id=request_id,
        said=text,
        retryable=kind.startswith("runner_") or kind in ("internal_error", "startup_timeout", "request_timeout"),
    )


def _says_retired(text: str, answer: Answer) -> bool:
    """Whether the reason of a refused submit names the endpoint, and no input of it, as retired."""
    if answer.stage not in _OPENING_STAGES or re.search(_OTHER_INPUT, text, re.IGNORECASE):
        return False
    named = [re.escape(name) for name in (answer.endpoint, answer.endpoint.rpartition("/")[0]) if "/" in name]
    named.append(r"\b(?:this|the) (?:endpoint|application|app)\b")
    return bool(re.search(rf"(?:{'|'.join(named)})[^.;]{{0,60}}?{_RETIRED}", text, re.IGNORECASE))


def ambiguous(
    why: str, request_id: str | None, *, status_code: int | None = None, cancelled: bool = False
) -> AmbiguousSubmit:
    """The submit was sent, and whether fal took it is not known; `cancelled`: fal was told to stop its job."""
    return AmbiguousSubmit(
        f"{why.removesuffix(_UNKNOWN).rstrip()} {_UNKNOWN}",
        request_id=request_id,
        status_code=status_code,
        hint=f"{_CANCELLED_HINT if cancelled else ''}{_BILLED_HINT}",
    )


def may_have_started(answer: Answer) -> bool:
    """Whether fal may run a job although it answered the request for it with an error.

    5xx, 408 and 409 come from whatever stands between us and the queue as well as from the queue, before and after
    the job was taken. A 429, and a 503 that says when to come back, are refusals: fal's documents have them repeated.
    So is a start deadline that passed. All other answers of 4xx refuse what was asked.
    """
    if answer.headers.get("x-fal-request-timeout-type") == "user":
        return False
    if answer.status == 503 and asks_for_retry(answer):
        return False
    return answer.status >= 500 or answer.status in _TRANSIENT_4XX


def error_of_start(answer: Answer) -> FalError:
    """`error_of` a request for a job; AmbiguousSubmit when the job may run, and no id tells how to cancel it."""
    error = error_of(answer)
    if not may_have_started(answer):
        return error
    return ambiguous(str(error.args[0]), error.request_id, status_code=error.status_code)


def http_date(value: str) -> float | None:
    """The Unix time of a date as HTTP headers write it, to the second; None if it is not one."""
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None


def retry_after_s(answer: Answer) -> float | None:
    """Seconds that the answer asks to wait, from `Retry-After` as a number or a date; None without one."""
    value = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    if (at := http_date(value)) is None:
        return None
    # By fal's own clock if it tells the time: ours may be wrong.
    now = http_date(answer.headers.get("date", ""))
    return max(0.0, at - (time.time() if now is None else now))


def asks_for_retry(answer: Answer) -> bool:
    """Whether fal itself says that sending the same again is safe and can help."""
    flagged = answer.headers.get("x-fal-needs-retry", "") or answer.headers.get("x-fal-retryable", "")
    return flagged.lower() in ("1", "true") or retry_after_s(answer) is not None


def _body_object(answer: Answer) -> dict[str, Any]:
    try:
        body = json_of(answer.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {"detail": body}


def _text(answer: Answer, body: Mapping[str, Any]) -> str:
    """fal's reason in one line."""
    said = body.get("detail") or body.get("message") or body.get("error") or body.get("status")
    if isinstance(said, list):
        said = "; ".join(_field_error(item) for item in said[:5])
    if not said:
        return f"status {answer.status}"
    kind = body.get("error_type")
    return f"{shown(said, 1000).rstrip('.')} (status {answer.status}{f', {kind}' if kind else ''})"


def _field_error(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    loc = item.get("loc")
    where = ".".join(str(part) for part in (loc if isinstance(loc, list) else [loc]) if part not in ("body", None))
    said = str(item.get("msg") or item.get("type") or "refused")
    return f"{where}: {said}" if where else said


# Fields


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def as_number(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Infinity and NaN are none, nor is an integer that no float can hold: JSON has them of any length.
    return value if number and abs(value) <= sys.float_info.max else None  # type: ignore[arg-type,return-value]


def as_amount(value: object) -> float | None:
    """A count or a sum that fal bills. One below 0 would raise a budget, and sums of absurd ones are infinite."""
    number = as_number(value)
    return number if number is not None and 0 <= number <= MAX_AMOUNT else None


def as_whole(value: object) -> int | None:
    number = as_number(value)
    return int(number) if number is not None and number == int(number) else None


_USAGE = {"prompt_tokens": as_whole, "completion_tokens": as_whole, "total_tokens": as_whole, "cost": as_amount}


def usage_of(output: Mapping[str, Any]) -> Usage | None:
    """The tokens and the cost that a model's answer tells."""
    usage = output.get("usage")
    if not isinstance(usage, dict):
        return None
    told = {name: value for name, value in usage.items() if name not in _USAGE or _USAGE[name](value) is not None}
    return cast("Usage", told)


def from_sandbox(output: Mapping[str, Any]) -> dict[str, Any]:
    """What results say of an answer that came from the sandbox, not from fal: nothing of one that did not."""
    if output.get("sandbox") is not True:
        return {}
    remarks = output.get("sandbox_remarks")
    known = [remark for remark in remarks if isinstance(remark, str)] if isinstance(remarks, list) else []
    return {"sandbox": True, **({"sandbox_remarks": known} if known else {})}


def job_state(status: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a job whose status was asked for."""
    logs, metrics, error = status.get("logs"), status.get("metrics"), status.get("error")
    return {
        "status": status["status"],
        "queue_position": as_whole(status.get("queue_position")),
        "logs": [line for line in logs if isinstance(line, dict)] if isinstance(logs, list) else None,
        "metrics": metrics if isinstance(metrics, dict) else None,
        "error": (as_text(error) or json.dumps(error)) if error else None,
        "error_type": as_text(status.get("error_type")),
    }


# Bodies: httpx would unpack whatever an answer says it is, several times over, into memory without bound


class CorruptBody(ValueError):
    """The compressed body ended early or was damaged in transit."""


def whole_body(chunks: Iterable[bytes], encoding: str, max_bytes: int | None = None) -> bytes:
    """A body, unpacked. Raises BadOutput when it is too large, CorruptBody."""
    limit = MAX_ANSWER_BYTES if max_bytes is None else max_bytes
    return b"".join(_bounded(unpacked(_bounded(chunks, limit), encoding), limit))


def unpacked(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """`chunks` as they come, unpacked in small pieces. Raises BadOutput for a packing that was not asked for."""
    kinds = [kind for part in encoding.lower().split(",") if (kind := part.strip()) not in _NOT_PACKED]
    if not kinds:
        yield from chunks
    elif kinds in (["gzip"], ["x-gzip"]):
        yield from _gunzipped(chunks)
    else:
        said = ", ".join(kinds)[:40]
        raise BadOutput(f"The answer has the content encoding {said!r}, which was not requested.", retryable=False)


def events_bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The body of an event stream. Raises BadOutput when one event, or one line of it, is too large."""
    size, before = 0, b""
    for chunk in chunks:
        seen = before + chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        ended = seen.rfind(b"\n\n")
        size = size + len(chunk) if ended < 0 else len(seen) - ended - 2
        if size > MAX_EVENT_BYTES:
            raise BadOutput(f"An event of the stream is larger than {_mib(MAX_EVENT_BYTES)}.", retryable=False)
        before = seen[-1:]
        yield chunk


def _bounded(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise BadOutput(f"The answer is larger than {_mib(limit)}.", retryable=False)
        yield chunk


def _gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    unpack, empty = zlib.decompressobj(_GZIP), True
    try:
        for chunk in chunks:
            packed = chunk
            empty = empty and not packed
            while packed:
                if unpack.eof:  # several gzip files in a row are one body
                    unpack = zlib.decompressobj(_GZIP)
                if piece := unpack.decompress(packed, _PIECE_BYTES):
                    yield piece
                packed = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    except zlib.error as error:
        raise CorruptBody(str(error)) from error
    if not (unpack.eof or empty):
        raise CorruptBody("the compressed body ended early")


def _mib(size: int) -> str:
    return f"{size // 1024 // 1024} MiB"
