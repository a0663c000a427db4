"""Pooling and prompts of encoders, against sentence-transformers and CLIP on small random networks, and against loops over tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.boxes import MANIFEST
from multimodal.errors import InputError
from multimodal.text import EncoderSpace, open_space
from multimodal.text.conformance import check_space
from multimodal.text.encoder import _WIDTHS, TEXT_ENCODERS
from multimodal.text.pooling import Usage, pool, usage_of

TEXTS = ["a dog on the beach", "two cats and a much longer sentence about them", "woman", "a dog"]
NAMES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}  # sentence-transformers' -> ours
FLAGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "lasttoken": "pooling_mode_lasttoken"}
PROMPTS = {"query": "query: ", "passage": "passage: "}


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "encoder"))


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))


def slow_pool(states: Any, mask: Any, ids: Any, pooling: str, eot: int) -> list[list[float]]:
    rows = []
    for line, kept, tokens in zip(states.tolist(), mask.tolist(), ids.tolist(), strict=True):
        own = [(state, token) for state, keep, token in zip(line, kept, tokens, strict=True) if keep]
        mean = [sum(column) / len(own) for column in zip(*(state for state, _ in own), strict=True)]
        ends = [state for state, token in own if token == eot]
        rows.append({"mean": mean, "cls": own[0][0], "last": own[-1][0], "eot": ends[0]}[pooling])
    return rows


def padded(side: str) -> tuple[Any, Any, Any]:
    """States, mask and token ids of texts of 1 to 6 tokens, padded on one side. Token 9 ends a text and is padding too, as in CLIP."""
    import torch

    generator = torch.Generator().manual_seed(0)
    states = torch.randn(6, 6, 5, generator=generator, dtype=torch.float64)
    mask, ids = torch.zeros(6, 6, dtype=torch.int64), torch.full((6, 6), 9)
    for row in range(6):
        own = slice(0, row + 1) if side == "right" else slice(5 - row, 6)
        mask[row, own] = 1
        ids[row, own] = torch.tensor([*range(row // 2), *[9] * (row + 1 - row // 2)])  # the first 9 is not always the last token
    return states, mask, ids


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "eot"])
def test_pooling_equals_a_loop_over_tokens_whatever_side_is_padded(pooling: Any, side: str) -> None:
    states, mask, ids = padded(side)
    np.testing.assert_allclose(pool(states, mask, ids, pooling, 9), slow_pool(states, mask, ids, pooling, 9), atol=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_pooling_equals_that_of_sentence_transformers(name: str, side: str) -> None:
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules", reason="needs sentence-transformers (extra: dev)")
    states, mask, ids = padded(side)
    features = {"token_embeddings": states.clone(), "attention_mask": mask}
    expected = modules.Pooling(5, pooling_mode=name)(features)["sentence_embedding"]
    np.testing.assert_allclose(pool(states, mask, ids, NAMES[name]), expected, atol=1e-12)


def test_end_of_text_pooling_equals_that_of_clip() -> None:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=50, bos_token_id=48, eos_token_id=49, pad_token_id=49, **small)).eval()
    ids = torch.tensor([[48, 3, 4, 5, 49], [48, 7, 49, 49, 49], [48, 49, 49, 49, 49]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    with torch.inference_mode():
        found = clip(input_ids=ids, attention_mask=mask)
    torch.testing.assert_close(pool(found.last_hidden_state, mask, ids, "eot", 49), found.pooler_output, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="adds no end-of-text token"):
        pool(found.last_hidden_state, mask, ids, "eot", 40)


def test_a_text_without_a_token_is_zeros() -> None:
    import torch

    states, none = torch.ones(1, 3, 2), torch.zeros(1, 3, dtype=torch.int64)
    for pooling in ("mean", "cls", "last", "eot"):
        assert not pool(states, none, none, pooling, 0).any()  # type: ignore[arg-type]


@pytest.mark.parametrize("legacy", [False, True], ids=["pooling_mode", "pooling_mode_* flags"])
@pytest.mark.parametrize("name", NAMES)
def test_a_space_equals_sentence_transformers_on_its_own_folder(tiny_bert: Path, tmp_path: Path, name: str, legacy: bool) -> None:
    st = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers (extra: dev)")
    from sentence_transformers.sentence_transformer import modules

    parts = [modules.Transformer(str(tiny_bert)), modules.Pooling(16, pooling_mode=name), modules.Normalize()]
    made = st.SentenceTransformer(modules=parts, device="cpu", prompts=PROMPTS, default_prompt_name="passage")
    made.save(str(tmp_path / "made"), create_model_card=False)
    if legacy:
        flags = {flag: name == mode for mode, flag in FLAGS.items()}
        write(tmp_path / "made/1_Pooling/config.json", {"word_embedding_dimension": 16, **flags})
    for chosen, expected in (
        ({}, made.encode(TEXTS)),  # the folder's default prompt
        ({"prompt_name": "query"}, made.encode(TEXTS, prompt_name="query")),
        ({"prompt": "find: "}, made.encode(TEXTS, prompt="find: ")),
        ({"prompt": ""}, made.encode(TEXTS, prompt="")),
    ):
        space = EncoderSpace.from_folder(tmp_path / "made", **chosen)
        np.testing.assert_allclose(space.embed(TEXTS), expected, atol=1e-5)
    assert space.usage.pooling == NAMES[name]


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_a_space_with_pooling_and_prompt_keeps_the_contract(folder: Path, tmp_path: Path, pooling: Any) -> None:
    space = EncoderSpace(folder, device="cpu", pooling=pooling, prompt="query: ")
    check_space(space, TEXTS, tmp_path / "checked", tolerance=1e-5)
    space.save(tmp_path / "box")
    opened = open_space(tmp_path / "box")
    assert isinstance(opened, EncoderSpace) and opened.usage == Usage(pooling, "query: ")
    np.testing.assert_array_equal(opened.embed(TEXTS), space.embed(TEXTS))
    projected = space.with_projection(np.eye(16), np.zeros(16))
    np.testing.assert_allclose(projected.embed(TEXTS), space.embed(TEXTS), atol=1e-6)


def test_a_prompt_makes_no_unknown_text_known(folder: Path) -> None:
    space = EncoderSpace(folder, device="cpu", prompt="query: ")
    rows = space.embed(["", "\u2603", "a dog", "a \u2603 dog", "   "])
    assert not rows[[0, 1, 4]].any() and rows[2].any() and (rows[2] == rows[3]).all()
    assert space.unknown_words("a \u2603 dog") == {"\u2603": []}


def test_a_prompt_takes_its_place_among_what_is_read_and_must_leave_some(folder: Path) -> None:
    with pytest.raises(InputError, match="prompt has .* tokens, but only max_tokens = 6 are read"):
        EncoderSpace(folder, max_tokens=6, prompt="query: ").embed(["a dog"])
    cut = "a dog on the beach"  # one token a letter, and two that are special
    assert (
        EncoderSpace(folder, max_tokens=16).num_cut([cut]) == 0
        and EncoderSpace(folder, max_tokens=16, prompt="query: ").num_cut([cut]) == 1
    )


def test_a_space_as_before_has_the_manifest_that_it_had_before(folder: Path, tmp_path: Path) -> None:
    space = EncoderSpace(folder)
    assert set(space.manifest.config) == {"class", "family", "max_tokens", "fit"}
    assert len({space.fingerprint, EncoderSpace(folder, pooling="cls").fingerprint, EncoderSpace(folder, prompt="a: ").fingerprint}) == 3
    space.save(tmp_path / "box")
    opened = open_space(tmp_path / "box")
    assert isinstance(opened, EncoderSpace) and opened.usage == Usage("mean", "")


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [("pooling", "max", "unknown pooling 'max'"), ("pooling", ["cls"], "config.pooling is"), ("prompt", 3, "config.prompt is 3")],
)
def test_a_manifest_with_another_pooling_or_prompt_is_an_error_that_names_it(
    folder: Path, tmp_path: Path, entry: str, value: Any, message: str
) -> None:
    EncoderSpace(folder).save(tmp_path / "box")
    manifest = json.loads((tmp_path / "box" / MANIFEST).read_text())
    manifest["config"][entry] = value
    (tmp_path / "box" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"manifest\.json: .*{message}"):
        open_space(tmp_path / "box")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"word_embedding_dimension": 16}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_the_folder_says_how_tokens_are_pooled(tmp_path: Path, config: Any, pooling: str) -> None:
    assert usage_of(tmp_path) == Usage("mean", "")
    write(tmp_path / "1_Pooling" / "config.json", config)
    assert usage_of(tmp_path).pooling == pooling
    (tmp_path / "1_Pooling").rename(tmp_path / "2_Pooling")
    types = ("models.Transformer", "sentence_transformer.modules.pooling.Pooling", "models.Normalize")
    paths = ("", "2_Pooling", "3_Normalize")
    write(
        tmp_path / "modules.json",
        [{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in zip(paths, types, strict=True)],
    )
    assert usage_of(tmp_path).pooling == pooling
    assert usage_of(tmp_path, pooling="eot").pooling == "eot"


def test_what_a_folder_asks_for_and_is_not_computed_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    pooling, modules, prompts = (tmp_path / name for name in ("1_Pooling/config.json", "modules.json", "config_sentence_transformers.json"))
    for config, message in (
        ({"pooling_mode": "max"}, "pools by max, which is not supported"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "pools by cls and mean"),
        ({"pooling_mode": 3}, "pools by 3"),
        ([], "must hold a dict"),
    ):
        write(pooling, config)
        with pytest.raises(InputError, match=message):
            usage_of(tmp_path)
        assert usage_of(tmp_path, pooling="cls") == Usage("cls", "")
    write(pooling, {"pooling_mode": "mean", "include_prompt": False})
    assert usage_of(tmp_path) == Usage()
    with pytest.raises(InputError, match="leaves the prompt out when it pools"):
        usage_of(tmp_path, prompt="query: ")
    for listed, message in (
        ([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}], "has the module Dense, which is not computed here"),
        ([{"type": "sentence_transformers.models.Pooling", "path": "../1_Pooling"}], "may be outside this folder"),
        ([{"type": "sentence_transformers.models.Pooling", "path": "7_Pooling"}], "7_Pooling/config.json, which is missing"),
        ([3], "must list modules"),
    ):
        write(modules, listed)
        with pytest.raises(InputError, match=message):
            usage_of(tmp_path)
    modules.unlink()
    pooling.unlink()
    with pytest.raises(InputError, match="has no prompt 'query'; it names no prompts"):
        usage_of(tmp_path, prompt_name="query")
    write(prompts, {"prompts": PROMPTS, "default_prompt_name": "passage"})
    assert usage_of(tmp_path).prompt == "passage: " and usage_of(tmp_path, prompt="").prompt == ""
    with pytest.raises(InputError, match="has no prompt 'document'; it names query, passage"):
        usage_of(tmp_path, prompt_name="document")
    with pytest.raises(InputError, match="give only one"):
        usage_of(tmp_path, prompt="a", prompt_name="query")
    for wrong in ({"prompts": {"query": 3}}, {"prompts": ["query"]}):
        write(prompts, wrong)
        with pytest.raises(InputError, match="prompts must map names to texts"):
            usage_of(tmp_path)
    prompts.write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        usage_of(tmp_path)


def test_end_of_text_pooling_needs_a_token_that_ends_a_text(folder: Path) -> None:
    with pytest.raises(InputError, match="eos_token_id None"):
        EncoderSpace(folder, device="cpu", pooling="eot").embed(["a dog"])
    write(folder / "config.json", {**json.loads((folder / "config.json").read_text()), "eos_token_id": 3})  # [SEP], the last token
    found = EncoderSpace(folder, device="cpu", pooling="eot").embed(TEXTS)
    np.testing.assert_array_equal(found, EncoderSpace(folder, device="cpu", pooling="last").embed(TEXTS))


def test_a_folder_of_clip_is_an_error_that_names_it_and_what_to_use(folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPConfig

    from multimodal.towers import FolderEncoder, TextTower

    CLIPConfig().save_pretrained(folder)
    (tmp_path / "open_clip").mkdir()
    write(tmp_path / "open_clip" / "open_clip_config.json", {"model_cfg": {}})
    (tmp_path / "st" / "0_CLIPModel").mkdir(parents=True)
    write(tmp_path / "st" / "modules.json", [{"path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}])
    folders = {
        folder: r"transformers' 'clip' \(model_type\)",
        tmp_path / "open_clip": "a CLIP model of open_clip",
        tmp_path / "st": "a CLIP model of sentence-transformers",
    }
    for path, named in folders.items():
        for opened in (lambda path=path: EncoderSpace.from_folder(path), lambda path=path: TextTower(FolderEncoder(path))):
            with pytest.raises(InputError, match=rf"{named}.*not a text encoder.*give a text encoder.*multimodal export --pretrained"):
                opened()
    write(folder / "config.json", {"architectures": ["CLIPModel"], "text_config": {}, "vision_config": {}})
    with pytest.raises(InputError, match=r"config\.json: has no hidden_size or .* not a text encoder"):
        EncoderSpace.from_folder(folder)


def test_the_width_of_every_text_encoder_of_transformers_is_found() -> None:
    from transformers import CONFIG_MAPPING

    for kind in sorted(TEXT_ENCODERS):
        config = CONFIG_MAPPING[kind]()
        settings = json.loads(config.to_json_string())
        assert next(settings[name] for name in _WIDTHS if name in settings) == config.hidden_size, kind
