"""Recipes by name: the configs shipped with the package, used if there is no local file of that name.

find("experiment/topic_emoji.yaml")          # the user's own file if there is one, else the shipped one
names("prep")                                # those for data-prep; without a folder, those for multimodal fit
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multimodal.errors import InputError, near_names

OPTIONS = ("--config", "-c")
PREP = "prep"
NOT_OF_FIT = (PREP, "sweep")
"""Folders whose files are not recipes of `multimodal fit`: those of data-prep, and sweeps of Weights & Biases, which run it."""


def folder() -> Path:
    """The folder of the shipped recipes: `configs/` in a checkout, `multimodal/configs/` in a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names(under: str | None = None) -> list[str]:
    """The shipped recipes of a folder as `--config` takes them; by default those of `multimodal fit`."""
    every = sorted(path.relative_to(folder()).as_posix() for path in folder().rglob("*.yaml"))
    return [name for name in every if (name.split("/")[0] == under if under else name.split("/")[0] not in NOT_OF_FIT)]


def find(name: str) -> Path:
    """The recipe's file, with or without `configs/` before its name; InputError with close names if it is neither here nor shipped."""
    if Path(name).is_file():
        return Path(name)
    shipped = folder() / name.removeprefix("configs/")
    if shipped.is_file():
        return shipped
    near = near_names(name.removeprefix("configs/"), [*names(), *names(PREP)])
    raise InputError(f"--config {name}: no such file, and no shipped recipe of that name. {near}")


def with_found_recipes(args: Sequence[str]) -> list[str]:
    """The command line with the path of a file for every `--config NAME` or `--config=NAME`."""
    found, is_name = [], False
    for arg in args:
        option, equals, name = arg.partition("=")
        if is_name:
            found.append(str(find(arg)))
        elif option in OPTIONS and equals:
            found.append(f"{option}={find(name)}")
        else:
            found.append(arg)
        is_name = not is_name and arg in OPTIONS
    return found
