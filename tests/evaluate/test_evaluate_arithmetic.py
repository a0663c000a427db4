"""Systems side by side on made captions, and the verb with its files and table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from multimodal.cli import main
from multimodal.errors import InputError
from multimodal.evaluate import arithmetic_fit
from multimodal.evaluate.arithmetic import (
    BASELINES,
    FIELDS,
    Answered,
    ArithmeticRow,
    as_table,
    compare,
    evaluate,
    read_answered,
    system_of,
)
from multimodal.evaluate.arithmetic_fit import fit
from multimodal.evaluate.arithmetic_tasks import Figures, Task, make_tasks
from multimodal.evaluate.concepts import Half, find_concepts
from multimodal.evaluate.figures import queries_path
from multimodal.metrics import chance_average_precision, word_intervals
from multimodal.pairs import Pair
from multimodal.search.fusion import CalibratedProduct, default_fusion
from multimodal.search.grammar import parse
from multimodal.search.query import ScoreAll
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter
from multimodal.shards import ShardSet, ShardWriter, Split
from multimodal.text import Normaliser, Vocabulary
from multimodal.text.space import BoxedSpace
from multimodal.text.words import WordSpace

MakeStore = Callable[..., Store]
ACTORS = "dog cat man woman boy girl baby bird".split()
PLACES = "beach street lake snow park road grass field".split()
COLOURS = "red blue green yellow pink brown white black".split()
WORDS = tuple([*ACTORS, *PLACES, *COLOURS])
NUM, DIM = 300, 32
HALVES: tuple[Half, ...] = ("validation", "test")


def things(number: int) -> list[str]:
    random = np.random.default_rng(number)
    return [str(random.choice(words)) for words in (ACTORS, PLACES, COLOURS)]


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    path = tmp_path_factory.mktemp("arithmetic") / "set"
    frames = [*product(("a", "the", "some", "this"), ("is", "sits", "waits"))]
    with ShardWriter(path, pairs_per_shard=90) as writer:
        for number in range(NUM):
            actor, place, colour = things(number)
            before, after = frames[number % len(frames)]
            texts = (
                f'{before} {colour} {actor} {after} "here"',
                f"{before} {actor} {after} on {before} {place} there",
                f"{colour} {place}",
            )
            writer.write(Pair(f"{number}.png", b"unread", "png", texts, f"group {number}"))
    return ShardSet(path)


@pytest.fixture(scope="module")
def spaces() -> dict[str, BoxedSpace]:
    vectors = np.random.default_rng(0).standard_normal((len(WORDS), DIM)).astype(np.float32)
    few = Vocabulary(WORDS[2:], np.ones(len(WORDS) - 2, np.int64), NUM)
    every = Vocabulary(WORDS, np.ones(len(WORDS), np.int64), NUM)
    return {"wordvec": WordSpace(Normaliser(), every, vectors), "few": WordSpace(Normaliser(), few, vectors[2:])}


@pytest.fixture
def rows(spaces: dict[str, BoxedSpace]) -> np.ndarray:
    """Each picture is the sum of the vectors of its things."""
    return np.array([spaces["wordvec"].embed(things(number)).sum(axis=0) for number in range(NUM)])  # type: ignore[attr-defined]


@pytest.fixture
def store(make_store: MakeStore, captioned: ShardSet, rows: np.ndarray) -> Store:
    return make_store("store", of=captioned, rows=rows)


def tasks_of(shards: ShardSet) -> dict[str, Task]:
    texts = [shards.texts(id) for id in range(NUM)]
    return dict(make_tasks(texts, list(shards.names), np.arange(NUM), find_concepts(texts), "validation"))


def vector_sum(store: Store) -> Callable[[str], np.ndarray]:
    return system_of(ScoreAll(store, "sum"), NUM)


def compared(store: Store, shards: ShardSet, **others: Callable[[str], np.ndarray]) -> list[Answered]:
    return compare(tasks_of(shards), np.arange(NUM), vector_sum(store), others)  # type: ignore[arg-type]


@pytest.mark.parametrize("query", ["dog", '"dog beach"', "dog - beach", "image:7 + cat - dog", "2*dog + 0.5*image:3"])
def test_a_vector_sum_adds_the_cosines_of_its_terms(store: Store, query: str) -> None:
    rows = store.rows.astype(np.float64) / np.linalg.norm(store.rows.astype(np.float64), axis=1, keepdims=True)
    wanted, total = np.zeros(NUM), np.zeros(store.dim)
    for term in parse(query).terms:
        vector = rows[int(term.content)] if term.kind == "image" else store.query_space.embed([term.content])[0].astype(np.float64)
        wanted += term.weight * (rows @ vector) / np.linalg.norm(vector)
        total += term.weight * vector / np.linalg.norm(vector)
    length = np.linalg.norm(total)
    assert vector_sum(store)(query) == pytest.approx(wanted / length, abs=1e-5)


def test_a_query_that_cancels_finds_nothing(store: Store) -> None:
    assert vector_sum(store)('"dog" - "dog dog"').tolist() == [0] * NUM
    assert vector_sum(store)("zxqv").tolist() == [0] * NUM


def test_phrases_that_are_embedded_together_score_as_alone(store: Store) -> None:
    together = ScoreAll(store, "sum")
    together.embed(["dog beach", "cat"])
    assert together('"dog beach"').tolist() == ScoreAll(store, "sum")('"dog beach"').tolist()


def test_equal_pictures_tie(make_store: MakeStore, captioned: ShardSet, rows: np.ndarray) -> None:
    equal = make_store("equal", of=captioned, rows=np.tile(rows[:1], (NUM, 1)))
    assert len(set(vector_sum(equal)("dog - beach").tolist())) == 1


def test_each_task_has_its_baseline_first_and_differences_from_it(store: Store, captioned: ShardSet) -> None:
    answered = compared(store, captioned)
    systems = {name: [one.system for one in answered if one.task == name] for name in BASELINES}
    assert systems == {
        "both": ["best single", "sum", "phrase"],
        "without": ["a alone", "sum", "phrase"],
        "instead": ["picture alone", "sum", "caption"],
    }
    for one in answered:
        base = next(other for other in answered if (other.task, other.system) == (one.task, BASELINES[one.task]))
        for name in ("precision", "average_precision"):
            assert one.figures[f"{name}_over"].tolist() == (one.figures[name] - base.figures[name]).tolist()
    better = {(one.task, one.system): one.mean(one.figures["average_precision_over"]) for one in answered}
    assert better["both", "sum"] > 0.1 and better["instead", "sum"] > 0.1  # rows are sums of words, so sums find them


def test_the_best_single_term_is_the_higher_figure_of_both_words(store: Store, captioned: ShardSet) -> None:
    task, [best, *_] = tasks_of(captioned)["both"], compared(store, captioned)
    vectors = vector_sum(store)
    for row, query in enumerate(task.queries):
        alone = [task.figures(np.tile(vectors(word), (len(task), 1))) for word in query.words]
        assert best.figures["precision"][row] == max(one.precision[row] for one in alone)
        assert best.figures["average_precision"][row] == max(one.average_precision[row] for one in alone)
        assert best.queries[row] == f'"{query.a}" | "{query.b}"'


def test_other_systems_are_asked_the_wish_and_may_have_their_own_order_of_pictures(store: Store, captioned: ShardSet) -> None:
    order, asked, vectors = np.random.default_rng(1).permutation(NUM), set(), vector_sum(store)
    place = np.argsort(order)  # of picture i among the system's

    def mine(query: str) -> np.ndarray:
        asked.add(query)
        return vectors(query.replace("without", "-").replace("instead of", "-"))[order]

    tasks = tasks_of(captioned)
    answered = compare(tasks, place, lambda query: vectors(query)[order], {"mine": mine})  # type: ignore[arg-type]
    wishes = {query.wish for task in tasks.values() for query in task.queries}
    assert asked == wishes | {f'"{query.a}"' for query in tasks["without"].queries}
    by_name = {(one.task, one.system): one for one in answered}
    for name in BASELINES:
        for field in FIELDS:
            assert np.array_equal(by_name[name, "mine"].figures[field], by_name[name, "sum"].figures[field], equal_nan=True)


def row_of(one: Answered, seed: int = 0) -> ArithmeticRow:
    return ArithmeticRow.of(one, "made", "wordvec", "unseen", "validation", seed=seed)


def test_a_row_has_means_over_combinations_intervals_over_words_and_chance(store: Store, captioned: ShardSet) -> None:
    one = next(one for one in compared(store, captioned) if (one.task, one.system) == ("instead", "sum"))
    row = row_of(one)
    units = sorted(set(one.units.tolist()))
    means = np.array([one.figures["precision"][one.units == unit].mean() for unit in units])
    assert row.precision_10 == pytest.approx(100 * means.mean(), abs=0.005)
    assert (row.num_queries, row.num_units) == (len(one), len(units)) and row.num_queries > row.num_units
    numbers = {word: number for number, word in enumerate(sorted({word for words in one.words for word in words}))}
    words = np.array([[numbers[word] for word in one.words[one.units.tolist().index(unit)]] for unit in units])
    [(low, high)] = word_intervals(means[:, None], words)
    assert (row.precision_10_low, row.precision_10_high) == pytest.approx((100 * low, 100 * high), abs=0.005)
    chance = [chance_average_precision(m, r) for m, r in zip(one.num_ranked.tolist(), one.num_relevant.tolist(), strict=True)]
    of_units = [np.mean(np.array(chance)[one.units == unit]) for unit in units]
    assert row.chance_average_precision == pytest.approx(100 * np.mean(of_units), abs=0.005)


def test_random_scores_are_at_chance(store: Store, captioned: ShardSet) -> None:
    random = np.random.default_rng(0)
    answered = compared(store, captioned, random=lambda query: random.random(NUM))
    for row in map(row_of, answered):
        if row.system == "random":
            assert abs(row.mean_average_precision - row.chance_average_precision) < 3
            assert abs(row.precision_10 - row.chance_precision_10) < 3


def test_the_verb_writes_what_its_table_is_made_from(
    store: Store, captioned: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    rows = evaluate(store.path, captioned.path, part="all", half="validation", recipe="mine", control=True, output=output)
    printed = capsys.readouterr().out.rstrip("\n")
    answered = read_answered(output)
    again = [ArithmeticRow.from_json(values) for values in json.loads(output.read_text())]
    assert again == rows and as_table(again, answered) == printed
    assert "mine shuffled" in printed and "chance mAP" in printed
    table = pq.read_table(queries_path(output)).to_pylist()
    assert len(table) == sum(map(len, answered))
    line = next(line for line in table if (line["task"], line["system"]) == ("without", "sum"))
    a, b = line["words"]
    assert (line["query"], line["picture"]) == (f"{a} - {b}", None)
    assert [one.system for one in answered] == [row.system for row in rows]
    with pytest.raises(InputError, match="is missing"):
        read_answered(tmp_path / "none.json")


def test_the_same_figures_come_from_the_command_line(store: Store, captioned: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(store.path, captioned.path, part="all")
    printed = capsys.readouterr().out
    assert main(["evaluate", "arithmetic", "--store", str(store.path), "--shards", str(captioned.path), "--part", "all"]) == 0
    assert capsys.readouterr().out == printed


def test_rows_that_differ_in_seed_are_one_line_with_words_drawn_together(store: Store, captioned: ShardSet) -> None:
    one = next(one for one in compared(store, captioned) if (one.task, one.system) == ("without", "sum"))
    worse = replace(one, figures={name: values - 0.1 for name, values in one.figures.items()})
    rows = [row_of(one, 0), row_of(worse, 1)]
    [header, line] = as_table(rows, [one, worse]).splitlines()
    assert f"{min(r.mean_average_precision for r in rows):.1f}..{max(r.mean_average_precision for r in rows):.1f} of 2" in line
    half = 0.05
    shifted = replace(one, figures={name: values - half for name, values in one.figures.items()})
    [_, alone] = as_table([row_of(shifted)], [shifted]).splitlines()
    assert line.split("[")[1:] == alone.split("[")[1:]  # the intervals of the mean over seeds
    assert len(as_table([rows[0], replace(rows[1], control=True)], [one, worse]).splitlines()) == 3
    assert "seeds" in header
    with pytest.raises(ValueError, match="one for each row"):
        as_table(rows, [one])


def test_words_that_the_space_does_not_know_are_left_out_and_counted(
    make_store: MakeStore, captioned: ShardSet, rows: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    few = make_store("few", family="few", of=captioned, rows=rows)
    output, said = few.path.parent / "figures.json", ""
    for half in HALVES:
        evaluate(few.path, captioned.path, part="all", half=half, output=output)
        said += capsys.readouterr().err
        assert not {word for one in read_answered(output) for words in one.words for word in words} & set(WORDS[:2])
    assert all(word in said for word in WORDS[:2]) and "Queries left out: " in said


def test_concepts_of_a_file_are_the_only_ones(store: Store, captioned: ShardSet, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join([*ACTORS[2:], *PLACES]))
    output = tmp_path / "figures.json"
    evaluate(store.path, captioned.path, part="all", half="validation", concepts=words, output=output)
    used = {word for one in read_answered(output) for of_one in one.words for word in of_one}
    assert used and used <= {*ACTORS[2:], *PLACES}


def test_too_few_pictures_are_refused(store: Store, captioned: ShardSet) -> None:
    with pytest.raises(InputError, match="give no query"):
        evaluate(store.path, captioned.path, part="all", min_pictures=NUM)


def test_pictures_that_are_not_in_the_store_are_left_out(make_store: MakeStore, captioned: ShardSet, rows: np.ndarray) -> None:
    less = make_store("less", of=captioned, rows=rows, without=(0, 5, 100))
    found = evaluate(less.path, captioned.path, part="all")
    assert {row.num_pictures for row in found} == {NUM - 3}
    held_out = evaluate(less.path, captioned.path, part="test", split=Split(held_out=0.6))
    assert {row.num_pictures for row in held_out} == {len(np.setdiff1d(Split(held_out=0.6).ids(captioned, "test"), [0, 5, 100]))}


def test_rows_of_figures_are_read_by_their_keys(store: Store, captioned: ShardSet, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    evaluate(store.path, captioned.path, part="all", output=output)
    values = json.loads(output.read_text())[0]
    assert {"P@10", "mAP", "leakage@10", "kept@10", "chance_P@10", "chance_mAP", "mAP_over", "mAP_over_low"} <= values.keys()
    assert values["leakage@10"] is None  # of both


# -- constants chosen on validation words --------------------------------------------------------------------------------------------------


def scored(store: Store, shards: ShardSet, fusion: CalibratedProduct) -> dict[str, Figures]:
    """What the tasks' wishes find with a way of combining terms, asked one by one."""
    ask = ScoreAll(store, fusion)
    return {name: task.figures(np.array([ask(query.wish) for query in task.queries])) for name, task in tasks_of(shards).items()}


@pytest.mark.slow
def test_each_constant_is_the_one_that_serves_its_task_best(store: Store, captioned: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic_fit, "MAX_QUERIES", 10**6)
    tasks = tasks_of(captioned)
    fitted = fit(store, np.arange(NUM), tasks)  # type: ignore[arg-type]

    def of(task: str, figure: str, fusion: CalibratedProduct) -> float:
        return tasks[task].mean(getattr(scored(store, captioned, fusion)[task], figure))

    best = max(
        of("both", "average_precision", replace(fitted.fusion, sharpness=sharpness, centred=centred))
        for sharpness in arithmetic_fit.SHARPNESS
        for centred in (True, False)
    )
    assert of("both", "average_precision", fitted.fusion) == pytest.approx(best, abs=1e-9)
    alone = ScoreAll(store, "sum")
    leaks = tasks["without"].figures(np.array([alone(f'"{query.a}"') for query in tasks["without"].queries])).leakage
    limit = arithmetic_fit.MAX_LEAKAGE * tasks["without"].mean(leaks)
    ways = [replace(fitted.fusion, absence=absence) for absence in arithmetic_fit.ABSENCE]
    served = [(of("without", "leakage", way), of("without", "precision", way)) for way in ways]
    allowed = [precision for leakage, precision in served if leakage <= limit]
    chosen = served[arithmetic_fit.ABSENCE.index(fitted.fusion.absence)]
    assert chosen[1] == pytest.approx(max(allowed), abs=1e-9) if allowed else chosen == served[-1]
    near = [of("instead", "average_precision", replace(fitted.fusion, picture=picture)) for picture in arithmetic_fit.PICTURE]
    assert of("instead", "average_precision", fitted.fusion) == pytest.approx(max(near), abs=1e-9)
    assert fitted.figures["both"]["mAP"] == pytest.approx(100 * best, abs=0.006)


def test_a_constant_without_enough_queries_stays_and_so_does_the_template(store: Store, captioned: ShardSet) -> None:
    with StoreWriter(store.path) as writer:
        writer.calibrate("{} dog")
    kept = Store(store.path)
    none = {name: task.only(np.zeros(len(task), bool)) for name, task in tasks_of(captioned).items()}
    fitted = fit(kept, np.arange(NUM), none)  # type: ignore[arg-type]
    assert (fitted.template, fitted.fusion, fitted.figures) == ("{} dog", default_fusion("wordvec"), {})
    assert "so these are the defaults" in arithmetic_fit.describe(fitted)


def test_what_was_chosen_is_kept_in_the_store_and_searched_with(
    store: Store, captioned: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluate(store.path, captioned.path, part="all", fit=True)
    kept = Store(store.path)
    chosen = fit(store, np.arange(NUM), tasks_of(captioned))  # type: ignore[arg-type]
    assert (kept.fusion, kept.calibration.template) == (chosen.fusion, chosen.template)
    assert kept.fitted is not None and kept.fitted["figures"] == chosen.figures
    assert f"keeps {arithmetic_fit.describe(chosen)}" in capsys.readouterr().err
    assert rows == evaluate(store.path, captioned.path, part="all")
    assert {row.system for row in rows} >= {"product", "a alone, product"}
    with pytest.raises(InputError, match="would report what was chosen on"):
        evaluate(store.path, captioned.path, part="all", half="validation", fit=True)


def test_a_set_without_queries_writes_an_empty_file(store: Store, captioned: ShardSet, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("zebra\n")
    assert evaluate(store.path, captioned.path, part="all", concepts=words, fit=True, output=tmp_path / "figures.json") == []
    assert json.loads((tmp_path / "figures.json").read_text()) == []
