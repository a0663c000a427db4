"""What every source must do, as checks that a test of yours can call.

    check_source(my_source, {"input": folder})
    check_parts(my_source, plan, {"input": folder}, pairs_per_shard=3)
    check_broken_items(my_source, {"input": folder}, {"input": damaged_copy}, lost=["b.jpg"])

A check raises AssertionError with what was wanted and what came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from data_prep.make_shards import sound
from data_prep.pictures import picture_extension
from data_prep.sources import Source
from multimodal.pairs import Pair
from multimodal.shards import Ledger


def read_all(source: Source, settings: Mapping[str, Any]) -> tuple[list[Pair], Ledger]:
    """All pairs of a source whose pictures decode, and the ledger with the rest (never written to disk)."""
    ledger = Ledger(Path("bad.csv"), max_bad_share=1)
    return list(sound(source(**settings, ledger=ledger), source.__name__, ledger)), ledger


def check_source(source: Source, settings: Mapping[str, Any]) -> list[Pair]:
    """On whole input: something comes, the same in the same order twice, nothing is called bad, names are unique, groups and texts set,
    extensions are those of the content. Returns the pairs, for what is special about the source.
    """
    pairs, ledger = read_all(source, settings)
    assert pairs, "the source yields no pair"
    assert not ledger.entries, f"whole input, and the ledger says: {'; '.join(map(str, ledger.entries[:3]))}"
    again, _ = read_all(source, settings)
    different = next((n for n, (one, other) in enumerate(zip(pairs, again, strict=False)) if one != other), None)
    assert len(pairs) == len(again) and different is None, f"two passes differ: {len(pairs)} and {len(again)} pairs, first at {different}"
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    assert not twice, f"names that come more than once: {', '.join(twice[:3])}"
    for pair in pairs:
        assert pair.group.strip(), f"{pair.name}: the group is blank"
        assert all(text == text.strip() for text in pair.texts), f"{pair.name}: a text begins or ends in blanks: {pair.texts}"
        extension = picture_extension(pair.image)
        assert pair.extension == extension, f"{pair.name}: extension {pair.extension}, and the content is {extension}"
    return pairs


def check_parts(
    source: Source, plan: Callable[..., list[dict[str, Any]]], settings: Mapping[str, Any], pairs_per_shard: int
) -> list[dict[str, Any]]:
    """The parts, read alone and last first, make what the source makes whole: pairs, order, lines of the ledger. Returns the parts.

    They are JSON, the same each time. Run it on damaged input too.
    """
    parts = plan(pairs_per_shard, **settings)
    assert parts == json.loads(json.dumps(parts)), "a part is changed by being written as JSON"
    assert parts == plan(pairs_per_shard, **settings), "two plans of the same input differ"
    read = [read_all(source, {**settings, "part": part}) for part in reversed(parts)][::-1]
    whole, ledger = read_all(source, settings)
    names = [pair.name for pairs, _ in read for pair in pairs]
    assert names == [pair.name for pair in whole], (
        f"the parts have {len(names)} pairs, {names[:3]}.., the whole {len(whole)}, or in another order"
    )
    assert [pair for pairs, _ in read for pair in pairs] == whole, "a pair differs when it is read in a part"
    told = [bad for _, one in read for bad in one.entries]
    assert sorted(map(str, told)) == sorted(map(str, ledger.entries)), (
        f"the ledgers of the parts say {told[:3]}.., that of the whole {ledger.entries[:3]}.."
    )
    return parts


def check_broken_items(source: Source, whole: Mapping[str, Any], damaged: Mapping[str, Any], lost: Collection[str]) -> None:
    """On input where some items are damaged: the ledger names each with a reason, and the others are as they were, in their places.

    whole, damaged: settings that lead to the same input without and with the damage. lost: the names of the damaged items' pairs.
    """
    before, _ = read_all(source, whole)
    after, ledger = read_all(source, damaged)
    missing = set(lost) - {pair.name for pair in before}
    assert not missing, f"not in the whole input: {', '.join(sorted(missing))}"
    kept = [pair for pair in before if pair.name not in lost]
    assert [pair.name for pair in after] == [pair.name for pair in kept], "the damage cost others, or moved them"
    assert after == kept, "the damage changed others"
    for name in lost:
        named = [bad for bad in ledger.entries if Path(bad.key).stem == Path(name).stem and bad.reason]
        assert named, f"{name} is lost, and the ledger does not name it"
