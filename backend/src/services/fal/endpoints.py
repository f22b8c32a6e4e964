"""The endpoints and models of each role, and how the endpoints differ: one row each.

A role (text, enterprise, vision, photokit, cutout) has a chain of endpoints. When fal's answer to a submit, or to the
opening of a stream, says that an endpoint is gone (404 for the application, 410, "deprecated"), the next one is used,
and the choice lasts for the process. An endpoint that was set by hand has no chain. What the default models are
stands here too; what is done when one is gone, in `text_models.py`.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from services.fal.errors import EndpointGone, InvalidInput
from services.fal.hosts import parse
from services.fal.log import logger
from services.fal.redaction import shown

ROLES = ("text", "enterprise", "vision", "photokit", "cutout")
MODEL_ROLES = ("text", "enterprise", "vision", "prompt")
"""What models are chosen for: writing a background prompt is a question to the enterprise endpoint."""
ENDPOINT_VARIABLES = {role: f"FAL_{role.upper()}_ENDPOINT" for role in ROLES}
MODEL_VARIABLES = {role: f"FAL_{role.upper()}_MODEL" for role in MODEL_ROLES}


class Field(NamedTuple):
    """How an endpoint takes one of our options."""

    name: str
    """What its input is called."""
    choices: tuple[str, ...] = ()
    """The values that it takes, when they are few."""


def _fields(*same: str, **other: Field) -> Mapping[str, Field]:
    """Options by our names: `same` are called so by the endpoint too."""
    return MappingProxyType({**{name: Field(name) for name in same}, **other})


class Endpoint(NamedTuple):
    """What a caller of one endpoint has to know."""

    path: str
    """`owner/app` with an optional subpath, or an https:// URL of the user's own (photokit only)."""
    image_field: str = "image_url"
    """The input that takes the image; one that ends in `s` takes a list."""
    takes_priority: bool = False
    """Whether `priority` is part of its input."""
    prompt_field: str = "prompt"
    """The input that takes the prompt."""
    options: Mapping[str, Field] | None = None
    """The picture options that it takes. None: nobody here knows; they are sent under our names."""
    makes_one: bool = False
    """Whether a job makes one picture, so that variants are jobs of their own, each with its seed."""
    tells_cost: bool = False
    """Whether its answers tell in US dollars what they cost, so that no price is needed."""

    @property
    def is_bria(self) -> bool:
        """Whether it is one of Bria's, which take fewer kinds of files than fal stores."""
        return "bria" in self.path.split("/") and not self.is_own_url

    @property
    def is_own_url(self) -> bool:
        return self.path.startswith("https://")

    def image_input(self, image_urls: list[str]) -> dict[str, object]:
        """The image inputs as this endpoint names them."""
        if self.image_field.endswith("s"):
            return {self.image_field: image_urls}
        return {self.image_field: image_urls[0]}

    def option_inputs(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """`options` as this endpoint names them. Raises InvalidInput for one that it does not take."""
        inputs: dict[str, Any] = {}
        for name, value in options.items():
            field = Field(name) if self.options is None else self.options.get(name)
            if field is None:
                raise self._without(name)
            if field.choices and value not in field.choices:
                known = ", ".join(field.choices)
                raise InvalidInput(f"{name} must be one of {known} for {self.path}, not {shown(value, 100)!r}.")
            inputs |= _input(field, value)
        return inputs

    def pictures_billed(self, inputs: Mapping[str, Any]) -> float:
        """How many pictures of the usual size a job with these inputs is billed as."""
        options = self.options or {}
        count: float = inputs.get(options.get("num_images", Field("num_images")).name, 1)
        return count * RESOLUTION_FACTORS.get(inputs.get("resolution", ""), 1.0)

    def _without(self, name: str) -> InvalidInput:
        others = [row.path for row in _KNOWN.values() if row.options and name in row.options]
        return InvalidInput(
            f"{self.path}, which makes the pictures, does not take {name}. Endpoints that do: {', '.join(others)}.",
            hint=f"Omit {name}, or set {ENDPOINT_VARIABLES['photokit']} to one of them.",
        )


def _input(field: Field, value: Any) -> dict[str, Any]:
    if field.name == "shot_size":
        if not isinstance(value, tuple):
            raise InvalidInput(f"image_size must be a width and a height, such as 1000x800, not {shown(value, 100)!r}.")
        return {field.name: list(value)}
    if field.name == "placement_type" and value != "original":
        return {field.name: "manual_placement", "manual_placement_selection": value}
    if field.name == "image_size" and isinstance(value, tuple):
        return {field.name: {"width": value[0], "height": value[1]}}
    return {field.name: value}


RESOLUTION_FACTORS: Mapping[str, float] = {"0.5K": 0.75, "1K": 1.0, "2K": 1.5, "4K": 2.0}
"""What a picture costs, as a multiple of one at 1K (https://fal.ai/models/fal-ai/nano-banana-2/edit)."""
RATIOS = ("auto", "21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16")
MORE_RATIOS = (*RATIOS, "4:1", "1:4", "8:1", "1:8")
_BANANA_2_OPTIONS = _fields(
    "seed",
    "num_images",
    aspect_ratio=Field("aspect_ratio", MORE_RATIOS),
    resolution=Field("resolution", tuple(RESOLUTION_FACTORS)),
)
PLACES = (
    *("upper_left", "upper_center", "upper_right", "left_center", "center_vertical", "center_horizontal"),
    *("right_center", "bottom_left", "bottom_center", "bottom_right"),
)


CHAINS: Mapping[str, tuple[Endpoint, ...]] = {
    "text": (
        Endpoint("openrouter/router", tells_cost=True),
        Endpoint("fal-ai/any-llm", takes_priority=True),
    ),
    "enterprise": (
        Endpoint("openrouter/router/enterprise", tells_cost=True),
        Endpoint("fal-ai/any-llm/enterprise", takes_priority=True),
    ),
    "vision": (
        Endpoint("openrouter/router/vision", image_field="image_urls", tells_cost=True),
        Endpoint("fal-ai/any-llm/vision", image_field="image_urls", takes_priority=True),
    ),
    "photokit": (
        # Its seed has a fixed default: equal inputs give the same picture
        # (https://fal.ai/docs/model-api-reference/image-generation-api/bria-replace-background).
        Endpoint("bria/replace-background", options=_fields("seed", "num_images", "negative_prompt"), makes_one=True),
        Endpoint(
            "fal-ai/bria/background/replace",
            options=_fields("seed", "num_images", "negative_prompt", "ref_image_url"),
        ),
    ),
    "cutout": (
        Endpoint("fal-ai/bria/background/remove"),
        Endpoint("fal-ai/birefnet/v2"),
    ),
}
BY_HAND = (
    Endpoint(
        "fal-ai/nano-banana/edit",
        image_field="image_urls",
        options=_fields("seed", "num_images", aspect_ratio=Field("aspect_ratio", RATIOS)),
    ),
    # May be gone: the end of its model was announced for 2026-10-29, though not by every source. Its successor is
    # the next row (https://fal.ai/learn/tools/nano-banana-api).
    Endpoint("fal-ai/nano-banana-2/edit", image_field="image_urls", options=_BANANA_2_OPTIONS),
    Endpoint("google/nano-banana-2.1/edit", image_field="image_urls", options=_BANANA_2_OPTIONS),
    # https://fal.ai/models/fal-ai/bria/product-shot/api. Its placement_type "automatic" is left out: it makes, and
    # bills, ten pictures for each one that is asked for.
    Endpoint(
        "fal-ai/bria/product-shot",
        prompt_field="scene_description",
        options=_fields(
            "original_quality",
            "ref_image_url",
            num_images=Field("num_results"),
            image_size=Field("shot_size"),
            placement=Field("placement_type", ("original", *PLACES)),
        ),
    ),
)
"""Known endpoints outside the chains, used only when asked for: those that edit redraw the product."""

MODEL_CHAINS: Mapping[str, tuple[str, ...]] = {
    "text": ("google/gemini-2.5-flash-lite", "google/gemini-3.5-flash-lite"),
    "enterprise": ("google/gemini-2.5-pro", "google/gemini-3.8-flash", "google/gemini-3.5-flash-lite"),
    "vision": ("google/gemini-2.5-pro", "google/gemini-3.8-flash", "google/gemini-3.5-flash-lite"),
    "prompt": ("openai/gpt-5-mini", "google/gemini-3.5-flash-lite"),
}
"""The default models. The later ones are what the providers name as successors of the first."""
MODEL_LIST = "https://openrouter.ai/models"

_KNOWN = {row.path: row for row in (*(row for chain in CHAINS.values() for row in chain), *BY_HAND)}
_PATH = r"[A-Za-z0-9][\w.-]*(/[\w.-]+)+"


def check_endpoint(value: str, name: str, role: str) -> str:
    """`value` when it can be an endpoint for `role`; `name` is the variable that an error names."""
    if role == "photokit" and "://" in value:
        try:
            own = parse(value)
        except ValueError as error:
            raise InvalidInput(f"{name} cannot be used as a URL, since {error}: {shown(value, 200)!r}.") from error
        if own.scheme == "https":
            return own.whole
    if not re.fullmatch(_PATH, value) or ".." in value:
        or_own = ", or an https:// URL of your own" if role == "photokit" else ""
        raise InvalidInput(f"{name} must look like owner/app{or_own}, not {shown(value, 200)!r}.")
    return value


def chain_for(role: str, by_hand: str | None) -> tuple[Endpoint, ...]:
    """The endpoints that may serve `role`, in order."""
    if by_hand is None:
        return CHAINS[role]
    if by_hand in _KNOWN:
        return (_KNOWN[by_hand],)
    field = "image_urls" if role == "vision" else "image_url"
    return (Endpoint(by_hand, image_field=field),)


def successor_of(model: str) -> str:
    """The model to name in place of one that is gone."""
    for chain in MODEL_CHAINS.values():
        if model in chain[:-1]:
            return chain[chain.index(model) + 1]
    last = MODEL_CHAINS["text"][-1]
    return MODEL_CHAINS["vision"][1] if model == last else last


class Endpoints:
    """The endpoint in use for each role, for one client."""

    _moved: dict[tuple[int, str], int] = {}  # noqa: RUF012 - shared: what was found out lasts for the process
    _lock = threading.Lock()

    def __init__(self, by_hand: Mapping[str, str], account: int) -> None:
        """`account` tells apart accounts and routes to fal, for which other endpoints may be gone."""
        self._by_hand = by_hand
        self._account = account

    def chain(self, role: str) -> tuple[Endpoint, ...]:
        return chain_for(role, self._by_hand.get(role))

    def current(self, role: str) -> Endpoint:
        return self.chain(role)[self._index(role)]

    def candidates(self, role: str) -> Iterator[Endpoint]:
        """The endpoint in use, then those it may have been before: for requests made earlier."""
        chain, index = self.chain(role), self._index(role)
        yield chain[index]
        yield from (row for at, row in enumerate(chain) if at != index)

    def move_on(self, role: str, gone: Endpoint, reason: EndpointGone) -> Endpoint:
        """The endpoint after `gone`; raises `reason` when there is none."""
        chain = self.chain(role)
        following = chain.index(gone) + 1
        if following >= len(chain):
            hint = f"Set {ENDPOINT_VARIABLES[role]} to an endpoint that fal offers."
            raise reason.but(hint=hint) from reason
        if self.remember(role, following):
            logger.warning("%s: %s Using %s instead.", gone.path, reason, chain[following].path)
        return chain[following]

    def remembered(self, name: str) -> int:
        """What was found out under `name` on this account, 0 at first."""
        return self._moved.get((self._account, name), 0)

    def remember(self, name: str, value: int) -> bool:
        """Keep `value` for the process unless as much is known; whether it was news, for one thread of many."""
        with self._lock:
            if value <= self.remembered(name):
                return False
            self._moved[self._account, name] = value
            return True

    def _index(self, role: str) -> int:
        return 0 if role in self._by_hand else self.remembered(role)
