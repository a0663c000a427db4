"""What an export is, readable without torch: its family, its architecture as class paths, its preprocessing, and its figures.

print(read_card("runs/demo/wordvec/export").summary())
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from multimodal.boxes import MANIFEST, check_values, read_manifest
from multimodal.errors import InputError

_LATER = ("interpolation", "same")
_SAME: dict[str, type] = {"cosine": float, "false_accepts": float, "true_accepts": float, "num_different": int, "num_same": int}


@dataclass(frozen=True, slots=True)
class Card:
    """The config of an export's manifest. JSON values only, so that it is unchanged when written and read.

    family: "topic", "wordvec", "contrastive", or a name of your own.
    dim: d, the dimension in which pictures and queries are compared.
    architecture: "trunk" and "head", each {"class_path": "multimodal.towers.Trunk", "init_args": {...}}, as in a config.
    preprocessing: what happens to a picture before the trunk (size, crop, interpolation, mean, std ...), as the trunk names it.
    query_fingerprint: of the manifest of the text space that is the export's query side.
    figures: what was measured when it was made; each figure has its chance level and the command that prints it beside it.
    interpolation: of an export between another and a run, "base", the other's fingerprint, and "alpha", the weight of the run; else empty.
    same: from which "cosine" on two pictures count as the same, the shares "false_accepts" and "true_accepts" of different and same pairs
        that do, and how many pairs this was found on ("num_different", "num_same"); empty if nobody has asked (`multimodal metric fit`).
    """

    family: str
    dim: int
    architecture: Mapping[str, Mapping[str, Any]]
    preprocessing: Mapping[str, Any]
    query_fingerprint: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    interpolation: Mapping[str, Any] = field(default_factory=dict)
    same: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.family:
            raise ValueError("a card must name its family")
        if self.dim < 1:
            raise ValueError(f"card of family {self.family}: dim {self.dim} must be at least 1")
        for part in ("trunk", "head"):
            described = self.architecture.get(part)
            if described is None:
                raise ValueError(
                    f"card of family {self.family}: the architecture has no {part}; it has {', '.join(self.architecture) or 'nothing'}"
                )
            if set(described) != {"class_path", "init_args"}:
                raise ValueError(
                    f"card of family {self.family}: {part} must have class_path and init_args, but has {', '.join(described) or 'nothing'}"
                )
        if json.loads(json.dumps(asdict(self), default=str)) != asdict(self):
            raise ValueError(f"card of family {self.family}: it may hold only JSON values (lists for tuples, strings for keys and paths)")

    def config(self) -> dict[str, Any]:
        """The card as the `config` of the export's manifest; `Card(**config)` is the card again."""
        config = asdict(self)
        for name in _LATER:  # left out if empty, as in exports of earlier releases, whose fingerprints stay
            if not config[name]:
                del config[name]
        return config

    def summary(self) -> str:
        """The card as plain text."""
        lines = [f"{self.family} export, {self.dim} dimensions"]
        for part, described in self.architecture.items():
            lines.append(f"  {part}: {described['class_path']}{_arguments(described['init_args'])}")
        lines.append(f"  picture: {_pairs(self.preprocessing) or 'as it is'}")
        lines.append(f"  query side: {self.query_fingerprint[:12]}")
        if self.interpolation:
            lines.append(f"  interpolated: alpha {self.interpolation['alpha']} from the base {self.interpolation['base'][:12]} to the run")
        if self.same:
            lines.append(f"  the same: {same_told(self.same)}")
        lines += [f"  {name}: {_value(value)}" for name, value in self.figures.items()]
        return "\n".join(lines)


def read_card(export: str | Path) -> Card:
    """The card of an export; InputError if it is not an export, or its card has other fields."""
    config = read_manifest(export, kind="export").config
    known = {each.name for each in fields(Card)}
    if unknown := set(config) - known:
        raise InputError(f"{Path(export) / MANIFEST}: a card has no {', '.join(sorted(unknown))}. It has: {', '.join(sorted(known))}")
    check_values(
        export, "config", config, {"family": str, "dim": int, "architecture": dict, "preprocessing": dict, "query_fingerprint": str}
    )
    check_values(export, "config", {"figures": {}, "interpolation": {}, "same": {}, **config}, dict.fromkeys(("figures", *_LATER), dict))
    if config.get("interpolation"):
        check_values(export, "config.interpolation", config["interpolation"], {"base": str, "alpha": float})
    if config.get("same"):
        check_values(export, "config.same", config["same"], _SAME)
    check_values(export, "config.architecture", config["architecture"], dict.fromkeys(config["architecture"], dict))
    for part, described in config["architecture"].items():
        check_values(export, f"config.architecture.{part}", described, {"class_path": str, "init_args": dict})
    try:
        return Card(**config)
    except (TypeError, ValueError) as error:
        raise InputError(f"{Path(export) / MANIFEST}: the card is incomplete: {error}. Make the export again: multimodal export") from None


def same_told(same: Mapping[str, Any]) -> str:
    """`Card.same` in words."""
    return (
        f"from a cosine of {same['cosine']:.4f} on; so are {100 * same['true_accepts']:.1f} % of {same['num_same']:,} held-out same pairs, "
        f"and {100 * same['false_accepts']:.2g} % of {same['num_different']:,} different ones"
    )


def _arguments(arguments: Mapping[str, Any]) -> str:
    return f"({_pairs(arguments)})"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    """Nested classes read as calls, nested values as pairs, floats short."""
    if isinstance(value, Mapping) and set(value) == {"class_path", "init_args"}:
        return f"{value['class_path']}{_arguments(value['init_args'])}"
    if isinstance(value, Mapping):
        return _pairs(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
