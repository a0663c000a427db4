"""What the bytes of a picture say: its format, and whether they really decode (`multimodal.pictures` decides that).

picture_extension(b"\\x89PNG...")   # "png", whatever the file was called
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multimodal.pairs import Pair
from multimodal.picture_files import picture_format, why_unsupported
from multimodal.pictures import BadPicture, check_decodes, claimed_size
from multimodal.shards import Ledger


def picture_extension(image: bytes) -> str:
    """The member extension ("jpg", "png", "webp" or "avif") that the content asks for. BadPicture where it is none of them."""
    if extension := picture_format(image[:64]):
        return extension
    raise BadPicture(why_unsupported(image[:64]))


def is_smaller(image: bytes, min_side_px: int) -> bool:
    """Whether a side has fewer pixels, by the header alone. What does not open is not small: whoever decodes it says what is wrong."""
    try:
        return min(claimed_size(image)) < min_side_px
    except BadPicture:
        return False


def checked(pair: Pair) -> Pair:
    """The pair as it is, once its picture decodes; BadPicture where it does not."""
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
) -> Iterator[Pair]:
    """The pair, in a form for `yield from`; or nothing, and a line in the ledger that says why.

    where: the file or folder it came from, for the ledger. texts: blank ones are left out, and at least one has to stay.
    """
    texts = tuple(text.strip() for text in texts if text.strip())
    try:
        if not texts:
            raise BadPicture("has no text")
        pair = Pair(name, image, picture_extension(image), texts, group, split, metadata or {})
    except BadPicture as error:
        ledger.bad(where, name, str(error))
        return
    yield pair
