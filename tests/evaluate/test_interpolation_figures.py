"""Both sides of a fine-tuning by alpha: the figures are those of the exports that `export --interpolate` makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from multimodal.evaluate.interpolation import _remembering
from multimodal.metrics import kept, trade_off
from multimodal.text import EncoderSpace

if TYPE_CHECKING:
    from multimodal.text.long_texts import LongTexts
    from tests.conftest import Road

COMMAND = "multimodal evaluate interpolation --base export --export tuned-export --shards set --part all --device cpu"


@pytest.fixture(scope="module")
def tuned(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Road:
    """A road whose run was trained further, with its drawings in a folder for each colour."""
    own = type(road)(Path(shutil.copytree(road.folder, tmp_path_factory.mktemp("tuned") / "road")))
    for picture in sorted((own.folder / "photos").glob("*.png")):
        of_class = own.folder / "colours" / picture.name.partition("-")[0]
        of_class.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, of_class)
    for command in (
        "multimodal fit --config recipe.yaml --data.shards set --init_from run --model.optimiser.lr 0.1 --run tuned",
        "multimodal export --run tuned --space space --output tuned-export",
    ):
        told = own.run(command)
        assert told.status == 0, told.err
    return own


def test_every_alpha_has_the_figures_of_its_export(tuned: Road) -> None:
    told = tuned.run(f"{COMMAND} --foreign set --foreign-part train --classes colours --alphas 0.3 1 --output all.json --html all.html")
    assert told.status == 0, told.err
    rows: list[dict[str, Any]] = json.loads((tuned.folder / "all.json").read_text())
    others = ["foreign pairs: set, train", "zero-shot: colours"]
    assert [(row["alpha"], row["other"]) for row in rows] == [(alpha, other) for alpha in (0, 0.3, 1) for other in others]
    assert {row["own"] for row in rows} == {"own pairs: set, all"}
    for command in (
        "multimodal export --run tuned --space space --interpolate export --alpha 0.3 --output between",
        "multimodal index --export between --shards set --output store --device cpu",
        "multimodal evaluate retrieval --store store --shards set --part all --directions 'text->image' --output own.json",
        "multimodal evaluate retrieval --store store --shards set --part train --directions 'text->image' --output foreign.json",
        "multimodal evaluate zeroshot --export between --data colours --part train --device cpu --output classes.json",
    ):
        made = tuned.run(command.replace("--output store ", "--output store3 ").replace("--store store ", "--store store3 "))
        assert made.status == 0, made.err
    own, foreign, classes = (json.loads((tuned.folder / f"{name}.json").read_text())[0] for name in ("own", "foreign", "classes"))
    for row in rows[2:4]:
        assert (row["own_R@1"], row["own_R@10"]) == (own["R@1"], own["R@10"])
        assert (row["own_low"], row["own_high"], row["own_chance"]) == (own["R@10_low"], own["R@10_high"], own["chance_R@10"])
    assert (rows[2]["other_figure"], rows[2]["other_chance"]) == (foreign["R@10"], foreign["chance_R@10"])
    assert (rows[3]["other_figure"], rows[3]["other_chance"]) == (classes["top-1"], classes["chance_top-1"])
    for row, start in zip(rows, rows[:2] * 3, strict=True):
        assert row["kept"] == pytest.approx(kept(row["other_figure"], start["other_figure"], row["other_chance"]), abs=0.01)
        assert row["trade_off"] == pytest.approx(trade_off(row["own_R@10"], row["kept"]), abs=0.01)
    page = (tuned.folder / "all.html").read_text()
    assert page.count("<svg") == 2 and told.out.count("0.3") >= 2


@pytest.mark.parametrize("long_texts", ["cut", "pool"])
def test_texts_that_are_kept_for_all_alphas_have_the_vectors_of_their_space(tiny_bert: Path, long_texts: LongTexts) -> None:
    random = np.random.default_rng(0)
    encoder = EncoderSpace(tiny_bert, max_tokens=12, device="cpu", pooling="cls", prompt="q: ", long_texts=long_texts)
    space = encoder.with_projection(random.normal(size=(5, encoder.dim)), random.normal(size=5))
    texts = ["a dog", "snow and a very long walk with two dogs and a cat", "a dog"]
    assert _remembering(space, {}, tiny_bert / "scratch").embed(texts) == pytest.approx(space.embed(texts), abs=1e-6)


def test_a_column_gives_the_same_figures_as_the_pictures(tuned: Road) -> None:
    for name, more in {"column": "--column trunk", "pixels": ""}.items():
        told = tuned.run(f"{COMMAND} --foreign set --foreign-part all --alphas 0.5 --output {name}.json {more}")
        assert told.status == 0, told.err
    one, other = (json.loads((tuned.folder / f"{name}.json").read_text()) for name in ("column", "pixels"))
    assert [row["own_R@10"] for row in one] == pytest.approx([row["own_R@10"] for row in other], abs=3)  # a column has half precision


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "give what the base could do: --foreign SET, --classes DATA or both"),
        ("--foreign set --weight 2", "--weight 2.0: must be from 0 to 1"),
        ("--foreign set --foreign-part dev", "no pair is in part 'dev'; there are"),
        ("--foreign set --alphas 2", "alpha=2.0 must be from 0, the base's weights, to 1"),
        ("--foreign set --column words", "set/columns/words: made by no trunk"),
    ],
)
def test_what_cannot_be_measured_is_refused(tuned: Road, options: str, said: str) -> None:
    told = tuned.run(f"{COMMAND} {options}")
    assert told.status == 2 and said in told.err.replace("\n", " "), told.err


@pytest.mark.parametrize(("own", "left", "weight", "expected"), [(40, 90, 0.5, 60), (40, 90, 0, 40), (40, 90, 1, 90), (40, 0, 0.5, 0)])
def test_the_trade_off_is_the_weighted_geometric_mean(own: float, left: float, weight: float, expected: float) -> None:
    assert trade_off(own, left, weight) == pytest.approx(expected)


@pytest.mark.parametrize(("value", "expected"), [(65, 100), (33, 50), (1, 0), (0.5, 0), (97, 150)])
def test_what_is_kept_is_a_share_above_chance(value: float, expected: float) -> None:
    assert kept(value, before=65, chance=1) == pytest.approx(expected)
