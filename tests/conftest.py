from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType

import hypothesis
import pytest

# One thread a process, ours and those that tests start: the matrices here are small, threads that wait for each other crawl on busy
# cores, and sums must not depend on how many cores there are. Libraries read it when they are imported, so it stands before all of them.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# Help is wrapped at the width of the terminal, which is whoever's.
os.environ["COLUMNS"] = "80"
# A shell starts what runs in its background with interrupts ignored, and that is passed on to processes which tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `make test` tries the same inputs each time, on any machine: whoever sees a test fail can see it fail again.
# A third of hypothesis's own number of them, unless a test says how many: `make test-more` is for what these do not find.
hypothesis.settings.register_profile("same", derandomize=True, max_examples=30, deadline=None, print_blob=True)
# `make test-more` tries others each time, and first those that failed the last time, which lie in .hypothesis.
hypothesis.settings.register_profile("fresh", derandomize=False, deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")

REPRODUCE = Path(__file__).resolve().parents[1] / "scripts" / "reproduce.py"
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 60, 220), "yellow": (240, 210, 30), "black": (20, 20, 20)}
SHAPES = ("circle", "square", "triangle")
RECIPE = """
num_threads: 1
model:
  image_tower: {class_path: multimodal.towers.Head, init_args: {dim_in: 256, dim_out: 8, standardise: true}}
  target_side: {class_path: torch.nn.Identity}
  objective: {class_path: multimodal.objectives.Cosine}
  optimiser: {lr: 1.0e-2, warmup_steps: 2}
data:
  image: {class_path: multimodal.data.ColumnRows, init_args: {name: trunk}}
  target: {class_path: multimodal.data.ColumnRows, init_args: {name: words}}
  batch_size: 8
  validation_share: 0.2
trainer: {accelerator: cpu, max_epochs: 2, log_every_n_steps: 1}
"""
TINY_TRUNK = "--trunk.architecture test_efficientnet --trunk.weights multimodal.towers.NoWeights --trunk.size 48 --device cpu"
ROAD = {
    "set": "data-prep make-shards folder photos --output set --pairs-per-shard 20",
    "space": "data-prep fit-text-space word2vec --shards set --output space --dim 8 --min-count 1 --passes 20",
    "set/columns/words": "data-prep make-columns --space space --shards set --name words",
    "set/columns/trunk": f"multimodal embed --shards set --name trunk {TINY_TRUNK}",
    "run": "multimodal fit --config recipe.yaml --data.shards set --run run",
    "export": "multimodal export --run run --space space --output export",
    "store": "multimodal index --export export --shards set --output store --column trunk --device cpu",
}
"""Box -> the command that makes it, in the folder of a road."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a command left behind: its exit status, and what it said."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Road:
    """A folder with drawings, a recipe, and the boxes that `ROAD` makes of them; commands in it name them by relative paths."""

    folder: Path

    def run(self, command: str) -> Told:
        """Give a command to its real door, in this process: importing torch for each would take longer than all of them."""
        import data_prep.__main__
        import multimodal.cli

        door, *arguments = shlex.split(command)
        main = {"multimodal": multimodal.cli.main, "data-prep": data_prep.__main__.main}[door]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
        return Told(status, out.getvalue(), err.getvalue())

    def go(self, *boxes: str) -> None:
        """Make boxes by their commands, or all of them; all must succeed."""
        for box in boxes or ROAD:
            told = self.run(ROAD[box])
            assert told.status == 0, f"{ROAD[box]}\n{told.err}"


def draw_pictures(folder: Path) -> None:
    """45 drawings of 48 pixels, five colours of three shapes at three places, each with a sidecar that says so."""
    from PIL import Image, ImageDraw

    folder.mkdir()
    for colour, rgb in COLOURS.items():
        for shape in SHAPES:
            for place in range(3):
                picture = Image.new("RGB", (48, 48), (255, 255, 255))
                left = 4 + 3 * place
                drawing = ImageDraw.Draw(picture)
                if shape == "triangle":
                    drawing.polygon([(left, 38), (left + 16, 6), (left + 32, 38)], fill=rgb)
                else:
                    (drawing.ellipse if shape == "circle" else drawing.rectangle)((left, 6, left + 32, 38), fill=rgb)
                picture.save(folder / f"{colour}-{shape}-{place}.png")
                (folder / f"{colour}-{shape}-{place}.txt").write_text(f"a {colour} {shape} on white paper\n")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`: more than four would take more memory (1.5 GB each) than they save time, as the longest file takes a quarter of it."""
    from multimodal.machine.cores import usable_cores

    return min(4, len(usable_cores()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each test begins with as many threads of torch as a fresh process has: sums over several are rounded otherwise."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also the tests that are marked as slow; make test-slow")
    parser.addoption("--rounds", type=int, default=1, help="with --hypothesis-profile=fresh: try each property so many times")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each round of a property has a seed of its own. How many inputs a round tries is the test's own choice: some are slow."""
    rounds = metafunc.config.getoption("rounds")
    if rounds > 1 and hypothesis.is_hypothesis_test(metafunc.function):
        metafunc.fixturenames.append("round")
        metafunc.parametrize("round", range(rounds), scope="session")


SLOW_FIRST = (
    "training",
    "test_reproduce.py",
    "data_room",
    "test_wrong_input.py",
    "test_trust.py",
    "objectives",
    "evaluate",
    "test_road_commands.py",
)
"""Files and folders of tests that take longest. Begun first, the many short files after them fill up what time is left of each process."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow files first; within a file the order stays. Tests that are marked as slow are left out unless they are asked for."""
    if not config.getoption("slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: make test-slow runs it"))
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        first = item.path.relative_to(here).parts[0] if item.path.is_relative_to(here) else ""
        return SLOW_FIRST.index(first) if first in SLOW_FIRST else len(SLOW_FIRST)

    items.sort(key=place)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are called by their number: a test's name must be the same in every process, and packed files hold the time."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that lies outside the repository; tests that ask for it skip where it is absent."""
    data = Path(os.environ.get("MULTIMODAL_DATA", DEFAULT_DATA))
    if not data.is_dir():
        pytest.skip(f"real data absent: {data} is no folder (set MULTIMODAL_DATA to where it lies)")
    return data


def num_calls(work: Callable[[], object]) -> int:
    """How many functions, Python's and C's, are called while this thread does it: the same on every machine, however busy it is."""
    num = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal num
        num += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return num


@pytest.fixture(scope="session")
def assert_linear() -> Callable[[Callable[[str], object], Callable[[int], str]], None]:
    """`assert_linear(read, text_of)`: twice the text, made by `text_of(length)`, takes at most twice the calls.

    What a regular expression or `str.find` does inside is one call, so that a test of those also reads a text so long that a pass over
    the rest of it from each of its signs would not end within the limit of a test.
    """

    def check(read: Callable[[str], object], text_of: Callable[[int], str]) -> None:
        short, long = text_of(2_000), text_of(4_000)
        read(long)  # fills what is kept of words seen before
        few, many = (num_calls(partial(read, text)) for text in (short, long))
        assert many <= 2.2 * few + 100, f"{few} calls for {len(short)} characters, {many} for {len(long)}"

    return check


@pytest.fixture(scope="session")
def begin_road(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Road]:
    """Makes a new folder with drawings and a recipe, and no box yet."""

    def begin() -> Road:
        folder = tmp_path_factory.mktemp("road")
        draw_pictures(folder / "photos")
        (folder / "recipe.yaml").write_text(RECIPE)
        return Road(folder)

    return begin


@pytest.fixture(scope="session")
def road(begin_road: Callable[[], Road]) -> Road:
    """The whole road, made once. Not to be changed; see `own_road`."""
    made = begin_road()
    made.go()
    return made


@pytest.fixture
def own_road(road: Road, tmp_path: Path) -> Road:
    """A copy of the whole road, to be changed."""
    return Road(Path(shutil.copytree(road.folder, tmp_path / "road")))


@pytest.fixture(scope="session")
def road_commands() -> dict[str, str]:
    """Box -> the command that makes it."""
    return ROAD


@pytest.fixture(scope="session")
def reproduce() -> ModuleType:
    """scripts/reproduce.py, imported."""
    spec = importlib.util.spec_from_file_location("reproduce", REPRODUCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduce"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two tiny layers with a vocabulary of letters, as save_pretrained writes it. Tests that change it copy it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path = tmp_path_factory.mktemp("bert")
    letters = "abcdefghijklmnopqrstuvwxyz:"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (path / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(path)
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model with towers of two tiny layers, as open_clip writes it, and a scale of 20. Tests that change it copy it."""
    open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("clip") / "tiny"
    path.mkdir()
    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    model = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    state = open_clip.CustomTextCLIP(**model, init_logit_scale=math.log(20)).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path / "open_clip_model.safetensors")
    config = {"model_cfg": {**model, "custom_text": True}, "preprocess_cfg": {"mean": [0.4] * 3, "resize_mode": "squash"}}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    return path
