"""The ledger: the only place that knows whom an adapter forgets. It stays on the operator's machine, readable
by nobody else.
"""

import difflib
import json
import logging
import os
import random
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from piu_lora.adapter.entry import Entry, State
from piu_lora.adapter.folder import RECEIPT_FILE
from piu_lora.errors import BadInput, Busy, EnvironmentProblem, PiuLoraError

__all__ = ["Ledger", "default_ledger"]

_log = logging.getLogger("piu_lora")
_VERSION = 1
_WAIT_SECONDS = 10
_SCHEMA = """
CREATE TABLE adapters (
    adapter_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'merged', 'withdrawn')), identity TEXT NOT NULL,
    bank TEXT NOT NULL, base TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, weights_sha256 TEXT NOT NULL,
    created TEXT NOT NULL, changed TEXT NOT NULL, merged_into TEXT NOT NULL, members TEXT NOT NULL, figures TEXT NOT NULL,
    note TEXT NOT NULL, bank_digest TEXT NOT NULL
) STRICT
"""


_COLUMNS = tuple(Entry.__dataclass_fields__)
_KEPT = ("identity", "bank", "bank_digest", "created")  # known once, known for good


def default_ledger() -> Path:
    """``$PIU_LORA_LEDGER``, or a file in the user's data folder."""
    if stated := os.environ.get("PIU_LORA_LEDGER"):
        return Path(stated)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "piu-lora" / "ledger.sqlite"


class Ledger:
    """A SQLite file with mode 0600; every change is one transaction, durable when it returns. Threads may
    share it.

    Args:
        path: created where it is missing; ``default_ledger()`` by default.

    Raises:
        BadInput: the file is no ledger, damaged, or of a newer version.
        Busy: another process keeps it locked.
        EnvironmentProblem: it cannot be opened or created.
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
                f"cannot open the ledger {str(self.path)!r}: {error}; pass ledger=FILE, or ledger=none for none"
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
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives -wal and -shm the mode of the file itself, so it must be right before the first connection. A file that is
        # there is not opened: closing it again would drop the locks of every connection that this process has
        # to it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _close_to_others(self) -> None:
        for each in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
            with suppress(FileNotFoundError):
                if stat.S_IMODE(each.stat().st_mode) & 0o077:
                    _log.warning("the ledger %s was readable by others; it no longer is", each)
                    each.chmod(0o600)

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
                f"{str(self.path)!r} is a ledger of version {version}, this piu-lora reads {_VERSION}; update piu-lora"
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
                f"{str(self.path)!r} is no ledger, or is damaged ({error}); restore a backup, or pass ledger=FILE"
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

    def _select(self, where: str = "", *values: str) -> list[Entry]:
        with self._understood(), self._turn:
            rows = self._database.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM adapters {where} ORDER BY created, adapter_id", values
            )
            try:
                return [Entry.of_row(row) for row in rows]
            except (ValueError, TypeError) as error:
                raise sqlite3.DatabaseError(f"a row cannot be read: {error}") from error

    def entries(self, state: State | None = None) -> list[Entry]:
        """All entries, the oldest first."""
        return self._select("WHERE state = ?", state) if state else self._select()

    def entry(self, adapter_id: str) -> Entry | None:
        """The entry of this very id."""
        return next(iter(self._select("WHERE adapter_id = ?", adapter_id)), None)

    def find(self, beginning: str) -> Entry:
        """The entry of an id, or of an unambiguous beginning of at least four characters.

        Raises:
            BadInput: there is none, or several; the message lists the nearest.
        """
        if exact := self.entry(beginning):
            return exact
        known = {entry.adapter_id: entry for entry in self.entries()}
        found = [name for name in known if name.startswith(beginning)] if len(beginning) >= 4 else []
        if len(found) == 1:
            return known[found[0]]
        what = (
            f"{len(found)} adapters begin with {beginning!r}"
            if found
            else f"the ledger knows no adapter {beginning!r}"
        )
        near = found[:5] or difflib.get_close_matches(beginning, known, 3, 0.5)
        hint = f"; the nearest: {', '.join(near)}" if near else ""
        raise BadInput(
            f"{what}{hint}; `piu-lora ledger list` shows their ids (at least four characters of one)"
        )

    def containing(self, adapter_id: str) -> list[Entry]:
        """The adapters, not withdrawn, that were merged from this one, be it by way of others."""
        entries, inside = self.entries(), {adapter_id}
        # By now everything below a merged adapter may be withdrawn: the person is in it all the same.
        while found := {entry.adapter_id for entry in entries if inside & set(entry.members)} - inside:
            inside |= found
        return [
            entry
            for entry in entries
            if entry.adapter_id in inside - {adapter_id} and entry.state != "withdrawn"
        ]

    def add(self, entry: Entry) -> Entry:
        """Add or replace an entry. What was known of its person and the date of its creation stay, where
        ``entry`` has none.

        The confirmation of a pending merged adapter marks its members; an active adapter retires the one
        whose folder it took.
        """
        with self._writing() as database:
            before = self.entry(entry.adapter_id)
            if before is not None and before.state == "pending" and entry.state == "active":
                self._mark_members(database, entry)
            return self._place(database, entry)

    def _place(self, database: sqlite3.Connection, entry: Entry) -> Entry:
        if entry.state == "active" and entry.path:
            for other in self._select(
                "WHERE path = ? AND adapter_id != ? AND state = 'active'", entry.path, entry.adapter_id
            ):
                _retire(database, other, f"its folder was replaced by {entry.adapter_id}")
        return _put(database, entry)

    def _mark_members(self, database: sqlite3.Connection, merged: Entry) -> None:
        for known in filter(None, map(self.entry, merged.members)):
            if known.state == "withdrawn":
                _log.warning(
                    "adapter %s contains %s, which is withdrawn; `piu-lora stack withdraw` merges anew without it",
                    merged.adapter_id, known.adapter_id,
                )  # fmt: skip
            elif known.state != "pending":
                _put(database, replace(known, state="merged", merged_into=merged.adapter_id))

    def withdraw(self, adapter_id: str, note: str = "") -> Entry:
        """Mark an adapter withdrawn: the person no longer wishes it, or it was replaced.

        Args:
            adapter_id: or its beginning.
            note: in place of the old one, if any is given.

        Raises:
            BadInput: it is unknown, or still being written.
        """
        with self._writing() as database:
            found = self.find(adapter_id)
            if found.state == "pending":
                raise BadInput(
                    f"adapter {found.adapter_id} is being written; wait for it, or settle it by `piu-lora ledger check`"
                )
            return _put(database, replace(found, state="withdrawn", note=note or found.note))

    def record_merge(self, merged: Entry, *, instead_of: str = "", withdrawn: str = "") -> Entry:
        """Enter a merged adapter; its members are marked as merged into it, all in one transaction.

        A member that is withdrawn stays so; a warning says that it is in there.

        Args:
            instead_of: id of an older merged adapter that this one replaces.
            withdrawn: id of the member that left.
        """
        with self._writing() as database:
            self._mark_members(database, merged)
            for name, note in (
                (instead_of, f"replaced by {merged.adapter_id}"),
                (withdrawn, "taken out of a merged adapter"),
            ):
                if known := self.entry(name):
                    _retire(database, known, note)
            return self._place(database, merged)

    @contextmanager
    def pending(self, entry: Entry) -> Iterator[None]:
        """Enter an adapter as pending before its folder takes its place; ``add`` or ``record_merge`` confirms
        it afterwards.

        An error takes the entry back, unless the folder is in its place already. A process that is killed
        inside the block leaves it pending, until ``check_ledger``.
        """
        lock = self._lock(entry.adapter_id)
        try:
            with lock:
                with self._writing() as database:
                    _put(database, replace(entry, state="pending"))
                try:
                    yield
                except BaseException:
                    self._take_back(entry)
                    raise
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)

    def _take_back(self, entry: Entry) -> None:
        if _in_place(entry):
            _log.warning(
                "adapter %s is complete all the same; `piu-lora ledger check` confirms it", entry.adapter_id
            )
            return
        # The error that led here is the one to be told of; check drops what stays.
        with suppress(PiuLoraError):
            self.remove(entry.adapter_id)

    def _lock(self, adapter_id: str) -> FileLock:
        """Held by the process that writes the adapter; the system lets go of it when the process dies."""
        return FileLock(self.path.with_name(f".{self.path.name}.{adapter_id}.lock"), timeout=0, mode=0o600)

    def abandoned(self, entry: Entry) -> bool:
        """Whether an entry is pending still and its process gone."""
        lock = self._lock(entry.adapter_id)
        try:
            with lock:
                now = self.entry(entry.adapter_id)
        except Timeout:
            return False
        Path(lock.lock_file).unlink(missing_ok=True)
        return now is not None and now.state == "pending"

    def remove(self, adapter_id: str) -> None:
        """Take a pending entry back; any other stays, whoever asks: only ``withdraw`` ends it."""
        with self._writing() as database:
            database.execute("DELETE FROM adapters WHERE adapter_id = ? AND state = 'pending'", (adapter_id,))


def _put(database: sqlite3.Connection, entry: Entry) -> Entry:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    known = database.execute(
        f"SELECT {', '.join(_KEPT)} FROM adapters WHERE adapter_id = ?", (entry.adapter_id,)
    ).fetchone()
    before: dict[str, Any] = dict(zip(_KEPT, known, strict=True)) if known else {"created": now}
    stored = replace(
        entry, changed=now, **{name: value for name, value in before.items() if not getattr(entry, name)}
    )
    values = {
        **vars(stored),
        "members": json.dumps(stored.members),
        "figures": json.dumps(stored.figures, sort_keys=True),
    }
    marks = ", ".join(f":{name}" for name in _COLUMNS)
    database.execute(f"INSERT OR REPLACE INTO adapters ({', '.join(_COLUMNS)}) VALUES ({marks})", values)
    return stored


def _retire(database: sqlite3.Connection, entry: Entry, note: str) -> None:
    """Withdrawn because of what became of it; the operator's own note stays."""
    _put(database, replace(entry, state="withdrawn", note="; ".join(filter(None, (entry.note, note)))))


def _in_place(entry: Entry) -> bool:
    """Whether the folder is there, and is this adapter's."""
    try:
        return bool(
            json.loads((Path(entry.path) / RECEIPT_FILE).read_text())["adapter_id"] == entry.adapter_id
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
