"""Linear readouts of a stream by least squares, from second moments: what a neuron's row has to compute."""

from dataclasses import dataclass

import torch

__all__ = ["SiteMoments", "System", "site_sums"]


@dataclass(frozen=True)
class SiteMoments:
    """What a position's input u says of embeddings e, over many people; measured once for everybody to
    forget.

    Attributes:
        gram: (hidden, hidden) float64, ``E[u u^T]``.
        cross: (hidden, d) float64, ``E[u e^T]``.
        mean: (hidden,) float64, ``E[u]``.
    """

    gram: torch.Tensor
    cross: torch.Tensor
    mean: torch.Tensor

    @classmethod
    def of(cls, inputs: torch.Tensor, embeddings: torch.Tensor) -> "SiteMoments":
        """From inputs (n, hidden) and the embeddings (n, d) that they come from."""
        count = len(inputs)
        return cls(*(total / count for total in site_sums(inputs, embeddings)))


def site_sums(
    inputs: torch.Tensor, embeddings: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over rows of ``u u^T``, ``u e^T`` and u, float64."""
    u, e = inputs.double(), embeddings.double()
    return u.T @ u, u.T @ e, u.sum(dim=0)


class System:
    """``argmin_W sum_i a_i |W^T x_i - y_i|^2 + ridge m |W|^2`` for several readouts at once, filled term by
    term; m is the mean diagonal.

    Args:
        width: of an input.
        readouts: how many.
    """

    def __init__(self, width: int, readouts: int) -> None:
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.right = torch.zeros(width, readouts, dtype=torch.float64)

    def add_rows(self, inputs: torch.Tensor, changes: torch.Tensor, weight: float) -> None:
        """Inputs (n, width) whose readouts shall be ``wanted``, (n, readouts) or (readouts,).

        Args:
            weight: of all of them together.
        """
        if len(inputs):
            x = inputs.double()
            self.gram.addmm_(x.T, x, alpha=weight / len(x))
            self.right.addmm_(x.T, changes.double().expand(len(x), -1), alpha=weight / len(x))

    def add_moments(
        self, moments: SiteMoments, direction: torch.Tensor, offset: torch.Tensor, weight: float
    ) -> None:
        """Everybody behind ``moments``: readout j shall be ``<direction_j, e> + offset_j``; (d, readouts) and
        (readouts,).
        """
        self.gram.add_(moments.gram, alpha=weight)
        target = moments.cross @ direction.double() + moments.mean[:, None] * offset.double()
        self.right.add_(target, alpha=weight)

    def solved(self, ridge: float) -> torch.Tensor:
        """(width, readouts) float64."""
        system = self.gram.clone()
        system.diagonal().add_(ridge * system.diagonal().mean())
        solution: torch.Tensor = torch.linalg.solve(system, self.right)
        return solution
