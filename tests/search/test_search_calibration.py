"""The calibration: its moments are those of the rows, and a store keeps it through every change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.boxes.arrays import read_array, write_array
from multimodal.errors import InputError
from multimodal.search import calibration as module
from multimodal.search.calibration import EVERYDAY, MIN_STD, Calibration, calibrate, check_template, frequent_words, word_vectors
from multimodal.search.fusion import CalibratedProduct, VectorSum
from multimodal.search.generation import fusion_fingerprint
from multimodal.search.query import answer, search
from multimodal.search.segments import Segment
from multimodal.search.store import Store
from multimodal.search.writing import StoreWriter, create_store
from multimodal.text import TextSpace, open_space
from multimodal.verify import problems_of

TEXTS = ("a beach", "snow on a dog", "a sunset and the sunset", "")


@pytest.fixture(scope="module")
def space(space_boxes) -> TextSpace:
    return open_space(space_boxes["wordvec"])


def _rows(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float16)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _texts(n: int) -> list[str]:
    return [TEXTS[at % 4] for at in range(n)]


# -- what it computes ----------------------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 60), seed=st.integers(0, 100))
def test_moments_are_mean_and_standard_deviation_of_the_cosines_over_the_rows(space, n, seed):
    rows, terms = _rows(seed, n), _unit(_rows(seed + 1000, 5))
    mean, std = calibrate(np.arange(n), rows, _texts(n), space, "{}").moments(terms)
    cosines = terms @ _unit(rows).T
    np.testing.assert_allclose(mean, cosines.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(std, np.maximum(cosines.std(axis=1), MIN_STD), atol=1e-7)


def test_a_term_that_is_equally_far_from_all_rows_has_the_least_deviation(space):
    for n in (0, 1, 40):
        mean, std = calibrate(np.arange(n), np.tile(_rows(0, 1), (n, 1)), _texts(n), space, "{}").moments(_unit(_rows(1, 1)))
        assert std.tolist() == [MIN_STD] and np.isfinite(mean).all()


@given(seed=st.integers(0, 100), random=st.randoms())
def test_the_order_of_rows_does_not_change_a_bit(space, seed, random):
    n = 30
    ids, rows, texts = np.arange(0, 3 * n, 3), _rows(seed, n), _texts(n)
    order = random.sample(range(n), n)
    moved = calibrate(ids[order], rows[order], [texts[at] for at in order], space, "{}")
    assert moved.as_array().tobytes() == calibrate(ids, rows, texts, space, "{}").as_array().tobytes()


def test_above_its_limit_rows_are_taken_evenly_by_id(space, monkeypatch):
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    ids, rows, texts = np.arange(25)[::-1], _rows(0, 25), _texts(25)
    whole = calibrate(ids, rows, texts, space, "{}")
    chosen = np.arange(0, 25, 3)  # of 25 rows each third, which are no more than 10
    kept = np.isin(ids, chosen)
    monkeypatch.setattr(module, "MAX_ROWS", 1000)
    some = calibrate(ids[kept], rows[kept], [text for text, keep in zip(texts, kept, strict=True) if keep], space, "{}")
    assert whole.as_array().tobytes() == some.as_array().tobytes()
    np.testing.assert_allclose(whole.mean_row, _unit(rows[kept]).mean(axis=0), atol=1e-12)


def test_an_array_holds_all_of_it(space):
    made = calibrate(np.arange(20), _rows(0, 20), _texts(20), space, "a {} here")
    array = made.as_array()
    again = Calibration.from_array(array, "a {} here")
    assert array.shape == (10 + len(made.words), 8) and len(made.words) and array.dtype == np.float64
    for name in ("mean_row", "covariance", "mean_term", "template", "words"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made, name))


def test_words_are_counted_once_a_text_and_everyday_ones_follow(space):
    texts = ["snow snow snow snow", "the beach", "a beach", "dog beach", "zxqv", "snow dog"]
    assert frequent_words(texts, space)[:3] == ["beach", "dog", "snow"]  # dog and snow twice each: by spelling
    rest = frequent_words(texts, space)[3:]
    known = [word for word in EVERYDAY if space.embed([word]).any()]
    assert rest == [word for word in known if word not in ("beach", "dog", "snow")] and "woman" in rest
    assert "zxqv" not in frequent_words(texts, space) and "the" not in frequent_words(texts, space)


def test_the_mean_term_is_that_of_unit_vectors_in_the_template(space):
    words = frequent_words(_texts(8), space)
    inside = np.stack([space.embed([f"a man and {word}"])[0] for word in words])
    np.testing.assert_allclose(word_vectors(_texts(8), space, "a man and {}"), _unit(inside), atol=1e-6)
    made = calibrate(np.arange(8), _rows(0, 8), _texts(8), space, "a man and {}")
    np.testing.assert_allclose(made.mean_term, _unit(inside).mean(axis=0), atol=1e-6)


def test_an_unknown_word_stays_unknown_in_a_template_of_known_words(space):
    made = calibrate(np.arange(9), _rows(0, 9), _texts(9), space, "man and {}")
    assert not made.embed("zxqv", space).any() and not made.embed("!!", space).any()
    np.testing.assert_allclose(np.linalg.norm(made.embed("zxqv snow", space)), 1)
    np.testing.assert_allclose(made.embed("snow", space), _unit(_unit(space.embed(["man and snow"])[0]) - made.mean_term), atol=1e-12)
    four_words = "snow on the beach"
    np.testing.assert_allclose(made.embed(four_words, space), _unit(space.embed([four_words])[0]), atol=1e-12)


@pytest.mark.parametrize("template", ["", "a photo", "{} and {}", "{word}", "{}}", "{{}}", "{0}", "{!r} {}"])
def test_a_template_without_one_place_for_the_phrase_is_refused(template):
    with pytest.raises(InputError, match=r"expected a text with one \{\}, where the phrase goes"):
        check_template(template)
    with pytest.raises(InputError, match=r"expected a text with one \{\}"):
        Calibration(np.zeros(2), np.eye(2), np.zeros(2), template)


# -- in a store ----------------------------------------------------------------------------------------------------------------------------


def _segment(ids: list[int], seed: int = 0) -> Segment:
    rows = np.stack([np.random.default_rng([seed, id]).standard_normal(8) for id in ids])
    return Segment(np.array(ids), rows, {"name": [f"{id}.png" for id in ids], "text": [TEXTS[id % 4] for id in ids]})


@pytest.fixture
def path(tmp_path: Path, space_boxes) -> Path:
    """A store of forty pictures that keeps its calibration."""
    create_store(tmp_path / "store", space_boxes["wordvec"], family="wordvec", export="e" * 64)
    with StoreWriter(tmp_path / "store") as writer:
        writer.append(_segment(list(range(25))))
        writer.append(_segment(list(range(25, 40))))
        writer.calibrate()
    return tmp_path / "store"


def _array(path: Path) -> bytes:
    return Store(path).calibration.as_array().tobytes()


def test_a_store_keeps_what_it_would_compute_however_it_is_cut(path, tmp_path, space_boxes):
    create_store(tmp_path / "other", space_boxes["wordvec"], family="wordvec", export="e" * 64)
    with StoreWriter(tmp_path / "other") as writer:
        for start in (30, 0, 10, 20):
            writer.append(_segment(list(range(start, start + 10))))
    assert _array(path) == Store(path).calibrated().as_array().tobytes() == _array(tmp_path / "other")
    assert Store(path).fitted["rows"] == 40 and Store(tmp_path / "other").fitted is None


def test_appending_deleting_and_compacting_keep_the_constants(path):
    before, facts = _array(path), Store(path).fitted
    with StoreWriter(path) as writer:
        for change in (
            lambda: writer.append(_segment([50, 51])),
            lambda: writer.delete([3, 50]),
            writer.compact,
            lambda: writer.delete(writer.store.ids),
            writer.compact,
            lambda: writer.append(_segment([7])),
        ):
            change()
            assert _array(path) == before and Store(path).fitted == facts and not list(problems_of(path))
        writer.calibrate()
    assert Store(path).fitted["rows"] == 1 and _array(path) != before
    assert len(list((path / "fusion").iterdir())) <= 2  # of this generation, and of the one before


def test_calibrating_again_keeps_template_way_and_figures_unless_others_are_given(path):
    with StoreWriter(path) as writer:
        writer.calibrate("man and {}", CalibratedProduct(sharpness=2.0), {"share": 0.5})
        writer.append(_segment([60]))
        writer.calibrate()
    store = Store(path)
    assert store.fusion == CalibratedProduct(sharpness=2.0) and store.calibration.template == "man and {}"
    assert store.fitted["figures"] == {"share": 0.5} and store.fitted["rows"] == 41
    with StoreWriter(path) as writer:
        writer.calibrate(fusion=VectorSum(), figures={})
    assert Store(path).fusion == VectorSum() and Store(path).fitted["figures"] == {}
    with StoreWriter(path) as writer, pytest.raises(InputError, match=r"expected a text with one \{\}"):
        writer.calibrate("no place")


def _change(path: Path, change: Callable[[dict[str, Any]], object], array: np.ndarray | None = None) -> None:
    """Rewrite what the manifest says of the calibration, under the same name. array: with the hash that fits it and the manifest."""
    manifest = json.loads((path / "manifest.json").read_text())
    [name] = [part for part in manifest["parts"] if part.startswith("fusion/")]
    facts = manifest["parts"][name]
    change(facts)
    if array is not None:
        facts["fingerprint"] = fusion_fingerprint(array, facts)
    (path / "manifest.json").write_text(json.dumps(manifest))


def _as_an_older_release_left_it(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["parts"] = {name: facts for name, facts in manifest["parts"].items() if not name.startswith("fusion/")}
    (path / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(path / "fusion")


def test_a_store_of_an_older_release_is_calibrated_on_opening_and_answers_alike(path):
    queries = ("beach", "beach + snow without dog", "image:3 + snow instead of man", "near:5 - beach")
    before = [answer(Store(path), query).hits for query in queries]
    _as_an_older_release_left_it(path)
    assert Store(path).fitted is None and not list(problems_of(path))
    assert [answer(Store(path), query).hits for query in queries] == before
    with StoreWriter(path) as writer:
        writer.calibrate()
    assert [answer(Store(path), query).hits for query in queries] == before


def test_a_calibration_is_of_the_text_s_side_as_well(path):
    """The frequent words are the store's own: other texts make another mean term, and the same moments."""
    store = Store(path)
    other = calibrate(store.ids, store.rows, ["woman scientist"] * len(store), store.query_space, "{}")
    np.testing.assert_array_equal(other.covariance, store.calibration.covariance)
    assert "scientist" not in EVERYDAY and np.abs(other.mean_term - store.calibration.mean_term).max() > 0.01


# -- damage --------------------------------------------------------------------------------------------------------------------------------


def _replace(path: Path, array: np.ndarray) -> None:
    """Another array, with the hash that fits it: what only a stranger would do."""
    [file] = (path / "fusion").iterdir()
    write_array(file, array)
    _change(path, lambda facts: None, array)


DAMAGES = {
    "cut": (lambda path, file: file.write_bytes(file.read_bytes()[:100]), ""),
    "another file": (lambda path, file: write_array(file, np.zeros((10, 8))), "it is not the calibration that was written"),
    "another hash": (lambda path, file: _change(path, lambda facts: facts.update(fingerprint="0" * 64)), "not the calibration that was"),
    "gone": (lambda path, file: file.unlink(), r"is gone: .* or is damaged"),
    "another shape": (lambda path, file: _replace(path, np.zeros((8, 8))), "10 x 8 finite numbers, and this is"),
    "another type": (lambda path, file: _replace(path, np.zeros((10, 8), np.float32)), "10 x 8 finite numbers, and this is"),
    "words": (lambda path, file: _replace(path, np.full((10, 8), "a")), "10 x 8 finite numbers, and this is"),
    "not finite": (lambda path, file: _replace(path, np.full((10, 8), np.nan)), "10 x 8 finite numbers, and this is"),
    "template": (
        lambda path, file: _change(path, lambda facts: facts.update(template="{0}"), read_array(file)),
        r"fusion/0+3\.npy: template",
    ),
    "constants": (
        lambda path, file: _change(path, lambda facts: facts["init_args"].update(sharpness=1e9)),
        "such as the constants, it is not the calibration that was written",
    ),
    "figures": (lambda path, file: _change(path, lambda facts: facts["figures"].update(mAP=99)), "not the calibration that was written"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_calibration_is_an_error_that_names_it_and_verify_reports_it(path, damage):
    [file] = (path / "fusion").iterdir()
    change, said = DAMAGES[damage]
    change(path, file)
    with pytest.raises(InputError, match=f"fusion/{file.name}.*{said}" if "template" not in damage else said):
        search(Store(path), "beach")
    [problem] = problems_of(path)
    assert problem.where == f"fusion/{file.name}" and problem.reason


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("class_path", 7, "class_path is 7; expected str"),
        ("class_path", "product", "names 'product'; expected the path of a class"),
        ("class_path", "multimodal.search.store.Store", "add: --trust multimodal"),
        ("init_args", [], r"init_args is \[\]; expected dict"),
        ("init_args", {"sharpness": "1"}, "sharpness='1' does not fit; expected float"),
        ("init_args", {"sharpness": float("nan")}, "sharpness=nan: expected a positive number"),
        ("init_args", {"absence": float("inf")}, "absence=inf: expected a positive number"),
        ("init_args", {"threshold": 10**400}, "does not fit"),
        ("init_args", {"softness": 1.0}, "has no argument 'softness'. It has: sharpness"),
        ("init_args", {"sharpness": {"class_path": "os.system", "init_args": {"command": "false"}}}, "does not fit"),
        ("figures", "many", "figures is 'many'; expected dict"),
        ("template", None, "template is None; expected str"),
        ("rows", -1, "rows is -1"),
        ("fingerprint", None, "fingerprint is None"),
    ],
)
def test_odd_entries_of_the_manifest_are_errors_that_name_them_and_verify_reports_them(path, entry, value, said):
    _change(path, lambda facts: facts.update({entry: value}))
    with pytest.raises(InputError, match=said) as refused:
        search(Store(path), "beach")
    assert str(path) in str(refused.value)
    problems = list(problems_of(path))
    assert len(problems) == 1 and problems[0].reason
    _change(path, lambda facts: facts.pop(entry))
    with pytest.raises(InputError, match=f"{entry} is missing"):
        Store(path)


def test_many_words_at_once_are_embedded_as_one_by_one(path):
    store = Store(path)
    for template in ("{}", "a photo of {}"):
        calibration = store.calibrated(template)
        words = ["beach", "zxqv", "snow", "dog"]
        one_by_one = np.stack([calibration.embed(word, store.query_space) for word in words])
        np.testing.assert_allclose(calibration.embed_words(words, store.query_space), one_by_one, atol=1e-12)
        assert calibration.embed_words([], store.query_space).shape[0] == 0
