"""Who may ask: middleware that checks Host, Origin and token, and sets the security headers of every answer.

A page of another site can make a browser send requests to this server. It must neither read an answer nor change
anything: names that lead here by DNS rebinding are refused by their Host, requests of other origins by what browsers
say about them (Origin, Sec-Fetch-Site).
"""

import ipaddress
import secrets
import socket
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
_READING = ("GET", "HEAD")
_MAX_PATH_CHARS = 200
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether an address or name is only reached from this machine."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


class AllowedHosts:
    """The names in the Host header that are answered.

    A server on loopback is called by a loopback name, one on an address or name by that. One on all addresses
    (`0.0.0.0`, `::`) is called by any address, which no DNS can rebind, or by this machine's own name.
    """

    def __init__(self, host: str) -> None:
        self._names = {*_LOOPBACK_NAMES, host.lower()}
        address = _address(host)
        self._any_address = address is not None and address.is_unspecified
        if self._any_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def __contains__(self, host_header: str) -> bool:
        name = _without_port(host_header).lower()
        return name in self._names or (self._any_address and _address(name) is not None)


class Access:
    """ASGI middleware around the complete application.

    Args:
        app: the application.
        host: the address or name that the server listens on.
        token: the secret that every request needs, in the query once and in a cookie from then on; None for none.
        cookie: the name of that cookie. It should differ between servers of a machine, whose cookies browsers share.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str | None, cookie: str) -> None:
        self._app = app
        self._hosts = AllowedHosts(host)
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_RAW_HEADERS]}
            await send(message)

        if scope["type"] != "http":
            return  # no websockets
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(secured, *refusal)
        elif self._token is not None and not self._has_cookie(scope):
            await self._let_in(scope, secured)
        else:
            await self._app(scope, receive, secured)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason for which a request is refused whatever it asks for."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts:
            return 421, f"this server is not {_shown(host)}; open the link that griffon-shards view printed"
        if len(scope["path"]) > _MAX_PATH_CHARS:
            return 414, f"the path of the URL has more than {_MAX_PATH_CHARS} characters"
        origin = headers.get("origin")
        if origin is None:
            if scope["method"] not in _READING:
                return 403, "a request that changes something needs an Origin header"
        elif origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return 403, f"a page of {_shown(origin)} may not use this server"
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if site not in ("none", "same-origin") and mode != "navigate":
            return 403, "a page of another site may not use this server"
        return None

    def _has_cookie(self, scope: Scope) -> bool:
        # Not http.cookies, which drops all cookies after one that it cannot read: those of other programs come, too.
        return self._is_token(cookie_parser(Headers(scope=scope).get("cookie", "")).get(self._cookie, ""))

    def _is_token(self, value: str) -> bool:
        assert self._token is not None
        return secrets.compare_digest(value.encode("utf-8", "replace"), self._token.encode())

    async def _let_in(self, scope: Scope, send: Send) -> None:
        """Turn the token of a link into a cookie, and send the browser to the same page without it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] not in _READING or not any(
            name == "token" and self._is_token(value) for name, value in query
        ):
            await _answer(send, 401, "a token is needed; open the link that griffon-shards view printed")
            return
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        raw_path = scope["raw_path"].decode("latin-1").partition("?")[0]
        path = "/" + raw_path.lstrip("/\\")  # `//host` would leave the site
        headers = {
            "location": path + (f"?{rest}" if rest else ""),
            "set-cookie": f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict",
        }
        await _answer(send, 303, "the token is in a cookie now", headers)


async def _answer(send: Send, status: int, error: str, headers: dict[str, str] | None = None) -> None:
    raw = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    raw += [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": orjson.dumps({"error": error})})


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _without_port(host_header: str) -> str:
    if host_header.startswith("["):
        return host_header[1:].partition("]")[0]
    return host_header.partition(":")[0]


def _shown(value: str) -> str:
    return repr(value[:100])
