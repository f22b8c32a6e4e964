"""What the methods return and the worker prints: one TypedDict each, the single source of the result shapes.

Keys of the documented shapes are always there; what is only sometimes known (`usage`, `billable_units`, the fields
of a failure) stands in a `total=False` base.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Usage(TypedDict, total=False):
    """Tokens and cost as the model's provider counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float
    """US dollars."""


class Billing(TypedDict, total=False):
    """What is known of a job that ran."""

    request_id: str | None
    """fal's id of the job."""
    billable_units: float | None
    """fal's own count of what is billed."""


class Failure(TypedDict, total=False):
    """Beside `error`, when it is not None."""

    error_type: str
    retryable: bool
    status_code: int | None
    hint: str | None
    detail: Any
    trace: str


class TextExtras(Billing, Failure, total=False):
    usage: Usage | None


class TextResult(TextExtras):
    """Of `any_llm_complete` and `any_llm_result`."""

    output: str
    """The generated text; empty when the call failed."""
    reasoning: str | None
    partial: bool
    error: str | None
    raw: dict[str, Any]
    """fal's whole answer."""


class EnterpriseResult(TextExtras):
    """Of `any_llm_enterprise`."""

    output: str
    error: str | None
    raw: dict[str, Any]


class TextEvent(TypedDict):
    """Of `iter_any_llm`."""

    delta: str
    """What is new since the event before."""
    output: str
    """The whole text so far."""
    partial: bool
    """False on the last event."""
    usage: Usage | None


class StatusResult(TypedDict):
    """Of `any_llm_status`."""

    request_id: str
    status: str
    """IN_QUEUE, IN_PROGRESS or COMPLETED."""
    queue_position: int | None
    """Jobs ahead of this one, from 0, while it is IN_QUEUE."""
    logs: list[dict[str, Any]] | None
    metrics: dict[str, Any] | None
    error: str | None
    """Why the job failed, when it did."""
    error_type: str | None
    """fal's own name for that."""


class CancelResult(TypedDict):
    """Of `any_llm_cancel`."""

    request_id: str
    status: str
    """cancelled, requested (it was running), too_late (it had ended) or not_found."""


class Categories(TypedDict):
    """The nine categories of a product."""

    main_product_type: str
    subcategory: str
    target_audience: str
    price_range: str
    use_case: str
    style_design: str
    season_occasion: str
    industrial_type: str
    vibe: str


class AnalysisResult(TextExtras):
    """Of `analyze_product_image`."""

    categories: Categories | dict[str, str]
    """All nine; "Unknown" where the model gave none twice. Empty when the call failed."""
    error: str | None
    raw_output: str
    """What the model wrote."""


class PromptResult(TextExtras):
    """Of `generate_background_prompt`."""

    prompt: str
    """Always usable: on an error it is a plain one built from the style."""
    error: str | None


class Image(TypedDict, total=False):
    url: str
    width: int | None
    """Pixels."""
    height: int | None
    content_type: str | None
    file_size: int | None
    """Bytes."""


class PictureResult(Billing):
    """Of `background_replace` and `remove_background`."""

    image: Image
    timings: dict[str, float]
    """Seconds per step by our clock, and fal's `inference_time` where it is given."""


class StyledImageExtras(TypedDict, total=False):
    content_type: str | None
    file_size: int | None
    request_id: str | None
    billable_units: float | None
    path: str
    """Where --save_dir put it."""


class StyledImage(StyledImageExtras):
    style_name: str
    style_description: str
    image_url: str
    prompt: str
    width: int | None
    height: int | None


class StyleError(TypedDict):
    style: str | None
    """None when it concerns no single style."""
    stage: str
    """cutout, prompt, picture, description or download."""
    error: str
    error_type: str
    retryable: bool
    request_id: str | None


class BackgroundsResult(TypedDict):
    """Of `generate_multiple_backgrounds`."""

    images: list[StyledImage]
    """In the order of the styles."""
    total_generated: int
    total_requested: int
    errors: list[StyleError] | None
    timings: dict[str, float]


class WorkflowResult(BackgroundsResult):
    """Of `product_workflow`."""

    image_url: str
    categories: Categories | dict[str, str]
    description: str
