"""Has it become slower? The quick benchmarks against `baseline.json`; no ratio may be 15 % worse twice in a row.

python bench/check.py            compare; exit code 1 when a ratio is worse
python bench/check.py --update   write what is measured now, the median of three runs, into baseline.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent
BASELINE = BENCH / "baseline.json"
SCRIPTS = (
    "bench_oneshot.py",
    "bench_done.py",
    "bench_fanout.py",
    "bench_upload.py",
    "bench_inprocess.py",
    "bench_node.py",
)
ALLOWED = 1.15
RUNS_FOR_BASELINE = 3


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--update", action="store_true", help="make today's ratios the ones to keep")
    arguments.add_argument("scripts", nargs="*", metavar="SCRIPT", help=f"only these (all: {' '.join(SCRIPTS)})")
    options = arguments.parse_args()
    scripts = [Path(name).name for name in options.scripts] or list(SCRIPTS)
    baseline: dict[str, dict[str, float]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if options.update:
        baseline |= {script: baseline_of(script) for script in scripts}
        BASELINE.write_text(json.dumps(baseline, indent=2) + "\n")
        return
    worse = [line for script in scripts for line in worse_twice(script, baseline.get(script, {}))]
    if worse:
        raise SystemExit("\n".join(("slower than baseline.json, twice in a row:", *worse)))


def baseline_of(script: str) -> dict[str, float]:
    runs = [measured(script) for _ in range(RUNS_FOR_BASELINE)]
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def worse_twice(script: str, baseline: dict[str, float]) -> list[str]:
    """What is worse in this run and in the next one, as lines; the second run is made only when it is needed."""
    first = measured(script)
    suspects = worse(first, baseline)
    second = measured(script) if suspects else first
    again = worse(second, baseline)
    for name in first:
        runs = f"{first[name]:.3f}" + (f", {second[name]:.3f}" if name in suspects else "")
        print(f"{name:<45} {baseline.get(name, 'new'):>8} {runs}", flush=True)
    return [
        f"  {name}: {baseline[name]:.3f}, now {first[name]:.3f} and {second[name]:.3f}" for name in suspects & again
    ]


def worse(ratios: dict[str, float], baseline: dict[str, float]) -> set[str]:
    return {name for name, value in ratios.items() if name in baseline and value > baseline[name] * ALLOWED}


def measured(script: str) -> dict[str, float]:
    command = [sys.executable, str(BENCH / script), "--quick", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
