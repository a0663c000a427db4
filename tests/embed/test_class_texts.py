from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from multimodal.embed.class_texts import centred, class_weights, predict, read_class_texts, read_names, read_templates, text_weights
from multimodal.errors import InputError

CLASSES = ("airplane", "deer", "ratio 1: 2")
TEMPLATES = ("a photo of a {}", "a small {}", "{}")


def embed(texts: Sequence[str]) -> np.ndarray:
    """The sum of a vector for each known word; zeros if none is known."""
    words = sorted("a photo of small airplane deer cat the flies stands".split())
    vectors = dict(zip(words, np.random.default_rng(0).standard_normal((len(words), 6)), strict=True))
    return np.array([sum((vectors[word] for word in text.split() if word in vectors), np.zeros(6)) for text in texts])


def length_one(row: np.ndarray) -> np.ndarray:
    return row / np.sqrt((row**2).sum())


# -- vectors -------------------------------------------------------------------------------------------------------------------------------


def test_a_class_is_the_mean_of_its_texts_each_at_unit_length() -> None:
    weights = class_weights(embed, ("airplane", "deer"), TEMPLATES)
    for row, name in zip(weights, ("airplane", "deer"), strict=True):
        of_each = [length_one(embed([template.format(name)])[0]) for template in TEMPLATES]
        np.testing.assert_allclose(row, length_one(np.mean(of_each, axis=0)), atol=1e-6)


def test_sentences_of_a_class_are_averaged_as_templates_are() -> None:
    texts = [[template.format(name) for template in TEMPLATES] for name in ("airplane", "deer")]
    assert (text_weights(embed, texts) == class_weights(embed, ("airplane", "deer"), TEMPLATES)).all()
    uneven = text_weights(embed, [["the deer stands"], ["the airplane flies", "a airplane", "airplane"]])
    np.testing.assert_allclose(uneven[0], length_one(embed(["the deer stands"])[0]), atol=1e-6)


def test_a_class_without_a_known_word_has_no_vector_even_if_the_template_has_known_words() -> None:
    weights = class_weights(embed, ("airplane", "zxqv", "deer"), TEMPLATES)
    assert weights.any(axis=1).tolist() == [True, False, True]
    assert embed(["a photo of a zxqv"]).any()


def test_a_text_without_a_known_word_does_not_move_the_others_of_its_class() -> None:
    assert (text_weights(embed, [["a deer", "zxqv"], ["a cat"]]) == text_weights(embed, [["a deer"], ["a cat"]])).all()


def test_braces_in_a_name_are_letters_like_others() -> None:
    seen: list[str] = []

    def remember(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.ones((len(texts), 2))

    class_weights(remember, ("{0}", "{}"), ("a {}",))
    assert seen[:2] == ["a {0}", "a {}"]


def test_centring_subtracts_the_mean_of_known_classes_and_leaves_the_rest() -> None:
    weights = class_weights(embed, ("airplane", "zxqv", "deer", "cat"))
    known = weights[[0, 2, 3]].astype(np.float64)
    moved = centred(weights)
    assert not moved[1].any()
    for row, before in zip(moved[[0, 2, 3]], known, strict=True):
        np.testing.assert_allclose(row, length_one(before - known.mean(axis=0)), atol=1e-6)
    assert (class_weights(embed, ("airplane", "zxqv", "deer", "cat"), centre=True) == moved).all()


def test_centring_classes_that_are_all_alike_leaves_them_alike() -> None:
    weights = text_weights(embed, [["a deer"], ["a deer"], ["a deer"]])
    assert (centred(weights) == weights).all()


def test_a_prediction_is_the_nearest_class_by_cosine_at_any_length() -> None:
    random = np.random.default_rng(1)
    rows, weights = random.standard_normal((40, 6)), random.standard_normal((5, 6))
    expected = [int(np.argmax([length_one(row) @ length_one(weight) for weight in weights])) for row in rows]
    assert predict(rows * random.uniform(0.1, 9, (40, 1)), 3 * weights).tolist() == expected


def test_an_unknown_class_is_never_predicted_even_where_all_others_are_far() -> None:
    weights = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert predict(np.array([[-1.0, -2.0], [-2.0, -1.0]]), weights).tolist() == [1, 2]


def test_no_pictures_have_no_predictions() -> None:
    assert predict(np.empty((0, 2)), np.eye(2)).shape == (0,)


# -- files ---------------------------------------------------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "texts.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_templates_are_the_lines_that_are_not_empty(tmp_path: Path) -> None:
    assert read_templates(written(tmp_path, "\ufeffa photo of a {}.\n\n  a {}  \n")) == ("a photo of a {}.", "a {}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {}\na photo\n", r"texts\.txt, line 2: template 'a photo': expected a text with one \{\}"),
        ("a {} and a {}\n", r"texts\.txt, line 1: template 'a \{\} and a \{\}'"),
        ("a {name}\n", "line 1: template"),
        ("\n \n", r"texts\.txt: is empty\. Write one template a line, such as: a photo of a \{\}\."),
    ],
)
def test_a_template_without_one_place_for_the_name_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_templates(written(tmp_path, text))


def test_names_come_in_the_order_of_the_classes_or_with_them(tmp_path: Path) -> None:
    assert read_names(written(tmp_path, "plane\nstag\none half\n"), CLASSES) == ("plane", "stag", "one half")
    keyed = "ratio 1: 2: one half\ndeer: stag: male\nairplane: plane\n"
    assert read_names(written(tmp_path, keyed), CLASSES) == ("plane", "stag: male", "one half")


def test_a_class_may_have_several_texts(tmp_path: Path) -> None:
    text = "deer: a deer\nairplane: a plane\ndeer: deer in the woods\nratio 1: 2: half\n"
    assert read_class_texts(written(tmp_path, text), CLASSES) == [["a plane"], ["a deer", "deer in the woods"], ["half"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"texts\.txt: is empty"),
        (
            "plane\nstag\n",
            r"has 2 lines for 3 classes\. Write one line for each, in this order: airplane, deer, ratio 1: 2; or .* airplane: plane",
        ),
        ("airplane: plane\nder: stag\nratio 1: 2: x\n", r"line 2: 'der: stag' does not begin with a class.* Did you mean deer"),
        ("airplane: plane\n", r"has no text for 2 of 3 classes: deer, ratio 1: 2\. Add a line for each"),
        ("airplane: a\ndeer: b\ndeer: c\nratio 1: 2: d\n", r"class 'deer' has 2 names\. Give it one, or give these texts as --sentences"),
    ],
)
def test_names_that_do_not_fit_the_classes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_names(written(tmp_path, text), CLASSES)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.txt: cannot be read"):
        read_templates(tmp_path / "nowhere.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="bytes.txt: is not text in UTF-8"):
        read_templates(tmp_path / "bytes.txt")
