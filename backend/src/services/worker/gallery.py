"""Saves what a workflow made: the original, every picture, and on request one page that shows them side by side."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.fal.downloads import safe_name
from services.fal.errors import FalError, InvalidInput
from services.fal.product import style_error

if TYPE_CHECKING:
    from services.fal_service import FalClient

PAGE_NAME = "report.html"


class Gallery:
    """One folder for the files of one workflow."""

    def __init__(self, client: FalClient, folder: str) -> None:
        """Raises InvalidInput when the folder cannot be written to: before any money is spent."""
        self._client = client
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"--save_dir {folder!r} cannot be made: {error.strerror or error}.") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidInput(f"--save_dir {folder!r} cannot be written to. Name another folder.")

    def save(self, document: dict[str, Any], arguments: dict[str, Any], *, report: bool) -> None:
        """Save everything that `document` names, and tell the paths there; what fails is listed in its `errors`."""
        errors: list[Any] = []
        original = self._save_original(document, str(arguments["image"]), errors)
        for number, image in enumerate(document["images"], start=1):
            self._save_image(image, f"{number}-{safe_name(image['style_name'])}", errors)
        document["original_path"] = None if original is None else str(original)
        if errors:
            document["errors"] = [*(document["errors"] or []), *errors]
        if report:
            document["report_path"] = str(self._write_page(document, arguments, original))

    def _save_original(self, document: dict[str, Any], image: str, errors: list[Any]) -> Path | None:
        try:
            if os.path.isfile(image):
                target = self._folder / f"original{Path(image).suffix.lower()}"
                if not (target.exists() and os.path.samefile(image, target)):
                    shutil.copyfile(image, target)
                return target
            return self._client.save_picture(document["image_url"], self._folder, "original")
        except (FalError, OSError) as error:
            errors.append(_download_error(error, None))
            return None

    def _save_image(self, image: dict[str, Any], name: str, errors: list[Any]) -> None:
        try:
            path = self._client.save_picture(image["image_url"], self._folder, name)
            image["path"] = str(path)
        except FalError as error:
            errors.append(_download_error(error, image["style_name"]))

    def _write_page(self, document: dict[str, Any], arguments: dict[str, Any], original: Path | None) -> Path:
        from services.worker.report import page

        path = self._folder / PAGE_NAME
        shown = {**document, "language": arguments.get("language", "Turkish")}
        try:
            path.write_text(page(shown, original), encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
        return path


def _download_error(error: Exception, style: str | None) -> Any:
    known = error if isinstance(error, FalError) else InvalidInput(f"The original cannot be saved: {error}.")
    return style_error(known, "download", style)
