"""CLIP models of open_clip, found by name or folder: what they are, and their weights.

    found = find_model("local-dir:downloads/ViT-B-32")           # or "ViT-B-32/laion2b_s34b_b79k", which downloads
    found.model, found.preprocess, found.tokenizer               # settings and tokenizer of both towers
    found.read().visual                                          # open_clip's image tower, with its weights

A folder is as open_clip writes and publishes it: open_clip_config.json, the weights, and the tokenizer's files unless it is OpenAI's; or as
transformers does (`transformers_folder`).
Checkpoints are read without running what a pickle may hold. Only a name with a tag is downloaded, by open_clip, into its own cache.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import nn

from multimodal.boxes import MANIFEST, atomic_write, fingerprint_file, fingerprint_json, reading
from multimodal.errors import InputError, near_names, needing
from multimodal.pictures.preprocessing import Interpolation, Preprocessing, Resize
from multimodal.text.cleaning import CLEANINGS
from multimodal.text.clip import check_model, context_length
from multimodal.text.clip_tokens import ClipTokenizer
from multimodal.text.encoder import CONFIG, TOKENIZER
from multimodal.towers.trunk import is_known

LOCAL = "local-dir:"
FOLDER_CONFIG = "open_clip_config.json"
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
"""In the order in which open_clip prefers them; without one of these, the only file with such an ending is taken."""
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")
"""What a `preprocess_cfg` of open_clip may say."""
_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
_TRIED = ("a photo of a dog", "Zwei Hunde; \u4e24\u53ea\u72d7 \U0001f415!", "snow " * 300, "l'\u00e9t\u00e9 2024")
"""Texts on which a saved tokenizer must agree with the one that it was made from."""
_WHAT = "a CLIP model"
_read: ContextVar[dict[Path, nn.Module] | None] = ContextVar("_read", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Inside it, a file of weights is read once for both towers of its model; the memory is free again afterwards."""
    token = _read.set({})
    try:
        yield
    finally:
        _read.reset(token)


@dataclass(frozen=True, slots=True)
class Pairing:
    """What a model compares its pictures and texts with: exp(log_scale) * cosine + bias, in logits. bias: None without one (CLIP)."""

    log_scale: float
    bias: float | None


@dataclass(frozen=True, slots=True)
class ClipModel:
    """A model of open_clip: what it is, and where its weights are.

    name: for people. model: its `model_cfg`, that of a CLIP model also if it has a caption decoder (CoCa). preprocess: its
    `preprocess_cfg`. origin: where it was found, for a manifest. checkpoint: the file of its weights, or a folder of transformers; None if
    they are random.
    whole: the `model_cfg` that the checkpoint is of.
    """

    name: str
    model: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    tokenizer: ClipTokenizer
    origin: Mapping[str, Any]
    checkpoint: Path | None
    whole: Mapping[str, Any]

    def settings(self, side: str) -> dict[str, Any]:
        """What makes one tower, "visual" or "text", as `build_tower` takes it."""
        return {name: self.model[name] for name in ("embed_dim", "vision_cfg" if side == "visual" else "text_cfg", "quick_gelu")}

    def read(self) -> Any:
        """The whole model of open_clip, with its weights, in evaluation mode. Do not change it: see `read_once`."""
        if self.checkpoint is None:
            raise InputError(f"{self.name}: has no weights")
        models = _read.get()
        if models is None:
            return _loaded(self.name, self.whole, self.checkpoint)
        if self.checkpoint not in models:
            models[self.checkpoint] = _loaded(self.name, self.whole, self.checkpoint)
        return models[self.checkpoint]

    def pairing(self) -> Pairing:
        """That of the trained model, or what an untrained one begins with."""
        if self.checkpoint is None:
            bias = self.whole.get("init_logit_bias")
            return Pairing(float(self.whole.get("init_logit_scale", math.log(1 / 0.07))), None if bias is None else float(bias))
        model = self.read()
        return Pairing(model.logit_scale.detach().item(), None if model.logit_bias is None else model.logit_bias.detach().item())

    @property
    def fingerprint(self) -> str:
        """Of its settings and the file of its weights, wherever that is."""
        described = [self.model, self.preprocess, dict(self.tokenizer.settings), self.tokenizer.content]
        return fingerprint_json(
            [*described, *([None] if self.checkpoint is None else map(fingerprint_file, _weight_files(self.checkpoint)))]
        )

    def write(self, folder: Path) -> None:
        """Write what it is, without its weights, as a folder that `find_model(folder, weights=False)` finds again."""
        config = {"name": self.name, "model_cfg": {**self.whole, **self.model}, "preprocess_cfg": dict(self.preprocess)}
        for name, content in {**tokenizer_files(self.tokenizer), FOLDER_CONFIG: as_json(config)}.items():
            with atomic_write(folder / name) as file:
                file.write(content)


def find_model(named: str, weights: bool = True) -> ClipModel:
    """A model of open_clip; InputError if there is none, or it has a tower or a tokenizer that is not supported.

    named: `NAME/TAG`, open_clip's names (`open_clip.list_pretrained()`); `NAME/FILE`, a checkpoint of that architecture; a folder of
    open_clip or transformers, also as `local-dir:FOLDER`; without weights also `NAME` alone. Only `NAME/TAG` with weights, and the
    tokenizer of such a model, are downloaded.
    """
    folder = Path(named.removeprefix(LOCAL))
    if named and not (folder / FOLDER_CONFIG).is_file() and is_transformers(folder):
        return _of_transformers(folder, weights)
    source = _find(named, weights)
    for side, settings in (("text", "text_cfg"), ("visual", "vision_cfg")):
        if isinstance(source.model.get(settings), dict):
            source.model[settings].pop("timm_model_pretrained", None)
        check_model(source.model, side, source.name)
    if (timm_name := source.model["vision_cfg"].get("timm_model_name")) is not None and not is_known(str(timm_name)):
        raise InputError(f"{source.name}: timm has no architecture {timm_name!r}, which this model uses. Use a release of timm that has it")
    preprocessing_of(source.model["vision_cfg"].get("image_size", 224), source.preprocess, source.name)
    model = {name: source.model[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}
    model["quick_gelu"] = source.model.get("quick_gelu", False)
    whole = {name: value for name, value in source.model.items() if name != "custom_text"}
    if "multimodal_cfg" in whole:  # the caption decoder reads the tokens of both towers; here only vectors are compared
        model |= {name: {**model[name], "output_tokens": False} for name in ("vision_cfg", "text_cfg")}
        if not weights:
            del whole["multimodal_cfg"]
    return ClipModel(source.name, model, source.preprocess, _tokenizer(source), source.origin, source.checkpoint, whole)


def is_transformers(folder: Path) -> bool:
    """Whether transformers wrote the folder: it has a config.json with a model_type."""
    path = folder / CONFIG
    if not path.is_file():
        return False
    with reading(path):
        settings = json.loads(path.read_text(encoding="utf-8"))
        return isinstance(settings, dict) and "model_type" in settings


def _of_transformers(folder: Path, weights: bool) -> ClipModel:
    with needing("train", _WHAT):
        from multimodal.towers.transformers_folder import describe
    found = describe(folder)
    name = folder.resolve().name
    preprocessing_of(found.model["vision_cfg"]["image_size"], found.preprocess, name)
    tokenizer = ClipTokenizer(found.tokenizer, context_length(found.model), found.tokenizer_json, name)
    whole = {**found.model, **found.begins_at}
    return ClipModel(name, found.model, found.preprocess, tokenizer, {"folder": name}, folder if weights else None, whole)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model is. model: its `model_cfg`. preprocess: its `preprocess_cfg`. tokenizer: what transformers loads it from; a folder
    or, if it may be fetched, a name on the hub."""

    name: str
    model: dict[str, Any]
    preprocess: dict[str, Any]
    checkpoint: Path | None
    tokenizer: Path | str
    may_fetch: bool
    origin: dict[str, Any]


def _find(named: str, weights: bool) -> _Source:
    with needing("train", _WHAT):
        import open_clip
    if named.startswith(LOCAL) or (Path(named).is_dir() and named):
        return _in_folder(Path(named.removeprefix(LOCAL)), weights)
    name, _, rest = named.partition("/")
    if name not in open_clip.list_models():
        raise InputError(
            f"CLIP model {named}: is neither a folder nor a model of open_clip. {near_names(name, open_clip.list_models())} "
            "Give NAME/TAG, such as ViT-B-32/laion2b_s34b_b79k, NAME/FILE with a checkpoint, or a folder with open_clip_config.json"
        )
    model = open_clip.get_model_config(name)
    tokenizer = model["text_cfg"].get("hf_tokenizer_name", "")
    if not weights:
        return _Source(name, model, {}, None, tokenizer, False, {"open_clip": name})
    tags = open_clip.list_pretrained_tags_by_model(name)
    if rest in tags:
        return _tagged(name, rest, model)
    if not Path(rest).is_file():
        raise InputError(
            f"CLIP model {named}: {rest!r} is neither a file nor weights that open_clip knows for {name}. It knows: "
            f"{', '.join(tags) or 'none'}"
        )
    return _Source(name, model, {}, Path(rest), tokenizer, False, {"open_clip": name, "file": Path(rest).name})


def _tagged(name: str, tag: str, model: dict[str, Any]) -> _Source:
    """Weights that open_clip knows by a tag, downloaded into its cache if they are not there."""
    import open_clip

    described = open_clip.get_pretrained_cfg(name, tag)
    # open_clip only warns if the weights were trained with another GELU than the architecture's; their vectors would be wrong
    model["quick_gelu"] = bool(described.get("quick_gelu", False))
    try:
        checkpoint = open_clip.download_pretrained(described)
    except Exception as error:  # of several libraries, and of the network
        raise InputError(f"CLIP model {name}/{tag}: cannot be downloaded ({' '.join(str(error).split())})") from None
    preprocess = {key: _plain(described[key]) for key in PREPROCESSING if described.get(key) is not None}
    tokenizer = model["text_cfg"].get("hf_tokenizer_name", "")
    return _Source(name, model, preprocess, Path(checkpoint), tokenizer, True, {"open_clip": name, "tag": tag})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _in_folder(folder: Path, weights: bool) -> _Source:
    path = folder / FOLDER_CONFIG
    if not path.is_file():
        if (folder / MANIFEST).is_file():
            raise InputError(
                f"{folder}: is one of this project's boxes. If it is an export of a CLIP model, write it as a folder of open_clip and name "
                f"that: multimodal to-open-clip --export {folder} --output FOLDER"
            )
        raise InputError(
            f"{folder}: holds no {FOLDER_CONFIG}, and no config.json of transformers. Give a folder that open_clip or transformers wrote, "
            "or the same weights by open_clip's name, such as ViT-B-32/openai"
        )
    with reading(path):
        described = json.loads(path.read_text(encoding="utf-8"))
        model, preprocess = described["model_cfg"], described.get("preprocess_cfg", {})
        if not isinstance(model, dict) or not isinstance(preprocess, dict):
            raise ValueError("model_cfg and preprocess_cfg must be objects")
    known = {name: value for name, value in preprocess.items() if name not in ("size", "mode")}  # the size is that of the image tower
    name = str(described.get("name", folder.resolve().name))
    checkpoint = _checkpoint_in(folder) if weights else None
    return _Source(name, deepcopy(model), known, checkpoint, folder, False, {"folder": name})


def _weight_files(checkpoint: Path) -> list[Path]:
    """The file, or those of a folder of transformers, which may hold several."""
    return sorted(file for file in checkpoint.iterdir() if file.suffix in _ENDINGS) if checkpoint.is_dir() else [checkpoint]


def _checkpoint_in(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    found = sorted(file for file in folder.iterdir() if file.suffix in _ENDINGS)
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "none"
        raise InputError(f"{folder}: expected one file of weights, found {listed}. Name it {WEIGHT_FILES[0]} or {WEIGHT_FILES[2]}")
    return found[0]


def _loaded(name: str, whole: Mapping[str, Any], checkpoint: Path) -> Any:
    """The whole model of open_clip, with its weights. checkpoint: a file, or a folder of transformers."""
    if checkpoint.is_dir():
        from multimodal.towers.transformers_folder import read_model

        model: nn.Module = read_model(checkpoint, whole)
    else:
        model = _of_open_clip(name, whole, checkpoint)
    if broken := [weight for weight, tensor in model.state_dict().items() if not tensor.isfinite().all()]:
        raise InputError(f"{checkpoint}: {broken[0]} holds NaN or infinity, in {len(broken)} tensors in all. Take an earlier checkpoint")
    return model.eval()


def _of_open_clip(name: str, whole: Mapping[str, Any], checkpoint: Path) -> nn.Module:
    import open_clip

    try:
        model: nn.Module = (open_clip.CoCa if "multimodal_cfg" in whole else open_clip.CustomTextCLIP)(**whole)
    except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError, AttributeError) as error:
        raise InputError(f"{name}: open_clip cannot make this model: {' '.join(str(error).split())}") from None
    with reading(checkpoint, SafetensorError):
        try:
            open_clip.load_checkpoint(model, str(checkpoint), strict=True, weights_only=True)
        except pickle.UnpicklingError as error:
            if "weights_only" not in str(error):
                raise ValueError(str(error)) from None
            # torch's message advises weights_only=False, which would run the code
            raise InputError(
                f"{checkpoint}: is not read, since it holds more than weights, and to load that is to run code. Where you trust the file, "
                "save its weights alone there: safetensors.torch.save_file(state_dict, FILE)"
            ) from None
        except (RuntimeError, LookupError, AttributeError, AssertionError) as error:
            raise InputError(f"{checkpoint}: not weights of {name}: {' '.join(str(error).split())[:500]}") from None
    return model


def _tokenizer(source: _Source) -> ClipTokenizer:
    text = source.model["text_cfg"]
    is_named = bool(text.get("hf_tokenizer_name"))
    options = {"clean": "whitespace" if is_named else "lower", "strip_sep_token": False, **(text.get("tokenizer_kwargs") or {})}
    unknown = sorted(set(options) - {"clean", "strip_sep_token"})
    if unknown or text.get("tokenizer_mode") or options["clean"] not in CLEANINGS:
        what = "tokenizer_mode" if text.get("tokenizer_mode") else f"tokenizer_kwargs.{(unknown or ['clean'])[0]}"
        raise InputError(f"{source.name}: its tokenizer has {what}, which is not supported. Supported: clean, strip_sep_token")
    context = context_length(source.model)
    if not is_named:
        return ClipTokenizer({"clean": options["clean"], "pad_id": 0, "strip_id": None}, context, None, source.name)
    with needing("train", _WHAT):
        from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, trust_remote_code=False, local_files_only=not source.may_fetch)
    except Exception as error:  # of several libraries, and of the network
        raise InputError(
            f"{source.name}: its tokenizer cannot be loaded from {source.tokenizer} ({' '.join(str(error).split())[:300]}). Put the "
            "tokenizer's files into the model's folder"
        ) from None
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise InputError(f"{source.name}: its tokenizer has no tokenizer.json or no padding token, which an export needs")
    settings = {
        "clean": options["clean"],
        "pad_id": tokenizer.pad_token_id,
        "strip_id": tokenizer.sep_token_id if options["strip_sep_token"] else None,
    }
    content = tokenizer.backend_tokenizer.to_str()
    _check_tokenizer(source, tokenizer, content, context, settings["pad_id"])
    return ClipTokenizer(settings, context, content, source.name)


def _check_tokenizer(source: _Source, tokenizer: Any, content: str, context: int, pad_id: int) -> None:
    """InputError if the saved tokenizer gives other tokens than transformers does with the original."""
    from tokenizers import Tokenizer

    saved = Tokenizer.from_str(content)
    saved.no_padding()
    saved.enable_truncation(context)
    wanted = tokenizer(list(_TRIED), max_length=context, padding="max_length", truncation=True)["input_ids"]
    for text, ids in zip(_TRIED, wanted, strict=True):
        made = saved.encode(text).ids
        if [*made, *[pad_id] * (context - len(made))] != list(ids):
            raise InputError(f"{source.name}: its tokenizer pads or cuts texts in a way that an export cannot repeat ({text[:40]!r})")


def tokenizer_files(tokenizer: ClipTokenizer) -> dict[str, bytes]:
    """Name -> content, as a folder of open_clip has them; none for OpenAI's, which open_clip has."""
    if tokenizer.content is None:
        return {}
    names = {token["id"]: token["content"] for token in json.loads(tokenizer.content).get("added_tokens", [])}
    roles = {"pad_token": tokenizer.pad_id, "sep_token": tokenizer.settings.get("strip_id")}
    special = {role: names[id] for role, id in roles.items() if id in names}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": tokenizer.context_length, **special}
    return {TOKENIZER: tokenizer.content.encode(), "tokenizer_config.json": as_json(settings)}


def as_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def preprocessing_of(size: Any, preprocess: Mapping[str, Any], where: str) -> Preprocessing:
    """What open_clip does to a picture for evaluation, by a `preprocess_cfg`. InputError if we cannot do the same.

    size: the pixels of the input, a number or (height, width).
    """
    with needing("train", _WHAT):
        from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    if height != width:
        raise InputError(f"{where}: its pictures are {height} x {width}; only models with square pictures are supported")
    if unknown := [name for name in preprocess if name not in PREPROCESSING]:
        raise InputError(f"{where}: its preprocessing has {unknown[0]!r}; expected {', '.join(PREPROCESSING)}")
    given = {name: value for name, value in preprocess.items() if value is not None}
    interpolation = given.get("interpolation", "bicubic")
    mean, std = (
        tuple(value) if isinstance(value, list | tuple) else (value,) * 3
        for value in (given.get("mean", OPENAI_DATASET_MEAN), given.get("std", OPENAI_DATASET_STD))
    )
    try:
        return Preprocessing(
            size=height,
            crop_share=1.0,
            # "random" is of their training; they evaluate with bicubic
            interpolation=cast(Interpolation, "bicubic" if interpolation == "random" else interpolation),
            mean=cast(tuple[float, float, float], mean),
            std=cast(tuple[float, float, float], std),
            resize=cast(Resize, given.get("resize_mode", "shortest")),
            fill=given.get("fill_color", 0),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
