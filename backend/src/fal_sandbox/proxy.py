"""The listening socket: CONNECT ends its TLS here and is served at once, the rest in plain text.

There is no second hop: the connection itself is handed to aiohttp. Foreign hosts are refused, the sandbox
never reaches out.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import weakref
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import trustme
from aiohttp import web

from fal_sandbox.app import stages_at
from fal_sandbox.host_names import is_name, service_of
from fal_sandbox.state import State

LONGEST_HEAD_BYTES = 16 * 1024
CLOSE_S = 0.2
"""How long a closing TLS connection waits for the other side's goodbye."""

_WORD = b"CONNECT "
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Authority:
    """The throw-away CA, with one certificate and one TLS context per host name."""

    def __init__(self) -> None:
        self._ca = trustme.CA(organization_name="fal sandbox, for tests on this machine only")
        self.context = lru_cache(maxsize=256)(self._make_context)

    @property
    def pem(self) -> bytes:
        return self._ca.cert_pem.bytes()

    def _make_context(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        self._ca.issue_cert(host).configure_cert(context)
        return context


class Proxy:
    """Makes the protocols of new connections and ends them all at the close."""

    def __init__(self, state: State, handler: Handler, authority: Authority) -> None:
        self.state = state
        self.authority = authority
        self._handler = handler
        self._servers: dict[float, web.Server] = {}
        self._transports: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()
        self.handshakes: set[asyncio.Task[None]] = set()

    def door(self) -> asyncio.Protocol:
        """The protocol factory for the listening socket."""
        return _Door(self)

    def conversation(self) -> web.RequestHandler:
        """aiohttp's protocol, with the keep-alive time of this moment."""
        keepalive_s = self.state.settings.keepalive_s
        if keepalive_s not in self._servers:
            self._servers[keepalive_s] = web.Server(
                self._handler, access_log=None, keepalive_timeout=keepalive_s, lingering_time=0.0
            )
        return self._servers[keepalive_s]()

    def opened(self, transport: asyncio.BaseTransport) -> None:
        self._transports.add(transport)

    async def close(self) -> None:
        for task in self.handshakes:
            task.cancel()
        for server in self._servers.values():
            await server.shutdown(0.05)
        for transport in list(self._transports):
            if isinstance(transport, asyncio.Transport):
                transport.abort()


class _Door(asyncio.Protocol):
    """Reads the first line of a connection and hands it on."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._seen = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._proxy.opened(transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if not _WORD.startswith(self._seen[: len(_WORD)]):
            _hand_over(self._transport, self._proxy.conversation(), self._seen)
        elif b"\r\n\r\n" in self._seen:
            words = self._seen.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            self._connect(words[1] if len(words) == 3 else "")
        elif len(self._seen) > LONGEST_HEAD_BYTES:
            self._transport.abort()

    def _connect(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        host = host.lower().removesuffix(".")
        if not is_name(host) or not (port.isascii() and port.isdigit()):
            # An IPv6 address comes here too; whatever it is, it is none of fal's hosts.
            self._refuse(target, 403 if host.startswith("[") else 400, "is no host name with a port")
            return
        service = service_of(host, self._proxy.state.settings.hosts)
        if service is None or port != "443":
            self._refuse(target, 403, "is refused")
        elif self._proxy.state.faults.take_connect(stages_at(service)) is not None:
            self._note(host, "drop connect", None)
            self._transport.abort()
        else:
            self._open(host, target)

    def _open(self, host: str, target: str) -> None:
        try:
            context = self._proxy.authority.context(host)
        except ValueError:
            # Labels can look right and still be no name, such as broken punycode.
            self._refuse(target, 400, "is a name that no certificate can be made for")
            return
        # Nothing may be read before TLS stands.
        self._transport.pause_reading()
        self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        task = asyncio.create_task(self._secure(context))
        self._proxy.handshakes.add(task)
        task.add_done_callback(self._proxy.handshakes.discard)

    def _refuse(self, target: str, status: int, why: str) -> None:
        shown = target if target.isprintable() else repr(target)
        text = f"The fal sandbox serves fal's hosts on port 443 and never reaches out: {shown or 'nothing'} {why}.\n"
        body = text.encode()
        self._note(target, "refused", status)
        self._transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nx-fal-sandbox: 1\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
            % (status, HTTPStatus(status).phrase.encode(), len(body), body)
        )
        self._transport.close()

    def _note(self, host: str, note: str, status: int | None) -> None:
        journal = self._proxy.state.journal
        row = journal.add(journal.row("connect", "CONNECT", host, ""))
        row["note"], row["status"] = note, status
        self._proxy.state.changed.ring()

    async def _secure(self, context: ssl.SSLContext) -> None:
        loop, waiting_room = asyncio.get_running_loop(), _WaitingRoom()
        options: dict[str, Any] = {"ssl_shutdown_timeout": CLOSE_S} if sys.version_info >= (3, 11) else {}
        try:
            secured = await loop.start_tls(
                self._transport,
                waiting_room,
                context,
                server_side=True,
                **options,
            )
        except (OSError, asyncio.CancelledError):
            # The caller hung up or does not trust the sandbox's CA; there is nobody to tell.
            self._transport.abort()
            return
        if secured is None or waiting_room.lost:
            self._transport.abort()
            return
        _hand_over(secured, self._proxy.conversation(), waiting_room.seen)


class _WaitingRoom(asyncio.Protocol):
    """Keeps what arrives with the last message of the handshake, before `start_tls` has returned."""

    def __init__(self) -> None:
        self.seen = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.seen += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def _hand_over(transport: asyncio.Transport, protocol: asyncio.Protocol, seen: bytes) -> None:
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    if seen:
        protocol.data_received(seen)
