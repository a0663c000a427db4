"""A batch that does not fit into memory: encoded in micro-batches, with the loss and the gradient of the whole batch.

    image = encode(tower, batch.image, micro_batch_size=64)           # (b, d), as tower(batch.image)
    loss, _ = objective(image, target, batch.valid)                   # all b pairs: each has b - 1 negatives
    loss.backward()

A contrastive objective needs all pairs of a batch, but only their embeddings; it is the towers' activations that fill the memory. Cached
gradients (GradCache: Gao, Zhang, Han and Callan, 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup") encode a
micro-batch, keep its embeddings and drop its activations. When the gradient of the loss with respect to all embeddings is known, each
micro-batch is encoded again, with the same random numbers, and its part of that gradient goes on to the weights: one more forward pass.

This is gradient checkpointing with a micro-batch as its unit, so torch's own does it. `loss.backward()` stays one backward pass, in which
each weight gets its gradient once: DistributedDataParallel synchronises once, and gradient scaling, clipping and callbacks work unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from multimodal.errors import InputError
from multimodal.towers import Standardise

OF_A_BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, Standardise)
"""Modules that in training compute with the mean of a batch, or of all batches so far."""
REMEDY = (
    "Freeze that part (a trunk's frozen: true), choose one that treats each picture by itself (layer or group norm), or leave "
    "model.micro_batch_size out"
)


def encode(tower: nn.Module, rows: Tensor | Sequence[str], micro_batch_size: int | None) -> Tensor:
    """`tower(rows)`, (b, d), keeping the activations of at most micro_batch_size rows at a time; None: of all.

    rows: (b, ...), or b strings. The tower must treat each row by itself: InputError if encoding changes one of its buffers, as running
    statistics do. Its dropout is drawn for each micro-batch in turn.
    """
    if micro_batch_size is None or len(rows) <= micro_batch_size:
        return tower(rows)
    tensor = rows if isinstance(rows, Tensor) else next(chain(tower.parameters(), tower.buffers()), torch.empty(0))
    before = {name: (buffer, buffer._version) for name, buffer in tower.named_buffers()}
    with _casts_anew(tensor.device.type):
        parts = [_encode(tower, rows[start : start + micro_batch_size], tensor) for start in range(0, len(rows), micro_batch_size)]
    for name, buffer in tower.named_buffers():
        then, version = before.get(name, (None, 0))
        if buffer is not then or buffer._version != version:
            raise InputError(
                f"model.micro_batch_size={micro_batch_size}: encoding changes {name} of {type(tower).__name__}, and each micro-batch is "
                f"encoded twice. {REMEDY}"
            )
    return torch.cat(parts)


def check_rows_are_independent(name: str, tower: nn.Module) -> None:
    """InputError if a part of the tower is in training mode and `OF_A_BATCH`: in micro-batches it would compute something else.

    name: the tower's, in the message.
    """
    for path, part in tower.named_modules():
        if isinstance(part, OF_A_BATCH) and part.training:
            where = f"{name}.{path}" if path else name
            raise InputError(
                f"model.micro_batch_size: {where} is a {type(part).__name__}, whose statistics would be those of a micro-batch "
                f"instead of the batch. {REMEDY}"
            )


def _encode(tower: nn.Module, part: Tensor | Sequence[str], tensor: Tensor) -> Tensor:
    """tensor: any on the tower's device, by which torch finds the random numbers to repeat; strings have no device."""
    if not torch.is_grad_enabled():
        return tower(part)
    embeddings: Tensor = checkpoint(
        lambda part, tensor: tower(part), part, tensor, use_reentrant=False, context_fn=lambda: (nullcontext(), _SameNumbers())
    )
    return embeddings


def _casts_anew(device: str) -> AbstractContextManager[Any]:
    """Autocast as it is, but each micro-batch casts the weights itself: the gradients of a shared cast would be summed in bfloat16."""
    if not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=False)


class _SameNumbers(AbstractContextManager[None]):
    """Inside it, Python and NumPy draw the random numbers that they drew after it was made; torch's are repeated by `checkpoint`."""

    def __init__(self) -> None:
        self.then = random.getstate(), np.random.get_state()

    def __enter__(self) -> None:
        self.now = random.getstate(), np.random.get_state()
        self._set(*self.then)

    def __exit__(self, *error: object) -> None:
        self._set(*self.now)

    @staticmethod
    def _set(python: Any, numpy: Any) -> None:
        random.setstate(python)
        np.random.set_state(numpy)
