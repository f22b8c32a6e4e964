"""Opens a connection to the first of a host's addresses that answers (RFC 8305, "happy eyeballs").

Each address gets a head start over the next one, which is tried beside it when it does not answer in time. One that
lost is tried last for a while, so that broken IPv6 costs a client a quarter of a second once.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable

HEAD_START_S = 0.25
"""How long an address is tried alone: what RFC 8305 recommends."""
DEAD_S = 600.0
"""How long an address that lost is tried last."""
CHECK_S = 0.05
"""How often to ask whether the call was stopped."""
_BEGUN = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, errno.EINTR)


class Racing:
    """Connects for one client, and remembers which addresses did not answer."""

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
