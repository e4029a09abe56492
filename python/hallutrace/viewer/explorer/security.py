"""Who may ask the explorer: this machine's names, the page itself, elsewhere with a token.

Checks of every request, in this order:

1. The ``Host`` header names this machine, so that no other name leads here (DNS rebinding).
2. ``Origin`` and ``Sec-Fetch-Site``, where a browser sends them, are those of the page itself.
3. The token, if there is one: a cookie or ``Authorization: Bearer``, compared in constant time. The
   address with the token sets the cookie and leads to the address without it.
4. The method is GET or HEAD; or POST of JSON with the header ``X-Hallutrace``, which no form of
   another site can send.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hallutrace.viewer.page import content_security_policy

MAX_BODY = 256_000  # bytes of a POST
MAX_QUERY = 16_000  # characters
HEADER = b"x-hallutrace"
_SAME_SITE = (b"same-origin", b"none")


@dataclass(frozen=True)
class Access:
    """Where the explorer listens, and what a request must bring.

    Attributes:
        host: name or address that it is bound to.
        port: its port, which names the cookie: browsers share cookies between the ports of a host.
        token: secret that a request must bring; None where only this machine can connect.
        names: names of this machine, in small letters, which a ``Host`` header may give.

    Examples:
        >>> Access.of("127.0.0.1", 8765, has_token=False).knows_host("localhost:9000")
        True
        >>> Access.of("127.0.0.1", 8765, has_token=False).knows_host("evil.example")
        False
    """

    host: str
    port: int
    token: str | None
    names: frozenset[str]

    @classmethod
    def of(cls, host: str, port: int, has_token: bool) -> Access:
        """For an address; one that others can reach always gets a token."""
        names = {"localhost", host.lower()}
        if not is_loopback(host):
            has_token = True
            full = (socket.gethostname(), socket.getfqdn())
            names |= {name.lower() for one in full for name in (one, one.partition(".")[0])}
        return cls(host, port, secrets.token_urlsafe(24) if has_token else None, frozenset(names))

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token."""
        return f"hallutrace-{self.port}"

    def knows_host(self, header: str) -> bool:
        """Whether a ``Host`` header names this machine; its port may be that of an SSH tunnel."""
        name = _host_name(header)
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self.host)

    def is_token(self, given: str) -> bool:
        """Whether this is the token, in constant time."""
        return secrets.compare_digest(given.encode(), (self.token or "").encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to an address.

    Examples:
        >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def security_headers() -> dict[str, str]:
    """Headers of every answer."""
    return {
        "content-security-policy": f"{content_security_policy(served=True)}; "
        "frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }


class Guard:
    """An ASGI application that lets through what :class:`Access` allows, and adds the headers.

    Args:
        app: the application behind it.
        access: who may ask.
    """

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access
        fixed = [(name.encode(), value.encode()) for name, value in security_headers().items()]
        self._fixed = fixed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":
            return  # no web sockets

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                more = [] if b"cache-control" in own else [(b"cache-control", b"no-store")]
                message = {**message, "headers": [*message["headers"], *self._fixed, *more]}
            await send(message)

        headers = dict(scope["headers"])
        refused = self._refusal(scope, headers)
        if refused is not None:
            await answer_json(guarded, refused[0], {"message": refused[1]})
        elif self._brings_token_in_address(scope):
            await self._set_cookie(guarded)
        elif not self._is_allowed(headers):
            told = "Expected the token: open the address that `hallutrace explore` printed"
            await answer_json(guarded, 401, {"message": told})
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, scope: Any, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
        """Status and message for a request that nobody may make."""
        host = headers.get(b"host", b"").decode("latin-1")
        if [name for name, _ in scope["headers"]].count(b"host") != 1 or not (
            self._access.knows_host(host)
        ):
            return 421, "Expected the name of this machine as host: open the printed address"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host.lower():
            return 403, "Expected a request of this page, got one of another site"
        site = headers.get(b"sec-fetch-site", b"none")
        if site not in _SAME_SITE and scope["path"] != "/":
            return 403, "Expected a request of this page, got one of another site"
        if len(scope["query_string"]) > MAX_QUERY:
            return 414, f"Expected a query of at most {MAX_QUERY} characters"
        if scope["method"] == "POST":
            return _refused_post(headers)
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "Expected GET or POST"
        return None

    def _is_allowed(self, headers: Mapping[bytes, bytes]) -> bool:
        if self._access.token is None:
            return True
        kind, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer" and self._access.is_token(given):
            return True
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return False
        cookie = cookies.get(self._access.cookie)
        return cookie is not None and self._access.is_token(cookie.value)

    def _brings_token_in_address(self, scope: Any) -> bool:
        if self._access.token is None or scope["path"] != "/" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return len(given) == 1 and self._access.is_token(given[0])

    async def _set_cookie(self, send: Any) -> None:
        """Leads to the address without the token, which then stands in no history or log."""
        cookie = f"{self._access.cookie}={self._access.token}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _refused_post(headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
    if headers.get(HEADER) != b"1":
        return 403, "Expected the header X-Hallutrace: 1, which the page sends"
    if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        return 415, "Expected JSON"
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY:
        return 413, f"Expected at most {MAX_BODY} bytes"
    return None


async def answer_json(send: Any, status: int, content: Any) -> None:
    """Sends a small JSON answer.

    Args:
        send: of ASGI.
        status: HTTP status.
        content: JSON-able.
    """
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _host_name(header: str) -> str:
    """The name in a ``Host`` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
