"""CLIP models of open_clip are trained by `fit`: whole, partly locked or by adapters. Their runs are exported as pretrained ones are."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from multimodal.cli import main
from multimodal.data import Pixels, Shuffled
from multimodal.data.decode import Decoded
from multimodal.errors import InputError
from multimodal.export.model import export, export_pretrained, load_export
from multimodal.export.to_open_clip import to_open_clip
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter
from multimodal.training.door import build, fit
from multimodal.training.validate import validate

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220), "yellow": (240, 210, 30)}
BOXES = {"left": (0, 0, 12, 30), "right": (22, 0, 34, 30), "top": (0, 0, 34, 10), "bottom": (0, 20, 34, 30)}
LONG = " and nothing else to be seen on the wide white paper of this page"
NUM_PAIRS = 64


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 drawings of a coloured bar at a place, with texts that say so; every eighth text is too long."""
    folder = tmp_path_factory.mktemp("drawings") / "set"
    rng = np.random.default_rng(0)
    with ShardWriter(folder, pairs_per_shard=32) as writer:
        for number in range(NUM_PAIRS):
            colour, place = list(COLOURS)[number % 4], list(BOXES)[number // 4 % 4]
            picture = Image.new("RGB", (40, 36), (250, 250, 250))
            shift = int(rng.integers(0, 6))
            box = {
                "left": (shift, 0, 12, 36),
                "right": (28, 0, 40 - shift, 36),
                "top": (0, shift, 40, 10),
                "bottom": (0, 26, 40, 36 - shift),
            }
            picture.paste(COLOURS[colour], box[place])
            encoded = io.BytesIO()
            picture.save(encoded, "PNG")
            text = f"a {colour} bar at the {place}" + LONG * (number % 8 == 0)
            writer.write(Pair(f"{number}.png", encoded.getvalue(), "png", (text,), group=f"group {number}"))
    return folder


@pytest.fixture
def command(tiny_clip: Path, drawings: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`command("clip_full", "run", ...)`: a small run by a shipped recipe."""

    def of(recipe: str, name: str, *more: str) -> list[str]:
        small = ["--data.batch_size", "16", "--data.validation_share", "0.2", "--data.split.held_out", "0.1"]
        short = ["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1", "--model.optimiser.warmup_steps", "1"]
        given = ["--data.shards", str(drawings), "--run", str(tmp_path / name), "--trainer.accelerator", "cpu", "--num_threads", "1"]
        model = [] if "--clip" in more else ["--clip", str(tiny_clip)]
        quick = [] if any(one.startswith("--preflight") for one in more) else ["--preflight.max_steps", "0"]
        return ["--config", f"experiment/{recipe}.yaml", *given, *small, *short, *model, *quick, *more]

    return of


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return state


def vectors_of_open_clip(folder: Path, shards: ShardSet, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        pictures = torch.stack([transform(Decoded(shards.image_bytes(id)).image) for id in range(8)])
        return model.eval().encode_image(pictures, normalize=True).numpy(), model.encode_text(tokenize(texts), normalize=True).numpy()


@pytest.mark.parametrize("recipe", ["clip_full", "clip_lora"])
def test_a_pretrained_model_is_tuned_exported_searched_and_loaded_by_open_clip(
    recipe: str, command: Callable[..., list[str]], tiny_clip: Path, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(command(recipe, "run", "--preflight.max_steps", "10", "--preflight.min_fall", "0.0001", "--model.optimiser.lr", "1e-3"))
    printed = capsys.readouterr().err
    assert re.search(r"^\d of 4\d texts are longer than the text tower reads", printed, re.MULTILINE)
    shown = validate(run)
    made = load_export(export(run, tmp_path / "export"))
    base = load_export(export_pretrained(str(tiny_clip), tmp_path / "base"))
    assert made.preprocessing == base.preprocessing and made.card.family == "contrastive"
    for part in ("trunk", "head"):
        assert made.card.architecture[part] == base.card.architecture[part], "the same kind of export, with other weights"
    assert made.manifest.counts == base.manifest.counts, "adapters are merged"
    assert "val/R@10" in shown
    assert main(["index", "--export", str(tmp_path / "export"), "--shards", str(drawings), "--output", str(tmp_path / "store")]) == 0
    assert main(["search", "--store", str(tmp_path / "store"), "red bar + left"]) == 0
    to_open_clip(tmp_path / "export", tmp_path / "folder")
    shards, texts = ShardSet(drawings), ["a red bar at the left", "blue"]
    pictures, rows = vectors_of_open_clip(tmp_path / "folder", shards, texts)
    ours = np.concatenate([made.embed_encoded([shards.image_bytes(id)]) for id in range(8)])
    assert np.abs(ours - pictures).max() < 1e-5
    assert np.abs(made.encode_text(texts) - rows).max() < 1e-5
    assert np.abs(made.encode_text(texts) - base.encode_text(texts)).max() > 1e-4, "it has learned something"


@pytest.fixture
def resumed(
    command: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]], tmp_path: Path
) -> Callable[..., tuple[Path, Path]]:
    """`resumed("clip_lora", ...)`: a whole run, and one that is killed after its fourth step and goes on."""

    def of(recipe: str, *more: str) -> tuple[Path, Path]:
        watched = ["--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "1", *more]
        whole = fit(command(recipe, "whole", *watched))
        witness.die_after(4)
        assert launch(command(recipe, "killed", *watched)) == [-signal.SIGKILL]
        witness.die_after(None)
        return whole, fit(command(recipe, "killed", *watched))

    return of


def assert_bit_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_bit_equal(one[name], other[name])
    elif isinstance(one, list | tuple):
        for each, its in zip(one, other, strict=True):
            assert_bit_equal(each, its)


def unlock(folder: Path, **after_steps: int) -> list[str]:
    """Options of a run whose parts begin locked."""
    part = {"class_path": "multimodal.training.Unlock", "init_args": {"after_steps": after_steps}}
    (folder / "unlock.yaml").write_text(json.dumps({"trainer": {"callbacks": [part]}}))
    return ["--config", str(folder / "unlock.yaml")]


def test_a_run_with_adapters_and_averaged_weights_that_is_killed_goes_on_bit_for_bit(resumed: Callable[..., tuple[Path, Path]]) -> None:
    assert_equal_runs(*resumed("clip_lora", "--config", "trainer/ema.yaml", "--model.optimiser.lr", "1e-3"))


def test_a_run_that_unlocks_a_tower_and_is_killed_goes_on_bit_for_bit(resumed: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    assert_equal_runs(*resumed("clip_full", *unlock(tmp_path, image_tower=4), "--model.optimiser.layer_decay", "0.5"))


def test_what_a_run_would_do_in_silence_is_told(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    short = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")
    fit(command("clip_full", "run", *short, *unlock(tmp_path, image_tower=1), "--model.objective", "multimodal.objectives.SigLip"))
    said = capsys.readouterr().err
    assert "nothing measures what is forgotten of tiny" in said
    assert "this model has no bias, so it was trained with Clip, and the run's objective is SigLip" in said
    assert "image_tower stays locked: the run has 1 steps, and it would move after 1" in said
    fit(command("clip_scratch", "scratch", *short))
    said = capsys.readouterr().err
    assert "forgotten" not in said and "trained with" not in said, "random weights know nothing"


def test_an_export_as_the_beginning_says_how_both_of_its_towers_are_taken(
    command: Callable[..., list[str]], tiny_clip: Path, tmp_path: Path
) -> None:
    made = export_pretrained(str(tiny_clip), tmp_path / "export")
    with pytest.raises(InputError, match="multimodal to-open-clip, and its folder as --clip"):
        fit(command("clip_full", "run", "--init_from", str(made)))
    with pytest.raises(InputError, match=f"multimodal to-open-clip --export {made} --output FOLDER"):
        fit(command("clip_full", "run", "--clip", str(made)))
    fit(command("clip_full", "run", "--clip", str(to_open_clip(made, tmp_path / "folder")), "--trainer.max_epochs", "1"))


def assert_equal_runs(whole: Path, killed: Path) -> None:
    one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, killed))
    assert one.keys() == two.keys()
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_bit_equal(one[part], two[part])
    assert (whole / "metrics.csv").read_text() == (killed / "metrics.csv").read_text()


def test_a_locked_part_does_not_move_before_its_step_and_moves_after_it(
    command: Callable[..., list[str]], tiny_clip: Path, tmp_path: Path, launch: Callable[..., list[int]]
) -> None:
    base = {f"image_tower.trunk.model.{name[7:]}": one for name, one in load_file(tiny_clip / "open_clip_model.safetensors").items()}
    runs = {}
    for name, steps in (("never", 99), ("later", 4)):
        runs[name] = weights(fit(command("clip_full", name, *unlock(tmp_path, image_tower=steps))))
    towers = [name for name in runs["never"] if name in base]
    assert towers and all(torch.equal(runs["never"][name], base[name]) for name in towers)
    assert not torch.equal(runs["later"][towers[0]], base[towers[0]])
    assert not torch.equal(runs["never"]["target_side.network.text_projection"], runs["later"]["target_side.network.text_projection"])
    assert launch(command("clip_full", "ranks", *unlock(tmp_path, image_tower=4)), num_ranks=2) == [0, 0]
    for name, tensor in weights(tmp_path / "ranks").items():
        if not name.endswith("in_proj_bias"):  # that of keys has no effect, and AdamW makes steps of its gradient's rounding
            torch.testing.assert_close(tensor, runs["later"][name], atol=1e-5, rtol=0)


def test_a_locked_image_tower_keeps_every_vector_and_the_objective_begins_at_the_models_scale(
    command: Callable[..., list[str]], tiny_clip: Path, drawings: Path, tmp_path: Path
) -> None:
    run = fit(command("clip_lit", "run", "--trainer.max_epochs", "1", "--model.optimiser.rates", '{"objective": 1.0e-6}'))
    made = load_export(export(run, tmp_path / "export"))
    base = load_export(export_pretrained(str(tiny_clip), tmp_path / "base"))
    assert made.network.trunk.fingerprint == base.network.trunk.fingerprint
    assert made.network.objective.log_scale.exp().item() == pytest.approx(20, abs=1e-3)  # type: ignore[operator, union-attr]
    between = load_export(export(run, tmp_path / "between", interpolate=tmp_path / "base", alpha=0.25))
    rows = [load_file(one.path / "query" / "model.safetensors")["text_projection"] for one in (base, made, between)]
    torch.testing.assert_close(rows[2], 0.75 * rows[0] + 0.25 * rows[1])
    assert not torch.equal(rows[0], rows[1])
    assert not {"image_tower.trunk.model.proj"} & {name for name, one in weights(run).items() if not torch.isfinite(one).all()}


def test_a_run_is_exported_and_validated_from_its_own_folder_alone(
    command: Callable[..., list[str]], tiny_clip: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_clip, moved)
    run = fit(command("clip_full", "run", "--trainer.max_epochs", "1", "--clip", str(moved)))
    shutil.rmtree(moved)
    assert validate(run)["val/num_pairs"] > 0
    export(run, tmp_path / "export")
    again = fit(command("clip_full", "run", "--trainer.max_epochs", "1"))  # the same weights, in another folder
    assert again == run
    with pytest.raises(InputError, match="clip image_tower was .* and is"):
        other = tmp_path / "other"
        shutil.copytree(tiny_clip, other)
        state = load_file(other / "open_clip_model.safetensors")
        save_file({**state, "logit_scale": torch.tensor(1.0)}, other / "open_clip_model.safetensors")
        fit(command("clip_full", "run", "--trainer.max_epochs", "1", "--clip", str(other)))
    shutil.rmtree(run / "models")
    with pytest.raises(InputError, match="has no models/"):
        export(run, tmp_path / "export")


def test_a_model_is_trained_from_random_weights(command: Callable[..., list[str]], tiny_clip: Path, tmp_path: Path) -> None:
    run = fit(command("clip_scratch", "run", "--trainer.max_epochs", "1", "--seed_everything", "5"))  # the model was made with seed 0
    made = load_export(export(run, tmp_path / "export"))
    trained = made.network.trunk.model.proj
    assert not torch.allclose(trained, load_file(tiny_clip / "open_clip_model.safetensors")["visual.proj"], atol=1e-2)  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", ["clip_full", "clip_lora"])
def test_half_precision_micro_batches_and_checkpointing_go_together(recipe: str, command: Callable[..., list[str]], tmp_path: Path) -> None:
    checkpointing = [f"--model.{part}.checkpointing" for part in ("image_tower.init_args.trunk.init_args", "target_side.init_args")]
    more = [
        "--trainer.precision",
        "bf16-mixed",
        "--model.micro_batch_size",
        "4",
        *(part for one in checkpointing for part in (one, "true")),
    ]
    plain, less = fit(command(recipe, "plain")), fit(command(recipe, "less", *more))
    losses = [[float(row["val/loss"]) for row in csv.DictReader((run / "metrics.csv").open()) if row["val/loss"]] for run in (plain, less)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_pictures_are_prepared_as_the_model_has_it(command: Callable[..., list[str]]) -> None:
    _, data = build(command("clip_full", "run"))
    assert data.image == Pixels(32, (0.9, 1.0), flip=False, crop_share=1.0, resize="squash")
    _, data = build(
        command("clip_full", "run", "--data.target", "multimodal.data.Shuffled", "--data.target.side", "multimodal.data.TowerPixels")
    )
    assert data.target == Shuffled(Pixels(32, (0.9, 1.0), flip=False, crop_share=1.0, resize="squash"))


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        ("topic_emoji", [], "--clip .*: the recipe has no tower of a CLIP model"),
        (
            "clip_full",
            ["--config", "UNLOCK", "--model.image_tower.init_args.trunk.init_args.tuning", "multimodal.towers.Locked"],
            "frozen by",
        ),
        ("clip_full", ["--data.target", "multimodal.data.TowerPixels", "--model.image_tower", "torch.nn.Identity"], "TowerPixels takes"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    recipe: str, more: list[str], message: str, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    more = [unlock(tmp_path, image_tower=4)[1] if one == "UNLOCK" else one for one in more]
    with pytest.raises(InputError, match=message):
        fit(command(recipe, "run", *more))


def test_what_a_model_could_do_is_measured_by_its_own_towers(command: Callable[..., list[str]], drawings: Path) -> None:
    said = r"before the first step val/foreign_R@10 is \d+\.\d, no better than chance \(15.6\), so there is nothing to forget"
    with pytest.raises(InputError, match=said):  # random weights
        fit(command("clip_full", "run", "--forgetting.pairs", str(drawings), "--forgetting.part", "all"))


def test_a_model_that_is_tuned_carelessly_is_stopped_before_it_forgets_all(
    command: Callable[..., list[str]], drawings: Path, tmp_path: Path
) -> None:
    learning = ["--model.optimiser.lr", "1e-3", "--trainer.max_epochs", "20", "--data.validation_share", "0"]
    to_open_clip(export(fit(command("clip_full", "able", *learning)), tmp_path / "export"), tmp_path / "able_clip")
    measured = ["--clip", str(tmp_path / "able_clip"), "--forgetting.pairs", str(drawings), "--forgetting.part", "all"]
    shuffled = ["--data.target", "multimodal.data.Shuffled", "--data.target.side", "multimodal.data.Captions"]
    with pytest.raises(InputError, match=r"stopped after epoch \d, val/kept is [\d.]+, below forgetting.min_kept=50: val/foreign_R@10"):
        fit(command("clip_full", "careless", *measured, *shuffled, "--model.optimiser.lr", "1e-1"))
