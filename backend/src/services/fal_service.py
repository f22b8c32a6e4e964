"""FalClient: e-commerce imaging and text on fal, synchronous and thin.

The public methods check what they are given, begin one call (one deadline, one stop button) and hand on to the
modules of `fal/`. Run directly, this file is the smoke test: `python src/services/fal_service.py --help`.
"""

from __future__ import annotations

if __name__ == "__main__" and not __package__:
    import os
    import sys

    source = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    # The script's own folder stands first there, but not under -P and -I.
    sys.path[: not getattr(sys.flags, "safe_path", False)] = [source]
    # `services` is a namespace package: without this, a program's own services/__init__.py on the path would win.
    services = sys.modules["services"] = type(sys)("services")
    services.__path__ = [os.path.join(source, "services")]

import contextlib
import copy
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, cast
from urllib.request import getproxies

from services.fal import arguments, log
from services.fal.call import Call, Task
from services.fal.certificates import tls_context
from services.fal.costs import Costs, Purse
from services.fal.doctor import examine
from services.fal.downloads import Downloads
from services.fal.endpoints import Endpoints
from services.fal.errors import FalError, InvalidInput, NotReady, as_fal_error, report
from services.fal.estimates import STAND_INS, Estimates, stand_ins
from services.fal.image_files import LocalImage, local_image, shrunk
from services.fal.jobs import Jobs
from services.fal.journal import JobKey
from services.fal.picture_models import PictureModels
from services.fal.prices import Prices, as_rows
from services.fal.product import ProductModels, Workflow, uploaded
from services.fal.progress import Progress
from services.fal.prompts import DEFAULT_LANGUAGE, plain_background
from services.fal.responses import job_state
from services.fal.settings import Settings, check_timeout, resolve
from services.fal.text_models import Models, TextModels, TextRequest, image_urls_in

if TYPE_CHECKING:
    from pathlib import Path

    from services.fal.arguments import PictureOptions
    from services.fal.fal_api import FalApi
    from services.fal.results import (
        AnalysisResult,
        AnyCategories,
        BackgroundsResult,
        CancelResult,
        DoctorResult,
        EnterpriseResult,
        Estimate,
        PictureResult,
        PriceRow,
        ProgressEvent,
        PromptResult,
        StatusResult,
        TextEvent,
        TextResult,
        WorkflowResult,
    )

__all__ = ["FalClient"]

_NO_TEXT: dict[str, Any] = {"output": "", "reasoning": None, "partial": False, "error": None, "raw": {}}
_NO_ANSWER: dict[str, Any] = {"output": "", "error": None, "raw": {}}
Styles = Sequence[Mapping[str, str] | str]
OnProgress = Callable[["ProgressEvent"], None]


class FalClient:
    """One client for everything: texts, product analysis, pictures and files on fal.

    A client can be shared between threads and used after a fork. Close it with `close()`, or use it in a `with` block.
    No request is sent before a method is called.

    The environment and `.env` files also set models (`FAL_TEXT_MODEL`, `FAL_ENTERPRISE_MODEL`, `FAL_VISION_MODEL`,
    `FAL_PROMPT_MODEL`), endpoints (`FAL_TEXT_ENDPOINT`, `FAL_ENTERPRISE_ENDPOINT`, `FAL_VISION_ENDPOINT`,
    `FAL_PHOTOKIT_ENDPOINT`, `FAL_CUTOUT_ENDPOINT`), the log on stderr (`FAL_LOG`) and further download hosts
    (`FAL_DOWNLOAD_HOSTS`).

    Each setting comes from the argument, else the environment, else a `.env` file, else the default:

    - key: the fal key (`FAL_KEY`, else `FAL_API_KEY`, else `FAL_KEY_ID` and `FAL_KEY_SECRET`)
    - timeout: total seconds that one call may take (`FAL_TIMEOUT_S`, 110)
    - max_concurrency: the number of model calls that run at once (`FAL_MAX_CONCURRENCY`, 8)
    - store_io: whether fal keeps the inputs and outputs of jobs, for 30 days (`FAL_STORE_IO`, true)
    - expires_in: seconds after which fal deletes files, uploads and pictures (`FAL_EXPIRES_IN_S`; default: the setting
      of the account)
    - queue_priority: "normal", or "low" for jobs that may wait behind others (`FAL_QUEUE_PRIORITY`, normal)
    - max_usd: what all calls of the client together may cost, in US dollars (`FAL_MAX_USD`; default: no limit). A call
      that is expected to cost more than is left raises, or reports, `BudgetExceeded` before anything is sent; for one
      call there is `within(Call(seconds, max_usd=...))`
    - env_file: the `.env` file; without it, each setting is looked up in `./.env`, then in `backend/.env`

    These parameters mean the same in every method:

    - prompt: the prompt, a non-empty string
    - system_prompt: the system prompt
    - model: a model id of OpenRouter; it is never replaced by another model (default: the first model that fal offers
      of the setting's chain)
    - temperature: from 0 (the most likely words) to 2
    - max_tokens: the most tokens to generate, reasoning included
    - reasoning: whether the model thinks before it answers; by default this is left to the model
    - priority: "latency" or "throughput"; sent to `fal-ai/any-llm` only
    - image: the photo: a local path, or an http(s) URL or a data URI; a local photo is uploaded
    - image_url: an http(s) URL or a data URI of the picture, in place of `image`; never a local path
    - request_id: the id that `any_llm_submit` returned
    - categories: the categories that `analyze_product_image` returned, or any names and texts
    - styles: a list of `{"name", "description"}` or of names of default styles (default: Studio, Lifestyle, Premium)
    - remove_bg: cut the product out first, and give the cut-out to the picture model
    - seed: from 0 to 2147483647; the same inputs with the same seed give the same picture
    - num_images: how many variants to make of each prompt, from 1 to 4; each is billed. Where an endpoint makes one
      picture per job, they are jobs with the seeds `seed`, `seed + 1` and so on; without `seed` the first is random
    - negative_prompt: what the picture must not show
    - aspect_ratio: such as "4:5"
    - resolution: such as "2K"
    - image_size: width and height in pixels, as "1000x800" or `(1000, 800)`
    - original_quality: keep the size of the photo
    - placement: where the product stands: "original", or a place such as "bottom_center"
    - shrink: send a photo of more than 4,096 pixels a side or more than 8 MB smaller (see `upload_file`)
    - with_logs: write the job's place in fal's queue and its log lines to stderr
    - timeout: total seconds for everything that the call does: upload, queue, run and download (default: the client's)
    - on_progress: called with each `ProgressEvent`: a step starts, ends or fails (a finished picture's event holds it),
      a job's place in fal's queue, and, with `with_logs`, a job's log lines

    Methods whose result has an `error` key report failures there. The other methods raise a
    `services.fal.errors.FalError`. Arguments that make no sense raise `InvalidInput` (a `ValueError`) in every method,
    before anything is sent.
    """

    def __init__(
        self,
        key: str | None = None,
        *,
        timeout: float | None = None,
        max_concurrency: int | None = None,
        env_file: str | PathLike[str] | None = None,
        store_io: bool | None = None,
        expires_in: int | None = None,
        queue_priority: str | None = None,
        max_usd: float | None = None,
    ) -> None:
        """Raises MissingKey when no key is found, and InvalidInput for a setting that makes no sense."""
        self._settings: Settings = resolve(
            key=key,
            timeout=timeout,
            max_concurrency=max_concurrency,
            env_file=env_file,
            store_io=store_io,
            expires_in=expires_in,
            queue_priority=queue_priority,
            max_usd=max_usd,
        )
        if self._settings.log != "off":
            log.to_stderr(self._settings.log)
        self._shared = _Shared(self._settings)
        self._around: Call | None = None
        """The call that the calls of this view are parts of."""
        self._beside: Mapping[str, int] = {}
        """Jobs, by role, that are to follow the next call of this view."""
        self._estimates: bool = False
        """Whether this view only tells what a call would cost."""

    def __repr__(self) -> str:
        return f"FalClient(timeout={self.timeout:g})"

    @property
    def timeout(self) -> float:
        """Total seconds that a call may take unless it is given a `timeout` of its own."""
        return self._settings.timeout_s

    @property
    def settings(self) -> Settings:
        """What the client was told, checked; its repr leaves the key out."""
        return self._settings

    @property
    def max_concurrency(self) -> int:
        """The number of model calls that run at once."""
        return self._settings.max_concurrency

    def __enter__(self) -> FalClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. Neither the client nor a view of it (`within`) can be used afterwards."""
        self._shared.close()

    @property
    def call(self) -> Call | None:
        """The call that the methods of this view are parts of (see `within`); None for a client itself."""
        return self._around

    def within(self, call: Call) -> FalClient:
        """A view of this client whose methods are parts of `call`: they end with it, and report their progress to it.

        - call: a `services.fal.call.Call` with a deadline of its own, which another thread may cancel

        The view shares the settings and the connections of the client. Use it to stop a call from another thread, or to
        give several calls one deadline.
        """
        if not isinstance(call, Call):
            raise InvalidInput(f"call must be a services.fal.call.Call, not {call!r}.")
        view = copy.copy(self)
        view._around = call
        return view

    def beside(self, jobs: Mapping[str, int]) -> FalClient:
        """A view of this client that counts `jobs` in what its calls are expected to cost.

        - jobs: how many jobs are to follow the call, by role, such as `{"text": 1}`

        For a program that goes on after a call, and is to be refused before it if `max_usd` does not allow for both.
        """
        view = copy.copy(self)
        view._beside = arguments.jobs(jobs)
        return view

    def one_call(
        self, timeout: float | None = None, *, jobs: Mapping[str, int] | None = None
    ) -> contextlib.AbstractContextManager[FalClient]:
        """A view of this client whose methods are parts of one call: one deadline, and one sum of what it costs.

        - jobs: how many jobs the call is expected to submit, by role, such as `{"cutout": 1, "text": 2}`

        Raises BudgetExceeded, before anything is sent, if they would cost more than `max_usd` leaves.
        """
        return self._one_call(self._timeout_s(timeout), {} if jobs is None else arguments.jobs(jobs))

    @contextlib.contextmanager
    def _one_call(self, timeout_s: float, jobs: Mapping[str, int]) -> Iterator[FalClient]:
        # What the caller's own block raises is passed on as it is.
        with self._noted(timeout_s, several=True) as call:
            with _border():
                self._afford(call, jobs=jobs)
            yield self.within(call)

    # Text

    def any_llm_complete(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        temperature: float = 0.7,
        max_tokens: int | None = None,
        reasoning: bool | None = None,
        priority: str = "latency",
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> TextResult:
        """Generate text and wait for it.

        On failure, `error` gives the reason, and `error_type`, `retryable` and the other fields of the error document
        are there too. A text that is empty is a failure (`bad_output`).

        Source: https://fal.ai/models/openrouter/router/api
        """
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning, priority)

        def ask(call: Call) -> dict[str, Any]:
            self._afford(call, jobs={"text": 1})
            return _text_result(self._parts().text.ask(call, "text", request, JobKey("text")))

        return cast("TextResult", self._reported(ask, timeout, _NO_TEXT, with_logs=with_logs))

    def any_llm_enterprise(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        temperature: float = 0.7,
        max_tokens: int | None = None,
        reasoning: bool | None = None,
        image_urls: Sequence[str] | None = None,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> EnterpriseResult:
        """Ask a premium model, with images if there are any.

        - prompt: the prompt; each line `Image URL: <url>` in it sends that URL as an image
        - image_urls: http(s) URLs or data URIs of images

        With images the question goes to the vision endpoint and its models, without any to the enterprise text
        endpoint. On failure, `error` gives the reason.

        Source: https://fal.ai/models/openrouter/router/enterprise/api, with images
        https://fal.ai/models/openrouter/router/vision/api
        """
        images = arguments.image_urls(image_urls)
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning)
        images += [url for url in arguments.image_urls(image_urls_in(prompt)) if url not in images]
        request = request._replace(image_urls=tuple(images))

        def ask(call: Call) -> dict[str, Any]:
            self._afford(call, jobs={"vision" if images else "enterprise": 1})
            answer = self._parts().text.ask(call, "enterprise", request, JobKey("enterprise"))
            return {"output": answer.output, "error": None, "raw": answer.result.output, **answer.fields()}

        return cast("EnterpriseResult", self._reported(ask, timeout, _NO_ANSWER, with_logs=with_logs))

    def iter_any_llm(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        temperature: float = 0.7,
        max_tokens: int | None = None,
        reasoning: bool | None = None,
        priority: str = "latency",
        timeout: float | None = None,
    ) -> Iterator[TextEvent]:
        """Generate text and yield each part as it is written.

        `delta` is the new part, `output` the whole text so far. The last event has `partial` False. Raises
        StreamTruncated when the stream ends without that event; the text so far is in `error.partial["output"]`.
        Closing the iterator early closes the connection; fal may bill the text all the same.

        Source: https://fal.ai/models/openrouter/router/api
        """
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning, priority)
        if self._estimates:
            with self._call(timeout) as call:
                self._afford(call, jobs={"text": 1})
        return self._events(request, self._timeout_s(timeout))

    def _events(self, request: TextRequest, timeout_s: float) -> Iterator[TextEvent]:
        call, process = Call(timeout_s, parent=self._around, costs=self._costs()), os.getpid()
        with _border():
            self._afford(call, jobs={"text": 1})
            events = self._parts().text.events(call, request)
        try:
            while True:
                if os.getpid() != process:
                    raise InvalidInput("This stream belongs to the process that opened it. Open another after a fork.")
                with _border():
                    event = next(events, None)
                if event is None:
                    return
                yield event
        finally:
            events.close()
            call.costs.purse.close()

    def any_llm_stream(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        temperature: float = 0.7,
        max_tokens: int | None = None,
        reasoning: bool | None = None,
        priority: str = "latency",
        timeout: float | None = None,
    ) -> None:
        """Print text to stdout as it is written, then a newline. Raises as `iter_any_llm` does."""
        events = self.iter_any_llm(
            prompt,
            system_prompt=system_prompt,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            reasoning=reasoning,
            priority=priority,
            timeout=timeout,
        )
        for event in events:
            _show(event["delta"])
        _show("\n")

    def any_llm_submit(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        temperature: float = 0.7,
        max_tokens: int | None = None,
        reasoning: bool | None = None,
        priority: str = "latency",
        webhook_url: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Submit a job for a text and return its request id at once.

        - webhook_url: the http(s) URL to which fal posts the result when the job is done

        The job runs whether or not anybody waits for it. It is not repeated either: if fal no longer offers its model,
        `any_llm_result` reports `model_gone`, and only the next submit without a `model` uses the successor. Raises
        AmbiguousSubmit when fal may have taken the job without saying so.

        Source: https://fal.ai/docs/documentation/model-apis/inference/queue
        """
        return str(
            self.submit_job(
                prompt,
                system_prompt=system_prompt,
                model=model,
                temperature=temperature,
                max_tokens=max_tokens,
                reasoning=reasoning,
                priority=priority,
                webhook_url=webhook_url,
                timeout=timeout,
            )["request_id"]
        )

    def submit_job(
        self,
        prompt: str,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        temperature: float = 0.7,
        max_tokens: int | None = None,
        reasoning: bool | None = None,
        priority: str = "latency",
        webhook_url: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, str]:
        """Submit a job as `any_llm_submit` does, and return its endpoint as well.

        - webhook_url: the http(s) URL to which fal posts the result when the job is done
        """
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning, priority)
        hook = None if webhook_url is None else arguments.web_url(webhook_url, "webhook_url")
        with self._call(timeout) as call:
            self._afford(call, jobs={"text": 1})
            job = self._parts().text.submit(call, request, hook)
        return {"request_id": job.request_id, "endpoint": job.endpoint.path}

    def any_llm_status(self, request_id: str, with_logs: bool = True, *, timeout: float | None = None) -> StatusResult:
        """The state of a submitted job.

        - with_logs: include fal's log lines

        A job that failed is COMPLETED and has an `error`. Raises NotFound when fal does not know the id.

        Source: https://fal.ai/docs/documentation/model-apis/inference/queue
        """
        with_logs = arguments.flag(with_logs, "with_logs")
        with self._call(timeout) as call:
            jobs = self._parts().jobs
            found = jobs.find(call, "text", request_id, lambda job: jobs.status(call, job, with_logs=with_logs))
        return cast("StatusResult", {"request_id": request_id, **job_state(found)})

    def any_llm_result(self, request_id: str, *, timeout: float | None = None) -> TextResult:
        """The result of a submitted job, in the shape that `any_llm_complete` returns.

        Raises NotReady while the job waits or runs.

        Source: https://fal.ai/docs/documentation/model-apis/inference/queue
        """

        def fetch(call: Call) -> dict[str, Any]:
            return _text_result(self._parts().text.result(call, request_id))

        return cast("TextResult", self._reported(fetch, timeout, _NO_TEXT, but_raise=(NotReady, InvalidInput)))

    def any_llm_cancel(self, request_id: str, *, timeout: float | None = None) -> CancelResult:
        """Cancel a submitted job.

        `status` is "cancelled" (it was waiting), "requested" (it was running, and the model may finish all the same),
        "too_late" (it had ended) or "not_found".

        Source: https://fal.ai/docs/documentation/model-apis/inference/queue
        """
        with self._call(timeout) as call:
            status = self._parts().jobs.cancel_found(call, "text", request_id)
        return {"request_id": request_id, "status": status}

    # Pictures

    def upload_file(self, path: str | PathLike[str], *, shrink: bool = False, timeout: float | None = None) -> str:
        """Upload a local picture to fal's storage and return its public URL.

        - path: the path of a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file
        - shrink: send a photo of more than 4,096 pixels a side or more than 8 MB smaller (default: send every file as
          it is)

        A photo that is sent smaller becomes a JPEG (quality 92, upright, first frame, with the colour profile of an RGB
        photo), or a PNG if parts of it are transparent. A baseline JPEG may have any number of pixels, because it is
        read at a fraction of its size. A progressive JPEG and every other format must be read whole, and may have 128
        million pixels (about 1 GB of memory). This needs Pillow (extra `image`); a picture that Pillow cannot read,
        such as HEIC, raises InvalidInput.

        Source: https://fal.ai/docs/documentation/model-apis/fal-cdn
        """
        image, shrink = local_image(path), arguments.flag(shrink, "shrink")
        with self._call(timeout) as call:
            if shrink:
                image = shrunk(call, image)
            return self._parts().api.upload(call, image.data, image.content_type, image.file_name)

    def background_replace(
        self,
        image: str | PathLike[str] | None = None,
        *,
        prompt: str | None = None,
        image_url: str | None = None,
        ref_image_url: str | None = None,
        remove_bg: bool = True,
        cutout: str | PathLike[str] | None = None,
        seed: int | None = None,
        num_images: int = 1,
        negative_prompt: str | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        image_size: str | Sequence[int] | None = None,
        original_quality: bool | None = None,
        placement: str | None = None,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> PictureResult:
        """Put the product of a photo on the background that `prompt` describes.

        - prompt: the background, in words
        - ref_image_url: a picture of the background, in place of `prompt`
        - cutout: a local path or a URL of the product's cut-out, when it is there already: the photo is not needed, and
          nothing is cut out

        Raises when the cut-out or the picture fails; a cut-out that was made by then is in `error.partial`. Width and
        height are in pixels, the file size in bytes, timings in seconds.

        Source: https://fal.ai/models/bria/replace-background/api
        """
        alone = None if cutout is None else _photo(cutout, None, "cutout")
        source = _photo_unless(alone, image, image_url)
        if ref_image_url is None:
            prompt = arguments.text(prompt, "prompt")
        elif prompt is not None:
            raise InvalidInput("Pass prompt or ref_image_url, not both.")
        remove_bg = arguments.flag(remove_bg, "remove_bg")
        options = arguments.picture_options(
            seed=seed,
            num_images=num_images,
            negative_prompt=negative_prompt,
            aspect_ratio=aspect_ratio,
            resolution=resolution,
            image_size=image_size,
            original_quality=original_quality,
            placement=placement,
            ref_image_url=ref_image_url,
        )
        with self._call(timeout, with_logs=with_logs, several=True) as call:
            parts = self._parts()
            parts.pictures.check(options)
            fitted = parts.fitted(call, source, "cutout" if remove_bg else "photokit")
            self._afford(call, options, jobs={"cutout": int(remove_bg and alone is None)})
            url = parts.url_of(call, fitted)
            product = parts.product.cutout(call, url, alone) if remove_bg or alone is not None else None
            kept: dict[str, Any] = {} if product is None else {"cutout": product}
            product_url = product["url"] if product else url
            try:
                made = call.progress.step(
                    "picture", lambda: parts.pictures.replace_background(call, product_url, prompt, options).all_made()
                )
            except FalError as error:
                raise error.but(partial={**error.partial, **kept}) from error
        result = made.as_result(call.progress.total(), options.num_images)
        return cast("PictureResult", {**result, **kept, **call.costs.told()})

    def remove_background(
        self,
        image: str | PathLike[str] | None = None,
        *,
        image_url: str | None = None,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> PictureResult:
        """Cut the product out of a photo. The picture is a transparent PNG.

        Source: https://fal.ai/models/fal-ai/bria/background/remove/api
        """
        source = _photo(image, image_url)
        with self._call(timeout, with_logs=with_logs) as call:
            self._afford(call, jobs={"cutout": 1})
            url, pictures = uploaded(call, self._parts().api, source), self._parts().pictures
            picture = call.progress.step(
                "cutout", lambda: pictures.cut_out(call, url), lambda made: {"image_url": made.image["url"]}
            )
        return cast("PictureResult", {**picture.as_result(call.progress.total()), "cost_usd": call.costs.total()})

    # The product

    def analyze_product_image(
        self,
        image: str | PathLike[str] | None = None,
        *,
        image_url: str | None = None,
        model: str | None = None,
        temperature: float = 0.3,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> AnalysisResult:
        """Find the nine categories of the product in a picture.

        If the model leaves categories out, or its answer cannot be read, it is asked once more. A category that is
        missing both times is "Unknown". If neither answer gives any category, `error` is set, `error_type` is
        `bad_output`, and `raw_output` keeps what the model wrote first.

        Source: https://fal.ai/models/openrouter/router/vision/api
        """
        source, model = _photo(image, image_url), arguments.optional_text(model, "model")
        temperature = arguments.temperature(temperature)

        def analyse(call: Call) -> dict[str, Any]:
            self._afford(call, jobs={"vision": 1})
            url = uploaded(call, self._parts().api, source)
            found = self._parts().product.analyse(call, url, model, temperature)
            return {
                "categories": found.categories,
                "error": None,
                "raw_output": found.answer.output,
                **found.answer.fields(),
            }

        empty: dict[str, Any] = {"categories": {}, "error": None, "raw_output": ""}
        return cast("AnalysisResult", self._reported(analyse, timeout, empty, with_logs=with_logs))

    def generate_background_prompt(
        self,
        categories: AnyCategories,
        style_type: str,
        *,
        model: str | None = None,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> PromptResult:
        """Write a background prompt that suits a product.

        - style_type: the style of the background, in words

        `prompt` is always usable: on failure it is a plain prompt made of the style, and `error` gives the reason.

        Source: https://fal.ai/models/openrouter/router/enterprise/api
        """
        known, style = arguments.categories(categories), arguments.text(style_type, "style_type")
        model = arguments.optional_text(model, "model")

        def write(call: Call) -> dict[str, Any]:
            self._afford(call, jobs={"enterprise": 1})
            answer = self._parts().product.background_prompt(call, known, style, JobKey("prompt"), model)
            return {"prompt": answer.output.strip(), "error": None, **answer.fields()}

        empty = {"prompt": plain_background(known, style), "error": None}
        return cast("PromptResult", self._reported(write, timeout, empty, with_logs=with_logs))

    def generate_multiple_backgrounds(
        self,
        image: str | PathLike[str] | None = None,
        categories: AnyCategories | None = None,
        *,
        image_url: str | None = None,
        styles: Styles | None = None,
        remove_bg: bool = True,
        cutout: str | PathLike[str] | None = None,
        seed: int | None = None,
        num_images: int = 1,
        negative_prompt: str | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        image_size: str | Sequence[int] | None = None,
        original_quality: bool | None = None,
        placement: str | None = None,
        with_logs: bool = False,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> BackgroundsResult:
        """Put the product on several backgrounds, side by side.

        - cutout: a local path or a URL of the product's cut-out, when it is there already: the photo is not needed, and
          nothing is cut out

        The product is cut out once, while the prompts are written. Pictures come back in the order of `styles`.
        `errors` lists the styles that failed, and those whose prompt fell back to a plain one (`stage` "prompt", the
        picture is still made); it is None when there are none. A failed style does not raise.

        Source: https://fal.ai/models/bria/replace-background/api
        """
        alone = None if cutout is None else _photo(cutout, None, "cutout")
        source, known = _photo_unless(alone, image, image_url), arguments.categories(categories)
        wanted, remove_bg = arguments.styles(styles), arguments.flag(remove_bg, "remove_bg")
        options = arguments.picture_options(
            seed=seed,
            num_images=num_images,
            negative_prompt=negative_prompt,
            aspect_ratio=aspect_ratio,
            resolution=resolution,
            image_size=image_size,
            original_quality=original_quality,
            placement=placement,
        )
        with self._call(timeout, with_logs=with_logs, on_progress=on_progress, several=True) as call:
            parts = self._parts()
            parts.pictures.check(options)
            fitted = parts.fitted(call, source, "cutout" if remove_bg else "photokit")
            jobs = {"cutout": int(remove_bg and alone is None), "enterprise": len(wanted)}
            self._afford(call, options, len(wanted), jobs=jobs)
            url = parts.url_of(call, fitted)
            result = parts.product.backgrounds(call, url, known, wanted, options, remove_bg=remove_bg, given=alone)
        return cast("BackgroundsResult", {**result, **call.costs.told()})

    def product_workflow(
        self,
        image: str | PathLike[str],
        *,
        styles: Styles | None = None,
        language: str = DEFAULT_LANGUAGE,
        tone: str | None = None,
        length: int | None = None,
        facts: Mapping[str, Any] | None = None,
        cutout: str | PathLike[str] | None = None,
        shrink: bool = False,
        seed: int | None = None,
        num_images: int = 1,
        negative_prompt: str | None = None,
        aspect_ratio: str | None = None,
        resolution: str | None = None,
        image_size: str | Sequence[int] | None = None,
        original_quality: bool | None = None,
        placement: str | None = None,
        with_logs: bool = False,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> WorkflowResult:
        """Upload a photo, analyse the product, make pictures of it and write a description.

        - image: a local path or a URL of the product photo
        - language: the language of the description
        - tone: the tone of the description, in your own words
        - length: about how many words the description has, 10 to 2,000 (default: two sentences)
        - facts: what is known of the product, as names and values: `{"material": "ceramic", "size": "350 ml"}`. The
          model is told to state nothing that is neither there nor in the categories
        - cutout: a local path or a URL of the product's cut-out, when it is there already: it is not cut out, and not
          paid, again

        Steps run side by side where they can. `shrink` applies to local photos only. Raises when the upload or the
        analysis fails; what exists by then is in `error.partial`. Other failures are listed in `errors`.
        """
        wanted, described = arguments.styles(styles), arguments.description(language, tone, length, facts)
        source, alone = _photo(image, None), None if cutout is None else _photo(cutout, None, "cutout")
        shrink = arguments.flag(shrink, "shrink")
        options = arguments.picture_options(
            seed=seed,
            num_images=num_images,
            negative_prompt=negative_prompt,
            aspect_ratio=aspect_ratio,
            resolution=resolution,
            image_size=image_size,
            original_quality=original_quality,
            placement=placement,
        )
        with self._call(timeout, with_logs=with_logs, on_progress=on_progress, several=True) as call:
            parts = self._parts()
            parts.pictures.check(options)
            if shrink:
                source = shrunk(call, source)
            source = parts.pictures.fit(call, source, "cutout")
            jobs = {"vision": 1, "cutout": int(alone is None), "enterprise": len(wanted), "text": 1}
            self._afford(call, options, len(wanted), jobs=jobs)
            result = parts.workflow.run(call, source, wanted, described, options, alone)
        return cast("WorkflowResult", {**result, **call.costs.told()})

    def save(
        self,
        result: Mapping[str, Any],
        directory: str | PathLike[str],
        *,
        name: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Download every picture of a result, and return the result with `path`, `sha256`, `width` and `height` beside
        each picture's URL.

        - result: what a method that makes pictures returned
        - directory: the folder for the files; it is created if it does not exist
        - name: what the files are named after, such as a SKU; it is kept as it is given

        A picture of one style is named after its number and style, a cut-out "cutout", any other "picture". Raises the
        first error when a picture cannot be saved; the others are saved all the same, and `error.partial` is the
        result with their paths.
        """
        name, folder = arguments.optional_text(name, "name"), arguments.folder(directory, "directory")
        if not isinstance(result, Mapping):
            raise InvalidInput("result must be the result of a method that makes pictures.")
        with self._call(timeout) as call:
            return self._parts().downloads.save_result(call, result, folder, name)

    def save_picture(
        self, url: str, directory: str | PathLike[str], name: str, *, timeout: float | None = None
    ) -> Path:
        """Download a picture that fal made, and return the path of the file.

        - url: the https URL of the picture, on a host where fal keeps files or that `FAL_DOWNLOAD_HOSTS` names
        - directory: the folder for the file; it is created if it does not exist
        - name: the file name without an extension, kept as it is given, but no part of a path; PNG, JPEG, WebP, GIF or
          AVIF is recognised by the first bytes

        The file is written whole or not at all, and may have at most 50 MiB. The key is not sent.
        """
        url, name = arguments.text(url, "url"), arguments.string(name, "name")
        folder = arguments.folder(directory, "directory")
        with self._call(timeout) as call:
            return self._parts().downloads.save(call, url, folder, name)

    # What it costs

    def prices(self, endpoints: Sequence[str] | None = None, *, timeout: float | None = None) -> list[PriceRow]:
        """What one unit of each endpoint costs at fal. Sends no job.

        - endpoints: the endpoints (default: those in use, one for each role)

        Each is `{"endpoint", "role", "unit_price", "unit", "currency"}`; the last three are None for an endpoint that
        fal names no price of, and `role` is None for one that is not in use. Prices are read once per process. A
        language model's own price is not among them: its answer tells what it cost.

        Source: https://fal.ai/docs/api-reference/platform-apis
        """
        given = None if endpoints is None else arguments.endpoints(endpoints)
        with self._call(timeout) as call:
            used = self._parts().estimates.in_use()
            names = list(used) if given is None else given
            found = self._parts().prices.read(call, names)
        return cast("list[PriceRow]", as_rows({name: used.get(name) for name in names}, found))

    def estimate(self, method: str, **options: Any) -> Estimate:
        """What a call of `method` would cost, without making it: `client.estimate("product_workflow", num_images=2)`.

        - method: the name of a method of this class that costs money
        - options: its arguments; a photo, a prompt or categories may be left out, since they do not change the price

        Options that the method would refuse are refused here. Each endpoint is listed with its calls. `about` tells
        that language models are among them, whose price is taken from the dearest answer of this process so far, at
        first $0.005 for a question and $0.01 for one about a picture. `cost_usd` is None if a price is not known or
        not known ahead; then `unknown` says why. Failures and second questions are not counted. Raises a FalError if
        fal's prices cannot be read.
        """
        if not isinstance(method, str) or method not in STAND_INS:
            raise InvalidInput(f"method must be one of {', '.join(STAND_INS)}, not {str(method)[:100]!r}.")
        arguments.known(options, vars(FalClient)[method])
        return self.estimate_of(lambda view: getattr(view, method)(**{**stand_ins(method, options), **options}))

    def estimate_of(self, action: Callable[[FalClient], object]) -> Estimate:
        """What `action` would cost, called with a view of this client that stops before anything is sent. An action
        that costs nothing runs to its end.

        - action: calls one method that costs money, such as `lambda view: Shop(view).listing(categories)`
        """
        if not callable(action):
            raise InvalidInput(f"action must be callable with a client, not {action!r}.")
        view = copy.copy(self)
        view._estimates = True
        try:
            action(view)
        except _Estimated as made:
            return made.estimate
        return {"cost_usd": 0.0, "about": False, "endpoints": [], "unknown": None}

    def doctor(self, *, timeout: float | None = None) -> DoctorResult:
        """Versions, settings with the key masked, models that end, and whether this key reaches fal. Sends no job."""
        with self._call(timeout) as call:
            return examine(call, self._settings, self._parts().api)

    # One call

    def _timeout_s(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else check_timeout(timeout)

    def _costs(self) -> Costs:
        return Costs(None if self._around is None else self._around.costs, life=self._shared.purse)

    def _afford(
        self, call: Call, options: PictureOptions | None = None, prompts: int = 1, *, jobs: Mapping[str, int]
    ) -> None:
        """Set aside what a call is expected to cost: jobs by role, and pictures with `options` of so many prompts.

        Raises BudgetExceeded: this comes before anything is sent.
        """
        if not (self._estimates or call.costs.purse.is_limited):
            return
        estimates = self._parts().estimates
        all_jobs = {role: jobs.get(role, 0) + self._beside.get(role, 0) for role in (*jobs, *self._beside)}
        plan = estimates.plan(all_jobs, options, prompts)
        if self._estimates:
            raise _Estimated(estimates.of(call, plan))
        estimates.set_aside(call, plan)

    @contextlib.contextmanager
    def _call(
        self,
        timeout: float | None,
        *,
        with_logs: bool = False,
        on_progress: OnProgress | None = None,
        several: bool = False,
    ) -> Iterator[Call]:
        """One call: its deadline, its progress, its costs, and our errors only. `several` jobs are told one by one."""
        with self._noted(timeout, with_logs=with_logs, on_progress=on_progress, several=several) as call, _border():
            yield call

    @contextlib.contextmanager
    def _noted(
        self,
        timeout: float | None,
        *,
        with_logs: bool = False,
        on_progress: OnProgress | None = None,
        several: bool = False,
    ) -> Iterator[Call]:
        """`_call` with whatever errors there are; ours tell what was spent."""
        timeout_s, with_logs = self._timeout_s(timeout), arguments.flag(with_logs, "with_logs")
        if on_progress is not None and not callable(on_progress):
            raise InvalidInput(f"on_progress must be callable with one event, not {on_progress!r}.")
        around = None if self._around is None else self._around.progress
        progress = Progress(on_progress, with_logs=with_logs, parent=around)
        costs = self._costs()
        with Call(timeout_s, parent=self._around, progress=progress, costs=costs) as call:
            try:
                yield call
            except FalError as error:
                if costs.has_jobs:
                    error.partial = {**error.partial, **(costs.told() if several else {"cost_usd": costs.total()})}
                raise
            finally:
                costs.purse.close()

    def _reported(
        self,
        action: Callable[[Call], dict[str, Any]],
        timeout: float | None,
        empty: dict[str, Any],
        but_raise: tuple[type[FalError], ...] = (InvalidInput,),
        *,
        with_logs: bool = False,
    ) -> dict[str, Any]:
        """`action` as one call, its failure told under `error` beside the empty values of its result."""
        try:
            with self._call(timeout, with_logs=with_logs) as call:
                return {**action(call), "cost_usd": call.costs.total()}
        except but_raise:
            raise
        except FalError as error:
            return {**empty, **report(error)}

    def _parts(self) -> _Parts:
        return self._shared.parts()


class _Parts:
    """What a client works with: all of it shares one TLS context and one set of connections."""

    def __init__(self, settings: Settings, api: FalApi) -> None:
        # Another account, or another way to fal, may still be offered an endpoint or a model that is gone for this one.
        account = hash((settings.key, getproxies().get("https")))
        endpoints = Endpoints(settings.endpoints, account)
        self.api = api
        self.prices = Prices(api, account)
        self.estimates = Estimates(self.prices, endpoints)
        self.jobs = Jobs(api, endpoints, self.estimates, settings.max_concurrency)
        self.text = TextModels(self.jobs, api, Models(settings.models, endpoints))
        self.pictures = PictureModels(self.jobs, endpoints, api)
        self.product = ProductModels(self.text, self.pictures, api)
        self.workflow = Workflow(api, self.product)
        self.downloads = Downloads(api, settings.download_hosts)

    def fitted(self, call: Call, source: LocalImage | str | None, role: str) -> LocalImage | str | None:
        """A photo as the endpoint for `role` takes it, when there is one."""
        return None if source is None else self.pictures.fit(call, source, role)

    def url_of(self, call: Call, source: LocalImage | str | None) -> str:
        """The URL of a photo, which is uploaded when it is a file; empty without one."""
        return "" if source is None else uploaded(call, self.api, source)


class _Shared:
    """What a client and its views have in common."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.purse = Purse(settings.max_usd)
        """What all calls of the client may cost together."""
        self._lock = threading.Lock()
        self._made: _Parts | None = None
        self._closed = False
        _in_use.add(self)

    def parts(self) -> _Parts:
        """Made at the first call: httpx and fal-client, on which `fal_api.py` stands, take a tenth of a second.

        Meanwhile OpenSSL reads the certificates, for which it does not need Python's lock.
        """
        with self._lock:
            if self._closed:
                raise InvalidInput("This FalClient is closed. Create a new one.")
            if self._made is None:
                tls = Task(tls_context)
                from services.fal.fal_api import FalApi

                self._made = _Parts(self._settings, FalApi(self._settings, tls.result()))
            return self._made

    def close(self) -> None:
        with self._lock:
            self._closed = True
            parts, self._made = self._made, None
        if parts is not None:
            parts.api.close()

    def forget_parent_process(self) -> None:
        """In the child of a fork: connections, places and locks are the parent's; ours are made anew when needed.

        The parent's are not closed here: their locks may be held by threads that exist in the parent alone.
        """
        self._lock = threading.Lock()
        self._made = None


_in_use: weakref.WeakSet[_Shared] = weakref.WeakSet()


def _forget_parent_process() -> None:
    for shared in list(_in_use):
        shared.forget_parent_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent_process)


class _Estimated(BaseException):
    """Carries an estimate out of a method that is not to go on; no Exception, so that none takes it for a failure."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__()
        self.estimate = estimate


@contextlib.contextmanager
def _border() -> Iterator[None]:
    """Whatever leaves here is one of our errors."""
    try:
        yield
    except FalError:
        raise
    except Exception as error:
        raise as_fal_error(error) from error


def _text_request(
    prompt: str,
    model: str | None,
    system_prompt: str | None,
    temperature: float,
    max_tokens: int | None,
    reasoning: bool | None,
    priority: str | None = None,
) -> TextRequest:
    return TextRequest(
        prompt=arguments.text(prompt, "prompt"),
        model=arguments.optional_text(model, "model"),
        system_prompt=arguments.optional_text(system_prompt, "system_prompt"),
        temperature=arguments.temperature(temperature),
        max_tokens=arguments.max_tokens(max_tokens),
        reasoning=None if reasoning is None else arguments.flag(reasoning, "reasoning"),
        priority=None if priority is None else arguments.priority(priority),
    )


def _text_result(answer: Any) -> dict[str, Any]:
    raw = answer.result.output
    return {
        "output": answer.output,
        "reasoning": raw.get("reasoning") if isinstance(raw.get("reasoning"), str) else None,
        "partial": bool(raw.get("partial", False)),
        "error": None,
        "raw": raw,
        **answer.fields(),
    }


def _show(text: str) -> None:
    """To stdout at once; a letter that its encoding does not have is escaped, since the text is paid for."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _photo(image: object, image_url: object, name: str = "image") -> LocalImage | str:
    """A photo that may be a local file when it is given as `image`, and never when it is given as `image_url`."""
    if image is not None and image_url is not None:
        raise InvalidInput("Pass image or image_url, not both: they name the same photo.")
    if image is None:
        return arguments.image_url(image_url)
    return arguments.image_url(image, name) if arguments.is_url(image) else local_image(image, name)


def _photo_unless(cutout: LocalImage | str | None, image: object, image_url: object) -> LocalImage | str | None:
    """The photo that is sent: None when the `cutout` goes in its place."""
    if cutout is None:
        return _photo(image, image_url)
    if image is not None or image_url is not None:
        _photo(image, image_url)  # what is wrong with it is told all the same
    return None


if __name__ == "__main__":
    from services.fal.smoke_test import main

    sys.exit(main(FalClient))
