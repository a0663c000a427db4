"""Thumbnails in a terminal: as kitty's graphics, as sixels, or as half blocks in 24-bit colour, which every modern terminal shows.

    way = way_of(sys.stdin, sys.stdout)                         # "kitty", "sixel" or "blocks": what the terminal says that it can
    sys.stdout.write(draw([Tile(thumbnail, "1  a dog")], way, screen_of(sys.stdout)))

Protocols: kitty's graphics (https://sw.kovidgoyal.net/kitty/graphics-protocol/), DEC's sixel (VT330/340 Programmer Reference, vol. 2,
ch. 14), and primary device attributes (DA1), in whose answer a 4 means sixel. A terminal that knows neither does not answer the first and
answers the second, so nobody waits for a silent one longer than WAIT_S.
"""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import struct
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np
from PIL import Image

from multimodal.doors.printable import printable
from multimodal.pictures.decode import BadPicture, picture

Way = Literal["kitty", "sixel", "blocks"]

WAIT_S = 0.5
"""For the terminal's answer; over a slow connection it may take half of this."""
TILE = (24, 11)
"""Columns and lines of a picture: about square, since a cell is twice as high as wide."""
GAP = 2
CELL_PX = (10, 20)
"""Of a terminal that does not say how large its cells are."""
_ASK_KITTY = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
_ASK_ATTRIBUTES = "\x1b[c"
_ATTRIBUTES = re.compile(rb"\x1b\[\?([0-9;]*)c")
_CHUNK = 4096
_BAND = 6  # pixels of a sixel


@dataclass(frozen=True, slots=True)
class Screen:
    """columns: of the terminal. cell_px: width and height of a cell."""

    columns: int
    cell_px: tuple[int, int] = CELL_PX


@dataclass(frozen=True, slots=True)
class Tile:
    """encoded: the picture's file, None where there is none. caption: one line, not trusted."""

    encoded: bytes | None
    caption: str


def way_of(keyboard: IO[str], screen: IO[str]) -> Way:
    """What the terminal says that it can; blocks if it says nothing, or there is no way to hear it."""
    try:
        import select
        import termios
        import tty
    except ImportError:  # Windows
        return "blocks"
    try:
        before = termios.tcgetattr(keyboard)
    except (OSError, termios.error):  # the keyboard is a file
        return "blocks"
    told = b""
    try:
        tty.setcbreak(keyboard.fileno(), termios.TCSANOW)
        screen.write(_ASK_KITTY + _ASK_ATTRIBUTES)
        screen.flush()
        end = time.monotonic() + WAIT_S
        while not _ATTRIBUTES.search(told) and (left := end - time.monotonic()) > 0:
            if select.select([keyboard], [], [], left)[0]:
                told += os.read(keyboard.fileno(), 256)
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)
    return way_from(told)


def way_from(told: bytes) -> Way:
    """The way that a terminal's answer to both questions means."""
    if b"\x1b_Gi=31;OK" in told:
        return "kitty"
    attributes = _ATTRIBUTES.search(told)
    return "sixel" if attributes and b"4" in attributes[1].split(b";") else "blocks"


def screen_of(output: IO[str]) -> Screen:
    """How large the terminal is."""
    columns = shutil.get_terminal_size().columns
    try:
        import fcntl
        import termios

        rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(output.fileno(), termios.TIOCGWINSZ, bytes(8)))
    except (ImportError, OSError):
        return Screen(columns)
    columns = columns or shutil.get_terminal_size().columns
    return Screen(columns, (width // columns, height // rows) if width >= columns and height >= rows > 0 else CELL_PX)


def draw(tiles: Sequence[Tile], way: Way, screen: Screen) -> str:
    """The pictures side by side, as many in a line as fit, each over its caption."""
    columns, lines = min(TILE[0], screen.columns), TILE[1]
    in_line = max(1, (screen.columns + GAP) // (columns + GAP))
    one = {"kitty": _kitty, "sixel": _sixel, "blocks": _blocks}[way]
    drawn = []
    for start in range(0, len(tiles), in_line):
        some = tiles[start : start + in_line]
        pictures = [one(_fitted(tile, columns, lines, screen.cell_px, way), columns, lines, screen.cell_px) for tile in some]
        drawn.append(_side_by_side(pictures, columns, lines) if way == "blocks" else _placed(pictures, columns, lines))
        drawn.append((" " * GAP).join(_cut(tile.caption, columns) for tile in some).rstrip() + "\n\n")
    return "".join(drawn)


def _fitted(tile: Tile, columns: int, lines: int, cell_px: tuple[int, int], way: Way) -> Image.Image | None:
    """The picture in as many pixels as its place has; None where there is none."""
    if tile.encoded is None:
        return None
    try:
        image = picture(tile.encoded)
    except BadPicture:
        return None
    width, height = (columns, 2 * lines) if way == "blocks" else (columns * cell_px[0], lines * cell_px[1])
    pixel = cell_px[0] / (cell_px[1] / 2) if way == "blocks" else 1.0  # width over height of a half block
    scale = min(width * pixel / image.width, height / image.height)
    size = (max(1, min(width, round(image.width * scale / pixel))), max(1, min(height, round(image.height * scale))))
    return image.resize(size, Image.Resampling.LANCZOS if size[0] < image.width else Image.Resampling.BICUBIC)


# -- pictures as graphics: drawn where the cursor is, which comes back -------------------------------------------------------------------


def _placed(pictures: Sequence[str], columns: int, lines: int) -> str:
    """Graphics side by side; the cursor ends below them. The lines are made first, since a picture must not scroll the screen."""
    steps = [f"\x1b[{place * (columns + GAP)}C" if place else "" for place in range(len(pictures))]
    right = "".join(f"\x1b7{step}{picture}\x1b8" for step, picture in zip(steps, pictures, strict=True) if picture)
    return "\n" * lines + f"\x1b[{lines}A\r" + right + f"\x1b[{lines}B\r"


def _kitty(image: Image.Image | None, columns: int, lines: int, cell_px: tuple[int, int]) -> str:
    """The picture as PNG, in pieces; the terminal does not move the cursor (C=1) and answers nothing (q=2)."""
    if image is None:
        return ""
    file = io.BytesIO()
    image.save(file, "png", compress_level=1)
    data = base64.standard_b64encode(file.getvalue()).decode()
    pieces = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    last = len(pieces) - 1
    heads = [("a=T,f=100,C=1,q=2," if number == 0 else "") + f"m={int(number < last)}" for number in range(len(pieces))]
    return "".join(f"\x1b_G{head};{piece}\x1b\\" for head, piece in zip(heads, pieces, strict=True))


def _sixel(image: Image.Image | None, columns: int, lines: int, cell_px: tuple[int, int]) -> str:
    """The picture in 255 colours: for each band of six lines and each colour in it, the pixels that have it."""
    if image is None:
        return ""
    image = image.crop((0, 0, image.width, image.height - image.height % _BAND or image.height))
    reduced = image.quantize(255)
    palette = np.asarray(reduced.getpalette() or [], np.uint8).reshape(-1, 3)
    pixels = np.asarray(reduced)
    used = np.unique(pixels)
    colours = "".join(
        "#{};2;{};{};{}".format(colour, *(round(value / 2.55) for value in palette[colour].tolist())) for colour in used.tolist()
    )
    bands = []
    for top in range(0, len(pixels), _BAND):
        band = pixels[top : top + _BAND]
        bits = (1 << np.arange(len(band)))[:, None]
        strips = [f"#{colour}{_runs(((band == colour) * bits).sum(axis=0))}" for colour in np.unique(band).tolist()]
        bands.append("$".join(strips))
    return f'\x1bPq"1;1;{image.width};{image.height}{colours}{"-".join(bands)}\x1b\\'


def _runs(values: np.ndarray) -> str:
    """Sixels, equal ones in a row as `!number`."""
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    lengths = np.diff(starts, append=len(values))
    signs = [chr(63 + value) for value in values[starts].tolist()]
    return "".join(sign * length if length < 4 else f"!{length}{sign}" for sign, length in zip(signs, lengths.tolist(), strict=True))


# -- pictures as text --------------------------------------------------------------------------------------------------------------------


def _blocks(image: Image.Image | None, columns: int, lines: int, cell_px: tuple[int, int]) -> str:
    """Each character is two pixels: the upper half block in the colour of the upper one, on the colour of the lower one."""
    rows = []
    pixels = np.asarray(image) if image is not None else np.zeros((0, 0, 3), np.uint8)
    for top in range(0, 2 * lines, 2):
        upper, lower = (pixels[at] if at < len(pixels) else None for at in (top, top + 1))
        if upper is None:
            rows.append(" " * columns)
            continue
        cells = []
        for place, colour in enumerate(upper.tolist()):
            below = "" if lower is None else ";48;2;{};{};{}".format(*lower[place].tolist())
            cells.append("\x1b[38;2;{};{};{}".format(*colour) + below + "m▀")
        rows.append("".join(cells) + "\x1b[0m" + " " * (columns - len(upper)))
    return "\n".join(rows)


def _side_by_side(pictures: Sequence[str], columns: int, lines: int) -> str:
    split = [picture.split("\n") for picture in pictures]
    return "".join((" " * GAP).join(rows[line] for rows in split).rstrip(" ") + "\n" for line in range(lines))


def _cut(text: str, columns: int) -> str:
    """A line of exactly so many columns; wide characters, as of Chinese or emoji, take two."""
    line, width = "", 0
    for letter in printable(" ".join(text.split())):
        wide = 0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if width + wide > columns:
            break
        line, width = line + letter, width + wide
    return line + " " * (columns - width)
