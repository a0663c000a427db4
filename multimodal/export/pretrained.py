"""A pretrained CLIP model of open_clip as the parts of an export: nothing is trained.

parts = read_pretrained("local-dir:downloads/ViT-B-32", scratch)      # or "ViT-B-32/laion2b_s34b_b79k", which downloads
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multimodal.objectives import Clip, Objective, SigLip
from multimodal.objectives.contrastive import begin_at
from multimodal.text.clip import OpenClipSpace
from multimodal.text.long_texts import LongTexts
from multimodal.text.space import Origin
from multimodal.towers.clip import ClipTextTower, ClipTrunk, OpenClipTrunk
from multimodal.towers.pretrained import read_once


@dataclass(frozen=True, slots=True)
class Pretrained:
    """The parts of an export. objective: what the model was trained with, whose scale and bias it keeps."""

    trunk: OpenClipTrunk
    objective: Objective
    query: OpenClipSpace


def read_pretrained(named: str, scratch: Path, long_texts: LongTexts = "cut") -> Pretrained:
    """The towers of a pretrained model; InputError if there is none, or it cannot be exported.

    named: see `multimodal.towers.pretrained.find_model`. scratch: an empty folder that exists until the query side has been saved.
    long_texts: how its text side reads them (`LongTexts`).
    """
    with read_once():
        trunk, text = ClipTrunk(named), ClipTextTower(named, long_texts=long_texts)
    objective = Clip() if trunk.pairing.bias is None else SigLip()
    begin_at(objective, trunk.pairing.log_scale, trunk.pairing.bias)
    return Pretrained(trunk.stored(), objective, text.as_space(scratch, Origin(trunk.found.origin)))
