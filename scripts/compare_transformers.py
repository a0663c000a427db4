"""Vectors of exports of transformers' CLIP and SigLIP folders beside transformers' own, for the same weights, pictures and texts.

    python scripts/compare_transformers.py                                  # full sizes with random weights, one after the other
    python scripts/compare_transformers.py --folder downloads/siglip        # published weights, as save_pretrained writes them

Prints the largest difference of a coordinate of unit vectors: of pictures through transformers' image processor with Pillow, and with
torchvision, which rounds pixels otherwise; of texts; and of square pictures and plain texts once the export is a folder of open_clip.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import sentencepiece
import torch
import transformers
from torch.nn.functional import normalize

from multimodal.data.decode import Decoded
from multimodal.export.model import export_pretrained, load_export
from multimodal.export.to_open_clip import to_open_clip

sys.path.insert(0, str(Path(__file__).parent))
from compare_open_clip import TEXTS, odd_pictures

MODELS: Mapping[str, dict[str, Any]] = {
    "CLIP ViT-B/32": {"kind": "clip"},
    "CLIP ViT-B/32, gelu": {"kind": "clip", "text": {"hidden_act": "gelu"}, "vision": {"hidden_act": "gelu"}},
    "SigLIP B/16": {"kind": "siglip"},
    "SigLIP 2 B/16": {"kind": "siglip", "text": {"vocab_size": 256_000}, "tokenizer": "gemma", "resample": 2},
}
"""transformers' defaults are these sizes. CLIP has OpenAI's vocabulary; those of SigLIP are small, fitted on a few sentences."""
_SENTENCES = (
    "a photo of a dog on the beach in the snow",
    "two cats and a woman in the mountains",
    "1234567890 the and or with",
    "Zwei Hunde",
)


@dataclass(frozen=True, slots=True)
class Differences:
    """The largest absolute differences between coordinates of unit vectors; open_clip: None if it has no such network. apart: how far
    apart two pictures are, and two texts.
    """

    pillow: float
    torchvision: float
    texts: float
    open_clip: float | None
    apart: tuple[float, float]


def write_folder(
    folder: Path,
    kind: str,
    text: Mapping[str, Any] = {},
    vision: Mapping[str, Any] = {},
    tokenizer: str = "",
    resample: int = 3,
    **settings: Any,
) -> Path:
    """A folder as save_pretrained writes it, with random weights. kind: "clip" or "siglip". text, vision, settings: of its config, beside
    transformers' defaults. tokenizer: "gemma" for SigLIP 2's kind. resample: Pillow's number of a filter.
    """
    folder.mkdir(parents=True)
    words = _of_clip() if kind == "clip" else _of_gemma() if tokenizer == "gemma" else _of_siglip(folder)
    own = {} if kind == "clip" else {"vocab_size": 32_000}
    config_class = transformers.CLIPConfig if kind == "clip" else transformers.SiglipConfig
    config = config_class(text_config={**own, **text}, vision_config=dict(vision), **settings)
    torch.manual_seed(0)
    model = (transformers.CLIPModel if kind == "clip" else transformers.SiglipModel)(config)
    for name, parameter in model.named_parameters():  # as random as they are made, texts of SigLIP would have almost one vector
        if name.endswith("position_embedding.weight") or "token_embedding" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    size = config.vision_config.image_size
    square = {"height": size, "width": size}
    if kind == "clip":
        pictures = transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square, resample=resample)
        transformers.CLIPProcessor(pictures, words).save_pretrained(folder)
    else:
        transformers.SiglipProcessor(transformers.SiglipImageProcessor(size=square, resample=resample), words).save_pretrained(folder)
    return folder


def _of_clip() -> Any:
    """CLIP's tokenizer of transformers with OpenAI's vocabulary, which open_clip has."""
    its = open_clip.SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    return transformers.CLIPTokenizer(vocab={special.get(word, word): id for word, id in its.encoder.items()}, merges=list(its.bpe_ranks))


def _of_siglip(folder: Path) -> Any:
    """SigLIP's: a sentencepiece model, in the folder."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=90,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    return transformers.SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"])


def _of_gemma() -> Any:
    """SigLIP 2's: Gemma's byte pairs, without a first token, and padded on the right."""
    from tokenizers import Tokenizer, models, normalizers, trainers

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    fitted = Tokenizer(models.BPE(unk_token="<unk>"))
    fitted.normalizer = normalizers.Replace(" ", "\u2581")
    fitted.train_from_iterator(_SENTENCES * 20, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False))
    vocab = fitted.get_vocab()
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    pieces = set(vocab)
    merges = [(word[:at], word[at:]) for word in fitted.get_vocab() for at in range(1, len(word)) if {word[:at], word[at:]} <= pieces]
    settings = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "model_input_names": ["input_ids"]}
    return transformers.GemmaTokenizer(vocab=vocab, merges=merges, **settings)


def compare(folder: Path, scratch: Path, with_open_clip: bool = True) -> Differences:
    """A folder of transformers and its export, which is made in scratch, and written there as a folder of open_clip. Pictures have ten
    shapes in RGB; what is not RGB in a file is when it has been decoded.
    """
    export = load_export(export_pretrained(str(folder), scratch / "export"))
    files = {shape: encoded for shape, encoded in odd_pictures().items() if shape[2] == "RGB"}
    decoded = [Decoded(encoded).image for encoded in files.values()]
    ours, our_texts = np.concatenate([export.encode_image(encoded) for encoded in files.values()]), export.encode_text(TEXTS)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    found = {}
    with torch.inference_mode():
        for backend in ("pil", "torchvision"):
            process = transformers.AutoImageProcessor.from_pretrained(folder, backend=backend)
            rows = [model.get_image_features(**process(images=one, return_tensors="pt")).pooler_output for one in decoded]
            found[backend] = _largest(ours, normalize(torch.cat(rows)).numpy())
        context = model.config.text_config.max_position_embeddings
        tokens = transformers.AutoTokenizer.from_pretrained(folder)(
            list(TEXTS), padding="max_length", max_length=context, truncation=True, return_tensors="pt"
        )
        texts = normalize(model.get_text_features(**tokens).pooler_output).numpy()
    # other pictures are cropped, and other texts cleaned, in ways that differ: `to-open-clip` says so
    squares = [at for at, (width, height, _) in enumerate(files) if width == height]
    back = _by_open_clip(to_open_clip(scratch / "export", scratch / "back"), [decoded[at] for at in squares]) if with_open_clip else None
    return Differences(
        pillow=found["pil"],
        torchvision=found["torchvision"],
        texts=_largest(our_texts, texts),
        open_clip=None if back is None else max(_largest(ours[squares], back[0]), _largest(our_texts[:2], back[1])),
        apart=(_largest(ours, ours[:1]), _largest(our_texts, our_texts[:1])),
    )


def _by_open_clip(folder: Path, pictures: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(TEXTS[:2]))
    with torch.inference_mode():
        images = [model.eval().encode_image(transform(picture)[None], normalize=True).numpy() for picture in pictures]
        return np.concatenate(images), model.encode_text(tokens, normalize=True).numpy()


def _largest(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one - two).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder as save_pretrained writes it, instead of random weights")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing may be fetched
    transformers.logging.set_verbosity_error()
    print(f"{'model':<20} {'Pillow':>9} {'torchv.':>9} {'texts':>9} {'open_clip':>9} {'apart':>19}")
    for name in [arguments.folder.name] if arguments.folder else MODELS:
        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            folder = arguments.folder or write_folder(Path(scratch) / name.replace("/", ""), **MODELS[name])
            found = compare(folder, Path(scratch))
        values = (found.pillow, found.torchvision, found.texts, found.open_clip, *found.apart)
        print(f"{name:<20} {' '.join(f'{value:>9.1e}' for value in values)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
