"""Scene text: what can be read in a picture (signs, labels, shirts), added to the text that came with it.

    data-prep make-shards instacities InstaCities1M --ocr rapidocr --output shards/instacities-ocr
    read = find_reader("rapidocr")
    read(encoded)                         # ["FISH MARKET", "open 7 days"]

A reader of your own is a function from an encoded picture to the lines it shows, named by its path: --ocr my_package.my_module:my_reader.

RapidOCR runs the PP-OCR networks (detection and recognition of Latin and Chinese script), which lie inside its package: nothing is
fetched. It takes a few tenths of a second a picture on one core, which makes it by far the slowest step of a job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from multimodal.door import load
from multimodal.errors import InputError, missing_extra
from multimodal.pairs import Pair
from multimodal.pictures import BadPicture, picture

Reader = Callable[[bytes], list[str]]
"""An encoded picture -> the lines of text in it, from the top; [] where there are none, or the picture does not decode."""

RAPIDOCR = "rapidocr"


def find_reader(name: str) -> Reader:
    """The reader `rapidocr`, or the function at "package.module:function". InputError where there is none, or its package is missing."""
    if ":" in name:
        return load(name)
    if name != RAPIDOCR:
        raise InputError(f"--ocr {name}: there is {RAPIDOCR}, and a reader of your own is named as package.module:function")
    _engine()
    return rapidocr


def describe_reader(name: str) -> str:
    """What a manifest says of it: RapidOCR with its release, since the next one may bring other networks."""
    find_reader(name)
    return f"{RAPIDOCR} {version(RAPIDOCR)}" if name == RAPIDOCR else name


def with_scene_text(pairs: Iterator[Pair], ocr: str | None) -> Iterator[Pair]:
    """The pairs with what the reader of that name finds added; as they are where none is named."""
    return pairs if ocr is None else add_scene_text(pairs, find_reader(ocr))


def add_scene_text(pairs: Iterable[Pair], read: Reader) -> Iterator[Pair]:
    """The pairs, the lines that a reader finds in each picture added to the main text, below it.

    So a topic, which a column makes of the main text, is that of caption and scene text together. The lines alone are in the metadata, as
    `scene_text`; a pair in whose picture nothing can be read stays as it is.
    """
    for pair in pairs:
        lines = [line.strip() for line in read(pair.image) if line.strip()]
        if not lines:
            yield pair
            continue
        scene_text = "\n".join(lines)
        texts = (f"{pair.texts[0]}\n{scene_text}", *pair.texts[1:])
        yield replace(pair, texts=texts, metadata={**pair.metadata, "scene_text": scene_text})


def rapidocr(image: bytes) -> list[str]:
    """The lines that RapidOCR is surer of than not, from the top; [] for what does not decode: whoever checks it says so."""
    try:
        pixels = np.asarray(picture(image))
    except BadPicture:
        return []
    found = _engine()(np.ascontiguousarray(pixels[:, :, ::-1]))  # blue first, as OpenCV has it
    return list(found.txts or ())


@cache
def _engine() -> Any:
    """One a process, on one core: the job has a process on each."""
    try:
        from rapidocr import RapidOCR
    except ModuleNotFoundError as error:
        raise missing_extra("ocr", f"--ocr {RAPIDOCR} needs the package {error.name}, which is not installed") from None
    threads = {f"EngineConfig.onnxruntime.{which}_op_num_threads": 1 for which in ("intra", "inter")}
    return RapidOCR(params={**threads, "Global.log_level": "error"})
