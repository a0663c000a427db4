"""`multimodal demo`: the whole road on real pictures, through the real commands, from sources to a page that shows what came of it.

    multimodal demo                             # 3-D emoji with their keywords, searched in a drawing style never seen in training
    multimodal demo --data my_photos/           # the same road on your own pictures
    multimodal demo --data articles.jsonl.gz    # on illustrations and the articles around them

Each step is a command that is printed as it runs, so that any of them can be run again by hand. What is whole is reused; a stopped
demo goes on.
"""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.boxes import atomic_write, read_manifest
from multimodal.errors import InputError
from multimodal.evaluate.figures import read_rows
from multimodal.evaluate.page import render
from multimodal.evaluate.report import Answered, LearningCurve, Report, ask, curves_of, failures_of, learning_curves_of, topics_of
from multimodal.evaluate.retrieval import RetrievalRow, as_table
from multimodal.road import Command, Gallery, Training, commands, figures, run
from multimodal.search.store import Store
from multimodal.shards import ShardSet, Split
from multimodal.text import Normaliser

QUERIES = (
    "woman + scientist - man",
    "haircut + woman - man",
    "cat + heart",
    "2*cat - 0.5*smile",
    "red + fruit",
    "fruit - red",
    "music + instrument - guitar",
    '"ice cream" - cold + hot',
    "ocean + animal",
    "police + car",
    "(sun + cloud) - rain",
    "family - child",
)
MIN_TRAINED, MIN_HELD_OUT, FEW_HELD_OUT = 32, 12, 50
VIEWS = 4
SHARES = (0.125, 0.25, 0.5)
"""Of the training pairs: what a learning curve is drawn through, besides all of them."""
FOUND = {"retrieval": ("retrieval", "--directions", "text->image")}
ARCHIVE_SUFFIX = ".tar"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One family of the demo: the shipped recipe that trains it, and the column that its text side reads."""

    family: str
    experiment: str
    space: str


RECIPES = (
    Recipe("contrastive", "experiment/contrastive_emoji.yaml", "minilm"),
    Recipe("wordvec", "experiment/wordvec_emoji.yaml", "wordllama"),
    Recipe("topic", "experiment/topic_emoji.yaml", "lda40"),
)


def demo(
    data: Path | None = None,
    images: Path | None = None,
    output: Path = Path("runs/demo"),
    seeds: int = 3,
    max_pairs: int | None = None,
    packages: Path | None = None,
    file_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
    columns: list[str] | None = None,
    encoding: str | None = None,
    allow_outside: bool = False,
) -> None:
    """Run the whole road: pictures with text -> shards -> text spaces -> columns -> trained runs -> exports -> stores -> queries -> a page.

    Three families (contrastive, word vectors, topics) learn from the text alone, on features of a frozen network. Each is judged on
    pictures that nothing was fitted on, beside chance and beside the same training with texts shuffled between pictures.

    Args:
        data: your own pictures: a folder of images (their names, or a .txt beside each, as text); a file of captions (.tsv, .csv or
            .parquet with columns such as file and caption, .jsonl with such fields, .json of COCO or Karpathy, Flickr's token .txt);
            articles with illustrations (.jsonl or .jsonl.gz, objects with id, title, text, images); or a folder of img2dataset's tars.
            Without it, 3-D emoji with keywords are fetched.
        images: the folder of images, or of tars of them, that captions or articles name; by default the one that their file lies in.
        output: where everything goes; the page is index.html there, the figures are results.json.
        seeds: splits to repeat it on; the figures are their mean and spread.
        max_pairs: look at this many pairs only, to try it out.
        packages: a folder that holds the demo's npm packages already, so that nothing is fetched.
        file_column: what a file of captions calls its column of pictures; by default the first usual name, as file or image.
        caption_column: what it calls that of the captions; by default the first usual name, as caption or text.
        split_column: what it calls that of the source's own split; by default `split` where there is one.
        columns: the names of all its columns, where it has no header line.
        encoding: the encoding of captions or articles, such as cp1251, where their bytes do not say it.
        allow_outside: use pictures that captions or articles name outside the folder of the pictures, too.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least 1 is needed")
    started = time.monotonic()
    done: list[Command] = []
    table = {
        "--file-column": file_column,
        "--caption-column": caption_column,
        "--split-column": split_column,
        "--columns": columns,
        "--encoding": encoding,
        "--allow-outside": allow_outside,
    }
    galleries = _shards(data, images, output, max_pairs, packages, done, {name: value for name, value in table.items() if value})
    pairs = galleries[0].shards
    _check_parts(galleries[0], seeds)
    for gallery in galleries:
        views = ["--views", VIEWS] if gallery.shards == pairs else []  # only what is trained on needs more than the middle
        _step(done, "multimodal", "embed", "--shards", gallery.shards, "--name", "trunk", *views)
    minilm = output / "spaces" / "minilm"
    _step(done, "data-prep", "fit-text-space", "encoder", "--output", minilm)
    _step(done, "data-prep", "make-columns", "--space", minilm, "--shards", pairs, "--name", "minilm", "--unit", "text")

    trainings: list[Training] = []
    for seed in range(seeds):
        spaces = {"minilm": minilm, **_fit_spaces(pairs, output, seed, done)}
        trainings += _trainings(spaces, galleries, output, seed)
        for training in trainings[-2 * len(RECIPES) :]:
            _walk(done, training)
    learning = [] if data is None else _learn_from_less(trainings, galleries[0], done)

    files = [figures(training, gallery, "retrieval") for training in trainings for gallery in galleries]
    rows, found = read_rows(files, RetrievalRow)
    printed = as_table(rows, found)
    print(f"\n{printed}")
    queries = QUERIES if data is None else _own_queries(ShardSet(pairs))
    answers = _answers(output, queries)
    _write(output, galleries[0], rows, printed, learning, answers, done, time.monotonic() - started, photographs=data is not None)


def _shards(
    data: Path | None,
    images: Path | None,
    output: Path,
    max_pairs: int | None,
    packages: Path | None,
    done: list[Command],
    table: Mapping[str, Any],
) -> list[Gallery]:
    limit = [] if max_pairs is None else ["--max-pairs", max_pairs]
    if data is not None:
        pairs = output / "shards" / "own"
        source, *settings = _own_source(data, images, table)
        _step(done, "data-prep", "make-shards", source, *settings, "--output", pairs, *limit)
        return [Gallery("unseen", pairs, _held_out_part(ShardSet(pairs)), protocols=FOUND)]
    if images is not None:
        raise InputError(f"--images {images}: without --data there are no captions or articles that name them")
    if table:
        raise InputError(f"{', '.join(table)}: without --data there is no file of captions")
    fluent, noto = output / "shards" / "fluent", output / "shards" / "noto"
    where = [] if packages is None else ["--packages", packages]
    _step(done, "data-prep", "make-shards", "fluent_emoji", *where, "--output", fluent, *limit)
    _step(done, "data-prep", "make-shards", "noto_emoji", *where, "--output", noto, *limit)
    # The trained things in another drawing style: the split goes by group, and both sets name a thing's group alike.
    return [Gallery("unseen", fluent, "test", protocols=FOUND), Gallery("noto", noto, "train", "store_noto", protocols=FOUND)]


def _held_out_part(pairs: ShardSet) -> str:
    """The part to judge on: "test", or the source's own development part where it keeps its test part to itself."""
    own = sorted(name for name in pairs.splits.distinct() if name not in ("", "train"))
    return "test" if "test" in own or not own else own[0]


def _check_parts(gallery: Gallery, seeds: int) -> None:
    """Stop before the work begins where there is too little to learn from or to judge on."""
    pairs = ShardSet(gallery.shards)
    for seed in range(seeds):
        held_out = Split(seed).ids(pairs, gallery.part)
        num_train, num_held_out = len(Split(seed).ids(pairs, "train")), len(held_out)
        if num_train < MIN_TRAINED or num_held_out < MIN_HELD_OUT:
            raise InputError(
                f"{gallery.shards}: {len(pairs)} pairs, {num_train} to train on and {num_held_out} held out "
                f"(part {gallery.part!r}, seed {seed}). The demo needs at least {MIN_TRAINED} and {MIN_HELD_OUT}: give it more pictures, "
                "or a table without a column of splits where all of them stand in one"
            )
        if len(groups := {pairs.groups[id] for id in held_out.tolist()}) < 2:
            raise InputError(
                f"{gallery.shards}: all {num_held_out} held-out pairs (part {gallery.part!r}, seed {seed}) are of one group, "
                f"{groups.pop()!r}. Pictures of one folder and one name but for numbers are a group: give them names that tell them apart"
            )
        if num_held_out < FEW_HELD_OUT:
            print(f"only {num_held_out} pictures are held out: chance is high among so few, so read R@10 beside it", file=sys.stderr)


def _own_source(data: Path, images: Path | None = None, table: Mapping[str, Any] | None = None) -> list[str | Path]:
    """Which source reads the user's data, and its settings, told by what lies there. table: options for reading captions or articles."""
    table = table or {}
    encoding = table.get("--encoding")
    from data_prep.lines import JSON_LINES
    from data_prep.sources.articles import holds_articles
    from data_prep.sources.captions import SUFFIXES

    if not data.exists():
        raise InputError(
            f"{data}: is not there. --data takes a folder of images, a file of captions, a .jsonl of articles, or a folder of "
            "img2dataset's tars"
        )
    if data.is_file():
        if not data.name.lower().endswith(SUFFIXES):
            raise InputError(f"{data}: captions and articles end in {', '.join(SUFFIXES)}; for pictures give their folder")
        is_lines = data.name.lower().endswith(JSON_LINES)
        source = "articles" if is_lines and holds_articles(data, encoding) else "captions"
        if source == "articles" and (others := [name for name in table if name not in ("--encoding", "--allow-outside")]):
            raise InputError(f"{data}: holds articles, whose fields have their own names; leave out {', '.join(others)}")
        where: list[str | Path] = [] if images is None else ["--images", images]
        return [source, "--input", data, *where, *_as_options(table)]
    if table:
        raise InputError(f"{', '.join(table)}: goes with a file of captions, and {data} is a folder")
    if images is not None:
        raise InputError(f"--images {images}: goes with a file of captions or articles, and {data} is a folder of pictures itself")
    return ["img2dataset" if any(data.glob(f"*{ARCHIVE_SUFFIX}")) else "folder", "--input", data]


def _as_options(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield name
        yield from [] if isinstance(value, bool) else [value] if isinstance(value, str) else value


def _fit_spaces(pairs: Path, output: Path, seed: int, done: list[Command]) -> dict[str, Path]:
    """The two spaces that are fitted, on the training part of this seed's split, and their columns."""
    spaces = {}
    for job, name, settings in (("topics", "lda40", ["--num-topics", 40]), ("wordllama", "wordllama", [])):
        space = output / "spaces" / f"{name}-seed{seed}"
        _step(done, "data-prep", "fit-text-space", job, "--shards", pairs, "--split.seed", seed, *settings, "--output", space)
        _step(done, "data-prep", "make-columns", "--space", space, "--shards", pairs, "--name", space.name, "--unit", "text")
        spaces[name] = space
    return spaces


def _trainings(spaces: dict[str, Path], galleries: Sequence[Gallery], output: Path, seed: int) -> Iterator[Training]:
    """Every family on one split: the run itself, and its shuffled control."""
    for recipe in RECIPES:
        folder, space = _folder(output, recipe, seed), spaces[recipe.space]
        of_recipe = Training(recipe.family, recipe.experiment, folder, galleries[0].shards, space, space.name, galleries, seed)
        yield replace(of_recipe, thumbnails=seed == 0)  # only these stores are searched in by people
        yield replace(of_recipe, folder=folder / "control", control=True)


def _learn_from_less(trainings: Sequence[Training], gallery: Gallery, done: list[Command]) -> list[LearningCurve]:
    """The first split's families trained on shares of the training pairs, judged in the same gallery."""
    whole = [training for training in trainings if training.seed == 0 and not training.control]
    rows: dict[int, list[RetrievalRow]] = {}
    for share in (*SHARES, 1.0):
        for training in whole:
            part = training
            if share < 1:
                folder = training.folder / f"share{share:g}"
                part = replace(
                    training, folder=folder, galleries=[gallery], thumbnails=False, settings=("--data.train_share", f"{share:g}")
                )
                _walk(done, part)
            num = read_manifest(part.folder / "run", "run").counts["pairs"]
            rows.setdefault(num, []).extend(read_rows([figures(part, gallery, "retrieval")], RetrievalRow)[0])
    return learning_curves_of(rows)


def _walk(done: list[Command], training: Training) -> None:
    for command in commands(training):
        done.append(command)
        run(command)


def _folder(output: Path, recipe: Recipe, seed: int) -> Path:
    return output / recipe.family if seed == 0 else output / f"seed{seed}" / recipe.family


def _own_queries(pairs: ShardSet, num_words: int = 8) -> list[str]:
    """Words, sums and differences of words that many of the user's own texts use."""
    normaliser = Normaliser()
    used = Counter(word for id in range(len(pairs)) for word in set(normaliser.tokens(pairs.texts(id)[0])))
    words = [word for word, count in used.most_common(num_words) if count < len(pairs)]
    sums = [f"{first} + {second}" for first, second in zip(words, words[1:], strict=False)][:4]
    differences = [f"{first} - {second}" for first, second in zip(words, words[1:], strict=False)][:4]
    return [*words[:3], *sums, *differences, *([f"image:0 + {words[0]}"] if words else [])]


def _answers(output: Path, queries: Sequence[str]) -> list[Answered]:
    """What each family of the first split answers, told in the terminal by the first texts, and on the page by pictures."""
    answers = []
    print("\nqueries (best three; the page shows the pictures)")
    for recipe in RECIPES:
        answers += ask(Store(_folder(output, recipe, 0) / "store"), recipe.family, queries)
    for query in queries:
        print(f"  {query}")
        for answer in (answer for answer in answers if answer.query == query):
            found = " | ".join(_short(picture.text) for picture in answer.pictures[:3]) or answer.note
            print(f"    {answer.recipe:<12} {found}")
    return answers


def _short(text: str, width: int = 45) -> str:
    """The first sentence of a text, cut to fit three in a line."""
    return textwrap.shorten(text.split(".")[0], width, placeholder="…")


def _write(
    output: Path,
    gallery: Gallery,
    rows: list[RetrievalRow],
    printed: str,
    learning: list[LearningCurve],
    answers: list[Answered],
    done: Sequence[Command],
    took_s: float,
    photographs: bool,
) -> None:
    with atomic_write(output / "results.json") as file:
        file.write((json.dumps([row.as_json() for row in rows], indent=1) + "\n").encode())
    num_held_out = np.mean([row.num_pairs for row in rows if row.gallery == gallery.name])
    pairs = ShardSet(gallery.shards)
    ids = Split(0).ids(pairs, gallery.part)
    report = Report(
        title="Pictures found by the words they came with",
        facts=[
            f"{len(pairs):,} pictures with text, about {num_held_out:.0f} of them held out of everything fitted. "
            "What belongs together (the variants of one thing, say) is on one side of the cut.",
            "Linear heads learnt from the text alone, on the frozen features of a network that ImageNet's labels had taught.",
        ],
        rows=rows,
        answers=answers,
        topics=topics_of(Store(output / "topic" / "store")),
        curves=[curve for recipe in RECIPES for curve in curves_of(output / recipe.family / "run", recipe.family)],
        commands=[shlex.join(command) for command in done],
        learning=learning,
        printed=printed,
        failures=[failures_of(Store(output / recipe.family / gallery.store), pairs, ids, gallery=gallery.name) for recipe in RECIPES],
        photographs=photographs,
    )
    with atomic_write(output / "index.html") as file:
        file.write(render(report).encode())
    print(
        f"\nfigures: {output / 'results.json'}\npage:    {output / 'index.html'}\nthis run took {took_s / 60:.1f} minutes", file=sys.stderr
    )


def _step(done: list[Command], *command: object) -> None:
    """Run one command as a person would type it; the demo stops where a command fails."""
    typed = tuple(map(str, command))
    done.append(typed)
    run(typed)
