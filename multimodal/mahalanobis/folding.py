"""A fitted metric as a part of an export: its map becomes the last step of the head, and of what reads queries.

Stores compare by cosine, and the cosine of Lx and Ly is that of the metric L'L. So index, search, serve and evaluate need no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.export.model import Export, export_with_head
from multimodal.mahalanobis.choosing import Chosen
from multimodal.text import EncoderSpace, NoTexts, ProjectedSpace, TextSpace
from multimodal.text.encoder import Projection
from multimodal.towers import Head

NUM_PROBED = 8


def check_foldable(opened: Export) -> None:
    """InputError, with the reason, if a linear map of the head's output is not one of the export's vectors."""
    network = opened.network
    if not (isinstance(network.head, nn.Identity | nn.Linear) or (isinstance(network.head, Head) and network.head.activation is None)):
        raise InputError(f"{opened.path}: its head is no linear map at its end, so no metric can be folded into it")
    rows = torch.randn(NUM_PROBED, network.of_features(torch.zeros(1, network.trunk.dim).to(opened.device)).shape[1])
    with torch.inference_mode():
        given = network.objective.output(rows.to(opened.device)).cpu()
    if given.shape != rows.shape or not (nn.functional.cosine_similarity(given, rows, dim=1) > 1 - 1e-5).all():
        raise InputError(
            f"{opened.path}: its vectors are not those of its head but {type(network.objective).__name__}'s output of them, such as shares "
            "of topics, which a linear map does not keep. Fit a metric on an export of a contrastive run, or of one that labels taught"
        )


def fold(opened: Export, chosen: Chosen, figures: Mapping[str, Any], output: Path) -> Path:
    """Make an export whose vectors are the mapped ones of another, or the same ones if no metric was better; with the threshold, if any."""
    head, described, query = opened.network.head, opened.card.architecture["head"], opened.query
    if chosen.map is not None:
        head, described = _folded(head, described, chosen.map, -chosen.map @ chosen.centre)
        query = NoTexts(len(chosen.map)) if isinstance(query, NoTexts) else mapped(query, chosen.map)
    same = {} if chosen.same is None else asdict(chosen.same)
    return export_with_head(opened, head, described, query, {**opened.card.figures, **figures}, same, output)


def mapped(space: TextSpace, weight: np.ndarray) -> TextSpace:
    """The space whose vectors are the map of another's. weight: (k, d)."""
    if isinstance(space, ProjectedSpace):
        *first, last = space.layers
        return ProjectedSpace(space.space, [*first, Projection(_product(weight, last.weight), _product(weight, last.bias))])
    if isinstance(space, EncoderSpace) and space.projection is not None:
        return space.with_projection(_product(weight, space.projection.weight), _product(weight, space.projection.bias))
    return ProjectedSpace(space, [Projection(weight.astype(np.float32), np.zeros(len(weight), np.float32))])


def _folded(head: nn.Module, described: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray) -> tuple[nn.Module, dict[str, Any]]:
    """The head with a map (k, d) and a bias (k,) after it, and its description."""
    num = len(weight)
    if isinstance(head, Head):
        arguments = {**described["init_args"], "dim_out": num}
        made = Head(**{**arguments, "activation": None})
        kept = {name: tensor for name, tensor in head.state_dict().items() if not name.startswith("output.")}
        made.load_state_dict({**kept, **_composed("output.", head.output, weight, bias)})
        return made, {"class_path": described["class_path"], "init_args": arguments}
    linear = head if isinstance(head, nn.Linear) else None
    num_in = weight.shape[1] if linear is None else linear.in_features
    layer = nn.Linear(num_in, num)
    layer.load_state_dict(_composed("", linear, weight, bias))
    return layer, {"class_path": "torch.nn.Linear", "init_args": {"in_features": num_in, "out_features": num}}


def _composed(prefix: str, layer: nn.Linear | None, weight: np.ndarray, bias: np.ndarray) -> dict[str, Tensor]:
    """Weight and bias of the map after an affine layer; of the map alone without one."""
    if layer is not None:
        given: Tensor | None = layer.bias
        offset = np.zeros(layer.out_features) if given is None else given.detach().double().cpu().numpy()
        bias = weight @ offset + bias
        weight = weight @ layer.weight.detach().double().cpu().numpy()
    return {f"{prefix}weight": torch.from_numpy(weight).float(), f"{prefix}bias": torch.from_numpy(bias).float()}


def _product(weight: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (weight @ other.astype(np.float64)).astype(np.float32)
