"""Made already? A command checks its output before it works, so that it may be killed at any moment and run again.

    asked = {"num_topics": 40, "made_from": {"shards": shards.fingerprint}}
    found = finished_box(output, "text-space")
    remedies = ("choose another --output", "replace it with --overwrite")
    state_of(output, asked, None if found is None else found.config, remedies=remedies, overwrite=overwrite)

The answer is a `State`: keep it, resume it, or make it. If the folder holds a box made with other settings, the answer is
an InputError, which names each setting that differs. The caller decides which settings count: it passes those of then and of now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from multimodal.boxes.manifests import Manifest, is_whole, read_manifest
from multimodal.errors import InputError

_ABSENT = object()
_MOST_SHOWN = 10
_MOST_LETTERS = 60
_FINGERPRINT_LETTERS = 64


class State(Enum):
    """The state of the box that a command is to make."""

    FRESH = "not there, or to be replaced: make it"
    UNFINISHED = "begun with these settings: resume it"
    FINISHED = "whole, and made with these settings: keep it"


def finished_box(box: str | Path, kind: str) -> Manifest | None:
    """The manifest of a finished box, None if there is none. InputError for a box of another kind, which is never replaced."""
    return read_manifest(box, kind) if is_whole(box) else None


def state_of(
    box: str | Path,
    asked: Mapping[str, Any],
    finished: Mapping[str, Any] | None,
    unfinished: Mapping[str, Any] | None = None,
    *,
    remedies: Sequence[str],
    overwrite: bool = False,
    begins_again: bool = False,
    null_is_absent: bool = True,
) -> State:
    """Whether the box already exists with the settings asked for; InputError, with each setting that differs, if another one does.

    box: what the message calls it. asked: the settings and fingerprints asked for, JSON values.
    finished, unfinished: the settings of an existing box that is finished, or only begun; None if there is none. Finished takes precedence.
    remedies: what a person can do in this command, such as "choose another --output".
    overwrite: a box with other settings is FRESH instead: the caller replaces it. begins_again: so is an unfinished one, without overwrite.
    null_is_absent: a setting that is null equals a missing one, as in a box that is older than the setting.
    """
    for found, state in ((finished, State.FINISHED), (unfinished, State.UNFINISHED)):
        if found is None:
            continue
        different = differences(found, asked, null_is_absent)
        if not different:
            return state
        if not overwrite and not (begins_again and state is State.UNFINISHED):
            made = "was made" if state is State.FINISHED else "is not finished, and was begun"
            raise InputError(f"{box}: {made} with other settings or inputs: {_shown(different)}. {_sentence(remedies)}")
        break
    return State.FRESH


def differences(found: Mapping[str, Any], asked: Mapping[str, Any], null_is_absent: bool = True) -> list[tuple[str, Any, Any]]:
    """The dotted name of each setting that differs, sorted, with its value then and now; None for a missing setting.

    Both are compared as JSON values: a tuple equals the list that is read back from a manifest, and NaN equals itself.
    """
    then, now = (flat(json.loads(json.dumps(settings, default=str))) for settings in (found, asked))
    if null_is_absent:
        then, now = ({name: value for name, value in one.items() if value is not None and value != {}} for one in (then, now))
    names = sorted(then.keys() | now.keys())
    return [(name, then.get(name), now.get(name)) for name in names if not _equal(then.get(name, _ABSENT), now.get(name, _ABSENT))]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config without nesting, to name settings that differ: {"split": {"seed": 0}} -> {"split.seed": 0}. An empty mapping stays."""
    flattened: dict[str, Any] = {}
    for name, value in config.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return flattened


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # NaN, as the figure of a run that diverged


def _shown(different: Sequence[tuple[str, Any, Any]]) -> str:
    shown = [f"{name} was {_short(then)} and is {_short(now)} now" for name, then, now in different[:_MOST_SHOWN]]
    more = [f"and {len(different) - _MOST_SHOWN} more"] if len(different) > _MOST_SHOWN else []
    return "; ".join(shown + more)


def _short(value: Any) -> str:
    """The value as shown in a message, a fingerprint by its first digits."""
    if value is None:
        return "not set"
    if isinstance(value, str) and len(value) == _FINGERPRINT_LETTERS:
        return f"{value[:12]}.."
    shown = repr(value)
    return shown if len(shown) <= _MOST_LETTERS else f"{shown[:_MOST_LETTERS]}.."


def _sentence(remedies: Sequence[str]) -> str:
    *first, last = remedies
    sentence = f"{', '.join(first)}{',' if first else ''}{' or ' if first else ''}{last}"
    return sentence[:1].upper() + sentence[1:]
