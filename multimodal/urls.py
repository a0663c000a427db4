"""Places on another machine: what a URL looks like, and where what is fetched from one is kept.

is_url("s3://bucket/set"), is_url("shards/emoji")       # True, False
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

_URL = re.compile(r"[A-Za-z][\w+.:-]+://")
_URL_IN_A_PATH = re.compile(r"[A-Za-z][\w+.:-]+:/")  # of the two slashes a Path keeps one


def is_url(where: object) -> bool:
    """Whether it is a URL, given as a string: `http://host/set`, `s3://bucket/set`. A drive letter (`C://set`) is none."""
    return isinstance(where, str) and _URL.match(where) is not None


def url_in(path: object) -> str | None:
    """The URL that a Path was made of, which then names no place any more; None for any other path, and for a string."""
    return str(path).replace(":/", "://", 1) if isinstance(path, PurePath) and _URL_IN_A_PATH.match(str(path)) else None


def user_cache() -> Path:
    """The folder for what is fetched: $XDG_CACHE_HOME/multimodal, or ~/.cache/multimodal."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multimodal"
