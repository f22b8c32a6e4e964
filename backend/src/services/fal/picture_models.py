"""Picture models: the cut-out and the background replacement ("photokit").

photokit goes through fal's queue, or, when FAL_PHOTOKIT_ENDPOINT is an https:// URL of the user's own, straight to
it: one POST, never sent twice, whose answer has fal's shape. Picture files are not touched here: models take and
return URLs.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.arguments import MAX_SEED, PictureOptions
from services.fal.call import Call, side_by_side
from services.fal.endpoints import Endpoint, Endpoints
from services.fal.errors import BadOutput, FalError, JobFailed
from services.fal.image_files import LocalImage, for_bria
from services.fal.jobs import Jobs
from services.fal.journal import JobKey, Result
from services.fal.responses import as_text, as_whole, from_sandbox

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi
    from services.fal.results import Image, Variant


class Picture(NamedTuple):
    """One picture that a model made."""

    image: Image
    result: Result
    seed: int | None = None
    """The seed that it alone was made with, when one was sent."""

    def as_variant(self) -> Variant:
        seed: dict[str, Any] = {} if self.seed is None else {"seed": self.seed}
        return {**self.image, "request_id": self.result.request_id, **seed}  # type: ignore[typeddict-item]

    def as_result(self, timings: Mapping[str, float]) -> dict[str, Any]:
        """The result of a method that makes one picture."""
        inference_s = self.result.inference_s
        return {
            "image": self.image,
            "timings": {**timings, **({} if inference_s is None else {"inference_time": inference_s})},
            "request_id": self.result.request_id,
            "billable_units": self.result.billable_units,
            **from_sandbox(self.result.output),
        }


class Variants(NamedTuple):
    """The pictures of one prompt, in order, and what kept others from being made."""

    pictures: list[Picture]
    failure: FalError | None = None

    def all_made(self) -> Variants:
        """Itself. Raises the failure of a variant; the others, which are paid for, are in its `partial`."""
        if self.failure is None:
            return self
        images = [picture.as_variant() for picture in self.pictures]
        partial = {"image": self.pictures[0].image, "images": images, **self.failure.partial}
        # The whole call once more would pay for the others twice.
        hint = " ".join(filter(None, (self.failure.hint, "The variants that were made are under `images`.")))
        raise self.failure.but(partial=partial, retryable=False, hint=hint) from self.failure

    def as_result(self, timings: Mapping[str, float], wanted: int) -> dict[str, Any]:
        """The result of a method that makes one picture, or several of one prompt."""
        first = self.pictures[0].as_result(timings)
        if wanted == 1:
            return first
        units = [picture.result.billable_units for picture in self.pictures]
        known = [share for share in units if share is not None]
        images = [picture.as_variant() for picture in self.pictures]
        return {**first, "images": images, "billable_units": sum(known) if len(known) == len(units) else None}


class PictureModels:
    """Pictures from models, for one client."""

    def __init__(self, jobs: Jobs, endpoints: Endpoints, api: FalApi) -> None:
        self._jobs = jobs
        self._endpoints = endpoints
        self._api = api

    def cut_out(self, call: Call, image_url: str) -> Picture:
        """The product alone, on a transparent background."""
        key = JobKey("cutout")
        return read_picture(self._jobs.run(call, "cutout", lambda endpoint: endpoint.image_input([image_url]), key))

    def check(self, options: PictureOptions) -> None:
        """Raises InvalidInput for an option that the endpoint in use does not take: before anything is paid for."""
        self._endpoints.current("photokit").option_inputs(_all(options))

    def fit(self, call: Call, image: LocalImage | str, role: str) -> LocalImage | str:
        """A local photo as the endpoint for `role` takes it; raises InvalidInput when it cannot be made so."""
        if isinstance(image, str) or not self._endpoints.current(role).is_bria:
            return image
        return for_bria(call, image)

    def replace_background(
        self, call: Call, image_url: str, prompt: str | None, options: PictureOptions, style: str | None = None
    ) -> Variants:
        """The product on the background that `prompt`, or a reference picture, describes; of which `style` it is.

        Raises what kept every picture from being made.
        """
        key = JobKey("picture", style)
        if options.num_images == 1 or not self._endpoints.current("photokit").makes_one:
            result = self._run(call, image_url, prompt, _all(options), key)
            return Variants(read_pictures(result, options.num_images))
        # Without a seed of the caller's it is another one each time: the same pictures would be paid for once more.
        first = options.others.get("seed", random.randint(0, MAX_SEED))
        with side_by_side(call) as tasks:
            seeds = [(first + place) % (MAX_SEED + 1) for place in range(options.num_images)]
            each = [({**options.others, "seed": seed}, key._replace(ordinal=n)) for n, seed in enumerate(seeds)]
            made = [tasks.start(partial(self._run_one, tasks.call, image_url, prompt, *one)) for one in each]
        return _collected([task.result for task in made])

    def _run_one(
        self, call: Call, image_url: str, prompt: str | None, options: Mapping[str, Any], key: JobKey
    ) -> Picture:
        return read_picture(self._run(call, image_url, prompt, options, key))._replace(seed=options.get("seed"))

    def _run(self, call: Call, image_url: str, prompt: str | None, options: Mapping[str, Any], key: JobKey) -> Result:
        def arguments(endpoint: Endpoint) -> dict[str, Any]:
            inputs = {**endpoint.image_input([image_url]), **endpoint.option_inputs(options)}
            return inputs if prompt is None else {**inputs, endpoint.prompt_field: prompt}

        return self._jobs.run(call, "photokit", arguments, key)


def _all(options: PictureOptions) -> dict[str, Any]:
    return {**options.others, **({"num_images": options.num_images} if options.num_images > 1 else {})}


def _collected(made: Sequence[Callable[[], Picture]]) -> Variants:
    """The pictures of jobs that ran side by side, and the first failure. Raises it when there is no picture."""
    pictures: list[Picture] = []
    failure: FalError | None = None
    for result in made:
        try:
            pictures.append(result())
        except FalError as error:
            failure = failure or error
    if failure is not None and not pictures:
        raise failure
    return Variants(pictures, failure)


def read_picture(result: Result) -> Picture:
    """The picture of a finished job: under `image`, or the first of `images`."""
    images = _images(result)
    return _picture(result.output.get("image") or (images[0] if images else None), result)


def read_pictures(result: Result, wanted: int) -> list[Picture]:
    """The pictures of a finished job, in order; those that cannot be read are left out while there are others."""
    pictures: list[Picture] = []
    for image in _images(result)[:wanted] if wanted > 1 else []:
        with contextlib.suppress(BadOutput):
            pictures.append(_picture(image, result))
    if len(pictures) < 2:
        return pictures or [read_picture(result)]
    # So that the sum over the pictures is what the job cost.
    units, cost_usd = result.billable_units, result.cost_usd
    share = result._replace(
        billable_units=None if units is None else units / len(pictures),
        cost_usd=None if cost_usd is None else round(cost_usd / len(pictures), 9),
    )
    return [picture._replace(result=share) for picture in pictures]


def _images(result: Result) -> list[Any]:
    if error := result.output.get("error"):
        raise JobFailed(f"The picture model failed: {error}.", request_id=result.request_id)
    images = result.output.get("images")
    return images if isinstance(images, list) else []


def _picture(image: object, result: Result) -> Picture:
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(image, dict) or not isinstance(url, str) or not url.startswith(("https://", "http://", "data:")):
        raise BadOutput("fal's answer contains no picture.", request_id=result.request_id)
    known: Image = {
        "url": url,
        "width": as_whole(image.get("width")),
        "height": as_whole(image.get("height")),
        "content_type": as_text(image.get("content_type")),
        "file_size": as_whole(image.get("file_size")),
    }
    return Picture(known, result)
