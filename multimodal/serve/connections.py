"""Who may ask a server, and how long they may take to say what: other sites' pages may not, and nobody holds a connection for nothing."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_TIMEOUT_S = 10.0


class KnownHosts:
    """Middleware that answers only to names of this machine.

    A page of another site can have its own name lead to this machine and then read what is answered (DNS rebinding); it cannot do so with
    an address. So an address is always right, and a name has to be one of `hosts`, "localhost", or what this machine calls itself.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = {host.lower() for host in (*hosts, "localhost", socket.gethostname())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_known(Headers(scope=scope).get("host", "")):
            told = "this server does not go by that name; start it with --allowed-hosts NAME if it is yours"
            await JSONResponse({"error": told}, status_code=421)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        name = host[1 : host.find("]")] if host.startswith("[") else host.rpartition(":")[0] or host
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self.hosts
        return True


class Impatient(H11Protocol):
    """A connection that is closed where a request has not come whole HEADER_TIMEOUT_S after it began: uvicorn itself waits for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_between_requests():  # so this is a part of the next one's headers
            self._watch(self.transport)

    def _watch(self, transport: asyncio.Transport) -> None:
        self.loop.call_later(HEADER_TIMEOUT_S, self._close_if_silent, transport, self.cycle)

    def _close_if_silent(self, transport: asyncio.Transport, last: object) -> None:
        """last: the request that was the last one when the time began."""
        if self.cycle is last and self._is_between_requests() and not transport.is_closing():
            transport.close()

    def _is_between_requests(self) -> bool:
        last: Any = self.cycle  # None before the first one
        return last is None or bool(last.response_complete)
