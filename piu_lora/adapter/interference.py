"""How much a stack of adapters disturbs whom, before anything is generated."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.model.factors import Change, Factors, concatenated

__all__ = ["Interference", "relative_changes", "stacks_of"]

Table = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interference:
    """The relative change ``|dW x| / |W x|`` of layer outputs, as root mean square over the layers.

    Attributes:
        stacks: the places of the adapters in each stack.
        condition: (stacks, people) over the keys, the values and the text encoder's layers, whose inputs
            depend on the person alone.
        activations: (stacks, people) over the other layers, on sampled latents; None where there are none.
    """

    stacks: tuple[tuple[int, ...], ...]
    condition: Table
    activations: Table | None

    def harm(self, stack: int, people: Sequence[int]) -> dict[str, Any]:
        """Of one stack on these people: the median and the 95th percentile of the change."""
        values = self.condition[stack, list(people)]
        return {
            "median": float(np.median(values)),
            "p95": float(np.percentile(values, 95)),
            "max": float(values.max()),
        }


def stacks_of(count: int, pairs_up_to: int = 6) -> tuple[tuple[int, ...], ...]:
    """Each adapter alone, each pair of up to six adapters, and all together."""
    alone = [(index,) for index in range(count)]
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)] if 2 < count <= pairs_up_to else []
    return tuple(dict.fromkeys([*alone, *pairs, tuple(range(count))]))


def relative_changes(
    changes: Sequence[Change],
    weights: Sequence[float],
    stacks: Sequence[tuple[int, ...]],
    batches: Iterable[dict[str, torch.Tensor]],
    base: dict[str, torch.Tensor],
) -> Table:
    """Root mean square over layers of ``|dW x| / |W x|`` for each stack and each sample.

    Args:
        batches: inputs (b, tokens, in) by module.
        base: weights (out, in) by module.

    Returns:
        (stacks, samples). Layers that a stack leaves alone count as 0.
    """
    sums = [concatenated([changes[i] for i in stack], [weights[i] for i in stack]) for stack in stacks]
    columns = []
    for inputs in batches:
        squares = torch.zeros(len(stacks), len(next(iter(inputs.values()))), dtype=torch.float64)
        for module, values in inputs.items():
            before = _energy(values @ base[module].float().T)
            for index, change in enumerate(sums):
                if module in change:
                    squares[index] += (_energy(_applied(values, change[module])) / before).cpu()
        columns.append((squares / len(inputs)).sqrt().numpy())
    return np.concatenate(columns, axis=1)


def _applied(values: torch.Tensor, factors: Factors) -> torch.Tensor:
    return values @ factors.down.to(values).T @ factors.up.to(values).T


def _energy(values: torch.Tensor) -> torch.Tensor:
    """Squared norm of each sample, (b,)."""
    return values.double().square().flatten(1).sum(dim=1)
