"""The ledger's SQLite file: private, checked before use, every change one transaction."""

import logging
import os
import random
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from piu_lora.errors import BadInput, Busy, EnvironmentProblem
from piu_lora.writing import make_folder

__all__ = ["LedgerFile", "default_ledger"]

_log = logging.getLogger("piu_lora")
_VERSION = 1
_WAIT_SECONDS = 10
_SCHEMA = """
CREATE TABLE adapters (
    adapter_id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'merged', 'withdrawn')),
    identity TEXT NOT NULL, bank TEXT NOT NULL, base TEXT NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, weights_sha256 TEXT NOT NULL, created TEXT NOT NULL, changed TEXT NOT NULL,
    merged_into TEXT NOT NULL, members TEXT NOT NULL, figures TEXT NOT NULL,
    note TEXT NOT NULL, bank_digest TEXT NOT NULL
) STRICT
"""


def default_ledger() -> Path:
    """``$PIU_LORA_LEDGER``, or a file in the user's data folder."""
    if stated := os.environ.get("PIU_LORA_LEDGER"):
        return Path(stated)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "piu-lora" / "ledger.sqlite"


class LedgerFile:
    """A SQLite file with mode 0600; every change is one transaction, durable when it returns. Threads may
    share it. ``Ledger`` says what it takes and raises.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else default_ledger()
        self._turn = threading.RLock()
        try:
            self._create()
            self._database = sqlite3.connect(
                self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.OperationalError) as error:
            raise EnvironmentProblem(
                f"cannot open the ledger {str(self.path)!r}: {error}; pass ledger=FILE, "
                "or ledger=none for none"
            ) from error
        try:
            self._prepare_patiently()
            self._close_to_others()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        # Before anything else: a device such as /dev/null must never meet chmod, nor a pipe SQLite.
        if self.path.exists() and not self.path.is_file():
            raise OSError("it is no regular file")
        make_folder(self.path.parent, 0o700)
        # SQLite gives -wal and -shm the mode of the file itself, so it must be right before the first
        # connection. A file that is there is not opened: closing it again would drop the locks of every
        # connection that this process has to it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _close_to_others(self) -> None:
        for path in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
            with suppress(FileNotFoundError):
                if stat.S_IMODE(path.stat().st_mode) & 0o077:
                    _log.warning("the ledger %s was readable by others; it no longer is", path)
                    path.chmod(0o600)

    def _prepare_patiently(self) -> None:
        """SQLite waits for locks by itself, but not while a file turns to WAL."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                return self._prepare()
            except Busy:
                if time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.005, 0.05))

    def _prepare(self) -> None:
        with self._understood():
            # Looked at before WAL, which would change somebody else's database for good; at once, since
            # another process may create it.
            with self._transaction("DEFERRED"):
                self._stored_version()
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA secure_delete=ON")
            (verdict,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        with self._writing() as database:
            if not self._stored_version():
                database.execute(_SCHEMA)
                database.execute(f"PRAGMA user_version={_VERSION}")

    def _stored_version(self) -> int:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        tables = {
            name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if version > _VERSION and "adapters" in tables:
            raise BadInput(
                f"{str(self.path)!r} is a ledger of version {version}, this piu-lora reads {_VERSION}; "
                "update piu-lora"
            )
        if ("adapters" in tables) != (version > 0) or (tables and not version):
            raise BadInput(f"{str(self.path)!r} is no ledger but another database; pass another ledger=FILE")
        return int(version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Turn SQLite's errors into ours; a misuse of it is nobody's but the programmer's."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise Busy(
                    f"the ledger {str(self.path)!r} is in use by another process; try again"
                ) from error
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error):
                reason = f"{error}; check the disk and its permissions"
                raise EnvironmentProblem(f"the ledger {str(self.path)!r} cannot be used: {reason}") from error
            raise BadInput(
                f"{str(self.path)!r} is no ledger, or is damaged ({error}); restore a backup, "
                "or pass ledger=FILE"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that nobody else can write beside; what is read inside it still holds when it is
        written.
        """
        with self._understood(), self._turn, self._transaction("IMMEDIATE"):
            yield self._database

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        try:
            self._database.execute(f"BEGIN {kind}")
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # A full disk has already rolled it back.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
