"""Submits: never sent twice once fal may have taken one, sent again when it surely did not, or when fal says so."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.call import Call
from services.fal.errors import AmbiguousSubmit, Cancelled, DeadlineExceeded, FalError, RateLimited, Unreachable
from services.fal_service import FalClient

PHOTO = "https://example.com/red-mug.jpg"
NO_RETRY_AFTER_S = 8.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)


@pytest.fixture
def warm(box: Sandbox, client: FalClient) -> FalClient:
    """A client whose libraries are loaded and whose connection stands: for tests that count tenths of a second."""
    client.any_llm_cancel("no-such-job")
    box.reset()
    return client


def submits(box: Sandbox) -> list[Any]:
    return [row for row in box.journal() if row["stage"] in ("submit", "stream")]


def http_date(seconds: Any) -> Any:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


# Every way to start something that costs money, and what fal calls that request.
PAID = {
    "complete": ("submit", lambda client: client.any_llm_complete("Hi")),
    "enterprise": ("submit", lambda client: client.any_llm_enterprise("Hi")),
    "submit": ("submit", lambda client: client.any_llm_submit("Hi")),
    "stream": ("stream", lambda client: list(client.iter_any_llm("Hi"))),
    "remove": ("submit", lambda client: client.remove_background(PHOTO)),
    "analyze": ("submit", lambda client: client.analyze_product_image(PHOTO)),
}


def error_type_of(call: Any, client: FalClient) -> Any:
    try:
        result = call(client)
    except FalError as error:
        return error.error_type
    return result["error_type"] if isinstance(result, dict) else None


# ---------------------------------------------------------------- sent once

LOST = [{"drop": "unread"}, {"drop": "before"}, {"drop": "after"}, {"garbage": "html"}, {"drop": "half"}]


@pytest.mark.parametrize("how", PAID)
@pytest.mark.parametrize("trouble", LOST[:3], ids=str)
def test_a_request_whose_answer_is_lost_is_ambiguous_and_never_sent_again(
    box: Sandbox, client: FalClient, how: str, trouble: Any
) -> None:
    stage, call = PAID[how]
    box.fault(stage, **trouble)
    assert error_type_of(call, client) == "ambiguous_submit"
    assert len(submits(box)) == 1
    assert box.ledger()["accepted"] <= 1


@pytest.mark.parametrize(
    "trouble", [*LOST, {"garbage": "truncated"}, {"garbage": "shape"}, {"garbage": "empty"}], ids=str
)
def test_an_answer_to_a_submit_that_cannot_be_read_is_ambiguous_too(
    box: Sandbox, client: FalClient, trouble: Any
) -> None:
    box.fault("submit", **trouble)
    with pytest.raises(AmbiguousSubmit) as caught:
        client.any_llm_submit("Hi")
    assert caught.value.retryable is False
    assert "https://fal.ai/dashboard/requests" in caught.value.hint
    assert len(submits(box)) == 1


def test_a_job_whose_id_is_known_from_a_broken_answer_is_cancelled(box: Sandbox, client: FalClient) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    box.fault("submit", garbage="html")
    result = client.any_llm_complete("Hi")
    [job] = box.ledger()["jobs"]
    assert (result["error_type"], result["request_id"]) == ("ambiguous_submit", job["request_id"])
    assert result["error"].count("The outcome of the submit is unknown.") == 1
    assert job["outcome"] == "cancelled"


ANSWERED = [
    {"silent": 30, "headers_first": True},
    {"silent": 30, "headers_first": True, "status": 200, "body": "data: {}\n\n", "content_type": "text/event-stream"},
    {"silent": 30, "headers_first": True, "status": 500},
]


@pytest.mark.parametrize("trouble", ANSWERED, ids=str)
def test_a_job_whose_id_came_in_the_header_of_an_answer_that_does_not_end_is_cancelled(
    box: Sandbox, warm: FalClient, trouble: dict[str, Any]
) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    box.fault("submit", accept=True, **trouble)
    result = warm.any_llm_complete("Hi", timeout=0.6)
    [job] = box.ledger()["jobs"]
    assert (result["error_type"], result["request_id"]) == ("ambiguous_submit", job["request_id"])
    assert (result["retryable"], job["outcome"]) == (False, "cancelled")
    assert "was told to cancel its job" in result["hint"]


@pytest.mark.parametrize(
    "cancel", [{"status": 500}, {"drop": "before"}, {"status": 400, "body": {"status": "ALREADY_COMPLETED"}}]
)
def test_a_submit_that_fal_may_have_taken_stays_ambiguous_when_it_cannot_be_cancelled(
    box: Sandbox, client: FalClient, cancel: dict[str, Any]
) -> None:
    box.fault("submit", status=503, headers={"X-Fal-Needs-Retry": "1"}, accept=True, times=None)
    box.fault("cancel", times=None, **cancel)
    result = client.any_llm_complete("Hi", timeout=10)
    assert (result["error_type"], result["retryable"]) == ("ambiguous_submit", False)
    assert result["request_id"] == box.ledger()["jobs"][0]["request_id"]
    assert len(submits(box)) == box.ledger()["accepted"] == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524, 408, 409])
@pytest.mark.parametrize("how", PAID)
def test_an_error_that_names_no_request_leaves_open_whether_the_submit_was_taken(
    box: Sandbox, client: FalClient, how: str, status: int
) -> None:
    stage, call = PAID[how]
    # An answer of its own, as an ingress gives it: fal's direct host would add a retry hint.
    box.fault(stage, status=status, body="<html>nginx</html>", request_id=False, times=None)
    assert error_type_of(call, client) == "ambiguous_submit"
    assert len(submits(box)) == 1


def test_a_submit_that_is_answered_with_a_stream_of_events_is_not_read_to_its_end(
    box: Sandbox, client: FalClient
) -> None:
    trouble = {"status": 200, "body": "data: {}\n\n", "content_type": "text/event-stream"}
    box.fault("submit", accept=True, silent=30, headers_first=True, **trouble)
    began = time.monotonic()
    assert client.any_llm_complete("Hi", timeout=25)["error_type"] == "ambiguous_submit"
    assert time.monotonic() - began < 15


def test_a_503_that_may_be_repeated_is_repeated_only_when_fal_does_not_know_its_request(
    box: Sandbox, client: FalClient
) -> None:
    box.fault("submit", status=503, retry_after="0")
    assert client.any_llm_complete("Hi")["error"] is None
    assert [row["stage"] for row in box.journal()][:3] == ["submit", "cancel", "submit"]


def test_a_text_stream_that_has_begun_is_never_to_be_repeated(box: Sandbox, warm: FalClient) -> None:
    box.fault("stream", silent=30, headers_first=True)
    with pytest.raises(DeadlineExceeded) as caught:
        list(warm.iter_any_llm("Hi", timeout=0.5))
    assert caught.value.retryable is False


def test_a_submit_that_is_not_answered_in_time_is_ambiguous(box: Sandbox, warm: FalClient) -> None:
    box.fault("submit", delay=30)
    began = time.monotonic()
    with pytest.raises(AmbiguousSubmit):
        warm.any_llm_submit("Hi", timeout=1.5)
    assert time.monotonic() - began < NO_RETRY_AFTER_S
    assert len(submits(box)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 408, 409, 422, 499, 500, 502, 503, 504])
def test_a_refusal_without_a_word_about_retrying_is_final(box: Sandbox, client: FalClient, status: int) -> None:
    box.fault("submit", status=status, times=None)
    assert client.any_llm_complete("Hi")["status_code"] == status
    assert len(submits(box)) == 1


# ---------------------------------------------------------------- sent again


@pytest.mark.parametrize(
    "trouble",
    [
        {"drop": "connect"},
        {"status": 429},
        {"status": 429, "retry_after": "0"},
        {"status": 503, "retry_after": "0"},
        {"status": 503, "headers": {"X-Fal-Needs-Retry": "1"}},
        {"status": 503, "headers": {"X-Fal-Retryable": "true"}},
    ],
    ids=str,
)
def test_a_submit_that_surely_did_not_arrive_or_may_be_repeated_is_sent_again(
    box: Sandbox, client: FalClient, trouble: dict[str, Any]
) -> None:
    box.fault("submit", times=2, **trouble)
    result = client.any_llm_complete("Hi")
    assert result["error"] is None
    assert box.ledger()["accepted"] == 1
    assert len(box.journal()) >= 5


def test_a_limit_that_stays_is_rate_limited_after_a_few_tries(box: Sandbox, client: FalClient) -> None:
    box.fault("submit", status=429, times=None)
    result = client.any_llm_complete("Hi")
    assert (result["error_type"], result["retryable"]) == ("rate_limited", True)
    assert 2 <= len(submits(box)) <= 5


def test_a_connection_that_is_refused_is_unreachable_with_what_to_check(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    with FalClient() as client, pytest.raises(Unreachable, match="HTTPS_PROXY") as caught:
        client.any_llm_submit("Hi")
    assert caught.value.retryable is True


# ---------------------------------------------------------------- Retry-After


def test_retry_after_in_seconds_is_waited_for(box: Sandbox, client: FalClient) -> None:
    box.fault("submit", status=429, retry_after="1")
    began = time.monotonic()
    assert client.any_llm_complete("Hi")["error"] is None
    assert 1 <= time.monotonic() - began < 1 + NO_RETRY_AFTER_S


def test_retry_after_as_a_date_is_waited_for(box: Sandbox, client: FalClient) -> None:
    at = time.time() + 2
    box.fault("submit", status=503, retry_after=http_date(2))
    assert client.any_llm_complete("Hi")["error"] is None
    assert int(at) <= time.time() < at + NO_RETRY_AFTER_S


@pytest.mark.parametrize("moment", ["0", "past", "nonsense"])
def test_a_retry_after_that_asks_for_nothing_costs_nothing(box: Sandbox, client: FalClient, moment: str) -> None:
    box.fault("submit", status=429, retry_after=http_date(-3600) if moment == "past" else moment)
    began = time.monotonic()
    assert client.any_llm_complete("Hi")["error"] is None
    assert time.monotonic() - began < NO_RETRY_AFTER_S


@pytest.mark.parametrize("moment", ["3600", "1" + "0" * 400, "far"])
@pytest.mark.parametrize("stage", ["submit", "result"])
def test_a_retry_after_beyond_the_deadline_is_told_at_once(
    box: Sandbox, client: FalClient, stage: str, moment: str
) -> None:
    box.fault(stage, status=429, retry_after=http_date(86_400) if moment == "far" else moment, times=None)
    began = time.monotonic()
    result = client.any_llm_complete("Hi")
    assert time.monotonic() - began < NO_RETRY_AFTER_S
    assert (result["error_type"], result["retryable"], result["status_code"]) == ("rate_limited", True, 429)
    assert len([row for row in box.journal() if row["stage"] == stage]) == 1


def test_a_stream_is_limited_like_a_job(box: Sandbox, client: FalClient) -> None:
    box.fault("stream", status=429, retry_after="3600")
    with pytest.raises(RateLimited):
        list(client.iter_any_llm("Hi"))


def test_a_submit_that_is_stopped_on_its_way_and_cannot_be_cancelled_says_that_it_may_run(
    box: Sandbox, warm: FalClient
) -> None:
    box.configure(latency=60)
    box.fault("submit", delay=0.6, accept=True)
    box.fault("cancel", status=500, times=None)
    call = Call(60)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(warm.within(call).any_llm_submit, "Hi")
        box.wait_for(lambda ledger: ledger["accepted"] == 1)
        call.cancel()
        with pytest.raises(Cancelled, match="could not be cancelled") as raised:
            sent.result()
    assert raised.value.request_id == box.ledger()["jobs"][0]["request_id"]
    assert not raised.value.retryable
