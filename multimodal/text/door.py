"""The verb `multimodal text-space show`: what a text space holds.

multimodal text-space show spaces/lda40
"""

from __future__ import annotations

from pathlib import Path

from multimodal.text.space import open_space
from multimodal.text.topics import TopicSpace
from multimodal.text.words import WordSpace


def show(space: Path, num_words: int = 10) -> None:
    """Print what a text space is: class, dimensions, fingerprint, and its topics' top words or its most frequent words.

    Args:
        space: the folder of the text space.
        num_words: words shown for each topic, or in all.
    """
    opened = open_space(space)
    print(f"{space}: {type(opened).__name__}, family {opened.family}, {opened.dim} dimensions, {opened.fingerprint[:12]}")
    if isinstance(opened, TopicSpace | WordSpace):
        print(f"{len(opened.vocabulary)} words, fitted on {opened.vocabulary.num_documents} documents")
    if isinstance(opened, TopicSpace):
        for number, top in enumerate(opened.top_words(num_words)):
            print(f"  topic {number:3d}: {' '.join(top)}")
    elif isinstance(opened, WordSpace):
        print(f"  most frequent: {' '.join(opened.vocabulary.words[:num_words])}")
