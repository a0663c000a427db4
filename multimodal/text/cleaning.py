"""How the texts of CLIP models are cleaned before their tokenizers: open_clip's functions, without torch.

cleaned("A&nbsp;DOG &amp; a  cat", "lower")         # "a dog & a cat"

The original of the first two is OpenAI's (`simple_tokenizer.py` of CLIP), of the third big_vision's (`prompt_engineering.py`).
"""

from __future__ import annotations

import html
import string

from multimodal.errors import needing

OPEN_CLIPS = ("lower", "whitespace", "canonicalize")
"""How open_clip cleans a text before its tokenizer."""
CLEANINGS = (*OPEN_CLIPS, "none")
"""The same, and none: not at all, as transformers."""
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def cleaned(text: str, how: str) -> str:
    """The text with its encoding repaired, entities of HTML resolved and spaces joined; as it is for none. how: one of CLEANINGS."""
    if how == "none":
        return text
    with needing("search", "the text side of a CLIP model"):
        import ftfy  # imported here: the vocabularies of other spaces need none of it
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if how == "canonicalize":
        text = text.strip().replace("_", " ").translate(_NO_PUNCTUATION)
    text = " ".join(text.split())
    return text if how == "whitespace" else text.lower()
