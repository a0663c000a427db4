"""Wikipedias in other languages: their words for files, categories, redirects and layout, and their infoboxes' names for captions."""

from __future__ import annotations

import io
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.wiki.dump import Dump
from data_prep.wiki.wikitext import read_wikitext
from data_prep.wiki.words import words_of_language
from multimodal.shards import open_set

WORDS = " ".join(["marea"] * 60)


@dataclass(frozen=True)
class Wiki:
    """A small wiki: what its dump says of itself, an article, and what the pictures of it should be called."""

    language: str
    file: str
    category: str
    article: str
    captions: dict[str, str]
    redirect: str


WIKIS = [
    Wiki(
        "de",
        "Datei",
        "Kategorie",
        """{{Infobox Ort|Bild=Ort.jpg|Bildgröße=250px|Bildbeschreibung=Der Ort}}
        {{Infobox Turm|BILD=[[Bild:Turm.jpg|200px|rahmenlos]]|BILDBESCHREIBUNG=Der ''Turm''}}
        [[Datei:hafen.jpg|mini|Der [[Hafen (Ort)|alte Hafen]]|hochkant=1.2|rechts|verweis=Ort|alternativtext=Boote]]
        [[Bild:Boot.jpg|miniatur|links|200x300px]] [[Image:Kai.jpg|thumb|Der Kai]]
        <gallery>Datei:See.jpg|Der See\nBild:Ufer.jpg|Das Ufer\nSteg.jpg|Der Steg</gallery>
        __KEIN_INHALTSVERZEICHNIS__ [[Kategorie:Ort]] [[Category:Ort]]""",
        {
            "Ort.jpg": "Der Ort",
            "Turm.jpg": "Der Turm",
            "Hafen.jpg": "Der alte Hafen",
            "Boot.jpg": "",
            "Kai.jpg": "Der Kai",
            "See.jpg": "Der See",
            "Ufer.jpg": "Das Ufer",
            "Steg.jpg": "Der Steg",
        },
        "#WEITERLEITUNG",
    ),
    Wiki(
        "fr",
        "Fichier",
        "Catégorie",
        """{{Infobox Commune|image=Ville.jpg|image taille=250|légende=La ville|légende carte=Une carte}}
        {{Infobox Pont|photo=[[Fichier:Pont.jpg|200px|vignette]]|légende=Le pont}}
        [[Fichier:Port.jpg|vignette|gauche|Le vieux port|redresse=1.5|alt=des bateaux]] [[Image:Quai.jpg|droite|cadre|bas|lien=]]
        <gallery>Fichier:Lac.jpg|Le lac</gallery> __AUCUNSOMMAIRE__ [[Catégorie:Ville]]""",
        {"Ville.jpg": "La ville", "Pont.jpg": "Le pont", "Port.jpg": "Le vieux port", "Quai.jpg": "", "Lac.jpg": "Le lac"},
        "#REDIRECTION",
    ),
    Wiki(
        "es",
        "Archivo",
        "Categoría",
        """{{Ficha de localidad|imagen=Villa.jpg|imagen_tamaño=300px|pie_de_imagen=La villa|descripción=Otra cosa}}
        {{Ficha de puente|imagen=[[Archivo:Puente.jpg|250px]]|descripción=El puente}}
        [[Archivo:Puerto.jpg|miniatura|izquierda|El puerto viejo|vínculo=x]] [[Imagen:Muelle.jpg|derecha|marco|centro|El muelle|250px]]
        <gallery>Imagen:Lago.jpg|El lago</gallery> __SIN_TDC__ [[Categoría:Villa]]""",
        {
            "Villa.jpg": "La villa",
            "Puente.jpg": "El puente",
            "Puerto.jpg": "El puerto viejo",
            "Muelle.jpg": "El muelle",
            "Lago.jpg": "El lago",
        },
        "#REDIRECCIÓN",
    ),
    Wiki(
        "ru",
        "Файл",
        "Категория",
        """{{НП|изображение=Город.jpg|подпись=Город у моря|размер изображения=200пкс}}
        {{Мост|фото=[[Изображение:Мост.jpg|250пкс]]|подпись=Мост}}
        [[Файл:порт.jpg|мини|слева|Старый порт|200пкс|альт=лодки]] [[Изображение:Причал.jpg|миниатюра|справа|200x300пкс|Причал|центр]]
        <gallery>Файл:Озеро.jpg|Озеро</gallery> __БЕЗ_ОГЛАВЛЕНИЯ__ [[Категория:Город]]""",
        {"Город.jpg": "Город у моря", "Мост.jpg": "Мост", "Порт.jpg": "Старый порт", "Причал.jpg": "Причал", "Озеро.jpg": "Озеро"},
        "#ПЕРЕНАПРАВЛЕНИЕ",
    ),
    Wiki(
        "pl",
        "Plik",
        "Kategoria",
        """{{Miasto infobox|grafika=Miasto.jpg|opis grafiki=Miasto nad morzem|zdjęcie 2=Rynek.jpg|opis zdjęcia 2=Rynek}}
        {{Most|grafika=[[Plik:Most.jpg|250px]]|opis=Stary most}}
        [[Plik:Port.jpg|mały|lewo|Stary port|bezramki]] [[Grafika:Molo.jpg|prawo|thumb|środek|Molo|góra]]
        <gallery>Grafika:Jezioro.jpg|Jezioro</gallery> __BEZSPISU__ [[Kategoria:Miasto]]""",
        {
            "Miasto.jpg": "Miasto nad morzem",
            "Rynek.jpg": "Rynek",
            "Most.jpg": "Stary most",
            "Port.jpg": "Stary port",
            "Molo.jpg": "Molo",
            "Jezioro.jpg": "Jezioro",
        },
        "#PATRZ",
    ),
    Wiki(
        "nl",
        "Bestand",
        "Categorie",
        """{{Infobox plaats|afbeelding=Stad.jpg{{!}}rand|onderschrift=De stad}}
        {{Infobox brug|afbeelding=[[Afbeelding:Brug.jpg|250px]]|onderschrift=De brug}}
        [[Bestand:Haven.jpg|miniatuur|links|De oude haven|rechtop=1.2]] [[Afbeelding:Kade.jpg|rechts|omkaderd|geen|taal=nl]]
        <gallery>Afbeelding:Meer.jpg|Het meer</gallery> __GEENINHOUD__ [[Categorie:Stad]]""",
        {"Stad.jpg": "De stad", "Brug.jpg": "De brug", "Haven.jpg": "De oude haven", "Kade.jpg": "", "Meer.jpg": "Het meer"},
        "#DOORVERWIJZING",
    ),
    Wiki(
        "ja",
        "ファイル",
        "カテゴリ",
        """{{町|画像=町.jpg|画像説明=海の町}} {{橋|画像=[[ファイル:橋.jpg|250px]]|画像の説明=古い橋}}
        [[ファイル:港.jpg|サムネイル|左|古い港|250ピクセル|代替文=船]] [[画像:岸壁.jpg|thumb|右|フレームなし|岸壁|中央]]
        <gallery>画像:湖.jpg|湖</gallery> __目次非表示__ [[カテゴリ:町]]""",
        {"町.jpg": "海の町", "橋.jpg": "古い橋", "港.jpg": "古い港", "岸壁.jpg": "岸壁", "湖.jpg": "湖"},
        "#転送",
    ),
]
BY_LANGUAGE = {wiki.language: wiki for wiki in WIKIS}


def write(folder: Path, wiki: Wiki) -> None:
    """A dump whose head names the namespaces of today, as real ones do, and the pictures in a folder."""
    pages = {"1": ("A", f"{wiki.article} {WORDS}"), "2": ("B", f"{wiki.redirect} [[A]] [[{wiki.file}:Weg.jpg]] {WORDS}")}
    entries = "".join(
        f"<page><title>{title}</title><ns>0</ns><id>{id}</id><revision><id>9</id><text>{escape(markup)}</text></revision></page>"
        for id, (title, markup) in pages.items()
    )
    spaces = f'<namespace key="6" case="first-letter">{wiki.file}</namespace><namespace key="14">{wiki.category}</namespace>'
    head = f"<siteinfo><dbname>{wiki.language}wiki</dbname><namespaces>{spaces}</namespaces></siteinfo>"
    (folder / "wiki.xml").write_text(f'<mediawiki xml:lang="{wiki.language}">{head}{entries}</mediawiki>', "utf-8")
    (folder / "images").mkdir()
    for number, name in enumerate([*wiki.captions, "Weg.jpg"]):
        file = io.BytesIO()
        Image.new("RGB", (40, 40), (20 * number, 90, 200)).save(file, "JPEG")
        (folder / "images" / name).write_bytes(file.getvalue())


@pytest.mark.parametrize("wiki", WIKIS, ids=lambda wiki: wiki.language)
def test_shards_of_a_wikipedia_have_its_captions_and_no_layout_words(tmp_path: Path, wiki: Wiki, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, wiki)
    monkeypatch.chdir(tmp_path)
    command = "make-shards wikipedia wiki.xml --images images --min-side-px 1 --num-processes 1 --output set"
    assert main(command.split()) == 0
    shards = open_set(tmp_path / "set")
    pairs = [shards.pair(id) for id in range(len(shards))]
    assert {pair.name: pair.metadata.get("caption", "") for pair in pairs} == {f"1/{name}": said for name, said in wiki.captions.items()}
    text = pairs[0].texts[0]
    assert not [word for word in (f"{wiki.file}:", f"{wiki.category}:", "Category:", "__", ".jpg", "|", "px") if word in text]


def test_a_dump_that_says_its_language_by_its_database_alone_is_read_in_it(tmp_path: Path) -> None:
    write(tmp_path, BY_LANGUAGE["de"])
    content = (tmp_path / "wiki.xml").read_text("utf-8").replace(' xml:lang="de"', "")
    (tmp_path / "other.xml").write_text(content, "utf-8")
    dump = Dump(tmp_path / "other.xml")
    assert dump.language == "de" and dump.words.is_layout("mini") and "Bild" in dump.words.file


@pytest.mark.parametrize(
    ("language", "options"),
    [
        (
            "en",
            "thumb|frame|framed|frameless|right|upright|upright=1.2|upright 0.8|200px|x200px|200x300px|200 px|alt=a b|link=|lang=de|page=2",
        ),
        ("en", "Thumb|RIGHT|baseline|text-top|border|class=x|thumb=other.jpg|thumbtime=3|center| |"),
        ("de", "mini|Miniatur|hochkant|hochkant=1.2|hochkant 1.2|rechts|gerahmt|ohne|seite 3|verweis=|thumb|200px"),
        ("fr", "vignette|gauche|droite|sans_cadre|sans cadre|redresse|néant|lien=x|haut-texte"),
        ("ru", "мини|миниатюра|слева|справа|200пкс|200x300пкс|200х300пкс|альт=порт|граница|страница 2"),
        ("it", "miniatura|sinistra|destra|verticale=1.2|riquadrato"),
        ("pt", "miniaturadaimagem|miniatura|esquerda|direita|superiordireito|commoldura"),
        ("ja", "サムネイル|左|右|250ピクセル|フレーム|代替文=船|ページ 2"),
        ("zh", "缩略图|縮圖|左|右|250像素|替代文本=船|居中"),
        ("ar", "تصغير|يسار|يمين|200بك|بديل=قارب"),
        ("he", "ממוזער|שמאל|250 פיקסלים|ללא"),
        ("ko", "섬네일|왼쪽|오른쪽|200픽셀"),
        ("sv", "miniatyr|vänster|höger|stående=1.2"),
        ("nb", "miniatyr|venstre|høyre|200pk"),
        ("sr", "мини|десно|mini|desno"),
        ("cs", "náhled|vlevo|vpravo|200pixelů"),
        ("hu", "bélyegkép|balra|jobbra"),
        ("tr", "küçükresim|sol|sağ|200pik"),
        ("uk", "міні|ліворуч|праворуч|200пкс"),
        ("xx", "thumb|left"),
    ],
)
def test_options_of_a_picture_are_never_its_caption_wherever_they_stand(language: str, options: str) -> None:
    words = words_of_language(language)
    assert [one for one in options.split("|") if not words.is_layout(one)] == []
    file = words.file[0]
    for parts in (options, f"Said|{options}", f"{options}|Said", f"No|Said|{options}"):
        [picture] = read_wikitext(f"[[{file}:A.jpg|{parts}]]", words).illustrations
        assert picture.caption == ("Said" if "Said" in parts else "")


@pytest.mark.parametrize(
    "caption", ["1987", "The port on the left", "upright piano", "pages 3 to 5", "10x the size", "Alt: boats", "a = b"]
)
def test_a_caption_that_only_looks_like_an_option_is_kept(caption: str) -> None:
    [picture] = read_wikitext(f"[[File:A.jpg|thumb|{caption}|left]]").illustrations
    assert picture.caption == caption


@pytest.mark.parametrize(
    ("language", "markup", "captions"),
    [
        ("en", "{{Infobox|image=[[File:A.jpg|250px|alt=boats]]|caption=Port}}", {"A.jpg": "Port"}),
        ("en", "{{Infobox|image=[[File:A.jpg{{!}}250px{{!}}Own]]|caption=Port}}", {"A.jpg": "Own"}),
        ("en", "{{Infobox|image=A.jpg{{!}}border|caption=Port{{!}}quay {{=}} one}}", {"A.jpg": "Port|quay = one"}),
        ("en", "{{Infobox|image=A.jpg{{!}}thumb{{!}}Own}}", {"A.jpg": "Own"}),
        ("en", "{{Infobox|image={{center|[[File:A.jpg]]}}|caption=Port}}", {"A.jpg": "Port"}),
        ("en", "{{Infobox|image={{CSS image crop|Image=A.jpg|bSize=3}}|caption=Port}}", {"A.jpg": "Port"}),
        ("en", "{{Infobox|image=[[File:A.jpg|250px]]<br>The ''port''}}", {"A.jpg": "The port"}),
        ("en", "{{Infobox|image=A.jpg|image_size=250px|caption_align=center|image_caption=}}", {"A.jpg": ""}),
        ("en", "{{Infobox|image=A.jpg|caption=center}}", {"A.jpg": ""}),
        ("en", "{{Infobox|image1=A.jpg|caption1=One|image2=[[File:B.jpg]]|caption2=Two|image3=C.jpg}}", dict(A="One", B="Two", C="")),
        (
            "en",
            "{{Infobox|image=A.jpg|caption=One|map_image=B.png|map_caption=Two|cover=C.webp}}",
            {"A": "One", "B.png": "Two", "C.webp": ""},
        ),
        ("en", "{{Infobox|image_skyline=A.jpg|image_caption=One|image_map=B.jpg|map_caption=}}", dict(A="One", B="")),
        ("en", "{{Infobox|cover=A.jpg|caption=One}} {{x|url=http://a.org/B.jpg}}", dict(A="One")),
        (
            "en",
            "{{Infobox|image=[[File:A.jpg]] [[File:B.jpg]]|caption=Both|text=See [[File:C.jpg]] there}}",
            dict(A="Both", B="Both", C=""),
        ),
        ("it", "{{Ponte|Immagine=A.jpg|Didascalia=Il ponte}}", dict(A="Il ponte")),
        ("pt", "{{Info|imagem=[[Imagem:A.jpg|250px]]|imagem_legenda=A ponte|legenda_mapa=x}}", dict(A="A ponte")),
        ("uk", "{{Міст|зображення=Файл:А.jpg|підпис=Міст}}", {"А.jpg": "Міст"}),
        ("sv", "{{Faktamall|bild=Fil:A.jpg|bildtext=Bron|bildtext2=x}}", dict(A="Bron")),
        ("cs", "{{Most|obrázek=A.jpg|popis obrázku=Most}}", dict(A="Most")),
        ("fi", "{{Silta|kuva=Tiedosto:A.jpg|kuvateksti=Silta}}", dict(A="Silta")),
        ("zh", "{{橋|图像=[[文件:A.jpg]]|图像说明=桥}}", dict(A="桥")),
        ("fa", "{{پل|تصویر=A.jpg|زیرنویس=پل}}", dict(A="پل")),
        ("no", "{{Bro|bilde=A.jpg|bildetekst=Broen}}", dict(A="Broen")),
        ("de", "{{Ort|Bild1=A.jpg|Bildbeschreibung1=Eins|Bild2=B.jpg|Bildbeschreibung2=Zwei|Beschreibung=Lang}}", dict(A="Eins", B="Zwei")),
        ("pl", "{{Miasto|opis=Długi|zdjęcie=A.jpg|podpis=Rynek}}", dict(A="Rynek")),
    ],
)
def test_a_picture_of_an_infobox_has_the_caption_that_stands_beside_it(language: str, markup: str, captions: dict[str, str]) -> None:
    found = {one.file: one.caption for one in read_wikitext(markup, words_of_language(language)).illustrations}
    assert found == {name if "." in name else f"{name}.jpg": caption for name, caption in captions.items()}


def test_a_template_leaves_no_name_of_a_picture_in_the_text() -> None:
    markup = "a {{x|[[File:A.jpg]] {{y|image=B.jpg}} }} b {{never ended [[File:C.jpg]] c {{!}} d"
    article = read_wikitext(markup)
    assert article.text.split() == "a b never ended c | d".split()
    assert [one.file for one in article.illustrations] == ["A.jpg", "B.jpg", "C.jpg"]


@pytest.mark.parametrize(
    ("language", "markup", "is_one"),
    [
        ("de", "#WEITERLEITUNG [[A]]", True),
        ("de", "#redirect: [[A]]", True),
        ("ru", "#Перенаправление [[А]]", True),
        ("ja", "＃転送[[A]]", True),
        ("zh", "#重定向 [[A]]", True),
        ("ar", "#تحويل [[A]]", True),
        ("de", "# eine Liste [[A]]", False),
        ("en", "#WEITERLEITUNG [[A]]", False),
        ("de", "#WEITERLEITUNGEN [[A]]", False),
    ],
)
def test_redirects_are_known_in_the_wikis_language(language: str, markup: str, is_one: bool) -> None:
    assert words_of_language(language).is_redirect(markup) is is_one


def test_the_table_has_every_language_asked_for_with_its_own_words() -> None:
    codes = "de fr es it pt nl pl ru uk ja zh sv cs hu fi da nb no tr ar he fa ko vi id ro el bg ca hr sr sk sl et lv lt eo eu gl".split()
    english = words_of_language()
    for code in codes:
        words = words_of_language(code)
        assert words.file[-2:] == english.file and len(words.file) > 2 and len(words.category) > 1, code
        assert set(english.option) < set(words.option) or code in ("da", "lv"), code  # which have none of their own
        assert len(words.caption) > 1, code
