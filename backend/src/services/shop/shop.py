"""What a shop needs to publish a product, on top of FalClient: packshots, true backgrounds, listings, picture checks.

The client knows nothing of it. What is paid for is kept: cut-outs and backgrounds are saved before anything else is
done with them, and the texts of a listing that failed are in the error's `partial`. Work on pictures needs the extra
`image`, which is imported when it is first used.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from services.fal import arguments
from services.fal.call import Call
from services.fal.downloads import PaidDownloads
from services.fal.errors import FalError, InvalidInput
from services.fal_service import FalClient, Styles
from services.shop.places import Place, place_named, places_named
from services.shop.product_files import CutoutOnFile, ProductFiles, SavedPicture, picture_facts

if TYPE_CHECKING:
    from PIL import Image

    from services.fal.results import AnyCategories, Costs, JobCost, Kept
    from services.shop.backgrounds import BackgroundsOnFile
    from services.shop.listing import ListingResult
    from services.shop.packshot import Layout
    from services.shop.picture_check import PictureCheck
    from services.shop.picture_file import Pixels


class Checked(TypedDict, total=False):
    checks: Kept[list[PictureCheck]]
    """When that was asked for: the picture against the rules of each place."""


class PackshotImage(SavedPicture, Checked):
    place: str | None
    """The marketplace that it was made for."""
    fill: float
    """The part of the frame that the product takes, on the side that it fills more."""
    scale: float
    """The product's size against the cut-out's."""
    enlarged: bool
    """Whether the product was enlarged beyond its own pixels, which costs sharpness."""
    digital_source_type: str | None
    """What the file says of its origin, in IPTC's words: what its sources say, or that its background is generated."""


class PackshotResult(TypedDict):
    """Of `Shop.packshot`."""

    cutout: Kept[CutoutOnFile]
    """The product alone, with a transparent background: what was paid for."""
    images: list[PackshotImage]
    """One per place, in their order."""
    request_id: str | None
    """fal's id of the job that cut the product out; null when a cut-out was given."""
    billable_units: Kept[float | None]
    """fal's own count of what is billed."""
    cost_usd: Kept[float | None]
    """US dollars; null when it cannot be known."""
    costs: Kept[list[JobCost]]
    """Of the cut-out, when it was made just now."""
    timings: dict[str, float]
    """Seconds for `cutout`, `packshots` and `total`."""


class Shop:
    """Pictures and texts that a shop can publish, made with one client."""

    def __init__(self, client: FalClient | None = None) -> None:
        """Without a client there is what needs no key: packshots of cut-outs that are there."""
        self._client = client

    def packshot(
        self,
        image: str | os.PathLike[str],
        directory: str | os.PathLike[str],
        *,
        places: str | Sequence[str] | None = None,
        cutout: str | os.PathLike[str] | None = None,
        background: str = "#FFFFFF",
        size: tuple[int, int] | None = None,
        fill: float | None = None,
        margin: float | None = None,
        format: str | None = None,
        shadow: bool = False,
        check: bool = False,
        name: str | None = None,
        timeout: float | None = None,
    ) -> PackshotResult:
        """The product's own pixels on a plain background, saved into `directory`: one picture per place.

        `image` is a local path or a URL. It is cut out once, whatever the number of `places` ("amazon,trendyol"), or
        not at all with `cutout`, a transparent PNG or WebP that is there already. `background` is a colour or the
        path of a picture; `size` is (width, height) in pixels; `fill` is the part of the frame that the product takes
        on the side that it fills more, 0.05 to 1, and `margin` the part that stays free on each side instead, 0 to
        0.475; `format` is JPEG or PNG. What is not given comes from the place. With `check`, each picture is held
        against its place's rules.

        Files are named after `name`, else after the photo: `{name}-cutout.png`, `{name}-amazon.jpg`. Raises
        InvalidInput before anything is sent, else what `remove_background` raises. What was made and saved before an
        error is in `error.partial`.
        """
        with _image_extra():
            from services.shop.packshot import backdrop, layouts, opened_cutout, product_of
        plan = layouts(places_named(places), size, fill, margin, format)
        behind = backdrop(background)
        shadow, check = arguments.flag(shadow, "shadow"), arguments.flag(check, "check")
        began = time.monotonic()
        if cutout is None:
            with self._bound.one_call(timeout, jobs={"cutout": 1}) as client:
                files = ProductFiles(directory, name, image)
                paid = self._cut_out(client, PaidDownloads(_call_of(client)), image, files)
                spent = _spent(client)
        else:
            files = ProductFiles(directory, name, image)
            paid, spent = _given(files, cutout), {"cost_usd": 0.0, "costs": []}
        cut = time.monotonic()
        made_by = _source_type(image, paid.saved["path"], behind)
        images: list[PackshotImage] = []
        try:
            product = product_of(opened_cutout(Path(paid.saved["path"]).read_bytes()))
            for place, layout in plan:
                images.append(_packshot(product, place, layout, behind, shadow, made_by, check, files))
        except FalError as error:
            made = {"cutout": paid.saved, "images": images, "billable_units": paid.billable_units, **spent}
            raise error.but(partial=made, request_id=paid.request_id) from error
        ended = time.monotonic()
        result: dict[str, Any] = {
            "cutout": paid.saved,
            "images": images,
            "request_id": paid.request_id,
            "billable_units": paid.billable_units,
            **spent,
            "timings": {
                "cutout": round(cut - began, 3),
                "packshots": round(ended - cut, 3),
                "total": round(ended - began, 3),
            },
        }
        return cast("PackshotResult", result)

    def backgrounds(
        self,
        image: str | os.PathLike[str],
        directory: str | os.PathLike[str],
        categories: Mapping[str, str],
        *,
        styles: Styles | None = None,
        fidelity: str = "lock",
        place: str | None = None,
        cutout: str | os.PathLike[str] | None = None,
        adapt_light: bool = False,
        format: str = "JPEG",
        name: str | None = None,
        timeout: float | None = None,
    ) -> BackgroundsOnFile:
        """The product on backgrounds that a model makes, one per style, each compared with the product.

        `image`, `cutout`, `name` and `directory` are as for `packshot`; `categories` and `styles` as for
        `FalClient.generate_multiple_backgrounds`. `fidelity` is

        - "check": each picture is measured against the cut-out, and told as pass, warn or fail;
        - "lock": where the product stands where it stood, its original pixels are put back over it; else as "check";
        - "retry": as "lock", and a picture that fails is made once more, with another seed; the better one is taken,
          and `rejected` tells of the other one.

        `adapt_light` lets locked pixels follow the new scene's light, which changes them. The files say that a model
        made the background, in the word that `place` asks for. `format` is JPEG or PNG.

        Every picture that the model made is kept beside as `{name}-{style}-generated`. One that cannot be judged, or
        not before the call ends, is `not_checked`, with the reason in `errors`. Raises InvalidInput before
        anything is sent, else what `remove_background` and `generate_multiple_backgrounds` raise.
        """
        with _image_extra():
            from services.shop.backgrounds import Order, Session
            from services.shop.judge import Standard
        order = Order.of(categories, styles, Standard.of(fidelity, place, adapt_light, format))
        jobs = {"cutout": int(cutout is None), "enterprise": len(order.styles), "photokit": len(order.styles)}
        with self._bound.one_call(timeout, jobs=jobs) as client:
            files = ProductFiles(directory, name, image)
            downloads = PaidDownloads(_call_of(client))
            paid = self._cut_out(client, downloads, image, files) if cutout is None else _given(files, cutout)
            made = Session(client, _call_of(client), downloads, order, files).run(paid.saved)
            return {**made, **_spent(client)}

    def listing(
        self,
        product: AnyCategories | str | os.PathLike[str],
        *,
        title: str | None = None,
        facts: Mapping[str, Any] | None = None,
        places: str | Sequence[str] | None = None,
        languages: str | Sequence[str] = "Turkish",
        tone: str | None = None,
        length: int = 80,
        model: str | None = None,
        timeout: float | None = None,
    ) -> ListingResult:
        """The texts of a product, ready for its places, in each of `languages` ("Turkish,English").

        `product` is its categories, as `analyze_product_image` gives them, or its photo (a local path or a URL), which
        is analysed first. `title` is a working title; `facts` are names and values: `{"material": "ceramic", "size":
        "350 ml", "brand": "Kera"}`. The texts say nothing that is not in these. `places` ("trendyol,amazon") set the
        limits; one set of texts fits them all. `tone` is in your own words; `length` is about how many words the
        description has, 10 to 2,000.

        Each language costs one question to `model`, and at most one more to mend the texts that have faults; the
        languages are written side by side. Returns `{"image_url", "categories", "places", "listings", "asks"}`: per
        listing title, bullets, description, seo_title, seo_description, tags, hashtags, captions, alt_text, slug, and
        `checks` per place. Raises InvalidInput before anything is sent, BadOutput when faults stay, else what the
        client raises. Then `error.partial` is the result as far as it is, and `incomplete` lists the languages that
        failed, with their good texts.
        """
        from services.shop import listing

        brief = listing.brief(places, languages, tone, length, model)
        source = listing.source(product, title, facts)
        jobs = {"vision": int(source.photo is not None), "text": len(brief.languages)}
        with self._bound.one_call(timeout, jobs=jobs) as client:
            return {**listing.written(client, _call_of(client), source, brief), **_spent(client)}

    @property
    def _bound(self) -> FalClient:
        """The client. Raises InvalidInput when there is none."""
        if self._client is None:
            raise InvalidInput("This needs a client: pass one, Shop(FalClient()).")
        return self._client

    def _cut_out(
        self, client: FalClient, downloads: PaidDownloads, image: str | os.PathLike[str], files: ProductFiles
    ) -> _Cutout:
        """Cut the product out at fal, and save it before anything else, also when the call ends meanwhile."""
        found = client.remove_background(image)
        url, saving = found["image"]["url"], client.within(downloads.call)
        save = partial(saving.save_picture, url, files.folder, files.named("cutout"), timeout=downloads.call.timeout_s)
        known: dict[str, Any] = {"request_id": found.get("request_id"), "billable_units": found.get("billable_units")}
        cutout: dict[str, Any] = {**found["image"]}
        try:
            cutout |= picture_facts(downloads.result(downloads.start(save)))
            _call_of(client).check()
        except FalError as error:
            raise error.but(partial={"cutout": cutout, **known}, request_id=known["request_id"]) from error
        return _Cutout(cast("CutoutOnFile", cutout), known["request_id"], known["billable_units"])


class _Cutout(NamedTuple):
    saved: CutoutOnFile
    request_id: str | None = None
    billable_units: float | None = None


def _given(files: ProductFiles, cutout: str | os.PathLike[str]) -> _Cutout:
    """A cut-out that is there already: looked at first, since its copy takes the place of one that was paid for."""
    require_cutout(cutout)
    return _Cutout({**files.copy(cutout, "cutout"), "url": None})


def check_image(image: str | os.PathLike[str], place: str, *, on: datetime.date | None = None) -> PictureCheck:
    """Hold a picture file against the rules of `place` that hold on the day `on` (today). Nothing is sent anywhere.

    Returns `{"place", "date", "verdict", "rules"}`; each rule has its `verdict` ("pass", "warn", "fail",
    "not_checked"), what was `measured`, the `limit`, a `reason`, and the `source` of the rule. Raises InvalidInput for
    an unknown place and for a file that is no picture.
    """
    return checks_of(image, [place_named(place)], on)[0]


def checks_of(
    image: str | os.PathLike[str], places: Sequence[Place], on: datetime.date | None = None
) -> list[PictureCheck]:
    """`check_image` for several places: the file is measured once."""
    with _image_extra():
        from services.shop.picture_check import Subject, checked
    subject = Subject(*_read(image))
    return [checked(subject, place, on or datetime.date.today()) for place in places]


def _packshot(
    product: Pixels,
    place: Place | None,
    layout: Layout,
    behind: tuple[int, int, int] | Image.Image,
    shadow: bool,
    source_type: str | None,
    check: bool,
    files: ProductFiles,
) -> PackshotImage:
    from services.shop import packshot

    made = packshot.packshot(product, layout, behind, shadow=shadow, source_type=source_type)
    extension = packshot.EXTENSIONS[made.format]
    saved = files.write(made.data, place.name if place else "packshot", extension)
    checked: Checked = {"checks": checks_of(saved["path"], [place])} if place and check else {}
    return {
        **saved,
        **checked,
        "place": place.name if place else None,
        "fill": round(made.fill, 4),
        "scale": round(made.scale, 4),
        "enlarged": made.scale > 1,
        "digital_source_type": source_type,
    }


def _source_type(image: str | os.PathLike[str], cutout: str, behind: tuple[int, int, int] | Image.Image) -> str | None:
    """What the files that a packshot is made of say of their origin; nothing is added to it, since nothing is made."""
    from PIL import Image

    from services.shop.picture_file import opened
    from services.shop.source_type import passed_on, source_type_of

    sources = [cutout] if arguments.is_url(image) or not os.path.isfile(image) else [image, cutout]
    known = [source_type_of(opened(Path(source).read_bytes())) for source in sources]
    return passed_on(*known, behind=source_type_of(behind) if isinstance(behind, Image.Image) else None)


def _call_of(client: FalClient) -> Call:
    """The call that `client` is a view within."""
    assert client.call is not None
    return client.call


def _spent(client: FalClient) -> Costs:
    """What the jobs of the call that `client` is a view within have cost."""
    return cast("Costs", _call_of(client).costs.told())


def _read(image: object) -> tuple[bytes, str]:
    if not isinstance(image, str | os.PathLike) or not os.fspath(image):
        raise InvalidInput("image must be the path of a picture file.")
    try:
        return Path(os.fsdecode(os.fspath(image))).read_bytes(), os.fsdecode(os.fspath(image))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{os.fspath(image)!r} cannot be read: {reason}. Check the path.") from error


def require_cutout(path: str | os.PathLike[str]) -> None:
    """Raises InvalidInput when the file at `path` is no cut-out."""
    with _image_extra():
        from services.shop.packshot import opened_cutout
    opened_cutout(_read(path)[0])


def require_image_extra() -> None:
    """Raises InvalidInput when the packages of the extra `image` are missing."""
    with _image_extra():
        from services.shop import packshot  # noqa: F401


@contextlib.contextmanager
def _image_extra() -> Iterator[None]:
    """The packages of the extra `image` are imported inside."""
    try:
        yield
    except ImportError as error:
        raise InvalidInput(
            f"Working on pictures needs the extra `image` ({error.name} is not installed).",
            hint='Install it: pip install "./backend[image]".',
        ) from error
