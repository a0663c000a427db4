"""Encoded pictures through a network, all cores busy: batches are decoded and computed in threads, and come back in order.

    for batch in embed_pictures(shards.image_bytes, batches, trunk, trunk.preprocessing): batch.rows, batch.bad

On a CPU each thread takes a batch from bytes to rows by itself, with one core: that needs no hand-over between cores inside a layer.
On an accelerator the threads decode, and one at a time runs the network.
EfficientNet-Lite0 at 224 px from JPEGs of that size, two cores of a shared server CPU, pictures a second (best of two to
three runs; others ran beside them):

    two threads inside the layers, 32 pictures, nothing decoded                66
    a thread a core, decoding too: 32 pictures at a time                       67
    the same, 8 at a time                                                      92
    the same, 8 at a time, batch norms folded (`multimodal.towers.folded`)    104

and on another day, 89 with all of that and 112 with freed memory kept (`multimodal.heap`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import nn

from multimodal.cores import map_in_threads, usable_cores
from multimodal.data.decode import BadPicture, Decoded
from multimodal.data.order import random_words
from multimodal.data.sides import Pixels
from multimodal.errors import InputError
from multimodal.heap import freed_memory_kept
from multimodal.shards.ledger import Ledger
from multimodal.towers import Preprocessing, folded

LOOK_AHEAD = 3  # batches a thread: enough that none waits while the slowest picture of the oldest batch is decoded


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedBatch:
    """What became of one batch of pictures.

    ids: (n,) int64. rows: (n * views, d) float32, the views of one picture adjacent; NaN where the picture could not be read.
    bad: id -> the reason.
    extras: what `also` made of each picture, None where it could not be read; empty where nothing was asked for.
    """

    ids: np.ndarray
    rows: np.ndarray
    bad: dict[int, str]
    extras: list[Any]


def embed_pictures(
    read: Callable[[int], bytes],
    batches: Iterable[np.ndarray],
    network: nn.Module,
    preprocessing: Preprocessing,
    num_threads: int | None = None,
    also: Callable[[Decoded], Any] | None = None,
    num_views: int = 1,
    seed: int = 0,
    exact: bool = True,
) -> Iterator[EmbeddedBatch]:
    """Yield an EmbeddedBatch for every array of ids, in their order.

    read: id -> encoded picture; called from several threads. network: (b, 3, h, w) uint8 -> (b, d), used in evaluation mode on the
    device it is on. num_threads: None is one for each core this process may use. also: run on each picture that could be decoded.
    num_views: of each picture, the middle first and then random rectangles, each a function of (seed, view, id); exact: see `random_crop`.
    """
    device = next(network.parameters()).device
    network = folded(network)
    one_at_a_time = nullcontext() if device.type == "cpu" else Lock()

    cut = Pixels(preprocessing.size, crop_share=preprocessing.crop_share, interpolation=preprocessing.interpolation, exact=exact)

    def embed(ids: np.ndarray) -> EmbeddedBatch:
        pixels = np.zeros((len(ids), num_views, 3, preprocessing.size, preprocessing.size), dtype=np.uint8)
        words = [random_words(seed, view, ids).tolist() for view in range(1, num_views)]
        extras: list[Any] = []
        bad: dict[int, str] = {}
        for place, id in enumerate(ids.tolist()):
            decoded = Decoded(read(id))  # once, for all that is cut from it
            try:
                pixels[place, 0] = cut.of(decoded, None)
                for view, of_view in enumerate(words, start=1):
                    pixels[place, view] = cut.of(decoded, of_view[place])
                extra = also(decoded) if also else None
            except BadPicture as reason:
                bad[id] = str(reason)
                extra = None
            if also:
                extras.append(extra)
        with one_at_a_time, torch.inference_mode():
            rows = network(torch.from_numpy(pixels.reshape(-1, *pixels.shape[2:])).to(device)).float().cpu().numpy()
        if bad:
            rows.reshape(len(ids), num_views, -1)[[place for place, id in enumerate(ids.tolist()) if id in bad]] = np.nan
        return EmbeddedBatch(ids, rows, bad, extras)

    with freed_memory_kept() if device.type == "cpu" else nullcontext():
        yield from in_order(embed, batches, num_threads)


def in_order(
    work: Callable[[np.ndarray], EmbeddedBatch], batches: Iterable[np.ndarray], num_threads: int | None
) -> Iterator[EmbeddedBatch]:
    """`work` on every batch in threads that use one core each; results in the order of the batches, never more than a few ahead."""
    num_threads = num_threads or len(usable_cores())
    with _one_core_a_thread():
        yield from map_in_threads(work, batches, num_threads, num_threads * LOOK_AHEAD, partial(torch.set_num_threads, 1))


@contextmanager
def _one_core_a_thread() -> Iterator[None]:
    """torch's thread count is set for a thread and for those made after it: put back what it was."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str | None) -> torch.device:
    """The device of that name; None is the accelerator where there is one, and the CPU otherwise. InputError where this machine has none
    of that name.
    """
    if name is not None:
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # as a driver, a build or a name has it
            there = torch.accelerator.current_accelerator(check_available=True)
            num = torch.accelerator.device_count()
            names = ["cpu"] if there is None else ["cpu", *(f"{there.type}:{number}" for number in range(num))]
            reason = str(error).partition(". ")[0].partition("\n")[0]
            raise InputError(f"--device {name}: cannot be used here ({reason}). There are: {', '.join(names)}") from None
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def as_batches(ids: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive parts of at most batch_size."""
    return [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]


def pick_batch_size(size: int | None, device: torch.device, num_views: int = 1) -> int:
    """The size given, or what is fast there: on a CPU 8 views of 224 px, whose activations stay in a core's cache, 256 elsewhere."""
    if size is not None and size < 1:
        raise InputError(f"batch_size={size} must be at least 1")
    return size or max(1, (8 if device.type == "cpu" else 256) // num_views)


def recall(ledger: Ledger, again: set[str]) -> None:
    """Keep what an earlier run of the job wrote into the ledger's file, but for the places that are read again."""
    for bad in ledger.written():
        if bad.where not in again:
            ledger.bad(bad.where, bad.key, bad.reason)
