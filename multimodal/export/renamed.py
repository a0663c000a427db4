"""Names of release 0.1, in which a pair's target was called its text: runs of then are still read, recipes and options of then refused.

config, state = current_settings(config), current_tensors(state)          # of a run's config.yaml and checkpoint, of either release
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

RENAMED = {"data.text": "data.target", "model.text_side": "model.target_side"}
"""The old name of a setting -> its name since 0.2."""


def refused(key: str) -> str | None:
    """What to say about a setting that has an old name, or is part of one; None if its name is not old."""
    for old, new in RENAMED.items():
        if f"{key}.".startswith(f"{old}."):
            return f"{old} is {new} since 0.2: a picture may be taught by a label too. Write {key.replace(old, new, 1)}"
    return None


def current_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run by their names of today."""
    renamed = dict(config)
    for old, new in RENAMED.items():
        part, _, name = old.partition(".")
        of_part = renamed.get(part)
        if isinstance(of_part, Mapping) and name in of_part:
            renamed[part] = {new.partition(".")[2] if key == name else key: value for key, value in of_part.items()}
    return renamed


def current_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names of today."""
    return {f"target_side.{name.removeprefix('text_side.')}" if name.startswith("text_side.") else name: one for name, one in state.items()}
