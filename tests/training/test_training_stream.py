"""`multimodal fit` on streamed tars: what it learns, holds out, reports and refuses, and the way to the exact loader."""

from __future__ import annotations

import contextlib
import csv
import functools
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from multimodal.cli import main
from multimodal.errors import InputError
from multimodal.export.model import export
from multimodal.shards import ShardSet, Split
from multimodal.shards.index import index_tars
from multimodal.towers import FolderEncoder
from multimodal.training.datamodule import cut
from multimodal.training.door import build, fit
from multimodal.training.validate import validate

if TYPE_CHECKING:
    from tests.training.conftest import Witnessed

NUM_TARS, PER_TAR = 3, 40
COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220), "white": (250, 250, 250)}


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars as img2dataset writes them: noise around a colour, which the caption names."""
    folder, generator = tmp_path_factory.mktemp("tars"), np.random.default_rng(0)
    for number in range(NUM_TARS):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for place in range(PER_TAR):
                name = list(COLOURS)[place % len(COLOURS)]
                encoded = io.BytesIO()
                noise = generator.normal(COLOURS[name], 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(encoded, "JPEG")
                about = {"url": f"http://x/{number}/{place // 2}", "caption": f"a {name} wall {place}"}
                for extension, content in (("jpg", encoded.getvalue()), ("json", json.dumps(about).encode())):
                    info = tarfile.TarInfo(f"{number:05d}{place:04d}.{extension}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.fixture
def recipe(tmp_path: Path, tiny_bert: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(f"""
model:
  image_tower:
    class_path: multimodal.towers.ImageTower
    init_args:
      trunk:
        class_path: multimodal.towers.Trunk
        init_args: {{architecture: test_efficientnet, weights: multimodal.towers.NoWeights, frozen: false, size: 16}}
      head: {{class_path: multimodal.towers.Head, init_args: {{dim_in: 256, dim_out: 8}}}}
  target_side:
    class_path: multimodal.towers.TextTower
    init_args:
      encoder: {{class_path: multimodal.towers.FolderEncoder, init_args: {{path: {tiny_bert}}}}}
      head: {{class_path: multimodal.towers.Head, init_args: {{dim_in: 16, dim_out: 8}}}}
  objective: {{class_path: multimodal.objectives.Clip}}
data:
  image: {{class_path: multimodal.data.Pixels, init_args: {{size: 16}}}}
  target: {{class_path: multimodal.data.Captions}}
  batch_size: 16
  validation_share: 0.2
preflight: {{max_steps: 0}}
trainer: {{accelerator: cpu, max_epochs: 2, log_every_n_steps: 1}}
""")
    return tmp_path / "recipe.yaml"


@pytest.fixture
def command(recipe: Path, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pattern = f"{tars}/{{00000..{NUM_TARS - 1:05d}}}.tar"

    (tmp_path / "stream.yaml").write_text("data: {stream: {num_pairs: 50, buffer: 20, validation_pairs: 12}}")

    def of(name: str, *more: str, shards: str = pattern, stream: bool = True) -> list[str]:
        streamed = ["--config", str(tmp_path / "stream.yaml")] if stream else []
        return ["--config", str(recipe), *streamed, "--data.shards", shards, "--run", str(tmp_path / name), *more]

    return of


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_pattern_of_tars_is_trained_on_and_says_what_is_not_exact(
    command: Callable[..., list[str]], tars: Path, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(command("run", "--data.num_workers", "1"))
    told = [line for line in capsys.readouterr().err.splitlines() if "streams" in line]
    assert len(told) == 1 and "streams 3 tars. An epoch is 50 pairs as they come" in told[0]
    assert f"multimodal shards index '{tars}/{{00000..00002}}.tar'" in told[0]
    counts = json.loads((run / "manifest.json").read_text())["counts"]
    assert counts == {"epochs": 2, "steps": 8, "pairs": 50, "validation_pairs": 12}
    rows = list(csv.DictReader(open(run / "metrics.csv", newline="")))
    assert float(next(row["val/num_pairs"] for row in rows if row["val/num_pairs"])) == 12
    shown = validate(run, encoder=FolderEncoder(tiny_bert), accelerator="cpu")
    assert shown["val/R@10"] == pytest.approx(max(float(row["val/R@10"]) for row in rows if row["val/R@10"]))
    export(run, tmp_path / "export", encoder=FolderEncoder(tiny_bert))
    fit(command("run", "--data.num_workers", "1"))
    assert "is finished, with the same config" in capsys.readouterr().err


def test_what_is_held_out_of_a_stream_is_held_out_of_its_index(command: Callable[..., list[str]], tars: Path, tmp_path: Path) -> None:
    index_tars(tars, tmp_path / "index")
    shards = ShardSet(tars, tmp_path / "index")
    trained, validated = (set(ids.tolist()) for ids in cut(shards, Split(), 0.2))
    _, data = build(command("run", "--data.stream.num_pairs", "2000", "--data.stream.validation_pairs", "99"))
    data.setup("fit")
    seen = {shards.find(f"{id >> 32:05d}{id % 2**32:04d}") for batch in data.train_dataloader() for id in batch.id.tolist()}
    assert seen == trained and seen.isdisjoint(Split().ids(shards, "test").tolist())
    held = {data.shards.names[id] for id in data.validation_ids.tolist()}
    assert held == {shards.names[id] for id in validated}


def test_a_run_killed_within_an_epoch_takes_the_steps_that_were_left_and_says_that_they_are_others(
    command: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command("run", "--trainer.callbacks+=witness.Witness", "--checkpoint_every_n_steps", "1")
    witness.die_after(6)
    assert launch(arguments) == [-9]
    witness.die_after(None)
    assert [step["step"] for step in witness.take()[0]] == [1, 2, 3, 4, 5, 6]
    fit(arguments)
    assert "the stream resumes within epoch 1, after 16 pairs: the rest of the epoch is drawn anew" in capsys.readouterr().err
    assert [(step["step"], step["epoch"]) for step in witness.steps()] == [(6, 1), (7, 1), (8, 1)]


def test_two_ranks_take_the_same_steps_on_different_pairs(
    command: Callable[..., list[str]], witness: Witnessed, launch: Callable[..., list[int]]
) -> None:
    assert launch(command("run", "--trainer.callbacks+=witness.Witness"), num_ranks=2) == [0, 0]
    one, two = witness.take(2)
    assert [step["step"] for step in one] == [step["step"] for step in two] == list(range(1, 9))
    assert {step["num_rows"] for step in [*one, *two]} == {8}
    assert [step["ids"] for step in one] != [step["ids"] for step in two]


def test_tars_are_streamed_over_http_and_indexed_there_for_the_exact_loader(
    command: Callable[..., list[str]], tars: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    with served(tars) as url:
        run = fit(command("run", "--trainer.max_epochs", "1", shards=f"{url}/{{00000..00002}}.tar"))
        with pytest.raises(InputError, match="its pairs are at http.*which is not fetched just because a run names it"):
            validate(run, encoder=FolderEncoder(tiny_bert), accelerator="cpu")
        assert main(["shards", "index", f"{url}/{{00000..00002}}.tar"]) == 0
        exact = fit(command("exact", "--trainer.max_epochs", "1", shards=url, stream=False))
    index_tars(tars, tmp_path / "index")
    trained, _ = cut(ShardSet(tars, tmp_path / "index"), Split(), 0.2)
    assert json.loads((exact / "manifest.json").read_text())["counts"]["pairs"] == len(trained)


def test_too_many_samples_that_are_no_pairs_stop_the_run(command: Callable[..., list[str]], tars: Path, tmp_path: Path) -> None:
    with tarfile.open(tars / "00000.tar") as whole, tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number, member in enumerate(whole):
            if number % 8:  # every fourth picture is missing
                tar.addfile(member, whole.extractfile(member))
    with pytest.raises(InputError, match=r"are bad .*more than --data.max_bad_share 0.05: 0.tar 000000000: has no picture"):
        fit(command("run", "--data.stream.validation_pairs", "2", shards=str(tmp_path / "0.tar")))
    assert len(list(csv.DictReader(open(tmp_path / "run" / "bad.csv", newline="")))) == 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.shards", "{tars}/{{7..9}}.tar"], "there is no such tar"),
        (["--data.shards", "{tars}/{{00001..00004}}.tar"], "2 of 4 tars are missing: .*00003.tar"),
        (["--data.shards", "pipe:cat {tars}/00000.tar"], "pipe: runs a shell command, and none is run here"),
        (["--data.shards", "pipe:aws s3 cp s3://b/0.tar -"], "pipe: runs a shell command, and none is run here"),
        (
            ["--data.shards", "{texts}"],
            "none of the first 0 pairs is in the part 'train'; 40 others are no pairs, for example .*has no pict",
        ),
        (["--data.stream.num_pairs", "null"], "do not say how many pairs they have. Set data.stream.num_pairs"),
        (["--data.stream.buffer", "0"], "buffer=0 must be at least 1"),
        (["--data.target", "multimodal.data.ColumnRows", "--data.target.name", "lda"], "cannot be used with streamed tars"),
        (["--data.train_share", "0.5"], "data.train_share needs an index"),
        (["--data.shards", "{tars}"], "has tars, but no index"),
        (["--data.shards.one", "{tars}/00000.tar"], "names tars, and the folder of a shard set is expected"),
    ],
)
def test_wrong_input_is_one_line(
    more: list[str], message: str, command: Callable[..., list[str]], tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tars / "00000.tar") as whole, tarfile.open(tmp_path / "texts.tar", "w") as tar:
        for member in whole:
            if member.name.endswith(".json"):
                tar.addfile(member, whole.extractfile(member))
    with pytest.raises(InputError, match=message) as raised:
        fit(command("run", *(one.format(tars=tars, texts=tmp_path / "texts.tar") for one in more)))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_stream_setting_without_a_pattern_is_refused(command: Callable[..., list[str]], pairs: Path) -> None:
    with pytest.raises(InputError, match="data.stream needs a pattern of tars, .* Leave data.stream out"):
        fit(command("run", shards=str(pairs)))
