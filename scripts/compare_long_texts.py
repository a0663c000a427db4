"""Long texts cut, or read in pieces: which articles does a sentence of theirs find, that was taken out of them before?

    python scripts/compare_long_texts.py shared/data/enwiki/articles.jsonl.gz --num 500

Articles that are longer than MiniLM reads (256 tokens); a sentence of 8 to 40 words is drawn from each (seeded) and removed. Prints R@1 and
R@10 in per cent for all sentences, and apart for those from within what is read of a cut text and those from behind it; chance beside.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np

from multimodal.text import EncoderSpace

_SENTENCE = re.compile(r"[A-Z][^.!?\n]{20,}[.!?](?=\s)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("articles", type=Path, help="JSON Lines, gzipped, with a `text` each")
    parser.add_argument("--num", type=int, default=500, help="how many articles")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with gzip.open(arguments.articles, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    spaces = {how: EncoderSpace.from_package(long_texts=how) for how in ("cut", "pool")}  # type: ignore[arg-type]
    rng = np.random.default_rng(arguments.seed)
    rests, sentences, is_behind = [], [], []
    for at in rng.permutation(len(texts)).tolist():
        found = [match for match in _SENTENCE.finditer(texts[at]) if 8 <= len(match.group().split()) <= 40]
        if not found or len(sentences) == arguments.num:
            continue
        drawn = found[int(rng.integers(len(found)))]
        rest = texts[at][: drawn.start()] + texts[at][drawn.end() :]
        if spaces["cut"].num_cut([rest]):
            rests.append(rest)
            sentences.append(drawn.group())
            is_behind.append(spaces["cut"].num_cut([texts[at][: drawn.start()]]) > 0)
    behind = np.array(is_behind)
    print(f"{len(rests)} articles; chance R@1 {100 / len(rests):.1f}, R@10 {1000 / len(rests):.1f}", flush=True)
    for how, space in spaces.items():
        scores = space.embed(sentences) @ space.embed(rests).T
        ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
        for name, rows in (("all", behind | True), ("within", ~behind), ("behind", behind)):
            recall = [f"R@{k} {100 * (ranks[rows] <= k).mean():.1f}" for k in (1, 10)]
            print(f"{how:<5} {name:<7} {rows.sum():>4} sentences  {'  '.join(recall)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
