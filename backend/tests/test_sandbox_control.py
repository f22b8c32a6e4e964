"""Who may control the sandbox, what it refuses to be told, and how others come to trust it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fal_sandbox.server import Sandbox

SERVER = Path(__file__).resolve().parents[1] / "src" / "fal_sandbox"


@pytest.fixture
def control(box: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=box.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", ["reset", "say", "faults", "config"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost:3000"},
        {"Host": "rebound.evil.test"},
        {"Host": "127.0.0.1.evil.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_web_page_or_a_rebound_name_cannot_control_the_sandbox(
    box: Sandbox, control: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    box.put_file(b"kept", "kept.bin", "x/y")
    reply = control.post(f"/_sandbox/{path}", json={}, headers=headers)
    assert (reply.status_code, bool(reply.json()["detail"])) == (403, True)
    assert box.ledger()["files"] == 1


@pytest.mark.parametrize("path", ["", "ledger", "journal", "webhooks", "ca.pem"])
def test_a_rebound_name_cannot_read_what_the_sandbox_knows(control: httpx.Client, path: str) -> None:
    assert control.get(f"/_sandbox/{path}", headers={"Host": "rebound.evil.test"}).status_code == 403
    assert control.get(f"/_sandbox/{path}", headers={"Host": "localhost"}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_a_body_declared_as_json_is_taken(box: Sandbox, control: httpx.Client, kind: str) -> None:
    reply = control.post("/_sandbox/config", content=b'{"latency": 9}', headers={"Content-Type": kind} if kind else {})
    assert (reply.status_code, "application/json" in reply.json()["detail"]) == (415, True)


def test_the_sandboxs_own_page_and_json_with_a_charset_are_taken(box: Sandbox, control: httpx.Client) -> None:
    headers = {"Origin": box.url, "Content-Type": "application/json; charset=utf-8", "Sec-Fetch-Site": "same-origin"}
    assert control.post("/_sandbox/config", content=b'{"latency": 0}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("stage", "what", "text"),
    [
        ("submit", {}, "something to do"),
        ("submit", {"endpoint": "a/b", "times": 3, "skip": 1}, "something to do"),
        ("submit", {"status": "503"}, "status must be a valid integer"),
        ("submit", {"status": 99}, "status must be greater than or equal to 200"),
        ("submit", {"status": 600}, "status must be less than or equal to 599"),
        ("submit", {"status": True}, "status must be"),
        ("submit", {"status": 503, "times": 0}, "times must be greater than or equal to 1"),
        ("submit", {"status": 503, "times": -1}, "times must be"),
        ("submit", {"status": 503, "skip": -1}, "skip must be"),
        ("submit", {"status": 503, "endpoint": ""}, "endpoint must"),
        ("submit", {"delay": -1}, "delay must be"),
        ("submit", {"delay": float("nan")}, "delay must be a finite number"),
        ("submit", {"silent": float("inf")}, "silent must be a finite number"),
        ("download", {"size": -5}, "size must be"),
        ("stream", {"cut": -1}, "cut must be"),
        ("submit", {"status": 503, "headers": ["X"]}, "headers must be a valid dictionary"),
        ("submit", {"status": 503, "headers": {"X": "a\r\nY: b"}}, "printable"),
        ("submit", {"status": 503, "retry_after": 3}, "retry_after must be a valid string"),
        ("submit", {"status": 503, "drop": "after"}, "sends no answer"),
        ("submit", {"drop": "before", "garbage": "html"}, "sends no answer"),
        ("submit", {"drop": "unread", "delay": 1.0}, "does not wait"),
        ("submit", {"status": 500, "garbage": "html"}, "garbage is a 200"),
        ("submit", {"body": {"detail": "x"}}, "body goes with status"),
        ("submit", {"delay": 1.0, "content_type": "text/html"}, "content_type goes with"),
        ("download", {"redirect": "https://example.com/", "size": 5}, "name one"),
        ("download", {"status": 200, "body": "x", "size": 5}, "name one"),
        ("submit", {"accept": True}, "accept goes with"),
        ("submit", {"cut": 2}, "cut needs a stream"),
        ("stream", {"end": True, "delay": 1.0}, "end goes with cut"),
        ("stream", {"headers_first": True, "delay": 1.0}, "headers_first goes with silent"),
        ("download", {"redirect": "https://example.com/", "status": 200}, "300 to 399"),
        ("token", {"status": 500, "endpoint": "openrouter/router"}, "is about no endpoint"),
        ("job", {"status": 500}, "status belongs to requests"),
        ("job", {"drop": "after"}, "drop belongs to requests"),
        ("submit", {"ignores_cancel": True}, "ignores_cancel belongs to the stage 'job'"),
        ("job", {"stuck": "SOMEWHERE"}, "stuck must be one of IN_QUEUE, IN_PROGRESS"),
        ("job", {"stuck": "IN_QUEUE", "output": {}}, "has no output"),
        ("job", {"stuck": "IN_PROGRESS", "fail": {}}, "never comes to its end"),
        ("job", {"fail": {"error": "no"}, "output": {}}, "not both"),
        ("job", {"fail": {"eror": "no"}}, "fail.eror"),
        ("job", {"fail": {"status": 42}}, "fail.status must be"),
        ("job", {"output": "text"}, "output must be a valid dictionary"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(box: Sandbox, stage: str, what: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as refused:
        box.fault(stage, **what)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"stage": "submit"}),
        ("faults", {"stage": "submit", "status": "many"}),
        ("faults", ["submit"]),
        ("faults", "submit"),
        ("config", {"latency": -1}),
        ("config", {"latency": "0.5"}),
        ("config", {"any_endpoint": "no"}),
        ("config", {"gone": ["openrouter/router=teapot"]}),
        ("config", {"gone": [7]}),
        ("config", {"gone": ["=410"]}),
        ("config", {"seed": 1.5}),
        ("say", {"text": 7}),
        ("say", {"text": "x", "times": 0}),
        ("say", {"text": "x", "endpoint": ""}),
        ("say", {"text": "x", "voice": "low"}),
    ],
)
def test_what_makes_no_sense_over_http_is_a_400_that_says_why(control: httpx.Client, path: str, body: object) -> None:
    reply = control.post(f"/_sandbox/{path}", json=body)
    assert (reply.status_code, bool(reply.json()["detail"])) == (400, True)


def test_a_body_nested_too_deeply_is_a_400(control: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert control.post("/_sandbox/faults", content=b'{"a":' * 100_000, headers=headers).status_code == 400


def test_settings_that_make_no_sense_are_refused_at_the_start(run_sandbox: Callable[..., tuple[int, str, str]]) -> None:
    with pytest.raises(ValueError, match="latency must be greater than or equal to 0"):
        Sandbox(latency=-1)
    code, _, err = run_sandbox("serve", "--latency", "-1")
    assert (code, "latency must be" in err) == (2, True)


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT :443 HTTP/1.1",
        "CONNECT  HTTP/1.1",
        "CONNECT fal.run HTTP/1.1",
        "CONNECT fal.run:https HTTP/1.1",
        "CONNECT .fal.run:443 HTTP/1.1",
        "CONNECT a..fal.run:443 HTTP/1.1",
        "CONNECT -a.fal.run:443 HTTP/1.1",
        f"CONNECT {'a' * 64}.fal.run:443 HTTP/1.1",
        f"CONNECT {'a.' * 130}fal.run:443 HTTP/1.1",
        "CONNECT *.fal.run:443 HTTP/1.1",
        "CONNECT a/b.fal.run:443 HTTP/1.1",
        "CONNECT \xe9.fal.run:443 HTTP/1.1",
        "CONNECT xn--a.fal.run:443 HTTP/1.1",
        "CONNECT ",
    ],
)
def test_a_connect_to_no_name_is_answered(
    box: Sandbox, line: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", box.port), timeout=20) as raw:
        raw.sendall(f"{line}\r\nHost: x\r\n\r\n".encode("latin-1"))
        answer = b""
        while chunk := raw.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"no host name" in answer or b"no certificate" in answer
    assert box.journal()[-1]["status"] == 400
    assert "Traceback" not in caplog.text + capfd.readouterr().err


def test_the_ca_certificate_may_be_read_by_everybody_and_is_no_key(box: Sandbox, control: httpx.Client) -> None:
    path = Path(box.ca_file)
    pem = path.read_bytes()
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o055 == 0o055
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert control.get("/_sandbox/ca.pem").content == pem
    assert b"BEGIN CERTIFICATE" in pem
    assert b"PRIVATE" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_the_ca_certificate_goes_into_the_folder_that_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "for" / "containers"
    before = os.umask(0o077)
    try:
        with Sandbox(ca_dir=str(folder)) as box:
            path = Path(box.env()["SSL_CERT_FILE"])
            assert path.parent == folder.resolve()
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)
    assert (folder.is_dir(), list(folder.iterdir())) == (True, [])


def test_a_ca_folder_that_cannot_be_made_is_one_line(
    run_sandbox: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run_sandbox("serve", "--port", "0", "--ca_dir", tmp_path / "file" / "x")
    assert (code, err.count("\n")) == (1, 1)
    assert str(tmp_path / "file" / "x") in err


@pytest.mark.sampled(2)
@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["run", "--", "true"]], ids=["serve", "run"])
def test_a_machine_without_a_temporary_folder_is_told_what_is_missing(command: list[str]) -> None:
    """As on a read-only root: what Python finds when it tries every place is that none can be written to."""
    code = (
        "import runpy, sys, tempfile; tempfile._candidate_tempdir_list = lambda: ['/nowhere'];"
        f"sys.argv[:] = ['fal-sandbox', *{command}]; runpy.run_path({str(SERVER)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert all(words in done.stderr for words in ("temporary folder", "Mount a tmpfs at /tmp", "TMPDIR", "--ca_dir"))
    assert "port" not in done.stderr


def test_servers_on_this_machine_are_reached_past_the_sandbox(box: Sandbox) -> None:
    assert box.env()["NO_PROXY"] == box.env()["no_proxy"] == "localhost,127.0.0.1,::1"
    code = "import os, requests; print(requests.get(os.environ['HTTPS_PROXY'] + '/_sandbox/ledger').status_code)"
    # Nobody listens at the proxy for plain HTTP: whoever asks it gets nowhere.
    env = {**os.environ, **box.env(), "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "200\n", done.stderr
