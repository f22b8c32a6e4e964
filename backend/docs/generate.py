"""Writes from the code: worker/schemas.json, node/fal-worker.d.ts, docs/cli.md, and parts of two other pages.

python docs/generate.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BACKEND = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BACKEND / folder) for folder in ("src", "tools", "docs")]

import module_list  # noqa: E402
import python_reference  # noqa: E402

from command_schemas import all_schemas  # noqa: E402
from services.worker.commands import COMMANDS, COMMON, Command  # noqa: E402
from services.worker.options import Option  # noqa: E402
from services.worker.schemas import FILE as SCHEMAS  # noqa: E402

Schema = Mapping[str, Any]

TYPES = BACKEND / "node" / "fal-worker.d.ts"
REFERENCE = BACKEND / "docs" / "cli.md"
MODULE = BACKEND / "docs" / "fal-worker.module.d.ts"
"""What the Node module exports, written by hand; it stands behind the generated types."""
LINE = 100
"""Longer unions stand one part to a line."""
SCRIPT = "fal-worker"
CATEGORIES = """'{"main_product_type": "Footwear", "subcategory": "Sneakers"}'"""
EXAMPLES = {
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
    "generate-bg-prompt": f'--categories {CATEGORIES} --style_type "White studio background"',
    "generate-multiple-bg": f"""--image_url https://example.com/shoe.jpg \\
  --categories {CATEGORIES} \\
  --styles '["Studio", {{"name": "Beach", "description": "Pale sand and sea"}}]'""",
    "upload-file": "--file_path backend/examples/coffee.jpg",
    "workflow": "--image backend/examples/coffee.jpg --language German --save_dir out --report",
    "packshot": "backend/examples/coffee.jpg --for amazon,trendyol --save_dir out --check",
    "check-image": "backend/examples/coffee.jpg --for shopify",
    "listing": f"""--categories {CATEGORIES} \\
  --facts '{{"material": "leather"}}' --for trendyol,amazon --languages Turkish,English""",
    "doctor": "",
    "schema": "upload-file",
    "serve": "--concurrency 16",
    "webhook-listen": "--port 8788 --count 1 --timeout 60",
}
"""One call of every command; the tests run them."""
VALUES = {
    "text": "text",
    "texts": "text, may repeat",
    "path": "path",
    "integer": "whole number",
    "number": "number",
    "flag": "true or false",
    "json": "JSON",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is out of date")
    check = parser.parse_args().check
    stale = [path for path, text in files().items() if not _is(path, text)]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(BACKEND)} is out of date: make docs\n")
        else:
            path.write_text(files()[path], encoding="utf-8")
    return 1 if check and stale else 0


def files() -> dict[Path, str]:
    """What is generated, by its place."""
    document = all_schemas()
    return {
        SCHEMAS: json.dumps(document, ensure_ascii=False, indent=1) + "\n",
        TYPES: typescript(document),
        REFERENCE: reference(document),
        python_reference.PAGE: python_reference.page(),
        module_list.PAGE: module_list.page(),
    }


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _shapes(document: Schema) -> dict[str, Schema]:
    """Every named shape, once: what the results, failures and events consist of, then the results themselves."""
    parts = [schema for row in document["commands"].values() for schema in (row["result"], row["failure"])]
    named = {name: shape for part in [*parts, document["progress"]] for name, shape in part.get("$defs", {}).items()}
    users: dict[str, list[str]] = {}
    for name, row in document["commands"].items():
        users.setdefault(row["result"]["title"], []).append(name)
    results = {row["result"]["title"]: row["result"] for row in document["commands"].values()}
    return named | {
        title: {**shape, "description": f"Of {' and '.join(users[title])}."} for title, shape in results.items()
    }


# TypeScript


def typescript(document: Schema) -> str:
    """The text of fal-worker.d.ts."""
    commands = document["commands"]
    return "\n".join(
        [
            "// Generated by docs/generate.py from the worker's own types: make docs. Do not edit.",
            '/// <reference lib="esnext.disposable" />\n',
            *(_declared(name, shape) for name, shape in _shapes(document).items()),
            _declared("ProgressEvent", {**document["progress"], "description": "What a call tells while it runs."}),
            *(_declared(_pascal(name, "Options"), row["options"]) for name, row in commands.items()),
            *(_declared(_failure_name(row, name), row["failure"]) for name, row in commands.items() if _own_keys(row)),
            _map("Options", "What a command takes.", {name: _pascal(name, "Options") for name in commands}),
            _map(
                "Results",
                "What a command gives when it succeeds; any-llm-stream gives one for every line.",
                {name: row["result"]["title"] for name, row in commands.items()},
            ),
            _map(
                "Failures",
                "What a command gives when it fails.",
                {name: _failure_name(row, name) for name, row in commands.items()},
            ),
            MODULE.read_text(encoding="utf-8").partition("// ---\n")[2].lstrip(),
        ]
    )


def _failure_name(row: Schema, command: str) -> str:
    return _pascal(command, "Failure") if _own_keys(row) else "ErrorDocument"


def _own_keys(row: Schema) -> bool:
    """Whether a command's failure is more than an error document."""
    return "anyOf" in row["failure"] or bool(row["failure"]["properties"])


def _pascal(command: str, ending: str) -> str:
    return "".join(word.capitalize() for word in command.split("-")) + ending


def _declared(name: str, schema: Schema) -> str:
    text = _comment(schema.get("description", ""))
    if "properties" in schema and "allOf" not in schema:
        return f"{text}export interface {name} {_object(schema)}\n"
    value = _type(schema)
    if "enum" in schema and len(value) > LINE:
        value = "".join(f"\n  | {json.dumps(one)}" for one in schema["enum"])
    return f"{text}export type {name} = {value};\n".replace("= \n", "=\n")


def _comment(text: str, indent: str = "") -> str:
    return f"{indent}/** {_sentence(text)} */\n" if text else ""


def _sentence(text: str) -> str:
    first = text if text.startswith("fal") else text[:1].upper() + text[1:]
    return first if first.endswith(".") else f"{first}."


def _map(name: str, text: str, types: Mapping[str, str]) -> str:
    lines = "".join(f"  {json.dumps(key)}: {value};\n" for key, value in types.items())
    return f"{_comment(text)}export interface {name} {{\n{lines}}}\n"


def _object(schema: Schema, indent: str = "") -> str:
    required = schema.get("required", ())
    lines = [
        f"{_comment(value.get('description', ''), f'{indent}  ')}"
        f"{indent}  {name}{'' if name in required else '?'}: {_type(value, f'{indent}  ')};\n"
        for name, value in schema["properties"].items()
    ]
    return f"{{\n{''.join(lines)}{indent}}}"


def _type(schema: Schema, indent: str = "") -> str:
    """A schema as a TypeScript type."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "allOf" in schema:
        own = [_object(schema, indent)] if schema["properties"] else []
        return " & ".join([*(_type(part, indent) for part in schema["allOf"]), *own])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(part, indent) for part in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return "Record<string, never>" if schema["const"] == {} else json.dumps(schema["const"])
    kinds = schema.get("type", "unknown")
    return " | ".join(_plain(kind, schema, indent) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _plain(kind: str, schema: Schema, indent: str) -> str:
    if kind == "array":
        item = _type(schema["items"], indent)
        return f"({item})[]" if " | " in item else f"{item}[]"
    if kind == "object" and "properties" in schema:
        return _object(schema, indent)
    if kind == "object":
        return f"Record<string, {_type(schema.get('additionalProperties', {}), indent)}>"
    return "number" if kind == "integer" else kind


# The reference


def reference(document: Schema) -> str:
    """The text of docs/cli.md."""
    shapes = _shapes(document)
    results = {row["result"]["title"] for row in document["commands"].values()}
    return "\n".join(
        [
            "<!-- Generated by docs/generate.py: make docs. Do not edit. -->",
            "# The worker's commands",
            "",
            "Each command prints one JSON document to stdout and exits with 0, or with 1 if the document has an "
            "`error`. [The worker](worker.md) explains what holds for all of them. "
            f"`{SCRIPT} schema` prints the same as JSON Schema. Types are written as in TypeScript; a key with `?` is "
            "not always there. The examples run in the project's root folder.",
            "",
            " · ".join(f"[{name}](#{name})" for name in COMMANDS),
            "",
            "Every command also takes:",
            "",
            *_option_rows(COMMON),
            "| `--json` | `-` | read the options as one JSON object from standard input "
            "(not `serve` and `webhook-listen`) |",
            "",
            f"`--env_file` may also be given before the command: `{SCRIPT} --env_file .env doctor`.",
            "",
            *(line for name, command in COMMANDS.items() for line in _section(name, command, document)),
            "## Shapes",
            "",
            *(line for name, shape in shapes.items() if name not in results for line in _shape(name, shape)),
        ]
    )


def _section(name: str, command: Command, document: Schema) -> Iterator[str]:
    yield f"## {name}\n\n{_sentence(command.help)}\n"
    yield f"```bash\n{SCRIPT} {name} {EXAMPLES[name]}".rstrip() + "\n```\n"
    row = document["commands"].get(name)
    if command.options:
        yield from _option_rows(command.options)
        yield ""
    if row is None:
        return
    yield f"{'Prints lines of' if command.streams else 'Prints'} `{row['result']['title']}`:\n"
    yield from _key_rows(row["result"])
    yield f"\n{_failure(row['failure'])}\n"


def _option_rows(options: tuple[Option, ...]) -> Iterator[str]:
    yield "| Option | Value | Meaning |\n|---|---|---|"
    for option in options:
        instead = f" unless `--{option.instead}` is given" if option.instead else ""
        value = f"{VALUES[option.kind]}{f', required{instead}' if option.required else ''}"
        yield f"| `--{option.name}` | {value} | {_cell(option.help)} |"


def _key_rows(schema: Schema) -> Iterator[str]:
    yield "| Key | Type | Meaning |\n|---|---|---|"
    required = schema.get("required", ())
    for name, value in schema["properties"].items():
        key, kind = f"`{name}{'' if name in required else '?'}`", f"`{_cell(_type(value))}`"
        if found := re.search(r'"\$ref": ".*?/(\w+)"', json.dumps(value)):
            kind = f"[{kind}](#{found[1].lower()})"
        yield f"| {key} | {kind} | {_cell(value.get('description', ''))} |"


def _failure(schema: Schema) -> str:
    first, *others = schema.get("anyOf", [schema])
    own = ", ".join(f"`{key}`" for key in first["properties"])
    kinds = " or ".join(_linked(_type(part)) for part in (*first["allOf"], *others))
    return f"When it fails: {kinds}{f'; once it has begun, with what there is of {own}' if own else ''}."


def _linked(name: str) -> str:
    return f"[`{name}`](#{name.lower()})"


def _shape(name: str, shape: Schema) -> Iterator[str]:
    yield f"### {name}\n"
    if text := shape.get("description"):
        yield f"{text}\n"
    if "properties" in shape:
        yield from _key_rows(shape)
    else:
        yield " · ".join(f"`{value}`" for value in shape["enum"])
    yield ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    sys.exit(main())
