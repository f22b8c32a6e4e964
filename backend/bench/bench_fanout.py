"""Steps side by side: what several backgrounds and the whole workflow take, against the shortest way through them.

python bench/bench_fanout.py [--seconds 1.0] [--rounds 3] [--quick] [--json]

Every model call takes the same time. The shortest way is the longer of two: the steps that wait for one another
(prompt or cut-out, then picture; in the workflow analysis, prompt, picture and the upload as measured), and all the
calls spread evenly over the places for calls that run at once. A ready answer stands in for every picture: the figure
is the client's, not the time that this machine takes to paint.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from side_by_side import BACKEND, WORKER, Arguments, Report, Sandbox, cost_of_process, inside_sandbox, median

from services.fal_service import FalClient

CATEGORIES = {"main_product_type": "Kitchenware", "subcategory": "Mugs", "vibe": "Cozy"}
PHOTO = BACKEND / "examples" / "coffee.jpg"
PAINTERS = ("bria/replace-background", "fal-ai/bria/background/remove")
READY = {"image": {"url": "https://v3.fal.media/files/x.png", "width": 1, "height": 1}}
CASES = ((1, 8), (3, 8), (8, 8), (32, 8), (32, 32))
"""Styles, and how many calls may run at once."""
WORKFLOW_STYLES = 3
TARGET = 1.08


@dataclass(frozen=True)
class Run:
    """Seconds until everything was there, until the first picture was, and of the upload."""

    all: float
    first: float
    upload: float = 0.0


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--seconds", type=float, default=1.0, help="model time of every call")
    arguments.add_argument("--rounds", type=int, help="runs of each case; the median counts (3; 1 with --quick)")
    options = arguments.parse_args()
    inside_sandbox()
    box, rounds, seconds = Sandbox(), options.rounds or (1 if options.quick else 3), options.seconds
    for endpoint in PAINTERS:
        box.tell("faults", stage="job", endpoint=endpoint, times=None, output=READY)
    report = Report("Steps side by side")
    report.note(f"Model time of every call: {seconds:g} s; {rounds} runs each, on a client that is warm.")
    rows = [backgrounds(report, *case, seconds, rounds) for case in (CASES[1:2] if options.quick else CASES)]
    rows.append(workflow(report, seconds, rounds))
    report.table(
        ("case", "at once", "seconds", "shortest", "ratio", "target", "first picture, s", "one by one, s"), rows
    )
    if not options.quick:
        as_command(report, seconds, rounds)
    report.show(as_json=options.json)


def backgrounds(report: Report, count: int, at_once: int, seconds: float, rounds: int) -> tuple[object, ...]:
    styles = [{"name": f"Style {number}", "description": "Clean white studio"} for number in range(count)]
    with warm_client(at_once) as client:
        url = client.upload_file(PHOTO)
        Sandbox().tell("config", latency=seconds)

        def make(tell: Callable[[Mapping[str, Any]], None]) -> Any:
            return client.generate_multiple_backgrounds(url, CATEGORIES, styles=styles, on_progress=tell)

        runs = [run(make, count) for _ in range(rounds)]
    jobs = 1 + 2 * count
    return row(
        report,
        f"{count} style{'s' * (count > 1)}",
        at_once,
        runs,
        max(2, math.ceil(jobs / at_once)) * seconds,
        jobs * seconds,
    )


def workflow(report: Report, seconds: float, rounds: int) -> tuple[object, ...]:
    at_once = 8
    with warm_client(at_once) as client:
        Sandbox().tell("config", latency=seconds)
        runs = [
            run(lambda tell: client.product_workflow(PHOTO, on_progress=tell), WORKFLOW_STYLES) for _ in range(rounds)
        ]
    upload = statistics.median(run.upload for run in runs)
    jobs = 3 + 2 * WORKFLOW_STYLES
    return row(report, "workflow, 3 styles", at_once, runs, 3 * seconds + upload, jobs * seconds + upload)


def row(
    report: Report, name: str, at_once: int, runs: list[Run], shortest: float, one_by_one: float
) -> tuple[object, ...]:
    took = statistics.median(run.all for run in runs)
    first = statistics.median(run.first for run in runs)
    found = report.guard(f"fanout {name}, {at_once} at once", took / shortest)
    return name, at_once, f"{took:.3f}", f"{shortest:.3f}", f"{found:.3f}", TARGET, f"{first:.3f}", f"{one_by_one:.0f}"


def run(make: Callable[[Callable[[Mapping[str, Any]], None]], Any], count: int) -> Run:
    began, pictures = time.perf_counter(), []

    def tell(event: Mapping[str, Any]) -> None:
        if event["step"] == "picture" and event["status"] == "done":
            pictures.append(time.perf_counter() - began)

    result = make(tell)
    took = time.perf_counter() - began
    if result["total_generated"] != count:
        raise SystemExit(f"only {result['total_generated']} of {count}: {result['errors']}")
    return Run(took, pictures[0], result["timings"].get("upload", 0.0))


def warm_client(at_once: int) -> FalClient:
    """A client whose modules are loaded and whose first connection stands."""
    Sandbox().tell("config", latency=0.0)
    client = FalClient(max_concurrency=at_once)
    client.product_workflow(PHOTO, styles=["Studio"])
    return client


def as_command(report: Report, seconds: float, rounds: int) -> None:
    """The workflow as a process of its own; the same with models that take no time is its start-up."""
    took = {}
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        for model_s in (0.0, seconds):
            Sandbox().tell("config", latency=model_s)
            argv = (sys.executable, str(WORKER), "workflow", "--image", str(PHOTO))
            took[model_s] = median([cost_of_process(argv) for _ in range(rounds + 1)][1:]).wall
    found = report.guard("fanout workflow command", (took[seconds] - took[0.0]) / (3 * seconds))
    report.note(
        f"`workflow` as a command: {took[seconds]:.3f} s, of which {took[0.0]:.3f} s start-up (the same with models "
        f"that take no time); the rest is {found:.3f} times its shortest way of {3 * seconds:g} s (target {TARGET})."
    )


if __name__ == "__main__":
    main()
