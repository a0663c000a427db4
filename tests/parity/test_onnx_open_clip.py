"""The ONNX of pretrained CLIP models: cleaning and tokens are open_clip's without it, and vectors are those of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from multimodal.cli import main
from multimodal.export.light import light_tower
from multimodal.export.model import export_pretrained, load_export
from multimodal.export.to_onnx import text_graph
from multimodal.text import OpenClipSpace
from multimodal.text.cleaning import OPEN_CLIPS, cleaned
from multimodal.text.clip_tokens import Spelling
from multimodal.text.long_texts import LongTexts
from multimodal.verify import problems_of
from tests.parity.test_open_clip import CONFIGS, folders, script

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")
__all__ = ["folders", "script"]  # fixtures
TOLERANCE = 1e-5
TEXTS = [
    *("a photo of a dog", "Two cats &amp; a dog!", "", "snow " * 90, "l'\u00e9t\u00e9 \u4e24 \U0001f415", "don't THEY'RE 1234"),
    "a photo of a dog",
]
PIECES = st.sampled_from(
    [
        *("dog", "It's", "THEY'LL", "&lt;", "12", "_", " <end_of_text> ", "\u00e9", "e\u0301", "\u0130", "\u00bd", "\ufb01"),
        *("\u4e24\u53ea", "\U0001f415", "\u00c3\u00a9"),
    ]
)
LETTERS = st.characters(exclude_categories=["Cn", "Co", "Cs"])
"""Without what is no character yet: the two tokenizers know different editions of Unicode."""
ANY = st.lists(st.one_of(PIECES, st.text(LETTERS, max_size=6), st.sampled_from([" ", "  ", "\n", "."])), max_size=12).map("".join)


@pytest.fixture(scope="module")
def spellings(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> dict[str, Spelling]:
    """OpenAI's tokenizer as a tokenizer.json, for each way to clean a text."""
    path = tmp_path_factory.mktemp("tokens")
    space = load_export(export_pretrained(str(folders["vit"]), path / "export")).query
    made = {}
    for clean in OPEN_CLIPS:
        one = OpenClipSpace(path / "export/query", space.model_cfg, {"clean": clean, "pad_id": 0}, "cpu")  # type: ignore[attr-defined]
        (path / clean).write_bytes(text_graph(one).files["tokenizer.json"])
        made[clean] = Spelling(path / clean, clean)
    return made


@settings(max_examples=150)
@given(ANY, st.sampled_from(OPEN_CLIPS))
def test_texts_are_cleaned_and_spelt_as_by_open_clip(spellings: dict[str, Spelling], text: str, clean: str) -> None:
    assert cleaned(text, clean) == open_clip.tokenizer.get_clean_fn(clean)(text)
    original = open_clip.SimpleTokenizer(clean=clean) if clean not in ORIGINALS else ORIGINALS[clean]
    ORIGINALS[clean] = original
    assert spellings[clean].encode(text) == original.encode(text)


ORIGINALS: dict[str, object] = {}
"""Made once: reading its vocabulary takes half a second."""


@pytest.mark.parametrize("name", CONFIGS)
def test_what_becomes_onnx_gives_the_rows_of_the_space(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    space = load_export(export_pretrained(str(folders[name]), tmp_path / "export")).query
    assert isinstance(space, OpenClipSpace)
    graph = text_graph(space)
    ids = graph.example["text"]
    with torch.inference_mode():
        np.testing.assert_allclose(graph.network(ids), normalize(space.tower(pad(ids, space)).float(), dim=-1), atol=TOLERANCE)


def pad(ids: torch.Tensor, space: OpenClipSpace) -> torch.Tensor:
    """The whole context, as open_clip's towers take it; the last token stays the one with the largest number."""
    return torch.nn.functional.pad(ids, (0, space.tokenizer.context_length - ids.shape[1]))


WITHOUT_TORCH = """
import json, sys
for name in ("torch", "transformers", "open_clip", "timm"):
    sys.modules[name] = None
from multimodal.text import open_space
space = open_space(sys.argv[1])
print(json.dumps([space.embed(json.loads(sys.argv[2])).tolist(), space.num_cut(["snow " * 90]), list(space.unknown_words("snow " * 90))]))
"""


@pytest.mark.parametrize(
    ("name", "long_texts"),
    [pytest.param("vit", "cut", marks=pytest.mark.slow), ("vit", "pool"), pytest.param("siglip", "pool", marks=pytest.mark.slow)],
)
def test_both_towers_have_the_vectors_of_torch(
    name: str, long_texts: LongTexts, folders: dict[str, Path], script: object, tmp_path: Path
) -> None:
    made = export_pretrained(str(folders[name]), tmp_path / "export", long_texts)
    plain = load_export(made)
    pictures = list(script.odd_pictures().values())[::4]  # type: ignore[attr-defined]
    wanted, texts = plain.encode_image(pictures), plain.encode_text(TEXTS)
    assert main(["export", "--pretrained", str(folders[name]), "--output", str(made), "--onnx", "--long-texts", long_texts]) == 0
    tower = light_tower(made)
    assert tower is not None and not list(problems_of(made))
    np.testing.assert_allclose(tower.encode_image(pictures), wanted, atol=TOLERANCE)
    np.testing.assert_allclose(load_export(made).encode_text(TEXTS), texts, atol=TOLERANCE)
    run = [sys.executable, "-c", WITHOUT_TORCH, str(made / "query"), json.dumps(TEXTS)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows, num_cut, unread = json.loads(done.stdout)
    np.testing.assert_allclose(rows, texts, atol=TOLERANCE)
    assert num_cut == len([what for what in unread if what.startswith("all after")]) == (long_texts == "cut")
