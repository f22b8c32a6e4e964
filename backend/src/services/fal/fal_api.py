"""fal-client, made safe: its submits, uploads and authentication over our transport.

`FalApi` is what the rest of the library speaks to fal with; every method takes the call that it works for. fal-client
has no status stream with log lines as they come, gives no headers of answers, and no outcome of a cancel: those are
asked for here directly, through the same transport. What an answer means for a job is decided in `jobs.py`.

This module, and `transport.py` and `connections.py` below it, stand on httpx and fal-client, whose imports take a
tenth of a second: it is imported at a client's first call.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import cached_property
from types import MappingProxyType
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from services.fal.call import CLEANUP_S, PAUSED_S, Call, Slots
from services.fal.errors import BadOutput, FalError, InvalidInput, NotFound, ServiceError
from services.fal.hosts import WebUrl, fault_of, is_fal_host, parse
from services.fal.log import logger, outline
from services.fal.redaction import MASK, redacted, remember, settled
from services.fal.responses import MAX_FILE_BYTES, Answer, ambiguous, json_of
from services.fal.settings import Settings
from services.fal.transport import MAX_ATTEMPTS, PLACE_OF_THE_KEY, Transport


def _fault_of_fal_client(error: ImportError) -> Exception:
    """An older requirements file may still ask for fal-client 0.5, which has other insides."""
    import importlib.metadata  # slow to import, and needed here only

    version = importlib.metadata.version("fal-client")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) >= LEAST_FAL_CLIENT:
        return error
    return InvalidInput(
        f"fal-client {version} is installed, and this library needs version 1.0.3 or a later 1.x.",
        hint='Run pip install "fal-client>=1.0.3,<2".',
    )


LEAST_FAL_CLIENT = (1, 0, 3)

try:
    from fal_client import StorageSettings, SyncClient, version_tuple
    from fal_client.client import (
        MULTIPART_MAX_CONCURRENCY,
        USER_AGENT,
        CDNToken,
        CDNTokenManager,
        SyncRequestHandle,
    )
except ModuleNotFoundError:
    raise  # Which package is missing is told where the call ends.
except ImportError as error:
    raise _fault_of_fal_client(error) from error

# Made once: httpx would check and encode each of them again at every request.
HEADERS = httpx.Headers({"Authorization": PLACE_OF_THE_KEY, "User-Agent": USER_AGENT, "Accept-Encoding": "gzip"})
STREAM_HEADERS = httpx.Headers(
    {**HEADERS, "Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
)
POLL_ATTEMPTS = 8
"""Tries of one poll or result: a job that runs is worth more patience than other requests, about 15 s of it."""
POLL_READ_S = 30.0
"""How long one poll may be silent before it is asked again."""
SILENCE_S = 30.0
"""How long a download may be silent before it is asked for again."""
STREAM_SILENCE_S = 25.0
"""fal sends a comment every 15 s on a status stream
(https://fal.ai/docs/documentation/model-apis/inference/queue): longer silence means that it is broken."""

DRAIN_S = 0.05
"""How long to wait for the end of a stream whose last event has come."""


class FalApi:
    """One client's way to fal: one TLS context, one set of connections, one upload token."""

    def __init__(self, settings: Settings, tls: ssl.SSLContext) -> None:
        # (0, 0, …) is a checkout whose version nobody knows.
        if version_tuple[:2] > (0, 0) and version_tuple[:3] < LEAST_FAL_CLIENT:
            raise _fault_of_fal_client(ImportError())
        keep = max(settings.max_concurrency, MULTIPART_MAX_CONCURRENCY)
        self._transport = Transport(tls, keep, settings.key, self._withdraw)
        self._token = _UploadToken()
        self._http = _HttpClient()
        self._treatment = _treatment(settings)
        self._priority = (
            {} if settings.queue_priority == "normal" else {"X-Fal-Queue-Priority": settings.queue_priority}
        )
        self._lifecycle = None if settings.expires_in_s is None else StorageSettings(expires_in=settings.expires_in_s)

    def close(self) -> None:
        self._transport.close()

    def _client(self, call: Call) -> _ClientOfCall:
        bound = _BoundTransport(self._transport, call)
        return _ClientOfCall(self._http.bound_to(bound), bound, self._token)

    def submit(
        self,
        call: Call,
        endpoint: str,
        arguments: Mapping[str, Any],
        *,
        webhook_url: str | None,
        start_within_s: float | None,
    ) -> SyncRequestHandle:
        """Submit one job, once. Raises AmbiguousSubmit when fal may have taken it without saying so."""
        headers = {**self._treatment, **self._priority}
        headers |= {} if start_within_s is None else _start_deadline(start_within_s)
        try:
            return self._client(call).submit(endpoint, dict(arguments), webhook_url=webhook_url, headers=headers)
        except KeyError as error:
            raise ambiguous(f"fal's answer to the submit has no {error}.", None) from error

    def handle(self, endpoint: str, request_id: str) -> SyncRequestHandle:
        """The URLs of a job that was submitted earlier."""
        return SyncRequestHandle.from_request_id(self._http, endpoint, request_id)

    def cancel(self, call: Call, cancel_url: str) -> str:
        """Ask fal to stop a job: "cancelled", "requested", "too_late" or "not_found"."""
        try:
            answer = self.ask(call, "PUT", cancel_url, "cancel")
        except NotFound:
            return "not_found"
        except ServiceError as error:
            if error.status_code == 400 and "ALREADY_COMPLETED" in str(error):
                return "too_late"
            raise
        return "requested" if answer.status == 202 else "cancelled"

    def abandon(self, request_id: str, cancel_url: str) -> str | None:
        """`cancel` for a job whose call is over, as well as the moment allows; None when fal could not be told."""
        while True:
            began = time.monotonic()
            try:
                outcome = self.cancel(Call(CLEANUP_S), cancel_url)
            except FalError as error:
                if time.monotonic() - began > CLEANUP_S + PAUSED_S:
                    continue  # the process was paused meanwhile: its moment begins again
                logger.warning("request %s could not be cancelled and may be billed: %s", request_id, outline(error))
                return None
            logger.info("cancelling %s: %s", request_id, outcome)
            return outcome

    def _withdraw(self, endpoint: str, request_id: str) -> str | None:
        return self.abandon(request_id, self.handle(endpoint, request_id).cancel_url)

    def ask(self, call: Call, method: str, url: str, stage: str, *, attempts: int | None = None) -> Answer:
        """One request about a job. Raises FalError for every answer that is not a success."""
        request = httpx.Request(method, url, headers=HEADERS)
        return _answer_of(self._send(call, request, stage, attempts or POLL_ATTEMPTS, POLL_READ_S))

    def download(self, call: Call, url: WebUrl) -> bytes:
        """A file from a public address, without the key; repeated like everything that costs nothing."""
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        request = httpx.Request("GET", url.whole, headers=headers)
        more = {"max_bytes": MAX_FILE_BYTES, "public_only": True}
        return _answer_of(self._send(call, request, "download", MAX_ATTEMPTS, SILENCE_S, more)).body

    def post_once(self, call: Call, url: WebUrl, body: Mapping[str, Any], stage: str) -> Answer:
        """A request that may cost money, to a service of the user's own; the key goes along to fal's hosts only."""
        more = self._treatment if is_fal_host(url.host) else {}
        request = httpx.Request("POST", url.whole, headers={**HEADERS, **more}, json=body)
        return _answer_of(self._send(call, request, stage, 1, None, {"paid": True, "public_only": False}))

    @contextlib.contextmanager
    def events(
        self, call: Call, method: str, url: str, stage: str, *, body: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[str | None, Iterator[dict[str, Any]]]]:
        """A server-sent event stream: its request id and its JSON objects. It is opened once, never again."""
        silence_s = STREAM_SILENCE_S if method == "GET" else None
        headers = STREAM_HEADERS if method == "GET" else httpx.Headers({**STREAM_HEADERS, **self._treatment})
        request = httpx.Request(method, url, headers=headers, json=body)
        with contextlib.closing(self._send(call, request, stage, 1, silence_s, {"events": True})) as response:
            events = _json_events(response)
            yield response.headers.get("x-fal-request-id"), events
            _drain(response, events)

    def _send(
        self,
        call: Call,
        request: httpx.Request,
        stage: str,
        attempts: int,
        silence_s: float | None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> httpx.Response:
        """Without fal-client or an httpx.Client above the transport: they would only add time to every poll."""
        timeout = httpx.Timeout(silence_s).as_dict()
        request.extensions = {"stage": stage, "attempts": attempts, "timeout": timeout, **more}
        return self._transport.send(call, request)

    def upload(self, call: Call, data: Any, content_type: str, file_name: str) -> str:
        """Store bytes at fal and return their URL; large ones go up in parts. Costs nothing, so it is repeated."""
        try:
            url: object = self._client(call).upload(data, content_type, file_name=file_name, lifecycle=self._lifecycle)
        except FalError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, httpx.InvalidURL) as error:
            raise BadOutput(f"fal's storage sent an answer that cannot be read ({type(error).__name__}).") from error
        if not isinstance(url, str) or not url.startswith("https://") or fault_of(url):
            raise BadOutput("fal's storage returned no valid URL for the file.")
        return url


def _answer_of(response: httpx.Response) -> Answer:
    answer: Answer = response.extensions["answer"]
    return answer


def _drain(response: httpx.Response, events: Iterator[dict[str, Any]]) -> None:
    """Read a stream to its end after its last event, so that its connection can be used again, but not for long."""
    response.extensions["request"].until = time.monotonic() + DRAIN_S
    with contextlib.suppress(FalError):
        for _ in events:
            pass


_SIGNS_OF_LIFE = ("ping", "heartbeat", "keepalive", "keep-alive")
"""Events of whoever passes a stream on; what they hold is no part of it."""


def _json_events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    try:
        for event in EventSource(response).iter_sse():
            if not event.data or event.event in _SIGNS_OF_LIFE:
                continue  # a lone `retry:` or `id:` is no event
            value = json_of(event.data)
            if not isinstance(value, dict):
                raise BadOutput("fal's stream sent something that is not a JSON object.", retryable=False)
            if isinstance(text := value.get("output"), str) and value.get("partial") is not False:
                # A key that the model repeats would come out in two halves, neither of which is one.
                value["output"] = settled(text)
            yield redacted(value)
    except (SSEError, ValueError) as error:
        if isinstance(error, FalError):
            raise
        raise BadOutput(
            "fal answered a stream request with something other than a stream of JSON.", retryable=False
        ) from error


def _treatment(settings: Settings) -> dict[str, str]:
    """How fal is to treat what a job takes and makes (https://fal.ai/docs/documentation/model-apis/common-parameters,
    https://fal.ai/docs/documentation/model-apis/data-retention)."""
    headers = {} if settings.store_io else {"X-Fal-Store-IO": "0"}
    if settings.expires_in_s is not None:
        preference = json.dumps({"expiration_duration_seconds": settings.expires_in_s})
        headers["X-Fal-Object-Lifecycle-Preference"] = preference
    return headers


def _start_deadline(seconds: float) -> dict[str, str]:
    """Ask fal not to start the job later than that: nobody would be waiting for it any more."""
    return {
        "X-Fal-Request-Start-Timeout": f"{max(seconds, 0.2):.1f}",
        "X-Fal-Request-Timeout": f"{max(seconds, 1.1):.1f}",
    }


class _BoundTransport(httpx.BaseTransport):
    """Our transport for one call: what fal-client sends, also in the threads that upload parts, is part of it."""

    def __init__(self, transport: Transport, call: Call) -> None:
        self.call = call
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._transport.send(self.call, request)


class _UploadToken:
    """The token for uploads, which a client's calls share."""

    def __init__(self) -> None:
        self.value: CDNToken | None = None
        self.renewing = Slots(1)


class _ClientOfCall(SyncClient):
    """fal-client's SyncClient for one call, over our transport; it does not know the key.

    It holds no connection, so one per call costs little. `_client`, `_token_manager` and `_get_cdn_client` are where
    SyncClient gets what it sends with; a test pins them.
    """

    http: httpx.Client
    bound: _BoundTransport
    token: _UploadToken

    def __init__(self, http: httpx.Client, bound: _BoundTransport, token: _UploadToken) -> None:
        super().__init__(key=MASK)
        # SyncClient is a frozen dataclass; making another one of it takes half a millisecond at every start.
        object.__setattr__(self, "http", http)
        object.__setattr__(self, "bound", bound)
        object.__setattr__(self, "token", token)

    @property
    def _client(self) -> httpx.Client:
        return self.http

    @cached_property
    def _token_manager(self) -> CDNTokenManager:
        return _TokenManager(self._auth, self._client, self.bound.call, self.token)

    def _get_cdn_client(self) -> httpx.Client:
        token = self._token_manager.get_token()
        headers = {"Authorization": f"{token.token_type} {token.token}", "User-Agent": USER_AGENT}
        return httpx.Client(transport=self.bound, headers=headers, timeout=self.default_timeout)


class _HttpClient(httpx.Client):
    """httpx's client for fal-client, without what fal has no use for: cookies, redirects, authentication flows."""

    _bound: _BoundTransport | None = None

    def __init__(self) -> None:
        super().__init__(transport=httpx.BaseTransport(), headers=HEADERS)

    def bound_to(self, bound: _BoundTransport) -> _HttpClient:
        """One for a call. A copy: making it anew is a fifteenth of what a call costs, and nothing in it changes."""
        client = copy.copy(self)
        client._bound = bound
        return client

    def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        assert self._bound is not None
        response = self._bound.handle_request(request)
        response.request = request
        return response


class _TokenManager(CDNTokenManager):
    """Upload tokens, asked for over our transport instead of a client of their own."""

    def __init__(self, auth: Any, http: httpx.Client, call: Call, token: _UploadToken) -> None:
        super().__init__(auth)
        self._http = http
        self._call = call
        self._shared = token

    def get_token(self) -> CDNToken:
        # Not under the manager's own lock, which knows no deadline.
        with self._shared.renewing.one(self._call):
            token = self._shared.value
            if token is None or token.is_expired():
                token = self._shared.value = self._refresh_token()
        return token

    def _refresh_token(self) -> CDNToken:
        """Raises ValueError, KeyError, TypeError for an answer that is no token: `upload` says so."""
        asked = {"tells_secret": True}
        data = json_of(self._http.post(self._url, json={}, headers=self._headers, extensions=asked).content)
        base = parse(str(data["base_url"]))
        if not (base.is_plain_https and is_fal_host(base.host)):
            raise ValueError("files are uploaded to fal's hosts only")
        for name in ("token", "token_type"):
            if not isinstance(data[name], str) or not re.fullmatch(r"[!-~]+", data[name]):
                raise ValueError(f"{name} is not text that can be sent")
        expires_at = datetime.fromisoformat(data["expires_at"])
        return CDNToken(
            token=remember(data["token"]),
            token_type=data["token_type"],
            base_upload_url=base.whole.rstrip("/"),
            expires_at=expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=timezone.utc),
        )
