"""The one way to URLs: what is written arrives whole or not at all, whatever the line does, and with the patience that reading has."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import IO, Any, ClassVar

import pytest

fsspec = pytest.importorskip("fsspec", reason="URLs need the extra remote")

from fsspec.asyn import AsyncFileSystem  # noqa: E402  (needs fsspec)

from multimodal import urls  # noqa: E402
from multimodal.errors import InputError  # noqa: E402
from multimodal.urls import Transport, Unreachable, is_url, url_in  # noqa: E402

CONTENT = bytes(range(256)) * 100


class ServerError(OSError):
    """As the libraries of stores raise it, with the server's answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered {status}")
        self.status = status


class Line(AsyncFileSystem):
    """line://: files in memory, and a line on which things go wrong, in the order of `faults`; "" is no fault."""

    protocol = "line"
    files: ClassVar[dict[str, bytes]] = {}
    faults: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []
    """Paths of all uploads and downloads."""
    seen: ClassVar[list[bytes | None]] = []
    """What lay under the name s/a whenever an upload began or ended."""

    async def _transfer(self, path: str, content: bytes, uploads: bool) -> bytes:
        self.asked.append(path)
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdecimal():
            raise ServerError(int(fault))
        if fault in ("stall", "break") and uploads:
            self.files[path] = content[: len(content) // 2]
        if fault == "break":
            raise ConnectionResetError("the line went down")
        await asyncio.sleep({"stall": 60, "slow": 1.5}.get(fault, 0))
        return content[: len(content) // 2] if fault == "half" else content

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **kwargs: Any) -> None:
        self.seen.append(self.files.get("s/a"))
        try:
            self.files[rpath] = await self._transfer(rpath, Path(lpath).read_bytes(), uploads=True)
        finally:
            self.seen.append(self.files.get("s/a"))

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return await self._transfer(path, self.files[path][start:end], uploads=False)

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        if path not in self.files:
            raise FileNotFoundError(path)
        return {"name": path, "type": "file", "size": len(self.files[path])}

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        return [await self._info(name) for name in self.files if name.startswith(f"{path}/")]

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        if path not in self.files:
            raise FileNotFoundError(path)
        del self.files[path]

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Rename."""
        self.files[path2] = self.files.pop(path1)


fsspec.register_implementation("line", Line, clobber=True)


@pytest.fixture
def line() -> type[Line]:
    for kept in (Line.files, Line.faults, Line.asked, Line.seen):
        kept.clear()
    return Line


def transport(**settings: Any) -> Transport:
    return Transport(**{"tries": 3, "timeout_s": 1.0, "wait_s": 0.001, **settings})


def held(content: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()
    file.write(content)
    return file


@pytest.mark.parametrize("fault", ["break", "stall", "half", "503", "429"])
def test_an_upload_that_fails_twice_is_tried_again_and_is_whole(line: type[Line], fault: str) -> None:
    line.faults += [fault] * 2
    with held(CONTENT) as file:
        transport().write("line://s/a", file)
    assert line.files == {"s/a": CONTENT} and len(line.asked) == 3
    assert set(line.seen) == {None}, "no try writes under the name itself"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("break", "ConnectionResetError: the line went down"),
        ("stall", "FSTimeoutError"),
        ("half", "EOFError: 12800 of 25600 bytes arrived"),
        ("503", "ServerError: the server answered 503"),
    ],
)
def test_an_upload_that_keeps_failing_is_reported_and_leaves_what_was_there_before(line: type[Line], fault: str, told: str) -> None:
    line.files["s/a"] = b"before"
    line.faults += [fault] * 9
    with held(CONTENT) as file, pytest.raises(InputError, match=f"line://s/a: could not be written in 3 tries. The last error was: {told}"):
        transport().write("line://s/a", file)
    assert line.files == {"s/a": b"before"} and len(line.asked) == 3


@pytest.mark.parametrize("status", ["401", "403", "412"])
def test_an_upload_that_its_server_refuses_is_reported_at_once(line: type[Line], status: str) -> None:
    line.faults += [status] * 9
    with held(CONTENT) as file, pytest.raises(Unreachable, match=f"may not be written .*{status}.*credentials") as raised:
        transport().write("line://s/a", file)
    assert raised.value.is_refused and len(line.asked) == 1 and not line.files


@pytest.mark.parametrize("fault", ["break", "stall", "half", "503", "429"])
def test_reading_has_the_patience_of_writing(line: type[Line], fault: str) -> None:
    line.files["s/a"] = CONTENT
    line.faults += [fault] * 2
    assert b"".join(transport().pieces("line://s/a", len(CONTENT))) == CONTENT and len(line.asked) == 3


def test_of_many_small_files_only_those_that_failed_are_asked_for_again(line: type[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "FILES_AT_ONCE", 4)
    names = [f"{number:02d}" for number in range(10)]
    line.files.update({f"s/{name}": name.encode() for name in names})
    line.faults += ["", "503", "", "429", "503"]
    assert transport().read_files("line://s", names) == [name.encode() for name in names]
    assert len(line.asked) == len(names) + 3
    with pytest.raises(Unreachable, match="line://s: is not there"):
        transport().read_files("line://s", ["00", "missing"])


def test_a_large_upload_has_the_time_of_all_its_pieces(line: type[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "PIECE_BYTES", 1)
    line.faults.append("slow")
    with held(CONTENT) as file:
        transport(tries=1).write("line://s/a", file)
    assert line.files == {"s/a": CONTENT}


def test_what_is_removed_may_be_gone_already(line: type[Line]) -> None:
    line.files.update({"s/a": b"a", "s/b": b"b"})
    for _ in range(2):
        transport().remove("line://s/a")
    assert set(line.files) == {"s/b"} and transport().files("line://s") == {"b": 1}


def test_a_system_without_paths_to_open_files_uploads_the_same(line: type[Line], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(urls, "_DESCRIPTORS", tmp_path / "none")
    with held(CONTENT) as file:
        transport().write("line://s/a", file)
    assert line.files == {"s/a": CONTENT}


def test_a_url_is_a_string_with_a_protocol_of_more_than_a_letter() -> None:
    for url in ("s3://bucket/set", "https://example.org/set", "file:///set", "simplecache::s3://bucket/set"):
        assert is_url(url) and not is_url(Path(url))
    for path in ("shards/emoji", "C://set", "C:\\set", "/a://b", "", None, Path("x")):
        assert not is_url(path)
    assert url_in(Path("s3://bucket/set")) == "s3://bucket/set" and url_in(Path("bucket/set")) is None and url_in("s3://bucket/set") is None
