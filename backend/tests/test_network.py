"""The network as it is: dead addresses, proxies, certificates, peers that drip, flood or leave bytes behind."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme

from fal_sandbox.server import Sandbox
from raw_hosts import RawHosts, Script, answering, dripping, headed, raw_hosts, whole
from services.fal import connections, responses
from services.fal.categories import CATEGORY_NAMES
from services.fal.errors import (
    AmbiguousSubmit,
    BadOutput,
    DeadlineExceeded,
    FalError,
    InvalidInput,
    ModelRejected,
    Unreachable,
)
from services.fal.responses import Answer, retry_after_s
from services.fal_service import FalClient

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
FILE = "https://v3.fal.media/files/x.png"
LONG_S = 10.0
"""More than any of these calls may take on a loaded machine, less than a script goes on."""


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawHosts]:
    """Hosts of our own in fal's place, trusted, behind HTTPS_PROXY."""
    with raw_hosts(tmp_path, {}) as (hosts, pem):
        monkeypatch.setenv("HTTPS_PROXY", hosts.url)
        monkeypatch.setenv("SSL_CERT_FILE", pem)
        monkeypatch.setenv("FAL_KEY", "made-up-id:made-up-secret")
        yield hosts


def ended_within(action: Callable[[], Any], error: type[FalError]) -> FalError:
    began = time.monotonic()
    with pytest.raises(error) as caught:
        action()
    assert time.monotonic() - began < LONG_S
    return caught.value


# ---------------------------------------------------------------- peers that drip

DRIPS: dict[str, Script] = {
    "status line": dripping(b"", b"H"),
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "many headers": dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "1xx": dripping(b"", headed("103 Early Hints")),
    "body": dripping(headed("200 OK", "Content-Length: 1000000"), b"a"),
    "body without a length": dripping(headed("200 OK", "Connection: close"), b"a"),
    "chunks": dripping(headed("200 OK", "Transfer-Encoding: chunked"), b"1\r\na\r\n"),
    "chunk extension": dripping(headed("200 OK", "Transfer-Encoding: chunked") + b"1;", b"a"),
    "trailer": dripping(headed("200 OK", "Transfer-Encoding: chunked") + b"0\r\nX-A: ", b"a"),
}


@pytest.mark.parametrize("shape", DRIPS)
def test_a_download_that_drips_ends_with_its_deadline(raw: RawHosts, tmp_path: Path, shape: str) -> None:
    raw.scripts["v3.fal.media"] = DRIPS[shape]
    with FalClient() as client:
        ended_within(lambda: client.save_picture(FILE, tmp_path / "out", "x", timeout=0.5), DeadlineExceeded)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", DRIPS)
def test_an_own_photokit_that_drips_ends_with_its_deadline(
    raw: RawHosts, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", "https://own.example.net/replace")
    raw.scripts["own.example.net"] = DRIPS[shape]
    with FalClient() as client:
        error = ended_within(
            lambda: client.background_replace("https://example.com/a.jpg", prompt="x", remove_bg=False, timeout=0.5),
            FalError,
        )
    assert error.error_type in ("ambiguous_submit", "timeout")
    assert error.retryable is False
    assert len(raw.heads) == 1


def test_a_workflow_whose_downloads_drip_prints_what_was_made(
    box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., tuple[int, Any]]
) -> None:
    answers = {
        "bria/replace-background": {"image": {"url": FILE}},
        "fal-ai/bria/background/remove": {"image": {"url": FILE}},
        "openrouter/router/vision": {"output": json.dumps(dict.fromkeys(CATEGORY_NAMES, "Mugs"))},
    }
    for endpoint, output in answers.items():
        box.fault("job", endpoint=endpoint, output=output, times=None)
    proxy = os.environ["HTTPS_PROXY"].rpartition("/")[2].split(":")
    scripts = {"v3.fal.media": DRIPS["chunk extension"]}
    with raw_hosts(tmp_path, scripts, beyond=(proxy[0], int(proxy[1]))) as (hosts, pem):
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, hosts.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", pem)
        argv = ("--image", "https://example.com/mug.jpg", "--save_dir", str(tmp_path / "out"), "--timeout", "6")
        code, document = run("workflow", *argv)
    assert code == 0, document
    assert [one["image_url"] for one in document["images"]] == [FILE] * 3
    failures = [(one["stage"], one["error_type"]) for one in document["errors"] if one["style"]]
    assert failures == [("download", "timeout")] * 3


def test_a_submit_whose_answer_never_ends_is_over_soon_after_its_deadline(raw: RawHosts) -> None:
    raw.scripts["queue.fal.run"] = dripping(headed("200 OK", "Transfer-Encoding: chunked"), b"1\r\n \r\n")
    with FalClient() as client:
        ended_within(lambda: client.any_llm_submit("hi", timeout=0.5), AmbiguousSubmit)
    assert len(raw.heads) == 1


def test_who_takes_a_request_slowly_does_not_get_the_whole_time_for_each_piece(raw: RawHosts) -> None:
    raw.pause_s = 0.02
    raw.scripts["queue.fal.run"] = answering(b"{}")
    with FalClient() as client:
        ended_within(lambda: client.any_llm_submit("x" * 16_000_000, timeout=0.5), FalError)


# ---------------------------------------------------------------- streams that go on, or send what is no event


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


LAST = {"output": "All of it.", "partial": False}


def test_a_stream_that_goes_on_after_its_last_event_does_not_hold_the_call(raw: RawHosts) -> None:
    head = headed("200 OK", "Content-Type: text/event-stream", "Connection: close")
    raw.scripts["fal.run"] = dripping(head + events(LAST), b": still here\n\n")
    began = time.monotonic()
    with FalClient(timeout=60) as client:
        assert [event["output"] for event in client.iter_any_llm("hi")] == ["All of it."]
    assert time.monotonic() - began < LONG_S


def test_a_status_stream_that_goes_on_after_completed_does_not_hold_the_job(raw: RawHosts) -> None:
    raw.scripts["queue.fal.run"] = job_at_fal(
        stream=dripping(
            headed("200 OK", "Content-Type: text/event-stream", "Connection: close") + events({"status": "COMPLETED"}),
            b": still here\n\n",
        ),
        result=answering(b'{"output": "done"}'),
    )
    began = time.monotonic()
    with FalClient(timeout=60) as client:
        assert client.any_llm_complete("hi")["output"] == "done"
    assert time.monotonic() - began < LONG_S


@pytest.mark.parametrize(
    "lone", [b"retry: 100\n\n", b"id: 7\n\n", b"id: 7\nretry: 100\n\n", b"event: ping\ndata: {}\n\n", b":\n\n"]
)
def test_a_lone_field_of_a_stream_or_a_sign_of_life_is_no_event(raw: RawHosts, lone: bytes) -> None:
    body = lone + events({"output": "All", "partial": True}) + lone + events(LAST) + lone
    raw.scripts["fal.run"] = answering(body, "Content-Type: text/event-stream")
    with FalClient(timeout=20) as client:
        assert [event["output"] for event in client.iter_any_llm("hi")] == ["All", "All of it."]


def job_at_fal(
    *, stream: Script | None = None, result: Script, submit: Script | None = None, status: Script | None = None
) -> Script:
    """fal's queue, with one job that is over at once."""
    base = "https://queue.fal.run/openrouter/router/requests/abc"
    submitted = {"request_id": "abc", "response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/x"}
    completed = events({"status": "COMPLETED"})

    def script(connection: Any, head: str) -> None:
        method, path = head.split()[:2]
        if method == "POST":
            (submit or answering(json.dumps(submitted).encode()))(connection, head)
        elif "/status/stream" in path:
            (stream or answering(completed, "Content-Type: text/event-stream"))(connection, head)
        elif "/status" in path:
            (status or answering(b'{"status": "COMPLETED"}'))(connection, head)
        else:
            result(connection, head)

    return script


# ---------------------------------------------------------------- answers without bound


@cache
def bomb() -> bytes:
    """200 MB, packed by the first test that sends it, and never whole in this process's own memory."""
    packer, piece = zlib.compressobj(1, wbits=zlib.MAX_WBITS | 16), bytes(1_000_000)
    return b"".join([*(packer.compress(piece) for _ in range(200)), packer.flush()])


ODD_BODIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip bomb": (bomb, "gzip"),
    "gzip of gzip": (lambda: gzip.compress(bomb()), "gzip, gzip"),
    "deflate": (lambda: zlib.compress(b"{}"), "deflate"),
    "unknown": (lambda: b"{}", "br"),
}


@pytest.mark.parametrize("kind", ODD_BODIES)
@pytest.mark.parametrize("stage", ["submit", "status", "result", "stream", "token", "download"])
def test_a_packed_answer_is_refused_before_it_fills_the_memory(
    raw: RawHosts, tmp_path: Path, photo_file: Path, kind: str, stage: str
) -> None:
    import resource

    body, encoding = ODD_BODIES[kind]
    script = answering(body(), f"Content-Encoding: {encoding}", *(EVENTS if stage == "stream" else ()))
    raw.scripts |= {
        "queue.fal.run": script if stage == "submit" else job_at_fal(result=script, status=script),
        **dict.fromkeys(("fal.run", "rest.fal.ai", "v3.fal.media"), script),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FalClient(timeout=30) as client:
        error = _of(client, stage, tmp_path, photo_file)
    assert error["error_type"] in ("bad_output", "ambiguous_submit", "stream_truncated")
    assert error["retryable"] is False or stage == "token"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


EVENTS = ("Content-Type: text/event-stream",)


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    return path


def _of(client: FalClient, stage: str, folder: Path, photo: Path) -> dict[str, Any]:
    """The failure of a call that reaches `stage`."""
    actions: dict[str, Callable[[], Any]] = {
        "submit": lambda: client.any_llm_submit("hi"),
        "status": lambda: client.any_llm_status("abc"),
        "result": lambda: client.any_llm_complete("hi"),
        "stream": lambda: list(client.iter_any_llm("hi")),
        "token": lambda: client.upload_file(photo),
        "download": lambda: client.save_picture(FILE, folder / "out", "x"),
    }
    try:
        answer: dict[str, Any] = actions[stage]()
    except FalError as error:
        return {"error_type": error.error_type, "retryable": error.retryable}
    return answer


def test_an_endless_answer_is_refused_at_its_limit(raw: RawHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "MAX_ANSWER_BYTES", 1_000_000)
    raw.scripts["queue.fal.run"] = dripping(
        headed("200 OK", "Transfer-Encoding: chunked"), b"10000\r\n" + b" " * 65_536 + b"\r\n", every_s=0
    )
    with FalClient(timeout=60) as client:
        assert "larger than" in str(ended_within(lambda: client.any_llm_submit("hi"), AmbiguousSubmit))
    assert len(raw.heads) == 1


@pytest.mark.parametrize("line", [b"data: " + b"a" * 300_000, b"data: a\n" * 40_000, b": " + b"a" * 300_000])
def test_an_event_without_end_is_refused(raw: RawHosts, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(responses, "MAX_EVENT_BYTES", 200_000)
    raw.scripts["fal.run"] = answering(line, *EVENTS)
    with FalClient(timeout=20) as client, pytest.raises(BadOutput, match="larger than"):
        list(client.iter_any_llm("hi"))


def test_many_events_may_be_larger_together_than_one_may_be(raw: RawHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "MAX_EVENT_BYTES", 100_000)
    texts = [{"output": "a" * 60_000, "partial": True}] * 5
    raw.scripts["fal.run"] = answering(events(*texts, LAST), *EVENTS)
    with FalClient(timeout=20) as client:
        assert [event["output"] for event in client.iter_any_llm("hi")][-1] == "All of it."


def test_a_gzipped_answer_is_read_and_a_gzipped_download_is_whole(raw: RawHosts, tmp_path: Path) -> None:
    packed = ("Content-Encoding: gzip",)
    raw.scripts["queue.fal.run"] = job_at_fal(result=answering(gzip.compress(b'{"output": "done"}'), *packed))
    raw.scripts["v3.fal.media"] = answering(gzip.compress(PNG), *packed)
    with FalClient(timeout=20) as client:
        assert client.any_llm_complete("hi")["output"] == "done"
        assert client.save_picture(FILE, tmp_path / "out", "x").read_bytes() == PNG
    [asked] = [head for head in raw.heads if "/files/x.png" in head]
    assert "accept-encoding: identity" in asked.lower()


def test_a_gzipped_download_that_breaks_off_is_asked_for_again(raw: RawHosts, tmp_path: Path) -> None:
    packed = gzip.compress(PNG)
    answers: list[Any] = []

    def script(connection: Any, head: str) -> None:
        answers.append(packed if answers else packed[:-20])
        answering(answers[-1], "Content-Encoding: gzip")(connection, head)

    raw.scripts["v3.fal.media"] = script
    with FalClient(timeout=20) as client:
        assert client.save_picture(FILE, tmp_path / "out", "x").read_bytes() == PNG
    assert len(answers) == 2


DEEP = b"[" * 500 + b"]" * 500
ODD_ANSWERS = [
    b'{"detail": [{"loc": 5}]}',
    b'{"detail": [{"loc": {"a": 1}, "msg": []}]}',
    b'{"detail": [5, null, [[]]]}',
    b'{"detail": ' + DEEP + b"}",
    b'{"output": "x", "a": ' + DEEP + b"}",
    b'{"detail": {"a": ' + b'{"b":' * 90_000 + b"}" * 90_000 + b"}}",
    b"[" * 200_000,
    b"[]",
    b"null",
    b"9" * 10_000,
    b'"\\ud800"',
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("body", ODD_ANSWERS, ids=range(len(ODD_ANSWERS)))
@pytest.mark.parametrize("status", ["200 OK", "422 No", "400 No", "500 No", "403 No"])
@pytest.mark.parametrize("stage", ["result", "token"])
def test_an_odd_answer_is_never_an_internal_error(
    raw: RawHosts,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    photo_file: Path,
    body: bytes,
    status: str,
    stage: str,
) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)
    script = answering(body, status=status)
    raw.scripts |= {"queue.fal.run": job_at_fal(result=script), "rest.fal.ai": script}
    with FalClient(timeout=20) as client:
        error = _of(client, stage, tmp_path, photo_file)
    assert error["error_type"] not in (None, "internal")
    json.dumps(error)


@pytest.mark.parametrize("status", ["101 Switching Protocols", "204 No Content", "304 Not Modified", "999 Odd"])
@pytest.mark.parametrize("stage", ["submit", "status", "result", "stream", "token", "download"])
def test_an_odd_status_is_never_an_internal_error(
    raw: RawHosts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photo_file: Path, status: str, stage: str
) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr("services.fal.jobs.POLL_FIRST_S", 0.001)

    def script(connection: Any, head: str) -> None:
        connection.sendall(headed(status, "Connection: close"))
        raise ConnectionError("hang up")

    raw.scripts |= {
        "queue.fal.run": script if stage == "submit" else job_at_fal(result=script, status=script),
        **dict.fromkeys(("fal.run", "rest.fal.ai", "v3.fal.media"), script),
    }
    with FalClient(timeout=20) as client:
        error = _of(client, stage, tmp_path, photo_file)
    assert error["error_type"] not in (None, "internal")


GOOD_TOKEN = {
    "token": "t",
    "token_type": "Bearer",
    "base_url": "https://v3.fal.media",
    "expires_at": "2999-01-01T00:00:00Z",
}
ODD_TOKENS = [
    {"token": 5},
    {"token": None},
    {"token": "two\r\nlines: x"},
    {"token": "ünicode"},
    {"token_type": []},
    {"base_url": "https://evil.example.net"},
    {"base_url": "http://v3.fal.media"},
    {"base_url": "https://evil.example\\@v3.fal.media"},
    {"base_url": "https://user:pass@v3.fal.media"},
    {"base_url": "https://[::1"},
    {"base_url": 5},
    {"expires_at": 5},
    {"expires_at": "tomorrow"},
]


@pytest.mark.parametrize("odd", ODD_TOKENS, ids=str)
def test_an_odd_upload_token_is_bad_output_and_nothing_is_sent_with_it(
    raw: RawHosts, photo_file: Path, odd: dict[str, Any]
) -> None:
    raw.scripts["rest.fal.ai"] = answering(json.dumps({**GOOD_TOKEN, **odd}).encode())
    with FalClient(timeout=20) as client, pytest.raises(BadOutput):
        client.upload_file(photo_file)
    assert {target.partition(":")[0] for target in raw.connects} == {"rest.fal.ai"}


# ---------------------------------------------------------------- bytes after an answer


def test_what_comes_after_an_answer_is_not_the_answer_to_the_next_request(raw: RawHosts) -> None:
    def script(connection: Any, head: str) -> None:
        connection.sendall(whole(b'{"status": "IN_QUEUE"}') + whole(b'{"status": "COMPLETED"}'))

    raw.scripts["queue.fal.run"] = script
    with FalClient(timeout=20) as client:
        assert [client.any_llm_status("abc")["status"] for _ in range(3)] == ["IN_QUEUE"] * 3
    assert len(raw.connects) == 3


# ---------------------------------------------------------------- addresses


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """On 127.0.0.1, while 127.0.0.2 has the same port with a full queue: what comes there is not even refused."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as dead:
        dead.bind(("127.0.0.2", server.getsockname()[1]))
        dead.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(dead.getsockname())
        yield server
        for sock in filling:
            sock.close()


def test_an_address_that_does_not_answer_costs_a_moment_once(server: socket.socket) -> None:
    one = connections.Racing()
    tries = []
    for _ in range(2):
        with one.connect(["127.0.0.2", "127.0.0.1"], port_of(server), 30, lambda: None) as connected:
            assert connected.getpeername()[0] == "127.0.0.1"
        tries.append(one._in_order(["127.0.0.2", "127.0.0.1"]))
        server.accept()[0].close()
    assert tries == [["127.0.0.1", "127.0.0.2"]] * 2


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def test_an_address_that_refuses_is_passed_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_START_S", 60)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        addresses = ["::1", "127.0.0.3", "127.0.0.1"]
        with connections.Racing().connect(addresses, port, 30, lambda: None) as connected:
            assert connected.getpeername()[0] == "127.0.0.1"


def test_when_no_address_answers_the_time_ends_and_the_call_can_be_stopped(server: socket.socket) -> None:
    with pytest.raises(TimeoutError):
        connections.Racing().connect(["127.0.0.2"], port_of(server), 0.3, lambda: None)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        connections.Racing().connect(["127.0.0.2"], port_of(server), 30, stop)


def test_the_families_are_tried_by_turns() -> None:
    order = connections.Racing()._in_order(["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"])
    assert order == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]


@pytest.mark.parametrize("stage", ["submit", "token", "download", "photokit"])
def test_every_request_passes_over_a_dead_address(
    server: socket.socket, tmp_path: Path, photo_file: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setenv("FAL_KEY", "made-up-key")
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", "https://own.example.net/replace")
    monkeypatch.setattr("services.fal.connections.is_public", lambda address: True)
    port, seen = port_of(server), list[str]()

    def resolve(host: str, asked_port: int, *args: Any, **options: Any) -> list[Any]:
        seen.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, asked_port)) for at in ("127.0.0.2", "127.0.0.1")]

    connect_ex = socket.socket.connect_ex

    class Redirected(socket.socket):
        def connect_ex(self, address: Any) -> int:  # port 443 is not ours to listen on
            return connect_ex(self, (address[0], port))

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr("services.fal.connections.socket.socket", Redirected)
    with FalClient(timeout=20) as client:
        threading.Thread(target=_hang_up, args=(server,), daemon=True).start()
        actions: dict[str, Callable[[], Any]] = {
            "submit": lambda: client.any_llm_submit("hi"),
            "token": lambda: client.upload_file(photo_file),
            "download": lambda: client.save_picture(FILE, tmp_path / "out", "x"),
            "photokit": lambda: client.background_replace("https://a.example/b.jpg", prompt="x", remove_bg=False),
        }
        monkeypatch.setattr("services.fal.transport.MAX_ATTEMPTS", 1)
        monkeypatch.setattr("services.fal.fal_api.MAX_ATTEMPTS", 1)
        error = ended_within(actions[stage], Unreachable)
        server.shutdown(socket.SHUT_RDWR)
    assert seen
    assert "EOF" in str(error) or "reset" in str(error).lower(), error


def _hang_up(server: socket.socket) -> None:
    try:
        while True:
            server.accept()[0].close()
    except OSError:
        pass


# ---------------------------------------------------------------- proxies and certificates


def test_a_proxy_without_a_scheme_is_used(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = os.environ["HTTPS_PROXY"].removeprefix("http://")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, bare)
    with FalClient(timeout=20) as client:
        assert client.any_llm_complete("hi")["error"] is None


@pytest.mark.parametrize("proxy", ["socks9://x:1", "http://[::1", "http://host:port"])
def test_a_proxy_that_cannot_be_used_is_named_unless_no_proxy_makes_it_unused(
    raw: RawHosts, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with FalClient(timeout=20) as client, pytest.raises(InvalidInput, match="HTTPS_PROXY"):
        client.any_llm_submit("hi")
    monkeypatch.setattr(socket, "getaddrinfo", _no_such_name)
    monkeypatch.setattr("services.fal.transport.MAX_ATTEMPTS", 1)
    for unused in ("*", ".fal.run"):
        monkeypatch.setenv("NO_PROXY", unused)
        with FalClient(timeout=20) as client, pytest.raises(Unreachable):
            client.any_llm_submit("hi")


def _no_such_name(*args: Any, **options: Any) -> Any:
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden"])
def test_a_proxy_that_refuses_is_not_asked_again(raw: RawHosts, status: str) -> None:
    raw.refusal = headed(status, "Content-Length: 0")
    with FalClient(timeout=30) as client:
        error = ended_within(lambda: client.any_llm_submit("hi"), Unreachable)
    assert (error.retryable, len(raw.connects)) == (False, 1)
    assert "HTTPS_PROXY" in str(error)


def test_a_proxy_that_is_busy_is_asked_again(raw: RawHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.fal.transport.BACKOFF_FIRST_S", 0.001)
    raw.refusal = headed("503 Busy", "Content-Length: 0")
    with FalClient(timeout=30) as client:
        assert ended_within(lambda: client.any_llm_submit("hi"), Unreachable).retryable
    assert len(raw.connects) > 1


def test_a_certificate_that_is_not_trusted_is_not_asked_for_again(
    raw: RawHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    raw.scripts |= dict.fromkeys(("queue.fal.run", "queue.falrun.com"), answering(b"{}"))
    with FalClient(timeout=30) as client:
        error = ended_within(lambda: client.any_llm_submit("hi"), Unreachable)
    assert (error.retryable, raw.connects, raw.heads) == (False, ["queue.fal.run:443"], [])
    assert "SSL_CERT_FILE" in str(error)


def folder_of(pem: str, tmp_path: Path, name: str) -> str:
    folder = tmp_path / "certificates"
    folder.mkdir()
    (folder / name).write_bytes(Path(pem).read_bytes())
    return str(folder)


@pytest.mark.parametrize("way", ["dir beside file", "dir alone", "two dirs", "bundle is a folder", "bundle is a file"])
def test_certificates_are_found_where_the_environment_says(
    raw: RawHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    raw.scripts["queue.fal.run"] = answering(b'{"status": "IN_QUEUE"}')
    ours, other = os.environ["SSL_CERT_FILE"], tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    folder = folder_of(ours, tmp_path, "ours.pem")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.crt").write_bytes(other.read_bytes())
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    named = {
        "dir beside file": {"SSL_CERT_FILE": str(other), "SSL_CERT_DIR": folder},
        "dir alone": {"SSL_CERT_DIR": folder},
        "two dirs": {"SSL_CERT_DIR": f"{tmp_path / 'more'}{os.pathsep}{folder}"},
        "bundle is a folder": {"REQUESTS_CA_BUNDLE": folder},
        "bundle is a file": {"SSL_CERT_FILE": str(other), "REQUESTS_CA_BUNDLE": ours},
    }[way]
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    with FalClient(timeout=20) as client:
        assert client.any_llm_status("abc")["status"] == "IN_QUEUE"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("place", ["missing", "empty folder", "no certificate"])
def test_certificates_that_cannot_be_read_are_named(
    raw: RawHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "no certificate").write_text("hello")
    monkeypatch.setenv(name, str(tmp_path / place))
    with FalClient(timeout=20) as client, pytest.raises(InvalidInput, match=name):
        client.any_llm_status("abc")


def test_netrc_is_never_used(raw: RawHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text("default login somebody password planted\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    monkeypatch.setenv("FAL_PHOTOKIT_ENDPOINT", "https://fal.run/own/photokit")
    raw.scripts["fal.run"] = answering(json.dumps({"image": {"url": FILE}}).encode())
    raw.scripts["v3.fal.media"] = answering(PNG)
    with FalClient(timeout=20) as client:
        client.background_replace("https://example.com/a.jpg", prompt="x", remove_bg=False)
        client.save_picture(FILE, tmp_path / "out", "x")
    asked = {head.split()[0]: head.lower() for head in raw.heads}
    assert "authorization: key made-up-id:made-up-secret" in asked["POST"]
    assert "authorization" not in asked["GET"]


def test_a_date_to_come_back_at_is_read_by_the_clock_of_the_answer() -> None:
    for wrong in (-86_400, 0, 86_400):
        now = time.time() + wrong
        headers = {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 7, usegmt=True)}
        assert retry_after_s(Answer(429, headers, b"", "submit")) == 7
    past = {"date": formatdate(time.time(), usegmt=True), "retry-after": formatdate(0, usegmt=True)}
    assert retry_after_s(Answer(429, past, b"", "submit")) == 0
    undated = {"date": "soon", "retry-after": formatdate(time.time() + 60, usegmt=True)}
    assert 50 < (retry_after_s(Answer(429, undated, b"", "submit")) or 0) <= 60


def test_a_refusal_says_which_field_even_when_its_place_is_odd(raw: RawHosts) -> None:
    raw.scripts["queue.fal.run"] = answering(b'{"detail": [{"loc": 5, "msg": "too small"}]}', status="422 No")
    with FalClient(timeout=20) as client, pytest.raises(ModelRejected, match="5: too small"):
        client.any_llm_submit("hi")
