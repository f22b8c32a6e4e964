"""Runs an endpoint: turns checked fields into the output that fal would return.

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
from functools import lru_cache, partial
from typing import Any

from fal_sandbox.inputs import Unusable, fetch_picture, in_thread, sample
from fal_sandbox.memory import Memory
from fal_sandbox.refusals import REASONING_TOKENS
from fal_sandbox.sizes import USUAL, Size, size_of
from fal_sandbox.wire_types import Json

Output = dict[str, Any]
Picture = tuple[bytes, int, int]

REASONING = "The sandbox follows a script."
SEEDS = 2**31
AUTOMATIC_SHOTS = 10
"""How many placements `placement_type: automatic` of product-shot gives for each result."""
DRAWN_SIDE = 2048
"""Larger pictures are drawn smaller and scaled up: they take memory enough as they are."""


@dataclass(slots=True)
class Work:
    """One run of a model: the checked fields, and what a run may use."""

    state: Memory
    endpoint: str
    fields: dict[str, Any]


Model = Callable[[Work], Awaitable[Output]]


async def router(work: Work) -> Output:
    """openrouter/router and its enterprise sibling."""
    text = await _say(work, [])
    reasoning = REASONING if work.fields["reasoning"] else None
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
    reasoning = REASONING if work.fields["reasoning"] else None
    return {"output": text, "reasoning": reasoning, "partial": False, "error": None}


async def cut_out(work: Work) -> Output:
    """Background removal: `image`."""
    _, photo = await fetch_picture(work.state, "image_url", work.fields["image_url"])
    picture, remark = await in_thread(work.state, _cut, photo)
    return {"image": _image(work, picture, "cutout"), **_remarks([remark])}


async def birefnet(work: Work) -> Output:
    """fal-ai/birefnet/v2: as `cut_out`, with the mask beside the picture or in its place."""
    _, photo = await fetch_picture(work.state, "image_url", work.fields["image_url"])
    (png, width, height), remark = await in_thread(work.state, _cut, photo)
    if not (work.fields["output_mask"] or work.fields["mask_only"]):
        return {"image": await _filed(work, (png, width, height), "cutout"), **_remarks([remark])}
    mask = await in_thread(work.state, _mask, png)
    picture, name = (mask, "mask") if work.fields["mask_only"] else (png, "cutout")
    output = {"image": await _filed(work, (picture, width, height), name), **_remarks([remark])}
    if work.fields["output_mask"]:
        output["mask_image"] = await _filed(work, (mask, width, height), "mask")
    return output


async def replace(work: Work) -> Output:
    """bria/replace-background. Without `image_url` it takes fal's sample picture: the documented trap."""
    url = work.fields["image_url"]
    if url is None:
        photo = await sample(work.state, "coffee-machine.jpg")
    else:
        _, photo = await fetch_picture(work.state, "image_url", url)
    made = await _scenes(work, photo, work.fields["prompt"], work.fields["seed"], 1)
    return {"image": made["images"][0], **made}


async def replace_several(work: Work) -> Output:
    """fal-ai/bria/background/replace: a prompt or a reference picture, several results."""
    photo = await _photo_for_scene(work)
    seed = _seed(work)
    made = await _scenes(work, photo, work.fields["prompt"], seed, work.fields["num_images"])
    return {**made, "seed": seed}


async def product_shot(work: Work) -> Output:
    """fal-ai/bria/product-shot: shots of a size that is asked for, or of the photo's own."""
    photo = await _photo_for_scene(work)
    size = await in_thread(work.state, _shot_size, photo, work.fields)
    count = work.fields["num_results"] * (AUTOMATIC_SHOTS if work.fields["placement_type"] == "automatic" else 1)
    seed, words = _seed(work), work.fields["scene_description"]
    return await _scenes(work, photo, words, seed, count, size)


async def edit(work: Work) -> Output:
    """The nano-banana editors: `images` and a description. About one million pixels are 1K."""
    urls = work.fields["image_urls"] or ()
    photos = [await fetch_picture(work.state, "image_urls", url) for url in urls]
    usual = await in_thread(work.state, _size_of_picture, photos[0][1]) if photos else USUAL
    size = size_of(work.fields["aspect_ratio"], work.fields.get("resolution"), usual)
    seed, prompt = _seed(work), work.fields["prompt"]
    count = work.fields["num_images"]
    if photos:
        return {**await _scenes(work, photos[0][1], prompt, seed, count, size), "description": ""}
    return {"images": await _pictures(work, size, prompt, seed, count), "description": ""}


async def anything(work: Work) -> Output:
    """Any other endpoint, when the sandbox was told to answer for all: a picture of the size asked for."""
    fields = work.fields
    size = fields["image_size"] or size_of(fields["aspect_ratio"], fields["resolution"])
    size = fields["width"] or size[0], fields["height"] or size[1]
    started, seed, prompt = time.monotonic(), _seed(work), fields["prompt"]
    images = await _pictures(work, size, prompt, seed, fields["num_images"] or 1)
    return {
        "images": images,
        "image": images[0],
        "seed": seed,
        "timings": {"inference": round(time.monotonic() - started, 6)},
        "has_nsfw_concepts": [False] * len(images),
        "prompt": prompt,
    }


async def _photo_for_scene(work: Work) -> bytes:
    """The product's photo; the reference picture, if there is one, must be a picture too."""
    if reference := work.fields["ref_image_url"]:
        await fetch_picture(work.state, "ref_image_url", reference)
    _, photo = await fetch_picture(work.state, "image_url", work.fields["image_url"])
    return photo


async def _photos(work: Work) -> list[tuple[str, bytes]]:
    urls = work.fields.get("image_urls") or []
    return [await fetch_picture(work.state, "image_urls", url) for url in urls]


async def _say(work: Work, photos: list[tuple[str, bytes]]) -> str:
    return await say(work, work.fields["prompt"], work.fields["system_prompt"], photos)


async def say(work: Work, prompt: str, system_prompt: str | None, photos: list[tuple[str, bytes]]) -> str:
    """What a language model answers: the text that was put into its mouth, or the scripted one."""
    if (scripted := work.state.script.take(work.endpoint)) is not None:
        return scripted
    if only_reasons(work):
        return ""
    values = (prompt, system_prompt, photos)
    # Words alone are quick; a picture, and the first import, take long enough to hold up the loop.
    if photos or "fal_sandbox.texts" not in sys.modules:
        return await in_thread(work.state, _answer, *values)
    return _answer(*values)


def only_reasons(work: Work) -> bool:
    """Whether a model that must reason has no tokens left to write with."""
    limit = work.fields.get("max_tokens")
    return (
        work.fields["model"] in work.state.settings.must_reason and isinstance(limit, int) and limit <= REASONING_TOKENS
    )


def _usage(work: Work, text: str) -> dict[str, Any]:
    usage = usage_of(work.fields["prompt"] + (work.fields["system_prompt"] or ""), text)
    if only_reasons(work):
        usage["completion_tokens"] = work.fields["max_tokens"]
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    return usage


def usage_of(asked: str, text: str) -> dict[str, Any]:
    """Tokens and cost of one answer, by the length of the texts."""
    prompt_tokens, completion_tokens = 1 + len(asked) // 4, 1 + len(text) // 4
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "cost": round(prompt_tokens * 1e-7 + completion_tokens * 4e-7, 9),
    }


async def _scenes(
    work: Work, photo: bytes, prompt: str | None, seed: int, count: int, size: Size | None = None
) -> Output:
    """`images`, and what there is to say about them."""
    images, remarks = [], []
    for number in range(count):
        how = work.state.misbehaviour()
        stays = how is not None or work.state.settings.in_place
        make = partial(_in_place, how=how) if stays else _replace
        picture, remark = await in_thread(work.state, make, photo, prompt or "", seed + number, size)
        images.append(await _filed(work, picture, "scene"))
        remarks.append(remark)
    return {"images": images, **_remarks(remarks)}


async def _pictures(work: Work, size: Size, prompt: str, seed: int, count: int) -> list[dict[str, Any]]:
    """Empty scenes."""
    drawn = [await in_thread(work.state, _generic, *size, prompt, seed + number) for number in range(count)]
    return [await _filed(work, picture, "picture") for picture in drawn]


def _remarks(remarks: list[str | None]) -> Output:
    """Each remark once; nothing at all when there is none."""
    known = list(dict.fromkeys(filter(None, remarks)))
    return {"sandbox_remarks": known} if known else {}


def _seed(work: Work) -> int:
    given = work.fields.get("seed")
    return work.state.random.randrange(SEEDS) if given is None else int(given)


async def _filed(work: Work, picture: Picture, name: str) -> dict[str, Any]:
    """The image object of a picture in the file type that was asked for; a GIF is not made and stays PNG."""
    data, width, height = picture
    if (kind := work.fields.get("output_format")) in ("jpeg", "jpg", "webp"):
        data = await in_thread(work.state, _as_type, data, kind)
    return _image(work, (data, width, height), name)


def _image(work: Work, picture: Picture, name: str) -> dict[str, Any]:
    """fal's image object; with `sync_mode` its URL carries the bytes."""
    data, width, height = picture
    kind = _KINDS.get(data[:4], "png")
    file_name = f"sandbox-{name}.{kind}"
    if work.fields["sync_mode"]:
        url = f"data:image/{kind};base64," + base64.b64encode(data).decode()
    else:
        url = work.state.files.keep([data], file_name, f"image/{kind}")
    return {
        "url": url,
        "content_type": f"image/{kind}",
        "file_name": file_name,
        "file_size": len(data),
        "width": width,
        "height": height,
    }


_KINDS = {b"RIFF": "webp", b"\xff\xd8\xff\xe0": "jpeg"}
"""File types by how their files begin; everything else is made as PNG."""


def _answer(prompt: str, system_prompt: str | None, photos: list[tuple[str, bytes]]) -> str:
    from fal_sandbox import texts

    return texts.answer(prompt, system_prompt, photos)


# A test suite that runs against the sandbox asks for the same pictures again and again.
@lru_cache(maxsize=4)
def _cut(photo: bytes) -> tuple[Picture, str | None]:
    from fal_sandbox.pictures.cutout import cut_out, picture_size

    png, remark = _made(cut_out, photo)
    return (png, *picture_size(png)), remark


def _as_type(data: bytes, kind: str) -> bytes:
    from fal_sandbox.framing import as_type

    return as_type(data, kind)


def _mask(png: bytes) -> bytes:
    from fal_sandbox.framing import mask_of

    return mask_of(png)


@lru_cache(maxsize=16)
def _replace(photo: bytes, prompt: str, seed: int, size: Size | None) -> tuple[Picture, str | None]:
    from fal_sandbox.framing import framed, resized
    from fal_sandbox.pictures.cutout import picture_size
    from fal_sandbox.pictures.scene import replace_background

    if size is None:
        png, remark = _made(replace_background, photo, prompt, seed)
        return (png, *picture_size(png)), remark
    framed_png, remark = _made(framed, photo, *size)
    png, _ = _made(replace_background, framed_png, prompt, seed)
    return (resized(png, *size), *size), remark


def _in_place(
    photo: bytes, prompt: str, seed: int, size: Size | None, *, how: str | None
) -> tuple[Picture, str | None]:
    from fal_sandbox.framing import framed, resized
    from fal_sandbox.pictures.cutout import picture_size
    from fal_sandbox.pictures.misbehaviour import in_place

    if size is None:
        png, remark = _made(in_place, photo, prompt, seed, how)
        return (png, *picture_size(png)), remark
    framed_png, remark = _made(framed, photo, *size)
    png, _ = _made(in_place, framed_png, prompt, seed, how)
    return (resized(png, *size), *size), remark


def _size_of_picture(photo: bytes) -> Size:
    from fal_sandbox.pictures.cutout import picture_size

    return picture_size(photo)


def _shot_size(photo: bytes, fields: dict[str, Any]) -> Size:
    """product-shot: the photo's own size, with its padding, or the size that is asked for."""
    width, height = _size_of_picture(photo)
    if fields["placement_type"] == "manual_padding":
        left, right, top, bottom = fields["padding_values"] or (0, 0, 0, 0)
        return width + left + right, height + top + bottom
    if fields["original_quality"] or fields["placement_type"] == "original":
        return width, height
    return tuple(fields["shot_size"])


def _generic(width: int, height: int, prompt: str, seed: int) -> Picture:
    from fal_sandbox.framing import resized
    from fal_sandbox.pictures.scene import generic_picture

    scale = min(1.0, DRAWN_SIDE / max(width, height))
    drawn = max(1, round(width * scale)), max(1, round(height * scale))
    return resized(generic_picture(*drawn, prompt, seed), width, height), width, height


def _made(make: Callable[..., tuple[bytes, str | None]], photo: bytes, *values: Json) -> tuple[bytes, str | None]:
    """A header can look right while the picture behind it is broken."""
    try:
        return make(photo, *values)
    except ValueError:
        raise Unusable("image_load_error", "image_url", "Failed to load the image.", None) from None
