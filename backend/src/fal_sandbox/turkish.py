"""The sandbox's Turkish texts, and how it recognises a Turkish question."""

from __future__ import annotations

import re

from fal_sandbox.phrases import tokens
from fal_sandbox.pictures.words import word_set

LETTERS = frozenset("ğşıĞŞİ")
"""Letters that, of the languages the sandbox speaks, only Turkish has."""
WORDS = word_set(
    "bir ve ile icin bu su ne nasil nedir neden hangi cok en olarak olan gibi kadar ama veya yaz yazar yazin hazirla "
    "olustur anlat acikla tanit oner listele cevir merhaba selam lutfen bana bize benim kisa uzun tek cumle metin urun "
    "urunun urunu gorsel gorseli gorselde resim resimde fotograf fotografta renk rengi hangisi var yok mi mu "
    "misin nerede slogan baslik icerik turkce mavi kirmizi yesil siyah beyaz"
)
FOREIGN = word_set(
    "the a an and of for in on with to is are this that write describe give me my your please what which how answer "
    "return reply product photo picture image background only keys short about make say who when where from "
    "english deutsch und der die das ein eine fur le la les des une pour avec el los una para con il per"
)
"""Words that a text has which is not wholly Turkish."""

COLOURS = {
    "red": "kırmızı",
    "orange": "turuncu",
    "brown": "kahverengi",
    "beige": "bej",
    "yellow": "sarı",
    "pink": "pembe",
    "white": "beyaz",
    "grey": "gri",
    "green": "yeşil",
    "teal": "petrol yeşili",
    "blue": "mavi",
    "black": "siyah",
    "purple": "mor",
}
THINGS = {
    "mug": "bir kupa",
    "shoe": "bir ayakkabı",
    "bottle": "bir şişe",
    "lamp": "bir lamba",
    "bag": "bir çanta",
    "watch": "bir saat",
    "chair": "bir sandalye",
    "shirt": "bir gömlek",
    "vase": "bir vazo",
    "headphones": "bir kulaklık",
}
CATEGORIES: dict[str, tuple[str, str, str, str, str, str]] = {
    "mug": ("Mutfak Eşyası", "Kupalar", "Yetişkinler", "Uygun", "Günlük Kahve ve Çay", "Seramik ve Sofra"),
    "shoe": ("Ayakkabı", "Spor Ayakkabılar", "Yetişkinler", "Erişilebilir", "Günlük Yürüyüş", "Ayakkabıcılık"),
    "bottle": ("İçecek Kapları", "Şişeler", "Yetişkinler", "Uygun", "Evde ve Dışarıda Su", "Ambalaj ve Cam"),
    "lamp": ("Aydınlatma", "Masa Lambaları", "Ev Sahipleri", "Üst-Orta", "Ortam Aydınlatması", "Aydınlatma Sanayii"),
    "bag": ("Çanta ve Bavul", "El Çantaları", "Yetişkinler", "Üst-Orta", "İş ve Seyahat", "Deri Ürünleri"),
    "watch": ("Aksesuar", "Kol Saatleri", "Yetişkinler", "Premium", "Günlük Kullanım ve Hediye", "Saatçilik"),
    "chair": ("Mobilya", "Sandalyeler", "Ev Sahipleri", "Üst-Orta", "Yemek ve Çalışma", "Mobilya Üretimi"),
    "shirt": ("Giyim", "Üst Giyim", "Yetişkinler", "Erişilebilir", "Günlük Giyim", "Tekstil ve Konfeksiyon"),
    "vase": ("Ev Dekorasyonu", "Vazolar", "Ev Sahipleri", "Uygun", "Çiçek ve Dekor", "Seramik ve Cam"),
    "headphones": ("Elektronik", "Kulaklıklar", "Gençler", "Premium", "Müzik ve Görüşme", "Tüketici Elektroniği"),
    "": ("Ev Ürünleri", "Ev Eşyaları", "Yetişkinler", "Uygun", "Günlük Kullanım", "Tüketim Ürünleri"),
}
"""As `phrases.CATEGORIES`."""
STYLES = {
    "warm": ("Sıcak ve Yalın", "Samimi/Davetkâr"),
    "fresh": ("Temiz ve Modern", "Ferah/Sakin"),
    "bold": ("Cesur ve Çağdaş", "Şık/Kendinden Emin"),
}


def is_turkish(text: str) -> bool:
    """Whether a text is wholly Turkish: it has a word or a letter that is, and no word that cannot be."""
    # What stands in quotes, braces or a URL is spoken of, and not the language that speaks.
    spoken = re.sub(r"https?://\S+|\{.*\}|\[.*\]|\".*?\"|`.*?`", " ", text, flags=re.DOTALL)
    found = tokens(spoken)
    return bool((found & WORDS) or LETTERS & set(spoken)) and not found & FOREIGN


def seen(name: str, kind: str, size: tuple[int, int], colours: list[str], more: int) -> str:
    """What a picture shows."""
    listed = [COLOURS.get(colour, colour) for colour in colours]
    told = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} ve {listed[-1]}"
    rest = f" Onunla birlikte {more} görsel daha geldi." if more else ""
    return (
        f"{name} görselinde ({size[0]} x {size[1]} piksel) {THINGS.get(kind, 'bir nesne')} görünüyor; "
        f"ağırlıklı renkleri {told}.{rest}"
    )


def unreadable(name: str) -> str:
    """What is said of a file that is no picture."""
    return f"{name} dosyası, sandbox'ın okuyabildiği bir görsel değil."


def reply(asked: str) -> str:
    """The answer to anything else."""
    opening = " ".join(asked.split()[:8])
    return f"Bu, sandbox'ın şu isteğe verdiği hazır yanıttır: {opening}. Gerçek bir metin üretilmedi."
