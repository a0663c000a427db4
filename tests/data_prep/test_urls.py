"""Lists of addresses: what img2dataset is given, what is adopted of what it wrote, and the program itself against a local server."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.conformance import check_parts, check_source, read_all
from data_prep.sources._img2dataset_program import LOCK, FetchSettings, find_program
from data_prep.sources.urls import LIST, plan, urls
from multimodal.errors import InputError
from multimodal.shards import ShardSet

ROWS = [
    ("http://h/ok/1", "one"),
    ("http://h/gone", "two"),
    ("file:///etc/passwd", "three"),
    ("HTTPS://h/ok/4", 'four "quoted'),
    ("http://h/ok/5", " "),
    ("", "six"),
    ("http://h/ok/7", "seven"),
]
TSV = "url\ttext\n" + "".join(f"{url}\t{text}\n" for url, text in ROWS)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program that writes what img2dataset writes, without a network: a picture for each address with /ok/ in it.

    It counts its calls in `calls`, ends with status 3 after the first tar where there is a file `fail`, and where there is a file `hang` it
    starts another process, says both numbers in it, and waits.
    """
    program = tmp_path / "bin" / "img2dataset"
    program.parent.mkdir()
    body = f"""\
        #!{sys.executable}
        import io, json, os, subprocess, sys, tarfile, time
        from pathlib import Path
        import pyarrow as pa, pyarrow.parquet as pq
        from PIL import Image

        here = Path(__file__).parent
        options = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
        assert options["save_additional_columns"] == "[place,refused]" and options["output_format"] == "webdataset"
        with open(here / "calls", "a") as calls:
            calls.write("called\\n")
        output, size = Path(options["output_folder"]), int(options["number_sample_per_shard"])
        output.mkdir(exist_ok=True)
        if (here / "hang").exists():
            worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
            (here / "hang.part").write_text(f"{{os.getpid()}} {{worker.pid}}")
            (here / "hang.part").rename(here / "hang")
            time.sleep(120)
        rows = pq.read_table(options["url_list"]).to_pylist()
        for number in range(-(-len(rows) // size)):
            name = output / f"{{number:05d}}"
            if Path(f"{{name}}_stats.json").exists():
                continue
            done = []
            with tarfile.open(f"{{name}}.tar", "w") as tar:
                for position, row in list(enumerate(rows[number * size : (number + 1) * size]))[::-1]:  # as they come in
                    row |= {{"key": f"{{number:05d}}{{position:04d}}", "status": "success", "error_message": None}}
                    done.append(row)
                    if "/ok/" not in row["url"]:
                        row |= {{"status": "failed_to_download", "error_message": "HTTP Error 404: Not Found"}}
                        continue
                    picture = io.BytesIO()
                    Image.new("RGB", (8, 8), (len(row["url"]), int(row["url"][-1]), 0)).save(picture, "JPEG")
                    members = {{"jpg": picture.getvalue(), "txt": row["caption"].encode(), "json": json.dumps(row).encode()}}
                    for suffix, content in members.items():
                        info = tarfile.TarInfo(f"{{row['key']}}.{{suffix}}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
            pq.write_table(pa.Table.from_pylist(done), f"{{name}}.parquet")
            Path(f"{{name}}_stats.json").write_text("{{}}")
            if (here / "fail").exists():
                sys.exit("the disk is full") if number else sys.exit(3)
    """
    program.write_text(textwrap.dedent(body))
    program.chmod(0o755)
    return program


def settings(root: Path, program: Path, **others: Any) -> dict[str, Any]:
    (root / "list.tsv").write_text(TSV)
    return {"input": root / "list.tsv", "downloads": root / "downloads", "img2dataset": program, **others}


def num_calls(program: Path) -> int:
    return (program.parent / "calls").read_text().count("called")


def test_what_was_fetched_is_adopted_and_every_other_row_is_named_with_its_reason(tmp_path: Path, stand_in: Path) -> None:
    pairs, ledger = read_all(urls, settings(tmp_path, stand_in))
    assert sorted((pair.texts, pair.group) for pair in pairs) == [
        (('four "quoted',), "HTTPS://h/ok/4"),
        (("one",), "http://h/ok/1"),
        (("seven",), "http://h/ok/7"),
    ]
    assert [str(bad) for bad in ledger.entries] == [
        "list.tsv line 3 http://h/gone: failed to download: HTTP Error 404: Not Found",
        "list.tsv line 4: its address is not http or https: 'file:///etc/passwd'",
        "list.tsv line 6: has no text: http://h/ok/5",
        "list.tsv line 7: has no address",
    ]


def test_no_address_of_another_kind_than_http_is_handed_on(tmp_path: Path, stand_in: Path) -> None:
    plan(1000, **settings(tmp_path, stand_in))
    given = pq.read_table(tmp_path / "downloads" / LIST).to_pylist()
    assert [row["url"] for row in given] == ["http://h/ok/1", "http://h/gone", "", "HTTPS://h/ok/4", "", "", "http://h/ok/7"]


@pytest.mark.parametrize("pairs_per_shard", [1, 2, 3, 1000])
def test_a_shard_is_made_of_each_tar_and_nothing_is_fetched_twice(tmp_path: Path, stand_in: Path, pairs_per_shard: int) -> None:
    parts = check_parts_of(tmp_path, stand_in, pairs_per_shard)
    assert len(parts) == -(-len(ROWS) // pairs_per_shard) and num_calls(stand_in) == 1


def check_parts_of(root: Path, program: Path, pairs_per_shard: int) -> list[dict[str, Any]]:
    plan(pairs_per_shard, **settings(root, program))  # how many are in a tar is settled by who begins
    return check_parts(urls, settings(root, program), 5)


def test_downloads_that_were_stopped_go_on_with_the_tars_that_are_missing(tmp_path: Path, stand_in: Path) -> None:
    (stand_in.parent / "fail").touch()
    with pytest.raises(InputError, match=r"ended with status 3, and 3 of 4 tars are not done. Run the same command again to continue"):
        plan(2, **settings(tmp_path, stand_in))
    with pytest.raises(InputError, match=r"2 of 4 tars are not done.* The end of .*img2dataset.log: the disk is full"):
        plan(2, **settings(tmp_path, stand_in))
    first = (tmp_path / "downloads/tars/00000.tar").stat().st_mtime_ns
    (stand_in.parent / "fail").unlink()
    assert len(plan(2, **settings(tmp_path, stand_in))) == 4 and (tmp_path / "downloads/tars/00000.tar").stat().st_mtime_ns == first


def test_a_folder_that_is_being_fetched_into_is_left_alone(tmp_path: Path, stand_in: Path) -> None:
    (stand_in.parent / "fail").touch()
    with pytest.raises(InputError):
        plan(2, **settings(tmp_path, stand_in))
    with open(tmp_path / "downloads" / LOCK, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is downloading into this folder"):
            plan(2, **settings(tmp_path, stand_in))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_the_program_and_a_kill_leaves_the_folder_to_it(tmp_path: Path, stand_in: Path, how: signal.Signals) -> None:
    (stand_in.parent / "hang").touch()
    given = settings(tmp_path, stand_in)
    options = ["--downloads", given["downloads"], "--img2dataset", stand_in, "--output", tmp_path / "set"]
    ours = subprocess.Popen([sys.executable, "-m", "data_prep", "make-shards", "urls", given["input"], *options])
    while not (numbers := (stand_in.parent / "hang").read_text().split()):
        assert ours.poll() is None
        time.sleep(0.05)
    ours.send_signal(how)
    assert ours.wait() == (130 if how == signal.SIGINT else -signal.SIGKILL)
    program, worker = map(int, numbers)
    if how == signal.SIGKILL:
        with pytest.raises(InputError, match="is downloading into this folder"):
            plan(2, **given)
        os.killpg(program, signal.SIGKILL)
    assert not stays(program) and not stays(worker)


def stays(number: int, seconds: float = 200) -> bool:
    """Whether the process is still there after so long; one that has ended and that nobody has asked about counts as gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_downloads_that_are_finished_need_no_program(tmp_path: Path, stand_in: Path) -> None:
    parts = plan(2, **settings(tmp_path, stand_in))
    stand_in.unlink()
    assert plan(2, **settings(tmp_path, stand_in)) == parts


def test_downloads_of_another_list_or_size_are_refused(tmp_path: Path, stand_in: Path) -> None:
    plan(2, **settings(tmp_path, stand_in))
    with pytest.raises(InputError, match="side_px was 256 and is not set now. Give the same settings"):
        plan(2, **settings(tmp_path, stand_in, side_px=None))
    changed = settings(tmp_path, stand_in)
    changed["input"].write_text(TSV + "http://h/ok/8\teight\n")
    with pytest.raises(InputError, match=r"inputs: input was \w{12}.. and is \w{12}.. now"):
        plan(2, **changed)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "00000.tar").write_bytes(b"")
    with pytest.raises(InputError, match="is not a folder of downloads of this source.*make-shards img2dataset"):
        plan(2, **settings(tmp_path, stand_in, downloads=tmp_path / "other"))


def test_only_so_many_addresses_are_fetched_to_try_something_out(tmp_path: Path, stand_in: Path) -> None:
    assert len(check_source(urls, settings(tmp_path, stand_in, max_urls=1), keeps=["downloads"])) == 1


def test_the_command_makes_shards_of_a_list_and_uses_them_again(tmp_path: Path, stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = settings(tmp_path, stand_in)
    options = ["--downloads", str(given["downloads"]), "--img2dataset", str(stand_in), "--max-bad-share", "0.6"]
    command = ["make-shards", "urls", str(given["input"]), *options, "--output", str(tmp_path / "set")]
    assert main(command) == 0 and len(ShardSet(tmp_path / "set")) == 3
    assert main(command) == 0 and "is there already" in capsys.readouterr().err
    assert "failed to download: HTTP Error 404" in (tmp_path / "set" / "bad.csv").read_text()


# -- lists ---------------------------------------------------------------------------------------------------------------------------------


def parquet(columns: dict[str, list[Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "others"),
    [
        ("l.tsv", 'n\turl\ttext\n1\thttp://h/ok/1\ta "b\n2\thttp://h/ok/2\tc, d\n', {}),
        ("cc3m.tsv", 'a "b\thttp://h/ok/1\nc, d\thttp://h/ok/2\n', {"columns": ["text", "url"]}),
        ("l.csv", '\ufefftext,url\r\n"a ""b",http://h/ok/1\r\n"c, d",http://h/ok/2\r\n', {}),
        (
            "laion.parquet",
            parquet({"URL": ["http://h/ok/1", "http://h/ok/2"], "TEXT": ['a "b', "c, d"], "NSFW": [1, 2]}),
            {"url_column": "URL", "text_column": "TEXT"},
        ),
    ],
)
def test_equal_lists_in_any_format_are_equal_pairs(
    tmp_path: Path, stand_in: Path, name: str, content: str | bytes, others: dict[str, Any]
) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    pairs = check_source(
        urls, {"input": tmp_path / name, "downloads": tmp_path / "d", "img2dataset": stand_in, **others}, keeps=["downloads"]
    )
    assert sorted((pair.group, *pair.texts) for pair in pairs) == [("http://h/ok/1", 'a "b'), ("http://h/ok/2", "c, d")]


def test_a_row_that_is_broken_costs_only_itself(tmp_path: Path, stand_in: Path) -> None:
    for name, content in {
        "l.tsv": "url\ttext\nhttp://h/ok/1\tone\tmore\n\nhttp://h/ok/2\ttwo\n",
        "l.parquet": parquet({"url": [None, "http://h/ok/2"], "text": ["one", "two"]}),
    }.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        pairs, ledger = read_all(urls, {"input": tmp_path / name, "downloads": tmp_path / f"{name}-d", "img2dataset": stand_in})
        assert [pair.texts for pair in pairs] == [("two",)]
        assert [str(bad) for bad in ledger.entries] == [
            {"l.tsv": "l.tsv line 2: 3 fields where the header has 2: url, text", "l.parquet": "l.parquet row 1: has no address"}[name]
        ]


@pytest.mark.parametrize(
    ("name", "content", "others", "message"),
    [
        ("l.txt", b"", {}, "is not a list of URLs, by its name. They end in .parquet, .tsv, .csv"),
        ("l.tsv", b"http://h/1\tone\t1\n", {}, "line 1: is a row, not a header.*Name its columns, in order: --columns url text"),
        ("l.csv", b"adresse,text\n", {}, "has no column 'url'.*; the columns are adresse, text.*name the columns with --columns"),
        ("l.csv", b"url,url,text\n", {}, "has more than one column 'url'"),
        ("l.csv", b"url,worte\n", {}, "has no column 'text'.*Give its name with --text-column"),
        ("l.tsv", b"url\ttext\n", {}, "has no URL"),
        ("l.tsv", b"url\ttext\nhttp://h/1\t\xe4\xee\xec\n", {}, r"is neither UTF-8 .*byte 0xe4"),
        ("l.parquet", b"no parquet", {}, "is not a valid Parquet file"),
        ("l.parquet", parquet({"url": ["http://h/1"], "text": ["a"]}), {"columns": ["url", "text"]}, "leave out --columns"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error_and_nothing_is_fetched(
    tmp_path: Path, stand_in: Path, name: str, content: bytes, others: dict[str, Any], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        plan(10, tmp_path / name, tmp_path / "d", img2dataset=stand_in, **others)
    assert not (stand_in.parent / "calls").exists()


# -- the program ---------------------------------------------------------------------------------------------------------------------------


def test_a_program_that_is_not_there_is_an_error_that_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="either --img2dataset PATH/TO/img2dataset or --environment DIR"):
        find_program(None, None)
    with pytest.raises(InputError, match=r"--create-environment.*uv venv .*/i2d && uv pip install --python .*img2dataset==1"):
        find_program(None, tmp_path / "i2d")
    with pytest.raises(InputError, match="no such program"):
        find_program(tmp_path / "img2dataset", None)
    with pytest.raises(InputError, match="threads is 0"):
        FetchSettings(threads=0)


class Pictures(BaseHTTPRequestHandler):
    """/picture/<n> is one, /robots one that is not to be used; /stall sends nothing until the test is over."""

    over = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/stall":
            self.over.wait(60)
        elif self.path == "/page":
            self._send(b"<html>no picture</html>")
        elif self.path == "/robots":
            self._send(self._picture(0), ("X-Robots-Tag", "noai"))
        elif self.path.startswith("/picture/"):
            self._send(self._picture(int(self.path.rpartition("/")[2])))
        else:
            self.send_error(404)

    def _picture(self, number: int) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (320 + number, 640), (number * 40, 0, 0)).save(file, "PNG" if number % 2 else "JPEG")
        return file.getvalue()

    def _send(self, content: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in (("Content-Length", str(len(content))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Pictures.over.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        Pictures.over.set()
        listening.shutdown()
        thread.join()


def test_img2dataset_itself_fetches_from_a_server_and_what_failed_is_named(tmp_path: Path, server: str) -> None:
    program = os.environ.get("MULTIMODAL_IMG2DATASET")
    if not program:
        pytest.skip("img2dataset absent: set MULTIMODAL_IMG2DATASET to the program, which has an environment of its own")
    paths = ["/picture/0", "/gone", "/picture/1", "/page", "/stall", "/robots", "/picture/2"]
    (tmp_path / "l.csv").write_text("url,text\n" + "".join(f"{server}{path},text of {path}\n" for path in paths) + "file:///etc/hosts,x\n")
    given = {"input": tmp_path / "l.csv", "downloads": tmp_path / "d", "img2dataset": Path(program), "timeout_s": 2, "threads": 4}
    assert plan(5, **given) == [{"tar": "00000.tar"}, {"tar": "00001.tar"}]
    pairs, ledger = read_all(urls, given)
    assert sorted((pair.group, pair.texts[0], Image.open(io.BytesIO(pair.image)).size) for pair in pairs) == [
        (f"{server}/picture/{number}", f"text of /picture/{number}", (256, round(256 * 640 / (320 + number)))) for number in range(3)
    ]
    assert {bad.where: (bad.key.removeprefix(server), bad.reason) for bad in ledger.entries} == {
        "l.csv line 3": ("/gone", "failed to download: HTTP Error 404: Not Found"),
        "l.csv line 5": ("/page", "failed to resize: Image decoding error"),
        "l.csv line 6": ("/stall", "failed to download: timed out"),
        "l.csv line 7": ("/robots", "failed to download: Use of image disallowed by X-Robots-Tag directive"),
        "l.csv line 9": ("", "its address is not http or https: 'file:///etc/hosts'"),
    }
