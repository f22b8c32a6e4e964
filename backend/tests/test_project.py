"""The project holds together: what the documents promise exists, and what exists is in the documents."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import fal_sandbox.__main__ as sandbox_cli
from fal_sandbox.endpoint_table import ENDPOINTS
from pages import BACKEND, DOCS, ROOT, rows, section, text_of
from services.fal import errors, results, settings
from services.fal.endpoints import BY_HAND, CHAINS, ENDPOINT_VARIABLES, MODEL_CHAINS, MODEL_VARIABLES
from services.fal.errors import FalError
from services.fal_service import FalClient
from services.worker.command import COMMON, ON_COMMAND_LINE
from services.worker.commands import COMMANDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SRC = BACKEND / "src"
SETTINGS, ERRORS_PAGE, SANDBOX = DOCS / "settings.md", DOCS / "errors.md", DOCS / "sandbox.md"
WORKER, PYTHON = DOCS / "worker.md", DOCS / "python.md"
PROJECT = tomllib.loads((BACKEND / "pyproject.toml").read_text(encoding="utf-8"))["project"]

OWN_DEPENDENCIES_USED = {"httpx", "httpcore", "httpx_sse", "urllib3", "certifi"}
"""Packages that come with the three runtime packages and that services import themselves."""
IMPORT_NAMES = {
    "python-dotenv": "dotenv",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-image": "skimage",
}
FORBIDDEN = ("pypi" + ".org", "registry.npmjs" + ".org", "deb.debian" + ".org", "/work" + "/", "wire" + ".md")
METHODS = [name for name, _ in inspect.getmembers(FalClient, inspect.isfunction) if not name.startswith("_")]
ERRORS: list[type[FalError]] = [
    cls for cls in vars(errors).values() if isinstance(cls, type) and "error_type" in vars(cls)
]
SHAPES = {name: kind for name, kind in vars(results).items() if hasattr(kind, "__required_keys__")}


# Settings, commands, errors


def test_env_example_lists_every_setting_and_nothing_else() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    named = [found[1] for line in lines if (found := re.match(r"#? ?([A-Z_]+)=", line))]
    assert sorted(named) == sorted(settings.VARIABLES)


def test_env_example_sets_only_the_key_and_shows_the_true_defaults() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == ["FAL_KEY=your_fal_key_here"]
    shown = dict(re.findall(r"^# ([A-Z_]+)=(.+)$", text, re.MULTILINE))
    chains = {ENDPOINT_VARIABLES[job]: chain[0].path for job, chain in CHAINS.items()}
    models = {MODEL_VARIABLES[job]: ",".join(chain) for job, chain in MODEL_CHAINS.items()}
    assert shown == {
        "FAL_TIMEOUT_S": f"{settings.DEFAULT_TIMEOUT_S:g}",
        "FAL_MAX_CONCURRENCY": str(settings.DEFAULT_CONCURRENCY),
        "FAL_LOG": "off",
        "FAL_STORE_IO": "true",
        "FAL_QUEUE_PRIORITY": "normal",
        **chains,
        **models,
    }


def test_every_line_of_env_example_has_a_comment_above_it() -> None:
    blocks = (ROOT / ".env.example").read_text(encoding="utf-8").strip().split("\n\n")
    assert all(re.match(r"# [A-Z][^=]*\.", block) for block in blocks)


def test_pages_list_every_setting_with_its_default() -> None:
    table = "\n".join(" | ".join(row) for row in rows(section(SETTINGS, "Settings")))
    missing = [name for name in settings.VARIABLES if f"`{name}`" not in table]
    assert not missing
    assert f"`FAL_TIMEOUT_S` | {settings.DEFAULT_TIMEOUT_S:g} |" in table
    assert f"`FAL_MAX_CONCURRENCY` | {settings.DEFAULT_CONCURRENCY} |" in table


def test_pages_list_the_default_models_in_their_order() -> None:
    table = [row for row in rows(section(SETTINGS, "Models")) if row[0] != "Used by"]
    assert [re.findall(r"`([\w./-]+)`", row[2]) for row in table] == [list(chain) for chain in MODEL_CHAINS.values()]
    assert [row[1].strip("`") for row in table] == list(MODEL_VARIABLES.values())


def test_pages_list_the_chains_in_their_order() -> None:
    listed = [re.findall(r"`([\w./-]+)`", row[1]) for row in rows(section(SETTINGS, "Endpoints"))][1:]
    assert listed == [[row.path for row in chain] for chain in CHAINS.values()]
    assert all(f"`{row.path}`" in section(SETTINGS, "Endpoints") for row in BY_HAND)


@pytest.mark.parametrize("name", COMMANDS)
def test_pages_list_every_option_of_the_command(name: Any) -> None:
    options = next(row[1] for row in rows(section(WORKER, "The worker")) if row[0] == f"`{name}`")
    command = COMMANDS[name]
    assert re.findall(r"--(\w+)", options) == [option.name for option in command.options]
    for option in command.options:
        assert (f"`--{option.name}` (required" in options) == option.required


def test_pages_list_no_command_that_does_not_exist() -> None:
    table = [row[0].strip("`") for row in rows(section(WORKER, "The worker").partition("## Exit codes")[0])]
    assert table[1:] == list(COMMANDS)


def test_pages_name_the_options_of_every_command() -> None:
    text = section(WORKER, "The worker")
    assert all(f"`--{option.name}`" in text for option in (*COMMON, *ON_COMMAND_LINE))
    assert "`--json -`" in text


def test_pages_list_every_option_of_the_sandbox() -> None:
    choices: Any = next(a for a in sandbox_cli.build_parser()._actions if a.dest == "command").choices
    commands = choices.values()
    options = {word for command in commands for action in command._actions for word in action.option_strings}
    listed = {row[0].strip("`") for row in rows(section(SANDBOX, "Sandbox"))} - {"Option"}
    assert listed == options - {"-h", "--help", "--any-endpoint"}


def test_pages_list_every_error_with_its_class_and_whether_to_retry() -> None:
    table = {row[0].strip("`"): (row[1].strip("`"), row[3]) for row in rows(section(ERRORS_PAGE, "Error types"))}
    del table["error_type"]
    retry = {True: ("yes", "depends"), False: ("no", "depends")}
    assert {name: row[0] for name, row in table.items()} == {
        cls.error_type: cls.__name__ for cls in ERRORS if cls is not FalError
    }
    for cls in ERRORS:
        if cls is not FalError:
            assert table[cls.error_type][1] in retry[cls.default_retryable], cls


# The API reference


def test_every_parameter_of_the_client_is_explained_in_a_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import python_reference

    assert python_reference.undocumented() == []


@pytest.mark.parametrize("name", METHODS)
def test_reference_has_a_section_for_the_method(name: Any) -> None:
    text = section(PYTHON, name)
    parameters = list(inspect.signature(getattr(FalClient, name)).parameters.values())[1:]
    assert [p.name for p in parameters if p.name not in text] == []
    shown = [
        f'"{p.default}"' if isinstance(p.default, str) else str(p.default)
        for p in parameters
        if p.default not in (None, inspect.Parameter.empty)
    ]
    assert [value for value in shown if value not in text] == []


def test_reference_has_every_key_of_the_results() -> None:
    for name in METHODS:
        annotation = getattr(FalClient, name).__annotations__["return"]
        for shape in (SHAPES[word] for word in re.findall(r"\w+", annotation) if word in SHAPES):
            listed = {row[0].strip("`?") for row in rows(section(PYTHON, shape.__name__))} - {"Key"}
            keys = shape.__required_keys__ | shape.__optional_keys__
            assert listed | set(results.Failure.__annotations__) >= keys >= listed, name


def test_architecture_names_modules_that_exist() -> None:
    folders = {"fal": SRC / "services" / "fal", "worker": SRC / "services" / "worker"}
    text = text_of(DOCS / "architecture.md")
    missing = [
        f"{folder}/{name}"
        for folder, name in re.findall(r"`(fal|worker)/(\w+\.py)`", text)
        if not (folders[folder] / name).is_file()
    ]
    assert missing == []


# Files


def test_version_is_the_newest_of_the_changelog() -> None:
    changelog = (BACKEND / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## ([\d.]+)", changelog, re.MULTILINE)[0] == PROJECT["version"]


def test_continuous_integration_runs_the_one_command() -> None:
    assert "make -C backend test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
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


def test_no_module_has_the_name_of_a_stdlib_module() -> None:
    names = {path.stem for path in SRC.rglob("*.py")} | {path.name for path in SRC.rglob("*") if path.is_dir()}
    assert names & set(sys.stdlib_module_names) == set()


def test_sandbox_knows_every_endpoint_of_the_services() -> None:
    used = {row.path for chain in (*CHAINS.values(), BY_HAND) for row in chain}
    assert used - set(ENDPOINTS) == set()


def test_requirements_are_those_of_the_package() -> None:
    assert _requirements("requirements.txt") == PROJECT["dependencies"]
    extras = {requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra}
    assert extras <= set(_requirements("requirements-dev.txt"))


def _requirements(name: str) -> list[str]:
    lines = (BACKEND / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def test_services_import_only_the_runtime_packages_and_what_comes_with_them() -> None:
    runtime = [_package(requirement) for requirement in PROJECT["dependencies"]]
    allowed = {_import_name(name) for name in runtime} | OWN_DEPENDENCIES_USED
    own = ("image", "webhooks", "completion", "batch", "cluster")
    extras = [requirement for name in own for requirement in PROJECT["optional-dependencies"][name]]
    extra = {_import_name(_package(requirement)) for requirement in extras}
    assert _foreign_imports(SRC / "services") - extra <= allowed
    heavy = {path for path in (SRC / "services").rglob("*.py") if "PIL" in path.read_text("utf-8")}
    assert {path.name for path in heavy if path.parent.name != "shop"} == {"image_files.py"}
    assert {_import_name(name) for name in _with_their_own(runtime)} >= OWN_DEPENDENCIES_USED


def test_sandbox_imports_only_the_packages_of_its_extra() -> None:
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
