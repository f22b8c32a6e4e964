"""Writes the texts of one product in one language: one structured request, and at most one more for corrections.

The second question names the faults of the first answer and asks for the faulty texts alone. What is still against a
hard rule then, or says what nobody gave, is `bad_output`. The limits are data (`text_rules.py`), facts are checked in
`fact_check.py`; the languages and the photo are `listing.py`'s.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict, cast

from services.fal.call import Call
from services.fal.errors import BadOutput, Cancelled, DeadlineExceeded, FalError
from services.fal.results import Usage
from services.fal_service import FalClient
from services.shop import listing_prompts as prompts
from services.shop.casing import folded, slug
from services.shop.fact_check import FACTS, Known, checked_facts, said
from services.shop.languages import Language
from services.shop.listing_answer import Listed, read_listing
from services.shop.text_check import BY_WORD_LIST, FIELDS, LISTS, TextCheck, checked
from services.shop.text_rules import most_items

LISTING_TEMPERATURE = 0.7
MENDING_TEMPERATURE = 0.3

_BRAND_NAMES = frozenset(
    folded(name) for name in ("brand", "marka", "marke", "marque", "marca", "merk", "manufacturer")
)


class Ask(TypedDict):
    """One paid question to a model."""

    purpose: str
    """`analysis`, `listing` or `mending`."""
    language: str | None
    """The language that was asked for; null for an analysis."""
    request_id: str | None
    """fal's id of the job."""
    billable_units: float | None
    """fal's own count of what is billed."""
    usage: Usage | None
    """Tokens and cost, when the endpoint tells them."""


class Listing(TypedDict):
    """The texts of one product in one language; one set that fits every place."""

    language: str
    """The language of all texts."""
    title: str
    """The product's title."""
    bullets: list[str]
    """The selling points."""
    description: str
    """The description of the product."""
    seo_title: str
    """The page's title for search engines."""
    seo_description: str
    """The page's summary for search engines."""
    tags: list[str]
    """Search terms."""
    hashtags: list[str]
    """Each with its #."""
    captions: list[str]
    """For social media, without hashtags."""
    alt_text: str
    """What the photo shows, for who cannot see it."""
    slug: str
    """The title for a URL, in ASCII; empty for a script that is not Latin."""
    checks: list[TextCheck]
    """One per place, and `facts`."""
    mended: bool
    """Whether some texts were asked for a second time."""


class Incomplete(TypedDict):
    """A language whose texts cannot all be used; in the `partial` of an error."""

    language: str
    """The language of the texts."""
    texts: dict[str, Any]
    """Those without a hard fault."""
    faults: dict[str, list[str]]
    """By text: what is wrong with it."""
    raw_output: str
    """What the model wrote last."""


class Brief(NamedTuple):
    """What is asked for, checked."""

    languages: list[Language]
    places: list[str]
    tone: str | None
    words: int
    model: str | None
    day: datetime.date


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

    def __init__(self, client: FalClient, call: Call, product: Mapping[str, Any], brief: Brief) -> None:
        self._client = client
        self._call = call
        self._product = product
        self._brief = brief
        self._known = Known.of(" ".join(said(product)))
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
                f"The texts in {draft.language.name} still break rules after a second request. {' '.join(hard)[:1000]}",
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
        call = Call(self._call.check(), parent=self._call, part=f"{purpose}:{draft.language.code}")
        answer = self._client.within(call).any_llm_complete(
            question,
            system_prompt=prompts.COPYWRITER,
            model=self._brief.model,
            temperature=temperature,
            timeout=call.timeout_s,
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
    # The other way round: a class that only narrows another one has its error_type too.
    kinds = {kind.error_type: kind for kind in reversed(_kinds(FalError))}
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
