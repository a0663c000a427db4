"""A safe reader of untrusted XML.

root = parse_xml(Path("244845.xml").read_bytes())     # an Element; attributes keep their prefix: root.get("xml:lang")
"""

from __future__ import annotations

from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate


class BadXml(ValueError):
    """The bytes are not XML that this module accepts; the message is the reason for the ledger."""


def parse_xml(content: bytes) -> Element:
    """The root element. BadXml if it is not well-formed, or declares an entity.

    Entities can expand to each other, which makes gigabytes of a few lines, or to files of this machine, so a declaration ends the parse.
    External parts of a document (a DTD by address) are never loaded.
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
