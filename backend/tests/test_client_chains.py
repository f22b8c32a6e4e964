"""Endpoints that fal retires: the next one is used, said once, remembered; and jobs are found wherever they went."""

from __future__ import annotations

from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import EndpointGone, NotFound
from services.fal_service import FalClient

PHOTO = "https://v3.fal.media/files/b/photo.png"
PICTURE = {"output": "A text.", "image": {"url": "https://v3.fal.media/files/b/x.png"}}
ROUTER, ANY_LLM = "openrouter/router", "fal-ai/any-llm"
UNKNOWN = "00000000-0000-4000-8000-000000000000"

# The job, the two endpoints of its chain, the variable that replaces them, a call.
JOBS = {
    "text": (ROUTER, ANY_LLM, lambda client: client.any_llm_complete("Hi")),
    "enterprise": (
        "openrouter/router/enterprise",
        "fal-ai/any-llm/enterprise",
        lambda client: client.any_llm_enterprise("Hi"),
    ),
    "vision": (
        "openrouter/router/vision",
        "fal-ai/any-llm/vision",
        lambda client: client.any_llm_enterprise("What is it?", image_urls=[PHOTO]),
    ),
    "photokit": (
        "bria/replace-background",
        "fal-ai/bria/background/replace",
        lambda client: client.background_replace(PHOTO, prompt="white", remove_bg=False),
    ),
    "cutout": ("fal-ai/bria/background/remove", "fal-ai/birefnet/v2", lambda client: client.remove_background(PHOTO)),
}


@pytest.fixture(autouse=True)
def quick(box: Sandbox) -> None:
    """Models answer at once, and without looking at the picture."""
    box.fault("job", output=PICTURE, times=None)


def asked(box: Sandbox) -> list[Any]:
    """The endpoints that were asked to take a job."""
    return [
        row["path"].strip("/").removesuffix("/stream") for row in box.journal() if row["stage"] in ("submit", "stream")
    ]


@pytest.mark.parametrize("how", ["", "=410", "=deprecated"])
@pytest.mark.parametrize("job", JOBS)
def test_the_next_endpoint_takes_over_says_so_once_and_stays(
    box: Sandbox, client: FalClient, caplog: pytest.LogCaptureFixture, job: str, how: str
) -> None:
    first, second, call = JOBS[job]
    box.configure(gone=[first + how])
    assert call(client).get("error") is None
    assert call(client).get("error") is None
    with FalClient() as other:
        assert call(other).get("error") is None
    assert asked(box) == [first, second, second, second]
    told = caplog.text
    assert told.count(f"Using {second} instead") == 1
    assert first in told


def test_both_endpoints_are_given_the_input_that_they_take(box: Sandbox, client: FalClient) -> None:
    box.configure(gone=["openrouter/router", "openrouter/router/vision", "bria/replace-background"])
    for job in ("text", "vision", "photokit"):
        assert JOBS[job][2](client).get("error") is None
    text, vision, photokit = (entry["input"] for entry in box.ledger()["jobs"])
    assert text["priority"] == "latency"
    assert vision["image_urls"] == [PHOTO]
    assert photokit == {"image_url": PHOTO, "prompt": "white"}


def test_another_account_finds_out_for_itself(box: Sandbox, client: FalClient) -> None:
    box.configure(gone=[ROUTER])
    client.any_llm_complete("Hi")
    with FalClient(key="other-id:other-secret") as other:
        other.any_llm_complete("Hi")
    assert asked(box) == [ROUTER, ANY_LLM] * 2


@pytest.mark.parametrize(
    "ending",
    [
        {"output": {"output": "", "error": "This endpoint is deprecated, use another."}},
        {"output": {"output": "", "error": "openrouter/router is no longer available"}},
        {"fail": {"status": 404, "body": {"status": "NOT_FOUND", "detail": "Request not found"}}},
        {"fail": {"status": 404, "body": {"detail": 'Application "router" not found'}}},
        {"fail": {"status": 410, "body": {"detail": "openrouter/router is gone"}}},
        {"fail": {"status": 422, "body": {"detail": "The parameter priority is deprecated"}}},
        {"fail": {"status": 400, "body": {"detail": "openrouter/router is deprecated"}}},
    ],
    ids=str,
)
def test_a_job_that_has_an_id_moves_nothing_whatever_its_answer_says(
    box: Sandbox, client: FalClient, ending: dict[str, Any]
) -> None:
    box.reset()
    box.fault("job", **ending)
    result = client.any_llm_complete("Hi")
    assert result["error_type"] in ("job_failed", "model_rejected", "not_found")
    assert client.any_llm_complete("Hi")["error"] is None
    assert asked(box) == [ROUTER] * 2


@pytest.mark.parametrize("stage", ["status", "result", "cancel"])
@pytest.mark.parametrize(
    "body",
    [
        {"detail": "This endpoint is no longer available"},
        {"detail": 'Application "router" not found'},
        {"detail": "Path /x not found"},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [404, 410])
def test_a_request_that_is_not_found_says_nothing_about_its_endpoint(
    box: Sandbox, client: FalClient, stage: str, body: dict[str, Any], status: int
) -> None:
    box.fault(stage, status=status, body=body, times=None)
    try:
        told = getattr(client, f"any_llm_{stage}")("nope")
    except NotFound as error:
        told = {"error_type": error.error_type}
    assert told.get("error_type", told.get("status")) == "not_found"
    assert client.any_llm_complete("Hi", timeout=10).get("error_type") in (None, "not_found")
    assert asked(box) == [ROUTER]


@pytest.mark.parametrize(
    "reason",
    ["The parameter `priority` is deprecated in this endpoint", "`seed` is no longer supported", "Deprecated input"],
)
def test_a_submit_that_is_refused_for_an_input_does_not_move_to_another_endpoint(
    box: Sandbox, client: FalClient, reason: str
) -> None:
    box.fault("submit", status=400, body={"detail": reason})
    assert client.any_llm_complete("Hi")["error_type"] == "model_rejected"
    assert asked(box) == [ROUTER]


def test_a_stream_and_a_submit_share_what_was_found_out(box: Sandbox, client: FalClient) -> None:
    box.configure(gone=[ROUTER])
    assert list(client.iter_any_llm("Hi"))
    request_id = client.any_llm_submit("Hi")
    assert asked(box) == [ROUTER, ANY_LLM, ANY_LLM]
    assert client.submit_job("Hi")["endpoint"] == ANY_LLM
    assert request_id in [job["request_id"] for job in box.ledger()["jobs"]]


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 401},
        {"status": 403},
        {"status": 500},
        {"status": 422},
        {"status": 422, "body": {"detail": [{"loc": ["body", "model"], "msg": "model is deprecated", "type": "x"}]}},
        {"drop": "after"},
    ],
    ids=str,
)
def test_other_failures_do_not_move_to_another_endpoint(
    box: Sandbox, client: FalClient, trouble: dict[str, Any]
) -> None:
    box.fault("submit", **trouble)
    assert client.any_llm_complete("Hi")["error"]
    assert asked(box) == [ROUTER]


@pytest.mark.parametrize("job", JOBS)
def test_an_endpoint_set_by_hand_has_no_chain(box: Sandbox, monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    first, second, call = JOBS[job]
    variable = f"FAL_{job.upper()}_ENDPOINT"
    monkeypatch.setenv(variable, first)
    box.configure(gone=[first])
    with FalClient() as client:
        try:
            result = call(client)
        except EndpointGone as error:
            result = {"error": str(error), "error_type": error.error_type}
    assert result["error_type"] == "endpoint_gone"
    assert variable in result["error"]
    assert asked(box) == [first]
    box.configure(gone=[])
    monkeypatch.setenv(variable, second)
    with FalClient() as client:
        assert call(client).get("error") is None
    assert asked(box) == [first, second]


def test_an_endpoint_set_by_hand_does_not_mind_that_the_chain_has_moved(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.configure(gone=[ROUTER])
    client.any_llm_complete("Hi")
    monkeypatch.setenv("FAL_TEXT_ENDPOINT", "openrouter/router/enterprise")
    with FalClient() as by_hand:
        assert by_hand.any_llm_complete("Hi")["error"] is None
    assert asked(box)[-1] == "openrouter/router/enterprise"


# ---------------------------------------------------------------- jobs from before


def test_a_job_from_before_the_move_is_still_found(box: Sandbox, client: FalClient) -> None:
    before, to_stop = client.any_llm_submit("Hi"), client.any_llm_submit("Hi")
    box.configure(gone=[ROUTER])
    client.any_llm_complete("Hi")
    after = client.any_llm_submit("Hi")
    for request_id in (before, after):
        box.wait_for(lambda ledger: ledger["running"] == 0)
        assert client.any_llm_status(request_id)["status"] == "COMPLETED"
        assert client.any_llm_result(request_id)["output"] == "A text."
    assert client.any_llm_cancel(to_stop)["status"] == "too_late"


@pytest.mark.parametrize("refusal", [{"detail": 'Application "router" not found'}, {"status": "NOT_FOUND"}, None])
def test_a_job_of_another_process_is_found_past_an_endpoint_that_is_gone(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch, refusal: dict[str, Any] | None
) -> None:
    monkeypatch.setenv("FAL_TEXT_ENDPOINT", ANY_LLM)
    with FalClient() as other:
        request_id = other.any_llm_submit("Hi")
    monkeypatch.delenv("FAL_TEXT_ENDPOINT")
    box.wait_for(lambda ledger: ledger["running"] == 0)
    for stage in ("status", "result", "cancel"):
        box.fault(stage, status=404, body=refusal)
    assert client.any_llm_status(request_id)["status"] == "COMPLETED"
    assert client.any_llm_result(request_id)["output"] == "A text."
    assert client.any_llm_cancel(request_id)["status"] == "too_late"


def test_a_job_that_nobody_knows_was_looked_for_everywhere(box: Sandbox, client: FalClient) -> None:
    assert client.any_llm_cancel(UNKNOWN)["status"] == "not_found"
    paths = [row["path"] for row in box.journal()]
    assert paths == [f"/{endpoint}/requests/{UNKNOWN}/cancel" for endpoint in (ROUTER, ANY_LLM)]
