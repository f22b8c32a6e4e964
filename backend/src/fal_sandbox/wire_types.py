"""Type names for values that have no narrower type on the wire."""

from __future__ import annotations

from typing import Any, TypeAlias

Json: TypeAlias = Any
"""Any JSON value: what a caller sent, before it was checked."""
