"""A batch that is killed at random moments and resumed: every product once, no job paid for twice, pictures whole.

python bench/batch_kills.py [--kills 100] [--products 60] [--seed 1]

Each round runs a batch in a process of its own, with faults on, kills it (SIGKILL) one to three times, resumes it to
its end, then settles what is in doubt, or pays for it once more. The sandbox's ledger is the judge.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

BACKEND = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BACKEND / "src"))

from fal_sandbox.server import Sandbox  # noqa: E402
from services.fal.categories import CATEGORY_NAMES  # noqa: E402

WORKER = BACKEND / "src" / "services" / "fal_worker.py"
PHOTO = BACKEND / "examples" / "coffee.jpg"
STYLES = ("Studio", "Lifestyle", "Premium")
JOBS = 3 + 2 * len(STYLES)
"""Of one product: analysis, cut-out, description, and a prompt and a picture of each style."""
PICTURES = ("fal-ai/bria/background/remove", "bria/replace-background")
TEXTS = ("openrouter/router", "openrouter/router/enterprise")
FAULTS: tuple[dict[str, Any], ...] = (
    {"stage": "submit", "status": 500},
    {"stage": "submit", "status": 429, "retry_after": "0.01"},
    {"stage": "submit", "drop": "before"},
    {"stage": "submit", "drop": "after"},
    {"stage": "submit", "garbage": "truncated"},
    {"stage": "status_stream", "cut": 0},
    {"stage": "result", "status": 502},
    {"stage": "result", "drop": "half"},
    {"stage": "download", "drop": "half"},
    {"stage": "upload", "status": 500},
)
FAULTS_A_ROUND = 20
TIMES = 40
"""Runs after which a batch that does not end is given up."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--products", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    figures: Counter[str] = Counter()
    with Sandbox() as box, tempfile.TemporaryDirectory() as folder:
        os.environ.update(box.env())
        whole_s = timed(box, Path(folder), options.products)
        while figures["kills"] < options.kills:
            kills = min(dice.randint(1, 3), options.kills - figures["kills"])
            one = Round(box, Path(folder) / str(figures["rounds"]), options.products, dice)
            one.run(kills, whole_s, settles=figures["rounds"] % 2 == 0)
            figures += one.figures
            print(f"round {figures['rounds']}: {dict(one.figures)}", file=sys.stderr, flush=True)
    print(json.dumps({"whole_run_s": round(whole_s, 1), **figures}))


def timed(box: Sandbox, folder: Path, products: int) -> float:
    """How long a run takes that is not killed."""
    one = Round(box, folder / "whole", products, random.Random(0))
    began = time.monotonic()
    one.worker("--input", str(one.manifest), "--yes").wait()
    return time.monotonic() - began


class Round:
    """One batch, from its beginning to its end."""

    def __init__(self, box: Sandbox, folder: Path, products: int, dice: random.Random) -> None:
        self._box = box
        self._out = folder / "out"
        self._products = products
        self._dice = dice
        self.figures: Counter[str] = Counter(rounds=1)
        folder.mkdir(parents=True)
        self.manifest = folder / "shop.jsonl"
        rows = ({"key": f"SKU {n}", "image": str(PHOTO)} for n in range(products))
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._prepare()

    def _prepare(self) -> None:
        """Answers at once, and faults at random."""
        self._box.reset()
        url = self._box.put_file(PHOTO.read_bytes(), "picture.jpg", "image/jpeg")
        answers: dict[str, Any] = {endpoint: {"image": {"url": url}} for endpoint in PICTURES}
        answers |= {endpoint: {"output": "A fine mug."} for endpoint in TEXTS}
        answers["openrouter/router/vision"] = {"output": json.dumps(dict.fromkeys(CATEGORY_NAMES, "Mugs"))}
        for endpoint, output in answers.items():
            self._box.fault("job", endpoint=endpoint, output=output, times=None)

    def run(self, kills: int, whole_s: float, *, settles: bool) -> None:
        for fault in self._dice.choices(FAULTS, k=FAULTS_A_ROUND):
            self._box.fault(**fault, skip=self._dice.randrange(self._products * JOBS))
        first = ["--input", str(self.manifest), "--yes"]
        for _ in range(kills):
            process = self.worker(*([] if self._is_known() else first))
            try:
                process.wait(self._dice.uniform(0.1, whole_s))
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                self.figures["kills"] += 1
        self._to_the_end([] if self._is_known() else first, settles=settles)
        self._check(settles=settles)

    def _is_known(self) -> bool:
        """Whether the products are in the journal, so that --output alone resumes it."""
        return (self._out / "batch.sqlite").exists() and self._rows("SELECT count(*) FROM product") != [(0,)]

    def _to_the_end(self, more: list[str], *, settles: bool) -> None:
        """Until all are done: jobs may be in doubt, and products fail, by the faults that are left."""
        for _ in range(TIMES):
            document = self._made(more)
            self.figures["in_doubt"] += self._count("ambiguous")
            if document["products"]["done"] == self._products:
                return
            more = ["--retry_ambiguous", "--retry_failed", *(["--settle"] if settles else [])]
        raise AssertionError("the batch does not end")

    def _made(self, options: list[str]) -> Any:
        document = json.loads(self.worker(*options).communicate()[0])
        assert document["products"] is not None, document
        self.figures["runs"] += 1
        return document

    def _check(self, *, settles: bool) -> None:
        lines = [json.loads(line) for line in (self._out / "results.jsonl").read_text().splitlines()]
        assert sorted(line["key"] for line in lines) == sorted(f"SKU {n}" for n in range(self._products))
        assert {line["status"] for line in lines} == {"done"}, Counter(line["status"] for line in lines)
        for line in lines:
            self._check_pictures(line)
            assert line["result"]["errors"] is None, line["result"]["errors"]
        known = {row[0] for row in self._rows("SELECT request_id FROM job WHERE state = 'done'")}
        assert len(known) == self._products * JOBS, len(known)
        billed = {job["request_id"] for job in self._box.ledger()["jobs"] if job["billable"]}
        assert known <= billed
        twice = billed - known
        jobs = [job for job in self._box.ledger()["jobs"] if job["request_id"] in twice]
        assert len(twice) <= (0 if settles else self.figures["in_doubt"]), (jobs, self.figures)
        # A job that was submitted again may have been billed before: the journal says so.
        assert self._rows("SELECT sum(unknown) FROM job")[0][0] >= len(twice)
        self.figures["billed"] += len(billed)
        self.figures["planned"] += len(known)
        self.figures["paid_again_by_choice"] += len(twice)

    def _check_pictures(self, line: dict[str, Any]) -> None:
        result = line["result"]
        assert len(result["images"]) == len(STYLES)
        for picture in (*result["images"], result["cutout"]):
            data = Path(picture["path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == picture["sha256"]
            assert data == PHOTO.read_bytes()

    def _count(self, state: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM job WHERE state = '{state}'")[0][0])

    def _rows(self, wanted: str) -> list[Any]:
        sql = sqlite3.connect(self._out / "batch.sqlite")
        try:
            return sql.execute(wanted).fetchall()
        finally:
            sql.close()

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(WORKER), "batch", "--output", str(self._out), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
