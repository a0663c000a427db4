"""Sets at a URL: the same pairs as in the folder, whatever the line does, or a message that says what it did."""

from __future__ import annotations

import hashlib
import json
import pickle
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from multimodal import urls
from multimodal.cli import main
from multimodal.doors.arguments import parse
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Column, ColumnWriter, RemoteShards, ShardSet, ShardWriter, finish, open_set, write_shard
from multimodal.shards.verify import find_problems

NUM, PER_SHARD = 20, 5


@pytest.fixture
def local(tmp_path: Path) -> ShardSet:
    """20 pairs in four shards of about 30 kB."""
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "set", pairs_per_shard=PER_SHARD) as writer:
        for i in range(NUM):
            writer.write(Pair(f"{i}.png", b"\x89PNG\r\n\x1a\n" + rng.bytes(3000), "png", (f"text {i}",), f"group {i}"))
    return ShardSet(tmp_path / "set")


def at(url: str, tmp_path: Path, **settings: object) -> RemoteShards:
    return RemoteShards(url, **{"cache": tmp_path / "cache", "wait_s": 0.01, "timeout_s": 5.0, "tries": 3, **settings})


def assert_equal(one: ShardSet, other: ShardSet) -> None:
    assert len(one) == len(other) and one.fingerprint == other.fingerprint
    assert [one.pair(id) for id in range(len(one))] == [other.pair(id) for id in range(len(other))]


@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize("piece_bytes", [1000, 2**22])
def test_a_set_at_a_url_holds_what_the_folder_holds(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, knows_ranges: bool, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "PIECE_BYTES", piece_bytes)
    assert_equal(at(serve(local.path, knows_ranges).url, tmp_path).open(), local)


def test_files_are_urls_too(local: ShardSet, tmp_path: Path) -> None:
    assert_equal(at(local.path.as_uri(), tmp_path).open(), local)


def test_a_tar_is_fetched_when_it_is_first_read_and_once(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(local.path)
    shards = at(server.url, tmp_path).open()
    assert sorted(server.asked) == ["index.arrow", "manifest.json"]
    for id in (6, 7, 6):
        shards.image_bytes(id)
    again = at(server.url, tmp_path).open()
    again.texts(8)
    pickle.loads(pickle.dumps(again)).texts(9)
    assert sorted(server.asked) == ["000001.tar", "index.arrow", "manifest.json", "manifest.json"]


@pytest.mark.parametrize("fault", ["503", "truncate", "cut", "corrupt", "stall"])
def test_a_line_that_fails_twice_costs_time_only(local: ShardSet, serve: Callable[..., Any], tmp_path: Path, fault: str) -> None:
    server = serve(local.path)
    server.faults["000002.tar"] = [fault] * 2
    shards = at(server.url, tmp_path, timeout_s=0.3 if fault == "stall" else 5.0).open()
    assert shards.pair(11) == local.pair(11)
    assert server.asked.count("000002.tar") == 3


def test_only_the_piece_that_failed_is_asked_for_again(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "PIECE_BYTES", 10_000)
    server = serve(local.path)
    server.faults["000000.tar"] = ["", "truncate"]
    shards = at(server.url, tmp_path).open()
    assert shards.pair(0) == local.pair(0)
    assert server.asked.count("000000.tar") == -(-shards.shards[0].size_bytes // 10_000) + 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("503", r"/set/000003.tar: could not be read in 3 tries. The last error was: .*503"),
        ("truncate", r"/set/000003.tar: could not be read in 3 tries. The last error was: ClientPayloadError"),
        ("stall", r"/set/000003.tar: could not be read in 3 tries. The last error was: FSTimeoutError"),
        ("cut", r"/set/000003.tar: could not be read in 3 tries. The last error was: EOFError: got \d+ of \d+ bytes from byte 0 on"),
        ("corrupt", r"/set/000003.tar: its sha256 is .* and .* in the manifest, 3 times. .*index the set again"),
    ],
)
def test_a_connection_that_stays_broken_is_reported_and_leaves_nothing(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, fault: str, message: str
) -> None:
    server = serve(local.path)
    server.faults["000003.tar"] = [fault] * 100
    shards = at(server.url, tmp_path, timeout_s=0.2 if fault == "stall" else 5.0).open()
    with pytest.raises(InputError, match=message):
        shards.image_bytes(NUM - 1)
    assert not list((tmp_path / "cache").glob("*.tar")) and not list((tmp_path / "cache").glob(".*.part"))
    server.faults.clear()
    assert shards.pair(NUM - 1) == local.pair(NUM - 1)


def test_a_manifest_and_an_index_that_fail_at_first_are_asked_for_again(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(local.path)
    server.faults["manifest.json"] = ["503"]
    server.faults["index.arrow"] = ["truncate", "503"]
    assert_equal(at(server.url, tmp_path).open(), local)


def test_the_cache_keeps_its_bound_and_what_was_evicted_is_fetched_again(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve(local.path)
    bound = 2 * max(shard.size_bytes for shard in local.shards)
    shards = at(server.url, tmp_path, cache_bytes=bound).open()
    for id in np.random.default_rng(0).integers(0, NUM, 30).tolist():
        assert shards.pair(id) == local.pair(id)
        assert sum(tar.stat().st_size for tar in (tmp_path / "cache").glob("*.tar")) <= bound
    assert len([name for name in server.asked if name.endswith(".tar")]) > len(local.shards)


def test_a_set_that_has_grown_is_read_as_it_is_now(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(local.path)
    assert_equal(at(server.url, tmp_path).open(), local)
    shutil.rmtree(local.path)
    with ShardWriter(local.path, pairs_per_shard=PER_SHARD) as writer:
        for i in range(NUM + 3):
            writer.write(Pair(f"{i}.png", b"\x89PNG\r\n\x1a\n" + bytes([i]) * 40, "png", (f"other {i}",), f"group {i}"))
    assert_equal(at(server.url, tmp_path).open(), ShardSet(local.path))


def test_a_local_index_is_used_with_its_columns(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(local.path)
    for name in ("manifest.json", "index.arrow"):
        (tmp_path / "index").mkdir(exist_ok=True)
        shutil.move(local.path / name, tmp_path / "index" / name)
    shards = at(server.url, tmp_path, index=tmp_path / "index").open()
    assert shards.texts(3) == ("text 3",) and shards.index == tmp_path / "index"
    assert server.asked == ["000000.tar"]


def test_a_set_missing_at_the_url_is_reported_at_once(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(tmp_path / "nothing")
    with pytest.raises(InputError, match="/set/manifest.json: is not there. Check the URL"):
        at(server.url, tmp_path).open()
    assert server.asked == ["manifest.json"]


def test_a_server_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/set/manifest.json: could not be read in 2 tries"):
        at("http://127.0.0.1:9/set", tmp_path, tries=2).open()


def argument(url: str, tmp_path: Path, **settings: object) -> str:
    settings = {"cache": str(tmp_path / "cache"), "wait_s": 0.01, "timeout_s": 5.0, "tries": 2, **settings}
    return json.dumps({"class_path": "multimodal.shards.RemoteShards", "init_args": {"url": url, **settings}})


def test_shards_verify_stats_ls_and_cat_say_of_a_set_at_a_url_what_they_say_of_the_folder(
    local: ShardSet,
    serve: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    url = serve(local.path).url
    for verb, *rest in (["verify"], ["verify", "--json"], ["stats", "--json"], ["ls", "--part", "train"], ["cat", "000000007"]):
        told = []
        for place in ([str(local.path)], [argument(url, tmp_path)], [url, "--cache", str(tmp_path / "other")], [url]):
            assert main(["shards", verb, *place, *rest]) == 0
            told.append(capsys.readouterr().out)
        assert told[0].replace(str(local.path), url) == told[1] == told[2] == told[3], verb
    assert list((tmp_path / "other").glob("*.tar")) and list((tmp_path / "user" / "multimodal" / "shards").glob("*.tar"))


def test_verify_names_what_is_broken_at_the_url_and_goes_on_whatever_the_cache_holds(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(local.path)
    whole = at(server.url, tmp_path).open()
    assert_equal(whole, local)  # all tars are in the cache, as they were
    (local.path / "000000.tar").unlink()
    server.faults["000001.tar"] = ["corrupt"] * 100
    server.faults["000002.tar"] = ["cut"] * 100
    problems = list(find_problems(whole))
    assert [(problem.where, problem.key) for problem in problems] == [("000000", ""), ("000001", ""), ("000002", "")]
    for problem, reason in zip(problems, ("is not there", "its sha256 is", "could not be read in 3 tries"), strict=True):
        assert problem.reason.startswith(reason)
    assert main(["shards", "verify", argument(server.url, tmp_path)]) == 2
    printed = capsys.readouterr()
    assert f"{server.url}: 4 shards, 20 pairs, 0 columns: 3 problems" in printed.out
    assert f"{server.url} is broken in 3 places: 000000: is not there" in printed.err
    assert whole.pair(7) == at(server.url, tmp_path).open().pair(7), "what the cache held stays there"


def test_verify_names_a_tar_that_became_longer_at_the_url(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    with open(local.path / "000001.tar", "ab") as tar:
        size_bytes = tar.tell()
        tar.write(bytes(10))
    (problem,) = find_problems(at(serve(local.path).url, tmp_path).open())
    assert (problem.where, problem.reason) == ("000001", f"has {size_bytes + 10} bytes, the manifest says {size_bytes}")


def test_a_set_at_a_url_is_printed_as_options_that_open_the_same_set(local: ShardSet, tmp_path: Path) -> None:
    url = local.path.as_uri()
    default = RemoteShards(url)
    assert default.as_argument() == url
    for one in (replace(default, cache=tmp_path / "the cache"), replace(default, cache=tmp_path, cache_bytes=10**6)):
        [given] = parse("prog", shlex.split(one.as_argument()), open_set)
        assert replace(default, cache=given["cache"], cache_bytes=given["cache_bytes"] or default.cache_bytes) == one
        assert open_set(**given).remote == one


def test_a_set_at_a_url_with_other_settings_is_printed_as_an_argument_that_opens_the_same_set(tmp_path: Path) -> None:
    one = RemoteShards("s3://bucket/it's", tmp_path / "the cache", cache_bytes=5, index=tmp_path / "index", tries=2, timeout_s=1.5)
    (text,) = shlex.split(one.as_argument())
    made = yaml.safe_load(text)
    assert made["class_path"] == "multimodal.shards.RemoteShards"
    paths = {name: Path(made["init_args"].pop(name)) for name in ("cache", "index")}
    assert RemoteShards(**made["init_args"], **paths) == one


def test_verify_names_the_pairs_of_a_whole_tar_that_are_broken(serve: Callable[..., Any], tmp_path: Path) -> None:
    pairs = [Pair(f"{i}.png", b"no picture" if i == 1 else b"\x89PNG\r\n\x1a\n", "png", (f"text {i}",), "group") for i in range(3)]
    write_shard(tmp_path / "set", 0, pairs, first_key=0)
    finish(tmp_path / "set", {})
    (problem,) = find_problems(at(serve(tmp_path / "set").url, tmp_path).open())
    assert (problem.where, problem.key) == ("000000", "000000001") and problem.reason.startswith("its png: not a picture")


def test_verify_and_stats_keep_the_bound_of_the_cache(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(local.path)
    cached = argument(server.url, tmp_path, cache_bytes=max(shard.size_bytes for shard in local.shards))
    for verb in ("verify", "stats"):
        assert main(["shards", verb, cached]) == 0
        assert len(list((tmp_path / "cache").glob("*.tar"))) == 1
    assert {name: server.asked.count(name) for name in server.asked if name.endswith(".tar")} == dict.fromkeys(
        ("000000.tar", "000001.tar", "000002.tar", "000003.tar"), 2
    )


def test_stats_counts_the_pairs_of_a_tar_that_is_gone_as_broken(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (local.path / "000003.tar").unlink()
    assert main(["shards", "stats", argument(serve(local.path).url, tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["broken_pairs"] == PER_SHARD and facts["pairs"] == NUM


def test_an_unreadable_pair_is_reported_with_the_command_that_verifies_its_set_at_the_url(
    serve: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shard(tmp_path / "set", 0, [Pair("a.png", b"\x89PNG\r\n\x1a\n", "png", ("a text",), "group")], first_key=0)
    finish(tmp_path / "set", {})
    tar, manifest = tmp_path / "set" / "000000.tar", tmp_path / "set" / "manifest.json"
    spoilt = tar.read_bytes().replace(b'{"group"', b'["group"')
    whole, damaged = (hashlib.sha256(content).hexdigest() for content in (tar.read_bytes(), spoilt))
    tar.write_bytes(spoilt)
    manifest.write_text(manifest.read_text().replace(whole, damaged))
    server = serve(tmp_path / "set")
    with pytest.raises(InputError, match=f"{server.url}: shard 000000, pair 000000000: its JSON cannot be read") as raised:
        at(server.url, tmp_path).open().texts(0)
    program, *command = shlex.split(str(raised.value).partition("Run: ")[2])
    assert program == "multimodal" and main(command) == 2
    assert "000000 000000000: its JSON cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["index", "cache"])
def test_the_settings_of_a_set_that_has_its_own_are_asked_for_among_them(
    local: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["shards", "verify", argument(local.path.as_uri(), tmp_path), f"--{option}", str(local.path)]) == 2
    assert f"is given as RemoteShards; put {option} among its init_args" in capsys.readouterr().err


def test_the_index_of_a_set_at_a_url_may_be_local(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(local.path)
    (tmp_path / "index").mkdir()
    for name in ("manifest.json", "index.arrow"):
        shutil.move(local.path / name, tmp_path / "index" / name)
    command = ["shards", "verify", server.url, "--index", str(tmp_path / "index"), "--cache", str(tmp_path / "cache")]
    assert main(command) == 0, capsys.readouterr().err
    assert "4 shards, 20 pairs, 0 columns: all well" in capsys.readouterr().out


def test_a_url_with_a_slash_at_its_end_is_the_same_set(local: ShardSet, tmp_path: Path) -> None:
    one, other = (open_set(url, tmp_path / "cache") for url in (local.path.as_uri(), f"{local.path.as_uri()}/"))
    assert_equal(one, other)
    assert one.index == other.index and one.name == other.name == local.name


@pytest.mark.parametrize("status", ["401", "403", "410"])
def test_a_server_that_refuses_is_reported_at_once_with_its_status(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, status: str
) -> None:
    server = serve(local.path)
    server.faults["000002.tar"] = [status] * 9
    shards = at(server.url, tmp_path).open()
    reason = "is not there. Check the URL" if status == "410" else f"may not be read .*{status}.*. Check the URL, and the credentials"
    with pytest.raises(InputError, match=rf"/set/000002.tar: {reason}"):
        shards.image_bytes(11)
    assert server.asked.count("000002.tar") == 1


def write_column(shards: ShardSet, name: str, value: float) -> Column:
    with ColumnWriter(shards, name, 2, "text", "float32", {}, {"text-space": "3f9c"}) as writer:
        for shard in writer.missing():
            writer.write(shard, np.arange(2 * PER_SHARD, dtype=np.float32).reshape(-1, 2) + shard.start + value, np.ones(PER_SHARD, int))
        writer.name_dimensions([["dog"], ["beach"]])
    return Column.of(shards, name)


def test_a_column_at_the_url_is_downloaded_once_at_its_first_use(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    column, server = write_column(local, "words", 0), serve(local.path)
    shards = at(server.url, tmp_path).open()
    for _ in range(2):
        fetched = Column.of(shards, "words")
        assert fetched.manifest == column.manifest and fetched.top_words() == [["dog"], ["beach"]]
        assert np.array_equal(fetched.take(np.arange(NUM)), column.take(np.arange(NUM)))
    assert server.asked.count("columns/words/000000.npy") == server.asked.count("columns/words/000000.offsets.npy") == 1


def test_a_column_that_was_made_again_at_the_url_is_fetched_again(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    write_column(local, "words", 0)
    shards = at(serve(local.path).url, tmp_path).open()
    before = Column.of(shards, "words").take(np.arange(NUM))
    shutil.rmtree(local.path / "columns")
    write_column(local, "words", 5)
    assert np.array_equal(Column.of(shards, "words").take(np.arange(NUM)), before + 5)


def test_a_column_that_was_made_here_comes_before_the_one_at_the_url(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    column, shards = write_column(local, "words", 0), at(serve(local.path).url, tmp_path).open()
    write_column(shards, "words", 1)
    assert np.array_equal(Column.of(shards, "words").take(np.arange(NUM)), column.take(np.arange(NUM)) + 1)


def test_a_column_at_the_url_that_is_damaged_or_missing_is_reported_and_leaves_none(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path
) -> None:
    column, server = write_column(local, "words", 0), serve(local.path)
    server.faults["columns/words/000001.npy"] = ["corrupt"]
    shards = at(server.url, tmp_path).open()
    with pytest.raises(InputError, match=r"/set/columns/words/000001.npy: its sha256 is .* in the manifest"):
        Column.of(shards, "words")
    assert not (shards.index / "columns" / "words" / "manifest.json").exists()
    assert Column.of(shards, "words").manifest == column.manifest, "the next one that asks gets it"
    with pytest.raises(InputError, match=rf"columns .*other: does not exist, nor does {server.url}/columns/other. Finished ones: words"):
        Column.of(shards, "other")
    server.faults["columns/other/manifest.json"] = ["403"]  # as a bucket that may not be listed has it
    with pytest.raises(InputError, match="columns .*other: does not exist, nor does"):
        Column.of(shards, "other")


def test_a_column_at_the_url_writes_nowhere_but_into_its_folder(local: ShardSet, serve: Callable[..., Any], tmp_path: Path) -> None:
    manifest = write_column(local, "words", 0).path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("000002.npy", "../../../../000002.npy"))
    with pytest.raises(InputError, match=r"columns/words: names the file '../../../../000002.npy', which may be outside this folder"):
        Column.of(at(serve(local.path).url, tmp_path).open(), "words")
    assert not list(tmp_path.glob("*.npy"))


def test_an_index_that_was_damaged_in_the_cache_is_fetched_again(local: ShardSet, tmp_path: Path) -> None:
    remote = at(local.path.as_uri(), tmp_path)
    index = remote.open().index / "index.arrow"
    whole = index.read_bytes()
    index.write_bytes(whole[:100] + b"x" + whole[101:])
    assert_equal(remote.open(), local)
    assert index.read_bytes() == whole


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"000000.npy": {}}, "parts.000000.npy.num_pairs is missing"),
        ({"..": {"fingerprint": "0"}}, "names the file '..', which may be outside"),
        ({"a/b.npy": {"num_pairs": 1, "num_rows": 1, "shard": "", "fingerprint": ""}}, "lists 'a/b.npy', which is not a file of a column"),
        ({"a.npy": {"num_pairs": 1, "num_rows": 1, "shard": "", "fingerprint": "", "offsets": 1}}, "offsets is 1; expected str"),
    ],
)
def test_a_column_at_the_url_whose_manifest_lacks_a_fact_is_named_and_nothing_fetched(
    local: ShardSet, serve: Callable[..., Any], tmp_path: Path, parts: dict[str, Any], message: str
) -> None:
    manifest = write_column(local, "words", 0).path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"parts": parts}))
    server = serve(local.path)
    with pytest.raises(InputError, match=message):
        Column.of(at(server.url, tmp_path).open(), "words")
    assert not [asked for asked in server.asked if asked.endswith(".npy")]


def test_a_set_whose_manifest_names_a_file_outside_the_cache_is_refused(local: ShardSet, tmp_path: Path) -> None:
    manifest = local.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(local.shards[1].fingerprint, "../../elsewhere"))
    with pytest.raises(InputError, match="shard 000001: expected a sha256 of 64 hex digits, got '../../elsewhere'"):
        open_set(local.path.as_uri(), tmp_path / "cache")


@pytest.mark.parametrize(("url", "missing"), [("http://127.0.0.1:9/set", "fsspec"), ("s3://bucket/set", "s3fs")])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(url: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    with pytest.raises(InputError, match=rf"{url}: .*{missing}.*Run: pip install.*remote"):
        open_set(url)


def test_a_url_where_only_a_path_will_do_is_refused_and_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main("search --store s3://bucket/store dog".split()) == 2
    assert "s3://bucket/store" in (told := capsys.readouterr().err) and "only a local path can be given here" in told
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_made_is_reported_with_its_option(local: ShardSet, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/cache: cannot be used as the cache folder .Not a directory.. Give another folder .--cache"):
        open_set(local.path.as_uri(), tmp_path / "file" / "cache")


def test_settings_that_make_no_sense_are_refused(local: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a URL such as .*, got 'shards/emoji'"):
        at("shards/emoji", tmp_path)
    with pytest.raises(InputError, match="tries=0"):
        at("file:///set", tmp_path, tries=0)
    with pytest.raises(InputError, match=r"has a tar of \d+ bytes, and cache_bytes=100"):
        at(local.path.as_uri(), tmp_path, cache_bytes=100).open()
    with pytest.raises(InputError, match=r"expected a folder, got a URL.*open_set\(url\)"):
        ShardSet("https://example.org/set")
    with pytest.raises(InputError, match="a URL converted to a Path.*give it as a string"):
        open_set(Path("https://example.org/set"))
    with pytest.raises(InputError, match="not the settings of a multimodal.shards.RemoteShards .is one misspelt"):
        open_set('{class_path: RemoteShards, init_args: {url: "s3://bucket/set", cash: here}}')
    with pytest.raises(InputError, match="cannot have a query"):
        open_set("https://example.org/set?token=1")
    with pytest.raises(InputError, match="fsspec knows no protocol nowhere://"):
        open_set("nowhere://bucket/set")
