"""`multimodal evaluate identities` on pictures whose vectors are known: who asks, who is left out, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.figures import read_found
from multimodal.evaluate.identities import evaluate, identify, protocol_of
from multimodal.metrics.identities import Identities, identity_figures, identity_masks
from multimodal.metrics.verification import roc
from multimodal.pairs import Pair
from multimodal.search.store import Store
from multimodal.shards import ShardSet, ShardWriter

MakeStore = Callable[..., Store]


def people(path: Path, described: list[Mapping[str, Any]]) -> ShardSet:
    with ShardWriter(path, pairs_per_shard=7) as writer:
        for number, metadata in enumerate(described):
            name = f"{number:03}.png"
            writer.write(Pair(name, b"unread", "png", ("dog",), f"group {metadata.get('identity', name)}", "test", metadata=metadata))
    return ShardSet(path)


def crowd(num: int = 60, cameras: int = 3, **also: Any) -> list[dict[str, Any]]:
    """Twelve people, by several cameras in turn."""
    return [{"identity": f"{number % 12:04}", "camera": number // 12 % cameras, **also} for number in range(num)]


def near_their_own(num: int, noise: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(12, 24))[np.arange(num) % 12] + noise * rng.normal(size=(num, 24))).astype(np.float32)


def test_the_command_prints_the_figures_of_the_metrics_beside_chance(
    tmp_path: Path, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, rows = people(tmp_path / "set", crowd()), near_their_own(60, 1.0)
    store = make_store("people", of=shards, rows=rows)
    [row, again] = evaluate(shards.path, store=store.path, rerank=True, output=tmp_path / "figures.json")
    # the first picture of each person by each camera asks: 12 people, 3 cameras
    asking = np.arange(36)
    everyone = Identities(np.arange(60) % 12, np.arange(60) // 12 % 3)
    masks = identity_masks(Identities(everyone.identities[asking], everyone.cameras[asking]), everyone)
    kept = store.take(np.arange(60)).astype(np.float64)
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    wanted = identity_figures(kept[asking] @ kept.T, *masks)
    assert (row.num_queries, row.num_gallery, row.cameras, row.num_without) == (36, 60, 3, 0)
    assert row.mean_average_precision == pytest.approx(100 * wanted.average_precision.mean(), abs=0.01)
    assert row.minp == pytest.approx(100 * wanted.inverse_negative_penalty.mean(), abs=0.01)
    assert [row.cmc_1, row.cmc_5, row.cmc_10] == pytest.approx([100 * wanted.cmc(k) for k in (1, 5, 10)], abs=0.01)
    assert row.low < row.mean_average_precision < row.high and row.chance_cmc_1 < 10
    assert abs(row.permuted_average_precision - row.chance_average_precision) < 4
    assert again.reranked and again.mean_average_precision > row.mean_average_precision
    told = capsys.readouterr()
    assert "re-ranked" in told.out and "permuted" in told.out and not told.err
    kept_rows = json.loads((tmp_path / "figures.json").read_text())
    assert kept_rows[0]["mAP"] == row.mean_average_precision and len(read_found(tmp_path / "figures.json")[0]) == 36


def test_roles_say_who_asks_and_who_is_not_found(tmp_path: Path) -> None:
    described = crowd(36)
    for number, role in [(0, "query"), (1, "both"), (2, "gallery")]:
        described[number]["role"] = role
    described[3] = {"camera": 1, "distractor": True}
    protocol = protocol_of(people(tmp_path / "set", described), np.arange(36))
    assert protocol.queries.tolist() == [0, 1] and protocol.gallery.tolist() == list(range(1, 36))
    judged = identify(near_their_own(36, 0.01), protocol)
    assert judged.found.num_relevant.tolist() == [2, 2] and judged.num_ranked.tolist() == [35, 34]


def test_without_cameras_every_picture_is_a_query_of_plain_retrieval(
    tmp_path: Path, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = people(tmp_path / "set", [*crowd(36, cameras=1), {"identity": "alone", "camera": 0}])
    store = make_store("people", of=shards, rows=np.concatenate([near_their_own(36, 0.01), np.ones((1, 24), np.float32)]))
    for camera in ("camera", None):
        [row] = evaluate(shards.path, store=store.path, camera=camera)
        assert (row.cameras, row.num_queries, row.num_without, row.cmc_1, row.mean_average_precision) == (0, 36, 1, 100, 100)
        told = capsys.readouterr().err
        assert "plain retrieval" in told and "1 of 37 queries have no match in the gallery, such as 000000036" in told


def test_a_model_that_knows_nothing_is_last_and_not_first(tmp_path: Path) -> None:
    protocol = protocol_of(people(tmp_path / "set", crowd()), np.arange(60))
    judged = identify(np.ones((60, 4)), protocol)
    assert (judged.found.first == judged.num_ranked - judged.found.num_relevant + 1).all()  # ties count against


@pytest.mark.parametrize(
    "described, message",
    [
        ([{"label": "a"}, {"label": "b"}], "no pair has identity in its metadata, which has label. Give its name: --identity NAME"),
        ([{"identity": "a", "camera": 1}, {"identity": "a"}], "1 of 2 pictures have no camera.*--camera null"),
        (crowd(12), "0 of 12 queries have a match"),
    ],
)
def test_a_set_that_cannot_be_judged_is_refused(tmp_path: Path, described: list[Mapping[str, Any]], message: str) -> None:
    shards = people(tmp_path / "set", described)
    with pytest.raises(InputError, match=message):
        identify(np.ones((len(described), 4)), protocol_of(shards, np.arange(len(described))))


def test_judged_pairs_are_a_curve(tmp_path: Path, make_store: MakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    shards, rows = people(tmp_path / "set", crowd()), near_their_own(60, 1.0)
    store, file = make_store("people", of=shards, rows=rows), tmp_path / "pairs.csv"
    both = [(a, b) for a in range(60) for b in range(a)]
    file.write_text("a,b,same\n" + "".join(f"{a},{b:03}.png,{int(a % 12 == b % 12)}\n" for a, b in both))
    [row] = evaluate(shards.path, store=store.path, pairs=file, output=tmp_path / "pairs.json")
    kept = store.take(np.arange(60)).astype(np.float64)
    scores = np.array([kept[a] @ kept[b] for a, b in both])
    same = np.array([a % 12 == b % 12 for a, b in both])
    curve = roc(scores, same)
    assert (row.num_pairs, row.num_same) == (len(both), same.sum())
    assert row.area == pytest.approx(100 * curve.area, abs=0.05) and row.equal_error == pytest.approx(100 * curve.equal_error_rate, abs=0.5)
    assert row.true_accepts["0.1"] == pytest.approx(100 * curve.at_false_accepts(0.1).true_accepts, abs=1)
    assert row.area_low < row.area < row.area_high and row.equal_error_low < row.equal_error < row.equal_error_high
    assert "TAR at 0.01" in capsys.readouterr().out
    assert json.loads((tmp_path / "pairs.json").read_text())[0]["TAR_at_FAR"]["0.1"] == row.true_accepts["0.1"]
    file.write_text("a,b,same\n0,1,1\n2,3,1\n")
    with pytest.raises(InputError, match="2 of 2 pairs are the same; a curve needs both kinds"):
        evaluate(shards.path, store=store.path, pairs=file)
    with pytest.raises(InputError, match="--rerank improves rankings"):
        evaluate(shards.path, store=store.path, pairs=file, rerank=True)


def test_a_model_must_be_named(tmp_path: Path) -> None:
    shards = people(tmp_path / "set", crowd())
    with pytest.raises(InputError, match="--export E.*--store T.*one of the two"):
        evaluate(shards.path)


def test_a_page_shows_the_curve_the_hardest_queries_and_triplets(
    tmp_path: Path, make_store: MakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, rows = people(tmp_path / "set", crowd()), near_their_own(60, 1.0)
    store = make_store("people", of=shards, rows=rows)
    rows_found = evaluate(shards.path, store=store.path, rerank=True, output=tmp_path / "figures.json", html=tmp_path / "page.html")
    assert f"{tmp_path / 'page.html'}: written" in capsys.readouterr().err
    page = (tmp_path / "page.html").read_text()
    assert "How far down the first match is" in page and "re-ranked" in page and f"{rows_found[0].mean_average_precision:.1f}" in page
    found = read_found(tmp_path / "figures.json")[0]
    hardest = int(np.argsort(found.precision, kind="stable")[0])
    told = f"{found.groups[hardest]}: the first of {found.num_relevant[hardest]} matches is number {found.first[hardest]}"
    assert 0 < page.index(f"The hardest of {len(found)} queries") < page.index(told) < page.index("Some of all")


def test_a_page_of_judged_pairs_shows_their_curve(tmp_path: Path, make_store: MakeStore) -> None:
    shards, rows = people(tmp_path / "set", crowd()), near_their_own(60, 1.0)
    store = make_store("people", of=shards, rows=rows)
    (tmp_path / "pairs.csv").write_text(
        "a,b,same\n" + "".join(f"{a},{b},{int(a % 12 == b % 12)}\n" for a in range(20) for b in (a + 12, a + 7))
    )
    evaluate(shards.path, store=store.path, pairs=tmp_path / "pairs.csv", html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "What is taken for the same" in page and "40 judged pairs, of which 20 are the same" in page and "polyline" in page
