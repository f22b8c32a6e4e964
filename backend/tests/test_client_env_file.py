"""The .env file: which one counts, how it is read, and that nothing else is touched on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.fal.errors import InvalidInput
from services.fal_service import FalClient

SOURCE = Path(__file__).resolve().parents[1] / "src"
A_KEY = "an-id:a-secret"


def settings_of(**given):
    """What a client was told, as it says itself."""
    with FalClient(**given) as client:
        return client.doctor()["settings"]


def key_length(**given):
    return int(settings_of(**given)["key"].removeprefix("*** (").removesuffix(" characters)"))


def write_env(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    return path


def test_the_env_file_here_comes_before_that_of_the_project(box, monkeypatch, tmp_path):
    here, project = tmp_path / "here", tmp_path / "backend"
    here.mkdir()
    project.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("services.fal.settings._PROJECT", project)
    write_env(project / ".env", FAL_TIMEOUT_S=21)
    assert settings_of()["timeout_s"] == 110
    (project / "pyproject.toml").touch()
    assert (settings_of()["timeout_s"], settings_of()["env_file"]) == (21, str(project / ".env"))
    write_env(here / ".env", FAL_LOG="off")
    assert settings_of()["timeout_s"] == 110
    assert Path(settings_of()["env_file"]).resolve() == here / ".env"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_that_is_named_is_the_only_one(box, tmp_path, kind):
    write_env(tmp_path / ".env", FAL_TIMEOUT_S=21, FAL_MAX_CONCURRENCY=3)
    named = write_env(tmp_path / "other" / "settings.env", FAL_TIMEOUT_S=22)
    settings = settings_of(env_file=kind(named))
    assert (settings["timeout_s"], settings["max_concurrency"]) == (22, 8)
    assert settings["env_file"] == str(named)


def test_a_file_that_is_named_and_missing_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InvalidInput, match=r"gone\.env"):
        FalClient(env_file=tmp_path / "gone.env", key=A_KEY)


def test_a_file_that_is_not_text_is_an_error_that_names_it(tmp_path):
    Path(".env").write_bytes(b"FAL_KEY=\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"\.env"):
        FalClient(key=A_KEY)


@pytest.mark.parametrize(
    "text",
    [
        "FAL_TIMEOUT_S=33\n",
        "\ufeffFAL_TIMEOUT_S=33",
        "# comment\r\nexport FAL_TIMEOUT_S='33'\r\n",
        'OTHER="a\nb"\nFAL_TIMEOUT_S = "33" # seconds\n',
        "FAL_TIMEOUT_S=1\nFAL_TIMEOUT_S=33\n",
    ],
)
def test_the_usual_forms_of_env_files_are_understood(box, text):
    Path(".env").write_bytes(text.encode())
    assert settings_of()["timeout_s"] == 33


def test_a_value_is_taken_as_it_stands_and_not_expanded(box, monkeypatch):
    monkeypatch.delenv("FAL_KEY")
    write_env(Path(".env"), FAL_KEY="'an-id:${HOME}$HOME'")
    assert key_length() == len("an-id:${HOME}$HOME")


def test_nothing_is_written_into_the_environment(box, monkeypatch):
    monkeypatch.delenv("FAL_KEY")
    write_env(Path(".env"), FAL_KEY=A_KEY, FAL_TIMEOUT_S=9, FAL_LOG="info", SOMEBODYS_SECRET="x")
    before = dict(os.environ)
    with FalClient() as client:
        assert client.any_llm_complete("Hi")["error"] is None
    assert dict(os.environ) == before


# ---------------------------------------------------------------- what is read and loaded when

UNREAD = """
import sys
import services.fal_service as service
heavy = ("dotenv", "fal_client", "httpx", "requests")
print([name for name in heavy if name in sys.modules])
for arguments in {arguments}:
    service.FalClient(**arguments)
    print([name for name in heavy if name in sys.modules])
"""


def run_python(code, **environment):
    env = {**{name: value for name, value in os.environ.items() if not name.startswith("FAL_")}, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_reads_no_setting_and_loads_no_library(tmp_path):
    write_env(tmp_path / ".env", FAL_TIMEOUT_S="nonsense")
    assert run_python("import services.fal_service", FAL_KEY="not a key", FAL_MAX_CONCURRENCY="nonsense") == []


def test_dotenv_is_loaded_only_when_the_file_can_add_something(tmp_path):
    write_env(tmp_path / "unrelated", DATABASE_URL="x")
    write_env(tmp_path / "known", FAL_KEY="other-id:other-secret", FAL_TIMEOUT_S=5)
    (tmp_path / "template").write_text("# FAL_LOG=info\n#FAL_API_KEY=\nFAL_KEY_ID=an-id\n")
    write_env(tmp_path / "new", FAL_LOG="off")
    arguments = [{}, *({"env_file": name} for name in ("unrelated", "known", "template", "new"))]
    loaded = run_python(UNREAD.format(arguments=arguments), FAL_KEY=A_KEY, FAL_TIMEOUT_S="6")
    assert loaded == ["[]"] * 5 + ["['dotenv']"]
