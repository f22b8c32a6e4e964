"""A photokit of the user's own: one POST to its https URL, never sent twice, and without the key."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from fal_sandbox.server import Sandbox
from services.fal.errors import (
    AmbiguousSubmit,
    AuthError,
    BadOutput,
    FalUnavailable,
    JobFailed,
    ModelRejected,
    RateLimited,
    Unreachable,
)
from services.fal_service import FalClient

CUTOUT, PHOTOKIT = "fal-ai/bria/background/remove", "bria/replace-background"
PHOTO = "https://example.com/red-mug.jpg"
CUT_OUT_URL = "https://v3.fal.media/files/b/cut.png"
IMAGE = {"url": "https://v3.fal.media/files/b/new.png", "width": 900, "height": 600, "content_type": "image/png"}


def jobs(box: Sandbox) -> list[Any]:
    return [(job["endpoint"], job["input"]) for job in box.ledger()["jobs"]]


def answers(box: Sandbox, endpoint: str, output: Any) -> None:
    """Let `endpoint` answer at once, without painting."""
    box.fault("job", endpoint=endpoint, output=output, times=None)


class Own(ThreadingHTTPServer):
    """An https server on this machine: what came in, and how it answers."""

    daemon_threads = True

    def __init__(self, authority: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(tls)
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.requests: list[Any] = []
        self.status, self.hang_up = 200, False
        self.body: Any = {"image": IMAGE}
        self.headers: dict[str, str] = {}
        self.url = f"https://localhost:{self.server_address[1]}/v1/replace"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller who does not trust us is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    server: Own

    def do_POST(self) -> None:
        own = self.server
        own.requests.append((self.path, self.headers, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        if own.hang_up:
            self.close_connection = True
            return
        body = own.body if isinstance(own.body, bytes) else json.dumps(own.body).encode()
        self.send_response(own.status)
        for name, value in {"Content-Length": str(len(body)), **own.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(authority: Any) -> Iterator[Any]:
    server = Own(authority)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def authority(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A CA that the client trusts beside the sandbox's."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "own.pem"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "localhost")
    return authority


@pytest.fixture
def own(authority: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with serving(authority) as server:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", server.url)
        yield server


@pytest.fixture
def own_client(own: Any) -> Iterator[FalClient]:
    with FalClient(timeout=60) as client:
        yield client


def replace(client: FalClient) -> Any:
    return client.background_replace(PHOTO, prompt="marble", remove_bg=False)


def test_ones_own_photokit_gets_the_options_of_a_call_and_nothing_that_is_meant_for_fal(own: Any) -> None:
    own.body = {"images": [IMAGE, {**IMAGE, "url": "https://v3.fal.media/files/b/2.png"}]}
    with FalClient(timeout=60, store_io=False, expires_in=60, queue_priority="low") as client:
        made = client.background_replace(
            PHOTO, prompt="marble", remove_bg=False, num_images=2, seed=3, image_size="square"
        )
    [(_, headers, given)] = own.requests
    assert given == {"image_url": PHOTO, "prompt": "marble", "num_images": 2, "seed": 3, "image_size": "square"}
    assert [name for name in headers if name.lower().startswith("x-fal")] == []
    assert [image["url"] for image in made["images"]] == [IMAGE["url"], "https://v3.fal.media/files/b/2.png"]


def test_ones_own_photokit_gets_one_json_post_without_the_key(box: Sandbox, own: Any, own_client: FalClient) -> None:
    answers(box, CUTOUT, {"image": {"url": CUT_OUT_URL}})
    result = own_client.background_replace(PHOTO, prompt="mermer masa")
    [(path, headers, given)] = own.requests
    assert (path, given) == ("/v1/replace", {"image_url": CUT_OUT_URL, "prompt": "mermer masa"})
    assert headers["Authorization"] is None
    assert "sandbox-key" not in str(headers)
    assert headers["Content-Type"] == "application/json"
    assert result["image"] == {**IMAGE, "file_size": None}
    assert set(result["timings"]) == {"cutout", "picture", "total"}
    assert [endpoint for endpoint, _ in jobs(box)] == [CUTOUT]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, {"detail": "down"}, AmbiguousSubmit),
        (504, b"too slow", AmbiguousSubmit),
        (409, b"", AmbiguousSubmit),
        (503, b"busy", FalUnavailable),
        (429, {"detail": "slow down"}, RateLimited),
        (401, {"detail": "who are you?"}, AuthError),
        (422, {"detail": "no"}, ModelRejected),
        (302, b"", FalUnavailable),
        (200, b"<html>", BadOutput),
        (200, {"image": None}, BadOutput),
        (200, {"error": "no product"}, JobFailed),
    ],
)
def test_a_failure_of_ones_own_photokit_is_told_and_not_sent_again(
    own: Any, own_client: FalClient, status: int, body: bytes | dict[str, Any], error: Any
) -> None:
    own.status, own.body = status, body
    own.headers = {"Retry-After": "0", "Location": "https://example.com/elsewhere"}
    with pytest.raises(error) as caught:
        replace(own_client)
    assert len(own.requests) == 1
    # What cannot be read may be the work all the same; a readable answer without a picture is none.
    assert caught.value.retryable is (status in (503, 429) or body == {"image": None})


def test_a_photokit_that_hangs_up_may_have_done_the_work_so_it_is_not_asked_again(
    own: Any, own_client: FalClient
) -> None:
    own.hang_up = True
    with pytest.raises(AmbiguousSubmit, match="localhost"):
        replace(own_client)
    assert len(own.requests) == 1


def test_a_photokit_that_is_not_there_was_never_reached(authority: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(authority) as server:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", server.url)
    with FalClient(timeout=60) as client, pytest.raises(Unreachable, match="localhost"):
        replace(client)


def test_a_photokit_with_a_certificate_that_is_not_trusted_gets_nothing(
    authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(trustme.CA()) as server:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", server.url)
        with FalClient(timeout=60) as client, pytest.raises(Unreachable):
            replace(client)
        assert server.requests == []


def test_a_photokit_url_at_fal_itself_gets_the_key(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(box, PHOTOKIT, {"image": IMAGE})
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", f"https://fal.run/{PHOTOKIT}")
    with FalClient() as client:
        assert replace(client)["image"]["url"] == IMAGE["url"]
    [row] = [row for row in box.journal() if row["method"] == "POST"]
    assert (row["host"], row["headers"]["authorization"]) == ("fal.run", "Key")
