"""The types of the Node module: what they allow and refuse, and the README's examples, as TypeScript itself sees it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_readme import BLOCKS

BACKEND = Path(__file__).resolve().parents[1]
NODE = BACKEND / "node"
CACHE = Path(sys.prefix) / "npm"
"""Where TypeScript is kept between two runs: beside the Python packages."""
WANTED = json.loads((NODE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
INSTALL_S = 300.0


def _installed() -> bool:
    try:
        return json.loads((CACHE / "package.json").read_text(encoding="utf-8"))["dependencies"] == WANTED
    except (OSError, ValueError, KeyError):
        return False


def _install(node: str) -> None:
    """Install into a folder of its own that then takes its place, whoever else does the same."""
    npm = shutil.which("npm") or str(Path(node).with_name("npm"))
    path = f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(dir=CACHE.parent, prefix="npm-", ignore_cleanup_errors=True) as folder:
        (Path(folder) / "package.json").write_text(json.dumps({"private": True, "dependencies": WANTED}))
        argv = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--fetch-retries=1"]
        try:
            subprocess.run(
                argv, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, check=True, timeout=INSTALL_S
            )
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"TypeScript is not here and npm cannot install it: {error}")
        shutil.rmtree(CACHE, ignore_errors=True)
        os.replace(folder, CACHE)


@pytest.fixture(scope="session")
def typescript(node: str) -> Path:
    """The folder of node_modules with TypeScript; installed once. Without npm or a network its tests are skipped."""
    if not _installed():
        _install(node)
    return CACHE / "node_modules"


def readme_programs() -> Iterator[tuple[int, str]]:
    """The README's programs for Node, at their lines there; a block without imports goes on with the one before."""
    first, program = 0, ""
    for block in BLOCKS:
        if block.language not in ("typescript", "javascript"):
            continue
        if program and "import " in block.code:
            yield first, program
            program = ""
        first = first if program else block.line
        program += "\n" * (block.line - program.count("\n")) + block.code
    if program:
        yield first, program


def test_the_contract_and_the_examples_of_the_readme_compile(typescript, node, tmp_path):
    """As a project that has the module installed. What the types must refuse is marked in contract.mts."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "fal-worker").symlink_to(NODE, target_is_directory=True)
    options = {"typeRoots": [str(typescript / "@types")]}
    project = {"extends": str(NODE / "types" / "tsconfig.json"), "compilerOptions": options, "include": ["*.mts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(project))
    shutil.copy(NODE / "types" / "contract.mts", tmp_path)
    programs = dict(readme_programs())
    assert programs
    for line, code in programs.items():
        (tmp_path / f"README-{line}.mts").write_text(code, encoding="utf-8")
    compiler = str(typescript / "typescript" / "bin" / "tsc")
    ran = subprocess.run([node, compiler, "-p", "."], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_module_has_what_its_types_say(node):
    script = """
        const module = await import(process.argv[1]);
        const { FalWorker, FalError } = module;
        const own = Object.getOwnPropertyNames(FalWorker).filter((name) => typeof FalWorker[name] === 'function');
        const worker = [...own, ...Object.getOwnPropertyNames(FalWorker.prototype)];
        const error = ['name', ...Object.keys(new FalError({ error: 'x' }))];
        console.log(JSON.stringify({ module: Object.keys(module), FalWorker: worker, FalError: error }));
    """
    argv = [node, "--input-type=module", "-e", script, "--", str(NODE / "fal-worker.mjs")]
    ran = subprocess.run(argv, capture_output=True, encoding="utf-8", check=True)
    there = {name: set(members) for name, members in json.loads(ran.stdout).items()}
    types = (NODE / "fal-worker.d.ts").read_text(encoding="utf-8")
    assert there["module"] == set(re.findall(r"^export (?:class|function) (\w+)", types, re.MULTILINE))
    for name in ("FalWorker", "FalError"):
        body = types.partition(f"export class {name} ")[2].partition("\n}\n")[0]
        assert there[name] == set(re.findall(r"^  (?:(?:readonly|static|get) )*(\w+)[(<:]", body, re.MULTILINE))
