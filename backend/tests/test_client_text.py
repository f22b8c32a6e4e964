"""Text through FalClient: what is sent, what comes back, and images that reach a model as images."""

from __future__ import annotations

from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal_service import FalClient

TEXT, ENTERPRISE, VISION = "openrouter/router", "openrouter/router/enterprise", "openrouter/router/vision"
ANY_LLM = "fal-ai/any-llm"
PHOTO = "https://example.com/red-mug.jpg"
OTHER_PHOTO = "https://example.com/shoe.png?size=1&v=2"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
SEED_KEYS = {"output", "reasoning", "partial", "error", "raw"}
EXTRA_KEYS = {"request_id", "usage", "billable_units", "cost_usd"}
FAILURE_KEYS = {"error_type", "retryable", "status_code", "request_id", "hint", "trace"}


def only_job(box: Sandbox) -> Any:
    [job] = box.ledger()["jobs"]
    return job


def sent(box: Sandbox) -> tuple[Any, ...]:
    """Endpoint and input of the one job that fal was given."""
    job = only_job(box)
    return job["endpoint"], job["input"]


# ---------------------------------------------------------------- complete


def test_complete_returns_the_documented_keys_and_what_fal_said_beside_them(box: Sandbox, client: FalClient) -> None:
    box.say("Sıcak kahveler için el yapımı bir kupa. 🍵")
    result = client.any_llm_complete("Write a product description in Turkish.")
    assert set(result) == SEED_KEYS | EXTRA_KEYS
    assert result["output"] == "Sıcak kahveler için el yapımı bir kupa. 🍵"
    assert (result["reasoning"], result["partial"], result["error"]) == (None, False, None)
    assert result["raw"]["output"] == result["output"]
    assert result["raw"]["sandbox"] is True
    assert result["usage"] == result["raw"]["usage"]
    assert result["usage"]["total_tokens"] > 0
    assert result["request_id"] == only_job(box)["request_id"]
    assert result["billable_units"] == 1


def test_complete_sends_the_prompt_and_the_documented_defaults_only(box: Sandbox, client: FalClient) -> None:
    client.any_llm_complete("Hello")
    assert sent(box) == (TEXT, {"prompt": "Hello", "model": "google/gemini-2.5-flash-lite", "temperature": 0.7})


def test_complete_sends_every_argument_as_it_was_given(box: Sandbox, client: FalClient) -> None:
    client.any_llm_complete(
        "İki cümle yaz.\n- ve bir tire",
        system_prompt="You are a senior e-commerce copywriter.",
        model="openai/gpt-4o-mini",
        temperature=0,
        max_tokens=200,
        priority="throughput",
    )
    assert sent(box) == (
        TEXT,
        {
            "prompt": "İki cümle yaz.\n- ve bir tire",
            "system_prompt": "You are a senior e-commerce copywriter.",
            "model": "openai/gpt-4o-mini",
            "temperature": 0,
            "max_tokens": 200,
        },
    )


@pytest.mark.parametrize("priority", ["latency", "throughput"])
def test_priority_is_sent_to_any_llm_which_knows_it(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, priority: str
) -> None:
    monkeypatch.setenv("FAL_TEXT_ENDPOINT", ANY_LLM)
    with FalClient() as client:
        client.any_llm_complete("Hello", priority=priority)
    endpoint, given = sent(box)
    assert (endpoint, given["priority"]) == (ANY_LLM, priority)


def test_reasoning_and_partial_are_taken_from_the_answer(box: Sandbox, client: FalClient) -> None:
    box.fault("job", output={"output": "42", "reasoning": "Because.", "partial": True, "error": None})
    result = client.any_llm_complete("Think")
    assert (result["output"], result["reasoning"], result["partial"]) == ("42", "Because.", True)
    assert result["usage"] is None


def test_what_the_queue_logs_goes_to_stderr_when_it_is_asked_for_and_nothing_to_stdout(
    box: Sandbox, client: FalClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.any_llm_complete("quiet")
    assert capsys.readouterr() == ("", "")
    client.any_llm_complete("Hello", with_logs=True)
    printed = capsys.readouterr()
    assert "fal: " in printed.err
    assert "openrouter/router started" in printed.err
    assert printed.out == ""


# ---------------------------------------------------------------- enterprise and images


def test_enterprise_returns_the_documented_keys_and_what_fal_said_beside_them(box: Sandbox, client: FalClient) -> None:
    box.say("Hello.")
    result = client.any_llm_enterprise("Say hello")
    assert set(result) == {"output", "error", "raw"} | EXTRA_KEYS
    assert (result["output"], result["error"], result["raw"]["output"]) == ("Hello.", None, "Hello.")
    assert sent(box) == (
        ENTERPRISE,
        {"prompt": "Say hello", "model": "google/gemini-2.5-pro", "temperature": 0.7},
    )


def test_enterprise_sends_every_argument_as_it_was_given(box: Sandbox, client: FalClient) -> None:
    client.any_llm_enterprise(
        "Describe it", system_prompt="Be brief.", model="openai/gpt-5-mini", temperature=2, max_tokens=1
    )
    assert sent(box) == (
        ENTERPRISE,
        {
            "prompt": "Describe it",
            "system_prompt": "Be brief.",
            "model": "openai/gpt-5-mini",
            "temperature": 2,
            "max_tokens": 1,
        },
    )


@pytest.mark.parametrize(
    ("prompt", "given", "expected"),
    [
        pytest.param("What is it?", [PHOTO], [PHOTO], id="as an argument"),
        pytest.param("Compare.", (PHOTO, OTHER_PHOTO), [PHOTO, OTHER_PHOTO], id="two of them in order"),
        pytest.param("What is it?", [PIXEL], [PIXEL], id="a data URI"),
        pytest.param(f"Image URL: {PHOTO}\n\nDescribe this product.", None, [PHOTO], id="a line of the prompt"),
        pytest.param(f"What's in this image? Image URL: {PHOTO}", None, [PHOTO], id="the end of a sentence"),
        pytest.param(
            f"image url:{PHOTO}.\nIMAGE URL: <{OTHER_PHOTO}>", None, [PHOTO, OTHER_PHOTO], id="other spellings"
        ),
        pytest.param(f"Image URL: {PHOTO}", [PHOTO], [PHOTO], id="the same in both"),
        pytest.param(f"Image URL: {OTHER_PHOTO}", [PHOTO], [PHOTO, OTHER_PHOTO], id="one in each"),
        pytest.param(f"Image URL: {PIXEL}", None, [PIXEL], id="a data URI in the prompt"),
    ],
)
def test_images_go_to_the_vision_endpoint_as_image_urls(
    box: Sandbox, client: FalClient, prompt: str, given: list[str] | tuple[Any, ...] | None, expected: list[str]
) -> None:
    box.fault("job", output={"output": "A mug."})
    result = client.any_llm_enterprise(prompt, image_urls=given)
    assert result["error"] is None
    endpoint, arguments = sent(box)
    assert (endpoint, arguments["image_urls"], arguments["prompt"]) == (VISION, expected, prompt)


def test_the_vision_model_sees_the_picture_that_was_named(box: Sandbox, client: FalClient, photo_url: str) -> None:
    result = client.any_llm_enterprise(f"What is it? Image URL: {photo_url}")
    assert "coffee.jpg (240 by 160 pixels)" in result["output"]


@pytest.mark.parametrize("prompt", ["Talk about https://example.com/shop", "Image URL: none", "Image URL: ./mug.jpg"])
def test_a_prompt_without_an_image_line_is_a_text_question(box: Sandbox, client: FalClient, prompt: str) -> None:
    assert client.any_llm_enterprise(prompt, image_urls=[])["error"] is None
    endpoint, arguments = sent(box)
    assert endpoint == ENTERPRISE
    assert "image_urls" not in arguments


def test_a_vision_endpoint_set_by_hand_gets_image_urls_too(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_VISION_ENDPOINT", "fal-ai/any-llm/vision")
    box.fault("job", output={"output": "A mug."})
    with FalClient() as client:
        assert client.any_llm_enterprise("What is it?", image_urls=[PHOTO])["error"] is None
    endpoint, arguments = sent(box)
    assert (endpoint, arguments["image_urls"]) == ("fal-ai/any-llm/vision", [PHOTO])


# ---------------------------------------------------------------- failures in an answer

FAILED_JOBS = [
    pytest.param(
        {"error": "Runner disconnected", "error_type": "runner_disconnected"}, "job_failed", True, id="runner"
    ),
    pytest.param({"error": "It crashed", "error_type": "internal_error"}, "job_failed", True, id="fal itself"),
    pytest.param({"error": "It crashed"}, "job_failed", False, id="without a type"),
    pytest.param({"error": "Bad request", "error_type": "bad_request"}, "model_rejected", False, id="a bad request"),
    pytest.param({"error": "Stopped", "error_type": "client_cancelled"}, "cancelled", False, id="cancelled elsewhere"),
]


@pytest.mark.parametrize(("fail", "error_type", "retryable"), FAILED_JOBS)
@pytest.mark.parametrize("method", ["any_llm_complete", "any_llm_enterprise"])
def test_a_completed_job_with_an_error_is_a_failure(
    box: Sandbox, client: FalClient, method: str, fail: dict[str, Any], error_type: str, retryable: bool
) -> None:
    box.fault("job", fail=fail)
    result = getattr(client, method)("Hello")
    assert (result["error_type"], result["retryable"], result["output"]) == (error_type, retryable, "")
    assert set(result) >= {"output", "error", "raw"} | FAILURE_KEYS
    assert result["request_id"] == only_job(box)["request_id"]
    assert result["request_id"] in result["error"]


def test_a_job_that_the_model_refused_carries_fals_list(box: Sandbox, client: FalClient) -> None:
    detail = [{"loc": ["body", "prompt"], "msg": "Flagged", "type": "content_policy_violation"}]
    box.fault("job", fail={"error": "Invalid status code: 422", "status": 422, "body": {"detail": detail}})
    result = client.any_llm_complete("Hello")
    assert (result["error_type"], result["status_code"], result["retryable"]) == ("model_rejected", 422, False)
    assert result["detail"] == detail
    assert "prompt: Flagged" in result["error"]


@pytest.mark.parametrize("method", ["any_llm_complete", "any_llm_enterprise"])
def test_an_error_inside_a_successful_answer_is_a_failure_that_keeps_the_answer(
    box: Sandbox, client: FalClient, method: str
) -> None:
    answer = {"output": "half a te", "partial": True, "error": "The provider is overloaded"}
    box.fault("job", output=answer)
    result = getattr(client, method)("Hello")
    assert (result["error_type"], result["output"], result["raw"]) == ("job_failed", "", answer)
    assert "The provider is overloaded" in result["error"]


@pytest.mark.parametrize("answer", [{}, {"output": None}, {"output": ["text"]}, {"output": 5}, {"text": "x"}])
def test_an_answer_without_text_is_bad_output(
    box: Sandbox, client: FalClient, answer: dict[Any, Any] | dict[str, Any]
) -> None:
    box.fault("job", output=answer)
    result = client.any_llm_complete("Hello")
    assert (result["error_type"], result["output"]) == ("bad_output", "")
    assert result["request_id"] == only_job(box)["request_id"]


def test_an_input_that_fal_refuses_is_told_with_the_field_at_fault(box: Sandbox, client: FalClient) -> None:
    result = client.any_llm_enterprise("What is it?", image_urls=["https://elsewhere.example.net/x.jpg"])
    assert (result["error_type"], result["status_code"]) == ("model_rejected", 422)
    assert result["detail"][0]["type"] == "file_download_error"
    assert "image_urls" in result["error"]
