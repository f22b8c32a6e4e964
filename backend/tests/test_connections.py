"""Connections that a client keeps: reused, noticed when the server closes them, bounded, and no retry storms."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import pytest
from httpcore._backends.sync import SyncStream

from fal_sandbox.server import Sandbox
from services.fal import connections, transport
from services.fal.call import Call
from services.fal.errors import Cancelled
from services.fal_service import FalClient


@pytest.fixture
def closing_box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A server that closes a connection which has been idle for a second."""
    with Sandbox(keepalive_s=1.0) as box:
        for name, value in box.env().items():
            monkeypatch.setenv(name, value)
        yield box


def test_an_idle_connection_that_the_server_closed_is_noticed_before_it_is_used_again(closing_box: Sandbox) -> None:
    with FalClient(timeout=60) as client:
        assert client.any_llm_complete("first")["error"] is None
        deadline = time.monotonic() + 30
        while open_connections(client):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        again = client.any_llm_complete("second")
    assert again["error"] is None
    assert closing_box.ledger()["accepted"] == 2


def open_connections(client: FalClient) -> bool:
    """Whether the client holds a connection that its server has not closed yet."""
    return any(not connection.has_expired() for connection in kept(client))


def kept(client: FalClient) -> list[Any]:
    """The open connections that no request uses."""
    assert client._shared._made is not None
    free = client._shared._made.api._transport._connections._free
    return [connection for stack in free.values() for _, kept in stack for connection in kept.pool.connections]


def test_calls_in_a_row_share_one_connection(client: FalClient, box: Sandbox) -> None:
    for _ in range(5):
        assert client.any_llm_complete("hi")["error"] is None
    assert len(kept(client)) == 1


@pytest.mark.parametrize(("size", "writes"), [(10, 3), (20_000, 4)])
def test_a_request_leaves_in_one_piece_unless_it_is_long(
    client: FalClient, box: Sandbox, monkeypatch: pytest.MonkeyPatch, size: int, writes: int
) -> None:
    client.any_llm_complete("hi")
    sent, write = list[int](), SyncStream.write

    def counted(stream: SyncStream, buffer: bytes, timeout: float | None = None) -> None:
        sent.append(len(buffer))
        write(stream, buffer, timeout)

    monkeypatch.setattr(SyncStream, "write", counted)
    assert client.any_llm_complete("x" * size)["error"] is None
    assert len(sent) == writes
    assert sum(row["stage"] == "submit" for row in box.journal()) == 2


def test_who_is_stopped_does_not_shut_the_connection_that_somebody_else_has_by_then(
    client: FalClient, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.any_llm_submit("hi")
    stopped, give_back = Call(60), connections.Connections._give_back
    given_back, go_on = threading.Event(), threading.Event()

    def slowly(self: connections.Connections, host: Any, connection: Any) -> Any:
        unused = give_back(self, host, connection)
        if threading.current_thread().name == "stopped" and not given_back.is_set():
            given_back.set()
            go_on.wait(60)
        return unused

    def ask() -> None:
        with contextlib.suppress(Cancelled):
            client.within(stopped).any_llm_status(job)

    monkeypatch.setattr(connections.Connections, "_give_back", slowly)
    first = threading.Thread(target=ask, name="stopped")
    first.start()
    assert given_back.wait(60)
    box.fault("submit", delay=0.5, accept=True)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(client.any_llm_complete, "hi")
        box.wait_for(lambda ledger: ledger["accepted"] == 2)
        stopped.cancel()
        assert second.result()["error"] is None
    go_on.set()
    first.join()


def test_a_host_that_cannot_be_connected_to_is_reached_under_its_other_name(
    client: FalClient, box: Sandbox, no_route: list[Exception]
) -> None:
    no_route.append(httpcore.ConnectError("no route"))
    assert client.any_llm_complete("hi")["error"] is None
    assert [row["host"] for row in box.journal() if row["stage"] == "submit"] == ["queue.falrun.com"]
    assert box.ledger()["accepted"] == 1


def test_when_the_other_name_cannot_be_connected_to_either_the_first_is_named(
    client: FalClient, box: Sandbox, no_route: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ATTEMPTS", 1)
    no_route += [httpcore.ConnectTimeout("no route")] * 2
    answer = client.any_llm_complete("hi")
    assert (answer["error_type"], answer["retryable"]) == ("unreachable", True)
    assert "queue.fal.run cannot be reached" in answer["error"]
    assert box.ledger()["accepted"] == 0


@pytest.fixture
def no_route(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What the next connections fail with."""
    connect, failures = connections._Backend.connect_tcp, list[Exception]()

    def connected(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return connect(*args, **options)

    monkeypatch.setattr(connections._Backend, "connect_tcp", connected)
    return failures


def test_a_client_opens_a_connection_for_each_call_at_once_and_closes_them_with_itself(box: Sandbox) -> None:
    # The last of the twelve has begun long before the first has its answer.
    box.configure(latency=1.5)
    with FalClient(max_concurrency=12, timeout=60) as client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(client.any_llm_complete, ["hi"] * 12))
        box.configure(latency=0)
        answers += pool.map(client.any_llm_complete, ["hi"] * 24)
        opened = kept(client)
    assert [answer["error"] for answer in answers] == [None] * 36
    assert len(opened) == 12
    assert all(connection.is_closed() for connection in opened)


def test_connections_that_were_not_used_for_a_while_are_closed_one_by_one(
    box: Sandbox, client: FalClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.configure(latency=1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client.any_llm_complete, ["hi"] * 4))
    assert len(kept(client)) == 4
    monkeypatch.setattr(connections, "IDLE_S", 0.0)
    client.any_llm_complete("hi")
    assert len(kept(client)) == 1


def test_64_threads_against_a_failing_fal_send_a_small_multiple_of_one_request_each(
    client: FalClient, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.001)
    box.fault("status", status=500, times=None)
    results: list[str] = []

    def ask() -> None:
        try:
            client.any_llm_status("00000000-0000-0000-0000-000000000000")
        except RuntimeError as error:
            results.append(getattr(error, "error_type", "?"))

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == ["fal_unavailable"] * 64
    requests = sum(row["stage"] == "status" for row in box.journal())
    assert requests <= 64 + transport.BUDGET_TOKENS / transport.COST_PER_RETRY


def test_one_thread_alone_may_retry_as_often_as_a_request_may(
    client: FalClient, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.001)
    box.fault("status", status=500, times=3)
    job = client.any_llm_submit("hi")
    assert client.any_llm_status(job)["status"] in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    assert sum(row["stage"] == "status" for row in box.journal()) == 4


def test_successes_refill_the_budget(client: FalClient, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(transport, "BUDGET_TOKENS", 5.0)
    job = client.any_llm_submit("hi")
    with FalClient(timeout=60) as poor:
        box.fault("status", status=500, times=1)
        assert poor.any_llm_status(job)["error"] is None
        box.fault("status", status=500, times=1)
        with pytest.raises(RuntimeError, match="not available"):
            poor.any_llm_status(job)
        for _ in range(5):
            poor.any_llm_status(job)
        box.fault("status", status=500, times=1)
        assert poor.any_llm_status(job)["error"] is None
