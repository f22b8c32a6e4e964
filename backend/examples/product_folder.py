"""Every photo of a folder through the product workflow, a few at once.

    python examples/product_folder.py photos out --at_once 4

Each product has a folder of its own in `out`: its pictures, and `product.json`. Run it again to go on: a product whose
`product.json` is there is not paid for again, and only those of its pictures are downloaded that are not there yet.
After Ctrl-C no product is begun; those that have begun are finished first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from services.fal.errors import FalError
from services.fal_service import FalClient

PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--at_once", type=int, default=4, help="products at once (default: %(default)s)")
    options = parser.parse_args(argv)
    photos = sorted(photo for photo in options.photos.iterdir() if photo.suffix.lower() in PHOTOS)
    with FalClient() as client, ThreadPoolExecutor(options.at_once) as pool:
        products = [pool.submit(make, client, photo, options.out.resolve() / photo.name) for photo in photos]
        try:
            made = [product.result() for product in products]
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"{sum(made)} of {len(photos)} products are complete in {options.out}")
    return 0 if all(made) else 1


def make(client: FalClient, photo: Path, folder: Path) -> bool:
    """Bring one product's folder up to date; whether all of its pictures are there."""
    listing = folder / "product.json"
    try:
        if listing.exists():
            product = json.loads(listing.read_text(encoding="utf-8"))
        else:
            product = client.product_workflow(photo)
            # Before anything else can fail: it names the pictures, which are paid for.
            keep(listing, product)
        for number, image in enumerate(product["images"], start=1):
            if not os.path.exists(image.get("path", "")):
                name = f"{number}-{image['style_name'].lower()}"
                image["path"] = str(client.save_picture(image["image_url"], folder, name))
                keep(listing, product)
    except (FalError, OSError) as error:
        print(f"{photo.name}: {error}", file=sys.stderr)
        return False
    for failure in product["errors"] or []:
        print(f"{photo.name}: {failure['style'] or failure['stage']}: {failure['error']}", file=sys.stderr)
    return bool(len(product["images"]) == product["total_requested"])


def keep(listing: Path, product: Any) -> None:
    """Write the listing as a whole or not at all, whenever this program is ended."""
    listing.parent.mkdir(parents=True, exist_ok=True)
    unfinished = listing.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(product, ensure_ascii=False, indent=2), encoding="utf-8")
    unfinished.replace(listing)


if __name__ == "__main__":
    sys.exit(main())
