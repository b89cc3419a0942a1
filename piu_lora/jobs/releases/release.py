"""The folder of a release, and what every command does first: claim it, and settle what a crash left."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from piu_lora.adapter import (
    Adapter,
    BaseRef,
    Entry,
    Ledger,
    claimed,
    disk_errors,
    read_adapter,
    replacing,
    write_file,
)
from piu_lora.adapter.folder import RECEIPT_FILE
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import ResolvedIdentity
from piu_lora.jobs.ledger import bank_text, entry_for, identity_text
from piu_lora.jobs.releases.manifest import MANIFEST_FILE, Keep, Manifest, RequestRecord, VersionRecord, now
from piu_lora.jobs.request.session import Session, open_session
from piu_lora.model import family_of
from piu_lora.progress import Progress, silent
from piu_lora.unlearn import find_method
from piu_lora.writing import make_folder

__all__ = ["Release", "create_release", "open_release"]


@dataclass
class Release:
    """A release on disk.

    ::

        release.json        requests and versions, nobody's name (0600)
        current             link to the version that stands
        versions/0003/      an adapter folder for everybody
        failed/0002/        a version whose checks failed, kept aside
        reports/0003/       its evaluation; pictures in it may show people (0700)
        members/ID/         the adapter for one request (0700)
        private/ID.npy      whose it is: embeddings, or ID.txt with an id of the bank (0700)
    """

    path: Path
    manifest: Manifest

    @property
    def config(self) -> ForgetConfig:
        """The settings of every adapter."""
        return ForgetConfig().updated(self.manifest.settings)

    @property
    def additive(self) -> bool:
        """Whether the method's adapters, made one by one, add up to one for everybody."""
        return find_method(self.config.method).additive

    @property
    def current(self) -> Path:
        """The link to the version that stands."""
        return self.path / "current"

    @property
    def candidate(self) -> Path:
        """Where the next version is made, until it is accepted."""
        return self.path / "candidate"

    def version_folder(self, number: int) -> Path:
        """Of an accepted version."""
        return self.path / "versions" / f"{number:04d}"

    def failed_folder(self, number: int) -> Path:
        """Of a version whose checks failed."""
        return self.path / "failed" / f"{number:04d}"

    def report_folder(self, number: int) -> Path:
        """Of a version's evaluation."""
        return self.path / "reports" / f"{number:04d}"

    def member_folder(self, request: RequestRecord) -> Path:
        """Of the adapter for one request."""
        return self.path / "members" / request.id

    def member(self, request: RequestRecord) -> Adapter | None:
        """The adapter for one request, where it has been made.

        Raises:
            BadInput: it is damaged.
        """
        folder = self.member_folder(request)
        return read_adapter(folder) if (folder / RECEIPT_FILE).is_file() else None

    def save(self, manifest: Manifest) -> None:
        """Take another manifest for this release."""
        manifest.save(self.path)
        self.manifest = manifest

    def keep_identity(self, request_id: str, subject: ResolvedIdentity, bank_id: str) -> None:
        """Write down who made a request: an id of the bank, or embeddings (n, d)."""
        private = self.path / "private"
        make_folder(private, 0o700)
        if bank_id:
            return write_file(private / f"{request_id}.txt", bank_id.encode(), mode=0o600)
        with replacing(private / f"{request_id}.npy", mode=0o600) as temporary, temporary.open("wb") as file:
            np.save(file, subject.embeddings.numpy())
        return None

    def identity(self, request: RequestRecord) -> str:
        """Who made a request, as ``forget`` takes it; empty where that is no longer known."""
        private = self.path / "private"
        if (embeddings := private / f"{request.id}.npy").is_file():
            return str(embeddings.absolute())
        text = private / f"{request.id}.txt"
        return text.read_text(encoding="utf-8") if text.is_file() else ""

    def erase_identity(self, request: RequestRecord) -> None:
        """Forget who made a request."""
        for suffix in ("npy", "txt"):
            (self.path / "private" / f"{request.id}.{suffix}").unlink(missing_ok=True)

    def session(self, device: str = "auto", progress: Progress = silent) -> Session:
        """Base, bank and reader of the release."""
        manifest = self.manifest
        return open_session(
            manifest.base,
            manifest.bank or None,
            manifest.pack or None,
            faces=self.config.faces,
            device=device,
            progress=progress,
        )

    @contextmanager
    def claimed(self, ledger: Ledger | None) -> Iterator[None]:
        """Hold the release for one command; what a killed one left behind is settled first.

        Raises:
            Busy: another command is at work on it.
        """
        with claimed(self.path / MANIFEST_FILE):
            self.manifest = Manifest.load(self.path)
            with disk_errors(f"the release {str(self.path)!r}"):
                self.settle(ledger)
            yield

    def settle(self, ledger: Ledger | None) -> None:
        """Folders, link and ledger follow the manifest, which is written first."""
        for version in self.manifest.versions:
            folder_of = self.version_folder if version.state == "accepted" else self.failed_folder
            target = folder_of(version.number)
            if version.adapter_id and not target.exists() and self._is_candidate(version):
                make_folder(target.parent)
                self.candidate.rename(target)
        shutil.rmtree(self.candidate, ignore_errors=True)
        self._point_current()
        known = {request.id for request in self.manifest.in_state("pending", "active", "leaving")}
        for folder in ("private", "members"):
            for path in (self.path / folder).glob("*"):
                if path.name.partition(".")[0] not in known:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.manifest.keep == "nothing":
            # Before the ledger, which then has nobody to name.
            for request in self.manifest.in_state("active"):
                self.erase_identity(request)
        if ledger is not None:
            self._settle_ledger(ledger)

    def _is_candidate(self, version: VersionRecord) -> bool:
        try:
            return read_adapter(self.candidate).id == version.adapter_id
        except BadInput:
            return False

    def _point_current(self) -> None:
        number = self.manifest.current
        if not number:
            self.current.unlink(missing_ok=True)
            return
        target = self.version_folder(number).relative_to(self.path)
        if self.current.is_symlink() and self.current.readlink() == target:
            return
        temporary = self.path / f".current.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(self.current)

    def _settle_ledger(self, ledger: Ledger) -> None:
        """Enter the adapters that stand, and withdraw those that do not."""
        bank = bank_text(self.manifest.bank or None)
        for request in self.manifest.requests:
            entry = ledger.entry(request.adapter_id) if request.adapter_id else None
            if request.state == "withdrawn" and entry is not None and entry.state != "withdrawn":
                ledger.withdraw(entry.adapter_id, entry.note or f"request {request.id} was withdrawn")
            elif (
                request.state in ("active", "leaving") and entry is None and (member := self.member(request))
            ):
                ledger.add(entry_for(member.receipt, member.path, self.identity(request), bank))
        version = self.manifest.version(self.manifest.current)
        if version is not None and ledger.entry(version.adapter_id) is None:
            self._enter_version(ledger, version)
        for other in self.manifest.versions:
            entry = ledger.entry(other.adapter_id) if other.adapter_id else None
            if other is not version and entry is not None and entry.state == "active":
                note = f"replaced by version {self.manifest.current} of its release"
                ledger.withdraw(entry.adapter_id, note)

    def _enter_version(self, ledger: Ledger, version: VersionRecord) -> None:
        path = self.version_folder(version.number)
        receipt = read_adapter(path).receipt
        bank = bank_text(self.manifest.bank or None)
        if receipt.members:  # whose entries name them
            ledger.record_merge(entry_for(receipt, path, bank=bank))
            return
        requests = [request for request in self.manifest.requests if request.id in version.requests]
        ledger.add(entry_for(receipt, path, Entry.joined(map(self.identity, requests)), bank))

    def require_base(self, ref: BaseRef) -> None:
        """Raise ``Incompatible`` where the base is no longer the one that the release was made for."""
        standing = self.manifest.version(self.manifest.current)
        if standing is None or not standing.adapter_id:
            return
        made_for = read_adapter(self.version_folder(standing.number)).receipt.base
        if made_for.attn2_sha256 != ref.attn2_sha256:
            raise Incompatible(
                f"the release was made for the base {made_for.id!r} ({made_for.attn2_sha256[:12]}), and "
                f"{self.manifest.base!r} is another now ({ref.attn2_sha256[:12]}); restore it, or begin "
                "another release"
            )


def create_release(
    out: str | Path,
    base: str,
    *,
    bank: str | Path | None = None,
    pack: str | Path | None = None,
    config: ForgetConfig | None = None,
    keep: Keep = "embeddings",
) -> Release:
    """Begin a release: a folder that every later command names.

    Args:
        out: the folder to create.
        base, bank, pack: as for ``forget``, by name or path.
        config: of every adapter; by default gate neurons, whose adapters add up.
        keep: ``embeddings`` keeps who asked, so that every later version can be measured on them; ``nothing``
            erases it as soon as an accepted version forgets them.

    Raises:
        BadInput: the folder is there already; a method whose adapters do not add up cannot keep nothing.
    """
    path = Path(out).absolute()
    if path.exists():
        raise BadInput(f"{str(out)!r} exists already; choose another folder for the release")
    config = config or ForgetConfig.preset(family_of(base), "gate-encoder")
    if keep == "nothing" and not find_method(config.method).additive:
        raise BadInput(
            f"keep = 'nothing' does not go with the method {config.method!r}, which makes every version from "
            "everybody's embeddings; choose gate-encoder, or keep = 'embeddings'"
        )
    open_session(base, bank, pack, faces=config.faces)  # refuses what cannot be opened
    manifest = Manifest(
        created=now(),
        base=identity_text(base),
        bank=bank_text(bank),
        pack=identity_text(pack or ""),
        settings=config.to_dict(),
        keep=keep,
    )
    with disk_errors(f"the release {str(out)!r}"):
        make_folder(path)
        manifest.save(path)
    return Release(path, manifest)


def open_release(path: str | Path) -> Release:
    """Read a release.

    Raises:
        BadInput: none there, or damaged.
    """
    folder = Path(path).absolute()
    return Release(folder, Manifest.load(folder))
