"""Fidelity gates against real product pictures and changes made on purpose: false rejects, false accepts.

python bench/bench_fidelity.py CUTOUT.png [...] [--rows] [--sheet FILE]

Each cut-out (a PNG with alpha) is put on a painted background, larger or smaller and moved, then changed in ways that
a shop accepts (compression, resizing) and in ways that it does not. Prints one row per change.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

BACKEND = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BACKEND / "src"))

from PIL import Image  # noqa: E402

from fal_sandbox.pictures.scene import generic_picture  # noqa: E402
from services.shop.fidelity import Fidelity, measured  # noqa: E402

Pixels = np.ndarray
PRODUCT_PX = 560
"""Pixels of the product's longer side: larger files are made smaller, small ones stay."""


def opened(path: str) -> Pixels:
    picture = Image.open(path).convert("RGBA")
    box = picture.getchannel("A").point(lambda value: 255 if value > 8 else 0).getbbox()
    picture = picture.crop(box)
    scale = PRODUCT_PX / max(picture.size)
    if scale < 1:
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
        )
    wide = np.zeros((round(picture.height * 1.4), round(picture.width * 1.4), 4), np.uint8)
    top, left = (wide.shape[0] - picture.height) // 2, (wide.shape[1] - picture.width) // 2
    wide[top : top + picture.height, left : left + picture.width] = np.asarray(picture)
    return wide


def scene(cutout: Pixels, product: Pixels, number: int, scale: float = 1.0, x: float = 0, y: float = 0) -> Pixels:
    """`product` in place of `cutout` on a painted background, scaled and moved."""
    height, width = cutout.shape[:2]
    png = generic_picture(width, height, "oak table, morning light" if number % 2 else "marble, studio", number)
    behind = cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    middle = np.array([width, height]) * (1 - scale) / 2 + (x, y)
    matrix = np.array([[scale, 0, middle[0]], [0, scale, middle[1]]])
    values = product.astype(np.float32)
    values[..., :3] *= values[..., 3:] / 255
    if scale < 1:
        values = cv2.GaussianBlur(values, (0, 0), 0.35 / scale)
    placed = cv2.warpAffine(values, matrix, (width, height), flags=cv2.INTER_CUBIC)
    mixed = placed[..., :3] + behind * (1 - placed[..., 3:].clip(0, 255) / 255)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def jpeg(quality: int, picture: Pixels) -> Pixels:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def halved(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def colours(change: Callable[[Pixels], Pixels], product: Pixels) -> Pixels:
    result = product.copy()
    result[..., :3] = np.clip(change(product[..., :3].astype(np.float32)), 0, 255)
    return result


def hue(degrees: float, product: Pixels) -> Pixels:
    hsv = cv2.cvtColor(product[..., :3], cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + round(degrees / 2)) % 180
    return np.dstack([cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), product[..., 3]])


def label(product: Pixels) -> tuple[slice, slice]:
    """Where a label would be: in the largest circle that the product has room for."""
    distance = cv2.distanceTransform((product[..., 3] >= 254).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    wide, high = round(0.8 * distance.max()), round(0.45 * distance.max())
    return slice(y - high, y + high), slice(x - wide, x + wide)


LETTER = 0.65


def labelled(product: Pixels, text: str = "SAFIR 250 ML") -> Pixels:
    """With a label of one's own, so that it can be garbled and erased."""
    result = product.copy()
    rows, columns = label(product)
    patch = np.full((rows.stop - rows.start, columns.stop - columns.start, 3), 240, np.uint8)
    lines = text.split(" ", 1)
    for number, line in enumerate(lines):
        size = cv2.getTextSize(line, cv2.FONT_HERSHEY_DUPLEX, LETTER, 1)[0]
        scale = LETTER * min(0.9 * patch.shape[1] / size[0], 0.36 * patch.shape[0] / size[1])
        at = round(0.05 * patch.shape[1]), round(patch.shape[0] * (0.44 + 0.46 * number))
        cv2.putText(patch, line, at, cv2.FONT_HERSHEY_DUPLEX, scale, (25, 25, 60), 1, cv2.LINE_AA)
    result[rows, columns, :3] = patch
    return result


def garbled(product: Pixels) -> Pixels:
    """The label's columns in another order, as a model redraws letters."""
    result = product.copy()
    rows, columns = label(product)
    part = result[rows, columns].copy()
    strips = np.array_split(np.arange(part.shape[1]), 9)
    order = np.random.default_rng(1).permutation(len(strips))
    result[rows, columns] = part[:, np.concatenate([strips[number] for number in order])]
    return result


def erased(product: Pixels) -> Pixels:
    result = product.copy()
    rows, columns = label(product)
    result[rows, columns, :3] = result[rows, columns, :3].mean(axis=(0, 1))
    return result


def rippled(product: Pixels) -> Pixels:
    """Redrawn: every part a few pixels off, another way each."""
    height, width = product.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    size = max(height, width)
    return cv2.remap(
        product,
        x + 0.012 * size * np.sin(y * 14 / size + 1),
        y + 0.012 * size * np.sin(x * 14 / size),
        cv2.INTER_LINEAR,
    )


def stretched(product: Pixels) -> Pixels:
    height, width = product.shape[:2]
    matrix = np.array([[1.08, 0, -0.04 * width], [0, 1, 0]])
    return cv2.warpAffine(product, matrix, (width, height), flags=cv2.INTER_CUBIC)


Case = Callable[[Pixels, Pixels, int], Pixels]
"""From a product, another product and a number to a picture."""
ACCEPTED: dict[str, Case] = {
    "as it is": lambda p, o, n: scene(p, p, n),
    "moved by 2.4 px": lambda p, o, n: scene(p, p, n, x=2.4, y=-1.3),
    "moved by 9 %": lambda p, o, n: scene(p, p, n, x=0.09 * p.shape[1]),
    "JPEG q95": lambda p, o, n: jpeg(95, scene(p, p, n)),
    "JPEG q80": lambda p, o, n: jpeg(80, scene(p, p, n)),
    "halved and enlarged": lambda p, o, n: halved(scene(p, p, n)),
    "at 64 %": lambda p, o, n: scene(p, p, n, 0.64, 11.3, 17.8),
    "at 85 %, JPEG q90": lambda p, o, n: jpeg(90, scene(p, p, n, 0.85, 5, 9)),
    "at 115 %": lambda p, o, n: scene(p, p, n, 1.15, 2, 3),
}
REFUSED: dict[str, Case] = {
    "hue by 8 degrees": lambda p, o, n: scene(p, hue(8, p), n),
    "hue by 20 degrees": lambda p, o, n: scene(p, hue(20, p), n),
    "warm cast": lambda p, o, n: scene(p, colours(lambda c: c * (1.06, 1.0, 0.92), p), n),
    "10 % darker": lambda p, o, n: scene(p, colours(lambda c: c * 0.9, p), n),
    "label garbled": lambda p, o, n: scene(p, garbled(p), n),
    "label garbled, at 64 %": lambda p, o, n: scene(p, garbled(p), n, 0.64, 11, 7),
    "label erased": lambda p, o, n: scene(p, erased(p), n),
    "redrawn all over": lambda p, o, n: scene(p, rippled(p), n),
    "8 % wider": lambda p, o, n: scene(p, stretched(p), n),
    "cut off by the frame": lambda p, o, n: scene(p, p, n, x=0.32 * p.shape[1]),
    "another product": lambda p, o, n: scene(p, _fitted(o, p), n),
    "no product": lambda p, o, n: scene(p, np.zeros_like(p), n),
}
LETTERS = {"one letter changed": "SAFIK 250 ML"}


def _fitted(other: Pixels, product: Pixels) -> Pixels:
    return cv2.resize(other, (product.shape[1], product.shape[0]), interpolation=cv2.INTER_AREA)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cutouts", nargs="+", help="PNG files with alpha")
    parser.add_argument("--rows", action="store_true", help="one line per picture too")
    parser.add_argument("--sheet", help="write some of the pictures there, side by side")
    options = parser.parse_args(argv)
    plain = [opened(path) for path in options.cutouts]
    products = [labelled(one) for one in plain]
    print(f"{len(products)} products; share of pictures per verdict\n")
    print("| change | wanted | pass | warn | fail | worst tile | ΔE00 | edge F1 |")
    print("|---|---|---|---|---|---|---|---|")
    sheet: list[Pixels] = []
    for wanted, cases in (("pass", ACCEPTED), ("fail", REFUSED)):
        for name, case in cases.items():
            found = []
            for number, product in enumerate(products):
                picture = case(product, products[(number + 1) % len(products)], number)
                found.append(measured(product, picture))
                if options.rows:
                    print("   ", name, Path(options.cutouts[number]).name, found[-1])
                if number == 0:
                    sheet.append(picture)
            print(_row(name, wanted, found), flush=True)
    for name, text in LETTERS.items():
        found = [
            measured(product, scene(product, labelled(bare, text), n))
            for n, (product, bare) in enumerate(zip(products, plain, strict=True))
        ]
        print(_row(name, "(OCR)", found))
    if options.sheet:
        tall = [cv2.resize(one, (300, 300)) for one in sheet]
        rows = [np.hstack((tall + [np.zeros_like(tall[0])] * 6)[start : start + 6]) for start in range(0, len(tall), 6)]
        Image.fromarray(np.vstack(rows)).save(options.sheet)
    return 0


def _row(name: str, wanted: str, found: list[Fidelity]) -> str:
    count = {verdict: sum(one["verdict"] == verdict for one in found) for verdict in ("pass", "warn", "fail")}

    def middle(key: str) -> str:
        known = [float(one[key]) for one in found if one[key] is not None]  # type: ignore[literal-required]
        return f"{statistics.median(known):.3g} ({min(known):.3g} to {max(known):.3g})" if known else "-"

    figures = " | ".join(middle(key) for key in ("worst_tile_ssim", "colour_difference", "edge_f1"))
    return f"| {name} | {wanted} | {count['pass']} | {count['warn']} | {count['fail']} | {figures} |"


if __name__ == "__main__":
    sys.exit(main())
