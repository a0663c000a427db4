"""How many pictures per second reach a training step, and other costs of a loader: ours against its peers, in one run.

    python scripts/bench_loader.py --data shards/flickr8k --out /tmp/bench --json loader.json        # about ten minutes on two idle cores
    python scripts/bench_loader.py --data shards/flickr8k --out /tmp/bench --quick

- Speed. It first checks that all systems do the same work: our crops against torchvision's of the same rectangles, at least 35 dB. Then the
  systems read whole epochs in turn, and a row has the median. All return batches of uint8 (b, 3, 224, 224): a random resized crop (bicubic,
  antialiased, scale 0.35 to 1), half of them mirrored; the conversion to normalised floats has its own row. The limit is decoding the same
  JPEGs whole, with simplejpeg, on as many threads as there are workers, and nothing else.
- Speed to normalised float32, in turn with those: open_clip's loader with its own preprocessing for training, of the same crops (without
  mirroring), done by its workers; and ours, whose batches are normalised by the training loop. Ratios compare these two.
- Where our loader spends its time: microseconds of all cores per picture, and their shares.
- The first batch, in fresh processes: from the start of the process, and after the imports. open_clip's loader with the imports of its
  own trainer, and with those of its data module alone.
- 10,000 shards of ten pairs: the first batch, including opening and splitting the set. webdataset shuffles the names of the same tars and
  opens the first.
- Memory of a worker, and the time to find a picture (order, shard, place in it; without reading it), for up to ten million pairs: with a
  generated index over links to one tar. Its mapped pages are in the page cache.

The last table compares the figures with their targets.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import io
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from bench_rows import Row, alternate, compare, report, seconds, timed
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from multimodal.boxes import Manifest, write_manifest
from multimodal.data import Captions, FullShuffle, PairLoader, Pixels, Stream, StreamLoader, random_words
from multimodal.data.decode import crop_box, picture, plain_jpeg_size, random_crop
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter
from multimodal.shards.table import INDEX, INDEX_SCHEMA, IndexTable, open_table, write_table

SIZE, SCALE, RATIO = 224, (0.35, 1.0), (3 / 4, 4 / 3)
MIN_DB = 35.0
NUM_SHARDS = 4
MODULES = {"pillow": "PIL", "open_clip_torch": "open_clip"}  # whose name differs from the package's
OURS, LIMIT, NORMALISE = "ours", "decode alone: simplejpeg", "ours: to normalised float32, main process"
OPEN_CLIP, WEBDATASET = "open_clip's get_wds_dataset", "webdataset and Pillow"
NORMALISED = "normalised float32"
OURS_IN_THE_LOOP, OPEN_CLIP_ITS_OWN = "ours, normalised in the loop", f"{OPEN_CLIP}, its own preprocessing"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # open_clip's OPENAI_DATASET_MEAN and _STD
FIRST, AFTER = "first batch, from process start", "first batch, after imports"
MANY_SHARDS = 10_000
NUM_PAIRS = (10**4, 10**5, 10**6, 10**7)


@dataclass(frozen=True, slots=True)
class Case:
    """Pictures of one size, in pixels; None: the size in the set."""

    name: str
    num_pictures: int
    size: tuple[int, int] | None = None


CASES = (Case("as they are", 1536), Case("500x375", 768, (500, 375)), Case("1024x768", 384, (1024, 768)))


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
    """Rows, case by case. out: a folder for generated pictures, which are reused."""
    source = ShardSet(data)
    for case in CASES:
        num = max(2 * num_workers * batch_size, int(case.num_pictures * share_of_pictures))
        files = make_files(source, case, num, out)
        yield from check_equal_work(case, files)
        yield from measure(case, files, runs, num_workers, batch_size)
        if case is CASES[0]:
            yield from first_batches(files, runs, num_workers, batch_size)
            num_pairs = [num for num in NUM_PAIRS if share_of_pictures == 1 or num <= 10**5]
            yield from scale(files.shards, out, num_pairs, runs, num_workers, batch_size)


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
    """A picture of that size, made of pictures side by side at their own scale: an enlarged picture would be too easy to decode."""
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


# The systems: each gives a function that reads one epoch as batches ----------------------------------------------------------------------

Epoch = Callable[[], Iterable[torch.Tensor]]


def ours(files: Files, num_workers: int, batch_size: int) -> Epoch:
    pixels = Pixels(SIZE, SCALE, RATIO)
    ids = np.arange(len(files.shards))
    loader = PairLoader(files.shards, ids, pixels, Captions(), batch_size, seed=0, num_workers=num_workers)
    return lambda: (batch.image for batch in loader)


def ours_streamed(files: Files, num_workers: int, batch_size: int) -> Epoch:
    stream, pixels = Stream(len(files.shards), resample=False, buffer=1000), Pixels(SIZE, SCALE, RATIO)
    loader = StreamLoader(files.urls, stream, pixels, Captions(), batch_size, seed=0, num_workers=num_workers)
    return lambda: (batch.image for batch in loader)


def ours_in_the_loop(files: Files, num_workers: int, batch_size: int) -> Epoch:
    epoch = ours(files, num_workers, batch_size)
    return lambda: map(normalised, epoch())


def normalised(images: torch.Tensor) -> torch.Tensor:
    """(b, 3, h, w) uint8 to float32, in place after the conversion as `multimodal.towers.Trunk` does it."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return images.float().div_(255).sub_(mean).div_(std)


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
    return _open_clips(files, num_workers, batch_size, _transform())


def open_clips_its_own(files: Files, num_workers: int, batch_size: int) -> Epoch:
    from open_clip.transform import AugmentationCfg, PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(SIZE, mean=MEAN, std=STD), is_train=True, aug_cfg=AugmentationCfg(scale=SCALE))
    crop, same = transform.transforms[0], _transform().transforms[0]
    for setting in ("size", "scale", "ratio", "interpolation", "antialias"):
        if tuple(np.atleast_1d(getattr(crop, setting))) != tuple(np.atleast_1d(getattr(same, setting))):
            raise InputError(f"open_clip's crop has the {setting} {getattr(crop, setting)}: not the same work")
    return _open_clips(files, num_workers, batch_size, transform)


def _open_clips(files: Files, num_workers: int, batch_size: int, transform: Callable[[Image.Image], torch.Tensor]) -> Epoch:
    from open_clip_train.data import get_wds_dataset

    settings = {"train_data_upsampling_factors": None, "seed": 0, "world_size": 1, "workers": num_workers, "batch_size": batch_size}
    arguments = SimpleNamespace(train_data="::".join(files.urls), train_num_samples=len(files.shards), **settings)
    found = get_wds_dataset(arguments, transform, is_train=True, tokenizer=_no_tokens)
    return lambda: (images for images, _ in found.dataloader)


def litdatas(files: Files, num_workers: int, batch_size: int) -> Epoch:
    import litdata

    path = files.folder.with_name(files.folder.name + "-litdata")
    if not (path / "index.json").is_file():
        encoded = files.encoded()
        settings: dict[str, Any] = {
            "chunk_bytes": "16MB",
            "num_workers": 1,
            "start_method": "fork",
        }  # spawn would stay, for all loaders here
        with contextlib.redirect_stdout(sys.stderr):  # it prints progress, which must not mix with the rows
            litdata.optimize(partial(_litdata_sample, encoded), list(range(len(encoded))), str(path), **settings)
    dataset = litdata.StreamingDataset(str(path), transform=_litdata_crop, shuffle=True)
    loader = litdata.StreamingDataLoader(dataset, batch_size=batch_size, num_workers=num_workers, persistent_workers=True)
    return lambda: iter(loader)


def decode_alone(files: Files, num_threads: int, batch_size: int) -> Callable[[], int]:
    """A function that decodes every JPEG, whole, from memory, and returns their number."""
    encoded, pool = files.encoded(), ThreadPoolExecutor(num_threads)

    def decode(part: Sequence[bytes]) -> int:
        for one in part:
            simplejpeg.decode_jpeg(one)
        return len(part)

    return lambda: sum(pool.map(decode, [encoded[start :: 4 * num_threads] for start in range(4 * num_threads)]))


Systems = dict[str, tuple[str, Callable[[Files, int, int], Epoch]]]
"""Name -> the module that it needs, and the function that opens it."""

SYSTEMS: Systems = {
    OURS: ("multimodal", ours),
    OPEN_CLIP: ("open_clip_train", open_clips),
    WEBDATASET: ("webdataset", plain_webdataset),
    "ours, streamed": ("webdataset", ours_streamed),
    "torch DataLoader on a folder": ("torch", folder_of_files),
    "litdata": ("litdata", litdatas),
}
"""Those that return uint8."""
FLOATS: Systems = {OURS_IN_THE_LOOP: ("multimodal", ours_in_the_loop), OPEN_CLIP_ITS_OWN: ("open_clip_train", open_clips_its_own)}
"""Those that return normalised float32."""


class _Folder(Dataset):
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.transform = _transform()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def _transform() -> v2.Compose:
    """torchvision's, on Pillow pictures: the crops of open_clip's own preprocessing for training, which mirrors none and normalises."""
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
    """Whole epochs in turn, after one each to warm up; a row for each system and for the limit, in pictures per second."""
    readers = _readers(files, num_workers, batch_size)
    speeds = alternate({name: timed(read) for name, read in readers.items()}, runs)
    del readers
    # litdata's loader and its iterator refer to each other. Without this, its workers would live until some later collection, perhaps in a
    # forked process, whose children they are not. They take ten seconds to end.
    gc.collect()
    floats = {name: speeds.pop(name) for name in FLOATS if name in speeds}
    yield from compare(case.name, speeds, "pictures/s", speeds[OURS], speeds[LIMIT])
    yield from compare(f"{case.name}, {NORMALISED}", floats, "pictures/s", floats[OURS_IN_THE_LOOP], speeds[LIMIT])
    for name in (SYSTEMS | FLOATS).keys() - speeds.keys() - floats.keys():
        print(f"{case.name}: {name} is not installed, so it has no row", file=sys.stderr)
    yield from _parts(case, files, runs, num_workers, batch_size, 1e6 * num_workers / speeds[OURS])


def _readers(files: Files, num_workers: int, batch_size: int) -> dict[str, Callable[[], int]]:
    """Name -> a function that reads one epoch and returns its number of pictures, for the installed systems and the limit."""
    readers: dict[str, Callable[[], int]] = {}
    for systems, dtype in ((SYSTEMS, torch.uint8), (FLOATS, torch.float32)):
        for name, (module, open_it) in systems.items():
            if importlib.util.find_spec(module):
                readers[name] = partial(_read, open_it(files, num_workers, batch_size), dtype)
    return {**readers, LIMIT: decode_alone(files, num_workers, batch_size)}


def _read(epoch: Epoch, dtype: torch.dtype) -> int:
    num = 0
    for images in epoch():
        if images.dtype != dtype or images.shape[1:] != (3, SIZE, SIZE):
            raise InputError(f"a batch is {tuple(images.shape)} {images.dtype}, not (b, 3, {SIZE}, {SIZE}) {dtype}: not the same work")
        num += len(images)
    return num


def _parts(case: Case, files: Files, runs: int, num_workers: int, batch_size: int, whole_us: float) -> Iterator[Row]:
    """The parts of our loader's time per picture: CPU time in one process, and the rest of whole_us, the microseconds of all workers; and
    the normalisation, which is separate.
    """
    encoded = files.encoded()[:128]
    words = random_words(0, 0, np.arange(len(encoded))).tolist()
    pixels, out = Pixels(SIZE, SCALE, RATIO), np.empty((len(encoded), SIZE, SIZE, 3), np.uint8).transpose(0, 3, 1, 2)

    def crop() -> None:
        for one, word, row in zip(encoded, words, out, strict=True):
            pixels.of(one, word, row)

    def decode() -> None:
        for one in encoded:
            simplejpeg.decode_jpeg(one)

    def read() -> None:
        for id in range(len(encoded)):
            files.shards.image_bytes(id)

    def read_texts() -> None:
        for id in range(len(encoded)):
            files.shards.texts(id)

    read_us, text_us, decode_us, crop_us = (
        1e6 * seconds(work, runs, time.process_time) / len(encoded) for work in (read, read_texts, decode, crop)
    )
    batch_us = 1e6 * seconds(lambda: _read(ours(files, 0, batch_size), torch.uint8), runs, time.process_time) / len(files.shards)
    parts = {
        "read the file": read_us,
        "read its texts": text_us,
        "decode it whole": decode_us,
        "resize and mirror, less what is decoded smaller": crop_us - decode_us,
        "order, chance, the batch": batch_us - read_us - text_us - crop_us,
        "pipes, waiting, the main process": whole_us - batch_us,
    }
    for name, value in parts.items():
        yield Row(case.name, f"ours: {name}", value, "us/picture", share=value / whole_us)
    batch = next(iter(ours(files, 0, batch_size)()))
    normalise_us = 1e6 * seconds(lambda: normalised(batch), runs, time.process_time) / len(batch)
    yield Row(case.name, NORMALISE, normalise_us, "us/picture")


# The first batch --------------------------------------------------------------------------------------------------------------------------

OURS_FIRST = """
import sys, time
from multimodal.data import Captions, PairLoader, Pixels
from multimodal.shards import ShardSet, Split
imported = time.time()
folder, size, num_workers, batch_size = sys.argv[1], *map(int, sys.argv[2:])
shards = ShardSet(folder)
loader = PairLoader(shards, Split().ids(shards, "train"), Pixels(size), Captions(), batch_size, seed=0, num_workers=num_workers)
batch = next(iter(loader))
print(imported, time.time(), tuple(batch.image.shape))
"""
PEERS_FIRST = """
import sys, time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
import torch
from torchvision.transforms import v2
folder, size, num_workers, batch_size = sys.argv[1], *map(int, sys.argv[2:])
urls = [str(path) for path in sorted(Path(folder).glob("*.tar"))]
crop = v2.RandomResizedCrop(size, (0.35, 1), interpolation=v2.InterpolationMode.BICUBIC)
transform = v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])
"""
OPEN_CLIP_FIRST = (
    PEERS_FIRST
    + """
from open_clip_train.data import get_wds_dataset
imported = time.time()
settings = SimpleNamespace(train_data="::".join(urls), train_num_samples=1000, train_data_upsampling_factors=None, seed=0, world_size=1)
settings.workers, settings.batch_size = num_workers, batch_size
loader = get_wds_dataset(settings, transform, is_train=True, tokenizer=lambda text: torch.zeros(1, 1)).dataloader
images = next(iter(loader))[0]
print(imported, time.time(), tuple(images.shape))
"""
)
WEBDATASET_FIRST = (
    PEERS_FIRST
    + """
import webdataset as wds
from torch.utils.data import DataLoader
imported = time.time()
dataset = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).decode("pil").to_tuple("jpg").map_tuple(transform)
(images,) = next(iter(DataLoader(dataset.batched(batch_size), batch_size=None, num_workers=num_workers)))
print(imported, time.time(), tuple(images.shape))
"""
)
PROGRAMS = {
    OURS: ("multimodal", OURS_FIRST),
    "open_clip's, with its trainer's imports": ("open_clip_train", "import open_clip\n" + OPEN_CLIP_FIRST),
    "open_clip's, with its data module's imports": ("open_clip_train", OPEN_CLIP_FIRST),
    WEBDATASET: ("webdataset", WEBDATASET_FIRST),
}
"""Name -> the module that it needs, and a program that prints when its imports were done and when its first batch was there."""


def first_batches(files: Files, runs: int, num_workers: int, batch_size: int) -> Iterator[Row]:
    """Seconds to the first batch, the median of processes started in turn; ours_to_it: how many times as long theirs takes."""
    arguments = [str(number) for number in (SIZE, num_workers, batch_size)]
    yield from _first_batches(FIRST, AFTER, PROGRAMS, [str(files.shards.path), *arguments], runs)


def _first_batches(
    from_start: str, after_imports: str, programs: dict[str, tuple[str, str]], arguments: Sequence[str], runs: int
) -> Iterator[Row]:
    present = {name: program for name, (module, program) in programs.items() if importlib.util.find_spec(module)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in present}
    for _ in range(runs):
        for name, program in present.items():
            begun = time.time()
            imported, done = (float(word) for word in _output(program, arguments).split()[:2])
            taken[name].append((done - begun, done - imported))
    for place, case in enumerate((from_start, after_imports)):
        medians = {name: median(one[place] for one in taken[name]) for name in present}
        for name, value in medians.items():
            yield Row(case, name, value, "s", value / medians[OURS])


def _output(program: str, arguments: Sequence[str]) -> str:
    """The output of a program, run in a fresh process."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"a program of the benchmark failed. The end of its output:\n{done.stderr[-2000:]}")
    return done.stdout


# Many shards, many pairs ------------------------------------------------------------------------------------------------------------------

MEMORY = """
import multiprocessing, re, sys
from pathlib import Path
from statistics import median
import numpy as np
from multimodal.data import Captions, PairLoader, Pixels
from multimodal.shards import ShardSet
folder, size, num_workers, batch_size = sys.argv[1], *map(int, sys.argv[2:])
shards = ShardSet(folder)
loader = PairLoader(shards, np.arange(len(shards)), Pixels(size), Captions(), batch_size, seed=0, num_workers=num_workers)
batches = iter(loader)
for _ in range(min(20, len(loader))):
    next(batches)
workers = [Path(f"/proc/{child.pid}/smaps_rollup").read_text() for child in multiprocessing.active_children()]
for field in ("Private_Dirty", "Pss"):
    print(max(int(re.search(rf"^{field}: +(\\d+) kB", worker, re.MULTILINE)[1]) for worker in workers))
"""


def scale(source: ShardSet, out: Path, num_pairs: Sequence[int], runs: int, num_workers: int, batch_size: int) -> Iterator[Row]:
    """The first batch of MANY_SHARDS; a worker's memory and the time of a lookup for each number of pairs."""
    arguments = [str(number) for number in (SIZE, num_workers, batch_size)]
    many = _many(_one_shard(source, out / "ten", 10), out / f"{MANY_SHARDS}-shards", MANY_SHARDS)
    programs = {name: PROGRAMS[name] for name in (OURS, WEBDATASET)}
    cases = (f"{MANY_SHARDS:,} shards, from process start", f"{MANY_SHARDS:,} shards, after imports")
    yield from _first_batches(*cases, programs, [str(many.path), *arguments], runs)
    template = _one_shard(source, out / "thousand", 1000)
    for num in num_pairs:
        shards = _many(template, out / f"{num}-pairs", num // len(template))
        printed = [_output(MEMORY, [str(shards.path), *arguments]).split() for _ in range(runs)]
        own, pss = (median(int(word) / 1024 for word in words) for words in zip(*printed, strict=True))
        yield Row(f"{num:,} pairs", "ours: a worker's own memory", own, "MiB")
        yield Row(f"{num:,} pairs", "ours: and its part of what is shared (PSS)", pss, "MiB")
        yield Row(f"{num:,} pairs", "ours: lookup", _lookup_us(shards, runs), "us/picture")


def _one_shard(source: ShardSet, path: Path, num: int) -> ShardSet:
    """A shard of num pairs with pictures of the source, repeated if it has fewer."""
    if not (path / "manifest.json").is_file():
        with ShardWriter(path, pairs_per_shard=num) as writer:
            for number in range(num):
                image = source.image_bytes(number % len(source))
                writer.write(Pair(name=f"{number}.jpg", image=image, extension="jpg", texts=("a picture",), group=str(number)))
    return ShardSet(path)


def _many(template: ShardSet, path: Path, num_shards: int) -> ShardSet:
    """num_shards shards, each a link to the template's only one, with an index that repeats its pairs."""
    if not (path / "manifest.json").is_file():
        path.mkdir(parents=True, exist_ok=True)
        (shard,) = template.shards
        names = [f"{number:06d}" for number in range(num_shards)]
        for name in names:
            (path / f"{name}.tar").unlink(missing_ok=True)
            (path / f"{name}.tar").symlink_to((template.path / f"{shard.name}.tar").resolve())
        write_table(path / INDEX, _repeated(open_table(template.index / INDEX), num_shards))
        part = {"num_pairs": shard.num_pairs, "size_bytes": shard.size_bytes, "fingerprint": shard.fingerprint}
        counts = {"shards": num_shards, "pairs": num_shards * len(template)}
        write_manifest(path, Manifest(kind="shards", config={}, counts=counts, parts={f"{name}.tar": part for name in names}))
    return ShardSet(path)


def _repeated(table: IndexTable, num_shards: int) -> IndexTable:
    num = num_shards * len(table)
    numbers = pa.array(np.arange(num)).cast(pa.large_string())
    columns: dict[str, pa.Array] = {name: numbers for name in ("key", "group", "name")}
    columns |= {name: pa.repeat(pa.scalar(value, pa.large_string()), num) for name, value in (("split", ""), ("extension", "jpg"))}
    columns["shard"] = pa.array(np.repeat(np.arange(num_shards, dtype=np.int32), len(table)))
    for name in INDEX_SCHEMA.names:
        if name not in columns:
            columns[name] = pa.array(np.tile(table.integers(name), num_shards))
    return IndexTable(pa.RecordBatch.from_arrays([columns[name] for name in INDEX_SCHEMA.names], schema=INDEX_SCHEMA))


def _lookup_us(shards: ShardSet, runs: int, num: int = 8192) -> float:
    """Microseconds of CPU to find a picture: the order's next ids, and for each its shard, its size and its key."""
    order = FullShuffle().open(seed=0, sizes=np.array([len(shards)]))
    shards.image_sizes.sum(), shards.shard_numbers(np.arange(len(shards))).sum()

    def find() -> None:
        for start in range(0, num, 64):
            for id in order.ids(0, start, start + 64).tolist():
                shards.shard_of(id), shards.image_sizes[id], shards.key(id)

    return 1e6 * seconds(find, runs, time.process_time) / num


# The table --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """A target: the row and field of a figure, and its lower or upper bound."""

    case: str
    system: str
    field: str
    bound: str
    asked: float


BARS = (
    *(Bar(case, OPEN_CLIP, "ours_to_it", "at least", 5) for case in ("as they are", "500x375")),
    *(Bar(case, OURS, "share", "at least", share) for case, share in (("as they are", 0.45), ("500x375", 0.60), ("1024x768", 0.65))),
    Bar(FIRST, "open_clip's, with its trainer's imports", "ours_to_it", "at least", 1 / 0.4),
    Bar(AFTER, "open_clip's, with its trainer's imports", "ours_to_it", "at least", 3),
    Bar(f"{MANY_SHARDS:,} shards, from process start", OURS, "value", "at most", 5),
)


def judged(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each target whose row exists, for the ratios of normalised floats, and for the growth of a lookup's time and a worker's
    memory with the number of pairs.
    """
    by_name = {(row.case, row.system): row for row in rows}
    for bar in BARS:
        row = by_name.get((bar.case, bar.system))
        if row is not None:
            seen = getattr(row, bar.field)
            met = seen >= bar.asked if bar.bound == "at least" else seen <= bar.asked
            line = f"{bar.case:34}  {bar.system:52}  {bar.field:10}  {bar.bound} {bar.asked:.2f}: {seen:.2f}{'' if met else '   NOT MET'}"
            limit = by_name.get((bar.case, LIMIT)) if bar.field == "ours_to_it" else None
            yield line + (f"   (the limit: {limit.value / row.value:.2f})" if limit else "")
    for row in rows:
        if row.system == OPEN_CLIP_ITS_OWN:
            yield f"{row.case:34}  {row.system:52}  {'ours_to_it':10}  {row.ours_to_it:.2f}"
    for system in ("ours: lookup", "ours: a worker's own memory"):
        values = [row.value for row in rows if row.system == system]
        if values:
            yield f"{'fewest pairs to most':34}  {system:52}  {'value':10}  grows {values[-1] / values[0]:.2f} times"


def setup(num_workers: int, batch_size: int) -> dict[str, Any]:
    """The setup of the measurement."""
    packages = ("torch", "torchvision", "pillow", "simplejpeg", "webdataset", "open_clip_torch", "litdata")
    versions = {name: version(name) for name in packages if importlib.util.find_spec(MODULES.get(name, name))}
    return {"workers": num_workers, "batch_size": batch_size, "cores": len(os.sched_getaffinity(0)), "versions": versions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a shard set with JPEGs")
    parser.add_argument("--out", type=Path, required=True, help="a folder for generated pictures, which the next call reuses")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument(
        "--quick", action="store_true", help="an eighth of the pictures and one run, to test that it works; not a measurement"
    )
    parser.add_argument("--runs", type=int, default=3, help="epochs of each system; the median is reported")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs, share = (1, 1 / 8) if given.quick else (given.runs, 1.0)
    rows = report(
        bench(given.data, given.out, runs, given.workers, given.batch_size, share), given.json, setup(given.workers, given.batch_size)
    )
    print(*judged(rows), sep="\n")
