from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from multimodal.embed.class_texts import class_weights, predict
from multimodal.errors import InputError
from multimodal.evaluate.figures import queries_path
from multimodal.evaluate.zeroshot import (
    ZeroShotRow,
    as_table,
    class_table,
    judge,
    page,
    permuted_accuracies,
    read_predictions,
    write_predictions,
)
from multimodal.export.model import load_export
from multimodal.metrics import interval

if TYPE_CHECKING:
    from tests.conftest import Road

CLASSES = ("cat", "deer", "dog", "frog", "ship", "truck", "zxqv")
COLOURS = ("black", "blue", "green", "red", "yellow")


def made(num: int = 60, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (num, 6), class vectors (7, 6) of which the last is unknown and two are equal, and labels (num,)."""
    random = np.random.default_rng(seed)
    weights = np.eye(7, 6) + 0.3
    weights[6] = 0
    weights[5] = weights[4]
    labels = random.integers(7, size=num)
    return (weights[labels] + noise * random.standard_normal((num, 6))).astype(np.float32), weights, labels


def row_of(seed: int = 0, **settings: object) -> tuple[ZeroShotRow, object]:
    rows, weights, labels = made(seed=seed)
    found = judge(rows, weights, labels)
    return ZeroShotRow.of(found, CLASSES, "mine", "wordvec", "made", "names", seed=seed, **settings), found  # type: ignore[arg-type]


# -- arrays --------------------------------------------------------------------------------------------------------------------------------


def test_ranks_and_predictions_are_those_of_loops_in_which_ties_are_lost() -> None:
    rows, weights, labels = made()
    rows[3] = 0  # equally near to every class
    rows[4] = np.nan
    found = judge(rows, weights, labels)
    for number, label in enumerate(labels.tolist()):
        row = rows[number].astype(np.float64)
        length = np.linalg.norm(row)
        cosines = {
            place: round(float(row @ weight / length / np.linalg.norm(weight)), 6) if np.isfinite(length) and length else 0.0
            for place, weight in enumerate(weights[:6])
        }
        own = cosines.get(label, -2.0)
        assert found.ranks[number] == sum(value >= own for value in cosines.values()) + (label == 6)
        best = [place for place, value in cosines.items() if value == max(cosines.values())]
        assert found.tied[number] == (len(best) > 1)
        assert found.predicted[number] in best
        assert (found.predicted[number] == label) == (best == [label])
    assert found.known.tolist() == [True] * 6 + [False]
    assert (found.right == (found.predicted == labels)).all()
    assert not found.right[np.isin(labels, [4, 5, 6])].any()  # two classes that cannot be told apart, and one that is unknown


def test_a_model_that_finds_everything_equal_is_never_right() -> None:
    found = judge(np.ones((20, 3)), np.ones((4, 3)), np.arange(20) % 4)
    assert not found.right.any() and (found.ranks == 4).all()
    assert not permuted_accuracies(found, 20).any()


def test_counts_are_by_class_and_prediction() -> None:
    rows, weights, labels = made()
    found, expected = judge(rows, weights, labels), np.zeros((7, 7), int)
    for label, predicted in zip(labels, found.predicted, strict=True):
        expected[label, predicted] += 1
    assert (found.counts() == expected).all()


def test_permuted_accuracies_are_those_of_class_vectors_in_another_order() -> None:
    rows, weights, labels = made()
    found = judge(rows, weights, labels)
    every = {
        round(float(judge(rows, np.concatenate([weights[list(order)], weights[6:]]), labels).right.mean()), 9)
        for order in permutations(range(6))
    }
    drawn = permuted_accuracies(found, 500)
    assert {round(value, 9) for value in drawn.tolist()} <= every
    certain = (~found.tied & (labels < 6)).mean()
    assert drawn.mean() == pytest.approx(certain / 6, abs=0.01)


def test_classes_that_are_told_apart_leave_the_range_of_the_permuted_ones() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(500) % 10
    near = judge(np.eye(10)[labels] + 0.2 * random.standard_normal((500, 10)), np.eye(10), labels)
    far = judge(random.standard_normal((500, 10)), np.eye(10), labels)
    for found, apart in ((near, True), (far, False)):
        low, high = np.quantile(permuted_accuracies(found), [0.005, 0.995])
        assert (found.right.mean() > high) == apart and low <= 0.1 <= high


# -- figures -------------------------------------------------------------------------------------------------------------------------------


def test_a_row_holds_what_loops_count() -> None:
    rows, weights, labels = made(noise=0.2)
    found = judge(rows, weights, labels)
    row = ZeroShotRow.of(found, CLASSES, "mine", "wordvec", "made", "names")
    by_class = {name: 100 * np.mean(found.predicted[labels == place] == place) for place, name in enumerate(CLASSES)}
    assert row.by_class == pytest.approx(by_class, abs=0.01)
    assert row.per_class == pytest.approx(np.mean(list(by_class.values())), abs=0.01)
    assert row.top_1 == pytest.approx(100 * (found.predicted == labels).mean(), abs=0.01)
    assert row.top_5 == pytest.approx(100 * (found.ranks <= 5).mean(), abs=0.01)
    assert row.chance == pytest.approx(100 * np.bincount(labels).max() / 60, abs=0.01)
    assert (row.low, row.high) == pytest.approx(tuple(100 * end for end in interval(found.right)), abs=0.01)
    assert row.unknown == ["zxqv"] and row.by_class["zxqv"] == 0
    assert row.confusion == dict(zip(CLASSES, found.counts().tolist(), strict=True))
    assert row.permuted_low <= row.permuted <= row.permuted_high


def test_a_class_without_pictures_does_not_count_and_five_classes_have_no_top_5() -> None:
    rows, weights, _ = made()
    labels = np.arange(60) % 3
    row = ZeroShotRow.of(judge(rows, weights[:5], labels), CLASSES[:5], "mine", "wordvec", "made", "names")
    assert row.top_5 is None and list(row.by_class) == ["cat", "deer", "dog"] == list(row.confusion)
    assert row.classes == list(CLASSES[:5])


def test_seeds_become_one_line_whose_interval_draws_pictures() -> None:
    rows, found = zip(*(row_of(seed) for seed in range(3)), strict=True)
    line = as_table(rows, found).splitlines()[1]  # type: ignore[arg-type]
    values = [row.top_1 for row in rows]
    low, high = interval(np.concatenate([one.right for one in found]), np.concatenate([one.groups for one in found]))  # type: ignore[attr-defined]
    assert f"{np.mean(values):.1f}   [{100 * low:.1f}, {100 * high:.1f}]  {min(values):.1f}..{max(values):.1f} of 3" in line
    assert len(as_table(rows, found).splitlines()) == 2  # type: ignore[arg-type]
    by_class = class_table(rows).splitlines()
    assert by_class[0].split() == ["class", "pictures", "top-1", "taken", "for"] and len(by_class) == 8
    assert f"{np.mean([row.by_class['cat'] for row in rows]):.1f}" in by_class[1]
    others = [*rows, row_of(control=True)[0]]
    assert class_table(others).splitlines()[0].split() == ["class", "pictures", "mine", "mine", "shuffled"]


def test_rows_and_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows, found = zip(*(row_of(seed) for seed in range(2)), strict=True)
    write_predictions(tmp_path / "figures.json", rows, found)  # type: ignore[arg-type]
    again, predictions = read_predictions(tmp_path / "figures.json")
    assert again == list(rows)
    assert as_table(again, predictions) == as_table(rows, found)  # type: ignore[arg-type]
    for one, other in zip(predictions, found, strict=True):
        for name in ("groups", "labels", "predicted", "ranks", "cosine", "tied", "known"):
            assert (getattr(one, name) == getattr(other, name)).all(), name
    queries_path(tmp_path / "figures.json").unlink()
    with pytest.raises(InputError, match=r"figures\.queries\.parquet: is missing"):
        read_predictions(tmp_path / "figures.json")


def test_the_page_shows_the_confusion_of_each_line() -> None:
    row, found = row_of()
    html = page([row], [found], commands=["multimodal evaluate zeroshot"])  # type: ignore[list-item]
    assert html.count('<table class="heat">') == 1 and "what it is taken for" in html
    assert all(name in html for name in CLASSES)


# -- the verb, on pictures -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def classed(own_road: Road) -> Road:
    """A road with its drawings in a folder for each colour."""
    for picture in sorted((own_road.folder / "photos").glob("*.png")):
        of_class = own_road.folder / "colours" / picture.name.partition("-")[0]
        of_class.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, of_class)
    return own_road


COMMAND = "multimodal evaluate zeroshot --export export --data colours --split.held-out 0.5 --device cpu"


def test_names_templates_and_sentences_are_lines_of_one_command(classed: Road) -> None:
    (classed.folder / "templates.txt").write_text("a {} circle\na {} square on white paper\n")
    (classed.folder / "sentences.txt").write_text("".join(f"{name}: a {name} triangle\n" for name in COLOURS))
    shutil.copy(classed.folder / "sentences.txt", classed.folder / "others.txt")
    texts = "--templates templates.txt --sentences sentences.txt others.txt"
    told = classed.run(f"{COMMAND} {texts} --recipe mine --output figures.json --html page.html")
    assert told.status == 0, told.err
    assert "embedding at 48 px" in told.err and told.err.count("done") == 1
    rows = json.loads((classed.folder / "figures.json").read_text())
    assert [(row["recipe"], row["family"], row["texts"]) for row in rows] == [
        ("mine", "wordvec", "names"),
        ("mine", "wordvec", "2 templates"),
        ("mine", "wordvec", "sentences"),
        ("mine", "wordvec", "others"),
    ]
    assert all(row["classes"] == list(COLOURS) and row["size"] == 48 and row["top-5"] is None for row in rows)
    assert told.out.count("\n  ") == 0 and "95 % interval" in told.out and "permuted" in told.out
    assert "<html" in (classed.folder / "page.html").read_text()
    lines = pq.read_table(classed.folder / "figures.queries.parquet").to_pylist()
    assert len(lines) == 4 * rows[0]["num_pictures"]
    for row, number in zip(rows, range(4), strict=True):
        of_row = [line for line in lines if line["row"] == number]
        assert row["top-1"] == pytest.approx(100 * np.mean([line["class"] == line["predicted"] for line in of_row]), abs=0.01)


def test_pictures_get_the_vectors_of_the_export(classed: Road) -> None:
    assert classed.run(f"{COMMAND} --output figures.json").status == 0
    lines = pq.read_table(classed.folder / "figures.queries.parquet").to_pylist()
    export = load_export(classed.folder / "export")
    export.preprocessing = replace(export.preprocessing, crop_share=1.0, interpolation="bicubic")  # as in evaluate probe
    vectors = export.embed_image_files([classed.folder / "colours" / line["picture"] for line in lines])
    expected = [COLOURS[place] for place in predict(vectors, class_weights(export.query.embed, COLOURS))]
    assert [line["predicted"] for line in lines] == expected


def test_a_class_of_no_known_word_is_named_and_never_predicted(classed: Road) -> None:
    shutil.copytree(classed.folder / "colours" / "red", classed.folder / "colours" / "zxqv")
    told = classed.run(f"{COMMAND} --output figures.json")
    assert told.status == 0
    assert "export: its text space knows no word of 'zxqv': never predicted, and their pictures count as wrong" in told.err
    [row] = json.loads((classed.folder / "figures.json").read_text())
    assert row["unknown"] == ["zxqv"] and row["by_class"]["zxqv"] == 0
    assert all(line[-1] == 0 for line in row["confusion"].values())
    (classed.folder / "names.txt").write_text("zxqv: white\n" + "".join(f"{name}: {name}\n" for name in COLOURS))
    told = classed.run(f"{COMMAND} --names names.txt")
    assert told.status == 0 and "knows no word" not in told.err


def test_seeds_of_one_recipe_share_the_features_and_a_line(classed: Road) -> None:
    shutil.copytree(classed.folder / "export", classed.folder / "again")
    told = classed.run(f"{COMMAND.replace('export export', 'export export again')} --part train")
    assert told.status == 0, told.err
    assert told.err.count("done") == 1
    assert " of 2 " in told.out and told.out.count("wordvec") == 1


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"names.txt": "a\nb\n"},
            "--names names.txt",
            "names.txt: has 2 lines for 5 classes. Write one line for each, in this order: black, blue",
        ),
        ({"names.txt": ""}, "--names names.txt", "names.txt: is empty"),
        ({"t.txt": "a photo\n"}, "--templates t.txt", "t.txt, line 1: template 'a photo': expected a text with one {}"),
        ({"s.txt": "red: red\n"}, "--sentences s.txt", "s.txt: has no text for 4 of 5 classes: black, blue, green, yellow"),
        (
            {"names.txt": "q1\nq2\nq3\nq4\nred\n"},
            "--names names.txt",
            "knows no word of 'q1', 'q2', 'q3', 'q4', and at least 2 classes must be known",
        ),
        (
            {"s.txt": "".join(f"{name}: {name}\n" for name in COLOURS)},
            "--sentences s.txt s.txt",
            "another line of the table is called 's' too",
        ),
        ({}, "--size 0", "size=0 must be at least 1"),
        ({}, "--part dev", "--part"),
        ({}, "--export nowhere", "nowhere: expected an export here"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(classed: Road, files: dict[str, str], options: str, message: str) -> None:
    for name, text in files.items():
        (classed.folder / name).write_text(text)
    command = COMMAND.replace("--export export", "") if "--export" in options else COMMAND
    told = classed.run(f"{command} {options} --output figures.json")
    assert told.status == 2 and message in told.err, told.err
    assert not list(classed.folder.glob("figures*"))


def test_one_class_is_not_a_choice(classed: Road) -> None:
    for name in COLOURS[1:]:
        shutil.rmtree(classed.folder / "colours" / name)
    told = classed.run(COMMAND)
    assert told.status == 2 and "colours: has pictures of 1 class, and at least 2 classes are needed" in told.err


def test_classes_of_one_name_and_a_single_picture_are_refused(classed: Road) -> None:
    pictures, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 0])
    for names, num, message in [
        (["red", "blue", "red"], 4, "several classes are called 'red'. Name each class differently"),
        (["red", "blue", "green"], 1, "1 picture of test can be read, and an interval needs at least 2"),
    ]:
        test = {"x_test": pictures[:num], "y_test": labels[:num]}
        np.savez(classed.folder / "few.npz", x_train=pictures, y_train=labels, names=np.array(names), **test)
        told = classed.run("multimodal evaluate zeroshot --export export --data few.npz --device cpu")
        assert told.status == 2 and message in told.err, told.err


def test_exports_of_other_models_are_no_seeds_of_one_recipe(classed: Road) -> None:
    shutil.copytree(classed.folder / "export", classed.folder / "other")
    manifest = json.loads((classed.folder / "other" / "manifest.json").read_text())
    manifest["config"]["family"] = "mine"
    (classed.folder / "other" / "manifest.json").write_text(json.dumps(manifest))
    told = classed.run(COMMAND.replace("export export", "export export other"))
    assert told.status == 2
    assert "other: is another model (mine) than export (wordvec)" in told.err and "Evaluate them one at a time" in told.err
