"""Renders the templates of this folder as whole pages. All of them escape their values, and an undefined name is an error.

render("hits.html.jinja", query='<i>"', notes=[], cards=[])
"""

from __future__ import annotations

import base64
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_SIGNATURES = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))


def render(template: str, **values: object) -> str:
    """A page as text. template: the name of a file beside this one; values: those listed in its first lines."""
    return _TEMPLATES.get_template(template).render(values)


def data_uri(picture: bytes) -> str:
    """An encoded picture as a data URI."""
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture).decode()}"


def media_type(picture: bytes) -> str:
    """The media type of an encoded picture: `image/jpeg`, `image/png`, `image/webp`, else `image/avif`."""
    return "image/" + next((kind for signature, kind in _SIGNATURES if picture.startswith(signature)), "avif")


def shorten(text: str, width: int) -> str:
    """A text cut to at most `width` characters, at a blank if possible."""
    if len(text) <= width:
        return text
    kept, blank, _ = text[:width].rpartition(" ")
    return (kept if blank and len(kept) > width // 2 else text[: width - 1]).rstrip(" ,.;:") + "…"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("multimodal", "pages"),
        autoescape=True,  # off by default in jinja, and choosing by file suffix would miss ours
        undefined=StrictUndefined,
        auto_reload=False,  # a server would check the files' times for each page
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": format, "shorten": shorten, "data_uri": data_uri}
    environment.globals["stylesheet"] = Markup((files("multimodal.pages") / "pages.css").read_text("utf-8"))
    return environment


_TEMPLATES = _environment()
