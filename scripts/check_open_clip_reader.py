"""Check that open_clip's own loader, with its defaults, reads every pair of a shard set, with the same picture and caption as ours.

    python scripts/check_open_clip_reader.py --shards shards/emoji --env ~/.cache/multimodal/open-clip-reader

open_clip_torch 3.3.0 crashes with webdataset 1.0 (`KeyError: 'fname'`) and runs with 0.2.86, so it gets a separate environment: a folder
that uv makes on the first call (including torch, some gigabytes unless uv has them cached), and that later calls reuse. Inside it,
`open_clip_train.data.get_wds_dataset(..., is_train=False)` reads all tars once; the pixels and captions that reach its preprocessing and
tokenizer are compared with those of `ShardSet`. It reads jpg, png and webp; a pair with an avif counts as missing.
Prints how many pairs were read, equal and missing; the exit status is 1 if any differs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("open_clip_torch==3.3.0", "webdataset==0.2.86", "pandas", "pyarrow", "tqdm")
NUM_SHOWN = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="a finished shard set")
    parser.add_argument("--env", type=Path, required=True, help="the folder of the environment; made if it does not exist")
    parser.add_argument("--inside", action="store_true", help="run the comparison in this environment (the script calls itself with it)")
    arguments = parser.parse_args()
    if arguments.inside:
        return compare(arguments.shards)
    python = make_environment(arguments.env)
    command = [str(python), __file__, "--shards", str(arguments.shards), "--env", str(arguments.env), "--inside"]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False).returncode


def make_environment(folder: Path) -> Path:
    """Make the environment, or complete an incomplete one; returns its interpreter."""
    python, ready = folder / "bin" / "python", folder / ".ready"
    stamp = "\n".join(REQUIREMENTS)
    if not (ready.is_file() and ready.read_text() == stamp):
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS], check=True)
        ready.write_text(stamp)
    return python


def compare(path: Path) -> int:
    """Read the set with both readers, as a multiset of (pixels, caption), because open_clip's tuples have no key."""
    from multimodal.shards import ShardSet

    shards = ShardSet(path)
    key_of = {id: f"{shards.shard_of(id).name}/{shards.key(id)}" for id in range(len(shards))}
    ours = {id: _digest(_pixels(shards.image_bytes(id)), shards.texts(id)[0].encode()) for id in key_of}
    theirs = read_with_open_clip([str(shards.path / f"{shard.name}.tar") for shard in shards.shards])
    num_equal = (Counter(ours.values()) & theirs).total()
    left = theirs.copy()
    missing = []
    for id, digest in ours.items():
        if left[digest]:
            left[digest] -= 1
        else:
            missing.append(key_of[id])
    print(f"pairs: {len(shards)}   read by open_clip: {theirs.total()}   equal: {num_equal}   missing or different: {len(missing)}")
    if missing:
        print(f"read differently: {', '.join(missing[:NUM_SHOWN])}{' ...' if len(missing) > NUM_SHOWN else ''}")
    return int(bool(missing) or theirs.total() != len(shards))


def read_with_open_clip(tars: list[str]) -> Counter[bytes]:
    """Counts of digests of what open_clip's evaluation loader passes to preprocessing and tokenizer."""
    import torch
    from open_clip_train.data import get_wds_dataset

    def as_tensor(content: bytes) -> torch.Tensor:
        return torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8)

    arguments = SimpleNamespace(val_data=tars, val_num_samples=None, batch_size=64, workers=0)
    info = get_wds_dataset(
        arguments,
        preprocess_img=lambda image: as_tensor(_raw(image)),
        is_train=False,
        tokenizer=lambda text: [as_tensor(text.encode())],
    )
    read: Counter[bytes] = Counter()
    for images, texts in info.dataloader:
        read.update(bytes(image.tolist()) + bytes(text.tolist()) for image, text in zip(images, texts, strict=True))
    return read


def _pixels(encoded: bytes) -> bytes:
    from PIL import Image

    return _raw(Image.open(io.BytesIO(encoded)).convert("RGB"))


def _raw(image) -> bytes:  # type: ignore[no-untyped-def]  # a PIL image; the outer half of this file runs without Pillow
    return repr(image.size).encode() + image.tobytes()


def _digest(pixels: bytes, text: bytes) -> bytes:
    return hashlib.sha256(pixels).digest() + hashlib.sha256(text).digest()


if __name__ == "__main__":
    sys.exit(main())
