"""From a photo of a product to its categories, prompts, pictures and description: the steps and their order.

Each step is one job of `language.py` or `pictures.py`. What does not wait for another step runs beside it: the
cut-out beside the prompts, one style beside the other, the description beside the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from services.fal import prompts
from services.fal.call import current_call, parallel
from services.fal.categories import CATEGORY_NAMES, UNKNOWN, read_categories
from services.fal.checks import Style
from services.fal.errors import BadOutput, Cancelled, DeadlineExceeded, FalError, summary
from services.fal.fields import from_sandbox
from services.fal.language import Language, TextAnswer
from services.fal.pictures import Picture, Pictures
from services.fal.progress import Progress
from services.fal.stderr_log import logger, outline
from services.fal.steps import Steps
from services.fal.text_request import TextRequest

if TYPE_CHECKING:
    from services.fal.results import StyledImage, StyleError

ANALYSIS_TEMPERATURE = 0.3
TEXT_TEMPERATURE = 0.7


class Analysis(NamedTuple):
    """The categories of a product, and what the model wrote."""

    categories: dict[str, str]
    answer: TextAnswer


_Ask = Callable[[tuple[str, ...]], Analysis]


@dataclass
class Gallery:
    """The pictures of several styles, and what went wrong."""

    requested: int
    images: list[StyledImage] = field(default_factory=list)
    errors: list[StyleError] = field(default_factory=list)

    def as_result(self, steps: Steps) -> dict[str, Any]:
        return {
            "images": self.images,
            "total_generated": len(self.images),
            "total_requested": self.requested,
            "errors": self.errors or None,
            "timings": steps.total(),
            **steps.from_sandbox,
        }


class Product:
    """The jobs around one product photo, for one client."""

    def __init__(self, language: Language, pictures: Pictures) -> None:
        self._language = language
        self._pictures = pictures

    def analyse(
        self,
        image_url: str,
        model: str | None,
        temperature: float,
        watch: Progress | None,
        when_known: Callable[[], object] = lambda: None,
    ) -> Analysis:
        """The nine categories. Those missing are asked for once more, then they are "Unknown".

        `when_known` is called as soon as any of them is known. Raises BadOutput when both answers give none at all.
        """
        ask = partial(self._ask_categories, image_url, model, temperature, watch)
        try:
            found, answer = ask(CATEGORY_NAMES)
        except BadOutput as unread:
            found, answer = _ask_again(ask, CATEGORY_NAMES, unread)
            when_known()
        else:
            when_known()
            if missing := tuple(name for name in CATEGORY_NAMES if name not in found):
                found = {**_ask_for_rest(ask, missing), **found}
        return Analysis({name: found.get(name, UNKNOWN) for name in CATEGORY_NAMES}, answer)

    def _ask_categories(
        self, image_url: str, model: str | None, temperature: float, watch: Progress | None, names: tuple[str, ...]
    ) -> Analysis:
        """Those of `names` that the model gives. Raises BadOutput when it gives no category."""
        request = TextRequest(prompts.analysis(list(names)), model, temperature=temperature, image_urls=(image_url,))
        answer = self._language.ask("vision", request, watch)
        return Analysis(_read(answer), answer)

    def background_prompt(
        self, categories: Mapping[str, str], style: str, model: str | None = None, watch: Progress | None = None
    ) -> TextAnswer:
        """A prompt for the photokit, written by a model."""
        request = TextRequest(prompts.background(dict(categories), style), model, temperature=TEXT_TEMPERATURE)
        return self._language.ask("enterprise", request, watch, models="prompt")

    def describe(self, categories: Mapping[str, str], language: str, watch: Progress | None = None) -> TextAnswer:
        """Two sentences about the product in `language`."""
        words = prompts.description(dict(categories), language)
        request = TextRequest(words, system_prompt=prompts.COPYWRITER, temperature=TEXT_TEMPERATURE)
        return self._language.ask("text", request, watch)

    def backgrounds(
        self,
        image_url: str,
        categories: Mapping[str, str],
        styles: Sequence[Style],
        remove_bg: bool,
        steps: Steps,
        watch: Progress | None,
    ) -> dict[str, Any]:
        """The result of `generate_multiple_backgrounds`. Raises Cancelled, with the pictures made by then."""
        with parallel() as tasks:
            cutout = tasks.start(lambda: self.cut_out(image_url, steps, watch)) if remove_bg else None
            product_url = cutout.result if cutout else lambda: image_url
            result = self.gallery(product_url, categories, styles, steps, watch).as_result(steps)
        if current_call().cancelled:
            raise Cancelled("The call was cancelled.", partial=result)
        return result

    def cut_out(self, image_url: str, steps: Steps, watch: Progress | None) -> str:
        """The URL of the product alone."""
        with steps.step("cutout") as made:
            picture = self._pictures.cut_out(image_url, watch)
            made.update(image_url=picture.image["url"], **from_sandbox(picture.result.output))
        return picture.image["url"]

    def gallery(
        self,
        product_url: Callable[[], str],
        categories: Mapping[str, str],
        styles: Sequence[Style],
        steps: Steps,
        watch: Progress | None,
    ) -> Gallery:
        """One picture per style, side by side, in the order of the styles. `product_url` waits for the cut-out."""
        gallery = Gallery(requested=len(styles))
        with parallel() as tasks:
            shots = [tasks.start(partial(self._shot, product_url, categories, style, steps, watch)) for style in styles]
            for shot in shots:
                image, errors = shot.result()
                gallery.images.extend([image] if image else [])
                gallery.errors.extend(errors)
        return gallery

    def _shot(
        self,
        product_url: Callable[[], str],
        categories: Mapping[str, str],
        style: Style,
        steps: Steps,
        watch: Progress | None,
    ) -> tuple[StyledImage | None, list[StyleError]]:
        errors: list[StyleError] = []
        stage = "prompt"
        try:
            prompt = self._prompt_or_plain(categories, style, steps, watch, errors)
            stage = "cutout"
            url = product_url()
            stage = "picture"
            return self._picture(url, prompt, style, steps, watch), errors
        except FalError as error:
            return None, [*errors, style_error(error, stage, style.name)]

    def _prompt_or_plain(
        self,
        categories: Mapping[str, str],
        style: Style,
        steps: Steps,
        watch: Progress | None,
        errors: list[StyleError],
    ) -> str:
        try:
            with steps.step("prompt", style.name) as made:
                answer = self.background_prompt(categories, style.description, watch=watch)
                prompt = answer.output.strip()
                made.update(prompt=prompt, **from_sandbox(answer.result.output))
            return prompt
        except (Cancelled, DeadlineExceeded):
            raise
        except FalError as error:
            errors.append(style_error(error, "prompt", style.name))
            return prompts.plain_background(dict(categories), style.description)

    def _picture(self, url: str, prompt: str, style: Style, steps: Steps, watch: Progress | None) -> StyledImage:
        with steps.step("picture", style.name) as made:
            picture = self._pictures.replace_background(url, prompt, watch)
            image = styled_image(picture, style, prompt)
            made.update(image=image, **from_sandbox(picture.result.output))
        return image


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
        **from_sandbox(picture.result.output),
    }
    return cast("StyledImage", styled)


def _ask_again(ask: _Ask, names: tuple[str, ...], unread: BadOutput) -> Analysis:
    """Another answer in place of one that could not be read; what the model wrote first stays known."""
    try:
        return ask(names)
    except (Cancelled, DeadlineExceeded) as error:
        error.partial = {**unread.partial, **error.partial}
        raise
    except FalError as error:
        raise unread from error


def _ask_for_rest(ask: _Ask, missing: tuple[str, ...]) -> dict[str, str]:
    try:
        return ask(missing).categories
    except (Cancelled, DeadlineExceeded):
        raise
    except FalError as error:
        logger.info("%s stays unknown: %s", ", ".join(missing), outline(error))
        return {}


def _read(answer: TextAnswer) -> dict[str, str]:
    try:
        return read_categories(answer.output)
    except BadOutput as error:
        error.request_id = answer.result.request_id
        error.partial["raw_output"] = answer.output
        raise
