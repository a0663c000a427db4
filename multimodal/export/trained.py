"""What a run has trained, for an export: its settings and a checkpoint, its trunk and head, and what reads queries.

    trained = Trained.read("runs/topic", encoder=None, trust=())
    tower = image_tower_of(trained, given=None)                 # TrainedTower(trunk, head, head_config)

A run is data here: a class that it names is built only if `multimodal.export.slots` lists it or the user trusts its package.
"""

from __future__ import annotations

import csv
import json
import pickle
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from multimodal import shards, towers
from multimodal.boxes import is_whole, read_manifest, reading
from multimodal.boxes.trust import Builder, Classes, classes_of
from multimodal.errors import InputError
from multimodal.export.exportable import (
    ReadsQueries,
    check_exportable,
    check_made_by_trunk,
    layers_of,
    layers_of_tower,
    project,
    trunk_and_head,
)
from multimodal.export.kept import from_run
from multimodal.export.renamed import current_settings, current_tensors
from multimodal.export.run import CHECKPOINTS
from multimodal.export.slots import IMAGE_TOWERS, RUN_SLOTS, SLOTS, TARGET_SIDES, build_trunk, description
from multimodal.objectives import Objective
from multimodal.shards.columns import Column
from multimodal.shards.joined import JoinedShards
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import RemoteShards
from multimodal.text import EncoderSpace, TextSpace, open_space
from multimodal.towers import ClipTrunk, FileWeights, FolderEncoder, HubEncoder, HubWeights, Preprocessing, TextTower, Trunk, Weights
from multimodal.towers.text import Encoder
from multimodal.towers.weights import StoredWeights
from multimodal.urls import is_url

MADE_FROM = "made_from.json"
"""What a run learns from, written at its start; a finished run has it in its manifest."""


@dataclass(frozen=True)
class Trained:
    """What an export needs from a run: its resolved config and a checkpoint."""

    run: Path
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    state: Mapping[str, Tensor]
    step: int
    made_from: Mapping[str, str]
    encoder: Encoder | None
    trust: Sequence[str]

    @classmethod
    def read(cls, run: Path, encoder: Encoder | None, trust: Sequence[str]) -> Trained:
        path = Path(run) / "config.yaml"
        try:
            with reading(path):
                config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{run}: is not a run: it has no config.yaml. Make one with: multimodal fit") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: is not valid YAML: {error}") from None
        if not isinstance(config, dict) or not {"model", "data"} <= set(config):
            raise InputError(f"{path}: has no `model` and `data`; expected the config that multimodal fit writes into a run's folder")
        checkpoint_path = next((Path(run) / name for name in CHECKPOINTS if (Path(run) / name).is_file()), None)
        if checkpoint_path is None:
            raise InputError(f"{run}: has no {' and no '.join(CHECKPOINTS)}. Run it first: multimodal fit --config {path}")
        state, step = read_checkpoint(checkpoint_path)
        config = current_settings(config)
        if is_whole(run):
            made_from = read_manifest(run, kind="run").made_from
        else:
            print(f"{run}: is not finished; using {checkpoint_path.name}", file=sys.stderr)
            begun = Path(run) / MADE_FROM
            made_from = _read_made_from(begun) if begun.is_file() else {}
        model, data = (_settings(path, part, config[part]) for part in ("model", "data"))
        return cls(Path(run), model, data, state, step, made_from, encoder, trust)

    def build(self, part: str, base: type, ours: Classes) -> Any:
        """`image_tower`, `target_side` or `objective`, with the checkpoint's weights."""
        if not isinstance(self.model.get(part), Mapping):
            raise InputError(f"{self.run / 'config.yaml'}: model.{part} has no class_path")
        finish: dict[type, Callable[[Any], Any]] = {Weights: StoredWeights, Encoder: self._encoder}
        described = from_run(_with_pooling(self.model[part]), self.run, part)
        module = Builder(self.run, RUN_SLOTS, self.trust, finish).build(described, base, ours)
        return self.fill(module, part)

    @cached_property
    def image_tower(self) -> nn.Module:
        """As it was trained; only the head if the run learned from a feature column."""
        tower: nn.Module = self.build("image_tower", nn.Module, IMAGE_TOWERS)
        return tower

    @cached_property
    def reads_texts(self) -> bool:
        """Whether texts taught it, rather than labels or pictures alone."""
        objective: Objective = self.build("objective", Objective, SLOTS[Objective])
        return objective.compares_with_texts

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Adds the run's name to the reason why it cannot be exported."""
        try:
            yield
        except InputError as reason:
            raise InputError(f"{self.run}: {reason}") from None

    def _encoder(self, named: Encoder) -> Encoder:
        """The encoder that the user gave, else the one that the run names if that opens no path and downloads nothing."""
        if self.encoder is not None:
            return self.encoder
        if not isinstance(named, FolderEncoder | HubEncoder):
            return named
        name, value = ("name", named.name) if isinstance(named, HubEncoder) else ("path", named.path)
        raise InputError(
            f"{self.run}: was trained on the text encoder {value}, which is not opened or fetched just because a run names it. To use it, "
            f"add: --encoder multimodal.towers.{type(named).__name__} --encoder.{name} {shlex.quote(str(value))}"
        )

    def _shards(self) -> JoinedShards:
        """The sets that the run learned from, to read their columns' manifests; a set at a URL is read from its cache."""
        described = self.data.get("shards")
        if not described:
            raise InputError(f"{self.run / 'config.yaml'}: data.shards is missing; it names the shards that the run was trained on")
        several = isinstance(described, Mapping) and "class_path" not in described
        opened = {name: self._opened(one) for name, one in (described if several else {"": described}).items()}
        return JoinedShards(opened) if several else JoinedShards.of(opened[""])

    def _opened(self, described: Any) -> ShardSet:
        if isinstance(described, str) and not is_url(described):
            return ShardSet(described)
        if isinstance(described, str):
            kept = {name: value for name in ("cache", "cache_bytes") if (value := self.data.get(name)) is not None}
            described = {"class_path": "multimodal.shards.RemoteShards", "init_args": {"url": described, **kept}}
        remote: RemoteShards = Builder(self.run, {}).build(described, RemoteShards, classes_of(shards, RemoteShards))
        return remote.fetched()

    def fill(self, module: nn.Module, part: str) -> nn.Module:
        state = {name.removeprefix(f"{part}."): tensor for name, tensor in self.state.items() if name.startswith(f"{part}.")}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{self.run}: its checkpoint and its config.yaml differ in {part}: {error}") from None
        return module

    def column(self, side: str) -> Column | None:
        """The column that a side of the batches was read from; None for pixels or captions."""
        given = self.arguments(side)
        while "side" in given:  # a control that permutes another side's rows
            given = _arguments(self.run / "config.yaml", f"data.{side}.side", given["side"])
        name = given.get("name")
        if name is None:
            return None
        of, column = next(iter(self._shards().columns(name).items()))  # it means the same in all sets
        key = f"column {name} of {of}" if f"column {name} of {of}" in self.made_from else f"column {name}"
        trained_on = self.made_from.get(key, column.manifest.fingerprint)
        if trained_on != column.manifest.fingerprint:
            raise InputError(
                f"{column.path}: is {column.manifest.fingerprint[:12]} now, but {self.run} was trained on {trained_on[:12]}. Train again"
            )
        return column

    def arguments(self, side: str) -> Mapping[str, Any]:
        """The settings of a side of the batches."""
        return _arguments(self.run / "config.yaml", f"data.{side}", self.data.get(side))

    def figures(self) -> dict[str, float]:
        """The run's last validation figures before the checkpoint was written."""
        path = self.run / "metrics.csv"
        if not path.is_file():
            return {}
        with reading(path, csv.Error), open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= self.step and any(row[name] for name in _validation(row))]
            return {name: float(rows[-1][name]) for name in _validation(rows[-1]) if rows[-1][name]} if rows else {}


def read_checkpoint(path: Path) -> tuple[Mapping[str, Tensor], int]:
    """A checkpoint's tensors by name, and its step."""
    with reading(path, pickle.UnpicklingError):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state, step = checkpoint["state_dict"], int(checkpoint.get("global_step", 0))
        if not isinstance(state, Mapping) or not all(isinstance(name, str) and isinstance(one, Tensor) for name, one in state.items()):
            raise ValueError("its state_dict does not hold tensors by name")
    return current_tensors(state), step


def _read_made_from(path: Path) -> Mapping[str, str]:
    with reading(path):
        made_from: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(fingerprint, str) for fingerprint in made_from.values()):
            raise ValueError("it does not hold fingerprints by name")
    return made_from


def _settings(config: Path, part: str, described: Any) -> Mapping[str, Any]:
    """The settings of a run's model or data, given directly or as the `init_args` of a class."""
    arguments = described.get("init_args", described) if isinstance(described, Mapping) else described
    if not isinstance(arguments, Mapping):
        raise InputError(f"{config}: {part} has no settings. It should be the config.yaml that multimodal fit writes into a run's folder")
    return arguments


def _arguments(config: Path, where: str, described: Any) -> Mapping[str, Any]:
    """The `init_args` of a class that a run's config describes."""
    arguments = (described.get("init_args") or {}) if isinstance(described, Mapping) else None
    if not isinstance(arguments, Mapping):
        raise InputError(f"{config}: {where} has no class_path with init_args. It should be the config.yaml that multimodal fit writes")
    return arguments


@dataclass(frozen=True, slots=True)
class TrainedTower:
    """A run's image tower, as an export has it. head_config: the head's class path and arguments."""

    trunk: Trunk
    head: nn.Module
    head_config: dict[str, Any]


def image_tower_of(trained: Trained, given: Trunk | None) -> TrainedTower:
    """given: for a run on a feature column, the trunk that made it; None: the one that the column names."""
    tower, described = trained.image_tower, trained.model["image_tower"]
    column = trained.column("image")
    if column is not None:
        return TrainedTower(trunk_of(column, given, trained.trust), tower, description(described))
    if given is not None:
        raise InputError(f"{trained.run}: was trained on pictures, so its trunk is in its checkpoint. Leave --trunk out")
    with trained.refused():
        trunk, head = trunk_and_head(tower)
    with reading(trained.run / "config.yaml"):
        validated = _as_validated(trunk.preprocessing, trained.arguments("image"))
    trunk.prepare(validated)
    return TrainedTower(trunk.stored() if isinstance(trunk, ClipTrunk) else trunk, head, _head_of(described, head, trained.run))


def _head_of(described: Mapping[str, Any], made: nn.Module, run: Path) -> dict[str, Any]:
    """How the run's config describes the head of its image tower."""
    head = (described.get("init_args") or {}).get("head")
    if head is None and type(made) is nn.Identity:
        return {"class_path": "torch.nn.Identity", "init_args": {}}
    if not isinstance(head, Mapping) or "class_path" not in head:
        raise InputError(
            f"{run}: its image tower {described['class_path']} creates its head itself, but an export must name it. Let it take `head` as "
            "an argument, as multimodal.towers.ImageTower does"
        )
    return description(head)


def _as_validated(preprocessing: Preprocessing, given: Mapping[str, Any]) -> Preprocessing:
    """How the run cropped validation pictures, if its config says so (`Pixels`): perhaps at another size than the trunk's own."""
    named = {name: given[name] for name in ("size", "crop_share", "interpolation", "resize", "fill") if name in given}
    if isinstance(named.get("size"), list):
        named["size"] = tuple(named["size"])
    return replace(preprocessing, **named)


def trunk_of(column: Column, given: Trunk | None = None, trust: Sequence[str] = ()) -> Trunk:
    """The trunk that made a feature column, checked by fingerprint."""
    check_made_by_trunk(column)
    recipe, wanted = column.manifest.config["trunk"], column.manifest.made_from["trunk"]
    if given is not None:
        trunk = given
    else:
        trunk = build_trunk(Builder(column.path, SLOTS, trust, {Weights: lambda weights: _at_hand(weights, recipe, column)}), recipe)
    if trunk.fingerprint != wanted:
        raise InputError(
            f"{column.path}: was made by the trunk {wanted[:12]}, but {trunk.architecture} with {trunk.weights.describe()} is "
            f"{trunk.fingerprint[:12]} now. Give the weights that the column was made with (--trunk), or make the column and the run again"
        )
    return trunk


def _at_hand(weights: Weights, recipe: Mapping[str, Any], column: Column) -> Weights:
    """Weights as a column's recipe names them; InputError, with what to type, if that would open a path or download from the hub."""
    if not isinstance(weights, FileWeights | HubWeights):
        return weights
    options = dict(_options("trunk", recipe))
    if options.pop("trunk") not in SLOTS[Trunk]:
        options = {"trunk": recipe["class_path"], **options}
    typed = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())
    raise InputError(
        f"{column.path}: was made with {type(weights).__name__}, and nothing is opened or downloaded just because a column names it. "
        f"To use these weights, add: {typed}"
    )


def _options(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A described object as the options that make it: `trunk.weights` is its class, `trunk.weights.path` an argument of it."""
    if isinstance(value, Mapping) and "class_path" in value:
        yield name, value["class_path"]
        for inner, given in (value.get("init_args") or {}).items():
            yield from _options(f"{name}.{inner}", given)
    elif value is not None:
        yield name, value


def query_of(trained: Trained, space: Path | None, scratch: Path) -> TextSpace | None:
    """What reads queries: the text column's own space, with the run's target side on top if it has one; or the run's text tower.

    None if labels or pictures alone taught the run. scratch: an empty folder that exists until the space has been saved.
    """
    if not trained.reads_texts:
        if space is not None:
            raise InputError(f"{trained.run}: was taught without texts, so no text space belongs to its pictures. Leave --space out")
        with trained.refused():
            check_exportable(trained.image_tower, None, trained.column("image"), None)
        return None
    target_side = trained.build("target_side", nn.Module, TARGET_SIDES)
    column = trained.column("target")
    with trained.refused():
        check_exportable(trained.image_tower, target_side, trained.column("image"), column)
    if isinstance(target_side, ReadsQueries):
        return target_side.as_space(scratch)
    if isinstance(target_side, TextTower):
        target_side.encoder.save_pretrained(scratch)
        target_side.tokenizer.save_pretrained(scratch)
        usage = {**asdict(target_side.usage), "long_texts": target_side.long_texts}
        space_of_tower = EncoderSpace(scratch, max_tokens=target_side.max_tokens, **usage)
        return project(space_of_tower, layers_of_tower(target_side))
    assert column is not None  # else it could not be exported
    if space is None:
        raise InputError(f"{trained.run}: its text column {column.path} needs the text space that made it. Give it: --space <folder>")
    opened, wanted = open_space(space, trained.trust), column.manifest.made_from.get("text-space", "none")
    if opened.fingerprint != wanted:
        raise InputError(
            f"{space}: is the text space {opened.fingerprint[:12]}, but the run's text column {column.path} was made with {wanted[:12]}. "
            "Give that space, or make the column with this one and train again"
        )
    return project(opened, layers_of(target_side, opened.dim))


def _with_pooling(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A text tower's recipe: configs from before pooling and prompt were settings mean a tower that took the mean, without a prompt."""
    given = recipe.get("init_args") or {}
    if recipe.get("class_path") not in classes_of(towers, TextTower) or not isinstance(given, Mapping):
        return recipe
    return {**recipe, "init_args": {"pooling": "mean", "prompt": "", **given}}


def _validation(row: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in row if name.startswith("val/"))
