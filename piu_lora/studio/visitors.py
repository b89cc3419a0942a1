"""Browsers kept apart: each has its own jobs, adapters, and a private folder that goes with the studio."""

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.studio.queue import Job

__all__ = ["FROM_PHOTOGRAPHS", "MadeAdapter", "Visitor", "Visitors", "private_folder"]

FROM_PHOTOGRAPHS = "the person in the photographs"
_IDLE = 6 * 3600.0  # seconds after which somebody who does not come back is forgotten
_KEY = re.compile(r"[\w-]{22,64}")


@dataclass(frozen=True)
class MadeAdapter:
    """An adapter at hand: its folder, and whom it forgets: an id of the bank, or a file of embeddings in the
    visitor's own folder.
    """

    path: Path
    person: str
    name: str


@dataclass(eq=False)
class Visitor:
    """One browser.

    Attributes:
        folder: readable by the owner alone.
        jobs: the last job of every page.
        adapters: by id, in the order they came.
        photographs: what was dropped.
        reports: by adapter, what it is called and the page.
        downloads: by job, a folder to take along and its name.
    """

    key: str
    folder: Path
    jobs: dict[str, Job] = field(default_factory=dict)
    adapters: dict[str, MadeAdapter] = field(default_factory=dict)
    photographs: list[Path] = field(default_factory=list)
    reports: dict[str, tuple[str, Path]] = field(default_factory=dict)
    downloads: dict[str, tuple[Path, str]] = field(default_factory=dict)
    seen: float = field(default_factory=time.monotonic)

    def adapter(self, key: str) -> MadeAdapter:
        """The adapter of that id.

        Raises:
            BadInput: none of that id is at hand.
        """
        if key not in self.adapters:
            raise BadInput(f"adapter {key!r} is not at hand; make one on the page Forget, or open it")
        return self.adapters[key]

    def new_folder(self, name: str) -> Path:
        """A name in the visitor's folder that nothing has yet."""
        return self.folder / f"{name}-{secrets.token_hex(4)}"


class Visitors:
    """Everybody who is here, by the key in their cookie."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    def known(self, key: str | None) -> Visitor | None:
        """The visitor of a key, if there is one."""
        with self._lock:
            visitor = self._visitors.get(key or "")
            if visitor is not None:
                visitor.seen = time.monotonic()
            return visitor

    def get(self, key: str) -> Visitor:
        """The visitor of a key that the studio gave out, welcomed if they are new."""
        visitor = self.known(key)
        if visitor is not None:
            return visitor
        if not _KEY.fullmatch(key):
            raise BadInput("this browser sent no usable cookie; allow cookies for the studio")
        with self._lock:
            self._forget_idle()
            folder = self._root / secrets.token_hex(8)
            folder.mkdir(mode=0o700)
            return self._visitors.setdefault(key, Visitor(key, folder))

    def remove(self, visitor: Visitor) -> None:
        """Forget a visitor, and everything of theirs on the disk."""
        with self._lock:
            self._visitors.pop(visitor.key, None)
        shutil.rmtree(visitor.folder, ignore_errors=True)

    def _forget_idle(self) -> None:
        now = time.monotonic()
        for key, visitor in list(self._visitors.items()):
            if now - visitor.seen > _IDLE and not any(job.active for job in visitor.jobs.values()):
                del self._visitors[key]
                shutil.rmtree(visitor.folder, ignore_errors=True)


@contextmanager
def private_folder() -> Iterator[Path]:
    """While open, a folder that only the owner can read; it goes at the end with everything in it."""
    # 0700, and by a name that ``doctor --clean`` knows where a studio was killed.
    folder = Path(tempfile.mkdtemp(prefix=f"piu-lora-{os.getpid()}-studio-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
