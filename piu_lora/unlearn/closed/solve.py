"""The small linear problem inside every closed form: a ridge regression, solved in float64 and cut to a low
rank.
"""

import math
from dataclasses import dataclass

import torch

from piu_lora.errors import BadInput
from piu_lora.model.factors import Factors

__all__ = ["Edit", "SecondMoments", "solve_edit"]

# A Cholesky factor whose diagonal spans more than this leaves fewer than four digits of the solution.
_WORST_CONDITION = 1e12


@dataclass
class SecondMoments:
    """``E[d x^T]`` and ``E[x x^T]`` of wanted output changes d and inputs x, float64, streamed."""

    cross: torch.Tensor  # (out, in)
    inputs: torch.Tensor  # (in, in)
    count: int = 0

    @classmethod
    def empty(cls, out: int, width: int) -> "SecondMoments":
        """Nothing seen yet."""
        return cls(
            torch.zeros(out, width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        )

    def add(self, inputs: torch.Tensor, changes: torch.Tensor) -> None:
        """Take in rows of inputs (n, in) and of wanted changes (n, out)."""
        x, d = inputs.cpu().double(), changes.cpu().double()
        total = self.count + len(x)
        self.cross.addmm_(d.T, x, beta=self.count / total, alpha=1 / total)
        self.inputs.addmm_(x.T, x, beta=self.count / total, alpha=1 / total)
        self.count = total


@dataclass(frozen=True)
class Edit:
    """A solved layer.

    Attributes:
        energy_kept: share of the change's energy, over the inputs it was solved for, that its rank keeps.
        condition: a lower bound of the condition number of the system, from the diagonal of its Cholesky
            factor.
    """

    factors: Factors
    energy_kept: float
    condition: float


def solve_edit(
    moments: SecondMoments,
    retained: torch.Tensor,
    *,
    retain_weight: float,
    ridge: float,
    tolerance: float,
    rank: int | None = None,
) -> Edit:
    """``argmin_D E|D x - d|^2 + w E_r|D x|^2 + ridge |D|^2``, whose solution is ``D = E[d x^T] G^-1``, at the
    lowest rank that will do.

    ``G = E[x x^T] + w E_r[x x^T] + ridge I`` is positive definite; with ``G = L L^T``, the best D of a given
    rank *for the inputs at hand* (least ``|(D - D_r) L|``) keeps the leading left singular vectors U of ``D L
    = E[d x^T] L^-T``: ``D_r = U U^T D``.

    Args:
        moments: of the people to forget.
        retained: (in, in) second moment of everybody else's inputs.
        retain_weight: w.
        ridge: as a share of G's mean diagonal.
        tolerance: share of the energy that the cut may lose.
        rank: the highest allowed.

    Raises:
        BadInput: NaN or infinity, or a system too ill-conditioned to trust.
    """
    system = moments.inputs.add(retained.double(), alpha=retain_weight)
    system.diagonal().add_(ridge * system.diagonal().mean())
    if not (torch.isfinite(system).all() and torch.isfinite(moments.cross).all()):
        raise BadInput(
            "the statistics of the closed form hold NaN or infinity; load the base in float32, and try "
            "`bank check`"
        )
    lower, failed = torch.linalg.cholesky_ex(system)
    diagonal = lower.diagonal()
    condition = math.inf if failed else float((diagonal.max() / diagonal.min()) ** 2)
    if condition > _WORST_CONDITION:
        raise BadInput(
            f"the system of the closed form is ill-conditioned (at least {condition:.1g}); "
            f"raise closed.ridge={ridge:g} or closed.retain_weight={retain_weight:g}, or give a larger bank"
        )
    whitened = torch.linalg.solve_triangular(lower, moments.cross.T, upper=False)  # (D L)^T
    dense = torch.linalg.solve_triangular(lower.T, whitened, upper=True).T
    values, vectors = torch.linalg.eigh(whitened.T @ whitened)
    values, vectors = values.clamp_min(0).flip(0), vectors.flip(1)
    energy = values.cumsum(0) / values.sum().clamp_min(1e-300)
    keep = min(int((energy < 1 - tolerance).sum()) + 1, rank or len(energy), len(energy))
    left = vectors[:, :keep]
    down = left.T @ dense
    # Both factors the same size, so that half precision serves both.
    root = down.norm(dim=1).clamp_min(1e-300).sqrt()
    return Edit(
        Factors((down / root[:, None]).float(), (left * root).float()), float(energy[keep - 1]), condition
    )
