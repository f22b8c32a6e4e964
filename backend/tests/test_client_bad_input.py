"""Wrong arguments: refused with InvalidInput that says what to do, before any request is sent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import InvalidInput, MissingKey
from services.fal_service import FalClient

PHOTO = "https://example.com/mug.jpg"
KNOWN = {"main_product_type": "Kitchenware"}
SURROGATE = "half a pair \ud83d"
NOT_TEXT = ["", "  \n\t", None, 5, b"bytes", ["text"], SURROGATE]


@pytest.fixture
def refused(box: Sandbox) -> Callable[..., AbstractContextManager[None]]:
    """Expects one call to be refused, for a reason that has these words in it, without any request."""

    @contextlib.contextmanager
    def expect(*words: Any) -> Iterator[None]:
        with pytest.raises(InvalidInput) as caught:
            yield
        error = caught.value
        assert isinstance(error, ValueError)
        assert isinstance(error, RuntimeError)
        assert (error.error_type, error.retryable, error.request_id) == ("invalid_input", False, None)
        assert all(word in str(error) for word in words), str(error)
        assert box.journal() == []

    return expect


# Every method by its name, ready to be called with one argument replaced.
CALLS = {
    "complete": lambda client, **given: client.any_llm_complete(**{"prompt": "Hi", **given}),
    "enterprise": lambda client, **given: client.any_llm_enterprise(**{"prompt": "Hi", **given}),
    "iter": lambda client, **given: client.iter_any_llm(**{"prompt": "Hi", **given}),
    "stream": lambda client, **given: client.any_llm_stream(**{"prompt": "Hi", **given}),
    "submit": lambda client, **given: client.any_llm_submit(**{"prompt": "Hi", **given}),
    "status": lambda client, **given: client.any_llm_status(**{"request_id": "abc", **given}),
    "result": lambda client, **given: client.any_llm_result(**{"request_id": "abc", **given}),
    "cancel": lambda client, **given: client.any_llm_cancel(**{"request_id": "abc", **given}),
    "replace": lambda client, **given: client.background_replace(**{"image_url": PHOTO, "prompt": "x", **given}),
    "remove": lambda client, **given: client.remove_background(**{"image_url": PHOTO, **given}),
    "analyze": lambda client, **given: client.analyze_product_image(**{"image_url": PHOTO, **given}),
    "write": lambda client, **given: client.generate_background_prompt(
        **{"categories": KNOWN, "style_type": "white", **given}
    ),
    "several": lambda client, **given: client.generate_multiple_backgrounds(
        **{"image_url": PHOTO, "categories": KNOWN, **given}
    ),
    "workflow": lambda client, **given: client.product_workflow(**{"image": PHOTO, **given}),
}
TEXT_CALLS = ["complete", "enterprise", "iter", "stream", "submit"]


def table(argument: Any, values: Any, calls: Any) -> list[Any]:
    """One row per wrong value and method: all values for the first method, the first value for the others."""
    rows = [(calls[0], value) for value in values] + [(call, values[0]) for call in calls[1:]]
    return [pytest.param(call, {argument: value}, id=f"{call} {argument}={ascii(value)[:40]}") for call, value in rows]


WRONG = [
    *table("prompt", NOT_TEXT, [*TEXT_CALLS, "replace"]),
    *table("model", [value for value in NOT_TEXT if value is not None], [*TEXT_CALLS, "analyze", "write"]),
    *table("reasoning", ["true", 1], TEXT_CALLS),
    *table("system_prompt", ["", " ", 5, SURROGATE], TEXT_CALLS),
    *table(
        "temperature",
        [2.1, -0.1, math.nan, math.inf, True, "0.7", None, [], 10**400, Decimal("0.5"), 1j],
        [*TEXT_CALLS, "analyze"],
    ),
    *table("max_tokens", [0, -1, 1.5, math.nan, "5", True, []], TEXT_CALLS),
    *table("priority", ["fast", "", "LATENCY", 5, ["latency"], {}], ["complete", "iter", "stream", "submit"]),
    *table(
        "webhook_url",
        [
            "example.com/hook",
            "",
            "/hook",
            "ftp://example.com/",
            "http://",
            "https://a b/",
            "https://[::1",
            5,
            SURROGATE,
        ],
        ["submit"],
    ),
    *table(
        "request_id",
        ["a/b", "../abc", "", None, 5, "a b", "abc\n", "a?logs=1", "%2e%2e", "é", "x" * 129, SURROGATE],
        ["status", "result", "cancel"],
    ),
    *table("with_logs", ["true", 1, None], ["status"]),
    *table("remove_bg", ["true", 1, None], ["replace", "several"]),
    *table("style_type", NOT_TEXT, ["write"]),
    *table("language", NOT_TEXT, ["workflow"]),
    *table(
        "categories",
        [{}, None, [], "Footwear", {"vibe": 5}, {"vibe": None}, {5: "x"}, {"": "x"}, {"vibe": SURROGATE}, [("a", "b")]],
        ["several", "write"],
    ),
    *table(
        "timeout",
        [0, -1, math.nan, math.inf, True, "soon", "", [], 86_401, 10**400],
        [name for name in CALLS if name != "cancel"] + ["cancel"],
    ),
]


@pytest.mark.parametrize(("call", "given"), WRONG)
def test_a_wrong_argument_is_refused_by_its_name_before_anything_is_sent(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], call: Any, given: Any
) -> None:
    [argument] = given
    with refused({"categories": "categor"}.get(argument, argument)):
        CALLS[call](client, **given)


# ---------------------------------------------------------------- image URLs

NO_IMAGE_URLS = [
    "mug.jpg",
    "./mug.jpg",
    "/etc/passwd",
    "C:\\photos\\mug.jpg",
    "file:///etc/passwd",
    "ftp://example.com/mug.jpg",
    "javascript:alert(1)",
    "//example.com/mug.jpg",
    "https://",
    "https:///mug.jpg",
    "https://exa mple.com/mug.jpg",
    "https://example.com/a\nHost: evil",
    "https://example.com:99999/mug.jpg",
    "https://[::1",
    "data:text/html;base64,PGh0bWw+",
    "data:image/png,raw",
    "data:image/png;base64,***",
    "data:image/png;base64,",
    "",
    None,
    5,
    b"https://example.com/mug.jpg",
    SURROGATE,
]


@pytest.mark.parametrize("url", NO_IMAGE_URLS, ids=lambda url: ascii(url)[:40])
def test_only_web_urls_and_data_uris_of_images_are_image_urls(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], url: Any
) -> None:
    for call in ("replace", "remove", "analyze", "several"):
        with refused("image_url"):
            CALLS[call](client, image_url=url)
    with refused("image_urls"):
        client.any_llm_enterprise("What is it?", image_urls=[PHOTO, url])


@pytest.mark.parametrize("urls", [PHOTO, {PHOTO}, {PHOTO: 1}, 5, iter([PHOTO])])
def test_image_urls_are_a_list(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], urls: Any
) -> None:
    with refused("image_urls must be a list"):
        client.any_llm_enterprise("What is it?", image_urls=urls)


@pytest.mark.parametrize("line", ["https://[::1", "https://example.com:99999/x.jpg", "data:image/png;base64,***"])
def test_a_url_in_the_prompt_is_checked_as_one_beside_it(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], line: str
) -> None:
    with refused():
        client.any_llm_enterprise(f"Image URL: {line}")


def test_a_local_file_named_as_an_image_url_is_refused_with_the_way_to_upload_it(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], photo_path: Path
) -> None:
    for call in ("replace", "remove", "analyze", "several"):
        with refused("Upload a local file first", "upload_file"):
            CALLS[call](client, image_url=str(photo_path))


def test_a_data_uri_that_fal_would_refuse_for_its_size_is_not_sent(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]]
) -> None:
    with refused("10 MiB", "Upload the file instead"):
        client.remove_background("data:image/png;base64," + "A" * (10 * 1024 * 1024))


# ---------------------------------------------------------------- styles


@pytest.mark.parametrize(
    ("styles", "words"),
    [
        ([], "non-empty"),
        ({}, "must be a non-empty list"),
        ("Studio", "must be a non-empty list"),
        (5, "must be a non-empty list"),
        pytest.param(iter(["Studio"]), "must be a non-empty list", id="an iterator"),
        (["Studio"] * 101, "at most 100"),
        (["Beach"], "Known: Studio, Lifestyle, Premium"),
        ([""], "Known: Studio"),
        ([5], "name"),
        ([None], "name"),
        ([[]], "name"),
        ([{}], "description"),
        ([{"name": "x"}], "description"),
        ([{"description": "x"}], "name"),
        ([{"name": "", "description": "x"}], "name"),
        ([{"name": "x", "description": " "}], "description"),
        ([{"name": 5, "description": "x"}], "name"),
        ([{"name": "x", "description": SURROGATE}], "description"),
        ([{"name": "x", "description": "y", "prompt": "z"}], "prompt"),
        ([{"name": "x", "description": "y", "z": 1, 5: 2}], "z"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_styles_that_make_no_sense_are_refused(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], styles: Any, words: str
) -> None:
    for call in ("several", "workflow"):
        with refused(words):
            CALLS[call](client, styles=styles)


# ---------------------------------------------------------------- the client itself


@pytest.mark.parametrize(
    "key",
    [
        "an-id:a secret",
        "an-id:\nsecret",
        "an-id:a\tsecret",
        "an-id:sırrım",
        "an-id:\x7f",
        "an-id:“secret”",
        "an-id:\udcff",
    ],
    ids=ascii,
)
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"Copy it again from https://fal\.ai/dashboard/keys") as caught:
        FalClient(key=key)
    assert not isinstance(caught.value, MissingKey)
    assert "secret" not in str(caught.value)
    assert "an-id" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "   ", "\n", 5, b"an-id:a-secret"])
def test_no_key_is_a_missing_key(key: Any) -> None:
    with pytest.raises(MissingKey):
        FalClient(key=key)


@pytest.mark.parametrize(
    "given",
    [
        *({"timeout": value} for value in (0, -1, math.nan, math.inf, True, "soon", 10**400)),
        *({"max_concurrency": value} for value in (0, -1, 1001, 1.5, True, "many", math.nan)),
        {"env_file": "no-such.env"},
        {"env_file": ""},
        {"env_file": "/"},
    ],
    ids=repr,
)
def test_a_setting_that_makes_no_sense_is_refused_when_the_client_is_made(
    refused: Callable[..., AbstractContextManager[None]], given: Any
) -> None:
    with refused(*(name for name in given if name != "env_file")):
        FalClient(**given)


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_client_says_so(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], call: str
) -> None:
    client.close()
    with refused("closed"):
        list(CALLS[call](client))
