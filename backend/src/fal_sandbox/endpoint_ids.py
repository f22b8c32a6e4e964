"""Endpoint ids as fal reads them: the first two segments name the application, the rest is a path inside it."""

from __future__ import annotations

NAMESPACES = ("workflows", "comfy")


def app_of(endpoint: str) -> str:
    """The application an endpoint id belongs to: `owner/app`, after a namespace one segment more."""
    parts = endpoint.split("/")
    return "/".join(parts[: 3 if parts[0] in NAMESPACES else 2])
