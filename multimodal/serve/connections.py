"""Protection of the server: it rejects requests from other sites' pages, and closes connections that send nothing."""

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
    """Middleware that answers only requests whose Host header names this machine.

    Another site's page can point its own host name to this machine and then read the answers (DNS rebinding); it cannot do so with an IP
    address. So an IP address is always accepted, and a name must be one of `hosts`, "localhost", or this machine's own host name.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = {host.lower() for host in (*hosts, "localhost", socket.gethostname())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_known(Headers(scope=scope).get("host", "")):
            message = "this server does not accept that host name; if it is yours, start the server with --allowed-hosts NAME"
            await JSONResponse({"error": message}, status_code=421)(scope, receive, send)
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
    """A connection that sends at once, and is closed if a request is not complete HEADER_TIMEOUT_S after it began: uvicorn waits forever.

    asyncio turns Nagle's algorithm off only for sockets that were made with a protocol number, which those of `socket.create_server` are
    not: the body of each reply then waits 40 ms for the client to acknowledge its headers.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_between_requests():  # so this is part of the next request's headers
            self._watch(self.transport)

    def _watch(self, transport: asyncio.Transport) -> None:
        self.loop.call_later(HEADER_TIMEOUT_S, self._close_if_silent, transport, self.cycle)

    def _close_if_silent(self, transport: asyncio.Transport, last: object) -> None:
        """last: the latest request when the timer started."""
        if self.cycle is last and self._is_between_requests() and not transport.is_closing():
            transport.close()

    def _is_between_requests(self) -> bool:
        last: Any = self.cycle  # None before the first one
        return last is None or bool(last.response_complete)
