"""The door `multimodal <verb>`: names and lazy imports, no logic.

multimodal search --store runs/demo/wordvec/store "woman + scientist - man"
"""

from __future__ import annotations

import sys

from multimodal.door import Verbs, run
from multimodal.heap import one_arena

VERBS: Verbs = {
    "fit": ("multimodal.training.door:fit", "train from a recipe: multimodal fit --config experiment/topic_emoji.yaml"),
    "export": ("multimodal.export.model:export", "turn a finished run into weights, a card and the side that reads queries"),
    "embed": ("multimodal.embed.columns:embed", "run a frozen trunk once over shards and keep its features as a column"),
    "index": ("multimodal.embed.stores:index", "run an export over shards and keep the vectors as a store"),
    "search": ("multimodal.search.query:search_verb", 'find pictures in words: multimodal search --store S "woman + scientist - man"'),
    "serve": ("multimodal.serve.app:serve", "a page to search in a browser: multimodal serve --store S"),
    "evaluate": {
        "retrieval": ("multimodal.evaluate.retrieval:evaluate", "pictures found by their texts, texts by their pictures: recall"),
        "classes": ("multimodal.evaluate.classes:evaluate", "articles and pictures found by their class, by --label: mAP"),
        "probe": ("multimodal.evaluate.probe:probe", "how well a trunk's features tell classes apart, by a linear probe and by neighbours"),
    },
    "verify": ("multimodal.verify:verify", "read every byte of a box of any kind again and compare it with its manifest"),
    "demo": ("multimodal.demo:demo", "the whole road on real pictures, or on your own with --data"),
    "shards": {
        "verify": ("multimodal.shards.door:verify", "read every byte of a shard set again and compare it with its manifest"),
        "stats": ("multimodal.shards.door:stats", "count pairs, texts, groups and bytes"),
        "ls": ("multimodal.shards.door:ls", "list the pairs"),
        "cat": ("multimodal.shards.door:cat", "print one pair's texts and metadata"),
        "index": ("multimodal.shards.door:index", "make tars that others wrote readable as a shard set"),
    },
    "text-space": {
        "show": ("multimodal.evaluate.spaces:show", "what a text space holds: topics with pictures, and what is near a word"),
    },
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    one_arena()
    return run(VERBS, "multimodal", argv)


if __name__ == "__main__":
    sys.exit(main())
