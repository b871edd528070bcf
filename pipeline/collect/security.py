"""Who may talk to the page: its own host, its own origin, and nothing in an answer that runs."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST = 64 * 1024  # bytes of a request
SAFE = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def known_host(header: str, host: str) -> bool:
    """Whether a Host header may be ours. On loopback its names alone; else the host told, this machine's name, and any
    plain address: rebinding a name to us needs a name (https://crypto.stanford.edu/dns/dns-rebinding.pdf)."""
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if name in LOOPBACK or is_loopback(host):
        return name in (*LOOPBACK, host.lower())
    if name in (host.lower(), socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Guard:
    """Middleware: refuses foreign hosts, foreign origins and large requests; adds the headers to every response.

    Attributes:
        app: what is guarded.
        host: where the server listens.
    """

    app: ASGIApp
    host: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, dressed)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        own = headers.get("host", "")
        if not known_host(own, self.host):
            return PlainTextResponse("unknown host", 421)
        if method in SAFE:
            return None
        if urlsplit(headers.get("origin", "")).netloc != own:
            return PlainTextResponse("requests come from the page itself only", 403)
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("requests come from the page itself only", 403)
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            return PlainTextResponse("too large", 413)
        return None
