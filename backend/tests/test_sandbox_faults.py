"""Every fault that the sandbox can be told to have."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

import wire
from fal_sandbox.server import Sandbox
from wire import (
    ASK,
    CDN,
    DIRECT,
    GOOD,
    PHOTO,
    QUEUE,
    REST,
    TEXT,
    client_of,
    ended,
    events_of,
    raw_request,
    result,
    secure_socket,
    submit,
    token_of,
)

box = wire.box
web = wire.web


def impatient(read_s: Any) -> Any:
    return httpx.Timeout(20, read=read_s)


def test_a_fault_is_met_as_often_as_it_was_set_and_after_those_it_lets_pass(box: Sandbox, web: httpx.Client) -> None:
    box.fault("submit", status=503, times=2, skip=1)
    assert [web.post(QUEUE + TEXT, json=ASK).status_code for _ in range(4)] == [200, 503, 503, 200]
    assert box.ledger()["accepted"] == 2


def test_faults_are_taken_first_in_first_out(box: Sandbox, web: httpx.Client) -> None:
    box.fault("submit", status=500)
    box.fault("submit", status=502)
    assert [web.post(QUEUE + TEXT, json=ASK).status_code for _ in range(3)] == [500, 502, 200]


def test_a_fault_without_a_number_stays(box: Sandbox, web: httpx.Client) -> None:
    box.fault("direct", status=500, times=None)
    assert {web.post(DIRECT + TEXT, json=ASK).status_code for _ in range(GOOD)} == {500}


def test_a_fault_may_concern_one_endpoint_only(box: Sandbox, web: httpx.Client) -> None:
    box.fault("submit", status=500, endpoint="openrouter/router/vision")
    box.fault("result", status=500, endpoint="openrouter/router/enterprise")
    assert web.post(QUEUE + TEXT, json=ASK).status_code == 200
    assert web.post(QUEUE + "openrouter/router/vision", json=ASK).status_code == 500
    assert result(web, box, TEXT).status_code == 200
    assert result(web, box, "openrouter/router/enterprise").status_code == 500


@pytest.mark.parametrize(
    ("stage", "method", "url"),
    [
        ("submit", "POST", QUEUE + TEXT),
        ("status", "GET", QUEUE + TEXT + "/requests/x/status"),
        ("status_stream", "GET", QUEUE + TEXT + "/requests/x/status/stream"),
        ("result", "GET", QUEUE + TEXT + "/requests/x"),
        ("cancel", "PUT", QUEUE + TEXT + "/requests/x/cancel"),
        ("direct", "POST", DIRECT + TEXT),
        ("stream", "POST", DIRECT + TEXT + "/stream"),
        ("token", "POST", REST + "storage/auth/token"),
        ("initiate", "POST", REST + "storage/upload/initiate"),
        ("upload", "POST", CDN + "files/upload"),
        ("multipart", "POST", CDN + "files/upload/multipart"),
        ("part", "PUT", CDN + "files/x/multipart/u/1"),
        ("complete", "POST", CDN + "files/x/multipart/u/complete"),
        ("put", "PUT", "https://storage.googleapis.com/sandbox-uploads/u/x"),
        ("download", "GET", CDN + "files/x.png"),
        ("platform", "GET", "https://api.fal.ai/v1/models/pricing"),
        ("any", "GET", PHOTO),
    ],
)
def test_every_stage_can_fail(box: Sandbox, web: httpx.Client, stage: str, method: str, url: str) -> None:
    box.fault(stage, status=418)
    assert web.request(method, url).status_code == 418
    assert web.request(method, url).status_code != 418
    assert box.journal()[0]["note"] == "status 418"
    assert stage in (box.journal()[0]["stage"], "any")


def test_a_failing_status_has_fals_body_unless_another_is_given(box: Sandbox, web: httpx.Client) -> None:
    box.fault("direct", status=503)
    box.fault("direct", status=429, retry_after="3")
    box.fault("direct", status=500, body={"detail": ["a", "list"]}, headers={"X-Extra": "yes"})
    box.fault("direct", status=401)
    first, second, third, fourth = (web.post(DIRECT + TEXT, json=ASK) for _ in range(4))
    assert first.json()["error_type"] == first.headers["x-fal-error-type"] == "runner_disconnected"
    assert first.headers["x-fal-needs-retry"] == "1"
    assert (second.headers["retry-after"], second.headers["x-fal-needs-retry"]) == ("3", "1")
    assert second.json()["error_type"] == "concurrent_requests_limit"
    assert (third.json(), third.headers["x-extra"]) == ({"detail": ["a", "list"]}, "yes")
    assert fourth.json() == {"detail": "invalid key credentials"}


def test_an_ingress_page_is_html_without_a_request_id(box: Sandbox, web: httpx.Client) -> None:
    box.fault("status", status=502, body="<html>nginx</html>", request_id=False)
    reply = web.get(QUEUE + TEXT + "/requests/x/status")
    assert (reply.status_code, reply.text) == (502, "<html>nginx</html>")
    assert reply.headers["content-type"] == "text/html"
    assert "x-fal-request-id" not in reply.headers


@pytest.mark.parametrize(("drop", "accepted"), [("unread", 0), ("before", 0), ("after", 1), ("half", 1)])
def test_a_submit_can_be_cut_before_or_after_the_job_is_accepted(
    box: Sandbox, web: httpx.Client, drop: str, accepted: int
) -> None:
    box.fault("submit", drop=drop)
    with pytest.raises(httpx.TransportError):
        web.post(QUEUE + TEXT, json=ASK)
    assert box.ledger()["accepted"] == accepted
    assert box.journal()[0]["note"] == f"drop {drop}"
    assert web.post(QUEUE + TEXT, json=ASK).status_code == 200


def test_an_upload_can_be_cut_before_it_is_read(box: Sandbox, web: httpx.Client) -> None:
    box.fault("upload", drop="unread")
    token = token_of(web)
    with pytest.raises(httpx.TransportError):
        web.post(CDN + "files/upload", content=bytes(5_000_000), headers=token)
    assert (box.ledger()["files"], box.journal()[-1]["bytes"]) == (0, 0)


def test_a_connection_can_be_cut_before_tls(box: Sandbox) -> None:
    box.fault("submit", drop="connect")
    with client_of(box) as web:
        assert web.post(DIRECT + TEXT, json=ASK).status_code == 200
        with pytest.raises(httpx.TransportError):
            web.post(QUEUE + TEXT, json=ASK)
        assert web.post(QUEUE + TEXT, json=ASK).status_code == 200
    assert [row["note"] for row in box.journal()] == ["", "drop connect", ""]


def test_half_a_download_arrives(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(bytes(1000), "a.bin", "image/png")
    box.fault("download", drop="half")
    got = b""
    with pytest.raises(httpx.RemoteProtocolError), web.stream("GET", url) as reply:  # noqa: PT012
        assert reply.headers["content-length"] == "1000"
        for chunk in reply.iter_bytes():
            got += chunk
    assert got == bytes(500)


def test_a_delayed_submit_is_accepted_first(box: Sandbox) -> None:
    box.fault("submit", delay=30)
    with secure_socket(box, "queue.fal.run") as caller:
        caller.sendall(raw_request("/" + TEXT, "queue.fal.run"))
        assert box.wait_for(lambda ledger: ledger["accepted"] == 1)
        caller.settimeout(0.2)
        with pytest.raises(TimeoutError):
            caller.recv(1)


def test_a_delayed_submit_that_is_not_accepted_is_lost_when_the_caller_leaves(box: Sandbox, web: httpx.Client) -> None:
    box.fault("submit", delay=0.3, accept=False, times=2)
    with pytest.raises(httpx.ReadTimeout):
        web.post(QUEUE + TEXT, json=ASK, timeout=impatient(0.1))
    started = time.monotonic()
    assert web.post(QUEUE + TEXT, json=ASK).status_code == 200
    assert time.monotonic() - started >= 0.3
    assert box.ledger()["accepted"] == 1


def test_a_failing_answer_can_hide_an_accepted_job(box: Sandbox, web: httpx.Client) -> None:
    box.fault("submit", status=504, accept=True)
    assert web.post(QUEUE + TEXT, json=ASK).status_code == 504
    assert box.ledger()["accepted"] == 1


@pytest.mark.parametrize(
    ("garbage", "text"), [("html", "<html>"), ("shape", '{"sandbox":'), ("empty", ""), ("truncated", '{"status":')]
)
def test_garbage_comes_with_a_200_and_the_job_is_accepted(
    box: Sandbox, web: httpx.Client, garbage: str, text: str
) -> None:
    box.fault("submit", garbage=garbage)
    reply = web.post(QUEUE + TEXT, json=ASK)
    assert reply.status_code == 200
    assert reply.text.startswith(text)
    assert (reply.text == "") is (text == "")
    if garbage != "shape":
        with pytest.raises(json.JSONDecodeError):
            reply.json()
    assert box.ledger()["accepted"] == 1


@pytest.mark.parametrize("end", [False, True])
def test_a_stream_ends_after_some_events_with_or_without_a_cut(box: Sandbox, web: httpx.Client, end: bool) -> None:
    box.fault("stream", cut=3, end=end)
    seen: list[Any] = []
    try:
        with connect_sse(web, "POST", DIRECT + TEXT + "/stream", json=ASK) as source:
            seen.extend(json.loads(event.data) for event in source.iter_sse())
        cut = False
    except httpx.TransportError:
        cut = True
    assert cut is not end
    assert [event["partial"] for event in seen] == [True] * 3


def test_a_status_stream_can_be_cut_too(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_QUEUE")
    box.fault("status_stream", cut=1)
    job = submit(web)
    with pytest.raises(httpx.TransportError):
        events_of(web, "GET", job["status_url"] + "/stream")


def test_a_silent_server_sends_nothing_or_headers_only(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(b"data", "a.bin", "image/png")
    box.fault("download", silent=30)
    box.fault("download", silent=30, headers_first=True)
    with pytest.raises(httpx.ReadTimeout):
        web.get(url, timeout=impatient(2))
    with web.stream("GET", url, timeout=impatient(2)) as reply:
        assert reply.status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            reply.read()


def test_a_stream_can_fall_silent_after_its_headers(box: Sandbox, web: httpx.Client) -> None:
    box.fault("stream", silent=30, headers_first=True)
    with web.stream("POST", DIRECT + TEXT + "/stream", json=ASK, timeout=impatient(2)) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        with pytest.raises(httpx.ReadTimeout):
            reply.read()


@pytest.mark.parametrize(("method", "status"), [("GET", 302), ("POST", 307)])
def test_a_request_can_be_sent_elsewhere(box: Sandbox, web: httpx.Client, method: str, status: int) -> None:
    box.fault("any", redirect="https://other.example.com/x")
    reply = web.request(method, QUEUE + TEXT + ("/requests/x" if method == "GET" else ""), json=ASK)
    assert (reply.status_code, reply.headers["location"]) == (status, "https://other.example.com/x")
    assert box.ledger()["accepted"] == 0


def test_a_download_can_be_as_large_and_of_the_type_that_is_asked(box: Sandbox, web: httpx.Client) -> None:
    box.fault("download", size=3_000_000, content_type="image/gif")
    reply = web.get(CDN + "files/whatever.png")
    assert (len(reply.content), reply.headers["content-length"]) == (3_000_000, "3000000")
    assert reply.headers["content-type"] == "image/gif"


def test_a_job_can_be_stuck_in_either_state(box: Sandbox, web: httpx.Client) -> None:
    def stuck(stage: str) -> Callable[[Any], bool]:
        return lambda ledger: ledger["jobs"][-1]["state"] == stage

    for stage in ("IN_QUEUE", "IN_PROGRESS"):
        box.fault("job", stuck=stage)
        job = submit(web)
        box.wait_for(stuck(stage))
        assert web.get(job["status_url"]).json()["status"] == stage
    assert box.ledger()["running"] == 2


def test_a_job_can_take_longer_than_the_others(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", delay=60)
    slow, usual = submit(web), submit(web)
    ended(box, usual["request_id"])
    assert web.get(slow["status_url"]).json()["status"] == "IN_PROGRESS"
    box.fault("job", delay=0.5)
    assert web.post(DIRECT + TEXT, json=ASK).elapsed.total_seconds() >= 0.5


def test_a_job_can_fail_with_the_error_that_is_set(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", fail={"error": "Runner disconnected", "error_type": "runner_disconnected"})
    job = submit(web)
    ended(box, job["request_id"])
    status, reply = web.get(job["status_url"]).json(), web.get(job["response_url"])
    assert (status["status"], status["error"], status["error_type"]) == (
        "COMPLETED",
        "Runner disconnected",
        "runner_disconnected",
    )
    assert (reply.status_code, reply.headers["x-fal-error-type"]) == (503, "runner_disconnected")
    assert (box.ledger()["failed"], box.ledger()["billable"]) == (1, 0)


def test_a_refusal_after_the_work_has_begun_is_charged(box: Sandbox, web: httpx.Client) -> None:
    body = {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation"}]}
    box.fault("job", fail={"error": "no", "status": 422, "body": body})
    reply = result(web, box, TEXT)
    assert (reply.status_code, reply.json(), box.ledger()["billable"]) == (422, body, 1)


def test_a_result_can_be_expired(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", expired=True)
    reply = result(web, box, TEXT)
    assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})


def test_a_job_can_answer_with_the_output_that_is_set(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", output={"output": "", "error": "overloaded"}, endpoint="openrouter/router/vision")
    assert result(web, box, TEXT).json()["error"] is None
    assert result(web, box, "openrouter/router/vision").json() == {"output": "", "error": "overloaded"}


@pytest.mark.parametrize(
    ("stage", "what", "text"),
    [
        ("sumbit", {}, "unknown stage"),
        ("submit", {"staus": 3}, "unknown fault option"),
        ("submit", {"drop": "down"}, "drop must be one of"),
        ("submit", {"stuck": "IN_QUEUE"}, "belongs to the stage 'job'"),
        ("submit", {"drop": "connect", "endpoint": TEXT}, "CONNECT"),
    ],
)
def test_a_fault_that_is_spelled_wrongly_is_refused(
    box: Sandbox, stage: str, what: dict[Any, Any] | dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        box.fault(stage, **what)
