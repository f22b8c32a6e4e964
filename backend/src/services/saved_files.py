"""Saves what a client makes: each picture as soon as it is there, and a workflow's original.

What was paid for is kept: a picture is saved while the others are still being made. When the call is stopped or runs
out of time, downloads may take a moment longer. A picture that the call's journal knows, and that is still there, is
not downloaded again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from services.fal.arguments import is_url, styles
from services.fal.call import LOOK_S, Call, Slots, Task
from services.fal.downloads import EXTENSIONS, MAX_STEM, file_facts, replacing
from services.fal.errors import Cancelled, FalError, InvalidInput
from services.fal.product import style_error
from services.fal.progress import Progress
from services.fal.prompts import DEFAULT_LANGUAGE
from services.fal.redaction import redact

if TYPE_CHECKING:
    from services.fal.journal import Journal
    from services.fal_service import FalClient

PAGE_NAME = "report.html"
KNOWN_SUFFIXES = {*EXTENSIONS.values(), ".jpeg"}
AT_ONCE = 8
"""Downloads side by side."""
SAVE_S = 1.0
"""How much longer than its workflow a download may take: within the grace in which a command ends."""


Page = Callable[[Mapping[str, Any], "Path | None"], str]
"""Makes a page of a document and the original."""


def made_and_saved(
    client: FalClient, method: str, arguments: Mapping[str, Any], folder: str, page: Page | None = None
) -> dict[str, Any]:
    """The document of a method that makes several pictures, each of which is saved into `folder` as it comes."""
    files = SavedFiles(client, folder, arguments, keeps_original=method == "product_workflow")
    try:
        document: dict[str, Any] = dict(getattr(client, method)(**arguments, on_progress=files.on_progress))
    except FalError as error:
        if "images" in error.partial:
            files.finish(error.partial)
        raise
    files.finish(document, page)
    return document


class SavedPicture:
    """The file of a command that makes one picture, and of the cut-out that it was made from."""

    PARTS: Mapping[str, str] = {"remove-background": "cutout"}
    """What its name ends with, when the photo's does not do: the command's own name."""

    def __init__(self, client: FalClient, command: str, arguments: dict[str, Any]) -> None:
        """Takes `save_dir` or `out` out of `arguments`. Raises InvalidInput when the file cannot be written: before any
        money is spent."""
        assert client.call is not None
        self._call = client.call
        # Not a part of the command's call: what is paid for is saved also when that was stopped.
        self._saving = Call(self._call.remaining() + SAVE_S)
        self._client = client
        self._cutout: Task[dict[str, Any]] | None = None
        folder, out = arguments.pop("save_dir", None), arguments.pop("out", None)
        if folder is not None and out is not None:
            raise InvalidInput("Give --save_dir or --out, not both.")
        if out is not None:
            path = Path(out)
            if not path.name or out.endswith(("/", os.sep)) or path.is_dir():
                raise InvalidInput(f"--out must be the path of a file, not {out!a}. For a folder there is --save_dir.")
            self._stem = self._name = _utf8(path.stem if path.suffix.lower() in KNOWN_SUFFIXES else path.name)
            self._folder = _writable("out", str(path.parent))
        else:
            photo = arguments.get("image") or arguments.get("image_url")
            self._stem = _stem(str(photo))[:MAX_STEM]
            self._name = f"{self._stem}-{self.PARTS.get(command, command)}"
            self._folder = _writable("save_dir", folder)

    def of(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The document of the command, whose pictures are saved: the cut-out of a background too, as soon as it is
        made. An error keeps what was made, and where it is."""
        call = Call(
            self._call.timeout_s, parent=self._call, progress=Progress(self._on_event, parent=self._call.progress)
        )
        try:
            document = dict(getattr(self._client.within(call), method)(**arguments))
        except FalError as error:
            if "cutout" not in error.partial:
                raise
            document = error.partial
            with contextlib.suppress(FalError):
                self._tell_cutout(document)
            raise error.but(partial=document) from error
        try:
            image = Task(partial(self._save, document["image"]["url"], self._name))
            self._tell_cutout(document)
            document["image"] = {**document["image"], **self._saved(image)}
        except FalError as error:
            raise error.but(partial=document, request_id=document.get("request_id")) from error
        if self._call.cancelled:
            raise Cancelled("The call was cancelled.", partial=document, request_id=document.get("request_id"))
        return document

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event["step"] == "cutout" and "cutout" in event:
            self._cutout = Task(partial(self._save_cutout, event["cutout"]))

    def _tell_cutout(self, document: dict[str, Any]) -> None:
        if self._cutout is not None:
            document["cutout"] = {**document["cutout"], **self._saved(self._cutout)}

    def _save_cutout(self, image: dict[str, Any]) -> dict[str, Any]:
        facts = self._save(image["url"], f"{self._stem}-cutout")
        # Also in the event's own dict: a command that fails prints what its events told.
        image |= facts
        return facts

    def _save(self, url: str, name: str) -> dict[str, Any]:
        client = self._client.within(self._saving)
        return _with_utf8_paths(file_facts(_kept(client, self._call.journal, url, self._folder, name)))

    def _saved(self, task: Task[dict[str, Any]]) -> dict[str, Any]:
        _await(task, self._call, self._saving)
        return task.result()


class SavedFiles:
    """The files of a command that makes several pictures, in one folder."""

    def __init__(
        self, client: FalClient, folder: str, arguments: Mapping[str, Any], *, keeps_original: bool = True
    ) -> None:
        """For a client that is bound to the command's call. Raises InvalidInput when the folder cannot be written to:
        before any money is spent."""
        assert client.call is not None
        self._workflow = client.call
        # Not a part of the workflow's call, with which it would be stopped at once.
        self._saving = Call(self._workflow.remaining() + SAVE_S)
        self._client = client.within(self._saving)
        self._folder = _writable("save_dir", folder)
        self._arguments = arguments
        self._keeps_original = keeps_original
        self._prefix = (
            "" if keeps_original else f"{_stem(str(arguments.get('image') or arguments.get('image_url')))[:MAX_STEM]}-"
        )
        self._names: list[tuple[str, str] | None] = [
            (row.name, row.description)
            for row in styles(arguments.get("styles"))
            for _ in range(arguments.get("num_images") or 1)
        ]
        self._places = Slots(AT_ONCE)
        self._original: Task[Path | None] | None = None
        self._cutout: Task[dict[str, Any]] | None = None
        self._pictures: list[tuple[dict[str, Any], Task[dict[str, Any]]]] = []

    def on_progress(self, event: Mapping[str, Any]) -> None:
        """Save the original once the workflow has begun, and each picture when it is made."""
        if self._original is None and self._keeps_original:
            self._original = Task(self._save_original)
        if event["step"] == "cutout" and "cutout" in event:
            self._cutout = Task(partial(self._save_cutout, event["cutout"]))
        if event["step"] == "picture" and event["status"] == "done":
            image = event["image"]
            self._pictures.append((image, Task(partial(self._save_image, image, self._name_of(image)))))

    def finish(self, document: dict[str, Any], page: Page | None = None) -> None:
        """Wait for what is still being saved, and tell the paths; what failed is listed in the document's `errors`.

        With `page`, a page of it is saved too. Raises Cancelled, with what was made and saved by then.
        """
        tasks: list[Task[Any]] = [task for _, task in self._pictures]
        tasks += [task for task in (self._original, self._cutout) if task]
        for task in tasks:
            _await(task, self._workflow, self._saving)
        original = self._original.result() if self._original and not _errors(self._original, None) else None
        if self._keeps_original:
            document["original_path"] = None if original is None else str(original)
        errors = _errors(self._original, None) if self._original else []
        if self._cutout and document.get("cutout"):
            if failed := _errors(self._cutout, None):
                errors += failed
            else:
                document["cutout"] = {**document["cutout"], **self._cutout.result()}
        for image in document["images"]:
            task = self._task_of(image)
            if failed := _errors(task, image["style_name"]):
                errors += failed
            else:
                image |= task.result()
        document["errors"] = [*(document["errors"] or []), *errors] or None
        if self._workflow.cancelled:
            raise Cancelled("The call was cancelled.", partial=_with_utf8_paths(document))
        if page is not None:
            self._save_page(document, original, page)
        document.update(_with_utf8_paths(document))

    def _name_of(self, image: dict[str, Any]) -> str:
        place = self._names.index((image["style_name"], image["style_description"]))
        self._names[place] = None  # the next one of this name gets a number of its own
        return f"{self._prefix}{place + 1}-{_plain(image['style_name'])}"

    def _save_original(self) -> Path | None:
        image = str(self._arguments["image"])
        if os.path.isfile(image):
            target = self._folder / f"original{Path(image).suffix.lower()}"
            if not (target.exists() and os.path.samefile(image, target)):
                with replacing(target) as temporary:
                    shutil.copyfile(image, temporary)
            return target
        return self._save(image, "original")

    def _save_image(self, image: dict[str, Any], name: str) -> dict[str, Any]:
        with self._places.one(self._saving):
            facts = file_facts(self._save(image["image_url"], name))
            # Also in the event's own dict: a command that hangs prints what its events told.
            image |= facts
            return facts

    def _save_cutout(self, image: dict[str, Any]) -> dict[str, Any]:
        with self._places.one(self._saving):
            facts = file_facts(self._save(image["url"], f"{self._prefix}cutout"))
            image |= facts
            return facts

    def _task_of(self, image: Mapping[str, Any]) -> Task[dict[str, Any]]:
        """What saves a picture of the document, which is a copy of the one in the event when the workflow failed."""
        facts = ("style_name", "style_description", "image_url")
        for place, (told, task) in enumerate(self._pictures):
            if all(redact(told[fact]) == redact(image[fact]) for fact in facts):
                del self._pictures[place]
                return task
        raise KeyError(image["style_name"])

    def _save(self, url: str, name: str) -> Path:
        return _kept(self._client, self._workflow.journal, url, self._folder, name)

    def _save_page(self, document: dict[str, Any], original: Path | None, page: Page) -> None:
        path = self._folder / PAGE_NAME
        shown = {**document, "language": self._arguments.get("language", DEFAULT_LANGUAGE)}
        document["report_path"] = None
        try:
            with replacing(path) as temporary:
                Path(temporary).write_text(page(shown, original), encoding="utf-8")
            document["report_path"] = str(path)
        except OSError as error:
            document["errors"] = [*(document["errors"] or []), _error(error, "report", None)]


def _kept(client: FalClient, journal: Journal | None, url: str, folder: Path, name: str) -> Path:
    """The file of a picture: the one that the journal knows, else it is downloaded."""
    if journal is not None and (path := journal.saved_picture(url, folder, name)) is not None:
        return path
    assert client.call is not None
    path = client.save_picture(url, folder, name, timeout=client.call.timeout_s)
    if journal is not None:
        journal.picture_saved(url, path, name)
    return path


def _await(task: Task[Any], call: Call, saving: Call) -> None:
    """Wait for a download within `saving`, which is stopped a moment after its command's `call` was."""
    while not task.wait(LOOK_S):
        if call.cancelled and call.over_at() + SAVE_S <= time.monotonic():
            saving.cancel()


def _writable(option: str, folder: str) -> Path:
    """The folder, made when it is missing. Raises InvalidInput when no file can be written in it."""
    if not folder:
        raise InvalidInput(f"--{option} must be the path of a folder, not empty.")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Permissions do not tell everything (a read-only disk, a folder of the system's): try it.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"--{option} {folder!a} cannot be written to: {reason}.") from error
    return Path(folder)


def _stem(photo: str) -> str:
    """What the files of a photo are named after: its own name without the extension."""
    if photo.strip().lower().startswith("data:"):
        return "picture"
    path = unquote(urlsplit(photo).path) if is_url(photo) else photo
    return _utf8(Path(path).stem) or "picture"


def _plain(name: str) -> str:
    """The name of a style, which may be a sentence, as a short part of a file name."""
    # Lower case leaves a dot of its own of the Turkish İ.
    lower = unicodedata.normalize("NFC", name).lower().replace("\N{COMBINING DOT ABOVE}", "")
    return re.sub(r"[^\w-]+", "-", lower).strip("-")[:80] or "picture"


def _utf8(path: str) -> str:
    """A path as everyone reads it, whatever this process's locale made of its bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


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
    told = {name: _utf8(document[name]) for name in names if document.get(name)}
    images = [_with_utf8_paths(image) for image in document.get("images", ())]
    cutout = {"cutout": _with_utf8_paths(document["cutout"])} if document.get("cutout") else {}
    return {**document, **told, **cutout, **({"images": images} if images else {})}
