"""The other end of a `serve` worker's pipes, and the workers that the tests of `serve` talk to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import WORKER
from fal_sandbox.server import Sandbox

WITHIN_S = 120.0
"""For what comes at once, but on a busy machine a little later."""
EXIT_S = 6.0
"""The promise is two seconds; a busy machine may need three times that, and what hangs takes a minute."""
FOREVER_S = 600
DOCUMENT = {"error", "trace", "error_type", "retryable", "status_code", "request_id", "hint"}
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


@pytest.fixture(scope="module")
def shared(sandbox_server: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """One worker for the tests that leave it as it was."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
    peer = Peer((), {**plain, **sandbox_server.env()}, tmp_path_factory.mktemp("worker"))
    peer.wait(lambda messages: messages)
    yield peer
    peer.end()


@pytest.fixture
def worker(shared: Peer, box: Sandbox) -> Peer:
    shared.messages.clear()
    return shared


@pytest.fixture
def start(box: Sandbox, tmp_path: Path) -> Iterator[Callable[..., Peer]]:
    """Start a worker of the test's own."""
    with contextlib.ExitStack() as peers:

        def serve(*argv: str, env: dict[str, str] | None = None, **options: Any) -> Peer:
            peer = Peer(argv, {**os.environ, **(env or {})}, tmp_path, **options)
            peers.callback(peer.end)
            return peer

        yield serve


@pytest.fixture
def places(
    box: Sandbox, photo_url: str, photo_path: Path, tmp_path: Path, run: Callable[..., tuple[int, Any]]
) -> dict[str, Any]:
    request_id = run("any-llm-submit", "--prompt", "Hello")[1]["request_id"]
    box.wait_for(lambda ledger: ledger["completed"] == 1)
    return {"photo_url": photo_url, "photo_path": photo_path, "request_id": request_id, "out": tmp_path / "out"}


def request(**changes: Any) -> bytes:
    return json.dumps({**PING, **changes}).encode() + b"\n"


def end_of_input(peer: Peer) -> None:
    peer.process.stdin.close()
