"""Sends an answer over aiohttp, intact or as a fault demands: late, cut, mangled, or not at all.

aiohttp sends a whole response, or a stream, and knows neither. Without a fault `_send` hands over to it; all else here
belongs to one of the faults: `drop`, `delay`, `silent`, `headers_first`, `garbage`, `cut`, `accept`.

The order of events under a fault: cut before the body is read · read it · cut before it takes effect · let it
take effect · wait · cut without an answer · answer. Which fault a request meets is faults' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDict

from fal_sandbox.faults import Fault
from fal_sandbox.memory import Memory
from fal_sandbox.replies import JSON, Body, Reply, encode, usual
from fal_sandbox.request_journal import Row

CHUNK_BYTES = 256 * 1024
ROOM_BYTES = 64 * 1024
GARBAGE_PAGE = b"<html><body><h1>This is not the answer you are looking for</h1></body></html>"

Step = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Delivery:
    """The way back for one request."""

    state: Memory
    request: web.BaseRequest
    row: Row
    fault: Fault | None = None

    async def run(self, read: Step, make: Callable[[], Awaitable[Reply]]) -> web.StreamResponse:
        """Reads the body, has the answer made and sends it."""
        if self.fault is None:
            await read()
            return await self._send(await make())
        answer = await self._under_fault(self.fault, read, make)
        return self.cut() if answer is None else await self._send(answer)

    async def refuse(self, answer: Reply) -> web.StreamResponse:
        """Answers before the body was read, and closes: what is left of it will not be read."""
        response = await self._send(answer)
        response.force_close()
        return response

    def cut(self) -> web.StreamResponse:
        """Cuts the connection; aiohttp finds it closed and sends nothing."""
        if self.request.transport is not None:
            self.request.transport.abort()
        self.state.changed.ring()
        return web.Response()

    async def _under_fault(self, fault: Fault, read: Step, make: Callable[[], Awaitable[Reply]]) -> Reply | None:
        """The answer this fault leaves; None when the connection is to be cut."""
        self.row["note"] = fault.note
        if fault.drop == "unread":
            return None
        await read()
        if fault.drop == "before":
            await asyncio.sleep(fault.delay)
            return None
        answer = await self._effect(fault, make)
        self.row["request_id"] = None if answer is None else answer.request_id
        if answer is None or fault.drop == "after":
            return None
        if fault.silent and not fault.headers_first:
            await asyncio.sleep(fault.silent)
        return _mangled(answer, fault)

    async def _effect(self, fault: Fault, make: Callable[[], Awaitable[Reply]]) -> Reply | None:
        """Lets the request take effect or not, before or after the delay."""
        if fault.refuses:
            request_id = None
            if fault.accept:
                taken = await make()
                request_id = taken.request_id
                await _drained(taken)
            await asyncio.sleep(fault.delay)
            answer = _own_answer(fault, self.request.method)
            answer.request_id = request_id
            return answer
        if fault.accept is False:
            await asyncio.sleep(fault.delay)
            # A caller who gave up in the meantime has not been heard.
            return None if self._gone() else await make()
        answer = await make()
        await asyncio.sleep(fault.delay)
        return answer

    def _gone(self) -> bool:
        return self.request.transport is None or self.request.transport.is_closing()

    async def _send(self, answer: Reply) -> web.StreamResponse:
        request_id = answer.request_id or self.state.new_id()
        self.row["status"], self.row["request_id"] = answer.status, request_id
        self.state.changed.ring()
        headers = self._headers(answer, request_id)
        if isinstance(answer.body, bytes) and not self._in_pieces(answer.body):
            return web.Response(status=answer.status, body=answer.body, headers=headers)
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = _length(answer)
        async with aclosing(_pieces(answer.body)) as pieces:
            try:
                await self._pour(response, pieces)
            except ConnectionError:
                self.row["note"] = self.row["note"] or "caller gone"
                self.state.changed.ring()
        return response

    def _in_pieces(self, body: bytes) -> bool:
        if len(body) > CHUNK_BYTES or self.fault is None:
            return len(body) > CHUNK_BYTES
        return self.fault.drop == "half" or self.fault.cut is not None or self.fault.headers_first

    def _headers(self, answer: Reply, request_id: str) -> CIMultiDict[str]:
        headers = CIMultiDict(answer.headers)
        headers["Content-Type"] = answer.content_type
        headers["Server"] = "sandbox"
        headers["x-fal-sandbox"] = "1"
        headers["x-fal-request-id"] = request_id
        if (fault := self.fault) is not None:
            if not fault.request_id:
                del headers["x-fal-request-id"]
            if fault.retry_after is not None:
                headers["Retry-After"] = fault.retry_after
            headers.update(fault.headers or {})
        return headers

    async def _pour(self, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> None:
        await response.prepare(self.request)
        if self.fault is not None and self.fault.headers_first:
            await asyncio.sleep(self.fault.silent)
        if self.request.method == "HEAD":
            return
        if self.fault is not None and self.fault.drop == "half":
            await self._pour_half(response, pieces)
        elif self.fault is not None and self.fault.cut is not None:
            await self._pour_some(response, pieces, self.fault.cut)
        else:
            async for piece in pieces:
                await response.write(piece)
                if len(piece) >= ROOM_BYTES:
                    # Lets the loop notice a caller who has gone; a write alone does not.
                    await asyncio.sleep(0)

    async def _pour_half(self, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None]) -> None:
        left = (response.content_length or 0) // 2
        async for piece in pieces:
            await response.write(piece[:left])
            left -= len(piece)
            if left <= 0:
                break
        self.cut()

    async def _pour_some(self, response: web.StreamResponse, pieces: AsyncGenerator[bytes, None], events: int) -> None:
        """A number of events, then the end the fault asks for. Comments do not count."""
        left = events
        while left > 0 and (piece := await anext(pieces, None)) is not None:
            await response.write(piece)
            left -= not piece.startswith(b":")
        if self.fault is not None and not self.fault.end:
            self.cut()


def _length(answer: Reply) -> int | None:
    if isinstance(answer.body, bytes):
        return len(answer.body)
    if isinstance(answer.body, tuple):
        return sum(map(len, answer.body))
    return answer.length


async def _pieces(body: Body) -> AsyncGenerator[bytes, None]:
    if isinstance(body, (bytes, tuple)):
        for chunk in (body,) if isinstance(body, bytes) else body:
            # Encrypting a large chunk at once would hold up everybody else.
            for start in range(0, len(chunk), CHUNK_BYTES):
                yield chunk[start : start + CHUNK_BYTES]
    else:
        async with aclosing(body):
            async for chunk in body:
                yield chunk


async def _drained(answer: Reply) -> None:
    """Closes a body that nobody will read."""
    if isinstance(answer.body, AsyncGenerator):
        await answer.body.aclose()


def _own_answer(fault: Fault, method: str) -> Reply:
    """What the sandbox answers in the request's place."""
    if fault.redirect is not None:
        status = fault.status or (302 if method in ("GET", "HEAD") else 307)
        return Reply(status, b"", "text/plain", {"Location": fault.redirect})
    if fault.size is not None:
        kind = fault.content_type or "application/octet-stream"
        return Reply(fault.status or 200, _filler(fault.size), kind, length=fault.size)
    status = fault.status or 500
    if fault.body is None:
        return _hinted(usual(status), fault)
    if isinstance(fault.body, str):
        kind = "text/html" if fault.body.lstrip().startswith("<") else "text/plain"
        return Reply(status, fault.body.encode(), fault.content_type or kind)
    return Reply(status, encode(fault.body), fault.content_type or JSON)


def _hinted(answer: Reply, fault: Fault) -> Reply:
    """The direct host says of its temporary failures that a retry may help."""
    if fault.stage in ("direct", "stream") and answer.status >= 502:
        answer.headers["X-Fal-Needs-Retry"] = "1"
    return answer


def _mangled(answer: Reply, fault: Fault) -> Reply:
    if fault.garbage is None:
        return answer
    whole = answer.body if isinstance(answer.body, bytes) else b"{}"
    body, kind = {
        "html": (GARBAGE_PAGE, "text/html"),
        "truncated": (whole[: len(whole) // 2], JSON),
        "shape": (b'{"sandbox":["not","what","you","asked","for"]}', JSON),
        "empty": (b"", JSON),
    }[fault.garbage]
    return Reply(200, body, kind, answer.headers, answer.request_id)


async def _filler(size: int) -> AsyncGenerator[bytes, None]:
    chunk = bytes(CHUNK_BYTES)
    while size > 0:
        yield chunk[:size]
        size -= CHUNK_BYTES
