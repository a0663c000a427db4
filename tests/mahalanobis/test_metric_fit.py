"""`multimodal metric fit` on a trained export: the new export's vectors are the mapped ones, of pictures and of words, and never worse."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from multimodal.errors import InputError
from multimodal.export.model import load_export
from multimodal.mahalanobis.choosing import Chosen, Setting
from multimodal.mahalanobis.door import head_outputs
from multimodal.mahalanobis.folding import _folded, check_foldable, fold, mapped
from multimodal.metrics import unit
from multimodal.search.store import Store
from multimodal.shards import ShardSet
from multimodal.shards.judged import PAIR, TRIPLET, read_places
from multimodal.text.projected import ProjectedSpace
from multimodal.towers import Head

if TYPE_CHECKING:
    from tests.conftest import Road


def write_pairs(path: Path, names: list[str], same: list[bool], pairs: list[tuple[int, int]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["a", "b", "same"])
        lines.writerows([names[a], names[b], int(is_same)] for (a, b), is_same in zip(pairs, same, strict=True))


def test_a_metric_from_pairs_is_searched_like_any_export_or_left_out(own_road: Road) -> None:
    shards = ShardSet(own_road.folder / "set")
    names = list(shards.names)
    every = list(combinations(range(len(names)), 2))
    pairs = [every[place] for place in np.random.default_rng(0).permutation(len(every))[:500]]
    shapes = [name.split("-")[1] for name in names]
    same = [shapes[a] == shapes[b] for a, b in pairs]
    write_pairs(own_road.folder / "shapes.csv", names, same, pairs)
    write_pairs(own_road.folder / "nothing.csv", names, np.random.default_rng(1).permutation(same).tolist(), pairs)
    fit = "multimodal metric fit --export export --shards set --part all --column trunk --device cpu"

    told = own_road.run(f"{fit} --pairs nothing.csv --output same")
    assert told.status == 0 and "so the metric stays as it was" in told.err
    assert load_export(own_road.folder / "same").fingerprint == load_export(own_road.folder / "export").fingerprint

    told = own_road.run(f"{fit} --pairs nothing.csv --output same2 --false-accept 0.02")
    kept = load_export(own_road.folder / "same2")
    assert told.status == 0 and kept.card.same["false_accepts"] <= 0.02 and "the same: from a cosine of" in told.out
    assert kept.card.dim == load_export(own_road.folder / "export").card.dim
    told = own_road.run(f"{fit} --pairs shapes.csv --output metric --new pictures --false-accept 0.05")
    assert told.status == 0 and "AUC on held-out pictures" in told.err and "stays" not in told.err, told.err
    told = own_road.run("multimodal index --export metric --shards set --output mapped --column trunk --device cpu")
    assert told.status == 0, told.err
    told = own_road.run('multimodal search --store mapped "triangle" --k 9')
    assert told.status == 0 and len(told.out.splitlines()) == 9
    before, after = Store(own_road.folder / "store"), Store(own_road.folder / "mapped")
    assert share_of_neighbours(after.rows, shapes) > share_of_neighbours(before.rows, shapes) + 0.05
    figures = load_export(own_road.folder / "metric").card.figures
    opened = load_export(own_road.folder / "metric")
    alike = opened.are_same(after.rows[:9], after.rows)
    assert (
        (alike == (opened.similarity(after.rows[:9], after.rows) >= opened.card.same["cosine"])).all() and alike.any() and not alike.all()
    )
    with pytest.raises(InputError, match="nobody has measured from which cosine"):
        load_export(own_road.folder / "export").are_same(after.rows, after.rows)
    assert figures["metric/AUC"] > figures["metric/AUC before"] and "val/R@10" in figures

    told = own_road.run(f"{fit} --pairs shapes.csv --output metric")
    assert told.status == 2 and "is there already" in told.err
    told = own_road.run(f"{fit} --label shape --output other")
    assert told.status == 2 and "has no shape in its metadata" in told.err


def test_a_picture_that_cannot_be_read_costs_itself_alone(own_road: Road) -> None:
    shards = ShardSet(own_road.folder / "set")
    names, shard = list(shards.names), shards.shards[0]
    with open(own_road.folder / "set" / f"{shard.name}.tar", "r+b") as tar:
        tar.seek(shards.rows(shard)[5].image_offset)
        tar.write(bytes(100))
    pairs = list(combinations(range(len(names)), 2))
    shapes = [name.split("-")[1] for name in names]
    write_pairs(own_road.folder / "shapes.csv", names, [shapes[a] == shapes[b] for a, b in pairs], pairs)
    told = own_road.run("multimodal metric fit --export export --shards set --part all --device cpu --pairs shapes.csv --output metric")
    assert told.status == 0, told.err
    assert f"1 of 45 pictures cannot be read, such as {shards.key(5)} (not an image" in told.err


def share_of_neighbours(rows: np.ndarray, values: list[str]) -> float:
    cosines = unit(rows.astype(np.float64)) @ unit(rows.astype(np.float64)).T
    np.fill_diagonal(cosines, -1)
    return float(np.mean([values[near] == value for near, value in zip(cosines.argmax(axis=1), values, strict=True)]))


def test_a_store_of_the_new_export_is_what_the_map_makes_of_the_old_vectors(own_road: Road) -> None:
    opened, shards = load_export(own_road.folder / "export"), ShardSet(own_road.folder / "set")
    ids = np.arange(len(shards))
    rows = head_outputs(opened, shards, ids, "trunk", None).rows.astype(np.float64)
    by_pictures = head_outputs(opened, shards, ids, None, None)
    np.testing.assert_array_equal(by_pictures.ids, ids)
    np.testing.assert_allclose(unit(by_pictures.rows), unit(rows), atol=2e-3)  # a column is float16
    weight = np.random.default_rng(0).normal(size=(5, rows.shape[1]))
    chosen = Chosen(weight, np.zeros(rows.shape[1]), Setting("kissme", 5, 1.0), "AUC", 0.5, 0.9, (0.3, 0.5))
    made = load_export(fold(opened, chosen, {}, own_road.folder / "metric"))
    told = own_road.run("multimodal index --export metric --shards set --output mapped --column trunk --device cpu")
    assert told.status == 0, told.err
    np.testing.assert_allclose(unit(Store(own_road.folder / "mapped").rows.astype(np.float64)), unit(rows @ weight.T), atol=2e-3)
    texts = ["a red circle", "zxqv", "paper"]
    wanted = opened.query.embed(texts).astype(np.float64) @ weight.T
    np.testing.assert_allclose(made.query.embed(texts)[[0, 2]], unit(wanted[[0, 2]]), atol=1e-6)
    assert not made.query.embed(texts)[1].any(), "an unknown word stays unknown"
    again = mapped(made.query, np.eye(5)[:3])  # a metric of a metric is one map, without the GELU between layers
    assert isinstance(again, ProjectedSpace) and len(again.layers) == 1
    np.testing.assert_allclose(again.embed(texts)[0], unit(wanted[:1, :3])[0], atol=1e-6)


@pytest.mark.parametrize(
    "head",
    [nn.Identity(), nn.Linear(6, 4), nn.Linear(6, 4, bias=False), Head(6, 4, standardise=True), Head(6, 4, hidden=5)],
    ids=["identity", "linear", "linear without bias", "standardised", "hidden"],
)
def test_a_folded_head_gives_the_mapped_output(head: nn.Module) -> None:
    head.eval()
    random = np.random.default_rng(0)
    rows = torch.from_numpy(random.normal(size=(7, 6))).float()
    with torch.no_grad():
        given = head(rows).double().numpy()
    weight, bias = random.normal(size=(3, given.shape[1])), random.normal(size=3)
    arguments = {"dim_in": 6, "dim_out": 4, "standardise": isinstance(head, Head) and head.standardise is not None}
    arguments["hidden"] = 5 if isinstance(head, Head) and head.hidden is not None else None
    made, described = _folded(head, {"class_path": "multimodal.towers.Head", "init_args": arguments}, weight, bias)
    with torch.no_grad():
        np.testing.assert_allclose(made.eval()(rows).numpy(), given @ weight.T + bias, atol=1e-5)
    assert 3 in described["init_args"].values()


def test_vectors_that_are_no_linear_output_are_refused(own_road: Road) -> None:
    opened = load_export(own_road.folder / "export")
    check_foldable(opened)
    opened.network.head = Head(256, 8, activation=nn.Tanh())
    with pytest.raises(InputError, match="no linear map at its end"):
        check_foldable(opened)
    opened = load_export(own_road.folder / "export")
    opened.network.objective.output = lambda image: image.softmax(dim=1)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="such as shares of topics"):
        check_foldable(opened)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a,b\n1,2\n", "has no column same"),
        ("a,b,same\nred-circle-0.png,nobody.png,1\n", r"line 2: 'nobody.png' is no picture of .*set, by its name"),
        ("a,b,same\n0,1,perhaps\n", r"line 2: same is 'perhaps'; expected 1 or 0"),
        ("a,b,same\n0,99999,1\n", r"line 2: '99999' is no picture"),
    ],
)
def test_a_wrong_line_is_named(road: Road, tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(lines)
    with pytest.raises(InputError, match=message):
        read_places(tmp_path / "pairs.csv", ShardSet(road.folder / "set"), np.arange(45), PAIR)


def test_a_picture_of_another_part_is_said_so(road: Road, tmp_path: Path) -> None:
    shards = ShardSet(road.folder / "set")
    for written in (shards.names[9], shards.key(9), "9"):
        (tmp_path / "pairs.csv").write_text(f"a,b,same\n0,{written},1\n")
        with pytest.raises(InputError, match="is a picture of another part of .*set. Choose another --part, such as all"):
            read_places(tmp_path / "pairs.csv", shards, np.arange(9), PAIR)


def test_pictures_are_named_by_name_key_or_id(road: Road, tmp_path: Path) -> None:
    shards = ShardSet(road.folder / "set")
    (tmp_path / "pairs.csv").write_text(f"number,a,b,same\n0,{shards.names[3]},{shards.key(7)},yes\n1,7,12,1\n2,5,5,1\n3,12,7,0\n")
    ids, places, same = read_places(tmp_path / "pairs.csv", shards, np.arange(len(shards)), PAIR)
    assert ids.tolist() == [3, 7, 12] and places.tolist() == [[0, 1], [1, 2]]
    assert same.tolist() == [True, False], "of two judgements of the same pictures the last one counts"
    (tmp_path / "triplets.csv").write_text("anchor,same,different\n12,3,7\n12,3,9\n")
    ids, places, _ = read_places(tmp_path / "triplets.csv", shards, np.arange(len(shards)), TRIPLET)
    assert ids.tolist() == [3, 7, 9, 12] and places.tolist() == [[3, 0, 1], [3, 0, 2]]
