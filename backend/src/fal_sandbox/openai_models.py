"""OpenAI's protocol at openrouter/router/openai/v1: chat completions, responses and embeddings.

Outputs and events have the shapes that OpenAI's own clients parse. Tools are taken and never called: a model may
always answer in words.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import time
from collections.abc import Iterator
from typing import Any

from fal_sandbox.inputs import fetch_picture, in_thread
from fal_sandbox.model_outputs import Output, Work, say, usage_of
from fal_sandbox.wire_types import Json

USUAL_DIMENSIONS = 1536
PIECES = 8
Photos = list[tuple[str, bytes]]


def refusal(errors: list[dict[str, Any]]) -> Output:
    """An input that does not fit, as OpenAI says it."""
    wrong = errors[0]
    named = ".".join(str(part) for part in wrong["loc"][1:])
    message = f"{named}: {wrong['msg']}" if named else wrong["msg"]
    return {"error": {"message": message, "type": "invalid_request_error", "param": named or None, "code": 400}}


async def chat(work: Work) -> Output:
    """chat/completions: one message in words for each of `n`."""
    fields = work.fields
    prompt, system, photos = await _conversation(work, fields["messages"])
    form = fields["response_format"] or {}
    texts = [await _answered(work, prompt, system, photos, form) for _ in range(fields["n"] or 1)]
    return {
        "id": f"chatcmpl-{work.state.new_id()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": fields["model"],
        "provider": "sandbox",
        "system_fingerprint": None,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None, "reasoning": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
            for index, text in enumerate(texts)
        ],
        "usage": _chat_usage(prompt + system, "".join(texts)),
    }


async def responses(work: Work) -> Output:
    """responses: one message in words."""
    fields = work.fields
    given = fields["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    prompt, system, photos = await _conversation(work, messages)
    system = "\n".join(filter(None, (fields["instructions"], system)))
    form = (fields["text"] or {}).get("format") or {"type": "text"}
    text = await _answered(work, prompt, system, photos, form)
    usage = _chat_usage(prompt + system, text)
    return {
        "id": f"resp_{work.state.new_id().replace('-', '')}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": fields["instructions"],
        "metadata": fields.get("metadata") or {},
        "model": fields["model"],
        "output": [
            {
                "id": f"msg_{work.state.new_id().replace('-', '')}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
            }
        ],
        "parallel_tool_calls": True,
        "temperature": fields.get("temperature", 1.0),
        "top_p": fields.get("top_p", 1.0),
        "text": {"format": form},
        "tool_choice": fields.get("tool_choice", "auto"),
        "tools": fields.get("tools") or [],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
            "cost": usage["cost"],
        },
    }


async def embeddings(work: Work) -> Output:
    """embeddings: vectors in which texts that share words are near each other."""
    fields = work.fields
    given = fields["input"]
    several = isinstance(given, list) and not isinstance(given[0], int)
    texts = [str(item) for item in given] if several else [str(given)]
    dimensions = fields["dimensions"] or USUAL_DIMENSIONS
    tokens = sum(1 + len(text) // 4 for text in texts)
    vectors = [_vector(text, dimensions) for text in texts]
    packed = fields["encoding_format"] == "base64"
    return {
        "id": f"embd-{work.state.new_id()}",
        "object": "list",
        "model": fields["model"],
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "cost": round(tokens * 2e-8, 9)},
    }


def events(path: str, output: Output, with_usage: bool) -> Iterator[tuple[str | None, Json]]:
    """The name and data of every event of a stream that ends in this output."""
    if path.endswith("/responses"):
        yield from _response_events(output)
    else:
        yield from _chunks(output, with_usage)


def _chunks(output: Output, with_usage: bool) -> Iterator[tuple[None, Json]]:
    """Deltas of each choice, then its end; the usage last, in a chunk without choices."""
    head = {name: output[name] for name in ("id", "created", "model", "system_fingerprint")}
    head["object"] = "chat.completion.chunk"

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]}

    for choice in output["choices"]:
        index = choice["index"]
        yield None, chunk(index, {"role": "assistant", "content": ""})
        for piece in _pieces(choice["message"]["content"]):
            yield None, chunk(index, {"content": piece})
        yield None, chunk(index, {}, "stop")
    if with_usage:
        yield None, {**head, "choices": [], "usage": output["usage"]}


def _response_events(output: Output) -> Iterator[tuple[str, Json]]:
    item = output["output"][0]
    part = item["content"][0]
    place = {"item_id": item["id"], "output_index": 0}
    in_part = {**place, "content_index": 0}
    begun = {**output, "status": "in_progress", "output": [], "usage": None}
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        (
            "response.output_item.added",
            {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
        ),
        ("response.content_part.added", {**in_part, "part": {**part, "text": ""}}),
        *(
            ("response.output_text.delta", {**in_part, "delta": piece, "logprobs": []})
            for piece in _pieces(part["text"])
        ),
        ("response.output_text.done", {**in_part, "text": part["text"], "logprobs": []}),
        ("response.content_part.done", {**in_part, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": output}),
    ]
    for number, (name, data) in enumerate(told):
        yield name, {"type": name, "sequence_number": number, **data}


def _pieces(text: str) -> Iterator[str]:
    count = max(1, min(PIECES, len(text)))
    for number in range(count):
        yield text[len(text) * number // count : len(text) * (number + 1) // count]


async def _conversation(work: Work, messages: list[dict[str, Any]]) -> tuple[str, str, Photos]:
    """What the last user said, what the system said, and the pictures the user showed."""
    system: list[str] = []
    prompt, photos = "", Photos()
    for message in messages:
        role, parts = message.get("role", "user"), _parts(message.get("content"))
        words = "\n".join(str(part.get("text") or "") for part in parts).strip()
        if role in ("system", "developer"):
            system.append(words)
        elif role == "user":
            prompt = words
            photos += [await fetch_picture(work.state, "messages", url) for url in _image_urls(parts)]
    return prompt, "\n".join(system), photos


def _parts(content: Json) -> list[dict[str, Any]]:
    """The parts of a message; plain text is one part."""
    if isinstance(content, list):
        return [part if isinstance(part, dict) else {"text": part} for part in content]
    return [] if content is None else [{"text": content}]


def _image_urls(parts: list[dict[str, Any]]) -> list[str]:
    """`image_url` is a string in a responses input and an object in a chat message."""
    urls = [part["image_url"] for part in parts if part.get("image_url")]
    return [str(url["url"] if isinstance(url, dict) and "url" in url else url) for url in urls]


async def _answered(work: Work, prompt: str, system: str, photos: Photos, form: dict[str, Any]) -> str:
    """The answer, as JSON when the form asks for it; a text that was put into the mouth is said as it is."""
    if form.get("type") not in ("json_object", "json_schema") or work.state.script.has(work.endpoint):
        return await say(work, prompt, system or None, photos)
    schema = (form.get("json_schema") or form).get("schema") if form["type"] == "json_schema" else None
    return await in_thread(work.state, _structured, prompt, system, photos, schema)


def _structured(prompt: str, system: str, photos: Photos, schema: Json) -> str:
    from fal_sandbox import texts

    return texts.structured(prompt, system, photos, schema)


def _chat_usage(asked: str, text: str) -> dict[str, Any]:
    return {
        **usage_of(asked, text),
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _vector(text: str, dimensions: int) -> list[float]:
    """A unit vector: every word adds to a few coordinates that its hash chooses."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.casefold()) or [text]:
        for part in struct.unpack("<8I", hashlib.sha256(word.encode(errors="replace")).digest()):
            vector[(part >> 1) % dimensions] += 1.0 if part & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
