"""What a batch itself costs: time, memory and CPU for catalogues of several sizes, without fal and its requests.

python bench/bench_batch.py [--products 100,1000,10000] [--postgresql]

Each product has the jobs of a workflow with three styles, which end at once with answers of the usual size: what is
measured is the journal, the results, the page and the threads. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

BACKEND = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BACKEND / "src"), str(BACKEND / "tests")]

from postgres import Postgres, find_postgres  # noqa: E402
from services.batch import Batch  # noqa: E402
from services.batch.postgres import Server  # noqa: E402
from services.batch.recipe import Recipe  # noqa: E402
from services.fal.journal import JobKey, Result  # noqa: E402
from services.fal_service import FalClient  # noqa: E402

STYLES = ("Studio", "Lifestyle", "Premium")
KEYS = (
    *(JobKey("analysis"), JobKey("cutout"), JobKey("description")),
    *(JobKey(step, style) for style in STYLES for step in ("prompt", "picture")),
)
TEXT = "A mug of white porcelain on an oak table, in the light of a window. " * 10
WORDS = {"output": TEXT, "usage": {"prompt_tokens": 400, "completion_tokens": 150, "total_tokens": 550}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", default="100,1000,10000")
    parser.add_argument("--postgresql", action="store_true", help="keep the journal on a PostgreSQL of its own")
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--journal", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        measure(options.inside, options.journal)
        return
    for products in options.products.split(","):
        with database() if options.postgresql else nullcontext() as url:
            journal = ["--journal", url] if url else []
            subprocess.run(
                [sys.executable, __file__, "--inside", products, *journal],
                check=True,
                env={**os.environ, "FAL_KEY": "a:b"},
            )


@contextmanager
def database() -> Iterator[str]:
    programs = find_postgres()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed. Install it: make postgresql.")
    with Postgres(programs) as server:
        yield server.database()


def measure(products: int, journal: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        before_mb, most = resident_mb(), [0.0]
        over = threading.Event()
        threading.Thread(target=partial(watch, most, over), daemon=True).start()
        cpu_s, began = time.process_time(), time.monotonic()
        with Batch(rows(products), folder, command="stand-in", recipe_of=recipe_of, journal=journal) as batch:
            ended = sum(1 for _ in batch)
        took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
        over.set()
        assert ended == products
        began = time.monotonic()
        with Batch(None, folder, recipe_of=recipe_of, journal=journal) as batch:
            assert list(batch) == []
        figures = {
            "products": products,
            "seconds": round(took_s, 2),
            "ms_a_product": round(took_s / products * 1000, 2),
            "cpu_ms_a_product": round(cpu_s / products * 1000, 2),
            "memory_mb_above_start": round(max(most) - before_mb, 1),
            "resume_when_done_s": round(time.monotonic() - began, 2),
            "journal_mb": round(journal_bytes(Path(folder), journal) / 1e6, 1),
            "results_mb": round((Path(folder) / "results.jsonl").stat().st_size / 1e6, 1),
        }
        print(json.dumps(figures), flush=True)


def rows(products: int) -> Iterator[Mapping[str, Any]]:
    for number in range(products):
        yield {"key": f"SKU-{number:07d}", "image": f"/shop/photos/{number:07d}.jpg", "title": "Porcelain mug, 350 ml"}


def recipe_of(command: str, options: Mapping[str, Any]) -> Recipe:
    return Recipe(command, options, ("image", "title"), dict, make)


def make(client: FalClient, options: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The jobs of a workflow as the core tells them to the journal, and its document."""
    assert client.call is not None
    journal = client.call.journal
    assert journal is not None
    url = f"https://v3.fal.media/files/b/{options['image'][-11:]}"
    for number, key in enumerate(KEYS):
        arguments = {"prompt": TEXT, "image_url": url, "model": "google/gemini-2.5-flash-lite"}
        assert journal.begin(key, "bria/replace-background", arguments, lambda: 0.04) is None
        request_id = f"{number:08d}-{options['image'][-11:-4]}"
        journal.sent(key, request_id)
        output = {"image": {"url": url, "width": 1024, "height": 1024}} if key.style else WORDS
        journal.done(key, Result(request_id, output, 1.0, 0.5, 0.04))
    image = {"style_name": "Studio", "image_url": url, "prompt": TEXT, "width": 1024, "height": 1024, "cost_usd": 0.04}
    return {
        "image_url": url,
        "categories": dict.fromkeys(map(str, range(9)), "Porcelain mugs"),
        "cutout": {"url": url},
        "images": [{**image, "style_name": style} for style in STYLES],
        "description": TEXT,
        "errors": None,
    }


def journal_bytes(folder: Path, journal: str | None) -> int:
    if journal is None:
        return (folder / "batch.sqlite").stat().st_size
    server = Server(journal)
    server.connect()
    tables = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = $1::regnamespace"
    size = server.fetch(f"{tables} AND relkind = 'r'", server.address.schema)[0][0]
    server.close()
    return int(size)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def watch(most: list[float], over: threading.Event) -> None:
    while not over.wait(0.2):
        most.append(resident_mb())


if __name__ == "__main__":
    main()
