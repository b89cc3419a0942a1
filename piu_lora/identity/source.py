"""What ``identity`` accepts: a bank id, a photograph, a folder of photographs, or a file of embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from piu_lora.errors import BadInput
from piu_lora.foreign import require_regular
from piu_lora.identity.bank import IdentityBank
from piu_lora.identity.constants import value_of
from piu_lora.identity.embedding import normalize
from piu_lora.identity.gather import PhotoReader, gather
from piu_lora.identity.pictures import PHOTO_SUFFIXES, list_photos
from piu_lora.identity.profiles import bank_geometry
from piu_lora.settings import Auto

__all__ = ["ResolvedIdentity", "resolve_identity"]


@dataclass(frozen=True)
class ResolvedIdentity:
    """The person to forget.

    Attributes:
        embeddings: (n, d) unit rows of the conditioning recognizer.
        row: their row in the bank, if they are in it.
        photos: where the embeddings came from, if from photographs.
    """

    embeddings: torch.Tensor
    row: int | None = None
    photos: tuple[Path, ...] = ()


def resolve_identity(
    identity: str | Path, bank: IdentityBank, reader: PhotoReader | None, linked: float | Auto = "auto"
) -> ResolvedIdentity:
    """Find out who is meant.

    Args:
        identity: an id of ``bank``, else a path.
        reader: embeds photographs; its recognizer must be the bank's.
        linked: cosine at which two photographs show one person; ``auto`` follows from the bank's geometry.

    Raises:
        BadInput: nobody found, unreadable file, NaN, wrong width.
        Incompatible: the recognizer is not the bank's.
    """
    path = Path(identity)
    if str(identity) in bank:
        return ResolvedIdentity(bank.of(str(identity)), row=bank.index(str(identity)))
    if not str(identity) or not _exists(path):
        bank.index(str(identity))  # raises, suggesting the closest ids
    if path.suffix in (".npy", ".safetensors"):
        return ResolvedIdentity(_read_embeddings(path, bank.width))
    photos = [path] if path.is_file() else list_photos(path)
    if not photos:
        raise BadInput(f"{str(path)!r} holds no photographs ({', '.join(sorted(PHOTO_SUFFIXES))})")
    if reader is None:
        raise BadInput(
            f"{str(identity)!r} holds photographs, but no face pack is at hand to read them; pass pack=DIR "
            "(`piu-lora bank models` makes one), or a .npy file of embeddings"
        )
    bank.recognizer.require(reader.id, "the bank", "the face pack")
    linked = value_of("faces.linked", linked, lambda: bank_geometry(bank)) if len(photos) > 1 else 0.0
    gathered = gather(reader, photos, linked)
    return ResolvedIdentity(gathered.embeddings, photos=gathered.photos)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False


def _read_embeddings(path: Path, width: int) -> torch.Tensor:
    try:
        require_regular(path)
        if path.suffix == ".npy":
            values = torch.from_numpy(np.load(path, allow_pickle=False))
        else:
            values = _only(list(safetensors.torch.load_file(path).values()), path)
    except (OSError, EOFError, ValueError, TypeError, safetensors.SafetensorError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{str(path)!r} cannot be read as embeddings: {error}") from error
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.shape[1] != width or len(values) == 0:
        raise BadInput(
            f"{str(path)!r} holds an array of shape {tuple(values.shape)}; expected (n, {width}), "
            "one embedding a row"
        )
    return normalize(values)


def _only(tensors: Sequence[torch.Tensor], path: Path) -> torch.Tensor:
    if len(tensors) != 1:
        raise BadInput(f"{str(path)!r} holds {len(tensors)} tensors; expected one of embeddings")
    return tensors[0]
