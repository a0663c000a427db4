"""What surrounds every request: headers that keep a browser from doing more than the page needs, the token, the origin of what changes
things, and a count.

All of them are plain ASGI middleware, since Starlette's own class makes a task for each request.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from time import perf_counter
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multimodal.errors import InputError

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
COOKIE = "multimodal_token"
MIN_TOKEN = 16
OPEN = ("/healthz", "/login")
"""What is answered without the token; and the page's own files, which are the same everywhere."""
OPEN_FOLDER = "/web/"
MAX_LOGIN_BYTES = 4096
_SAFE = ("GET", "HEAD", "OPTIONS")


class Headed:
    """Adds `HEADERS` to every response; one that a route has set itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self.app(scope, receive, send_headed if scope["type"] == "http" else send)


class SameOrigin:
    """Refuses what would change something for another site's page: a browser says in `Origin` whose page asks."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _SAFE:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
                message = "this server takes nothing from another site's page"
                await JSONResponse({"error": message, "position": None}, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Counted:
    """Tells how each request was answered: route, method, status, and seconds from its first byte to the answer's last."""

    def __init__(self, app: ASGIApp, answered: Callable[[str, str, int, float], None]) -> None:
        self.app, self._answered = app, answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = perf_counter(), 500

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_seen)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # never the address itself: anybody could make up series without end
            method = scope["method"] if scope["method"] in (*_SAFE, "POST", "DELETE") else "other"
            self._answered(route, method, status, perf_counter() - begun)


def read_token(path: Path) -> str:
    """The token in a file, without the blanks around it. InputError if it is short, or no line of ASCII."""
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{path}: a token has at least {MIN_TOKEN} characters, of ASCII and without blanks. Make one: "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


class TokenNeeded:
    """Answers only who knows the token: by `Authorization: Bearer`, or by the cookie that the login form sets.

    The cookie is a keyed hash of the token, so that a browser keeps no token, and a new token ends every login.
    """

    def __init__(self, app: ASGIApp, token: str, login_page: Callable[[str, bool], str]) -> None:
        """login_page: (where to go on, whether a wrong token was given) -> HTML."""
        self.app, self._login_page = app, login_page
        self._token = token.encode()
        self._cookie = blake2b(b"login", key=blake2b(self._token).digest()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/login":
            await (await self._login(Request(scope, receive)))(scope, receive, send)
        elif scope["path"] in OPEN or scope["path"].startswith(OPEN_FOLDER) or self._knows(Headers(scope=scope)):
            await self.app(scope, receive, send)
        else:
            await self._refuse(scope)(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode(), self._token)
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())

    def _refuse(self, scope: Scope) -> Response:
        if scope["path"] == "/" and scope["method"] == "GET":
            to = "/" + (f"?{scope['query_string'].decode('ascii', 'replace')}" if scope["query_string"] else "")
            return RedirectResponse(f"login?to={quote(to, safe='')}", status_code=303)
        body = {"error": "this server needs its token: Authorization: Bearer TOKEN", "position": None}
        return JSONResponse(body, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    async def _login(self, request: Request) -> Response:
        to = request.query_params.get("to", "/")
        if not to.startswith("/") or to.startswith(("//", "/\\")) or not to.isprintable():  # an address of this server and no other
            to = "/"
        if request.method in ("GET", "HEAD"):
            return Response(self._login_page(to, False), media_type="text/html")
        if request.method != "POST":
            return JSONResponse({"error": "Method Not Allowed", "position": None}, status_code=405, headers={"Allow": "GET, POST"})
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_LOGIN_BYTES:
                return JSONResponse({"error": "too long for a token", "position": None}, status_code=413)
        [given, *_] = parse_qs(body.decode("utf-8", "replace")).get("token", [""])
        if not hmac.compare_digest(given.strip().encode(), self._token):
            return Response(self._login_page(to, True), status_code=401, media_type="text/html")
        answer = RedirectResponse(quote(to, safe="/?&=%+-_.~"), status_code=303)
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https", max_age=30 * 86400)
        return answer
