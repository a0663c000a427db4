"""Captions in one JSON file, in the usual formats: COCO's own files, and Karpathy's splits of COCO and Flickr.

{"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"image_id": 7, "caption": "A dog ."}]}                     COCO
{"images": [{"filename": "a.jpg", "filepath": "val2014", "split": "restval", "sentences": [{"raw": "A dog ."}]}]}         Karpathy
[{"image": "a.jpg", "caption": "A dog ."}]                                                                           a list of objects
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_prep.files.text_files import encoding_of, read_text
from data_prep.sources._caption_entries import Columns, Entries
from data_prep.sources._caption_tables import read_objects
from multimodal.errors import InputError

_KARPATHY_SPLITS = {"restval": "train"}
"""The rest of COCO's validation pictures in Karpathy and Fei-Fei (CVPR 2015); papers since VSE++ (BMVC 2018) train on it."""


def read_json(path: Path, columns: Columns, entries: Entries) -> None:
    """Captions of COCO or of Karpathy, or a list of objects as in JSON Lines, recognised by the file's content.

    InputError for any other layout.
    """
    encoding = encoding_of(path, columns.encoding)
    entries.note_encoding(encoding)
    try:
        held = json.loads(read_text(path, encoding))
    except json.JSONDecodeError as error:
        hint = ". If it has one object per line, rename it to end in .jsonl" if error.msg == "Extra data" else ""
        raise InputError(f"{path} line {error.lineno}: is not JSON: {error.msg}{hint}") from None
    except RecursionError:
        raise InputError(f"{path}: is JSON that is nested too deeply to be captions") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{path}: is JSON that cannot be read: {error}") from None
    if isinstance(held, list) and held and all(isinstance(one, dict) for one in held):
        read_objects(path, ((f"[{number}]", one) for number, one in enumerate(held)), columns, entries)
        return
    columns.refuse_for(path, "JSON of COCO or Karpathy")
    images, annotations = _field(held, "images"), _field(held, "annotations")
    if isinstance(images, list) and isinstance(annotations, list):
        _read_coco(path, images, annotations, entries)
    elif isinstance(images, list) and any(_field(image, "sentences") is not None for image in images):
        _read_karpathy(images, entries)
    else:
        found = f"an object with {', '.join(held) or 'nothing'}" if isinstance(held, dict) else f"a {type(held).__name__}"
        raise InputError(
            f"{path}: holds {found}; expected COCO's captions (lists `images` and `annotations`), Karpathy's "
            "(a list `images`, each with `sentences`), or a list of objects with `file` and `caption`"
        )


def _read_coco(path: Path, images: list[Any], annotations: list[Any], entries: Entries) -> None:
    """Pictures in the order of `images`, each with its captions in the order of `annotations`."""
    if annotations and not any(isinstance(_field(annotation, "caption"), str) for annotation in annotations):
        raise InputError(f"{path}: none of its annotations has a `caption`. Use COCO's captions_*.json")
    files = {_id(image, "id"): _field(image, "file_name") for image in images}
    captions: dict[str, list[str]] = {id: [] for image in images if (id := _id(image, "id"))}
    for number, annotation in enumerate(annotations):
        id, caption = _id(annotation, "image_id"), _field(annotation, "caption")
        if id not in captions:
            entries.bad(f"annotations[{number}]", "", f"no picture has its image_id, {_field(annotation, 'image_id')!r:.60}")
        elif not isinstance(caption, str) or not caption.strip():
            entries.bad(f"annotations[{number}]", str(files[id] or ""), "has no text")
        else:
            captions[id].append(caption)
    for number, image in enumerate(images):
        id, file = _id(image, "id"), _field(image, "file_name")
        texts = captions.pop(id, None)
        if texts is None:
            reason = f"another picture before it has its id, {_field(image, 'id')!r:.60}" if id else "has no id"
            entries.bad(f"images[{number}]", str(file or ""), reason)
        else:
            entries.add(f"images[{number}]", file, texts)


def _read_karpathy(images: list[Any], entries: Entries) -> None:
    """Pictures in their order, with the splits of the file; "restval" is "train"."""
    for number, image in enumerate(images):
        folder, file, split, sentences = (_field(image, name) for name in ("filepath", "filename", "split", "sentences"))
        if folder and isinstance(file, str):
            file = f"{folder}/{file}"
        raw = [_field(sentence, "raw") for sentence in sentences] if isinstance(sentences, list) else None
        entries.add(f"images[{number}]", file, raw, _KARPATHY_SPLITS.get(split, split) if isinstance(split, str) else split)


def _field(held: Any, name: str) -> Any:
    """A field of what should be an object; None where it is none, or lacks the field."""
    return held.get(name) if isinstance(held, dict) else None


def _id(held: Any, name: str) -> str:
    """An id as a string, since exporters write 7, 7.0 and "7" for the same; "" where there is none."""
    value = _field(held, name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
