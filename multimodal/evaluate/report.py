"""What a run of the whole road looks like, as one HTML page with every picture inside: figures, answers, topics, curves.

Path("index.html").write_text(render(Report(title="demo", rows=rows, answers=answers, topics=topics, curves=curves)))
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from multimodal.errors import InputError
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.pairs import Hit
from multimodal.search.page import data_uri
from multimodal.search.query import answer
from multimodal.search.store import Store
from multimodal.text import open_space
from multimodal.text.topics import TopicSpace

HUES = {"contrastive": "#2f6fb3", "wordvec": "#2f7d6b", "topic": "#b4552d"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail with what stands under it."""

    thumbnail: bytes | None
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """One query and what one recipe found for it. note: words that it does not know, or why it found nothing; "" where all is plain."""

    query: str
    recipe: str
    pictures: Sequence[Picture]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic by its words, the share of the pictures' mass that it holds, and the pictures that hold most of it."""

    words: Sequence[str]
    share: float
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure of one recipe over the steps of its training."""

    recipe: str
    figure: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Report:
    """What the page shows. `facts` are sentences for the head of the page; `commands` what printed the figures."""

    title: str
    facts: Sequence[str]
    rows: Sequence[RetrievalRow]
    answers: Sequence[Answered]
    topics: Sequence[Topic]
    curves: Sequence[Curve]
    commands: Sequence[str]


def ask(store: Store, recipe: str, queries: Sequence[str], k: int = 8) -> list[Answered]:
    """Each query's first k pictures; where the store refuses one (no word of it is known, say), the reason."""
    answers = []
    for query in queries:
        try:
            found = answer(store, query, k)
        except InputError as error:
            answers.append(Answered(query, recipe, (), str(error)))
            continue
        answers.append(
            Answered(
                query, recipe, pictures_of(store, found.hits), f"unknown: {', '.join(found.query.unknown)}" if found.query.unknown else ""
            )
        )
    return answers


def pictures_of(store: Store, hits: Sequence[Hit]) -> list[Picture]:
    """Thumbnails of hits, in their order."""
    thumbnails = store.thumbnails([hit.id for hit in hits])
    return [Picture(thumbnail, hit.text) for thumbnail, hit in zip(thumbnails, hits, strict=True)]


def topics_of(store: Store, num_words: int = 8, num_pictures: int = 6) -> list[Topic]:
    """Every topic of a topic store, the largest share of the pictures first."""
    space = open_space(store.path / "query")
    if not isinstance(space, TopicSpace):
        raise InputError(f"{store.path}: is a {store.family} store and has no topics")
    rows = np.asarray(store.rows, dtype=np.float32)
    rows = rows / rows.sum(axis=1, keepdims=True)  # stored at unit length; back to distributions
    shares = rows.mean(axis=0)
    words = space.top_words(num_words)
    topics = []
    for topic in np.argsort(-shares):
        best = store.ids[np.argsort(-rows[:, topic], kind="stable")[:num_pictures]]
        texts = [str(record["text"]) for record in store.records(best)]
        pictures = [Picture(thumbnail, text) for thumbnail, text in zip(store.thumbnails(best), texts, strict=True)]
        topics.append(Topic([str(word) for word in words[topic]], float(shares[topic]), pictures))
    return topics


def curves_of(run: Path, recipe: str, figures: Sequence[str] = ("train/loss", "val/R@10")) -> list[Curve]:
    """The named columns of a run's metrics.csv."""
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    curves = []
    for figure in figures:
        points = [(float(line["step"]), float(line[figure])) for line in lines if line.get(figure)]
        if points:
            steps, values = zip(*points, strict=True)
            curves.append(Curve(recipe, figure, steps, values))
    return curves


def render(report: Report) -> str:
    """The page as HTML text."""
    sections = [
        _figures(report.rows),
        _answers(report.answers),
        _topics(report.topics),
        _curves(report.curves),
        f"<section><h2>Commands</h2><pre>{escape(chr(10).join(report.commands))}</pre></section>" if report.commands else "",
    ]
    facts = "".join(f"<p>{escape(fact)}</p>" for fact in report.facts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(report.title)}</h1>{facts}</header>
{"".join(sections)}
</body>
</html>
"""


def _figures(rows: Sequence[RetrievalRow]) -> str:
    """A line a recipe and gallery: bars for the mean R@10 over seeds, its control and chance on one scale."""
    trained = [row for row in rows if not row.control]
    if not trained:
        return ""
    lines = []
    for gallery in dict.fromkeys(row.gallery for row in trained):
        members = [row for row in trained if row.gallery == gallery]
        lines.append(f'<tr class="gallery"><th colspan="9">{escape(gallery)}</th></tr>')
        for recipe in dict.fromkeys(row.recipe for row in members):
            ours = [row for row in members if row.recipe == recipe]
            control = [row.recall_10 for row in rows if row.control and row.recipe == recipe and row.gallery == gallery]
            tens = np.array([row.recall_10 for row in ours])
            low, high = (tens.min(), tens.max()) if len(ours) > 1 else (ours[0].low, ours[0].high)
            chance = float(np.mean([row.chance_recall_10 for row in ours]))
            shuffled = f"{np.mean(control):.1f}" if control else "&ndash;"
            lines.append(
                f"<tr><td>{escape(recipe)}</td><td>{np.mean([row.num_pairs for row in ours]):.0f}</td>"
                f"<td>{np.mean([row.recall_1 for row in ours]):.1f}</td><td>{np.mean([row.recall_5 for row in ours]):.1f}</td>"
                f"<td><b>{tens.mean():.1f}</b> <small>{low:.1f}&ndash;{high:.1f}</small></td>"
                f'<td class="wide"><div class="track"><div class="bar" style="width:{tens.mean():.1f}%;background:{_hue(ours[0].family)}">'
                f'</div><div class="chance" style="left:{chance:.1f}%" title="chance {chance:.1f}"></div></div></td>'
                f"<td>{chance:.1f}</td><td>{shuffled}</td><td>{np.mean([row.median_rank for row in ours]):.0f}</td></tr>"
            )
    seeds = len({row.seed for row in trained})
    of_what = f"mean over {seeds} splits, smallest and largest" if seeds > 1 else "one split, with the 95 % interval over its queries"
    return f"""<section><h2>Finding a picture by its own text</h2>
<p>Share of the queries whose own picture is among the first 1, 5, 10, in per cent: {of_what}.
The dark mark is chance; <i>shuffled</i> is the same training with texts dealt to the wrong pictures.</p>
<table><thead><tr><th>recipe</th><th>pictures</th><th>R@1</th><th>R@5</th><th>R@10</th><th></th><th>chance</th><th>shuffled</th>
<th>median rank</th></tr></thead>
<tbody>{"".join(lines)}</tbody></table></section>"""


def _answers(answers: Sequence[Answered]) -> str:
    if not answers:
        return ""
    blocks = []
    for query in dict.fromkeys(one.query for one in answers):
        lines = []
        for one in answers:
            if one.query == query:
                name = one.recipe + (f" ({one.note})" if one.note else "")
                lines.append(f'<div class="recipe"><span>{escape(name)}</span>{_strip(one.pictures)}</div>')
        blocks.append(f"<article><h3><code>{escape(query)}</code></h3>{''.join(lines)}</article>")
    return f"""<section><h2>Queries</h2><p>Best first; hold the pointer over a picture to read its text.</p>
<div class="queries">{"".join(blocks)}</div></section>"""


def _topics(topics: Sequence[Topic]) -> str:
    if not topics:
        return ""
    items = "".join(
        f"<article><h3>{escape(', '.join(topic.words))}</h3>"
        f"<p>{100 * topic.share:.1f} % of what the pictures show</p>{_strip(topic.pictures)}</article>"
        for topic in topics
    )
    return f"""<section><h2>Topics</h2><p>Top words of each topic, and the pictures in which the network sees most of it.</p>
<div class="topics">{items}</div></section>"""


def _curves(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    return f'<section><h2>Training</h2><div class="curves">{"".join(map(_curve, curves))}</div></section>'


def _curve(curve: Curve) -> str:
    """One small chart with its first, last and extreme values written out."""
    width, height, left, top = 300, 120, 46, 10
    steps, values = np.asarray(curve.steps, dtype=float), np.asarray(curve.values, dtype=float)
    low, high = float(values.min()), float(values.max())
    x = left + (steps - steps.min()) / max(float(np.ptp(steps)), 1e-9) * (width - left - 8)
    y = top + (high - values) / max(high - low, 1e-9) * (height - 2 * top - 14)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    hue = next((hue for family, hue in HUES.items() if curve.recipe.startswith(family)), "#555")
    return f"""<figure><figcaption>{escape(curve.recipe)}: {escape(curve.figure)}</figcaption>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(curve.figure)} from {values[0]:.3g} to {values[-1]:.3g}">
<line x1="{left}" y1="{height - top - 14}" x2="{width - 8}" y2="{height - top - 14}" class="axis"/>
<text x="{left - 6}" y="{top + 4}" text-anchor="end">{high:.3g}</text>
<text x="{left - 6}" y="{height - top - 14}" text-anchor="end">{low:.3g}</text>
<text x="{width - 8}" y="{height - 6}" text-anchor="end">{steps[-1]:.0f} steps</text>
<polyline points="{points}" fill="none" stroke="{hue}" stroke-width="2"/></svg></figure>"""


def _strip(pictures: Sequence[Picture]) -> str:
    cells = "".join(
        f'<img alt="{escape(picture.text)}" title="{escape(picture.text)}" src="{data_uri(picture.thumbnail)}">'
        if picture.thumbnail
        else f'<span class="blank" title="{escape(picture.text)}">{escape(picture.text[:24])}</span>'
        for picture in pictures
    )
    return f'<div class="strip">{cells}</div>'


def _hue(family: str) -> str:
    return HUES.get(family, "#555")


_STYLE = """
:root { color-scheme: light dark; --ground: #f6f5f2; --card: #fff; --ink: #22211f; --soft: #76736c; --line: #e4e1da; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #191918; --card: #232322; --ink: #eceae5; --soft: #9a978f; --line: #353432; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 2.5rem 1.5rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0 0 .3rem; font-size: 1.8rem; font-weight: 600; }
h2 { margin: 0 0 .3rem; font-size: 1.25rem; font-weight: 600; }
h3 { margin: 0 0 .4rem; font-size: .95rem; font-weight: 600; }
p { margin: .2rem 0; color: var(--soft); }
small { color: var(--soft); }
section { margin-top: 2.6rem; }
article, figure, pre { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .8rem .9rem; margin: 0; }
table { border-collapse: collapse; width: 100%; margin-top: .8rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--soft); }
th:first-child, td:first-child { text-align: left; }
tr.gallery th { font-weight: 600; padding-top: 1rem; }
td.wide { width: 30%; }
.track { position: relative; height: 12px; border-radius: 6px; background: var(--line); }
.bar { height: 12px; border-radius: 6px; }
.chance { position: absolute; top: -3px; width: 2px; height: 18px; background: var(--ink); }
.queries, .topics, .curves { display: grid; gap: .9rem; margin-top: .9rem; grid-template-columns: repeat(auto-fill, minmax(395px, 1fr)); }
.curves { grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); }
.recipe { margin-top: .35rem; }
.recipe > span { color: var(--soft); font-size: .78rem; }
.strip { display: flex; gap: 4px; flex-wrap: wrap; }
.strip img, .blank { width: 42px; height: 42px; object-fit: contain; background: #fff; border-radius: 6px; }
.topics .strip img { width: 54px; height: 54px; }
.blank { font-size: 8px; overflow: hidden; color: #555; }
figcaption { color: var(--soft); font-size: .85rem; }
svg { width: 100%; display: block; }
svg text { font-size: 10px; fill: var(--soft); }
.axis { stroke: var(--line); }
pre { overflow-x: auto; font-size: .8rem; }
"""
