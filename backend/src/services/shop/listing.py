"""From what is known of a product to texts that its places take, in one language or several.

One structured question per language, and at most one more that names the faults of the first answer and asks for the
faulty texts alone. What is still against a hard rule then, or says what nobody gave, is `bad_output`; the good texts
are in its `partial`. The limits are data (`text_rules.py`), facts are checked in `fact_check.py`.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypedDict, cast

from services.fal import checks
from services.fal.call import current_call
from services.fal.categories import UNKNOWN
from services.fal.errors import BadOutput, Cancelled, DeadlineExceeded, FalError, InvalidInput
from services.fal.parallel import parallel
from services.fal.results import Usage
from services.fal_service import FalClient
from services.shop import listing_prompts as prompts
from services.shop.casing import folded, slug
from services.shop.fact_check import FACTS, Known, checked_facts
from services.shop.languages import Language, languages_named
from services.shop.listing_answer import Listed, read_listing
from services.shop.places import places_named
from services.shop.text_check import BY_WORD_LIST, FIELDS, LISTS, TextCheck, checked
from services.shop.text_rules import most_items

LISTING_MODEL = "google/gemini-2.5-flash"
LISTING_TEMPERATURE = 0.7
MENDING_TEMPERATURE = 0.3
LENGTH_WORDS = (10, 2000)
"""The least and the most that `length` may be."""
MAX_FACTS_CHARS = 20_000
"""Of all that is known of a product, as JSON."""
MAX_NUMBER = 10**15
"""Of facts: huge integers cannot be written out, and infinity and NaN are none."""

_BRAND_NAMES = frozenset(
    folded(name) for name in ("brand", "marka", "marke", "marque", "marca", "merk", "manufacturer")
)


class Ask(TypedDict):
    """One paid question to a model."""

    purpose: str
    """`analysis`, `listing` or `mending`."""
    language: str | None
    request_id: str | None
    billable_units: float | None
    usage: Usage | None


class Listing(TypedDict):
    """The texts of one product in one language; one set that fits every place."""

    language: str
    title: str
    bullets: list[str]
    description: str
    seo_title: str
    seo_description: str
    tags: list[str]
    """Search terms."""
    hashtags: list[str]
    """Each with its #."""
    captions: list[str]
    """For social media, without hashtags."""
    alt_text: str
    slug: str
    """The title for a URL, in ASCII; empty for a script that is not Latin."""
    checks: list[TextCheck]
    """One per place, and `facts`."""
    mended: bool
    """Whether some texts were asked for a second time."""


class Incomplete(TypedDict):
    """A language whose texts cannot all be used; in the `partial` of an error."""

    language: str
    texts: dict[str, Any]
    """Those without a hard fault."""
    faults: dict[str, list[str]]
    """By text: what is wrong with it."""
    raw_output: str
    """What the model wrote last."""


class ListingResult(TypedDict):
    """Of `Shop.listing`."""

    image_url: str | None
    """The photo, when there was one."""
    categories: Mapping[str, str]
    places: list[str]
    listings: list[Listing]
    """One per language, in their order."""
    asks: list[Ask]
    """What was paid for."""


class Brief(NamedTuple):
    """What is asked for, checked."""

    languages: list[Language]
    places: list[str]
    tone: str | None
    words: int
    model: str
    day: datetime.date


class Source(NamedTuple):
    """What the texts are written from, checked."""

    categories: dict[str, str] | None
    """None when they are still to be read from the photo."""
    photo: str | os.PathLike[str] | None
    known: dict[str, Any]
    """Title and facts."""


class Fault(NamedTuple):
    """What is wrong with one text."""

    field: str
    said: str
    hard: bool


@dataclass
class Draft:
    """The texts of one language as far as they are."""

    language: Language
    texts: Listed = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    checks: list[TextCheck] = field(default_factory=list)
    raw_output: str = ""
    mended: bool = False
    asks: list[Ask] = field(default_factory=list)

    def faults_of(self, name: str, *, hard: bool = False) -> list[str]:
        return [fault.said for fault in self.faults if fault.field == name and (fault.hard or not hard)]

    def badness(self, name: str) -> tuple[int, int]:
        """For comparing two drafts of a text: a missing one is worst, then hard faults count, then all."""
        if name not in self.texts:
            return (len(self.faults) + 1, 0)
        return (len(self.faults_of(name, hard=True)), len(self.faults_of(name)))

    def as_listing(self) -> Listing:
        listing: dict[str, Any] = {
            "language": self.language.name,
            **{name: self.texts[name] for name in FIELDS},
            "slug": slug(str(self.texts["title"]), self.language.code),
            "checks": self.checks,
            "mended": self.mended,
        }
        return cast("Listing", listing)

    def as_incomplete(self) -> Incomplete:
        bad = {name: said for name in FIELDS if (said := self.faults_of(name, hard=True))}
        return {
            "language": self.language.name,
            "texts": {name: value for name, value in self.texts.items() if name not in bad},
            "faults": bad,
            "raw_output": self.raw_output,
        }


class Writer:
    """Writes the listing of one product."""

    def __init__(self, client: FalClient, product: Mapping[str, Any], brief: Brief) -> None:
        self._client = client
        self._product = product
        self._brief = brief
        self._known = Known.of(" ".join(_said(product)))
        self._brands = _brands(product)

    def write(self, draft: Draft) -> None:
        """Fill `draft`. Raises BadOutput when a hard fault stays, else what asking raises."""
        brief = self._brief
        question = prompts.listing(self._product, draft.language, brief.tone, brief.words, brief.places, brief.day)
        draft.texts = self._ask(question, draft, "listing", LISTING_TEMPERATURE)
        self._check(draft)
        if draft.faults:
            self._mend(draft)
        if hard := [f"{fault.field}: {fault.said}" for fault in draft.faults if fault.hard]:
            raise BadOutput(
                f"The texts in {draft.language.name} break rules, also when asked again. {' '.join(hard)[:1000]}",
                request_id=draft.asks[-1]["request_id"],
                hint="Try again, use another model, or give the facts that are missing.",
            )

    def _mend(self, draft: Draft) -> None:
        """Ask for the faulty texts once more, and take each that is better than the one before."""
        brief = self._brief
        faults = {name: said for name in FIELDS if (said := draft.faults_of(name))}
        texts = {name: draft.texts[name] for name in faults if name in draft.texts}
        question = prompts.mending(
            self._product, draft.language, brief.tone, brief.words, brief.places, brief.day, texts, faults
        )
        try:
            again = self._ask(question, draft, "mending", MENDING_TEMPERATURE)
        except (Cancelled, DeadlineExceeded):
            raise
        except FalError:
            if any(fault.hard for fault in draft.faults):
                raise
            # Only advice is not followed: the texts are usable, and paid for.
            return
        new = Draft(draft.language, {**draft.texts, **{name: again[name] for name in faults if name in again}})
        self._check(new)
        better = {name: new.texts[name] for name in faults if new.badness(name) < draft.badness(name)}
        draft.texts, draft.mended = {**draft.texts, **better}, True
        self._check(draft)

    def _ask(self, question: str, draft: Draft, purpose: str, temperature: float) -> Listed:
        answer = self._client.any_llm_complete(
            question,
            system_prompt=prompts.COPYWRITER,
            model=self._brief.model,
            temperature=temperature,
            timeout=current_call().check(),
        )
        raise_reported(answer)
        draft.asks.append(ask_of(answer, purpose, draft.language.name))
        draft.raw_output = answer["output"]
        return self._trimmed(read_listing(answer["output"], draft.language.code, self._brands))

    def _trimmed(self, texts: Listed) -> Listed:
        """`texts` with no list longer than its places take: what is most important was asked for first."""
        most = {name: most_items(name, self._brief.places, self._brief.day) for name in LISTS}
        return {name: value[: most[name]] if name in LISTS else value for name, value in texts.items()}

    def _check(self, draft: Draft) -> None:
        brief = self._brief
        draft.checks = [checked(draft.texts, place, draft.language, brief.day) for place in brief.places]
        draft.checks.append(checked_facts(draft.texts, self._known, draft.language, brief.day))
        draft.faults = [*_missing(draft.texts), *_faults(draft.checks)]


def _missing(texts: Listed) -> list[Fault]:
    return [
        Fault(name, f"It is missing; {'a list of texts' if name in LISTS else 'a text'} is asked.", True)
        for name in FIELDS
        if name not in texts
    ]


def _faults(found: Sequence[TextCheck]) -> list[Fault]:
    """What the model is asked to mend: broken rules and limits, also those of advice, but no warning of a word list."""
    faults = []
    for check in found:
        for rule in check["rules"]:
            warns = rule["verdict"] == "warn" and check["place"] != FACTS and rule["rule"] not in BY_WORD_LIST
            if rule["verdict"] == "fail" or warns:
                said = rule["reason"] if check["place"] == FACTS else f"{rule['reason']} ({check['place']})"
                faults.append(Fault(rule["field"], said, rule["verdict"] == "fail"))
    return faults


def brief(
    places: str | Sequence[str] | None, languages: str | Sequence[str], tone: str | None, length: int, model: str | None
) -> Brief:
    """Raises InvalidInput for what cannot be asked."""
    least, most = LENGTH_WORDS
    if not isinstance(length, int) or isinstance(length, bool) or not least <= length <= most:
        raise InvalidInput(f"length must be a whole number of words from {least} to {most:,}, not {length!r}.")
    return Brief(
        languages_named(languages),
        [place.name for place in places_named(places)],
        checks.optional_text(tone, "tone"),
        length,
        LISTING_MODEL if model is None else checks.text(model, "model"),
        datetime.date.today(),
    )


def source(product: object, title: str | None, facts: object) -> Source:
    """Raises InvalidInput for what cannot be written about: nothing is sent before."""
    known: dict[str, Any] = {}
    if title is not None:
        known["title"] = checks.text(title, "title")
    if facts is not None:
        known["facts"] = _facts(facts)
    if len(json.dumps(known, ensure_ascii=False)) > MAX_FACTS_CHARS:
        raise InvalidInput(f"title and facts have more than {MAX_FACTS_CHARS:,} characters. Shorten them.")
    if isinstance(product, Mapping):
        categories = checks.categories(product)
        if not (_told(categories) or known):
            raise InvalidInput("Nothing is known of the product. Give its categories, a title or facts.")
        return Source(categories, None, known)
    if isinstance(product, str) and product.lower().startswith(("http://", "https://", "data:")):
        return Source(None, checks.image_url(product, "product"), known)
    if not isinstance(product, str | os.PathLike):
        raise InvalidInput("product must be categories (an object of texts), or the path or the URL of a photo.")
    checks.local_image(product, "product")
    return Source(None, product, known)


def _told(categories: Mapping[str, str]) -> dict[str, str]:
    """The categories that say something."""
    return {name: value for name, value in categories.items() if value.strip() and value != UNKNOWN}


def written(client: FalClient, source: Source, brief: Brief) -> ListingResult:
    """The listings in all languages, within the current call."""
    made: ListingResult = {
        "image_url": None,
        "categories": source.categories or {},
        "places": brief.places,
        "listings": [],
        "asks": [],
    }
    try:
        if source.photo is not None:
            _analyse(client, source.photo, made)
        _write_all(client, {"categories": _told(made["categories"]), **source.known}, brief, made)
    except FalError as error:
        error.partial = {**error.partial, **made}
        raise
    return made


def _analyse(client: FalClient, photo: str | os.PathLike[str], made: ListingResult) -> None:
    is_url = isinstance(photo, str) and photo.lower().startswith(("http://", "https://", "data:"))
    url = str(photo) if is_url else client.upload_file(photo, timeout=current_call().check())
    made["image_url"] = url
    answer = client.analyze_product_image(url, timeout=current_call().check())
    raise_reported(answer)
    made["categories"] = cast("Mapping[str, str]", answer["categories"])
    made["asks"].append(ask_of(answer, "analysis"))


def _write_all(client: FalClient, product: Mapping[str, Any], brief: Brief, made: ListingResult) -> None:
    """Every language beside the others. One that fails stops none: all are paid for."""
    writer = Writer(client, product, brief)
    drafts = [Draft(language) for language in brief.languages]
    failed: list[tuple[Draft, FalError]] = []
    try:
        with parallel() as tasks:
            started = [(draft, tasks.start(partial(writer.write, draft))) for draft in drafts]
            for draft, task in started:
                try:
                    task.result()
                    made["listings"].append(draft.as_listing())
                except FalError as error:
                    failed.append((draft, error))
    finally:
        made["asks"] += [ask for draft in drafts for ask in draft.asks]
    if failed:
        first = failed[0][1]
        first.partial["incomplete"] = [draft.as_incomplete() for draft, _ in failed]
        raise first


def _facts(facts: object) -> dict[str, Any]:
    """Facts as names and values: texts, numbers, true or false, or lists of them."""
    if not isinstance(facts, Mapping) or not facts:
        raise InvalidInput(
            'facts must be an object that is not empty, such as {"material": "ceramic", "size": "350 ml"}.'
        )
    return {checks.text(name, "a fact's name"): _fact(name, value) for name, value in facts.items()}


def _fact(name: str, value: object) -> Any:
    if isinstance(value, str):
        return checks.text(value, f"facts[{name!r}]")
    if isinstance(value, bool | int | float) and -MAX_NUMBER < value < MAX_NUMBER:
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes) and _are_plain(value):
        return [_fact(name, item) for item in value]
    raise InvalidInput(f"facts[{name!r}] must be a text, a number, true or false, or a list of them.")


def _are_plain(items: Sequence[object]) -> bool:
    return bool(items) and all(isinstance(item, str | bool | int | float) for item in items)


def _said(value: Any) -> Iterator[str]:
    """Every name and value of what is known of a product."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _said(item)
    elif isinstance(value, list):
        for item in value:
            yield from _said(item)
    else:
        yield str(value)


def _brands(product: Mapping[str, Any]) -> list[str]:
    """Names that are never cased: the brand, and its words."""
    facts = product.get("facts", {})
    named = [value for name, value in facts.items() if folded(name) in _BRAND_NAMES and isinstance(value, str)]
    return [word for value in named for word in (value, *value.split())]


def ask_of(answer: Mapping[str, Any], purpose: str, language: str | None = None) -> Ask:
    return {
        "purpose": purpose,
        "language": language,
        "request_id": answer.get("request_id"),
        "billable_units": answer.get("billable_units"),
        "usage": answer.get("usage"),
    }


def raise_reported(answer: Mapping[str, Any]) -> None:
    """Raise the error that a method of the client reported in its result, if it did."""
    said = answer["error"]
    if said is None:
        return
    kinds = {kind.error_type: kind for kind in _kinds(FalError)}
    request_id, hint = answer.get("request_id"), answer.get("hint")
    # The reported sentence ends with both, and the error adds them again.
    for end in (hint, request_id and f"Request id: {request_id}."):
        said = said.removesuffix(end).rstrip() if end else said
    raise kinds.get(answer.get("error_type", ""), FalError)(
        said,
        status_code=answer.get("status_code"),
        request_id=request_id,
        retryable=answer.get("retryable"),
        hint=hint,
        detail=answer.get("detail"),
        partial={name: answer[name] for name in ("raw_output", "raw") if answer.get(name)},
    )


def _kinds(kind: type[FalError]) -> list[type[FalError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]
