"""What is installed is what lies in the repository: recipes inside the package, every room in the wheel, no address in the pins."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_installed_package_carries_every_recipe() -> None:
    recipes = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    with_package = Path(str(files("multimodal") / "configs"))
    assert recipes
    assert {path.relative_to(with_package) for path in with_package.rglob("*.yaml")} == recipes


@pytest.mark.parametrize("package", ["multimodal", "data_prep"])
def test_every_file_beside_code_is_in_the_wheel(package: str) -> None:
    """Templates of pages, the stylesheet, tables of words: what the patterns of package-data miss is missing once installed."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][package]
    taken = {path for pattern in patterns for path in (ROOT / package).glob(pattern)}
    others = {path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__"}
    assert others and others <= taken


@pytest.mark.parametrize("package", ["multimodal", "data_prep"])
def test_every_folder_with_code_is_a_package_so_that_the_wheel_takes_it(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_pins_name_releases_and_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pin = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; .+)?")
    assert [line for line in lines if not pin.fullmatch(line)] == []


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-") for line in wanted} - {project["name"]}
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert names <= pinned


def test_searching_asks_for_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["search"], *project["optional-dependencies"]["prep"]]
    assert not [line for line in lines if line.startswith(("torch", "lightning", "transformers", "wordsight"))]
