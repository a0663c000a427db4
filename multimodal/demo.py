"""`multimodal demo`: the whole road on real pictures, through the real commands, from sources to a page that shows what came of it.

    multimodal demo                             # 3-D emoji with their keywords, searched in a drawing style never seen in training
    multimodal demo --data my_photos/           # the same road on your own pictures
    multimodal demo --data articles.jsonl.gz    # on illustrations and the articles around them

Each step is a command that is printed as it runs, so that any of them can be run again by hand. What is whole is reused; a stopped
demo goes on. A family that cannot learn from these pairs is left out, and the page says why.
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
from multimodal.road import Command, Gallery, Training, attempt, commands, figures, run
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
MIN_TRAINED, MIN_HELD_OUT, FEW_HELD_OUT = 16, 2, 50
SEEDS_TRIED = 100
"""Splits that are looked through for those that leave enough on both sides: of 30 pictures a random fifth may be a single one."""
VIEWS = 4
SHARES = (0.125, 0.25, 0.5)
"""Of the training pairs: what a learning curve is drawn through, besides all of them."""
MIN_IN_SHARE = 16
"""Pairs; of fewer no point of a learning curve would mean anything."""
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
    max_bad_share: float | None = None,
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
        max_bad_share: go on where up to this share of the pictures is broken or has no text; by default what make-shards and embed allow.
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
    allowed = [] if max_bad_share is None else ["--max-bad-share", max_bad_share]
    given = {name: value for name, value in table.items() if value}
    galleries = _shards(data, images, output, max_pairs, packages, allowed, done, given)
    pairs = galleries[0].shards
    splits = _splits(galleries[0], seeds)
    for gallery in galleries:
        views = ["--views", VIEWS] if gallery.shards == pairs else []  # only what is trained on needs more than the middle
        _step(done, "multimodal", "embed", "--shards", gallery.shards, "--name", "trunk", *views, *allowed)

    trainings: list[Training] = []
    lost: list[str] = []
    for seed in splits:
        trainings += _learn(galleries, output, seed, is_first=seed == splits[0], thumbnails=not trainings, lost=lost, done=done)
    whole = [training for training in trainings if not training.control]
    if not whole:
        raise InputError(f"{pairs}: nothing could be learnt from these pairs: {'; '.join(lost)}")
    first = _of_first_seed(whole)
    learning, not_measured = ([], []) if data is None else _learn_from_less(first, galleries[0], done)

    files = [figures(training, gallery, "retrieval") for training in trainings for gallery in galleries]
    rows, found = read_rows(files, RetrievalRow)
    printed = as_table(rows, found)
    print(f"\n{printed}")
    for line in lost:
        print(f"not learnt: {line}", file=sys.stderr)
    queries = QUERIES if data is None else _own_queries(ShardSet(pairs))
    answers = _answers(first, queries)
    stores = {training.recipe: Store(training.folder / galleries[0].store) for training in first}
    shards, gallery = ShardSet(pairs), galleries[0]
    num_held_out = np.mean([row.num_pairs for row in rows if row.gallery == gallery.name])
    ids = Split(splits[0]).ids(shards, gallery.part)
    report = Report(
        title="Pictures found by the words they came with",
        facts=[
            f"{len(shards):,} pictures with text, about {num_held_out:.0f} of them held out of everything fitted. "
            "What belongs together (the variants of one thing, say) is on one side of the cut.",
            "Linear heads learnt from the text alone, on the frozen features of a network that ImageNet's labels had taught.",
            *_without_words(first),
            *(f"Not learnt: {line}" for line in lost),
        ],
        rows=rows,
        answers=answers,
        topics=topics_of(stores["topic"]) if "topic" in stores else [],
        curves=[curve for training in first for curve in curves_of(training.folder / "run", training.recipe)],
        commands=[shlex.join(command) for command in done],
        learning=learning,
        not_measured=not_measured,
        printed=printed,
        failures=[failures_of(store, shards, ids, gallery=gallery.name) for store in stores.values()],
        photographs=data is not None,
    )
    _write(output, report, time.monotonic() - started)


def _shards(
    data: Path | None,
    images: Path | None,
    output: Path,
    max_pairs: int | None,
    packages: Path | None,
    allowed: Sequence[object],
    done: list[Command],
    table: Mapping[str, Any],
) -> list[Gallery]:
    limit = [*allowed] if max_pairs is None else ["--max-pairs", max_pairs, *allowed]
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


def _splits(gallery: Gallery, num: int) -> list[int]:
    """The first seeds whose split leaves enough to learn from and to judge on. InputError, before the work begins, where none does."""
    pairs = ShardSet(gallery.shards)
    found: list[int] = []
    for seed in range(SEEDS_TRIED):
        held_out, num_train = Split(seed).ids(pairs, gallery.part), len(Split(seed).ids(pairs, "train"))
        groups = {pairs.groups[id] for id in held_out.tolist()}
        if num_train >= MIN_TRAINED and len(held_out) >= MIN_HELD_OUT and len(groups) > 1:
            found.append(seed)
            if len(held_out) < FEW_HELD_OUT:
                print(f"only {len(held_out)} pictures are held out: chance is high among so few, so read R@10 beside it", file=sys.stderr)
        if len(found) == num:
            return found
    if found:
        print(f"{len(found)} of the {num} splits asked for leave enough on both sides", file=sys.stderr)
        return found
    every = pairs.groups.distinct()
    if len(every) < 3:
        named = ", ".join(map(repr, sorted(every)))
        raise InputError(
            f"{gallery.shards}: its {len(pairs)} pairs are of {len(every)} groups ({named}), and a group is never cut apart. "
            "Pictures of one folder and one name but for numbers are a group: give them names that tell them apart"
        )
    num_train, num_held_out = len(Split().ids(pairs, "train")), len(Split().ids(pairs, gallery.part))
    raise InputError(
        f"{gallery.shards}: {len(pairs)} pairs, {num_train} to train on and {num_held_out} held out (part {gallery.part!r}). "
        f"The demo needs at least {MIN_TRAINED} and {MIN_HELD_OUT} (from at least two groups): give it more pictures, "
        "or remove the split column if it puts every pair in one split"
    )


def _own_source(data: Path, images: Path | None = None, table: Mapping[str, Any] | None = None) -> list[str | Path]:
    """Which source reads the user's data, and its settings, told by what lies there. table: options for reading captions or articles."""
    table = table or {}
    encoding = table.get("--encoding")
    from data_prep.lines import JSON_LINES
    from data_prep.sources._images import pictures_below
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
    num_tars = sum(1 for _ in data.glob(f"*{ARCHIVE_SUFFIX}"))
    if num_tars and not pictures_below(data):
        return ["img2dataset", "--input", data]
    if num_tars:
        print(f"{data}: its pictures are used, and its {ARCHIVE_SUFFIX} files ({num_tars}) are not", file=sys.stderr)
    return ["folder", "--input", data]


def _as_options(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield name
        yield from [] if isinstance(value, bool) else [value] if isinstance(value, str) else value


def _learn(
    galleries: Sequence[Gallery], output: Path, seed: int, is_first: bool, thumbnails: bool, lost: list[str], done: list[Command]
) -> list[Training]:
    """Every family on one split: the run itself, and its shuffled control. A family that cannot learn goes to `lost`, with the reason."""
    spaces, reasons = _fit_spaces(galleries[0].shards, output, seed, done)
    learnt: list[Training] = []
    for recipe in RECIPES:
        name = recipe.family if is_first else f"{recipe.family} (split {seed})"
        if recipe.space not in spaces:
            lost.append(f"{name}: {reasons[recipe.space]}")
            continue
        folder, space = _folder(output, recipe, seed, is_first), spaces[recipe.space]
        training = Training(
            recipe.family, recipe.experiment, folder, galleries[0].shards, space, space.name, galleries, seed, thumbnails=thumbnails
        )
        for one in (training, replace(training, folder=folder / "control", control=True)):
            try:
                _walk(done, one)
            except InputError as error:
                lost.append(f"{name}{', texts shuffled' if one.control else ''}: {error}")
                break
            learnt.append(one)
    return learnt


def _of_first_seed(trainings: Sequence[Training]) -> list[Training]:
    """Those of the first split from which any family could learn."""
    return [training for training in trainings if training.seed == trainings[0].seed]


def _fit_spaces(pairs: Path, output: Path, seed: int, done: list[Command]) -> tuple[dict[str, Path], dict[str, str]]:
    """The encoder, the two spaces that are fitted on the training part of this split, and their columns; and why one could not be made."""
    spaces: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    of_split: list[object] = ["--shards", pairs, "--split.seed", seed]
    for job, name, folder, settings in (
        ("encoder", "minilm", "minilm", []),
        ("topics", "lda40", f"lda40-seed{seed}", [*of_split, "--num-topics", 40]),
        ("wordllama", "wordllama", f"wordllama-seed{seed}", of_split),
    ):
        space = output / "spaces" / folder
        try:
            _attempt(done, "data-prep", "fit-text-space", job, *settings, "--output", space)
            _attempt(done, "data-prep", "make-columns", "--space", space, "--shards", pairs, "--name", folder, "--unit", "text")
        except InputError as error:
            reasons[name] = str(error)
        else:
            spaces[name] = space
    return spaces, reasons


def _learn_from_less(whole: Sequence[Training], gallery: Gallery, done: list[Command]) -> tuple[list[LearningCurve], list[str]]:
    """The first split's families trained on shares of the training pairs, judged in the same gallery; and why a share was not."""
    rows: dict[int, list[RetrievalRow]] = {}
    not_measured: list[str] = []
    nums = {training.recipe: _num_pairs(training) for training in whole}
    for share in (*SHARES, 1.0):
        if share * max(nums.values()) < MIN_IN_SHARE and share < 1:
            not_measured.append(f"{share:g} of the training pairs are less than {MIN_IN_SHARE}")
            continue
        for training in whole:
            part = training
            if share < 1:
                folder = training.folder / f"share{share:g}"
                part = replace(
                    training, folder=folder, galleries=[gallery], thumbnails=False, settings=("--data.train_share", f"{share:g}")
                )
                try:
                    _walk(done, part)
                except InputError as error:
                    not_measured.append(f"{training.recipe} on {share:g} of the training pairs ({error})")
                    continue
            rows.setdefault(_num_pairs(part), []).extend(read_rows([figures(part, gallery, "retrieval")], RetrievalRow)[0])
    return [curve for curve in learning_curves_of(rows) if len(curve.num_pairs) > 1], not_measured


def _num_pairs(training: Training) -> int:
    return read_manifest(training.folder / "run", "run").counts["pairs"]


def _without_words(trainings: Sequence[Training]) -> list[str]:
    """A sentence for each family that could not use all of its training pairs, as its text space knows no word of theirs."""
    counts = {training.recipe: read_manifest(training.folder / "run", "run").counts for training in trainings}
    return [
        f"{recipe}: {num:,} of {of['pairs']:,} training pairs have no word that its text space knows, and taught it nothing."
        for recipe, of in counts.items()
        if (num := of.get("pairs_without_words", 0))
    ]


def _walk(done: list[Command], training: Training) -> None:
    for command in commands(training):
        _attempt(done, *command)


def _folder(output: Path, recipe: Recipe, seed: int, is_first: bool) -> Path:
    return output / recipe.family if is_first else output / f"seed{seed}" / recipe.family


def _own_queries(pairs: ShardSet, num_words: int = 8) -> list[str]:
    """Words, sums and differences of words that many of the user's own texts use."""
    normaliser = Normaliser()
    used = Counter(word for id in range(len(pairs)) for word in set(normaliser.tokens(pairs.texts(id)[0])))
    words = [word for word, count in used.most_common(num_words) if count < len(pairs)]
    sums = [f"{first} + {second}" for first, second in zip(words, words[1:], strict=False)][:4]
    differences = [f"{first} - {second}" for first, second in zip(words, words[1:], strict=False)][:4]
    return [*words[:3], *sums, *differences, *([f"image:0 + {words[0]}"] if words else [])]


def _answers(first: Sequence[Training], queries: Sequence[str]) -> list[Answered]:
    """What each family of the first split answers, shown in the terminal by the first texts, and on the page by pictures."""
    answers = []
    print("\nqueries (best three; the page shows the pictures)")
    for training in first:
        answers += ask(Store(training.folder / "store"), training.recipe, queries)
    for query in queries:
        print(f"  {query}")
        for answer in (answer for answer in answers if answer.query == query):
            found = " | ".join(_short(picture.text) for picture in answer.pictures[:3]) or answer.note
            print(f"    {answer.recipe:<12} {found}")
    return answers


def _short(text: str, width: int = 45) -> str:
    """The first sentence of a text, cut to fit three in a line."""
    return textwrap.shorten(text.split(".")[0], width, placeholder="…")


def _write(output: Path, report: Report, took_s: float) -> None:
    with atomic_write(output / "results.json") as file:
        file.write((json.dumps([row.as_json() for row in report.rows], indent=1) + "\n").encode())
    with atomic_write(output / "index.html") as file:
        file.write(render(report).encode())
    print(
        f"\nfigures: {output / 'results.json'}\npage:    {output / 'index.html'}\nthis run took {took_s / 60:.1f} minutes", file=sys.stderr
    )


def _step(done: list[Command], *command: object) -> None:
    """Run one command as a person would type it; the demo stops where it fails, and says what can be done about that."""
    typed = tuple(map(str, command))
    done.append(typed)
    try:
        run(typed)
    except SystemExit:
        print(
            "the demo stopped at this command. Options that its message names are options of that command: run it by hand with them, then "
            "the demo again, which takes what is there; or give the demo another --output",
            file=sys.stderr,
        )
        raise


def _attempt(done: list[Command], *command: object) -> None:
    """Run a command that one family alone needs. InputError where it cannot be done, which is that family's loss and not the demo's."""
    typed = tuple(map(str, command))
    done.append(typed)
    attempt(typed)
