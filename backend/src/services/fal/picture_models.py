"""Picture models: the cut-out and the background replacement ("photokit").

photokit goes through fal's queue, or, when FAL_PHOTOKIT_ENDPOINT is an https:// URL of the user's own, straight to
it: one POST, never sent twice, whose answer has fal's shape. Picture files are not touched here: models take and
return URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.call import Call
from services.fal.endpoints import Endpoint, Endpoints
from services.fal.errors import BadOutput, JobFailed
from services.fal.hosts import parse
from services.fal.jobs import Jobs, Result
from services.fal.responses import as_text, as_whole, from_sandbox

if TYPE_CHECKING:
    from services.fal.fal_api import FalApi
    from services.fal.results import Image


class Picture(NamedTuple):
    """One picture that a model made."""

    image: Image
    result: Result

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


class PictureModels:
    """Pictures from models, for one client."""

    def __init__(self, jobs: Jobs, endpoints: Endpoints, api: FalApi) -> None:
        self._jobs = jobs
        self._endpoints = endpoints
        self._api = api

    def cut_out(self, call: Call, image_url: str) -> Picture:
        """The product alone, on a transparent background."""
        return read_picture(self._jobs.run(call, "cutout", lambda endpoint: endpoint.image_input([image_url])))

    def replace_background(self, call: Call, image_url: str, prompt: str) -> Picture:
        """The product on the background that `prompt` describes."""

        def arguments(endpoint: Endpoint) -> dict[str, Any]:
            return {**endpoint.image_input([image_url]), "prompt": prompt}

        endpoint = self._endpoints.current("photokit")
        if endpoint.is_own_url:
            with self._jobs.slots.one(call):
                return read_picture(self._post_to_own(call, endpoint.path, arguments(endpoint)))
        return read_picture(self._jobs.run(call, "photokit", arguments))

    def _post_to_own(self, call: Call, url: str, arguments: Mapping[str, Any]) -> Result:
        """Send one request to the user's own service. Raises AmbiguousSubmit when it was sent and not answered."""
        answer = self._api.post_once(call, parse(url), arguments, "photokit")
        try:
            output = answer.json()
        except BadOutput as error:
            # It has made, and may bill, the picture: the same once more could cost twice.
            raise error.but(retryable=False, hint=None) from error
        return Result(answer.request_id, output, answer.billable_units)


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
