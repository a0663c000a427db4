"""The study of few shots: its table, and folders of other studies that it cannot use."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from multimodal.errors import InputError
from multimodal.evaluate.fewshot import FewShotRow


@pytest.fixture
def study(reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    assert reproduce.__file__ is not None
    monkeypatch.syspath_prepend(str(Path(reproduce.__file__).parent))
    import studies.fewshot

    return studies.fewshot


def asked(by: str, shots: int, accuracy: float, permuted: float | None = 20.0) -> FewShotRow:
    return FewShotRow("a", "b", "cifar", by, 5, shots, 15, 1000, accuracy, accuracy - 1, accuracy + 1, 20.0, permuted, 0)


def test_a_line_has_the_mean_of_its_seeds_and_nothing_for_what_was_not_asked(study: ModuleType) -> None:
    untaught = [[asked("prototypes", shots, 30.0 + shots + seed) for shots in (1, 5, 20)] for seed in (0, 2)]
    taught = [[asked("names", 0, 61.0), *(asked("prototypes", shots, 50.0, 19.5) for shots in (1, 5, 20))]]
    table = study.as_table({"untaught": untaught, "taught": taught})
    assert "1,000 tasks of 5 classes with 15 pictures of each to classify, per cent right; chance 20.0" in table
    first, second = (next(line.split() for line in table.splitlines() if line.startswith(name)) for name in ("untaught", "taught"))
    assert first == ["untaught", "2", "32.0", "31.0..33.0", "36.0", "35.0..37.0", "51.0", "50.0..52.0", "20.0..20.0"]
    assert second == ["taught", "1", "61.0", "50.0", "50.0", "50.0", "19.5..20.0"]


def test_folders_without_exports_and_of_one_name_are_refused(study: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "one" / "scratch").mkdir(parents=True)
    (tmp_path / "two" / "scratch").mkdir(parents=True)
    with pytest.raises(InputError, match="two folders have one name"):
        study.fewshot(tmp_path / "cifar.npz", tmp_path / "out", [tmp_path / "one" / "scratch", tmp_path / "two" / "scratch"])
    with pytest.raises(InputError, match="Give the folder of a finished study"):
        list(study._taught(tmp_path / "one" / "scratch", 3))
