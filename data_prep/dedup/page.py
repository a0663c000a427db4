"""Groups of pictures that look alike, side by side on one HTML page with the pictures inside, for a person to judge.

Path("report.html").write_text(render("flickr8k test and flickr8k train  1", [[Shown(shards, 7, "test", 0, False), ...], ...], 1))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multimodal.pages import data_uri
from multimodal.pages import render as render_page
from multimodal.pictures.decode import picture
from multimodal.pictures.thumbnails import thumbnail_jpeg
from multimodal.shards import ShardSet

THUMBNAIL_PX = 200
MAX_OF_GROUP = 12


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture of a group. bits: distance of its hash from that of the first; leaks: a training picture near a held-out one."""

    shards: ShardSet
    id: int
    part: str
    bits: int
    leaks: bool


@dataclass(frozen=True, slots=True)
class _Picture:
    address: str
    set: str
    part: str
    key: str
    bits: int
    leaks: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Group:
    """num_more: number of pictures of the group that are not shown."""

    leaks: bool
    pictures: Sequence[_Picture]
    num_more: int


def render(table: str, groups: Sequence[Sequence[Shown]], num_groups: int) -> str:
    """The page as HTML text. table: the counts, as they are printed; num_groups: their number, shown or not."""
    shown = [
        _Group(any(one.leaks for one in group), [_picture(one) for one in group[:MAX_OF_GROUP]], max(0, len(group) - MAX_OF_GROUP))
        for group in groups
    ]
    return render_page("look_alikes.html.jinja", title="Pictures that look alike", counts=table, num_groups=num_groups, groups=shown)


def _picture(one: Shown) -> _Picture:
    shards, id = one.shards, one.id
    small = thumbnail_jpeg(picture(shards.image_bytes(id)), THUMBNAIL_PX)
    return _Picture(data_uri(small), shards.name, one.part, shards.key(id), one.bits, one.leaks, "".join(shards.texts(id)[:1]))
