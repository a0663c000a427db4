"""Pictures that visitors give: decoded and embedded once, and then known by a name that a query can use.

    uploads = Uploads(folder, secret)
    content = uploads.add(encoded, encoder, family_of_rows)      # "up-3f9c...": image:up-3f9c... + snow

Only vectors and thumbnails are kept, in a folder that all workers share and that is gone when the server ends; at most MAX_KEPT vectors,
of which the least recently used goes first. A name is a keyed hash of the file, so that nobody can tell from a name, or by guessing one,
which pictures others have given.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multimodal.boxes import atomic_write
from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.machine.portable import lock_file
from multimodal.pictures.decode import BadPicture, header, picture
from multimodal.pictures.thumbnails import thumbnail_jpeg
from multimodal.search.asking import PictureEncoder
from multimodal.serve.limits import Refused

MAX_BYTES = 32 << 20
MAX_PIXELS = 50_000_000
"""What phones take. A decoded picture has three bytes a pixel, and one is decoded at a time."""
MAX_KEPT = 1000
THUMBNAIL_PX = 256
CONTENT = re.compile(r"up-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Upload:
    """content: its name in a query, after `image:`. width, height: in pixels, upright."""

    content: str
    width: int
    height: int


class Uploads:
    """The pictures that were given to a server."""

    def __init__(self, folder: Path, secret: bytes, max_kept: int = MAX_KEPT) -> None:
        """folder: shared by its workers, as is the secret, of up to 64 bytes."""
        self.folder, self._secret, self._max_kept = folder, secret, max_kept

    def add(self, encoded: bytes, encoder: PictureEncoder) -> Upload:
        """Embed a picture. Refused: 413 for too many bytes or pixels, 415 for no picture. InputError: the tower cannot be loaded."""
        if len(encoded) > MAX_BYTES:
            raise too_large(len(encoded))
        content = "up-" + hashlib.blake2b(encoded, digest_size=8, key=self._secret).hexdigest()
        try:
            facts = header(encoded)
            if facts.width * facts.height > MAX_PIXELS:
                raise Refused(413, f"{facts.width} x {facts.height} is more than {MAX_PIXELS:,} pixels. Give it in a smaller size")
            if self.vector(content, encoder.fingerprint) is None:
                image = picture(encoded)
                vector = np.asarray(encoder.picture(image), dtype=np.float32)
                if not (np.isfinite(vector).all() and vector.any()):
                    raise InputError("the image tower's vector of this picture is zero or not finite")
                self._keep(content, encoder.fingerprint, vector, thumbnail_jpeg(image, THUMBNAIL_PX))
        except BadPicture as reason:
            raise Refused(415, f"the body is no picture that can be read: {reason}") from None
        return Upload(content, facts.width, facts.height)

    def vector(self, content: str, export: str) -> np.ndarray | None:
        """(d,) float32, as the image tower of an export sees it, by the export's fingerprint; None if it is not known, or not any more."""
        path = self._vector_file(content, export)
        try:
            vector = read_array(path)
            os.utime(path)  # used now
        except FileNotFoundError:
            return None
        return vector

    def thumbnail(self, content: str) -> bytes | None:
        """A JPEG."""
        with suppress(FileNotFoundError):
            return self._file(content, "jpg").read_bytes()
        return None

    def _keep(self, content: str, export: str, vector: np.ndarray, thumbnail: bytes) -> None:
        with lock_file(self.folder / ".lock"):
            with atomic_write(self._file(content, "jpg")) as file:
                file.write(thumbnail)
            write_array(self._vector_file(content, export), vector)
            vectors = sorted(self.folder.glob("up-*.npy"), key=lambda path: path.stat().st_mtime_ns)
            for path in vectors[: max(len(vectors) - self._max_kept, 0)]:
                path.unlink()
                name = path.name.partition(".")[0]
                if not any(self.folder.glob(f"{name}.*.npy")):
                    self._file(name, "jpg").unlink(missing_ok=True)

    def _vector_file(self, content: str, export: str) -> Path:
        return self._file(content, f"{export[:16]}.npy")

    def _file(self, content: str, suffix: str) -> Path:
        if not CONTENT.fullmatch(content):
            raise ValueError(content)
        return self.folder / f"{content}.{suffix}"


def too_large(size_bytes: int) -> Refused:
    return Refused(413, f"a picture has at most {MAX_BYTES:,} bytes here, and this one has {size_bytes:,} or more")
