"""Vectors of exports of pretrained CLIP models beside open_clip's own, for the same weights, pictures and texts.

    python scripts/compare_open_clip.py                                  # full architectures with random weights, one after the other
    python scripts/compare_open_clip.py --models RN50 coca_ViT-B-32
    python scripts/compare_open_clip.py --folder downloads/ViT-B-32      # published weights, as open_clip writes them

Prints the largest difference of a coordinate of unit vectors: of pictures as this project decodes them, of texts, and of both once the
export has been written back as a folder of open_clip. Pictures are also compared as Pillow opens the files, which open_clip's transform
neither turns upright nor lays on white: there the two differ where they should.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from multimodal.data.decode import Decoded
from multimodal.export.model import export_pretrained, load_export
from multimodal.export.to_open_clip import to_open_clip

MODELS = ("ViT-B-32", "RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "MobileCLIP2-S0")
SHAPES = ((1, 1), (3, 2), (17, 400), (40, 8), (8, 40), (224, 224), (225, 224), (640, 480), (301, 303), (1500, 1100))
MODES = ("RGB", "L", "RGBA", "turned", "CMYK")
"""Each shape in each mode: 50 pictures. turned: an EXIF orientation."""
TEXTS = (
    "a photo of a dog",
    "a",
    "Two cats &amp; a dog!",
    "  l'\u00e9t\u00e9   in\n the mountains ",
    "\u4e24\u53ea\u72d7 \U0001f415",
    "snow " * 300,
    "un_der_scored, punctuated; text?",
    "THE BEACH 1234567890",
    "don't they're I'd",
)


@dataclass(frozen=True, slots=True)
class Differences:
    """The largest absolute differences between coordinates of unit vectors.

    pictures: as this project decodes them. opened: mode -> as Pillow opens the file. texts: TEXTS. back: of pictures and texts, once the
    export is a folder of open_clip again.
    """

    pictures: float
    opened: dict[str, float]
    texts: float
    back: float
    apart: float
    """How far apart two pictures are at most: what the others are to be compared with."""


def odd_pictures() -> dict[tuple[int, int, str], bytes]:
    """(width, height, mode) -> an encoded picture, for all SHAPES and MODES."""
    made = {}
    for width, height in SHAPES:
        for mode in MODES:
            rng = np.random.default_rng(10_000 * width + height)
            low = rng.integers(0, 256, (max(2, height // 9), max(2, width // 9), 4), dtype=np.uint8)
            image = Image.fromarray(low, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
            file = io.BytesIO()
            if mode == "turned":
                exif = Image.Exif()
                exif[0x0112] = 6
                image.convert("RGB").save(file, "jpeg", quality=95, exif=exif)
            elif mode == "CMYK":
                image.convert("RGB").convert("CMYK").save(file, "jpeg", quality=95)
            else:
                image.convert(mode).save(file, "png")
            made[width, height, mode] = file.getvalue()
    return made


def write_folder(folder: Path, config: dict[str, Any], seed: int = 0) -> Path:
    """A folder as open_clip writes it, with random weights. config: model_cfg and preprocess_cfg of an open_clip_config.json."""
    folder.mkdir(parents=True)
    model = {name: value for name, value in config["model_cfg"].items() if name != "custom_text"}
    is_coca, has_own_text = "multimodal_cfg" in model, config["model_cfg"].get("custom_text", False)
    torch.manual_seed(seed)
    made = (open_clip.CoCa if is_coca else open_clip.CustomTextCLIP if has_own_text else open_clip.CLIP)(**model)
    if is_coca:  # open_clip leaves it as it found the memory, where NaN may be
        torch.nn.init.normal_(made.text_decoder.text_projection, std=0.02)
    save_file({name: tensor.contiguous() for name, tensor in made.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def compare(folder: Path, scratch: Path) -> Differences:
    """A folder of open_clip and its export, which is made in scratch, and written back there."""
    export = load_export(export_pretrained(f"local-dir:{folder}", scratch / "export"))
    back = to_open_clip(scratch / "export", scratch / "back")
    files = odd_pictures()
    decoded = [Decoded(encoded).image for encoded in files.values()]
    opened = [Image.open(io.BytesIO(encoded)) for encoded in files.values()]
    ours, our_texts = np.concatenate([export.encode_image(encoded) for encoded in files.values()]), export.encode_text(TEXTS)
    images, texts = _vectors(folder, decoded)
    raw, _ = _vectors(folder, opened)
    images_back, texts_back = _vectors(back, decoded)
    modes = np.array([mode for *_, mode in files])
    return Differences(
        pictures=_largest(ours, images),
        opened={mode: _largest(ours[modes == mode], raw[modes == mode]) for mode in MODES},
        texts=_largest(our_texts, texts),
        back=max(_largest(images_back, images), _largest(texts_back, texts)),
        apart=_largest(ours, ours[:1]),
    )


def _vectors(folder: Path, pictures: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) of the pictures and (t, d) of TEXTS, by open_clip alone."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(TEXTS))
    model.eval()
    with torch.inference_mode():
        images = [model.encode_image(transform(picture)[None], normalize=True).numpy() for picture in pictures]
        return np.concatenate(images), model.encode_text(tokens, normalize=True).numpy()


def _largest(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one - two).max())


def _config(name: str) -> dict[str, Any]:
    """An architecture of open_clip; where its tokenizer is on the hub, OpenAI's takes its place."""
    model = open_clip.get_model_config(name)
    for setting in ("hf_tokenizer_name", "tokenizer_kwargs"):
        if model["text_cfg"].pop(setting, None) is not None:
            model["text_cfg"]["vocab_size"] = max(model["text_cfg"]["vocab_size"], 49_408)
    siglip = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    return {"model_cfg": model, "preprocess_cfg": siglip if "SigLIP" in name else {}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="architectures of open_clip, with random weights")
    parser.add_argument("--folder", type=Path, help="a folder as open_clip writes it, instead of architectures")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # open_clip must not fetch what is missing
    print(f"{'model':<20} {'pictures':>9} {'texts':>9} {'back':>9} {'apart':>9}   pictures as Pillow opens the file")
    for name in [arguments.folder.name] if arguments.folder else arguments.models:
        with tempfile.TemporaryDirectory() as scratch:
            folder = arguments.folder or write_folder(Path(scratch) / name, _config(name))
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # the export's card
                found = compare(folder, Path(scratch))
        opened = ", ".join(f"{mode} {value:.1e}" for mode, value in found.opened.items())
        print(f"{name:<20} {found.pictures:>9.1e} {found.texts:>9.1e} {found.back:>9.1e} {found.apart:>9.1e}   {opened}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
