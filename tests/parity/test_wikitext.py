"""Text of real articles beside gensim's `filter_wiki` and `tokenize`: the same articles, nearly the same words, a kind for each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.wiki.dump import Dump, Page
from data_prep.wiki.wikitext import Article, read_wikitext, words_of

wikicorpus = pytest.importorskip("gensim.corpora.wikicorpus", reason="gensim is the reference (extra: prep)")

NAMES = (
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    "enwiki-table-markup.xml.bz2",
    "bgwiki-latest-pages-articles-shortened.xml.bz2",
)
MIN_WORDS = 50
FILES = re.compile(r"\[\[(?:File|Image|Файл):[^\n]*|\[\[(?:Category|Категория):[^\]]*", re.IGNORECASE)
CODE = re.compile(r"<(gallery|timeline)\b.*?</\1>", re.IGNORECASE | re.DOTALL)
NO_TAG = re.compile(r"<(?![a-z/!])", re.IGNORECASE)


def kinds(page: Page, article: Article, ours: Counter[str], theirs: Counter[str]) -> Counter[str]:
    """How many words differ for which reason; "unknown" for those that no reason below explains."""
    found: Counter[str] = Counter()
    of_files = set(words_of(" ".join(match[0] for pattern in (FILES, CODE) for match in pattern.finditer(page.markup))))
    captions = set(words_of(" ".join(one.caption for one in article.illustrations)))
    lost, added = theirs - ours, ours - theirs
    for word, count in lost.items():
        joined = any(word[:at] in ours and word[at:] in ours or word[:at] in added or word[at:] in added for at in range(1, len(word)))
        found["files and code" if word in of_files else "joined" if joined else "unknown"] += count
    for word, count in added.items():
        is_part = any(other.startswith(word) or other.endswith(word) for other in lost)
        if word in captions:
            found["captions"] += count
        elif is_part:
            found["parts of joined"] += count
        elif NO_TAG.search(page.markup):
            found["behind <"] += count
        else:
            found["unknown"] += count
    return found


def pages(folder: Path) -> Iterator[tuple[Page, Article, list[str], list[str]]]:
    """An article, its words here, and its words by gensim."""
    for name in NAMES:
        dump = Dump(folder / name)
        for page in dump.articles(bad=print):
            article = read_wikitext(page.markup, dump.words)
            yield page, article, words_of(article.text), wikicorpus.tokenize(wikicorpus.filter_wiki(page.markup))


def test_the_text_of_real_articles_is_gensims_but_for_known_kinds_of_words(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared_data / "wikidump"
    if not folder.is_dir():
        pytest.skip(f"the real dumps are absent: {folder}")
    num_ours = num_theirs = num_common = 0
    found: Counter[str] = Counter()
    for page, article, ours, theirs in pages(folder):
        assert (len(ours) >= MIN_WORDS) == (len(theirs) >= MIN_WORDS), f"{page.title}: {len(ours)} words here, {len(theirs)} by gensim"
        num_ours, num_theirs = num_ours + len(ours), num_theirs + len(theirs)
        num_common += (Counter(ours) & Counter(theirs)).total()
        found += kinds(page, article, Counter(ours), Counter(theirs))
    with capsys.disabled():
        print(f"\n{num_theirs} words by gensim, {num_ours} here, {num_common} in both; the others: {dict(found)}")
    assert num_common > 0.99 * num_theirs
    assert 2 * num_common > 0.99 * (num_theirs + num_ours)
    assert found["unknown"] < 0.0005 * num_theirs
