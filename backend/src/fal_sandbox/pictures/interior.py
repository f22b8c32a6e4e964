"""The furniture of a blurred room: simple shapes in believable colours and light.

Everything is drawn sharp and plain; `backdrops.py` puts it out of focus. The window is on the left.
"""

from __future__ import annotations

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array, floats, grid
from fal_sandbox.pictures.words import Look

Point = tuple[float, float]
CLAY = ((0.44, 0.55, 0.70), (0.62, 0.70, 0.76), (0.34, 0.42, 0.55), (0.50, 0.56, 0.50), (0.78, 0.82, 0.86))
"""Muted colours of vases, books and cushions."""


class Room:
    """A canvas with shares of its width and height as coordinates."""

    def __init__(self, height: int, width: int, draw: np.random.Generator) -> None:
        self.draw = draw
        self.size = (width, height)
        self.canvas = np.zeros((height, width, 3), np.float32)

    def at(self, point: Point) -> tuple[int, int]:
        return round(point[0] * self.size[0]), round(point[1] * self.size[1])

    def box(self, low: Point, high: Point, colour: tuple[float, ...]) -> None:
        cv2.rectangle(self.canvas, self.at(low), self.at(high), colour, cv2.FILLED)

    def blob(self, centre: Point, across: float, down: float, colour: tuple[float, ...], angle: float = 0) -> None:
        axes = max(1, round(across * self.size[0])), max(1, round(down * self.size[0]))
        cv2.ellipse(self.canvas, self.at(centre), axes, angle, 0, 360, colour, cv2.FILLED, cv2.LINE_AA)

    def glow(self, centre: Point, radius: float, colour: tuple[float, ...]) -> None:
        y, x = grid(self.size[1], self.size[0])
        px, py = self.at(centre)
        away = np.hypot(x - px, y - py) / (radius * self.size[0])
        self.canvas += np.exp(-(away**2))[..., None] * np.array(colour, np.float32)


def furnish(look: Look, height: int, width: int, draw: np.random.Generator) -> Array:
    """The room the look asks for."""
    room = Room(height, width, draw)
    _walls(room, look)
    _window(room)
    if look.words & {"kitchen", "breakfast", "cafe"}:
        _kitchen(room)
    else:
        _sofa(room, look)
        _pictures(room)
        (_shelf if draw.random() < 0.5 else _lamp)(room)
    _plant(room, (draw.uniform(0.30, 0.40), 0.95))
    room.glow((0.14, 0.35), 0.42, (0.20, 0.24, 0.26))
    return room.canvas * (0.45 if look.dark else 1.0)


def _walls(room: Room, look: Look) -> None:
    """Warm white, falling off away from the window."""
    width, height = room.size
    y, x = grid(height, width)
    light = 0.92 - 0.34 * (x / width) - 0.08 * (y / height)
    base: tuple[float, ...] = (0.72, 0.80, 0.86) if look.warmth >= 0 else (0.86, 0.85, 0.84)
    if look.strength:
        base = tuple(0.45 * wall + 0.55 * tint for wall, tint in zip(base, look.tint, strict=True))
    room.canvas += light[..., None] * floats(base)


def _window(room: Room) -> None:
    """Bright panes with a hint of trees, a frame, and a sheer curtain at its side."""
    right = room.draw.uniform(0.24, 0.30)
    room.box((-0.1, -0.1), (right, 0.80), (1.35, 1.38, 1.36))
    for _ in range(14):
        centre = room.draw.uniform(0, right - 0.04), room.draw.uniform(0.35, 0.8)
        room.blob(centre, 0.035, 0.03, (0.92, 1.10, 1.02))
    for bar in (right * 0.5, right):
        room.box((bar - 0.008, -0.1), (bar + 0.006, 0.82), (0.70, 0.76, 0.80))
    room.box((-0.1, 0.36), (right, 0.385), (0.72, 0.78, 0.82))
    room.box((-0.1, 0.80), (right + 0.03, 0.84), (0.80, 0.86, 0.90))
    for fold in range(7):
        x = right - 0.02 + fold * 0.017
        bright = 0.98 if fold % 2 else 0.80
        room.box((x, -0.1), (x + 0.018, 1.1), (bright * 0.90, bright * 0.95, bright))


def _sofa(room: Room, look: Look) -> None:
    top = room.draw.uniform(0.62, 0.68)
    cloth = (0.50, 0.58, 0.63) if look.warmth >= 0 else (0.62, 0.58, 0.54)
    dark = tuple(0.86 * value for value in cloth)
    room.box((0.46, top), (0.94, 1.1), dark)
    room.blob((0.47, top + 0.10), 0.035, 0.06, cloth)
    room.blob((0.93, top + 0.10), 0.035, 0.06, dark)
    room.box((0.50, top + 0.18), (0.90, 1.1), cloth)
    for x in (0.56, 0.64, 0.82):
        colour = CLAY[int(room.draw.integers(len(CLAY)))]
        room.blob((x, top + 0.14), 0.045, 0.045, colour, room.draw.uniform(-20, 20))


def _pictures(room: Room) -> None:
    x = room.draw.uniform(0.52, 0.58)
    for left, wide, low in ((x, 0.12, 0.46), (x + 0.15, 0.08, 0.40)):
        room.box((left, 0.12), (left + wide, low), (0.34, 0.42, 0.50))
        room.box((left + 0.008, 0.14), (left + wide - 0.008, low - 0.02), (0.80, 0.84, 0.86))
        room.blob((left + wide / 2, (0.14 + low) / 2 + 0.04), wide * 0.26, wide * 0.3, (0.56, 0.64, 0.72))


def _shelf(room: Room) -> None:
    """Two boards with books and vases."""
    for board in (0.26, 0.52):
        x = 0.78
        while x < 1.0:
            clay = CLAY[int(room.draw.integers(len(CLAY)))]
            colour = tuple(0.80 * value for value in clay)
            if room.draw.random() < 0.6:
                thick = room.draw.uniform(0.010, 0.022)
                room.box((x, board - room.draw.uniform(0.10, 0.17)), (x + thick, board), colour)
                x += thick + 0.003
            else:
                room.blob((x + 0.025, board - 0.05), 0.024, 0.03, colour)
                x += 0.06
        room.box((0.76, board), (1.1, board + 0.022), (0.30, 0.42, 0.54))


def _lamp(room: Room) -> None:
    """A floor lamp with a warm shade."""
    x = room.draw.uniform(0.84, 0.90)
    room.box((x - 0.004, 0.36), (x + 0.004, 1.1), (0.20, 0.26, 0.32))
    room.box((x - 0.06, 0.18), (x + 0.06, 0.38), (0.80, 1.12, 1.30))
    room.glow((x, 0.30), 0.16, (0.16, 0.32, 0.46))


def _kitchen(room: Room) -> None:
    """A tiled wall, a cupboard, a worktop with jars, and two hanging lamps."""
    for row in range(9):
        y = 0.20 + row * 0.05
        room.box((0.38, y), (1.1, y + 0.006), (0.66, 0.70, 0.72))
    room.box((0.62, -0.1), (1.1, 0.20), (0.54, 0.60, 0.60))
    room.box((0.40, 0.66), (1.1, 0.70), (0.40, 0.52, 0.64))
    room.box((0.40, 0.70), (1.1, 1.1), (0.56, 0.60, 0.58))
    for x in (0.48, 0.56, 0.70, 0.80, 0.90):
        colour = CLAY[int(room.draw.integers(len(CLAY)))]
        room.box((x, room.draw.uniform(0.50, 0.58)), (x + 0.045, 0.66), colour)
    for x in (0.52, 0.74):
        room.box((x - 0.002, -0.1), (x + 0.002, 0.16), (0.2, 0.2, 0.2))
        room.blob((x, 0.20), 0.035, 0.028, (0.9, 1.15, 1.30))
        room.glow((x, 0.22), 0.10, (0.10, 0.20, 0.28))


def _plant(room: Room, foot: Point) -> None:
    """A pot and a fan of long leaves, lit from the window side."""
    x, bottom = foot
    room.box((x - 0.035, bottom - 0.14), (x + 0.035, bottom + 0.2), (0.58, 0.66, 0.72))
    for _ in range(46):
        angle = room.draw.normal(-np.pi / 2, 0.62)
        length = room.draw.uniform(0.05, 0.17)
        tip = x + np.cos(angle) * length, bottom - 0.14 + np.sin(angle) * length * room.size[0] / room.size[1]
        bright = 0.75 + 0.5 * float(np.cos(angle) < 0) * room.draw.random()
        colour = (0.26 * bright, 0.44 * bright, 0.34 * bright)
        room.blob(tip, 0.032, 0.011, colour, float(np.degrees(angle)))
