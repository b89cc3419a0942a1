"""Adapters to and from the Hub. Nothing leaves that shows or names the forgotten person."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piu_lora.adapter import (
    Adapter,
    Entry,
    Ledger,
    OutputFolder,
    Secrets,
    fetch_adapter,
    read_adapter,
    scan_files,
)
from piu_lora.adapter.folder import CARD_FILE, RECEIPT_FILE
from piu_lora.adapter.names import CURVE_FILE
from piu_lora.adapter.scan import image_kind
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, PiuLoraError
from piu_lora.hub import upload_files
from piu_lora.identity import ResolvedIdentity, resolve_identity
from piu_lora.identity.pictures import list_photos
from piu_lora.jobs.request.readers import reader_for
from piu_lora.jobs.request.request import bank_for
from piu_lora.model import family_of
from piu_lora.writing import make_folder

__all__ = ["Published", "pull", "push"]

_log = logging.getLogger("piu_lora")
_SHOWN = 8  # findings in one message


@dataclass(frozen=True)
class Published:
    """What a push sends, or has sent.

    Attributes:
        files: sizes in bytes by name.
        card: the model card.
        people: how many the adapter forgets.
        url, commit: empty for a dry run.
        changed: False when the Hub had the very same files.
    """

    files: dict[str, int]
    card: str
    people: int
    url: str = ""
    commit: str = ""
    changed: bool = False


def push(
    adapter: str | Path,
    repository: str,
    *,
    public: bool = False,
    dry_run: bool = False,
    identity: str | Path | None = None,
    bank: str | Path | None = None,
    base: str = "",
    pack: str | Path | None = None,
    ledger: Ledger | None = None,
) -> Published:
    """Push an adapter folder to the Hub, after looking through every file for what names the forgotten
    person.

    Args:
        adapter: the folder.
        repository: ``USER/NAME``; created where it is missing, private unless ``public``.
        dry_run: look through the files and ask the Hub nothing.
        identity, bank, pack: whom it forgets, as for ``forget``; from the ledger where they are not given.
        base: of the bank; the adapter's by default.

    Raises:
        BadInput: the folder is damaged, holds foreign files, or something in it names the person.
        EnvironmentProblem: no token, no permission, no network.
    """
    opened = read_adapter(Path(adapter))
    files = _files_of(opened)
    hits = [
        hit
        for secrets in _people(opened, identity, bank, base, pack, ledger)
        for hit in scan_files(opened.path, files, secrets)
    ]
    if hits:
        findings = [f"{hit.file} at byte {hit.offset}: {hit.kind}" for hit in dict.fromkeys(hits)]
        more = f" and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
        raise BadInput(
            "nothing was pushed, because the folder may name the person it forgets: "
            f"{'; '.join(findings[:_SHOWN])}{more}; "
            "remove that and make the adapter anew"
        )
    sizes = {name: (opened.path / name).stat().st_size for name in files}
    card, people = _card(opened), opened.receipt.people
    if dry_run:
        return Published(sizes, card, people)
    upload = upload_files(opened.path, files, repository, public=public, message=f"adapter {opened.id}")
    return Published(sizes, card, people, upload.url, upload.commit, upload.changed)


def _card(adapter: Adapter) -> str:
    try:
        return (adapter.path / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{str(adapter.path)!r} has no model card ({CARD_FILE}) that can be read; make the adapter anew"
        ) from error


def _files_of(adapter: Adapter) -> list[str]:
    """What the receipt lists, without pictures of people.

    A file that it does not list is somebody's mistake.
    """
    listed = {RECEIPT_FILE, *adapter.receipt.files}
    present = {
        path.relative_to(adapter.path).as_posix() for path in adapter.path.rglob("*") if path.is_file()
    }
    foreign = sorted(
        name for name in present - listed if not any(part.startswith(".") for part in Path(name).parts)
    )
    if foreign:
        raise BadInput(
            f"the adapter folder holds {foreign[0]!r}, which its receipt does not list; "
            "move it elsewhere before pushing"
        )
    kinds = {name: image_kind(adapter.path / name) for name in present & listed}
    pictures = {name for name, kind in kinds.items() if kind and (name != CURVE_FILE or kind == "other")}
    misplaced = sorted(name for name in pictures if not name.startswith("report/"))
    if misplaced:
        raise BadInput(
            f"the adapter folder holds a picture, {misplaced[0]!r}, outside report/; "
            "make the adapter anew without it"
        )
    return sorted(present & listed - pictures)


def _people(
    adapter: Adapter,
    identity: str | Path | None,
    bank: str | Path | None,
    base: str,
    pack: str | Path | None,
    ledger: Ledger | None,
) -> list[Secrets]:
    """Whom the adapter forgets, by the arguments and by the ledger; of a merged one, all members' people."""
    base = base or adapter.receipt.base.family
    entries, unknown = _entries(adapter, ledger)
    people = [
        _secrets(name, entry.bank or None, base, pack) for entry in entries for name in entry.identities
    ]
    if identity is not None:
        people.append(_secrets(str(identity), bank, base, pack))
    elif unknown:
        _log.warning(
            "whom adapter %s forgets is not known here, so no file is searched for their id; pass `identity`",
            ", ".join(unknown),
        )
    return people or [Secrets()]


def _entries(adapter: Adapter, ledger: Ledger | None) -> tuple[list[Entry], list[str]]:
    """The ledger's entries that name somebody, and the ids of the adapters whose person it does not know."""
    todo = [str(member["adapter_id"]) for member in adapter.receipt.members] or [adapter.id]
    named, unknown, visited = [], [], set[str]()
    while todo:
        adapter_id = todo.pop(0)
        entry = ledger.entry(adapter_id) if ledger and adapter_id not in visited else None
        if entry is not None and entry.identity:
            named.append(entry)
        elif entry is not None and entry.members:
            todo += entry.members
        elif adapter_id not in visited:
            unknown.append(adapter_id)
        visited.add(adapter_id)
    return named, unknown


def _secrets(identity: str, bank: str | Path | None, base: str, pack: str | Path | None) -> Secrets:
    try:
        subject = _subject(identity, bank, base, pack)
    except PiuLoraError as error:
        why = str(error).replace(identity, "...")
        _log.warning(
            "the embedding of the forgotten person is not at hand, "
            "so the files are searched for texts only: %s",
            why,
        )
        return Secrets.of(identity, sources=_photos(identity))
    return Secrets.of(identity, subject.embeddings, _photos(identity), subject.row)


def _subject(identity: str, bank: str | Path | None, base: str, pack: str | Path | None) -> ResolvedIdentity:
    people, faces = bank_for(base, bank), ForgetConfig.preset(family_of(base)).faces
    # Somebody of the bank needs no reader, which may be large, or missing.
    reader = None if identity in people else reader_for(base, pack, faces)
    return resolve_identity(identity, people, reader, faces.linked)


def _photos(identity: str) -> list[Path]:
    """The photographs of a folder, whose names may name the person."""
    try:
        return list_photos(Path(identity)) if Path(identity).is_dir() else []
    except (OSError, ValueError):
        return []


def pull(name: str, out: str | Path | None = None, *, force: bool = False) -> Adapter:
    """Download ``user/name[@revision]`` into a folder of its own.

    Args:
        out: the folder to create; by default the repository's name, here.

    Raises:
        BadInput: no adapter there, or the folder exists.
        EnvironmentProblem: it cannot be had, or arrived damaged.
    """
    target = Path(out) if out is not None else Path(name.partition("@")[0].rpartition("/")[2] or "adapter")
    with OutputFolder(target, force=force).claimed() as output:
        source = fetch_adapter(name)
        adapter = read_adapter(source)
        with output.staged() as folder:
            for file in _present(source, [RECEIPT_FILE, *adapter.receipt.files]):
                make_folder((folder / file).parent)
                shutil.copyfile(source / file, folder / file)
    return read_adapter(output.path)


def _present(folder: Path, files: Sequence[str]) -> list[str]:
    return [file for file in files if (folder / file).is_file()]
