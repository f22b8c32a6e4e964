"""A running sandbox: its loop in a thread of its own, and the methods that tests use.

The same abilities exist over HTTP under `/_sandbox/` (control_api), for programs in other processes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from fal_sandbox.app import create_app
from fal_sandbox.keys import KEY
from fal_sandbox.memory import Settings
from fal_sandbox.options import options_of
from fal_sandbox.proxy import Authority, Proxy
from fal_sandbox.state import State
from fal_sandbox.wire_types import Json

HOST = "127.0.0.1"
NO_PROXY = "localhost,127.0.0.1,::1"
"""Other servers on this machine, and the control prefix, are reached directly."""
CA_NAME = "fal-sandbox-ca.pem"
ANSWER_S = 30.0
"""How long the loop may take to answer another thread; longer means that it hangs."""

T = TypeVar("T")


class Sandbox:
    """fal's hosts on this machine, from `start` to `stop` or for a `with` block."""

    def __init__(
        self,
        *,
        port: int = 0,
        latency: float = 0.0,
        queue: float = 0.0,
        any_endpoint: bool = False,
        hosts: Sequence[str] = (),
        keepalive_s: float = 75.0,
        gone: Sequence[str] = (),
        gone_models: Sequence[str] = (),
        must_reason: Sequence[str] = (),
        in_place: bool = False,
        misbehave: Sequence[str] = (),
        seed: int = 0,
        ca_dir: str | None = None,
    ) -> None:
        """`ca_dir` is the folder for the CA certificate, else a temporary one. A ValueError names a bad setting."""
        given = {"latency": latency, "queue": queue, "any_endpoint": any_endpoint, "hosts": tuple(hosts)}
        given |= {"keepalive_s": keepalive_s, "gone": tuple(gone), "seed": seed}
        given |= {"in_place": in_place, "misbehave": tuple(misbehave)}
        given |= {"gone_models": tuple(gone_models), "must_reason": tuple(must_reason)}
        self._state = State(options_of(Settings, "setting", given))
        self._asked_port = port
        self._ca_dir = ca_dir
        self._folder: Path | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.port = 0

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listens and is ready when it returns; an OSError when the port is taken or `ca_dir` cannot be written."""
        self._folder = _ca_folder(self._ca_dir)
        ready: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="fal-sandbox", daemon=True)
        self._thread.start()
        try:
            self.port = ready.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cuts every connection, ends every job, removes the CA file."""
        if self._thread is not None and self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / CA_NAME).unlink()
                if self._ca_dir is None:
                    self._folder.rmdir()
            self._folder = None

    @property
    def url(self) -> str:
        """The proxy's URL, and the base of the control prefix."""
        return f"http://{HOST}:{self.port}"

    @property
    def ca_file(self) -> str:
        """The CA certificate; there from `start` to `stop`."""
        if self._folder is None:
            raise RuntimeError("the sandbox is not running; call start() or use it in a with block")
        return str(self._folder / CA_NAME)

    def env(self) -> dict[str, str]:
        """What an unmodified client needs in its environment."""
        return {
            "HTTPS_PROXY": self.url,
            "https_proxy": self.url,
            "NO_PROXY": NO_PROXY,
            "no_proxy": NO_PROXY,
            "SSL_CERT_FILE": self.ca_file,
            "REQUESTS_CA_BUNDLE": self.ca_file,
            "CURL_CA_BUNDLE": self.ca_file,
            "NODE_EXTRA_CA_CERTS": self.ca_file,
            # Node 24 and newer go through the proxy by themselves when this is set.
            "NODE_USE_ENV_PROXY": "1",
            "FAL_KEY": KEY,
        }

    def fault(self, stage: str, **what: Json) -> None:
        """Scripts a fault; stages and options are described in `faults`."""
        self._ask(lambda: self._state.fault(stage, **what))

    def say(self, text: str, endpoint: str | None = None, times: int | None = 1) -> None:
        """Puts a text into the mouth of the text endpoints, or of one."""
        self._ask(lambda: self._state.say(text, endpoint=endpoint, times=times))

    def configure(self, **what: Json) -> None:
        """Changes settings while it runs."""
        self._ask(lambda: self._state.configure(**what))

    def reset(self) -> None:
        """Forgets jobs, faults, files, figures and journal; settings as at the start."""
        self._ask(self._state.reset)

    def ledger(self) -> dict[str, Any]:
        return self._ask(self._state.view)

    def journal(self) -> list[dict[str, Any]]:
        return self._ask(self._state.journal.rows)

    def webhooks(self) -> list[dict[str, Any]]:
        """The webhooks sent or dropped, with the outcome of every try."""
        return self._ask(lambda: list(self._state.webhooks.deliveries))

    def put_file(self, data: bytes, name: str, content_type: str) -> str:
        """Puts a file on the CDN and returns its URL."""
        return self._ask(lambda: self._state.files.keep([data], name, content_type))

    def file(self, url: str) -> bytes:
        """The bytes behind a CDN URL; a KeyError when there are none."""
        return self._ask(lambda: self._state.file(url))

    def wait_for(self, condition: Callable[[dict[str, Any]], object], timeout_s: float = 120.0) -> dict[str, Any]:
        """Waits until the condition holds on the ledger and returns that ledger; else a TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while True:
            seen = self._state.changed.strokes
            if condition(ledger := self.ledger()):
                return ledger
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not self._state.changed.wait(seen, remaining_s):
                figures = {name: value for name, value in ledger.items() if name != "jobs"}
                raise TimeoutError(f"not within {timeout_s} s; the ledger says {figures}")

    def _ask(self, work: Callable[[], T]) -> T:
        """Runs something on the loop's thread; after the end, nobody else touches the state."""
        if self._thread is None or self._loop is None or threading.current_thread() is self._thread:
            return work()
        reply: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                reply.set_result(work())
            except BaseException as error:
                reply.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return reply.result(ANSWER_S)

    def _run(self, ready: concurrent.futures.Future[int]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            else:
                raise

    async def _serve(self, ready: concurrent.futures.Future[int]) -> None:
        assert self._folder is not None
        authority = Authority()
        self._state.ca_pem = authority.pem
        _write_for_all(self._folder / CA_NAME, authority.pem)
        proxy = Proxy(self._state, create_app(self._state), authority)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(proxy.door, HOST, self._asked_port)
        self._loop, self._stopping = loop, asyncio.Event()
        ready.set_result(listener.sockets[0].getsockname()[1])
        try:
            await self._stopping.wait()
        finally:
            listener.close()
            await self._state.close()
            await proxy.close()
            # The transports tell their protocols that they are gone in the loop's next round.
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def _ca_folder(asked: str | None) -> Path:
    """The folder for the CA certificate. Other users and containers may read it: the CA's key is in no file."""
    if asked is not None:
        folder = Path(asked)
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return folder.resolve()
    folder = Path(tempfile.mkdtemp(prefix="fal-sandbox-", dir=_temporary_folder()))
    folder.chmod(0o755)
    return folder


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:  # as Python calls it when none of them can be written to
        reason = (
            "the CA certificate needs one, and none can be written to. Mount a tmpfs at /tmp, let TMPDIR name a folder "
            "that can be written to, or name one for the certificate with --ca_dir"
        )
        raise OSError(error.errno, reason, "a temporary folder") from error


def _write_for_all(path: Path, data: bytes) -> None:
    """A file that everybody may read, whatever the umask says, and that no other user can have put there."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(data)
