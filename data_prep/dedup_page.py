"""Groups of pictures that look alike, side by side on one HTML page with the pictures inside, for a person to judge.

Path("report.html").write_text(render("flickr8k test and flickr8k train  1", [[Shown(shards, 7, "test", 0, False), ...], ...], 1))
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from multimodal.pictures import picture
from multimodal.shards import ShardSet

THUMBNAIL_PX = 200
MAX_OF_GROUP = 12

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f5f2; --card: #fff; --ink: #22211f; --soft: #76736c; --line: #e4e1da; --leak: #b4552d; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #191918; --card: #232322; --ink: #eceae5; --soft: #9a978f; --line: #353432; --leak: #dd8a63; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 2.5rem 1.5rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0 0 .3rem; font-size: 1.7rem; font-weight: 600; }
header p { margin: .2rem 0; color: var(--soft); }
pre { color: var(--soft); overflow-x: auto; }
section { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0 0; padding: 1rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }
section.leaks { border-color: var(--leak); }
figure { margin: 0; width: 200px; }
figure img { width: 200px; height: 200px; object-fit: contain; background: #fff; border-radius: 6px; }
figcaption { margin-top: .4rem; font-size: .8rem; overflow-wrap: anywhere; color: var(--soft); }
figcaption b { color: var(--ink); font-weight: 600; }
figcaption b.leaks { color: var(--leak); }
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture of a group. bits: how far its hash is from that of the first; leaks: it is to learn from and near one held out."""

    shards: ShardSet
    id: int
    part: str
    bits: int
    leaks: bool


def render(table: str, groups: Sequence[Sequence[Shown]], num_groups: int) -> str:
    """The page as HTML text. table: the counts, as they are printed; num_groups: how many there are, shown or not."""
    body = "\n".join(_section(group) for group in groups) or "<p>No two pictures look alike.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pictures that look alike</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>Pictures that look alike</h1>
<p>{len(groups)} of {num_groups} groups; a red border: one to learn from is near to one that is held out.
Bits: how far a hash is from the first one's.</p>
<pre>{escape(table)}</pre>
</header>
{body}
</body>
</html>
"""


def _section(group: Sequence[Shown]) -> str:
    figures = "\n".join(_figure(one) for one in group[:MAX_OF_GROUP])
    more = f"\n<p>and {len(group) - MAX_OF_GROUP} more</p>" if len(group) > MAX_OF_GROUP else ""
    kind = ' class="leaks"' if any(one.leaks for one in group) else ""
    return f"<section{kind}>\n{figures}{more}\n</section>"


def _figure(one: Shown) -> str:
    part = f'<b class="leaks">{escape(one.part)}</b>' if one.leaks else f"<b>{escape(one.part)}</b>"
    text = one.shards.texts(one.id)[0]
    where = f"{escape(one.shards.name)} · {part} · {escape(one.shards.key(one.id))} · {one.bits} bits"
    return f"""<figure>
<img alt="{escape(text)}" src="{_thumbnail(one.shards.image_bytes(one.id))}">
<figcaption>{where}<br>{escape(text[:120])}</figcaption>
</figure>"""


def _thumbnail(encoded: bytes) -> str:
    image = picture(encoded)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
