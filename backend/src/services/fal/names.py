"""Host names to addresses, in bounded time: the system's resolver itself can take many seconds and cannot be stopped.

It runs in a daemon thread; when it takes too long it is left to itself, and the caller goes on with a time-out.
"""

from __future__ import annotations

import contextvars
import socket
import threading

from services.fal.hosts import is_address


def addresses_of(host: str, port: int, timeout_s: float) -> list[str]:
    """The addresses of `host`, in the system's order. Raises OSError, TimeoutError when it takes too long."""
    if is_address(host):
        return [host]
    found: list[str] = []
    failed: list[OSError | UnicodeError] = []

    def resolve() -> None:
        try:
            found.extend(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    thread = threading.Thread(target=contextvars.Context().run, args=(resolve,), name="fal-resolver", daemon=True)
    try:
        thread.start()
        thread.join(timeout_s)
    except RuntimeError:
        resolve()  # no thread to be had: without a limit of its own, then
    if failed:
        raise OSError(f"{host}: {failed[0]}") from failed[0]
    if not found:
        raise TimeoutError(f"The name {host} could not be resolved in {timeout_s:.1f} s.")
    return list(dict.fromkeys(found))
