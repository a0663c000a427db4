"""How many pictures a second reach a training step: ours beside its peers, on the same files, the same crops and the same workers.

    python scripts/bench_loader.py --data shards/flickr8k --out /tmp/bench --json loader.json        # about three minutes on two cores
    python scripts/bench_loader.py --data shards/flickr8k --out /tmp/bench --quick

First the work is checked to be equal: our crops against torchvision's of the same rectangles, at least 35 dB. Then every system reads whole
epochs in turn, and its row has the median. All give batches of uint8 (b, 3, 224, 224): a random resized crop (bicubic, antialiased, scale
0.35 to 1), half of them mirrored; bringing them to normalised floats is a row of its own. The limit is decoding the same JPEGs whole, with
simplejpeg, on as many threads as there are workers, and nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from multimodal.boxes import atomic_write
from multimodal.data import Captions, PairLoader, Pixels, random_words
from multimodal.data.decode import crop_box, picture, plain_jpeg_size, random_crop
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter

SIZE, SCALE, RATIO = 224, (0.35, 1.0), (3 / 4, 4 / 3)
MIN_DB = 35.0
NUM_SHARDS = 4
MODULES = {"pillow": "PIL", "open_clip_torch": "open_clip"}  # whose name differs from the package's
OURS, LIMIT, NORMALISE = "ours", "decode alone: simplejpeg", "ours: to normalised float32, main process"


@dataclass(frozen=True, slots=True)
class Case:
    """Pictures of one size, in pixels; None: as they are in the set."""

    name: str
    num_pictures: int
    size: tuple[int, int] | None = None


CASES = (Case("as they are", 1536), Case("500x375", 768, (500, 375)), Case("1024x768", 384, (1024, 768)))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ours_to_it: how many times as fast ours is; share: of the limit."""

    case: str
    system: str
    value: float
    unit: str
    ours_to_it: float | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """The same JPEGs as a shard set and as a folder."""

    shards: ShardSet
    folder: Path

    def encoded(self) -> list[bytes]:
        return [self.shards.image_bytes(id) for id in range(len(self.shards))]

    @property
    def urls(self) -> list[str]:
        return [str(self.shards.path / f"{shard.name}.tar") for shard in self.shards.shards]


def bench(data: Path, out: Path, runs: int, num_workers: int, batch_size: int, share_of_pictures: float) -> Iterator[Row]:
    """Rows, case by case. out: a folder for the pictures that are made; what is there is used again."""
    source = ShardSet(data)
    for case in CASES:
        num = max(2 * num_workers * batch_size, int(case.num_pictures * share_of_pictures))
        files = make_files(source, case, num, out)
        yield from check_equal_work(case, files)
        yield from measure(case, files, runs, num_workers, batch_size)


# The pictures -----------------------------------------------------------------------------------------------------------------------------


def make_files(source: ShardSet, case: Case, num: int, out: Path) -> Files:
    """`num` JPEGs of a case, as shards and as a folder under `out`."""
    path, folder = out / f"{case.name.replace(' ', '-')}-{num}", out / f"{case.name.replace(' ', '-')}-{num}-folder"
    if not (path / "manifest.json").is_file():
        with ShardWriter(path, pairs_per_shard=-(-num // NUM_SHARDS)) as writer:
            for number, image in enumerate(_pictures(source, case, num)):
                writer.write(Pair(name=f"{number}.jpg", image=image, extension="jpg", texts=("a picture",), group=str(number)))
    shards = ShardSet(path)
    folder.mkdir(exist_ok=True)
    for id in range(len(shards)):
        if not (folder / f"{id:06d}.jpg").is_file():
            (folder / f"{id:06d}.jpg").write_bytes(shards.image_bytes(id))
    return Files(shards, folder)


def _pictures(source: ShardSet, case: Case, num: int) -> Iterator[bytes]:
    jpegs = [id for id, extension in enumerate(source.extensions) if extension == "jpg" and plain_jpeg_size(source.image_bytes(id))]
    if not jpegs:
        raise InputError(f"{source.path} has no plain JPEG; the bench needs a set of photographs")
    for number in range(num):
        if case.size is None:
            yield source.image_bytes(jpegs[number % len(jpegs)])
        else:
            yield _mosaic(source, jpegs, number, case.size)


def _mosaic(source: ShardSet, jpegs: Sequence[int], number: int, size: tuple[int, int]) -> bytes:
    """A picture of a size from pictures side by side at their own scale: enlarging one would leave its JPEG little to decode."""
    canvas, left, top, row_height = Image.new("RGB", size), 0, 0, 0
    while top < size[1]:
        tile = picture(source.image_bytes(jpegs[number % len(jpegs)]))
        canvas.paste(tile, (left, top))
        left, row_height, number = left + tile.width, max(row_height, tile.height), number + 1
        if left >= size[0]:
            left, top, row_height = 0, top + row_height, 0
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


# Equal work -------------------------------------------------------------------------------------------------------------------------------


def check_equal_work(case: Case, files: Files, num: int = 64) -> Iterator[Row]:
    """The PSNR of our crops against torchvision's and Pillow's of the same rectangles. InputError below MIN_DB."""
    found = []
    for id, word in enumerate(random_words(0, 0, np.arange(min(num, len(files.shards)))).tolist()):
        encoded = files.shards.image_bytes(id)
        ours = random_crop(encoded, SIZE, word, SCALE, RATIO)
        image = picture(encoded)
        left, top, width, height = crop_box(*image.size, word, SCALE, RATIO)
        theirs = functional.resized_crop(image, top, left, height, width, [SIZE, SIZE], v2.InterpolationMode.BICUBIC)
        error = float(((ours.astype(float) - np.asarray(theirs).transpose(2, 0, 1)) ** 2).mean())
        found.append(10 * math.log10(255**2 / max(error, 1e-9)))
    if min(found) < MIN_DB:
        raise InputError(f"{case.name}: a crop of ours is {min(found):.1f} dB from torchvision's, below {MIN_DB}: not the same work")
    yield Row(case.name, "ours against torchvision's crops, worst", min(found), "dB")
    yield Row(case.name, "ours against torchvision's crops, median", median(found), "dB")


# The systems: each gives a function that reads one epoch as batches of uint8 --------------------------------------------------------------

Epoch = Callable[[], Iterable[torch.Tensor]]


def ours(files: Files, num_workers: int, batch_size: int) -> Epoch:
    pixels = Pixels(SIZE, SCALE, RATIO)
    ids = np.arange(len(files.shards))
    loader = PairLoader(files.shards, ids, pixels, Captions(), batch_size, seed=0, num_workers=num_workers)
    return lambda: (batch.image for batch in loader)


def folder_of_files(files: Files, num_workers: int, batch_size: int) -> Epoch:
    settings: dict[str, Any] = {"shuffle": True, "num_workers": num_workers, "persistent_workers": True}
    loader = DataLoader(_Folder(files.folder), batch_size, **settings)
    return lambda: iter(loader)


def plain_webdataset(files: Files, num_workers: int, batch_size: int) -> Epoch:
    import webdataset as wds

    dataset = wds.WebDataset(files.urls, shardshuffle=NUM_SHARDS).shuffle(1000).decode("pil").to_tuple("jpg").map_tuple(_transform())
    loader = DataLoader(dataset.batched(batch_size), batch_size=None, num_workers=num_workers, persistent_workers=True)
    return lambda: (images for (images,) in loader)


def open_clips(files: Files, num_workers: int, batch_size: int) -> Epoch:
    from open_clip_train.data import get_wds_dataset

    settings = {"train_data_upsampling_factors": None, "seed": 0, "world_size": 1, "workers": num_workers, "batch_size": batch_size}
    arguments = SimpleNamespace(train_data="::".join(files.urls), train_num_samples=len(files.shards), **settings)
    found = get_wds_dataset(arguments, _transform(), is_train=True, tokenizer=_no_tokens)
    return lambda: (images for images, _ in found.dataloader)


def litdatas(files: Files, num_workers: int, batch_size: int) -> Epoch:
    import litdata

    path = files.folder.with_name(files.folder.name + "-litdata")
    if not (path / "index.json").is_file():
        encoded = files.encoded()
        litdata.optimize(partial(_litdata_sample, encoded), list(range(len(encoded))), str(path), chunk_bytes="16MB", num_workers=1)
    dataset = litdata.StreamingDataset(str(path), transform=_litdata_crop, shuffle=True)
    loader = litdata.StreamingDataLoader(dataset, batch_size=batch_size, num_workers=num_workers, persistent_workers=True)
    return lambda: iter(loader)


def decode_alone(files: Files, num_threads: int, batch_size: int) -> Callable[[], int]:
    """Decodes every JPEG, whole, from memory; gives their number."""
    encoded, pool = files.encoded(), ThreadPoolExecutor(num_threads)

    def decode(part: Sequence[bytes]) -> int:
        for one in part:
            simplejpeg.decode_jpeg(one)
        return len(part)

    return lambda: sum(pool.map(decode, [encoded[start :: 4 * num_threads] for start in range(4 * num_threads)]))


SYSTEMS: dict[str, tuple[str, Callable[[Files, int, int], Epoch]]] = {
    OURS: ("multimodal", ours),
    "open_clip's get_wds_dataset": ("open_clip_train", open_clips),
    "webdataset and Pillow": ("webdataset", plain_webdataset),
    "torch DataLoader on a folder": ("torch", folder_of_files),
    "litdata": ("litdata", litdatas),
}
"""Name -> the module that it needs, and how it is opened."""


class _Folder(Dataset):
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.transform = _transform()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def _transform() -> v2.Compose:
    """torchvision's, on Pillow pictures: what open_clip's own preprocessing for training is, but for the normalisation."""
    crop = v2.RandomResizedCrop(SIZE, SCALE, RATIO, v2.InterpolationMode.BICUBIC)
    return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])


def _no_tokens(text: str) -> torch.Tensor:
    return torch.zeros(1, 1)


def _litdata_sample(encoded: Sequence[bytes], index: int) -> dict[str, bytes]:
    return {"jpg": encoded[index]}


def _litdata_crop(sample: dict[str, bytes]) -> torch.Tensor:
    return _transform()(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))


# The measurement --------------------------------------------------------------------------------------------------------------------------


def measure(case: Case, files: Files, runs: int, num_workers: int, batch_size: int) -> Iterator[Row]:
    """Whole epochs in turn, after one each to warm up; a row for each system and for the limit, in pictures a second."""
    present = {name: open_it for name, (module, open_it) in SYSTEMS.items() if importlib.util.find_spec(module)}
    readers: dict[str, Callable[[], int]] = {
        name: partial(_read, open_it(files, num_workers, batch_size)) for name, open_it in present.items()
    }
    readers[LIMIT] = decode_alone(files, num_workers, batch_size)
    speeds: dict[str, list[float]] = {name: [] for name in readers}
    for run in range(runs + 1):
        for name, read in readers.items():
            begun = time.perf_counter()
            num = read()
            if run:
                speeds[name].append(num / (time.perf_counter() - begun))
    medians = {name: median(values) for name, values in speeds.items()}
    for name, value in medians.items():
        yield Row(case.name, name, value, "pictures/s", medians[OURS] / value, value / medians[LIMIT])
    for name in SYSTEMS.keys() - present.keys():
        print(f"{case.name}: {name} is not installed, and has no row", file=sys.stderr)
    yield from _parts(case, files, runs, num_workers, batch_size)


def _read(epoch: Epoch) -> int:
    num = 0
    for images in epoch():
        if images.dtype != torch.uint8 or images.shape[1:] != (3, SIZE, SIZE):
            raise InputError(f"a batch is {tuple(images.shape)} {images.dtype}, not (b, 3, {SIZE}, {SIZE}) uint8: not the same work")
        num += len(images)
    return num


def _parts(case: Case, files: Files, runs: int, num_workers: int, batch_size: int) -> Iterator[Row]:
    """Where one picture's time goes in ours, in one process, in microseconds; and the normalisation, which no system has done so far."""
    encoded = files.encoded()[:128]
    words = random_words(0, 0, np.arange(len(encoded))).tolist()
    parts = {
        "read": lambda: [files.shards.image_bytes(id) for id in range(len(encoded))],
        "decode, resize": lambda: [random_crop(one, SIZE, word, SCALE, RATIO) for one, word in zip(encoded, words, strict=True)],
        "decode whole": lambda: [simplejpeg.decode_jpeg(one) for one in encoded],
        "batch without workers": lambda: _read(ours(files, 0, batch_size)),
    }
    for name, work in parts.items():
        num = len(files.shards) if name.startswith("batch") else len(encoded)
        yield Row(case.name, f"ours: {name}", 1e6 * _seconds(work, runs) / num, "us/picture")
    batch = next(iter(ours(files, 0, batch_size)()))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    yield Row(case.name, NORMALISE, 1e6 * _seconds(lambda: (batch.float() / 255 - mean) / std, runs) / len(batch), "us/picture")


def _seconds(work: Callable[[], Any], runs: int) -> float:
    work()
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return median(taken)


# The table --------------------------------------------------------------------------------------------------------------------------------


def line(row: Row) -> str:
    ratio = "" if row.ours_to_it is None else f"{row.ours_to_it:.2f}"
    share = "" if row.share is None else f"{row.share:.0%}"
    return f"{row.case:12}  {row.system:44}  {row.value:9,.1f}  {row.unit:10}  {ratio:>9}  {share:>8}"


def setup(num_workers: int, batch_size: int) -> dict[str, Any]:
    """What the figures hold for."""
    packages = ("torch", "torchvision", "pillow", "simplejpeg", "webdataset", "open_clip_torch", "litdata")
    versions = {name: version(name) for name in packages if importlib.util.find_spec(MODULES.get(name, name))}
    return {"workers": num_workers, "batch_size": batch_size, "cores": len(os.sched_getaffinity(0)), "versions": versions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a shard set with JPEGs")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the pictures that are made; used again by the next call")
    parser.add_argument("--json", type=Path, help="the rows go there too")
    parser.add_argument("--quick", action="store_true", help="an eighth of the pictures and one run: does it work, not how fast is it")
    parser.add_argument("--runs", type=int, default=3, help="epochs of each system, of which the median counts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print(f"{'case':12}  {'system':44}  {'value':>9}  {'unit':10}  {'ours/it':>9}  {'of limit':>8}")
    try:
        runs, share = (1, 1 / 8) if given.quick else (given.runs, 1.0)
        for row in bench(given.data, given.out, runs, given.workers, given.batch_size, share):
            print(line(row), flush=True)
            rows.append(row)
    except InputError as error:
        sys.exit(f"error: {error}")
    if given.json:
        told = {**setup(given.workers, given.batch_size), "rows": [asdict(row) for row in rows]}
        with atomic_write(given.json) as file:
            file.write(json.dumps(told, indent=1).encode())
