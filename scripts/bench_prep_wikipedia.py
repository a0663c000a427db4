"""Case wikipedia: from a dump to the words of its articles, our reader against gensim's `WikiCorpus`, both with two processes.

Both send each article of at least 50 words to the main process, as a list of lower-case words. It first checks that they keep the same
articles, and that at least 99 % of gensim's words are the same (`data_prep.wiki.wikitext` explains the rest). The limit is bzip2 alone: the
same file decompressed by two processes, and nothing else. Pages per second include redirects.

Two dumps, multistream with 100 pages per stream, like Wikipedia's: the real pages of `wikidump`, repeated, and the articles of `enwiki`,
which are plain text, wrapped as pages.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from html import escape
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from bench_rows import Given, Row, alternate, compare, timed

from data_prep.wiki.dump import Dump
from data_prep.wiki.wikitext import read_wikitext, words_of
from multimodal.errors import InputError

PROCESSES = 2
MIN_WORDS = 50
MIN_SHARE = 0.99
PAGES_A_STREAM = 100
REPEATS = 8
OURS, GENSIM, LIMIT, LIMIT_OF_ONE = "ours", "gensim's WikiCorpus", "bzip2 alone", "bzip2 alone, one process"
WIKIDUMP = Path("wikidump", "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2")
ENWIKI = Path("enwiki", "articles.jsonl.gz")
HEAD = b'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en"><siteinfo></siteinfo>'  # gensim wants the xmlns

Words = Mapping[str, Sequence[str]]
"""Id of an article -> its words."""


def rows(given: Given) -> Iterator[Row]:
    data, out, runs = given.data, given.out, given.runs
    xml = bz2.decompress((data / WIKIDUMP).read_bytes())
    pages = re.findall(rb"<page>.*?</page>", xml, re.DOTALL)
    dump = write_dump(out / "wikidump-multistream.xml.bz2", xml[: xml.index(b"<page>")], pages * REPEATS)
    yield from _measure("wikipedia text", dump, runs)
    with gzip.open(data / ENWIKI) as lines:
        pages = [wrapped(json.loads(line)) for line in lines]
    yield from _measure("wikipedia text, wrapped", write_dump(out / "enwiki-multistream.xml.bz2", HEAD, pages), runs)


def _measure(case: str, dump: Path, runs: int) -> Iterator[Row]:
    yield from _check_equal_work(case, dict(_ours(dump)), dict(_gensims(dump)))
    num_pages = bz2.decompress(dump.read_bytes()).count(b"<page>")

    def pages_of(read: Callable[[Path], Iterator[Any]]) -> int:
        for _ in read(dump):
            pass
        return num_pages

    readers = {OURS: _ours, GENSIM: _gensims, LIMIT: _decompressed, LIMIT_OF_ONE: _decompressed_by_one}
    systems = {name: timed(partial(pages_of, read)) for name, read in readers.items()}
    speeds = alternate(systems, runs)
    yield from compare(case, speeds, "pages/s", speeds[OURS], speeds[LIMIT])
    for name in (OURS, GENSIM, LIMIT):  # unlike speed, it does not depend on other work on the machine
        yield Row(case, f"{name}: processor time", 1e3 * _processor_time(systems[name]) / num_pages, "ms/page")


def _processor_time(work: Callable[[], int]) -> float:
    """Processor time, in seconds, of this process and those it starts."""

    def now() -> float:
        while active_children():  # their time counts only when they have ended
            time.sleep(0.01)
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    begun = now()
    work()
    return now() - begun


# The dumps --------------------------------------------------------------------------------------------------------------------------------


def write_dump(path: Path, head: bytes, pages: Iterable[bytes]) -> Path:
    """A multistream dump and its index; ids are renumbered, so that repeated pages differ."""
    index = path.with_name(path.name.replace(".xml.bz2", "-index.txt"))
    if not index.is_file():
        numbered = (re.sub(rb"<id>\d+</id>", b"<id>%d</id>" % number, page, count=1) for number, page in enumerate(pages))
        starts = []
        with open(path, "wb") as file:
            file.write(bz2.compress(head))
            while stream := list(islice(numbered, PAGES_A_STREAM)):
                starts.append(file.tell())
                file.write(bz2.compress(b"\n".join(stream)))
            file.write(bz2.compress(b"</mediawiki>\n"))
        index.write_text("".join(f"{start}:{number * PAGES_A_STREAM}:\n" for number, start in enumerate(starts)))
    return path


def wrapped(article: Mapping[str, str]) -> bytes:
    title, text = escape(article["title"]), escape(article["text"])
    return f"<page><title>{title}</title><ns>0</ns><id>0</id><revision><id>0</id><text>{text}</text></revision></page>".encode()


# The systems ------------------------------------------------------------------------------------------------------------------------------


def _ours(dump: Path) -> Iterator[tuple[str, Sequence[str]]]:
    cuts = Dump(dump).cuts()
    with ProcessPoolExecutor(PROCESSES) as pool:
        for articles in pool.map(partial(_part, dump), cuts[:-1], cuts[1:]):
            for id, words in articles:
                yield id, words.split()


def _part(dump: Path, start: int, stop: int) -> list[tuple[str, str]]:
    """The words of each article as one string, which is quicker to send."""
    opened = Dump(dump)
    words = ((page.id, words_of(read_wikitext(page.markup, opened.words).text)) for page in opened.articles(start, stop, bad=_refuse))
    return [(id, " ".join(found)) for id, found in words if len(found) >= MIN_WORDS]


def _refuse(where: str, key: str, reason: str) -> None:
    raise InputError(f"{where} {key}: {reason}")


def _gensims(dump: Path) -> Iterator[tuple[str, Sequence[str]]]:
    from gensim.corpora import WikiCorpus

    corpus = WikiCorpus(str(dump), processes=PROCESSES, dictionary={}, metadata=True, article_min_tokens=MIN_WORDS)
    for words, (id, _) in corpus.get_texts():
        yield id, words


def _decompressed(dump: Path) -> Iterator[int]:
    starts = [match.start() for match in re.finditer(rb"BZh91AY&SY", dump.read_bytes())]
    with ProcessPoolExecutor(PROCESSES) as pool:
        yield from pool.map(partial(_decompress_stream, dump), starts, [*starts[1:], dump.stat().st_size])


def _decompressed_by_one(dump: Path) -> Iterator[int]:
    yield len(bz2.decompress(dump.read_bytes()))


def _decompress_stream(dump: Path, start: int, stop: int) -> int:
    with open(dump, "rb") as file:
        file.seek(start)
        return len(bz2.decompress(file.read(stop - start)))


# Equal work -------------------------------------------------------------------------------------------------------------------------------


def _check_equal_work(case: str, ours: Words, theirs: Words) -> Iterator[Row]:
    """The share of equal words, article by article. InputError if the articles differ, or the share is below MIN_SHARE."""
    if ours.keys() != theirs.keys():
        raise InputError(f"{case}: ours keeps {len(ours)} articles, gensim {len(theirs)}, {len(ours.keys() ^ theirs.keys())} in one alone")
    common = sum((Counter(ours[id]) & Counter(theirs[id])).total() for id in ours)
    num_ours, num_theirs = (sum(map(len, words.values())) for words in (ours, theirs))
    if common < MIN_SHARE * num_theirs:
        raise InputError(f"{case}: ours has {common / num_theirs:.2%} of gensim's words, less than {MIN_SHARE:.0%}: not the same work")
    yield Row(case, "articles that ours and gensim keep", len(ours), "articles")
    yield Row(case, "words of gensim's that are ours", 100 * common / num_theirs, "%")
    yield Row(case, "words of ours that are gensim's", 100 * common / num_ours, "%")
