"""Encoded pictures through a network on all cores: threads decode and compute batches, and the results come back in order.

    for batch in embed_pictures(shards.image_bytes, batches, trunk, trunk.preprocessing): batch.rows, batch.bad

On a CPU each thread takes a batch from bytes to rows on its own core, with no synchronisation between cores inside a layer.
On an accelerator the threads decode, and take turns to run the network.
EfficientNet-Lite0 at 224 px from JPEGs of that size, two cores of a shared server CPU, pictures per second (best of two to
three runs, on a busy machine):

    two threads inside the layers, batches of 32, without decoding             66
    one thread per core, with decoding, batches of 32                          67
    the same, batches of 8                                                     92
    the same, batches of 8, batch norms folded (`multimodal.towers.folded`)   104

and on another day, 89 with all of that and 112 with freed memory kept (`multimodal.machine.heap`).
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

from multimodal.data.decode import BadPicture, Decoded
from multimodal.data.order import random_words
from multimodal.data.sides import Pixels
from multimodal.errors import InputError
from multimodal.machine.cores import map_in_threads, usable_cores
from multimodal.machine.heap import freed_memory_kept
from multimodal.pictures.preprocessing import height_width
from multimodal.shards.ledger import Ledger
from multimodal.towers import Preprocessing, folded

LOOK_AHEAD = 3  # batches per thread: enough that none waits while the slowest picture of the oldest batch is decoded


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedBatch:
    """The features of one batch of pictures.

    ids: (n,) int64. rows: (n * views, d) float32, the views of one picture adjacent; NaN for unreadable pictures.
    bad: id of an unreadable picture -> the reason.
    extras: the result of `also` for each picture, None for unreadable ones; empty without `also`.
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

    read: id -> encoded picture; called from several threads, and may raise BadPicture. network: (b, 3, h, w) uint8 -> (b, d), used in
    evaluation mode on the device it is on. num_threads: None is one for each core this process may use. also: called with each picture
    that could be decoded.
    num_views: of each picture, first the centre crop, then random crops, each a function of (seed, view, id). exact: see `random_crop`.
    """
    device = next(network.parameters()).device
    network = folded(network)
    one_at_a_time = nullcontext() if device.type == "cpu" else Lock()

    p = preprocessing
    cut = Pixels(p.size, crop_share=p.crop_share, interpolation=p.interpolation, exact=exact, resize=p.resize, fill=p.fill)

    def embed(ids: np.ndarray) -> EmbeddedBatch:
        pixels = np.zeros((len(ids), num_views, 3, *height_width(p.size)), dtype=np.uint8)
        words = [random_words(seed, view, ids).tolist() for view in range(1, num_views)]
        extras: list[Any] = []
        bad: dict[int, str] = {}
        for place, id in enumerate(ids.tolist()):
            try:
                decoded = Decoded(read(id))  # once, for all crops
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
    """`work` on every batch, in threads that use one core each; yields the results in order, and works at most a few batches ahead."""
    num_threads = num_threads or len(usable_cores())
    with _one_core_a_thread():
        yield from map_in_threads(work, batches, num_threads, num_threads * LOOK_AHEAD, partial(torch.set_num_threads, 1))


@contextmanager
def _one_core_a_thread() -> Iterator[None]:
    """torch's thread count applies to a thread and to those made after it: restore it at the end."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(name: str | None) -> torch.device:
    """The device of that name; for None the accelerator if there is one, else the CPU. InputError if this machine has no such device."""
    if name is not None:
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # which one depends on the driver, the build and the name
            there = torch.accelerator.current_accelerator(check_available=True)
            num = torch.accelerator.device_count()
            names = ["cpu"] if there is None else ["cpu", *(f"{there.type}:{number}" for number in range(num))]
            reason = str(error).partition(". ")[0].partition("\n")[0]
            raise InputError(f"--device {name}: cannot be used here ({reason}). Available: {', '.join(names)}") from None
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def as_batches(ids: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Consecutive slices of at most batch_size ids."""
    return [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]


def pick_batch_size(size: int | None, device: torch.device, num_views: int = 1) -> int:
    """The size given, or else one that is fast: on a CPU 8 views of 224 px, whose activations stay in a core's cache; 256 elsewhere."""
    if size is not None and size < 1:
        raise InputError(f"batch_size={size} must be at least 1")
    return size or max(1, (8 if device.type == "cpu" else 256) // num_views)


def recall(ledger: Ledger, again: set[str]) -> None:
    """Keep the entries that an earlier run of the job wrote to the ledger's file, except for the places that are read again."""
    for bad in ledger.written():
        if bad.where not in again:
            ledger.bad(bad.where, bad.key, bad.reason)
