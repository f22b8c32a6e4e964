"""Styles run side by side: what several backgrounds take, against one and against one after the other.

python bench/bench_fanout.py [--seconds 1.0]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BACKEND / "src"))

from sandbox.server import Sandbox  # noqa: E402
from services.fal_service import FalClient  # noqa: E402

CATEGORIES = {"main_product_type": "Kitchenware", "subcategory": "Mugs", "vibe": "Cozy"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="model time of every call")
    seconds = parser.parse_args().seconds
    answer = {"output": {"image": {"url": "https://v3.fal.media/files/x.png", "width": 1, "height": 1}}}
    with Sandbox(latency=seconds) as box:
        os.environ.update(box.env())
        for endpoint in ("bria/replace-background", "fal-ai/bria/background/remove"):
            # A ready answer: the figure is the client's, not the time this machine takes to paint.
            box.fault("job", endpoint=endpoint, times=None, **answer)
        with FalClient(max_concurrency=32) as client:
            client.any_llm_complete("warm-up")
            photo = (BACKEND / "examples" / "coffee.jpg").read_bytes()
            table(client, box.put_file(photo, "coffee.jpg", "image/jpeg"), seconds)


def table(client: FalClient, photo_url: str, seconds: float) -> None:
    path = 2 * seconds
    print(f"model time of every call: {seconds:g} s; shortest path (prompt or cut-out, then picture): {path:g} s")
    print(f"{'styles':>6} {'seconds':>8} {'x path':>7} {'one by one':>11}")
    for count in (1, 3, 8):
        styles = [{"name": f"Style {number}", "description": "Clean white studio"} for number in range(count)]
        began = time.perf_counter()
        result = client.generate_multiple_backgrounds(photo_url, CATEGORIES, styles=styles)
        took = time.perf_counter() - began
        if result["total_generated"] != count:
            raise SystemExit(f"only {result['total_generated']} of {count}: {result['errors']}")
        print(f"{count:>6} {took:>8.3f} {took / path:>7.3f} {seconds * (1 + 2 * count):>10.1f}s")


if __name__ == "__main__":
    main()
