"""What picture commands do on request with saved pictures: compare them with the product, check them against the rules
of places, and make packshots and a listing.

Nothing here fails a command whose pictures are there: failures are listed in the document's `errors`, since the
pictures are paid for.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.arguments import is_url
from services.fal.downloads import PaidDownloads
from services.fal.errors import BadOutput, Cancelled, FalError, InvalidInput
from services.fal.product import style_error
from services.fal.prompts import DEFAULT_LANGUAGE
from services.saved_files import OF_VARIANTS, pictures_of
from services.shop.languages import language_named, languages_named
from services.shop.places import places_named
from services.shop.shop import Shop, checks_of, require_cutout, require_image_extra

if TYPE_CHECKING:
    from services.fal_service import FalClient
    from services.shop.judge import Standard, Taken

Document = dict[str, Any]
GENERATED = "-generated"
"""Ends the name of a picture as the model made it, where another one is published."""
STEPS = ("fidelity", "check", "packshot", "listing")
"""What takes time beside the pictures themselves."""
TEXT_OPTIONS = ("tone", "length", "facts")
"""Options of a description that a listing has too."""
SAME_AGAIN = (
    *("prompt", "ref_image_url", "negative_prompt", "aspect_ratio", "resolution", "image_size"),
    *("original_quality", "placement"),
)
"""Options with which another picture is asked for: all of a picture's but its seed and the number of variants."""


class Wishes(NamedTuple):
    """What is wanted of the pictures, by the names of the options."""

    places: str | None = None
    check: bool | None = None
    fidelity: str | None = None
    packshot: bool | None = None
    listing: bool | None = None


class Publishing:
    """What is done with the pictures of one command."""

    def __init__(self, client: FalClient, arguments: Mapping[str, Any], wishes: Wishes) -> None:
        """For a client that is bound to the command's call. Raises InvalidInput before any money is spent."""
        assert client.call is not None
        self._client = client
        self._call = client.call
        self._arguments = dict(arguments)
        self._wishes = wishes
        self._places = places_named(wishes.places)
        self._standard: Standard | None = None
        if wishes.check and not self._places:
            raise InvalidInput("--for must name at least one place whose rules --check applies.")
        if wishes.check or wishes.packshot or wishes.fidelity:
            self._require_files()
            require_image_extra()
        if wishes.packshot or wishes.fidelity:
            self._require_cutout()
        if wishes.fidelity:
            from services.shop.judge import Standard

            self._standard = Standard.of(wishes.fidelity, self._places[0].name if self._places else None)
        if wishes.listing:
            languages_named(self._language)

    @property
    def jobs(self) -> dict[str, int]:
        """The jobs that it is sure to submit, by role."""
        return {"text": 1} if self._wishes.listing else {}

    @property
    def ending(self) -> str:
        """Ends the names of the pictures as the model made them."""
        return "" if self._standard is None else GENERATED

    def add(self, document: Document, downloads: PaidDownloads | None = None) -> None:
        """Do what is wanted, and tell it in `document`. Raises Cancelled, with all that is there."""
        errors: list[Any] = [*(document.get("errors") or ()), *self._hold(document, downloads)]
        if self._wishes.packshot:
            document["packshots"] = []
            errors += self._tried("packshot", None, self._step("packshot", partial(self._add_packshots, document)))
        if self._wishes.listing:
            document["listing"] = {"listings": [], "asks": []}
            errors += self._tried("listing", None, self._step("listing", partial(self._add_listing, document)))
        if self._arguments.get("facts") and document.get("description"):
            errors += self._tried("description", None, lambda: self._check_facts(document))
        document["errors"] = errors or None
        took = self._call.progress.total()
        document["timings"] |= {step: took[step] for step in (*STEPS, "total") if step in took}
        document |= self._call.costs.told() if "costs" in document else {"cost_usd": self._call.costs.total()}
        if self._call.cancelled:
            raise Cancelled("The call was cancelled.", partial=document, request_id=document.get("request_id"))

    def _hold(self, document: Document, downloads: PaidDownloads | None) -> list[Any]:
        """Hold the pictures against the product and the rules of places; what failed of that."""
        errors: list[Any] = []
        pictures = pictures_of(document)
        saved = [picture for picture in pictures if picture.get("path")]
        if self._standard is not None and downloads is not None:
            if "images" not in document:
                pictures[0] |= {**_of_picture(document), **pictures[0]}
            judge = partial(self._judge, self._standard, document.get("cutout") or {}, saved, downloads)
            errors += self._call.progress.step("fidelity", judge)
        if self._wishes.check:
            errors += self._call.progress.step("check", partial(self._check_all, saved))
        if "image" in document:
            document["request_id"] = pictures[0].get("request_id", document.get("request_id"))
            left_out = OF_VARIANTS if len(pictures) > 1 else ()
            document["image"] = {name: value for name, value in pictures[0].items() if name not in left_out}
        return errors

    @property
    def _language(self) -> str:
        return str(self._arguments.get("language", DEFAULT_LANGUAGE))

    def _require_files(self) -> None:
        if self._arguments.get("save_dir") is None and self._arguments.get("out") is None:
            name = next(name for name in ("check", "fidelity", "packshot") if getattr(self._wishes, name))
            raise InvalidInput(f"--{name} needs the pictures as files. Name a folder with --save_dir.")

    def _require_cutout(self) -> None:
        cutout = self._arguments.get("cutout")
        if cutout is None and self._arguments.get("remove_bg") is False:
            raise InvalidInput("--fidelity needs the product's cut-out: omit --remove_bg, or name one with --cutout.")
        if cutout is not None and not is_url(cutout):
            require_cutout(cutout)

    def _tried(self, stage: str, style: str | None, action: Callable[[], None]) -> list[Any]:
        """What kept `action` from its end: one error, or none."""
        try:
            self._call.check()
            action()
        except FalError as error:
            return [style_error(error, stage, style)]
        return []

    def _step(self, name: str, action: Callable[[], None]) -> Callable[[], None]:
        """`action` as a step that the command's progress tells."""
        return lambda: self._call.progress.step(name, action)

    def _judge(
        self, standard: Standard, cutout: Mapping[str, Any], pictures: list[Document], downloads: PaidDownloads
    ) -> list[Any]:
        from services.shop.judge import Judge, Product

        if "path" not in cutout:
            missing = InvalidInput("The product's cut-out is missing, so no picture was compared with it.")
            return [style_error(missing, "fidelity", None)]
        try:
            product = Product.of(cutout["path"], cutout["url"])
        except FalError as error:
            return [style_error(error, "fidelity", None)]
        judge = Judge(self._client, self._call, downloads, standard, product)
        told = judge.judged([self._taken(picture) for picture in pictures])
        for picture, one in zip(pictures, told, strict=True):
            if "style_name" not in picture:
                one["url"] = one.pop("image_url")
            picture |= one
        return judge.errors

    def _taken(self, picture: Document) -> Taken:
        from services.shop.judge import Taken

        path = Path(picture["path"])
        asked = {name: self._arguments[name] for name in SAME_AGAIN if name in self._arguments}
        asked |= {"prompt": picture["prompt"]} if "prompt" in picture else {}
        target = path.with_name(path.stem.removesuffix(GENERATED))
        return Taken({"image_url": picture.get("url"), **picture}, path, target, asked)

    def _check_all(self, pictures: list[Document]) -> list[Any]:
        errors: list[Any] = []
        for picture in pictures:
            errors += self._tried("check", picture.get("style_name"), partial(self._check, picture))
        return errors

    def _check(self, picture: Document) -> None:
        picture["checks"] = checks_of(picture["path"], self._places)

    def _add_packshots(self, document: Document) -> None:
        cutout = (document.get("cutout") or {}).get("path")
        if cutout is None:
            raise InvalidInput("The product was not cut out, so there is no packshot of it.")
        image, folder = self._arguments["image"], self._arguments["save_dir"]
        try:
            made = Shop().packshot(image, folder, cutout=cutout, places=self._wishes.places, check=True)
            document["packshots"] = made["images"]
        except FalError as error:
            document["packshots"] = error.partial.get("images", [])
            raise

    def _add_listing(self, document: Document) -> None:
        texts = {name: self._arguments[name] for name in TEXT_OPTIONS if name in self._arguments}
        made: Mapping[str, Any] = {}
        try:
            made = Shop(self._client).listing(
                document["categories"], places=self._wishes.places, languages=[self._language], **texts
            )
        except FalError as error:
            made = error.partial
            raise
        finally:
            document["listing"] = {"listings": made.get("listings", []), "asks": made.get("asks", [])}

    def _check_facts(self, document: Document) -> None:
        """Raises BadOutput when the description names numbers, materials or brands that nobody gave."""
        from services.shop.fact_check import invented

        known = {"categories": document["categories"], "facts": self._arguments["facts"]}
        language = language_named(self._language)
        if found := invented(document["description"], known, language, datetime.date.today()):
            raise BadOutput(f"The description states facts that were not given. {' '.join(found)}")


def _of_picture(document: Document) -> Document:
    """What the document of a command that makes one picture tells of that alone."""
    costs = [row["cost_usd"] for row in document.get("costs") or () if row["step"] == "picture"]
    told: Document = {name: document[name] for name in ("request_id", "billable_units") if name in document}
    return {**told, **({"cost_usd": costs[0]} if len(costs) == 1 else {})}
