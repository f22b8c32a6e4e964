"""Texts against the places' limits: every rule at its limit and one beyond, in its own unit, on its own days."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from services.fal.errors import InvalidInput
from services.shop import check_text, cut_text
from services.shop.places import OFFICIAL, PLACES
from services.shop.text_check import CHECKED_FIELDS, MEASURES, TextRuleResult
from services.shop.text_rules import TEXT_RULES
from services.shop.text_units import Unit, length

TODAY = datetime.date(2026, 11, 26)
FAMILY = "👩‍👩‍👧 anne"


def only(texts: Any, place: str, rule: str, language: str = "English", on: datetime.date = TODAY) -> TextRuleResult:
    """The result of the strictest rule with this name for a field that was given."""
    rules = check_text(texts, place, language=language, on=on)["rules"]
    order = ("fail", "warn", "pass")
    found = [row for row in rules if row["rule"] == rule and row["field"] in texts]
    return min(found, key=lambda row: order.index(row["verdict"]))


# The rules as data


def test_only_an_official_source_makes_a_rule_hard() -> None:
    for place, rules in TEXT_RULES.items():
        for rule in rules:
            assert place in PLACES
            assert rule.field in CHECKED_FIELDS
            assert rule.severity != "hard" or rule.sureness in OFFICIAL, (place, rule)
            assert rule.severity != "advice" or rule.sureness in ("T", "C") or rule.measure == "promotion"
            assert rule.severity == "unknown" or (rule.source and rule.measure in MEASURES)
            assert (rule.severity == "unknown") == bool(rule.why_not)


def test_the_places_of_which_no_limit_was_found_say_not_checked() -> None:
    for place in ("ebay", "walmart", "zalando", "bol"):
        check = check_text({"title": "x" * 5000}, place)
        assert check["verdict"] == "not_checked"
        assert {row["verdict"] for row in check["rules"]} == {"not_checked"}


# Lengths


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        (FAMILY, "code_points", 10),
        (FAMILY, "utf16_units", 13),
        (FAMILY, "bytes", 23),
        (FAMILY, "graphemes", 6),
        ("", "graphemes", 0),
        ("ğ", "bytes", 2),
        ("g\u0306", "graphemes", 1),
    ],
)
def test_lengths_in_four_units(text: str, unit: Unit, expected: int) -> None:
    assert length(text, unit) == expected


@pytest.mark.parametrize(
    ("place", "field", "most", "beyond", "unit"),
    [
        ("amazon", "title", 75, "fail", "code_points"),
        ("amazon", "title_differentiation", 125, "fail", "code_points"),
        ("amazon", "alt_text", 100, "fail", "code_points"),
        ("amazon", "description", 2000, "warn", "code_points"),
        ("google", "title", 150, "fail", "code_points"),
        ("google", "description", 5000, "fail", "code_points"),
        ("etsy", "title", 140, "warn", "code_points"),
        ("etsy", "alt_text", 500, "warn", "code_points"),
        ("trendyol", "title", 100, "fail", "code_points"),
        ("trendyol", "description", 30_000, "fail", "code_points"),
        ("hepsiburada", "title", 100, "warn", "code_points"),
        ("n11", "title", 65, "warn", "code_points"),
        ("allegro", "title", 75, "fail", "code_points"),
        ("meta", "title", 200, "warn", "code_points"),
        ("meta", "description", 9999, "warn", "code_points"),
        ("shopify", "seo_title", 70, "warn", "code_points"),
        ("shopify", "seo_description", 160, "warn", "code_points"),
        ("shopify", "alt_text", 512, "warn", "code_points"),
        ("tiktok", "title", 90, "fail", "utf16_units"),
        ("tiktok", "description", 4000, "fail", "utf16_units"),
    ],
)
def test_a_text_at_its_limit_passes_and_one_more_does_not(
    place: str, field: str, most: int, beyond: str, unit: str
) -> None:
    words = "ab cd ef gh "
    text = (words * (most // 12 + 2))[: most - 1] + "z"
    at = only({field: text}, place, "length")
    assert (at["verdict"], at["measured"], at["unit"]) == ("pass", most, unit)
    over = only({field: text + "z"}, place, "length")
    assert (over["verdict"], over["measured"]) == (beyond, most + 1)
    assert over["source"]
    assert over["read_on"]


@pytest.mark.parametrize(("place", "least"), [("n11", 15), ("allegro", 12)])
def test_a_title_can_be_too_short(place: str, least: int) -> None:
    title = ("ab cd ef gh ij kl"[: least - 1]) + "z"
    assert only({"title": title}, place, "length")["verdict"] == "pass"
    assert only({"title": title[1:]}, place, "length")["verdict"] == "fail"


@pytest.mark.parametrize(
    ("place", "field", "item", "most", "beyond"),
    [
        ("etsy", "tags", "a" * 20, 13, "warn"),
        ("amazon", "bullets", "a" * 500, 5, "warn"),
        ("instagram", "hashtags", "#a", 5, "warn"),
    ],
)
def test_a_list_has_its_number_of_items(place: str, field: str, item: str, most: int, beyond: str) -> None:
    items = [item] * most
    assert only({field: items}, place, "count")["verdict"] == "pass"
    over = only({field: [*items, item]}, place, "count")
    assert (over["verdict"], over["measured"]) == (beyond, most + 1)


@pytest.mark.parametrize(
    ("place", "field", "most", "beyond"),
    [("etsy", "tags", 20, "warn"), ("amazon", "bullets", 500, "warn"), ("tiktok", "captions", 2200, "fail")],
)
def test_each_item_of_a_list_has_its_limit_and_the_reason_names_the_item(
    place: str, field: str, most: int, beyond: str
) -> None:
    assert only({field: ["a", "b" * most]}, place, "item_length")["verdict"] == "pass"
    over = only({field: ["a", "b" * (most + 1)]}, place, "item_length")
    assert over["verdict"] == beyond
    assert "Item 2" in over["reason"]


def test_search_terms_are_counted_in_bytes() -> None:
    fits = only({"tags": ["ş" * 62, "ş" * 62]}, "amazon", "joined_length")
    assert (fits["verdict"], fits["measured"], fits["unit"]) == ("pass", 249, "bytes")
    over = only({"tags": ["ş" * 63, "ş" * 62]}, "amazon", "joined_length")
    assert (over["verdict"], over["measured"]) == ("warn", 251)


def test_emoji_count_double_where_utf16_units_are_counted() -> None:
    assert only({"title": "🧡" * 45}, "tiktok", "length")["verdict"] == "pass"
    assert only({"title": "🧡" * 46}, "tiktok", "length")["verdict"] == "fail"


def test_a_title_that_is_too_long_only_in_utf16_units_warns_where_nobody_says_what_a_character_is() -> None:
    found = only({"title": "🧡" * 60}, "google", "length")
    assert found["verdict"] == "pass"
    found = only({"title": "🧡" * 100}, "google", "length")
    assert (found["verdict"], found["measured"]) == ("warn", 100)
    assert "200 UTF-16 units" in found["reason"]


def test_amazon_s_title_has_the_limit_of_its_day() -> None:
    title = {"title": "a" * 100}
    assert only(title, "amazon", "length", on=datetime.date(2026, 7, 26))["verdict"] == "pass"
    assert only(title, "amazon", "length", on=datetime.date(2026, 7, 27))["verdict"] == "fail"


def test_both_parts_of_amazon_s_title_have_a_sum() -> None:
    both = {"title": "a" * 75, "title_differentiation": "b" * 125}
    assert only(both, "amazon", "title_sum")["verdict"] == "pass"
    assert only({**both, "title": "a" * 76}, "amazon", "title_sum")["measured"] == 201


# Words and characters


@pytest.mark.parametrize("char", "!$?_{}^¬¦")
def test_amazon_forbids_characters_in_a_title(char: str) -> None:
    found = only({"title": f"Mug {char} white"}, "amazon", "forbidden_characters")
    assert (found["verdict"], found["measured"]) == ("fail", [char])


@pytest.mark.parametrize(
    ("title", "language", "verdict"),
    [
        ("Mug white mug blue", "English", "pass"),
        ("Mug white MUG blue mug", "English", "fail"),
        ("A mug with the lid and the tray and the spoon", "English", "pass"),
        ("Işık IŞIK ışık lamba", "Turkish", "fail"),
        ("İnce bardak ve fincan ve tabak ve kaşık", "Turkish", "pass"),
        ("Becher mit Deckel mit Löffel mit Griff", "German", "pass"),
        ("Becher mit Deckel mit Löffel mit Griff", "English", "fail"),
        ("Set 2 cups 2 plates 2 spoons", "English", "pass"),
        ("kikombe na sahani na kijiko na uma", "Swahili", "warn"),
    ],
)
def test_the_same_word_stands_in_an_amazon_title_at_most_twice(title: str, language: str, verdict: str) -> None:
    assert only({"title": title}, "amazon", "repeated_words", language)["verdict"] == verdict


def test_promotion_in_a_title_only_warns() -> None:
    assert only({"title": "Mug on SALE"}, "amazon", "promotion")["verdict"] == "warn"
    assert only({"title": "Kupa büyük İNDİRİM"}, "amazon", "promotion", "Turkish")["verdict"] == "warn"
    assert only({"title": "White mug"}, "amazon", "promotion")["verdict"] == "pass"
    rows = check_text({"title": "Kikombe"}, "amazon", language="Swahili")["rules"]
    assert [row["verdict"] for row in rows if row["rule"] == "promotion"] == ["not_checked"]


@pytest.mark.parametrize("char", "%:&+")
def test_etsy_takes_some_characters_once(char: str) -> None:
    assert only({"title": f"Mug {char} lid"}, "etsy", "once_each")["verdict"] == "pass"
    found = only({"title": f"Mug {char} lid {char} tray"}, "etsy", "once_each")
    assert (found["verdict"], found["measured"]) == ("fail", [char])


@pytest.mark.parametrize(
    ("tag", "verdict"),
    [
        ("mother's day-gift ™©®", "pass"),
        ("çay bardağı 2", "pass"),
        ("हिन्दी", "pass"),
        ("tea/coffee", "fail"),
        ("gift!", "fail"),
        ("mug 🎁", "fail"),
    ],
)
def test_etsy_s_tags_have_letters_digits_and_a_few_signs(tag: str, verdict: str) -> None:
    assert only({"tags": [tag]}, "etsy", "only_letters_digits_and")["verdict"] == verdict


def test_an_allegro_title_has_three_words() -> None:
    assert only({"title": "Biały kubek ceramiczny"}, "allegro", "words")["verdict"] == "pass"
    assert only({"title": "Kubek ceramiczny"}, "allegro", "words")["verdict"] == "fail"


@pytest.mark.parametrize("tag", ["#Anneler Günü", "#anne'ye", "#e-ticaret", "#kupa☕", "kupa", "#2026", "#"])
def test_what_ends_a_hashtag_early_warns(tag: str) -> None:
    assert only({"hashtags": ["#Kupa", tag]}, "instagram", "hashtag_form")["measured"] == [tag]


def test_what_is_not_there_is_not_checked() -> None:
    check = check_text({"seo_title": "Mug"}, "amazon")
    assert check["verdict"] == "not_checked"


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        ({}, "amazon"),
        ("Mug", "amazon"),
        ({"headline": "Mug"}, "amazon"),
        ({"title": ["Mug"]}, "amazon"),
        ({"title": ""}, "amazon"),
        ({"title": "\ud800"}, "amazon"),
        ({"tags": "mug"}, "etsy"),
        ({"tags": [1]}, "etsy"),
        ({"title": "Mug"}, "amazn"),
    ],
)
def test_what_cannot_be_checked_is_refused(texts: Any, place: str) -> None:
    with pytest.raises(InvalidInput):
        check_text(texts, place)


# Cutting


TEXTS = st.text(st.sampled_from("abşİ -—\n👩\u200d👧\u0301🏽🇹🇷\u0600क्षि\u00a0"), max_size=40)


@given(TEXTS, st.integers(0, 60), st.sampled_from(["code_points", "utf16_units", "bytes", "graphemes"]))
def test_a_cut_text_fits_and_ends_between_two_letters(text: str, most: int, unit: Unit) -> None:
    short = cut_text(text, most, unit)
    assert length(short, unit) <= most
    letters = regex.findall(r"\X", text)
    kept = regex.findall(r"\X", short)
    assert kept == letters[: len(kept)]
    if length(text, unit) <= most:
        assert short == text


def test_a_text_is_cut_between_words_where_one_fits() -> None:
    assert cut_text("Ceramic mug, white", 11) == "Ceramic"
    assert cut_text("Ceramic mug white", 11) == "Ceramic mug"
    assert cut_text("Ceramic mug", 4) == "Cera"
    assert cut_text("Ceramic -- mug", 9) == "Ceramic"
    assert cut_text("👩‍👩‍👧", 3) == ""
