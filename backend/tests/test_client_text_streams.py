"""Text as it is written: events, what is printed, and streams that fail instead of looking finished."""

from __future__ import annotations

import inspect
import io
import json
import sys
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.call import Call
from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
    BadOutput,
    BalanceExhausted,
    Cancelled,
    DeadlineExceeded,
    FalError,
    FalUnavailable,
    InvalidInput,
    JobFailed,
    ModelRejected,
    RateLimited,
    StreamTruncated,
)
from services.fal_service import FalClient

TEXT = "openrouter/router"
STORY = "Kahve, sabahın en sıcak anı. ☕ Kupa ise onun evi."


@pytest.fixture
def warm(box: Sandbox, client: FalClient) -> FalClient:
    """A client whose libraries are loaded and whose connection stands: for tests that count tenths of a second."""
    client.any_llm_cancel("no-such-job")
    box.reset()
    return client


def scripted(*events: Any, raw: str = "") -> dict[str, Any]:
    """A stream of exactly these events."""
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return {"status": 200, "body": "".join(lines) + raw, "content_type": "text/event-stream"}


def so_far(text: Any, *, partial: bool = True, **more: Any) -> dict[Any, Any]:
    return {"output": text, "partial": partial, "error": None, **more}


def texts(events: Any) -> list[Any]:
    return [event["delta"] for event in events]


def take(events: Any, seen: Any) -> None:
    for event in events:
        seen.append(event["delta"])


def test_the_deltas_join_to_the_whole_text_and_only_the_last_event_is_not_partial(
    box: Sandbox, client: FalClient
) -> None:
    box.say(STORY)
    events = list(client.iter_any_llm("Tell a story"))
    assert {frozenset(event) for event in events} == {frozenset({"delta", "output", "partial", "usage", "cost_usd"})}
    assert "".join(texts(events)) == STORY
    assert [event["output"] for event in events] == ["".join(texts(events)[: n + 1]) for n in range(len(events))]
    assert [event["partial"] for event in events] == [True] * (len(events) - 1) + [False]
    assert len(events) > 2
    assert events[0]["usage"] is None
    assert events[-1]["usage"]["total_tokens"] > 0


def test_a_stream_is_one_request_to_the_direct_host_with_the_arguments_given(box: Sandbox, client: FalClient) -> None:
    list(client.iter_any_llm("Hi", system_prompt="Be brief.", temperature=1.5, max_tokens=9, model="openai/gpt-4o"))
    [job] = box.ledger()["jobs"]
    assert (job["kind"], job["endpoint"]) == ("stream", TEXT)
    assert job["input"] == {
        "prompt": "Hi",
        "system_prompt": "Be brief.",
        "temperature": 1.5,
        "max_tokens": 9,
        "model": "openai/gpt-4o",
    }
    assert [(row["host"], row["path"]) for row in box.journal()] == [("fal.run", "/openrouter/router/stream")]


def test_a_stream_sends_the_documented_defaults_and_priority_to_any_llm_only(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_TEXT_ENDPOINT", "fal-ai/any-llm")
    with FalClient() as client:
        list(client.iter_any_llm("Hi"))
    assert box.ledger()["jobs"][0]["input"] == {
        "prompt": "Hi",
        "model": "google/gemini-2.5-flash-lite",
        "temperature": 0.7,
        "priority": "latency",
    }


def test_the_printed_stream_is_the_text_and_one_newline(
    box: Sandbox, client: FalClient, capsys: pytest.CaptureFixture[str]
) -> None:
    box.say(STORY)
    client.any_llm_stream("Tell a story")
    assert capsys.readouterr() == (STORY + "\n", "")


def test_a_letter_that_stdout_cannot_show_does_not_end_a_stream_that_is_paid_for(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    box.say("Çay hazır")
    client.any_llm_stream("Say it")
    assert printed.getvalue() == b"\\xc7ay haz\\u0131r\n"


def test_both_take_the_same_arguments() -> None:
    plain, printing = (
        inspect.signature(method).parameters for method in (FalClient.iter_any_llm, FalClient.any_llm_stream)
    )
    assert dict(plain) == dict(printing)


def test_a_text_that_does_not_go_on_from_the_one_before_replaces_it(box: Sandbox, client: FalClient) -> None:
    box.fault("stream", **scripted(so_far("The cat"), so_far("A dog"), so_far("A dog barks", partial=False)))
    events = list(client.iter_any_llm("Hi"))
    assert texts(events) == ["The cat", "A dog", " barks"]
    assert events[-1]["output"] == "A dog barks"


def test_whatever_follows_the_last_event_is_not_waited_for(box: Sandbox, client: FalClient) -> None:
    box.fault("stream", **scripted(so_far("Done", partial=False), raw=": comment\n\ndata: [DONE]\n\n"))
    assert texts(client.iter_any_llm("Hi")) == ["Done"]


# ---------------------------------------------------------------- streams that fail


@pytest.mark.parametrize("end", [False, True], ids=["cut", "ended too early"])
def test_a_stream_without_its_last_event_is_truncated_and_keeps_the_text_so_far(
    box: Sandbox, client: FalClient, end: bool
) -> None:
    box.say(STORY)
    box.fault("stream", cut=3, end=end)
    seen: list[Any] = []
    with pytest.raises(StreamTruncated) as caught:
        take(client.iter_any_llm("Tell a story"), seen)
    text = "".join(seen)
    assert len(seen) == 3
    assert STORY.startswith(text)
    assert caught.value.partial == {"output": text}
    assert caught.value.request_id == box.ledger()["jobs"][0]["request_id"]
    assert caught.value.retryable is False


def test_a_truncated_stream_raises_after_what_came_was_printed(
    box: Sandbox, client: FalClient, capsys: pytest.CaptureFixture[str]
) -> None:
    box.fault("stream", **scripted(so_far("Only half")))
    with pytest.raises(StreamTruncated):
        client.any_llm_stream("Hi")
    assert capsys.readouterr().out == "Only half"


BROKEN = [
    pytest.param(scripted(so_far("Half"), raw="data: {\n\n"), "Half", id="no JSON"),
    pytest.param(scripted(so_far("Half"), ["a", "list"]), "Half", id="a list"),
    pytest.param(scripted(so_far("Half"), {"partial": True}), "Half", id="no output"),
    pytest.param(scripted(so_far("Half"), so_far(None)), "Half", id="output is null"),
    pytest.param({"status": 200, "body": "<html>hello</html>"}, "", id="a web page"),
    pytest.param({"status": 200, "body": so_far("All of it", partial=False)}, "", id="plain JSON"),
]


@pytest.mark.parametrize(("answer", "text"), BROKEN)
def test_a_stream_that_makes_no_sense_is_bad_output_and_not_asked_for_twice(
    box: Sandbox, client: FalClient, answer: Any, text: str
) -> None:
    box.fault("stream", **answer)
    with pytest.raises(BadOutput) as caught:
        list(client.iter_any_llm("Hi"))
    assert caught.value.partial["output"] == text
    assert caught.value.request_id
    assert [row["stage"] for row in box.journal()] == ["stream"]


def test_a_stream_without_any_event_is_truncated(box: Sandbox, client: FalClient) -> None:
    box.fault("stream", **scripted())
    with pytest.raises(StreamTruncated) as caught:
        list(client.iter_any_llm("Hi"))
    assert caught.value.partial == {"output": ""}


def test_an_error_event_is_a_failed_job_that_keeps_the_text_so_far(box: Sandbox, client: FalClient) -> None:
    box.fault("stream", **scripted(so_far("Half"), {"output": "Half", "partial": True, "error": "Provider is down"}))
    with pytest.raises(JobFailed, match="Provider is down") as caught:
        list(client.iter_any_llm("Hi"))
    assert caught.value.partial["output"] == "Half"
    assert caught.value.request_id


REFUSED = [
    (401, None, AuthError),
    (403, {"detail": "User is locked. Reason: Exhausted balance."}, BalanceExhausted),
    (422, None, ModelRejected),
    (429, None, RateLimited),
    (500, None, AmbiguousSubmit),
    (503, None, FalUnavailable),
]


@pytest.mark.parametrize(("status", "body", "expected"), REFUSED)
def test_a_refusal_before_the_first_event_is_that_error_and_not_a_broken_stream(
    box: Sandbox,
    client: FalClient,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: dict[str, Any] | None,
    expected: Any,
) -> None:
    box.fault("stream", status=status, body=body, times=None)
    with pytest.raises(FalError) as caught:
        list(client.iter_any_llm("Hi"))
    assert type(caught.value) is expected
    assert (caught.value.status_code, caught.value.partial) == (status, {})
    assert [row["stage"] for row in box.journal()] == ["stream"]


def test_the_reasons_of_a_422_reach_the_caller_of_a_stream(box: Sandbox, client: FalClient) -> None:
    detail = [{"loc": ["body", "model"], "msg": "Unknown model", "type": "value_error"}]
    box.fault("stream", status=422, body={"detail": detail})
    with pytest.raises(ModelRejected, match="model: Unknown model") as caught:
        client.any_llm_stream("Hi")
    assert caught.value.detail == detail


def test_a_stream_ends_at_the_deadline_of_its_call(box: Sandbox, warm: FalClient) -> None:
    box.fault("stream", silent=30, headers_first=True)
    with pytest.raises(DeadlineExceeded) as caught:
        list(warm.iter_any_llm("Hi", timeout=1.5))
    assert caught.value.partial == {"output": ""}


def test_a_stream_that_nobody_reads_on_gives_its_place_back(box: Sandbox) -> None:
    with FalClient(max_concurrency=1, timeout=60) as client:
        events: Any = client.iter_any_llm("Hi")
        assert next(events)["delta"]
        events.close()
        assert client.any_llm_complete("Hello")["error"] is None


def test_nothing_is_sent_before_the_first_event_is_asked_for(box: Sandbox, client: FalClient) -> None:
    client.iter_any_llm("Hi")
    assert box.journal() == []


def test_a_wrong_argument_is_refused_when_the_stream_is_made_not_when_it_is_read(
    box: Sandbox, client: FalClient
) -> None:
    with pytest.raises(InvalidInput):
        client.iter_any_llm("Hi", temperature=3)
    with pytest.raises(InvalidInput):
        client.iter_any_llm("Hi", timeout=-1)


def test_a_stream_moves_on_when_its_endpoint_is_gone(
    box: Sandbox, client: FalClient, caplog: pytest.LogCaptureFixture
) -> None:
    box.configure(gone=[TEXT])
    assert "".join(texts(client.iter_any_llm("Hi")))
    assert box.ledger()["jobs"][-1]["endpoint"] == "fal-ai/any-llm"
    assert "Using fal-ai/any-llm instead" in caplog.text


def test_a_stream_that_is_stopped_ends_with_its_next_event(box: Sandbox, client: FalClient) -> None:
    box.configure(latency=12)
    call = Call(60)
    events = client.within(call).iter_any_llm("Two sentences about a mug that keeps its coffee warm")
    assert next(events)["partial"]
    call.cancel()
    with pytest.raises(Cancelled):
        next(events)
