"""The sandbox against recordings of fal, when somebody with a key has put some into tests/recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal_service import FalClient
from services.live import check
from services.live.check import examine_live
from services.live.facts import FACTS
from services.live.inputs import INPUTS
from services.live.recordings import disagreements, load

OF_FAL = Path(__file__).parent / "recordings"
TEXT, CUTOUT, PHOTOKIT = "openrouter/router", "fal-ai/bria/background/remove", "bria/replace-background"
Recordings = dict[str, dict[str, Any]]


def of_sandbox(box: Sandbox, client: FalClient, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recordings:
    """What the sandbox answers to the same questions, every fact seen."""
    monkeypatch.setattr(check, "endpoints_of", lambda settings: list(INPUTS))
    box.fault("job", endpoint=TEXT, stuck="IN_QUEUE")
    document = examine_live(client, 0.2, str(folder), None)
    assert document["error"] is None
    return load(folder)


def differing(ours: Recordings, theirs: Recordings) -> dict[str, list[str]]:
    """How the sandbox differs from each recording of fal."""
    assert all(one.get("from") != "the sandbox" for one in theirs.values()), "a recording of the sandbox is no evidence"
    known = {fact: one for fact, one in theirs.items() if fact in ours}
    return {fact: found for fact, one in known.items() if (found := list(disagreements(ours[fact], one)))}


@pytest.mark.skipif(
    not list(OF_FAL.rglob("*.json")), reason="nobody with a key has put recordings into tests/recordings"
)
def test_the_sandbox_answers_as_fal_was_recorded(
    box: Sandbox, client: FalClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert differing(of_sandbox(box, client, tmp_path, monkeypatch), load(OF_FAL)) == {}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """Recordings as fal might give them, made from the sandbox for these tests only: they are evidence of nothing."""
    folder = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patch, Sandbox() as box:
        for name, value in box.env().items():
            patch.setenv(name, value)
        for endpoint in (CUTOUT, PHOTOKIT):
            box.fault("job", endpoint=endpoint, output={"image": {"url": "https://v3.fal.media/files/a.png"}})
        with FalClient(timeout=110) as client:
            return of_sandbox(box, client, folder, patch)


def as_of_fal(recordings: Mapping[str, Any]) -> Recordings:
    """A copy that says it is of fal."""
    copied: Recordings = json.loads(json.dumps(recordings))
    for one in copied.values():
        one.pop("from", None)
    return copied


def test_every_fact_and_every_endpoint_is_recorded(recorded: Recordings) -> None:
    assert set(recorded) == {*FACTS, *(f"catalogue {endpoint}" for endpoint in INPUTS)}


def test_equal_recordings_agree(recorded: Recordings) -> None:
    assert differing(recorded, as_of_fal(recorded)) == {}


def test_recordings_of_the_sandbox_are_no_evidence(recorded: Recordings) -> None:
    with pytest.raises(AssertionError, match="no evidence"):
        differing(recorded, recorded)


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "status": ("unknown id", lambda one: one["shape"].update(status=410), "status 410, at the sandbox 404"),
    "header": (
        "submit",
        lambda one: one["shape"]["headers"].append("x-fal-lane"),
        "the sandbox has no header x-fal-lane",
    ),
    "new key": ("submit", lambda one: one["shape"]["body"].update(lane="string"), "the sandbox has no lane"),
    "missing key": ("text", lambda one: one["shape"]["body"].pop("usage"), "only the sandbox has usage"),
    "type": (
        "text",
        lambda one: one["shape"]["body"]["usage"].update(cost="string"),
        "usage.cost is string, at the sandbox number",
    ),
    "type in a list": (
        "refused input",
        lambda one: one["shape"]["body"]["detail"][0].update(loc="string"),
        "detail[].loc is string, at the sandbox array",
    ),
    "input": (f"catalogue {CUTOUT}", lambda one: one["inputs"].update(preview={}), "the sandbox has no input preview"),
    "default": (
        f"catalogue {CUTOUT}",
        lambda one: one["inputs"]["sync_mode"].update(default=True),
        "sync_mode: default is True, at the sandbox False",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_recording_that_differs_is_named(change: str, recorded: Recordings) -> None:
    theirs = as_of_fal(recorded)
    fact, alter, said = CHANGES[change]
    alter(theirs[fact])
    assert differing(recorded, theirs) == {fact: [said]}


def test_what_one_sample_does_not_tell_is_no_difference(recorded: Recordings) -> None:
    theirs = as_of_fal(recorded)
    theirs["submit"]["shape"]["body"]["queue_position"] = "null"
    theirs["refused input"]["shape"]["body"]["detail"] = []
    theirs["prices"]["shape"]["body"]["prices"][0]["unit_price"] = "integer"
    assert differing(recorded, theirs) == {}


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"fakt": 1}')
    with pytest.raises(ValueError, match=r"odd\.json is not a recording"):
        load(tmp_path)
