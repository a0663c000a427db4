"""What surrounds every request: headers that keep a browser from doing more than the page needs, the token, the origin of what changes
things, and a count.

All of them are plain ASGI middleware, since Starlette's own class makes a task for each request.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from time import monotonic, perf_counter
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multimodal.errors import InputError

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The last two: in browsers that know them, no module can make markup of a text."""
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
COOKIE = "multimodal_token"
MIN_TOKEN = 16
HEALTH = "/healthz"
OPEN_FOLDER = "/web/"
"""The page's own files, which are the same everywhere, need no token."""
MAX_LOGIN_BYTES = 4096
MAX_BODY_BYTES = 1 << 20
"""Of a request, where its route takes no larger one."""
BODY_TIMEOUT_S = 60.0
_SAFE = ("GET", "HEAD", "OPTIONS")


class Headed:
    """Adds `HEADERS` to every response; one that a route has set itself stays. HEAD is answered as GET is: uvicorn leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "HEAD":
            scope = {**scope, "method": "GET"}

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
            if origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower():
                message = "this server takes nothing from another site's page"
                await JSONResponse({"error": message, "position": None}, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Bounded:
    """Refuses a body that is too large (413), as soon as that is known, and one that does not come in time (408).

    larger: path -> the bytes that its route takes, where that is more than MAX_BODY_BYTES.
    """

    def __init__(self, app: ASGIApp, larger: Mapping[str, int]) -> None:
        self.app, self._larger = app, larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self._larger.get(scope["path"], MAX_BODY_BYTES)
        named = Headers(scope=scope).get("content-length", "")
        end = monotonic() + BODY_TIMEOUT_S
        size, is_whole = 0, False

        async def receive_bounded() -> Message:
            nonlocal size, is_whole
            if is_whole:  # what comes now is that the client has gone, whenever that is
                return await receive()
            if named.isascii() and named.isdigit() and int(named[:20]) > most:
                raise _too_large(most)
            try:
                async with asyncio.timeout(end - monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body did not come within {BODY_TIMEOUT_S:g} s") from None
            size += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if size > most:
                raise _too_large(most)
            return message

        await self.app(scope, receive_bounded, send)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body of this request has at most {most:,} bytes, and this one has more")


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
        elif scope["path"].startswith(OPEN_FOLDER) or self._knows(scope):
            await self.app(scope, receive, send)
        elif scope["path"] == HEALTH:  # for those who only watch whether it answers; the stores' names are nobody's else
            await JSONResponse({"status": "ok", "stores": {}})(scope, receive, send)
        else:
            await self._refuse(scope)(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        request = Request(scope)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(given.strip().encode(), self._token)
        # read as browsers write them: other programs on this machine may have set cookies of any form for the same host
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._cookie.encode())

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
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for part in request.stream():
                    body += part
                    if len(body) > MAX_LOGIN_BYTES:
                        return JSONResponse({"error": "too long for a token", "position": None}, status_code=413)
        except TimeoutError:
            return JSONResponse({"error": "the token did not come", "position": None}, status_code=408)
        [given, *_] = parse_qs(body.decode("utf-8", "replace")).get("token", [""])
        if not hmac.compare_digest(given.strip().encode(), self._token):
            return Response(self._login_page(to, True), status_code=401, media_type="text/html")
        answer = RedirectResponse(quote(to, safe="/?&=%+-_.~"), status_code=303)
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict", secure=request.url.scheme == "https", max_age=30 * 86400)
        return answer
