"""Exports in model repositories of the Hugging Face hub: their addresses, fetching and committing. Only what the user typed is asked for.

is_on_hub("hf://user/name@v1")                  # a model repository; hf://datasets/... and other URLs are for multimodal.urls
local("hf://user/name")                         # Path of a folder with the export; a path is given back as it is
commit("user/name", files_of(folder), card)     # as whoever is logged in: hf auth login, or HF_TOKEN

A repository is data like any box: only its manifests and the files that they list are fetched, and opening it checks their fingerprints.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.boxes import MANIFEST, Manifest, box_file, decode_manifest, is_whole, read_any_manifest, read_manifest
from multimodal.errors import InputError, needing
from multimodal.machine.portable import lock_file
from multimodal.urls import url_in, user_cache

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

PREFIX = "hf://"
CARD = "README.md"
OTHER_TYPES = ("datasets", "spaces", "buckets", "kernels", "models")
"""What follows hf:// in addresses of other things than a model repository, as huggingface_hub's own file system reads them."""
MAIN = "main"
LOG_IN = "Run: hf auth login, or set HF_TOKEN"

_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([^/@\s]+|refs/\w+/[^/@\s]+))?/?", re.ASCII)
_COMMIT = re.compile("[0-9a-f]{40}")
_OWN_FILES = frozenset({CARD, ".gitattributes"})
"""What a repository may hold beside an export."""


@dataclass(frozen=True, slots=True)
class Address:
    """A model repository "user/name", and the branch, tag or commit of it that is meant."""

    repository: str
    revision: str = MAIN

    @classmethod
    def parse(cls, where: str) -> Address:
        """From hf://user/name or hf://user/name@revision; InputError if it is neither."""
        found = _ADDRESS.fullmatch(where)
        if found is None:
            raise InputError(f"{where}: expected hf://USER/NAME, or hf://USER/NAME@REVISION with a branch, a tag or a commit")
        return cls(_checked(found[1]), found[2] or MAIN)

    @classmethod
    def parse_name(cls, name: str) -> Address:
        """From user/name, as `multimodal push` takes it, with or without hf:// before it."""
        if not re.fullmatch(r"(hf://)?[\w.-]+/[\w.-]+", name, re.ASCII):
            raise InputError(f"{name!r}: is not the name of a repository. Expected USER/NAME, of letters, digits and - _ .")
        return cls(_checked(name.removeprefix(PREFIX)))

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision != MAIN else "")


def is_on_hub(where: object) -> bool:
    """Whether it is the address of a model repository, well-formed or not: hf:// and at most two names after it."""
    if not isinstance(where, str) or not where.startswith(PREFIX):
        return False
    names = re.sub(r"@refs/\w+/", "@", where.removeprefix(PREFIX)).rstrip("/").split("/")
    return len(names) <= 2 and names[0] not in OTHER_TYPES


def local(export: str | Path, cache: Path | None = None) -> Path:
    """The folder of an export: of one on the hub, a copy that is fetched unless this commit of it is there already; see `fetch`."""
    where = url_in(export) or export
    return fetch(where, cache) if is_on_hub(where) else Path(export)


def fetch(where: Any, cache: Path | None = None) -> Path:
    """The folder with a copy of an export on the hub, which appears when it is complete. A commit is fetched once, and never changes.

    where: hf://user/name, or with @ and a branch, a tag or a commit. Which commit a branch or a tag is now, the hub is always asked; a
    commit that was fetched needs no network. cache: the folder of the copies, by default in the user's cache folder.
    InputError: no such repository or revision, no access, no network, or it holds no export.
    """
    address = Address.parse(where)
    copies = (cache or user_cache() / "exports") / address.repository.replace("/", "--")
    if _COMMIT.fullmatch(address.revision) and is_whole(copies / address.revision):
        return copies / address.revision
    with _asking(address, copies):
        found = _hub().model_info(address.repository, revision=address.revision)
    folder = copies / str(found.sha)
    names = _names(found)
    if MANIFEST not in names:
        raise InputError(f"{address}: holds no export of this project: it has no {MANIFEST}. multimodal push puts one there")
    copies.mkdir(parents=True, exist_ok=True)
    with lock_file(copies / f".{found.sha}.lock"):
        if not is_whole(folder):
            _fetch(address, str(found.sha), names, folder)
    return folder


def files_of(box: Path) -> dict[str, Path]:
    """Name -> file of an export's manifests, its own and those of the boxes in it, and of the files that they list.

    InputError if it is not an export, or if a name or a link leads out of it. Whether the files are there, `multimodal verify` checks.
    """
    read_manifest(box, kind="export")
    names = [path.relative_to(box).as_posix() for path in box.rglob(MANIFEST)]
    return {name: box_file(box, name) for name in _listed(box, names, lambda name: read_any_manifest((box / name).parent))}


def commit(address: Address, files: Mapping[str, Path], card: str, private: bool, message: str) -> str:
    """Make the repository what these files and the card are, in one commit; it is created if need be. Returns the commit's URL.

    private: create it so that only its owner sees it.
    InputError: nobody is logged in, the hub refuses, there is no network, or the repository holds something that is not an export.
    """
    with needing("train", "the hub"):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token
    if get_token() is None:
        raise InputError(f"{address}: you are not logged in to the hub. {LOG_IN}")
    hub = _hub()
    with _asking(address):
        hub.create_repo(address.repository, private=private or None, exist_ok=True)
        found = hub.model_info(address.repository)
    there = _names(found)
    if there - _OWN_FILES and MANIFEST not in there:
        raise InputError(f"{address}: holds something that is not an export ({min(there - _OWN_FILES)} ...). Choose another name")
    if private and not found.private:
        raise InputError(f"{address}: is public, and --private cannot change that. Change it in its settings, or choose another name")
    added = [CommitOperationAdd(CARD, card.encode()), *(CommitOperationAdd(name, str(path)) for name, path in files.items())]
    removed = [CommitOperationDelete(name) for name in sorted(there - _OWN_FILES - set(files))]
    with _asking(address):
        return str(hub.create_commit(address.repository, [*added, *removed], commit_message=message).commit_url)


def _checked(repository: str) -> str:
    """The name, if the hub could have a repository of it."""
    with needing("train", "the hub"):
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository}: is not the name of a repository: {_line(error)}") from None
    return repository


def _hub() -> HfApi:
    with needing("train", "the hub"):
        from huggingface_hub import HfApi
    return HfApi()


def _names(found: ModelInfo) -> set[str]:
    return {one.rfilename for one in found.siblings or ()}


def _fetch(address: Address, commit: str, names: Collection[str], folder: Path) -> None:
    """Copy an export's files of one commit to a folder, which gets its name at the end. A copy that was stopped is taken up."""
    hub, part = _hub(), folder.with_name(f".{folder.name}.part")

    def fetched(name: str) -> Path:
        box_file(part, name)
        with _asking(address):
            hub.hf_hub_download(address.repository, name, revision=commit, local_dir=part)
        return part / name

    def manifest_of(name: str) -> Manifest:
        content, box = fetched(name).read_bytes(), f"{address}/{name}".removesuffix(f"/{MANIFEST}")
        return decode_manifest(content, box, "export" if name == MANIFEST else None)

    wanted = _listed(address, [name for name in names if name.rpartition("/")[2] == MANIFEST], manifest_of)
    if missing := [name for name in wanted if name not in names]:
        raise InputError(f"{address}: is damaged: its {MANIFEST} lists {missing[0]}, which is not there. Push it again: multimodal push")
    for name in wanted:
        fetched(name)
    shutil.rmtree(part / ".cache", ignore_errors=True)  # what hf_hub_download notes to resume
    os.replace(part, folder)


def _listed(box: Any, manifests: Collection[str], manifest_of: Callable[[str], Manifest]) -> list[str]:
    """The names of manifests, the box's own first, each followed by the files that it lists."""
    listed: dict[str, None] = {}
    for name in sorted(manifests, key=lambda name: (name.count("/"), name)):
        parts = manifest_of(name).parts
        listed |= dict.fromkeys([name, *(name.removesuffix(MANIFEST) + part for part in parts)])
    return list(listed)


@contextmanager
def _asking(address: Address, copies: Path | None = None) -> Iterator[None]:
    """Around calls of huggingface_hub: what the hub answers, or that it cannot be reached, becomes one line.

    copies: the folder of commits that were fetched before, to name them if there is no network.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except InputError:
        raise
    except GatedRepoError:
        raise InputError(f"{address}: its owner grants access one by one. Ask at {constants.ENDPOINT}/{address.repository}") from None
    except RepositoryNotFoundError:
        raise InputError(f"{address}: no such repository, or you may not see it. Check the name; if it is private: {_login()}") from None
    except RevisionNotFoundError:
        raise InputError(f"{address}: the repository has no branch, tag or commit {address.revision}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:  # how hf_hub_download reports that it reached nobody
        raise InputError(_unreached(address, error.__cause__ or error, copies)) from None
    except HfHubHTTPError as error:
        raise InputError(_refused(address, error)) from None
    except HTTPError as error:
        raise InputError(_unreached(address, error, copies)) from None
    except (EntryNotFoundError, ValueError, RuntimeError) as error:  # an answer that makes no sense, a refused card, an upload that failed
        raise InputError(f"{address}: {_line(error)}") from None
    except OSError as error:
        if error.errno is not None:  # of this machine, such as a full disk
            raise
        raise InputError(f"{address}: {_line(error)}") from None


def _login() -> str:
    return f"{LOG_IN[0].lower()}{LOG_IN[1:]}"


def _refused(address: Address, error: Any) -> str:
    status, said = error.response.status_code, error.server_message or _line(error)
    if status == 401:
        return f"{address}: the hub does not accept your login ({_line(said)}). {LOG_IN}"
    if status == 403:
        return f"{address}: your login may not do this ({_line(said)}). Use a token that may write there, or choose another name"
    return f"{address}: the hub answered {status}: {_line(said)}"


def _unreached(address: Address, error: BaseException, copies: Path | None) -> str:
    from huggingface_hub import constants

    fetched = sorted(path.parent.name for path in copies.glob(f"*/{MANIFEST}")) if copies is not None else []
    remedy = f"A commit that was fetched before needs no network: {PREFIX}{address.repository}@{fetched[0]}" if fetched else "Is it up?"
    if constants.HF_HUB_OFFLINE:
        return f"{address}: HF_HUB_OFFLINE is set, so the hub is not asked. {remedy if fetched else 'Unset it'}"
    return f"{address}: the hub at {constants.ENDPOINT} cannot be reached ({type(error).__name__}: {_line(error)}). {remedy}"


def _line(said: object) -> str:
    """A message on one line, without the advice and links that huggingface_hub adds below."""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") if lines else type(said).__name__
