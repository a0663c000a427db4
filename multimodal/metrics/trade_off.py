"""Both sides of a fine-tuning: what it learns on its own pairs, against what is left of what the weights could do before.

left = kept(value=48.0, before=64.7, chance=1.0)        # 73.8 per cent
trade_off(own=41.0, kept=left)                          # 55.0
"""

from __future__ import annotations


def kept(value: float, before: float, chance: float) -> float:
    """What is left of a figure, in per cent of what it was above chance; at least 0, and above 100 if it grew. before is above chance."""
    return 100 * (max(0.0, value - chance) / (before - chance))


def trade_off(own: float, kept: float, weight: float = 0.5) -> float:
    """own ^ (1 - weight) * kept ^ weight: the weighted geometric mean of both sides, in per cent like them.

    It does not depend on the scale of either: to multiply one side is worth as much wherever it starts, and to lose one is to lose all.
    weight: of what is kept, from 0 to 1; 0.5 is the geometric mean.
    """
    return float(own ** (1 - weight) * kept**weight)
