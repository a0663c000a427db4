"""A report as one HTML page with every picture inside: opens anywhere, asks nothing of a network.

Path("index.html").write_text(render(Report(title="demo", rows=rows, answers=answers, topics=topics, curves=curves, ...)))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from multimodal.evaluate.charts import learning_chart, part_of_all, shorten, training_chart
from multimodal.evaluate.report import (
    Answered,
    Curve,
    Failures,
    Figure,
    HeatMap,
    LearningCurve,
    Lookup,
    Picture,
    Report,
    Table,
    Topic,
    spread_of,
)
from multimodal.evaluate.retrieval import RetrievalRow
from multimodal.evaluate.style import STYLE, hue
from multimodal.search.page import data_uri

SHOWN_CHARACTERS = 120
"""So much of a text is shown; the pointer held over it shows the whole."""
_NONE = "&ndash;"
_CONTROLS = {
    "shuffled": "the same training with texts dealt to the wrong pictures",
    "random trunk": "the same on a trunk that was never trained",
}
_TASKS = {"text->image": "a picture by its own text", "image->text": "a text by its own picture"}


def render(report: Report) -> str:
    """The page as HTML text."""
    sections = [
        _figures(report.rows),
        *map(_table, report.tables),
        _learning(report.learning, report.not_measured),
        _answers(report.answers),
        _failures(report.failures),
        _heat_maps(report.heat_maps),
        _topics(report.topics),
        _curves(report.curves),
        f"<section><h2>As printed</h2><pre>{escape(report.printed)}</pre></section>" if report.printed else "",
        f"<section><h2>Commands</h2><pre>{escape(chr(10).join(report.commands))}</pre></section>" if report.commands else "",
    ]
    facts = "".join(f"<p>{escape(fact)}</p>" for fact in report.facts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{STYLE}</style>
</head>
<body class="{"photographs" if report.photographs else "drawings"}">
<header><h1>{escape(report.title)}</h1>{facts}</header>
{"".join(sections)}
</body>
</html>
"""


# -- figures -------------------------------------------------------------------------------------------------------------------------------


def _figures(rows: Sequence[RetrievalRow]) -> str:
    """A line a recipe and gallery, and side by side in each direction: recall, with R@10 as a bar; chance, and the controls there are."""
    judged = [row for row in rows if not row.control]
    if not judged:
        return ""
    directions = list(dict.fromkeys(row.direction for row in judged))
    shuffled = [row for row in rows if row.control and row.trunk != "random"]
    controls = {"shuffled": shuffled} if shuffled else {}
    if random := [row for row in judged if row.trunk == "random"]:
        controls["random trunk"] = random
    heads = ["R@1", "R@5", "R@10", "chance", *controls, "median rank"]
    lines = []
    for gallery in dict.fromkeys(row.gallery for row in judged):
        members = [row for row in judged if row.gallery == gallery]
        asked = "; ".join(filter(None, (_num_queries(members, direction) for direction in directions)))
        title = f"{escape(gallery)} <small>{escape(asked)}</small>"
        lines.append(f'<tr class="gallery"><th colspan="{2 + len(heads) * len(directions)}">{title}</th></tr>')
        trained = [row for row in members if row.trunk != "random"] or members
        for recipe, trunk in dict.fromkeys((row.recipe, row.trunk) for row in trained):
            ours = [row for row in members if (row.recipe, row.trunk) == (recipe, trunk)]
            name = recipe if len({row.trunk for row in trained}) == 1 else f"{recipe} ({trunk})"
            cells = [f"<td{_cut(name)}</td><td>{np.mean([row.num_pairs for row in ours]):,.0f}</td>"]
            for direction in directions:
                where = (recipe, gallery, direction)
                beside = [[row for row in kind if (row.recipe, row.gallery, row.direction) == where] for kind in controls.values()]
                cells.append(_recalls([row for row in ours if row.direction == direction], beside))
            lines.append(f"<tr>{''.join(cells)}</tr>")
    over = "".join(f'<th class="first" colspan="{len(heads)}">{escape(_arrow(direction))}</th>' for direction in directions)
    over, both = (f'<tr class="over"><th></th><th></th>{over}</tr>', " both") if len(directions) > 1 else ("", "")
    names = "".join(f"<th{' class=first' if not at else ''}>{head}</th>" for _ in directions for at, head in enumerate(heads))
    notes = "; ".join(f"<i>{name}</i> is {_CONTROLS[name]}" for name in controls)
    task = ", and ".join(_TASKS.get(direction, direction) for direction in directions)
    return f"""<section><h2>Finding {escape(task)}</h2>
<p>Share of the queries that find what belongs to them among the first 1, 5, 10, in per cent: {_of_what(judged)}.
The dark mark is chance{"; " if notes else ""}{notes}{" (R@10)" if notes else ""}.</p>
<div class="scroll"><table class="figures{both}"><thead>{over}<tr><th>recipe</th><th>pictures</th>{names}</tr></thead>
<tbody>{"".join(lines)}</tbody></table></div></section>"""


def _recalls(ours: Sequence[RetrievalRow], controls: Sequence[Sequence[RetrievalRow]]) -> str:
    """The cells of one recipe in one direction; of no rows, dashes."""
    beside = "".join(f"<td>{np.mean([row.recall_10 for row in rows]):.1f}</td>" if rows else f"<td>{_NONE}</td>" for rows in controls)
    if not ours:
        return f'<td class="first">{_NONE}</td><td>{_NONE}</td><td>{_NONE}</td><td>{_NONE}</td>{beside}<td>{_NONE}</td>'
    spread, chance = spread_of(ours), float(np.mean([row.chance_recall_10 for row in ours]))
    return (
        f'<td class="first">{np.mean([row.recall_1 for row in ours]):.1f}</td><td>{np.mean([row.recall_5 for row in ours]):.1f}</td>'
        f'<td class="figure"><b>{spread.value:.1f}</b> <small>{spread.low:.1f}&ndash;{spread.high:.1f}</small>'
        f"{_bar(spread.value, chance, 100.0, ours[0].family)}</td><td>{chance:.1f}</td>{beside}"
        f"<td>{np.mean([row.median_rank for row in ours]):.0f}</td>"
    )


def _of_what(rows: Sequence[RetrievalRow]) -> str:
    """What a figure and the range beside it are."""
    lines: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = (row.recipe, row.gallery, row.direction, row.trunk)
        lines[key] = lines.get(key, 0) + 1
    fewest, most = min(lines.values()), max(lines.values())
    if most == 1:
        return "one seed, with the 95 % interval over its queries"
    if fewest == most:
        return f"mean over {most} seeds, smallest and largest"
    return "mean over seeds, smallest and largest; where there is one seed, the 95 % interval over its queries"


def _num_queries(rows: Sequence[RetrievalRow], direction: str) -> str:
    """How many queries a direction had, where the rows say so."""
    nums = sorted({row.num_queries for row in rows if row.direction == direction and row.num_queries is not None})
    return f"{_arrow(direction)}: {'–'.join(f'{num:,}' for num in dict.fromkeys((nums[0], nums[-1])))} queries" if nums else ""


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in table.header)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return f"""<section><h2>{escape(table.title)}</h2><p>{escape(table.note)}</p>
<div class="scroll"><table class="other"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div></section>"""


def _cell(cell: str | Figure) -> str:
    if isinstance(cell, str):
        return f"<td{_cut(cell)}</td>"
    between = "" if cell.low is None or cell.high is None else f" <small>{cell.low:.1f}&ndash;{cell.high:.1f}</small>"
    return (
        f'<td class="figure"><b>{cell.value:.1f}</b>{between}{_bar(cell.value, cell.chance, cell.top, cell.family, cell.mark)}'
        f"<small>{escape(cell.mark)} {cell.chance:.1f}</small></td>"
    )


def _bar(value: float, chance: float, top: float, family: str, mark_name: str = "chance") -> str:
    """A bar from zero, with a mark where chance is; top: the value of a full bar."""
    width, mark = (min(100.0, max(0.0, 100 * number / top)) for number in (value, chance))
    return (
        f'<div class="track"><div class="bar" style="width:{width:.1f}%;background:{hue(family)}"></div>'
        f'<div class="chance" style="left:{mark:.1f}%" title="{escape(mark_name)} {chance:.1f}"></div></div>'
    )


def _learning(curves: Sequence[LearningCurve], not_measured: Sequence[str]) -> str:
    missing = f"<p>Not measured: {escape('; '.join(not_measured))}.</p>" if not_measured else ""
    if not curves:
        return f"<section><h2>What more pairs give</h2>{missing}</section>" if missing else ""
    figures = dict.fromkeys(curve.figure for curve in curves)
    charts = "".join(_learning_of([curve for curve in curves if curve.figure == figure]) for figure in figures)
    return f"""<section><h2>What more pairs give</h2>
<p>The band is from the smallest to the largest of several seeds, of one seed its interval; the dashed line is chance. The text
spaces are those of all the training pairs, and every run has as many epochs, so that a small share has fewer steps too.</p>
{missing}{charts}</section>"""


def _learning_of(curves: Sequence[LearningCurve]) -> str:
    """A chart, and a sentence on what its last steps say of a set that were larger."""
    nums = sorted({num for curve in curves for num in curve.num_pairs})
    shares = [part_of_all(num, nums[-1]) for num in nums]
    of = f"{curves[0].figure} at {', '.join(shares[:-1])}{' and ' if shares[:-1] else ''}{shares[-1]} of {nums[-1]:,} training pairs."
    gained: dict[tuple[int, int], list[str]] = {}
    for curve in curves:
        if len(curve.num_pairs) > 1:
            since, until = curve.num_pairs[-2:]
            a_doubling = (curve.values[-1] - curve.values[-2]) / np.log2(until / since)
            gained.setdefault((since, until), []).append(f"{shorten(curve.recipe, 40)} {a_doubling:+.1f}")
    steps = "".join(f" From {since:,} to {until:,}, for each doubling: {', '.join(of_each)}." for (since, until), of_each in gained.items())
    return f'<figure class="learning"><figcaption>{escape(of + steps)}</figcaption>{learning_chart(curves)}</figure>'


def _heat_maps(maps: Sequence[HeatMap]) -> str:
    if not maps:
        return ""
    return f"""<section><h2>What is taken for what</h2>
<p>In per cent; each row adds up to 100. The frame is the row's own class.</p>
<div class="maps">{"".join(map(_heat_map, maps))}</div></section>"""


def _heat_map(one: HeatMap) -> str:
    """A table whose cells are coloured by their share, the darkest being the largest of all; chance is the last row."""
    names, shares = one.confusion.names, np.asarray(one.confusion.shares, dtype=float)
    largest = max(float(shares.max(initial=0)), 1e-9)

    def cells(row: Iterable[float], own: int | None) -> str:
        return "".join(
            f'<td{" class=own" if at == own else ""} style="--share:{100 * share / largest:.0f}%" '
            f'title="{100 * share:.1f} % {escape(names[at])}">{_whole(100 * share)}</td>'
            for at, share in enumerate(row)
        )

    heads = "".join(f'<th><span title="{escape(name)}">{escape(shorten(name, 24))}</span></th>' for name in names)
    lines = "".join(
        f'<tr><th title="{escape(name)}">{escape(shorten(name, 24))}</th>{cells(row, at)}</tr>'
        for at, (name, row) in enumerate(zip(names, shares, strict=True))
    )
    found, chance = 100 * float(np.mean(np.diag(shares))), 100 * float(np.mean(one.chance))
    return f"""<article><h3>{escape(one.title)}</h3>
<p>Own class, mean over rows: <b>{found:.1f}</b>; by chance {chance:.1f}.</p>
<p>Down: {escape(one.rows)}. Across: {escape(one.columns)}.</p>
<div class="scroll"><table class="heat"><thead><tr><th></th>{heads}</tr></thead><tbody>{lines}</tbody>
<tfoot><tr><th>chance</th>{cells(one.chance, None)}</tr></tfoot></table></div></article>"""


def _whole(percent: float) -> str:
    """Nothing for what rounds to nothing: an empty cell is read at a glance, a zero among numbers is not."""
    return f"{percent:.0f}" if percent >= 0.5 else ""


def _curves(curves: Sequence[Curve]) -> str:
    if not curves:
        return ""
    return f'<section><h2>Training</h2><div class="curves">{"".join(map(training_chart, curves))}</div></section>'


# -- pictures ------------------------------------------------------------------------------------------------------------------------------


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
        blocks.append(f'<article><h3><code{_cut(query)}</code></h3><div class="recipes">{"".join(lines)}</div></article>')
    return f"""<section><h2>Queries</h2><p>Best first; hold the pointer over a picture to read its text.</p>
<div class="queries">{"".join(blocks)}</div></section>"""


def _failures(failures: Sequence[Failures]) -> str:
    if not failures:
        return ""
    return f"""<section><h2>Where it fails</h2>
<p>A text, its own picture with the rank that it got, and what came first instead. The frame is the own picture.</p>
{"".join(_failures_of(one, is_open=not at) for at, one in enumerate(failures))}</section>"""


def _failures_of(one: Failures, is_open: bool) -> str:
    kinds = [
        ("Worst: the largest ranks", "".join(_lookup(found, one.num_pictures) for found in one.worst), "lookups"),
        ("Near misses: the smallest ranks after the first", "".join(_lookup(found, one.num_pictures) for found in one.near), "lookups"),
        ("Best: first by the widest margin", "".join(_best(found) for found in one.best), "best"),
    ]
    blocks = "".join(f'<h3>{name}</h3><div class="{kind}">{cards}</div>' for name, cards, kind in kinds if cards)
    chance = f"by chance the middle rank is {(one.num_pictures + 1) / 2:,.0f}"
    return f"""<details{" open" if is_open else ""}><summary><b>{escape(one.recipe)}</b> among {escape(one.gallery)}:
{one.num_queries:,} texts, {one.num_pictures:,} pictures; {chance}</summary>{blocks}</details>"""


def _lookup(one: Lookup, num_pictures: int) -> str:
    found = _strip(one.found, own=one.rank - 1) if one.found else f"<p>{escape(one.note)}</p>"
    rank = f"<span><b>{one.rank:,}</b> of {num_pictures:,}</span>"
    return f"""<article class="lookup"><p class="query"{_cut(one.query)}</p>
<div class="sides"><div class="mine">{_picture(one.own, own=True)}{rank}</div>{found}</div></article>"""


def _best(one: Lookup) -> str:
    return f'<div class="one">{_picture(one.own)}<span title="{escape(one.query)}">{escape(shorten(one.query, 60))}</span></div>'


def _topics(topics: Sequence[Topic]) -> str:
    if not topics:
        return ""
    items = "".join(
        f"<article><h3>{escape(', '.join(topic.words))}</h3>{_share(topic)}{_strip(topic.pictures)}</article>" for topic in topics
    )
    return f"""<section><h2>Topics</h2><p>Top words of each topic, its share of all pictures, and those that hold most of it.</p>
<div class="topics">{items}</div></section>"""


def _share(topic: Topic) -> str:
    return "" if topic.share is None else f"<p>{100 * topic.share:.1f} % of all pictures</p>"


def _strip(pictures: Sequence[Picture], own: int | None = None) -> str:
    """Pictures side by side; own: the place of the one that is framed."""
    return f'<div class="strip">{"".join(_picture(picture, at == own) for at, picture in enumerate(pictures))}</div>'


def _picture(picture: Picture, own: bool = False) -> str:
    frame = " own" if own else ""
    if picture.thumbnail is None:
        return f'<span class="blank{frame}" title="{escape(picture.text)}">{escape(shorten(picture.text, 24))}</span>'
    alt = escape(shorten(picture.text, SHOWN_CHARACTERS))
    return f'<img class="picture{frame}" alt="{alt}" title="{escape(picture.text)}" src="{data_uri(picture.thumbnail)}">'


def _cut(text: str) -> str:
    """The rest of an opening tag and the text in it, cut for display, the whole being its title."""
    return f' title="{escape(text)}">{escape(shorten(text, SHOWN_CHARACTERS))}'


def _arrow(direction: str) -> str:
    return direction.replace("->", " → ")
