"""Webhooks: a signed POST when a queue job has ended, as fal sends it.

As documented at https://fal.ai/docs/documentation/model-apis/inference/webhooks.
Delivered to loopback hosts only, because the sandbox never reaches out; any other URL is noted in the journal
as dropped.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import json
import time
from collections import deque
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fal_sandbox.job_store import Job
from fal_sandbox.memory import Memory
from fal_sandbox.replies import encode

FIRST_TRY_S = 15.0
PAUSES_S = (0.05, 0.2, 0.5, 1.0)
"""Between the tries; after the last one the delivery has failed."""
KEPT_DELIVERIES = 1000
USER_ID = "sandbox-user"


class Webhooks:
    """The sender and its key."""

    def __init__(self, state: Memory) -> None:
        self._state = state
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self.deliveries: deque[dict[str, Any]] = deque(maxlen=KEPT_DELIVERIES)
        """What was sent or dropped, for whoever wants to look."""

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.generate()

    def jwks(self) -> dict[str, Any]:
        """The public key as fal publishes it."""
        x = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "sandbox", "use": "sig", "alg": "EdDSA", "x": x}]}

    def send(self, job: Job) -> None:
        """Begins to deliver what the job's end says."""
        url, body = job.webhook_url or "", _body(job)
        delivery = {"url": url, "request_id": job.request_id, "payload": json.loads(body), "tries": []}
        self.deliveries.append(delivery)
        if not _is_loopback(url):
            self._drop(job, url)
            return
        job.webhook = "pending"
        task = asyncio.create_task(self._deliver(job, url, body, delivery["tries"]))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def clear(self) -> None:
        for task in self._under_way:
            task.cancel()
        self.deliveries.clear()

    async def close(self) -> None:
        self.clear()
        if self._session is not None:
            await self._session.close()

    def _drop(self, job: Job, url: str) -> None:
        journal = self._state.journal
        row = journal.add(journal.row("webhook", "POST", *_parts(url)))
        row["note"], row["request_id"] = "dropped", job.request_id
        job.webhook = "dropped"
        self._state.changed.ring()

    async def _deliver(self, job: Job, url: str, body: bytes, tries: list[int | str]) -> None:
        arrived = False
        for pause_s in (*PAUSES_S, None):
            tries.append(outcome := await self._try(url, body, job.request_id))
            arrived = isinstance(outcome, int) and 200 <= outcome < 300
            redirected = isinstance(outcome, int) and 300 <= outcome < 400  # a permanent failure there
            if arrived or redirected or pause_s is None:
                break
            await asyncio.sleep(pause_s)
        job.webhook = "delivered" if arrived else "failed"
        self._state.changed.ring()

    async def _try(self, url: str, body: bytes, request_id: str) -> int | str:
        """The status of one try, or what went wrong."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FIRST_TRY_S))
        headers = self._signed(body, request_id)
        try:
            async with self._session.post(url, data=body, headers=headers, ssl=False, allow_redirects=False) as reply:
                return reply.status
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            return f"{type(error).__name__}: {error}"

    def _signed(self, body: bytes, request_id: str) -> dict[str, str]:
        now = str(int(time.time()))
        message = "\n".join((request_id, USER_ID, now, hashlib.sha256(body).hexdigest()))
        return {
            "Content-Type": "application/json",
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": USER_ID,
            "X-Fal-Webhook-Timestamp": now,
            "X-Fal-Webhook-Signature": self._key.sign(message.encode()).hex(),
            "x-fal-sandbox": "1",
        }


def _body(job: Job) -> bytes:
    assert job.result is not None
    assert isinstance(job.result.body, bytes)
    message: dict[str, Any] = {
        "request_id": job.request_id,
        "gateway_request_id": job.request_id,
        "status": "OK" if job.outcome == "ok" else "ERROR",
        "payload": json.loads(job.result.body),
    }
    if job.outcome != "ok":
        message["error"] = job.error or f"Invalid status code: {job.result.status}"
    return encode(message)


def _parts(url: str) -> tuple[str, str, str]:
    """Host, path and query for the journal."""
    try:
        return urlsplit(url).netloc, urlsplit(url).path, urlsplit(url).query
    except ValueError:
        return url, "", ""


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
