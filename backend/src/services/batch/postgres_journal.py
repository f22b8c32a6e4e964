"""The journal of a batch that several machines make: on PostgreSQL, with PgQueuer handing out the products.

PgQueuer's queue holds a row for each product that waits or runs, and its `concurrency_limit` holds over all machines.
A machine that takes a row shows by a heartbeat that it lives; a row whose heartbeat stops is handed to another machine
(https://pgqueuer.readthedocs.io). Then two machines may believe that a product is theirs, one of them wrongly: what
keeps money safe is not the queue but the key of the table of jobs, under which nobody submits twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from services.batch.journal import (
    DEFAULT_JOBS,
    MOST_NEIGHBOURS,
    OPEN_JOBS,
    OWNER_GONE_S,
    VERSION,
    BatchRow,
    Counts,
    JobRow,
    JobState,
    JournalError,
    Neighbours,
    NewProduct,
    OwnerMayLive,
    PictureRow,
    Product,
    ProductState,
    Store,
    check_recipe,
    check_version,
    other_input,
    over_budget,
)
from services.batch.postgres import Connection, Server
from services.batch.postgres_tables import BEGIN_JOB, TABLES
from services.fal.journal import Later

if TYPE_CHECKING:
    from pgqueuer.models import Job
    from pgqueuer.queries import Queries

QUEUE = "product"
"""PgQueuer's name for what a row is about: its entrypoint."""
HEARTBEAT_S = 30.0
"""A machine that has not been heard of for so long is dead: its products go to others."""
BEATS = 4
"""Heartbeats in that time."""
NONE_S = 0.25
"""How long a machine that found nothing to claim does not ask again."""
FORGOTTEN_S = 120.0
"""For so long a job may run at fal that nobody waits for."""
SOONEST_S = 0.1
LATER_S = 0.02
"""Times `max_jobs`: how long who found all places taken waits, so that all who wait ask some 50 times a second."""
PAGE = 1000
"""Rows that are read or written at once."""
COUNT_SHARE = 20
"""Counting takes at most one part in so many of the time: a million products take a second to count."""


class PostgresStore(Store):
    """One process's hold on the journal; see `Store` for what its methods do and raise."""

    def __init__(self, url: str) -> None:
        """Raises InvalidInput for a URL that cannot be one, and when the extra `cluster` is not installed."""
        self._server = Server(url)
        self._schema = self._server.address.schema
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._machine = uuid.uuid4()
        self._claimed: dict[int, Job] = {}
        """The queue's rows of the products that this process works on."""
        self._max_jobs = 1
        self._none_until = 0.0
        """Until when there is nothing to claim, as far as is known."""
        self._counted: tuple[float, Counts] | None = None
        """Until when the last count is good enough."""
        self._queries: Queries | None = None

    # The batch

    def is_there(self) -> bool:
        self._server.connect()
        return self._server.run(self._is_there)

    def open(self, recipe: Mapping[str, Any] | None, max_jobs: int | None, max_usd: float | None) -> BatchRow:
        self._server.connect()
        try:
            row = self._server.run(lambda connection: self._open(connection, recipe, max_jobs, max_usd))
        except BaseException:
            self._server.close()
            raise
        self._max_jobs = row.max_jobs
        self._server.every(HEARTBEAT_S / BEATS, self._beat)
        return row

    async def _open(
        self, connection: Connection, recipe: Mapping[str, Any] | None, max_jobs: int | None, max_usd: float | None
    ) -> BatchRow:
        # Of two machines that begin at once, one makes the tables.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"fal batch {self._schema}")
        if not await self._is_there(connection):
            await self._create(connection, recipe)
        check_recipe((await self._batch(connection)).recipe, recipe)
        await connection.execute(
            "UPDATE batch SET max_jobs = coalesce($1, max_jobs), max_usd = coalesce($2, max_usd), paused = false",
            max_jobs,
            None if max_usd is None else _exact(max_usd),
        )
        return await self._batch(connection)

    async def _is_there(self, connection: Connection) -> bool:
        """Raises JournalError for a batch of another version."""
        if await connection.fetchval("SELECT to_regclass('batch')") is None:
            return False
        check_version(await connection.fetchval("SELECT version FROM batch"))
        return True

    async def _create(self, connection: Connection, recipe: Mapping[str, Any] | None) -> None:
        if recipe is None:
            raise self._none_there()
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        await connection.execute(TABLES)
        await connection.execute(BEGIN_JOB)
        await self._queue(connection).install()
        await connection.execute(
            "INSERT INTO batch (id, version, recipe, max_jobs) VALUES (1, $1, $2, $3)",
            VERSION,
            json.dumps(dict(recipe)),
            DEFAULT_JOBS,
        )

    def _none_there(self) -> JournalError:
        return JournalError(
            f"There is no batch in the journal at {self._server.address.shown}.",
            hint="Begin one with --input, or correct --journal.",
        )

    def look(self) -> None:
        if not self.is_there():
            raise self._none_there()

    def is_worked_on(self) -> bool:
        async def act(connection: Connection) -> bool:
            table = self._queue(connection).qbe.settings.queue_table
            return bool(
                await connection.fetchval(
                    f"SELECT EXISTS (SELECT FROM {table} WHERE status = 'picked' AND heartbeat > now() - $1::interval)",
                    timedelta(seconds=HEARTBEAT_S),
                )
            )

        return self._server.run(act)

    def batch(self) -> BatchRow:
        row = self._server.run(self._batch)
        self._max_jobs = row.max_jobs
        return row

    async def _batch(self, connection: Connection) -> BatchRow:
        row = await connection.fetchrow("SELECT recipe, max_jobs, max_usd, committed, paused FROM batch")
        return BatchRow(
            json.loads(row["recipe"]),
            row["max_jobs"],
            _dollars(row["max_usd"]),
            float(row["committed"]),
            row["paused"],
        )

    def set_paused(self, paused: bool) -> None:
        self._server.fetch("UPDATE batch SET paused = $1", paused)

    def close(self) -> None:
        async def put_all_back(connection: Connection) -> None:
            for product in list(self._claimed):
                await self._put_back(connection, product, 0.0)

        if self._claimed:
            # Others need not wait until the heartbeat is missed.
            with contextlib.suppress(JournalError):
                self._server.run(put_all_back, patience_s=0.0)
        self._server.close()

    # Products

    def add(self, products: Iterable[NewProduct]) -> int:
        # They may be more than memory holds, and can be read once: a connection that is lost is not waited for.
        return self._server.run(lambda connection: self._add(connection, iter(products)), patience_s=0.0)

    async def _add(self, connection: Connection, rows: Iterator[NewProduct]) -> int:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('fal batch products'))")
        added = 0
        while page := list(islice(rows, PAGE)):
            known = await connection.fetch(
                "SELECT key, input FROM product WHERE key = ANY($1)", [product.key for product in page]
            )
            inputs = {row["key"]: json.loads(row["input"]) for row in known}
            for product in page:
                if product.key in inputs and inputs[product.key] != dict(product.input):
                    await self._correct(connection, product, inputs[product.key])
            new = [product for product in page if product.key not in inputs]
            ids = await connection.fetch(
                "INSERT INTO product (key, line, input) "
                "SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[]) RETURNING id",
                [product.key for product in new],
                [product.line for product in new],
                [json.dumps(dict(product.input)) for product in new],
            )
            await self._enqueue(connection, [row["id"] for row in ids])
            added += len(ids)
        return added

    async def _correct(self, connection: Connection, product: NewProduct, before: Mapping[str, Any]) -> None:
        row = await connection.fetchrow(
            "UPDATE product SET input = $2, line = $3 WHERE key = $1 AND state IN ('waiting', 'failed') "
            "AND NOT EXISTS (SELECT FROM job WHERE job.product = product.id) "
            "AND NOT EXISTS (SELECT FROM picture WHERE picture.product = product.id) RETURNING id",
            product.key,
            json.dumps(dict(product.input)),
            product.line,
        )
        if row is None:
            raise other_input(product, before)
        await self._wait_again(connection, "id = $1 AND state = 'failed'", row["id"])

    def has_products(self) -> bool:
        return bool(self._value("SELECT EXISTS (SELECT FROM product)"))

    def claim(self, limit: int) -> Sequence[Product]:
        """One at a time: what waits in a machine's page would keep its place from the other machines."""
        now = time.monotonic()
        if limit < 1 or now < self._none_until:
            return []
        claimed = self._server.run(self._claim)
        if not claimed:
            self._none_until = now + NONE_S
        return claimed

    async def _claim(self, connection: Connection) -> Sequence[Product]:
        from pgqueuer.models import QueueEntrypoint, QueueManagerId
        from pgqueuer.queries import EntrypointExecutionParameter

        jobs = await self._queue(connection).dequeue(
            batch_size=1,
            entrypoints={QueueEntrypoint(QUEUE): EntrypointExecutionParameter(self._max_jobs)},
            queue_manager_id=QueueManagerId(self._machine),
            global_concurrency_limit=None,
            heartbeat_timeout=timedelta(seconds=HEARTBEAT_S),
        )
        # After a while without heartbeats the queue may hand us what is ours already.
        mine = {int(job.payload or b""): job for job in jobs}
        new = [product for product in mine if product not in self._claimed]
        if not new:
            return []
        rows = await connection.fetch(
            "UPDATE product SET state = 'running', owner = $2, attempts = attempts + 1 "
            "WHERE id = ANY($1) AND state IN ('waiting', 'running') RETURNING id, key, line, input, attempts",
            new,
            self._owner,
        )
        self._claimed.update({row["id"]: mine[row["id"]] for row in rows})
        return [Product(row["id"], row["key"], row["line"], json.loads(row["input"]), row["attempts"]) for row in rows]

    def unfinished(self) -> bool:
        return bool(self._value("SELECT EXISTS (SELECT FROM product WHERE state IN ('waiting', 'running'))"))

    def put_back(self, product: int, delay_s: float) -> None:
        self._server.run(lambda connection: self._put_back(connection, product, delay_s))
        self._let_go(product)

    def _let_go(self, product: int) -> None:
        self._claimed.pop(product, None)
        self._none_until = 0.0  # its place is free

    async def _put_back(self, connection: Connection, product: int, delay_s: float) -> None:
        still_ours = await connection.fetchval(
            "UPDATE product SET state = 'waiting', owner = NULL, attempts = attempts - 1 "
            "WHERE id = $1 AND owner = $2 AND state = 'running' RETURNING id",
            product,
            self._owner,
        )
        if still_ours is not None:
            await self._queue(connection).retry_job(self._claimed[product], timedelta(seconds=delay_s), None)

    def finish(self, product: int, state: ProductState, line: bytes) -> None:
        async def act(connection: Connection) -> None:
            # A machine that was taken for dead may bring what it made: it is paid for. Its failures are not wanted.
            is_over = await connection.fetchval(
                "UPDATE product SET state = $3, result = $4, owner = NULL, ended = nextval('ended') "
                "WHERE id = $1 AND state IN ('waiting', 'running') AND (owner = $2 OR $3 = 'done') RETURNING true",
                product,
                self._owner,
                state,
                line,
            )
            if not is_over:  # here, but perhaps elsewhere
                is_over = await connection.fetchval(
                    "SELECT state NOT IN ('waiting', 'running') FROM product WHERE id = $1", product
                )
            if is_over:
                await self._queue(connection).log_jobs([(self._claimed[product], "successful", None)])

        self._server.run(act)
        self._let_go(product)

    def again(self, states: Sequence[ProductState]) -> int:
        async def act(connection: Connection) -> int:
            return await self._wait_again(connection, "state = ANY($1)", list(states))

        return self._server.run(act)

    async def _wait_again(self, connection: Connection, which: str, *values: object) -> int:
        rows = await connection.fetch(
            f"UPDATE product SET state = 'waiting', result = NULL, ended = NULL WHERE {which} RETURNING id", *values
        )
        await self._enqueue(connection, [row["id"] for row in rows])
        return len(rows)

    def counts(self) -> Counts:
        now = time.monotonic()
        # Exact before this process has begun and after its last product has ended.
        if self._counted is None or now >= self._counted[0] or not self._claimed:
            counts = self._server.run(self._count)
            took = time.monotonic() - now
            self._counted = now + COUNT_SHARE * took, counts
        return self._counted[1]

    async def _count(self, connection: Connection) -> Counts:
        products = dict(await connection.fetch("SELECT state, count(*) FROM product GROUP BY state"))
        jobs = await connection.fetch("SELECT state, count(*), sum(cost), sum(unknown) FROM job GROUP BY state")
        return Counts(
            waiting=products.get("waiting", 0),
            running=products.get("running", 0),
            done=products.get("done", 0),
            failed=products.get("failed", 0),
            ambiguous=products.get("ambiguous", 0),
            jobs={state: count for state, count, _, _ in jobs},
            cost_usd=float(sum(cost or 0 for _, _, cost, _ in jobs)),
            unknown_costs=sum(unknown for _, _, _, unknown in jobs),
        )

    def results(self) -> Iterator[bytes]:
        last = 0
        while rows := self._server.fetch(
            "SELECT ended, result FROM product WHERE ended > $1 ORDER BY ended LIMIT $2", last, PAGE
        ):
            for row in rows:
                yield row["result"]
            last = rows[-1]["ended"]

    def result_bytes(self) -> int:
        return int(
            self._value("SELECT coalesce(sum(octet_length(result) + 1), 0) FROM product WHERE ended IS NOT NULL")
        )

    # Jobs

    def begin(
        self, product: int, step: str, endpoint: str, args_hash: str, estimate: float, *, retry_ambiguous: bool
    ) -> JobRow | Later | None:
        call = uuid.uuid4().hex
        while True:
            verdict = self._value(
                "SELECT begin_job($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                *(product, step, endpoint, args_hash, _exact(estimate), self._owner, call, retry_ambiguous),
                *(timedelta(seconds=OWNER_GONE_S), timedelta(seconds=FORGOTTEN_S)),
            )
            if verdict == "recorded":
                return None
            if verdict == "later":
                return Later(max(SOONEST_S, LATER_S * self._max_jobs))
            if verdict == "over budget":
                raise over_budget(self.batch(), estimate)
            rows = self._server.fetch(f"{_JOB} WHERE product = $1 AND step = $2", product, step)
            if not rows:
                continue  # another machine was refused it in this moment
            if verdict == "owner may live":
                error = OwnerMayLive(f"The job {step} may be on its way from another machine.")
                error.wait_s = max(0.0, OWNER_GONE_S - rows[0]["age_s"])
                raise error
            return _job_row(rows[0])

    def sent(self, product: int, step: str, request_id: str) -> None:
        # Also when others have given it up meanwhile: now its id is known.
        self._server.fetch(
            f"UPDATE job SET state = 'sent', request_id = $3, told = {_NOW} "
            "WHERE product = $1 AND step = $2 AND state IN ('intent', 'ambiguous') AND owner = $4",
            product,
            step,
            request_id,
            self._owner,
        )

    def refused(self, product: int, step: str) -> None:
        which = "state IN ('intent', 'ambiguous') AND owner = $3"
        self._server.fetch(_give_back(which), product, step, self._owner)

    def in_doubt(self, product: int, step: str, request_id: str | None) -> None:
        self._server.fetch(
            f"UPDATE job SET state = 'ambiguous', request_id = coalesce($3, request_id), told = {_NOW} "
            "WHERE product = $1 AND step = $2 AND state = 'intent' AND owner = $4",
            product,
            step,
            request_id,
            self._owner,
        )

    def done(self, product: int, step: str, result: Mapping[str, Any], cost: float | None) -> None:
        self._end(product, step, "done", cost, result)

    def failed(self, product: int, step: str, cost: float | None) -> None:
        self._end(product, step, "failed", cost, {})

    def _end(self, product: int, step: str, state: JobState, cost: float | None, result: Mapping[str, Any]) -> None:
        self._server.fetch(
            f"""
            WITH ended AS (
                UPDATE job SET state = $3, cost = coalesce(cost + $4, $4, cost), result = $5,
                    unknown = unknown + ($4 IS NULL)::integer, request_id = coalesce($6, request_id),
                    -- It may be another's job that ended under this key.
                    told = CASE WHEN request_id IS DISTINCT FROM coalesce($6, request_id) THEN {_NOW} ELSE told END
                WHERE product = $1 AND step = $2 AND state IN ('intent', 'sent', 'ambiguous')
                RETURNING coalesce($4 - estimate, 0) AS difference
            )
            UPDATE batch SET committed = committed + ended.difference FROM ended
            """,
            product,
            step,
            state,
            None if cost is None else _exact(cost),
            json.dumps(dict(result)) if result else None,
            result.get("request_id"),
        )

    def unusable(self, product: int, request_ids: Sequence[str]) -> None:
        self._server.fetch(
            "UPDATE job SET state = 'failed', result = NULL "
            "WHERE product = $1 AND request_id = ANY($2) AND state = 'done'",
            product,
            list(request_ids),
        )

    def cost(self, product: int) -> float | None:
        [(cost, is_known)] = self._server.fetch(
            f"SELECT coalesce(sum(cost), 0), coalesce(bool_and(unknown = 0 AND state NOT IN {OPEN_JOBS}), true) "
            "FROM job WHERE product = $1",
            product,
        )
        return float(cost) if is_known else None

    # Settling what is in doubt

    def in_doubt_rows(self) -> Sequence[JobRow]:
        return [_job_row(row) for row in self._server.fetch(f"{_JOB} WHERE state = 'ambiguous' ORDER BY intent_at")]

    def knows(self, request_id: str) -> bool:
        return bool(self._value("SELECT EXISTS (SELECT FROM job WHERE request_id = $1)", request_id))

    def neighbours(self, row: JobRow) -> Neighbours:
        others = f"{_JOB} WHERE endpoint = $1 AND request_id IS NOT NULL AND"
        before = self._server.fetch(
            f"{others} number < $2 AND told < $2 ORDER BY number DESC LIMIT {MOST_NEIGHBOURS}", row.endpoint, row.number
        )
        after = self._server.fetch(
            f"{others} number > $2 ORDER BY number LIMIT {MOST_NEIGHBOURS}", row.endpoint, row.told
        )
        return Neighbours([_job_row(other) for other in before], [_job_row(other) for other in after])

    def over_by(self, product: int, step: str, moment: float) -> None:
        self._server.fetch(
            "UPDATE job SET over_by = $3 WHERE product = $1 AND step = $2 AND state = 'ambiguous'",
            product,
            step,
            moment,
        )

    def adopt(self, product: int, step: str, request_id: str) -> None:
        async def act(connection: Connection) -> None:
            await connection.execute(
                "UPDATE job SET state = 'sent', request_id = $3 "
                "WHERE product = $1 AND step = $2 AND state = 'ambiguous'",
                product,
                step,
                request_id,
            )
            await self._wait_again(connection, "id = $1 AND state = 'ambiguous'", product)

        self._server.run(act)

    def drop(self, product: int, step: str) -> None:
        async def act(connection: Connection) -> None:
            await connection.execute(_give_back("state = 'ambiguous'"), product, step)
            await self._wait_again(connection, "id = $1 AND state = 'ambiguous'", product)

        self._server.run(act)

    # Pictures

    def picture(self, product: int, name: str) -> PictureRow | None:
        rows = self._server.fetch(
            "SELECT name, url, path, bytes FROM picture WHERE product = $1 AND name = $2", product, name
        )
        return PictureRow(**rows[0]) if rows else None

    def saved(self, product: int, picture: PictureRow) -> None:
        self._server.fetch(
            "INSERT INTO picture (product, name, url, path, bytes) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT (product, name) "
            "DO UPDATE SET (url, path, bytes) = (excluded.url, excluded.path, excluded.bytes)",
            product,
            *picture,
        )

    # Below

    def _queue(self, connection: Connection) -> Queries:
        """PgQueuer's statements, on this connection and so in its transaction."""
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        driver = AsyncpgDriver(connection)
        if self._queries is None:
            self._queries = Queries(driver)
        # What builds its statements, and keeps them, is made once.
        return dataclasses.replace(self._queries, driver=driver)

    async def _enqueue(self, connection: Connection, products: Sequence[int]) -> None:
        if products:
            names = [str(product) for product in products]
            await self._queue(connection).enqueue(
                [QUEUE] * len(names),
                [name.encode() for name in names],
                [0] * len(names),
                dedupe_key=list(names),
                on_conflict="skip",
            )

    async def _beat(self, connection: Connection) -> None:
        if rows := [job.id for job in list(self._claimed.values())]:
            await self._queue(connection).update_heartbeat(rows)

    def _value(self, statement: str, *values: object) -> Any:
        return self._server.fetch(statement, *values)[0][0]


_NOW = "(SELECT intents FROM batch)"
_JOB = """
SELECT product, step, state, endpoint, args_hash, request_id, result, estimate,
    extract(epoch FROM intent_at)::float8 AS intent_at,
    extract(epoch FROM clock_timestamp() - intent_at)::float8 AS age_s,
    number, told, over_by
FROM job
"""


def _give_back(which: str) -> str:
    """The statement that deletes a job which never was, or fails it where its key was submitted before."""
    this = f"product = $1 AND step = $2 AND {which}"
    return f"""
        WITH gone AS (
            DELETE FROM job WHERE {this} AND cost IS NULL AND unknown = 0 RETURNING estimate
        ), kept AS (
            UPDATE job SET state = 'failed' WHERE {this} AND (cost IS NOT NULL OR unknown > 0) RETURNING estimate
        )
        UPDATE batch SET committed = committed - back.estimate
        FROM (SELECT * FROM gone UNION ALL SELECT * FROM kept) AS back
    """


def _job_row(row: Mapping[str, Any]) -> JobRow:
    return JobRow(
        row["product"],
        row["step"],
        row["state"],
        row["endpoint"],
        row["args_hash"],
        row["request_id"],
        None if row["result"] is None else json.loads(row["result"]),
        float(row["estimate"]),
        row["intent_at"],
        row["number"],
        row["told"],
        row["over_by"],
    )


def _exact(dollars: float) -> Decimal:
    """As it is written, so that sums are exact: ten times 0.1 is 1."""
    return Decimal(str(dollars))


def _dollars(exact: Decimal | None) -> float | None:
    return None if exact is None else float(exact)
