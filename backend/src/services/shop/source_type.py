"""IPTC's DigitalSourceType, which states inside a picture file that a model helped to make it.

It is an XMP property, `Iptc4xmpExt:DigitalSourceType`, whose value is a URL of IPTC's vocabulary
(https://cv.iptc.org/newscodes/digitalsourcetype/). Saving a picture anew loses it unless it is passed on: every picture
of ours is saved by `saved`. Pillow writes XMP into JPEG and WebP, and leaves it out of PNG and TIFF without a word.
"""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

from PIL import Image, PngImagePlugin

from services.fal.errors import InvalidInput

VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
PNG_KEYWORD = "XML:com.adobe.xmp"
TIFF_TAG = 700
COMPOSITE = "compositeWithTrainedAlgorithmicMedia"
"""A real product on a background that a model made."""
GENERATED = frozenset(
    {
        "trainedAlgorithmicMedia",
        "compositeWithTrainedAlgorithmicMedia",
        "algorithmicMedia",
        "compositeSynthetic",
    }
)
"""The values that say that a model, or an algorithm, made at least a part."""
LARGEST_XMP = 1_000_000
"""Bytes; packets have a few thousand."""


def xmp(source_type: str) -> bytes:
    """An XMP packet that says nothing but this DigitalSourceType, such as "trainedAlgorithmicMedia"."""
    if not re.fullmatch(r"[A-Za-z]{1,80}", source_type):
        raise InvalidInput(f"A DigitalSourceType is a word of IPTC's vocabulary, not {source_type[:80]!r}.")
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="{IPTC_EXT}">'
        f"<Iptc4xmpExt:DigitalSourceType>{VOCABULARY}{source_type}</Iptc4xmpExt:DigitalSourceType>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


def saved(picture: Image.Image, format: str, source_type: str | None, **options: Any) -> bytes:
    """The file of `picture` as JPEG, PNG or WEBP, with its DigitalSourceType when there is one.

    Raises InvalidInput for a format that would lose it; `options` are Pillow's.
    """
    if source_type is not None:
        packet = xmp(source_type)
        if format in ("JPEG", "WEBP"):
            options["xmp"] = packet
        elif format == "PNG":
            chunks = options.setdefault("pnginfo", PngImagePlugin.PngInfo())
            chunks.add_itxt(PNG_KEYWORD, packet.decode())
        else:
            raise InvalidInput(f"{format} files cannot state that a model made them. Choose JPEG, PNG or WEBP.")
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def source_type_of(picture: Image.Image) -> str | None:
    """The DigitalSourceType that an opened file carries, as the last part of its URL; None without one."""
    packet = _packet(picture)
    if packet is None or len(packet) > LARGEST_XMP or b"<!" in packet:
        # A document type is not part of XMP; it is where entities that grow without end would be defined.
        return None
    try:
        tree = ElementTree.fromstring(_bare(packet))
    except ElementTree.ParseError:
        return None
    name = f"{{{IPTC_EXT}}}DigitalSourceType"
    for element in tree.iter():
        value = element.get(name)
        if element.tag == name:
            value = element.get(f"{{{RDF}}}resource") or element.text
        if value and (word := value.strip().rstrip("/").rsplit("/", 1)[-1]) and re.fullmatch(r"[A-Za-z]{1,80}", word):
            return word
    return None


def passed_on(*source_types: str | None, behind: str | None = None) -> str | None:
    """What a composition of pictures with these types says, on a background of the type `behind`."""
    known = next((one for one in source_types if one is not None), None)
    if known is None and behind in GENERATED:
        return COMPOSITE
    return known


def _packet(picture: Image.Image) -> bytes | None:
    found = picture.info.get("xmp") or picture.info.get(PNG_KEYWORD)
    if found is None and picture.format == "TIFF":
        found = getattr(picture, "tag_v2", {}).get(TIFF_TAG)
    if isinstance(found, str):
        return found.encode()
    return bytes(found) if isinstance(found, bytes) else None


def _bare(packet: bytes) -> str:
    """Without the wrapper and what pads it."""
    text = packet.decode("utf-8", "replace").strip("\x00\ufeff \r\n\t")
    return re.sub(r"<\?xpacket[^>]*\?>", "", text).strip("\x00\ufeff \r\n\t")
