"""A FastAPI server that takes a product photo and answers with progress, one JSON object per line.

From the folder backend, with this project, FastAPI and uvicorn installed:

    pip install . fastapi uvicorn
    uvicorn --app-dir examples photo_fastapi:app --port 8000
    curl --no-buffer --data-binary @examples/coffee.jpg http://127.0.0.1:8000/products

The last line holds the `result`, or the `error`. When the client leaves before that, the jobs at fal are cancelled.
Needs `asyncio_calls.py` beside it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from asyncio_calls import in_thread
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from services.fal.errors import FalError
from services.fal_service import FalClient

MAX_PHOTO_BYTES = 20 * 1024 * 1024
TIMEOUT_S = 110

app = FastAPI()
client = FalClient()


@app.post("/products")
async def make_product(request: Request) -> StreamingResponse:
    photo = bytearray()
    async for part in request.stream():
        photo += part
        if len(photo) > MAX_PHOTO_BYTES:
            raise HTTPException(413, f"A photo may have {MAX_PHOTO_BYTES} bytes.")
    return StreamingResponse(lines(bytes(photo)), media_type="application/x-ndjson")


async def lines(photo: bytes) -> AsyncIterator[str]:
    """The progress of one product as JSON Lines, and at last its result."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Any] = asyncio.Queue()

    def tell(event: Any) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    def work(client: FalClient) -> Any:
        with tempfile.NamedTemporaryFile() as file:
            file.write(photo)
            file.flush()
            return client.product_workflow(file.name, on_progress=tell)

    job = asyncio.create_task(in_thread(client, TIMEOUT_S, work))
    job.add_done_callback(lambda job: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield json.dumps(event) + "\n"
        yield json.dumps({"result": job.result()}) + "\n"
    except FalError as error:
        yield json.dumps({"error": str(error), "error_type": error.error_type, "retryable": error.retryable}) + "\n"
    finally:
        # The server cancels this generator when its client has left.
        job.cancel()
