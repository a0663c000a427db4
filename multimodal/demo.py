"""`multimodal demo`: the whole road on real pictures, through the real commands, from sources to a page with the results.

    multimodal demo                             # 3-D emoji with their keywords, searched in a drawing style never seen in training
    multimodal demo --data my_photos/           # the same on your own pictures
    multimodal demo --data articles.jsonl.gz    # on illustrations and the articles around them

Each step is a command that is printed as it runs, so you can run any of them again by hand. Finished steps are reused, so a stopped demo
continues. A family that cannot learn from these pairs is left out, and the page says why.
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
"""How many seeds to try for splits that leave enough pairs on both sides: a random fifth of 30 pictures may be a single one."""
VIEWS = 4
SHARES = (0.125, 0.25, 0.5)
"""Shares of the training pairs: the points of a learning curve, besides all of them."""
MIN_IN_SHARE = 16
"""The fewest pairs for a meaningful point of a learning curve."""
FOUND = {"retrieval": ("retrieval", "--directions", "text->image")}
ARCHIVE_SUFFIX = ".tar"


@dataclass(frozen=True, slots=True)
class Family:
    """One family of the demo: the shipped recipe that trains it, and the column that teaches it."""

    name: str
    experiment: str
    space: str


FAMILIES = (
    Family("contrastive", "experiment/contrastive_emoji.yaml", "minilm"),
    Family("wordvec", "experiment/wordvec_emoji.yaml", "wordllama"),
    Family("topic", "experiment/topic_emoji.yaml", "lda40"),
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

    Three families (contrastive, word vectors, topics) learn from the text alone, on features of a frozen network. Each is evaluated on
    held-out pictures, and compared with chance and with a control: the same training with texts shuffled across pictures.

    Args:
        data: your own pictures: a folder of images (their names, or a .txt beside each, as text); a file of captions (.tsv, .csv or
            .parquet with columns such as file and caption, .jsonl with such fields, .json of COCO or Karpathy, Flickr's token .txt);
            articles with illustrations (.jsonl or .jsonl.gz, objects with id, title, text, images); or a folder of img2dataset's tars.
            Without it, 3-D emoji with keywords are downloaded.
        images: the folder of images, or of tars of images, that captions or articles refer to; by default the folder of their file.
        output: folder for everything; the page is index.html there, the figures are results.json.
        seeds: number of splits to repeat everything on; the figures are their mean and spread.
        max_pairs: use only this many pairs, for a quick try.
        packages: a folder that holds the demo's npm packages already, so that nothing is downloaded.
        file_column: name of the picture column in a file of captions; by default the first usual name, such as file or image.
        caption_column: name of its caption column; by default the first usual name, such as caption or text.
        split_column: name of its column with the source's own split; by default `split` if there is one.
        columns: the names of all its columns, if it has no header line.
        encoding: the encoding of captions or articles, such as cp1251, if it cannot be detected.
        allow_outside: also use pictures outside the folder of images, if captions or articles refer to them.
        max_bad_share: continue if up to this share of the pictures is broken or has no text; by default as in make-shards and embed.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
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
        views = ["--views", VIEWS] if gallery.shards == pairs else []  # only training pictures need more than the centre crop
        _step(done, "multimodal", "embed", "--shards", gallery.shards, "--name", "trunk", *views, *allowed)

    trainings: list[Training] = []
    lost: list[str] = []
    for seed in splits:
        trainings += _learn(galleries, output, seed, is_first=seed == splits[0], thumbnails=not trainings, lost=lost, done=done)
    whole = [training for training in trainings if not training.control]
    if not whole:
        raise InputError(f"{pairs}: no family could learn from these pairs: {'; '.join(lost)}")
    first = _of_first_seed(whole)
    for training in first:  # how the terms of a query are combined, in the stores that people search
        store = ("--store", training.folder / galleries[0].store, "--shards", pairs, "--split.seed", training.seed)
        try:
            _attempt(done, "multimodal", "evaluate", "arithmetic", *store, "--part", "all", "--fit", "--recipe", training.recipe)
        except InputError as error:
            lost.append(f"{training.recipe}, constants of query arithmetic: {error}")
    learning, not_measured = ([], []) if data is None else _learn_from_less(first, galleries[0], done)

    files = [figures(training, gallery, "retrieval") for training in trainings for gallery in galleries]
    rows, found = read_rows(files, RetrievalRow)
    printed = as_table(rows, found)
    print(f"\n{printed}")
    for line in lost:
        print(f"left out: {line}", file=sys.stderr)
    queries = QUERIES if data is None else _own_queries(ShardSet(pairs))
    answers = _answers(first, queries)
    stores = {training.recipe: Store(training.folder / galleries[0].store) for training in first}
    shards, gallery = ShardSet(pairs), galleries[0]
    num_held_out = np.mean([row.num_pairs for row in rows if row.gallery == gallery.name])
    ids = Split(splits[0]).ids(shards, gallery.part)
    report = Report(
        title="Pictures found by the words they came with",
        facts=[
            f"{len(shards):,} pictures with text, about {num_held_out:.0f} of them held out of all fitting. "
            "Pairs of one group (such as the variants of one thing) are on the same side of the split.",
            "Linear heads learned from the text alone, on the frozen features of a network pretrained on ImageNet's labels.",
            *_without_words(first),
            *(f"Left out: {line}" for line in lost),
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
        raise InputError(f"--images {images}: needs --data with captions or articles that refer to these images")
    if table:
        raise InputError(f"{', '.join(table)}: needs --data with a file of captions")
    fluent, noto = output / "shards" / "fluent", output / "shards" / "noto"
    where = [] if packages is None else ["--packages", packages]
    _step(done, "data-prep", "make-shards", "fluent_emoji", *where, "--output", fluent, *limit)
    _step(done, "data-prep", "make-shards", "noto_emoji", *where, "--output", noto, *limit)
    # noto: the training things in another drawing style. Pairs are split by group, and a thing has the same group in both sets.
    return [Gallery("unseen", fluent, "test", protocols=FOUND), Gallery("noto", noto, "train", "store_noto", protocols=FOUND)]


def _held_out_part(pairs: ShardSet) -> str:
    """The split to evaluate on: "test", or the source's own development split if it publishes no test split."""
    own = sorted(name for name in pairs.splits.distinct() if name not in ("", "train"))
    return "test" if "test" in own or not own else own[0]


def _splits(gallery: Gallery, num: int) -> list[int]:
    """The first seeds whose split leaves enough pairs for training and for evaluation. InputError, before any work, if there is none."""
    pairs = ShardSet(gallery.shards)
    found: list[int] = []
    for seed in range(SEEDS_TRIED):
        held_out, num_train = Split(seed).ids(pairs, gallery.part), len(Split(seed).ids(pairs, "train"))
        groups = {pairs.groups[id] for id in held_out.tolist()}
        if num_train >= MIN_TRAINED and len(held_out) >= MIN_HELD_OUT and len(groups) > 1:
            found.append(seed)
            if len(held_out) < FEW_HELD_OUT:
                print(f"only {len(held_out)} pictures are held out: chance is high among so few, so compare R@10 with it", file=sys.stderr)
        if len(found) == num:
            return found
    if found:
        print(f"only {len(found)} splits instead of {num}: no others leave enough pairs on both sides", file=sys.stderr)
        return found
    every = pairs.groups.distinct()
    if len(every) < 3:
        named = ", ".join(map(repr, sorted(every)))
        raise InputError(
            f"{gallery.shards}: its {len(pairs)} pairs have only {len(every)} groups ({named}), and a group is never split. "
            "Pictures in one folder whose names differ only by a number are one group: give them distinct names"
        )
    num_train, num_held_out = len(Split().ids(pairs, "train")), len(Split().ids(pairs, gallery.part))
    raise InputError(
        f"{gallery.shards}: {len(pairs)} pairs, {num_train} to train on and {num_held_out} held out (split {gallery.part!r}). "
        f"The demo needs at least {MIN_TRAINED} and {MIN_HELD_OUT} (from at least two groups): give it more pictures, "
        "or remove the split column if it puts every pair in one split"
    )


def _own_source(data: Path, images: Path | None = None, table: Mapping[str, Any] | None = None) -> list[str | Path]:
    """The source for the user's data, and its settings, by what is in the path. table: options for reading captions or articles."""
    table = table or {}
    encoding = table.get("--encoding")
    from data_prep.files.lines import JSON_LINES
    from data_prep.sources._images import pictures_below
    from data_prep.sources.articles import holds_articles
    from data_prep.sources.captions import SUFFIXES

    if not data.exists():
        raise InputError(
            f"{data}: does not exist. --data takes a folder of images, a file of captions, a .jsonl of articles, or a folder of "
            "img2dataset's tars"
        )
    if data.is_file():
        if not data.name.lower().endswith(SUFFIXES):
            raise InputError(f"{data}: files of captions and articles end in {', '.join(SUFFIXES)}; for pictures, give their folder")
        is_lines = data.name.lower().endswith(JSON_LINES)
        source = "articles" if is_lines and holds_articles(data, encoding) else "captions"
        if source == "articles" and (others := [name for name in table if name not in ("--encoding", "--allow-outside")]):
            raise InputError(f"{data}: holds articles, whose field names are fixed; leave out {', '.join(others)}")
        where: list[str | Path] = [] if images is None else ["--images", images]
        return [source, "--input", data, *where, *_as_options(table)]
    if table:
        raise InputError(f"{', '.join(table)}: only for a file of captions, and {data} is a folder. Leave it out")
    if images is not None:
        raise InputError(f"--images {images}: only for a file of captions or articles, and {data} is a folder. Leave it out")
    num_tars = sum(1 for _ in data.glob(f"*{ARCHIVE_SUFFIX}"))
    if num_tars and not pictures_below(data):
        return ["img2dataset", "--input", data]
    if num_tars:
        print(f"{data}: uses its pictures, and ignores its {num_tars} {ARCHIVE_SUFFIX} files", file=sys.stderr)
    return ["folder", "--input", data]


def _as_options(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield name
        yield from [] if isinstance(value, bool) else [value] if isinstance(value, str) else value


def _learn(
    galleries: Sequence[Gallery], output: Path, seed: int, is_first: bool, thumbnails: bool, lost: list[str], done: list[Command]
) -> list[Training]:
    """Train every family on one split, and its shuffled control. A family that cannot learn goes to `lost`, with the reason."""
    spaces, reasons = _fit_spaces(galleries[0].shards, output, seed, done)
    trained: list[Training] = []
    for family in FAMILIES:
        name = family.name if is_first else f"{family.name} (split {seed})"
        if family.space not in spaces:
            lost.append(f"{name}: {reasons[family.space]}")
            continue
        folder, space = _folder(output, family, seed, is_first), spaces[family.space]
        training = Training(
            family.name, family.experiment, folder, galleries[0].shards, space, space.name, galleries, seed, thumbnails=thumbnails
        )
        for one in (training, replace(training, folder=folder / "control", control=True)):
            try:
                _walk(done, one)
            except InputError as error:
                lost.append(f"{name}{', texts shuffled' if one.control else ''}: {error}")
                break
            trained.append(one)
    return trained


def _of_first_seed(trainings: Sequence[Training]) -> list[Training]:
    """The trainings of the first split on which any family could learn."""
    return [training for training in trainings if training.seed == trainings[0].seed]


def _fit_spaces(pairs: Path, output: Path, seed: int, done: list[Command]) -> tuple[dict[str, Path], dict[str, str]]:
    """The encoder, the two spaces fitted on this split's training pairs, and their columns; and for those that failed, the reason."""
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
    """The first split's families trained on shares of the training pairs, evaluated in the same gallery; and why shares were skipped."""
    rows: dict[int, list[RetrievalRow]] = {}
    not_measured: list[str] = []
    nums = {training.recipe: _num_pairs(training) for training in whole}
    for share in (*SHARES, 1.0):
        if share * max(nums.values()) < MIN_IN_SHARE and share < 1:
            not_measured.append(f"{share:g} of the training pairs is fewer than {MIN_IN_SHARE} pairs")
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
    """A sentence for each family that could not use all training pairs, because its text space knows no word of some."""
    counts = {training.recipe: read_manifest(training.folder / "run", "run").counts for training in trainings}
    return [
        f"{recipe}: {num:,} of {of['pairs']:,} training pairs have no word that its text space knows, and were not used."
        for recipe, of in counts.items()
        if (num := of.get("pairs_without_words", 0))
    ]


def _walk(done: list[Command], training: Training) -> None:
    for command in commands(training):
        _attempt(done, *command)


def _folder(output: Path, family: Family, seed: int, is_first: bool) -> Path:
    return output / family.name if is_first else output / f"seed{seed}" / family.name


def _own_queries(pairs: ShardSet, num_words: int = 8) -> list[str]:
    """Queries for the user's own texts: frequent words, their sums and differences."""
    normaliser = Normaliser()
    used = Counter(word for id in range(len(pairs)) for word in set(normaliser.tokens("".join(pairs.texts(id)[:1]))))
    words = [word for word, count in used.most_common(num_words) if count < len(pairs)]
    sums = [f"{first} + {second}" for first, second in zip(words, words[1:], strict=False)][:4]
    differences = [f"{first} - {second}" for first, second in zip(words, words[1:], strict=False)][:4]
    return [*words[:3], *sums, *differences, *([f"image:0 + {words[0]}"] if words else [])]


def _answers(first: Sequence[Training], queries: Sequence[str]) -> list[Answered]:
    """Each family's answers on the first split; prints the texts of the first hits, while the page shows pictures."""
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
    """The first sentence of a text, cut so that three fit in a line."""
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
    """Run one command as if typed in a shell. If it fails, the demo stops and says what to do."""
    typed = tuple(map(str, command))
    done.append(typed)
    try:
        run(typed)
    except SystemExit:
        print(
            "the demo stopped at this command. Options in its error message are options of that command: run it by hand with them, then "
            "run the demo again, which reuses the result; or give the demo another --output",
            file=sys.stderr,
        )
        raise


def _attempt(done: list[Command], *command: object) -> None:
    """Run a command that only one family needs. InputError if it fails: then that family is left out, and the demo continues."""
    typed = tuple(map(str, command))
    done.append(typed)
    attempt(typed)
