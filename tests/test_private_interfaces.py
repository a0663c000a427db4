"""What is used of other packages without being promised by them. Each has an upper bound in pyproject.toml.

Where one of these fails, a new release took away or changed what is named in the message: look at the file that it names, then raise the
bound.
"""

from __future__ import annotations

import multiprocessing
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def requirement(name: str, extra: str) -> str:
    given = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"][extra]
    [found] = [one for one in given if one.partition(">")[0] == name]
    return str(found)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("torch", "train"),
        ("torch", "resize"),
        ("wandb", "train"),
        ("lightning", "train"),
        ("open_clip_torch", "train"),
        ("peft", "train"),
        ("libzim", "zim"),
    ],
)
def test_a_package_of_which_more_is_used_than_it_promises_has_an_upper_bound(name: str, extra: str) -> None:
    assert ",<" in requirement(name, extra)


def test_python_has_an_upper_bound() -> None:
    """For `multiprocessing.heap.Arena`."""
    assert ",<3.14" in tomllib.loads(PROJECT.read_text())["project"]["requires-python"]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torch_resizes_by_a_size_and_steps_into_memory(interpolation: str) -> None:
    """multimodal/data/decode.py: torch._C._nn._upsample_bilinear2d_aa, ..bicubic2d_aa(pixels, size, align_corners, *steps, out=)."""
    torch = pytest.importorskip("torch")
    from multimodal.data.decode import ANTIALIASED

    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 40, 60), np.uint8))
    wanted = torch.nn.functional.interpolate(pixels, (20, 24), mode=interpolation, antialias=True)
    made = torch.empty_like(wanted)
    ANTIALIASED[interpolation](pixels, (20, 24), False, 20 / 40, 24 / 60, out=made)
    changed = f"torch {torch.__version__}: _upsample_{interpolation}2d_aa changed; multimodal/data/decode.py calls it"
    assert torch.equal(made, wanted), changed
    fewer = ANTIALIASED[interpolation](pixels, (16, 20), False, 20 / 40, 24 / 60)  # the steps are taken as given, whatever the size
    assert (fewer.int() - wanted[:, :, :16, :20].int()).abs().max() <= 1, changed


@pytest.mark.parametrize("mode", ["bicubic", "lanczos"])
def test_torch_resizes_decoded_pictures_into_memory(mode: str) -> None:
    """data_prep/pictures/resize.py: torch.ops.aten._upsample_bicubic2d_aa.out, _upsample_lanczos2d_aa.out."""
    torch = pytest.importorskip("torch")
    if mode == "lanczos" and not hasattr(torch.ops.aten, "_upsample_lanczos2d_aa"):
        pytest.skip(f"the extra `resize` is not installed: it needs {requirement('torch', 'resize')}, and this is {torch.__version__}")
    resize = getattr(torch.ops.aten, f"_upsample_{mode}2d_aa")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 40, 60), np.uint8))
    wanted = torch.nn.functional.interpolate(pixels, (20, 24), mode=mode, align_corners=False, antialias=True)
    made = torch.empty_like(wanted)
    resize.out(pixels, [20, 24], False, 20 / 40, 24 / 60, out=made)
    assert torch.equal(made, wanted), f"torch {torch.__version__}: _upsample_{mode}2d_aa.out changed; data_prep/pictures/resize.py calls it"


def test_a_buffer_is_shared_with_a_process_that_was_spawned() -> None:
    """multimodal/data/buffers.py: multiprocessing.heap.Arena has `buffer`, starts as zeros, and pickles as the memory itself."""
    from multimodal.data.buffers import Buffers

    buffers = Buffers(2, 5)
    assert not any(buffers.memory(number).any() for number in range(2))
    process = multiprocessing.get_context("spawn").Process(target=fill, args=(buffers,))
    process.start()
    process.join()
    assert process.exitcode == 0, "multiprocessing.heap.Arena no longer pickles to another process; multimodal/data/buffers.py lies on it"
    assert buffers.memory(1).tolist() == [0, 1, 2, 3, 4] and not buffers.memory(0).any()


def fill(buffers: Any) -> None:
    buffers.memory(1)[:] = np.arange(5)


def test_torch_counts_the_changes_of_a_tensor() -> None:
    """multimodal/training/micro_batches.py refuses a tower whose buffers change: Tensor._version."""
    buffer = pytest.importorskip("torch").zeros(3)
    before = buffer._version
    assert buffer.sum() == 0 and buffer._version == before
    buffer.add_(1)
    assert buffer._version > before


def test_every_dropout_of_torch_is_known() -> None:
    """multimodal/training/preflight.py turns them off; torch's own name for them all, `_DropoutNd`, is not promised."""
    nn = pytest.importorskip("torch").nn
    pytest.importorskip("lightning")
    from multimodal.training.preflight import DROPOUTS

    assert {kind.__name__ for kind in DROPOUTS} == {name for name in dir(nn) if re.fullmatch(r"\w*Dropout(\dd)?", name)}


def test_libzim_gives_its_entries_by_number(tmp_path: Path) -> None:
    """data_prep/wiki/zim.py: libzim.reader.Archive._get_entry_by_id(number), 0 <= number < all_entry_count, each entry once."""
    pytest.importorskip("libzim", reason="the extra `zim` is not installed")
    from libzim.reader import Archive
    from libzim.writer import Creator, Hint, Item, StringProvider

    class Page(Item):  # type: ignore[misc]
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def get_path(self) -> str:
            return self.path

        def get_title(self) -> str:
            return self.path.upper()

        def get_mimetype(self) -> str:
            return "text/html"

        def get_contentprovider(self) -> Any:
            return StringProvider(f"<p>{self.path}</p>")

        def get_hints(self) -> dict[Any, int]:
            return {Hint.FRONT_ARTICLE: True}

    names = ["moon", "moss", "tide"]
    with Creator(str(tmp_path / "a.zim")) as creator:
        creator.set_mainpath(names[0])
        for name in names:
            creator.add_item(Page(name))
    archive = Archive(tmp_path / "a.zim")
    assert hasattr(archive, "_get_entry_by_id"), "libzim has no _get_entry_by_id any more; data_prep/wiki/zim.py goes through a file by it"
    entries = [archive._get_entry_by_id(number) for number in range(archive.all_entry_count)]
    assert [entry.path for entry in entries if entry.path in names] == names
    assert len({(entry.path, entry.title) for entry in entries}) == len(entries)


def test_wandbs_records_have_the_fields_that_are_read() -> None:
    """multimodal/training/offline_wandb.py: wandb.proto.wandb_internal_pb2.Record, and its own format of a run's file."""
    pytest.importorskip("wandb", reason="the extra `train` is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    logged, summed = Record(), Record()
    item = logged.history.item.add()
    item.nested_key.extend(["val", "R@10"])
    item.value_json = "0.5"
    summed.metric.name, summed.metric.summary.max = "val/R@10", True
    read = Record.FromString(logged.SerializeToString())
    assert read.HasField("history") and not read.HasField("exit")
    assert [(list(one.nested_key), one.value_json) for one in read.history.item] == [(["val", "R@10"], "0.5")]
    assert Record.FromString(summed.SerializeToString()).metric.summary.max
    for path in ("run.config.update", "config.update", "history.item", "metric.glob_name", "metric.summary.min", "exit"):
        value: Any = read
        for name in path.split("."):
            assert hasattr(value, name), f"wandb: Record.{path} is gone; multimodal/training/offline_wandb.py reads it"
            value = getattr(value, name)


@pytest.mark.parametrize(("strategy", "copies"), [("ddp_spawn", True), ("ddp", False)])
def test_lightning_says_which_strategies_copy_one_process(strategy: str, copies: bool) -> None:
    """multimodal/training/door.py: lightning.pytorch.strategies.launchers._MultiProcessingLauncher."""
    lightning = pytest.importorskip("lightning")
    from multimodal.training.door import _MultiProcessingLauncher

    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_progress_bar=False)
    assert isinstance(trainer.strategy.launcher, _MultiProcessingLauncher) == copies


def test_open_clips_text_tower_slices_its_positions_and_masks_with_a_buffer() -> None:
    """For `multimodal.text.clip.OpenClipSpace`, which gives a copy of the tower a smaller mask."""
    open_clip = pytest.importorskip("open_clip", reason="needs the train extra")
    text = {"layers": 1, "width": 64, "heads": 1, "vocab_size": 9, "context_length": 7}
    tower = open_clip.CustomTextCLIP(8, {"layers": 1, "width": 64, "patch_size": 4, "image_size": 8}, text).text
    assert "attn_mask" in tower._buffers and tower._buffers["attn_mask"].shape == (7, 7)
    assert tower.positional_embedding.shape == (7, 64)


def test_peft_takes_another_adapter_of_attention_and_keeps_its_parts_where_they_were() -> None:
    """multimodal/towers/tuning.py: LoraConfig._register_custom_module; MultiheadAttention.get_delta_weight, _restore_weights."""
    peft = pytest.importorskip("peft", reason="needs the train extra")
    import torch

    from multimodal.towers.tuning import _adapted_attention

    network = torch.nn.Sequential(torch.nn.MultiheadAttention(8, 2))
    config = peft.LoraConfig(r=2, target_modules=["0"])
    config._register_custom_module({torch.nn.MultiheadAttention: _adapted_attention()})
    peft.inject_adapter_in_model(config, network)
    assert isinstance(network[0], _adapted_attention()) and hasattr(network[0], "_restore_weights")
    assert {name: tuple(sum.shape) for name, sum in network[0].sums().items()} == {
        "in_proj_weight": (24, 8),
        "out_proj.base_layer.weight": (8, 8),
    }
