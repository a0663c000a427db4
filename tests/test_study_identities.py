"""The study of identities: its tables say what its rows hold, and scikit-learn's figures are reached."""

from __future__ import annotations

import importlib
import json
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from multimodal.evaluate.identities import IdentityRow


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "scripts"))
    return importlib.import_module("studies.identities")


def row(name: str, value: float, seed: int = 0, reranked: bool = False) -> IdentityRow:
    text = {"recipe": name, "family": "topic", "gallery": "market"}
    numbers: dict[str, Any] = {each.name: 10 for each in fields(IdentityRow) if each.name not in text}
    return IdentityRow(**{**numbers, **text, "mean_average_precision": value, "seed": seed, "reranked": reranked})


def judged(study: ModuleType, folder: Path, name: str, seed: int, values: dict[str, float]) -> Any:
    files = {}
    for gallery, value in values.items():
        files[gallery] = folder / f"{name}-{seed}-{gallery}.json"
        files[gallery].write_text(json.dumps([row(name, value, seed).as_json()]))
    return study.Judged(name, seed, folder, (), (), files)


def test_tables_compare_the_mean_of_the_seeds_with_the_cosine(study: ModuleType, tmp_path: Path) -> None:
    runs = [("cosine", 0, 8.0), ("head", 0, 20.0), ("head", 1, 24.0)]
    told = study.people_table([judged(study, tmp_path, name, seed, {"test": value}) for name, seed, value in runs])
    head = next(line.split() for line in told.splitlines() if line.startswith("head"))
    assert "22.0" in head and "20.0..24.0" in head and "2.75" in head
    both = [("cosine", 0, {"taught": 40.0, "others": 50.0}), ("pairs", 0, {"taught": 50.0, "others": 49.9})]
    told = study.classes_table([judged(study, tmp_path, *one) for one in both])
    assert "+25.0 %" in told and "-0.2 %" in told
