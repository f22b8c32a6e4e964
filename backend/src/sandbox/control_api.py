"""The sandbox's own prefix, `/_sandbox/`: the abilities of `server.Sandbox` for other processes."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.answers import Answer, detail, json_answer
from sandbox.call import Call

PAGE = """\
This is a sandbox, not fal. There is no model behind it: pictures are cut and painted by plain code, texts
follow a script, and nothing here says how good a model is, what it costs or how long it takes. Nothing leaves
this machine.

It speaks fal's wire to unmodified clients, through HTTPS_PROXY with its own certificate authority:
  queue.fal.run   submit, status, status/stream, requests/<id>, cancel
  fal.run         direct calls, /stream of the text endpoints
  rest.fal.ai     upload tokens, initiate, webhook keys
  *.fal.media     uploads in one piece or in parts, downloads
  *.example.com   sample photos

And about itself, here:
  GET  /_sandbox/ledger    jobs accepted, ended, billable
  GET  /_sandbox/journal   one row per request
  GET  /_sandbox/webhooks  what was sent, and the answers
  POST /_sandbox/faults    {"stage": "submit", "status": 503, "times": 2}
  POST /_sandbox/say       {"text": "...", "endpoint": "openrouter/router", "times": 1}
  POST /_sandbox/config    {"latency": 1.0, "queue": 0.5, "gone": ["openrouter/router"], "gone_models": ["M=404"]}
  POST /_sandbox/reset     forgets everything; settings as at the start
"""


async def page(call: Call) -> Answer:
    return Answer(200, PAGE.encode(), "text/plain; charset=utf-8")


async def ledger(call: Call) -> Answer:
    return json_answer(call.state.view())


async def journal(call: Call) -> Answer:
    return json_answer(call.state.journal.rows())


async def webhooks(call: Call) -> Answer:
    return json_answer(list(call.state.webhooks.deliveries))


async def faults(call: Call) -> Answer:
    return _told(call, call.state.fault)


async def say(call: Call) -> Answer:
    return _told(call, call.state.say)


async def config(call: Call) -> Answer:
    return _told(call, call.state.configure)


async def reset(call: Call) -> Answer:
    call.state.reset()
    return json_answer({"ok": True})


def _told(call: Call, ability: Callable[..., None]) -> Answer:
    """Hands the body's names to one ability; what it does not understand is a 400 that says why."""
    try:
        ability(**call.json_body())
    except (ValueError, TypeError) as error:
        return detail(400, str(error))
    return json_answer({"ok": True})
