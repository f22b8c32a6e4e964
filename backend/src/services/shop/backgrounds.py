"""Backgrounds that a model makes, each held against the product: locked, measured, and made again where that is asked.

Every picture is saved as it comes, before it is looked at: it is paid for. No more pictures are asked for than
`Order.max_pictures`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
from PIL import Image

from services.fal import arguments
from services.fal.arguments import Style
from services.fal.call import Call
from services.fal.errors import Cancelled, FalError, InvalidInput
from services.fal.product import style_error
from services.fal.results import Costs, StyledImage, StyleError
from services.fal_service import FalClient
from services.shop.fidelity import Fidelity, FidelityVerdict, measured
from services.shop.packshot import EXTENSIONS, file_format, opened_cutout, written
from services.shop.picture_file import Pixels, in_srgb, opened
from services.shop.pixel_lock import Lock, locked
from services.shop.places import place_named
from services.shop.product_files import ProductFiles, SavedPicture
from services.shop.source_type import COMPOSITE

Mode = Literal["check", "lock", "retry"]
GRACE_S = 20.0
"""For the download of a picture that is paid for, when the call's own time is over."""
ORDER = ("fail", "warn", "pass")


class BackgroundImage(SavedPicture):
    """The picture of one style, as it can be published."""

    style_name: str
    prompt: str
    """What the picture model was asked for."""
    generated: SavedPicture
    """The picture as the model made it."""
    verdict: FidelityVerdict
    """Whether the product is the same: pass for a locked one."""
    locked: bool
    """Whether the product's original pixels were put back."""
    lock_reason: str | None
    """How, or why not; None when it was not tried."""
    moved_px: list[float] | None
    """How far right and down the model had moved the product, when the lock was tried."""
    fidelity: Fidelity | None
    """The product in the model's picture; None when it is locked."""
    attempts: int
    """Pictures that were paid for this one."""
    digital_source_type: str
    """What the file says of its origin, in IPTC's words."""
    request_id: str | None
    billable_units: float | None


class BackgroundsOnFile(Costs):
    """Of `Shop.backgrounds`."""

    cutout: SavedPicture
    images: list[BackgroundImage]
    """In the order of the styles."""
    paid_pictures: int
    """Pictures that the model made, the cut-out apart."""
    errors: list[StyleError] | None
    """What failed on the way, as in `FalClient.generate_multiple_backgrounds`."""
    timings: dict[str, float]
    """Seconds for `pictures`, for `fidelity`, and in `total`."""


class Order(NamedTuple):
    """What was asked for, checked."""

    categories: dict[str, str]
    styles: list[Style]
    mode: Mode
    max_pictures: int
    source_type: str
    adapt_light: bool
    format: str

    @classmethod
    def of(
        cls,
        categories: Mapping[str, str],
        styles: Any,
        fidelity: object,
        max_pictures: object,
        place: str | None,
        adapt_light: object,
        format: object,
    ) -> Order:
        """Raises InvalidInput for what makes no sense, before anything is paid."""
        wanted = arguments.styles(styles)
        if fidelity not in get_args(Mode):
            raise InvalidInput(f"fidelity must be one of {', '.join(get_args(Mode))}, not {str(fidelity)[:100]!r}.")
        mode = cast("Mode", fidelity)
        most = max_pictures
        if most is None:
            most = len(wanted) * (2 if mode == "retry" else 1)
        if not isinstance(most, int) or isinstance(most, bool) or most < len(wanted):
            raise InvalidInput(
                f"max_pictures must be a whole number, at least one for each of the {len(wanted)} styles, not "
                f"{most!r}. Raise it, or pass fewer styles."
            )
        source_type = COMPOSITE if place is None else place_named(place).digital_source_type
        adapt_light = arguments.flag(adapt_light, "adapt_light")
        known = arguments.categories(categories)
        return cls(known, wanted, mode, most, source_type, adapt_light, file_format(format))


class _Taken(NamedTuple):
    """A picture that the model made, on file."""

    image: StyledImage
    path: Path
    part: str
    """Its name without the product's and `-generated`."""


class Session:
    """One call of `Shop.backgrounds`."""

    def __init__(
        self,
        client: FalClient,
        order: Order,
        files: ProductFiles,
        cutout: SavedPicture,
        cutout_url: str | None,
        save_picture: Callable[..., Path],
    ) -> None:
        """`client` is a view within the one call; `save_picture` is no part of it, and may take longer."""
        self._client = client
        self._order = order
        self._files = files
        self._cutout = cutout
        self._cutout_url = cutout_url
        self._save_picture = save_picture
        self._taken: dict[str, _Taken] = {}
        """By the URL of the picture."""
        self._errors: list[StyleError] = []
        self._paid = 0

    def run(self) -> BackgroundsOnFile:
        began = time.monotonic()
        # A cut-out that cannot be used is told before backgrounds are paid for.
        product = np.asarray(opened_cutout(Path(self._cutout["path"]).read_bytes()))
        url = self._cutout_url or self._client.upload_file(self._cutout["path"])
        made = self._client.generate_multiple_backgrounds(
            url,
            self._order.categories,
            styles=[{"name": style.name, "description": style.description} for style in self._order.styles],
            remove_bg=False,
            on_progress=self._keep,
        )
        self._errors += made["errors"] or []
        # A picture that failed may have been billed too: it counts.
        self._paid = len(made["images"]) + sum(error["stage"] == "picture" for error in self._errors)
        generated = time.monotonic()
        images: list[BackgroundImage] = []
        for image in made["images"]:
            if (taken := self._take(image)) is not None:
                images.append(self._true(self._judged(taken, product), url, product, images))
        ended = time.monotonic()
        timings = {"pictures": generated - began, "fidelity": ended - generated, "total": ended - began}
        return self._result(images, timings)

    def _left(self) -> float:
        assert self._client.call is not None
        return self._client.call.remaining()

    def _result(self, images: list[BackgroundImage], timings: Mapping[str, float]) -> BackgroundsOnFile:
        return {
            "cutout": self._cutout,
            "images": images,
            "paid_pictures": self._paid,
            "errors": self._errors or None,
            "timings": {step: round(seconds, 3) for step, seconds in timings.items()},
        }

    def _keep(self, event: Mapping[str, Any]) -> None:
        """Save a picture the moment it is there: the call may yet be cancelled, or this process killed."""
        if event.get("step") == "picture" and event.get("status") == "done":
            self._save(event["image"])

    def _take(self, image: StyledImage) -> _Taken | None:
        """The picture on file; an error beside the others when it cannot be had."""
        try:
            return self._taken.get(image["image_url"]) or self._save(image)
        except FalError as error:
            self._errors.append(style_error(error, "download", image["style_name"]))
            return None

    def _save(self, image: StyledImage) -> _Taken:
        style = image["style_name"]
        part = self._files.free(style, "-generated")
        path = self._save_picture(
            image["image_url"],
            self._files.folder,
            self._files.named(f"{part}-generated"),
            timeout=max(GRACE_S, self._left()),
        )
        taken = self._taken[image["image_url"]] = _Taken(image, path, part)
        return taken

    def _true(
        self, first: BackgroundImage, url: str, product: Pixels, before: list[BackgroundImage]
    ) -> BackgroundImage:
        """`first`, or the picture that was made in its place because it fails."""
        if self._order.mode != "retry" or first["verdict"] != "fail" or self._paid >= self._order.max_pictures:
            return first
        self._paid += 1
        try:
            # The model draws another seed by itself; a seed of one's own would be one more argument here.
            call = Call(self._client.timeout, parent=self._client.call, part=f"again:{first['style_name']}")
            again = self._client.within(call).background_replace(url, prompt=first["prompt"], remove_bg=False)
        except Cancelled as error:
            result = self._result([*before, first], {})
            raise Cancelled("The call was cancelled.", partial={**result}) from error
        except FalError as error:
            self._errors.append(style_error(error, "picture", first["style_name"]))
            return first
        image = again["image"]
        styled: dict[str, Any] = {
            "style_name": first["style_name"],
            "image_url": image["url"],
            "prompt": first["prompt"],
            "request_id": again.get("request_id"),
            "billable_units": again.get("billable_units"),
        }
        taken = self._take(cast("StyledImage", styled))
        first["attempts"] = 2
        if taken is None:
            return first
        second = self._judged(taken, product)
        second["attempts"] = 2
        return max(first, second, key=_quality)

    def _judged(self, taken: _Taken, product: Pixels) -> BackgroundImage:
        picture = opened(taken.path.read_bytes())
        pixels = np.asarray(in_srgb(picture.convert("RGB"), picture.info.get("icc_profile")))
        lock: Lock | None = None
        if self._order.mode != "check":
            lock = locked(product, pixels, adapt_light=self._order.adapt_light)
        fidelity = None if lock and lock.pixels is not None else measured(product, pixels, lock.found if lock else None)
        publish = pixels if lock is None or lock.pixels is None else lock.pixels
        data = written(Image.fromarray(publish, "RGB"), self._order.format, source_type=self._order.source_type)
        return {
            **self._files.write(data, taken.part, EXTENSIONS[self._order.format]),
            "style_name": taken.image["style_name"],
            "prompt": taken.image["prompt"],
            "generated": self._files.take(taken.path),
            "verdict": "pass" if fidelity is None else fidelity["verdict"],
            "locked": fidelity is None,
            "lock_reason": None if lock is None else lock.reason,
            "moved_px": None if lock is None or lock.moved_px is None else [round(way, 2) for way in lock.moved_px],
            "fidelity": fidelity,
            "attempts": 1,
            "digital_source_type": self._order.source_type,
            "request_id": taken.image.get("request_id"),
            "billable_units": taken.image.get("billable_units"),
        }


def _quality(image: BackgroundImage) -> tuple[int, float]:
    fidelity = image["fidelity"]
    return ORDER.index(image["verdict"]), 1.0 if fidelity is None else fidelity["score"]
