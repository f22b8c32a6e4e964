"""FalClient in an asyncio program: each call in a thread, and cancelling its task cancels its jobs at fal.

    python examples/asyncio_calls.py

`asyncio.to_thread` alone does not do that: a task that is cancelled leaves its thread, which goes on and is billed. So
the thread works within a `Call`, and whoever cancels the task stops the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from services.fal.call import Call
from services.fal.results import TextResult
from services.fal_service import FalClient

T = TypeVar("T")


async def in_thread(client: FalClient, timeout_s: float, work: Callable[[FalClient], T]) -> T:
    """What `work` returns, run in a thread with a client whose calls end with this task, or after `timeout_s`.

    asyncio has few threads (`loop.set_default_executor` gives it more), and the time spent waiting for one counts.
    """
    call = Call(timeout_s)
    thread = asyncio.ensure_future(asyncio.to_thread(work, client.within(call)))
    try:
        await asyncio.wait([thread])
    except asyncio.CancelledError:
        call.cancel()
        # Its jobs at fal are cancelled when the thread ends, within 2 s.
        await asyncio.wait([thread])
        thread.exception()  # asyncio would log one that nobody asked for
        raise
    return thread.result()


def sentence_about(what: str) -> Callable[[FalClient], TextResult]:
    return lambda client: client.any_llm_complete(f"One sentence about a {what}")


async def main() -> None:
    with FalClient() as client:
        texts = [in_thread(client, 60, sentence_about(what)) for what in ("mug", "lamp", "chair")]
        for text in await asyncio.gather(*texts):
            print(text["output"] or text["error"])

        unwanted = asyncio.create_task(in_thread(client, 60, sentence_about("story")))
        try:
            await asyncio.wait_for(unwanted, timeout=0.1)
        except asyncio.TimeoutError:
            print("cancelled, at fal too")


if __name__ == "__main__":
    asyncio.run(main())
