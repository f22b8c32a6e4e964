"""How far a batch is: a bar on a terminal, lines elsewhere, and nothing that could hold it up."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from services.worker import terminal
from services.worker.batch_meter import Meter

MOVED = re.compile(r"\r\x1b\[2m(.*?)\x1b\[0m\x1b\[K\r")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def state(done: int, **more: Any) -> dict[str, Any]:
    known = {"step": "batch", "status": "running", "total": 10_000, "failed": 0, "ambiguous": 0, "jobs": 10}
    known["unknown_costs"] = 0
    return {**known, "done": done, "cost_usd": done * 0.03, **more}


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def show(columns: int) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(terminal, "stderr_is_terminal", lambda: True)
        monkeypatch.setattr("services.worker.batch_meter.terminal_columns", lambda: columns)
        monkeypatch.setattr(terminal, "terminal_columns", lambda: columns)

    return show


def test_a_pipe_gets_a_line_every_ten_seconds_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    meter = Meter(tells_error=False, clock=clock)
    with meter.shown():
        meter.on_event({"step": "analysis", "status": "started"})
        meter.look()
        meter.on_event(state(4000))  # an earlier run made them
        for clock.now in (1009.9, 1010.0, 1010.1):
            meter.look()
        meter.on_event(state(4060, failed=3, ambiguous=1, jobs=1))
        clock.now = 1064.0
        meter.look()
        meter.finish(None)
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "batch: 4,000 of 10,000 done · 10 jobs · $120.00",
        "batch: 4,060 of 10,000 done · 3 failed · 1 ambiguous · 1 job · $121.80 · 1 h 38 min left",
        "batch: 4,060 of 10,000 done · 3 failed · 1 ambiguous · $121.80",
    ]
    assert shown.out == ""


def test_a_terminal_gets_a_bar_that_fits_and_is_gone_at_the_end(
    on_terminal: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(80)
    clock = Clock()
    meter = Meter(tells_error=True, clock=clock)
    with meter.shown():
        meter.on_event(state(0))
        clock.now += 60
        meter.on_event(state(2500))
        meter.look()
        on_terminal(30)
        meter.look()
        meter.finish("max_usd is reached. Raise it.")
    shown = capsys.readouterr()
    wide, narrow = MOVED.findall(shown.err)
    assert re.fullmatch(r" 25% \|█+\S? *\| 2,500 of 10,000 done · 10 jobs · \$75\.00 · 3 min left", wide)
    assert len(wide) == 79
    assert narrow.startswith(" 25% |")
    assert len(narrow) <= 29
    assert shown.err.endswith(
        "\r\x1b[Kbatch: 2,500 of 10,000 done · $75.00\n\r\x1b[Kerror: max_usd is reached. Raise it.\n"
    )
    assert shown.out == ""


def test_without_tqdm_it_says_how_to_get_a_bar_and_tells_lines(
    on_terminal: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(80)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    clock = Clock()
    meter = Meter(tells_error=False, clock=clock)
    with meter.shown():
        meter.on_event(state(1))
        clock.now += 10
        meter.look()
    assert capsys.readouterr().err.splitlines() == [
        'There is no progress bar without tqdm. Install it: pip install "./backend[batch]".',
        "batch: 1 of 10,000 done · 10 jobs · $0.03",
    ]


def test_a_batch_without_products_and_a_closed_stderr_do_no_harm(
    on_terminal: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(80)
    monkeypatch.setattr(sys, "stderr", None)
    meter = Meter(tells_error=True)
    with meter.shown():
        meter.look()
        meter.on_event(state(0, total=0))
        meter.look()
        meter.finish("It failed.")
