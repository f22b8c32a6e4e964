"""Materials and their words in nine languages, to find out whether a text names one that was not given.

Who gave oak may read of wood, but who gave wood may not read of oak: a material has the one that it is a kind of. Words
that are mostly something else are left out ("felt", "concrete", "lead"), and so are colours.
"""

# ruff: noqa: E501 - one material to a line, so that a language is a column

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from services.shop.casing import folded
from services.shop.text_words import WordSet, letters_of

LANGUAGES = ("en", "tr", "de", "fr", "es", "it", "pt", "nl", "pl")

_TABLE = """
textile        |         | | | | | | | | |
cotton         |textile  |cotton|pamuk*|baumwoll*|coton|algodón|cotone|algodão|katoen*|bawełn*
wool           |textile  |wool woolen woollen|yün|wolle wollen* wollstoff* schurwoll*|laine|lana|lana|lã|wol wollen|wełn*
merino         |wool     |merino|merinos|merino*|mérinos|merino|merino|merino|merino*|merino*
cashmere       |wool     |cashmere|kaşmir*|kaschmir*|cachemire|cachemira cachemir|cashmere cachemire|caxemira|kasjmier*|kaszmir*
silk           |textile  |silk silken|ipek|seide seiden*|soie|seda|seta|seda|zijde zijden|jedwab*
satin          |textile  |satin|saten*|satin*|satin|satén|raso?|cetim|satijn*|satyn*
linen          |textile  |linen|keten|leinen*|lin|lino|lino|linho|linnen|lniany lniana lniane
velvet         |textile  |velvet velour|kadife*|samt? samtig* samtstoff* velours|velours|terciopelo|velluto|veludo|fluweel fluwelen|aksamit* welur*
denim          |textile  |denim|denim*|denim* jeansstoff*|denim|denim|denim|denim|denim*|denim*
polyester      |textile  |polyester|polyester*|polyester*|polyester|poliéster|poliestere|poliéster|polyester*|poliest*
nylon          |textile  |nylon|naylon*|nylon*|nylon|nailon nylon|nylon nailon|nylon náilon|nylon*|nylon*
polyamide      |textile  |polyamide|poliamid*|polyamid*|polyamide|poliamida|poliammide|poliamida|polyamide*|poliamid*
elastane       |textile  |elastane spandex lycra|elastan* likra*|elasthan* elastan* lycra|élasthanne lycra|elastano licra lycra|elastan elastane lycra|elastano lycra|elastaan lycra|elastan* lycra
viscose        |textile  |viscose|viskon* viskoz*|viskose*|viscose|viscosa|viscosa|viscose|viscose|wiskoz*
microfibre     |textile  |microfibre microfiber|mikrofiber*|mikrofaser*|microfibre|microfibra|microfibra|microfibra|microvezel*|mikrofibr*
fleece         |textile  |fleece|polar?|fleece*|polaire|polar?|pile?|polar?|fleece*|polar? polarow*
leather        |         |leather|deri derisi|leder ledern* ledertasche* lederbezug* rindsleder* echtleder* vollleder* kunstleder*|cuir similicuir|cuero piel? polipiel|pelle? cuoio ecopelle|couro|leer? leren leder lederen|skóra skóry skórzan*
suede          |leather  |suede|süet*|wildleder* veloursleder*|daim|ante?|camoscio|camurça|suède|zamsz*
nubuck         |leather  |nubuck|nubuk*|nubuk*|nubuck|nobuk|nabuk nubuck|nobuck|nubuck|nubuk*
wood           |         |wood wooden|ahşap* odun tahta|holz* hölzern* massivholz*|bois|madera|legno|madeira|hout houten|drewno drewna drewnian*
oak            |wood     |oak|meşe|eiche* eichen*|chêne|roble|rovere quercia|carvalho|eiken eikenhout*|dąb dębow*
walnut         |wood     |walnut|ceviz|walnuss* nussbaum*|noyer|nogal|noce?|nogueira|walnoot* notenhout*|orzechow*?
beech          |wood     |beech beechwood|kayın|buche* buchen*|hêtre|haya?|faggio|faia|beuken*|buk bukow*
bamboo         |wood     |bamboo|bambu*|bambus*|bambou|bambú|bambù|bambu|bamboe*|bambus*
pine           |wood     |pine pinewood|çam|kiefer? kiefern*|pin?|pino?|pino?|pinho?|grenen*|sosn*
teak           |wood     |teak|tik?|teak*|teck|teca|teak|teca|teak*|teak*
mahogany       |wood     |mahogany|maun|mahagoni*|acajou|caoba|mogano|mogno|mahonie*|mahoń*
birch          |wood     |birch|huş|birke birken*|bouleau|abedul|betulla|bétula|berken*|brzoz*
acacia         |wood     |acacia|akasya|akazie*|acacia|acacia|acacia|acácia|acacia*|akacj*
plywood        |wood     |plywood mdf|kontrplak* mdf|sperrholz* mdf|contreplaqué mdf|contrachapado mdf|compensato mdf|contraplacado mdf|multiplex? mdf|sklejk* mdf
metal          |         |metal|metal|metall metallen*|métal|metal|metallo|metal|metaal metalen|metal* metalow*
steel          |metal    |steel stainless inox|çelik çeliği inox|stahl* edelstahl*|acier inox inoxydable|acero inox inoxidable|acciaio inox|aço inox|staal stalen rvs|stal stali stalow*
iron           |metal    |iron?|demir|eisen* gusseisen* gußeisen*|fonte|hierro|ferro ghisa|ferro|ijzer* gietijzer*|żelaz* żeliw*
aluminium      |metal    |aluminium aluminum|alüminyum*|aluminium* alu|aluminium alu|aluminio|alluminio|alumínio|aluminium|aluminiow* aluminium
brass          |metal    |brass|pirinç|messing*|laiton|latón|ottone|latão|messing*|mosiądz* mosiężn*
copper         |metal    |copper|bakır|kupfer*|cuivre|cobre|rame|cobre|koper koperen|miedź miedzian*
bronze         |metal    |bronze|bronz bronzdan|bronze*|bronze|bronce|bronzo|bronze|brons bronzen|brązow*?
zinc           |metal    |zinc|çinko*|zink*|zinc|zinc|zinco|zinco|zink*|cynk*
titanium       |metal    |titanium|titanyum* titanium|titan? titanium|titane|titanio|titanio|titânio|titanium|tytan*
chrome         |metal    |chrome chromed|krom|chrom verchromt*|chrome chromé|cromo cromado|cromo cromato|cromo cromado|chroom verchroomd*|chrom*?
gold           |metal    |gold golden? gilded|altın|gold goldring* vergoldet*|or? doré? dorée?|oro dorado?|oro dorato?|ouro dourado?|goud gouden? verguld*|złoto złot*?
silver         |metal    |silver sterling|gümüş|silber* versilbert*|argent? argenté?|plata plateado?|argento argentato?|prata prateado?|zilver zilveren verzilverd*|srebr*?
platinum       |metal    |platinum|platin|platin|platine|platino|platino|platina|platina|platyn*
ceramic        |         |ceramic ceramics|seramik*|keramik* keramisch*|céramique|cerámica cerámico|ceramica ceramico|cerâmica cerâmico|keramiek keramisch*|ceramik* ceramiczn*
porcelain      |ceramic  |porcelain|porselen*|porzellan*|porcelaine|porcelana|porcellana|porcelana|porselein*|porcelan*
stoneware      |ceramic  |stoneware|stoneware|steinzeug*|grès|gres|gres|grés|steengoed|kamionk*
earthenware    |ceramic  |earthenware|çini?|steingut*|faïence|loza|terraglia|faiança|aardewerk|fajans*
terracotta     |ceramic  |terracotta|terakota|terrakotta*|terracotta|terracota|terracotta|terracota|terracotta|terakot*
glass          |         |glass|cam|glas gläsern* glasflasche* glasvase* glasdeckel* trinkglas*|verre|vidrio cristal|vetro|vidro|glas glazen|szkło szkła szklan*
borosilicate   |glass    |borosilicate|borosilikat*|borosilikat*|borosilicate|borosilicato|borosilicato|borossilicato|borosilicaat*|borokrzem*
stone          |         |stone|taş|stein naturstein*|pierre|piedra|pietra|pedra|steen stenen natuursteen|kamień kamienn*
marble         |stone    |marble|mermer*|marmor*|marbre|mármol|marmo|mármore|marmer*|marmur*
granite        |stone    |granite|granit*|granit*|granit|granito|granito|granito|graniet*|granit*
slate          |stone    |slate|arduvaz|schiefer*|ardoise|pizarra|ardesia|ardósia|leisteen*|łupk*
plastic        |         |plastic|plastik* plastic|kunststoff* plastik*|plastique|plástico|plastica|plástico|plastic kunststof*|plastik* tworzyw*
polypropylene  |plastic  |polypropylene|polipropilen*|polypropylen*|polypropylène|polipropileno|polipropilene|polipropileno|polypropyleen|polipropylen*
polyethylene   |plastic  |polyethylene|polietilen*|polyethylen*|polyéthylène|polietileno|polietilene|polietileno|polyethyleen|polietylen*
polycarbonate  |plastic  |polycarbonate|polikarbonat*|polycarbonat*|polycarbonate|policarbonato|policarbonato|policarbonato|polycarbonaat|poliwęglan*
pvc            |plastic  |pvc vinyl|pvc vinil*|pvc vinyl*|pvc vinyle|pvc vinilo|pvc vinile|pvc vinil|pvc vinyl|pcv pvc winyl*
acrylic        |plastic  |acrylic plexiglass|akrilik* pleksi*|acryl* plexiglas*|acrylique plexiglas|acrílico|acrilico|acrílico|acryl* plexiglas|akryl*
melamine       |plastic  |melamine|melamin*|melamin*|mélamine|melamina|melammina|melamina|melamine|melamin*
rubber         |         |rubber|kauçuk* lastik?|gummi* kautschuk*|caoutchouc|caucho goma?|gomma caucciù|borracha|rubber*|guma gumow* kauczuk*
latex          |rubber   |latex|lateks*|latex*|latex|látex|lattice|látex|latex|lateks*
silicone       |         |silicone|silikon*|silikon*|silicone|silicona|silicone|silicone|siliconen silicone|silikon*
paper          |         |paper|kağıt kâğıt|papier*|papier|papel?|carta?|papel?|papier papieren|papier*
cardboard      |paper    |cardboard|karton* mukavva|karton* pappe|carton|cartón|cartone|cartão|karton*|karton* tektur*
rattan         |         |rattan wicker|rattan* hasır*|rattan* korbgeflecht*|rotin osier|ratán mimbre|rattan vimini|rattan vime|rotan riet?|rattan* wiklin*
jute           |         |jute|jüt*|jute*|jute|yute|iuta|juta|jute|jut*
hemp           |textile  |hemp|kenevir*|hanf*|chanvre|cáñamo|canapa|cânhamo|hennep*|konop*
cork           |         |cork|mantar?|kork*|liège|corcho|sughero|cortiça|kurk*|korkow*
carbon         |         |carbon|karbon*|carbon*|carbone|carbono|carbonio|carbono|carbon*|karbon*
fibreglass     |         |fibreglass fiberglass|fiberglas*|glasfaser*||||||
down           |         |goosedown eiderdown|kaztüyü|daunen*|duvet?|plumón|piumino|penugem|dons? ganzendons|puch puchow*
"""
"""A row: its name, what it is a kind of, and its words in LANGUAGES; `*` as in `text_words.py`, `?` for a word that
often means something else ("pelle" is skin, too)."""


_TURKISH_ENDINGS = (
    "lı",
    "li",
    "lu",
    "lü",
    "dan",
    "den",
    "tan",
    "ten",
    "la",
    "le",
    "yla",
    "yle",
    "dır",
    "dir",
    "tır",
    "tir",
)
"""What is said of a material: with, of, from, is. A vowel alone would make other words (cam: glass, cami: mosque)."""


class Material(NamedTuple):
    """One material."""

    name: str
    kind_of: str
    sure: dict[str, WordSet]
    """By language: words that mean it."""
    possible: dict[str, WordSet]
    """By language: words that may mean it."""


class Named(NamedTuple):
    """A material that a text names."""

    word: str
    """As it stands in the text."""
    sure: bool
    """False for a word that often means something else."""


@cache
def _materials() -> dict[str, Material]:
    rows: dict[str, Material] = {}
    for line in _TABLE.strip().splitlines():
        name, kind_of, *cells = (cell.strip() for cell in line.split("|"))
        words = {code: cell.split() for code, cell in zip(LANGUAGES, cells, strict=True)}
        rows[name] = Material(
            name,
            kind_of,
            {code: WordSet(_sure(known, code)) for code, known in words.items()},
            {code: WordSet(word[:-1] for word in known if word.endswith("?")) for code, known in words.items()},
        )
    return rows


def _sure(words: list[str], language: str) -> Iterator[str]:
    for word in words:
        if not word.endswith("?"):
            yield word
            if language == "tr" and not word.endswith("*"):
                yield from (word + ending for ending in _TURKISH_ENDINGS)


def materials_in(text: str) -> set[str]:
    """The materials that `text` names in any language, and all that those are a kind of."""
    found = {name for code in LANGUAGES for name in named_in(text, code)}
    for name in list(found):
        while name := _materials()[name].kind_of:
            found.add(name)
    return found


def named_in(text: str, language: str) -> dict[str, Named]:
    """The materials that `text` names in `language`."""
    found: dict[str, Named] = {}
    for word in dict.fromkeys(letters_of(text)):
        plain = folded(word)
        for name, material in _materials().items():
            sure = plain in material.sure[language]
            if (sure or plain in material.possible[language]) and (name not in found or sure):
                found[name] = Named(word, sure)
    return found
