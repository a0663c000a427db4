"""A source without input, to see a job work: numbers as pairs, at any pace, with accidents. Processes import it by its name."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.sources import cut
from multimodal.pairs import Pair
from multimodal.shards import Ledger

DIE_AT, DIED = "MADE_SOURCE_DIE_AT", "MADE_SOURCE_DIED"
"""Variables of the environment: the number at which the process that reads kills itself; a file that keeps it from doing so twice."""

SIZE_PX = 40  # 5 KB of noise: whoever keeps ten thousand of them is found out


def made(num: int, delay_s: float = 0.0, repeat: int = 0, part: Mapping[str, Any] | None = None, *, ledger: Ledger) -> Iterator[Pair]:
    """Numbers from 0; every seventh is broken.

    num: how many.
    delay_s: how long each takes.
    repeat: so many of the last are called as the first ones are.
    """
    pictures = [_noise(seed) for seed in range(4)]
    for n in range(num) if part is None else range(part["start"], part["stop"]):
        time.sleep(delay_s)
        _accident(n)
        name = f"{n - (num - repeat) if n >= num - repeat else n}.png"
        image = bytes(bytearray(pictures[n % 4]))  # each its own memory, as pictures that were read
        if n % 7 == 3:
            image = image[: len(image) // 2]
        yield Pair(name, image, "png", (f"number {n}",), str(n))


def plan(pairs_per_shard: int, num: int, delay_s: float, repeat: int) -> list[dict[str, Any]]:
    """Ranges of the numbers."""
    return cut(num, pairs_per_shard)


def _noise(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def _accident(n: int) -> None:
    if os.environ.get(DIE_AT) != str(n):
        return
    died = os.environ.get(DIED)
    if died and not Path(died).exists():
        Path(died).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if not died:
        os.kill(os.getpid(), signal.SIGKILL)
