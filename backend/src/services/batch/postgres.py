"""Blocking transactions on a PostgreSQL server, for use by threads.

asyncpg needs an event loop, and the library is synchronous: one thread runs the loop, and the others hand it what is
to be done. A server that goes away in the middle is waited for, a minute at most, and the transaction is tried again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from services.batch.journal import JournalError
from services.fal.errors import FalError, InvalidInput
from services.fal.log import logger
from services.fal.redaction import remember

if TYPE_CHECKING:
    import asyncpg

    Connection: TypeAlias = asyncpg.Connection
else:
    Connection = Any

T = TypeVar("T")
Action = Callable[[Connection], Awaitable[T]]

SCHEMES = ("postgresql", "postgres")
SCHEMA = "fal_batch"
"""Where the tables are, unless the URL says otherwise: a shop's database has a table of products of its own."""
CONNECTIONS = 4
CONNECT_S = 10.0
STATEMENT_S = 30.0
"""A statement of ours takes milliseconds: this long without an answer is a lost connection."""
AWAY_S = 60.0
"""How long a server that was there is waited for: a restart, a failover."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
SOON_S = 1.0
"""After how long what is done regularly is tried again when it failed."""


class Address:
    """A journal's URL, taken apart: what may be shown of it, and where the tables are."""

    def __init__(self, url: str) -> None:
        """Raises InvalidInput, which never repeats the URL: there may be a password in it."""
        try:
            parts = urlsplit(url)
            query = parse_qs(parts.query)
            port = parts.port
        except ValueError:
            raise InvalidInput("The URL of the journal cannot be read.", hint=_LOOKS_LIKE) from None
        if parts.scheme not in SCHEMES:
            raise InvalidInput("The journal must be the URL of a PostgreSQL database.", hint=_LOOKS_LIKE)
        for password in (parts.password, *query.get("password", ())):
            if password:
                _keep_secret(unquote(password))
        self.url = url
        self.schema: str = query.get("search_path", [SCHEMA])[0]
        if not self.schema.isidentifier():
            raise InvalidInput("search_path in the URL of the journal must be one name of letters and digits.")
        host = parts.hostname or query.get("host", ["the local server"])[0]
        self.shown = f"{host}{f':{port}' if port else ''}{parts.path if parts.path != '/' else ''}"
        """For messages: the host and the database."""


def _keep_secret(password: str) -> None:
    """A plain word is never shown by us, but may stand in any text: masked there, it would spoil results."""
    if not password.isalpha():
        remember(password)


class Server:
    """Connections to one database, and the thread in which they live."""

    def __init__(self, url: str) -> None:
        """Raises InvalidInput for a URL that cannot be one, and for a missing package."""
        _require_packages()
        import uvloop

        self.address = Address(url)
        # A sixth of the processor time of a product less than with asyncio's own (bench/bench_batch.py).
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fal-journal", daemon=True)
        self._thread.start()
        self._pool: asyncpg.Pool | None = None
        self._is_away = False
        """Whether the server was waited for in vain: then nobody else waits for it until it answers."""

    def connect(self) -> None:
        """Raises JournalError at once when the server is not there or does not let us in."""
        if self._pool is None:
            self.wait(self._connect())

    async def _connect(self) -> None:
        import asyncpg

        try:
            self._pool = await asyncpg.create_pool(
                self.address.url,
                min_size=0,
                max_size=CONNECTIONS,
                timeout=CONNECT_S,
                command_timeout=STATEMENT_S,
                reset=_leave_as_is,
                server_settings={"search_path": self.address.schema, "application_name": "fal-batch"},
            )
            await self._statement("SELECT 1", ())
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise self._unreachable(error) from None

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The value of `work`, which the loop runs while this thread waits."""
        if self._loop.is_closed():
            work.close()
            raise JournalError("The journal is closed.")
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise JournalError("The journal was closed while it was being written.") from None
        except BaseException:
            future.cancel()
            raise

    def every(self, seconds: float, action: Action[None]) -> None:
        """`action` again and again until `close`, in a transaction each time; sooner when one failed."""
        asyncio.run_coroutine_threadsafe(self._every(seconds, action), self._loop)

    async def _every(self, seconds: float, action: Action[None]) -> None:
        while True:
            pause = seconds
            try:
                await self._patiently(lambda: self._transaction(action), 0.0)
            except FalError as error:
                logger.info("the journal: %s", error)
                pause = min(SOON_S, seconds)
            await asyncio.sleep(pause)

    def run(self, action: Action[T], *, patience_s: float | None = None) -> T:
        """`action` in one transaction, which is on the server's disk when this returns. Raises JournalError.

        It may be run again when the connection is lost, even after the server has committed it.
        """
        return self.wait(self._patiently(lambda: self._transaction(action), patience_s))

    def fetch(self, statement: str, *values: object) -> list[Any]:
        """The rows of one statement, which is a transaction of its own. May be run again, as `run`."""
        return self.wait(self._patiently(lambda: self._statement(statement, values)))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]], patience_s: float | None = None) -> T:
        patience_s = AWAY_S if patience_s is None else patience_s
        gives_up_at, pause = time.monotonic() + patience_s, FIRST_PAUSE_S
        while True:
            try:
                value = await attempt()
                self._is_away = False
                return value
            except Exception as error:
                if not _is_lost(error):
                    raise self._refused(error) from error
                if self._is_away or time.monotonic() + pause > gives_up_at:
                    self._is_away = self._is_away or patience_s == AWAY_S
                    raise self._unreachable(error) from None
                logger.info("waiting for the journal at %s: %s", self.address.shown, type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _statement(self, statement: str, values: Sequence[object]) -> list[Any]:
        async with self._connection() as connection:
            return list(await connection.fetch(statement, *values))

    async def _transaction(self, action: Action[T]) -> T:
        import asyncpg

        async with self._connection() as connection:
            try:
                await connection.execute("BEGIN")
                value = await action(connection)
            except (asyncpg.PostgresError, FalError):
                if not connection.is_closed():
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")
            return value

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        import asyncpg

        assert self._pool is not None
        async with self._pool.acquire(timeout=CONNECT_S) as connection:
            try:
                yield connection
            except (asyncpg.PostgresError, FalError):
                raise
            except BaseException:
                # What it is in the middle of is not known.
                connection.terminate()
                raise

    def close(self) -> None:
        """Let go of every connection, and end the thread."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            self.wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONNECT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._pool is not None:
            self._pool.terminate()

    def _unreachable(self, error: BaseException) -> JournalError:
        return JournalError(
            f"The journal's database at {self.address.shown} cannot be used: {_reason(error)}.",
            hint="Start it, look at the URL, the user and the password (PGPASSWORD, ~/.pgpass), and run the same "
            "command again: nothing is lost.",
            retryable=True,
        )

    def _refused(self, error: Exception) -> Exception:
        import asyncpg

        if not isinstance(error, asyncpg.PostgresError):
            return error
        return JournalError(
            f"The journal's database at {self.address.shown} refused a statement: {_reason(error)}.",
            hint="Correct that, and run the same command again: nothing is lost.",
        )


_LOOKS_LIKE = "It looks like postgresql://user@host/database."


async def _leave_as_is(_: Connection) -> None:
    """asyncpg resets a connection after every use, which is one more round trip; our transactions change nothing."""


def _is_lost(error: BaseException) -> bool:
    """Whether the connection is the cause, or another transaction that came in between: the next try may succeed."""
    import asyncpg

    lost = (
        OSError,  # TimeoutError too
        asyncio.TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,  # the server is shutting down, or starting up
        asyncpg.TooManyConnectionsError,
        asyncpg.InterfaceError,  # "connection is closed"
        asyncpg.TransactionRollbackError,  # deadlock
    )
    return isinstance(error, lost)


def _reason(error: BaseException) -> str:
    said = str(error).strip().rstrip(".").splitlines()
    return said[0] if said else type(error).__name__


def _require_packages() -> None:
    try:
        import asyncpg  # noqa: F401
        import pgqueuer  # noqa: F401
        import uvloop  # noqa: F401
    except ImportError as error:
        raise InvalidInput(
            f"A journal on PostgreSQL needs the package {error.name}.",
            hint='Install it: pip install "fal-python-services[cluster]".',
        ) from None
