"""Machines that share a batch and die: one of several is killed for good at a random moment, and the others end it.

python bench/cluster_kills.py [--kills 20] [--products 30] [--machines 2] [--restart] [--seed 1]

Each round has a new database on a PostgreSQL of its own, a sandbox with faults, and one process per machine. Heartbeats
and waiting times are shorter than in use, in the same proportions.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

BACKEND = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BACKEND / "src"), str(BACKEND / "tests")]

from fal_sandbox.server import Sandbox  # noqa: E402
from postgres import Postgres, find_postgres  # noqa: E402

LIMIT = 6
HEARTBEAT_S, OWNER_GONE_S, FORGOTTEN_S = 2.0, 4.0, 8.0
MACHINE = f"""
import sys
from services.batch import Batch, postgres_journal
postgres_journal.HEARTBEAT_S = {HEARTBEAT_S}
postgres_journal.OWNER_GONE_S = {OWNER_GONE_S}
postgres_journal.FORGOTTEN_S = {FORGOTTEN_S}
url, output, manifest, again = sys.argv[1:]
with Batch(manifest or None, output, journal=url, max_jobs={LIMIT} if manifest else None, retry_ambiguous=bool(again),
           retry_failed=bool(again)) as batch:
    for line in batch:
        print(line["key"], line["status"], flush=True)
"""
PHOTO = BACKEND / "examples" / "coffee.jpg"
FAULTS: tuple[dict[str, Any], ...] = (
    {"stage": "submit", "status": 500},
    {"stage": "submit", "status": 429, "retry_after": "0.01"},
    {"stage": "submit", "drop": "before"},
    {"stage": "submit", "drop": "after"},
    # Long enough to be killed in the middle of.
    *({"stage": "submit", "delay": 1.0, "accept": True} for _ in range(4)),
    {"stage": "status_stream", "cut": 0},
    {"stage": "result", "status": 502},
    {"stage": "result", "drop": "half"},
)


class Machine(NamedTuple):
    process: subprocess.Popen[bytes]
    results: Path

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.results.read_text().splitlines()]


class Round:
    """One batch from its begin to its end."""

    def __init__(self, box: Sandbox, server: Postgres, products: int, folder: Path) -> None:
        self.box, self.server, self.url, self.folder = box, server, server.database(), folder
        self.manifest = folder / "shop.jsonl"
        photo = box.put_file(PHOTO.read_bytes(), "coffee.jpg", "image/jpeg")
        ready = {"image": {"url": photo, "width": 900, "height": 600}}
        for endpoint in ("bria/replace-background", "fal-ai/bria/background/remove"):
            box.fault("job", endpoint=endpoint, times=None, output=ready)
        rows = [{"key": f"mug-{number}", "image": photo} for number in range(products)]
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.begun = 0

    def machine(self, *, first: bool = False, again: bool = False) -> Machine:
        self.begun += 1
        output = self.folder / f"machine-{self.begun}"
        process = subprocess.Popen(
            [sys.executable, "-c", MACHINE, self.url, output, self.manifest if first else "", "1" * again],
            env={**os.environ, **self.box.env(), "PYTHONPATH": str(BACKEND / "src")},
            stdout=subprocess.DEVNULL,
        )
        return Machine(process, output / "results.jsonl")

    def jobs(self, what: str) -> int:
        """A figure of the journal's jobs."""
        return int(self.server.sql(f"SELECT count(*) FROM fal_batch.job WHERE {what}", self.url))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--products", type=int, default=30)
    parser.add_argument("--machines", type=int, default=2)
    parser.add_argument("--restart", action="store_true", help="restart PostgreSQL too, at another random moment")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    programs = find_postgres()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed. Install it: make postgresql.")
    with Postgres(programs) as server, Sandbox(latency=0.2) as box:
        plan, seconds = calm(box, server, options.products, options.machines)
        print(f"{options.products} products on {options.machines} machines: {plan} jobs, {seconds:.1f} s", flush=True)
        for number in range(options.kills):
            one(number, box, server, options, chance, plan, seconds)


def calm(box: Sandbox, server: Postgres, products: int, machines: int) -> tuple[int, float]:
    """The billable jobs and the seconds of a batch in which nothing happens."""
    box.reset()
    with tempfile.TemporaryDirectory() as folder:
        batch = Round(box, server, products, Path(folder))
        began = time.monotonic()
        machines_ran = begin(batch, machines)
        all_end(machines_ran)
        for machine in machines_ran:
            assert Counter(line["status"] for line in machine.lines()) == {"done": products}
        ledger = box.ledger()
        assert ledger["most_running"] <= LIMIT, ledger["most_running"]
        return ledger["billable"], time.monotonic() - began


def begin(batch: Round, machines: int) -> list[Machine]:
    first = batch.machine(first=True)
    # A machine takes part in a batch that is there.
    joined(first)
    begun = [first, *(batch.machine() for _ in range(machines - 1))]
    for machine in begun:
        joined(machine)
    return begun


def joined(machine: Machine) -> None:
    while not machine.results.exists():
        assert machine.process.poll() is None, "a machine ended"
        time.sleep(0.01)


def all_end(machines: list[Machine]) -> None:
    codes = [machine.process.wait(300) for machine in machines]
    assert codes == [0] * len(codes), codes


def one(
    number: int,
    box: Sandbox,
    server: Postgres,
    options: argparse.Namespace,
    chance: random.Random,
    plan: int,
    seconds: float,
) -> None:
    box.reset()
    with tempfile.TemporaryDirectory() as folder:
        batch = Round(box, server, options.products, Path(folder))
        for fault in FAULTS:
            for _ in range(2):
                box.fault(**fault, skip=chance.randrange(plan // 2))
        machines = begin(batch, options.machines)
        moment = chance.uniform(0, seconds * 0.6)
        restart_after_s = chance.uniform(0, moment) if options.restart else moment
        time.sleep(restart_after_s)
        if options.restart:
            server.stop()
            server.start()
        time.sleep(moment - restart_after_s)
        victim = machines.pop(chance.randrange(len(machines)))
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        killed_at = time.monotonic()
        all_end(machines)
        over_s = time.monotonic() - killed_at
        states = Counter(line["status"] for line in machines[0].lines())
        in_doubt = batch.jobs("state = 'ambiguous'")
        after = batch.machine(again=True)
        all_end([after])
        lines, ledger, done = after.lines(), box.ledger(), batch.jobs("state = 'done'")
        unknown = int(server.sql("SELECT sum(unknown) FROM fal_batch.job", batch.url))
        # A prompt that was refused is replaced by a plain one.
        refused_prompts = 3 * options.products - batch.jobs("step LIKE 'prompt:%' AND state = 'done'")
    keys = Counter(line["key"] for line in lines)
    assert len(keys) == options.products, keys
    assert set(keys.values()) == {1}, keys
    assert {line["status"] for line in lines} == {"done"}, [line for line in lines if line["status"] != "done"]
    assert plan - refused_prompts == done, (plan, refused_prompts, done)
    assert ledger["most_running"] <= LIMIT, ledger["most_running"]
    extra = ledger["billable"] - done
    # The journal knows of each that it may have been billed before.
    assert 0 <= extra <= min(in_doubt, unknown), (extra, in_doubt, unknown)
    print(
        f"{number + 1}: killed after {moment:.1f} s, the rest ended {over_s:.1f} s later with {dict(states)}; then all "
        f"{len(keys)} done; {in_doubt} jobs in doubt, {extra} of them billed; at most {ledger['most_running']} at once",
        flush=True,
    )


if __name__ == "__main__":
    main()
