"""What was left out and why: a bad sample is counted, named and recorded, and too many of them stop the job.

A text without a known word is not bad. It is counted and listed separately, in `no_words.csv`, and never stops a job.

    with ShardWriter(output) as writer, Ledger(output / "bad.csv") as ledger:
        for path in paths: ...  # ledger.bad("photos", path.name, "not an image"), or writer.write(pair) and ledger.good()

Open the ledger after the writer: it then closes first, and a job that it stops leaves a box without a manifest.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from multimodal.errors import InputError
from multimodal.shards.folder import split_place

NUM_REASONS_TOLD = 3
NO_WORDS_FILE = "no_words.csv"
NO_WORDS = "the space knows no word of "
"""Start of the reason given for a readable sample that has no known word."""


@dataclass(frozen=True, slots=True)
class Bad:
    """One sample that is broken or was left out: its file or shard, its key or name there ("" for the whole file), and the reason.

    count: how many samples it stands for; 0 for a caption whose picture is used with its others.
    """

    where: str
    key: str
    reason: str
    count: int = 1

    @property
    def is_broken(self) -> bool:
        """False if the only problem is that no word of the text is known."""
        return not self.reason.startswith(NO_WORDS)

    def __str__(self) -> str:
        return f"{self.where} {self.key}: {self.reason}" if self.key else f"{self.where}: {self.reason}"


class Ledger:
    """Counts good samples, keeps the bad ones, and writes them on close.

    path: the CSV file to write, or its URL (by convention `bad.csv` in the box), with columns where, key, reason; no file if
        nothing is bad. Samples without a known word are listed in `no_words.csv` beside it, with the same columns.
    max_bad_share: close raises InputError, which names `option`, if bad / all is above this, or if nothing good is left.
    """

    def __init__(self, path: str | Path, max_bad_share: float = 0.05, option: str = "--max-bad-share") -> None:
        if not 0 <= max_bad_share <= 1:
            raise InputError(f"max_bad_share is {max_bad_share}; it is a share, from 0 (no bad sample is accepted) to 1")
        self.path = path
        self._folder, self._name = split_place(path)
        self.max_bad_share, self._option = max_bad_share, option
        self.num_good = 0
        self.num_bad = 0
        self.num_without_words = 0
        self.entries: list[Bad] = []

    def bad(self, where: str, key: str, reason: str, count: int = 1) -> None:
        """Record a sample that is left out, or `count` samples in one line. A reason that begins with NO_WORDS does not count as bad."""
        self.entries.append(entry := Bad(where, key, reason, count))
        if entry.is_broken:
            self.num_bad += count
        else:
            self.num_without_words += count

    def good(self, count: int = 1) -> None:
        """Count good samples."""
        self.num_good += count

    def close(self) -> None:
        """Write the file, then raise InputError if too much was bad or nothing is left."""
        self.write()
        num_seen = self.num_good + self.num_bad + self.num_without_words
        if not num_seen:
            raise InputError(f"{self._folder}: nothing was read: the input is empty, or everything in it is skipped")
        if not self.num_good:
            raise InputError(f"nothing good is left: {self._summary()}")
        if self.num_bad / num_seen > self.max_bad_share:
            share = f"{self.num_bad} of {num_seen} are bad ({self.num_bad / num_seen:.1%}), more than {self._option} {self.max_bad_share}"
            raise InputError(f"{share}: {self._summary()}")

    def written(self) -> list[Bad]:
        """The entries now in the file, of this job or an earlier one; empty if there is no file."""
        if self._folder.size_bytes(self._name) is None:
            return []
        text = self._folder.read([self._name])[0].decode()
        return [Bad(row["where"], row["key"], row["reason"]) for row in csv.DictReader(io.StringIO(text, newline=""))]

    def write(self) -> None:
        """Write the bad samples as CSV, and those without a known word; an earlier run's file is removed if there are none."""
        self._write(self._name, [entry for entry in self.entries if entry.is_broken])
        self._write(NO_WORDS_FILE, [entry for entry in self.entries if not entry.is_broken])

    def _write(self, name: str, entries: list[Bad]) -> None:
        if not entries:
            if self._folder.size_bytes(name) is not None:  # a finished box may be on a disk that refuses to remove even what is not there
                self._folder.remove(name)
            return
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("where", "key", "reason"))
        rows.writerows((bad.where, bad.key, bad.reason) for bad in entries)
        content = text.getvalue().encode("utf-8", "backslashreplace")  # a file name need not be valid UTF-8
        if self._folder.size_bytes(name) == len(content) and self._folder.read([name])[0] == content:
            return  # a finished box may be read-only
        with self._folder.writing(name) as file:
            file.write(content)

    def _summary(self) -> str:
        broken = [bad for bad in self.entries if bad.is_broken]
        shown, file = (broken, str(self.path)) if broken else (self.entries, f"{self._folder}/{NO_WORDS_FILE}")
        reasons = "; ".join(str(bad) for bad in shown[:NUM_REASONS_TOLD])
        num_more = len(shown) - NUM_REASONS_TOLD
        more = f"; and {num_more} more" if num_more > 0 else ""
        return f"{reasons}{more}. All of them: {file}"

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:  # the exception that stopped the job is what matters; the ledger only keeps its record
            self.write()
