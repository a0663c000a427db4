"""Text of strangers on a terminal, and in JSON."""

from __future__ import annotations

import json

import pytest

from multimodal.doors.printable import json_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red\x1b[2J\x07", r"red\x1b[2J\x07"),
        ("abc\u202egpj.exe", r"abc\u202egpj.exe"),
        ("half \ud800 pair", r"half \ud800 pair"),
        ("\x9b31m", r"\x9b31m"),
        ("back\rover", r"back\x0dover"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("café 漢字 👩\u200d🔬 עברית", "café 漢字 👩\u200d🔬 עברית"),
    ],
)
def test_control_characters_are_written_out_and_letters_stay(text: str, shown: str) -> None:
    assert printable(text).replace(r"\r", r"\x0d") == shown
    assert json.loads(json_text([text])) == [text]
    assert not any(ord(letter) in range(0x7F, 0xA0) or ord(letter) < 32 for letter in json_text(text))
