"""How sure a figure is: means with intervals over people, paired tests, Leak@k; on plain arrays."""

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from piu_lora.evidence.metrics import Array, clustered, interval, ratio_interval

__all__ = ["difference", "estimate", "leak_at_k", "paired", "share_interval", "sign_flip_test"]

_EXACT = 12  # clusters up to which every pattern of signs is tried


def estimate(values: Array, people: npt.ArrayLike) -> dict[str, Any]:
    """The mean of (n,) values, its interval over people, and n."""
    return {"mean": float(values.mean()), "interval": list(interval(values, people=people)), "n": len(values)}


def difference(before: Array, after: Array, people: npt.ArrayLike) -> dict[str, Any]:
    """The paired difference ``after - before``: mean, interval, and the two-sided p-value of
    ``sign_flip_test``.

    Args:
        before, after: (n,), pair by pair the same condition and seed.
        people: (n,) whose each pair is.
    """
    change = after - before
    return {
        "mean": float(change.mean()),
        "interval": list(interval(change, people=people)),
        "p": sign_flip_test(change, people),
    }


def paired(before: Array, after: Array, people: npt.ArrayLike) -> dict[str, Any]:
    """Before, after, their ratio and their difference, with intervals; no ratio where nothing was there
    before.
    """
    known = before.mean() != 0
    return {
        "before": float(before.mean()),
        "before_interval": list(interval(before, people=people)),
        "after": float(after.mean()),
        "after_interval": list(interval(after, people=people)),
        "ratio": float(after.mean() / before.mean()) if known else None,
        "ratio_interval": list(ratio_interval(after, before, people=people)) if known else None,
        "difference": difference(before, after, people),
        "n": len(before),
        "people": len(np.unique(people)),
    }


def sign_flip_test(differences: Array, people: npt.ArrayLike, *, seed: int = 0, draws: int = 10_000) -> float:
    """Two-sided p-value that paired differences are centred on zero: their signs are flipped, person by
    person (Fisher, 1935).

    Exact for up to 12 people, else ``(1 + k) / (1 + draws)`` over random patterns (Phipson and Smyth, 2010).
    Of a single person the signs of the images are flipped.
    """
    sums = clustered(differences, people)
    observed = abs(sums.sum()) * (1 - 1e-12)  # equal sums in another order still count
    if len(sums) <= _EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(sums))))
        return float((np.abs(signs @ sums) >= observed).mean())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, len(sums)))
    return float((1 + (np.abs(signs @ sums) >= observed).sum()) / (1 + draws))


def leak_at_k(verified: npt.ArrayLike, k: int) -> float | None:
    """Leak@k: the chance that at least one of ``k`` images drawn from these verifies, ``1 - C(n - c, k) /
    C(n, k)``.

    The unbiased estimator of pass@k (arXiv 2107.03374, equation 1) with verification as success; arXiv
    2608.30087 asks for the figure.

    Args:
        verified: (n,) bool, c of them true.

    Returns:
        None where there are fewer than k images.
    """
    hits = np.asarray(verified, bool)
    total, missed = len(hits), int((~hits).sum())
    return None if total < k else 1 - math.comb(missed, k) / math.comb(total, k)


def share_interval(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927), which is not empty where all trials end alike."""
    if not count:
        return 0.0, 1.0
    z, share = 1.96, successes / count
    shrink = z * z / count
    middle = share + shrink / 2
    half = z * math.sqrt(share * (1 - share) / count + shrink / (4 * count))
    return max((middle - half) / (1 + shrink), 0.0), min((middle + half) / (1 + shrink), 1.0)
