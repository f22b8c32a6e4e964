"""The sandbox's command line: `run` a command inside it, or `serve` it alone.

Options, signals and exit codes are settled here; what the sandbox does is server's business.
"""

import os
import sys

if __name__ == "__main__" and not __package__:
    # Run as a folder or file: one name per module, and nothing in this folder may hide a stdlib module.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))

import argparse
import json
import shlex
import signal
import subprocess
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_sandbox.server import Sandbox

NEEDED = ("aiohttp", "pydantic", "trustme", "cryptography", "numpy", "cv2")
PASSED_ON = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
NOT_FOUND, NOT_ALLOWED = 127, 126


def build_parser() -> argparse.ArgumentParser:
    """The options of both commands."""
    parser = argparse.ArgumentParser(
        prog="fal-sandbox",
        description="fal's hosts on this machine, for unmodified clients. No model, no key, nothing leaves it.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a command inside a sandbox of its own", allow_abbrev=False)
    _add_options(run)
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND …", help="the command and its arguments")
    serve = commands.add_parser("serve", help="serve until SIGTERM or SIGINT", allow_abbrev=False)
    _add_options(serve)
    serve.add_argument("--port", type=int, default=8787, help="0 takes a free one (default: %(default)s)")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--latency", type=float, default=0.0, metavar="S", help="seconds a model works (default: 0)")
    add("--queue", type=float, default=0.0, metavar="S", help="seconds a job waits in the queue (default: 0)")
    add("--any_endpoint", "--any-endpoint", action="store_true", help="unknown endpoints answer with a picture")
    add("--host", action="append", default=[], metavar="NAME", help="one more host that serves sample photos")
    add("--gone", action="append", default=[], metavar="ENDPOINT", help="id (404), id=410 or id=deprecated (422)")
    add(
        "--gone_model",
        action="append",
        default=[],
        metavar="M",
        help="a model that is gone; M=HOW: 404 (default), 400, 422, completed or error",
    )
    add(
        "--must_reason",
        action="append",
        default=[],
        metavar="M",
        help="a model that refuses to be asked without reasoning",
    )
    add("--in_place", action="store_true", help="products stay where they stood, pixel by pixel")
    add(
        "--misbehave",
        action="append",
        default=[],
        metavar="HOW",
        help="picture models change the product: label, redraw, move, jitter, rescale, tint or crop; HOW=N: N times",
    )
    add("--keepalive", type=float, default=75.0, metavar="S", help="seconds until an idle connection is closed")
    add("--seed", type=int, default=0, metavar="N", help="where ids and unset picture seeds start from")
    add("--ca_dir", metavar="DIR", help="where the CA certificate goes (for containers; default: a temporary folder)")
    add("--journal", metavar="FILE", help="write the requests there at the end, one JSON object a line")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = build_parser()
    options = parser.parse_args(argv)
    command = _command(options)
    if options.command == "run" and not command:
        parser.error("run needs a command: fal-sandbox run [options] -- COMMAND …")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        return _say(
            f"the sandbox needs {', '.join(missing)}: pip install -r requirements-dev.txt, "
            "or install fal-python-services[sandbox]"
        )
    try:
        box = _sandbox(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        box.start()
    except OSError as error:
        where = error.filename or f"port {getattr(options, 'port', 0)}"
        return _say(f"cannot use {where}: {error.strerror or error}")
    try:
        return _run(box, command) if options.command == "run" else _serve(box)
    finally:
        box.stop()
        _write_journal(box, options.journal)


def _command(options: argparse.Namespace) -> list[str]:
    argv: list[str] = getattr(options, "argv", [])
    return argv[1:] if argv[:1] == ["--"] else argv


def _sandbox(options: argparse.Namespace) -> "Sandbox":
    from fal_sandbox.server import Sandbox

    return Sandbox(
        port=getattr(options, "port", 0),
        latency=options.latency,
        queue=options.queue,
        any_endpoint=options.any_endpoint,
        hosts=options.host,
        keepalive_s=options.keepalive,
        gone=options.gone,
        gone_models=options.gone_model,
        must_reason=options.must_reason,
        in_place=options.in_place,
        misbehave=options.misbehave,
        seed=options.seed,
        ca_dir=options.ca_dir,
    )


def _run(box: "Sandbox", command: list[str]) -> int:
    """The command's exit code, as a shell gives it: 128 and the signal's number when one ended it."""
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif not (number == signal.SIGINT and _typed_here()):
            child.send_signal(number)

    for name in PASSED_ON:
        if signal.getsignal(name) is not signal.SIG_IGN:  # as under nohup
            signal.signal(name, pass_on)
    try:
        child = subprocess.Popen(command, env={**os.environ, **box.env()})
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_ALLOWED
    for number in early:
        child.send_signal(number)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _typed_here() -> bool:
    """Whether Ctrl-C was typed at our terminal: then the command has got the signal already."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except (OSError, AttributeError):
        return False


def _serve(box: "Sandbox") -> int:
    ended = threading.Event()
    for name in PASSED_ON:
        signal.signal(name, lambda number, frame: ended.set())
    lines = [f"export {name}={shlex.quote(value)}" for name, value in box.env().items()]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    ended.wait()
    return 0


def _write_journal(box: "Sandbox", path: str | None) -> None:
    if path is None:
        return
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in box.journal())


def _say(message: str) -> int:
    """One line on standard error; the exit code of a failure."""
    sys.stderr.write(f"sandbox: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
