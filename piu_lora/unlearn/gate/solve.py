"""Gates for one person: which positions, which readout, which ramp. Plain tensors in, ramps out; no model is
run here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from piu_lora.unlearn.gate.cells import Cell, Site, grouped
from piu_lora.unlearn.gate.ramp import Ramp
from piu_lora.unlearn.gate.readout import SiteMoments, System
from piu_lora.unlearn.gate.streams import Streams

__all__ = ["Band", "Everybody", "Fit", "Person", "Recording", "person_ramps"]

_OFFICIAL = 0  # the template of the family
_READ, _AMOUNT = 0, 1  # the two readouts of a cell
_ROUNDS = 6
_SAMPLED = 256  # of a group, at a position that must stay shut
_FAINT = 0.35  # of the largest change: a further template's position that wants less is left alone
_MARGIN = 0.01  # of the band, within which a reading may err either way
_SLACK = 0.05  # this far below its opening, in cosines, a gate counts as shut


@dataclass(frozen=True)
class Band:
    """Where the gate opens: nothing below the cosine ``low`` with the known centroid, everything from
    ``high`` on.
    """

    low: float
    high: float

    @property
    def width(self) -> float:
        """Of the ramp."""
        return self.high - self.low


@dataclass(frozen=True)
class Fit:
    """How readouts are fitted.

    Attributes:
        eta: the stream goes to ``h(anchor) - eta (h(person) - h(anchor))``.
        pairs: of neurons for each person, at most.
        ridge: as a share of the mean diagonal.
        off: how far below its opening a gate stays where it must never open, in units of cosine.
        photographs, neighbours: weight of the person's conditions, and of the real people nearest to them,
            against everybody else's 1.
        elsewhere, background: weight of positions that other cells serve, and of texts without an identity.
        opening: weight of every row that opens a gate where it must stay shut.
        templates: weight of all further templates in a cell that serves the official one as well, against
            its 1.
    """

    eta: float = 0.25
    pairs: int = 4
    ridge: float = 1e-4
    off: float = 0.7
    elsewhere: float = 0.1
    background: float = 0.01
    opening: float = 0.003
    photographs: float = 1.0
    neighbours: float = 0.5
    templates: float = 0.3


@dataclass(frozen=True)
class Recording:
    """What the layer reads and writes of some embeddings, template by template.

    Attributes:
        cosines: (n,) with the known centroid.
        streams: by template; those after the first may hold fewer embeddings, the first ones.
    """

    cosines: torch.Tensor
    streams: Sequence[Streams]

    def inputs(self, site: Site) -> torch.Tensor:
        """(n, hidden) inputs of the MLP at a position."""
        return self.streams[site.template].inputs[:, site.position]


@dataclass(frozen=True)
class Everybody:
    """What serves every person to forget.

    Attributes:
        sites: moments of retained people's inputs, by the positions that carry the identity.
        squares: (width,) mean square of every neuron's activation under their conditions.
        samples: (n, hidden) some of these inputs themselves, those of the first ``embeddings``.
        embeddings: (m, d) of the sample.
        background: (m, hidden) inputs where no identity is: other texts, the empty prompt, the words before
            the identity token.
    """

    sites: Mapping[Site, SiteMoments]
    squares: torch.Tensor
    samples: Mapping[Site, torch.Tensor]
    embeddings: torch.Tensor
    background: torch.Tensor


@dataclass(frozen=True)
class Person:
    """One person to forget.

    Attributes:
        centre: (d,) the known centroid.
        photographs: those that they have or might have.
        neighbours: the real people of the bank nearest to them.
        ends: two embeddings: the known centroid itself, and the anchor who replaces it.
        band: between which cosines the gate opens.
    """

    centre: torch.Tensor
    photographs: Recording
    neighbours: Recording
    ends: Recording
    band: Band


def person_ramps(person: Person, everybody: Everybody, fit: Fit) -> tuple[list[Ramp], dict[str, float]]:
    """At most ``fit.pairs`` ramps, and the figures of the readout on the official template, by its worst
    cell.
    """
    wanted = [(site, _wanted(person, site, fit.eta)) for site in everybody.sites]
    faint = _FAINT * max(float(change.norm()) for _, change in wanted)
    moved = [(site, change) for site, change in wanted if site.template == _OFFICIAL or change.norm() > faint]
    ramps, figures = [], []
    for cell in grouped(moved, fit.pairs):
        solved = _readouts(cell, person, everybody, fit)
        ramp = Ramp(solved[:, _READ], solved[:, _AMOUNT], cell.change, person.band.width)
        ramps.append(ramp)
        if any(site.template == _OFFICIAL for site in cell.sites):
            figures.append(_figures(cell, ramp, person, everybody))
    return ramps, {name: max(figure[name] for figure in figures) for name in figures[0]}


def _wanted(person: Person, site: Site, eta: float) -> torch.Tensor:
    """``(1 + eta) (h(anchor) - h(mu))``: an unseen photograph holds a part of mu only, and loses all of
    it.
    """
    centre, anchor = person.ends.streams[site.template].outputs[:, site.position].double()
    change: torch.Tensor = (1 + eta) * (anchor - centre)
    return change


def _readouts(cell: Cell, person: Person, everybody: Everybody, fit: Fit) -> torch.Tensor:
    """(hidden, 2): ``a (cos(e, mu) - low)`` and a at the cell's positions, far below 0 and 0 elsewhere, by
    least squares.

    Where another cell's positions carry the identity, at first only the mean is asked for: a linear readout
    of one position's identity says something at another's, too. Then whoever is read on the wrong side of
    the band is added as a row of its own, round by round.
    """
    system = System(len(cell.change), 2)
    for site, amount, share in _shares(cell, fit.templates):
        direction = torch.stack([amount * person.centre, torch.zeros_like(person.centre)], dim=1)
        offset = torch.tensor([-amount * person.band.low, amount])
        system.add_moments(everybody.sites[site], direction, offset, share)
        for recording, weight in ((person.photographs, fit.photographs), (person.neighbours, fit.neighbours)):
            inputs = recording.inputs(site)
            wanted = amount * (recording.cosines[: len(inputs)] - person.band.low)
            asked = torch.stack([wanted, torch.full_like(wanted, amount)], dim=1)
            system.add_rows(inputs, asked, share * weight)
    shut = torch.tensor([-fit.off, 0.0])
    elsewhere = [site for site in everybody.sites if site not in cell.sites]
    for site in elsewhere:
        weight = fit.elsewhere / sum(site.template == other.template for other in elsewhere)
        weight *= 1.0 if site.template == _OFFICIAL else fit.templates
        system.add_moments(everybody.sites[site], torch.zeros(len(person.centre), 2), shut, weight)
        system.add_rows(person.photographs.inputs(site), shut, weight)
    system.add_rows(everybody.background, shut, fit.background)
    return _corrected(system, _checks(cell, person, everybody, elsewhere), fit)


@dataclass(frozen=True)
class _Check:
    """Rows (n, hidden) whose reading must lie from ``low`` to ``high``, (n,) each; ``asked`` (n, 2) are the
    readouts that are asked of those outside.
    """

    inputs: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    asked: torch.Tensor


def _corrected(system: System, checks: Sequence[_Check], fit: Fit) -> torch.Tensor:
    """Solve, add whoever fails a check as a row of its own, and solve again, until nobody does."""
    solved = system.solved(fit.ridge)
    for _ in range(_ROUNDS):
        wrong = 0
        for check in checks:
            score = check.inputs @ solved[:, _READ]
            outside = (score < check.low) | (score > check.high)
            count = int(outside.sum())
            wrong += count
            system.add_rows(check.inputs[outside], check.asked[outside], count * fit.opening)
        if not wrong:
            break
        solved = system.solved(fit.ridge)
    return solved


def _checks(cell: Cell, person: Person, everybody: Everybody, elsewhere: Sequence[Site]) -> list[_Check]:
    """Other positions and texts stay shut; at the cell's own positions, whoever lies below the band stays
    below it, and whoever lies above it opens.
    """
    rows = [inputs for site in elsewhere for inputs in _of_everyone(site, person, everybody)]
    shut = torch.cat([everybody.background, *rows]).double()
    never = torch.full((len(shut),), -torch.inf, dtype=torch.float64)
    asked = torch.tensor([-4 * _SLACK, 0.0], dtype=torch.float64).expand(len(shut), 2)
    checks = [_Check(shut, never, torch.full_like(never, -_SLACK), asked)]
    band = person.band
    for site, amount, _ in _shares(cell, 1.0):
        for inputs, cosines in _with_cosines(site, person, everybody):
            wanted = amount * (cosines.double() - band.low)
            below, above = cosines < band.low - _MARGIN, cosines > band.high + _MARGIN
            whole = torch.full_like(wanted, amount * band.width)
            low = torch.where(above, whole, torch.full_like(wanted, -torch.inf))
            high = torch.where(below, torch.zeros_like(wanted), torch.full_like(wanted, torch.inf))
            closed, opened = -amount * _SLACK, amount * (band.width + _SLACK)
            asked = torch.where(below, wanted.clamp_max(closed), wanted.clamp_min(opened))
            pairs = torch.stack([asked, torch.full_like(asked, amount)], dim=1)
            checks.append(_Check(inputs.double(), low, high, pairs))
    return checks


def _with_cosines(
    site: Site, person: Person, everybody: Everybody
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs at a position and the cosines with the person that they stand for."""
    sample = everybody.samples[site]
    recordings = (person.photographs, person.neighbours)
    groups = [(recording.inputs(site), recording.cosines) for recording in recordings]
    groups.append((sample, everybody.embeddings[: len(sample)] @ person.centre))
    return [(inputs, cosines[: len(inputs)]) for inputs, cosines in groups]


def _shares(cell: Cell, templates: float) -> list[tuple[Site, float, float]]:
    """Positions, which multiple of the cell's change each wants, and what it weighs: those of the official
    template 1 together.
    """
    official = sum(site.template == _OFFICIAL for site in cell.sites)
    more = len(cell.sites) - official
    others = templates if official else 1.0
    weights = [1 / official if site.template == _OFFICIAL else others / more for site in cell.sites]
    return list(zip(cell.sites, cell.amounts.tolist(), weights, strict=True))


def _of_everyone(site: Site, person: Person, everybody: Everybody) -> list[torch.Tensor]:
    """Inputs of some of the person's conditions, of the nearest people's and of anybody's."""
    groups = (person.photographs.inputs(site), person.neighbours.inputs(site), everybody.samples[site])
    return [inputs[:_SAMPLED] for inputs in groups]


def _figures(cell: Cell, ramp: Ramp, person: Person, everybody: Everybody) -> dict[str, float]:
    """Of the official template: the readout's error, who is missed, who is touched, and the highest value
    where it must be shut.
    """
    site, amount = cell.sites[0], float(cell.amounts[0])
    low, width = person.band.low, person.band.width

    def reading(recording: Recording) -> torch.Tensor:
        return recording.inputs(site).double() @ ramp.score / amount

    errors = [
        reading(recording) + low - recording.cosines[: len(recording.inputs(site))]
        for recording in (person.photographs, person.neighbours)
    ]
    photographs = reading(person.photographs)
    sure = photographs[person.photographs.cosines[: len(photographs)] >= person.band.high + 0.02]
    elsewhere = [other for other in everybody.sites if other not in cell.sites]
    rows = [inputs for other in elsewhere for inputs in _of_everyone(other, person, everybody)]
    return {
        "error": float(torch.cat(errors).square().mean().sqrt()),
        "missed": float((sure < 0.9 * width).double().mean()) if len(sure) else 0.0,
        "near_touched": float((reading(person.neighbours) > 0.1 * width).double().mean()),
        "shut": float((torch.cat([everybody.background, *rows]).double() @ ramp.score).max()),
    }
