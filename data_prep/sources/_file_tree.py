"""The files below a folder, and in the tars and zips that lie in it, by their names: for data sets that are given out as archives.

tree = FileTree(Path("omniglot"))
tree.names[0], tree.read(tree.names[0])            # "images_background_small1/Balinese/character01/0108_01.png"
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

from data_prep.sources import check_listing, input_fingerprint
from data_prep.sources._layout import names_digest
from multimodal.errors import InputError
from multimodal.machine.system_files import is_system_file, is_system_name
from multimodal.pictures.decode import BadPicture
from multimodal.shards.scan import OpenTar

ARCHIVES = (".tar", ".zip")
MAX_FILE_BYTES = 256 << 20
"""Of a member of a zip, which may claim any size: a bomb is not unpacked."""


class FileTree:
    """path: a folder, or one .tar or .zip. Names are sorted by code point; hidden and system files are left out.

    A member of an archive has its path in the archive as its name. InputError: nothing is there, an archive is not one, or two have a file
    of one name.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"{path}: does not exist. Give the folder of the data set, or its .tar or .zip")
        self.path = path
        self.archives = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in ARCHIVES and one.is_file())
        self._members: dict[str, tuple[Path, int, int] | tuple[Path, zipfile.ZipInfo]] = {}
        for archive in self.archives:
            if archive.suffix not in ARCHIVES:
                raise InputError(f"{archive}: is neither a folder nor a .tar or .zip")
            for name, member in _zipped(archive) if archive.suffix == ".zip" else _tarred(archive):
                if name in self._members:
                    raise InputError(f"{path}: {name} is in {self._members[name][0].name} and in {archive.name}. Remove one of them")
                self._members[name] = member
        self.names = sorted({*self._members, *(() if path.is_file() else _files_below(path))})
        self._zips: dict[Path, zipfile.ZipFile] = {}

    def read(self, name: str) -> bytes:
        """The content of a file. BadPicture if it cannot be read, or is too large."""
        member = self._members.get(name)
        try:
            if member is None:
                return (self.path / name).read_bytes()
            if isinstance(member[1], zipfile.ZipInfo):
                return self._unzipped(member[0], member[1])
            archive, offset, size = member
            with open(archive, "rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise BadPicture(f"cannot be read: {error.strerror or error}") from None
        if len(content) < size:
            raise BadPicture(f"is cut off: {archive.name} ends {size - len(content)} bytes too early")
        return content

    def fingerprint(self, names: Iterable[str]) -> str:
        """Of what these files are read from: the archives, and the plain files."""
        plain = [self.path / name for name in names if name not in self._members]
        return input_fingerprint(self.path, [*self.archives, *plain] if self.path.is_dir() else None)

    @cached_property
    def digest(self) -> str:
        """Of all names, for a plan."""
        return names_digest(self.names)

    def _unzipped(self, archive: Path, member: zipfile.ZipInfo) -> bytes:
        if archive not in self._zips:
            self._zips[archive] = zipfile.ZipFile(archive)
        try:
            with self._zips[archive].open(member) as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # damaged, or with a password
            raise BadPicture(f"cannot be read from {archive.name}: {error}") from None
        if len(content) > MAX_FILE_BYTES:
            raise BadPicture(f"has more than {MAX_FILE_BYTES:,} bytes in {archive.name}")
        return content


def tree_of(path: Path, digest: str | None = None) -> FileTree:
    """The tree, listed once per process. digest: of the plan's names; InputError if they have changed since."""
    parts = [path, *(sorted(path.iterdir()) if path.is_dir() else ())]
    facts = tuple((str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in parts if one.exists())
    tree = _tree(path, facts)
    if digest is not None:
        check_listing(path, tree.digest, digest)
    return tree


@lru_cache(maxsize=1)
def _tree(path: Path, facts: tuple[tuple[str, int, int], ...]) -> FileTree:
    return FileTree(path)


def _zipped(archive: Path) -> list[tuple[str, tuple[Path, zipfile.ZipInfo]]]:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [one for one in opened.infolist() if not one.is_dir()]
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InputError(f"{archive}: cannot be read as a .zip ({error}). Download it again") from None
    return [(one.filename, (archive, one)) for one in members if not is_system_file(one.filename)]


def _tarred(archive: Path) -> list[tuple[str, tuple[Path, int, int]]]:
    with OpenTar(archive) as tar:
        files = [(one.name.removeprefix("./"), (archive, one.offset, one.size)) for one in tar.files()]
        if tar.bad and not files:
            raise InputError(f"{archive}: is not an uncompressed tar: {tar.bad[0].reason}. Unpack it, or download it again")
    return [(name, member) for name, member in files if not is_system_file(name)]


def _files_below(path: Path) -> list[str]:
    names = []
    for parent, folders, files in os.walk(path):
        folders[:] = sorted(folder for folder in folders if not is_system_name(folder))
        below = os.path.relpath(parent, path)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        names += [prefix + name for name in files if not is_system_name(name) and not (below == "." and name.endswith(ARCHIVES))]
    return names
