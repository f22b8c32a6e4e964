"""The shared look of the HTML pages, in light and dark, and how they show text safely."""

from __future__ import annotations

import re
from html import escape

from services.fal.redaction import redact

LOOK = """\
:root {
  --paper: #faf9f7; --card: #fff; --ink: #1f1d1b; --quiet: #655f58; --line: #e2ddd6; --mat: #efece7;
  --edge: #8d867d; --accent: #3d6470; --bar: #6f929d; --alert: #97301f;
  --good: #2f6b3c; --warn: #7a5600;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "URW Palladio L", Georgia, serif;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #171614; --card: #201f1c; --ink: #ebe7e0; --quiet: #a8a197; --line: #35322d; --mat: #262420;
    --edge: #7d776e; --accent: #9cc3cf; --bar: #5d828e; --alert: #f0a493;
    --good: #93c99e; --warn: #e3bd6b;
  }
}
* { box-sizing: border-box; margin: 0; }
body {
  max-width: 80rem; margin: auto; padding: clamp(1.25rem, 4vw, 3rem) clamp(1.25rem, 4vw, 3rem) 2rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere;
}
.band {
  margin-bottom: 1.5rem; padding: 0.75rem 1rem; border: 1px solid var(--edge); border-radius: 6px;
  background: var(--mat); font-size: 0.875rem;
}
header { margin-bottom: 2.5rem; }
h1 { font: 400 clamp(2.25rem, 5vw, 3.5rem)/1.1 var(--serif); letter-spacing: -0.01em; text-wrap: balance; }
h2 { font-size: 1rem; font-weight: 600; margin-bottom: 0.75rem; }
h3 { font-size: 1rem; font-weight: 600; }
header > p { margin-top: 0.75rem; color: var(--quiet); }
a { color: var(--accent); text-underline-offset: 0.15em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
.note, .about, caption, footer { color: var(--quiet); }
.about, caption { font-size: 0.875rem; font-variant-numeric: tabular-nums; }
ul { list-style: none; padding: 0; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 0.8125rem; }
"""
"""The style sheet that the pages share."""
SANDBOX = (
    "Sandbox: no model was asked. Texts follow a script, pictures are cut and painted by plain code."  # as in the shop
)

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def legible(value: object) -> str:
    """`value` as pages show it: without secrets and controls, and always valid UTF-8."""
    return _UNPRINTABLE.sub("\ufffd", redact(str(value)))


def html_text(value: object) -> str:
    """The same for HTML, also inside a quoted attribute."""
    return escape(legible(value))
