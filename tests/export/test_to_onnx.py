"""Exports as ONNX: equal to torch, usable without it, remade when they should be; and files that are not what an export writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
import torch
from onnx import TensorProto
from torch import nn

import multimodal as mm
from multimodal.boxes import MANIFEST, fingerprint_file, read_manifest, write_manifest
from multimodal.boxes.manifests import Manifest
from multimodal.cli import main
from multimodal.embed.stores import index
from multimodal.errors import InputError
from multimodal.export.light import LightTower, light_tower
from multimodal.export.model import export, load_export
from multimodal.export.to_onnx import encoders_in, is_there, text_graph
from multimodal.objectives import Clip
from multimodal.onnx import OnnxNetwork, network_in
from multimodal.onnx.safety import check_graph
from multimodal.search.store import Store
from multimodal.text import EncoderSpace, JoinedSpace, open_space
from multimodal.text.pooling import Pooling
from multimodal.text.tokens import padded
from multimodal.towers import FolderEncoder, Head, TextTower
from multimodal.verify import problems_of
from tests.export.test_model import DIM, NUM, described, encoded, trained_head, world, write_run

__all__ = ["world"]  # fixtures
QUERIES = ["a dog", "snow: a woman on the beach", "x", "", "an old cat " * 40, "a dog"]
TOLERANCE = 1e-5


def tower_run(path: Path, world: Path, bert: Path, pooling: Pooling = "mean", hidden: int | None = None, **usage: Any) -> Path:
    """A run with a text tower on a tiny encoder, under a head. usage: its prompt and long_texts."""
    head = Head(16, DIM, hidden=hidden).eval()
    tower = TextTower(FolderEncoder(bert), head, max_tokens=20, pooling=pooling, **usage).eval()
    described_head = described("multimodal.towers.Head", dim_in=16, dim_out=DIM, hidden=hidden)
    folder = described("multimodal.towers.FolderEncoder", path=str(bert))
    side = described("multimodal.towers.TextTower", encoder=folder, head=described_head, max_tokens=20, pooling=pooling, **usage)
    captions = described("multimodal.data.Captions")
    return write_run(path, world, trained_head(), Clip(), target_side=tower, config_target_side=side, target=captions)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, world: Path, tiny_bert: Path) -> Path:
    """The export `plain`, the same with ONNX as `export`, its store, and a folder of picture files."""
    path = tmp_path_factory.mktemp("onnx")
    export(tower_run(path / "run", world, tiny_bert), path / "plain", encoder=FolderEncoder(tiny_bert))
    shutil.copytree(path / "plain", path / "export")
    assert main(["export", "--output", str(path / "export"), "--onnx"]) == 0
    index(path / "export", world / "set", path / "store", device="cpu")
    for number in range(NUM):
        (path / f"{number}.png").write_bytes(encoded(number))
    return path


def tower(path: Path) -> LightTower:
    found = light_tower(path)
    assert found is not None
    return found


def network(space: object) -> OnnxNetwork:
    found = getattr(space, "network", None)
    assert isinstance(found, OnnxNetwork)
    return found


def test_pictures_have_the_vectors_of_torch(made: Path) -> None:
    files = [made / f"{number}.png" for number in range(NUM)]
    wanted = load_export(made / "plain").embed_image_files(files)
    np.testing.assert_allclose(tower(made / "export").embed_image_files(files), wanted, atol=TOLERANCE)


def test_texts_have_the_vectors_of_torch_alone_and_among_others(made: Path) -> None:
    plain, light = open_space(made / "plain/query"), open_space(made / "export/query")
    assert network(light).dim == DIM and getattr(plain, "network") is None  # noqa: B009
    wanted = plain.embed(QUERIES)
    np.testing.assert_allclose(light.embed(QUERIES), wanted, atol=TOLERANCE)
    np.testing.assert_allclose(np.concatenate([light.embed([query]) for query in QUERIES]), wanted, atol=TOLERANCE)
    assert not light.embed([""]).any() and light.embed([]).shape == (0, DIM)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, made: Path, world: Path, tiny_bert: Path) -> Path:
    """`hidden`: an encoder under a head with a hidden layer, in int8; `words`: a text side without a network."""
    path = tmp_path_factory.mktemp("others")
    run = tower_run(path / "run", world, tiny_bert, "cls", hidden=6, prompt="query: ")
    encoder = ["--encoder", "multimodal.towers.FolderEncoder", "--encoder.path", str(tiny_bert)]
    assert main(["export", "--run", str(run), "--output", str(path / "hidden"), *encoder, "--onnx", "--int8"]) == 0
    export(write_run(path / "words run", world, trained_head(), Clip()), path / "words", world / "space")
    assert main(["export", "--output", str(path / "words"), "--onnx"]) == 0
    return path


def test_int8_is_near_and_a_row_depends_on_its_own_text_alone(others: Path) -> None:
    folder = others / "hidden/query/space/onnx"  # layers stay on top of it
    assert read_manifest(folder, "onnx").config["precision"] == "int8" and not list(problems_of(others / "hidden"))
    texts = open_space(others / "hidden/query")
    together = texts.embed(QUERIES)
    np.testing.assert_array_equal(together, np.concatenate([texts.embed([query]) for query in QUERIES]))  # though scales are one a call
    texts.__dict__["space"].network = None
    wanted = texts.embed(QUERIES)
    assert (together * wanted).sum(axis=1)[wanted.any(axis=1)].min() > 0.95 and np.abs(together - wanted).max() > TOLERANCE


def test_a_text_side_without_a_network_leaves_that_of_pictures_the_same_bytes_each_time(
    made: Path, others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [file.name for file in sorted((others / "words").rglob("*.onnx"))] == ["image.onnx"]
    assert fingerprint_file(others / "words/onnx/image.onnx") == fingerprint_file(made / "export/onnx/image.onnx")
    assert main(["export", "--output", str(others / "words"), "--onnx", "--int8"]) == 2
    assert "a WordSpace, which has no network that could be int8" in capsys.readouterr().err


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_what_becomes_onnx_gives_the_rows_of_the_space(tiny_bert: Path, pooling: Pooling) -> None:
    space = EncoderSpace(tiny_bert, device="cpu", pooling=pooling, prompt="of: ").with_projection(np.eye(3, 16), np.ones(3))
    tokens = [space._encode(query).ids for query in QUERIES if query]
    with torch.inference_mode():
        made = text_graph(space).network(*map(torch.from_numpy, padded(tokens)))
    np.testing.assert_allclose(made, space.embed([query for query in QUERIES if query]), atol=TOLERANCE)


@pytest.mark.parametrize("hidden", [None, 6])
def test_pieces_of_long_texts_are_averaged_before_they_are_projected(
    world: Path, tiny_bert: Path, tmp_path: Path, hidden: int | None
) -> None:
    texts = [*QUERIES, "A dog runs on the beach. Two cats sleep in the snow! Where is she?"]
    run = tower_run(tmp_path / "run", world, tiny_bert, hidden=hidden, prompt="q: ", long_texts="pool")
    export(run, tmp_path / "export", encoder=FolderEncoder(tiny_bert))
    wanted = open_space(tmp_path / "export/query").embed(texts)
    assert main(["export", "--output", str(tmp_path / "export"), "--onnx"]) == 0
    light = open_space(tmp_path / "export/query")
    assert network(light if hidden is None else light.__dict__["space"]).dim == 16, "it ends below the projection"
    np.testing.assert_allclose(light.embed(texts), wanted, atol=TOLERANCE)
    beginning = EncoderSpace(tiny_bert, max_tokens=20, device="cpu", prompt="q: ").embed(texts)
    whole = EncoderSpace(tiny_bert, max_tokens=20, device="cpu", prompt="q: ", long_texts="pool").embed(texts)
    assert np.abs(whole[-1] - beginning[-1]).max() > 10 * TOLERANCE, "one of the texts is long"


def test_encoders_in_joined_spaces_have_networks_too(made: Path, world: Path, tmp_path: Path) -> None:
    encoder, words = open_space(made / "plain/query"), open_space(world / "space")
    JoinedSpace([words, encoder]).save(tmp_path / "joined")
    wanted = open_space(tmp_path / "joined").embed(QUERIES)
    places = dict(encoders_in(open_space(tmp_path / "joined"), tmp_path / "joined"))
    assert list(places) == [tmp_path / "joined/spaces/1"]
    shutil.copytree(made / "export/query/onnx", tmp_path / "joined/spaces/1/onnx")
    joined = open_space(tmp_path / "joined")
    assert isinstance(joined, JoinedSpace) and network(joined.spaces[1])
    np.testing.assert_allclose(joined.embed(QUERIES), wanted, atol=TOLERANCE)
    assert not list(problems_of(tmp_path / "joined"))
    (tmp_path / "joined/spaces/1/onnx/text.onnx").write_bytes(b"")
    assert any("spaces/1" in str(problem) for problem in problems_of(tmp_path / "joined"))


WITHOUT_TORCH = """
import json, sys
for name in ("torch", "transformers", "open_clip", "timm", "torchvision", "simplejpeg"):
    sys.modules[name] = None
from multimodal.cli import main
from multimodal.search.store import Store
store, export, picture = sys.argv[1:]
assert main(["search", "--store", store, "dog + snow", "--json"]) == 0
print("---")
assert main(["search", "--store", store, f"image:{picture} + snow", "--export", export, "--json"]) == 0
print("---")
from multimodal.serve.app import make_app
from starlette.testclient import TestClient
print(TestClient(make_app(Store(store))).get("/api/search", params={"q": "dog + snow"}).text)
print("---")
from PIL import Image
print(json.dumps([hit.id for hit in Store(store).search(Image.open(picture), model=export)]))
"""


def without_torch(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def test_search_and_serve_answer_without_torch_as_with_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = without_torch(WITHOUT_TORCH, made / "store", made / "export", made / "3.png")
    assert done.returncode == 0, done.stderr
    words, picture, served, shown = map(json.loads, done.stdout.split("---\n"))
    store, plain = Store(made / "store"), load_export(made / "export")
    network_of = store.query_space.__dict__
    network_of["network"] = None
    for found, wanted in (
        (words, store.search("dog + snow")),
        (served, store.search("dog + snow")),
        (picture, store.search(f"image:{made / '3.png'} + snow", model=plain)),
    ):
        assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in wanted]
        np.testing.assert_allclose([hit["score"] for hit in found["hits"]], [hit.score for hit in wanted], atol=1e-4)
    assert shown == [hit.id for hit in store.search(f"image:{made / '3.png'}", model=plain)]
    assert shown[0] == 3


def test_without_torch_and_onnx_both_ways_out_are_named(made: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    shutil.rmtree(store / "query/onnx")
    code = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from multimodal.cli import main; "
    done = without_torch(f"{code} sys.exit(main(['search', '--store', sys.argv[1], 'dog']))", store)
    assert done.returncode == 2 and "[train]" in done.stderr and "multimodal export --output EXPORT --onnx" in done.stderr


def test_without_onnxruntime_torch_is_used_and_without_both_the_extra_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    space, wanted = open_space(made / "export/query"), open_space(made / "plain/query").embed(QUERIES)
    assert getattr(space, "network") is None and light_tower(made / "export") is None  # noqa: B009
    np.testing.assert_array_equal(space.embed(QUERIES), wanted)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"needs onnxruntime.*\[search\]"):
        light_tower(made / "export")


def test_the_box_is_the_same_with_onnx_and_without_and_a_store_gets_what_its_export_has_now(
    made: Path, world: Path, tmp_path: Path
) -> None:
    assert fingerprint_file(made / "plain" / MANIFEST) == fingerprint_file(made / "export" / MANIFEST)
    store = index(made / "plain", world / "set", tmp_path / "store", device="cpu")
    assert not (store / "query/onnx").exists()
    index(made / "export", world / "set", store, device="cpu")
    assert not list(problems_of(store)) and not list(problems_of(made / "export"))
    wanted = Store(made / "store")
    np.testing.assert_array_equal(Store(store).rows, wanted.rows)
    assert [hit.id for hit in Store(store).search("dog")] == [hit.id for hit in wanted.search("dog")]
    before = (store / "query/onnx" / MANIFEST).stat().st_mtime_ns
    index(made / "export", world / "set", store, device="cpu")
    assert (store / "query/onnx" / MANIFEST).stat().st_mtime_ns == before


def test_what_is_there_is_kept(made: Path) -> None:
    files = [made / "export/onnx" / MANIFEST, made / "export/query/onnx" / MANIFEST]
    before = [file.stat().st_mtime_ns for file in files]
    assert main(["export", "--output", str(made / "export"), "--onnx"]) == 0
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.parametrize("change", ["missing", "changed", "int8", "of another"])
def test_what_is_damaged_or_other_than_what_is_asked_for_is_made_again(made: Path, tmp_path: Path, change: str) -> None:
    folder = Path(shutil.copytree(made / "export/onnx", tmp_path / "onnx"))
    made_from, precision = dict(read_manifest(folder, "onnx").made_from), "float32"
    assert is_there(folder, made_from, precision)
    if change == "missing":
        (folder / "image.onnx").unlink()
    elif change == "changed":
        (folder / "image.onnx").write_bytes(b"")
    elif change == "int8":
        precision = "int8"
    else:
        made_from = {"export": "0" * 64}
    assert not is_there(folder, made_from, precision)


def test_a_network_opens_and_is_verified_by_itself(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = mm.open(made / "export/query/onnx")
    assert isinstance(opened, OnnxNetwork) and "text.onnx, float32, 4 dimensions" in repr(opened)
    assert main(["verify", str(made / "export/query/onnx")]) == main(["verify", str(made / "store")]) == 0
    assert "query/onnx/text.onnx: float32, for onnxruntime; at most" in capsys.readouterr().out


def test_files_hold_no_paths_of_this_machine(made: Path) -> None:
    for name in ("onnx/image.onnx", "query/onnx/text.onnx"):
        content = (made / "export" / name).read_bytes()
        assert b".py" not in content and str(Path(nn.__file__).parents[2]).encode() not in content


def test_a_flag_without_its_other_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--output", str(made / "export"), "--onnx", "--long-texts", "pool"]) == 2
    assert "--long-texts belongs to a new export" in capsys.readouterr().err
    assert main(["export", "--output", str(tmp_path / "none"), "--onnx"]) == 2
    assert "give --run" in capsys.readouterr().err
    assert main(["export", "--output", str(tmp_path / "none"), "--int8"]) == 2
    assert "Add --onnx" in capsys.readouterr().err


def test_an_end_of_text_pooling_is_refused(world: Path, tiny_bert: Path) -> None:
    with pytest.raises(InputError, match="pooling eot"):
        text_graph(EncoderSpace(tiny_bert, device="cpu", pooling="eot"))


# -- files that are not what an export writes ----------------------------------------------------------------------------------------------


def box(path: Path, model: onnx.ModelProto | bytes, dim: int = DIM) -> Path:
    """A box with a network of somebody's own, of text-space "it"."""
    path.mkdir(parents=True)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (path / "text.onnx").write_bytes(content)
    parts = {"text.onnx": {"size_bytes": len(content), "fingerprint": fingerprint_file(path / "text.onnx")}}
    config = {"graph": "text.onnx", "precision": "float32", "dim": dim, "difference": 0.0}
    write_manifest(path, Manifest("onnx", config, made_from={"text-space": "it"}, parts=parts))
    return path


def model_of(nodes: Sequence[onnx.NodeProto], *weights: TensorProto, domain: str = "") -> onnx.ModelProto:
    given = onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", DIM])
    got = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", DIM])
    opsets = [onnx.helper.make_opsetid("", 20), *([onnx.helper.make_opsetid(domain, 1)] if domain else [])]
    graph = onnx.helper.make_graph(list(nodes), "g", [given], [got], list(weights))
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def external(path: str = "../../secret.bin") -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[DIM], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=path)
    return tensor


IDENTITY = onnx.helper.make_node("Identity", ["x"], ["y"])
ADD = onnx.helper.make_node("Add", ["x", "w"], ["y"])


def loop() -> onnx.ModelProto:
    body = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["c"], ["d"])], "b", [], [])
    return model_of([onnx.helper.make_node("Loop", ["", ""], ["y"], body=body), IDENTITY])


def constant() -> onnx.ModelProto:
    return model_of([onnx.helper.make_node("Constant", [], ["w"], value=external("/etc/hostname")), ADD])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (model_of([ADD], external()), "has weights in another file, which no export has"),
        (model_of([ADD], external("/dev/zero")), "has weights in another file"),
        (constant(), "has weights in another file"),
        (loop(), "has a graph inside its operator Loop"),
        (model_of([onnx.helper.make_node("Own", ["x"], ["y"], domain="mine")], domain="mine"), "cannot be read"),
        (model_of([IDENTITY]).SerializeToString()[:-7], "cannot be read"),
        (b"", "cannot be read"),
        (b"not a network at all", "cannot be read"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "cannot be read"),
    ],
)
def test_a_file_that_asks_for_others_or_is_damaged_is_refused(tmp_path: Path, model: onnx.ModelProto | bytes, reason: str) -> None:
    made = OnnxNetwork(box(tmp_path / "box", model), {"text-space": "it"})
    with pytest.raises(InputError, match=reason):
        made.run(x=np.ones((1, DIM), np.float32))


def test_every_cut_of_a_file_is_an_error_of_the_file(tmp_path: Path, made: Path) -> None:
    content = model_of([ADD], onnx.helper.make_tensor("w", TensorProto.FLOAT, [DIM], [1.0] * DIM)).SerializeToString()
    for stop in range(len(content)):
        (tmp_path / "cut.onnx").write_bytes(content[:stop])
        try:
            check_graph(tmp_path / "cut.onnx")
        except InputError as error:
            assert "cut.onnx" in str(error)
    check_graph(made / "export/onnx/image.onnx")


def test_other_inputs_and_other_shapes_are_errors_that_name_the_file(tmp_path: Path) -> None:
    fits = OnnxNetwork(box(tmp_path / "fits", model_of([IDENTITY])), {"text-space": "it"})
    np.testing.assert_array_equal(fits.run(x=np.ones((2, DIM), np.float32)), np.ones((2, DIM)))
    wider = OnnxNetwork(box(tmp_path / "wider", model_of([IDENTITY]), dim=DIM + 1), {"text-space": "it"})
    for wrong, inputs in ((fits, {"z": np.ones((2, DIM), np.float32)}), (wider, {"x": np.ones((2, DIM), np.float32)})):
        with pytest.raises(InputError, match=r"text\.onnx: "):
            wrong.run(**inputs)


def test_a_network_of_another_export_or_with_another_file_is_refused_and_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was made from the export .* and this one is 000000000000"):
        network_in(made / "export", {"export": "0" * 64}, DIM)
    with pytest.raises(InputError, match="gives vectors of 4 dimensions, and 5 are needed"):
        network_in(made / "export", read_manifest(made / "export/onnx", "onnx").made_from, DIM + 1)
    path = Path(shutil.copytree(made / "export", tmp_path / "export"))
    content = bytearray((path / "query/onnx/text.onnx").read_bytes())
    content[-1] ^= 1
    (path / "query/onnx/text.onnx").unlink()
    (path / "query/onnx/text.onnx").write_bytes(content)
    with pytest.raises(InputError, match="text.onnx: not the file that this network was saved with"):
        open_space(path / "query")
    assert any("text.onnx" in str(problem) for problem in problems_of(path))
    (path / "onnx/image.onnx").unlink()
    (path / "onnx/image.onnx").symlink_to(made / "export/onnx/image.onnx")
    with pytest.raises(InputError, match="is a link that leads out of"):
        light_tower(path)
