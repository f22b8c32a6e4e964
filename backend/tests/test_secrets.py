"""The key goes to fal's own hosts and nowhere else: not to other hosts, not along redirects, not into what is shown.

The whole fault matrix checks its output for the key too (test_faults.py).
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import COFFEE
from sandbox.server import Sandbox
from services.fal import errors
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
        shown = [repr(client), str(client), repr(client._settings), repr(client.__dict__), repr(client._core.__dict__)]
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
    from services.fal.stderr_log import logger

    monkeypatch.setenv("FAL_LOG", "debug")
    with FalClient(key=KEY):
        logger.warning("GET %s", "https://v3.fal.media/files/a.png?X-Signature=abcdef&Expires=9")
    err = capfd.readouterr().err
    assert "https://v3.fal.media/files/a.png?…" in err
    assert "abcdef" not in err


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("127.0.0.1", False), ("10.1.2.3", False), ("169.254.169.254", False), ("::1", False), ("fe80::1%eth0", False)],
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
