"""Open a text space by the class that its manifest names.

space = open_space("spaces/lda40")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from multimodal.boxes import MANIFEST, read_manifest, reading
from multimodal.boxes.trust import find_class
from multimodal.errors import InputError
from multimodal.text.clip import OpenClipSpace
from multimodal.text.encoder import EncoderSpace
from multimodal.text.joined import JoinedSpace
from multimodal.text.no_texts import NoTexts
from multimodal.text.paragraphs import Doc2VecSpace
from multimodal.text.projected import ProjectedSpace
from multimodal.text.space import KIND, BoxedSpace, TextSpace
from multimodal.text.subwords import FastTextSpace
from multimodal.text.topics import TopicSpace
from multimodal.text.words import WordSpace

_OURS: tuple[type, ...] = (
    *(Doc2VecSpace, EncoderSpace, FastTextSpace, JoinedSpace),
    *(NoTexts, OpenClipSpace, ProjectedSpace, TopicSpace, WordSpace),
)
SPACES = {f"{place}.{space.__name__}": space for space in _OURS for place in (__package__, space.__module__)}
"""Class path -> text space, for those that a box may name without trust."""


def open_space(path: str | Path, trust: Sequence[str] = ()) -> TextSpace:
    """The text space of a box, by the class path in its manifest: of this project, or of a package that the user trusts.

    InputError if there is none, or if that class is not a text space. A class of another package is imported only if the package is in
    trust.
    """
    path = Path(path)
    named = read_manifest(path, kind=KIND).config.get("class")
    if not isinstance(named, str) or "." not in named:
        raise InputError(f"{path / MANIFEST}: config.class is {named!r}; it must be the path of a text space's class. Fit the space again")
    space_class = find_class(named, SPACES, object, path, trust)
    missing = [
        part for part in ("family", "dim", "fingerprint", "embed", "unknown_words", "save", "load") if not hasattr(space_class, part)
    ]
    if missing:
        raise InputError(f"{path}: {named} is not a text space: it has no {', '.join(missing)}")
    with reading(path):
        if space_class in (JoinedSpace, ProjectedSpace):  # those that contain other spaces, of any class
            space: Any = cast(Any, space_class).load(path, lambda below: open_space(below, trust))
        else:
            space = cast(Any, space_class).load(path)
    if isinstance(space, BoxedSpace):
        space.path = path
    return cast(TextSpace, space)
