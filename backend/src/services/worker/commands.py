"""The command table: every command's name, options, handler and the values of its result when it fails.

One table for every way in: the command line today, and whatever else speaks the same options. A handler takes a
client and the options as a dict and returns a JSON document; it never prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from services.fal.errors import FalError
from services.worker.options import Option

if TYPE_CHECKING:
    from services.fal_service import FalClient
    from services.worker.output import JsonStdout

Values = Mapping[str, Any]
Document = dict[str, Any]
Progress = Callable[[Any], None]
Handler = Callable[["FalClient", Values, Progress], Document]
Streamer = Callable[["FalClient", Values, Progress], Iterator[Document]]
Local = Callable[[Values], Document]
Program = Callable[[Values, "JsonStdout"], int]

TIMEOUT = Option("timeout", "number", "total seconds for everything the command does (FAL_TIMEOUT_S, 110)")
ENV_FILE = Option("env_file", "path", "the .env file with FAL_KEY (without it: ./.env, then backend/.env)")
LOGS = Option("with_logs", "flag", "fal's log lines to stderr")
COMMON = (TIMEOUT, ENV_FILE)

PROMPT = Option("prompt", "text", "the prompt", required=True)
MODEL = Option("model", "text", "the model, as OpenRouter names it; it is never replaced by another")
TEMPERATURE = Option("temperature", "number", "0 to 2")
SYSTEM = Option("system", "text", "the system prompt")
MAX_TOKENS = Option("max_tokens", "integer", "the most tokens to generate")
REASONING = Option("reasoning", "flag", "have the model think first, or not (left to the model)")
PRIORITY = Option("priority", "text", "latency or throughput (fal-ai/any-llm only)")
REQUEST_ID = Option("request_id", "text", "the id that any-llm-submit printed", required=True)
IMAGE_URL = Option("image_url", "text", "an http(s) URL or a data URI of an image", required=True)
CATEGORIES = Option("categories", "json", "the categories, as analyze-product prints them", required=True)
STYLES = Option("styles", "json", 'a list of {"name", "description"}, or of names of the default styles')
CONCURRENCY = Option("concurrency", "integer", "calls that run side by side (8)")
MAX_PENDING = Option("max_pending", "integer", "calls that may wait for a place; more are answered `busy` (1000)")
QUEUE_TIMEOUT = Option(
    "queue_timeout", "number", "seconds that a call may wait for a place; then it is answered `busy` (no limit)"
)
SHRINK = Option("shrink", "flag", "send a photo of over 4,096 pixels a side or 8 MB smaller; needs Pillow (false)")
REMOVE_BG = Option("remove_bg", "flag", "cut the product out first (true)")
PORT = Option("port", "integer", "the port to listen on; 0 is any free one (8788)")
COUNT = Option("count", "integer", "end after so many verified webhooks")
TEXT_OPTIONS = (PROMPT, MODEL, TEMPERATURE, MAX_TOKENS, REASONING, SYSTEM, PRIORITY)


class Command(NamedTuple):
    """One row of the table."""

    help: str
    options: tuple[Option, ...]
    handler: Handler | None = None
    streamer: Streamer | None = None
    """In place of a handler: gives the lines of a JSON Lines answer."""
    local: Local | None = None
    """In place of a handler: needs no client, so no key, and sends nothing."""
    program: Program | None = None
    """In place of a handler: takes standard input and output for itself, and gives the exit code."""
    when_failed: Mapping[str, Any] = MappingProxyType({})
    """The command's own keys beside an error that was raised."""
    result: str = ""
    """The TypedDict of its document, or of its lines, in `fal/results.py`."""

    @property
    def all_options(self) -> tuple[Option, ...]:
        return (*self.options, *COMMON)


def _text(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.any_llm_complete(**_text_arguments(values)))


def _enterprise(client: FalClient, values: Values, progress: Progress) -> Document:
    arguments = _text_arguments(values)
    if "image_url" in arguments:
        arguments["image_urls"] = arguments.pop("image_url")
    return dict(client.any_llm_enterprise(**arguments))


def _stream(client: FalClient, values: Values, progress: Progress) -> Iterator[Document]:
    for event in client.iter_any_llm(**_text_arguments(values)):
        line: Document = {"delta": event["delta"], "output": event["output"], "partial": event["partial"]}
        yield {**line, "usage": event["usage"]} if event["usage"] else line


def _submit(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.submit_job(**_text_arguments(values)))


def _status(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.any_llm_status(**_arguments(values)))


def _result(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.any_llm_result(**_arguments(values)))


def _cancel(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.any_llm_cancel(**_arguments(values)))


def _background(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.background_replace(**_arguments(values)))


def _remove_background(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.remove_background(**_arguments(values)))


def _analyze(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.analyze_product_image(**_arguments(values)))


def _background_prompt(client: FalClient, values: Values, progress: Progress) -> Document:
    return dict(client.generate_background_prompt(**_arguments(values)))


def _multiple(client: FalClient, values: Values, progress: Progress) -> Document:
    result = client.generate_multiple_backgrounds(**_arguments(values), on_progress=progress)
    return _failed_when_empty(dict(result))


def _upload(client: FalClient, values: Values, progress: Progress) -> Document:
    arguments = _arguments(values)
    return {"url": client.upload_file(arguments.pop("file_path"), **arguments), "error": None}


def _workflow(client: FalClient, values: Values, progress: Progress) -> Document:
    arguments = _arguments(values)
    save_dir, report = arguments.pop("save_dir", None), arguments.pop("report", False)
    if save_dir is None:
        return _failed_when_empty(dict(client.product_workflow(**arguments, on_progress=progress)))
    from services.worker.gallery import Gallery

    gallery = Gallery(client, save_dir, arguments)
    try:
        document = dict(client.product_workflow(**arguments, on_progress=gallery.watching(progress)))
    except FalError as error:
        if "images" in error.partial:
            gallery.finish(error.partial, report=False)
        raise
    gallery.finish(document, report=report)
    return _failed_when_empty(document)


def _doctor(client: FalClient, values: Values, progress: Progress) -> Document:
    return client.doctor(**_arguments(values))


def _schema(values: Values) -> Document:
    from services.worker.schemas import schemas

    return schemas(values.get("name"))


def _serve(values: Values, out: JsonStdout) -> int:
    from services.worker.serve import serve

    return serve(values, out)


def _webhook_listen(values: Values, out: JsonStdout) -> int:
    from services.worker.webhook_listen import listen

    return listen(values, out)


def _arguments(values: Values) -> dict[str, Any]:
    """The options that the method itself takes."""
    return {name: value for name, value in values.items() if name != ENV_FILE.name}


def _text_arguments(values: Values) -> dict[str, Any]:
    arguments = _arguments(values)
    if "system" in arguments:
        arguments["system_prompt"] = arguments.pop("system")
    return arguments


def _failed_when_empty(document: Document) -> Document:
    """Several pictures were asked for: a failure only when none was made, told by the first of its errors."""
    errors = document.get("errors")
    if document["total_generated"] > 0 or not errors:
        return {**document, "error": None}
    # A prompt that failed was replaced by a plain one: it is not what kept the picture from being made.
    first = next((row for row in errors if row["stage"] in ("cutout", "picture")), errors[0])
    failure = {key: first[key] for key in ("error_type", "retryable", "request_id")}
    hint = "See `errors` for every style."
    return {
        **document,
        "error": f"No picture was made. {first['error']}",
        "trace": "",
        "status_code": None,
        "hint": hint,
        **failure,
    }


_NO_TEXT: Document = {"output": "", "reasoning": None, "partial": False, "raw": {}}
_NO_PICTURES: Document = {"images": [], "total_generated": 0, "total_requested": 0, "errors": None}

COMMANDS: Mapping[str, Command] = {
    "any-llm-complete": Command(
        "generate text and wait for it",
        (*TEXT_OPTIONS, LOGS),
        _text,
        when_failed=_NO_TEXT,
        result="TextResult",
    ),
    "any-llm-enterprise": Command(
        "ask a premium model, with images when there are any",
        (
            PROMPT,
            MODEL,
            TEMPERATURE,
            MAX_TOKENS,
            REASONING,
            SYSTEM,
            Option("image_url", "texts", "an image, as URL or data URI; may be given several times"),
            LOGS,
        ),
        _enterprise,
        when_failed={"output": "", "raw": {}},
        result="EnterpriseResult",
    ),
    "any-llm-stream": Command(
        "generate text as JSON Lines while it is written",
        TEXT_OPTIONS,
        streamer=_stream,
        when_failed={"delta": "", "output": "", "partial": True},
        result="StreamLine",
    ),
    "any-llm-submit": Command(
        "submit a job and print its request id",
        (*TEXT_OPTIONS, Option("webhook_url", "text", "where fal posts the result")),
        _submit,
        result="SubmitResult",
    ),
    "any-llm-status": Command(
        "the state of a submitted job",
        (REQUEST_ID, Option("with_logs", "flag", "with fal's log lines (true)")),
        _status,
        result="StatusResult",
    ),
    "any-llm-result": Command(
        "the result of a submitted job", (REQUEST_ID,), _result, when_failed=_NO_TEXT, result="TextResult"
    ),
    "any-llm-cancel": Command("stop a submitted job", (REQUEST_ID,), _cancel, result="CancelResult"),
    "background": Command(
        "put the product of a photo on another background",
        (IMAGE_URL, PROMPT, REMOVE_BG, LOGS),
        _background,
        result="PictureResult",
    ),
    "remove-background": Command(
        "cut the product out of a photo", (IMAGE_URL, LOGS), _remove_background, result="PictureResult"
    ),
    "analyze-product": Command(
        "the nine categories of the product in a picture",
        (IMAGE_URL, MODEL, TEMPERATURE, LOGS),
        _analyze,
        when_failed={"categories": {}, "raw_output": ""},
        result="AnalysisResult",
    ),
    "generate-bg-prompt": Command(
        "write a background prompt for a product",
        (CATEGORIES, Option("style_type", "text", "the style of the background", required=True), MODEL, LOGS),
        _background_prompt,
        when_failed={"prompt": ""},
        result="PromptResult",
    ),
    "generate-multiple-bg": Command(
        "the product on several backgrounds",
        (IMAGE_URL, CATEGORIES, STYLES, REMOVE_BG, LOGS),
        _multiple,
        when_failed=_NO_PICTURES,
        result="BackgroundsDocument",
    ),
    "upload-file": Command(
        "upload a local picture",
        (Option("file_path", "path", "the picture file", required=True), SHRINK),
        _upload,
        when_failed={"url": None},
        result="UploadResult",
    ),
    "workflow": Command(
        "all of it: upload, categories, pictures, description",
        (
            Option("image", "path", "the photo: a local path or a URL", required=True),
            STYLES,
            Option("language", "text", "the language of the description (Turkish)"),
            SHRINK,
            Option("save_dir", "path", "a folder to save the original and the pictures in"),
            Option("report", "flag", "also write a page with all of it into --save_dir", needs="save_dir"),
            LOGS,
        ),
        _workflow,
        when_failed={"image_url": "", "categories": {}, "description": "", **_NO_PICTURES},
        result="WorkflowDocument",
    ),
    "doctor": Command(
        "versions, settings and reachability, for a request for help", (), _doctor, result="DoctorResult"
    ),
    "schema": Command(
        "JSON Schemas of the options and documents of the commands",
        (Option("name", "text", "one command only; the word alone does too", first=True),),
        local=_schema,
        result="SchemaResult",
    ),
    "serve": Command(
        "all of these as JSON-RPC methods, one message per line, until standard input ends",
        (CONCURRENCY, MAX_PENDING, QUEUE_TIMEOUT),
        program=_serve,
    ),
    "webhook-listen": Command(
        "verify fal's webhooks on a port of this machine, and print each as a line of JSON",
        (PORT, COUNT),
        program=_webhook_listen,
    ),
}
