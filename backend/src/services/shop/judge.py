"""Compares a model's pictures with the product: locks them, measures them, and on request makes one once more.

The pictures are on file before they come here: they are paid for. A picture that cannot be judged, or not in time, is
told as `not_checked`, with the reason among the errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, cast, get_args

import numpy as np
from PIL import Image

from services.fal import arguments
from services.fal.arguments import MAX_SEED
from services.fal.call import Call, side_by_side
from services.fal.downloads import PaidDownloads
from services.fal.endpoints import chain_for
from services.fal.errors import FalError, InvalidInput
from services.fal.product import style_error
from services.fal.results import StyleError
from services.fal_service import FalClient
from services.shop.fidelity import Fidelity, measured
from services.shop.packshot import EXTENSIONS, file_format, opened_cutout, written
from services.shop.picture_file import Pixels, in_srgb, opened
from services.shop.pixel_lock import Lock, locked
from services.shop.places import place_named
from services.shop.product_files import SavedPicture, picture_facts, write_picture
from services.shop.source_type import COMPOSITE

Mode = Literal["check", "lock", "retry"]
Judgement = Literal["pass", "warn", "fail", "not_checked"]
ORDER = ("not_checked", "fail", "warn", "pass")


class Likeness(TypedDict, total=False):
    """A picture that a model made, compared with the product."""

    generated: SavedPicture | None
    """The picture as the model made it; None when it could not be saved."""
    verdict: Judgement
    """Whether the product is the same: pass for a locked one; not_checked when it could not be judged."""
    locked: bool
    """Whether the product's original pixels were put back."""
    lock_reason: str | None
    """How, or why not; None when it was not tried."""
    moved_px: list[float] | None
    """How far right and down the model had moved the product, when the lock was tried."""
    fidelity: Fidelity | None
    """The product in the model's picture; None when it is locked."""


class RejectedPicture(Likeness):
    """The worse of two pictures that were paid for."""

    image_url: str
    """Where fal keeps it."""
    seed: int | None
    """What it was made with, as far as it is known."""
    request_id: str | None
    """fal's id of the job that made it."""
    billable_units: float | None
    """fal's own count of what is billed for it."""
    cost_usd: float | None
    """US dollars for this picture alone."""


class JudgedPicture(Likeness, total=False):
    """Of a picture that can be published."""

    attempts: int
    """Pictures that were paid for this one."""
    rejected: RejectedPicture | None
    """The worse one, when two were paid for."""
    digital_source_type: str | None
    """What the file says of its origin, in IPTC's words."""


class Standard(NamedTuple):
    """What pictures are held to, checked."""

    mode: Mode
    source_type: str = COMPOSITE
    adapt_light: bool = False
    format: str = "JPEG"

    @classmethod
    def of(cls, fidelity: object, place: str | None, adapt_light: object = False, format: object = "JPEG") -> Standard:
        """Raises InvalidInput for what makes no sense, before anything is paid."""
        if fidelity not in get_args(Mode):
            raise InvalidInput(f"fidelity must be one of {', '.join(get_args(Mode))}, not {str(fidelity)[:100]!r}.")
        source_type = COMPOSITE if place is None else place_named(place).digital_source_type
        light = arguments.flag(adapt_light, "adapt_light")
        return cls(cast("Mode", fidelity), source_type, light, file_format(format))


class Product(NamedTuple):
    """What pictures are compared with."""

    pixels: Pixels
    """RGBA."""
    url: str
    """Of the cut-out, at fal."""

    @classmethod
    def of(cls, cutout: str, url: str) -> Product:
        """Raises InvalidInput when the file `cutout` is no cut-out."""
        return cls(np.asarray(opened_cutout(Path(cutout).read_bytes())), url)


class Taken(NamedTuple):
    """A picture that the model made."""

    image: Mapping[str, Any]
    """What is told of it: `image_url`, and `style_name`, `seed`, `request_id`, `billable_units` as far as known."""
    path: Path | None
    """Its file; None when it could not be saved."""
    target: Path
    """Where the picture that can be published goes, without an extension."""
    asked: Mapping[str, Any]
    """How another one is asked for: arguments of `background_replace`."""

    @property
    def style(self) -> str | None:
        return self.image.get("style_name")


class _Outcome(NamedTuple):
    taken: Taken
    likeness: Likeness
    published: SavedPicture | None = None

    @property
    def quality(self) -> tuple[int, float]:
        fidelity = self.likeness["fidelity"]
        return ORDER.index(self.likeness["verdict"]), 1.0 if fidelity is None else fidelity["score"]


class Judge:
    """Judges the pictures that were made of one product in one call."""

    def __init__(
        self, client: FalClient, call: Call, downloads: PaidDownloads, standard: Standard, product: Product
    ) -> None:
        self._client = client
        self._call = call
        self._downloads = downloads
        self._standard = standard
        self._product = product
        self.errors: list[StyleError] = []
        """What failed on the way."""
        self.asked_again = 0
        """Pictures that were asked for in place of others."""

    def judged(self, pictures: Sequence[Taken]) -> list[dict[str, Any]]:
        """What is told of each picture: what is known of it, the file that can be published, and a JudgedPicture.

        When the call is over before all are judged, the others are `not_checked`.
        """
        outcomes = [self._outcome(taken) for taken in pictures]
        rejected: dict[int, _Outcome] = {}
        if self._standard.mode == "retry":
            failed = [place for place, one in enumerate(outcomes) if one.likeness["verdict"] == "fail"]
            for place, again in zip(failed, self._made_again([pictures[at] for at in failed]), strict=True):
                if again is not None:
                    first, second = outcomes[place], self._outcome(again, outcomes[place])
                    outcomes[place], rejected[place] = (
                        (second, first) if second.quality > first.quality else (first, second)
                    )
        return [self._told(one, rejected.get(place)) for place, one in enumerate(outcomes)]

    def _made_again(self, failed: Sequence[Taken]) -> list[Taken | None]:
        """Another picture in place of each, side by side; None where there is none."""
        self.asked_again = len(failed)
        with side_by_side(self._call) as tasks:
            started = [tasks.start(partial(self._again, tasks.call, taken)) for taken in failed]
        seconds: list[Taken | None] = []
        for taken, task in zip(failed, started, strict=True):
            try:
                seconds.append(task.result())
            except FalError as error:
                # The first picture is paid and there: it is kept.
                self.errors.append(style_error(error, "picture", taken.style))
                seconds.append(None)
        return seconds

    def _again(self, call: Call, taken: Taken) -> Taken:
        assert taken.path is not None
        asked = {**taken.asked, **self._another_seed(taken)}
        part = Call(call.timeout_s, parent=call, part=f"again:{taken.path.stem}")
        made = self._client.within(part).background_replace(self._product.url, remove_bg=False, **asked)
        url, folder, name = made["image"]["url"], taken.path.parent, f"{taken.path.stem}-2"
        known = {"image_url": url, "seed": asked.get("seed")}
        known |= {key: made.get(key) for key in ("request_id", "billable_units", "cost_usd")}
        again = taken._replace(image={**taken.image, **known}, path=None)
        saving = self._client.within(self._downloads.call)
        try:
            save = partial(saving.save_picture, url, folder, name, timeout=self._downloads.call.timeout_s)
            task = self._downloads.start(save)
            return again._replace(path=self._downloads.result(task))
        except FalError as error:
            self.errors.append(style_error(error, "download", taken.style))
            return again

    def _another_seed(self, taken: Taken) -> dict[str, int]:
        """A seed of its own where the endpoint takes one: Bria's has a fixed default, which gives the same picture.

        It follows from the picture: a call that is resumed asks for the same again.
        """
        options = chain_for("photokit", self._client.settings.endpoints.get("photokit"))[0].options
        seed = int(hashlib.sha256(str(taken.image["image_url"]).encode()).hexdigest()[:8], 16) & MAX_SEED
        return {"seed": seed} if options is None or "seed" in options else {}

    def _outcome(self, taken: Taken, before: _Outcome | None = None) -> _Outcome:
        """`taken`, judged, and written as it can be published unless the one `before` is as good."""
        try:
            if taken.path is not None:
                self._call.check()
                return self._compared(taken, taken.path, before)
        except FalError as error:
            self.errors.append(style_error(error, "fidelity", taken.style))
        generated = None if taken.path is None else picture_facts(taken.path)
        likeness: Likeness = {
            "generated": generated,
            "verdict": "not_checked",
            "locked": False,
            "lock_reason": None,
            "moved_px": None,
            "fidelity": None,
        }
        return _Outcome(taken, likeness, generated)

    def _compared(self, taken: Taken, path: Path, before: _Outcome | None) -> _Outcome:
        standard, product = self._standard, self._product.pixels
        picture = opened(path.read_bytes())
        pixels = np.asarray(in_srgb(picture.convert("RGB"), picture.info.get("icc_profile")))
        lock: Lock | None = None
        if standard.mode != "check":
            lock = locked(product, pixels, adapt_light=standard.adapt_light)
        fidelity = None if lock and lock.pixels is not None else measured(product, pixels, lock.found if lock else None)
        moved = None if lock is None else lock.moved_px
        likeness: Likeness = {
            "generated": picture_facts(path),
            "verdict": "pass" if fidelity is None else fidelity["verdict"],
            "locked": fidelity is None,
            "lock_reason": None if lock is None else lock.reason,
            "moved_px": None if moved is None else [round(way, 2) + 0.0 for way in moved],  # never -0.0
            "fidelity": fidelity,
        }
        outcome = _Outcome(taken, likeness)
        if before is not None and outcome.quality <= before.quality:
            return outcome
        publish = pixels if lock is None or lock.pixels is None else lock.pixels
        data = written(Image.fromarray(publish, "RGB"), standard.format, source_type=standard.source_type)
        target = taken.target.with_name(f"{taken.target.name}.{EXTENSIONS[standard.format]}")
        return outcome._replace(published=write_picture(target, data))

    def _told(self, one: _Outcome, rejected: _Outcome | None) -> dict[str, Any]:
        is_judged = one.likeness["verdict"] != "not_checked"
        judged: JudgedPicture = {
            **one.likeness,
            "attempts": 1 if rejected is None else 2,
            "rejected": None if rejected is None else _rejected(rejected),
            "digital_source_type": self._standard.source_type if is_judged else None,
        }
        return {**one.taken.image, **(one.published or {}), **judged}


def _rejected(one: _Outcome) -> RejectedPicture:
    return {
        **one.likeness,
        "image_url": one.taken.image["image_url"],
        "seed": one.taken.image.get("seed"),
        "request_id": one.taken.image.get("request_id"),
        "billable_units": one.taken.image.get("billable_units"),
        "cost_usd": one.taken.image.get("cost_usd"),
    }
