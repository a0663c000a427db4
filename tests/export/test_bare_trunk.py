"""A trunk with nothing trained as an export: indexed, asked with pictures, and refused where words are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.export.model import load_export
from multimodal.pictures.preprocessing import Preprocessing
from multimodal.search.store import Store
from multimodal.towers import NoWeights, Trunk

if TYPE_CHECKING:
    from tests.conftest import Road

TINY = "--trunk.architecture test_efficientnet --trunk.weights multimodal.towers.NoWeights"


def test_a_trunk_alone_is_an_export_of_its_features(own_road: Road) -> None:
    told = own_road.run(f'multimodal export {TINY} --trunk.size "[64, 32]" --output bare')
    assert told.status == 0, told.err
    opened, trunk = load_export(own_road.folder / "bare"), Trunk("test_efficientnet", NoWeights(), size=(64, 32))
    assert opened.preprocessing == trunk.preprocessing and opened.preprocessing.resize == "squash" and opened.card.dim == trunk.dim
    assert Preprocessing.from_json(opened.preprocessing.as_json()) == opened.preprocessing
    [path] = (own_road.folder / "photos").glob("red-circle-0.png")
    whole = np.asarray(Image.open(path).resize((32, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    features = trunk(torch.from_numpy(whole.copy())[None]).numpy()
    np.testing.assert_allclose(opened.embed_image_files([path]), features, rtol=1e-4, atol=1e-5)

    told = own_road.run("multimodal index --export bare --shards set --output shown --device cpu")
    assert told.status == 0 and len(Store(own_road.folder / "shown")) == 45, told.err
    told = own_road.run("multimodal search --store shown --export bare image:photos/red-circle-0.png --k 3")
    assert told.status == 0 and "red-circle-0" in told.out.splitlines()[0], told.err
    told = own_road.run('multimodal search --store shown "a dog"')
    assert told.status == 2 and "no text side" in told.err and "evaluate fewshot" in told.err

    told = own_road.run(f"multimodal export {TINY} --trunk.size 32 --resize longest --output padded")
    assert told.status == 0 and load_export(own_road.folder / "padded").preprocessing.crop_share == 1, told.err


@pytest.mark.parametrize(
    "options, message",
    [
        ("", "--trunk.architecture NAME --trunk.weights CLASS"),
        ("--run run --resize squash", "--resize belongs to a trunk alone"),
        (f"{TINY} --alpha 0.5", "--alpha belongs to --run or --pretrained"),
        (f"{TINY} --long-texts pool", "--long-texts belongs to --run or --pretrained"),
        (f'{TINY} --trunk.size "[64, 0]"', "expected a whole number from 1 to 4096, or two"),
    ],
)
def test_what_a_trunk_alone_does_not_have_is_refused(road: Road, options: str, message: str) -> None:
    told = road.run(f"multimodal export {options} --output other")
    assert told.status == 2 and message in told.err
