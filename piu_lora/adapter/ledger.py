"""The ledger: the only place that knows whom an adapter forgets. It stays on the operator's machine, readable
by nobody else.
"""

import difflib
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from piu_lora.adapter.entry import Entry, State
from piu_lora.adapter.folder import RECEIPT_FILE
from piu_lora.adapter.ledger_file import LedgerFile, default_ledger
from piu_lora.documents import from_json
from piu_lora.errors import BadInput, PiuLoraError
from piu_lora.foreign import read_text

__all__ = ["Ledger", "default_ledger"]

_log = logging.getLogger("piu_lora")
_COLUMNS = tuple(Entry.__dataclass_fields__)
_KEPT = ("identity", "bank", "bank_digest", "created")  # never overwritten by an entry that has none


class Ledger(LedgerFile):
    """The entries of all adapters.

    Args:
        path: created where it is missing; ``default_ledger()`` by default.

    Raises:
        BadInput: the file is no ledger, damaged, or of a newer version.
        Busy: another process keeps it locked.
        EnvironmentProblem: it cannot be opened or created.
    """

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
        entries = {entry.adapter_id: entry for entry in self.entries()}
        matching = [name for name in entries if name.startswith(beginning)] if len(beginning) >= 4 else []
        if len(matching) == 1:
            return entries[matching[0]]
        statement = (
            f"{len(matching)} adapters begin with {beginning!r}"
            if matching
            else f"the ledger knows no adapter {beginning!r}"
        )
        near = matching[:5] or difflib.get_close_matches(beginning, entries, 3, 0.5)
        hint = f"; the nearest: {', '.join(near)}" if near else ""
        raise BadInput(
            f"{statement}{hint}; `piu-lora ledger list` shows their ids (at least four characters of one)"
        )

    def containing(self, adapter_id: str) -> list[Entry]:
        """The adapters, not withdrawn, that were merged from this one, be it by way of others."""
        entries, inside = self.entries(), {adapter_id}
        # By now everything below a merged adapter may be withdrawn: the person is in it all the same.
        while containers := {entry.adapter_id for entry in entries if inside & set(entry.members)} - inside:
            inside |= containers
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
        for member in filter(None, map(self.entry, merged.members)):
            if member.state == "withdrawn":
                _log.warning(
                    "adapter %s contains %s, which is withdrawn; "
                    "`piu-lora stack withdraw` merges anew without it",
                    merged.adapter_id,
                    member.adapter_id,
                )
            elif member.state != "pending":
                _put(database, replace(member, state="merged", merged_into=merged.adapter_id))

    def withdraw(self, adapter_id: str, note: str = "") -> Entry:
        """Mark an adapter withdrawn: the person no longer wishes it, or it was replaced.

        Args:
            adapter_id: or its beginning.
            note: in place of the old one, if any is given.

        Raises:
            BadInput: it is unknown, or still being written.
        """
        with self._writing() as database:
            entry = self.find(adapter_id)
            if entry.state == "pending":
                raise BadInput(
                    f"adapter {entry.adapter_id} is being written; wait for it, "
                    "or settle it by `piu-lora ledger check`"
                )
            return _put(database, replace(entry, state="withdrawn", note=note or entry.note))

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
                if entry := self.entry(name):
                    _retire(database, entry, note)
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
    row = database.execute(
        f"SELECT {', '.join(_KEPT)} FROM adapters WHERE adapter_id = ?", (entry.adapter_id,)
    ).fetchone()
    before: dict[str, Any] = dict(zip(_KEPT, row, strict=True)) if row else {"created": now}
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
        return bool(from_json(read_text(Path(entry.path) / RECEIPT_FILE))["adapter_id"] == entry.adapter_id)
    except (OSError, ValueError, KeyError, TypeError):
        return False
