"""Verification: the cosine from which an embedding counts as a person, calibrated on pairs of different
people.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import normalize

from piu_lora.errors import BadInput
from piu_lora.identity.bank import IdentityBank

__all__ = [
    "PAIRS_PER_FAR",
    "Threshold",
    "centroid_blocks",
    "cosines_of_several",
    "far_threshold",
    "far_thresholds",
]

# Ten false accepts at least: the rate is then known to 1 / sqrt(10) = 32 % (one standard deviation of a
# count). In the tail of a normal distribution, at a rate of 1e-3, that moves the threshold by a tenth of the
# impostors' spread: 0.007 on real faces.
PAIRS_PER_FAR = 10
_MAX_PAIRS = 10_000_000
_BLOCK = 1024  # rows handled at once
_SINGLY = 1024  # people up to whom the bank is read once for each
_COSINES = 32_000_000  # held at once


@dataclass(frozen=True)
class Threshold:
    """An embedding whose cosine with a person's centroid is ``value`` or more is taken for that person.

    Attributes:
        value: the cosine.
        far: the share of impostor pairs at or above it is at most this.
        pairs: how many impostor pairs it rests on.
    """

    value: float
    far: float
    pairs: int


# A request for a hundred people, or an arena of many cells, asks again and again: a bank is read once.
_CALIBRATED: WeakKeyDictionary[IdentityBank, dict[tuple[float, ...], dict[float, Threshold | str]]] = (
    WeakKeyDictionary()
)


def far_threshold(bank: IdentityBank, far: float, *, seed: int = 0, max_pairs: int = _MAX_PAIRS) -> Threshold:
    """The smallest cosine at which at most a share ``far`` of the impostor pairs verifies.

    An impostor pair is an embedding against the centroid of another identity. Of the cosines ``s_1 >= ... >=
    s_N``, ``k = floor(far N)`` may verify, so the threshold is the next float32 above ``s_(k+1)`` (cf.
    ISO/IEC 19795-1, false-match rate).

    Every pair counts where there are no more than ``max_pairs``. Otherwise seeded samples of embeddings and
    of identities meet, each with each: of a million people, a few thousand rows are read.

    Args:
        far: false-accept rate, in (0, 1).
        seed: of the sample. The threshold is the bank's and not the run's, so that no run need pass one.

    Raises:
        BadInput: a rate out of range, fewer than ``PAIRS_PER_FAR / far`` pairs, or a threshold that most
            people's own embeddings miss: many are in the bank under two ids then, and pass for impostors. (A
            few such people, or other photographs under the second id, only raise the threshold: check the
            bank first.)
    """
    threshold = _thresholds(bank, [far], seed, max_pairs)[far]
    if isinstance(threshold, str):
        raise BadInput(threshold)
    return threshold


def far_thresholds(
    bank: IdentityBank, fars: Sequence[float], *, seed: int = 0
) -> dict[float, Threshold | str]:
    """The thresholds at several rates in one pass; the reason where ``far_threshold`` would refuse a rate."""
    return dict(_thresholds(bank, fars, seed, _MAX_PAIRS))


def _thresholds(
    bank: IdentityBank, fars: Sequence[float], seed: int, max_pairs: int
) -> dict[float, Threshold | str]:
    calibrated, key = _CALIBRATED.setdefault(bank, {}), (seed, max_pairs, *fars)
    if key not in calibrated:
        calibrated[key] = _calibrate(bank, fars, seed, max_pairs)
    return calibrated[key]


def _calibrate(
    bank: IdentityBank, fars: Sequence[float], seed: int, max_pairs: int
) -> dict[float, Threshold | str]:
    for far in fars:
        if not 0 < far < 1:
            raise BadInput(f"false-accept rate {far!r} is out of range: expected 0 < far < 1")
    probes, people = _sample(bank, max_pairs, seed)
    owners = bank.labels[probes].long()
    pairs = len(probes) * len(people) - int(torch.isin(owners, people).sum())
    sampled = pairs < len(bank.embeddings) * (len(bank) - 1)
    thresholds: dict[float, Threshold | str] = {
        far: _too_few(pairs, far, len(bank), sampled) for far in fars if pairs < PAIRS_PER_FAR / far
    }
    resolved = [far for far in fars if far not in thresholds]
    if not resolved:
        return thresholds
    top, own_cosine = _highest(bank, probes, owners, people, math.floor(max(resolved) * pairs) + 1)
    for far in resolved:
        value = float(torch.nextafter(top[math.floor(far * pairs)], torch.tensor(2.0)))
        thresholds[far] = (
            Threshold(value, far, pairs) if value <= own_cosine else _doubled(far, value, own_cosine)
        )
    return thresholds


def _highest(
    bank: IdentityBank, probes: torch.Tensor, owners: torch.Tensor, people: torch.Tensor, count: int
) -> tuple[torch.Tensor, float]:
    """The ``count`` highest impostor cosines, descending, and the median of the genuine ones."""
    centroids = torch.cat([block for _, block in centroid_blocks(bank, people)])
    top, genuine = torch.empty(0), []
    for rows, whose in zip(probes.split(_BLOCK), owners.split(_BLOCK), strict=True):
        scores = normalize(bank.embeddings[rows].float(), dim=1) @ centroids.T
        genuine_pairs = whose[:, None] == people
        genuine.append(scores[genuine_pairs])
        scores.masked_fill_(genuine_pairs, -2)  # no cosine: a genuine pair
        above = scores[scores > top[-1]] if len(top) == count else scores.flatten()
        top = torch.cat([top, above])
        top = top.topk(min(count, len(top))).values
    return top, float(
        torch.cat([*genuine, torch.tensor([2.0])]).median()
    )  # above every cosine where a sample meets nobody twice


def _doubled(far: float, value: float, own_cosine: float) -> str:
    return (
        f"at a false-accept rate of {far:g} the threshold is {value:.3f}, "
        f"but people's own embeddings lie at {own_cosine:.3f} "
        "(median): many are in the bank under two ids; see `piu-lora bank check`, "
        "or ask for a higher rate (anchor.far=...)"
    )


def _sample(bank: IdentityBank, max_pairs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of embeddings and of identities, ascending, whose product is about ``max_pairs`` at most."""
    rows, people = len(bank.embeddings), len(bank)
    if rows * (people - 1) <= max_pairs:
        return torch.arange(rows), torch.arange(people)
    generator = torch.Generator().manual_seed(seed)
    # As many of one as of the other, unless the bank has fewer people: a rate rests on the people met, not on
    # the pairs alone.
    references = min(people, max(math.isqrt(max_pairs), 1))
    probes = min(rows, max(max_pairs // references, 1))
    order = torch.randperm(people, generator=generator)[:references]
    return torch.randperm(rows, generator=generator)[:probes].sort().values, order.sort().values


def _too_few(pairs: int, far: float, people: int, sampled: bool) -> str:
    more = "raise max_pairs" if sampled else f"add people to the bank (it holds {people})"
    rate = (
        f" or ask for a rate of {PAIRS_PER_FAR / pairs:.2g} or more (anchor.far=...)"
        if pairs > PAIRS_PER_FAR
        else ""
    )
    return (
        f"{pairs} impostor pairs cannot resolve a false-accept rate of {far:g}: "
        f"at least {math.ceil(PAIRS_PER_FAR / far)} are needed; "
        f"{more}{rate}"
    )


def centroid_blocks(bank: IdentityBank, people: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``(people, centroids)`` block by block, (k,) and (k, d) float32: ``people`` are rows of ``bank.ids``,
    in any order.

    Only their embeddings are read, and none are kept.
    """
    starts = torch.searchsorted(bank.labels, torch.arange(len(bank) + 1, dtype=bank.labels.dtype))
    counts = starts.diff()
    for block in people.split(_BLOCK):
        sizes = counts[block]
        first = sizes.cumsum(0) - sizes
        places = torch.arange(int(sizes.sum())) + (starts[block] - first).repeat_interleave(sizes)
        # The bank has seen to it that every row is finite and has a direction.
        rows = normalize(bank.embeddings[places].float(), dim=1)
        if len(rows) > len(block):
            whose = torch.arange(len(block)).repeat_interleave(sizes)
            rows = normalize(torch.zeros(len(block), bank.width).index_add_(0, whose, rows), dim=1)
        yield block, rows


def cosines_of_several(bank: IdentityBank, vectors: torch.Tensor) -> Iterator[torch.Tensor]:
    """Of each of (n, d) unit vectors in turn, the cosine to every identity's centroid: (len(bank),) float32.

    For thousands of vectors the bank is read once for many of them, which may change a last digit.
    """
    if len(vectors) <= _SINGLY:
        yield from (bank.cosines(vector) for vector in vectors)
        return
    for part in vectors.split(max(_COSINES // len(bank), 1)):
        cosines = torch.empty(len(part), len(bank))
        for rows, centroids in centroid_blocks(bank, torch.arange(len(bank))):
            cosines[:, rows] = part @ centroids.T
        yield from cosines
