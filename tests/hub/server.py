"""The hub itself: start it, fill it, make it fail, and look at what the client did."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import Self

# The two route modules register themselves.
from tests.hub import download, upload  # noqa: F401
from tests.hub.blobs import blobs_of
from tests.hub.faults import Fault, Faults, Match
from tests.hub.handler import HubHandler
from tests.hub.store import Commit, Repository, Store, Token


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        # HTTPServer asks the name service who 127.0.0.1 is, which can take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


class LoopbackHub:
    """A Hugging Face Hub on 127.0.0.1 that speaks what huggingface_hub uses for models.

    Public repositories are open to everybody. A private one is there, and a gated one readable, only for
    tokens of the user whose namespace it is in and of users with a `grant`. A token that was never added is
    refused everywhere, as on the real Hub.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self.tickets: dict[str, tuple[str, str, int]] = {}
        self.connections: set[socket.socket] = set()
        self.stopping = threading.Event()
        self.uploads = Path(tempfile.mkdtemp(prefix="loopback-hub-"))
        self._server = _Server(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="loopback-hub",
            daemon=True,
        )

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            # Else a client that kept its connection would not notice that the hub is gone.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        shutil.rmtree(self.uploads, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def reset(self) -> None:
        """Forget all repositories, tokens, faults, requests and uploaded bytes."""
        self.store.clear()
        self.faults.clear()
        self.requests.clear()
        self.errors.clear()
        self.tickets.clear()
        for file in self.uploads.iterdir():
            file.unlink()

    # Content

    def add_repository(
        self,
        repo_id: str,
        files: Path | Mapping[str, bytes],
        *,
        revision: str | None = None,
        private: bool = False,
        gated: bool = False,
    ) -> str:
        """Add a repository, or a revision with exactly these files to one that is there; returns the
        revision.

        A folder is read when it is asked for, so its files must stay as they are.
        """
        with self.store.lock:
            repository = self.store.repositories.setdefault(repo_id, Repository(repo_id))
            repository.private, repository.gated = private, gated
            return repository.commit("main", blobs_of(files), "added by the test", oid=revision).oid

    def add_branch(self, repo_id: str, branch: str, revision: str = "main") -> None:
        repository = self.store.get(repo_id)
        repository.refs[branch] = repository.resolve(revision).oid

    def add_token(self, token: str, user: str = "tester", *, write: bool = True) -> None:
        self.store.tokens[token] = Token(user, write)

    def grant(self, repo_id: str, user: str) -> None:
        """Let a user into a private or gated repository; a write token of that user may then commit to it as
        well.
        """
        self.store.get(repo_id).granted.add(user)

    def read(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        repository = self.store.get(repo_id)
        return repository.blob(repository.resolve(revision), path).read()

    def files(self, repo_id: str, revision: str = "main") -> list[str]:
        """The paths in a repository; one made by the client also holds the .gitattributes that the Hub puts
        there.
        """
        return sorted(self.store.get(repo_id).resolve(revision).files)

    def commits(self, repo_id: str) -> list[Commit]:
        """All commits, oldest first."""
        return list(self.store.get(repo_id).commits.values())

    def has(self, repo_id: str) -> bool:
        return repo_id in self.store.repositories

    def asked(self, match: Match, method: str | None = None) -> list[tuple[str, str]]:
        """The requests so far whose path holds a substring or fits a pattern."""
        pattern = re.compile(re.escape(match)) if isinstance(match, str) else match
        return [
            (verb, path)
            for verb, path in list(self.requests)
            if method in (None, verb) and pattern.search(path)
        ]

    # Faults: a str is a substring of the unquoted path, a pattern is searched in it; times=None strikes for
    # ever.

    def fail(
        self,
        match: Match,
        status: int = 500,
        times: int | None = 1,
        method: str | None = None,
        code: str | None = None,
        message: str = "a fault of the loopback hub",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with an error; code goes into X-Error-Code."""
        self.faults.add(
            Fault(
                "fail", match, times, method, status=status, code=code, message=message, headers=headers or {}
            )
        )

    def drop(self, match: Match, times: int | None = 1, method: str | None = None) -> None:
        """Close the connection without an answer."""
        self.faults.add(Fault("drop", match, times, method))

    def slow(self, match: Match, seconds: float, times: int | None = 1, method: str | None = None) -> None:
        """Wait before answering."""
        self.faults.add(Fault("slow", match, times, method, seconds=seconds))

    def cut(self, match: Match, after: int = 100, times: int | None = 1, method: str | None = None) -> None:
        """Close the connection after so many bytes of a file, sent (GET) or received (PUT)."""
        self.faults.add(Fault("cut", match, times, method, after=after))

    def truncate(self, match: Match, after: int = 100, times: int | None = 1) -> None:
        """Send a file as if it ended after so many bytes."""
        self.faults.add(Fault("truncate", match, times, after=after))

    def corrupt(self, match: Match, times: int | None = 1) -> None:
        """Send a file of the right length with a wrong byte in every MiB."""
        self.faults.add(Fault("corrupt", match, times))
