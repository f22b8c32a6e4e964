"""Saves what a workflow made: the original, every picture as it comes, and on request one page that shows them.

What was paid for is kept: a picture is saved while the others are still made, and when the workflow's time is over, or
it is stopped, what is on its way to the folder has a moment longer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from services.fal.call import LOOK_S, Call, Slots, Task, current_call
from services.fal.checks import styles
from services.fal.downloads import replacing, safe_name
from services.fal.errors import Cancelled, FalError, InvalidInput
from services.fal.product import style_error

if TYPE_CHECKING:
    from services.fal_service import FalClient

T = TypeVar("T")

PAGE_NAME = "report.html"
AT_ONCE = 8
"""Downloads side by side."""
SAVE_S = 1.0
"""How much longer than its workflow a download may take: within the grace in which a command ends."""


class Gallery:
    """One folder for the files of one workflow."""

    def __init__(self, client: FalClient, folder: str, arguments: Mapping[str, Any]) -> None:
        """Raises InvalidInput when the folder cannot be written to: before any money is spent."""
        self._client = client
        self._folder = Path(folder)
        self._arguments = arguments
        if not folder:
            raise InvalidInput("--save_dir is empty. Name a folder.")
        self._names: list[tuple[str, str] | None] = [
            (row.name, row.description) for row in styles(arguments.get("styles"))
        ]
        self._workflow = current_call()
        # Not a part of the workflow's call, with which it would be stopped at once.
        self._saving = Call(self._workflow.timeout_s)
        self._saving.deadline = self._workflow.deadline + SAVE_S
        self._places = Slots(AT_ONCE)
        self._original: Task[Path | None] | None = None
        self._pictures: list[tuple[dict[str, Any], Task[None]]] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Permissions do not tell everything (a read-only disk, a folder of the system's): try it.
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"--save_dir {folder!a} cannot be written to: {reason}.") from error

    def watching(self, progress: Callable[[Any], None]) -> Callable[[Any], None]:
        """`progress` that also saves: the original once the workflow has begun, and each picture when it is made."""

        def on_progress(event: dict[str, Any]) -> None:
            if self._original is None:
                self._original = Task(self._within_saving(self._save_original))
            if event["step"] == "picture" and event["status"] == "done":
                image = event["image"]
                save = partial(self._save_image, image, self._name_of(image))
                self._pictures.append((image, Task(self._within_saving(save))))
            progress(event)

        return on_progress

    def finish(self, document: dict[str, Any], *, report: bool) -> None:
        """Wait for what is still being saved, and tell the paths; what failed is listed in the document's `errors`.

        Raises Cancelled, with what was made and saved by then.
        """
        tasks: list[Task[Any]] = [task for _, task in self._pictures]
        tasks += [self._original] if self._original else []
        for task in tasks:
            while not task.wait(LOOK_S):
                if self._workflow.cancelled and self._workflow.over_at() + SAVE_S <= time.monotonic():
                    self._saving.cancel()
        errors: list[Any] = []
        original = _outcome(self._original, None, errors) if self._original else None
        document["original_path"] = None if original is None else str(original)
        saved = {id(image): task for image, task in self._pictures}
        for image in document["images"]:
            _outcome(saved[id(image)], image["style_name"], errors)
        document["errors"] = [*(document["errors"] or []), *errors] or None
        if self._workflow.cancelled:
            raise Cancelled("The call was cancelled.", partial=_with_utf8_paths(document))
        if report:
            self._save_page(document, original)
        document.update(_with_utf8_paths(document))

    def _within_saving(self, action: Callable[[], T]) -> Callable[[], T]:
        def within() -> T:
            with self._saving.resumed():
                return action()

        return within

    def _name_of(self, image: dict[str, Any]) -> str:
        place = self._names.index((image["style_name"], image["style_description"]))
        self._names[place] = None  # the next one of this name gets a number of its own
        return f"{place + 1}-{safe_name(image['style_name'])}"

    def _save_original(self) -> Path | None:
        image = str(self._arguments["image"])
        if os.path.isfile(image):
            target = self._folder / f"original{Path(image).suffix.lower()}"
            if not (target.exists() and os.path.samefile(image, target)):
                with replacing(target) as temporary:
                    shutil.copyfile(image, temporary)
            return target
        return self._client.save_picture(image, self._folder, "original")

    def _save_image(self, image: dict[str, Any], name: str) -> None:
        with self._places.one():
            image["path"] = str(self._client.save_picture(image["image_url"], self._folder, name))

    def _save_page(self, document: dict[str, Any], original: Path | None) -> None:
        from services.worker.report import page

        path = self._folder / PAGE_NAME
        shown = {**document, "language": self._arguments.get("language", "Turkish")}
        document["report_path"] = None
        try:
            with replacing(path) as temporary:
                Path(temporary).write_text(page(shown, original), encoding="utf-8")
            document["report_path"] = str(path)
        except OSError as error:
            document["errors"] = [*(document["errors"] or []), _error(error, "report", None)]


def _outcome(task: Task[T], style: str | None, errors: list[Any]) -> T | None:
    """What was saved; None when it failed, which `errors` then says."""
    try:
        return task.result()
    except (FalError, OSError) as error:
        errors.append(_error(error, "download", style))
        return None


def _error(error: Exception, stage: str, style: str | None) -> Any:
    known = error if isinstance(error, FalError) else InvalidInput(f"It cannot be saved: {error}.")
    return style_error(known, stage, style)


def _with_utf8_paths(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with its paths as everyone reads them, whatever this process's locale made of their bytes."""
    names = ("original_path", "report_path", "path")
    told = {name: os.fsencode(document[name]).decode("utf-8", "replace") for name in names if document.get(name)}
    images = [_with_utf8_paths(image) for image in document.get("images", ())]
    return {**document, **told, **({"images": images} if images else {})}
