"""Which layer of open_clip's own networks a weight is in: for learning rates that differ by layer. timm's networks know theirs.

    layer_numbers(trunk.model)      # {"conv1.weight": 0, "transformer.resblocks.0.ln_1.weight": 1, ..., "proj": 13}

The groups are those that open_clip itself locks and unlocks (`VisionTransformer.lock`, `lock_text_tower`): the embeddings; each block, the
last one with the norm and the pooling after it; the projection. In a ModifiedResNet they are the stem, each block, and the pooling.
"""

from __future__ import annotations

import re

from torch import nn

_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.|layer(\d+)\.(\d+)\.")
_AFTER_THE_LAST = ("ln_post", "ln_final", "attn_pool.")
_PROJECTIONS = ("proj", "text_projection", "attnpool.")


def layer_numbers(network: nn.Module) -> dict[str, int] | None:
    """Name of a parameter -> the number of its layer, from 0, the one that reads the input; None for networks of others."""
    if not any(hasattr(network, part) for part in ("attnpool", "token_embedding", "class_embedding")):
        return None
    names = [name for name, _ in network.named_parameters()]
    blocks = sorted({place for name in names if (place := _place(name)) is not None})
    if not blocks:
        return None
    numbers = {place: number for number, place in enumerate(blocks, start=1)}
    return {name: _number(name, numbers) for name in names}


def _place(name: str) -> tuple[int, int] | None:
    """The stage and the block of a name, if it is in one."""
    found = _BLOCK.match(name)
    if found is None:
        return None
    return (0, int(found[1])) if found[1] is not None else (int(found[2]), int(found[3]))


def _number(name: str, numbers: dict[tuple[int, int], int]) -> int:
    place = _place(name)
    if place is not None:
        return numbers[place]
    if name.startswith(_AFTER_THE_LAST):
        return len(numbers)
    return len(numbers) + 1 if name.startswith(_PROJECTIONS) else 0
