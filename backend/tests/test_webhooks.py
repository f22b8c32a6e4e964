"""Webhooks are verified: what fal signed passes, anything else is refused with its reason, and repeats are told."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from example_server import listening
from fal_sandbox.server import Sandbox
from services import webhooks
from services.fal.errors import BadOutput, FalUnavailable, InvalidInput
from services.fal_service import FalClient
from services.fal_worker import main
from services.webhooks import WebhookRejected, WebhookVerifier, verify_webhook
from shop_server import NODE, SHOP

BACKEND = Path(__file__).resolve().parents[1]
WORKER = BACKEND / "src" / "services" / "fal_worker.py"
NOW = 1_764_115_200
BODY = '{"request_id": "r-1", "status": "OK", "payload": {"output": "Şık kupa ✓"}}'.encode()
WITHIN_S = 120.0


def jwks(*keys: Ed25519PrivateKey) -> bytes:
    rows = []
    for key in keys:
        x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        rows.append({"kty": "OKP", "crv": "Ed25519", "x": x})
    return json.dumps({"keys": rows}).encode()


def signed(
    key: Ed25519PrivateKey, body: bytes = BODY, *, request_id: str = "r-1", user_id: str = "user", at: int = NOW
) -> dict[str, str]:
    """The headers of a delivery, made as fal documents it."""
    message = "\n".join((request_id, user_id, str(at), hashlib.sha256(body).hexdigest()))
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": user_id,
        "X-Fal-Webhook-Timestamp": str(at),
        "X-Fal-Webhook-Signature": key.sign(message.encode()).hex(),
    }


class Fal:
    """fal's side: its key, the document that publishes it, and a clock."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.now = float(NOW)
        self.looks = 0
        self.document: bytes | None = jwks(self.key)

    def fetch(self) -> bytes:
        self.looks += 1
        if self.document is None:
            raise FalUnavailable("No address.")
        return self.document


@pytest.fixture
def fal() -> Fal:
    return Fal()


@pytest.fixture
def verifier(fal: Fal) -> WebhookVerifier:
    return WebhookVerifier(fetch=fal.fetch, clock=lambda: fal.now)


def reason_of(verifier: WebhookVerifier, headers: Any, body: bytes = BODY) -> str:
    with pytest.raises(WebhookRejected) as caught:
        verifier.verify(headers, body)
    assert (caught.value.error_type, caught.value.retryable) == ("webhook_rejected", False)
    return caught.value.reason


# What fal signed


def test_what_fal_signed_is_told_with_its_body(fal: Fal, verifier: WebhookVerifier) -> None:
    webhook = verifier.verify(signed(fal.key), BODY)
    assert (webhook.request_id, webhook.user_id, webhook.timestamp) == ("r-1", "user", NOW)
    assert (webhook.repeat, webhook.body) == (False, BODY)
    assert webhook.json()["payload"] == {"output": "Şık kupa ✓"}


SHAPES: dict[str, Callable[[dict[str, str]], Any]] = {
    "small letters": lambda headers: {name.lower(): value for name, value in headers.items()},
    "capitals": lambda headers: {name.upper(): value for name, value in headers.items()},
    "pairs": lambda headers: list(headers.items()),
    "bytes, as ASGI has them": lambda headers: [(name.lower().encode(), one.encode()) for name, one in headers.items()],
    "bytearray beside others": lambda headers: {**headers, "Content-Type": "application/json", "X-Other": "ğ"},
    "blanks around": lambda headers: {name: f" {value}\t" for name, value in headers.items()},
    "a header twice, the same": lambda headers: [*headers.items(), *headers.items()],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_headers_are_taken_as_frameworks_give_them(shape: str, fal: Fal, verifier: WebhookVerifier) -> None:
    assert verifier.verify(SHAPES[shape](signed(fal.key)), BODY).request_id == "r-1"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_is_bytes_of_any_kind(kind: Any, fal: Fal, verifier: WebhookVerifier) -> None:
    assert verifier.verify(signed(fal.key), kind(BODY)).body == BODY


@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", "ışıl ışıl ✓".encode(), "ğ".encode("cp1254"), bytes(1_000_000)])
def test_a_body_is_verified_as_it_came_whatever_it_holds(body: bytes, fal: Fal, verifier: WebhookVerifier) -> None:
    webhook = verifier.verify(signed(fal.key, body), body)
    assert webhook.body == body
    with pytest.raises(BadOutput, match="JSON"):
        webhook.json()


def test_a_body_that_is_no_object_is_told_when_it_is_read(fal: Fal, verifier: WebhookVerifier) -> None:
    webhook = verifier.verify(signed(fal.key, b"[1]"), b"[1]")
    with pytest.raises(BadOutput, match="not a JSON object"):
        webhook.json()


@pytest.mark.parametrize("as_read", [str, lambda text: text.encode().decode("latin-1"), lambda text: text.encode()])
def test_letters_beyond_ascii_in_a_header_are_verified_however_the_server_reads_them(
    as_read: Any, fal: Fal, verifier: WebhookVerifier
) -> None:
    headers = signed(fal.key, user_id="kullanıcı ✓")
    assert verifier.verify({name: as_read(value) for name, value in headers.items()}, BODY).request_id == "r-1"


# What it did not


def test_a_wrong_key_is_refused(verifier: WebhookVerifier) -> None:
    assert reason_of(verifier, signed(Ed25519PrivateKey.generate())) == "bad_signature"


@pytest.mark.parametrize(
    "body", [BODY + b" ", BODY[:-1], BODY.replace(b"OK", b"ok"), b"", BODY.decode().encode("utf-16")]
)
def test_an_altered_body_is_refused(body: Any, fal: Fal, verifier: WebhookVerifier) -> None:
    assert reason_of(verifier, signed(fal.key), body) == "bad_signature"


@pytest.mark.parametrize(
    ("name", "value"),
    [("Request-Id", "r-2"), ("User-Id", "other"), ("Timestamp", str(NOW + 1)), ("Timestamp", f"0{NOW}")],
)
def test_an_altered_header_is_refused(name: str, value: str, fal: Fal, verifier: WebhookVerifier) -> None:
    assert reason_of(verifier, {**signed(fal.key), f"X-Fal-Webhook-{name}": value}) == "bad_signature"


@pytest.mark.parametrize("missing", ["Request-Id", "User-Id", "Timestamp", "Signature"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_header_that_is_missing_is_named(missing: str, how: str, fal: Fal, verifier: WebhookVerifier) -> None:
    headers = signed(fal.key)
    headers[f"X-Fal-Webhook-{missing}"] = ""
    if how == "absent":
        del headers[f"X-Fal-Webhook-{missing}"]
    with pytest.raises(WebhookRejected, match=f"x-fal-webhook-{missing.lower()}") as caught:
        verifier.verify(headers, BODY)
    assert caught.value.reason == "missing_header"
    assert fal.looks == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Timestamp", value) for value in ("now", "-1", "1e9", "１２３", "1 2", "9" * 400, "0x10", f"{NOW}.5")),
        *(("Signature", value) for value in ("zz" * 64, "ab" * 63, "ab" * 65, "ığ", "é" * 128)),
        *(("Request-Id", value) for value in ("r\n-1", "r\x00")),
        ("User-Id", "a\r\nb"),
    ],
)
def test_a_header_that_fal_would_not_send_is_refused_before_anything_is_fetched(
    name: Any, value: Any, fal: Fal, verifier: WebhookVerifier
) -> None:
    assert reason_of(verifier, {**signed(fal.key), f"X-Fal-Webhook-{name}": value}) == "malformed_header"
    assert fal.looks == 0


@pytest.mark.parametrize("user_id", ["\ud800", "kullanıcı"])
def test_letters_that_were_not_signed_are_refused(user_id: str, fal: Fal, verifier: WebhookVerifier) -> None:
    assert reason_of(verifier, {**signed(fal.key), "X-Fal-Webhook-User-Id": user_id}) == "bad_signature"


def test_two_values_of_one_header_are_refused(fal: Fal, verifier: WebhookVerifier) -> None:
    headers = [*signed(fal.key).items(), ("x-fal-webhook-request-id", "r-2")]
    assert reason_of(verifier, headers) == "malformed_header"


@pytest.mark.parametrize(
    "headers", [None, 5, ["x-fal-webhook-request-id"], {"x-fal-webhook-request-id": ["a"]}, {5: "a"}]
)
def test_headers_of_another_type_are_a_mistake_of_the_caller(headers: Any, verifier: WebhookVerifier) -> None:
    with pytest.raises(InvalidInput, match="headers"):
        verifier.verify(headers, BODY)


@pytest.mark.parametrize("body", ["text", {"request_id": "r-1"}, None])
def test_a_body_that_was_parsed_is_a_mistake_of_the_caller(body: Any, fal: Fal, verifier: WebhookVerifier) -> None:
    with pytest.raises(InvalidInput, match="raw bytes"):
        verifier.verify(signed(fal.key), body)


# Time


@pytest.mark.parametrize(
    ("late_s", "reason"),
    [(0, None), (299, None), (300, None), (301, "too_old"), (-299, None), (-300, None), (-301, "too_new")],
)
def test_the_time_may_differ_by_300_seconds_either_way(
    late_s: int, reason: str | None, fal: Fal, verifier: WebhookVerifier
) -> None:
    fal.now = float(NOW + late_s)
    if reason is None:
        assert verifier.verify(signed(fal.key), BODY).repeat is False
    else:
        assert reason_of(verifier, signed(fal.key)) == reason
        assert fal.looks == 0


# Repeats


def test_a_replay_and_a_second_delivery_are_told_as_repeats(fal: Fal, verifier: WebhookVerifier) -> None:
    headers = signed(fal.key)
    assert [verifier.verify(headers, BODY).repeat for _ in range(3)] == [False, True, True]
    fal.now += 120
    assert verifier.verify(signed(fal.key, at=NOW + 120), BODY).repeat is True
    assert verifier.verify(signed(fal.key, request_id="r-2"), BODY).repeat is False


def test_what_was_refused_is_not_remembered(fal: Fal, verifier: WebhookVerifier) -> None:
    reason_of(verifier, signed(fal.key), BODY + b" ")
    assert verifier.verify(signed(fal.key), BODY).repeat is False


def test_a_webhook_that_was_forgotten_counts_as_the_first_again(fal: Fal, verifier: WebhookVerifier) -> None:
    verifier.verify(signed(fal.key), BODY).forget()
    assert verifier.verify(signed(fal.key), BODY).repeat is False


def test_the_memory_keeps_the_latest_and_no_more(fal: Fal) -> None:
    verifier = WebhookVerifier(fetch=fal.fetch, clock=lambda: fal.now, remembered=2)
    ids = ("a", "b", "a", "c", "a", "b")
    told = [verifier.verify(signed(fal.key, request_id=one), BODY).repeat for one in ids]
    assert told == [False, False, True, False, True, False]


def test_one_of_many_threads_is_told_the_first(fal: Fal, verifier: WebhookVerifier) -> None:
    headers, found, start = signed(fal.key), [], threading.Barrier(16)

    def verify() -> None:
        start.wait()
        found.append(verifier.verify(headers, BODY).repeat)

    threads = [threading.Thread(target=verify) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] + [True] * 15
    assert fal.looks == 1


# Keys


def test_keys_are_fetched_once_and_kept_for_a_day(fal: Fal, verifier: WebhookVerifier) -> None:
    for hours in (0, 12, 23.99):
        fal.now = NOW + hours * 3600
        verifier.verify(signed(fal.key, at=int(fal.now)), BODY)
    assert fal.looks == 1
    fal.now = NOW + 24 * 3600.0
    verifier.verify(signed(fal.key, at=int(fal.now)), BODY)
    assert fal.looks == 2


def test_keys_that_are_a_day_old_are_not_used_when_there_are_no_newer_ones(fal: Fal, verifier: WebhookVerifier) -> None:
    verifier.verify(signed(fal.key), BODY)
    fal.document, fal.now = None, NOW + 24 * 3600.0
    with pytest.raises(FalUnavailable):
        verifier.verify(signed(fal.key, at=int(fal.now)), BODY)


def test_any_of_several_keys_may_have_signed(fal: Fal, verifier: WebhookVerifier) -> None:
    fal.document = jwks(Ed25519PrivateKey.generate(), fal.key, Ed25519PrivateKey.generate())
    assert verifier.verify(signed(fal.key), BODY).request_id == "r-1"


def test_a_key_that_is_not_known_yet_is_looked_for(fal: Fal, verifier: WebhookVerifier) -> None:
    verifier.verify(signed(fal.key), BODY)
    new = Ed25519PrivateKey.generate()
    fal.document, fal.now = jwks(new), fal.now + 60
    assert verifier.verify(signed(new, request_id="r-2", at=NOW + 60), BODY).repeat is False
    assert fal.looks == 2
    assert reason_of(verifier, signed(fal.key)) == "bad_signature"


def test_a_key_that_came_a_moment_ago_is_found_too(fal: Fal, verifier: WebhookVerifier) -> None:
    verifier.verify(signed(fal.key), BODY)
    new = Ed25519PrivateKey.generate()
    fal.document = jwks(new)
    assert verifier.verify(signed(new, request_id="r-2"), BODY).repeat is False


def test_a_thousand_wrong_signatures_make_us_ask_fal_five_times_a_minute(fal: Fal, verifier: WebhookVerifier) -> None:
    verifier.verify(signed(fal.key), BODY)
    wrong = {**signed(fal.key), "X-Fal-Webhook-Signature": "ab" * 64}
    for _ in range(1000):
        reason_of(verifier, wrong)
    assert fal.looks == 5
    fal.now += 60
    reason_of(verifier, wrong)
    assert fal.looks == 6
    assert verifier.verify(signed(fal.key, request_id="r-3"), BODY).repeat is False


def test_a_look_for_new_keys_does_not_hold_up_who_needs_none(fal: Fal, verifier: WebhookVerifier) -> None:
    verifier.verify(signed(fal.key), BODY)
    fal.now += 60
    looking, go_on = threading.Event(), threading.Event()
    fetch = verifier._keys._fetch

    def slow() -> bytes:
        looking.set()
        assert go_on.wait(WITHIN_S)
        return fetch()

    verifier._keys._fetch = slow
    wrong = {**signed(fal.key), "X-Fal-Webhook-Signature": "ab" * 64}
    thread = threading.Thread(target=reason_of, args=(verifier, wrong))
    thread.start()
    assert looking.wait(WITHIN_S)
    assert verifier.verify(signed(fal.key, request_id="r-2"), BODY).repeat is False
    go_on.set()
    thread.join()


def test_keys_that_cannot_be_had_are_no_refusal_and_not_asked_for_at_every_request(
    fal: Fal, verifier: WebhookVerifier
) -> None:
    fal.document = None
    for _ in range(100):
        with pytest.raises(FalUnavailable, match="No address") as caught:
            verifier.verify(signed(fal.key), BODY)
        assert caught.value.retryable
        assert "503" in caught.value.hint
    assert fal.looks == 5
    fal.document, fal.now = jwks(fal.key), fal.now + 60
    assert verifier.verify(signed(fal.key), BODY).repeat is False


ROWS = (
    *(b'{"kty": "OKP", "crv": "Ed25519", "x": %s}' % x for x in (b'"abc"', b"5", b'"\xc3\xa9"', b"null")),
    *(b'{"kty": "RSA", "n": "abc"}', b'{"kty": "OKP", "crv": "X25519", "x": "%s"}' % (b"A" * 43), b"5"),
)
DOCUMENTS = (b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"keys": {}}', b'{"keys": []}')


class CountedLock:
    """A lock that tells when so many want it."""

    def __init__(self, wanted: int) -> None:
        self._lock = threading.Lock()
        self._missing = threading.Semaphore(0)
        self._wanted = wanted

    def __enter__(self) -> None:
        self._missing.release()
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def wait(self) -> None:
        for _ in range(self._wanted):
            assert self._missing.acquire(timeout=WITHIN_S)


def test_many_threads_wait_for_one_look_that_fails(
    fal: Fal, verifier: WebhookVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    fal.document = None
    fetch, lock = fal.fetch, CountedLock(9)
    monkeypatch.setattr(verifier._keys, "_lock", lock)
    found: list[str] = []

    def fetch_when_all_wait() -> bytes:
        lock.wait()
        return fetch()

    def verify() -> None:
        with pytest.raises(FalUnavailable):
            verifier.verify(signed(fal.key), BODY)
        found.append("told")

    verifier._keys._fetch = fetch_when_all_wait
    threads = [threading.Thread(target=verify) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["told"] * 9
    assert fal.looks == 1


@pytest.mark.parametrize("document", [*DOCUMENTS, *(b'{"keys": [%s]}' % row for row in ROWS)])
def test_a_document_without_a_key_is_told_as_such(document: Any, fal: Fal, verifier: WebhookVerifier) -> None:
    fal.document = document
    with pytest.raises(FalUnavailable, match=r"jwks\.json"):
        verifier.verify(signed(fal.key), BODY)


def test_a_clock_that_was_set_back_makes_no_keys_last_longer(fal: Fal, verifier: WebhookVerifier) -> None:
    verifier.verify(signed(fal.key), BODY)
    fal.now -= 100
    verifier.verify(signed(fal.key), BODY)
    assert fal.looks == 2


def test_a_missing_package_is_named(fal: Fal, verifier: WebhookVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(InvalidInput, match="pip install cryptography"):
        verifier.verify(signed(fal.key), BODY)


def test_the_module_itself_loads_neither_cryptography_nor_requests() -> None:
    code = "import sys, services.webhooks; print({'cryptography', 'requests', 'fal_client'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(BACKEND / "src")}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


# fal's own document, over the wire


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """`verify_webhook` as in a process that has just begun."""
    monkeypatch.setattr(webhooks, "_SHARED", WebhookVerifier())


def test_the_keys_are_fetched_from_fal_without_a_password(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login someone password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert json.loads(webhooks.fetch_keys())["keys"][0]["crv"] == "Ed25519"
    (row,) = [row for row in box.journal() if row["path"] == "/.well-known/jwks.json"]
    assert row["host"] == "rest.fal.ai"
    assert row["headers"]["authorization"] is None


@pytest.mark.usefixtures("forgetful")
def test_no_way_to_the_keys_is_told(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    now = int(time.time())
    with pytest.raises(FalUnavailable, match=r"rest\.fal\.ai"):
        verify_webhook(signed(Ed25519PrivateKey.generate(), at=now), BODY)


# The whole way: a job, the sandbox's delivery, a receiver


class Listener:
    """`webhook-listen` as a process."""

    def __init__(self, *options: str) -> None:
        argv = [sys.executable, str(WORKER), "webhook-listen", "--port", "0", *options]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.line()["url"]

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        document: dict[str, Any] = json.loads(line)
        return document


@pytest.fixture
def listen(box: Sandbox) -> Iterator[Callable[..., Listener]]:
    started: list[Listener] = []

    def start(*options: str) -> Listener:
        started.append(Listener(*options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_a_jobs_webhook_is_verified_and_printed(
    box: Sandbox, client: FalClient, listen: Callable[..., Listener]
) -> None:
    box.say("Şık kupa ✓")
    listener = listen("--count", "1", "--timeout", str(WITHIN_S))
    request_id = client.any_llm_submit("A mug.", webhook_url=listener.url + "hook")
    line = listener.line()
    assert {**line, "body": None, "timestamp": None} == {
        "verified": True,
        "request_id": request_id,
        "user_id": "sandbox-user",
        "timestamp": None,
        "repeat": False,
        "body": None,
    }
    assert line["body"]["payload"]["output"] == "Şık kupa ✓"
    assert listener.process.wait(WITHIN_S) == 0
    box.wait_for(lambda ledger: ledger["jobs"][0]["webhook"] == "delivered")


def test_a_request_that_fal_did_not_sign_is_told_and_the_command_goes_on(
    client: FalClient, listen: Callable[..., Listener]
) -> None:
    listener = listen("--count", "1")
    assert requests.post(listener.url, data=b"{}", timeout=WITHIN_S).status_code == 401
    refused = listener.line()
    assert (refused["verified"], refused["reason"]) == (False, "missing_header")
    stranger = signed(Ed25519PrivateKey.generate(), at=int(time.time()))
    assert requests.post(listener.url, data=BODY, headers=stranger, timeout=WITHIN_S).status_code == 401
    assert listener.line()["reason"] == "bad_signature"
    assert requests.get(listener.url, timeout=WITHIN_S).status_code == 501
    too_long = {"Content-Length": "99999999999"}
    assert requests.post(listener.url, headers=too_long, timeout=WITHIN_S).status_code == 413
    assert requests.post(listener.url, data=iter([b"x"]), timeout=WITHIN_S).status_code == 411
    client.any_llm_submit("A mug.", webhook_url=listener.url)
    assert listener.line()["verified"] is True
    assert listener.process.wait(WITHIN_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_document(number: Any, listen: Callable[..., Listener]) -> None:
    listener = listen()
    listener.process.send_signal(number)
    document = listener.line()
    assert (document["error_type"], document["retryable"]) == ("cancelled", False)
    assert listener.process.wait(WITHIN_S) == 1


def test_it_ends_when_nobody_reads_its_lines(listen: Callable[..., Listener]) -> None:
    listener = listen()
    listener.process.stdout.close()
    assert listener.process.wait(WITHIN_S) == 1


@pytest.mark.parametrize(("options", "code", "error_type"), [([], 0, None), (["--count", "1"], 1, "timeout")])
def test_its_time_passes(
    options: list[Any], code: int, error_type: str | None, box: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["webhook-listen", "--port", "0", "--timeout", "0.1", *options]) == code
    first, *rest = capfd.readouterr().out.splitlines()
    assert json.loads(first)["url"].startswith("http://127.0.0.1:")
    assert [json.loads(line)["error_type"] for line in rest] == ([error_type] if error_type else [])


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "TAKEN"), ("--port", "65536"), ("--port", "-1"), ("--count", "0"), ("--timeout", "0")],
)
def test_a_port_that_is_taken_and_options_that_make_no_sense_are_told(
    option: str, value: str, listen: Callable[..., Listener], capfd: pytest.CaptureFixture[str]
) -> None:
    taken = listen().url.strip("/").rpartition(":")[2]
    assert main(["webhook-listen", option, taken if value == "TAKEN" else value]) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["error_type"] == "invalid_input"
    assert option.strip("-") in document["error"].lower()


# The examples


@pytest.fixture
def fastapi(box: Sandbox) -> Iterator[str]:
    """The FastAPI receiver as its page says to start it; its URL."""
    options = ["--app-dir", str(BACKEND / "examples"), "--port", "0"]
    argv = [sys.executable, "-m", "uvicorn", "webhook_fastapi:app", *options]
    with listening(argv, "stderr", PYTHONPATH=str(BACKEND / "src")) as url:
        yield url


@pytest.fixture
def fastify(packages: None, box: Sandbox, tmp_path: Path) -> Iterator[str]:
    """The Fastify receiver, with Fastify and the module installed beside it; its URL."""
    installed = tmp_path / "node_modules"
    installed.mkdir()
    (installed / "fastify").symlink_to(SHOP / "node_modules" / "fastify", target_is_directory=True)
    (installed / "fal-worker").symlink_to(BACKEND / "node", target_is_directory=True)
    server = Path(shutil.copy(BACKEND / "node" / "examples" / "webhook" / "server.mjs", tmp_path))
    with listening([NODE, str(server)], "stdout", PORT="0") as url:
        yield url


def test_the_fastapi_server_takes_what_fal_signed_and_nothing_else(
    fastapi: str, box: Sandbox, client: FalClient
) -> None:
    _takes_only_what_fal_signed(f"{fastapi}/webhooks/fal", box, client)


def test_the_fastify_server_takes_what_fal_signed_and_nothing_else(
    fastify: str, box: Sandbox, client: FalClient
) -> None:
    _takes_only_what_fal_signed(f"{fastify}/webhooks/fal", box, client)


def _takes_only_what_fal_signed(hook: str, box: Sandbox, client: FalClient) -> None:
    stranger = signed(Ed25519PrivateKey.generate(), at=int(time.time()))
    for headers in ({}, stranger, {**stranger, "Content-Type": "application/json"}):
        assert requests.post(hook, data=BODY, headers=headers, timeout=WITHIN_S).status_code == 401
    client.any_llm_submit("A mug.", webhook_url=hook)
    box.wait_for(lambda ledger: ledger["jobs"][0]["webhook"] == "delivered", WITHIN_S)
    assert box.webhooks()[0]["tries"] == [200]
