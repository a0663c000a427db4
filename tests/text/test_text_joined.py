"""Joined spaces give the rows of each, at unit length, side by side, and know a word that one of them knows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_prep.spaces import join_spaces
from data_prep.spaces.job import fit_text_space
from multimodal.errors import InputError
from multimodal.text import JoinedSpace, Normaliser, ProjectedSpace, Vocabulary, WordSpace, open_space
from multimodal.text.conformance import check_space
from multimodal.text.encoder import Projection

PLAIN = Normaliser()
VECTORS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


@pytest.fixture
def animals() -> WordSpace:
    return WordSpace(PLAIN, Vocabulary(["dog", "beach", "violin"], np.array([3, 2, 1]), 5), 7 * VECTORS, scaling="none")


@pytest.fixture
def places() -> WordSpace:
    return WordSpace(PLAIN, Vocabulary(["beach", "city"], np.array([3, 2]), 5), VECTORS[:2, :3])


@pytest.fixture
def joined(animals, places) -> JoinedSpace:
    return JoinedSpace([animals, places])


def test_joined_spaces_keep_the_contract_and_need_no_more_than_each_needs(joined, tmp_path):
    check_space(joined, ["a dog", "beach", "a violin in the city"], tmp_path, without=["torch", "gensim", "transformers"])


def test_layers_on_top_of_joined_spaces_keep_the_contract(joined, tmp_path):
    weight = np.random.default_rng(1).standard_normal((2, joined.dim)).astype(np.float32)
    space = ProjectedSpace(joined, [Projection(weight, np.zeros(2, np.float32))])
    check_space(space, ["a dog", "beach", "a violin in the city"], tmp_path)


def test_a_row_is_each_spaces_row_at_unit_length(joined, animals, places):
    texts = ["a dog on the beach", "beach", "city city beach"]
    slow = [
        [value / math.sqrt(sum(v * v for v in row)) if any(row) else 0.0 for row in (one, other) for value in row]
        for one, other in zip(animals.embed(texts).tolist(), places.embed(texts).tolist(), strict=True)
    ]
    assert joined.dim == 7
    np.testing.assert_allclose(joined.embed(texts), slow, atol=1e-7)


def test_a_word_that_one_space_knows_is_known(joined):
    violin, city = joined.embed(["violin", "city"])
    assert violin[:4].any() and not violin[4:].any()
    assert not city[:4].any() and city[4:].any()
    assert joined.unknown_words("violin city") == {}
    assert list(joined.unknown_words("violin citty zzz")) == ["citty", "zzz"]
    assert joined.unknown_words("citty")["citty"] == ["city"]


def test_the_command_joins_boxes_and_reuses_what_it_made(animals, places, tmp_path, capsys):
    animals.save(tmp_path / "animals")
    places.save(tmp_path / "places")
    settings = {"spaces": [tmp_path / "animals", tmp_path / "places"]}
    made = fit_text_space(join_spaces, settings, None, tmp_path / "both")
    assert np.array_equal(open_space(made).embed(["dog", "beach"]), JoinedSpace([animals, places]).embed(["dog", "beach"]))
    fit_text_space(join_spaces, settings, None, tmp_path / "both")
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(InputError, match="spaces/0 was"):
        fit_text_space(join_spaces, {"spaces": settings["spaces"][::-1]}, None, tmp_path / "both")


def test_one_space_alone_is_refused(animals):
    with pytest.raises(InputError, match="1 text space to join; give at least two"):
        JoinedSpace([animals])


def test_a_space_exchanged_in_the_box_is_an_error(joined, places, tmp_path):
    joined.save(tmp_path / "both")
    places.save(tmp_path / "both" / "spaces" / "0")
    with pytest.raises(InputError, match=r"spaces/0: is not the text space that was joined here"):
        open_space(tmp_path / "both")
