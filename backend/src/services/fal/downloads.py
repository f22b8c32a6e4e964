"""Saves pictures that models made: from fal's hosts only, checked, and whole or not at all.

A file is written under a temporary name beside its place and renamed when it is complete. The key never goes along.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import re
import ssl
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import requests

from services.fal.answers import Answer, error_of
from services.fal.call import Call, current_call
from services.fal.errors import BadOutput, FalError, InvalidInput, Unreachable
from services.fal.hosts import is_file_host
from services.fal.names import addresses_of
from services.fal.plain_http import SILENCE_S, Session
from services.fal.retries import MAX_ATTEMPTS, backoff_s

MAX_BYTES = 50 * 1024 * 1024
MAX_NAME_BYTES = 200
"""File systems take 255; the temporary name and the extension are longer."""
EXTENSIONS = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
}


class Downloads:
    """Files of one client's results."""

    def __init__(self, tls: ssl.SSLContext, more_hosts: frozenset[str]) -> None:
        self._tls = tls
        self._more_hosts = more_hosts

    def save(self, url: str, directory: Path, name: str) -> Path:
        """Store the picture at `url` as `name` with its extension in `directory`; the path it got.

        Raises InvalidInput for a URL that is not downloaded from, BadOutput for what is not a picture, NotFound
        when it has expired, Unreachable when it cannot be had.
        """
        call = current_call()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            call.check()
            try:
                return self._save_once(call, url, directory, name)
            except FalError as error:
                if not isinstance(error, Unreachable) and (error.status_code or 0) < 500:
                    raise
                if attempt == MAX_ATTEMPTS:
                    raise
            except OSError as error:
                raise InvalidInput(f"{str(directory)!r} cannot be written to: {error.strerror or error}.") from error
            call.sleep(backoff_s(attempt))
        raise AssertionError("unreachable")

    def _save_once(self, call: Call, url: str, directory: Path, name: str) -> Path:
        if url.startswith("data:"):
            content_type, data = _data_uri(url)
            return _write(_complete([data], None), directory, safe_name(name) + _extension(content_type))
        host = self._checked_host(url)
        try:
            with (
                Session(self._tls, call) as session,
                session.stream("GET", url, silence_s=SILENCE_S) as response,
            ):
                if response.status_code != 200:
                    headers = {key.lower(): value for key, value in response.headers.items()}
                    raise error_of(Answer(response.status_code, headers, b"", "download"))
                extension = _extension(response.headers.get("content-type", ""))
                chunks = _complete(session.chunks(response, MAX_BYTES), response.headers.get("content-length"))
                return _write(chunks, directory, safe_name(name) + extension)
        except requests.RequestException as error:
            call.check()
            raise Unreachable(f"The download from {host} failed ({type(error).__name__}).") from error

    def _checked_host(self, url: str) -> str:
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
            good = parts.scheme == "https" and parts.port in (None, 443)
        except ValueError:
            host, good = "", False
        if not good or not (is_file_host(host) or host in self._more_hosts):
            raise InvalidInput(
                f"Pictures are downloaded over https from fal's own hosts only, not from {host or url[:100]!r}.",
                hint="Name the host in FAL_DOWNLOAD_HOSTS if you trust it.",
            )
        if not _is_proxied(host):
            _check_addresses(host)
        return host


def safe_name(name: str) -> str:
    """`name` as a file name of letters, digits, dashes and underscores: it can lead nowhere else."""
    # Lower case leaves a dot of its own of the Turkish İ.
    lower = unicodedata.normalize("NFC", name).lower().replace("\N{COMBINING DOT ABOVE}", "")
    plain = re.sub(r"[^\w-]+", "-", lower).strip("-")
    return plain[:80].encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore") or "picture"


def _is_proxied(host: str) -> bool:
    """A proxy resolves the name itself, so what it means here says nothing."""
    proxies = getproxies()
    return bool(proxies.get("https") or proxies.get("all")) and not proxy_bypass(host)


def _check_addresses(host: str) -> None:
    try:
        found = addresses_of(host, 443, current_call().remaining())
    except OSError as error:
        raise Unreachable(f"{host} cannot be found: {error}") from error
    for address in found:
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise InvalidInput(f"{host} resolves to {address}, which is not a public address.")


def _extension(content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in EXTENSIONS:
        raise BadOutput(f"The download is {kind or 'of no type'}, not a picture.")
    return EXTENSIONS[kind]


def _data_uri(url: str) -> tuple[str, bytes]:
    head, _, body = url.partition(",")
    try:
        return head.removeprefix("data:").partition(";")[0], base64.b64decode(body, validate=True)
    except ValueError as error:
        raise BadOutput("The picture's data URI is not valid base64.") from error


def _complete(chunks: Iterable[bytes], content_length: str | None) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        yield chunk
    if content_length is not None and content_length.isdigit() and size != int(content_length):
        raise Unreachable(f"The download broke off after {size} of {content_length} bytes.")
    if size == 0:
        raise BadOutput("The download is empty, not a picture.")


def _write(chunks: Iterable[bytes], directory: Path, name: str) -> Path:
    name = os.fsdecode(name.encode("utf-8"))  # as this process's locale spells it
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[str]:
    """A file beside `path`, which takes its place when the block ends well; else nothing of it is left."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
