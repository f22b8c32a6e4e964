"""Pooled connections, one request on each at a time; every wait is bounded by the request's call.

Why there is so much of our own below httpcore:

- Each connection is an httpcore pool of its own, and the free ones of a host wait on a stack. A shared pool looks at
  all its connections for every request and asks the system about the idle ones, under a lock
  (https://github.com/encode/httpcore/blob/1.0.9/httpcore/_sync/connection_pool.py): with 64 threads that takes longer
  than everything else.
- httpx's timeouts are per read and per write (https://www.python-httpx.org/advanced/timeouts/): a peer that sends a
  byte a second never trips them. So the network backend, httpcore's public seam, knows the request in flight, and
  gives each wait only what its call has left.
- The system's resolver cannot be stopped and takes as long as it likes, and a connect goes to one address after the
  other: names are resolved in a thread, and addresses are raced (RFC 8305).

What a request means, and whether it may be sent again, is decided in `transport.py`.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx
from httpcore._backends.sync import SyncStream

from services.fal.call import PAUSED_S, RequestInFlight, Task
from services.fal.errors import InvalidInput
from services.fal.hosts import is_address, is_public

IDLE_S = 30.0
"""How long a connection that nobody uses is kept."""
STEP_S = 0.1
"""How often who waits for the answer to a submit looks whether its call is over."""
CONNECT_MAX_S = 10.0
"""How long one try to connect may take; a first packet that was lost is sent again by the next."""
HEAD_START_S = 0.25
"""How long an address is tried alone: what RFC 8305 recommends (https://www.rfc-editor.org/rfc/rfc8305#section-8)."""
DEAD_S = 600.0
"""How long an address that lost is tried last."""
CHECK_S = 0.05
"""How often to ask whether the call was stopped."""
PIECE_BYTES = 64 * 1024
"""How much of a long body is sent at a time."""
TLS_RECORD_BYTES = 16 * 1024
"""The most that one TLS record holds (https://www.rfc-editor.org/rfc/rfc8446#section-5.1). What is no longer arrives
whole
or not at all: when it cannot be written, it was not received."""
NETWORK_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)
"""What a connection raises; httpcore's errors have no base of their own."""

_BEGUN = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, errno.EINTR)


class Connections:
    """One client's connections, over the proxies of the environment (HTTPS_PROXY, NO_PROXY)."""

    def __init__(self, tls: ssl.SSLContext, keep: int) -> None:
        """At most `keep` free connections are kept for a host."""
        self._tls = tls
        self._keep = keep
        self._free: dict[_Route, list[tuple[float, Connection]]] = {}
        self._racing = Racing()
        self._lock = threading.Lock()
        self._closed = False
        proxies = getproxies()
        self._proxy = (proxies.get("https") or proxies.get("all") or "").strip()

    @contextlib.contextmanager
    def one(self, request: RequestInFlight) -> Iterator[Connection]:
        """A connection to the request's peer: the one that was used last, or one that is opened when needed.

        With `public_only` it was opened to a public address (behind a proxy that resolves names, nobody knows).
        """
        route = _Route(request.peer, request.public_only)
        connection = self._take(route)
        connection.backend.request = request
        try:
            yield connection
        finally:
            # Before it is given back: its socket may then serve another request, which must not be shut.
            request.end()
            connection.backend.request = None
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

    def _take(self, route: _Route) -> Connection:
        with self._lock:
            stack = self._free.get(route)
            if stack:
                return stack.pop()[1]
        if route.public_only and is_address(route.host):
            _all_public(route.host, [route.host])
        if not self._proxy or proxy_bypass(route.host):
            return Connection(self._tls, _Backend(self._racing, route.public_only), proxy=None)
        return self._over_proxy()

    def _give_back(self, route: _Route, connection: Connection) -> list[Connection]:
        """Keep a connection; returns those to close."""
        now = time.monotonic()
        if connection.has_unread_bytes():
            return [connection]
        with self._lock:
            if self._closed:
                return [connection]
            stack = self._free.setdefault(route, [])
            stack.append((now, connection))
            if len(stack) > self._keep or stack[0][0] < now - IDLE_S:
                return [stack.pop(0)[1]]
        return []

    def _over_proxy(self) -> Connection:
        # As curl and requests read it: a proxy without a scheme is spoken to in plain HTTP.
        proxy = self._proxy if "://" in self._proxy else f"http://{self._proxy}"
        try:
            return Connection(self._tls, _Backend(self._racing, public_only=False), httpx.Proxy(proxy))
        except (ValueError, httpx.InvalidURL, ImportError, RuntimeError) as error:
            raise InvalidInput(
                f"The proxy of the environment cannot be used ({type(error).__name__}). "
                "Check HTTPS_PROXY and ALL_PROXY; write them as http://host:port."
            ) from error


class _Route(NamedTuple):
    host: str
    public_only: bool


class Connection:
    """One connection, opened at its first request."""

    def __init__(self, tls: ssl.SSLContext, backend: _Backend, proxy: httpx.Proxy | None) -> None:
        self.backend = backend
        self.pool = _pool(tls, backend, proxy)

    def send(self, request: httpx.Request) -> httpx.Response:
        """The answer, its body still to be read from `stream`. Raises one of NETWORK_ERRORS."""
        answer = self.pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=_url(request.url),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        stream = _Body(cast("Iterable[bytes]", answer.stream))
        return httpx.Response(answer.status, headers=answer.headers, stream=stream)

    def close(self) -> None:
        self.pool.close()

    def has_unread_bytes(self) -> bool:
        """Whether more came than the answer that was asked for: it would be read as the answer to the next request.

        httpcore does not look; a test pins these attributes of its connections. What arrives later is seen by httpcore
        when it takes the connection again.
        """
        for outer in self.pool.connections:
            connection: Any = outer
            while (inner := getattr(connection, "_connection", None)) is not None:
                connection = inner
            if (state := getattr(connection, "_h11_state", None)) is None:
                continue
            tls = connection._network_stream.get_extra_info("ssl_object")
            if state.trailing_data[0] or (tls is not None and tls.pending()):
                return True
        return False


class _Body(httpx.SyncByteStream):
    """The body of an answer, as httpcore reads it."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()  # type: ignore[attr-defined]


def _url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _pool(tls: ssl.SSLContext, backend: _Backend, proxy: httpx.Proxy | None) -> httpcore.ConnectionPool:
    """As httpx.HTTPTransport makes it, which has no argument for the network backend. Raises ValueError,
    ImportError."""
    options: dict[str, Any] = {"ssl_context": tls, "keepalive_expiry": IDLE_S, "network_backend": backend}
    if proxy is None:
        return httpcore.ConnectionPool(**options)
    about: dict[str, Any] = {"proxy_url": _url(proxy.url), "proxy_auth": proxy.raw_auth, **options}
    if proxy.url.scheme.startswith("socks"):
        return httpcore.SOCKSProxy(**about)
    return httpcore.HTTPProxy(**about, proxy_headers=proxy.headers.raw, proxy_ssl_context=proxy.ssl_context)


class _Backend(httpcore.NetworkBackend):
    """Opens one connection, whose every wait is bounded by the request in flight on it."""

    def __init__(self, racing: Racing, public_only: bool) -> None:
        self.request: RequestInFlight | None = None
        """Set while the connection is taken; a connection serves one request at a time."""
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
        assert self.request is not None
        check = self.request.call.check
        timeout_s = self.bounded(CONNECT_MAX_S if timeout is None else timeout)
        try:
            addresses = addresses_of(host, port, timeout_s)
            if self._public_only:
                # What is connected to is what was checked: the name is not resolved a second time, which could give
                # another address (DNS rebinding).
                addresses = _all_public(host, addresses)
            connected = self._racing.connect(addresses, port, timeout_s, check)
        except TimeoutError as error:
            check()
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return _Stream(SyncStream(connected), self, peer=None)

    def bounded(self, timeout: float | None) -> float:
        """Seconds that the request in flight may wait now. Raises Cancelled, DeadlineExceeded."""
        if self.request is None:
            return CONNECT_MAX_S if timeout is None else timeout
        left = self.request.left()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for this request is over")
        # A time-out of 0 would make the socket non-blocking.
        return max(0.001, left if timeout is None else min(left, timeout))


def _all_public(host: str, addresses: list[str]) -> list[str]:
    """`addresses`, when none of them leads into a private network. Raises InvalidInput."""
    for address in addresses:
        if not is_public(address):
            raise InvalidInput(f"{host} resolves to {address}, which is not a public address.")
    return addresses


def addresses_of(host: str, port: int, timeout_s: float) -> list[str]:
    """The addresses of `host`, in the system's order. Raises OSError, TimeoutError when it takes too long.

    `getaddrinfo` has no time-out and may take many seconds, so it runs in a daemon thread that is left to itself then.
    """
    if is_address(host):
        return [host]
    look = Task(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    if not look.wait(timeout_s):
        raise TimeoutError(f"The name {host} could not be resolved in {timeout_s:.1f} s.")
    try:
        found = look.result()
    except (OSError, UnicodeError) as error:
        raise OSError(f"{host}: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Stream(httpcore.NetworkStream):
    """One connection's bytes; tells the request in flight which socket it waits on and that something was sent.

    A request's head and body leave together, when its answer is waited for: httpcore writes them one by one, and each
    would be a TLS record, a packet and a system call of its own.
    """

    def __init__(self, inner: httpcore.NetworkStream, backend: _Backend, peer: str | None) -> None:
        """`peer` is the host at the end of the TLS connection; None before TLS, where a proxy is spoken to."""
        self._inner = inner
        self._backend = backend
        self._socket = inner.get_extra_info("socket")
        self._peer = peer
        self._unsent = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # As in httpcore: who cannot be written to may have answered already, and that says why.
        with contextlib.suppress(httpcore.WriteError):
            self._flush(timeout)
        request = self._backend.request
        if request is not None and request.paid and request.sent:
            return self._read_submitted(max_bytes, timeout, request)
        return self._inner.read(max_bytes, self._wait(timeout))

    def _read_submitted(self, max_bytes: int, timeout: float | None, request: RequestInFlight) -> bytes:
        """Read the answer to a submit, whose job must be known to be cancelled: its call's end leaves it a moment.

        In steps, so that it is noticed here when the call is cancelled, and when the process was paused for so long
        that the moment passed meanwhile.
        """
        request.reading = True
        silent_until = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            now = time.monotonic()
            left = min(request.left(), silent_until - now)
            if left <= 0:
                raise httpcore.ReadTimeout("the time for this request is over")
            request.use(self._socket)
            try:
                return self._inner.read(max_bytes, min(STEP_S, left))
            except httpcore.ReadTimeout:
                if time.monotonic() > now + STEP_S + PAUSED_S:
                    request.until = None  # the process was paused: the moment begins again

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
        wait_s, request = self._wait(timeout), self._backend.request
        if request is None or not request.paid or self._peer != request.peer:
            self._inner.write(part, wait_s)  # type: ignore[arg-type]
            return
        request.begin_sending()
        self._inner.write(part, wait_s)  # type: ignore[arg-type]
        request.sent = True

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._wait(timeout))
        return _Stream(inner, self._backend, peer=server_hostname)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _wait(self, timeout: float | None) -> float:
        """Have the request in flight wait on this connection; for how long at most."""
        if (request := self._backend.request) is not None:
            request.use(self._socket)
        return self._backend.bounded(timeout)


class Racing:
    """Connects for one client to the first of a host's addresses that answers (RFC 8305, "happy eyeballs").

    Each address gets a head start over the next one, which is tried beside it when it does not answer in time. One that
    lost is tried last for a while, so that broken IPv6 costs a client a quarter of a second once.
    """

    def __init__(self) -> None:
        self._dead: dict[str, float] = {}
        self._lock = threading.Lock()

    def connect(
        self, addresses: Iterable[str], port: int, timeout_s: float, check: Callable[[], object]
    ) -> socket.socket:
        """A connected socket. Raises OSError, TimeoutError; whatever `check` raises ends it too."""
        race = _Race(self._in_order(addresses), port)
        try:
            address, won = race.run(time.monotonic() + timeout_s, check)
        finally:
            lost = race.end()
        with self._lock:
            self._dead.pop(address, None)
            self._dead.update(dict.fromkeys(lost - {address}, time.monotonic() + DEAD_S))
        return won

    def _in_order(self, addresses: Iterable[str]) -> list[str]:
        """The system's order with the families by turns, those that lost before at the end."""
        families: dict[bool, list[str]] = {}
        for address in addresses:
            families.setdefault(":" in address, []).append(address)
        turns = [
            family[at]
            for at in range(max(map(len, families.values())))
            for family in families.values()
            if at < len(family)
        ]
        now = time.monotonic()
        with self._lock:
            dead = {address for address, until in self._dead.items() if until > now}
        return sorted(turns, key=lambda address: address in dead)


class _Race:
    def __init__(self, addresses: list[str], port: int) -> None:
        self._waiting = addresses
        self._port = port
        self._running: dict[socket.socket, tuple[str, float]] = {}
        self._lost: set[str] = set()
        self._failure: OSError = OSError("there is no address")
        self._next_at = 0.0
        self._selector = selectors.DefaultSelector()

    def run(self, deadline: float, check: Callable[[], object]) -> tuple[str, socket.socket]:
        while self._waiting or self._running:
            now = time.monotonic()
            if self._waiting and (now >= self._next_at or not self._running):
                self._begin(self._waiting.pop(0), now)
                continue
            if now >= deadline:
                raise TimeoutError("no address answered in time")
            check()
            until = min(deadline, now + CHECK_S, self._next_at if self._waiting else deadline)
            for key, _ in self._selector.select(until - now):
                if (won := self._settle(key.fileobj)) is not None:  # type: ignore[arg-type]
                    return won
        raise self._failure

    def end(self) -> set[str]:
        """Close what did not win; the addresses that lost."""
        now = time.monotonic()
        for sock, (address, began) in self._running.items():
            sock.close()
            if now - began >= HEAD_START_S:
                self._lost.add(address)
        self._selector.close()
        return self._lost

    def _begin(self, address: str, now: float) -> None:
        self._next_at = now + HEAD_START_S
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:  # a machine without IPv6
            self._lose(address, error)
            return
        sock.setblocking(False)
        try:
            code = sock.connect_ex((address, self._port))
        except OSError as error:
            code = error.errno or errno.EHOSTUNREACH
        if code not in _BEGUN:
            sock.close()
            self._lose(address, OSError(code, os.strerror(code)))
            return
        self._running[sock] = address, now
        self._selector.register(sock, selectors.EVENT_WRITE)

    def _settle(self, sock: socket.socket) -> tuple[str, socket.socket] | None:
        self._selector.unregister(sock)
        address, _ = self._running.pop(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return address, sock
        sock.close()
        self._lose(address, OSError(code, os.strerror(code)))
        return None

    def _lose(self, address: str, error: OSError) -> None:
        self._lost.add(address)
        self._failure = error
        self._next_at = 0.0
