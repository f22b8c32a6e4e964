"""Every fault of the wire, for every command that talks to fal.

Each cell must end in exactly one JSON document with the right `error_type`, `retryable` and exit code, in time, with
nothing left behind, with no more than one accepted job per logical job, and without a trace of the key.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
import trustme

from conftest import COFFEE
from fal_sandbox.server import Sandbox
from schema_check import assert_output_is_true
from services.fal import transport
from services.fal_service import FalClient
from services.fal_worker import main

KEY_HALVES = ("planted-key-id-91", "planted-secret-73")
CATEGORIES = '{"main_product_type": "Kitchenware", "vibe": "Cozy"}'
PICTURE = {"image": {"url": "https://v3.fal.media/files/x.png", "width": 8, "height": 8}}
TIMEOUT_S = 1.5
PATIENT_S = 30.0
"""Where no deadline is meant to pass: painting a picture takes its time on a busy machine."""
OVERTIME_S = 5.0
"""How late an answer may be on a busy machine; what does not mind its deadline takes 10 s or more."""
NOT_RETRYABLE = {
    "auth",
    "balance_exhausted",
    "model_rejected",
    "model_gone",
    "endpoint_gone",
    "not_found",
    "ambiguous_submit",
    "cancelled",
    "invalid_input",
}


@dataclass(frozen=True)
class Cell:
    """One command, and the first request that it makes."""

    command: str
    stage: str
    options: tuple[str, ...]
    jobs: int = 1
    """Logical jobs at most."""

    @property
    def asks(self) -> str:
        """Whether that request may cost money, asks about a job, or stores a file."""
        return {"submit": "paid", "stream": "stream", "token": "storage"}.get(self.stage, "free")


CELLS = (
    Cell("any-llm-complete", "submit", ("--prompt", "hi")),
    Cell("any-llm-enterprise", "submit", ("--prompt", "hi")),
    Cell("any-llm-stream", "stream", ("--prompt", "hi")),
    Cell("any-llm-submit", "submit", ("--prompt", "hi")),
    Cell("any-llm-status", "status", ("--request_id", "ID")),
    Cell("any-llm-result", "result", ("--request_id", "ID")),
    Cell("any-llm-cancel", "cancel", ("--request_id", "ID")),
    Cell("background", "submit", ("--image_url", "PHOTO", "--prompt", "studio", "--remove_bg", "false")),
    Cell("remove-background", "submit", ("--image_url", "PHOTO")),
    Cell("analyze-product", "submit", ("--image_url", "PHOTO")),
    Cell("generate-bg-prompt", "submit", ("--categories", CATEGORIES, "--style_type", "studio")),
    Cell("generate-multiple-bg", "submit", ("--image_url", "PHOTO", "--categories", CATEGORIES), jobs=7),
    Cell("upload-file", "token", ("--file_path", "FILE"), jobs=0),
    Cell("workflow", "submit", ("--image", "PHOTO"), jobs=9),
)
JOB_CELLS = tuple(cell for cell in CELLS if cell.stage == "submit" and cell.command != "any-llm-submit")


@dataclass(frozen=True)
class Fault:
    """What happens on the wire to that request, and what the user is told."""

    name: str
    action: dict[str, Any]
    paid: str
    free: str
    stream: str | None = None
    """Where it differs from `paid`."""
    storage: str | None = None
    """Where it differs from `free`."""
    status_code: int | None = None
    accepted: bool = False
    """Whether fal takes the job all the same."""
    except_for: tuple[str, ...] = field(default=())
    """Commands to which it does no harm."""
    cancels: bool = False
    """Whether every job that fal took is cancelled, since its answer names it."""

    def error_type(self, cell: Cell) -> str:
        if cell.asks == "paid":
            return self.paid
        if cell.asks == "stream":
            return self.stream or self.paid
        return (self.storage or self.free) if cell.asks == "storage" else self.free


def refusal(name: str, status: int, error_type: str, **more: Any) -> Fault:
    action: dict[str, Any] = {
        key: more.pop(key) for key in ("body", "headers", "retry_after", "request_id") if key in more
    }
    free = more.pop("free", error_type)
    return Fault(name, {"status": status, **action}, error_type, free, status_code=status, **more)


FIELD_ERRORS = [{"loc": ["body", "prompt"], "msg": "too long", "type": "sequence_too_long", "ctx": {"max_length": 1}}]
V1_ERRORS = [{"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}]
BALANCE = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
INGRESS = "<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
LATER = "Wed, 21 Oct 2099 07:28:00 GMT"
FREE = ("any-llm-status", "any-llm-result", "any-llm-cancel", "upload-file")
JOB_URLS = dict.fromkeys(("response_url", "status_url", "cancel_url"), "https://queue.fal.run/openrouter/router")

ODD_ACCEPTS: dict[str, dict[str, Any]] = {
    "a stream of events": {"body": "data: {}\n\n", "content_type": "text/event-stream"},
    "no id": {"body": {"request_id": None, **JOB_URLS}},
    "an odd id": {"body": {"request_id": "../../x", **JOB_URLS}},
    "a number": {"body": {"request_id": 5, **JOB_URLS}},
}
FAULTS = (
    Fault("reset before it was read", {"drop": "unread"}, "ambiguous_submit", "unreachable"),
    Fault("reset after it was read", {"drop": "before"}, "ambiguous_submit", "unreachable"),
    Fault("reset after it was accepted", {"drop": "after"}, "ambiguous_submit", "unreachable", accepted=True),
    Fault("tunnel cut", {"drop": "connect"}, "unreachable", "unreachable"),
    refusal("401", 401, "auth", body={"detail": "invalid key credentials"}),
    refusal("403 scope", 403, "auth", body={"detail": "Key lacks the scope"}),
    refusal("403 balance", 403, "balance_exhausted", body={"detail": BALANCE}),
    refusal(
        "404 application",
        404,
        "endpoint_gone",
        free="not_found",
        body={"detail": "Application not found"},
        except_for=("any-llm-result", "any-llm-cancel"),
    ),
    refusal(
        "404 request",
        404,
        "endpoint_gone",
        free="not_found",
        body={"status": "NOT_FOUND"},
        except_for=("any-llm-cancel",),
    ),
    refusal("408", 408, "fal_unavailable", stream="ambiguous_submit"),
    refusal("409", 409, "fal_unavailable", stream="ambiguous_submit"),
    refusal(
        "410",
        410,
        "endpoint_gone",
        free="not_found",
        body={"detail": "Gone"},
        except_for=("any-llm-cancel",),
    ),
    refusal("422 list", 422, "model_rejected", body={"detail": FIELD_ERRORS}),
    refusal("422 string", 422, "model_rejected", body={"detail": "the prompt is not acceptable"}),
    refusal("422 pydantic v1", 422, "model_rejected", body={"detail": V1_ERRORS}),
    refusal("429", 429, "rate_limited"),
    refusal("429 in seconds", 429, "rate_limited", retry_after="0.01"),
    refusal("429 with a date", 429, "rate_limited", retry_after=LATER),
    refusal("429 absurd", 429, "rate_limited", retry_after="9" * 400),
    refusal("500", 500, "fal_unavailable", stream="ambiguous_submit"),
    refusal("502 of an ingress", 502, "ambiguous_submit", free="fal_unavailable", body=INGRESS, request_id=False),
    refusal("503", 503, "fal_unavailable"),
    refusal("503 with a hint", 503, "fal_unavailable", headers={"X-Fal-Needs-Retry": "1"}),
    refusal("504 of our deadline", 504, "timeout", headers={"X-Fal-Request-Timeout-Type": "user"}),
    Fault("redirect", {"redirect": "https://evil.example.com/x"}, "fal_unavailable", "fal_unavailable"),
    *(
        Fault(
            f"garbage: {kind}",
            {"garbage": kind},
            "ambiguous_submit",
            "bad_output",
            stream="bad_output",
            accepted=True,
            except_for=("any-llm-cancel",),
        )
        for kind in ("html", "truncated", "empty")
    ),
    Fault(
        "garbage: shape",
        {"garbage": "shape"},
        "ambiguous_submit",
        "bad_output",
        stream="bad_output",
        accepted=True,
        except_for=("any-llm-cancel",),
    ),
    *(
        Fault(
            f"{status} though it was accepted",
            {"status": status, "accept": True, **hint},
            "ambiguous_submit",
            "fal_unavailable",
            # The direct host has no cancel; its 503 with a hint is taken at its word.
            stream="fal_unavailable" if status == 503 else None,
            status_code=status,
            accepted=True,
            cancels=True,
            except_for=FREE,
        )
        for status, hint in [
            *((status, {}) for status in (500, 502, 503, 504, 524, 408, 409)),
            (503, {"headers": {"X-Fal-Needs-Retry": "1"}}),
        ]
    ),
    *(
        Fault(
            f"accepted by {name}",
            {"status": 200, "accept": True, **answer},
            "ambiguous_submit",
            "bad_output",
            accepted=True,
            stream="bad_output",
            cancels=True,
            except_for=(*FREE, "any-llm-stream"),
        )
        for name, answer in ODD_ACCEPTS.items()
    ),
    Fault("10 s of silence", {"silent": 10.0}, "ambiguous_submit", "timeout", accepted=True),
)


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.002)
    monkeypatch.setattr(transport, "BACKOFF_MAX_S", 0.01)


@pytest.fixture
def filled(box: Sandbox, monkeypatch: pytest.MonkeyPatch, photo_url: str) -> Callable[[Cell], list[str]]:
    """A cell's command line, with a real job, photo and file in it; the key is the planted one."""
    monkeypatch.setenv("FAL_KEY", ":".join(KEY_HALVES))
    monkeypatch.setenv("FAL_LOG", "debug")

    def fill(cell: Cell, timeout_s: float = TIMEOUT_S) -> list[str]:
        values = {"PHOTO": photo_url, "FILE": str(COFFEE), "ID": ""}
        if "ID" in cell.options:
            with FalClient() as client:
                values["ID"] = client.any_llm_submit("earlier")
        return [cell.command, *(values.get(word, word) for word in cell.options), "--timeout", str(timeout_s)]

    return fill


def run_cell(argv: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Run the worker here and check what holds for every cell."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    capfd.readouterr()
    began = time.monotonic()
    code = main(argv)
    took = time.monotonic() - began
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert out.endswith("\n")
    assert len(lines) == 1
    assert_output_is_true(argv, code, out)
    assert took < float(argv[-1]) + OVERTIME_S
    assert not [half for half in KEY_HALVES if half in out + err]
    assert_soon(lambda: set(threading.enumerate()) <= threads | service_threads())
    assert_soon(lambda: open_sockets() <= sockets)
    return code, json.loads(lines[0])


def service_threads() -> set[threading.Thread]:
    """The sandbox's own: it makes its workers when it needs them."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(("fal-", "Thread-", "FAL_"))}


def open_sockets() -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except OSError:
            continue
    return count


def assert_soon(holds: Callable[[], bool]) -> None:
    """The sandbox's side of a closed connection goes a moment after ours."""
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def expected_retryable(error_type: str, cell: Cell) -> bool:
    return error_type not in NOT_RETRYABLE and not (error_type == "bad_output" and cell.asks == "stream")


def cells_of(faults: tuple[Fault, ...]) -> Iterator[Any]:
    for fault, cell in itertools.product(faults, CELLS):
        if cell.command not in fault.except_for:
            yield pytest.param(fault, cell, id=f"{fault.name} / {cell.command}")


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("fault", "cell"), list(cells_of(FAULTS)))
def test_every_fault_of_the_first_request_has_its_one_answer(
    fault: Fault, cell: Cell, box: Sandbox, filled: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = filled(cell, TIMEOUT_S if "silent" in fault.action else PATIENT_S)
    before = box.ledger()["accepted"]
    box.configure(latency=60 if fault.cancels and cell.asks == "paid" else 0)
    box.fault(cell.stage, times=None, **fault.action)

    code, document = run_cell(argv, capfd)

    error_type = fault.error_type(cell)
    assert (code, document["error_type"]) == (1, error_type), document["error"]
    if fault.name != "redirect":
        assert document["retryable"] is expected_retryable(error_type, cell)
    if fault.status_code and cell.jobs < 2:
        assert document["status_code"] == fault.status_code
    ledger = box.ledger()
    accepted = ledger["accepted"] - before
    assert accepted <= (cell.jobs if fault.accepted else 0)
    if fault.cancels and cell.asks == "paid":
        assert accepted
        assert {job["outcome"] for job in ledger["jobs"][-accepted:]} == {"cancelled"}
        assert document["request_id"] in {job["request_id"] for job in ledger["jobs"]}


def test_a_connection_that_is_refused_is_unreachable(
    filled: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], box: Sandbox
) -> None:
    for cell in CELLS:
        argv = filled(cell, PATIENT_S)
        accepted = box.ledger()["accepted"]
        with monkeypatch.context() as patch:
            patch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
            patch.setenv("https_proxy", "http://127.0.0.1:1")
            code, document = run_cell(argv, capfd)
        assert (code, document["error_type"], document["retryable"]) == (1, "unreachable", True), cell
        assert box.ledger()["accepted"] == accepted


def no_such_name(*args: Any, **options: Any) -> NoReturn:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_name_that_is_not_found_is_unreachable(
    filled: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], box: Sandbox
) -> None:
    for cell in CELLS:
        argv = filled(cell, PATIENT_S)
        with monkeypatch.context() as patch:
            patch.setenv("HTTPS_PROXY", "http://no-such-host.invalid:3128")
            patch.setenv("https_proxy", "http://no-such-host.invalid:3128")
            patch.setattr(socket, "getaddrinfo", no_such_name)
            code, document = run_cell(argv, capfd)
        assert (code, document["error_type"]) == (1, "unreachable"), cell


def test_a_resolver_that_hangs_does_not_outlast_the_deadline(
    filled: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], box: Sandbox
) -> None:
    released = threading.Event()
    for cell in CELLS[:4]:
        argv = filled(cell)
        with monkeypatch.context() as patch:
            patch.setenv("HTTPS_PROXY", "http://no-such-host.invalid:3128")
            patch.setenv("https_proxy", "http://no-such-host.invalid:3128")
            patch.setattr(socket, "getaddrinfo", lambda *args, **options: released.wait(30) and [])
            began = time.monotonic()
            code = main(argv)
            took = time.monotonic() - began
        out = capfd.readouterr().out
        assert_output_is_true(argv, code, out)
        assert (code, json.loads(out)["error_type"]) == (1, "timeout"), cell
        assert took < TIMEOUT_S + OVERTIME_S
    released.set()


def test_a_certificate_that_is_not_trusted_is_unreachable_and_no_key_is_sent(
    filled: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], box: Sandbox, tmp_path: Any
) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    for cell in CELLS:
        argv = filled(cell, PATIENT_S)
        requests = len(box.journal())
        with monkeypatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(stranger))
            patch.setenv("REQUESTS_CA_BUNDLE", str(stranger))
            code, document = run_cell(argv, capfd)
        assert (code, document["error_type"]) == (1, "unreachable"), cell
        assert len(box.journal()) == requests


@dataclass(frozen=True)
class LaterFault:
    """What happens to a job after it was accepted."""

    name: str
    stages: tuple[str, ...]
    action: dict[str, Any]
    error_type: str | None
    """None: no harm is done."""
    delay_s: float = 0.0
    """How long the models work."""


def event_of_another(**more: Any) -> dict[str, Any]:
    status = {"status": "COMPLETED", "request_id": "another", "logs": None, "metrics": {}, **more}
    return {"status": 200, "body": f"data: {json.dumps(status)}\n\n", "content_type": "text/event-stream"}


IN_PROGRESS = {"status": 400, "body": {"detail": "Request is still in progress"}}
COMPLETED_OF_ANOTHER = event_of_another()
FAILED_OF_ANOTHER = event_of_another(error="Runner broke", error_type="runner_server_error")
NO_APPLICATION = {"detail": 'Application "router" not found'}
DEPRECATED_INPUT = {"detail": "The parameter `priority` is deprecated and no longer supported"}
NO_LONGER = {"output": "", "error": "This is no longer available"}

LATER_FAULTS = (
    LaterFault("stays in the queue", ("job",), {"stuck": "IN_QUEUE"}, "timeout"),
    LaterFault("runs for ever", ("job",), {"stuck": "IN_PROGRESS"}, "timeout"),
    LaterFault(
        "fails", ("job",), {"fail": {"error": "Runner broke", "error_type": "runner_server_error"}}, "job_failed"
    ),
    LaterFault(
        "is refused by its model",
        ("job",),
        {"fail": {"error": "Invalid status code: 422", "status": 422, "body": {"detail": FIELD_ERRORS}}},
        "model_rejected",
    ),
    LaterFault("is late with its result", ("result",), {**IN_PROGRESS, "times": 8}, None),
    LaterFault("never has its result", ("result",), IN_PROGRESS, "timeout"),
    LaterFault("ends with another's id", ("status_stream",), {**COMPLETED_OF_ANOTHER, "times": 1}, None),
    LaterFault(
        "fails with another's id, and its result is late",
        ("status_stream",),
        {**FAILED_OF_ANOTHER, "times": 1},
        None,
        delay_s=0.3,
    ),
    LaterFault("says that its endpoint is gone", ("result",), {"status": 404, "body": NO_APPLICATION}, "not_found"),
    LaterFault("calls an input deprecated", ("result",), {"status": 400, "body": DEPRECATED_INPUT}, "model_rejected"),
    LaterFault("has an error that says no longer available", ("job",), {"output": NO_LONGER}, "job_failed"),
    LaterFault("has expired", ("job",), {"expired": True}, "not_found"),
    LaterFault("result 500", ("result",), {"status": 500}, "fal_unavailable"),
    LaterFault("result broken off", ("result",), {"drop": "half"}, "unreachable"),
    LaterFault("result truncated", ("result",), {"garbage": "truncated"}, "bad_output"),
    LaterFault("result of another shape", ("result",), {"garbage": "shape"}, "bad_output"),
    LaterFault("result silent", ("result",), {"silent": 10.0}, "timeout"),
    LaterFault("status stream refused", ("status_stream",), {"status": 405}, None),
    LaterFault("status stream not a stream", ("status_stream",), {"garbage": "html"}, None),
    LaterFault("status stream cut", ("status_stream",), {"cut": 0}, None),
    LaterFault("no status at all", ("status_stream", "status"), {"status": 500}, "fal_unavailable"),
    LaterFault("status of another shape", ("status_stream", "status"), {"garbage": "shape"}, "bad_output"),
    LaterFault("status refuses the key", ("status_stream", "status"), {"status": 401}, "auth"),
)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("cell", JOB_CELLS, ids=lambda cell: cell.command)
@pytest.mark.parametrize("fault", LATER_FAULTS, ids=lambda fault: fault.name)
def test_every_fault_of_an_accepted_job_has_its_one_answer(
    fault: LaterFault, cell: Cell, box: Sandbox, filled: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = filled(cell, TIMEOUT_S if fault.error_type == "timeout" else PATIENT_S)
    box.configure(latency=fault.delay_s)
    for stage in fault.stages:
        box.fault(stage, **{"times": None, **fault.action})
    # Nothing is painted: it is not the pictures that are tested here, and they take seconds.
    for endpoint in ("fal-ai/bria/background/remove", "bria/replace-background"):
        box.fault("job", endpoint=endpoint, times=None, output=PICTURE)

    code, document = run_cell(argv, capfd)

    if fault.error_type is None:
        assert (code, document.get("error")) == (0, None)
    else:
        assert (code, document["error_type"]) == (1, fault.error_type), document["error"]
        assert document["request_id"] in {job["request_id"] for job in box.ledger()["jobs"]}
    ledger = box.wait_for(lambda state: state["running"] == 0)
    assert 1 <= ledger["accepted"] <= cell.jobs
