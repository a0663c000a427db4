"""Views of a picture with the answer that is made along: exact, the same for the same word, and in place for rows that cannot be read."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from multimodal.data import (
    Colours,
    ColumnRows,
    DropColours,
    GreyViews,
    HoleViews,
    JigsawViews,
    OneChannel,
    PairLoader,
    Pixels,
    PositionViews,
    ProjectColours,
    RotationViews,
    Views,
    ViewsTarget,
)
from multimodal.data.order import random_words
from multimodal.data.pretext import COLOUR_EDGES, HOLE_SPREAD, NUM_COLOURS, far_permutations, lab
from multimodal.errors import InputError
from multimodal.objectives.relative_position import neighbours
from multimodal.pairs import Pair
from multimodal.pictures.aberration import colour_shifts, lateral_aberration
from multimodal.shards import JoinedShards, ShardSet, ShardWriter

NUM = 13
BROKEN = 5


def noise(number: int, size: int = 40) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("pretext") / "set"
    with ShardWriter(folder, pairs_per_shard=6) as writer:
        for number in range(NUM):
            image = encoded(noise(number)) if number != BROKEN else b"no picture"
            writer.write(Pair(f"{number}.png", image, "png", (), f"{number}"))
    return ShardSet(folder)


def batches(shards: ShardSet | JoinedShards, views: Views, shuffle: bool, num_workers: int = 0) -> list[tuple[np.ndarray, ...]]:
    loader = PairLoader(
        shards, np.arange(len(shards)), views, ViewsTarget(), batch_size=5, seed=3, shuffle=shuffle, num_workers=num_workers
    )
    return [tuple(part.numpy().copy() for part in batch[:4]) for batch in loader]


def test_a_rotation_is_undone_by_its_answer(shards: ShardSet) -> None:
    pixels = Pixels(size=24, scale=(0.3, 1.0))
    seen = set()
    for ids, image, target, valid in batches(shards, RotationViews(pixels), shuffle=True):
        words = random_words(3, 0, ids)
        for id, word, view, turns, ok in zip(ids.tolist(), words.tolist(), image, target.tolist(), valid.tolist(), strict=True):
            assert ok == (id not in (-1, BROKEN))
            if ok:
                assert np.array_equal(np.rot90(view, -turns, axes=(1, 2)), pixels.of(shards.image_bytes(id), word))
                seen.add(turns)
            else:
                assert not view.any() and turns == 0
    assert seen == {0, 1, 2, 3}


def test_in_validation_the_question_is_a_function_of_the_id(shards: ShardSet) -> None:
    pixels = Pixels(size=24)
    first, second = (batches(shards, RotationViews(pixels), shuffle=False) for _ in range(2))
    assert all(np.array_equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True))
    ids, image, target, valid = (np.concatenate(parts) for parts in zip(*first, strict=True))
    assert len(set(target[valid].tolist())) == 4
    for id, view, turns in zip(ids[valid].tolist(), image[valid], target[valid].tolist(), strict=True):
        assert np.array_equal(np.rot90(view, -turns, axes=(1, 2)), pixels.of(shards.image_bytes(id), None))


def test_in_a_control_answers_are_those_about_another_picture(shards: ShardSet) -> None:
    views, read = HoleViews(Pixels(size=24), permuted=True), {}
    alone = HoleViews(Pixels(size=24))
    pixels = {id: Pixels(size=24).of(shards.image_bytes(id), None) for id in range(NUM) if id != BROKEN}
    wanted = {id: asked(alone, picture, 0)[1] for id, picture in pixels.items()}
    for ids, image, target, valid in batches(shards, views, shuffle=False):
        for id, view, answer in zip(ids[valid].tolist(), image[valid], target[valid], strict=True):
            assert np.array_equal(view, asked(alone, pixels[id], 0)[0])
            (read[id],) = (other for other, of_it in wanted.items() if np.array_equal(of_it, answer))
    assert len(read) == len(set(read.values())) == NUM - 2, "the broken picture, and the one whose partner it is, are left out"
    assert all(id != other for id, other in read.items())


def test_kept_pictures_are_the_centre_crop_in_training_too(shards: ShardSet) -> None:
    pixels = Pixels(size=24, kept=True)
    for ids, image, target, valid in batches(shards, RotationViews(pixels), shuffle=True):
        for id, view, turns in zip(ids[valid].tolist(), image[valid], target[valid].tolist(), strict=True):
            assert np.array_equal(np.rot90(view, -turns, axes=(1, 2)), Pixels(size=24).of(shards.image_bytes(id), None))


def test_workers_and_joined_sets_make_the_same(shards: ShardSet) -> None:
    views = RotationViews(Pixels(size=24))
    alone = batches(shards, views, shuffle=True)
    for others in (batches(shards, views, shuffle=True, num_workers=1), batches(JoinedShards({"one": shards}), views, shuffle=True)):
        for one, other in zip(alone, others, strict=True):
            for a, b in zip(one[1:], other[1:], strict=True):
                assert a.dtype == b.dtype and a.shape == b.shape
    in_worker = batches(shards, views, shuffle=True, num_workers=1)
    assert all(np.array_equal(a, b) for one, other in zip(alone, in_worker, strict=True) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("image", "target", "said"),
    [
        (RotationViews(), ColumnRows("lda40"), "asks about its own views.*Set data.target to multimodal.data.ViewsTarget"),
        (Pixels(), ViewsTarget(), "ViewsTarget is made by an image side.*RotationViews"),
    ],
)
def test_sides_that_do_not_go_together_are_refused(shards: ShardSet, image: Views, target: ViewsTarget, said: str) -> None:
    with pytest.raises(InputError, match=said):
        PairLoader(shards, np.arange(NUM), image, target, batch_size=5, seed=0)


def test_a_resumed_epoch_asks_the_same(shards: ShardSet) -> None:
    views = RotationViews(Pixels(size=24))
    ids = np.arange(len(shards))
    whole = PairLoader(shards, ids, views, ViewsTarget(), batch_size=4, seed=1)
    targets = [batch.target.tolist() for batch in whole]  # type: ignore[union-attr]
    loader = PairLoader(shards, ids, views, ViewsTarget(), batch_size=4, seed=1)
    rows = iter(loader)
    next(rows)
    state = loader.state_dict()
    resumed = PairLoader(shards, ids, views, ViewsTarget(), batch_size=4, seed=1)
    resumed.load_state_dict(state)
    assert [batch.target.tolist() for batch in resumed] == targets[1:]  # type: ignore[union-attr]


def places(size: int) -> np.ndarray:
    """(3, size, size) uint8, the row and the column of each pixel, and 0."""
    down, across = np.mgrid[:size, :size]
    return np.stack([down, across, 0 * down]).astype(np.uint8)


def asked(views: Views, picture: np.ndarray, word: int) -> tuple[np.ndarray, int | np.ndarray]:
    made = np.zeros(views.shape, np.uint8)
    return made, views.ask(picture, word, made)


@pytest.mark.parametrize("views", [PositionViews(colours=None), PositionViews(Pixels(size=36), 10, 3, 0, None)])
def test_patches_lie_in_a_grid_with_gaps_between(views: PositionViews) -> None:
    picture, moves, orders = places(views.pixels.size), set(), set()
    for word in random_words(0, 0, np.arange(200)).tolist():
        patches, answer = asked(views, picture, word)
        assert sorted(answer) == list(range(9))
        patches = patches[np.argsort(answer)]
        orders.add(tuple(answer))
        corners = patches[:, :2, 0, 0].astype(int)  # red holds the row of each pixel, green its column
        for cell, corner in enumerate(corners):
            moved = corner - (views.patch + views.gap) * np.array(divmod(cell, 3))
            assert (moved >= 0).all() and (moved <= 2 * views.jitter).all()
            assert np.array_equal(np.unique(patches[cell, 1]), np.arange(corner[1], corner[1] + views.patch))  # as it was, not scaled
            moves.update(moved.tolist())
        for one, other in [(0, 1), (1, 2), (3, 4), (0, 3), (4, 7), (5, 8)]:
            assert np.abs(corners[other] - corners[one]).max() - views.patch >= views.gap - 2 * views.jitter
    assert moves == {*range(2 * views.jitter + 1)} and len(orders) > 190


def test_tiles_lie_in_the_cells_that_the_permutation_says() -> None:
    views = JigsawViews(Pixels(size=36), grid=3, tile=9, gap=3, num_permutations=20)
    picture, permutations = places(36), far_permutations(9, 20)
    seen = set()
    for word in random_words(0, 0, np.arange(300)).tolist():
        tiles, answer = asked(views, picture, word)
        assert isinstance(answer, int)
        cells = [3 * (tile[0, 0, 0] // 12) + tile[1, 0, 0] // 12 for tile in tiles.astype(int)]
        assert cells == permutations[answer].tolist()
        assert all(tile[axis].max() // 12 == tile[axis].min() // 12 for tile in tiles.astype(int) for axis in (0, 1))
        seen.add((answer, *(tiles[0, :2, 0, 0] % 12).tolist()))
    assert {one[0] for one in seen} == set(range(20)) and len({one[1] for one in seen}) == 4


def test_permutations_are_as_far_from_each_other_as_a_slow_search_makes_them() -> None:
    every = [*itertools.permutations(range(4))]
    chosen = [every[0]]
    while len(chosen) < 12:
        from_chosen = {one: [sum(a != b for a, b in zip(one, other, strict=True)) for other in chosen] for one in every}
        chosen.append(max(every, key=lambda one: (min(from_chosen[one]), sum(from_chosen[one]))))
    assert far_permutations(4, 12).tolist() == [list(one) for one in chosen]
    distances = (far_permutations(9, 64)[:, None] != far_permutations(9, 64)[None]).sum(2)[np.triu_indices(64, 1)]
    assert distances.min() >= 7 and distances.mean() > 8  # of random permutations: a mean of 8, and a smallest of 3 or 4


def test_a_hole_is_filled_by_its_answer() -> None:
    views, picture = HoleViews(Pixels(size=16), block=2), noise(1, 16).transpose(2, 0, 1)
    seen, answer = asked(views, picture, 5)
    assert isinstance(answer, np.ndarray) and answer.shape == views.answer_shape == (3, 4, 4) and answer.dtype == np.float32
    outside = np.ones((16, 16), bool)
    outside[4:12, 4:12] = False
    assert np.array_equal(seen[:, outside], picture[:, outside])
    around = np.rint(picture[:, outside].mean(1))
    assert np.array_equal(seen[:, 4:12, 4:12], np.broadcast_to(around[:, None, None], (3, 8, 8)))
    blocks = [[picture[:, 4 + y : 6 + y, 4 + x : 6 + x].mean((1, 2)) for x in range(0, 8, 2)] for y in range(0, 8, 2)]
    assert np.allclose(HOLE_SPREAD * answer + around[:, None, None], np.array(blocks).transpose(2, 0, 1), atol=1e-4)
    assert not np.any(asked(views, np.full_like(picture, 77), 5)[1])


def test_a_grey_picture_asks_for_its_colours() -> None:
    primaries = {(255, 0, 0): (53.24, 80.09, 67.20), (0, 255, 0): (87.73, -86.18, 83.18), (0, 0, 255): (32.30, 79.19, -107.86)}
    for colour, wanted in {**primaries, (255, 255, 255): (100, 0, 0), (0, 0, 0): (0, 0, 0), (7, 7, 7): (1.92, 0, 0)}.items():
        assert np.allclose(lab(np.array(colour)), wanted, atol=0.1)  # Lindbloom's table
    picture = noise(2, 16)
    seen, answer = asked(GreyViews(Pixels(size=16), block=8), picture.transpose(2, 0, 1), 5)
    assert isinstance(answer, np.ndarray) and answer.shape == (2, 2) and answer.dtype == np.int64
    assert np.array_equal(seen, np.broadcast_to(np.asarray(Image.fromarray(picture).convert("L")), (3, 16, 16)))
    bins = [sum(value >= edge for edge in COLOUR_EDGES) for value in lab(picture[:8, 8:].mean((0, 1)))[1:]]
    assert answer[0, 1] == 11 * bins[0] + bins[1]
    corners = np.array([*primaries], np.uint8).repeat(64, axis=0).reshape(3, 8, 8, 3).transpose(0, 3, 1, 2)
    extremes = np.array([asked(GreyViews(Pixels(size=8), block=8), of, 5)[1] for of in corners])
    assert extremes.min() >= 0 and extremes.max() < NUM_COLOURS and len(np.unique(extremes)) == 3


def test_dropped_colours_leave_one_channel_and_nothing_to_compare_it_with() -> None:
    kept = set()
    for word in random_words(0, 0, np.arange(20)).tolist():
        picture = noise(word % 100).transpose(2, 0, 1)
        patch = picture.copy()
        DropColours().change(patch, word)
        same = [number for number in range(3) if np.array_equal(patch[number], picture[number])]
        assert len(same) == 1
        for other in {0, 1, 2} - set(same):
            assert patch[other].std() < 2 and abs(np.corrcoef(patch[other].ravel(), picture[same[0]].ravel())[0, 1]) < 0.2
        kept.add(same[0])
        OneChannel().change(picture, word)
        assert np.array_equal(picture, np.broadcast_to(patch[same[0]], picture.shape))
    assert kept == {0, 1, 2}


def test_projected_colours_have_no_part_from_green_to_magenta() -> None:
    axis = np.array([-1, 2, -1])
    picture = np.random.default_rng(0).integers(90, 160, (3, 20, 20)).astype(np.uint8)  # nothing is cut off at 0 or 255
    patch = picture.copy()
    ProjectColours().change(patch, 7)
    exact = np.tensordot(np.eye(3) - np.outer(axis, axis) / 6, picture.astype(float), axes=1)
    assert np.abs(patch - exact).max() < 0.501
    assert np.abs(np.tensordot(axis, patch.astype(float), axes=1)).max() <= 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PositionViews(Pixels(size=48)), "pixels.size=48 must be 3 . patch . 2 . gap . 2 . jitter = 180"),
        (lambda: PositionViews(jitter=11), "jitter=11 is more than half of gap=20"),
        (lambda: JigsawViews(grid=4), "grid=4 must be 2 or 3"),
        (lambda: JigsawViews(Pixels(size=96), grid=2, num_permutations=25), "num_permutations=25 must be from 2 to 24"),
        (lambda: HoleViews(Pixels(size=50)), "pixels.size=50 must be a multiple of 4 . block=8"),
        (lambda: GreyViews(Pixels(size=50)), "pixels.size=50 must be a multiple of block=16"),
    ],
)
def test_views_that_do_not_fit_are_refused(make: Callable[[], Views], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


def texture(number: int, size: int = 96) -> np.ndarray:
    """(size, size, 3) uint8, grey blobs that look the same everywhere: nothing in them tells where a patch was."""
    blobs = np.random.default_rng(number).normal(size=(size + 16, size + 16))
    for _ in range(2):
        blobs = sum(np.roll(blobs, move, axis) for axis in (0, 1) for move in range(-2, 3))
    inner = blobs[8:-8, 8:-8]
    pixels = np.clip(128 + 40 * (inner - inner.mean()) / inner.std(), 0, 255).astype(np.uint8)
    return np.repeat(pixels[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("shift", "colours", "low", "high"),
    [(0, None, 0, 25), (2, None, 90, 100), (2, DropColours(), 0, 25), (2, OneChannel(), 0, 25), (2, ProjectColours(), 0, 25)],
)
def test_fringes_of_a_lens_tell_where_a_patch_was_unless_colours_are_dropped(
    shift: float, colours: Colours | None, low: float, high: float
) -> None:
    views = PositionViews(Pixels(size=96), patch=24, gap=12, jitter=0, colours=colours)
    firsts, seconds, answers = neighbours()
    rows = []
    for number, word in enumerate(random_words(0, 0, np.arange(30)).tolist()):
        patches, cells = asked(views, lateral_aberration(texture(number), shift, shift).transpose(2, 0, 1), word)
        patches = patches[np.argsort(cells)]
        shifts = np.array([colour_shifts(patch.transpose(1, 2, 0)) for patch in patches])
        rows.append(np.concatenate([shifts[firsts], shifts[seconds]], axis=1))
    scaled = (np.array(rows) - np.mean(rows, axis=(0, 1))) / (np.std(rows, axis=(0, 1)) + 1e-9)
    model = LogisticRegression(max_iter=500).fit(scaled[:20].reshape(-1, 8), answers * 20)
    right = model.score(scaled[20:].reshape(-1, 8), answers * 10)
    assert low <= 100 * right <= high  # chance is 15, with a deviation of 1.8
