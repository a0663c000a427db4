"""Does open_clip's own loader, with its defaults, read every pair of a shard set, with the picture and the caption that we read?

    python scripts/check_open_clip_reader.py --shards shards/emoji --env ~/.cache/multimodal/open-clip-reader

open_clip_torch 3.3.0 crashes on webdataset 1.0 (`KeyError: 'fname'`) and runs on 0.2.86, so it gets an environment of its own: a folder
that is made with uv on the first call (torch included, some gigabytes unless uv has them cached) and used again on the next. Inside it,
`open_clip_train.data.get_wds_dataset(..., is_train=False)` reads all tars once; what its preprocessing and tokenizer are given is compared,
pixels and caption, with what `ShardSet` gives. It reads jpg, png and webp; a pair whose picture is avif counts as missing.
Prints how many pairs were read, equal and missing; the exit status is 1 where any differs.
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
NUM_TOLD = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="a finished shard set")
    parser.add_argument("--env", type=Path, required=True, help="the folder of the environment; made where it is not there")
    parser.add_argument("--inside", action="store_true", help="this already is the environment: compare (the script calls itself so)")
    arguments = parser.parse_args()
    if arguments.inside:
        return compare(arguments.shards)
    python = make_environment(arguments.env)
    command = [str(python), __file__, "--shards", str(arguments.shards), "--env", str(arguments.env), "--inside"]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False).returncode


def make_environment(folder: Path) -> Path:
    """Its interpreter. An environment that was made but not filled is filled now."""
    python, ready = folder / "bin" / "python", folder / ".ready"
    stamp = "\n".join(REQUIREMENTS)
    if not (ready.is_file() and ready.read_text() == stamp):
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS], check=True)
        ready.write_text(stamp)
    return python


def compare(path: Path) -> int:
    """Read the set both ways, as a multiset of (pixels, caption): open_clip's tuples carry no key."""
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
        print(f"not read as we read them: {', '.join(missing[:NUM_TOLD])}{' ...' if len(missing) > NUM_TOLD else ''}")
    return int(bool(missing) or theirs.total() != len(shards))


def read_with_open_clip(tars: list[str]) -> Counter[bytes]:
    """What open_clip's evaluation loader hands to preprocessing and tokenizer, as digests, counted."""
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


def _raw(image) -> bytes:  # type: ignore[no-untyped-def]  # a PIL image; this file's outer half runs without Pillow
    return repr(image.size).encode() + image.tobytes()


def _digest(pixels: bytes, text: bytes) -> bytes:
    return hashlib.sha256(pixels).digest() + hashlib.sha256(text).digest()


if __name__ == "__main__":
    sys.exit(main())
