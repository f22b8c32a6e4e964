"""How long the page of a large batch takes: to be written, to be opened, and to find products in it.

python bench/bench_page.py [--products N] [--quick] [--json]

One product is made on the sandbox, with packshot and listing; its line and its pictures stand for all of them. A
headless Chromium opens the page from its folder, in a window of a phone. Times include what it shows first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import BACKEND, WORKER, Arguments, Report, cost_here, inside_sandbox, ms

from services.batch.page import Page

sys.path.insert(0, str(BACKEND / "tests"))

from chromium import Chromium, find_chromium

MANY, FEW = 10_000, 500
FAILS_EVERY = 50
TOLD = "document.querySelector('#told').textContent"
ASKED = {"the last page": "#page={last}", "the failed ones": "#state=failed", "a key": "#key=SKU-{number:07}"}


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--products", type=int, help=f"({MANY}; {FEW} with --quick)")
    options = arguments.parse_args()
    inside_sandbox()
    count = options.products or (FEW if options.quick else MANY)
    report = Report(f"The page of a batch of {count:,} products")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        make(out, count)
        lines = (out / "results.jsonl").stat().st_size
        cost = cost_here(lambda: Page(out).update())
        report.note(
            f"Written in {cost.wall:.2f} s ({ms(cost.cpu / count)} ms of CPU a product) from {lines / 1e6:.0f} MB of "
            "results.jsonl."
        )
        report.table(("shown", "ms"), [(what, f"{seconds * 1e3:.0f}") for what, seconds in opened(out, count)])
    report.show(as_json=options.json)


def make(out: Path, count: int) -> None:
    """`count` products in `out`, all like one."""
    one = out.parent / "one"
    photo = BACKEND / "examples" / "bottle.jpg"
    argv = [WORKER, "workflow", "--image", photo, "--save_dir", one, "--packshot", "--listing", "--for", "amazon"]
    made = subprocess.run([sys.executable, *map(str, argv)], stdout=subprocess.PIPE, text=True, check=True).stdout
    out.mkdir()
    with open(out / "results.jsonl", "w", encoding="utf-8") as results:
        for number in range(1, count + 1):
            key = f"SKU-{number:07}"
            (out / key).mkdir()
            for picture in one.iterdir():
                os.link(picture, out / key / picture.name)
            row = line(key, number, json.loads(made.replace(json.dumps(str(one))[1:-1], f"out/{key}")))
            results.write(json.dumps(row, ensure_ascii=False) + "\n")


def line(key: str, number: int, document: dict[str, Any]) -> dict[str, Any]:
    """One line of results.jsonl."""
    known = {"key": key, "line": number, "attempts": 1, "seconds": 12.0, "cost_usd": 0.03}
    if number % FAILS_EVERY:
        return {**known, "status": "done", "result": document, "error": None, "error_type": None, "hint": None}
    why = {"error": "The call took too long.", "error_type": "timeout", "hint": "Raise --timeout."}
    return {**known, "status": "failed", "result": None, **why}


def opened(out: Path, count: int) -> list[tuple[str, float]]:
    """What was asked of the page, and the seconds until it was shown."""
    program = find_chromium()
    if program is None:
        raise SystemExit("There is no Chromium. Install it: make chromium.")
    with tempfile.TemporaryDirectory() as profile, Chromium(program, Path(profile)) as browser:
        browser.show(360, 780)
        began = time.perf_counter()
        browser.open((out / "index.html").as_uri())
        browser.wait_for(TOLD)
        found = [("the first page", time.perf_counter() - began)]
        for what, asked in ASKED.items():
            before = browser.run(TOLD)
            began = time.perf_counter()
            browser.run(f"location.hash = {json.dumps(asked.format(last=-(-count // 50), number=count - 1))}")
            browser.wait_for(f"{TOLD} !== {json.dumps(before)}")
            found.append((what, time.perf_counter() - began))
    return found


if __name__ == "__main__":
    main()
