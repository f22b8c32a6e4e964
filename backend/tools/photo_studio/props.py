"""Products made of simple solids, for photos that nobody has to take: one builder per kind.

About 1 unit tall or wide, standing on height 0. The first colour is the product's own, the rest belongs to its kind.
"""

from __future__ import annotations

from collections.abc import Callable

from fal_sandbox.pictures.arrays import floats
from fal_sandbox.pictures.words import Colour
from photo_studio.solids import Field, Part, Stripe, Vector, blend, box, ellipsoid, hollow, moved, ring, rod, turned

WHITE: Colour = (0.86, 0.88, 0.90)
STEEL: Colour = (0.78, 0.80, 0.82)
BRASS: Colour = (0.36, 0.62, 0.82)
OAK: Colour = (0.30, 0.48, 0.66)
INK: Colour = (0.08, 0.07, 0.07)


def mug(colour: Colour) -> list[Part]:
    outer = turned([(0.33, 0.0), (0.40, 0.05), (0.43, 0.30), (0.44, 0.88)], 0.06)
    inner = turned([(0.34, 0.07), (0.39, 0.14), (0.40, 1.2)], 0.04)
    handle = hollow(ring((0.47, 0.47, 0), 0.23, 0.05, axis=2, squash=1.35), turned([(0.41, -0.1), (0.41, 1.0)]))
    return [
        Part(blend([hollow(outer, inner), moved(handle, (0, 0, 0), -0.5)], 0.03), colour, 0.85),
        Part(turned([(0.38, 0.60), (0.38, 0.68)]), (0.12, 0.20, 0.32), 0.6),
    ]


def bottle(colour: Colour) -> list[Part]:
    body = [(0.28, 0.0), (0.29, 0.03), (0.29, 0.78), (0.26, 0.92), (0.14, 1.04), (0.105, 1.10), (0.105, 1.24)]
    lines = tuple(Stripe((0, 1, 0), at, half, INK) for at, half in ((0.335, 0.005), (0.565, 0.005), (0.45, 0.04)))
    return [
        Part(turned(body, 0.08), colour, 0.9),
        Part(turned([(0.297, 0.24), (0.297, 0.66)], rounding=0.004), WHITE, 0.1, stripes=lines),
        Part(turned([(0.12, 1.22), (0.12, 1.40)], rounding=0.02), INK, 0.5),
    ]


def lamp(colour: Colour) -> list[Part]:
    belly = [(0.06, 0.07), (0.20, 0.16), (0.255, 0.30), (0.20, 0.46), (0.05, 0.62), (0.035, 0.70)]
    shade = hollow(turned([(0.46, 0.64), (0.30, 1.22)]), turned([(0.488, 0.5), (0.262, 1.3)]))
    return [
        Part(turned([(0.22, 0.0), (0.22, 0.07)], rounding=0.02), BRASS, 0.8, metal=True),
        Part(turned(belly, 0.12), colour, 0.9),
        Part(shade, (0.82, 0.93, 1.02), 0.05),
        Part(rod((0, 0.6, 0), (0, 1.24, 0), 0.014), BRASS, 0.8, metal=True),
    ]


def shoe(colour: Colour) -> list[Part]:
    """A low sneaker from the side, toe to the right."""
    upper = blend(
        [
            ellipsoid((-0.34, 0.26, 0), (0.17, 0.23, 0.16)),
            ellipsoid((-0.06, 0.22, 0), (0.30, 0.185, 0.165)),
            ellipsoid((0.30, 0.14, 0), (0.27, 0.135, 0.175)),
        ],
        0.12,
    )
    opening = ellipsoid((-0.29, 0.56, 0), (0.20, 0.20, 0.105))
    sole = blend(
        [box((0.03, 0.06, 0), (0.52, 0.06, 0.165), 0.05), ellipsoid((0.48, 0.09, 0), (0.12, 0.07, 0.14))], 0.05
    )
    laces = [ring((0.02 + 0.08 * i, 0.215 - 0.035 * i, 0), 0.170 - 0.008 * i, 0.012, axis=0) for i in range(3)]
    stripes = (
        Stripe((0.74, 0.67, 0), 0.0, 0.028, WHITE),
        Stripe((0.74, 0.67, 0), 0.10, 0.014, WHITE),
        Stripe((1, -0.25, 0), 0.52, 0.115, WHITE),
        Stripe((1, 0.1, 0), -0.54, 0.10, WHITE),
    )
    return [
        Part(hollow(upper, opening), colour, 0.15, stripes=stripes),
        Part(sole, WHITE, 0.3, stripes=(Stripe((0, 1, 0), 0.055, 0.008, colour),)),
        Part(blend(laces, 0.004), WHITE, 0.1),
    ]


def bag(colour: Colour) -> list[Part]:
    body = blend([box((0, 0.34, 0), (0.50, 0.34, 0.17), 0.07), box((0, 0.08, 0), (0.54, 0.08, 0.21), 0.06)], 0.2)
    return [
        Part(body, colour, 0.45),
        Part(ring((0, 0.70, 0.06), 0.24, 0.022, axis=2), (0.14, 0.20, 0.32), 0.5),
        Part(box((0, 0.56, 0.175), (0.49, 0.012, 0.012), 0.008), (0.14, 0.20, 0.32), 0.3),
        Part(box((0, 0.50, 0.185), (0.06, 0.045, 0.018), 0.012), BRASS, 0.9, metal=True),
    ]


def watch(colour: Colour) -> list[Part]:
    """A wristwatch that stands on its closed strap, face to the camera."""
    face = (0.0, 0.46, 0.40)
    return [
        Part(ring((0, 0.46, 0.0), 0.42, 0.035, axis=0, squash=4.2), colour, 0.35),
        Part(_puck(face, 0.33, 0.07), STEEL, 0.95, metal=True),
        Part(_puck((0, 0.46, 0.47), 0.28, 0.01), WHITE, 0.3),
        Part(rod((0, 0.46, 0.49), (0.0, 0.63, 0.49), 0.011), INK, 0.2),
        Part(rod((0, 0.46, 0.49), (0.12, 0.40, 0.49), 0.013), INK, 0.2),
        Part(ellipsoid((0.37, 0.46, 0.40), (0.04, 0.035, 0.035)), STEEL, 0.9, metal=True),
    ]


def _puck(centre: Vector, radius: float, half: float) -> Field:
    """A short cylinder that faces the camera."""
    lying = turned([(radius, -half), (radius, half)], rounding=min(0.03, half * 0.6))
    x, y, z = centre
    return lambda points: lying((points - floats([x, y, z]))[:, [0, 2, 1]])


def chair(colour: Colour) -> list[Part]:
    legs = [rod((0.32 * x, 0.5, 0.28 * z), (0.40 * x, 0.02, 0.36 * z), 0.03) for x in (-1, 1) for z in (-1, 1)]
    posts = [rod((0.30 * x, 0.5, -0.28), (0.32 * x, 1.05, -0.40), 0.028) for x in (-1, 1)]
    turn = 0.5
    return [
        Part(moved(blend([*legs, *posts], 0.01), (0, 0, 0), turn), OAK, 0.4),
        Part(moved(box((0, 0.54, 0), (0.40, 0.06, 0.36), 0.06), (0, 0, 0), turn), colour, 0.1),
        Part(moved(box((0, 0.96, -0.38), (0.38, 0.17, 0.045), 0.045), (0, 0, 0), turn), colour, 0.1),
    ]


def shirt(colour: Colour) -> list[Part]:
    """Three folded shirts, one upon the other."""
    blue, green, red = colour
    tones: list[Colour] = [(blue * t, green * t, red * t) for t in (0.62, 0.82, 1.0)]
    return [
        Part(
            moved(box((0, 0.09 + 0.18 * level, 0), (0.50, 0.09, 0.36), 0.085), (0, 0, 0), 0.45 + 0.06 * level),
            tone,
            0.02,
        )
        for level, tone in enumerate(tones)
    ]


def vase(colour: Colour) -> list[Part]:
    outer = [
        (0.20, 0.0),
        (0.32, 0.14),
        (0.39, 0.34),
        (0.35, 0.56),
        (0.20, 0.78),
        (0.12, 0.92),
        (0.14, 1.04),
        (0.21, 1.12),
    ]
    inner = turned([(0.09, 0.86), (0.11, 1.04), (0.20, 1.2)], 0.08)
    return [Part(hollow(turned(outer, 0.16), inner), colour, 0.8)]


def headphones(colour: Colour) -> list[Part]:
    """Headphones upright on their cushions."""
    cups = [ellipsoid((0.42 * x, 0.24, 0), (0.13, 0.24, 0.22)) for x in (-1, 1)]
    pads = [ellipsoid((0.31 * x, 0.24, 0), (0.08, 0.22, 0.20)) for x in (-1, 1)]
    band = hollow(ring((0, 0.52, 0), 0.40, 0.035, axis=2, squash=2.2), box((0, 0.0, 0), (1, 0.5, 1), 0.01))
    arms = [rod((0.40 * x, 0.5, 0), (0.44 * x, 0.24, 0), 0.035) for x in (-1, 1)]
    return [
        Part(blend([band, *arms], 0.04), INK, 0.4),
        Part(blend(cups, 0.01), colour, 0.6),
        Part(blend(pads, 0.01), INK, 0.1),
    ]


def jar(colour: Colour) -> list[Part]:
    return [
        Part(turned([(0.38, 0.0), (0.41, 0.05), (0.41, 0.60), (0.33, 0.72)], 0.06), colour, 0.8),
        Part(turned([(0.37, 0.70), (0.37, 0.86)], rounding=0.02), OAK, 0.2),
        Part(turned([(0.417, 0.18), (0.417, 0.50)], rounding=0.004), WHITE, 0.05),
    ]


PROPS: dict[str, Callable[[Colour], list[Part]]] = {
    "mug": mug,
    "shoe": shoe,
    "bottle": bottle,
    "lamp": lamp,
    "bag": bag,
    "watch": watch,
    "chair": chair,
    "shirt": shirt,
    "vase": vase,
    "headphones": headphones,
    "jar": jar,
}
SIZES = {
    "mug": (0.9, 1.05),
    "shoe": (0.55, 1.15),
    "bottle": (1.42, 0.6),
    "lamp": (1.26, 0.95),
    "bag": (0.98, 1.1),
    "watch": (0.9, 0.8),
    "chair": (1.2, 1.0),
    "shirt": (0.56, 1.15),
    "vase": (1.14, 0.8),
    "headphones": (0.98, 1.12),
    "jar": (0.9, 0.85),
}
"""Height and width, for the camera."""
