"""What the tests of the sandbox's wire share: real clients, and what they send."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from fal_sandbox.server import Sandbox

TEXT = "openrouter/router"
QUEUE = "https://queue.fal.run/"
DIRECT = "https://fal.run/"
REST = "https://rest.fal.ai/"
CDN = "https://v3.fal.media/"
ASK = {"prompt": "Say something short.", "model": "google/gemini-2.5-flash"}
KEY = {"Authorization": "Key an-id:a-secret"}
PHOTO = "https://example.com/red-mug.jpg"
GOOD = 8
"""More than one page of anything here needs."""


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@contextmanager
def client_of(box: Sandbox, **options: Any) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=box.ca_file)
    with httpx.Client(proxy=box.url, verify=context, headers=KEY, timeout=30, **options) as client:
        yield client


@pytest.fixture
def web(box: Sandbox) -> Iterator[httpx.Client]:
    with client_of(box) as client:
        yield client


def submit(web: httpx.Client, endpoint: str = TEXT, given: Any = None, **options: Any) -> Any:
    reply = web.post(QUEUE + endpoint, json=ASK if given is None else given, **options)
    assert reply.status_code == 200, reply.text
    return reply.json()


def result(web: httpx.Client, box: Sandbox, endpoint: str, given: Any = None, **options: Any) -> Any:
    """Submits, waits for the end, fetches."""
    job = submit(web, endpoint, given, **options)
    ended(box, job["request_id"])
    return web.get(job["response_url"])


def ended(box: Sandbox, request_id: str) -> Any:
    def has_ended(ledger: Any) -> bool:
        return any(job["request_id"] == request_id and job["outcome"] for job in ledger["jobs"])

    return box.wait_for(has_ended)


def events_of(web: httpx.Client, method: Any, url: Any, **options: Any) -> list[Any]:
    with connect_sse(web, method, url, **options) as source:
        return [json.loads(event.data) for event in source.iter_sse()]


def token_of(web: httpx.Client) -> dict[str, Any]:
    reply = web.post(REST + "storage/auth/token?storage_type=fal-cdn-v3", json={})
    return {"Authorization": f"{reply.json()['token_type']} {reply.json()['token']}"}


def connect(box: Sandbox, target: Any) -> tuple[Any, ...]:
    with socket.create_connection(("127.0.0.1", box.port), timeout=30) as raw:
        raw.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        data = b""
        while chunk := raw.recv(4096):
            data += chunk
    head, _, body = data.decode().partition("\r\n\r\n")
    return head, body


def raw_request(path: Any, host: Any) -> bytes:
    """The bytes of a good POST, for a caller that decides itself when it leaves."""
    body = json.dumps(ASK).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Key a:b\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def secure_socket(box: Sandbox, host: str = "fal.run") -> Any:
    raw = socket.create_connection(("127.0.0.1", box.port), timeout=30)
    raw.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
    assert b" 200 " in raw.recv(200)
    return ssl.create_default_context(cafile=box.ca_file).wrap_socket(raw, server_hostname=host)
