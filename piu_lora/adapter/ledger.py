"""The ledger: the only place that knows whom an adapter forgets. It stays on the operator's machine, readable by nobody else."""

import json
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from piu_lora.errors import BadInput, Busy, EnvironmentProblem

__all__ = ["STATES", "Entry", "Ledger", "State", "default_ledger"]

_log = logging.getLogger("piu_lora")
State = Literal["pending", "active", "merged", "withdrawn"]
STATES: tuple[State, ...] = ("pending", "active", "merged", "withdrawn")
_VERSION = 1
_WAIT_SECONDS = 10
_SCHEMA = """
CREATE TABLE adapters (
    adapter_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'merged', 'withdrawn')), identity TEXT NOT NULL,
    bank TEXT NOT NULL, base TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, weights_sha256 TEXT NOT NULL,
    created TEXT NOT NULL, changed TEXT NOT NULL, merged_into TEXT NOT NULL, members TEXT NOT NULL, figures TEXT NOT NULL,
    note TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class Entry:
    """One adapter, as the operator knows it.

    Attributes:
        state: pending while its folder is being written; merged once another adapter stands for it; withdrawn when the request was.
        identity: as it was given to ``forget``: a bank id, or an absolute path. Empty where it is not known.
        path: the adapter's folder.
        weights_sha256: of its weights file.
        created, changed: UTC, ISO 8601.
        merged_into: id of the merged adapter that stands for this one.
        members: ids, for a merged adapter.
        figures: forget and retain ISM after / before, by recognizer.
    """

    adapter_id: str
    state: State = "active"
    identity: str = ""
    bank: str = ""
    base: str = ""
    method: str = ""
    path: str = ""
    weights_sha256: str = ""
    created: str = ""
    changed: str = ""
    merged_into: str = ""
    members: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def public(self) -> dict[str, Any]:
        """Everything that says nothing about the person: no identity, no path, no note, no bank."""
        left_out = ("identity", "bank", "path", "note")
        return {name: value for name, value in vars(self).items() if name not in left_out}


_COLUMNS = tuple(Entry.__dataclass_fields__)


def default_ledger() -> Path:
    """``$PIU_LORA_LEDGER``, or a file in the user's data folder."""
    if stated := os.environ.get("PIU_LORA_LEDGER"):
        return Path(stated)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "piu-lora" / "ledger.sqlite"


class Ledger:
    """A SQLite file with mode 0600; every change is one transaction, durable when it returns.

    Args:
        path: created where it is missing; ``default_ledger()`` by default.

    Raises:
        BadInput: the file is no ledger, damaged, or of a newer version.
        EnvironmentProblem: it cannot be opened or created.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else default_ledger()
        try:
            self._create()
            self._database = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
        except (OSError, sqlite3.OperationalError) as error:
            raise EnvironmentProblem(f"cannot open the ledger {str(self.path)!r}: {error}; pass --ledger FILE") from error
        with self._understood():
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._prepare()

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives -wal and -shm the mode of the file itself, so it must be right before the first connection.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
            _log.warning("the ledger %s was readable by others; it no longer is", self.path)
            for each in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
                with suppress(FileNotFoundError):
                    each.chmod(0o600)

    def _prepare(self) -> None:
        with self._writing() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0 and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                database.execute(_SCHEMA)
                database.execute(f"PRAGMA user_version={_VERSION}")
            elif version != _VERSION:
                raise BadInput(
                    f"{str(self.path)!r} is no ledger of version {_VERSION} (but {version}); update piu-lora, or pass another file"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise Busy(f"the ledger {str(self.path)!r} is in use by another process; try again") from error
            raise EnvironmentProblem(
                f"the ledger {str(self.path)!r} cannot be used: {error}; check the disk and its permissions"
            ) from error
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{str(self.path)!r} is no ledger, or is damaged ({error}); restore a backup, or pass --ledger FILE") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that nobody else can write beside; all of it or nothing."""
        with self._understood():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def entries(self, state: State | None = None) -> list[Entry]:
        """All entries, the oldest first."""
        with self._understood():
            rows = self._database.execute(f"SELECT {', '.join(_COLUMNS)} FROM adapters ORDER BY created, adapter_id").fetchall()
        return [entry for entry in map(_entry, rows) if state is None or entry.state == state]

    def entry(self, adapter_id: str) -> Entry | None:
        """The entry of this very id."""
        return next((entry for entry in self.entries() if entry.adapter_id == adapter_id), None)

    def find(self, beginning: str) -> Entry:
        """The entry of an id, or of an unambiguous beginning of at least four characters.

        Raises:
            BadInput: there is none, or several.
        """
        found = [entry for entry in self.entries() if entry.adapter_id.startswith(beginning)] if len(beginning) >= 4 else []
        exact = [entry for entry in found if entry.adapter_id == beginning]
        if len(exact or found) != 1:
            what = f"{len(found)} adapters begin with {beginning!r}" if found else f"the ledger knows no adapter {beginning!r}"
            raise BadInput(f"{what}; `piu-lora ledger list` shows their ids (at least four characters of one)")
        return (exact or found)[0]

    def add(self, entry: Entry) -> Entry:
        """Add or replace an entry; the date of its creation stays."""
        with self._writing() as database:
            return _put(database, entry)

    def withdraw(self, adapter_id: str, note: str = "") -> Entry:
        """Mark an adapter withdrawn: the person no longer wishes it, or it was replaced."""
        return self.add(replace(self.find(adapter_id), state="withdrawn", note=note))

    def record_merge(self, merged: Entry, *, instead_of: str = "", withdrawn: str = "") -> Entry:
        """Enter a merged adapter; its members are marked as merged into it, all in one transaction.

        Args:
            instead_of: id of an older merged adapter that this one replaces.
            withdrawn: id of the member that left.
        """
        known = {entry.adapter_id: entry for entry in self.entries()}
        with self._writing() as database:
            for name in merged.members:
                if name in known and known[name].state != "withdrawn":
                    _put(database, replace(known[name], state="merged", merged_into=merged.adapter_id))
            for name, note in ((instead_of, f"replaced by {merged.adapter_id}"), (withdrawn, "taken out of a merged adapter")):
                if name in known:
                    _put(database, replace(known[name], state="withdrawn", note=note))
            return _put(database, merged)

    @contextmanager
    def pending(self, entry: Entry) -> Iterator[None]:
        """Enter an adapter as pending before its folder takes its place; the block confirms it with ``add`` or ``record_merge``.

        An error takes the entry back. A process that is killed inside the block leaves it pending, until ``check_ledger``.
        """
        lock = self._lock(entry.adapter_id)
        try:
            with lock:
                self.add(replace(entry, state="pending"))
                try:
                    yield
                except BaseException:
                    self.remove(entry.adapter_id)
                    raise
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)

    def _lock(self, adapter_id: str) -> FileLock:
        """Held by the process that writes the adapter; the system lets go of it when the process dies."""
        return FileLock(self.path.with_name(f".{self.path.name}.{adapter_id}.lock"), timeout=0, mode=0o600)

    def abandoned(self, entry: Entry) -> bool:
        """Whether a pending entry's process is gone."""
        lock = self._lock(entry.adapter_id)
        try:
            with lock:
                pass
        except Timeout:
            return False
        Path(lock.lock_file).unlink(missing_ok=True)
        return True

    def remove(self, adapter_id: str) -> None:
        """Take an entry out."""
        with self._writing() as database:
            database.execute("DELETE FROM adapters WHERE adapter_id = ?", (adapter_id,))


def _put(database: sqlite3.Connection, entry: Entry) -> Entry:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    stored = replace(entry, created=entry.created or now, changed=now)
    values = {**vars(stored), "members": json.dumps(stored.members), "figures": json.dumps(stored.figures, sort_keys=True)}
    marks = ", ".join(f":{name}" for name in _COLUMNS)
    database.execute(f"INSERT OR REPLACE INTO adapters ({', '.join(_COLUMNS)}) VALUES ({marks})", values)
    return stored


def _entry(row: Sequence[Any]) -> Entry:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Entry(**{**values, "members": tuple(json.loads(values["members"])), "figures": json.loads(values["figures"])})
