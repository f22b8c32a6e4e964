"""Word lists that texts are checked against, by language code. A language without a list is never judged by one.

A word that ends in `*` stands for all words that begin so: Turkish adds endings, German puts words together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from services.shop.casing import folded

_TOKEN = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_LETTERS = re.compile(r"[^\W\d_]+")


class WordSet:
    """Words and beginnings of words, compared without case."""

    def __init__(self, words: Iterable[str]) -> None:
        known = [folded(word) for word in words]
        self._whole = frozenset(word for word in known if not word.endswith("*"))
        self._begun = tuple(word[:-1] for word in known if word.endswith("*"))

    def __contains__(self, word: str) -> bool:
        return word in self._whole or (bool(self._begun) and word.startswith(self._begun))

    def found_in(self, text: str) -> list[str]:
        """The words of `text` that are known, each once, as they stand there."""
        return [*dict.fromkeys(word for word in letters_of(text) if folded(word) in self)]


def words_of(text: str) -> list[str]:
    """The words of a text; one with a hyphen or an apostrophe inside counts as one."""
    return _TOKEN.findall(text)


def letters_of(text: str) -> list[str]:
    """The runs of letters of a text, as they stand there."""
    return _LETTERS.findall(text)


FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    code: frozenset(folded(words).split())
    for code, words in {
        "en": "a an the and or nor but for so yet of in on at by to from with without as per via into onto over under "
        "up off out about after before between during against through within than",
        "tr": "ve veya ya da de ile için bir ama fakat gibi kadar göre ki hem ise den dan",
        "de": "der die das den dem des ein eine einen einem einer eines und oder aber sowie als wie mit ohne für von "
        "vom zu zum zur in im ins an am auf aus bei beim bis durch gegen nach seit über um unter vor",
        "fr": "le la les l un une des du de d et ou mais donc ni car à au aux en dans par pour sur sous avec sans chez "
        "vers entre comme",
        "es": "el la los las un una unos unas y e o u pero ni de del a al en con sin por para sobre entre desde hasta "
        "según como",
        "it": "il lo la i gli le l un uno una e ed o ma né di del dello della dei degli delle a al allo alla ai agli "
        "alle da dal dalla in nel nella nei nelle con su sul sulla per tra fra senza come",
        "pt": "o a os as um uma uns umas e ou mas nem de do da dos das em no na nos nas a ao à aos às com sem por pelo "
        "pela para sobre entre até desde como",
        "nl": "de het een en of maar van voor met zonder in op aan bij uit door om naar tot over onder als te ter",
        "pl": "i oraz lub albo a ale w we z ze na do od dla po przy przez o u pod nad bez za jak",
    }.items()
}
"""Articles, conjunctions and prepositions."""

_SUPERLATIVES = {
    "en": "most best finest greatest ultimate unbeatable unmatched unrivaled unrivalled perfect cheapest fastest "
    "strongest guaranteed guarantee flawless",
    "tr": "en mükemmel* kusursuz* eşsiz* benzersiz* rakipsiz* garantili garanti birinci",
    "de": "beste* bester bestes besten optimal* perfekt* unschlagbar* einzigartig* garantiert* weltbeste* makellos*",
    "fr": "meilleur* parfait* ultime* imbattable* inégalé* incomparable* garanti*",
    "es": "mejor mejores perfect* insuperable* inigualable* incomparable* garantizad*",
    "it": "migliore migliori perfett* imbattibil* insuperabil* incomparabil* garantit*",
    "pt": "melhor melhores perfeit* imbatíve* insuperáve* incomparáve* garantid*",
    "nl": "beste perfect* ongeëvenaard* onovertroffen gegarandeerd*",
    "pl": "najlepsz* doskonał* idealn* niezrównan* gwarantowan*",
}
_HEALTH = {
    "en": "cure* heal heals healing therapeutic therapy medical medicinal detox* antibacterial hypoallergenic "
    "antiviral slimming relieves treats",
    "tr": "tedavi* iyileştir* şifa* terapötik tıbbi medikal detoks* antibakteriyel hipoalerjenik zayıflat* ağrı*",
    "de": "heilt heilend* heilung* therap* medizinisch* detox* antibakteriell* hypoallergen* schlankmach* "
    "schmerzlinder*",
    "fr": "guéri* thérap* médical* détox* antibactérien* hypoallergénique* amincissant* soulage*",
    "es": "cura curar curativ* terap* médic* medicinal* detox* antibacterian* hipoalergénic* adelgaz* alivia*",
    "it": "cura curare curativ* terap* medic* detox* antibatteric* ipoallergenic* dimagrant* allevia*",
    "pt": "cura curar curativ* terap* médic* medicinal* detox* antibacterian* hipoalergénic* emagrec* alivia*",
    "nl": "geneest genezend* therap* medisch* detox* antibacterieel* hypoallergeen* afslank* pijnverlicht*",
    "pl": "leczy leczni* terap* medyczn* detoks* antybakteryjn* hipoalergiczn* odchudza* łagodzi*",
}
_PROMOTION = {
    "en": "sale discount* free cheap* bestseller bestselling deal deals offer offers promo* hot bargain*",
    "tr": "indirim* kampanya* fırsat* bedava ücretsiz ucuz* promosyon* hediye",
    "de": "rabatt* angebot* gratis kostenlos* günstig* aktion* schnäppchen* bestseller sale",
    "fr": "promo* soldes remise* gratuit* rabais offert* bestseller",
    "es": "oferta* descuento* gratis rebaja* promo* superventas",
    "it": "offerta* sconto* gratis saldi promo* bestseller",
    "pt": "oferta* desconto* grátis saldos promo* barat*",
    "nl": "korting* gratis aanbieding* actie sale goedkoop* bestseller",
    "pl": "promocj* rabat* gratis darmow* wyprzedaż* okazj* tani*",
}

_BRANDS = (
    "adidas airpods alessi asus bosch breitling burberry canon cartier casio chanel clarks columbia corelle "
    "cuisinart delonghi dior disney duralex dyson electrolux fendi garmin givenchy gopro gucci hermes hermès "
    "hilfiger hisense honda hp huawei ikea ipad iphone jbl karaca karcher kärcher kenwood kitchenaid kütahya "
    "lacoste lego lenovo lg loreal levis logitech louboutin macbook makita mattel microsoft miele moulinex "
    "nescafe nespresso nike nikon nintendo nivea nokia oakley panasonic paşabahçe philips playstation pokemon "
    "prada pyrex rayban ray ban reebok rolex rowenta salomon samsonite samsung seiko sennheiser siemens "
    "skechers sony starbucks stihl swarovski swatch tefal timberland toshiba tupperware valentino versace "
    "vestel villeroy vuitton wmf xbox xiaomi yamaha zwilling arçelik beko"
)
"""Names that are no ordinary word of these languages."""


def _word_sets(lists: Mapping[str, str]) -> Mapping[str, WordSet]:
    return {code: WordSet(words.split()) for code, words in lists.items()}


SUPERLATIVES = _word_sets(_SUPERLATIVES)
HEALTH_CLAIMS = _word_sets(_HEALTH)
PROMOTION = _word_sets(_PROMOTION)
BRANDS = WordSet(_BRANDS.split())

NUMBER_WORDS: Mapping[str, Mapping[str, int]] = {
    code: {folded(word): int(value) for word, value in (pair.split("=") for pair in pairs.split())}
    for code, pairs in {
        "en": "three=3 four=4 five=5 six=6 seven=7 eight=8 nine=9 ten=10 eleven=11 twelve=12 fifteen=15 twenty=20 "
        "thirty=30 forty=40 fifty=50 sixty=60 hundred=100 thousand=1000",
        "tr": "üç=3 dört=4 beş=5 sekiz=8 dokuz=9 yirmi=20 otuz=30 elli=50 altmış=60 seksen=80 doksan=90",
        "de": "drei=3 vier=4 fünf=5 sechs=6 sieben=7 neun=9 zehn=10 zwölf=12 zwanzig=20 dreißig=30 fünfzig=50 "
        "hundert=100 tausend=1000",
        "fr": "trois=3 quatre=4 cinq=5 six=6 sept=7 huit=8 dix=10 douze=12 vingt=20 trente=30 cinquante=50 cent=100",
        "es": "tres=3 cuatro=4 cinco=5 seis=6 siete=7 ocho=8 nueve=9 diez=10 doce=12 veinte=20 treinta=30 cien=100",
        "it": "quattro=4 cinque=5 sette=7 otto=8 nove=9 dieci=10 dodici=12 venti=20 trenta=30 cento=100",
        "pt": "três=3 quatro=4 cinco=5 seis=6 sete=7 oito=8 nove=9 dez=10 doze=12 vinte=20 trinta=30 cem=100",
        "nl": "drie=3 vijf=5 zes=6 zeven=7 negen=9 tien=10 twaalf=12 twintig=20 dertig=30 honderd=100",
        "pl": "trzy=3 cztery=4 pięć=5 sześć=6 siedem=7 osiem=8 dziewięć=9 dziesięć=10 dwanaście=12 "
        "dwadzieścia=20 sto=100",
    }.items()
}
"""From three on, without words that are something else, too (Turkish altı, yedi, on, yüz; German acht)."""
