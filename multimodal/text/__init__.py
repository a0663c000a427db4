"""Text spaces: how texts become words, and words vectors. `data_prep.spaces` fits them.

Opening and using one needs only numpy; an encoder imports torch and transformers at first use.
"""

from multimodal.text.clip import OpenClipSpace
from multimodal.text.encoder import EncoderSpace
from multimodal.text.joined import JoinedSpace
from multimodal.text.no_texts import NoTexts
from multimodal.text.normalise import Normaliser
from multimodal.text.opening import open_space
from multimodal.text.paragraphs import Doc2VecSpace
from multimodal.text.projected import ProjectedSpace
from multimodal.text.space import TextSpace
from multimodal.text.subwords import FastTextSpace
from multimodal.text.topics import TopicSpace
from multimodal.text.vocabulary import Vocabulary
from multimodal.text.words import WordSpace

__all__ = [
    "Doc2VecSpace",
    "EncoderSpace",
    "FastTextSpace",
    "JoinedSpace",
    "NoTexts",
    "Normaliser",
    "OpenClipSpace",
    "ProjectedSpace",
    "TextSpace",
    "TopicSpace",
    "Vocabulary",
    "WordSpace",
    "open_space",
]
