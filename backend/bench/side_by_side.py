"""What the benchmarks share: a sandbox around the script, two ways measured in turn, and tables.

The machine is shared and noisy, so a figure is a ratio: two ways run one after the other, A B B A …, each pair gives
one quotient, and the median of the quotients counts. What else runs at that moment slows both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from httpcore._backends.sync import SyncBackend, SyncStream

BACKEND = Path(__file__).resolve().parents[1]
SANDBOX = BACKEND / "src" / "fal_sandbox"
WORKER = BACKEND / "src" / "services" / "fal_worker.py"
_INSIDE = "BENCH_INSIDE"

sys.path.insert(0, str(BACKEND / "src"))

T = TypeVar("T")


class Arguments(argparse.ArgumentParser):
    """A benchmark's options: `--quick` and `--json`, and whatever it adds."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--quick", action="store_true", help="fewer rounds and shorter jobs: what bench-check runs")
        self.add_argument("--json", action="store_true", help="print only the ratios, as one JSON object")


def inside_sandbox() -> None:
    """Go on in a process inside a sandbox, which is a process of its own: its CPU time and its GIL are not ours.

    Both ways find compiled modules, whatever PYTHONDONTWRITEBYTECODE says, and no FAL_ setting of this machine's user.
    """
    if _INSIDE in os.environ:
        return
    skipped = ("PYTHONDONTWRITEBYTECODE", "FAL_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(skipped)}
    command = [sys.executable, str(SANDBOX), "run", "--", sys.executable, *sys.argv]
    raise SystemExit(subprocess.run(command, env={**env, _INSIDE: "1"}, check=False).returncode)


class Sandbox:
    """The sandbox around this process, over HTTP."""

    def __init__(self) -> None:
        self._url = os.environ["HTTPS_PROXY"] + "/_sandbox/"

    def tell(self, ability: str, **what: Any) -> None:
        """`faults`, `say`, `config` or `reset`."""
        self._ask(ability, json.dumps(what).encode())

    def journal(self) -> list[dict[str, Any]]:
        return list(self._ask("journal"))

    def _ask(self, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(self._url + path, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@dataclass(frozen=True)
class Cost:
    """What something took: seconds by the clock, and of processor time."""

    wall: float
    cpu: float


def cost_of_process(argv: Sequence[str], *, codes: Sequence[int] = (0,)) -> Cost:
    """Run a program to its end, its output thrown away."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in codes:
            output.seek(0)
            raise SystemExit(f"{argv} ended with {process.returncode}: {output.read()[-2000:].decode()}")
    return Cost(wall, used.ru_utime + used.ru_stime)


def cost_here(action: Callable[[], object]) -> Cost:
    """Run something in this process, all its threads counted."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    action()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


class Connections:
    """Counts the connections that httpx opens and closes while `counted`, ours and fal-client's alike."""

    def __init__(self) -> None:
        self.opened = self.now = self.most = 0

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        connect, close = SyncBackend.connect_tcp, SyncStream.close

        def connected(*args: Any, **options: Any) -> Any:
            stream = connect(*args, **options)
            self.opened, self.now = self.opened + 1, self.now + 1
            self.most = max(self.most, self.now)
            return stream

        def closed(stream: SyncStream) -> None:
            self.now -= 1
            close(stream)

        with patch.object(SyncBackend, "connect_tcp", connected), patch.object(SyncStream, "close", closed):
            yield


def in_turn(ways: Mapping[str, Callable[[], T]], rounds: int, warm_up: int = 1) -> dict[str, list[T]]:
    """Each way once a round, every second round in the opposite order; the results by way."""
    results: dict[str, list[T]] = {name: [] for name in ways}
    for number in range(-warm_up, rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            result = ways[name]()
            if number >= 0:
                results[name].append(result)
    return results


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))


def ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """The median of the quotients, pair by pair."""
    return statistics.median(mine / theirs for mine, theirs in zip(ours, others, strict=True))


def cost_ratio(ours: Sequence[Cost], others: Sequence[Cost]) -> Cost:
    return Cost(
        ratio([cost.wall for cost in ours], [cost.wall for cost in others]),
        ratio([cost.cpu for cost in ours], [cost.cpu for cost in others]),
    )


@dataclass
class Report:
    """The tables of one benchmark, and the ratios that bench-check compares; smaller is better in all of them."""

    title: str
    ratios: dict[str, float] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)

    def guard(self, name: str, value: float) -> float:
        """`value`, remembered for bench-check under `name`."""
        self.ratios[name] = round(value, 4)
        return value

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int = 1) -> None:
        """A Markdown table: the first `texts` columns to the left, the numbers to the right."""
        lines = [[str(cell) for cell in row] for row in (header, *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * (width - (at >= texts)) + ":" * (at >= texts) for at, width in enumerate(widths)]
        for line in (lines[0], rule, *lines[1:]):
            cells = (
                cell.ljust(width) if at < texts else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            self._lines.append(f"| {' | '.join(cells)} |")
        self._lines.append("")

    def note(self, text: str) -> None:
        self._lines += [text, ""]

    def show(self, *, as_json: bool) -> None:
        if as_json:
            print(json.dumps(self.ratios))
        else:
            print(f"### {self.title}\n\n" + "\n".join(self._lines))


def ms(seconds: float) -> str:
    """Milliseconds with three digits that count."""
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"
