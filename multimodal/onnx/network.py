"""A network as ONNX: a small box of its own in the folder `onnx` of the box that it belongs to, an export or a text space.

    network = network_in(Path("exports/photos"), {"export": fingerprint}, dim)   # None: it has none, or onnxruntime is not installed
    network.run(image=pixels)                                                   # (b, d) float32

    exports/photos/onnx/manifest.json       kind "onnx"; made_from says what it was made from, config how pictures or texts go in
    exports/photos/onnx/image.onnx          uint8 pictures (b, 3, s, s) -> vectors
    exports/photos/query/onnx/text.onnx     tokens -> vectors, with tokenizer.json beside it

The fingerprint of the box around it does not change: it is the same network, so one can be added to exports and stores that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.boxes import Manifest, box_file, check_part_files, check_values, is_whole, read_manifest, reading
from multimodal.errors import InputError, missing_extra
from multimodal.machine.cores import usable_cores
from multimodal.onnx.safety import check_graph

FOLDER = "onnx"
KIND = "onnx"
INT8 = "int8"
_TYPES = {"graph": str, "precision": str, "dim": int, "difference": float}
_AGAIN = "make it again: multimodal export --output EXPORT --onnx"


class OnnxNetwork:
    """A network that onnxruntime runs on the CPU. InputError if its box is damaged, or was made from something else.

    path: its box. made_from: what it must have been made from, such as {"export": fingerprint}.
    """

    def __init__(self, path: Path, made_from: Mapping[str, str]) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path, KIND)
        check_values(self.path, "config", self.manifest.config, _TYPES)
        for name, wanted in made_from.items():
            if (found := str(self.manifest.made_from.get(name))) != wanted:
                raise InputError(
                    f"{self.path}: was made from the {name} {found[:12]}, and this one is {wanted[:12]}. Delete this folder, or {_AGAIN}"
                )
        self.graph = box_file(self.path, self.manifest.config["graph"])
        if self.manifest.config["graph"] not in self.manifest.parts:
            raise InputError(f"{self.path}: its manifest lists no {self.manifest.config['graph']}. Delete this folder, or {_AGAIN}")
        check_part_files(self.path, self.manifest.parts, _AGAIN, "this network")

    @property
    def config(self) -> Mapping[str, Any]:
        """How pictures or texts go in, and how well it agrees with torch."""
        return self.manifest.config

    @property
    def dim(self) -> int:
        return int(self.config["dim"])

    @property
    def rows_at_once(self) -> int | None:
        """How many rows may share a call: one in int8, whose activations have one scale a call; None for any number."""
        return 1 if self.config["precision"] == INT8 else None

    def run(self, **inputs: np.ndarray) -> np.ndarray:
        """(b, d) float32. inputs: by name, with the shapes that the network was made for."""
        try:
            [rows] = self._session.run(None, inputs)
        except _errors() as error:
            raise InputError(f"{self.graph}: onnxruntime cannot run it: {_line(error)}. Delete {self.path}, or {_AGAIN}") from None
        b = len(next(iter(inputs.values())))
        if not isinstance(rows, np.ndarray) or rows.dtype != np.float32 or rows.shape != (b, self.dim):
            raise InputError(f"{self.graph}: gives {getattr(rows, 'shape', 'no array')}; expected ({b}, {self.dim}) float32. {_AGAIN}")
        return rows

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        check_graph(self.graph)
        onnxruntime.disable_telemetry_events()  # its builds for Windows have some
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.intra_op_num_threads = len(usable_cores())
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # between queries, a server leaves the cores to others
        with reading(self.graph, *_errors()):
            # named: onnxruntime's own list also has one that asks a service on the network
            session = onnxruntime.InferenceSession(str(self.graph), options, providers=["CPUExecutionProvider"])
            if len(session.get_outputs()) != 1:
                raise ValueError(f"it has {len(session.get_outputs())} outputs, and a network has one")
        return session

    def __repr__(self) -> str:
        return f"OnnxNetwork({str(self.path)!r}: {self.config['graph']}, {self.config['precision']}, {self.dim} dimensions)"


def network_in(box: Path, made_from: Mapping[str, str], dim: int) -> OnnxNetwork | None:
    """The network in a box's folder `onnx`; None if it has none, or only torch is installed, which then runs the box's own weights.

    dim: the length of the vectors that it must give.
    InputError if neither is installed, or the network is damaged or of another box: what is there is used, and nothing else is tried if it
    fails.
    """
    folder = box_file(box, FOLDER)
    if not is_whole(folder):
        return None
    if find_spec("onnxruntime") is None:
        if find_spec("torch") is None:
            raise missing_extra("search", f"{folder}: running this network needs onnxruntime")
        return None
    network = OnnxNetwork(folder, made_from)
    if network.dim != dim:
        raise InputError(f"{folder}: gives vectors of {network.dim} dimensions, and {dim} are needed. Delete this folder, or {_AGAIN}")
    return network


def network_boxes(box: Path) -> list[Path]:
    """The folders of networks in a box and in the text spaces inside it."""
    return sorted(folder for folder in Path(box).rglob(FOLDER) if is_whole(folder))


def describe_networks(box: Path) -> list[str]:
    """A line for each network in a box: what it is, and how it differs from torch's."""
    lines = []
    for folder in network_boxes(box):
        config = read_manifest(folder, KIND).config
        check_values(folder, "config", config, _TYPES)
        lines.append(
            f"{folder.relative_to(box).as_posix()}/{config['graph']}: {config['precision']}, for onnxruntime; at most "
            f"{config['difference']:.1e} from torch in a coordinate"
        )
    return lines


def _errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: classes of its own, without a base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    every = (getattr(state, name) for name in dir(state))
    return (ValueError, RuntimeError, *(one for one in every if isinstance(one, type) and issubclass(one, Exception)))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
