"""The whole product workflow: upload, analyse, then prompts and pictures; all else runs beside the prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from services.fal.call import Task, current_call, parallel
from services.fal.checks import LocalImage, Style
from services.fal.errors import Cancelled, FalError
from services.fal.fields import from_sandbox
from services.fal.product import ANALYSIS_TEMPERATURE, Product, style_error
from services.fal.progress import Progress
from services.fal.steps import Steps
from services.fal.wire import Wire

if TYPE_CHECKING:
    from services.fal.results import StyleError


class Workflow:
    """Runs the steps of `product.py` in their order, for one client."""

    def __init__(self, wire: Wire, product: Product) -> None:
        self._wire = wire
        self._product = product

    def run(
        self,
        source: LocalImage | str,
        styles: Sequence[Style],
        language: str,
        steps: Steps,
        watch: Progress | None,
    ) -> dict[str, Any]:
        """The result of `product_workflow`. A failure carries what was made by then in `partial`."""
        made: dict[str, Any] = {"image_url": "", "categories": {}, "images": [], "description": ""}
        made |= {"total_generated": 0, "total_requested": len(styles), "errors": None}
        try:
            made["image_url"] = source if isinstance(source, str) else self._upload(source, steps)
            self._make(made, styles, language, steps, watch)
        except FalError as error:
            error.partial = {**error.partial, **made, "timings": steps.total(), **steps.from_sandbox}
            raise
        return made

    def _upload(self, image: LocalImage, steps: Steps) -> str:
        with steps.step("upload") as done:
            url = self._wire.upload(image.data, image.content_type, image.file_name)
            done["image_url"] = url
        return url

    def _make(
        self,
        made: dict[str, Any],
        styles: Sequence[Style],
        language: str,
        steps: Steps,
        watch: Progress | None,
    ) -> None:
        image_url = made["image_url"]
        with parallel() as tasks:
            cutouts: list[Task[str]] = []

            def cut_out() -> None:
                cutouts.append(tasks.start(lambda: self._product.cut_out(image_url, steps, watch)))

            # Not before a category is known: an analysis that read nothing must not have cost a cut-out too.
            categories = self._analyse(image_url, steps, watch, cut_out)
            made["categories"] = categories
            description = tasks.start(lambda: self._describe(categories, language, steps, watch))
            gallery = self._product.gallery(cutouts[0].result, categories, styles, steps, watch)
            made["description"], failures = description.result()
            gallery.errors.extend(failures)
            made.update(gallery.as_result(steps))
        if current_call().cancelled:
            raise Cancelled("The call was cancelled.")

    def _analyse(
        self, image_url: str, steps: Steps, watch: Progress | None, when_known: Callable[[], object]
    ) -> dict[str, str]:
        with steps.step("analysis") as done:
            found = self._product.analyse(image_url, None, ANALYSIS_TEMPERATURE, watch, when_known)
            done.update(categories=found.categories, **from_sandbox(found.answer.result.output))
        return found.categories

    def _describe(
        self, categories: dict[str, str], language: str, steps: Steps, watch: Progress | None
    ) -> tuple[str, list[StyleError]]:
        try:
            with steps.step("description") as done:
                answer = self._product.describe(categories, language, watch)
                text = answer.output.strip()
                done.update(description=text, **from_sandbox(answer.result.output))
            return text, []
        except FalError as error:
            return "", [style_error(error, "description", None)]
