"""Keeping the ledger and the adapter folders in step."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from piu_lora.adapter import Adapter, Entry, Ledger, Receipt, read_adapter, refuse_existing, write_file
from piu_lora.adapter.folder import DIFFUSERS_FILE, RECEIPT_FILE
from piu_lora.errors import BadInput
from piu_lora.foreign import read_text
from piu_lora.identity import IdentityBank
from piu_lora.unlearn.gate.neurons import taken_gates

__all__ = [
    "Problem",
    "bank_text",
    "check_ledger",
    "entry_for",
    "export_ledger",
    "folders_of",
    "forgotten_people",
    "gates_of_others",
    "identities_of",
    "identity_text",
    "registered",
]


@dataclass(frozen=True)
class Problem:
    """Something that ledger and folders disagree about, and whether it was mended."""

    adapter_id: str
    what: str
    mended: bool = False


def identity_text(identity: str | Path) -> str:
    """An identity as the ledger keeps it: a path in full, so that it means the same from everywhere."""
    return str(Path(identity).absolute()) if identity and Path(identity).exists() else str(identity)


def identities_of(ledger: Ledger | None, adapter_ids: Iterable[str]) -> list[str]:
    """Whom adapters forget, as far as the ledger knows; empty where it does not."""
    identities = {entry.adapter_id: entry.identity for entry in ledger.entries()} if ledger else {}
    return [identities.get(adapter_id, "") for adapter_id in adapter_ids]


def folders_of(ledger: Ledger | None, merged: Receipt) -> list[str]:
    """Folders of the members of a merged adapter, as far as the ledger knows them."""
    paths_by_id = {entry.adapter_id: entry.path for entry in ledger.entries()} if ledger else {}
    paths = [paths_by_id.get(str(member["adapter_id"]), "") for member in merged.members]
    return [path for path in paths if path and Path(path).exists()]


def bank_text(bank: IdentityBank | str | Path | None) -> str:
    """A bank as the ledger keeps it: its file in full, or ``mini``; empty for one that was never stored."""
    if bank is None or isinstance(bank, IdentityBank):
        return ""
    return identity_text(bank)


def entry_for(receipt: Receipt, path: Path, identity: str | Path = "", bank: str = "") -> Entry:
    """The entry of an adapter from its receipt and what only the operator knows.

    Args:
        identity: whom it forgets, as ``identity_text`` writes it down.
        bank: where they were looked up, as ``bank_text`` does.
    """
    ratios: dict[str, dict[str, float | None]] = {}
    for figure in receipt.figures():
        ratios.setdefault(figure.recognizer, {})[figure.group] = (
            None if figure.ratio is None else round(figure.ratio, 4)
        )
    return Entry(
        receipt.adapter_id,
        "active",
        str(identity),
        bank,
        receipt.base.id,
        receipt.method,
        str(path.absolute()),
        receipt.files.get(DIFFUSERS_FILE, ""),
        members=tuple(str(member["adapter_id"]) for member in receipt.members),
        figures=ratios,
    )


def forgotten_people(entry: Entry) -> int | None:
    """How many people an adapter forgets: as its receipt says, else as many as its entry names; None where it
    names nobody.
    """
    receipt = _receipt_of(entry)
    return len(entry.identities) or None if receipt is None else receipt.people


def gates_of_others(ledger: Ledger | None, base: str, identities: Iterable[str]) -> list[str]:
    """Gate neurons of the adapters of a base that forget somebody else and may be stacked, as far as their
    folders are there.

    Args:
        base: its id.
        identities: as the ledger keeps them: whose adapters do not count.
    """
    receipts = [
        _receipt_of(entry)
        for entry in (ledger.entries() if ledger else ())
        if entry.base == base and entry.state != "withdrawn" and not set(entry.identities) & set(identities)
    ]
    return taken_gates(receipt.solution for receipt in receipts if receipt is not None)


def _receipt_of(entry: Entry) -> Receipt | None:
    """None where the adapter is not in its folder any more."""
    try:
        path = Path(entry.path) / RECEIPT_FILE
        receipt = Receipt.from_json(read_text(path), str(path))
    except (OSError, ValueError, BadInput):
        return None
    return receipt if receipt.adapter_id == entry.adapter_id else None


@contextmanager
def registered(
    ledger: Ledger | None,
    receipt: Receipt,
    path: Path,
    identity: str | Path = "",
    bank: str = "",
    confirm: Callable[[Entry], Entry] | None = None,
) -> Iterator[Callable[[Receipt], None]]:
    """Around the writing of an adapter folder: the entry is there, pending, before the folder is, and
    confirmed after it.

    Args:
        ledger: None keeps no entry.
        receipt: as far as it is known.
        confirm: enters the finished adapter; ``ledger.add`` by default.

    Yields:
        A function that takes the finished receipt; call it in the block.
    """
    if ledger is None:
        yield lambda _: None
        return
    finished = [receipt]
    with ledger.pending(entry_for(receipt, path, identity, bank)):
        yield lambda final: finished.append(final)
        # Inside: until it is confirmed, the entry's lock says that its writer is alive. Should this fail, the
        # folder is there, and `pending` leaves its entry with it.
        (confirm or ledger.add)(entry_for(finished[-1], path, identity, bank))


def check_ledger(ledger: Ledger, folders: Iterable[Path] = (), *, mend: bool = False) -> list[Problem]:
    """Compare the ledger with the adapter folders.

    Entries that a killed run left pending are settled at once: confirmed where the folder is complete, else
    dropped. Those of a run that is still alive are left alone.

    Args:
        folders: searched for adapter folders that the ledger does not know.
        mend: enter those, with an unknown identity.
    """
    problems = [problem for entry in ledger.entries() for problem in _check_entry(ledger, entry)]
    # First the folders, then the entries: what was found in its place by then has an entry, however many runs
    # go on meanwhile.
    receipts = sorted({receipt for folder in folders for receipt in _places(Path(folder))})
    entered = {entry.adapter_id for entry in ledger.entries()}
    for receipt in receipts:
        adapter = _readable(receipt.parent)
        if adapter is None and receipt.exists():
            problems.append(
                Problem("", f"{str(receipt.parent)!r} is no readable adapter; make or download it again")
            )
        elif adapter is not None and adapter.id not in entered:
            if mend:
                ledger.add(entry_for(adapter.receipt, adapter.path))
            problems.append(Problem(adapter.id, f"{str(adapter.path)!r} has no entry", mend))
    return problems


def _places(folder: Path) -> Iterator[Path]:
    """Receipts of adapter folders in their places; what vanishes meanwhile, or waits hidden beside its place,
    is left out.
    """
    for directory, subfolders, files in os.walk(folder):
        subfolders[:] = [
            name
            for name in subfolders
            if not (name.startswith(".") and name.endswith((".partial", ".replaced")))
        ]
        if RECEIPT_FILE in files:
            yield Path(directory) / RECEIPT_FILE


def _check_entry(ledger: Ledger, entry: Entry) -> list[Problem]:
    # Asked before its folder is looked at: a writer that ends in between has put it there.
    if entry.state == "pending" and not ledger.abandoned(entry):
        return []
    adapter = _readable(Path(entry.path))
    matching = adapter is not None and adapter.id == entry.adapter_id
    if entry.state == "pending":
        if matching and adapter is not None:
            ledger.add(entry_for(adapter.receipt, adapter.path, entry.identity, entry.bank))
            return [
                Problem(entry.adapter_id, "was interrupted after its folder was complete: confirmed", True)
            ]
        ledger.remove(entry.adapter_id)
        return [Problem(entry.adapter_id, "was interrupted before its folder was complete: dropped", True)]
    if entry.state == "withdrawn":
        return []
    if adapter is None or not matching:
        gone = f"its folder {entry.path!r} is gone, unreadable or another adapter's"
        return [Problem(entry.adapter_id, f"{gone}; restore it, or withdraw the entry")]
    if entry.weights_sha256 and entry.weights_sha256 != adapter.receipt.files[DIFFUSERS_FILE]:
        return [
            Problem(
                entry.adapter_id,
                f"its weights in {entry.path!r} are not those that were entered; restore the original",
            )
        ]
    return []


def _readable(folder: Path) -> Adapter | None:
    try:
        return read_adapter(folder)
    except BadInput:
        return None


def export_ledger(ledger: Ledger, out: Path, *, public: bool = False, force: bool = False) -> int:
    """Write all entries to a .json or .csv file that only its owner may read; returns their number.

    Args:
        public: leave out identities, banks, paths and notes.

    Raises:
        BadInput: the file exists, or has another suffix.
    """
    refuse_existing(out, force=force)
    rows = [entry.public() if public else vars(entry) for entry in ledger.entries()]
    if out.suffix == ".json":
        text = json.dumps({"adapters": rows}, indent=2) + "\n"
    elif out.suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(Entry("").public() if public else vars(Entry(""))))
        writer.writeheader()
        writer.writerows(
            {**row, "members": " ".join(row["members"]), "figures": json.dumps(row["figures"])}
            for row in rows
        )
        text = buffer.getvalue()
    else:
        raise BadInput(f"out = {str(out)!r} ends in neither .json nor .csv; the suffix chooses the format")
    write_file(out, text.encode(), mode=0o600)
    return len(rows)
