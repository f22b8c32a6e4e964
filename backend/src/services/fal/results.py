"""What the methods return and the worker prints: one TypedDict each, the single source of the result shapes.

Keys of the documented shapes are always there; what is only sometimes known (`usage`, `billable_units`, the fields
of a failure) stands in a `total=False` base. JSON Schema, TypeScript and docs/cli.md are made from these classes and
from the texts in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NewType, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")
IN_FAILURES = "only in a failure"
Failed = Annotated[T, IN_FAILURES]
"""A key, or the part of a union, that only a failed call gives."""
ALSO_IN_FAILURES = "also in a failure, when it is known by then"
Kept = Annotated[T, ALSO_IN_FAILURES]
"""A key that a failed command may still give, beside those that it always gives."""
ErrorType = NewType("ErrorType", str)
"""The `error_type` of a class in `errors.py`."""
Stage = Annotated[
    str,
    Literal[
        "cutout",
        "prompt",
        "picture",
        "description",
        "original",
        "download",
        "fidelity",
        "check",
        "report",
        "packshot",
        "listing",
    ],
]
Step = Literal[
    "upload",
    "analysis",
    "cutout",
    "prompt",
    "picture",
    "description",
    "download",
    "fidelity",
    "check",
    "packshot",
    "listing",
]
CancelOutcome = Annotated[str, Literal["cancelled", "requested", "too_late", "not_found"]]


class Usage(TypedDict, total=False):
    """Tokens and cost as the model's provider counts them."""

    prompt_tokens: int
    """Tokens of the question."""
    completion_tokens: int
    """Tokens of the answer."""
    total_tokens: int
    """Both together."""
    cost: float
    """US dollars."""


class Billing(TypedDict, total=False):
    """What is known of a job that ran."""

    request_id: str | None
    """fal's id of the job."""
    billable_units: Kept[float | None]
    """fal's own count of what is billed."""
    cost_usd: Kept[float | None]
    """US dollars for all jobs of the call; null when that cannot be known."""


class JobCost(TypedDict):
    """One job of a call."""

    step: str
    """The step that it was for, such as `cutout`, `prompt` or `picture`."""
    style: str | None
    """The style that it was for; null for a step that is for none."""
    endpoint: str
    """Where it ran."""
    cost_usd: float | None
    """US dollars; null when that cannot be known."""


class Costs(TypedDict, total=False):
    cost_usd: Kept[float | None]
    """US dollars for all jobs together; null when one of them cannot be known."""
    costs: Kept[list[JobCost]]
    """One per job, in the order in which they ended."""


class Failure(TypedDict, total=False):
    """Beside `error`, when it is not None."""

    error_type: Failed[ErrorType]
    """Stable name of this kind of failure."""
    retryable: Failed[bool]
    """Whether the same call may succeed later without paying twice for one result."""
    status_code: Failed[int | None]
    """HTTP status of fal's answer, when there was one."""
    hint: Failed[str | None]
    """What to do next."""
    detail: Failed[Any]
    """fal's own list of what was wrong, when it sent one."""
    trace: Failed[str]
    """Python's traceback, for a request for help."""


class ErrorDetail(TypedDict, total=False):
    detail: Any
    """fal's own list of what was wrong, when it sent one."""


class ErrorSummary(ErrorDetail):
    """What failed, without a traceback."""

    error: str
    """What went wrong, and what to do next."""
    error_type: ErrorType
    """Stable name of this kind of failure."""
    retryable: bool
    """Whether the same call may succeed later without paying twice for one result."""
    status_code: int | None
    """HTTP status of fal's answer, when there was one."""
    request_id: str | None
    """fal's id of the job, when it is known."""
    hint: str | None
    """What to do next."""


class ErrorDocument(ErrorSummary):
    """What a command that failed prints, beside keys of its own."""

    trace: str
    """Python's traceback, for a request for help."""


class FromSandbox(TypedDict, total=False):
    """Only when the sandbox answered in fal's place."""

    sandbox: Kept[bool]
    """True: no model was asked. Texts follow a script, pictures are cut and painted by plain code."""
    sandbox_remarks: Kept[list[str]]
    """What the sandbox says about its pictures, such as that the product could not be told from its background."""


class TextExtras(Billing, Failure, total=False):
    usage: Usage | None
    """When the endpoint tells it."""


class UnusableAnswer(TypedDict, total=False):
    raw: Failed[dict[str, Any]]
    """fal's whole answer, when it cannot be used."""


class TextResult(TextExtras):
    """Of `any_llm_complete` and `any_llm_result`."""

    output: str
    """The generated text; empty when the call failed."""
    reasoning: str | None
    """What the model thought, when it shows that."""
    partial: bool
    """Whether fal calls the text incomplete."""
    error: Failed[str] | None
    """What went wrong, and what to do next; null when nothing did."""
    raw: dict[str, Any]
    """fal's whole answer."""


class EnterpriseResult(TextExtras):
    """Of `any_llm_enterprise`."""

    output: str
    """The generated text; empty when the call failed."""
    error: Failed[str] | None
    """What went wrong, and what to do next; null when nothing did."""
    raw: dict[str, Any]
    """fal's whole answer."""


class TextEvent(TypedDict):
    """Of `iter_any_llm`."""

    delta: str
    """What is new since the event before."""
    output: str
    """The whole text so far."""
    partial: bool
    """False on the last event."""
    usage: Usage | None
    """On the last event, when the endpoint tells it; else None."""
    cost_usd: float | None
    """US dollars; on the last event, when it is known."""


class StreamLineExtras(TypedDict, total=False):
    usage: Usage
    """On the last line, when the endpoint tells it."""
    cost_usd: Kept[float | None]
    """On the last line: US dollars, or null when that cannot be known."""


class StreamLine(StreamLineExtras):
    """One line of `any-llm-stream`."""

    delta: str
    """What is new since the line before."""
    output: str
    """The whole text so far."""
    partial: bool
    """False on the last line."""


class SpentInVain(TypedDict, total=False):
    cost_usd: Failed[float | None]
    """Null: fal may be running the job, and bill it."""


class SubmitResult(SpentInVain):
    """Of `submit_job`."""

    request_id: str
    """fal's id of the job, for any-llm-status, any-llm-result and any-llm-cancel."""
    endpoint: str
    """Where the job went."""


class JobState(TypedDict):
    request_id: str
    """fal's id of the job."""
    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    """Where the job is: it waits, it runs, or it has ended (completed or failed)."""
    queue_position: int | None
    """Jobs ahead of this one, from 0, while it is IN_QUEUE."""
    logs: list[dict[str, Any]] | None
    """fal's log lines."""
    metrics: dict[str, Any] | None
    """fal's own figures, such as `inference_time` in seconds."""


class StatusResult(JobState):
    """Of `any_llm_status`."""

    error: Failed[str] | None
    """Why the job failed, when it did."""
    error_type: str | None
    """fal's own name for that."""


class FailedStatus(JobState):
    """Of `any-llm-status`, for a job that failed: not an error document, since asking did not fail."""

    error: str
    """Why the job failed."""
    error_type: str | None
    """fal's own name for that."""


class CancelResult(TypedDict):
    """Of `any_llm_cancel`."""

    request_id: str
    """fal's id of the job."""
    status: CancelOutcome
    """requested: it was running; too_late: it had ended."""


class Categories(TypedDict):
    """The nine categories of a product."""

    main_product_type: str
    """What kind of product it is, such as Footwear."""
    subcategory: str
    """Which one of that kind, such as Sneakers."""
    target_audience: str
    """Whom it is for, such as Men."""
    price_range: str
    """How expensive it looks, such as Mid-range."""
    use_case: str
    """What it is used for, such as Casual Lifestyle."""
    style_design: str
    """How it is designed, such as Streetwear."""
    season_occasion: str
    """When it is used, such as All Season."""
    industrial_type: str
    """Which industry makes it, such as Footwear Manufacturing."""
    vibe: str
    """The mood that suits it, such as Urban/Street."""


AnyCategories: TypeAlias = Categories | Mapping[str, str]
"""What methods take as categories: those of `analyze_product_image`, or names and texts of one's own."""


class AnalysisResult(TextExtras, UnusableAnswer):
    """Of `analyze_product_image`."""

    categories: Categories | Failed[dict[str, str]]
    """All nine; "Unknown" where the model gave none twice. Empty when the call failed."""
    error: Failed[str] | None
    """What went wrong, and what to do next; null when nothing did."""
    raw_output: str
    """What the model wrote."""


class PromptResult(TextExtras, UnusableAnswer):
    """Of `generate_background_prompt`."""

    prompt: str
    """Always usable: on an error it is a plain one built from the style."""
    error: Failed[str] | None
    """Why no model wrote the prompt; null when one did."""


class InFile(TypedDict, total=False):
    """Of a picture that was saved."""

    path: str
    """Where it was saved."""
    sha256: str
    """Of the file, in hexadecimal digits."""


class Image(InFile):
    url: str
    """Where fal keeps it."""
    width: int | None
    """Pixels."""
    height: int | None
    """Pixels."""
    content_type: str | None
    """Its media type, such as image/png."""
    file_size: int | None
    """Bytes."""


class Variant(Image, total=False):
    """One of several pictures of one prompt."""

    request_id: str | None
    """fal's id of the job that made it."""
    seed: int
    """What it was made with, when its job made no other picture: pass it to make it again."""


class WithCutout(Billing, FromSandbox, total=False):
    cutout: Kept[Image]
    """The product alone, when `background_replace` cut it out or was given it."""
    costs: Kept[list[JobCost]]
    """Of `background_replace`: one per job, in the order in which they ended."""


class MadePicture(WithCutout):
    timings: Kept[dict[str, float]]
    """Seconds per step by our clock, and fal's `inference_time` where it is given."""


class PictureResultExtras(TypedDict, total=False):
    images: Kept[list[Variant]]
    """Of `background_replace` with `num_images` above 1: all pictures, in order."""


class PictureResult(MadePicture, PictureResultExtras):
    """Of `background_replace` and `remove_background`."""

    image: Kept[Image]
    """The picture; the first one of several."""


class StyledImageExtras(FromSandbox, InFile, total=False):
    content_type: str | None
    """Its media type, such as image/png."""
    file_size: int | None
    """Bytes."""
    request_id: str | None
    """fal's id of the job that made it."""
    billable_units: float | None
    """fal's own count of what is billed for it."""
    cost_usd: float | None
    """US dollars for this picture alone, without its prompt."""
    seed: int
    """With `num_images` above 1: what it was made with, when its job made no other picture."""


class StyledImage(StyledImageExtras):
    style_name: str
    """The name of its style."""
    style_description: str
    """The description of its style."""
    image_url: str
    """Where fal keeps it."""
    prompt: str
    """What the picture model was asked for."""
    width: int | None
    """Pixels."""
    height: int | None
    """Pixels."""


class StyleError(TypedDict):
    style: str | None
    """The name of the style, when it is about a single one."""
    stage: Stage
    """The step that failed; after a failed prompt the picture is still made, from a plain one."""
    error: str
    """What went wrong, and what to do next."""
    error_type: ErrorType
    """Stable name of this kind of failure."""
    retryable: bool
    """Whether the same call may succeed later without paying twice for one result."""
    request_id: str | None
    """fal's id of the job, when it is known."""


class OfStyles(FromSandbox, Costs):
    """What is told of the pictures of several styles, beside themselves."""

    cutout: Image | None
    """The product alone; None when it was not cut out, or when that failed."""
    total_generated: int
    """How many pictures were made."""
    total_requested: int
    """How many were asked for: the styles, each with its variants."""
    errors: list[StyleError] | None
    """What failed on the way, when something did."""
    timings: Kept[dict[str, float]]
    """Seconds per step by our clock."""


class BackgroundsResult(OfStyles):
    """Of `generate_multiple_backgrounds`."""

    images: list[StyledImage]
    """In the order of the styles, the variants of one style in their order."""


class OfProduct(TypedDict):
    image_url: str
    """The photo that everything was made from."""
    categories: Categories | Failed[dict[str, str]]
    """All nine, as `analyze_product_image` gives them."""
    description: str
    """Two sentences, or about as many words as were asked for; empty when writing it failed."""


class WorkflowResult(BackgroundsResult, OfProduct):
    """Of `product_workflow`."""


class WorkflowFiles(TypedDict, total=False):
    original_path: Kept[str | None]
    """Where --save_dir put the photo, unless that failed."""
    report_path: Kept[str | None]
    """The page of --report, unless it could not be written."""


class UnusableAnalysis(UnusableAnswer, total=False):
    raw_output: Failed[str]
    """What the model wrote in place of categories."""


class UploadResult(TypedDict):
    """Of `upload-file`."""

    url: str | Failed[None]
    """Public URL of the file."""
    error: Failed[str] | None
    """What went wrong, and what to do next; null when nothing did."""


class PriceRow(TypedDict):
    """What one unit of an endpoint costs."""

    endpoint: str
    """Its id at fal."""
    role: str | None
    """What it is used for; null when it is not in use."""
    unit_price: float | None
    """Null when fal names no price of it."""
    unit: str | None
    """Such as `images`."""
    currency: str | None
    """Such as USD."""


class PricesDocument(TypedDict):
    """Of `prices`."""

    prices: list[PriceRow]
    """One row per endpoint."""
    error: Failed[str] | None
    """What went wrong, and what to do next; null when nothing did."""


class EstimatedCalls(TypedDict):
    """Jobs of one endpoint."""

    endpoint: str
    """Its id at fal."""
    role: str
    """What it is used for."""
    calls: int
    """How many jobs."""
    unit_price: float | None
    """Null for language models, whose answers tell what they cost, and when fal names no price."""
    unit: str | None
    """Such as images."""
    currency: str | None
    """Such as USD."""
    cost_usd: float | None
    """US dollars for all of them; null when that cannot be known ahead."""
    about: bool
    """Whether that is no more than a guess from other answers."""


class Estimate(TypedDict):
    """Of `estimate`: what a call would cost."""

    cost_usd: float | None
    """US dollars; null when a part of it cannot be known ahead."""
    about: bool
    """Whether language models are among the endpoints, whose cost is known only afterwards."""
    endpoints: list[EstimatedCalls]
    """Every endpoint that would be called."""
    unknown: str | None
    """Why `cost_usd` is null."""


class EstimateDocument(Estimate):
    """Of the command `estimate`."""

    error: Failed[str] | None
    """What went wrong, and what to do next; null when nothing did."""


class ResolvedSettings(TypedDict):
    key: str
    """Masked."""
    timeout_s: float
    """Total seconds that a call may take."""
    max_concurrency: int
    """How many model calls run at once."""
    log: str
    """From which level the log is written to stderr: off, info or debug."""
    store_io: bool
    """Whether fal keeps the inputs and outputs of jobs."""
    expires_in_s: int | None
    """Seconds after which fal deletes files; null leaves it to the account."""
    queue_priority: str
    """normal, or low for jobs that may wait behind others."""
    max_usd: float | None
    """What all calls of a client together may cost, in US dollars."""
    env_file: str | None
    """The first `.env` file that applies; null when there is none."""
    models: dict[str, list[str]]
    """Those that are asked when the caller names none: by job, in the order in which they are tried."""
    endpoints: dict[str, list[str]]
    """By job, in the order in which they are tried."""


class Host(TypedDict):
    reachable: bool
    """Whether it answered."""
    status: int | None
    """HTTP status of the answer; a 404 is an answer too."""
    seconds: float
    """How long that took."""


class Ending(TypedDict):
    """A default model that ends."""

    model: str
    """Its name at OpenRouter."""
    ends_on: str
    """The day, as YYYY-MM-DD, from which its provider no longer offers it."""
    days_left: int
    """Negative after that day."""
    then: dict[str, str | None]
    """By job that asks it: the model that is asked when it is gone, or null."""


class CheckedEndpoint(TypedDict):
    """What fal's catalogue says of an endpoint, compared with what this library knows of it."""

    endpoint: str
    """Its id at fal."""
    verdict: Annotated[str, Literal["same", "differs", "gone", "unread"]]
    """Whether its inputs are those that this library knows; unread when the catalogue could not be read."""
    differences: list[str]
    """What is different, a sentence each."""
    also: list[str]
    """Inputs that fal takes and this library does not use."""
    matters: bool
    """Whether the library relies on what differs."""
    price_usd: float | None
    """Of one unit."""
    unit: str | None
    """What one unit is, such as an image."""


class CheckedModel(TypedDict):
    """A default model."""

    model: str
    """Its name at OpenRouter."""
    listed: bool | None
    """Whether OpenRouter lists it; null when its list cannot be read."""
    ends_on: str | None
    """When it ends, by that list or as its provider announced it."""


class CheckedFact(TypedDict):
    """How fal answers, compared with how it is documented."""

    fact: str
    """What was looked at."""
    documented: str
    """What fal's documents say."""
    sandbox: str
    """`same`, or what the sandbox answers where the documents leave a choice."""
    live: str
    """`same`, what differs, or why it was not seen."""
    seen: bool
    """Whether it was looked at on fal itself."""
    matters: bool
    """Whether the library relies on what differs."""
    source: str
    """The document."""


class LiveReport(TypedDict):
    """What `doctor --live` found."""

    endpoints: list[CheckedEndpoint]
    """Every endpoint that this library knows."""
    models: list[CheckedModel]
    """Every default model."""
    facts: list[CheckedFact]
    """What was looked at of how fal answers."""
    needed_usd: float | None
    """What one of each was expected to cost at most; null when nothing was to be spent."""
    spent_usd: float
    """What it cost at most."""
    jobs_left: list[str]
    """Request ids of jobs that could not be cancelled."""
    recordings: str | None
    """The folder."""


class WithLive(TypedDict, total=False):
    live: Kept[LiveReport]
    """With --live."""


class DoctorResult(WithLive, Failure):
    """Of `doctor`."""

    versions: Kept[dict[str, str]]
    """Of Python and the packages."""
    settings: Kept[ResolvedSettings]
    """What the client was told, from arguments, the environment and `.env` files."""
    hosts: Kept[dict[str, Host]]
    """fal's hosts by name."""
    endings: Kept[list[Ending]]
    """Default models with a known end, the next one first."""
    warnings: Kept[list[str]]
    """Of models that end within 30 days, or ended."""
    error: Failed[str] | None
    """Set when a host cannot be reached, the key is refused, or fal is not as this library takes it to be."""


class OfStyle(TypedDict, total=False):
    style: str
    """The name of the style, when the step is for one."""


class StepStarted(OfStyle):
    """A step of a call begins."""

    step: Step
    """The step that begins."""
    status: Literal["started"]
    """Tells this event from the others of a step."""


class StepMade(OfStyle, FromSandbox, total=False):
    image_url: str
    """Of `upload` and `cutout`."""
    cutout: Image
    """Of `cutout`, when one was made; of `download` when it is on file."""
    categories: Categories
    """Of `analysis`."""
    prompt: str
    """Of `prompt`."""
    image: StyledImage
    """Of `picture`, and of `download` when it is on file; with `num_images` above 1 there is one such event for
    each."""
    description: str
    """Of `description`."""


class StepDone(StepMade):
    """A step is over; with what it made."""

    step: Step
    """The step that is over."""
    status: Literal["done"]
    """Tells this event from the others of a step."""
    seconds: float
    """How long the step took."""


class StepFailed(OfStyle, ErrorSummary):
    """A step failed; others may go on."""

    step: Step
    """The step that failed."""
    status: Literal["failed"]
    """Tells this event from the others of a step."""


class QueueEvent(TypedDict):
    """A job's place in fal's queue, when it is another than before."""

    step: Literal["queue"]
    """Tells this event from others."""
    queue_position: int
    """Jobs ahead of it; 0 also when it runs."""
    request_id: str
    """fal's id of the job."""


class LogEvent(TypedDict):
    """With `with_logs`: a line of a job's log."""

    step: Literal["log"]
    """Tells this event from others."""
    timestamp: str
    """When it was written, by fal's clock."""
    message: str
    """The line."""
    request_id: str
    """fal's id of the job."""


class BatchEvent(TypedDict):
    """How far a batch is."""

    step: Literal["batch"]
    """Tells this event from others."""
    status: Literal["running"]
    """Of the batch."""
    done: int
    """Products, as `failed`, `ambiguous` and `total`."""
    failed: int
    """Products that failed."""
    ambiguous: int
    """Products of which nobody knows whether fal runs, and bills, a job."""
    total: int
    """All products."""
    jobs: int
    """Jobs that are at fal."""
    cost_usd: float
    """US dollars so far, as far as they are known."""
    unknown_costs: int
    """How many jobs have a result whose cost is not known."""


ProgressEvent = StepStarted | StepDone | StepFailed | QueueEvent | LogEvent | BatchEvent
"""Of `on_progress`, and of the notification `progress` of `serve`."""


class CommandSchemas(TypedDict):
    """JSON Schemas (2020-12) of one command, each complete in itself."""

    description: str
    """What the command does."""
    options: dict[str, Any]
    """What --json takes."""
    result: dict[str, Any]
    """What the command prints when it succeeds; for any-llm-stream, one line."""
    failure: dict[str, Any]
    """What it prints when it fails."""


class SharedSchemas(TypedDict, total=False):
    progress: dict[str, Any]
    """What `serve` tells of a call while it runs; when all commands are asked for."""


class SchemaResult(SharedSchemas):
    """Of `schema`."""

    commands: dict[str, CommandSchemas]
    """By the name of the command."""


OPEN = (Usage, ErrorDocument)
"""There may be more keys than are named here: fal's own, or those of the command that failed."""
