"""Text: how texts become words, and those vectors. numpy; gensim, torch and transformers only inside what fits or encodes."""

from multimodal.text.encoder import EncoderSpace
from multimodal.text.normalise import Normaliser
from multimodal.text.paragraphs import Doc2VecSpace, fit_doc2vec
from multimodal.text.space import TextSpace, open_space
from multimodal.text.subwords import FastTextSpace, fit_fasttext
from multimodal.text.topics import TopicSpace, fit_topics
from multimodal.text.vector_files import from_vector_file
from multimodal.text.vocabulary import Vocabulary
from multimodal.text.words import WordSpace, fit_word2vec, from_wordllama

__all__ = [
    "Doc2VecSpace",
    "EncoderSpace",
    "FastTextSpace",
    "Normaliser",
    "TextSpace",
    "TopicSpace",
    "Vocabulary",
    "WordSpace",
    "fit_doc2vec",
    "fit_fasttext",
    "fit_topics",
    "fit_word2vec",
    "from_vector_file",
    "from_wordllama",
    "open_space",
]
