"""Exports of pretrained CLIP models against open_clip itself: equal vectors for equal weights, both ways, and what is refused.

Small networks of each kind with random weights; scripts/compare_open_clip.py does the same with full ones. Published weights are tested
where MULTIMODAL_CLIP names a folder as open_clip writes it.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import multimodal as mm
from multimodal.boxes import read_manifest, write_manifest
from multimodal.cli import main
from multimodal.data.decode import Decoded, centre
from multimodal.embed.stores import index
from multimodal.errors import InputError
from multimodal.evaluate.retrieval import evaluate
from multimodal.export.model import export_pretrained, load_export
from multimodal.export.to_open_clip import to_open_clip
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards.writer import ShardWriter
from multimodal.text import OpenClipSpace
from multimodal.text.conformance import check_space
from multimodal.verify import problems_of

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_open_clip.py"
TOLERANCE = 1e-5
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": {"model_cfg": {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT}, "preprocess_cfg": {}},
    "quickgelu": {
        "model_cfg": {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
        "preprocess_cfg": {"resize_mode": "longest", "fill_color": 127, "interpolation": "bilinear"},
    },
    "resnet": {
        "model_cfg": {"embed_dim": 32, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}, "text_cfg": TEXT},
        "preprocess_cfg": {"size": [64, 64], "mode": "RGB"},
    },
    "siglip": {
        "model_cfg": {
            "embed_dim": 64,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
            "text_cfg": {
                **TEXT,
                "context_length": 40,
                "hf_tokenizer_name": "somewhere/else",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
            },
        },
        "preprocess_cfg": {**HALVES, "resize_mode": "squash"},
    },
    "coca": {
        "model_cfg": {
            "embed_dim": 32,
            "custom_text": True,
            "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 4},
        },
        "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]},
    },
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/compare_open_clip.py"""
    spec = importlib.util.spec_from_file_location("compare_open_clip", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, script: ModuleType) -> dict[str, Path]:
    """A folder of open_clip for each of CONFIGS, with random weights."""
    path = tmp_path_factory.mktemp("folders")
    made = {name: script.write_folder(path / name, config) for name, config in CONFIGS.items()}
    write_tokenizer(made["siglip"])
    return made


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of the kind that SigLIP's is: pieces of words, an end token, and padding with it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(["a photo of a dog on the beach in the snow", "two cats and a woman in the mountains"] * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    """An export of `vit`."""
    return export_pretrained(str(folders["vit"]), tmp_path_factory.mktemp("clip") / "export")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, script: ModuleType) -> Path:
    """The script's pictures, with a text each; every fifth text is a long one."""
    path = tmp_path_factory.mktemp("set") / "set"
    with ShardWriter(path, pairs_per_shard=20) as writer:
        for number, ((*_, mode), encoded) in enumerate(script.odd_pictures().items()):
            kind = "jpg" if mode in ("turned", "CMYK") else "png"
            text = f"a {mode} picture number {number}" + " of snow" * (100 if number % 5 == 0 else 0)
            writer.write(Pair(f"{number}.{kind}", encoded, kind, (text,), f"group {number}"))
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_vectors_are_those_of_open_clip_and_stay_so_on_the_way_back(
    name: str, folders: dict[str, Path], script: ModuleType, tmp_path: Path
) -> None:
    found = script.compare(folders[name], tmp_path)
    print(name, found)
    assert found.pictures <= TOLERANCE
    assert found.texts <= TOLERANCE
    assert found.back <= TOLERANCE
    assert found.apart > 1000 * TOLERANCE, "different pictures have different vectors"
    # where the file holds nothing to turn or to lay on white, the picture that Pillow opens is the same one
    assert found.opened["RGB"] <= TOLERANCE and found.opened["L"] <= TOLERANCE
    assert found.opened["turned"] > 10 * TOLERANCE, "a turned picture is seen upright, which open_clip's transform leaves to others"


@pytest.mark.skipif(not os.environ.get("MULTIMODAL_CLIP"), reason="MULTIMODAL_CLIP names no folder with published weights of open_clip")
def test_vectors_of_published_weights_are_those_of_open_clip(script: ModuleType, tmp_path: Path) -> None:
    found = script.compare(Path(os.environ["MULTIMODAL_CLIP"]), tmp_path)
    print(found)
    assert max(found.pictures, found.texts, found.back) <= TOLERANCE


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clips_transform(mode: Any, interpolation: Any, script: ModuleType) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": interpolation, "resize_mode": mode, "fill_color": 9}
    transform = image_transform_v2(PreprocessCfg(size=48, **settings), is_train=False)
    for shape, encoded in script.odd_pictures().items():
        decoded = Decoded(encoded)
        wanted = (transform(decoded.image) * 255).round().byte().numpy()
        assert np.array_equal(centre(decoded, 48, 1.0, interpolation, mode, 9), wanted), shape


@pytest.mark.parametrize("name", ["vit", "siglip"])
@pytest.mark.slow
def test_the_text_side_keeps_the_contract_of_text_spaces(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    space = load_export(export_pretrained(str(folders[name]), tmp_path / "export")).query
    texts = ["a photo of a dog", "two cats in the snow", "beach"]
    check_space(space, texts, tmp_path / "spaces", without=["gensim", "lightning"], tolerance=TOLERANCE, spells=True)


def test_a_text_that_is_cut_is_counted_and_named(clip: Path) -> None:
    space = load_export(clip).query
    assert isinstance(space, OpenClipSpace)
    fits, cut = "snow " * 75, "snow " * 76
    assert space.num_cut([fits, cut, "a dog", cut]) == 2
    assert space.unknown_words(fits) == {}
    assert space.unknown_words(cut) == {"all after its first 77 tokens": []}
    assert np.array_equal(space.embed([fits]), space.embed([cut])), "what is beyond the context changes nothing"


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_an_export_is_indexed_searched_and_evaluated(
    name: str, shards: Path, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = export_pretrained(str(folders[name]), tmp_path / "export")
    store = Store(index(clip, shards, tmp_path / "store", device="cpu"))
    assert len(store) == 50 and store.fitted is not None and store.fitted["template"] == "a photo of {}"
    assert main(["search", "--store", str(tmp_path / "store"), "dog + snow - beach"]) == 0
    assert capsys.readouterr().out.count("picture number") == 10
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folders[name]}")
    pictures = mm.open(shards)
    with torch.inference_mode():
        stack = torch.stack([transform(Decoded(pictures.image_bytes(id)).image) for id in store.ids.tolist()])
        wanted = model.eval().encode_image(stack, normalize=True).numpy()
    assert np.abs(store.rows - wanted).max() < 1e-3, "a store keeps 16 bits of each number"
    rows = evaluate(tmp_path / "store", shards, part="all")
    assert rows and "10 of 50 texts are longer than the text space reads" in capsys.readouterr().err
    assert list(problems_of(clip)) == [] and list(problems_of(tmp_path / "store")) == []


def test_an_export_opens_in_python(clip: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    export = mm.export_pretrained(folders["vit"], tmp_path / "export")
    assert export.fingerprint == load_export(clip).fingerprint
    picture = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    assert export.similarity(export.encode_image(picture), export.encode_text(["night", "day"])).shape == (1, 2)
    assert export.card.family == "contrastive"


def test_the_command_makes_and_writes_back_and_ours_reads_it_again(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export, back, again = tmp_path / "export", tmp_path / "back", tmp_path / "again"
    assert main(["export", "--pretrained", f"local-dir:{folders['siglip']}", "--output", str(export)]) == 0
    assert "contrastive export, 64 dimensions" in capsys.readouterr().out
    assert main(["export", "--pretrained", str(folders["siglip"]), "--output", str(export)]) == 0
    assert "is there already" in capsys.readouterr().err
    assert main(["to-open-clip", "--export", str(export), "--output", str(back)]) == 0
    assert main(["to-open-clip", "--export", str(export), "--output", str(back)]) == 0, "the same again changes nothing"
    assert main(["export", "--pretrained", str(back), "--output", str(again)]) == 0
    one, two = load_export(export), load_export(again)
    texts, picture = ["a photo of a dog", "snow"], Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    assert np.array_equal(one.encode_text(texts), two.encode_text(texts))
    assert np.array_equal(one.encode_image(picture), two.encode_image(picture))
    state = load_file(back / "open_clip_model.safetensors")
    assert state["logit_bias"] == -10 and one.preprocessing == two.preprocessing


def test_a_checkpoint_file_without_tensors_runs_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders["vit"], folder)
    state = load_file(folder / "open_clip_model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor.half() for name, tensor in state.items()}}, folder / "epoch_3.pt")
    export = load_export(export_pretrained(str(folder), tmp_path / "export"))
    wanted = load_export(export_pretrained(str(folders["vit"]), tmp_path / "wanted"))
    assert np.abs(export.encode_text(["a dog"]) - wanted.encode_text(["a dog"])).max() < 1e-2, "weights of 16 bits, as open_clip trains"
    torch.save(_Runs(), folder / "epoch_3.pt")
    with pytest.raises(InputError, match=r"epoch_3\.pt: is not read, since it holds more than weights") as refused:
        export_pretrained(str(folder), tmp_path / "other")
    assert not Path("ran").exists()
    assert "weights_only" not in str(refused.value), "torch's message advises to run the code"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_their_name(value: float, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders["vit"], folder)
    state = load_file(folder / "open_clip_model.safetensors")
    state["visual.proj"][0, 0] = value
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=r"visual\.proj holds NaN or infinity"):
        export_pretrained(str(folder), tmp_path / "export")


class _Runs:
    """Pickled, it runs something when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("settings", [None, [], {"vision_cfg": 3}, {"vision_cfg": {"layers": "two"}}, {"vision_cfg": {"width": [1]}}])
def test_a_card_with_settings_of_no_network_is_an_error_that_names_it(settings: Any, clip: Path, tmp_path: Path) -> None:
    shutil.copytree(clip, tmp_path / "export")
    manifest = read_manifest(clip, kind="export")
    manifest.config["architecture"]["trunk"]["init_args"]["model"] = (
        {"embed_dim": 32, **settings} if isinstance(settings, dict) else settings
    )
    write_manifest(tmp_path / "export", manifest)
    with pytest.raises(InputError):
        load_export(tmp_path / "export")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_cfg": {**TEXT, "hf_model_name": "roberta-base"}}, "text tower is 'roberta-base' of transformers"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:somebody/code", "image_size": 32}}, "not the name of an architecture"),
        ({"text_cfg": {**TEXT, "tokenizer_kwargs": {"trust_remote_code": True}}}, "tokenizer_kwargs.trust_remote_code"),
        ({"text_cfg": {**TEXT, "hf_tokenizer_name": "somebody/tokenizer"}}, "tokenizer cannot be loaded"),
        ({"vision_cfg": {**VIT, "layers": 10**6}}, "layers is 1000000"),
        ({"vision_cfg": {**VIT, "image_size": [32, 64]}}, "only models with square pictures"),
        ({"embed_dim": 48}, "not weights of"),
        ({"text_cfg": {**TEXT, "width": 32}}, "not weights of"),
        ({"embed_dim": "32"}, "embed_dim of the model is '32'"),
    ],
)
def test_a_folder_that_would_fetch_or_does_not_fit_is_refused(
    change: dict[str, Any], message: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders["vit"], folder)
    config = {"model_cfg": {**CONFIGS["vit"]["model_cfg"], **change}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connects to the network"))
    with pytest.raises(InputError, match=message):
        export_pretrained(str(folder), tmp_path / "export")


def test_a_model_is_found_by_its_name_with_a_file_or_a_tag(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag's own settings count: its GELU, of which open_clip only warns, and its preprocessing. The download itself is open_clip's."""
    (tmp_path / "tiny-clip.json").write_text(json.dumps(CONFIGS["vit"]["model_cfg"]))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    weights = folders["quickgelu"] / "open_clip_model.safetensors"
    by_file = load_export(export_pretrained(f"tiny-clip/{weights}", tmp_path / "file"))
    described = {"hf_hub": "somebody/tiny", "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["laion"] if name == "tiny-clip" else [])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: described)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda described: str(weights))
    by_tag = load_export(export_pretrained("tiny-clip/laion", tmp_path / "tag"))
    in_folder = load_export(export_pretrained(str(folders["quickgelu"]), tmp_path / "folder"))
    texts = ["a photo of a dog", "snow"]
    assert np.array_equal(by_tag.encode_text(texts), in_folder.encode_text(texts))
    assert np.abs(by_file.encode_text(texts) - in_folder.encode_text(texts)).max() > TOLERANCE, "the architecture alone says another GELU"
    assert by_tag.preprocessing.mean == (0.5, 0.5, 0.5) and by_tag.preprocessing.resize == "shortest"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("ViT-B-23/openai", "neither a folder nor a model of open_clip"),
        ("ViT-B-32/openay", "neither a file nor weights that open_clip knows for ViT-B-32. It knows: openai"),
        ("ViT-B-32", "neither a file nor weights"),
        ("local-dir:nowhere", "holds no open_clip_config.json"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_those_that_do(named: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export_pretrained(named, tmp_path / "export")


def test_a_run_and_a_pretrained_model_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--output", str(tmp_path / "export")]) == 2
    assert "one of the two" in capsys.readouterr().err
    assert main(["export", "--pretrained", "ViT-B-32/x", "--space", "s", "--output", str(tmp_path / "export")]) == 2
    assert "--space belongs to a run" in capsys.readouterr().err


def test_a_card_that_claims_a_huge_network_takes_no_memory(clip: Path, tmp_path: Path) -> None:
    shutil.copytree(clip, tmp_path / "export")
    manifest = read_manifest(clip, kind="export")
    manifest.config["architecture"]["trunk"]["init_args"]["model"]["vision_cfg"]["width"] = 1_000_000
    write_manifest(tmp_path / "export", manifest)
    with pytest.raises(InputError, match="does not fit the export's card"):
        load_export(tmp_path / "export")


def test_weights_of_another_tower_are_refused(clip: Path, tmp_path: Path) -> None:
    space = load_export(clip).query
    assert isinstance(space, OpenClipSpace)
    state = load_file(space.folder / "model.safetensors")
    save_file({**state, "token_embedding.weight": torch.zeros(5, 64)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="differ in token_embedding.weight"):
        OpenClipSpace(tmp_path, space.model_cfg, space.tokenizer.settings).embed(["a dog"])


def test_an_export_of_a_run_is_no_folder_of_open_clip(clip: Path, tmp_path: Path) -> None:
    to_open_clip(clip, tmp_path / "back")
    (tmp_path / "back" / "open_clip_config.json").write_text("{}")
    with pytest.raises(InputError, match="has another open_clip_config.json already"):
        to_open_clip(clip, tmp_path / "back")


def test_a_word_of_very_many_letters_takes_no_time(clip: Path) -> None:
    row = load_export(clip).encode_text("o" * 15_000)
    assert np.isfinite(row).all() and row.any()


def test_pictures_that_are_no_square_are_as_open_clip_pads_them() -> None:
    file = io.BytesIO()
    Image.new("RGB", (100, 1), (255, 255, 255)).save(file, "png")
    pixels = centre(file.getvalue(), 32, 1.0, "bicubic", "longest", 0)
    assert pixels.shape == (3, 32, 32) and (pixels == 255).sum() == 3 * 32, "a line keeps one pixel"
