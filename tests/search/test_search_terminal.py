"""Thumbnails in a terminal: each way shows the picture, as a small reader of it sees; the terminal is asked, and a pipe is refused."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from multimodal import cli
from multimodal.search.terminal import GAP, TILE, Screen, Tile, draw, way_from, way_of

COLUMNS, LINES = TILE
CELL = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+)(?:;48;2;(\d+);(\d+);(\d+))?m▀")


def encoded(size: tuple[int, int]) -> bytes:
    """A picture with a colour of its own in each quarter."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    middle, centre = size[1] // 2, size[0] // 2
    pixels[:middle, :centre], pixels[:middle, centre:] = (250, 10, 10), (10, 250, 10)
    pixels[middle:, :centre], pixels[middle:, centre:] = (10, 10, 250), (250, 250, 10)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def read_blocks(text: str) -> np.ndarray:
    """The pixels (h, w, 3) of one picture of half blocks."""
    rows: list[list[list[int]]] = []
    for line in text.split("\n")[:LINES]:
        cells = [[int(value or 0) for value in cell] for cell in CELL.findall(line)]
        rows += [[cell[:3] for cell in cells], [cell[3:] for cell in cells]]
    width = len(rows[0])
    return np.array([row for row in rows if len(row) == width])


def read_sixel(text: str) -> np.ndarray:
    """The pixels (h, w, 3) of one picture of sixels, by the rules of DEC's manual."""
    [body] = re.findall(r"\x1bPq(.*?)\x1b\\", text, re.DOTALL)
    width, height = map(int, re.findall(r'^"1;1;(\d+);(\d+)', body)[0])
    pixels, palette, colour, x, y = np.full((height + 6, width, 3), -1), {}, 0, 0, 0
    for define, red, green, blue, use, num, repeated, sign in re.findall(
        r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~$-])", body.split(";", 3)[3].lstrip("0123456789")
    ):
        if define:
            palette[int(define)] = [int(value) * 2.55 for value in (red, green, blue)]
        elif use:
            colour = int(use)
        elif sign == "$":
            x = 0
        elif sign == "-":
            x, y = 0, y + 6
        else:
            for _ in range(int(num or 1)):
                for bit in range(6):
                    if (ord(sign or repeated) - 63) >> bit & 1:
                        pixels[y + bit, x] = palette[colour]
                x += 1
    return pixels[:height]


def read_kitty(text: str) -> np.ndarray:
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert [head.endswith("m=1") for head, _ in pieces] == [True] * (len(pieces) - 1) + [False]
    assert all(len(data) <= 4096 for _, data in pieces) and "a=T" in pieces[0][0]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces)))).convert("RGB"))


READERS = {"blocks": read_blocks, "sixel": read_sixel, "kitty": read_kitty}


@pytest.mark.parametrize("size", [(96, 96), (96, 30), (20, 90), (3, 2)])
@pytest.mark.parametrize("way", READERS)
def test_each_way_shows_the_whole_picture_upright_and_in_its_colours(way, size):
    seen = READERS[way](draw([Tile(encoded(size), "a")], way, Screen(80)))
    height, width = seen.shape[:2]
    corners = [
        seen[height // 8, width // 8],
        seen[height // 8, -1 - width // 8],
        seen[-1 - height // 8, width // 8],
        seen[-1 - height // 8, -1 - width // 8],
    ]
    if min(size) > 2:
        for corner, colour in zip(corners, [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)], strict=True):
            assert np.abs(corner - np.array(colour)).max() <= 12  # sixels have colours in per cent, in a palette
    most = (COLUMNS, 2 * LINES) if way == "blocks" else (COLUMNS * 10, LINES * 20)
    assert width <= most[0] and height <= most[1] and (most[0] - width < 2 or most[1] - height < 7)


@pytest.mark.parametrize("columns", [1, 10, 24, 80, 200])
@pytest.mark.parametrize("num", [1, 4, 11])
def test_no_line_of_blocks_is_wider_than_the_terminal(columns, num):
    tiles = [Tile(encoded((40, 40)) if number % 3 else None, f"{number} a dog 狗 on\x1b[2J a beach with its ball") for number in range(num)]
    drawn = draw(tiles, "blocks", Screen(columns))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert "\x1b" not in plain
    in_line = max(1, (columns + GAP) // (min(columns, COLUMNS) + GAP))
    lines = plain.split("\n")
    assert len(lines) == -(-num // in_line) * (LINES + 2) + 1
    assert all(len(line) + line.count("狗") <= columns for line in lines)


@pytest.mark.parametrize("way", ["kitty", "sixel"])
def test_graphics_leave_the_cursor_where_the_caption_goes(way):
    drawn = draw([Tile(encoded((40, 40)), "one"), Tile(None, "two")], way, Screen(80))
    assert drawn.startswith("\n" * LINES + f"\x1b[{LINES}A\r") and f"\x1b[{LINES}B\rone" in drawn
    assert drawn.count("\x1b7") == drawn.count("\x1b8") == 1


@pytest.mark.parametrize(
    ("told", "way"),
    [
        (b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c", "kitty"),
        (b"\x1b[?62;4;22c", "sixel"),
        (b"\x1b[?64;14;24c", "blocks"),
        (b"\x1b_Gi=31;ENOTSUPPORTED\x1b\\\x1b[?6c", "blocks"),
        (b"", "blocks"),
    ],
)
def test_the_way_is_what_the_terminal_says(told, way):
    assert way_from(told) == way


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
@pytest.mark.parametrize(("told", "way"), [(b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c", "kitty"), (b"\x1b[?62;4c", "sixel")])
def test_a_terminal_is_asked_and_stays_as_it_was(told, way):
    import termios

    master, slave = os.openpty()

    def answer():
        asked = b""
        while not asked.endswith(b"\x1b[c"):
            asked += os.read(master, 100)
        os.write(master, told)

    thread = Thread(target=answer)
    with os.fdopen(slave, "r+b", buffering=0) as raw:
        keyboard = io.TextIOWrapper(raw, write_through=True)
        before = termios.tcgetattr(slave)
        thread.start()
        assert way_of(keyboard, keyboard) == way and termios.tcgetattr(slave) == before
        thread.join()
        keyboard.detach()
    os.close(master)


def test_pictures_never_go_into_a_pipe(store_of_forty, capsys):
    for given in ("--pictures", "--pictures=kitty"):
        assert cli.main(["search", "--store", str(store_of_forty), "woman", given]) == 2
        told = capsys.readouterr()
        assert told.out == "" and "draws in a terminal" in told.err
    assert cli.main(["search", "--store", str(store_of_forty), "woman", "--pictures", "--json"]) == 2
    assert cli.main(["search", "--store", str(store_of_forty), "woman", "--pictures=ansi"]) == 2
    assert "ansi" in capsys.readouterr().err
