"""Models that fal no longer offers: a default has a successor, a named one has none; and models that must reason."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.refusals import HOW
from fal_sandbox.server import Sandbox
from services.fal.endpoints import MODEL_CHAINS
from services.fal.errors import BadOutput, FalError, ModelGone, ModelRejected
from services.fal.model_ends import MODEL_ENDS, endings, ends_on, warning_of
from services.fal_service import FalClient

PHOTO = "https://example.com/red-mug.jpg"
KNOWN = {"vibe": "Cozy"}
THIRD = "vendor/other-model-1"

# The chain, and the call that asks it; `given` names a model.
CALLS = {
    "complete": ("text", lambda client, **given: client.any_llm_complete("Hi", **given)),
    "stream": ("text", lambda client, **given: streamed(client, **given)),
    "enterprise": ("enterprise", lambda client, **given: client.any_llm_enterprise("Hi", **given)),
    "vision": ("vision", lambda client, **given: client.any_llm_enterprise("What?", image_urls=[PHOTO], **given)),
    "analyze": ("vision", lambda client, **given: client.analyze_product_image(PHOTO, **given)),
    "prompt": ("prompt", lambda client, **given: client.generate_background_prompt(KNOWN, "white", **given)),
}
JOBS = dict(CALLS.values())


def streamed(client: FalClient, **given: Any) -> dict[Any, Any] | dict[str, Any]:
    try:
        *_, last = client.iter_any_llm("Hi", **given)
    except FalError as error:
        return {"error": str(error), "error_type": error.error_type, "hint": error.hint, "retryable": error.retryable}
    return {**last, "error": None}


def asked(box: Sandbox) -> list[Any]:
    """Every model that was asked, and where."""
    return [(job["endpoint"], job["input"]["model"]) for job in box.ledger()["jobs"]]


def models(box: Sandbox) -> list[Any]:
    return [model for _, model in asked(box)]


# ---------------------------------------------------------------- defaults


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("call", CALLS)
def test_the_successor_of_a_default_takes_over_says_so_once_and_stays(
    box: Sandbox, client: FalClient, caplog: pytest.LogCaptureFixture, call: str, how: Any
) -> None:
    chain, ask = CALLS[call]
    first, second = MODEL_CHAINS[chain][:2]
    box.configure(gone_models=[f"{first}={how}"])
    assert ask(client)["error"] is None
    assert ask(client)["error"] is None
    with FalClient() as other:
        assert ask(other)["error"] is None
    assert models(box) == [first, second, second, second]
    assert len({endpoint for endpoint, _ in asked(box)}) == 1
    [(name, level, told)] = [row for row in caplog.record_tuples if "instead" in row[2]]
    assert (name, level) == ("fal_services", logging.WARNING)
    assert first in told
    assert f"Using {second} instead" in told
    assert [job["billable"] for job in box.ledger()["jobs"]] == [False, True, True, True]


@pytest.mark.parametrize("chain", JOBS)
def test_every_model_of_the_chain_is_tried_in_its_order(box: Sandbox, client: FalClient, chain: Any) -> None:
    *gone, last = MODEL_CHAINS[chain]
    box.configure(gone_models=gone)
    assert JOBS[chain](client)["error"] is None
    assert models(box) == [*gone, last]


@pytest.mark.parametrize("chain", JOBS)
def test_when_the_whole_chain_is_gone_the_error_names_the_variable_to_set(
    box: Sandbox, client: FalClient, chain: Any
) -> None:
    box.configure(gone_models=MODEL_CHAINS[chain])
    result = JOBS[chain](client)
    assert (result["error_type"], result["retryable"]) == ("model_gone", False)
    assert f"FAL_{chain.upper()}_MODEL" in result["hint"]
    assert models(box) == list(MODEL_CHAINS[chain])


@pytest.mark.parametrize("chain", JOBS)
def test_a_chain_set_by_hand_takes_the_place_of_the_defaults(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, chain: Any
) -> None:
    monkeypatch.setenv(f"FAL_{chain.upper()}_MODEL", f"'vendor/first-1', \"{THIRD}\" ,,vendor/first-1")
    box.configure(gone_models=["vendor/first-1"])
    with FalClient() as client:
        assert JOBS[chain](client)["error"] is None
        assert client.doctor()["settings"]["models"] == {**as_lists(MODEL_CHAINS), chain: ["vendor/first-1", THIRD]}
    assert models(box) == ["vendor/first-1", THIRD]


def as_lists(chains: Any) -> Any:
    return {job: list(chain) for job, chain in chains.items()}


@pytest.mark.parametrize("value", [",", "a model", "google/ü"])
def test_a_chain_that_names_no_model_is_refused_by_its_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FAL_TEXT_MODEL", value)
    with pytest.raises(ValueError, match="FAL_TEXT_MODEL"):
        FalClient(key="an-id:a-secret")


def test_the_workflow_and_its_backgrounds_use_the_successors_everywhere(
    box: Sandbox, client: FalClient, photo_path: Path
) -> None:
    box.configure(gone_models=["google/gemini-2.5-pro", "openai/gpt-5-mini", "google/gemini-2.5-flash-lite"])
    made = client.product_workflow(photo_path, styles=["Studio"])
    assert (made["errors"], made["total_generated"]) == (None, 1)
    assert made["description"]
    endpoints = [job["endpoint"] for job in box.ledger()["jobs"] if job["billable"]]
    assert len(endpoints) == len(set(endpoints)) == 5


def test_another_account_finds_out_for_itself(box: Sandbox, client: FalClient) -> None:
    first, second = MODEL_CHAINS["text"]
    box.configure(gone_models=[first])
    client.any_llm_complete("Hi")
    with FalClient(key="other-id:other-secret") as other:
        other.any_llm_complete("Hi")
    assert models(box) == [first, second] * 2


def test_a_model_and_an_endpoint_may_both_be_gone(box: Sandbox, client: FalClient) -> None:
    first, second = MODEL_CHAINS["text"]
    box.configure(gone=["openrouter/router"], gone_models=[first])
    assert client.any_llm_complete("Hi")["error"] is None
    assert asked(box) == [("fal-ai/any-llm", first), ("fal-ai/any-llm", second)]


@pytest.mark.parametrize("stage", ["submit", "stream"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"detail": "No endpoints found for MODEL."}),
        (400, {"detail": "MODEL is no longer available. Use another one."}),
        (400, {"error": {"message": "MODEL is not a valid model ID", "code": 400}}),
        (422, {"detail": "The model `MODEL` has been deprecated, learn more at https://example.com/"}),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "MODEL is not a valid model ID", "type": "value_error"}]}),
        (
            422,
            {
                "detail": [
                    {"loc": ["body", "model"], "msg": "Input should be 'a'", "type": "literal_error", "input": "MODEL"}
                ]
            },
        ),
        (410, {"detail": "Model MODEL is gone"}),
    ],
)
def test_a_submit_or_a_stream_may_be_refused_for_its_model_too_which_leaves_the_endpoint(
    box: Sandbox, client: FalClient, stage: str, status: int, body: dict[str, Any]
) -> None:
    first, second = MODEL_CHAINS["text"]
    box.fault(stage, status=status, body=json.loads(json.dumps(body).replace("MODEL", first)))
    ask = CALLS["stream" if stage == "stream" else "complete"][1]
    assert ask(client)["error"] is None
    assert asked(box) == [("openrouter/router", second)]


@pytest.mark.parametrize(
    "reason",
    [
        "models/gemini-2.5-pro is not found for API version v1beta, or is not supported for generateContent.",
        "The model `google/gemini-2.5-pro` does not exist or you do not have access to it.",
        "This model models/gemini-2.5-pro is no longer available to new users.",
        "Error code: 404 - {'error': {'message': 'No endpoints found for google/gemini-2.5-pro.', 'code': 404}}",
        "Invalid value for parameter 'model': google/gemini-2.5-pro is not a valid model ID",
        "Model google/gemini-2.5-pro not found",
        "GOOGLE/GEMINI-2.5-PRO could not be found",
        "google/gemini-2.5-pro has reached its end-of-life date",
        "gemini-2.5-pro isn't available anymore",
        "google/gemini-2.5-pro has been retired. Currently we offer others: try again with one of them.",
        "'google/gemini-2.5-pro' is not available. Try again with another model.",
        "model_not_found: google/gemini-2.5-pro",
        "The requested model is no longer available: google/gemini-2.5-pro",
        "The requested model google/gemini-2.5-pro can’t be found",
        "google/gemini-2.5-pro: Provider returned error: the model was not found",
        "google/gemini-2.5-pro has been turned off",
    ],
)
def test_a_provider_may_say_it_in_its_own_words(box: Sandbox, client: FalClient, reason: str) -> None:
    box.fault("job", fail={"error": reason, "error_type": "bad_request"})
    assert client.any_llm_enterprise("Hi")["error"] is None
    assert models(box) == list(MODEL_CHAINS["enterprise"][:2])


@pytest.mark.parametrize(
    "event", ["{'detail': 'SAID'}", "{'error': true, 'message': 'SAID'}", "{'error': {'message': 'SAID'}}"]
)
def test_an_error_event_may_have_the_shape_of_any_refusal(box: Sandbox, client: FalClient, event: str) -> None:
    first, second = MODEL_CHAINS["text"]
    data = event.replace("'", '"').replace("SAID", f"No endpoints found for {first}.")
    box.fault("stream", status=200, body=f"event: error\ndata: {data}\n\n", content_type="text/event-stream")
    assert streamed(client)["error"] is None
    assert models(box) == [second]


def test_a_stream_that_has_begun_is_not_asked_again(box: Sandbox, client: FalClient) -> None:
    first = MODEL_CHAINS["text"][0]
    events = [{"output": "Half", "partial": True}, {"output": "Half", "error": f"{first} is no longer available"}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    box.fault("stream", status=200, body=body, content_type="text/event-stream")
    result = streamed(client)
    assert (result["error_type"], result["retryable"]) == ("job_failed", False)
    assert [row["stage"] for row in box.journal()] == ["stream"]


def test_an_error_beside_a_text_is_no_refusal_of_the_model(box: Sandbox, client: FalClient) -> None:
    box.fault("job", output={"output": "Half", "error": f"{MODEL_CHAINS['text'][0]} is no longer available"})
    assert client.any_llm_complete("Hi")["error_type"] == "job_failed"
    assert len(asked(box)) == 1


@pytest.mark.parametrize(
    "reason",
    [
        "google/gemini-2.5-flash-lite is temporarily not available, try again",
        "google/gemini-2.5-flash-lite is rate-limited upstream",
        "google/gemini-2.5-flash-lite-preview is no longer available",
        "google/gemini-2.5-flash is no longer available",
        "The parameter seed is deprecated for google/gemini-2.5-flash-lite",
        "temperature is no longer supported",
        "This model is no longer available",
        "google/gemini-2.5-flash-lite: temperature is not supported",
        "google/gemini-2.5-flash-lite: the image at https://example.com/mug.jpg is not found",
        "google/gemini-2.5-flash-lite needs a tool which is not available",
        "Model google/gemini-1 is deprecated: use google/gemini-2.5-flash-lite",
    ],
)
@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_does_not_say_that_this_model_is_gone_is_not_asked_again(
    box: Sandbox, client: FalClient, reason: str, status: int
) -> None:
    box.fault("job", fail={"error": "Bad", "status": status, "body": {"detail": reason}})
    assert client.any_llm_complete("Hi")["error_type"] in ("model_rejected", "job_failed")
    assert len(asked(box)) == 1


# ---------------------------------------------------------------- models that were named


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("call", CALLS)
def test_a_model_that_was_named_is_never_replaced_even_when_it_is_the_default(
    box: Sandbox, client: FalClient, call: str, how: Any
) -> None:
    chain, ask = CALLS[call]
    named, successor = MODEL_CHAINS[chain][:2]
    box.configure(gone_models=[f"{named}={how}"])
    result = ask(client, model=named)
    assert (result["error_type"], result["retryable"]) == ("model_gone", False)
    assert named in result["error"]
    assert successor in result["hint"]
    assert models(box) == [named]


def test_a_model_of_ones_own_is_named_with_a_successor(box: Sandbox, client: FalClient) -> None:
    box.configure(gone_models=["anthropic/claude-3.5-sonnet"])
    result = client.any_llm_complete("Hi", model="anthropic/claude-3.5-sonnet")
    assert result["error_type"] == "model_gone"
    assert "google/gemini-3.5-flash-lite" in result["hint"]


def test_the_worker_never_replaces_a_model_that_was_named(box: Sandbox, run: Callable[..., tuple[int, Any]]) -> None:
    first, second = MODEL_CHAINS["text"]
    box.configure(gone_models=[first])
    code, document = run("any-llm-complete", "--prompt", "Hi", "--model", first)
    assert (code, document["error_type"]) == (1, "model_gone")
    code, document = run("any-llm-complete", "--prompt", "Hi")
    assert (code, document["error"]) == (0, None)
    assert models(box) == [first, first, second]


# ---------------------------------------------------------------- submitted jobs


@pytest.mark.parametrize("how", HOW)
def test_a_submitted_job_is_not_asked_again_but_the_next_one_goes_to_the_successor(
    box: Sandbox, client: FalClient, how: Any
) -> None:
    first, second = MODEL_CHAINS["text"]
    box.configure(gone_models=[f"{first}={how}"])
    request_id = client.any_llm_submit("Hi")
    box.wait_for(lambda ledger: ledger["running"] == 0)
    result = client.any_llm_result(request_id)
    assert (result["error_type"], result["retryable"], result["request_id"]) == ("model_gone", False, request_id)
    assert first in result["error"]
    assert second in result["hint"]
    assert models(box) == [first]
    client.any_llm_submit("Hi")
    assert models(box) == [first, second]


# ---------------------------------------------------------------- reasoning


@pytest.mark.parametrize("call", CALLS)
def test_a_model_that_must_reason_is_asked_once_more_and_remembered(box: Sandbox, client: FalClient, call: str) -> None:
    chain, ask = CALLS[call]
    box.configure(must_reason=[MODEL_CHAINS[chain][0]])
    assert ask(client)["error"] is None
    assert ask(client)["error"] is None
    assert [job["input"].get("reasoning") for job in box.ledger()["jobs"]] == [None, True, True]
    assert len(set(models(box))) == 1


@pytest.mark.parametrize(
    "reason",
    [
        "Reasoning can't be turned off for this model.",
        "Budget 0 is invalid. This model only works in thinking mode.",
        "This model requires reasoning.",
        "Thinking is mandatory.",
    ],
)
def test_that_a_model_must_reason_may_be_said_in_other_words(box: Sandbox, client: FalClient, reason: str) -> None:
    box.fault("job", fail={"error": "Bad", "status": 400, "body": {"detail": reason}})
    assert client.any_llm_complete("Hi")["error"] is None
    assert [job["input"].get("reasoning") for job in box.ledger()["jobs"]] == [None, True]


def test_a_model_that_was_named_and_must_reason_is_asked_once_more_too(box: Sandbox, client: FalClient) -> None:
    box.configure(must_reason=[THIRD])
    assert client.any_llm_complete("Hi", model=THIRD)["error"] is None
    assert models(box) == [THIRD, THIRD]


@pytest.mark.parametrize("given", [None, True, False])
def test_reasoning_is_sent_only_when_it_is_given(box: Sandbox, client: FalClient, given: bool | None) -> None:
    client.any_llm_complete("Hi", reasoning=given)
    client.any_llm_enterprise("Hi", reasoning=given)
    client.any_llm_submit("Hi", reasoning=given)
    list(client.iter_any_llm("Hi", reasoning=given))
    sent = [job["input"].get("reasoning", "not sent") for job in box.ledger()["jobs"]]
    assert sent == ["not sent" if given is None else given] * 4


def test_the_worker_sends_reasoning_only_when_it_is_given(box: Sandbox, run: Callable[..., tuple[int, Any]]) -> None:
    for options in ((), ("--reasoning", "true"), ("--reasoning", "false")):
        assert run("any-llm-complete", "--prompt", "Hi", *options)[0] == 0
    assert [job["input"].get("reasoning") for job in box.ledger()["jobs"]] == [None, True, False]


def test_a_refusal_that_reasoning_does_not_help_is_told(box: Sandbox, client: FalClient) -> None:
    why = {"detail": "Reasoning is mandatory for this endpoint and cannot be disabled."}
    box.fault("job", fail={"error": "Bad", "status": 400, "body": why}, times=None)
    assert client.any_llm_complete("Hi")["error_type"] == "model_rejected"
    assert len(asked(box)) == 2


def test_a_submitted_job_whose_model_must_reason_says_what_to_pass(box: Sandbox, client: FalClient) -> None:
    box.configure(must_reason=[THIRD])
    request_id = client.any_llm_submit("Hi", model=THIRD)
    box.wait_for(lambda ledger: ledger["running"] == 0)
    result = client.any_llm_result(request_id)
    assert result["error_type"] == ModelRejected.error_type
    assert "--reasoning true" in result["hint"]


# ---------------------------------------------------------------- texts that are empty


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_never_a_success(box: Sandbox, client: FalClient, call: str, text: str) -> None:
    box.say(text, times=None)
    result = CALLS[call][1](client)
    assert result["error_type"] == "bad_output"
    assert "no text" in result["error"]


def test_an_empty_text_of_a_submitted_job_is_no_success_either(box: Sandbox, client: FalClient) -> None:
    box.say("")
    request_id = client.any_llm_submit("Hi")
    box.wait_for(lambda ledger: ledger["running"] == 0)
    assert client.any_llm_result(request_id)["error_type"] == "bad_output"


@pytest.mark.parametrize("call", ["complete", "stream", "enterprise", "vision"])
def test_when_reasoning_ate_max_tokens_the_error_says_so(box: Sandbox, client: FalClient, call: str) -> None:
    box.configure(must_reason=[THIRD])
    result = CALLS[call][1](client, model=THIRD, max_tokens=20, reasoning=True)
    assert (result["error_type"], result["retryable"]) == ("bad_output", False)
    assert "max_tokens (20)" in result["error"]
    assert "Raise max_tokens" in result["hint"]


def test_a_last_event_without_text_does_not_take_back_what_was_written(box: Sandbox, client: FalClient) -> None:
    events = [{"output": "All", "partial": True}, {"output": "", "partial": False, "usage": {"total_tokens": 3}}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    box.fault("stream", status=200, body=body, content_type="text/event-stream")
    last = list(client.iter_any_llm("Hi"))[-1]
    assert last == {"delta": "", "output": "All", "partial": False, "usage": {"total_tokens": 3}, "cost_usd": None}


def test_the_errors_are_in_the_tree(box: Sandbox, client: FalClient) -> None:
    box.configure(gone_models=[THIRD])
    with pytest.raises(ModelGone):
        list(client.iter_any_llm("Hi", model=THIRD))
    box.say("")
    with pytest.raises(BadOutput):
        list(client.iter_any_llm("Hi"))


# Models whose end was announced


TODAY = date(2026, 11, 26)


def test_default_models_that_end_are_told_the_next_one_first() -> None:
    (pro, mini) = endings({}, TODAY)
    assert pro == {
        "model": "google/gemini-2.5-pro",
        "ends_on": "2026-12-01",
        "days_left": 5,
        "then": dict.fromkeys(("enterprise", "vision"), "google/gemini-3.8-flash"),
    }
    assert (mini["model"], mini["ends_on"], list(mini["then"])) == ("openai/gpt-5-mini", "2026-12-11", ["prompt"])


def test_models_set_by_hand_are_looked_at_in_place_of_the_default_ones() -> None:
    (only,) = endings({"enterprise": ("openai/gpt-4o",), "vision": (THIRD,), "prompt": (THIRD,)}, TODAY)
    assert (only["model"], only["then"]) == ("openai/gpt-4o", {"enterprise": None})


@pytest.mark.parametrize(("days", "warns"), [(31, False), (30, True), (1, True), (0, True), (-40, True)])
def test_a_model_is_warned_of_from_thirty_days_before_its_end(days: int, warns: bool) -> None:
    today = ends_on("openai/gpt-5-mini") - timedelta(days=days)
    (row,) = [row for row in endings({}, today) if row["model"] == "openai/gpt-5-mini"]
    warning = warning_of(row)
    assert (warning is not None) is warns
    if warns:
        assert (
            f"ends on 2026-12-11, in {days} day{'s' * (days > 1)}. " if days > 0 else "ended on 2026-12-11"
        ) in warning
        assert "google/gemini-3.5-flash-lite is asked in its place" in warning


def test_a_model_without_a_successor_is_warned_of_with_the_remedy() -> None:
    (row,) = [row for row in endings({"text": ("openai/gpt-4o",)}, date(2027, 1, 1)) if row["then"] == {"text": None}]
    assert "set FAL_TEXT_MODEL to another model" in warning_of(row)


def test_every_end_is_a_day() -> None:
    assert all(ends_on(model) is not None for model in MODEL_ENDS)
    assert ends_on(THIRD) is None


def test_the_doctor_tells_and_warns_of_models_that_end(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    today = datetime.now(timezone.utc).date()
    ends = {"openai/gpt-5-mini": today + timedelta(days=9), "google/gemini-2.5-pro": today + timedelta(days=99)}
    monkeypatch.setattr("services.fal.model_ends.MODEL_ENDS", {model: day.isoformat() for model, day in ends.items()})
    report = client.doctor()
    assert [row["model"] for row in report["endings"]] == list(ends)
    (warning,) = report["warnings"]
    assert "openai/gpt-5-mini of prompt ends on" in warning
    assert report["error"] is None
