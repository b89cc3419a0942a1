"""The geometry of a recognizer's embeddings, measured on a bank: how far one person's photographs scatter,
and how near other people come.

A person is a cone, not a point. Its width decides what a forgetting method must cover, and where it must
stop: how a photograph's cosine to the centroid of k *other* photographs is distributed, in which directions
photographs leave their centroid, and how close strangers come. Everything here is aggregate; no embedding of
anybody is stored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize

from piu_lora.errors import BadInput

__all__ = ["FARS", "LEVELS", "PHOTOGRAPHS", "Geometry", "Spread", "measure_geometry", "variation"]

PHOTOGRAPHS = (1, 2, 3, 5, 10)  # the k that are measured
FARS = (1e-2, 1e-3, 1e-4, 1e-5)
LEVELS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0)
_DRAWS = 20  # of k + 1 photographs, at most so many of one person
_RESAMPLED = 200
_BINS = 2000
_DIRECTIONS = 512  # unit deviations, each blended from several people's
_BLENDED = 3
_PAIRS = 4_000_000  # impostor pairs that are looked at
_PEOPLE = 2000  # with several photographs, at most so many are looked at


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


@dataclass(frozen=True)
class Geometry:
    """What is known of a recognizer's embeddings.

    Attributes:
        name: ``measured``, or the name of a profile that stands in for a bank with too few people.
        cosines: by k, of a photograph with the centroid of k others of the same person.
        far: by false-accept rate, the cosine of a photograph with another person's centroid that so many
            impostors reach.
        directions: (m, d) unit rows, blends of several people's deviations, each orthogonal to its centroid;
            none in a profile.
        people, photographs: of the bank; 0 in a profile.
        doubtful: share of the photographs left out because they fail verification against the person's
            others at a false-accept rate of 1e-2: somebody else's photograph under the person's name, or a
            face that was not read.
    """

    name: str
    cosines: dict[int, Spread]
    far: dict[float, float]
    directions: torch.Tensor | None = None
    people: int = 0
    photographs: int = 0
    doubtful: float = 0.0

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

    def to_dict(self) -> dict[str, Any]:
        """What may be shown and written down: figures, no directions."""
        return {
            "name": self.name,
            "people": self.people,
            "photographs": self.photographs,
            "doubtful": round(self.doubtful, 4),
            "far": {f"{far:g}": round(value, 4) for far, value in self.far.items()},
            "cosines": {str(k): _rounded(spread) for k, spread in self.cosines.items()},
        }


def measure_geometry(
    embeddings: torch.Tensor, labels: torch.Tensor, photographs: Sequence[int] = PHOTOGRAPHS, *, seed: int = 0
) -> Geometry:
    """Measure a bank; every draw is seeded.

    Args:
        embeddings: (n, d) unit rows, several a person.
        labels: (n,) the person of each, in any order.
        photographs: the k whose distribution is wanted; those that fewer than two people can show are left
            out.

    Raises:
        BadInput: fewer than two people have two photographs.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = normalize(embeddings.float(), dim=1)
    people = _grouped(rows, labels)
    far = _impostors(people, generator)
    several = [photos for photos in people if len(photos) > 1]
    several = [several[row] for row in torch.randperm(len(several), generator=generator)[:_PEOPLE].tolist()]
    trusted = [photos[_to_all_others(photos) >= far.get(FARS[0], -1.0)] for photos in several]
    looked_at = sum(map(len, several))
    several = [photos for photos in trusted if len(photos) > 1]
    if len(several) < 2:
        raise BadInput(
            f"{len(several)} people of the bank have two photographs or more, and its geometry needs two "
            "such people; give a larger bank"
        )
    cosines = {}
    for k in photographs:
        of_people = [_to_others(photos, k, generator) for photos in several if len(photos) > k]
        if len(of_people) >= 2:
            cosines[k] = _spread(of_people, generator)
    doubtful = 1 - sum(map(len, trusted)) / looked_at
    return Geometry(
        "measured", cosines, far, _directions(several, generator), len(people), len(rows), doubtful
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
    if geometry.directions is None:
        deviations = torch.randn(count, len(centre), generator=generator)
    else:
        chosen = torch.randint(len(geometry.directions), (count,), generator=generator)
        deviations = geometry.directions[chosen]
    across = normalize(deviations - (deviations @ centre)[:, None] * centre, dim=1)
    return cosine * centre + (1 - cosine.square()).clamp_min(0).sqrt() * across


def _grouped(rows: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    order = labels.argsort(stable=True)
    return [
        photographs
        for photographs in rows[order].split(torch.bincount(labels.long()).tolist())
        if len(photographs)
    ]


def _to_all_others(photographs: torch.Tensor) -> torch.Tensor:
    """(n,) cosines of each photograph with the centroid of all the others."""
    return (photographs * normalize(photographs.sum(dim=0) - photographs, dim=1)).sum(dim=1)


def _to_others(photographs: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """(draws,) cosines of one photograph with the centroid of k others."""
    draws = torch.rand(min(_DRAWS, 4 * len(photographs)), len(photographs), generator=generator).argsort(
        dim=1
    )[:, : k + 1]
    return (photographs[draws[:, 0]] * normalize(photographs[draws[:, 1:]].sum(dim=1), dim=1)).sum(dim=1)


def _spread(of_people: list[torch.Tensor], generator: torch.Generator) -> Spread:
    """Every person counts once: each gives as many cosines as the others, by repeating levels of their own
    draws.
    """
    even = torch.stack([photographs.sort().values[_ranks(len(photographs))] for photographs in of_people])
    means, lows = _resampled(even, generator)
    return Spread(
        float(even.mean()),
        float(even.std()),
        tuple(_quantiles(even.flatten(), torch.tensor(LEVELS)).tolist()),
        means,
        lows,
        len(of_people),
    )


def _resampled(
    even: torch.Tensor, generator: torch.Generator
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bootstrap intervals, over people, of the mean and of the 2 % quantile of (people, draws) cosines."""
    people, edges = len(even), torch.linspace(-1, 1, _BINS + 1)
    bins = torch.bucketize(even, edges).clamp(1, _BINS) - 1
    histogram = torch.zeros(people, _BINS).scatter_add_(1, bins, torch.ones_like(even))
    resampled = torch.randint(people, (_RESAMPLED, people), generator=generator)
    counts = torch.zeros(_RESAMPLED, people).scatter_add_(1, resampled, torch.ones(_RESAMPLED, people))
    reached = (counts @ histogram).cumsum(dim=1) >= 0.02 * even.numel()
    lows = edges[1:][reached.to(torch.uint8).argmax(dim=1)]
    return _ends(counts @ even.mean(dim=1) / people), _ends(lows)


def _ends(values: torch.Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975])).tolist()
    return low, high


def _ranks(count: int) -> torch.Tensor:
    return torch.linspace(0, count - 1, _DRAWS).round().long()


def _quantiles(values: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """torch.quantile takes 16 million values at most; this one any number."""
    ordered = values.sort().values
    return ordered[(levels * (len(ordered) - 1)).round().long()]


def _directions(several: list[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Each a unit blend of ``_BLENDED`` deviations of different people: directions in which photographs
    differ, nobody's own.
    """
    deviations = []
    for photographs in several:
        centre = normalize(photographs.mean(dim=0), dim=0)
        row = photographs[int(torch.randint(len(photographs), (), generator=generator))]
        deviations.append(normalize(row - (row @ centre) * centre, dim=0))
    pool = torch.stack(deviations)
    blends = torch.randint(len(pool), (_DIRECTIONS * 8, _BLENDED), generator=generator)
    signs = torch.randn(len(blends), _BLENDED, 1, generator=generator)
    return normalize((pool[blends] * signs).sum(dim=1), dim=1)


def _impostors(people: list[torch.Tensor], generator: torch.Generator) -> dict[float, float]:
    """The cosines that shares ``FARS`` of the pairs of a photograph and another person's centroid reach;
    what the pairs resolve.
    """
    order = torch.randperm(len(people), generator=generator)[: math.isqrt(_PAIRS)].tolist()
    centroids = torch.stack([normalize(people[row].mean(dim=0), dim=0) for row in order])
    probes = torch.stack([people[row][0] for row in order])
    scores = probes @ centroids.T
    pairs = scores[~torch.eye(len(scores), dtype=torch.bool)].sort(descending=True).values
    return {far: float(pairs[math.floor(far * len(pairs))]) for far in FARS if far * len(pairs) >= 10}


def _interpolated(levels: torch.Tensor, quantiles: Sequence[float]) -> torch.Tensor:
    at, values = torch.tensor(LEVELS), torch.tensor(quantiles)
    above = torch.searchsorted(at, levels).clamp(1, len(at) - 1)
    share = (levels - at[above - 1]) / (at[above] - at[above - 1])
    return values[above - 1] + share * (values[above] - values[above - 1])


def _between(one: Spread, other: Spread, share: float) -> Spread:
    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    def both(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
        return mix(a[0], b[0]), mix(a[1], b[1])

    return Spread(
        mix(one.mean, other.mean),
        mix(one.sd, other.sd),
        tuple(map(mix, one.quantiles, other.quantiles)),
        both(one.mean_interval, other.mean_interval),
        both(one.low_interval, other.low_interval),
        min(one.people, other.people),
    )


def _rounded(spread: Spread) -> dict[str, Any]:
    return {
        "mean": round(spread.mean, 4),
        "sd": round(spread.sd, 4),
        "people": spread.people,
        "mean_interval": [round(value, 4) for value in spread.mean_interval],
        "low_interval": [round(value, 4) for value in spread.low_interval],
        "quantiles": {
            f"{level:g}": round(value, 4) for level, value in zip(LEVELS, spread.quantiles, strict=True)
        },
    }
