"""Ways to combine the terms of a query: each term's scores over the pictures in, one score for each picture out.

    CalibratedProduct().combine(terms)       # (t, n): what each term adds to each picture's score; a column's sum is its score

A query asks for several things at once, and a sum of cosines lets one of them swamp the others: terms differ in how far their cosines
spread, and a picture of only one term may have a larger sum than a picture of both. Two ways are built in. `CalibratedProduct` compares
each term's score with the scores that this term has over the whole store, turns it into a factor between 0 and 1, and multiplies: a
picture has to meet every term, and an excluded term lowers mostly the pictures that show it. `VectorSum` adds and subtracts unit vectors
(Mikolov et al., 2013). Another way is one class with these four members, named by its path: `--fusion mypackage.MyFusion`. Of a single
wanted term, the order must be that of its cosines. `multimodal.search.conformance.check_fusion` checks that it keeps the contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from multimodal.boxes.trust import Builder
from multimodal.errors import InputError


class NothingToFind(InputError):
    """Nothing of the query is left to search for: none of its words is known, or its terms cancel."""


@dataclass(frozen=True, slots=True, eq=False)
class TermScores:
    """The scores of the t terms of a query over n pictures.

    cosines: (t, n), between each term and each picture.
    weights: (t,), positive. without: (t,) bool, whether a term is to be absent: it was excluded or subtracted, or another takes its place.
    pictures: (t,) bool, whether the term is a picture.
    mean, std: (t,), of the term's cosines over the store, as its calibration estimates them; std is positive.
    gram: (t, t), the cosines between the terms.
    """

    cosines: np.ndarray
    weights: np.ndarray
    without: np.ndarray
    pictures: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    gram: np.ndarray

    @property
    def standard(self) -> np.ndarray:
        """(t, n): the cosines in standard deviations above the term's mean over the store."""
        standard = np.subtract(self.cosines, self.mean[:, None])
        return np.divide(standard, self.std[:, None], out=standard)


MEMBERS = ("centred", "is_product", "combine", "slopes")


class Fusion(Protocol):
    """A way to combine terms. A frozen dataclass: its fields are its constants, which a store keeps."""

    @property
    def centred(self) -> bool:
        """Whether short phrases are compared after centring (see `multimodal.search.calibration`); else a term is the plain embedding."""
        ...

    is_product: ClassVar[bool]
    """Whether what terms add are logarithms, so that a score, and what a term does to it, is shown as their exponential."""

    def combine(self, terms: TermScores) -> np.ndarray:
        """(t, n): what each term adds to the score of each picture. A column depends on no other column."""
        ...

    def slopes(self, terms: TermScores) -> np.ndarray:
        """(t,): the most that a score can change if a term's cosine changes by 1. It bounds the error of a fast first pass."""
        ...


@dataclass(frozen=True, slots=True)
class VectorSum:
    """The cosine between a picture and the normalised sum of the terms' unit vectors; terms that should be absent are subtracted."""

    centred: ClassVar[bool] = False
    is_product: ClassVar[bool] = False

    def combine(self, terms: TermScores) -> np.ndarray:
        return self._shares(terms)[:, None] * terms.cosines

    def slopes(self, terms: TermScores) -> np.ndarray:
        return np.abs(self._shares(terms))

    def _shares(self, terms: TermScores) -> np.ndarray:
        """(t,): the signed weights over the length of the sum. NothingToFind if the terms cancel."""
        _, exponent = np.frexp(terms.weights.max())
        signed = np.ldexp(np.where(terms.without, -terms.weights, terms.weights), -exponent)  # exact; else the square of 1e160 is infinite
        norm = float(np.sqrt(max(signed @ terms.gram @ signed, 0.0)))
        if norm <= CANCELLED * np.abs(signed).sum():
            raise NothingToFind("the query cancels to nothing: its terms have the same vectors. Leave a term out or change a weight")
        return signed / norm


@dataclass(frozen=True, slots=True)
class CalibratedProduct:
    """A product of one factor per term, each in (0, 1]: whether a wanted term shows, and whether an unwanted one does not.

        a wanted word or topic   sigmoid(sharpness (z - threshold)) ** weight
        a wanted picture         exp(-picture (z_self - z)) ** weight
        an unwanted term         sigmoid(-absence_sharpness (z - absence_threshold)) ** (absence weight)

    z is the term's cosine in standard deviations above its mean over the store, which makes the scores of different terms comparable;
    z_self is that of a picture with itself. A product is low if one factor is, so no term makes up for another (Efthymiadis et al., 2025,
    multiply calibrated scores for queries of a picture and a text). The factor of an unwanted term is near 1 where the term does not
    show: mostly pictures that show it lose by it. That of a picture is not, since the nearest pictures are the ones that are meant.

    centred: see `Fusion`; a few spaces of word vectors are better off without.
    Chosen on validation queries; a store keeps its own (`multimodal evaluate arithmetic --fit`), because stores of drawings that come in
    series want `picture` and `absence` to be different from those of photographs.
    """

    is_product: ClassVar[bool] = True

    sharpness: float = 0.5
    threshold: float = 2.0
    absence_sharpness: float = 1.0
    absence_threshold: float = 1.0
    absence: float = 0.2
    picture: float = 0.2
    centred: bool = True

    def __post_init__(self) -> None:
        for field in (field for field in fields(self) if field.name != "centred"):
            value = getattr(self, field.name)
            kind = "finite" if "threshold" in field.name else "positive"
            if not np.isfinite(value) or (kind == "positive" and value <= 0):
                raise ValueError(f"{field.name}={value!r}: expected a {kind} number")

    def combine(self, terms: TermScores) -> np.ndarray:
        added = terms.standard
        z_self = (1 - terms.mean) / terms.std
        for term, line in enumerate(added):  # in place: a temporary array for each step takes five times as long
            if terms.without[term]:
                line -= self.absence_threshold
                line *= self.absence_sharpness
                line[:] = _softplus(line)
                line *= -self.absence
            elif terms.pictures[term]:
                line -= z_self[term]
                line *= self.picture
            else:
                line -= self.threshold
                line *= -self.sharpness
                np.negative(_softplus(line), out=line)
            line *= terms.weights[term]
        return added

    def slopes(self, terms: TermScores) -> np.ndarray:
        wanted = np.where(terms.pictures, self.picture, self.sharpness)
        return terms.weights * np.where(terms.without, self.absence * self.absence_sharpness, wanted) / terms.std


def _softplus(values: np.ndarray) -> np.ndarray:
    """log(1 + exp(values)). As exact as np.logaddexp(0, values), in a sixth of the time: that one has no vector instructions."""
    found = np.abs(values)
    np.negative(found, out=found)
    np.exp(found, out=found)
    np.log1p(found, out=found)
    return np.add(found, np.maximum(values, 0.0), out=found)


CANCELLED = 1e-6  # norm of the sum over the sum of |weights|: float32 vectors that should cancel leave about 1e-7


def default_fusion(family: str) -> CalibratedProduct:
    """The way of a store whose constants were not chosen yet: chosen on validation words of photographs, by family."""
    return CalibratedProduct(centred=family != "wordvec")


FUSIONS: Mapping[str, type] = {"product": CalibratedProduct, "sum": VectorSum}
"""The ways that have a name; `--fusion` also takes the path of a class."""
_OURS = {f"{__name__}.{one.__name__}": one for one in FUSIONS.values()}


def make_fusion(described: str | Mapping[str, Any], box: Path, trust: Sequence[str] = ()) -> Fusion:
    """A way by its name, its class path, or as a store keeps it: {"class_path": ..., "init_args": {...}}.

    box: the store that names it. InputError if its class is neither ours nor in a package that is trusted, or is no way to combine.
    """
    if isinstance(described, str):
        if described not in FUSIONS and "." not in described:
            raise InputError(f"fusion {described!r}: expected {', '.join(FUSIONS)}, or the path of a class such as mypackage.MyFusion")
        described = {"class_path": f"{__name__}.{FUSIONS[described].__name__}" if described in FUSIONS else described}
    made = Builder(box, {}, trust).build(described, object, _OURS)
    if missing := [name for name in MEMBERS if not hasattr(made, name)]:
        raise InputError(f"{box}: {described['class_path']} is no way to combine terms: it has no {', '.join(missing)}. See {__name__}")
    return cast(Fusion, made)


def names_product(described: Mapping[str, Any] | None) -> bool:
    """Whether what a store keeps is a `CalibratedProduct`."""
    return described is not None and described["class_path"] == f"{__name__}.{CalibratedProduct.__name__}"


def describe_fusion(fusion: Fusion) -> dict[str, Any]:
    """As a store keeps it; see `make_fusion`."""
    named = type(fusion)
    return {"class_path": f"{named.__module__}.{named.__qualname__}", "init_args": asdict(fusion)}  # type: ignore[call-overload]
