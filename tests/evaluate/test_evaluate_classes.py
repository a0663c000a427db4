"""Retrieval by class against a slow loop over what the store holds, and what must hold of any such figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.classes import (
    ByClass,
    ClassRow,
    Confusion,
    as_table,
    confusion,
    distributions,
    evaluate,
    kl_sides,
    retrieve_classes,
)
from multimodal.evaluate.figures import Found, read_found
from multimodal.metrics import chance_average_precision
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards import ShardSet, ShardWriter, Split

MakeStore = Callable[..., Store]
NUM, NUM_ARTICLES, NUM_TOPICS = 72, 24, 4
IDS = np.arange(NUM)
NAMES = ("animals", "nature", "people", "things")


@pytest.fixture(scope="session")
def mixtures() -> np.ndarray:
    """(72, 4) a mixture of topics for each picture, no two alike."""
    return np.random.default_rng(0).dirichlet(np.full(NUM_TOPICS, 0.5), size=NUM)


def precisions_by_loop(store: Store, articles: ShardSet, near: Callable[[np.ndarray, np.ndarray], float]) -> list[list[float]]:
    """The average precision of each picture, and of each article in the order of their groups, by scikit-learn."""
    metrics = pytest.importorskip("sklearn.metrics")
    subjects = np.array([articles.record(id)["metadata"]["subject"] for id in range(NUM)])
    firsts = [articles.groups[id] for id in range(NUM)]
    first = [firsts.index(group) for group in sorted(set(firsts))]
    texts = store.query_space.embed([articles.texts(id)[0] for id in first]).astype(np.float64)
    pictures = store.take(IDS).astype(np.float64)
    scores = np.array([[near(text, picture) for text in texts] for picture in pictures])
    return [
        [metrics.average_precision_score(subjects[first] == subject, line) for subject, line in zip(subjects, scores, strict=True)],
        [metrics.average_precision_score(subjects == subject, line) for subject, line in zip(subjects[first], scores.T, strict=True)],
    ]


def found_in(store: Store, shards: ShardSet, ids: np.ndarray, distance: str) -> list[Found]:
    """What is found by subject, in both directions."""
    return [one.found for one in retrieve_classes(store, shards, ids, "subject", distance=distance)]  # type: ignore[arg-type]


def cosine(text: np.ndarray, picture: np.ndarray) -> float:
    return float(text @ picture / np.linalg.norm(text) / np.linalg.norm(picture))


def minus_kl(text: np.ndarray, picture: np.ndarray) -> float:
    stats = pytest.importorskip("scipy.stats")
    return -float(stats.entropy(text, picture))  # scales both to a sum of one


@pytest.mark.parametrize(("distance", "near"), [("cosine", cosine), ("kl", minus_kl)])
def test_average_precision_is_that_of_a_slow_loop(
    make_store: MakeStore, articles: ShardSet, mixtures: np.ndarray, distance: str, near: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    store = make_store("store", family="topic", of=articles, rows=mixtures)
    found = found_in(store, articles, IDS, distance)
    assert [one.direction for one in found] == ["image->article", "article->image"]
    assert [(len(one), one.num_gallery) for one in found] == [(NUM, NUM_ARTICLES), (NUM_ARTICLES, NUM)]
    for one, expected in zip(found, precisions_by_loop(store, articles, near), strict=True):
        assert one.precision.tolist() == pytest.approx(expected)
    assert {tuple(one.num_relevant) for one in found} == {(6,) * NUM, (18,) * NUM_ARTICLES}


def test_kl_and_cosine_are_two_ways_to_be_near(make_store: MakeStore, articles: ShardSet, mixtures: np.ndarray) -> None:
    store = make_store("store", family="topic", of=articles, rows=mixtures)
    by_cosine, by_kl = (found_in(store, articles, IDS, distance)[0] for distance in ("cosine", "kl"))
    assert by_cosine.precision.tolist() != by_kl.precision.tolist()


@pytest.mark.parametrize(("family", "distance"), [("wordvec", "cosine"), ("topic", "cosine"), ("topic", "kl")])
def test_pictures_at_the_articles_of_their_class_are_perfect(make_store: MakeStore, tmp_path: Path, family: str, distance: str) -> None:
    words = {"animals": ("dog", "cat"), "nature": ("tree", "river")}
    with ShardWriter(tmp_path / "plain") as writer:
        for number in range(12):
            subject = list(words)[number % 2]
            text = " ".join(words[subject][:: 1 if number < 6 else -1])  # articles of a class have the same words
            writer.write(Pair(f"{number}.png", b"unread", "png", (text,), f"article {number}", metadata={"subject": subject}))
    plain = ShardSet(tmp_path / "plain")
    for one in found_in(make_store("store", family=family, of=plain), plain, np.arange(12), distance):
        assert one.precision.tolist() == [1.0] * 12 and one.first.tolist() == [1] * 12


@pytest.mark.parametrize("distance", ["cosine", "kl"])
def test_pictures_unrelated_to_their_article_score_as_the_same_rankings_permuted(
    make_store: MakeStore, articles: ShardSet, distance: str
) -> None:
    means, permuted, chances = [], [], []
    for seed in range(12):
        rows = np.random.default_rng(seed).dirichlet(np.ones(NUM_TOPICS), size=NUM)
        store = make_store(f"store {seed}", family="topic", of=articles, rows=rows)
        judged = retrieve_classes(store, articles, IDS, "subject", distance=distance)  # type: ignore[arg-type]
        means.append([one.found.precision.mean() for one in judged])
        permuted.append([one.permuted for one in judged])
        chances.append([chance_average_precision(one.found.num_gallery, one.found.num_relevant) for one in judged])
    assert np.mean(means, axis=0) == pytest.approx(np.mean(permuted, axis=0), abs=0.015)
    assert np.mean(permuted, axis=0)[0] > np.mean(chances, axis=0)[0] + 0.02  # articles of a class are near each other
    assert np.mean(permuted, axis=0)[1] == pytest.approx(np.mean(chances, axis=0)[1], abs=0.02)  # these pictures are random


def test_the_order_of_the_ids_does_not_matter(make_store: MakeStore, articles: ShardSet, mixtures: np.ndarray) -> None:
    store, order = make_store("store", family="topic", of=articles, rows=mixtures), np.random.default_rng(1).permutation(NUM)
    for before, after in zip(
        found_in(store, articles, IDS, "kl"),
        found_in(store, articles, order, "kl"),
        strict=True,
    ):
        by_group = [sorted(zip(one.groups.tolist(), one.precision.tolist(), one.first.tolist(), strict=True)) for one in (before, after)]
        assert by_group[0] == by_group[1]


def test_an_article_of_which_no_word_is_known_comes_last_and_finds_nothing_first(make_store: MakeStore, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "some") as writer:
        for number, (text, subject) in enumerate([("dog", "a"), ("zxqv", "a"), ("tree", "b"), ("river", "b")]):
            writer.write(Pair(f"{number}.png", b"unread", "png", (text,), f"article {number}", metadata={"subject": subject}))
    some = ShardSet(tmp_path / "some")
    rows = np.random.default_rng(2).dirichlet(np.ones(NUM_TOPICS), size=4)
    to_article, to_image = found_in(make_store("store", family="topic", of=some, rows=rows), some, np.arange(4), "kl")
    for picture in (0, 1):  # of its class there is one with a word that is known, and then the other at place 4
        assert to_article.precision[picture] == pytest.approx((1 / to_article.first[picture] + 2 / 4) / 2)
    assert (to_image.first[1], to_image.precision[1]) == (3, pytest.approx((1 / 3 + 2 / 4) / 2))  # everything ties, and ties count against


def test_kl_is_that_of_the_equation_and_rows_of_a_store_are_distributions_again() -> None:
    generator = np.random.default_rng(3)
    target, estimate = generator.dirichlet(np.full(5, 0.3), size=7), generator.dirichlet(np.full(5, 0.3), size=4)
    target[0] = [0.5, 0.5, 0, 0, 0]
    left, right = kl_sides(target, estimate)
    by_hand = [[sum(t * np.log(t / i) for t, i in zip(a, b, strict=True) if t > 0) for b in estimate] for a in target]
    assert np.allclose(-left @ right.T, by_hand)
    kept = (estimate / np.linalg.norm(estimate, axis=1, keepdims=True)).astype(np.float16)
    assert np.allclose(distributions(kept), estimate, atol=1e-3)
    assert np.allclose(distributions(kept).sum(axis=1), 1)


def test_a_share_that_float16_rounds_to_nothing_leaves_every_divergence_finite(make_store: MakeStore, articles: ShardSet) -> None:
    rows = np.full((NUM, NUM_TOPICS), 1e-9)
    rows[np.arange(NUM), np.arange(NUM) % NUM_TOPICS] = 1
    store = make_store("store", family="topic", of=articles, rows=rows)
    assert (store.take(IDS) == 0).any()
    for one in found_in(store, articles, IDS, "kl"):
        assert np.isfinite(one.precision).all() and (one.first <= one.num_gallery).all()


def test_evaluate_prints_the_table_and_writes_the_rows_and_what_each_query_found(
    make_store: MakeStore, articles: ShardSet, tmp_path: Path, mixtures: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    store, output = make_store("store", family="topic", of=articles, rows=mixtures, without=(3,)), tmp_path / "classes.json"
    split = Split(seed=5, held_out=0.4)
    named = {"gallery": "unseen", "recipe": "mine", "trunk": "random", "control": True}
    rows = evaluate(store.path, articles.path, "subject", "all", split, distance="kl", output=output, **named)  # type: ignore[arg-type]
    found, printed = read_found(output), capsys.readouterr()
    assert printed.out == as_table(rows, found) + "\n"
    assert "lacks 1 of 72 pictures" in printed.err
    assert [ClassRow.from_json(values) for values in json.loads(output.read_text())] == rows
    assert [row.direction for row in rows] == [one.direction for one in found] == ["image->article", "article->image"]
    judged = retrieve_classes(store, articles, np.delete(IDS, 3), "subject", distance="kl")
    for row, one, again in zip(rows, found, judged, strict=True):
        assert (row.recipe, row.family, row.trunk, row.gallery, row.seed, row.control) == ("mine", "topic", "random", "unseen", 5, True)
        assert (row.label, row.distance, row.num_classes) == ("subject", "kl", 4)
        assert (row.num_queries, row.num_gallery) == (len(one), one.num_gallery)
        assert row.mean_average_precision == round(100 * one.precision.mean(), 2)
        assert row.chance_average_precision == round(100 * chance_average_precision(one.num_gallery, one.num_relevant), 2)
        assert row.permuted_average_precision == round(100 * again.permuted, 2)
        assert row.low < row.mean_average_precision < row.high
        assert {"mAP", "chance_mAP", "dealt_mAP", "mAP_low", "mAP_high"} < set(row.as_json())
        assert all(type(value) in (str, int, float, bool) for value in row.as_json().values())
    assert rows[0].num_queries == NUM - 1


def test_the_interval_takes_the_pictures_of_one_article_as_one() -> None:
    precision, groups = np.repeat(np.random.default_rng(4).random(24), 3), np.repeat([f"article {number}" for number in range(24)], 3)
    ones = np.ones(NUM, np.int64)
    of_each = [Found("image->article", 24, IDS, names, ones, precision, 6 * ones) for names in (groups, IDS.astype(str))]
    together, alone = (ClassRow.of(ByClass(one, 4, 0.3), "r", "topic", "unseen", "subject") for one in of_each)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_the_table_joins_seeds_and_keeps_distances_apart() -> None:
    ones = np.ones(10, np.int64)
    found = [
        Found("image->article", 24, np.arange(10), np.arange(10).astype(str), ones, np.random.default_rng(seed).random(10), 6 * ones)
        for seed in range(3)
    ]
    rows = [ClassRow.of(ByClass(one, 4, 0.3), "topic", "topic", "unseen", "subject", seed=seed) for seed, one in enumerate(found)]
    rows[2] = replace(rows[2], distance="kl")
    header, joined, kl = as_table(rows, found).splitlines()
    assert header.split() == "recipe trunk gallery direction distance classes queries among mAP 95 % interval seeds permuted chance".split()
    means = sorted(row.mean_average_precision for row in rows[:2])
    assert f"{np.mean(means):.1f}" in joined and f"{means[0]:.1f}..{means[1]:.1f} of 2" in joined
    assert kl.split()[4] == "kl" and ".." not in kl
    assert len(header) == len(joined) == len(kl)


# -- confusion -----------------------------------------------------------------------------------------------------------------------------


def test_confusion_counts_the_classes_among_the_first_hits(make_store: MakeStore, articles: ShardSet, mixtures: np.ndarray) -> None:
    store = make_store("store", family="topic", of=articles, rows=mixtures)
    subjects = np.array([articles.record(id)["metadata"]["subject"] for id in range(NUM)])
    texts = store.query_space.embed([articles.texts(id)[0] for id in range(NUM_ARTICLES)]).astype(np.float64)
    scores = np.array([[minus_kl(text, picture) for picture in store.take(IDS).astype(np.float64)] for text in texts])
    found = confusion(store, articles, IDS, "subject", distance="kl", direction="article->image", k=5)
    assert found.names == NAMES
    for name, shares in zip(NAMES, found.shares, strict=True):
        first = subjects[np.argsort(-scores[subjects[:NUM_ARTICLES] == name], axis=1)[:, :5]]
        assert shares.tolist() == pytest.approx([np.mean(first == other) for other in NAMES])
    assert np.allclose(confusion(store, articles, IDS, "subject").shares.sum(axis=1), 1)


def test_a_confusion_is_square() -> None:
    with pytest.raises(ValueError, match=r"shares of 2 classes must have shape \(2, 2\), not \(2, 3\)"):
        Confusion(("a", "b"), np.zeros((2, 3)))


# -- wrong input ---------------------------------------------------------------------------------------------------------------------------


def test_a_label_that_no_class_can_be_read_from_is_refused(make_store: MakeStore, articles: ShardSet) -> None:
    store = make_store("store", of=articles)
    with pytest.raises(
        InputError, match=r"pair 0, 0\.png: has no topic in its metadata, which has book, chapter, page, subject, weight\. Cho"
    ):
        retrieve_classes(store, articles, IDS, "topic")
    with pytest.raises(InputError, match=r"articles: book is 'one' for all 72 pairs of this split, and at least 2 classes are needed"):
        retrieve_classes(store, articles, IDS, "book")
    with pytest.raises(InputError, match=r"0\.png: its weight is 0\.5; expected text or a whole number"):
        retrieve_classes(store, articles, IDS, "weight")
    with pytest.raises(InputError, match=r"pair 24 are in one group, but page is '0' and '24'\. An article has one class"):
        retrieve_classes(store, articles, IDS, "page")
    assert retrieve_classes(store, articles, IDS, "chapter")[0].num_classes == NUM_ARTICLES  # numbers are names too


def test_a_text_that_a_group_does_not_share_is_no_article(make_store: MakeStore, articles: ShardSet) -> None:
    store = make_store("store", of=articles)
    with pytest.raises(InputError, match=r"pair 0, 0\.png, and pair 24 are in one group but have different texts.*--text-index"):
        retrieve_classes(store, articles, IDS, "subject", text_index=1)
    for text_index in (2, -3):
        with pytest.raises(InputError, match=rf"pair 0, 0\.png, has 2 texts, and --text-index {text_index} is out of range"):
            retrieve_classes(store, articles, IDS, "subject", text_index=text_index)
    by_place = [
        retrieve_classes(store, articles, IDS, "subject", text_index=text_index)[0].found.precision.tolist() for text_index in (0, -2)
    ]
    assert by_place[0] == by_place[1]


def test_kl_wants_mixtures_of_topics(make_store: MakeStore, articles: ShardSet) -> None:
    with pytest.raises(InputError, match="words: is a wordvec store, and --distance kl needs topics"):
        retrieve_classes(make_store("words", of=articles), articles, IDS, "subject", distance="kl")
    rows = np.random.default_rng(5).normal(size=(NUM, NUM_TOPICS))
    with pytest.raises(InputError, match="negative: some of its rows have negative numbers, so they are not mixtures of topics"):
        retrieve_classes(make_store("negative", family="topic", of=articles, rows=rows), articles, IDS, "subject", distance="kl")
