"""UCSD's Wikipedia as its archive and TextTopicNet's copies have it; and XML that would harm whoever reads it naively."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.sources._xml import BadXml, parse_xml
from data_prep.sources.ucsd_wikipedia import CATEGORIES, LISTS, plan, ucsd_wikipedia
from multimodal.errors import InputError
from multimodal.shards import ShardSet

DOCUMENTS = {"train": [("aa-1", "p1", 10), ("bb-3", "p2", 1), ("aa-2.4", "p3", 10)], "test": [("aa-7", "p4", 10)]}
TEXT = (
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<article><text>\n'''{0}''' is [[sea|by the sea]].\n\n{{{{a}}}}So it is.</text></article>"
)


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def data_set(root: Path, texts: str = "texts_wd", images: str = "images_wd_256", by_category: bool = False) -> Path:
    (root / texts).mkdir(parents=True)
    for split, documents in DOCUMENTS.items():
        (root / LISTS[split]).write_text("".join(f"{text}\t{image}\t{category}\n" for text, image, category in documents))
        for text, image, category in documents:
            (root / texts / f"{text}.xml").write_text(TEXT.format(text))
            folder = root / images / (CATEGORIES[category - 1] if by_category else "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{image}.jpg").write_bytes(picture(int(image[1:])))
    return root


@pytest.mark.parametrize(("texts", "images", "by_category"), [("texts_wd", "images_wd_256", False), ("texts", "images", True)])
def test_documents_come_in_the_order_of_the_lists_with_their_split_and_category(
    tmp_path: Path, texts: str, images: str, by_category: bool
) -> None:
    pairs = check_source(ucsd_wikipedia, {"input": data_set(tmp_path, texts, images, by_category)})
    assert [(pair.name, pair.texts, pair.group, pair.split, pair.metadata) for pair in pairs] == [
        ("p1.jpg", ("aa-1 is by the sea.\nSo it is.",), "aa-1", "train", {"category": "warfare", "article": "aa"}),
        ("p2.jpg", ("bb-3 is by the sea.\nSo it is.",), "bb-3", "train", {"category": "art", "article": "bb"}),
        ("p3.jpg", ("aa-2.4 is by the sea.\nSo it is.",), "aa-2.4", "train", {"category": "warfare", "article": "aa"}),
        ("p4.jpg", ("aa-7 is by the sea.\nSo it is.",), "aa-7", "test", {"category": "warfare", "article": "aa"}),
    ]
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(ucsd_wikipedia, {"input": tmp_path}, pairs_per_shard)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("texts_wd/bb-3.xml", None, "has no texts_wd/bb-3.xml"),
        ("texts_wd/bb-3.xml", "<article><text>open", "its text, texts_wd/bb-3.xml, is not XML: no element found"),
        ("texts_wd/bb-3.xml", "<article><text> {{cite}} </text></article>", "has no text"),
        ("images_wd_256/p2.jpg", None, "no such picture: p2.jpg"),
        ("images_wd_256/p2.jpg", "no picture", "not a picture"),
    ],
)
def test_a_broken_document_costs_only_itself(tmp_path: Path, file: str, content: str | None, reason: str) -> None:
    whole, damaged = data_set(tmp_path / "whole"), data_set(tmp_path / "damaged")
    if content is None:
        (damaged / file).unlink()
    else:
        (damaged / file).write_text(content)
    check_broken_items(ucsd_wikipedia, {"input": whole}, {"input": damaged}, ["p2.jpg"])
    for pairs_per_shard in (1, 2, 1000):
        assert check_parts(ucsd_wikipedia, {"input": damaged}, pairs_per_shard)
    _, ledger = read_all(ucsd_wikipedia, {"input": damaged})
    assert ledger.entries[0].reason.startswith(reason), ledger.entries


@pytest.mark.parametrize("line", ["bb-3 p2 1", "bb-3\tp2", "bb-3\tp2\t11", "bb-3\tp2\t0", "../bb-3\tp2\t1", "bb-3\tp2\tart"])
def test_an_invalid_line_costs_only_itself(tmp_path: Path, line: str) -> None:
    path = data_set(tmp_path) / LISTS["train"]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[2]]))
    pairs, ledger = read_all(ucsd_wikipedia, {"input": tmp_path})
    assert [pair.name for pair in pairs] == ["p1.jpg", "p3.jpg", "p4.jpg"]
    assert [bad.where for bad in ledger.entries] == ["trainset_txt_img_cat.list line 2"]


def test_a_text_without_a_text_element_is_taken_whole(tmp_path: Path) -> None:
    (data_set(tmp_path) / "texts_wd" / "bb-3.xml").write_text("<section>Words, <b>more</b> words.</section>")
    assert check_source(ucsd_wikipedia, {"input": tmp_path})[1].texts == ("Words, more words.",)


def test_a_text_that_is_not_well_formed_is_read_from_tag_to_tag(tmp_path: Path) -> None:
    (data_set(tmp_path) / "texts_wd" / "bb-3.xml").write_text("<article><text>\nR&B, caf\u00e9 &amp; 3 < 4</text><p></article>")
    assert check_source(ucsd_wikipedia, {"input": tmp_path})[1].texts == ("R&B, caf\u00e9 & 3 < 4",)


def test_a_wrong_folder_says_what_was_expected_and_what_was_found(tmp_path: Path) -> None:
    root = data_set(tmp_path / "archive" / "wikipedia_dataset")
    with pytest.raises(InputError, match=rf"expected .*, and found wikipedia_dataset/. They are in {root}"):
        plan(10, tmp_path / "archive")
    (root / "images_wd_256").rename(root / "pictures")
    with pytest.raises(InputError, match="expected the folder images_wd_256 or images_wd or images, and found pictures/, testset"):
        read_all(ucsd_wikipedia, {"input": root})
    for name in LISTS.values():
        (root / name).write_text("\n")
    with pytest.raises(InputError, match="name no document"):
        plan(10, root)


def test_the_command_makes_shards_of_it_and_notices_a_changed_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_set(tmp_path / "data")
    command = ["make-shards", "ucsd_wikipedia", str(root), "--output", str(tmp_path / "set")]
    assert main(command) == 0 and ShardSet(tmp_path / "set").splits[3] == "test"
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    (root / "texts_wd" / "aa-7.xml").write_text(TEXT.format("another"))
    assert main(command) == 2 and "inputs.texts" in capsys.readouterr().err


# -- XML -----------------------------------------------------------------------------------------------------------------------------------


def test_xml_keeps_prefixes_and_the_text_of_all_that_is_nested() -> None:
    root = parse_xml(b'<image><text xml:lang="en"><caption article="a&amp;b">Low &lt;tide&gt;, <i>caf\xc3\xa9</i></caption></text></image>')
    caption = root[0][0]
    assert root[0].get("xml:lang") == "en" and caption.get("article") == "a&b"
    assert "".join(caption.itertext()) == "Low <tide>, café"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>', "declares the entity 'a'"),
        ('<!DOCTYPE x [<!ENTITY p SYSTEM "file:///etc/passwd">]><x>&p;</x>', "declares the entity 'p'"),
        ('<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]><x/>', "declares the entity 'p'"),
        ("<x>&unknown;</x>", "is not XML: undefined entity"),
        ("<x><y></x>", "is not XML: mismatched tag"),
        ("", "is not XML: no element found"),
        ("no markup", "is not XML: syntax error"),
    ],
)
def test_xml_that_declares_entities_or_is_broken_is_refused(content: str, reason: str) -> None:
    with pytest.raises(BadXml, match=reason):
        parse_xml(content.encode())


def test_an_external_dtd_is_not_loaded() -> None:
    assert parse_xml(b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/never.dtd"><x>words</x>').text == "words"
