"""Text of articles out of wiki markup, until `data_prep.wikitext` reads it, which knows all of it.

plain_text("'''Tides''' are [[sea|of the sea]].{{cite}}")     # "Tides are of the sea."
"""

from __future__ import annotations

import re

from multimodal.text.normalise import strip_wiki

_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r" ?\n[ \n]*")


def plain_text(markup: str) -> str:
    """What a reader sees of an article's running text, its paragraphs on lines of their own; tables, templates and references go."""
    return _BLANK_LINES.sub("\n", _BLANKS.sub(" ", strip_wiki(markup))).strip()
