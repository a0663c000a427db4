"""The search page: a box, a line of help, and the hits as pictures that lead on to the next query. HTML and CSS, no script.

form_page("cat + heart", "<p>...</p>", pictures=1376)
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from multimodal.pairs import Hit
from multimodal.search.page import document, grid, picture_tag, summary

if TYPE_CHECKING:
    from multimodal.search.query import Answer

EXAMPLES = ("red heart", "woman + scientist - man", "2*beach - 0.5*people", '"traffic light" + car')

_STYLE = """
form { display: flex; gap: .6rem; margin: 0 0 .7rem; }
input, button { font: inherit; font-size: 1.05rem; padding: .65rem 1rem; border: 1px solid var(--line); border-radius: 10px;
  color: var(--ink); background: var(--card); }
input { flex: 1; min-width: 0; }
button { background: var(--plus); border-color: transparent; color: var(--card); cursor: pointer; }
:focus-visible { outline: 2px solid var(--plus); outline-offset: 2px; }
header .help { white-space: normal; }
header a { color: var(--plus); }
.examples a { margin-right: .9rem; white-space: nowrap; display: inline-block; }
code { background: var(--card); border: 1px solid var(--line); border-radius: 5px; padding: 0 .3em; }
pre { margin: 1.5rem 0 0; padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--minus);
  border-radius: 8px; overflow-x: auto; }
.summary { margin-top: 1.2rem; }
.picture a { display: grid; place-items: center; width: 100%; height: 100%; color: inherit; min-height: 0; }
.picture a:focus-visible { outline-offset: -3px; }
@media (max-width: 500px) {
  body { padding: 1.2rem .9rem 3rem; }
  ol { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .7rem; }
}
"""


def form_page(query: str, below: str, pictures: int) -> str:
    """The whole page. below: HTML under the form; pictures: how many the store holds."""
    examples = " ".join(f'<a href="{_address(example)}">{escape(example)}</a>' for example in EXAMPLES)
    body = f"""<header>
<form action="./" role="search">
<input type="search" name="q" value="{escape(query)}" aria-label="Search {pictures:,} pictures in words"
 placeholder="Search {pictures:,} pictures in words" autocomplete="off" spellcheck="false"{"" if query else " autofocus"}>
<button>Search</button>
</form>
<p class="help">Words side by side are one phrase. <code>+</code> adds, <code>-</code> takes away, <code>2*beach</code> weighs,
<code>( )</code> groups, <code>"rock + roll"</code> quotes, <code>image:17</code> or a click starts from a picture.</p>
<p class="examples">{examples}</p>
</header>
{below}"""
    return document(query or "Search pictures in words", body, _STYLE)


def hits_html(query: str, found: Answer, has_thumbnail: list[bool]) -> str:
    """What a query found. Each picture leads to itself plus the query."""
    tags = [_link(query, hit, there) for hit, there in zip(found.hits, has_thumbnail, strict=True)]
    return f'<header class="summary">{summary(found)}</header>\n{grid(found.hits, tags)}'


def error_html(message: str) -> str:
    """A message as it stands in a terminal, so that its caret points at the right character."""
    return f'<pre role="alert">{escape(message)}</pre>'


def _link(query: str, hit: Hit, has_thumbnail: bool) -> str:
    tag = picture_tag(hit, f"thumbnails/{hit.id}" if has_thumbnail else None)
    return f'<a href="{_address(f"image:{hit.id} + {query}")}" title="image:{hit.id} + this query">{tag}</a>'


def _address(query: str) -> str:
    return escape("?" + urlencode({"q": query}))
