"""Words that are akin to a query."""

from __future__ import annotations

import numpy as np

from multimodal.search.words import Words


def test_a_word_that_hardly_varies_over_the_store_is_not_near_every_query() -> None:
    units = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    words = Words(("dog", "puppy", "whoa"), units, np.zeros(3, np.float32), np.array([0.1, 0.1, 1e-3], np.float32))
    query = np.array([[3.0, 0.1, 0.2]])
    assert [one.word for one in words.akin(query, 3)[0]] == ["dog", "puppy", "whoa"]
    assert words.akin(query, 1)[0][0].nearness == np.float32(3 / np.sqrt(9.05))
    assert [one.word for one in words.near(query, 3)[0]][0] == "whoa"
