"""The door `data-prep <job>`: names and lazy imports, no logic. Also: python -m data_prep <job>.

data-prep make-shards folder photos --output shards/photos
"""

from __future__ import annotations

import sys

from multimodal.doors.dispatch import Family, Verbs, run

VERBS: Verbs = {
    "make-shards": (
        "data_prep.shards.job:make_shards_verb",
        "turn pairs of a source into shards: data-prep make-shards folder photos --output D",
    ),
    "fit-text-space": Family(
        "data_prep.spaces.job:fit_text_space_verb",
        {
            "topics": ("data_prep.spaces:fit_topics", "LDA topics from the texts of shards"),
            "word2vec": ("data_prep.spaces:fit_word2vec", "word vectors from the texts of shards"),
            "fasttext": ("data_prep.spaces:fit_fasttext", "vectors of words and parts of words, so that any word has one"),
            "doc2vec": ("data_prep.spaces:fit_doc2vec", "vectors of texts that predict their words, and of the words"),
            "vectors": ("data_prep.spaces:from_vector_file", "word vectors from a GloVe, word2vec or FastText file"),
            "wordllama": ("data_prep.spaces:from_wordllama", "word vectors that come in a package, weighted by the texts of shards"),
            "encoder": ("data_prep.spaces:open_encoder", "a frozen sentence encoder"),
            "joined": ("data_prep.spaces:join_spaces", "several text spaces side by side, such as an encoder and word vectors"),
        },
    ),
    "make-columns": ("data_prep.spaces.columns:make_columns", "embed the texts of shards with a text space, as a column"),
    "dedup": ("data_prep.dedup.job:dedup", "find look-alike pictures, across shard sets and splits: data-prep dedup SHARDS --output D"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one job; the exit status."""
    return run(VERBS, "data-prep", argv)


if __name__ == "__main__":
    sys.exit(main())
