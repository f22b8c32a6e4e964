"""How `serve` ends, whatever ends it, and what keeps it from starting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peer
from conftest import WORKER
from fal_sandbox.server import Sandbox
from peer import EXIT_S, FOREVER_S, WITHIN_S, Peer, end_of_input, request

start = peer.start

PAUSE_S = 0.2
ENDS: dict[str, tuple[Callable[[Peer], None], int]] = {
    "shutdown": (lambda peer: peer.call("shutdown", None, "bye"), 0),
    "shutdown_notification": (lambda peer: peer.notify("shutdown"), 0),
    "end_of_input": (end_of_input, 0),
    "SIGTERM": (lambda peer: peer.process.send_signal(signal.SIGTERM), 1),
    "SIGINT": (lambda peer: peer.process.send_signal(signal.SIGINT), 1),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
def test_at_its_end_every_call_is_answered_and_every_job_is_cancelled(
    end: Any, code: int, start: Callable[..., Peer], box: Sandbox
) -> None:
    box.configure(latency=FOREVER_S)
    peer = start("--concurrency", "2")
    for call_id in range(5):
        peer.call("any-llm-complete", {"prompt": "x"}, call_id)
    box.wait_for(lambda ledger: ledger["running"] == 2, WITHIN_S)
    peer.reply(peer.call("ping", None, "ping"))
    end(peer)
    exit_code, took = peer.exit()
    assert exit_code == code
    assert took < EXIT_S
    answers = [peer.reply(call_id)["error"]["data"] for call_id in range(5)]
    assert {answer["error_type"] for answer in answers} == {"cancelled"}
    assert [answer["retryable"] for answer in answers] == [False, False, True, True, True]
    ledger = box.ledger()
    assert (ledger["accepted"], ledger["cancelled"], ledger["billable"]) == (2, 2, 0)
    if peer.messages[-1]["id"] == "bye":
        assert peer.messages[-1]["result"] is None
    assert b"Traceback" not in peer.stderr


def test_the_last_answers_wait_for_a_reader_that_pauses(start: Callable[..., Peer], box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    peer = start(reads=False)
    # Their answers are more than a pipe holds, and few enough for a busy machine to write within the worker's limit.
    for call_id in range(308):
        peer.call("any-llm-complete", {"prompt": "x"}, call_id)
    box.wait_for(lambda ledger: ledger["running"] == 8, WITHIN_S)
    end_of_input(peer)
    box.wait_for(lambda ledger: ledger["cancelled"] == 8, WITHIN_S)
    time.sleep(PAUSE_S)
    lines = list(peer.process.stdout)
    assert sum(map(len, lines)) > 100_000
    assert {json.loads(line).get("id") for line in lines} - {None} == set(range(308))
    assert peer.exit()[0] == 0


def test_an_idle_worker_ends_at_once(start: Callable[..., Peer]) -> None:
    peer = start()
    peer.wait(lambda messages: messages)
    peer.process.stdin.close()
    assert peer.exit()[0] == 0
    assert peer.stderr == b""


def test_a_fal_that_does_not_answer_a_cancel_does_not_hold_the_end(start: Callable[..., Peer], box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    box.fault("cancel", delay=FOREVER_S, times=None)
    peer = start()
    peer.call("any-llm-complete", {"prompt": "x"})
    box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
    end_of_input(peer)
    code, took = peer.exit()
    assert (code, peer.reply()["error"]["data"]["error_type"]) == (0, "cancelled")
    assert took < EXIT_S


def test_a_parent_that_stops_reading_still_cancels_and_ends_the_worker(
    start: Callable[..., Peer], box: Sandbox
) -> None:
    box.configure(latency=FOREVER_S)
    peer = start(reads=False)
    for call_id in (1, 2):
        peer.call("any-llm-complete", {"prompt": "x"}, call_id)
    box.wait_for(lambda ledger: ledger["running"] == 2, WITHIN_S)
    # More than a pipe and the outbox hold: from here on, whoever has something to tell waits.
    peer.write(request(id="p") * 60_000)
    for call_id in (3, 4):
        peer.call("any-llm-complete", {"prompt": "x", "with_logs": True}, call_id)
    box.wait_for(lambda ledger: ledger["running"] == 4, WITHIN_S)
    for call_id in (1, 3):
        peer.notify("$/cancelRequest", {"id": call_id})
    box.wait_for(lambda ledger: ledger["cancelled"] == 2, WITHIN_S)
    end_of_input(peer)
    code, took = peer.exit()
    assert code == 1  # its last replies reached nobody
    assert took < EXIT_S
    assert box.ledger()["cancelled"] == 4


def test_a_call_that_cannot_tell_its_progress_still_keeps_its_deadline(
    start: Callable[..., Peer], box: Sandbox
) -> None:
    box.configure(latency=FOREVER_S)
    peer = start(reads=False)
    peer.write(request(id="p") * 60_000)
    peer.call("any-llm-complete", {"prompt": "x", "with_logs": True, "timeout": 2})
    box.wait_for(lambda ledger: ledger["cancelled"] == 1, WITHIN_S)


def test_a_parent_that_closed_its_end_of_stdout_ends_the_worker(start: Callable[..., Peer], box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    peer = start(reads=False)
    peer.call("any-llm-complete", {"prompt": "x"})
    while json.loads(peer.process.stdout.readline())["method"] != "progress":
        pass
    # It has said all that it has to say.
    peer.process.stdout.close()
    assert peer.exit()[0] == 1
    assert box.ledger()["cancelled"] == 1
    assert peer.stderr == b""


PARENT = """
import subprocess, sys, time
worker = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "any-llm-complete", "params": {"prompt": "x"}}\\n')
worker.stdin.flush()
print(worker.pid, flush=True)
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    """Whether a process that is not our child has ended; nobody may have fetched its exit code yet."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_a_parent_that_is_killed_leaves_no_worker_and_no_job(box: Sandbox) -> None:
    box.configure(latency=FOREVER_S)
    command = [sys.executable, "-c", PARENT, sys.executable, str(WORKER), "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
        parent.kill()
    box.wait_for(lambda ledger: ledger["cancelled"] == 1, WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


# What keeps it from starting


@pytest.fixture
def refusal(start: Callable[..., Peer]) -> Callable[..., Any]:
    """The one line of a worker that does not start; it exits with 1."""

    def refused(*argv: str, env: dict[str, str] | None = None) -> Any:
        peer = start(*argv, env=env)
        assert peer.exit()[0] == 1
        (line,) = peer.messages
        return line

    return refused


def test_without_a_key_it_says_so_and_is_not_ready(refusal: Callable[..., Any]) -> None:
    line = refusal(env={"FAL_KEY": ""})
    assert (line["id"], line["error"]["code"], line["error"]["data"]["error_type"]) == (None, -32000, "missing_key")
    assert line["error"]["message"].startswith("FAL_KEY environment variable is required")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("package", ["fal_client", "httpx"])
@pytest.mark.parametrize("text", ["import a_package_that_is_missing", "raise SystemExit(7)"])
def test_a_package_that_cannot_be_imported_shows_before_any_call(
    package: str, text: str, refusal: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / f"{package}.py").write_text(text)
    line = refusal(env={"PYTHONPATH": str(tmp_path)})
    assert (line["id"], line["error"]["data"]["error_type"]) == (None, "internal")
    assert f"{package}.py" in line["error"]["data"]["trace"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "argv", [("--concurrency", "0"), ("--max_pending", "-1"), ("--timeout", "0"), ("--queue_timeout", "-1")]
)
def test_a_number_that_makes_no_sense_is_refused(argv: tuple[Any, ...], refusal: Callable[..., Any]) -> None:
    line = refusal(*argv)
    assert line["error"]["data"]["error_type"] == "invalid_input"
    assert argv[0].strip("-") in line["error"]["message"]


def test_its_options_cannot_come_over_the_input_that_its_calls_come_over(refusal: Callable[..., Any]) -> None:
    line = refusal("--json", "-")
    assert (line["jsonrpc"], line["id"], line["error"]["data"]["error_type"]) == ("2.0", None, "invalid_input")
    assert "--json" in line["error"]["message"]


def test_a_signal_before_it_is_ready_ends_it_with_a_reply(refusal: Callable[..., Any], tmp_path: Path) -> None:
    stop = "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    (tmp_path / "fal_client.py").write_text(stop)
    line = refusal(env={"PYTHONPATH": str(tmp_path)})
    assert (line["jsonrpc"], line["id"], line["error"]["data"]["error_type"]) == ("2.0", None, "cancelled")
    assert line["error"]["message"] == line["error"]["data"]["error"]


NOISY = """
import os, sys
os.write(1, b"noise from fd 1\\n")
print("noise from print")
os.system("echo noise from a child; cat")
sys.path.remove(os.path.dirname(__file__))
del sys.modules["fal_client"]
import fal_client
"""


def test_a_library_that_prints_and_reads_does_not_reach_the_channel(start: Callable[..., Peer], tmp_path: Path) -> None:
    (tmp_path / "fal_client.py").write_text(NOISY)
    peer = start(env={"PYTHONPATH": str(tmp_path)})
    assert peer.wait(lambda messages: messages)[0]["method"] == "ready"
    assert peer.ask("any-llm-complete", {"prompt": "x"})["result"]["output"]
    peer.process.stdin.close()
    peer.exit()
    for source in (b"fd 1", b"print", b"a child"):
        assert b"noise from " + source in peer.stderr


def test_the_key_is_in_nothing_it_says(start: Callable[..., Peer], box: Sandbox) -> None:
    secret = box.env()["FAL_KEY"]
    peer = start(env={"FAL_LOG": "debug"})
    for prompt in ("x", secret):
        peer.call("any-llm-complete", {"prompt": prompt}, prompt[:3])
        peer.reply(prompt[:3])
    peer.process.stdin.close()
    peer.exit()
    said = json.dumps(peer.messages).encode() + peer.stderr
    assert b"debug: " in peer.stderr
    assert all(part.encode() not in said for part in (secret, *secret.split(":")))
