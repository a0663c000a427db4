"""ZIM files of Kiwix: articles as HTML, and the pictures beside them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.conformance import check_parts, check_source, read_all
from data_prep.sources.wikipedia import wikipedia
from data_prep.wiki.zim import Zim, picture_path
from multimodal.errors import InputError
from multimodal.shards import ShardSet

pytest.importorskip("libzim", reason="the extra `zim` is not installed: libzim is absent")

WORDS = " ".join(["tide"] * 60)
COMMONS = "_assets_/0c70a452"


@dataclass(frozen=True)
class Written:
    """An article as it stands in a ZIM file."""

    path: str
    title: str
    body: str


def figure(src: str, caption: str = "") -> str:
    return f'<figure><a href="x"><img src="{src}"></a><figcaption>{caption}</figcaption></figure>'


LOW, MOSS, ICON, MAP, MOVED = (f"{COMMONS}/{name}" for name in ("Low%20tide.jpg", "Moss.png", "Icon.png", "Map.svg.png", "moved.jpg"))
WEBP = f"{COMMONS}/Map.svg.png.webp"
ELSEWHERE = ("https://commons.example/a.jpg", "//commons.example/b.jpg", "data:image/png;base64,AA==")
ARTICLES = [
    Written("Tides", "Tides", f"<h1>Tides</h1><p>{WORDS}</p>{figure(LOW, 'A <b>beach</b>.')}"),
    Written("Moon/Phases", "Moon/Phases", f"{figure(f'../{LOW}')}{figure(f'../{MOSS}', 'Moss')}<p>{WORDS}</p>"),
    Written("Stub", "Stub", f"{figure(f'./{MOSS}')}<p>Not enough words</p>"),
    Written("Icons", "Icons", f"{figure(ICON)}{figure(MAP)}{figure(WEBP)}<p>{WORDS}</p>"),
    Written("Elsewhere", "Elsewhere", f"{''.join(map(figure, ELSEWHERE))}<p>{WORDS}</p>"),
    Written("No_pictures", "No pictures", f"<p>{WORDS}</p>"),
    Written("Élan", "Élan", f"{figure(MOVED, 'Moved')}<p>{WORDS}</p>"),
]
PAIRED = ("Tides", "Moon/Phases", "Élan")
SIZES = {"Low tide.jpg": (300, 256), "Moss.png": (320, 320), "Icon.png": (400, 255), "Map.svg.png": (400, 400), "new.jpg": (260, 300)}
SIZES["Map.svg.png.webp"] = (400, 400)
REDIRECTS = {"Tide": "Tides", f"{COMMONS}/moved.jpg": f"{COMMONS}/new.jpg"}


def picture(seed: int, size: tuple[int, int], kind: str) -> bytes:
    file = io.BytesIO()
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(small).resize(size).save(file, kind)
    return file.getvalue()


PICTURES = {
    f"{COMMONS}/{name}": picture(seed, size, "JPEG" if name.endswith("jpg") else "PNG") for seed, (name, size) in enumerate(SIZES.items())
}


def write(path: Path, articles: Sequence[Written] = ARTICLES, pictures: Mapping[str, bytes] = PICTURES) -> dict[str, Any]:
    """A ZIM file -> the settings that read it."""
    from libzim.writer import Creator, Hint, Item, StringProvider

    class Entry(Item):
        def __init__(self, path: str, title: str, mimetype: str, content: str | bytes) -> None:
            super().__init__()
            self.path, self.title, self.mimetype, self.content = path, title, mimetype, content

        def get_path(self) -> str:
            return self.path

        def get_title(self) -> str:
            return self.title

        def get_mimetype(self) -> str:
            return self.mimetype

        def get_contentprovider(self) -> StringProvider:
            return StringProvider(self.content)

        def get_hints(self) -> dict[Hint, int]:
            return {Hint.FRONT_ARTICLE: self.mimetype == "text/html"}

    with Creator(path).config_indexing(False, "en") as creator:
        for article in articles:
            page = f"<!DOCTYPE html>\n<html><head><title>{article.title}</title></head><body>{article.body}</body></html>"
            creator.add_item(Entry(article.path, article.title, "text/html", page))
        for name, content in pictures.items():
            creator.add_item(Entry(name, "", "image/jpeg" if name.endswith("jpg") else "image/png", content))
        for name, target in REDIRECTS.items():
            if target in pictures or target in {article.path for article in articles}:
                creator.add_redirection(name, name, target, {Hint.FRONT_ARTICLE: False})
    return {"input": path}


def many(num: int) -> list[Written]:
    return [replace(one, path=f"{one.path}{number}", title=f"{one.title} {number}") for number in range(num) for one in ARTICLES]


def test_each_picture_comes_with_its_article_and_its_caption_in_the_order_of_the_paths(tmp_path: Path) -> None:
    pairs = check_source(wikipedia, write(tmp_path / "wiki.zim"))
    tides, phases, elan = f"Tides\n{WORDS}\nA beach.", f"Moon/Phases\nMoss\n{WORDS}", f"Élan\nMoved\n{WORDS}"
    assert [(pair.name, pair.texts, pair.group, pair.metadata) for pair in pairs] == [
        ("Moon/Phases/Low tide.jpg", (phases,), "Moon/Phases", {"title": "Moon/Phases", "article": "Moon/Phases"}),
        ("Moon/Phases/Moss.png", (phases, "Moss"), "Moon/Phases", {"title": "Moon/Phases", "article": "Moon/Phases", "caption": "Moss"}),
        ("Tides/Low tide.jpg", (tides, "A beach."), "Tides", {"title": "Tides", "article": "Tides", "caption": "A beach."}),
        ("Élan/moved.jpg", (elan, "Moved"), "Élan", {"title": "Élan", "article": "Élan", "caption": "Moved"}),
    ]
    files = ("Low tide.jpg", "Moss.png", "Low tide.jpg", "new.jpg")
    assert [pair.image for pair in pairs] == [PICTURES[f"{COMMONS}/{name}"] for name in files]


def test_how_large_a_picture_and_how_long_an_article_must_be_is_a_setting(tmp_path: Path) -> None:
    settings = write(tmp_path / "wiki.zim")
    names = {
        key: {pair.group for pair in check_source(wikipedia, settings | {key: value})}
        for key, value in {"min_side_px": 255, "min_words": 3}.items()
    }
    usual = {"Moon/Phases", "Tides", "Élan"}
    assert names == {"min_side_px": usual | {"Icons"}, "min_words": usual | {"Stub"}}


def test_two_pictures_of_one_article_with_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    places = [f"_assets_/{folder}/Moss.png" for folder in ("aa", "bb")]
    pictures = {place: picture(seed, (300, 300), "PNG") for seed, place in enumerate(places)}
    articles = [Written("Moss", "Moss", f"{''.join(map(figure, places))}<p>{WORDS}</p>")]
    pairs, ledger = read_all(wikipedia, write(tmp_path / "wiki.zim", articles, pictures))
    first, second = pairs
    assert (first.name, first.image) == ("Moss/Moss.png", pictures[places[0]])
    assert (second.name, second.image) == (f"Moss/{places[1]}", pictures[places[1]])
    assert ledger.num_bad == 0


def test_a_picture_that_is_missing_or_broken_is_named_and_the_others_stay(tmp_path: Path) -> None:
    pictures = {name: content for name, content in PICTURES.items() if not name.endswith("Low tide.jpg")}
    pictures[f"{COMMONS}/Moss.png"] = PICTURES[f"{COMMONS}/Moss.png"][:90]
    pairs, ledger = read_all(wikipedia, write(tmp_path / "wiki.zim", pictures=pictures))
    assert [pair.name for pair in pairs] == ["Élan/moved.jpg"]
    told = {bad.key: (bad.where, bad.reason) for bad in ledger.entries}
    assert told.pop("Moon/Phases/Moss.png")[1].startswith("does not decode")
    missing = f"wiki.zim has no entry {COMMONS}/Low tide.jpg"
    assert told == {f"{id}/Low tide.jpg": (f"wiki.zim article {id}", missing) for id in ("Moon/Phases", "Tides")}


@pytest.mark.parametrize("pairs_per_shard", [1, 40, 1000])
def test_parts_one_after_the_other_are_the_whole(tmp_path: Path, pairs_per_shard: int) -> None:
    settings = write(tmp_path / "wiki.zim", many(30))
    parts = check_parts(wikipedia, settings, pairs_per_shard)
    assert len(parts) == {1: 7, 40: 4, 1000: 1}[pairs_per_shard]  # 210 pages, 32 together; 120 pairs
    assert parts[-1]["stop"] == Zim(settings["input"]).num_entries


def test_a_damaged_piece_of_the_file_costs_its_content_and_parts_agree_on_that(tmp_path: Path) -> None:
    noise = (" ".join(map(str, row)) for row in np.random.default_rng(0).integers(0, 10**9, (140, 3000)))  # several pieces of the file
    articles = [replace(one, body=f"{one.body}<p>{numbers}</p>") for one, numbers in zip(many(20), noise, strict=True)]
    settings = write(tmp_path / "wiki.zim", articles)
    content = bytearray(settings["input"].read_bytes())
    place = len(content) // 10
    content[place : place + 1000] = bytes(1000)
    settings["input"].write_bytes(content)  # before it is read: libzim keeps what it has unpacked
    check_parts(wikipedia, settings, 10)
    pairs, ledger = read_all(wikipedia, settings)
    assert 0 < len(pairs) < 80 and len({pair.name for pair in pairs}) == len(pairs)
    assert {bad.where for bad in ledger.entries} == {"wiki.zim"}
    assert all(bad.reason.startswith("cannot be read: ") for bad in ledger.entries)
    lost = {bad.key for bad in ledger.entries}
    assert {pair.group for pair in pairs} == {one.path for one in articles if one.path not in lost and one.path.startswith(PAIRED)}


def test_one_process_and_two_write_the_same_shards(tmp_path: Path) -> None:
    settings = write(tmp_path / "wiki.zim", many(30))
    for number in (1, 2):
        command = ["make-shards", "wikipedia", "--input", str(settings["input"]), "--output", str(tmp_path / f"by{number}")]
        assert main([*command, "--pairs-per-shard", "40", "--num-processes", str(number)]) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("by1", "by2"))
    assert one == two and len(ShardSet(tmp_path / "by1").shards) > 2
    assert len(ShardSet(tmp_path / "by1")) == 120


def test_a_finished_set_is_used_until_the_file_is_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["make-shards", "wikipedia", str(tmp_path / "wiki.zim"), "--output", str(tmp_path / "set")]
    write(tmp_path / "wiki.zim")
    assert main(command) == 0 and main(command) == 0
    assert "is there already, 4 pairs" in capsys.readouterr().err
    (tmp_path / "wiki.zim").unlink()
    write(tmp_path / "wiki.zim", ARTICLES[:2])
    assert main(command) == 2
    assert "inputs.input" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert len(ShardSet(tmp_path / "set")) == 3


def test_a_file_that_was_split_is_read_by_the_first_of_its_pieces(tmp_path: Path) -> None:
    settings = write(tmp_path / "wiki.zim")
    whole = check_source(wikipedia, settings)
    content = settings["input"].read_bytes()
    half = len(content) // 2
    for suffix, piece in {"aa": content[:half], "ab": content[half:]}.items():
        (tmp_path / f"split.zim{suffix}").write_bytes(piece)
    assert check_source(wikipedia, {"input": tmp_path / "split.zimaa"}) == whole


@pytest.mark.parametrize(
    ("page", "src", "wanted"),
    [
        ("Tides", "./_assets_/0c/a.jpg", "_assets_/0c/a.jpg"),
        ("Tides", "_assets_/0c/a.jpg", "_assets_/0c/a.jpg"),
        ("Moon/Phases", "../_assets_/0c/Low%20tide%3F.jpg?v=1#x", "_assets_/0c/Low tide?.jpg"),
        ("/dev/null", "../_assets_/0c/a.jpg", "_assets_/0c/a.jpg"),
        ("A/Tides", "../I/m/a.jpg", "I/m/a.jpg"),
        ("Tides", "https://upload.wikimedia.org/a.jpg", None),
        ("Tides", "//upload.wikimedia.org/a.jpg", None),
        ("Tides", "data:image/png;base64,AA==", None),
    ],
)
def test_the_address_of_a_picture_leads_from_its_page(page: str, src: str, wanted: str | None) -> None:
    assert picture_path(page, src) == wanted


def test_a_file_that_is_not_zim_and_needless_options_are_reported(tmp_path: Path) -> None:
    settings = write(tmp_path / "wiki.zim")
    (tmp_path / "cut.zim").write_bytes(settings["input"].read_bytes()[:-500])
    (tmp_path / "text.zim").write_text("no ZIM file" * 100)
    for name in ("cut", "text"):
        with pytest.raises(InputError, match=rf"{name}.zim: is not a complete ZIM file: .*\. Download it again"):
            read_all(wikipedia, {"input": tmp_path / f"{name}.zim"})
    with pytest.raises(InputError, match="none.zim: does not exist"):
        read_all(wikipedia, {"input": tmp_path / "none.zim"})
    with pytest.raises(InputError, match="contains its pictures, .* leave out --images, --wit"):
        read_all(wikipedia, settings | {"images": tmp_path, "wit": tmp_path / "wit.tsv"})
