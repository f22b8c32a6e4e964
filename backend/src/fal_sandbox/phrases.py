"""The phrases of the scripted texts: products, and sentences about them in eleven languages.

Nouns come with "this" in the right form, and the sentences are built so that nothing else has to agree with them.
Which sentence is used is decided in `texts.py`.
"""

from __future__ import annotations

import re
import unicodedata

from fal_sandbox.pictures.words import word_set

PRODUCT_WORDS = {
    "mug": word_set(
        "mug mugs cup cups coffee espresso teacup drinkware kupa fincan bardak kahve tasse becher tazza taza"
    ),
    "shoe": word_set("shoe shoes sneaker sneakers boot boots footwear ayakkabi schuh schuhe scarpa zapato chaussure"),
    "bottle": word_set("bottle bottles flask thermos perfume sise matara flasche bouteille botella bottiglia"),
    "lamp": word_set("lamp lamps lantern lighting lamba avize leuchte lampe lampara lampada"),
    "bag": word_set("bag bags handbag backpack purse tote canta tasche sac bolso borsa"),
    "watch": word_set("watch watches wristwatch smartwatch clock saat uhr montre reloj orologio"),
    "chair": word_set("chair chairs stool armchair seat sandalye koltuk stuhl chaise silla sedia"),
    "shirt": word_set(
        "shirt shirts tshirt hoodie dress sweater jacket apparel gomlek tisort elbise hemd chemise camisa"
    ),
    "vase": word_set("vase vases pot planter vazo saksi jarron vaso"),
    "headphones": word_set("headphones headphone headset earbuds earphones kulaklik kopfhoerer casque auriculares"),
}
"""Words, without accents, that give a product away in a file name, a prompt or a category."""

CATEGORIES: dict[str, tuple[str, str, str, str, str, str]] = {
    "mug": ("Kitchenware", "Mugs", "Adults", "Affordable", "Daily Coffee and Tea", "Ceramics and Tableware"),
    "shoe": ("Footwear", "Sneakers", "Adults", "Accessible", "Everyday Walking", "Shoemaking"),
    "bottle": (
        "Drinkware",
        "Bottles",
        "Adults",
        "Affordable",
        "Hydration at Home and Outside",
        "Packaging and Glass",
    ),
    "lamp": (
        "Lighting",
        "Table Lamps",
        "Home Owners",
        "Upper Mid-range",
        "Ambient Lighting",
        "Lighting Industry",
    ),
    "bag": ("Bags and Luggage", "Handbags", "Adults", "Upper Mid-range", "Work and Travel", "Leather Goods"),
    "watch": ("Accessories", "Wristwatches", "Adults", "Premium", "Daily Wear and Gifts", "Watchmaking"),
    "chair": ("Furniture", "Chairs", "Home Owners", "Upper Mid-range", "Dining and Work", "Furniture Making"),
    "shirt": ("Apparel", "Tops", "Adults", "Accessible", "Everyday Wear", "Textile and Garments"),
    "vase": (
        "Home Decor",
        "Vases",
        "Home Owners",
        "Affordable",
        "Flowers and Decoration",
        "Ceramics and Glass",
    ),
    "headphones": (
        "Electronics",
        "Headphones",
        "Young Adults",
        "Premium",
        "Music and Calls",
        "Consumer Electronics",
    ),
    "": ("Home Goods", "Household Items", "Adults", "Affordable", "Everyday Use", "Consumer Goods"),
}
"""Main type, subcategory, audience, price, use, industry; the last row is for an unknown product."""

ERGONOMIC = word_set("ergonomic ergonomics ergonomi ergonomik ergonomisch ergonomique ergonomico comfort konfor")
COLOUR_MOODS = {
    "warm": frozenset({"red", "orange", "brown", "beige", "yellow", "pink"}),
    "fresh": frozenset({"white", "grey", "green", "teal", "blue"}),
    "bold": frozenset({"black", "purple"}),
}
STYLES = {
    "warm": ("Warm Minimal", "Cozy/Inviting"),
    "fresh": ("Clean Modern", "Fresh/Calm"),
    "bold": ("Bold Contemporary", "Elegant/Confident"),
}
MOOD_WORDS = {
    "warm": word_set("warm cozy cosy inviting rustic natural homely friendly"),
    "fresh": word_set("clean fresh calm minimal modern airy bright simple scandinavian"),
    "bold": word_set("bold elegant confident luxury premium urban street sleek dark contemporary"),
}

PLACES = {
    "sweep": "Seamless paper sweep in the studio with a smooth matte surface, large soft lamps from the side, "
    "gentle gradients and a soft contact shadow",
    "wall": "Plain plaster wall behind a smooth surface, slanted window light, soft edges and a quiet shadow",
    "room": "Living room interior behind a wooden table, softly blurred, with daylight from a window, a plant and a "
    "shelf in the distance",
    "outdoor": "Outdoor garden with blurred green foliage, a stone surface, dappled sunlight and fresh natural air",
    "beach": "Beach with pale sand, a blurred line of sea and clear sky, low sunlight and a crisp shadow",
    "dark": "Dark backdrop with a spotlight behind, polished dark marble surface with a faint reflection and deep, "
    "dramatic contrast",
}

LANGUAGE_NAMES = {
    "tr": word_set("turkish turkce tr"),
    "en": word_set("english ingilizce en"),
    "de": word_set("german deutsch almanca de"),
    "fr": word_set("french francais fransizca fr"),
    "es": word_set("spanish espanol castellano ispanyolca es"),
    "it": word_set("italian italiano italyanca it"),
    "pt": word_set("portuguese portugues portekizce pt"),
    "nl": word_set("dutch nederlands flemish nl"),
    "ru": word_set("russian русскии русском rusca ru"),
    "ar": word_set("arabic العربية عربي arapca ar"),
    "ja": word_set("japanese 日本語 nihongo japonca ja"),
}
"""Names of each language, accents removed, in English, in itself and in Turkish; the last Latin one is its code."""

NOUNS = {
    "tr": "Bu kupa|Bu ayakkabı|Bu şişe|Bu lamba|Bu çanta|Bu saat|Bu sandalye|Bu gömlek|Bu vazo|Bu kulaklık|Bu ürün",
    "en": "This mug|This shoe|This bottle|This lamp|This bag|This watch|This chair|This shirt|This vase|"
    "This pair of headphones|This piece",
    "de": "Dieser Becher|Dieser Schuh|Diese Flasche|Diese Lampe|Diese Tasche|Diese Uhr|Dieser Stuhl|Dieses Hemd|"
    "Diese Vase|Dieser Kopfhörer|Dieses Stück",
    "fr": "Cette tasse|Cette chaussure|Cette bouteille|Cette lampe|Ce sac|Cette montre|Cette chaise|Cette chemise|"
    "Ce vase|Ce casque|Cet objet",
    "es": "Esta taza|Este zapato|Esta botella|Esta lámpara|Este bolso|Este reloj|Esta silla|Esta camisa|"
    "Este jarrón|Este auricular|Este artículo",
    "it": "Questa tazza|Questa scarpa|Questa bottiglia|Questa lampada|Questa borsa|Questo orologio|Questa sedia|"
    "Questa camicia|Questo vaso|Questa cuffia|Questo oggetto",
    "pt": "Esta caneca|Este sapato|Esta garrafa|Este candeeiro|Esta bolsa|Este relógio|Esta cadeira|Esta camisa|"
    "Este vaso|Este auscultador|Este artigo",
    "nl": "Deze mok|Deze schoen|Deze fles|Deze lamp|Deze tas|Dit horloge|Deze stoel|Dit shirt|Deze vaas|"
    "Deze koptelefoon|Dit product",
    "ru": "Эта кружка|Эта обувь|Эта бутылка|Эта лампа|Эта сумка|Эти часы|Этот стул|Эта рубашка|Эта ваза|"
    "Эта гарнитура|Этот предмет",
    "ar": "هذا الكوب|هذا الحذاء|هذه الزجاجة|هذا المصباح|هذه الحقيبة|هذه الساعة|هذا الكرسي|هذا القميص|"
    "هذه المزهرية|هذه السماعة|هذا المنتج",
    "ja": "このマグカップ|このシューズ|このボトル|このランプ|このバッグ|この腕時計|このチェア|このシャツ|この花瓶|"
    "このヘッドホン|このアイテム",
}
"""In the order of PRODUCT_WORDS, and last the word for anything else."""

MOODS = ("warm", "fresh", "bold", "ergonomic")
SENTENCES = {
    "tr": (
        "{} günün en sıcak anlarına yakışan, sade ve samimi bir parça. Yumuşak tonlarıyla bulunduğu yere huzurlu bir "
        "hava katıyor.",
        "{} temiz çizgileriyle her güne ferah bir dokunuş katıyor. Yalın duruşu bulunduğu her ortama kolayca uyuyor.",
        "{} güçlü duruşuyla daha ilk bakışta fark ediliyor. Şık ve kendinden emin havası günlük anları özel kılıyor.",
        "{} ergonomik çizgileriyle gün boyu rahat bir kullanım için düşünüldü. Sade görünümü konforu şıklıkla "
        "buluşturuyor.",
    ),
    "en": (
        "{} brings a warm, easy-going touch to the quiet moments of the day. Its soft tones feel at home wherever it "
        "finds its place.",
        "{} adds a fresh note to every day with clean, simple lines. Its calm look fits in with almost any setting.",
        "{} makes an impression at first sight. Its confident, elegant look turns everyday moments into special ones.",
        "{} is shaped with ergonomics in mind, for comfort from morning to night. Its simple lines bring ease and "
        "style together.",
    ),
    "de": (
        "{} bringt Wärme in die ruhigen Augenblicke des Tages. Die sanften Töne fügen sich überall ein, wo man sich "
        "zu Hause fühlt.",
        "{} gibt jedem Tag mit klaren Linien eine frische Note. Die schlichte Form passt in fast jede Umgebung.",
        "{} fällt auf den ersten Blick auf. Die elegante, selbstbewusste Art macht aus alltäglichen Augenblicken "
        "besondere.",
        "{} ist auf Ergonomie ausgelegt und bleibt den ganzen Tag über angenehm. Die schlichten Linien verbinden "
        "Komfort mit Stil.",
    ),
    "fr": (
        "{} apporte une touche chaleureuse aux moments calmes de la journée. Ses tons doux trouvent leur place partout "
        "où l'on se sent bien.",
        "{} donne de la fraîcheur au quotidien avec des lignes nettes et simples. Son allure sobre s'accorde à presque "
        "tous les décors.",
        "{} se remarque au premier regard. Son élégance affirmée rend précieux les gestes de tous les jours.",
        "{} mise sur l'ergonomie pour un confort qui dure toute la journée. Ses lignes sobres réunissent l'aisance et "
        "le style.",
    ),
    "es": (
        "{} aporta calidez a los momentos tranquilos del día. Sus tonos suaves encajan allí donde uno se siente en "
        "casa.",
        "{} da un aire fresco a cada día con líneas limpias y sencillas. Su aspecto sereno combina con casi cualquier "
        "ambiente.",
        "{} llama la atención a primera vista. Su elegancia segura convierte lo cotidiano en algo especial.",
        "{} apuesta por la ergonomía para ofrecer comodidad durante todo el día. Sus líneas sencillas unen confort y "
        "estilo.",
    ),
    "it": (
        "{} porta calore nei momenti tranquilli della giornata. I suoi toni morbidi trovano posto ovunque ci si senta "
        "a casa.",
        "{} dà freschezza a ogni giorno con linee pulite ed essenziali. Il suo aspetto sobrio si adatta a quasi ogni "
        "ambiente.",
        "{} si fa notare al primo sguardo. La sua eleganza sicura rende speciali anche i gesti quotidiani.",
        "{} punta sull'ergonomia per un comfort che dura tutto il giorno. Le sue linee semplici uniscono comodità e "
        "stile.",
    ),
    "pt": (
        "{} traz calor aos momentos tranquilos do dia. Os seus tons suaves ficam bem onde quer que nos sintamos em "
        "casa.",
        "{} dá frescura a cada dia com linhas limpas e simples. O seu aspeto sereno combina com quase todos os "
        "ambientes.",
        "{} chama a atenção à primeira vista. A sua elegância segura torna especiais os momentos do dia a dia.",
        "{} aposta na ergonomia para oferecer conforto durante todo o dia. As suas linhas simples unem comodidade e "
        "estilo.",
    ),
    "nl": (
        "{} brengt warmte in de rustige momenten van de dag. De zachte tinten passen overal waar je je thuis voelt.",
        "{} geeft elke dag iets fris met heldere, eenvoudige lijnen. De rustige uitstraling past in bijna elk "
        "interieur.",
        "{} valt meteen op. De elegante, zelfverzekerde uitstraling maakt gewone momenten bijzonder.",
        "{} is gemaakt met oog voor ergonomie en blijft de hele dag prettig. De eenvoudige lijnen brengen comfort en "
        "stijl samen.",
    ),
    "ru": (
        "{} — немного тепла для спокойных минут каждого дня. Мягкие оттенки уместны везде, где хочется чувствовать "
        "себя как дома.",
        "{} — свежая нота в каждом дне и чистые, простые линии. Спокойный облик подходит почти к любой обстановке.",
        "{} — яркое впечатление с первого взгляда. Уверенная элегантность делает обычные минуты особенными.",
        "{} — продуманная эргономика и удобство на весь день. Простые линии соединяют комфорт и стиль.",
    ),
    "ar": (
        "مع {} تصبح اللحظات الهادئة أكثر دفئًا. الألوان الناعمة تناسب كل مكان تشعر فيه بالراحة.",
        "مع {} يبدأ كل يوم بلمسة منعشة وخطوط بسيطة. المظهر الهادئ ينسجم مع كل الأماكن تقريبًا.",
        "مع {} يلفت الحضور الأنظار من اللحظة الأولى. الأناقة الواثقة تجعل اللحظات اليومية مميزة.",
        "مع {} يجتمع التصميم المريح مع سهولة الاستخدام طوال اليوم. الخطوط البسيطة توحّد بين الراحة والأناقة.",
    ),
    "ja": (
        "{}は、穏やかなひとときに温もりを添えてくれます。やわらかな色合いが、どんな場所にも心地よくなじみます。",
        "{}は、すっきりとしたラインで毎日に爽やかさを添えます。落ち着いた佇まいで、さまざまな空間に自然に溶け込みます。",
        "{}は、ひと目で印象に残る存在感があります。自信に満ちた上品さが、日常を特別な時間に変えてくれます。",
        "{}は、人間工学を意識した形で一日中快適に使えます。シンプルなラインが、心地よさと美しさを結びます。",
    ),
}
"""Two sentences for each of MOODS."""


def plain(text: str) -> str:
    """Lower case without accents, so that "TÜRKÇE", "Türkçe" and "turkce" are one word."""
    folded = text.replace("ı", "i").replace("İ", "i").casefold()
    if folded.isascii():
        return folded
    return "".join(c for c in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(c))


def tokens(text: str) -> frozenset[str]:
    """The words of a text, plain."""
    return frozenset(re.findall(r"[^\W\d_]+", plain(text)))


def product_kind(text: str) -> str:
    """The product that a text or a file name speaks of: a key of PRODUCT_WORDS, or empty."""
    found = tokens(text)
    for kind, known in PRODUCT_WORDS.items():
        if found & known:
            return kind
    return next((kind for kind in PRODUCT_WORDS if len(kind) > 3 and any(kind in word for word in found)), "")
