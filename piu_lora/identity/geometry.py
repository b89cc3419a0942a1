"""What is known of a recognizer's embeddings: how far one person's photographs scatter, and how near other
people come.

A person is a cone, not a point. Its width decides what a forgetting method must cover, and where it must
stop: how a photograph's cosine to the centroid of k *other* photographs is distributed, in which directions
photographs leave their centroid, and how close strangers come. Everything here is aggregate; no embedding of
anybody is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Self

import torch
from torch.nn.functional import normalize

__all__ = [
    "DIRECTIONS",
    "FARS",
    "LEVELS",
    "PHOTOGRAPHS",
    "Geometry",
    "Impostors",
    "Spread",
    "Within",
    "imagined_people",
    "turned",
    "variation",
]

PHOTOGRAPHS = (1, 2, 3, 5, 10)  # the k that are measured
FARS = (1e-2, 1e-3, 1e-4, 1e-5)
LEVELS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
DIRECTIONS = 512  # unit deviations, each blended from several people's or drawn from the covariance
_NORMAL = NormalDist()
# Some people stand in a bank under two ids and pass for impostors; they spoil rates below this one.
_TRUSTED_FAR = 1e-4


@dataclass(frozen=True)
class Spread:
    """A distribution of cosines.

    Attributes:
        mean, sd: every person counts once.
        quantiles: at ``LEVELS``.
        mean_interval: 95 % percentile bootstrap over people.
        low_interval: the same of the 2 % quantile.
        people: whom it rests on.
    """

    mean: float
    sd: float
    quantiles: tuple[float, ...]
    mean_interval: tuple[float, float]
    low_interval: tuple[float, float]
    people: int

    def quantile(self, level: float) -> float:
        """Linear between ``LEVELS``."""
        return float(_interpolated(torch.tensor([level]), self.quantiles)[0])

    def share_below(self, value: float) -> float:
        """The distribution function, linear between ``LEVELS``."""
        quantiles = torch.tensor(self.quantiles)
        above = int(torch.searchsorted(quantiles, torch.tensor(value)).clamp(1, len(quantiles) - 1))
        low, high = self.quantiles[above - 1], self.quantiles[above]
        share = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else float(value > high)
        return LEVELS[above - 1] + share * (LEVELS[above] - LEVELS[above - 1])

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count,) cosines, by the inverse of the distribution function."""
        return _interpolated(torch.rand(count, generator=generator), self.quantiles)

    def to_dict(self) -> dict[str, Any]:
        """Rounded to four digits."""
        return {
            "mean": round(self.mean, 4),
            "sd": round(self.sd, 4),
            "people": self.people,
            "mean_interval": [round(value, 4) for value in self.mean_interval],
            "low_interval": [round(value, 4) for value in self.low_interval],
            "quantiles": {
                f"{level:g}": round(value, 4) for level, value in zip(LEVELS, self.quantiles, strict=True)
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave."""
        quantiles = tuple(float(values["quantiles"][f"{level:g}"]) for level in LEVELS)
        means, lows = _pair(values["mean_interval"]), _pair(values["low_interval"])
        return cls(float(values["mean"]), float(values["sd"]), quantiles, means, lows, int(values["people"]))


@dataclass(frozen=True)
class Impostors:
    """The cosine of a photograph with the centroid of somebody else.

    Attributes:
        scatter: SD, over the photographs of one person, of their cosine with one and the same other person:
            how far photographs stray sideways.
    """

    mean: float
    sd: float
    scatter: float


@dataclass(frozen=True)
class Within:
    """The covariance of unit deviations of photographs from their person's centroid, at low rank.

    ``C = F^T F + rest I``: with standard normal g and h, ``F^T g + sqrt(rest) h`` is a deviation.

    Attributes:
        factors: (r, d), the square roots of the largest eigenvalues times their eigenvectors.
        rest: the mean of the eigenvalues that are left out.
    """

    factors: torch.Tensor
    rest: float

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count, d) unit deviations."""
        rank, width = self.factors.shape
        along = torch.randn(count, rank, generator=generator) @ self.factors.float()
        across = torch.randn(count, width, generator=generator) * self.rest**0.5
        return normalize(along + across, dim=1)


@dataclass(frozen=True)
class Geometry:
    """What is known of a recognizer's embeddings.

    Attributes:
        name: ``measured``, or the name of a profile that stands in for a bank with too few people.
        cosines: by k, of a photograph with the centroid of k others of the same person.
        far: by false-accept rate, the cosine of a photograph with another person's centroid that so many
            impostors reach.
        directions: (m, d) unit rows, in which photographs leave their centroids: blends of several people's
            deviations, or draws from ``within``; none in a profile.
        people, photographs: of the bank; 0 in a profile.
        doubtful: share of the photographs left out because they fail verification against the person's
            others at a false-accept rate of 1e-2: somebody else's photograph under the person's name, or a
            face that was not read.
        impostors: figures of the distribution that ``far`` is the tail of; None where nothing was measured.
        within: the directions as a bank keeps them.
    """

    name: str
    cosines: dict[int, Spread]
    far: dict[float, float]
    directions: torch.Tensor | None = None
    people: int = 0
    photographs: int = 0
    doubtful: float = 0.0
    impostors: Impostors | None = None
    within: Within | None = None

    def reach(self, photographs: int) -> Spread:
        """The spread for k photographs: a measured k as it is, others linear in 1/k; beyond the largest k,
        that one.
        """
        measured = sorted(self.cosines)
        if photographs in self.cosines or photographs >= measured[-1]:
            return self.cosines[min(photographs, measured[-1])]
        above = next(k for k in measured if k > photographs)
        below = max((k for k in measured if k < photographs), default=above)
        if below == above:
            return self.cosines[above]
        share = (1 / below - 1 / photographs) / (1 / below - 1 / above)
        return _between(self.cosines[below], self.cosines[above], share)

    def cosine_at(self, far: float, photographs: int = 1) -> float:
        """The cosine that a share ``far`` of the impostors reach, linear in normal quantiles between and
        beyond the measured rates.

        Args:
            photographs: whose centroid is compared. The more there are, the less noise there is in it, and
                the farther its cosines spread, by ``reach(k) / reach(1)``.
        """
        gain = self.reach(photographs).mean / self.reach(1).mean
        points = sorted((_NORMAL.inv_cdf(1 - rate), value) for rate, value in self.far.items())
        if self.impostors is not None:
            mean, sd = self.impostors.mean, self.impostors.sd
            points = [(0.0, mean), (1.0, mean + sd), *points]
        trusted = [point for point in points if point[0] <= _NORMAL.inv_cdf(1 - _TRUSTED_FAR) + 1e-9]
        normal_score = _NORMAL.inv_cdf(1 - far)
        above = next(
            (index for index, point in enumerate(trusted) if point[0] >= normal_score), len(trusted) - 1
        )
        (x0, y0), (x1, y1) = trusted[max(above - 1, 0)], trusted[max(above, 1)]
        if normal_score > trusted[-1][0]:
            (x0, y0) = trusted[max(len(trusted) - 3, 0)]  # a longer base carries farther
        return gain * (y1 + (normal_score - x1) * (y1 - y0) / (x1 - x0))

    def to_dict(self) -> dict[str, Any]:
        """What may be shown and written down: figures, no directions."""
        return {
            "name": self.name,
            "people": self.people,
            "photographs": self.photographs,
            "doubtful": round(self.doubtful, 4),
            "far": {f"{far:g}": round(value, 4) for far, value in self.far.items()},
            "impostors": self.impostors
            and {name: round(value, 4) for name, value in vars(self.impostors).items()},
            "cosines": {str(k): spread.to_dict() for k, spread in self.cosines.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], within: Within | None = None) -> Self:
        """What ``to_dict`` gave, with the directions beside it.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not of that form.
        """
        impostors = values.get("impostors")
        return cls(
            str(values["name"]),
            {int(k): Spread.from_dict(spread) for k, spread in values["cosines"].items()},
            {float(far): float(value) for far, value in values["far"].items()},
            None if within is None else within.draw(DIRECTIONS, torch.Generator().manual_seed(0)),
            int(values["people"]),
            int(values["photographs"]),
            float(values["doubtful"]),
            Impostors(**{name: float(value) for name, value in impostors.items()}) if impostors else None,
            within,
        )


def variation(
    known: torch.Tensor, geometry: Geometry, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Photographs that the person might have: the centroid of the known ones, turned along other people's
    deviations.

    ``x = c mu + sqrt(1 - c^2) v``, where c is drawn from the distribution of a photograph's cosine to the
    centroid of k others, k being the number of known photographs, and v is a deviation made orthogonal to mu.
    Photographs differ in the same ways for everybody.

    Args:
        known: (k, d) unit embeddings of one person.

    Returns:
        (count, d) unit rows.
    """
    centre = normalize(normalize(known.float(), dim=1).mean(dim=0), dim=0)
    cosine = geometry.reach(len(known)).draw(count, generator)[:, None]
    return turned(centre, geometry, cosine, generator)


def imagined_people(
    known: torch.Tensor, geometry: Geometry, people: int, photographs: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Who the person might be, and photographs of whoever that is: draws from what k photographs leave open.

    The true centroid lies at ``r_k = reach(k) / sqrt(reach(1))`` from that of the known photographs, since
    two photographs of one person meet at ``r_1^2``. It is turned by that much along a within-person
    deviation; its photographs lie around it as photographs lie around a centroid of many.

    Args:
        known: (k, d) unit embeddings of one person.

    Returns:
        (people, d) centroids and (people, photographs, d) unit rows.
    """
    centre = normalize(normalize(known.float(), dim=1).mean(dim=0), dim=0)
    single, several = geometry.reach(1).mean, geometry.reach(len(known)).mean
    cosine = torch.full((people, 1), min(several / single**0.5, 1.0))
    centres = turned(centre, geometry, cosine, generator)
    most = geometry.reach(max(geometry.cosines))
    # Of the largest k that was measured; of endlessly many photographs it would be a little more.
    cosines = most.draw(people * photographs, generator)[:, None]
    rows = turned(centres.repeat_interleave(photographs, dim=0), geometry, cosines, generator)
    return centres, rows.unflatten(0, (people, photographs))


def turned(
    centre: torch.Tensor, geometry: Geometry, cosine: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """(count, d) unit rows at ``cosine`` (count, 1) with ``centre``, (d,) or (count, d), in directions in
    which photographs differ; in random ones where the geometry knows none.
    """
    count, width = len(cosine), centre.shape[-1]
    if geometry.directions is None:
        deviations = torch.randn(count, width, generator=generator)
    else:
        chosen = torch.randint(len(geometry.directions), (count,), generator=generator)
        deviations = geometry.directions[chosen]
    across = normalize(deviations - (deviations * centre).sum(dim=-1, keepdim=True) * centre, dim=1)
    return cosine * centre + (1 - cosine.square()).clamp_min(0).sqrt() * across


def _interpolated(levels: torch.Tensor, quantiles: Sequence[float]) -> torch.Tensor:
    at, values = torch.tensor(LEVELS), torch.tensor(quantiles)
    above = torch.searchsorted(at, levels).clamp(1, len(at) - 1)
    share = (levels - at[above - 1]) / (at[above] - at[above - 1])
    return values[above - 1] + share * (values[above] - values[above - 1])


def _pair(values: Sequence[Any]) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _between(first: Spread, second: Spread, share: float) -> Spread:
    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    def both(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
        return mix(a[0], b[0]), mix(a[1], b[1])

    return Spread(
        mix(first.mean, second.mean),
        mix(first.sd, second.sd),
        tuple(map(mix, first.quantiles, second.quantiles)),
        both(first.mean_interval, second.mean_interval),
        both(first.low_interval, second.low_interval),
        min(first.people, second.people),
    )
