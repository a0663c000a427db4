"""Pictures at their places, the hardest triplets and the mining shares, as a page shows them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal.errors import InputError
from multimodal.evaluate.report import hard_triplets_of, mining_of
from multimodal.evaluate.scatter import fitted, ink_of, plane, scatter_of
from multimodal.pairs import Pair
from multimodal.shards import ShardSet, ShardWriter

NUM = 24


def drawing(number: int, dark: bool) -> bytes:
    """A stroke, dark on light or light on dark."""
    pixels = np.full((40, 40), 255 if dark else 0, np.uint8)
    pixels[10:30, 5 + number : 8 + number] = 0 if dark else 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("drawings") / "set"
    with ShardWriter(folder) as writer:
        for number in range(NUM):
            writer.write(
                Pair(f"{number}.png", drawing(number, bool(number % 2)), "png", (), f"{number}", metadata={"label": f"{number % 4}"})
            )
    return ShardSet(folder)


def test_the_hardest_triplets_are_of_two_classes_and_show_their_pictures(drawings: ShardSet) -> None:
    rows, ids = np.random.default_rng(0).normal(size=(NUM, 3)), np.arange(NUM)
    found = hard_triplets_of(rows, ids, drawings, "label", "triplet", num=6, distance="euclidean")
    assert len(found.triplets) == 6 and found.num_pictures == NUM
    gaps = [one.to_negative - one.to_positive for one in found.triplets]
    assert gaps == sorted(gaps) and gaps[0] < 0
    for one in found.triplets:
        assert one.anchor.text == one.positive.text != one.negative.text
        assert one.anchor.thumbnail and one.positive.thumbnail and one.negative.thumbnail
    with pytest.raises(InputError, match="none of 24 pairs has a colour in its metadata. Choose another label"):
        hard_triplets_of(rows, ids, drawings, "colour", "triplet")


def test_a_scatter_keeps_shapes_and_fills_the_square(drawings: ShardSet) -> None:
    rows = np.random.default_rng(1).normal(size=(NUM, 2)) * [5, 1] + 100
    found = scatter_of(rows, np.arange(NUM), drawings, "label", "digits", ink=True)
    places = found.places[0]
    assert places.min() >= 0 and places.max() <= 1 and np.ptp(places[:, 0]) > 0.5
    inside = ((places > 0) & (places < 1)).all(axis=1)
    stretch = np.diff(places[inside], axis=0) / np.diff(rows[inside], axis=0)
    np.testing.assert_allclose(stretch, stretch[0, 0])  # both directions alike, and nothing turned
    assert found.classes == [number % 4 for number in range(NUM)] and [one.text for one in found.pictures] == [
        str(c) for c in found.classes
    ]
    assert np.isfinite(fitted(np.zeros((1, 5, 2)))).all(), "a collapsed one is a point"


def test_more_dimensions_are_seen_from_one_side_at_all_moments() -> None:
    rows = np.random.default_rng(2).normal(size=(3, 50, 6)) * [9, 4, 1, 1, 1, 1]
    shown = plane(rows)
    variances = np.linalg.eigvalsh(np.cov(rows[-1].T))[::-1]
    np.testing.assert_allclose(shown[-1].var(axis=0, ddof=1), variances[:2])
    distances = [np.linalg.norm(one[:, None] - one[None], axis=2) for one in (rows[0], shown[0])]
    assert (distances[1] <= distances[0] + 1e-9).all(), "a projection"


@pytest.mark.parametrize("dark", [False, True])
def test_a_mask_is_opaque_where_the_ink_is(dark: bool) -> None:
    mask = Image.open(io.BytesIO(ink_of(drawing(3, dark))))
    opacity = np.asarray(mask.getchannel("A"))
    assert max(mask.size) == 28 and opacity[0].max() == 0 and opacity[14, 6] == 255 and opacity[14, 20] == 0


def test_mining_shares_are_means_over_stretches_of_steps(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    shares = random.dirichlet([1, 1, 1], size=500)
    lines = ["epoch,step,train/share_easy,train/share_semi_hard,train/share_hard,val/R@1"]
    lines += [f"0,{step},{easy!r},{semi_hard!r},{hard!r}," for step, (easy, semi_hard, hard) in enumerate(shares.tolist())]
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, "0,499,,,,5"]) + "\n")
    found = mining_of(tmp_path, "triplet", num=20)
    assert found is not None and 10 <= len(found.steps) <= 20 and sorted(found.steps) == list(found.steps) and found.steps[0] == 1
    np.testing.assert_allclose(np.add(np.add(found.easy, found.semi_hard), found.hard), 1)
    late = 1 + np.arange(500) >= 500 ** (19 / 20) * (1 + 1e-9)
    np.testing.assert_allclose(found.easy[-1], shares[late, 0].mean())
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,0,1.0\n")
    assert mining_of(tmp_path, "siamese") is None
