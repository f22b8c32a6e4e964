"""The README works as it is typed: one shell, from top to bottom, in a fresh clone, with and without a key."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fal_sandbox.server import Sandbox
from pages import BACKEND, README, ROOT, blocks_of, text_of

NOT_CLONED = (".git", ".venv*", ".env", "out", "build", "dist", "node_modules", "*.egg-info", ".*_cache")
"""The compiled modules come along, since compiling them again is all that would differ."""
THE_END = "The whole page was typed."
WITHIN_S = 600.0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project as a fresh clone has it: no environment, no results of earlier runs."""
    shutil.copytree(ROOT, tmp_path / "clone", symlinks=True, ignore=shutil.ignore_patterns(*NOT_CLONED))
    return tmp_path / "clone"


@pytest.fixture
def person(tmp_path: Path, node: str) -> dict[str, str]:
    """The environment of somebody who has Python, Node.js and make, and nothing of this project.

    What pip would download is there already: it takes other packages from `others.pth`, and only the project itself
    is installed.
    """
    programs = tmp_path / "programs"
    programs.mkdir()
    base = getattr(sys, "_base_executable", sys.executable)
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{base}" "$@"\n', encoding="utf-8")
    (programs / "python3").chmod(0o755)
    (programs / "node").symlink_to(node)
    # First on the path: an environment that venv has just made has a setuptools of its own, which may be too old.
    others = f"import sys; sys.path.insert(0, {sysconfig.get_path('purelib')!r})\n"
    (tmp_path / "others.pth").write_text(others, encoding="utf-8")
    # "0" turns the isolation off: pip takes the value for that of the option `build_isolation`.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_REQUIRE_VIRTUALENV": "1"}
    return {
        "PATH": os.pathsep.join((str(programs), "/usr/local/bin", "/usr/bin", "/bin")),
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        # Also in a shell that is started from this one: the first command that fails ends it.
        "SHELLOPTS": "errexit",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **offline,
    }


def typed(lines: Iterator[str], clone: Path, env: dict[str, str]) -> str:
    """What one shell prints that is given these lines; it must get to the end of them."""
    script = "\n".join([*lines, f"echo '{THE_END}'", ""])
    ran = subprocess.run(
        ["bash"], input=script, cwd=clone, env=env, text=True, capture_output=True, check=False, timeout=WITHIN_S
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith(THE_END + "\n"), ran.stdout + ran.stderr
    return ran.stdout


def page(leave_out: str) -> Iterator[str]:
    """The commands of the page, but for the blocks with a line that begins like `leave_out`."""
    for block in blocks_of(README, "bash"):
        if not re.search(leave_out, block.code, re.MULTILINE):
            yield f"echo 'README.md:{block.line}'"
            yield block.code


@pytest.mark.nightly
def test_the_page_works_with_make_and_without_a_key(clone: Path, person: dict[str, str], tmp_path: Path) -> None:
    environment = clone / "backend" / ".venv"
    venv.create(environment, with_pip=False)
    shutil.copy(tmp_path / "others.pth", next(environment.glob("lib/python*/site-packages")))
    printed = typed(page(leave_out="^python3 -m venv"), clone, person)
    assert "This downloads" in printed
    _assert_demo(clone / "backend" / "out", printed)
    _assert_results(printed)
    assert (clone / "out" / "report.html").is_file()


@pytest.mark.nightly
def test_the_page_works_with_pip_and_with_a_key(
    clone: Path, person: dict[str, str], tmp_path: Path, box: Sandbox
) -> None:
    """The sandbox that the tests share stands in for fal and the way there; its key is in `.env` only.

    The worker's commands are typed by the other test; here it is asked for its `doctor`, and runs below Node.js.
    """
    way = box.env()
    key = way.pop("FAL_KEY")
    lines = "\n".join(page(leave_out="^make |^fal-sandbox|^fal-worker upload-file"))
    downloaded = f"cp {tmp_path}/others.pth backend/.venv/lib/python*/site-packages/\n"
    lines = lines.replace("python3 -m venv backend/.venv\n", f"python3 -m venv backend/.venv\n{downloaded}")
    edited = f"sed -i 's/^FAL_KEY=.*/FAL_KEY={key}/' backend/.env\n"
    lines = lines.replace("cp .env.example backend/.env\n", f"cp .env.example backend/.env\n{edited}")
    assert downloaded in lines
    assert edited in lines
    _assert_results(typed(iter([lines]), clone, {**person, **way}))
    assert box.ledger()["accepted"] > 0


def _assert_results(printed: str) -> None:
    assert "Mugs for " in printed  # product.py
    assert "Mugs - Dieser " in printed  # product.mjs
    assert '"error": null' in printed


def test_the_programs_on_the_page_are_those_in_examples() -> None:
    for language, name in (("python", "product.py"), ("javascript", "product.mjs")):
        [block] = blocks_of(README, language)
        assert block.code == (BACKEND / "examples" / name).read_text(encoding="utf-8")


def test_the_page_is_short() -> None:
    assert len(text_of(README).splitlines()) <= 300


def _assert_demo(out: Path, printed: str) -> None:
    """`make demo` has printed and painted what the page's first screen shows."""
    assert (out / "report.html").is_file()
    lines = printed.splitlines()
    assert [line for line in blocks_of(README, "text")[0].code.splitlines() if line not in lines] == []
    painted = cv2.imread(str(out / "contact-sheet.jpg")).astype(int)
    committed = cv2.imread(str(BACKEND / "docs" / "demo.jpg")).astype(int)
    assert painted.shape == committed.shape
    assert np.abs(painted - committed).mean() < 5, "docs/demo.jpg is out of date: see CONTRIBUTING.md"
