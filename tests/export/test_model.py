"""Exports of runs, small ones whose towers have random weights: what they hold, that they mean what the run meant, and what is refused."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from multimodal.boxes import fingerprint_file, read_manifest
from multimodal.boxes.trust import Builder
from multimodal.data.decode import centre
from multimodal.embed.columns import embed
from multimodal.errors import InputError
from multimodal.export.card import read_card
from multimodal.export.model import export, load_export
from multimodal.export.slots import SLOTS
from multimodal.objectives import Clip, Cosine, Objective, SoftCrossEntropy
from multimodal.pairs import Pair
from multimodal.shards.columns import ColumnWriter
from multimodal.shards.reader import ShardSet
from multimodal.shards.writer import ShardWriter
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.conformance import check_space
from multimodal.text.encoder import EncoderSpace
from multimodal.text.words import WordSpace
from multimodal.towers import FolderEncoder, Head, ImageTower, NoWeights, TextTower, Trunk, Weights
from multimodal.verify import problems_of

NUM, DIM = 9, 4
WORDS = ("dog", "cat", "beach", "snow", "woman")


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (44, 60, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def word_space(seed: int = 0) -> WordSpace:
    vectors = np.random.default_rng(seed).normal(size=(len(WORDS), DIM)).astype(np.float32)
    return WordSpace(Normaliser(), Vocabulary(WORDS, np.ones(len(WORDS), np.int64), 10), vectors)


def trunk() -> Trunk:
    return Trunk("test_efficientnet", NoWeights(1), size=32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with a feature column `tiny` and a text column `words`, and the text space beside them."""
    path = tmp_path_factory.mktemp("world")
    with ShardWriter(path / "set", pairs_per_shard=5) as writer:
        for number in range(NUM):
            text = f"{WORDS[number % 5]} {WORDS[number % 3]}"
            writer.write(Pair(f"{number}.png", encoded(number), "png", (text,), f"group {number}"))
    space = word_space()
    space.save(path / "space")
    shards = ShardSet(path / "set")
    with ColumnWriter(shards, "words", DIM, "pair", "float32", {}, {"text-space": space.fingerprint}) as column:
        for shard in column.missing():
            column.write(shard, space.embed([shards.texts(id)[0] for id in shard.ids]))
    with ColumnWriter(shards, "foreign", 256, "pair", "float32", {}, {}) as column:
        for shard in column.missing():
            column.write(shard, np.ones((shard.num_pairs, 256)))
    embed(path / "set", "tiny", trunk(), device="cpu")
    return path


def described(class_path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": arguments}


HEAD = described("multimodal.towers.Head", dim_in=256, dim_out=DIM, hidden=None, dropout=0.0, activation=None, standardise=True)
IDENTITY = described("torch.nn.Identity")
TINY = described("multimodal.data.ColumnRows", name="tiny")
TEXTS = described("multimodal.data.ColumnRows", name="words")


def write_run(path: Path, world: Path, tower: nn.Module, objective: Objective, target_side: nn.Module | None = None, **config: Any) -> Path:
    """A run's folder as `multimodal fit` leaves it: its resolved config, and a checkpoint with Lightning's keys."""
    path.mkdir(parents=True, exist_ok=True)
    model = {
        "image_tower": config.get("image_tower", HEAD),
        "target_side": config.get("config_target_side", IDENTITY),
        "objective": described(f"{type(objective).__module__}.{type(objective).__name__}"),
    }
    data = {"shards": str(world / "set"), "image": config.get("image", TINY), "target": config.get("target", TEXTS)}
    (path / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "model": model, "data": data}))
    parts = {"image_tower": tower, "target_side": target_side or nn.Identity(), "objective": objective}
    state = {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}
    (path / "checkpoints").mkdir(exist_ok=True)
    torch.save({"state_dict": state, "global_step": 20, "epoch": 1}, path / "checkpoints" / "best.ckpt")
    (path / "metrics.csv").write_text(
        "epoch,step,train/loss,val/R@10,val/chance_R@10\n0,9,1.0,,\n0,10,,20.0,5.0\n1,20,,30.0,5.0\n2,30,,90.0,5.0\n"
    )
    return path


def trained_head(dim_in: int = 256, dim_out: int = DIM, seed: int = 0) -> Head:
    """With weights and statistics that are not the ones it started with."""
    torch.manual_seed(seed)
    head = Head(dim_in, dim_out, standardise=True).train()
    head(torch.randn(50, dim_in) * 2 + 1)
    return head.eval()


def pixels(numbers: range) -> torch.Tensor:
    p = trunk().preprocessing
    return torch.from_numpy(np.stack([centre(encoded(number), p.size, p.crop_share, "bicubic") for number in numbers]))


@pytest.mark.parametrize("objective", [Cosine(), SoftCrossEntropy(), Clip()])
def test_an_export_of_a_run_on_features_gives_what_the_runs_own_parts_give(tmp_path: Path, world: Path, objective: Objective) -> None:
    head = trained_head()
    export(write_run(tmp_path / "run", world, head, objective), tmp_path / "export", world / "space")
    opened = load_export(tmp_path / "export")
    with torch.inference_mode():
        expected = objective.output(head(trunk()(pixels(range(NUM))))).numpy()
    # the very same operations; another batch may add up in another order
    np.testing.assert_allclose(opened.embed_images(pixels(range(NUM))), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(opened.embed_encoded([encoded(3)])[0], expected[3], rtol=1e-4, atol=1e-5)
    if isinstance(objective, SoftCrossEntropy):
        np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)


def test_a_run_over_several_sets_is_exported_as_one_over_a_set_with_equal_columns(tmp_path: Path, world: Path) -> None:
    one, mixed = (write_run(tmp_path / name, world, trained_head(), Cosine()) for name in ("one", "mixed"))
    config = yaml.safe_load((mixed / "config.yaml").read_text())
    config["data"]["shards"] = {"b": str(world / "set"), "a": str(world / "set")}
    (mixed / "config.yaml").write_text(yaml.safe_dump(config))
    exports = [read_manifest(export(run, tmp_path / f"export of {run.name}", world / "space"), kind="export") for run in (one, mixed)]
    assert exports[0] == exports[1]
    (mixed / "made_from.json").write_text(json.dumps({"column words of a": "0" * 64}))
    with pytest.raises(InputError, match="was trained on 000000000000. Train again"):
        export(mixed, tmp_path / "again", world / "space")


def test_the_query_side_is_the_space_that_the_text_column_was_made_with(tmp_path: Path, world: Path) -> None:
    export(write_run(tmp_path / "run", world, trained_head(), Cosine()), tmp_path / "export", world / "space")
    opened = load_export(tmp_path / "export")
    np.testing.assert_array_equal(opened.query.embed(["dog on the beach"]), word_space().embed(["dog on the beach"]))
    assert opened.card.family == "wordvec"
    assert opened.card.query_fingerprint == word_space().fingerprint
    assert opened.card.dim == opened.query.dim == DIM


def test_the_card_reads_back_with_the_figures_at_the_checkpoint_and_the_trunk_it_names(tmp_path: Path, world: Path) -> None:
    export(write_run(tmp_path / "run", world, trained_head(), Cosine()), tmp_path / "export", world / "space")
    card = read_card(tmp_path / "export")
    assert card.figures == {"val/R@10": 30.0, "val/chance_R@10": 5.0}
    assert card.architecture["trunk"] == trunk().recipe
    assert card.architecture["head"] == HEAD
    assert read_manifest(tmp_path / "export", "export").made_from["trunk"] == trunk().fingerprint
    assert load_export(tmp_path / "export").network.trunk.fingerprint == trunk().fingerprint


def test_weights_of_another_export_are_refused(tmp_path: Path, world: Path) -> None:
    for seed in (0, 1):
        run = write_run(tmp_path / f"run{seed}", world, trained_head(seed=seed), Cosine())
        export(run, tmp_path / f"export{seed}", world / "space")
    (tmp_path / "export0" / "weights.safetensors").write_bytes((tmp_path / "export1" / "weights.safetensors").read_bytes())
    with pytest.raises(InputError, match="weights.safetensors: is .*, but the export was made with"):
        load_export(tmp_path / "export0")


def test_two_exports_of_one_run_are_equal(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    one, two = (export(run, tmp_path / name, world / "space") for name in ("one", "two"))
    for file in (path for path in one.rglob("*") if path.is_file()):
        assert file.read_bytes() == (two / file.relative_to(one)).read_bytes(), file.name


def test_a_run_on_pictures_exports_the_trunk_that_it_trained(tmp_path: Path, world: Path) -> None:
    tower = ImageTower(Trunk("test_efficientnet", NoWeights(1), frozen=False, size=32), trained_head())
    with torch.no_grad():
        for parameter in tower.trunk.parameters():
            parameter += 0.01  # trained: not what NoWeights(1) gives
    config = described("multimodal.towers.ImageTower", trunk={**tower.trunk.recipe}, head=HEAD)
    pictures = described("multimodal.data.Pixels", size=32)
    run = write_run(tmp_path / "run", world, tower, Cosine(), image_tower=config, image=pictures)
    export(run, tmp_path / "export", world / "space")
    with torch.inference_mode():
        expected = tower.eval()(pixels(range(3))).numpy()
    np.testing.assert_allclose(load_export(tmp_path / "export").embed_images(pixels(range(3))), expected, rtol=1e-4, atol=1e-4)


def test_a_run_of_release_0_1_exports_to_the_same(tmp_path: Path, world: Path) -> None:
    side = described("torch.nn.Linear", in_features=DIM, out_features=DIM)
    run = write_run(tmp_path / "run", world, trained_head(), Clip(), target_side=nn.Linear(DIM, DIM), config_target_side=side)
    export(run, tmp_path / "now", world / "space")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["text"], config["model"]["text_side"] = config["data"].pop("target"), config["model"].pop("target_side")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"] = {name.replace("target_side", "text_side"): one for name, one in checkpoint["state_dict"].items()}
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    export(run, tmp_path / "then", world / "space")
    for file in (path for path in (tmp_path / "now").rglob("*") if path.is_file()):
        assert file.read_bytes() == (tmp_path / "then" / file.relative_to(tmp_path / "now")).read_bytes(), file.name


def test_a_column_that_has_changed_since_an_unfinished_run_began_is_refused(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    now = read_manifest(world / "set" / "columns" / "words", "column").fingerprint
    for fingerprint in (now, "0" * 64):
        (run / "made_from.json").write_text(json.dumps({"column words": fingerprint}))
        if fingerprint == now:
            assert export(run, tmp_path / "export", world / "space").is_dir()
        else:
            with pytest.raises(InputError, match=f"words: is {now[:12]} now, but .*run was trained on 000000000000. Train again"):
                export(run, tmp_path / "other", world / "space")


def test_the_last_checkpoint_is_taken_where_the_run_chose_none(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    (run / "checkpoints" / "best.ckpt").rename(run / "checkpoints" / "last.ckpt")
    assert export(run, tmp_path / "export", world / "space").is_dir()


QUERIES = ["dog on the beach", "a woman", "snow"]


def test_a_text_head_goes_into_the_query_side(tmp_path: Path, world: Path, tiny_bert: Path) -> None:
    space = EncoderSpace(tiny_bert, device="cpu")
    space.save(tmp_path / "space")
    shards = ShardSet(world / "set")
    with ColumnWriter(shards, "encoded", 16, "pair", "float32", {}, {"text-space": space.fingerprint}) as column:
        for shard in column.missing():
            column.write(shard, space.embed([shards.texts(id)[0] for id in shard.ids]))
    target_side = trained_head(dim_in=16, seed=1)
    side = described("multimodal.towers.Head", dim_in=16, dim_out=DIM, standardise=True)
    text = described("multimodal.data.ColumnRows", name="encoded")
    run = write_run(tmp_path / "run", world, trained_head(), Clip(), target_side=target_side, config_target_side=side, target=text)
    export(run, tmp_path / "export", tmp_path / "space")
    opened = load_export(tmp_path / "export")
    with torch.inference_mode():
        expected = nn.functional.normalize(target_side(torch.from_numpy(space.embed(QUERIES)))).numpy()
    np.testing.assert_allclose(opened.query.embed(QUERIES), expected, atol=1e-5)  # the standardisation is folded in: another order
    assert opened.card.family == "contrastive"

    bent = {**side, "init_args": {**side["init_args"], "hidden": 8}}
    torch.manual_seed(0)
    hidden = Head(16, DIM, hidden=8, standardise=True)
    run = write_run(
        tmp_path / "bent",
        world,
        trained_head(),
        Clip(),
        target_side=hidden,
        config_target_side=bent,
        target=text,
    )
    export(run, tmp_path / "bent-export", tmp_path / "space")
    opened = load_export(tmp_path / "bent-export")
    with torch.inference_mode():
        expected = nn.functional.normalize(hidden.eval()(torch.from_numpy(space.embed(QUERIES)))).numpy()
    np.testing.assert_allclose(opened.query.embed(QUERIES), expected, atol=1e-5)


class Squared(Head):
    """A head of one's own that is no affine map."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super().forward(rows).square()


class Soft(nn.Softmax):
    def __init__(self) -> None:
        super().__init__(dim=1)


@pytest.mark.parametrize(
    ("target_side", "class_path"),
    [
        (nn.Linear(DIM, DIM), "torch.nn.Linear"),
        (Head(DIM, DIM, hidden=6), "multimodal.towers.Head"),
        (Head(DIM, DIM), "multimodal.towers.Head"),
    ],
    ids=["linear", "hidden", "head"],
)
def test_a_text_head_goes_on_top_of_any_space(tmp_path: Path, world: Path, target_side: nn.Module, class_path: str) -> None:
    arguments = {"in_features": DIM, "out_features": DIM} if isinstance(target_side, nn.Linear) else {"dim_in": DIM, "dim_out": DIM}
    hidden = getattr(target_side, "hidden", None)
    side = described(class_path, **arguments, **({"hidden": hidden.out_features} if hidden is not None else {}))
    run = write_run(tmp_path / "run", world, trained_head(), Clip(), target_side=target_side, config_target_side=side)
    export(run, tmp_path / "export", world / "space")
    query = load_export(tmp_path / "export").query
    with torch.inference_mode():
        expected = nn.functional.normalize(target_side.eval()(torch.from_numpy(word_space().embed(QUERIES)))).numpy()
    np.testing.assert_allclose(query.embed(QUERIES), expected, atol=1e-6)
    assert query.family == "contrastive" and query.unknown_words("dog zebra") == {"zebra": []}
    assert not query.embed(["zebra"]).any()
    assert not list(problems_of(tmp_path / "export"))
    check_space(query, QUERIES, tmp_path / "checked", without=["torch", "gensim"])


def test_a_text_side_that_queries_cannot_go_through_is_refused_with_what_can(tmp_path: Path, world: Path) -> None:
    soft = described(f"{__name__}.Soft")
    squared = described(f"{__name__}.Squared", dim_in=DIM, dim_out=DIM)
    runs = [
        write_run(tmp_path / "soft", world, trained_head(), Clip(), target_side=Soft(), config_target_side=soft),
        write_run(tmp_path / "squared", world, trained_head(), Clip(), target_side=Squared(DIM, DIM), config_target_side=squared),
    ]
    for run in runs:
        with pytest.raises(InputError, match=rf"{run}: its target side is a .*, which cannot embed queries. Use torch.nn.Linear"):
            export(run, tmp_path / "export", world / "space", trust=[__name__.partition(".")[0]])


def test_a_text_tower_that_trained_becomes_the_query_side(tmp_path: Path, world: Path, tiny_bert: Path) -> None:
    tower = TextTower(FolderEncoder(tiny_bert), trained_head(dim_in=16, seed=1), frozen=False, max_tokens=20).eval()
    with torch.no_grad():
        for parameter in tower.encoder.parameters():
            parameter.mul_(1.1)  # trained: not what lies in the folder
    head = described("multimodal.towers.Head", dim_in=16, dim_out=DIM, standardise=True)
    folder = described("multimodal.towers.FolderEncoder", path=str(tiny_bert))
    side = described("multimodal.towers.TextTower", encoder=folder, head=head, frozen=False, max_tokens=20)
    captions = described("multimodal.data.Captions")
    run = write_run(tmp_path / "run", world, trained_head(), Clip(), target_side=tower, config_target_side=side, target=captions)
    with pytest.raises(InputError, match="add: --encoder multimodal.towers.FolderEncoder --encoder.path"):
        export(run, tmp_path / "export")  # a run is somebody's, too: no folder is opened because it says so
    export(run, tmp_path / "export", encoder=FolderEncoder(tiny_bert))
    opened = load_export(tmp_path / "export")
    with torch.inference_mode():
        expected = nn.functional.normalize(tower(QUERIES)).numpy()
    np.testing.assert_allclose(opened.query.embed(QUERIES), expected, atol=1e-5)
    export(run, tmp_path / "export", encoder=FolderEncoder(tiny_bert))  # again: the same export, and kept


def test_an_export_pools_as_its_tower_did_and_takes_the_mean_for_a_run_that_does_not_say(
    tmp_path: Path, world: Path, tiny_bert: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "encoder"))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    given = FolderEncoder(folder)
    for name, said, pooling in (
        ("null", {"pooling": None, "prompt": "query: "}, "cls"),
        ("last", {"pooling": "last"}, "last"),
        ("old", {}, "mean"),
    ):
        tower = TextTower(given, trained_head(dim_in=16, seed=1), pooling=pooling, prompt=said.get("prompt")).eval()
        head = described("multimodal.towers.Head", dim_in=16, dim_out=DIM, standardise=True)
        side = described(
            "multimodal.towers.TextTower", encoder=described("multimodal.towers.FolderEncoder", path=str(folder)), head=head, **said
        )
        captions = described("multimodal.data.Captions")
        run = write_run(tmp_path / name, world, trained_head(), Clip(), target_side=tower, config_target_side=side, target=captions)
        export(run, tmp_path / f"export-{name}", encoder=given)
        query = load_export(tmp_path / f"export-{name}").query
        assert isinstance(query, EncoderSpace) and query.usage == tower.usage and query.usage.pooling == pooling
        with torch.inference_mode():
            expected = nn.functional.normalize(tower(QUERIES)).numpy()
        np.testing.assert_allclose(query.embed(QUERIES), expected, atol=1e-5)


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_space_that_the_column_was_not_made_with_is_refused_by_both_names(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    word_space(seed=1).save(tmp_path / "other")
    with pytest.raises(InputError) as refused:
        export(run, tmp_path / "export", tmp_path / "other")
    for named in (tmp_path / "other", world / "set" / "columns" / "words", word_space().fingerprint[:12], word_space(1).fingerprint[:12]):
        assert str(named) in str(refused.value)
    assert not (tmp_path / "export" / "manifest.json").exists()
    with pytest.raises(InputError, match="--space"):
        export(run, tmp_path / "export")


def test_a_column_that_no_trunk_made_is_refused(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine(), image=described("multimodal.data.ColumnRows", name="foreign"))
    with pytest.raises(InputError, match="multimodal embed"):
        export(run, tmp_path / "export", world / "space")


def test_a_trunk_with_other_weights_than_the_column_s_is_refused(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    with pytest.raises(InputError, match="was made by the trunk"):
        export(run, tmp_path / "export", world / "space", trunk=Trunk("test_efficientnet", NoWeights(2), size=32))
    assert export(run, tmp_path / "export", world / "space", trunk=trunk()).is_dir()


def test_a_checkpoint_of_another_config_is_refused(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    smaller = copy.deepcopy(HEAD)
    smaller["init_args"]["dim_out"] = 3
    edit(run, lambda config: config["model"].update(image_tower=smaller))
    with pytest.raises(InputError, match="differ in image_tower"):
        export(run, tmp_path / "export", world / "space")


def test_a_head_of_another_dimension_than_the_texts_is_refused(tmp_path: Path, world: Path) -> None:
    config = copy.deepcopy(HEAD)
    config["init_args"]["dim_out"] = 3
    run = write_run(tmp_path / "run", world, trained_head(dim_out=3), Cosine(), image_tower=config)
    with pytest.raises(InputError, match="3 dimensions and its text side 4"):
        export(run, tmp_path / "export", world / "space")


def test_what_is_no_run_or_no_export_is_named(tmp_path: Path, world: Path) -> None:
    with pytest.raises(InputError, match="multimodal fit"):
        export(tmp_path, tmp_path / "export", world / "space")
    with pytest.raises(InputError, match="expected an export"):
        load_export(world / "set")


def test_an_export_that_is_there_is_kept_and_another_run_s_is_not_written_over(tmp_path: Path, world: Path) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    export(run, tmp_path / "export", world / "space")
    before = (tmp_path / "export" / "manifest.json").stat().st_ino
    export(run, tmp_path / "export", world / "space")
    assert (tmp_path / "export" / "manifest.json").stat().st_ino == before
    other = write_run(tmp_path / "other", world, trained_head(seed=1), Cosine())
    with pytest.raises(
        InputError,
        match=r"export: was made .*weights.safetensors.fingerprint was \w{12}.. and is \w{12}.. now",
    ):
        export(other, tmp_path / "export", world / "space")


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, world: Path) -> None:
    export(write_run(tmp_path / "run", world, trained_head(), Cosine()), tmp_path / "export", world / "space")
    (tmp_path / "bad.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"bad\.png: not an image"):
        load_export(tmp_path / "export").embed_image_files([tmp_path / "bad.png"])
    assert load_export(tmp_path / "export").embed_image_files([]).shape == (0, DIM)


def test_pictures_are_cut_as_the_run_was_validated(tmp_path: Path, world: Path) -> None:
    tower = ImageTower(Trunk("test_efficientnet", NoWeights(1), size=64), trained_head())
    config = described("multimodal.towers.ImageTower", trunk=tower.trunk.recipe, head=HEAD)
    pictures = described("multimodal.data.Pixels", size=48, crop_share=1.0, interpolation="bilinear", flip=True)
    run = write_run(tmp_path / "run", world, tower, Cosine(), image_tower=config, image=pictures)
    export(run, tmp_path / "export", world / "space")
    found = load_export(tmp_path / "export").embed_encoded([encoded(3)])
    with torch.inference_mode():
        expected = tower.eval()(torch.from_numpy(centre(encoded(3), 48, 1.0, "bilinear"))[None]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["multimodal.pairs.Pair", "multimodal.towers.Nothing", "multimodal.objectives.Cosine"])
def test_a_class_must_be_one_of_those_that_belong_in_its_place(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match=r"not one of this project's for this place.*--trust multimodal"):
        Builder(tmp_path, SLOTS).build({"class_path": path, "init_args": {}}, Trunk)
    with pytest.raises(InputError, match="cannot be imported|is not a Trunk class"):
        Builder(tmp_path, SLOTS, trust=["multimodal"]).build({"class_path": path, "init_args": {}}, Trunk)


def change_manifest(box: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((box / "manifest.json").read_text())
    change(manifest)
    (box / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """A run and its export, to be copied and damaged."""
    path = tmp_path_factory.mktemp("finished")
    export(write_run(path / "run", world, trained_head(), Cosine()), path / "export", world / "space")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(parts={}), "parts.weights.safetensors is missing"),
        (lambda manifest: manifest["parts"]["weights.safetensors"].clear(), "fingerprint is missing"),
        (lambda manifest: manifest["config"].update(preprocessing={}), "preprocessing: has nothing; expected .*mean"),
        (
            lambda manifest: manifest["config"]["preprocessing"].update(mean=[0.5, 0.5]),
            r"preprocessing: mean is \(0.5, 0.5\); expected three",
        ),
        (lambda manifest: manifest["config"]["preprocessing"].update(mean="abc"), "preprocessing: mean is 'abc'; expected three"),
        (lambda manifest: manifest["config"]["preprocessing"].update(std=[0, 1, 1]), "std is .*; expected three numbers above 0"),
        (
            lambda manifest: manifest["config"]["preprocessing"].update(size=10**9),
            "size is 1000000000; expected a whole number from 1 to 4096",
        ),
        (lambda manifest: manifest["config"]["preprocessing"].update(crop_share=0), "crop_share is 0; expected a share above 0"),
        (lambda manifest: manifest["config"]["preprocessing"].update(interpolation=["box"]), "interpolation is .*; expected one of"),
        (
            lambda manifest: manifest["config"]["architecture"]["head"]["init_args"].update(dim_in=10**13),
            r"head.* is \(256,\), and the card says \(10000000000000,\)",
        ),
    ],
)
def test_a_damaged_manifest_of_an_export_is_named(
    tmp_path: Path, finished: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    shutil.copytree(finished / "export", tmp_path / "export")
    change_manifest(tmp_path / "export", change)
    with pytest.raises(InputError, match=message):
        load_export(tmp_path / "export")


@pytest.mark.parametrize("content", [b"", b"junk" * 50, b"\xff" * 100, None])
def test_weights_that_are_junk_or_missing_are_named(tmp_path: Path, finished: Path, content: bytes | None) -> None:
    shutil.copytree(finished / "export", tmp_path / "export")
    weights = tmp_path / "export" / "weights.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
        change_manifest(
            tmp_path / "export", lambda manifest: manifest["parts"].update({weights.name: {"fingerprint": fingerprint_file(weights)}})
        )
    with pytest.raises(InputError, match="weights.safetensors: (cannot be read|does not exist)"):
        load_export(tmp_path / "export")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 junk", {"epoch": 1}, {"state_dict": [1]}, {"state_dict": {"a": 1}}, [1]])
def test_a_checkpoint_that_is_junk_is_named(tmp_path: Path, finished: Path, world: Path, content: Any) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match="best.ckpt: cannot be read"):
        export(tmp_path / "run", tmp_path / "export", world / "space")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(model=[]), "model has no settings"),
        (lambda config: config.update(data=None), "data has no settings"),
        (lambda config: config["data"].pop("shards"), "data.shards is missing"),
        (lambda config: config["data"].pop("image"), "data.image has no class_path"),
        (lambda config: config["data"].update(target=5), "data.target has no class_path"),
        (lambda config: config["data"].update(image=described("x", side=5)), "data.image.side has no class_path"),
    ],
)
def test_a_config_of_a_run_that_lacks_a_part_is_named(
    tmp_path: Path, finished: Path, world: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    edit(tmp_path / "run", change)
    with pytest.raises(InputError, match=f"config.yaml: {message}"):
        export(tmp_path / "run", tmp_path / "export", world / "space")


@pytest.mark.parametrize(("name", "content"), [("config.yaml", b"\xff\xfe"), ("made_from.json", b"[]"), ("metrics.csv", b"a,b\n1,2\n")])
def test_a_file_of_a_run_that_cannot_be_read_is_named(tmp_path: Path, finished: Path, world: Path, name: str, content: bytes) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        export(tmp_path / "run", tmp_path / "export", world / "space")


class Rooted(Trunk):
    """A trunk of one's own: the roots of another's features, beside a setting."""

    def __init__(self, architecture: str, weights: Weights, frozen: bool = True, size: int | None = None, power: float = 1.0) -> None:
        super().__init__(architecture, weights, frozen, size)
        self.power = power

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image).abs() ** self.power


class Forgetful(Rooted):
    """Keeps no `scale`."""

    def __init__(self, architecture: str, weights: Weights, scale: float = 1.0) -> None:
        super().__init__(architecture, weights)


class OwnWeights(Weights):
    """Every weight a function of a seed, in a source of one's own."""

    def __init__(self, seed: int = 3) -> None:
        self.seed = seed

    def load_into(self, model: nn.Module) -> None:
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1.5)

    def describe(self) -> dict[str, Any]:
        return described(f"{__name__}.OwnWeights", seed=self.seed)


class Doubled(ImageTower):
    """A tower that does more than its trunk and its head."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(image)


HERE = [__name__.partition(".")[0]]
"""The package that these classes lie in."""


def tower_run(path: Path, world: Path, kind: type[ImageTower], made: Trunk, named: dict[str, Any]) -> Path:
    tower = kind(made, trained_head())
    config = described(f"{kind.__module__}.{kind.__name__}", trunk=named, head=HEAD)
    image = described("multimodal.data.Pixels", size=32)
    return write_run(path, world, tower.eval(), Cosine(), image_tower=config, image=image)


def test_a_trunk_of_ones_own_is_exported_and_opened_where_it_is_trusted(tmp_path: Path, world: Path) -> None:
    made = Rooted("test_efficientnet", OwnWeights(), size=32, power=0.5)
    named = described(
        f"{__name__}.Rooted", architecture="test_efficientnet", weights=described(f"{__name__}.OwnWeights"), size=32, power=0.5
    )
    run = tower_run(tmp_path / "run", world, ImageTower, made, named)
    export(run, tmp_path / "export", world / "space", trust=HERE)
    with pytest.raises(InputError, match=rf"names the class {__name__}.Rooted.*add: --trust {HERE[0]}"):
        load_export(tmp_path / "export")
    opened = load_export(tmp_path / "export", trust=HERE)
    assert isinstance(opened.network.trunk, Rooted) and opened.network.trunk.power == 0.5
    with torch.inference_mode():
        expected = trained_head()(made(pixels(range(3)))).numpy()
    np.testing.assert_allclose(opened.embed_images(pixels(range(3))), expected, atol=1e-5)
    assert made.fingerprint != Rooted("test_efficientnet", OwnWeights(), size=32, power=1.0).fingerprint


def test_a_trunk_that_does_not_keep_what_it_was_made_with_is_named(tmp_path: Path, world: Path) -> None:
    named = described(f"{__name__}.Forgetful", architecture="test_efficientnet", weights=described("multimodal.towers.NoWeights"))
    run = tower_run(tmp_path / "run", world, ImageTower, Forgetful("test_efficientnet", NoWeights(0)), named)
    with pytest.raises(InputError, match="Forgetful takes scale and has no attribute of that name"):
        export(run, tmp_path / "export", world / "space", trust=HERE)


def test_a_tower_that_is_more_than_a_trunk_and_a_head_is_refused(tmp_path: Path, world: Path) -> None:
    named = described(
        "multimodal.towers.Trunk", architecture="test_efficientnet", weights=described("multimodal.towers.NoWeights"), size=32
    )
    run = tower_run(tmp_path / "run", world, Doubled, Trunk("test_efficientnet", NoWeights(0), size=32), named)
    with pytest.raises(InputError, match="Doubled gives other vectors than head\\(trunk\\(picture\\)\\)"):
        export(run, tmp_path / "export", world / "space", trust=HERE)


def test_an_architecture_that_a_package_registers_is_found_where_the_package_is_trusted(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", world, trained_head(), Cosine())
    export(run, tmp_path / "export", world / "space")
    manifest = json.loads((tmp_path / "export/manifest.json").read_text())
    trunk = load_export(tmp_path / "export").network.trunk
    trunk.architecture = "their_net"
    manifest["made_from"]["trunk"] = trunk.fingerprint
    manifest["config"]["architecture"]["trunk"]["init_args"]["architecture"] = "their_net"
    (tmp_path / "export/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "code").mkdir()
    (tmp_path / "code/their_nets.py").write_text(
        "import sys\nimport timm\nfrom timm.models import register_model\n\n"
        "def their_net(pretrained=False, **kwargs):\n    return timm.create_model('test_efficientnet', **kwargs)\n\n"
        "their_net.__module__ = __name__\nregister_model(their_net)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    with pytest.raises(InputError, match="timm has no architecture 'their_net'. If a package of yours registers it, add: --trust PACKAGE"):
        load_export(tmp_path / "export")
    assert load_export(tmp_path / "export", trust=["their_nets"]).embed_images(pixels(range(2))).shape == (2, DIM)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["preprocessing"]["mean"].__setitem__(0, 0.25),
        lambda config: config["preprocessing"].update(crop_share=0.5),
        lambda config: config["architecture"]["trunk"]["init_args"].update(num_maps=1),
    ],
)
def test_a_card_that_says_something_else_of_the_trunk_is_an_error_and_makes_no_other_vectors(
    tmp_path: Path, world: Path, change: Callable[[Any], object]
) -> None:
    export(write_run(tmp_path / "run", world, trained_head(), Cosine()), tmp_path / "export", world / "space")
    manifest = json.loads((tmp_path / "export/manifest.json").read_text())
    change(manifest["config"])
    (tmp_path / "export/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="what its manifest.json says of the trunk"):
        load_export(tmp_path / "export")


def test_a_text_tower_of_ones_own_is_exported_as_the_space_that_it_says(tmp_path: Path, world: Path) -> None:
    captions = described("multimodal.data.Captions")
    side = described(f"{__name__}.SaysItsSpace")
    run = write_run(tmp_path / "run", world, trained_head(), Cosine(), target_side=SaysItsSpace(), config_target_side=side, target=captions)
    export(run, tmp_path / "export", trust=HERE)
    assert load_export(tmp_path / "export").query.fingerprint == word_space().fingerprint


class SaysItsSpace(nn.Module):
    def forward(self, texts: list[str]) -> torch.Tensor:
        return torch.from_numpy(word_space().embed(texts))

    def as_space(self, folder: Path) -> WordSpace:
        return word_space()
