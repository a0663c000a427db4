"""The words of wiki markup in each language: namespaces, redirects, options and captions of pictures.

    words = words_of_language("de")
    words.file                # ("Datei", "Bild")
    words.is_layout("mini")   # True: [[Datei:Hafen.jpg|mini|Der Hafen]] has one caption, and it is the other part

English words are valid in every language, as in MediaWiki. `words.json` has MediaWiki's own lists (made by `scripts/wiki_words.py`); a dump
contains only the current names of the namespaces. The names of infobox parameters for pictures and captions are not defined by MediaWiki:
each Wikipedia's templates have their own, and the usual ones are listed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

_TABLE = Path(__file__).with_name("words.json")

# Parameters of infoboxes, letters only, in lower case. Unambiguous names of captions come first; `opis` and the like may describe the thing
# rather than its picture, and count as a caption only if there is no other.
_CAPTIONS = {
    "en": "caption",
    "ar": "تعليق عنوانالصورة وصفالصورة شرحالصورة وصف",
    "bg": "надпис описаниенакартинката описание",
    "bs": "opisslike natpis opis",
    "ca": "peudefoto peudimatge llegenda peu descripció",
    "cs": "popisek popisobrázku popis",
    "da": "billedtekst billedbeskrivelse",
    "de": "bildbeschreibung bildunterschrift bildtext bildlegende untertitel unterschrift beschreibung legende",
    "el": "λεζάντα περιγραφήεικόνας περιγραφή",
    "eo": "bildopriskribo priskribodebildo klarigo priskribo",
    "es": "piedefoto piedeimagen pieimagen imagenpie leyenda descripción descripcion pie",
    "et": "pildiallkiri allkiri pilditekst kirjeldus",
    "eu": "irudioina oina epigrafea deskribapena",
    "fa": "زیرنویس توضیحتصویر عنوانتصویر شرحتصویر توضیح",
    "fi": "kuvateksti kuvaselitys kuvanselitys",
    "fr": "légende legende description",
    "gl": "pédefoto pédeimaxe lenda descrición",
    "he": "כיתוב תיאורתמונה",
    "hr": "opisslike natpis opis",
    "hu": "képaláírás képfelirat képleírás felirat",
    "id": "keterangan takarir",
    "it": "didascalia legenda descrizione",
    "ja": "画像説明 画像の説明 写真説明 キャプション 説明文 説明",
    "ko": "그림설명 사진설명 이미지설명 캡션 설명",
    "lt": "antraštė paveiksloaprašymas vaizdoaprašymas aprašymas parašas",
    "lv": "paraksts attēlanosaukums apraksts",
    "nb": "bildetekst bildebeskrivelse",
    "nl": "onderschrift bijschrift beschrijving",
    "nn": "bilettekst bildetekst",
    "pl": "podpis opisgrafiki opiszdjęcia opisilustracji opisobrazu opis",
    "pt": "legenda descrição",
    "ro": "legendă legenda descriereimagine textimagine descriere",
    "ru": "подпись описаниеизображения описание",
    "sh": "opisslike natpis opis",
    "sk": "popisok popisobrázka popis",
    "sl": "napisslike opisslike napis opis",
    "sr": "описслике опис натпис opisslike natpis opis",
    "sv": "bildtext bildbeskrivning",
    "tr": "altyazı resimaltı açıklama alttyazı",
    "uk": "підпис описзображення опис",
    "vi": "chúthích ghichúhình chúthíchhình môtả",
    "zh": "图片说明 圖片說明 图像说明 圖像說明 相片說明 照片说明 照片說明 说明 說明",
}
_PICTURES = {
    "en": "image photo picture img",
    "ar": "صورة الصورة",
    "bg": "картинк изображени снимк",
    "bs": "slik",
    "ca": "imatge foto fotografi",
    "cs": "obráz foto",
    "da": "billed foto",
    "de": "bild foto abbildung",
    "el": "εικόνα φωτογραφία",
    "eo": "bildo dosiero foto",
    "es": "imagen foto",
    "et": "pilt pildi foto",
    "eu": "irudi argazki",
    "fa": "تصویر عکس",
    "fi": "kuva kuvan",
    "fr": "image photo",
    "gl": "imaxe foto",
    "he": "תמונה תמונת",
    "hr": "slik",
    "hu": "kép",
    "id": "gambar foto",
    "it": "immagine foto",
    "ja": "画像 写真",
    "ko": "그림 사진 이미지",
    "lt": "vaizd paveiksl nuotrauk",
    "lv": "attēl foto",
    "nb": "bilde foto",
    "nl": "afbeelding foto",
    "nn": "bilete bilde foto",
    "pl": "grafik zdjęci ilustracj obraz",
    "pt": "imagem foto",
    "ro": "imagine foto",
    "ru": "изображени фото портрет",
    "sh": "slik",
    "sk": "obráz foto",
    "sl": "slik",
    "sr": "слик slik",
    "sv": "bild foto",
    "tr": "resim fotoğraf görsel",
    "uk": "зображення фото портрет",
    "vi": "hìnhảnh hình ảnh",
    "zh": "图片 圖片 图像 圖像 照片 相片",
}
_ENGLISH_PICTURES = frozenset(_PICTURES["en"].split())  # these are not inflected
_MAX_BEFORE_STEM, _MAX_AFTER_STEM = 2, 2  # letters: "de" of "deimagen", "um" of "grafikum"
_SAME_INFOBOXES = {"no": "nb", "sr-ec": "sr", "sr-el": "sr", "zh-hans": "zh", "zh-hant": "zh", "pt-br": "pt"}
_MAX_NUMBERED = 100  # letters of an option with a number, so that long captions are not searched for one
_OF_MOVIES = ("start=$1", "end=$1", "thumbtime=$1")  # of the extension TimedMediaHandler, which all Wikimedia wikis have


@dataclass(frozen=True, eq=False)  # hashed by identity, not by its hundreds of words: patterns are cached for each
class Words:
    """A language's words, followed by the English ones.

    file, category: names of namespaces. redirect: how a redirect begins. option: of a picture, "$1" for a value ("alt=$1", "$1px").
    switch: of a page ("__NOTOC__"). caption, picture: parameters of infoboxes, letters only, the most certain first.
    """

    file: tuple[str, ...]
    category: tuple[str, ...]
    redirect: tuple[str, ...]
    option: tuple[str, ...]
    switch: tuple[str, ...]
    caption: tuple[str, ...]
    picture: tuple[str, ...]

    def is_layout(self, part: str) -> bool:
        """Whether a part of a picture's link is a layout option, or blank, rather than a caption.

        As in MediaWiki's Parser::makeImage, except for options that MediaWiki takes for a caption by accident: in capitals, repeated, with
        an invalid value, or with a number in the digits of another script.
        """
        part = part.strip().lower()
        if not part or part.replace("_", " ") in self._plain:
            return True
        key, is_set, _ = part.partition("=")
        if is_set and key.strip() in self._keys:
            return True
        return len(part) <= _MAX_NUMBERED and self._numbered.fullmatch(part) is not None

    def uninflected(self, parameter: str) -> str:
        """The letters of a parameter; if it is an inflected word for pictures ("zdjęcia", "deimagen"), that word's stem."""
        for stem in self.picture:
            before = parameter.find(stem)
            if 0 <= before <= _MAX_BEFORE_STEM and len(parameter) - len(stem) - before <= _MAX_AFTER_STEM and stem not in _ENGLISH_PICTURES:
                return stem
        return parameter

    def is_redirect(self, markup: str) -> bool:
        """Whether a page is a redirect."""
        return markup[:1] in ("#", "＃") and self._redirect.match(markup) is not None

    @cached_property
    def _plain(self) -> frozenset[str]:
        return frozenset(one.lower().replace("_", " ") for one in self.option if "$1" not in one)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(one[:-3].lower() for one in self.option if one.endswith("=$1"))

    @cached_property
    def _numbered(self) -> re.Pattern[str]:
        """`200px`, `x200px`, `200x300px`; `upright 1.2`, `page 3`."""
        units = (one[2:] for one in self.option if one.startswith("$1"))
        names = (one[:-2] for one in self.option if one.endswith("$1") and not one.endswith("=$1"))
        unit, name = (_any_of(word.strip(" _") for word in words) for words in (units, names))
        return re.compile(rf"(?:\d+\s*(?:[xх×]\s*\d*)?|[xх×]\s*\d+)\s*(?:{unit})(?:px)?|(?:{name})[ _]?[\d.,]+", re.IGNORECASE)

    @cached_property
    def _redirect(self) -> re.Pattern[str]:
        return re.compile(rf"(?:{_any_of(self.redirect)})\s*+:?\s*+\[\[", re.IGNORECASE)


@lru_cache
def words_of_language(language: str = "en", file: tuple[str, ...] = (), category: tuple[str, ...] = ()) -> Words:
    """The words of a language, by its code as in a dump ("de", "zh-yue"); for an unknown code, or "", only the English ones.

    file, category: a wiki's additional names of these namespaces.
    """
    codes = tuple(dict.fromkeys(_codes(language.lower())))

    def found(kind: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for code in codes for word in _table()[code].get(kind, ())))

    def usual(of_languages: dict[str, str]) -> tuple[str, ...]:
        named = (_SAME_INFOBOXES.get(code, code) for code in codes)
        return tuple(dict.fromkeys(word for code in named for word in of_languages.get(code, "").split()))

    return Words(
        file=tuple(dict.fromkeys(file + found("file"))),
        category=tuple(dict.fromkeys(category + found("category"))),
        redirect=found("redirect"),
        option=found("option") + _OF_MOVIES,
        switch=found("switch"),
        caption=usual(_CAPTIONS),
        picture=usual(_PICTURES),
    )


def _codes(language: str) -> Iterator[str]:
    """The language itself, those whose words it also uses, and English."""
    known = next((code for code in (language, language.partition("-")[0]) if code in _table()), "en")
    yield known
    yield from _table()[known].get("with", ())
    yield "en"


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return json.loads(_TABLE.read_text("utf-8"))


def _any_of(words: Iterator[str] | tuple[str, ...]) -> str:
    """A pattern that matches any of the words; longer ones are tried first."""
    return "|".join(map(re.escape, sorted(set(words), key=lambda word: (-len(word), word))))
