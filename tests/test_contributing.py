"""docs/contributing.md as it stands: its files make a package, its suites hold, and its commands walk the whole road."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from multimodal.search.writing import StoreWriter

if TYPE_CHECKING:
    from tests.conftest import Road

PAGE = (Path(__file__).parents[1] / "docs/contributing.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
[COMMANDS] = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def package(begin_road: Callable[[], Road]) -> Iterator[Road]:
    """A folder with drawings and the page's files, which Python finds."""
    begun = begin_road()
    (begun.folder / "mypackage").mkdir()
    (begun.folder / "mypackage/__init__.py").touch()
    for name, content in FILES.items():
        (begun.folder / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(begun.folder))
        yield begun
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mypackage", "test_mypackage")]:
        del sys.modules[name]


def test_the_suites_hold_for_what_the_page_shows(package: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(package.folder)
    module = importlib.import_module("test_mypackage")
    tests = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(tests) == 5
    for test in tests:
        folder = tmp_path / test.__name__
        folder.mkdir()
        test(**({"tmp_path": folder} if inspect.signature(test).parameters else {}))


@pytest.fixture(scope="module")
def walked(package: Road) -> dict[str, str]:
    """What each command of the page printed."""
    said = {}
    for command in COMMANDS.splitlines():
        if command.startswith("python -c"):
            with contextlib.chdir(package.folder):
                exec(shlex.split(command)[2])
            continue
        told = package.run(command + (" --device cpu" if command.split()[1] in ("embed", "index") else ""))
        assert told.status == 0, f"{command}\n{told.err}"
        said[command.split()[1]] = told.out
    return said


def test_the_pages_commands_walk_the_whole_road(walked: dict[str, str]) -> None:
    hits = walked["search"].splitlines()
    assert len(hits) == 9 and all(" red-" in line for line in hits)
    header, line = walked["evaluate"].splitlines()
    assert header.split() == ["column", "pictures", "share", "chance"] and line.split()[:2] == ["colour", "45"]


def test_a_store_with_an_engine_of_ones_own_opens_with_trust_and_keeps_its_engine(package: Road, walked: dict[str, str]) -> None:
    told = package.run("multimodal search --store store red --trust nobody")
    assert told.status == 2 and "add: --trust mypackage" in told.err
    index = "multimodal index --export export --shards set --output store --trust mypackage --device cpu"
    assert package.run(f"{index} --engine mypackage.plain.Plain").err.strip().endswith("store: is there already")
    told = package.run(index)
    assert told.status == 2 and "its engine is mypackage.plain.Plain(), but exact search was requested" in told.err
    for engine, message in {
        "mypackage.plain.Plain --engine.links 3": "Plain has no argument 'links'. It has: dim",
        "mypackage.letters.Letters": "Letters has no argument 'dim'",
        "mypackage.nothing.Plain": "cannot be imported",
        "nobodys.Engine": "Install nobodys, or put PYTHONPATH=FOLDER in front of the command",
    }.items():
        told = package.run(f"multimodal index --export export --shards set --output other --trust mypackage --device cpu --engine {engine}")
        assert told.status == 2 and message in told.err, told.err
        assert not (package.folder / "other/manifest.json").exists()


def test_a_way_of_ones_own_is_used_for_a_query_or_kept_by_a_store_and_both_need_trust(package: Road, walked: dict[str, str]) -> None:
    way = importlib.import_module("mypackage.weakest").Weakest
    search = "multimodal search --store store 'red + circle without blue' --why"
    told = package.run(f"{search} --fusion mypackage.weakest.Weakest --trust nobody")
    assert told.status == 2 and "add: --trust mypackage" in told.err
    own = package.run(f"{search} --fusion mypackage.weakest.Weakest --trust mypackage")
    assert own.status == 0 and own.out != package.run(f"{search} --trust mypackage").out
    for score, why in zip(own.out.splitlines()[::2], own.out.splitlines()[1::2], strict=True):
        added = [float(value) for value in re.findall(r" ([+-][0-9.]+)", why)]
        assert len(added) == 3 and sum(value != 0 for value in added) == 1 and sum(added) == float(score.split()[1])
    with StoreWriter(package.folder / "store", trust=["mypackage"]) as writer:
        writer.calibrate(fusion=way())
    assert package.run(f"{search} --trust mypackage").out == own.out
    told = package.run("multimodal verify store --trust mypackage")
    assert told.status == 0, told.err
