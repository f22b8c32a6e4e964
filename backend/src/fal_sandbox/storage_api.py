"""rest.fal.ai's uploads, the CDN and the presigned bucket over HTTP.

As documented at https://fal.ai/docs/documentation/model-apis/fal-cdn and
https://fal.ai/docs/documentation/model-apis/media-expiration; where that is silent, as fal-client 1.0.3 and fal-js use
it (https://github.com/fal-ai/fal-js/blob/main/libs/client/src/storage.ts).

Which bytes are kept how long is files' business. Downloads need no key.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

from fal_sandbox.files import Kept, Upload, UploadError, url_of
from fal_sandbox.host_names import BUCKET_HOST, CDN_HOST
from fal_sandbox.inputs import sample as sample_photo
from fal_sandbox.keys import check_key, check_upload_token
from fal_sandbox.replies import Refusal, Reply, detail, json_reply, not_served, usual
from fal_sandbox.wire_request import WireRequest

TOKEN_LIFE = timedelta(hours=1)

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def token(call: WireRequest) -> Reply:
    check_key(call)
    return json_reply(
        {
            "token": call.state.upload_token,
            "token_type": "Bearer",
            "base_url": f"https://{CDN_HOST}",
            "expires_at": (datetime.now(timezone.utc) + TOKEN_LIFE).isoformat(),
        }
    )


async def realtime_token(call: WireRequest) -> Reply:
    """rest.fal.ai/tokens/ gives browsers a token for realtime, which is not served either."""
    return not_served("tokens for realtime and browsers (rest.fal.ai/tokens/)")


async def initiate(call: WireRequest) -> Reply:
    """A URL to PUT the bytes to: in the bucket for `gcs`, else at the CDN."""
    upload_id, upload = _begin(call)
    if call.query.get("storage_type") == "gcs":
        url = f"https://{BUCKET_HOST}/sandbox-uploads/{upload_id}/{quote(upload.name)}?X-Goog-Signature=sandbox"
    else:
        url = f"{url_of(upload.path)}?upload={upload_id}&signature={call.state.upload_token}"
    return json_reply({"upload_url": url, "file_url": url_of(upload.path)})


async def initiate_multipart(call: WireRequest) -> Reply:
    """As fal-js asks for it: the URL carries its signature, parts go to `{upload_url}/{n}`."""
    upload_id, upload = _begin(call)
    url = f"{url_of(upload.path)}/multipart/{upload_id}?signature={call.state.upload_token}"
    return json_reply({"upload_url": url, "file_url": url_of(upload.path)})


async def upload(call: WireRequest) -> Reply:
    check_upload_token(call)
    url = call.state.files.keep(call.chunks, _file_name(call), _content_type(call))
    call.state.changed.ring()
    return json_reply({"access_url": url})


async def multipart(call: WireRequest) -> Reply:
    check_upload_token(call)
    upload_id, begun = call.state.files.begin(_file_name(call), _content_type(call))
    return json_reply({"access_url": url_of(begun.path), "uploadId": upload_id})


async def part(call: WireRequest) -> Reply:
    check_upload_token(call)
    number = int(call.params["number"])
    etag = call.state.files.add_part(_upload(call, call.params["upload"]), number, call.chunks)
    answer = json_reply({"partNumber": number, "etag": etag})
    answer.headers["ETag"] = etag
    return answer


async def complete(call: WireRequest) -> Reply:
    check_upload_token(call)
    _upload(call, call.params["upload"])
    try:
        listed = {int(entry["partNumber"]): str(entry["etag"]) for entry in call.json_body()["parts"]}
        url = call.state.files.complete(call.params["upload"], listed)
    except UploadError as error:
        return detail(400, str(error))
    except (ValueError, KeyError, TypeError):
        return detail(400, 'The body must be {"parts": [{"partNumber": …, "etag": …}]}')
    call.state.changed.ring()
    return json_reply({"access_url": url})


async def put_bucket(call: WireRequest) -> Reply:
    """The presigned upload at the storage host; the URL alone is the right to it."""
    _upload(call, call.params["upload"])
    return _put(call, call.params["upload"])


async def put_cdn(call: WireRequest) -> Reply:
    check_upload_token(call)
    _upload(call, call.query.get("upload", ""))
    return _put(call, call.query["upload"])


async def download(call: WireRequest) -> Reply:
    if (kept := call.state.files.find(call.path)) is None:
        return usual(404)
    return _sent(call, kept)


async def sample(call: WireRequest) -> Reply:
    """A photo from a sample host, whatever its path."""
    data = await sample_photo(call.state, call.path)
    return _sent(call, Kept("sample.jpg", "image/jpeg", (data,), len(data), f'"sample-{len(data)}"'))


async def jwks(call: WireRequest) -> Reply:
    return json_reply(call.state.webhooks.jwks())


def _begin(call: WireRequest) -> tuple[str, Upload]:
    check_key(call)
    try:
        asked: Any = call.json_body()
        name, content_type = (
            str(asked["file_name"]),
            str(asked.get("content_type") or "application/octet-stream"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        wrong = {"loc": ["body", "file_name"], "msg": "Field required", "type": "missing"}
        raise Refusal(detail(422, [wrong])) from None
    return call.state.files.begin(name, content_type)


def _upload(call: WireRequest, upload_id: str) -> Upload:
    if (begun := call.state.files.upload(upload_id)) is None:
        raise Refusal(detail(404, "Upload not found"))
    return begun


def _put(call: WireRequest, upload_id: str) -> Reply:
    call.state.files.fill(upload_id, call.chunks)
    call.state.changed.ring()
    return Reply(200, b"", "text/plain")


def _file_name(call: WireRequest) -> str:
    return call.headers.get("X-Fal-File-Name") or "upload.bin"


def _content_type(call: WireRequest) -> str:
    return call.headers.get("Content-Type") or "application/octet-stream"


def _sent(call: WireRequest, kept: Kept) -> Reply:
    """The file, or the one range of it that was asked for."""
    headers = {"ETag": kept.etag, "Accept-Ranges": "bytes"}
    asked = _RANGE.fullmatch(call.headers.get("Range", ""))
    if asked is None or asked.group() == "bytes=-":
        return Reply(200, kept.chunks, kept.content_type, headers)
    first, last = _bounds(asked, kept.size)
    if first > last:
        return Reply(416, b"", kept.content_type, {**headers, "Content-Range": f"bytes */{kept.size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{kept.size}"
    return Reply(206, kept.data[first : last + 1], kept.content_type, headers)


def _bounds(asked: re.Match[str], size: int) -> tuple[int, int]:
    first, last = asked.groups()
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
