"""Files and folders beside pictures that NAS systems, operating systems and archivers create: metadata, thumbnails, recycle bins.

is_system_file("photos/@eaDir/dog.jpg/SYNOPHOTO_THUMB_M.jpg")       # True: one component of the path is enough
"""

from __future__ import annotations

import re

_NAMES = (
    r"\..*",  # hidden on every Unix; macOS' ._dog.jpg, .DS_Store, .AppleDouble, .Trashes; .thumbnails, .@__thumb
    r"__macosx",  # zip archives made on a Mac
    r"@eadir|@tmp|@recently-snapshot|#recycle|#snapshot|@recycle|@recycled|@sharebin",  # Synology, QNAP
    r"\$recycle\.bin|recycler|system volume information|thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini",  # Windows
    r"lost\+found",
    r"trash-\d+|__pycache__",
)
_SYSTEM_FILE = re.compile("|".join(_NAMES), re.IGNORECASE)


def is_system_name(name: str) -> bool:
    """Whether a file or folder of that name is one of these."""
    return _SYSTEM_FILE.fullmatch(name) is not None


def is_system_file(path: str) -> bool:
    """Whether a component of the path, relative to the folder of pictures, is such a name; `.` and `..` are not."""
    return any(is_system_name(part) for part in path.split("/") if part not in ("", ".", ".."))
