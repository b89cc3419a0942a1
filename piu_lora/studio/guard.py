"""Who may come in, and what a browser may do with what it gets."""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# Parts of Gradio that the studio has no use for: files of the machine, uploads, other people's sites.
_CLOSED = ("/gradio_api/upload", "/gradio_api/file", "/gradio_api/proxy", "/gradio_api/runs", "/monitoring")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """Before everything else: the host's name, the password, a cookie for each browser, and what pages may
    fetch.

    Args:
        app: what is guarded.
        cookie: name of the cookie.
        hosts: names by which the studio may be called; None allows all.
        password: ``user:password``; empty asks for none.
        framed: shown within another site, as a Space is.
        largest: bytes that may be sent at once; more is refused before it is read.
    """

    def __init__(
        self,
        app: Any,
        cookie: str,
        *,
        hosts: frozenset[str] | None,
        password: str = "",
        framed: bool = False,
        largest: int = 1_000_000,
    ) -> None:
        self._app, self._cookie, self._hosts = app, cookie, hosts
        self._password, self._framed, self._largest = password, framed, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            await _answer(send, 421, "this studio does not go by that name")
        elif self._password and not self._knows(headers.get("authorization", "")):
            await _answer(send, 401, "name and password, please", ((b"www-authenticate", b"Basic"),))
        elif str(scope["path"]).startswith(_CLOSED):
            await _answer(send, 404, "not here")
        elif not self._fits(headers):
            await _answer(send, 413, f"more than {self._largest // 1_000_000} MB at once; send less")
        else:
            sent = headers.get("cookie", "")
            new = "" if self._key(sent) else secrets.token_urlsafe(24)
            if new:
                scope = {
                    **scope,
                    "headers": [*_without(scope["headers"], b"cookie"), self._as_sent(sent, new)],
                }
            await self._app(scope, receive, self._sealed(send, new))

    def _knows(self, header: str) -> bool:
        kind, _, value = header.partition(" ")
        try:
            given = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and secrets.compare_digest(given, self._password.encode())

    def _fits(self, headers: dict[str, str]) -> bool:
        # Without its length said beforehand nothing is taken: it would be written to the disk first.
        length = headers.get("content-length", "0")
        return "transfer-encoding" not in headers and length.isdigit() and int(length) <= self._largest

    def _key(self, header: str) -> str:
        try:
            morsel = SimpleCookie(header).get(self._cookie)
        except CookieError:
            return ""
        return morsel.value if morsel else ""

    def _as_sent(self, header: str, key: str) -> tuple[bytes, bytes]:
        pairs = "; ".join(filter(None, [header, f"{self._cookie}={key}"]))
        return b"cookie", pairs.encode("latin-1")

    def _sealed(self, send: Send, new: str) -> Send:
        """Answers with the headers of the studio, and a new browser's cookie."""

        async def sealed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", ())}
                extra = [(name, value) for name, value in self._headers() if name not in names]
                if new:
                    extra.append((b"set-cookie", self._set(new).encode("latin-1")))
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        return sealed

    def _headers(self) -> tuple[tuple[bytes, bytes], ...]:
        # A report within the page brings a stricter policy of its own, which holds beside this one.
        ancestors = "" if self._framed else "; frame-ancestors 'self'"
        return (*_HEADERS, (b"content-security-policy", (_POLICY + ancestors).encode("latin-1")))

    def _set(self, key: str) -> str:
        kind = "SameSite=None; Secure; Partitioned" if self._framed else "SameSite=Lax"
        return f"{self._cookie}={key}; Path=/; HttpOnly; {kind}"


def _host(header: str) -> str:
    """A host without its port."""
    return header.rsplit(":", 1)[0] if not header.endswith("]") else header


def _without(headers: Any, name: bytes) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in headers if key.lower() != name]


async def _answer(send: Send, status: int, words: str, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})
    await send({"type": "http.response.body", "body": body})
