"""The texts that stand for classes, and their vectors: a zero-shot classifier from any function that embeds texts.

    weights = class_weights(space.embed, ("cat", "dog"), ("a photo of a {}.", "a drawing of a {}."))      # (2, d)
    best = predict(image_rows, weights)                                                                   # (n,) int64
    judge(image_rows, weights, labels).right.mean()                                                       # top-1

As open_clip's `build_zero_shot_classifier` makes them (Radford et al., 2021, section 3.1.4): each text's vector at unit length, the mean
over the texts of a class, and that at unit length again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.errors import InputError, near_names
from multimodal.metrics import score_blocks, unit
from multimodal.metrics.retrieval import Block
from multimodal.search.calibration import check_template

EmbedTexts = Callable[[Sequence[str]], np.ndarray]
"""t texts -> (t, d) float, of any length; a row of zeros for a text of which nothing is known."""

PLAIN = ("{}",)
"""The templates of a class that is embedded by its name alone."""
MIN_LENGTH = 1e-6
"""Shorter vectors are rounding errors: the difference of texts that are equal."""


# -- vectors -------------------------------------------------------------------------------------------------------------------------------


def class_weights(embed_texts: EmbedTexts, names: Sequence[str], templates: Sequence[str] = PLAIN, centre: bool = False) -> np.ndarray:
    """The vector of each of c classes by its name in each template; (c, d) float32, unit rows.

    A class has a row of zeros if nothing is known of its name alone: the words of a template say nothing about it. centre: see `centred`.
    InputError: a template without exactly one {}.
    """
    for template in templates:
        check_template(template)
    weights = text_weights(embed_texts, [[template.replace("{}", name) for template in templates] for name in names])
    weights[~np.asarray(embed_texts(list(names))).any(axis=1)] = 0
    return centred(weights) if centre else weights


def text_weights(embed_texts: EmbedTexts, texts: Sequence[Sequence[str]], centre: bool = False) -> np.ndarray:
    """The vector of each of c classes by its own texts, at least one each; (c, d) float32, unit rows, zeros if nothing is known of any."""
    owners = np.repeat(np.arange(len(texts)), [len(of_class) for of_class in texts])
    rows = unit(embed_texts([text for of_class in texts for text in of_class])).astype(np.float64)
    sums = np.zeros((len(texts), rows.shape[1]))
    np.add.at(sums, owners, rows)  # the direction of the sum is that of the mean
    weights = unit(sums)
    return centred(weights) if centre else weights


def centred(weights: np.ndarray) -> np.ndarray:
    """Unit rows (c, d) without the mean of those that are not zero, at unit length again.

    The texts of all classes have much in common, such as the words of a template, and a class whose vector is near their mean is near every
    picture. It uses only the list of classes, no picture and no label. A row that is the mean stays as it is.
    """
    rows = weights.astype(np.float64)
    known = rows.any(axis=1)
    moved = rows - rows[known].mean(axis=0) if known.any() else rows
    varies = known & (np.linalg.norm(moved, axis=1) > MIN_LENGTH)
    return unit(np.where(varies[:, None], moved, rows))


def class_scores(rows: np.ndarray, weights: np.ndarray) -> Iterator[Block]:
    """The cosines of pictures (n, d) with classes (c, d), in blocks (b, c). -inf for a class of zeros, which is never predicted."""
    unknown = ~np.asarray(weights).any(axis=1)
    for start, scores in score_blocks(unit(rows), unit(weights)):
        scores[:, unknown] = -np.inf
        yield Block(start, scores)


def predict(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest class of each picture by cosine, the first one if several are; (n,) int64. rows (n, d), weights (c, d) of any length."""
    blocks = [scores.argmax(axis=1) for _, scores in class_scores(rows, weights)]
    return np.concatenate(blocks) if blocks else np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What n pictures were taken for; entry i of every array is picture i's.

    groups: (n,) str, the pictures' names; a resample draws a picture with its predictions from all seeds.
    labels, predicted: (n,) int64, indices into the c classes. If several classes are nearest, predicted is one that is wrong.
    ranks: (n,) int64, the 1-based rank of the right class; ties count against the model. cosine: (n,) float64, of the nearest class.
    tied: (n,) bool, whether several classes are nearest. known: (c,) bool, False for a class whose text has no known word.
    """

    groups: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    cosine: np.ndarray
    tied: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> np.ndarray:
        """(n,) bool: the right class alone is nearest."""
        return self.ranks == 1

    def counts(self) -> np.ndarray:
        """(c, c) int64: row i counts what the pictures of class i were taken for."""
        c = len(self.known)
        return np.bincount(self.labels * c + self.predicted, minlength=c * c).reshape(c, c)


def judge(rows: np.ndarray, weights: np.ndarray, labels: np.ndarray, pictures: Sequence[str] | None = None) -> Predictions:
    """Classify pictures (n, d) by the nearest of the classes (c, d) by cosine, both of any length, and compare with labels (n,) int.

    A class of zeros is never predicted, and is the last for its own pictures. A picture of zeros, or one that is not finite, is equally
    near to every class, and so is wrong. pictures: their n names; by default their numbers.
    """
    predicted, ranks = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    cosine, tied = np.empty(len(rows)), np.empty(len(rows), bool)
    for start, scores in class_scores(rows, weights):
        block = slice(start, start + len(scores))
        own = np.take_along_axis(scores, labels[block, None], axis=1)
        best = scores.max(axis=1, keepdims=True)
        nearest = scores == best
        several = nearest.sum(axis=1) > 1
        nearest[several, labels[block][several]] = False  # of several, a wrong one
        predicted[block], ranks[block] = nearest.argmax(axis=1), (scores >= own).sum(axis=1)
        cosine[block], tied[block] = best[:, 0], several
    names = np.arange(len(rows)).astype(str) if pictures is None else np.asarray(pictures, dtype=np.str_)
    known = np.asarray(np.any(weights, axis=1))
    return Predictions(names, np.asarray(labels, np.int64), predicted, ranks, cosine, tied, known)


# -- files ---------------------------------------------------------------------------------------------------------------------------------


def read_templates(path: Path) -> tuple[str, ...]:
    """Templates from a text file, one a line, such as `a photo of a {}.`; InputError: none, or a line without exactly one {}."""
    templates = []
    for number, line in _lines(path, "one template a line, such as: a photo of a {}."):
        try:
            templates.append(check_template(line))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    return tuple(templates)


def names_of(classes: Sequence[str], path: Path | None = None) -> tuple[str, ...]:
    """What c classes are called in texts: as the file of names says, or by default their labels with spaces for underscores."""
    return tuple(label.replace("_", " ") for label in classes) if path is None else read_names(path, classes)


def read_names(path: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """A name for each of c classes, in their order. Otherwise as `read_class_texts`, but each class has exactly one."""
    texts = read_class_texts(path, classes)
    for label, of_class in zip(classes, texts, strict=True):
        if len(of_class) > 1:
            raise InputError(f"{path}: class {label!r} has {len(of_class)} names. Give it one, or give these texts as --sentences")
    return tuple(of_class[0] for of_class in texts)


def read_class_texts(path: Path, classes: Sequence[str]) -> list[list[str]]:
    """The texts of each of c classes, in their order, from a text file with one a line.

    Either every line is `<class>: <text>`, in any order, and a class may have several; or no line is, and there is one a class in the order
    of the classes. InputError: the file is empty, a line names no class, or a class is without a text.
    """
    lines = list(_lines(path, "one text for each class, such as: airplane: an airplane in the sky"))
    of_class: dict[str, list[str]] = {label: [] for label in classes}
    keyed = [_keyed(line, of_class) for _, line in lines]
    if not any(keyed):
        if len(lines) != len(classes):
            raise InputError(
                f"{path}: has {len(lines)} lines for {len(classes)} classes. Write one line for each, in this order: "
                f"{_listed(classes)}; or write lines such as: {classes[0]}: {lines[0][1]}"
            )
        return [[line] for _, line in lines]
    for (number, line), found in zip(lines, keyed, strict=True):
        if found is None:
            raise InputError(
                f"{path}, line {number}: {line!r} does not begin with a class, as other lines do. Write <class>: <text>. "
                + near_names(line.partition(":")[0].strip(), classes)
            )
        of_class[found[0]].append(found[1])
    if missing := [label for label in classes if not of_class[label]]:
        raise InputError(f"{path}: has no text for {len(missing)} of {len(classes)} classes: {_listed(missing)}. Add a line for each")
    return list(of_class.values())


def _keyed(line: str, classes: dict[str, list[str]]) -> tuple[str, str] | None:
    """`<class>: <text>` as its two parts. A class may itself have a colon, so every one is tried."""
    places = [place for place, letter in enumerate(line) if letter == ":"]
    for place in reversed(places):
        label, text = line[:place].strip(), line[place + 1 :].strip()
        if label in classes and text:
            return label, text
    return None


def _lines(path: Path, expected: str) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8. Give a file with {expected}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Give a file with {expected}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: is empty. Write {expected}")
    return lines


def _listed(names: Sequence[str], num: int = 12) -> str:
    return ", ".join(names[:num]) + (f" and {len(names) - num} more" if len(names) > num else "")
