"""Uploads of a photo and of a large file, several through one client, against fal-client's `upload_file`.

python bench/bench_upload.py [--megabytes 5 150] [--rounds N] [--quick] [--json]

Both clients live in this process and are warm. The sandbox at the other end takes most of the time of a large upload;
CPU is this process's own; the connections opened are those of all uploads of a way.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from fal_client import SyncClient
from side_by_side import (
    Arguments,
    Connections,
    Cost,
    Report,
    Sandbox,
    cost_here,
    cost_ratio,
    in_turn,
    inside_sandbox,
    median,
    ms,
)

from services.fal_service import FalClient

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"
TARGET = 1.0
LARGE_MB = 50
"""From here on a file is written sparse."""


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--megabytes", type=int, nargs="+", default=[5, 150], help="sizes of the files")
    arguments.add_argument("--rounds", type=int, help="uploads of each way (15; 7, of large ones 5, with --quick)")
    options = arguments.parse_args()
    inside_sandbox()
    report, rows = Report("Uploads"), []
    with tempfile.TemporaryDirectory() as folder, FalClient() as client:
        for megabytes in options.megabytes:
            usual = (5 if megabytes >= LARGE_MB else 7) if options.quick else 15
            path = written(Path(folder), megabytes)
            rows.append(measured(report, client, path, megabytes, options.rounds or usual))
    header = ("file", "uploads", "ours, ms", "bare, ms", "ratio", "target", "ours CPU, ms", "bare CPU, ms", "CPU ratio")
    report.table((*header, "opened, ours : bare"), rows)
    report.show(as_json=options.json)


def written(folder: Path, megabytes: int) -> Path:
    large = megabytes >= LARGE_MB
    path = folder / f"photo-{megabytes}.{'png' if large else 'jpg'}"
    path.write_bytes(PNG if large else JPEG + os.urandom(megabytes * 1_000_000 - len(JPEG)))
    os.truncate(path, megabytes * 1_000_000)
    return path


def measured(report: Report, client: FalClient, path: Path, megabytes: int, rounds: int) -> tuple[object, ...]:
    bare, ours_open, bare_open = SyncClient(), Connections(), Connections()
    ways = {
        "ours": upload(lambda: client.upload_file(path), ours_open),
        "bare": upload(lambda: bare.upload_file(path), bare_open),
    }
    costs = in_turn(ways, rounds)
    found, ours, theirs = cost_ratio(costs["ours"], costs["bare"]), median(costs["ours"]), median(costs["bare"])
    report.guard(f"upload {megabytes} MB", found.wall)
    report.guard(f"upload {megabytes} MB cpu", found.cpu)
    walls = (ms(ours.wall), ms(theirs.wall), f"{found.wall:.3f}", TARGET)
    cpus = (ms(ours.cpu), ms(theirs.cpu), f"{found.cpu:.3f}")
    return f"{megabytes} MB", rounds, *walls, *cpus, f"{ours_open.opened} : {bare_open.opened}"


def upload(action: Callable[[], str], connections: Connections) -> Callable[[], Cost]:
    def run() -> Cost:
        # The sandbox keeps files in memory.
        Sandbox().tell("reset")
        with connections.counted():
            return cost_here(action)

    return run


if __name__ == "__main__":
    main()
