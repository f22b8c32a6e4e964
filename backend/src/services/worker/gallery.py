"""Saves what a workflow made: the original, every picture, and on request one page that shows them side by side."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.fal.call import current_call
from services.fal.downloads import replacing, safe_name
from services.fal.errors import Cancelled, FalError, InvalidInput
from services.fal.parallel import parallel
from services.fal.product import style_error

if TYPE_CHECKING:
    from services.fal_service import FalClient

PAGE_NAME = "report.html"
AT_ONCE = 8
"""Downloads side by side."""


class Gallery:
    """One folder for the files of one workflow."""

    def __init__(self, client: FalClient, folder: str) -> None:
        """Raises InvalidInput when the folder cannot be written to: before any money is spent."""
        self._client = client
        self._folder = Path(folder)
        if not folder:
            raise InvalidInput("--save_dir is empty. Name a folder.")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Permissions do not tell everything (a read-only disk, a folder of the system's): try it.
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInput(f"--save_dir {folder!a} cannot be written to: {reason}.") from error

    def save(self, document: dict[str, Any], arguments: dict[str, Any], *, report: bool) -> None:
        """Save everything that `document` names, and tell the paths there; what fails is listed in its `errors`.

        Raises Cancelled, with what was made and saved by then.
        """
        try:
            original = self._save_files(document, str(arguments["image"]))
        except Cancelled as error:
            error.partial = _with_utf8_paths(document)
            raise
        if report:
            self._save_page(document, arguments, original)
        document.update(_with_utf8_paths(document))

    def _save_files(self, document: dict[str, Any], image: str) -> Path | None:
        errors: list[Any] = []
        original = self._save_original(document, image, errors)
        document["original_path"] = None if original is None else str(original)
        errors += self._save_images(document["images"])
        document["errors"] = [*(document["errors"] or []), *errors] or None
        return original

    def _save_images(self, images: list[dict[str, Any]]) -> list[Any]:
        """Save the pictures side by side; what fails, in their order."""
        places = threading.Semaphore(AT_ONCE)
        with parallel() as tasks:
            saving = [
                tasks.start(partial(self._save_image, image, f"{number}-{safe_name(image['style_name'])}", places))
                for number, image in enumerate(images, start=1)
            ]
            return [error for one in saving if (error := one.result()) is not None]

    def _save_original(self, document: dict[str, Any], image: str, errors: list[Any]) -> Path | None:
        try:
            if os.path.isfile(image):
                target = self._folder / f"original{Path(image).suffix.lower()}"
                if not (target.exists() and os.path.samefile(image, target)):
                    with replacing(target) as temporary:
                        shutil.copyfile(image, temporary)
                return target
            return self._client.save_picture(document["image_url"], self._folder, "original")
        except Cancelled:
            raise
        except (FalError, OSError) as error:
            errors.append(_error(error, "download", None))
            return None

    def _save_image(self, image: dict[str, Any], name: str, places: threading.Semaphore) -> Any:
        """Save one picture; what `errors` says when it cannot be had."""
        try:
            current_call().acquire(places)
            try:
                image["path"] = str(self._client.save_picture(image["image_url"], self._folder, name))
            finally:
                places.release()
        except Cancelled:
            raise
        except FalError as error:
            return _error(error, "download", image["style_name"])
        return None

    def _save_page(self, document: dict[str, Any], arguments: dict[str, Any], original: Path | None) -> None:
        from services.worker.report import page

        path = self._folder / PAGE_NAME
        shown = {**document, "language": arguments.get("language", "Turkish")}
        document["report_path"] = None
        try:
            with replacing(path) as temporary:
                Path(temporary).write_text(page(shown, original), encoding="utf-8")
            document["report_path"] = str(path)
        except OSError as error:
            document["errors"] = [*(document["errors"] or []), _error(error, "report", None)]


def _error(error: Exception, stage: str, style: str | None) -> Any:
    known = error if isinstance(error, FalError) else InvalidInput(f"It cannot be saved: {error}.")
    return style_error(known, stage, style)


def _with_utf8_paths(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with its paths as everyone reads them, whatever this process's locale made of their bytes."""
    names = ("original_path", "report_path", "path")
    told = {name: os.fsencode(document[name]).decode("utf-8", "replace") for name in names if document.get(name)}
    images = [_with_utf8_paths(image) for image in document.get("images", ())]
    return {**document, **told, **({"images": images} if images else {})}
