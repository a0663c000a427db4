"""The tasks against slow loops over made captions, and their figures against slow loops over one query."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, permutations

import numpy as np
import pytest

from multimodal.evaluate.arithmetic_tasks import (
    FIGURES,
    MAX_IMPLIED,
    MAX_PICTURES,
    MAX_TOGETHER,
    MIN_BOTH,
    MIN_FRAMES,
    MIN_INSTEAD,
    MIN_LEFT_OUT,
    MIN_WITHOUT,
    TASKS,
    Query,
    Task,
    make_tasks,
    scores_of,
)
from multimodal.evaluate.concepts import Concept, Half, find_concepts, frequent, judge, shared_frames
from multimodal.search.grammar import parse

HALVES: tuple[Half, ...] = ("validation", "test")
ACTORS = "dog cat man woman boy girl baby bird".split()
PLACES = "beach street lake snow park road grass field".split()
COLOURS = "red blue green yellow pink brown white black".split()
NUM = 240


def captions(seed: int = 0) -> list[list[str]]:
    """Five captions of each picture of an actor in a place with a colour; each caption leaves something out, and some are wrong."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(NUM):
        actor, place, colour, wrong = (str(random.choice(words)) for words in (ACTORS, PLACES, COLOURS, ACTORS))
        before, after = (str(random.choice(words)) for words in (("a", "the", "one", "some", "this"), ("is", "sits", "stands", "waits")))
        every = [
            f"{before} {colour} {actor} {after} on the {place}",
            f"a {actor} {after} in {before} {place}",
            f"{before} {actor} near {colour} things and {before} {place} here",
            f"{before} {colour} thing on {before} {place} there",
            f"{before} {wrong} {after}",
        ]
        found.append(every)
    return found


TEXTS = captions()
NAMES = [f"{number}.jpg" for number in range(NUM)]
IDS = np.arange(NUM) * 3 + 5  # ids are not rows
ROW_OF = {int(id): row for row, id in enumerate(IDS)}
CONCEPTS = [Concept((word, f"{word}s")) for word in [*ACTORS, *PLACES, *COLOURS]]


def made(half: Half = "test") -> dict[str, Task]:
    return dict(make_tasks(TEXTS, NAMES, IDS, CONCEPTS, half))


def named(picture: int, word: str) -> int:
    """By how many captions."""
    return sum(bool({word, f"{word}s"} & set(text.split())) for text in TEXTS[picture])


def shows(picture: int, word: str) -> bool:
    return named(picture, word) >= 2


def lacks(picture: int, word: str) -> bool:
    return named(picture, word) == 0


def is_clear(picture: int, *words: str) -> bool:
    return all(shows(picture, word) or lacks(picture, word) for word in words)


def words_of(half: Half) -> list[str]:
    return [c.name for c in CONCEPTS if c.half == half and 8 <= sum(shows(picture, c.name) for picture in range(NUM)) <= 0.3 * NUM]


@pytest.mark.parametrize("half", HALVES)
def test_both_asks_for_pairs_that_are_seen_together_and_apart(half: Half) -> None:
    task, wanted = made(half)["both"], []
    for a, b in combinations(words_of(half), 2):
        together = [picture for picture in range(NUM) if shows(picture, a) and shows(picture, b)]
        rarer = min(sum(shows(picture, word) for picture in range(NUM)) for word in (a, b))
        if len(together) >= MIN_BOTH and len(together) <= MAX_IMPLIED * rarer:
            wanted.append((a, b))
            row = [query.words for query in task.queries].index((a, b))
            assert np.flatnonzero(task.relevant[row]).tolist() == together
            assert task.ranked[row].tolist() == [is_clear(picture, a, b) for picture in range(NUM)]
    assert [query.words for query in task.queries] == wanted
    assert len(wanted) > 3 and (task.leaks, task.kept) == (None, None)


@pytest.mark.parametrize("half", HALVES)
def test_without_asks_for_what_shows_a_where_b_is_absent(half: Half) -> None:
    task, wanted = made(half)["without"], []
    for a, b in permutations(words_of(half), 2):
        both = sum(shows(picture, a) and shows(picture, b) for picture in range(NUM))
        only = [shows(picture, a) and lacks(picture, b) for picture in range(NUM)]
        if both >= MIN_LEFT_OUT and sum(only) >= MIN_WITHOUT:
            wanted.append((a, b))
            row = [query.words for query in task.queries].index((a, b))
            assert task.relevant[row].tolist() == only
            assert task.ranked[row].tolist() == [is_clear(picture, a, b) for picture in range(NUM)]
            assert task.leaks is not None and task.leaks[row].tolist() == [shows(picture, b) for picture in range(NUM)]
            assert task.kept is not None and task.kept[row].tolist() == [shows(picture, a) for picture in range(NUM)]
    assert [query.words for query in task.queries] == wanted
    assert len(wanted) > 3


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.slow
def test_instead_keeps_the_rest_and_never_ranks_the_given_picture(half: Half) -> None:
    task, words = made(half)["instead"], words_of(half)
    frames = shared_frames(TEXTS, [Concept((word, f"{word}s")) for word in words])
    wanted: dict[tuple[str, ...], list[int]] = {}
    for (at, a), (bt, b) in permutations(enumerate(words), 2):
        together = sum(shows(picture, a) and shows(picture, b) for picture in range(NUM))
        rarer = min(sum(shows(picture, word) for picture in range(NUM)) for word in (a, b))
        if frames[at, bt] < MIN_FRAMES or together > MAX_TOGETHER * rarer:
            continue
        for r in words:
            given = [picture for picture in range(NUM) if shows(picture, a) and lacks(picture, b) and shows(picture, r)]
            right = [picture for picture in range(NUM) if lacks(picture, a) and shows(picture, b) and shows(picture, r)]
            if r not in (a, b) and given and len(right) >= MIN_INSTEAD:
                wanted[a, b, r] = given
    asked = defaultdict(list)
    assert task.leaks is not None and task.kept is not None
    for row, query in enumerate(task.queries):
        a, b, r = query.words
        assert query.picture is not None
        given = ROW_OF[query.picture]
        asked[query.words].append(given)
        for picture in range(NUM):
            right = lacks(picture, a) and shows(picture, b) and shows(picture, r)
            assert task.relevant[row, picture] == right
            assert task.ranked[row, picture] == (is_clear(picture, a, b, r) and picture != given)
            assert task.leaks[row, picture] == shows(picture, a)
            assert task.kept[row, picture] == shows(picture, r)
    assert asked.keys() == wanted.keys() and len(wanted) > 3
    for key, pictures in asked.items():
        assert set(pictures) <= set(wanted[key]) and len(set(pictures)) == len(pictures) == min(MAX_PICTURES, len(wanted[key]))


def test_the_caption_has_b_in_place_of_a() -> None:
    for query in made()["instead"].queries:
        a, b, _ = query.words
        original = next(text for text in TEXTS[ROW_OF[query.picture or 0]] if a in text.split())
        assert query.caption.split() == [b if word == a else word for word in original.split()]


def test_queries_are_written_as_one_asks_them() -> None:
    tasks = made()
    query = tasks["instead"].queries[0]
    assert query.wish == f"image:{query.picture} + {query.b} instead of {query.a}"
    assert query.difference == f"image:{query.picture} + {query.b} - {query.a}"
    query = tasks["without"].queries[0]
    assert (query.wish, query.difference) == (f"{query.a} without {query.b}", f"{query.a} - {query.b}")
    query = tasks["both"].queries[0]
    assert query.wish == query.difference == f"{query.a} + {query.b}"


def test_no_word_is_in_both_halves() -> None:
    used = [{word for task in made(half).values() for word in task.words} for half in HALVES]
    assert used[0] and used[1] and not used[0] & used[1]


def test_names_differ_in_one_word() -> None:
    """From `man running` to pictures with the words of `woman running`."""
    everyone = [f"{actor} {doing}" for doing in ("running", "cooking", "reading") for actor in ("man", "woman", "boy")]
    texts = [[name] for name in [*everyone, "running man", "man", "woman", "woman running fast"]]
    concepts = [Concept((word,)) for word in ("man", "woman", "boy")]
    tasks = {half: make_tasks(texts, [str(n) for n in range(len(texts))], np.arange(len(texts)), concepts, half, 1, 1.0) for half in HALVES}
    found = {}
    for half, of_half in tasks.items():
        task = of_half["instead"]
        assert task.leaks is not None and task.kept is not None
        for row, query in enumerate(task.queries):
            assert {Concept((word,)).half for word in query.words} == {half}
            assert query.picture is not None and not task.ranked[row, query.picture] and task.ranked[row].sum() == len(texts) - 1
            given = set(texts[query.picture][0].split())
            assert task.kept[row].tolist() == [given - {query.a} <= set(text.split()) for [text] in texts]
            assert task.leaks[row].tolist() == [query.a in text.split() for [text] in texts]
            found[query.picture, query.b] = np.flatnonzero(task.relevant[row]).tolist()
            assert query.caption == texts[query.picture][0].replace(query.a, query.b)
    same_half = {(a, b) for a, b in permutations(("man", "woman", "boy"), 2) if Concept((a,)).half == Concept((b,)).half}
    wanted = {}
    for picture, [text] in enumerate(texts):
        for a, b in same_half:
            words = set(text.split())
            right = [other for other, [its] in enumerate(texts) if set(its.split()) == words - {a} | {b}]
            if a in words and right and len(words) > 1:
                wanted[picture, b] = right
    assert found == wanted and len(wanted) >= 6


@pytest.mark.parametrize("levels", [0, 4])
def test_figures_are_those_of_a_sorted_list(levels: int) -> None:
    random = np.random.default_rng(levels)
    for task in made().values():
        scores = random.integers(levels, size=task.ranked.shape) / 3 if levels else random.standard_normal(task.ranked.shape)
        found = task.figures(scores)
        for row in random.choice(len(task), size=min(len(task), 20), replace=False).tolist():

            def first_ten(marks: np.ndarray, is_wanted: bool, row: int = row, task: Task = task, scores: np.ndarray = scores) -> float:
                items = [(-scores[row, item], marks[row, item] == is_wanted) for item in np.flatnonzero(task.ranked[row])]
                return float(np.mean([is_last == is_wanted for _, is_last in sorted(items)][:10]))

            assert found.precision[row] == first_ten(task.relevant, True)
            assert task.leaks is None or found.leakage[row] == first_ten(task.leaks, False)
            assert task.kept is None or found.kept[row] == first_ten(task.kept, True)
        if task.name == "both":
            assert np.isnan(found.leakage).all() and np.isnan(found.kept).all()


def test_scores_that_know_the_captions_are_perfect_and_their_opposite_is_worst() -> None:
    for task in made().values():
        right, wrong = task.figures(task.relevant.astype(float)), task.figures(-task.relevant.astype(float))
        assert right.average_precision.tolist() == [1.0] * len(task)
        assert (wrong.average_precision < 0.5).all() and (task.leaks is None or right.leakage.max() < 1)
        assert (right.precision >= np.minimum(10, task.relevant.sum(axis=1)) / 10 - 1e-12).all()


def test_queries_of_one_combination_count_as_one() -> None:
    task = made()["instead"]
    values = np.random.default_rng(0).random(len(task))
    by_words = defaultdict(list)
    for query, value in zip(task.queries, values, strict=True):
        by_words[query.words].append(value)
    assert task.mean(values) == pytest.approx(np.mean([np.mean(some) for some in by_words.values()]))
    some = np.arange(len(task)) % 3 > 0
    assert task.only(some).mean(values[some]) == pytest.approx(
        np.mean([np.mean(part) for part in _grouped([q.words for q in task.only(some).queries], values[some])])
    )


def _grouped(keys: list[tuple[str, ...]], values: np.ndarray) -> list[list[float]]:
    found = defaultdict(list)
    for key, value in zip(keys, values.tolist(), strict=True):
        found[key].append(value)
    return list(found.values())


def test_the_order_of_pictures_is_irrelevant() -> None:
    order = np.random.default_rng(3).permutation(NUM)
    before = made()
    after = make_tasks([TEXTS[row] for row in order], [NAMES[row] for row in order], IDS[order], CONCEPTS, "test")
    for name, task in before.items():
        assert {(q.words, q.picture) for q in task.queries} == {(q.words, q.picture) for q in after[name].queries}  # type: ignore[index]


def test_words_come_from_the_texts_and_a_set_without_any_gives_no_queries() -> None:
    found = frequent(judge(TEXTS, find_concepts(TEXTS)))
    assert {*ACTORS, *PLACES, *COLOURS} & {concept.name for concept in found.concepts}
    for texts in ([["a"]] * 5, []):
        tasks = make_tasks(texts, [str(n) for n in range(len(texts))], np.arange(len(texts)), find_concepts(texts), "test")
        assert [len(task) for task in tasks.values()] == [0, 0, 0]
        for task in tasks.values():
            assert all(len(getattr(task.figures(np.zeros((0, len(texts)))), name)) == 0 for name in FIGURES)


def test_scores_of_asks_each_query_once_and_picks_the_rows() -> None:
    asked = []

    def system(query: str) -> np.ndarray:
        asked.append(query)
        return np.arange(5) + len(query)

    assert scores_of(system, ["ab", "c", "ab"], np.array([3, 1])).tolist() == [[5, 3], [4, 2], [5, 3]]
    assert asked == ["ab", "c"]


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        made()["both"].figures(np.zeros((1, 2)))


@pytest.mark.parametrize("name", ["man without hat", "without", "t-shirt", "a + b", "Instead"])
def test_a_concept_s_name_is_a_term_of_its_query_whatever_is_in_it(name: str) -> None:
    for task in TASKS:
        query = Query(task, (name, "dog"), picture=7 if task == "instead" else None)
        for written in (query.wish, query.difference):
            assert {term.content for term in parse(written).every_term} == {name, "dog", *(["7"] if task == "instead" else [])}
