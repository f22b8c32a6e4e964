"""Saves what a workflow made: the original, each picture as soon as it is there, and on request a page that shows them.

What was paid for is kept: a picture is saved while the others are still being made. When the workflow is stopped or
runs out of time, downloads that have begun may take a moment longer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.fal.arguments import styles
from services.fal.call import LOOK_S, Call, Slots, Task
from services.fal.downloads import replacing, safe_name
from services.fal.errors import Cancelled, FalError, InvalidInput
from services.fal.product import style_error
from services.fal.prompts import DEFAULT_LANGUAGE
from services.fal.redaction import redact

if TYPE_CHECKING:
    from services.fal_service import FalClient

PAGE_NAME = "report.html"
AT_ONCE = 8
"""Downloads side by side."""
SAVE_S = 1.0
"""How much longer than its workflow a download may take: within the grace in which a command ends."""


class SavedFiles:
    """The files of one workflow, in one folder."""

    def __init__(self, client: FalClient, folder: str, arguments: Mapping[str, Any]) -> None:
        """For a client that is bound to the workflow's call. Raises InvalidInput when the folder cannot be written to:
        before any money is spent."""
        assert client.call is not None
        self._workflow = client.call
        # Not a part of the workflow's call, with which it would be stopped at once.
        self._saving = Call(self._workflow.remaining() + SAVE_S)
        self._client = client.within(self._saving)
        self._folder = Path(folder)
        self._arguments = arguments
        if not folder:
            raise InvalidInput("--save_dir must be the path of a folder, not empty.")
        self._names: list[tuple[str, str] | None] = [
            (row.name, row.description)
            for row in styles(arguments.get("styles"))
            for _ in range(arguments.get("num_images") or 1)
        ]
        self._places = Slots(AT_ONCE)
        self._original: Task[Path | None] | None = None
        self._pictures: list[tuple[dict[str, Any], Task[str]]] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Permissions do not tell everything (a read-only disk, a folder of the system's): try it.
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"--save_dir {folder!a} cannot be written to: {reason}.") from error

    def on_progress(self, event: Mapping[str, Any]) -> None:
        """Save the original once the workflow has begun, and each picture when it is made."""
        if self._original is None:
            self._original = Task(self._save_original)
        if event["step"] == "picture" and event["status"] == "done":
            image = event["image"]
            self._pictures.append((image, Task(partial(self._save_image, image, self._name_of(image)))))

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
        original = self._original.result() if self._original and not _errors(self._original, None) else None
        document["original_path"] = None if original is None else str(original)
        errors = _errors(self._original, None) if self._original else []
        for image in document["images"]:
            task = self._task_of(image)
            if failed := _errors(task, image["style_name"]):
                errors += failed
            else:
                image["path"] = task.result()
        document["errors"] = [*(document["errors"] or []), *errors] or None
        if self._workflow.cancelled:
            raise Cancelled("The call was cancelled.", partial=_with_utf8_paths(document))
        if report:
            self._save_page(document, original)
        document.update(_with_utf8_paths(document))

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
        return self._save(image, "original")

    def _save_image(self, image: dict[str, Any], name: str) -> str:
        with self._places.one(self._saving):
            # Also in the event's own dict: a command that hangs prints what its events told.
            image["path"] = str(self._save(image["image_url"], name))
            return str(image["path"])

    def _task_of(self, image: Mapping[str, Any]) -> Task[str]:
        """What saves a picture of the document, which is a copy of the one in the event when the workflow failed."""
        facts = ("style_name", "style_description", "image_url")
        for place, (told, task) in enumerate(self._pictures):
            if all(redact(told[fact]) == redact(image[fact]) for fact in facts):
                del self._pictures[place]
                return task
        raise KeyError(image["style_name"])

    def _save(self, url: str, name: str) -> Path:
        return self._client.save_picture(url, self._folder, name, timeout=self._saving.timeout_s)

    def _save_page(self, document: dict[str, Any], original: Path | None) -> None:
        from services.worker.report import page

        path = self._folder / PAGE_NAME
        shown = {**document, "language": self._arguments.get("language", DEFAULT_LANGUAGE)}
        document["report_path"] = None
        try:
            with replacing(path) as temporary:
                Path(temporary).write_text(page(shown, original), encoding="utf-8")
            document["report_path"] = str(path)
        except OSError as error:
            document["errors"] = [*(document["errors"] or []), _error(error, "report", None)]


def _errors(task: Task[Any], style: str | None) -> list[Any]:
    """What kept a file from being saved: one error, or none."""
    try:
        task.result()
    except (FalError, OSError) as error:
        return [_error(error, "download", style)]
    return []


def _error(error: Exception, stage: str, style: str | None) -> Any:
    known = error if isinstance(error, FalError) else InvalidInput(f"The file cannot be saved: {error}.")
    return style_error(known, stage, style)


def _with_utf8_paths(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with its paths as everyone reads them, whatever this process's locale made of their bytes."""
    names = ("original_path", "report_path", "path")
    told = {name: os.fsencode(document[name]).decode("utf-8", "replace") for name in names if document.get(name)}
    images = [_with_utf8_paths(image) for image in document.get("images", ())]
    return {**document, **told, **({"images": images} if images else {})}
