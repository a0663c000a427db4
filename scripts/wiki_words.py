"""Makes data_prep/wiki/words.json: words for files, categories, redirects and the layout of pictures, from MediaWiki's lists.

    apt-get download mediawiki && dpkg-deb -x mediawiki_*.deb unpacked
    .venv/bin/python scripts/wiki_words.py unpacked/usr/share/mediawiki > data_prep/wiki/words.json

It reads languages/messages/Messages*.php: the names of the namespaces of files and categories from `$namespaceNames` and
`$namespaceAliases`; the options of pictures (`img_*`), `redirect` and the switches (`__NOTOC__`) from `$magicWords`. A language also uses
the words of its fallback languages, as in MediaWiki, and of its variants (zh-hans of zh): their codes are listed under "with". English
words are valid everywhere, and listed once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

KINDS = ("file", "category", "redirect", "option", "switch")
FORMER_CODES = {"no": "nb", "als": "gsw", "bat-smg": "sgs", "be-x-old": "be-tarask", "fiu-vro": "vro", "roa-rup": "rup"}
FORMER_CODES |= {"zh-classical": "lzh", "zh-min-nan": "nan", "zh-yue": "yue"}  # MediaWiki's LanguageCode; databases keep the older ones

_VERSION = re.compile(r"'MW_VERSION', '([\d.]+)'")
_COMMENT = re.compile(r"/\*.*?\*/|^\s*#.*?$", re.DOTALL | re.MULTILINE)
_ARRAY = r"^\${}\s*=\s*\[(.*?)^\];"
_NAME = re.compile(r"(NS_FILE|NS_CATEGORY)\s*=>\s*(['\"])(.*?)\2")
_ALIAS = re.compile(r"(['\"])([^'\"]*)\1\s*=>\s*(NS_FILE|NS_CATEGORY)\b")
_MAGIC = re.compile(r"'(\w+)'\s*=>\s*\[\s*'?[01]'?\s*,(.*?)\],?\s*$", re.MULTILINE)
_STRING = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_KIND_OF = {"NS_FILE": "file", "NS_CATEGORY": "category"}

Words = dict[str, dict[str, None]]
"""Kind -> its words, each once, in order."""


def main(mediawiki: Path) -> None:
    """Print the table."""
    files = {_code(file): file.read_text("utf-8") for file in sorted((mediawiki / "languages" / "messages").glob("Messages*.php"))}
    own = {code: words_in(php) for code, php in files.items()}
    fallbacks = {code: _fallbacks(php) for code, php in files.items()}
    english = own.pop("en")
    table: dict[str, dict[str, list[str]]] = {"en": {kind: list(words) for kind, words in english.items()}}
    for code, words in sorted(own.items()):
        table[code] = {kind: [word for word in words[kind] if word not in english[kind]] for kind in KINDS}
        table[code]["with"] = [one for one in _related(code, own, fallbacks) if any(own[one].values())]
    table |= {old: {"with": [new]} for old, new in FORMER_CODES.items() if new in table and old not in table}
    version = _VERSION.search((mediawiki / "includes" / "Defines.php").read_text("utf-8"))
    source = f"MediaWiki {version[1] if version else ''}, languages/messages/Messages*.php, by scripts/wiki_words.py"
    rows = [f"{json.dumps(code)}: {json.dumps(_filled(words), ensure_ascii=False)}" for code, words in table.items() if _filled(words)]
    print("{\n" + ",\n".join([f'"source": {json.dumps(source)}', *rows]) + "\n}")


def words_in(php: str) -> Words:
    """The words in a language's own file."""
    php = _COMMENT.sub("", php)
    words: Words = {kind: {} for kind in KINDS}
    for name in _NAME.finditer(_array(php, "namespaceNames")):
        words[_KIND_OF[name[1]]][_spaced(name[3])] = None
    for alias in _ALIAS.finditer(_array(php, "namespaceAliases")):
        words[_KIND_OF[alias[3]]][_spaced(alias[2])] = None
    for magic in _MAGIC.finditer(_array(php, "magicWords")):
        spelled = [re.sub(r"\\(.)", r"\1", one or other) for one, other in _STRING.findall(magic[2])]
        if magic[1].startswith("img_"):
            words["option"] |= dict.fromkeys(spelled)
        elif magic[1] == "redirect":
            words["redirect"] |= dict.fromkeys(spelled)
        else:
            words["switch"] |= dict.fromkeys(one for one in spelled if re.fullmatch(r"(__|＿＿).+(__|＿＿)", one))
    return words


def _array(php: str, name: str) -> str:
    found = re.search(_ARRAY.format(name), php, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def _spaced(name: str) -> str:
    return name.replace("_", " ").strip()


def _code(file: Path) -> str:
    return file.stem.removeprefix("Messages").lower().replace("_", "-")


def _fallbacks(php: str) -> list[str]:
    found = re.search(r"^\$fallback\s*=\s*'([^']*)'", php, re.MULTILINE)
    return re.split(r"\s*,\s*", found[1].strip()) if found else []


def _related(code: str, own: Mapping[str, Words], fallbacks: Mapping[str, list[str]]) -> list[str]:
    """The languages whose words are also used in this one: its fallbacks, their own fallbacks, and its variants."""
    found = [code]
    for one in fallbacks[code]:
        found += [one, *fallbacks.get(one, [])]
    found += [other for other in own if other.startswith(f"{code}-")]
    return [one for one in dict.fromkeys(found) if one in own and one != code]


def _filled(words: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {kind: of_kind for kind, of_kind in words.items() if of_kind}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
