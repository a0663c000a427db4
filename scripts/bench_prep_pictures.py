"""Case pictures: resized to 256 pixels on their way into a tar: our code against img2dataset's own resizer and writer, on the same files.

Each system takes JPEGs from memory, resizes the shorter side to 256, encodes a JPEG of quality 95 and writes a tar with picture, text and
JSON (ours also a checksum and an index), on one core. They run in turn, and a row has the median, in pictures per second of one core's
time: other work on the machine does not count. The limit is decoding and encoding alone, by simplejpeg. The quality of the pictures in the
tars is their structural similarity to Pillow's Lanczos filter of the whole decoded picture.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import simplejpeg
import torch
from bench_loader import Case, Files, make_files
from bench_rows import Given, Row, alternate, compare
from PIL import Image
from scipy.ndimage import gaussian_filter

from data_prep.pictures.resize import Resize, target_size
from data_prep.shards.job import make_shards
from data_prep.sources.captions import captions
from multimodal.errors import InputError
from multimodal.pictures.decode import picture
from multimodal.shards import ShardWriter

SHORTEST_PX, QUALITY = 256, 95
CASES = (Case("500x375", 192, (500, 375)), Case("1024x768", 96, (1024, 768)))
NUM_COMPARED = 32
PHOTOGRAPHS, NUM_PHOTOGRAPHS = Path("flickr8k", "captions.tsv"), 1000
OURS, THEIRS, LIMIT = "ours: make-shards --resize 256", "img2dataset's resizer and writer", "decode + encode alone: simplejpeg"

Pass = Callable[[], float]
"""Resizes all pictures once; returns the seconds of one core that it took."""


def rows(given: Given) -> Iterator[Row]:
    torch.set_num_threads(1)
    source = make_shards(captions, {"input": given.data / PHOTOGRAPHS}, given.out / "photographs", max_pairs=NUM_PHOTOGRAPHS)
    for case in CASES:
        files = make_files(source, case, case.num_pictures, given.out)
        yield from _speeds(case, files, given.out, given.runs, given.img2dataset)
        yield from _similarities(case, files, given.out, given.img2dataset)


def _speeds(case: Case, files: Files, out: Path, runs: int, img2dataset: Path | None) -> Iterator[Row]:
    passes: dict[str, Pass] = {OURS: partial(_ours, files, _our_shards(out, case)), LIMIT: _decode_and_encode(files)}
    with ExitStack() as ends:
        if img2dataset is None:
            print(f"{case.name}: {THEIRS} has no row: give --img2dataset, an interpreter that has it", file=sys.stderr)
        else:
            passes[THEIRS] = _theirs(files, _their_tar(out, case), img2dataset, ends)
        speeds = alternate({name: partial(_speed, len(files.shards), one_pass) for name, one_pass in passes.items()}, runs)
    yield from compare(case.name, speeds, "pictures/s", speeds[OURS], speeds[LIMIT])


def _speed(num: int, one_pass: Pass) -> float:
    return num / one_pass()


# The systems ------------------------------------------------------------------------------------------------------------------------------


def _ours(files: Files, path: Path) -> float:
    """Reads into memory first, like the other system; then does what `make-shards --resize` does with each pair of a source."""
    pairs = [files.shards.pair(id) for id in range(len(files.shards))]
    shutil.rmtree(path, ignore_errors=True)
    begun, resize = time.process_time(), Resize(SHORTEST_PX, QUALITY)
    with ShardWriter(path) as writer:
        for pair in pairs:
            writer.write(resize(pair))
    return time.process_time() - begun


def _theirs(files: Files, tar: Path, python: Path, ends: ExitStack) -> Pass:
    """A process of the other environment that makes a pass for each line it gets, and prints how long it took."""
    command = [str(python), str(Path(__file__).with_name("img2dataset_pictures.py")), str(files.folder), str(tar)]
    command += [str(SHORTEST_PX), str(QUALITY)]
    process = ends.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    )
    asks, says = process.stdin, process.stdout
    assert asks is not None and says is not None
    ends.callback(asks.close)

    def one_pass() -> float:
        asks.write("go\n")
        asks.flush()
        answer = says.readline()
        if not answer:
            raise InputError(f"{python}: img2dataset did not run: {(process.communicate()[1].splitlines() or ['?'])[-1]}")
        return float(answer)

    return one_pass


def _decode_and_encode(files: Files) -> Pass:
    encoded = files.encoded()
    made = np.ascontiguousarray(_lanczos(encoded[0]))

    def one_pass() -> float:
        begun = time.process_time()
        for one in encoded:
            simplejpeg.decode_jpeg(one)
            simplejpeg.encode_jpeg(made, QUALITY, "RGB", "420")
        return time.process_time() - begun

    return one_pass


def _our_shards(out: Path, case: Case) -> Path:
    return out / f"{case.name}-ours"


def _their_tar(out: Path, case: Case) -> Path:
    return out / f"{case.name}-img2dataset"


# Quality ----------------------------------------------------------------------------------------------------------------------------------


def _similarities(case: Case, files: Files, out: Path, img2dataset: Path | None) -> Iterator[Row]:
    references = [_lanczos(files.shards.image_bytes(id)) for id in range(min(NUM_COMPARED, len(files.shards)))]
    written = {OURS: _our_shards(out, case)} | ({} if img2dataset is None else {THEIRS: _their_tar(out, case)})
    for name, folder in written.items():
        found = [ssim(np.asarray(picture(one)), wanted) for one, wanted in zip(_in_tar(folder), references, strict=False)]
        if len(found) < len(references):
            raise InputError(f"{folder}: {len(found)} pictures instead of {len(references)}: not the same work")
        yield Row(case.name, f"SSIM to Lanczos, mean: {name}", 1000 * mean(found), "SSIM x1000")
        yield Row(case.name, f"SSIM to Lanczos, worst: {name}", 1000 * min(found), "SSIM x1000")


def _in_tar(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    yield tar.extractfile(member).read()  # type: ignore[union-attr]  # a plain file


def _lanczos(encoded: bytes) -> np.ndarray:
    image = picture(encoded)
    return np.asarray(image.resize(target_size(*image.size, SHORTEST_PX), Image.Resampling.LANCZOS))


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two pictures (h, w, 3) uint8, mean over pixels and colours; 1 if they are equal.

    Wang, Bovik, Sheikh and Simoncelli (2004), eq. 13: (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)) in a Gaussian
    window of 11 x 11 pixels and sigma 1.5, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2.
    """
    if one.shape != other.shape:
        raise InputError(f"a picture of {one.shape} and one of {other.shape}: not the same work")
    x, y = one.astype(float), other.astype(float)
    smooth = partial(gaussian_filter, sigma=(1.5, 1.5, 0), truncate=3.5)
    mx, my = smooth(x), smooth(y)
    sxx, syy, sxy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * mx * my + c1) * (2 * sxy + c2) / ((mx**2 + my**2 + c1) * (sxx + syy + c2))).mean())
