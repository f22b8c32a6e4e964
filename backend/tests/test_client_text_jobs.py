"""Jobs that are submitted and asked for later: submit, status, result, cancel and the webhook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import NotFound, NotReady
from services.fal_service import FalClient

UNKNOWN = "00000000-0000-4000-8000-000000000000"
STATUS_KEYS = {"request_id", "status", "queue_position", "logs", "metrics", "error", "error_type"}
RESULT_KEYS = {"output", "reasoning", "partial", "error", "raw"}


def ended(box: Sandbox, request_id: str) -> None:
    box.wait_for(lambda ledger: any(job["request_id"] == request_id and job["outcome"] for job in ledger["jobs"]))


def running(box: Sandbox, request_id: str) -> None:
    def runs(ledger: Any) -> bool:
        return any(job["request_id"] == request_id and job["state"] == "IN_PROGRESS" for job in ledger["jobs"])

    box.wait_for(runs)


# ---------------------------------------------------------------- submit


def test_submit_returns_the_id_at_once_while_the_job_has_not_even_begun(box: Sandbox, client: FalClient) -> None:
    box.fault("job", stuck="IN_QUEUE")
    request_id = client.any_llm_submit("Hello")
    [job] = box.ledger()["jobs"]
    assert (request_id, job["state"]) == (job["request_id"], "IN_QUEUE")
    assert job["input"] == {"prompt": "Hello", "model": "google/gemini-2.5-flash-lite", "temperature": 0.7}
    assert [row["stage"] for row in box.journal()] == ["submit"]


def test_submit_sends_every_argument_and_tells_the_endpoint_when_asked(box: Sandbox, client: FalClient) -> None:
    told = client.submit_job("Hi", system_prompt="Brief.", model="openai/gpt-4o", temperature=1, max_tokens=7)
    [job] = box.ledger()["jobs"]
    assert told == {"request_id": job["request_id"], "endpoint": "openrouter/router"}
    given = {"prompt": "Hi", "system_prompt": "Brief.", "model": "openai/gpt-4o", "temperature": 1, "max_tokens": 7}
    assert job["input"] == given


def test_a_submitted_job_has_no_start_deadline_and_one_that_is_waited_for_has_one(
    box: Sandbox, client: FalClient
) -> None:
    client.any_llm_submit("Hello")
    client.any_llm_complete("Hello", timeout=15)
    alone, waited_for = (row["headers"] for row in box.journal() if row["stage"] == "submit")
    assert "x-fal-request-start-timeout" not in alone
    assert 10 < float(waited_for["x-fal-request-start-timeout"]) <= 15
    assert 10 < float(waited_for["x-fal-request-timeout"]) <= 15


# ---------------------------------------------------------------- status


def test_the_status_of_a_waiting_job_tells_its_place(box: Sandbox, client: FalClient) -> None:
    box.fault("job", stuck="IN_QUEUE", times=2)
    first, second = client.any_llm_submit("a"), client.any_llm_submit("b")
    assert client.any_llm_status(first)["queue_position"] == 0
    status = client.any_llm_status(second)
    assert set(status) == STATUS_KEYS
    assert (status["request_id"], status["status"], status["queue_position"]) == (second, "IN_QUEUE", 1)
    assert (status["error"], status["error_type"], status["metrics"]) == (None, None, None)


def test_the_status_of_a_running_job_carries_its_logs(box: Sandbox, client: FalClient) -> None:
    box.fault("job", stuck="IN_PROGRESS")
    request_id = client.any_llm_submit("Hello")
    running(box, request_id)
    status = client.any_llm_status(request_id)
    assert set(status) == STATUS_KEYS
    assert (status["status"], status["queue_position"]) == ("IN_PROGRESS", None)
    assert status["logs"][0]["message"] == "sandbox: openrouter/router started"


def test_the_status_of_a_finished_job_carries_its_metrics(box: Sandbox, client: FalClient) -> None:
    request_id = client.any_llm_submit("Hello")
    ended(box, request_id)
    status = client.any_llm_status(request_id)
    assert (status["status"], status["error"]) == ("COMPLETED", None)
    assert status["metrics"]["inference_time"] >= 0


def test_the_status_of_a_failed_job_is_completed_with_the_error(box: Sandbox, client: FalClient) -> None:
    box.fault("job", fail={"error": "Runner disconnected", "error_type": "runner_disconnected"})
    request_id = client.any_llm_submit("Hello")
    ended(box, request_id)
    status = client.any_llm_status(request_id)
    assert status["status"] == "COMPLETED"
    assert (status["error"], status["error_type"]) == ("Runner disconnected", "runner_disconnected")


@pytest.mark.parametrize(("with_logs", "asked", "got"), [(True, "1", list), (False, "0", type(None))])
def test_logs_are_asked_for_unless_they_are_not_wanted(
    box: Sandbox, client: FalClient, with_logs: bool, asked: str, got: Any
) -> None:
    request_id = client.any_llm_submit("Hello")
    status = client.any_llm_status(request_id, with_logs)
    assert type(status["logs"]) is got
    assert parse_qs(box.journal()[-1]["query"]) == {"logs": [asked]}


def test_the_status_of_an_unknown_job_raises_not_found_with_its_id(box: Sandbox, client: FalClient) -> None:
    with pytest.raises(NotFound) as caught:
        client.any_llm_status(UNKNOWN)
    assert (caught.value.request_id, caught.value.status_code) == (UNKNOWN, 404)
    assert UNKNOWN in str(caught.value)


# ---------------------------------------------------------------- result


def test_the_result_of_a_finished_job_has_the_shape_of_complete(box: Sandbox, client: FalClient) -> None:
    box.say("Merhaba")
    request_id = client.any_llm_submit("Hello")
    ended(box, request_id)
    result = client.any_llm_result(request_id)
    assert set(result) == RESULT_KEYS | {"request_id", "usage", "billable_units", "cost_usd"}
    assert (result["output"], result["error"], result["raw"]["output"]) == ("Merhaba", None, "Merhaba")
    assert (result["request_id"], result["billable_units"]) == (request_id, 1)
    assert client.any_llm_result(request_id) == result


@pytest.mark.parametrize("state", ["IN_QUEUE", "IN_PROGRESS"])
def test_the_result_of_an_unfinished_job_raises_not_ready(box: Sandbox, client: FalClient, state: str) -> None:
    box.fault("job", stuck=state)
    request_id = client.any_llm_submit("Hello")
    with pytest.raises(NotReady) as caught:
        client.any_llm_result(request_id)
    assert (caught.value.retryable, caught.value.status_code) == (True, 400)
    assert caught.value.request_id == request_id


@pytest.mark.parametrize(
    ("fail", "error_type"),
    [
        ({"error": "Runner disconnected", "error_type": "runner_disconnected"}, "job_failed"),
        ({"error": "Crash", "status": 500, "body": {"detail": "Internal Server Error"}}, "job_failed"),
        (
            {"error": "Bad", "status": 422, "body": {"detail": [{"loc": ["body"], "msg": "no", "type": "x"}]}},
            "model_rejected",
        ),
        ({"error": "Stopped", "error_type": "client_cancelled"}, "cancelled"),
    ],
)
def test_the_result_of_a_failed_job_reports_the_failure_at_once(
    box: Sandbox, client: FalClient, fail: dict[str, Any], error_type: str
) -> None:
    box.fault("job", fail=fail)
    request_id = client.any_llm_submit("Hello")
    ended(box, request_id)
    result = client.any_llm_result(request_id)
    assert set(result) > RESULT_KEYS
    assert (result["error_type"], result["output"], result["request_id"]) == (error_type, "", request_id)
    assert [row["stage"] for row in box.journal()].count("result") <= 2


@pytest.mark.parametrize("outage", [{"status": 503}, {"status": 429}, {"drop": "before"}, {"garbage": "html"}])
def test_an_outage_while_a_result_is_fetched_is_not_taken_for_the_job(
    box: Sandbox, client: FalClient, outage: dict[str, Any]
) -> None:
    request_id = client.any_llm_submit("Hello")
    ended(box, request_id)
    box.fault("result", **outage)
    assert client.any_llm_result(request_id)["error"] is None


def test_the_result_of_an_unknown_or_expired_job_is_reported_as_not_found(box: Sandbox, client: FalClient) -> None:
    box.fault("job", expired=True)
    expired = client.any_llm_submit("Hello")
    ended(box, expired)
    for request_id in (UNKNOWN, expired):
        result = client.any_llm_result(request_id)
        assert (result["error_type"], result["request_id"], result["output"]) == ("not_found", request_id, "")


# ---------------------------------------------------------------- cancel


def test_cancelling_a_waiting_job_takes_it_out_of_the_queue(box: Sandbox, client: FalClient) -> None:
    box.fault("job", stuck="IN_QUEUE")
    request_id = client.any_llm_submit("Hello")
    assert client.any_llm_cancel(request_id) == {"request_id": request_id, "status": "cancelled"}
    assert box.ledger()["jobs"][0]["outcome"] == "cancelled"


def test_cancelling_a_running_job_is_a_request(box: Sandbox, client: FalClient) -> None:
    box.fault("job", stuck="IN_PROGRESS")
    request_id = client.any_llm_submit("Hello")
    running(box, request_id)
    assert client.any_llm_cancel(request_id)["status"] == "requested"
    assert client.any_llm_status(request_id)["error_type"] == "client_cancelled"
    assert client.any_llm_result(request_id)["error_type"] == "cancelled"


def test_cancelling_what_has_ended_is_too_late(box: Sandbox, client: FalClient) -> None:
    request_id = client.any_llm_submit("Hello")
    ended(box, request_id)
    assert client.any_llm_cancel(request_id) == {"request_id": request_id, "status": "too_late"}


def test_cancelling_what_fal_does_not_know_is_no_error(box: Sandbox, client: FalClient) -> None:
    assert client.any_llm_cancel(UNKNOWN) == {"request_id": UNKNOWN, "status": "not_found"}


# ---------------------------------------------------------------- webhook


@contextmanager
def listener() -> Iterator[tuple[Any, ...]]:
    """A webhook receiver on this machine: its URL, and what came in."""
    got = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("fails", [False, True])
def test_the_webhook_gets_the_result_at_exactly_the_url_that_was_given(
    box: Sandbox, client: FalClient, fails: bool
) -> None:
    if fails:
        box.fault("job", fail={"error": "Runner disconnected", "error_type": "runner_disconnected"})
    else:
        box.say("Merhaba")
    with listener() as (url, got):
        path = "/hooks/fal?user=1&next=https%3A%2F%2Fshop%3Fx%3D1%26y&n=ü"
        request_id = client.any_llm_submit("Hello", webhook_url=url + path)
        box.wait_for(lambda ledger: ledger["jobs"][0]["webhook"] == "delivered")
    assert box.ledger()["jobs"][0]["webhook_url"] == url + path
    [(seen_path, message)] = got
    assert parse_qs(urlsplit(seen_path).query) == {"user": ["1"], "next": ["https://shop?x=1&y"], "n": ["ü"]}
    assert (message["request_id"], message["status"]) == (request_id, "ERROR" if fails else "OK")
    assert fails or message["payload"]["output"] == "Merhaba"


def test_a_submit_without_a_webhook_names_none(box: Sandbox, client: FalClient) -> None:
    client.any_llm_submit("Hello")
    assert box.journal()[0]["query"] == ""
