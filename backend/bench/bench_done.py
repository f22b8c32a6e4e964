"""How long after fal's end of a job our call returns, and how many requests it took to know.

python bench/bench_done.py [--seconds 0.2 1 5 30] [--rounds N] [--quick] [--json]

Three ways: ours with the status stream; ours when fal refuses the stream (405), so that it polls; fal-client's poll.
The end is the time in the job's own last log line, on the same clock. Each job works up to 0.1 s longer than is said,
as chance has it: a poll every 0.1 s would else always meet the same moment.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from fal_client import SyncClient
from side_by_side import Arguments, Report, Sandbox, in_turn, inside_sandbox, ms, ratio

from services.fal_service import FalClient

ENDPOINT = "openrouter/router"
PROMPT = "Two sentences about a mug."
JITTER_S = 0.1
TARGET_MS, TARGET_REQUESTS = 20, 3
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Found:
    """One job: the whole call's seconds, the seconds from the job's end to its return, the requests besides submit."""

    call: float
    delay: float
    requests: int


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--seconds", type=float, nargs="+", help="model times (0.2 1 5; 0.2 with --quick)")
    arguments.add_argument("--rounds", type=int, help="jobs of each way (as many as fit into 12 s, 3 to 21)")
    options = arguments.parse_args()
    inside_sandbox()
    report = Report("Knowing that a job is done")
    rows = []
    with FalClient(timeout=TIMEOUT_S) as client:
        ways = {
            "ours, status stream": lambda: str(client.any_llm_complete(PROMPT)["request_id"]),
            "ours, no stream": lambda: str(client.any_llm_complete(PROMPT)["request_id"]),
            "fal-client": bare_call(SyncClient()),
        }
        for seconds in options.seconds or ((0.2,) if options.quick else (0.2, 1.0, 5.0)):
            rounds = options.rounds or int(min(21, max(3, 12 // seconds)))
            rows += measured(report, ways, seconds, rounds)
    report.table(
        ("job", "way", "jobs", "delay, ms", "target", "largest, ms", "requests", "call, x bare"), rows, texts=2
    )
    report.show(as_json=options.json)


def bare_call(client: SyncClient) -> Callable[[], str]:
    def call() -> str:
        ids: list[str] = []
        client.subscribe(ENDPOINT, {"prompt": PROMPT, "model": "google/gemini-2.5-flash-lite"}, on_enqueue=ids.append)
        return ids[0]

    return call


def measured(
    report: Report, ways: dict[str, Callable[[], str]], seconds: float, rounds: int
) -> list[tuple[object, ...]]:
    chance = random.Random(0)
    lasting = [seconds + chance.uniform(0, JITTER_S) for _ in range(rounds + 1)]
    found = in_turn(
        {name: timed(call, iter(lasting), refused=name == "ours, no stream") for name, call in ways.items()}, rounds
    )
    bare = found["fal-client"]
    rows: list[tuple[object, ...]] = []
    for name, jobs in found.items():
        quotient = ratio([job.call for job in jobs], [job.call for job in bare])
        requests = statistics.median(job.requests for job in jobs)
        if name != "fal-client":
            report.guard(f"done {seconds:g} s, {name}", quotient)
            report.guard(f"done {seconds:g} s, {name}, requests", requests)
        delays = [job.delay for job in jobs]
        target = f"{TARGET_MS} ms, {TARGET_REQUESTS}" if name == "ours, status stream" else "-"
        figures = (ms(statistics.median(delays)), target, ms(max(delays)), f"{requests:g}", f"{quotient:.3f}")
        rows.append((f"{seconds:g} s", name, rounds, *figures))
    return rows


def timed(call: Callable[[], str], lasting: Iterator[float], *, refused: bool) -> Callable[[], Found]:
    box, asking = Sandbox(), SyncClient()

    def run() -> Found:
        box.tell("reset")
        box.tell("config", latency=next(lasting))
        if refused:
            box.tell("faults", stage="status_stream", status=405, times=None)
        began = time.perf_counter()
        request_id = call()
        took, now = time.perf_counter() - began, time.time()
        requests = sum(row["stage"] != "submit" for row in box.journal())
        return Found(took, now - end_of(asking, request_id), requests)

    return run


def end_of(client: SyncClient, request_id: str) -> float:
    """When the job ended, by this machine's clock."""
    last = client.status(ENDPOINT, request_id, with_logs=True).logs[-1]["timestamp"]
    return datetime.fromisoformat(last.replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    main()
