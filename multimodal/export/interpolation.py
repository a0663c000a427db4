"""Weights between those of an export and those of a run that was trained further from it: WiSE-FT (Wortsman et al., 2022).

    multimodal export --run runs/tuned --output exports/between --interpolate exports/pretrained --alpha 0.5

"Robust fine-tuning of zero-shot models": the weights are (1 - alpha) * theta_0 + alpha * theta_1, with theta_0 the base's and theta_1 the
run's. A model between the two is often better on the new data than either, and keeps more of what the base does on other data.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from multimodal.boxes import Manifest, link_or_copy, reading
from multimodal.errors import InputError
from multimodal.export.exportable import TOLERANCE
from multimodal.pictures.preprocessing import height_width
from multimodal.text import EncoderSpace, OpenClipSpace, ProjectedSpace, TextSpace
from multimodal.text.encoder import CONFIG, MODEL, TOKENIZER, Projection

if TYPE_CHECKING:
    from multimodal.export.model import Export, ExportNetwork

BASE = "base"
PROBES = ("a dog on the beach", "Zwölf Boxkämpfer: 34 + 5,678 = 5712!", "snow", "the " * 600)
"""Texts by which two encoders are compared: letters, digits, signs, and more words than encoders read."""


def between(base: Mapping[str, Tensor], run: Mapping[str, Tensor], alpha: float, where: str) -> dict[str, Tensor]:
    """(1 - alpha) * base + alpha * run for each tensor, in float64 and rounded once; the run's names.

    At 0 and 1, and where both are equal, the tensors of one side, to the bit. Tensors of integers, such as the count of batches of a
    batch norm, are the run's. where: what the tensors belong to. InputError names the first tensor that only one side has, or that has
    another shape.
    """
    made = {name: tensor for name, tensor in run.items() if not tensor.is_floating_point()}
    begun, trained = ({name: tensor for name, tensor in side.items() if tensor.is_floating_point()} for side in (base, run))
    for name in dict.fromkeys([*trained, *begun]):
        one, other = begun.get(name), trained.get(name)
        if one is None or other is None or one.shape != other.shape:
            raise InputError(
                f"{where}: {name} is {_shape(one)} in the base and {_shape(other)} in the run. Only weights of the same architecture can "
                "be interpolated: give as --interpolate the export that the run began from, or another of its architecture"
            )
        made[name] = _between(one, other, alpha)
    return made


def _between(base: Tensor, run: Tensor, alpha: float) -> Tensor:
    dtype = torch.promote_types(base.dtype, run.dtype)
    if alpha in (0, 1) or torch.equal(base, run):  # a frozen trunk keeps its fingerprint, by which features on disk are known
        return (base if alpha == 0 else run).to(dtype)
    return ((1 - alpha) * base.double() + alpha * run.double()).to(dtype)


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(tuple(tensor.shape))


@dataclass(frozen=True, slots=True)
class Interpolation:
    """What `--interpolate` and `--alpha` ask for. base: an export that is open on the CPU. alpha: the weight of the run, in [0, 1]."""

    base: Export
    alpha: float

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha={self.alpha} must be from 0, the base's weights, to 1, the run's")

    def network(self, run: ExportNetwork) -> ExportNetwork:
        """A copy of the run's network, which is on the CPU, with the weights between the base's and its own.

        InputError if it prepares pictures in another way than the base, has other tensors, or gives other vectors with the base's weights.
        """
        where, base = str(self.base.path), self.base.network
        preprocessing = run.trunk.preprocessing
        if self.base.preprocessing != preprocessing:
            then, now = (asdict(one) for one in (self.base.preprocessing, preprocessing))
            name = next(name for name in now if then[name] != now[name])
            raise InputError(
                f"{where}: prepares pictures with {name} {then[name]}, and the run with {now[name]}. Train the run with the base's, in "
                "its trunk or in data.image"
            )
        begun, trained, network = base.state_dict(), run.state_dict(), copy.deepcopy(run)
        network.load_state_dict(between(begun, trained, 0, where))
        if not _same_vectors(network, base, height_width(preprocessing.size)):
            raise InputError(
                f"{where}: its tensors have the names and shapes of the run's, but the run's network gives other vectors with them. Its "
                "head or its objective has other settings; compare `architecture` in the manifest.json with the run's config.yaml"
            )
        network.load_state_dict(between(begun, trained, self.alpha, where))
        return network

    def query(self, run: TextSpace, scratch: Path) -> TextSpace:
        """The query side between the base's and the run's. scratch: a folder that exists until the space has been saved.

        What was trained is interpolated: an encoder, and the layers on top of a space as the export has them, each with its standardisation
        folded in. A space that was not trained must be the same in both: InputError, as for other shapes or another tokenizer.
        """
        return _space_between(self.base.query, run, self.alpha, str(self.base.path / "query"), scratch)

    def describe(self, manifest: Manifest) -> Manifest:
        """The manifest of an export of the run, as that of the interpolated one: the run's figures were not measured with these weights."""
        noted = {BASE: self.base.fingerprint, "alpha": float(self.alpha)}
        return replace(
            manifest,
            config={**manifest.config, "figures": {}, "interpolation": noted},
            made_from={**manifest.made_from, BASE: self.base.fingerprint},
        )


def _same_vectors(network: nn.Module, base: nn.Module, size: tuple[int, int]) -> bool:
    """Whether two networks give the same vectors for random pictures."""
    pictures = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = network(pictures), base(pictures)
    return one.shape == other.shape and torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)


def _space_between(base: TextSpace, run: TextSpace, alpha: float, where: str, scratch: Path) -> TextSpace:
    if base.fingerprint == run.fingerprint:
        return run
    if isinstance(base, ProjectedSpace) and isinstance(run, ProjectedSpace):
        below = _space_between(base.space, run.space, alpha, where, scratch)
        layers = between(_tensors(*base.layers), _tensors(*run.layers), alpha, where)
        return ProjectedSpace(below, _layers(layers))
    if isinstance(base, EncoderSpace) and isinstance(run, EncoderSpace):
        return _encoder_between(base, run, alpha, where, scratch)
    if isinstance(base, OpenClipSpace) and isinstance(run, OpenClipSpace):
        return _clip_between(base, run, alpha, where, scratch)
    raise InputError(
        f"{where}: reads queries by the {type(base).__name__} {base.fingerprint[:12]}, and the run by the {type(run).__name__} "
        f"{run.fingerprint[:12]}. Only trained layers and trained encoders are interpolated; below them, both must have the same text space"
    )


def _encoder_between(base: EncoderSpace, run: EncoderSpace, alpha: float, where: str, scratch: Path) -> EncoderSpace:
    if base.max_tokens != run.max_tokens:
        raise InputError(f"{where}: reads {base.max_tokens} tokens of a text, and the run {run.max_tokens}. Train with the same max_tokens")
    if base.usage != run.usage:
        raise InputError(f"{where}: reads texts with {base.usage}, and the run with {run.usage}. Train with the same pooling and prompt")
    usage = run.usage.pooling, run.usage.prompt
    begun, trained = (_tensors(*([] if space.projection is None else [space.projection])) for space in (base, run))
    projection = next(iter(_layers(between(begun, trained, alpha, where))), None)
    begun, trained = (_read_encoder(space.folder) for space in (base, run))
    if begun.keys() == trained.keys() and all(torch.equal(begun[name], tensor) for name, tensor in trained.items()):
        folder = run.folder
    else:
        if base.origin.config and run.origin.config:
            raise InputError(
                f"{where}: reads queries by the encoder {dict(base.origin.config)}, and the run by {dict(run.origin.config)}. Neither was "
                "trained here, so there is nothing between them: both must have the same encoder"
            )
        folder, check = scratch / "interpolated", scratch / "base"
        _write_encoder(folder, between(begun, trained, alpha, where), run.folder)
        _write_encoder(check, between(begun, trained, 0, where), run.folder)
        one, other = (EncoderSpace(each, None, run.max_tokens, "cpu", run.origin, *usage).embed(PROBES) for each in (base.folder, check))
        if not np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE):
            raise InputError(
                f"{where}: its encoder's tensors have the names and shapes of the run's, but the run's encoder gives other vectors with "
                f"them. Compare {CONFIG} and {TOKENIZER} with those that the run was trained on"
            )
    return EncoderSpace(folder, projection, run.max_tokens, run.device, run.origin, *usage, long_texts=run.long_texts)


def _clip_between(base: OpenClipSpace, run: OpenClipSpace, alpha: float, where: str, scratch: Path) -> OpenClipSpace:
    if (base.model_cfg, base.tokenizer) != (run.model_cfg, run.tokenizer):
        raise InputError(
            f"{where}: is the text side of another CLIP model than the run's, or has another tokenizer. Give the run's own base"
        )
    folder = scratch / "interpolated"
    folder.mkdir()
    tensors = between(_read_encoder(base.folder), _read_encoder(run.folder), alpha, where)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / MODEL)
    if run.tokenizer.content is not None:
        link_or_copy(run.folder / TOKENIZER, folder / TOKENIZER)
    return OpenClipSpace(folder, run.model_cfg, run.tokenizer.settings, run.device, run.origin)


def _read_encoder(folder: Path) -> dict[str, Tensor]:
    with reading(folder / MODEL, SafetensorError):
        return load_file(folder / MODEL)


def _write_encoder(folder: Path, tensors: Mapping[str, Tensor], like: Path) -> None:
    """An encoder's folder with these weights, and the settings and tokenizer of another."""
    for name in (CONFIG, TOKENIZER):
        link_or_copy(like / name, folder / name)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / MODEL, {"format": "pt"})


def _tensors(*layers: Projection) -> dict[str, Tensor]:
    """Layers as tensors by name; copies, since those of an opened space are read-only."""
    named: dict[str, Any] = {f"{name}.{number}": getattr(layer, name) for number, layer in enumerate(layers) for name in ("weight", "bias")}
    return {name: torch.tensor(np.asarray(array)) for name, array in named.items()}


def _layers(tensors: Mapping[str, Tensor]) -> list[Projection]:
    return [Projection(tensors[f"weight.{n}"].numpy(), tensors[f"bias.{n}"].numpy()) for n in range(len(tensors) // 2)]
