"""Sources of pictures with classes and identities in place of texts: MNIST, Omniglot, Market-1501, folders of classes, CIFAR."""

from __future__ import annotations

import gzip
import io
import shutil
import zipfile
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.conformance import check_broken_items, check_parts, check_source, read_all
from data_prep.shards.job import make_shards
from data_prep.shards.plan import plan_of
from data_prep.sources import find_source, with_defaults
from data_prep.sources.classes import classes
from data_prep.sources.market1501 import is_held_out, market1501
from data_prep.sources.market1501 import plan as plan_of_market
from data_prep.sources.mnist import mnist, read_idx
from data_prep.sources.omniglot import omniglot
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.pictures.arrays import png
from multimodal.shards import ShardSet, Split


def jpeg(seed: int, width: int = 16, height: int = 24) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


def pixels(pair: Pair) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(pair.image)))


def files_at(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


# -- MNIST ---------------------------------------------------------------------------------------------------------------------------------

DIGITS = {"train": 12, "t10k": 5}


def idx(rows: np.ndarray) -> bytes:
    return bytes([0, 0, 8, rows.ndim]) + b"".join(size.to_bytes(4, "big") for size in rows.shape) + rows.astype(np.uint8).tobytes()


def digits(root: Path, gzipped: bool = True) -> Path:
    random = np.random.default_rng(0)
    packed = gzip.compress if gzipped else bytes
    for name, num in DIGITS.items():
        images, labels = random.integers(0, 256, (num, 7, 5)), np.arange(num) % 4
        suffix = ".gz" if gzipped else ""
        files_at(root, {f"{name}-images-idx3-ubyte{suffix}": packed(idx(images)), f"{name}-labels-idx1-ubyte{suffix}": packed(idx(labels))})
    return root


def test_digits_come_in_the_order_of_the_files_with_their_class_and_split(tmp_path: Path) -> None:
    pairs = check_source(mnist, {"input": digits(tmp_path)})
    assert [(pair.name, pair.split) for pair in pairs[:2]] == [("train-00000.png", "train"), ("train-00001.png", "train")]
    assert Counter(pair.split for pair in pairs) == {"train": 12, "test": 5}
    assert [pair.metadata["label"] for pair in pairs[-5:]] == ["0", "1", "2", "3", "0"]
    assert all(pair.texts == () and pixels(pair).shape == (7, 5) for pair in pairs)
    images = read_idx(tmp_path / "t10k-images-idx3-ubyte.gz", 3)
    assert np.array_equal(pixels(pairs[12]), images[0])
    for pairs_per_shard in (1, 3, 1000):
        assert check_parts(mnist, {"input": tmp_path}, pairs_per_shard)


def test_unpacked_files_and_names_with_a_dot_are_the_same(tmp_path: Path) -> None:
    packed, plain = digits(tmp_path / "packed"), digits(tmp_path / "plain", gzipped=False)
    for file in plain.iterdir():
        file.rename(plain / file.name.replace("-idx", ".idx"))
    assert read_all(mnist, {"input": packed})[0] == read_all(mnist, {"input": plain})[0]


def test_classes_of_another_set_get_their_names(tmp_path: Path) -> None:
    pairs, _ = read_all(mnist, {"input": digits(tmp_path), "names": ["shirt", "shoe", "bag", "coat"]})
    assert [pair.metadata["label"] for pair in pairs[:4]] == ["shirt", "shoe", "bag", "coat"]
    with pytest.raises(InputError, match="labels from 0 to 3, and --names gives 1"):
        read_all(mnist, {"input": tmp_path, "names": ["shirt"]})


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("train-images-idx3-ubyte", lambda content: content[:-3], "is cut off: it has 417 of 420 bytes"),
        ("train-images-idx3-ubyte", lambda content: content + b"x", "has more bytes than the 420"),
        ("train-images-idx3-ubyte", lambda content: content[:9], "its header is damaged"),
        (
            "train-images-idx3-ubyte",
            lambda content: b"\x00\x00\x08\x01" + content[4:],
            "no IDX file of pictures: it begins with 00 00 08 01",
        ),
        ("train-labels-idx1-ubyte", lambda content: b"<html>", "no IDX file of labels: it begins with 3c 68 74 6d"),
        ("train-images-idx3-ubyte", lambda content: content[:4] + b"\xff" * 12, "at most 4,294,967,296 are read"),
        ("train-labels-idx1-ubyte", lambda content: idx(np.zeros(11)), "has 12 pictures, and train-labels-idx1-ubyte 11 labels"),
        ("t10k-labels-idx1-ubyte", lambda content: None, "t10k-images-idx3-ubyte: lacks t10k-labels-idx1-ubyte"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, change: Any, said: str) -> None:
    path = digits(tmp_path, gzipped=False) / name
    content = change(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_all(mnist, {"input": tmp_path})


def test_a_cut_gzip_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    path = digits(tmp_path / "cut") / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="train-images-idx3-ubyte.gz: cannot be unpacked"):
        read_all(mnist, {"input": tmp_path / "cut"})
    with pytest.raises(InputError, match="is not laid out as MNIST.*and found cut/"):
        read_all(mnist, {"input": tmp_path})
    (digits(tmp_path / "twice") / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(InputError, match="which are one file"):
        read_all(mnist, {"input": tmp_path / "twice"})


# -- Omniglot ------------------------------------------------------------------------------------------------------------------------------


def drawing(seed: int) -> bytes:
    return png(np.random.default_rng(seed).integers(0, 2, (15, 15), np.uint8) * 255)


def alphabets(root: Path, zipped: bool = True) -> Path:
    """Two small sets that share an alphabet, an evaluation set, and two runs of three classes."""
    files: dict[str, bytes] = {}
    for of_set, names in {"images_background_small1": "AB", "images_background_small2": "BC", "images_evaluation": "D"}.items():
        for alphabet in names:
            for character in (1, 2):
                number = 10 * ord(alphabet) + character
                for drawer in (1, 2, 3):
                    file = f"{of_set}/{alphabet}/character{character:02}/{number:04}_{drawer:02}.png"
                    files[file] = drawing(10 * number + drawer)
    runs: dict[str, bytes] = {}
    for run in ("run01", "run02"):
        for number in (1, 2, 3):
            runs[f"{run}/training/class{number:02}.png"] = drawing(number)
            runs[f"{run}/test/item{number:02}.png"] = drawing(7 + number)
        runs[f"{run}/class_labels.txt"] = b"".join(
            b"%s/test/item%02d.png %s/training/class%02d.png\n" % (run.encode(), number, run.encode(), 4 - number) for number in (1, 2, 3)
        )
    if not zipped:
        return files_at(root, {**files, **{f"all_runs/{name}": content for name, content in runs.items()}})
    root.mkdir(parents=True, exist_ok=True)
    for of_set in dict.fromkeys(name.partition("/")[0] for name in files):
        with zipfile.ZipFile(root / f"{of_set}.zip", "w") as archive:
            for name, content in files.items():
                if name.startswith(f"{of_set}/"):
                    archive.writestr(name, content)
            archive.writestr(f"__MACOSX/{of_set}/._x.png", b"left alone")
    with zipfile.ZipFile(root / "all_runs.zip", "w") as archive:
        for name, content in runs.items():
            archive.writestr(name, content)
    return root


def test_drawings_have_their_character_and_drawer_and_runs_what_is_right(tmp_path: Path) -> None:
    pairs = {pair.name: pair for pair in check_source(omniglot, {"input": alphabets(tmp_path)})}
    assert Counter(pair.split for pair in pairs.values()) == {"train": 18, "test": 6, "runs": 12}
    one = pairs["B/character02/0662_03.png"]
    assert one.metadata == {
        "label": "B/character02",
        "alphabet": "B",
        "drawer": 3,
        "sets": ["images_background_small1", "images_background_small2"],
    }
    assert one.group == "B/character02" and one.texts == () and one.image == drawing(6623)
    assert pairs["run02/test/item01.png"].metadata == {"label": "run02/class03", "run": "run02", "role": "test"}
    assert pairs["run02/training/class03.png"].metadata == {"label": "run02/class03", "run": "run02", "role": "training"}
    for pairs_per_shard in (5, 1000):
        assert check_parts(omniglot, {"input": tmp_path}, pairs_per_shard)


def test_unpacked_folders_are_the_same_as_the_archives(tmp_path: Path) -> None:
    packed, plain = alphabets(tmp_path / "packed"), alphabets(tmp_path / "plain", zipped=False)
    assert read_all(omniglot, {"input": packed})[0] == read_all(omniglot, {"input": plain})[0]


def test_one_of_the_small_sets_is_read_alone(tmp_path: Path) -> None:
    settings = {"input": alphabets(tmp_path), "sets": ["images_background_small2"], "runs": False}
    assert {pair.metadata["alphabet"] for pair in check_source(omniglot, settings)} == {"B", "C"}
    with pytest.raises(InputError, match="no set images_background_small3. Did you mean images_background_small"):
        read_all(omniglot, {"input": tmp_path, "sets": ["images_background_small3"]})


def test_rotations_are_other_characters_of_drawings_to_train_on(tmp_path: Path) -> None:
    settings = {"input": alphabets(tmp_path), "held_out": ["A"], "rotations": True}
    pairs = {pair.name: pair for pair in check_source(omniglot, settings)}
    assert Counter(pair.split for pair in pairs.values()) == {"train": 4 * 12, "test": 12, "runs": 12}
    plain = pixels(pairs["B/character02/0662_03.png"])
    for quarters in (1, 2, 3):
        turned = pairs[f"B/character02/0662_03_{90 * quarters}.png"]
        assert np.array_equal(pixels(turned), np.rot90(plain, quarters)) and turned.group == "B/character02"
        assert (turned.metadata["label"], turned.metadata["turned"]) == (f"B/character02 {90 * quarters}", 90 * quarters)
    assert not any("turned" in pair.metadata for pair in pairs.values() if pair.split != "train")
    assert check_parts(omniglot, settings, pairs_per_shard=7)
    with pytest.raises(InputError, match="has no alphabet Z to hold out"):
        read_all(omniglot, {"input": tmp_path, "held_out": ["Z"]})


def test_a_broken_drawing_costs_itself(tmp_path: Path) -> None:
    whole, damaged = alphabets(tmp_path / "whole", zipped=False), alphabets(tmp_path / "damaged", zipped=False)
    (damaged / "images_evaluation/D/character01/0681_01.png").write_bytes(drawing(0)[:40])
    (damaged / "images_background_small1/B/character01/0661_01.png").write_bytes(drawing(1))  # differs between the sets
    lost = ["D/character01/0681_01.png", "B/character01/0661_01.png"]
    check_broken_items(omniglot, {"input": whole}, {"input": damaged}, lost)


def test_a_run_without_the_line_of_a_drawing_and_a_wrong_folder_are_refused(tmp_path: Path) -> None:
    labels = alphabets(tmp_path / "runs", zipped=False) / "all_runs/run01/class_labels.txt"
    labels.write_text("run01/test/item01.png run01/training/class03.png\n")
    with pytest.raises(InputError, match="item02.png is to be classified, but run01/class_labels.txt has no line"):
        read_all(omniglot, {"input": tmp_path / "runs"})
    labels.write_text("item01 is class03\n")
    with pytest.raises(InputError, match="line 1: is 'item01 is class03'; expected such as run01/test/item01.png run01/training"):
        read_all(omniglot, {"input": tmp_path / "runs"})
    files_at(tmp_path / "else", {"a.txt": b""})
    with pytest.raises(InputError, match="is not laid out as Omniglot"):
        read_all(omniglot, {"input": tmp_path / "else"})
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="bad.zip: cannot be read as a .zip"):
        read_all(omniglot, {"input": tmp_path / "bad.zip"})


# -- Market-1501 ---------------------------------------------------------------------------------------------------------------------------


def boxes(root: Path) -> Path:
    names = [
        f"bounding_box_train/{person:04}_c{camera}s1_00{frame:04}_01.jpg" for person in (2, 7) for camera in (1, 3) for frame in (5, 9)
    ]
    names += ["query/0003_c1s1_000001_00.jpg", "bounding_box_test/0003_c2s1_000001_00.jpg", "bounding_box_test/0000_c2s1_000009_00.jpg"]
    names += ["bounding_box_test/-1_c3s2_000009_00.jpg", "bounding_box_test/readme.jpg"]
    return files_at(root, {name: jpeg(seed) for seed, name in enumerate(names)} | {"bounding_box_test/Thumbs.db": b"left alone"})


def test_boxes_have_their_person_and_camera_and_junk_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {pair.name: pair for pair in check_source(market1501, {"input": boxes(tmp_path)})}
    assert len(pairs) == 11 and Counter(pair.split for pair in pairs.values()) == {"train": 8, "test": 3}
    assert pairs["bounding_box_train/0007_c3s1_000009_01.jpg"].metadata == {"identity": "0007", "camera": 3}
    assert pairs["query/0003_c1s1_000001_00.jpg"].metadata == {"identity": "0003", "camera": 1, "role": "query"}
    assert pairs["query/0003_c1s1_000001_00.jpg"].group == pairs["bounding_box_test/0003_c2s1_000001_00.jpg"].group == "person 0003"
    assert pairs["bounding_box_test/0000_c2s1_000009_00.jpg"].metadata == {"camera": 2, "distractor": True, "role": "gallery"}
    plan_of_market(1000, tmp_path)
    told = capsys.readouterr().err
    assert "1 boxes of nobody in particular (person -1) are left out" in told and "1 distractors (person 0000)" in told
    assert "1 pictures have other names, such as bounding_box_test/readme.jpg" in told
    for pairs_per_shard in (2, 1000):
        assert check_parts(market1501, {"input": tmp_path}, pairs_per_shard)


def test_a_share_of_the_persons_can_be_held_out_with_a_query_for_each_camera(tmp_path: Path) -> None:
    names = [f"{person:04}_c{camera}s1_000{frame}_00.jpg" for person in range(1, 9) for camera in (1, 2) for frame in (1, 2)]
    pairs = check_source(market1501, {"input": files_at(tmp_path, {name: jpeg(0) for name in names}), "hold_out": 3})
    for pair in pairs:
        person = pair.name[:4]
        held = int.from_bytes(blake2b(person.encode(), digest_size=8).digest(), "big") % 3 == 0
        assert held == is_held_out(person, 3) and pair.split == ("test" if held else "train")
        assert pair.metadata.get("role") == (("both" if "_0001_" in pair.name else "gallery") if held else None)
    assert {pair.split for pair in pairs} == {"train", "test"}
    plain = check_source(market1501, {"input": tmp_path})
    assert not any(pair.split for pair in plain) and {pair.group for pair in plain} == {f"person {number:04}" for number in range(1, 9)}


def test_a_folder_without_such_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name such as 0002_c1s1_000451_03.jpg in it, only 1 pictures, such as dog.jpg"):
        read_all(market1501, {"input": files_at(tmp_path, {"dog.jpg": jpeg(0)})})
    with pytest.raises(InputError, match="hold_out is 1; it must be at least 2"):
        read_all(market1501, {"input": tmp_path, "hold_out": 1})


# -- classes -------------------------------------------------------------------------------------------------------------------------------


def test_a_folder_a_class_with_or_without_splits(tmp_path: Path) -> None:
    names = ["cat/1.jpg", "cat/old/2.jpg", "dog/1.jpg"]
    flat = files_at(tmp_path / "flat", {name: jpeg(seed) for seed, name in enumerate(names)})
    split = files_at(tmp_path / "split", {f"{part}/{name}": jpeg(seed) for part in ("train", "val") for seed, name in enumerate(names)})
    pairs = check_source(classes, {"input": flat})
    assert [(pair.name, pair.group, pair.split, pair.metadata) for pair in pairs] == [
        (name, name, "", {"label": name.partition("/")[0]}) for name in names
    ]
    assert [pair.group for pair in check_source(classes, {"input": flat, "group_by_class": True})] == ["cat", "cat", "dog"]
    of_splits = check_source(classes, {"input": split})
    assert [(pair.name, pair.split) for pair in of_splits[::3]] == [("train/cat/1.jpg", "train"), ("val/cat/1.jpg", "val")]
    assert [pair.metadata["label"] for pair in of_splits] == ["cat", "cat", "dog"] * 2
    for input in (flat, split):
        assert check_parts(classes, {"input": input}, 2)


def test_a_class_called_train_is_a_class_if_there_is_no_other_split(tmp_path: Path) -> None:
    pairs = check_source(classes, {"input": files_at(tmp_path, {name: jpeg(0) for name in ("train/1.jpg", "plane/1.jpg")})})
    assert {pair.metadata["label"] for pair in pairs} == {"train", "plane"}


def test_a_broken_picture_costs_itself(tmp_path: Path) -> None:
    files = {name: jpeg(seed) for seed, name in enumerate(("a/1.jpg", "a/2.jpg", "b/3.jpg"))}
    whole, damaged = files_at(tmp_path / "whole", files), files_at(tmp_path / "damaged", {**files, "a/2.jpg": jpeg(1)[:50]})
    check_broken_items(classes, {"input": whole}, {"input": damaged}, ["a/2.jpg"])


def cifar10(root: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    rows, labels = random.integers(0, 256, (12, 3, 32, 32), np.uint8), np.arange(12) % 3
    files = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    content = {
        name: b"".join(bytes([labels[at]]) + rows[at].tobytes() for at in (2 * number, 2 * number + 1)) for number, name in enumerate(files)
    }
    return files_at(root, {**content, "batches.meta.txt": b"plane\ncar\nbird\n\n"}), rows, labels


def test_cifar_is_read_from_its_binary_version(tmp_path: Path) -> None:
    root, rows, labels = cifar10(tmp_path)
    pairs = check_source(classes, {"input": root})
    assert [pair.split for pair in pairs] == ["train"] * 10 + ["test"] * 2
    assert [pair.metadata["label"] for pair in pairs] == [["plane", "car", "bird"][number] for number in labels]
    assert all(np.array_equal(pixels(pair), row.transpose(1, 2, 0)) for pair, row in zip(pairs, rows, strict=True))
    assert check_parts(classes, {"input": root}, 3)
    assert {pair.group for pair in read_all(classes, {"input": root, "group_by_class": True})[0]} == {"plane", "car", "bird"}


def test_cifar_100_has_its_coarse_classes_beside(tmp_path: Path) -> None:
    row = np.zeros(3072, np.uint8).tobytes()
    files = {"train.bin": bytes([1, 0]) + row + bytes([0, 1]) + row, "test.bin": bytes([0, 1]) + row}
    names = {"fine_label_names.txt": b"apple\nbeaver\n", "coarse_label_names.txt": b"mammals\nfruit\n"}
    pairs = check_source(classes, {"input": files_at(tmp_path, {**files, **names})})
    assert [pair.metadata for pair in pairs] == [
        {"label": "apple", "coarse": "fruit"},
        {"label": "beaver", "coarse": "mammals"},
        {"label": "beaver", "coarse": "mammals"},
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "test_batch.bin").write_bytes(b"x" * 3072), "no multiple of the 3,073 of a picture"),
        (lambda root: (root / "batches.meta.txt").write_text("plane\n"), "class 2.*1 names"),
        (lambda root: (root / "data_batch_3.bin").unlink(), "without data_batch_3.bin. Unpack the whole archive"),
        (lambda root: [file.rename(root / file.stem) for file in root.glob("*.bin")], "data_batch_1 is of CIFAR's python version.*pickle"),
    ],
)
def test_damaged_or_pickled_cifar_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    root, _, _ = cifar10(tmp_path)
    change(root)
    with pytest.raises(InputError, match=said):
        read_all(classes, {"input": root})


def test_arrays_in_a_npz(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)
    np.savez(tmp_path / "few.npz", x_train=x[:3], y_train=[0, 1, 0], x_test=x[3:], y_test=[1, 1], names=["cat", "dog"])
    pairs = check_source(classes, {"input": tmp_path / "few.npz"})
    assert [pair.metadata["label"] for pair in pairs] == ["cat", "dog", "cat", "dog", "dog"]
    assert np.array_equal(pixels(pairs[3]), x[3]) and check_parts(classes, {"input": tmp_path / "few.npz"}, 2)
    np.savez(tmp_path / "pickled.npz", x_train=np.array([{}], object))
    with pytest.raises(InputError, match="cannot be read as a .npz of plain arrays"):
        read_all(classes, {"input": tmp_path / "pickled.npz"})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["a.jpg"], "a.jpg is in no folder of a class"),
        (["train/a/1.jpg", "val/1.jpg"], "val/1.jpg is in no folder of a class; expected .*/train/<class>/<picture>"),
        (["train/a/1.jpg", "test/a/1.jpg", "cats/1.jpg"], "has test, train and cats, so it is unclear what a class is"),
        (["a/1.txt"], "no picture .* in it, only a/"),
    ],
)
def test_a_folder_without_classes_is_refused(tmp_path: Path, files: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_all(classes, {"input": files_at(tmp_path, {name: jpeg(0) for name in files})})


# -- all of them ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "omniglot", "market1501", "classes"])
def test_help_teaches_what_the_folder_should_hold(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-shards", name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"data-prep make-shards {name} " in told and "metadata has" in told


def test_shards_of_classes_are_a_set_like_any_other(tmp_path: Path) -> None:
    assert main(["make-shards", "mnist", str(digits(tmp_path / "mnist")), "--output", str(tmp_path / "set")]) == 0
    shards = ShardSet(tmp_path / "set")
    assert len(shards) == 17 and not shards.num_texts.any() and len(Split().ids(shards, "test")) == 5
    before = shards.fingerprint
    shutil.rmtree(tmp_path / "set")
    assert make_shards(find_source("mnist"), {"input": tmp_path / "mnist"}, tmp_path / "set").fingerprint == before


@pytest.mark.parametrize(
    ("name", "settings", "num"),
    [
        ("mnist", {}, 70_000),
        ("omniglot", {}, 4840 + 800),
        ("market1501", {"hold_out": 3}, 12_936),
        ("classes", {}, 3000),
    ],
)
def test_the_published_files_are_read_whole(shared_data: Path, name: str, settings: dict[str, Any], num: int) -> None:
    input = shared_data / {"classes": "cifar10/cifar10.npz"}.get(name, name)
    if not input.exists():
        pytest.skip(f"real data absent: {input}")
    plan = plan_of(find_source(name))
    assert plan is not None
    assert sum(one["stop"] - one["start"] for one in plan(1000, **with_defaults(find_source(name), {"input": input, **settings}))) == num
