"""Convert wiki markup to what a reader sees: an article's text, and its pictures with their captions.

    article = read_wikitext("'''Tides''' rise.<ref>{{cite|Moon}}</ref>\\n[[File:Low tide.jpg|thumb|A [[beach]] at low tide.]]")
    article.text              # "Tides rise.\\nA beach at low tide."
    article.illustrations     # (Illustration(file="Low_tide.jpg", caption="A beach at low tide."),)

Three passes, each linear in the length of the markup for any content: whatever begins with `<` (comments, references, tags); templates and
links, which nest, on a stack; and the lines (tables, headings, lists). Templates are removed, as there is nothing to expand them with; so
are references, formulas, categories and links to other languages. Links keep their label, pictures and galleries their captions, tables the
content of their cells. Unclosed markup (a template without its closing braces) is treated as text, as in MediaWiki.

A picture's caption is the last part of its link that is not an option, as in MediaWiki; an option is recognised anywhere and never taken
for a caption (`Words.is_layout`). In an infobox a picture is recognised by its value, a file name or a link to a file, under any parameter
name, and its caption by the parameter name: `caption2` belongs to `image2`, and one without a number to the main picture.

Compared with `filter_wiki` of gensim 4.4, which applies regular expressions repeatedly, the same articles have 50 words, and 99.7 % of
gensim's words are the same (tests/parity/test_wikitext.py, real articles). The differences:
- gensim keeps names and options of files (`File`, `jpg`, `px`, alternative texts) if a link has no caption, and all lines of galleries;
- in a caption with links, gensim loses the text before the last | of the first link;
- gensim joins words that were separated by a tag, a template or a reference: `one<br>two` is "onetwo"; here only words in bold or small
  print are joined to the rest of the word: `''K''<sub>a</sub>` is "Ka";
- gensim drops the rest of the article after an unclosed template, and counts single braces too; here unclosed markup is text;
- gensim takes anything between a < and the next > for a tag (`p < 0.05`), and ends a reference at the first /> in it;
- gensim keeps links to other languages unless they are at the very end of the markup, and names of categories in other languages;
- gensim decodes entities first, so that `&amp;lt;` begins a tag; here they, `<nowiki>` and the like are text that shows markup;
- gensim keeps drawings given as code (`<timeline>`, `<score>`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import md5
from operator import itemgetter

from data_prep.wiki.words import Words, words_of_language

_SEAM, _BREAK = "\0", "\1"  # where something was removed that separated words; where a new line begins. XML cannot contain these
_PICTURE, _BAR = "\ufdd0", "\ufdd1"  # in templates: around a picture's name; a | that separates no parameters. Unicode has no such letters,
# and a page that contains them anyway merely gets one more way to name a picture
_MAX_NESTING = 20  # pictures within captions of pictures; each level is read once more


@dataclass(frozen=True, slots=True)
class Illustration:
    """A picture in an article. file: its name as in `file_name`; caption: as a reader sees it, "" if there is none."""

    file: str
    caption: str


@dataclass(frozen=True, slots=True)
class Article:
    """What a reader sees of an article. text: one line per paragraph, heading, list item or cell; no blank lines."""

    text: str
    illustrations: tuple[Illustration, ...]


def read_wikitext(markup: str, words: Words | None = None) -> Article:
    """The text and the pictures of an article, in the order of the markup; a repeated picture has its first caption that is not blank.

    words: of the wiki's language; by default the English ones.
    """
    words = words or words_of_language()
    found: list[Illustration] = []
    markup = markup.replace(_SEAM, "").replace(_BREAK, "")
    text = _labels(_plain_link(words), _LANGUAGE_LINK.sub("", _without_tags(markup, words)))
    text = _labels(_ADDRESS, text)  # before the stack, which would take the first two brackets of `[http://x y]]]`
    text = _lines(_without_templates_and_links(text, words, found), words)
    captions: dict[str, str] = {}
    for one in found:
        captions[one.file] = captions.get(one.file) or " ".join(_lines(one.caption, words).split())
    return Article(text, tuple(Illustration(file, caption) for file, caption in captions.items()))


def file_name(written: str) -> str:
    """The name of a file as MediaWiki stores it: underscores for blanks, the first letter upper case. "" if nothing is left.

    file_name("low tide.jpg") == "Low_tide.jpg"
    """
    name = "_".join(unescaped(written).replace("_", " ").split())
    return name[:1].upper() + name[1:]


def unescaped(text: str) -> str:
    """The text with entities decoded. Only entities of at most 31 letters: longer numbers are an error in `html.unescape`."""
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def hashed_path(name: str) -> str:
    """The path at which MediaWiki keeps a file of that (stored) name: in two folders named by the name's MD5, "a/a9/Example.jpg"."""
    digest = md5(name.encode(), usedforsecurity=False).hexdigest()
    return f"{digest[0]}/{digest[:2]}/{name}"


# Words ------------------------------------------------------------------------------------------------------------------------------------

_SLOW_WORD = re.compile(r"[^\W\d]{2,}")
_MAX_LETTERS = 15


@lru_cache
def _quick_word() -> re.Pattern[str]:
    """The same for the first 65,536 characters, as explicit ranges, which `re` looks up in a table, unlike \\W and \\d."""
    runs = re.findall(r"[^\W\d]+", "".join(map(chr, range(1 << 16))))
    return re.compile(f"[{''.join(f'{run[0]}-{run[-1]}' for run in runs)}]{{2,}}")


def words_of(text: str) -> list[str]:
    """Lower-case runs of 2 to 15 letters: the words of `gensim.corpora.wikicorpus.tokenize`, by which gensim counts an article's length."""
    text = text.lower()
    is_quick = len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)
    words: list[str] = (_quick_word() if is_quick else _SLOW_WORD).findall(text)
    if "_" in text:
        words = [word for word in words if word[0] != "_"]
    if max(map(len, words), default=0) > _MAX_LETTERS:
        words = [word for word in words if len(word) <= _MAX_LETTERS]
    return words


# What begins with < -----------------------------------------------------------------------------------------------------------------------

_TAG = re.compile(r"<(?:!--|(/?)([A-Za-z][A-Za-z0-9]*)(?![A-Za-z0-9])([^<>]*)>)")
_GONE = frozenset("ref math chem ce score timeline graph mapframe maplink templatedata templatestyles hiero inputbox indicator".split())
_LITERAL = frozenset("nowiki pre source syntaxhighlight".split())
_BREAKS = frozenset("br hr p div li dt dd ul ol dl tr td th table caption blockquote center gallery h1 h2 h3 h4 h5 h6".split())
_OPAQUE = _GONE | _LITERAL | {"gallery", "imagemap"}
"""Elements whose content is not markup of the surrounding page: it ends at the closing tag, regardless of braces in between."""
_END_OF = {name: re.compile(rf"</{name}\s*+>", re.IGNORECASE) for name in _OPAQUE}
_MARKS = re.compile(r"[\[\]{}|!<>'=*#:;_-]")


def _without_tags(markup: str, words: Words) -> str:
    pieces: list[str] = []
    endless: set[str] = set()  # elements without a further closing tag, so that the page is searched for each only once
    at = 0
    while tag := _TAG.search(markup, at):
        pieces.append(markup[at : tag.start()])
        at = tag.end()
        if tag[2] is None:
            end = markup.find("-->", at)
            at = len(markup) if end < 0 else end + 3
            continue
        name = tag[2].lower()
        pieces.append(_BREAK if name in _BREAKS else _SEAM if name in _GONE else "")
        if tag[1] or name not in _OPAQUE or name in endless or tag[3].endswith("/"):
            continue
        closing = _END_OF[name].search(markup, at)
        if closing is None:
            endless.add(name)
            continue
        pieces.append(_content(name, markup[at : closing.start()], words))
        at = closing.end()
    pieces.append(markup[at:])
    return "".join(pieces)


def _content(name: str, content: str, words: Words) -> str:
    """What remains of an opaque element, as markup."""
    if name in _LITERAL:  # escaped, so that later passes see no markup in it
        return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", content)
    if name == "gallery":
        return "\n".join(_gallery_line(line.strip(), words) for line in content.split("\n") if line.strip())
    if name == "imagemap":
        return _gallery_line(content.strip().partition("\n")[0], words)
    return ""


def _gallery_line(line: str, words: Words) -> str:
    named = _tokens(words).match(f"[[{line}")
    return f"[[{line}]]" if named and named.lastgroup == "file" else f"[[File:{line}]]"


# Templates and links ----------------------------------------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"\[(?:[A-Za-z]++:)?//[^\s\[\]{}]*+[ \t]*+([^\[\]\n]*+)\]")
_LANGUAGE_LINK = re.compile(r"\n\[\[[a-z][a-z][\w-]*+:[^:\[\]|\n]++\]\][ \t]*+(?=\n|\Z)")


def _any_of(*names: str) -> str:
    return "|".join(re.escape(name).replace(r"\ ", "[ _]") for name in names)


@lru_cache
def _plain_link(words: Words) -> re.Pattern[str]:
    """A link to a page, without other markup inside; its label is the first group. Most links are such; this is quicker than the stack."""
    special = _any_of(*words.file, *words.category)
    return re.compile(rf"\[\[(?![ _]*+(?i:{special})[ _]*+:)(?:[^\[\]{{}}|\n]*+\|)*+:?+([^\[\]{{}}|]*+)\]\]")


def _labels(link: re.Pattern[str], text: str) -> str:
    """Replace each link by its first group: like `link.sub(r"\\1", text)`, but faster."""
    return "".join(link.split(text))


@lru_cache
def _tokens(words: Words) -> re.Pattern[str]:
    """Everything that opens or closes a template or a link."""
    file, category = _any_of(*words.file), _any_of(*words.category)
    # Each branch begins with a plain character, which Python's re finds quickly.
    return re.compile(
        rf"\[\[(?:(?P<file>[ _]*+(?i:{file})[ _]*+:)"
        rf"|(?P<category>[ _]*+(?i:{category})[ _]*+:)"
        r"|(?P<open>))|\](?P<close>\])|\{(?P<braces>\{++)|\}(?P<unbraces>\}++)"
    )


@dataclass(slots=True)
class _Open:
    """An open template (braces: their number) or link (files: the number of links to files around it, including itself).

    start: the number of pieces before it.
    """

    kind: str
    start: int
    files: int = 0
    braces: int = 0


def _without_templates_and_links(text: str, words: Words, found: list[Illustration]) -> str:
    """Pieces of text are in one list, and a stack says where something was opened: unclosed markup leaves its pieces unchanged."""
    pieces: list[str] = []
    stack: list[_Open] = []
    at = 0
    for token in _tokens(words).finditer(text):
        pieces.append(text[at : token.start()])
        at = token.end()
        kind = token.lastgroup
        if kind == "braces":
            stack.append(_Open(kind, len(pieces), stack[-1].files if stack else 0, token.end() - token.start()))
        elif kind == "unbraces":
            _close_templates(stack, pieces, token.end() - token.start(), words, found)
        elif kind == "close":
            if stack and stack[-1].kind != "braces":
                _close_link(stack.pop(), stack, pieces, words, found)
        elif kind is not None:
            if stack and stack[-1].kind in ("open", "category"):
                stack.pop()  # links nest only in captions, so the one before was not a link
            files = stack[-1].files if stack else 0
            is_file = kind == "file" and files < _MAX_NESTING
            stack.append(_Open("file" if is_file else "category" if kind == "category" else "open", len(pieces), files + is_file))
    pieces.append(text[at:])
    text = "".join(pieces)
    return _NAMED.sub("", text).replace(_BAR, "|") if _PICTURE in text or _BAR in text else text


def _is_in_template(stack: Sequence[_Open]) -> bool:
    """Whether the innermost open thing is a template."""
    return bool(stack) and stack[-1].kind == "braces"


def _close_templates(stack: list[_Open], pieces: list[str], num_braces: int, words: Words, found: list[Illustration]) -> None:
    """Close as many templates and parameters as the braces do, with unclosed links in them. Surplus braces are dropped."""
    while num_braces >= 2:
        depth = len(stack) - 1
        while depth >= 0 and stack[depth].kind != "braces":  # there are at most _MAX_NESTING links
            depth -= 1
        if depth < 0:
            return
        opened = stack[depth]
        del stack[depth + 1 :]
        content = "".join(pieces[opened.start :])
        matched = min(num_braces, opened.braces, 3)
        num_braces -= matched
        opened.braces -= matched
        if opened.braces < 2:
            stack.pop()
        if len(content) == 1 and content in _MAGIC_WORDS and matched == 2 and not opened.braces:
            left = _MAGIC_WORDS[content][_is_in_template(stack)]
        else:
            left = _left_of(content, stack, words, found) if _PICTURE_SUFFIX.search(content) else _SEAM
        pieces[opened.start :] = [left]


_MAGIC_WORDS = {"!": ("|", _BAR), "=": ("=", "&#61;")}
"""`{{!}}` and `{{=}}`, built into MediaWiki: the result of each in text or a link; and in a template, where it is not a separator."""


def _left_of(content: str, stack: Sequence[_Open], words: Words, found: list[Illustration]) -> str:
    """The result of a template with pictures: nothing; but inside another template, the names of pictures that may have a caption there."""
    pictures = _pictures_of_template(content, words)
    found += pictures
    captioned = {one.file for one in pictures if one.caption}
    names = [*_NAMED.findall(content), *(one.file for one in pictures)] if _is_in_template(stack) else []
    return _SEAM + "".join(map(_named, [name for name in dict.fromkeys(names) if name not in captioned][:_MAX_HANDED_ON]))


def _close_link(opened: _Open, stack: Sequence[_Open], pieces: list[str], words: Words, found: list[Illustration]) -> None:
    content = "".join(pieces[opened.start :])
    if opened.kind == "category":
        label = ""
    elif opened.kind == "open":
        label = content.rpartition("|")[2].removeprefix(":")
    else:
        name, *options = content.split("|")
        file, caption = file_name(name), _caption_of(options, words)
        if file:
            found.append(Illustration(file, caption))
        shown = caption if caption or not _is_in_template(stack) else _named(file)
        label = f"{_BREAK}{shown}{_BREAK}"
    pieces[opened.start :] = [label]


def _caption_of(options: Sequence[str], words: Words) -> str:
    """The last of a picture's options that is a caption."""
    return next((option for option in reversed(options) if not words.is_layout(option)), "").strip()


# Infoboxes --------------------------------------------------------------------------------------------------------------------------------

_MAX_HANDED_ON = 4  # names of pictures without caption that a template passes to the one around it
_NAMED = re.compile(rf"{_PICTURE}([^{_PICTURE}]*+){_PICTURE}")
_NO_LETTERS = re.compile(r"[\W_]++")
_PARAMETER = re.compile(r"\|\s*+([^=|\n]*+)=([^|]*+)")
_PICTURE_SUFFIX = re.compile(r"\.(?i:jpg|jpeg|png|webp|avif)")
_MAX_NAME = 255  # letters of a file's name; MediaWiki takes as many bytes

_Key = tuple[str, str]
"""Letters and digits of a parameter's name, ("image", "2") of `Image_2`."""


@dataclass(slots=True)
class _InTemplate:
    """A parameter whose value is a picture, or several."""

    key: _Key
    files: list[str]
    caption: str


def _named(file: str) -> str:
    return f"{_PICTURE}{file}{_PICTURE}" if 0 < len(file) <= _MAX_NAME else ""


@lru_cache
def _picture_value(words: Words) -> re.Pattern[str]:
    return re.compile(
        rf"(?:(?i:{_any_of(*words.file)})\s*+:)?+([^|\n=:{_PICTURE}{_SEAM}{_BREAK}]{{1,{_MAX_NAME}}}\.(?i:jpg|jpeg|png|webp|avif))"
    )


def _pictures_of_template(content: str, words: Words) -> list[Illustration]:
    """`image = Name.jpg` and `caption = ...` of an infobox, `image2` and `caption2`, `image_map` and `image_map_caption` and the like.

    content: the template without the templates and links in it, so that each | separates parameters.
    """
    pictures: list[_InTemplate] = []
    captions: dict[_Key, tuple[int, str]] = {}  # picture -> how certain the caption is (0: most), and its text
    for match in _PARAMETER.finditer(content):
        value = match[2].strip(_BLANKS + "\n")
        key = _NO_LETTERS.sub("", match[1].lower())
        if picture := _picture_in(key, value, words):
            pictures.append(picture)
        elif caption := _caption_in(key, value, words):
            of, said = caption[0], caption[1:]
            captions[of] = min(captions.get(of, said), said, key=itemgetter(0))
    for picture in pictures:
        names = _captions_own_names(picture.key, words)
        picture.caption = picture.caption or next((captions.pop(of)[1] for of in names if of in captions), "")
    main = _main_picture(pictures, words)
    if main is not None and not main.caption:
        general = [captions[of] for of in (("", ""), *((stem, "") for stem in words.picture)) if of in captions]
        main.caption = min(general, key=itemgetter(0), default=(0, ""))[1]
    return [Illustration(file, picture.caption) for picture in pictures for file in picture.files]


def _picture_in(key: str, value: str, words: Words) -> _InTemplate | None:
    """The picture or pictures in a parameter, with a caption in the same value. None if it is something else."""
    if _PICTURE not in value and not _PICTURE_SUFFIX.search(value):
        return None
    file, *options = value.split(_BAR)
    if named := _picture_value(words).fullmatch(file.strip(_BLANKS)):
        return _InTemplate(_parted(key, words), [file_name(named[1])], _caption_of(options, words))
    files = _NAMED.findall(value)
    beside = _NAMED.sub("", value).strip(_BLANKS + "\n") if files else ""
    of = _parted(key, words)
    is_caption = len(files) == 1 and value.startswith(_PICTURE) and of[0].startswith(words.picture)
    return _InTemplate(of, files, beside) if files and (is_caption or not beside) else None


def _caption_in(key: str, value: str, words: Words) -> tuple[_Key, int, str] | None:
    """The picture whose caption a parameter is, the position of its name in the list, and its text."""
    for place, word in enumerate(words.caption):
        if word in key:
            said = _NAMED.sub("", value).replace(_BAR, "|")
            return None if words.is_layout(said) else (_parted(key.replace(word, "", 1), words), place, said)
    return None


def _parted(key: str, words: Words) -> _Key:
    letters = "".join(letter for letter in key if not letter.isdigit())
    return words.uninflected(letters), "".join(letter for letter in key if letter.isdigit())


def _captions_own_names(key: _Key, words: Words) -> Iterator[_Key]:
    """The possible names of the caption of that picture alone, without the word for captions."""
    letters, number = key
    yield key
    rest = next((letters.replace(stem, "", 1) for stem in words.picture if stem in letters), "")
    if rest or number:
        yield rest, number
    if number:
        yield "", number


def _main_picture(pictures: Sequence[_InTemplate], words: Words) -> _InTemplate | None:
    """The picture to which a caption without a number belongs: named image, or image_something, or the only one."""
    unnumbered = [one for one in pictures if not one.key[1]]
    called = next((one for one in unnumbered if one.key[0] in words.picture), None)
    begins = next((one for one in unnumbered if one.key[0].startswith(words.picture)), None)
    return called or begins or (pictures[0] if len(pictures) == 1 else None)


# Lines ------------------------------------------------------------------------------------------------------------------------------------

_BLANKS = f" \t\r\xa0{_SEAM}{_BREAK}"
_LINE_MARKS = frozenset(f"*#:;={{|!-{_BLANKS}")
_SWITCH = re.compile(r"__[A-Z]++__")
_ENTITY = re.compile(r"&#?\w{1,31};")
_BEFORE_LINE = re.compile(rf"(?:[*#:;][*#:;{_BLANKS}]*+|\|\}}[}}{_BLANKS}]*+)*+")
"""Marks of lists, and ends of tables, of any number."""


@lru_cache
def _switch(words: Words) -> re.Pattern[str] | None:
    """The switches that `_SWITCH` does not find; None if the language has none."""
    own = [word for word in words.switch if not _SWITCH.fullmatch(word)]
    return re.compile(_any_of(*own), re.IGNORECASE) if own else None


def _lines(text: str, words: Words) -> str:
    """The lines without marks of tables, headings, lists, bold and italics; entities last, as decoded text is not markup."""
    text = _SWITCH.sub("", text.replace("'''", "").replace("''", ""))
    if (switch := _switch(words)) and ("__" in text or "＿＿" in text):
        text = switch.sub("", text)
    text = _labels(_ADDRESS, text).replace("[", "").replace("]", "")
    lines: list[str] = []
    for line in text.split("\n"):
        if line[:1] in _LINE_MARKS:
            lines += _seen(line.strip(_BLANKS))
        else:
            lines.append(line)
    text = _without_seams("\n".join(lines)).replace(_BREAK, "\n")
    if "&" in text:
        text = unescaped(text).replace("\xa0", " ")
    return "\n".join(filter(None, map(str.strip, text.split("\n"))))


def _without_seams(text: str) -> str:
    """Put a blank where words would be joined, and remove one of the two blanks around removed markup."""
    pieces = [""]
    for piece in text.split(_SEAM):
        if not piece:
            continue
        before = pieces[-1][-1:]
        if piece[0] == " " and before in ("", " ", "\n"):
            piece = piece[1:]
        elif piece[0].isalnum() and before.isalnum():
            pieces.append(" ")
        if piece:
            pieces.append(piece)
    return "".join(pieces)


def _seen(line: str) -> Sequence[str]:
    """What a reader sees of a line; for a row of a table, one line per cell."""
    mark = line[:1]
    if mark in "*#:;" or (mark == "|" and line.startswith("|}")):
        line = line[_BEFORE_LINE.match(line).end() :]  # type: ignore[union-attr]  # it matches anything, if only nothing
        mark = line[:1]
    if mark == "=":
        return (line.strip("=" + _BLANKS),)
    if mark == "{" and line.startswith("{|"):
        return ()
    if mark == "|" and line.startswith("|-"):
        return ()
    if mark in ("|", "!"):
        cells = line.lstrip("|!+").replace("!!", "||") if mark == "!" else line.lstrip("|+")
        return [_content_of_cell(cell) for cell in cells.split("||")]
    if mark == "-":
        return (line.lstrip("-"),)
    return (line,)


_ATTRIBUTES = re.compile(
    r"(?:\s*+(?:align|bgcolor|border|class|colspan|height|id|rowspan|scope|style|valign|width)\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s\"']++))++\s*+",
    re.IGNORECASE,
)


def _content_of_cell(cell: str) -> str:
    """The cell without the attributes before a |; "" if it has only attributes, as its content may have been a template."""
    attributes, bar, content = cell.rpartition("|")
    return content if bar or not _ATTRIBUTES.fullmatch(content.strip(_BLANKS)) else ""
