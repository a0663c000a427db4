"""The tokenizer of a transformers folder as a tokenizer.json that gives the same tokens.

SigLIP's own tokenizer is a sentencepiece model behind a function of transformers: both become parts of the file.
"""

from __future__ import annotations

import json
import re
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, normalizers, processors
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import SpmConverter

from multimodal.errors import InputError, needing

TRIED = (
    "a photo of a dog",
    "Zwei Hunde; \u4e24\u53ea\u72d7 \U0001f415!",
    "snow " * 300,
    "l'\u00e9t\u00e9 2024",
    "  THE un_der_scored,\n(punctuated) text? don't they're &amp; <b>x</b> ",
    "",
)
"""Texts on which the saved tokenizer must agree with the one that it was made from."""


def read_tokenizer(folder: Path, text: Mapping[str, Any], is_siglip: bool) -> tuple[dict[str, Any], str]:
    """The settings that `ClipTokenizer` takes, and its tokenizer.json. text: the `text_cfg` that it is for.

    InputError if the folder has no tokenizer, or one whose tokens cannot be repeated.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # of several libraries
        raise InputError(
            f"{folder}: its tokenizer cannot be loaded ({' '.join(str(error).split())[:300]}). Put the tokenizer's files into the folder; "
            "SigLIP's needs the package sentencepiece"
        ) from None
    if tokenizer.pad_token_id is None:
        raise InputError(f"{folder}: its tokenizer has no padding token, which an export needs")
    if "eos_id" in text and tokenizer.eos_token_id != text["eos_id"]:
        raise InputError(
            f"{folder}: its tokenizer ends a text with token {tokenizer.eos_token_id}, but the network looks for {text['eos_id']} "
            "(eos_token_id of text_config in config.json): all texts would have one vector. Correct the one that is wrong"
        )
    made = tokenizer.backend_tokenizer if tokenizer.is_fast else _converted(tokenizer, folder)
    content: str = made.to_str()
    _check(tokenizer, content, folder, int(text["context_length"]))
    if is_siglip and "attention_mask" in tokenizer.model_input_names:
        print(
            f"{folder}: its tokenizer also gives an attention mask, with which transformers hides the padding from SigLIP. The network was "
            "trained to see it, so the export does without the mask",
            file=sys.stderr,
        )
    return {"clean": "none", "pad_id": tokenizer.pad_token_id, "strip_id": None}, content


def _converted(slow: Any, folder: Path) -> Tokenizer:
    """SigLIP's tokenizer in the library tokenizers: what transformers does to a text becomes its normalizer."""
    if type(slow).__name__ != "SiglipTokenizer":
        raise InputError(f"{folder}: its tokenizer {type(slow).__name__} has no tokenizer.json, which an export needs")
    with needing("train", "SigLIP's tokenizer"):
        made: Tokenizer = SpmConverter(slow).converted()
    lower = [normalizers.Lowercase()] if slow.do_lower_case else []
    punctuation = f"[{re.escape(string.punctuation)}]"
    steps = [normalizers.Replace(Regex(punctuation), ""), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    made.normalizer = normalizers.Sequence([*lower, *steps, made.normalizer])
    made.post_processor = processors.TemplateProcessing(single=f"$A {slow.eos_token}", special_tokens=[(slow.eos_token, slow.eos_token_id)])
    return _rounded(made)


def _rounded(made: Tokenizer) -> Tokenizer:
    """The same with the scores of pieces in as few digits as a float32 needs: those of a float64 change each time a file is read."""
    content = json.loads(made.to_str())
    for piece in content["model"].get("vocab", []):
        if isinstance(piece, list):
            piece[1] = float(str(np.float32(piece[1])))
    return Tokenizer.from_str(json.dumps(content))


def _check(tokenizer: Any, content: str, folder: Path, context: int) -> None:
    """InputError if the saved tokenizer gives other tokens than transformers does."""
    saved = Tokenizer.from_str(content)
    saved.no_padding()
    saved.enable_truncation(context)
    wanted = tokenizer(list(TRIED), max_length=context, padding="max_length", truncation=True)["input_ids"]
    for text, ids in zip(TRIED, wanted, strict=True):
        made = saved.encode(text).ids
        if [*made, *[tokenizer.pad_token_id] * (context - len(made))] != list(ids):
            side = ". It pads on the left (padding_side)" if tokenizer.padding_side == "left" else ""
            raise InputError(f"{folder}: its tokenizer pads or cuts texts in a way that an export cannot repeat ({text[:40]!r}){side}")
