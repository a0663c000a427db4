"""What a store's manifest says: the parts of a generation, how they are named and where they lie.

S/manifest.json            the generation: its segments and tombstones; written last, by atomic replace
S/query/                   a copy of the export's text space
S/segments/000000/         see `multimodal.search.segments`
S/tombstones/000002.npy    (t, 2) int64: segment number and id of each row that is deleted but still in its segment
S/fusion/000004.npy        (d + 2 + w, d) float64, see `multimodal.search.calibration`; the manifest names the way to combine terms
S/index/000005/            what the store's engine saved, if it is one whose index is kept; see `multimodal.search.kept`
S/map/000006/              where the pictures are on the store's map, if it keeps one; see `multimodal.search.places`
S/left_out/000003.parquet  files of the folders that are no pictures of the store, see `multimodal.search.folders`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.boxes import MANIFEST, Manifest, box_file, check_values, fingerprint_bytes, fingerprint_json
from multimodal.errors import InputError

QUERY = "query"
PICTURES = "pictures"
"""In the config of a store that was made of people's own pictures: their folders, and where the export was."""
VIEWS = "views"
"""In the config of a store whose vectors are means over several crops of a picture."""
NEXT_ID = "next_id"
"""In the counts of a store of folders: larger than every id that it has ever had, so that none is given twice."""
SEGMENTS = "segments/"
TOMBSTONES = "tombstones/"
FUSION = "fusion/"
INDEX = "index/"
MAP = "map/"
LEFT_OUT = "left_out/"
PART = re.compile(rf"({SEGMENTS}|{INDEX}|{MAP})[0-9]{{6,18}}|({TOMBSTONES}|{FUSION})[0-9]{{6,18}}\.npy|{LEFT_OUT}[0-9]{{6,18}}\.parquet")
MAX_DIM = 1_000_000
"""No vectors are longer, and memory is taken before the rows of a damaged store are read."""
_FACTS: Mapping[str, Mapping[str, type]] = {
    "segments": {"rows": int, "columns": dict, "fingerprint": str},
    "tombstones": {"ids": int, "fingerprint": str},
    "fusion": {"rows": int, "template": str, "class_path": str, "init_args": dict, "figures": dict, "fingerprint": str},
    "index": {"rows": int, "made_with": int, "segments": dict, "figures": dict, "fingerprint": str},
    "map": {"rows": int, "method": str, "version": str, "fingerprint": str},
    "left_out": {"files": int, "fingerprint": str},
}
"""The facts that a manifest keeps of each part, by the folder that it is in."""


def segment_name(number: int) -> str:
    """Its name in the manifest's parts, and its folder."""
    return f"{SEGMENTS}{number:06d}"


def is_segment(name: str) -> bool:
    """Whether a part of a store's manifest is a segment."""
    return name.startswith(SEGMENTS)


def is_tombstones(name: str) -> bool:
    return name.startswith(TOMBSTONES)


def is_fusion(name: str) -> bool:
    """Whether a part of a store's manifest is its calibration."""
    return name.startswith(FUSION)


def is_index(name: str) -> bool:
    """Whether a part of a store's manifest is the index that its engine keeps."""
    return name.startswith(INDEX)


def is_map(name: str) -> bool:
    """Whether a part of a store's manifest is its map."""
    return name.startswith(MAP)


def is_left_out(name: str) -> bool:
    """Whether a part of a store's manifest is the list of files that are left out."""
    return name.startswith(LEFT_OUT)


def fusion_fingerprint(array: np.ndarray, facts: Mapping[str, Any]) -> str:
    """Of a calibration and of what the manifest says of it: constants, template and figures."""
    said = {name: value for name, value in facts.items() if name != "fingerprint"}
    return fingerprint_bytes(array.tobytes(), fingerprint_json(said).encode())


def check_manifest(path: Path, manifest: Manifest) -> None:
    """InputError, naming the entry, if something that a store reads from its manifest is missing or has another type."""
    check_values(path, "config", manifest.config, {"dim": int, "family": str})
    if not 1 <= manifest.config["dim"] <= MAX_DIM:
        raise InputError(f"{path / MANIFEST}: config.dim is {manifest.config['dim']}; expected 1 to {MAX_DIM:,}. Make the store again")
    check_values(path, "counts", manifest.counts, dict.fromkeys(("rows", "deleted", "generation", "next_segment"), int))
    check_values(path, "made_from", manifest.made_from, {"export": str, QUERY: str})
    if "engine" in manifest.config:
        check_values(path, "config", manifest.config, {"engine": dict})
        check_values(path, "config.engine", manifest.config["engine"], {"class_path": str, "init_args": dict})
    if PICTURES in manifest.config:
        check_values(path, "config", manifest.config, {PICTURES: dict})
        check_values(path, f"config.{PICTURES}", manifest.config[PICTURES], {"folders": list, "export": str})
        if not all(isinstance(folder, str) and Path(folder).is_absolute() for folder in manifest.config[PICTURES]["folders"]):
            raise InputError(f"{path / MANIFEST}: config.{PICTURES}.folders: expected absolute paths of folders. Make the store again")
    for name, facts in manifest.parts.items():
        box_file(path, name, may_link=True)  # whether a link leads out of the box is checked when it is opened
        if not PART.fullmatch(name):
            raise InputError(f"{path / MANIFEST}: lists {name!r}, which is not a part of a store. Make the store again")
        check_values(path, f"parts.{name}", facts, _FACTS[name.partition("/")[0]])
        made_from = facts.get("made_from", {})
        if not isinstance(made_from, dict):
            raise InputError(f"{path / MANIFEST}: parts.{name}.made_from is {made_from!r}; expected a dict. Make the store again")
        check_values(path, f"parts.{name}.made_from", made_from, dict.fromkeys(made_from, str))
        if is_index(name):
            check_values(path, f"parts.{name}.segments", facts["segments"], dict.fromkeys(facts["segments"], str))
        check_values(path, f"parts.{name}.columns", facts.get("columns", {}), dict.fromkeys(facts.get("columns", {}), str))
