"""Sends requests and returns the raw answers, within a call and bounded in size.

The client's own transport turns answers into results and errors. Here the answer itself is what is looked at, so it
comes back whole, also when it is a refusal. It goes over the same connections: the same proxies and certificates, the
same deadline, the same stop button. The key goes to fal's own hosts only, and is masked in all that comes back.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import httpx

from services.fal.call import Call, RequestInFlight
from services.fal.certificates import tls_context
from services.fal.connections import NETWORK_ERRORS, Connections
from services.fal.errors import BadOutput, FalError, Unreachable
from services.fal.hosts import is_fal_host, parse
from services.fal.redaction import redact, redacted, redacted_body
from services.fal.responses import CorruptBody, whole_body
from services.fal.settings import Settings

READ_S = 30.0
"""How long a host may be silent."""
MAX_BYTES = 16 * 1024 * 1024
MAX_EVENTS_BYTES = 1024 * 1024
MAX_STREAM_S = 120.0
AGENT = "fal-python-services doctor"


class Raw(NamedTuple):
    """One answer, masked."""

    method: str
    url: str
    sent: Any
    """The JSON that was sent, or None."""
    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def is_events(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def from_sandbox(self) -> bool:
        return "x-fal-sandbox" in self.headers

    def value(self) -> Any:
        """What the body says: JSON, a list of the events of a stream, or None when it is neither."""
        if self.is_events:
            return list(events_in(self.body))
        try:
            return redacted(json.loads(self.body))
        except (ValueError, RecursionError):
            return None


class Asker:
    """Sends requests one after another; close it at the end."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.key
        self._connections = Connections(tls_context(), keep=1)

    def close(self) -> None:
        self._connections.close()

    def ask(
        self,
        call: Call,
        method: str,
        url: str,
        *,
        body: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        learn_id: Callable[[str], None] | None = None,
    ) -> Raw:
        """The answer to one request, which is sent once. Raises Unreachable, DeadlineExceeded, Cancelled.

        `learn_id` marks a request that may start a job: it gets the request id as soon as the answer names it.
        """
        try:
            target = parse(url)
        except ValueError as error:
            raise BadOutput(f"fal named an address that cannot be used: {error}.", retryable=False) from error
        call.check()
        given = {"User-Agent": AGENT, "Accept-Encoding": "identity", "Authorization": f"Key {self._key}"}
        given |= headers or {}
        if not (is_fal_host(target.host) and target.is_plain_https):
            del given["Authorization"]
        content: dict[str, Any] = {"content": data} if data is not None else {} if body is None else {"json": body}
        timeout = httpx.Timeout(READ_S).as_dict()
        request = httpx.Request(method, target.whole, headers=given, extensions={"timeout": timeout}, **content)
        public_only = not is_fal_host(target.host)
        sent = RequestInFlight(call, target.host, paid=learn_id is not None, public_only=public_only)
        try:
            with self._opened(call, request, sent) as response:
                answered = {name.lower(): redact(value) for name, value in response.headers.items()}
                if learn_id is not None and "x-fal-request-id" in answered:
                    learn_id(answered["x-fal-request-id"])
                raw = Raw(method, redact(target.whole), redacted(body), response.status_code, answered, b"")
                return raw._replace(body=redacted_body(_body(response, raw)))
        except (*NETWORK_ERRORS, CorruptBody) as error:
            call.check()
            raise Unreachable(f"No complete answer came from {target.host} ({type(error).__name__}).") from error

    @contextlib.contextmanager
    def _opened(self, call: Call, request: httpx.Request, sent: RequestInFlight) -> Iterator[httpx.Response]:
        with call.sending(sent), self._connections.one(sent) as connection:
            response = connection.send(request)
            with contextlib.closing(cast("httpx.SyncByteStream", response.stream)):
                yield response


def _body(response: httpx.Response, raw: Raw) -> bytes:
    stream = cast("httpx.SyncByteStream", response.stream)
    if not raw.is_events:
        return whole_body(stream, response.headers.get("content-encoding", ""), MAX_BYTES)
    until, text, read = time.monotonic() + MAX_STREAM_S, bytearray(), 0
    for chunk in stream:
        text += chunk
        if len(text) > MAX_EVENTS_BYTES:
            raise BadOutput(f"The stream is longer than {MAX_EVENTS_BYTES} bytes.", retryable=False)
        whole = max(text.rfind(b"\n\n"), text.rfind(b"\r\n\r\n"), read)
        last = any(map(is_last_event, events_in(bytes(text[read:whole]))))
        read = whole
        # Comments keep the connection from being silent, so the clock is asked too.
        if last or time.monotonic() > until:
            break
    return bytes(text)


def is_last_event(event: Any) -> bool:
    """Whether nothing follows an event of a status stream, or of a text."""
    return isinstance(event, dict) and (event.get("status") == "COMPLETED" or event.get("partial") is False)


def events_in(text: bytes) -> Iterator[Any]:
    """The JSON of the events of a stream that are whole."""
    for block in text.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
        with contextlib.suppress(ValueError, RecursionError):
            if lines:
                yield redacted(json.loads(b"\n".join(lines)))


def reason_of(error: FalError) -> str:
    """Why an answer was not seen, in a few words."""
    return f"{error.error_type}: {error.args[0]}"
