"""What a missing extra is installed by: a command that works from any folder, since no package index has this project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import multimodal
from multimodal.errors import InputError, install_command, missing_extra, needing

ROOT = Path(__file__).parents[1]


def test_the_command_names_the_checkout_that_the_package_runs_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkout = Path(multimodal.__file__).resolve().parents[1]
    assert install_command("train") == f'pip install "{checkout}[train]"'
    assert str(missing_extra("zim", "a: needs libzim", otherwise="leave it out")).endswith('[zim]", or leave it out')


@pytest.mark.parametrize("is_there", [True, False])
def test_an_installed_copy_names_the_checkout_that_it_came_from_while_that_is_there(tmp_path: Path, is_there: bool) -> None:
    site, checkout = tmp_path / "site", tmp_path / "my checkout"
    (site / "multimodal").mkdir(parents=True)
    for name in ("__init__.py", "errors.py"):
        shutil.copy(Path(multimodal.__file__).parent / name, site / "multimodal" / name)
    (site / "wordsight-0.1.0.dist-info").mkdir()  # as pip writes it
    (site / "wordsight-0.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: wordsight\nVersion: 0.1.0\n")
    (site / "wordsight-0.1.0.dist-info" / "direct_url.json").write_text(json.dumps({"url": checkout.as_uri(), "dir_info": {}}))
    if is_there:
        checkout.mkdir()
        (checkout / "pyproject.toml").write_text('[project]\nname = "wordsight"\n')
    program = "from multimodal.errors import install_command; print(install_command('train'))"
    said = subprocess.run([sys.executable, "-S", "-c", program], cwd=site, capture_output=True, text=True, check=True).stdout
    assert f'pip install "{checkout}[train]"' in said if is_there else 'pip install ".[train]", in the folder of the project' in said


def test_what_is_missing_around_an_import_is_reported_and_a_missing_module_of_ours_is_a_bug() -> None:
    with pytest.raises(InputError, match=r"a walk needs a_package_that_nobody_has. Run: pip install .*\[zim\]"), needing("zim", "a walk"):
        import a_package_that_nobody_has  # noqa: F401
    with pytest.raises(ModuleNotFoundError), needing("zim", "a walk"):
        import multimodal.nothing_of_ours  # noqa: F401


def test_every_extra_that_a_message_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    sources = [path.read_text() for room in ("multimodal", "data_prep") for path in (ROOT / room).rglob("*.py")]
    named = {name for source in sources for name in re.findall(r'(?:missing_extra|needing)\(\s*"(\w+)"', source)}
    assert len(named) >= 6 and named <= extras
    assert not any("wordsight[" in source for source in sources), "no package index has it"
