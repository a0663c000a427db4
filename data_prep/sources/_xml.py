"""XML from elsewhere, read without what makes XML dangerous.

root = parse_xml(Path("244845.xml").read_bytes())     # an Element; attributes keep their prefix: root.get("xml:lang")
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate


class BadXml(ValueError):
    """The bytes are not XML that is read here; the message is the reason for the ledger."""


def parse_xml(content: bytes) -> Element:
    """The root element. BadXml where it is not well-formed, or declares an entity.

    Entities that a document declares can stand for each other, which makes gigabytes of a few lines, or for files of this machine, so a
    declaration ends the parse. What lies outside the document (a DTD by address) is never fetched.
    """
    builder, parser = TreeBuilder(), ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(content, True)
    except ExpatError as error:
        raise BadXml(f"is not XML: {error}") from None
    return builder.close()


def _refuse(name: str, *_: object) -> NoReturn:
    raise BadXml(f"declares the entity {name!r}, which is not read")
