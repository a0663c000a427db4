"""What is wrong is said in one paragraph: what, where, what to do; with status 2, without a traceback, and with nothing half-written.

Jobs and searches run as a user runs them, in processes of their own; what imports torch goes through the same doors in this one.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multimodal.boxes import MANIFEST, is_whole
from multimodal.search.store import Store
from multimodal.shards import ShardSet
from multimodal.verify import problems_of

if TYPE_CHECKING:
    from tests.conftest import Road, Told

MODULES = {"data-prep": "data_prep", "multimodal": "multimodal.cli"}


def process(folder: Path, command: str) -> tuple[int, str]:
    """Status and stderr of a command that runs in a process of its own."""
    door, *arguments = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", MODULES[door], *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    )
    return done.returncode, done.stderr


def assert_refused(status: int, err: str, *words: str) -> None:
    """Status 2, and one paragraph `error: ...` at the end that holds all the words."""
    assert status == 2, err
    assert "Traceback" not in err and "Warning" not in err
    assert err.count("error: ") == 1
    paragraph = err[err.index("error: ") :]
    assert "\n\n" not in paragraph.strip()
    for word in words:
        assert word in paragraph, f"{word!r} is not in: {paragraph}"


def refused(road: Road, command: str, *words: str) -> None:
    told: Told = road.run(command)
    assert_refused(told.status, told.err, *words)


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# -- sources -------------------------------------------------------------------------------------------------------------------------------


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    status, err = process(tmp_path, "data-prep make-shards folder photos --output set")
    assert_refused(status, err, "photos: no picture (jpg, png, webp, avif) in it or its subfolders", "Give the folder")
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    status, err = process(tmp_path, "data-prep make-shards folder photos --output set")
    assert_refused(status, err, "photos: does not exist", "Give the file or folder")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n" + bytes(60)], ids=["empty", "foreign", "damaged"])
def test_a_folder_whose_only_image_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a cat.png").write_bytes(content)
    status, err = process(tmp_path, "data-prep make-shards folder photos --output set")
    assert_refused(status, err, "nothing good is left", "photos a cat.png: ", "All of them: set/bad.csv")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["bad.csv"]


def test_one_bad_image_among_many_costs_only_itself_and_is_named(own_road: Road, road: Road) -> None:
    (own_road.folder / "photos" / "green-circle-9.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(60))
    (own_road.folder / "photos" / "green-circle-9.txt").write_text("a green circle")
    status, err = process(own_road.folder, "data-prep make-shards folder photos --output new --pairs-per-shard 20")
    assert status == 0 and "new: 45 pairs, 1 left out: new/bad.csv" in err
    with open(own_road.folder / "new" / "bad.csv", newline="") as file:
        [bad] = csv.DictReader(file)
    assert (bad["where"], bad["key"]) == ("photos", "green-circle-9.png") and bad["reason"].startswith("does not decode")
    new, old = ShardSet(own_road.folder / "new"), ShardSet(road.folder / "set")
    assert [new.pair(id) for id in range(45)] == [old.pair(id) for id in range(45)]
    assert [shard.num_pairs for shard in new.shards] == [20, 19, 6]  # its own shard lacks it
    assert new.fingerprints["000000"] == old.fingerprints["000000"]


@pytest.mark.parametrize("name", ["IMG_1234.png", "20240131_120000.png"])
def test_pictures_whose_names_hold_no_words(own_road: Road, name: str) -> None:
    (own_road.folder / "camera").mkdir()
    shutil.copy(own_road.folder / "photos" / "red-circle-0.png", own_road.folder / "camera" / name)
    status, err = process(own_road.folder, "data-prep make-shards folder camera --output new")
    assert_refused(status, err, "nothing good is left", f"camera {name}: has no text", f"no {name[:-4]}.txt")
    assert not is_whole(own_road.folder / "new")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,caption\nphotos/red-circle-0.png,\nphotos/red-circle-1.png,  \n", ("table.csv line 2", "has no text", "new/bad.csv")),
        ("file\tcaption\n", ("table.csv: has a header line and no row below it",)),
        ("bild,words\nx.png,dog\n", ("has no column 'file'", "the columns are bild, words", "--file-column")),
        ("file,caption\nnone.png,dog\n", ("table.csv line 2 none.png: no such picture",)),
    ],
)
def test_a_table_of_captions_that_holds_no_pair(own_road: Road, table: str, words: tuple[str, ...]) -> None:
    (own_road.folder / "table.csv").write_text(table)
    refused(own_road, "data-prep make-shards captions table.csv --output new", *words)
    assert not is_whole(own_road.folder / "new") and not list((own_road.folder / "new").glob("*.tar"))


# -- boxes that do not belong together -----------------------------------------------------------------------------------------------------


def test_a_column_of_other_shards(own_road: Road) -> None:
    assert own_road.run("data-prep make-shards folder photos --output set --pairs-per-shard 15 --overwrite").status == 0
    for column, command in [
        ("trunk", "multimodal fit --config recipe.yaml --data.shards set --run run2"),
        ("trunk", "multimodal index --export export --shards set --output store2 --column trunk"),
        ("words", "multimodal export --run run --space space --output export2"),
    ]:
        refused(own_road, command, f"set/columns/{column}: shard 000000 was ", "when they were made and is ", " now. Run: ")
    for box in ("run2", "store2", "export2"):
        assert not (own_road.folder / box).exists(), box
    refused(
        own_road,
        "multimodal index --export export --shards set --output store",
        "settings or inputs: set/000000 was ",
    )
    refused(own_road, "multimodal evaluate retrieval --store store --shards set", "store: has no pictures from set's shard 000000. Run: ")


def test_the_command_that_the_message_names_mends_it(own_road: Road, road_commands: dict[str, str]) -> None:
    assert own_road.run("data-prep make-shards folder photos --output set --pairs-per-shard 15 --overwrite").status == 0
    for box in ("set/columns/words", "set/columns/trunk"):
        assert own_road.run(road_commands[box]).status == 0
    assert own_road.run("multimodal fit --config recipe.yaml --data.shards set --run run2").status == 0


def test_a_text_space_of_another_vocabulary(own_road: Road) -> None:
    other = "data-prep fit-text-space word2vec --shards set --output space2 --dim 8 --min-count 1 --max-words 6"
    assert own_road.run(other).status == 0
    export = "multimodal export --run run --output export2 --space"
    refused(own_road, f"{export} space2", "space2: is the text space ", "set/columns/words was made with ", "train again")
    refused(
        own_road,
        "data-prep make-columns --space space2 --shards set --name words",
        "columns set/columns/words: was made with other ",
    )
    refused(own_road, f"{export} set", "set: expected a text space here, but this is a shard set")

    for box in ("space", "store/query"):
        shutil.copy(own_road.folder / "space2" / "vocab.txt", own_road.folder / box / "vocab.txt")
    exchanged = "vocab.txt: not the file that this space was saved with; they do not belong together. Restore it"
    refused(own_road, f"{export} space", f"space/{exchanged}")
    refused(own_road, "data-prep make-columns --space space --shards set --name words2", f"space/{exchanged}")
    refused(own_road, "multimodal search --store store red", f"store/query/{exchanged}")

    shutil.rmtree(own_road.folder / "store" / "query")
    shutil.copytree(own_road.folder / "space2", own_road.folder / "store" / "query")
    refused(
        own_road, "multimodal search --store store red", "store/query: this text space is ", "the store was made with ", "Make the store"
    )
    assert not (own_road.folder / "export2").exists() and not is_whole(own_road.folder / "set" / "columns" / "words2")


@pytest.mark.parametrize(
    "command",
    [
        "data-prep fit-text-space word2vec --shards nowhere --output new",
        "data-prep make-columns --space space --shards nowhere --name new",
        "multimodal embed --shards nowhere --name new --trunk.architecture test_vit --trunk.weights multimodal.towers.NoWeights",
        "multimodal fit --config recipe.yaml --data.shards nowhere --run new",
        "multimodal index --export export --shards nowhere --output new",
        "multimodal evaluate retrieval --store store --shards nowhere",
        "multimodal shards verify nowhere",
        "multimodal shards ls nowhere",
    ],
)
def test_a_shards_folder_that_is_missing(own_road: Road, command: str) -> None:
    before = tree(own_road.folder)
    refused(own_road, command, "nowhere: expected a shard set here, but the folder does not exist", "made by: data-prep make-shards")
    assert tree(own_road.folder) == before


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("multimodal search --store nowhere red", ("nowhere: expected a store here", "made by: multimodal index")),
        ("multimodal search --store export red", ("export: expected a store here, but this is an export",)),
        ("multimodal search --store photos red", ("photos: expected a store here, but the folder holds no manifest.json",)),
        ("multimodal index --export store --shards set --output new", ("store: expected an export here, but this is a store",)),
        ("multimodal export --run nowhere --output new", ("nowhere: is not a run: it has no config.yaml", "multimodal fit")),
        ("multimodal evaluate retrieval --store nowhere --shards set", ("nowhere: expected a store here",)),
        ("multimodal evaluate classes --store nowhere --shards set --label subject", ("nowhere: expected a store here",)),
    ],
)
def test_a_box_that_is_missing_or_of_another_kind(road: Road, command: str, words: tuple[str, ...]) -> None:
    refused(road, command, *words)
    assert not (road.folder / "new").exists()


# -- figures that cannot be made -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("multimodal evaluate --store store --shards set", ("multimodal evaluate: there is no verb '--store'", "retrieval")),
        ("multimodal evaluate classes --store store --shards set", ("--label is missing",)),
        (
            "multimodal evaluate classes --store store --shards set --label subject",
            ("has no subject in its metadata", "Choose another --label"),
        ),
        ("multimodal evaluate retrieval --store store --shards set --directions sideways", ("--directions", "sideways")),
        ("multimodal evaluate retrieval --store store --shards set --queries some", ("--queries", "some")),
    ],
)
def test_figures_that_cannot_be_made(road: Road, command: str, words: tuple[str, ...]) -> None:
    refused(road, f"{command} --output figures.json", *words)
    assert not list(road.folder.glob("figures*"))


# -- settings ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("model: {optimizer: {lr: 0.1}}", ("option 'optimizer", "Did you mean model.optimiser", "multimodal fit --help")),
        ("data: {batchsize: 8}", ("option 'batchsize'", "Did you mean data.batch_size?", "multimodal fit --help")),
        ("trainer: {max_epoch: 3}", ("option 'max_epoch'", "Did you mean trainer.max_epochs?", "multimodal fit --help")),
        ("nonsense: 3", ("nonsense", "multimodal fit --help")),
        ("model: {image_tower: {class_path: multimodal.towers.Nose}}", ("multimodal.towers", "Nose")),
    ],
)
def test_an_unknown_key_in_a_recipe(own_road: Road, settings: str, words: tuple[str, ...]) -> None:
    (own_road.folder / "more.yaml").write_text(settings)
    refused(own_road, "multimodal fit --config recipe.yaml --config more.yaml --data.shards set --run new", *words)
    assert not (own_road.folder / "new").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("multimodal fit --config recipe.yaml --data.shards set --run new --data.batchsize 8", ("--data.batchsize", "data.batch_size?")),
        ("multimodal fit --config recipy.yaml --data.shards set --run new", ("recipy.yaml",)),
        ("data-prep make-shards folder photos --outptu new", ("no option --outptu. Did you mean --output", "--help")),
        ("data-prep make-shards foldr photos --output new", ("there is no source 'foldr'. Did you mean folder?",)),
        ("multimodal search --store store red --kk 3", ("no option --kk. Did you mean --k?", "multimodal search --help")),
        (
            "multimodal index --export export --shards set --output new --part tset",
            ("no pair is in part 'tset'; there are train, test, all",),
        ),
        ("multimodal serach --store store red", ("there is no verb 'serach'. Did you mean search or serve?",)),
        ("multimodal shards verfy set", ("multimodal shards: there is no verb 'verfy'. Did you mean verify?",)),
        ("data-prep make-shard folder photos", ("there is no verb 'make-shard'. Did you mean make-shards",)),
    ],
)
def test_an_option_or_a_verb_that_does_not_exist(road: Road, command: str, words: tuple[str, ...]) -> None:
    refused(road, command, *words)
    assert not (road.folder / "new").exists()


# -- queries -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "column", "words"),
    [
        ("red + ", 7, "a word, a phrase or an image is missing after +"),
        ("blue - (red", 8, "this parenthesis is never closed"),
        ("red )", 5, "this parenthesis was never opened"),
        ('circle + "red', 10, "this quote is never closed"),
        ("2*", 3, "is missing after 2*"),
        ("", 1, "the query is empty"),
    ],
)
def test_a_query_that_does_not_parse_is_shown_with_a_caret_under_the_column(road: Road, query: str, column: int, words: str) -> None:
    told = road.run(f"multimodal search --store store {shlex.quote(f'--query={query}')}")
    assert_refused(told.status, told.err, f"query, column {column}: ", words)
    lines = told.err.splitlines()
    margin = lines[-2].index(query) if query else len(lines[-1]) - 1
    assert lines[-1] == " " * (margin + column - 1) + "^"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("red - red", ("the query cancels to nothing: its terms cancel each other out", "Leave a term out or change a weight")),
        ("2*circle - circle - circle", ("the query cancels to nothing",)),
        ("image:3 - image:3", ("the query cancels to nothing",)),
        ("circel", ('the text space knows no word of "circel"', "Near spellings: circel: circle")),
        ("zxqv + 2*qqq", ('"zxqv"', '"qqq"', "Near spellings: ")),
        ("image:999", ("store: no picture with id 999; it has 45",)),
        ("image:none.png", ("image:none.png is neither an id of the store nor a file",)),
    ],
)
def test_a_query_that_points_nowhere(road: Road, query: str, words: tuple[str, ...]) -> None:
    refused(road, f"multimodal search --store store '{query}'", *words)


def test_a_refused_search_in_a_process_of_its_own_prints_nothing_on_stdout(road: Road) -> None:
    command = [sys.executable, "-m", "multimodal.cli", "search", "--store", "store", "--json", "red - (blue"]
    done = subprocess.run(command, cwd=road.folder, capture_output=True, text=True, timeout=300)
    assert_refused(done.returncode, done.stderr, "query, column 7: this parenthesis is never closed")
    assert done.stdout == ""


# -- a disk that fills up ------------------------------------------------------------------------------------------------------------------

WRITTEN_AGAIN = {
    "set": {"plan.json", *(f"parts/{number:06d}.json" for number in range(3))},  # if a shard was finished: the job goes on from them
    "set/columns/words": {"unfinished.json"},
    "run": {"metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"},  # of an earlier step; a run goes on from it
    "store": {MANIFEST, ".lock"},  # of an earlier generation, which is whole
}
"""Box -> files in it that are whole at every moment, and change or go while it is made."""


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of that size in the folder. Its content is thrown away at the end."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    """Maps of files there that wait to be collected, and processes that are ending, keep the disk busy for a moment."""
    end = time.monotonic() + 60
    while (done := subprocess.run(["umount", str(folder)], capture_output=True, text=True)).returncode:
        assert time.monotonic() < end, done.stderr
        gc.collect()
        time.sleep(0.1)


@contextlib.contextmanager
def small_files(size_bytes: int) -> Iterator[None]:
    """No file can grow above that size; writing there fails as on a full disk, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def finished(road: Road, box: str) -> dict[str, str]:
    """The files of a box, without those of boxes inside it."""
    return {name: content for name, content in tree(road.folder / box).items() if box != "set" or not name.startswith("columns/")}


def assert_nothing_half_written(own_road: Road, road: Road, box: str) -> None:
    """Every file is, byte for byte, the one that the finished box has; and there is no manifest."""
    left, whole = finished(own_road, box), finished(road, box)
    for name in left.keys() - WRITTEN_AGAIN.get(box, set()):
        assert left[name] == whole[name], name
    if box != "store":
        assert MANIFEST not in left
    elif MANIFEST in left:
        store = Store(own_road.folder / "store")
        assert not list(problems_of(store.path))
        assert len(store) in (0, 20, 40)  # pictures of whole shards


def assert_goes_on(own_road: Road, road: Road, box: str, command: str) -> None:
    """The same command makes the box that it would have made."""
    told = own_road.run(command)
    assert told.status == 0, told.err
    again = {"checkpoints/last.ckpt"} if box == "run" else set()  # notes how often it was begun
    made, wanted = finished(own_road, box), finished(road, box)
    assert {name: made[name] for name in made.keys() - again} == {name: wanted[name] for name in wanted.keys() - again}


@pytest.mark.parametrize("share", [0.1, 0.4, 0.75])
@pytest.mark.parametrize("box", ["set", "set/columns/words", "run", "store"])
def test_a_full_disk_leaves_nothing_half_written(own_road: Road, road: Road, road_commands: dict[str, str], box: str, share: float) -> None:
    shutil.rmtree(own_road.folder / box)
    page = os.sysconf("SC_PAGE_SIZE")
    needed = sum(-(-(road.folder / box / name).stat().st_size // page) * page for name in finished(road, box))
    with small_disk(own_road.folder / box, int(share * needed)):
        told = own_road.run(road_commands[box])
        assert_refused(told.status, told.err, f"{box}/", ": No space left on device. Free some space and run the same command again")
        assert_nothing_half_written(own_road, road, box)
        subprocess.run(["mount", "-o", "remount,size=50m", str(own_road.folder / box)], check=True)
        assert_goes_on(own_road, road, box, road_commands[box])


@pytest.mark.parametrize("share", [0.1, 0.6])
@pytest.mark.parametrize("box", ["set", "set/columns/words", "run", "store"])
def test_a_write_that_fails_leaves_nothing_half_written(
    own_road: Road, road: Road, road_commands: dict[str, str], box: str, share: float
) -> None:
    shutil.rmtree(own_road.folder / box)
    largest = max((road.folder / box / name).stat().st_size for name in finished(road, box))
    with small_files(int(share * largest)):
        told = own_road.run(road_commands[box])
    assert_refused(told.status, told.err, f"{box}/", ": File too large. Raise the limit")
    assert_nothing_half_written(own_road, road, box)
    assert_goes_on(own_road, road, box, road_commands[box])


def test_a_full_disk_stops_a_job_in_a_process_of_its_own(own_road: Road) -> None:
    arguments = "make-shards folder photos --output new --pairs-per-shard 20"
    limited = (
        f"ulimit -f 20; exec {shlex.quote(sys.executable)} -B -m data_prep {arguments}"  # -B: bytecode would be cut off, without an error
    )
    done = subprocess.run(["bash", "-c", limited], cwd=own_road.folder, capture_output=True, text=True, timeout=300)
    # which of two processes is the first to find out is chance
    assert_refused(done.returncode, done.stderr, ".tar: File too large", "run the same command again")
    assert not list((own_road.folder / "new").iterdir())
    status, err = process(own_road.folder, f"data-prep {arguments}")
    assert status == 0, err
    assert json.loads((own_road.folder / "new" / MANIFEST).read_text())["counts"]["pairs"] == 45
