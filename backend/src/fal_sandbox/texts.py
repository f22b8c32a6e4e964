"""Scripted answers of the sandbox's language endpoints: stand-ins, always the same for the same question.

`answer` looks at what is asked (outside of any tags), then at the data (inside the tags) and the pictures:

- JSON by example or with named keys → JSON of that shape; values follow the product's colours and outline,
- a background prompt for a `<product>` and a `<style>` → one that keeps the style's own words,
- a product description in a language → two sentences in that language,
- anything about a picture → what it shows, anything else → a short reply; `sandbox:echo` → the prompt itself,
- a prompt that is wholly Turkish → all of this in Turkish.

What stands inside a tag is data and never changes what kind of answer is given. The sentences are in `phrases.py`.
"""

from __future__ import annotations

import json
import re
from itertools import cycle

from fal_sandbox import phrases, turkish
from fal_sandbox.json_shapes import Fixed, example_in, example_of
from fal_sandbox.phrases import plain, product_kind, tokens
from fal_sandbox.pictures import words
from fal_sandbox.pictures.colours import Seen, look
from fal_sandbox.pictures.cutout import picture_size
from fal_sandbox.pictures.words import word_set
from fal_sandbox.wire_types import Json

Images = list[tuple[str, bytes]]

ECHO = "sandbox:echo"
TAG = re.compile(r"<(\w+)>")
KEY = re.compile(r"[\"'`]([a-z][a-z0-9]*(?:_[a-z0-9]+)*)[\"'`]")
DESCRIBING = word_set(
    "description descriptions describe aciklama aciklamasi tanitim pitch copy beschreibung produktbeschreibung "
    "descriptif descripcion descrizione descricao beschrijving описание 説明"
)
WORDY = word_set(
    "tagline title headline caption captions bullet bullets text description slogan copy body summary subject intro "
    "baslik metin aciklama ozet"
)
"""Words of a key whose value is a sentence."""
SHORT = word_set("tag tags hashtag hashtags keyword keywords etiket etiketler")
"""Words of a key whose value is a word or two."""
MOST_SHORT_LETTERS = 20
MOST_STYLE_WORDS, MOST_PROMPT_WORDS = 30, 60


def answer(prompt: str, system_prompt: str | None, images: Images) -> str:
    """The sandbox's text for this prompt; `images` are (file name, bytes)."""
    asked, data = _split(prompt)
    if ECHO in asked:
        return prompt
    if "product" in data and "style" in data:
        return _background_prompt(_product(data["product"]), _text(data["style"]))
    if "language" in data:
        return _description(_language(_text(data["language"])), data.get("product", ""), images)
    language = _spoken(asked) or _spoken(system_prompt or "")
    local = language or ("tr" if turkish.is_turkish(asked) else "")
    for told in (asked, system_prompt or ""):
        if "json" in plain(told) and (example := _example(told)):
            return json.dumps(_filled(example, asked, images, local), ensure_ascii=False)
    if (tokens(asked) & DESCRIBING and not (images and not local)) or (language and not images):
        return _description(local or "en", data.get("product", asked), images)
    if local == "tr":
        return _seen_in_turkish(images) if images else turkish.reply(asked)
    return _seen(images) if images else _reply(asked)


def structured(prompt: str, system_prompt: str, images: Images, schema: Json) -> str:
    """A JSON object for this prompt: of the schema's shape, of the example's, or with the text as its answer."""
    asked = "\n".join(filter(None, (prompt, system_prompt)))
    local = _spoken(asked) or ("tr" if turkish.is_turkish(prompt) else "")
    example = example_of(schema) if isinstance(schema, dict) else _example(asked)
    if not example:
        example = {"answer": answer(prompt, system_prompt, images)}
        return json.dumps(example, ensure_ascii=False)
    return json.dumps(_filled(example, asked, images, local), ensure_ascii=False)


def _split(prompt: str) -> tuple[str, dict[str, str]]:
    """What is asked, without the tags, and what each tag holds; the first of two tags with one name counts.

    A JSON value is read to its end, so that a closing tag inside one of its strings closes nothing.
    """
    data: dict[str, str] = {}
    asked, position = "", 0
    while opening := TAG.search(prompt, position):
        closing = f"</{opening[1]}>"
        start, end = opening.end(), prompt.find(closing, opening.end())
        try:
            _, json_end = json.JSONDecoder().raw_decode(prompt, start)
        except (ValueError, RecursionError):
            json_end = end
        end = json_end if prompt.startswith(closing, json_end) else end
        if end < 0:
            asked, position = asked + prompt[position:start], start
            continue
        data.setdefault(opening[1], prompt[start:end])
        asked, position = f"{asked}{prompt[position : opening.start()]} ", end + len(closing)
    return asked + prompt[position:], data


def _text(tagged: str) -> str:
    """What a tag holds: a JSON string, or the bare text."""
    try:
        value = json.loads(tagged)
    except (ValueError, RecursionError):
        value = tagged
    return value if isinstance(value, str) else tagged


def _product(tagged: str) -> dict[str, str]:
    try:
        value = json.loads(tagged)
    except (ValueError, RecursionError):
        return {"main_product_type": tagged}
    if not isinstance(value, dict):
        return {}
    return {str(key): text for key, text in value.items() if isinstance(text, str)}


def _example(asked: str) -> Json:
    """The JSON that is asked for: the example that is given, else an object with the keys that are named."""
    if (example := example_in(asked)) is not None:
        return example
    quoted = KEY.findall(asked) or re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", asked)
    return dict.fromkeys(quoted, "")


def _filled(example: Json, asked: str, images: Images, language: str) -> Json:
    """The example with its texts replaced; lists stay lists, objects objects, numbers numbers."""
    name, photo = images[0] if images else ("", b"")
    kind = _kind(name, photo) if images else product_kind(re.sub(r"\{.*\}", "", asked, flags=re.DOTALL))
    known = _categories(kind, _look(photo).colours, language)
    about = asked if not images else kind
    said = cycle(re.findall(r"\S[^.!?。]*[.!?。]", _description(language or "en", about, images)))
    categories = (value for name, value in known.items() if not name.startswith("*"))
    words_or_two = cycle([value for value in categories if len(value) <= MOST_SHORT_LETTERS and "/" not in value])
    nested = isinstance(example, list) or any(isinstance(value, (dict, list)) for value in example.values())
    nothing = "Görünmüyor" if language == "tr" else "Not visible"

    def fill(value: Json, key: str, listed: bool = False) -> Json:
        if isinstance(value, dict):
            return {name: fill(below, name) for name, below in value.items()}
        if isinstance(value, list):
            return [fill(below, key, True) for below in (value or [""])]
        if isinstance(value, Fixed) or not isinstance(value, str):
            return value
        if "|" in value:
            return value.partition("|")[0].strip()
        if tokens(key.replace("_", " ")) & SHORT:
            return next(words_or_two)
        if (found := known.get(key) or _by_part(known, key)) and not listed:
            return found
        return next(said) if nested or tokens(key.replace("_", " ")) & WORDY else nothing

    return fill(example, "")


def _categories(kind: str, colours: list[str], language: str) -> dict[str, str]:
    """The values of known keys; those that begin with `*` are for keys that hold the word."""
    phrased = turkish if language == "tr" else phrases
    main, sub, audience, price, use, industry = phrased.CATEGORIES[kind]
    style, vibe = phrased.STYLES[_colour_mood(colours)]
    if language == "tr":
        colours = [turkish.COLOURS.get(colour, colour) for colour in colours]
    return {
        "main_product_type": main,
        "subcategory": sub,
        "target_audience": audience,
        "price_range": price,
        "use_case": use,
        "style_design": style,
        "season_occasion": "Tüm Yıl" if language == "tr" else "Year-Round",
        "industrial_type": industry,
        "vibe": vibe,
        "*colo": ", ".join(colours) or ("Görünmüyor" if language == "tr" else "Not visible"),
        "*renk": ", ".join(colours) or "Görünmüyor",
        "*type": main,
        "*category": main,
        "*kategori": main,
        "*style": style,
    }


def _by_part(known: dict[str, str], key: str) -> str:
    return next((value for part, value in known.items() if part.startswith("*") and part[1:] in key), "")


def _look(photo: bytes) -> Seen:
    try:
        return look(photo)
    except ValueError:
        return Seen([], "")


def _kind(name: str, photo: bytes) -> str:
    """What the picture shows; only where its outline does not tell, what its file is called."""
    return _look(photo).kind or product_kind(name)


def _kind_of_product(product: dict[str, str]) -> str:
    """The narrowest category counts first: "Drinkware" may be a mug, but "Bottles" are bottles."""
    narrow = product_kind(product.get("subcategory", "")) or product_kind(product.get("main_product_type", ""))
    return narrow or product_kind(" ".join(product.values()))


def _colour_mood(colours: list[str]) -> str:
    """The mood of the first colour that has one; white and grey count only when nothing else is there."""
    telling = [colour for colour in colours if colour not in ("white", "grey")] or colours or ["white"]
    return next(mood for mood, known in phrases.COLOUR_MOODS.items() if telling[0] in known)


def _word_mood(text: str) -> str:
    found = tokens(text)
    if found & phrases.ERGONOMIC:
        return "ergonomic"
    return next((mood for mood, known in phrases.MOOD_WORDS.items() if found & known), "warm")


def _background_prompt(product: dict[str, str], style: str) -> str:
    """The style in its own words, the place it means, and the product's mood."""
    kept = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*,?", style)[:MOST_STYLE_WORDS]
    place = words.read(" ".join(kept)).place
    mood = " ".join(re.findall(r"[A-Za-z]+", product.get("vibe", ""))[:3]).lower()
    opening = " ".join(kept).rstrip(",") or "Neutral backdrop"
    use = " ".join(re.findall(r"[A-Za-z]+", product.get("subcategory", ""))[:3]).lower()
    ending = f"; {mood or 'quiet'} mood that suits {use or 'the product'}, professional product photography"
    sentence = f"{opening[0].upper()}{opening[1:]}. {phrases.PLACES[place]}"
    spare = MOST_PROMPT_WORDS - len(sentence.split()) - len(ending.split())
    return f"{sentence}{ending if spare >= 0 else ''}."


def _language(name: str) -> str:
    """The code of a language named in a tag, or the name itself when there are no phrases for it."""
    found = tokens(name)
    for code, names in phrases.LANGUAGE_NAMES.items():
        if found & names:
            return code
    return " ".join(re.findall(r"[^\W\d_]+", name)[:3])[:40] or "en"


def _spoken(text: str) -> str:
    """The code of a language that running text names; two-letter codes are words there, not languages."""
    found = tokens(text)
    for code, names in phrases.LANGUAGE_NAMES.items():
        if found & names - {code}:
            return code
    return ""


def _description(language: str, about: str, images: Images) -> str:
    if language not in phrases.SENTENCES:
        return (
            f"This is a sample text from the sandbox, which has no phrases in {language}. "
            "The real service writes the description in that language."
        )
    product = _product(about) if about.lstrip().startswith("{") else {}
    kind = _kind_of_product(product) if product else product_kind(about)
    kind = kind or (_kind(*images[0]) if images else "")
    nouns = phrases.NOUNS[language].split("|")
    noun = nouns[list(phrases.PRODUCT_WORDS).index(kind)] if kind else nouns[-1]
    mood = _word_mood(" ".join(product.values()) or about)
    return phrases.SENTENCES[language][phrases.MOODS.index(mood)].format(noun)


def _seen(images: Images) -> str:
    name, photo = images[0]
    colours, _ = _look(photo)
    if not colours:
        return f"The file {name} is no picture that the sandbox can read."
    width, height = picture_size(photo)
    kind = _kind(name, photo)
    thing = f"a {kind}" if kind else "an object"
    more = f" {len(images) - 1} more came with it." if len(images) > 1 else ""
    listed = colours[0] if len(colours) == 1 else f"{', '.join(colours[:-1])} and {colours[-1]}"
    return f"The picture {name} ({width} by {height} pixels) shows {thing}, mainly {listed}.{more}"


def _seen_in_turkish(images: Images) -> str:
    name, photo = images[0]
    if not (colours := _look(photo).colours):
        return turkish.unreadable(name)
    return turkish.seen(name, _kind(name, photo), picture_size(photo), colours, len(images) - 1)


def _reply(asked: str) -> str:
    opening = " ".join(asked.split()[:8])
    return f"This is a scripted reply from the sandbox to: {opening or 'an empty prompt'}. No text was generated."
