"""Make the pictures of the styles that failed, and only those.

    python examples/retry_styles.py out/*/product.json

`product.json` is what `workflow` printed, or `product_workflow` returned, with or without `--save_dir`; the new
pictures are saved beside it and added to it. Failures that fal may have billed, and those that come again however often
one asks, are not `retryable`: they stay listed under `errors`. Each product is cut out once more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.fal.errors import FalError
from services.fal_service import FalClient

STYLES: dict[str, Any] = {"Studio": "Studio", "Lifestyle": "Lifestyle", "Premium": "Premium"}
"""What was asked for, by name. One of your own: `"Beach": {"name": "Beach", "description": "White sand, noon"}`."""


def main(argv: Sequence[str]) -> int:
    complete = True
    with FalClient() as client:
        for name in argv:
            try:
                complete &= retry(client, Path(name))
            except FalError as error:
                print(f"{name}: {error}", file=sys.stderr)
                complete = False
    return 0 if complete else 1


def retry(client: FalClient, listing: Path) -> bool:
    """Whether every style of this product has its picture now."""
    product = json.loads(listing.read_text(encoding="utf-8"))
    again = styles_to_retry(product)
    if again:
        styles = [STYLES[name] for name in again]
        made = client.generate_multiple_backgrounds(product["image_url"], product["categories"], styles=styles)
        others = [failure for failure in product["errors"] if failure["style"] not in again]
        product["errors"] = [*others, *(made["errors"] or [])] or None
        product["images"] += made["images"]
        product["images"].sort(key=lambda image: list(STYLES).index(image["style_name"]))
        product["total_generated"] = len(product["images"])
        # Before the pictures are saved: it names them, and they are paid for.
        keep(listing, product)
        for image in made["images"]:
            image["path"] = str(client.save_picture(image["image_url"], listing.parent, image["style_name"].lower()))
        keep(listing, product)
    print(f"{listing}: {product['total_generated']} of {product['total_requested']} pictures")
    return bool(product["total_generated"] == product["total_requested"])


def styles_to_retry(product: dict[str, Any]) -> list[str]:
    """The names of the styles that have no picture, and may have one when they are asked for again."""
    # A style whose prompt failed is listed too, and has its picture all the same, from a plain prompt.
    made = {image["style_name"] for image in product["images"]}
    missing = [failure for failure in product["errors"] or [] if failure["style"] not in {None, *made}]
    final = {failure["style"] for failure in missing if not failure["retryable"] and failure["stage"] != "prompt"}
    return list(dict.fromkeys(failure["style"] for failure in missing if failure["style"] not in final))


def keep(listing: Path, product: Any) -> None:
    """Write the listing as a whole or not at all, whenever this program is ended."""
    unfinished = listing.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(product, ensure_ascii=False, indent=2), encoding="utf-8")
    unfinished.replace(listing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
