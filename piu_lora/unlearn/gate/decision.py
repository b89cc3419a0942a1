"""The decision whether an embedding is the person's: a readout of its cosine, at the identity token alone.

There the embedding is still in the stream as it was put in, whatever the prompt around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from piu_lora.unlearn.gate.band import Band
from piu_lora.unlearn.gate.encoder import Everybody
from piu_lora.unlearn.gate.readout import System

__all__ = ["Decision", "Fit", "Reading", "decided"]

_ROUNDS = 6
_MARGIN = 0.01  # of the band, within which a reading may err either way
_SLACK = 0.05  # this far below its opening, in cosines, a gate counts as shut
_NOBODY = -1.0  # the cosine of no identity at all
_SHUT = 0.5  # how far below, in cosines, it is asked to stay elsewhere


@dataclass(frozen=True)
class Fit:
    """How a readout is fitted.

    Attributes:
        ridge: as a share of the mean diagonal.
        photographs, neighbours: weight of the person's conditions, and of the real people nearest to them,
            against everybody else's 1.
        elsewhere: weight of positions without an identity.
        opening: weight of every row that is read on the wrong side.
    """

    ridge: float = 1e-4
    photographs: float = 1.0
    neighbours: float = 0.5
    elsewhere: float = 0.1
    opening: float = 0.003


@dataclass(frozen=True)
class Reading:
    """What the layer reads at the identity token, (n, hidden), and the cosines (n,) with the known centroid
    that this stands for.
    """

    inputs: torch.Tensor
    cosines: torch.Tensor


@dataclass(frozen=True)
class Decision:
    """``score``: (hidden,) a readout that is 0 at the lower end of the band and its width at the upper end.

    Attributes:
        constant: (hidden,) a readout that is 1 at the identity token.
        figures: the readout's error, who is missed, who is touched, its highest value where it must be shut.
    """

    score: torch.Tensor
    constant: torch.Tensor
    figures: dict[str, float]


def decided(
    centre: torch.Tensor, band: Band, person: Reading, neighbours: Reading, everybody: Everybody, fit: Fit
) -> Decision:
    """Least squares over everybody; then whoever is read on the wrong side of the band is added as a row of
    its own, round by round.

    Args:
        centre: (d,) the known centroid.
        person: photographs that they have or might have.
    """
    system = System(len(person.inputs[0]), 2)
    direction = torch.stack([centre, torch.zeros_like(centre)], dim=1)
    system.add_moments(everybody.moments, direction, torch.tensor([-band.low, 1.0]), 1.0)
    for reading, weight in ((person, fit.photographs), (neighbours, fit.neighbours)):
        system.add_rows(reading.inputs, _asked(reading.cosines - band.low), weight)
    system.add_rows(everybody.elsewhere, torch.tensor([-_SHUT, 0.0]), fit.elsewhere)
    strangers = Reading(everybody.samples, everybody.embeddings @ centre)
    nobody = Reading(everybody.elsewhere, torch.full((len(everybody.elsewhere),), _NOBODY))
    readings = (person, neighbours, strangers, nobody)
    solved = _corrected(system, readings, band, fit)
    score = solved[:, 0]
    return Decision(score, solved[:, 1], _figures(score, band, person, neighbours, everybody))


def _asked(scores: torch.Tensor) -> torch.Tensor:
    return torch.stack([scores, torch.ones_like(scores)], dim=1)


def _corrected(system: System, readings: Sequence[Reading], band: Band, fit: Fit) -> torch.Tensor:
    """Solve, add whoever is read wrong, and solve again, until nobody is."""
    solved = system.solved(fit.ridge)
    for _ in range(_ROUNDS):
        wrong = 0
        for reading in readings:
            scores, heights = reading.inputs.double() @ solved[:, 0], reading.cosines.double() - band.low
            limit = -_SLACK if float(reading.cosines.max()) <= _NOBODY else 0.0
            below = (heights < -_MARGIN) & (scores > limit)
            above = (heights > band.width + _MARGIN) & (scores < band.width)
            targets = torch.where(
                below, heights.clamp(-_SHUT, -_SLACK), heights.clamp_min(band.width + _SLACK)
            )
            pairs, outside = _asked(targets), below | above
            pairs[reading.cosines <= _NOBODY, 1] = 0.0
            count = int(outside.sum())
            wrong += count
            system.add_rows(reading.inputs[outside], pairs[outside], count * fit.opening)
        if not wrong:
            break
        solved = system.solved(fit.ridge)
    return solved


def _figures(
    score: torch.Tensor, band: Band, person: Reading, neighbours: Reading, everybody: Everybody
) -> dict[str, float]:
    scores = [reading.inputs.double() @ score for reading in (person, neighbours)]
    errors = [
        read + band.low - reading.cosines for read, reading in zip(scores, (person, neighbours), strict=True)
    ]
    sure = scores[0][person.cosines >= band.high + 0.02]
    return {
        "error": float(torch.cat(errors).square().mean().sqrt()),
        "missed": float((sure < 0.9 * band.width).double().mean()) if len(sure) else 0.0,
        "near_touched": float((scores[1] > 0.1 * band.width).double().mean()),
        "shut": float((everybody.elsewhere.double() @ score).max()),
    }
