"""Several captions a picture: which one a step sees is a function of (seed, epoch, id), after a kill and on any number of ranks too."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from multimodal.data import random_words
from multimodal.data.loader import TARGET
from multimodal.pairs import Pair
from multimodal.shards import ColumnWriter, ShardSet, ShardWriter
from multimodal.training.door import fit
from tests.training.conftest import write_column

SEED, EPOCHS, NUM = 5, 4, 40
DRAWN = '''
import json, os, signal
from pathlib import Path
from lightning.pytorch.callbacks import Callback

class Drawn(Callback):
    """Writes down which text each pair has in each epoch, and ends the process after the step that the file `dies` names."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        with open(self.folder / f"rank{trainer.global_rank}", "a") as file:
            for id, text, ok in zip(batch.id.tolist(), batch.target, batch.valid.tolist()):
                if ok:
                    file.write(json.dumps([trainer.current_epoch, id, text if isinstance(text, str) else text.tolist()]) + "\\n")
        dies = self.folder / "dies"
        if dies.is_file() and dies.read_text() == str(trainer.global_step):
            os.kill(os.getpid(), signal.SIGKILL)
'''


class Letters(nn.Module):
    """Strings to vectors, by how often each letter is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(26, 3)

    def forward(self, texts: Sequence[str]) -> Tensor:
        counts = torch.tensor([[text.count(chr(97 + letter)) for letter in range(26)] for text in texts], dtype=torch.float32)
        return self.output(counts)


CAPTIONS: dict[str, Any] = {"side": "multimodal.data.Captions", "tower": f"{__name__}.Letters"}
ROWS: dict[str, Any] = {
    "side": {"class_path": "multimodal.data.ColumnRows", "init_args": {"name": "of_texts"}},
    "tower": {"class_path": "multimodal.towers.Head", "init_args": {"dim_in": 2, "dim_out": 3}},
}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """40 pairs of one to five captions, and a column whose rows are (id, number of the caption)."""
    folder, rng = tmp_path_factory.mktemp("captioned") / "set", np.random.default_rng(0)
    with ShardWriter(folder, pairs_per_shard=16) as writer:
        for number in range(NUM):
            encoded = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(encoded, "PNG")
            texts = tuple(f"thing {number} told {'abcde'[j]}" for j in range(1 + number % 5))
            writer.write(Pair(f"{number}.png", encoded.getvalue(), "png", texts, group=f"{number}"))
    shards = ShardSet(folder)
    write_column(shards, "features", rng.normal(size=(NUM, 6)))
    with ColumnWriter(shards, "of_texts", 2, "text", "float32", {}, {"test": "texts"}) as writer:
        for shard in writer.missing():
            counts = np.array([len(shards.texts(id)) for id in shard.ids])
            rows = [(id, j) for id, num in zip(shard.ids, counts.tolist(), strict=True) for j in range(num)]
            writer.write(shard, np.array(rows, np.float32), counts)
    return shards


@pytest.mark.parametrize("text", [CAPTIONS, ROWS], ids=["captions", "rows"])
def test_the_caption_of_a_step_is_drawn_by_seed_epoch_and_id(
    captioned: ShardSet,
    launch: Callable[..., list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: dict[str, Any],
) -> None:
    (tmp_path / "drawn.py").write_text(DRAWN)
    monkeypatch.syspath_prepend(tmp_path)
    head = {"class_path": "multimodal.towers.Head", "init_args": {"dim_in": 6, "dim_out": 3}}
    recipe = {
        "model": {"image_tower": head, "target_side": text["tower"], "objective": "multimodal.objectives.Clip"},
        "data": {
            "image": {"class_path": "multimodal.data.ColumnRows", "init_args": {"name": "features"}},
            "target": text["side"],
            "batch_size": 8,
        },
        "preflight": {"export": False, "max_steps": 0},
        "trainer": {"accelerator": "cpu", "max_epochs": EPOCHS},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))

    def command(name: str) -> list[str]:
        (tmp_path / f"{name}.drawn").mkdir(exist_ok=True)
        own = ["--trainer.callbacks+=drawn.Drawn", "--trainer.callbacks.folder", str(tmp_path / f"{name}.drawn")]
        common = ["--config", str(tmp_path / "recipe.json"), "--data.shards", str(captioned.path), "--seed_everything", str(SEED)]
        return [*common, "--run", str(tmp_path / name), "--checkpoint_every_n_steps", "1", *own]

    def drawn(name: str) -> dict[tuple[int, int], Any]:
        lines = [json.loads(line) for path in (tmp_path / f"{name}.drawn").glob("rank*") for line in path.read_text().splitlines()]
        found = {(epoch, id): of for epoch, id, of in lines}
        assert all(found[epoch, id] == of for epoch, id, of in lines)  # a step that was taken again saw the same
        return found

    fit(command("whole"))
    seen, numbers = drawn("whole"), set()
    for (epoch, id), of in seen.items():
        texts = captioned.texts(id)
        number = int(random_words(SEED, epoch, np.array([id]), TARGET)[0]) % len(texts)
        assert of == (texts[number] if isinstance(of, str) else [id, number])
        numbers.add((id, number))
    assert len(seen) == EPOCHS * len({id for _, id in seen})
    assert len(numbers) > 1.5 * len({id for _, id in seen})  # not the first one every time

    killed = command("killed")
    (tmp_path / "killed.drawn" / "dies").write_text("7")  # inside the second epoch
    assert launch(killed) == [-signal.SIGKILL]
    (tmp_path / "killed.drawn" / "dies").unlink()
    fit(killed)
    assert launch(command("two"), num_ranks=2) == [0, 0]
    assert drawn("killed") == drawn("two") == seen
