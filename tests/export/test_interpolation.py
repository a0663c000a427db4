"""Exports between a base and a run (WiSE-FT): every tensor against numpy, the ends to the bit, and what cannot be interpolated."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import multimodal as mm
from multimodal.boxes import read_manifest
from multimodal.errors import InputError
from multimodal.export.card import read_card
from multimodal.export.interpolation import between
from multimodal.export.model import export, load_export
from multimodal.objectives import Clip, Cosine, Objective
from multimodal.shards.columns import ColumnWriter
from multimodal.shards.reader import ShardSet
from multimodal.text import EncoderSpace
from multimodal.towers import FolderEncoder, Head, ImageTower, NoWeights, TextTower, Trunk
from multimodal.verify import problems_of
from tests.export.test_model import DIM, HEAD, NUM, QUERIES, described, pixels, trained_head, trunk, word_space, world, write_run

__all__ = ["world"]  # fixtures
PIXELS = described("multimodal.data.Pixels", size=32)
CAPTIONS = described("multimodal.data.Captions")
TOP = described("multimodal.towers.Head", dim_in=DIM, dim_out=DIM, hidden=6)
FILES = ("weights.safetensors", "query/projection.safetensors", "query/model.safetensors")


def picture_run(
    path: Path, world: Path, seed: int, text_seed: int | None = None, objective: Objective | None = None, **config: Any
) -> Path:
    """A run that trained everything on pictures, batch norms too; with a text head on the words if it has a seed."""
    net = Trunk("test_efficientnet", NoWeights(seed), frozen=False, size=32).train()
    net(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)))
    for _ in range(seed):
        net(pixels(range(3)))
    torch.manual_seed(0 if text_seed is None else text_seed)
    text: dict[str, Any] = {} if text_seed is None else {"target_side": Head(DIM, DIM, hidden=6), "config_target_side": TOP}
    tower = ImageTower(net, trained_head(seed=seed)).eval()
    named = described("multimodal.towers.ImageTower", trunk={**net.recipe}, head=HEAD)
    settings = {"image_tower": named, "image": PIXELS, **text, **config}
    return write_run(path, world, tower, objective or Clip(), **settings)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """The export `base`, the run `run`, and the run's own export `own`; both sides of all are trained."""
    path = tmp_path_factory.mktemp("pair")
    export(picture_run(path / "base run", world, 1, 1), path / "base", world / "space")
    export(picture_run(path / "run", world, 2, 2), path / "own", world / "space")
    return path


def tensors(box: Path) -> dict[str, np.ndarray]:
    """Every tensor of an export, of both sides."""
    files = [box / name for name in FILES if (box / name).is_file()]
    return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


def slow(base: dict[str, np.ndarray], run: dict[str, np.ndarray], alpha: float) -> dict[str, np.ndarray]:
    made = {}
    for name, one in base.items():
        other, flat = run[name], []
        assert one.shape == other.shape and one.dtype == other.dtype
        for x, y in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
            flat.append(y if one.dtype.kind == "i" else (1 - alpha) * x + alpha * y)
        made[name] = np.array(flat, np.float64).astype(one.dtype).reshape(one.shape)
    return made


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_every_tensor_of_both_sides_is_between_the_base_s_and_the_run_s(tmp_path: Path, world: Path, pair: Path, alpha: float) -> None:
    made = export(pair / "run", tmp_path / "made", world / "space", interpolate=pair / "base", alpha=alpha)
    expected, found = slow(tensors(pair / "base"), tensors(pair / "own"), alpha), tensors(made)
    assert found.keys() == expected.keys()
    kinds = {tensor.dtype.kind for tensor in found.values()}
    assert kinds == {"f", "i"} and sum("projection" in name for name in found) == 4
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    counts = next(name for name in found if name.endswith("num_batches_tracked"))
    assert found[counts] == tensors(pair / "own")[counts] != tensors(pair / "base")[counts]
    assert not list(problems_of(made))


@pytest.mark.parametrize(("alpha", "name"), [(0.0, "base"), (1.0, "own")])
def test_the_ends_have_the_vectors_of_the_base_and_of_the_run_to_the_bit(
    tmp_path: Path, world: Path, pair: Path, alpha: float, name: str
) -> None:
    made = load_export(export(pair / "run", tmp_path / "made", world / "space", interpolate=pair / "base", alpha=alpha))
    end = load_export(pair / name)
    np.testing.assert_array_equal(made.embed_images(pixels(range(NUM))), end.embed_images(pixels(range(NUM))))
    np.testing.assert_array_equal(made.query.embed(QUERIES), end.query.embed(QUERIES))


def test_the_card_says_the_base_and_alpha_and_no_figures_of_the_run(tmp_path: Path, world: Path, pair: Path) -> None:
    made = export(pair / "run", tmp_path / "made", world / "space", interpolate=pair / "base", alpha=0.5)
    base = load_export(pair / "base").fingerprint
    card, manifest = read_card(made), read_manifest(made, "export")
    assert card.interpolation == {"base": base, "alpha": 0.5} and manifest.made_from["base"] == base
    assert f"interpolated: alpha 0.5 from the base {base[:12]} to the run" in card.summary()
    assert card.figures == {} and read_card(pair / "own").figures  # the run's were measured with other weights
    assert load_export(made).network.trunk.fingerprint == manifest.made_from["trunk"]


def test_the_same_again_is_kept_and_another_alpha_or_none_is_refused_with_what_differs(tmp_path: Path, world: Path, pair: Path) -> None:
    def make(output: str, **settings: Any) -> Path:
        return export(pair / "run", tmp_path / output, world / "space", **settings)

    made = make("made", interpolate=pair / "base", alpha=0.5)
    before = (made / "manifest.json").stat().st_ino
    make("made", interpolate=pair / "base", alpha=0.5)
    assert (made / "manifest.json").stat().st_ino == before
    assert (make("twin", interpolate=pair / "base", alpha=0.5) / "manifest.json").read_bytes() == (made / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=r"made: was made with other .*config.interpolation.alpha was 0.5 and is 0.25 now"):
        make("made", interpolate=pair / "base", alpha=0.25)
    with pytest.raises(InputError, match=r"config.interpolation.base was \w{12}.. and is \w{12}.. now"):
        make("made", interpolate=pair / "own", alpha=0.5)
    with pytest.raises(InputError, match=r"config.interpolation.alpha was 0.5 and is not set now"):
        make("made")


def test_a_whole_number_is_the_same_alpha(tmp_path: Path, world: Path, pair: Path) -> None:
    made = [
        export(pair / "run", tmp_path / str(alpha), world / "space", interpolate=pair / "base", alpha=alpha) / "manifest.json"
        for alpha in (1, 1.0)
    ]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_python_takes_the_open_base(tmp_path: Path, world: Path, pair: Path) -> None:
    made = mm.export(pair / "run", tmp_path / "made", world / "space", interpolate=mm.open(pair / "base"), alpha=0.5)
    twin = export(pair / "run", tmp_path / "twin", world / "space", interpolate=pair / "base", alpha=0.5)
    assert made.fingerprint == load_export(twin).fingerprint


def test_a_frozen_trunk_stays_the_one_whose_features_are_on_disk(tmp_path: Path, world: Path) -> None:
    runs = [write_run(tmp_path / f"run{seed}", world, trained_head(seed=seed), Cosine()) for seed in (0, 1)]
    export(runs[0], tmp_path / "base", world / "space")
    made = load_export(export(runs[1], tmp_path / "made", world / "space", interpolate=tmp_path / "base", alpha=0.3))
    assert made.network.trunk.fingerprint == made.manifest.made_from["trunk"] == trunk().fingerprint
    assert made.query.fingerprint == word_space().fingerprint


def test_a_trunk_that_a_caller_gives_keeps_its_weights(tmp_path: Path, world: Path) -> None:
    export(picture_run(tmp_path / "pictures", world, 3, objective=Cosine()), tmp_path / "base", world / "space")
    run, given = write_run(tmp_path / "run", world, trained_head(), Cosine()), trunk()
    made = load_export(export(run, tmp_path / "made", world / "space", given, interpolate=tmp_path / "base", alpha=0.5))
    assert given.fingerprint == trunk().fingerprint != made.network.trunk.fingerprint


def tower_run(path: Path, world: Path, tiny_bert: Path, scale: float, seed: int, **changed: Any) -> Path:
    """A run that trained a text tower."""
    tower = TextTower(FolderEncoder(tiny_bert), trained_head(dim_in=16, seed=seed), frozen=False, max_tokens=20).eval()
    with torch.no_grad():
        for parameter in tower.encoder.parameters():
            parameter.mul_(scale)
    head = described("multimodal.towers.Head", dim_in=16, dim_out=DIM, standardise=True)
    folder = described("multimodal.towers.FolderEncoder", path=str(tiny_bert))
    side = described("multimodal.towers.TextTower", encoder=folder, head=head, frozen=False, max_tokens=20)
    side["init_args"] |= changed
    return write_run(path, world, trained_head(seed=seed), Clip(), target_side=tower, config_target_side=side, target=CAPTIONS)


def test_a_trained_text_tower_is_interpolated_too(tmp_path: Path, world: Path, tiny_bert: Path) -> None:
    given = FolderEncoder(tiny_bert)
    export(tower_run(tmp_path / "first", world, tiny_bert, 0.8, 1), tmp_path / "base", encoder=given)
    run = tower_run(tmp_path / "run", world, tiny_bert, 1.3, 2)
    export(run, tmp_path / "own", encoder=given)
    for alpha in (0, 0.3, 1):
        made = export(run, tmp_path / f"made {alpha}", encoder=given, interpolate=tmp_path / "base", alpha=alpha)
        expected, found = slow(tensors(tmp_path / "base"), tensors(tmp_path / "own"), alpha), tensors(made)
        assert found.keys() == expected.keys() and any(name.startswith("model") for name in found)
        for name, tensor in expected.items():
            np.testing.assert_array_equal(found[name], tensor, err_msg=name)
        assert not list(problems_of(made))
        if alpha in (0, 1):
            end = load_export(tmp_path / ("own" if alpha else "base"))
            np.testing.assert_array_equal(load_export(made).query.embed(QUERIES), end.query.embed(QUERIES))
    export(run, tmp_path / "made 0.3", encoder=given, interpolate=tmp_path / "base", alpha=0.3)  # again: the same, and kept

    shorter = tower_run(tmp_path / "shorter", world, tiny_bert, 1.3, 2, max_tokens=10)
    with pytest.raises(InputError, match="base/query: reads 20 tokens of a text, and the run 10"):
        export(shorter, tmp_path / "refused", encoder=given, interpolate=tmp_path / "base", alpha=0.5)


def test_a_base_with_the_same_tensors_and_another_tokenizer_is_refused(tmp_path: Path, world: Path, tiny_bert: Path) -> None:
    from transformers import BertModel, BertTokenizerFast

    words = (tiny_bert / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:5], *reversed(words[5:])]))
    BertModel.from_pretrained(tiny_bert).save_pretrained(tmp_path / "other")
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "other")
    export(tower_run(tmp_path / "first", world, tiny_bert, 0.8, 1), tmp_path / "base", encoder=FolderEncoder(tiny_bert))
    other = FolderEncoder(tmp_path / "other")
    with pytest.raises(InputError, match=r"the run's encoder gives other vectors with them. Compare config.json and tokenizer.json"):
        export(
            tower_run(tmp_path / "run", world, tmp_path / "other", 1.3, 2),
            tmp_path / "made",
            encoder=other,
            interpolate=tmp_path / "base",
            alpha=0.5,
        )


def test_a_projection_on_a_frozen_encoder_is_interpolated_and_two_frozen_encoders_are_not(
    tmp_path: Path, world: Path, tiny_bert: Path
) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(9)
    other = tmp_path / "other"
    BertModel(BertConfig.from_pretrained(tiny_bert)).save_pretrained(other)
    (other / "tokenizer.json").write_bytes((tiny_bert / "tokenizer.json").read_bytes())
    side = described("torch.nn.Linear", in_features=16, out_features=DIM)
    shards, runs = ShardSet(world / "set"), {}
    for name, folder in (("one", tiny_bert), ("two", other)):
        space = EncoderSpace.from_folder(folder)
        space.save(tmp_path / f"space {name}")
        with ColumnWriter(shards, f"by-{name}", 16, "pair", "float32", {}, {"text-space": space.fingerprint}) as column:
            for shard in column.missing():
                column.write(shard, np.zeros((shard.num_pairs, 16)))
        text = described("multimodal.data.ColumnRows", name=f"by-{name}")
        for seed in (1, 2):
            head = trained_head(seed=seed)
            torch.manual_seed(seed)
            linear, path = nn.Linear(16, DIM), tmp_path / f"{name} {seed}"
            runs[name, seed] = write_run(path, world, head, Clip(), linear, config_target_side=side, target=text)
    base = export(runs["one", 1], tmp_path / "base", tmp_path / "space one")
    own = export(runs["one", 2], tmp_path / "own", tmp_path / "space one")
    made = export(runs["one", 2], tmp_path / "made", tmp_path / "space one", interpolate=base, alpha=0.3)
    for name, tensor in slow(tensors(base), tensors(own), 0.3).items():
        np.testing.assert_array_equal(tensors(made)[name], tensor, err_msg=name)
    with pytest.raises(InputError, match="Neither was trained here, so there is nothing between them"):
        export(runs["two", 2], tmp_path / "refused", tmp_path / "space two", interpolate=base, alpha=0.3)


def refused(run: Path, base: Path, space: Path, message: str) -> None:
    output = run.parent / "refused"
    with pytest.raises(InputError, match=f"^{re.escape(str(base))}.*: {message}"):
        export(run, output, space, interpolate=base, alpha=0.5)
    assert not output.exists()


def test_another_architecture_is_refused_by_the_first_tensor_that_differs(tmp_path: Path, world: Path, pair: Path) -> None:
    wide = copy.deepcopy(HEAD)
    wide["init_args"]["hidden"] = 6
    net = Trunk("test_efficientnet", NoWeights(1), size=32)
    torch.manual_seed(0)
    tower = ImageTower(net, Head(256, DIM, hidden=6, standardise=True)).eval()
    named = described("multimodal.towers.ImageTower", trunk={**net.recipe}, head=wide)
    text = {"target_side": Head(DIM, DIM, hidden=6), "config_target_side": TOP}
    run = write_run(tmp_path / "run", world, tower, Clip(), image_tower=named, image=PIXELS, **text)
    refused(
        run,
        pair / "base",
        world / "space",
        r"head.hidden.weight is missing in the base and \(6, 256\) in the run. Only weights of the same",
    )

    head = described("torch.nn.Linear", in_features=DIM, out_features=DIM)
    run = picture_run(tmp_path / "flat", world, 2, target_side=nn.Linear(DIM, DIM), config_target_side=head)
    refused(run, pair / "base", world / "space", r"weight.0 is \(6, 4\) in the base and \(4, 4\) in the run")


def test_two_text_spaces_that_nothing_trained_must_be_one(tmp_path: Path, world: Path, pair: Path) -> None:
    other, shards = word_space(seed=1), ShardSet(world / "set")
    other.save(tmp_path / "other")
    with ColumnWriter(shards, "other-words", DIM, "pair", "float32", {}, {"text-space": other.fingerprint}) as column:
        for shard in column.missing():
            column.write(shard, np.zeros((shard.num_pairs, DIM)))
    text = described("multimodal.data.ColumnRows", name="other-words")
    plain = export(picture_run(tmp_path / "plain", world, 1), tmp_path / "plain export", world / "space")
    names = rf"by the WordSpace {word_space().fingerprint[:12]}, and the run by the WordSpace {other.fingerprint[:12]}. Only trained"
    for base, seed in ((plain, None), (pair / "base", 2)):  # also below layers that were trained
        run = picture_run(tmp_path / f"run {seed}", world, 2, seed, target=text)
        refused(run, base, tmp_path / "other", f"reads queries {names}")
    run = picture_run(tmp_path / "untrained", world, 2)
    refused(run, pair / "base", world / "space", r"reads queries by the ProjectedSpace \w+, and the run by the WordSpace")


def test_the_same_tensors_with_another_meaning_are_refused(tmp_path: Path, world: Path) -> None:
    bent = copy.deepcopy(HEAD)
    bent["init_args"]["activation"] = described("torch.nn.Sigmoid")
    base = write_run(tmp_path / "first", world, trained_head(), Cosine(), image_tower=bent)
    export(base, tmp_path / "base", world / "space")
    run = write_run(tmp_path / "run", world, trained_head(seed=1), Cosine())
    refused(run, tmp_path / "base", world / "space", "its tensors have the names and shapes of the run's, but .* gives other vectors")


def test_pictures_must_be_prepared_in_one_way(tmp_path: Path, world: Path, pair: Path) -> None:
    run = picture_run(tmp_path / "run", world, 2, 2, image=described("multimodal.data.Pixels", size=32, crop_share=0.5))
    refused(run, pair / "base", world / "space", r"prepares pictures with crop_share \S+, and the run with 0.5")


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_outside_0_to_1_is_refused(tmp_path: Path, world: Path, pair: Path, alpha: float) -> None:
    with pytest.raises(InputError, match=f"alpha={alpha} must be from 0, the base's weights, to 1"):
        export(pair / "run", tmp_path / "made", world / "space", interpolate=pair / "base", alpha=alpha)


@pytest.mark.parametrize("given", [{"alpha": 0.5}, {"interpolate": Path("base")}])
def test_a_base_and_an_alpha_belong_together(tmp_path: Path, world: Path, pair: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--interpolate BASE and --alpha NUMBER belong together"):
        export(pair / "run", tmp_path / "made", world / "space", **given)


def test_a_base_that_is_no_export_is_named(tmp_path: Path, world: Path, pair: Path) -> None:
    with pytest.raises(InputError, match="expected an export here, but this is a text space"):
        export(pair / "run", tmp_path / "made", world / "space", interpolate=world / "space", alpha=0.5)


def test_the_ends_are_taken_whole_even_where_the_other_side_is_infinite() -> None:
    base, run = torch.tensor([1.0, float("inf")]), torch.tensor([float("nan"), -0.0])
    assert torch.equal(between({"a": base}, {"a": run}, 0, "x")["a"], base)
    assert between({"a": base}, {"a": run}, 1, "x")["a"].numpy().tobytes() == run.numpy().tobytes()
    half = between({"a": base.half()}, {"a": run}, 0.5, "x")["a"]
    assert half.dtype == torch.float32 and half.isnan()[0] and half.isinf()[1]


def test_a_tensor_of_integers_that_only_one_side_has_is_the_run_s() -> None:
    number, weight = torch.tensor(3), torch.ones(2)
    assert between({"w": weight}, {"w": weight, "n": number}, 0.5, "x")["n"] == 3
    assert between({"w": weight, "n": number}, {"w": weight}, 0.5, "x").keys() == {"w"}
