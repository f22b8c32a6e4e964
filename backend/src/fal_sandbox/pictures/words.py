"""Reads the look from a prompt: the place, the surface, the light and the colours.

Whole words decide, in any order and combination ("dark marble", "pastel studio"). What no word decides is
neutral; a prompt without any known word still gets a tint of its own.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

Colour = tuple[float, float, float]
"""Blue, green, red; 1 is full light."""


def word_set(words: str) -> frozenset[str]:
    """The words of a text, for tables that are easier to read as one line."""
    return frozenset(words.split())


PLACES = {
    "beach": word_set("beach sea ocean coast seaside sand tropical"),
    "outdoor": word_set(
        "outdoor outdoors nature garden forest park meadow field jungle foliage leaves trees woodland mountain "
        "mountains grass picnic terrace patio spring sunlit"
    ),
    "room": word_set(
        "living room lifestyle home cozy cosy kitchen scandinavian bedroom interior cafe office bathroom apartment "
        "house indoor loft hygge breakfast desk dining shelf sofa bookshelf window christmas"
    ),
    "dark": word_set(
        "dark dramatic premium luxury luxurious moody black noir night spotlight cinematic opulent sophisticated "
        "exclusive"
    ),
    "sweep": word_set("studio seamless cyclorama isolated catalog catalogue plain backdrop packshot"),
    "wall": word_set("wall plaster concrete minimal minimalist marble wood wooden stone pedestal podium"),
}
SURFACES = {
    "marble": word_set("marble"),
    "stone": word_set("stone rock slate granite concrete terrazzo"),
    "wood": word_set("wood wooden table tabletop oak walnut planks rustic timber teak plank desk"),
    "cloth": word_set("linen fabric cloth cotton textile silk velvet tablecloth"),
    "sand": word_set("sand beach"),
    "gloss": word_set("glossy reflective mirror acrylic glass gloss lacquer obsidian"),
}
USUAL_SURFACE = {"beach": "sand", "outdoor": "stone", "room": "wood", "dark": "gloss", "wall": "plaster"}
TINTS: dict[str, Colour] = {
    "pink": (0.80, 0.70, 0.95),
    "rose": (0.78, 0.70, 0.92),
    "blue": (0.92, 0.76, 0.60),
    "navy": (0.50, 0.36, 0.26),
    "teal": (0.72, 0.74, 0.50),
    "turquoise": (0.84, 0.86, 0.56),
    "green": (0.62, 0.80, 0.66),
    "sage": (0.70, 0.80, 0.74),
    "mint": (0.82, 0.92, 0.76),
    "olive": (0.42, 0.62, 0.60),
    "yellow": (0.45, 0.82, 0.96),
    "orange": (0.42, 0.66, 0.96),
    "peach": (0.70, 0.80, 0.98),
    "terracotta": (0.42, 0.55, 0.82),
    "red": (0.36, 0.34, 0.80),
    "burgundy": (0.30, 0.24, 0.52),
    "purple": (0.86, 0.60, 0.74),
    "lavender": (0.94, 0.82, 0.86),
    "beige": (0.74, 0.83, 0.90),
    "cream": (0.82, 0.91, 0.96),
    "brown": (0.34, 0.44, 0.58),
    "gold": (0.48, 0.74, 0.94),
    "golden": (0.48, 0.74, 0.94),
    "grey": (0.72, 0.71, 0.70),
    "gray": (0.72, 0.71, 0.70),
    "silver": (0.82, 0.81, 0.80),
    "charcoal": (0.30, 0.29, 0.28),
}
WARM = word_set("warm golden gold sunset cozy cosy autumn fall rustic candle candlelit amber christmas wooden")
COOL = word_set("cool cold winter snow icy frosty modern tech futuristic moonlight blue crisp")
SEASONS = {
    "autumn": word_set("autumn fall thanksgiving"),
    "christmas": word_set("christmas xmas festive holiday"),
    "winter": word_set("winter snow snowy frosty icy"),
    "summer": word_set("summer sunny sunshine tropical"),
    "spring": word_set("spring blossom blossoms floral flowers"),
}
GOODS = re.compile(
    r"\b(?:table|desk|floor|wall|night|bedside|garden|outdoor|kitchen|wooden|glass)\s+"
    r"(?=(?:lamp|light|lantern|clock|fan|bottle|jar|vase|bowl|toy)s?\b)"
)
"""What a product is called after, which asks for no place and no surface: a table lamp may stand on paper."""
RICH = word_set("premium luxury luxurious elegant opulent exclusive sophisticated")
PALE = word_set("scandinavian nordic light oak bright airy white pale minimal minimalist clean lifestyle")
BRIGHT = word_set("studio white clean bright seamless airy")


@dataclass(frozen=True)
class Look:
    """One scene, decided."""

    place: str
    surface: str
    tint: Colour
    strength: float
    """How much the tint colours the scene, 0 to 1."""
    warmth: float
    """-1 cool, 0 neutral, 1 warm."""
    dark: bool
    season: str
    words: frozenset[str]

    @property
    def tone(self) -> str:
        """Of the material: light, mid or dark."""
        if self.dark or self.words & {"walnut", "ebony", "black", "charcoal"}:
            return "dark"
        return "light" if self.words & PALE else "mid"


def read(prompt: str) -> Look:
    """The look that the words of the prompt ask for."""
    words = frozenset(re.findall(r"[a-z]+", GOODS.sub("", prompt.lower())))
    place = _place(words)
    dark = place == "dark" or bool(words & {"dark", "moody", "dramatic", "night", "noir"})
    surface = _first(SURFACES, words) or USUAL_SURFACE.get(place, "sweep")
    if place == "dark" and surface == "gloss" and words & RICH:
        surface = "marble"
    if place == "sweep" and surface not in ("sweep", "gloss"):
        place = "wall"
    tint, strength = _tint(prompt, words, place)
    warmth = float(bool(words & WARM)) - float(bool(words & COOL))
    if place == "sweep" and words & {"white", "clean"}:
        warmth *= 0.25  # white paper stays white, whatever the mood
    return Look(place, surface, tint, strength, warmth, dark, _first(SEASONS, words), words)


def _place(words: frozenset[str]) -> str:
    """The place with the most words; a named place wins over a mood, the first listed wins a draw."""
    counts = {place: len(words & names) for place, names in PLACES.items()}
    counts["sweep"] += len(words & BRIGHT)
    if counts["dark"] and not (counts["outdoor"] or counts["beach"] or counts["room"] > counts["dark"]):
        return "dark"
    best = max(counts, key=lambda place: counts[place])
    return best if counts[best] else "sweep"


def _first(table: dict[str, frozenset[str]], words: frozenset[str]) -> str:
    return next((name for name, names in table.items() if words & names), "")


def _tint(prompt: str, words: frozenset[str], place: str) -> tuple[Colour, float]:
    named = [colour for word, colour in TINTS.items() if word in words]
    if named:
        blue, green, red = (sum(channel) / len(named) for channel in zip(*named, strict=True))
        pale = 0.45 if "pastel" in words else 0.0
        return (blue + (1 - blue) * pale, green + (1 - green) * pale, red + (1 - red) * pale), 1.0
    if place != "sweep" or words & BRIGHT:
        return (1.0, 1.0, 1.0), 0.0
    digest = hashlib.sha256(prompt.encode()).digest()
    blue, green, red = (0.80 + 0.16 * byte / 255 for byte in digest[:3])
    return (blue, green, red), 0.8
