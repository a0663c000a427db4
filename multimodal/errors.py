"""The one exception a door turns into a message: what is wrong, where, and what to do.

raise InputError("captions.tsv line 7: 2 fields where 3 are wanted. Columns are: file, split, caption")
raise missing_extra("train", "a probe needs scikit-learn")
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

_DISTRIBUTION = "wordsight"


class InputError(ValueError):
    """Something a person gave us is wrong. Doors print it without a traceback and exit with 2.

    Anything else that is raised is a bug of ours and keeps its traceback.
    """


def missing_extra(extra: str, needs: str, otherwise: str = "") -> InputError:
    """The error for an optional package that is not installed.

    extra: of pyproject.toml, that brings it. needs: what needs what. otherwise: what could be done instead.
    """
    return InputError(f"{needs}. Run: {install_command(extra)}{f', or {otherwise}' if otherwise else ''}")


def install_command(extra: str) -> str:
    """What installs an extra from any folder: no package index has this project, so it names the checkout that it runs or came from."""
    checkout = _checkout()
    if checkout is not None:
        return f'pip install "{checkout}[{extra}]"'
    return f'pip install ".[{extra}]", in the folder of the project\'s sources (where its pyproject.toml lies)'


def _checkout() -> Path | None:
    """The folder of the sources: where this file lies, or where pip installed it from; None where neither is there."""
    here = Path(__file__).resolve().parents[1]
    try:
        origin = json.loads(metadata.distribution(_DISTRIBUTION).read_text("direct_url.json") or "{}").get("url", "")
    except metadata.PackageNotFoundError:
        origin = ""
    folders = [here, *([Path(unquote(urlparse(origin).path))] if origin.startswith("file:") else [])]
    return next((folder for folder in folders if _is_ours(folder / "pyproject.toml")), None)


def _is_ours(project: Path) -> bool:
    return project.is_file() and f'name = "{_DISTRIBUTION}"' in project.read_text(encoding="utf-8", errors="replace")
