"""The sandbox's webhooks: signed, delivered, tried again, and kept on this machine."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import time
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import wire
from fal_sandbox import webhooks
from fal_sandbox.server import Sandbox
from wire import REST, submit

box = wire.box
web = wire.web


class Receiver:
    """A webhook target that answers with the statuses it was given, then 200."""

    def __init__(self, *statuses: Any) -> None:
        self.statuses = list(statuses)
        self.got: list[Any] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.got.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=1&b=2"

    def __enter__(self) -> Any:
        self.thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def delivered(box: Sandbox, outcome: str = "delivered") -> Any:
    return box.wait_for(lambda ledger: [job["webhook"] for job in ledger["jobs"]] == [outcome])


def test_a_webhook_carries_the_answer_and_a_signature_that_verifies(box: Sandbox, web: httpx.Client) -> None:
    with Receiver() as receiver:
        job = submit(web, params={"fal_webhook": receiver.url})
        delivered(box)
    headers, body = receiver.got[0]
    message = json.loads(body)
    assert message["request_id"] == message["gateway_request_id"] == job["request_id"]
    assert (message["status"], bool(message["payload"]["output"])) == ("OK", True)
    key = web.get(REST + ".well-known/jwks.json").json()["keys"][0]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
    signed = "\n".join(
        [
            headers["X-Fal-Webhook-Request-Id"],
            headers["X-Fal-Webhook-User-Id"],
            headers["X-Fal-Webhook-Timestamp"],
            hashlib.sha256(body).hexdigest(),
        ]
    ).encode()
    signature = bytes.fromhex(headers["X-Fal-Webhook-Signature"])
    public.verify(signature, signed)
    with pytest.raises(InvalidSignature):
        public.verify(signature, signed + b" ")
    assert abs(int(headers["X-Fal-Webhook-Timestamp"]) - time.time()) < 300


def test_a_webhook_of_a_failed_job_says_error(box: Sandbox, web: httpx.Client) -> None:
    with Receiver() as receiver:
        submit(web, given={"prompt": "x"}, params={"fal_webhook": receiver.url})
        delivered(box)
    message = json.loads(receiver.got[0][1])
    assert (message["status"], message["error"]) == ("ERROR", "Invalid status code: 422")
    assert message["payload"]["detail"][0]["type"] == "missing"


def test_a_webhook_is_tried_again_until_it_arrives(box: Sandbox, web: httpx.Client) -> None:
    with Receiver(500, 404) as receiver:
        submit(web, params={"fal_webhook": receiver.url})
        delivered(box)
    assert len(receiver.got) == 3
    assert box.webhooks()[0]["tries"] == [500, 404, 200]


def test_a_webhook_that_never_arrives_has_failed(
    box: Sandbox, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "PAUSES_S", (0.01,))
    with Receiver(500, 500, 500) as receiver:
        submit(web, params={"fal_webhook": receiver.url})
        delivered(box, "failed")
    assert len(receiver.got) == 2


def test_a_redirected_webhook_has_failed_at_once(box: Sandbox, web: httpx.Client) -> None:
    with Receiver(302) as receiver:
        submit(web, params={"fal_webhook": receiver.url})
        delivered(box, "failed")
    assert len(receiver.got) == 1


def test_a_webhook_address_that_is_none_is_dropped(box: Sandbox, web: httpx.Client) -> None:
    submit(web, params={"fal_webhook": "http://[half"})
    delivered(box, "dropped")


def test_a_webhook_that_would_leave_this_machine_is_dropped(box: Sandbox, web: httpx.Client) -> None:
    submit(web, params={"fal_webhook": "https://hooks.shop.test/fal?x=1"})
    delivered(box, "dropped")
    (row,) = [row for row in box.journal() if row["stage"] == "webhook"]
    assert (row["host"], row["note"], row["query"]) == ("hooks.shop.test", "dropped", "x=1")
