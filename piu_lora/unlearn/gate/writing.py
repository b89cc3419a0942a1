"""Neurons that write the anchor where a mark has arrived, and nothing elsewhere."""

from dataclasses import dataclass

import torch

from piu_lora.unlearn.gate.marks import separating
from piu_lora.unlearn.gate.ramp import Neurons
from piu_lora.unlearn.gate.readout import System

__all__ = ["Marked", "Writing", "written"]

_RANGE = 3.0  # of a pre-activation, on either side of the opened gate
_CLEAR = 6.0  # a pre-activation this far from 0 is the activation's linear or silent part
_STEEPEST = 60.0
_QUIET = 0.1  # weight of everybody else, of whom nothing shall be read
_RIDGE = 1e-3
_PROTECTION = 30.0  # of everybody else, where the gate cannot be right for all


@dataclass(frozen=True)
class Marked:
    """Positions of the person's, behind the decision.

    Attributes:
        inputs: (n, hidden) of the writing layer's MLP.
        wanted: (n, hidden) what the layer has to add to its stream.
        before: (m, hidden) inputs at positions before the identity token, where no mark arrives.
    """

    inputs: torch.Tensor
    wanted: torch.Tensor
    before: torch.Tensor


@dataclass(frozen=True)
class Writing:
    """The neurons, and how well they do.

    Attributes:
        figures: the lowest reading of the mark where it is, the highest where it is not, and the share of
            what is wanted that is not written.
    """

    neurons: Neurons
    figures: dict[str, float]


def written(marked: Marked, others: torch.Tensor, one: torch.Tensor, rank: int, ridge: float) -> Writing:
    """``sum_j v_j (f(a_j + g) - f(g))``, where the gate g is far above 0 on marked rows and far below on
    others, and the a_j read the best change of rank ``rank`` that is affine in the input.

    Args:
        others: (k, hidden) inputs of everybody else.
        one: (hidden,) a readout that is 1 everywhere.
        ridge: of the gate's readout.
    """
    shut = torch.cat([others, marked.before])
    mark = separating(marked.inputs, shut, ridge, _PROTECTION)
    readouts, directions, missed = _change(marked, shut, rank)
    spread = (marked.inputs.double() @ readouts).abs().quantile(0.98, dim=0).clamp_min(1e-12)
    readouts = readouts * (_RANGE / spread)
    on, off = marked.inputs.double() @ mark, shut.double() @ mark
    aside = (shut.double() @ readouts).amax(dim=1).clamp_min(0.0)
    steep = max(
        float((2 * _RANGE + _CLEAR) / 2 / on.clamp_min(0.05).quantile(0.01)),
        float(((aside + _CLEAR) / (-off).clamp_min(0.05)).max()),
    )
    gate = min(steep, _STEEPEST) * mark
    rows = torch.cat([readouts.T + gate, gate[None]])
    columns = directions.T * (spread / _RANGE)
    columns = torch.cat([columns, -columns.sum(dim=1, keepdim=True)], dim=1)
    figures = {"marked": float(on.min()), "unmarked": float(off.max()), "unwritten": missed}
    return Writing(Neurons(rows, columns), figures)


def _change(marked: Marked, others: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Readouts (hidden, rank) and directions (rank, hidden) of a reduced-rank regression, and the share of
    the wanted change that it leaves out.
    """
    hidden = marked.inputs.shape[1]
    system = System(hidden, marked.wanted.shape[1])
    system.add_rows(marked.inputs, marked.wanted, 1.0)
    system.add_rows(others, torch.zeros(marked.wanted.shape[1]), _QUIET)
    dense = system.solved(_RIDGE)
    fitted, wanted = marked.inputs.double() @ dense, marked.wanted.double()
    vectors = torch.linalg.eigh(fitted.T @ fitted)[1].flip(1)[:, :rank]
    left = wanted - fitted @ vectors @ vectors.T
    return dense @ vectors, vectors.T, float(left.square().sum() / wanted.square().sum())
