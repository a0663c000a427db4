"""Scene text: read in the picture, added to what came with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from data_prep.__main__ import main
from data_prep.pictures.scene_text import add_scene_text, find_reader
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet


def sign(*lines: str, format: str = "JPEG") -> bytes:
    """A board with words on it."""
    picture = Image.new("RGB", (420, 80 + 70 * len(lines)), (250, 250, 240))
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((30, 40 + 70 * number), line, fill=(10, 10, 120), font=ImageFont.load_default(36))
    file = io.BytesIO()
    picture.save(file, format)
    return file.getvalue()


def height(image: bytes) -> list[str]:
    """A reader: it reads how high a picture is."""
    return [f"{Image.open(io.BytesIO(image)).height} high", " "]


def pair(image: bytes, *texts: str) -> Pair:
    return Pair("a.jpg", image, "jpg", texts, "a", "train", {"city": "london"})


def test_the_lines_in_a_picture_stand_below_its_main_text_and_alone_in_the_metadata() -> None:
    [read] = add_scene_text([pair(sign("x"), "Lunch!", "second")], height)
    assert read.texts == ("Lunch!\n150 high", "second")
    assert read.metadata == {"city": "london", "scene_text": "150 high"}
    assert (read.name, read.image, read.group, read.split) == ("a.jpg", sign("x"), "a", "train")


@pytest.mark.parametrize("lines", [[], ["", "  "]])
def test_a_picture_in_which_nothing_is_read_keeps_its_pair(lines: Sequence[str]) -> None:
    whole = pair(sign("x"), "Lunch!")
    assert list(add_scene_text([whole], lambda _: list(lines))) == [whole]


def test_an_unknown_reader_is_an_error() -> None:
    with pytest.raises(InputError, match="--ocr tesseract: unknown reader. Use rapidocr, or name your own"):
        find_reader("tesseract")
    with pytest.raises(InputError, match="has no function 'nothing'"):
        find_reader("data_prep.pictures.scene_text:nothing")


def test_without_its_package_the_error_says_what_to_install() -> None:
    try:
        import rapidocr  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(InputError, match=r"needs the package rapidocr, which is not installed. Run: pip install .*\[ocr\]"):
            find_reader("rapidocr")
    else:
        pytest.skip("rapidocr is installed")


def test_the_command_takes_a_reader_by_its_path_and_notices_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_reader.py").write_text("def size(image):\n    return [f'{len(image) > 1000}ly large']\n")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a lunch.jpg").write_bytes(sign("one", "two"))
    (tmp_path / "photos" / "broken lunch.jpg").write_bytes(sign("one")[:200])
    command = ["make-shards", "folder", str(tmp_path / "photos"), "--max-bad-share", "0.5", "--output", str(tmp_path / "set")]
    assert main([*command, "--ocr", "my_reader:size"]) == 0
    assert ShardSet(tmp_path / "set").texts(0) == ("a lunch\nTruely large",)
    assert "broken lunch.jpg" in (tmp_path / "set" / "bad.csv").read_text()
    assert main(command) == 2 and "ocr" in capsys.readouterr().err


def test_rapidocr_reads_a_sign_in_any_format_and_nothing_in_an_empty_picture() -> None:
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed: rapidocr is absent")
    read = find_reader("rapidocr")
    for format in ("JPEG", "PNG", "WEBP"):
        assert read(sign("FISH MARKET", "open 7 days", format=format)) == ["FISH MARKET", "open 7 days"]
    assert read(sign()) == [] and read(b"no picture") == []
