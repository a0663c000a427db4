"""The map of a store: places that stay, filters drawn on it, regions that equal those of a slow loop, and queries on it."""

from __future__ import annotations

import math
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from multimodal import cli
from multimodal.errors import InputError
from multimodal.search.places import NUM_NEAR, SIDE, SPREAD, Kept, are_inside, consensus, map_part, place_like
from multimodal.search.placing import place
from multimodal.search.regions import Regions, choose_names, cut, make_regions, outline_of
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.where import WhereError
from multimodal.search.writing import StoreWriter, create_store
from multimodal.verify import problems_of

DIM = 8


def kept_map(store: Store, seed: int = 0) -> Kept:
    """Any map of the pictures that a store has, as UMAP would make one."""
    ids = np.sort(store.ids)
    random = np.random.default_rng(seed)
    points = random.integers(0, SIDE + 1, (len(ids), 2)).astype(np.uint16)
    return Kept(ids, points, store.take(ids), points, f"{seed:06x}")


@pytest.fixture(scope="session")
def space_box(space_boxes) -> Path:
    return space_boxes["wordvec"]


@pytest.fixture
def path(tmp_path, store_of_forty) -> Path:
    return shutil.copytree(store_of_forty, tmp_path / "forty")


@pytest.fixture
def mapped(path) -> Path:
    with StoreWriter(path) as writer:
        writer.keep_map(kept_map(writer.store), make_regions(writer.store, kept_map(writer.store).points))
    return path


def places_of(path: Path) -> dict[int, tuple[int, int]]:
    store = Store(path)
    return dict(zip(store.ids.tolist(), map(tuple, store.map.points.tolist()), strict=True))


# -- places --------------------------------------------------------------------------------------------------------------------------------


def test_a_store_without_a_map_has_that_of_its_two_widest_directions(path):
    store = Store(path)
    units = store.rows.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    centred = units - units.mean(axis=0)
    _, _, directions = np.linalg.svd(centred)
    along = centred @ directions[:2].T
    found = store.map.points.astype(np.float64)
    assert store.map.method == "pca" and found.shape == (39, 2)
    for axis in range(2):  # the same order from one side to the other, or the opposite
        order = np.argsort(along[:, axis])
        steps = np.diff(found[order, axis])
        assert (steps >= -1).all() or (steps <= 1).all()
    assert (found > 0).all() and (found < SIDE).all()


def test_a_map_is_the_same_each_time_and_that_of_an_empty_store_is_empty(path, empty_store):
    assert (Store(path).map.points == Store(path).map.points).all() and Store(path).map.version == Store(path).map.version
    assert Store(empty_store).map.points.shape == (0, 2)


def test_pictures_stay_where_they_are_whatever_comes_and_goes(mapped, segment):
    before = places_of(mapped)
    with StoreWriter(mapped) as writer:
        writer.append(segment(range(100, 110), seed=1))
        writer.delete([0, 7, 103])
        live = places_of(mapped)
        writer.compact()
    after = places_of(mapped)
    assert after == live and after.keys() == (before.keys() | set(range(100, 110))) - {0, 7, 103}
    assert all(after[id] == before[id] for id in before.keys() & after.keys())
    assert Store(mapped).map.num_placed == 9 and Store(mapped).map.version == kept_map(Store(mapped)).version
    assert not list(problems_of(mapped))


def test_a_new_picture_is_where_its_equal_is(mapped, segment):
    with StoreWriter(mapped) as writer:
        twin = segment([500])
        twin.rows[0] = writer.store.take([11])[0]
        writer.append(twin)
    assert np.hypot(*np.subtract(places_of(mapped)[500], places_of(mapped)[11])) < SPREAD


def test_an_id_that_comes_back_with_another_row_has_a_new_place(mapped, segment):
    before = places_of(mapped)[4]
    with StoreWriter(mapped) as writer:
        writer.delete([4])
        writer.append(segment([4], seed=9))
        assert writer.store.map.num_placed == 1
    assert places_of(mapped)[4] != before


def test_a_generation_that_was_open_before_sees_the_same_places(mapped, segment):
    old = Store(mapped)
    _ = old.map
    with StoreWriter(mapped) as writer:
        writer.append(segment(range(50, 60), seed=2))
    later = Store(mapped, before=old)
    assert (later.map.points == Store(mapped).map.points).all()


def test_a_map_of_too_few_of_the_pictures_is_dropped_and_said_so(mapped, segment, capsys):
    with StoreWriter(mapped) as writer:
        writer.append(segment(range(100, 141), seed=1))
    assert map_part(Store(mapped).manifest.parts) is None and Store(mapped).map.method == "pca"
    assert "its map was dropped: of 80 pictures, only 39 were there" in capsys.readouterr().err
    assert not (mapped / "map").is_dir() or len(list((mapped / "map").iterdir())) <= 1


@pytest.mark.parametrize("file", ["ids.npy", "points.npy", "landmarks.npy", "landmark_points.npy", "regions.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_verify_finds_damage_and_no_reader_uses_it(mapped, file, damage):
    [name] = [part for part in Store(mapped).manifest.parts if part.startswith("map/")]
    broken = mapped / name / file
    if damage == "gone":
        broken.unlink()
    else:
        content = bytearray(broken.read_bytes())
        content[-1] ^= 1
        broken.write_bytes(content if damage == "changed" else content[: len(content) // 2])
    assert [problem.where for problem in problems_of(mapped)] == [name]
    with pytest.raises(InputError, match="multimodal store map"):
        _ = Store(mapped).map
    assert len(Store(mapped).search("beach", k=3)) == 3  # a search needs no map
    with StoreWriter(mapped) as writer:
        writer.keep_map(kept_map(writer.store, 1), Regions(()))
    assert not list(problems_of(mapped))


def test_a_map_is_never_read_by_pickle(mapped):
    [name] = [part for part in Store(mapped).manifest.parts if part.startswith("map/")]
    np.save(mapped / name / "ids.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="ids.npy|map/"):
        _ = Store(mapped).map


@pytest.mark.parametrize("seed", range(3))
def test_new_pictures_are_placed_as_a_slow_loop_places_them(seed):
    random = np.random.default_rng(seed)
    landmarks = random.standard_normal((90, DIM)).astype(np.float16)
    points = random.integers(0, SIDE + 1, (90, 2)).astype(np.uint16)
    rows = random.standard_normal((7, DIM)).astype(np.float16)
    for row, found in zip(rows, place_like(rows, landmarks, points), strict=True):
        every = sorted(((float(row.astype(float) @ mark.astype(float)), at) for at, mark in enumerate(landmarks)), reverse=True)
        cosines = every[:NUM_NEAR]
        gaps = [cosines[0][0] - cosine for cosine, _ in cosines]
        weights = [math.exp(-gap / (sum(gaps) / len(gaps))) for gap in gaps]
        assert np.abs(found - _slow_consensus([points[at] for _, at in cosines], weights)).max() <= 2  # sums in float32


def _slow_consensus(points, weights) -> np.ndarray:
    def near(a, b) -> float:
        return math.exp(-sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)) / (2 * SPREAD**2))

    sums = [sum(weight * near(a, b) for b, weight in zip(points, weights, strict=True)) for a in points]
    best = points[max(range(len(sums)), key=lambda at: round(sums[at], 9))]
    shares = [weight * near(best, b) for b, weight in zip(points, weights, strict=True)]
    return np.array([sum(share * float(b[axis]) for share, b in zip(shares, points, strict=True)) / sum(shares) for axis in range(2)])


def test_consensus_is_among_the_most_and_never_between_two_groups():
    groups = np.array([[1000, 1000]] * 5 + [[60000, 60000]] * 3)
    found = consensus(groups, np.ones(8))
    assert np.abs(found.point - 1000).max() < 1 and found.share == 5 / 8


# -- filters -------------------------------------------------------------------------------------------------------------------------------


def test_a_polygon_has_the_points_that_a_slow_loop_finds():
    random = np.random.default_rng(0)
    points = random.integers(0, 50, (400, 2))
    for num in (3, 4, 7, 12):
        corners = random.integers(0, 50, (num, 2)).astype(float)
        wanted = [_slow_inside(x, y, corners.tolist()) for x, y in points.tolist()]
        assert are_inside(points, corners).tolist() == wanted


def _slow_inside(x: float, y: float, corners: list[list[float]]) -> bool:
    crossed = 0
    for (x1, y1), (x2, y2) in pairwise([*corners, corners[0]]):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            crossed += 1
    return crossed % 2 == 1


def test_polygons_that_share_a_side_have_each_point_once():
    points = np.stack(np.meshgrid(np.arange(11), np.arange(11)), axis=-1).reshape(-1, 2)
    left, right, whole = (np.array([[a, 0], [b, 0], [b, 10], [a, 10]]) for a, b in ((0, 5), (5, 10), (0, 10)))
    assert (are_inside(points, left).astype(int) + are_inside(points, right) == are_inside(points, whole)).all()


def test_a_drawn_filter_is_text_that_every_search_takes(mapped):
    store = Store(mapped)
    x, y = (store.map.points.astype(float) / SIDE * 1000).T
    wanted = store.ids[(x < 500) & (y < 500)].tolist()
    where = f'map inside "{store.map.version}: 0 0, 500 0, 500 500, 0 500"'
    assert sorted(store.select(where)) == sorted(wanted) and 0 < len(wanted) < len(store)
    assert sorted(store.select(f"not {where}")) == sorted(set(store.ids.tolist()) - set(wanted))
    assert sorted(store.select('map not inside "0 0, 500 0, 500 500, 0 500"')) == sorted(set(store.ids.tolist()) - set(wanted))
    assert {hit.id for hit in store.search("beach", k=40, where=f'{where} and set = "emoji"')} == {id for id in wanted if id % 2}


def test_an_id_is_a_column_of_every_store(path):
    store = Store(path)
    assert store.select("id in (5, 3, 25, 999)").tolist() == [5, 25]
    assert store.select("id >= 38").tolist() == [38, 39]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ('map inside "abc123: 0 0, 1 0, 1 1"', "made again since"),
        ('map inside "0 0, 1 0"', "no polygon"),
        ('map inside "0 0, 1 0, 1 -1"', "no polygon"),
        ("map inside nonsense", "no polygon"),
        ("map = 3", "which has: map inside"),
        ("map is missing", "which has: map inside"),
        ('name inside "0 0, 1 0, 1 1"', "name holds text"),
        ("map inside", "a value is missing"),
        (f'map inside "{", ".join(["1 1"] * 300)}"', "at most 200 corners"),
    ],
)
def test_a_wrong_selection_is_a_message(path, where, told):
    with pytest.raises(WhereError, match=told):
        Store(path).select(where)


def test_a_column_of_the_pictures_comes_before_ours(tmp_path, space_boxes):
    create_store(tmp_path / "store", space_boxes["wordvec"], family="wordvec", export="e" * 64)
    rows = np.random.default_rng(0).standard_normal((3, DIM))
    with StoreWriter(tmp_path / "store") as writer:
        writer.append(
            Segment(np.arange(3), rows, {"name": ["a"] * 3, "text": ["t"] * 3, "id": ["x", "y", "z"], "map": ["old", "new", "new"]})
        )
    assert Store(tmp_path / "store").select('id = "y" and map = "new"').tolist() == [1]


# -- regions -------------------------------------------------------------------------------------------------------------------------------


def _blobs(random: np.random.Generator, num: int) -> np.ndarray:
    centres = random.integers(5000, 60000, (6, 2))
    points = centres[random.integers(0, 6, num)] + random.normal(0, 2000, (num, 2))
    return np.clip(points, 0, SIDE).astype(np.uint16)


@pytest.mark.parametrize("seed", range(3))
def test_regions_are_those_of_a_slow_loop(seed):
    points = _blobs(np.random.default_rng(seed), 300)
    for num, labels in zip((3, 9), cut(points, levels=(3, 9), min_pictures=8), strict=True):
        assert _as_sets(labels) == _slow_cut(points.tolist(), num)


def _as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


def _slow_cut(points: list[list[int]], num: int) -> set[frozenset[int]]:
    """Halve the widest group again and again, one point at a time; points count by their cell of 256 x 256."""
    cells = [(x >> 8, y >> 8) for x, y in points]

    def mean(group):
        return [sum(cells[i][axis] for i in group) / len(group) for axis in range(2)]

    def spread(group):
        middle = mean(group)
        return round(sum((cells[i][axis] - middle[axis]) ** 2 for i in group for axis in range(2)), 6)

    def halves(group):
        middle = mean(group)
        a, b, c = (sum((cells[i][p] - middle[p]) * (cells[i][q] - middle[q]) for i in group) for p, q in ((0, 0), (0, 1), (1, 1)))
        angle = 0.5 * math.atan2(2 * b, a - c)
        right = {i for i in group if (cells[i][0] - middle[0]) * math.cos(angle) + (cells[i][1] - middle[1]) * math.sin(angle) > 0}
        for _ in range(50):
            left = [i for i in group if i not in right]
            if not left or not right:
                return None
            centres = [mean(left), mean(sorted(right))]
            distances = {i: [sum((cells[i][axis] - centre[axis]) ** 2 for axis in range(2)) for centre in centres] for i in group}
            moved = {i for i in group if round(distances[i][1] - distances[i][0], 9) < 0}
            if moved == right:
                break
            right = moved
        return ([i for i in group if i not in right], sorted(right)) if min(len(right), len(group) - len(right)) >= 8 else None

    groups = [list(range(len(points)))]
    while len(groups) < num:
        found = [(spread(group), -at) for at, group in enumerate(groups) if halves(group)]
        if not found:
            break
        at = -max(found)[1]
        left, right = halves(groups[at])
        groups[at] = left
        groups.append(right)
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("num", [0, 1, 7, 15, 16, 200])
def test_regions_are_within_larger_ones_and_large_enough(num):
    points = _blobs(np.random.default_rng(num), num)
    levels = cut(points) if num else []
    for labels in levels:
        counts = np.bincount(labels)
        assert len(counts) == 1 or counts.min() >= 8
    for outer, inner in pairwise(levels):
        assert len(set(zip(outer.tolist(), inner.tolist(), strict=True))) == len(set(inner.tolist()))
    if num >= 16:
        assert (cut(points[::-1])[0][::-1] == levels[0]).all()  # whatever order the pictures are in


def test_equal_points_are_one_region():
    assert all((labels == 0).all() for labels in cut(np.full((50, 2), 7, np.uint16)))


def test_a_region_is_named_by_what_is_near_it_and_not_near_everything():
    names, vectors = ["dog", "puppy", "grass", "photo"], np.eye(4)
    vectors[1] = [0.9, 0.436, 0, 0]
    near = np.array([[3.0, 2.9, 2.0, 0.0], [2.8, 2.6, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0]])
    first, second, nothing = choose_names(near, near, names, vectors)
    assert [word for word, _ in first] == ["dog", "grass", "puppy"]  # not "dog, puppy", which says it twice
    assert second[0] == ("puppy", 2.6) and nothing == []


def test_outlines_hold_their_points():
    random = np.random.default_rng(0)
    for num in (1, 2, 3, 9, 300):
        points = random.integers(0, SIDE, (num, 2))
        hull = outline_of(points)
        assert len(hull) <= 12 and set(hull) <= set(map(tuple, points.tolist()))
        if 3 <= num <= 9:
            for (x1, y1), (x2, y2) in pairwise([*hull, hull[0]]):
                assert min((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) for x, y in points.tolist()) >= 0


def test_regions_are_read_as_they_were_written(mapped):
    made = Store(mapped).map.regions
    assert made is not None and Regions.from_json(made.as_json()) == made and made.levels[0][0].name
    for wrong in ("{}", "[[{}]]", "[[3]]", "3", '[[{"x":1,"y":"2","num":1,"id":1,"words":[],"outline":[]}]]'):
        with pytest.raises(ValueError):
            Regions.from_json(wrong)


def test_regions_of_a_map_have_all_pictures_once_a_level(path):
    store = Store(path)
    for level in make_regions(store, store.map.points).levels:
        assert sum(region.num for region in level) == len(store) and all(region.id in store for region in level)


# -- queries -------------------------------------------------------------------------------------------------------------------------------


def test_a_picture_is_where_it_is_and_a_word_among_its_nearest_pictures(mapped):
    store = Store(mapped)
    found = place(store, "image:11 + beach without snow")
    picture, beach, snow = found.terms
    assert picture.point == places_of(mapped)[11] and picture.share == 1
    nearest = [hit.id for hit in store.search("beach", k=32)]
    assert list(beach.ids) == nearest and not beach.part.is_without and snow.part.is_without
    assert min(np.hypot(*np.subtract(beach.point, places_of(mapped)[id])) for id in nearest) < 2 * SPREAD
    assert list(found.ids) == [hit.id for hit in store.search("image:11 + beach without snow", k=300)]


def test_a_series_has_the_terms_of_its_ends(mapped):
    found = place(Store(mapped), "between beach and snow in 3")
    assert {term.part.term.content for term in found.terms} == {"beach", "snow"} and found.ids


# -- making --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_umap_keeps_what_is_alike_together_and_is_the_same_each_time(tmp_path, space_boxes, capsys):
    pytest.importorskip("umap", reason="needs the extra map")
    random = np.random.default_rng(0)
    kinds = np.repeat(np.arange(3), 20)
    rows = np.eye(DIM)[kinds] + random.normal(0, 0.1, (60, DIM))
    versions = []
    for name in ("a", "b"):
        create_store(tmp_path / name, space_boxes["wordvec"], family="wordvec", export="e" * 64)
        with StoreWriter(tmp_path / name) as writer:
            writer.append(Segment(np.arange(60), rows, {"name": ["n"] * 60, "text": ["beach dog"] * 60}))
        assert cli.main(["store", "map", str(tmp_path / name)]) == 0
        versions.append(Store(tmp_path / name).map.version)
    store = Store(tmp_path / "a")
    assert versions[0] == versions[1] and store.map.method == "umap" and store.map.regions is not None
    points = store.map.points.astype(float)
    distances = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    np.fill_diagonal(distances, np.inf)
    assert (kinds[distances.argmin(axis=1)] == kinds).mean() > 0.95
    assert cli.main(["store", "map", str(tmp_path / "a")]) == 0 and "is up to date" in capsys.readouterr().err
    assert not list(problems_of(tmp_path / "a"))


def test_too_few_pictures_are_no_map_of_umap(tmp_path, empty_store, capsys):
    assert cli.main(["store", "map", str(empty_store)]) == 2
    assert "needs at least 16 pictures" in capsys.readouterr().err
