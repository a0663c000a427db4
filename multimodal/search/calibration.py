"""What the rows of a store, and the words that people search it with, have in common: by it, the scores of different terms are comparable.

    calibration = calibrate(ids, rows, texts, space, template="a photo of {}")
    vector = calibration.embed("beach", space)                  # (d,) unit, centred
    mean, std = calibration.moments(vector[None])                # of its cosines over the store

Embeddings of one modality lie in a narrow cone (Liang et al., 2022), so the mean of many words is long, and every word's cosines are
mostly those of that mean: in a sum of two words it counts twice, and hides what either says. A short phrase is therefore embedded
in a template, as the captions that a text tower was taught with are (Radford et al., 2021), and the mean of the store's own most
frequent words, in the same template, is subtracted from it. Phrases of more words are compared as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from multimodal.errors import InputError
from multimodal.text import NoTexts, TextSpace
from multimodal.text.normalise import Normaliser
from multimodal.text.stop_words import ENGLISH

MAX_ROWS = 20_000
"""Rows that the statistics are computed from, evenly spaced by id."""
NUM_WORDS = 256
MIN_STD = 1e-3  # a term that is equally far from all rows; float16 rounds cosines by about 1e-4
CONCEPT_WORDS = 3
"""Phrases of up to this many words are embedded in the template and centred. Longer ones retrieve better as they are."""
TEMPLATES = {"contrastive": "a photo of {}"}
"""Family -> the template of a new store; "{}" for families whose space is a mean over words."""

# What people search pictures for, for a store without texts of its own.
EVERYDAY = """
animal baby ball beach bed bench bicycle bike bird black blue boat book boy bridge brown building bus cake camera car cat chair child
church city climbing clock cloud coffee computer cow crowd cup dance desk dinner dog door drawing dress eating egg elephant evening eye
face family farm field fire fish flag floor flower food football forest friend fruit game garden girl glass grass green group hair hand
hat heart hill holding horse house ice island jacket jump kitchen lake lamp leaf light man map market meal moon morning mountain music
night ocean office old orange painting paper park party path people person phone piano picture pink plane plant plate playing police pool
portrait purple rain red restaurant riding river road rock roof room running sand school screen sea sheep ship shirt shoes shop sign
sitting skateboard sky sleeping smile snow soccer spoon spring square stage stairs standing star station statue storm street summer sun
sunset swimming table team tennis toy train tree trousers truck umbrella village walking wall watch water wave wedding white wind window
winter woman wood yellow young zebra
""".split()


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Of a store with rows of d dimensions, all float64.

    mean_row: (d,), the mean of its unit rows; covariance: (d, d), theirs.
    mean_term: (d,), the mean of the unit vectors of frequent words in the template; zeros if the space knows none of them.
    template: what a short phrase is embedded in, with {} in its place.
    words: (w, d), the unit vectors that `mean_term` is the mean of; none of them in a store of an older release.
    """

    mean_row: np.ndarray
    covariance: np.ndarray
    mean_term: np.ndarray
    template: str = "{}"
    words: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        check_template(self.template)

    def embed(self, phrase: str, space: TextSpace) -> np.ndarray:
        """(d,) float64: the phrase's vector of unit length, zeros if the space knows none of its words."""
        # one text per call: in a batch, an encoder's padding would let one term change the last bits of another
        is_short = len(phrase.split()) <= CONCEPT_WORDS
        inside = unit(space.embed([self.template.format(phrase) if is_short else phrase])[0])
        if is_short and self.template != "{}" and space.unknown_words(phrase) and not space.embed([phrase]).any():
            return np.zeros_like(inside)  # only the template's own words are known
        if not is_short or not inside.any():
            return inside
        return self._centred(inside)

    def embed_words(self, words: Sequence[str], space: TextSpace) -> np.ndarray:
        """(n, d) float64: single words as `embed` embeds them, up to an encoder's last bits, which is several times faster for many."""
        inside = space.embed([self.template.format(word) for word in words]).astype(np.float64)
        for at, word in enumerate(words):
            if self.template != "{}" and space.unknown_words(word) and not space.embed([word]).any():
                inside[at] = 0
        return np.array([self._centred(unit(row)) if row.any() else row for row in inside]).reshape(len(words), len(self.mean_row))

    @property
    def queries(self) -> np.ndarray:
        """(w, d): the words as `embed` embeds them."""
        return np.array([self._centred(word) for word in self.words]).reshape(-1, len(self.mean_row))

    def _centred(self, inside: np.ndarray) -> np.ndarray:
        centred = inside - self.mean_term
        return inside if np.linalg.norm(centred) < MIN_STD else unit(centred)

    def moments(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(t,), (t,): mean and standard deviation over the store of the cosines with unit vectors (t, d)."""
        variances = np.einsum("td,de,te->t", vectors, self.covariance, vectors)
        return vectors @ self.mean_row, np.maximum(np.sqrt(np.maximum(variances, 0.0)), MIN_STD)

    def as_array(self) -> np.ndarray:
        """(d + 2 + w, d) float64: the mean row, the mean term, then the covariance, then the words."""
        parts = [self.mean_row[None], self.mean_term[None], self.covariance]
        return np.concatenate([*parts, self.words] if len(self.words) else parts)

    @classmethod
    def from_array(cls, array: np.ndarray, template: str) -> Calibration:
        """The inverse of `as_array`."""
        last = 2 + array.shape[1]
        return cls(array[0], array[2:last], array[1], template, array[last:])


def calibrate(
    ids: np.ndarray, rows: np.ndarray, texts: Sequence[str], space: TextSpace, template: str, words: np.ndarray | None = None
) -> Calibration:
    """From the ids (n,), rows (n, d) and texts (n) of a store, all of them or those of `sampled`. It does not depend on their order.

    words: the `word_vectors`, if they are known already.
    """
    order = np.argsort(ids)[:: _step(len(ids))]
    units = rows[order].astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    mean = units.mean(axis=0) if len(units) else np.zeros(space.dim)
    centred = units - mean
    covariance = centred.T @ centred / max(len(units), 1)
    if words is None:
        words = word_vectors([texts[at] for at in order.tolist()], space, template)
    return Calibration(mean, covariance, words.mean(axis=0) if len(words) else np.zeros(space.dim), template, words)


def sampled(ids: np.ndarray) -> np.ndarray:
    """At most MAX_ROWS of the ids, ascending, evenly spaced: those whose rows the statistics are computed from."""
    return np.sort(ids)[:: _step(len(ids))]


def _step(num: int) -> int:
    return max(1, -(-num // MAX_ROWS))


def word_vectors(texts: Iterable[str], space: TextSpace, template: str) -> np.ndarray:
    """(w, d) float64: the unit vectors of the most frequent words of the texts, and of everyday ones where these are few.

    None of them if the space reads no texts.
    """
    if isinstance(space, NoTexts):
        return np.zeros((0, space.dim))
    words = frequent_words(texts, space, is_slow=template != "{}")
    embedded = space.embed([check_template(template).format(word) for word in words]) if words else np.zeros((0, space.dim))
    lengths = np.linalg.norm(embedded.astype(np.float64), axis=1, keepdims=True)
    known = lengths[:, 0] > 0
    return embedded[known] / lengths[known]


def frequent_words(texts: Iterable[str], space: TextSpace, is_slow: bool = False, num: int = NUM_WORDS) -> list[str]:
    """The most frequent num words that the space knows, stop words left out; everyday words follow if there are too few.

    is_slow: whether embedding a word takes longer than asking whether it is known, as it does for an encoder.
    """
    normaliser = Normaliser()
    counts = Counter(word for text in texts for word in set(normaliser.tokens(text)))
    ordered = sorted(counts.keys() - set(ENGLISH), key=lambda word: (-counts[word], word))
    words, known = list(dict.fromkeys([*ordered, *EVERYDAY])), list[str]()
    for start in range(0, len(words), NUM_WORDS):
        some = words[start : start + NUM_WORDS]
        is_known = [not space.unknown_words(word) for word in some] if is_slow else [bool(row.any()) for row in space.embed(some)]
        known += [word for word, knows in zip(some, is_known, strict=True) if knows]
        if len(known) >= num:
            break
    return known[:num]


def check_template(template: str) -> str:
    """The template; InputError if it has no place for the phrase, or more than one."""
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise InputError(f"template {template!r}: expected a text with one {{}}, where the phrase goes, such as 'a photo of {{}}'")
    return template


def unit(vector: np.ndarray) -> np.ndarray:
    """(d,) float64 of unit length, or zeros. A store's float16 row would get a float16 norm, wrong by 1e-4."""
    exact = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(exact))
    return exact / length if length > 0 else exact
