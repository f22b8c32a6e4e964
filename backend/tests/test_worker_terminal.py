"""A person at a terminal sees the steps, an indented document and plain errors; a pipe gets what it always got."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from fal_sandbox.server import Sandbox
from services.fal_worker import main
from services.worker import terminal
from services.worker.commands import COMMANDS

WORKER = Path(__file__).resolve().parents[1] / "src" / "services" / "fal_worker.py"
ASK = ("any-llm-complete", "--prompt", "Hello")
WRONG = ("any-llm-complete",)
CONTROLS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FLOWERY = '[{"name": "Çiçekli Şık", "description": "Flowers on oak."}]'
LIMIT_S = 180


class Seen(NamedTuple):
    code: int
    out: str
    err: str


class Screen:
    """A terminal: what is written to it, as long as somebody reads it."""

    def __init__(self, columns: int) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._data: list[bytes] = []
        self._reading = threading.Thread(target=self._read, daemon=True)

    def read(self) -> None:
        self._reading.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has it open any more
            while data := os.read(self.master, 65536):
                self._data.append(data)

    def text(self) -> str:
        os.close(self.slave)
        self._reading.join(LIMIT_S)
        return b"".join(self._data).decode().replace("\r\n", "\n")


Run = Callable[..., Seen]


@pytest.fixture
def screens() -> Iterator[Callable[[int], Screen]]:
    made: list[Screen] = []

    def make(columns: int = 100) -> Screen:
        made.append(Screen(columns))
        return made[-1]

    yield make
    for screen in made:
        for fd in (screen.master, screen.slave):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def at(box: Sandbox, screens: Callable[[int], Screen]) -> Run:
    """Run the worker with terminals in place of the streams that are named."""

    def run(
        streams: str, *argv: str, columns: int = 100, env: Mapping[str, str] | None = None, term: str | None = "xterm"
    ) -> Seen:
        shown = {name: screens(columns) for name in ("stdout", "stderr") if name in streams.split()}
        for screen in shown.values():
            screen.read()
        settings = {**os.environ, "PYTHONIOENCODING": "", **(env or {})}
        settings.pop("TERM", None)
        settings.pop("PYTHONIOENCODING")
        process = subprocess.Popen(
            [sys.executable, str(WORKER), *argv],
            env=settings if term is None else {**settings, "TERM": term},
            stdin=subprocess.DEVNULL,
            stdout=shown["stdout"].slave if "stdout" in shown else subprocess.PIPE,
            stderr=shown["stderr"].slave if "stderr" in shown else subprocess.PIPE,
        )
        out, err = process.communicate(timeout=LIMIT_S)
        texts = {name: screen.text() for name, screen in shown.items()}
        return Seen(process.returncode, texts.get("stdout", (out or b"").decode()), texts.get("stderr", _text(err)))

    return run


def _text(data: bytes | None) -> str:
    return (data or b"").decode()


def plain(text: str) -> list[str]:
    """The lines that stay on a terminal, without colours and what was erased."""
    return [CONTROLS.sub("", line).rpartition("\r")[2] for line in text.split("\n") if line]


# stdout


def test_a_terminal_gets_one_indented_document_without_trace(at: Run) -> None:
    code, out, err = at("stdout", *ASK)
    assert code == 0
    assert out.startswith('{\n  "output": ')
    assert "error" in json.loads(out)
    assert err == ""


def test_an_error_on_a_terminal_is_its_sentence_and_hint_without_traceback(at: Run) -> None:
    code, out, _ = at("stdout stderr", *WRONG)
    document = json.loads(out)
    assert code == 1
    assert "--prompt" in document["error"]
    assert document["hint"] == "See fal_worker.py any-llm-complete --help."
    assert "trace" not in document


def test_the_error_of_a_call_has_no_traceback_on_a_terminal_either(at: Run) -> None:
    out = at("stdout", *ASK, env={"FAL_KEY": "bad:key"}).out
    assert json.loads(out)["error_type"] == "auth"
    assert "Traceback" not in out


@pytest.mark.parametrize(("more", "env"), [(["--trace"], {}), ([], {"FAL_LOG": "info"})], ids=["--trace", "FAL_LOG"])
@pytest.mark.parametrize("argv", [ASK, WRONG], ids=["of a call", "of the command line"])
def test_the_traceback_is_shown_on_request(
    at: Run, argv: tuple[str, ...], more: list[str], env: dict[str, str]
) -> None:
    out = at("stdout", *argv, *more, env={"FAL_KEY": "bad:key", **env}).out
    assert json.loads(out)["trace"].startswith("Traceback")


def test_a_stream_stays_one_line_for_each_event_on_a_terminal(at: Run) -> None:
    out = at("stdout stderr", "any-llm-stream", "--prompt", "Hello").out
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["partial"] for line in lines] == [True] * (len(lines) - 1) + [False]


def test_a_models_answer_cannot_move_the_cursor_of_a_terminal(at: Run) -> None:
    out = at("stdout", "any-llm-complete", "--prompt", "sandbox:echo a\x9b31mb\u202ec\x7f").out
    assert not re.search("[\x7f-\x9f\u202e]", out)
    assert "a\x9b31mb\u202ec\x7f" in json.loads(out)["output"]


@pytest.mark.parametrize("argv", [WRONG, ("no-such-command",), ("schema",), ("--help",)], ids=" ".join)
def test_a_pipe_gets_the_same_bytes_whether_or_not_stderr_is_a_terminal(at: Run, argv: tuple[str, ...]) -> None:
    beside_terminal, beside_pipe = at("stderr", *argv), at("", *argv)
    assert (beside_terminal.code, beside_terminal.out) == (beside_pipe.code, beside_pipe.out)
    assert beside_pipe.err == ""


def test_a_pipe_gets_a_line_with_the_traceback_while_a_terminal_is_told_the_sentence(at: Run) -> None:
    _, out, err = at("stderr", *ASK, env={"FAL_KEY": "bad:key"})
    document = json.loads(out)
    assert out == json.dumps(document, ensure_ascii=False) + "\n"
    assert document["trace"].startswith("Traceback")
    assert plain(err)[-1] == f"error: {document['error']}"


def test_a_wrong_command_line_is_told_on_a_terminal_that_does_not_get_the_document(at: Run) -> None:
    _, out, err = at("stderr", *WRONG)
    assert err == f"error: {json.loads(out)['error']}\n"


# stderr


STEP = re.compile(r"^✓ ([\w-]+(?: \w+)?)  \d+\.\d s$")


@pytest.mark.usefixtures("unpainted")
def test_a_terminal_is_told_each_step_with_its_style_and_seconds(at: Run, photo_path: Path) -> None:
    argv = ("workflow", "--image", str(photo_path), "--styles", '["Studio", "Premium"]')
    code, out, err = at("stderr", *argv)
    assert (code, json.loads(out)["error"]) == (0, None)
    steps = [found[1] for line in plain(err) if (found := STEP.match(line))]
    pictures = ["picture Premium", "picture Studio"]
    prompts = ["prompt Premium", "prompt Studio"]
    assert sorted(steps) == sorted(["upload", "analysis", "cutout", "description", *pictures, *prompts, "workflow"])
    assert steps[-1] == "workflow"


def test_a_step_that_fails_is_told_with_its_style_and_reason(at: Run, box: Sandbox, photo_path: Path) -> None:
    box.fault("job", endpoint="bria/replace-background", times=None, fail={"error": "the scene was refused"})
    argv = ("workflow", "--image", str(photo_path), "--styles", '["Studio"]')
    err = at("stderr", *argv).err
    [line] = [line for line in plain(err) if "picture Studio" in line]
    assert re.match(r"^✗ picture Studio  \d+\.\d s  .*the scene was refused", line)


def test_a_line_moves_while_a_command_takes_long_and_is_gone_at_its_end(at: Run, box: Sandbox) -> None:
    box.configure(latency=1.5)
    err = at("stderr", *ASK).err
    assert re.search(r"\r\x1b\[2m[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] \d\.\d s · any-llm-complete\x1b\[0m\x1b\[K\r", err)
    assert re.match(r"^✓ any-llm-complete  \d+\.\d s$", plain(err)[-1])


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_is_told_the_place_in_the_queue(at: Run, box: Sandbox, term: str) -> None:
    box.fault("status_stream", status=405)
    for place in (2, 1):
        box.fault("status", status=202, body={"status": "IN_QUEUE", "queue_position": place})
    err = at("stderr", *ASK, term=term).err
    assert err.index("queue: 2 jobs ahead") < err.index("queue: 1 job ahead")


NO_CONTROLS = {"NO_COLOR": ({"NO_COLOR": "1"}, "xterm"), "dumb": ({}, "dumb"), "no TERM": ({}, None)}


@pytest.mark.parametrize(("env", "term"), NO_CONTROLS.values(), ids=NO_CONTROLS)
def test_colours_are_not_used_where_they_are_not_wanted(at: Run, env: dict[str, str], term: str | None) -> None:
    err = at("stderr", *ASK, env=env, term=term).err
    assert "\x1b[3" not in err
    assert ("\x1b" in err) == ("NO_COLOR" in env)
    assert re.match(r"^✓ any-llm-complete  \d+\.\d s$", plain(err)[-1])


def test_colours_are_used_where_they_are(at: Run) -> None:
    assert "\x1b[32m✓\x1b[0m" in at("stderr", *ASK).err


def test_a_pipe_is_told_nothing_and_with_progress_plain_lines(at: Run) -> None:
    assert at("", *ASK).err == ""
    code, out, err = at("", *ASK, "--progress")
    assert (code, out.count("\n")) == (0, 1)
    assert re.match(r"^✓ any-llm-complete  \d+\.\d s\n$", err)


def test_a_terminal_is_told_nothing_when_progress_is_switched_off(at: Run) -> None:
    assert at("stderr", *ASK, "--progress", "false").err == ""


@pytest.mark.usefixtures("unpainted")
def test_the_moving_line_fits_a_narrow_terminal(at: Run, box: Sandbox, photo_path: Path) -> None:
    box.configure(latency=1)
    argv = ("workflow", "--image", str(photo_path), "--shrink", "false")
    err = at("stderr", *argv, columns=40).err
    moved = re.findall(r"\r\x1b\[2m(.*?)\x1b\[0m\x1b\[K\r", err)
    assert any(line.endswith("…") for line in moved)
    assert max(map(len, moved)) == 39


@pytest.mark.usefixtures("unpainted")
def test_letters_beyond_ascii_are_told_under_every_locale(at: Run, photo_path: Path) -> None:
    argv = ("workflow", "--image", str(photo_path), "--styles", FLOWERY)
    code, out, err = at("stdout stderr", *argv, env=ASCII)
    assert code == 0
    assert json.loads(out)["images"][0]["style_name"] == "Çiçekli Şık"
    assert any(line.startswith(r"done: picture \xc7i\xe7ekli \u015e\u0131k  ") for line in plain(err))
    assert "✓" not in err


@pytest.mark.usefixtures("unpainted")
def test_a_style_cannot_move_the_cursor_of_a_terminal(at: Run, photo_path: Path) -> None:
    styles = json.dumps([{"name": "Evil\x1b]0;x\x07\u202e", "description": "Oak."}])
    err = at("stderr", "workflow", "--image", str(photo_path), "--styles", styles).err
    assert r"picture Evil\x1b]0;x\x07\u202e" in err
    assert not re.search("\x1b\\]|\x07|\u202e", err)


def test_log_lines_erase_the_moving_line(at: Run, box: Sandbox) -> None:
    box.configure(latency=1.5)
    err = at("stderr", *ASK, "--with_logs").err
    shown = [line for line in err.split("\n") if "fal: " in line]
    assert shown
    assert all(re.match(r".*\r\x1b\[Kfal: [^\r]*$", line) for line in shown)


@pytest.mark.parametrize("progress", ["true", "false"])
def test_a_terminal_that_takes_nothing_holds_no_call(
    progress: str, box: Sandbox, screens: Callable[[int], Screen]
) -> None:
    screen = screens(100)  # which nobody reads
    # It has room for 20 kB, and then for a part of a line: a write of the whole would wait for its reader.
    logs = [{"timestamp": f"{number}", "message": "x" * 4000} for number in range(50)]
    box.fault("status_stream", status=405)
    box.fault("status", status=202, body={"status": "IN_PROGRESS", "logs": logs})
    ran = subprocess.run(
        [sys.executable, str(WORKER), *ASK, "--with_logs", "--progress", progress],
        env={**os.environ, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=screen.slave,
        timeout=LIMIT_S,
        check=False,
    )
    assert (ran.returncode, json.loads(ran.stdout)["error"]) == (0, None)


def test_a_terminal_that_is_closed_ends_the_command_and_cancels_its_job(
    box: Sandbox, screens: Callable[[int], Screen]
) -> None:
    box.configure(latency=120)
    screen = screens(100)
    process = subprocess.Popen(
        [sys.executable, str(WORKER), *ASK],
        env={**os.environ, "TERM": "xterm"},
        stdin=screen.slave,
        stdout=screen.slave,
        stderr=screen.slave,
        start_new_session=True,
    )
    os.close(screen.slave)
    box.wait_for(lambda ledger: ledger["accepted"] == 1)
    os.close(screen.master)
    assert process.wait(LIMIT_S) == 1
    assert box.wait_for(lambda ledger: ledger["cancelled"] == 1)["billable"] == 0


# The pieces


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("short", 5, "short"),
        ("longer", 5, "long…"),
        ("茶杯套装", 6, "茶杯…"),
        ("e\u0301te\u0301", 3, "e\u0301te\u0301"),
        ("x", 0, ""),
    ],
)
def test_text_is_cut_by_the_columns_that_it_takes(
    text: str, columns: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "has_unicode", lambda: True)
    assert terminal.cut(text, columns) == shown


def test_an_error_is_told_with_its_hint_once() -> None:
    assert terminal.error_of({"error": "No. Do this.", "hint": "Do this."}) == "No. Do this."
    assert terminal.error_of({"error": "No.", "hint": "Do this."}) == "No. Do this."
    assert terminal.error_of({"error": None}) is None


# Help


def told(capfd: pytest.CaptureFixture[str], *argv: str) -> str:
    capfd.readouterr()
    assert main(argv) == 0
    return capfd.readouterr().out


def test_the_version_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert re.match(r"^fal-worker \d+\.\d+\.\d+\n$", told(capfd, "--version"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_and_no_brackets_round_what_is_required(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = told(capfd, name, "--help")
    assert f"\nexample:\n  fal-worker {name}" in text
    usage = " ".join(text.partition("\n\n")[0].split())
    for option in COMMANDS[name].options:
        assert (f"[--{option.name} " in usage) != option.required


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_tells_the_default_of_every_option_that_may_be_left_out(name: str) -> None:
    free = ("system", "image_url", "webhook_url")
    for option in COMMANDS[name].options_in_argv:
        assert option.required or option.name in free or "default: " in option.help, option.name


def test_the_program_has_the_name_by_which_it_is_run(at: Run) -> None:
    assert at("", "--help").out.startswith("usage: fal_worker.py ")


TYPOS = {
    "analyse-product": ("analyze-product", "See fal-worker analyze-product --help."),
    "workfow": ("workflow", "See fal-worker workflow --help."),
    "any-llm": ("any-llm-complete", "See fal-worker --help."),
    "upload": ("upload-file", "See fal-worker upload-file --help."),
    "any-llm-complete --promt x": ("--prompt", "See fal-worker any-llm-complete --help."),
    "workflow --savedir=x": ("--save_dir", "See fal-worker workflow --help."),
    "workflow --save-dri x": ("--save_dir", "See fal-worker workflow --help."),
    "any-llm-complete -prompt x": ("--prompt", "See fal-worker any-llm-complete --help."),
}


@pytest.mark.parametrize(("line", "meant"), TYPOS.items(), ids=TYPOS)
def test_a_typo_is_answered_with_what_was_meant_and_the_help_to_see(
    line: str, meant: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 1
    document = json.loads(capfd.readouterr().out)
    assert f"Did you mean {meant[0]}" in document["error"]
    assert document["hint"] == meant[1]


@pytest.mark.parametrize("line", ["xyzzy", "workflow --zzzzz 1", "workflow --x 1"])
def test_a_word_like_no_other_gets_no_guess(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 1
    assert "Did you mean" not in json.loads(capfd.readouterr().out)["error"]


def test_an_unquoted_value_is_answered_with_the_remedy(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["any-llm-complete", "--prompt", "A", "mug"]) == 1
    assert "'mug' belongs to no option. Quote" in json.loads(capfd.readouterr().out)["error"]


# Completion


COMPLETIONS = {
    "fal-worker work": {"workflow"},
    "fal-worker workflow --sav": {"--save_dir", "--save-dir"},
    "fal-worker workflow --report t": {"true"},
    "fal-worker schema --name upl": {"upload-file"},
}


@pytest.mark.parametrize(("line", "expected"), COMPLETIONS.items(), ids=COMPLETIONS)
def test_a_shell_is_told_what_may_stand_at_the_cursor(line: str, expected: set[str], tmp_path: Path) -> None:
    found = tmp_path / "found"
    env = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    argv = [sys.executable, str(WORKER)]
    subprocess.run(argv, env={**os.environ, **env}, capture_output=True, timeout=LIMIT_S, check=True)
    assert {word.strip() for word in found.read_text().split("\n")} == expected


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_line_of_the_manual_sets_up_completion(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "fal-worker"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{WORKER}" "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join((str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]))
    asks = {
        "bash": 'COMP_LINE="fal-worker work" COMP_POINT=15 COMP_TYPE=9; '
        '_python_argcomplete fal-worker work fal-worker; echo "${COMPREPLY[@]}"',
        "zsh": "_describe() { print -r -- ${completions%%:*} }; autoload is-at-least; words=(fal-worker work); "
        'BUFFER="fal-worker work"; CURSOR=15; _python_argcomplete',
    }
    first = {"bash": "", "zsh": "autoload -U compinit && compinit -u -D; "}[shell]
    script = f'{first}eval "$(register-python-argcomplete fal-worker)"; {asks[shell]}'
    ran = subprocess.run(
        [shell, "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )
    assert ran.stdout.split() == ["workflow"], ran.stderr
