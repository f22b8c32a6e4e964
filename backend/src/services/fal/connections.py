"""Connections: kept, one request on each at a time, every wait on them bounded by the current call.

Each connection has an httpx transport of its own, and the free ones of a host wait on a stack. httpx's own pool would
look at all its connections for every request and ask the system about the idle ones, under a lock: with 64 threads
that takes longer than everything else. What a request means is `transport.py`'s.
"""

from __future__ import annotations

import contextlib
import math
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx
from httpcore._backends.sync import SyncStream

from services.fal.call import PAUSED_S, Exchange, current_call, current_exchange
from services.fal.errors import InvalidInput
from services.fal.hosts import is_address, is_public
from services.fal.names import addresses_of
from services.fal.racing import Racing

IDLE_S = 30.0
"""How long a connection that nobody uses is kept."""
STEP_S = 0.1
"""How often who waits for the answer to a submit looks whether its call is over."""
CONNECT_MAX_S = 10.0
"""How long one try to connect may take; a first packet that was lost is sent again by the next."""
PIECE_BYTES = 64 * 1024
"""How much of a long body is sent at a time."""
TLS_RECORD_BYTES = 16 * 1024
"""What is no longer than a TLS record arrives whole or not at all: when it cannot be written, it was not received."""


class Connections:
    """One client's connections, over the proxies of the environment (HTTPS_PROXY, NO_PROXY)."""

    def __init__(self, tls: ssl.SSLContext, keep: int) -> None:
        """At most `keep` free connections are kept for a host."""
        self._tls = tls
        self._keep = keep
        self._free: dict[_Route, list[tuple[float, httpx.HTTPTransport]]] = {}
        self._racing = Racing()
        self._lock = threading.Lock()
        self._closed = False
        proxies = getproxies()
        self._proxy = (proxies.get("https") or proxies.get("all") or "").strip()

    @contextlib.contextmanager
    def one(self, host: str, *, public_only: bool = False) -> Iterator[httpx.HTTPTransport]:
        """A connection to `host` for one request: the one that was used last, or one that is opened when needed.

        With `public_only` it was opened to a public address (behind a proxy that resolves names, nobody knows).
        """
        route = _Route(host, public_only)
        connection = self._take(route)
        try:
            yield connection
        finally:
            for unused in self._give_back(route, connection):
                unused.close()

    def close(self) -> None:
        """Close what is free now, and what is in use when its request is over."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, {}
        for stack in free.values():
            for _, connection in stack:
                connection.close()

    def _take(self, route: _Route) -> httpx.HTTPTransport:
        with self._lock:
            stack = self._free.get(route)
            if stack:
                return stack.pop()[1]
        if route.public_only and is_address(route.host):
            _check_public(route.host, [route.host])
        if not self._proxy or proxy_bypass(route.host):
            return self._new(None, route.public_only)
        return self._over_proxy()

    def _give_back(self, route: _Route, connection: httpx.HTTPTransport) -> list[httpx.HTTPTransport]:
        """Keep a connection; returns those to close."""
        now = time.monotonic()
        if _has_unread_bytes(connection):
            return [connection]
        with self._lock:
            if self._closed:
                return [connection]
            stack = self._free.setdefault(route, [])
            stack.append((now, connection))
            if len(stack) > self._keep or stack[0][0] < now - IDLE_S:
                return [stack.pop(0)[1]]
        return []

    def _over_proxy(self) -> httpx.HTTPTransport:
        # As curl and requests read it: a proxy without a scheme is spoken to in plain HTTP.
        proxy = self._proxy if "://" in self._proxy else f"http://{self._proxy}"
        try:
            return self._new(proxy, public_only=False)
        except (ValueError, httpx.InvalidURL, ImportError) as error:
            raise InvalidInput(
                f"The proxy of the environment cannot be used ({type(error).__name__}). "
                "Check HTTPS_PROXY and ALL_PROXY: http://host:port is understood."
            ) from error

    def _new(self, proxy: str | None, public_only: bool) -> httpx.HTTPTransport:
        transport = httpx.HTTPTransport(verify=self._tls, limits=httpx.Limits(keepalive_expiry=IDLE_S), proxy=proxy)
        # httpx has no argument for the network backend; a test pins this attribute.
        transport._pool._network_backend = _Backend(self._racing, public_only)
        return transport


class _Route(NamedTuple):
    host: str
    public_only: bool


def _has_unread_bytes(transport: httpx.HTTPTransport) -> bool:
    """Whether more came than the answer that was asked for: it would be read as the answer to the next request.

    httpcore does not look; a test pins these attributes of its connections. What arrives later is seen by httpcore
    when it takes the connection again.
    """
    for outer in transport._pool.connections:
        connection: Any = outer
        while (inner := getattr(connection, "_connection", None)) is not None:
            connection = inner
        if (state := getattr(connection, "_h11_state", None)) is None:
            continue
        tls = connection._network_stream.get_extra_info("ssl_object")
        if state.trailing_data[0] or (tls is not None and tls.pending()):
            return True
    return False


class _Backend(httpcore.NetworkBackend):
    """Connections whose every wait is bounded by the current call."""

    def __init__(self, racing: Racing, public_only: bool) -> None:
        self._racing = racing
        self._public_only = public_only

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        timeout_s = _bounded(CONNECT_MAX_S if timeout is None else timeout)
        addresses = _addresses(host, port, timeout_s)
        if self._public_only:
            # What is connected to is what was checked: the name is not resolved a second time.
            _check_public(host, addresses)
        try:
            connected = self._racing.connect(addresses, port, timeout_s, current_call().check)
        except TimeoutError as error:
            current_call().check()
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return _Stream(SyncStream(connected), peer=None)


def _check_public(host: str, addresses: list[str]) -> None:
    for address in addresses:
        if not is_public(address):
            raise InvalidInput(f"{host} resolves to {address}, which is not a public address.")


def _addresses(host: str, port: int, timeout_s: float) -> list[str]:
    try:
        return addresses_of(host, port, timeout_s)
    except TimeoutError as error:
        raise httpcore.ConnectTimeout(str(error)) from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


class _Stream(httpcore.NetworkStream):
    """One connection; tells the current exchange which socket it waits on and that something was sent.

    A request's head and body leave together, when its answer is waited for: httpcore writes them one by one, and each
    would be a TLS record, a packet and a system call of its own.
    """

    def __init__(self, inner: httpcore.NetworkStream, peer: str | None) -> None:
        """`peer` is the host at the end of the TLS connection; None before TLS, where a proxy is spoken to."""
        self._inner = inner
        self._socket = inner.get_extra_info("socket")
        self._peer = peer
        self._unsent = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # As in httpcore: who cannot be written to may have answered already, and that says why.
        with contextlib.suppress(httpcore.WriteError):
            self._flush(timeout)
        exchange = current_exchange.get()
        if exchange is not None and exchange.paid and exchange.sent:
            return self._read_submitted(max_bytes, timeout, exchange)
        return self._inner.read(max_bytes, self._wait(timeout))

    def _read_submitted(self, max_bytes: int, timeout: float | None, exchange: Exchange) -> bytes:
        """Read the answer to a submit, whose job must be known to be cancelled: its call's end leaves it a moment.

        In steps, so that it is noticed here when the call is cancelled, and when the process was paused for so long
        that the moment passed meanwhile.
        """
        exchange.reading = True
        silent_until = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            now = time.monotonic()
            left = min(exchange.left_for_answer(current_call(), now), silent_until - now)
            if left <= 0:
                raise httpcore.ReadTimeout("the time for this request is over")
            exchange.use(self._socket)
            try:
                return self._inner.read(max_bytes, min(STEP_S, left))
            except httpcore.ReadTimeout:
                if time.monotonic() > now + STEP_S + PAUSED_S:
                    exchange.until = None  # the process was paused: the moment begins again

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if len(self._unsent) + len(buffer) <= TLS_RECORD_BYTES:
            self._unsent += buffer
            return
        self._flush(timeout)
        # In pieces: a peer that takes them slowly does not get the whole time for each.
        for start in range(0, len(buffer), PIECE_BYTES):
            self._send(memoryview(buffer)[start : start + PIECE_BYTES], timeout)

    def _flush(self, timeout: float | None) -> None:
        # A view: the head of a request holds the key, which a traceback with the values of variables would show.
        unsent = memoryview(self._unsent)
        self._unsent = b""
        if unsent:
            self._send(unsent, timeout)

    def _send(self, part: memoryview, timeout: float | None) -> None:
        wait_s, exchange = self._wait(timeout), current_exchange.get()
        if exchange is None or not exchange.paid or self._peer != exchange.peer:
            self._inner.write(part, wait_s)  # type: ignore[arg-type]
            return
        exchange.begin_sending()
        self._inner.write(part, wait_s)  # type: ignore[arg-type]
        exchange.sent = True

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, self._wait(timeout)), server_hostname)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _wait(self, timeout: float | None) -> float:
        """Have the current exchange wait on this connection; for how long at most."""
        if (exchange := current_exchange.get()) is not None:
            exchange.use(self._socket)
        return _bounded(timeout)


def _bounded(timeout: float | None) -> float:
    call, exchange = current_call(), current_exchange.get()
    now = time.monotonic()
    if exchange is not None and exchange.paid and exchange.sent:
        left = exchange.left_for_answer(call, now)
    else:
        left = call.check()
        if exchange is not None and exchange.until is not None:
            left = min(left, exchange.until - now)
    if left <= 0:
        raise httpcore.ReadTimeout("the time for this request is over")
    return max(0.001, left if timeout is None else min(left, timeout))
