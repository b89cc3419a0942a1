"""What ``identity`` accepts: a bank id, a photograph, a folder of photographs, or a file of embeddings."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from piu_lora.errors import BadInput
from piu_lora.identity.bank import IdentityBank
from piu_lora.identity.constants import value_of
from piu_lora.identity.embedding_files import is_embedding_file, read_embeddings, split_name
from piu_lora.identity.gather import PhotoReader, gather
from piu_lora.identity.photo_files import PHOTO_SUFFIXES, PhotoFiles, Rejected, listed, odd_name, photo_files
from piu_lora.identity.profiles import bank_geometry
from piu_lora.settings import Auto

__all__ = ["ResolvedIdentity", "resolve_identity"]

_log = logging.getLogger("piu_lora")


@dataclass(frozen=True)
class ResolvedIdentity:
    """The person to forget.

    Attributes:
        embeddings: (n, d) unit rows of the conditioning recognizer.
        row: their row in the bank, if they are in it.
        photos: where the embeddings came from, if from photographs.
        turned: how many of these had to be turned to be upright.
    """

    embeddings: torch.Tensor
    row: int | None = None
    photos: tuple[Path, ...] = ()
    turned: int = 0


def resolve_identity(
    identity: str | Path, bank: IdentityBank, reader: PhotoReader | None, linked: float | Auto = "auto"
) -> ResolvedIdentity:
    """Find out who is meant.

    Args:
        identity: an id of ``bank``, else a path; ``FILE.npz:NAME`` for one array of several.
        reader: embeds photographs; its recognizer must be the bank's.
        linked: cosine at which two photographs show one person; ``auto`` follows from the bank's geometry.

    Raises:
        BadInput: nobody found, unreadable file, NaN, wrong width.
        Incompatible: the recognizer is not the bank's.
    """
    if str(identity) in bank:
        return ResolvedIdentity(bank.of(str(identity)), row=bank.index(str(identity)))
    if reason := odd_name(str(identity)):
        raise BadInput(f"the identity {str(identity)!r} {reason}; rename the file or folder")
    path, array = split_name(str(identity))
    if not str(identity) or not _exists(path):
        bank.index(str(identity))  # raises, suggesting the closest ids
    if is_embedding_file(path):
        return ResolvedIdentity(read_embeddings(path, bank.width, array))
    files = _photos_of(path)
    if not files.photos:
        others = f"; passed over: {listed(files.passed_over)}" if files.passed_over else ""
        raise BadInput(f"{str(path)!r} holds no photographs ({', '.join(sorted(PHOTO_SUFFIXES))}){others}")
    if reader is None:
        raise BadInput(
            f"{str(identity)!r} holds photographs, but no face pack is at hand to read them; pass pack=DIR "
            "(`piu-lora bank models` makes one), or a .npy file of embeddings"
        )
    bank.recognizer.require(reader.id, "the bank", "the face pack")
    several = len(files.photos) > 1
    linked = value_of("faces.linked", linked, lambda: bank_geometry(bank)) if several else 0.0
    gathered = gather(reader, files.photos, linked)
    if files.passed_over:
        _log.warning("passed over, since they are no photographs: %s", listed(files.passed_over))
    return ResolvedIdentity(gathered.embeddings, photos=gathered.photos, turned=gathered.turned)


def _photos_of(path: Path) -> PhotoFiles:
    """The photographs that a path names, and what else lies there."""
    if path.is_dir():
        files = photo_files(path)
        inside = [
            Rejected(folder, "a folder inside the folder; pass it by itself, or move its photographs up")
            for folder in files.folders
        ]
        return PhotoFiles(files.photos, [*files.passed_over, *inside])
    if not path.is_file():
        raise BadInput(f"{str(path)!r} is neither a file nor a folder; pass a photograph or a folder of them")
    return PhotoFiles([path])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False
