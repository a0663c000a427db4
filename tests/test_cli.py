from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data_prep.__main__
from data_prep.sources import source_names
from multimodal import cli
from multimodal.doors.arguments import Filled, parse
from multimodal.doors.dispatch import OWN, Verbs, run
from multimodal.errors import InputError

VERBS_MODULE = '''
from __future__ import annotations
import errno, time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from multimodal.errors import InputError

@dataclass(frozen=True, slots=True)
class Split:
    """seed: another seed, another split. held_out: the share that is kept."""
    seed: int = 0
    held_out: float = 0.2

def find(query: str, store: Path, k: int = 10, json: bool = False, part: Literal["train", "test"] = "test",
         names: list[str] | None = None, max_share: float = 0.05, split: Split = Split(seed=1)) -> None:
    """Find pictures in words.

    A longer story, with 100 % of it.

    query: what to look for; anything
        at all. k: how many hits.
    store: where to look.
    InputError: never.
    """
    print([query, store, k, json, part, names, max_share, split])

def many(inputs: list[Path], output: Path) -> None:
    print([inputs, output])

class Tower:
    def __init__(self, depth: int, weights: Weights) -> None:
        self.told = f"{depth} of {type(weights).__name__}({weights.seed})"

class Weights:
    pass

class Random(Weights):
    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

def build(tower: Tower | None = None, name: str = "x") -> None:
    print([tower and tower.told, name])

def raw(args: Sequence[str]) -> None:
    print(list(args))

def wrong() -> None:
    raise InputError("the store is empty. Fill it")

def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "runs/x")

def denied() -> None:
    raise PermissionError(errno.EACCES, "Permission denied", "runs/x")

def bug() -> None:
    raise KeyError("ours")

def long() -> None:
    for n in range(100_000):
        print(n)

def wait() -> None:
    print("ready", flush=True)
    time.sleep(60)
'''
NAMES = ("find", "many", "build", "raw", "wrong", "full", "denied", "bug", "long", "wait")
VERBS: Verbs = {
    **{name: (f"verbs_for_tests:{name}", f"help of {name}") for name in NAMES},
    "deep": {"down": ("verbs_for_tests:raw", "below")},
}


@pytest.fixture(autouse=True)
def verbs_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verbs_for_tests.py").write_text(VERBS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "verbs_for_tests", raising=False)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command; status, stdout and stderr."""

    def run_one(*argv: str) -> tuple[int, str, str]:
        status = run(VERBS, "prog", list(argv))
        printed = capsys.readouterr()
        return status, printed.out.strip(), printed.err.strip()

    return run_one


Said = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    "argv",
    [
        ["woman + scientist - man", "S"],
        ["--store", "S", "woman + scientist - man"],
        ["woman + scientist - man", "--store=S"],
        ["--query", "woman + scientist - man", "--store", "S"],
        ["--store", "S", "--", "woman + scientist - man"],
    ],
)
def test_what_has_no_default_comes_by_name_or_by_place(said: Said, argv: list[str]) -> None:
    assert said("find", *argv)[1].startswith("['woman + scientist - man', PosixPath('S'), 10, False, 'test', None, 0.05")


@pytest.mark.parametrize("query", ["-man + woman", '"quoted phrase"', "123", "null", "[a", "{", "a: b", "", "image:7", "2*beach", "true"])
def test_a_query_arrives_as_it_was_written(said: Said, query: str) -> None:
    assert said("find", "--store", "S", query)[1].startswith(f"[{query!r}, PosixPath('S')")


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.startswith("--") and text != "-h"))
def test_any_text_survives_the_command_line(text: str) -> None:
    def verb(query: str, other: str = "x") -> None: ...

    assert parse("prog", [text], verb) == [{"query": text, "other": "x"}]
    assert parse("prog", ["--query", text], verb) == [{"query": text, "other": "x"}]
    assert parse("prog", [f"--other={text}", "q"], verb) == [{"query": "q", "other": text}]


def test_options_take_hyphens_or_underscores_flags_lists_and_choices(said: Said) -> None:
    assert said("find", "q", "S", "--max-share", "0.5", "--json", "--names", "a", "b", "--part", "train", "--k=3")[1] == (
        "['q', PosixPath('S'), 3, True, 'train', ['a', 'b'], 0.5, Split(seed=1, held_out=0.2)]"
    )
    assert ", 0.5, " in said("find", "q", "S", "--max_share", "0.5")[1]
    assert ", False, " in said("find", "q", "S", "--json", "false")[1]
    assert said("find", "--json", "q", "S")[1].startswith("['q', PosixPath('S'), 10, True")


def test_the_fields_of_a_dataclass_are_options_and_keep_its_other_defaults(said: Said) -> None:
    assert said("find", "q", "S", "--split.held-out", "0.5")[1].endswith("Split(seed=1, held_out=0.5)]")


def test_an_object_is_made_from_its_arguments(said: Said) -> None:
    weights = ["--tower.weights", "verbs_for_tests.Random"]
    assert said("build", "--tower.depth", "3", *weights, "--tower.weights.seed=7", "--name", "y")[1] == "['3 of Random(7)', 'y']"
    assert said("build")[1] == "[None, 'x']"
    status, _, err = said("build", "--tower.deepth", "3", *weights)
    assert status == 2 and "Option 'deepth' is not accepted. See: prog build --help" in err and "\n" not in err
    assert said("build", *weights)[2].endswith("the following arguments are required: depth. See: prog build --help")
    assert said("build", "--tower.depth")[2].endswith("--tower.depth needs a value. See: prog build --help")


def test_a_list_by_place_takes_what_the_others_leave(said: Said) -> None:
    assert said("many", "a", "b", "c", "o")[1] == "[[PosixPath('a'), PosixPath('b'), PosixPath('c')], PosixPath('o')]"
    assert said("many", "a", "--output", "o")[1] == "[[PosixPath('a')], PosixPath('o')]"
    assert said("many", "--inputs", "a", "b", "--output", "o")[1] == "[[PosixPath('a'), PosixPath('b')], PosixPath('o')]"


def test_settings_from_a_file_give_way_to_the_command_line(said: Said, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("store: T\nk: 4\nsplit: {seed: 7}\n")
    assert said("find", "q", "--config", str(tmp_path / "s.yaml"), "--k", "5")[1] == (
        "['q', PosixPath('T'), 5, False, 'test', None, 0.05, Split(seed=7, held_out=0.2)]"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "prog: a verb is missing: give one of those above"),
        (["fnd"], "prog: there is no verb 'fnd'. Did you mean find?"),
        (["deep"], "prog deep: a verb is missing: give one of those above"),
        (["deep", "dwn"], "prog deep: there is no verb 'dwn'. Did you mean down?"),
        (["find", "q"], "--store is missing. See: prog find --help"),
        (["find", "q", "S", "more"], "unexpected value 'more'. See: prog find --help"),
        (["find", "q", "S", "--kk", "3"], "there is no option --kk. Did you mean --k? See: prog find --help"),
        (["find", "q", "S", "--k"], "--k needs a value. See: prog find --help"),
        (["find", "q", "S", "--k", "x"], "--k: expected int, got x. See: prog find --help"),
        (["find", "q", "S", "--k", "1", "--k", "2"], "--k is given 2 times: 1, 2. See: prog find --help"),
        (["find", "q", "S", "--part", "all"], "--part: expected Literal['train', 'test'], got all. See: prog find --help"),
        (["find", "q", "S", "--split.seed", "x"], "--split.seed: expected int, got x. See: prog find --help"),
        (["wrong"], "the store is empty. Fill it"),
        (["full"], "runs/x: No space left on device. Free some space and run the same command again"),
        (["denied"], "runs/x: Permission denied"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_status_2(said: Said, argv: list[str], message: str) -> None:
    status, _, err = said(*argv)
    assert (status, err) == (2, f"error: {message}")


def test_an_unknown_key_in_a_file_of_settings_is_an_error(said: Said, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("stor: T\n")
    status, _, err = said("find", "q", "S", "--config", str(tmp_path / "s.yaml"))
    assert status == 2 and "'stor' is not accepted" in err
    status, _, err = said("find", "q", "S", "--config", str(tmp_path / "none.yaml"))
    assert status == 2 and "none.yaml" in err


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="ours"):
        run(VERBS, "prog", ["bug"])


def test_a_verb_that_takes_args_reads_its_own_command_line(said: Said) -> None:
    assert said("raw", "--any", "-h", "x")[1] == "['--any', '-h', 'x']"
    assert said("deep", "down", "--help")[1] == "['--help']"


def test_the_help_of_a_verb_is_its_docstring(said: Said) -> None:
    status, out, _ = said("find", "q", "--help")
    assert status == 0
    assert out.startswith(
        "usage: prog find [--query] QUERY [--store] STORE [options]\n\nFind pictures in words.\n\nA longer story, with 100 % of it."
    )
    meanings = dict(re.findall(r"^  (--\S+) .*?  +(\S.*)$", out, re.MULTILINE))
    assert meanings["--k"] == "how many hits (default: 10)"
    assert meanings["--split.seed"] == "another seed, another split (default: 1)"
    assert "anything at all (required)" in " ".join(out.split())
    assert "never" not in out  # what is raised is no parameter


def test_help_shows_the_examples_of_the_module_if_the_verb_has_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One that says `prog with_example` in its module's docstring, and one that says it itself."""
    (tmp_path / "verbs_with_examples.py").write_text(
        '"""A module.\n\nprog told --k 3        # three\nprog tells --k 4\n"""\n'
        "def told(k: int = 1) -> None:\n    'Tell.'\n"
        "def tells(k: int = 1) -> None:\n    'Tell.\\n\\n    prog tells --k 5'\n"
    )
    verbs: Verbs = {name: (f"verbs_with_examples:{name}", "") for name in ("told", "tells")}
    assert run(verbs, "prog", ["told", "--help"]) == 0
    assert "Tell.\n\n  prog told --k 3        # three\n\n  --k K" in capsys.readouterr().out
    assert run(verbs, "prog", ["tells", "--help"]) == 0
    out = capsys.readouterr().out
    assert "prog tells --k 5" in out and "--k 4" not in out


def test_missing_modules_functions_and_packages_are_distinguished(said: Said, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    verbs = {"a": ("nowhere.to:be", ""), "b": ("verbs_for_tests:none", ""), "c": ("needs_more:f", "")}
    for verb, message in [
        (
            "a",
            "nowhere.to:be: there is no module nowhere. Install nowhere, or put PYTHONPATH=FOLDER in front of the command, "
            "with the folder that contains it",
        ),
        ("b", "verbs_for_tests:none: the module verbs_for_tests has no function 'none'"),
        ("c", "needs_more:f needs the package a_package_that_nobody_has, which is not installed. README.md says which extra brings it"),
    ]:
        assert run(verbs, "prog", [verb]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"


# -- the real doors ------------------------------------------------------------------------------------------------------------------------


def names_of(verbs: Verbs, prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, verb in verbs.items():
        found |= {prefix + name: verb[0]} if isinstance(verb, tuple) else names_of(verb, f"{prefix}{name} ")
    return found


@pytest.mark.parametrize("door", [cli, data_prep.__main__])
def test_the_help_lists_every_verb_with_a_line(door: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["--help"]) == 0  # type: ignore[attr-defined]
    out = capsys.readouterr().out
    for name in names_of(door.VERBS):  # type: ignore[attr-defined]
        assert re.search(rf"^  {name}  +\S", out, re.MULTILINE), name


@pytest.mark.parametrize("door", [cli, data_prep.__main__])
def test_the_help_of_every_verb_fits_on_two_screens_and_shows_an_example(door: object, capsys: pytest.CaptureFixture[str]) -> None:
    names = list(names_of(door.VERBS))  # type: ignore[attr-defined]
    sources = [f"make-shards {name}" for name in source_names()] if door is data_prep.__main__ else []
    for name in [name for name in [*names, *sources] if OWN not in name]:
        with contextlib.suppress(SystemExit):  # of `fit`, whose parser is Lightning's
            assert door.main([*name.split(), "--help"]) == 0  # type: ignore[attr-defined]
        usage, *lines = capsys.readouterr().out.splitlines()
        assert len(lines) < 100, name
        command = " ".join([usage.split()[1], *name.split()]).replace("_", "-")
        assert any(line.strip().replace("_", "-").startswith(f"{command} ") for line in lines), f"{name} has no example"


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def test_listing_the_verbs_imports_none_of_them() -> None:
    code = (
        "import sys; from multimodal.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'jsonargparse', 'lightning'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=300)
    assert done.stderr.strip() == "[]"


def door_process(tmp_path: Path, verb: str) -> list[str]:
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from multimodal.doors.dispatch import run; "
    return [sys.executable, "-c", code + f"sys.exit(run({{'v': ('verbs_for_tests:{verb}', '')}}, 'prog', ['v']))"]


def test_a_reader_that_has_seen_enough_gets_no_complaint(tmp_path: Path) -> None:
    process = subprocess.Popen(door_process(tmp_path, "long"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=300) == 141


def test_an_interrupted_verb_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(door_process(tmp_path, "wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == "\nstopped; finished work is kept, run the same command again to continue\n"


def test_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            door_process(tmp_path, "long"), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=300
        )
    assert done.returncode == 2
    assert done.stderr == "error: No space left on device. Free some space and run the same command again\n"


def test_parameters_that_the_caller_fills_are_no_options() -> None:
    def verb(query: str, ledger: object) -> None: ...

    assert parse("prog", ["q"], Filled(verb, {"ledger"})) == [{"query": "q"}]
    with pytest.raises(InputError, match="there is no option --ledger"):
        parse("prog", ["q", "--ledger", "x"], Filled(verb, {"ledger"}))
