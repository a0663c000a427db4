"""HTML pages: the templates, the one stylesheet, and their rendering.

    render("hits.html.jinja", query="beach - people", ...)      # a whole, self-contained page as text

A page is one file that needs no network and runs no script. Values given to a template are escaped unless they are `Markup`.
"""

from multimodal.pages.render import data_uri, media_type, render, shorten

__all__ = ["data_uri", "media_type", "render", "shorten"]
