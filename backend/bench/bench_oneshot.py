"""One command as a process of its own, against the smallest script that does the same with bare fal-client.

python bench/bench_oneshot.py [--rounds 31] [--seconds 0 1.05] [--python PATH] [--quick] [--json]

`--python` names another interpreter, such as one of an environment that has only requirements.txt: with the
development tools installed, `import httpx` (in both ways) loads click, rich and pygments too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable

from side_by_side import (
    WORKER,
    Arguments,
    Cost,
    Report,
    Sandbox,
    cost_of_process,
    cost_ratio,
    in_turn,
    inside_sandbox,
    median,
    ms,
)

BARE = """
import fal_client
print(fal_client.subscribe("openrouter/router", arguments={
    "prompt": "Two sentences about a mug.", "model": "google/gemini-2.5-flash-lite", "temperature": 0.7,
}))
"""
TARGETS = {0.0: 0.95, 1.05: 1.0}
LEAST = ("-c", "import argparse, json")
"""What a Python program that knows options and JSON needs at the least."""
START_TARGET = 2.5


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--rounds", type=int, help="pairs at each model time (31; 9 with --quick)")
    arguments.add_argument("--seconds", type=float, nargs="+", default=[0.0, 1.05], help="model times")
    arguments.add_argument("--python", default=sys.executable, help="the interpreter of both ways")
    options = arguments.parse_args()
    inside_sandbox()
    rounds = options.rounds or (9 if options.quick else 31)
    report = Report("One command")
    with tempfile.TemporaryDirectory() as empty:
        # No .env of the project is found there.
        os.chdir(empty)
        calls(report, options.python, options.seconds, rounds)
        starts(report, options.python, rounds)
    report.show(as_json=options.json)


def calls(report: Report, python: str, model_times: list[float], rounds: int) -> None:
    ways = {
        "ours": process(python, str(WORKER), "any-llm-complete", "--prompt", "Two sentences about a mug."),
        "bare": process(python, "-c", BARE),
    }
    rows = []
    for seconds in model_times:
        Sandbox().tell("config", latency=seconds)
        costs = in_turn(ways, rounds if seconds < 1 else max(rounds // 2, 3))
        found = cost_ratio(costs["ours"], costs["bare"])
        report.guard(f"oneshot {seconds:g} s", found.wall)
        report.guard(f"oneshot {seconds:g} s cpu", found.cpu)
        rows.append(
            (f"{seconds:g} s", *both(costs), f"{found.wall:.3f}", TARGETS.get(seconds, "-"), f"{found.cpu:.3f}")
        )
    report.note(f"`any-llm-complete` against `fal_client.subscribe`, {rounds} pairs (half as many from 1 s on).")
    report.table(
        ("model time", "ours, ms", "bare, ms", "ours CPU, ms", "bare CPU, ms", "ratio", "target", "CPU ratio"), rows
    )


def starts(report: Report, python: str, rounds: int) -> None:
    ways = {
        "--help": process(python, str(WORKER), "--help"),
        "any-llm-complete --help": process(python, str(WORKER), "any-llm-complete", "--help"),
        "a wrong option": process(python, str(WORKER), "any-llm-complete", "--promt", "x", codes=(1,)),
        "least": process(python, *LEAST),
    }
    costs = in_turn(ways, rounds)
    rows = []
    for name in list(ways)[:-1]:
        found = cost_ratio(costs[name], costs["least"])
        report.guard(name, found.wall)
        pair = {"ours": costs[name], "bare": costs["least"]}
        rows.append((f"`{name}`", *both(pair), f"{found.wall:.3f}", START_TARGET, f"{found.cpu:.3f}"))
    report.note(f"What sends nothing, against `python {LEAST[0]} '{LEAST[1]}'`, {rounds} pairs.")
    report.table(
        ("worker", "ours, ms", "least, ms", "ours CPU, ms", "least CPU, ms", "ratio", "target", "CPU ratio"), rows
    )


def process(*argv: str, codes: tuple[int, ...] = (0,)) -> Callable[[], Cost]:
    return lambda: cost_of_process(argv, codes=codes)


def both(costs: dict[str, list[Cost]]) -> tuple[str, str, str, str]:
    ours, bare = median(costs["ours"]), median(costs["bare"])
    return ms(ours.wall), ms(bare.wall), ms(ours.cpu), ms(bare.cpu)


if __name__ == "__main__":
    main()
