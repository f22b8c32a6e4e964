"""Saves results: each picture as soon as it is made, and a workflow's original photo.

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
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from services.fal.arguments import is_url, styles
from services.fal.call import Call, Task
from services.fal.downloads import EXTENSIONS, MAX_STEM, PaidDownloads, file_facts, replacing
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
PATHS = ("path", "original_path", "report_path")
"""Keys of a document that hold paths."""
OF_VARIANTS = ("request_id", "seed")
"""Keys that a picture has as one of several."""
T = TypeVar("T")
Saving = tuple[dict[str, Any], Task[dict[str, Any]]]
"""A picture of a document, and what saves it and tells its file."""


Page = Callable[[Mapping[str, Any], "Path | None"], str]
"""Makes a page of a document and the original."""


def made_and_saved(
    client: FalClient,
    method: str,
    arguments: Mapping[str, Any],
    folder: str,
    page: Page | None = None,
    *,
    ending: str = "",
    then: Callable[[dict[str, Any], PaidDownloads], None] | None = None,
) -> dict[str, Any]:
    """The document of a method that makes several pictures, each of which is saved into `folder` as it comes.

    `ending` is added to their names, and `then` goes on with the document before the page is made.
    """
    files = SavedFiles(client, folder, arguments, keeps_original=method == "product_workflow", ending=ending)
    with readable_paths() as readable:
        document = files.of(getattr(client, method), arguments)
        if then is not None:
            then(document, files.downloads)
        if page is not None:
            files.save_page(document, page)
        return readable(document)


class SavedPicture:
    """The files of a command that makes one picture, or variants of one, and of the cut-out that it was made from."""

    PARTS: Mapping[str, str] = {"remove-background": "cutout"}
    """What its name ends with, when the photo's does not do: the command's own name."""

    def __init__(self, client: FalClient, command: str, arguments: dict[str, Any], *, ending: str = "") -> None:
        """Takes `save_dir` or `out` out of `arguments`; `ending` is added to the pictures' names.

        Raises InvalidInput when the file cannot be written: before any money is spent.
        """
        assert client.call is not None
        self._call = client.call
        self.downloads = PaidDownloads(client.call)
        self._client = client
        self._cutout: Task[dict[str, Any]] | None = None
        folder, out = arguments.pop("save_dir", None), arguments.pop("out", None)
        if folder is not None and out is not None:
            raise InvalidInput("Give --save_dir or --out, not both.")
        if out is not None:
            path = Path(out)
            if not path.name or out.endswith(("/", os.sep)) or path.is_dir():
                raise InvalidInput(f"--out must be the path of a file, not {out!r}. For a folder use --save_dir.")
            self._stem = name = _utf8(path.stem if path.suffix.lower() in KNOWN_SUFFIXES else path.name)
            self._folder = _writable("out", str(path.parent))
        else:
            self._stem = _stem_of(arguments)
            name = f"{self._stem}-{self.PARTS.get(command, command)}"
            self._folder = _writable("save_dir", folder)
        self._name, self._ending = name, ending
        self._given = arguments.get("cutout")

    def of(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The document of the command, whose pictures are saved: the cut-out of a background too, as soon as it is
        made. An error keeps what was made, and where it is."""
        call = Call(
            self._call.timeout_s, parent=self._call, progress=Progress(self._on_event, parent=self._call.progress)
        )
        try:
            document = dict(getattr(self._client.within(call), method)(**arguments))
        except FalError as error:
            document = {**error.partial}
            with contextlib.suppress(FalError):
                self._tell(document)
            raise error.but(partial=document) from error
        try:
            self._tell(document)
        except FalError as error:
            raise error.but(partial=document, request_id=document.get("request_id")) from error
        if self._call.cancelled:
            raise Cancelled("The call was cancelled.", partial=document, request_id=document.get("request_id"))
        return document

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event["step"] == "cutout" and "cutout" in event:
            self._cutout = self.downloads.start(partial(self._save_cutout, event["cutout"]))

    def _tell(self, document: dict[str, Any]) -> None:
        """Save the pictures of `document`, and tell where they are. Raises the first error, when all is done."""
        started = [*self._cutout_of(document), *self._pictures_of(document)]
        first: FalError | None = None
        for picture, task in started:
            try:
                facts = self.downloads.result(task)
                picture |= facts
            except FalError as error:
                first = first or error
        if images := document.get("images"):
            document["image"] = {name: value for name, value in images[0].items() if name not in OF_VARIANTS}
        if first is not None:
            raise first

    def _cutout_of(self, document: dict[str, Any]) -> Iterator[Saving]:
        if document.get("cutout"):
            document["cutout"] = {**document["cutout"]}
            task = self._cutout if self._given is None else self.downloads.start(self._take_cutout)
            if task is not None:
                yield document["cutout"], task

    def _pictures_of(self, document: dict[str, Any]) -> Iterator[Saving]:
        pictures = pictures_of(document)
        for number, picture in enumerate(pictures, start=1):
            name = self._name if number == 1 else f"{self._name}-{number}"
            save = partial(self._save, picture["url"], f"{name}{self._ending}")
            yield picture, self.downloads.start(save)

    def _save_cutout(self, image: dict[str, Any]) -> dict[str, Any]:
        facts = self._save(image["url"], f"{self._stem}-cutout")
        # Also in the event's own dict: a command that fails prints what its events told.
        image |= facts
        return facts

    def _take_cutout(self) -> dict[str, Any]:
        return file_facts(_taken(str(self._given), self._folder, f"{self._stem}-cutout", self._download))

    def _save(self, url: str, name: str) -> dict[str, Any]:
        return file_facts(self._download(url, name))

    def _download(self, url: str, name: str) -> Path:
        return _kept(self._client.within(self.downloads.call), self._call.journal, url, self._folder, name)


class SavedFiles:
    """The files of a command that makes several pictures, in one folder."""

    def __init__(
        self,
        client: FalClient,
        folder: str,
        arguments: Mapping[str, Any],
        *,
        keeps_original: bool = True,
        ending: str = "",
    ) -> None:
        """For a client that is bound to the command's call; `ending` is added to the pictures' names.

        Raises InvalidInput when the folder cannot be written to: before any money is spent.
        """
        assert client.call is not None
        self._call = client.call
        self.downloads = PaidDownloads(client.call)
        self._client = client.within(self.downloads.call)
        self._folder = _writable("save_dir", folder)
        self._arguments = arguments
        self._keeps_original = keeps_original
        self._ending = ending
        self._prefix = "" if keeps_original else f"{_stem_of(arguments)}-"
        self._names: list[tuple[str, str] | None] = [
            (row.name, row.description)
            for row in styles(arguments.get("styles"))
            for _ in range(arguments.get("num_images") or 1)
        ]
        self._original: Task[Path] | None = None
        self._cutout: Task[dict[str, Any]] | None = None
        self._pictures: list[tuple[dict[str, Any], Task[dict[str, Any]]]] = []

    def of(self, method: Callable[..., Mapping[str, Any]], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The document of the command, whose pictures are saved. An error keeps what was made, and where it is."""
        try:
            document = dict(method(**arguments, on_progress=self._on_progress))
        except FalError as error:
            if "images" in error.partial:
                self._finish(error.partial)
            raise
        self._finish(document)
        return document

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        """Save the original once the workflow has begun, and each picture when it is made."""
        if self._original is None and self._keeps_original:
            self._original = Task(partial(self._take, str(self._arguments["image"]), "original"))
        if event["step"] == "cutout" and "cutout" in event:
            self._cutout = self.downloads.start(partial(self._save_cutout, event["cutout"]))
        if event["step"] == "picture" and event["status"] == "done":
            image = event["image"]
            save = partial(self._save_image, image, self._name_of(image))
            self._pictures.append((image, self.downloads.start(save)))

    def _finish(self, document: dict[str, Any]) -> None:
        """Wait for what is still being saved, and tell the paths; what failed is listed in the document's `errors`.

        With `page`, a page of it is saved too. Raises Cancelled, with what was made and saved by then.
        """
        errors: list[Any] = []
        if self._keeps_original:
            original = self._saved(self._original, "original", None, errors)
            document["original_path"] = None if original is None else str(original)
        if (given := self._arguments.get("cutout")) is not None:
            self._cutout = Task(lambda: file_facts(self._take(str(given), f"{self._prefix}cutout")))
        if document.get("cutout"):
            facts = self._saved(self._cutout, "download", None, errors)
            document["cutout"] = {**document["cutout"], **(facts or {})}
        for image in document["images"]:
            if (facts := self._saved(self._task_of(image), "download", image["style_name"], errors)) is not None:
                image |= facts
        document["errors"] = [*(document["errors"] or []), *errors] or None
        if self._call.cancelled:
            raise Cancelled("The call was cancelled.", partial=document)

    def save_page(self, document: dict[str, Any], page: Page) -> None:
        """Write the page of `document`, which is whole."""
        path = self._folder / PAGE_NAME
        original = document.get("original_path")
        shown = {**document, "language": self._arguments.get("language", DEFAULT_LANGUAGE)}
        document["report_path"] = None
        try:
            with replacing(path) as temporary:
                Path(temporary).write_text(page(shown, None if original is None else Path(original)), encoding="utf-8")
            document["report_path"] = str(path)
        except OSError as error:
            document["errors"] = [*(document["errors"] or []), _error(error, "report", None)]

    def _saved(self, task: Task[T] | None, stage: str, style: str | None, errors: list[Any]) -> T | None:
        """What a task made; what kept it from that is added to `errors`."""
        try:
            return None if task is None else self.downloads.result(task)
        except (FalError, OSError) as error:
            errors.append(_error(error, stage, style))
            return None

    def _name_of(self, image: dict[str, Any]) -> str:
        place = self._names.index((image["style_name"], image["style_description"]))
        self._names[place] = None  # the next one of this name gets a number of its own
        return f"{self._prefix}{place + 1}-{_plain(image['style_name'])}{self._ending}"

    def _save_image(self, image: dict[str, Any], name: str) -> dict[str, Any]:
        return self._in_step(lambda: self._download(image["image_url"], name), image, "image", image["style_name"])

    def _save_cutout(self, image: dict[str, Any]) -> dict[str, Any]:
        return self._in_step(lambda: self._download(image["url"], f"{self._prefix}cutout"), image, "cutout")

    def _in_step(
        self, download: Callable[[], Path], picture: dict[str, Any], name: str, style: str | None = None
    ) -> dict[str, Any]:
        """What is known of a picture's file, which is told as the step `download`."""

        def made(facts: dict[str, Any]) -> dict[str, Any]:
            # Also in the event's own dict: a command that hangs prints what its events told.
            picture.update(facts)
            return {name: _with_utf8_paths(picture)}

        return self._call.progress.step("download", lambda: file_facts(download()), made, style=style)

    def _task_of(self, image: Mapping[str, Any]) -> Task[dict[str, Any]]:
        """What saves a picture of the document, which is a copy of the one in the event when the workflow failed."""
        facts = ("style_name", "style_description", "image_url")
        for place, (told, task) in enumerate(self._pictures):
            if all(redact(told[fact]) == redact(image[fact]) for fact in facts):
                del self._pictures[place]
                return task
        raise KeyError(image["style_name"])

    def _take(self, source: str, name: str) -> Path:
        return _taken(source, self._folder, name, self._download)

    def _download(self, url: str, name: str) -> Path:
        return _kept(self._client, self._call.journal, url, self._folder, name)


def pictures_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The pictures in the document of a command that makes one, or variants of one: copies, which stand in it now."""
    if document.get("images"):
        document["images"] = [{**picture} for picture in document["images"]]
        return list(document["images"])
    if "image" not in document:
        return []
    document["image"] = {**document["image"]}
    return [document["image"]]


def _taken(source: str, folder: Path, name: str, download: Callable[[str, str], Path]) -> Path:
    """A picture of the user's, a path or a URL, in `folder` too."""
    if not os.path.isfile(source):
        return download(source, name)
    target = folder / f"{name}{Path(source).suffix.lower()}"
    if not (target.exists() and os.path.samefile(source, target)):
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    return target


def _kept(client: FalClient, journal: Journal | None, url: str, folder: Path, name: str) -> Path:
    """The file of a picture: the one that the journal knows, else it is downloaded."""
    if journal is not None and (path := journal.saved_picture(url, folder, name)) is not None:
        return path
    assert client.call is not None
    path = client.save_picture(url, folder, name, timeout=client.call.timeout_s)
    if journal is not None:
        journal.picture_saved(url, path, name)
    return path


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
        raise InvalidInput(f"--{option} {folder!r} cannot be written to: {reason}.") from error
    return Path(folder)


def _stem_of(arguments: Mapping[str, Any]) -> str:
    """What the files of a product are named after: its photo's own name without the extension, or its cut-out's."""
    photo = str(next(arguments[name] for name in ("image", "image_url", "cutout") if arguments.get(name)))
    if photo.strip().lower().startswith("data:"):
        return "picture"
    path = unquote(urlsplit(photo).path) if is_url(photo) else photo
    return _utf8(Path(path).stem)[:MAX_STEM] or "picture"


def _plain(name: str) -> str:
    """The name of a style, which may be a sentence, as a short part of a file name."""
    # Lower case leaves a dot of its own of the Turkish İ.
    lower = unicodedata.normalize("NFC", name).lower().replace("\N{COMBINING DOT ABOVE}", "")
    return re.sub(r"[^\w-]+", "-", lower).strip("-")[:80] or "picture"


def _utf8(path: str) -> str:
    """A path as everyone reads it, whatever this process's locale made of its bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def _error(error: Exception, stage: str, style: str | None) -> Any:
    known = error if isinstance(error, FalError) else InvalidInput(f"The file cannot be saved: {error}.")
    return style_error(known, stage, style)


@contextlib.contextmanager
def readable_paths() -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Makes a document, and what an error tells, with paths as everyone reads them, whatever this process's locale made
    of their bytes."""
    try:
        yield _with_utf8_paths
    except FalError as error:
        raise error.but(partial=_with_utf8_paths(error.partial)) from error


def _with_utf8_paths(document: Any) -> Any:
    if isinstance(document, list):
        return [_with_utf8_paths(one) for one in document]
    if not isinstance(document, dict):
        return document
    return {
        key: _utf8(value) if key in PATHS and isinstance(value, str) else _with_utf8_paths(value)
        for key, value in document.items()
    }
