"""What an endpoint runs: from checked fields to the output object fal would give.

The pictures and texts themselves are made elsewhere (`pictures`, `texts`, `samples`), imported on first use
and beside the loop. Every output says `sandbox`, so that nobody takes it for a model's, and in `sandbox_remarks` what
about it is not as asked for, such as a product that could not be found; fal sends neither.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.checks import refuse
from sandbox.inputs import Unusable, fetch_picture, in_thread, sample
from sandbox.wire_types import Json

if TYPE_CHECKING:
    from sandbox.pictures.cutout import Made
    from sandbox.state import State

Output = dict[str, Any]
Picture = tuple[bytes, int, int]

SIZES: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
LARGEST_SIDE = 4096
SEEDS = 2**31


@dataclass(slots=True)
class Work:
    """One run of a model: the checked fields, and what a run may use."""

    state: State
    endpoint: str
    fields: dict[str, Any]


Model = Callable[[Work], Awaitable[Output]]


async def router(work: Work) -> Output:
    """openrouter/router and its enterprise sibling."""
    text = await _say(work, [])
    reasoning = "The sandbox follows a script." if work.fields["reasoning"] else None
    return {
        "output": text,
        "reasoning": reasoning,
        "partial": False,
        "error": None,
        "usage": _usage(work, text),
    }


async def router_vision(work: Work) -> Output:
    """openrouter/router/vision: output and usage, nothing else."""
    text = await _say(work, await _photos(work))
    return {"output": text, "usage": _usage(work, text)}


async def any_llm(work: Work) -> Output:
    """fal-ai/any-llm in its three forms; no usage there."""
    text = await _say(work, await _photos(work))
    reasoning = "The sandbox follows a script." if work.fields["reasoning"] else None
    return {"output": text, "reasoning": reasoning, "partial": False, "error": None}


async def cut_out(work: Work) -> Output:
    """Background removal: `image`."""
    _, photo = await fetch_picture(work.state, "image_url", work.fields["image_url"])
    picture, remark = await in_thread(work.state, _cut, photo)
    return {"image": _image(work, picture, "cutout"), **_remarks([remark])}


async def replace(work: Work) -> Output:
    """bria/replace-background. Without `image_url` it takes fal's sample picture: the documented trap."""
    url = work.fields["image_url"]
    if url is None:
        photo = await sample(work.state, "coffee-machine.jpg")
    else:
        _, photo = await fetch_picture(work.state, "image_url", url)
    image, remark = await _scene(work, photo, work.fields["seed"])
    return {"image": image, "images": [image], **_remarks([remark])}


async def replace_several(work: Work) -> Output:
    """fal-ai/bria/background/replace: a prompt or a reference picture, several results."""
    if (work.fields["prompt"] is None) == (work.fields["ref_image_url"] is None):
        raise refuse("prompt", "exactly one of prompt and ref_image_url must be given", work.fields["prompt"])
    if (reference := work.fields["ref_image_url"]) is not None:
        await fetch_picture(work.state, "ref_image_url", reference)
    _, photo = await fetch_picture(work.state, "image_url", work.fields["image_url"])
    seed = _seed(work)
    return {**await _scenes(work, photo, seed), "seed": seed}


async def edit(work: Work) -> Output:
    """The nano-banana editors: `images` and a description."""
    urls = work.fields["image_urls"]
    photos = [await fetch_picture(work.state, "image_urls", url) for url in urls]
    if not photos:
        raise refuse("image_urls", "at least one image is needed", urls)
    return {**await _scenes(work, photos[0][1], _seed(work)), "description": ""}


async def anything(work: Work) -> Output:
    """Any other endpoint, when the sandbox was told to answer for all: a picture of the size asked for."""
    width, height = _size(work.fields.get("image_size") or "square_hd")
    started, seed, prompt = time.monotonic(), _seed(work), work.fields["prompt"]
    images = [
        _image(work, await in_thread(work.state, _generic, width, height, prompt, seed + number), "picture")
        for number in range(work.fields["num_images"])
    ]
    return {
        "images": images,
        "seed": seed,
        "timings": {"inference": round(time.monotonic() - started, 6)},
        "has_nsfw_concepts": [False] * len(images),
        "prompt": prompt,
    }


async def _photos(work: Work) -> list[tuple[str, bytes]]:
    urls = work.fields.get("image_urls") or []
    return [await fetch_picture(work.state, "image_urls", url) for url in urls]


async def _say(work: Work, photos: list[tuple[str, bytes]]) -> str:
    if (scripted := work.state.script.take(work.endpoint)) is not None:
        return scripted
    values = (work.fields["prompt"], work.fields["system_prompt"], photos)
    # Words alone are quick; a picture, and the first import, take long enough to hold up the loop.
    if photos or "sandbox.texts" not in sys.modules:
        return await in_thread(work.state, _answer, *values)
    return _answer(*values)


def _usage(work: Work, text: str) -> dict[str, Any]:
    asked = len(work.fields["prompt"]) + len(work.fields["system_prompt"] or "")
    prompt_tokens, completion_tokens = 1 + asked // 4, 1 + len(text) // 4
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "cost": round(prompt_tokens * 1e-7 + completion_tokens * 4e-7, 9),
    }


async def _scenes(work: Work, photo: bytes, seed: int) -> Output:
    """`images`, and what there is to say about them."""
    made = [await _scene(work, photo, seed + number) for number in range(work.fields["num_images"])]
    return {"images": [image for image, _ in made], **_remarks([remark for _, remark in made])}


async def _scene(work: Work, photo: bytes, seed: int) -> tuple[dict[str, Any], str | None]:
    prompt = work.fields["prompt"] or ""
    picture, remark = await in_thread(work.state, _replace, photo, prompt, seed)
    return _image(work, picture, "scene"), remark


def _remarks(remarks: list[str | None]) -> Output:
    """Each remark once; nothing at all when there is none."""
    known = list(dict.fromkeys(filter(None, remarks)))
    return {"sandbox_remarks": known} if known else {}


def _seed(work: Work) -> int:
    given = work.fields["seed"]
    return work.state.random.randrange(SEEDS) if given is None else int(given)


def _size(asked: Json) -> tuple[int, int]:
    if isinstance(asked, str) and asked in SIZES:
        return SIZES[asked]
    if isinstance(asked, dict):
        sides = asked.get("width", 1024), asked.get("height", 1024)
        if all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides):
            return sides
    raise refuse("image_size", f"one of {', '.join(SIZES)}, or width and height up to {LARGEST_SIDE}", asked)


def _image(work: Work, picture: Picture, name: str) -> dict[str, Any]:
    """fal's image object; with `sync_mode` its URL carries the bytes."""
    png, width, height = picture
    file_name = f"sandbox-{name}.png"
    if work.fields["sync_mode"]:
        url = "data:image/png;base64," + base64.b64encode(png).decode()
    else:
        url = work.state.files.keep([png], file_name, "image/png")
    return {
        "url": url,
        "content_type": "image/png",
        "file_name": file_name,
        "file_size": len(png),
        "width": width,
        "height": height,
    }


def _answer(prompt: str, system_prompt: str | None, photos: list[tuple[str, bytes]]) -> str:
    from sandbox import texts

    return texts.answer(prompt, system_prompt, photos)


def _cut(photo: bytes) -> tuple[Picture, str | None]:
    from sandbox.pictures.cutout import cut_out, picture_size

    png, remark = _made(cut_out, photo)
    return (png, *picture_size(png)), remark


def _replace(photo: bytes, prompt: str, seed: int) -> tuple[Picture, str | None]:
    from sandbox.pictures.cutout import picture_size
    from sandbox.pictures.scene import replace_background

    png, remark = _made(replace_background, photo, prompt, seed)
    return (png, *picture_size(png)), remark


def _generic(width: int, height: int, prompt: str, seed: int) -> Picture:
    from sandbox.pictures.scene import generic_picture

    return generic_picture(width, height, prompt, seed), width, height


def _made(make: Callable[..., Made], photo: bytes, *values: Json) -> Made:
    """A header can look right while the picture behind it is broken."""
    try:
        return make(photo, *values)
    except ValueError:
        raise Unusable("image_load_error", "image_url", "Failed to load the image.", None) from None
