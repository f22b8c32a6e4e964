"""fal-client, made safe: its submits, uploads and authentication over our transport.

`Wire` is what the rest of the library speaks to fal with. What fal-client lacks (the status stream, headers of
answers, cancel with an outcome) is asked here directly, through the same transport. What an answer means for a
job is `jobs.py`'s.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from services.fal.answers import Answer
from services.fal.call import Call, current_call
from services.fal.errors import BadOutput, FalError, InvalidInput
from services.fal.hosts import is_run_host
from services.fal.settings import Settings
from services.fal.transport import FalTransport, ambiguous


def _wrong_fal_client() -> InvalidInput:
    """An older requirements file may still ask for fal-client 0.5, which has other insides."""
    import importlib.metadata  # slow to import, and needed here only

    try:
        found = f"fal-client {importlib.metadata.version('fal-client')} is installed"
    except importlib.metadata.PackageNotFoundError:
        found = "fal-client is not installed"
    return InvalidInput(
        f"{found}, and this library needs version 1.0.3 or a later 1.x.",
        hint='Run pip install "fal-client>=1.0.3,<2".',
    )


try:
    from fal_client import SyncClient, version_tuple
    from fal_client.client import (
        MULTIPART_MAX_CONCURRENCY,
        USER_AGENT,
        CDNToken,
        CDNTokenManager,
        SyncRequestHandle,
    )
except ImportError as error:
    raise _wrong_fal_client() from error

POLL_ATTEMPTS = 8
"""Tries of one poll or result: a job that runs is worth more patience than other requests, about 15 s of it."""
POLL_READ_S = 30.0
"""How long one poll may be silent before it is asked again."""
STREAM_SILENCE_S = 25.0
"""fal sends a comment every 15 s on a status stream: longer silence means that it is broken."""

DRAIN_S = 0.05
"""How long to wait for the end of a stream whose last event has come."""


class Wire:
    """One client's way to fal: one TLS context, one set of connections, one upload token."""

    def __init__(self, settings: Settings) -> None:
        # (0, 0, …) is a checkout whose version nobody knows.
        if (0, 0) < version_tuple[:2] < (1, 0) or (1, 0, 0) <= version_tuple[:3] < (1, 0, 3):
            raise _wrong_fal_client()
        self.tls = _tls_context()
        self._transport = FalTransport(self.tls, keep=max(settings.max_concurrency, MULTIPART_MAX_CONCURRENCY))
        self._client = _SafeClient(settings.key, self._transport)
        self._headers = {**_headers(f"Key {settings.key}"), "Accept-Encoding": "gzip, deflate"}

    def close(self) -> None:
        self._transport.close()

    def submit(
        self,
        endpoint: str,
        arguments: Mapping[str, Any],
        *,
        webhook_url: str | None,
        start_within_s: float | None,
    ) -> SyncRequestHandle:
        """Submit one job, once. Raises AmbiguousSubmit when fal may have taken it without saying so."""
        headers = {} if start_within_s is None else _start_deadline(start_within_s)
        try:
            return self._client.submit(endpoint, dict(arguments), webhook_url=webhook_url, headers=headers)
        except KeyError as error:
            raise ambiguous(f"fal's answer to the submit has no {error}.", None) from error

    def handle(self, endpoint: str, request_id: str) -> SyncRequestHandle:
        """The URLs of a job that was submitted earlier."""
        return self._client.get_handle(endpoint, request_id)

    def ask(self, method: str, url: str, stage: str, *, attempts: int = POLL_ATTEMPTS) -> Answer:
        """One request about a job. Raises FalError for every answer that is not a success."""
        response = self._send(httpx.Request(method, url, headers=self._headers), stage, attempts, POLL_READ_S)
        answer: Answer = response.extensions["answer"]
        return answer

    @contextlib.contextmanager
    def events(
        self, method: str, url: str, stage: str, *, body: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[str | None, Iterator[dict[str, Any]]]]:
        """A server-sent event stream: its request id and its JSON objects. It is opened once, never again."""
        silence_s = STREAM_SILENCE_S if method == "GET" else None
        headers = {**self._headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        request = httpx.Request(method, url, headers=headers, json=body)
        with contextlib.closing(self._send(request, stage, 1, silence_s)) as response:
            events = _json_events(response)
            yield response.headers.get("x-fal-request-id"), events
            _drain(response, events)

    def _send(self, request: httpx.Request, stage: str, attempts: int, silence_s: float | None) -> httpx.Response:
        """Without fal-client or an httpx.Client above the transport: they would only add time to every poll."""
        request.extensions = {"stage": stage, "attempts": attempts, "timeout": httpx.Timeout(silence_s).as_dict()}
        return self._transport.handle_request(request)

    def upload(self, data: Any, content_type: str, file_name: str) -> str:
        """Store bytes at fal and return their URL; large ones go up in parts. Costs nothing, so it is repeated."""
        try:
            url: object = self._client.upload(data, content_type, file_name=file_name)
        except FalError:
            raise
        except (KeyError, ValueError, TypeError) as error:
            raise BadOutput(f"fal's storage gave an answer that cannot be used ({type(error).__name__}).") from error
        if not isinstance(url, str) or not url.startswith("https://"):
            raise BadOutput("fal's storage gave no URL for the file.")
        return url


def _drain(response: httpx.Response, events: Iterator[dict[str, Any]]) -> None:
    """Read a stream to its end after its last event, so that its connection can be used again."""
    response.extensions["exchange"].patience_s = DRAIN_S
    with contextlib.suppress(FalError):
        for _ in events:
            pass


def _tls_context() -> ssl.SSLContext:
    """The machine's trusted certificates: httpx's rule (SSL_CERT_FILE), and requests' variable beside it."""
    try:
        context = httpx.create_ssl_context()
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if bundle and bundle != os.environ.get("SSL_CERT_FILE") and os.path.isfile(bundle):
            context.load_verify_locations(bundle)
    except OSError as error:
        raise InvalidInput(
            f"The trusted certificates cannot be read: {error.strerror or error}. "
            "Check SSL_CERT_FILE, SSL_CERT_DIR and REQUESTS_CA_BUNDLE."
        ) from error
    return context


def _json_events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    try:
        for event in EventSource(response).iter_sse():
            value = json.loads(event.data)
            if not isinstance(value, dict):
                raise BadOutput("fal's stream sent something that is not a JSON object.", retryable=False)
            yield value
    except (SSEError, ValueError, RecursionError) as error:
        if isinstance(error, FalError):
            raise
        raise BadOutput(
            "fal answered a stream request with something that is not a stream of JSON.", retryable=False
        ) from error


def _headers(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization, "User-Agent": USER_AGENT}


def _start_deadline(seconds: float) -> dict[str, str]:
    """Ask fal not to start the job later than that: nobody would be waiting for it any more."""
    return {
        "X-Fal-Request-Start-Timeout": f"{max(seconds, 0.2):.1f}",
        "X-Fal-Request-Timeout": f"{max(seconds, 1.1):.1f}",
    }


class _SafeClient(SyncClient):
    """fal-client's SyncClient with our transport under every request that it makes."""

    def __init__(self, key: str, transport: FalTransport) -> None:
        super().__init__(key=key)
        http = _HttpClient(transport, _headers(f"Key {key}"), self.default_timeout)
        tokens = _TokenManager(self._auth, http)
        # The dataclass is frozen; its cached properties look here first.
        self.__dict__.update(_client=http, _token_manager=tokens, _transport=transport)

    def _get_cdn_client(self) -> httpx.Client:
        token = self._token_manager.get_token()
        transport = _WithinCall(self.__dict__["_transport"], current_call())
        headers = _headers(f"{token.token_type} {token.token}")
        return httpx.Client(transport=transport, headers=headers, timeout=self.default_timeout)


class _HttpClient(httpx.Client):
    """httpx's client for fal-client, without what fal has no use for: cookies, redirects, authentication flows."""

    def __init__(self, transport: httpx.BaseTransport, headers: Mapping[str, str], timeout_s: float) -> None:
        super().__init__(transport=transport, headers=headers, timeout=timeout_s)
        self._to_fal = transport

    def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        response = self._to_fal.handle_request(request)
        response.request = request
        return response


class _TokenManager(CDNTokenManager):
    """Upload tokens, asked for over our transport instead of a client of their own."""

    def __init__(self, auth: Any, http: httpx.Client) -> None:
        super().__init__(auth)
        self._http = http

    def _refresh_token(self) -> CDNToken:
        data = self._http.post(self._url, json={}, headers=self._headers).json()
        return CDNToken(
            token=data["token"],
            token_type=data["token_type"],
            base_upload_url=data["base_url"],
            expires_at=datetime.fromisoformat(data["expires_at"]),
        )


class _WithinCall(httpx.BaseTransport):
    """Carries the call into the threads in which fal-client uploads the parts of a large file."""

    def __init__(self, transport: FalTransport, call: Call) -> None:
        self._transport = transport
        self._call = call

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._call.resumed():
            return self._transport.handle_request(request)


def own_url(named: object, built: str) -> str:
    """The URL that fal's answer names for a job, or the one we build when it leads away from fal or is none."""
    if named == built or not isinstance(named, str):
        return built
    try:
        url = httpx.URL(named)
    except httpx.InvalidURL:
        return built
    return named if url.scheme == "https" and is_run_host(url.host) else built
