"""`multimodal push`: an export as a model repository on the Hugging Face hub, with a model card.

    multimodal push runs/mine/export user/name --licence apache-2.0 --data "Flickr8k: 6,000 photographs, five captions each"
    multimodal.open("hf://user/name")               # reads it, on any machine

A card says how the model is used, its figures beside chance, what it learned from, and its licence (Mitchell et al., 2019).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from multimodal.boxes import MANIFEST, Manifest, atomic_write, link_or_copy, read_any_manifest, read_manifest, reading
from multimodal.errors import InputError
from multimodal.export.card import Card, read_card
from multimodal.export.hub import CARD, PREFIX, Address, commit, files_of
from multimodal.urls import is_url
from multimodal.verify import problems_of

CHANCE, CONTROL = "chance", "permuted"
"""In the names of figures: what a random order, or permuted classes, would have."""
_OUR_PACKAGES = ("multimodal", "torch")
CARD_TEXT = """\
---
license: {licence}
library_name: wordsight
pipeline_tag: zero-shot-image-classification
tags:
- image-text-retrieval
- {tag}
---
# {name}

Pictures and texts as vectors of {dim} dimensions, compared by cosine. Family: {family}.

## Use
```python
import multimodal as mm

model = mm.open("{address}"{trust})
scores = model.similarity(model.encode_text("a dog on the beach"), model.encode_image("me.jpg"))
```
Or index a collection: `multimodal index --export {address} --shards S --output STORE`.

## Figures
{validation}
{measured}
## Data
{data}

## Licence
{licence}

## What is inside
```
{summary}
  parameters of the image side: {parameters:,}
```
Weights are safetensors, everything else is JSON or text: opening it runs no code from this repository. Fingerprint: `{fingerprint}`
"""


def push(
    export: Path,
    repository: str,
    licence: str,
    data: str,
    figures: Sequence[Path] = (),
    private: bool = False,
    dry_run: Path | None = None,
    trust: Sequence[str] = (),
) -> str:
    """Put an export into a model repository of the Hugging Face hub, with a model card. It is verified first, and is then one commit.

      multimodal push runs/mine/export user/name --licence cc-by-nc-4.0 --data "Flickr8k, training part" --figures retrieval.json
      multimodal push runs/mine/export user/name --licence mit --data "my holiday pictures" --dry-run look/   # nothing is sent

    Afterwards multimodal.open("hf://user/name") opens it, and so do `index --export hf://user/name` and others. You must be logged in
    (hf auth login, or HF_TOKEN). An export that is in the repository already is replaced, and stays in its history.

    Args:
        export: made by `multimodal export`.
        repository: USER/NAME on the hub, or ORGANISATION/NAME; it is created if need be.
        licence: of the model, as the hub writes it: apache-2.0, mit, cc-by-4.0, cc-by-nc-4.0, other ... Mind the terms of the data, of the
            trunk's weights and of the text encoder.
        data: what the model learned from, in words: the data set, its size, where it is, its licence.
        figures: files that `multimodal evaluate ... --output FILE.json` wrote, for the card. The figures of the run's own validation are
            in the card in any case.
        private: create the repository so that only you see it.
        dry_run: a new folder to write everything to that would be sent, and send nothing. It is an export, with the card.
        trust: your own packages whose classes the export names, so that verifying opens them too. Their code is run.
    """
    address = Address.parse_name(repository)
    manifest, card = read_manifest(export, kind="export"), read_card(export)
    for problem in problems_of(export, trust):
        raise InputError(f"{export}: is damaged ({problem}). Nothing was sent. Make the export again: multimodal export")
    files = files_of(export)
    measured = [(Path(path), _rows_of(Path(path))) for path in figures]
    text = model_card(address.repository, manifest, card, _packages(card, files), licence, data, measured)
    size = sum(path.stat().st_size for path in files.values())
    if dry_run is not None:
        _write(dry_run, files, text)
        print(f"{dry_run}: {len(files) + 1} files, {size:,} bytes: what would be sent to {address}. Nothing was sent", file=sys.stderr)
        return str(dry_run)
    where = commit(address, files, text, private, f"{card.family} export {manifest.fingerprint[:12]}")
    print(f'{where}\n{len(files) + 1} files, {size:,} bytes. To open it: multimodal.open("{address}")', file=sys.stderr)
    return where


def model_card(
    repository: str,
    manifest: Manifest,
    card: Card,
    packages: Sequence[str],
    licence: str,
    data: str,
    measured: Sequence[tuple[Path, Sequence[Mapping[str, Any]]]],
) -> str:
    """The card, in Markdown, with the metadata that the hub reads in front.

    packages: whose classes the export names, beside this project's. measured: the rows of each file of figures.
    InputError: the licence is not a word, or nothing is said of the data.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise InputError(
            f"--licence {licence!r}: expected an identifier of the hub, such as apache-2.0, mit, cc-by-4.0, cc-by-nc-4.0, other"
        )
    if not data.strip():
        raise InputError("--data: say what the model learned from, as others must know it: --data 'Flickr8k, 6,000 photographs'")
    return CARD_TEXT.format(
        name=repository.rpartition("/")[2],
        address=f"{PREFIX}{repository}",
        trust=f", trust={list(packages)}" if packages else "",
        family=card.family,
        tag=json.dumps(card.family),
        dim=card.dim,
        licence=licence,
        data=data.strip(),
        validation="\n".join(_validation(card)),
        measured="".join(_measured(measured)),
        summary=replace(card, figures={}).summary(),
        parameters=manifest.counts.get("parameters", 0),
        fingerprint=manifest.fingerprint,
    )


def _validation(card: Card) -> Iterator[str]:
    """The run's own figures, each beside its chance if that is known."""
    if not card.figures:
        yield ("None came with the weights." if not card.interpolation else "The weights are between two models: no run measured them.")
        return
    yield from ("On the validation pairs of the run, by which its weights were chosen:", "")
    shown = sorted((name for name in card.figures if CHANCE not in name), key=lambda name: (name.rstrip("0123456789"), len(name), name))
    yield from _table(
        [{"figure": name, "value": card.figures[name], CHANCE: card.figures.get(name.replace("/", f"/{CHANCE}_", 1))} for name in shown]
    )


def _measured(measured: Sequence[tuple[Path, Sequence[Mapping[str, Any]]]]) -> Iterator[str]:
    """A paragraph and a table for each file."""
    for path, rows in measured:
        yield f"\n`{path.name}`, by `multimodal evaluate`; shares are in per cent:\n"
        for _, alike in groupby(rows, key=lambda row: list(row)):
            scalars = [{name: value for name, value in row.items() if not isinstance(value, list | dict)} for row in alike]
            yield "".join(f"\n{line}" for line in _table(scalars)) + "\n"


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A Markdown table; columns without any value are left out."""
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    yield f"| {' | '.join(map(_cell, columns))} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(_cell(row[name]) for name in columns)} |"


def _cell(value: Any) -> str:
    shown = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(shown.split()).replace("|", "\\|")


def _rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that an evaluation wrote; InputError if it is none, or has figures without a level of chance."""
    try:
        with reading(path):
            rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--figures {path}: {error.strerror}. multimodal evaluate ... --output FILE.json writes one") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and row for row in rows):
        raise InputError(f"--figures {path}: expected the rows that multimodal evaluate ... --output FILE.json writes")
    if not all(any(CHANCE in name or CONTROL in name for name in row) for row in rows):
        raise InputError(f"--figures {path}: has figures without a level of chance, beside which a reader could judge them")
    return rows


def _packages(card: Card, files: Mapping[str, Path]) -> list[str]:
    """The packages of others whose classes the export names: of its own parts, and of its text spaces."""
    named = [str(part["class_path"]) for part in card.architecture.values()]
    inside = [read_any_manifest(path.parent) for name, path in files.items() if path.name == MANIFEST and name != MANIFEST]
    named += [str(manifest.config.get("class", "")) for manifest in inside]
    return sorted({path.partition(".")[0] for path in named} - {*_OUR_PACKAGES, ""})


def _write(folder: Path, files: Mapping[str, Path], card: str) -> None:
    if is_url(str(folder)) or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError(f"--dry-run {folder}: expected a folder that is empty, or does not exist yet")
    for name, path in sorted(files.items(), key=lambda item: item[0] == MANIFEST):  # a box with a manifest is complete
        link_or_copy(path, folder / name)
    with atomic_write(folder / CARD) as file:
        file.write(card.encode())
