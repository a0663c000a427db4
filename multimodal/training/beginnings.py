"""Initial weights of a run: of an earlier run or an export (`multimodal fit ... --init_from runs/topic`), or of a CLIP model (`--clip`).

weights = beginning(Path("runs/topic"))
weights.fill(module, parts=None)          # all of the module's tensors, or those of some parts: ["image_tower.trunk"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from multimodal.boxes import MANIFEST, box_file, fingerprint_file, read_any_manifest, reading
from multimodal.errors import InputError
from multimodal.export.hub import local
from multimodal.export.model import WEIGHTS
from multimodal.export.run import CHECKPOINTS
from multimodal.export.trained import read_checkpoint
from multimodal.objectives.contrastive import Clip, SigLip, begin_at
from multimodal.towers import ClipTextTower, ClipTrunk
from multimodal.training.module import PairModule


@dataclass(frozen=True, slots=True)
class Beginning:
    """Tensors by their names in a `PairModule`. source: the file that they come from."""

    source: Path
    state: Mapping[str, Tensor]

    def fill(self, module: nn.Module, parts: Sequence[str] | None = None) -> None:
        """Set the module's tensors, all or those whose names begin with a part's; InputError if one is missing or has another shape.

        Other tensors keep their values.
        """
        wanted = module.state_dict()
        for part in parts or []:
            if not any(_lies_in(name, part) for name in wanted):
                raise InputError(f"init_parts: the run has no tensors called {part}. It has: {', '.join(_parts(wanted))}")
        taken = {name: tensor for name, tensor in wanted.items() if parts is None or any(_lies_in(name, part) for part in parts)}
        unfit = self._unfit(taken)
        if unfit:
            name = unfit[0]
            found = f"{tuple(self.state[name].shape)}" if name in self.state else "not there"
            fitting = [part for part in _parts(wanted) if not any(_lies_in(one, part) for one in unfit)]
            remedy = f"Name those that it has: --init_parts '[{', '.join(fitting)}]'" if fitting else "It has another architecture"
            if self.source.name == WEIGHTS and any(isinstance(part, ClipTextTower) for part in module.modules()):
                remedy = "For both towers of an export of a CLIP model: multimodal to-open-clip, and its folder as --clip. " + remedy
            raise InputError(
                f"{self.source}: {len(unfit)} of {len(taken)} tensors do not fit, the first {name}, which is {found} and "
                f"should be {tuple(taken[name].shape)}. {remedy}"
            )
        module.load_state_dict({name: self.state[name] for name in taken}, strict=False)

    def _unfit(self, wanted: Mapping[str, Tensor]) -> list[str]:
        """The names of wanted tensors that are missing or have another shape."""
        return [name for name, tensor in wanted.items() if name not in self.state or self.state[name].shape != tensor.shape]


def source_of(box: Path) -> Path:
    """The file with the weights: a run's best checkpoint, or its last if it kept no best one; an export's tensors.

    box: its folder, or hf://user/name, an export that is fetched.
    """
    box = local(box)
    if (Path(box) / WEIGHTS).is_file():
        return box_file(Path(box), WEIGHTS)
    found = next((Path(box) / name for name in CHECKPOINTS if (Path(box) / name).is_file()), None)
    if found is None:
        kind = f" (it is a box of kind {read_any_manifest(box).kind})" if (Path(box) / MANIFEST).is_file() else ""
        raise InputError(f"--init_from {box}: is neither a run, which has {CHECKPOINTS[1]}, nor an export, which has {WEIGHTS}{kind}")
    return found


def beginning(box: Path, has_trunk: bool = True) -> Beginning:
    """The weights of a run or an export; has_trunk: whether the new run's image tower has a trunk, or is only a head over a column."""
    source = source_of(box)
    if source.name != WEIGHTS:
        return Beginning(source, read_checkpoint(source)[0])
    with reading(source, SafetensorError):
        state = load_file(source)
    return Beginning(source, {_in_run(name, has_trunk): tensor for name, tensor in state.items()})


def name_clip(model: Any, named: str) -> None:
    """Write the name of a CLIP model into the settings of those towers that name none; InputError if there are none."""
    towers = [model.image_tower.get("init_args", {}).get("trunk"), model.target_side]
    settings = [tower.get("init_args") for tower in towers if tower is not None]
    unnamed = [one for one in settings if one is not None and "model" in one and one.model is None]
    if not unnamed:
        raise InputError(
            f"--clip {named}: the recipe has no tower of a CLIP model that is without a name. Take one of experiment/clip_*.yaml, or leave "
            "--clip out"
        )
    for one in unnamed:
        one.model = named


ClipTower = ClipTrunk | ClipTextTower


def clip_towers(module: nn.Module) -> dict[str, ClipTower]:
    """The towers of CLIP models that a `PairModule` has, by the part that they are in: "image_tower" or "target_side"."""
    return {name.partition(".")[0]: tower for name, tower in module.named_modules() if isinstance(tower, ClipTower)}


def begin_where_towers_did(module: PairModule) -> str | None:
    """If both towers are of one CLIP model, the objective begins with that model's scale and bias.

    Returns a line that says so if the model was trained with the other objective of CLIP and SigLIP; else None.
    """
    found = [tower.pairing for tower in clip_towers(module).values()]
    if len(found) != 2 or found[0] != found[1]:
        return None
    begin_at(module.objective, found[0].log_scale, found[0].bias)
    own = Clip if found[0].bias is None else SigLip
    if not isinstance(module.objective, Clip | SigLip) or isinstance(module.objective, own):
        return None
    return (
        f"this model {'has a' if own is SigLip else 'has no'} bias, so it was trained with {own.__name__}, and the run's objective is "
        f"{type(module.objective).__name__}. For the model's own: --model.objective multimodal.objectives.{own.__name__}"
    )


def tuned_clip(module: PairModule) -> str | None:
    """The name of a trained CLIP model of which the run moves weights; None if there is none."""
    for tower in clip_towers(module).values():
        if tower.found.checkpoint is not None and any(parameter.requires_grad for parameter in tower.parameters()):
            return tower.found.name
    return None


def fingerprint_of(box: Path) -> str:
    """The fingerprint of a run's initial weights."""
    return fingerprint_file(source_of(box))


def _in_run(name: str, has_trunk: bool) -> str:
    """An export's tensor's name in a run: `head.output.weight` is `image_tower.head.output.weight`, or `image_tower.output.weight`."""
    part, _, rest = name.partition(".")
    if part == "objective":
        return name
    return f"image_tower.{rest}" if part == "head" and not has_trunk else f"image_tower.{name}"


def _lies_in(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def _parts(names: Mapping[str, Tensor]) -> list[str]:
    """`image_tower.trunk`, `image_tower.head`, `target_side`, `objective`: those that exist."""
    return list(dict.fromkeys(".".join(name.split(".")[: 2 if name.startswith("image_tower.") else 1]) for name in names))
