"""Exports on a hub: what was pushed opens as it was, with a card; whatever is wrong is one line, and nothing is half there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

import multimodal as mm
from multimodal.boxes import read_manifest
from multimodal.cli import main
from multimodal.errors import InputError
from multimodal.export import hub as exports
from multimodal.verify import problems_of

if TYPE_CHECKING:
    from tests.conftest import Road
    from tests.hub.conftest import Hub

SAID = ["--licence", "cc-by-4.0", "--data", "45 drawings, made here"]
FILES = {
    "manifest.json",
    "weights.safetensors",
    *(f"query/{name}" for name in ("manifest.json", "normaliser.json", "vocab.txt", "weights.safetensors")),
}
Told = Callable[..., str]


@pytest.fixture
def export(road: Road) -> Path:
    return road.folder / "export"


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command that must fail; its one line."""

    def run(*argv: object) -> str:
        capsys.readouterr()
        assert main([str(arg) for arg in argv]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    return run


def push(export: Path, name: str = "ann/drawings", *more: object) -> None:
    assert main(["push", str(export), name, *SAID, *map(str, more)]) == 0


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_pushed_opens_as_it_was(hub: Hub, export: Path, road: Road) -> None:
    push(export)
    sent = hub.repositories["ann/drawings"].files
    assert set(sent) == {*FILES, "README.md", ".gitattributes"} and {name: sent[name] for name in FILES} == files_in(export)
    opened, here = mm.open("hf://ann/drawings"), mm.open(export)
    assert opened.fingerprint == here.fingerprint and not list(problems_of(opened.path))
    assert files_in(opened.path) == files_in(export)  # neither the card nor what was noted while fetching
    picture = next((road.folder / "photos").glob("*.png"))
    np.testing.assert_array_equal(opened.encode_image(picture), here.encode_image(picture))
    np.testing.assert_array_equal(opened.encode_text("a red circle"), here.encode_text("a red circle"))


def test_a_commit_is_fetched_once_and_needs_no_network_then(hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(export)
    folder = exports.fetch("hf://ann/drawings")
    hub.asked.clear()
    assert exports.fetch("hf://ann/drawings/") == folder and len(hub.asked) == 1  # which commit main is, and no file
    hub.asked.clear()
    assert exports.fetch(f"hf://ann/drawings@{folder.name}") == folder and not hub.asked
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=f"cannot be reached .* needs no network: hf://ann/drawings@{folder.name}"):
        exports.fetch("hf://ann/drawings")
    assert exports.local(Path("hf://ann/drawings@" + folder.name)) == folder  # a Path keeps one slash


def test_another_push_replaces_the_export_and_the_older_commit_still_opens(hub: Hub, export: Path, own_road: Road) -> None:
    push(export)
    first = exports.fetch("hf://ann/drawings")
    (own_road.folder / "recipe.yaml").write_text((own_road.folder / "recipe.yaml").read_text().replace("max_epochs: 2", "max_epochs: 1"))
    for box in ("run", "export"):
        shutil.rmtree(own_road.folder / box)
    own_road.go("run", "export")
    hub.repositories["ann/drawings"].files["query/old.txt"] = b"of a release that wrote more files"
    push(own_road.folder / "export")
    assert "query/old.txt" not in hub.repositories["ann/drawings"].files
    second = exports.fetch("hf://ann/drawings")
    assert second != first and read_manifest(second, "export") == read_manifest(own_road.folder / "export", "export")
    assert exports.fetch(f"hf://ann/drawings@{first.name}") == first and read_manifest(first, "export") == read_manifest(export, "export")


def test_a_download_that_breaks_leaves_no_export_and_is_taken_up(hub: Hub, export: Path, tmp_path: Path) -> None:
    push(export)
    hub.breaks_at = "weights.safetensors"
    with pytest.raises(InputError, match="hf://ann/drawings: "):
        exports.fetch("hf://ann/drawings")
    copies = tmp_path / "cache" / "multimodal" / "exports" / "ann--drawings"
    assert not [path for path in copies.iterdir() if not path.name.startswith(".")]
    hub.breaks_at = ""
    assert files_in(exports.fetch("hf://ann/drawings")) == files_in(export)
    assert [path.name for path in copies.iterdir() if path.name.endswith(".part")] == []


def test_the_card_has_figures_beside_chance_data_licence_and_how_to_use_it(hub: Hub, export: Path, tmp_path: Path) -> None:
    rows = [{"direction": "text->image", "R@10": 58.333333, "chance_R@10": 22.2, "note": "a|b", "nested": [1], "seed": None}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    push(export, "ann/drawings", "--figures", tmp_path / "rows.json")
    card = hub.repositories["ann/drawings"].files["README.md"].decode()
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata["license"] == "cc-by-4.0" and metadata["tags"] == ["image-text-retrieval", "wordvec"]
    assert "45 drawings, made here" in card and "## Licence\ncc-by-4.0" in card
    assert "| direction | R@10 | chance_R@10 | note |\n|---|---|---|---|\n| text->image | 58.33 | 22.2 | a\\|b |\n" in card
    figures = read_manifest(export, "export").config["figures"]
    assert f"| val/R@10 | {figures['val/R@10']:.4g} | {figures['val/chance_R@10']:.4g} |" in card
    assert 'mm.open("hf://ann/drawings")' in card and read_manifest(export, "export").fingerprint in card


def test_python_pushes_and_opens_too(hub: Hub, export: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"accuracy": 50.0, "chance": 10.0}]')
    told = mm.push(mm.open(export), "ann/drawings", licence="mit", data="drawings", figures=[str(tmp_path / "rows.json")], private=True)
    assert told == f"{hub.url}/ann/drawings/commit/{next(reversed(hub.repositories['ann/drawings'].commits))}"
    assert mm.open("hf://ann/drawings", cache=tmp_path / "mine").path.parent == tmp_path / "mine" / "ann--drawings"


def test_a_dry_run_writes_what_would_be_sent_and_asks_nobody(hub: Hub, export: Path, tmp_path: Path) -> None:
    push(export, "ann/drawings", "--dry-run", tmp_path / "look")
    assert not hub.asked
    push(export)
    sent = dict(hub.repositories["ann/drawings"].files)
    del sent[".gitattributes"]
    assert files_in(tmp_path / "look") == sent
    assert mm.open(tmp_path / "look").fingerprint == mm.open(export).fingerprint


def test_commands_take_an_export_from_the_hub(hub: Hub, road: Road, own_road: Road, fails: Told) -> None:
    push(road.folder / "export")
    told = own_road.run("multimodal index --export hf://ann/drawings --shards set --output store --column trunk --device cpu")
    assert told.status == 0, told.err
    assert files_in(own_road.folder / "store") == files_in(road.folder / "store")  # the same export: there already
    told = own_road.run('multimodal search --store store "image:photos/red-circle-0.png" --export hf://ann/drawings --k 1')
    assert told.status == 0 and "red-circle-0" in told.out
    told = own_road.run(
        "multimodal fit --config recipe.yaml --data.shards set --run tuned --init_from hf://ann/drawings --trainer.max_epochs 1"
    )
    assert told.status == 0, told.err
    again = own_road.run("multimodal fit --config recipe.yaml --data.shards set --run other --init_from export --trainer.max_epochs 1")
    assert again.status == 0, again.err
    assert read_manifest(own_road.folder / "tuned", "run") == read_manifest(own_road.folder / "other", "run")
    assert "hf:" not in fails("index", "--export", "hf://ann/none", "--shards", own_road.folder / "set", "--output", "x").replace(
        "hf://", ""
    )


def test_a_private_repository_opens_for_its_owner_only(hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch, fails: Told) -> None:
    push(export, "ann/secret", "--private")
    assert hub.repositories["ann/secret"].private
    exports.fetch("hf://ann/secret")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="no such repository, or you may not see it. .* if it is private: run: hf auth login"):
        exports.fetch("hf://ann/secret")
    push_again = ("push", export, "ann/drawings", *SAID)
    assert "you are not logged in to the hub. Run: hf auth login, or set HF_TOKEN" in fails(*push_again)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "does not accept your login (Invalid credentials in Authorization header). Run: hf auth login" in fails(*push_again)


def test_what_the_hub_refuses_is_one_line(hub: Hub, export: Path, fails: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "your login may not do this (You don't have the rights" in fails("push", export, "bob/drawings", *SAID)
    told = fails("push", export, "ann/drawings", "--licence", "nonsense", "--data", "x")
    assert '"license" must be one of' in told and set(hub.repositories["ann/drawings"].files) == {".gitattributes"}
    push(export)
    assert "ann/drawings: is public, and --private cannot change that" in fails("push", export, "ann/drawings", *SAID, "--private")
    hub.repositories["ann/bert"] = type(hub.repositories["ann/drawings"])()
    hub.repositories["ann/bert"].commit({"config.json": b"{}", "README.md": b""})
    assert "holds something that is not an export (config.json ...)" in fails("push", export, "ann/bert", *SAID)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert "the hub at http://127.0.0.1:1 cannot be reached (ConnectError" in fails("push", export, "ann/drawings", *SAID)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("hf://nobody", "expected hf://USER/NAME"),
        ("hf://ann/a@", "expected hf://USER/NAME"),
        ("hf://ann/a b", "expected hf://USER/NAME"),
        ("hf://ann/a--b", "is not the name of a repository"),
        ("hf://ann/none", "no such repository, or you may not see it"),
        ("hf://ann/drawings@v9", "the repository has no branch, tag or commit v9"),
        ("hf://ann/bert", "holds no export of this project: it has no manifest.json"),
        ("hf://ann/gated", "grants access one by one. Ask at http"),
        ("hf://ann/store", "expected an export here, but this is a store"),
        ("hf://ann/lacks", "its manifest.json lists weights.safetensors, which is not there"),
        ("hf://ann/leads", "which may be outside this folder"),
    ],
)
def test_what_cannot_be_opened_says_why(hub: Hub, export: Path, where: str, said: str) -> None:
    push(export)
    made = type(hub.repositories["ann/drawings"])
    manifest = json.loads((export / "manifest.json").read_text())
    for name, files in {
        "bert": {"config.json": b"{}"},
        "gated": files_in(export),
        "store": {"manifest.json": json.dumps({**manifest, "kind": "store"}).encode()},
        "lacks": {"manifest.json": json.dumps(manifest).encode()},
        "leads": {"../../evil": b"", "manifest.json": json.dumps({**manifest, "parts": {"../../evil": {"fingerprint": ""}}}).encode()},
    }.items():
        hub.repositories[f"ann/{name}"] = made(is_gated=name == "gated")
        hub.repositories[f"ann/{name}"].commit(files)
    with pytest.raises(InputError, match=said) as told:
        mm.open(where)
    assert "\n" not in str(told.value)


def test_an_export_that_was_changed_on_the_way_is_refused(hub: Hub, export: Path) -> None:
    push(export)
    for name in ("weights.safetensors", "query/weights.safetensors"):
        files = dict(hub.repositories["ann/drawings"].files)
        hub.repositories["ann/drawings"].commit({**files, name: files[name][:-1] + b"x"})
        with pytest.raises(InputError, match="weights.safetensors: "):
            _ = mm.open("hf://ann/drawings").query
        hub.repositories["ann/drawings"].commit(files)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["ann", *SAID], "'ann': is not the name of a repository. Expected USER/NAME"),
        (["ann/a/b", *SAID], "is not the name of a repository"),
        (["ann/a..b", *SAID], "is not the name of a repository"),
        (["ann/a", "--data", "x"], "--licence is missing"),
        (["ann/a", "--licence", "my own!", "--data", "x"], "--licence 'my own!': expected"),
        (["ann/a", "--licence", "mit", "--data", " "], "--data: say what the model learned from"),
        (["ann/a", *SAID, "--figures", "none.json"], "--figures none.json: No such file or directory"),
        (["ann/a", *SAID, "--figures", "bad.json"], "bad.json: cannot be read"),
        (["ann/a", *SAID, "--figures", "alone.json"], "figures without a level of chance"),
        (["ann/a", *SAID, "--dry-run", "."], "--dry-run .: expected a folder that is empty"),
    ],
)
def test_a_wrong_push_asks_nobody(
    hub: Hub, export: Path, fails: Told, argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("[")
    Path("alone.json").write_text('[{"R@10": 99.9}]')
    assert said in fails("push", export, *argv)
    assert not hub.asked


def test_a_damaged_export_is_not_sent(hub: Hub, own_road: Road, fails: Told) -> None:
    weights = own_road.folder / "export" / "query" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "is damaged (query/" in fails("push", own_road.folder / "export", "ann/drawings", *SAID)
    assert "expected an export here, but this is a store" in fails("push", own_road.folder / "store", "ann/drawings", *SAID)
    assert not hub.asked


def test_the_command_finds_the_hub_of_the_environment(hub: Hub, export: Path) -> None:
    """As users set it: HF_ENDPOINT and HF_TOKEN, in a process of its own, which needs no torch to push."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    code = "import sys; from multimodal.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(code)"
    argv = [sys.executable, "-c", code, "push", str(export), "hf://ann/drawings", *SAID]
    done: Any = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n" and f"{hub.url}/ann/drawings/commit/" in done.stderr
    assert FILES < set(hub.repositories["ann/drawings"].files)
