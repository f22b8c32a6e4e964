"""The journal of a batch on one machine: an SQLite file beside the output, used by one process at a time.

Every transaction is on disk when it is over (https://sqlite.org/pragma.html#pragma_synchronous). The lock is that of a
file, so that it goes with the process that holds it, however that ends; `look` works beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from services.batch.journal import (
    COUNTED,
    DEFAULT_JOBS,
    MOST_NEIGHBOURS,
    OPEN_JOBS,
    VERSION,
    BatchRow,
    Counts,
    JobRow,
    JournalError,
    Neighbours,
    NewProduct,
    PictureRow,
    Product,
    ProductState,
    Store,
    as_text,
    check_recipe,
    check_version,
    other_input,
    over_budget,
)

FILE_NAME = "batch.sqlite"
LOCK_NAME = "batch.lock"
LOOK_S = 0.01
"""How long to wait for those who only look at the lock."""
BUSY_S = 10.0
"""How long `look` may hold up the run, and the other way round."""
PAGE = 200
"""Results that are read at once."""
SUM_USD = 1e-9
"""Sums of dollars differ by so much for the order in which they were added."""

# A job's result stands last: what is before it is read without it.
TABLES = """
CREATE TABLE batch (
    id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, recipe TEXT NOT NULL, max_jobs INTEGER NOT NULL,
    max_usd REAL, committed REAL NOT NULL DEFAULT 0, paused INTEGER NOT NULL DEFAULT 0,
    intents INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE product (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, line INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0, ended INTEGER, result_bytes INTEGER NOT NULL DEFAULT 0, input TEXT NOT NULL,
    result BLOB
);
CREATE INDEX product_by_state ON product (state, id);
CREATE INDEX product_by_end ON product (ended, result_bytes) WHERE ended IS NOT NULL;
CREATE TABLE job (
    product INTEGER NOT NULL, step TEXT NOT NULL, state TEXT NOT NULL, endpoint TEXT NOT NULL, args_hash TEXT NOT NULL,
    request_id TEXT, estimate REAL NOT NULL, cost REAL, unknown INTEGER NOT NULL DEFAULT 0, intent_at REAL NOT NULL,
    number INTEGER NOT NULL, told INTEGER, over_by REAL, result TEXT,
    PRIMARY KEY (product, step)
);
CREATE INDEX job_by_state ON job (state, cost, unknown);
CREATE INDEX job_by_number ON job (number);
CREATE TABLE picture (
    product INTEGER NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL, path TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (product, name)
);
"""
CORRECT = """
UPDATE product SET input = ?, line = ?, state = 'waiting', result = NULL, result_bytes = 0, ended = NULL
WHERE key = ? AND state IN ('waiting', 'failed')
AND NOT EXISTS (SELECT 1 FROM job WHERE job.product = product.id)
AND NOT EXISTS (SELECT 1 FROM picture WHERE picture.product = product.id)
"""
_JOB = "product, step, state, endpoint, args_hash, request_id, result, estimate, intent_at, number, told, over_by"
_NOW = "(SELECT intents FROM batch)"


class SqliteStore(Store):
    """The journal in the folder of a batch's output."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        self._lock = threading.RLock()
        self._held: IO[bytes] | None = None
        self._sql: sqlite3.Connection | None = None

    # The batch

    def is_there(self) -> bool:
        return self._path.exists()

    def open(self, recipe: Mapping[str, Any] | None, max_jobs: int | None, max_usd: float | None) -> BatchRow:
        if recipe is None and not self._path.exists():
            raise self._none_there()
        self._take_lock()
        try:
            if recipe is not None and not self._path.exists():
                self._create(recipe, max_jobs or DEFAULT_JOBS, max_usd)
            self._connect()
            with self._transaction() as sql:
                row = self._row(sql)
                check_recipe(row.recipe, recipe)
                sql.execute(
                    "UPDATE batch SET max_jobs = coalesce(?, max_jobs), max_usd = coalesce(?, max_usd), paused = 0",
                    (max_jobs, max_usd),
                )
                # Whoever had these is gone, since the lock is ours.
                sql.execute("UPDATE product SET state = 'waiting' WHERE state = 'running'")
                sql.execute(f"UPDATE job SET state = 'ambiguous', told = {_NOW} WHERE state = 'intent'")
                return self._row(sql)
        except BaseException:
            self.close()
            raise

    def look(self) -> None:
        if not self._path.exists():
            raise self._none_there()
        self._connect()

    def is_worked_on(self) -> bool:
        try:
            with open(self._folder / LOCK_NAME, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def batch(self) -> BatchRow:
        with self._reading() as sql:
            return self._row(sql)

    def set_paused(self, paused: bool) -> None:
        with self._transaction() as sql:
            sql.execute("UPDATE batch SET paused = ?", (int(paused),))

    def close(self) -> None:
        with self._lock:
            if self._sql is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._sql.close()
                self._sql = None
            if self._held is not None:
                self._held.close()
                self._held = None

    # Products

    def add(self, products: Iterable[NewProduct]) -> int:
        added = 0
        with self._transaction() as sql:
            for one in products:
                text = as_text(one.input)
                found = sql.execute("SELECT input FROM product WHERE key = ?", (one.key,)).fetchone()
                if found is None:
                    row = (one.key, one.line, text)
                    sql.execute("INSERT INTO product (key, line, input) VALUES (?, ?, ?)", row)
                    added += 1
                elif found[0] != text and not sql.execute(CORRECT, (text, one.line, one.key)).rowcount:
                    raise other_input(one, json.loads(found[0]))
        return added

    def has_products(self) -> bool:
        with self._reading() as sql:
            return bool(sql.execute("SELECT EXISTS (SELECT 1 FROM product)").fetchone()[0])

    def claim(self, limit: int) -> Sequence[Product]:
        with self._transaction() as sql:
            rows = sql.execute(
                "SELECT id, key, line, input, attempts + 1 FROM product WHERE state = 'waiting' ORDER BY id LIMIT ?",
                (limit,),
            ).fetchall()
            change = "UPDATE product SET state = 'running', attempts = attempts + 1 WHERE id = ?"
            sql.executemany(change, [(row[0],) for row in rows])
        return [Product(id, key, line, json.loads(text), attempts) for id, key, line, text, attempts in rows]

    def unfinished(self) -> bool:
        return False

    def put_back(self, product: int, delay_s: float) -> None:
        with self._transaction() as sql:
            sql.execute("UPDATE product SET state = 'waiting', attempts = attempts - 1 WHERE id = ?", (product,))

    def finish(self, product: int, state: ProductState, line: bytes) -> None:
        with self._transaction() as sql:
            sql.execute(
                "UPDATE product SET state = ?, result = ?, result_bytes = ?, "
                "ended = (SELECT coalesce(max(ended), 0) + 1 FROM product WHERE ended IS NOT NULL) WHERE id = ?",
                (state, line, len(line) + 1, product),
            )

    def again(self, states: Sequence[ProductState]) -> int:
        with self._transaction() as sql:
            return sql.execute(
                "UPDATE product SET state = 'waiting', result = NULL, result_bytes = 0, ended = NULL "
                "WHERE state IN (SELECT value FROM json_each(?))",
                (json.dumps(list(states)),),
            ).rowcount

    def counts(self) -> Counts:
        with self._reading() as sql:
            products = dict(sql.execute("SELECT state, count(*) FROM product GROUP BY state").fetchall())
            wanted = "SELECT state, count(*), total(cost), sum(unknown) FROM job GROUP BY state"
            jobs = sql.execute(wanted).fetchall()
        waiting, running, done, failed, ambiguous = (products.get(state, 0) for state in COUNTED)
        return Counts(
            *(waiting, running, done, failed, ambiguous),
            jobs={state: count for state, count, _, _ in jobs},
            cost_usd=sum(cost for _, _, cost, _ in jobs),
            unknown_costs=sum(unknown for _, _, _, unknown in jobs),
        )

    def results(self) -> Iterator[bytes]:
        last = 0
        while True:
            with self._reading() as sql:
                page = sql.execute(
                    "SELECT ended, result FROM product WHERE ended > ? ORDER BY ended LIMIT ?", (last, PAGE)
                ).fetchall()
            for last, line in page:  # noqa: B007 - where the next page begins
                yield bytes(line)
            if not page:
                return

    def result_bytes(self) -> int:
        with self._reading() as sql:
            wanted = "SELECT coalesce(sum(result_bytes), 0) FROM product WHERE ended IS NOT NULL"
            return int(sql.execute(wanted).fetchone()[0])

    # Jobs

    def begin(
        self, product: int, step: str, endpoint: str, args_hash: str, estimate: float, *, retry_ambiguous: bool
    ) -> JobRow | None:
        with self._transaction() as sql:
            row = self._job(sql, product, step)
            if row is not None and row.state == "intent":
                raise JournalError(f"Two jobs of one product are called {step}.", hint="Give its styles other names.")
            if row is not None and row.state != "failed" and not (row.state == "ambiguous" and retry_ambiguous):
                return row
            reserved = sql.execute(
                "UPDATE batch SET committed = committed + :estimate, intents = intents + 1 "
                "WHERE max_usd IS NULL OR committed + :estimate <= max_usd + :slack",
                {"estimate": estimate, "slack": SUM_USD},
            ).rowcount
            if not reserved:
                raise over_budget(self._row(sql), estimate)
            sql.execute(
                "INSERT INTO job (product, step, state, endpoint, args_hash, estimate, intent_at, number) "
                f"VALUES (?, ?, 'intent', ?, ?, ?, ?, {_NOW}) ON CONFLICT (product, step) DO UPDATE SET "
                "state = 'intent', endpoint = excluded.endpoint, args_hash = excluded.args_hash, "
                "estimate = excluded.estimate, intent_at = excluded.intent_at, number = excluded.number, "
                "told = NULL, over_by = NULL, request_id = NULL, result = NULL, "
                # fal may have run, and billed, the one in doubt.
                "unknown = unknown + (state = 'ambiguous')",
                (product, step, endpoint, args_hash, estimate, time.time()),
            )
        return None

    def sent(self, product: int, step: str, request_id: str) -> None:
        self._change(product, step, f"state = 'sent', request_id = ?, told = {_NOW}", request_id)

    def refused(self, product: int, step: str) -> None:
        with self._transaction() as sql:
            self._give_back(sql, product, step)

    def in_doubt(self, product: int, step: str, request_id: str | None) -> None:
        self._change(product, step, f"state = 'ambiguous', request_id = ?, told = {_NOW}", request_id)

    def done(self, product: int, step: str, result: Mapping[str, Any], cost: float | None) -> None:
        with self._transaction() as sql:
            self._spend(sql, product, step, cost)
            self._change(
                product, step, "state = 'done', request_id = ?, result = ?", result["request_id"], as_text(result)
            )

    def failed(self, product: int, step: str, cost: float | None) -> None:
        with self._transaction() as sql:
            self._spend(sql, product, step, cost)
            self._change(product, step, "state = 'failed'")

    def unusable(self, product: int, request_ids: Sequence[str]) -> None:
        with self._transaction() as sql:
            sql.execute(
                "UPDATE job SET state = 'failed' WHERE product = ? AND state = 'done' "
                "AND request_id IN (SELECT value FROM json_each(?))",
                (product, json.dumps(list(request_ids))),
            )

    def cost(self, product: int) -> float | None:
        with self._reading() as sql:
            wanted = f"SELECT total(cost), total(unknown OR state IN {OPEN_JOBS}) FROM job WHERE product = ?"
            cost, unknown = sql.execute(wanted, (product,)).fetchone()
        return None if unknown else round(cost, 9)

    # Settling what is in doubt

    def in_doubt_rows(self) -> Sequence[JobRow]:
        with self._reading() as sql:
            wanted = f"SELECT {_JOB} FROM job WHERE state = 'ambiguous' ORDER BY intent_at"
            return [_job_row(row) for row in sql.execute(wanted)]

    def neighbours(self, row: JobRow) -> Neighbours:
        others = f"SELECT {_JOB} FROM job WHERE endpoint = ? AND request_id IS NOT NULL AND "
        with self._reading() as sql:
            before = sql.execute(
                f"{others} number < ? AND told < ? ORDER BY number DESC LIMIT {MOST_NEIGHBOURS}",
                (row.endpoint, row.number, row.number),
            ).fetchall()
            after = sql.execute(
                f"{others} number > ? ORDER BY number LIMIT {MOST_NEIGHBOURS}", (row.endpoint, row.told)
            ).fetchall()
        return Neighbours([_job_row(other) for other in before], [_job_row(other) for other in after])

    def over_by(self, product: int, step: str, moment: float) -> None:
        self._change(product, step, "over_by = ?", moment)

    def adopt(self, product: int, step: str, request_id: str) -> None:
        with self._transaction() as sql:
            self._change(product, step, "state = 'sent', request_id = ?", request_id)
            self._let_wait(sql, product)

    def drop(self, product: int, step: str) -> None:
        with self._transaction() as sql:
            self._give_back(sql, product, step)
            self._let_wait(sql, product)

    def knows(self, request_id: str) -> bool:
        with self._reading() as sql:
            wanted = "SELECT EXISTS (SELECT 1 FROM job WHERE request_id = ?)"
            return bool(sql.execute(wanted, (request_id,)).fetchone()[0])

    # Pictures

    def picture(self, product: int, name: str) -> PictureRow | None:
        with self._reading() as sql:
            wanted = "SELECT name, url, path, bytes FROM picture WHERE product = ? AND name = ?"
            found = sql.execute(wanted, (product, name)).fetchone()
        return None if found is None else PictureRow(*found)

    def saved(self, product: int, picture: PictureRow) -> None:
        with self._transaction() as sql:
            sql.execute("INSERT OR REPLACE INTO picture VALUES (?, ?, ?, ?, ?)", (product, *picture))

    # The file

    def _take_lock(self) -> None:
        try:
            self._held = open(self._folder / LOCK_NAME, "a+b")  # noqa: SIM115 - held until `close`
            _lock(self._held)
        except BlockingIOError as error:
            self.close()
            raise JournalError(
                f"Another process works on the batch in {str(self._folder)!r}.",
                hint="Wait for its end, or look at it with --status.",
            ) from error
        except OSError as error:
            self.close()
            raise _unwritable(self._folder, error) from error

    def _create(self, recipe: Mapping[str, Any], max_jobs: int, max_usd: float | None) -> None:
        """In a file beside, which then takes the place: a journal that is there is whole."""
        if (self._folder / "results.jsonl").exists():
            raise JournalError(
                f"The folder {str(self._folder)!r} has the results of a batch, but not its journal.",
                hint="Restore batch.sqlite there, or begin in another folder: what is done would be paid for again.",
            )
        new = self._path.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            sql = sqlite3.connect(new)
            with contextlib.closing(sql), sql:
                sql.executescript(TABLES)
                sql.execute(
                    "INSERT INTO batch (id, version, recipe, max_jobs, max_usd) VALUES (1, ?, ?, ?, ?)",
                    (VERSION, as_text(recipe), max_jobs, max_usd),
                )
            os.replace(new, self._path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(self._folder, error) from error

    def _connect(self) -> None:
        with self._told():
            if self._path.stat().st_size == 0:  # which SQLite takes for a new one
                raise _damaged(self._path, "it is empty")
            self._sql = sql = sqlite3.connect(
                self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute("PRAGMA synchronous = FULL")
            check_version(sql.execute("SELECT version FROM batch").fetchone()[0])

    def _none_there(self) -> JournalError:
        return JournalError(
            f"There is no batch in {str(self._folder)!r}.", hint="Begin one with --input, or correct --output."
        )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            if self._sql is None:
                raise JournalError("The journal is closed.")
            yield self._sql

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One that may stand within another, whose part it then is."""
        with self._reading() as sql:
            if sql.in_transaction:
                yield sql
                return
            sql.execute("BEGIN IMMEDIATE")
            try:
                yield sql
                sql.execute("COMMIT")
            except BaseException:
                if sql.in_transaction:
                    sql.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise _journal_error(self._path, error) from error
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def _row(self, sql: sqlite3.Connection) -> BatchRow:
        wanted = "SELECT recipe, max_jobs, max_usd, committed, paused FROM batch"
        recipe, max_jobs, max_usd, committed, paused = sql.execute(wanted).fetchone()
        return BatchRow(json.loads(recipe), max_jobs, max_usd, committed, bool(paused))

    def _job(self, sql: sqlite3.Connection, product: int, step: str) -> JobRow | None:
        wanted = f"SELECT {_JOB} FROM job WHERE product = ? AND step = ?"
        found = sql.execute(wanted, (product, step)).fetchone()
        return None if found is None else _job_row(found)

    def _change(self, product: int, step: str, what: str, *values: Any) -> None:
        with self._transaction() as sql:
            sql.execute(f"UPDATE job SET {what} WHERE product = ? AND step = ?", (*values, product, step))

    def _spend(self, sql: sqlite3.Connection, product: int, step: str, cost: float | None) -> None:
        """The actual cost takes the place of the estimate."""
        if cost is None:
            self._change(product, step, "unknown = unknown + 1")
            return
        at = (product, step)
        change = (
            "UPDATE batch SET committed = committed + ? - (SELECT estimate FROM job WHERE product = ? AND step = ?)"
        )
        sql.execute(change, (cost, *at))
        sql.execute("UPDATE job SET cost = coalesce(cost, 0) + ? WHERE product = ? AND step = ?", (cost, *at))

    def _give_back(self, sql: sqlite3.Connection, product: int, step: str) -> None:
        at = (product, step)
        change = "UPDATE batch SET committed = committed - (SELECT estimate FROM job WHERE product = ? AND step = ?)"
        sql.execute(change, at)
        sql.execute("DELETE FROM job WHERE product = ? AND step = ? AND cost IS NULL AND unknown = 0", at)
        # Something was, or may have been, paid for under it before.
        sql.execute("UPDATE job SET state = 'failed' WHERE product = ? AND step = ?", at)

    def _let_wait(self, sql: sqlite3.Connection, product: int) -> None:
        sql.execute(
            "UPDATE product SET state = 'waiting', result = NULL, result_bytes = 0, ended = NULL "
            "WHERE id = ? AND state = 'ambiguous'",
            (product,),
        )


def _lock(file: IO[bytes]) -> None:
    """Raises BlockingIOError when another process works on the batch."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Beside those who only look, and share it for a moment, a share is to be had; beside who works here, none.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(LOOK_S)


def _job_row(row: Sequence[Any]) -> JobRow:
    found = JobRow(*row)
    return found if found.result is None else found._replace(result=json.loads(row[6]))


def _damaged(path: Path, why: str) -> JournalError:
    return JournalError(
        f"The journal {str(path)!r} cannot be read: {why}.",
        hint="Restore it from a copy, with batch.sqlite-wal if there is one. Without it the batch would be paid again.",
    )


def _unwritable(folder: Path, error: Exception) -> JournalError:
    reason = getattr(error, "strerror", None) or error
    return JournalError(
        f"The folder {str(folder)!r} cannot be written to: {reason}.",
        hint="Correct that, and run the same command again: it goes on where it was.",
    )


def _journal_error(path: Path, error: sqlite3.DatabaseError) -> JournalError:
    # Without a table it is no journal of ours, though it is a database.
    if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
        return _unwritable(path.parent, error)
    return _damaged(path, str(error))
