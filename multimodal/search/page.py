"""The hits of a query as one HTML page with its pictures inside: opens anywhere, asks nothing of a network.

Path("hits.html").write_text(render("beach - people", found, store.thumbnails([hit.id for hit in found.hits])))
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from multimodal.pairs import Hit

if TYPE_CHECKING:
    from multimodal.search.query import Answer

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f5f2; --card: #fff; --ink: #22211f; --soft: #76736c; --line: #e4e1da; --plus: #2f7d6b;
  --minus: #b4552d; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #191918; --card: #232322; --ink: #eceae5; --soft: #9a978f; --line: #353432; --plus: #5cb8a2; --minus: #dd8a63; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 2.5rem 1.5rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0 0 .3rem; font-size: 1.7rem; font-weight: 600; overflow-wrap: anywhere; }
header p { margin: .2rem 0; color: var(--soft); white-space: pre-line; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 1.1rem; margin: 2rem 0 0; padding: 0;
  list-style: none; }
li { display: flex; flex-direction: column; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; }
.picture { aspect-ratio: 1; background: #fff; display: grid; place-items: center; color: #76736c; }
.picture img { width: 100%; height: 100%; object-fit: contain; }
.facts { padding: .75rem .9rem .9rem; }
.score { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; color: var(--soft); font-size: .85rem; }
.text { margin: .3rem 0 0; overflow-wrap: anywhere; display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical;
  overflow: hidden; }
.name { margin: .15rem 0 0; color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: auto 1fr auto; gap: .15rem .5rem; align-items: center; margin: .6rem 0 0; font-size: .78rem;
  color: var(--soft); }
dt { max-width: 7.5em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
dd { margin: 0; font-variant-numeric: tabular-nums; text-align: right; }
.bar { height: 5px; border-radius: 3px; background: var(--plus); min-width: 1px; }
.bar.minus { background: var(--minus); }
"""

_SIGNATURES = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))


def render(query: str, found: Answer, thumbnails: Sequence[bytes | None]) -> str:
    """The page as HTML text. thumbnails: one encoded picture a hit, or None, where the hit's name stands instead."""
    pictures = [
        picture_tag(hit, None if picture is None else data_uri(picture)) for hit, picture in zip(found.hits, thumbnails, strict=True)
    ]
    return document(query, f"<header>\n<h1>{escape(query)}</h1>\n{summary(found)}\n</header>\n{grid(found.hits, pictures)}")


def document(title: str, body: str, style: str = "") -> str:
    """A whole page. title: text; body: HTML; style: CSS after that of the grid."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def summary(found: Answer) -> str:
    """How many pictures, and what a person has to know beside them."""
    notes = "".join(f"<p>{escape(line)}</p>" for line in found.notes.splitlines())
    return f"<p>{len(found.hits)} pictures, by cosine</p>{notes}"


def grid(hits: Sequence[Hit], pictures: Sequence[str]) -> str:
    """The hits, best first. pictures: the HTML that shows each."""
    items = "\n".join(_item(rank, hit, picture) for rank, (hit, picture) in enumerate(zip(hits, pictures, strict=True), start=1))
    return f"<ol>\n{items}\n</ol>"


def _item(rank: int, hit: Hit, picture: str) -> str:
    return f"""<li>
<div class="picture">{picture}</div>
<div class="facts">
<div class="score"><span>{rank}</span><span>{hit.score:+.4f}</span></div>
<p class="text" title="{escape(hit.text)}">{escape(hit.text)}</p>
<p class="name">{escape(hit.name)} · {hit.id}</p>
{_why(hit.why)}
</div>
</li>"""


def picture_tag(hit: Hit, address: str | None) -> str:
    """An image, or words where there is no address."""
    return "no thumbnail" if address is None else f'<img alt="{escape(hit.text)}" src="{escape(address)}">'


def data_uri(picture: bytes) -> str:
    """An encoded picture as an address that holds it."""
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture).decode()}"


def media_type(picture: bytes) -> str:
    """What an encoded picture is: `image/jpeg`, `image/png`, `image/webp`, else `image/avif`."""
    return "image/" + next((kind for signature, kind in _SIGNATURES if picture.startswith(signature)), "avif")


def _why(why: Mapping[str, float]) -> str:
    """A bar a term, the longest as long as there is room; one term alone explains nothing that the score does not."""
    if len(why) < 2:
        return ""
    longest = max(max(map(abs, why.values())), 1e-9)
    rows = "".join(
        f'<dt title="{escape(label)}">{escape(label)}</dt>'
        f'<div class="bar{" minus" if value < 0 else ""}" style="width: {100 * abs(value) / longest:.0f}%"></div>'
        f"<dd>{value:+.3f}</dd>"
        for label, value in why.items()
    )
    return f"<dl>{rows}</dl>"
