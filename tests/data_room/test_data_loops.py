"""The loops of docs/loader.md, as they are printed there: a bare one, and open_clip's own."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from multimodal.data import Captions, PairLoader, Pixels
from multimodal.pairs import Pair
from multimodal.shards import ColumnWriter, ShardSet, ShardWriter, Split

PAGE = Path(__file__).resolve().parents[2] / "docs" / "loader.md"
NUM, NOT_A_PICTURE, DIM = 60, 17, 5


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """What the page's Python defines."""
    defined: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(block, defined)
    return defined


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """60 pairs in shards of 25, 25 and 10; one picture is none."""
    path, generator = tmp_path_factory.mktemp("loops") / "set", np.random.default_rng(0)
    with ShardWriter(path, pairs_per_shard=25) as writer:
        for number in range(NUM):
            encoded = io.BytesIO()
            Image.fromarray(generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(encoded, "PNG")
            image = b"no picture" if number == NOT_A_PICTURE else encoded.getvalue()
            writer.write(Pair(f"{number}.png", image, "png", (f"thing {number}",), group=str(number), split="train"))
    shards = ShardSet(path)
    with ColumnWriter(shards, "words", DIM, "pair", "float32", {}, {}) as writer:
        for shard in writer.missing():
            writer.write(shard, generator.normal(size=(shard.num_pairs, DIM)).astype(np.float32), None)
    return shards


class Tower(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3 * 32 * 32, 8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image.flatten(1) / 255)


def test_a_bare_loop_that_was_killed_takes_the_steps_that_were_left(
    page: dict[str, Any], shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def train(saved: str, num_workers: int = 0) -> tuple[Iterator[float], nn.Module]:
        torch.manual_seed(0)
        tower = Tower()
        return page["train"](shards, tower, nn.Linear(DIM, 8), Path(saved), num_workers=num_workers), tower

    steps, tower = train("whole.pt")
    whole = list(steps)
    assert len(whole) == 2 * -(-NUM // 8)
    assert Path("bad.csv").read_text().splitlines()[1].startswith(f'set/000000,{shards.key(NOT_A_PICTURE)},"not an image')
    for num_done in (8, 11):  # between the two epochs, in the second
        saved = f"killed{num_done}.pt"
        assert list(islice(train(saved)[0], num_done)) == whole[:num_done]
        steps, other = train(saved, num_workers=num_done % 2)
        assert list(steps) == whole[num_done:]
        assert torch.equal(tower.weight, other.weight)


class Stopped(Exception):
    pass


def test_open_clips_own_loop_sees_every_pair_once_an_epoch_and_goes_on_where_it_was_stopped(page: dict[str, Any], shards: ShardSet) -> None:
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed (extra dev)")
    loop = pytest.importorskip("open_clip_train.train", reason="open_clip's training loop is not installed (extra dev)")
    torch.manual_seed(0)
    vision = open_clip.CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=16, image_size=32)
    text = open_clip.CLIPTextCfg(context_length=8, width=32, heads=2, layers=1)
    model = open_clip.CLIP(8, vision, text, output_dict=True)
    args = SimpleNamespace(
        **{"device": "cpu", "precision": "fp32", "distill": False, "accum_freq": 1, "skip_scheduler": True, "horovod": False},
        **{"grad_clip_norm": None, "log_every_n_steps": 1, "rank": 0, "local_rank": 0, "world_size": 1, "batch_size": 8, "wandb": False},
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokenize, seen, states = open_clip.SimpleTokenizer(context_length=8), [], []

    def tokenizer(texts: list[str]) -> torch.Tensor:
        seen.append(texts)
        return tokenize(texts)

    def run(epoch: int, state: dict[str, Any] | None, stop_after: int | None = None) -> list[list[str]]:
        loader = PairLoader(shards, Split().ids(shards, "train"), Pixels(32), Captions(), batch_size=8, seed=0)
        if state is not None:
            loader.load_state_dict(state)

        def after_step(*_: Any) -> None:
            states.append(loader.state_dict())
            if len(seen) == stop_after:
                raise Stopped

        seen.clear()
        hook = optimizer.register_step_post_hook(after_step)
        data = {"train": page["ForOpenClip"](loader, tokenizer, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)}
        try:
            loop.train_one_epoch(model, data, open_clip.ClipLoss(), epoch, optimizer, None, None, None, args)
        except Stopped:
            pass
        finally:
            hook.remove()
        return list(seen)

    first = run(epoch=0, state=None)
    second = run(epoch=1, state=None)
    everything = Counter(f"thing {number}" for number in range(NUM) if number != NOT_A_PICTURE)
    for epoch in (first, second):
        assert len(epoch) == -(-NUM // 8) and Counter(text for texts in epoch for text in texts) == everything
    assert first != second
    assert run(epoch=1, state=states[len(first) - 1], stop_after=3) == second[:3]
    assert run(epoch=1, state=states[-1]) == second[3:]
