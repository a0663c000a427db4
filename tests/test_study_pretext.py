"""The study of pretext tasks: its tables, pictures through a lens, and the walk from pictures to a page, which does nothing twice."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal.errors import InputError
from multimodal.evaluate.probe import ProbeRow
from multimodal.pairs import Pair
from multimodal.pictures.aberration import lateral_aberration
from multimodal.shards import ShardSet, ShardWriter


@pytest.fixture
def study(reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    assert reproduce.__file__ is not None
    monkeypatch.syspath_prepend(str(Path(reproduce.__file__).parent))
    import studies.pretext

    return studies.pretext


def probed(name: str, seed: int, linear: float) -> list[ProbeRow]:
    return [
        ProbeRow(name, "cifar10", num, 1000, 64, 512, value, value - 3, value + 3, value - 1, value - 9, 10.0, 0.01, seed, True)
        for num, value in ((20, linear - 20), (200, linear - 9), (2000, linear))
    ]


def right(share: float, num: int = 1000) -> dict[str, float]:
    """The first ones of the test pictures."""
    return {f"test[{place}]": float(place < round(share * num)) for place in range(num)}


def test_a_line_has_the_mean_of_its_seeds_and_its_gain_over_random_weights_with_intervals(study: ModuleType) -> None:
    rows = [
        *(
            study.Row("rotation", seed, probed("rotation", seed, 46.0 + seed), right(0.46 + seed / 100), "accuracy", 60.0 + seed, 25.0)
            for seed in range(3)
        ),
        *(study.Row("random weights", seed, probed("random weights", seed, 39.0), right(0.39)) for seed in range(3)),
    ]
    *_, rotation, random = study.as_table(rows).splitlines()
    cells = rotation.replace("[", "").replace("]", "").replace(",", "").split()
    assert cells[:7] == ["rotation", "accuracy", "61.0", "25.0", "27.0", "38.0", "47.0"]
    assert cells[9:13] == ["46.0..48.0", "of", "3", "+8.0"] and cells[-3:] == ["46.0", "38.0", "10.0"]
    low, high, low_gain, high_gain = map(float, (*cells[7:9], *cells[13:15]))
    normal = 1.96 * np.array([np.sqrt(0.47 * 0.53 / 1000), np.sqrt(0.08 * 0.92 / 1000)]) * 100
    assert np.allclose([47 - low, high - 47], normal[0], atol=0.4)
    assert np.allclose([8 - low_gain, high_gain - 8], normal[1], atol=0.4), "paired: the same pictures are predicted by both"
    assert random.split()[:5] == ["random", "weights", "19.0", "30.0", "39.0"] and "+" not in random


def test_the_table_of_the_shortcut_has_a_line_for_each_lens_and_each_way_to_see_colours(study: ModuleType) -> None:
    position = study.TASKS["position"]
    rows = [
        study.Row(one.name, 0, probed(one.name, 0, 44.0), right(0.44), "accuracy", answered, 12.5)
        for one, answered in (
            (study.Training(position, 0), 40.0),
            (study.Training(position, 0, is_open=True), 42.0),
            (study.Training(position, 0, lens=True), 41.0),
            (study.Training(position, 0, lens=True, is_open=True), 70.0),
        )
    ]
    lines = study.shortcut_table(rows).splitlines()[2:]
    assert [line.split("  ")[0] for line in lines] == ["as they are"] * 2 + ["through the lens"] * 2
    assert [float(line.split("..")[0].split()[-2]) for line in lines] == [42.0, 40.0, 70.0, 41.0]


def test_pictures_through_the_lens_are_those_of_the_set(study: ModuleType, tmp_path: Path) -> None:
    pictures = [
        np.random.default_rng(number).integers(0, 256, (12, 12, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8) for number in range(12)
    ]
    with ShardWriter(tmp_path / "set") as writer:
        for number, pixels in enumerate(pictures):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            writer.write(Pair(f"{number}.png", file.getvalue(), "png", (), f"{number}", split="dev" if number < 2 else "train"))
    study.photograph(tmp_path / "set", tmp_path / "lens", 2.0)
    seen = ShardSet(tmp_path / "lens")
    assert list(seen.splits) == ["dev"] * 2 + ["train"] * 10 and list(seen.names) == [f"{number}.png" for number in range(12)]
    for number, pixels in enumerate(pictures):
        wanted, found = lateral_aberration(pixels, 2.0, 2.0).astype(float), np.asarray(seen[number].picture).astype(float)
        assert np.abs(found - wanted).mean() < 3 < np.abs(found - pixels).mean()
    study.photograph(tmp_path / "set", tmp_path / "lens", 2.0)  # there already
    with pytest.raises(InputError, match="through another lens"):
        study.photograph(tmp_path / "set", tmp_path / "lens", 1.0)
    assert 0 <= study.told_by_fringes(seen, None) <= 1


def test_an_unknown_task_is_refused(study: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--tasks rotations: unknown. Known: rotation, position, jigsaw, inpainting, colour"):
        study.pretext(tmp_path, tmp_path, tmp_path, tasks=["rotations"])


@pytest.mark.slow
def test_from_pictures_to_a_page(study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm", reason="needs the train extra")
    (tmp_path / "photos").mkdir()
    lines = ["file\tsplit\tcaption"]
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (14, 14, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.jpg")
        lines.append(f"{number}.jpg\t{'train' if number else 'dev'}\ta picture")
    (tmp_path / "photos" / "captions.tsv").write_text("\n".join(lines) + "\n")
    x, y = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3)).astype(np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "classes.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:], names=np.array(["a", "b", "c"]))
    out, settings = tmp_path / "out", "--trainer.max_epochs 1 --preflight.max_steps 0 --data.batch_size 16 --data.validation_share 0.3"
    arguments: dict[str, Any] = {
        "data": tmp_path / "photos",
        "out": out,
        "classes": tmp_path / "classes.npz",
        "seeds": 1,
        "tasks": ["rotation", "colour"],
        "settings": settings,
    }
    study.pretext(**arguments)
    table = (out / "results.txt").read_text()
    assert table.strip() in capsys.readouterr().out and all(
        f"\n{name} " in table for name in ("rotation", "rotation, permuted", "position", "colour", "random weights")
    )
    page = html.unescape((out / "index.html").read_text())
    assert all(line in page for line in table.splitlines() if line) and "The gain from more labels" in page
    assert len(json.loads((out / "pretext.json").read_text())) == 2 + 1 + 4 + 1
    made = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.ckpt")}
    study.pretext(**arguments)
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.ckpt")} == made != {}, "nothing is trained twice"
    assert (out / "results.txt").read_text() == table
