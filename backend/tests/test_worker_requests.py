"""The lines that `serve` reads: ids, arrays, broken and endless ones. Each is answered once."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peer
from fal_sandbox.server import Sandbox
from peer import DOCUMENT, PING, Peer, request

shared = peer.shared
worker = peer.worker
start = peer.start

BAD_LINES = {
    "no_json": (b"hello\n", -32700, None),
    "half_json": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"\n', -32700, None),
    "no_utf8": (b'{"jsonrpc": "2.0", "id": "\xff", "method": "ping"}\n', -32700, None),
    "no_number": (b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}\n', -32700, None),
    "too_many_digits": (b'{"jsonrpc": "2.0", "id": ' + b"1" * 5000 + b', "method": "ping"}\n', -32700, None),
    "no_bottom": (b"[" * 100_000 + b"\n", -32700, None),
    "a_number": (b"7\n", -32600, None),
    "null": (b"null\n", -32600, None),
    "empty_array": (b"[]\n", -32600, None),
    "too_many": (b"[" + b"1," * 20_000 + b"1]\n", -32600, None),
    "no_version": (b'{"id": 5, "method": "ping"}\n', -32600, 5),
    "old_version": (request(jsonrpc="1.0", id=5), -32600, 5),
    "no_method": (b'{"jsonrpc": "2.0", "id": 5}\n', -32600, 5),
    "method_number": (request(method=1, id=5), -32600, 5),
    "a_reply": (b'{"jsonrpc": "2.0", "id": 5, "result": {}}\n', -32600, 5),
    "id_null": (request(id=None), -32600, None),
    "id_bool": (request(id=True), -32600, None),
    "id_object": (request(id={}), -32600, None),
    "id_infinite": (b'{"jsonrpc": "2.0", "id": 1e999, "method": "ping"}\n', -32600, None),
    "notification_without_method": (b'{"jsonrpc": "2.0"}\n', -32600, None),
}


@pytest.mark.parametrize(("line", "code", "call_id"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_gets_one_error_and_disturbs_nothing(
    line: Any, code: int, call_id: int | None, worker: Peer
) -> None:
    (reply,) = worker.after(line)
    assert (reply["error"]["code"], reply["id"]) == (code, call_id)
    assert set(reply["error"]["data"]) == DOCUMENT
    assert reply["error"]["data"]["error_type"] == "invalid_input"


@pytest.mark.parametrize("line", [b"\n", b"  \r\n", b'{"jsonrpc": "2.0", "method": "unknown"}\n'])
def test_what_asks_for_nothing_gets_nothing(line: bytes, worker: Peer) -> None:
    assert worker.after(line) == []


def test_a_command_without_an_id_is_not_run_since_nobody_could_learn_what_it_cost(worker: Peer, box: Sandbox) -> None:
    assert worker.after(b'{"jsonrpc": "2.0", "method": "any-llm-submit", "params": {"prompt": "x"}}\n') == []
    assert box.journal() == []


@pytest.mark.parametrize("call_id", ["", "şık ✓", "a\ud800b", 0, -1, 1.5, 2**70, "x" * 1000])
def test_an_id_comes_back_as_it_was(call_id: float | str, worker: Peer) -> None:
    worker.messages.clear()
    worker.write(json.dumps({**PING, "id": call_id}).encode() + b"\n")
    assert worker.reply(call_id)["result"]["pong"]


def test_a_key_of_digits_spoils_no_number(start: Callable[..., Peer]) -> None:
    peer = start(env={"FAL_KEY": "123456:7654321"})
    assert peer.ask("ping", call_id=123456)["result"]["pong"]
    error = peer.ask("any-llm-complete", {"prompt": "x", "model": "7654321", "timeout": "7654321"})["error"]
    assert "7654321" not in json.dumps(error)


def test_windows_line_ends_and_a_byte_order_mark_are_no_harm(worker: Peer) -> None:
    (reply,) = worker.after(b"\xef\xbb\xbf" + request(id=1).strip() + b"\r\n")
    assert reply["result"]["pong"]


def test_letters_go_in_and_out_as_utf8(worker: Peer, box: Sandbox) -> None:
    text = "Ağır İĞNE şık \u2028 ✓ \U0001f600"
    box.say(text)
    assert worker.ask("any-llm-complete", {"prompt": text})["result"]["output"] == text
    assert box.ledger()["jobs"][0]["input"]["prompt"] == text


def memory_peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_line_that_is_too_long_is_refused_and_not_kept(start: Callable[..., Peer]) -> None:
    peer = start()
    peer.wait(lambda messages: messages)
    before = memory_peak(peer.process.pid)
    peer.write(b'{"jsonrpc": "2.0", "id": 1, "method": "')
    for _ in range(160):
        peer.write(b"x" * 1024 * 1024)
    refused = peer.reply(None)
    assert refused["error"]["code"] == -32600
    assert "32 MiB" in refused["error"]["message"]
    assert peer.after(b'"}\n') == []
    assert memory_peak(peer.process.pid) - before < 64


def test_a_line_of_just_32_mib_is_taken(start: Callable[..., Peer]) -> None:
    peer = start()
    frame = request(params={"pad": ""}, id=1)
    peer.write(frame.replace(b'""', b'"' + b"x" * (32 * 1024 * 1024 + 1 - len(frame)) + b'"'))
    assert peer.reply(1)["result"]["pong"]


@pytest.mark.nightly
def test_a_line_for_which_there_is_no_memory_is_refused_and_disturbs_nothing(start: Callable[..., Peer]) -> None:
    peer = start()
    peer.wait(lambda messages: messages)
    resource.prlimit(peer.process.pid, resource.RLIMIT_AS, (900 * 1024 * 1024, -1))
    peer.write(b"[" + b"[]," * (10 * 1024 * 1024) + b"[]]\n")
    error = peer.reply(None)["error"]
    assert (error["code"], error["data"]["error_type"]) == (-32700, "invalid_input")
    assert "MemoryError" in error["message"]
    assert peer.ask("ping")["result"]["pong"]


def test_a_request_that_is_nested_too_deeply_is_refused_under_its_id(worker: Peer) -> None:
    params = b'{"prompt": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    (reply,) = worker.after(b'{"jsonrpc": "2.0", "id": 7, "method": "any-llm-complete", "params": %s}\n' % params)
    assert (reply["id"], reply["error"]["code"]) == (7, -32700)


ARRAYS = {
    "one_call": [{"jsonrpc": "2.0", "id": 1, "method": "any-llm-complete", "params": {"prompt": "x"}}],
    "pings": [{**PING, "id": number} for number in range(3)],
    "notifications": [{"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}}] * 2,
    "shutdown": [{"jsonrpc": "2.0", "id": 1, "method": "shutdown"}],
    "no_requests": [7, None, [[]]],
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_is_answered_once_and_nothing_in_it_is_begun(array: Any, worker: Peer, box: Sandbox) -> None:
    (reply,) = worker.after(json.dumps(array).encode() + b"\n")
    assert (reply["error"]["code"], reply["id"]) == (-32600, None)
    assert "line of its own" in reply["error"]["message"]
    assert box.journal() == []
