"""Emoji as drawn things: their words, and which of them are variants of one thing.

things = read_things(packages=None)         # {"1f469-200d-1f52c": Thing(label="woman scientist", group="scientist", ...), ...}
drawing_key("1f441-fe0f-200d-1f5e8-fe0f")   # "1f441-200d-1f5e8": the same in all drawing sets
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import offer
from data_prep.sources._npm import Package, fetch, read_members
from multimodal.pairs import Pair
from multimodal.shards import Ledger

WORDS = Package(
    "emojibase-data", "17.0.0", "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA=="
)
_DATA, _GROUPS = "package/en/data.json", "package/meta/groups.json"
LEFT_OUT = ("component", "symbols", "flags")  # signs and colours, not drawings of a thing

ZWJ = "200d"
_VARIATION = "fe0f"
_SIGNS = frozenset("2640 2642 27a1 1f3fb 1f3fc 1f3fd 1f3fe 1f3ff".split())  # female, male, facing right, skin tones
_ADULTS = frozenset("1f468 1f469 1f9d1".split())
_CHILDREN = frozenset("1f466 1f467 1f9d2 1f476".split())
_HAIR = frozenset("1f9b0 1f9b1 1f9b2 1f9b3".split())

# Things whose variants have their own code points. The first of each line names the group.
_SAME_THING = """
1f9d1 1f468 1f469 1f471 1f9d4
1f9d2 1f466 1f467
1f9d3 1f474 1f475
1f46b 1f46d 1f46c person-1f91d
1f491 person-2764 1f48f person-2764-1f48b
1f46a family
1fac5 1f934 1f478
1f385 1f936 person-1f384
1f483 1f57a
1f930 1fac3 1fac4
1f931 person-1f37c
person-1f9bc person-1f9bd
2764 1fa77 1f9e1 1f49b 1f49a 1f499 1fa75 1f49c 1f90e 1f5a4 1fa76 1f90d
1f448 1f449 1f446 1f447
1f91b 1f91c
1faf1 1faf2
1faf7 1faf8
1f311 1f312 1f313 1f314 1f315 1f316 1f317 1f318
1f31a 1f31b 1f31c 1f31d
1f30d 1f30e 1f30f
1f4d5 1f4d7 1f4d8 1f4d9
1f4ea 1f4eb 1f4ec 1f4ed
1f947 1f948 1f949
1f507 1f508 1f509 1f50a
"""
_CLOCKS = " ".join(f"{code:x}" for code in range(0x1F550, 0x1F568))  # twelve hours, then twelve half hours
_FIRST = {thing: line.split()[0] for line in [*_SAME_THING.strip().splitlines(), _CLOCKS] for thing in line.split()}


@dataclass(frozen=True, slots=True)
class Thing:
    """One emoji without skin tone. hexcode: emojibase's, in lower case. group: the drawn thing, the same for its variants."""

    hexcode: str
    label: str
    tags: tuple[str, ...]
    group: str
    emoji_group: str
    emoji_subgroup: str

    @property
    def text(self) -> str:
        """Label and tags: "woman scientist. biologist, chemist, engineer"."""
        return f"{self.label}. {', '.join(self.tags)}" if self.tags else self.label

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of a pair's record."""
        return {
            "hexcode": self.hexcode,
            "label": self.label,
            "emoji_group": self.emoji_group,
            "emoji_subgroup": self.emoji_subgroup,
        }


def read_things(packages: Path | None) -> dict[str, Thing]:
    """drawing key -> thing, in Unicode's order, without components, symbols and flags. packages: see `data_prep.sources._npm.fetch`."""
    members = read_members(fetch(WORDS, packages), lambda name: name in (_DATA, _GROUPS))
    names = json.loads(members[_GROUPS])
    return things_of(json.loads(members[_DATA]), names["groups"], names["subgroups"])


def read_drawings(package: Package, packages: Path | None, prefix: str, suffix: str) -> dict[str, bytes]:
    """drawing key -> picture, from the archive's files named prefix + hexcode + suffix. Of two drawings of one sequence, with and without
    variation selectors, the later name is used.
    """
    members = read_members(fetch(package, packages), lambda name: name.startswith(prefix) and name.endswith(suffix))
    return {drawing_key(name[len(prefix) : -len(suffix)].replace("_", "-")): content for name, content in sorted(members.items())}


@dataclass(frozen=True, slots=True)
class DrawnThings:
    """The things for which a set has drawings, in their order, and the drawings. where: the package, for the ledger."""

    where: str
    suffix: str
    things: tuple[Thing, ...]
    drawings: tuple[bytes, ...]

    @classmethod
    def of(cls, where: str, suffix: str, things: Mapping[str, Thing], drawings: Mapping[str, bytes]) -> DrawnThings:
        """From drawing key -> thing and drawing key -> picture."""
        keys = [key for key in things if key in drawings]
        return cls(where, suffix, tuple(things[key] for key in keys), tuple(drawings[key] for key in keys))

    def pairs(self, part: Mapping[str, Any] | None, ledger: Ledger) -> Iterator[Pair]:
        """A pair for each, named by its hexcode, so that drawing sets can be joined. part: {"start", "stop"}, or None for all."""
        span = slice(None) if part is None else slice(part["start"], part["stop"])
        for thing, drawing in zip(self.things[span], self.drawings[span], strict=True):
            name = f"{thing.hexcode}{self.suffix}"
            yield from offer(ledger, self.where, name, drawing, [thing.text], thing.group, metadata=thing.metadata)


def things_of(entries: list[dict[str, Any]], groups: Mapping[str, str], subgroups: Mapping[str, str]) -> dict[str, Thing]:
    """As `read_things`, from emojibase's own JSON. A group is named by the label of its first emoji in Unicode's order."""
    kept = [entry for entry in entries if groups.get(str(entry.get("group")), LEFT_OUT[0]) not in LEFT_OUT]
    kept.sort(key=lambda entry: entry["order"])
    called: dict[str, str] = {}
    things = {}
    for entry in kept:
        hexcode = entry["hexcode"].lower()
        things[drawing_key(hexcode)] = Thing(
            hexcode=hexcode,
            label=entry["label"],
            tags=tuple(entry.get("tags", ())),
            group=called.setdefault(thing_key(hexcode), entry["label"]),
            emoji_group=groups[str(entry["group"])],
            emoji_subgroup=subgroups[str(entry["subgroup"])],
        )
    return things


def drawing_key(hexcode: str) -> str:
    """The sequence without variation selectors, which drawing sets use differently."""
    return "-".join(part for part in hexcode.lower().split("-") if part != _VARIATION)


def thing_key(hexcode: str) -> str:
    """The drawn thing: the same for man, woman and person, and for any hair, direction and colour.

    A person with a thing ("person-1f52c", a scientist) differs from the thing alone ("1f52c", a microscope). In a joined sequence without
    people, the first part counts: a polar bear is a bear with a snowflake.
    """
    parts = [part for part in drawing_key(hexcode).split("-") if part != ZWJ and part not in _SIGNS]
    people = [part for part in parts if part in _ADULTS | _CHILDREN]
    others = [part for part in parts if part not in _ADULTS | _CHILDREN | _HAIR]
    if len(people) > 1 and not others:
        key = "family"
    elif people and others:
        key = "-".join(["person", *others])
    else:
        key = parts[0]
    return _FIRST.get(key, key)
