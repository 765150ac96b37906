"""Who may use the server: checks of every request before anything of it is read."""

import hmac
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "videogen_token"
OPEN = ("/healthz",)  # needs no token
NO_TOKEN = "the token is missing or wrong; send 'Authorization: Bearer TOKEN', or open /?token=TOKEN"


def error(status: int, message: str, param: str | None = None, *, code: str | None = None) -> JSONResponse:
    """Return an answer in the API's error form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    content = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": content}, status_code=status)


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Middleware that answers instead of the application where a request may not pass.

    * On loopback the Host header must name this machine, else a page of another site, whose name was made to
      point here, could use the server (DNS rebinding).
    * A request that a browser makes for a page of another site is refused.
    * With a token, it must come as a bearer token, or in the cookie that ``/?token=...`` sets.
    """

    def __init__(
        self, app: ASGIApp, *, loopback: bool, token: str | None, count: Callable[[int], None]
    ) -> None:
        self.app, self.loopback, self.token, self.count = app, loopback, token, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        answer = self._refusal(scope)
        if answer is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.count(message["status"])
            await send(message)

        passed: Callable[[Scope, Receive, Send], Awaitable[None]] = self.app if answer is None else answer
        await passed(scope, receive, counting)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.loopback and not is_loopback(_name_of(host)):
            return error(400, f"the Host header {host!r} does not name this machine")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return error(403, "requests for pages of other sites are refused")
        if self.token is None or scope["path"] in OPEN:
            return None
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[-1]
        if scope["path"] == "/" and self._is_token(given):
            page = RedirectResponse("/", status_code=303)
            page.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return page
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and self._is_token(bearer.strip())
        if known or self._is_token(_cookie(headers.get("cookie", ""))):
            return None
        answer = error(401, NO_TOKEN, code="invalid_api_key")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
