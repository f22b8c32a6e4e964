"""The sandbox's ledger, journal, control prefix, proxy and server."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import wire
from fal_sandbox.server import Sandbox
from wire import ASK, DIRECT, QUEUE, REST, TEXT, client_of, connect, events_of, result, secure_socket, submit

box = wire.box
web = wire.web

SOURCE = str(Path(__file__).resolve().parents[1] / "src")


def test_the_ledger_counts_every_end(box: Sandbox, web: httpx.Client) -> None:
    result(web, box, TEXT)
    result(web, box, TEXT, {"prompt": "no model"})
    box.fault("job", stuck="IN_PROGRESS", times=2)
    web.put(submit(web)["cancel_url"])
    submit(web, "openrouter/router/vision")
    ledger = box.ledger()
    figures = {name: value for name, value in ledger.items() if name != "jobs"}
    assert figures == {
        "accepted": 4,
        "completed": 1,
        "failed": 1,
        "cancelled": 1,
        "running": 1,
        "most_running": 1,
        "billable": 1,
        "units": 1,
        "files": 0,
    }
    assert [job["outcome"] for job in ledger["jobs"]] == ["ok", "error", "cancelled", None]
    assert ledger["jobs"][-1]["endpoint"] == "openrouter/router/vision"
    assert ledger["jobs"][-1]["input"] == ASK


def test_the_journal_has_a_row_for_every_request_in_order(box: Sandbox, web: httpx.Client) -> None:
    job = submit(web, params={"a": "b c"})
    web.get(job["status_url"])
    first, second = box.journal()
    assert (first["stage"], first["method"], first["host"]) == ("submit", "POST", "queue.fal.run")
    assert (first["path"], first["query"], first["status"]) == ("/" + TEXT, "a=b+c", 200)
    assert first["bytes"] == len(httpx.Request("POST", QUEUE, json=ASK).content)
    assert first["request_id"] == second["request_id"] == job["request_id"]
    assert first["headers"]["content-type"] == "application/json"
    assert first["at"] <= second["at"]


def test_a_reset_forgets_everything_and_restores_the_settings(web: httpx.Client, box: Sandbox) -> None:
    first_id = submit(web)["request_id"]
    box.configure(latency=3600)
    box.fault("submit", status=500)
    box.say("never said")
    box.put_file(b"x", "a", "b/c")
    box.reset()
    assert box.journal() == []
    assert box.ledger() == {**dict.fromkeys(box.ledger(), 0), "jobs": []}
    reply = web.post(DIRECT + TEXT, json=ASK)
    assert reply.status_code == 200
    assert reply.json()["output"] != "never said"
    assert submit(web)["request_id"] != first_id


def test_a_reset_ends_the_jobs_that_run(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_PROGRESS")
    job = submit(web)
    threading.Timer(0.1, box.reset).start()
    assert events_of(web, "GET", job["status_url"] + "/stream")[-1]["error_type"] == "client_cancelled"


def test_a_text_put_into_the_models_mouth_is_said_as_often_as_asked(box: Sandbox, web: httpx.Client) -> None:
    box.say("first", times=2)
    box.say("only there", endpoint="openrouter/router/vision")
    said = [web.post(DIRECT + TEXT, json=ASK).json()["output"] for _ in range(3)]
    assert said[:2] == ["first", "first"]
    assert said[2] not in ("first", "only there")
    assert web.post(DIRECT + "openrouter/router/vision", json=ASK).json()["output"] == "only there"


def test_waiting_in_vain_says_so(box: Sandbox) -> None:
    with pytest.raises(TimeoutError, match="'accepted': 0"):
        box.wait_for(lambda ledger: ledger["accepted"] == 1, timeout_s=0.05)


def test_the_control_prefix_offers_the_same_over_http(box: Sandbox, web: httpx.Client) -> None:
    with httpx.Client(base_url=box.url, trust_env=False) as control:
        page = control.get("/_sandbox/").text
        assert page.startswith("This is a sandbox, not fal. There is no model behind it")
        assert control.post("/_sandbox/faults", json={"stage": "submit", "status": 503, "times": 2}).json()
        assert web.post(QUEUE + TEXT, json=ASK).status_code == 503
        control.post("/_sandbox/say", json={"text": "said over http"})
        assert web.post(DIRECT + TEXT, json=ASK).json()["output"] == "said over http"
        control.post("/_sandbox/config", json={"gone": [TEXT]})
        assert web.post(DIRECT + TEXT, json=ASK).status_code == 404
        assert control.get("/_sandbox/ledger").json() == box.ledger()
        assert control.get("/_sandbox/journal").json() == box.journal()
        assert control.get("/_sandbox/webhooks").json() == []
        assert control.post("/_sandbox/reset").status_code == 200
        assert box.ledger()["accepted"] == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"stage": "nowhere"}),
        ("faults", {}),
        ("config", {"latancy": 1}),
        ("config", {"latency": "slow"}),
        ("say", {}),
        ("say", []),
    ],
)
def test_the_control_prefix_says_what_it_does_not_understand(
    box: Sandbox, path: str, body: dict[Any, Any] | dict[str, Any] | list[Any]
) -> None:
    with httpx.Client(base_url=box.url, trust_env=False) as control:
        reply = control.post(f"/_sandbox/{path}", json=body)
    assert reply.status_code == 400
    assert reply.json()["detail"]


def test_unknown_paths_and_wrong_methods_are_told_apart(web: httpx.Client) -> None:
    assert web.get(REST + "nothing/here").status_code == 404
    assert web.get(REST + "storage/auth/token").status_code == 405
    assert web.get("https://api.fal.ai/v1/nothing").status_code == 404
    assert web.post(QUEUE + TEXT + "/requests/x/status").status_code == 405


# ---------------------------------------------------------------- the proxy and the server


@pytest.mark.parametrize("target", ["shop.test:443", "queue.fal.run:8443", "fal.run.evil.test:443", "127.0.0.1:443"])
def test_foreign_hosts_are_refused_with_a_reason(box: Sandbox, target: str) -> None:
    head, body = connect(box, target)
    assert head.startswith("HTTP/1.1 403 ")
    assert f"{target} is refused" in body
    assert box.journal()[0]["note"] == "refused"


def test_a_plain_request_for_a_foreign_host_is_refused_too(box: Sandbox) -> None:
    reply = httpx.get("http://shop.test/", proxy=box.url)
    assert (reply.status_code, "never reaches out" in reply.text) == (403, True)


def test_the_root_shows_the_sandboxs_page(box: Sandbox) -> None:
    assert httpx.get(box.url, trust_env=False).text.startswith("This is a sandbox, not fal")


def test_a_request_that_comes_in_small_bits_is_understood(box: Sandbox) -> None:
    with socket.create_connection(("127.0.0.1", box.port), timeout=30) as raw:
        for byte in b"CONNECT fal.run:443 HTTP/1.1\r\n\r\n":
            raw.sendall(bytes([byte]))
        assert raw.recv(100).startswith(b"HTTP/1.1 200 ")
    with socket.create_connection(("127.0.0.1", box.port), timeout=30) as raw:
        for byte in b"GET /_sandbox/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            raw.sendall(bytes([byte]))
        assert raw.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_trust_the_sandbox_gets_nowhere(box: Sandbox) -> None:
    with httpx.Client(proxy=box.url, timeout=30) as stranger, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        stranger.get(QUEUE)
    with client_of(box) as web:
        assert web.post(DIRECT + TEXT, json=ASK).status_code == 200


def test_an_idle_connection_is_closed_after_the_time_that_is_set(box: Sandbox) -> None:
    box.configure(keepalive_s=0.2)
    with secure_socket(box) as idle:
        started = time.monotonic()
        idle.sendall(b"GET / HTTP/1.1\r\nHost: fal.run\r\n\r\n")
        assert idle.recv(4096)
        while idle.recv(4096):
            pass
        assert 0.15 <= time.monotonic() - started < 8


def test_a_connection_is_kept_alive(box: Sandbox, web: httpx.Client) -> None:
    for _ in range(3):
        assert web.post(DIRECT + TEXT, json=ASK).status_code == 200
    with secure_socket(box) as kept:
        for _ in range(2):
            kept.sendall(b"GET / HTTP/1.1\r\nHost: fal.run\r\n\r\n")
            assert kept.recv(4096).startswith(b"HTTP/1.1 404")


def test_expect_100_continue_is_answered(box: Sandbox) -> None:
    with secure_socket(box) as careful:
        careful.sendall(
            b"POST /openrouter/router HTTP/1.1\r\nHost: fal.run\r\nAuthorization: Key a:b\r\n"
            b"Content-Length: 31\r\nExpect: 100-continue\r\n\r\n"
        )
        assert careful.recv(4096).startswith(b"HTTP/1.1 100 ")
        careful.sendall(b'{"prompt":"hello","model":"m1"}')
        assert careful.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_it_stops_at_once_with_streams_open_and_jobs_running() -> None:
    with Sandbox() as box, client_of(box) as web:
        box.fault("job", stuck="IN_PROGRESS", times=3)
        job = submit(web)
        submit(web)
        with secure_socket(box) as idle, web.stream("GET", job["status_url"] + "/stream") as open_stream:
            lines = open_stream.iter_lines()
            next(lines)
            started = time.monotonic()
            box.stop()
            assert time.monotonic() - started < 8
            with suppress(httpx.TransportError):
                assert any("client_cancelled" in line for line in lines)
            with suppress(OSError):
                assert idle.recv(10) == b""


def test_what_happened_can_be_read_after_the_stop() -> None:
    with Sandbox() as box, client_of(box) as web:
        web.post(DIRECT + TEXT, json=ASK)
    box.stop()
    assert (box.ledger()["accepted"], len(box.journal())) == (1, 1)
    with pytest.raises(RuntimeError, match="not running"):
        box.env()


def test_a_port_that_is_taken_is_an_os_error(box: Sandbox) -> None:
    with pytest.raises(OSError, match="address already in use"):
        Sandbox(port=box.port).start()


def test_the_same_seed_gives_the_same_ids() -> None:
    def first_id() -> Any:
        with Sandbox(seed=5) as box, client_of(box) as web:
            return submit(web)["request_id"]

    assert first_id() == first_id()


def test_the_picture_code_is_imported_on_first_use_only() -> None:
    code = "import sys, fal_sandbox.server; print(sorted({'cv2', 'numpy', 'fal_sandbox.texts'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": SOURCE})
    assert done.stdout.strip() == "[]", done.stderr


def test_a_pretty_url_with_odd_letters_is_taken(box: Sandbox, web: httpx.Client) -> None:
    reply = web.get("https://example.com/" + quote("çanta kırmızı.jpg"))
    assert reply.headers["content-type"] == "image/jpeg"
    assert box.journal()[0]["path"] == "/çanta kırmızı.jpg"
