"""The sandbox's queue, direct calls, streams and keys, through real clients."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import fal_client
import httpx
import pytest
import requests
from fal_client.client import FalClientHTTPError
from httpx_sse import connect_sse

import wire
from fal_sandbox import job_store, queue_api
from fal_sandbox.server import Sandbox
from wire import (
    ASK,
    CDN,
    DIRECT,
    GOOD,
    KEY,
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
)

box = wire.box
web = wire.web


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


@pytest.mark.nightly
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
