"""An example of every command, for its `--help` and for docs/cli.md.

The tests run them in the project's root folder.
"""

from __future__ import annotations

from collections.abc import Mapping

_CATEGORIES = """'{"main_product_type": "Footwear", "subcategory": "Sneakers"}'"""
EXAMPLES: Mapping[str, str] = {
    "any-llm-complete": '--prompt "A 2-sentence pitch for a mug, in Turkish." --max_tokens 200',
    "any-llm-enterprise": '--prompt "What is this?" --image_url https://example.com/mug.jpg',
    "any-llm-stream": '--prompt "A short pitch for a mug."',
    "any-llm-submit": '--prompt "A short pitch for a mug." --webhook_url https://shop.example.com/hooks/fal',
    "any-llm-status": "--request_id abc123",
    "any-llm-result": "--request_id abc123",
    "any-llm-cancel": "--request_id abc123",
    "background": '--image_url https://example.com/mug.jpg --prompt "oak table, morning light"',
    "remove-background": "--image_url https://example.com/mug.jpg",
    "analyze-product": "--image_url https://example.com/shoe.jpg",
    "generate-bg-prompt": f'--categories {_CATEGORIES} --style_type "White studio background"',
    "generate-multiple-bg": f"""--image_url https://example.com/shoe.jpg \\
  --categories {_CATEGORIES} \\
  --styles '["Studio", {{"name": "Beach", "description": "Pale sand and sea"}}]'""",
    "upload-file": "--file_path backend/examples/coffee.jpg",
    "workflow": "--image backend/examples/coffee.jpg --language German --save_dir out --report",
    "packshot": "backend/examples/coffee.jpg --for amazon,trendyol --save_dir out --check",
    "check-image": "backend/examples/coffee.jpg --for shopify",
    "listing": f"""--categories {_CATEGORIES} \\
  --facts '{{"material": "leather"}}' --for trendyol,amazon --languages Turkish,English""",
    "prices": "--endpoints bria/replace-background,fal-ai/bria/background/remove",
    "estimate": """workflow --options '{"styles": ["Studio"], "num_images": 2}'""",
    "batch": "--input backend/examples/catalogue.csv --output out --max_usd 1",
    "doctor": "",
    "schema": "upload-file",
    "serve": "--concurrency 16",
    "webhook-listen": "--port 8788 --count 1 --timeout 60",
}
"""The options of one call, by command."""
