"""What each endpoint takes, as its documents say: the rows that fal's own catalogue is compared with.

What a document leaves open is left open here: it is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from services.fal.endpoints import MORE_RATIOS, PLACES, RATIOS, RESOLUTION_FACTORS
from services.live.shapes import Difference

UNKNOWN: Any = ...
"""A default or a limit that no document names."""
LARGEST_SEED = 2_147_483_647
MAX_DEPTH, MAX_CHOICES = 5, 50
"""How much of a schema is followed."""


class Input(NamedTuple):
    """One input of an endpoint."""

    type: str
    required: bool = False
    sent: bool = False
    """Whether this library sends it."""
    enum: tuple[Any, ...] = ()
    minimum: float | None = UNKNOWN
    maximum: float | None = UNKNOWN
    default: Any = UNKNOWN


def _text(**more: Any) -> Input:
    return Input("string", **more)


def _flag(default: bool, **more: Any) -> Input:
    return Input("boolean", default=default, **more)


def _choice(default: Any, *values: str, sent: bool = False) -> Input:
    return Input("string", enum=values, default=default, sent=sent)


PROMPT = _text(required=True, sent=True)
IMAGE_URL = _text(required=True, sent=True)
SYNC_MODE = _flag(False)
SEED = Input("integer", sent=True, minimum=0, maximum=LARGEST_SEED)
SPOKEN = {
    "prompt": PROMPT,
    "system_prompt": _text(sent=True),
    "reasoning": _flag(False, sent=True),
    "temperature": Input("number", sent=True, minimum=0, maximum=2, default=1),
    "max_tokens": Input("integer", sent=True),
}
ROUTER = {
    **SPOKEN,
    "model": _text(required=True, sent=True),
    "enable_web_search": _flag(False),
    "web_search_options": Input("object"),
}
ANY_LLM = {
    **SPOKEN,
    "model": _text(sent=True, default="google/gemini-2.5-flash-lite"),
    "priority": Input("string", sent=True, enum=("throughput", "latency"), default="latency"),
}
IMAGE_URLS = Input("array", sent=True)
SCENE = {
    "image_url": IMAGE_URL,
    "ref_image_url": _text(sent=True),
    "fast": _flag(True),
    "sync_mode": SYNC_MODE,
}
BANANA = {
    "prompt": PROMPT,
    "num_images": Input("integer", sent=True, minimum=1, maximum=4, default=1),
    "output_format": _choice("png", "jpeg", "png", "webp"),
    "safety_tolerance": _choice("4", "1", "2", "3", "4", "5", "6"),
    "limit_generations": _flag(True),
    "seed": Input("integer", sent=True),
    "sync_mode": SYNC_MODE,
}
BANANA_2 = {
    **BANANA,
    "aspect_ratio": _choice("auto", *MORE_RATIOS, sent=True),
    "resolution": _choice("1K", *RESOLUTION_FACTORS, sent=True),
    "thinking_level": Input("string", enum=("minimal", "high")),
    "enable_web_search": _flag(False),
}
BIREFNET_MODELS = (
    "General Use (Light)",
    "General Use (Light 2K)",
    "General Use (Heavy)",
    "General Use (Dynamic)",
    "Matting",
    "Portrait",
)
INPUTS: Mapping[str, Mapping[str, Input]] = {
    "openrouter/router": ROUTER,
    "openrouter/router/enterprise": ROUTER,
    "openrouter/router/vision": {**ROUTER, "image_urls": IMAGE_URLS, "pdf_urls": Input("array")},
    "fal-ai/any-llm": ANY_LLM,
    "fal-ai/any-llm/enterprise": ANY_LLM,
    "fal-ai/any-llm/vision": {**ANY_LLM, "image_urls": IMAGE_URLS},
    "bria/replace-background": {
        "image_url": _text(sent=True),
        "prompt": _text(sent=True),
        "negative_prompt": _text(sent=True, default=""),
        "seed": SEED._replace(default=4925634),
        "steps_num": Input("integer", default=30),
        "sync_mode": SYNC_MODE,
    },
    "fal-ai/bria/background/replace": {
        **SCENE,
        "prompt": _text(sent=True),
        "negative_prompt": _text(sent=True, default=""),
        "refine_prompt": _flag(True),
        "num_images": Input("integer", sent=True, minimum=1, maximum=4, default=1),
        "seed": SEED,
    },
    "fal-ai/bria/background/remove": {"image_url": IMAGE_URL, "sync_mode": SYNC_MODE},
    "fal-ai/birefnet/v2": {
        "image_url": IMAGE_URL,
        "model": _choice(BIREFNET_MODELS[0], *BIREFNET_MODELS),
        "operating_resolution": _choice("1024x1024", "1024x1024", "2048x2048", "2304x2304"),
        "output_format": _choice("png", "webp", "png", "gif"),
        "refine_foreground": _flag(True),
        "output_mask": _flag(False),
        "mask_only": _flag(False),
        "sync_mode": SYNC_MODE,
    },
    "fal-ai/nano-banana/edit": {
        **BANANA,
        "image_urls": IMAGE_URLS._replace(required=True),
        "aspect_ratio": _choice("auto", *RATIOS, sent=True),
    },
    "fal-ai/nano-banana-2/edit": {**BANANA_2, "image_urls": IMAGE_URLS},
    "google/nano-banana-2.1/edit": {**BANANA_2, "image_urls": IMAGE_URLS._replace(required=True)},
    "fal-ai/bria/product-shot": {
        **SCENE,
        "scene_description": _text(sent=True),
        "placement_type": _choice(
            *("manual_placement", "original", "automatic", "manual_placement", "manual_padding"), sent=True
        ),
        "manual_placement_selection": _choice("bottom_center", *PLACES, sent=True),
        "shot_size": Input("array", sent=True, default=[1000, 1000]),
        "padding_values": Input("array"),
        "num_results": Input("integer", sent=True, default=1),
        "original_quality": _flag(False, sent=True),
        "optimize_description": _flag(True),
    },
}

Read = Mapping[str, Mapping[str, Any]]
"""Inputs as `inputs_of` reads them from a document."""


def inputs_of(document: Any) -> Read | None:
    """The inputs that the OpenAPI document of one endpoint names; None when it names none."""
    schema = _input_schema(document)
    if schema is None:
        return None
    required = _items(schema.get("required"))
    return {str(name): _read(_resolved(document, row), name in required) for name, row in schema["properties"].items()}


def compare(rows: Mapping[str, Input], read: Read) -> tuple[list[Difference], list[str]]:
    """How the catalogue differs from our rows, and what it has beside them."""
    found = [row for name, ours in rows.items() for row in _of_input(name, ours, read.get(name))]
    others = [name for name in read if name not in rows]
    found += [
        Difference(f"{name} is required, and this library does not know it", True)
        for name in others
        if read[name]["required"]
    ]
    return found, [name for name in others if not read[name]["required"]]


def _of_input(name: str, ours: Input, theirs: Mapping[str, Any] | None) -> Iterator[Difference]:
    if theirs is None:
        yield Difference(f"no {name}", ours.sent)
        return
    if theirs["type"] not in (ours.type, "any"):
        yield Difference(f"{name} is {theirs['type']}, not {ours.type}", ours.sent)
    if theirs["required"] != ours.required:
        # What became required is in the way only when it is not sent anyway.
        yield Difference(f"{name} is {'' if theirs['required'] else 'not '}required", theirs["required"])
    if set(theirs["enum"]) != set(ours.enum):
        yield Difference(f"{name} takes {_listed(theirs['enum'])}, not {_listed(ours.enum)}", ours.sent)
    for part in ("minimum", "maximum", "default"):
        if (wanted := getattr(ours, part)) is not UNKNOWN and theirs[part] != wanted:
            limits = ours.sent and part != "default"
            yield Difference(f"{part} of {name} is {theirs[part]!r}, not {wanted!r}", limits)


def _listed(values: Any) -> str:
    return ", ".join(map(str, values)) or "any value"


def _input_schema(document: Any) -> Mapping[str, Any] | None:
    """Of the body that starts a job: the only POST with one in a document of one endpoint."""
    paths = document.get("paths") if isinstance(document, dict) else None
    for methods in paths.values() if isinstance(paths, dict) else ():
        body: Any = methods
        for part in ("post", "requestBody", "content", "application/json", "schema"):
            body = body.get(part) if isinstance(body, dict) else None
        schema = _resolved(document, body)
        if isinstance(schema.get("properties"), dict):
            return schema
    return None


def _resolved(document: Any, schema: Any, depth: int = 0) -> Mapping[str, Any]:
    """A schema with its references followed, and with what `allOf`, or the one choice that is no null, says."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return {}
    if isinstance(reference := schema.get("$ref"), str):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, dict) else None
        return _resolved(document, target, depth + 1)
    merged = dict(schema)
    for row in _items(merged.pop("allOf", None)):
        merged = {**_resolved(document, row, depth + 1), **merged}
    choices = [_resolved(document, row, depth + 1) for row in _items(merged.pop("anyOf", None))]
    choices = [row for row in choices if row.get("type") != "null"]
    if len(choices) == 1:
        return {**choices[0], **merged}
    return merged if not choices else {"type": "any", **merged}


def _read(schema: Mapping[str, Any], required: bool) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    return {
        "type": kind if isinstance(kind, str) else "any",
        "required": required,
        "enum": [one for one in _items(schema.get("enum")) if isinstance(one, str | int | float)],
        "minimum": schema.get("minimum"),
        "maximum": schema.get("maximum"),
        "default": schema.get("default"),
    }


def _items(value: Any) -> list[Any]:
    return value[:MAX_CHOICES] if isinstance(value, list) else []
