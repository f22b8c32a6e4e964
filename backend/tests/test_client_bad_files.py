"""Wrong files: refused with InvalidInput that gives the reason, before any request is sent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from fal_sandbox.server import Sandbox
from services.fal.errors import InvalidInput
from services.fal_service import FalClient


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


def a_directory(folder: Any) -> Any:
    return folder


def an_empty_file(folder: Any) -> Any:
    (folder / "empty.png").touch()
    return folder / "empty.png"


def a_text_file(folder: Any) -> Any:
    (folder / "notes.png").write_text("This is no picture at all.")
    return folder / "notes.png"


def a_web_page(folder: Any) -> Any:
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>")
    return folder / "page.jpg"


def a_pipe(folder: Any) -> Any:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def a_link_to_nowhere(folder: Any) -> Any:
    (folder / "link.png").symlink_to(folder / "gone.png")
    return folder / "link.png"


def a_link_to_itself(folder: Any) -> Any:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder / "loop.png"


FILES = [
    (lambda folder: folder / "missing.png", "No such file"),
    (lambda folder: folder / ("x" * 300), "too long"),
    (lambda folder: folder / "\udcff.png", "No such file"),
    (lambda folder: f"{folder}/nul\0byte.png", "null byte"),
    (a_directory, "directory"),
    (an_empty_file, "empty"),
    (a_text_file, "not a picture"),
    (a_web_page, "not a picture"),
    (a_pipe, "not an ordinary file"),
    (a_link_to_nowhere, "No such file"),
    (a_link_to_itself, "cannot be read"),
    (lambda folder: "/dev/null", "not an ordinary file"),
]


@pytest.mark.parametrize(("make", "words"), FILES, ids=[words for _, words in FILES])
def test_a_file_that_is_no_readable_picture_is_refused_with_the_reason(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], tmp_path: Path, make: Any, words: str
) -> None:
    path = make(tmp_path)
    with refused(words, "file_path"):
        client.upload_file(path)
    with refused(words, "image"):
        client.product_workflow(path)


@pytest.mark.parametrize("path", ["", None, 5, b"mug.png", [], Path("")], ids=repr)
def test_what_is_no_path_is_refused(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], path: Any
) -> None:
    with refused():
        client.upload_file(path)


def test_a_file_that_may_not_be_read_is_refused(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "private.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
        path.chmod(0)
        os.chmod(folder, 0o755)
        user = os.geteuid()
        if user == 0:  # root may read everything
            os.seteuid(65534)
        try:
            with refused("Permission denied"):
                client.upload_file(path)
        finally:
            os.seteuid(user)


def test_a_message_about_a_file_is_one_tidy_sentence_after_another(
    client: FalClient, refused: Callable[..., AbstractContextManager[None]], tmp_path: Path
) -> None:
    for path in (tmp_path, an_empty_file(tmp_path), a_pipe(tmp_path)):
        with pytest.raises(InvalidInput) as caught:
            client.upload_file(path)
        assert ".." not in str(caught.value).replace(str(tmp_path), "")
