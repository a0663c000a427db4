"""Make the golden store beside this file; run it only when the format changes on purpose.

python tests/data/store/make_golden.py tests/data/store/golden
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from multimodal.search.segments import Segment
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.words import WordSpace


def make(path: Path) -> None:
    """Two segments over a space of three words, one with a thumbnail; id 7 deleted."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Vocabulary(["beach", "snow", "dog"], np.array([3, 2, 1]), 4)
        WordSpace(Normaliser(), vocabulary, np.eye(3, 4, dtype=np.float32)).save(Path(folder))
        create_store(path, Path(folder), family="wordvec", export="0123456789abcdef" * 4)
    with StoreWriter(path) as writer:
        first = {"name": ["beach.png", "snow.png"], "text": ["a beach", "snow"], "set": ["tiny", "tiny"], "year": [1999, None]}
        writer.append(Segment(np.array([5, 7]), np.array([[2.0, 0, 0, 0], [0, 1, 1, 0]]), first), made_from={"tiny/000000": "a" * 64})
        second = {"name": ["dog.jpg", "both.jpg"], "text": ["a dog", "a dog on a beach"], "set": ["tiny", "tiny"]}
        rows = np.array([[0, 0, 1, 0], [1, 0, 1, 0.5]])
        writer.append(Segment(np.array([2, 9]), rows, second, [b"\xff\xd8\xffdog", None]), made_from={"tiny/000001": "b" * 64})
        writer.delete([7])
    (path / ".lock").unlink()


if __name__ == "__main__":
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    make(Path(sys.argv[1]))
