"""A finished run as a self-contained box: trunk, head and the side that reads queries; and that box as an encoder of pictures.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
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
    State,
    atomic_write,
    box_file,
    check_values,
    fingerprint_bytes,
    fingerprint_file,
    finished_box,
    is_whole,
    read_manifest,
    reading,
    state_of,
    write_manifest,
)
from multimodal.boxes.trust import Builder, Classes, classes_of, import_trusted
from multimodal.data.decode import BadPicture, Decoded, centre
from multimodal.errors import InputError, needing
from multimodal.export.card import Card, read_card
from multimodal.export.exportable import (
    ReadsQueries,
    check_exportable,
    check_made_by_trunk,
    layers_of,
    layers_of_tower,
    output_alone,
    project,
    trunk_and_head,
)
from multimodal.export.hub import local
from multimodal.export.intake import PictureLike, decoded_pictures
from multimodal.export.interpolation import Interpolation
from multimodal.export.kept import CLIP_TOWERS, from_run
from multimodal.export.run import CHECKPOINTS
from multimodal.metrics import score_blocks, unit
from multimodal.objectives import Objective
from multimodal.shards.columns import Column
from multimodal.shards.joined import JoinedShards
from multimodal.shards.reader import ShardSet
from multimodal.shards.remote import RemoteShards
from multimodal.text import TextSpace, open_space
from multimodal.text.clip import is_of_timm
from multimodal.text.encoder import EncoderSpace
from multimodal.text.long_texts import LongTexts, check_long_texts
from multimodal.towers import (
    ClipTrunk,
    FileWeights,
    FolderEncoder,
    Head,
    HubEncoder,
    HubWeights,
    ImageTower,
    OpenClipTrunk,
    Preprocessing,
    TextTower,
    Trunk,
    Tuning,
    Weights,
)
from multimodal.towers.text import Encoder
from multimodal.towers.trunk import is_known
from multimodal.towers.weights import StoredWeights
from multimodal.urls import is_url

WEIGHTS = "weights.safetensors"
QUERY = "query"
MADE_FROM = "made_from.json"
"""What a run learns from, written at its start; a finished run has it in its manifest."""


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
"""The classes of torch.nn that a head may end in."""
HEADS = {**classes_of(nn, nn.Module, ("Identity", "Linear")), **classes_of(towers, Head)}
IMAGE_TOWERS = {**HEADS, **classes_of(towers, ImageTower)}
TEXT_SIDES = {**HEADS, **classes_of(towers, TextTower), **classes_of(towers, towers.ClipTextTower)}
SLOTS: dict[type, Classes] = {
    nn.Module: {**classes_of(nn, nn.Module, ACTIVATIONS), **classes_of(towers, towers.ColourJitter)},
    **{base: classes_of(towers, base) for base in (Weights, Head, Encoder, Tuning)},
    Trunk: {path: one for path, one in classes_of(towers, Trunk).items() if path not in CLIP_TOWERS},
    Objective: classes_of(objectives, Objective),
}
"""The type of a parameter -> the classes that an export, a column or a run may name for it; any other only if its package is trusted."""
RUN_SLOTS: dict[type, Classes] = {**SLOTS, Trunk: classes_of(towers, Trunk)}
"""The same for a run: its CLIP models are those that it has kept (`from_run`)."""


class ExportNetwork(nn.Module):
    """`objective.output(head(trunk(image)))`: a picture's vector in the space of the export's queries."""

    def __init__(self, trunk: Trunk, head: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.objective = objective

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8. Returns (b, d) float."""
        return self.of_features(self.trunk(image))

    def of_features(self, features: Tensor) -> Tensor:
        """features (b, trunk.dim) of this same trunk. Returns (b, d) float."""
        return self.objective.output(self.head(features))


class Export:
    """An open export. Its vectors are the output of the run's objective, topic shares or points; stores normalise them to unit length."""

    def __init__(self, path: str | Path, device: str | torch.device = "cpu", trust: Sequence[str] = ()) -> None:
        self.path = local(path)
        self.trust = tuple(trust)
        self.manifest = read_manifest(self.path, kind="export")
        self.card: Card = read_card(self.path)
        with reading(self.path / MANIFEST):
            self.preprocessing = Preprocessing.from_json(self.card.preprocessing)
        objective = self.card.architecture.get("objective")
        if objective is None:
            raise InputError(f"{self.path}: its card names no objective, which defines what its vectors mean. Make the export again")
        weights = box_file(self.path, WEIGHTS)
        state = self._read_weights(weights)
        builder = Builder(self.path, SLOTS, self.trust, {Weights: StoredWeights})  # all weights are in one file
        _check_shapes(builder, "head", self.card.architecture["head"], nn.Module, HEADS, state, weights)
        if SLOTS[Trunk].get(self.card.architecture["trunk"]["class_path"]) is OpenClipTrunk and not _is_of_timm(self.card):
            _check_shapes(builder, "trunk", self.card.architecture["trunk"], Trunk, SLOTS[Trunk], state, weights)
        self.network = ExportNetwork(
            build_trunk(builder, _prepared(self.card.architecture["trunk"], self.preprocessing)),
            builder.build(self.card.architecture["head"], nn.Module, HEADS),
            builder.build(objective, Objective),
        )
        self.network.trunk.prepare(self.preprocessing)
        try:
            self.network.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{weights}: does not fit the export's card: {error}. Make the export again") from None
        found, wanted = self.network.trunk.fingerprint, str(self.manifest.made_from.get("trunk"))
        if found != wanted:
            raise InputError(
                f"{self.path}: what its {MANIFEST} says of the trunk, such as its settings or the preprocessing of pictures, is not what "
                f"the export was made with: the trunk is {found[:12]} and was {wanted[:12]}. Make the export again"
            )
        self.network.eval().to(device)

    def _read_weights(self, weights: Path) -> dict[str, Tensor]:
        """The tensors that the export was made with; InputError if they have changed or are missing."""
        check_values(self.path, "parts", self.manifest.parts, {WEIGHTS: dict})
        check_values(self.path, f"parts.{WEIGHTS}", self.manifest.parts[WEIGHTS], {"fingerprint": str})
        wanted = self.manifest.parts[WEIGHTS]["fingerprint"]
        if not weights.is_file():
            raise InputError(f"{weights}: does not exist. Make the export again")
        if (found := fingerprint_file(weights)) != wanted:
            raise InputError(f"{weights}: is {found[:12]} now, but the export was made with {wanted[:12]}. Make the export again")
        with reading(weights, SafetensorError):
            return load_file(weights)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the manifest, which holds those of the weights and the query side."""
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
        """images (b, 3, h, w) uint8, cropped and scaled as in `preprocessing`. Returns (b, d) float32."""
        with torch.inference_mode():
            return self.network(torch.as_tensor(images).to(self.device)).float().cpu().numpy()

    def embed_features(self, features: np.ndarray) -> np.ndarray:
        """features (b, trunk's d) from this export's own trunk. Returns (b, d) float32."""
        with torch.inference_mode():
            rows = torch.as_tensor(features, dtype=torch.float32).to(self.device)
            return self.network.of_features(rows).float().cpu().numpy()

    def encode_image(self, pictures: PictureLike | Iterable[PictureLike]) -> np.ndarray:
        """One picture or n: Pillow pictures, paths, bytes of files, arrays (h, w, 3) of uint8, also mixed. Returns (n, d) float32.

        A single one gives (1, d). Each is embedded by itself, so its row does not depend on the others; a file's row is that of
        `embed_image_files`. Many are indexed faster (`multimodal.index`). InputError that names an item that is not a picture.
        """
        rows = [self.embed_encoded([Decoded.of(image)]) for image in decoded_pictures(pictures)]
        return np.concatenate(rows) if rows else np.empty((0, self.card.dim), np.float32)

    def encode_text(self, texts: str | Iterable[str]) -> np.ndarray:
        """One text or n, to compare with pictures. Returns (n, d) float32; a text without a known word is all zeros."""
        return self.query.embed([texts] if isinstance(texts, str) else list(texts))

    def similarity(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """The cosines of rows (n, d) with others (m, d), in [-1, 1]. Returns (n, m) float64; 0 for a row of zeros."""
        blocks = [block.scores for block in score_blocks(unit(rows), unit(others))]
        return np.concatenate(blocks) if blocks else np.empty((0, len(others)))

    def __repr__(self) -> str:
        trunk = self.network.trunk.architecture
        return f"Export({str(self.path)!r}: {self.card.family}, {self.card.dim} dimensions, pictures through {trunk} on {self.device})"

    def embed_encoded(self, encoded: Sequence[bytes | Decoded]) -> np.ndarray:
        """b encoded pictures. Returns (b, d) float32. Raises BadPicture if one cannot be read."""
        p = self.preprocessing
        pixels = [centre(one, p.size, p.crop_share, p.interpolation, p.resize, p.fill) for one in encoded]
        return self.embed_images(np.stack(pixels)) if pixels else np.empty((0, self.card.dim), np.float32)

    def embed_image_files(self, paths: Sequence[str | Path]) -> np.ndarray:
        """b picture files. Returns (b, d) float32. InputError that names a file that cannot be read."""
        rows = []
        for path in paths:
            try:
                rows.append(self.embed_encoded([Path(path).read_bytes()]))
            except BadPicture as reason:
                raise InputError(f"{path}: {reason}") from None
        return np.concatenate(rows) if rows else np.empty((0, self.card.dim), np.float32)

    @property
    def device(self) -> torch.device:
        """The device that the network is on."""
        return self.network.trunk.mean.device


def load_export(path: str | Path, device: str | torch.device = "cpu", trust: Sequence[str] = ()) -> Export:
    """Open an export; InputError if it is not an export, or names a class that is not trusted.

    path: its folder, or hf://user/name, which is fetched.
    trust: packages whose classes it may name, beside this project's.
    """
    return Export(path, device, trust)


def export_verb(
    output: Path,
    run: Path | None = None,
    pretrained: str | None = None,
    space: Path | None = None,
    trunk: Trunk | None = None,
    encoder: Encoder | None = None,
    trust: Sequence[str] = (),
    interpolate: Path | None = None,
    alpha: float | None = None,
    long_texts: LongTexts = "cut",
    onnx: bool = False,
    int8: bool = False,
) -> Path:
    """Make an export of a finished run, of its best checkpoint (or the last, if it kept no best one); or of a pretrained CLIP model.

    Args:
        output: the folder to make.
        run: the run's folder, with config.yaml and checkpoints.
        pretrained: instead of a run, a CLIP model, which is not trained further: a folder of open_clip or transformers; NAME/FILE, an
            architecture of open_clip and a checkpoint; or NAME/TAG, such as ViT-B-32/laion2b_s34b_b79k, which is downloaded.
        space: the text space that the run's text column was made with; not needed if the run trained a text tower.
        trunk: for a run on a feature column, the trunk that made it, if the trunk that the column names is no longer available, or if its
            weights are in a file or on the hub: neither is opened just because the column names it.
        encoder: for a run that trained a text tower on an encoder from a folder or from the hub, that encoder, for the same reason
            (`--encoder multimodal.towers.FolderEncoder --encoder.path F`).
        trust: your own packages whose classes the run or the text space names. Their code is run. Without this option, a run, a column
            or a space can name only this project's classes.
        interpolate: BASE, an export of the same architecture, such as the one that the run began from. The weights are then
            (1 - alpha) * BASE's + alpha * the run's, of pictures and of queries (WiSE-FT, Wortsman et al., 2022).
        alpha: with interpolate, from 0, BASE's weights, to 1, the run's. The paper advises 0.5 if nothing can be measured.
        long_texts: with pretrained, pool reads a text that is longer than the model's context in pieces, whose unit vectors are averaged;
            cut reads its beginning.
        onnx: write its networks as ONNX too, checked against torch: stores that are indexed with it are then searched without torch. Given
            without run and pretrained, they are added to the export that is at output.
        int8: with onnx, the encoder of texts in 8 bits: a quarter of the size, and a little less recall.
    """
    if int8 and not onnx:
        raise InputError("--int8 is how texts are embedded by ONNX. Add --onnx")
    of_run = {"space": space, "trunk": trunk, "encoder": encoder, "interpolate": interpolate, "alpha": alpha}
    is_there = onnx and run is None and pretrained is None and is_whole(output)
    if is_there:
        for name, given in {**of_run, "long-texts": None if long_texts == "cut" else long_texts}.items():
            if given is not None:
                raise InputError(f"--{name} belongs to a new export, of --run or --pretrained. {output} stays as it is; leave it out")
    else:
        _make_export(output, run, pretrained, trust, long_texts, of_run)
    if onnx:
        from multimodal.export.to_onnx import add_onnx

        add_onnx(output, int8, trust)
    return output


def _make_export(
    output: Path,
    run: Path | None,
    pretrained: str | None,
    trust: Sequence[str],
    long_texts: LongTexts,
    of_run: Mapping[str, Any],
) -> Path:
    """of_run: what `export` takes beside, by name."""
    if (run is None) == (pretrained is None):
        raise InputError("give --run, for a model that you trained, or --pretrained, for one of open_clip; one of the two")
    check_long_texts(long_texts, "--long-texts")
    if run is not None and long_texts != "cut":
        raise InputError("--long-texts belongs to --pretrained; the text side of a run reads long texts as it was trained. Leave it out")
    if run is not None:
        return export(run, output, trust=trust, **of_run)
    for name, given in of_run.items():
        if given is not None:
            raise InputError(f"--{name} belongs to a run; a pretrained model has both of its towers. Leave it out")
    assert pretrained is not None  # mypy: one of the two is given
    return export_pretrained(pretrained, output, long_texts)


def export(
    run: Path,
    output: Path,
    space: Path | None = None,
    trunk: Trunk | None = None,
    encoder: Encoder | None = None,
    trust: Sequence[str] = (),
    interpolate: Path | None = None,
    alpha: float | None = None,
) -> Path:
    """Make an export of a finished run; see `export_verb`."""
    if (interpolate is None) != (alpha is None):
        raise InputError("--interpolate BASE and --alpha NUMBER belong together: give both, such as --alpha 0.5, or neither")
    between = None if interpolate is None or alpha is None else Interpolation(load_export(interpolate, trust=trust), alpha)
    trained = Trained.read(run, encoder, trust)
    with tempfile.TemporaryDirectory() as scratch:
        query = _query(trained, space, Path(scratch))
        if between is not None:
            query = between.query(query, Path(scratch))
        manifest, weights = _assembled(trained, query, trunk, between=between)
        found = finished_box(output, kind="export")
        then, remedies = None if found is None else asdict(found), ("choose another --output", "delete this export")
        if found is not None and between is None and found.fingerprint != manifest.fingerprint:
            # Earlier releases wrote a custom objective with all its settings.
            before, _ = _assembled(trained, query, trunk, whole_objective=True)
            then = asdict(manifest) if found.fingerprint == before.fingerprint else then
        return _written(output, manifest, weights, query, then, remedies)


def export_pretrained(named: str, output: Path, long_texts: LongTexts = "cut") -> Path:
    """Make an export of a pretrained CLIP model of open_clip: a folder, NAME/FILE or NAME/TAG; see `export_verb`.

    Its vectors are open_clip's (normalised) for the picture as this project decodes it: upright, RGB, transparency on white.
    """
    with needing("train", "a CLIP model"):
        from multimodal.export.pretrained import read_pretrained
    with tempfile.TemporaryDirectory() as scratch:
        parts = read_pretrained(named, Path(scratch), long_texts)
        network = ExportNetwork(parts.trunk, nn.Identity(), parts.objective).eval()
        head = {"class_path": "torch.nn.Identity", "init_args": {}}
        objective = {"class_path": f"multimodal.objectives.{type(parts.objective).__name__}", "init_args": {}}
        size = parts.trunk.preprocessing.size
        with torch.inference_mode():
            dim = network(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape[1]
        manifest, weights = _described_export(named, network, dim, head, objective, parts.query, {})
        found = finished_box(output, kind="export")
        remedies = ("choose another --output", "delete this export")
        return _written(output, manifest, weights, parts.query, None if found is None else asdict(found), remedies)


def _written(
    output: Path, manifest: Manifest, weights: bytes, query: TextSpace, then: Mapping[str, Any] | None, remedies: Sequence[str]
) -> Path:
    """Write the box, unless it is there already. then: the manifest of an export that is there."""
    if state_of(output, asdict(manifest), then, remedies=remedies, null_is_absent=False) is State.FINISHED:
        print(f"{output}: is there already, with the same weights", file=sys.stderr)
        return output
    query.save(output / QUERY)
    with atomic_write(output / WEIGHTS) as file:
        file.write(weights)
    write_manifest(output, manifest)
    print(read_card(output).summary())
    return output


def _assembled(
    trained: Trained, query: TextSpace, given: Trunk | None, whole_objective: bool = False, between: Interpolation | None = None
) -> tuple[Manifest, bytes]:
    """The export's manifest, and its weights as a safetensors file."""
    tower = _image_tower(trained, given)
    objective, described = trained.build("objective", Objective, SLOTS[Objective]), _described(trained.model["objective"])
    if not whole_objective:
        objective, described = output_alone(objective, described, SLOTS[Objective])
    network = ExportNetwork(tower.trunk, tower.head, objective).eval()
    if between is not None:
        network = between.network(network)
    with torch.inference_mode():
        dim = network.of_features(torch.zeros(1, network.trunk.dim)).shape[1]
    manifest, weights = _described_export(str(trained.run), network, dim, tower.head_config, described, query, trained.figures())
    return (manifest if between is None else between.describe(manifest)), weights


def _described_export(
    source: str,
    network: ExportNetwork,
    dim: int,
    head: Mapping[str, Any],
    objective: Mapping[str, Any],
    query: TextSpace,
    figures: Mapping[str, Any],
) -> tuple[Manifest, bytes]:
    """The manifest of an export with these parts, and its weights as a safetensors file. source: where they come from, for a message."""
    if dim != query.dim:
        raise InputError(f"{source}: its pictures have {dim} dimensions and its text side {query.dim}. They must be equal")
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    architecture = {"trunk": network.trunk.recipe, "head": head, "objective": objective}
    card = Card(query.family, dim, architecture, network.trunk.preprocessing.as_json(), query.fingerprint, figures)
    manifest = Manifest(
        kind="export",
        config=card.config(),
        counts={"parameters": sum(parameter.numel() for parameter in network.parameters())},
        made_from={"text-space": query.fingerprint, "trunk": network.trunk.fingerprint},
        parts={WEIGHTS: {"fingerprint": fingerprint_bytes(weights)}},
    )
    return manifest, weights


def _check_shapes(
    builder: Builder, part: str, described: Mapping[str, Any], base: type, ours: Classes, state: Mapping[str, Tensor], weights: Path
) -> None:
    """InputError if a part of this project has other shapes than its weights. It takes no memory: a card may name any number of units."""
    if described["class_path"] not in ours:
        return  # code that the user trusts, which need not support torch's meta device
    with torch.device("meta"):
        module = builder.build(described, base, ours)
    for name, tensor in module.state_dict().items():
        stored = state.get(f"{part}.{name}")
        if stored is None or stored.shape != tensor.shape:
            found = "is missing" if stored is None else f"is {tuple(stored.shape)}"
            raise InputError(
                f"{weights}: does not fit the export's card: {part}.{name} {found}, and the card says {tuple(tensor.shape)}. "
                "Make the export again"
            )


def _is_of_timm(card: Card) -> bool:
    return is_of_timm(card.architecture["trunk"]["init_args"].get("model"))


def _prepared(recipe: Any, preprocessing: Preprocessing) -> Any:
    """The recipe of a frozen trunk whose input size is that of the preprocessing."""
    if not isinstance(recipe, Mapping) or not isinstance(recipe.get("init_args"), Mapping):
        return recipe  # building it raises the error
    wanted = {"frozen": True, "size": preprocessing.size}
    if SLOTS[Trunk].get(recipe.get("class_path", "")) is not Trunk:  # another class takes what is in its recipe
        wanted = {name: value for name, value in wanted.items() if name in recipe["init_args"]}
    return {**recipe, "init_args": {**recipe["init_args"], **wanted}}


def build_trunk(builder: Builder, recipe: Any) -> Trunk:
    """The trunk of a recipe. If timm does not know its architecture, the user's trusted packages are imported: one may register it."""
    architecture = recipe.get("init_args", {}).get("architecture") if isinstance(recipe, Mapping) else None
    if isinstance(architecture, str) and not is_known(architecture):
        for package in builder.trust:
            import_trusted(package, builder.box)
        if not is_known(architecture) and not builder.trust and architecture.isidentifier():
            raise InputError(
                f"{builder.box}: timm has no architecture {architecture!r}. If a package of yours registers it, add: --trust PACKAGE"
            )
    trunk: Trunk = builder.build(recipe, Trunk)
    return trunk


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
        if is_whole(run):
            made_from = read_manifest(run, kind="run").made_from
        else:
            print(f"{run}: is not finished; using {checkpoint_path.name}", file=sys.stderr)
            begun = Path(run) / MADE_FROM
            made_from = _read_made_from(begun) if begun.is_file() else {}
        model, data = (_settings(path, part, config[part]) for part in ("model", "data"))
        return cls(Path(run), model, data, state, step, made_from, encoder, trust)

    def build(self, part: str, base: type, ours: Classes) -> Any:
        """`image_tower`, `text_side` or `objective`, with the checkpoint's weights."""
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
    return state, step


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
class _ImageTower:
    trunk: Trunk
    head: nn.Module
    head_config: dict[str, Any]


def _image_tower(trained: Trained, given: Trunk | None) -> _ImageTower:
    tower, described = trained.image_tower, trained.model["image_tower"]
    column = trained.column("image")
    if column is not None:
        return _ImageTower(trunk_of(column, given, trained.trust), tower, _described(described))
    if given is not None:
        raise InputError(f"{trained.run}: was trained on pictures, so its trunk is in its checkpoint. Leave --trunk out")
    with trained.refused():
        trunk, head = trunk_and_head(tower)
    with reading(trained.run / "config.yaml"):
        validated = _as_validated(trunk.preprocessing, trained.arguments("image"))
    trunk.prepare(validated)
    return _ImageTower(trunk.stored() if isinstance(trunk, ClipTrunk) else trunk, head, _head_of(described, head, trained.run))


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
    return _described(head)


def _as_validated(preprocessing: Preprocessing, given: Mapping[str, Any]) -> Preprocessing:
    """How the run cropped validation pictures, if its config says so (`Pixels`): perhaps at another size than the trunk's own."""
    return replace(
        preprocessing, **{name: given[name] for name in ("size", "crop_share", "interpolation", "resize", "fill") if name in given}
    )


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


def _query(trained: Trained, space: Path | None, scratch: Path) -> TextSpace:
    """What reads queries: the text column's own space, with the run's text side on top if it has one; or the run's text tower.

    scratch: an empty folder that exists until the space has been saved.
    """
    text_side = trained.build("text_side", nn.Module, TEXT_SIDES)
    column = trained.column("text")
    with trained.refused():
        check_exportable(trained.image_tower, text_side, trained.column("image"), column)
    if isinstance(text_side, ReadsQueries):
        return text_side.as_space(scratch)
    if isinstance(text_side, TextTower):
        text_side.encoder.save_pretrained(scratch)
        text_side.tokenizer.save_pretrained(scratch)
        usage = {**asdict(text_side.usage), "long_texts": text_side.long_texts}
        space_of_tower = EncoderSpace(scratch, max_tokens=text_side.max_tokens, **usage)
        return project(space_of_tower, layers_of_tower(text_side))
    assert column is not None  # else it could not be exported
    if space is None:
        raise InputError(f"{trained.run}: its text column {column.path} needs the text space that made it. Give it: --space <folder>")
    opened, wanted = open_space(space, trained.trust), column.manifest.made_from.get("text-space", "none")
    if opened.fingerprint != wanted:
        raise InputError(
            f"{space}: is the text space {opened.fingerprint[:12]}, but the run's text column {column.path} was made with {wanted[:12]}. "
            "Give that space, or make the column with this one and train again"
        )
    return project(opened, layers_of(text_side, opened.dim))


def _with_pooling(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A text tower's recipe: configs from before pooling and prompt were settings mean a tower that took the mean, without a prompt."""
    given = recipe.get("init_args") or {}
    if recipe.get("class_path") not in classes_of(towers, TextTower) or not isinstance(given, Mapping):
        return recipe
    return {**recipe, "init_args": {"pooling": "mean", "prompt": "", **given}}


def _described(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": config["class_path"], "init_args": dict(config.get("init_args") or {})}


def _validation(row: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in row if name.startswith("val/"))
