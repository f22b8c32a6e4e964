"""Base of the settings and faults, which are pydantic models: refuses wrong values in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Options(BaseModel):
    """A set of named options, fixed once it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


T = TypeVar("T", bound=Options)


def options_of(kind: type[T], noun: str, given: Mapping[str, Any]) -> T:
    """The options of this kind; a ValueError says which one is wrong and how."""
    if unknown := sorted(set(given) - set(kind.model_fields)):
        raise ValueError(f"unknown {noun} {unknown[0]!r}; known are {', '.join(sorted(kind.model_fields))}")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        raise ValueError(_sentence(dict(error.errors(include_url=False)[0]))) from None


def _sentence(wrong: dict[str, Any]) -> str:
    """One error of pydantic, with the option's name and what was given for it."""
    name = ".".join(map(str, wrong["loc"]))
    if not name:
        return str(wrong["msg"]).removeprefix("Value error, ")
    if wrong["type"] == "missing":
        return f"{name} is missing"
    if wrong["type"] == "literal_error":
        choices = ", ".join(re.findall(r"'([^']*)'", wrong["ctx"]["expected"]))
        return f"{name} must be one of {choices}, not {wrong['input']!r}"
    if wrong["type"] == "value_error":
        return f"{name}: {wrong['msg'].removeprefix('Value error, ')}; not {wrong['input']!r}"
    must = re.sub("^(Input|String|List|Tuple)( should)?", "must", wrong["msg"])
    return f"{name} {must}, not {wrong['input']!r}"
