"""Who may come in; without Gradio."""

import asyncio
import base64
from typing import Any

from piu_lora.studio.guard import Guard


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    cookie = dict(scope["headers"]).get(b"cookie", b"")
    await send({"type": "http.response.body", "body": cookie})


def ask(guard: Guard, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    sent: list[Any] = []
    fields = {"host": "127.0.0.1:7860", **headers}
    scope = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
    }

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, sent[1]["body"].decode()


def test_another_name_of_the_host_is_refused() -> None:
    guard = Guard(hello, "key", hosts=frozenset({"127.0.0.1"}))
    assert ask(guard)[0] == 200
    assert ask(guard, host="evil.example:7860")[0] == 421


def test_a_password_is_asked_for() -> None:
    guard = Guard(hello, "key", hosts=None, password="ann:secret")
    status, headers, _ = ask(guard)
    assert (status, headers["www-authenticate"]) == (401, "Basic")
    assert ask(guard, authorization="Basic " + base64.b64encode(b"ann:wrong").decode())[0] == 401
    assert ask(guard, authorization="Basic " + base64.b64encode(b"ann:secret").decode())[0] == 200
    assert ask(guard, authorization="Basic nonsense")[0] == 401


def test_every_browser_gets_a_cookie_once_and_it_is_seen_at_once() -> None:
    guard = Guard(hello, "key", hosts=None)
    _, headers, body = ask(guard)
    cookie = headers["set-cookie"].split(";")[0]
    assert body == cookie
    assert "HttpOnly" in headers["set-cookie"]
    _, again, body = ask(guard, cookie=cookie)
    assert "set-cookie" not in again
    assert body == cookie
    assert ask(guard)[1]["set-cookie"] != headers["set-cookie"]


def test_pages_may_fetch_nothing_from_elsewhere_and_files_are_closed() -> None:
    guard = Guard(hello, "key", hosts=None)
    _, headers, _ = ask(guard)
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    for path in ("/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=https://x"):
        assert ask(guard, path)[0] == 404


def test_more_than_may_be_sent_is_refused_before_it_is_read() -> None:
    guard = Guard(hello, "key", hosts=None, largest=1_000_000)
    assert ask(guard, **{"content-length": "1000000"})[0] == 200
    assert ask(guard, **{"content-length": "1000001"})[0::2] == (413, "more than 1 MB at once; send less")
    assert ask(guard, **{"transfer-encoding": "chunked"})[0] == 413
