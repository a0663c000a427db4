"""Fit a text space on the texts of a shard set, and keep it as a box.

data-prep fit-text-space topics --shards shards/emoji --output spaces/lda40 --num-topics 40
data-prep fit-text-space wordllama --shards shards/emoji --output spaces/words
data-prep fit-text-space word2vec --shards shards/emoji --output spaces/word2vec --extra-texts wiki.jsonl.gz
data-prep fit-text-space fasttext --shards shards/emoji --output spaces/fasttext --dim 100
data-prep fit-text-space doc2vec --shards shards/wiki --output spaces/doc2vec --document pair
data-prep fit-text-space vectors --file glove.6B.300d.txt --shards shards/emoji --output spaces/glove300
data-prep fit-text-space encoder --output spaces/minilm
data-prep fit-text-space joined --spaces spaces/minilm spaces/words --output spaces/joined
data-prep fit-text-space mypackage.module:fit_mine --shards shards/emoji --output spaces/mine --its-option 3

fit_text_space(fit_topics, {"num_topics": 40}, read_texts(Path("shards/emoji")), Path("spaces/lda40"))

A space already in the output folder, fitted with equal settings on equal texts, is reused. Only the part of the set
given by --part is read ("train" by default), so that held-out pairs stay unseen by everything that is fitted; extra texts are read
in full, so none of them should belong to a held-out picture.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from data_prep.spaces import fit_doc2vec, fit_fasttext, fit_topics, fit_word2vec, from_vector_file, from_wordllama, topics
from data_prep.spaces.texts import Texts, read_texts
from multimodal.boxes import MANIFEST, Manifest, State, differences, fingerprint_file, finished_box, read_manifest, state_of
from multimodal.doors.arguments import Filled, parse
from multimodal.errors import InputError
from multimodal.text import Normaliser, TextSpace
from multimodal.text.space import KIND, Origin, origin_of

Fit = Callable[..., TextSpace]
"""Settings, and those of `FILLED` that it takes, from the job -> a space with `origin` in its manifest. No `texts`: not fitted."""

FILLED = frozenset({"texts", "held_out", "checkpoint", "origin"})
"""Parameters of a fitting function that are not settings."""
CHECKPOINT = "unfinished.npz"
_FOUND_OUT = ("figures", "repeatable")  # entries of a manifest about a fit that are results, not settings
_REMEDIES = ("choose another --output", "replace it with --overwrite")


@dataclass(frozen=True, slots=True)
class _Record:
    """How a space's manifest names its fit and the fit's settings; by default each setting under its name.

    later: settings added after the first spaces of this fit were made. They are recorded only if not the default, so old spaces stay valid.
    never: settings that do not change the space. files: a setting that is a file -> the name of its fingerprint.
    lines: what the command prints about the space.
    """

    job: str
    later: Collection[str] = ()
    never: Collection[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    lines: Callable[[Any], Iterator[str]] = lambda space: iter(())


_RECORDS: Mapping[Fit, _Record] = {
    fit_topics: _Record("topics", later=("num_processes",), never=("checkpoint_every",), lines=topics.lines),
    fit_word2vec: _Record("word2vec", later=("cbow", "scaling")),
    fit_fasttext: _Record("fasttext", later=("scaling",)),
    fit_doc2vec: _Record("doc2vec"),
    from_vector_file: _Record("vectors", later=("scaling",), files={"file": "vectors"}),
    from_wordllama: _Record("wordllama", later=("scaling",)),
}


def fit_text_space_verb(name: str, fit: Fit, args: Sequence[str]) -> None:
    """`data-prep fit-text-space <name> ...`: the settings of a fitting function, of the texts and of the box on one command line."""
    takes = inspect.signature(fit).parameters
    of_texts = [Filled(read_texts, () if "held_out" in takes else ("held_out",))] if "texts" in takes else []
    of_box = Filled(fit_text_space, ("fit", "settings", "texts"))
    try:
        settings, *texts, box = parse(f"data-prep fit-text-space {name}", args, Filled(fit, FILLED), *of_texts, of_box)
    except SystemExit:  # help was requested, and printed
        return
    fit_text_space(fit, settings, read_texts(**texts[0]) if texts else None, **box)


def fit_text_space(fit: Fit, settings: Mapping[str, Any], texts: Texts | None, output: Path, overwrite: bool = False) -> Path:
    """Make the space that a function fits, unless it exists, and return its folder.

    Args:
        fit: a function of `data_prep.spaces`, or one like them.
        settings: settings of that function.
        texts: the texts that it is fitted on, see `read_texts`; None if it takes none.
        output: the folder of the space.
        overwrite: replace a space in the output folder that was made with other settings or texts.
    """
    settings = _with_defaults(fit, settings)
    if texts is None:
        _keep(fit(**settings), output, overwrite)
    else:
        _fit(fit, settings, texts, output, overwrite)
    return output


def _keep(space: Any, output: Path, overwrite: bool) -> None:
    """Save a space that was not fitted; an existing one is compared with it in full."""
    found, asked = finished_box(output, KIND), asdict(space.manifest)
    then = None if found is None else asdict(found)
    state = state_of(output, asked, then, remedies=_REMEDIES, overwrite=overwrite, null_is_absent=False)
    if state is State.FINISHED:
        print(f"{output}: is there already", file=sys.stderr)
    else:
        space.save(output)


def _fit(fit: Fit, settings: Mapping[str, Any], texts: Texts, output: Path, overwrite: bool) -> None:
    record, takes = _RECORDS.get(fit) or _Record(f"{fit.__module__}:{fit.__qualname__}"), inspect.signature(fit).parameters
    origin, found = _origin(record, fit, settings, texts), finished_box(output, KIND)
    asked, then = _compared(origin), None if found is None else _compared(origin_of(found))
    if state_of(output, asked, then, remedies=_REMEDIES, overwrite=overwrite) is State.FINISHED:
        print(f"{output}: is there already", file=sys.stderr)
    else:
        gives = {"texts": lambda: texts, "held_out": texts.held_out, "checkpoint": lambda: output / CHECKPOINT, "origin": lambda: origin}
        space = fit(**settings, **{name: give() for name, give in gives.items() if name in takes})
        for line in record.lines(space):
            print(line, file=sys.stderr)
        space.save(output)
        made = read_manifest(output, KIND)
        _check_says(record.job, output, made, asked)
        print(f"{output}: {', '.join(f'{count} {what}' for what, count in made.counts.items())}", file=sys.stderr)
    if "checkpoint" in takes:
        (output / CHECKPOINT).unlink(missing_ok=True)


def _with_defaults(fit: Fit, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of the function, so that one given as its default equals one left out. InputError for an unknown one."""
    signature = inspect.signature(fit)
    try:
        bound = signature.bind(**settings, **dict.fromkeys(FILLED & signature.parameters.keys()))
    except TypeError as error:
        raise InputError(f"{fit.__qualname__}: {error}") from None
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name not in FILLED}


def _origin(record: _Record, fit: Fit, settings: Mapping[str, Any], texts: Texts) -> Origin:
    """The manifest's record of the fit: settings as JSON values, and fingerprints of the texts and of settings that are files."""
    parameters = inspect.signature(fit).parameters
    told = {
        name: _plain(value)
        for name, value in settings.items()
        if not isinstance(value, Path) and name not in record.never and not (name in record.later and value == parameters[name].default)
    }
    files = {record.files.get(name, name): _fingerprint(value) for name, value in settings.items() if isinstance(value, Path)}
    config = json.loads(json.dumps({"job": record.job, **texts.settings, **told}))
    return Origin(config, {**texts.made_from, **files})


def _plain(value: Any) -> Any:
    if isinstance(value, Normaliser):
        return value.to_json()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _fingerprint(file: Path) -> str:
    if not file.is_file():
        raise InputError(f"{file}: is a folder. Give the file in it" if file.is_dir() else f"{file}: there is no such file")
    return fingerprint_file(file)


def _compared(origin: Origin) -> dict[str, Any]:
    """What was asked for. A setting or an input that is present only then or only now makes another space."""
    return {**{name: value for name, value in origin.config.items() if name not in _FOUND_OUT}, "made_from": dict(origin.made_from)}


def _check_says(job: str, output: Path, made: Manifest, asked: Mapping[str, Any]) -> None:
    """InputError, and no finished box, if a custom function lost the record that the next call will compare."""
    if differences(_compared(origin_of(made)), asked):
        (output / MANIFEST).unlink()
        raise InputError(f"{job}: its space does not record how it was made. Pass `origin` on to the space; BoxedSpace keeps it")
