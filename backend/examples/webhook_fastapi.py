"""A FastAPI server that takes fal's webhooks: verified, and each job's once.

From the folder backend, with this project, FastAPI and uvicorn installed:

    pip install ".[webhooks]" fastapi uvicorn
    uvicorn --app-dir examples webhook_fastapi:app --port 8000
"""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from services.fal.errors import FalError
from services.webhooks import Webhook, WebhookRejected, verify_webhook

log = logging.getLogger("uvicorn.error")
app = FastAPI()


@app.post("/webhooks/fal")
async def receive(request: Request) -> Response:
    body = await request.body()
    try:
        # In a thread: fal's keys may have to be fetched first.
        webhook = await run_in_threadpool(verify_webhook, request.headers, body)
    except WebhookRejected as error:
        log.warning("no webhook of fal's: %s", error)
        return Response(status_code=401)
    except FalError as error:
        log.error("%s", error)
        return Response(status_code=503)  # fal delivers it again
    if not webhook.repeat:
        try:
            await keep(webhook)
        except Exception:
            webhook.forget()  # fal's next delivery counts as the first
            raise
    return Response(status_code=200)


async def keep(webhook: Webhook) -> None:
    """What your shop does with a result."""
    log.info("job %s: %s", webhook.request_id, webhook.json()["status"])
