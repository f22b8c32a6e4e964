"""The example shop's routes and events over HTTP, on the sandbox."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shop_server
from fal_sandbox.keys import KEY
from fal_sandbox.server import Sandbox
from shop_server import HOLDS_S, PART, STYLES, WITHIN_S, Shop, events_of

shop = shop_server.shop
own_shop = shop_server.own_shop


def test_it_answers_only_with_its_own_files_and_under_a_strict_policy(shop: Shop) -> None:
    page = shop.ask("GET", "/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://|<script>|<style|style=|onclick", page.text)
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
        found = shop.ask("GET", path)
        assert (found.status_code, found.headers["x-content-type-options"]) == (200, "nosniff"), path
    assert shop.ask("GET", "/favicon.ico").headers["content-type"] == "image/svg+xml"
    for path in ("/server.mjs", "/package.json", "/..%2fserver.mjs", "/samples/..%2fdemo.py", "/files/x/y", "/v1"):
        found = shop.ask("GET", path)
        assert (found.status_code, found.json()["error_type"]) == (404, "not_found")


def test_an_uploaded_photo_is_at_fal_and_not_kept_here(shop: Shop, box: Sandbox, photo_path: Path) -> None:
    before = shop.files()
    answer = shop.send("/v1/upload", photo_path)
    assert answer.status_code == 200
    assert box.file(answer.json()["url"]) == photo_path.read_bytes()
    assert "coffee" in answer.json()["url"]
    assert shop.files() == before


def test_the_single_steps_fit_together(shop: Shop, photo_url: str) -> None:
    categories = shop.post("/v1/analyze-product", {"image_url": photo_url}).json()["categories"]
    assert categories["subcategory"] == "Mugs"
    wanted = [{"name": "Garden", "description": "outdoor garden"}, "Studio"]
    body = {"image_url": photo_url, "categories": categories, "styles": wanted}
    made = shop.post("/v1/generate", body).json()
    assert [image["style_name"] for image in made["images"]] == ["Garden", "Studio"]
    assert (made["total_generated"], made["errors"]) == (2, None)
    written = shop.post("/v1/descriptions/generate", {"categories": categories, "language": "German"}).json()
    assert written["description"].startswith("Dieser Becher")
    turkish = shop.post("/v1/descriptions/generate", {"categories": categories}).json()
    assert turkish["description"].startswith("Bu kupa")
    prompt = {"prompt": "Write a product description of a mug.", "language": "German"}
    assert re.search(r"\b(der|die|das|und)\b", shop.post("/v1/descriptions/generate", prompt).json()["description"])
    asked = shop.post("/v1/descriptions/generate", {"prompt": "Describe this mug in English."}).json()
    assert asked["description"]
    assert asked["request_id"]


def test_a_product_is_told_as_it_is_made(shop: Shop, box: Sandbox, photo_path: Path) -> None:
    answer = shop.send("/v1/products", photo_path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = events_of(answer.text)
    assert [name for name, _ in events] == ["progress"] * (len(events) - 1) + ["done"]
    told = [(event["step"], event["status"], event.get("style")) for _, event in events[:-1]]
    assert told[:2] == [("upload", "started", None), ("upload", "done", None)]
    for style in STYLES:
        steps: list[tuple[str, str, str | None]] = [("analysis", "done", None)]
        steps += [(step, status, style) for step in ("prompt", "picture") for status in ("started", "done")]
        places = [told.index(step) for step in steps]
        assert places == sorted(places)
    pictures = [event["image"] for _, event in events[:-1] if "image" in event]
    result = events[-1][1]
    assert sorted(result["images"], key=str) == sorted(pictures, key=str)
    assert [image["style_name"] for image in result["images"]] == STYLES
    assert result["description"].startswith("Bu kupa")
    assert result["timings"]["total"] > 0
    assert (result["total_generated"], result["errors"]) == (3, None)
    for image in pictures:
        here = shop.ask("GET", image["url"])
        assert here.headers["content-type"] == "image/png"
        assert here.content == box.file(image["image_url"])
        assert image["bytes"] == len(here.content)
    assert result["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in result["costs"]))
    assert "packshots" not in result
    assert str(shop.folder) not in answer.text
    assert KEY not in answer.text + shop.log()


def test_the_form_chooses_language_styles_and_what_is_made_for_which_places(
    shop: Shop, box: Sandbox, photo_path: Path
) -> None:
    box.configure(in_place=True)
    wanted = {"places": "amazon,trendyol", "packshot": "true", "listing": "true", "fidelity": "lock"}
    events = shop.make(photo_path, language="German", styles='["Premium"]', **wanted)
    result = events[-1][1]
    assert result["description"].startswith("Dieser Becher")
    assert result["language"] == "German"
    [image] = result["images"]
    assert (image["style_name"], image["verdict"], image["locked"]) == ("Premium", "pass", True)
    assert [check["place"] for check in image["checks"]] == ["amazon", "trendyol"]
    assert [shot["place"] for shot in result["packshots"]] == ["amazon", "trendyol"]
    assert [listing["language"] for listing in result["listing"]["listings"]] == ["German"]
    for picture in (image, image["generated"], *result["packshots"]):
        assert shop.ask("GET", picture["url"]).headers["content-type"].startswith("image/")
    told = {event["step"] for _, event in events[:-1]}
    assert {"packshot", "listing"} <= told
    assert str(shop.folder) not in json.dumps(events)


def test_an_estimate_costs_nothing_and_counts_what_was_chosen(shop: Shop, box: Sandbox) -> None:
    one, three = (shop.post("/v1/estimate", body).json() for body in ({"styles": ["Studio"]}, {}))
    assert set(one) == {"cost_usd", "about", "unknown"}
    assert 0 < one["cost_usd"] < three["cost_usd"]
    more = shop.post("/v1/estimate", {"listing": True, "packshot": True, "places": ["amazon"]}).json()
    assert more["cost_usd"] > three["cost_usd"]
    assert box.ledger()["accepted"] == 0


def test_the_longest_styles_fit_and_longer_ones_are_not_cut(shop: Shop, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", fail={"error": "out of memory", "error_type": "oom"}, endpoint="openrouter/router/vision")
    styles = [{"name": f"{'🏺' * 59}{number}", "description": "🏺" * 1000} for number in range(10)]
    assert shop.make(photo_path, styles=json.dumps(styles))[-1][1]["error_type"] == "job_failed"
    # So large that its sender would wait for ever if the rest were not read.
    photo_path.write_bytes(photo_path.read_bytes() + bytes(15_000_000))
    answer = shop.send("/v1/products", photo_path, styles=json.dumps(styles * 2))
    assert (answer.status_code, answer.json()["error_type"]) == (413, "invalid_input")
    assert '"styles" is too long' in answer.json()["error"]


def test_a_long_wait_is_not_silent(own_shop: Callable[..., Shop], box: Sandbox, photo_path: Path) -> None:
    box.configure(latency=0.3)
    answer = own_shop(SHOP_HEARTBEAT_S="0.1").send("/v1/products", photo_path, styles='["Studio"]')
    assert ": still working\n\n" in answer.text
    assert events_of(answer.text)[-1][0] == "done"


def test_a_photos_name_leads_nowhere(shop: Shop, photo_path: Path) -> None:
    for name in ("../../../etc/passwd.jpg", ".env", "ışık şişesi.jpg", "", "a" * 300 + ".jpg"):
        answer = shop.ask("POST", "/v1/upload", files={"photo": (name or " ", photo_path.read_bytes())})
        assert answer.status_code == 200, answer.text


IMAGE = "https://v3.fal.media/files/x.png"


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/analyze-product", {}, "image_url"),
        ("/v1/analyze-product", {"image_url": "/etc/passwd"}, "image_url"),
        ("/v1/analyze-product", {"image_url": 5}, "image_url"),
        ("/v1/analyze-product", {"image_url": "ftp://x"}, "must be the URL of an image"),
        ("/v1/analyze-product", {"image_url": "http://"}, "Upload a photo first: POST /v1/upload."),
        ("/v1/analyze-product", {"image_url": IMAGE, "model": "x"}, "model"),
        ("/v1/analyze-product", [], "must be a JSON object"),
        ("/v1/generate", {"image_url": IMAGE}, "categories"),
        ("/v1/generate", {"image_url": IMAGE, "categories": {}}, "categories"),
        ("/v1/generate", {"image_url": IMAGE, "categories": {"a": 1}}, "categories.a must be a text"),
        ("/v1/generate", {"image_url": IMAGE, "categories": {"a" * 101: "b"}}, "Each name in categories may"),
        ("/v1/generate", {"image_url": IMAGE, "categories": {"a": "b"}, "styles": ["Baroque"]}, "style"),
        ("/v1/generate", {"image_url": IMAGE, "categories": {"a": "b"}, "styles": []}, "styles"),
        ("/v1/descriptions/generate", {}, "prompt"),
        ("/v1/descriptions/generate", {"prompt": " "}, "prompt must not be blank"),
        ("/v1/descriptions/generate", {"prompt": "x", "categories": {"a": "b"}}, "either"),
        ("/v1/estimate", {"packshot": "yes"}, "packshot must be true or false"),
        ("/v1/estimate", {"fidelity": "best"}, "fidelity must be one of check, lock, retry"),
    ],
)
def test_wrong_json_is_refused_before_it_costs(path: str, body: Any, says: str, shop: Shop, box: Sandbox) -> None:
    answer = shop.post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error_type"] == "invalid_input"
    assert says in answer.json()["error"]
    assert box.ledger()["accepted"] == 0


@pytest.mark.parametrize(
    ("status", "kind", "body", "says"),
    [
        (400, "application/json", "{", "not JSON"),
        (400, "application/json", "", "empty"),
        (415, "text/plain", "x", "application/json"),
        (415, "multipart/form-data; boundary=b", "--b--", "application/json"),
    ],
)
def test_what_is_no_json_is_told_so(status: int, kind: str, body: str, says: str, shop: Shop) -> None:
    answer = shop.ask("POST", "/v1/generate", data=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error_type"]) == (status, "invalid_input")
    assert says in answer.json()["error"]


def test_a_scheme_may_be_in_capitals(shop: Shop, photo_url: str) -> None:
    answer = shop.post("/v1/analyze-product", {"image_url": photo_url.replace("https://", "HTTPS://")})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["/v1/upload", "/v1/products"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", PART),
        ("multipart/form-data; boundary=b", "garbage"),
        ("multipart/form-data; boundary=b", PART),
        ("multipart/form-data; boundary=b", PART.replace('; filename="a.jpg"', "")),
    ],
    ids=["no boundary", "garbage", "a photo without an end", "a field without an end"],
)
def test_broken_forms_are_refused(path: str, kind: str, body: Any, shop: Shop) -> None:
    before = shop.files()
    answer = shop.ask("POST", path, data=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error_type"]) == (400, "invalid_input"), answer.text
    assert "Send it whole" in answer.json()["error"]
    assert shop.files() == before


def test_what_reaches_no_route_is_answered_like_all_else(shop: Shop) -> None:
    long = "/samples/" + "a" * 200
    for status, request in (
        (400, b"GET /%E0%A4%A HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        (414, f"GET {long} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()),
        (400, b"no HTTP at all\r\n\r\n"),
        (431, b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"a" * 20_000 + b"\r\n\r\n"),
    ):
        host, _, port = shop.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), WITHIN_S) as connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            body = json.loads(answer.read())
        assert (answer.status, body["error_type"]) == (status, "invalid_input")
        assert set(body) == {"error", "error_type", "retryable", "request_id", "hint"}
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/v1/upload", "/v1/products"])
def test_wrong_forms_are_refused_before_they_cost(
    path: str, shop: Shop, box: Sandbox, photo_path: Path, tmp_path: Path
) -> None:
    before = shop.files()
    text, big, empty = tmp_path / "notes.jpg", tmp_path / "big.jpg", tmp_path / "empty.jpg"
    text.write_text("no picture")
    empty.touch()
    big.write_bytes(b"\xff\xd8\xff" + bytes(20_000_000))
    photo = ("coffee.jpg", photo_path.read_bytes())
    refused = [
        (400, shop.send(path, text)),
        (400, shop.send(path, empty)),
        (413, shop.send(path, big)),
        (400, shop.ask("POST", path, files={"picture": photo})),
        (400, shop.ask("POST", path, files={"note": (None, "no photo")})),
        (413, shop.ask("POST", path, files=[("photo", photo), ("photo", photo)])),
        (415, shop.ask("POST", path, json={})),
        (415, shop.ask("POST", path, data="x", headers={"content-type": "text/plain"})),
    ]
    fields = [{"colour": "red"}]
    if path == "/v1/products":
        fields += [{"styles": "Studio"}, {"styles": "[]"}, {"language": ""}, {"packshot": "yes"}, {"places": "amazom"}]
    refused += [(400, shop.send(path, photo_path, **field)) for field in fields]
    for status, answer in refused:
        assert answer.status_code == status, answer.text
        assert answer.json()["error_type"] == "invalid_input"
        assert not re.search(r"file_path|Check the path|limit|pattern|must NOT", answer.text)
        assert str(shop.folder) not in answer.text
    assert refused[0][1].json()["error"].startswith("The photo 'notes.jpg' is not a picture")
    assert box.ledger()["accepted"] == 0
    assert shop.files() == before


def test_other_sites_cannot_use_it(shop: Shop, box: Sandbox, photo_path: Path) -> None:
    photo = {"photo": ("coffee.jpg", photo_path.read_bytes())}
    port = shop.url.rpartition(":")[2]
    for headers in (
        {"origin": "https://shop.example"},
        {"origin": "null"},
        {"host": "shop.example"},
        {"host": f"shop.example:{port}", "origin": f"http://shop.example:{port}"},
    ):
        assert shop.ask("POST", "/v1/products", files=photo, headers=headers).status_code == 403
    assert box.ledger()["accepted"] == 0
    assert shop.ask("GET", "/", headers={"host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "error_type", "retryable", "waits"),
    [
        ({"status": 401}, 503, "auth", False, False),
        ({"status": 403, "body": {"detail": "Exhausted balance."}}, 503, "balance_exhausted", False, False),
        ({"status": 429, "retry_after": "3600"}, 429, "rate_limited", True, True),
        ({"status": 422}, 422, "model_rejected", False, False),
        ({"drop": "after"}, 502, "ambiguous_submit", False, False),
        ({"garbage": "html"}, 502, None, None, False),
    ],
)
def test_failures_have_the_status_that_fits(
    fault: dict[str, Any],
    status: int,
    error_type: str | None,
    retryable: bool | None,
    waits: bool,
    shop: Shop,
    box: Sandbox,
    photo_url: str,
) -> None:
    box.fault("submit", times=None, **fault)
    answer = shop.post("/v1/analyze-product", {"image_url": photo_url})
    body = answer.json()
    assert answer.status_code == status, body
    assert set(body) == {"error", "error_type", "retryable", "request_id", "hint"}
    if error_type:
        assert (body["error_type"], body["retryable"]) == (error_type, retryable)
    assert ("retry-after" in answer.headers) == waits


def test_a_failure_on_the_way_is_the_last_event(shop: Shop, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", fail={"error": "out of memory", "error_type": "oom"}, endpoint="openrouter/router/vision")
    events = shop.make(photo_path)
    assert [name for name, _ in events].count("error") == 1
    name, body = events[-1]
    assert (name, body["error_type"], body["status"]) == ("error", "job_failed", 502)
    assert body["request_id"]
    assert ("analysis", "failed") in [(event.get("step"), event.get("status")) for _, event in events]


def test_a_style_that_fails_does_not_take_the_others_with_it(shop: Shop, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", endpoint="bria/replace-background", fail={"error": "no", "error_type": "oom"})
    (name, result) = shop.make(photo_path)[-1]
    assert (name, result["total_generated"]) == ("done", 2)
    assert [row["stage"] for row in result["errors"]] == ["picture"]


def test_when_no_picture_is_made_each_style_has_its_error(
    shop: Shop, box: Sandbox, photo_path: Path, photo_url: str
) -> None:
    box.fault("job", endpoint="bria/replace-background", times=None, fail={"error": "no", "error_type": "oom"})
    answer = shop.post("/v1/generate", {"image_url": photo_url, "categories": {"a": "b"}})
    assert answer.status_code == 502
    name, told = shop.make(photo_path)[-1]
    assert (name, told["status"]) == ("error", 502)
    for body in (answer.json(), told):
        assert [row["style"] for row in body["errors"]] == STYLES
        assert set(body["errors"][0]) == {"style", "stage", "error", "error_type", "retryable", "request_id"}


def test_a_picture_that_cannot_be_fetched_is_still_named(shop: Shop, box: Sandbox, photo_path: Path) -> None:
    box.fault("download", times=None, status=404)
    (name, result) = shop.make(photo_path, styles='["Studio"]')[-1]
    assert name == "done"
    assert result["images"][0]["url"] is None
    assert result["images"][0]["image_url"].startswith("https://v3.fal.media/")


def test_time_that_runs_out_is_a_504(own_shop: Callable[..., Shop], box: Sandbox, photo_url: str) -> None:
    box.configure(latency=HOLDS_S)
    answer = own_shop(FAL_TIMEOUT_S="3").post("/v1/analyze-product", {"image_url": photo_url})
    assert (answer.status_code, answer.json()["error_type"]) == (504, "timeout")
    assert box.wait_for(lambda ledger: ledger["running"] == 0)["cancelled"] == 1
