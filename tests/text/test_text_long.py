"""Long texts in pieces: how they are split, and that every space and tower averages them as a slow loop does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.cli import main
from multimodal.errors import InputError
from multimodal.export.model import export_pretrained, load_export
from multimodal.text import EncoderSpace, OpenClipSpace, open_space
from multimodal.text.conformance import check_space
from multimodal.text.encoder import LONGEST_TEXT
from multimodal.text.long_texts import average, average_tensors, split
from multimodal.text.space import report_cut
from multimodal.towers import ClipTextTower, FolderEncoder, Head, TextTower

TOLERANCE = 1e-5
LONG = "A dog runs on the beach. Two cats sleep in the snow! Where is the woman from the mountains? " * 3
TEXTS = ["a dog", LONG, "", "snow", LONG[:200], "beach " * 40]


def letters(text: str) -> int:
    """A tokenizer with one token for each letter that is no white space."""
    return sum(not letter.isspace() for letter in text)


def slow_split(words: list[str], room: int) -> list[list[str]]:
    """Words as many together as fit."""
    made: list[list[str]] = [[]]
    for word in words:
        if sum(map(len, made[-1])) + len(word) > room:
            made.append([])
        made[-1].append(word)
    return [one for one in made if one]


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=30), st.integers(9, 20))
def test_words_are_packed_as_many_together_as_fit(words: list[str], room: int) -> None:
    assert [piece.split() for piece in split(" ".join(words), room, letters)] == slow_split(words, room)


@given(st.text('ab .!?\n"\u3002', max_size=80), st.integers(1, 12))
def test_pieces_fit_and_nothing_but_white_space_is_lost(text: str, room: int) -> None:
    pieces = split(text, room, letters)
    assert all(0 < letters(piece) <= room for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_pieces_end_where_sentences_do_then_words_then_letters() -> None:
    assert split("One dog. Two cats. Three.", 15, letters) == ["One dog. Two cats.", "Three."]
    assert split("A line\nand another", 14, letters) == ["A line", "and another"]
    assert split("Version 1.5 of it. Yes.", 15, letters) == ["Version 1.5 of it.", "Yes."]
    assert split("Yes. some words in a sentence. No.", 8, letters) == ["Yes.", "some", "words in a", "sentence", ".", "No."]
    assert split("abcdefgh", 3, letters) == ["abc", "def", "gh"]
    assert split("  \n ", 3, letters) == []


def test_tokens_that_are_more_together_than_apart_are_split_again() -> None:
    assert split("a b c d", 3, lambda text: letters(text) ** 2) == ["a", "b", "c", "d"]


def test_an_average_is_that_of_a_loop_and_single_pieces_stay_to_the_bit() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((5, 7)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    weights, owners = [3, 10, 1, 4, 9], [0, 1, 1, 2, 1]
    found = average(rows, weights, owners, 4)
    wanted = sum(weights[at] * rows[at].astype(np.float64) for at in (1, 2, 4))
    np.testing.assert_allclose(found[1], wanted / np.linalg.norm(wanted), atol=1e-12)
    assert np.array_equal(found[0], rows[0]) and np.array_equal(found[2], rows[3]) and not found[3].any()
    tensors = average_tensors(torch.from_numpy(rows), weights, owners, 4)
    np.testing.assert_allclose(tensors.numpy(), found, atol=1e-6)
    assert np.array_equal(tensors[0].numpy(), rows[0])


def slow_mean(space: EncoderSpace | OpenClipSpace, pieces: list[str], lengths: list[int]) -> np.ndarray:
    """One piece at a time through the same space, which reads them whole."""
    total = np.zeros(space.dim)
    for piece, length in zip(pieces, lengths, strict=True):
        total += length * space.embed([piece])[0].astype(np.float64)
    return total / np.linalg.norm(total)


@pytest.fixture
def bert(tiny_bert: Path, tmp_path: Path) -> Path:
    """A tiny BERT that reads 40 tokens, as its sentence_bert_config.json says."""
    shutil.copytree(tiny_bert, tmp_path / "bert")
    (tmp_path / "bert" / "sentence_bert_config.json").write_text('{"max_seq_length": 40, "do_lower_case": false}')
    return tmp_path / "bert"


def test_an_encoder_averages_the_pieces_of_a_long_text(bert: Path) -> None:
    cut, pool = (EncoderSpace.from_folder(bert, prompt="q: ", long_texts=how) for how in ("cut", "pool"))
    assert cut.max_tokens == pool.max_tokens == 40
    rows, before = pool.embed(TEXTS), cut.embed(TEXTS)
    for short in (0, 2, 3):
        np.testing.assert_allclose(rows[short], before[short], atol=TOLERANCE)
    sentences = re.findall(r"\S[^.!?]*[.!?]", LONG)  # of 19, 21 and 32 letters: each is a piece, with [CLS], "q:" and [SEP]
    counts = [sum(letter.isalpha() for letter in sentence) for sentence in sentences]
    np.testing.assert_allclose(rows[1], slow_mean(cut, sentences, counts), atol=TOLERANCE)
    assert np.abs(rows[1] - before[1]).max() > 1000 * TOLERANCE, "the rest of the text counts"


def test_pooled_vectors_are_projected_after_the_mean_as_a_run_is_trained(bert: Path, tmp_path: Path) -> None:
    pool = EncoderSpace.from_folder(bert, long_texts="pool")
    weight, bias = np.random.default_rng(0).standard_normal((4, 16)), np.ones(4)
    projected = pool.with_projection(weight, bias)
    wanted = pool.embed(TEXTS).astype(np.float64) @ weight.T + bias
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    wanted[2] = 0
    np.testing.assert_allclose(projected.embed(TEXTS), wanted, atol=TOLERANCE)
    projected.save(tmp_path / "box")
    opened = open_space(tmp_path / "box")
    assert np.array_equal(opened.embed(TEXTS), projected.embed(TEXTS)) and opened.fingerprint == projected.fingerprint
    assert projected.fingerprint != EncoderSpace.from_folder(bert).with_projection(weight, bias).fingerprint
    assert "long_texts" not in EncoderSpace.from_folder(bert).manifest.config, (
        "boxes of before there was a choice have the same fingerprint"
    )


def test_what_is_not_read_is_counted_either_way(bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longest = "snow " * LONGEST_TEXT
    for how, num, unknown in (("cut", 3, 0), ("pool", 1, 1)):
        space = EncoderSpace.from_folder(bert, long_texts=how)
        assert space.num_cut(["dog", LONG, "beach " * 40, longest]) == num
        report_cut(space, ["dog", LONG, "beach " * 40, longest])
        assert f"{num} of 4 texts are longer than the text space reads" in capsys.readouterr().err
        assert len(space.unknown_words(longest)) == 1 and unknown in (0, 1)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_text_tower_averages_as_its_space_does_and_gradients_pass(bert: Path, frozen: bool) -> None:
    tower = TextTower(FolderEncoder(bert), Head(16, 4), frozen=frozen, long_texts="pool", prompt="q: ").eval()
    assert tower.max_tokens == 40, "not more than the folder says, though 128 by default"
    bare = TextTower(FolderEncoder(bert), long_texts="pool", prompt="q: ").eval()
    space = EncoderSpace.from_folder(bert, prompt="q: ", long_texts="pool")
    known = ["a dog", re.sub("[.!?]", "\n", LONG), "snow", "beach " * 40]  # the space leaves out what it has no token for
    np.testing.assert_allclose(bare(known).detach().numpy(), space.embed(known), atol=TOLERANCE)
    tower(known)[1].sum().backward()
    moved = tower.encoder.embeddings.word_embeddings.weight.grad
    assert (moved is None) == frozen and tower.head.output.weight.grad.abs().sum() > 0
    assert tower.num_cut(["dog", LONG]) == 0 and TextTower(FolderEncoder(bert)).num_cut(["dog", LONG]) == 1


@pytest.fixture(scope="module")
def exports(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of a CLIP model that reads 12 tokens; with the command, one of each kind."""
    path = tmp_path_factory.mktemp("exports")
    assert main(["export", "--pretrained", str(tiny_clip), "--long-texts", "pool", "--output", str(path / "pool")]) == 0
    return {"cut": export_pretrained(str(tiny_clip), path / "cut"), "pool": path / "pool"}


def test_a_clip_model_averages_the_pieces_of_a_long_text(exports: dict[str, Path], tiny_clip: Path, tmp_path: Path) -> None:
    cut, pool = (load_export(exports[how]).query for how in ("cut", "pool"))
    assert isinstance(cut, OpenClipSpace) and isinstance(pool, OpenClipSpace)
    rows, before = pool.embed(TEXTS), cut.embed(TEXTS)
    assert np.abs(rows[[0, 2, 3]] - before[[0, 2, 3]]).max() < TOLERANCE and not rows[2].any()
    sentences = re.findall(r"\S[^.!?]*[.!?]", LONG)
    lengths = [len(re.findall(r"\w+|[.!?]", sentence)) for sentence in sentences]
    assert max(lengths) <= 10, "each sentence is a piece, with two special tokens"
    np.testing.assert_allclose(rows[1], slow_mean(cut, sentences, lengths), atol=TOLERANCE)
    assert pool.num_cut(TEXTS) == 0 and cut.num_cut(TEXTS) == 3
    assert pool.unknown_words(LONG) == {} and cut.unknown_words(LONG) == {"all after its first 12 tokens": []}
    tower = ClipTextTower(str(tiny_clip), long_texts="pool")
    with torch.no_grad():
        found = torch.nn.functional.normalize(tower(TEXTS), dim=1).numpy()
    np.testing.assert_allclose(found, rows, atol=TOLERANCE)
    np.testing.assert_allclose(tower.as_space(tmp_path).embed(TEXTS), rows, atol=TOLERANCE)


def test_a_space_that_pools_keeps_the_contract_of_text_spaces(exports: dict[str, Path], tmp_path: Path) -> None:
    check_space(load_export(exports["pool"]).query, TEXTS[:2], tmp_path, tolerance=TOLERANCE, spells=True)


def test_a_way_with_long_texts_that_does_not_exist_is_refused(
    bert: Path, exports: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="long_texts is 'split'; expected cut or pool"):
        EncoderSpace.from_folder(bert, long_texts="split")  # type: ignore[arg-type]
    assert main(["export", "--run", "run", "--long-texts", "pool", "--output", str(tmp_path / "export")]) == 2
    assert "belongs to --pretrained" in capsys.readouterr().err
    shutil.copytree(exports["pool"], tmp_path / "changed")
    manifest = json.loads((tmp_path / "changed/query/manifest.json").read_text())
    manifest["config"]["tokenizer"]["long_texts"] = "split"
    (tmp_path / "changed/query/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError):
        open_space(tmp_path / "changed/query")
