"""A worker that is ended: one document, no job left running at fal, and all of it within two seconds.

The moments are drawn at random, from the first import to after the end. SIGNAL_MOMENTS says how many per command.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import COFFEE, WORKER
from fal_sandbox.server import Sandbox

TO_END_S = 6.0
"""The promise is two seconds; a busy machine may need three times that, and what hangs takes 30."""
MOMENTS = int(os.environ.get("SIGNAL_MOMENTS", "3"))
PYTHON_START_S = 0.06
"""Before that Python itself may still be starting, and a signal ends it without a word."""
CATEGORIES = '{"main_product_type": "Kitchenware"}'
COMMANDS = {
    "any-llm-complete": ("--prompt", "hi"),
    "generate-multiple-bg": ("--image_url", "PHOTO", "--categories", CATEGORIES),
    "workflow": ("--image", "PHOTO"),
}


@dataclass(frozen=True)
class Ended:
    """How a worker answered a signal."""

    code: int
    seconds: float
    document: dict[str, Any] | None


def end_at(moment_s: float, number: int, argv: list[str]) -> Ended:
    process = subprocess.Popen(
        [sys.executable, str(WORKER), *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    time.sleep(moment_s)
    process.send_signal(number)
    began = time.monotonic()
    out, _ = process.communicate(timeout=30)
    seconds = time.monotonic() - began
    lines = out.splitlines()
    assert len(lines) <= 1, out
    return Ended(process.returncode, seconds, json.loads(lines[0]) if lines else None)


def told_ambiguous(document: dict[str, Any]) -> int:
    """How many submits the document calls ambiguous: those that could not be cancelled for want of an id."""
    rows = [document, *(document.get("errors") or [])]
    return sum(row.get("error_type") == "ambiguous_submit" for row in rows)


def running_at_most(jobs: int) -> Callable[[Any], bool]:
    return lambda ledger: ledger["running"] <= jobs


@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_at_any_moment_leaves_one_document_and_no_running_job(command: str, box: Sandbox) -> None:
    chance = random.Random(command)
    picture = {"image": {"url": "https://v3.fal.media/files/x.png", "width": 8, "height": 8}}
    counts = {"cancelled": 0, "finished": 0, "ambiguous": 0, "before Python": 0}
    # On a busy machine Python takes longer to start: a moment before that says nothing, so another is drawn.
    while sum(counts.values()) - counts["before Python"] < MOMENTS:
        assert counts["before Python"] <= 2 * MOMENTS
        box.reset()
        box.configure(latency=0.3)
        for endpoint in ("bria/replace-background", "fal-ai/bria/background/remove"):
            box.fault("job", endpoint=endpoint, times=None, output=picture)
        photo = box.put_file(COFFEE.read_bytes(), "coffee.jpg", "image/jpeg")
        argv = [command, *(photo if word == "PHOTO" else word for word in COMMANDS[command])]
        ended = end_at(chance.uniform(0.01, 1.6), chance.choice((signal.SIGTERM, signal.SIGINT)), argv)

        if ended.document is None:
            assert ended.code < 0
            counts["before Python"] += 1
            continue
        assert ended.code == (0 if ended.document.get("error") is None else 1)
        assert ended.seconds < TO_END_S
        ambiguous = told_ambiguous(ended.document)
        box.wait_for(running_at_most(ambiguous))
        if ended.document.get("error") is None:
            counts["finished"] += 1
        elif ambiguous:
            counts["ambiguous"] += 1
        else:
            assert ended.document["error_type"] == "cancelled"
            counts["cancelled"] += 1
    sys.stdout.write(f"{command}: {MOMENTS} moments, {counts}\n")
    assert counts["cancelled"] > 0


def test_a_job_that_runs_is_cancelled_at_fal_when_its_worker_is_ended(box: Sandbox) -> None:
    box.configure(latency=30.0)
    process = subprocess.Popen(
        [sys.executable, str(WORKER), "any-llm-complete", "--prompt", "hi"],
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    )
    box.wait_for(lambda ledger: ledger["running"] == 1)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    document = json.loads(out)
    box.wait_for(lambda ledger: ledger["running"] == 0)
    assert (process.returncode, document["error_type"]) == (1, "cancelled")
    assert document["request_id"] == box.ledger()["jobs"][0]["request_id"]
    assert box.ledger()["cancelled"] == 1


def test_a_submit_whose_answer_never_comes_is_told_as_ambiguous(box: Sandbox) -> None:
    box.fault("submit", silent=30.0)
    process = subprocess.Popen(
        [sys.executable, str(WORKER), "any-llm-complete", "--prompt", "hi"],
        stdout=subprocess.PIPE,
        env=dict(os.environ),
    )
    box.wait_for(lambda ledger: ledger["accepted"] == 1)
    process.terminate()
    began = time.monotonic()
    out, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < TO_END_S
    document = json.loads(out)
    assert (process.returncode, document["error_type"], document["retryable"]) == (1, "ambiguous_submit", False)
