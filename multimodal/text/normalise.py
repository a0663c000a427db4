"""From a text to its words, the same way for fitting, columns and queries.

    Normaliser(variant="hashtag", reduce="lemma").tokens("Two dogs at #SunsetBeach")    # ["two", "dog", "sunset", "beach"]

A word is a run of letters, their marks and digits. A hyphenated word is split into its parts ("T-shirt" gives "shirt": parts shorter than
`min_length` are dropped), a possessive loses its 's, and other apostrophes are removed ("don't" gives "dont"). Words without a letter
("2019") are dropped too.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal

from multimodal.errors import InputError
from multimodal.text.stop_words import ENGLISH

Variant = Literal["plain", "hashtag", "wiki"]
Reduction = Literal["none", "stem", "lemma"]
Accents = Literal["keep", "strip"]

_CACHED_WORDS = 1 << 17  # stemming a word takes 24 us, finding it here 0.1

# Vowel signs and points of scripts that write them as separate marks (Hebrew, Arabic, Indic, Thai); Python's \w excludes them.
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f\u0951-\u0963\u0981-\u0983"
)
_MARKS += "\u09bc-\u09cd\u0a01-\u0a4d\u0a81-\u0acd\u0b01-\u0b4d"
_MARKS += "\u0b82-\u0bcd\u0c00-\u0c4d\u0c81-\u0ccd\u0d00-\u0d4d\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
_RUN = rf"[^\W_]+(?:[{_MARKS}][^\W_]*)*"
_WORD = re.compile(rf"{_RUN}(?:'{_RUN})*")
_LETTER = re.compile(r"[^\W\d_]")
_STROKES = re.compile("[\u0300-\u036f]")  # the accents of Latin, Greek and Cyrillic; marks of other scripts are part of the spelling
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u00ad": None})  # and removes the soft hyphen

_ADDRESS = re.compile(r"(?:https?://|www\.)\S+")
_MENTION = re.compile(r"(?<!\w)@\w+")
_HASHTAG = re.compile(r"#(\w+)")
_HUMPS = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|_+")


def plain(text: str) -> str:
    """The text as it is."""
    return text


def split_hashtags(text: str) -> str:
    """#SunsetBeach2019 becomes Sunset Beach 2019, #NYCMarathon NYC Marathon; web addresses and @mentions are removed.

    #sunsetbeach stays one word: only a vocabulary could tell where to split it.
    """
    text = _MENTION.sub(" ", _ADDRESS.sub(" ", text))
    return _HASHTAG.sub(lambda match: f" {_cut_humps(match[1])} ", text)


def _cut_humps(tag: str) -> str:
    """Split before a capital after a lower-case letter, before the last capital of a run if lower case follows, and around digits."""
    cuts = [0]
    for at in range(1, len(tag)):
        after_small = tag[at].isupper() and tag[at - 1].islower()
        last_of_run = tag[at].isupper() and tag[at - 1].isupper() and tag[at + 1 : at + 2].islower()
        if after_small or last_of_run:
            cuts.append(at)
    humps = " ".join(tag[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(tag)], strict=True))
    return _HUMPS.sub(" ", humps)


# What extractors leave in the text of articles. Each pattern runs in linear time: none can begin inside its own repetition.
_WIKI_INNERMOST = re.compile(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}")
_WIKI_COMMENT = re.compile(r"<!--[^<>]*-->")
_WIKI_REFERENCE = re.compile(r"<(ref|gallery|math|timeline|syntaxhighlight)\b[^<>]*(?:/>|>[^<>]*</\1\s*>)", re.IGNORECASE)
_WIKI_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_WIKI_FILE = re.compile(r"\[\[\s*(?:file|image|category|media)\s*:[^\[\]]*\]\]", re.IGNORECASE)
_WIKI_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_WIKI_ADDRESS = re.compile(r"\[(?:https?:)?//[^\s\[\]]*([^\[\]]*)\]")
_WIKI_SIGNS = re.compile(r"'{2,}|^=+|=+\s*$|^[*#:;]+|__[A-Z]+__", re.MULTILINE)
_MAX_NESTING = 20


def strip_wiki(text: str) -> str:
    """Removes Wikipedia markup that extractors leave: templates, tables, references, tags and files; of links the visible text stays."""
    text = html.unescape(text)
    text = _WIKI_COMMENT.sub(" ", text)
    for _ in range(_MAX_NESTING):
        text, num_removed = _WIKI_INNERMOST.subn(" ", text)
        if not num_removed:
            break
    text = _WIKI_TAG.sub(" ", _WIKI_REFERENCE.sub(" ", text))
    text = _WIKI_COMMENT.sub(" ", text)  # again, for comments that contained tags
    for _ in range(_MAX_NESTING):  # a file's caption contains links, so these are removed from the inside out too
        text = _WIKI_FILE.sub(" ", text)
        text, num_links = _WIKI_LINK.subn(r"\1", text)
        if not num_links:
            break
    text = _WIKI_ADDRESS.sub(r"\1", text)
    return _ADDRESS.sub(" ", _WIKI_SIGNS.sub(" ", text))


VARIANTS: Mapping[Variant, Callable[[str], str]] = {"plain": plain, "hashtag": split_hashtags, "wiki": strip_wiki}


@lru_cache(_CACHED_WORDS)
def stem(word: str, language: str) -> str:
    """Snowball's stem of a lower-case word. M. Porter, "Snowball: a language for stemming algorithms" (2001)."""
    import snowballstemmer

    # A new stemmer each time: it stores its word, so threads must not share one, and making one takes 1 us.
    return str(snowballstemmer.stemmer(_SNOWBALL[language]).stemWord(word))


_MENDED_LEMMAS = {("playing", "en"): "play", ("thinking", "en"): "think", ("swinging", "en"): "swing", ("singing", "en"): "sing"}
"""Frequent words that simplemma 1.1 takes for forms of rare or non-existent words (`playe`, `thinke`, `swinge`, `singe`)."""


@lru_cache(_CACHED_WORDS)
def lemma(word: str, language: str) -> str:
    """The dictionary form of a lower-case word by simplemma's tables; a word that is not in them is kept."""
    import simplemma

    if (word, language) in _MENDED_LEMMAS:
        return _MENDED_LEMMAS[word, language]
    # A lower-case word must not come back as "Bern", with a capital: the tables contain names.
    return str(simplemma.lemmatize(word, lang=language)).lower()


def unreduced(word: str, language: str) -> str:
    """The word as it is."""
    return word


REDUCTIONS: Mapping[Reduction, Callable[[str, str], str]] = {"none": unreduced, "stem": stem, "lemma": lemma}

_SNOWBALL = {"da": "danish", "de": "german", "en": "english", "es": "spanish", "fi": "finnish", "fr": "french", "hu": "hungarian"}
_SNOWBALL |= {"it": "italian", "nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sv": "swedish"}
_SNOWBALL |= {"tr": "turkish"}


@dataclass(frozen=True, slots=True)
class Normaliser:
    """The settings of how texts become words; equal settings always give equal words.

    variant: plain; hashtag (posts: #SunsetBeach is two words); wiki (articles: leftover markup is removed).
    reduce: none; stem (Snowball; "beaches" becomes "beach", and "beauty" "beauti"); lemma (simplemma's dictionary form).
    language: two letters; of the stems and lemmas.
    accents: keep, or strip ("café" becomes "cafe").
    stop_words: words to drop, compared before reduction: "english" for the list in `stop_words.py`, or the words themselves, separated by
    blanks; null for none.
    min_length: shorter words are dropped. numbers: also keep words without a letter.
    """

    variant: Variant = "plain"
    reduce: Reduction = "none"
    language: str = "en"
    accents: Accents = "keep"
    stop_words: str | None = "english"
    min_length: int = 2
    numbers: bool = False

    def __post_init__(self) -> None:
        for name, known in (("variant", VARIANTS), ("reduce", REDUCTIONS), ("accents", ("keep", "strip"))):
            if getattr(self, name) not in known:
                raise InputError(f"normaliser: {name} {getattr(self, name)!r} is unknown; it must be one of {', '.join(known)}")
        if self.reduce == "stem" and self.language not in _SNOWBALL:
            raise InputError(f"normaliser: no stemmer for language {self.language!r}; there are {', '.join(sorted(_SNOWBALL))}")
        if self.reduce == "lemma" and self.language not in _lemma_languages():
            raise InputError(f"normaliser: no lemmas for language {self.language!r}; there are {', '.join(_lemma_languages())}")
        if self.min_length < 1:
            raise InputError(f"normaliser: min_length={self.min_length} must be at least 1")

        if self.stop_words is not None and self.stop_words != "english":  # in one spelling, so that equal settings are equal
            words = sorted(set(self.stop_words.split()))
            object.__setattr__(self, "stop_words", "english" if words == list(ENGLISH) else " ".join(words) or None)

    def tokens(self, text: str) -> list[str]:
        """The words of a text in their order, repetitions included; [] if nothing is left."""
        text = unicodedata.normalize("NFKC", VARIANTS[self.variant](text)).lower()
        if self.accents == "strip":
            text = _STROKES.sub("", unicodedata.normalize("NFD", text))
        text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
        stop_words, reduce = _stopped(self.stop_words), REDUCTIONS[self.reduce]
        words = map(_unquoted, _WORD.findall(text))
        kept = (word for word in words if len(word) >= self.min_length and word not in stop_words)
        return [reduce(word, self.language) for word in kept if self.numbers or _LETTER.search(word)]

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal one. Stop words are written out: a later release must not change old spaces."""
        return asdict(self) | {"stop_words": sorted(_stopped(self.stop_words))}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Normaliser:
        """InputError if this release does not know a setting."""
        known = {field.name for field in fields(cls)}
        if foreign := sorted(set(values) - known):
            raise InputError(f"normaliser: setting {foreign[0]!r} is unknown to this release. Install a newer one")
        return cls(**{**values, "stop_words": " ".join(values["stop_words"])})


def _unquoted(word: str) -> str:
    return word if "'" not in word else word.removesuffix("'s").replace("'", "")


@lru_cache(64)
def _stopped(words: str | None) -> frozenset[str]:
    return frozenset(ENGLISH if words == "english" else (words or "").split())


@lru_cache(1)
def _lemma_languages() -> tuple[str, ...]:
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    return tuple(sorted(SUPPORTED_LANGUAGES))
