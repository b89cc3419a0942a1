"""Photographs of one person, checked against each other."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from piu_lora.errors import BadInput
from piu_lora.identity.bank import RecognizerId
from piu_lora.identity.cluster import largest_group
from piu_lora.identity.photo_files import Rejected, listed
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
class Gathered:
    """What a set of photographs says of one person: (n, d) unit rows, the photograph of each, those left out,
    and how many had to be turned to be upright.
    """

    embeddings: torch.Tensor
    photos: tuple[Path, ...]
    rejected: tuple[Rejected, ...]
    turned: int = 0


def gather(reader: PhotoReader, photos: Sequence[Path], linked: float) -> Gathered:
    """Embed the photographs of one person and leave out those of somebody else.

    The rule: two faces at cosine ``linked`` or more are linked, and the largest group of linked faces is the
    person.

    Raises:
        BadInput: no photograph is usable, or two groups are equally large.
    """
    faces: list[tuple[Path, torch.Tensor]] = []
    rejected, turned = [], set()
    for photo in photos:
        try:
            read = reader.read(photo)
            faces += [(photo, face.embedding) for face in read]
            if any(getattr(face, "turned", 0) for face in read):
                turned.add(photo)
        except UnusablePhoto as error:
            rejected.append(Rejected(photo, error.reason))
    if not faces:
        raise BadInput(f"none of {len(photos)} photographs is usable: {listed(rejected)}")
    result = settle(faces, linked, rejected)
    if result is None:
        raise BadInput(
            f"the photographs show different people and no majority (linked at cosine >= {linked}): "
            f"{', '.join(repr(str(photo)) for photo, _ in faces[:4])}; take the others out, "
            "or pass faces.linked=..."
        )
    if result.rejected:
        _log.warning(
            "%d of %d photographs left out: %s", len(result.rejected), len(photos), listed(result.rejected)
        )
    return replace(result, turned=len(turned.intersection(result.photos)))


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
