"""Many calls in one process through one client at 1, 8 and 64 threads, against one `SyncClient` used the same way.

python bench/bench_inprocess.py [--calls 1000] [--threads 1 8 64] [--seconds 0 0.5] [--quick] [--json]

With models that take no time, the work around a call is measured. fal-client is measured twice: with a poll every
5 ms, as fast as it can be when a job is not done at its first look, and with its default of 0.1 s, as it is mostly
used. With models that take time, threads wait, and the question is how close the calls per second come to threads
through model time. Every way does its calls in blocks, in turn with the others, each on a client of its own.
The last columns are the connections that it opened, and how many were open at once.

One process of Python runs one thread at a time, and the sandbox is one too: CPU a call bounds the calls per second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fal_client import SyncClient
from side_by_side import (
    Arguments,
    Connections,
    Cost,
    Report,
    Sandbox,
    cost_here,
    cost_ratio,
    in_turn,
    inside_sandbox,
    median,
)

from services.fal_service import FalClient

ENDPOINT = "openrouter/router"
AT_ONCE = 64
BLOCKS = 20
WAITING = 5
"""Calls a thread in a block, when models take time."""
FAST, FAST_POLL_S = "fal-client, 5 ms", 0.005
PROMPT = "Two sentences about a mug."
ARGUMENTS = {"prompt": PROMPT, "model": "google/gemini-2.5-flash-lite", "temperature": 0.7}
Call = Callable[[], object]


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--calls", type=int, help="calls of each way at model time 0 (1000; 240 with --quick)")
    arguments.add_argument("--threads", type=int, nargs="+", help="(1 8 64; 1 64 with --quick)")
    arguments.add_argument("--seconds", type=float, nargs="+", help="model times (0 0.5; 0 with --quick)")
    options = arguments.parse_args()
    inside_sandbox()
    report, calls = Report("In one process"), options.calls or (240 if options.quick else 1000)
    for seconds in options.seconds or ((0.0,) if options.quick else (0.0, 0.5)):
        Sandbox().tell("config", latency=seconds)
        rows: list[tuple[object, ...]] = []
        for threads in options.threads or ((1, 64) if options.quick else (1, 8, 64)):
            block = max(calls // BLOCKS, threads) if seconds == 0 else WAITING * threads
            rows += measured(report, threads, block, -(-calls // block) if seconds == 0 else 2, seconds)
        each = f"{calls} calls" if seconds == 0 else f"{2 * WAITING} calls a thread"
        report.note(f"Model time {seconds:g} s; {each} of each way.")
        wanted = ("of the ideal",) if seconds else ()
        header = ("threads", "way", "calls/s", *wanted, "CPU a call, ms", "ours : its time", "ours : its CPU")
        report.table((*header, "opened", "at once"), rows, texts=2)
    report.show(as_json=options.json)


def measured(report: Report, threads: int, block: int, blocks: int, seconds: float) -> list[tuple[object, ...]]:
    fast, usual = SyncClient(), SyncClient()
    with FalClient(max_concurrency=AT_ONCE) as client:
        calls: dict[str, Call] = {
            "ours": lambda: client.any_llm_complete(PROMPT)["output"] or sys.exit("a call failed"),
            FAST: lambda: fast.subscribe(ENDPOINT, ARGUMENTS, interval=FAST_POLL_S),
            "fal-client, 0.1 s": lambda: usual.subscribe(ENDPOINT, ARGUMENTS),
        }
        opened = {name: Connections() for name in calls}
        costs = in_turn({name: many(call, threads, block, opened[name]) for name, call in calls.items()}, blocks)
    rows: list[tuple[object, ...]] = []
    for name, found in costs.items():
        cost, against = median(found), cost_ratio(costs["ours"], found)
        if name == FAST:
            # Time is guarded only where threads do not fight for this machine's processors.
            report.guard(f"inprocess {seconds:g} s, {threads} threads, cpu", against.cpu)
            if threads == 1:
                report.guard(f"inprocess {seconds:g} s, {threads} threads", against.wall)
        a_second = block / cost.wall
        ideal = (f"{a_second * seconds / threads:.0%}",) if seconds else ()
        figures = (f"{cost.cpu / block * 1e3:.2f}", f"{against.wall:.3f}", f"{against.cpu:.3f}")
        rows.append((threads, name, f"{a_second:.0f}", *ideal, *figures, opened[name].opened, opened[name].most))
    return rows


def many(call: Call, threads: int, count: int, connections: Connections) -> Callable[[], Cost]:
    def calls() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for future in [pool.submit(call) for _ in range(count)]:
                future.result()

    def run() -> Cost:
        with connections.counted():
            return cost_here(calls)

    return run


if __name__ == "__main__":
    main()
