"""What stands in place of a key in templates, and around one in files."""

from __future__ import annotations

import re

_QUOTES = ('""', "''", "``", "“”", "‘’")
_SHOWN_CHARS = 40
"""A real key is longer: so one that somebody wrote into a template's brackets is never shown."""
_STAND_IN = re.compile(
    r"""(?xi)
    (?:your|my|insert|enter|paste|put|add|replace|change) [\w -]* (?:key|token|id|secret|here|me|it|this)
    | undefined | null | none | nil | nan | todo | tbd | fixme | placeholder
    | \$ (?: \w+ | \{\w+ (?:[:?+-][^}]*)? \} ) | %\w+% | \{\{? [\w .-]+ \}?\} | < [\w .-]* > | \[ [\w .-]* \]
    | (?: fal[_-]?key | (?:fal[_-]?)? api[_-]?key ) (?: [_-] (?:id|secret|here) )?
    | x{3,} | \*+ | \.{2,} | …+
    """
)


def unquoted(value: str) -> str:
    """`value` without the blanks and the pair of quotes around it: docker's --env-file, for one, keeps those."""
    text = value.strip()
    while len(text) > 1 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text


def is_placeholder(key: str) -> bool:
    """Whether `key`, or a half of it, is what a template holds, or a program that had none."""
    return _STAND_IN.fullmatch(key) is not None or any(_STAND_IN.fullmatch(half) for half in key.split(":"))


def shown(placeholder: str) -> str:
    """`placeholder` for a message."""
    whole = _STAND_IN.fullmatch(placeholder) and len(placeholder) <= _SHOWN_CHARS
    return f"the placeholder {placeholder!r}" if whole else "a placeholder"
