"""The text tower of a pretrained CLIP model (CLIP, SigLIP, CoCa, MobileCLIP ... of open_clip): the text side of its export.

    space = OpenClipSpace(folder)
    space.embed(["a dog on the beach"])              # (1, d), unit length, as open_clip's encode_text(normalize=True) gives it

torch and open_clip are imported by the first `embed`, unless the box has the network as ONNX too (`multimodal export --onnx`) and
onnxruntime is installed. The box holds the settings, the weights and the tokenizer; OpenAI's own vocabulary, which most models use, is part
of open_clip, and beside the ONNX as tokenizer.json.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from multimodal.boxes import reading
from multimodal.errors import InputError, needing
from multimodal.onnx import OnnxNetwork, network_in
from multimodal.text.clip_tokens import ClipTokenizer
from multimodal.text.encoder import MODEL, NO_ONNX, TOKENIZER
from multimodal.text.long_texts import average
from multimodal.text.space import KIND, BoxedSpace, Origin, open_box, origin_of
from multimodal.text.tokens import in_batches

if TYPE_CHECKING:
    from torch import Tensor, nn

_WHAT = "a CLIP model"
MAX_LAYERS, MAX_NUMBER = 512, 4_000_000
TIMM_KWARGS = frozenset(("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "act_layer"))
"""What may be said of a vision transformer of timm beside its name."""
_TEXT: dict[str, Any] = {"layers": 1, "width": 64, "heads": 1, "vocab_size": 1, "context_length": 1}
_VISION: dict[str, Any] = {"layers": 1, "width": 64, "head_width": 64, "patch_size": 1, "image_size": 1}
"""The smallest tower of each kind: open_clip builds both, and only one of them is wanted."""


def build_tower(model: Mapping[str, Any], side: str, where: Path | str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> nn.Module:
    """A tower of open_clip, with random weights. It downloads and opens nothing.

    model: the `model_cfg` of an open_clip_config.json: embed_dim, perhaps quick_gelu, and text_cfg or vision_cfg. In vision_cfg,
    timm_kwargs, which open_clip does not have, are arguments for timm's architecture, if it has no name with these sizes and activation.
    side: "text" or "visual", as open_clip names them. where: what the settings came from, for messages.
    shapes: of the weights that the tower will get, by name: InputError if it has others, before it takes memory.
    """
    check_model(model, side, where)
    with needing("train", _WHAT):
        import torch
        from open_clip import CustomTextCLIP
        from timm import create_model
    settings = {"text_cfg": _TEXT, "vision_cfg": _VISION, **model}
    differs = settings["vision_cfg"].get("timm_kwargs") if side == "visual" else None
    settings["vision_cfg"] = {name: value for name, value in settings["vision_cfg"].items() if name != "timm_kwargs"}
    wanted = {name: settings[name] for name in ("embed_dim", "text_cfg", "vision_cfg")} | {"quick_gelu": model.get("quick_gelu", False)}

    def build() -> nn.Module:
        if not differs:
            tower: nn.Module = getattr(CustomTextCLIP(**wanted), side)
            return tower
        with torch.device("meta"):  # all of this tower is replaced
            tower = CustomTextCLIP(**wanted).visual
        vision = settings["vision_cfg"]
        tower.trunk = create_model(vision["timm_model_name"], num_classes=0, global_pool=vision["timm_pool"], **differs)
        return tower

    try:
        if shapes is not None and not is_of_timm(model):
            with torch.device("meta"):
                has = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
            check_shapes(has, shapes, where)
        return build()
    except InputError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError, AttributeError) as error:
        raise InputError(f"{where}: open_clip cannot make this model's {side} tower: {' '.join(str(error).split())}") from None


def check_shapes(has: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], where: Path | str) -> None:
    """InputError if the weights are not those of the network. has, given: shapes by name."""
    for name in sorted(has.keys() | given.keys()):
        if has.get(name) != given.get(name):
            raise InputError(
                f"{where}: the settings and the weights differ in {name}: it is {has.get(name, 'missing')} by the settings and "
                f"{given.get(name, 'missing')} in the weights. Restore both, or make the export again"
            )


def check_model(model: Mapping[str, Any], side: str, where: Path | str) -> None:
    """InputError if the settings of a tower name something to fetch, or are no settings of a tower."""
    of = "text_cfg" if side == "text" else "vision_cfg"
    for name, kind in (("embed_dim", int), (of, Mapping), ("quick_gelu", bool)):
        value = {"quick_gelu": False, **model}.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(f"{where}: {name} of the model is {value!r}; expected {kind.__name__}, as in an open_clip_config.json")
    settings = model[of]
    if name := settings.get("hf_model_name"):
        raise InputError(
            f"{where}: its text tower is {name!r} of transformers, which open_clip would fetch from the hub. Only text towers of open_clip "
            "itself are supported: CLIP, SigLIP, CoCa, MobileCLIP, EVA, PE ..., but not the roberta, xlm-roberta, mt5 and nllb models"
        )
    if settings.get("timm_model_pretrained"):
        raise InputError(f"{where}: timm_model_pretrained would fetch weights that these settings only name. Set it to false")
    if (timm_name := settings.get("timm_model_name")) is not None and not re.fullmatch(r"\w[\w.]*", str(timm_name)):
        raise InputError(f"{where}: timm_model_name {timm_name!r} is not the name of an architecture, and is not opened as an address")
    differs = settings.get("timm_kwargs", {})
    if not isinstance(differs, Mapping) or not set(differs) <= TIMM_KWARGS or (differs and settings.get("timm_proj") != "none"):
        raise InputError(f"{where}: timm_kwargs is {differs!r}; expected some of {', '.join(sorted(TIMM_KWARGS))}, with timm_proj none")
    for name, value in [("embed_dim", model["embed_dim"]), *settings.items(), *differs.items()]:
        most = MAX_LAYERS if name in ("layers", "depth") else MAX_NUMBER
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(number, int | float) and not 0 <= number <= most for number in numbers) and name != "ls_init_value":
            raise InputError(f"{where}: {name} is {value}; expected at most {most:,}")


def context_length(model: Mapping[str, Any]) -> Any:
    """How many tokens the text tower reads, as its settings say."""
    return model["text_cfg"].get("context_length", 77)


def may_be_shorter(model: Mapping[str, Any]) -> bool:
    """Whether padding changes nothing: each token attends to those before it, and the row is that of the text's last token."""
    text = model["text_cfg"]
    bidirectional = text.get("no_causal_mask", False) or text.get("embed_cls", False)
    return not bidirectional and text.get("pool_type", "argmax") in ("argmax", "eos")


def for_length(tower: Any, length: int) -> Any:
    """The text tower for texts of that many tokens: open_clip's own mask has the size of the whole context. The weights are shared."""
    return tower if length >= tower.context_length else shortened(tower, length)


def shortened(tower: Any, length: int) -> Any:
    """`for_length` of at most the context; a graph of ONNX takes the length as it comes."""
    shorter = copy.copy(tower)
    shorter.__dict__["_buffers"] = {**tower._buffers, "attn_mask": tower.attn_mask[:length, :length]}
    return shorter


def is_of_timm(model: Any) -> bool:
    """Whether its image tower is one of timm with the sizes of its name, which may not support torch's meta device."""
    settings = model.get("vision_cfg") if isinstance(model, Mapping) else None
    return isinstance(settings, Mapping) and bool(settings.get("timm_model_name")) and not settings.get("timm_kwargs")


class OpenClipSpace(BoxedSpace):
    """The text tower of an open_clip model, at unit length.

    folder: holds model.safetensors, and tokenizer.json unless the tokenizer is OpenAI's, which open_clip has.
    model: embed_dim, quick_gelu and text_cfg, as in the `model_cfg` of an open_clip_config.json.
    tokenizer: the settings of its `ClipTokenizer`.
    device: where torch runs it; by default an accelerator, if there is one.
    network: the same as ONNX, which a loaded box may have and then uses (`run_by`); None for torch.

    A longer text than the context (77 tokens in most models, two of them special) is cut there, as open_clip does, and `unknown_words` says
    so of one text, `num_cut` of many; or its pieces are pooled (`long_texts` of the tokenizer's settings). An empty text has a row of
    zeros. Words without a token of their own are spelt, so none is unknown to OpenAI's tokenizer.
    """

    family: ClassVar[str] = "contrastive"
    setting_types = {"model": dict, "tokenizer": dict}
    network: OnnxNetwork | None = None

    def __init__(
        self,
        folder: Path,
        model: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        device: str | None = None,
        origin: Origin = Origin(),  # noqa: B008 (frozen)
    ) -> None:
        self.folder = Path(folder)
        if not (self.folder / MODEL).is_file():
            raise InputError(f"{self.folder}: holds no {MODEL}; it is not the text side of a CLIP model. Make the export again")
        check_model(model, "text", self.folder)
        path, content = self.folder / TOKENIZER, None
        if path.is_file():
            with reading(path):
                content = path.read_text(encoding="utf-8")
        self.model_cfg = model
        self.tokenizer = ClipTokenizer(tokenizer, context_length(model), content, self.folder if content is None else path)
        self.device = device
        self.origin = origin

    def run_by(self, network: OnnxNetwork | None, device: str | None = None) -> Self:
        """The same, run by its network as ONNX, beside which OpenAI's tokenizer is too; for None by torch, on the device."""
        space = copy.copy(self)
        space.__dict__.pop("tower", None)  # it may be on another device
        space.network, space.device = network, device
        space.tokenizer = self.tokenizer.with_vocabulary(None if network is None else network.path / TOKENIZER)
        return space

    @property
    def dim(self) -> int:
        return int(self.model_cfg["embed_dim"])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, d) float32, rows of unit length; zeros for an empty text.

        Texts of similar length are embedded together, so row i depends only on text i up to 1e-5: matrix products of other shapes round
        differently. Texts with the same tokens are embedded once, and have bitwise equal rows.
        """
        pieces = [(owner, piece) for owner, text in enumerate(texts) for piece in self.tokenizer.pieces(text)]
        places: dict[tuple[int, ...], list[int]] = {}
        for at, (_, tokens) in enumerate(pieces):
            if not tokens.is_empty:
                places.setdefault(tokens.ids, []).append(at)
        rows = np.zeros((len(pieces), self.dim), np.float32)
        order = sorted(places, key=len, reverse=True)  # the longest first: if it does not fit into memory, it fails at once
        for members in in_batches(order, None if self.network is None else self.network.rows_at_once):
            for ids, row in zip(members, self._embedded(members), strict=True):
                rows[places[ids]] = row
        weights = [self.tokenizer.num_own(piece) for _, piece in pieces]
        return average(rows, weights, [owner for owner, _ in pieces], len(texts)).astype(np.float32)

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than the model reads."""
        return self.tokenizer.num_cut(texts)

    def unknown_words(self, text: str) -> dict[str, list[str]]:
        """What of a text is not read: pieces that its tokenizer has no token for, and what is beyond the context."""
        return self.tokenizer.unknown_words(text)

    def _embedded(self, token_ids: Sequence[tuple[int, ...]]) -> np.ndarray:
        """b texts as token ids, the longest first -> (b, d) float32."""
        length = len(token_ids[0]) if may_be_shorter(self.model_cfg) else self.tokenizer.context_length
        ids = self.tokenizer.padded(token_ids, length)
        if self.network is not None:
            return self.network.run(text=ids)
        tower = self.tower  # which says so if torch is missing
        import torch
        from torch.nn.functional import normalize

        ids_bt = torch.from_numpy(ids)
        try:
            with torch.inference_mode():
                tower = for_length(tower, length)
                rows_bd: Tensor = normalize(tower(ids_bt.to(tower.positional_embedding.device)).float(), dim=-1)
        except (IndexError, RuntimeError) as error:
            raise InputError(f"{self.folder}: its tokenizer and its weights do not go together: {error}. Make the export again") from None
        return rows_bd.cpu().numpy()

    @cached_property
    def tower(self) -> Any:
        """The text tower of open_clip, in evaluation mode on its device."""
        with needing("train", _WHAT, NO_ONNX):
            import torch
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        path = self.folder / MODEL
        with reading(path, SafetensorError):
            state = load_file(path)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        model = build_tower(self.model_cfg, "text", self.folder, shapes)
        model.load_state_dict(state)
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return model.to(self.device or accelerator or "cpu").eval()

    def _files(self) -> Mapping[str, bytes | Path]:
        return {name: self.folder / name for name in (MODEL, TOKENIZER) if (self.folder / name).is_file()}

    def _settings(self) -> Mapping[str, Any]:
        return {"model": dict(self.model_cfg), "tokenizer": dict(self.tokenizer.settings)}

    def _counts(self) -> Mapping[str, int]:
        return {"dim": self.dim}

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a box that `save` wrote. InputError if it is not one."""
        manifest = open_box(Path(path), cls)
        space = cls(Path(path), manifest.config["model"], manifest.config["tokenizer"], origin=origin_of(manifest))
        return space.run_by(network_in(space.folder, {KIND: manifest.fingerprint}, space.dim))._loaded_from(manifest)
