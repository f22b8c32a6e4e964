"""A running sandbox as a whole: its memory, what acts on it, and the operations that HTTP and Python share.

The doors are `server.Sandbox` and control_api.
"""

from __future__ import annotations

from typing import Any

from fal_sandbox.faults import fault_of
from fal_sandbox.memory import Memory, Settings
from fal_sandbox.options import options_of
from fal_sandbox.runner import Runner
from fal_sandbox.script import Line
from fal_sandbox.webhooks import Webhooks
from fal_sandbox.wire_types import Json


class State(Memory):
    """One sandbox."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._at_start = settings
        self.webhooks = Webhooks(self)
        self.runner = Runner(self, self.webhooks)

    def view(self) -> dict[str, Any]:
        """The ledger as a dict."""
        return self.ledger.view(self.jobs, len(self.files))

    def configure(self, **what: Json) -> None:
        self.settings = self.settings.changed(what)

    def fault(self, stage: str, **what: Json) -> None:
        self.faults.add(fault_of(stage, what))

    def say(self, text: str, **what: Json) -> None:
        self.script.add(options_of(Line, "option", {**what, "text": text}))

    def reset(self) -> None:
        """As new, but for ids and the upload token: clients may still hold those."""
        self.runner.cancel_all()
        self.webhooks.clear()
        self.clear()
        self.settings = self._at_start
        self.changed.ring()

    async def close(self) -> None:
        """Ends what still runs; nothing waits for a thread that is painting."""
        self.runner.cancel_all()
        await self.webhooks.close()
        self.executor.shutdown(wait=False, cancel_futures=True)
