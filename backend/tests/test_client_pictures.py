"""Pictures through FalClient: the cut-out, the photokit in all its forms, and a photokit of the user's own."""

from __future__ import annotations

import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import trustme

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
SHAPE = {"url", "width", "height", "content_type", "file_size"}


def jobs(box):
    return [(job["endpoint"], job["input"]) for job in box.ledger()["jobs"]]


def answers(box, endpoint, output):
    """Let `endpoint` answer at once, without painting."""
    box.fault("job", endpoint=endpoint, output=output, times=None)


def decoded(box, url):
    return cv2.imdecode(np.frombuffer(box.file(url), np.uint8), cv2.IMREAD_UNCHANGED)


# ---------------------------------------------------------------- real pictures


def test_remove_background_gives_a_png_that_is_transparent_around_the_product(box, client, photo_url):
    result = client.remove_background(photo_url)
    assert set(result["image"]) == SHAPE
    assert (result["image"]["width"], result["image"]["height"]) == (240, 160)
    assert result["image"]["content_type"] == "image/png"
    assert result["image"]["file_size"] == len(box.file(result["image"]["url"]))
    alpha = decoded(box, result["image"]["url"])[:, :, 3]
    assert (alpha[0, 0], alpha[-1, -1]) == (0, 0)
    assert alpha.max() == 255
    assert set(result["timings"]) == {"cutout", "total", "inference_time"}
    assert result["timings"]["total"] >= result["timings"]["cutout"] > 0
    assert jobs(box) == [(CUTOUT, {"image_url": photo_url})]
    assert result["request_id"] == box.ledger()["jobs"][0]["request_id"]
    assert result["billable_units"] == 1


def test_background_replace_cuts_the_product_out_and_gives_the_cut_out_to_the_photokit(box, client, photo_url):
    result = client.background_replace(photo_url, prompt="cozy scandinavian living room, warm tones")
    (first, cut_input), (second, input_) = jobs(box)
    assert (first, cut_input) == (CUTOUT, {"image_url": photo_url})
    assert (second, set(input_)) == (PHOTOKIT, {"image_url", "prompt"})
    assert input_["prompt"] == "cozy scandinavian living room, warm tones"
    assert decoded(box, input_["image_url"]).shape[2] == 4
    assert set(result) == {"image", "timings", "request_id", "billable_units"}
    assert set(result["image"]) == SHAPE
    assert decoded(box, result["image"]["url"]).shape[:2] == (result["image"]["height"], result["image"]["width"])
    assert set(result["timings"]) == {"cutout", "picture", "total", "inference_time"}
    assert result["request_id"] == box.ledger()["jobs"][1]["request_id"]


# ---------------------------------------------------------------- what is sent, and answers of every shape


def test_without_remove_bg_the_photo_goes_to_the_photokit_as_it_is(box, client):
    answers(box, PHOTOKIT, {"image": IMAGE})
    result = client.background_replace(PHOTO, prompt="marble", remove_bg=False)
    assert jobs(box) == [(PHOTOKIT, {"image_url": PHOTO, "prompt": "marble"})]
    assert set(result["timings"]) == {"picture", "total", "inference_time"}


@pytest.mark.parametrize(
    ("output", "url", "width"),
    [
        pytest.param({"image": IMAGE}, IMAGE["url"], 900, id="image"),
        pytest.param({"images": [IMAGE, {"url": "https://v3.fal.media/2.png"}]}, IMAGE["url"], 900, id="images"),
        pytest.param({"image": None, "images": [IMAGE]}, IMAGE["url"], 900, id="image null"),
        pytest.param({"image": {"url": "https://x/1.png"}, "images": [IMAGE]}, "https://x/1.png", None, id="both"),
        pytest.param(
            {"image": {"url": "data:image/png;base64,AAAA"}}, "data:image/png;base64,AAAA", None, id="data URI"
        ),
    ],
)
def test_a_picture_is_found_wherever_an_endpoint_puts_it(box, client, output, url, width):
    answers(box, PHOTOKIT, output)
    image = client.background_replace(PHOTO, prompt="marble", remove_bg=False)["image"]
    assert (image["url"], image["width"], set(image)) == (url, width, SHAPE)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ({}, BadOutput),
        ({"images": []}, BadOutput),
        ({"image": "https://v3.fal.media/1.png"}, BadOutput),
        ({"image": {"url": None}}, BadOutput),
        ({"image": {"url": "file:///etc/passwd"}}, BadOutput),
        ({"images": [None]}, BadOutput),
        ({"images": {"0": IMAGE}}, BadOutput),
        ({"image": IMAGE, "error": "NSFW"}, JobFailed),
    ],
)
@pytest.mark.parametrize("endpoint", [CUTOUT, PHOTOKIT])
def test_an_answer_without_a_picture_raises_and_names_the_job(box, client, endpoint, output, error):
    answers(box, endpoint, output)
    answers(box, CUTOUT, {"image": IMAGE})
    with pytest.raises(error) as caught:
        client.background_replace(PHOTO, prompt="marble")
    assert caught.value.request_id == box.ledger()["jobs"][-1]["request_id"]
    assert jobs(box)[-1][0] == endpoint


def test_when_the_cut_out_fails_no_picture_is_paid_for(box, client):
    with pytest.raises(ModelRejected) as caught:
        client.background_replace("https://elsewhere.example.net/x.jpg", prompt="marble")
    assert caught.value.detail[0]["type"] == "file_download_error"
    assert [endpoint for endpoint, _ in jobs(box)] == [CUTOUT]


@pytest.mark.parametrize(
    ("endpoint", "field", "value", "output"),
    [
        ("fal-ai/bria/background/replace", "image_url", CUT_OUT_URL, {"images": [IMAGE]}),
        ("fal-ai/nano-banana/edit", "image_urls", [CUT_OUT_URL], {"images": [IMAGE], "description": ""}),
        ("fal-ai/nano-banana-2/edit", "image_urls", [CUT_OUT_URL], {"images": [IMAGE], "description": ""}),
        ("fal-ai/somebody/new", "image_url", CUT_OUT_URL, {"image": IMAGE}),
    ],
)
def test_a_photokit_set_by_hand_gets_the_image_under_the_name_it_knows(
    box, monkeypatch, endpoint, field, value, output
):
    box.configure(any_endpoint=True)
    answers(box, CUTOUT, {"image": {"url": CUT_OUT_URL}})
    answers(box, endpoint, output)
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", endpoint)
    with FalClient() as client:
        result = client.background_replace(PHOTO, prompt="marble")
    assert jobs(box)[1] == (endpoint, {field: value, "prompt": "marble"})
    assert result["image"]["url"] == IMAGE["url"]


def test_a_cut_out_endpoint_set_by_hand_is_used(box, monkeypatch):
    answers(box, "fal-ai/birefnet/v2", {"image": {"url": CUT_OUT_URL}})
    monkeypatch.setenv("FAL_CUTOUT_ENDPOINT", "fal-ai/birefnet/v2")
    with FalClient() as client:
        assert client.remove_background(PHOTO)["image"]["url"] == CUT_OUT_URL
    assert jobs(box) == [("fal-ai/birefnet/v2", {"image_url": PHOTO})]


# ---------------------------------------------------------------- a photokit of the user's own


class Own(ThreadingHTTPServer):
    """An https server on this machine: what came in, and how it answers."""

    daemon_threads = True

    def __init__(self, authority):
        super().__init__(("127.0.0.1", 0), _Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(tls)
        self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.requests = []
        self.status, self.body, self.headers, self.hang_up = 200, {"image": IMAGE}, {}, False
        self.url = f"https://localhost:{self.server_address[1]}/v1/replace"

    def handle_error(self, request, client_address):
        """A caller who does not trust us is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
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

    def log_message(self, *args):
        pass


@contextmanager
def serving(authority):
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
def authority(box, tmp_path, monkeypatch):
    """A CA that the client trusts beside the sandbox's."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "own.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "own.pem"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "localhost")
    return authority


@pytest.fixture
def own(authority, monkeypatch):
    with serving(authority) as server:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", server.url)
        yield server


@pytest.fixture
def own_client(own):
    with FalClient(timeout=10) as client:
        yield client


def replace(client):
    return client.background_replace(PHOTO, prompt="marble", remove_bg=False)


def test_ones_own_photokit_gets_one_json_post_without_the_key(box, own, own_client):
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
        (500, {"detail": "down"}, FalUnavailable),
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
def test_a_failure_of_ones_own_photokit_is_told_and_not_sent_again(own, own_client, status, body, error):
    own.status, own.body = status, body
    own.headers = {"Retry-After": "0", "Location": "https://example.com/elsewhere"}
    with pytest.raises(error):
        replace(own_client)
    assert len(own.requests) == 1


def test_a_photokit_that_hangs_up_may_have_done_the_work_so_it_is_not_asked_again(own, own_client):
    own.hang_up = True
    with pytest.raises(AmbiguousSubmit, match="localhost"):
        replace(own_client)
    assert len(own.requests) == 1


def test_a_photokit_that_is_not_there_was_never_reached(authority, monkeypatch):
    with serving(authority) as server:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", server.url)
    with FalClient(timeout=10) as client, pytest.raises(Unreachable, match="localhost"):
        replace(client)


def test_a_photokit_with_a_certificate_that_is_not_trusted_gets_nothing(authority, monkeypatch):
    with serving(trustme.CA()) as server:
        monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", server.url)
        with FalClient(timeout=10) as client, pytest.raises(Unreachable):
            replace(client)
        assert server.requests == []


def test_a_photokit_url_at_fal_itself_gets_the_key(box, monkeypatch):
    answers(box, PHOTOKIT, {"image": IMAGE})
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", f"https://fal.run/{PHOTOKIT}")
    with FalClient() as client:
        assert replace(client)["image"]["url"] == IMAGE["url"]
    [row] = [row for row in box.journal() if row["method"] == "POST"]
    assert (row["host"], row["headers"]["authorization"]) == ("fal.run", "Key")
