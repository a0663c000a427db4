"""`multimodal text-space show` says what a space holds."""

from __future__ import annotations

import numpy as np

from multimodal.cli import main
from multimodal.text import Normaliser, TopicSpace, Vocabulary, WordSpace


def test_show_prints_topics_or_frequent_words(tmp_path, capsys):
    vocabulary = Vocabulary(["dog", "beach", "violin"], np.array([3, 2, 1]), 5)
    topic_word = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], np.float32)
    TopicSpace(Normaliser(), vocabulary, topic_word, np.full(2, 0.1, np.float32)).save(tmp_path / "topics")
    WordSpace(Normaliser(), vocabulary, np.eye(3, dtype=np.float32)).save(tmp_path / "words")
    assert main(["text-space", "show", str(tmp_path / "topics"), "--num-words", "2"]) == 0
    shown = capsys.readouterr().out
    assert "family topic, 2 dimensions" in shown and "topic   0: beach violin" in shown and "topic   1: dog violin" in shown
    assert main(["text-space", "show", str(tmp_path / "words")]) == 0
    assert "most frequent: dog beach violin" in capsys.readouterr().out


def test_show_of_what_is_no_space_is_an_error(tmp_path, capsys):
    assert main(["text-space", "show", str(tmp_path)]) == 2
    assert "manifest.json" in capsys.readouterr().err
