"""One command as a process of its own, against the smallest script that does the same with bare fal-client.

python bench/bench_oneshot.py [--rounds 31] [--seconds 0 1.05] [--python PATH] [--certificates FILE]
                               [--quick] [--json]

Both ways run in an environment that holds only what requirements.txt installs; `--python` names another interpreter.
With click and rich beside it, as with the development tools, the bare way loads them too: `import httpx` does.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import venv
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from side_by_side import (
    BACKEND,
    WORKER,
    Arguments,
    Cost,
    Report,
    Sandbox,
    cost_of_process,
    cost_ratio,
    in_turn,
    inside_sandbox,
    median,
    ms,
)

BARE = """
import fal_client
print(fal_client.subscribe("openrouter/router", arguments={
    "prompt": "Two sentences about a mug.", "model": "google/gemini-2.5-flash-lite", "temperature": 0.7,
}))
"""
TARGETS = {0.0: 0.95, 1.05: 1.0}
LEAST = ("-c", "import argparse, json")
"""What a Python program that knows options and JSON needs at the least."""
START_TARGET = 2.5


def main() -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument("--rounds", type=int, help="pairs at each model time (31; 9 with --quick)")
    arguments.add_argument("--seconds", type=float, nargs="+", default=[0.0, 1.05], help="model times")
    arguments.add_argument("--python", type=os.path.abspath, help="the interpreter of both ways")
    arguments.add_argument("--certificates", help="a bundle that both ways load beside the sandbox's one certificate")
    options = arguments.parse_args()
    inside_sandbox()
    rounds = options.rounds or (9 if options.quick else 31)
    report = Report("One command")
    with tempfile.TemporaryDirectory() as folder:
        # No .env of the project is found there.
        os.chdir(folder)
        if options.certificates:
            trust(Path(options.certificates), Path(folder, "bundle.pem"))
        python = options.python or runtime_python(Path(folder, "env"))
        calls(report, python, options.seconds, rounds)
        starts(report, python, rounds)
    report.show(as_json=options.json)


def trust(more: Path, bundle: Path) -> None:
    """Have both ways load certificates as off the sandbox; bare fal-client loads them twice behind a proxy."""
    bundle.write_bytes(more.read_bytes() + Path(os.environ["SSL_CERT_FILE"]).read_bytes())
    os.environ.update(dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(bundle)))


def runtime_python(folder: Path) -> str:
    """The interpreter of a virtual environment with the packages of requirements.txt alone, linked, not installed."""
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for package in runtime_packages():
        for name in {path.parts[0] for path in package.files or ()} - {".."}:
            (site / name).symlink_to(package.locate_file(name))
    return str(folder / "bin" / "python")


def runtime_packages() -> list[Distribution]:
    """What requirements.txt names, and what those packages require."""
    wanted = re.findall(r"^[\w.-]+", (BACKEND / "requirements.txt").read_text(), re.MULTILINE)
    found: dict[str, Distribution] = {}
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name not in found:
            with contextlib.suppress(PackageNotFoundError):
                found[name] = distribution(name)
                needed = (line for line in found[name].requires or () if "extra ==" not in line)
                wanted += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed]
    return list(found.values())


def calls(report: Report, python: str, model_times: list[float], rounds: int) -> None:
    ways = {
        "ours": process(python, str(WORKER), "any-llm-complete", "--prompt", "Two sentences about a mug."),
        "bare": process(python, "-c", BARE),
    }
    rows = []
    for seconds in model_times:
        Sandbox().tell("config", latency=seconds)
        costs = in_turn(ways, rounds if seconds < 1 else max(rounds // 2, 3))
        found = cost_ratio(costs["ours"], costs["bare"])
        report.guard(f"oneshot {seconds:g} s", found.wall)
        report.guard(f"oneshot {seconds:g} s cpu", found.cpu)
        rows.append(
            (f"{seconds:g} s", *both(costs), f"{found.wall:.3f}", TARGETS.get(seconds, "-"), f"{found.cpu:.3f}")
        )
    report.note(f"`any-llm-complete` against `fal_client.subscribe`, {rounds} pairs (half as many from 1 s on).")
    report.table(
        ("model time", "ours, ms", "bare, ms", "ours CPU, ms", "bare CPU, ms", "ratio", "target", "CPU ratio"), rows
    )


def starts(report: Report, python: str, rounds: int) -> None:
    ways = {
        "--help": process(python, str(WORKER), "--help"),
        "any-llm-complete --help": process(python, str(WORKER), "any-llm-complete", "--help"),
        "a wrong option": process(python, str(WORKER), "any-llm-complete", "--promt", "x", codes=(1,)),
        "least": process(python, *LEAST),
    }
    costs = in_turn(ways, rounds)
    rows = []
    for name in list(ways)[:-1]:
        found = cost_ratio(costs[name], costs["least"])
        report.guard(name, found.wall)
        pair = {"ours": costs[name], "bare": costs["least"]}
        rows.append((f"`{name}`", *both(pair), f"{found.wall:.3f}", START_TARGET, f"{found.cpu:.3f}"))
    report.note(f"What sends nothing, against `python {LEAST[0]} '{LEAST[1]}'`, {rounds} pairs.")
    report.table(
        ("worker", "ours, ms", "least, ms", "ours CPU, ms", "least CPU, ms", "ratio", "target", "CPU ratio"), rows
    )


def process(*argv: str, codes: tuple[int, ...] = (0,)) -> Callable[[], Cost]:
    return lambda: cost_of_process(argv, codes=codes)


def both(costs: dict[str, list[Cost]]) -> tuple[str, str, str, str]:
    ours, bare = median(costs["ours"]), median(costs["bare"])
    return ms(ours.wall), ms(bare.wall), ms(ours.cpu), ms(bare.cpu)


if __name__ == "__main__":
    main()
