"""Runs that learn from labels: exact on several ranks and after a kill, and stopped where the embedding collapses."""

from __future__ import annotations

import csv
import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from multimodal.data import ColumnRows, Labels
from multimodal.errors import InputError
from multimodal.export.run import read_embeddings
from multimodal.objectives import Triplet
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter, Split
from multimodal.shards.columns import Column
from multimodal.towers import Head
from multimodal.training import HeldOut, PairData, PairModule
from multimodal.training.door import fit
from multimodal.training.panels import Triplets

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

NUM, NUM_LABELS, DIM = 90, 7, 5

RECIPE = f"""
model:
  image_tower: {{class_path: multimodal.towers.Head, init_args: {{dim_in: {DIM}, dim_out: 3}}}}
  target_side: {{class_path: torch.nn.Identity}}
  objective:
    class_path: multimodal.objectives.Triplet
    init_args:
      margin: 1.0
      miner:
        class_path: multimodal.objectives.Schedule
        init_args:
          begin: [3]
          miners: [{{class_path: multimodal.objectives.SemiHard}}, {{class_path: multimodal.objectives.BatchHard}}]
  optimiser: {{lr: 1.0e-2, warmup_steps: 2}}
data:
  image: {{class_path: multimodal.data.ColumnRows, init_args: {{name: features}}}}
  target: {{class_path: multimodal.data.Labels, init_args: {{name: identity, seen: true}}}}
  order: {{class_path: multimodal.data.PxK, init_args: {{label: identity, labels: 4, pictures: 3}}}}
  batch_size: 12
  validation_share: 0.2
preflight: {{export: false, max_steps: 0}}
trainer:
  accelerator: cpu
  max_epochs: 2
  log_every_n_steps: 1
  callbacks: [{{class_path: multimodal.training.CollapseAlarm, init_args: {{every_n_steps: 2}}}}]
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 pictures without texts of seven people, unequally many of each; features in which an identity can be seen."""
    from tests.training.conftest import write_column

    folder = tmp_path_factory.mktemp("labelled") / "set"
    rng = np.random.default_rng(0)
    labels = rng.choice(NUM_LABELS, NUM, p=np.arange(1, NUM_LABELS + 1) / 28)
    with ShardWriter(folder, pairs_per_shard=40) as writer:
        for number, label in enumerate(labels.tolist()):
            encoded = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(encoded, "PNG")
            writer.write(Pair(f"{number}.png", encoded.getvalue(), "png", (), f"group {number}", metadata={"identity": f"{label:04}"}))
    write_column(ShardSet(folder), "noise", rng.normal(size=(NUM, DIM)))
    write_column(ShardSet(folder), "features", rng.normal(size=(NUM_LABELS, DIM))[labels] + 0.7 * rng.normal(size=(NUM, DIM)))
    return folder


@pytest.fixture
def command(labelled: Path, tmp_path: Path, witness: Witnessed) -> Callable[..., list[str]]:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return lambda name, *more: ["--config", str(path), "--data.shards", str(labelled), "--run", str(tmp_path / name), *more]


def data_of(labelled: Path) -> PairData:
    data = PairData(labelled, ColumnRows("features"), Labels("identity", seen=True), Split(), validation_share=0.2)
    data.setup("fit")
    return data


def test_three_ranks_that_are_killed_and_one_that_goes_on_train_what_one_trains_on_every_picture_once(
    command: Callable[..., list[str]], labelled: Path, witness: Witnessed, launch: Callable[..., list[int]], tmp_path: Path
) -> None:
    more = "--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "2"
    one = fit(command("one", *more))
    (expected,) = witness.take()
    witness.die_after(5)
    assert launch(command("three", *more), num_ranks=3) == [-signal.SIGKILL] * 3
    killed = witness.take(3)
    witness.die_after(None)
    fit(command("three", *more))
    (after,) = witness.take()
    assert [step["step"] for step in after] == [step["step"] for step in expected[4:]]  # from the checkpoint of step 4 on
    for step, *ranks in zip(expected, *killed, strict=False):
        assert sorted(step["ids"]) == sorted(id for rank in ranks for id in rank["ids"])
    assert [step["ids"] for step in after] == [step["ids"] for step in expected[4:]]
    data = data_of(labelled)
    for epoch in (0, 1):
        assert sorted(id for step in expected if step["epoch"] == epoch for id in step["ids"]) == data.train_ids.tolist()
    weights = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in (one, tmp_path / "three")]
    assert weights[0]["objective.step"] == weights[1]["objective.step"] == expected[-1]["step"] - 1
    for key, value in weights[0].items():
        # The order of sums differs, and Adam divides by the root of a gradient's square: where it is near zero its rounding counts. So it
        # is for the bias, which moves all rows alike: distances do not depend on it.
        if not key.endswith("bias"):
            torch.testing.assert_close(value, weights[1][key], rtol=1e-3, atol=1e-4)


def figures(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return [*csv.DictReader(file)]


def test_shares_of_triplets_and_the_room_of_the_embedding_are_in_the_metrics(command: Callable[..., list[str]]) -> None:
    rows = [row for row in figures(fit(command("run"))) if row["train/loss"]]
    for row in rows:
        shares = [float(row[f"train/share_{kind}"]) for kind in ("easy", "semi_hard", "hard")]
        assert sum(shares) == pytest.approx(1)
    measured = [row for row in rows if row["train/effective_rank"]]
    assert [int(row["step"]) for row in measured] == [0, *range(1, len(rows), 2)]
    assert all(1 <= float(row["train/effective_rank"]) <= 3 and float(row["train/spread"]) > 0 for row in measured)


def test_a_collapsing_run_is_stopped_with_the_cause_and_the_remedy(command: Callable[..., list[str]]) -> None:
    """Nothing in these features tells the label, so the hardest triplets cost more than the margin for as long as rows are apart."""
    more = [
        *("--data.image.init_args.name", "noise", "--data.validation_share", "0", "--trainer.max_epochs", "10"),
        *("--model.optimiser.lr", "0.1", "--model.optimiser.warmup_steps", "0"),
        *("--trainer.callbacks.patience", "10"),
    ]
    with pytest.raises(InputError, match="has collapsed to a point.*BatchHard cost .* more than equal rows.*Begin with .*SemiHard"):
        fit(command("collapses", "--model.objective.init_args.miner", "multimodal.objectives.BatchHard", *more))
    fit(command("trains", "--model.objective.init_args.miner", "multimodal.objectives.SemiHard", *more))


def test_the_panel_shows_the_hardest_triplets_of_a_validation(labelled: Path) -> None:
    data = data_of(labelled)
    module = PairModule(Head(DIM, 3), nn.Identity(), Triplet())
    show = Triplets(triplets=4, size_px=8).open(module, data)
    assert show is not None and data.classes is not None
    batches = [*data.val_dataloader()]
    ids = np.concatenate([batch.id[batch.valid].numpy() for batch in batches])
    classes = np.concatenate([batch.target[batch.valid].numpy() for batch in batches])
    rows = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    view = show(HeldOut(ids, rows, classes))
    assert len(view.rows) == len(view.pictures) == 4 and len({shown.picture.size for shown in view.pictures}) == 1
    name_of = {id: data.classes.names[number] for id, number in zip(ids.tolist(), classes.tolist(), strict=True)}
    for anchor, positive, negative, own, other, far, near in view.rows:
        assert name_of[anchor] == name_of[positive] == own and name_of[negative] == other != own  # type: ignore[index]
        assert anchor != positive and far > near  # type: ignore[operator]


def test_embeddings_are_kept_at_round_steps_and_are_those_of_the_weights(command: Callable[..., list[str]], labelled: Path) -> None:
    keep = [
        "--trainer.callbacks+=multimodal.training.KeepEmbeddings",
        "--trainer.callbacks.part",
        "train",
        "--trainer.callbacks.pictures",
        "9",
    ]
    run = fit(command("run", *keep, "--trainer.max_epochs", "3"))
    kept = read_embeddings(run)
    last = int(kept.steps[-1])
    assert kept.steps.tolist() == [0, 10, 15, last] and kept.rows.shape == (4, 9, 3) and 15 < last < 20
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    head = Head(DIM, 3)
    head.load_state_dict({name.removeprefix("image_tower."): one for name, one in state["state_dict"].items() if "image_tower" in name})
    rows = Column.of(ShardSet(labelled), "features").take(kept.ids)
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(rows)).numpy(), kept.rows[-1], atol=1e-5)
    plain = fit(command("plain", "--trainer.max_epochs", "3"))
    same = torch.load(plain / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(one, same[name]) for name, one in state["state_dict"].items()), "to keep them changes nothing"
    longer = read_embeddings(fit(command("run", *keep, "--trainer.max_epochs", "4", "--extend")))
    assert longer.steps.tolist() == [0, 10, 15, last, 20, longer.steps[-1]]
    np.testing.assert_array_equal(longer.rows[:4], kept.rows)
    with pytest.raises(InputError, match="plain: has no embeddings.npz. Train it with: --trainer.callbacks"):
        read_embeddings(plain)


def test_a_run_that_diverges_under_the_alarm_ends_with_the_reason(command: Callable[..., list[str]]) -> None:
    rate = ("--model.optimiser.lr", "1e30", "--model.optimiser.warmup_steps", "0", "--trainer.log_every_n_steps", "50")
    with pytest.raises(InputError, match="diverged"):
        fit(command("diverges", *rate))
