"""What a batch asks of fal and of this machine: requests, CPU and bytes for one product, in the whole of a real run.

python bench/batch_requests.py [--products 20] [--max_jobs 10] [--seconds 1.0]

A workflow with three styles over copies of one photo, each job `--seconds` long. A picture that is there stands in for
every picture that a model would make; all else is asked of the sandbox, which is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from side_by_side import BACKEND, WORKER, Report, Sandbox, cost_here, inside_sandbox

from services.batch import Batch

PHOTO = BACKEND / "examples" / "coffee.jpg"
PAINTERS = ("bria/replace-background", "fal-ai/bria/background/remove")
JOBS_OF_WORKFLOW = 9
"""With three styles: analysis, cut-out, description, and a prompt and a picture for each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=20)
    parser.add_argument("--max_jobs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="model time of every job")
    options = parser.parse_args()
    inside_sandbox()
    box, count = Sandbox(), options.products
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder) / "photos", Path(folder) / "out"
        photos.mkdir()
        for number in range(count):
            shutil.copy(PHOTO, photos / f"SKU-{number:04}.jpg")
        upload = [sys.executable, WORKER, "upload-file", "--file_path", PHOTO]
        url = json.loads(subprocess.run(upload, stdout=subprocess.PIPE, check=True).stdout)["url"]
        ready = {"image": {"url": url, "width": 600, "height": 400}}
        for endpoint in PAINTERS:
            box.tell("faults", stage="job", endpoint=endpoint, times=None, output=ready)
        box.tell("config", latency=options.seconds)
        before = len(box.journal())
        cost = cost_here(lambda: run(photos, out, options.max_jobs))
        asked = Counter(row["stage"] for row in box.journal()[before:])
        shortest = count * JOBS_OF_WORKFLOW * options.seconds / options.max_jobs
        report = Report(f"{count} products, {options.max_jobs} jobs at once, {options.seconds:g} s a job")
        report.note(
            f"{cost.wall:.1f} s, {cost.wall / shortest:.2f} times what the jobs take at least; "
            f"{cost.cpu / count * 1e3:.0f} ms of CPU a product; "
            f"{sum(asked.values()) / cost.wall:.0f} requests a second."
        )
        rows = [(stage, f"{asked[stage] / count:.2f}") for stage in sorted(asked)]
        report.table(("request", "a product"), [*rows, ("all", f"{sum(asked.values()) / count:.2f}")])
        sizes = {name: (out / name).stat().st_size for name in ("batch.sqlite", "results.jsonl")}
        report.table(("file", "bytes a product"), [(name, f"{size / count:,.0f}") for name, size in sizes.items()])
    report.show(as_json=False)


def run(photos: Path, out: Path, max_jobs: int) -> None:
    with Batch(photos, out, max_jobs=max_jobs) as batch:
        for line in batch:
            assert line["status"] == "done", line


if __name__ == "__main__":
    main()
