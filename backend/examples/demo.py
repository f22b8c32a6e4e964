"""The main job from a shell's view: the worker as a process of its own, its JSON read, its files named.

`make demo` runs this through the sandbox; with a key it works against fal as it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageOps

BACKEND = Path(__file__).resolve().parents[1]
TILE_PX, GAP_PX = (360, 240), 8
"""Width and height of a picture on the contact sheet, and the space between two."""


def main() -> int:
    photo, out = BACKEND / "examples" / "coffee.jpg", BACKEND / "out"
    print(f"workflow --image {photo.relative_to(BACKEND)} --save_dir {out.name} --report", flush=True)
    worker = [sys.executable, str(BACKEND / "src" / "services" / "fal_worker.py")]
    options = ["--image", str(photo), "--save_dir", str(out), "--report"]
    ran = subprocess.run([*worker, "workflow", *options], stdout=subprocess.PIPE, check=False)
    result = json.loads(ran.stdout)
    if result["error"] is not None:
        print(result["error"], file=sys.stderr)
        return 1
    show(result)
    print(f"sheet        {contact_sheet(out).relative_to(BACKEND)}")
    print(f"\nopen {result['report_path']}")
    return 0


def show(result: dict) -> None:
    categories, timings = result["categories"], result["timings"]
    print(f"\nproduct      {categories['main_product_type']} / {categories['subcategory']}, {categories['vibe']}")
    print(f"description  {result['description']}")
    for image in result["images"]:
        size = f"{image['width']} x {image['height']}"
        print(f"{image['style_name']:<12} {size:<12} {Path(image['path']).relative_to(BACKEND)}")
    print(f"seconds      {timings['total']:.1f}, of which {seconds(timings)}")


def seconds(timings: dict) -> str:
    steps = ("upload", "analysis", "cutout", "description")
    return ", ".join(f"{step} {timings[step]:.2f}" for step in steps if step in timings)


def contact_sheet(out: Path) -> Path:
    """The photo and the pictures that were made of it, side by side in one small JPEG."""
    paths = [*out.glob("original.*"), *sorted(out.glob("[0-9]*-*"))]
    width, height = TILE_PX
    sheet = Image.new("RGB", (len(paths) * (width + GAP_PX) - GAP_PX, height), "white")
    for place, path in enumerate(paths):
        with Image.open(path) as picture:
            sheet.paste(ImageOps.fit(picture.convert("RGB"), TILE_PX), (place * (width + GAP_PX), 0))
    saved = out / "contact-sheet.jpg"
    sheet.save(saved, quality=85, optimize=True)
    return saved


if __name__ == "__main__":
    sys.exit(main())
