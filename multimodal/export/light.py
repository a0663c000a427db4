"""An export's network of pictures without torch: by its ONNX (`multimodal export --onnx`), if it has one and onnxruntime is installed.

tower = light_tower(Path("exports/photos"))
tower.embed_image_files(["me.jpg"])           # (1, d) float32, as `Export.embed_image_files`, from the same pixels
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from multimodal.boxes import MANIFEST, read_manifest, reading
from multimodal.export.card import read_card
from multimodal.export.intake import PictureLike, decoded_pictures
from multimodal.onnx import OnnxNetwork, network_in
from multimodal.pictures.preprocessing import Preprocessing


class LightTower:
    """The image tower of an export, by onnxruntime. path: the export."""

    def __init__(self, path: Path, network: OnnxNetwork) -> None:
        self.path, self.network = Path(path), network
        with reading(self.path / MANIFEST):
            self.preprocessing = Preprocessing.from_json(read_card(self.path).preprocessing)

    def embed_image_files(self, paths: Sequence[str | Path]) -> np.ndarray:
        """b picture files. Returns (b, d) float32. InputError that names a file that cannot be read."""
        return self.encode_image(list(paths))

    def encode_image(self, pictures: PictureLike | Iterable[PictureLike]) -> np.ndarray:
        """One picture or n, as `Export.encode_image` takes them. Returns (n, d) float32; each row depends on its picture alone."""
        rows = [self.network.run(image=self.preprocessing.pixels(image)[None]) for image in decoded_pictures(pictures)]
        return np.concatenate(rows) if rows else np.empty((0, self.network.dim), np.float32)


def light_tower(path: Path) -> LightTower | None:
    """The image tower of an export by ONNX; None if it has none, or only torch is installed. InputError if it is damaged."""
    network = network_in(path, {"export": read_manifest(path, kind="export").fingerprint}, read_card(path).dim)
    return None if network is None else LightTower(path, network)
