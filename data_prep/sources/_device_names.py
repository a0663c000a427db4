"""Picture names that a device or a program gave, which say nothing about the content.

    is_device_name("IMG_20190801_120000_HDR"), is_device_name("WhatsApp Image 2019-08-01 at 12.00.00")      # True, True
    is_device_name("Photo of my dog"), is_device_name("Boat 12")                                             # False, False

Such a name consists of a maker's word and numbers, dates, marks of a copy or an edit, and nothing else. Any further word was written by a
person, and makes the whole name a title. Words that could be a title by themselves ("Signal", "Portrait") count only beside a number.
"""

from __future__ import annotations

import re
import unicodedata


def _plain(text: str) -> str:
    """In lower case, without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(sign))


def _words(text: str) -> frozenset[str]:
    return frozenset(_plain(text).split())


# Device names on their own, with or without a number.
_ALONE = _words("""
    img image images imagen immagine imagem afbeelding obraz obrazek изображение
    画像 图片 이미지 fullsizerender fullsizeoutput fullsize
    pic pics picture pictures photo photos foto fotos bild bilder фото 写真 照片 사진
    dsc dscn dscf dcim pxl mvimg gopr imgp imag dji cimg hpim
    unnamed unknown untitled unbenannt naamloos namnlos 名称未設定 未标题 未命名 noname
    download downloads screenshot screenshots screencapture screencap
    bildschirmfoto bildschirmaufnahme schermafbeelding schermafdruk schermata
    skarmavbild skarmbild skærmbillede skjermbilde nayttokuva kuvakaappaus skjermdump skærmdump kepernyofoto kepernyokep
    スクリーンショット 屏幕快照 屏幕截图 截屏 截图 微信图片 微信截图 스크린샷
""")
# Device names of several words, which numbers may follow.
_PHRASES = tuple(
    _words(phrase)
    for phrase in (
        "screen shot",
        "capture d ecran",
        "captura de pantalla",
        "captura de tela",
        "captura de ecra",
        "captura de ecran",
        "zrzut ekranu",
        "снимок экрана",
        "знімок екрана",
        "snimek obrazovky",
        "snimka obrazovky",
        "ekran resmi",
        "ekran goruntusu",
        "στιγμιοτυπο οθονης",
        "화면 캡처",
        "ohne titel",
        "sans titre",
        "sin titulo",
        "senza titolo",
        "sem titulo",
        "zonder titel",
        "bez nazvu",
        "bez tytulu",
        "без названия",
        "adobe scan",
        "new doc",
        "skype picture",
    )
)
# Device names only beside a number: without one, or with few digits, some of these are titles.
_NUMBERED = _words("""
    p pa pb pc g gp gx gh gl mg igp r l b rscn fscn sscn crw sta stb stc std sam sdc sdim pict kif dcp kicx rimg snc dc imgl
    mvi mov vid wa wp win pano mpo hni cam camera cameraphoto webcam opencamera gcam camscanner wx
    fb fbimg received snapchat insta instagram signal telegram whatsapp viber mmexport microsmg wechat line messenger messenger_creation
    kakaotalk skype discord tiktok facebook twitter pinterest sticker
    scan scans scanned scn doc file attachment clipboard capture captura snapshot snap snip snipaste frame still vlcsnap
    videocapture shot mpv
    thumbnail thumb temp tmp burst panorama collage export upload media asset screen screenclip rpreplay inshot picsart vsco b612 beautyplus
    photogrid faceapp lightroom flickr gimp 微信
""")
# Words beside these: of copies and edits, camera modes, words between a date and a time.
_MARKS = _words("""
    copy copie kopie kopia kopi kopio copia copias копия コピー 副本 of von de di du da do af av duplicate duplikat
    edit edited bearbeitet modifie editado modificato final effects animation original orig resized cropped crop scaled small medium large
    full web hq hd uhd
    hdr portrait night cover top bokeh pro motion mp mvimg lr lrportrait raw long exposure burst burstshot ll vhdr timeburst main mfnr
    creation fly d e o n v x m s z h t utc gmt
    on at um am pm a p le as la las los alle ore om kl kello o в в uhr klo den ora os saat
    jan feb mar apr may jun jul aug sep sept oct nov dec
    january february march april june july august september october november december
    jpg jpeg png webp heic
""")
_MIN_DIGITS_ALONE = 6
"""For names of only numbers and marks, such as `20190801_120000_HDR`: a date has at least this many; "12 at night" has fewer."""

_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])")
# A hash has digits, unlike "defaced", and in several places, unlike "cafe2019".
_HASH = re.compile(r"(?<![^\W_])(?=[a-f]*\d)(?:[0-9a-f]{16,}|(?=(?:[a-f]*\d){3})(?![a-f]+\d+(?![^\W_]))[0-9a-f]{8,15})(?![^\W_])")
_WEB_ID = re.compile(  # Flickr's 1000268201_693b08cb0e_b, Facebook's 12345_6789_n, COCO's
    r"\d{5,}(?:[_ -]\d+)*(?:[_ -][0-9a-f]{8,10})?(?:[_ -](?:[a-z]|\d{1,2}k))?|coco_(?:train|val|test)\d{4}_\d+"
)
_APP_SCREENSHOT = re.compile(r"screenshot[_ -]\d{4}-?\d\d-?\d\d[_ -]\d\d-?\d\d-?\d\d.*")  # the rest is the name of the app on the screen
_RUN = re.compile(r"[^\W\d_]+|\d+")


def is_device_name(stem: str) -> bool:
    """Whether a file's name without its suffix was given by a camera, phone, messenger, scanner, browser or screenshot tool."""
    plain = _plain(stem).strip()
    if _WEB_ID.fullmatch(plain) or _APP_SCREENSHOT.fullmatch(plain):
        return True
    runs = _RUN.findall(_HASH.sub(" 00000000 ", _UUID.sub(" 00000000 ", plain)))
    num_digits = sum(len(run) for run in runs if run.isdecimal())
    words = {run for run in runs if not run.isdecimal()}
    if not words:
        return True
    for phrase in _PHRASES:
        if phrase <= words and words - phrase <= _MARKS:
            return True
    if words & _ALONE:
        return words <= _ALONE | _NUMBERED | _MARKS if num_digits else words <= _ALONE | _MARKS
    if words & _NUMBERED and words <= _NUMBERED | _MARKS:
        return num_digits >= _min_digits(words & _NUMBERED)
    return num_digits >= _MIN_DIGITS_ALONE and words <= _MARKS


def _min_digits(words: set[str]) -> int:
    """Single letters are a camera's only with a long number: P1010001, but not "B 52"."""
    return 6 if all(len(word) == 1 for word in words) else 1
