"""Backgrounds that a model makes for a product, one per style, each compared with the product (`judge.py`).

Every picture is saved as it comes, before it is looked at: it is paid for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from services.fal import arguments
from services.fal.arguments import Style
from services.fal.call import Call, Task
from services.fal.downloads import PaidDownloads
from services.fal.errors import Cancelled, FalError
from services.fal.product import style_error
from services.fal.results import Costs, StyledImage, StyleError
from services.fal_service import FalClient
from services.shop.judge import Judge, JudgedPicture, Product, Standard, Taken
from services.shop.product_files import CutoutOnFile, ProductFiles, SavedPicture, picture_facts

GENERATED = "-generated"
"""Ends the name of a picture as the model made it."""


class BackgroundImage(SavedPicture, JudgedPicture):
    """The picture of one style, as it can be published."""

    style_name: str
    image_url: str
    """The picture as the model made it."""
    prompt: str
    """What the picture model was asked for."""
    request_id: str | None
    billable_units: float | None
    cost_usd: float | None
    """US dollars for this picture alone."""


class BackgroundsOnFile(Costs):
    """Of `Shop.backgrounds`."""

    cutout: CutoutOnFile
    images: list[BackgroundImage]
    """In the order of the styles."""
    unsaved: list[StyledImage]
    """Pictures that were made, but could not be saved."""
    paid_pictures: int
    """Pictures that the model was asked for, the cut-out apart."""
    errors: list[StyleError] | None
    """What failed on the way, as in `FalClient.generate_multiple_backgrounds`."""
    timings: dict[str, float]
    """Seconds for `pictures`, for `fidelity`, and in `total`."""


class Order(NamedTuple):
    """What was asked for, checked."""

    categories: dict[str, str]
    styles: list[Style]
    standard: Standard

    @classmethod
    def of(cls, categories: Mapping[str, str], styles: Any, standard: Standard) -> Order:
        """Raises InvalidInput for what makes no sense, before anything is paid."""
        return cls(arguments.categories(categories), arguments.styles(styles), standard)


class _Saved(NamedTuple):
    """A picture that is being saved."""

    target: Path
    """Where the picture that can be published goes, without an extension."""
    file: Task[Path]


class Session:
    """One call of `Shop.backgrounds`."""

    def __init__(
        self, client: FalClient, call: Call, downloads: PaidDownloads, order: Order, files: ProductFiles
    ) -> None:
        """For a client that is bound to `call`."""
        self._client = client
        self._call = call
        self._downloads = downloads
        self._order = order
        self._files = files
        self._saved: dict[str, _Saved] = {}
        """By the URL of the picture."""
        self._errors: list[StyleError] = []

    def run(self, cutout: CutoutOnFile) -> BackgroundsOnFile:
        began = time.monotonic()
        # A cut-out that cannot be used is told before backgrounds are paid for.
        product = Product.of(cutout["path"], cutout["url"] or "")
        if not product.url:
            product = product._replace(url=self._client.upload_file(cutout["path"]))
            cutout["url"] = product.url
        try:
            made = self._client.generate_multiple_backgrounds(
                product.url,
                self._order.categories,
                styles=[style._asdict() for style in self._order.styles],
                remove_bg=False,
                on_progress=self._keep,
            )
        except FalError as error:
            images = [_on_file(one) for one in self._taken(error.partial.get("images") or ())]
            raise error.but(partial={"cutout": cutout, "images": images}) from error
        generated = time.monotonic()
        taken = self._taken(made["images"])
        judge = Judge(self._client, self._call, self._downloads, self._order.standard, product)
        images = judge.judged([one for one in taken if one.path is not None])
        ended = time.monotonic()
        timings = {"pictures": generated - began, "fidelity": ended - generated, "total": ended - began}
        failed = sum(error["stage"] == "picture" for error in made["errors"] or ())
        result: BackgroundsOnFile = {
            "cutout": cutout,
            "images": cast("list[BackgroundImage]", images),
            "unsaved": [cast("StyledImage", one.image) for one in taken if one.path is None],
            # A picture that failed may have been billed too: it counts.
            "paid_pictures": len(taken) + failed + judge.asked_again,
            "errors": [*(made["errors"] or ()), *self._errors, *judge.errors] or None,
            "timings": {step: round(seconds, 3) for step, seconds in timings.items()},
        }
        if self._call.cancelled:
            raise Cancelled("The call was cancelled.", partial={**result})
        return result

    def _keep(self, event: Mapping[str, Any]) -> None:
        """Save a picture the moment it is there: the call may yet be cancelled, or this process killed."""
        if event.get("step") == "picture" and event.get("status") == "done":
            image = event["image"]
            part = self._files.free(image["style_name"], GENERATED)
            save = partial(self._save, image["image_url"], self._files.named(f"{part}{GENERATED}"))
            target = self._files.folder / self._files.named(part)
            self._saved[image["image_url"]] = _Saved(target, self._downloads.start(save))

    def _save(self, url: str, name: str) -> Path:
        saving = self._client.within(self._downloads.call)
        return saving.save_picture(url, self._files.folder, name, timeout=self._downloads.call.timeout_s)

    def _taken(self, images: Sequence[Mapping[str, Any]]) -> list[Taken]:
        """The pictures with their files, as far as they could be saved."""
        return [self._on_disk(image, self._saved[image["image_url"]]) for image in images]

    def _on_disk(self, image: Mapping[str, Any], saved: _Saved) -> Taken:
        taken = Taken(image, None, saved.target, {"prompt": image["prompt"]})
        try:
            return taken._replace(path=self._downloads.result(saved.file))
        except FalError as error:
            self._errors.append(style_error(error, "download", image["style_name"]))
            return taken


def _on_file(taken: Taken) -> dict[str, Any]:
    return {**taken.image, **({} if taken.path is None else picture_facts(taken.path))}
