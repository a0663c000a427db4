"""A finished run as a box that opens by itself: trunk, head and the side that reads queries; and the box as an encoder of pictures.

multimodal export --run runs/topic --output exports/topic --space spaces/lda40

export = load_export("exports/topic")
export.embed_image_files(["me.jpg"])          # (1, d) float32, compared by cosine with
export.query.embed(["a dog on the beach"])    # (1, d)
"""

from __future__ import annotations

import csv
import json
import pickle
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from multimodal import objectives, shards, towers
from multimodal.boxes import (
    MANIFEST,
    Manifest,
    atomic_write,
    box_file,
    check_values,
    fingerprint_bytes,
    fingerprint_file,
    is_whole,
    read_manifest,
    reading,
    write_manifest,
)
from multimodal.data.decode import BadPicture, centre
from multimodal.errors import InputError
from multimodal.export.card import Card, read_card
from multimodal.objectives import Objective
from multimodal.shards.columns import Column
from multimodal.shards.joined import JoinedShards
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import RemoteShards
from multimodal.text import TextSpace, open_space
from multimodal.text.encoder import EncoderSpace, Projection
from multimodal.towers import FileWeights, FolderEncoder, Head, HubEncoder, HubWeights, ImageTower, Preprocessing, TextTower, Trunk, Weights
from multimodal.towers.text import Encoder
from multimodal.towers.weights import StoredWeights
from multimodal.trust import Builder, Classes, classes_of
from multimodal.urls import is_url

WEIGHTS = "weights.safetensors"
QUERY = "query"
CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")
"""Which is taken: the first of these that the run has."""
MADE_FROM = "made_from.json"
"""What a run learns from, there from its beginning; a finished one has it in its manifest."""


ACTIVATIONS = (
    *(
        "CELU",
        "ELU",
        "GELU",
        "Hardshrink",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "Identity",
        "LeakyReLU",
        "LogSigmoid",
        "LogSoftmax",
        "Mish",
    ),
    *(
        "PReLU",
        "ReLU",
        "ReLU6",
        "SELU",
        "SiLU",
        "Sigmoid",
        "Softmax",
        "Softmin",
        "Softplus",
        "Softshrink",
        "Softsign",
        "Tanh",
        "Tanhshrink",
    ),
)
"""Of torch.nn, those that a head may end in."""
HEADS = {**classes_of(nn, nn.Module, ("Identity", "Linear")), **classes_of(towers, Head)}
IMAGE_TOWERS = {**HEADS, **classes_of(towers, ImageTower)}
TEXT_SIDES = {**HEADS, **classes_of(towers, TextTower)}
SLOTS: dict[type, Classes] = {
    nn.Module: {**classes_of(nn, nn.Module, ACTIVATIONS), **classes_of(towers, towers.ColourJitter)},
    **{base: classes_of(towers, base) for base in (Trunk, Weights, Head, Encoder)},
    Objective: classes_of(objectives, Objective),
}
"""The type of a parameter -> the classes that an export, a column or a run may name for it; any other only where its package is trusted."""


class ExportNetwork(nn.Module):
    """`objective.output(head(trunk(image)))`: what a picture means in the space of the export's queries."""

    def __init__(self, trunk: Trunk, head: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.objective = objective

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8. Returns (b, d) float."""
        return self.of_features(self.trunk(image))

    def of_features(self, features: Tensor) -> Tensor:
        """features (b, trunk.dim) of this very trunk. Returns (b, d) float."""
        return self.objective.output(self.head(features))


class Export:
    """An export that was opened. Vectors are as the run's objective means them, topic shares or points; stores scale them to length one."""

    def __init__(self, path: str | Path, device: str | torch.device = "cpu", trust: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self.trust = tuple(trust)
        self.manifest = read_manifest(self.path, kind="export")
        self.card: Card = read_card(self.path)
        with reading(self.path / MANIFEST):
            self.preprocessing = Preprocessing.from_json(self.card.preprocessing)
        objective = self.card.architecture.get("objective")
        if objective is None:
            raise InputError(f"{self.path}: its card names no objective, which says what its vectors mean. Make the export again")
        weights = box_file(self.path, WEIGHTS)
        state = self._read_weights(weights)
        builder = Builder(self.path, SLOTS, self.trust, {Weights: StoredWeights})  # all weights are in the one file
        _check_head(builder, self.card.architecture["head"], state, weights)
        self.network = ExportNetwork(
            builder.build(_prepared(self.card.architecture["trunk"], self.preprocessing), Trunk),
            builder.build(self.card.architecture["head"], nn.Module, HEADS),
            builder.build(objective, Objective),
        )
        self.network.trunk.prepare(self.preprocessing)
        try:
            self.network.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{weights}: does not fit the export's card: {error}. Make the export again") from None
        self.network.eval().to(device)

    def _read_weights(self, weights: Path) -> dict[str, Tensor]:
        """The tensors that the export was made with; InputError where they are others, or none."""
        check_values(self.path, "parts", self.manifest.parts, {WEIGHTS: dict})
        check_values(self.path, f"parts.{WEIGHTS}", self.manifest.parts[WEIGHTS], {"fingerprint": str})
        wanted = self.manifest.parts[WEIGHTS]["fingerprint"]
        if not weights.is_file():
            raise InputError(f"{weights}: is not there. Make the export again")
        if (found := fingerprint_file(weights)) != wanted:
            raise InputError(f"{weights}: is {found[:12]}, and the export was made with {wanted[:12]}. Make the export again")
        with reading(weights, SafetensorError):
            return load_file(weights)

    @property
    def fingerprint(self) -> str:
        """Of the manifest, which holds those of the weights and the query side."""
        return self.manifest.fingerprint

    @cached_property
    def query(self) -> TextSpace:
        """The side that reads queries, opened at first use."""
        query = box_file(self.path, QUERY)
        found = read_manifest(query, kind="text-space").fingerprint
        if found != self.card.query_fingerprint:
            raise InputError(
                f"{query}: this text space is {found[:12]} and the export was made with {self.card.query_fingerprint[:12]}. "
                "Make the export again"
            )
        return open_space(query, self.trust)

    def embed_images(self, images: np.ndarray | Tensor) -> np.ndarray:
        """images (b, 3, h, w) uint8, cut and scaled as `preprocessing` says. Returns (b, d) float32."""
        with torch.inference_mode():
            return self.network(torch.as_tensor(images).to(self.device)).float().cpu().numpy()

    def embed_features(self, features: np.ndarray) -> np.ndarray:
        """features (b, trunk's d) as this export's own trunk gives them. Returns (b, d) float32."""
        with torch.inference_mode():
            rows = torch.as_tensor(features, dtype=torch.float32).to(self.device)
            return self.network.of_features(rows).float().cpu().numpy()

    def embed_encoded(self, encoded: Sequence[bytes]) -> np.ndarray:
        """b encoded pictures. Returns (b, d) float32. Raises BadPicture where one cannot be read."""
        p = self.preprocessing
        pixels = [centre(one, p.size, p.crop_share, p.interpolation) for one in encoded]
        return self.embed_images(np.stack(pixels)) if pixels else np.empty((0, self.card.dim), np.float32)

    def embed_image_files(self, paths: Sequence[str | Path]) -> np.ndarray:
        """b picture files. Returns (b, d) float32. InputError that names the file where one cannot be read."""
        rows = []
        for path in paths:
            try:
                rows.append(self.embed_encoded([Path(path).read_bytes()]))
            except BadPicture as reason:
                raise InputError(f"{path}: {reason}") from None
        return np.concatenate(rows) if rows else np.empty((0, self.card.dim), np.float32)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.trunk.mean.device


def load_export(path: str | Path, device: str | torch.device = "cpu", trust: Sequence[str] = ()) -> Export:
    """Open an export; InputError where it is none, or where it names a class that is not of this project.

    trust: packages whose classes it may name too.
    """
    return Export(path, device, trust)


def export(
    run: Path,
    output: Path,
    space: Path | None = None,
    trunk: Trunk | None = None,
    encoder: Encoder | None = None,
    trust: Sequence[str] = (),
) -> Path:
    """Make an export of a finished run: its best checkpoint, or the last where the run did not choose.

    Args:
        run: the run's folder, with config.yaml and checkpoints.
        output: the folder to make.
        space: the text space that the run's text column was made with; not needed where the run trained a text tower.
        trunk: for a run on a feature column, the trunk that made it, where it is not to be had any more as the column says, or where
            its weights lie in a file or on the hub: neither is opened because the column names it.
        encoder: for a run that trained a text tower on the encoder of a folder or of the hub, that encoder, for the same reason
            (`--encoder multimodal.towers.FolderEncoder --encoder.path F`).
        trust: your own package, or packages, whose classes the run or the text space names. Its code is run. Without this a run, a column
            or a space can name this project's classes alone.
    """
    trained = _Trained.read(run, encoder, trust)
    with tempfile.TemporaryDirectory() as scratch:
        query = _query(trained, space, Path(scratch))
        manifest, weights = _assembled(trained, query, trunk)
        if is_whole(output):
            if read_manifest(output, kind="export").fingerprint != manifest.fingerprint:
                raise InputError(f"{output}: holds the export of another run, or of another state of this one. Choose another folder")
            print(f"{output}: is there already, with these very weights", file=sys.stderr)
            return output
        query.save(output / QUERY)
    with atomic_write(output / WEIGHTS) as file:
        file.write(weights)
    write_manifest(output, manifest)
    print(read_card(output).summary())
    return output


def _assembled(trained: _Trained, query: TextSpace, given: Trunk | None) -> tuple[Manifest, bytes]:
    """The export's manifest, and its weights as a safetensors file."""
    tower = _image_tower(trained, given)
    network = ExportNetwork(tower.trunk, tower.head, trained.build("objective", Objective, SLOTS[Objective])).eval()
    with torch.inference_mode():
        dim = network.of_features(torch.zeros(1, network.trunk.dim)).shape[1]
    if dim != query.dim:
        raise InputError(f"{trained.run}: its pictures have {dim} dimensions and its text side {query.dim}; they cannot be compared")
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    architecture = {"trunk": network.trunk.recipe, "head": tower.head_config, "objective": _described(trained.model["objective"])}
    card = Card(query.family, dim, architecture, network.trunk.preprocessing.as_json(), query.fingerprint, trained.figures())
    manifest = Manifest(
        kind="export",
        config=card.config(),
        counts={"parameters": sum(parameter.numel() for parameter in network.parameters())},
        made_from={"text-space": query.fingerprint, "trunk": network.trunk.fingerprint},
        parts={WEIGHTS: {"fingerprint": fingerprint_bytes(weights)}},
    )
    return manifest, weights


def _check_head(builder: Builder, described: Mapping[str, Any], state: Mapping[str, Tensor], weights: Path) -> None:
    """InputError where a head of ours has other shapes than its weights. It is made without memory: a card may name any number of units."""
    if described["class_path"] not in HEADS:
        return  # code that the user trusts, which need not know of torch's meta device
    with torch.device("meta"):
        head = builder.build(described, nn.Module, HEADS)
    for name, tensor in head.state_dict().items():
        stored = state.get(f"head.{name}")
        if stored is None or stored.shape != tensor.shape:
            found = "is missing" if stored is None else f"is {tuple(stored.shape)}"
            raise InputError(
                f"{weights}: does not fit the export's card: head.{name} {found}, and the card says {tuple(tensor.shape)}. "
                "Make the export again"
            )


def _prepared(recipe: Any, preprocessing: Preprocessing) -> Any:
    """The recipe of a frozen trunk that takes pictures of the size that they are prepared in."""
    if not isinstance(recipe, Mapping) or not isinstance(recipe.get("init_args"), Mapping):
        return recipe  # what builds it says what is wrong
    return {**recipe, "init_args": {**recipe["init_args"], "frozen": True, "size": preprocessing.size}}


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a run left: its resolved config and a checkpoint."""

    run: Path
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    state: Mapping[str, Tensor]
    step: int
    made_from: Mapping[str, str]
    encoder: Encoder | None
    trust: Sequence[str]

    @classmethod
    def read(cls, run: Path, encoder: Encoder | None, trust: Sequence[str]) -> _Trained:
        path = Path(run) / "config.yaml"
        try:
            with reading(path):
                config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{run}: holds no config.yaml, so it is no run. Runs are made by: multimodal fit") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: is no YAML: {error}") from None
        if not isinstance(config, dict) or not {"model", "data"} <= set(config):
            raise InputError(f"{path}: has no `model` and `data`; wanted the config that multimodal fit writes into a run's folder")
        checkpoint_path = next((Path(run) / name for name in CHECKPOINTS if (Path(run) / name).is_file()), None)
        if checkpoint_path is None:
            raise InputError(f"{run}: has no {' and no '.join(CHECKPOINTS)}. Run it first: multimodal fit --config {path}")
        state, step = _read_checkpoint(checkpoint_path)
        if is_whole(run):
            made_from = read_manifest(run, kind="run").made_from
        else:
            print(f"{run}: was not finished; taking {checkpoint_path.name} as it is", file=sys.stderr)
            begun = Path(run) / MADE_FROM
            made_from = _read_made_from(begun) if begun.is_file() else {}
        model, data = (_settings(path, part, config[part]) for part in ("model", "data"))
        return cls(Path(run), model, data, state, step, made_from, encoder, trust)

    def build(self, part: str, base: type, ours: Classes) -> Any:
        """`image_tower`, `text_side` or `objective`, with the checkpoint's weights."""
        if not isinstance(self.model.get(part), Mapping):
            raise InputError(f"{self.run / 'config.yaml'}: model.{part} has no class_path")
        finish: dict[type, Callable[[Any], Any]] = {Weights: StoredWeights, Encoder: self._encoder}
        module = Builder(self.run, SLOTS, self.trust, finish).build(self.model[part], base, ours)
        return self.fill(module, part)

    def _encoder(self, named: Encoder) -> Encoder:
        """The one that the user gave, else the one that the run names, where no path is opened and nothing fetched for it."""
        if self.encoder is not None:
            return self.encoder
        if not isinstance(named, FolderEncoder | HubEncoder):
            return named
        name, value = ("name", named.name) if isinstance(named, HubEncoder) else ("path", named.path)
        raise InputError(
            f"{self.run}: trained on the text encoder {value}, which is neither opened nor fetched because a run names it. If you want it, "
            f"add: --encoder multimodal.towers.{type(named).__name__} --encoder.{name} {shlex.quote(str(value))}"
        )

    def _shards(self) -> JoinedShards:
        """The sets that the run learnt from, of which the columns' manifests are read; one at a URL as it lies in its cache."""
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
        """The column that a side of the batches was read from; None where it was pixels or captions."""
        given = self.arguments(side)
        while "side" in given:  # a control that deals another side's rows anew
            given = _arguments(self.run / "config.yaml", f"data.{side}.side", given["side"])
        name = given.get("name")
        if name is None:
            return None
        of, column = next(iter(self._shards().columns(name).items()))  # they mean the same in all sets
        key = f"column {name} of {of}" if f"column {name} of {of}" in self.made_from else f"column {name}"
        trained_on = self.made_from.get(key, column.manifest.fingerprint)
        if trained_on != column.manifest.fingerprint:
            raise InputError(
                f"{column.path}: is {column.manifest.fingerprint[:12]} now, and {self.run} was trained on {trained_on[:12]}. Train again"
            )
        return column

    def arguments(self, side: str) -> Mapping[str, Any]:
        """With what a side of the batches was made."""
        return _arguments(self.run / "config.yaml", f"data.{side}", self.data.get(side))

    def figures(self) -> dict[str, float]:
        """The run's validation figures as they were logged last before the checkpoint was written."""
        path = self.run / "metrics.csv"
        if not path.is_file():
            return {}
        with reading(path, csv.Error), open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= self.step and any(row[name] for name in _validation(row))]
            return {name: float(rows[-1][name]) for name in _validation(rows[-1]) if rows[-1][name]} if rows else {}


def _read_checkpoint(path: Path) -> tuple[Mapping[str, Tensor], int]:
    """Its tensors by name, and the step it was written at."""
    with reading(path, pickle.UnpicklingError):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state, step = checkpoint["state_dict"], int(checkpoint.get("global_step", 0))
        if not isinstance(state, Mapping) or not all(isinstance(name, str) and isinstance(one, Tensor) for name, one in state.items()):
            raise ValueError("its state_dict is no list of tensors by name")
    return state, step


def _read_made_from(path: Path) -> Mapping[str, str]:
    with reading(path):
        made_from: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(fingerprint, str) for fingerprint in made_from.values()):
            raise ValueError("it is no list of fingerprints by name")
    return made_from


def _settings(config: Path, part: str, described: Any) -> Mapping[str, Any]:
    """What a run's model or data was made with: as it is, or as the `init_args` beside a class."""
    arguments = described.get("init_args", described) if isinstance(described, Mapping) else described
    if not isinstance(arguments, Mapping):
        raise InputError(f"{config}: {part} holds no settings; wanted the config that multimodal fit writes into a run's folder")
    return arguments


def _arguments(config: Path, where: str, described: Any) -> Mapping[str, Any]:
    """The `init_args` of a class that a run's config describes."""
    arguments = (described.get("init_args") or {}) if isinstance(described, Mapping) else None
    if not isinstance(arguments, Mapping):
        raise InputError(
            f"{config}: {where} has no class_path with init_args; wanted the config that multimodal fit writes into a run's folder"
        )
    return arguments


@dataclass(frozen=True, slots=True)
class _ImageTower:
    trunk: Trunk
    head: nn.Module
    head_config: dict[str, Any]


def _image_tower(trained: _Trained, given: Trunk | None) -> _ImageTower:
    tower = trained.build("image_tower", nn.Module, IMAGE_TOWERS)
    described = trained.model["image_tower"]
    column = trained.column("image")
    if column is not None:
        return _ImageTower(_trunk_of(column, given, trained.trust), tower, _described(described))
    if given is not None:
        raise InputError(f"{trained.run}: trained on pictures, so its trunk is in its checkpoint; leave --trunk out")
    trunk, head = getattr(tower, "trunk", None), getattr(tower, "head", None)
    if not isinstance(trunk, Trunk) or not isinstance(head, nn.Module):
        raise InputError(
            f"{trained.run}: its image tower {described['class_path']} has no `trunk` and `head`, as multimodal.towers.ImageTower has"
        )
    with reading(trained.run / "config.yaml"):
        validated = _as_validated(trunk.preprocessing, trained.arguments("image"))
    trunk.prepare(validated)
    return _ImageTower(trunk, head, _described(described["init_args"]["head"]))


def _as_validated(preprocessing: Preprocessing, given: Mapping[str, Any]) -> Preprocessing:
    """How the run cut the pictures it was validated on, where its config says (`Pixels`): perhaps at another size than the trunk's own."""
    return replace(preprocessing, **{name: given[name] for name in ("size", "crop_share", "interpolation") if name in given})


def _trunk_of(column: Column, given: Trunk | None, trust: Sequence[str]) -> Trunk:
    """The trunk that made a feature column, checked by fingerprint."""
    recipe, wanted = column.manifest.config.get("trunk"), column.manifest.made_from.get("trunk")
    if recipe is None or wanted is None:
        raise InputError(
            f"{column.path}: was not made by a trunk, so there is no network from pictures to it. Make features with: multimodal embed"
        )
    if given is not None:
        trunk = given
    else:
        trunk = Builder(column.path, SLOTS, trust, {Weights: lambda weights: _at_hand(weights, recipe, column)}).build(recipe, Trunk)
    if trunk.fingerprint != wanted:
        raise InputError(
            f"{column.path}: was made by the trunk {wanted[:12]}, and {trunk.architecture} with {trunk.weights.describe()} is "
            f"{trunk.fingerprint[:12]} now. Give the weights that the column was made with (--trunk), or make column and run again"
        )
    return trunk


def _at_hand(weights: Weights, recipe: Mapping[str, Any], column: Column) -> Weights:
    """Weights as a column's recipe names them; InputError, with what to type, where a path would be opened or the hub be asked for them."""
    if not isinstance(weights, FileWeights | HubWeights):
        return weights
    arguments = {**recipe["init_args"], "weights": recipe["init_args"]["weights"]["class_path"]}
    options = {f"trunk.{name}": value for name, value in arguments.items() if value is not None}
    options |= {f"trunk.weights.{name}": value for name, value in recipe["init_args"]["weights"].get("init_args", {}).items()}
    typed = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())
    raise InputError(
        f"{column.path}: was made with {type(weights).__name__}, and no file is opened and nothing fetched because a column names it. "
        f"If you want these weights, add: {typed}"
    )


def _query(trained: _Trained, space: Path | None, scratch: Path) -> TextSpace:
    """What reads queries: the text column's own space, with the run's text side on top where it has one; or the run's text tower.

    scratch: an empty folder that is there until the space was saved.
    """
    text_side = trained.build("text_side", nn.Module, TEXT_SIDES)
    if isinstance(text_side, TextTower):
        return _query_of_tower(text_side, trained.run, scratch)
    column = trained.column("text")
    if column is None:
        raise InputError(f"{trained.run}: its texts are no column and its text side is no TextTower, so nothing can read queries")
    if space is None:
        raise InputError(f"{trained.run}: which text space made the column {column.path}? Give it: --space <folder>")
    opened, wanted = open_space(space, trained.trust), column.manifest.made_from.get("text-space", "none")
    if opened.fingerprint != wanted:
        raise InputError(
            f"{space}: is the text space {opened.fingerprint[:12]}, and the run's text column {column.path} was made with {wanted[:12]}. "
            "Give that one, or make the column with this one and train again"
        )
    if not any(True for _ in text_side.parameters()):
        return opened
    if not isinstance(opened, EncoderSpace):
        raise InputError(f"{space}: a trained text side goes on top of an encoder space, and this is a {type(opened).__name__}")
    weight, bias = _affine(text_side, trained.run)
    return opened.with_projection(weight.numpy(), bias.numpy())


def _query_of_tower(tower: TextTower, run: Path, scratch: Path) -> EncoderSpace:
    """The tower's encoder, trained along or not, as a space; its head as the projection."""
    tower.encoder.save_pretrained(scratch)
    tower.tokenizer.save_pretrained(scratch)
    projection = None
    if tower.head is not None:
        weight, bias = _affine(tower.head, run)
        projection = Projection(weight.numpy(), bias.numpy())
    return EncoderSpace(scratch, projection, tower.max_tokens)


def _affine(text_side: nn.Module, run: Path) -> tuple[Tensor, Tensor]:
    """weight (e, d) and bias (e,) of a trained text side."""
    if isinstance(text_side, nn.Linear):
        bias: Tensor | None = text_side.bias
        return text_side.weight.detach(), torch.zeros(text_side.out_features) if bias is None else bias.detach()
    if not isinstance(text_side, Head):
        raise InputError(f"{run}: its text side is a {type(text_side).__name__}; queries can go through a linear multimodal.towers.Head")
    try:
        return text_side.as_affine()
    except ValueError as error:
        raise InputError(f"{run}: its text side cannot be exported: {error}. Train it with hidden: null and activation: null") from None


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": config["class_path"], "init_args": dict(config.get("init_args") or {})}


def _validation(row: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in row if name.startswith("val/"))
