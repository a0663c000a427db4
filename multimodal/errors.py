"""The one exception a door turns into a message: what is wrong, where, and what to do.

raise InputError("captions.tsv line 7: 2 fields, expected 3. Columns are: file, split, caption")
raise missing_extra("train", "a probe needs scikit-learn")
with needing("train", "an export's network"): import torch
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

_DISTRIBUTION = "wordsight"
_PACKAGES = ("multimodal", "data_prep")


class InputError(ValueError):
    """Something that the user gave is wrong. Doors print it without a traceback and exit with 2.

    Anything else that is raised is a bug of ours and keeps its traceback.
    """


def missing_extra(extra: str, needs: str, otherwise: str = "") -> InputError:
    """The error for an optional package that is not installed.

    extra: the extra in pyproject.toml that installs it. needs: what needs which package. otherwise: an alternative.
    """
    return InputError(f"{needs}. Run: {install_command(extra)}{f', or {otherwise}' if otherwise else ''}")


@contextmanager
def needing(extra: str, what: str, otherwise: str = "") -> Iterator[None]:
    """Around imports of an extra's packages: a missing package raises `missing_extra`. what: what needs it, such as "fitting topics"."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.partition(".")[0] in _PACKAGES:  # a missing module of ours is a bug
            raise
        raise missing_extra(extra, f"{what} needs {missing}", otherwise) from None


def install_command(extra: str) -> str:
    """The command that installs an extra, from any folder. This project is on no package index, so the command names its checkout."""
    checkout = _checkout()
    if checkout is not None:
        return f'pip install "{checkout}[{extra}]"'
    return f'pip install ".[{extra}]", in the folder of the project\'s sources (the one with pyproject.toml)'


def _checkout() -> Path | None:
    """The folder of the sources: where this file is, or where pip installed it from; None if neither exists."""
    here = Path(__file__).resolve().parents[1]
    try:
        origin = json.loads(metadata.distribution(_DISTRIBUTION).read_text("direct_url.json") or "{}").get("url", "")
    except metadata.PackageNotFoundError:
        origin = ""
    folders = [here, *([Path(unquote(urlparse(origin).path))] if origin.startswith("file:") else [])]
    return next((folder for folder in folders if _is_ours(folder / "pyproject.toml")), None)


def _is_ours(project: Path) -> bool:
    return project.is_file() and f'name = "{_DISTRIBUTION}"' in project.read_text(encoding="utf-8", errors="replace")


def not_importable(module: str) -> str:
    """What to do if a module cannot be imported: the installed commands do not search the current folder."""
    package = module.partition(".")[0]
    return f"Install {package}, or put PYTHONPATH=FOLDER in front of the command, with the folder that contains it"


MOST_NAMES, FEW_NAMES = 60, 10
"""A message lists at most so many names, and the first few of a longer list."""


def near_names(name: str, names: Iterable[str]) -> str:
    """ "Did you mean search?" with the closest names; if none is close all names, or of a long list the first."""
    import difflib

    every = sorted(names)
    near = difflib.get_close_matches(name, every, n=3, cutoff=0.51)  # more than half of the letters
    if near:
        return f"Did you mean {' or '.join(near)}?"
    if len(every) > MOST_NAMES:
        return f"There are {len(every)}: {', '.join(every[:FEW_NAMES])} ..."
    return f"There are: {', '.join(every)}" if every else "There are none"
