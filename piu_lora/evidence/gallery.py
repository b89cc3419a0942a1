"""One recognizer's view of an evaluation: how it embeds pictures, whom it knows, and from which cosine it
takes a face for somebody.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from piu_lora.errors import BadInput
from piu_lora.identity import Threshold

__all__ = ["FARS", "Gallery", "require_disjoint"]

FARS = (1e-2, 1e-3, 1e-4)  # false-accept rates at which images are verified
# Two embeddings this close were made from one photograph: half precision alone moves a cosine by up to 1e-4.
_SAME = 1 - 1e-4


@dataclass(frozen=True)
class Gallery:
    """One recognizer's view. Row k means the same identity in every gallery of an evaluation.

    Attributes:
        name: what tables call it.
        embed: (n, 3, h, w) RGB in [0, 1] -> (n, d) unit rows, zeros where there is no face.
        centroids: (m, d) of everybody: ISM and nearest-centroid accuracy are measured against them.
        references: (d,) by row, of the forgotten people: what they are verified against, made from nothing
            that was trained on. Everybody else is verified against their centroid.
        thresholds: by false-accept rate; the reason where a rate cannot be calibrated.
        refused: why the forgotten people cannot be verified at all; empty where they can.
        nobody: rows of synthetic anchors, who are no real people.
        photographs: (k, d) embeddings of real photographs of many people, for distances between
            distributions.
        role: what the recognizer does besides judging.
    """

    name: str
    embed: Callable[[torch.Tensor], torch.Tensor]
    centroids: torch.Tensor
    references: Mapping[int, torch.Tensor] = field(default_factory=dict)
    thresholds: Mapping[float, Threshold | str] = field(default_factory=dict)
    refused: str = ""
    nobody: frozenset[int] = frozenset()
    photographs: torch.Tensor | None = None
    role: str = "conditions the base"

    def reference(self, row: int) -> torch.Tensor:
        """(d,) what a person is verified against."""
        return self.references.get(row, self.centroids[row])

    def threshold(self, far: float) -> float:
        """The calibrated cosine.

        Raises:
            BadInput: the bank is too small for this rate, or the rate was not calibrated.
        """
        threshold = self.thresholds.get(
            far, f"the {self.name} recognizer was not calibrated at a false-accept rate of {far:g}"
        )
        if isinstance(threshold, str):
            raise BadInput(threshold)
        return threshold.value

    def verifies(self, embedded: torch.Tensor, row: int, far: float) -> torch.Tensor:
        """Whether each of (n, d) embeddings passes as the person of a row: (n,) bool. No face is nobody."""
        return (embedded @ self.reference(row) >= self.threshold(far)) & embedded.any(dim=1)


def require_disjoint(references: torch.Tensor, trained: torch.Tensor, recognizer: str) -> None:
    """Refuse references that an adapter was trained on: they would measure memory, not the person.

    Args:
        references: (n, d) unit rows.
        trained: (m, d) unit rows of the same recognizer.

    Raises:
        BadInput: a reference is the embedding of a photograph that was trained on.
    """
    closest = (references @ trained.T).amax(dim=1)
    index = int(closest.argmax())
    if float(closest[index]) >= _SAME:
        raise BadInput(
            f"reference {index + 1} of {len(references)} was trained on ({recognizer} recognizer: "
            f"cosine {float(closest[index]):.5f} with a training embedding), so it proves nothing; "
            "pass photographs that `forget` did not see"
        )
