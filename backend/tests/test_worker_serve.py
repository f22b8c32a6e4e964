"""`serve`: a real process over pipes, as Node keeps it. Every line is answered once, and it ends when it has to."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import WORKER
from schema_check import assert_output_is_true
from services.fal_worker import main
from services.worker.commands import COMMANDS

WITHIN_S = 30.0
"""For what comes at once, but on a busy machine a little later."""
EXIT_S = 6.0
"""The promise is two seconds; a busy machine may need three times that, and what hangs takes a minute."""
PAUSE_S = 0.2
FOREVER_S = 60
DOCUMENT = {"error", "trace", "error_type", "retryable", "status_code", "request_id", "hint"}
VOLATILE = {"request_id", "trace", "timings", "seconds"}
PING = {"jsonrpc": "2.0", "id": "ping", "method": "ping"}


class Peer:
    """The other end of a worker's pipes: keeps what it says, in order, and waits for it."""

    def __init__(self, argv: tuple[str, ...], env: dict[str, str], cwd: Path, *, reads: bool = True) -> None:
        command = [sys.executable, str(WORKER), "serve", *argv]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=cwd
        )
        self.messages: list[Any] = []
        self.stderr = b""
        self._told = threading.Condition()
        self._ended = False
        self._threads = [threading.Thread(target=self._read_stderr, daemon=True)]
        self._threads += [threading.Thread(target=self._read, daemon=True)] if reads else []
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            message = json.loads(line)
            with self._told:
                self.messages.append(message)
                self._told.notify_all()
        with self._told:
            self._ended = True
            self._told.notify_all()

    def _read_stderr(self) -> None:
        self.stderr = self.process.stderr.read()

    def write(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: Any) -> None:
        self.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def call(self, method: str, params: Any = None, call_id: Any = "call") -> Any:
        self.send({"jsonrpc": "2.0", "id": call_id, "method": method, **({} if params is None else {"params": params})})
        return call_id

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def wait(self, found: Callable[[list[Any]], Any]) -> Any:
        """What `found` finds among the messages, as soon as it finds something."""
        with self._told:
            self._told.wait_for(lambda: found(self.messages) or self._ended, WITHIN_S)
            value = found(self.messages)
            assert value, self.messages[-3:]
            return value

    def reply(self, call_id: Any = "call") -> Any:
        (one,) = self.wait(lambda messages: replies(messages, call_id))
        return one

    def ask(self, method: str, params: Any = None, call_id: Any = "call") -> Any:
        """One call and its reply; what the worker said before is forgotten."""
        self.messages.clear()
        return self.reply(self.call(method, params, call_id))

    def after(self, line: bytes) -> list[Any]:
        """Everything that is said about a line, which is over when a ping behind it is answered."""
        self.messages.clear()
        self.write(line)
        self.send(PING)
        self.reply("ping")
        return self.messages[:-1]

    def exit(self) -> tuple[int, float]:
        """The exit code, and how long it took from now on."""
        began = time.monotonic()
        code = self.process.wait(WITHIN_S)
        took = time.monotonic() - began
        for thread in self._threads:
            thread.join(WITHIN_S)
        return code, took

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(2 * EXIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(WITHIN_S)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()


def replies(messages: list[Any], call_id: Any) -> list[Any]:
    return [one for one in messages if isinstance(one, dict) and "method" not in one and one["id"] == call_id]


def told(messages: list[Any], method: str, call_id: Any = "call") -> list[Any]:
    return [one["params"] for one in messages if one.get("method") == method and one["params"].get("id") == call_id]


@pytest.fixture(scope="module")
def shared(sandbox_server, tmp_path_factory) -> Iterator[Peer]:
    """One worker for the tests that leave it as it was."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
    peer = Peer((), {**plain, **sandbox_server.env()}, tmp_path_factory.mktemp("worker"))
    peer.wait(lambda messages: messages)
    yield peer
    peer.end()


@pytest.fixture
def worker(shared, box) -> Peer:
    shared.messages.clear()
    return shared


@pytest.fixture
def start(box, tmp_path) -> Iterator[Callable[..., Peer]]:
    """Start a worker of the test's own."""
    with contextlib.ExitStack() as peers:

        def serve(*argv: str, env: dict[str, str] | None = None, **options: Any) -> Peer:
            peer = Peer(argv, {**os.environ, **(env or {})}, tmp_path, **options)
            peers.callback(peer.end)
            return peer

        yield serve


def test_the_first_line_is_ready_and_names_the_commands(start):
    peer = start()
    first = peer.wait(lambda messages: messages)[0]
    assert first["method"] == "ready"
    assert first["params"]["pid"] == peer.process.pid
    assert first["params"]["version"].count(".") == 2
    assert first["params"]["commands"] == [name for name, command in COMMANDS.items() if not command.is_program]


def test_ping_is_answered(worker):
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
        "doctor": {},
        "schema": {"name": "doctor"},
    }[name]


@pytest.fixture
def one_shot(monkeypatch, capfd) -> Callable[..., Any]:
    """What the command prints when it is run by itself; the last line of it."""

    def run(name: str, params: dict[str, Any]) -> Any:
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(params)))
        capfd.readouterr()
        code = main([name, "--json", "-"])
        out = capfd.readouterr().out
        assert_output_is_true([name], code, out)
        return json.loads(out.splitlines()[-1])

    return run


@pytest.fixture
def places(box, photo_url, photo_path, tmp_path, run) -> dict[str, Any]:
    request_id = run("any-llm-submit", "--prompt", "Hello")[1]["request_id"]
    box.wait_for(lambda ledger: ledger["completed"] == 1)
    return {"photo_url": photo_url, "photo_path": photo_path, "request_id": request_id, "out": tmp_path / "out"}


def shape(value: Any) -> Any:
    """The keys and kinds of values all the way down."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("name", [name for name, row in COMMANDS.items() if not (row.streams or row.is_program)])
def test_a_result_is_what_the_command_prints_by_itself(name, worker, one_shot, places):
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
def test_wrong_params_are_told_with_the_document_that_the_command_prints(method, params, worker, one_shot):
    error, printed = worker.ask(method, params)["error"], one_shot(method, params)
    assert error["code"] == -32602
    assert error["message"] == printed["error"]
    assert {**error["data"], "trace": ""} == {**printed, "trace": ""}


@pytest.mark.parametrize("params", [[1], [], "x", 7, True])
def test_params_that_are_no_object_are_wrong_params(params, worker):
    error = worker.ask("doctor", params)["error"]
    assert (error["code"], error["data"]["error_type"]) == (-32602, "invalid_input")


@pytest.mark.parametrize("method", ["any-llm", "serve", "ready", ""])
def test_an_unknown_method_is_told_with_the_known_ones(method, worker):
    error = worker.ask(method)["error"]
    assert (error["code"], error["data"]["error_type"], set(error["data"])) == (-32601, "invalid_input", DOCUMENT)
    assert "any-llm-complete" in error["message"]


def test_a_failure_is_told_with_the_document_that_the_command_prints(worker, one_shot, box):
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


def test_an_answer_without_a_bottom_is_an_error_and_no_end(worker, box):
    deep = "[" * 900 + "1" + "]" * 900
    box.fault("result", status=200, body=f'{{"output": "x", "a": {deep}}}', content_type="application/json")
    worker.ask("any-llm-complete", {"prompt": "x"})
    assert worker.ask("ping")["result"]["pong"]


def test_a_call_may_name_an_env_file_of_its_own(worker, box, tmp_path):
    (tmp_path / "other.env").write_text("FAL_TEXT_ENDPOINT=fal-ai/any-llm\n")
    result = worker.ask("any-llm-complete", {"prompt": "x", "env_file": str(tmp_path / "other.env")})["result"]
    assert result["error"] is None
    worker.ask("any-llm-complete", {"prompt": "x"})
    assert [job["endpoint"] for job in box.ledger()["jobs"]] == ["fal-ai/any-llm", "openrouter/router"]
    assert worker.ask("any-llm-complete", {"prompt": "x", "env_file": "/no/such"})["error"]["code"] == -32602


# Lines, ids, arrays


def request(**changes: Any) -> bytes:
    return json.dumps({**PING, **changes}).encode() + b"\n"


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
def test_a_bad_line_gets_one_error_and_disturbs_nothing(line, code, call_id, worker):
    (reply,) = worker.after(line)
    assert (reply["error"]["code"], reply["id"]) == (code, call_id)
    assert set(reply["error"]["data"]) == DOCUMENT
    assert reply["error"]["data"]["error_type"] == "invalid_input"


@pytest.mark.parametrize("line", [b"\n", b"  \r\n", b'{"jsonrpc": "2.0", "method": "unknown"}\n'])
def test_what_asks_for_nothing_gets_nothing(line, worker):
    assert worker.after(line) == []


def test_a_command_without_an_id_is_not_run_since_nobody_could_learn_what_it_cost(worker, box):
    assert worker.after(b'{"jsonrpc": "2.0", "method": "any-llm-submit", "params": {"prompt": "x"}}\n') == []
    assert box.journal() == []


@pytest.mark.parametrize("call_id", ["", "şık ✓", "a\ud800b", 0, -1, 1.5, 2**70, "x" * 1000])
def test_an_id_comes_back_as_it_was(call_id, worker):
    worker.messages.clear()
    worker.write(json.dumps({**PING, "id": call_id}).encode() + b"\n")
    assert worker.reply(call_id)["result"]["pong"]


def test_a_key_of_digits_spoils_no_number(start):
    peer = start(env={"FAL_KEY": "123456:7654321"})
    assert peer.ask("ping", call_id=123456)["result"]["pong"]
    error = peer.ask("any-llm-complete", {"prompt": "x", "model": "7654321", "timeout": "7654321"})["error"]
    assert "7654321" not in json.dumps(error)


def test_windows_line_ends_and_a_byte_order_mark_are_no_harm(worker):
    (reply,) = worker.after(b"\xef\xbb\xbf" + request(id=1).strip() + b"\r\n")
    assert reply["result"]["pong"]


def test_letters_go_in_and_out_as_utf8(worker, box):
    text = "Ağır İĞNE şık \u2028 ✓ \U0001f600"
    box.say(text)
    assert worker.ask("any-llm-complete", {"prompt": text})["result"]["output"] == text
    assert box.ledger()["jobs"][0]["input"]["prompt"] == text


def memory_peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_line_that_is_too_long_is_refused_and_not_kept(start):
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


def test_a_line_of_just_32_mib_is_taken(start):
    peer = start()
    frame = request(params={"pad": ""}, id=1)
    peer.write(frame.replace(b'""', b'"' + b"x" * (32 * 1024 * 1024 + 1 - len(frame)) + b'"'))
    assert peer.reply(1)["result"]["pong"]


def test_a_line_for_which_there_is_no_memory_is_refused_and_disturbs_nothing(start):
    peer = start()
    peer.wait(lambda messages: messages)
    resource.prlimit(peer.process.pid, resource.RLIMIT_AS, (900 * 1024 * 1024, -1))
    peer.write(b"[" + b"[]," * (10 * 1024 * 1024) + b"[]]\n")
    error = peer.reply(None)["error"]
    assert (error["code"], error["data"]["error_type"]) == (-32700, "invalid_input")
    assert "MemoryError" in error["message"]
    assert peer.ask("ping")["result"]["pong"]


def test_a_request_that_is_nested_too_deeply_is_refused_under_its_id(worker):
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
def test_an_array_is_answered_once_and_nothing_in_it_is_begun(array, worker, box):
    (reply,) = worker.after(json.dumps(array).encode() + b"\n")
    assert (reply["error"]["code"], reply["id"]) == (-32600, None)
    assert "line of its own" in reply["error"]["message"]
    assert box.journal() == []


# Side by side


@pytest.fixture
def busy(start, box) -> Peer:
    """A worker with one place, which is taken by a call "first" that its job at fal does not let go."""
    box.configure(latency=FOREVER_S)
    peer = start("--concurrency", "1", "--max_pending", "2")
    peer.call("any-llm-complete", {"prompt": "first"}, "first")
    box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
    return peer


def test_the_reader_answers_pings_while_every_place_is_taken(busy):
    busy.call("any-llm-complete", {"prompt": "x"}, "second")
    result = busy.reply(busy.call("ping", None, 1))["result"]
    assert (result["running"], result["waiting"]) == (1, 1)


def test_a_running_call_is_cancelled_at_fal_and_its_reply_says_so(busy, box):
    busy.notify("$/cancelRequest", {"id": "first"})
    error = busy.reply("first")["error"]
    (job,) = box.ledger()["jobs"]
    assert (error["code"], error["data"]["error_type"], error["data"]["retryable"]) == (-32000, "cancelled", False)
    assert (error["data"]["request_id"], job["outcome"], job["billable"]) == (job["request_id"], "cancelled", False)
    assert error["data"]["output"] == ""


def test_a_waiting_call_is_cancelled_at_once_and_never_sent(busy, box):
    busy.call("any-llm-complete", {"prompt": "x"}, 2)
    busy.call("any-llm-complete", {"prompt": "y"}, 3)
    busy.notify("$/cancelRequest", {"id": 2})
    assert busy.reply(2)["error"]["data"]["error_type"] == "cancelled"
    box.configure(latency=0)
    busy.notify("$/cancelRequest", {"id": "first"})
    assert busy.reply(3)["result"]["output"]
    assert [job["input"]["prompt"] for job in box.ledger()["jobs"]] == ["first", "y"]


def test_cancelling_what_is_not_there_changes_nothing(busy):
    for params in ({"id": 99}, {"id": None}, {"id": [1]}, {}, None, 7):
        busy.notify("$/cancelRequest", params)
    assert busy.ask("ping")["result"]["running"] == 1


def test_more_calls_than_may_wait_are_refused_at_once(busy, box):
    for call_id in (1, 2, 3):
        busy.call("any-llm-complete", {"prompt": "x"}, call_id)
    error = busy.reply(3)["error"]
    assert (error["code"], error["data"]["error_type"], error["data"]["retryable"]) == (-32000, "busy", True)
    assert set(error["data"]) > DOCUMENT
    assert box.ledger()["accepted"] == 1
    assert busy.ask("ping")["result"]["waiting"] == 2


def test_the_id_of_an_open_call_is_refused_and_the_call_goes_on(busy, box):
    busy.messages.clear()
    for method in ("ping", "any-llm-complete", "nothing"):
        busy.call(method, {"prompt": "x"}, "first")
    refused = busy.wait(lambda messages: replies(messages, None)[2:])
    assert refused[0]["error"]["code"] == -32600
    assert "'first'" in refused[0]["error"]["message"]
    busy.notify("$/cancelRequest", {"id": "first"})
    assert busy.reply("first")["error"]["data"]["error_type"] == "cancelled"
    assert box.ledger()["accepted"] == 1


def test_a_number_and_a_text_are_different_ids(busy):
    busy.call("any-llm-complete", {"prompt": "x"}, 1)
    busy.call("any-llm-complete", {"prompt": "x"}, "1")
    busy.notify("$/cancelRequest", {"id": "1"})
    assert busy.reply("1")["error"]["data"]["error_type"] == "cancelled"
    assert replies(busy.messages, 1) == []


def test_a_call_that_takes_too_long_is_cancelled_at_fal(worker, box):
    box.configure(latency=FOREVER_S)
    error = worker.ask("any-llm-complete", {"prompt": "x", "timeout": 3})["error"]
    (job,) = box.ledger()["jobs"]
    assert (error["data"]["error_type"], error["data"]["request_id"]) == ("timeout", job["request_id"])
    assert job["outcome"] == "cancelled"


def test_the_time_a_call_waits_for_a_place_does_not_count(start, box):
    box.fault("job", delay=4)
    peer = start("--concurrency", "1")
    peer.call("any-llm-complete", {"prompt": "x"}, "long")
    peer.call("any-llm-complete", {"prompt": "x", "timeout": 3}, "short")
    assert peer.reply("short")["result"]["output"]
    assert peer.reply("long")["result"]["output"]


def test_a_wait_for_a_place_has_a_limit_of_its_own_when_it_is_given_one(start, box):
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


def test_as_many_jobs_run_at_once_as_calls_may(start, box):
    box.configure(latency=FOREVER_S)
    peer = start("--concurrency", "12")
    for call_id in range(12):
        peer.call("any-llm-complete", {"prompt": "x"}, call_id)
    box.wait_for(lambda ledger: ledger["running"] == 12, WITHIN_S)


def test_a_submit_that_is_cancelled_while_its_answer_is_on_its_way_leaves_no_job(worker, box):
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


def test_another_env_file_brings_its_own_timeout(start, box, tmp_path):
    box.configure(latency=2.5)
    for name, seconds in (("short", 2), ("long", 60)):
        (tmp_path / name).write_text(f"FAL_KEY={box.env()['FAL_KEY']}\nFAL_TIMEOUT_S={seconds}\n")
    peer = start("--env_file", str(tmp_path / "short"))
    peer.call("any-llm-complete", {"prompt": "x"}, "short")
    peer.call("any-llm-complete", {"prompt": "x", "env_file": str(tmp_path / "long")}, "long")
    assert peer.reply("short")["error"]["data"]["error_type"] == "timeout"
    assert peer.reply("long")["result"]["output"]


def test_a_timeout_may_be_longer_than_the_workers_own(start, box):
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


def test_a_call_that_no_deadline_reaches_is_given_up_and_leaves_its_place(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HANGING_DISK)
    peer = start("--concurrency", "1", env={"PYTHONPATH": str(tmp_path)})
    peer.call("upload-file", {"file_path": "hangs.jpg", "timeout": 0.2}, 1)
    peer.call("upload-file", {"file_path": "hangs.jpg"}, 2)
    assert peer.reply(1)["error"]["data"]["error_type"] == "timeout"
    assert peer.reply(peer.call("ping", None, 3))["result"]["running"] == 1
    peer.notify("$/cancelRequest", {"id": 2})
    assert peer.reply(2)["error"]["data"]["error_type"] == "cancelled"
    assert peer.ask("schema")["result"]


def test_a_thousand_calls_at_once_are_each_answered_once(worker, places):
    worker.messages.clear()
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": "any-llm-cancel", "params": {"request_id": places["request_id"]}}
        for number in range(1000)
    ]
    worker.write(b"".join(json.dumps(call).encode() + b"\n" for call in calls))
    worker.wait(lambda messages: len(messages) == 1000)
    assert sorted(one["id"] for one in worker.messages) == list(range(1000))
    assert {one["result"]["status"] for one in worker.messages} == {"too_late"}


# What is told on the way


def test_the_steps_of_a_command_are_told_with_the_id_of_its_call(worker, photo_url):
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


def test_a_jobs_place_in_the_queue_is_told_with_its_id_and_its_log_when_asked_for(worker, box):
    box.configure(queue=0.2)
    request_id = worker.ask("any-llm-complete", {"prompt": "x"})["result"]["request_id"]
    place = {"step": "queue", "queue_position": 0, "request_id": request_id, "id": "call"}
    assert told(worker.messages, "progress") == [place]
    request_id = worker.ask("any-llm-complete", {"prompt": "x", "with_logs": True})["result"]["request_id"]
    place, *logs = told(worker.messages, "progress")
    assert place == {"step": "queue", "queue_position": 0, "request_id": request_id, "id": "call"}
    assert {(event["step"], event["request_id"]) for event in logs} == {("log", request_id)}
    assert all(event["message"] for event in logs)


def test_a_place_in_the_queue_is_told_once(worker, box):
    box.fault("status_stream", status=405)
    for place in (2, 2, 1, 0):
        box.fault("status", status=202, body={"status": "IN_QUEUE", "queue_position": place})
    worker.ask("any-llm-complete", {"prompt": "x"})
    assert [event["queue_position"] for event in told(worker.messages, "progress")] == [2, 1, 0]


def test_a_stream_tells_each_event_and_replies_with_the_last(worker, box):
    box.say("Kupa. Sıcak tutar.")
    reply = worker.ask("any-llm-stream", {"prompt": "x"})
    events = told(worker.messages, "delta")
    assert "".join(event["delta"] for event in events) == "Kupa. Sıcak tutar."
    assert [event["partial"] for event in events] == [True] * (len(events) - 1) + [False]
    assert reply["result"] == {key: value for key, value in events[-1].items() if key != "id"}
    assert worker.messages[-1] is reply


def test_a_stream_that_breaks_off_ends_in_what_the_command_prints_last(worker, one_shot, box):
    box.fault("stream", cut=3, times=2)
    error = worker.ask("any-llm-stream", {"prompt": "x"})["error"]
    printed = one_shot("any-llm-stream", {"prompt": "x"})
    assert len(told(worker.messages, "delta")) == 3
    assert error["data"]["error_type"] == "stream_truncated"
    assert shape(error["data"]) == shape(printed)
    assert error["data"]["output"] == printed["output"] != ""


def test_a_stream_is_told_as_it_comes_and_can_be_cancelled(worker, box):
    box.configure(latency=12)
    worker.messages.clear()
    worker.call("any-llm-stream", {"prompt": "x"})
    worker.wait(lambda messages: told(messages, "delta"))
    worker.notify("$/cancelRequest", {"id": "call"})
    assert worker.reply()["error"]["data"]["error_type"] == "cancelled"


# The end


def end_of_input(peer: Peer) -> None:
    peer.process.stdin.close()


ENDS: dict[str, tuple[Callable[[Peer], None], int]] = {
    "shutdown": (lambda peer: peer.call("shutdown", None, "bye"), 0),
    "shutdown_notification": (lambda peer: peer.notify("shutdown"), 0),
    "end_of_input": (end_of_input, 0),
    "SIGTERM": (lambda peer: peer.process.send_signal(signal.SIGTERM), 1),
    "SIGINT": (lambda peer: peer.process.send_signal(signal.SIGINT), 1),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
def test_at_its_end_every_call_is_answered_and_every_job_is_cancelled(end, code, start, box):
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


def test_the_last_answers_wait_for_a_reader_that_pauses(start, box):
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


def test_an_idle_worker_ends_at_once(start):
    peer = start()
    peer.wait(lambda messages: messages)
    peer.process.stdin.close()
    assert peer.exit()[0] == 0
    assert peer.stderr == b""


def test_a_fal_that_does_not_answer_a_cancel_does_not_hold_the_end(start, box):
    box.configure(latency=FOREVER_S)
    box.fault("cancel", delay=FOREVER_S, times=None)
    peer = start()
    peer.call("any-llm-complete", {"prompt": "x"})
    box.wait_for(lambda ledger: ledger["running"] == 1, WITHIN_S)
    end_of_input(peer)
    code, took = peer.exit()
    assert (code, peer.reply()["error"]["data"]["error_type"]) == (0, "cancelled")
    assert took < EXIT_S


def test_a_parent_that_stops_reading_still_cancels_and_ends_the_worker(start, box):
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


def test_a_call_that_cannot_tell_its_progress_still_keeps_its_deadline(start, box):
    box.configure(latency=FOREVER_S)
    peer = start(reads=False)
    peer.write(request(id="p") * 60_000)
    peer.call("any-llm-complete", {"prompt": "x", "with_logs": True, "timeout": 2})
    box.wait_for(lambda ledger: ledger["cancelled"] == 1, WITHIN_S)


def test_a_parent_that_closed_its_end_of_stdout_ends_the_worker(start, box):
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


def test_a_parent_that_is_killed_leaves_no_worker_and_no_job(box):
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
def refusal(start) -> Callable[..., Any]:
    """The one line of a worker that does not start; it exits with 1."""

    def refused(*argv: str, env: dict[str, str] | None = None) -> Any:
        peer = start(*argv, env=env)
        assert peer.exit()[0] == 1
        (line,) = peer.messages
        return line

    return refused


def test_without_a_key_it_says_so_and_is_not_ready(refusal):
    line = refusal(env={"FAL_KEY": ""})
    assert (line["id"], line["error"]["code"], line["error"]["data"]["error_type"]) == (None, -32000, "missing_key")
    assert line["error"]["message"].startswith("FAL_KEY environment variable is required")


@pytest.mark.parametrize("package", ["fal_client", "httpx"])
@pytest.mark.parametrize("text", ["import a_package_that_is_missing", "raise SystemExit(7)"])
def test_a_package_that_cannot_be_imported_shows_before_any_call(package, text, refusal, tmp_path):
    (tmp_path / f"{package}.py").write_text(text)
    line = refusal(env={"PYTHONPATH": str(tmp_path)})
    assert (line["id"], line["error"]["data"]["error_type"]) == (None, "internal")
    assert f"{package}.py" in line["error"]["data"]["trace"]


@pytest.mark.parametrize(
    "argv", [("--concurrency", "0"), ("--max_pending", "-1"), ("--timeout", "0"), ("--queue_timeout", "-1")]
)
def test_a_number_that_makes_no_sense_is_refused(argv, refusal):
    line = refusal(*argv)
    assert line["error"]["data"]["error_type"] == "invalid_input"
    assert argv[0].strip("-") in line["error"]["message"]


def test_its_options_cannot_come_over_the_input_that_its_calls_come_over(refusal):
    line = refusal("--json", "-")
    assert (line["jsonrpc"], line["id"], line["error"]["data"]["error_type"]) == ("2.0", None, "invalid_input")
    assert "--json" in line["error"]["message"]


def test_a_signal_before_it_is_ready_ends_it_with_a_reply(refusal, tmp_path):
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


def test_a_library_that_prints_and_reads_does_not_reach_the_channel(start, tmp_path):
    (tmp_path / "fal_client.py").write_text(NOISY)
    peer = start(env={"PYTHONPATH": str(tmp_path)})
    assert peer.wait(lambda messages: messages)[0]["method"] == "ready"
    assert peer.ask("any-llm-complete", {"prompt": "x"})["result"]["output"]
    peer.process.stdin.close()
    peer.exit()
    for source in (b"fd 1", b"print", b"a child"):
        assert b"noise from " + source in peer.stderr


def test_the_key_is_in_nothing_it_says(start, box):
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
