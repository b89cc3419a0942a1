"""What is kept of generated pictures: embeddings and quality, not the pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from piu_lora.evidence.gallery import Gallery
from piu_lora.evidence.metrics import Array
from piu_lora.evidence.quality import sharpness

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """Measurements of n pictures.

    Attributes:
        embedded: (n, d) unit rows by recognizer, zeros where it found no face.
        sharpness: (n,), see ``evidence.quality.sharpness``.
        face_quality: (n,) of a no-reference model; None where none is at hand.
    """

    embedded: Mapping[str, torch.Tensor]
    sharpness: Array
    face_quality: Array | None = None

    def __len__(self) -> int:
        return len(self.sharpness)

    def __getitem__(self, places: Sequence[int]) -> "Measured":
        rows = list(places)
        quality = None if self.face_quality is None else self.face_quality[rows]
        return Measured(
            {name: embeddings[rows] for name, embeddings in self.embedded.items()},
            self.sharpness[rows],
            quality,
        )

    @staticmethod
    def joined(parts: Sequence["Measured"]) -> "Measured":
        """All parts, one after the other."""
        qualities = [part.face_quality for part in parts if part.face_quality is not None]
        return Measured(
            {name: torch.cat([part.embedded[name] for part in parts]) for name in parts[0].embedded},
            np.concatenate([part.sharpness for part in parts]),
            np.concatenate(qualities) if qualities else None,
        )


def measure(
    pictures: torch.Tensor,
    galleries: Sequence[Gallery],
    face_quality: Callable[[torch.Tensor], Array] | None = None,
) -> Measured:
    """Measure (n, 3, h, w) RGB pictures in [0, 1]."""
    quality = None if face_quality is None else face_quality(pictures)
    return Measured(
        {gallery.name: gallery.embed(pictures) for gallery in galleries}, sharpness(pictures), quality
    )
