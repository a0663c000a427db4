"""What a run tells W&B, read back from its offline files: figures with their axes, the config, and the panels of each validation."""

from __future__ import annotations

import csv
import os
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multimodal.data.decode import picture
from multimodal.doors import recipes
from multimodal.errors import InputError
from multimodal.shards import Column, ShardSet
from multimodal.text import TopicSpace, open_space
from multimodal.training import PairData, PairModule
from multimodal.training.door import build, fit
from multimodal.training.loggers import Pace
from multimodal.training.offline_wandb import OfflineRun, read_offline, records

ToldWandb = Callable[[Path], OfflineRun]
NUM_TOPICS, NUM_QUERIES, K, WORDS = 5, 4, 6, 10
TOPIC_RECIPE = f"""
model:
  image_tower: {{class_path: multimodal.towers.Head, init_args: {{dim_in: 256, dim_out: {NUM_TOPICS}, standardise: true}}}}
  target_side: {{class_path: torch.nn.Identity}}
  objective: {{class_path: multimodal.objectives.SoftCrossEntropy}}
  optimiser: {{lr: 1.0e-2, warmup_steps: 2}}
data:
  image: {{class_path: multimodal.data.ColumnRows, init_args: {{name: trunk}}}}
  target: {{class_path: multimodal.data.ColumnRows, init_args: {{name: lda}}}}
  batch_size: 8
  validation_share: 0.4
trainer:
  accelerator: cpu
  max_epochs: 3
  log_every_n_steps: 2
  logger:
    class_path: multimodal.training.WeightsAndBiases
    init_args:
      panels:
        queries: {{class_path: multimodal.training.panels.Queries, init_args: {{queries: {NUM_QUERIES}, k: {K}, size_px: 48}}}}
        topics: {{class_path: multimodal.training.panels.Topics, init_args: {{k: {K}, max_pictured: 3}}}}
"""

DIES_AROUND_VALIDATION = """
import os, signal
from lightning.pytorch.callbacks import Callback

class Dies(Callback):
    def on_validation_start(self, trainer, module):
        self.die_at("start", trainer.global_step)

    def on_validation_end(self, trainer, module):
        self.die_at("end", trainer.global_step)

    def die_at(self, when, step):
        if f"{when} {step}" == os.environ.get("DIES_AT"):
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nobody is logged in."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_login"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


def figures_of(path: Path) -> list[dict[str, float]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_an_offline_run_holds_the_figures_of_metrics_csv_with_their_axes(
    arguments: Callable[..., list[str]], told_wandb: ToldWandb, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(arguments("run", "--config", str(recipes.find("trainer/wandb.yaml")), "--trainer.max_epochs", "2"))
    assert "W&B: offline" in capsys.readouterr().err  # said, not silent
    told, rows = told_wandb(run), figures_of(run / "metrics.csv")
    history = told.history()
    assert [row["trainer/global_step"] for row in history] == [row["step"] for row in rows]
    for sent, written in zip(history, rows, strict=True):
        expected = {key: value for key, value in written.items() if key != "step"}
        assert {key: sent[key] for key in expected} == pytest.approx(expected)
    num_train = told.config["pairs"]["train"]
    assert [row["trainer/pairs_seen"] for row in history if "val/loss" in row] == [num_train, 2 * num_train]
    assert told.summaries == {"val/R@*": "max", "val/trade_off": "max", "val/loss": "min", "val/median_rank": "min", "train/loss": "min"}


def test_the_config_says_what_the_run_is_made_of(arguments: Callable[..., list[str]], told_wandb: ToldWandb, pairs: Path) -> None:
    run = fit(arguments("run", "--config", str(recipes.find("trainer/wandb.yaml")), "--trainer.max_epochs", "1"))
    config, shards = told_wandb(run).config, ShardSet(pairs)
    assert config["model"]["optimiser"]["init_args"]["lr"] == 0.01
    assert config["data"]["image"]["class_path"] == "multimodal.data.ColumnRows"
    columns = {f"column {name}": Column.of(shards, name).manifest.fingerprint for name in ("features", "topics")}
    assert config["made_from"] == {"shards": shards.fingerprint, **columns}
    _, data = build(arguments("run"))
    data.setup("fit")
    assert config["pairs"] == {"train": len(data.train_ids), "validation": len(data.validation_ids), "shards": len(shards)}
    assert config["parameters"] == {"trained": 6 * 4 + 4, "frozen": 0}


@given(num_pairs=st.integers(1, 40), batch_size=st.integers(1, 50), accumulate=st.integers(1, 3), epochs=st.integers(1, 3))
def test_pairs_seen_are_those_of_all_batches_so_far(num_pairs: int, batch_size: int, accumulate: int, epochs: int) -> None:
    pace, seen, step = Pace(num_pairs, batch_size * accumulate), 0, 0
    for _ in range(epochs):
        batches = [min(batch_size, num_pairs - start) for start in range(0, num_pairs, batch_size)]
        for start in range(0, len(batches), accumulate):
            seen += sum(batches[start : start + accumulate])
            assert pace.pairs_seen(step) == seen
            step += 1


@pytest.fixture(scope="module")
def topic_run(begin_road: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A topic run on drawings, through the real doors: its command line, and its folder."""
    road, folder = begin_road(), tmp_path_factory.mktemp("topics")
    road.go("set", "set/columns/trunk")
    for command in (
        f"data-prep fit-text-space topics --shards set --output lda --num-topics {NUM_TOPICS} --min-count 1 --passes 5",
        "data-prep make-columns --space lda --shards set --name lda",
    ):
        told = road.run(command)
        assert told.status == 0, told.err
    (folder / "recipe.yaml").write_text(TOPIC_RECIPE)
    command = ["--config", str(folder / "recipe.yaml"), "--data.shards", str(road.folder / "set"), "--run", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_CACHE_DIR", str(folder / "cache"))
        fit(command)
    return command, road.folder


@pytest.fixture(scope="module")
def told(topic_run: tuple[list[str], Path], told_wandb: ToldWandb) -> OfflineRun:
    return told_wandb(Path(topic_run[0][-1]))


@pytest.fixture(scope="module")
def recomputed(topic_run: tuple[list[str], Path]) -> tuple[PairData, np.ndarray, np.ndarray]:
    """The run's pairs, and what its last checkpoint makes of those it validates on: pictures (n, K) and texts (n, K)."""
    command = topic_run[0]
    module, data = build(command)
    assert isinstance(module, PairModule)
    state = torch.load(Path(command[-1]) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    module.eval()
    data.setup("fit")
    with torch.no_grad():
        image = module(torch.from_numpy(Column.of(data.shards, "trunk").take(data.validation_ids))).numpy()
    return data, image, Column.of(data.shards, "lda").take(data.validation_ids)


def test_the_rows_of_the_queries_are_those_that_the_checkpoint_gives(
    told: OfflineRun, recomputed: tuple[PairData, np.ndarray, np.ndarray]
) -> None:
    data, image, text = recomputed
    validations = told.steps("queries/table")
    assert validations == told.steps("val/R@1") and len(validations) == 3
    tables = [told.table("queries/table", step) for step in validations]
    assert tables[0].columns == ["id", "query", "rank", "of", "found", "scores"]
    assert len({tuple(row[0] for row in table.rows) for table in tables}) == 1  # the same queries each time
    cosines = unit(text) @ unit(image).T
    ids = data.validation_ids.tolist()
    assert len(tables[-1].rows) == NUM_QUERIES
    for id, query, rank, num, found, scores in tables[-1].rows:
        of_query = cosines[ids.index(id)]
        assert query == data.shards.texts(id)[0]
        # equal pictures of one drawing have equal cosines but for rounding
        assert (of_query > of_query[ids.index(id)] + 1e-5).sum() < rank <= (of_query >= of_query[ids.index(id)] - 1e-5).sum()
        assert num == len(ids) and len(found) == K
        assert [of_query[ids.index(other)] for other in found] == pytest.approx(scores, abs=1e-5)
        assert scores == pytest.approx(np.sort(of_query)[::-1][:K], abs=1e-5)


def test_the_pictures_of_the_queries_show_the_own_one_and_say_its_rank(
    told: OfflineRun, recomputed: tuple[PairData, np.ndarray, np.ndarray]
) -> None:
    shards, step = recomputed[0].shards, told.steps("queries/pictures")[-1]
    shown = told.pictures("queries/pictures", step)
    rows = told.table("queries/table", step).rows
    assert list(shown) == [f"{query} | rank {rank} of {num}" for _, query, rank, num, _, _ in rows]
    for (id, *_, found, _), file in zip(rows, shown.values(), strict=True):
        composed = np.asarray(Image.open(file), np.float32)
        tiles = [composed[4:52, 56 * place + 4 : 56 * place + 52] for place in range(2 + K)]
        for tile, other in [(tiles[0], id), *zip(tiles[2:], found, strict=True)]:
            drawn = np.asarray(picture(shards.image_bytes(other)), np.float32)  # 48 pixels wide, so the thumbnail is the drawing itself
            assert np.abs(tile - drawn).mean() < 8  # of 255: JPEG


def test_the_table_of_topics_has_the_words_of_the_space_and_the_shares_that_the_checkpoint_gives(
    told: OfflineRun, topic_run: tuple[list[str], Path], recomputed: tuple[PairData, np.ndarray, np.ndarray]
) -> None:
    data, image, text = recomputed
    space = open_space(topic_run[1] / "lda")
    assert isinstance(space, TopicSpace)
    step = told.steps("topics/table")[-1]
    table = told.table("topics/table", step)
    assert table.columns == ["topic", "words", "share in pictures", "share in texts", "pictures", "shares"]
    assert [row[0] for row in table.rows] == list(range(NUM_TOPICS))
    assert [row[1] for row in table.rows] == [", ".join(words) for words in space.top_words(WORDS)]
    assert [row[2] for row in table.rows] == pytest.approx(image.mean(0), abs=1e-5)  # rows sum to one
    assert [row[3] for row in table.rows] == pytest.approx(text.mean(0), abs=1e-3)  # to half precision, as the column has them
    for topic, *_, pictures, shares in table.rows:
        assert shares == pytest.approx(np.sort(image[:, topic])[::-1][:K], abs=1e-5)
        assert image[np.searchsorted(data.validation_ids, pictures), topic] == pytest.approx(shares, abs=1e-5)
    assert len(told.pictures("topics/pictures", step)) == 3


@pytest.mark.parametrize("when", ["start", "end"])  # of a validation: its figures and panels are not told yet, or are
def test_a_resumed_run_logs_everything_once(
    topic_run: tuple[list[str], Path], told: OfflineRun, told_wandb: ToldWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    (tmp_path / "dies.py").write_text(DIES_AROUND_VALIDATION)
    monkeypatch.syspath_prepend(tmp_path)
    command = [*topic_run[0][:-1], str(tmp_path / "stopped"), "--trainer.callbacks+=dies.Dies", "--checkpoint_every_n_steps", "1"]
    num_steps = told.steps("queries/table")[0] + 1
    monkeypatch.setenv("DIES_AT", f"{when} {2 * num_steps}")  # the checkpoint of that step is not written yet
    with pytest.raises(KeyboardInterrupt):
        fit(command)
    monkeypatch.delenv("DIES_AT")
    went_on = told_wandb(fit(command))
    assert len(list((tmp_path / "stopped").glob("wandb/offline-run-*"))) == 2
    for name in ("train/loss", "val/loss", "queries/table", "queries/pictures", "topics/table"):
        assert went_on.steps(name) == told.steps(name)
    for step in told.steps("queries/table"):
        for name in ("queries/table", "topics/table"):
            assert went_on.table(name, step) == told.table(name, step)


def test_a_run_of_targets_without_words_has_no_topics(arguments: Callable[..., list[str]], told_wandb: ToldWandb) -> None:
    told = told_wandb(fit(arguments("run", "--config", str(recipes.find("trainer/wandb.yaml")), "--trainer.max_epochs", "1")))
    assert len(told.steps("queries/table")) == 1 and not told.steps("topics/table")


def test_what_is_yet_to_be_sent_lies_in_the_run_s_folder(topic_run: tuple[list[str], Path]) -> None:
    assert any((Path(topic_run[0][-1]) / "wandb" / "artifacts" / "staging").iterdir())
    assert "WANDB_DATA_DIR" not in os.environ


def test_the_report_prints_the_rows_of_the_tables_and_what_the_run_is_made_of(told: OfflineRun) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "wandb_report.py"))
    report = "\n".join(script["lines"](told))
    assert f"made_from.shards: {told.config['made_from']['shards']}" in report
    assert f"(best {max(row['val/R@1'] for row in told.history() if 'val/R@1' in row):.4g}, first at step" in report
    for id, query, rank, *_ in told.table("queries/table", told.steps("queries/table")[-1]).rows:
        assert re.search(rf"^  {id} +{query} +{rank} ", report, re.MULTILINE)
    with pytest.raises(InputError, match="nothing was logged at step 12345. Steps with it: "):
        list(script["lines"](told, step=12345))


def test_a_damaged_file_is_refused_and_a_torn_one_read_as_far_as_it_goes(told: OfflineRun, tmp_path: Path) -> None:
    [file] = told.logged[0].files.parent.glob("run-*.wandb")
    content, whole = bytearray(file.read_bytes()), list(records(file))
    (tmp_path / "torn").write_bytes(content[:-5])
    assert list(records(tmp_path / "torn")) == whole[:-1]
    content[20] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    with pytest.raises(InputError, match="damaged at byte 7"):
        list(records(tmp_path / "damaged"))
    (tmp_path / "other").write_bytes(b"PK..")
    with pytest.raises(InputError, match="not a file of a W&B run"):
        list(records(tmp_path / "other"))
    with pytest.raises(InputError, match="holds no offline W&B run"):
        read_offline(tmp_path)
