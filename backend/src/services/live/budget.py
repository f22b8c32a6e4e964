"""The budget of a live run: its limit, its highest possible cost, and its actual cost."""

from __future__ import annotations

import math
from collections.abc import Mapping

from services.fal.errors import BadOutput, InvalidInput
from services.fal.prices import Price

MAX_SPEND_USD = 5.0
ROUNDING_USD = 1e-9


def check_spend(value: float) -> float:
    """`value` when it is a sum that may be spent. Raises InvalidInput."""
    if not 0 < value <= MAX_SPEND_USD:
        raise InvalidInput(f"--spend must be US dollars above 0 and at most {MAX_SPEND_USD:g}, not {value:g}.")
    return value


def picture_usd(endpoint: str, prices: Mapping[str, Price]) -> float:
    """What one picture costs. Raises BadOutput when that is not known: nothing is spent on a guess."""
    price = prices.get(endpoint)
    if price is None or price.usd is None:
        raise BadOutput(
            f"fal gives no price of {endpoint} in US dollars, so nothing is spent.",
            retryable=False,
            hint="Omit --spend to read only what is free.",
        )
    if price.of_picture_usd is None:
        raise BadOutput(
            f"The price of {endpoint} is one of {price.unit!r}, and how many of those a picture takes is not known, "
            "so nothing is spent.",
            retryable=False,
            hint="Omit --spend to read only what is free.",
        )
    return price.of_picture_usd


class Budget:
    """What is left of a sum. Each cost is taken before its request is sent."""

    def __init__(self, allowed_usd: float, needed_usd: float) -> None:
        """Raises InvalidInput when all of it would cost more than is allowed."""
        if needed_usd > allowed_usd:
            raise InvalidInput(
                f"The run costs up to ${needed_usd:.3f}, and --spend allows ${allowed_usd:.3f}. Nothing was spent.",
                hint=f"Allow this with --spend {math.ceil(needed_usd * 100) / 100:.2f}, or omit --spend.",
            )
        self._allowed_usd = allowed_usd
        self.spent_usd: float = 0.0
        """At most: what is not told counts as it was estimated."""

    def take(self, usd: float) -> None:
        """Count so much as spent. Raises InvalidInput, before anything is sent, when it is not left."""
        if self.spent_usd + usd > self._allowed_usd + ROUNDING_USD:
            raise InvalidInput(f"Skipped: ${self.spent_usd:.3f} of --spend {self._allowed_usd:g} are spent.")
        self.spent_usd += usd

    def correct(self, estimated_usd: float, told_usd: float | None) -> None:
        """Put what a call really cost in place of what was taken for it."""
        if told_usd is not None:
            self.spent_usd += max(0.0, told_usd) - estimated_usd
