"""The door `multimodal <verb>`: names and lazy imports, no logic.

multimodal search --store runs/demo/wordvec/store "woman + scientist - man"
"""

from __future__ import annotations

import sys

from multimodal.doors.dispatch import OWN, Verbs, run
from multimodal.machine.heap import one_arena

VERBS: Verbs = {
    "fit": ("multimodal.training.door:fit", "train from a recipe: multimodal fit --config experiment/topic_emoji.yaml"),
    "validate": ("multimodal.training.validate:validate", "compute a run's figures again, with its kept weights on its validation pairs"),
    "export": (
        "multimodal.export.model:export_verb",
        "turn a finished run, or a pretrained CLIP model, into weights, a card and the side that reads queries",
    ),
    "to-open-clip": ("multimodal.export.to_open_clip:to_open_clip", "write an export of a CLIP model as a folder that open_clip loads"),
    "push": ("multimodal.pushing:push", "put an export on the Hugging Face hub, with a model card: multimodal push E user/name ..."),
    "embed": ("multimodal.embed.columns:embed", "run a frozen trunk once over shards and keep its features as a column"),
    "index": (
        "multimodal.embed.door:index_verb",
        "run an export over shards, or your own folders of pictures, and keep the vectors as a store",
    ),
    "rescan": ("multimodal.embed.door:rescan_verb", "make a store of folders equal to them again: multimodal rescan S"),
    "search": ("multimodal.search.door:search_verb", 'find pictures in words: multimodal search --store S "woman + scientist - man"'),
    "serve": ("multimodal.serve.app:serve", "a search page in a browser: multimodal serve --store S"),
    "store": {
        "delete": ("multimodal.search.upkeep:delete", "delete pictures from a store, by ids or a filter"),
        "compact": ("multimodal.search.upkeep:compact", "rewrite a store without its deleted pictures"),
        "verify": ("multimodal.verify:verify", "read every byte of a store again and compare it with its manifest"),
        "build-index": ("multimodal.search.build_index:build_index", "make the index that a store's engine keeps, or change the engine"),
        "map": ("multimodal.search.making_map:store_map", "place the pictures of a store on a map, for the page of `multimodal serve`"),
    },
    "evaluate": {
        "retrieval": ("multimodal.evaluate.retrieval:evaluate", "pictures found by their texts, texts by their pictures: recall"),
        "classes": ("multimodal.evaluate.classes:evaluate", "articles and pictures found by their class, by --label: mAP"),
        "arithmetic": (
            "multimodal.evaluate.arithmetic:evaluate",
            "pictures with a and b, with a but not b, with b instead of a, beside one term",
        ),
        "identities": (
            "multimodal.evaluate.identities:evaluate",
            "people or things found again among pictures of other cameras: CMC, mAP and mINP",
        ),
        "fewshot": (
            "multimodal.evaluate.fewshot:evaluate",
            "classes told apart by a few pictures of each, by one, or by their names: accuracy over many small tasks",
        ),
        "simat": ("multimodal.evaluate.simat:evaluate", "one part of a picture changed in words, with the files of SIMAT (2022)"),
        "probe": ("multimodal.evaluate.probe:probe", "how well a trunk's features tell classes apart, by a linear probe and by neighbours"),
        "neighbours": (
            "multimodal.evaluate.neighbours:evaluate",
            "labels of pictures predicted by their nearest neighbours, in the model's own distance; silhouette, violated triplets",
        ),
        "zeroshot": ("multimodal.evaluate.zeroshot:evaluate", "classes predicted from their names or sentences alone: accuracy by class"),
        "interpolation": (
            "multimodal.evaluate.interpolation:evaluate",
            "weights between a base and a run tuned from it (WiSE-FT): what is learned against what is forgotten, by alpha",
        ),
        OWN: ("multimodal.evaluate.own:evaluate", "a protocol of your own: multimodal evaluate mypackage.figures:median --store S ..."),
    },
    "metric": {
        "fit": (
            "multimodal.mahalanobis.door:fit",
            "a metric from labels, pairs or triplets, as an export whose vectors it compares",
        ),
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

INSTEAD = {
    "train": "multimodal fit",
    "test": "multimodal export and multimodal index, and then multimodal evaluate retrieval or classes, on pairs that no run has seen",
    "predict": "multimodal export, and then multimodal index: a store has a vector of each picture",
}
"""Verbs of Lightning's command line, and what to use here instead."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status."""
    one_arena()
    return run(VERBS, "multimodal", argv, INSTEAD)


if __name__ == "__main__":
    sys.exit(main())
