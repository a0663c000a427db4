"""The program that `bench_prep_pictures.py` runs in img2dataset's own environment; it imports none of our code.

    <its python> img2dataset_pictures.py FOLDER_OF_JPEGS FOLDER_FOR_THE_TAR SHORTEST_PX QUALITY

For each line on stdin, all pictures are resized and written as one tar, by img2dataset's classes as its downloader calls them; the seconds
of one core that this took are printed.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pyarrow as pa
from img2dataset.resizer import Resizer
from img2dataset.writer import WebDatasetSampleWriter

SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "caption")] + [(name, pa.int32()) for name in ("width", "height")])


def one_pass(files: list[bytes], output: Path, resizer: Resizer) -> float:
    for path in output.iterdir():
        path.unlink()
    begun = time.process_time()
    writer = WebDatasetSampleWriter(0, str(output), True, 5, SCHEMA, "jpg")
    for number, file in enumerate(files):
        made, width, height, _, _, error = resizer(io.BytesIO(file))
        if error is not None:
            raise ValueError(error)
        key = f"{number:09d}"
        writer.write(made, key, "a picture", {"key": key, "caption": "a picture", "width": width, "height": height})
    writer.close()
    return time.process_time() - begun


if __name__ == "__main__":
    folder, output, shortest_px, quality = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    output.mkdir(parents=True, exist_ok=True)
    jpegs = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    resizer = Resizer(shortest_px, "keep_ratio", True, encode_quality=quality)
    for _ in sys.stdin:
        print(one_pass(jpegs, output, resizer), flush=True)
