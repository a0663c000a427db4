"""The towers of CLIP models (CLIP, SigLIP, CoCa, MobileCLIP ... of open_clip): as they are in an export, and to train.

    trunk = ClipTrunk("ViT-B-32/laion2b_s34b_b79k", tuning=LockedNorms())     # or NAME/FILE, or a folder
    text = ClipTextTower("ViT-B-32/laion2b_s34b_b79k", tuning=Locked())
    trunk(pictures), text(["a dog on the beach"])                             # (b, d) each, compared by cosine

`multimodal export` makes the same kind of export of a run with these two as it makes of a pretrained model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from multimodal.boxes import atomic_write
from multimodal.errors import InputError
from multimodal.text.clip import OpenClipSpace, build_tower, check_model, for_length, may_be_shorter
from multimodal.text.encoder import MODEL, TOKENIZER
from multimodal.text.long_texts import LongTexts, average_tensors
from multimodal.text.space import Origin
from multimodal.towers.pretrained import ClipModel, find_model, preprocessing_of
from multimodal.towers.trunk import Trunk, is_known
from multimodal.towers.tuning import Locked, Tuning, hold_still
from multimodal.towers.weights import NoWeights


class OpenClipTrunk(Trunk):
    """The image tower of an open_clip model, its projection included; its weights are random until a state dict fills them.

    name: of the model, for people. model: embed_dim, quick_gelu and vision_cfg, as in the `model_cfg` of an open_clip_config.json.
    preprocess: as its `preprocess_cfg`; what it leaves out is as open_clip has it by default. frozen: see `Trunk`.
    """

    def __init__(self, name: str, model: Mapping[str, Any], preprocess: Mapping[str, Any], frozen: bool = True) -> None:
        super(Trunk, self).__init__()
        self.name = self.architecture = name
        self.model_cfg = model
        self.preprocess = preprocess
        self.weights = NoWeights()
        self.frozen = frozen
        self.num_maps = 0
        check_model(model, "visual", name)
        timm_name = model["vision_cfg"].get("timm_model_name")
        if timm_name is not None and not is_known(str(timm_name)):
            raise InputError(f"{name}: timm has no architecture {timm_name!r}, which this model uses. Use a release of timm that has it")
        self.model = build_tower(model, "visual", name).to(memory_format=torch.channels_last)
        self.dim = int(model["embed_dim"])
        self.prepare(preprocessing_of(self.model.image_size, preprocess, name))
        if frozen:
            self.model.requires_grad_(False)
            self.model.eval()

    @property
    def has_fixed_size(self) -> bool:
        """True: its positions are those of one size."""
        return True

    @property
    def recipe(self) -> dict[str, Any]:
        """The class path and arguments that recreate it; JSON values."""
        arguments = {"name": self.name, "model": self.model_cfg, "preprocess": self.preprocess, "frozen": self.frozen}
        return {"class_path": "multimodal.towers.OpenClipTrunk", "init_args": arguments}


class ClipTrunk(OpenClipTrunk):
    """The image tower of a CLIP model, to train: `ImageTower(ClipTrunk(...))` is the whole tower; a head on top is possible too.

    model: `NAME/TAG`, `NAME/FILE` or a folder, see `find_model`; null if `multimodal fit --clip` names it.
    tuning: which weights move; null: all. weights: false for random ones; `model` may then be `NAME` alone.
    checkpointing: compute activations again in the backward pass instead of keeping them (open_clip's `set_grad_checkpointing`).
    """

    def __init__(self, model: str | None = None, tuning: Tuning | None = None, weights: bool = True, checkpointing: bool = False) -> None:
        found = _found(model, weights)
        super().__init__(found.name, found.settings("visual"), found.preprocess, frozen=isinstance(tuning, Locked))
        self.found, self.pairing = found, found.pairing()
        self.tuning = tuning
        if weights:
            self.model.load_state_dict(found.read().visual.state_dict())
        _prepare(self.model, tuning, checkpointing, f"the image tower of {self.name}")

    def train(self, mode: bool = True) -> ClipTrunk:
        super().train(mode)
        if self.tuning is not None:
            hold_still(self.tuning.still(self.model))
        return self

    def stored(self) -> OpenClipTrunk:
        """As an export has it: the same network on the CPU, with what was learned merged into its own weights."""
        trunk = OpenClipTrunk(self.name, self.model_cfg, self.preprocess)
        trunk.model.load_state_dict(_merged(self.model, self.tuning))
        trunk.prepare(self.preprocessing)
        return trunk


class ClipTextTower(nn.Module):
    """The text tower of a CLIP model, to train. A longer text than its context is cut there, as open_clip does.

    model, tuning, weights, checkpointing: see `ClipTrunk`. long_texts: "pool" to read a longer text in pieces whose unit vectors are
    averaged (`LongTexts`).
    """

    def __init__(
        self,
        model: str | None = None,
        tuning: Tuning | None = None,
        weights: bool = True,
        checkpointing: bool = False,
        long_texts: LongTexts = "cut",
    ) -> None:
        super().__init__()
        self.found = _found(model, weights)
        self.pairing = self.found.pairing()
        self.tuning = tuning
        self.settings = self.found.settings("text")
        self.long_texts = long_texts
        self.tokenizer = self.found.tokenizer.with_long_texts(long_texts)
        self.dim = int(self.settings["embed_dim"])
        self.network = build_tower(self.settings, "text", self.found.name)
        if weights:
            self.network.load_state_dict(self.found.read().text.state_dict())
        _prepare(self.network, tuning, checkpointing, f"the text tower of {self.found.name}")

    def forward(self, texts: Sequence[str]) -> Tensor:
        """b strings. Returns (b, d); an empty text has a row of zeros, which objectives leave out."""
        owned = [(owner, piece) for owner, text in enumerate(texts) for piece in self.tokenizer.pieces(text)]
        tokens = [piece for _, piece in owned]
        length = self.tokenizer.context_length
        if may_be_shorter(self.settings):
            length = max((len(one.ids) for one in tokens), default=length)
        place = next(self.network.parameters()).device
        ids_bt = torch.from_numpy(self.tokenizer.padded([one.ids for one in tokens], length)).to(place)
        is_empty = torch.tensor([one.is_empty for one in tokens], device=place)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not isinstance(self.tuning, Locked)):
            rows_bd: Tensor = for_length(self.network, length)(ids_bt)
        rows_bd = rows_bd.masked_fill(is_empty[:, None], 0.0)
        if len(owned) == len(texts):
            return rows_bd
        return average_tensors(rows_bd, [self.tokenizer.num_own(one) for one in tokens], [owner for owner, _ in owned], len(texts))

    def train(self, mode: bool = True) -> ClipTextTower:
        super().train(mode)
        if self.tuning is not None:
            hold_still(self.tuning.still(self.network))
        return self

    def num_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than what is read of them."""
        return self.tokenizer.num_cut(texts)

    def as_space(self, folder: Path, origin: Origin = Origin()) -> OpenClipSpace:  # noqa: B008 (frozen)
        """The space whose vectors are those of forward, up to length. folder: empty; it exists until the space has been saved."""
        state = {name: tensor.contiguous() for name, tensor in _merged(self.network, self.tuning).items()}
        save_file(state, folder / MODEL)
        if self.tokenizer.content is not None:
            with atomic_write(folder / TOKENIZER) as file:
                file.write(self.tokenizer.content.encode())
        return OpenClipSpace(folder, self.settings, self.tokenizer.settings, origin=origin)


def _found(model: str | None, weights: bool) -> ClipModel:
    if model is None:
        raise InputError(
            "no CLIP model is named. Name one with --clip: NAME/TAG, such as ViT-B-32/laion2b_s34b_b79k, NAME/FILE, or a folder of "
            "open_clip; for random weights, NAME"
        )
    return find_model(model, weights)


def _prepare(network: Any, tuning: Tuning | None, checkpointing: bool, where: str) -> None:
    """Lock what must not move, and set checkpointing; InputError if the network cannot have one of them."""
    if checkpointing:
        blocks = [module for module in network.modules() if hasattr(module, "grad_checkpointing")]
        network.set_grad_checkpointing(True)
        if not any(block.grad_checkpointing for block in blocks):
            raise InputError(f"{where}: open_clip has no gradient checkpointing for it. Set checkpointing: false")
    if tuning is not None:
        tuning.prepare(network, where)
        network.train()
        hold_still(tuning.still(network))


def _merged(network: nn.Module, tuning: Tuning | None) -> dict[str, Tensor]:
    """The tensors of the network, on the CPU, with what was learned merged into them."""
    if tuning is not None:
        network = copy.deepcopy(network)
        tuning.merge(network)
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
