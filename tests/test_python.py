"""`import multimodal as mm`: every name, every kind of box, and jobs that take opened boxes and return what they made, opened."""

from __future__ import annotations

import ast
import inspect
import pickle
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multimodal as mm
from multimodal.boxes import Manifest, read_manifest, write_manifest
from multimodal.errors import install_command
from multimodal.search.query import search

WITHOUT = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))\nimport multimodal as mm\n"


def run(code: str, *arguments: object, without: str = "none") -> str:
    """What a fresh process prints that has none of some packages."""
    command = [sys.executable, "-c", WITHOUT + code, without, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def boxes(road) -> Path:
    """The folder of the road's boxes."""
    return road.folder


@pytest.fixture(scope="module")
def store(boxes) -> mm.Store:
    return mm.open(boxes / "store")


@pytest.fixture(scope="module")
def model(boxes) -> mm.Export:
    return mm.open(boxes / "export")


# -- names ---------------------------------------------------------------------------------------------------------------------------------


def test_what_type_checkers_see_is_what_there_is() -> None:
    block = next(node for node in ast.parse(Path(mm.__file__).read_text()).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    assert {(alias.asname, node.module) for node in imports for alias in node.names} == set(mm._HOME.items())


@pytest.mark.parametrize("name", sorted(mm._HOME))
def test_a_name_is_what_its_room_has(name: str) -> None:
    found, wanted = getattr(mm, name), getattr(import_module(mm._HOME[name]), name)
    assert name in dir(mm)
    if name in mm._ROOMS:
        assert inspect.signature(found) == inspect.signature(wanted) and found is import_module(f"multimodal.{name}")
    else:
        assert found is wanted


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(mm, "opne")


def test_a_room_that_is_called_is_still_a_room() -> None:
    """Whatever was imported first: `multimodal.export` is the room that holds `model`, and the job."""
    code = "import multimodal.export.card, multimodal.verify\n"
    code += "print(callable(mm.export), callable(mm.verify), mm.export.card.Card.__name__, mm.verify.problems_of.__name__)"
    assert run(code).split() == ["True", "True", "Card", "problems_of"]


# -- opening -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "kind", "told"),
    [
        ("set", "ShardSet", "45 pairs in 3 shards"),
        ("space", "WordSpace", "wordvec, 8 dimensions, "),
        ("set/columns/trunk", "Column", "45 rows of 256 for 45 pairs, one per pair"),
        ("run", "Run", "2 epochs, "),
        ("export", "Export", "wordvec, 8 dimensions, pictures through test_efficientnet on cpu"),
        ("store", "Store", "45 pictures, wordvec, 8 dimensions"),
    ],
)
def test_a_box_opens_as_what_it_is_and_says_so_on_one_line(boxes: Path, box: str, kind: str, told: str) -> None:
    opened = mm.open(str(boxes / box))
    assert type(opened).__name__ == kind
    assert repr(opened).startswith(f"{kind}({str(boxes / box)!r}: ") and told in repr(opened) and "\n" not in repr(opened)


def test_a_column_comes_with_its_set(boxes, monkeypatch) -> None:
    column = mm.open(boxes / "set/columns/words")
    assert column.shards is not None and len(column.shards) == len(column) == 45
    monkeypatch.chdir(boxes / "set/columns")
    assert len(mm.open("words").shards) == 45


def test_a_run_has_its_settings_its_figures_and_its_checkpoint(boxes) -> None:
    run = mm.open(boxes / "run")
    assert run.config["data"]["batch_size"] == 8 and run.checkpoint == boxes / "run/checkpoints/best.ckpt"
    recalls = [row["val/R@10"] for row in run.metrics if "val/R@10" in row]
    assert len(recalls) == 2 and run.best["val/R@10"] == max(recalls) and run.monitor == "val/R@10"
    assert {"epoch", "step", "train/loss"} <= run.metrics[0].keys()


def test_a_space_that_was_fitted_is_saved_and_opened(tmp_path) -> None:
    texts = ["a dog on the beach", "people on the beach", "snow and a dog", "people in the snow"]
    space = mm.fit_topics(texts, num_topics=2, passes=2, min_count=1)
    assert "not saved" in repr(space) and "topic, 2 dimensions" in repr(space)
    space.save(tmp_path / "lda")
    opened = mm.open(tmp_path / "lda")
    assert repr(opened) == repr(space) and np.array_equal(opened.embed(texts), space.embed(texts))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "nothing", "does not exist"),
        (lambda folder: file_in(folder), "is a file; a box is a folder with a manifest.json"),
        (lambda folder: folder, "is not a box: it has no manifest.json, and no folder in it has one"),
        (lambda folder: boxes_in(folder), r"is not a box.*Boxes in it: .*deep/inner \(a store\)"),
        (lambda folder: kind_of(folder, "sculpture"), "of kind 'sculpture'; this release opens shards, text-space, column, run"),
        (lambda folder: unfinished(folder, "unfinished.json"), "has not finished"),
        (lambda folder: unfinished(folder, "weights.safetensors"), "has not finished"),
        (lambda folder: unfinished(folder, "000000.tar"), "multimodal shards index"),
    ],
)
def test_what_is_no_box_is_refused_with_what_to_do(tmp_path: Path, make, said: str) -> None:
    with pytest.raises(mm.InputError, match=said):
        mm.open(make(tmp_path))


def file_in(folder: Path) -> Path:
    (folder / "a.png").write_bytes(b"")
    return folder / "a.png"


def boxes_in(folder: Path) -> Path:
    write_manifest(folder / "deep" / "inner", Manifest("store", {}))
    return folder


def kind_of(folder: Path, kind: str) -> Path:
    write_manifest(folder, Manifest(kind, {}))
    return folder


def unfinished(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"{}")
    return folder


def test_a_run_that_was_stopped_says_how_it_goes_on_and_does(own_road) -> None:
    (own_road.folder / "run/manifest.json").unlink()
    with pytest.raises(mm.InputError, match="was not finished. To resume it: multimodal fit") as refused:
        mm.open(own_road.folder / "run")
    told = own_road.run(str(refused.value).partition("To resume it: ")[2])
    assert told.status == 0, told.err
    assert mm.open(own_road.folder / "run").manifest.counts["epochs"] == 2


def test_a_class_that_is_not_ours_needs_trust_in_python_too(boxes, tmp_path) -> None:
    shutil.copytree(boxes / "space", tmp_path / "space")
    manifest = read_manifest(tmp_path / "space", "text-space")
    write_manifest(tmp_path / "space", Manifest("text-space", {**manifest.config, "class": "theirs.Space"}, manifest.counts))
    with pytest.raises(mm.InputError, match="theirs"):
        mm.open(tmp_path / "space")
    with pytest.raises(mm.InputError, match="theirs.Space cannot be imported"):
        mm.open(tmp_path / "space", trust="theirs")


def test_a_set_at_a_url_opens_by_its_url(boxes, tmp_path) -> None:
    shards = mm.open((boxes / "set").as_uri(), cache=tmp_path)
    assert shards[7] == mm.open(boxes / "set")[7] and shards.path.is_relative_to(tmp_path)


# -- pairs ---------------------------------------------------------------------------------------------------------------------------------


def test_a_set_is_indexed_and_gone_through_like_a_list(boxes) -> None:
    shards = mm.open(boxes / "set")
    every = [shards.pair(id) for id in range(45)]
    assert list(shards) == every and shards[-1] == every[-1] and shards[np.int64(7)] == every[7]
    assert list(shards[3:20:4]) == every[3:20:4] and list(shards[::-1][:3]) == every[:-4:-1] and shards[40:][-1] == every[-1]
    for beyond in (45, -46):
        with pytest.raises(IndexError, match=str(beyond)):
            shards[beyond]
    with pytest.raises(IndexError):
        shards[:5][5]


def test_a_part_is_the_pairs_that_training_sees_and_nothing_is_read_for_it(own_road) -> None:
    shards = mm.open(own_road.folder / "set")
    train, test = shards.part("train"), shards.part("test")
    assert sorted([*train.ids, *test.ids]) == list(range(45)) == shards.part("all").ids.tolist()
    assert train.ids.tolist() == mm.Split().ids(shards, "train").tolist()
    assert shards.part("test", mm.Split(seed=1)).ids.tolist() == mm.Split(seed=1).ids(shards, "test").tolist()
    assert [pair.name for pair in test] == [shards.names[id] for id in test.ids] and len(test) == len(test.ids)
    assert repr(test) == f"Pairs({str(shards.path)!r}, test: {len(test)} of 45 pairs)" and shards.part_names == ["train", "test", "all"]
    with pytest.raises(mm.InputError, match="there are train, test, all"):
        shards.part("dev")
    for tar in shards.path.glob("*.tar"):
        tar.unlink()
    assert len(mm.open(own_road.folder / "set").part("train")[:5]) == 5


def test_a_pair_shows_its_picture_and_not_its_bytes(boxes) -> None:
    shards = mm.open(boxes / "set")
    pair = shards[7]
    assert pair.picture.size == (48, 48) and pair.picture.mode == "RGB" and len(repr(pair)) < 300


# -- searching -----------------------------------------------------------------------------------------------------------------------------


def test_hits_are_those_of_search_in_a_list_that_stays_one(store) -> None:
    hits = store.search("red - circle", k=7)
    assert hits == search(store, "red - circle", k=7) and isinstance(hits, list) and len(hits) == 7
    assert type(hits[1:3]) is mm.Hits and hits[1:3] == list(hits)[1:3] and hits[2] == list(hits)[2]
    with pytest.warns(UserWarning, match="zxqv"):
        assert "zxqv" in store.search("red + zxqv").notes
    assert store.search("red", where={"name": hits[0].name}) == [hit for hit in store.search("red", k=45) if hit.name == hits[0].name]


def test_hits_show_themselves_with_their_pictures_and_texts_stay_texts(store) -> None:
    from html import unescape

    from multimodal.search.page import render

    hits = store.search("red", k=3)
    shown = hits._repr_html_()
    framed = unescape(shown.partition('srcdoc="')[2].partition('"')[0])
    assert framed == render("red", hits.answer, [hit.thumbnail for hit in hits]) and framed.count("data:image/jpeg") == 3
    evil = '"><script>alert(1)</script>'
    hits.query = evil
    assert "<script>" not in hits._repr_html_() and "<script>" not in unescape(hits._repr_html_())
    assert hits[:1]._repr_html_().count("data:image/jpeg") == 1


def test_a_hit_has_its_thumbnail_and_its_whole_picture_where_the_set_is_attached(boxes) -> None:
    store, shards = mm.open(boxes / "store"), mm.open(boxes / "set")
    [hit] = store.search("red", k=1)
    assert hit.thumbnail == store.thumbnails([hit.id])[0] and hit.image.format is None and hit.image.mode == "RGB"
    small = np.asarray(hit.image)
    store.attach(shards)
    assert np.array_equal(np.asarray(hit.image), np.asarray(shards[hit.id].picture))
    assert small.shape == np.asarray(hit.image).shape and not np.array_equal(small, np.asarray(hit.image)), "the thumbnail is a JPEG"


def test_a_set_of_other_shards_is_not_attached(boxes, tmp_path) -> None:
    from multimodal.shards import ShardWriter

    with ShardWriter(tmp_path / "other") as writer:
        writer.write(mm.open(boxes / "set")[3])
    with pytest.raises(mm.InputError, match="3 shards that are not in this set"):
        mm.open(boxes / "store").attach(mm.open(tmp_path / "other"))


def test_a_hit_without_a_picture_says_what_to_do() -> None:
    with pytest.raises(mm.InputError, match="attach"):
        mm.Hit(3, 0.5, "a.png", "a").image  # noqa: B018


def test_hits_and_stores_travel_between_processes(store) -> None:
    hits = store.search("red", k=2)
    again = pickle.loads(pickle.dumps(hits))
    assert again == hits and type(again) is mm.Hits and again[0].thumbnail == hits[0].thumbnail


def test_a_query_may_be_a_picture_a_vector_or_name_some(boxes, store, model) -> None:
    shards = mm.open(boxes / "set")
    [file] = (boxes / "photos").glob("red-circle-0.png")
    by_path = store.search(f"image:{file}", k=5, model=model)
    assert by_path == store.search(f"image:{file}", k=5, model=boxes / "export")
    picture = Image.open(file)
    for query in (picture, np.asarray(picture.convert("RGB")), model.encode_image(picture), model.encode_image(picture)[0]):
        found = store.search(query, k=5, model=model)
        assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in by_path]
    mixed = store.search("2*image:me - image:7 + green", k=5, model=model, images={"me": picture})
    wanted = store.search(f"2*image:{file} - image:7 + green", k=5, model=model)
    assert [(hit.id, hit.score) for hit in mixed] == [(hit.id, hit.score) for hit in wanted]
    me = {"me": model.encode_image(shards[7].picture)[0]}
    as_vector = store.search("2*image:me - image:7 + green", k=5, images=me, fusion="sum")
    assert [hit.id for hit in as_vector] == [hit.id for hit in store.search("image:7 + green", k=5, fusion="sum")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"query": Image.new("RGB", (8, 8))}, "a store has no image tower. Give the export that it was made from: model="),
        ({"query": np.zeros(8, np.float32)}, "not all 0"),
        ({"query": np.ones(9, np.float32)}, r"a vector of 8 finite numbers.*shape \(9,\)"),
        ({"query": "red", "images": {"me": np.ones(8)}}, "names me, and the query 'red' has no image:me"),
    ],
)
def test_a_picture_that_cannot_be_asked_with_is_refused(store, arguments, said) -> None:
    with pytest.raises(mm.InputError, match=said):
        store.search(**arguments)


def test_the_model_of_another_store_is_refused(boxes, store, tmp_path) -> None:
    manifest = read_manifest(boxes / "export", "export")
    write_manifest(tmp_path / "other", Manifest("export", manifest.config, {"parameters": 1}, manifest.made_from, manifest.parts))
    with pytest.raises(mm.InputError, match="Their vectors cannot be compared"):
        store.search("image:me", images={"me": Image.new("RGB", (8, 8))}, model=tmp_path / "other")


# -- encoding ------------------------------------------------------------------------------------------------------------------------------


def test_pictures_of_any_form_have_the_row_of_their_file_to_the_last_bit(boxes, model) -> None:
    files = sorted((boxes / "photos").glob("*.png"))[:4]
    wanted = model.embed_image_files(files)
    opened = [Image.open(file) for file in files]
    pixels = [np.asarray(one.convert("RGB")) for one in opened]
    for pictures in (files, map(str, files), [file.read_bytes() for file in files], opened, pixels, np.stack(pixels)):
        assert np.array_equal(model.encode_image(pictures), wanted)
    mixed = [opened[0], str(files[1]), bytearray(files[2].read_bytes()), pixels[3]]
    rows = model.encode_image(mixed)
    assert np.array_equal(rows, wanted) and rows.dtype == np.float32
    for one, row in zip(mixed, wanted, strict=True):
        assert np.array_equal(model.encode_image(one), row[None])
    assert model.encode_image([]).shape == (0, 8)


def test_a_picture_that_pillow_opened_is_seen_as_its_file_is(model, tmp_path) -> None:
    """Turned by its EXIF, with a palette, with transparency, in grey, with 16 bits, in CMYK, or in two colours."""
    random = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = Image.fromarray(random[:, :, :3])
    colour.save(tmp_path / "turned.jpg", exif=exif)
    colour.convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(random).save(tmp_path / "transparent.png")
    Image.fromarray(random).save(tmp_path / "transparent.webp", lossless=True)
    colour.convert("L").save(tmp_path / "grey.png")
    Image.fromarray(random[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    colour.convert("CMYK").save(tmp_path / "print.jpg")
    colour.convert("1").save(tmp_path / "two.png")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    for file in files:
        assert np.array_equal(model.encode_image(Image.open(file)), model.encode_image(file)), file.name


def test_texts_and_similarity_are_those_of_the_query_side(model) -> None:
    texts = ["a red circle", "zxqv", "green"]
    rows = model.encode_text(texts)
    assert np.array_equal(rows, model.query.embed(texts)) and rows.dtype == np.float32
    assert np.array_equal(model.encode_text("green"), rows[2:]) and model.encode_text([]).shape == (0, 8)
    pictures = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    cosines = model.similarity(rows, pictures)
    length = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(pictures, axis=1)
    wanted = np.divide(rows @ pictures.T, length, out=np.zeros((3, 5), np.float32), where=length > 0)
    assert cosines == pytest.approx(wanted, abs=1e-6) and not cosines[1].any() and model.similarity(rows[:0], pictures).shape == (0, 5)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("https://example.org/me.jpg", "is a URL, and pictures are not downloaded"),
        (b"no picture", "picture 1: not an image"),
        (np.zeros((8, 8, 3), np.float32), r"picture 1: expected a Pillow picture.* got an array \(8, 8, 3\) of float32"),
        (np.zeros((3, 8, 8), np.uint8), r"picture 1: expected .* got an array \(3, 8, 8\)"),
        (np.zeros((1, 800, 3), np.uint8), "picture 1: 800 x 1 is a line"),
        (Image.new("F", (8, 8)), "picture 1: 32-bit float"),
        (7, "picture 1: expected a Pillow picture.* got a int"),
    ],
)
def test_what_is_no_picture_is_named_by_its_place(model, picture, said) -> None:
    with pytest.raises(mm.InputError, match=said):
        model.encode_image([Image.new("RGB", (8, 8)), picture])


# -- jobs ----------------------------------------------------------------------------------------------------------------------------------


def test_jobs_find_what_the_commands_made_of_opened_boxes_and_of_paths(own_road, monkeypatch) -> None:
    monkeypatch.chdir(own_road.folder)
    shards = mm.make_shards("folder", "photos", output="set", pairs_per_shard=20)
    space, made = mm.open("space"), {path: path.stat().st_mtime_ns for path in Path().rglob("manifest.json")}
    for one in (shards, "set", Path("set").absolute().as_uri()):
        if one != Path("set").absolute().as_uri():
            assert mm.make_columns(space, one, "words").path == Path("set/columns/words")
        run = mm.fit("recipe.yaml", shards=one, run="run")
        export = mm.export(run, "export", space=space)
        store = mm.index(export, one, "store", column=None if isinstance(one, str) and "://" in one else "trunk", device="cpu")
        assert (repr(run), repr(export)) == (repr(mm.open("run")), repr(mm.open("export"))) and len(store) == 45
        assert np.array_equal(np.asarray(store.search("red", k=1)[0].image), np.asarray(shards[store.search("red", k=1)[0].id].picture))
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("manifest.json")} == made, "nothing was made again"
    rows = mm.evaluate(store, shards, part="all")
    assert rows == mm.evaluate("store", "set", part="all") and {row.direction for row in rows} == {"text->image", "image->text"}
    assert mm.verify(store) == mm.verify("set") == mm.verify(space) == []
    (own_road.folder / "space/vocab.txt").write_text("other")
    assert [problem.where for problem in mm.verify("space")] != []


def test_jobs_make_what_is_not_there(begin_road, monkeypatch) -> None:
    from multimodal.towers import NoWeights, Trunk

    road = begin_road()
    monkeypatch.chdir(road.folder)
    shards = mm.make_shards("folder", "photos", output="set", pairs_per_shard=20)
    space = mm.fit_word2vec([pair.texts[0] for pair in shards.part("train")], dim=8, min_count=1, passes=20)
    with pytest.raises(mm.InputError, match=r"is not saved yet.*space.save\(folder\)"):
        mm.make_columns(space, shards, "words")
    space.save("space")
    words = mm.make_columns(space, shards, "words")
    trunk = mm.embed(shards, "trunk", trunk=Trunk("test_efficientnet", NoWeights(), size=48), device="cpu")
    assert (words.dim, trunk.dim, trunk.shards) == (8, 256, shards)
    run = mm.fit("recipe.yaml", shards={"mine": shards}, run="run", settings={"trainer.max_epochs": 3, "model.optimiser.lr": 0.02})
    assert run.manifest.counts["epochs"] == 3 and run.config["model"]["optimiser"]["init_args"]["lr"] == 0.02
    store = mm.index(mm.export(run, "export", space=space), shards, "store", column="trunk", device="cpu")
    assert mm.open("store").search("red circle") == store.search("red circle")


def test_a_setting_that_a_job_does_not_have_is_named(boxes) -> None:
    with pytest.raises(mm.InputError, match="index has no setting 'colum'. Did you mean column"):
        mm.index(boxes / "export", boxes / "set", boxes / "store", colum="trunk")


# -- what is not installed -----------------------------------------------------------------------------------------------------------------

TRAINS = "torch,torchvision,lightning,timm,transformers,simplejpeg"


def test_a_store_opens_answers_and_shows_itself_without_what_trains(boxes) -> None:
    code = "hits = mm.open(sys.argv[2]).search('red', k=2); hits._repr_html_(); print(hits[0].image.size, mm.open(sys.argv[3]))"
    assert run(code, boxes / "store", boxes / "run", without=f"{TRAINS},gensim,numba").startswith("(48, 48) Run(")


@pytest.mark.parametrize(
    ("code", "what", "extra"),
    [
        ("mm.open(sys.argv[2] + '/export')", "the network of an export needs torch", "train"),
        ("mm.open(sys.argv[2] + '/store').search('image:' + sys.argv[2] + '/photos/red-circle-0.png', model=sys.argv[2] + '/export')",
         "image:<path> runs the image tower, which needs", "train"),
        ("mm.fit('recipe.yaml', shards='set', run='run')", "training needs", "train"),
        ("mm.Export", "multimodal.Export needs", "train"),
        ("mm.fit_topics(['a dog'])", "fitting topics needs gensim", "prep"),
    ],
)  # fmt: skip
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(boxes, code: str, what: str, extra: str) -> None:
    told = run(f"try: {code}\nexcept mm.InputError as error: print(error)", boxes, without=f"{TRAINS},gensim")
    assert what in told and f". Run: {install_command(extra)}" in told
