"""The endpoints the sandbox knows: one frozen row each, with the fields it checks and the model it runs.

Also what an endpoint id means to fal: the application is its first two segments, the rest a path inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox import models
from sandbox.checks import Field

NAMESPACES = ("workflows", "comfy")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint."""

    id: str
    runs: models.Model
    fields: tuple[Field, ...]
    streams: bool = False
    """Whether it offers `/stream`."""


_SYNC_MODE = Field("sync_mode", "boolean", default=False)
_SEED = Field("seed", "integer")
_NUM_IMAGES = Field("num_images", "integer", default=1, low=1, high=4)
_IMAGE_URL = Field("image_url", required=True)
_SPOKEN = (
    Field("prompt", required=True),
    Field("system_prompt"),
    Field("reasoning", "boolean", default=False),
    Field("temperature", "number", default=1, low=0, high=2),
    Field("max_tokens", "integer", low=1),
)
_ROUTER = (
    *_SPOKEN,
    Field("model", required=True),
    Field("enable_web_search", "boolean", default=False),
    Field("web_search_options", "object"),
)
_ANY_LLM = (
    *_SPOKEN,
    Field("model", default="google/gemini-2.5-flash-lite"),
    Field("priority", default="latency", one_of=("throughput", "latency")),
)
_IMAGE_URLS = Field("image_urls", "strings")
_BRIA_REPLACE = (
    Field("image_url"),
    Field("prompt"),
    Field("negative_prompt", default=""),
    Field("seed", "integer", default=4925634),
    Field("steps_num", "integer", default=30, low=1),
    _SYNC_MODE,
)
_BRIA_BACKGROUND = (
    _IMAGE_URL,
    Field("prompt"),
    Field("ref_image_url"),
    Field("negative_prompt", default=""),
    Field("fast", "boolean", default=True),
    Field("refine_prompt", "boolean", default=True),
    _NUM_IMAGES,
    _SEED,
    _SYNC_MODE,
)
_BIREFNET_MODELS = (
    "General Use (Light)",
    "General Use (Light 2K)",
    "General Use (Heavy)",
    "General Use (Dynamic)",
    "Matting",
    "Portrait",
)
_BIREFNET = (
    _IMAGE_URL,
    Field("model", default="General Use (Light)", one_of=_BIREFNET_MODELS),
    Field("operating_resolution", default="1024x1024", one_of=("1024x1024", "2048x2048", "2304x2304")),
    Field("output_format", default="png", one_of=("webp", "png", "gif")),
    Field("refine_foreground", "boolean", default=True),
    Field("output_mask", "boolean", default=False),
    Field("mask_only", "boolean", default=False),
    _SYNC_MODE,
)
_BANANA = (
    Field("prompt", required=True),
    Field("image_urls", "strings", required=True),
    Field("aspect_ratio", default="auto"),
    Field("output_format", default="png", one_of=("jpeg", "png", "webp")),
    Field("safety_tolerance", default="4", one_of=("1", "2", "3", "4", "5", "6")),
    Field("limit_generations", "boolean", default=True),
    _NUM_IMAGES,
    _SEED,
    _SYNC_MODE,
)
_BANANA_2 = (*_BANANA, Field("resolution", default="1K", one_of=("0.5K", "1K", "2K", "4K")))
_ANYTHING = (Field("prompt", default=""), _NUM_IMAGES, _SEED, _SYNC_MODE)

ENDPOINTS: dict[str, Endpoint] = {
    row.id: row
    for row in (
        Endpoint("openrouter/router", models.router, _ROUTER, streams=True),
        Endpoint("openrouter/router/enterprise", models.router, _ROUTER, streams=True),
        Endpoint("openrouter/router/vision", models.router_vision, (*_ROUTER, _IMAGE_URLS), streams=True),
        Endpoint("fal-ai/any-llm", models.any_llm, _ANY_LLM, streams=True),
        Endpoint("fal-ai/any-llm/enterprise", models.any_llm, _ANY_LLM, streams=True),
        Endpoint("fal-ai/any-llm/vision", models.any_llm, (*_ANY_LLM, _IMAGE_URLS), streams=True),
        Endpoint("bria/replace-background", models.replace, _BRIA_REPLACE),
        Endpoint("fal-ai/bria/background/replace", models.replace_several, _BRIA_BACKGROUND),
        Endpoint("fal-ai/bria/background/remove", models.cut_out, (_IMAGE_URL, _SYNC_MODE)),
        Endpoint("fal-ai/birefnet/v2", models.cut_out, _BIREFNET),
        Endpoint("fal-ai/nano-banana/edit", models.edit, _BANANA),
        Endpoint("fal-ai/nano-banana-2/edit", models.edit, _BANANA_2),
    )
}
ANYTHING = Endpoint("*", models.anything, _ANYTHING)


def app_of(endpoint: str) -> str:
    """The application an endpoint id belongs to: `owner/app`, after a namespace one segment more."""
    parts = endpoint.split("/")
    return "/".join(parts[: 3 if parts[0] in NAMESPACES else 2])


APPS = frozenset(map(app_of, ENDPOINTS))
