"""What a run keeps of the CLIP models that it was trained on, so that its export opens and fetches nothing else.

    described = from_run(described, Path("runs/clip"), "image_tower")

The checkpoint has the weights; beside it, `models/image_tower` has the settings, and `models/target_side` the tokenizer too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal import towers
from multimodal.boxes.trust import classes_of
from multimodal.errors import InputError
from multimodal.export.run import MODELS
from multimodal.towers import ClipTextTower, ClipTrunk
from multimodal.towers.pretrained import LOCAL

CLIP_TOWERS = {**classes_of(towers, ClipTrunk), **classes_of(towers, ClipTextTower)}
"""Classes that read a model by its name, which only a user's own recipe may tell them to."""


def from_run(described: Any, run: Path, part: str) -> Any:
    """A part of a run's model, as its config describes it, with the CLIP model that it names replaced by what the run has kept of it."""
    if not isinstance(described, Mapping):
        return described
    inner = described.get("init_args")
    if described.get("class_path") not in CLIP_TOWERS or not isinstance(inner, Mapping | None):
        return {name: from_run(value, run, part) for name, value in described.items()}
    folder = Path(run) / MODELS / part
    if part == "target_side" and not folder.is_dir():
        folder = folder.with_name("text_side")  # what release 0.1 called it
    if not folder.is_dir():
        raise InputError(f"{run}: has no {MODELS}/{part}, which says what its CLIP model is. Restore it, or train again")
    return {**described, "init_args": {**(inner or {}), "model": f"{LOCAL}{folder}", "weights": False}}
