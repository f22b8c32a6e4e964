"""The inputs of the endpoints as pydantic models, because fal's apps are FastAPI and check inputs the same way.

As there, a number may come as a string that spells it, and unknown fields pass. Names, defaults, enums and ranges are
those of each endpoint's page, in short at https://fal.ai/models/ENDPOINT/llms.txt; those of `fal-ai/any-llm`, which is
deprecated, as fal-js had them in October 2025 (https://github.com/fal-ai/fal-js, `types/endpoints.ts`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from fal_sandbox.sizes import LARGEST_SIDE, MOST_PIXELS, Size, read_size
from fal_sandbox.wire_types import Json

LARGEST_SEED = 2**31 - 1


class Input(BaseModel):
    """What every endpoint does with its input."""

    model_config = ConfigDict(extra="allow")


class Invalid(Exception):
    """The input does not fit; carries the `detail` list of FastAPI."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__(errors)
        self.errors = errors


def check(kind: type[Input], given: Json) -> dict[str, Any]:
    """The input with defaults filled in; raises Invalid with every error at once."""
    if given is None:
        raise Invalid([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        return dict(kind.model_validate(given, from_attributes=True))
    except ValidationError as error:
        raise Invalid([_entry(dict(wrong)) for wrong in error.errors(include_url=False)]) from None


def _entry(wrong: dict[str, Any]) -> dict[str, Any]:
    """One error as FastAPI encodes it: below `body`, and an exception in `ctx` as an empty object."""
    entry = {"type": wrong["type"], "loc": ["body", *wrong["loc"]], "msg": wrong["msg"], "input": wrong["input"]}
    if "ctx" in wrong:
        entry["ctx"] = {name: {} if isinstance(value, Exception) else value for name, value in wrong["ctx"].items()}
    return entry


class _Spoken(Input):
    prompt: str
    system_prompt: str | None = None
    reasoning: bool = False
    temperature: float = Field(default=1, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)


class Router(_Spoken):
    """openrouter/router and its enterprise sibling."""

    model: str
    enable_web_search: bool = False
    web_search_options: dict[str, Any] | None = None


class RouterVision(Router):
    """openrouter/router/vision."""

    image_urls: list[str] | None = None
    pdf_urls: list[str] | None = None


class AnyLlm(_Spoken):
    """fal-ai/any-llm and its enterprise sibling."""

    model: str = "google/gemini-2.5-flash-lite"
    priority: Literal["throughput", "latency"] = "latency"


class AnyLlmVision(AnyLlm):
    """fal-ai/any-llm/vision."""

    image_urls: list[str] | None = None


class OfPicture(Input):
    """A background remover: fal-ai/bria/background/remove."""

    image_url: str
    sync_mode: bool = False


class Birefnet(OfPicture):
    """fal-ai/birefnet/v2."""

    model: Literal[
        "General Use (Light)",
        "General Use (Light 2K)",
        "General Use (Heavy)",
        "General Use (Dynamic)",
        "Matting",
        "Portrait",
    ] = "General Use (Light)"
    operating_resolution: Literal["1024x1024", "2048x2048", "2304x2304"] = "1024x1024"
    output_format: Literal["webp", "png", "gif"] = "png"
    refine_foreground: bool = True
    output_mask: bool = False
    mask_only: bool = False

    @field_validator("operating_resolution")
    @classmethod
    def _largest_is_dynamic(cls, value: str, info: ValidationInfo) -> str:
        if value == "2304x2304" and info.data.get("model", "General Use (Dynamic)") != "General Use (Dynamic)":
            raise ValueError("2304x2304 is only available for the model 'General Use (Dynamic)'")
        return value


Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Count = Annotated[int, Field(ge=1, le=4)]


class BriaReplace(Input):
    """bria/replace-background: nothing is required, and the seed is fixed, so that equal inputs give one picture."""

    image_url: str | None = None
    prompt: str | None = None
    negative_prompt: str = ""
    seed: Seed = 4925634
    steps_num: int = Field(default=30, ge=1)
    sync_mode: bool = False


class _OnePlan(OfPicture):
    """A scene in words or as a picture; an empty text counts as none."""

    ref_image_url: str | None = None

    def _check_plan(self, name: str) -> None:
        words: str | None = getattr(self, name)
        if bool(self.ref_image_url) == bool(words):
            raise ValueError(f"exactly one of {name} and ref_image_url must be given")


class BriaBackground(_OnePlan):
    """fal-ai/bria/background/replace."""

    prompt: str | None = None
    negative_prompt: str = ""
    fast: bool = True
    refine_prompt: bool = True
    num_images: Count = 1
    seed: Seed | None = None

    @model_validator(mode="after")
    def _plan(self) -> BriaBackground:
        self._check_plan("prompt")
        return self


Side = Annotated[int, Field(ge=1, le=4096)]


class BriaProductShot(_OnePlan):
    """fal-ai/bria/product-shot."""

    scene_description: str | None = None
    placement_type: Literal["original", "automatic", "manual_placement", "manual_padding"] = "manual_placement"
    manual_placement_selection: Literal[
        "upper_left",
        "upper_right",
        "bottom_left",
        "bottom_right",
        "right_center",
        "left_center",
        "upper_center",
        "bottom_center",
        "center_vertical",
        "center_horizontal",
    ] = "bottom_center"
    shot_size: list[Side] = Field(default=[1000, 1000], min_length=2, max_length=2)
    padding_values: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=4, max_length=4)
    num_results: Count = 1
    original_quality: bool = False
    fast: bool = True
    optimize_description: bool = True

    @model_validator(mode="after")
    def _plan(self) -> BriaProductShot:
        self._check_plan("scene_description")
        return self


class _Banana(Input):
    prompt: str
    output_format: Literal["jpeg", "png", "webp"] = "png"
    safety_tolerance: Literal["1", "2", "3", "4", "5", "6"] = "4"
    limit_generations: bool = True
    num_images: Count = 1
    seed: int | None = None
    sync_mode: bool = False


class NanoBanana(_Banana):
    """fal-ai/nano-banana/edit."""

    image_urls: list[str] = Field(min_length=1)
    aspect_ratio: Literal["auto", "21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16"] = "auto"


class _Banana2(_Banana):
    aspect_ratio: Literal[
        "auto", "21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16", "4:1", "1:4", "8:1", "1:8"
    ] = "auto"
    resolution: Literal["0.5K", "1K", "2K", "4K"] = "1K"
    thinking_level: Literal["minimal", "high"] | None = None
    enable_web_search: bool = False


class NanoBanana2(_Banana2):
    """fal-ai/nano-banana-2/edit."""

    image_urls: list[str] | None = Field(default=None, min_length=1, max_length=14)


class NanoBanana21(_Banana2):
    """google/nano-banana-2.1/edit."""

    image_urls: list[str] = Field(min_length=1, max_length=14)


class Anything(Input):
    """An endpoint that the sandbox does not know: whatever other models take."""

    prompt: str | list[Any] | None = ""
    num_images: int | None = Field(default=1, ge=1, le=100)
    seed: int | None = None
    sync_mode: bool | None = False
    image_size: Any = None
    width: int | None = Field(default=None, ge=1, le=LARGEST_SIDE)
    height: int | None = Field(default=None, ge=1, le=LARGEST_SIDE)
    aspect_ratio: Any = None
    resolution: Any = None

    @field_validator("image_size")
    @classmethod
    def _size(cls, value: Any) -> Size | None:
        return read_size(value)

    @model_validator(mode="after")
    def _only_pictures(self) -> Anything:
        if (self.width or 1) * (self.height or 1) > MOST_PIXELS:
            raise ValueError(f"width and height may have {MOST_PIXELS} pixels together")
        if named := [name for name in self.model_extra or () if re.search("(audio|video)_urls?$", name)]:
            raise ValueError(f"the sandbox makes no audio, video or speech, and takes no {named[0]}")
        return self

    @field_validator("prompt")
    @classmethod
    def _one_text(cls, value: str | list[Any] | None) -> str:
        return value if isinstance(value, str) else " ".join(map(str, value or ()))


Message = dict[str, Any]


class Chat(Input):
    """OpenAI's chat completions."""

    messages: list[Message] = Field(min_length=1)
    model: str
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = Field(default=1, ge=1, le=16)


class Responses(Input):
    """OpenAI's responses."""

    model: str
    input: str | list[Message]
    instructions: str | None = None
    stream: bool | None = False
    text: dict[str, Any] | None = None


class Embeddings(Input):
    """OpenAI's embeddings: one text or several, or their tokens."""

    model: str
    input: str | Annotated[list[str] | list[int] | list[list[int]], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(default=None, ge=1, le=8192)
