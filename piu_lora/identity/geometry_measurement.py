"""Measuring the geometry of a bank; see ``piu_lora.identity.geometry`` for what it is."""

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from piu_lora.errors import BadInput
from piu_lora.identity.geometry import (
    DIRECTIONS,
    FARS,
    LEVELS,
    PHOTOGRAPHS,
    Geometry,
    Impostors,
    Spread,
    Within,
)

__all__ = ["measure_geometry", "measure_impostors"]

_DRAWS = 20  # of k + 1 photographs, at most so many of one person
_RESAMPLED = 200
_BINS = 2000
_BLENDED = 3
_PAIRS = 4_000_000  # impostor pairs that are looked at
_PEOPLE = 2000  # with several photographs, at most so many are looked at
_RANK = 64  # of the covariance; at most a quarter of the people, so that no factor is one person's
_SCATTERED = 200  # people against whom photographs are held to see how far they stray


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
    pairs, centroids = _impostors(people, generator)
    far = _tail(pairs)
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
    impostors = Impostors(float(pairs.mean()), float(pairs.std()), _scatter(several, centroids))
    directions = _directions(several, generator)
    return Geometry(
        "measured", cosines, far, directions, len(people), len(rows), doubtful, impostors, _within(several)
    )


def measure_impostors(
    embeddings: torch.Tensor, labels: torch.Tensor, *, seed: int = 0
) -> tuple[dict[float, float], Impostors]:
    """How near other people come, for banks whose people have one photograph each; their scatter is unknown,
    0 here.

    Args:
        embeddings, labels: as for ``measure_geometry``; two people or more.
    """
    people = _grouped(normalize(embeddings.float(), dim=1), labels)
    pairs, _ = _impostors(people, torch.Generator().manual_seed(seed))
    return _tail(pairs), Impostors(float(pairs.mean()), float(pairs.std()), 0.0)


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
    blends = torch.randint(len(pool), (DIRECTIONS * 8, _BLENDED), generator=generator)
    signs = torch.randn(len(blends), _BLENDED, 1, generator=generator)
    return normalize((pool[blends] * signs).sum(dim=1), dim=1)


def _within(several: list[torch.Tensor]) -> Within:
    """Every person counts once, however many photographs there are."""
    width = several[0].shape[1]
    covariance = torch.zeros(width, width, dtype=torch.float64)
    for photographs in several:
        centre = normalize(photographs.mean(dim=0), dim=0)
        across = photographs - (photographs @ centre)[:, None] * centre
        rows = normalize(across, dim=1).double()
        covariance += rows.T @ rows / len(rows)
    values, vectors = torch.linalg.eigh(covariance / len(several))
    rank = min(_RANK, max(len(several) // 4, 1), width)
    factors = (vectors[:, -rank:] * values[-rank:].clamp_min(0).sqrt()).T.flip(0)
    rest = float(values[:-rank].clamp_min(0).sum()) / width if rank < width else 0.0
    return Within(factors.to(torch.float16), rest)


def _scatter(several: list[torch.Tensor], centroids: torch.Tensor) -> float:
    others = centroids[:_SCATTERED]
    variances = []
    for photographs in several:
        cosines = photographs @ others.T
        strangers = cosines.mean(dim=0) < cosines.mean(dim=0).amax()  # leaves out the person, if among them
        variances.append(cosines[:, strangers].var(dim=0).mean() if strangers.any() else torch.zeros(()))
    return float(torch.stack(variances).mean().sqrt())


def _impostors(people: list[torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines of pairs of a photograph and another person's centroid, descending, and these centroids."""
    order = torch.randperm(len(people), generator=generator)[: math.isqrt(_PAIRS)].tolist()
    centroids = torch.stack([normalize(people[row].mean(dim=0), dim=0) for row in order])
    probes = torch.stack([people[row][0] for row in order])
    scores = probes @ centroids.T
    pairs = scores[~torch.eye(len(scores), dtype=torch.bool)].sort(descending=True).values
    return pairs, centroids


def _tail(pairs: torch.Tensor) -> dict[float, float]:
    """The cosines that shares ``FARS`` of the pairs reach; what the pairs resolve."""
    return {far: float(pairs[math.floor(far * len(pairs))]) for far in FARS if far * len(pairs) >= 10}
