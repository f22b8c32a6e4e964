"""Hosts that answer with whatever bytes a test wants: a CONNECT proxy on loopback that plays some hosts itself.

A script is a function of the TLS connection and the head of the request that came; it writes what it likes. Loops in
scripts end by themselves, and `sendall` raises when the client has gone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import trustme

Script = Callable[[ssl.SSLSocket, str], None]
LONGEST_S = 20.0
"""How long a script may go on at most: far longer than a test lets it."""


class RawHosts:
    """Plays the hosts in `scripts`; all others are asked for at the proxy `beyond`, if there is one."""

    def __init__(self, scripts: dict[str, Script], beyond: tuple[str, int] | None = None) -> None:
        self.scripts = scripts
        self.heads: list[str] = []
        """The head of each request that came."""
        self.connects: list[str] = []
        """The target of each CONNECT."""
        self.refusal = b""
        """What is answered to every CONNECT, when it is not empty."""
        self.pause_s = 0.0
        """How long to wait before each 16 KiB of a request's body is read."""
        self._beyond = beyond
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            self._server.shutdown(socket.SHUT_RDWR)  # closing alone does not end the thread that waits at it
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            connection.settimeout(LONGEST_S)
            if not (head := head_from(connection)):
                return
            target = head.split()[1]
            self.connects.append(target)
            host = target.rpartition(":")[0]
            if self.refusal:
                connection.sendall(self.refusal)
            elif host in self.scripts:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                self._play(connection, host)
            elif self._beyond is not None:
                self._pass_on(connection, target)

    def _play(self, connection: socket.socket, host: str) -> None:
        with _tls(host).wrap_socket(connection, server_side=True) as secure:
            while head := head_from(secure, self.pause_s):
                self.heads.append(head)
                self.scripts[host](secure, head)

    def _pass_on(self, connection: socket.socket, target: str) -> None:
        assert self._beyond is not None
        with socket.create_connection(self._beyond, timeout=LONGEST_S) as there:
            there.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            threading.Thread(target=_pump, args=(there, connection), daemon=True).start()
            _pump(connection, there)


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def _tls(host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(host).configure_cert(context)
    return context


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def head_from(connection: socket.socket, pause_s: float = 0.0) -> str:
    """A request's head; its body is read and thrown away."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65_536)
        if not more:
            return ""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            missing = int(line.partition(b":")[2]) - len(body)
            while missing > 0:
                time.sleep(pause_s)
                missing -= len(connection.recv(min(missing, 16_384)) or bytes(missing))
    return head.decode("latin-1")


def answering(body: bytes, *headers: str, status: str = "200 OK") -> Script:
    """A script that answers properly."""

    def script(connection: ssl.SSLSocket, head: str) -> None:
        connection.sendall(whole(body, *headers, status=status))

    return script


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return headed(status, f"Content-Length: {len(body)}", *headers) + body


def headed(status: str, *headers: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode("latin-1")


def dripping(before: bytes, drop: bytes, every_s: float = 0.02) -> Script:
    """A script that sends `before`, and then `drop` again and again."""

    def script(connection: ssl.SSLSocket, head: str) -> None:
        connection.sendall(before)
        until = time.monotonic() + LONGEST_S
        while time.monotonic() < until:
            connection.sendall(drop)
            time.sleep(every_s)

    return script


@contextlib.contextmanager
def raw_hosts(
    folder: Path, scripts: dict[str, Script], beyond: tuple[str, int] | None = None
) -> Iterator[tuple[RawHosts, str]]:
    """The hosts, and the file of the authority that signs their certificates."""
    pem = folder / "raw.pem"
    _authority().cert_pem.write_to_path(str(pem))
    hosts = RawHosts(scripts, beyond)
    try:
        yield hosts, str(pem)
    finally:
        hosts.close()
