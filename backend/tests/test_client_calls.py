"""Calls as arguments: a client's view within a call is stopped with it, keeps its deadline and tells its progress."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.call import Call
from services.fal.errors import AuthError, Cancelled, DeadlineExceeded, InvalidInput
from services.fal.progress import Progress
from services.fal_service import FalClient

PHOTO = "https://example.com/mug.jpg"


def test_a_call_is_stopped_from_another_thread_and_its_job_cancelled(client: FalClient, box: Sandbox) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={})
    call = Call(60)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.within(call).any_llm_complete, "hi")
        box.wait_for(lambda ledger: ledger["accepted"] == 1)
        call.cancel()
        assert asked.result()["error_type"] == "cancelled"
    box.wait_for(lambda ledger: ledger["jobs"][0]["outcome"] == "cancelled")


def test_a_view_of_a_call_that_was_stopped_sends_nothing(client: FalClient, box: Sandbox) -> None:
    call = Call(60)
    call.cancel()
    with pytest.raises(Cancelled):
        client.within(call).any_llm_submit("hi")
    assert box.ledger()["accepted"] == 0


def test_methods_within_a_call_share_its_deadline(client: FalClient, box: Sandbox) -> None:
    box.fault("job", stuck="IN_PROGRESS", output={}, times=None)
    began = time.monotonic()
    view = client.within(Call(1.5))
    assert view.any_llm_complete("one", timeout=50)["error_type"] == "timeout"
    with pytest.raises(DeadlineExceeded, match=r"1\.5 seconds"):
        view.any_llm_submit("two", timeout=50)
    assert time.monotonic() - began < 40
    assert client.any_llm_submit("The client itself is not bound by it.")


def test_places_in_the_queue_are_told_to_python_too(client: FalClient, box: Sandbox) -> None:
    box.configure(queue=0.2)
    events: list[Any] = []
    result = client.within(Call(60, progress=Progress(events.append))).any_llm_complete("hi")
    assert {"step": "queue", "queue_position": 0, "request_id": result["request_id"]} in events
    assert not [event for event in events if event["step"] == "log"]


def test_on_progress_is_told_steps_places_and_with_logs_the_log(
    client: FalClient, box: Sandbox, photo_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    box.configure(queue=0.2)
    own: list[Any] = []
    around: list[Any] = []
    view = client.within(Call(120, progress=Progress(around.append, to_stderr=False)))
    view.product_workflow(photo_url, styles=["Studio"], with_logs=True, on_progress=own.append)
    assert {"analysis", "cutout", "picture", "queue", "log"} <= {event["step"] for event in own}
    assert sorted(map(repr, own)) == sorted(map(repr, around))
    assert all(event["request_id"] for event in own if event["step"] in ("queue", "log"))
    assert "fal: " not in capsys.readouterr().err


def test_a_listener_may_itself_use_the_view_that_tells_it(client: FalClient, box: Sandbox) -> None:
    box.configure(queue=0.2)
    asked = threading.Event()

    def listen(event: Any) -> None:
        if not asked.is_set():
            asked.set()
            view.any_llm_submit("from the listener")

    view = client.within(Call(60, progress=Progress(listen)))
    assert view.any_llm_complete("hi")["error"] is None
    assert box.ledger()["accepted"] == 2


def test_closing_a_client_closes_its_views(client: FalClient) -> None:
    view = client.within(Call(60))
    client.close()
    with pytest.raises(InvalidInput, match="closed"):
        view.any_llm_submit("hi")


# The log of a guest

HOST = """
import io, logging, sys
seen = io.StringIO()
logging.basicConfig(stream=seen, level=logging.INFO, format="%(name)s %(message)s")
from services.fal_service import FalClient
from services.fal import log
FalClient(key="an-id:a-secret").close()
logging.getLogger("services.shop").info("from the host")
log.logger.info("from the library")
assert seen.getvalue() == "services.shop from the host\\nfal_services from the library\\n", seen.getvalue()
assert [type(handler).__name__ for handler in logging.getLogger("fal_services").handlers] == ["NullHandler"]
assert logging.getLogger("services").handlers == []
"""


def test_building_a_client_leaves_the_log_to_the_program() -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
    ran = subprocess.run(
        [sys.executable, "-c", HOST], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_program_without_logging_is_told_nothing_unless_fal_log_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("fal_services")
    FalClient(key="an-id:a-secret").close()
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    monkeypatch.setenv("FAL_LOG", "info")
    FalClient(key="an-id:a-secret").close()
    logger.info("asked for")
    assert capsys.readouterr().err == "info: asked for\n"


# Arguments of wrong types

WRONG: tuple[Any, ...] = (
    None,
    5,
    -1.5,
    True,
    b"bytes",
    "",
    object(),
    [],
    [5],
    {},
    {5: 5},
    {"a": b""},
    ...,
    int,
    iter(()),
)
METHODS = [name for name, value in vars(FalClient).items() if inspect.isfunction(value) and not name.startswith("_")]
GOOD: dict[str, Any] = {
    "prompt": "Hi",
    "request_id": "abc",
    "image_url": PHOTO,
    "categories": {"vibe": "calm"},
    "style_type": "white",
    "image": PHOTO,
    "url": "https://v3.fal.media/files/a.png",
    "name": "a",
    "call": Call(60),
    "jobs": {"text": 1},
    "method": "any_llm_complete",
    "options": {},
    "result": {"image": {"url": "https://v3.fal.media/files/a.png"}},
}


def ready(method: Callable[..., Any], folder: Path) -> dict[str, Any]:
    good = {**GOOD, "directory": str(folder), "path": str(folder / "photo.jpg")}
    parameters = inspect.signature(method).parameters.values()
    # A photo has two ways in, so neither is required by the signature.
    needed = ("image", "categories", "prompt")
    return {one.name: good[one.name] for one in parameters if one.default is one.empty or one.name in needed}


def sent(box: Sandbox) -> list[Any]:
    """The requests so far, but for prices, which are read beside the jobs and may come late."""
    return [row for row in box.journal() if row["stage"] != "platform"]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("close", "estimate_of")])
def test_arguments_of_wrong_types_are_invalid_input_in_every_method(
    method: str, client: FalClient, box: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(1000))
    # One request of any would end at once: what is asked here must not get so far, or is a good argument after all.
    box.fault("any", status=401, times=None)
    function = getattr(client, method)
    for name, parameter in inspect.signature(function).parameters.items():
        for value in WRONG:
            if value is parameter.default or (value is True and parameter.default in (True, False)):
                continue
            before = len(sent(box))
            outcome = outcome_of(function, {**ready(function, tmp_path), name: value})
            if isinstance(outcome, InvalidInput):
                assert len(sent(box)) == before, (name, value)
            else:
                assert outcome is None or isinstance(outcome, AuthError), (name, value, outcome)
                assert may_be(value, name), (name, value)


def outcome_of(function: Callable[..., object], arguments: dict[str, Any]) -> Exception | None:
    try:
        function(**arguments)
    except Exception as error:
        return error
    return None


def may_be(value: Any, name: str) -> bool:
    """Whether a value of WRONG is right for some argument."""
    if value is None:
        return name not in GOOD
    return (name, value) in (
        ("timeout", 5),
        ("max_tokens", 5),
        ("image_urls", []),
        ("name", ""),
        ("reasoning", True),
        ("seed", 5),
        ("jobs", {}),
    ) or ((name == "on_progress" and value is int) or (name == "result" and isinstance(value, dict)))


@pytest.mark.parametrize(
    "name", ["key", "timeout", "max_concurrency", "env_file", "store_io", "expires_in", "queue_priority", "max_usd"]
)
def test_settings_of_wrong_types_are_invalid_input(name: str) -> None:
    for value in WRONG[1:]:
        numbers = [(setting, 5) for setting in ("timeout", "max_concurrency", "expires_in", "max_usd")]
        if (name, value) in (*numbers, ("store_io", True)):
            continue
        with pytest.raises(InvalidInput):
            FalClient(**{"key": "an-id:a-secret", name: value})


def test_a_picture_is_saved_by_strings(client: FalClient, box: Sandbox, tmp_path: Path) -> None:
    url = box.put_file(b"\x89PNG\r\n\x1a\n" + bytes(100), "a.png", "image/png")
    path = client.save_picture(url, str(tmp_path / "out"), "x")
    assert path == tmp_path / "out" / "x.png"
    assert path.read_bytes().startswith(b"\x89PNG")
