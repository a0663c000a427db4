"""Tasks for the tests of workers. Processes import them by their name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from multimodal.errors import InputError


def square(n: int) -> int:
    return n * n


def die_at_three(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


def die_once_at_three(folder: Path, n: int) -> int:
    if n == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os._exit(7)
    return n * n


def refuse_three(n: int) -> int:
    if n == 3:
        raise InputError("three is refused. Give another number")
    return n * n


class Odd(InputError):
    """Cannot be made of its message alone, and so not unpickled."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


def raise_odd(n: int) -> None:
    raise Odd(f"{n} is odd", n)


def read_nothing(n: int) -> bytes:
    return Path(f"nowhere/{n}").read_bytes()


def say_and_sleep(folder: Path, n: int) -> None:
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(60)
