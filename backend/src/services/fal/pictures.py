"""Picture models: the cut-out and the background replacement ("photokit").

photokit goes through fal's queue, or, when FAL_PHOTOKIT_ENDPOINT is an https:// URL of the user's own, straight
to it (`own_photokit.py`). Picture files are not touched here: models take and return URLs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.endpoints import Endpoint, Endpoints
from services.fal.errors import BadOutput, JobFailed
from services.fal.fields import as_text, as_whole, from_sandbox
from services.fal.jobs import Jobs, Result
from services.fal.own_photokit import OwnPhotokit
from services.fal.progress import Progress
from services.fal.steps import Steps

if TYPE_CHECKING:
    from services.fal.results import Image


class Picture(NamedTuple):
    """One picture that a model made."""

    image: Image
    result: Result

    def as_result(self, steps: Steps) -> dict[str, Any]:
        """The result of a method that makes one picture."""
        timings = steps.total()
        if self.result.inference_s is not None:
            timings["inference_time"] = self.result.inference_s
        return {
            "image": self.image,
            "timings": timings,
            "request_id": self.result.request_id,
            "billable_units": self.result.billable_units,
            **from_sandbox(self.result.output),
        }


class Pictures:
    """Pictures from models, for one client."""

    def __init__(self, jobs: Jobs, endpoints: Endpoints, own: OwnPhotokit) -> None:
        self._jobs = jobs
        self._endpoints = endpoints
        self._own = own

    def cut_out(self, image_url: str, watch: Progress | None = None) -> Picture:
        """The product alone, on a transparent background."""
        result = self._jobs.run("cutout", lambda endpoint: endpoint.image_input([image_url]), watch)
        return read_picture(result)

    def replace_background(self, image_url: str, prompt: str, watch: Progress | None = None) -> Picture:
        """The product on the background that `prompt` describes."""

        def arguments(endpoint: Endpoint) -> dict[str, Any]:
            return {**endpoint.image_input([image_url]), "prompt": prompt}

        endpoint = self._endpoints.current("photokit")
        if endpoint.is_own_url:
            with self._jobs.slot():
                return read_picture(self._own.post(endpoint.path, arguments(endpoint)))
        return read_picture(self._jobs.run("photokit", arguments, watch))


def read_picture(result: Result) -> Picture:
    """The picture of a finished job: under `image`, or the first of `images`."""
    output = result.output
    if error := output.get("error"):
        raise JobFailed(f"The picture model failed: {error}.", request_id=result.request_id)
    images = output.get("images")
    image = output.get("image") or (images[0] if isinstance(images, list) and images else None)
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(image, dict) or not isinstance(url, str) or not url.startswith(("https://", "http://", "data:")):
        raise BadOutput("fal's answer holds no picture.", request_id=result.request_id)
    known: Image = {
        "url": url,
        "width": as_whole(image.get("width")),
        "height": as_whole(image.get("height")),
        "content_type": as_text(image.get("content_type")),
        "file_size": as_whole(image.get("file_size")),
    }
    return Picture(known, result)
