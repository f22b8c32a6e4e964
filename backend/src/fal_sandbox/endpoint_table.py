"""The endpoints the sandbox knows: one frozen row each, with its input, the model it runs, and its price."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fal_sandbox import input_models, model_outputs, openai_models
from fal_sandbox.endpoint_ids import app_of
from fal_sandbox.input_models import Input


@dataclass(frozen=True, slots=True)
class Price:
    """What one billable unit costs, in US dollars."""

    unit_price: float
    unit: str = "images"


TOKENS = Price(4e-7, "tokens")
"""Language models are charged by what they pass on: `usage.cost` says what a call cost, this only its order."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint."""

    id: str
    runs: model_outputs.Model
    input: type[Input]
    price: Price = TOKENS
    category: str = "llm"
    streams: bool = False
    """Whether it offers `/stream`."""
    openai: bool = False
    """Whether it speaks OpenAI's protocol: errors and streams have its shapes."""


def _text(id: str, runs: model_outputs.Model, input: type[Input]) -> Endpoint:
    return Endpoint(id, runs, input, streams=True)


def _picture(
    id: str, runs: model_outputs.Model, input: type[Input], unit_price: float, unit: str = "images"
) -> Endpoint:
    return Endpoint(id, runs, input, Price(unit_price, unit), "image-to-image")


def _openai(path: str, runs: model_outputs.Model, input: type[Input]) -> Endpoint:
    return Endpoint(f"{OPENAI}v1/{path}", runs, input, openai=True)


OPENAI = "openrouter/router/openai/"
"""Where the routes begin that speak OpenAI's protocol."""

ENDPOINTS: dict[str, Endpoint] = {
    row.id: row
    for row in (
        _text("openrouter/router", model_outputs.router, input_models.Router),
        _text("openrouter/router/enterprise", model_outputs.router, input_models.Router),
        _text("openrouter/router/vision", model_outputs.router_vision, input_models.RouterVision),
        _text("fal-ai/any-llm", model_outputs.any_llm, input_models.AnyLlm),
        _text("fal-ai/any-llm/enterprise", model_outputs.any_llm, input_models.AnyLlm),
        _text("fal-ai/any-llm/vision", model_outputs.any_llm, input_models.AnyLlmVision),
        _openai("chat/completions", openai_models.chat, input_models.Chat),
        _openai("responses", openai_models.responses, input_models.Responses),
        _openai("embeddings", openai_models.embeddings, input_models.Embeddings),
        _picture("bria/replace-background", model_outputs.replace, input_models.BriaReplace, 0.04),
        _picture("fal-ai/bria/background/replace", model_outputs.replace_several, input_models.BriaBackground, 0.04),
        _picture("fal-ai/bria/product-shot", model_outputs.product_shot, input_models.BriaProductShot, 0.04),
        _picture("fal-ai/bria/background/remove", model_outputs.cut_out, input_models.OfPicture, 0.018),
        _picture("fal-ai/birefnet/v2", model_outputs.birefnet, input_models.Birefnet, 0.00111, "compute seconds"),
        _picture("fal-ai/nano-banana/edit", model_outputs.edit, input_models.NanoBanana, 0.039),
        _picture("fal-ai/nano-banana-2/edit", model_outputs.edit, input_models.NanoBanana2, 0.08),
        _picture("google/nano-banana-2.1/edit", model_outputs.edit, input_models.NanoBanana21, 0.04),
    )
}
ANYTHING = _picture("*", model_outputs.anything, input_models.Anything, 0.05)
APPS = frozenset(map(app_of, ENDPOINTS))

_HEARD_OR_MOVING = re.compile(
    r".*(video|audio|speech|lipsync)|sounds?|music|songs?|voices?|speaker|tts|stt|asr|transcri\w+|whisper|wizper|"
    r"elevenlabs|kokoro|chatterbox|lyria|beatoven|sonauto|playai|vibevoice|dia|orpheus|zonos|diffrhythm|podcast|dubbing|"
    r"videos|movie|film|clip|animat\w+|avatar|omnihuman|talk\w+"
)
_MAKERS_OF_VIDEO = re.compile(
    r"(kling|veo|sora|pixverse|vidu|seedance|hailuo|ltxv?|mochi|cogvideox|wan|minimax|luma|hunyuan|runway)\d*"
)
_OF_PICTURES = re.compile(r"images?|photon?s?|pictures?")


def makes_no_picture(endpoint: str) -> bool:
    """Whether an id the sandbox does not know is one of audio, video or speech: no picture may come from it."""
    words = re.split(r"[^a-z0-9]+", endpoint.lower())
    if any(map(_HEARD_OR_MOVING.fullmatch, words)):
        return True
    return any(map(_MAKERS_OF_VIDEO.fullmatch, words)) and not any(map(_OF_PICTURES.fullmatch, words))
