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
from services.fal.call import Call
from services.fal.doctor import examine
from services.fal.downloads import Downloads
from services.fal.endpoints import Endpoints
from services.fal.errors import FalError, InvalidInput, NotReady, as_fal_error, report
from services.fal.image_files import local_image, shrunk
from services.fal.jobs import Jobs
from services.fal.picture_models import PictureModels
from services.fal.product import ProductModels, Workflow
from services.fal.progress import Progress
from services.fal.prompts import plain_background
from services.fal.responses import job_state
from services.fal.settings import Settings, check_timeout, resolve
from services.fal.text_models import Models, TextModels, TextRequest, image_urls_in

if TYPE_CHECKING:
    from pathlib import Path

    from services.fal.fal_api import FalApi
    from services.fal.results import (
        AnalysisResult,
        AnyCategories,
        BackgroundsResult,
        CancelResult,
        EnterpriseResult,
        PictureResult,
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
    """One client for all of it, safe to share between threads and over a fork; close it with `close()` or `with`.

    Settings come from the argument, then the environment, then a `.env` file, then the default:

    - key: `FAL_KEY`, else `FAL_API_KEY`, else `FAL_KEY_ID` and `FAL_KEY_SECRET`;
    - timeout: total seconds that one call may take, `FAL_TIMEOUT_S`, 110;
    - max_concurrency: model calls at once, `FAL_MAX_CONCURRENCY`, 8;
    - env_file: the `.env` file; without it each setting is looked for in `./.env`, then `backend/.env`;
    - endpoints: `FAL_TEXT_ENDPOINT`, `FAL_ENTERPRISE_ENDPOINT`, `FAL_VISION_ENDPOINT`, `FAL_PHOTOKIT_ENDPOINT`,
      `FAL_CUTOUT_ENDPOINT`; log on stderr: `FAL_LOG`;
    - models that are asked when a call names none, with their successors: `FAL_TEXT_MODEL`, `FAL_ENTERPRISE_MODEL`,
      `FAL_VISION_MODEL`, `FAL_PROMPT_MODEL`. A model that a call names is never replaced (ModelGone).

    Every method that waits takes `timeout` (seconds for everything it does: queue, run, download) and `with_logs`
    (fal's log lines to stderr). Methods whose result has `error` report failures there; the others raise a
    `services.fal.errors.FalError`. Bad arguments raise `InvalidInput` (a ValueError) in both, before any request.
    """

    def __init__(
        self,
        key: str | None = None,
        *,
        timeout: float | None = None,
        max_concurrency: int | None = None,
        env_file: str | PathLike[str] | None = None,
    ) -> None:
        """Raises MissingKey when no key is found, InvalidInput for a setting that makes no sense."""
        self._settings: Settings = resolve(key=key, timeout=timeout, max_concurrency=max_concurrency, env_file=env_file)
        if self._settings.log != "off":
            log.to_stderr(self._settings.log)
        self._shared = _Shared(self._settings)
        self._around: Call | None = None
        """The call that the calls of this view are parts of."""

    def __repr__(self) -> str:
        return f"FalClient(timeout={self.timeout:g})"

    @property
    def timeout(self) -> float:
        """Seconds that a call may take when it is not told otherwise."""
        return self._settings.timeout_s

    @property
    def max_concurrency(self) -> int:
        """Model calls that run at once."""
        return self._settings.max_concurrency

    def __enter__(self) -> FalClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. The client cannot be used afterwards, nor can any view of it (`within`)."""
        self._shared.close()

    @property
    def call(self) -> Call | None:
        """The call that this view's calls are parts of (`within`); None for a client itself."""
        return self._around

    def within(self, call: Call) -> FalClient:
        """A view of this client whose methods are parts of `call`: they end with it, and tell its progress.

        So a call can be stopped from another thread, or several be given one deadline:

            call = Call(60, progress=Progress(print))
            client.within(call).product_workflow("photo.jpg")  # meanwhile elsewhere: call.cancel()
        """
        if not isinstance(call, Call):
            raise InvalidInput(f"call must be a services.fal.call.Call, not {call!r}.")
        view = copy.copy(self)
        view._around = call
        return view

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

        Returns `{"output", "reasoning", "partial", "error", "raw"}` and what is known of `request_id`, `usage` and
        `billable_units`; on a failure `error` says why and `error_type`, `retryable`, ... stand beside it.
        `temperature` is 0 to 2; `priority` is "latency" or "throughput" (for fal-ai/any-llm only); `reasoning` has the
        model think first, or not, and is left to the model when it is None.
        Source: https://fal.ai/models/openrouter/router/api
        """
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning, priority)

        def ask(call: Call) -> dict[str, Any]:
            return _text_result(self._parts().text.ask(call, "text", request))

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
        """Ask a premium model, with images when there are any.

        Images are `image_urls` (http(s) URLs or data URIs) and the URLs of lines `Image URL: <url>` in the prompt.
        Returns `{"output", "error", "raw"}` and what `any_llm_complete` returns beside its keys.
        Source: https://fal.ai/models/openrouter/router/enterprise/api, with images .../router/vision/api
        """
        images = arguments.image_urls(image_urls)
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning)
        images += [url for url in arguments.image_urls(image_urls_in(prompt)) if url not in images]
        request = request._replace(image_urls=tuple(images))

        def ask(call: Call) -> dict[str, Any]:
            answer = self._parts().text.ask(call, "enterprise", request)
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
        """Generate text as it is written: events `{"delta", "output", "partial", "usage"}`.

        `output` is the whole text so far; the last event has `partial` False. Raises StreamTruncated when the
        stream ends without it, with the text so far in `error.partial["output"]`.
        """
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning, priority)
        return self._events(request, self._timeout_s(timeout))

    def _events(self, request: TextRequest, timeout_s: float) -> Iterator[TextEvent]:
        call, process = Call(timeout_s, parent=self._around), os.getpid()
        with _border():
            events = self._parts().text.events(call, request)
        try:
            while True:
                if os.getpid() != process:
                    raise InvalidInput("This stream belongs to the process that began it. Begin one of your own.")
                with _border():
                    event = next(events, None)
                if event is None:
                    return
                yield event
        finally:
            events.close()

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
        """Print text to stdout as it is written, and a newline at its end. Raises as `iter_any_llm` does."""
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
        """Submit a job and return its request id at once. fal posts the result to `webhook_url` when it is done.

        Raises AmbiguousSubmit when fal may have taken the job without saying so.
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
        """As `any_llm_submit`, returning `{"request_id", "endpoint"}`."""
        request = _text_request(prompt, model, system_prompt, temperature, max_tokens, reasoning, priority)
        hook = None if webhook_url is None else arguments.web_url(webhook_url, "webhook_url")
        with self._call(timeout) as call:
            job = self._parts().text.submit(call, request, hook)
        return {"request_id": job.request_id, "endpoint": job.endpoint.path}

    def any_llm_status(self, request_id: str, with_logs: bool = True, *, timeout: float | None = None) -> StatusResult:
        """The state of a submitted job: `{"status", "queue_position", "logs", "metrics", "error", "error_type"}`.

        `status` is "IN_QUEUE", "IN_PROGRESS" or "COMPLETED"; a failed job is COMPLETED with `error`.
        Raises NotFound when fal does not know the id.
        """
        with_logs = arguments.flag(with_logs, "with_logs")
        with self._call(timeout) as call:
            jobs = self._parts().jobs
            found = jobs.find(call, "text", request_id, lambda job: jobs.status(call, job, with_logs=with_logs))
        return cast("StatusResult", {"request_id": request_id, **job_state(found)})

    def any_llm_result(self, request_id: str, *, timeout: float | None = None) -> TextResult:
        """The result of a submitted job, as `any_llm_complete` returns it. Raises NotReady while it runs."""

        def fetch(call: Call) -> dict[str, Any]:
            return _text_result(self._parts().text.result(call, request_id))

        return cast("TextResult", self._reported(fetch, timeout, _NO_TEXT, but_raise=(NotReady, InvalidInput)))

    def any_llm_cancel(self, request_id: str, *, timeout: float | None = None) -> CancelResult:
        """Stop a submitted job: `{"status": "cancelled" | "requested" | "too_late" | "not_found"}`."""
        with self._call(timeout) as call:
            status = self._parts().jobs.cancel_found(call, "text", request_id)
        return {"request_id": request_id, "status": status}

    # Pictures

    def upload_file(self, path: str | PathLike[str], *, shrink: bool = False, timeout: float | None = None) -> str:
        """Upload a local picture (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC) to fal's storage; its public URL.

        With `shrink`, a photo of more than 4,096 pixels a side or 8 MB is sent smaller (needs Pillow).
        """
        image, shrink = local_image(path), arguments.flag(shrink, "shrink")
        with self._call(timeout) as call:
            if shrink:
                image = shrunk(call, image)
            return self._parts().api.upload(call, image.data, image.content_type, image.file_name)

    def background_replace(
        self,
        image_url: str,
        *,
        prompt: str,
        remove_bg: bool = True,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> PictureResult:
        """Put the product of a photo on the background that `prompt` describes.

        With `remove_bg` the product is cut out first, and the cut-out is given to the photokit.
        Returns `{"image": {"url", "width", "height", "content_type", "file_size"}, "timings"}`; sizes in pixels and
        bytes, timings in seconds. Source: https://fal.ai/models/bria/replace-background/api
        """
        url, prompt = arguments.image_url(image_url), arguments.text(prompt, "prompt")
        remove_bg = arguments.flag(remove_bg, "remove_bg")
        with self._call(timeout, with_logs=with_logs) as call:
            parts = self._parts()
            product_url = parts.product.cut_out(call, url) if remove_bg else url
            picture = call.progress.step(
                "picture", lambda: parts.pictures.replace_background(call, product_url, prompt)
            )
        return cast("PictureResult", picture.as_result(call.progress.total()))

    def remove_background(
        self, image_url: str, *, with_logs: bool = False, timeout: float | None = None
    ) -> PictureResult:
        """Cut the product out: the shape of `background_replace`, with a transparent PNG.

        Source: https://fal.ai/models/fal-ai/bria/background/remove/api
        """
        url = arguments.image_url(image_url)
        with self._call(timeout, with_logs=with_logs) as call:
            pictures = self._parts().pictures
            picture = call.progress.step(
                "cutout", lambda: pictures.cut_out(call, url), lambda made: {"image_url": made.image["url"]}
            )
        return cast("PictureResult", picture.as_result(call.progress.total()))

    # The product

    def analyze_product_image(
        self,
        image_url: str,
        *,
        model: str | None = None,
        temperature: float = 0.3,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> AnalysisResult:
        """The nine categories of the product in a picture: `{"categories", "error", "raw_output"}`.

        A category that the model leaves out, or an answer that cannot be read, is asked for once more; a category
        that is missing twice is "Unknown". When neither answer gives any, the error is `bad_output`.
        """
        url, model = arguments.image_url(image_url), arguments.optional_text(model, "model")
        temperature = arguments.temperature(temperature)

        def analyse(call: Call) -> dict[str, Any]:
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
        """A background prompt that suits a product: `{"prompt", "error"}`.

        `prompt` is always usable: on an error it is a plain one built from `style_type`, and `error` says why.
        """
        known, style = arguments.categories(categories), arguments.text(style_type, "style_type")
        model = arguments.optional_text(model, "model")

        def write(call: Call) -> dict[str, Any]:
            answer = self._parts().product.background_prompt(call, known, style, model)
            return {"prompt": answer.output.strip(), "error": None, **answer.fields()}

        empty = {"prompt": plain_background(known, style), "error": None}
        return cast("PromptResult", self._reported(write, timeout, empty, with_logs=with_logs))

    def generate_multiple_backgrounds(
        self,
        image_url: str,
        categories: AnyCategories,
        *,
        styles: Styles | None = None,
        remove_bg: bool = True,
        with_logs: bool = False,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> BackgroundsResult:
        """The product on several backgrounds, side by side, in the order of `styles`.

        `styles` is a list of `{"name", "description"}` or of names of the default ones (Studio, Lifestyle, Premium,
        which None means). The product is cut out once, at the same time as the prompts are written.
        Returns `{"images", "total_generated", "total_requested", "errors", "timings"}`; `errors` lists the styles
        that failed, or whose prompt fell back to a plain one, and is None when there are none.
        """
        url, known = arguments.image_url(image_url), arguments.categories(categories)
        wanted, remove_bg = arguments.styles(styles), arguments.flag(remove_bg, "remove_bg")
        with self._call(timeout, with_logs=with_logs, on_progress=on_progress) as call:
            result = self._parts().product.backgrounds(call, url, known, wanted, remove_bg)
        return cast("BackgroundsResult", result)

    def product_workflow(
        self,
        image: str | PathLike[str],
        *,
        styles: Styles | None = None,
        language: str = "Turkish",
        shrink: bool = False,
        with_logs: bool = False,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> WorkflowResult:
        """All of it from one photo, a local path or a URL: upload, categories, pictures, description.

        `shrink` is for a local photo, as `upload_file` has it.

        Returns `{"image_url", "categories", "images", "description", "total_generated", "total_requested", "errors",
        "timings"}`. Raises when the upload or the analysis fails; what was made by then is in `error.partial`.
        """
        wanted, language = arguments.styles(styles), arguments.text(language, "language")
        source = arguments.image_url(image, "image") if _is_url(image) else local_image(image, "image")
        shrink = arguments.flag(shrink, "shrink")
        with self._call(timeout, with_logs=with_logs, on_progress=on_progress) as call:
            if shrink:
                source = shrunk(call, source)
            return cast("WorkflowResult", self._parts().workflow.run(call, source, wanted, language))

    def save_picture(
        self, url: str, directory: str | PathLike[str], name: str, *, timeout: float | None = None
    ) -> Path:
        """Download a picture that fal made into `directory`; its path, `name` with an extension."""
        url, name = arguments.text(url, "url"), arguments.string(name, "name")
        folder = arguments.folder(directory, "directory")
        with self._call(timeout) as call:
            return self._parts().downloads.save(call, url, folder, name)

    def doctor(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Settings (the key masked) and whether fal's hosts can be reached with this key."""
        with self._call(timeout) as call:
            return examine(call, self._settings, self._parts().api)

    # One call

    def _timeout_s(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else check_timeout(timeout)

    @contextlib.contextmanager
    def _call(
        self, timeout: float | None, *, with_logs: bool = False, on_progress: OnProgress | None = None
    ) -> Iterator[Call]:
        """One call: its deadline, its progress, and our errors only."""
        timeout_s, with_logs = self._timeout_s(timeout), arguments.flag(with_logs, "with_logs")
        if on_progress is not None and not callable(on_progress):
            raise InvalidInput(f"on_progress must be a function of one event, not {on_progress!r}.")
        around = None if self._around is None else self._around.progress
        progress = Progress(on_progress, with_logs=with_logs, parent=around)
        with Call(timeout_s, parent=self._around, progress=progress) as call, _border():
            yield call

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
                return action(call)
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
        self.jobs = Jobs(api, endpoints, settings.max_concurrency)
        self.text = TextModels(self.jobs, api, Models(settings.models, endpoints))
        self.pictures = PictureModels(self.jobs, endpoints, api)
        self.product = ProductModels(self.text, self.pictures)
        self.workflow = Workflow(api, self.product)
        self.downloads = Downloads(api, settings.download_hosts)


class _Shared:
    """What a client and its views have in common."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: _Parts | None = None
        self._closed = False
        _in_use.add(self)

    def parts(self) -> _Parts:
        """Made at the first call: httpx and fal-client, on which `fal_api.py` stands, take a tenth of a second."""
        with self._lock:
            if self._closed:
                raise InvalidInput("This FalClient is closed. Make a new one.")
            if self._made is None:
                from services.fal.fal_api import FalApi

                self._made = _Parts(self._settings, FalApi(self._settings))
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


def _is_url(image: object) -> bool:
    return isinstance(image, str) and image.lower().startswith(("http://", "https://", "data:"))


if __name__ == "__main__":
    from services.fal.smoke_test import main

    sys.exit(main(FalClient))
