"""Calls of `serve` side by side: places, waiting, cancels and deadlines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peer
from fal_sandbox.server import Sandbox
from peer import DOCUMENT, FOREVER_S, WITHIN_S, Peer, replies

shared = peer.shared
worker = peer.worker
start = peer.start
places = peer.places


@pytest.fixture
def busy(start: Callable[..., Peer], box: Sandbox) -> Peer:
    """A worker with one place, which is taken by a call "first" that its job at fal does not let go."""
    box.configure(latency=FOREVER_S)
    peer = start("--concurrency", "1", "--max_pending", "2")
    peer.call("any-llm-complete", {"prompt": "first"}, "first")
    box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
    return peer


def test_the_reader_answers_pings_while_every_place_is_taken(busy: Peer) -> None:
    busy.call("any-llm-complete", {"prompt": "x"}, "second")
    result = busy.reply(busy.call("ping", None, 1))["result"]
    assert (result["running"], result["waiting"]) == (1, 1)


def test_a_running_call_is_cancelled_at_fal_and_its_reply_says_so(busy: Peer, box: Sandbox) -> None:
    busy.notify("$/cancelRequest", {"id": "first"})
    error = busy.reply("first")["error"]
    (job,) = box.ledger()["jobs"]
    assert (error["code"], error["data"]["error_type"], error["data"]["retryable"]) == (-32000, "cancelled", False)
    assert (error["data"]["request_id"], job["outcome"], job["billable"]) == (job["request_id"], "cancelled", False)
    assert error["data"]["output"] == ""


def test_a_waiting_call_is_cancelled_at_once_and_never_sent(busy: Peer, box: Sandbox) -> None:
    busy.call("any-llm-complete", {"prompt": "x"}, 2)
    busy.call("any-llm-complete", {"prompt": "y"}, 3)
    busy.notify("$/cancelRequest", {"id": 2})
    assert busy.reply(2)["error"]["data"]["error_type"] == "cancelled"
    box.configure(latency=0)
    busy.notify("$/cancelRequest", {"id": "first"})
    assert busy.reply(3)["result"]["output"]
    assert [job["input"]["prompt"] for job in box.ledger()["jobs"]] == ["first", "y"]


def test_cancelling_what_is_not_there_changes_nothing(busy: Peer) -> None:
    for params in ({"id": 99}, {"id": None}, {"id": [1]}, {}, None, 7):
        busy.notify("$/cancelRequest", params)
    assert busy.ask("ping")["result"]["running"] == 1


def test_more_calls_than_may_wait_are_refused_at_once(busy: Peer, box: Sandbox) -> None:
    for call_id in (1, 2, 3):
        busy.call("any-llm-complete", {"prompt": "x"}, call_id)
    error = busy.reply(3)["error"]
    assert (error["code"], error["data"]["error_type"], error["data"]["retryable"]) == (-32000, "busy", True)
    assert set(error["data"]) > DOCUMENT
    assert box.ledger()["accepted"] == 1
    assert busy.ask("ping")["result"]["waiting"] == 2


def test_the_id_of_an_open_call_is_refused_and_the_call_goes_on(busy: Peer, box: Sandbox) -> None:
    busy.messages.clear()
    for method in ("ping", "any-llm-complete", "nothing"):
        busy.call(method, {"prompt": "x"}, "first")
    refused = busy.wait(lambda messages: replies(messages, None)[2:])
    assert refused[0]["error"]["code"] == -32600
    assert "'first'" in refused[0]["error"]["message"]
    busy.notify("$/cancelRequest", {"id": "first"})
    assert busy.reply("first")["error"]["data"]["error_type"] == "cancelled"
    assert box.ledger()["accepted"] == 1


def test_a_number_and_a_text_are_different_ids(busy: Peer) -> None:
    busy.call("any-llm-complete", {"prompt": "x"}, 1)
    busy.call("any-llm-complete", {"prompt": "x"}, "1")
    busy.notify("$/cancelRequest", {"id": "1"})
    assert busy.reply("1")["error"]["data"]["error_type"] == "cancelled"
    assert replies(busy.messages, 1) == []


def test_a_call_that_takes_too_long_is_cancelled_at_fal(worker: Peer, box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    error = worker.ask("any-llm-complete", {"prompt": "x", "timeout": 3})["error"]
    (job,) = box.ledger()["jobs"]
    assert (error["data"]["error_type"], error["data"]["request_id"]) == ("timeout", job["request_id"])
    assert job["outcome"] == "cancelled"


def test_the_time_a_call_waits_for_a_place_does_not_count(start: Callable[..., Peer], box: Sandbox) -> None:
    box.fault("job", delay=4)
    peer = start("--concurrency", "1")
    peer.call("any-llm-complete", {"prompt": "x"}, "long")
    peer.call("any-llm-complete", {"prompt": "x", "timeout": 3}, "short")
    assert peer.reply("short")["result"]["output"]
    assert peer.reply("long")["result"]["output"]


def test_a_wait_for_a_place_has_a_limit_of_its_own_when_it_is_given_one(
    start: Callable[..., Peer], box: Sandbox
) -> None:
    box.configure(latency=FOREVER_S)
    peer = start("--concurrency", "1", "--queue_timeout", "0.3")
    peer.call("any-llm-complete", {"prompt": "x"}, "first")
    box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
    peer.call("any-llm-complete", {"prompt": "x"}, "second")
    error = peer.reply("second")["error"]["data"]
    assert (error["error_type"], error["retryable"]) == ("busy", True)
    assert "0.3 seconds" in error["error"]
    assert "--queue_timeout" in error["hint"]
    assert peer.ask("ping")["result"] | {"running": 1, "waiting": 0} == peer.ask("ping")["result"]
    assert box.ledger()["accepted"] == 1


def test_as_many_jobs_run_at_once_as_calls_may(start: Callable[..., Peer], box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    peer = start("--concurrency", "12")
    for call_id in range(12):
        peer.call("any-llm-complete", {"prompt": "x"}, call_id)
    box.wait_for(lambda ledger: ledger["running"] == 12, WITHIN_S)


def test_a_submit_that_is_cancelled_while_its_answer_is_on_its_way_leaves_no_job(worker: Peer, box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    box.fault("submit", delay=0.6, accept=True)
    worker.messages.clear()
    worker.call("any-llm-submit", {"prompt": "x"})
    box.wait_for(lambda ledger: ledger["accepted"] == 1, WITHIN_S)
    worker.notify("$/cancelRequest", {"id": "call"})
    error = worker.reply()["error"]["data"]
    (job,) = box.ledger()["jobs"]
    assert (error["error_type"], error["request_id"]) == ("cancelled", job["request_id"])
    assert job["outcome"] == "cancelled"


def test_another_env_file_brings_its_own_timeout(start: Callable[..., Peer], box: Sandbox, tmp_path: Path) -> None:
    box.configure(latency=2.5)
    for name, seconds in (("short", 2), ("long", 60)):
        (tmp_path / name).write_text(f"FAL_KEY={box.env()['FAL_KEY']}\nFAL_TIMEOUT_S={seconds}\n")
    peer = start("--env_file", str(tmp_path / "short"))
    peer.call("any-llm-complete", {"prompt": "x"}, "short")
    peer.call("any-llm-complete", {"prompt": "x", "env_file": str(tmp_path / "long")}, "long")
    assert peer.reply("short")["error"]["data"]["error_type"] == "timeout"
    assert peer.reply("long")["result"]["output"]


def test_a_timeout_may_be_longer_than_the_workers_own(start: Callable[..., Peer], box: Sandbox) -> None:
    box.configure(latency=2.5)
    peer = start("--timeout", "2")
    peer.call("any-llm-complete", {"prompt": "x", "timeout": 60}, "long")
    peer.call("any-llm-complete", {"prompt": "x"}, "short")
    assert peer.reply("short")["error"]["data"]["error_type"] == "timeout"
    assert peer.reply("long")["result"]["output"]


HANGING_DISK = """
import os, threading
stat = os.stat
os.stat = lambda path, **options: threading.Event().wait() if path == "hangs.jpg" else stat(path, **options)
"""


def test_a_call_that_no_deadline_reaches_is_given_up_and_leaves_its_place(
    start: Callable[..., Peer], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGING_DISK)
    peer = start("--concurrency", "1", env={"PYTHONPATH": str(tmp_path)})
    peer.call("upload-file", {"file_path": "hangs.jpg", "timeout": 0.2}, 1)
    peer.call("upload-file", {"file_path": "hangs.jpg"}, 2)
    assert peer.reply(1)["error"]["data"]["error_type"] == "timeout"
    assert peer.reply(peer.call("ping", None, 3))["result"]["running"] == 1
    peer.notify("$/cancelRequest", {"id": 2})
    assert peer.reply(2)["error"]["data"]["error_type"] == "cancelled"
    assert peer.ask("schema")["result"]


def test_a_thousand_calls_at_once_are_each_answered_once(worker: Peer, places: dict[str, Any]) -> None:
    worker.messages.clear()
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": "any-llm-cancel", "params": {"request_id": places["request_id"]}}
        for number in range(1000)
    ]
    worker.write(b"".join(json.dumps(call).encode() + b"\n" for call in calls))
    worker.wait(lambda messages: len(messages) == 1000)
    assert sorted(one["id"] for one in worker.messages) == list(range(1000))
    assert {one["result"]["status"] for one in worker.messages} == {"too_late"}
