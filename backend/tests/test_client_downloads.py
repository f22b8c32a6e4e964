"""Pictures saved by FalClient: from fal's hosts only, checked, whole or not at all, and never outside the folder."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import BadOutput, DeadlineExceeded, FalUnavailable, InvalidInput, NotFound, Unreachable
from services.fal_service import FalClient

MIB = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
PNG_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    return tmp_path / "out" / "pictures"


@pytest.fixture
def png_url(box: Sandbox) -> Any:
    return box.put_file(PNG, "scene.png", "image/png")


def everything_in(folder: Any) -> list[Any]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def test_a_picture_is_saved_byte_for_byte_in_a_folder_that_is_made_for_it(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any
) -> None:
    path = client.save_picture(png_url, folder, "studio")
    assert path == folder / "studio.png"
    assert path.read_bytes() == PNG
    assert everything_in(folder) == ["studio.png"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_key_does_not_go_along_with_a_download(box: Sandbox, client: FalClient, png_url: Any, folder: Any) -> None:
    client.save_picture(png_url, folder, "studio")
    [row] = box.journal()
    assert (row["stage"], row["headers"]["authorization"]) == ("download", None)


BEGINNINGS = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpg": b"\xff\xd8\xff\xe0",
    "webp": b"RIFF\x00\x01\x00\x00WEBPVP8 ",
    "gif": b"GIF89a",
    "avif": b"\x00\x00\x00\x20ftypavif",
}
LABELS = ["image/png", "application/octet-stream", "binary/octet-stream", "image/jpg", "text/html; charset=utf-8", ""]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_picture_is_known_by_its_first_bytes_whatever_its_label(
    box: Sandbox, client: FalClient, folder: Any, kind: str, label: str
) -> None:
    data = BEGINNINGS[kind] + bytes(500)
    url = box.put_file(data, "no-extension", label)
    path = client.save_picture(url, folder, "p")
    assert path.name == f"p.{kind}"
    assert path.read_bytes() == data


def test_a_web_page_that_is_labelled_a_picture_is_refused_and_not_asked_for_again(
    box: Sandbox, client: FalClient, folder: Any
) -> None:
    url = box.put_file(b"<!doctype html><title>Sign in</title>", "x.png", "image/png")
    with pytest.raises(BadOutput, match="a web page") as caught:
        client.save_picture(url, folder, "x")
    assert caught.value.retryable is False
    assert len(box.journal()) == 1
    assert everything_in(folder) == []


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("../../../etc/passwd", "etc-passwd.png"),
        ("/absolute", "absolute.png"),
        ("a/b\\c", "a-b-c.png"),
        ("..", "picture.png"),
        ("", "picture.png"),
        ("Doğal Işık", "Doğal Işık.png"),
        ("SKU_0042-A", "SKU_0042-A.png"),
        ("SKU 0042.v2", "SKU 0042.v2.png"),
        ("nul\0byte\nline", "nul-byte-line.png"),
        ("n" * 300, "n" * 80 + ".png"),
    ],
)
def test_no_name_leads_out_of_the_folder(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any, tmp_path: Path, name: str, file_name: str
) -> None:
    before = everything_in(tmp_path)
    path = client.save_picture(png_url, folder, name)
    assert path == folder / file_name
    assert sorted({*everything_in(tmp_path)} - {*before}) == sorted(["out", "pictures", file_name])


def test_a_data_uri_is_saved_without_any_request(box: Sandbox, client: FalClient, folder: Any) -> None:
    assert client.save_picture(PNG_URI, folder, "inline").read_bytes() == PNG
    assert box.journal() == []


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "url",
    [
        "http://v3.fal.media/files/x.png",
        "https://example.com/mug.jpg",
        "https://v3.fal.media.evil.example/x.png",
        "https://evilfal.media/x.png",
        "https://v3.fal.media@evil.example/x.png",
        "https://evil.example#.fal.media/x.png",
        "https://v3.fal.media:8443/x.png",
        "https://v3.fal.media:port/x.png",
        "https://127.0.0.1/x.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1",
        "https:///x.png",
        "ftp://v3.fal.media/x.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "",
    ],
)
def test_only_fals_own_https_hosts_are_downloaded_from(box: Sandbox, client: FalClient, folder: Any, url: str) -> None:
    with pytest.raises(InvalidInput):
        client.save_picture(url, folder, "x")
    assert box.journal() == []
    assert everything_in(folder) == []


def test_a_fal_host_that_means_a_private_address_here_is_refused(
    client: FalClient, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name)
    inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: inside)
    with pytest.raises(InvalidInput, match=r"10\.0\.0\.7"):
        client.save_picture("https://v3.fal.media/files/x.png", folder, "x")


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/json", "image/svg+xml", ""])
def test_what_is_no_picture_is_refused(box: Sandbox, client: FalClient, folder: Any, content_type: str) -> None:
    url = box.put_file(b"<html>Your file is gone</html>", "x.png", "text/plain")
    box.fault("download", status=200, body="<html>", content_type=content_type or "application/octet-stream")
    with pytest.raises(BadOutput):
        client.save_picture(url, folder, "x")
    assert everything_in(folder) == []


@pytest.mark.parametrize(
    "uri",
    [
        "data:text/html;base64,PGh0bWw+",
        "data:image/png;base64,AAA",
        "data:image/png;base64,ü",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:,hello",
    ],
)
def test_a_data_uri_that_holds_no_picture_is_refused(client: FalClient, folder: Any, uri: str) -> None:
    with pytest.raises(BadOutput):
        client.save_picture(uri, folder, "x")
    assert everything_in(folder) == []


def test_an_empty_file_is_no_picture(box: Sandbox, client: FalClient, folder: Any) -> None:
    with pytest.raises(BadOutput):
        client.save_picture(box.put_file(b"", "x.png", "image/png"), folder, "x")
    assert everything_in(folder) == []


def test_more_than_fifty_mebibytes_are_refused_and_leave_nothing(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any
) -> None:
    box.fault("download", size=50 * MIB + 1, content_type="image/png")
    with pytest.raises(BadOutput, match="50 MiB") as caught:
        client.save_picture(png_url, folder, "x")
    assert caught.value.retryable is False
    assert everything_in(folder) == []
    assert len(box.journal()) == 1


def test_a_redirect_is_not_followed(box: Sandbox, client: FalClient, png_url: Any, folder: Any) -> None:
    box.fault("download", redirect="https://example.com/mug.jpg")
    with pytest.raises(FalUnavailable) as caught:
        client.save_picture(png_url, folder, "x")
    assert caught.value.retryable is False
    assert [row["host"] for row in box.journal()] == ["v3.fal.media"]


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize(
    "trouble",
    [{"drop": "half"}, {"drop": "before"}, {"drop": "after"}, {"drop": "connect"}, {"status": 500}, {"status": 503}],
)
def test_a_download_that_failed_is_repeated_until_it_is_whole(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any, trouble: dict[str, Any]
) -> None:
    box.fault("download", times=2, **trouble)
    assert client.save_picture(png_url, folder, "x").read_bytes() == PNG
    assert everything_in(folder) == ["x.png"]


@pytest.mark.parametrize("encoding", ["aws-chunked", "none", "identity, aws-chunked", ""])
def test_an_encoding_that_packs_nothing_keeps_no_picture_back(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any, encoding: str
) -> None:
    box.fault("download", headers={"Content-Encoding": encoding})
    assert client.save_picture(png_url, folder, "x").read_bytes() == PNG


def test_an_encoding_that_was_not_requested_is_named(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any
) -> None:
    box.fault("download", headers={"Content-Encoding": "deflate, aws-chunked"})
    with pytest.raises(BadOutput, match="'deflate'"):
        client.save_picture(png_url, folder, "x")


def test_a_download_that_breaks_off_every_time_leaves_nothing(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any
) -> None:
    box.fault("download", drop="half", times=None)
    with pytest.raises(Unreachable):
        client.save_picture(png_url, folder, "x")
    assert everything_in(folder) == []
    assert len(box.journal()) == 5


def test_a_failed_download_leaves_the_picture_that_was_there(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any
) -> None:
    folder.mkdir(parents=True)
    (folder / "x.png").write_bytes(b"the old one")
    box.fault("download", drop="half", times=None)
    with pytest.raises(Unreachable):
        client.save_picture(png_url, folder, "x")
    assert (folder / "x.png").read_bytes() == b"the old one"
    assert everything_in(folder) == ["x.png"]


def test_an_expired_picture_is_not_found_and_not_asked_for_twice(box: Sandbox, client: FalClient, folder: Any) -> None:
    with pytest.raises(NotFound):
        client.save_picture("https://v3.fal.media/files/gone.png", folder, "x")
    assert len(box.journal()) == 1
    assert everything_in(folder) == []


def test_a_silent_download_ends_at_the_deadline_and_leaves_nothing(
    box: Sandbox, client: FalClient, png_url: Any, folder: Any
) -> None:
    box.fault("download", silent=30, headers_first=True, times=None)
    with pytest.raises(DeadlineExceeded):
        client.save_picture(png_url, folder, "x", timeout=0.4)
    assert everything_in(folder) == []


def test_a_folder_that_cannot_be_written_to_is_told_as_such(
    box: Sandbox, client: FalClient, png_url: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="file"):
        client.save_picture(png_url, tmp_path / "file", "x")
