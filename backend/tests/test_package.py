"""An installed copy: what is in it, that its types reach a user's program, and that it lives beside other packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

BACKEND = Path(__file__).resolve().parents[1]

PROGRAM = """
from services.fal.call import Call
from services.fal.errors import FalError
from services.fal.progress import Progress
from services.fal.results import ProgressEvent
from services.fal_service import FalClient


def show(event: ProgressEvent) -> None:
    if event["step"] == "queue":
        print(event["queue_position"] + 1, event["request_id"].upper())
    elif event["step"] == "log":
        print(event["message"].upper())
    elif event["status"] == "done":
        print(event["step"].upper(), event["seconds"] + 1)


client = FalClient(key="id:secret")
image_url = client.upload_file("product.jpg")
categories = client.analyze_product_image(image_url)["categories"]
print(categories["main_product_type"].upper())
prompt_result = client.generate_background_prompt(categories=categories, style_type="white")
print(prompt_result["prompt"].upper())
custom_styles = [
    {"name": "Studio", "description": "Clean white studio background"},
    {"name": "Lifestyle", "description": "Natural lifestyle setting"},
]
result = client.generate_multiple_backgrounds(image_url=image_url, categories=categories, styles=custom_styles)
client.generate_multiple_backgrounds(image_url, {"subcategory": "Mugs"}, styles=["Studio", custom_styles[0]])
for img in result["images"]:
    print(f"{img['style_name']}: {img['image_url']}".upper())
try:
    picture = client.background_replace(image_url=image_url, prompt="oak table")
    print(picture["image"]["url"].upper(), picture["timings"]["total"] + 1)
except FalError as error:
    print(error.error_type.upper(), error.retryable, error.hint)
made = client.product_workflow("product.jpg", on_progress=show)
print(made["description"].upper())
call = Call(60, progress=Progress(show))
print(client.within(call).any_llm_complete("Short pitch")["output"].upper())
call.cancel()
for event in client.iter_any_llm("Short pitch"):
    print(event["delta"].upper())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the project installed as a copy; its other packages are this one's."""
    folder = tmp_path_factory.mktemp("installed")
    # A copy of the source, since building leaves folders of its own beside it.
    source = folder / "source"
    kept = shutil.ignore_patterns(".*", "build", "out", "node", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(BACKEND, source, ignore=kept)
    environment = folder / "venv"
    venv.create(environment, with_pip=False)
    packages = next(environment.glob("lib/python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*install, "--target", str(packages), str(source)], check=True, env=env, timeout=300)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return environment


def run_python(installed: Path, *words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "bin" / "python"), *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **env}, timeout=120
    )


def test_the_licence_and_the_readme_are_in_it(installed: Path) -> None:
    about = next(installed.glob("lib/python*/site-packages/fal_python_services-*.dist-info"))
    assert "Apache License" in (about / "licenses" / "LICENSE").read_text(encoding="utf-8")
    metadata = (about / "METADATA").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0" in metadata
    assert "# FAL Python Services" in metadata


def test_an_installed_worker_prints_the_schemas(installed: Path, tmp_path: Path) -> None:
    printed = run_python(installed, "-m", "services.fal_worker", "schema", "doctor", cwd=tmp_path).stdout
    assert set(json.loads(printed)["commands"]) == {"doctor"}


@pytest.mark.nightly
def test_mypy_sees_every_type_from_an_installed_copy(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM + "client.upload_file(3)\n", encoding="utf-8")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", os.devnull]
    interpreter = ["--python-executable", str(installed / "bin" / "python")]
    checked = subprocess.run([*mypy, *interpreter, "program.py"], capture_output=True, text=True, check=False)
    problem, end = checked.stdout.splitlines()
    assert 'incompatible type "int"' in problem
    assert end.startswith("Found 1 error")


@pytest.mark.nightly
def test_pyright_sees_every_type_from_an_installed_copy(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM + "client.upload_file(3)\n", encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
    pyright = [sys.executable, "-m", "basedpyright", "--pythonpath", str(installed / "bin" / "python"), "program.py"]
    checked = subprocess.run(pyright, capture_output=True, text=True, check=False)
    problems = [line for line in checked.stdout.splitlines() if " - error" in line]
    assert len(problems) == 1, checked.stdout
    assert "upload_file" in problems[0]


def test_a_program_with_modules_of_its_own_under_services_uses_both(installed: Path, tmp_path: Path) -> None:
    own = tmp_path / "services"
    own.mkdir()
    (own / "billing.py").write_text("TAX = 20\n", encoding="utf-8")
    program = "import services.billing, services.fal_service as f; print(services.billing.TAX, f.FalClient.__name__)"
    assert run_python(installed, "-c", program, cwd=tmp_path).stdout == "20 FalClient\n"


def test_a_services_package_with_an_init_shares_its_name_in_one_line(installed: Path, tmp_path: Path) -> None:
    own = tmp_path / "services"
    own.mkdir()
    share = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\nTAX = 20\n"
    (own / "__init__.py").write_text(share, encoding="utf-8")
    program = "import services, services.fal_service as f; print(services.TAX, f.FalClient.__name__)"
    assert run_python(installed, "-c", program, cwd=tmp_path).stdout == "20 FalClient\n"


@pytest.mark.parametrize("script", ["fal_worker.py", "fal_service.py"])
def test_somebody_elses_services_package_does_not_stop_the_scripts(script: str, tmp_path: Path) -> None:
    other = tmp_path / "services"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the wrong package')\n", encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, str(BACKEND / "src" / "services" / script), "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
