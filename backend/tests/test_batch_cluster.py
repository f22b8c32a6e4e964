"""A batch that several machines make: its journal on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import BACKEND
from fal_sandbox.server import Sandbox
from postgres import PASSWORD, Postgres, find_postgres
from services.batch import Batch, postgres, postgres_journal
from services.batch.journal import JournalError, NewProduct, OwnerMayLive, PictureRow, Product, Store
from services.batch.postgres_journal import PostgresStore
from services.fal import redaction
from services.fal.errors import BudgetExceeded, InvalidInput
from services.fal.journal import Later
from services.fal_worker import main
from test_batch import keeps_what_was_paid_for, knows_what_was_before

RECIPE = {"command": "workflow"}
SPENDER = """
import sys, threading
from services.fal.errors import BudgetExceeded
from services.batch.postgres_journal import PostgresStore

journal = PostgresStore(sys.argv[1])
journal.open(None, None, None)
print("open", flush=True)

def spend(number):
    job = 0
    while True:
        step = f"{sys.argv[2]}-{number}-{job}"
        try:
            journal.begin(1, step, "endpoint", "hash", 0.07, retry_ambiguous=False)
        except BudgetExceeded:
            if journal.batch().paused:
                return
        else:
            journal.sent(1, step, "id")
            job += 1

threads = [threading.Thread(target=spend, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
journal.close()
"""
FIRST_MACHINE = """
import sys
from services.batch import Batch, postgres_journal
postgres_journal.HEARTBEAT_S = 1.0
claim, claimed = postgres_journal.PostgresStore.claim, []

def two(journal, limit):
    # So that it has nothing half begun, however late it is killed.
    found = claim(journal, limit) if len(claimed) < 2 else []
    claimed.extend(found)
    return found

postgres_journal.PostgresStore.claim = two
url, output, photo = sys.argv[1:]
rows = [{"key": f"mug-{number}", "image_url": photo, "prompt": "oak", "remove_bg": False} for number in range(5)]
with Batch(rows, output, command="background_replace", max_jobs=2, journal=url) as batch:
    for line in batch:
        pass
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    pytest.importorskip("pgqueuer", reason="the extra `cluster` is not installed")
    pytest.importorskip("asyncpg", reason="the extra `cluster` is not installed")
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed on this machine; make postgresql installs it as root")
    with Postgres(programs) as server:
        yield server


@pytest.fixture
def machine(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PostgresStore]]:
    """Opens the journal of one new database as one more machine would."""
    monkeypatch.setattr(postgres_journal, "NONE_S", 0.0)
    url, machines = server.database(), []

    def join(**batch: Any) -> PostgresStore:
        machines.append(PostgresStore(url))
        machines[-1].open(**{"recipe": None, "max_jobs": None, "max_usd": None, **batch})
        return machines[-1]

    yield join
    for one in machines:
        one.close()


def products(number: int) -> list[NewProduct]:
    return [NewProduct(f"mug-{line}", line, {"image": f"{line}.jpg"}) for line in range(1, number + 1)]


def begin(journal: PostgresStore, product: int, step: str = "analysis", *, retry_ambiguous: bool = False) -> Any:
    return journal.begin(product, step, "fal-ai/any", "hash", 0.1, retry_ambiguous=retry_ambiguous)


def claim(journal: PostgresStore, number: int) -> list[int]:
    """As so many threads of one machine would."""
    return [product.id for _ in range(number) for product in journal.claim(32)]


def take_over(journal: PostgresStore, number: int) -> list[tuple[int, int]]:
    """The products that come to a machine after a while, each with the number of times that it was begun."""
    taken: list[Product] = []
    until = time.monotonic() + 60
    while len(taken) < number:
        assert time.monotonic() < until, taken
        taken += journal.claim(32)
    return sorted((product.id, product.attempts) for product in taken)


def heard_of(journal: PostgresStore, product: int) -> Any:
    """When the machine that has the product was last heard of."""
    return journal._server.fetch("SELECT heartbeat FROM pgqueuer WHERE dedupe_key = $1", str(product))[0][0]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_limit_of_products_and_jobs_is_the_batchs_and_not_a_machines(
    machine: Callable[..., PostgresStore],
) -> None:
    one = machine(recipe=RECIPE, max_jobs=3)
    assert one.add(products(5)) == 5
    other = machine()
    assert [product.key for product in one.claim(32)] == ["mug-1"]
    assert claim(other, 5) == [2, 3]
    assert begin(one, 1) is begin(one, 1, "description") is begin(other, 3) is None
    assert isinstance(begin(other, 3, "description"), Later)
    one.refused(1, "description")
    assert begin(other, 3, "description") is None
    one.finish(1, "done", b'{"key": "mug-1"}')
    assert claim(one, 2) == [4]
    one.close()  # which gives back what it has not ended
    assert claim(other, 2) == [4]


def test_a_dead_machines_products_go_to_another_and_its_jobs_are_not_submitted_again(
    machine: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_journal, "HEARTBEAT_S", 0.5)
    dead, alive = machine(recipe=RECIPE, max_jobs=8), machine()
    dead.add(products(4))
    assert claim(dead, 3) == [1, 2, 3]
    assert claim(alive, 1) == [4]
    seen_at = heard_of(alive, 4)
    wait_until(lambda: heard_of(alive, 4) > seen_at)
    assert begin(dead, 1) is begin(dead, 2) is begin(dead, 3) is None
    dead.sent(1, "analysis", "known")
    dead.sent(2, "analysis", "done")
    dead.done(2, "analysis", {"output": {}}, 0.05)
    dead._server.close()

    assert take_over(alive, 3) == [(1, 2), (2, 2), (3, 2)]
    assert begin(alive, 1).request_id == "known"
    assert begin(alive, 2).result == {"output": {}}
    with pytest.raises(OwnerMayLive):
        begin(alive, 3)
    alive.put_back(3, 1000.0)
    assert not alive.claim(1)
    alive._server.fetch("UPDATE pgqueuer SET execute_after = now() WHERE dedupe_key = '3'")
    monkeypatch.setattr(postgres_journal, "OWNER_GONE_S", 0.0)
    assert take_over(alive, 1) == [(3, 2)]
    assert begin(alive, 3).state == "ambiguous"
    assert begin(alive, 3, retry_ambiguous=True) is None
    # One job at its cost, two at the estimate, and the one in doubt stays reserved too.
    assert alive.batch().committed == pytest.approx(0.05 + 0.1 + 0.2)


def test_a_machine_that_was_taken_for_dead_brings_what_it_made_and_nothing_else(
    machine: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_journal, "HEARTBEAT_S", 1000.0)
    frozen = machine(recipe=RECIPE, max_jobs=8)
    monkeypatch.setattr(postgres_journal, "HEARTBEAT_S", 0.5)
    other = machine()
    frozen.add(products(2))
    claim(frozen, 2)
    assert begin(frozen, 1) is begin(frozen, 2) is None
    monkeypatch.setattr(postgres_journal, "OWNER_GONE_S", 0.0)
    assert take_over(other, 2) == [(1, 2), (2, 2)]
    assert begin(other, 1).state == "ambiguous"
    frozen.sent(1, "analysis", "late")
    assert begin(other, 1).request_id == "late"
    frozen.finish(1, "done", b'{"key": "mug-1", "from": "frozen"}')
    other.finish(1, "done", b'{"key": "mug-1", "from": "other"}')
    frozen.finish(2, "failed", b'{"key": "mug-2", "status": "failed"}')
    frozen.put_back(2, 0.0)
    assert other.unfinished()
    other.finish(2, "done", b'{"key": "mug-2"}')
    assert not other.unfinished()
    assert list(other.results()) == [b'{"key": "mug-1", "from": "frozen"}', b'{"key": "mug-2"}']
    assert other.result_bytes() == sum(len(line) + 1 for line in other.results())


def test_a_product_of_which_no_job_was_submitted_takes_another_input(
    machine: Callable[..., PostgresStore],
) -> None:
    journal = machine(recipe=RECIPE, max_jobs=8)
    journal.add(products(3))
    assert not journal.is_worked_on()
    claim(journal, 2)
    assert journal.is_worked_on()
    assert begin(journal, 1) is None
    journal.sent(1, "analysis", "known")
    journal.finish(1, "failed", b'{"key": "mug-1"}')
    journal.finish(2, "failed", b'{"key": "mug-2"}')
    _, failed, waiting = (one._replace(input={"image": "corrected.jpg"}) for one in products(3))
    journal.add([failed, waiting])
    assert (journal.counts().waiting, list(journal.results())) == (2, [b'{"key": "mug-1"}'])
    assert [one.input for _ in range(2) for one in journal.claim(1)] == [{"image": "corrected.jpg"}] * 2


@pytest.mark.parametrize("promise", [keeps_what_was_paid_for, knows_what_was_before])
def test_the_journal_keeps_its_promises(
    promise: Callable[[Store], None], machine: Callable[..., PostgresStore]
) -> None:
    journal = machine(recipe=RECIPE, max_jobs=8, max_usd=1.0)
    journal.add(products(1))
    promise(journal)


def has_jobs(journal: PostgresStore, number: int) -> bool:
    return sum(journal.counts().jobs.values()) >= number


def test_the_budget_is_held_exactly_by_two_processes_of_eight_threads(
    server: Postgres, machine: Callable[..., PostgresStore]
) -> None:
    journal = machine(recipe=RECIPE, max_jobs=1000, max_usd=0.0)
    journal.add(products(1))
    # Slow enough for all of them to come between what one of them reads and what it writes.
    journal._server.fetch(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$"
    )
    journal._server.fetch("CREATE TRIGGER slow BEFORE INSERT ON job FOR EACH ROW EXECUTE FUNCTION slow()")
    script = [sys.executable, "-c", SPENDER, journal._server.address.url]
    env = {"PYTHONPATH": str(BACKEND / "src")}
    spenders = [subprocess.Popen([*script, name], env=env, stdout=subprocess.PIPE) for name in "ab"]
    for spender in spenders:
        # One that came late would take back the pause by which both know the end.
        assert spender.stdout is not None
        assert spender.stdout.readline() == b"open\n"
    for jobs in range(1, 11):
        # All of them want the one job that there is money for.
        journal._server.fetch("UPDATE batch SET max_usd = max_usd + 0.07")
        wait_until(partial(has_jobs, journal, jobs))
    journal.set_paused(True)
    for spender in spenders:
        spender.communicate(timeout=120)
    assert [spender.returncode for spender in spenders] == [0, 0]
    assert journal.counts().jobs == {"sent": 10}
    assert journal.batch().committed == 0.7
    with pytest.raises(BudgetExceeded, match=r"\$0\.70.*--max_usd"):
        begin(journal, 1)


def test_what_a_killed_machine_has_begun_is_ended_by_another_and_paid_once(
    box: Sandbox, server: Postgres, photo_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_journal, "HEARTBEAT_S", 1.0)
    ready = {"image": {"url": photo_url, "width": 240, "height": 160}}
    box.fault("job", times=2, output=ready, delay=2)
    box.fault("job", times=None, output=ready)
    url = server.database()
    script = [sys.executable, "-c", FIRST_MACHINE, url, str(tmp_path / "first"), photo_url]
    first = subprocess.Popen(script, env={**os.environ, "PYTHONPATH": str(BACKEND / "src")})
    box.wait_for(lambda ledger: ledger["accepted"] >= 2)
    wait_until(lambda: server.sql("SELECT count(request_id) FROM fal_batch.job", url) >= "2")
    # It takes part while the first one lives, finds all places taken, and is told neither input nor limits.
    with Batch(None, tmp_path / "second", journal=url) as second:
        first.kill()
        first.wait()
        lines = list(second)
    results = [json.loads(line) for line in (tmp_path / "second" / "results.jsonl").read_text().splitlines()]
    assert sorted(line["key"] for line in results) == [f"mug-{number}" for number in range(5)]
    assert [line for line in results if line in lines] == lines
    ledger = box.ledger()
    assert (ledger["accepted"], ledger["billable"]) == (5, 5)
    assert ledger["most_running"] <= 2


def test_a_product_is_not_over_while_another_machine_may_be_submitting_a_job_of_it(
    box: Sandbox, server: Postgres, photo_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_journal, "OWNER_GONE_S", 2.0)
    url, rows = server.database(), [{"key": "mug", "image": photo_url, "styles": ["Studio"]}]
    with Batch(rows, tmp_path / "out", journal=url) as batch:
        other = PostgresStore(url)
        other.open(None, None, None)
        # The one step that a workflow does without where it fails.
        assert begin(other, 1, "prompt:Studio") is None
        lines = list(batch)
        other.close()
    assert [line["status"] for line in lines] == ["ambiguous"]


def test_a_restart_of_the_database_is_waited_for_and_nothing_is_lost_or_doubled(
    server: Postgres, machine: Callable[..., PostgresStore]
) -> None:
    journal = machine(recipe=RECIPE, max_jobs=8)
    journal.add(products(1))
    journal.claim(1)
    assert begin(journal, 1) is None
    server.stop()
    sending = threading.Thread(target=journal.sent, args=(1, "analysis", "known"))
    sending.start()
    server.start()
    sending.join(60)
    journal.done(1, "analysis", {"output": {}}, 0.05)
    journal.saved(1, PictureRow("studio", "https://fal.media/1.png", "mug-1/studio.png", 10))
    journal.finish(1, "done", b"{}")
    assert journal.batch().committed == 0.05
    assert journal.counts().done == 1


def test_a_database_that_stays_away_ends_in_one_sentence(
    server: Postgres, machine: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = machine(recipe=RECIPE)
    monkeypatch.setattr(postgres, "AWAY_S", 0.0)
    server.stop()
    try:
        with pytest.raises(JournalError, match=r"cannot be used.*nothing is lost"):
            journal.unfinished()
        journal.close()
    finally:
        server.start()


def test_a_journal_of_another_batch_or_version_is_refused(
    server: Postgres, machine: Callable[..., PostgresStore]
) -> None:
    with pytest.raises(JournalError, match=r"no batch in the journal.*--input"):
        machine()
    journal = machine(recipe=RECIPE, max_jobs=2)
    with pytest.raises(JournalError, match=r"command was .workflow., and is .packshot."):
        machine(recipe={"command": "packshot"})
    journal._server.fetch("UPDATE batch SET version = 99")
    with pytest.raises(JournalError, match="version 99"):
        machine()


def test_another_input_for_a_product_that_was_begun_is_refused_and_the_same_is_known(
    machine: Callable[..., PostgresStore],
) -> None:
    journal = machine(recipe=RECIPE)
    assert journal.add(products(2)) == 2
    assert machine().add(products(3)) == 1
    claim(journal, 1)
    begin(journal, 1)
    with pytest.raises(JournalError, match=r"Line 7: the product 'mug-1'.*another image"):
        journal.add([NewProduct("mug-4", 6, {}), NewProduct("mug-1", 7, {"image": "other.jpg"})])
    assert journal.counts().waiting == 2


@pytest.mark.sampled(3)
@pytest.mark.parametrize("way", ["environment", "password file", "service file"])
def test_the_password_may_stand_elsewhere_than_in_the_url(
    way: str, server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.database().replace(f":{PASSWORD}", "")
    if way == "environment":
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
    elif way == "password file":
        (file := tmp_path / "pgpass").write_text(f"*:*:*:shop:{PASSWORD}\n")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(file))
    else:
        host, name = url.partition("?host=")[2], url.partition("@/")[2].partition("?")[0]
        (file := tmp_path / "services").write_text(
            f"[catalogue]\nhost={host}\ndbname={name}\nuser=shop\npassword={PASSWORD}\n"
        )
        monkeypatch.setenv("PGSERVICEFILE", str(file))
        url = "postgresql://?service=catalogue"
    journal = PostgresStore(url)
    journal.open(RECIPE, None, None)
    journal.close()


@pytest.mark.parametrize(
    "url", ["postgresql://shop:{}@[half/db", "mysql://shop:{}@host/db", "postgresql://shop:{}@/db?search_path=a-b"]
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        PostgresStore(url.format(PASSWORD))
    assert PASSWORD not in str(caught.value)


def test_no_output_shows_the_password(
    box: Sandbox, server: Postgres, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_LOG", "debug")
    url = server.database()
    wrong = url.replace(PASSWORD, "wrong-password-1")
    for argv in (
        ["--journal", wrong, "--output", "out"],
        ["--jornal", wrong, "--output", "out"],
        ["--journal", wrong, "--output", "out", "--max_usd", "many"],
        ["--journal", f"{wrong}&sslmode=bogus", "--output", "out"],
        ["--output", "out", wrong],
        ["--output", "out", "--", wrong],
        ["--journal", url, "--output", "out"],
    ):
        # Nothing else may know it: what was seen once is masked for ever.
        monkeypatch.setattr(redaction, "_secrets", set())
        assert main(["batch", *argv]) == 1
        said = capfd.readouterr()
        assert json.loads(said.out)["error_type"] in ("journal", "invalid_input")
        for password in (PASSWORD, "wrong-password-1"):
            assert password not in said.out + said.err
