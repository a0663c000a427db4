"""Texts as the text towers of open_clip read them: cleaned, as tokens, cut at the context length.

tokenizer = ClipTokenizer({"clean": "lower", "pad_id": 0}, context_length=77)      # OpenAI's vocabulary, which open_clip has
tokenizer = tokenizer.with_vocabulary(path)                                        # the same without open_clip, from a tokenizer.json
tokenizer.tokens("a dog on the beach").ids                                         # with the special tokens, not padded
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.errors import InputError, needing
from multimodal.text.cleaning import CLEANINGS, OPEN_CLIPS, cleaned
from multimodal.text.encoder import LONGEST_TEXT, NO_ONNX
from multimodal.text.long_texts import LongTexts, check_long_texts, split
from multimodal.text.tokens import open_tokenizer, padded, parse_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("<start_of_text>", "<end_of_text>")
"""OpenAI's special tokens, as open_clip calls them."""
LONGEST_WORD = 1000
"""Letters of a word that are read: open_clip's own tokenizer takes a time that grows with the square of a word's length."""
_LONG_WORD = re.compile(rf"(\S{{{LONGEST_WORD}}})\S+")
MAX_CONTEXT = 32_768
_AGAIN = "make the export again"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as the tower reads it. ids: with the special tokens. is_cut: the text was longer. is_empty: it has only special tokens."""

    ids: tuple[int, ...]
    is_cut: bool
    is_empty: bool


class ClipTokenizer:
    """The tokenizer of a CLIP model.

    settings: clean (one of CLEANINGS; for OpenAI's tokenizer of OPEN_CLIPS), pad_id, strip_id, a token that becomes 0, or None, and
    perhaps long_texts (LongTexts, "cut" without it); JSON values.
    context_length: how many tokens the tower reads, special ones included.
    content: a tokenizer.json of the library tokenizers; None for OpenAI's tokenizer, which open_clip has.
    where: where they come from, for messages.
    vocabulary: OpenAI's tokenizer as a tokenizer.json (`Spelling`), which is read instead of open_clip's.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        context_length: Any,
        content: str | None = None,
        where: Path | str = "tokenizer",
        vocabulary: Path | None = None,
    ) -> None:
        clean, pad_id = settings.get("clean"), settings.get("pad_id")
        known = OPEN_CLIPS if content is None else CLEANINGS
        if clean not in known or type(pad_id) is not int:
            raise InputError(f"{where}: tokenizer has clean {clean!r} and pad_id {pad_id!r}; expected {' or '.join(known)} and a number")
        if type(context_length) is not int or not 2 < context_length <= MAX_CONTEXT:
            raise InputError(f"{where}: context_length is {context_length!r}; expected a number of tokens, 3 to {MAX_CONTEXT}")
        self.long_texts = settings.get("long_texts", "cut")
        check_long_texts(self.long_texts, where)
        self.settings = settings
        self.context_length = context_length
        self.content = content
        self.where = where
        self.vocabulary = vocabulary
        self.pad_id = pad_id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClipTokenizer):
            return NotImplemented
        one, two = ((dict(each.settings), each.context_length, each.content) for each in (self, other))
        return one == two

    def tokens(self, text: str) -> Tokens:
        longer = len(text) > LONGEST_TEXT
        if self._tokenizer is not None:
            encoding = self._tokenizer.encode(self._cleaned(text))
            separator = self.settings.get("strip_id")
            ids = tuple(0 if id == separator else id for id in encoding.ids)
            return Tokens(ids, longer or bool(encoding.overflowing), all(encoding.special_tokens_mask))
        inner = self._spelling.encode(_LONG_WORD.sub(r"\1", text[:LONGEST_TEXT]))
        is_cut = longer or len(inner) > self.context_length - 2
        inner = inner[: self.context_length - 2]
        return Tokens((self._spelling.sot_token_id, *inner, self._spelling.eot_token_id), is_cut, not inner)

    def with_long_texts(self, long_texts: LongTexts) -> ClipTokenizer:
        """The same for long texts that are read otherwise."""
        settings = {name: value for name, value in self.settings.items() if name != "long_texts"}
        # Kept only if it is not the default, so that a space has the same fingerprint as before there was a choice
        settings |= {} if long_texts == "cut" else {"long_texts": long_texts}
        return ClipTokenizer(settings, self.context_length, self.content, self.where, self.vocabulary)

    def with_vocabulary(self, vocabulary: Path | None) -> ClipTokenizer:
        """The same with OpenAI's tokenizer from a tokenizer.json, or for None from open_clip; another tokenizer stays what it is."""
        return ClipTokenizer(self.settings, self.context_length, self.content, self.where, vocabulary)

    def pieces(self, text: str) -> list[Tokens]:
        """The text as the tower reads it: one piece, cut if need be, or with long_texts "pool" as many as it needs (`long_texts.split`).

        The weight of a piece in their mean is `num_own` of it.
        """
        tokens = self.tokens(text)
        if not tokens.is_cut or self.long_texts == "cut":
            return [tokens]
        cleaned = self._cleaned(text) if self._tokenizer is not None else text[:LONGEST_TEXT]
        parts = split(cleaned, self.context_length - self.num_special, self._count)
        return [one for one in map(self.tokens, parts) if not one.is_empty] or [tokens]

    def num_own(self, tokens: Tokens) -> int:
        """How many tokens are the text's own, not special ones."""
        return len(tokens.ids) - self.num_special

    @cached_property
    def num_special(self) -> int:
        """How many special tokens each text has."""
        return 2 if self._tokenizer is None else len(self._tokenizer.encode("").ids)

    def _count(self, text: str) -> int:
        if self._whole_tokenizer is None:
            return len(self._spelling.encode(_LONG_WORD.sub(r"\1", text)))
        return len(self._whole_tokenizer.encode(text, add_special_tokens=False).ids)

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than what is read of them: the context, or LONGEST_TEXT characters."""
        if self.long_texts == "pool":
            return sum(len(text) > LONGEST_TEXT for text in texts)
        return sum(self.tokens(text).is_cut for text in texts)

    def padded(self, token_ids: Sequence[tuple[int, ...]], length: int) -> np.ndarray:
        """b texts as token ids of at most length each -> (b, length) int64."""
        return padded(token_ids, self.pad_id, length)[0]

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """What of a text is not read: pieces that the tokenizer has no token for, and what is beyond the context."""
        unknown: dict[str, list[str]] = {}
        if self._tokenizer is not None:
            token = getattr(self._tokenizer.model, "unk_token", None)
            encoding = self._tokenizer.encode(self._cleaned(text))
            pairs = zip(encoding.tokens, encoding.offsets, strict=True)
            unknown = {self._cleaned(text)[start:stop]: [] for one, (start, stop) in pairs if one == token and start < stop}
        if self.num_cut([text]):
            is_pooled = self.long_texts == "pool"
            unknown[f"all after its first {f'{LONGEST_TEXT:,} characters' if is_pooled else f'{self.context_length} tokens'}"] = []
        return unknown

    def _cleaned(self, text: str) -> str:
        return cleaned(text[:LONGEST_TEXT], self.settings["clean"])

    @cached_property
    def _spelling(self) -> Any:
        """OpenAI's tokenizer, from the vocabulary in open_clip or in a file."""
        if self.vocabulary is not None:
            return Spelling(self.vocabulary, self.settings["clean"])
        with needing("train", "a CLIP model", NO_ONNX):
            from open_clip import SimpleTokenizer
        return SimpleTokenizer(context_length=self.context_length, clean=self.settings["clean"])

    @cached_property
    def _tokenizer(self) -> Tokenizer | None:
        """The tokenizer of `content`, if it is not OpenAI's; it cuts at the context length."""
        tokenizer = self._read()
        if tokenizer is not None:
            tokenizer.enable_truncation(self.context_length)
        return tokenizer

    @cached_property
    def _whole_tokenizer(self) -> Tokenizer | None:
        """The same without a limit on tokens."""
        return self._read()

    def _read(self) -> Tokenizer | None:
        return None if self.content is None else parse_tokenizer(self.content, self.where, _AGAIN)


class Spelling:
    """OpenAI's tokenizer as a tokenizer.json: `encode` gives what `open_clip.SimpleTokenizer.encode` gives.

    Two things may be split in other places: characters that Unicode got in the last years, as the libraries have tables of their own, and
    the name of a special token, such as "<end_of_text>", right behind another sign.
    """

    def __init__(self, path: Path, clean: str) -> None:
        self._tokenizer, self._clean = open_tokenizer(path, _AGAIN), clean
        from tokenizers import normalizers

        self._tokenizer.normalizer = normalizers.Sequence([])  # what it has is for others, who do not clean as open_clip does
        found = [self._tokenizer.token_to_id(token) for token in SPECIAL]
        if None in found:
            raise InputError(f"{path}: has no token {' or '.join(SPECIAL)}. Restore it, or {_AGAIN}")
        self.sot_token_id, self.eot_token_id = found

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without the special ones around it."""
        ids: list[int] = self._tokenizer.encode(cleaned(text, self._clean), add_special_tokens=False).ids
        return ids
