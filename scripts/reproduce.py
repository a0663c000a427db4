"""From files to figures on real photographs, on real articles, and from no labels at all: a table, results.json and a page.

    python scripts/reproduce.py flickr8k --data DIR --out runs/flickr8k --extra-texts articles.jsonl.gz
    python scripts/reproduce.py textbook --data DIR --out runs/textbook --extra-texts articles.jsonl.gz
    python scripts/reproduce.py scratch --data DIR --out runs/scratch --classes cifar10.npz

Every figure is printed by a command of the project, and the page lists them. What is whole is reused: the same line goes on where it was
stopped.
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

from data_prep.extra_texts import text_files
from multimodal.boxes import atomic_write
from multimodal.door import Verbs
from multimodal.door import run as run_door
from multimodal.errors import InputError
from multimodal.evaluate import classes, probe, retrieval
from multimodal.evaluate.figures import FigureRow, Found, align, lines_of, read_rows
from multimodal.evaluate.labelled import open_labelled
from multimodal.evaluate.page import render
from multimodal.evaluate.probe import ProbeRow
from multimodal.evaluate.report import Figure, HeatMap, Report, Table, ask, curves_of, failures_of, topics_of
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.road import Command, Gallery, Training, commands, figures, run, run_side_by_side
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
"""The network of the frozen trunk with the weights that it starts from; one draw for all seeds."""


@dataclass(frozen=True, slots=True)
class Space:
    """A text space and its column. job: of `data-prep fit-text-space`, with options. seeded: whether another seed makes another one."""

    name: str
    job: tuple[str, ...]
    seeded: bool = False

    def column(self, seed: int) -> str:
        return f"{self.name}-seed{seed}" if self.seeded else self.name


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table: a shipped recipe, the space that its text side reads, and what it has otherwise.

    shown: with every figure and with its pictures; others have a line in the grid.
    """

    recipe: str
    experiment: str
    space: Space
    settings: tuple[str, ...] = ()
    shown: bool = True


TABLES = "results.txt"
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
    """Photographs with five captions each, searched by single captions: every family, beside shuffled texts, a random trunk and chance.

    Args:
        data: the folder with captions.tsv (columns file, split, caption) and the pictures, or tars of them.
        out: where everything goes; the page is index.html there, the figures are results.json.
        extra_texts: more documents to fit Word2Vec on, besides the captions that are trained on (see data-prep fit-text-space).
        seeds: how often each run is repeated; the split is the source's own.
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
        doc2vec = Space("doc2vec", ("doc2vec", "--dim", "200"), seeded=True)  # of the captions alone: articles take it ten minutes
        cells += _grid(wordllama, word2vec, doc2vec, topics)
    protocols = {"retrieval": ("retrieval", "--queries", "all")}
    study = Study(out, ("captions", str(data / "captions.tsv")), "dev", "text", cells, {"": protocols}, range(seeds), FLICKR_TERMS)
    _write(study, "Flickr8k: photographs found by what people wrote under them", PHOTO_QUERIES, study.walk())


def textbook(data: Path, out: Path, extra_texts: Path | None = None, seeds: int = 3) -> None:
    """Illustrations and the articles around them: pictures find articles of their subject, and articles pictures.

    Args:
        data: the folder with articles.jsonl.gz (id, title, text, subject, images) and the pictures, or tars of them.
        out: where everything goes; the page is index.html there, the figures are classes.json and results.json.
        extra_texts: more documents to fit topics on, besides the articles that are trained on (see data-prep fit-text-space).
        seeds: how many splits to repeat it on; an article is on one side of each.
    """
    extra = () if extra_texts is None else ("--extra-texts", str(extra_texts))
    topics = Space("lda40", ("topics", "--num-topics", "40", *TOPICS_OF_ARTICLES, *extra), seeded=True)
    cells = [
        Cell("topic", "experiment/textbook_topic.yaml", topics),
        Cell("wordvec", "experiment/textbook_wordvec.yaml", Space("wordllama", ("wordllama", *extra), seeded=True)),
        Cell("contrastive", "experiment/textbook_contrastive.yaml", MINILM),
    ]
    # Not retrieval: the figures of one article share its text, so that none of them can be found by it.
    cosine: dict[str, tuple[str, ...]] = {"classes": ("classes", "--label", "subject")}
    protocols = {"": cosine, "topic": {**cosine, "classes-kl": ("classes", "--label", "subject", "--distance", "kl")}}
    _check(seeds, extra_texts)
    study = Study(out, ("articles", str(data / "articles.jsonl.gz")), "test", "pair", cells, protocols, range(seeds), OPENSTAX_TERMS)
    _write(study, "Textbook: illustrations and articles of one subject find each other", SUBJECT_QUERIES, study.walk())


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared with what. source: of `data-prep make-shards`, and its input. part: of the set, to judge on. unit: of text columns.

    protocols: by family, "" for all others; see `Gallery.protocols`.
    terms: whose the pictures are, and what may be done with them.
    from_pixels: networks are trained whole, once a cell and seed, and where `control` asks, once more on shuffled texts; else heads on
        features, each with its controls.
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

    @property
    def shards(self) -> Path:
        return self.out / "shards"

    def walk(self, more: Mapping[str, Command] | None = None) -> list[Command]:
        """Run everything, and return the commands that were run. more: the name of a training, or of none -> what is run after it."""
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
            line += [(*embed, "--name", "trunk"), (*embed, "--name", "random", *RANDOM_TRUNK)]
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
        job, *options = space.job
        folder, shards = str(self.out / "spaces" / space.column(seed)), ("--shards", str(self.shards))
        of_seed = (*shards, "--split.seed", str(seed), *(("--seed", str(seed)) if job in SEEDED_JOBS else ())) if job != "encoder" else ()
        columns = ("--space", folder, *shards, "--name", space.column(seed), "--unit", self.unit)
        return [("data-prep", "fit-text-space", job, *of_seed, *options, "--output", folder), ("data-prep", "make-columns", *columns)]

    def trainings(self) -> Iterator[Training]:
        """Every cell with every seed: as it is, with texts shuffled between pictures, on a random trunk."""
        for cell in self.cells:
            protocols = self.protocols.get(cell.recipe.split(":")[0], self.protocols[""])
            gallery = Gallery("unseen", self.shards, self.part, stored=self.part, protocols=protocols)
            for seed in self.seeds:
                column = cell.space.column(seed)
                plain = Training(
                    recipe=cell.recipe,
                    experiment=cell.experiment,
                    folder=self.out / "runs" / _file_name(cell.recipe) / f"seed{seed}",
                    shards=self.shards,
                    space=self.out / "spaces" / column,
                    text=column,
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
                    if self.control and seed == self.seeds[0]:  # it costs as much as the run, so there is one
                        yield replace(plain, folder=plain.folder / "shuffled", control=True, thumbnails=False)
                    continue
                yield plain
                yield replace(plain, folder=plain.folder / "shuffled", control=True, thumbnails=False)
                # The preflight refuses what cannot be learnt, and from random weights it may be just that.
                unchecked = (*cell.settings, "--preflight.max_steps", "0")
                yield replace(plain, folder=plain.folder / "random", column="random", trunk="random", thumbnails=False, settings=unchecked)

    def files(self, protocol: str) -> list[Path]:
        """The figures of one protocol, of every training that it was asked of."""
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
    """A small network that learns from captions alone, from random weights, and how well classes are read off what it has learnt.

    Beside the three families stand the same network as it began, and a larger one with ImageNet's labels behind it.

    Args:
        data: the folder with captions.tsv (columns file, split, caption) and the pictures, or tars of them.
        out: where everything goes; the page is index.html there, the figures are probe.json and results.json.
        classes: labelled pictures to probe with (see multimodal evaluate probe); nothing trains on them.
        seeds: how often each run is repeated.
        families: which to train: contrastive, wordvec, topic.
        epochs: another number of them than the recipes have.
        control: also train each family once with texts shuffled between pictures, which takes as long as one seed more.
    """
    if unknown := set(families) - set(FAMILIES):
        raise InputError(f"--families {' '.join(sorted(unknown))}: there are {', '.join(FAMILIES)}")
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
    _write(study, "Pictures understood from captions alone, from random weights", PHOTO_QUERIES, done, probed)


def docs(runs: list[Path], page: Path = Path("docs/results.md")) -> None:
    """Put the tables of finished runs into the page of results: each replaces the block below the mark with its folder's name.

    Args:
        runs: folders that the other verbs have written.
        page: a Markdown file with marks such as <!-- flickr8k --> above blocks of three backticks.
    """
    text = page.read_text(encoding="utf-8")
    for study in runs:
        if not (study / TABLES).is_file():
            raise InputError(f"{study}: has no {TABLES}, which flickr8k, textbook or scratch write when they are done. Run that first")
        mark, table = f"<!-- {study.resolve().name} -->\n```\n", (study / TABLES).read_text(encoding="utf-8")
        before, found, after = text.partition(mark)
        if not found or "```" not in after:
            raise InputError(f"{page}: has no block of three backticks below a mark <!-- {study.resolve().name} -->, the folder's name")
        text = before + mark + table + after[after.index("```") :]
    _save(page, text)


def _probes(study: Study, classes: Path) -> dict[str, Command]:
    """By the name of the file of figures: every export, the networks they began as, and ImageNet's."""
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
    """Say what is wrong before the work begins."""
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: at least 1 is needed")
    if extra_texts is not None:
        text_files(extra_texts)


def _grid(wordllama: Space, word2vec: Space, doc2vec: Space, topics: Mapping[int, Space]) -> Iterator[Cell]:
    """Every family with every objective and text space that the five named recipes leave out."""
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
            _save(study.out / f"{name}.json", json.dumps([row.as_json() for row in kind], indent=1) + "\n")
    _save(study.out / TABLES, printed)
    _save(study.out / "index.html", render(report))


def _facts(study: Study, shards: ShardSet) -> list[str]:
    num_train = np.mean([len(Split(seed).ids(shards, "train")) for seed in study.seeds])
    num_judged = np.mean([len(Split(seed).ids(shards, study.part)) for seed in study.seeds])
    on_pixels = (
        "The networks began with random weights; no picture was labelled. The text sides of contrastive (a sentence encoder) and wordvec "
        "(word vectors) had been taught by other texts before; that of topic by these captions alone."
    )
    on_features = (
        "Linear heads on the frozen features of an ImageNet network; beside them the same runs with texts shuffled between pictures, and "
        "on the same network with random weights (one draw for all seeds)."
    )
    return [
        f"Trained on {num_train:,.0f} pictures with text, judged on {num_judged:,.0f} others; {len(study.seeds)} seeds. Queries, topics, "
        f"failures and curves are those of seed {study.seeds[0]}.",
        on_pixels if study.from_pixels else on_features,
        study.terms,
    ]


def grid_table(rows: Sequence[RetrievalRow], found: Sequence[Found]) -> Table:
    """Recall at 10 of every recipe, both ways, beside its controls; a line for the seeds together."""
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
    """Mean average precision by class, a line for the seeds together."""
    lines = []
    for line in lines_of(
        rows, found, lambda row: (row.recipe, row.trunk, row.direction, row.distance, row.control), lambda one: one.precision
    ):
        row = line.rows[0]
        dealt, chance = line.mean("dealt_average_precision"), line.mean("chance_average_precision")
        bar = Figure(line.mean("mean_average_precision"), dealt, *line.interval, family=row.family, mark="dealt")
        control = "texts shuffled" if row.control else "random weights" if row.trunk == "random" else ""
        lines.append(
            (f"{row.recipe} {control}".strip(), row.direction, row.distance, bar, f"{chance:.1f}", line.between("mean_average_precision"))
        )
    note = (
        f"Mean average precision, per cent: relevant is what has the same {rows[0].label}, of {rows[0].num_classes}. "
        "Beside it the 95 % interval over articles. The dark mark, dealt, is what the same rankings give when they are dealt to queries at "
        "random; chance, what a random order gives."
    )
    return Table(f"Finding by {rows[0].label}", note, ("recipe", "direction", "near by", "mAP", "chance", "over seeds"), lines)


def _probe_table(rows: Sequence[ProbeRow]) -> Table:
    """Accuracy of the probe: the mean over seeds, between the smallest and the largest; of one seed, its interval."""
    lines = []
    for what, size in dict.fromkeys((row.what, row.size) for row in rows):
        ours = [row for row in rows if (row.what, row.size) == (what, size)]
        linear = [row.linear for row in ours]
        low, high = (min(linear), max(linear)) if len(ours) > 1 else (ours[0].linear_low, ours[0].linear_high)
        knn = Figure(float(np.mean([row.knn for row in ours])), ours[0].chance)
        lines.append((what, f"{size}", Figure(float(np.mean(linear)), ours[0].chance, low, high, family=what), knn))
    note = (
        f"Classes of {rows[0].data} read off frozen features: {rows[0].num_train:,} pictures to learn them from, {rows[0].num_test:,} to "
        "be right on, per cent. A line of several seeds: the mean, smallest and largest."
    )
    return Table("What the trunk knows", note, ("trunk", "pixels", "linear probe", "nearest neighbours"), lines)


def _heat_maps(stores: Mapping[str, Store], shards: ShardSet, ids: np.ndarray) -> list[HeatMap]:
    """What each recipe takes for what, the pictures asking."""
    maps = []
    articles = {shards.groups[id]: shards.record(id)["metadata"]["subject"] for id in ids.tolist()}
    count = Counter(articles.values())
    for recipe, store in stores.items():
        confusion = classes.confusion(store, shards, ids, "subject")
        chance = np.array([count[name] / len(articles) for name in confusion.names])
        maps.append(HeatMap(f"Subjects, {recipe}", confusion, "subject of the picture", "subjects of the first ten articles", chance))
    return maps


def _save(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _slug(training: Training) -> str:
    return "-".join(training.folder.parts[-3:] if training.control or training.trunk == "random" else training.folder.parts[-2:])


def _file_name(recipe: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", recipe.lower()).strip("_")


VERBS: Verbs = {
    "flickr8k": ("__main__:flickr8k", "photographs with captions: families, objectives and text spaces, searched by single captions"),
    "textbook": ("__main__:textbook", "illustrations and articles find each other by subject"),
    "docs": ("__main__:docs", "put the tables of finished runs into docs/results.md"),
    "scratch": ("__main__:scratch", "a trunk from random weights that learns from captions alone, probed by classes"),
}

if __name__ == "__main__":
    sys.exit(run_door(VERBS, "reproduce.py"))
