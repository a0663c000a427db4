"""`multimodal search` as a process: what it prints, how it ends, and what it loads on the way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from multimodal.boxes import Manifest, read_manifest, write_manifest
from multimodal.errors import install_command
from multimodal.export.card import Card
from multimodal.search.writing import create_store

PLAIN = "import sys; from multimodal.cli import main; sys.exit(main())"
TELLING = "import sys; from multimodal.cli import main; status = main(); print(*sys.modules, file=sys.stderr); sys.exit(status)"
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from multimodal.cli import main; sys.exit(main())"


def _run(*arguments: object, code: str = PLAIN) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, "search", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_a_cold_search_loads_nothing_that_trains_or_fits(store_of_forty, tmp_path):
    done = _run("--store", store_of_forty, "woman + scientist - man", "--html", tmp_path / "hits.html", code=TELLING)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 10
    heavy = {"torch", "lightning", "open_clip", "transformers", "gensim", "timm", "pandas", "scipy", "sklearn", "tqdm", "PIL", "wandb"}
    assert not heavy & set(done.stderr.split())


def test_a_query_may_begin_with_a_minus(store_of_forty):
    done = _run("--store", store_of_forty, "-people + beach", "--k", 3)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("beach + (snow", "error: query, column 9: this parenthesis is never closed\n  beach + (snow\n          ^\n"),
        ("zxqv", 'error: the text space knows no word of "zxqv"'),
        ("beach - beach", "error: the query cancels to nothing"),
        ("image:1000", "no picture with id 1000"),
    ],
)
def test_a_query_that_cannot_be_answered_ends_with_a_message_and_status_2(store_of_forty, query, said):
    done = _run("--store", store_of_forty, query)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_picture_of_ones_own_without_torch_says_what_to_install(tmp_path, space_box):
    part = {"class_path": "multimodal.towers.Head", "init_args": {}}
    card = Card("wordvec", 8, {"trunk": part, "head": part}, {}, read_manifest(space_box, kind="text-space").fingerprint)
    write_manifest(tmp_path / "export", manifest := Manifest("export", card.config()))
    create_store(tmp_path / "store", space_box, family="wordvec", export=manifest.fingerprint)
    (tmp_path / "me.png").write_bytes(b"\x89PNG")
    done = _run("--store", tmp_path / "store", f"image:{tmp_path}/me.png", "--export", tmp_path / "export", code=WITHOUT_TORCH)
    assert done.returncode == 2
    assert f"needs torch. Run: {install_command('train')}" in done.stderr and "Traceback" not in done.stderr
