"""WebVision 1.0: 2.4 million pictures found by Google and Flickr for the names of ImageNet's 1,000 classes, with their texts.

    data-prep make-shards webvision WebVision --filelist google --output shards/webvision-google
    data-prep make-shards webvision WebVision --filelist val --output shards/webvision-val

    WebVision/info/train_filelist_google.txt     google/q0001/_0MNpHt8SOBsjM.jpg 0        a picture and its class, counted from 0
    WebVision/info/train_meta_list_google.txt    google/q0001.json 1                      line by line: where its text is, rows from 1
    WebVision/google_json/q0001.json             [{"title": "...", "description": "...", "tags": ["..."]}, ...]
    WebVision/google/q0001/*.jpg                 the pictures; likewise for flickr
    WebVision/info/val_filelist.txt              val000001.jpg 0                          pictures in val_images_256/
    WebVision/info/synsets.txt                   n01440764 tench, Tinca tinca             line 1 is class 0

The JSON files may also be under meta/ (meta/google/q0001.json), and the pictures under train_images_256/. Download it from
data.vision.ee.ethz.ch/cvl/webvision (info, google_json, flickr_json, google_resized_256, flickr_resized_256, val_images_256).

W. Li, L. Wang, W. Li, E. Agustsson, L. Van Gool, "WebVision Database: Visual Learning and Understanding from Web Data", 2017.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from data_prep.files.lines import BadLine, string_of, text_of_line
from data_prep.pictures.formats import offer
from data_prep.sources import check_listing, input_fingerprint
from data_prep.sources._layout import check_layout, first_names
from multimodal.boxes import fingerprint_json
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

Filelist = Literal["google", "flickr", "all", "val"]
Text = Literal["joined", "parts"]

SYNSETS = "info/synsets.txt"
IMAGE_FOLDERS = ("", "train_images_256", "val_images_256", "val_images")
"""The folders that paths in the file lists may be relative to, in the order in which they are tried."""

_PAIRS_AT_ONCE = 1000
_JSON_KEPT = 4  # rows of one JSON follow each other in the lists, some hundred at a time


def webvision(
    input: Path, filelist: Filelist = "all", text: Text = "joined", part: Mapping[str, Any] | None = None, *, ledger: Ledger
) -> Iterator[Pair]:
    """The pictures of one file list in its order, each its own group; the class is metadata: `label`, and its name as `class`.

    input: the folder that holds info.
    filelist: google, flickr or all, whose pictures are in the split `train`; or val, whose pictures are in `val`.
    text: joined: one text of title, description and tags, one line each, as in the papers; parts: each of those that is not blank is a
        separate text, in this order, and training draws one of them.

    A picture of val has no text from the web: its text is the name of its class. InputError: a list, or a file that it names, is missing,
    or the two lists of a name differ in length.
    """
    lists = _Lists.of(input, filelist)
    for one in plan(_PAIRS_AT_ONCE, input, filelist, text) if part is None else [part]:
        check_listing(input, lists.sizes, one["list_bytes"])
        yield from _pairs_of(input, lists, text, one, ledger)


def plan(pairs_per_shard: int, input: Path, filelist: Filelist = "all", text: Text = "joined") -> list[dict[str, Any]]:
    """Ranges of lines: the number of the first line, how many, its byte offset in each list, and the sizes of the lists.

    A range ends where the next JSON file begins, unless one JSON file has more rows than a shard: so a JSON file is parsed for one part
    only.
    """
    lists = _Lists.of(input, filelist)
    parts: list[dict[str, Any]] = []
    for lines in _runs(lists, pairs_per_shard):
        if parts and parts[-1]["num"] + lines["num"] <= pairs_per_shard:
            parts[-1]["num"] += lines["num"]
        else:
            parts.append(lines)
    if not parts:
        raise InputError(f"{lists.files}: is empty; it needs one line per picture, with its path and its class")
    _check_reachable(input, lists)
    return parts


def inputs(input: Path, filelist: Filelist, text: Text) -> dict[str, str]:
    """Fingerprints of the lists by content and of the JSON files by size; the lists stand for the pictures."""
    lists = _Lists.of(input, filelist)
    said = {"files": input_fingerprint(lists.files)}
    if (input / SYNSETS).is_file():
        said["synsets"] = input_fingerprint(input / SYNSETS)
    if lists.texts is None:
        return said
    with open(lists.texts, "rb") as file:
        paths = dict.fromkeys(line.rpartition(b" ")[0].decode("utf-8", "replace") for line in file)
    sizes = [[path.relative_to(input).as_posix(), path.stat().st_size] for named in paths if (path := _json_path(input, named))]
    return said | {"texts": input_fingerprint(lists.texts), "json": fingerprint_json(sizes)}


@dataclass(frozen=True, slots=True)
class _Lists:
    """The file list, and the parallel list of where the texts are; None if there is none (val)."""

    files: Path
    texts: Path | None
    split: str

    @property
    def sizes(self) -> list[int]:
        """In bytes, of each list."""
        return [path.stat().st_size for path in (self.files, self.texts) if path is not None]

    @classmethod
    def of(cls, input: Path, filelist: Filelist) -> _Lists:
        if filelist == "val":
            check_layout(input, "WebVision", ["info/val_filelist.txt", SYNSETS])
            return cls(input / "info/val_filelist.txt", None, "val")
        names = [f"info/train_filelist_{filelist}.txt", f"info/train_meta_list_{filelist}.txt"]
        check_layout(input, "WebVision", names)
        return cls(input / names[0], input / names[1], "train")


def _runs(lists: _Lists, pairs_per_shard: int) -> Iterator[dict[str, Any]]:
    """Consecutive lines of one JSON file, split if they are more than a shard holds."""
    for _, run in groupby(_lines(lists, 0, 0, 0), key=lambda line: line.json):
        lines = list(run)
        for start in range(0, len(lines), pairs_per_shard):
            first, num = lines[start], min(pairs_per_shard, len(lines) - start)
            yield {"line": first.number, "num": num, "files_at": first.files_at, "texts_at": first.texts_at, "list_bytes": lists.sizes}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file list and the parallel line of the text list. number: from 0; files_at, texts_at: their byte offsets."""

    number: int
    file: bytes
    text: bytes
    files_at: int
    texts_at: int

    @property
    def json(self) -> bytes:
        return self.text.rpartition(b" ")[0]


def _lines(lists: _Lists, number: int, files_at: int, texts_at: int) -> Iterator[_Line]:
    """The lines of both lists, in parallel, from there on; InputError if one ends before the other."""
    with open(lists.files, "rb") as files, open(lists.texts or lists.files, "rb") as texts:
        files.seek(files_at)
        texts.seek(texts_at)
        for file in files:
            text = texts.readline() if lists.texts else b""
            if lists.texts and not text:
                raise InputError(f"{lists.texts}: ends after {number} lines, before {lists.files.name}. Download both lists again")
            yield _Line(number, file.strip(), text.strip(), files_at, texts_at)
            number, files_at, texts_at = number + 1, files_at + len(file), texts_at + len(text)
        if lists.texts and texts.readline():
            raise InputError(f"{lists.files}: ends after {number} lines, before {lists.texts.name}. Download both lists again")


def _pairs_of(input: Path, lists: _Lists, text: Text, part: Mapping[str, Any], ledger: Ledger) -> Iterator[Pair]:
    classes = _class_names(input)
    rows = lru_cache(_JSON_KEPT)(lambda path: _rows(input, path))
    for line in islice(_lines(lists, part["line"], part["files_at"], part["texts_at"]), part["num"]):
        where, name = f"{lists.files.name} line {line.number + 1}", ""
        try:
            name, label = _path_and_number(line.file, "path and class, `google/q0001/a.jpg 0`")
            if classes and label not in range(len(classes)):
                raise BadLine(f"its class is {label}, and {SYNSETS} has 0 to {len(classes) - 1}")
            texts = _texts(line.text, rows, text) if lists.texts else [classes[label]]
            image = _image(input, name)
        except BadLine as error:
            ledger.bad(where, name, str(error))
            continue
        metadata = {"label": label} | ({"class": classes[label]} if classes else {})
        yield from offer(ledger, where, name, image, texts, name, lists.split, metadata)


def _texts(line: bytes, rows: Callable[[str], list[Any] | str], text: Text) -> list[str]:
    """The texts of a picture from a row of a JSON file. BadLine if there is no such row, or a field is invalid."""
    path, number = _path_and_number(line, "JSON file and row, `google/q0001.json 1`")
    held = rows(path)
    if isinstance(held, str):
        raise BadLine(f"its text is in {path}{held}")
    if not 1 <= number <= len(held):
        raise BadLine(f"its text is in row {number} of {path}, which has {len(held)}")
    row = held[number - 1]
    if not isinstance(row, dict):
        raise BadLine(f"row {number} of {path}: expected an object, got a {type(row).__name__}")
    tags = row.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadLine(f"`tags` in row {number} of {path} is no list of strings")
    parts = [string_of(row, "title"), string_of(row, "description"), ", ".join(tag.strip() for tag in tags if tag.strip())]
    parts = [part for part in parts if part]
    return ["\n".join(parts)] if text == "joined" else parts


def _rows(input: Path, named: str) -> list[Any] | str:
    """The list in a JSON file, or what is wrong with it: kept as well, so that a broken file is not read again for each picture."""
    path = _json_path(input, named)
    if path is None:
        return f", and none of these files exists: {', '.join(map(str, _json_names(named)))}"
    try:
        held = json.loads(path.read_bytes())
    except ValueError as error:  # of JSON and of UTF-8 alike
        return f", which is not JSON: {error}"
    return held if isinstance(held, list) else f": expected a list, got a {type(held).__name__}"


def _json_names(named: str) -> list[PurePosixPath]:
    """The possible paths of a JSON file in the lists: google/q0001.json -> google_json/q0001.json, meta/google/q0001.json, unchanged."""
    path = PurePosixPath(named)
    return [PurePosixPath(f"{path.parts[0]}_json", *path.parts[1:]), PurePosixPath("meta", path), path]


def _json_path(input: Path, named: str) -> Path | None:
    if not named or not _stays_inside(named):
        return None
    return next((input / path for path in _json_names(named) if (input / path).is_file()), None)


def _image(input: Path, named: str) -> bytes:
    if not _stays_inside(named):
        raise BadLine("its path leads out of the data set")
    for folder in IMAGE_FOLDERS:
        try:
            return (input / folder / named).read_bytes()
        except FileNotFoundError:
            continue
    raise BadLine(f"no such picture in {', '.join(folder or input.name for folder in IMAGE_FOLDERS)}")


def _stays_inside(named: str) -> bool:
    path = PurePosixPath(named)
    return not path.is_absolute() and ".." not in path.parts


def _path_and_number(line: bytes, expected: str) -> tuple[str, int]:
    path, _, number = text_of_line(line).rpartition(" ")
    if not path.strip() or not number.isdecimal():
        raise BadLine(f"expected {expected}, got {line[:60]!r}")
    return path.strip(), int(number)


def _class_names(input: Path) -> list[str]:
    """The names of the classes; [] if the file is missing, and then only labels are known."""
    try:
        lines = (input / SYNSETS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [line.partition(" ")[2].strip() for line in lines]


def _check_reachable(input: Path, lists: _Lists) -> None:
    """InputError if the first line's JSON file or folder of pictures is missing: an archive was not unpacked."""
    line = next(_lines(lists, 0, 0, 0))
    try:
        name, _ = _path_and_number(line.file, "path and class")
        named, _ = _path_and_number(line.text, "JSON file and row") if lists.texts else ("", 0)
    except BadLine:  # the ledger will list it
        return
    if lists.texts and _json_path(input, named) is None:
        tried = ", ".join(map(str, _json_names(named)))
        raise InputError(
            f"{input}: the text of the first picture is in {named}; expected {tried}, and found {first_names(input)}. "
            "Unpack the archives of texts"
        )
    folders = [PurePosixPath(folder) / PurePosixPath(name).parent for folder in IMAGE_FOLDERS]
    if not any(part != PurePosixPath() and (input / part).is_dir() for part in folders):
        raise InputError(
            f"{input}: the first picture is {name}; expected {', '.join(map(str, folders))}, and found {first_names(input)}. "
            "Unpack the archives of pictures"
        )
