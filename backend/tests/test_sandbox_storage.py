"""The sandbox's storage: tokens, uploads in one piece and in parts, downloads."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import wire
from fal_sandbox.files import Files
from fal_sandbox.server import Sandbox
from wire import CDN, KEY, REST, client_of, token_of

box = wire.box
web = wire.web


def test_the_upload_token_says_when_it_ends_with_an_offset(web: httpx.Client) -> None:
    token = web.post(REST + "storage/auth/token?storage_type=fal-cdn-v3", json={}).json()
    assert set(token) == {"token", "token_type", "base_url", "expires_at"}
    assert (token["token_type"], token["base_url"]) == ("Bearer", "https://v3.fal.media")
    assert token["expires_at"].endswith("+00:00")


def test_the_cdn_takes_only_its_own_token(web: httpx.Client) -> None:
    for headers in ({}, {"Authorization": "Bearer other"}, KEY):
        reply = web.post(CDN + "files/upload", content=b"x", headers=headers)
        assert reply.status_code == 401
    assert web.post(CDN + "files/upload", content=b"x", headers=token_of(web)).status_code == 200


def test_a_token_outlives_a_reset(box: Sandbox, web: httpx.Client) -> None:
    token = token_of(web)
    box.reset()
    assert web.post(CDN + "files/upload", content=b"x", headers=token).status_code == 200


def test_parts_may_come_in_any_order(box: Sandbox, web: httpx.Client) -> None:
    begun, base = begin_parts(web)
    etags = {number: put_part(web, base, number, data) for number, data in ((2, b"two"), (1, b"one"), (3, b"!"))}
    listed = [{"partNumber": number, "etag": etag} for number, etag in etags.items()]
    assert web.post(base + "/complete", json={"parts": listed}, headers=token_of(web)).status_code == 200
    assert box.file(begun["access_url"]) == b"onetwo!"


@pytest.mark.parametrize(
    "listed",
    [
        lambda etags: [{"partNumber": 1, "etag": etags[1]}],
        lambda etags: [{"partNumber": 1, "etag": etags[2]}, {"partNumber": 2, "etag": etags[1]}],
        lambda etags: [{"partNumber": number, "etag": etags.get(number, "?")} for number in (1, 2, 3)],
        lambda etags: [],
        lambda etags: [{"number": 1}],
        lambda etags: None,
    ],
)
def test_a_wrong_list_of_parts_is_a_400_and_no_file(box: Sandbox, web: httpx.Client, listed: Any) -> None:
    begun, base = begin_parts(web)
    etags = {number: put_part(web, base, number, b"x" * number) for number in (1, 2)}
    reply = web.post(base + "/complete", json={"parts": listed(etags)}, headers=token_of(web))
    assert reply.status_code == 400
    assert web.get(begun["access_url"]).status_code == 404


def begin_parts(web: httpx.Client) -> tuple[Any, ...]:
    headers = {**token_of(web), "X-Fal-File-Name": "parts.bin"}
    begun = web.post(CDN + "files/upload/multipart", headers=headers).json()
    return begun, f"{begun['access_url']}/multipart/{begun['uploadId']}"


def put_part(web: httpx.Client, base: Any, number: Any, data: Any) -> Any:
    reply = web.put(f"{base}/{number}", content=data, headers=token_of(web))
    assert reply.headers["etag"] == reply.json()["etag"]
    return reply.headers["etag"]


def test_parts_of_an_unknown_upload_are_not_found(web: httpx.Client) -> None:
    assert web.put(CDN + "files/x/multipart/nope/1", content=b"x", headers=token_of(web)).status_code == 404


@pytest.mark.parametrize(("kind", "host"), [("gcs", "storage.googleapis.com"), ("fal-cdn-v3", "v3.fal.media")])
def test_an_initiated_upload_is_put_without_a_key(box: Sandbox, web: httpx.Client, kind: str, host: str) -> None:
    asked = {"file_name": "bir görsel.png", "content_type": "image/png"}
    urls = web.post(REST + f"storage/upload/initiate?storage_type={kind}", json=asked).json()
    web.headers.pop("Authorization")
    assert web.get(urls["file_url"]).status_code == 404
    assert urlsplit(urls["upload_url"]).hostname == host
    assert web.put(urls["upload_url"], content=b"data", headers={"Content-Type": "image/png"}).status_code == 200
    reply = web.get(urls["file_url"])
    assert (reply.content, reply.headers["content-type"]) == (b"data", "image/png")
    assert box.journal()[-2]["headers"]["authorization"] is None


def test_an_initiated_upload_in_parts_works_as_fal_js_does_it(box: Sandbox, web: httpx.Client) -> None:
    urls = web.post(REST + "storage/upload/initiate-multipart", json={"file_name": "a.bin"}).json()
    web.headers.pop("Authorization")
    base, _, query = urls["upload_url"].partition("?")
    parts = [web.put(f"{base}/{number}?{query}", content=b"%d" % number).json() for number in (1, 2)]
    assert web.post(f"{base}/complete?{query}", json={"parts": parts}).status_code == 200
    assert box.file(urls["file_url"]) == b"12"


def test_initiating_without_a_name_is_a_422(web: httpx.Client) -> None:
    assert web.post(REST + "storage/upload/initiate?storage_type=gcs", json={}).status_code == 422


def test_a_put_to_an_unknown_presigned_url_is_not_found(web: httpx.Client) -> None:
    assert web.put("https://storage.googleapis.com/sandbox-uploads/x/y", content=b"x").status_code == 404


def test_a_file_downloads_without_a_key_with_its_type_size_and_tag(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(b"0123456789", "digits.txt", "text/plain")
    web.headers.pop("Authorization")
    reply, head = web.get(url), web.head(url)
    assert reply.content == b"0123456789"
    assert head.content == b""
    for headers in (reply.headers, head.headers):
        assert (headers["content-type"], headers["content-length"]) == ("text/plain", "10")
        assert headers["etag"]
    old = url.replace("v3.fal.media", "v3b.fal.media")
    assert web.get(old).content == b"0123456789"


@pytest.mark.parametrize(
    ("asked", "status", "data", "where"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
    ],
)
def test_a_range_of_a_file_is_sent_alone(
    box: Sandbox, web: httpx.Client, asked: str, status: int, data: bytes, where: str
) -> None:
    url = box.put_file(b"0123456789", "digits.txt", "text/plain")
    reply = web.get(url, headers={"Range": asked})
    assert (reply.status_code, reply.content, reply.headers["content-range"]) == (status, data, where)


def test_a_caller_who_leaves_a_download_is_noticed(box: Sandbox, web: httpx.Client) -> None:
    url = box.put_file(bytes(100_000_000), "large.bin", "image/png")
    with client_of(box) as other, other.stream("GET", url) as reply:
        next(reply.iter_raw())
    box.wait_for(lambda _: box.journal()[0]["note"] == "caller gone")


def test_the_oldest_files_go_when_there_are_too_many_bytes(box: Sandbox) -> None:
    import random

    files = Files(random.Random(0), limit_bytes=25)
    first, second, third = (files.keep([b"x" * 10], name, "a/b") for name in ("1", "2", "3"))
    kept = [files.find(urlsplit(url).path) is not None for url in (first, second, third)]
    assert kept == [False, True, True]
