"""Errors: which one an answer of fal is, what it carries, and that nothing else ever leaves a FalClient."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal import errors
from services.fal.errors import EndpointGone, FalError, NotFound
from services.fal_service import FalClient

NGINX = "<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
BALANCE = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
FIELDS = [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing", "input": {}}]
OLD_FIELDS = [{"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)


# ---------------------------------------------------------------- the classes

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, FalError) and value is not FalError
]
TYPES = (
    "invalid_input missing_key auth balance_exhausted rate_limited model_rejected model_gone endpoint_gone not_found "
    "not_ready job_failed fal_unavailable unreachable timeout ambiguous_submit stream_truncated bad_output cancelled "
    "budget_exceeded internal"
)


def test_every_documented_type_has_one_class() -> None:
    own = {cls.error_type: cls for cls in CLASSES if "error_type" in vars(cls)}
    assert set(own) == set(TYPES.split())
    assert len(own) == len([cls for cls in CLASSES if "error_type" in vars(cls)])


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_runtime_error_and_what_python_has_for_it(cls: Any) -> None:
    assert issubclass(cls, RuntimeError)
    assert issubclass(cls, ValueError) is (cls.error_type in ("invalid_input", "missing_key"))
    assert issubclass(cls, TimeoutError) is (cls.error_type == "timeout")


@pytest.mark.parametrize("duplicate", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_pickling_and_copying_whole(cls: Any, duplicate: Any) -> None:
    error = cls(
        "It failed.",
        status_code=418,
        request_id="an-id",
        retryable=True,
        hint="Do this.",
        detail=FIELDS,
        partial={"output": "ha"},
    )
    other = duplicate(error)
    assert type(other) is cls
    assert (str(other), vars(other)) == (str(error), vars(error))
    assert str(error) == "It failed. Request id: an-id. Do this."


def test_the_type_of_an_error_belongs_to_its_class_and_retryable_has_a_default() -> None:
    assert (errors.RateLimited("x").retryable, errors.AmbiguousSubmit("x").retryable) == (True, False)
    assert str(errors.AuthError("Only this.")) == "Only this."


# ---------------------------------------------------------------- answers that refuse

REFUSALS = [
    pytest.param(401, {"detail": "invalid key credentials"}, "auth", False, ["invalid key", "FAL_KEY"], id="401"),
    pytest.param(
        403, {"detail": "Key lacks the API scope"}, "auth", False, ["scope", "dashboard/keys"], id="403 scope"
    ),
    pytest.param(
        403, {"detail": BALANCE}, "balance_exhausted", False, ["Top up", "dashboard/billing"], id="403 balance"
    ),
    pytest.param(400, {"detail": "Bad"}, "model_rejected", False, ["Bad"], id="400"),
    pytest.param(405, None, "model_rejected", False, ["405"], id="405"),
    pytest.param(408, None, "fal_unavailable", True, ["408"], id="408"),
    pytest.param(409, None, "fal_unavailable", True, ["409"], id="409"),
    pytest.param(413, None, "model_rejected", False, ["too large"], id="413"),
    pytest.param(422, {"detail": FIELDS}, "model_rejected", False, ["prompt: Field required"], id="422 list"),
    pytest.param(
        422, {"detail": OLD_FIELDS}, "model_rejected", False, ["prompt: field required"], id="422 pydantic v1"
    ),
    pytest.param(422, {"detail": "No such model"}, "model_rejected", False, ["No such model"], id="422 text"),
    pytest.param(422, {"detail": ["one", "two"]}, "model_rejected", False, ["one; two"], id="422 texts"),
    pytest.param(422, {"detail": {"reason": "x"}}, "model_rejected", False, ["reason"], id="422 object"),
    pytest.param(422, "not json", "model_rejected", False, ["422"], id="422 no JSON"),
    pytest.param(422, [1, 2], "model_rejected", False, ["1; 2"], id="422 bare list"),
    pytest.param(429, None, "rate_limited", True, ["FAL_MAX_CONCURRENCY"], id="429"),
    pytest.param(499, None, "cancelled", False, ["cancelled"], id="499"),
    pytest.param(
        500, {"detail": "Internal Server Error"}, "fal_unavailable", True, ["Internal", "status.fal.ai"], id="500"
    ),
    pytest.param(502, NGINX, "fal_unavailable", True, ["502"], id="502 nginx"),
    pytest.param(503, None, "fal_unavailable", True, ["Runner disconnected", "runner_disconnected"], id="503"),
    pytest.param(504, None, "fal_unavailable", True, ["504"], id="504"),
    pytest.param(418, {}, "model_rejected", False, ["418"], id="something new"),
]


@pytest.mark.parametrize(("status", "body", "error_type", "retryable", "words"), REFUSALS)
def test_a_refused_submit_is_the_error_that_its_answer_means(
    box: Sandbox, client: FalClient, status: int, body: Any, error_type: str, retryable: bool, words: list[str]
) -> None:
    box.fault("submit", status=status, body=body, times=None)
    with pytest.raises(FalError) as caught:
        client.any_llm_submit("Hi")
    error = caught.value
    assert (error.error_type, error.retryable, error.status_code) == (error_type, retryable, status)
    assert [word for word in words if word not in str(error)] == []
    assert error.request_id in [row["request_id"] for row in box.journal() if row["stage"] == "submit"]
    assert error.hint is None or str(error).endswith(error.hint)
    assert "<html" not in str(error)
    detail = body.get("detail") if isinstance(body, dict) else body
    assert error.detail == (detail if isinstance(detail, list | dict) else None)


def test_an_answer_from_before_fal_has_no_request_id(box: Sandbox, client: FalClient) -> None:
    box.fault("submit", status=502, body=NGINX, request_id=False)
    with pytest.raises(FalError) as caught:
        client.any_llm_submit("Hi")
    assert (caught.value.status_code, caught.value.request_id) == (502, None)


def test_a_job_that_could_not_start_in_time_is_a_timeout_of_the_callers_own(box: Sandbox, client: FalClient) -> None:
    box.fault("submit", status=504, headers={"X-Fal-Request-Timeout-Type": "user"})
    result = client.any_llm_complete("Hi")
    assert (result["error_type"], result["status_code"]) == ("timeout", 504)
    assert "FAL_TIMEOUT_S" in result["hint"]
    assert len(box.journal()) == 1


def test_an_endless_reason_is_cut(box: Sandbox, client: FalClient) -> None:
    box.fault("submit", status=422, body={"detail": "x" * 100_000})
    assert len(client.any_llm_complete("Hi")["error"]) < 2000


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("any_llm_status", {"status": "NOT_FOUND"}),
        ("any_llm_status", {"detail": "Not found"}),
        ("any_llm_status", None),
        ("any_llm_cancel", {"status": "NOT_FOUND"}),
        ("any_llm_cancel", {"detail": "Not found"}),
        ("any_llm_result", {"status": "NOT_FOUND"}),
    ],
)
def test_a_request_that_fal_does_not_know_is_not_found_and_not_a_gone_endpoint(
    box: Sandbox, client: FalClient, method: str, body: dict[str, Any] | None
) -> None:
    for stage in ("status", "cancel", "result"):
        box.fault(stage, status=404, body=body, times=None)
    try:
        answer = getattr(client, method)("abc")
    except NotFound as error:
        answer = errors.summary(error)
    assert answer.get("error_type", answer.get("status")) == "not_found"
    assert answer["request_id"] == "abc"


@pytest.mark.parametrize("how", ["", "=410", "=deprecated"])
def test_when_every_endpoint_is_gone_the_error_names_the_variable_to_set(
    box: Sandbox, client: FalClient, how: str
) -> None:
    box.configure(gone=["openrouter/router" + how, "fal-ai/any-llm" + how])
    with pytest.raises(EndpointGone, match="FAL_TEXT_ENDPOINT") as caught:
        client.any_llm_submit("Hi")
    assert (caught.value.error_type, caught.value.retryable) == ("endpoint_gone", False)
    assert caught.value.status_code == {"": 404, "=410": 410, "=deprecated": 422}[how]


# ---------------------------------------------------------------- what is reported


def test_a_reported_failure_can_be_told_as_json_and_traced_to_its_cause(box: Sandbox, client: FalClient) -> None:
    box.fault("submit", drop="after")
    result = client.any_llm_complete("Hi")
    told = json.loads(json.dumps(result))
    assert told == result
    assert {"error", "error_type", "retryable", "status_code", "request_id", "hint", "trace"} <= set(result)
    assert "Traceback" in result["trace"]
    assert "RemoteProtocolError" in result["trace"]
    assert result["error"] in result["trace"]


# ---------------------------------------------------------------- answers that nobody expects

BASE = "https://queue.fal.run/openrouter/router/requests/abc"
URLS = {"status_url": BASE + "/status", "response_url": BASE, "cancel_url": BASE + "/cancel"}
DEEP = '{"output":' + "[" * 50_000
ODD_SUBMITS: list[Any] = [
    {"request_id": "abc"},
    {"request_id": "abc", "status_url": None, "response_url": None, "cancel_url": None},
    {"request_id": "abc", "status_url": 5, "response_url": [], "cancel_url": {}},
    {"request_id": "abc", "status_url": "", "response_url": "://", "cancel_url": "https://[::1"},
    {"request_id": "../../x", **URLS},
    {"request_id": "", **URLS},
    {"request_id": 5, **URLS},
    [],
    "null",
    DEEP,
    "\udcff",
]
ODD_RESULTS: list[Any] = [
    [],
    "null",
    "1e999",
    DEEP,
    {"output": 5},
    {"output": "x", "error": ["y"]},
    {"output": None, "error": {}},
]
ODD_STATUSES: list[Any] = [
    {"status": ["COMPLETED"]},
    {"status": None},
    {"status": "FAILED"},
    {},
    [],
    DEEP,
    {"status": "COMPLETED", "logs": 5, "metrics": "fast", "error": None},
    {"status": "COMPLETED", "error": {"why": "x"}, "error_type": ["y"]},
    {"status": "IN_QUEUE", "queue_position": "first", "logs": [5, None, {"message": 5}]},
]
ODD = [
    *(pytest.param("submit", {"body": body}, id=f"submit {ascii(body)[:50]}") for body in ODD_SUBMITS),
    *(pytest.param("result", {"body": body}, id=f"result {ascii(body)[:50]}") for body in ODD_RESULTS),
    *(pytest.param("status", {"body": body}, id=f"status {ascii(body)[:50]}") for body in ODD_STATUSES),
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("stage", "answer"), ODD)
def test_an_answer_that_nobody_expects_is_survived_or_one_of_our_errors(
    box: Sandbox, client: FalClient, stage: Any, answer: Any
) -> None:
    box.fault(stage, status=200, times=None, **answer)
    if stage != "submit":
        box.fault("status_stream", status=500, times=None)
    result = client.any_llm_complete("Hi", timeout=10 if stage == "submit" else 0.7, with_logs=True)
    assert result.get("error_type") != "internal", result["trace"]
    if stage == "submit":
        assert result["error_type"]
        assert [row["stage"] for row in box.journal()].count("submit") == 1


@pytest.mark.parametrize(
    "body",
    [
        'data: {"status": ["COMPLETED"]}\n\n',
        "data: [1, 2]\n\n",
        "data: {\n\n",
        "data:\n\n",
        'data: {"status": "COMPLETED", "logs": 7, "metrics": 7}\n\n',
        "event: event\nid: \x00\nretry: x\ndata: {}\n\n",
        "data: " + DEEP + "\n\n",
    ],
)
def test_a_status_stream_that_nobody_expects_is_survived(box: Sandbox, client: FalClient, body: str) -> None:
    box.fault("status_stream", status=200, body=body, content_type="text/event-stream")
    assert client.any_llm_complete("Hi", with_logs=True)["error"] is None


@pytest.mark.parametrize("stage", ["submit", "result", "status"])
def test_a_body_that_cannot_be_decoded_is_one_of_our_errors(box: Sandbox, client: FalClient, stage: str) -> None:
    box.fault("status_stream", status=500)
    box.fault(stage, status=200, body="plain text", headers={"Content-Encoding": "gzip"}, times=None)
    result = client.any_llm_complete("Hi")
    assert result["error_type"] == {"submit": "ambiguous_submit"}.get(stage, "unreachable"), result


def test_a_submit_whose_answer_names_only_the_id_tells_that_id(box: Sandbox, client: FalClient) -> None:
    box.fault("submit", status=200, body={"request_id": "abc"})
    result = client.any_llm_complete("Hi")
    assert (result["error_type"], result["request_id"]) == ("ambiguous_submit", "abc")
    assert [row["stage"] for row in box.journal()] == ["submit", "cancel"]


@pytest.mark.parametrize("named", ["https://evil.example/x", "http://queue.fal.run/x", None, 5, "", "https://[::1"])
def test_a_job_is_followed_at_fal_whatever_urls_its_submit_names(
    box: Sandbox, client: FalClient, named: int | str | None
) -> None:
    box.say("Still here")
    client.any_llm_submit("first, so that there is a job")
    request_id = box.ledger()["jobs"][0]["request_id"]
    urls = dict.fromkeys(("status_url", "response_url", "cancel_url"), named)
    box.fault("submit", status=200, body={"request_id": request_id, **urls})
    assert client.any_llm_complete("Hi")["output"] == "Still here"
    assert {row["host"] for row in box.journal()} == {"queue.fal.run"}
