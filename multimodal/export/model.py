"""A finished run as a self-contained box: trunk, head and the side that reads queries; and that box as an encoder of pictures.

multimodal export --run runs/topic --output exports/topic --space spaces/lda40

export = load_export("exports/topic")
export.embed_image_files(["me.jpg"])          # (1, d) float32, compared by cosine with
export.query.embed(["a dog on the beach"])    # (1, d)
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

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
from multimodal.boxes.trust import Builder, Classes
from multimodal.data.decode import BadPicture, Decoded, centre
from multimodal.errors import InputError, needing
from multimodal.export.card import Card, read_card
from multimodal.export.exportable import (
    output_alone,
)
from multimodal.export.hub import local
from multimodal.export.intake import PictureLike, decoded_pictures
from multimodal.export.interpolation import Interpolation
from multimodal.export.slots import HEADS, SLOTS, build_trunk, description
from multimodal.export.trained import Trained, image_tower_of, query_of
from multimodal.metrics import score_blocks, unit
from multimodal.objectives import LabelObjective, Objective
from multimodal.pictures.preprocessing import Resize, height_width, size_as_json
from multimodal.text import NoTexts, TextSpace, open_space
from multimodal.text.clip import is_of_timm
from multimodal.text.long_texts import LongTexts, check_long_texts
from multimodal.towers import (
    OpenClipTrunk,
    Preprocessing,
    Trunk,
    Weights,
)
from multimodal.towers.text import Encoder
from multimodal.towers.weights import StoredWeights

WEIGHTS = "weights.safetensors"
QUERY = "query"


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

    def are_same(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether pictures of vectors (n, d) and (m, d) show the same, by the card's threshold. Returns (n, m) bool.

        InputError if the card has none.
        """
        if not self.card.same:
            raise InputError(
                f"{self.path}: nobody has measured from which cosine on two of its pictures show the same. "
                "See: multimodal metric fit --false-accept"
            )
        return self.similarity(rows, others) >= self.card.same["cosine"]

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
    resize: Resize | None = None,
) -> Path:
    """Make an export of a finished run, of its best checkpoint (or the last, if it kept no best one); of a pretrained CLIP model; or of a
    trunk alone, with nothing trained: its features are the vectors, and there are no texts to ask with.

    multimodal export --run runs/topic --space spaces/lda40 --output exports/topic
    multimodal export --pretrained ViT-B-32/laion2b_s34b_b79k --output exports/clip
    multimodal export --trunk.architecture tf_efficientnet_lite0 --trunk.weights multimodal.towers.PackageWeights --output exports/lite0

    Args:
        output: the folder to make.
        run: the run's folder, with config.yaml and checkpoints.
        pretrained: instead of a run, a CLIP model, which is not trained further: a folder of open_clip or transformers; NAME/FILE, an
            architecture of open_clip and a checkpoint; or NAME/TAG, such as ViT-B-32/laion2b_s34b_b79k, which is downloaded.
        space: the text space that the run's text column was made with; not needed if the run trained a text tower.
        trunk: without run and pretrained, the trunk to export, by its arguments: `--trunk.size 96`, or `--trunk.size "[192, 96]"`, is the
            height and width of its pictures. For a run on a feature column, the trunk that made it, if the trunk that the column names
            is no longer available, or if its weights are in a file or on the hub: neither is opened just because the column names it.
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
        resize: of a trunk alone, squash brings the whole picture to its size, whatever the shape, and longest pads the shorter side. By
            default the middle is cut out, as it was when the weights were trained; of a size of two that differ, squash.
    """
    if int8 and not onnx:
        raise InputError("--int8 is how texts are embedded by ONNX. Add --onnx")
    of_run = {"space": space, "trunk": trunk, "encoder": encoder, "interpolate": interpolate, "alpha": alpha}
    is_alone = run is None and pretrained is None and trunk is not None
    if resize is not None and not is_alone:
        raise InputError("--resize belongs to a trunk alone; a run and a pretrained model have their own. Leave it out")
    is_there = onnx and run is None and pretrained is None and not is_alone and is_whole(output)
    if is_there:
        for name, given in {**of_run, "long-texts": None if long_texts == "cut" else long_texts}.items():
            if given is not None:
                raise InputError(f"--{name} belongs to a new export, of --run or --pretrained. {output} stays as it is; leave it out")
    elif is_alone:
        for name, given in {**of_run, "trunk": None, "long-texts": None if long_texts == "cut" else long_texts}.items():
            if given is not None:
                raise InputError(f"--{name} belongs to --run or --pretrained, and a trunk alone has neither. Leave it out")
        assert trunk is not None  # mypy
        export_trunk(trunk, output, resize)
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
        raise InputError(
            "give --run, for a model that you trained, or --pretrained, for one of open_clip; one of the two. For a network of timm alone: "
            "--trunk.architecture NAME --trunk.weights CLASS"
        )
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
        query = query_of(trained, space, Path(scratch))
        if between is not None and query is not None:
            query = between.query(query, Path(scratch))
        manifest, weights, query = _assembled(trained, query, trunk, between=between)
        found = finished_box(output, kind="export")
        then, remedies = None if found is None else asdict(found), ("choose another --output", "delete this export")
        if found is not None and between is None and found.fingerprint != manifest.fingerprint:
            # Earlier releases wrote a custom objective with all its settings.
            before, _, _ = _assembled(trained, query, trunk, whole_objective=True)
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
        with torch.inference_mode():
            dim = network(torch.zeros(1, 3, *height_width(parts.trunk.preprocessing.size), dtype=torch.uint8)).shape[1]
        manifest, weights = _described_export(named, network, dim, head, objective, parts.query, {})
        found = finished_box(output, kind="export")
        remedies = ("choose another --output", "delete this export")
        return _written(output, manifest, weights, parts.query, None if found is None else asdict(found), remedies)


def export_trunk(trunk: Trunk, output: Path, resize: Resize | None = None) -> Path:
    """Make an export whose vectors are a trunk's features; nothing is trained, and it reads no texts (`NoTexts`).

    resize: how a picture is brought to the trunk's size; None: as the trunk says. See `Preprocessing`.
    """
    if resize is not None:
        crop_share = trunk.preprocessing.crop_share if resize.startswith("shortest") else 1.0
        trunk.prepare(replace(trunk.preprocessing, resize=resize, crop_share=crop_share))
    network = ExportNetwork(trunk, nn.Identity(), LabelObjective()).eval()
    head: dict[str, Any] = {"class_path": "torch.nn.Identity", "init_args": {}}
    objective: dict[str, Any] = {"class_path": "multimodal.objectives.LabelObjective", "init_args": {}}
    query = NoTexts(trunk.dim)
    manifest, weights = _described_export(trunk.architecture, network, trunk.dim, head, objective, query, {})
    found = finished_box(output, kind="export")
    remedies = ("choose another --output", "delete this export")
    return _written(output, manifest, weights, query, None if found is None else asdict(found), remedies)


def export_with_head(
    opened: Export,
    head: nn.Module,
    described: Mapping[str, Any],
    query: TextSpace,
    figures: Mapping[str, Any],
    same: Mapping[str, Any],
    output: Path,
) -> Path:
    """Make an export like an open one, with another head and query side. described: the head, as a card has it. same: see `Card`."""
    network = ExportNetwork(opened.network.trunk, head, opened.network.objective).eval().cpu()
    with torch.inference_mode():
        dim = network.of_features(torch.zeros(1, network.trunk.dim)).shape[1]
    objective = opened.card.architecture["objective"]
    manifest, weights = _described_export(str(opened.path), network, dim, described, objective, query, figures, same)
    found = finished_box(output, kind="export")
    remedies = ("choose another --output", "delete this export")
    return _written(output, manifest, weights, query, None if found is None else asdict(found), remedies)


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
    trained: Trained, query: TextSpace | None, given: Trunk | None, whole_objective: bool = False, between: Interpolation | None = None
) -> tuple[Manifest, bytes, TextSpace]:
    """The export's manifest, its weights as a safetensors file, and its query side: the given one, or else one that reads no texts."""
    tower = image_tower_of(trained, given)
    objective, described = trained.build("objective", Objective, SLOTS[Objective]), description(trained.model["objective"])
    if objective.takes_labels and objective.distance != "cosine":
        print(
            f"{trained.run}: was trained by {objective.distance} distance, and stores compare by cosine: their neighbours differ, unless "
            "all vectors have one length",
            file=sys.stderr,
        )
    if not whole_objective:
        objective, described = output_alone(objective, described, SLOTS[Objective])
    network = ExportNetwork(tower.trunk, tower.head, objective).eval()
    if between is not None:
        network = between.network(network)
    with torch.inference_mode():
        dim = network.of_features(torch.zeros(1, network.trunk.dim)).shape[1]
    query = NoTexts(dim) if query is None else query
    manifest, weights = _described_export(str(trained.run), network, dim, tower.head_config, described, query, trained.figures())
    return (manifest if between is None else between.describe(manifest)), weights, query


def _described_export(
    source: str,
    network: ExportNetwork,
    dim: int,
    head: Mapping[str, Any],
    objective: Mapping[str, Any],
    query: TextSpace,
    figures: Mapping[str, Any],
    same: Mapping[str, Any] | None = None,
) -> tuple[Manifest, bytes]:
    """The manifest of an export with these parts, and its weights as a safetensors file. source: where they come from, for a message."""
    if dim != query.dim:
        raise InputError(f"{source}: its pictures have {dim} dimensions and its text side {query.dim}. They must be equal")
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    architecture = {"trunk": network.trunk.recipe, "head": head, "objective": objective}
    card = Card(query.family, dim, architecture, network.trunk.preprocessing.as_json(), query.fingerprint, figures, same=same or {})
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
    wanted = {"frozen": True, "size": size_as_json(preprocessing.size)}
    if SLOTS[Trunk].get(recipe.get("class_path", "")) is not Trunk:  # another class takes what is in its recipe
        wanted = {name: value for name, value in wanted.items() if name in recipe["init_args"]}
    return {**recipe, "init_args": {**recipe["init_args"], **wanted}}
