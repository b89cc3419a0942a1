"""What attacks are compared with: a random change of equal norm, somebody who was not forgotten, somebody who
never was.
"""

from collections.abc import Sequence

import torch

from piu_lora.attacks.dense import DenseChange, rest_of
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.model.factors import Change, Factors

__all__ = ["choose_control", "made_up_identity", "random_change"]


def random_change(change: Change, generator: torch.Generator) -> dict[str, Factors]:
    """A random low-rank change of the same layers: in each the same rank and the same Frobenius norm. Of a
    dense change, the other tensors are drawn at random in their norms, too.

    The factors are Gaussian, ``dW = s G_up G_down`` with ``s = |dW| / |G_up G_down|``.
    """
    control = {}
    for module, factors in sorted(change.items()):
        (out, into), rank = factors.shape, factors.rank
        drawn = Factors(
            torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator)
        )
        scale = factors.norm() / max(drawn.norm(), 1e-30)
        control[module] = Factors(drawn.down, drawn.up * scale)
    rest = {}
    for name, value in sorted(rest_of(change).items()):
        noise = torch.randn(value.shape, generator=generator)
        rest[name] = noise * (value.norm() / noise.norm().clamp_min(1e-30))
    return DenseChange(control, rest) if rest else control


def choose_control(
    bank: IdentityBank,
    candidates: Sequence[int],
    away_from: torch.Tensor,
    generator: torch.Generator,
    highest: float = 0.1,
) -> int:
    """The row of a retained person who resembles neither the forgotten people nor their anchors.

    A random one of those whose largest absolute cosine is below ``highest``; where there is none, the one
    with the smallest.

    Args:
        candidates: rows of retained people that were not trained on.
        away_from: (k, d) unit rows.

    Raises:
        BadInput: nobody is left.
    """
    if not candidates:
        raise BadInput("nobody of the bank is left as a control; use a larger bank")
    rows = list(candidates)
    closest = (bank.centroids[rows] @ away_from.T).abs().amax(dim=1)
    fitting = (closest < highest).nonzero()[:, 0].tolist()
    if not fitting:
        fitting = [int(closest.argmin())]
    chosen: int = rows[fitting[int(torch.randint(len(fitting), (1,), generator=generator))]]
    return chosen


def made_up_identity(
    bank: IdentityBank, away_from: torch.Tensor, generator: torch.Generator, draws: int = 256
) -> torch.Tensor:
    """(d,) unit vector of nobody: the draw that is least like ``away_from`` (k, d), from a Gaussian with the
    bank's mean and covariance.

    A random combination ``m + sum_i w_i (x_i - m) / sqrt(n - 1)`` of the bank's centroids, w standard normal,
    has their covariance.
    """
    centroids = bank.centroids.float()
    mean = centroids.mean(dim=0)
    weights = torch.randn(draws, len(centroids), generator=generator) / max(len(centroids) - 1, 1) ** 0.5
    drawn = torch.nn.functional.normalize(mean + weights @ (centroids - mean), dim=1)
    return drawn[int((drawn @ away_from.T).abs().amax(dim=1).argmin())]
