from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from multimodal.training.door import fit

TOWER = """
model:
  image_tower:
    class_path: multimodal.towers.ImageTower
    init_args:
      trunk:
        class_path: multimodal.towers.Trunk
        init_args: {architecture: mobilenetv3_small_050, weights: multimodal.towers.NoWeights, frozen: false, size: 32}
      head: {class_path: multimodal.towers.Head, init_args: {dim_in: 1024, dim_out: 4}}
data:
  image: {class_path: multimodal.data.Pixels, init_args: {size: 32}}
"""


def test_pictures_train_a_trunk_from_nothing_and_workers_change_nothing(arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "pixels.yaml").write_text(TOWER)
    small = [
        "--config",
        f"{tmp_path}/pixels.yaml",
        "--trainer.max_epochs",
        "1",
        "--preflight.max_steps",
        "0",
        "--data.validation_share",
        "0",
    ]
    runs = [fit(arguments(f"workers{num}", *small, "--data.num_workers", num)) for num in ("0", "1")]
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert any("bn" in key for key in one)
