"""Concepts from made captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.evaluate.concepts import Concept, find_concepts, frequent, judge, read_concepts, shared_frames, word_sets

DOG, BALL = Concept(("dog", "dogs", "puppy")), Concept(("ball", "beach ball"))


def test_forms_of_a_word_are_one_concept_and_the_most_frequent_is_its_name() -> None:
    found = find_concepts([["Two dogs running", "dogs run near the beach"], ["A dog runs", "the women, a woman and women", "men"]])
    forms = {concept.name: set(concept.forms) for concept in found}
    assert forms["dogs"] == {"dog", "dogs"}
    assert forms["run"] == {"run", "runs", "running"}
    assert forms["women"] == {"woman", "women"}
    assert not {"the", "a", "and", "near"} & forms.keys()


def test_with_many_texts_one_alone_proves_nothing() -> None:
    texts = [["a dog", "a puppy", "grass"], ["a dog", "grass", "a field"], ["a cat", "grass", "a field"]]
    judged = judge(texts, [DOG])
    assert judged.shows[:, 0].tolist() == [True, False, False]
    assert judged.lacks[:, 0].tolist() == [False, False, True]  # the second picture is unclear


@pytest.mark.parametrize("others", [[], ["a field"]])
def test_with_one_or_two_texts_a_word_is_there_or_not(others: list[str]) -> None:
    judged = judge([["a dog", *others], ["a cat", *others]], [DOG])
    assert judged.shows[:, 0].tolist() == [True, False]
    assert judged.lacks[:, 0].tolist() == [False, True]


def test_a_caption_counts_once_however_often_it_names_a_concept() -> None:
    judged = judge([["dog dogs puppy", "grass", "grass"]], [DOG])
    assert (judged.shows.item(), judged.lacks.item()) == (False, False)


def test_phrases_are_whole_words_in_a_row() -> None:
    judged = judge([["a beach ball"], ["a ballpark"], ["beach-ball"], ["a beach, no balls"]], [Concept(("beach ball",))])
    assert judged.shows[:, 0].tolist() == [True, False, True, False]


def test_rare_and_common_concepts_are_left_out() -> None:
    texts = [["dog"]] * 3 + [["cat"]] * 2 + [["dog bird"]] + [["tree"]] * 14
    judged = judge(texts, [Concept((word,)) for word in ("dog", "cat", "bird", "tree")])
    assert [concept.name for concept in frequent(judged, 2, 0.3).concepts] == ["dog", "cat"]
    assert frequent(judged, 2, 0.3).shows.sum(axis=0).tolist() == [4, 2]


def test_a_concept_is_in_the_same_half_whatever_form_is_most_frequent() -> None:
    for forms in (("dog", "dogs"), ("runs", "running"), ("women", "woman")):
        assert Concept(forms).half == Concept(tuple(reversed(forms))).half
    assert {word: Concept((word,)).half for word in ("dog", "beach", "boy", "grass", "man")} == {
        "dog": "test",
        "beach": "test",
        "boy": "validation",
        "grass": "test",
        "man": "validation",
    }


def test_words_of_one_category_share_frames() -> None:
    texts = [["A man in red", "a woman in blue"], ["The man sits", "the woman sits"], ["a red man", "a blue woman in snow"]]
    concepts = [Concept((word,)) for word in ("man", "woman", "red")]
    frames = shared_frames(texts, concepts)
    assert frames[0, 1] == 2  # a _ in, the _ sits
    assert frames[0, 2] == 0
    assert (frames == frames.T).all()


def test_word_sets_join_the_forms_of_a_concept() -> None:
    assert word_sets([["Puppy running"], ["the dogs run", "ignored"]], [DOG]) == [{"dog", "run"}] * 2


def test_concepts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("dog, Dogs, puppy\n\nT-shirt\n")
    assert read_concepts(path) == [Concept(("dog", "dogs", "puppy")), Concept(("t shirt",))]
    assert judge([["a dog in a t-shirt"]], read_concepts(path)).shows.tolist() == [[True, True]]
    for text, problem in (("dog\ncat, dog", "line 2: 'dog' is in line 1 too"), ("\n", "has no concept"), ("dog, !", "without a letter")):
        path.write_text(text)
        with pytest.raises(InputError, match=problem):
            read_concepts(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_concepts(path)


def test_no_concepts_and_no_texts_are_defined() -> None:
    assert find_concepts([[]]) == []
    assert judge([["dog"]], []).shows.shape == (1, 0)
    assert shared_frames([], [DOG, BALL]).tolist() == [[0, 0], [0, 0]]
    assert np.array_equal(judge([], [DOG]).shows, np.zeros((0, 1), dtype=bool))
