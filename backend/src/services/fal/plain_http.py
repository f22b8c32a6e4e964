"""requests, bounded by a call: for what is not fal's API (downloads, a photokit of the user's own).

One TLS context is shared with the rest of the client, redirects are not followed, every wait and every chunk asks the
call how long it may still take, and a call that is stopped wakes who waits here.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import MaxRetryError, NewConnectionError, SSLError

from services.fal.answers import Answer
from services.fal.call import Call, Exchange, current_exchange
from services.fal.errors import BadOutput

CONNECT_S = 10.0
SILENCE_S = 30.0
CHUNK_BYTES = 64 * 1024


class Session:
    """Requests of one call."""

    def __init__(self, tls: ssl.SSLContext, call: Call) -> None:
        self._call = call
        self._session = requests.Session()
        self._session.mount("https://", _SharedTls(tls))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.close()

    @contextlib.contextmanager
    def stream(
        self, method: str, url: str, *, silence_s: float | None = None, **options: Any
    ) -> Iterator[requests.Response]:
        """One answer, its body not read yet. Raises requests.RequestException when there is none."""
        self._call.check()
        left = self._call.remaining()
        timeout = (min(CONNECT_S, left), left if silence_s is None else min(silence_s, left))
        exchange = Exchange(urlsplit(url).hostname or "", paid=False)
        with self._call.open(exchange), _stopped_with(exchange):
            response = self._session.request(
                method, url, stream=True, allow_redirects=False, timeout=timeout, **options
            )
            with response:
                yield response

    def chunks(self, response: requests.Response, limit: int) -> Iterator[bytes]:
        """The body, piece by piece. Raises BadOutput when it is larger than `limit` bytes."""
        size = 0
        for chunk in response.iter_content(CHUNK_BYTES):
            self._call.check()
            size += len(chunk)
            if size > limit:
                raise BadOutput(f"The answer is larger than {limit // 1024 // 1024} MiB.", retryable=False)
            yield chunk
        # A body of no stated length seems to end when its connection is shut.
        self._call.check()

    def fetch(self, method: str, url: str, stage: str, limit: int, **options: Any) -> Answer:
        """One answer with its body."""
        with self.stream(method, url, **options) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, headers, b"".join(self.chunks(response, limit)), stage)


def never_connected(error: requests.RequestException) -> bool:
    """Whether the request surely did not leave: no address, no connection, no TLS."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError | requests.exceptions.ProxyError):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError | SSLError)


@contextlib.contextmanager
def _stopped_with(exchange: Exchange) -> Iterator[None]:
    """The connection that is made meanwhile is shut when `exchange` is interrupted."""
    token = current_exchange.set(exchange)
    try:
        yield
    finally:
        current_exchange.reset(token)


class _Connection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        if (exchange := current_exchange.get()) is not None:
            exchange.use(self.sock)


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class _SharedTls(HTTPAdapter):
    """An adapter that uses the client's TLS context instead of loading certificates for every connection."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"https": _Pool}
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        own = {name: value for name, value in pool.items() if name not in ("ca_certs", "ca_cert_dir")}
        return host, {**own, "ssl_context": self._tls}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"
