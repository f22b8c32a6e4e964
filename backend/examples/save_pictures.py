"""Make pictures, and save each one as it comes.

    python examples/save_pictures.py examples/coffee.jpg out

`save_picture` takes the picture from fal's own hosts over https, looks whether it is one, and writes it whole or not at
all. The extension is its own: the first bytes decide.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from services.fal_service import FalClient


def main(photo: str, folder: str) -> int:
    saved: list[Future[Path]] = []
    with FalClient() as client, ThreadPoolExecutor() as pool:

        def on_progress(event: Any) -> None:
            if event["step"] == "picture" and event["status"] == "done":
                url, name = event["image"]["image_url"], event["style"].lower()
                saved.append(pool.submit(client.save_picture, url, Path(folder), name))

        client.product_workflow(photo, on_progress=on_progress)
        for picture in saved:
            print(picture.result())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
