"""Scene text (OCR): text found in a picture (signs, labels, shirts), added to the text that came with it.

    data-prep make-shards instacities InstaCities1M --ocr rapidocr --output shards/instacities-ocr
    read = find_reader("rapidocr")
    read(encoded)                         # ["FISH MARKET", "open 7 days"]

Your own reader is a function from an encoded picture to its lines of text, named by its path: --ocr my_package.my_module:my_reader.

RapidOCR runs the PP-OCR networks (detection and recognition of Latin and Chinese script), which are inside its package: nothing is
downloaded. It takes a few tenths of a second per picture on one core, by far the slowest step of a job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from multimodal.doors.dispatch import load
from multimodal.errors import InputError, missing_extra
from multimodal.pairs import Pair
from multimodal.pictures.decode import BadPicture, picture

Reader = Callable[[bytes], list[str]]
"""An encoded picture -> the lines of text in it, from the top; [] if there are none, or the picture does not decode."""

RAPIDOCR = "rapidocr"


def find_reader(name: str) -> Reader:
    """The reader `rapidocr`, or the function at "package.module:function". InputError if there is none, or its package is missing."""
    if ":" in name:
        return load(name)
    if name != RAPIDOCR:
        raise InputError(f"--ocr {name}: unknown reader. Use {RAPIDOCR}, or name your own as package.module:function")
    _engine()
    return rapidocr


def describe_reader(name: str) -> str:
    """Its entry in a manifest: RapidOCR with its version, since another version may have other networks."""
    find_reader(name)
    return f"{RAPIDOCR} {version(RAPIDOCR)}" if name == RAPIDOCR else name


def with_scene_text(pairs: Iterator[Pair], ocr: str | None) -> Iterator[Pair]:
    """The pairs with the text found by the named reader added; unchanged if none is named."""
    return pairs if ocr is None else add_scene_text(pairs, find_reader(ocr))


def add_scene_text(pairs: Iterable[Pair], read: Reader) -> Iterator[Pair]:
    """The pairs, with the lines that a reader finds in each picture appended to the main text.

    So topics, which are inferred from the main text, cover caption and scene text together. The metadata has the lines alone, as
    `scene_text`. A pair whose picture shows no text is unchanged.
    """
    for pair in pairs:
        lines = [line.strip() for line in read(pair.image) if line.strip()]
        if not lines:
            yield pair
            continue
        scene_text = "\n".join(lines)
        texts = ("\n".join([*pair.texts[:1], scene_text]), *pair.texts[1:])
        yield replace(pair, texts=texts, metadata={**pair.metadata, "scene_text": scene_text})


def rapidocr(image: bytes) -> list[str]:
    """The lines that RapidOCR accepts at its default confidence, from the top; [] if it does not decode: a later check reports it."""
    try:
        pixels = np.asarray(picture(image))
    except BadPicture:
        return []
    found = _engine()(np.ascontiguousarray(pixels[:, :, ::-1]))  # blue first, as in OpenCV
    return list(found.txts or ())


@cache
def _engine() -> Any:
    """One per process, on one core: the job has a process on each."""
    try:
        from rapidocr import RapidOCR
    except ModuleNotFoundError as error:
        raise missing_extra("ocr", f"--ocr {RAPIDOCR} needs the package {error.name}, which is not installed") from None
    threads = {f"EngineConfig.onnxruntime.{which}_op_num_threads": 1 for which in ("intra", "inter")}
    return RapidOCR(params={**threads, "Global.log_level": "error"})
