"""Many calls in one process through one client, with faults: what grows, and what is left behind.

python bench/soak.py [--calls 20000]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

BACKEND = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BACKEND / "src"))

from services.fal import transport  # noqa: E402
from services.fal.errors import FalError  # noqa: E402
from services.fal_service import FalClient  # noqa: E402

THREADS = 4
WARM_UP = 0.1
"""Share of the calls after which growth is counted."""
FAULTS: tuple[dict[str, Any], ...] = (
    {"stage": "submit", "status": 500},
    {"stage": "submit", "status": 429, "retry_after": "0.01"},
    {"stage": "submit", "drop": "before"},
    {"stage": "submit", "drop": "after"},
    {"stage": "submit", "garbage": "truncated"},
    {"stage": "status_stream", "cut": 0},
    {"stage": "status_stream", "status": 405},
    {"stage": "result", "status": 502},
    {"stage": "result", "drop": "half"},
    {"stage": "job", "fail": {"error": "broke", "error_type": "runner_server_error"}},
    {"stage": "stream", "cut": 2},
    {"stage": "stream", "status": 422},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        # The sandbox is a process of its own, so that only the client's memory is counted.
        command = [
            sys.executable,
            str(BACKEND / "src" / "fal_sandbox"),
            "run",
            "--",
            sys.executable,
            __file__,
            "--inside",
        ]
        raise SystemExit(subprocess.run([*command, "--calls", str(options.calls)], check=False).returncode)
    transport.BACKOFF_FIRST_S = 0.005
    soak(options.calls)


def soak(calls: int) -> None:
    outcomes: Counter[str] = Counter()
    with FalClient(timeout=10) as client:
        began = time.monotonic()
        run(client, int(calls * WARM_UP), outcomes)
        before = measure()
        run(client, calls - int(calls * WARM_UP), outcomes)
        after = measure()
        seconds = time.monotonic() - began
    print(f"{calls} calls in {seconds:.0f} s, {THREADS} threads, a fault in about one of 10")
    print(f"{'':>12} {'after warm-up':>14} {'at the end':>11} {'growth':>8}")
    for name in before:
        print(f"{name:>12} {before[name]:>14.1f} {after[name]:>11.1f} {after[name] - before[name]:>8.1f}")
    print("outcomes", dict(outcomes.most_common()))
    if after["memory MB"] - before["memory MB"] >= 10 or after["threads"] > before["threads"]:
        raise SystemExit("it grows")


def run(client: FalClient, calls: int, outcomes: Counter[str]) -> None:
    numbers, lock = iter(range(calls)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            if random.random() < 0.1:
                arm(random.choice(FAULTS))
            outcome = call(client, number)
            with lock:
                outcomes[outcome] += 1

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def call(client: FalClient, number: int) -> str:
    try:
        if number % 4 == 0:
            list(client.iter_any_llm("a prompt of some words"))
            return "ok"
        return client.any_llm_complete("a prompt of some words").get("error_type") or "ok"
    except FalError as error:
        return error.error_type


def arm(fault: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"{os.environ['HTTPS_PROXY']}/_sandbox/faults",
        data=json.dumps(fault).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()


def measure() -> dict[str, float]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory MB": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "threads": threading.active_count(),
        "open files": len(os.listdir("/proc/self/fd")),
    }


if __name__ == "__main__":
    main()
