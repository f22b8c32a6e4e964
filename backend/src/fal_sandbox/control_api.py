"""The sandbox's own prefix, `/_sandbox/`: the methods of `server.Sandbox` for other processes."""

from __future__ import annotations

from collections.abc import Callable

from fal_sandbox.replies import Refusal, Reply, detail, json_reply
from fal_sandbox.wire_request import WireRequest

PAGE = """\
This is a sandbox, not fal. There is no model behind it: pictures are cut and painted by plain code, texts
follow a script, and nothing here says how good a model is, what it costs or how long it takes. Nothing leaves
this machine.

It speaks fal's wire to unmodified clients, through HTTPS_PROXY with its own certificate authority:
  queue.fal.run   submit, status, status/stream, requests/<id>, cancel
  fal.run         direct calls, /stream of the text endpoints
  rest.fal.ai     upload tokens, initiate, webhook keys
  api.fal.ai      prices, estimates, the catalogue with OpenAPI, the balance
  *.fal.media     uploads in one piece or in parts, downloads
  *.example.com   sample photos

Not served: realtime (WebSockets) and the tokens for it (rest.fal.ai/tokens/), audio, video and speech.

And about itself, here:
  GET  /_sandbox/ca.pem    the certificate to trust, for other users and containers
  GET  /_sandbox/ledger    jobs accepted, ended, billable
  GET  /_sandbox/journal   one row per request
  GET  /_sandbox/webhooks  what was sent, and the answers
  POST /_sandbox/faults    {"stage": "submit", "status": 503, "times": 2}
  POST /_sandbox/say       {"text": "...", "endpoint": "openrouter/router", "times": 1}
  POST /_sandbox/config    {"latency": 1.0, "queue": 0.5, "gone": ["openrouter/router"], "gone_models": ["M=404"]}
  POST /_sandbox/reset     forgets everything; settings as at the start
A POST needs `Content-Type: application/json`: curl --json '…' does that. A web page of another origin is refused.
"""


LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""The names of this machine. Any other `Host` may be a web site that pointed its name at 127.0.0.1."""


def check_caller(call: WireRequest) -> None:
    """Refuses what a web page could send by a browser of this machine: by its host, its origin, or as a form."""
    host, origin = call.headers.get("Host", ""), call.headers.get("Origin")
    if call.host not in LOOPBACK:
        raise Refusal(detail(403, f"The sandbox is controlled at 127.0.0.1 or localhost, not at {call.host!r}"))
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise Refusal(detail(403, f"A page of {origin} may not control the sandbox"))
    if call.method != "POST":
        return
    if call.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refusal(detail(403, "A page of another site may not control the sandbox"))
    given = call.headers.get("Content-Type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json" and (given or call.chunks):
        raise Refusal(detail(415, f"Send JSON with Content-Type: application/json, not {given or 'none'}"))


async def page(call: WireRequest) -> Reply:
    return Reply(200, PAGE.encode(), "text/plain; charset=utf-8")


async def certificate(call: WireRequest) -> Reply:
    return Reply(200, call.state.ca_pem, "application/x-pem-file")


async def ledger(call: WireRequest) -> Reply:
    return json_reply(call.state.view())


async def journal(call: WireRequest) -> Reply:
    return json_reply(call.state.journal.rows())


async def webhooks(call: WireRequest) -> Reply:
    return json_reply(list(call.state.webhooks.deliveries))


async def faults(call: WireRequest) -> Reply:
    return _told(call, call.state.fault)


async def say(call: WireRequest) -> Reply:
    return _told(call, call.state.say)


async def config(call: WireRequest) -> Reply:
    return _told(call, call.state.configure)


async def reset(call: WireRequest) -> Reply:
    call.state.reset()
    return json_reply({"ok": True})


def _told(call: WireRequest, ability: Callable[..., None]) -> Reply:
    """Hands the body's names to one ability; what it does not understand is a 400 that says why."""
    try:
        ability(**call.json_body())
    except (ValueError, TypeError) as error:
        return detail(400, str(error))
    return json_reply({"ok": True})
