"""Runs that come with a set: made ones with a known answer, and Omniglot's own."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.sources.omniglot import omniglot
from multimodal.errors import InputError
from multimodal.evaluate.fewshot import evaluate
from multimodal.evaluate.fixed_runs import hausdorff_accuracies, pixel_rows, read_runs, run_accuracies
from multimodal.metrics.episodes import nearest_shot_euclidean
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards import Ledger, ShardSet, ShardWriter
from tests.conftest import DEFAULT_DATA


def drawing(turned: bool, shift: int) -> bytes:
    """A bar, 3 pixels wide, upright or not."""
    pixels = np.full((24, 24), 255, np.uint8)
    pixels[4:20, 8 + shift : 11 + shift] = 0
    file = io.BytesIO()
    Image.fromarray(pixels.T.copy() if turned else pixels).save(file, "PNG")
    return file.getvalue()


def written(path: Path, answers: Sequence[str] = ("upright", "across")) -> ShardSet:
    """Two runs of two labels, a drawing of each role; those to classify are shifted. answers: their labels, of the upright one first."""
    with ShardWriter(path, pairs_per_shard=3) as writer:
        for run in ("run01", "run02"):
            for role, shift in (("test", 1), ("training", 0)):
                labels = answers if role == "test" else ("upright", "across")
                for turned, label in enumerate(labels):
                    metadata = {"run": run, "role": role, "label": f"{run}/{label}"}
                    name = f"{run}/{role}/{turned}.png"
                    writer.write(Pair(name, drawing(bool(turned), shift), "png", ("dog",), run, "runs", metadata=metadata))
        writer.write(Pair("other.png", drawing(False, 1), "png", ("dog",), "x", metadata={"label": "other", "role": "query"}))
    return ShardSet(path)


def test_each_drawing_is_compared_with_those_of_its_run(tmp_path: Path) -> None:
    shards = written(tmp_path / "set")
    runs = read_runs(shards)
    assert runs.names == ["run01", "run02"] and len(runs.ids) == 8 and runs.tasks.shots.shape == runs.tasks.queries.shape == (2, 2, 1)
    assert hausdorff_accuracies(shards).tolist() == [1, 1]  # centred, so a shift does not matter
    assert run_accuracies(pixel_rows, shards).tolist() == [1, 1]
    assert run_accuracies(lambda encoded: np.ones((len(encoded), 3)), shards).tolist() == [0, 0]
    wrong = written(tmp_path / "wrong", answers=("across", "upright"))
    assert run_accuracies(pixel_rows, wrong, nearest_shot_euclidean).tolist() == hausdorff_accuracies(wrong).tolist() == [0, 0]


def test_a_set_without_runs_and_one_with_uneven_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are of other labels"):
        read_runs(written(tmp_path / "odd", answers=("upright", "upright")))
    with ShardWriter(tmp_path / "none", pairs_per_shard=3) as writer:
        writer.write(Pair("a.png", drawing(False, 1), "png", (), "x", metadata={"label": "other"}))
    with pytest.raises(InputError, match="has no runs.*leave --runs out"):
        read_runs(ShardSet(tmp_path / "none"))


def test_the_command_asks_the_runs_of_the_set(tmp_path: Path, make_store: Callable[..., Store], capsys: pytest.CaptureFixture[str]) -> None:
    shards = written(tmp_path / "set")
    upright = np.array([shards.record(id)["metadata"]["label"].endswith(("upright", "other")) for id in range(len(shards))])
    store = make_store("runs", of=shards, rows=np.stack([upright, ~upright], axis=1).astype(np.float32).repeat(12, axis=1))
    rows = evaluate(shards.path, store=store.path, runs=True)
    found = {(row.recipe, row.by): row.accuracy for row in rows}
    assert found == {
        ("wordvec", "nearest"): 100,
        ("wordvec", "nearest, Euclidean"): 100,
        ("pixels", "nearest"): 100,
        ("pixels", "nearest, Euclidean"): 100,
        ("ink", "modified Hausdorff"): 100,
    }
    assert {(row.ways, row.shots, row.num_tasks, row.chance) for row in rows} == {(2, 1, 2, 50)}
    assert "modified Hausdorff" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not (DEFAULT_DATA / "omniglot").is_dir(), reason="needs Omniglot's all_runs.zip beside the checkout")
def test_the_baselines_of_omniglots_own_runs_are_as_published(tmp_path: Path) -> None:
    """Its author's demo reports 38.8 % errors for the modified Hausdorff distance."""
    with ShardWriter(tmp_path / "set", pairs_per_shard=1000) as writer, Ledger(tmp_path / "bad.csv") as ledger:
        for pair in omniglot(DEFAULT_DATA / "omniglot", sets=["images_background_small1"], ledger=ledger):
            ledger.good()
            if pair.split == "runs":
                writer.write(pair)
    shards = ShardSet(tmp_path / "set")
    assert 100 * hausdorff_accuracies(shards).mean() == pytest.approx(61.2, abs=0.2)
    assert 100 * run_accuracies(pixel_rows, shards).mean() == pytest.approx(21.75)
