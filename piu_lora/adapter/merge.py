"""Several adapters into one. A registry of methods; each takes plain factors and gives plain factors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from piu_lora.adapter.records import CompressionRecord, LayerRecord
from piu_lora.errors import BadInput
from piu_lora.model.factors import Change, Factors, compressed, concatenated, distance
from piu_lora.plugins import registered_as

__all__ = [
    "MERGES",
    "LayerError",
    "MergeMethod",
    "SecondMoments",
    "compress_change",
    "compression_facts",
    "find_merge",
]

Combine = Callable[[Sequence[Change], Sequence[float], "SecondMoments | None"], dict[str, Factors]]


@dataclass(frozen=True)
class SecondMoments:
    """What the layers see, ``E[x x^T]`` by module, (in, in) float64.

    Attributes:
        members: for each member, under its own identity's conditions with the member active.
        retained: under everybody else's conditions, neighbours of the members' identities among them, on the
            bare base.
        retain_weight: how much a change for retained people counts against one for the members' own.
        ridge: added to the diagonal, as a share of its mean.
    """

    members: Sequence[Mapping[str, torch.Tensor]]
    retained: Mapping[str, torch.Tensor]
    retain_weight: float = 3.0
    ridge: float = 1e-4


@dataclass(frozen=True)
class MergeMethod:
    """A way to merge.

    Attributes:
        needs_second_moments: whether it must know what the layers see, and therefore whom the members forget.
    """

    name: str
    label: str
    combine: Combine
    needs_second_moments: bool


@dataclass(frozen=True)
class LayerError:
    """What compression and storage lost in one layer: spectral norms of the error and of the exact change."""

    rank: int
    absolute: float
    relative: float


MERGES: dict[str, MergeMethod] = {}


def _merge(name: str, label: str, *, needs_second_moments: bool) -> Callable[[Combine], Combine]:
    def register(combine: Combine) -> Combine:
        MERGES[name] = MergeMethod(name, label, combine, needs_second_moments)
        return combine

    return register


def find_merge(name: str) -> MergeMethod:
    """The method of that name.

    Raises:
        BadInput: there is none; the message lists the known ones.
    """
    return registered_as(name, MERGES, "merge method")


@_merge("sum", "the exact weighted sum of the members", needs_second_moments=False)
def _sum(
    changes: Sequence[Change], weights: Sequence[float], moments: SecondMoments | None
) -> dict[str, Factors]:
    return concatenated(changes, weights)


@_merge(
    "refit",
    "each member on its own identity's conditions, nothing on anybody else's",
    needs_second_moments=True,
)
def _refit(
    changes: Sequence[Change], weights: Sequence[float], moments: SecondMoments | None
) -> dict[str, Factors]:
    """Solve a ridge regression in every layer.

    ``min_D  sum_m E_m |D x - w_m dW_m x|^2 + lambda E_r |D x|^2 + ridge |D|^2``,

    where ``E_m`` runs over the inputs that member m's identity causes and ``E_r`` over everybody else's. Its
    solution ``D = sum_m w_m dW_m C_m (sum_m C_m + lambda C_r + ridge I)^-1`` keeps the members' ``up``
    factors and their rank: only the ``down`` factors are made to answer to their own person alone.
    """
    if moments is None:
        raise BadInput("the refit merge needs the members' identities; pass them, or use the sum")
    refitted: list[dict[str, Factors]] = [{} for _ in changes]
    for module in sorted({module for change in changes for module in change}):
        moments_of_members = [moments_by_module[module] for moments_by_module in moments.members]
        total = sum(moments_of_members) + moments.retain_weight * moments.retained[module]
        total = total + moments.ridge * total.diagonal().mean() * torch.eye(len(total), dtype=total.dtype)
        for change, moment, target in zip(changes, moments_of_members, refitted, strict=True):
            if module in change:
                down = torch.linalg.solve(total, moment @ change[module].down.double().T).T
                target[module] = Factors(down.float(), change[module].up.float())
    return concatenated(refitted, weights)


def compress_change(
    change: Change, *, rank: int | None, tolerance: float, dtype: torch.dtype
) -> tuple[dict[str, Factors], dict[str, LayerError]]:
    """Recompress every layer and cast it.

    Args:
        rank: at most this; None for as many as the tolerance asks for.
        tolerance: what may be lost of a layer, as a share of its spectral norm.
        dtype: of the factors as they will be stored.

    Returns:
        The layers, and for each of them the error of what will be stored.
    """
    stored: dict[str, Factors] = {}
    errors: dict[str, LayerError] = {}
    for module, factors in change.items():
        stored[module] = compressed(factors, rank, tolerance).to(dtype)
        absolute, scale = distance(factors, stored[module])
        errors[module] = LayerError(stored[module].rank, absolute, absolute / scale if scale else 0.0)
    return stored, errors


def compression_facts(errors: Mapping[str, LayerError]) -> CompressionRecord:
    """For the receipt: the worst layer, and every layer's rank and relative error."""
    layers: dict[str, LayerRecord] = {
        module: {"rank": error.rank, "relative": float(f"{error.relative:.3g}")}
        for module, error in errors.items()
    }
    return {"worst_relative": max(layer["relative"] for layer in layers.values()), "layers": layers}
