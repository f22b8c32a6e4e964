"""Settings: argument, then environment, then .env, then default; and nothing else is read, written or shown."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import InvalidInput, MissingKey
from services.fal_service import FalClient

SOURCE = Path(__file__).resolve().parents[1] / "src"
CHAINS = {
    "text": ["openrouter/router", "fal-ai/any-llm"],
    "enterprise": ["openrouter/router/enterprise", "fal-ai/any-llm/enterprise"],
    "vision": ["openrouter/router/vision", "fal-ai/any-llm/vision"],
    "photokit": ["bria/replace-background", "fal-ai/bria/background/replace"],
    "cutout": ["fal-ai/bria/background/remove", "fal-ai/birefnet/v2"],
}
A_KEY = "an-id:a-secret"


def settings_of(**given: Any) -> Any:
    """What a client was told, as it says itself."""
    with FalClient(**given) as client:
        return client.doctor()["settings"]


def key_of_length(length: Any) -> str:
    return "an-id:" + "k" * (length - 6)


def key_length(**given: Any) -> int:
    return int(settings_of(**given)["key"].removeprefix("*** (").removesuffix(" characters)"))


def write_env(path: Any, **values: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    return path


# ---------------------------------------------------------------- who wins

# Name in doctor's report, argument, variable; the value as argument, in the environment, in .env; the default.
SETTINGS = [
    ("timeout_s", "timeout", "FAL_TIMEOUT_S", 5, "6", "7.5", 110.0),
    ("max_concurrency", "max_concurrency", "FAL_MAX_CONCURRENCY", 2, "3", "4", 8),
    ("log", None, "FAL_LOG", None, "info", "DEBUG", "off"),
    ("store_io", "store_io", "FAL_STORE_IO", True, "false", "0", True),
    ("expires_in_s", "expires_in", "FAL_EXPIRES_IN_S", 60, "3600", "86400", None),
    ("queue_priority", "queue_priority", "FAL_QUEUE_PRIORITY", "normal", "low", "LOW", "normal"),
    ("max_usd", "max_usd", "FAL_MAX_USD", 1, "2", "3", None),
    *(
        (f"endpoints.{job}", None, f"FAL_{job.upper()}_ENDPOINT", None, "own/from-env", "own/app/from.file", chain)
        for job, chain in CHAINS.items()
    ),
]


def read(settings: Any, name: Any) -> Any:
    for part in name.split("."):
        settings = settings[part]
    return settings


def as_read(value: Any, default: Any) -> Any:
    if isinstance(default, list):
        return [value]
    if isinstance(default, bool):
        return value not in ("false", "0")
    if default is None:
        return int(value)
    return value.lower() if isinstance(default, str) else type(default)(value)


@pytest.mark.parametrize(("name", "argument", "variable", "given", "in_env", "in_file", "default"), SETTINGS)
def test_argument_beats_environment_beats_file_beats_default(
    box: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    name: Any,
    argument: Any,
    variable: Any,
    given: Any,
    in_env: Any,
    in_file: Any,
    default: Any,
) -> None:
    assert read(settings_of(), name) == default
    write_env(Path(".env"), **{variable: in_file})
    assert read(settings_of(), name) == as_read(in_file, default)
    monkeypatch.setenv(variable, "  ")
    assert read(settings_of(), name) == as_read(in_file, default)
    monkeypatch.setenv(variable, f" {in_env} ")
    assert read(settings_of(), name) == as_read(in_env, default)
    if argument:
        assert read(settings_of(**{argument: given}), name) == given


@pytest.mark.parametrize(
    ("argument", "in_env", "in_file", "length"),
    [
        ({"key": key_of_length(20)}, {"FAL_KEY": key_of_length(21)}, {"FAL_KEY": key_of_length(22)}, 20),
        ({}, {"FAL_KEY": key_of_length(21)}, {"FAL_KEY": key_of_length(22)}, 21),
        ({}, {}, {"FAL_KEY": key_of_length(22)}, 22),
        ({}, {"FAL_KEY": key_of_length(23), "FAL_API_KEY": key_of_length(24)}, {}, 23),
        ({}, {"FAL_API_KEY": key_of_length(24), "FAL_KEY_ID": "an-id", "FAL_KEY_SECRET": "s"}, {}, 24),
        ({}, {"FAL_KEY_ID": "an-id", "FAL_KEY_SECRET": "k" * 19}, {}, 25),
        ({}, {}, {"FAL_KEY_ID": "an-id", "FAL_KEY_SECRET": "k" * 20}, 26),
        ({}, {}, {"FAL_API_KEY": key_of_length(27)}, 27),
        ({}, {"FAL_API_KEY": key_of_length(28)}, {"FAL_KEY": key_of_length(22)}, 28),
        ({}, {"FAL_KEY_ID": "an-id", "FAL_KEY_SECRET": "k" * 23}, {"FAL_KEY": key_of_length(22)}, 29),
        ({}, {"FAL_KEY_ID": "an-id"}, {"FAL_KEY_SECRET": "k" * 24}, 30),
        ({}, {"FAL_KEY": " \t", "FAL_API_KEY": ""}, {"FAL_KEY": key_of_length(31)}, 31),
        ({}, {"FAL_KEY": f"  {key_of_length(32)}\r\n"}, {}, 32),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_the_key_is_found_where_it_is_named_first(
    box: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    argument: dict[Any, Any] | dict[str, Any],
    in_env: dict[Any, Any] | dict[str, Any],
    in_file: dict[Any, Any] | dict[str, Any],
    length: int,
) -> None:
    monkeypatch.delenv("FAL_KEY")
    for name, value in in_env.items():
        monkeypatch.setenv(name, value)
    if in_file:
        write_env(Path(".env"), **in_file)
    assert key_length(**argument) == length


def test_the_key_that_was_found_is_the_one_that_is_sent(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAL_KEY")
    write_env(Path(".env"), FAL_KEY="broke:no-balance")
    with FalClient() as client:
        assert client.any_llm_complete("Hi")["error_type"] == "balance_exhausted"
    monkeypatch.setenv("FAL_KEY", "bad:nobody-has-it")
    with FalClient() as client:
        assert client.any_llm_complete("Hi")["error_type"] == "auth"
    with FalClient(key=A_KEY) as client:
        assert client.any_llm_complete("Hi")["error"] is None


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("found", [{}, {"FAL_KEY_ID": "an-id"}, {"FAL_KEY_SECRET": "s"}, {"FAL_KEY": ""}])
def test_a_missing_key_names_every_remedy(
    monkeypatch: pytest.MonkeyPatch, found: dict[Any, Any] | dict[str, Any]
) -> None:
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MissingKey) as caught:
        FalClient()
    message = str(caught.value)
    assert message.startswith("FAL_KEY environment variable is required")
    remedies = [
        "https://fal.ai/dashboard/keys",
        "FAL_API_KEY",
        "FAL_KEY_ID",
        "FAL_KEY_SECRET",
        "./.env",
        "backend/.env",
    ]
    remedies += ["--env_file", "FalClient(env_file=", "FalClient(key=", "src/fal_sandbox run"]
    assert [remedy for remedy in remedies if remedy not in message] == []
    assert (caught.value.error_type, caught.value.retryable) == ("missing_key", False)
    assert isinstance(caught.value, ValueError)


PLACEHOLDERS = [
    *("your_fal_key_here", "your_key_here", "YOUR-KEY-HERE", "your key", "YOUR_API_KEY", "my-fal-key", "<your key>"),
    *("undefined", "null", "None", "${FAL_KEY}", "$FAL_KEY", "${FAL_KEY:-}", "%FAL_KEY%", "{{ fal_key }}", "changeme"),
    *("xxxxxxxx", "***", "...", "FAL_KEY", "your_id:your_secret", "undefined:undefined", "key_id:key_secret"),
    "${{ secrets.FAL_KEY }}",
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("place", ["argument", "environment", "file"])
@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_a_placeholder_is_named_as_one_and_is_no_key(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, place: str, value: Any
) -> None:
    monkeypatch.delenv("FAL_KEY")
    given = {"key": value} if place == "argument" else {}
    if place == "environment":
        monkeypatch.setenv("FAL_KEY", value)
    if place == "file":
        Path(".env").write_text(f"FAL_KEY='{value}'\n")
    with pytest.raises(MissingKey, match="placeholder") as caught:
        FalClient(**given)
    assert str(caught.value).startswith("FAL_KEY environment variable is required")
    assert (value in str(caught.value)) is (":" not in value or "{" in value)
    if not given:
        monkeypatch.setenv("FAL_API_KEY", A_KEY)
        assert key_length() == len(A_KEY)


def test_half_a_placeholder_does_not_show_the_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY_ID", "undefined")
    monkeypatch.setenv("FAL_KEY_SECRET", "planted")
    with pytest.raises(MissingKey, match="FAL_KEY_ID and FAL_KEY_SECRET") as caught:
        FalClient()
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("quoted", ['"{}"', "'{}'", ' "{}" ', "“{}”", "'\"{}\"'"])
def test_quotes_around_a_value_of_the_environment_are_no_part_of_it(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, quoted: str
) -> None:
    monkeypatch.setenv("FAL_KEY", quoted.format(A_KEY))
    monkeypatch.setenv("FAL_TIMEOUT_S", quoted.format("33"))
    assert (key_length(), settings_of()["timeout_s"]) == (len(A_KEY), 33)
    assert key_length(key=quoted.format(key_of_length(20))) == 20


BAD_VALUES = [
    *(("FAL_TIMEOUT_S", value) for value in ("soon", "0", "-1", "nan", "inf", "1e400", "86401", "10 s")),
    *(("FAL_MAX_CONCURRENCY", value) for value in ("0", "-1", "many", "1.5", "1001", "²", "3,5")),
    *(("FAL_LOG", value) for value in ("verbose", "1", "true")),
    *(("FAL_TEXT_ENDPOINT", value) for value in ("router", "/a/b", "a//b", "a/../b", "a/b c", "https://own.example/x")),
    ("FAL_ENTERPRISE_ENDPOINT", "https://own.example/x"),
    ("FAL_VISION_ENDPOINT", "own"),
    ("FAL_CUTOUT_ENDPOINT", "https://own.example/x"),
    *(("FAL_PHOTOKIT_ENDPOINT", value) for value in ("http://own.example/x", "https://", "own", "https://a b/")),
    *((name, "an-id:a secret") for name in ("FAL_KEY", "FAL_API_KEY")),
]


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize(("variable", "value"), BAD_VALUES)
def test_a_value_that_makes_no_sense_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, place: str, variable: Any, value: Any
) -> None:
    key = {} if "KEY" in variable else {"FAL_KEY": A_KEY}
    if place == "environment":
        for name, text in {**key, variable: value}.items():
            monkeypatch.setenv(name, text)
    else:
        write_env(Path(".env"), **key, **{variable: f'"{value}"'})
    with pytest.raises(InvalidInput, match=variable) as caught:
        FalClient()
    assert "a secret" not in str(caught.value)


def test_a_half_of_a_key_that_makes_no_sense_names_both_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_KEY_ID", "an-id")
    monkeypatch.setenv("FAL_KEY_SECRET", "a secret")
    with pytest.raises(InvalidInput, match="FAL_KEY_ID and FAL_KEY_SECRET"):
        FalClient()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SSL_CERT_FILE", "/no/such/ca.pem"), ("HTTPS_PROXY", "nonsense://127.0.0.1:1"), ("HTTPS_PROXY", "http://[::1")],
)
def test_a_broken_network_setting_of_the_machine_is_told_by_its_name(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv(variable.lower(), value)
    with FalClient() as client, pytest.raises(InvalidInput, match=variable):
        client.any_llm_status("abc")


# ---------------------------------------------------------------- what is read when, and what is shown


def test_a_change_of_the_environment_counts_for_the_next_client_only(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FalClient() as before:
        monkeypatch.setenv("FAL_TIMEOUT_S", "12")
        with FalClient() as after:
            assert (before.doctor()["settings"]["timeout_s"], after.doctor()["settings"]["timeout_s"]) == (110, 12)


def test_a_client_shows_its_time_out_but_not_its_key_and_cannot_be_pickled(box: Sandbox) -> None:
    secret = "planted-key-id-17:planted-secret-17"
    with FalClient(key=secret, timeout=12.5) as client:
        shown = repr(client) + str(client) + repr(client._settings) + json.dumps(client.doctor())
        with pytest.raises(TypeError):
            pickle.dumps(client)
    assert repr(client) == "FalClient(timeout=12.5)"
    assert "planted" not in shown


@pytest.mark.parametrize(("level", "told"), [("off", False), ("info", False), ("debug", True)])
def test_the_log_goes_to_stderr_and_no_further_than_was_asked(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, told: bool
) -> None:
    monkeypatch.setenv("FAL_LOG", level)
    with FalClient() as client:
        client.any_llm_complete("A prompt that nobody else should read")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("POST https://queue.fal.run/openrouter/router" in printed.err) is told
    assert "nobody else" not in printed.err
    assert "sandbox-key" not in printed.err


def test_the_doctor_tells_versions_settings_and_hosts_without_starting_a_job(box: Sandbox, client: FalClient) -> None:
    report = client.doctor()
    assert report["error"] is None
    assert set(report["versions"]) >= {"python", "fal-client", "requests", "python-dotenv", "httpx"}
    assert report["settings"]["endpoints"] == CHAINS
    assert {host: row["reachable"] for host, row in report["hosts"].items()} == {
        "queue.fal.run": True,
        "rest.fal.ai": True,
        "v3.fal.media": True,
    }
    assert box.ledger()["accepted"] == 0


def test_the_doctor_finds_a_key_that_fal_does_not_know(box: Sandbox) -> None:
    with FalClient(key="bad:nobody-has-it") as client:
        assert client.doctor()["error_type"] == "auth"


OLD_CLIENT = "class SyncClient:\n    pass\n"
OLD_PARTS = "MULTIPART_MAX_CONCURRENCY = 10\nUSER_AGENT = ''\nclass CDNToken: ...\nclass CDNTokenManager: ...\n"


@pytest.mark.parametrize(
    ("version", "init", "parts"),
    [
        ("0.5.9", OLD_CLIENT, OLD_PARTS),
        ("0.5.9", OLD_CLIENT, ""),
        ("1.0.0", f"version_tuple = (1, 0, 0)\n{OLD_CLIENT}", f"{OLD_PARTS}\n\nclass SyncRequestHandle:\n    pass\n"),
    ],
)
def test_an_old_fal_client_is_named_with_the_remedy(tmp_path: Path, version: str, init: str, parts: str) -> None:
    for name, text in {
        "fal_client/__init__.py": init,
        "fal_client/client.py": parts,
        f"fal_client-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: fal-client\nVersion: {version}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = (
        "from services.fal_service import FalClient\nfrom services.fal.errors import InvalidInput\n"
        "try:\n    FalClient().any_llm_complete('Hello')\nexcept InvalidInput as error:\n    print(error)"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{SOURCE}", "FAL_KEY": "an-id:a-secret"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ran.stdout == (
        f"fal-client {version} is installed, and this library needs version 1.0.3 or a later 1.x. "
        'Run pip install "fal-client>=1.0.3,<2".\n'
    ), ran.stderr
