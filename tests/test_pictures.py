"""What the one decoder shows and refuses, of files as cameras, editors and servers leave them."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from multimodal.data.decode import Decoded, centre, random_crop
from multimodal.pictures.decode import (
    MAX_JPEG_PIXELS,
    MAX_PIXELS,
    BadPicture,
    check_decodes,
    claimed_size,
    picture,
    plain_jpeg_size,
)
from multimodal.pictures.formats import MAX_SCANS, pixels_alone

WIDTH, HEIGHT = 48, 32


def scene(width: int = WIDTH, height: int = HEIGHT, mode: str = "RGB") -> Image.Image:
    low = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(file: bytes) -> np.ndarray:
    """As the decoder shows them; and `check_decodes`, which make-shards asks, has to agree."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = np.asarray(picture(file))
        check_decodes(file)
    return shown


def refused(file: bytes, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for look in (picture, check_decodes, lambda file: centre(file, 16), lambda file: random_crop(file, 16, 7)):
            with pytest.raises(BadPicture, match=reason):
                look(file)


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_with(*chunks: bytes, image: Image.Image | None = None, last: bool = False) -> bytes:
    """A PNG with chunks of one's own behind its header, or before its end."""
    whole = encoded(image or scene())
    at = len(whole) - 12 if last else 33
    return whole[:at] + b"".join(chunks) + whole[at:]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_with(*segments: bytes, **options: object) -> bytes:
    whole = encoded(scene(), "JPEG", **options)
    return whole[:2] + b"".join(segments) + whole[2:]


def webp_with(*chunks: tuple[bytes, bytes], cut: int = 0, **options: object) -> bytes:
    """An extended WebP (it has a colour profile) with chunks behind its pixels."""
    whole = encoded(scene(), "WEBP", lossless=True, icc_profile=b"p" * 20, **options)
    whole += b"".join(kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for kind, content in chunks)
    whole = whole[: len(whole) - cut]
    return whole[:4] + struct.pack("<I", len(whole) - 8 + cut) + whole[8:]


BROKEN_EXIF = {
    "no TIFF": b"nonsense",
    "empty": b"",
    "a directory beyond its end": b"II*\0" + struct.pack("<I", 10**6),
    "half an entry": b"MM\0*" + struct.pack(">IHHH", 8, 3, 0x0112, 3),
    "values beyond its end": b"II*\0" + struct.pack("<IHHHIII", 8, 2, 0x010F, 2, 10**6, 10**6, 7),
    "a directory that names itself": b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8),
    "a division by zero": b"II*\0" + struct.pack("<IHHHIIII", 8, 1, 0x011A, 5, 1, 26, 0, 0),
}


@pytest.mark.parametrize("kind", BROKEN_EXIF)
def test_broken_exif_costs_no_picture(kind: str) -> None:
    exif = BROKEN_EXIF[kind]
    assert np.array_equal(pixels(png_with(chunk(b"eXIf", exif))), pixels(encoded(scene())))
    assert np.array_equal(pixels(webp_with((b"EXIF", exif))), pixels(encoded(scene())))
    jpeg = jpeg_with(segment(0xE1, b"Exif\0\0" + exif))
    assert np.array_equal(pixels(jpeg), pixels(jpeg_with())) and plain_jpeg_size(jpeg) == (WIDTH, HEIGHT)
    avif = encoded(scene(), "AVIF", quality=100, exif=b"II*\0\x08\0\0\0\0\0" + bytes(90))
    broken = avif.replace(b"II*\0\x08\0\0\0\0\0", b"nonsensens")
    assert broken != avif and np.array_equal(pixels(broken), pixels(avif))


JUNK_SEGMENTS = {
    "a broken colour profile": [segment(0xE2, b"ICC_PROFILE\0\x07\x01" + b"x" * 50)],
    "half of a colour profile's header": [segment(0xE2, b"ICC_PROFILE\0")],
    "a colour profile of a megabyte": [segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 17]) + b"x" * 64_000) for part in range(1, 18)],
    "the list of frames of a telephone, damaged": [segment(0xE2, b"MPF\0MM\0*" + bytes(range(60)))],
    "a short JFIF header": [segment(0xE0, b"JFIF\0")],
    "a short Adobe header": [segment(0xEE, b"Adobe")],
    "Photoshop's resources, cut off": [segment(0xED, b"Photoshop 3.0\x008BIM")],
    "comments": [segment(0xFE, b"\xff\xd9 \xff\xda" * 500)] * 20,
    "XMP that is no XML": [segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<<\xff")],
}


@pytest.mark.parametrize("kind", JUNK_SEGMENTS)
def test_what_lies_beside_a_jpegs_pixels_costs_no_picture(kind: str) -> None:
    assert np.array_equal(pixels(jpeg_with(*JUNK_SEGMENTS[kind])), pixels(jpeg_with()))


LONG_TEXT = zlib.compress(b"a workflow " * 300_000)
JUNK_CHUNKS = {
    "a compressed text of 3 MB": [chunk(b"zTXt", b"workflow\0\0" + LONG_TEXT)],
    "an international text of 3 MB": [chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG_TEXT)],
    "many texts, together above Pillow's limit": [chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(1_000_000)))] * 70,
    "a colour profile of 2 MB": [chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000)))],
    "a colour profile that is not compressed": [chunk(b"iCCP", b"p\0\0nonsense")],
    "a text that is cut off": [chunk(b"zTXt", b"note\0\0" + LONG_TEXT[:100])],
    "a text without a keyword": [chunk(b"tEXt", b""), chunk(b"zTXt", b""), chunk(b"iTXt", b"")],
    "a text with a wrong checksum": [chunk(b"tEXt", b"a\0b", checksum=7)],
    "a resolution, gamma and chromaticity that are cut off": [chunk(b"pHYs", b"\0"), chunk(b"gAMA", b""), chunk(b"cHRM", b"\0")],
    "a rotation in a text that is no hexadecimal": [chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n4\nxyz"))],
    "an animation's header that is cut off": [chunk(b"acTL", b"\0")],
}


@pytest.mark.parametrize("last", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("kind", JUNK_CHUNKS)
def test_texts_and_profiles_of_a_png_cost_no_picture(kind: str, last: bool) -> None:
    assert np.array_equal(pixels(png_with(*JUNK_CHUNKS[kind], last=last)), pixels(encoded(scene())))


def test_a_text_bomb_in_a_png_takes_no_memory() -> None:
    resource = pytest.importorskip("resource")
    bomb = chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(300_000_000), 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.array_equal(pixels(png_with(bomb)), pixels(encoded(scene())))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("tail", [b"\0" * 500, b"a camera's trailer", b"PK\3\4" + bytes(100)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_bytes_behind_the_end_of_a_picture_cost_nothing(format: str, tail: bytes) -> None:
    whole = encoded(scene(), format)
    assert np.array_equal(pixels(whole + tail), pixels(whole))


def test_metadata_cut_off_behind_a_whole_picture_costs_nothing() -> None:
    assert np.array_equal(pixels(png_with(chunk(b"tEXt", b"x" * 100), last=True)[:-60]), pixels(encoded(scene())))
    assert np.array_equal(pixels(webp_with((b"EXIF", b"x" * 100), cut=60)), pixels(encoded(scene())))


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 6])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_pngs_transparency_that_cannot_be_meant_is_left_out(content: bytes, is_whole: bool) -> None:
    file = png_with(chunk(b"tRNS", content, None if is_whole else 7))
    assert pixels(file).shape == (HEIGHT, WIDTH, 3)


def turned_files(orientation: int) -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    tiff, xmp = exif.tobytes(), f'<x tiff:Orientation="{orientation}"/>'.encode()
    raw = b"\nexif\n%8d\n%s\n" % (len(tiff), tiff.hex().encode())
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    return {
        "JPEG": encoded(scene(), "JPEG", exif=tiff),
        "JPEG by XMP": encoded(scene(), "JPEG", xmp=xmp),
        "JPEG with fill bytes": jpeg_with(b"\xff\xff" + segment(0xE1, tiff)),
        "PNG": encoded(scene(), "PNG", exif=tiff),
        "PNG by XMP": encoded(scene(), "PNG", pnginfo=text),
        "PNG of ImageMagick": png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw))),
        "PNG, said behind the pixels": png_with(chunk(b"eXIf", tiff[6:]), last=True),
        "WebP": encoded(scene(), "WEBP", exif=tiff),
        "WebP by XMP": encoded(scene(), "WEBP", xmp=xmp),
        "AVIF": encoded(scene(), "AVIF", exif=tiff),
        "TIFF": encoded(scene(), "TIFF", exif=exif),
    }


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_pillow_turns_them(orientation: int) -> None:
    for kind, file in turned_files(orientation).items():
        with Image.open(io.BytesIO(file)) as image:
            wanted = ImageOps.exif_transpose(image).convert("RGB")
        assert np.array_equal(pixels(file), np.asarray(wanted)), kind
        assert (plain_jpeg_size(file) is not None) == (kind.startswith("JPEG") and orientation == 1), kind


def by_pillow(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            upright = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
        return np.asarray(upright.convert("RGB"))


def animated(format: str) -> bytes:
    frames = [scene().rotate(90 * turn) for turn in range(3)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], **({"lossless": True} if format == "WEBP" else {}))


def transparent_palette() -> Image.Image:
    image = scene().quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


ORDINARY: dict[str, Callable[[], bytes]] = {
    "a telephone's JPEG of several frames": lambda: animated("MPO"),
    "an animated WebP": lambda: animated("WEBP"),
    "an animated PNG": lambda: animated("PNG"),
    "an animated GIF": lambda: animated("GIF"),
    "an animated AVIF": lambda: animated("AVIF"),
    "CMYK of Adobe": lambda: encoded(scene(mode="CMYK"), "JPEG"),
    "a JPEG stored as RGB": lambda: encoded(scene(), "JPEG", keep_rgb=True),
    "a progressive JPEG": lambda: encoded(scene(), "JPEG", progressive=True),
    "a grey JPEG": lambda: encoded(scene(mode="L"), "JPEG"),
    "a palette": lambda: encoded(scene().quantize(16)),
    "a palette with transparency": lambda: encoded(transparent_palette()),
    "a transparent colour": lambda: encoded(scene(), transparency=(0, 0, 0)),
    "a transparent grey": lambda: encoded(scene(mode="L"), transparency=7),
    "grey with alpha": lambda: encoded(scene(mode="LA")),
    "colours with alpha": lambda: encoded(scene(mode="RGBA")),
    "black and white": lambda: encoded(scene(mode="1")),
    "a WebP with alpha": lambda: encoded(scene(mode="RGBA"), "WEBP"),
    "an AVIF with alpha": lambda: encoded(scene(mode="RGBA"), "AVIF"),
    "a bitmap": lambda: encoded(scene(), "BMP"),
    "a compressed TIFF": lambda: encoded(scene(), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_pictures_of_all_kinds_are_what_pillow_shows(kind: str) -> None:
    file = ORDINARY[kind]()
    assert np.array_equal(pixels(file), by_pillow(file))


def scans(num: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until it has so many, as no encoder writes."""
    whole = encoded(scene(), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    own = whole.count(b"\xff\xda")
    # Successive approximation ends at bit 0: a scan that says it once more is taken by libjpeg with a warning.
    return whole[:-2] + whole[last:-2] * (num - own) + whole[-2:]


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    refused(scans(3000), f"more than {MAX_SCANS} scans")
    refused(scans(MAX_SCANS + 1), f"more than {MAX_SCANS} scans")
    assert pixels(scans(MAX_SCANS)).shape == pixels(scans(10)).shape


def test_bytes_of_a_comment_are_not_taken_for_scans() -> None:
    file = encoded(scene(), "JPEG", progressive=True)
    second = file.index(b"\xff\xda", file.index(b"\xff\xda") + 2)
    commented = file[:second] + segment(0xFE, b"\xff\xda" * 1000) + file[second:]
    assert np.array_equal(pixels(commented), pixels(file)) and plain_jpeg_size(commented) == (WIDTH, HEIGHT)


def claims(format: str, width: int, height: int) -> bytes:
    """A small file that says it is as large as one likes."""
    whole = encoded(scene(), format)
    if format == "JPEG":
        at = whole.index(struct.pack(">HH", HEIGHT, WIDTH))
        return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]
    header = struct.pack(">II", width, height) + whole[24:29]
    return whole[:8] + chunk(b"IHDR", header) + whole[33:]


def test_limits_are_the_same_for_all_who_look_and_no_warning_is_printed() -> None:
    refused(claims("PNG", 12_000, 9_000), f"12000 x 9000 is more than {MAX_PIXELS:,} pixels")
    refused(claims("JPEG", 20_000, 15_000), f"20000 x 15000 is more than {MAX_JPEG_PIXELS:,} pixels")
    for format in ("PNG", "JPEG"):
        refused(claims(format, 1, 300), "1 x 300 is a line")
        assert claimed_size(claims(format, 1, 300)) == (1, 300)
    assert plain_jpeg_size(claims("JPEG", 1, 300)) is None


def large_jpeg(width: int, height: int, **options: object) -> bytes:
    colours = scene(8, 8)
    return encoded(colours.resize((width, height), Image.Resampling.NEAREST), "JPEG", quality=50, **options)


def test_a_jpeg_of_108_megapixels_is_seen_at_half_its_size_without_a_warning() -> None:
    file = large_jpeg(12_000, 9_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = picture(file)
        check_decodes(file)
        crop = random_crop(file, 32, 7)
    assert shown.size == (6_000, 4_500) and plain_jpeg_size(file) is None
    small = picture(large_jpeg(6_000, 4_500))
    assert np.abs(np.asarray(shown.resize((60, 45)), int) - np.asarray(small.resize((60, 45)), int)).mean() < 3
    assert crop.shape == (3, 32, 32)


def test_a_picture_that_is_postscript_is_never_handed_to_ghostscript(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho $@ >> {seen}\n")
    (tmp_path / "gs").chmod(0o755)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    program = (
        "import sys; from multimodal.pictures.decode import picture, check_decodes\n"
        "for look in (picture, check_decodes):\n"
        "    try: look(bytes.fromhex(sys.argv[1]))\n"
        "    except ValueError as error: print(error)\n"
        "assert 'PIL.EpsImagePlugin' not in sys.modules\n"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", program, postscript.hex()], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("not an image in a format that is known") == 2 and not seen.exists()
    assert shutil.which("gs", path=str(tmp_path))


@pytest.mark.parametrize("start", [b"%!PS", b"\x89HDF\r\n", b"P6\n4 4\n255\n", b"\0\0\1\0", b"SIMPLE  =", b"\xc5\xd0\xd3\xc6", b"8BPS\0\1"])
def test_formats_that_nobody_asked_for_are_not_tried(start: bytes) -> None:
    refused(start + bytes(200), "not an image in a format that is known")


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_views_of_one_decoded_picture_are_those_of_its_file(format: str, exact: bool) -> None:
    file = encoded(scene(600, 400), format)
    decoded = Decoded(file)
    for word in (1, 2, 2**60, 3):
        for size in (16, 64):
            assert np.array_equal(random_crop(decoded, size, word, exact=exact), random_crop(file, size, word, exact=exact))
    assert np.array_equal(centre(decoded, 32), centre(file, 32)) and decoded.image is decoded.image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "AVIF"])
def test_a_file_cut_anywhere_or_without_its_sizes_is_taken_apart_without_an_error(kind: str) -> None:
    whole = turned_files(6)[kind]
    for stop in range(min(len(whole), 600)):
        pixels_alone(whole[:stop])
        pixels_alone(whole[:stop] + bytes(40))
    pixels_alone(b"\x89PNG\r\n\x1a\n" + chunk(b"tRNS", b""))
    pixels_alone(b"RIFF\0\0\0\0WEBPVP8X")
