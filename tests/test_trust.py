"""Boxes from a stranger: what they name is not imported, called or opened, whichever command is given them, and the message says why."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from multimodal.boxes import box_file, copy_box, fingerprint_file, read_manifest
from multimodal.boxes.trust import Builder, find_class
from multimodal.errors import InputError
from multimodal.export.model import load_export
from multimodal.export.slots import HEADS, SLOTS
from multimodal.pairs import Pair
from multimodal.search.generation import fusion_fingerprint
from multimodal.shards import ShardSet
from multimodal.shards.columns import Column
from multimodal.shards.writer import ShardWriter
from multimodal.text.encoder import EncoderSpace
from multimodal.text.packages import package_folder
from multimodal.towers import FolderEncoder, NoWeights, PackageWeights, TextTower, Trunk

if TYPE_CHECKING:
    from tests.conftest import Road

COMPOSE = "torchvision.transforms.v2.Compose"
TO_PICKLE = ["torch.Tensor.numpy", "numpy.ndarray.tobytes", "pickle.loads"]
CODE = "import pathlib; pathlib.Path('CANARY').write_text('ran')"
"""Of a module that lies in the box, or is run by a pickle. Commands run in the box's own folder: with `PYTHONPATH=.` it can be imported."""
ON_EXPORT = {
    "index": "multimodal index --export export --shards set --output new-store --device cpu",
    "search": 'multimodal search --store store --export export "image:photos/red-square-0.png"',
    "probe": "multimodal evaluate probe --data labelled --export export --device cpu",
    "zeroshot": "multimodal evaluate zeroshot --data labelled --export export --device cpu",
}
ON_SPACE = {
    "search": "multimodal search --store store red",
    "retrieval": "multimodal evaluate retrieval --store store --shards set --part all",
    "index": "multimodal index --export export --shards set --output new-store --column trunk --device cpu",
    "make-columns": "data-prep make-columns --space space --shards set --name again",
    "text-space show": "multimodal text-space show space",
    "export": "multimodal export --run run --space space --output new-export",
}


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (CODE,)


def called(class_path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": arguments}


RELATIVES = {
    "head: compose": ("head", called(COMPOSE, transforms=TO_PICKLE)),
    "head: a function": ("head", called("os.system", command="touch CANARY")),
    "head: exec": ("head", called("builtins.exec", object=CODE)),
    "head: timm.create_model": ("head", called("timm.create_model", model_name="hf-hub:nobody/nothing")),
    "head: torch.load": ("head", called("torch.load", f="pickle.pt", weights_only=False)),
    "head: a module in the box": ("head", called("beside.Head")),
    "head: a bare path": ("head", called("beside", dim_in=256)),
    "head: activation": ("head", called("multimodal.towers.Head", dim_in=256, dim_out=8, activation=called(COMPOSE, transforms=TO_PICKLE))),
    "head: activation by name": ("head", called("multimodal.towers.Head", dim_in=256, dim_out=8, activation="beside.Head")),
    "head: deep": ("head", called("torch.nn.Linear", in_features=called("beside.Head"), out_features=8)),
    "head: torch.nn.Module": ("head", called("torch.nn.ModuleList", modules=[called("beside.Head")])),
    "head: text tower": ("head", called("multimodal.towers.TextTower", encoder=called("multimodal.towers.HubEncoder", name="nobody/x"))),
    "trunk: compose": ("trunk", called(COMPOSE, transforms=TO_PICKLE)),
    "trunk: hub": (
        "trunk",
        called("multimodal.towers.Trunk", architecture="hf-hub:nobody/x", weights=called("multimodal.towers.NoWeights")),
    ),
    "trunk: local": ("trunk", called("multimodal.towers.Trunk", architecture="local-dir:.", weights=called("multimodal.towers.NoWeights"))),
    "trunk: weights": ("trunk", called("multimodal.towers.Trunk", architecture="test_efficientnet", weights=called("beside.Weights"))),
    "objective: compose": ("objective", called(COMPOSE, transforms=TO_PICKLE)),
    "objective: a module in the box": ("objective", called("beside.Objective")),
    "objective: argument": ("objective", called("multimodal.objectives.Clip", scale=called("beside.Scale"))),
}
"""Name -> the part of the card, and what it says there. The payload of the first is in the weights, as the bias of a layer."""


@pytest.fixture
def stranger(own_road: Road, monkeypatch: pytest.MonkeyPatch) -> Iterator[Road]:
    """A road whose own folder, and every box in it, holds code to import, and which stands first where Python looks for modules."""
    for folder in (own_road.folder, *(own_road.folder / box for box in ("export", "store", "store/query", "space", "export/query"))):
        (folder / "beside.py").write_text(CODE)
    (own_road.folder / "pickle.pt").write_bytes(pickle.dumps(Payload()))
    for name in ("red", "blue"):
        for part in ("train", "test"):
            shutil.copytree(
                own_road.folder / "photos",
                own_road.folder / "labelled" / part / name,
                ignore=lambda _, names, n=name: [each for each in names if not each.startswith(n) or not each.endswith(".png")],
            )
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setenv("PYTHONPATH", ".")
    yield own_road
    sys.modules.pop("beside", None)


def rewrite(box: Path, change: Any) -> None:
    manifest = json.loads((box / "manifest.json").read_text())
    change(manifest)
    (box / "manifest.json").write_text(json.dumps(manifest))


def disguise(road: Road, part: str, described: dict[str, Any]) -> None:
    """Make the road's export a stranger's: a part of its architecture says this, and its weights carry the payload.

    The trunk ends in a normalisation whose weight is zero and whose bias is the pickle, so that every picture's features are its bytes.
    """
    torch.manual_seed(0)
    trunk = Trunk("test_vit", NoWeights(), size=48)
    content = pickle.dumps(Payload())
    content += bytes(4 * trunk.dim - len(content))
    state = {f"trunk.{name}": tensor.contiguous() for name, tensor in trunk.state_dict().items()}
    state["trunk.model.norm.weight"] = torch.zeros(trunk.dim)
    state["trunk.model.norm.bias"] = torch.frombuffer(bytearray(content), dtype=torch.float32).clone()
    box = road.folder / "export"
    save_file(state, box / "weights.safetensors")
    wanted = fingerprint_file(box / "weights.safetensors")

    def change(manifest: dict[str, Any]) -> None:
        manifest["config"]["architecture"] |= {"trunk": trunk.recipe, part: described}
        manifest["config"]["preprocessing"] = trunk.preprocessing.as_json()
        manifest["parts"]["weights.safetensors"]["fingerprint"] = wanted

    rewrite(box, change)
    export = read_manifest(box, "export").fingerprint
    rewrite(road.folder / "store", lambda manifest: manifest["made_from"].update(export=export))


def assert_nothing_ran(road: Road) -> None:
    assert not list(road.folder.rglob("CANARY")) and "beside" not in sys.modules


@pytest.mark.parametrize("name", RELATIVES)
def test_an_export_that_names_code_runs_none_and_says_why(stranger: Road, name: str) -> None:
    part, described = RELATIVES[name]
    disguise(stranger, part, described)
    for command in ON_EXPORT.values():
        told = stranger.run(command)
        assert told.status == 2, told
        assert told.err.splitlines()[-1].startswith("error: ") and "Traceback" not in told.err
        assert any(why in told.err for why in ("--trust ", "has no architecture", "does not fit", "path of a class", "has no argument")), (
            told
        )
        assert_nothing_ran(stranger)
    assert not (stranger.folder / "new-store").exists()


def test_the_remedy_for_a_class_of_ones_own_is_the_option_with_its_package(stranger: Road) -> None:
    disguise(stranger, "head", called(COMPOSE, transforms=TO_PICKLE))
    told = stranger.run(ON_EXPORT["index"])
    assert f"names the class {COMPOSE}" in told.err and "neither imported nor run" in told.err and "add: --trust torchvision" in told.err
    told = stranger.run(f"{ON_EXPORT['index']} --trust torchvision")  # even so, names inside its arguments stay words
    assert told.status == 2 and "TypeError" not in told.err
    assert_nothing_ran(stranger)


@pytest.mark.parametrize("named", ["beside.Space", "os.system", "pickle.loads", "multimodal.cli.main", "torch.nn.Identity", "..", "beside"])
@pytest.mark.parametrize("box", ["space", "store/query", "export/query"])
def test_a_text_space_that_names_code_runs_none_in_any_command(stranger: Road, box: str, named: str) -> None:
    rewrite(stranger.folder / box, lambda manifest: manifest["config"].update({"class": named}))
    query = read_manifest(stranger.folder / box, "text-space").fingerprint
    if box == "store/query":
        rewrite(stranger.folder / "store", lambda manifest: manifest["made_from"].update(query=query))
    on = {
        "space": ("make-columns", "text-space show", "export"),
        "store/query": ("search", "retrieval"),
        "export/query": ("index",),
    }
    for command in on[box]:
        told = stranger.run(ON_SPACE[command])
        assert told.status == 2 and ("--trust " in told.err or "path of a" in told.err), (command, told)
        assert_nothing_ran(stranger)
    assert not (stranger.folder / "new-store").exists()


def test_articles_and_pictures_are_not_evaluated_by_a_text_space_that_names_code(stranger: Road) -> None:
    with ShardWriter(stranger.folder / "classed") as writer:
        for path in sorted((stranger.folder / "photos").glob("*.png")):
            colour = {"colour": path.stem.partition("-")[0]}
            writer.write(Pair(path.name, path.read_bytes(), "png", (f"a {colour['colour']} drawing",), path.stem, metadata=colour))
    made = stranger.run("multimodal index --export export --shards classed --output classed-store --device cpu")
    assert made.status == 0, made.err
    evaluate = "multimodal evaluate classes --store classed-store --shards classed --label colour --part all"
    assert stranger.run(evaluate).status == 0
    rewrite(stranger.folder / "classed-store/query", lambda manifest: manifest["config"].update({"class": "beside.Space"}))
    query = read_manifest(stranger.folder / "classed-store/query", "text-space").fingerprint
    rewrite(stranger.folder / "classed-store", lambda manifest: manifest["made_from"].update(query=query))
    told = stranger.run(evaluate)
    assert told.status == 2 and "--trust beside" in told.err, told
    assert_nothing_ran(stranger)


def test_serve_runs_nothing_of_a_store_that_names_code(stranger: Road) -> None:
    from fastapi.testclient import TestClient

    from multimodal.boxes import read_manifest
    from multimodal.search.store import Store
    from multimodal.serve.app import make_app

    rewrite(stranger.folder / "store/query", lambda manifest: manifest["config"].update({"class": "beside.Space"}))
    query = read_manifest(stranger.folder / "store/query", "text-space").fingerprint
    rewrite(stranger.folder / "store", lambda manifest: manifest["made_from"].update(query=query))
    reply = TestClient(make_app(Store(stranger.folder / "store"))).get("/api/search", params={"q": "red"})
    assert reply.status_code == 400 and "--trust beside" in reply.json()["error"]
    assert_nothing_ran(stranger)


def fits(file: Path, facts: dict[str, Any]) -> None:
    """Whoever makes a store to harm somebody writes a fingerprint that fits."""
    facts["fingerprint"] = fusion_fingerprint(np.load(file), facts)


@pytest.mark.parametrize(
    "named", ["beside.Way", "os.system", "pickle.loads", "builtins.exec", "multimodal.cli.main", "torch.nn.Identity", "..", "beside"]
)
def test_a_store_whose_way_to_combine_terms_names_code_runs_none_in_any_command(stranger: Road, named: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        [fusion] = [part for part in manifest["parts"] if part.startswith("fusion/")]
        manifest["parts"][fusion].update(class_path=named, init_args={"command": "touch CANARY"} if named == "os.system" else {})
        fits(stranger.folder / "store" / fusion, manifest["parts"][fusion])

    rewrite(stranger.folder / "store", change)
    added = "multimodal index --export export --shards set --output store --column trunk --device cpu --template 'a {}'"
    for command in ("multimodal search --store store red", "multimodal search --store store 'red + circle' --json", added):
        told = stranger.run(command)
        assert told.status == 2 and ("--trust " in told.err or "path of a" in told.err), (command, told)
        assert_nothing_ran(stranger)
    for command in ("multimodal verify store", "multimodal search --store store red --fusion product"):  # neither needs it
        told = stranger.run(command)
        assert told.status == (2 if command.endswith("store") and not may_be_a_class_of_another_package(named) else 0), (command, told)
        assert_nothing_ran(stranger)


def may_be_a_class_of_another_package(named: str) -> bool:
    return named not in ("multimodal.cli.main", "..", "beside")


@pytest.mark.parametrize("argument", [called("beside.Way"), called("os.system", command="touch CANARY"), "beside.Way", CODE])
def test_the_constants_of_a_way_to_combine_terms_are_numbers(stranger: Road, argument: Any) -> None:
    def change(manifest: dict[str, Any]) -> None:
        [fusion] = [part for part in manifest["parts"] if part.startswith("fusion/")]
        manifest["parts"][fusion]["init_args"] = {"sharpness": argument}
        fits(stranger.folder / "store" / fusion, manifest["parts"][fusion])

    rewrite(stranger.folder / "store", change)
    for command in ("multimodal search --store store red", "multimodal verify store"):
        told = stranger.run(command)
        assert told.status == 2 and "does not fit; expected float" in told.err, told
        assert_nothing_ran(stranger)


def test_a_calibration_is_no_pickle_and_no_link(stranger: Road) -> None:
    [file] = (stranger.folder / "store/fusion").iterdir()
    whole = file.read_bytes()
    np.save(file, np.array([Payload()]), allow_pickle=True)
    told = stranger.run("multimodal search --store store red")
    assert told.status == 2 and file.name in told.err, told
    file.write_bytes(whole)
    assert stranger.run("multimodal search --store store red").status == 0
    file.rename(stranger.folder / "elsewhere.npy")
    file.symlink_to("../../elsewhere.npy")
    told = stranger.run("multimodal search --store store red")
    assert told.status == 2 and "leads out of" in told.err, told
    assert_nothing_ran(stranger)


def test_a_trusted_package_is_not_taken_from_the_box_itself(stranger: Road) -> None:
    rewrite(stranger.folder / "space", lambda manifest: manifest["config"].update({"class": "inside.Space"}))
    (stranger.folder / "space" / "inside.py").write_text(CODE)
    sys.path.insert(0, str(stranger.folder / "space"))
    try:
        told = stranger.run("multimodal text-space show space --trust inside")
    finally:
        sys.path.remove(str(stranger.folder / "space"))
    assert told.status == 2 and "would be imported from this very folder" in told.err
    assert_nothing_ran(stranger)


EXPORT = "multimodal export --run run --space space --output new-export"


def rewrite_run(road: Road, **model: Any) -> None:
    config = yaml.safe_load((road.folder / "run/config.yaml").read_text())
    config["model"].update(model)
    (road.folder / "run/config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("part", ["image_tower", "target_side", "objective"])
@pytest.mark.parametrize("named", ["beside.Head", "os.system", COMPOSE])
def test_a_run_that_names_code_is_not_exported_without_trust(stranger: Road, part: str, named: str) -> None:
    rewrite_run(stranger, **{part: called(named)})
    told = stranger.run(EXPORT)
    assert told.status == 2 and f"--trust {named.partition('.')[0]}" in told.err
    assert_nothing_ran(stranger)


OWN = """
import torch.nn.functional as F
from multimodal.objectives import RowObjective


class Huber(RowObjective):
    def __init__(self, delta: float = 1.0, norms: list[int] | None = None):
        super().__init__()
        self.delta = delta

    def row_loss(self, image, text):
        return F.huber_loss(image, text, reduction="none", delta=self.delta).mean(dim=1)
"""


MEANING = """
    def output(self, image):
        return image * 2
"""


@pytest.mark.parametrize("meaning", ["", MEANING], ids=["output of ours", "output of its own"])
def test_a_run_with_an_objective_of_ones_own_goes_the_whole_road_with_trust(
    own_road: Road, monkeypatch: pytest.MonkeyPatch, meaning: str
) -> None:
    """Opening the export needs its package only where its `output` is code of its own: nothing else of an objective is in an export."""
    (own_road.folder / "code/mypackage").mkdir(parents=True)
    (own_road.folder / "code/mypackage/__init__.py").touch()
    (own_road.folder / "code/mypackage/huber.py").write_text(OWN + meaning)
    monkeypatch.syspath_prepend(str(own_road.folder / "code"))
    try:
        fit = "multimodal fit --config recipe.yaml --data.shards set --run mine --model.objective mypackage.huber.Huber"
        assert own_road.run(fit).status == 0
        for number, command in enumerate(
            (
                "multimodal export --run mine --space space --output mine-export",
                "multimodal index --export mine-export --shards set --output mine-store --column trunk --device cpu",
                'multimodal search --store mine-store --export mine-export "image:photos/red-square-0.png"',
            )
        ):
            told = own_road.run(command)
            if number and not meaning:
                assert told.status == 0, told.err
                continue
            assert told.status == 2 and "names the class mypackage.huber.Huber" in told.err and "add: --trust mypackage" in told.err
            told = own_road.run(f"{command} --trust mypackage")
            assert told.status == 0, told.err
    finally:
        for name in ("mypackage", "mypackage.huber"):
            sys.modules.pop(name, None)


def test_a_column_s_trunk_is_made_of_our_classes_and_neither_file_nor_hub_is_asked(stranger: Road) -> None:
    column = stranger.folder / "set/columns/trunk"

    def name(weights: dict[str, Any]) -> str:
        rewrite(column, lambda manifest: manifest["config"]["trunk"]["init_args"].update(weights=weights))
        (stranger.folder / "run/manifest.json").unlink(missing_ok=True)  # a run is checked against the column that it learnt from
        (stranger.folder / "run/made_from.json").write_text("{}")
        told = stranger.run(EXPORT)
        assert told.status == 2
        assert_nothing_ran(stranger)
        return told.err

    assert "--trust beside" in name(called("beside.Weights"))
    assert "--trust torch" in name(called("torch.load", f="pickle.pt"))
    hub = name(called("multimodal.towers.HubWeights", tag="in1k"))
    assert "--trunk.weights multimodal.towers.HubWeights" in hub and "--trunk.weights.tag in1k" in hub and "nothing is opened" in hub
    file = name(called("multimodal.towers.FileWeights", path="pickle.pt"))
    assert "--trunk.weights multimodal.towers.FileWeights" in file and "--trunk.weights.path pickle.pt" in file


def test_a_remedy_for_weights_in_a_file_works_as_it_is_printed(own_road: Road) -> None:
    trunk = Trunk("test_efficientnet", NoWeights(3), size=48)
    save_file({name: tensor.contiguous() for name, tensor in trunk.model.state_dict().items()}, own_road.folder / "w.safetensors")
    weights = "--trunk.weights multimodal.towers.FileWeights --trunk.weights.path w.safetensors"
    for command in (
        f"multimodal embed --shards set --name filed --trunk.architecture test_efficientnet {weights} --trunk.size 48 --device cpu",
        "multimodal fit --config recipe.yaml --data.shards set --run filed --data.image.init_args.name filed",
    ):
        told = own_road.run(command)
        assert told.status == 0, told.err
    command = "multimodal export --run filed --space space --output filed-export"
    told = own_road.run(command)
    assert told.status == 2 and "add: " in told.err
    told = own_road.run(f"{command} {told.err.partition('add: ')[2].strip()}")
    assert told.status == 0, told.err


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "a//b", "C:secret", "a\\b", "a\0b", None, 7])
def test_names_that_lead_out_of_a_box_are_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(InputError, match="may be outside this folder"):
        box_file(tmp_path, name)


def test_links_that_lead_out_of_a_box_are_refused_and_not_copied(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "box/folder").mkdir(parents=True)
    (tmp_path / "box/manifest.json").write_text("{}")
    (tmp_path / "box/within").symlink_to("manifest.json")
    assert box_file(tmp_path / "box", "within").is_file()
    (tmp_path / "box/folder/out").symlink_to("../../secret")
    with pytest.raises(InputError, match="is a link that leads out of"):
        box_file(tmp_path / "box", "folder/out")
    with pytest.raises(InputError, match="is a link that leads out of"):
        copy_box(tmp_path / "box", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("export/weights.safetensors", ON_EXPORT["index"]),
        ("export/query", ON_EXPORT["index"]),
        ("export/query/vocab.txt", ON_EXPORT["index"]),
        ("store/query", ON_SPACE["search"]),
        ("store/query/normaliser.json", ON_SPACE["search"]),
        ("store/segments/000000", ON_SPACE["search"]),
        ("store/segments/000000/rows.npy", ON_SPACE["search"]),
        ("store/segments/000000/metadata.parquet", ON_SPACE["search"]),
        ("space/weights.safetensors", ON_SPACE["make-columns"]),
        ("set/columns/trunk/000000.npy", ON_SPACE["index"]),
    ],
)
def test_a_link_in_a_box_is_refused_by_the_command_that_would_follow_it(stranger: Road, file: str, command: str) -> None:
    path, outside = stranger.folder / file, stranger.folder / "elsewhere"
    path.rename(outside)
    path.symlink_to(os.path.relpath(outside, path.parent))
    told = stranger.run(command)
    assert told.status == 2 and "leads out of" in told.err and "replace the link with a copy" in told.err, told
    assert not (stranger.folder / "new-store" / "segments").exists()


@pytest.mark.parametrize("name", ["../../photos/x", "/etc/passwd"])
def test_absolute_paths_and_parents_in_manifests_are_refused(stranger: Road, name: str) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        parts = manifest["parts"]
        parts[f"{name}.npy"] = parts.pop(sorted(parts)[0])

    rewrite(
        stranger.folder / "set/columns/trunk", lambda manifest: manifest["parts"].update({f"{name}.npy": {"num_pairs": 1, "num_rows": 1}})
    )
    with pytest.raises(InputError, match="may be outside this folder"):
        Column(stranger.folder / "set/columns/trunk").take(torch.arange(46).numpy())
    for box, command in (("space", "multimodal text-space show space"), ("set", "multimodal shards stats set")):
        rewrite(stranger.folder / box, rename)
        told = stranger.run(command)
        assert told.status == 2 and "may be outside this folder" in told.err, told
    rewrite(stranger.folder / "store", lambda manifest: manifest["parts"].update({f"tombstones/{name}.npy": {"ids": 0}}))
    told = stranger.run(ON_SPACE["search"])
    assert told.status == 2 and "may be outside this folder" in told.err


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    BertModel(BertConfig(vocab_size=13, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        path
    )
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", {"auto_map": {"AutoModel": "beside.Model"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["beside.Tokenizer", None]}}),
        ("config.json", {"_attn_implementation": "nobody/kernels"}),
        ("config.json", {"model_type": ["bert"]}),
        ("config.json", {"model_type": "timm_wrapper", "architecture": "hf-hub:nobody/model", "num_classes": 2}),
        ("config.json", {"vision_config": {"model_type": "timm_backbone", "backbone": "hf-hub:nobody/model"}}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "nobody/repo--beside.Model"}}}),
    ],
)
def test_an_encoder_folder_that_names_code_is_refused_and_asks_nothing(bert: Path, tmp_path: Path, file: str, settings: Any) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "bert"))
    (folder / "beside.py").write_text(CODE.replace("CANARY", str(tmp_path / "CANARY")))
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | settings))
    for opened in (lambda: EncoderSpace(folder), lambda: TextTower(FolderEncoder(folder))):
        with pytest.raises(InputError, match="names code to run that comes with the encoder"):
            opened()
    assert not (tmp_path / "CANARY").exists()


def test_an_encoder_without_safetensors_is_not_read_from_a_pickle(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "bert"))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises((InputError, OSError), match="safetensors"):
        TextTower(FolderEncoder(folder))
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        EncoderSpace(folder)
    assert not Path("CANARY").exists()


def test_a_package_s_name_with_a_dot_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/__init__.py").write_text(CODE.replace("CANARY", str(tmp_path / "CANARY")))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="is not installed"):
        package_folder("beside.model")
    with pytest.raises(InputError, match="unknown weights package"):
        PackageWeights("beside.model")
    assert not (tmp_path / "CANARY").exists()


@pytest.mark.parametrize(
    "architecture", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "hf_hub:x/y", "/etc/passwd", "https://x/resnet18"]
)
def test_an_architecture_is_a_name_of_timm_and_no_address(architecture: str) -> None:
    with pytest.raises(InputError, match="timm has no architecture"):
        Trunk(architecture, NoWeights())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim_in": "256", "dim_out": 8}, "dim_in='256' does not fit; expected int"),
        ({"dim_in": True, "dim_out": 8}, "dim_in=True does not fit"),
        ({"dim_in": 256, "dim_out": 8, "hidden": [1]}, "hidden=.* does not fit"),
        ({"dim_in": 256, "dim_out": -1}, "cannot be made with"),
        ({"dim_in": 256}, "cannot be made with"),
        ({"dim_in": 256, "dim_out": 8, "depth": 3}, "has no argument 'depth'. It has: dim_in, dim_out"),
        ([256, 8], "expected names with values"),
    ],
)
def test_arguments_are_checked_against_the_signature(tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Builder(tmp_path, SLOTS).build({"class_path": "multimodal.towers.Head", "init_args": arguments}, torch.nn.Module, HEADS)


def test_activations_of_torch_are_made_with_their_arguments(road: Road) -> None:
    described = called("multimodal.towers.Head", dim_in=4, dim_out=2, activation=called("torch.nn.modules.activation.Softmax", dim=1))
    head = Builder(road.folder, SLOTS).build(described, torch.nn.Module, HEADS)
    assert isinstance(head.activation, torch.nn.Softmax) and head.activation.dim == 1
    assert load_export(road.folder / "export").network.head.activation is None and len(ShardSet(road.folder / "set")) == 45


def test_a_trusted_package_that_lies_in_the_store_around_the_query_side_is_not_imported(
    stranger: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stranger.folder / "store"
    (store / "beside_the_query.py").write_text(CODE.replace("CANARY", str(tmp_path / "CANARY")))
    monkeypatch.syspath_prepend(store)
    with pytest.raises(InputError, match="would be imported from this very folder"):
        find_class("beside_the_query.Space", {}, object, store / "query", ["beside_the_query"])
    assert not (tmp_path / "CANARY").exists()
