"""The command table: every command's name, options and handler, and the values of its result when it fails.

One table for the one-shot worker and for `serve`. Most commands are a method of FalClient: the table names it, and
the options are its arguments. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from services.fal.errors import InvalidInput
from services.worker.command import ENV_FILE, TIMEOUT, Command, Document, Handler, Values
from services.worker.options import Option, require, values_of

if TYPE_CHECKING:
    from pathlib import Path

    from services.fal_service import FalClient
    from services.worker.publishing import Publishing

LOGS = Option("with_logs", "flag", "print fal's log lines to stderr (default: false)")
PROMPT = Option("prompt", "text", "the prompt", required=True)
MODEL = Option(
    "model", "text", "the model, by its OpenRouter name; it is never replaced by another (default: see doctor)"
)
TEMPERATURE = Option("temperature", "number", "0 to 2 (default: 0.7, for analyze-product 0.3)")
SYSTEM = Option("system", "text", "the system prompt", argument="system_prompt")
MAX_TOKENS = Option("max_tokens", "integer", "how many tokens to generate at most (default: up to the model)")
REASONING = Option("reasoning", "flag", "whether the model thinks first (default: up to the model)")
PRIORITY = Option("priority", "text", "latency or throughput (default: latency; fal-ai/any-llm only)")
REQUEST_ID = Option("request_id", "text", "the id that any-llm-submit printed", required=True)
IMAGE = Option("image", "path", "the photo: a local path or a URL", required=True, first=True, instead=("image_url",))
IMAGE_URL = Option(
    "image_url", "text", "an http(s) URL or a data URI of the photo, in place of --image (default: none)"
)
SAVE_DIR = Option("save_dir", "path", "the folder to save the picture in (default: not saved)")
OUT = Option("out", "path", "the file to save the picture in; it gets the extension of its type (default: not saved)")
CATEGORIES = Option("categories", "json", "the categories, as analyze-product prints them", required=True)
STYLES = Option(
    "styles", "json", 'a list of {"name", "description"}, or of names of the default styles (default: all of these)'
)
CONCURRENCY = Option("concurrency", "integer", "how many calls run at once (default: 8)")
MAX_PENDING = Option(
    "max_pending", "integer", "how many calls may wait for a place; more are answered with `busy` (default: 1000)"
)
QUEUE_TIMEOUT = Option(
    "queue_timeout",
    "number",
    "seconds that a call may wait for a place; then it is answered with `busy` (default: no limit)",
)
SHRINK = Option(
    "shrink",
    "flag",
    "make a photo of over 4,096 pixels a side or over 8 MB smaller; requires Pillow (default: false)",
)
REMOVE_BG = Option("remove_bg", "flag", "cut the product out first (default: true)")
PICTURE_OPTIONS = (
    Option(
        "seed", "integer", "0 to 2147483647; the same inputs and seed give the same picture (default: up to the model)"
    ),
    Option("num_images", "integer", "how many variants of each prompt, 1 to 4; each is billed (default: 1)"),
    Option("negative_prompt", "text", "what the picture must not show (default: none)"),
    Option("aspect_ratio", "text", "such as 4:5 (default: up to the model)"),
    Option("resolution", "text", "such as 2K (default: up to the model)"),
    Option("image_size", "text", "width and height in pixels, such as 1000x800 (default: up to the model)"),
    Option("original_quality", "flag", "keep the size of the photo (default: up to the model)"),
    Option(
        "placement",
        "text",
        "where the product stands: original, or a place such as bottom_center (default: up to the model)",
    ),
)
"""Which of them there are depends on the endpoint that makes the pictures."""
PORT = Option("port", "integer", "the port to listen on; 0 means any free port (default: 8788)")
COUNT = Option("count", "integer", "end after this many verified webhooks (default: no limit)")
PLACES = Option(
    "for",
    "text",
    "the places to publish on, such as amazon,trendyol; docs/packshots.md lists them (default: none)",
    argument="places",
)
FACTS = Option(
    "facts", "json", 'what is known of the product, such as {"material": "ceramic", "size": "350 ml"} (default: none)'
)
TONE = Option("tone", "text", "the tone, in your own words (default: none)")
LENGTH = Option("length", "integer", "about how many words the description has, 10 to 2,000 (default: 80)")
CUTOUT = Option(
    "cutout",
    "path",
    "an existing cut-out of the product: a path or a URL; nothing is cut out (default: none)",
)
CHECK = Option(
    "check",
    "flag",
    "check each saved picture against the rules of the places in --for (default: false)",
    needs="for",
)
FIDELITY = Option(
    "fidelity",
    "text",
    "compare each saved picture with the product: check; lock (put its own pixels back if it has not moved); or retry "
    "(as lock, and make a picture that fails once more, which is billed too) (default: off)",
)
FREE = ("save_dir", "out", "report", "check", "fidelity", "packshot")
"""Options about pictures that are there; that one may be made again, an estimate does not count."""
PUBLISHING = ("check", "fidelity", "packshot", "listing")
"""Options that ask for something beside the pictures."""
TEXT_OPTIONS = (PROMPT, MODEL, TEMPERATURE, MAX_TOKENS, REASONING, SYSTEM, PRIORITY)


def _stream_line(event: Mapping[str, Any]) -> Document:
    left_out = {"cost_usd"} if event["partial"] else set()
    left_out |= set() if event["usage"] else {"usage"}
    return {name: value for name, value in event.items() if name not in left_out}


def _upload_document(url: str) -> Document:
    return {"url": url, "error": None}


def _one_picture(name: str) -> Handler:
    """What does a command that makes one picture, and saves it on request."""

    def make(client: FalClient, values: Values) -> Document:
        arguments, method = COMMANDS[name].arguments(values), COMMANDS[name].method
        publishing = _publishing(client, arguments)
        if not {"save_dir", "out"} & set(arguments):
            return dict(getattr(client, method)(**arguments))
        from services.saved_files import SavedPicture, readable_paths

        files = SavedPicture(client, name, arguments, ending=publishing.ending if publishing else "")
        with readable_paths() as readable:
            document = files.of(method, arguments)
            if publishing is not None:
                publishing.add(document, files.downloads)
            return readable(document)

    return make


def _several_pictures(name: str) -> Handler:
    """What does a command that makes several pictures, and saves each as it comes on request."""

    def make(client: FalClient, values: Values) -> Document:
        arguments = COMMANDS[name].arguments(values)
        method = COMMANDS[name].method
        publishing = _publishing(client, arguments)
        save_dir, report = arguments.pop("save_dir", None), arguments.pop("report", False)
        ending, then = "", None
        if publishing is not None:
            client, ending, then = client.beside(publishing.jobs), publishing.ending, publishing.add
        if save_dir is None:
            document: Document = dict(getattr(client, method)(**arguments))
            if then is not None:
                then(document)
            return _failed_when_empty(document)
        from services.saved_files import made_and_saved

        page = _page if report else None
        return _failed_when_empty(made_and_saved(client, method, arguments, save_dir, page, ending=ending, then=then))

    return make


def _page(document: Mapping[str, Any], original: Path | None) -> str:
    from services.worker.report import page

    return page(document, original)


def _publishing(client: FalClient, arguments: Document) -> Publishing | None:
    """What is done with the saved pictures, if anything; takes its options out of `arguments`."""
    wishes = {name: arguments.pop(name, None) for name in ("check", "fidelity", "packshot", "listing", "places")}
    if not any(wishes[name] for name in PUBLISHING) and "facts" not in arguments:
        return None
    from services.worker.publishing import Publishing, Wishes

    return Publishing(client, arguments, Wishes(**wishes))


def _packshot_of_cutout(values: Values) -> Document:
    from services.worker.shop_commands import packshot

    return packshot(None, COMMANDS["packshot"].arguments(values))


def _packshot(client: FalClient, values: Values) -> Document:
    from services.worker.shop_commands import packshot

    return packshot(client, COMMANDS["packshot"].arguments(values))


def _check_image(values: Values) -> Document:
    from services.worker.shop_commands import check

    return check(values)


def _listing(client: FalClient, values: Values) -> Document:
    from services.worker.shop_commands import listing

    return listing(client, COMMANDS["listing"].arguments(values))


def _doctor(client: FalClient, values: Values) -> Document:
    if not values.get("live"):
        return dict(client.doctor(timeout=values.get("timeout")))
    from services.live.check import examine_live

    return examine_live(client, values.get("spend"), values.get("recordings"), values.get("timeout"))


def _prices(client: FalClient, values: Values) -> Document:
    named = values.get("endpoints")
    endpoints = None if named is None else [name.strip() for name in named.split(",") if name.strip()]
    return {"prices": client.prices(endpoints, timeout=values.get("timeout")), "error": None}


def _estimate(client: FalClient, values: Values) -> Document:
    """The command is run with its options up to the point at which something would be sent."""
    name, options = values["name"], values.get("options")
    paid = [command for command, row in COMMANDS.items() if row.is_paid]
    if name == "batch":
        raise InvalidInput("A batch is estimated by itself: run fal-worker batch with --dry_run.")
    if name not in paid:
        raise InvalidInput(f"{name[:100]!r} is not a command that costs money. Those are {', '.join(paid)}.")
    if not isinstance(options, dict | None):
        raise InvalidInput("--options must be one JSON object with the options of the command.")
    command = COMMANDS[name]
    asked = _with_stand_ins(command, values_of(command.all_options, options or {}))
    require(command.options, asked, f"See fal-worker {name} --help.")
    if command.local_for(asked) is not None:
        return {"cost_usd": 0.0, "about": False, "endpoints": [], "unknown": None, "error": None}
    # What is done with pictures that are there costs nothing: no folder is made.
    kept = {option: value for option, value in asked.items() if option not in FREE}

    def run(view: FalClient) -> None:
        if command.handler is not None:
            command.handler(view, kept)
        else:
            getattr(view, command.method)(**command.arguments(kept))

    return {**client.estimate_of(run), "error": None}


def _with_stand_ins(command: Command, values: Document) -> Document:
    """The options of a command, with something in place of those that are required and do not change the price."""
    from services.fal.estimates import stand_ins

    # Those of a shop have no method: whether there is a photo changes the price of a listing.
    if not command.method and {"image", "cutout", "categories"} & set(values):
        return values
    return {**stand_ins(command.method or "remove_background", values), **values}


def _batch(client: FalClient, values: Values) -> Document:
    from services.worker.batch_command import run

    return run(client, values, COMMANDS)


def _schema(values: Values) -> Document:
    from services.worker.schemas import schemas

    return schemas(values.get("name"))


def _failed_when_empty(document: Mapping[str, Any]) -> Document:
    """A failure when none of several pictures was made; its error is the first that kept a picture from being made."""
    errors = document.get("errors")
    if document["total_generated"] > 0 or not errors:
        return {**document, "error": None}
    # A prompt that failed was replaced by a plain one: it is not what kept the picture from being made.
    first = next((row for row in errors if row["stage"] in ("cutout", "picture")), errors[0])
    failure = {key: first[key] for key in ("error_type", "retryable", "request_id")}
    hint = "See `errors` for each style."
    return {
        **document,
        "error": f"No picture was made. {first['error']}",
        "trace": "",
        "status_code": None,
        "hint": hint,
        **failure,
    }


_NO_TEXT: Document = {"output": "", "reasoning": None, "partial": False, "raw": {}}
_NO_PICTURES: Document = {"cutout": None, "images": [], "total_generated": 0, "total_requested": 0, "errors": None}

COMMANDS: Mapping[str, Command] = {
    "any-llm-complete": Command(
        "generate text and wait for it",
        (*TEXT_OPTIONS, LOGS),
        "any_llm_complete",
        when_failed=_NO_TEXT,
        is_paid=True,
        result="TextResult",
    ),
    "any-llm-enterprise": Command(
        "ask a premium model, also about images",
        (
            PROMPT,
            MODEL,
            TEMPERATURE,
            MAX_TOKENS,
            REASONING,
            SYSTEM,
            Option(
                "image_url",
                "texts",
                "the URL or data URI of an image; may be repeated",
                argument="image_urls",
            ),
            LOGS,
        ),
        "any_llm_enterprise",
        when_failed={"output": "", "raw": {}},
        is_paid=True,
        result="EnterpriseResult",
    ),
    "any-llm-stream": Command(
        "generate text as JSON Lines while it is written",
        TEXT_OPTIONS,
        "iter_any_llm",
        _stream_line,
        streams=True,
        when_failed={"delta": "", "output": "", "partial": True},
        is_paid=True,
        result="StreamLine",
    ),
    "any-llm-submit": Command(
        "submit a job and print its request id",
        (*TEXT_OPTIONS, Option("webhook_url", "text", "the URL to which fal posts the result")),
        "submit_job",
        is_paid=True,
        result="SubmitResult",
    ),
    "any-llm-status": Command(
        "the state of a submitted job",
        (REQUEST_ID, Option("with_logs", "flag", "with fal's log lines (default: true)")),
        "any_llm_status",
        result="StatusResult",
    ),
    "any-llm-result": Command(
        "the result of a submitted job", (REQUEST_ID,), "any_llm_result", when_failed=_NO_TEXT, result="TextResult"
    ),
    "any-llm-cancel": Command("stop a submitted job", (REQUEST_ID,), "any_llm_cancel", result="CancelResult"),
    "background": Command(
        "put the product of a photo on another background",
        (
            IMAGE._replace(instead=("image_url", "cutout")),
            IMAGE_URL,
            PROMPT._replace(
                required=False, help="the background in words; required without --ref_image_url (default: none)"
            ),
            Option("ref_image_url", "text", "a picture of the background, in place of --prompt (default: none)"),
            REMOVE_BG,
            CUTOUT,
            *PICTURE_OPTIONS,
            SAVE_DIR,
            OUT,
            FIDELITY,
            CHECK,
            PLACES,
            LOGS,
        ),
        "background_replace",
        handler=_one_picture("background"),
        is_paid=True,
        tells_jobs=True,
        result="PictureDocument",
    ),
    "remove-background": Command(
        "cut the product out of a photo",
        (IMAGE, IMAGE_URL, SAVE_DIR, OUT, CHECK, PLACES, LOGS),
        "remove_background",
        handler=_one_picture("remove-background"),
        is_paid=True,
        result="PictureDocument",
    ),
    "analyze-product": Command(
        "find the nine categories of the product in a picture",
        (IMAGE, IMAGE_URL, MODEL, TEMPERATURE, LOGS),
        "analyze_product_image",
        when_failed={"categories": {}, "raw_output": ""},
        is_paid=True,
        result="AnalysisResult",
    ),
    "generate-bg-prompt": Command(
        "write a background prompt for a product",
        (CATEGORIES, Option("style_type", "text", "the style of the background", required=True), MODEL, LOGS),
        "generate_background_prompt",
        when_failed={"prompt": ""},
        is_paid=True,
        result="PromptResult",
    ),
    "generate-multiple-bg": Command(
        "put the product of a photo on several backgrounds",
        (
            IMAGE._replace(instead=("image_url", "cutout")),
            IMAGE_URL,
            CATEGORIES,
            STYLES,
            REMOVE_BG,
            CUTOUT,
            *PICTURE_OPTIONS,
            SAVE_DIR._replace(help="a folder to save the pictures in (default: not saved)"),
            FIDELITY,
            CHECK,
            PLACES,
            LOGS,
        ),
        "generate_multiple_backgrounds",
        handler=_several_pictures("generate-multiple-bg"),
        when_failed=_NO_PICTURES,
        is_paid=True,
        tells_jobs=True,
        result="BackgroundsDocument",
    ),
    "upload-file": Command(
        "upload a local picture",
        (Option("file_path", "path", "the picture file", required=True, argument="path"), SHRINK),
        "upload_file",
        _upload_document,
        when_failed={"url": None},
        result="UploadResult",
    ),
    "workflow": Command(
        "the whole workflow: upload, categories, pictures, description",
        (
            IMAGE._replace(instead=()),
            STYLES,
            Option("language", "text", "the language of the description (default: Turkish)"),
            TONE,
            LENGTH._replace(help="about how many words the description has, 10 to 2,000 (default: two sentences)"),
            FACTS,
            CUTOUT,
            SHRINK,
            *PICTURE_OPTIONS,
            Option("save_dir", "path", "a folder to save the original and the pictures in (default: not saved)"),
            Option(
                "report",
                "flag",
                "also write an HTML page with the results into --save_dir (default: false)",
                needs="save_dir",
            ),
            Option(
                "packshot",
                "flag",
                "also make a packshot of the cut-out for each place (default: false)",
                needs="save_dir",
            ),
            Option(
                "listing",
                "flag",
                "also write the texts for the places, in the language of the description (default: false)",
            ),
            FIDELITY,
            CHECK,
            PLACES,
            LOGS,
        ),
        "product_workflow",
        handler=_several_pictures("workflow"),
        when_failed={"image_url": "", "categories": {}, "description": "", **_NO_PICTURES},
        is_paid=True,
        tells_jobs=True,
        result="WorkflowDocument",
    ),
    "packshot": Command(
        "the product's own pixels on white or another background, in the size and format that places ask for",
        (
            IMAGE._replace(instead=("cutout",)),
            PLACES,
            Option("save_dir", "path", "the folder for the pictures (default: the current folder)"),
            Option(
                "cutout",
                "path",
                "an existing cut-out of the product, a PNG or WebP: nothing is paid (default: none)",
            ),
            Option("background", "path", "a colour such as #F4F1EC, or the path of a picture (default: #FFFFFF)"),
            Option("size", "text", "width and height in pixels, such as 2000x2000 (default: the place's)"),
            Option(
                "fill",
                "number",
                "the part of the frame that the product takes, 0.05 to 1 (default: the place's, or 0.85)",
            ),
            Option(
                "margin",
                "number",
                "the part that stays free on each side, 0 to 0.475, in place of --fill (default: by --fill)",
            ),
            Option("format", "text", "JPEG or PNG (default: the place's, or JPEG)"),
            Option("shadow", "flag", "with a soft shadow below the product (default: false)"),
            Option("check", "flag", "check each picture against the rules of its place (default: false)"),
            Option("name", "text", "the base name of the files (default: the photo's own name)"),
        ),
        handler=_packshot,
        local=_packshot_of_cutout,
        local_with="cutout",
        when_failed={"images": []},
        is_paid=True,
        tells_jobs=True,
        result="PackshotDocument",
    ),
    "check-image": Command(
        "check a picture file against the rules of places; fails if it breaks a hard one",
        (
            Option("image", "path", "the picture file", required=True, first=True),
            PLACES._replace(required=True),
            Option("on", "text", "the day whose rules apply, such as 2027-01-31 (default: today)"),
        ),
        local=_check_image,
        when_failed={"checks": []},
        result="CheckDocument",
    ),
    "listing": Command(
        "write the texts of a product for places, in one language or several",
        (
            Option(
                "image",
                "path",
                "the photo, which is analysed: a local path or a URL",
                required=True,
                first=True,
                instead=("categories",),
            ),
            CATEGORIES._replace(
                required=False, help="the categories, as analyze-product prints them (default: read from the photo)"
            ),
            Option("title", "text", "a working title (default: none)"),
            FACTS,
            PLACES,
            Option("languages", "text", "the languages, such as Turkish,English (default: Turkish)"),
            TONE,
            LENGTH,
            MODEL,
        ),
        handler=_listing,
        when_failed={"image_url": None, "categories": {}, "places": [], "listings": [], "asks": []},
        is_paid=True,
        tells_jobs=True,
        result="ListingDocument",
    ),
    "batch": Command(
        "run another command over a whole catalogue; resumes where it stopped, and pays for no job twice",
        (
            Option(
                "input",
                "path",
                "the products: JSON Lines or CSV with a key, an image and options of the command, or a folder of "
                "photos (default: those that the batch has)",
            ),
            Option("output", "path", "the folder for the results, the pictures and the journal", required=True),
            Option("command", "text", "the command that makes a product (default: workflow)"),
            Option("options", "json", "its options for all products, as --json takes them (default: none)"),
            Option("max_jobs", "integer", "how many jobs run at fal at once (default: 10)"),
            Option("max_usd", "number", "US dollars that the batch may spend, over all runs (default: no limit)"),
            Option("retry_failed", "flag", "make the products that failed once more (default: false)"),
            Option(
                "retry_ambiguous",
                "flag",
                "submit jobs again that fal may have run and billed already (default: false)",
            ),
            Option(
                "journal",
                "text",
                "the URL of a PostgreSQL database, for a batch that several machines make (default: a file in the "
                "output's folder)",
            ),
            Option("settle", "flag", "first look for jobs in doubt among fal's past requests (default: false)"),
            Option("status", "flag", "only show how far the batch is (default: false)"),
            Option(
                "pause",
                "flag",
                "only ask the process that works on the batch to end; its jobs have 10 s (default: false)",
            ),
            Option("dry_run", "flag", "only show the calls and what they would cost (default: false)"),
            Option("yes", "flag", "begin more than 50 products without a question (default: false)"),
        ),
        handler=_batch,
        common=(TIMEOUT._replace(help="seconds that one product may take (default: 900)"), ENV_FILE),
        resumes=True,
        when_failed={
            "output": None,
            "products": None,
            "jobs": {},
            "seconds": 0.0,
            "left_out": [],
            "ignored_columns": [],
            "settled": None,
            "planned": None,
            "worked_on": None,
            "how_to_resume": None,
        },
        result="BatchDocument",
    ),
    "prices": Command(
        "what one unit of each endpoint costs at fal",
        (
            Option(
                "endpoints",
                "text",
                "ids of endpoints, such as bria/replace-background,fal-ai/birefnet/v2 (default: those in use)",
            ),
        ),
        handler=_prices,
        when_failed={"prices": []},
        result="PricesDocument",
    ),
    "estimate": Command(
        "what a command would cost, without running it",
        (
            Option("name", "text", "the command; may also be given without --name", required=True, first=True),
            Option(
                "options",
                "json",
                "its options, as --json takes them; the photo, prompt and categories may be left out (default: none)",
            ),
        ),
        handler=_estimate,
        when_failed={"cost_usd": None, "about": False, "endpoints": [], "unknown": None},
        result="EstimateDocument",
    ),
    "doctor": Command(
        "versions, settings and reachability, for a support request; with --live, whether fal behaves as expected",
        (
            Option(
                "live",
                "flag",
                "compare fal with what this library expects, with free reads only (default: false)",
            ),
            Option(
                "spend",
                "number",
                "with --live: also try one job of each kind, for at most this many US dollars (default: none)",
                needs="live",
            ),
            Option(
                "recordings",
                "path",
                "with --live: a folder for fal's answers, one file per fact (default: not kept)",
                needs="live",
            ),
        ),
        handler=_doctor,
        result="DoctorResult",
    ),
    "schema": Command(
        "JSON Schemas of the options and documents of the commands",
        (Option("name", "text", "the command; may also be given without --name (default: all)", first=True),),
        local=_schema,
        result="SchemaResult",
    ),
    "serve": Command(
        "run these commands as JSON-RPC methods, one message per line, until standard input ends",
        (CONCURRENCY, MAX_PENDING, QUEUE_TIMEOUT),
        is_program=True,
    ),
    "webhook-listen": Command(
        "verify fal's webhooks on a port of this machine, and print each as a line of JSON",
        (PORT, COUNT),
        is_program=True,
    ),
}
