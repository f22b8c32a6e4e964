"""The sandbox's wire, through real clients: what wire.md says of fal, the faults, the ledger and the control prefix."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import fal_client
import httpx
import pytest
import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fal_client.client import FalClientHTTPError
from httpx_sse import connect_sse

from fal_sandbox import job_store, queue_api, webhooks
from fal_sandbox.files import Files
from fal_sandbox.server import Sandbox

TEXT = "openrouter/router"
QUEUE = "https://queue.fal.run/"
DIRECT = "https://fal.run/"
REST = "https://rest.fal.ai/"
CDN = "https://v3.fal.media/"
ASK = {"prompt": "Say something short.", "model": "google/gemini-2.5-flash"}
KEY = {"Authorization": "Key an-id:a-secret"}
PHOTO = "https://example.com/red-mug.jpg"
SOURCE = str(Path(__file__).resolve().parents[1] / "src")
GOOD = 8
"""More than one page of anything here needs."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@contextmanager
def client_of(box: Sandbox, **options: Any) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=box.ca_file)
    with httpx.Client(proxy=box.url, verify=context, headers=KEY, timeout=30, **options) as client:
        yield client


@pytest.fixture
def web(box: Sandbox) -> Iterator[httpx.Client]:
    with client_of(box) as client:
        yield client


class Fal(fal_client.SyncClient):
    """The bare client; only closes what the original leaves open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Any] = []

    def _get_cdn_client(self) -> Any:
        self.opened.append(super()._get_cdn_client())
        return self.opened[-1]

    def close(self) -> None:
        for client in (self._client, *self.opened):
            client.close()


@pytest.fixture
def fal(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in box.env().items():
        monkeypatch.setenv(name, value)
    client = Fal()
    yield client
    client.close()


def impatient(read_s: Any) -> Any:
    return httpx.Timeout(20, read=read_s)


def submit(web: httpx.Client, endpoint: str = TEXT, given: Any = None, **options: Any) -> Any:
    reply = web.post(QUEUE + endpoint, json=ASK if given is None else given, **options)
    assert reply.status_code == 200, reply.text
    return reply.json()


def result(web: httpx.Client, box: Sandbox, endpoint: str, given: Any = None, **options: Any) -> Any:
    """Submits, waits for the end, fetches."""
    job = submit(web, endpoint, given, **options)
    ended(box, job["request_id"])
    return web.get(job["response_url"])


def ended(box: Sandbox, request_id: str) -> Any:
    def has_ended(ledger: Any) -> bool:
        return any(job["request_id"] == request_id and job["outcome"] for job in ledger["jobs"])

    return box.wait_for(has_ended)


def events_of(web: httpx.Client, method: Any, url: Any, **options: Any) -> list[Any]:
    with connect_sse(web, method, url, **options) as source:
        return [json.loads(event.data) for event in source.iter_sse()]


def tiny_png(width: int = 6, height: int = 4) -> Any:
    from fal_sandbox.pictures.scene import generic_picture

    return generic_picture(width, height, "plain", 1)


# ---------------------------------------------------------------- the queue


def test_submit_answers_with_the_id_the_position_and_three_urls(web: httpx.Client) -> None:
    reply = web.post(QUEUE + "openrouter/router/vision", json=ASK)
    job = reply.json()
    base = f"https://queue.fal.run/openrouter/router/requests/{job['request_id']}"
    assert reply.status_code == 200
    assert reply.headers["x-fal-request-id"] == job["request_id"] == job["gateway_request_id"]
    assert reply.headers["x-fal-sandbox"] == "1"
    assert (job["status"], job["queue_position"]) == ("IN_QUEUE", 0)
    assert job["response_url"] == base
    assert job["status_url"] == base + "/status"
    assert job["cancel_url"] == base + "/cancel"


def test_status_is_202_until_the_job_has_completed_and_logs_are_always_there(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_QUEUE")
    waiting = web.get(submit(web)["status_url"])
    box.fault("job", stuck="IN_PROGRESS")
    working = submit(web)
    box.wait_for(lambda ledger: ledger["jobs"][1]["state"] == "IN_PROGRESS")
    working = web.get(working["status_url"])
    done = submit(web)
    ended(box, done["request_id"])
    done = web.get(done["status_url"])
    assert (waiting.status_code, waiting.json()["status"], waiting.json()["logs"]) == (202, "IN_QUEUE", None)
    assert (working.status_code, working.json()["status"], working.json()["logs"]) == (202, "IN_PROGRESS", None)
    assert (done.status_code, done.json()["status"], done.json()["logs"]) == (200, "COMPLETED", None)
    assert done.json()["metrics"]["inference_time"] >= 0
    assert "error" not in done.json()


@pytest.mark.parametrize(("spelling", "asked"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_logs_are_asked_for_in_four_spellings(box: Sandbox, web: httpx.Client, spelling: str, asked: bool) -> None:
    job = submit(web)
    ended(box, job["request_id"])
    logs = web.get(job["status_url"], params={"logs": spelling}).json()["logs"]
    assert (logs is not None) is asked
    if asked:
        assert {"message", "level", "source", "timestamp"} <= set(logs[0])


def test_the_position_counts_from_zero_and_goes_down(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_QUEUE", times=2)
    first, second = submit(web), submit(web)
    assert [first["queue_position"], second["queue_position"]] == [0, 1]
    assert web.get(second["status_url"]).json()["queue_position"] == 1
    web.put(first["cancel_url"])
    assert web.get(second["status_url"]).json()["queue_position"] == 0


def test_a_job_waits_then_works_for_the_times_that_are_set(box: Sandbox, web: httpx.Client) -> None:
    box.configure(queue=1, latency=0.5)
    started = time.monotonic()
    job = submit(web)
    seen = events_of(web, "GET", job["status_url"] + "/stream")
    assert time.monotonic() - started >= 1.45
    assert [status["status"] for status in seen] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert 0.45 <= seen[-1]["metrics"]["inference_time"] < 10


def test_the_status_stream_tells_when_the_position_changes(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_QUEUE", times=2)
    first, second = submit(web), submit(web)
    with connect_sse(web, "GET", second["status_url"] + "/stream") as source:
        events = source.iter_sse()
        assert json.loads(next(events).data)["queue_position"] == 1
        started = time.monotonic()
        with client_of(box) as other:
            other.put(first["cancel_url"])
            assert json.loads(next(events).data)["queue_position"] == 0
            assert time.monotonic() - started < queue_api.KEEP_ALIVE_S / 2
            other.put(second["cancel_url"])
        last = [json.loads(event.data) for event in events]
    assert [status["status"] for status in last] == ["COMPLETED"]


def test_a_status_stream_with_nothing_to_say_sends_comments(
    box: Sandbox, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_api, "KEEP_ALIVE_S", 0.02)
    box.fault("job", stuck="IN_QUEUE")
    job = submit(web)
    with web.stream("GET", job["status_url"] + "/stream") as reply:
        lines = [line for line, _ in zip(reply.iter_lines(), range(8), strict=False) if line]
    assert lines[0].startswith("data: ")
    assert set(lines[1:]) == {": keep-alive"}
    assert reply.headers["content-type"] == "text/event-stream"


def test_a_result_is_refused_while_the_job_runs_and_unknown_ids_are_not_found(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_PROGRESS")
    early = web.get(submit(web)["response_url"])
    unknown = web.get(QUEUE + f"{TEXT}/requests/no-such-id")
    assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
    assert (unknown.status_code, unknown.json()) == (404, {"status": "NOT_FOUND"})


def test_a_text_result_has_fals_shape_and_says_what_it_cost(box: Sandbox, web: httpx.Client) -> None:
    reply = result(web, box, TEXT)
    output = reply.json()
    assert reply.headers["x-fal-billable-units"] == "1"
    assert (output["reasoning"], output["partial"], output["error"]) == (None, False, None)
    assert set(output["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens", "cost"}
    assert output["output"]
    assert output["sandbox"] is True


@pytest.mark.parametrize(
    ("endpoint", "keys"),
    [
        ("openrouter/router/enterprise", {"output", "reasoning", "partial", "error", "usage"}),
        ("openrouter/router/vision", {"output", "usage"}),
        ("fal-ai/any-llm", {"output", "reasoning", "partial", "error"}),
        ("fal-ai/any-llm/enterprise", {"output", "reasoning", "partial", "error"}),
        ("fal-ai/any-llm/vision", {"output", "reasoning", "partial", "error"}),
    ],
)
def test_every_text_endpoint_answers_in_its_own_shape(
    box: Sandbox, web: httpx.Client, endpoint: str, keys: set[str]
) -> None:
    assert set(result(web, box, endpoint).json()) == keys | {"sandbox"}


def test_the_full_path_a_trailing_slash_and_response_are_understood_too(box: Sandbox, web: httpx.Client) -> None:
    job = submit(web, "openrouter/router/vision")
    ended(box, job["request_id"])
    full = f"{QUEUE}openrouter/router/vision/requests/{job['request_id']}"
    for url in (full, full + "/", full + "/response", job["response_url"] + "/response"):
        assert web.get(url).status_code == 200
    for url in (full + "/status", full + "/status/", job["status_url"] + "/"):
        assert web.get(url).json()["status"] == "COMPLETED"
    assert web.get(f"{QUEUE}fal-ai/birefnet/requests/{job['request_id']}").status_code == 404


def test_a_namespace_keeps_one_segment_more(box: Sandbox, web: httpx.Client) -> None:
    box.configure(any_endpoint=True)
    job = submit(web, "workflows/me/flow/deep", {"image_size": {"width": 8, "height": 8}})
    assert job["response_url"] == f"{QUEUE}workflows/me/flow/requests/{job['request_id']}"


def test_the_backup_domain_is_the_same_queue(box: Sandbox, web: httpx.Client) -> None:
    job = web.post("https://queue.falrun.com/" + TEXT, json=ASK).json()
    ended(box, job["request_id"])
    assert web.get(f"{QUEUE}{TEXT}/requests/{job['request_id']}").status_code == 200
    assert web.post("https://falrun.com/" + TEXT, json=ASK).status_code == 200


def test_a_waiting_job_is_removed_from_the_queue_by_a_cancel(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_QUEUE")
    job = submit(web)
    cancelled = web.put(job["cancel_url"])
    status, gone = web.get(job["status_url"]), web.get(job["response_url"])
    assert (cancelled.status_code, cancelled.json()) == (200, {"status": "OK"})
    assert (status.status_code, status.json()["error_type"]) == (200, "client_cancelled")
    assert (gone.status_code, gone.headers["x-fal-error-type"]) == (499, "client_cancelled")
    assert box.ledger()["cancelled"] == 1


def test_a_running_job_ends_as_cancelled_after_the_request(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_PROGRESS")
    job = submit(web)
    box.wait_for(lambda ledger: ledger["jobs"][0]["state"] == "IN_PROGRESS")
    first, second = web.put(job["cancel_url"]), web.put(job["cancel_url"])
    assert (first.status_code, first.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert (second.status_code, second.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert box.ledger()["jobs"][0]["cancel_requests"] == 2
    assert (box.ledger()["cancelled"], box.ledger()["billable"], box.ledger()["running"]) == (1, 0, 0)


def test_cancelling_an_unknown_job_is_not_found(web: httpx.Client) -> None:
    reply = web.put(f"{QUEUE}{TEXT}/requests/nope/cancel")
    assert (reply.status_code, reply.json()) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Fal-Request-Timeout": "0.1"},
        {"X-Fal-Request-Start-Timeout": "0.1", "X-Fal-Request-Timeout": "60"},
    ],
)
def test_a_job_not_started_in_time_ends_with_a_504_of_the_users_own(
    box: Sandbox, web: httpx.Client, headers: dict[str, Any]
) -> None:
    box.configure(queue=30)
    reply = result(web, box, TEXT, headers=headers)
    assert reply.status_code == 504
    assert reply.json()["error_type"] == reply.headers["x-fal-error-type"] == "request_timeout"
    assert reply.headers["x-fal-request-timeout-type"] == "user"
    assert box.ledger()["billable"] == 0


def test_a_started_job_does_not_mind_the_start_deadline(box: Sandbox, web: httpx.Client) -> None:
    box.configure(latency=0.3)
    assert result(web, box, TEXT, headers={"X-Fal-Request-Timeout": "0.1"}).status_code == 200


def test_a_queue_longer_than_the_caller_likes_is_a_429(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", stuck="IN_QUEUE", times=2)
    submit(web), submit(web)
    refused = web.post(QUEUE + TEXT, json=ASK, params={"fal_max_queue_length": 1})
    assert (refused.status_code, box.ledger()["accepted"]) == (429, 2)
    assert web.post(QUEUE + TEXT, json=ASK, params={"fal_max_queue_length": 2}).status_code == 200


def test_jobs_run_side_by_side(box: Sandbox, web: httpx.Client) -> None:
    box.configure(latency=60)
    for _ in range(GOOD):
        submit(web)
    box.wait_for(lambda ledger: [job["state"] for job in ledger["jobs"]] == ["IN_PROGRESS"] * GOOD)


def test_old_jobs_are_forgotten_but_stay_counted(
    box: Sandbox, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "KEPT_JOBS", 3)
    for _ in range(5):
        first = submit(web)
        ended(box, first["request_id"])
    assert (len(box.ledger()["jobs"]), box.ledger()["accepted"]) == (3, 5)


# ---------------------------------------------------------------- fal-client as it is


def test_the_bare_client_subscribes_and_sees_the_updates(box: Sandbox, fal: Any) -> None:
    box.configure(latency=0.6)
    updates: list[Any] = []
    answer = fal.subscribe(TEXT, ASK, with_logs=True, interval=0.02, on_queue_update=updates.append)
    assert answer["output"]
    assert isinstance(updates[-1], fal_client.Completed)
    assert any(isinstance(update, fal_client.InProgress) and update.logs for update in updates)


def test_the_bare_client_submits_polls_fetches_and_cancels(box: Sandbox, fal: Any) -> None:
    box.fault("job", stuck="IN_QUEUE", skip=1)
    handle = fal.submit(TEXT, ASK)
    assert fal.result(TEXT, handle.request_id)["output"]
    assert isinstance(fal.status(TEXT, handle.request_id), fal_client.Completed)
    waiting = fal.submit("openrouter/router/enterprise", ASK)
    assert fal.status("openrouter/router/enterprise", waiting.request_id) == fal_client.Queued(position=0)
    fal.cancel("openrouter/router/enterprise", waiting.request_id)
    with pytest.raises(FalClientHTTPError, match="ALREADY_COMPLETED"):
        fal.cancel("openrouter/router/enterprise", waiting.request_id)


def test_the_bare_client_runs_and_streams(fal: Any) -> None:
    whole = fal.run(TEXT, ASK)["output"]
    events = list(fal.stream(TEXT, ASK))
    assert events[-1]["output"] == whole
    assert events[-1]["partial"] is False


def test_the_bare_client_uploads_in_one_piece(box: Sandbox, fal: Any) -> None:
    url = fal.upload(b"some bytes", "text/plain", file_name="schöner name.txt".encode().decode("latin-1"))
    assert url.startswith(CDN)
    assert box.file(url) == b"some bytes"
    assert box.ledger()["files"] == 1


def test_the_bare_client_uploads_in_parts(box: Sandbox, fal: Any) -> None:
    data = bytes(range(256)) * 4096 * 101
    url = fal.upload(data, "application/zip", file_name="big.zip")
    assert box.file(url) == data
    assert sum(row["stage"] == "part" for row in box.journal()) == 11


def test_the_bare_client_falls_back_to_the_bucket_and_sends_its_key_there(box: Sandbox, fal: Any) -> None:
    box.fault("upload", status=500)
    url = fal.upload(b"bytes", "image/png", file_name="a.png")
    (put,) = [row for row in box.journal() if row["stage"] == "put"]
    assert box.file(url) == b"bytes"
    assert (put["host"], put["headers"]["authorization"]) == ("storage.googleapis.com", "Key")


def test_requests_works_by_environment_alone(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in box.env().items():
        monkeypatch.setenv(name, value)
    reply = requests.post(DIRECT + TEXT, json=ASK, headers=KEY, timeout=30)
    assert reply.json()["output"]


# ---------------------------------------------------------------- direct calls and streams


def test_a_direct_call_answers_on_the_same_connection(box: Sandbox, web: httpx.Client) -> None:
    reply = web.post(DIRECT + TEXT, json=ASK)
    (job,) = box.ledger()["jobs"]
    assert reply.json()["output"]
    assert reply.headers["x-fal-request-id"] == job["request_id"]
    assert (job["kind"], job["outcome"], job["billable"]) == ("direct", "ok", True)
    assert web.get(f"{QUEUE}{TEXT}/requests/{job['request_id']}").status_code == 404


def test_a_direct_call_is_charged_when_the_caller_hangs_up(box: Sandbox) -> None:
    box.configure(latency=0.3)
    with secure_socket(box) as caller:
        caller.sendall(raw_request("/" + TEXT, "fal.run"))
        box.wait_for(lambda ledger: ledger["accepted"] == 1)
    assert box.wait_for(lambda ledger: ledger["completed"] == 1)["billable"] == 1


def test_a_stream_is_cumulative_and_repeats_the_last_text_as_the_end(box: Sandbox, web: httpx.Client) -> None:
    box.say("One two three four five six seven eight nine ten.", endpoint=TEXT)
    with connect_sse(web, "POST", DIRECT + TEXT + "/stream", json=ASK) as source:
        events = [(event.event, json.loads(event.data)) for event in source.iter_sse()]
    texts = [event["output"] for _, event in events]
    assert {name for name, _ in events} == {"event"}
    assert len(events) == 9
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert texts[-1] == texts[-2] == "One two three four five six seven eight nine ten."
    assert [event["partial"] for _, event in events] == [True] * 8 + [False]
    assert "usage" in events[-1][1]
    assert "usage" not in events[0][1]
    assert box.ledger()["jobs"][0]["kind"] == "stream"


def test_a_stream_is_spread_over_the_latency(box: Sandbox, web: httpx.Client) -> None:
    box.configure(latency=0.8)
    started = time.monotonic()
    with connect_sse(web, "POST", DIRECT + TEXT + "/stream", json=ASK) as source:
        moments = [time.monotonic() - started for _ in source.iter_sse()]
    assert len(moments) == 9
    assert all(moment >= 0.1 * number - 0.01 for number, moment in enumerate(moments[:8], 1))
    # Not all of it at the end either: at the first event the job still runs.
    box.configure(latency=16)
    with connect_sse(web, "POST", DIRECT + TEXT + "/stream", json=ASK) as source:
        next(source.iter_sse())
        assert box.ledger()["running"] == 1


def test_a_stream_refuses_bad_input_with_a_plain_answer(web: httpx.Client) -> None:
    reply = web.post(DIRECT + TEXT + "/stream", json={"prompt": "x"})
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/json")


def test_an_error_in_the_output_comes_in_band_at_the_end_of_a_stream(box: Sandbox, web: httpx.Client) -> None:
    box.fault("job", output={"output": "so far", "error": "the model gave up"})
    events = events_of(web, "POST", DIRECT + TEXT + "/stream", json=ASK)
    assert (events[-1]["error"], events[-1]["partial"]) == ("the model gave up", False)


def test_a_stream_is_charged_when_the_caller_hangs_up(box: Sandbox, web: httpx.Client) -> None:
    box.configure(latency=0.3)
    with connect_sse(web, "POST", DIRECT + TEXT + "/stream", json=ASK) as source:
        next(source.iter_sse())
    assert box.wait_for(lambda ledger: ledger["completed"] == 1)["billable"] == 1


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        (None, 401, "Authentication"),
        ("Key nonsense", 401, "invalid key credentials"),
        ("Key a b:c", 401, "invalid key credentials"),
        ("Basic YTpi", 401, "invalid key credentials"),
        ("Bearer a:b", 401, "decode"),
        ("Key bad:secret", 401, "No user found for Key ID and Secret"),
        ("Key broke:secret", 403, "Exhausted balance"),
        ("Key noscope:secret", 403, "API scope"),
    ],
)
@pytest.mark.parametrize("url", [QUEUE + TEXT, DIRECT + TEXT, DIRECT + TEXT + "/stream", REST + "storage/auth/token"])
def test_a_key_that_fal_would_refuse_is_refused(
    box: Sandbox, url: str, given: str | None, status: int, text: str
) -> None:
    with client_of(box) as web:
        web.headers.pop("Authorization")
        reply = web.post(url, json=ASK, headers={} if given is None else {"Authorization": given})
    assert reply.status_code == status
    assert text in reply.json()["detail"]
    assert box.ledger()["accepted"] == 0


def test_a_bad_key_is_told_apart_on_a_status_and_none_is_let_through(web: httpx.Client) -> None:
    url = f"{QUEUE}{TEXT}/requests/made-up/status"
    assert web.get(url, headers={"Authorization": "Key bad:x"}).status_code == 401
    web.headers.pop("Authorization")
    assert web.get(url).status_code == 404


def test_a_key_never_reaches_the_journal(box: Sandbox, web: httpx.Client) -> None:
    web.post(DIRECT + TEXT, json=ASK, headers={"Authorization": "Key the-id:the-secret"})
    web.post(DIRECT + TEXT, json=ASK, headers={"Authorization": "the-id:the-secret"})
    assert "the-secret" not in json.dumps(box.journal())
    assert [row["headers"]["authorization"] for row in box.journal()] == ["Key", "?"]


# ---------------------------------------------------------------- endpoints and their fields


@pytest.mark.parametrize(
    ("endpoint", "given", "field", "kind"),
    [
        (TEXT, {"model": "x"}, "prompt", "missing"),
        (TEXT, {"prompt": "x"}, "model", "missing"),
        (TEXT, {**ASK, "prompt": 7}, "prompt", "string_type"),
        (TEXT, {**ASK, "prompt": None}, "prompt", "string_type"),
        (TEXT, {**ASK, "temperature": 2.1}, "temperature", "less_than_equal"),
        (TEXT, {**ASK, "temperature": -0.1}, "temperature", "greater_than_equal"),
        (TEXT, {**ASK, "temperature": "hot"}, "temperature", "float_parsing"),
        (TEXT, {**ASK, "max_tokens": 0}, "max_tokens", "greater_than_equal"),
        (TEXT, {**ASK, "max_tokens": 1.5}, "max_tokens", "int_from_float"),
        (TEXT, {**ASK, "max_tokens": "many"}, "max_tokens", "int_parsing"),
        (TEXT, {**ASK, "reasoning": "perhaps"}, "reasoning", "bool_parsing"),
        (TEXT, {**ASK, "web_search_options": []}, "web_search_options", "dict_type"),
        ("openrouter/router/vision", {**ASK, "image_urls": PHOTO}, "image_urls", "list_type"),
        ("fal-ai/any-llm", {"prompt": "x", "priority": "speed"}, "priority", "literal_error"),
        ("fal-ai/bria/background/remove", {}, "image_url", "missing"),
        ("fal-ai/bria/background/replace", {"image_url": PHOTO}, None, "value_error"),
        (
            "fal-ai/bria/background/replace",
            {"image_url": PHOTO, "prompt": "x", "ref_image_url": PHOTO},
            None,
            "value_error",
        ),
        ("fal-ai/birefnet/v2", {"image_url": PHOTO, "model": "Huge"}, "model", "literal_error"),
        ("fal-ai/nano-banana/edit", {"prompt": "x"}, "image_urls", "missing"),
        ("fal-ai/nano-banana/edit", {"prompt": "x", "image_urls": []}, "image_urls", "too_short"),
        ("fal-ai/nano-banana-2/edit", {"prompt": "x", "image_urls": [PHOTO], "num_images": 5}, "num_images", None),
    ],
)
def test_a_field_that_does_not_fit_is_a_free_422(
    box: Sandbox,
    web: httpx.Client,
    endpoint: str,
    given: dict[Any, Any] | dict[str, Any],
    field: str | None,
    kind: str | None,
) -> None:
    reply = result(web, box, endpoint, given)
    (error,) = reply.json()["detail"]
    assert (reply.status_code, reply.headers["x-fal-billable-units"]) == (422, "0")
    assert error["loc"] == (["body"] if field is None else ["body", field])
    assert error["type"] == (kind or "less_than_equal")
    assert error["msg"]
    assert "input" in error
    assert (box.ledger()["failed"], box.ledger()["billable"]) == (1, 0)


def test_every_wrong_field_is_listed_at_once(web: httpx.Client) -> None:
    reply = web.post(DIRECT + TEXT, json={"temperature": 9})
    assert [error["loc"][-1] for error in reply.json()["detail"]] == ["prompt", "temperature", "model"]


@pytest.mark.parametrize("body", [b"{", b"", b"[1]", b'"text"', b'{"prompt": NaN}'])
def test_a_body_that_is_no_object_is_a_422(web: httpx.Client, body: bytes) -> None:
    reply = web.post(DIRECT + TEXT, content=body)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"][0] == "body"


def test_numbers_may_be_spelled_as_strings_and_unknown_fields_pass(web: httpx.Client) -> None:
    given = {
        **ASK,
        "temperature": "0.5",
        "max_tokens": "10",
        "reasoning": "true",
        "unheard_of": 1,
        "system_prompt": None,
    }
    reply = web.post(DIRECT + TEXT, json=given)
    assert reply.status_code == 200
    assert reply.json()["reasoning"]


def test_an_unknown_application_is_refused_at_submit(box: Sandbox, web: httpx.Client) -> None:
    for url in (QUEUE + "someone/nothing", DIRECT + "someone/nothing/at-all"):
        reply = web.post(url, json=ASK)
        assert (reply.status_code, reply.json()) == (404, {"detail": 'Application "nothing" not found'})
    assert box.ledger()["accepted"] == 0


def test_an_unknown_path_is_accepted_by_the_queue_and_fails_for_free(box: Sandbox, web: httpx.Client) -> None:
    reply = result(web, box, TEXT + "/nope")
    direct = web.post(DIRECT + TEXT + "/nope", json=ASK)
    assert (reply.status_code, reply.json()) == (404, {"detail": "Path /nope not found"})
    assert reply.headers["x-fal-billable-units"] == "0"
    assert (direct.status_code, direct.json()) == (404, {"detail": "Path /nope not found"})
    assert (box.ledger()["accepted"], box.ledger()["billable"]) == (1, 0)


@pytest.mark.parametrize(
    ("how", "status", "text"),
    [("", 404, "Application"), ("=410", 410, "gone"), ("=deprecated", 422, "is deprecated and no longer supported")],
)
def test_an_endpoint_that_is_gone_is_refused_in_the_way_that_was_set(
    box: Sandbox, web: httpx.Client, how: str, status: int, text: str
) -> None:
    box.configure(gone=["openrouter/router/vision" + how])
    for url in (QUEUE, DIRECT):
        reply = web.post(url + "openrouter/router/vision", json=ASK)
        assert reply.status_code == status
        assert text in reply.json()["detail"]
    assert web.post(DIRECT + TEXT, json=ASK).status_code == 200


GONE_MODELS = [
    ("", 404, "No endpoints found for M."),
    ("=404", 404, "No endpoints found for M."),
    ("=400", 400, "M is no longer available"),
    ("=422", 422, "M is not a valid model ID"),
    ("=completed", 500, "Internal Server Error"),
    ("=error", 200, "No endpoints found for M."),
]


@pytest.mark.parametrize(("how", "status", "text"), GONE_MODELS)
def test_a_model_that_is_gone_is_refused_in_the_way_that_was_set_and_costs_nothing(
    box: Sandbox, web: httpx.Client, how: str, status: int, text: str
) -> None:
    box.configure(gone_models=["M" + how])
    reply = result(web, box, TEXT, {**ASK, "model": "M"})
    assert (reply.status_code, text in reply.text) == (status, True)
    assert (box.ledger()["accepted"], box.ledger()["billable"]) == (1, 0)
    assert result(web, box, TEXT, {**ASK, "model": "M-lite"}).status_code == 200


@pytest.mark.parametrize("how", ["404", "400", "422", "completed", "error"])
def test_a_stream_says_that_a_model_is_gone_by_its_status_or_in_an_event(
    box: Sandbox, web: httpx.Client, how: str
) -> None:
    box.configure(gone_models=[f"M={how}"])
    reply = web.post(DIRECT + TEXT + "/stream", json={**ASK, "model": "M"})
    assert reply.status_code == (int(how) if how.isdigit() else 200)
    assert ('"error":"No endpoints found for M."' in reply.text) is not how.isdigit()


def test_the_status_of_a_job_may_be_all_that_says_that_its_model_is_gone(box: Sandbox, web: httpx.Client) -> None:
    box.configure(gone_models=["M=completed"])
    job = web.post(QUEUE + TEXT, json={**ASK, "model": "M"}).json()
    box.wait_for(lambda ledger: ledger["running"] == 0)
    assert web.get(job["status_url"]).json()["error"] == "No endpoints found for M."


def test_a_way_to_be_gone_that_there_is_none_is_refused(box: Sandbox) -> None:
    with pytest.raises(ValueError, match="HOW one of 404"):
        box.configure(gone_models=["M=418"])


def test_a_model_that_must_reason_refuses_to_be_asked_without_and_uses_up_its_tokens(
    box: Sandbox, web: httpx.Client
) -> None:
    box.configure(must_reason=["M"])
    without = result(web, box, TEXT, {**ASK, "model": "M"})
    assert (without.status_code, "Reasoning is mandatory" in without.text) == (400, True)
    assert result(web, box, TEXT, {**ASK, "model": "M", "reasoning": True}).json()["output"]
    cut = result(web, box, TEXT, {**ASK, "model": "M", "reasoning": True, "max_tokens": 20}).json()
    assert (cut["output"], cut["error"], cut["usage"]["completion_tokens"]) == ("", None, 20)


def test_an_error_answer_to_a_submit_that_was_accepted_names_its_job(box: Sandbox, web: httpx.Client) -> None:
    box.fault("submit", status=500, accept=True)
    reply = web.post(QUEUE + TEXT, json=ASK)
    assert reply.status_code == 500
    assert reply.headers["x-fal-request-id"] == box.ledger()["jobs"][0]["request_id"]


def test_any_endpoint_answers_with_pictures_of_the_size_asked_for(box: Sandbox, web: httpx.Client) -> None:
    box.configure(any_endpoint=True)
    given = {"prompt": "a mug", "image_size": {"width": 40, "height": 30}, "num_images": 2, "seed": 7}
    output = result(web, box, "fal-ai/flux/dev", given).json()
    assert (output["seed"], output["prompt"], output["has_nsfw_concepts"]) == (7, "a mug", [False, False])
    assert "inference" in output["timings"]
    assert [(image["width"], image["height"]) for image in output["images"]] == [(40, 30), (40, 30)]
    assert web.get(output["images"][0]["url"]).content.startswith(b"\x89PNG")
    assert box.ledger()["units"] == 2


@pytest.mark.parametrize(("name", "size"), [("square", (512, 512)), ("landscape_16_9", (1024, 576))])
def test_any_endpoint_knows_fals_names_for_sizes(
    web: httpx.Client, box: Sandbox, name: str, size: tuple[Any, ...]
) -> None:
    box.configure(any_endpoint=True)
    image = web.post(DIRECT + "x/y", json={"image_size": name}).json()["images"][0]
    assert (image["width"], image["height"]) == size


@pytest.mark.parametrize("size", ["huge", {"width": 0, "height": 5}, {"width": 99999}, 7])
def test_any_endpoint_refuses_sizes_it_cannot_paint(
    web: httpx.Client, box: Sandbox, size: dict[str, Any] | int | str
) -> None:
    box.configure(any_endpoint=True)
    assert web.post(DIRECT + "x/y", json={"image_size": size}).status_code == 422


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("endpoint", "given"),
    [
        ("bria/replace-background", {"image_url": "small", "prompt": "studio"}),
        ("fal-ai/bria/background/replace", {"image_url": "small", "prompt": "studio"}),
        ("fal-ai/bria/background/replace", {"image_url": "small", "ref_image_url": "small"}),
        ("fal-ai/bria/background/remove", {"image_url": "small"}),
        ("fal-ai/birefnet/v2", {"image_url": "small"}),
        ("fal-ai/nano-banana/edit", {"prompt": "studio", "image_urls": ["small"]}),
        ("fal-ai/nano-banana-2/edit", {"prompt": "studio", "image_urls": ["small"], "resolution": "2K"}),
    ],
)
def test_every_picture_endpoint_answers_with_a_png_one_can_download(
    box: Sandbox, web: httpx.Client, endpoint: str, given: dict[str, Any]
) -> None:
    url = box.put_file(tiny_png(120, 90), "small.png", "image/png")
    reply = result(web, box, endpoint, json.loads(json.dumps(given).replace("small", url)))
    output = reply.json()
    image = output.get("image") or output["images"][0]
    data = web.get(image["url"])
    assert reply.headers["x-fal-billable-units"] == "1"
    assert set(image) == {"url", "content_type", "file_name", "file_size", "width", "height"}
    assert image["content_type"] == data.headers["content-type"] == "image/png"
    assert data.content.startswith(b"\x89PNG")
    assert len(data.content) == image["file_size"]
    assert "sandbox" in image["url"]


def test_sync_mode_puts_the_picture_into_the_url(web: httpx.Client) -> None:
    output = web.post(DIRECT + "fal-ai/bria/background/remove", json={"image_url": PHOTO, "sync_mode": True}).json()
    head, _, data = output["image"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_replace_background_without_a_picture_makes_one_of_somebody_elses_product(web: httpx.Client) -> None:
    reply = web.post(DIRECT + "bria/replace-background", json={"prompt": "x", "imageurl": "a typing error"})
    assert reply.status_code == 200
    assert reply.headers["x-fal-billable-units"] == "1"


def test_an_image_is_taken_from_the_cdn_a_data_uri_or_a_sample_host(box: Sandbox, web: httpx.Client) -> None:
    png = web.get(PHOTO).content
    urls = [
        box.put_file(png, "a.jpg", "image/jpeg"),
        "data:image/jpeg;base64," + base64.b64encode(png).decode(),
        PHOTO,
    ]
    for url in urls:
        reply = web.post(DIRECT + "openrouter/router/vision", json={**ASK, "image_urls": [url]})
        assert reply.status_code == 200, url


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://cdn.shop.test/a.png", "file_download_error"),
        ("https://v3.fal.media/files/sandbox/nothing.png", "file_download_error"),
        ("not a url", "file_download_error"),
        ("https://[half-an-address/x.png", "file_download_error"),
        ("data:image/png;base64,@@@", "file_download_error"),
        ("data:text/plain,hello", "image_load_error"),
    ],
)
@pytest.mark.parametrize("endpoint", ["openrouter/router/vision", "fal-ai/bria/background/remove"])
def test_an_image_that_cannot_be_had_or_read_is_a_model_error(
    box: Sandbox, web: httpx.Client, endpoint: str, url: str, kind: str
) -> None:
    given = {"image_url": url} if "bria" in endpoint else {**ASK, "image_urls": [url]}
    reply = result(web, box, endpoint, given)
    (error,) = reply.json()["detail"]
    assert (reply.status_code, error["type"]) == (422, kind)
    assert error["url"] == f"https://docs.fal.ai/errors/#{kind}"
    assert "x-fal-billable-units" not in reply.headers
    assert box.ledger()["billable"] == 1


def test_a_picture_that_is_broken_behind_its_header_is_a_model_error(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(tiny_png(64, 64)[:60], "cut.png", "image/png")
    reply = web.post(DIRECT + "fal-ai/bria/background/remove", json={"image_url": url})
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, "image_load_error")


def test_a_host_that_was_named_serves_sample_photos(web: httpx.Client) -> None:
    with Sandbox(hosts=["cdn.shop.test", "*.pictures.test"]) as box, client_of(box) as client:
        assert client.get("https://cdn.shop.test/mug.jpg").content.startswith(b"\xff\xd8")
        assert client.get("https://a.b.pictures.test/mug.jpg").status_code == 200
        given = {**ASK, "image_urls": ["https://cdn.shop.test/mug.jpg"]}
        assert client.post(DIRECT + "openrouter/router/vision", json=given).status_code == 200


# ---------------------------------------------------------------- storage


def token_of(web: httpx.Client) -> dict[str, Any]:
    reply = web.post(REST + "storage/auth/token?storage_type=fal-cdn-v3", json={})
    return {"Authorization": f"{reply.json()['token_type']} {reply.json()['token']}"}


def test_the_upload_token_says_when_it_ends_with_an_offset(web: httpx.Client) -> None:
    token = web.post(REST + "storage/auth/token?storage_type=fal-cdn-v3", json={}).json()
    assert set(token) == {"token", "token_type", "base_url", "expires_at"}
    assert (token["token_type"], token["base_url"]) == ("Bearer", "https://v3.fal.media")
    assert token["expires_at"].endswith("+00:00")


def test_the_cdn_takes_only_its_own_token(web: httpx.Client) -> None:
    for headers in ({}, {"Authorization": "Bearer other"}, KEY):
        reply = web.post(CDN + "files/upload", content=b"x", headers=headers)
        assert reply.status_code == 401
    assert web.post(CDN + "files/upload", content=b"x", headers=token_of(web)).status_code == 200


def test_a_token_outlives_a_reset(box: Sandbox, web: httpx.Client) -> None:
    token = token_of(web)
    box.reset()
    assert web.post(CDN + "files/upload", content=b"x", headers=token).status_code == 200


def test_parts_may_come_in_any_order(box: Sandbox, web: httpx.Client) -> None:
    begun, base = begin_parts(web)
    etags = {number: put_part(web, base, number, data) for number, data in ((2, b"two"), (1, b"one"), (3, b"!"))}
    listed = [{"partNumber": number, "etag": etag} for number, etag in etags.items()]
    assert web.post(base + "/complete", json={"parts": listed}, headers=token_of(web)).status_code == 200
    assert box.file(begun["access_url"]) == b"onetwo!"


@pytest.mark.parametrize(
    "listed",
    [
        lambda etags: [{"partNumber": 1, "etag": etags[1]}],
        lambda etags: [{"partNumber": 1, "etag": etags[2]}, {"partNumber": 2, "etag": etags[1]}],
        lambda etags: [{"partNumber": number, "etag": etags.get(number, "?")} for number in (1, 2, 3)],
        lambda etags: [],
        lambda etags: [{"number": 1}],
        lambda etags: None,
    ],
)
def test_a_wrong_list_of_parts_is_a_400_and_no_file(box: Sandbox, web: httpx.Client, listed: Any) -> None:
    begun, base = begin_parts(web)
    etags = {number: put_part(web, base, number, b"x" * number) for number in (1, 2)}
    reply = web.post(base + "/complete", json={"parts": listed(etags)}, headers=token_of(web))
    assert reply.status_code == 400
    assert web.get(begun["access_url"]).status_code == 404


def begin_parts(web: httpx.Client) -> tuple[Any, ...]:
    headers = {**token_of(web), "X-Fal-File-Name": "parts.bin"}
    begun = web.post(CDN + "files/upload/multipart", headers=headers).json()
    return begun, f"{begun['access_url']}/multipart/{begun['uploadId']}"


def put_part(web: httpx.Client, base: Any, number: Any, data: Any) -> Any:
    reply = web.put(f"{base}/{number}", content=data, headers=token_of(web))
    assert reply.headers["etag"] == reply.json()["etag"]
    return reply.headers["etag"]


def test_parts_of_an_unknown_upload_are_not_found(web: httpx.Client) -> None:
    assert web.put(CDN + "files/x/multipart/nope/1", content=b"x", headers=token_of(web)).status_code == 404


@pytest.mark.parametrize(("kind", "host"), [("gcs", "storage.googleapis.com"), ("fal-cdn-v3", "v3.fal.media")])
def test_an_initiated_upload_is_put_without_a_key(box: Sandbox, web: httpx.Client, kind: str, host: str) -> None:
    asked = {"file_name": "bir görsel.png", "content_type": "image/png"}
    urls = web.post(REST + f"storage/upload/initiate?storage_type={kind}", json=asked).json()
    web.headers.pop("Authorization")
    assert web.get(urls["file_url"]).status_code == 404
    assert urlsplit(urls["upload_url"]).hostname == host
    assert web.put(urls["upload_url"], content=b"data", headers={"Content-Type": "image/png"}).status_code == 200
    reply = web.get(urls["file_url"])
    assert (reply.content, reply.headers["content-type"]) == (b"data", "image/png")
    assert box.journal()[-2]["headers"]["authorization"] is None


def test_an_initiated_upload_in_parts_works_as_fal_js_does_it(box: Sandbox, web: httpx.Client) -> None:
    urls = web.post(REST + "storage/upload/initiate-multipart", json={"file_name": "a.bin"}).json()
    web.headers.pop("Authorization")
    base, _, query = urls["upload_url"].partition("?")
    parts = [web.put(f"{base}/{number}?{query}", content=b"%d" % number).json() for number in (1, 2)]
    assert web.post(f"{base}/complete?{query}", json={"parts": parts}).status_code == 200
    assert box.file(urls["file_url"]) == b"12"


def test_initiating_without_a_name_is_a_422(web: httpx.Client) -> None:
    assert web.post(REST + "storage/upload/initiate?storage_type=gcs", json={}).status_code == 422


def test_a_put_to_an_unknown_presigned_url_is_not_found(web: httpx.Client) -> None:
    assert web.put("https://storage.googleapis.com/sandbox-uploads/x/y", content=b"x").status_code == 404


def test_a_file_downloads_without_a_key_with_its_type_size_and_tag(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(b"0123456789", "digits.txt", "text/plain")
    web.headers.pop("Authorization")
    reply, head = web.get(url), web.head(url)
    assert reply.content == b"0123456789"
    assert head.content == b""
    for headers in (reply.headers, head.headers):
        assert (headers["content-type"], headers["content-length"]) == ("text/plain", "10")
        assert headers["etag"]
    old = url.replace("v3.fal.media", "v3b.fal.media")
    assert web.get(old).content == b"0123456789"


@pytest.mark.parametrize(
    ("asked", "status", "data", "where"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
    ],
)
def test_a_range_of_a_file_is_sent_alone(
    box: Sandbox, web: httpx.Client, asked: str, status: int, data: bytes, where: str
) -> None:
    url = box.put_file(b"0123456789", "digits.txt", "text/plain")
    reply = web.get(url, headers={"Range": asked})
    assert (reply.status_code, reply.content, reply.headers["content-range"]) == (status, data, where)


def test_a_caller_who_leaves_a_download_is_noticed(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(bytes(100_000_000), "large.bin", "image/png")
    with client_of(box) as other, other.stream("GET", url) as reply:
        next(reply.iter_raw())
    box.wait_for(lambda _: box.journal()[0]["note"] == "caller gone")


def test_the_oldest_files_go_when_there_are_too_many_bytes(box: Sandbox) -> None:
    import random

    files = Files(random.Random(0), limit_bytes=25)
    first, second, third = (files.keep([b"x" * 10], name, "a/b") for name in ("1", "2", "3"))
    kept = [files.find(urlsplit(url).path) is not None for url in (first, second, third)]
    assert kept == [False, True, True]


# ---------------------------------------------------------------- webhooks


class Receiver:
    """A webhook target that answers with the statuses it was given, then 200."""

    def __init__(self, *statuses: Any) -> None:
        self.statuses = list(statuses)
        self.got: list[Any] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.got.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=1&b=2"

    def __enter__(self) -> Any:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def delivered(box: Sandbox, outcome: str = "delivered") -> Any:
    return box.wait_for(lambda ledger: [job["webhook"] for job in ledger["jobs"]] == [outcome])


def test_a_webhook_carries_the_answer_and_a_signature_that_verifies(box: Sandbox, web: httpx.Client) -> None:
    with Receiver() as receiver:
        job = submit(web, params={"fal_webhook": receiver.url})
        delivered(box)
    headers, body = receiver.got[0]
    message = json.loads(body)
    assert message["request_id"] == message["gateway_request_id"] == job["request_id"]
    assert (message["status"], bool(message["payload"]["output"])) == ("OK", True)
    key = web.get(REST + ".well-known/jwks.json").json()["keys"][0]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
    signed = "\n".join(
        [
            headers["X-Fal-Webhook-Request-Id"],
            headers["X-Fal-Webhook-User-Id"],
            headers["X-Fal-Webhook-Timestamp"],
            hashlib.sha256(body).hexdigest(),
        ]
    ).encode()
    signature = bytes.fromhex(headers["X-Fal-Webhook-Signature"])
    public.verify(signature, signed)
    with pytest.raises(InvalidSignature):
        public.verify(signature, signed + b" ")
    assert abs(int(headers["X-Fal-Webhook-Timestamp"]) - time.time()) < 300


def test_a_webhook_of_a_failed_job_says_error(box: Sandbox, web: httpx.Client) -> None:
    with Receiver() as receiver:
        submit(web, given={"prompt": "x"}, params={"fal_webhook": receiver.url})
        delivered(box)
    message = json.loads(receiver.got[0][1])
    assert (message["status"], message["error"]) == ("ERROR", "Invalid status code: 422")
    assert message["payload"]["detail"][0]["type"] == "missing"


def test_a_webhook_is_tried_again_until_it_arrives(box: Sandbox, web: httpx.Client) -> None:
    with Receiver(500, 404) as receiver:
        submit(web, params={"fal_webhook": receiver.url})
        delivered(box)
    assert len(receiver.got) == 3
    assert box.webhooks()[0]["tries"] == [500, 404, 200]


def test_a_webhook_that_never_arrives_has_failed(
    box: Sandbox, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PAUSES_S", (0.01,))
    with Receiver(500, 500, 500) as receiver:
        submit(web, params={"fal_webhook": receiver.url})
        delivered(box, "failed")
    assert len(receiver.got) == 2


def test_a_redirected_webhook_has_failed_at_once(box: Sandbox, web: httpx.Client) -> None:
    with Receiver(302) as receiver:
        submit(web, params={"fal_webhook": receiver.url})
        delivered(box, "failed")
    assert len(receiver.got) == 1


def test_a_webhook_address_that_is_none_is_dropped(box: Sandbox, web: httpx.Client) -> None:
    submit(web, params={"fal_webhook": "http://[half"})
    delivered(box, "dropped")


def test_a_webhook_that_would_leave_this_machine_is_dropped(box: Sandbox, web: httpx.Client) -> None:
    submit(web, params={"fal_webhook": "https://hooks.shop.test/fal?x=1"})
    delivered(box, "dropped")
    (row,) = [row for row in box.journal() if row["stage"] == "webhook"]
    assert (row["host"], row["note"], row["query"]) == ("hooks.shop.test", "dropped", "x=1")


# ---------------------------------------------------------------- faults


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


# ---------------------------------------------------------------- ledger, journal, control


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


def connect(box: Sandbox, target: Any) -> tuple[Any, ...]:
    with socket.create_connection(("127.0.0.1", box.port), timeout=30) as raw:
        raw.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        data = b""
        while chunk := raw.recv(4096):
            data += chunk
    head, _, body = data.decode().partition("\r\n\r\n")
    return head, body


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


def raw_request(path: Any, host: Any) -> bytes:
    """The bytes of a good POST, for a caller that decides itself when it leaves."""
    body = json.dumps(ASK).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Key a:b\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def secure_socket(box: Sandbox, host: str = "fal.run") -> Any:
    raw = socket.create_connection(("127.0.0.1", box.port), timeout=30)
    raw.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
    assert b" 200 " in raw.recv(200)
    return ssl.create_default_context(cafile=box.ca_file).wrap_socket(raw, server_hostname=host)


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
