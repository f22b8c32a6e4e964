"""Connections to fal: kept, one request on each at a time, every wait on them bounded by the current call.

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
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from services.fal.call import PAUSED_S, Exchange, current_call, current_exchange
from services.fal.errors import InvalidInput
from services.fal.hosts import is_run_host
from services.fal.names import addresses_of

IDLE_S = 30.0
"""How long a connection that nobody uses is kept."""
STEP_S = 0.1
"""How often who waits for the answer to a submit looks whether its call is over."""
TLS_RECORD_BYTES = 16 * 1024
"""What is no longer than a TLS record arrives whole or not at all: when it cannot be written, it was not received."""


class Connections:
    """One client's connections, over the proxies of the environment (HTTPS_PROXY, NO_PROXY)."""

    def __init__(self, tls: ssl.SSLContext, keep: int) -> None:
        """At most `keep` free connections are kept for a host."""
        self._tls = tls
        self._keep = keep
        self._free: dict[str, list[tuple[float, httpx.HTTPTransport]]] = {}
        self._lock = threading.Lock()
        self._closed = False
        proxies = getproxies()
        self._proxy = proxies.get("https") or proxies.get("all")
        try:
            self._new(self._proxy)
        except (ValueError, httpx.InvalidURL, ImportError) as error:
            raise InvalidInput(
                f"The proxy of the environment cannot be used ({type(error).__name__}). "
                "Check HTTPS_PROXY and ALL_PROXY: http://host:port is understood."
            ) from error

    @contextlib.contextmanager
    def one(self, host: str) -> Iterator[httpx.HTTPTransport]:
        """A connection to `host` for one request: the one that was used last, or one that is opened when needed."""
        connection = self._take(host)
        try:
            yield connection
        finally:
            for unused in self._give_back(host, connection):
                unused.close()

    def close(self) -> None:
        """Close what is free now, and what is in use when its request is over."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, {}
        for stack in free.values():
            for _, connection in stack:
                connection.close()

    def _take(self, host: str) -> httpx.HTTPTransport:
        with self._lock:
            stack = self._free.get(host)
            if stack:
                return stack.pop()[1]
        return self._new(None if proxy_bypass(host) else self._proxy)

    def _give_back(self, host: str, connection: httpx.HTTPTransport) -> list[httpx.HTTPTransport]:
        """Keep a connection; returns those to close."""
        now = time.monotonic()
        with self._lock:
            if self._closed:
                return [connection]
            stack = self._free.setdefault(host, [])
            stack.append((now, connection))
            if len(stack) > self._keep or stack[0][0] < now - IDLE_S:
                return [stack.pop(0)[1]]
        return []

    def _new(self, proxy: str | None) -> httpx.HTTPTransport:
        transport = httpx.HTTPTransport(verify=self._tls, limits=httpx.Limits(keepalive_expiry=IDLE_S), proxy=proxy)
        # httpx has no argument for the network backend; a test pins this attribute.
        transport._pool._network_backend = _Backend()
        return transport


class _Backend(httpcore.NetworkBackend):
    """Connections whose every wait is bounded by the current call."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in _addresses(host, port, _bounded(timeout)):
            try:
                stream = self._inner.connect_tcp(address, port, _bounded(timeout), local_address, socket_options)
                return _Stream(stream, peer=None)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


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
        self._starts_jobs = peer is not None and is_run_host(peer)
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
            until = min(exchange.answer_until(current_call()), silent_until)
            wait_s = min(STEP_S, until - now)
            exchange.use(self._socket)
            try:
                return self._inner.read(max_bytes, max(0.001, wait_s))
            except httpcore.ReadTimeout:
                if (after := time.monotonic()) > now + STEP_S + PAUSED_S:
                    exchange.woke_at = after
                elif after >= until:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if len(self._unsent) + len(buffer) <= TLS_RECORD_BYTES:
            self._unsent += buffer
        else:
            self._flush(timeout)
            self._send(buffer, timeout)

    def _flush(self, timeout: float | None) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self._send(unsent, timeout)

    def _send(self, buffer: bytes, timeout: float | None) -> None:
        wait_s, exchange = self._wait(timeout), current_exchange.get()
        if not self._starts_jobs or exchange is None:
            self._inner.write(buffer, wait_s)
            return
        exchange.begin_sending()
        self._inner.write(buffer, wait_s)
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
    call = current_call()
    exchange = current_exchange.get()
    # A submit that was sent may go on when its call is over: the id of its job is worth a moment.
    submitted = exchange is not None and exchange.paid and exchange.sent
    wait = exchange.answer_until(call) - time.monotonic() if exchange and submitted else call.check()
    if timeout is not None and timeout < wait:
        wait = timeout
    if exchange is not None and exchange.patience_s is not None and exchange.patience_s < wait:
        wait = exchange.patience_s
    return max(0.001, wait)
