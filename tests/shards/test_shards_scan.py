"""Tars from elsewhere, made by other programs, on other systems, or to do damage."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from data_prep.sources.img2dataset import img2dataset
from multimodal.errors import InputError
from multimodal.shards import Ledger, ShardSet
from multimodal.shards.index import index_tars
from multimodal.shards.scan import scan_tar
from multimodal.shards.verify import find_problems

PICTURES = Path(__file__).resolve().parents[1] / "data" / "shards" / "pictures"
JPEG, WEBP = (PICTURES / "tiny.jpg").read_bytes(), (PICTURES / "tiny.webp").read_bytes()


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read_by_both(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(extension, texts) of each pair in a folder of tars, by `make-shards img2dataset` and by `shards index`, which have to agree."""
    index_tars(path, max_bad_share=1.0)
    shards = ShardSet(path)
    indexed = [(shards.extensions[id], shards.texts(id)) for id in range(len(shards))]
    copied = [(pair.extension, pair.texts) for pair in img2dataset(path, ledger=Ledger(path / "copied.csv"))]
    assert indexed == copied
    assert list(find_problems(shards)) == []
    return indexed


def header(size: bytes, kind: bytes = b"0", name: bytes = b"1.jpg") -> bytes:
    """A tar header whose checksum is right, whatever its size field holds."""
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0") + b"0" * 12 + b" " * 8 + kind + bytes(355))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def whole_pair(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for extension, content in (("jpg", JPEG), ("txt", b"a text")):
            info = tarfile.TarInfo(f"{name}.{extension}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def pax(records: bytes) -> bytes:
    return header(b"%011o" % len(records), b"x") + records.ljust(512, b"\0")


ODD = {
    "a pax record of length 0": pax(b"0 path=x\n"),
    "a pax record longer than its header": pax(b"999 path=x\n"),
    "a pax record without a length": pax(b"path=x\n"),
    "a pax record of ten thousand digits": header(b"%011o" % 20_000, b"x") + b"9" * 20_480,
    "a pax size that is no number": pax(b"12 size=ten\n"),
    "a negative pax size": pax(b"12 size=-51\n"),
    "a pax size of ten thousand digits": header(b"%011o" % 10_012, b"x") + (b"10012 size=" + b"9" * 10_000 + b"\n").ljust(10_240, b"\0"),
    "a negative size": header(b"\xff" * 12),
    "a negative size that leads back": header(b"\xff" * 10 + b"\xfc\x00"),
    "a size of 8 GB": header(b"77777777777"),
    "a size of 1 TB": header(b"\x80" + (1 << 40).to_bytes(11, "big")),
    "a size of 2 to the 88th": header(b"\x80" + b"\xff" * 11),
    "a size that is no number": header(b"many bytes"),
    "a long name of 8 GB": header(b"77777777777", b"L"),
    "a negative long name": header(b"\xff" * 12, b"L"),
    "pax records of 1 TB": header(b"\x80" + (1 << 40).to_bytes(11, "big"), b"x"),
    "global pax records of 8 GB": header(b"77777777777", b"g"),
    "a name that is no text": header(b"%011o" % 0, name=b"\xff\xfe.jpg"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_header_that_cannot_be_right_is_named_and_the_pairs_around_it_are_read(tmp_path: Path, kind: str) -> None:
    before, after = whole_pair("before"), whole_pair("after")
    end = before.rindex(b"a text") + 512
    (tmp_path / "0.tar").write_bytes(before[: end - end % 512] + ODD[kind] + after)
    assert len(read_by_both(tmp_path)) == 2
    assert scan_tar(tmp_path / "0.tar").bad


@pytest.mark.parametrize("kind", ODD)
def test_a_tar_of_nothing_but_odd_headers_ends_with_a_message(tmp_path: Path, kind: str) -> None:
    (tmp_path / "0.tar").write_bytes(ODD[kind] * 4)
    with pytest.raises(InputError, match="nothing good is left"):
        index_tars(tmp_path)


@pytest.mark.parametrize("seed", range(60))
def test_a_tar_with_damage_anywhere_is_read_as_far_as_it_goes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    content = bytearray(b"".join(whole_pair(str(number))[:2048] for number in range(3)) + bytes(1024))
    for _ in range(chance.randint(1, 30)):
        content[chance.choice((chance.randrange(len(content)), chance.randrange(0, len(content), 512) + chance.randrange(120, 160)))] = (
            chance.randrange(256)
        )
    (tmp_path / "0.tar").write_bytes(content)
    scan = scan_tar(tmp_path / "0.tar")
    for row in scan.rows:
        assert 0 <= row.image_offset <= row.image_offset + row.image_size <= len(content)


def test_suffixes_in_capitals_are_read(tmp_path: Path) -> None:
    tar_of(tmp_path / "0.tar", {"1.JPG": JPEG, "1.TXT": b"a boat", "2.Jpeg": JPEG, "2.JSON": b'{"caption": "a hut"}'})
    assert read_by_both(tmp_path) == [("jpg", ("a boat",)), ("jpg", ("a hut",))]


def test_a_picture_whose_suffix_is_wrong_is_what_its_bytes_say(tmp_path: Path) -> None:
    members = {
        "1.jpg": WEBP,
        "1.txt": b"one",
        "2.png": JPEG,
        "2.txt": b"two",
        "3.gif": JPEG,
        "3.txt": b"three",
        "4.heic": WEBP,
        "4.txt": b"4",
    }
    tar_of(tmp_path / "0.tar", members)
    assert [extension for extension, _ in read_by_both(tmp_path)] == ["webp", "jpg", "jpg", "webp"]


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"caption": "a boat", "title": "Boat"}, ("a boat",)),
        ({"Caption": "a boat"}, ("a boat",)),
        ({"TEXT": "a boat", "url": "http://x"}, ("a boat",)),
        ({"title": "a boat", "caption": None}, ("a boat",)),
        ({"captions": ["a boat", "", None, "a ship"]}, ("a boat", "a ship")),
        ({"alt_text": "a boat", "caption": " "}, ("a boat",)),
        ({"texts": ["a boat", "a ship"], "caption": "no"}, ("a boat", "a ship")),
    ],
)
def test_a_caption_in_the_json_is_found_by_both_commands(tmp_path: Path, record: dict, texts: tuple[str, ...]) -> None:
    tar_of(
        tmp_path / "0.tar", {"1.jpg": JPEG, "1.json": json.dumps(record).encode(), "2.jpg": JPEG, "2.txt": b" ", "2.json": b'{"text": "b"}'}
    )
    assert read_by_both(tmp_path) == [("jpg", texts), ("jpg", ("b",))]


def test_what_a_mac_or_a_nas_left_in_a_tar_is_passed_over_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junk = {
        f"{name}.{suffix}": b"x" for name in ("__MACOSX/._1", "._1", "@eaDir/1.jpg/SYNO", "a/.AppleDouble/1") for suffix in ("jpg", "txt")
    }
    tar_of(
        tmp_path / "0.tar",
        {"./1.jpg": JPEG, "./._1.jpg": b"Mac OS X", "./1.txt": b"one", **junk, "../up/2.jpg": JPEG, "../up/2.txt": b"two"},
    )
    assert read_by_both(tmp_path) == [("jpg", ("one",)), ("jpg", ("two",))]
    assert not (tmp_path / "bad.csv").exists()
    assert capsys.readouterr().err.count("9 members of the system") == 2


def test_a_text_of_many_megabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    with open(tmp_path / "0.tar", "wb") as file:
        file.write(
            whole_pair("1")[:512] + JPEG.ljust(-(-len(JPEG) // 512) * 512, b"\0") + header(b"%011o" % ((1 << 26) + 1), name=b"1.txt")
        )
        file.truncate((1 << 26) + (1 << 16))  # a hole: it takes no room on the disk
    with pytest.raises(InputError, match="its txt has 67,108,865 bytes; at most 67,108,864 are read"):
        index_tars(tmp_path)
