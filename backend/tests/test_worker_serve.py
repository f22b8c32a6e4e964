"""`serve`: a real process over pipes, as Node keeps it. What it says is what the command prints."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peer
from fal_sandbox.server import Sandbox
from peer import DOCUMENT, Peer, replies
from schema_check import assert_output_is_true
from services.fal_worker import main
from services.worker.commands import COMMANDS

shared = peer.shared
worker = peer.worker
start = peer.start
places = peer.places

VOLATILE = {"request_id", "trace", "timings", "seconds"}


def told(messages: list[Any], method: str, call_id: Any = "call") -> list[Any]:
    return [one["params"] for one in messages if one.get("method") == method and one["params"].get("id") == call_id]


def test_the_first_line_is_ready_and_names_the_commands(start: Callable[..., Peer]) -> None:
    peer = start()
    first = peer.wait(lambda messages: messages)[0]
    assert first["method"] == "ready"
    assert first["params"]["pid"] == peer.process.pid
    assert first["params"]["version"].count(".") == 2
    assert first["params"]["commands"] == [name for name, command in COMMANDS.items() if not command.is_program]


def test_ping_is_answered(worker: Peer) -> None:
    result = worker.ask("ping")["result"]
    assert (result["pong"], result["running"], result["waiting"]) == (True, 0, 0)


# One contract


def arguments(name: str, places: dict[str, Any]) -> dict[str, Any]:
    pictures = {"image_url": places["photo_url"]}
    known = {"categories": {"vibe": "Sıcak", "subcategory": "Kupa"}}
    return {
        "any-llm-complete": {"prompt": "Kısa bir cümle.", "max_tokens": 90, "system": "Be brief."},
        "any-llm-enterprise": {"prompt": "What is it?", **pictures},
        "any-llm-submit": {"prompt": "Kısa"},
        "any-llm-status": {"request_id": places["request_id"]},
        "any-llm-result": {"request_id": places["request_id"]},
        "any-llm-cancel": {"request_id": places["request_id"]},
        "background": {**pictures, "prompt": "oak table", "remove_bg": False},
        "remove-background": pictures,
        "analyze-product": pictures,
        "generate-bg-prompt": {**known, "style_type": "wet slate"},
        "generate-multiple-bg": {**pictures, **known, "styles": ["Studio"], "remove_bg": True},
        "upload-file": {"file_path": str(places["photo_path"])},
        "workflow": {"image": str(places["photo_path"]), "styles": ["Studio"], "save_dir": str(places["out"])},
        "packshot": {"image": str(places["photo_path"]), "for": "amazon", "save_dir": str(places["out"])},
        "check-image": {"image": str(places["photo_path"]), "for": "shopify"},
        "listing": {**known, "languages": "Turkish"},
        "batch": {
            "input": str(places["photo_path"].parent),
            "output": str(places["out"] / "batch"),
            "command": "remove-background",
        },
        "prices": {},
        "estimate": {"name": "remove-background"},
        "doctor": {},
        "schema": {"name": "doctor"},
    }[name]


@pytest.fixture
def one_shot(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What the command prints when it is run by itself; the last line of it."""

    def run(name: str, params: dict[str, Any]) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(params)))
        capfd.readouterr()
        code = main([name, "--json", "-"])
        out = capfd.readouterr().out
        assert_output_is_true([name], code, out)
        return json.loads(out.splitlines()[-1])

    return run


def shape(value: Any) -> Any:
    """The keys and kinds of values all the way down; jobs are told in the order in which they ended, which differs."""
    if isinstance(value, dict):
        by_step = {"costs": sorted(value.get("costs", ()), key=lambda row: (row["step"], row["style"] or ""))}
        return {key: shape(by_step.get(key, item)) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if not (row.streams or row.is_program)])
def test_a_result_is_what_the_command_prints_by_itself(
    name: Any, worker: Peer, one_shot: Callable[..., Any], places: dict[str, Any]
) -> None:
    params = arguments(name, places)
    reply, printed = worker.ask(name, params), one_shot(name, params)
    assert reply["jsonrpc"] == "2.0"
    assert shape(reply["result"]) == shape(printed)
    assert list(reply["result"]) == list(printed)
    for key in set(printed) & {"output", "categories", "status", "prompt", "versions", "commands", "description"}:
        assert reply["result"][key] == printed[key]


WRONG = {
    "unknown_option": ("any-llm-complete", {"prompt": "x", "promt": "y"}),
    "missing_option": ("any-llm-complete", {}),
    "wrong_type": ("any-llm-complete", {"prompt": 7}),
    "wrong_value": ("any-llm-complete", {"prompt": "x", "temperature": 3}),
    "empty_prompt": ("any-llm-complete", {"prompt": ""}),
    "wrong_timeout": ("any-llm-complete", {"prompt": "x", "timeout": -1}),
    "missing_file": ("upload-file", {"file_path": "/no/such.jpg"}),
    "unknown_name": ("schema", {"name": "nothing"}),
}


@pytest.mark.parametrize(("method", "params"), WRONG.values(), ids=WRONG)
def test_wrong_params_are_told_with_the_document_that_the_command_prints(
    method: str, params: dict[Any, Any] | dict[str, Any], worker: Peer, one_shot: Callable[..., Any]
) -> None:
    error, printed = worker.ask(method, params)["error"], one_shot(method, params)
    assert error["code"] == -32602
    assert error["message"] == printed["error"]
    assert {**error["data"], "trace": ""} == {**printed, "trace": ""}


@pytest.mark.parametrize("params", [[1], [], "x", 7, True])
def test_params_that_are_no_object_are_wrong_params(params: Any, worker: Peer) -> None:
    error = worker.ask("doctor", params)["error"]
    assert (error["code"], error["data"]["error_type"]) == (-32602, "invalid_input")


@pytest.mark.parametrize("method", ["any-llm", "serve", "ready", ""])
def test_an_unknown_method_is_told_with_the_known_ones(method: str, worker: Peer) -> None:
    error = worker.ask(method)["error"]
    assert (error["code"], error["data"]["error_type"], set(error["data"])) == (-32601, "invalid_input", DOCUMENT)
    assert "any-llm-complete" in error["message"]


def test_a_failure_is_told_with_the_document_that_the_command_prints(
    worker: Peer, one_shot: Callable[..., Any], box: Sandbox
) -> None:
    box.fault("submit", status=401, times=2)
    error, printed = (
        worker.ask("any-llm-complete", {"prompt": "x"})["error"],
        one_shot("any-llm-complete", {"prompt": "x"}),
    )
    assert (error["code"], error["message"]) == (-32000, error["data"]["error"])
    assert (error["data"]["error_type"], error["data"]["status_code"]) == ("auth", 401)
    assert shape(error["data"]) == shape(printed)
    assert {key: error["data"][key] for key in DOCUMENT - VOLATILE - {"error"}} == {
        key: printed[key] for key in DOCUMENT - VOLATILE - {"error"}
    }


def test_an_answer_without_a_bottom_is_an_error_and_no_end(worker: Peer, box: Sandbox) -> None:
    deep = "[" * 900 + "1" + "]" * 900
    box.fault("result", status=200, body=f'{{"output": "x", "a": {deep}}}', content_type="application/json")
    worker.ask("any-llm-complete", {"prompt": "x"})
    assert worker.ask("ping")["result"]["pong"]


def test_a_call_may_name_an_env_file_of_its_own(worker: Peer, box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "other.env").write_text("FAL_TEXT_ENDPOINT=fal-ai/any-llm\n")
    result = worker.ask("any-llm-complete", {"prompt": "x", "env_file": str(tmp_path / "other.env")})["result"]
    assert result["error"] is None
    worker.ask("any-llm-complete", {"prompt": "x"})
    assert [job["endpoint"] for job in box.ledger()["jobs"]] == ["fal-ai/any-llm", "openrouter/router"]
    assert worker.ask("any-llm-complete", {"prompt": "x", "env_file": "/no/such"})["error"]["code"] == -32602


# What is told on the way


@pytest.mark.usefixtures("unpainted")
def test_the_steps_of_a_command_are_told_with_the_id_of_its_call(worker: Peer, photo_url: str) -> None:
    worker.messages.clear()
    params = {"image_url": photo_url, "categories": {"vibe": "calm"}}
    for call_id, styles in (("a", ["Studio"]), ("b", ["Premium", "Lifestyle"])):
        worker.call("generate-multiple-bg", {**params, "styles": styles}, call_id)
    results = {call_id: worker.reply(call_id)["result"] for call_id in "ab"}
    for call_id, result in results.items():
        events = told(worker.messages, "progress", call_id)
        assert {"step": "cutout", "status": "started", "id": call_id} in events
        made = [
            event["image"]["image_url"] for event in events if event["step"] == "picture" and event["status"] == "done"
        ]
        assert sorted(made) == sorted(image["image_url"] for image in result["images"])
        assert worker.messages[-1] == replies(worker.messages, worker.messages[-1].get("id"))[0]


def test_a_jobs_place_in_the_queue_is_told_with_its_id_and_its_log_when_asked_for(worker: Peer, box: Sandbox) -> None:
    box.configure(queue=0.2)
    request_id = worker.ask("any-llm-complete", {"prompt": "x"})["result"]["request_id"]
    place = {"step": "queue", "queue_position": 0, "request_id": request_id, "id": "call"}
    assert told(worker.messages, "progress") == [place]
    request_id = worker.ask("any-llm-complete", {"prompt": "x", "with_logs": True})["result"]["request_id"]
    place, *logs = told(worker.messages, "progress")
    assert place == {"step": "queue", "queue_position": 0, "request_id": request_id, "id": "call"}
    assert {(event["step"], event["request_id"]) for event in logs} == {("log", request_id)}
    assert all(event["message"] for event in logs)


def test_a_place_in_the_queue_is_told_once(worker: Peer, box: Sandbox) -> None:
    box.fault("status_stream", status=405)
    for place in (2, 2, 1, 0):
        box.fault("status", status=202, body={"status": "IN_QUEUE", "queue_position": place})
    worker.ask("any-llm-complete", {"prompt": "x"})
    assert [event["queue_position"] for event in told(worker.messages, "progress")] == [2, 1, 0]


def test_a_stream_tells_each_event_and_replies_with_the_last(worker: Peer, box: Sandbox) -> None:
    box.say("Kupa. Sıcak tutar.")
    reply = worker.ask("any-llm-stream", {"prompt": "x"})
    events = told(worker.messages, "delta")
    assert "".join(event["delta"] for event in events) == "Kupa. Sıcak tutar."
    assert [event["partial"] for event in events] == [True] * (len(events) - 1) + [False]
    assert reply["result"] == {key: value for key, value in events[-1].items() if key != "id"}
    assert worker.messages[-1] is reply


def test_a_stream_that_breaks_off_ends_in_what_the_command_prints_last(
    worker: Peer, one_shot: Callable[..., Any], box: Sandbox
) -> None:
    box.fault("stream", cut=3, times=2)
    error = worker.ask("any-llm-stream", {"prompt": "x"})["error"]
    printed = one_shot("any-llm-stream", {"prompt": "x"})
    assert len(told(worker.messages, "delta")) == 3
    assert error["data"]["error_type"] == "stream_truncated"
    assert shape(error["data"]) == shape(printed)
    assert error["data"]["output"] == printed["output"] != ""


def test_a_stream_is_told_as_it_comes_and_can_be_cancelled(worker: Peer, box: Sandbox) -> None:
    box.configure(latency=12)
    worker.messages.clear()
    worker.call("any-llm-stream", {"prompt": "x"})
    worker.wait(lambda messages: told(messages, "delta"))
    worker.notify("$/cancelRequest", {"id": "call"})
    assert worker.reply()["error"]["data"]["error_type"] == "cancelled"
