"""Who is who among embeddings: clusters, the group that is one person, doubles, and the threshold that tells
them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.errors import BadInput
from piu_lora.identity.bank import IdentityBank

__all__ = [
    "Calibration",
    "Double",
    "calibrate",
    "cluster",
    "doubles",
    "largest_group",
    "merge_doubles",
    "similarities",
]

_CELLS = 2**25  # of a similarity matrix at once: 128 MB


def cluster(embeddings: torch.Tensor, eps: float, min_samples: int) -> npt.NDArray[np.int64]:
    """DBSCAN over cosine distance, as PIU builds its bank (arXiv 2605.22311, section 4.1).

    Args:
        embeddings: (n, d) unit rows.
        eps: two embeddings are neighbours at cosine ``1 - eps`` or more.
        min_samples: neighbours, itself included, that make an embedding the core of a cluster.

    Returns:
        (n,) cluster of each row, numbered in the order of their first row; -1 for those in none.
    """
    from sklearn.cluster import DBSCAN

    if not 0 < eps < 2 or min_samples < 1:
        raise BadInput(
            f"eps = {eps:g}, min_samples = {min_samples} is out of range: "
            "expected 0 < eps < 2 and min_samples >= 1"
        )
    labels: npt.NDArray[np.int64] = DBSCAN(eps=eps, min_samples=min_samples, metric="cosine").fit_predict(
        embeddings.numpy()
    )
    return labels


def largest_group(embeddings: torch.Tensor, cosine: float) -> list[int] | None:
    """The rows that are one person: embeddings at ``cosine`` or more are linked, and the largest linked group
    wins.

    Args:
        embeddings: (n, d) unit rows.

    Returns:
        Rows in order; None when two groups are equally large, so nobody can say who is meant.
    """
    labels = cluster(embeddings, 1 - cosine, 1)
    sizes = np.bincount(labels)
    if (sizes == sizes.max()).sum() > 1:
        return None
    return [int(row) for row in np.flatnonzero(labels == sizes.argmax())]


@dataclass(frozen=True)
class Double:
    """Two identities of a bank that may be one person."""

    first: str
    second: str
    cosine: float


def doubles(bank: IdentityBank, cosine: float) -> list[Double]:
    """Pairs of identities whose centroids lie at ``cosine`` or more, closest first."""
    pairs = []
    rows = max(1, _CELLS // len(bank))
    for start in range(0, len(bank), rows):
        block = bank.centroids[start : start + rows] @ bank.centroids.T
        for first, second in (block >= cosine).nonzero().tolist():
            if start + first < second:
                pairs.append(
                    Double(bank.ids[start + first], bank.ids[second], round(float(block[first, second]), 4))
                )
    return sorted(pairs, key=lambda double: (-double.cosine, double.first, double.second))


def merge_doubles(bank: IdentityBank, pairs: Sequence[Double]) -> IdentityBank:
    """Make one identity of each chain of doubles, under the id that comes first in the bank."""
    first = {identity: identity for identity in bank.ids}

    def root(identity: str) -> str:
        while first[identity] != identity:
            identity = first[identity]
        return identity

    for pair in pairs:
        remaining, merged = sorted((root(pair.first), root(pair.second)), key=bank.index)
        first[merged] = remaining
    people: dict[str, list[torch.Tensor]] = {}
    for identity in bank.ids:
        people.setdefault(root(identity), []).append(bank.of(identity))
    rows = [torch.cat(parts) for parts in people.values()]
    labels = torch.cat(
        [torch.full((len(part),), label, dtype=torch.int32) for label, part in enumerate(rows)]
    )
    return IdentityBank(torch.cat(rows), labels, list(people), bank.recognizer, bank.settings)


def similarities(
    embeddings: torch.Tensor, labels: torch.Tensor, pairs: int = 1_000_000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines of pairs of one identity, and of pairs of two.

    Args:
        embeddings: (n, d) unit rows.
        labels: (n,) identity of each row.
        pairs: at most about so many rows' worth of pairs are looked at, evenly spread; all of them in a small
            set.

    Returns:
        Two flat float32 tensors.
    """
    step = max(1, len(embeddings) ** 2 // (pairs * 20))
    same, different = [], []
    for row in range(0, len(embeddings), step):
        cosines = embeddings[row + 1 :] @ embeddings[row]
        equal = labels[row + 1 :] == labels[row]
        same.append(cosines[equal])
        different.append(cosines[~equal])
    return torch.cat(same), torch.cat(different)


@dataclass(frozen=True)
class Calibration:
    """A proposed DBSCAN eps, and what it rests on.

    Attributes:
        eps: ``1 -`` the cosine halfway between ``impostor`` and ``same_mean``.
        impostor: the mean cosine of a face to its nearest stranger.
        same_mean: the mean cosine of two photographs of one person.
        labelled: whether the identities were known, or had to be estimated from nearest neighbours.
        same, different: the cosines themselves, for a histogram.
    """

    eps: float
    impostor: float
    same_mean: float
    labelled: bool
    same: torch.Tensor
    different: torch.Tensor


def calibrate(embeddings: torch.Tensor, labels: torch.Tensor | None = None) -> Calibration:
    """Propose eps from the cosines between faces of one person and of different people.

    Without labels nearly all pairs are different people: their median and spread give the nearest stranger to
    expect among n faces, ``median + spread sqrt(2 ln n)``, and nearest neighbours well above that are taken
    for pairs of one person.

    Args:
        embeddings: (n, d) unit rows.
        labels: (n,) identity of each row, where they are known.

    Raises:
        BadInput: there is not a pair of one person to learn from.
    """
    if labels is not None and len(labels.unique()) < 2:
        raise BadInput(
            "the photographs show one identity only, and eps is what tells two apart; pass eps=DISTANCE"
        )
    if len(embeddings) < 3:
        raise BadInput(f"{len(embeddings)} faces are too few to propose eps from; pass eps=DISTANCE")
    identities = torch.arange(len(embeddings)) if labels is None else labels
    same, different = similarities(embeddings, identities)
    nearest = _nearest_stranger(embeddings, identities)
    if labels is None:
        middle = different.median()
        spread = float((different - middle).abs().median()) * 1.4826  # of a normal distribution
        impostor = float(middle) + spread * float(np.sqrt(2 * np.log(len(embeddings))))
        same = nearest[nearest > impostor + 2 * spread]
    else:
        impostor = float(nearest.mean())
    if len(same) == 0:
        raise BadInput(
            "no two of these faces look like one person, so there is nothing to propose eps from; "
            "pass eps=DISTANCE"
        )
    return Calibration(
        round(1 - (impostor + float(same.mean())) / 2, 3),
        impostor,
        float(same.mean()),
        labels is not None,
        same,
        different,
    )


def _nearest_stranger(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    blocks = []
    rows = max(1, _CELLS // len(embeddings))
    # Of a very large set a part says the same.
    for start in range(0, len(embeddings), rows * max(1, len(embeddings) // 50_000)):
        cosines = embeddings[start : start + rows] @ embeddings.T
        cosines[labels[start : start + rows, None] == labels[None, :]] = -1
        blocks.append(cosines.max(dim=1).values)
    return torch.cat(blocks)
