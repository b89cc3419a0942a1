"""A pair of neurons as a ramp: nothing below one value of a readout, the whole change above another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from piu_lora.model.factors import Factors

__all__ = ["Ramp", "rewired"]


@dataclass(frozen=True)
class Ramp:
    """``change (f(S s) - f(S (s - w a))) / (S w)`` with f the MLP's activation: as the readout s rises from
    0 to ``w a``, what is added rises from nothing to ``a`` times the change, and no further.

    Attributes:
        score: (hidden,) the readout s of the MLP's input.
        amount: (hidden,) the readout a: which multiple of the change the position wants, 0 where it wants
            none.
        change: (hidden,) what is added to the stream where a = 1.
        width: w, of the ramp, in units of the readout.
    """

    score: torch.Tensor
    amount: torch.Tensor
    change: torch.Tensor
    width: float


def rewired(
    ramps: Sequence[Ramp],
    neurons: Sequence[int],
    first: torch.nn.Linear,
    second: torch.nn.Linear,
    scale: float,
    one: torch.Tensor,
) -> tuple[Factors, Factors]:
    """Put each ramp on two neurons of an MLP: the changes of ``fc1`` and of ``fc2``, rank two for each ramp.

    The old rows and columns are subtracted. A LoRA cannot change biases; ``one`` cancels as much of them as
    it can.

    Args:
        neurons: two for each ramp.
        scale: S, how steep.
        one: (hidden,) a readout that is 1 everywhere.
    """
    new_rows, new_columns = [], []
    for ramp in ramps:
        new_rows += [ramp.score * scale, (ramp.score - ramp.width * ramp.amount) * scale]
        new_columns += [ramp.change / (scale * ramp.width), -ramp.change / (scale * ramp.width)]
    chosen = torch.tensor(neurons)
    first_weight, second_weight = first.weight.detach().cpu().double(), second.weight.detach().cpu().double()
    biases = first.bias.detach().cpu().double()[chosen]
    rows = torch.stack(new_rows).double() - biases[:, None] * one.double() - first_weight[chosen]
    columns = torch.stack(new_columns, dim=1).double() - second_weight[:, chosen]
    picked = torch.nn.functional.one_hot(chosen, first.out_features).float()
    return Factors(rows.float(), picked.T.contiguous()), Factors(picked, columns.float())
