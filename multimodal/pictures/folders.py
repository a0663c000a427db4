"""The pictures in a folder and below it, as people keep them: by their suffixes, in the same order on every file system.

    walk = PictureWalk(Path("~/Photos").expanduser())
    for name in walk: ...                       # "2024/IMG_1.jpg", relative, with / between folders
    walk.skipped()                              # "12 videos, 3 raw pictures, 1 other file, 5 hidden pictures"

Hidden files and folders are skipped, and those of the system (@eaDir, .thumbnails, recycle bins: `machine.system_files`); of a library of
Apple's Photos only the originals are read, not what it derives from them. A link to a picture is one; a link to a folder is not followed,
so that no loop of links is entered and nothing is there twice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from multimodal.machine.system_files import is_system_file, is_system_name
from multimodal.pictures.formats import PICTURE_SUFFIXES

VIDEO_SUFFIXES = frozenset("3g2 3gp avi flv insv lrv m2ts m4v mkv mov mp4 mpeg mpg mts ogv vob webm wmv".split())
RAW_SUFFIXES = frozenset("3fr arw cr2 cr3 crw dng erf gpr iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f".split())
_APPLE_LIBRARY = ".photoslibrary"
_APPLE_ORIGINALS = frozenset({"originals", "Masters"})


class PictureWalk:
    """Iterating over it walks the folder once, and fills in the counts. Files are listed, not opened; memory is that of one folder.

    A name that is not UTF-8 has its bytes escaped as in `os.fsdecode`. A folder that does not exist has no pictures, and is unreadable.
    """

    def __init__(self, folder: Path, leave_out: Collection[Path] = ()) -> None:
        """leave_out: folders that are not entered, such as a store inside the folder of pictures."""
        self.folder = folder
        self._leave_out = {os.path.realpath(one) for one in leave_out}
        self.num_hidden = 0
        """Pictures that are hidden, or in hidden or system folders."""
        self.others: Counter[str] = Counter()
        """Files that are not pictures: "videos", "raw pictures" or "other files" -> how many; hidden ones are not counted."""
        self.unreadable: list[str] = []
        """Folders that cannot be listed, relative; "." is the folder itself."""

    def __iter__(self) -> Iterator[str]:
        for parent, folders, files in os.walk(self.folder, onerror=self._note):
            below = os.path.relpath(parent, self.folder)
            prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
            folders[:] = sorted(self._entered(parent, folders))
            is_hidden = is_system_file(below)
            for name in sorted(files):
                suffix = os.path.splitext(name)[1].lower().removeprefix(".")
                if suffix in PICTURE_SUFFIXES:
                    if is_hidden or is_system_name(name):
                        self.num_hidden += 1
                    else:
                        yield prefix + name
                elif not (is_hidden or is_system_name(name)):
                    self.others[_kind(suffix)] += 1

    def skipped(self) -> str:
        """What was not read, in a few words; "" if nothing was."""
        counts = {**{kind: self.others[kind] for kind in ("videos", "raw pictures", "other files")}, "hidden pictures": self.num_hidden}
        return ", ".join(f"{num:,} {kind if num > 1 else kind.removesuffix('s')}" for kind, num in counts.items() if num)

    def _entered(self, parent: str, folders: list[str]) -> list[str]:
        if parent.endswith(_APPLE_LIBRARY) and _APPLE_ORIGINALS & set(folders):
            folders = [name for name in folders if name in _APPLE_ORIGINALS]
        if not self._leave_out:
            return folders
        return [name for name in folders if os.path.realpath(os.path.join(parent, name)) not in self._leave_out]

    def _note(self, error: OSError) -> None:
        folder = os.path.relpath(error.filename, self.folder)
        if not is_system_file(folder):
            self.unreadable.append(folder.replace(os.sep, "/"))


def _kind(suffix: str) -> str:
    return "videos" if suffix in VIDEO_SUFFIXES else "raw pictures" if suffix in RAW_SUFFIXES else "other files"
