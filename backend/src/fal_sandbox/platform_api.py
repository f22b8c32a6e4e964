"""api.fal.ai over HTTP: prices, the catalogue with its OpenAPI documents, past requests, and the balance.

As documented at https://fal.ai/docs/api-reference/platform-apis and
https://fal.ai/docs/platform-apis/v1/models/requests/by-endpoint.

The documents are made of the same models that check the inputs, so what they promise is what is checked.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import Field

from fal_sandbox.endpoint_table import ANYTHING, ENDPOINTS, Endpoint, makes_no_picture
from fal_sandbox.input_models import Input, Invalid, check
from fal_sandbox.job_store import Job
from fal_sandbox.keys import key_id, refusal_of
from fal_sandbox.replies import Refusal, Reply, json_reply
from fal_sandbox.wire_request import WireRequest
from fal_sandbox.wire_types import Json

MOST_IDS = 50
CURRENCY = "USD"
BALANCE_USD = 100.0
PAGE = 50
MOST_REQUESTS = 100
DAY_S = 86_400.0
WIDE_S = 90 * DAY_S
"""How far the list of past requests goes back when one of them is asked for by its id."""
DOCS_URL = "https://docs.fal.ai/platform-apis"
UPDATED_AT = "2026-11-25T00:00:00Z"


class Units(Input):
    """How many units one endpoint is to deliver."""

    unit_quantity: float = Field(ge=0)


class Calls(Input):
    """How many calls one endpoint is to get."""

    call_quantity: int = Field(ge=1)


class UnitEstimate(Input):
    """An estimate by units."""

    estimate_type: Literal["unit_price"]
    endpoints: dict[str, Units] = Field(min_length=1)


class CallEstimate(Input):
    """An estimate by calls."""

    estimate_type: Literal["historical_api_price"]
    endpoints: dict[str, Calls] = Field(min_length=1)


class Estimate(Input):
    """Which of the two an estimate is."""

    estimate_type: Literal["unit_price", "historical_api_price"]


async def pricing(call: WireRequest) -> Reply:
    """Unit prices of up to 50 endpoints."""
    _check_key(call)
    ids = _ids(call)
    if not 1 <= len(ids) <= MOST_IDS:
        raise _error(400, "validation_error", f"endpoint_id must name 1 to {MOST_IDS} endpoints, {len(ids)} were given")
    prices = [{"endpoint_id": name, **_price(row)} for name, row in zip(ids, _rows(call, ids), strict=True)]
    return json_reply({"prices": prices, "next_cursor": None, "has_more": False})


async def estimate(call: WireRequest) -> Reply:
    """What so many units, or so many calls of one unit each, cost together."""
    _check_key(call)
    try:
        given = call.json_body()
    except ValueError as error:
        raise _error(400, "validation_error", f"the body is not JSON: {error}") from None
    kind = _checked(Estimate, given)["estimate_type"]
    endpoints = _checked(UnitEstimate if kind == "unit_price" else CallEstimate, given)["endpoints"]
    rows = _rows(call, list(endpoints))
    quantities = [asked.unit_quantity if kind == "unit_price" else asked.call_quantity for asked in endpoints.values()]
    total = sum(row.price.unit_price * quantity for row, quantity in zip(rows, quantities, strict=True))
    return json_reply({"estimate_type": kind, "total_cost": round(total, 9), "currency": CURRENCY})


async def models(call: WireRequest) -> Reply:
    """The catalogue, or the rows that are asked for; each with its OpenAPI document when that is wanted."""
    if "Authorization" in call.headers:
        _check_key(call)
    ids = _ids(call)
    if len(ids) > MOST_IDS:
        raise _error(400, "validation_error", f"endpoint_id must name at most {MOST_IDS} endpoints")
    if not ids:
        ids = [name for name in ENDPOINTS if not _is_gone(call, name)]
    expanded = "openapi-3.0" in _listed(call, "expand")
    rows = zip(ids, _rows(call, ids), strict=True)
    return json_reply(
        {"models": [_model(name, row, expanded) for name, row in rows], "next_cursor": None, "has_more": False}
    )


async def billing(call: WireRequest) -> Reply:
    """The account's name, and its balance when that is wanted."""
    _check_key(call, broke=True)
    account: dict[str, Any] = {"username": "sandbox"}
    if "credits" in _listed(call, "expand"):
        balance = 0.0 if key_id(call) == "broke" else BALANCE_USD
        account["credits"] = {"current_balance": balance, "currency": CURRENCY}
    return json_reply(account)


async def requests(call: WireRequest) -> Reply:
    """The jobs of up to 50 endpoints within a time, the newest first; with what they were given when that is wanted."""
    _check_key(call)
    ids = _ids(call)
    if not 1 <= len(ids) <= MOST_IDS:
        raise _error(400, "validation_error", f"endpoint_id must name 1 to {MOST_IDS} endpoints, {len(ids)} were given")
    now = time.time()
    named = call.query.get("request_id")
    before = now - call.state.settings.requests_lag
    start, end = _moment(call, "start", now - (WIDE_S if named else DAY_S)), _moment(call, "end", now)
    size, page = _whole(call, "limit", PAGE), _cursor(call)
    found = [
        job
        for job in reversed(list(call.state.jobs))
        if job.endpoint in ids and start <= job.sent_at < end and job.sent_at <= before
        if named in (None, job.request_id)
    ]
    shown, more = found[page * size : (page + 1) * size], len(found) > (page + 1) * size
    items = [_past(job, "payloads" in _listed(call, "expand")) for job in shown]
    return json_reply({"items": items, "next_cursor": _as_cursor(page + 1) if more else None, "has_more": more})


async def unknown(call: WireRequest) -> Reply:
    raise _error(404, "not_found", f"{call.method} {call.path} is not served by the sandbox")


def _check_key(call: WireRequest, *, broke: bool = False) -> None:
    """Refuses as this host does: 401 without a good key, 403 without the right to ask."""
    refusal = refusal_of(call.headers.get("Authorization"))
    if refusal is not None and not (broke and key_id(call) == "broke"):
        raise _error(refusal.status, "authorization_error", refusal.text)


def _ids(call: WireRequest) -> list[str]:
    return list(dict.fromkeys(_listed(call, "endpoint_id")))


def _listed(call: WireRequest, name: str) -> list[str]:
    """The values of a query parameter, given once with commas or several times."""
    given: Sequence[str] = call.query.getall(name, ())
    return [value for entry in given for value in entry.split(",") if value]


def _rows(call: WireRequest, ids: list[str]) -> list[Endpoint]:
    """The rows of these endpoints; not found when one of them is unknown or gone."""
    rows = [None if _is_gone(call, name) else _row(call, name) for name in ids]
    if missing := [name for name, row in zip(ids, rows, strict=True) if row is None]:
        raise _error(404, "not_found", f"Endpoint not found: {', '.join(missing)}")
    return [row for row in rows if row is not None]


def _row(call: WireRequest, name: str) -> Endpoint | None:
    known = ENDPOINTS.get(name)
    return ANYTHING if known is None and call.state.settings.any_endpoint and not makes_no_picture(name) else known


def _is_gone(call: WireRequest, name: str) -> bool:
    return any(entry.partition("=")[0] == name for entry in call.state.settings.gone)


def _price(row: Endpoint) -> dict[str, Any]:
    return {"unit_price": row.price.unit_price, "unit": row.price.unit, "currency": CURRENCY}


def _checked(kind: type[Input], given: Json) -> dict[str, Any]:
    try:
        return check(kind, given)
    except Invalid as invalid:
        wrong = invalid.errors[0]
        named = ".".join(map(str, wrong["loc"][1:])) or "the body"
        raise _error(400, "validation_error", f"{named}: {wrong['msg']}") from None


def _error(status: int, kind: str, message: str) -> Refusal:
    return Refusal(json_reply({"error": {"type": kind, "message": message, "docs_url": DOCS_URL}}, status))


def _past(job: Job, expanded: bool) -> dict[str, Any]:
    item: dict[str, Any] = {
        "request_id": job.request_id,
        "endpoint_id": job.endpoint,
        "sent_at": _iso(job.sent_at),
        "started_at": _iso(job.sent_at) if job.started_at else None,
        "ended_at": None if job.ended_at is None else _iso(job.ended_at),
        "status_code": None if job.result is None else job.result.status,
        "duration": job.inference_s,
    }
    if expanded and job.headers.get("x-fal-store-io") != "0":
        output = job.result.body if job.result is not None else None
        item |= {"json_input": job.given, "json_output": json.loads(output) if isinstance(output, bytes) else output}
    return item


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(call: WireRequest, name: str, default: float) -> float:
    given = call.query.get(name)
    if given is None:
        return default
    try:
        read = datetime.fromisoformat(given.replace("Z", "+00:00"))
    except ValueError:
        raise _error(400, "validation_error", f"{name} must be a date in ISO 8601, not {given!r}") from None
    return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()


def _whole(call: WireRequest, name: str, default: int) -> int:
    given = call.query.get(name, str(default))
    if not given.isdigit() or not 1 <= int(given) <= MOST_REQUESTS:
        raise _error(400, "validation_error", f"{name} must be from 1 to {MOST_REQUESTS}, not {given!r}")
    return int(given)


def _cursor(call: WireRequest) -> int:
    """The number of a page; the cursor is that in base64."""
    try:
        return int(base64.b64decode(call.query.get("cursor", ""), validate=True) or 0)
    except ValueError:
        raise _error(400, "validation_error", "cursor must be one that a page named") from None


def _as_cursor(page: int) -> str:
    return base64.b64encode(str(page).encode()).decode()


def _model(name: str, row: Endpoint, expanded: bool) -> dict[str, Any]:
    title = name.replace("/", " ").replace("-", " ").title()
    model: dict[str, Any] = {
        "endpoint_id": name,
        "metadata": {
            "display_name": title,
            "category": row.category,
            "description": f"The sandbox's stand-in for {name}.",
            "status": "active",
            "tags": [],
            "updated_at": UPDATED_AT,
            "is_favorited": None,
            "thumbnail_url": "https://example.com/mug.jpg",
            "model_url": f"https://fal.run/{name}",
            "license_type": "commercial",
        },
    }
    if expanded:
        model["openapi"] = _openapi(name, title, row)
    return model


def _openapi(name: str, title: str, row: Endpoint) -> dict[str, Any]:
    """The document of one endpoint: its input at the queue, and where the result is."""
    input_name = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", name)) + "Input"
    schema = _as_openapi(row.input.model_json_schema(ref_template="#/components/schemas/{model}"))
    named = schema.pop("$defs", {})
    schema.pop("additionalProperties", None)
    schema["title"] = input_name
    body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{input_name}"}}}
    output = {"application/json": {"schema": {"type": "object", "additionalProperties": True}}}
    answer = {"200": {"description": "The request status or result.", "content": output}}
    by_id = {"name": "request_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {name}",
            "version": "1.0.0",
            "x-fal-metadata": {"endpointId": name, "category": row.category, "displayName": title},
        },
        "components": {
            "securitySchemes": {"apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization"}},
            "schemas": {input_name: schema, **named},
        },
        "servers": [{"url": "https://queue.fal.run"}],
        "security": [{"apiKeyAuth": []}],
        "paths": {
            f"/{name}": {"post": {"requestBody": {"required": True, "content": body}, "responses": answer}},
            f"/{name}/requests/{{request_id}}/status": {"get": {"parameters": [by_id], "responses": answer}},
            f"/{name}/requests/{{request_id}}/cancel": {"put": {"parameters": [by_id], "responses": answer}},
            f"/{name}/requests/{{request_id}}": {"get": {"parameters": [by_id], "responses": answer}},
        },
    }


def _as_openapi(schema: Json) -> Json:
    """JSON Schema as OpenAPI 3.0 has it: no type null, no `const`; what may be null is not required, and no more."""
    if isinstance(schema, list):
        return [_as_openapi(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    read = {name: _as_openapi(value) for name, value in schema.items()}
    if "const" in read:
        read["enum"] = [read.pop("const")]
    if "anyOf" in read:
        left = [choice for choice in read.pop("anyOf") if choice != {"type": "null"}]
        read = {**read, **left[0]} if len(left) == 1 else {**read, "anyOf": left}
    if read.get("default", ...) is None:
        del read["default"]
    return read
