"""The .env file: which one counts, how it is read, and that nothing else is touched on the way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal import env_files
from services.fal.errors import InvalidInput, MissingKey
from services.fal.settings import resolve
from services.fal_service import FalClient

SOURCE = Path(__file__).resolve().parents[1] / "src"
A_KEY = "an-id:a-secret"


def settings_of(**given: Any) -> Any:
    """What a client was told, as it says itself."""
    with FalClient(**given) as client:
        return client.doctor()["settings"]


def key_length(**given: Any) -> int:
    return int(settings_of(**given)["key"].removeprefix("*** (").removesuffix(" characters)"))


def write_env(path: Any, **values: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    return path


def test_the_env_file_here_comes_before_that_of_the_project(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, project = tmp_path / "here", tmp_path / "backend"
    here.mkdir()
    project.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("services.fal.settings._PROJECT", project)
    write_env(project / ".env", FAL_TIMEOUT_S=21)
    assert settings_of()["timeout_s"] == 110
    (project / "pyproject.toml").touch()
    assert (settings_of()["timeout_s"], settings_of()["env_file"]) == (21, str(project / ".env"))
    write_env(here / ".env", FAL_LOG="info")
    assert (settings_of()["timeout_s"], settings_of()["log"]) == (21, "info")
    write_env(here / ".env", FAL_TIMEOUT_S=22)
    assert settings_of()["timeout_s"] == 22
    assert Path(settings_of()["env_file"]).resolve() == here / ".env"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_that_is_named_is_the_only_one(box: Sandbox, tmp_path: Path, kind: Any) -> None:
    write_env(tmp_path / ".env", FAL_TIMEOUT_S=21, FAL_MAX_CONCURRENCY=3)
    named = write_env(tmp_path / "other" / "settings.env", FAL_TIMEOUT_S=22)
    settings = settings_of(env_file=kind(named))
    assert (settings["timeout_s"], settings["max_concurrency"]) == (22, 8)
    assert settings["env_file"] == str(named)


def test_a_file_that_is_named_and_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.env"):
        FalClient(env_file=tmp_path / "gone.env", key=A_KEY)


LATIN = "# Schl\u00fcssel\nFAL_TIMEOUT_S=33\n".encode("cp1252")


def test_a_file_that_is_named_and_not_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    Path("latin.env").write_bytes(LATIN)
    with pytest.raises(InvalidInput, match=r"latin\.env.*UTF-8"):
        FalClient(env_file=tmp_path / "latin.env", key=A_KEY)


@pytest.mark.parametrize(
    "data", [LATIN, "FAL_TIMEOUT_S=33".encode("utf-16"), "\ufeff\nFAL_TIMEOUT_S=33".encode("utf-16-be")]
)
def test_letters_of_another_encoding_in_a_file_that_was_not_named_stop_nobody(box: Sandbox, data: bytes) -> None:
    Path(".env").write_bytes(data)
    assert settings_of()["timeout_s"] == 33


# ---------------------------------------------------------------- files that are not ours


@pytest.fixture
def nobody() -> Iterator[None]:
    """This process as a user who owns nothing."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def a_private_file(here: Any) -> None:
    write_env(here / ".env", FAL_TIMEOUT_S=33).chmod(0)


def a_private_folder(here: Any) -> None:
    write_env(here / "private" / ".env", FAL_TIMEOUT_S=33)
    (here / ".env").symlink_to(here / "private" / ".env")
    (here / "private").chmod(0)


def a_loop(here: Any) -> None:
    (here / ".env").symlink_to(here / ".env")


def a_huge_file(here: Any) -> None:
    (here / ".env").symlink_to("/dev/zero")


@pytest.fixture
def opened() -> Iterator[Path]:
    """A folder that everybody may enter: pytest's own are private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        if (private := Path(folder) / "private").exists():
            private.chmod(0o700)


@pytest.mark.parametrize("make", [a_private_file, a_private_folder, a_loop, a_huge_file])
def test_a_file_that_cannot_be_read_stops_nobody_who_has_a_key(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, opened: Path, make: Any, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(opened)
    make(opened)
    request.getfixturevalue("nobody")  # from here on nothing can be imported
    settings = resolve()
    assert (settings.timeout_s, settings.env_file) == (110, None)
    monkeypatch.delenv("FAL_KEY")
    assert resolve(key=A_KEY).timeout_s == 110
    with pytest.raises(MissingKey, match=rf"{re.escape(str(opened.resolve()))}/\.env cannot be read: \w"):
        resolve()
    with pytest.raises(InvalidInput, match="cannot be read"):
        resolve(env_file=".env", key=A_KEY)


def test_the_file_of_the_project_is_read_although_another_one_stands_here(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FAL_KEY")
    project, here = tmp_path / "backend", tmp_path / "app"
    write_env(project / ".env", FAL_KEY=A_KEY)
    (project / "pyproject.toml").touch()
    write_env(here / ".env", DATABASE_URL="postgres://x", FAL_KEY="your_fal_key_here", FAL_LOG="info")
    monkeypatch.setattr("services.fal.settings._PROJECT", project)
    monkeypatch.chdir(here)
    assert key_length() == len(A_KEY)
    assert settings_of()["log"] == "info"
    write_env(project / ".env", FAL_KY=A_KEY)
    with pytest.raises(MissingKey) as caught:
        FalClient()
    message = str(caught.value)
    assert f"{here / '.env'} and {project / '.env'} were searched" in message
    assert f"FAL_KEY in {here / '.env'} holds the placeholder 'your_fal_key_here'" in message


def test_a_wrong_value_is_told_with_the_file_that_it_stands_in(box: Sandbox) -> None:
    write_env(Path(".env"), FAL_TIMEOUT_S="soon")
    with pytest.raises(InvalidInput, match=r"FAL_TIMEOUT_S in /.*/\.env must be"):
        FalClient()


def test_a_working_folder_that_was_deleted_stops_nobody_who_has_a_key(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = tmp_path / "deleted"
    deleted.mkdir()
    monkeypatch.chdir(deleted)
    deleted.rmdir()
    assert key_length() > 0


def test_a_folder_named_env_is_no_file(box: Sandbox) -> None:
    Path(".env").mkdir()
    assert settings_of()["env_file"] is None


def test_the_package_may_stand_at_the_root_of_a_machine(tmp_path: Path) -> None:
    """As after COPY backend/src / in a container."""
    source = (SOURCE / "services" / "fal" / "settings.py").read_text(encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "settings", "__file__": "/settings.py"}
    exec(compile(source, "/settings.py", "exec"), scope)
    assert scope["_PROJECT"] == Path("/")


# ---------------------------------------------------------------- pipes


@contextlib.contextmanager
def written_to(path: Any, data: Any) -> Iterator[None]:
    """Somebody who writes into the pipe `path`, once, as soon as it is opened."""
    writer = threading.Thread(target=lambda: path.write_bytes(data), daemon=True)
    writer.start()
    yield
    writer.join(timeout=20)
    assert not writer.is_alive()


@pytest.mark.parametrize("named", [True, False])
def test_a_pipe_is_read(box: Sandbox, tmp_path: Path, named: bool) -> None:
    path = tmp_path / ".env"
    os.mkfifo(path)
    with written_to(path, b"FAL_TIMEOUT_S=33\nX=" + b"y" * 100_000):
        assert settings_of(**({"env_file": path} if named else {}))["timeout_s"] == 33


def test_a_pipe_that_nobody_writes_to_is_not_waited_for_without_end(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / ".env")
    assert settings_of(timeout=0.2)["env_file"] is None
    monkeypatch.setattr(env_files, "GLANCE_S", 0.1)
    assert settings_of()["env_file"] is None
    with pytest.raises(InvalidInput, match="nobody wrote"):
        FalClient(env_file=".env", timeout=0.2)
    monkeypatch.delenv("FAL_KEY")
    with pytest.raises(MissingKey, match="nobody wrote"):
        FalClient(timeout=0.2)


def doctor_of(command: Any, env: Any, **options: Any) -> Any:
    ran = subprocess.run(["bash", "-c", command], env=env, capture_output=True, timeout=60, check=False, **options)
    return json.loads(ran.stdout)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "given", ["<(cat settings)", "/dev/stdin < settings", "/dev/stdin < <(cat settings)", "/dev/fd/0 < settings"]
)
def test_what_a_shell_offers_as_a_file_is_read(box: Sandbox, given: str) -> None:
    write_env(Path("settings"), FAL_TIMEOUT_S=33)
    env = {**os.environ, "PYTHON": sys.executable, "WORKER": str(SOURCE / "services" / "fal_worker.py")}
    assert doctor_of(f'"$PYTHON" "$WORKER" doctor --env_file {given}', env)["settings"]["timeout_s"] == 33


def test_a_socket_as_standard_input_is_read(box: Sandbox) -> None:
    """As Node gives it to its children."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"FAL_TIMEOUT_S=33\n")
        ours.shutdown(socket.SHUT_WR)
        env = {**os.environ, "PYTHON": sys.executable, "WORKER": str(SOURCE / "services" / "fal_worker.py")}
        told = doctor_of('"$PYTHON" "$WORKER" doctor --env_file /dev/stdin', env, stdin=theirs)
    assert told["settings"]["timeout_s"] == 33


# ---------------------------------------------------------------- what is understood


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
def test_the_usual_forms_of_env_files_are_understood(box: Sandbox, text: str) -> None:
    Path(".env").write_bytes(text.encode())
    assert settings_of()["timeout_s"] == 33


def test_a_value_is_taken_as_it_stands_and_not_expanded(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAL_KEY")
    write_env(Path(".env"), FAL_KEY="'an-id:${HOME}$HOME'")
    assert key_length() == len("an-id:${HOME}$HOME")


def test_nothing_is_written_into_the_environment(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAL_KEY")
    write_env(Path(".env"), FAL_KEY=A_KEY, FAL_TIMEOUT_S=9, FAL_LOG="info", SOMEBODYS_SECRET="x")
    import cv2  # noqa: F401  (the sandbox's; it changes LD_LIBRARY_PATH when it is loaded)

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


def run_python(code: Any, **environment: Any) -> list[str]:
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


def test_importing_reads_no_setting_and_loads_no_library(tmp_path: Path) -> None:
    write_env(tmp_path / ".env", FAL_TIMEOUT_S="nonsense")
    assert run_python("import services.fal_service", FAL_KEY="not a key", FAL_MAX_CONCURRENCY="nonsense") == []


def test_dotenv_is_loaded_only_when_the_file_can_add_something(tmp_path: Path) -> None:
    write_env(tmp_path / "unrelated", DATABASE_URL="x")
    write_env(tmp_path / "known", FAL_KEY="other-id:other-secret", FAL_TIMEOUT_S=5)
    (tmp_path / "template").write_text("# FAL_LOG=info\n#FAL_API_KEY=\nFAL_KEY_ID=an-id\n")
    write_env(tmp_path / "new", FAL_LOG="off")
    arguments = [{}, *({"env_file": name} for name in ("unrelated", "known", "template", "new"))]
    loaded = run_python(UNREAD.format(arguments=arguments), FAL_KEY=A_KEY, FAL_TIMEOUT_S="6")
    assert loaded == ["[]"] * 5 + ["['dotenv']"]
