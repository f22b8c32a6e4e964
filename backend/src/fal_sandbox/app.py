"""The sandbox as one HTTP handler: explicit routes by host and path, and what every request goes through.

Host names decide first, as on fal: the same path means different things at the queue and at the CDN. aiohttp's router
reads the paths of each host. Its Application is left out: it answers what no route takes by itself, and runs a handler
before anything else can be said of a request. Here every request is journalled and may meet a fault, also one that no
route takes, and a fault may cut the connection before a byte of the body is read.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

from aiohttp import web

from fal_sandbox import control_api, direct_api, platform_api, queue_api, storage_api
from fal_sandbox.control_api import LOOPBACK, check_caller
from fal_sandbox.delivery import Delivery
from fal_sandbox.endpoint_table import OPENAI
from fal_sandbox.host_names import service_of
from fal_sandbox.replies import Refusal, Reply, detail, usual
from fal_sandbox.state import State
from fal_sandbox.wire_request import WireRequest

LARGEST_BODY_BYTES = 512 * 1024 * 1024
PREFIX = "/_sandbox/"

log = logging.getLogger(__name__)

Handler = Callable[[WireRequest], Awaitable[Reply]]


class Route(NamedTuple):
    """One kind of request: where it goes, what faults and the journal call it, who answers."""

    service: str
    method: str
    path: str
    """As aiohttp's router reads it; a slash at the end changes nothing."""
    stage: str
    handler: Handler


_JOB = "/{endpoint:.+?}/requests/{id}"
_PART = "/files/{_:.+}/multipart/{upload}"

ROUTES: tuple[Route, ...] = (
    Route("queue", "GET", _JOB + "/status", "status", queue_api.status),
    Route("queue", "GET", _JOB + "/status/stream", "status_stream", queue_api.status_stream),
    Route("queue", "GET", _JOB + "{_:(/response)?}", "result", queue_api.result),
    Route("queue", "PUT", _JOB + "/cancel", "cancel", queue_api.cancel),
    Route("queue", "POST", "/{endpoint:(?!.*/requests/).+?}", "submit", queue_api.submit),
    Route("direct", "POST", "/{endpoint:.+?}/stream", "stream", direct_api.stream),
    Route("direct", "POST", "/{endpoint:.+?}", "direct", direct_api.run),
    Route("direct", "GET", f"/{{endpoint:{OPENAI}.*?}}", "unknown", direct_api.no_such_path),
    Route("direct", "GET", "/{endpoint:.+}/realtime", "unknown", direct_api.realtime),
    Route("platform", "GET", "/v1/models", "platform", platform_api.models),
    Route("platform", "GET", "/v1/models/pricing", "platform", platform_api.pricing),
    Route("platform", "POST", "/v1/models/pricing/estimate", "platform", platform_api.estimate),
    Route("platform", "GET", "/v1/models/requests/by-endpoint", "platform", platform_api.requests),
    Route("platform", "GET", "/v1/account/billing", "platform", platform_api.billing),
    Route("platform", "GET", "/{_:.*}", "unknown", platform_api.unknown),
    Route("rest", "POST", "/tokens", "unknown", storage_api.realtime_token),
    Route("rest", "POST", "/storage/auth/token", "token", storage_api.token),
    Route("rest", "POST", "/storage/upload/initiate", "initiate", storage_api.initiate),
    Route("rest", "POST", "/storage/upload/initiate-multipart", "initiate", storage_api.initiate_multipart),
    Route("rest", "GET", "/.well-known/jwks.json", "jwks", storage_api.jwks),
    Route("cdn", "POST", "/files/upload", "upload", storage_api.upload),
    Route("cdn", "POST", "/files/upload/multipart", "multipart", storage_api.multipart),
    Route("cdn", "PUT", _PART + r"/{number:\d{1,5}}", "part", storage_api.part),
    Route("cdn", "POST", _PART + "/complete", "complete", storage_api.complete),
    Route("cdn", "PUT", "/files/{_:.+}", "put", storage_api.put_cdn),
    Route("cdn", "GET", "/{_:.*}", "download", storage_api.download),
    Route("bucket", "PUT", "/sandbox-uploads/{upload}/{_:.*}", "put", storage_api.put_bucket),
    Route("sample", "GET", "/{_:.*}", "download", storage_api.sample),
    Route("control", "GET", "/{_:(_sandbox)?}", "control", control_api.page),
    Route("control", "GET", "/_sandbox/ca.pem", "control", control_api.certificate),
    Route("control", "GET", "/_sandbox/ledger", "control", control_api.ledger),
    Route("control", "GET", "/_sandbox/journal", "control", control_api.journal),
    Route("control", "GET", "/_sandbox/webhooks", "control", control_api.webhooks),
    Route("control", "POST", "/_sandbox/faults", "control", control_api.faults),
    Route("control", "POST", "/_sandbox/say", "control", control_api.say),
    Route("control", "POST", "/_sandbox/config", "control", control_api.config),
    Route("control", "POST", "/_sandbox/reset", "control", control_api.reset),
)


def stages_at(service: str) -> frozenset[str]:
    """The stages a host serves; a connection cut before its first request could have been any of them."""
    return frozenset(route.stage for route in ROUTES if route.service == service)


def create_app(state: State) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The handler for aiohttp's low-level server."""
    routers = {service: _router(service) for service in {route.service for route in ROUTES}}
    routes: dict[object, Route] = {route.handler: route for route in ROUTES}

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        host, path = _host(request), request.path
        plain = request.transport is not None and request.transport.get_extra_info("sslcontext") is None
        service: str | None = service_of(host, state.settings.hosts)
        if plain and (host in LOOPBACK or path.startswith(PREFIX)):
            service = "control"
        route, params = _FOREIGN if service is None else _UNKNOWN, dict[str, str]()
        if service in routers:
            # The router needs no more of a request than its URL and its method.
            match = await routers[service].resolve(cast("web.Request", request))
            failure = match.http_exception
            route = routes[match.handler] if failure is None else _WRONG_METHOD if failure.status == 405 else _UNKNOWN
            params = dict(match)
        call = WireRequest(state, route.stage, request.method, host, path, request.query, request.headers, params)
        return await _exchange(request, call, route)

    return handle


def _router(service: str) -> web.UrlDispatcher:
    router = web.UrlDispatcher()
    for route in ROUTES:
        if route.service == service:
            for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                router.add_route(method, route.path + "{slash:/?}", cast("Any", route.handler))
    return router


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


async def _unknown(call: WireRequest) -> Reply:
    return usual(404)


async def _wrong_method(call: WireRequest) -> Reply:
    return usual(405)


async def _foreign(call: WireRequest) -> Reply:
    why = f"The fal sandbox serves fal's hosts and never reaches out: {call.host} is refused.\n"
    return Reply(403, why.encode(), "text/plain; charset=utf-8")


_FOREIGN = Route("", "", "", "unknown", _foreign)
_UNKNOWN = Route("", "", "", "unknown", _unknown)
_WRONG_METHOD = Route("", "", "", "unknown", _wrong_method)
