"""The parts of a picture file that hold its pixels, and its orientation; everything else is left out before a decoder sees it.

    plain = pixels_alone(encoded)         # plain.format "PNG", plain.encoded, plain.orientation 1

Cameras, editors and servers write EXIF, colour profiles, comments, thumbnails and whole workflows beside the pixels, and any of these may
be broken. None of it is used here, so none of it may cost the picture, or time or memory: a compressed text in a PNG can be a
decompression bomb. The pixels are the same to the bit.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PICTURE_SUFFIXES = frozenset("jpg jpeg jpe jfif png webp avif gif bmp tif tiff heic heif jp2 jxl".split())
"""Suffixes of picture files, in lower case. The format is decided by a file's bytes; some of these formats are not read."""
MAX_SCANS = 64
"""Passes over a JPEG's pixels. Each takes the time of all pixels, however few bytes it has: 661 kB with 3,000 scans took 157 s. Encoders
write 3 to 20.
"""
MAX_TEXT_BYTES = 1 << 20
"""The most that is read of a compressed text in a PNG, which may hold the orientation."""

AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_OURS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF"}
_OTHERS = {b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}  # decoded, but not stored in shards
_UNSUPPORTED = {b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tiff", b"MM\0*": "tiff", b"\xff\x0a": "jxl", b"\0\0\0\x0cjP  ": "jp2"}
_ORIENTATION = 0x0112
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # in a JPEG's entropy-coded data a 0xff is followed by 0, or by a restart
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_AVIF_EXIF = re.compile(rb"(infe[\x02\x03].{7,9})Exif", re.DOTALL)  # an entry in the list of items: version, flags, id, protection, type


@dataclass(frozen=True, slots=True)
class PixelFile:
    """format: Pillow's name for it. encoded: the file reduced to its pixels. orientation: EXIF's, 1 to 8; 1 is upright.

    exif: what was said beside the pixels, as a TIFF structure; b"" if there is none, or if only a decoder finds it (AVIF, HEIF).
    """

    format: str
    encoded: bytes
    orientation: int = 1
    exif: bytes = b""


def picture_format(head: bytes) -> str:
    """Our extension for the format that a file's first bytes (64 are enough) announce, or "" for formats that shards do not store."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":  # then come brands, up to its length: the main one, a version, and further compatible ones
        return "avif" if any(brand in AVIF_BRANDS for brand in _brands(head)) else ""
    return ""


def why_unsupported(head: bytes) -> str:
    """Why `picture_format` does not accept a file: the reason for a ledger."""
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp":
        return f"unsupported format: {head[8:12].decode('ascii', 'replace').strip()}"
    for start, name in _UNSUPPORTED.items():
        if head.startswith(start):
            return f"unsupported format: {name}"
    return "not a picture: its first bytes are those of no format we read (jpg, png, webp, avif)"


def pixels_alone(encoded: bytes) -> PixelFile | None:
    """The part of a file that is decoded; None if its first bytes belong to no known format. Never raises."""
    format = _format(encoded)
    match format:
        case "JPEG":
            return _jpeg(encoded)
        case "PNG":
            return _png(encoded)
        case "WEBP":
            return _webp(encoded)
        case "AVIF":  # a property of its own holds the orientation; Pillow would fail on EXIF that it cannot read
            return PixelFile(format, _AVIF_EXIF.sub(rb"\1none", encoded))
        case "TIFF":
            return PixelFile(format, encoded, exif=encoded)
        case _:
            return None if format is None else PixelFile(format, encoded)


def jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, stop) of each segment of a JPEG's header, in bytes; the last one is 0xDA, where the pixels begin.

    Ends early if the bytes that follow are not a whole segment.
    """
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        if encoded[at + 1] == 0xFF:  # any number of these may precede a marker
            at += 1
            continue
        marker, length = struct.unpack_from(">BH", encoded, at + 1)
        stop = at + 2 + length
        if length < 2 or stop > len(encoded) or marker <= 1 or 0xD0 <= marker <= 0xD9:
            return
        yield marker, at, stop
        if marker == 0xDA:
            return
        at = stop


def has_too_many_scans(encoded: bytes) -> bool:
    """Whether a JPEG has more than MAX_SCANS scans. First counts the marker in all bytes, which is fast and never finds too few."""
    if encoded.count(b"\xff\xda") <= MAX_SCANS:
        return False
    at = next((stop for marker, _, stop in jpeg_segments(encoded) if marker == 0xDA), len(encoded))
    num_scans = 1
    while found := _MARKER.search(encoded, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            break
        num_scans += marker == 0xDA
        if marker > 1 and marker != 0xD8 and at + 2 <= len(encoded):  # a segment: skip its contents
            at += max(struct.unpack_from(">H", encoded, at)[0], 2)
    return num_scans > MAX_SCANS


def jpeg_orientation(encoded: bytes) -> int:
    """1 to 8 by EXIF, or by XMP if EXIF has none; 1 if neither can be read."""
    return _orientation(*_jpeg_exif_and_xmp(encoded))


def _jpeg_exif_and_xmp(encoded: bytes) -> tuple[bytes, bytes]:
    exif, xmp = b"", b""
    for marker, start, stop in jpeg_segments(encoded):
        if marker == 0xE1:
            content = encoded[start + 4 : stop]
            if content.startswith(_EXIF):
                exif += content[len(_EXIF) :]
            elif content.startswith(_XMP):
                xmp = content[len(_XMP) :]
    return exif, xmp


def exif_orientation(exif: bytes) -> int | None:
    """The orientation in the first directory of a TIFF structure; None if there is none, or it cannot be read."""
    while exif.startswith(_EXIF):
        exif = exif[len(_EXIF) :]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return None
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    if directory + 2 > len(exif):
        return None
    (num_entries,) = struct.unpack_from(f"{order}H", exif, directory)
    found = None
    for entry in range(directory + 2, min(directory + 2 + 12 * num_entries, len(exif) - 11), 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", exif, entry)
        if tag == _ORIENTATION and count == 1 and kind in (1, 3, 4):  # a byte, a short or a long number
            (found,) = struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], exif, entry + 8)
    return found


def _format(encoded: bytes) -> str | None:
    if ours := picture_format(encoded[:64]):
        return _OURS[ours]
    if encoded[4:8] == b"ftyp" and any(brand in HEIF_BRANDS for brand in _brands(encoded[:64])):
        return "HEIF"
    return next((format for start, format in _OTHERS.items() if encoded.startswith(start)), None)


def _brands(head: bytes) -> list[bytes]:
    """What a file of the family of MP4 says that it can be read as."""
    return [head[start : start + 4] for start in range(8, min(int.from_bytes(head[:4], "big"), 64), 4)]


def _jpeg(encoded: bytes) -> PixelFile:
    """The file without comments and application data, except the two segments that define the colours: JFIF's and Adobe's, if whole."""
    view = memoryview(encoded)
    kept, at = [view[:2]], 2
    for marker, start, stop in jpeg_segments(encoded):
        is_application = 0xE0 <= marker <= 0xEF
        says_colours = (marker == 0xE0 and encoded.startswith(b"JFIF\0", start + 4) and stop - start >= 18) or (
            marker == 0xEE and encoded.startswith(b"Adobe", start + 4) and stop - start >= 16
        )
        if says_colours or not (is_application or marker == 0xFE):
            kept.append(view[start:stop])
        at = stop
    exif, xmp = _jpeg_exif_and_xmp(encoded)
    return PixelFile("JPEG", b"".join([*kept, view[at:]]), _orientation(exif, xmp), exif)


def _png(encoded: bytes) -> PixelFile:
    """The chunks that hold pixels. A transparency chunk with a wrong checksum or length is left out, as in libpng."""
    view = memoryview(encoded)
    kept: list[memoryview] = [view[:8]]
    exif = raw_exif = xmp = b""
    at = 8
    while at + 8 <= len(encoded):
        size, kind = struct.unpack_from(">I4s", encoded, at)
        start, stop = at + 8, at + 8 + size
        is_ancillary = bool(kind[0] & 0x20)
        if not kind.isalpha() or stop + 4 > len(encoded):
            if not is_ancillary or not kind.isalpha():
                kept.append(view[at:])  # cut off: the decoder says so
            break
        if kind == b"tRNS":
            wanted = {b"\0": 2, b"\2": 6}.get(encoded[25:26], 0)  # by the colour type: a grey level, or a colour
            is_valid = size >= wanted and zlib.crc32(view[at + 4 : stop]) == struct.unpack_from(">I", encoded, stop)[0]
            if is_valid:
                kept.append(view[at : stop + 4])
        elif kind == b"eXIf":
            exif = encoded[start:stop]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            if encoded.startswith(b"Raw profile type exif\0", start):
                raw_exif = _png_text(kind, encoded[start:stop])
            elif encoded.startswith(b"XML:com.adobe.xmp\0", start):
                xmp = _png_text(kind, encoded[start:stop])
        elif not is_ancillary:
            kept.append(view[at : stop + 4])
        at = stop + 4
        if kind == b"IEND":
            break
    if not exif and raw_exif:  # ImageMagick's: a name, a length, and the bytes as hexadecimal digits
        digits = b"".join(raw_exif.split(b"\n")[3:])
        exif = bytes.fromhex(digits.decode()) if re.fullmatch(rb"([0-9A-Fa-f]{2})*", digits) else b""
    return PixelFile("PNG", b"".join(kept), _orientation(exif, xmp), exif)


def _png_text(kind: bytes, content: bytes) -> bytes:
    """The text after a keyword, at most its first MAX_TEXT_BYTES; b"" if it cannot be read."""
    rest = content.partition(b"\0")[2]
    is_compressed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if not is_compressed:
        return rest[:MAX_TEXT_BYTES]
    try:
        return zlib.decompressobj().decompress(rest, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _webp(encoded: bytes) -> PixelFile:
    """The chunks that hold pixels; a file without others is left as it is."""
    if encoded[12:16] != b"VP8X":
        return PixelFile("WEBP", encoded)
    kept: list[bytes] = []
    exif = xmp = b""
    at, end = 12, min(len(encoded), 8 + struct.unpack_from("<I", encoded, 4)[0])
    while at + 8 <= end:
        kind, size = struct.unpack_from("<4sI", encoded, at)
        stop = at + 8 + size
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            if stop > end:
                return PixelFile("WEBP", encoded)  # cut off: the decoder says so
            kept.append(encoded[at:stop] + b"\0" * (size % 2))
        elif kind == b"EXIF":
            exif = encoded[at + 8 : min(stop, end)]
        elif kind == b"XMP ":
            xmp = encoded[at + 8 : min(stop, end)]
        at = stop + size % 2
    if kept and len(kept[0]) > 8:
        flags = kept[0][8] & ~0b00101100  # clears: has a colour profile, EXIF, XMP
        kept[0] = kept[0][:8] + bytes([flags]) + kept[0][9:]
    content = b"WEBP" + b"".join(kept)
    return PixelFile("WEBP", b"RIFF" + struct.pack("<I", len(content)) + content, _orientation(exif, xmp), exif)


def _orientation(exif: bytes, xmp: bytes) -> int:
    found = exif_orientation(exif)
    if found is None:
        said = _XMP_ORIENTATION.search(xmp)
        found = int(said[1]) if said else 1
    return found if 1 <= found <= 8 else 1
