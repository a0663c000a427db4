"""`multimodal validate`: the figures of a run's saved weights on its validation pairs, as metrics.csv has them for that epoch.

    multimodal validate --run runs/topic
    validate(Path("runs/topic"))          # {"val/loss": ..., "val/R@10": ..., "val/chance_R@10": ..., ...}

Those pairs helped to choose the weights. To judge a run, use held-out pairs: `multimodal evaluate`.
"""

from __future__ import annotations

import json as json_of_python
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from multimodal import data, shards
from multimodal.boxes import reading
from multimodal.boxes.trust import Builder, Classes, classes_of
from multimodal.data import Colours, Mixture, Pixels, Shuffle, Side, Stream
from multimodal.errors import InputError
from multimodal.export.slots import IMAGE_TOWERS, SLOTS, TARGET_SIDES
from multimodal.export.trained import Trained
from multimodal.objectives import Objective
from multimodal.shards import SetPath, Sets, Split
from multimodal.shards.remote import RemoteShards
from multimodal.towers.text import Encoder
from multimodal.training.datamodule import PairData
from multimodal.training.module import PairModule
from multimodal.training.runs import CONFIG
from multimodal.training.surroundings import quiet
from multimodal.urls import is_url

PAIR_DATA = "multimodal.training.PairData"
SIDES: dict[type, Classes] = {
    Side: classes_of(data, Side),
    Pixels: classes_of(data, Pixels),
    Colours: classes_of(data, Colours),
    Shuffle: classes_of(data, Shuffle),
    RemoteShards: classes_of(shards, RemoteShards),
}
PLAIN = {
    "split": (Split, "multimodal.shards.Split"),
    "mixture": (Mixture, "multimodal.data.Mixture"),
    "stream": (Stream, "multimodal.data.Stream"),
}
"""Arguments that a config gives as fields, without a class path."""


def validate(
    run: Path,
    shards: SetPath | None = None,
    encoder: Encoder | None = None,
    trust: Sequence[str] = (),
    accelerator: str = "auto",
    json: bool = False,
) -> dict[str, float]:
    """Print the figures of a run's saved weights on its validation pairs, beside chance.

    It uses the best checkpoint, or the last if the run kept no best one; the figures are those of its epoch in metrics.csv.

    Args:
        run: the run's folder.
        shards: where its shard set is now; by default where it was then. A set at a URL is opened only if it is given here.
        encoder: for a run that trained a text tower on an encoder from a folder or from the hub, that encoder, as for `multimodal export`.
        trust: your own packages whose classes the run names. Their code is run.
        accelerator: cpu, gpu, or auto.
        json: print them as JSON.
    """
    with quiet(), isolate_rng(include_cuda=False):
        trained = Trained.read(run, encoder, trust)
        module = PairModule(
            trained.build("image_tower", nn.Module, IMAGE_TOWERS),
            trained.build("target_side", nn.Module, TARGET_SIDES),
            trained.build("objective", Objective, SLOTS[Objective]),
            micro_batch_size=_micro_batch_size(trained),
        )
        pairs = _pairs(trained, shards)
        pairs.prepare_for(module.image_tower)
        try:
            trainer = L.Trainer(
                accelerator=accelerator,
                devices=1,
                precision=_precision(run),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
        except (MisconfigurationException, ValueError) as error:
            raise InputError(f"{run}: {' '.join(str(error).split())}") from None
        [figures] = trainer.validate(module, datamodule=pairs, verbose=False)
    print(json_of_python.dumps(figures, indent=1) if json else "\n".join(_lines(figures)))
    return dict(figures)


def _micro_batch_size(trained: Trained) -> int | None:
    """The run's own, or none in runs of earlier releases."""
    given = trained.model.get("micro_batch_size")
    if given is not None and type(given) is not int:
        raise InputError(f"{trained.run / CONFIG}: model.micro_batch_size is {given!r}; expected a whole number or null")
    return given


def _pairs(trained: Trained, given: SetPath | None) -> PairData:
    """The run's pairs; InputError if they have changed since, or if they are at a URL that only the run names."""
    settings: dict[str, Any] = dict(trained.data)
    for name, (_, path) in PLAIN.items():
        if isinstance(settings.get(name), Mapping) and "class_path" not in settings[name]:
            settings[name] = {"class_path": path, "init_args": settings[name]}
    slots: dict[type, Classes] = {**SLOTS, **SIDES, **{kind: {path: kind} for kind, path in PLAIN.values()}}
    described = {"class_path": PAIR_DATA, "init_args": settings}
    pairs: PairData = Builder(trained.run, slots, trained.trust).build(described, PairData, {PAIR_DATA: PairData})
    if given is not None:
        pairs.source = given
    else:
        _check_is_here(trained.run, pairs.source)
    if not pairs.validation_share:
        raise InputError(f"{trained.run}: was trained with data.validation_share=0, so there are no pairs to validate on")
    for name, fingerprint in pairs.made_from().items():
        then = trained.made_from.get(name, fingerprint)
        if then != fingerprint:
            raise InputError(
                f"{trained.run}: its {name} was {then[:12]} when it was trained and is {fingerprint[:12]} now, so it cannot be validated."
                " metrics.csv has the old figures"
            )
    return pairs


def _check_is_here(run: Path, source: Sets) -> None:
    """InputError if a set is at a URL."""
    several = isinstance(source, Mapping)
    for one in source.values() if isinstance(source, Mapping) else [source]:
        url = one.url if isinstance(one, RemoteShards) else one
        if is_url(url):
            remedy = "metrics.csv has the figures" if several else f"To fetch it, add: --shards {url}"
            raise InputError(f"{run}: its pairs are at {url}, which is not fetched just because a run names it. {remedy}")


def _precision(run: Path) -> Any:
    """The run's own precision, so that the figures are exactly those of its training."""
    path = run / CONFIG
    with reading(path):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        return settings["trainer"]["precision"]


def _lines(figures: Mapping[str, float]) -> Iterator[str]:
    """Each figure, and beside it its chance level, if known."""
    for name, value in figures.items():
        if "/chance_" not in name:
            chance = figures.get(name.replace("val/", "val/chance_"))
            yield f"{name:<16}{value:>10.4g}" + (f"   (chance {chance:.4g})" if chance is not None else "")
