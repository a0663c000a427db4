"""Folders of pictures as a store: whatever happens to the files, a rescan ends in what indexing them anew would have given."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import ExifTags, Image

from multimodal import cli
from multimodal.boxes import read_manifest
from multimodal.embed.photos import Changes, index_pictures, rescan
from multimodal.errors import InputError
from multimodal.export.model import export_pretrained, load_export
from multimodal.search.door import search_verb
from multimodal.search.folders import COLUMNS
from multimodal.search.store import Store
from multimodal.search.upkeep import delete
from multimodal.search.writing import StoreWriter
from multimodal.verify import problems_of

SETTINGS = {"device": "cpu", "num_threads": 1}


def encoded(number: int, form: str = "jpeg", **settings: object) -> bytes:
    """A picture that depends on the number alone."""
    file = io.BytesIO()
    low = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(low).resize((48, 36), Image.Resampling.BICUBIC).save(file, form, **settings)
    return file.getvalue()


def exif(date: str | None = "2024:06:01 12:30:00", camera: str = "X100", orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Model] = camera
    made[ExifTags.Base.Orientation] = orientation
    if date is not None:
        made.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date
    made.get_ifd(ExifTags.IFD.GPSInfo).update({1: "S", 2: (48.0, 30.0, 0.0), 3: "E", 4: (2.0, 0.0, 36.0)})
    return made


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Path:
    return export_pretrained(str(tiny_clip), tmp_path_factory.mktemp("exports") / "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine pictures in three folders, of the numbers 0 to 8, one of which is in another format."""
    for number in range(9):
        put(tmp_path / "Photos" / ("", "2023", "2024/june")[number % 3] / f"{number}.jpg", encoded(number))
    return tmp_path / "Photos"


def put(path: Path, content: bytes, at_s: int = 1_700_000_000) -> None:
    """A file whose time is always the same, so that only its content and what a test changes tell it apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at_s, at_s))


def made(export: Path, folder: Path, output: Path, **settings: object) -> Store:
    return Store(index_pictures(export, [folder], output, **{"segment_size": 4, **SETTINGS, **settings}))


def as_rows(store: Store) -> dict[str, tuple[object, ...]]:
    """Path -> everything that a store has of the picture, but its id."""
    records = store.records(store.ids, list(COLUMNS))
    thumbnails = store.thumbnails(store.ids)
    return {
        record["path"]: (*record.values(), row.tobytes(), thumbnail)
        for record, row, thumbnail in zip(records, store.take(store.ids), thumbnails, strict=True)
    }


def ids_of(store: Store) -> dict[str, int]:
    return dict(zip(store.column("path"), store.ids.tolist(), strict=True))


def test_vectors_are_those_of_the_export_and_columns_say_what_the_files_say(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    put(folder / "2024" / "a.jpg", encoded(20, exif=exif(orientation=6)))
    put(folder / "b.png", encoded(21, "png"))
    store = made(tiny_export, folder, tmp_path / "S")
    opened = load_export(tiny_export)
    by_hand = opened.embed_image_files([folder / path for path in store.column("path")])
    rows = store.take(store.ids).astype(np.float64)
    by_hand = by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True)
    assert (rows * by_hand).sum(axis=1).min() > 0.999
    assert store.ids.tolist() == list(range(11)), "ids are places in the order of paths"
    [turned] = store.records([ids_of(store)["2024/a.jpg"]], list(COLUMNS))
    content = (folder / "2024/a.jpg").read_bytes()
    assert turned == {
        "name": "a.jpg",
        "text": "",
        "path": "2024/a.jpg",
        "folder": str(folder),
        "size": len(content),
        "modified": datetime(2023, 11, 14, 22, 13, 20),
        "date": datetime(2024, 6, 1, 12, 30),
        "camera": "X100",
        "latitude": -48.5,
        "longitude": 2.01,
        "width": 36,  # upright
        "height": 48,
        "content": turned["content"],
    }
    [thumbnail] = store.thumbnails([ids_of(store)["2024/a.jpg"]])
    assert thumbnail is not None and Image.open(io.BytesIO(thumbnail)).size == (36, 48)
    [plain] = store.records([ids_of(store)["b.png"]], ["date", "camera", "latitude"])
    assert plain == {"date": None, "camera": None, "latitude": None}, "nothing is guessed"
    for segment in store.segments:
        assert {field.name: field.type for field in segment.table().schema} == dict(COLUMNS), "whatever a segment's values are"
    assert not list(problems_of(tmp_path / "S")) and store.is_calibrated
    assert store.search("dog", k=3)


def test_the_files_are_not_touched_and_nothing_is_written_beside_them(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    def state() -> list[tuple[Path, int, bytes]]:
        return sorted((path, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))

    before = state()
    made(tiny_export, folder, tmp_path / "S")
    rescan(tmp_path / "S", **SETTINGS)
    assert state() == before


def test_nothing_new_writes_nothing(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    put(folder / "broken.jpg", b"\xff\xd8\xff broken")
    made(tiny_export, folder, tmp_path / "S")
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "S").rglob("*")}
    done = rescan(tmp_path / "S", **SETTINGS)
    assert (done.total, done.added, done.unreadable) == (9, 0, 1)
    made(tiny_export, folder, tmp_path / "S")
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "S").rglob("*")} == before


def test_a_rescan_that_finds_nothing_new_loads_no_torch(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    made(tiny_export, folder, tmp_path / "S")
    (folder / "0.jpg").unlink()  # and one that only removes
    shutil.move(folder / "3.jpg", folder / "moved.jpg")
    code = "import sys; from multimodal.cli import main; status = main(['rescan', sys.argv[1]]); print(status, 'torch' in sys.modules)"
    for told in ("8 pictures, 1 moved, 1 removed", "8 pictures, nothing new"):
        ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "S")], capture_output=True, text=True)
        assert ran.stdout.split() == ["0", "False"] and told in ran.stderr, ran.stderr


def test_whatever_happened_to_the_files_a_rescan_equals_a_store_made_anew(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    old = made(tiny_export, folder, tmp_path / "S")
    chance = random.Random(0)
    fresh = 100
    for round in range(6):
        for _ in range(4):
            there = sorted(path for path in folder.rglob("*.jpg"))
            one = chance.choice(there)
            match chance.randrange(6):
                case 0:
                    one.unlink()
                case 1:
                    put(folder / chance.choice(["", "2023", "new"]) / f"moved{fresh}.jpg", one.read_bytes(), 1_700_000_000 + fresh)
                    one.unlink()
                case 2:
                    put(folder / f"copy{fresh}.jpg", one.read_bytes())
                case 3:
                    put(one, encoded(fresh), 1_700_000_000 + fresh)
                case 4:
                    os.utime(one, (fresh, fresh))
                case 5:
                    put(folder / "2024" / f"{fresh}.jpg", encoded(fresh) if fresh % 3 else b"broken")
            fresh += 1
        before = ids_of(old)
        contents = dict(zip(old.ids.tolist(), old.column("content"), strict=True))
        done = rescan(tmp_path / "S", **SETTINGS, segment_size=3)
        now, anew = Store(tmp_path / "S"), made(tiny_export, folder, tmp_path / f"anew{round}", segment_size=5)
        assert as_rows(now) == as_rows(anew)
        assert done.total == len(anew) and len(set(now.ids.tolist())) == len(now)
        assert (tmp_path / "S/bad.csv").exists() == (tmp_path / f"anew{round}/bad.csv").exists()
        for id, content in zip(now.ids.tolist(), now.column("content"), strict=True):
            assert contents.get(id, content) == content, "an id never becomes another picture's"
        for path, id in ids_of(now).items():
            assert id == before.get(path, id) or contents[before[path]] != contents.get(id), "and a file that stays keeps its id"
        assert np.allclose(now.calibration.as_array(), anew.calibration.as_array(), atol=1e-3)
        assert not list(problems_of(tmp_path / "S"))
        old = now
    with StoreWriter(tmp_path / "S") as writer:
        kept, next_id = as_rows(writer.store), writer.store.next_id
        writer.compact()
        assert as_rows(writer.store) == kept and writer.store.next_id == next_id and len(writer.store.segments) == 1
    assert str(rescan(tmp_path / "S", **SETTINGS)).endswith("nothing new")


def test_a_moved_picture_keeps_its_id_and_vector_and_is_not_computed_again(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    export = Path(shutil.copytree(tiny_export, tmp_path / "E"))
    store = made(export, folder, tmp_path / "S")
    shutil.rmtree(export)  # so that nothing can be computed
    id, row = ids_of(store)["2023/1.jpg"], store.take([ids_of(store)["2023/1.jpg"]])
    (folder / "2023").rename(folder / "holidays")
    done = rescan(tmp_path / "S", **SETTINGS)
    assert (done.moved, done.added, done.removed) == (3, 0, 0)
    now = Store(tmp_path / "S")
    assert ids_of(now)["holidays/1.jpg"] == id and now.take([id]).tobytes() == row.tobytes()
    assert now.records([id], ["name", "path"]) == [{"name": "1.jpg", "path": "holidays/1.jpg"}]
    assert now.manifest.counts["generation"] == store.manifest.counts["generation"] + 1, "nobody sees it twice, or not at all"


def test_equal_files_are_two_pictures_also_when_one_moves(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    put(folder / "a.jpg", encoded(1))
    before = ids_of(made(tiny_export, folder, tmp_path / "S"))
    (folder / "a.jpg").rename(folder / "z.jpg")
    assert str(rescan(tmp_path / "S", **SETTINGS)) == "10 pictures, 1 moved"
    now = ids_of(Store(tmp_path / "S"))
    assert now["z.jpg"] == before["a.jpg"] and now["2023/1.jpg"] == before["2023/1.jpg"]


def test_a_folder_that_is_not_there_keeps_its_pictures(
    tmp_path: Path, folder: Path, tiny_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "Other" / "x.jpg", encoded(50))
    index_pictures(tiny_export, [folder, tmp_path / "Other"], tmp_path / "S", **SETTINGS)
    folder.rename(tmp_path / "away")
    for unmounted in (False, True):  # the mount point of a disk that is not connected is an empty folder
        if unmounted:
            folder.mkdir()
        put(tmp_path / "Other" / f"{unmounted}.jpg", encoded(60 + unmounted))
        done = rescan(tmp_path / "S", **SETTINGS)
        assert done.away == {str(folder): 9} and done.removed == 0 and done.added == 1
        assert f"{folder}: is not there, or has no picture: the 9 pictures of it are kept" in capsys.readouterr().err
    done = rescan(tmp_path / "S", remove_missing_folders=True, **SETTINGS)
    assert (done.removed, done.total) == (9, 3)


@pytest.mark.skipif(os.name != "posix", reason="pipes, links and names that are not UTF-8")
def test_what_is_no_picture_is_told_and_never_stops_the_job(
    tmp_path: Path, folder: Path, tiny_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("v.mp4", "raw.CR2", "notes.txt", ".hidden.jpg", "@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/1.jpg"):
        put(folder / name, encoded(0))
    put(folder / "Mine.photoslibrary" / "originals" / "0" / "u.jpg", encoded(70))
    put(folder / "Mine.photoslibrary" / "resources" / "derivatives" / "u_1.jpg", encoded(70))
    os.symlink(folder, folder / "loop")
    os.symlink(folder / "0.jpg", folder / "link.jpg")
    os.symlink(folder / "nowhere", folder / "dangling.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded(71))
    put(folder / "empty.jpg", b"")
    put(folder / "page.jpg", b"<html>")
    store = made(tiny_export, folder, folder / "S")  # and it lies in the folder
    assert len(store) == 11 and {"link.jpg", "Mine.photoslibrary/originals/0/u.jpg"} <= set(store.column("path"))
    told = capsys.readouterr().err
    assert "skipped 1 video, 1 raw picture, 2 other files, 3 hidden pictures" in told
    assert "skipped 1 picture whose name is not UTF-8" in told and "3 cannot be read" in told
    reasons = (folder / "S/bad.csv").read_text()
    for said in ("dangling.jpg,cannot be read: No such file", 'empty.jpg,"not an image', 'page.jpg,"not an image'):
        assert said in reasons
    os.remove(folder / "dangling.jpg")
    put(folder / "page.jpg", encoded(72), 1_700_000_001)
    assert str(rescan(folder / "S", **SETTINGS)) == "12 pictures, 1 added"
    assert "empty.jpg" in (folder / "S/bad.csv").read_text() and "page.jpg" not in (folder / "S/bad.csv").read_text()


def test_a_folder_of_unreadable_files_alone_ends_in_one_line(tmp_path: Path, tiny_export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "P" / "a.jpg", b"no")
    assert cli.main(["index", "--pictures", str(tmp_path / "P"), "--export", str(tiny_export), "--output", str(tmp_path / "S")]) == 2
    assert "error: " in (told := capsys.readouterr().err) and "no picture can be read. a.jpg: not an image" in told
    (tmp_path / "E").mkdir()
    with pytest.raises(InputError, match=r"E: no picture \(jpg, png"):
        made(tiny_export, tmp_path / "E", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_was_deleted_by_hand_stays_away_until_it_is_restored(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    store = made(tiny_export, folder, tmp_path / "S")
    delete(tmp_path / "S", ids=[ids_of(store)["0.jpg"]], where='path like "2023/%"')
    with pytest.raises(InputError, match="no picture meets the filter"):
        delete(tmp_path / "S", where='path like "2023/%"')
    assert str(rescan(tmp_path / "S", **SETTINGS)) == "5 pictures, nothing new"
    assert not (tmp_path / "S/bad.csv").exists(), "they can be read"
    assert str(rescan(tmp_path / "S", restore=True, **SETTINGS)) == "9 pictures, 4 added"
    assert min(Store(tmp_path / "S").ids[-4:]) == 9, "ids are not given again"


def test_folders_are_added_to_a_store_and_never_twice(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    made(tiny_export, folder, tmp_path / "S")
    put(tmp_path / "Other" / "x.jpg", encoded(50))
    (folder / "0.jpg").unlink()
    assert len(made(tiny_export, tmp_path / "Other", tmp_path / "S")) == 10, "the others are not looked at"
    for inner in (folder / "2023", tmp_path):
        with pytest.raises(InputError, match="its pictures would be there twice"):
            made(tiny_export, inner, tmp_path / "S")
    assert str(rescan(tmp_path / "S", **SETTINGS)) == "9 pictures, 1 removed"


def test_a_store_is_not_made_in_a_folder_that_holds_other_files(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    put(folder / "segments" / "000001" / "x.jpg", encoded(50))  # a writer would remove it as an old file of its own
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match="holds other files .*a folder of its own"):
        made(tiny_export, folder, folder)
    put(tmp_path / "Albums" / "query" / "x.jpg", encoded(50))
    with pytest.raises(InputError, match="holds other files .query/x.jpg"):
        made(tiny_export, folder, tmp_path / "Albums")
    assert sorted(folder.rglob("*")) == before


def test_a_hit_is_printed_with_its_path_on_one_line(
    tmp_path: Path, folder: Path, tiny_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder / "2023" / "two\nlines.jpg", encoded(50))
    store = made(tiny_export, folder, tmp_path / "S")
    search_verb("dog", tmp_path / "S", k=100)
    printed = capsys.readouterr().out.splitlines()
    assert {line.split(maxsplit=3)[3] for line in printed} == {str(folder / path).replace("\n", "\\n") for path in as_rows(store)}


def test_a_name_is_found_however_its_accents_are_written(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    """macOS writes them as characters of their own, and a keyboard does not."""
    names = [unicodedata.normalize(form, "Köln/Ärger.jpg") for form in ("NFD", "NFC")]
    for number, name in enumerate(names):
        put(folder / name, encoded(50 + number))
    store = made(tiny_export, folder, tmp_path / "S")
    for form in ("NFD", "NFC"):
        for where in ("name = Ärger.jpg", "path like Köln/%", "name in (Ärger.jpg, b)"):
            assert len(store.select(unicodedata.normalize(form, where))) == 2, where
    assert len(store.select({"path": names[:1]})) == 2


def test_the_settings_of_one_way_are_refused_in_the_other(
    tmp_path: Path, folder: Path, tiny_export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["index", "--export", str(tiny_export), "--output", str(tmp_path / "S")]
    for more, told in (
        ([], "--shards or --pictures is missing"),
        (["--shards", "D", "--pictures", str(folder)], "--shards and --pictures exclude each other"),
        (["--pictures", str(folder), "--part", "test"], "--part is for --shards"),
        (["--pictures", str(folder), "--max-bad-share", "0.5"], "--max-bad-share is for --shards"),
        (["--shards", "D", "--segment-size", "5"], "--segment-size is for --pictures"),
        (["--pictures", str(tmp_path / "nowhere")], "nowhere: does not exist. Give a folder of pictures"),
    ):
        assert cli.main([*begin, *more]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "S").exists()


def test_a_rescan_needs_the_export_that_made_the_store(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    export = Path(shutil.copytree(tiny_export, tmp_path / "E"))
    made(export, folder, tmp_path / "S")
    export.rename(tmp_path / "elsewhere")
    assert str(rescan(tmp_path / "S", **SETTINGS)).endswith("nothing new"), "with nothing to embed, it is not needed"
    put(folder / "new.jpg", encoded(80))
    (folder / "0.jpg").unlink()
    with pytest.raises(InputError, match="the export that .* was made from is not there"):
        rescan(tmp_path / "S", **SETTINGS)
    assert len(Store(tmp_path / "S")) == 9, "nothing is done by halves"
    assert str(rescan(tmp_path / "S", export=tmp_path / "elsewhere", **SETTINGS)) == "9 pictures, 1 added, 1 removed"
    put(folder / "newer.jpg", encoded(81))
    assert str(rescan(tmp_path / "S", **SETTINGS)) == "10 pictures, 1 added", "and it is remembered"


def test_a_job_stopped_after_any_commit_ends_in_the_same_store(
    tmp_path: Path, folder: Path, tiny_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / "2023" / "broken.jpg", b"broken")
    put(folder / "2024" / "broken.jpg", b"broken")

    def change() -> None:
        (folder / "2023").rename(folder / "2022")
        (folder / "0.jpg").unlink()
        put(folder / "3.jpg", encoded(90), 1_700_000_001)
        for number in range(91, 96):
            put(folder / f"{number}.jpg", encoded(number))

    def undo() -> None:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "kept", folder)

    shutil.copytree(folder, tmp_path / "kept")
    steps = (lambda: made(tiny_export, folder, tmp_path / "S", segment_size=2), lambda: rescan(tmp_path / "S", **SETTINGS, segment_size=2))
    whole = files_after(tmp_path, steps, change)
    undo()
    commit, num = StoreWriter._commit, 0

    def stop_at(wanted: int) -> Callable[..., None]:
        def stopping(self: StoreWriter, *settings: object) -> None:
            nonlocal num
            commit(self, *settings)
            num += 1
            if num == wanted:
                raise KeyboardInterrupt

        return stopping

    for wanted in range(1, 40):
        num = 0
        with monkeypatch.context() as patch:
            patch.setattr(StoreWriter, "_commit", stop_at(wanted))
            ended = files_after(tmp_path, steps, change, again=True)
        assert ended == whole, f"stopped after commit {wanted}"
        undo()
        if num < wanted:
            return
    pytest.fail("so many commits were not made")


def files_after(tmp_path: Path, steps, change: Callable[[], None], again: bool = False) -> dict[str, bytes]:
    """The files of the store after both steps, each of which is repeated once if it is stopped."""
    shutil.rmtree(tmp_path / "S", ignore_errors=True)
    for step in steps:
        try:
            step()
        except KeyboardInterrupt:
            assert again
            step()
        if step is steps[0]:
            change()
    store = tmp_path / "S"
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file() and path.name != ".lock"}


def test_hits_show_whole_pictures_where_the_folder_is_attached_and_no_other_file(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    store = made(tiny_export, folder, tmp_path / "S")
    [hit] = store.search("dog", k=1)
    [path] = [record["path"] for record in store.records([hit.id], ["path"])]
    moved = folder.rename(tmp_path / "elsewhere")
    store.attach(folder=moved)
    assert store.picture_bytes(hit.id) == (moved / path).read_bytes()
    put(moved / path, encoded(99))
    with pytest.raises(InputError, match="has changed since it was indexed"):
        store.picture_bytes(hit.id)
    with pytest.raises(InputError, match="was not made of the folder"):
        store.attach(folder={"/etc": "/etc"})
    with StoreWriter(tmp_path / "S") as writer:  # as somebody who gives away a store might make it
        hostile = pa.table({"id": pa.array([int(writer.store.ids[0])]), "path": pa.array(["../kept/secret.txt"])})
        writer.change(describe=hostile)
        writer.store.attach(folder=moved)
        with pytest.raises(InputError, match="may be outside this folder"):
            writer.store.picture_bytes(int(writer.store.ids[-1]))


def test_heic_is_read_and_without_its_package_named_with_the_remedy(
    tmp_path: Path, folder: Path, tiny_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.open(io.BytesIO(encoded(5)))).save(file, exif=exif().tobytes())
    put(folder / "phone.HEIC", file.getvalue())
    with monkeypatch.context() as patch:
        for name in ("pillow_heif", "pillow_heif.as_plugin"):
            patch.setitem(sys.modules, name, None)
        store = made(tiny_export, folder, tmp_path / "S")
        assert len(store) == 9 and "[heic]" in (tmp_path / "S/bad.csv").read_text()
    assert str(rescan(tmp_path / "S", **SETTINGS)) == "10 pictures, 1 added", "installed since"
    [record] = Store(tmp_path / "S").records([Store(tmp_path / "S").ids[-1]], ["name", "camera", "date", "width"])
    assert record == {"name": "phone.HEIC", "camera": "X100", "date": datetime(2024, 6, 1, 12, 30), "width": 48}


def test_changes_are_told_in_words() -> None:
    assert str(Changes(5, 1, 0, 2, 0, 0, 0, {})) == "5 pictures, 1 added, 2 moved"


def test_the_manifest_names_the_folders_and_no_time(tmp_path: Path, folder: Path, tiny_export: Path) -> None:
    made(tiny_export, folder, tmp_path / "S")
    made(tiny_export, folder, tmp_path / "T")
    assert read_manifest(tmp_path / "S", "store") == read_manifest(tmp_path / "T", "store")
    assert read_manifest(tmp_path / "S", "store").config["pictures"]["folders"] == [str(folder)]
