"""Photographs of one person, checked against each other."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from piu_lora.errors import BadInput
from piu_lora.identity.bank import RecognizerId
from piu_lora.identity.cluster import largest_group
from piu_lora.identity.pictures import UnusablePhoto

__all__ = ["Gathered", "PhotoReader", "Rejected", "gather", "settle"]

_log = logging.getLogger("piu_lora")


class PhotoReader(Protocol):
    """What turns photographs and generated pictures into embeddings."""

    @property
    def id(self) -> RecognizerId:
        """The recognizer behind it."""

    def read(self, path: Path) -> Sequence[Any]:
        """The faces of a photograph that count, each with an ``embedding`` (d,); raises ``UnusablePhoto``."""

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) RGB in [0, 1] -> (n, d) float32 unit rows, zero where no face is found."""


@dataclass(frozen=True)
class Rejected:
    """A photograph that was left out.

    Attributes:
        reason: why, in words.
    """

    photo: Path
    reason: str


@dataclass(frozen=True)
class Gathered:
    """What a set of photographs says of one person: (n, d) unit rows, the photograph of each, and those left
    out.
    """

    embeddings: torch.Tensor
    photos: tuple[Path, ...]
    rejected: tuple[Rejected, ...]


def gather(reader: PhotoReader, photos: Sequence[Path], linked: float) -> Gathered:
    """Embed the photographs of one person and leave out those of somebody else.

    The rule: two faces at cosine ``linked`` or more are linked, and the largest group of linked faces is the
    person.

    Raises:
        BadInput: no photograph is usable, or two groups are equally large.
    """
    faces: list[tuple[Path, torch.Tensor]] = []
    rejected = []
    for photo in photos:
        try:
            faces += [(photo, face.embedding) for face in reader.read(photo)]
        except UnusablePhoto as error:
            rejected.append(Rejected(photo, error.reason))
    if not faces:
        raise BadInput(f"none of {len(photos)} photographs is usable: {_listed(rejected)}")
    result = settle(faces, linked, rejected)
    if result is None:
        raise BadInput(
            f"the photographs show different people and no majority (linked at cosine >= {linked}): "
            f"{', '.join(repr(str(photo)) for photo, _ in faces[:4])}; take the others out, "
            "or pass faces.linked=..."
        )
    if result.rejected:
        _log.warning(
            "%d of %d photographs left out: %s", len(result.rejected), len(photos), _listed(result.rejected)
        )
    return result


def settle(
    faces: Sequence[tuple[Path, torch.Tensor]], linked: float, rejected: Sequence[Rejected] = ()
) -> Gathered | None:
    """Keep the largest group of linked faces; None when two groups are equally large."""
    rows = torch.stack([embedding for _, embedding in faces])
    largest = largest_group(rows, linked)
    if largest is None:
        return None
    others = dict.fromkeys(faces[row][0] for row in range(len(faces)) if row not in largest)
    photos = tuple(faces[row][0] for row in largest)
    # In a photograph of several people, the strangers are no reason to list it.
    outliers = [
        Rejected(photo, f"somebody else (cosine below {linked} to the others)")
        for photo in others
        if photo not in photos
    ]
    return Gathered(rows[largest], photos, (*rejected, *outliers))


def _listed(rejected: Sequence[Rejected]) -> str:
    return "; ".join(f"{str(rejection.photo)!r}: {rejection.reason}" for rejection in rejected)
