"""HTTP for the hub: request bodies, answers, files with ranges, and the faults that strike them."""

from __future__ import annotations

import json
import re
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.blobs import CHUNK, Blob
from tests.hub.faults import Fault, HubError
from tests.hub.store import Token

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

Route = Callable[..., None]
REPO = r"(?P<repo_id>[^/]+(?:/[^/]+)??)"
REV = r"(?P<revision>[^/]+)"
_routes: list[tuple[str, re.Pattern[str], Route]] = []


class ConnectionCut(Exception):
    """The hub hangs up in the middle of something."""


def route(methods: str, pattern: str) -> Callable[[Route], Route]:
    """Register a function for requests; more particular patterns come first."""

    def register(function: Route) -> Route:
        _routes.extend((method, re.compile(pattern), function) for method in methods.split())
        return function

    return register


class HubHandler(BaseHTTPRequestHandler):
    """One connection of the client."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        super().finish()

    def handle_request(self) -> None:
        parts = urlsplit(self.path)
        self.raw_path, self.query = parts.path, parse_qs(parts.query)
        self.url_path = unquote(parts.path)
        self.body_left, self.begun = True, False
        self.hub.requests.append((self.command, self.url_path))
        try:
            self.misbehave()
            self.answer()
        except HubError as error:
            self.refuse(error)
        except (ConnectionCut, ConnectionError):
            self.hang_up()
        except Exception:
            self.hub.errors.append(traceback.format_exc())
            self.give_up()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

    def answer(self) -> None:
        for method, pattern, function in _routes:
            if method == self.command and (match := pattern.fullmatch(self.raw_path)):
                function(
                    self, **{name: unquote(value) for name, value in match.groupdict(default="").items()}
                )
                return
        raise HubError(404, f"the loopback hub does not know {self.command} {self.raw_path}")

    def give_up(self) -> None:
        if self.begun:
            self.hang_up()
        else:
            # Not a 500: the client would try again for half a minute.
            self.refuse(HubError(501, "the loopback hub has a bug, see its errors"))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the hub keeps its own list of requests."""

    # Faults

    def misbehave(self) -> None:
        if slow := self.hub.faults.take(self.command, self.url_path, "slow"):
            self.hub.stopping.wait(slow.seconds)
        if fault := self.hub.faults.take(self.command, self.url_path, "fail", "drop"):
            if fault.kind == "drop":
                raise ConnectionCut
            raise HubError(fault.status, fault.message, fault.code, fault.headers)

    def hang_up(self) -> None:
        self.close_connection = True
        try:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    # Requests

    @property
    def token(self) -> Token | None:
        return self.hub.store.token(self.headers.get("Authorization"))

    def body(self) -> Iterator[bytes]:
        """The body in pieces, whichever way the client sends it."""
        self.body_left = False
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0 and (chunk := self.rfile.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk

    def json_body(self) -> Any:
        return json.loads(b"".join(self.body()) or b"{}")

    # Answers

    def begin(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        if self.body_left:
            # Unread bytes would be taken for the next request of this connection.
            for _ in self.body():
                pass
        self.begun = True
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def reply(self, payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(payload).encode()
        self.begin(status, len(data), {"Content-Type": "application/json", **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, error: HubError) -> None:
        headers = {"X-Error-Message": error.message, **error.headers}
        if error.code is not None:
            headers["X-Error-Code"] = error.code
        self.reply({"error": error.message}, error.status, headers)

    def reply_blob(self, blob: Blob, headers: Mapping[str, str]) -> None:
        """A file, or the part of it that a Range asks for."""
        start, stop = self.requested_range(blob.size)
        status = 200
        if "Range" in self.headers:
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{blob.size}"}
        fault = None
        if self.command != "HEAD":
            fault = self.hub.faults.take(self.command, self.url_path, "cut", "truncate", "corrupt")
        if fault is not None and fault.kind == "truncate":
            stop = min(stop, start + fault.after)
        self.begin(
            status,
            stop - start,
            {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers},
        )
        if self.command != "HEAD":
            for chunk in _damaged(blob.chunks(start, stop), fault):
                self.wfile.write(chunk)

    def requested_range(self, size: int) -> tuple[int, int]:
        header = self.headers.get("Range")
        if header is None:
            return 0, size
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
        if match is None or not any(match.groups()):
            raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
        first, last = match.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            raise HubError(416, "Range Not Satisfiable", headers={"Content-Range": f"bytes */{size}"})
        return start, stop


def _damaged(chunks: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]:
    if fault is None or fault.kind == "truncate":
        yield from chunks
    elif fault.kind == "corrupt":
        for chunk in chunks:
            yield bytes([chunk[0] ^ 0xFF]) + chunk[1:]
    else:
        yield from cut_after(chunks, fault.after)


def cut_after(chunks: Iterator[bytes], after: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:after]
        after -= len(chunk)
        if after <= 0:
            # A moment, so that the client reads these bytes before it hears of the closed connection.
            time.sleep(0.01)
            raise ConnectionCut
