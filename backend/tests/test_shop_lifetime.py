"""The example shop: callers that leave, how it ends, and what keeps it from starting."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

import shop_server
from fal_sandbox.server import Sandbox
from shop_server import BACKEND, HOLDS_S, PART, SHOP, WITHIN_S, Json, Shop, events_of

shop = shop_server.shop
own_shop = shop_server.own_shop


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


def test_ctrl_c_reaches_the_shop_alone_which_cancels_answers_and_leaves_nothing(
    own_shop: Callable[..., Shop], box: Sandbox, photo_path: Path
) -> None:
    shop = own_shop()
    box.configure(latency=HOLDS_S)
    with requests.Session() as session:
        session.trust_env = False
        photo = {"photo": ("coffee.jpg", photo_path.read_bytes())}
        with session.post(shop.url + "/v1/products", files=photo, stream=True, timeout=WITHIN_S) as answer:
            box.wait_for(lambda now: now["running"] == 1)
            [worker] = shop.children()
            assert os.getpgid(worker) != shop.process.pid
            began = time.monotonic()
            assert shop.stop(by_ctrl_c=True) == 0
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
            os.kill(shop.children()[0], signal.SIGKILL)
            name, body = events_of(answer.text)[-1]
    assert (name, body["error_type"], body["status"]) == ("error", "worker_died", 502)
    assert str(BACKEND) not in json.dumps(body)
    box.configure(latency=0)
    assert shop.post("/v1/analyze-product", {"image_url": photo_url}).status_code == 200


def test_without_a_key_it_says_so_and_does_not_start(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop(FAL_KEY="")
    assert shop.process.wait(WITHIN_S) == 1
    assert "FAL_KEY environment variable is required" in shop.log()


@pytest.mark.sampled(3)
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
