"""A box is opened by the class that it names, and refused where it is not whole or its parts do not belong together."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from multimodal.errors import InputError
from multimodal.text import Normaliser, TextSpace, Vocabulary, WordSpace, open_space
from multimodal.text.conformance import check_space
from multimodal.text.space import open_tensors

OUTSIDE = '''
"""A text space as a user writes one, in a package of their own: how often each vowel is in a text."""
import json
from pathlib import Path
import numpy as np
from multimodal.text.space import BoxedSpace, Origin, open_box, origin_of


class Vowels(BoxedSpace):
    family = "wordvec"

    def __init__(self, letters="aeiou", origin=Origin()):
        self.letters = letters
        self.origin = origin

    @property
    def dim(self):
        return len(self.letters)

    def embed(self, texts):
        return np.array([[text.count(letter) for letter in self.letters] for text in texts], np.float32).reshape(-1, self.dim)

    def unknown_words(self, text):
        return {word: [] for word in text.split() if not set(word) & set(self.letters)}

    def _files(self):
        return {"letters.json": json.dumps(self.letters).encode()}

    def _settings(self):
        return {}

    def _counts(self):
        return {"dim": self.dim}

    @classmethod
    def load(cls, path):
        manifest = open_box(path, cls)
        return cls(json.loads((path / "letters.json").read_text()), origin_of(manifest))


class NoSpace:
    pass
'''


@pytest.fixture
def box(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    WordSpace(Normaliser(), Vocabulary(["dog", "beach", "violin"], np.array([3, 2, 1]), 5), vectors).save(tmp_path / "box")
    return tmp_path / "box"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__("theirs")
    sys.modules.pop("theirs")


def rename_class(box, named):
    manifest = json.loads((box / "manifest.json").read_text())
    manifest["config"]["class"] = named
    (box / "manifest.json").write_text(json.dumps(manifest))


def test_a_space_of_ones_own_keeps_the_contract(outside, tmp_path):
    space = outside.Vowels()
    assert isinstance(space, TextSpace)
    check_space(space, ["a dog", "beach", "violin"], tmp_path / "boxes")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("no_such_package.Space", "cannot be imported"),
        ("multimodal.text.words.NoSpace", "cannot be imported"),
        ("theirs.NoSpace", "is not a text space: it has no family"),
        ("json.dumps", "is not a class, so it was not called"),
        ("", "must be the path of a text space's class"),
        (None, "must be the path of a text space's class"),
    ],
)
def test_a_class_that_is_no_text_space_is_an_error_also_where_it_is_trusted(box, outside, named, message):
    rename_class(box, named)
    with pytest.raises(InputError, match=message):
        open_space(box, trust=["no_such_package", "multimodal", "theirs", "json"])


def test_a_space_of_ones_own_is_opened_where_its_package_is_trusted_and_nowhere_else(outside, tmp_path):
    outside.Vowels().save(tmp_path / "vowels")
    assert open_space(tmp_path / "vowels", trust=["theirs"]).dim == 5
    for trust in ((), ("their",), ("theirs.other",), ("multimodal",)):
        with pytest.raises(InputError, match=r"theirs\.Vowels, which is not one of this project's .*add: --trust theirs"):
            open_space(tmp_path / "vowels", trust=trust)


def test_a_space_is_not_opened_by_another_class_than_its_own(box):
    from multimodal.text import TopicSpace

    with pytest.raises(InputError, match=r"this is a multimodal\.text\.words\.WordSpace"):
        TopicSpace.load(box)


def test_another_vocabulary_in_the_box_is_an_error(box):
    (box / "vocab.txt").write_text("beach\ndog\nviolin\n")
    with pytest.raises(InputError, match=r"vocab\.txt: not the file that this space was saved with"):
        open_space(box)


@pytest.mark.parametrize("name", ["vocab.txt", "normaliser.json", "weights.safetensors"])
def test_a_file_that_is_missing_or_cut_is_an_error_that_names_it(box, name):
    content = (box / name).read_bytes()
    (box / name).write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{name}: not the file"):
        open_space(box)
    (box / name).unlink()
    with pytest.raises(InputError, match=f"{name} is in the manifest but missing"):
        open_space(box)


def test_what_is_no_box_is_an_error(tmp_path, box):
    with pytest.raises(InputError, match="does not exist"):
        open_space(tmp_path / "nothing")
    (box / "manifest.json").unlink()
    with pytest.raises(InputError, match="unfinished"):
        open_space(box)


def test_a_copy_of_a_box_has_the_fingerprint_of_the_original(box, tmp_path):
    shutil.copytree(box, tmp_path / "copy")
    assert open_space(tmp_path / "copy").fingerprint == open_space(box).fingerprint


def test_origin_is_kept_and_counts_in_the_fingerprint(tmp_path):
    from multimodal.text.space import Origin

    vocabulary = Vocabulary(["dog"], np.ones(1), 1)
    spaces = [
        WordSpace(Normaliser(), vocabulary, np.ones((1, 2), np.float32), origin=Origin({"seed": seed}, {"shards": "3f"})) for seed in (0, 1)
    ]
    assert spaces[0].fingerprint != spaces[1].fingerprint
    spaces[0].save(tmp_path)
    opened = open_space(tmp_path)
    assert opened.origin == spaces[0].origin and opened.manifest.made_from == {"shards": "3f"}


def test_tensors_are_mapped_as_they_were_written(tmp_path):
    from safetensors.numpy import save_file

    tensors = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array([7], np.int64), "none": np.zeros((0, 4), np.float32)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"by": "us"})
    opened = open_tensors(tmp_path / "x.safetensors")
    assert opened.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(opened[name], tensor) and opened[name].dtype == tensor.dtype and opened[name].shape == tensor.shape


def test_near_spellings_are_looked_for_of_the_first_unknown_words_alone(monkeypatch):
    looked_for = []
    monkeypatch.setattr(Vocabulary, "near", lambda self, word: looked_for.append(word) or [])
    space = WordSpace(Normaliser(), Vocabulary(("beach", "snow"), np.array([1, 1]), 2), np.eye(2, dtype=np.float32))
    found = space.unknown_words(" ".join(f"{first}{second}zq" for first in "abcdefghij" for second in "abcdefghij"))
    assert len(found) == 100 and len(looked_for) < 10
