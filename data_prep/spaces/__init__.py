"""Fit text spaces: each function takes texts and returns a space of `multimodal.text`, which opens without the library that fitted it.

Its signature and docstring become the options of its verb, beside those of `data_prep.spaces.job`.
"""

from data_prep.spaces.encoder import open_encoder
from data_prep.spaces.joined import join_spaces
from data_prep.spaces.paragraphs import fit_doc2vec
from data_prep.spaces.subwords import fit_fasttext
from data_prep.spaces.topics import fit_topics
from data_prep.spaces.vector_files import from_vector_file
from data_prep.spaces.words import fit_word2vec, from_wordllama

__all__ = [
    "fit_doc2vec",
    "fit_fasttext",
    "fit_topics",
    "fit_word2vec",
    "from_vector_file",
    "from_wordllama",
    "join_spaces",
    "open_encoder",
]
