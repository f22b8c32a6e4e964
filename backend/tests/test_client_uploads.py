"""Uploads through FalClient: the content type, the name, large files, and what happens when the storage fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal import image_files
from services.fal.errors import AuthError, BadOutput, DeadlineExceeded, FalUnavailable, InvalidInput
from services.fal_service import FalClient

MIB = 1024 * 1024
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
HEADS = {
    "image/jpeg": JPEG,
    "image/png": PNG,
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "image/gif": b"GIF89a\x01\x00\x01\x00",
    "image/bmp": b"BM\x3a\x00\x00\x00\x00\x00",
    "image/tiff": b"II*\x00\x08\x00\x00\x00",
    "image/avif": b"\x00\x00\x00\x20ftypavif\x00\x00",
    "image/heic": b"\x00\x00\x00\x20ftypheic\x00\x00",
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)


@pytest.fixture
def picture(tmp_path: Path) -> Any:
    path = tmp_path / "mug.png"
    path.write_bytes(PNG + b"pixels")
    return path


def rows(box: Sandbox, stage: Any) -> list[Any]:
    return [row for row in box.journal() if row["stage"] == stage]


def stages(box: Sandbox) -> list[Any]:
    return [row["stage"] for row in box.journal()]


@pytest.mark.parametrize("content_type", HEADS)
@pytest.mark.parametrize("name", ["photo.txt", "photo"])
def test_the_content_type_comes_from_the_content_and_not_from_the_name(
    box: Sandbox, client: FalClient, tmp_path: Path, content_type: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(HEADS[content_type] + b"and so on")
    url = client.upload_file(path)
    assert url.startswith("https://v3.fal.media/files/")
    assert box.file(url) == path.read_bytes()
    assert rows(box, "upload")[0]["headers"]["content-type"] == content_type


def boxes(major: Any, *compatible: Any) -> bytes:
    data = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return (len(data) + 4).to_bytes(4, "big") + data + b"\x00\x00\x00\x08meta"


MORE_HEADS = {
    **{
        f"HEIC {brand}": (boxes(brand.encode()), "image/heic")
        for brand in ("heic", "heix", "heim", "heis", "hevc", "hevx")
    },
    "HEIF of any codec": (boxes(b"mif1", b"miaf"), "image/heif"),
    "HEIF pictures of any codec": (boxes(b"msf1", b"iso8"), "image/heif"),
    "HEIC in HEIF": (boxes(b"mif1", b"miaf", b"heix"), "image/heic"),
    "HEIC of another maker": (boxes(b"MiHE", b"mif1", b"heic"), "image/heic"),
    "AVIF in HEIF": (boxes(b"mif1", b"avif"), "image/avif"),
    "moving AVIF": (boxes(b"avis", b"msf1"), "image/avif"),
    "BigTIFF": (b"II+\x00\x08\x00\x00\x00\x10\x00", "image/tiff"),
    "BigTIFF of the other order": (b"MM\x00+\x00\x08\x00\x00\x00\x00", "image/tiff"),
    "BMP": (b"BM\x36\x0c\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00", "image/bmp"),
}


@pytest.mark.parametrize("what", MORE_HEADS)
def test_rarer_kinds_of_pictures_are_recognised(box: Sandbox, client: FalClient, tmp_path: Path, what: Any) -> None:
    head, content_type = MORE_HEADS[what]
    (tmp_path / "photo").write_bytes(head)
    client.upload_file(tmp_path / "photo")
    assert rows(box, "upload")[0]["headers"]["content-type"] == content_type


NO_PICTURES = {
    "a table that begins with BM": b"BMI,age,weight\n22.1,40,70\n",
    "a short table": b"BM,1\n",
    "a text about GIF8": b"GIF8 is no format",
    "a film": boxes(b"isom", b"iso2", b"avc1", b"mp41"),
    "a film of an iPhone": boxes(b"qt  "),
    "a brand behind the end of its box": boxes(b"isom") + b"mif1heic",
    "a sound": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "text with WEBP in it": b"The new WEBP format",
}


@pytest.mark.parametrize("what", NO_PICTURES)
def test_what_only_begins_like_a_picture_is_refused(box: Sandbox, client: FalClient, tmp_path: Path, what: str) -> None:
    (tmp_path / "fotoğraf.png").write_bytes(NO_PICTURES[what])
    with pytest.raises(InvalidInput, match=r"fotoğraf\.png' is not a picture"):
        client.upload_file(tmp_path / "fotoğraf.png")
    assert box.journal() == []


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("mug.jpg", "mug.jpg"),
        ("ürün fotoğrafı.jpg", "urun_fotograf.jpg"),
        ("写真.jpg", "picture.jpg"),
        ("🍵", "picture"),
        ("- odd name -.PNG", "-_odd_name_-.PNG"),
        ("a\r\nX-Evil: 1.jpg", "a_X-Evil_1.jpg"),
        (".hidden", "hidden"),
        ("x" * 240 + ".jpg", "x" * 240 + ".jpg"),
    ],
)
def test_any_file_name_reaches_the_storage_as_plain_ascii(
    box: Sandbox, client: FalClient, tmp_path: Path, name: str, sent: str
) -> None:
    path = tmp_path / name
    path.write_bytes(JPEG + b"x")
    assert box.file(client.upload_file(str(path))) == path.read_bytes()
    [row] = rows(box, "upload")
    assert row["headers"]["x-fal-file-name"] == sent
    assert "x-evil" not in row["headers"]


def test_one_token_serves_every_upload_and_the_key_never_reaches_the_cdn(
    box: Sandbox, client: FalClient, picture: Any
) -> None:
    client.upload_file(picture)
    client.upload_file(picture)
    assert stages(box) == ["token", "upload", "upload"]
    assert [row["headers"]["authorization"] for row in box.journal()] == ["Key", "Bearer", "Bearer"]


def test_an_upload_costs_nothing_so_it_is_repeated_when_it_failed(
    box: Sandbox, client: FalClient, picture: Any
) -> None:
    box.fault("token", drop="after")
    box.fault("upload", status=500)
    box.fault("upload", drop="after")
    url = client.upload_file(picture)
    assert box.file(url) == picture.read_bytes()
    assert stages(box) == ["token", "token", "upload", "upload", "upload"]


def test_a_large_file_goes_up_in_parts_and_arrives_whole(box: Sandbox, client: FalClient, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    marks = {0: PNG, 10 * MIB - 2: b"seam", 55 * MIB: b"middle", 100 * MIB + 3: b"end"}
    with path.open("wb") as file:
        for offset, mark in marks.items():
            file.seek(offset)
            file.write(mark)
    box.fault("part", status=503)
    box.fault("part", drop="before")
    url = client.upload_file(path)
    data = box.file(url)
    assert len(data) == os.path.getsize(path) > 100 * MIB
    assert {offset: data[offset : offset + len(mark)] for offset, mark in marks.items()} == marks
    assert data.count(0) == len(data) - sum(len(mark) - mark.count(0) for mark in marks.values())
    assert (len(rows(box, "part")), len(rows(box, "complete"))) == (13, 1)
    assert {row["headers"]["authorization"] for row in box.journal() if row["host"] == "v3.fal.media"} == {"Bearer"}


def test_a_token_that_fal_gives_to_a_second_client_too_is_used_as_it_is(box: Sandbox, picture: Any) -> None:
    urls = []
    for _ in range(2):
        with FalClient() as client:
            urls.append(client.upload_file(picture))
    assert [box.file(url) for url in urls] == [picture.read_bytes()] * 2
    assert [(row["stage"], row["status"]) for row in box.journal()] == [("token", 200), ("upload", 200)] * 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: os.truncate(path, 15 * MIB), "became shorter"),
        (lambda path: path.unlink(), "cannot be read any more: No such file"),
    ],
    ids=["cut short", "removed"],
)
def test_a_large_file_that_changes_while_it_goes_up_is_an_error(
    box: Sandbox, client: FalClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(PNG)
    os.truncate(path, 101 * MIB)
    image = image_files.local_image(path)
    monkeypatch.setattr("services.fal_service.local_image", lambda _: image)
    change(path)
    with pytest.raises(InvalidInput, match=said):
        client.upload_file(path)
    assert rows(box, "complete") == []


# ---------------------------------------------------------------- the other way in


def test_when_the_cdn_fails_the_file_goes_to_the_bucket_and_the_key_does_not(
    box: Sandbox, client: FalClient, picture: Any
) -> None:
    box.fault("upload", status=500, times=None)
    url = client.upload_file(picture)
    assert box.file(url) == picture.read_bytes()
    [initiate], [put] = rows(box, "initiate"), rows(box, "put")
    assert initiate["headers"]["authorization"] == "Key"
    assert put["host"] == "storage.googleapis.com"
    assert put["headers"]["authorization"] is None
    assert put["headers"]["content-type"] == "image/png"


def test_a_bucket_that_redirects_does_not_get_the_file_followed_there(
    box: Sandbox, client: FalClient, picture: Any
) -> None:
    box.fault("upload", status=500, times=None)
    box.fault("put", redirect="https://example.com/steal")
    with pytest.raises(FalUnavailable) as caught:
        client.upload_file(picture)
    assert caught.value.retryable is False
    assert "example.com" not in [row["host"] for row in box.journal()]


@pytest.mark.parametrize("garbage", ["html", "truncated", "shape", "empty"])
def test_a_cdn_answer_without_a_url_is_no_upload(box: Sandbox, client: FalClient, picture: Any, garbage: str) -> None:
    box.fault("upload", garbage=garbage)
    assert box.file(client.upload_file(picture)) == picture.read_bytes()
    assert "put" in stages(box)


@pytest.mark.parametrize("answer", [{"access_url": None}, {"access_url": ["x"]}, {"access_url": "/files/x.png"}])
def test_what_is_no_url_is_never_returned_as_one(
    box: Sandbox, client: FalClient, picture: Any, answer: dict[str, Any]
) -> None:
    box.fault("upload", status=200, body=answer)
    with pytest.raises(BadOutput):
        client.upload_file(picture)


@pytest.mark.parametrize("garbage", ["html", "truncated", "shape", "empty"])
@pytest.mark.parametrize("stage", ["token", "initiate"])
def test_a_storage_answer_that_makes_no_sense_is_bad_output(
    box: Sandbox, client: FalClient, picture: Any, stage: str, garbage: str
) -> None:
    box.fault("upload", status=500, times=None)
    box.fault(stage, garbage=garbage)
    with pytest.raises(BadOutput):
        client.upload_file(picture)


def test_a_storage_that_is_down_everywhere_is_fal_unavailable(box: Sandbox, client: FalClient, picture: Any) -> None:
    box.fault("upload", status=500, times=None)
    box.fault("initiate", status=503, times=None)
    with pytest.raises(FalUnavailable) as caught:
        client.upload_file(picture)
    assert (caught.value.status_code, caught.value.retryable) == (503, True)


def test_a_refused_key_is_told_at_the_first_request(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, picture: Any
) -> None:
    with FalClient(key="bad:key-of-nobody") as client, pytest.raises(AuthError):
        client.upload_file(picture)
    assert stages(box) == ["token"]


def test_an_upload_ends_at_the_deadline_of_its_call(box: Sandbox, client: FalClient, picture: Any) -> None:
    box.fault("upload", delay=30, times=None)
    with pytest.raises(DeadlineExceeded):
        client.upload_file(picture, timeout=0.4)
    assert "initiate" not in stages(box)
