"""The page of a batch: `index.html` in its folder, and `index.pages/` with what it shows, from `results.jsonl`.

It opens from the folder itself, where a browser lets a page load scripts, but fetch nothing. So the products stand in
scripts of PER_FILE (`index.pages/1.js`), which are loaded when somebody looks at them, and the keys and states of
KEYS_PER_FILE in one (`index.pages/keys-1.js`), which is loaded when somebody looks for some of them. A policy in the
head of the page holds it to the files beside it; `page.js` sets every text as text.

Written while the batch runs: each `update` reads only the lines that are new, and holds no more than a part of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import Template

from services.batch.page_entry import Entry, entry_of
from services.batch.results_file import FILE_NAME
from services.fal.downloads import replacing
from services.page_look import LOOK, SANDBOX, html_text

PAGE_NAME = "index.html"
PAGES_NAME = "index.pages"
"""No product's folder has such a name, since `keys.py` keeps it for the batch."""
PER_FILE = 50
"""Products on one screen, and in one script."""
KEYS_PER_FILE = 10_000
LETTERS = {"done": "d", "incomplete": "i", "failed": "f", "ambiguous": "a"}
"""The states in the scripts of keys, one letter a product."""
HERE = Path(__file__).parent


class Page:
    """The page of one folder."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._updating = threading.Lock()
        self._begin(None)

    def _begin(self, inode: int | None) -> None:
        self._inode = inode
        """Of results.jsonl: when it was made anew from the journal, so is the page."""
        self._read = 0
        """Bytes of results.jsonl that are on the page."""
        self._entries: list[Entry] = []
        """Of the last script, while it is not full."""
        self._keys: list[str] = []
        self._letters: list[str] = []
        """Of the last script of keys."""
        self._counts: Counter[str] = Counter()
        self._unreadable = 0
        self._cost_usd = 0.0
        self._without_cost = 0
        self._is_sandbox = False

    def update(self, *, total: int | None = None) -> Path:
        """Bring the page up to date with results.jsonl; `total`: how many products the batch has, when that is known.

        Returns the page's path. Raises OSError when it cannot be written; what was there stays.
        """
        with self._updating:
            if not self._read and self._is_current():
                return self._folder / PAGE_NAME
            return self._written(total)

    def _written(self, total: int | None) -> Path:
        (self._folder / PAGES_NAME).mkdir(exist_ok=True)
        for line in self._new_lines():
            self._add(line)
        if self._entries:
            self._write_entries()
        if self._keys:
            self._write_keys()
        return self._write_frame(total)

    def _is_current(self) -> bool:
        """Whether the page is later than the last line: a batch that has nothing to do does not write it again."""
        try:
            page, results = (os.stat(self._folder / name) for name in (PAGE_NAME, FILE_NAME))
        except FileNotFoundError:
            return False
        return page.st_mtime_ns > results.st_mtime_ns

    def _new_lines(self) -> Iterator[bytes]:
        try:
            results = open(self._folder / FILE_NAME, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return  # nothing has ended yet
        with results:
            if (inode := os.fstat(results.fileno()).st_ino) != self._inode:
                self._begin(inode)
            results.seek(self._read)
            for line in results:
                if not line.endswith(b"\n"):
                    return  # it is still being written
                self._read += len(line)
                yield line

    def _add(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            entry = entry_of(row)
        except (ValueError, RecursionError, AttributeError):
            self._unreadable += 1
            return
        self._counts[entry["state"]] += 1
        self._cost_usd += entry["cost_usd"] or 0.0
        self._without_cost += entry["cost_usd"] is None
        self._is_sandbox = self._is_sandbox or (row.get("result") or {}).get("sandbox") is True
        self._entries.append(entry)
        self._keys.append(entry["key"])
        self._letters.append(LETTERS[entry["state"]])
        if len(self._entries) == PER_FILE:
            self._write_entries()
            self._entries.clear()
        if len(self._keys) == KEYS_PER_FILE:
            self._write_keys()
            self._keys.clear()
            self._letters.clear()

    def _write_entries(self) -> None:
        self._write_script(str(_files(self._counts.total(), PER_FILE)), self._entries)

    def _write_keys(self) -> None:
        name = f"keys-{_files(self._counts.total(), KEYS_PER_FILE)}"
        self._write_script(name, {"states": "".join(self._letters), "keys": self._keys})

    def _write_script(self, name: str, data: object) -> None:
        # Escaped to ASCII, it is the same in every encoding that a server may claim for it.
        self._write(self._folder / PAGES_NAME / f"{name}.js", f"arrived({json.dumps(name)}, {json.dumps(data)});\n")

    def _write_frame(self, total: int | None) -> Path:
        count = self._counts.total()
        facts = {
            "written": round(time.time()),
            "count": count,
            "perFile": PER_FILE,
            "keyFiles": _files(count, KEYS_PER_FILE),
            "letters": LETTERS,
            "counts": dict(self._counts),
        }
        style, script = LOOK + _part("page.css"), _part("page.js")
        path = self._folder / PAGE_NAME
        text = Template(_part("page.html")).substitute(
            policy=_policy(style, script),
            style=style,
            script=script,
            # In a script element, "<" may begin its end.
            facts=json.dumps(facts).replace("<", "\\u003c"),
            title=html_text(self._folder.resolve().name),
            band=f'<aside class="band" aria-label="Sandbox"><p>{SANDBOX}</p></aside>\n' if self._is_sandbox else "",
            summary=self._summary(total),
        )
        self._write(path, text)
        return path

    def _summary(self, total: int | None) -> str:
        count = self._counts.total()
        parts = [f"{count:,} of {total:,} products" if total and total > count else _plural(count, "product")]
        spent = f"${self._cost_usd:,.2f}"
        if self._without_cost:
            spent = f"at least {spent}: the cost of {self._without_cost:,} is not known"
        parts.append(spent)
        if self._unreadable:
            parts.append(f"{_plural(self._unreadable, 'line')} of {FILE_NAME} cannot be read")
        return " · ".join(parts)

    def _write(self, path: Path, text: str) -> None:
        with replacing(path) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What the page may do: run and load what is in it and beside it. A folder that is opened as such is `file:`."""
    beside = "'self' file:"
    return (
        f"default-src 'none'; img-src {beside}; style-src '{_hash(style)}'; script-src '{_hash(script)}' {beside}; "
        "form-action 'none'; base-uri 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _part(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _files(count: int, per_file: int) -> int:
    return -(-count // per_file)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
