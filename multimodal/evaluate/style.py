"""How a page of figures and pictures looks, on light ground and on dark, on a desk and in a hand: CSS as one string, and the colours.

f"<style>{STYLE}</style>"
"""

from __future__ import annotations

HUES = {"contrastive": ("#2f6fb3", "#74aee8"), "wordvec": ("#2f7d6b", "#5cb8a2"), "topic": ("#b4552d", "#e2936e")}
"""Family -> its colour on light ground and on dark; both at least 4.5 to 1 against it, so that words may wear them."""


def hue(name: str) -> str:
    """The colour of a family, or of a recipe that is named after one, as CSS; grey for any other."""
    return f"var(--{next((family for family in HUES if name.startswith(family)), 'other')})"


_LIGHT, _DARK = ("".join(f" --{family}: {hues[at]};" for family, hues in HUES.items()) for at in (0, 1))
STYLE = (
    f":root {{{_LIGHT} }}\n@media (prefers-color-scheme: dark) {{ :root {{{_DARK} }} }}"
    """
:root { color-scheme: light dark; --ground: #f6f5f2; --card: #fff; --ink: #22211f; --soft: #6d6a64; --line: #e4e1da; --other: #6d6a64;
  --heat: #79aade; --own: #c2410c; --picture: 42px; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #191918; --card: #232322; --ink: #eceae5; --soft: #a29f97; --line: #3a3937; --other: #a29f97; --heat: #2a63a1;
    --own: #fb923c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2.5rem 1.5rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: anywhere; }
.photographs { --picture: 96px; }
h1 { margin: 0 0 .3rem; font-size: 1.8rem; font-weight: 600; }
h2 { margin: 0 0 .3rem; font-size: 1.25rem; font-weight: 600; }
h3 { margin: 0 0 .4rem; font-size: .95rem; font-weight: 600; }
p { margin: .2rem 0; color: var(--soft); }
p b { color: var(--ink); }
small { color: var(--soft); font-size: .8rem; white-space: nowrap; }
section { margin-top: 2.6rem; }
article, figure, pre { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .8rem .9rem; margin: 0;
  min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin-top: .8rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--soft); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tr.over th { text-align: left; color: var(--ink); border-bottom: 0; }
tr.gallery th { font-weight: 600; padding-top: 1rem; }
tr.gallery small { font-weight: 400; margin-left: .5rem; }
.figures td { white-space: nowrap; }
.figures td:first-child, .other td:first-child { white-space: normal; min-width: 8rem; }
.figures th, .figures td { padding: .35rem .5rem; }
.both { font-size: .88rem; }
.both th, .both td { padding: .35rem; }
.figures td:first-child, .other td:first-child, .figures th:first-child, .other th:first-child { position: sticky; left: 0; z-index: 1;
  background: var(--ground); }
tr.gallery th:first-child { position: static; }
.first ~ .first { border-left: 1px solid var(--line); }
td.figure { min-width: 120px; }
.figures td.figure { width: 30%; }
.track { position: relative; height: 8px; margin: .15rem 0 .2rem; border-radius: 4px; background: var(--line); }
.bar { height: 100%; border-radius: 4px; }
.chance { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink); }
.queries, .topics, .curves, .lookups, .maps { display: grid; gap: .9rem; margin-top: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 395px), 1fr)); }
.curves { grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); }
.recipes { display: grid; gap: .5rem .9rem; }
.recipe > span { color: var(--soft); font-size: .78rem; }
.photographs .queries { grid-template-columns: minmax(0, 1fr); }
.photographs .topics { grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); }
.photographs .recipes { grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); }
.photographs .recipe .strip { display: grid; grid-template-columns: repeat(4, minmax(0, var(--picture))); }
.strip { display: flex; gap: 4px; flex-wrap: wrap; align-content: start; }
.picture, .blank { width: var(--picture); height: var(--picture); object-fit: contain; background: #fff; border-radius: 6px; }
.photographs .picture, .photographs .blank { max-width: 100%; height: auto; aspect-ratio: 1; }
.photographs .topics .strip { display: grid; grid-template-columns: repeat(6, minmax(0, var(--picture))); }
.drawings .topics { --picture: 54px; }
.own { outline: 3px solid var(--own); outline-offset: -1px; }
.blank { display: inline-block; padding: 2px; font-size: 8px; line-height: 1.2; overflow: hidden; color: #555; }
details { margin-top: .9rem; border-top: 1px solid var(--line); padding-top: .6rem; }
summary { cursor: pointer; color: var(--soft); }
summary b { color: var(--ink); }
details h3 { margin: 1.1rem 0 0; }
.lookups, .best { --picture: 64px; margin-top: .5rem; }
.photographs .lookups, .photographs .best { --picture: 96px; }
.photographs .lookups { grid-template-columns: repeat(auto-fill, minmax(min(100%, 560px), 1fr)); }
.lookup .query { color: var(--ink); margin: 0 0 .6rem; line-height: 1.35; }
.sides { display: grid; grid-template-columns: var(--picture) 1fr; gap: 14px; }
.sides .strip { display: grid; grid-template-columns: repeat(auto-fit, minmax(60px, 1fr)); gap: 6px;
  padding-left: 14px; border-left: 1px solid var(--line); }
.drawings .sides .strip { grid-template-columns: repeat(auto-fill, var(--picture)); }
.sides .strip .picture, .sides .strip .blank { width: 100%; height: auto; aspect-ratio: 1; max-width: var(--picture); }
.mine span { display: block; font-size: .78rem; color: var(--soft); margin-top: .2rem; white-space: nowrap; }
.mine b { color: var(--ink); }
.best { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(calc(var(--picture) + 30px), 1fr)); }
.one span { display: block; font-size: .78rem; line-height: 1.3; color: var(--soft); }
.maps { grid-template-columns: repeat(auto-fill, minmax(min(100%, 560px), 1fr)); }
.heat { width: auto; font-size: .8rem; }
.heat th, .heat td { padding: 0; border: 1px solid var(--card); text-align: center; white-space: nowrap; }
.heat td { width: 1.9rem; min-width: 1.9rem; height: 1.9rem; background: color-mix(in srgb, var(--heat) var(--share), var(--card)); }
.heat td.own { outline: 2px solid var(--ink); outline-offset: -2px; }
.heat th:first-child { text-align: right; padding-right: .5rem; position: sticky; left: 0; background: var(--card); }
.heat thead th { vertical-align: bottom; }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); padding: .4rem 0; line-height: 1; }
.heat tfoot th, .heat tfoot td { border-top: 6px solid var(--card); color: var(--soft); }
figcaption { color: var(--soft); font-size: .85rem; }
figcaption b { color: var(--ink); }
.learning { margin-top: .9rem; max-width: 820px; }
svg { width: 100%; display: block; }
svg text { font-size: 10px; fill: var(--soft); }
.learning text { font-size: 9.5px; }
.label { font-weight: 600; }
.axis { stroke: var(--line); }
.dashed { stroke: var(--soft); stroke-dasharray: 5 4; }
.band { opacity: .14; }
.whisker { opacity: .5; }
.lead { opacity: .6; }
pre { overflow-x: auto; font-size: .8rem; overflow-wrap: normal; }
@media (max-width: 640px) {
  body { padding: 1.5rem 1rem 3rem; }
  .learning text { font-size: 15px; }
  .learning .label { font-size: 14px; }
  .heat { font-size: .7rem; }
  .heat td { width: 1.4rem; min-width: 1.4rem; height: 1.7rem; }
  .heat th:first-child { min-width: 5.5rem; white-space: normal; line-height: 1.1; }
  .photographs .topics .strip { grid-template-columns: repeat(3, minmax(0, var(--picture))); }
}
"""
)
