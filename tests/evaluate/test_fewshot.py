"""`multimodal evaluate fewshot` on pictures whose vectors are known: few shots, names in place of pictures, and runs of the set's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multimodal.embed.class_texts import class_weights
from multimodal.errors import InputError
from multimodal.evaluate.fewshot import WAYS, by_texts, evaluate, logistic
from multimodal.metrics.episodes import accuracies, draw_episodes, prototypes
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards import ShardSet, ShardWriter

MakeStore = Callable[..., Store]
CLASSES = ("dog", "beach", "snow", "zebra")
"""The last one is no word of the spaces."""


def labelled(path: Path, num: int = 48) -> ShardSet:
    with ShardWriter(path, pairs_per_shard=20) as writer:
        for number in range(num):
            metadata = {"label": CLASSES[number % 4]} if number else {}
            writer.write(Pair(f"{number}.png", b"unread", "png", ("dog",), f"group {number}", "test", metadata=metadata))
    return ShardSet(path)


def around_their_class(num: int = 48, noise: float = 1.5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(4, 24))[np.arange(num) % 4] + noise * rng.normal(size=(num, 24))).astype(np.float32)


def test_every_way_is_asked_the_same_queries_beside_chance(
    tmp_path: Path, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    shards = labelled(tmp_path / "set")
    store = make_store("classes", of=shards, rows=around_their_class())
    rows = evaluate(shards.path, store=store.path, ways=3, shots=[5, 1], queries=4, episodes=40, seed=3, output=tmp_path / "f.json")
    assert [(row.by, row.shots) for row in rows] == [("names", 0), *((by, num) for num in (1, 5) for by in WAYS)]
    ids = np.arange(1, 48)  # the first has no class
    labels, kept = np.array([sorted(CLASSES).index(CLASSES[id % 4]) for id in ids]), store.take(ids).astype(np.float32)
    tasks = draw_episodes(labels, 3, 5, 4, 40, seed=3)
    by_name = {(row.by, row.shots): row for row in rows}
    for num in (1, 5):
        row = by_name["prototypes", num]
        assert row.accuracy == pytest.approx(100 * accuracies(kept, tasks.with_shots(num), prototypes).mean(), abs=0.01)
        assert row.low < row.accuracy < row.high and row.chance == 33.33 and abs(row.permuted - row.chance) < 8
    assert by_name["prototypes", 5].accuracy > by_name["prototypes", 1].accuracy + 5 > 50
    weights = class_weights(store.query_space.embed, sorted(CLASSES))
    assert not weights[3].any() and rows[0].accuracy == pytest.approx(100 * by_texts(kept, weights, tasks).mean(), abs=0.01)
    assert "logistic regression" in capsys.readouterr().out and json.loads((tmp_path / "f.json").read_text())[1]["shots"] == 1
    with pytest.raises(InputError, match="4 of 4 classes have 5 \\+ 4 pictures; 5 are wanted. Give fewer --ways"):
        evaluate(shards.path, store=store.path, ways=5, shots=[5], queries=4)
    with pytest.raises(InputError, match="none of .* pictures has species.*--label"):
        evaluate(shards.path, store=store.path, label="species")
    with pytest.raises(InputError, match="has no runs"):
        evaluate(shards.path, store=store.path, runs=True)
    with pytest.raises(InputError, match="at least 2 ways"):
        evaluate(shards.path, store=store.path, ways=1)


def test_classes_by_their_texts_equal_a_loop_and_an_unknown_one_is_never_predicted() -> None:
    rng = np.random.default_rng(0)
    labels, rows, weights = np.repeat(np.arange(4), 12), rng.normal(size=(48, 6)), rng.normal(size=(4, 6))
    weights[3] = 0
    tasks = draw_episodes(labels, 3, 1, 5, 40)
    for found, classes, queries in zip(by_texts(rows, weights, tasks), tasks.classes, tasks.queries, strict=True):
        right = []
        for own, of_class in zip(classes, queries, strict=True):
            for query in of_class:
                known = [label for label in classes if label != 3]
                cosines = [rows[query] @ weights[label] / np.linalg.norm(weights[label]) for label in known]
                right.append(known[int(np.argmax(cosines))] == own)
        assert found == pytest.approx(np.mean(right))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_logistic_regression_in_the_span_of_its_pictures_is_the_whole_one(num_classes: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    rng = np.random.default_rng(0)
    shots, queries = rng.normal(size=(num_classes, 3, 40)), rng.normal(size=(9, 40))
    flat, asked = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (shots.reshape(-1, 40), queries))
    whole = linear_model.LogisticRegression(C=10, max_iter=1000).fit(flat, np.repeat(np.arange(num_classes), 3))
    found = logistic(shots, queries)
    assert found.shape == (9, num_classes)
    assert np.array_equal(found.argmax(axis=1), whole.predict(asked))
    if num_classes > 2:
        np.testing.assert_allclose(found, whole.decision_function(asked), atol=5e-3)
