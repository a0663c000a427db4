"""Several text spaces as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multimodal.text import JoinedSpace, open_space


def join_spaces(spaces: list[Path], trust: Sequence[str] = ()) -> JoinedSpace:
    """Make a space whose rows are those of several spaces, side by side. Nothing is fitted, so it needs no shards.

    Args:
        spaces: the folders of two or more text spaces, such as a sentence encoder's and one of word vectors.
        trust: your own packages whose classes they name. Their code is run.
    """
    return JoinedSpace([open_space(space, trust) for space in spaces])
