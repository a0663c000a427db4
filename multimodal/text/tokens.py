"""Tokenizers of the library tokenizers, and the batches that networks read of their tokens. It needs no torch.

tokenizer = open_tokenizer(Path("encoders/e5/tokenizer.json"), "make the folder again")
ids, mask = padded([tokenizer.encode(text).ids for text in texts])          # (b, t) each
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from multimodal.boxes import reading
from multimodal.errors import InputError, needing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

T = TypeVar("T")
_BATCH_SIZE = 32


def open_tokenizer(path: Path, again: str) -> Tokenizer:
    """The tokenizer of a file tokenizer.json; see `parse_tokenizer`."""
    with reading(path):
        content = path.read_text(encoding="utf-8")
    return parse_tokenizer(content, path, again)


def parse_tokenizer(content: str, where: Path | str, again: str) -> Tokenizer:
    """The tokenizer that a tokenizer.json describes, without the padding and truncation that it may ask for. InputError if it is none.

    where: what the content came from. again: how to get another.
    """
    with needing("search", "a text encoder"):
        from tokenizers import Tokenizer
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises a bare Exception for a file that it cannot read
        raise InputError(f"{where}: cannot be read ({error}). Restore it, or {again}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def padded(token_ids: Sequence[Sequence[int]], pad_id: int = 0, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """b texts as token ids -> ids and mask, (b, t) int64, padded on the right; mask is 1 for tokens.

    length: t; by default that of the longest.
    """
    ids_bt = np.full((len(token_ids), length or max(map(len, token_ids))), pad_id, np.int64)
    mask_bt = np.zeros_like(ids_bt)
    for row, ids in enumerate(token_ids):
        ids_bt[row, : len(ids)] = ids
        mask_bt[row, : len(ids)] = 1
    return ids_bt, mask_bt


def in_batches(members: Sequence[T], size: int | None = None) -> Iterator[Sequence[T]]:
    """The members, at most size at a time; None: as many as suit a network of texts."""
    size = size or _BATCH_SIZE
    for first in range(0, len(members), size):
        yield members[first : first + size]
