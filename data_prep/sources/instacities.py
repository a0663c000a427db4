"""InstaCities1M: a million Instagram posts that name one of ten cities, each a picture and its raw caption (Gomez et al., 2018).

    data-prep make-shards instacities InstaCities1M --output shards/instacities

    InstaCities1M/img_resized_1M/cities_instagram/<city>/<id>.jpg          300 x 300 pixels
    InstaCities1M/captions_resized_1M/cities_instagram/<city>/<id>.txt     what the author wrote: several lines, hashtags, emoji

Download it from gombru.github.io/2018/08/01/InstaCities1M (two archives, unpacked side by side). Captions are unchanged: a text space with
`--normaliser.variant hashtag` reads #SunsetBeach as two words, and leaves out URLs and mentions.

R. Gomez, L. Gomez, J. Gibert, D. Karatzas, "Learning to Learn from Web Data through Deep Semantic Embeddings", ECCV Workshops 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_prep.pictures.formats import offer
from data_prep.sources import check_listing, cut
from data_prep.sources._layout import check_layout, file_names, first_names, folder_names, listing_fingerprint, names_digest
from multimodal.errors import InputError
from multimodal.pairs import Pair
from multimodal.shards import Ledger

IMAGES = "img_resized_1M/cities_instagram"
CAPTIONS = "captions_resized_1M/cities_instagram"
TEST_PER_CITY = 15_000
VAL_PER_CITY = 5_000
"""The authors' held-out posts among each city's 100,000: the first ones for test, the next ones for validation."""

_POSTS_AT_ONCE = 1000


def instacities(
    input: Path,
    test_per_city: int = TEST_PER_CITY,
    val_per_city: int = VAL_PER_CITY,
    part: Mapping[str, Any] | None = None,
    *,
    ledger: Ledger,
) -> Iterator[Pair]:
    """The posts of each city in the order of their ids, each a pair and its own group; the city is metadata.

    input: the folder that holds img_resized_1M and captions_resized_1M.
    test_per_city: the first posts of each city that are in the split `test`; by default the authors' number.
    val_per_city: the posts after those that are in `val`; the rest is `train`. With 0 for both, the source has no split, and a hash of the
        post decides.

    Ids are sorted as strings (the authors' order was that of their file system, which cannot be reproduced). A post without its caption or
    its picture goes to the ledger and keeps its position, so that no other post moves to another split.
    InputError: the folders are missing, a city has only pictures or only captions, or all its posts are held out.
    """
    for one in plan(_POSTS_AT_ONCE, input, test_per_city, val_per_city) if part is None else [part]:
        ids = _listed(input, one["city"], one["listing"])
        for position in range(one["start"], one["stop"]):
            split = _split(position, test_per_city, val_per_city)
            yield from _post(input, one["city"], ids[position], split, ledger)


def plan(pairs_per_shard: int, input: Path, test_per_city: int = TEST_PER_CITY, val_per_city: int = VAL_PER_CITY) -> list[dict[str, Any]]:
    """Ranges of posts, each within one city: its name, and positions among its ids."""
    if test_per_city < 0 or val_per_city < 0:
        raise InputError(f"test_per_city is {test_per_city} and val_per_city {val_per_city}; neither can be negative")
    parts = []
    num_held_out = test_per_city + val_per_city
    for city in _cities(input):
        ids = _ids(input, city)
        num_posts = len(ids)
        if num_held_out and num_posts <= num_held_out:
            raise InputError(
                f"{input}: {city} has {num_posts} posts, and the first {test_per_city} of a city are test and the next {val_per_city} val, "
                "which leaves none to train on. Give the whole data set, or smaller numbers to --test-per-city and --val-per-city (both 0: "
                "split by hash)"
            )
        parts += cut(num_posts, pairs_per_shard, city=city, listing=names_digest(ids))
    return parts


def inputs(input: Path, test_per_city: int, val_per_city: int) -> dict[str, str]:
    """Fingerprint of names and sizes of the files; reading a million captions would take too long."""
    folders = ((f"{kind}/{city}", input / kind / city) for city in _cities(input) for kind in (IMAGES, CAPTIONS))
    return {"input": listing_fingerprint(folders)}


def _split(position: int, num_test: int, num_val: int) -> str:
    if not num_test + num_val:
        return ""
    return "test" if position < num_test else "val" if position < num_test + num_val else "train"


def _post(input: Path, city: str, id: str, split: str, ledger: Ledger) -> Iterator[Pair]:
    name = f"{city}/{id}.jpg"
    try:
        caption = (input / CAPTIONS / city / f"{id}.txt").read_bytes().decode("utf-8")
        image = (input / IMAGES / city / f"{id}.jpg").read_bytes()
    except FileNotFoundError as error:
        ledger.bad(str(input), name, f"has no {Path(error.filename).relative_to(input).as_posix()}")
        return
    except UnicodeDecodeError as error:
        ledger.bad(str(input), name, f"its caption is not UTF-8 (byte {error.start})")
        return
    yield from offer(ledger, str(input), name, image, [caption], f"{city}/{id}", split, {"city": city})


def _cities(input: Path) -> list[str]:
    """InputError if the layout is not InstaCities1M's, or a city lacks its pictures or its captions."""
    check_layout(input, "InstaCities1M", [IMAGES, CAPTIONS])
    pictured, captioned = folder_names(input / IMAGES), folder_names(input / CAPTIONS)
    if halves := sorted({*pictured} ^ {*captioned}):
        has, lacks = ("pictures", "captions") if halves[0] in pictured else ("captions", "pictures")
        raise InputError(f"{input}: {halves[0]} has {has} but no {lacks}. Unpack both archives completely, or remove {', '.join(halves)}")
    if not pictured:
        raise InputError(f"{input}: no city in {IMAGES}, only {first_names(input / IMAGES)}. Unpack both archives")
    return pictured


@lru_cache(maxsize=1)
def _listed(input: Path, city: str, listing: str) -> list[str]:
    """As `_ids`, listed once per process for all parts of a city. InputError if posts were added or removed since the plan was made."""
    ids = _ids(input, city)
    check_listing(input, names_digest(ids), listing)
    return ids


def _ids(input: Path, city: str) -> list[str]:
    """The ids of a city's posts in order, including those with only a picture or only a caption."""
    pictures, captions = file_names(input / IMAGES / city, (".jpg",)), file_names(input / CAPTIONS / city, (".txt",))
    return sorted({name[:-4] for name in (*pictures, *captions)})
