"""Checks of a picture's bytes: its format, and whether it decodes (`multimodal.pictures.decode` decides that).

picture_extension(b"\\x89PNG...")   # "png", regardless of the file's name
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multimodal.pairs import Pair
from multimodal.pictures.decode import BadPicture, check_decodes, claimed_size
from multimodal.pictures.formats import picture_format, why_unsupported
from multimodal.shards import Ledger


def picture_extension(image: bytes) -> str:
    """The extension for the content: "jpg", "png", "webp" or "avif". BadPicture for any other format."""
    if extension := picture_format(image[:64]):
        return extension
    raise BadPicture(why_unsupported(image[:64]))


def is_smaller(image: bytes, min_side_px: int) -> bool:
    """Whether a side has fewer pixels, by the header alone. False for a file that does not open: the decoder will report it."""
    try:
        return min(claimed_size(image)) < min_side_px
    except BadPicture:
        return False


def checked(pair: Pair) -> Pair:
    """The pair itself, if its picture decodes; BadPicture otherwise."""
    check_decodes(pair.image)
    return pair


def offer(
    ledger: Ledger,
    where: str,
    name: str,
    image: bytes,
    texts: Sequence[str],
    group: str,
    split: str = "",
    metadata: Mapping[str, Any] | None = None,
    needs_text: bool = True,
) -> Iterator[Pair]:
    """Yields the pair; or yields nothing, and adds the reason to the ledger.

    where: the file or folder it came from, for the ledger. texts: blank ones are dropped, and at least one must remain if
    needs_text is true: false for a source of classes or identities.
    """
    texts = tuple(text.strip() for text in texts if text.strip())
    try:
        if needs_text and not texts:
            raise BadPicture("has no text")
        pair = Pair(name, image, picture_extension(image), texts, group, split, metadata or {})
    except BadPicture as error:
        ledger.bad(where, name, str(error))
        return
    yield pair
