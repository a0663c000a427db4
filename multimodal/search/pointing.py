"""An error in a text that a person wrote, with a caret under the character where it is.

raise PointedError("query", "beach + (snow", 8, "this parenthesis is never closed")
"""

from __future__ import annotations

import unicodedata

from multimodal.errors import InputError

WINDOW = 30
"""Characters that an error shows on each side of its column."""


class PointedError(InputError):
    """A text does not parse. `column` counts characters from 1; the message shows the text, or what is near the column of a long one,
    with a caret under that character."""

    def __init__(self, what: str, text: str, position: int, problem: str) -> None:
        """what: what the text is, such as "query". position: of the character, from 0; the text's length for its end."""
        is_short = len(text) <= 2 * WINDOW
        start, stop = (0, len(text)) if is_short else (max(0, position - WINDOW), position + WINDOW)
        before = "…" * (start > 0) + _blank(text[start:position])
        after = _blank(text[position:stop]) + "…" * (stop < len(text))
        super().__init__(f"{what}, column {position + 1}: {problem}\n  {before}{after}\n  {' ' * _width(before)}^")
        self.column = position + 1


def brief(text: str) -> str:
    """A text as a message quotes it: its beginning, if it is long."""
    return _blank(text if len(text) <= WINDOW else f"{text[:WINDOW]}…")


def _blank(text: str) -> str:
    return "".join(" " if character.isspace() else character for character in text)


def _width(text: str) -> int:
    """Terminal columns that the text fills, so that the caret is under its character in any script."""
    return sum(0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
