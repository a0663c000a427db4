"""The page's own files: modules, stylesheets, and what they are made with (`web/vendor`).

    files = StaticFiles.of_package()
    files.get("main.js")                # File(content, "text/javascript", etag, ...), None if there is no such file

Only files that were there when the server started are served, from memory, so that no address leads to another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import multimodal.pages
import multimodal.serve

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    "": "text/plain; charset=utf-8",
}
"""By suffix; other files are not served. "": licences."""
VENDOR = "vendor/"
PAGES_CSS = "pages.css"
"""The stylesheet that all pages share; it is in the room of the templates."""


@dataclass(frozen=True, slots=True)
class File:
    """etag: of its content. is_fixed: whether its name has a release in it, so that it never changes under that name."""

    content: bytes
    media_type: str
    etag: str
    is_fixed: bool


class StaticFiles:
    """Files by their names, `/` between folders."""

    def __init__(self, folder: Path, others: dict[str, Path] | None = None) -> None:
        """folder: whose files are served, links left out. others: further files by name."""
        paths = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()
        }
        self._files = {name: _read(name, path) for name, path in {**paths, **(others or {})}.items() if path.suffix in TYPES}

    @classmethod
    def of_package(cls) -> StaticFiles:
        """Those of this release."""
        web = Path(multimodal.serve.__path__[0]) / "web"
        return cls(web, {PAGES_CSS: Path(multimodal.pages.__path__[0]) / PAGES_CSS})

    def get(self, name: str) -> File | None:
        return self._files.get(name)


def _read(name: str, path: Path) -> File:
    content = path.read_bytes()
    return File(content, TYPES[path.suffix], f'"{blake2b(content, digest_size=8).hexdigest()}"', name.startswith(VENDOR))
