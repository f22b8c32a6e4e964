"""OpenAI's protocol in the sandbox: what OpenAI's own clients send, and the shapes that they parse."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from fal_sandbox.server import Sandbox

V1 = "https://fal.run/openrouter/router/openai/v1/"
PHOTO = "https://example.com/red-mug.jpg"
HELLO = [{"role": "user", "content": "Hello there"}]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
def web(box: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(headers={"Authorization": "Key an-id:a-secret"}, timeout=60) as client:
        yield client


def chat(web: httpx.Client, **more: Any) -> Any:
    reply = web.post(V1 + "chat/completions", json={"model": "openai/gpt-6-luna", "messages": HELLO, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()


def events(web: httpx.Client, path: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    with connect_sse(web, "POST", V1 + path, json={"model": "m", "stream": True, **body}) as source:
        return [(event.event, event.data) for event in source.iter_sse()]


def test_a_chat_completion_has_openais_shape_and_is_a_job_of_its_own(box: Sandbox, web: httpx.Client) -> None:
    done = chat(web, n=2, temperature=0.5)
    assert (done["object"], done["model"]) == ("chat.completion", "openai/gpt-6-luna")
    assert [choice["index"] for choice in done["choices"]] == [0, 1]
    assert {choice["finish_reason"] for choice in done["choices"]} == {"stop"}
    message = done["choices"][0]["message"]
    assert (message["role"], "Hello there" in message["content"]) == ("assistant", True)
    usage = done["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["cost"] > 0
    (job,) = box.ledger()["jobs"]
    assert (job["endpoint"], job["kind"], job["billable"]) == (V1[16:] + "chat/completions", "direct", True)


def test_tools_are_politely_ignored(web: httpx.Client) -> None:
    done = chat(web, tools=TOOLS, tool_choice="auto", parallel_tool_calls=False)
    assert done["choices"][0]["message"]["content"]
    assert done["choices"][0]["finish_reason"] == "stop"


def test_the_system_and_the_pictures_of_a_chat_are_seen(box: Sandbox, web: httpx.Client) -> None:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PHOTO}}]
    seen = chat(web, messages=[{"role": "user", "content": parts}])["choices"][0]["message"]["content"]
    assert "red-mug.jpg" in seen
    spoken = chat(web, messages=[{"role": "system", "content": "Answer in German."}, *HELLO])
    assert "Dieses Stück" in spoken["choices"][0]["message"]["content"]
    box.say("put into its mouth")
    assert chat(web)["choices"][0]["message"]["content"] == "put into its mouth"


def test_a_chat_streams_deltas_then_usage_then_done(web: httpx.Client) -> None:
    whole = chat(web)["choices"][0]["message"]["content"]
    told = events(web, "chat/completions", {"messages": HELLO, "stream_options": {"include_usage": True}})
    assert told[-1][1] == "[DONE]"
    chunks = [json.loads(data) for _, data in told[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == whole
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"] > 0) == ([], True)
    silent = events(web, "chat/completions", {"messages": HELLO, "stream_options": {"include_usage": False}})
    assert all("usage" not in json.loads(data) for _, data in silent[:-1])


def test_a_chat_stream_can_be_cut_like_any_other(box: Sandbox, web: httpx.Client) -> None:
    box.fault("direct", cut=2)
    with pytest.raises(httpx.TransportError):
        events(web, "chat/completions", {"messages": HELLO})


def test_json_mode_gives_json_even_where_nobody_gave_an_example(web: httpx.Client) -> None:
    text = chat(web, response_format={"type": "json_object"})["choices"][0]["message"]["content"]
    assert isinstance(json.loads(text), dict)
    asked = 'JSON please: {"tagline": "…", "bullets": ["a", "b"], "captions": {"ig": "x"}}'
    text = chat(web, messages=[{"role": "user", "content": asked}], response_format={"type": "json_object"})["choices"][
        0
    ]["message"]["content"]
    made = json.loads(text)
    assert (set(made), len(made["bullets"]), set(made["captions"])) == ({"tagline", "bullets", "captions"}, 2, {"ig"})


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/Tag"}, "minItems": 2},
        "price": {"type": "number", "minimum": 3},
        "size": {"enum": ["S", "M"]},
        "stock": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "new": {"type": "boolean"},
    },
    "required": ["title", "tags"],
    "$defs": {"Tag": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


def test_a_schema_is_kept(web: httpx.Client) -> None:
    from jsonschema import validate

    form = {"type": "json_schema", "json_schema": {"name": "product", "strict": True, "schema": SCHEMA}}
    made = json.loads(chat(web, response_format=form)["choices"][0]["message"]["content"])
    validate(made, SCHEMA)
    assert set(made) == set(SCHEMA["properties"])
    assert made["title"]
    assert made["tags"][0]["name"]


def test_a_response_has_openais_shape(web: httpx.Client) -> None:
    parts = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": PHOTO}]
    for given, said in (("Hello there", "Hello there"), ([{"role": "user", "content": parts}], "red-mug.jpg")):
        done = web.post(V1 + "responses", json={"model": "m", "input": given, "tools": TOOLS}).json()
        assert (done["object"], done["status"], done["error"]) == ("response", "completed", None)
        (item,) = done["output"]
        assert (item["type"], item["role"], item["content"][0]["type"]) == ("message", "assistant", "output_text")
        assert said in item["content"][0]["text"]
        assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"]


def test_a_response_streams_its_named_events_in_order(web: httpx.Client) -> None:
    told = [(name, json.loads(data)) for name, data in events(web, "responses", {"input": "Hello"})]
    names = [name for name, _ in told]
    assert names[:2] == ["response.created", "response.in_progress"]
    assert names[-1] == "response.completed"
    assert [data["type"] for _, data in told] == names
    assert [data["sequence_number"] for _, data in told] == list(range(len(told)))
    text = "".join(data["delta"] for name, data in told if name == "response.output_text.delta")
    assert text == told[-1][1]["response"]["output"][0]["content"][0]["text"] != ""


def test_embeddings_are_unit_vectors_in_which_like_texts_are_near(web: httpx.Client) -> None:
    asked = {"model": "m", "input": ["a red mug", "one red mug", "blue shoes"], "dimensions": 256}
    done = web.post(V1 + "embeddings", json=asked).json()
    first, second, third = (entry["embedding"] for entry in done["data"])
    assert (done["object"], [entry["index"] for entry in done["data"]]) == ("list", [0, 1, 2])
    assert len(first) == 256
    assert sum(value * value for value in first) == pytest.approx(1)
    near, far = (sum(a * b for a, b in zip(first, other, strict=True)) for other in (second, third))
    assert near > far
    packed = web.post(V1 + "embeddings", json={**asked, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert struct.unpack("<256f", base64.b64decode(packed)) == pytest.approx(first)
    assert len(web.post(V1 + "embeddings", json={"model": "m", "input": "x"}).json()["data"][0]["embedding"]) == 1536
    assert len(web.post(V1 + "embeddings", json={"model": "m", "input": [[1, 2], [3]]}).json()["data"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"model": "m"}, "messages"),
        ("chat/completions", {"model": "m", "messages": []}, "messages"),
        ("chat/completions", {"messages": HELLO}, "model"),
        ("responses", {"model": "m"}, "input"),
        ("embeddings", {"model": "m", "input": []}, "input"),
    ],
)
def test_a_bad_request_is_said_as_openai_says_it(
    box: Sandbox, web: httpx.Client, path: str, body: dict[str, Any], param: str
) -> None:
    reply = web.post(V1 + path, json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(param)
    assert param in error["message"]
    assert box.ledger()["billable"] == 0


@pytest.mark.parametrize("anything", [False, True])
@pytest.mark.parametrize("path", ["images/generations", "audio/speech", "completions", "moderations", "files"])
def test_openais_other_routes_are_not_found(box: Sandbox, web: httpx.Client, path: str, anything: bool) -> None:
    box.configure(any_endpoint=anything)
    assert web.post(V1 + path, json={"model": "m", "prompt": "x"}).status_code == 404
    assert web.get(V1 + "models").status_code == 404
    assert box.ledger()["billable"] == 0


def test_a_key_in_openais_own_scheme_is_refused_as_fal_refuses_it(web: httpx.Client) -> None:
    reply = web.post(
        V1 + "chat/completions",
        json={"model": "m", "messages": HELLO},
        headers={"Authorization": "Bearer an-id:a-secret"},
    )
    assert reply.status_code == 401
