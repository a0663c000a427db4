"""The door `data-prep <job>`: names and lazy imports, no logic. Also: python -m data_prep <job>.

data-prep make-shards folder photos --output shards/photos
"""

from __future__ import annotations

import sys

from multimodal.door import Verbs, run

VERBS: Verbs = {
    "make-shards": (
        "data_prep.make_shards:make_shards_verb",
        "pairs of a source into shards: data-prep make-shards folder photos --output D",
    ),
    "fit-text-space": {
        "topics": ("data_prep.fit_text_space:fit_topics", "LDA topics from the texts of shards"),
        "word2vec": ("data_prep.fit_text_space:fit_word2vec", "word vectors from the texts of shards"),
        "fasttext": ("data_prep.fit_text_space:fit_fasttext", "vectors of words and parts of words, so that any word has one"),
        "doc2vec": ("data_prep.fit_text_space:fit_doc2vec", "vectors of texts that foretell their words, and of words beside them"),
        "vectors": (
            "data_prep.fit_text_space:read_vectors",
            "word vectors of a GloVe, word2vec or FastText file",
        ),
        "wordllama": ("data_prep.fit_text_space:fit_wordllama", "word vectors that come in a package, weighted by the texts of shards"),
        "encoder": ("data_prep.fit_text_space:fit_encoder", "a frozen sentence encoder"),
    },
    "make-columns": ("data_prep.make_columns:make_columns", "the texts of shards as rows of a text space"),
    "dedup": ("data_prep.dedup:dedup", "pictures that look alike, over shard sets and their parts: data-prep dedup SHARDS --output D"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one job; the exit status."""
    return run(VERBS, "data-prep", argv)


if __name__ == "__main__":
    sys.exit(main())
