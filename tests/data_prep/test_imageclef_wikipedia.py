"""ImageCLEF's Wikipedia collection: pictures, the metadata beside them, and the articles that these name by path."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.sources.imageclef_wikipedia import imageclef_wikipedia, plan
from multimodal.errors import InputError
from multimodal.shards import ShardSet

ARTICLES = {
    "text/en/1/302": "{{Infobox}}\n'''Tides''' [[rise]].\n\n== Why ==\nThe moon.<ref>A</ref>",
    "text/en/4/7": "Moss grows.",
    "text/de/1/9": "Ebbe.",
}


def picture(seed: int, width: int = 40, height: int = 40, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(file, format)
    return file.getvalue()


def metadata(name: str, *captions: tuple[str, str, str]) -> str:
    """captions: (language, path of the article, words)."""
    languages = dict.fromkeys(language for language, _, _ in captions)
    texts = "".join(
        f'<text xml:lang="{of}"><description/><comment/>'
        + "".join(f'<caption article="{article}">{words}</caption>' for language, article, words in captions if language == of)
        + "</text>"
        for of in languages
    )
    return f'<?xml version="1.0"?><image id="1"><name>{name}</name>{texts}<license>GFDL</license></image>'


PICTURES = {
    "2/10.jpg": (
        picture(1),
        metadata("Low tide.jpg", ("de", "text/de/1/9", "Ebbe"), ("en", "text/en/1/302", "Low &amp; <i>slow</i>\n tide")),
    ),
    "2/9.jpeg": (picture(2), metadata("Tide.jpg", ("en", "text/en/1/302", ""), ("en", "text/en/4/7", "second"))),
    "10/3.jpg": (picture(3), metadata("Moss.jpg", ("en", "", "no article"), ("en", "text/en/4/7", "Moss"))),
    "10/4.jpg": (picture(4), metadata("Watt.jpg", ("de", "text/de/1/9", "Watt"))),
    "10/5.jpg": (picture(5), metadata("Bare.jpg", ("en", "", ""))),
    "10/6.jpg": (picture(6, 40, 20), metadata("Small.jpg", ("en", "text/en/4/7", "Small"))),
    "10/7.png": (picture(7, format="PNG"), metadata("Drawing.png", ("en", "text/en/4/7", "Drawing"))),
}
NAMES = ["2/10.jpg", "2/9.jpeg", "10/3.jpg"]


def data_set(root: Path) -> Path:
    files: dict[str, bytes | str] = dict(ARTICLES)
    for name, (image, said) in PICTURES.items():
        files |= {f"images/{name}": image, f"metadata/{name.rpartition('.')[0]}.xml": said}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def settings(root: Path, **others: object) -> dict[str, object]:
    return {"input": root, "min_side_px": 30, **others}


def test_pictures_come_folder_by_folder_with_the_article_that_their_english_caption_names(tmp_path: Path) -> None:
    pairs = check_source(imageclef_wikipedia, settings(data_set(tmp_path)))
    assert [(pair.name, pair.texts, pair.group, pair.metadata) for pair in pairs] == [
        (
            "2/10.jpg",
            ("Tides rise.\nWhy\nThe moon.",),
            "text/en/1/302",
            {"title": "Low tide.jpg", "caption": "Low & slow tide", "article": "text/en/1/302"},
        ),
        ("2/9.jpeg", ("Tides rise.\nWhy\nThe moon.",), "text/en/1/302", {"title": "Tide.jpg", "article": "text/en/1/302"}),
        ("10/3.jpg", ("Moss grows.",), "text/en/4/7", {"title": "Moss.jpg", "caption": "Moss", "article": "text/en/4/7"}),
    ]
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(imageclef_wikipedia, settings(tmp_path), pairs_per_shard)


def test_small_pictures_are_skipped_by_the_papers_measure_by_default(tmp_path: Path) -> None:
    data_set(tmp_path)
    (tmp_path / "images/10/3.jpg").write_bytes(picture(1, 256, 300))
    (tmp_path / "images/2/10.jpg").write_bytes(picture(1, 255, 300))
    assert [pair.name for pair in check_source(imageclef_wikipedia, {"input": tmp_path})] == ["10/3.jpg"]
    assert [pair.name for pair in check_source(imageclef_wikipedia, settings(tmp_path, min_side_px=1))] == [*NAMES, "10/6.jpg"]


def test_captions_may_stand_alone_or_before_their_article_in_any_of_the_languages(tmp_path: Path) -> None:
    pairs, ledger = read_all(imageclef_wikipedia, settings(data_set(tmp_path), text="both"))
    assert [pair.texts for pair in pairs] == [("Low & slow tide", "Tides rise.\nWhy\nThe moon."), ("Moss", "Moss grows.")]
    assert [str(bad) for bad in ledger.entries] == ["metadata/2/9.xml 2/9.jpeg: has no caption"]
    german = check_source(imageclef_wikipedia, settings(tmp_path, text="caption", language="de"))
    assert [(pair.name, pair.texts, pair.group) for pair in german] == [
        ("2/10.jpg", ("Ebbe",), "text/de/1/9"),
        ("10/4.jpg", ("Watt",), "text/de/1/9"),
    ]


@pytest.mark.parametrize(
    ("file", "content", "lost", "reason"),
    [
        ("images/2/9.jpeg", "no picture", ["2/9.jpeg"], "not a picture"),
        ("metadata/2/9.xml", None, ["2/9.jpeg"], "has no metadata"),
        ("metadata/2/9.xml", "<image>", ["2/9.jpeg"], "its metadata is not XML"),
        ("metadata/2/9.xml", '<!DOCTYPE i [<!ENTITY a "b">]><i>&a;</i>', ["2/9.jpeg"], "its metadata declares the entity 'a'"),
        ("metadata/2/9.xml", metadata("x", ("en", "../outside", "")), ["2/9.jpeg"], "its article, ../outside, lies outside"),
        ("metadata/2/9.xml", metadata("x", ("en", "/etc/passwd", "")), ["2/9.jpeg"], "its article, /etc/passwd, lies outside"),
        ("metadata/2/9.xml", metadata("x", ("en", "text/en", "")), ["2/9.jpeg"], "its article, text/en, is not there"),
        ("metadata/2/9.xml", metadata("x", ("en", "text/en/4/7/8", "")), ["2/9.jpeg"], "its article, text/en/4/7/8, is not there"),
        ("text/en/4/7", None, ["10/3.jpg"], "its article, text/en/4/7, is not there"),
        ("text/en/4/7", "{{stub}}", ["10/3.jpg"], "its article, text/en/4/7, has no text"),
        ("text/en/1/302", b"caf\xe9", ["2/10.jpg", "2/9.jpeg"], "its article, text/en/1/302, is not UTF-8 (byte 3)"),
    ],
)
def test_what_is_broken_costs_the_pictures_it_speaks_of(
    tmp_path: Path, file: str, content: bytes | str | None, lost: list[str], reason: str
) -> None:
    whole, damaged = data_set(tmp_path / "whole"), data_set(tmp_path / "damaged")
    if content is None:
        (damaged / file).unlink()
    else:
        (damaged / file).write_bytes(content.encode() if isinstance(content, str) else content)
    check_broken_items(imageclef_wikipedia, settings(whole), settings(damaged), lost)
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(imageclef_wikipedia, settings(damaged), pairs_per_shard)
    _, ledger = read_all(imageclef_wikipedia, settings(damaged))
    assert all(bad.reason.startswith(reason) for bad in ledger.entries), ledger.entries


def test_a_wrong_folder_says_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    root = data_set(tmp_path / "data" / "ImageCLEF")
    with pytest.raises(InputError, match=rf"expected images, metadata, and found ImageCLEF/. They are in {root}"):
        plan(10, tmp_path / "data")
    with pytest.raises(InputError, match=rf"found 10/, 2/. They are in {root}"):
        plan(10, root / "images")
    for folder in ("images", "metadata"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    with pytest.raises(InputError, match=r"no picture \(.jpg, .jpeg\) in the folders of images, which holds nothing"):
        plan(10, tmp_path / "empty")


def test_the_command_makes_shards_of_it_and_notices_a_new_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_set(tmp_path / "data")
    command = ["make-shards", "imageclef-wikipedia", str(root), "--min-side-px", "30", "--output", str(tmp_path / "set")]
    assert main(command) == 0 and ShardSet(tmp_path / "set").names[0] == "2/10.jpg"
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    (root / "images/2/11.jpg").write_bytes(picture(11))
    assert main(command) == 2 and "inputs.input" in capsys.readouterr().err
