"""Pictures made smaller on their way into a shard: the same picture, upright, on white; and what is small stays as it is."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main
from data_prep.pictures.resize import Resize, smaller, target_size
from data_prep.shards.job import make_shards
from data_prep.sources.folder import folder
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.decode import BadPicture, picture, plain_jpeg_size
from multimodal.shards import ShardSet

pytest.importorskip("torch", reason="torch is not installed (extra resize)")
pytest.importorskip("simplejpeg", reason="simplejpeg is not installed (extra resize)")


def drawing(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft blotches of colour, as photographs have them: noise would say more of JPEG than of resizing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": 95} | settings))
    return buffer.getvalue()


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    error = float(((one.astype(float) - other.astype(float)) ** 2).mean())
    return 10 * np.log10(255**2 / max(error, 1e-9))


def of_pillow(file: bytes, shortest_px: int) -> np.ndarray:
    """The readable twin: Pillow from the first byte to the last, and the pixels of the JPEG that it makes."""
    image = picture(file)
    made = image.resize(target_size(*image.size, shortest_px), Image.Resampling.BICUBIC)
    return np.asarray(picture(encoded(made, quality=95)))


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), shortest_px=st.integers(1, 512))
def test_the_shorter_side_gets_the_size_and_the_ratio_moves_by_half_a_pixel(width: int, height: int, shortest_px: int) -> None:
    made = target_size(width, height, shortest_px)
    assert min(made) == shortest_px and (made[0] >= made[1]) == (width >= height or made[0] == made[1])
    exact = max(width, height) * shortest_px / min(width, height)
    assert abs(max(made) - exact) <= 0.5


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (301, 257), (299, 299), (511, 900)])
def test_a_jpeg_becomes_what_pillow_makes_of_it(size: tuple[int, int]) -> None:
    file = encoded(drawing(*size))
    made = smaller(file, 256, quality=100)
    assert plain_jpeg_size(made) == target_size(*size, 256)
    assert (
        psnr_db(np.asarray(picture(made)), of_pillow(file, 256)) > 40
    )  # a JPEG of quality 100 with halved chroma is 42 dB from its pixels


@pytest.mark.parametrize("size", [(1501, 1203), (1024, 1025), (2050, 3071)])
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_no_pixel_moves(size: tuple[int, int]) -> None:
    file = encoded(drawing(*size))
    made, wanted = np.asarray(picture(smaller(file, 200))), of_pillow(file, 200)
    shifts = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    nearness = {shift: psnr_db(made[4:-4, 4:-4], np.roll(wanted, shift, (0, 1))[4:-4, 4:-4]) for shift in shifts}
    assert max(nearness, key=nearness.__getitem__) == (0, 0) and nearness[0, 0] > 32


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF"])
def test_other_formats_become_jpegs_of_the_same_picture(format: str) -> None:
    file = encoded(drawing(500, 375), format)
    made = smaller(file, 256)
    assert plain_jpeg_size(made) == (341, 256)
    assert psnr_db(np.asarray(picture(made)), of_pillow(file, 256)) > 38


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_exif_turns_is_upright_afterwards(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(drawing(400, 300), exif=exif)
    made = Image.open(io.BytesIO(smaller(file, 128)))
    assert made.getexif().get(0x0112, 1) == 1
    assert made.size == ((171, 128) if orientation <= 4 else (128, 171))
    assert psnr_db(np.asarray(made), of_pillow(file, 128)) > 38


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb_as_they_are_seen(mode: str) -> None:
    file = encoded(drawing(400, 300).convert(mode))
    made = picture(smaller(file, 128))
    assert psnr_db(np.asarray(made), of_pillow(file, 128)) > 38


def test_what_was_transparent_lies_on_white() -> None:
    clear = Image.new("RGBA", (400, 300), (200, 0, 0, 0))
    assert np.asarray(picture(smaller(encoded(clear, "PNG"), 128))).min() >= 254


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(256, 300), (40, 30)])
def test_a_picture_that_is_no_larger_keeps_its_bytes(size: tuple[int, int], format: str) -> None:
    pair = Pair("a", encoded(drawing(*size), format), {"JPEG": "jpg"}.get(format, format.lower()), ("text",), "a")
    assert Resize(256)(pair) is pair


@given(cut=st.integers(1, 20_000))
def test_a_file_that_was_cut_off_is_refused_and_no_other_error_escapes(cut: int) -> None:
    file = encoded(drawing(400, 300), quality=90)
    with pytest.raises(BadPicture):
        smaller(file[: -min(cut, len(file) - 1)], 128)


def test_a_small_file_that_was_cut_off_is_refused_too() -> None:
    with pytest.raises(BadPicture):
        smaller(encoded(drawing(100, 90))[:-30], 256)


@pytest.mark.parametrize(
    ("shortest_px", "quality", "message"), [(0, 95, "resize is 0"), (256, 0, "quality is 0"), (256, 101, "quality is 101")]
)
def test_a_size_or_quality_that_is_none_is_refused(shortest_px: int, quality: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Resize(shortest_px, quality)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    for number, (name, size) in enumerate({"large.jpg": (500, 375), "small.jpg": (90, 60), "drawn.png": (300, 400)}.items()):
        (root / name).write_bytes(encoded(drawing(*size, seed=number), "PNG" if name.endswith("png") else "JPEG"))
    (root / "broken.jpg").write_bytes((root / "large.jpg").read_bytes()[:-400])
    return root


def test_shards_hold_the_smaller_pictures_and_the_ledger_what_does_not_decode(photos: Path, tmp_path: Path) -> None:
    command = f"make-shards folder {photos} --output {tmp_path / 'set'} --resize 128 --max-bad-share 0.5"
    assert main(command.split()) == 0
    shards = ShardSet(tmp_path / "set")
    sizes = {shards.names[id]: picture(shards.image_bytes(id)).size for id in range(len(shards))}
    assert sizes == {"drawn.png": (128, 171), "large.jpg": (171, 128), "small.jpg": (90, 60)}
    assert list(shards.extensions) == ["jpg", "jpg", "jpg"]
    with open(tmp_path / "set" / "bad.csv", newline="") as file:
        assert [row[1] for row in csv.reader(file)] == ["key", "broken.jpg"]


def test_the_same_pictures_make_the_same_tar(photos: Path, tmp_path: Path) -> None:
    sets = [make_shards(folder, {"input": photos}, tmp_path / name, max_bad_share=0.5, resize=128) for name in ("one", "two")]
    assert sets[0].fingerprints == sets[1].fingerprints
    with tarfile.open(sets[0].path / "000000.tar") as tar:
        assert sum(name.endswith(".jpg") for name in tar.getnames()) == 3


def test_a_set_of_another_size_or_quality_is_not_taken_for_this_one(photos: Path, tmp_path: Path) -> None:
    make_shards(folder, {"input": photos}, tmp_path / "set", max_bad_share=0.5, resize=128)
    make_shards(folder, {"input": photos}, tmp_path / "set", max_bad_share=0.5, resize=128)  # used as it is
    for resize, quality, told in ((64, 95, "resize.shortest_px was 128 and is 64 now"), (128, 80, "resize.quality was 95 and is 80 now")):
        with pytest.raises(InputError, match=told):
            make_shards(folder, {"input": photos}, tmp_path / "set", max_bad_share=0.5, resize=resize, quality=quality)
    with pytest.raises(InputError, match="resize.shortest_px was 128 and is not set now"):
        make_shards(folder, {"input": photos}, tmp_path / "set", max_bad_share=0.5)


def test_a_quality_for_pictures_that_keep_their_bytes_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--quality applies to the JPEGs that --resize makes"):
        make_shards(folder, {"input": photos}, tmp_path / "set", quality=80)
    assert not (tmp_path / "set").exists()
