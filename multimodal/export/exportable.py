"""What an export takes from a run, and why a run cannot be exported. Used by `multimodal export`, and by `fit` before its first step.

    check_exportable(image_tower, target_side, image_column, target_column)     # InputError with the reason

An export holds `objective.output(head(trunk(picture)))`, and a text space to embed queries: that of the text column, with the layers that
the run trained on top of it, or the space that a text tower makes from itself (`as_space`). For one that
labels or pictures alone taught it is `NoTexts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.objectives import LabelObjective, Objective, PretextObjective, PytorchMetricLearning
from multimodal.pictures.preprocessing import height_width
from multimodal.shards.columns import Column
from multimodal.text import TextSpace
from multimodal.text.encoder import Projection
from multimodal.towers import Head, ImageTower, TextTower, Trunk

NUM_PROBED = 8
TOLERANCE = 1e-4
"""Between a module and what an export makes from it, in float32."""


@runtime_checkable
class ReadsQueries(Protocol):
    """A target side that reads texts itself, and can be saved as a text space."""

    def as_space(self, folder: Path) -> TextSpace:
        """The space whose vectors are those of forward, up to length. folder: empty; it exists until the space has been saved."""
        ...


def check_exportable(image_tower: nn.Module, target_side: nn.Module | None, image: Column | None, target: Column | None) -> None:
    """InputError, with the reason, if a run with these parts could be trained but not exported.

    target_side: None for a run that labels or pictures alone taught, whose export reads no texts.
    image, target: the columns that the two sides of its pairs are read from; None for pixels and for captions.
    """
    if image is None:
        trunk_and_head(image_tower)
    else:
        check_made_by_trunk(image)
    if target_side is None or isinstance(target_side, ReadsQueries):
        return
    if isinstance(target_side, TextTower):
        layers_of_tower(target_side)
    elif target is None:
        raise InputError(
            f"its targets are not a column and its target side {_name(target_side)} has no `as_space`, so nothing could read queries. Use "
            "multimodal.towers.TextTower, or give it as_space(folder) -> TextSpace"
        )
    elif "text-space" not in target.manifest.made_from:
        raise InputError(
            f"{target.path}: was not made by a text space, so nothing could read queries. Make it with: data-prep make-columns"
        )
    else:
        layers_of(target_side, target.dim)


def check_made_by_trunk(column: Column) -> None:
    """InputError if no network leads from pictures to a feature column."""
    if column.manifest.config.get("trunk") is None or column.manifest.made_from.get("trunk") is None:
        raise InputError(
            f"{column.path}: was not made by a trunk, so no network leads from pictures to it. Make features with: multimodal embed"
        )


def trunk_and_head(tower: nn.Module) -> tuple[Trunk, nn.Module]:
    """The trunk and the head of an image tower; InputError if it does not have them, or does more than these two."""
    trunk, head = getattr(tower, "trunk", None), getattr(tower, "head", None)
    if not isinstance(trunk, Trunk) or not isinstance(head, nn.Module):
        raise InputError(
            f"its image tower {_name(tower)} has no `trunk` and `head` (see multimodal.towers.ImageTower), and an export holds these two"
        )
    trunk.recipe  # noqa: B018  (raises if a custom trunk does not keep its arguments)
    if type(tower).forward is not ImageTower.forward:
        size, was_training = height_width(trunk.preprocessing.size), tower.training
        pictures = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            tower.eval()
            given, made = tower(pictures.to(trunk.mean.device)), head(trunk(pictures.to(trunk.mean.device)))
        tower.train(was_training)
        if given.shape != made.shape or not torch.allclose(given, made, atol=TOLERANCE, rtol=TOLERANCE):
            raise InputError(
                f"its image tower {_name(tower)} gives other vectors than head(trunk(picture)), and an export holds only these two. Move "
                "what else it does into the trunk, the head or the objective's output"
            )
    return trunk, head


def layers_of(target_side: nn.Module, dim: int) -> list[Projection]:
    """A target side over the rows (n, dim) of a text space, as affine layers with GELU between them; [] for the identity.

    InputError if it is anything else: search computes it without torch.
    """
    layers: list[tuple[Tensor, Tensor]] = []
    if isinstance(target_side, nn.Linear):
        bias: Tensor | None = target_side.bias
        layers = [(target_side.weight.detach(), torch.zeros(target_side.out_features) if bias is None else bias.detach())]
    elif isinstance(target_side, Head):
        try:
            layers = target_side.as_layers()
        except ValueError as error:
            raise InputError(f"its target side cannot be exported: {error}. Train it with activation: null") from None
    if type(target_side) not in (nn.Linear, nn.Identity, Head) and not _agrees(target_side, layers, dim):
        raise InputError(
            f"its target side is a {_name(target_side)}, which cannot embed queries. Use torch.nn.Linear, a multimodal.towers.Head, a "
            "multimodal.towers.TextTower, or a class of your own with as_space(folder) -> TextSpace"
        )
    return [Projection(weight.float().cpu().numpy(), bias.float().cpu().numpy()) for weight, bias in layers]


def layers_of_tower(tower: TextTower) -> list[Projection]:
    """What a text tower has on top of its encoder; InputError if its head cannot be exported."""
    return [] if tower.head is None else layers_of(tower.head, tower.head.dim_in)


def _agrees(target_side: nn.Module, layers: list[tuple[Tensor, Tensor]], dim: int) -> bool:
    """Whether it gives the same as the layers, up to length, on random rows."""
    place = next((tensor.device for tensor in target_side.state_dict().values()), torch.device("cpu"))
    rows = torch.randn(NUM_PROBED, dim, generator=torch.Generator().manual_seed(0)).to(place)
    was_training = target_side.training
    with torch.no_grad():
        target_side.eval()
        try:
            given = target_side(rows)
        except (RuntimeError, TypeError, ValueError, AttributeError):  # from a target side that does not take rows
            return False
        finally:
            target_side.train(was_training)
        made = rows
        for number, (weight, bias) in enumerate(layers):
            made = nn.functional.linear(nn.functional.gelu(made) if number else made, weight, bias)
    if not isinstance(given, Tensor) or given.shape != made.shape:
        return False
    return bool((nn.functional.cosine_similarity(given, made, dim=1) > 1 - TOLERANCE).all())


def output_alone(objective: Objective, described: dict[str, Any], ours: Mapping[str, type]) -> tuple[Objective, dict[str, Any]]:
    """An objective of this project with the same `output`, which is all that an export needs, and its description for a card.

    An objective of this project is returned as it is. A custom one can be replaced if its `output` is that of a class of this project,
    inherited or assigned (`output = Clip.output`); otherwise it is returned, and opening the export needs its package.
    ours: class path -> the objectives of this project.
    """
    if objective.is_pretext:  # its head answers questions that nobody asks an export
        return PretextObjective(), {"class_path": "multimodal.objectives.PretextObjective", "init_args": {}}
    if isinstance(objective, PytorchMetricLearning):  # opening the export must not need that library
        plain = {"class_path": "multimodal.objectives.LabelObjective", "init_args": {"normalise": objective.normalise}}
        return LabelObjective(objective.normalise), plain
    if described["class_path"] in ours:
        return objective, described
    rows = 10 * torch.randn(NUM_PROBED, NUM_PROBED, generator=torch.Generator().manual_seed(0))
    for path, twin in ours.items():
        if vars(twin).get("output") is type(objective).output:
            made: Objective = twin()
            with torch.no_grad():  # with other settings the same function may give something else
                if torch.equal(made.output(rows), objective.output(rows)):
                    return made, {"class_path": path, "init_args": {}}
    return objective, described


def project(space: TextSpace, layers: list[Projection]) -> TextSpace:
    """The space with layers on top."""
    from multimodal.text import EncoderSpace, ProjectedSpace

    if not layers:
        return space
    if len(layers) == 1 and isinstance(space, EncoderSpace) and space.projection is None:
        return space.with_projection(np.asarray(layers[0].weight), np.asarray(layers[0].bias))
    return ProjectedSpace(space, layers)


def _name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
