"""The sandbox as one HTTP handler: explicit routes by host and path, and what every request goes through.

Host names decide first, as on fal: the same path means different things at the queue and at the CDN.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from sandbox import control_api, direct_api, platform_api, queue_api, storage_api
from sandbox.control_api import LOOPBACK, check_caller
from sandbox.delivery import Delivery
from sandbox.endpoint_table import OPENAI
from sandbox.host_names import service_of
from sandbox.replies import Refusal, Reply, detail, usual
from sandbox.state import State
from sandbox.wire_request import WireRequest

LARGEST_BODY_BYTES = 512 * 1024 * 1024
PREFIX = "/_sandbox/"

log = logging.getLogger(__name__)

Handler = Callable[[WireRequest], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of request: where it goes, what faults and the journal call it, who answers."""

    service: str
    method: str
    path: re.Pattern[str]
    stage: str
    handler: Handler


_JOB = r"/(?P<endpoint>[^?]+?)/requests/(?P<id>[^/]+)"
_PART = r"/files/.+/multipart/(?P<upload>[^/]+)"


def _route(service: str, method: str, path: str, stage: str, handler: Handler) -> Route:
    return Route(service, method, re.compile(path + "/?"), stage, handler)


ROUTES: tuple[Route, ...] = (
    _route("queue", "GET", _JOB + "/status", "status", queue_api.status),
    _route("queue", "GET", _JOB + "/status/stream", "status_stream", queue_api.status_stream),
    _route("queue", "GET", _JOB + "(/response)?", "result", queue_api.result),
    _route("queue", "PUT", _JOB + "/cancel", "cancel", queue_api.cancel),
    _route("queue", "POST", r"/(?P<endpoint>(?!.*/requests/).+?)", "submit", queue_api.submit),
    _route("direct", "POST", r"/(?P<endpoint>.+?)/stream", "stream", direct_api.stream),
    _route("direct", "POST", r"/(?P<endpoint>.+?)", "direct", direct_api.run),
    _route("direct", "GET", f"/(?P<endpoint>{OPENAI}.*)", "unknown", direct_api.no_such_path),
    _route("direct", "GET", "/.+/realtime", "unknown", direct_api.realtime),
    _route("platform", "GET", "/v1/models", "platform", platform_api.models),
    _route("platform", "GET", "/v1/models/pricing", "platform", platform_api.pricing),
    _route("platform", "POST", "/v1/models/pricing/estimate", "platform", platform_api.estimate),
    _route("platform", "GET", "/v1/account/billing", "platform", platform_api.billing),
    _route("platform", "GET", "/.*", "unknown", platform_api.unknown),
    _route("rest", "POST", "/tokens", "unknown", storage_api.realtime_token),
    _route("rest", "POST", "/storage/auth/token", "token", storage_api.token),
    _route("rest", "POST", "/storage/upload/initiate", "initiate", storage_api.initiate),
    _route("rest", "POST", "/storage/upload/initiate-multipart", "initiate", storage_api.initiate_multipart),
    _route("rest", "GET", r"/\.well-known/jwks\.json", "jwks", storage_api.jwks),
    _route("cdn", "POST", "/files/upload", "upload", storage_api.upload),
    _route("cdn", "POST", "/files/upload/multipart", "multipart", storage_api.multipart),
    _route("cdn", "PUT", _PART + r"/(?P<number>\d{1,5})", "part", storage_api.part),
    _route("cdn", "POST", _PART + "/complete", "complete", storage_api.complete),
    _route("cdn", "PUT", "/files/.+", "put", storage_api.put_cdn),
    _route("cdn", "GET", "/.*", "download", storage_api.download),
    _route("bucket", "PUT", "/sandbox-uploads/(?P<upload>[^/]+)/.*", "put", storage_api.put_bucket),
    _route("sample", "GET", "/.*", "download", storage_api.sample),
    _route("control", "GET", "(/_sandbox)?", "control", control_api.page),
    _route("control", "GET", r"/_sandbox/ca\.pem", "control", control_api.certificate),
    _route("control", "GET", "/_sandbox/ledger", "control", control_api.ledger),
    _route("control", "GET", "/_sandbox/journal", "control", control_api.journal),
    _route("control", "GET", "/_sandbox/webhooks", "control", control_api.webhooks),
    _route("control", "POST", "/_sandbox/faults", "control", control_api.faults),
    _route("control", "POST", "/_sandbox/say", "control", control_api.say),
    _route("control", "POST", "/_sandbox/config", "control", control_api.config),
    _route("control", "POST", "/_sandbox/reset", "control", control_api.reset),
)


def stages_at(service: str) -> frozenset[str]:
    """The stages a host serves; a connection cut before its first request could have been any of them."""
    return frozenset(route.stage for route in ROUTES if route.service == service)


def create_app(state: State) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The handler for aiohttp's low-level server."""
    tables: dict[str, list[Route]] = {"other": []}
    for route in ROUTES:
        tables.setdefault(route.service, []).append(route)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        host, path = _host(request), request.path
        plain = request.transport is not None and request.transport.get_extra_info("sslcontext") is None
        service: str | None = service_of(host, state.settings.hosts)
        if plain and (host in LOOPBACK or path.startswith(PREFIX)):
            service = "control"
        route, params = _find(tables[service], request.method, path) if service in tables else (_FOREIGN, {})
        call = WireRequest(state, route.stage, request.method, host, path, request.query, request.headers, params)
        return await _exchange(request, call, route)

    return handle


async def _exchange(request: web.BaseRequest, call: WireRequest, route: Route) -> web.StreamResponse:
    state = call.state
    row = state.journal.row(
        call.stage, call.method, call.host, call.path, request.rel_url.raw_query_string, call.headers
    )
    delivery = Delivery(state, request, row)
    if call.stage != "control":
        state.journal.add(row)
        delivery.fault = state.faults.take(call.stage, _endpoint(call))

    async def read() -> None:
        call.chunks = await _body(request)
        row["bytes"] = sum(map(len, call.chunks))

    async def make() -> Reply:
        return await _answer(route, call)

    try:
        return await delivery.run(read, make)
    except Refusal as refused:
        return await delivery.refuse(refused.reply)
    except (ConnectionError, web.RequestPayloadError):
        row["note"] = row["note"] or "caller gone"
        return delivery.cut()


async def _answer(route: Route, call: WireRequest) -> Reply:
    try:
        if call.stage == "control":
            check_caller(call)
        return await route.handler(call)
    except Refusal as refused:
        return refused.reply
    except Exception:
        log.exception("the sandbox failed on %s %s", call.method, call.path)
        return detail(500, "Internal Server Error")


async def _body(request: web.BaseRequest) -> tuple[bytes, ...]:
    """The body in the chunks it comes in; Refusal when there are too many."""
    if not request.can_read_body:
        return ()
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    chunks, size = [], 0
    while chunk := await request.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST_BODY_BYTES:
            raise Refusal(usual(413))
    return tuple(chunks)


def _host(request: web.BaseRequest) -> str:
    host = request.headers.get("Host", "").lower()
    return host if host.startswith("[") else host.partition(":")[0]


def _endpoint(call: WireRequest) -> str | None:
    """The endpoint a request is about, for faults that concern one only."""
    if (request_id := call.params.get("id")) and (job := call.state.jobs.find(request_id)) is not None:
        return job.endpoint
    return call.params.get("endpoint")


def _find(routes: list[Route], method: str, path: str) -> tuple[Route, dict[str, str]]:
    method = "GET" if method == "HEAD" else method
    wrong_method = False
    for route in routes:
        if route.method != method and wrong_method:
            continue
        if (match := route.path.fullmatch(path)) is not None:
            if route.method == method:
                return route, match.groupdict()
            wrong_method = True
    return (_WRONG_METHOD if wrong_method else _UNKNOWN), {}


async def _unknown(call: WireRequest) -> Reply:
    return usual(404)


async def _wrong_method(call: WireRequest) -> Reply:
    return usual(405)


async def _foreign(call: WireRequest) -> Reply:
    why = f"The fal sandbox serves fal's hosts and never reaches out: {call.host} is refused.\n"
    return Reply(403, why.encode(), "text/plain; charset=utf-8")


_FOREIGN = _route("", "", "", "unknown", _foreign)
_UNKNOWN = _route("", "", "", "unknown", _unknown)
_WRONG_METHOD = _route("", "", "", "unknown", _wrong_method)
