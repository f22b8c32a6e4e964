"""The types of the Node module: what they allow and refuse, and the examples of the pages, as TypeScript sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import npm
from pages import DOCS, blocks_of

BACKEND = Path(__file__).resolve().parents[1]
NODE = BACKEND / "node"


@pytest.fixture(scope="session")
def typescript(node: str) -> Path:
    """The folder of node_modules with TypeScript; installed once. Without npm or a network its tests are skipped."""
    return npm.packages(node)


def programs() -> dict[str, str]:
    """The pages' programs for Node.js, each at its line there."""
    return {
        f"{page.stem}-{block.line}": "\n" * block.line + block.code
        for page in (DOCS / "node.md", DOCS / "webhooks.md")
        for block in blocks_of(page, "typescript", "javascript")
    }


def test_the_contract_and_the_examples_of_the_pages_compile(typescript: Path, node: str, tmp_path: Path) -> None:
    """As a project that has the module installed. What the types must refuse is marked in contract.mts."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "fal-worker").symlink_to(NODE, target_is_directory=True)
    options = {"typeRoots": [str(typescript / "@types")]}
    project = {"extends": str(NODE / "types" / "tsconfig.json"), "compilerOptions": options, "include": ["*.mts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(project))
    shutil.copy(NODE / "types" / "contract.mts", tmp_path)
    for name, code in programs().items():
        (tmp_path / f"{name}.mts").write_text(code, encoding="utf-8")
    compiler = str(typescript / "typescript" / "bin" / "tsc")
    # A single run ends before V8's optimized code has paid for itself.
    ran = subprocess.run(
        [node, "--no-opt", compiler, "-p", "."], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_module_has_what_its_types_say(node: str) -> None:
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
