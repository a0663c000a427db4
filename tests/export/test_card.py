"""A card survives the file, is read without torch, and says what is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from multimodal.boxes import Manifest, write_manifest
from multimodal.errors import InputError
from multimodal.export.card import Card, read_card

CARD = Card(
    family="wordvec",
    dim=256,
    architecture={
        "trunk": {
            "class_path": "multimodal.towers.Trunk",
            "init_args": {
                "architecture": "tf_efficientnet_lite0",
                "weights": {"class_path": "multimodal.towers.NoWeights", "init_args": {}},
            },
        },
        "head": {"class_path": "multimodal.towers.Head", "init_args": {"dim_in": 1280, "dim_out": 256}},
    },
    preprocessing={"size": 224, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5]},
    query_fingerprint="3f9c" * 16,
    figures={"R@10": 54.25, "chance_R@10": 4.2, "command": "multimodal evaluate retrieval --store S"},
)


def _write(folder: Path, config: dict, kind: str = "export") -> Path:
    write_manifest(folder, Manifest(kind=kind, config=config))
    return folder


def test_a_card_is_equal_to_itself_after_the_file(tmp_path):
    assert read_card(_write(tmp_path, CARD.config())) == CARD


def test_the_summary_names_family_architecture_preprocessing_and_figures():
    summary = CARD.summary()
    trunk = "Trunk(architecture=tf_efficientnet_lite0, weights=multimodal.towers.NoWeights())"
    for said in ("wordvec", "256", trunk, "bicubic", "54.25", "4.2", "3f9c3f9c3f9c"):
        assert said in summary


def test_another_kind_of_box_is_refused(tmp_path):
    with pytest.raises(InputError, match="this is a store"):
        read_card(_write(tmp_path, CARD.config(), kind="store"))


def test_an_unknown_field_is_named(tmp_path):
    with pytest.raises(InputError, match="a card has no colour"):
        read_card(_write(tmp_path, CARD.config() | {"colour": "red"}))


def test_a_missing_field_is_named(tmp_path):
    config = CARD.config()
    del config["preprocessing"]
    with pytest.raises(InputError, match="preprocessing"):
        read_card(_write(tmp_path, config))


def test_an_architecture_without_a_head_is_refused():
    with pytest.raises(ValueError, match="no head; it has trunk"):
        replace(CARD, architecture={"trunk": CARD.architecture["trunk"]})


def test_a_part_that_is_no_class_path_with_arguments_is_refused():
    with pytest.raises(ValueError, match="head must have class_path and init_args"):
        replace(CARD, architecture={**CARD.architecture, "head": {"class_path": "x"}})


@pytest.mark.parametrize("value", [(0.5, 0.5), {1: "a"}, Path("a")])
def test_values_that_json_would_change_are_refused(value):
    with pytest.raises(ValueError, match="only JSON values"):
        replace(CARD, preprocessing={"mean": value})


def test_reading_a_card_loads_neither_torch_nor_numpy(tmp_path):
    _write(tmp_path, CARD.config())
    code = f"import sys; from multimodal.export.card import read_card; read_card({str(tmp_path)!r}); print(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout.split()
    assert not {"torch", "lightning", "transformers", "open_clip", "gensim", "timm", "numpy"} & set(loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": [1]}, r"config.architecture is \[1\]; expected dict"),
        ({"architecture": {"trunk": [1]}}, r"config.architecture.trunk is \[1\]; expected dict"),
        ({"architecture": {**CARD.architecture, "objective": {}}}, "config.architecture.objective.class_path is missing"),
        ({"query_fingerprint": 5}, "config.query_fingerprint is 5; expected str"),
        ({"preprocessing": [1]}, r"config.preprocessing is \[1\]; expected dict"),
        ({"figures": 5}, "config.figures is 5; expected dict"),
        ({"interpolation": 5}, "config.interpolation is 5; expected dict"),
        ({"interpolation": {"base": "3f9c"}}, "config.interpolation.alpha is missing"),
        ({"dim": "4"}, "config.dim is '4'; expected int"),
        ({"dim": 0}, "dim 0 must be at least 1"),
    ],
)
def test_a_value_of_another_type_in_a_card_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=f"manifest.json: .*{message}"):
        read_card(_write(tmp_path, CARD.config() | change))
