"""Decoding: whatever a file holds is seen upright, in RGB, on white; and what is no picture says why."""

from __future__ import annotations

import io
import math
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.data import Pixels
from multimodal.data.decode import (
    ENOUGH,
    MAX_SHIFT,
    _span,
    centre,
    crop_box,
    random_crop,
)
from multimodal.data.order import random_words
from multimodal.pictures.decode import MAX_JPEG_PIXELS, MAX_PIXELS, BadPicture, picture, plain_jpeg_size
from multimodal.pictures.preprocessing import height_width

QUADRANTS = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def quadrants(width: int = 24, height: int = 16) -> Image.Image:
    return Image.fromarray(QUADRANTS.repeat(height // 2, axis=0).repeat(width // 2, axis=1))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels(file: bytes) -> np.ndarray:
    image = picture(file)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_whatever_its_exif_says(orientation: int) -> None:
    # what a camera stores so that, turned as its EXIF orientation says, the scene is upright (EXIF 2.3, tag 274)
    stored = {
        1: None,
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }
    scene = quadrants()
    turn = stored[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    file = encoded(scene.transpose(Image.Transpose[turn]) if turn else scene, exif=exif)
    assert np.array_equal(pixels(file), np.asarray(scene))


def test_transparency_becomes_white_in_every_mode_that_has_it() -> None:
    rgba = np.full((4, 4, 4), [200, 100, 0, 255], np.uint8)
    rgba[:2, :, 3] = 0
    rgba[2, :, 3] = 128
    seen = pixels(encoded(Image.fromarray(rgba)))
    assert (seen[:2] == 255).all() and (seen[3] == [200, 100, 0]).all()
    assert np.abs(seen[2].astype(int) - [227, 177, 127]).max() <= 1
    grey = pixels(encoded(Image.fromarray(rgba).convert("LA")))
    assert (grey[:2] == 255).all() and (grey[3] == grey[3, 0, 0]).all() and grey[3, 0, 0] < 200
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    seen = pixels(encoded(palette, transparency=0))
    assert (seen[0, 0] == 255).all() and (seen[1, 1] == [10, 20, 30]).all()
    assert (pixels(encoded(Image.fromarray(rgba), "WEBP", lossless=True))[:2] == 255).all()


def test_palettes_greys_and_bits_become_rgb() -> None:
    scene = quadrants()
    assert np.array_equal(pixels(encoded(scene.convert("P", palette=Image.Palette.ADAPTIVE))), np.asarray(scene))
    grey = np.asarray(scene.convert("L"))
    assert np.array_equal(pixels(encoded(scene.convert("L"))), np.stack([grey] * 3, axis=2))
    bits = np.asarray(scene.convert("1", dither=Image.Dither.NONE)) * np.uint8(255)
    assert np.array_equal(pixels(encoded(scene.convert("1", dither=Image.Dither.NONE))), np.stack([bits] * 3, axis=2))


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    scene = quadrants(32, 32)
    seen = pixels(encoded(scene.convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert np.abs(seen.astype(int) - np.asarray(scene)).max() <= 8  # JPEG's own rounding


def test_sixteen_bits_keep_their_whole_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    seen = pixels(encoded(Image.fromarray(ramp)))
    assert np.array_equal(seen[..., 0].ravel(), np.arange(256)), "a plain conversion would clip all but the darkest at 255"
    assert (seen[..., 0] == seen[..., 2]).all()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_of_a_moving_picture_the_first_frame_is_seen(format: str) -> None:
    first, second = Image.new("RGB", (16, 16), (250, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 250))
    seen = pixels(encoded(first, format, save_all=True, append_images=[second], duration=50))
    assert np.abs(seen.astype(int) - [250, 0, 0]).max() <= 4  # WebP is lossy


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_refused(format: str, share: float) -> None:
    whole = encoded(noise(64, 48), format)
    assert picture(whole).size == (64, 48)
    with pytest.raises(BadPicture):
        picture(whole[: int(len(whole) * share)])


@pytest.mark.parametrize(
    "file", [b"", b"not a picture", b"<html><body>404</body></html>", b"\xff\xd8\xff\xe0" + bytes(40), b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused_with_a_reason(file: bytes) -> None:
    with pytest.raises(BadPicture, match=r"\w+"):
        picture(file)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), format=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]))
def test_damaged_files_are_seen_or_refused_and_nothing_else(data: st.DataObject, format: str) -> None:
    file = bytearray(encoded(noise(17, 11), format))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert picture(bytes(file)).mode == "RGB"
    except BadPicture as error:
        assert str(error)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_500, 40_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_before_it_goes_off(side: int) -> None:
    with pytest.raises(BadPicture, match=f"more than {MAX_PIXELS:,} pixels"):
        picture(png_that_claims(side, side))


def test_a_line_is_refused_because_its_shorter_side_cannot_be_brought_to_size() -> None:
    with pytest.raises(BadPicture, match="4000 x 2 is a line, not a picture"):
        centre(encoded(Image.new("RGB", (4000, 2))), 224)
    assert centre(encoded(Image.new("RGB", (1, 1))), 32).shape == (3, 32, 32)


def test_float_pixels_are_refused_because_nobody_knows_their_range() -> None:
    with pytest.raises(BadPicture, match="32-bit float"):
        picture(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


@pytest.mark.parametrize("width, height", [(300, 200), (200, 301), (64, 64), (37, 500), (1000, 33), (16, 9)])
@pytest.mark.parametrize(
    "size, crop_share, interpolation",
    [(64, 0.875, "bicubic"), (48, 1.0, "bilinear"), (56, 0.9, "bicubic"), ((96, 48), 0.875, "bicubic"), ((30, 70), 1.0, "bicubic")],
)
def test_the_middle_is_what_timm_evaluates_on(
    width: int, height: int, size: int | tuple[int, int], crop_share: float, interpolation: str
) -> None:
    timm_data = pytest.importorskip("timm.data", reason="needs timm (the train extra)")
    transform = timm_data.create_transform(
        (3, *height_width(size)), crop_pct=crop_share, interpolation=interpolation, mean=(0.0,) * 3, std=(1.0,) * 3, is_training=False
    )
    image = noise(width, height)
    theirs = np.rint(transform(image).numpy() * 255)
    assert np.abs(centre(encoded(image), size, crop_share, interpolation) - theirs).max() <= 1


def scenery(width: int, height: int, seed: int = 0) -> Image.Image:
    """A made picture with a photograph's spectrum: amplitude falls as 1/frequency (Field, 1987), each channel by itself."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    phases = np.exp(2j * np.pi * rng.random((3, *frequency.shape)))
    waves = np.fft.irfft2(phases / frequency, (height, width))
    levels = 128 + 45 * waves / waves.std(axis=(1, 2), keepdims=True)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def by_torchvision(file: bytes, size: int, word: int, scale: tuple[float, float] = (0.35, 1.0), mode: str = "bicubic") -> np.ndarray:
    """(3, size, size): our box, cut and resized by torchvision and Pillow."""
    functional = pytest.importorskip("torchvision.transforms.functional", reason="needs torchvision (the train extra)")
    image = picture(file)
    left, top, width, height = crop_box(*image.size, word, scale, (3 / 4, 4 / 3))
    cut = functional.resized_crop(image, top, left, height, width, [size, size], functional.InterpolationMode(mode))
    return np.asarray(cut).transpose(2, 0, 1)


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Decibels, of a full range of 255; the same for pictures brought to [0, 1], or normalised with the range brought along."""
    return 10 * math.log10(255**2 / max(1e-9, float(((ours.astype(float) - theirs) ** 2).mean())))


WORDS = random_words(0, 0, np.arange(10)).tolist()


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_an_exact_crop_is_torchvisions_resized_crop_of_its_box(format: str) -> None:
    file = encoded(noise(90, 61), format)
    for word in WORDS:
        assert np.array_equal(random_crop(file, 32, word, (0.1, 1.0), exact=True), by_torchvision(file, 32, word, (0.1, 1.0)))


def test_exact_pixels_are_the_same_rectangles_mirror_the_same_ones_and_show_the_same_middle() -> None:
    file, exact, fast = encoded(scenery(150, 101), "JPEG"), Pixels(48, exact=True), Pixels(48)
    for word in WORDS:
        assert psnr(fast.of(file, word), exact.of(file, word)) >= 35
    assert np.array_equal(fast.of(file, None), exact.of(file, None))


def test_pictures_may_be_taller_than_wide() -> None:
    """Whole, padded and cropped; a large JPEG is decoded at a part of its size."""
    image = scenery(300, 202)
    squashed = np.asarray(image.resize((24, 48), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(centre(encoded(image), (48, 24), 1.0, resize="squash"), squashed)
    padded = centre(encoded(image), (48, 24), 1.0, resize="longest", fill=7)
    assert padded.shape == (3, 48, 24) and (padded[:, [0, -1]] == 7).all() and not (padded[:, 24] == 7).all()
    for format in ("PNG", "JPEG"):
        file = encoded(image, format)
        for word in WORDS:
            exact = random_crop(file, (48, 24), word, (0.5, 1.0), (0.4, 0.6), exact=True)
            assert exact.shape == (3, 48, 24) and psnr(random_crop(file, (48, 24), word, (0.5, 1.0), (0.4, 0.6)), exact) >= 35
            mirrored = random_crop(file, (48, 24), word, (0.5, 1.0), (0.4, 0.6), exact=True, mirrored=True)
            assert np.array_equal(mirrored, exact[:, :, ::-1])
    pixels = Pixels((48, 24), ratio=(0.4, 0.6), crop_share=1.0, resize="squash")
    assert np.array_equal(pixels.of(encoded(image), None), squashed) and pixels.of(encoded(image), WORDS[0]).shape == (3, 48, 24)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_a_crop_is_nearly_torchvisions(format: str, mode: str) -> None:
    file = encoded(scenery(150, 101), format)
    for word in WORDS:
        theirs = by_torchvision(file, 64, word, (0.1, 1.0), mode)
        # 50 dB, not equal bits: torch keeps a filter's weights in 16 bits and Pillow in 22. And both round to bytes after one axis, torch
        # always across first, Pillow 13 in the order that is less work: 54 dB where the orders differ, above 67 elsewhere
        assert psnr(random_crop(file, 64, word, (0.1, 1.0), interpolation=mode), theirs) >= 50


@pytest.mark.parametrize("mode", ["nearest", "lanczos", "box"])
def test_a_filter_that_torch_does_not_have_is_pillows(mode: str) -> None:
    file = encoded(noise(90, 61), "JPEG")
    assert np.array_equal(random_crop(file, 32, WORDS[0], interpolation=mode), by_torchvision(file, 32, WORDS[0], mode=mode))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [16, 64])
def test_a_mirrored_crop_is_the_crop_seen_from_behind(format: str, size: int, exact: bool) -> None:
    file = encoded(scenery(300, 202), format)  # of 16 pixels a JPEG is decoded smaller, and the rectangle begins between its pixels
    for word in WORDS:
        crop, mirrored = (random_crop(file, size, word, exact=exact, mirrored=mirrored).astype(int) for mirrored in (False, True))
        # mirrored before it is resized, where one half may round to another level
        assert np.abs(mirrored - crop[:, :, ::-1]).max() <= (0 if exact else 1)


@pytest.mark.parametrize("exact", [True, False])
def test_a_crop_is_written_to_the_given_buffer(exact: bool) -> None:
    file = encoded(scenery(150, 101), "JPEG")
    channels_last, planes = np.zeros((2, 32, 32, 3), np.uint8).transpose(0, 3, 1, 2), np.zeros((2, 3, 32, 32), np.uint8)
    for out in (channels_last, planes):
        assert random_crop(file, 32, WORDS[0], exact=exact, out=out[1]) is not None
        assert np.array_equal(out[1], random_crop(file, 32, WORDS[0], exact=exact)) and not out[0].any()


JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full colour resolution": {"subsampling": 0},
    "half colour resolution": {"subsampling": 1},
    "restarts": {"restart_marker_rows": 1},
    "stored as RGB": {"keep_rgb": True},
    "a comment": {"comment": b"\xff\xd9 and \xff\xda"},
    "a colour profile": {"icc_profile": bytes(70_000)},
}


@pytest.mark.parametrize("kind", [*JPEGS, "grey", "upright by its EXIF"])
def test_a_plain_jpeg_is_decoded_as_pillow_decodes_it(kind: str) -> None:
    exif = Image.Exif()
    exif[274] = 1
    image = scenery(150, 101).convert("L" if kind == "grey" else "RGB")
    file = encoded(image, "JPEG", **(JPEGS.get(kind) or ({"exif": exif} if "EXIF" in kind else {})))
    assert plain_jpeg_size(file) == (150, 101)
    by_pillow = encoded(picture(file))
    assert plain_jpeg_size(by_pillow) is None
    for word in WORDS:
        assert np.array_equal(random_crop(file, 100, word), random_crop(by_pillow, 100, word))


def jpeg_with(**changes: object) -> bytes:
    exif = Image.Exif()
    exif[274] = changes.pop("orientation", 1)
    return encoded(scenery(60, 40).convert(str(changes.pop("mode", "RGB"))), "JPEG", exif=exif, **changes)


@pytest.mark.parametrize(
    "file",
    [*(jpeg_with(orientation=turn) for turn in range(2, 9)), jpeg_with(mode="CMYK"), jpeg_with() + b"a camera's trailer"],
    ids=[*(f"orientation {turn}" for turn in range(2, 9)), "CMYK", "bytes after its end"],
)
def test_a_jpeg_that_is_not_plain_is_pillows(file: bytes) -> None:
    assert plain_jpeg_size(file) is None
    assert psnr(random_crop(file, 24, WORDS[0]), by_torchvision(file, 24, WORDS[0])) >= 50


@pytest.mark.parametrize("width, height", [(1024, 768), (768, 1024), (1601, 1203), (2003, 1501)])
def test_a_large_jpeg_decoded_at_a_part_of_its_size_stays_near_pillows_crop(width: int, height: int) -> None:
    file = encoded(scenery(width, height), "JPEG", quality=90)
    for size in (96, 224):
        for word in WORDS[:4]:
            assert psnr(random_crop(file, size, word), by_torchvision(file, size, word)) >= 35


def test_photographs_cropped_small_stay_near_pillows_crops(shared_data: Path) -> None:
    tars = shared_data / "flickr8k" / "dev-00000.tar"
    if not tars.is_file():
        pytest.skip(f"real photographs absent: no {tars}")
    with tarfile.open(tars) as tar:
        files = [tar.extractfile(member).read() for member in tar.getmembers()[:40]]
    assert {plain_jpeg_size(file) for file in files} == {(224, 224)}
    for file, word in zip(files, random_words(0, 1, np.arange(len(files))).tolist(), strict=True):
        assert psnr(random_crop(file, 224, word), by_torchvision(file, 224, word)) >= 50  # decoded whole
        for size in (64, 32, 16):  # decoded at a half, a quarter, an eighth
            assert psnr(random_crop(file, size, word), by_torchvision(file, size, word)) >= 35


@given(part=st.sampled_from([2, 4, 8]), size=st.integers(1, 300), data=st.data())
def test_a_rectangle_of_a_smaller_picture_lies_where_it_lay_in_the_whole(part: int, size: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(math.ceil(ENOUGH * size * part), 8 * size * part))
    start = data.draw(st.integers(0, 4000))
    whole = start + length + data.draw(st.integers(0, 100))
    span = _span(start, length, part, size)
    if span is None:
        return
    assert abs(span.start + span.extra * span.step - start / part) <= MAX_SHIFT + 1e-9
    assert math.isclose(span.step * size, length / part)
    assert 0 <= span.start < span.stop <= math.ceil(whole / part)
    assert 0 <= span.stop - (start + length) / part < 1


def test_a_word_is_a_crop() -> None:
    file = encoded(scenery(300, 200), "JPEG")
    assert np.array_equal(random_crop(file, 32, WORDS[0]), random_crop(file, 32, WORDS[0]))
    assert not np.array_equal(random_crop(file, 32, WORDS[0]), random_crop(file, 32, WORDS[1]))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("width, height", [(1, 1), (7, 3), (16, 16), (100, 99)])
def test_tiny_pictures_and_tiny_crops(width: int, height: int, size: int) -> None:
    file = encoded(Image.new("RGB", (width, height), (200, 100, 0)), "JPEG", subsampling=0)
    for word in WORDS:
        assert np.abs(random_crop(file, size, word).astype(int) - by_torchvision(file, size, word)).max() <= 1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.99])
def test_a_crop_of_a_jpeg_that_was_cut_off_is_refused(share: float, progressive: bool) -> None:
    whole = encoded(scenery(300, 200), "JPEG", progressive=progressive)
    with pytest.raises(BadPicture):
        random_crop(whole[: int(len(whole) * share)], 32, WORDS[0])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), progressive=st.booleans())
def test_a_crop_of_a_damaged_jpeg_is_made_or_refused_and_nothing_else(data: st.DataObject, progressive: bool) -> None:
    file = bytearray(encoded(noise(90, 70), "JPEG", progressive=progressive))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert random_crop(bytes(file), 8, data.draw(st.integers(0, 2**64 - 1))).shape == (3, 8, 8)
    except BadPicture as error:
        assert str(error)


def test_a_jpeg_that_claims_too_much_or_is_a_line_is_refused_before_it_is_decoded() -> None:
    file = encoded(noise(40, 30), "JPEG")
    frame = file.index(struct.pack(">HH", 30, 40))
    for height, width, reason in (
        (65_000, 65_000, f"more than {MAX_JPEG_PIXELS:,} pixels"),
        (2, 4000, "4000 x 2 is a line"),
    ):
        with pytest.raises(BadPicture, match=reason):
            random_crop(file[:frame] + struct.pack(">HH", height, width) + file[frame + 4 :], 32, WORDS[0])


def test_the_boxes_are_spread_as_torchvisions_are() -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms", reason="needs torchvision (the train extra)")
    stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    scale, ratio = (0.2, 1.0), (3 / 4, 4 / 3)
    image = Image.new("RGB", (300, 200))
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(1000)])[:, [1, 0, 3, 2]]
    ours = np.array([crop_box(300, 200, word, scale, ratio) for word in random_words(0, 0, np.arange(1000)).tolist()])
    for describe in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 2] / box[:, 3],
        lambda box: (box[:, 0] + 0.5) / (301 - box[:, 2]),
        lambda box: (box[:, 1] + 0.5) / (201 - box[:, 3]),
    ):
        assert stats.ks_2samp(describe(ours), describe(theirs)).pvalue > 0.001


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    word=st.integers(0, 2**64 - 1),
    low=st.floats(0.01, 1),
    ratio=st.floats(0.3, 1),
)
def test_a_box_lies_within_the_picture(width: int, height: int, word: int, low: float, ratio: float) -> None:
    left, top, w, h = crop_box(width, height, word, (low, 1.0), (ratio, 1 / ratio))
    assert w >= 1 and h >= 1 and 0 <= left and left + w <= width and 0 <= top and top + h <= height
    assert (left, top, w, h) == crop_box(width, height, word, (low, 1.0), (ratio, 1 / ratio))


def test_a_picture_that_no_box_fits_is_cut_at_its_centre() -> None:
    assert crop_box(1000, 10, 5, (1.0, 1.0), (3 / 4, 4 / 3)) == (493, 0, 13, 10)
    left, top, width, height = crop_box(10, 1000, 5, (1.0, 1.0), (3 / 4, 4 / 3))
    assert (left, width, height) == (0, 10, 13) and top == math.floor((1000 - 13) / 2)


def test_a_crop_share_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="crop_share=0"):
        centre(encoded(quadrants()), 32, crop_share=0)
