"""Untrusted text on a terminal: characters that move the cursor, set colours or reverse the line are escaped.

print(printable(caption))       # "\\x1b[2J" if a caption holds the escape that clears the screen
"""

from __future__ import annotations

import re
from typing import Any

# C0 except tab and line end, DEL and C1, marks of direction, line and paragraph separators, halves of surrogate pairs
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters escaped as in Python; emoji, accents and every script stay."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def json_text(value: Any, indent: int | None = None) -> str:
    """The value as JSON, with letters of any script unescaped and control characters as JSON escapes."""
    import json

    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False, indent=indent))
