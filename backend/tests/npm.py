"""npm, and the packages from it that tests use: kept beside the Python packages, between two runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

NODE_MODULE = Path(__file__).resolve().parents[1] / "node"
CACHE = Path(sys.prefix) / "npm"
WANTED = json.loads((NODE_MODULE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
EXPRESS = {"express": "^5.1.0"}
"""What the recipe for it needs."""
INSTALL_S = 300.0


def npm(node: str) -> str:
    """The path of npm: the machine's own, else the one beside `node`."""
    return shutil.which("npm") or str(Path(node).with_name("npm"))


def packages(node: str) -> Path:
    """The folder of node_modules with what the module's tests need. Skips the test where npm cannot install it."""
    return _packages(node, CACHE, WANTED)


def express(node: str) -> Path:
    """The folder of node_modules with Express. Skips the test where npm cannot install it."""
    return _packages(node, CACHE.with_name("npm-express"), EXPRESS)


def _packages(node: str, cache: Path, wanted: dict[str, str]) -> Path:
    if not _installed(cache, wanted):
        _install(node, cache, wanted)
    return cache / "node_modules"


def _installed(cache: Path, wanted: dict[str, str]) -> bool:
    try:
        return json.loads((cache / "package.json").read_text(encoding="utf-8"))["dependencies"] == wanted
    except (OSError, ValueError, KeyError):
        return False


def _install(node: str, cache: Path, wanted: dict[str, str]) -> None:
    """Install into a folder of its own that then takes its place, whoever else does the same."""
    path = f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(dir=cache.parent, prefix="npm-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--fetch-retries=1"]
        argv = [npm(node), "install", *quiet]
        env = {**os.environ, "PATH": path}
        try:
            subprocess.run(argv, cwd=folder, env=env, capture_output=True, check=True, timeout=INSTALL_S)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"npm cannot install {', '.join(wanted)}: {error}")
        shutil.rmtree(cache, ignore_errors=True)
        os.replace(folder, cache)
