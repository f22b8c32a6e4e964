"""fal-client, made safe: its submits, uploads and authentication over our transport.

`Wire` is what the rest of the library speaks to fal with. What fal-client lacks (the status stream, headers of
answers, cancel with an outcome) is asked here directly, through the same transport. What an answer means for a
job is `jobs.py`'s.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from services.fal import bodies
from services.fal.answers import Answer, ambiguous, json_of
from services.fal.call import CLEANUP_S, PAUSED_S, Call, cleanup, current_call
from services.fal.certificates import tls_context
from services.fal.errors import BadOutput, FalError, InvalidInput, NotFound, ServiceError
from services.fal.hosts import WebUrl, fault_of, is_fal_host, is_run_host, parse
from services.fal.redaction import MASK, redacted, remember, settled
from services.fal.retries import MAX_ATTEMPTS
from services.fal.settings import Settings
from services.fal.stderr_log import logger, outline
from services.fal.transport import PLACE_OF_THE_KEY, FalTransport


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
    from fal_client import SyncClient, version_tuple
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

HEADERS = MappingProxyType({"Authorization": PLACE_OF_THE_KEY, "User-Agent": USER_AGENT})
POLL_ATTEMPTS = 8
"""Tries of one poll or result: a job that runs is worth more patience than other requests, about 15 s of it."""
POLL_READ_S = 30.0
"""How long one poll may be silent before it is asked again."""
SILENCE_S = 30.0
"""How long a download may be silent before it is asked for again."""
STREAM_SILENCE_S = 25.0
"""fal sends a comment every 15 s on a status stream: longer silence means that it is broken."""

DRAIN_S = 0.05
"""How long to wait for the end of a stream whose last event has come."""


class Wire:
    """One client's way to fal: one TLS context, one set of connections, one upload token."""

    def __init__(self, settings: Settings) -> None:
        # (0, 0, …) is a checkout whose version nobody knows.
        if version_tuple[:2] > (0, 0) and version_tuple[:3] < LEAST_FAL_CLIENT:
            raise _fault_of_fal_client(ImportError())
        keep = max(settings.max_concurrency, MULTIPART_MAX_CONCURRENCY)
        self._transport = FalTransport(tls_context(), keep, settings.key, self._withdraw)
        self._client = _SafeClient(self._transport)

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

    def cancel(self, cancel_url: str) -> str:
        """Ask fal to stop a job: "cancelled", "requested", "too_late" or "not_found"."""
        try:
            answer = self.ask("PUT", cancel_url, "cancel")
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
                with cleanup():
                    outcome = self.cancel(cancel_url)
            except FalError as error:
                if time.monotonic() - began > CLEANUP_S + PAUSED_S:
                    continue  # the process was paused meanwhile: its moment begins again
                logger.warning("request %s could not be cancelled and may be billed: %s", request_id, outline(error))
                return None
            logger.info("cancelling %s: %s", request_id, outcome)
            return outcome

    def _withdraw(self, endpoint: str, request_id: str) -> str | None:
        return self.abandon(request_id, self.handle(endpoint, request_id).cancel_url)

    def ask(self, method: str, url: str, stage: str, *, attempts: int = POLL_ATTEMPTS) -> Answer:
        """One request about a job. Raises FalError for every answer that is not a success."""
        return _answer_of(self._send(httpx.Request(method, url, headers=HEADERS), stage, attempts, POLL_READ_S))

    def download(self, url: WebUrl) -> bytes:
        """A file from a public address, without the key; repeated like everything that costs nothing."""
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        request = httpx.Request("GET", url.whole, headers=headers)
        more = {"max_bytes": bodies.MAX_FILE_BYTES, "public_only": True}
        return _answer_of(self._send(request, "download", MAX_ATTEMPTS, SILENCE_S, more)).body

    def post_once(self, url: WebUrl, body: Mapping[str, Any], stage: str) -> Answer:
        """A request that may cost money, to a service of the user's own; the key goes along to fal's hosts only."""
        request = httpx.Request("POST", url.whole, headers=HEADERS, json=body)
        return _answer_of(self._send(request, stage, 1, None, {"paid": True, "public_only": False}))

    @contextlib.contextmanager
    def events(
        self, method: str, url: str, stage: str, *, body: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[str | None, Iterator[dict[str, Any]]]]:
        """A server-sent event stream: its request id and its JSON objects. It is opened once, never again."""
        silence_s = STREAM_SILENCE_S if method == "GET" else None
        more = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        request = httpx.Request(method, url, headers={**HEADERS, **more}, json=body)
        with contextlib.closing(self._send(request, stage, 1, silence_s, {"events": True})) as response:
            events = _json_events(response)
            yield response.headers.get("x-fal-request-id"), events
            _drain(response, events)

    def _send(
        self,
        request: httpx.Request,
        stage: str,
        attempts: int,
        silence_s: float | None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> httpx.Response:
        """Without fal-client or an httpx.Client above the transport: they would only add time to every poll."""
        timeout = httpx.Timeout(silence_s).as_dict()
        request.extensions = {"stage": stage, "attempts": attempts, "timeout": timeout, **more}
        return self._transport.handle_request(request)

    def upload(self, data: Any, content_type: str, file_name: str) -> str:
        """Store bytes at fal and return their URL; large ones go up in parts. Costs nothing, so it is repeated."""
        try:
            url: object = self._client.upload(data, content_type, file_name=file_name)
        except FalError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError, httpx.InvalidURL) as error:
            raise BadOutput(f"fal's storage gave an answer that cannot be used ({type(error).__name__}).") from error
        if not isinstance(url, str) or not url.startswith("https://") or fault_of(url):
            raise BadOutput("fal's storage gave no URL for the file that can be used.")
        return url


def _answer_of(response: httpx.Response) -> Answer:
    answer: Answer = response.extensions["answer"]
    return answer


def _drain(response: httpx.Response, events: Iterator[dict[str, Any]]) -> None:
    """Read a stream to its end after its last event, so that its connection can be used again, but not for long."""
    response.extensions["exchange"].until = time.monotonic() + DRAIN_S
    with contextlib.suppress(FalError):
        for _ in events:
            pass


def _json_events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    try:
        for event in EventSource(response).iter_sse():
            if not event.data:
                continue  # a lone `retry:` or `id:`, which is no event
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
            "fal answered a stream request with something that is not a stream of JSON.", retryable=False
        ) from error


def _start_deadline(seconds: float) -> dict[str, str]:
    """Ask fal not to start the job later than that: nobody would be waiting for it any more."""
    return {
        "X-Fal-Request-Start-Timeout": f"{max(seconds, 0.2):.1f}",
        "X-Fal-Request-Timeout": f"{max(seconds, 1.1):.1f}",
    }


class _SafeClient(SyncClient):
    """fal-client's SyncClient with our transport under every request that it makes; it does not know the key."""

    def __init__(self, transport: FalTransport) -> None:
        super().__init__(key=MASK)
        http = _HttpClient(transport, HEADERS, self.default_timeout)
        tokens = _TokenManager(self._auth, http)
        # The dataclass is frozen; its cached properties look here first.
        self.__dict__.update(_client=http, _token_manager=tokens, _transport=transport)

    def _get_cdn_client(self) -> httpx.Client:
        token = self._token_manager.get_token()
        transport = _WithinCall(self.__dict__["_transport"], current_call())
        headers = {"Authorization": f"{token.token_type} {token.token}", "User-Agent": USER_AGENT}
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
        """Raises ValueError, KeyError, TypeError for an answer that is no token: `upload` says so."""
        data = json_of(self._http.post(self._url, json={}, headers=self._headers).content)
        base = parse(str(data["base_url"]))
        if not (base.is_plain_https and is_fal_host(base.host)):
            raise ValueError("files are uploaded to fal's hosts only")
        for name in ("token", "token_type"):
            if not isinstance(data[name], str) or not re.fullmatch(r"[!-~]+", data[name]):
                raise ValueError(f"{name} is no text that can be sent")
        expires_at = datetime.fromisoformat(data["expires_at"])
        return CDNToken(
            token=remember(data["token"]),
            token_type=data["token_type"],
            base_upload_url=base.whole.rstrip("/"),
            expires_at=expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=timezone.utc),
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
        url = parse(named)
    except ValueError:
        return built
    return url.whole if url.is_plain_https and is_run_host(url.host) else built
