"""Waiting: one deadline for everything, jobs that are stopped with their call, and statuses however they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import DeadlineExceeded, FalError
from services.fal_service import FalClient

SOURCE = Path(__file__).resolve().parents[1] / "src"
PHOTO = "https://example.com/red-mug.jpg"
KNOWN = {"vibe": "Cozy"}
SOON_S = 8.0
"""Well above what a short call and its clean-up take, well below what it would wait for."""
REACHED_S = 1.5
"""A deadline that passes while the job runs: even on a busy machine it has been submitted by then."""

CALLS = {
    "complete": lambda client, **given: client.any_llm_complete("Hi", **given),
    "enterprise": lambda client, **given: client.any_llm_enterprise("Hi", **given),
    "analyze": lambda client, **given: client.analyze_product_image(PHOTO, **given),
    "write": lambda client, **given: client.generate_background_prompt(KNOWN, "white", **given),
    "remove": lambda client, **given: client.remove_background(PHOTO, **given),
    "replace": lambda client, **given: client.background_replace(PHOTO, prompt="white", **given),
}


@pytest.fixture
def warm(box: Sandbox, client: FalClient) -> FalClient:
    """A client whose libraries are loaded and whose connection stands: for tests that count tenths of a second."""
    client.any_llm_cancel("no-such-job")
    box.reset()
    return client


def failure_of(call: Any, client: FalClient, **given: Any) -> tuple[Any, ...]:
    """Error type, text and request id, whether the method raises or reports."""
    try:
        result = CALLS[call](client, **given)
    except FalError as error:
        return error.error_type, str(error), error.request_id
    return result["error_type"], result["error"], result["request_id"]


def stages(box: Sandbox) -> list[Any]:
    return [row["stage"] for row in box.journal()]


def jobs(box: Sandbox) -> Any:
    return box.ledger()["jobs"]


# ---------------------------------------------------------------- the deadline


@pytest.mark.parametrize("call", CALLS)
def test_the_deadline_covers_the_run_and_cancels_the_job(box: Sandbox, warm: FalClient, call: str) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    began = time.monotonic()
    error_type, text, request_id = failure_of(call, warm, timeout=REACHED_S)
    assert REACHED_S - 0.05 < time.monotonic() - began < SOON_S
    [job] = jobs(box)
    assert (error_type, request_id) == ("timeout", job["request_id"])
    assert (job["outcome"], job["cancel_requests"]) == ("cancelled", 1)
    assert f"{REACHED_S:g} seconds" in text
    assert request_id in text
    assert text.endswith("Raise --timeout or FAL_TIMEOUT_S when fal needs longer.")


def test_the_deadline_covers_the_queue_and_fal_may_end_the_job_by_itself(box: Sandbox, warm: FalClient) -> None:
    box.fault("job", stuck="IN_QUEUE")
    error_type, _, request_id = failure_of("complete", warm, timeout=REACHED_S)
    [job] = jobs(box)
    assert (error_type, request_id) == ("timeout", job["request_id"])
    assert (job["state"], job["billable"]) == ("COMPLETED", False)


def test_a_call_may_take_longer_than_its_client_usually_waits(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_TIMEOUT_S", str(REACHED_S))
    box.configure(latency=REACHED_S + 0.3)
    with FalClient() as client:
        assert client.any_llm_complete("Hi")["error_type"] == "timeout"
        assert client.any_llm_complete("Hi", timeout=30)["error"] is None


def test_waiting_for_a_place_among_the_parallel_jobs_counts_too(box: Sandbox) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    with FalClient(max_concurrency=1, timeout=30) as client, ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.any_llm_complete, "stuck")
        box.wait_for(lambda ledger: ledger["accepted"] == 1)
        assert client.any_llm_complete("waiting", timeout=0.3)["error_type"] == "timeout"
        assert box.ledger()["accepted"] == 1
        client.any_llm_cancel(jobs(box)[0]["request_id"])
        assert first.result()["error_type"] == "cancelled"


def test_one_deadline_covers_every_step_of_a_call(box: Sandbox, warm: FalClient) -> None:
    picture = {"image": {"url": "https://v3.fal.media/files/b/x.png"}}
    box.fault("job", output=picture, delay=1.5, times=None)
    with pytest.raises(DeadlineExceeded):
        warm.background_replace(PHOTO, prompt="white", timeout=2.7)
    assert [job["outcome"] for job in jobs(box)] == ["ok", "cancelled"]


@pytest.mark.parametrize("trouble", [{"delay": 30}, {"drop": "after"}, {"status": 500}, {"garbage": "html"}])
def test_a_cancel_that_fails_costs_little_time_and_hides_nothing(
    box: Sandbox, warm: FalClient, caplog: pytest.LogCaptureFixture, trouble: dict[str, Any]
) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    box.fault("cancel", times=None, **trouble)
    began = time.monotonic()
    error_type, _, request_id = failure_of("complete", warm, timeout=REACHED_S)
    assert time.monotonic() - began < SOON_S
    assert (error_type, request_id) == ("timeout", jobs(box)[0]["request_id"])
    told = caplog.text
    assert "garbage" in trouble or f"{request_id} could not be cancelled and may be billed" in told


def test_a_job_is_cancelled_when_its_status_stays_unreadable(box: Sandbox, client: FalClient) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    box.fault("status_stream", status=500)
    box.fault("status", garbage="shape", times=None)
    result = client.any_llm_complete("Hi")
    assert (result["error_type"], result["request_id"]) == ("bad_output", jobs(box)[0]["request_id"])
    assert jobs(box)[0]["outcome"] == "cancelled"


def test_a_program_whose_call_timed_out_ends_at_once(box: Sandbox) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    code = (
        "import time; from services.fal_service import FalClient\n"
        "result = FalClient().any_llm_complete('Hi', timeout=2)\n"
        "print(result['error_type'], time.time())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    error_type, printed_at = done.stdout.split()
    assert error_type == "timeout"
    assert time.time() - float(printed_at) < SOON_S


def test_no_thread_is_left_behind_by_any_call(box: Sandbox, photo_path: Path) -> None:
    def threads() -> set[Any]:
        return {thread for thread in threading.enumerate() if "sandbox" not in thread.name}

    box.fault("job", endpoint="fal-ai/bria/background/remove", output={"image": {"url": "https://v3.fal.media/c.png"}})
    box.fault("job", endpoint="bria/replace-background", stuck="IN_PROGRESS", output={}, times=3)
    before = threads()
    with FalClient() as client:
        client.upload_file(photo_path)
        client.generate_multiple_backgrounds(PHOTO, KNOWN, timeout=1)
        next(client.iter_any_llm("Hi"))
        box.fault("submit", drop="after")
        client.any_llm_complete("Hi")
        assert threads() == before
    assert threads() == before


def test_a_job_that_could_not_be_cancelled_is_not_to_be_repeated(box: Sandbox, client: FalClient) -> None:
    box.configure(latency=60)
    box.fault("cancel", status=500, times=None)
    result = client.any_llm_complete("Hi", timeout=REACHED_S)
    assert (result["error_type"], result["retryable"]) == ("timeout", False)
    assert "could not be cancelled" in result["hint"]


# ---------------------------------------------------------------- how statuses come


@pytest.mark.parametrize("latency", [0, 0.3])
def test_a_job_takes_one_submit_one_status_stream_and_one_result(
    box: Sandbox, client: FalClient, latency: float
) -> None:
    box.configure(latency=latency)
    assert client.any_llm_complete("Hi")["error"] is None
    assert stages(box) == ["submit", "status_stream", "result"]


STREAM_TROUBLE = [
    {"status": 500},
    {"status": 404},
    {"status": 429},
    {"drop": "before"},
    {"drop": "after"},
    {"cut": 0},
    {"cut": 1},
    {"cut": 1, "end": True},
    {"garbage": "html"},
    {"garbage": "empty"},
    {"redirect": "https://example.com/"},
    {"body": "data: nonsense\n\n", "status": 200, "content_type": "text/event-stream"},
]


@pytest.mark.parametrize("trouble", STREAM_TROUBLE, ids=str)
def test_when_the_status_stream_fails_the_job_is_polled(
    box: Sandbox, client: FalClient, trouble: dict[str, Any]
) -> None:
    # Long enough that the stream's first event is not yet the last, on a busy machine too.
    box.configure(latency=1)
    box.say("Arrived")
    box.fault("status_stream", **trouble)
    assert client.any_llm_complete("Hi")["output"] == "Arrived"
    assert [stages(box).count(stage) for stage in ("submit", "result")] == [1, 1]
    assert "status" in stages(box)
    assert len(jobs(box)) == 1


def test_a_status_stream_that_falls_silent_is_given_up_for_polling(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.fal.fal_api.STREAM_SILENCE_S", 0.2)
    box.fault("status_stream", silent=30, headers_first=True)
    box.say("Arrived")
    assert client.any_llm_complete("Hi", timeout=10)["output"] == "Arrived"
    assert "status" in stages(box)


@pytest.mark.parametrize("stage", ["status", "result"])
@pytest.mark.parametrize(
    "trouble",
    [{"status": 500}, {"status": 502}, {"status": 429}, {"drop": "before"}, {"drop": "half"}, {"garbage": "truncated"}],
    ids=str,
)
def test_polls_and_results_are_asked_for_again_when_they_fail(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch, stage: str, trouble: dict[str, Any]
) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)
    box.fault("status_stream", status=500)
    box.fault(stage, times=2, **trouble)
    box.say("Arrived")
    assert client.any_llm_complete("Hi")["output"] == "Arrived"
    assert stages(box).count(stage) == 3
    assert stages(box).count("submit") == 1


def test_polling_slows_down(box: Sandbox, client: FalClient) -> None:
    box.fault("status_stream", status=500)
    box.configure(latency=0.8)
    assert client.any_llm_complete("Hi")["error"] is None
    assert 2 <= stages(box).count("status") <= 9


def test_a_log_line_is_shown_once_however_often_it_is_polled(
    box: Sandbox, client: FalClient, capsys: pytest.CaptureFixture[str]
) -> None:
    box.fault("status_stream", status=500)
    box.configure(latency=0.3)
    client.any_llm_complete("Hi", with_logs=True)
    told = capsys.readouterr().err
    assert told.count("openrouter/router started") == 1
    assert {row["query"] for row in box.journal() if row["stage"] == "status"} == {"logs=1"}


NOT_YET = {"status": 400, "body": {"detail": "Request is still in progress"}}


def completed_of(request_id: str, **more: Any) -> dict[Any, Any]:
    return {"status": "COMPLETED", "request_id": request_id, "logs": None, "metrics": {"inference_time": 9}, **more}


@pytest.mark.parametrize("call", ["complete", "remove"])
def test_a_result_that_comes_later_than_its_status_is_not_lost(box: Sandbox, client: FalClient, call: str) -> None:
    output = {"output": "Late", "image": {"url": "https://v3.fal.media/c.png"}}
    box.fault("job", output=output)
    box.fault("result", times=7, **NOT_YET)
    began = time.monotonic()
    assert CALLS[call](client).get("error") is None
    assert time.monotonic() - began > 1
    assert [stages(box).count(stage) for stage in ("submit", "result", "cancel")] == [1, 8, 0]


def test_a_result_that_never_comes_ends_with_the_deadline_and_the_job_is_cancelled(
    box: Sandbox, warm: FalClient
) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    body = f"data: {json.dumps(completed_of(None))}\n\n"
    box.fault("status_stream", status=200, body=body, content_type="text/event-stream")
    error_type, _, request_id = failure_of("complete", warm, timeout=0.6)
    [job] = jobs(box)
    assert (error_type, request_id, job["outcome"]) == ("timeout", job["request_id"], "cancelled")


def test_a_call_that_ends_after_its_job_did_says_that_the_job_is_paid_for(box: Sandbox, warm: FalClient) -> None:
    box.fault("result", times=None, **NOT_YET)
    result = warm.any_llm_complete("Hi", timeout=0.6)
    assert (result["error_type"], result["retryable"]) == ("timeout", False)
    assert "had ended by then" in result["hint"]


@pytest.mark.parametrize("polled", [False, True])
@pytest.mark.parametrize("failed", [{}, {"error": "Runner broke", "error_type": "runner_disconnected"}])
def test_the_end_of_another_job_is_not_taken_for_ones_own(
    box: Sandbox, client: FalClient, polled: bool, failed: dict[Any, Any] | dict[str, Any]
) -> None:
    box.configure(latency=0.3)
    box.say("Mine")
    status = completed_of("another-id", **failed)
    if polled:
        box.fault("status_stream", status=500)
        box.fault("status", status=200, body=status)
    else:
        body = f"data: {json.dumps(status)}\n\n"
        box.fault("status_stream", status=200, body=body, content_type="text/event-stream")
    assert client.any_llm_complete("Hi")["output"] == "Mine"
    assert len(jobs(box)) == 1
    assert "cancel" not in stages(box)


# ---------------------------------------------------------------- many at once


def test_32_threads_share_one_client_and_each_gets_its_own_answer(box: Sandbox) -> None:
    with FalClient(max_concurrency=32, timeout=60) as client, ThreadPoolExecutor(32) as threads:
        results = list(threads.map(lambda n: client.any_llm_complete(f"number {n}"), range(32)))
    assert [result["error"] for result in results] == [None] * 32
    assert [f"to: number {n}." in result["output"] for n, result in enumerate(results)] == [True] * 32
    assert len({result["request_id"] for result in results}) == box.ledger()["accepted"] == 32
    assert stages(box).count("submit") == 32


def test_two_clients_do_not_share_key_or_fate(box: Sandbox) -> None:
    with FalClient() as good, FalClient(key="bad:nobody-has-it") as bad, ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(client.any_llm_complete, "Hi") for client in (good, bad) * 4]
        outcomes = [call.result().get("error_type") for call in calls]
        bad.close()
        assert good.any_llm_complete("Hi")["error"] is None
    assert outcomes == [None, "auth"] * 4


def test_a_client_may_be_closed_twice_and_while_nothing_was_sent(client: FalClient) -> None:
    with client:
        client.any_llm_complete("Hi")
    client.close()
    FalClient().close()
