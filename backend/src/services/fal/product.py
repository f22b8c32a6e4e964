"""From a photo of a product to its categories, prompts, pictures and description: the steps and their order.

Each step is one job of `text_models.py` or `picture_models.py`. What does not wait for another step runs beside it: the
cut-out beside the prompts, one style beside the other, the description beside the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from services.fal import prompts
from services.fal.arguments import Description, PictureOptions, Style
from services.fal.call import Call, Task, Tasks, side_by_side
from services.fal.categories import CATEGORY_NAMES, UNKNOWN, NoCategories, read_categories
from services.fal.errors import AmbiguousSubmit, BadOutput, Cancelled, DeadlineExceeded, FalError, summary
from services.fal.image_files import LocalImage, size_of
from services.fal.journal import JobKey
from services.fal.log import logger, outline
from services.fal.picture_models import Picture, PictureModels
from services.fal.responses import from_sandbox
from services.fal.text_models import NoText, TextAnswer, TextModels, TextRequest

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi
    from services.fal.results import Image, StyledImage, StyleError

ANALYSIS_TEMPERATURE = 0.3
TEXT_TEMPERATURE = 0.7
MAX_HEADER_BYTES = 1024 * 1024
"""Of a picture file: its size in pixels stands there, whatever profiles stand before it."""


class Analysis(NamedTuple):
    """The categories of a product, and what the model wrote."""

    categories: dict[str, str]
    answer: TextAnswer


_Ask = Callable[[tuple[str, ...], int], Analysis]


class Shot(NamedTuple):
    """What became of one style."""

    images: list[StyledImage]
    errors: list[StyleError]


class ProductModels:
    """The jobs around one product photo, for one client."""

    def __init__(self, text: TextModels, pictures: PictureModels, api: FalApi) -> None:
        self._text = text
        self._pictures = pictures
        self._api = api

    def analyse(
        self,
        call: Call,
        image_url: str,
        model: str | None,
        temperature: float,
        when_known: Callable[[], object] = lambda: None,
    ) -> Analysis:
        """The nine categories. Those missing are asked for once more, then they are "Unknown".

        `when_known` is called as soon as any of them is known. Raises BadOutput when both answers give none at all.
        """
        ask = partial(self._ask_categories, call, image_url, model, temperature)
        try:
            found, answer = ask(CATEGORY_NAMES, 0)
        except (NoText, NoCategories) as unread:
            # Only after these: an answer of fal's that cannot be used is no reason to pay for a second job.
            found, answer = _ask_again(ask, CATEGORY_NAMES, unread)
            when_known()
        else:
            when_known()
            if missing := tuple(name for name in CATEGORY_NAMES if name not in found):
                found = {**_ask_for_rest(ask, missing), **found}
        return Analysis({name: found.get(name, UNKNOWN) for name in CATEGORY_NAMES}, answer)

    def _ask_categories(
        self, call: Call, image_url: str, model: str | None, temperature: float, names: tuple[str, ...], ordinal: int
    ) -> Analysis:
        """Those of `names` that the model gives. Raises NoText, NoCategories."""
        request = TextRequest(prompts.analysis(list(names)), model, temperature=temperature, image_urls=(image_url,))
        answer = self._text.ask(call, "vision", request, JobKey("analysis", ordinal=ordinal))
        return Analysis(_read(answer), answer)

    def background_prompt(
        self, call: Call, categories: Mapping[str, str], style: str, key: JobKey, model: str | None = None
    ) -> TextAnswer:
        """A prompt for the photokit, written by a model."""
        request = TextRequest(prompts.background(dict(categories), style), model, temperature=TEXT_TEMPERATURE)
        return self._text.ask(call, "enterprise", request, key, models="prompt")

    def describe(self, call: Call, categories: Mapping[str, str], wanted: Description) -> TextAnswer:
        """The product's description: two sentences, unless a length is `wanted`."""
        words = prompts.description(dict(categories), *wanted)
        request = TextRequest(words, system_prompt=prompts.COPYWRITER, temperature=TEXT_TEMPERATURE)
        return self._text.ask(call, "text", request, JobKey("description"))

    def backgrounds(
        self,
        call: Call,
        image_url: str,
        categories: Mapping[str, str],
        styles: Sequence[Style],
        options: PictureOptions,
        *,
        remove_bg: bool,
        given: LocalImage | str | None = None,
    ) -> dict[str, Any]:
        """The result of `generate_multiple_backgrounds`. Raises Cancelled, with the pictures made by then.

        `given` is the product's cut-out, when it is there already: then `image_url` is not looked at.
        """
        with side_by_side(call) as tasks:
            alone = remove_bg or given is not None
            cutout = tasks.start(lambda: self.cutout(tasks.call, image_url, given)) if alone else None
            product_url = partial(_url_of, cutout) if cutout else lambda: image_url
            shots = self.shots(tasks.call, product_url, categories, styles, options)
        result = {"cutout": _if_made(cutout), **_pictures_of(shots, call, options)}
        if call.cancelled:
            raise Cancelled("The call was cancelled.", partial=result)
        return result

    def cutout(self, call: Call, image_url: str, given: LocalImage | str | None) -> Image:
        """The product alone: as it is `given`, else cut out of the photo."""
        return self._cut_out(call, image_url) if given is None else self._take_cutout(call, given)

    def _cut_out(self, call: Call, image_url: str) -> Image:
        picture = call.progress.step(
            "cutout",
            lambda: self._pictures.cut_out(call, image_url),
            lambda made: {
                "image_url": made.image["url"],
                "cutout": made.image,
                **from_sandbox(made.result.output),
            },
        )
        return picture.image

    def _take_cutout(self, call: Call, cutout: LocalImage | str) -> Image:
        """A cut-out that is there already: it is uploaded, and not paid again."""
        url = call.progress.step(
            "cutout",
            lambda: (
                cutout
                if isinstance(cutout, str)
                else self._api.upload(call, cutout.data, cutout.content_type, cutout.file_name)
            ),
            lambda url: {"image_url": url},
        )
        file = None if isinstance(cutout, str) else cutout
        width, height = (file and size_of(file.data[:MAX_HEADER_BYTES])) or (None, None)
        return {
            "url": url,
            "width": width,
            "height": height,
            "content_type": file and file.content_type,
            "file_size": file and len(file.data),
        }

    def shots(
        self,
        call: Call,
        product_url: Callable[[], str],
        categories: Mapping[str, str],
        styles: Sequence[Style],
        options: PictureOptions,
    ) -> list[Shot]:
        """The pictures of each style, side by side, in the order of the styles. `product_url` waits for the cut-out."""
        with side_by_side(call) as tasks:
            shoot = partial(self._shot, tasks.call, product_url, categories, options)
            shots = [tasks.start(partial(shoot, style)) for style in styles]
            return [shot.result() for shot in shots]

    def _shot(
        self,
        call: Call,
        product_url: Callable[[], str],
        categories: Mapping[str, str],
        options: PictureOptions,
        style: Style,
    ) -> Shot:
        errors: list[StyleError] = []
        stage = "prompt"
        try:
            try:
                prompt = self._prompt(call, categories, style)
            except (Cancelled, DeadlineExceeded):
                raise
            except FalError as error:
                if call.journal is not None and isinstance(error, AmbiguousSubmit):
                    raise  # the prompt may yet be found, and the picture is to be made from it
                errors.append(style_error(error, stage, style.name))
                prompt = prompts.plain_background(dict(categories), style.description)
            stage = "cutout"
            url = product_url()
            stage = "picture"
            images, failure = self._pictures_of_style(call, url, prompt, options, style)
            return Shot(images, [*errors, *([] if failure is None else [style_error(failure, stage, style.name)])])
        except FalError as error:
            return Shot([], [*errors, style_error(error, stage, style.name)])

    def _prompt(self, call: Call, categories: Mapping[str, str], style: Style) -> str:
        answer = call.progress.step(
            "prompt",
            lambda: self.background_prompt(call, categories, style.description, JobKey("prompt", style.name)),
            lambda made: {"prompt": made.output.strip(), **from_sandbox(made.result.output)},
            style=style.name,
        )
        return answer.output.strip()

    def _pictures_of_style(
        self, call: Call, url: str, prompt: str, options: PictureOptions, style: Style
    ) -> tuple[list[StyledImage], FalError | None]:
        def make() -> tuple[list[StyledImage], FalError | None]:
            made = self._pictures.replace_background(call, url, prompt, options, style.name)
            return [styled_image(picture, style, prompt) for picture in made.pictures], made.failure

        def told(image: StyledImage) -> dict[str, Any]:
            return {"image": image, **_sandbox_of(image)}

        return call.progress.step(
            "picture",
            make,
            lambda made: told(made[0][0]),
            style=style.name,
            further=lambda made: [told(image) for image in made[0][1:]],
        )


class Workflow:
    """The whole product workflow: upload, analyse, then prompts and pictures; all else runs beside the prompts."""

    def __init__(self, api: FalApi, product: ProductModels) -> None:
        self._api = api
        self._product = product

    def run(
        self,
        call: Call,
        source: LocalImage | str,
        styles: Sequence[Style],
        wanted: Description,
        options: PictureOptions,
        cutout: LocalImage | str | None = None,
    ) -> dict[str, Any]:
        """The result of `product_workflow`. A failure carries what was made by then in `partial`."""
        made: dict[str, Any] = {"image_url": "", "categories": {}, "cutout": None, "images": [], "description": ""}
        made |= {"total_generated": 0, "total_requested": len(styles) * options.num_images, "errors": None}
        try:
            made["image_url"] = uploaded(call, self._api, source)
            with side_by_side(call) as tasks:
                analysis, alone = self._analyse(tasks, made["image_url"], cutout)
                made["categories"] = analysis
                description = tasks.start(lambda: self._describe(tasks.call, analysis, wanted))
                shots = self._product.shots(tasks.call, partial(_url_of, alone), analysis, styles, options)
                made["cutout"] = _if_made(alone)
                made["description"], failures = description.result()
                made |= _pictures_of(shots, call, options, failures)
            if call.cancelled:
                raise Cancelled("The call was cancelled.")
        except FalError as error:
            known = {**error.partial, **made, "timings": call.progress.total(), **call.progress.from_sandbox}
            raise error.but(partial=known) from error
        return made

    def _analyse(
        self, tasks: Tasks, image_url: str, given: LocalImage | str | None
    ) -> tuple[dict[str, str], Task[Image]]:
        """The categories, and the cut-out, unless it is given; it begins as soon as one of them is known.

        Not before: an analysis that read nothing must not have cost a cut-out too.
        """
        cutouts: list[Task[Image]] = []

        def cut_out() -> None:
            cutouts.append(tasks.start(lambda: self._product.cutout(tasks.call, image_url, given)))

        found = tasks.call.progress.step(
            "analysis",
            lambda: self._product.analyse(tasks.call, image_url, None, ANALYSIS_TEMPERATURE, cut_out),
            lambda made: {"categories": made.categories, **from_sandbox(made.answer.result.output)},
        )
        return found.categories, cutouts[0]

    def _describe(self, call: Call, categories: dict[str, str], wanted: Description) -> tuple[str, list[StyleError]]:
        try:
            answer = call.progress.step(
                "description",
                lambda: self._product.describe(call, categories, wanted),
                lambda made: {"description": made.output.strip(), **from_sandbox(made.result.output)},
            )
            return answer.output.strip(), []
        except FalError as error:
            return "", [style_error(error, "description", None)]


def uploaded(call: Call, api: FalApi, source: LocalImage | str) -> str:
    """The URL of a photo, which is uploaded when it is a file."""
    if isinstance(source, str):
        return source
    return call.progress.step(
        "upload",
        lambda: api.upload(call, source.data, source.content_type, source.file_name),
        lambda url: {"image_url": url},
    )


def _url_of(cutout: Task[Image]) -> str:
    return cutout.result()["url"]


def _if_made(cutout: Task[Image] | None) -> Image | None:
    """The cut-out, unless it failed: why, the styles say that wait for it."""
    try:
        return None if cutout is None else cutout.result()
    except FalError:
        return None


def _pictures_of(
    shots: Sequence[Shot], call: Call, options: PictureOptions, failures: Sequence[StyleError] = ()
) -> dict[str, Any]:
    """The part of a result that tells of several styles."""
    images = [image for shot in shots for image in shot.images]
    errors = [*(error for shot in shots for error in shot.errors), *failures]
    return {
        "images": images,
        "total_generated": len(images),
        "total_requested": len(shots) * options.num_images,
        "errors": errors or None,
        "timings": call.progress.total(),
        **call.progress.from_sandbox,
    }


def style_error(error: FalError, stage: str, style: str | None) -> StyleError:
    """An error of one step, as `errors` lists it."""
    known: dict[str, Any] = summary(error)
    return {
        "style": style,
        "stage": stage,
        "error": known["error"],
        "error_type": known["error_type"],
        "retryable": known["retryable"],
        "request_id": known["request_id"],
    }


def styled_image(picture: Picture, style: Style, prompt: str) -> StyledImage:
    image = picture.image
    styled: dict[str, Any] = {
        "style_name": style.name,
        "style_description": style.description,
        "image_url": image["url"],
        "prompt": prompt,
        "width": image.get("width"),
        "height": image.get("height"),
        "content_type": image.get("content_type"),
        "file_size": image.get("file_size"),
        "request_id": picture.result.request_id,
        "billable_units": picture.result.billable_units,
        "cost_usd": picture.result.cost_usd,
        **({} if picture.seed is None else {"seed": picture.seed}),
        **from_sandbox(picture.result.output),
    }
    return cast("StyledImage", styled)


def _sandbox_of(image: StyledImage) -> dict[str, Any]:
    return {name: image[name] for name in ("sandbox", "sandbox_remarks") if name in image}


def _ask_again(ask: _Ask, names: tuple[str, ...], unread: BadOutput) -> Analysis:
    """Another answer in place of one that could not be read; what the model wrote first stays known."""
    try:
        return ask(names, 1)
    except (Cancelled, DeadlineExceeded) as error:
        raise error.but(partial={**unread.partial, **error.partial}) from error
    except FalError as error:
        raise unread from error


def _ask_for_rest(ask: _Ask, missing: tuple[str, ...]) -> dict[str, str]:
    try:
        return ask(missing, 1).categories
    except (Cancelled, DeadlineExceeded):
        raise
    except FalError as error:
        logger.info("%s stays unknown: %s", ", ".join(missing), outline(error))
        return {}


def _read(answer: TextAnswer) -> dict[str, str]:
    try:
        return read_categories(answer.output)
    except NoCategories as error:
        partial = {**error.partial, "raw_output": answer.output}
        raise error.but(request_id=answer.result.request_id, partial=partial) from error
