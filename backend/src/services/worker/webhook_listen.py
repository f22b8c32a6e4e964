"""`webhook-listen`: a server on this machine that verifies fal's webhooks and prints each as a line of JSON.

For development, behind a tunnel or with the sandbox; it listens on loopback only. Its first line has the URL. It ends
after `--count` verified webhooks, after `--timeout` seconds, by a signal, or when nobody reads its lines any more.
See `services/webhooks.py` for the verification.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.fal.errors import Cancelled, DeadlineExceeded, FalError, FalUnavailable, InvalidInput, report
from services.fal.settings import check_timeout
from services.webhooks import WebhookRejected, WebhookVerifier
from services.worker import early_signals
from services.worker.command import TIMEOUT
from services.worker.commands import COUNT, PORT
from services.worker.output import JsonStdout
from services.worker.supervisor import on_signal

HOST = "127.0.0.1"
DEFAULT_PORT = 8788
MAX_BODY_BYTES = 64 * 1024 * 1024
SILENCE_S = 15.0
"""How long a client may take for the next piece of its request."""
EXIT_S = 1.5
"""However the command ends, it takes no longer, even when nobody reads its last line."""

COUNTED = "all have come"
NOBODY_READS = "nobody reads"
TIME_IS_UP = "time is up"


def listen(values: Mapping[str, Any], out: JsonStdout) -> int:
    """The command: 0 after `--count` webhooks, or after `--timeout` when no count was given; else 1."""
    count = values.get(COUNT.name)
    if count is not None and count < 1:
        raise InvalidInput(f"--count must be a whole number from 1, not {count}.")
    timeout_s = None if values.get(TIMEOUT.name) is None else check_timeout(values[TIMEOUT.name])
    deliveries = Deliveries(out, count)
    with _server(values.get(PORT.name, DEFAULT_PORT), deliveries) as server, on_signal(deliveries.ends.put):
        early_signals.disarm()
        deliveries.tell({"url": f"http://{HOST}:{server.server_port}/"})
        for work in (server.serve_forever, deliveries.watch_reader):
            threading.Thread(target=work, name="fal-listen", daemon=True).start()
        why = _end(deliveries.ends, timeout_s)
        last_resort = threading.Timer(EXIT_S, os._exit, args=(1,))
        last_resort.daemon = True
        last_resort.start()
        server.shutdown()
        code = _last_word(why, count, timeout_s, out)
        last_resort.cancel()
    return code


class Deliveries:
    """Verifies the webhooks that arrive, and prints them."""

    def __init__(self, out: JsonStdout, count: int | None) -> None:
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Why the command ends; a signal handler may put into it at any moment."""
        self._out = out
        self._verifier = WebhookVerifier()
        self._lock = threading.Lock()
        self._left = count

    def take(self, headers: Any, body: bytes) -> int:
        """Print the line of one request; the status to answer with."""
        try:
            webhook = self._verifier.verify(headers, body)
            line = {
                "verified": True,
                "request_id": webhook.request_id,
                "user_id": webhook.user_id,
                "timestamp": webhook.timestamp,
                "repeat": webhook.repeat,
                "body": webhook.json(),
            }
        except FalError as error:
            self.tell(_refusal(error))
            return 503 if isinstance(error, FalUnavailable) else 401 if isinstance(error, WebhookRejected) else 400
        with self._lock:
            if self._left == 0:
                webhook.forget()
                return 503  # the command is ending: fal may deliver it to the next one
            self.tell(line)
            if self._left is not None:
                self._left -= 1
            if self._left == 0:
                self.ends.put(COUNTED)
        return 200

    def tell(self, line: Mapping[str, Any]) -> None:
        try:
            self._out.write(line)
        except OSError:
            self.ends.put(NOBODY_READS)

    def watch_reader(self) -> None:
        if self._out.wait_for_the_reader_to_leave():
            self.ends.put(NOBODY_READS)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    deliveries: Deliveries


class _Handler(BaseHTTPRequestHandler):
    """POST to any path; the answer has no body."""

    timeout = SILENCE_S
    server: _Server

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._answer(411)
        elif int(length) > MAX_BODY_BYTES:
            self._answer(413)
        elif len(body := self.rfile.read(int(length))) < int(length):
            self.close_connection = True
        else:
            self._answer(self.server.deliveries.take(self.headers, body))

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The lines on stdout tell it."""


def _server(port: int, deliveries: Deliveries) -> _Server:
    """Raises InvalidInput."""
    if not 0 <= port <= 65535:
        raise InvalidInput(f"--port must be a whole number from 0 to 65535, not {port}.")
    try:
        server = _Server((HOST, port), _Handler)
    except OSError as error:
        why = error.strerror or error
        hint = "Choose another port, or 0 for any free port."
        raise InvalidInput(f"The worker cannot listen on port {port}: {why}.", hint=hint) from error
    server.deliveries = deliveries
    return server


def _end(ends: queue.SimpleQueue[str], timeout_s: float | None) -> str:
    try:
        return ends.get(timeout=timeout_s)
    except queue.Empty:
        return TIME_IS_UP


def _last_word(why: str, count: int | None, timeout_s: float | None, out: JsonStdout) -> int:
    if why == COUNTED or (why == TIME_IS_UP and count is None):
        return 0
    if why == TIME_IS_UP:
        error: FalError = DeadlineExceeded(f"Fewer than {count} webhooks arrived within {timeout_s:g} seconds.")
    else:
        error = Cancelled(f"The command was ended by {why}.")
    if why != NOBODY_READS:
        out.write(report(error))
    return 1


def _refusal(error: FalError) -> dict[str, Any]:
    reason = error.reason if isinstance(error, WebhookRejected) else None
    return {"verified": False, "error_type": error.error_type, "reason": reason, "refusal": str(error)}
