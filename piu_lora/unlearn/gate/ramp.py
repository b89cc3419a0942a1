"""Neurons of an MLP, rewired: what they read and what they write, as a LoRA on ``fc1`` and ``fc2``."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from piu_lora.model.factors import Factors

__all__ = ["Neurons", "ramp", "rewired"]


@dataclass(frozen=True)
class Neurons:
    """``rows`` (k, hidden): the pre-activations that k neurons shall have; ``columns`` (hidden, k): what each
    adds to the stream.
    """

    rows: torch.Tensor
    columns: torch.Tensor


def ramp(
    score: torch.Tensor, constant: torch.Tensor, change: torch.Tensor, width: float, scale: float
) -> Neurons:
    """``change (f(S s) - f(S (s - w))) / (S w)`` with f the MLP's activation: as the readout s rises from 0
    to w, what is added rises from nothing to the change, and no further.

    Args:
        score: (hidden,) the readout s of the MLP's input.
        constant: (hidden,) a readout that is 1 where s may be above 0.
        change: (hidden,) what is added to the stream.
        width: w.
        scale: S, how steep.
    """
    rows = torch.stack([score * scale, (score - width * constant) * scale])
    written = change.double() / (scale * width)
    return Neurons(rows, torch.stack([written, -written], dim=1))


def rewired(
    neurons: Sequence[Neurons],
    numbers: Sequence[int],
    first: torch.nn.Linear,
    second: torch.nn.Linear,
    one: torch.Tensor,
) -> tuple[Factors, Factors]:
    """The changes of ``fc1`` and of ``fc2``, of rank k each.

    The old rows and columns are subtracted. A LoRA cannot change biases; ``one`` cancels as much of them as
    it can.

    Args:
        numbers: which neurons of the MLP, k in all.
        one: (hidden,) a readout that is 1 everywhere.
    """
    chosen = torch.tensor(numbers)
    first_weight, second_weight = first.weight.detach().cpu().double(), second.weight.detach().cpu().double()
    biases = first.bias.detach().cpu().double()[chosen]
    rows = torch.cat([group.rows for group in neurons]).double()
    rows = rows - biases[:, None] * one.double() - first_weight[chosen]
    columns = torch.cat([group.columns for group in neurons], dim=1).double() - second_weight[:, chosen]
    picked = torch.nn.functional.one_hot(chosen, first.out_features).float()
    return Factors(rows.float(), picked.T.contiguous()), Factors(picked, columns.float())
