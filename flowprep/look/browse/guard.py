"""Guards the server of `flowprep browse`: only its own page, or a holder of its token, may ask."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HEADERS", "MAX_QUERY_BYTES", "Guard", "refusal"]

MAX_QUERY_BYTES = 24 << 10
"""A path has at most 4096 bytes, and each byte takes at most five (`%25E9`) in an escaped key."""
_MAX_PATH_BYTES = 256

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Tomorrow, the same address may serve another data set with the same keys.
    "cache-control": "no-store",
}


class Guard:
    """Refuses requests that no page of this server would make, and restricts the browser.

    A foreign web page can make a browser send requests to this machine. But it cannot forge `Host`
    (DNS rebinding keeps the attacker's name there), `Origin` or `Sec-Fetch-Site`.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str | None) -> None:
        self._app = app
        self._hosts = frozenset(name.lower() for name in hosts)
        self._token = token
        # All ports of a host share cookies, so each server uses another name.
        self._cookie = f"flowprep-{secrets.token_hex(4)}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app: ASGIApp = self._refusal(scope) or self._app
        await app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return refusal(405, "this server only reads", allow="GET, HEAD")
        if len(scope.get("raw_path") or b"") > _MAX_PATH_BYTES:
            return refusal(414, "no address here is so long")
        if len(scope["query_string"]) > MAX_QUERY_BYTES:
            return refusal(414, "no key is so long")
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return refusal(
                421, "this server does not go by that name; --allow-host NAME:PORT adds one"
            )
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.lower() != f"http://{hosts[0].lower()}"
        if is_foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return refusal(
                403, "asked for by another site; to open a link, paste it into the address bar"
            )
        return self._token_refusal(scope, headers) if self._token is not None else None

    def _token_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        assert self._token is not None
        given = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if scope["path"] == "/" and b"token=" in scope["query_string"]:
            with contextlib.suppress(ValueError):
                query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)
                if _is_same(query.get("token", [""])[0], self._token):
                    # After this redirect, the address bar and the history do not hold the token.
                    response = Response(status_code=303, headers={"location": "/"})
                    response.set_cookie(
                        self._cookie, self._token, httponly=True, samesite="strict", path="/"
                    )
                    return response
        elif _is_same(given, self._token):
            return None
        return refusal(403, "open the address with its token, as `flowprep browse` printed it")


def _is_same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


def refusal(status: int, words: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return PlainTextResponse(words + "\n", status, headers=named)
