"""The project holds together: what the documents promise exists, and what exists is in the documents."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import fal_sandbox.__main__ as sandbox_cli
from fal_sandbox.endpoint_table import ENDPOINTS
from services.fal import errors, results, settings
from services.fal.endpoints import BY_HAND, CHAINS, MODEL_CHAINS
from services.fal.errors import FalError
from services.fal_service import FalClient
from services.worker.commands import COMMANDS, COMMON

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BACKEND = Path(__file__).resolve().parents[1]
ROOT = BACKEND.parent
SRC = BACKEND / "src"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((BACKEND / "pyproject.toml").read_text(encoding="utf-8"))["project"]

OWN_DEPENDENCIES_USED = {"httpx", "httpcore", "httpx_sse", "urllib3"}
"""Packages that come with the three runtime packages and that services import themselves."""
IMPORT_NAMES = {
    "python-dotenv": "dotenv",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-image": "skimage",
}
FORBIDDEN = ("pypi" + ".org", "registry.npmjs" + ".org", "deb.debian" + ".org", "/work" + "/")
METHODS = [name for name, _ in inspect.getmembers(FalClient, inspect.isfunction) if not name.startswith("_")]
ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and "error_type" in vars(cls)]
SHAPES = {name: kind for name, kind in vars(results).items() if hasattr(kind, "__required_keys__")}
NESTED = {"categories": results.Categories, "images": results.StyledImage, "image": results.Image}


def section(title: str) -> str:
    """The text under the first heading that begins with `title`, up to the next heading of its level or above."""
    found: list[str] = []
    level = 0
    fenced = False
    for line in README.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) (.*)", line)
        if heading and found and len(heading[1]) <= level:
            break
        if heading and not found and heading[2].startswith(title):
            level = len(heading[1])
            found.append(line)
        elif found:
            found.append(line)
    assert found, f"no heading {title!r}"
    return "".join(found)


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of the tables in `text`."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def method_section(name: str) -> str:
    return section(f"`{name}(")


# Settings, commands, errors


def test_env_example_lists_every_setting_and_nothing_else():
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = [found[1] for line in lines if (found := re.match(r"#? ?([A-Z_]+)=", line))]
    assert sorted(named) == sorted(settings.VARIABLES)


def test_env_example_sets_only_the_key_and_shows_the_true_defaults():
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == ["FAL_KEY=your_fal_key_here"]
    shown = dict(re.findall(r"^# ([A-Z_]+)=(.+)$", text, re.MULTILINE))
    chains = {settings.ENDPOINT_VARIABLES[job]: chain[0].path for job, chain in CHAINS.items()}
    models = {settings.MODEL_VARIABLES[job]: ",".join(chain) for job, chain in MODEL_CHAINS.items()}
    assert shown == {
        "FAL_TIMEOUT_S": f"{settings.DEFAULT_TIMEOUT_S:g}",
        "FAL_MAX_CONCURRENCY": str(settings.DEFAULT_CONCURRENCY),
        "FAL_LOG": "off",
        **chains,
        **models,
    }


def test_every_line_of_env_example_has_a_comment_above_it():
    blocks = (ROOT / ".env.example").read_text(encoding="utf-8").strip().split("\n\n")
    assert all(re.match(r"# [A-Z][^=]*\.", block) for block in blocks)


def test_readme_lists_every_setting_with_its_default():
    table = "\n".join(" | ".join(row) for row in rows(section("Settings")))
    missing = [name for name in settings.VARIABLES if f"`{name}`" not in table]
    assert not missing
    assert f"`FAL_TIMEOUT_S` | {settings.DEFAULT_TIMEOUT_S:g} |" in table
    assert f"`FAL_MAX_CONCURRENCY` | {settings.DEFAULT_CONCURRENCY} |" in table


def test_readme_lists_the_default_models_in_their_order():
    table = [row for row in rows(section("Models")) if row[0] != "Asked by"]
    assert [re.findall(r"`([\w./-]+)`", row[2]) for row in table] == [list(chain) for chain in MODEL_CHAINS.values()]
    assert [row[1].strip("`") for row in table] == list(settings.MODEL_VARIABLES.values())


def test_readme_lists_the_chains_in_their_order():
    listed = [re.findall(r"`([\w./-]+)`", row[1]) for row in rows(section("Endpoints"))][1:]
    assert listed == [[row.path for row in chain] for chain in CHAINS.values()]
    assert all(f"`{row.path}`" in section("Endpoints") for row in BY_HAND)


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_lists_every_option_of_the_command(name):
    options = next(row[1] for row in rows(section("Command line")) if row[0] == f"`{name}`")
    command = COMMANDS[name]
    assert re.findall(r"--(\w+)", options) == [option.name for option in command.options]
    for option in command.options:
        assert (f"`--{option.name}` (required" in options) == option.required


def test_readme_lists_no_command_that_does_not_exist():
    table = [row[0].strip("`") for row in rows(section("Command line").partition("### Exit codes")[0])]
    assert table[1:] == list(COMMANDS)


def test_readme_names_the_options_of_every_command():
    text = section("Command line")
    assert all(f"`--{option.name}`" in text for option in COMMON)
    assert "`--json -`" in text


def test_readme_lists_every_option_of_the_sandbox():
    commands = next(a for a in sandbox_cli.build_parser()._actions if a.dest == "command").choices.values()
    options = {word for command in commands for action in command._actions for word in action.option_strings}
    listed = {row[0].strip("`") for row in rows(section("Sandbox"))} - {"Option"}
    assert listed == options - {"-h", "--help", "--any-endpoint"}


def test_readme_lists_every_error_with_its_class_and_whether_to_retry():
    table = {row[0].strip("`"): (row[1].strip("`"), row[3]) for row in rows(section("Error types"))}
    del table["error_type"]
    retry = {True: ("yes", "depends"), False: ("no", "depends")}
    assert {name: row[0] for name, row in table.items()} == {
        cls.error_type: cls.__name__ for cls in ERRORS if cls is not FalError
    }
    for cls in ERRORS:
        if cls is not FalError:
            assert table[cls.error_type][1] in retry[cls.default_retryable], cls


# The API reference


@pytest.mark.parametrize("name", METHODS)
def test_readme_documents_every_parameter_of_the_method(name):
    text = method_section(name)
    parameters = list(inspect.signature(getattr(FalClient, name)).parameters.values())[1:]
    assert [p.name for p in parameters if p.name not in text] == []
    shown = [
        f'"{p.default}"' if isinstance(p.default, str) else str(p.default) for p in parameters if p.name != "with_logs"
    ]
    missing = [value for value in shown if value not in text and value not in ("None", str(inspect.Parameter.empty))]
    assert missing == []


def test_readme_documents_no_method_that_does_not_exist():
    assert sorted(re.findall(r"^#### `(\w+)\(", README, re.MULTILINE)) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_result_shape_in_readme_is_the_declared_one(name):
    annotation = getattr(FalClient, name).__annotations__["return"]
    declared = next((SHAPES[word] for word in re.findall(r"\w+", annotation) if word in SHAPES), None)
    shapes = [shape for block in _python_blocks(method_section(name)) if (shape := _as_shape(block)) is not None]
    if declared is not None and shapes:
        _assert_shape(shapes[0], declared)
    else:
        assert declared is None or re.search(r"(format|shape) of `\w+`", method_section(name))


def _python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def _as_shape(block: str) -> ast.Dict | None:
    """The dict that a block consists of, when it only shows a shape."""
    body = ast.parse(block).body
    only = body[0] if len(body) == 1 else None
    return only.value if isinstance(only, ast.Expr) and isinstance(only.value, ast.Dict) else None


def _assert_shape(shape: ast.Dict, declared: Any) -> None:
    shown = {key.value: value for key, value in zip(shape.keys, shape.values, strict=True)}
    assert set(shown) <= set(declared.__required_keys__ | declared.__optional_keys__)
    assert set(shown) >= declared.__required_keys__
    for key, value in shown.items():
        inner = value.elts[0] if isinstance(value, ast.List) else value
        if isinstance(inner, ast.Dict):
            _assert_shape(inner, NESTED[key])


# Links and words


def test_internal_links_of_the_readme_resolve():
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    broken = [link for link in links if link.startswith("#") and link[1:] not in anchors]
    broken += [link for link in links if not re.match(r"#|https?:", link) and not (ROOT / link).exists()]
    assert broken == []


def test_make_recipes_of_the_readme_exist():
    recipes = re.findall(r"^([a-z-]+):", (BACKEND / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make -C backend ([a-z]+)", README)) <= set(recipes)


def test_version_is_the_newest_of_the_changelog():
    changelog = (BACKEND / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## ([\d.]+)", changelog, re.MULTILINE)[0] == PROJECT["version"]


def test_continuous_integration_runs_the_one_command():
    assert "make -C backend test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_no_file_names_a_registry_or_a_place_on_one_machine():
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    texts = {path: path.read_bytes().decode("utf-8", "ignore") for path in files if path.is_file()}
    found = [f"{path.relative_to(ROOT)}: {word}" for path, text in texts.items() for word in FORBIDDEN if word in text]
    assert found == []


# Code


def test_no_module_has_the_name_of_a_stdlib_module():
    names = {path.stem for path in SRC.rglob("*.py")} | {path.name for path in SRC.rglob("*") if path.is_dir()}
    assert names & set(sys.stdlib_module_names) == set()


def test_sandbox_knows_every_endpoint_of_the_services():
    used = {row.path for chain in (*CHAINS.values(), BY_HAND) for row in chain}
    assert used - set(ENDPOINTS) == set()


def test_requirements_are_those_of_the_package():
    assert _requirements("requirements.txt") == PROJECT["dependencies"]
    extras = {requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra}
    assert extras <= set(_requirements("requirements-dev.txt"))


def _requirements(name: str) -> list[str]:
    lines = (BACKEND / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def test_services_import_only_the_runtime_packages_and_what_comes_with_them():
    runtime = [_package(requirement) for requirement in PROJECT["dependencies"]]
    allowed = {_import_name(name) for name in runtime} | OWN_DEPENDENCIES_USED
    extras = (*PROJECT["optional-dependencies"]["image"], *PROJECT["optional-dependencies"]["webhooks"])
    extra = {_import_name(_package(requirement)) for requirement in extras}
    assert _foreign_imports(SRC / "services") - extra <= allowed
    heavy = {path for path in (SRC / "services").rglob("*.py") if "PIL" in path.read_text("utf-8")}
    assert {path.name for path in heavy if path.parent.name != "shop"} == {"image_files.py"}
    assert {_import_name(name) for name in _with_their_own(runtime)} >= OWN_DEPENDENCIES_USED


def test_sandbox_imports_only_the_packages_of_its_extra():
    extra = [_package(requirement) for requirement in PROJECT["optional-dependencies"]["sandbox"]]
    assert _foreign_imports(SRC / "fal_sandbox") <= {_import_name(name) for name in _with_their_own(extra)}


def _package(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0].lower()


def _import_name(package: str) -> str:
    return IMPORT_NAMES.get(package, package).replace("-", "_")


def _with_their_own(packages: list[str]) -> set[str]:
    """The packages and everything they always need."""
    found, waiting = set(), list(packages)
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        needed = [line for line in metadata.requires(package) or [] if ";" not in line]
        waiting.extend(_package(line) for line in needed)
    return found


def _foreign_imports(folder: Path) -> set[str]:
    """The top-level names that the modules of `folder` import, without the stdlib and the project's own."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {folder.name}


def test_no_file_name_stands_both_in_the_core_and_in_the_sandbox() -> None:
    core, sandbox = ({path.name for path in (SRC / room).glob("*.py")} for room in ("services/fal", "fal_sandbox"))
    assert core & sandbox <= {"__init__.py"}
