"""The contract of a source, as checks that your tests can call.

    check_source(my_source, {"input": folder})
    check_parts(my_source, {"input": folder}, pairs_per_shard=3)
    check_broken_items(my_source, {"input": folder}, {"input": damaged_copy}, lost=["b.jpg"])

A check that fails raises AssertionError, which says what was expected and what was found.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import picture_extension
from data_prep.shards.plan import plan_of, source_path
from data_prep.shards.valid import valid_pairs
from data_prep.sources import Source, with_defaults
from multimodal.pairs import Pair
from multimodal.shards import Ledger


def read_all(source: Source, settings: Mapping[str, Any]) -> tuple[list[Pair], Ledger]:
    """All pairs of a source whose pictures decode, and a ledger of the others, which is never written to disk."""
    ledger = Ledger(Path("bad.csv"), max_bad_share=1)
    return list(valid_pairs(source(**settings, ledger=ledger), source.__name__, ledger)), ledger


def check_source(source: Source, settings: Mapping[str, Any], keeps: Collection[str] = ()) -> list[Pair]:
    """Check a source on undamaged input. Returns the pairs, so that a test can check what is special about the source.

    The source yields at least one pair and the same pairs in the same order twice; the ledger stays empty; names are unique, groups and
    texts are set, and extensions match the content. Two iterators at once do not affect each other, one that is closed early stops at
    once, and nothing is written into the input.

    keeps: settings that name a folder into which the source writes, such as the downloads of `urls`: it may write there, and two
    iterators at once are not checked.
    """
    read = {name: value for name, value in settings.items() if name not in keeps}
    before = _listing(read)
    pairs, ledger = read_all(source, settings)
    assert pairs, "the source yields no pair"
    assert not ledger.entries, f"the input is undamaged, but the ledger has: {'; '.join(map(str, ledger.entries[:3]))}"
    again, _ = read_all(source, settings)
    different = next((n for n, (one, other) in enumerate(zip(pairs, again, strict=False)) if one != other), None)
    assert len(pairs) == len(again) and different is None, (
        f"two passes differ: {len(pairs)} and {len(again)} pairs; first difference: {different}"
    )
    if not keeps:
        _check_two_at_once(source, settings)
    _check_left_early(source, settings)
    added = sorted(_listing(read) ^ before)
    assert not added, f"reading changed the input: {added[0][0]}. Whatever a source writes there is read the next time"
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    assert not twice, f"names that are not unique: {', '.join(twice[:3])}"
    for pair in pairs:
        assert pair.group.strip(), f"{pair.name}: the group is blank"
        assert all(text == text.strip() for text in pair.texts), f"{pair.name}: a text begins or ends with white space: {pair.texts}"
        extension = picture_extension(pair.image)
        assert pair.extension == extension, f"{pair.name}: expected the extension {extension} of its content, got {pair.extension}"
    return pairs


def _listing(settings: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Every file under the paths among the settings, with its size."""
    roots = [value for value in settings.values() if isinstance(value, Path)]
    files = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*")) if file.is_file()]
    return {(str(file), file.stat().st_size) for file in files}


def _ledger() -> Ledger:
    return Ledger(Path("bad.csv"), max_bad_share=1)


def _check_two_at_once(source: Source, settings: Mapping[str, Any]) -> None:
    together = zip_longest(source(**settings, ledger=_ledger()), source(**settings, ledger=_ledger()))
    different = next((number for number, (one, other) in enumerate(together) if one != other), None)
    assert different is None, (
        f"two iterators at once affect each other: pair {different} differs. Keep state in local variables of the function"
    )


def _check_left_early(source: Source, settings: Mapping[str, Any]) -> None:
    reading = source(**settings, ledger=_ledger())
    next(reading)
    if isinstance(reading, Generator):
        try:
            reading.close()
        except RuntimeError:
            raise AssertionError(
                "an iterator that was closed after one pair continues: catch `Exception` at most, never BaseException"
            ) from None


def check_parts(source: Source, settings: Mapping[str, Any], pairs_per_shard: int) -> list[dict[str, Any]]:
    """The parts of the plan, each read by itself, in reverse order, give what one pass gives: the same pairs in the same order, the same
    ledger entries. The plan is JSON and deterministic. Returns the parts. Run this on damaged input too.
    """
    plan = plan_of(source)
    assert plan is not None, f"{source_path(source)} has no `plan` beside it, or takes no `part`"
    settings = with_defaults(source, settings)
    parts = plan(pairs_per_shard, **settings)
    assert parts == json.loads(json.dumps(parts)), "a part is not the same after a round trip through JSON"
    assert parts == plan(pairs_per_shard, **settings), "two plans of the same input differ"
    read = [read_all(source, {**settings, "part": part}) for part in reversed(parts)][::-1]
    whole, ledger = read_all(source, settings)
    names = [pair.name for pairs, _ in read for pair in pairs]
    assert names == [pair.name for pair in whole], (
        f"the parts have {len(names)} pairs, {names[:3]}.., and one pass has {len(whole)}, or another order"
    )
    assert [pair for pairs, _ in read for pair in pairs] == whole, "a pair differs if it is read in a part"
    entries = [bad for _, one in read for bad in one.entries]
    assert sorted(map(str, entries)) == sorted(map(str, ledger.entries)), (
        f"the ledgers of the parts have {entries[:3]}.., that of one pass {ledger.entries[:3]}.."
    )
    return parts


def check_broken_items(source: Source, whole: Mapping[str, Any], damaged: Mapping[str, Any], lost: Collection[str]) -> None:
    """On partly damaged input, the ledger names each damaged item with a reason, and the other pairs and their order are unchanged.

    whole, damaged: settings for the same input without and with the damage. lost: the names of the pairs that are damaged.
    """
    before, _ = read_all(source, whole)
    after, ledger = read_all(source, damaged)
    missing = set(lost) - {pair.name for pair in before}
    assert not missing, f"not in the undamaged input: {', '.join(sorted(missing))}"
    kept = [pair for pair in before if pair.name not in lost]
    assert [pair.name for pair in after] == [pair.name for pair in kept], "the damage removed or moved other pairs"
    assert after == kept, "the damage changed other pairs"
    for name in lost:
        named = [bad for bad in ledger.entries if Path(bad.key).stem == Path(name).stem and bad.reason]
        assert named, f"{name} is damaged, but the ledger does not name it"
