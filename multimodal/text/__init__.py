"""Text: how texts become words, and how those become vectors. numpy; gensim, torch and transformers only inside what fits or encodes."""

from multimodal.text.normalise import Normaliser
from multimodal.text.space import TextSpace, open_space
from multimodal.text.vocabulary import Vocabulary

__all__ = ["Normaliser", "TextSpace", "Vocabulary", "open_space"]
