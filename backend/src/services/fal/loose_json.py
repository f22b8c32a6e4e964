"""Reads JSON, or nearly JSON, from the text of a language model.

It reads JSON, and mends on the way: trailing, doubled and missing commas; texts in single or typographic quotes;
unescaped quotes, line breaks and tabs in a text; Chinese colons and commas; names and texts without quotes; `//`, `#`
and `/* */` comments; None, True and undefined; unknown escapes; brackets that are closed in the wrong order or not at
all. What it leaves out is a text that is cut off, since nobody knows how it would have ended. Numbers and literals are
read as None: those who call ask for texts only.

The text is read once from its beginning to its end, and every look ahead or back is of a bounded length, so the work
grows with the length of the text alone, whatever it holds. What the values mean is decided in `categories.py`.
"""

import re
from functools import cache
from typing import Any, NamedTuple

MAX_CHARS = 200_000
"""Of a longer text the end is read: what a model says last is what counts."""
MAX_DEPTH = 64
"""What is nested deeper is rubbish, and reading begins anew inside it."""

_FENCE = "```"
_BLANK = r"\s{0,99}"
_COMMENT = r"(?://|\#|/\*)"
_QUOTED_NAME = (
    r"(?:\"(?:[^\"\\]|\\.){0,99}\"|'(?:[^'\\]|\\.){0,99}'"
    r"|[“”„«][^“”„«»\"]{0,99}[“”»\"]|[‘’‚`][^‘’‚`']{0,99}[‘’`'])"
)
_BARE_NAME = r"[^\W\d][\w /&.-]{0,63}"
_NAME = rf"(?:{_QUOTED_NAME}|{_BARE_NAME}){_BLANK}[:=：]"
_CLOSERS = {
    '"': r'\\.|["”]',
    "'": r"\\.|'",
    **dict.fromkeys("“”„«", r"\\.|[“”»\"]"),
    **dict.fromkeys("‘’‚`", r"\\.|[‘’`']"),
}
"""By the quote that a text begins with: what may end it."""

_START = rf"\{{{_BLANK}(?:{_NAME}|{_COMMENT})|\[{_BLANK}[\[{{]"
_NAME_HERE = rf"(?:({_QUOTED_NAME})|({_BARE_NAME})){_BLANK}[:=：]>?"
_CUT_NAME = rf"[\"'“”„«‘’‚`][^\"'“”„«»‘’‚`:：]{{0,99}}[\"'“”»‘’`]?{_BLANK}(?:\Z|```)"
_END_IN_OBJECT = (
    rf"{_BLANK}(?:[}}\]]|\Z|{_COMMENT}|```|{_NAME}"
    rf"|[,;，][\s,;，.…]{{0,99}}(?:[}}\]]|\Z|{_COMMENT}|```|{_NAME}|{_CUT_NAME}))"
)
_END_IN_LIST = rf"{_BLANK}(?:[}}\]]|\Z|{_COMMENT}|```|[,;，]|\n{_BLANK}[\"'“‘])"
"""What stands behind a quote that ends a text; any other quote belongs to the text."""
_NEXT_NAME = rf"{_QUOTED_NAME}{_BLANK}[:：]"
_BEFORE_NAME = r"[,{\n][ \t\r\n]{0,99}\Z"
_BARE_TEXT = r"[^,;，{}\[\]\n\"“”]+"
_FILLER = r"[^{}\[\]\"'“”„«‘’‚`/#\w]+"
_WORD = r"\w+"
_LITERAL = r"(?i:null|none|nil|undefined|nan|true|false|[-+]?[\d.]+(?:e[-+]?\d+)?)\Z"
_ESCAPE = r"\\(?:u([0-9a-fA-F]{4})|(.))"
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@cache
def _pattern(source: str) -> re.Pattern[str]:
    """Compiled when it is needed first: all of them take 4 ms, and most commands read no answer that needs mending."""
    return re.compile(source, re.DOTALL)


class Found(NamedTuple):
    """An outermost object or list of a text."""

    value: Any
    """Of dicts, lists, texts, and None for everything else."""
    complete: bool
    """Whether its end was found; not so for what stands inside another one that has no end."""


def read_all(text: str) -> list[Found]:
    """Every outermost object in the last MAX_CHARS of `text`, and every list of objects or lists, in order."""
    reader = _Reader(text[-MAX_CHARS:])
    reader.read()
    return reader.found


def unescaped(text: str) -> str:
    r"""`text` with its JSON escapes undone: `\"` is a quote, `\n` a line break."""
    if "\\" not in text:
        return text
    plain = _pattern(_ESCAPE).sub(lambda m: chr(int(m[1], 16)) if m[1] else _ESCAPED.get(m[2], m[2]), text)
    # Joins two surrogates into the letter that they stand for.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


class _Open:
    """An object or a list whose end has not been read yet."""

    def __init__(self, value: dict[str, Any] | list[Any]) -> None:
        self.value = value
        self.name: str | None = None
        """In an object: the name whose value comes next."""
        self.ended: list[Any] = []
        """The objects and lists directly inside whose ends were found."""

    def add(self, value: Any) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.name is not None:
            self.value[self.name], self.name = value, None

    @property
    def wants_name(self) -> bool:
        return isinstance(self.value, dict) and self.name is None


class _Reader:
    """Goes through a text once, from the place `at`."""

    def __init__(self, text: str) -> None:
        self.found: list[Found] = []
        self._text = text
        self._at = 0
        self._stack: list[_Open] = []
        self._objects = 0
        """How many of the stack are objects: a closing bracket without an open one is passed over at once."""

    def read(self) -> None:
        while self._at < len(self._text):
            if self._stack:
                self._step()
            elif start := _pattern(_START).search(self._text, self._at):
                self._at = start.start()
                self._open()
            else:
                break
        self._give_up()

    def _step(self) -> None:
        """Read one token inside an object or a list."""
        char = self._text[self._at]
        if char in "}]":
            self._close(char)
        elif char in "/#" and (end := self._comment_end()):
            self._at = end
        elif self._stack[-1].wants_name:
            self._read_name(char)
        elif char in "{[":
            self._open()
        elif self._text.startswith(_FENCE, self._at):
            self._at += len(_FENCE)
        elif char in _CLOSERS:
            self._read_text(_pattern(_CLOSERS[char]))
        else:
            self._read_bare()

    def _open(self) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self._give_up()
            return
        is_object = self._text[self._at] == "{"
        self._stack.append(_Open({} if is_object else []))
        self._objects += is_object
        self._at += 1

    def _close(self, char: str) -> None:
        """End what `char` closes, and all that was left open inside it."""
        self._at += 1
        kind = dict if char == "}" else list
        if not (self._objects if char == "}" else len(self._stack) - self._objects):
            return
        while True:
            ended = self._stack.pop()
            self._objects -= isinstance(ended.value, dict)
            if self._stack:
                self._stack[-1].add(ended.value)
                self._stack[-1].ended.append(ended.value)
            else:
                self.found.append(Found(ended.value, isinstance(ended.value, kind)))
            if isinstance(ended.value, kind):
                return

    def _give_up(self) -> None:
        """Leave what is open as it is: its end is missing. What ended inside it comes before it, as a finding too."""
        self.found.extend(Found(value, complete=False) for outer in self._stack for value in outer.ended)
        while len(self._stack) > 1:
            inner = self._stack.pop()
            self._stack[-1].add(inner.value)
        if self._stack:
            self.found.append(Found(self._stack.pop().value, complete=False))
        self._objects = 0

    def _comment_end(self) -> int | None:
        if self._text.startswith("/*", self._at):
            end = self._text.find("*/", self._at + 2)
            return len(self._text) if end < 0 else end + 2
        if self._text.startswith(("//", "#"), self._at):
            end = self._text.find("\n", self._at)
            return len(self._text) if end < 0 else end
        return None

    def _read_name(self, char: str) -> None:
        if char == "{":
            # No value is wanted here: the object before was a draft, or an example that was never ended.
            self._give_up()
        elif name := _pattern(_NAME_HERE).match(self._text, self._at):
            self._stack[-1].name = unescaped(name[1][1:-1]) if name[1] else name[2].strip()
            self._at = name.end()
        else:
            self._pass_over()

    def _pass_over(self) -> None:
        junk = _pattern(_FILLER).match(self._text, self._at) or _pattern(_WORD).match(self._text, self._at)
        self._at = junk.end() if junk else self._at + 1

    def _read_text(self, closers: re.Pattern[str]) -> None:
        begin = self._at + 1
        ends = _pattern(_END_IN_OBJECT if isinstance(self._stack[-1].value, dict) else _END_IN_LIST)
        for quote in closers.finditer(self._text, begin):
            if quote[0][0] == "\\":
                continue
            if ends.match(self._text, quote.end()):
                self._at = quote.end()
                self._stack[-1].add(unescaped(self._text[begin : quote.start()]))
                return
            if self._begins_name(quote.start(), begin):
                return
        self._at = len(self._text)

    def _begins_name(self, quote_at: int, begin: int) -> bool:
        """Whether the next name, or another object, begins at this quote: then the text before has no end."""
        before = _pattern(_BEFORE_NAME).search(self._text, max(begin, quote_at - 99), quote_at)
        if before is None or not _pattern(_NEXT_NAME).match(self._text, quote_at):
            return False
        self._at = before.start()
        self._stack[-1].add(None)
        return True

    def _read_bare(self) -> None:
        """A literal, or a text without quotes, up to the end of its line."""
        char = self._text[self._at]
        if char in ",;，":
            if isinstance(self._stack[-1].value, dict):
                self._stack[-1].add(None)
            self._at += 1
        elif char.isspace() or char in ":=：>" or not (bare := _pattern(_BARE_TEXT).match(self._text, self._at)):
            self._at += 1
        else:
            self._at = bare.end()
            if self._text.startswith(tuple('"“”'), self._at):
                return  # a mark of some language before its text
            words = bare[0].strip()
            is_cut = self._at == len(self._text)
            self._stack[-1].add(None if is_cut or _pattern(_LITERAL).match(words) else words)
