"""The key goes to fal's own hosts and nowhere else: not to other hosts, not along redirects, not into what is shown.

The whole fault matrix checks its output for the key too (test_faults.py).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import json
import logging
import pickle
import ssl
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpcore
import pytest
from httpcore._backends.sync import SyncStream

from conftest import COFFEE
from fal_sandbox.server import Sandbox
from raw_hosts import RawHosts, answering, raw_hosts, whole
from services.fal import connections, errors, redaction
from services.fal.hosts import is_public
from services.fal.jobs import own_url
from services.fal.settings import resolve
from services.fal_service import FalClient

HALVES = ("planted-key-id-91", "planted-secret-73")
KEY = ":".join(HALVES)


@pytest.fixture
def other_host(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox that also answers for a host which is not fal's."""
    with Sandbox(hosts=("files.other.example.net",)) as other:
        for name, value in other.env().items():
            monkeypatch.setenv(name, value)
        yield other


def places_of_the_key(box: Sandbox) -> set[str]:
    """Hosts that a request with fal's key reached."""
    return {row["host"] for row in box.journal() if row["headers"].get("authorization") == "Key"}


@pytest.mark.parametrize("way", ["argument", "environment", "env file", "halves"])
def test_the_key_is_not_shown_however_it_was_given(
    way: str,
    box: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("FAL_KEY")
    monkeypatch.setenv("FAL_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    argument = None
    if way == "argument":
        argument = KEY
    elif way == "environment":
        monkeypatch.setenv("FAL_KEY", KEY)
    elif way == "env file":
        Path(".env").write_text(f"FAL_KEY={KEY}\n")
    else:
        monkeypatch.setenv("FAL_KEY_ID", HALVES[0])
        monkeypatch.setenv("FAL_KEY_SECRET", HALVES[1])
    box.fault("submit", status=401, body={"detail": f"the key {KEY} is not known, nor is {HALVES[1]}"})
    with FalClient(key=argument) as client:
        failed = client.any_llm_complete("hi")
        worked = client.any_llm_complete("hi")
        shown = [
            repr(client),
            str(client),
            repr(client._settings),
            repr(client.__dict__),
            repr(client._shared._made.__dict__),
        ]
    out, err = capfd.readouterr()
    shown += [repr(failed), repr(worked), out, err, caplog.text, repr([record.__dict__ for record in caplog.records])]
    assert failed["error_type"] == "auth"
    for half in HALVES:
        assert not [text for text in shown if half in text]


def test_the_key_is_not_in_errors_that_are_raised_pickled_or_reported(box: Sandbox) -> None:
    box.fault("submit", status=403, body={"detail": f"no scope for {KEY}"})
    with FalClient(key=KEY) as client, pytest.raises(errors.AuthError) as raised:
        client.any_llm_submit("hi")
    error = raised.value
    shown = [str(error), repr(error), pickle.dumps(error).decode("latin-1"), repr(errors.report(error))]
    shown.append(str(pickle.loads(pickle.dumps(error))))
    for half in HALVES:
        assert not [text for text in shown if half in text]


def test_the_settings_cannot_be_printed_with_their_key() -> None:
    assert not [half for half in HALVES if half in repr(resolve(key=KEY))]


def test_the_key_is_not_sent_to_urls_that_an_answer_names_elsewhere(other_host: Sandbox) -> None:
    elsewhere = "https://files.other.example.net/steal"
    body = {"request_id": "abc", "status_url": elsewhere, "response_url": elsewhere, "cancel_url": elsewhere}
    other_host.fault("submit", status=200, body=body)
    with FalClient(key=KEY, timeout=60) as client:
        assert client.any_llm_complete("hi")["error_type"] == "not_found"
    assert "files.other.example.net" not in {row["host"] for row in other_host.journal()}
    assert places_of_the_key(other_host) == {"queue.fal.run"}


@pytest.mark.parametrize(
    "stage", ["submit", "status", "status_stream", "result", "cancel", "token", "upload", "stream"]
)
def test_the_key_does_not_follow_a_redirect_to_another_host(stage: str, other_host: Sandbox) -> None:
    other_host.fault(stage, times=None, redirect="https://files.other.example.net/steal")
    with FalClient(key=KEY, timeout=60) as client, contextlib.suppress(errors.FalError):
        if stage == "stream":
            list(client.iter_any_llm("hi"))
        elif stage in ("token", "upload"):
            client.upload_file(COFFEE)
        elif stage == "cancel":
            client.any_llm_cancel(client.any_llm_submit("hi"))
        elif stage == "status":
            client.any_llm_status(client.any_llm_submit("hi"))
        else:
            client.any_llm_complete("hi")
    hosts = {row["host"] for row in other_host.journal()}
    assert "files.other.example.net" not in hosts
    assert hosts & {"queue.fal.run", "fal.run", "rest.fal.ai"}


def test_the_upload_fallback_does_not_carry_the_key_to_the_storage_host(box: Sandbox) -> None:
    box.fault("upload", times=None, status=500)
    with FalClient(key=KEY, timeout=60) as client:
        client.upload_file(COFFEE)
    rows = [row for row in box.journal() if row["host"] == "storage.googleapis.com"]
    assert rows
    assert places_of_the_key(box) == {"rest.fal.ai"}


def test_a_download_carries_no_key_and_no_token(box: Sandbox, photo_url: str, tmp_path: Path) -> None:
    with FalClient(key=KEY) as client:
        client.save_picture(photo_url, tmp_path, "picture")
    rows = [row for row in box.journal() if row["stage"] == "download"]
    assert rows
    assert not [row for row in rows if row["headers"].get("authorization")]


def test_signed_urls_lose_their_query_in_the_log(
    box: Sandbox, photo_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from services.fal.log import logger

    monkeypatch.setenv("FAL_LOG", "debug")
    with FalClient(key=KEY):
        logger.warning("GET %s", "https://v3.fal.media/files/a.png?X-Signature=abcdef&Expires=9")
    err = capfd.readouterr().err
    assert "https://v3.fal.media/files/a.png?…" in err
    assert "abcdef" not in err


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        (address, False)
        for address in (
            *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "255.255.255.255"),
            *("100.64.0.1", "224.0.0.1", "240.0.0.1", "192.88.99.1", "198.18.0.1", "192.0.2.1"),
            *("::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1"),
            *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1"),
            *("2002:7f00:1::1", "2001:0:7f00:1::1"),
        )
    ],
)
def test_a_file_host_that_resolves_to_a_private_address_is_refused(
    address: str, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    asked: list[Any] = []

    def resolve_to(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_to)
    with FalClient(key=KEY, timeout=60) as client, pytest.raises(errors.InvalidInput, match="not a public address"):
        client.save_picture("https://v3.fal.media/files/x.png", tmp_path, "x")
    assert asked == ["v3.fal.media"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::200e"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    answers, connected = ["8.8.8.8", "127.0.0.1"], list[Any]()

    def resolve(host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    def connect(self: Any, addresses: list[str], port: int, *args: Any) -> Any:
        connected.append((addresses, port))
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(connections.Racing, "connect", connect)
    monkeypatch.setattr("services.fal.fal_api.MAX_ATTEMPTS", 1)
    with FalClient(key=KEY, timeout=3) as client, pytest.raises(errors.Unreachable):
        client.save_picture("https://v3.fal.media/files/x.png", tmp_path, "x")
    assert connected == [(["8.8.8.8"], 443)]
    assert answers == ["127.0.0.1"]


ODD_URLS = [
    "https://evil.example\\@queue.fal.run/x",
    "https://queue.fal.run\\@evil.example/x",
    "https://user:pass@queue.fal.run/x",
    "https://queue.fal.run\n.evil.example/x",
    "https://queue.fal.run/a b",
    "https://queue.fal.run:99999/x",
    "https://ｑueue.fal.run/x",
]


@pytest.mark.parametrize("url", ODD_URLS)
def test_an_odd_url_of_ones_own_photokit_is_refused(url: str, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", url)
    with pytest.raises(errors.InvalidInput, match="FAL_PHOTOKIT_ENDPOINT"):
        FalClient(key=KEY)
    assert box.journal() == []


@pytest.mark.parametrize(
    "url", [*ODD_URLS, "http://queue.fal.run/x", "https://queue.fal.run:8443/x", "//queue.fal.run/x"]
)
def test_an_odd_url_that_an_answer_names_is_not_used(url: str) -> None:
    assert own_url(url, "https://queue.fal.run/built") == "https://queue.fal.run/built"


@pytest.mark.parametrize("url", ODD_URLS[:4])
def test_an_odd_picture_url_is_refused_and_its_fault_named(url: str, box: Sandbox) -> None:
    with FalClient(key=KEY) as client, pytest.raises(errors.InvalidInput, match="it holds a"):
        client.remove_background(url)
    assert box.journal() == []


def test_blanks_in_a_picture_url_are_encoded(client: FalClient, box: Sandbox) -> None:
    client.any_llm_enterprise("What is it?", image_urls=["https://example.com/red mug (1).jpg?a=b c"])
    sent = box.ledger()["jobs"][-1]["input"]["image_urls"]
    assert sent == ["https://example.com/red%20mug%20(1).jpg?a=b%20c"]


@pytest.mark.parametrize(
    "url",
    [
        "http://v3.fal.media/files/x.png",
        "https://v3.fal.media:8443/files/x.png",
        "https://evil.example.org/x.png",
        "https://v3.fal.media.evil.org/x.png",
        "https://v3.fal.media@evil.org/x.png",
        "file:///etc/passwd",
        "ftp://v3.fal.media/x.png",
        "https://evil.example\\@v3.fal.media/x",
        "https://evil.example\\.v3.fal.media/x",
        "https://127.0.0.1\\@v3.fal.media/x",
        "https://v3.fal.media\\@evil.example/x",
        "https:\\\\v3.fal.media/x",
        "https://user:pass@v3.fal.media/x",
        "https://@v3.fal.media/x",
        "https://evil.example\t.v3.fal.media/x",
        "https://v3.fal.media\n/x",
        "https://v3.fal.media/x\r\nHost: evil.example",
        "https://v3.fal.media/\x00",
        "https://v3.fal.media /x",
        "https://evil.example／.fal.media/x",
        "https://ｖ3.fal.media/x",
        "https://v3。fal。media/x",
        "https://v3..fal.media/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1].fal.media/x",
        "https://v3.fal.media:443:443/x",
        "https://v3.fal.media:00000443/x",
        "https:/v3.fal.media/x",
        "https:///v3.fal.media/x",
        "https://evil.example%2f.fal.media/x",
        "https://evil.example%5c@v3.fal.media/x",
    ],
)
def test_a_download_from_elsewhere_is_refused_before_any_request(url: str, box: Sandbox, tmp_path: Path) -> None:
    with FalClient(key=KEY) as client, pytest.raises(errors.InvalidInput, match="FAL_DOWNLOAD_HOSTS"):
        client.save_picture(url, tmp_path, "x")
    assert box.journal() == []


def test_a_host_that_the_user_allows_is_downloaded_from(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_DOWNLOAD_HOSTS", "images.example.com")
    with FalClient(key=KEY) as client:
        path = client.save_picture("https://images.example.com/mug.jpg", tmp_path, "mug")
    assert path.read_bytes()[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("name", ["../../escape", "/etc/cron.d/x", "..", "a/b\\c", "\x00", "CON", "ş" * 300])
def test_no_name_leads_out_of_the_folder(name: str, box: Sandbox, photo_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with FalClient(key=KEY) as client:
        path = client.save_picture(photo_url, folder, name)
    assert path.resolve().parent == folder.resolve()
    assert [entry.name for entry in folder.iterdir()] == [path.name]


def test_two_downloads_of_one_name_at_once_leave_one_whole_file(box: Sandbox, photo_url: str, tmp_path: Path) -> None:
    with FalClient(key=KEY) as client:
        threads = [threading.Thread(target=client.save_picture, args=(photo_url, tmp_path, "x")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.jpg"]
    assert (tmp_path / "x.jpg").read_bytes() == box.file(photo_url)


# ---------------------------------------------------------------- a key that a peer echoes

ODD_KEY = 'planted"id\\with/odd+letters<&>:planted-secret\'73"x\\y'


def spellings(key: str) -> list[str]:
    """How a peer may write the key: every one of them says it."""
    return [
        key,
        json.dumps(key)[1:-1],
        json.dumps(json.dumps(key))[3:-3],
        "".join(f"\\u{ord(letter):04x}" for letter in key),
        repr(key)[1:-1],
        quote(key, safe=""),
        quote(key, safe="").lower(),
        html.escape(key),
        *(base64.b64encode(before + key.encode()).decode() for before in (b"", b"a", b"Key ", b"ab")),
        base64.urlsafe_b64encode(key.encode()).decode(),
    ]


def parts_of(key: str) -> list[str]:
    """Pieces of the key and its spellings that must not be seen, even where a text was cut."""
    found = [key[at : at + 10] for at in range(0, len(key) - 10, 5)]
    return [*found, base64.b64encode(key.encode()).decode()[4:20], quote(key, safe="")[:24]]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawHosts]:
    with raw_hosts(tmp_path, {}) as (hosts, pem):
        monkeypatch.setenv("HTTPS_PROXY", hosts.url)
        monkeypatch.setenv("SSL_CERT_FILE", pem)
        yield hosts


def assert_hidden(key: str, *shown: object) -> None:
    text = "\n".join(f"{one!r}\n{one}\n{json.dumps(one, default=str, ensure_ascii=False)}" for one in shown)
    assert not [part for part in parts_of(key) if part in text]


@pytest.mark.parametrize("key", [KEY, ODD_KEY], ids=["plain", "odd"])
@pytest.mark.parametrize("spelling", range(12))
@pytest.mark.parametrize("before", ["", "x" * 980])
def test_a_key_in_an_error_text_is_masked_before_the_text_is_cut(
    raw: RawHosts, key: str, spelling: int, before: str
) -> None:
    told = {"detail": f"{before} the key {spellings(key)[spelling]} is not known", "request_id": key}
    raw.scripts["queue.fal.run"] = answering(json.dumps(told).encode(), status="422 No")
    with FalClient(key=key, timeout=20) as client, pytest.raises(errors.ModelRejected) as caught:
        client.any_llm_submit("hi")
    error = caught.value
    assert_hidden(key, str(error), repr(error), error.request_id, error.detail, errors.report(error))


@pytest.mark.parametrize("key", [KEY, ODD_KEY], ids=["plain", "odd"])
def test_what_the_caller_passes_is_masked_before_it_is_cut(key: str, box: Sandbox, tmp_path: Path) -> None:
    shown = []
    with FalClient(key=key) as client:
        for before in ("x" * 180, "x" * 190, "x" * 80, "x" * 90):
            for action in (
                lambda text: client.remove_background(f"ftp://{text}"),
                lambda text: client.any_llm_submit("hi", webhook_url=f"ftp://{text}"),
                lambda text: client.save_picture(f"ftp://{text}", tmp_path, "x"),
                lambda text: client.generate_multiple_backgrounds("https://a.example/b", {"a": "b"}, styles=[text]),
            ):
                with pytest.raises(errors.InvalidInput) as caught:
                    action(before + key)
                shown.append(str(caught.value))
    assert_hidden(key, *shown)


def test_no_frame_holds_the_key_while_a_request_cannot_be_written(
    raw: RawHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of a request is in the frames that write it."""
    shown, plain_write = list[str](), SyncStream.write

    def write(self: Any, buffer: Any, timeout: float | None = None) -> None:
        if not isinstance(self._sock, ssl.SSLSocket):
            plain_write(self, buffer, timeout)
            return
        frame: Any = sys._getframe()
        while frame is not None:
            shown.extend(values_of(frame))
            frame = frame.f_back
        raise httpcore.WriteTimeout("nobody takes it")

    client = FalClient(key=KEY, timeout=20)

    def work() -> None:
        with contextlib.suppress(errors.FalError):
            client.any_llm_submit("hi")

    raw.scripts["queue.fal.run"] = answering(b"{}")
    monkeypatch.setattr(SyncStream, "write", write)
    # A thread of its own: the frames of the test hold the key.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    client.close()
    assert len(shown) > 20
    assert not [text for text in shown if HALVES[1] in text]


@pytest.mark.parametrize("key", [KEY, ODD_KEY], ids=["plain", "odd"])
def test_a_key_in_an_answer_is_masked_in_the_result_and_its_ids(raw: RawHosts, key: str) -> None:
    base = "https://queue.fal.run/openrouter/router/requests/abc"
    told = {"output": f"You are {key}.", "reasoning": key, "other": [{key: spellings(key)}], "usage": {"x": key}}
    escaped = json.dumps(told).replace("p", "\\u0070").encode()

    def script(connection: Any, head: str) -> None:
        method, path = head.split()[:2]
        header = f"X-Fal-Request-Id: {key}"
        if method == "POST":
            job = {"request_id": "abc", "response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/c"}
            connection.sendall(whole(json.dumps(job).encode(), header))
        elif path.endswith("/abc"):
            connection.sendall(whole(escaped, header))
        else:
            event = b'data: {"status": "COMPLETED"}\n\n'
            connection.sendall(whole(event, header, "Content-Type: text/event-stream"))

    raw.scripts["queue.fal.run"] = script
    with FalClient(key=key, timeout=20) as client:
        result = client.any_llm_complete("hi")
    assert result["error"] is None
    assert result["output"] == "You are ***."
    assert_hidden(key, result, result["raw"])


@pytest.mark.parametrize("key", [KEY, ODD_KEY, "a" * 32], ids=["plain", "odd", "one letter"])
def test_a_key_that_comes_in_two_deltas_is_masked(raw: RawHosts, key: str) -> None:
    text = f"You said {key}, and {key[:8]} again."
    outputs = [text[:end] for end in (*range(1, len(text), 3), len(text))]
    told = [{"output": output, "partial": output != text} for output in outputs]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    raw.scripts["fal.run"] = answering(body, "Content-Type: text/event-stream", f"X-Fal-Request-Id: {key}")
    with FalClient(key=key, timeout=20) as client:
        events = list(client.iter_any_llm("hi"))
    assert "".join(event["delta"] for event in events) == events[-1]["output"] == text.replace(key, "***")
    assert not [event for event in events if key[:12] in event["output"]]


@pytest.mark.parametrize("key", [KEY, ODD_KEY], ids=["plain", "odd"])
def test_masking_an_ordinary_answer_changes_nothing(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    redaction.remember(key)
    body = json.dumps({"a": 'ünicode \n \\ "quoted"', "b": [1.5, None, {"c": "planted"}]}).encode()
    assert redaction.redacted_body(body) == body
    assert redaction.settled("A whole text.") == "A whole text."


# ---------------------------------------------------------------- frames


def values_of(frame: Any) -> Iterator[str]:
    """What a traceback with the values of variables shows of one frame: as cgitb and rich write it."""
    for name, value in frame.f_locals.items():
        yield from (f"{name}: {text}" for text in texts_of(value, 3))


def texts_of(value: object, depth: int) -> Iterator[str]:
    with contextlib.suppress(Exception):
        yield repr(value)
    if depth == 0 or isinstance(value, type):
        return
    if isinstance(value, dict):
        for one in list(value.items()):
            yield from texts_of(one, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for one in list(value):
            yield from texts_of(one, depth - 1)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.repr:
                yield from texts_of(getattr(value, field.name, None), depth - 1)


ACTIONS: dict[str, Any] = {
    "submit": lambda client, photo: client.any_llm_submit("hi"),
    "long submit": lambda client, photo: client.any_llm_submit("x" * 200_000),
    "status": lambda client, photo: client.any_llm_status("abc"),
    "stream": lambda client, photo: list(client.iter_any_llm("hi")),
    "upload": lambda client, photo: client.upload_file(photo),
    "doctor": lambda client, photo: client.doctor(),
    "photokit": lambda client, photo: client.background_replace("https://a.example/b", prompt="x", remove_bg=False),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_no_frame_holds_the_key_while_a_request_is_on_its_way(
    raw: RawHosts, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    if name == "photokit":
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", "https://fal.run/own")
    arrived, go_on = threading.Event(), threading.Event()

    def wait(connection: Any, head: str) -> None:
        arrived.set()
        go_on.wait(20)
        raise ConnectionError("hang up")

    raw.scripts |= dict.fromkeys(("queue.fal.run", "fal.run", "rest.fal.ai", "v3.fal.media"), wait)
    caught: list[BaseException] = []

    def work(client: FalClient) -> None:
        try:
            ACTIONS[name](client, photo)
        except BaseException as error:
            caught.append(error)

    client = FalClient(key=KEY, timeout=20)
    thread = threading.Thread(target=work, args=(client,))
    thread.start()
    assert arrived.wait(20)
    frame = sys._current_frames()[thread.ident or 0]
    shown: list[Any] = []
    while frame is not None:
        shown += values_of(frame)
        frame = frame.f_back
    go_on.set()
    raw.close()
    thread.join()
    client.close()
    for error in caught:
        at: Any = error
        while at is not None:
            shown += [text for frame, _ in traceback.walk_tb(at.__traceback__) for text in values_of(frame)]
            at = at.__cause__ or at.__context__
    assert len(shown) > 20
    assert not [text for text in shown if HALVES[1] in text]
