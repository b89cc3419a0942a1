"""Adapters to and from the Hub. Nothing leaves that shows or names the forgotten person."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piu_lora.adapter import Adapter, Ledger, OutputFolder, Secrets, adapter_folder, fetch_adapter, read_adapter, scan_files, upload_adapter
from piu_lora.adapter.folder import CARD_FILE, RECEIPT_FILE
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, PiuLoraError
from piu_lora.identity import resolve_identity
from piu_lora.jobs.case import bank_for
from piu_lora.jobs.readers import reader_for

__all__ = ["Published", "pull", "push"]

_log = logging.getLogger("piu_lora")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp")
_HARMLESS = ("report/loss.png",)


@dataclass(frozen=True)
class Published:
    """What a push sends, or has sent.

    Attributes:
        files: sizes in bytes by name.
        card: the model card.
        url, commit: empty for a dry run.
        changed: False when the Hub had the very same files.
    """

    files: dict[str, int]
    card: str
    url: str = ""
    commit: str = ""
    changed: bool = False


def push(
    adapter: str | Path, repository: str, *, public: bool = False, dry_run: bool = False, identity: str | Path | None = None,
    bank: str | Path | None = None, base: str = "", pack: str | Path | None = None, ledger: Ledger | None = None,
) -> Published:  # fmt: skip
    """Push an adapter folder to the Hub, after looking through every file for what names the forgotten person.

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
    secrets = [*_people(opened, identity, bank, base, pack, ledger)]
    hits = [hit for each in secrets or [Secrets()] for hit in scan_files(opened.path, files, each)]
    if hits:
        found = "; ".join(dict.fromkeys(f"{hit.file} at byte {hit.offset}: {hit.what}" for hit in hits[:8]))
        raise BadInput(
            f"nothing was pushed, because the folder names the person it forgets: {found}; remove that and make the adapter anew"
        )
    sizes = {name: (opened.path / name).stat().st_size for name in files}
    card = (opened.path / CARD_FILE).read_text()
    if dry_run:
        return Published(sizes, card)
    done = upload_adapter(opened.path, files, repository, public=public, message=f"adapter {opened.id}")
    return Published(sizes, card, done.url, done.commit, done.changed)


def _files_of(adapter: Adapter) -> list[str]:
    """What the receipt lists, without pictures of people. A file that it does not list is somebody's mistake."""
    listed = {RECEIPT_FILE, *adapter.receipt.files}
    present = {path.relative_to(adapter.path).as_posix() for path in adapter.path.rglob("*") if path.is_file()}
    foreign = sorted(name for name in present - listed if not any(part.startswith(".") for part in Path(name).parts))
    if foreign:
        raise BadInput(f"the adapter folder holds {foreign[0]!r}, which its receipt does not list; move it elsewhere before pushing")
    return sorted(name for name in present & listed if not name.lower().endswith(_IMAGES) or name in _HARMLESS)


def _people(
    adapter: Adapter, identity: str | Path | None, bank: str | Path | None, base: str, pack: str | Path | None, ledger: Ledger | None
) -> list[Secrets]:
    """The forgotten person, or of a merged adapter every member's."""
    if identity is not None:
        return [_secrets(str(identity), bank, base or adapter.receipt.base.family, pack)]
    ids = [adapter.id, *(str(member["adapter_id"]) for member in adapter.receipt.members)]
    entries = [entry for entry in (ledger.entry(each) for each in ids) if entry is not None and entry.identity] if ledger else []
    if not entries:
        _log.warning("whom adapter %s forgets is not known here, so its files are not searched for their id; pass --identity", adapter.id)
    return [_secrets(entry.identity, entry.bank or None, base or adapter.receipt.base.family, pack) for entry in entries]


def _secrets(identity: str, bank: str | Path | None, base: str, pack: str | Path | None) -> Secrets:
    faces = ForgetConfig.preset(base).faces
    try:
        subject = resolve_identity(identity, bank_for(base, bank), reader_for(base, pack, faces), faces.linked)
    except PiuLoraError as error:
        _log.warning("the embedding of the forgotten person is not at hand, so the files are searched for texts only: %s", error)
        return Secrets.of(identity)
    return Secrets.of(identity, subject.embeddings)


def pull(name: str, out: str | Path | None = None, *, force: bool = False) -> Adapter:
    """Download ``user/name[@revision]`` into a folder of its own.

    Args:
        out: the folder to create; by default the repository's name, here.

    Raises:
        BadInput: no adapter there, or the folder exists.
        EnvironmentProblem: it cannot be had, or arrived damaged.
    """
    target = Path(out) if out is not None else Path(name.partition("@")[0].rpartition("/")[2])
    with OutputFolder(target, force=force).claimed() as output:
        source = fetch_adapter(name)
        adapter = read_adapter(source)
        with output.staged() as folder:
            for file in _present(source, [RECEIPT_FILE, *adapter.receipt.files]):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file, folder / file)
    return read_adapter(adapter_folder(output.path))


def _present(folder: Path, files: Sequence[str]) -> list[str]:
    return [file for file in files if (folder / file).is_file()]
