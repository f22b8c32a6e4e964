"""api.fal.ai in the sandbox: prices, estimates, the catalogue and the balance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fal_sandbox.endpoint_table import ENDPOINTS
from fal_sandbox.server import Sandbox

V1 = "https://api.fal.ai/v1/"
BRIA, BANANA, TEXT = "bria/replace-background", "fal-ai/nano-banana-2/edit", "openrouter/router"


@pytest.fixture
def web(box: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(headers={"Authorization": "Key an-id:a-secret"}, timeout=30) as client:
        yield client


def error_of(reply: httpx.Response, status: int, kind: str) -> str:
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (status, kind)
    return str(error["message"])


@pytest.mark.parametrize(
    "query",
    [{"endpoint_id": f"{BRIA},{BANANA}"}, {"endpoint_id": [BRIA, BANANA]}, {"endpoint_id": [BRIA, BANANA, BRIA]}],
)
def test_prices_are_given_for_the_endpoints_that_are_named(web: httpx.Client, query: dict[str, Any]) -> None:
    reply = web.get(V1 + "models/pricing", params=query)
    assert reply.json() == {
        "prices": [
            {"endpoint_id": BRIA, "unit_price": 0.04, "unit": "images", "currency": "USD"},
            {"endpoint_id": BANANA, "unit_price": 0.08, "unit": "images", "currency": "USD"},
        ],
        "next_cursor": None,
        "has_more": False,
    }


def test_every_endpoint_of_the_table_has_a_price(web: httpx.Client) -> None:
    prices = web.get(V1 + "models/pricing", params={"endpoint_id": ",".join(ENDPOINTS)}).json()["prices"]
    assert [price["endpoint_id"] for price in prices] == list(ENDPOINTS)
    assert all(price["unit_price"] > 0 for price in prices)


def test_prices_need_one_to_fifty_known_endpoints(box: Sandbox, web: httpx.Client) -> None:
    error_of(web.get(V1 + "models/pricing"), 400, "validation_error")
    many = ",".join(f"a/b{number}" for number in range(51))
    assert "50" in error_of(web.get(V1 + "models/pricing", params={"endpoint_id": many}), 400, "validation_error")
    unknown = web.get(V1 + "models/pricing", params={"endpoint_id": f"{BRIA},no/such"})
    assert "no/such" in error_of(unknown, 404, "not_found")
    box.configure(gone=[BRIA + "=410"])
    error_of(web.get(V1 + "models/pricing", params={"endpoint_id": BRIA}), 404, "not_found")


@pytest.mark.parametrize(
    ("kind", "quantity", "total"),
    [("unit_price", "unit_quantity", 0.2), ("historical_api_price", "call_quantity", 0.2)],
)
def test_an_estimate_adds_up(web: httpx.Client, kind: str, quantity: str, total: float) -> None:
    asked = {"estimate_type": kind, "endpoints": {BRIA: {quantity: 3}, BANANA: {quantity: 1}}}
    reply = web.post(V1 + "models/pricing/estimate", json=asked)
    assert reply.json() == {"estimate_type": kind, "total_cost": 0.2, "currency": "USD"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"estimate_type": "guess", "endpoints": {BRIA: {"unit_quantity": 1}}},
        {"estimate_type": "unit_price", "endpoints": {}},
        {"estimate_type": "unit_price", "endpoints": {BRIA: {"call_quantity": 1}}},
        {"estimate_type": "unit_price", "endpoints": {BRIA: {"unit_quantity": -1}}},
        {"estimate_type": "historical_api_price", "endpoints": {BRIA: {"call_quantity": 0}}},
        [],
    ],
)
def test_an_estimate_that_does_not_fit_is_a_validation_error(web: httpx.Client, body: object) -> None:
    assert error_of(web.post(V1 + "models/pricing/estimate", json=body), 400, "validation_error")


def input_of(web: httpx.Client, endpoint: str) -> dict[str, Any]:
    """The schema of an endpoint's input, found as a reader of the document finds it."""
    (model,) = web.get(V1 + "models", params={"endpoint_id": endpoint, "expand": "openapi-3.0"}).json()["models"]
    document = model["openapi"]
    assert (model["endpoint_id"], model["metadata"]["status"]) == (endpoint, "active")
    assert document["openapi"].startswith("3.0")
    body = document["paths"][f"/{endpoint}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema: dict[str, Any] = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    return schema


def test_the_catalogue_tells_names_defaults_enums_and_ranges(web: httpx.Client) -> None:
    web.headers.pop("Authorization")
    bria, banana = input_of(web, BRIA), input_of(web, BANANA)
    assert "required" not in bria
    assert {name: bria["properties"]["seed"][name] for name in ("type", "default", "minimum", "maximum")} == {
        "type": "integer",
        "default": 4925634,
        "minimum": 0,
        "maximum": 2147483647,
    }
    assert bria["properties"]["image_url"]["type"] == "string"
    assert banana["required"] == ["prompt"]
    assert banana["properties"]["resolution"]["enum"] == ["0.5K", "1K", "2K", "4K"]
    assert len(banana["properties"]["aspect_ratio"]["enum"]) == 15
    assert (banana["properties"]["num_images"]["maximum"], banana["properties"]["num_images"]["default"]) == (4, 1)
    assert banana["properties"]["image_urls"]["items"] == {"type": "string"}


@pytest.mark.parametrize("endpoint", list(ENDPOINTS))
def test_every_document_is_openapi_3_without_a_type_null(web: httpx.Client, endpoint: str) -> None:
    text = str(input_of(web, endpoint))
    assert "'null'" not in text
    assert "$defs" not in text


def test_the_catalogue_lists_all_without_what_is_gone(box: Sandbox, web: httpx.Client) -> None:
    box.configure(gone=[BRIA])
    models = web.get(V1 + "models").json()["models"]
    assert {model["endpoint_id"] for model in models} == set(ENDPOINTS) - {BRIA}
    assert all("openapi" not in model for model in models)
    error_of(web.get(V1 + "models", params={"endpoint_id": BRIA}), 404, "not_found")


def test_the_balance_is_told_when_it_is_asked_for(web: httpx.Client) -> None:
    assert web.get(V1 + "account/billing").json() == {"username": "sandbox"}
    account = web.get(V1 + "account/billing", params={"expand": "credits"}).json()
    assert account["credits"] == {"current_balance": 100.0, "currency": "USD"}
    broke = web.get(
        V1 + "account/billing", params={"expand": "credits"}, headers={"Authorization": "Key broke:x"}
    ).json()
    assert broke["credits"]["current_balance"] == 0


@pytest.mark.parametrize("path", [f"models/pricing?endpoint_id={BRIA}", "account/billing"])
@pytest.mark.parametrize(("key", "status"), [(None, 401), ("Key nonsense", 401), ("Key noscope:x", 403)])
def test_a_key_that_may_not_ask_is_an_authorization_error(
    web: httpx.Client, path: str, key: str | None, status: int
) -> None:
    web.headers.pop("Authorization")
    reply = web.get(V1 + path, headers={} if key is None else {"Authorization": key})
    error_of(reply, status, "authorization_error")
    assert reply.headers["x-fal-request-id"]


def test_past_requests_are_found_by_endpoint_time_and_id(box: Sandbox, web: httpx.Client) -> None:
    sent = [web.post(f"https://queue.fal.run/{TEXT}", json={"prompt": f"{n}"}).json()["request_id"] for n in range(3)]
    web.post(f"https://queue.fal.run/{TEXT}/enterprise", json={"prompt": "other"})
    url = V1 + "models/requests/by-endpoint"
    first = web.get(url, params={"endpoint_id": TEXT, "limit": 2, "expand": "payloads"}).json()
    assert [(item["request_id"], item["json_input"]["prompt"]) for item in first["items"]] == [
        (sent[2], "2"),
        (sent[1], "1"),
    ]
    rest = web.get(url, params={"endpoint_id": TEXT, "limit": 2, "cursor": first["next_cursor"]}).json()
    assert [(item["request_id"], "json_input" in item) for item in rest["items"]] == [(sent[0], False)]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    one = web.get(url, params={"endpoint_id": TEXT, "request_id": sent[1]}).json()["items"]
    assert [item["request_id"] for item in one] == [sent[1]]
    assert web.get(url, params={"endpoint_id": TEXT, "end": "2020-01-01"}).json()["items"] == []
    box.configure(requests_lag=60)
    assert web.get(url, params={"endpoint_id": TEXT}).json()["items"] == []
    error_of(web.get(url, params={"endpoint_id": TEXT, "start": "soon"}), 400, "validation_error")
    error_of(web.get(url), 400, "validation_error")


def test_what_is_not_served_there_is_not_found(web: httpx.Client) -> None:
    error_of(web.get(V1 + "workflows"), 404, "not_found")
