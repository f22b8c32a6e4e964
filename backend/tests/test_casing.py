"""Turkish letters, hashtags and slugs. Node's ICU is the judge of upper and lower case."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shop.casing import capitalised, folded, hashtag, lower, slug, turkish_lower, turkish_upper, upper

ICU = """
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"))
const cased = (text) => [text.toLocaleLowerCase("tr"), text.toLocaleUpperCase("tr")]
console.log(JSON.stringify(texts.map((text) => cased(text.normalize("NFC")))))
"""


def icu_s(node: str, texts: list[str]) -> list[list[str]]:
    ran = subprocess.run([node, "-e", ICU], input=json.dumps(texts), capture_output=True, text=True, check=True)
    found: list[list[str]] = json.loads(ran.stdout)
    return found


def is_known(text: str) -> bool:
    """Whether this Python's Unicode has all of it: ICU's may be newer."""
    return all(unicodedata.category(char) != "Cn" for char in text)


@pytest.mark.nightly
def test_every_letter_is_cased_as_icu_does_in_turkish(node: str) -> None:
    chars = [chr(code) for code in range(sys.maxunicode + 1)]
    chars = [char for char in chars if unicodedata.category(char) not in ("Cn", "Cs", "Co")]
    different = [
        (char, ours, theirs)
        for char, theirs in zip(chars, icu_s(node, chars), strict=True)
        if (ours := [turkish_lower(char), turkish_upper(char)]) != theirs and is_known("".join(theirs))
    ]
    assert len(chars) > 140_000
    assert different == []


def test_words_with_marks_are_cased_as_icu_does_in_turkish(node: str) -> None:
    parts = ["I", "İ", "i", "ı", "I\u0307", "i\u0307", "I\u0323\u0307", "Ş", "ğ", "A", "â", "ß", "ŉ", "ǆ", "-", "'"]
    words = [one + two + three for one in parts for two in parts for three in parts]
    assert [[turkish_lower(word), turkish_upper(word)] for word in words] == icu_s(node, words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IŞIK", "ışık"),
        ("İSTANBUL", "istanbul"),
        ("ISPARTA GÜLÜ", "ısparta gülü"),
        ("KIYAFET", "kıyafet"),
        ("SPORCULARI", "sporcuları"),
        ("I\u0307zmir", "izmir"),
        ("TITANIUM", "titanium"),
        ("TAXİ", "taxi"),
        ("TITANIUM IŞIK", "titanium ışık"),
        ("PREMIUM SLIM WIFI", "premium slim wifi"),
        ("KERAMIKA IŞIK", "keramika ışık"),
    ],
)
def test_turkish_lower_case_leaves_brands_and_latin_words_latin(text: str, expected: str) -> None:
    assert lower(text, "tr", keep=["Keramika"]) == expected


def test_turkish_upper_case_leaves_brands_latin() -> None:
    assert upper("ışıklı iphone kılıfı", "tr") == "IŞIKLI IPHONE KILIFI"
    assert upper("istanbul", "tr") == "İSTANBUL"
    assert upper("mavi vitra", "tr", keep=["Vitra"]) == "MAVİ VITRA"


def test_other_languages_are_cased_as_python_does() -> None:
    assert lower("TITLE", "en") == "title"
    assert upper("straße", "de") == "STRASSE"


@given(st.text(st.sampled_from("ıIiİşŞğĞçÇöÖüÜaAbB '-"), max_size=20))
def test_case_never_decides_whether_two_turkish_texts_are_the_same(text: str) -> None:
    assert folded(turkish_lower(text)) == folded(turkish_upper(text)) == folded(text)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("anneler günü", "tr", "#AnnelerGünü"),
        ("istanbul hediyelik", "tr", "#İstanbulHediyelik"),
        ("ısı cam", "tr", "#IsıCam"),
        ("anneler günü'ne özel", "tr", "#AnnelerGününeÖzel"),
        ("#e-ticaret", "tr", "#ETicaret"),
        ("kahve ☕ keyfi", "tr", "#KahveKeyfi"),
        ("iphone kılıfı", "tr", "#iphoneKılıfı"),
        ("#evdekor", "tr", "#evdekor"),
        ("g\u0306u\u0308n", "tr", "#ğün"),
        ("x\u0302y", "en", "#xy"),
        ("home_office 2", "en", "#Home_office2"),
        ("ideas", "en", "#ideas"),
        ("हिन्दी शब्द", "hi", "#हिन्दीशब्द"),
        ("2026", "en", ""),
        ("☕", "en", ""),
    ],
)
def test_a_hashtag_is_one_run_of_letters(text: str, language: str, expected: str) -> None:
    assert hashtag(text, language, keep=["iphone"]) == expected


@given(st.text(max_size=30), st.sampled_from(["tr", "en", "de"]))
def test_a_hashtag_of_a_hashtag_is_itself(text: str, language: str) -> None:
    tag = hashtag(text, language)
    assert hashtag(tag, language) == tag


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Işıklı İstanbul Çantası — 3'lü Ğ", "tr", "isikli-istanbul-cantasi-3lu-g"),
        ("ISPARTA", "tr", "isparta"),
        ("Größe: 2 Stück, weiß", "de", "groesse-2-stueck-weiss"),
        ("Größe", "en", "grosse"),
        ("Łódź Œuvre Ørsted", "pl", "lodz-oeuvre-orsted"),
        ("日本", "ja", ""),
    ],
)
def test_a_slug_is_ascii(text: str, language: str, expected: str) -> None:
    assert slug(text, language) == expected


@given(st.text(st.sampled_from("ıİşa b-ß_é日👩3'"), max_size=300), st.sampled_from(["tr", "de", ""]))
def test_a_slug_has_small_letters_digits_and_single_hyphens(text: str, language: str) -> None:
    found = slug(text, language)
    assert len(found) <= 80
    assert found == "" or all(part.isascii() and part.isalnum() and part == part.lower() for part in found.split("-"))


def test_a_word_gets_its_capital_in_its_language() -> None:
    assert capitalised("istanbul", "tr") == "İstanbul"
    assert capitalised("istanbul", "en") == "Istanbul"
    assert capitalised("iphone", "tr") == "Iphone"
    assert capitalised("iPhone", "tr", keep=["iphone"]) == "iPhone"
